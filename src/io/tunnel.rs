//! Bytes between two connections through pipes in the kernel, both ways at once.

use super::breathe;
use super::deadline::Deadline;
use super::tcp::SharedSocket;
use super::tcp::TcpStream;
use crate::limits::TUNNEL_BIG_PIPES_MAX;
use crate::limits::TUNNEL_LONG_STREAM_BYTES;
use crate::limits::TUNNEL_LOOK_BYTES;
use crate::limits::TUNNEL_PIPE_BYTES;
use crate::limits::TUNNEL_PIPES_KEPT_MAX;
use crate::limits::TUNNEL_TURN_BYTES_MAX;
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
    /// Nothing moved for too long, or its time was over.
    pub idle: Cell<bool>,
}

/// What looks at the first bytes of a way on their way, and answers whether it wants to see more.
type Look<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Relays between `first` and `second` until both directions have ended, nothing has moved for so many milliseconds, or
/// the deadline has passed whatever moves (`within`).
/// An end on one side is passed on as an end to the other. `moved` is called whenever bytes have moved. `look`, if anybody wants
/// to, sees what comes from `first` as it goes on, in whatever pieces it comes, until it answers false: nothing waits for it.
/// Afterwards both connections are of no more use.
pub async fn relay<'a>(
    first: &TcpStream,
    second: &TcpStream,
    pipes: &'a Pipes,
    within: (u64, Deadline),
    flow: &Flow,
    moved: impl Fn(),
    look: Option<Look<'a>>,
) -> io::Result<()> {
    let (a, b) = (Ready::new(first)?, Ready::new(second)?);
    let alive = || {
        let deadline = first.deadlines().after(within.0).or_earlier(within.1);
        first.end_by(deadline);
        second.end_by(deadline);
        moved();
    };
    alive();
    let up = one_way(&a, &b, Loan::of(pipes, look), &flow.up, &flow.up_failed, &alive);
    let down = one_way(&b, &a, Loan::of(pipes, None), &flow.down, &flow.down_failed, &alive);
    tokio::join!(up, down);
    flow.idle.set(first.ended_by_deadline() || second.ended_by_deadline());
    Ok(())
}

async fn one_way(
    from: &Ready,
    to: &Ready,
    mut loan: Loan<'_>,
    moved: &Cell<u64>,
    failed: &Cell<Option<io::ErrorKind>>,
    alive: &impl Fn(),
) {
    match pump(from, to, &mut loan, moved, alive).await {
        Ok(()) => {
            loan.rest();
            to.end(Shutdown::Write);
        }
        Err(error) => {
            // One way broken is a broken tunnel: both ends must see it. Bytes left in its pipe must not reach another
            // tunnel, so the pipe goes with the loan.
            failed.set(Some(error.kind()));
            from.end(Shutdown::Both);
            to.end(Shutdown::Both);
        }
    }
}

/// One way's pipe, held only while bytes are on their way: a tunnel that rests keeps two descriptors, not six.
struct Loan<'a> {
    pipes: &'a Pipes,
    pipe: Option<Pipe>,
    grown: Option<Grown<'a>>,
    /// Who looks at what comes.
    look: Option<Look<'a>>,
}

impl<'a> Loan<'a> {
    fn of(pipes: &'a Pipes, look: Option<Look<'a>>) -> Loan<'a> {
        Loan { pipes, pipe: None, grown: None, look }
    }

    fn pipe(&mut self) -> io::Result<&mut Pipe> {
        match &mut self.pipe {
            Some(pipe) => Ok(pipe),
            none => Ok(none.insert(self.pipes.take()?)),
        }
    }

    /// Fills the pipe, which is empty, with what has come; 0 is the end. What is looked at goes on in the pieces that were seen.
    fn fill(&mut self, from: &std::net::TcpStream) -> io::Result<usize> {
        let Some(look) = self.look.take() else {
            let pipe = self.pipe()?;
            return pipe.fill(from, pipe.size());
        };
        let mut seen = [0; TUNNEL_LOOK_BYTES];
        let filled = from.peek(&mut seen).and_then(|here| self.pipe()?.fill(from, here));
        if filled.as_ref().map_or(true, |filled| *filled > 0 && look(&seen[..*filled])) {
            self.look = Some(look);
        }
        filled
    }

    /// Gives the pipe, which is empty, back. A big one stays with its stream: growing it again would cost more.
    fn rest(&mut self) {
        if self.grown.is_none()
            && let Some(pipe) = self.pipe.take()
        {
            self.pipes.give(pipe);
        }
    }

    fn grow_for(&mut self, moved: u64) {
        if self.grown.is_none() && moved >= TUNNEL_LONG_STREAM_BYTES {
            self.grown = self.pipes.may_grow();
            if let (Some(_), Some(pipe)) = (&self.grown, &mut self.pipe) {
                pipe.grow(TUNNEL_PIPE_BYTES);
            }
        }
    }
}

/// Fills the pipe only when it is empty and empties it before filling again: so a full pipe is never taken for a socket
/// without bytes, and a slow receiver holds its sender back.
async fn pump(from: &Ready, to: &Ready, loan: &mut Loan<'_>, moved: &Cell<u64>, alive: &impl Fn()) -> io::Result<()> {
    let (mut turns, mut bytes) = (0, 0);
    loop {
        let mut left = fill(from, loan).await?;
        if left == 0 {
            return Ok(());
        }
        bytes += left;
        let pipe = loan.pipe()?;
        while left > 0 {
            let drained = to.0.async_io(Interest::WRITABLE, |socket| pipe.drain(socket.std(), left, false)).await?;
            if drained == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left -= drained;
            moved.set(moved.get() + drained as u64);
            alive();
        }
        loan.grow_for(moved.get());
        turns += 1;
        if turns >= TUNNEL_TURNS_MAX || bytes >= TUNNEL_TURN_BYTES_MAX {
            (turns, bytes) = (0, 0);
            breathe().await;
        }
    }
}

/// Waits for bytes without a pipe, and fills one with those that came; 0 is their end.
async fn fill(from: &Ready, loan: &mut Loan<'_>) -> io::Result<usize> {
    loop {
        let mut ready = from.0.readable().await?;
        match ready.try_io(|socket| loan.fill(socket.get_ref().std())) {
            Ok(filled) => return filled,
            Err(_not_ready_after_all) => loan.rest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io;
    use crate::io::Deadlines;
    use std::io::Write;
    use std::rc::Rc;

    /// Bytes that go in a circle: what the tunnel sends on one end of a connection arrives at its other end, by the time the
    /// send returns, and goes through the tunnel again. So the tunnel always has work, whoever else runs on this machine.
    #[test]
    fn a_tunnel_that_always_has_work_gives_others_their_turn_after_so_many_bytes() {
        let moved = io::run(64, async {
            let deadlines = Deadlines::new();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut one = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut other, _) = listener.accept().unwrap();
            [&mut one, &mut other].into_iter().for_each(|end| end.write_all(&[7; 60_000]).unwrap());
            let (one, other) = (TcpStream::adopt(one, &deadlines), TcpStream::adopt(other, &deadlines));
            let (flow, pipes) = (Rc::new(Flow::default()), Pipes::default());
            let running = Rc::clone(&flow);
            let tunnel = io::spawn(async move {
                relay(&one, &other, &pipes, (60_000, Deadline::NEVER), &running, || (), None).await
            });
            let mut moved = Vec::new();
            let mut before = 0;
            // Somebody else's operations: each waits for the ring.
            for _ in 0..400 {
                breathe().await;
                let now = flow.up.get() + flow.down.get();
                moved.push(now - before);
                before = now;
            }
            tunnel.abort();
            let _ = tunnel.await;
            moved
        })
        .unwrap();
        let (most, all) = (moved.iter().max().unwrap(), moved.iter().sum::<u64>());
        // Two ways have a turn each, of which one may be the second half of theirs and the first of the next. Where nobody
        // gave turns, tokio would: after 128 steps of a task, which are four times as many bytes.
        let turn = 2 * (TUNNEL_TURN_BYTES_MAX + 128 * 1024) as u64;
        let count = moved.len() as u64;
        assert!(all > count * turn / 8, "the tunnel had no work: {all} bytes in {count} turns of others");
        assert!(
            *most <= 2 * turn && all <= count * turn,
            "{most} bytes in one turn, {all} in {count}; a turn is {turn}"
        );
    }
}
