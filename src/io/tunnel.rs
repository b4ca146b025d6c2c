//! Bytes between two connections through pipes in the kernel, both ways at once.

use super::breathe;
use super::tcp::SharedSocket;
use super::tcp::TcpStream;
use crate::limits::TUNNEL_BIG_PIPES_MAX;
use crate::limits::TUNNEL_LONG_STREAM_BYTES;
use crate::limits::TUNNEL_PIPE_BYTES;
use crate::limits::TUNNEL_PIPES_KEPT_MAX;
use crate::limits::TUNNEL_TURNS_MAX;
use crate::sys::pipes::Pipe;
use crate::sys::sockets;
use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The core's pipes, kept for the next tunnel.
#[derive(Default)]
pub struct Pipes {
    kept: RefCell<Vec<Pipe>>,
    big: Cell<usize>,
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        match self.kept.borrow_mut().pop() {
            Some(pipe) => Ok(pipe),
            None => Pipe::new(),
        }
    }

    fn give(&self, pipe: Pipe) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < TUNNEL_PIPES_KEPT_MAX {
            kept.push(pipe);
        }
    }

    /// Room for one more big pipe: the kernel gives a user so many pipe pages, and who has spent them gets tiny pipes.
    fn may_grow(&self) -> Option<Grown<'_>> {
        (self.big.get() < TUNNEL_BIG_PIPES_MAX).then(|| {
            self.big.set(self.big.get() + 1);
            Grown(self)
        })
    }
}

/// A big pipe's place among the few; dropped with the pipe.
struct Grown<'a>(&'a Pipes);

impl Drop for Grown<'_> {
    fn drop(&mut self) {
        self.0.big.set(self.0.big.get() - 1);
    }
}

/// A connection as tokio's reactor sees it: readiness only, the descriptor stays the connection's.
struct Ready(AsyncFd<SharedSocket>);

impl Ready {
    fn new(stream: &TcpStream) -> io::Result<Ready> {
        stream.std().set_nonblocking(true)?;
        // JUSTIFICATION: readiness of a descriptor that the connection owns; duplicating it would double their number.
        // SAFETY: `SharedSocket` holds a share of the connection's socket, so the descriptor stays open, and the same, for
        // the life of the `AsyncFd`.
        let registered = unsafe { AsyncFd::register(stream.share()) };
        Ok(Ready(registered.map_err(|error| error.into_parts().1)?))
    }

    fn end(&self, how: Shutdown) {
        // What is not connected any more has nothing to end.
        let _ = sockets::shutdown_raw(self.0.get_ref().as_raw_fd(), how);
    }
}

/// What a relay has moved so far, and how it ended.
#[derive(Debug, Default)]
pub struct Flow {
    /// Bytes from the first connection to the second.
    pub up: Cell<u64>,
    /// Bytes from the second connection to the first.
    pub down: Cell<u64>,
    /// The way up failed (not: ended).
    pub up_failed: Cell<Option<io::ErrorKind>>,
    /// The way down failed (not: ended).
    pub down_failed: Cell<Option<io::ErrorKind>>,
    /// Nothing moved for too long.
    pub idle: Cell<bool>,
}

/// Relays between `first` and `second` until both directions have ended or nothing has moved for `idle` milliseconds.
/// An end on one side is passed on as an end to the other. `moved` is called whenever bytes have moved. Afterwards both
/// connections are of no more use.
pub async fn relay(
    first: &TcpStream,
    second: &TcpStream,
    pipes: &Pipes,
    idle: u64,
    flow: &Flow,
    moved: impl Fn(),
) -> io::Result<()> {
    let (a, b) = (Ready::new(first)?, Ready::new(second)?);
    let alive = || {
        let deadline = first.deadlines().after(idle);
        first.end_by(deadline);
        second.end_by(deadline);
        moved();
    };
    alive();
    let up = one_way(&a, &b, pipes, &flow.up, &flow.up_failed, &alive);
    let down = one_way(&b, &a, pipes, &flow.down, &flow.down_failed, &alive);
    tokio::join!(up, down);
    flow.idle.set(first.ended_by_deadline() || second.ended_by_deadline());
    Ok(())
}

async fn one_way(
    from: &Ready,
    to: &Ready,
    pipes: &Pipes,
    moved: &Cell<u64>,
    failed: &Cell<Option<io::ErrorKind>>,
    alive: &impl Fn(),
) {
    let end = match pipes.take() {
        Ok(mut pipe) => {
            let mut grown = None;
            let end = pump(from, to, pipes, &mut pipe, &mut grown, moved, alive).await;
            // A failed way may have left bytes in its pipe, which must not reach another tunnel; a big one is not kept.
            if end.is_ok() && grown.is_none() {
                pipes.give(pipe);
            }
            end
        }
        Err(error) => Err(error),
    };
    match end {
        Ok(()) => {
            to.end(Shutdown::Write);
        }
        Err(error) => {
            // One way broken is a broken tunnel: both ends must see it.
            failed.set(Some(error.kind()));
            from.end(Shutdown::Both);
            to.end(Shutdown::Both);
        }
    }
}

/// Fills the pipe only when it is empty and empties it before filling again: so a full pipe is never taken for a socket
/// without bytes, and a slow receiver holds its sender back.
async fn pump<'a>(
    from: &Ready,
    to: &Ready,
    pipes: &'a Pipes,
    pipe: &mut Pipe,
    grown: &mut Option<Grown<'a>>,
    moved: &Cell<u64>,
    alive: &impl Fn(),
) -> io::Result<()> {
    let mut turns = 0;
    loop {
        let filled = from.0.async_io(Interest::READABLE, |socket| pipe.fill(socket.std(), pipe.size())).await?;
        if filled == 0 {
            return Ok(());
        }
        let mut left = filled;
        while left > 0 {
            let drained = to.0.async_io(Interest::WRITABLE, |socket| pipe.drain(socket.std(), left, false)).await?;
            if drained == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left -= drained;
            moved.set(moved.get() + drained as u64);
            alive();
        }
        if grown.is_none() && moved.get() >= TUNNEL_LONG_STREAM_BYTES {
            *grown = pipes.may_grow();
            if grown.is_some() {
                pipe.grow(TUNNEL_PIPE_BYTES);
            }
        }
        turns += 1;
        if turns >= TUNNEL_TURNS_MAX {
            turns = 0;
            breathe().await;
        }
    }
}
