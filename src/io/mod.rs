//! The cores' runtime: the only module that names `tokio_uring` and `io_uring`.
//!
//! What callers can rely on:
//! * An operation owns its buffer and a share of its socket until the kernel is done with both, also when nobody waits
//!   any more. A connection dropped with an operation under way is shut down first, so that the operation ends, the
//!   descriptor closes and the peer sees it.
//! * A deadline is a store into the connection's slot of the core's [`Deadlines`]; nothing wraps an operation. A sweeper
//!   shuts expired connections down (or cancels a connect), and the operation then ends by itself with `TimedOut`.
//! * Operations reach the kernel when the runtime parks. A task that always has something to do must [`breathe`].
#![allow(unsafe_code)] // the kernel reads and writes our buffers behind the compiler's back; each use says why it is sound

mod buffers;
mod deadline;
mod ring;
mod tcp;
mod tunnel;

pub use buffers::Buffers;
pub use deadline::Deadline;
pub use deadline::Deadlines;
pub use tcp::Asked;
pub use tcp::Receiving;
pub use tcp::TcpListener;
pub use tcp::TcpStream;
pub use tcp::Wait;
pub use tunnel::Flow;
pub use tunnel::Pipes;
pub use tunnel::relay;

use std::future::Future;

/// Starts a ring runtime on the calling thread, with room for `entries` submissions, and runs `main` to its end.
pub fn run<F: Future>(entries: u32, main: F) -> std::io::Result<F::Output> {
    let mut ring = tokio_uring::uring_builder();
    // Completions are reaped when we ask, not by interrupting the core: 15 % of a small request (see the measurements).
    ring.setup_coop_taskrun().setup_cqsize(entries.saturating_mul(4));
    let mut builder = tokio_uring::builder();
    builder.entries(entries).uring_builder(&ring);
    Ok(tokio_uring::Runtime::new(&builder)?.block_on(main))
}

/// Starts a task on this core.
pub fn spawn<F: Future + 'static>(task: F) -> tokio::task::JoinHandle<F::Output> {
    tokio_uring::spawn(task)
}

/// Operations that this core's ring has under way.
pub fn operations() -> u64 {
    ring::under_way()
}

/// Lets the ring have its turn: returns once everything submitted before has reached the kernel.
pub async fn breathe() {
    let _ = ring::submit((), io_uring::opcode::Nop::new().build()).await;
}
