//! The cores' runtime: the only module that names `tokio_uring` and `io_uring`.
//!
//! What callers can rely on:
//! * An operation owns its buffer and a share of its socket until the kernel is done with both, also when nobody waits
//!   any more. A connection dropped with an operation under way ends it first (a watch is cancelled, anything else is shut
//!   down), so that the descriptor closes and the peer sees it.
//! * A connection that waits for bytes holds no buffer: it is watched, and the kernel takes one when they come.
//! * A deadline is a store into the connection's slot of the core's [`Deadlines`]; nothing wraps an operation. A sweeper
//!   shuts expired connections down (or cancels a connect), and the operation then ends by itself with `TimedOut`.
//! * Operations reach the kernel when the runtime parks. A task that always has something to do must [`breathe`].
#![allow(unsafe_code)] // the kernel reads and writes our buffers behind the compiler's back; each use says why it is sound

mod ahead;
mod arrivals;
mod buffers;
mod deadline;
mod listener;
mod pipes;
mod pour;
mod ring;
mod shelf;
mod socket;
mod stream_ring;
mod tcp;
mod tunnel;

pub use buffers::Buffers;
pub use deadline::Deadline;
pub use deadline::Deadlines;
pub use listener::TcpListener;
pub use pipes::Pipes;
pub use pour::Dry;
pub use pour::Meter;
pub use pour::Patience;
pub use pour::pour;
pub use shelf::Shelf;
pub use tcp::Asked;
pub use tcp::TcpStream;
pub use tcp::Wait;
pub use tunnel::Flow;
pub use tunnel::relay;

use crate::base::clock::Mono;
use std::future::Future;
use std::rc::Rc;
use stream_ring::StreamRing;

/// Starts a core's runtime on the calling thread, with room for `entries` submissions, and runs `main` to its end.
///
/// It has two rings: tokio-uring's, for what happens once (accept, connect), and one of our own for the streams.
pub fn run<F: Future>(entries: u32, main: F) -> std::io::Result<F::Output> {
    let mut ring = tokio_uring::uring_builder();
    // Completions are reaped when we ask, not by interrupting the core: 15 % of a small request (see the measurements).
    ring.setup_coop_taskrun().setup_cqsize(entries.saturating_mul(4));
    let mut builder = tokio_uring::builder();
    builder.entries(entries).uring_builder(&ring);
    let streams = StreamRing::begin(entries)?;
    let runtime = tokio_uring::Runtime::new(&builder)?;
    let output = runtime.block_on(async move {
        let turning = spawn(streams.turn_always());
        let output = main.await;
        turning.abort();
        output
    });
    StreamRing::end();
    Ok(output)
}

/// Starts a task on this core.
pub fn spawn<F: Future + 'static>(task: F) -> tokio::task::JoinHandle<F::Output> {
    tokio_uring::spawn(task)
}

/// Operations that this core's rings have under way.
pub fn operations() -> u64 {
    ring::under_way() + StreamRing::here().under_way()
}

/// This core's stock of buffers for heads: what arrives comes in them.
pub fn heads() -> Rc<Buffers> {
    Rc::clone(StreamRing::here().stock())
}

/// The moment at which what is being worked on came, without reading the clock: as precise as the core is quick.
#[inline]
pub fn moment() -> Mono {
    StreamRing::moment()
}

/// Lets the rings have their turn: returns once everything submitted before has reached the kernel.
pub async fn breathe() {
    let _ = ring::submit((), io_uring::opcode::Nop::new().build()).await;
}
