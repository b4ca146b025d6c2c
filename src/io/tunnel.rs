//! Bytes between two connections through pipes in the kernel, both ways at once.

use super::breathe;
use super::deadline::Deadline;
use super::pipes::Loan;
use super::pipes::Pipes;
use super::tcp::SharedSocket;
use super::tcp::TcpStream;
use crate::limits::PIPE_LONG_BYTES;
use crate::limits::PIPE_LONG_FROM_BYTES;
use crate::limits::PIPE_TURN_BYTES_MAX;
use crate::limits::PIPE_TURNS_MAX;
use crate::limits::TUNNEL_LOOK_BYTES;
use crate::sys::sockets;
use std::cell::Cell;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::task::Poll;
use tokio::io::unix::AsyncFd;

/// A connection as tokio's reactor sees it: readiness only, the descriptor stays the connection's. One task waits for it to be
/// readable and one for it to be writable, so the reactor's two places for wakers are enough and no list of waiters is kept.
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
    let mut up = pin!(one_way(&a, &b, (Loan::new(pipes), look), &flow.up, &flow.up_failed, &alive));
    let mut down = pin!(one_way(&b, &a, (Loan::new(pipes), None), &flow.down, &flow.down_failed, &alive));
    let (mut up_over, mut down_over) = (false, false);
    poll_fn(|cx| {
        up_over = up_over || up.as_mut().poll(cx).is_ready();
        down_over = down_over || down.as_mut().poll(cx).is_ready();
        if up_over && down_over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    flow.idle.set(first.ended_by_deadline() || second.ended_by_deadline());
    Ok(())
}

async fn one_way(
    from: &Ready,
    to: &Ready,
    (mut loan, look): (Loan<'_>, Option<Look<'_>>),
    moved: &Cell<u64>,
    failed: &Cell<Option<io::ErrorKind>>,
    alive: &impl Fn(),
) {
    match pump(from, to, &mut loan, look, moved, alive).await {
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

/// Fills the pipe only when it is empty and empties it before filling again: so a full pipe is never taken for a socket
/// without bytes, and a slow receiver holds its sender back.
async fn pump(
    from: &Ready,
    to: &Ready,
    loan: &mut Loan<'_>,
    mut look: Option<Look<'_>>,
    moved: &Cell<u64>,
    alive: &impl Fn(),
) -> io::Result<()> {
    let (mut turns, mut bytes) = (0, 0);
    loop {
        let mut left = fill(from, loan, &mut look).await?;
        if left == 0 {
            return Ok(());
        }
        bytes += left;
        let pipe = loan.pipe()?;
        while left > 0 {
            let mut ready = poll_fn(|cx| to.0.poll_write_ready(cx)).await?;
            let Ok(drained) = ready.try_io(|socket| pipe.drain(socket.get_ref().std(), left, false)) else { continue };
            let drained = drained?;
            if drained == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left -= drained;
            moved.set(moved.get() + drained as u64);
            alive();
        }
        if moved.get() >= PIPE_LONG_FROM_BYTES {
            loan.lengthen();
        }
        turns += 1;
        if turns >= PIPE_TURNS_MAX || bytes >= PIPE_TURN_BYTES_MAX {
            (turns, bytes) = (0, 0);
            breathe().await;
        }
    }
}

/// Waits for bytes without a pipe, and fills one with those that came; 0 is their end.
async fn fill(from: &Ready, loan: &mut Loan<'_>, look: &mut Option<Look<'_>>) -> io::Result<usize> {
    loop {
        let mut ready = poll_fn(|cx| from.0.poll_read_ready(cx)).await?;
        match ready.try_io(|socket| fill_now(socket.get_ref().std(), loan, look)) {
            Ok(filled) => return filled,
            Err(_not_ready_after_all) => loan.rest(),
        }
    }
}

/// Fills the pipe, which is empty, with what has come. What is looked at goes on in the pieces that were seen.
fn fill_now(from: &std::net::TcpStream, loan: &mut Loan<'_>, look: &mut Option<Look<'_>>) -> io::Result<usize> {
    let Some(looking) = look.take() else { return loan.pipe()?.fill(from, PIPE_LONG_BYTES) };
    let mut seen = [0; TUNNEL_LOOK_BYTES];
    let filled = from.peek(&mut seen).and_then(|here| loan.pipe()?.fill(from, here));
    if filled.as_ref().map_or(true, |filled| *filled > 0 && looking(&seen[..*filled])) {
        *look = Some(looking);
    }
    filled
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
        let turn = 2 * (PIPE_TURN_BYTES_MAX + 128 * 1024) as u64;
        let count = moved.len() as u64;
        assert!(all > count * turn / 8, "the tunnel had no work: {all} bytes in {count} turns of others");
        assert!(
            *most <= 2 * turn && all <= count * turn,
            "{most} bytes in one turn, {all} in {count}; a turn is {turn}"
        );
    }
}
