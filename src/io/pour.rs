//! Bytes from one connection to another through a pipe in the kernel, one way, as many as were asked for and no more.

use super::breathe;
use super::deadline::Deadline;
use super::pipes::Loan;
use super::pipes::Pipes;
use super::ring;
use super::tcp::TcpStream;
use crate::limits::PIPE_LONG_BYTES;
use crate::limits::PIPE_LONG_FROM_BYTES;
use crate::limits::PIPE_TURN_BYTES_MAX;
use crate::sys::sockets;
use io_uring::opcode::PollAdd;
use io_uring::types::Fd;
use std::io;
use std::os::fd::AsRawFd;

/// Why a [`pour`] ended before all had gone over.
#[derive(Debug)]
pub enum Dry {
    /// Something has arrived from the giver already, and must be received first.
    Arrived,
    /// The giver ended.
    Ended,
    /// The giver failed; `TimedOut` if it gave nothing for too long.
    Giver(io::Error),
    /// The taker failed; `TimedOut` if it took nothing for too long.
    Taker(io::Error),
    /// There is no pipe to be had. All that was taken from the giver has reached the taker.
    NoPipe,
}

/// How long either side may keep a [`pour`] waiting.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For each part, in milliseconds.
    pub within: u64,
    /// For all.
    pub until: Deadline,
}

/// What a [`pour`] tells while it runs.
pub trait Meter {
    /// So many bytes were taken from the giver: they are not there any more, whether they arrive or not.
    fn taken(&mut self, bytes: u64);
    /// So many bytes have been given to the taker.
    fn given(&mut self, bytes: u64);
}

/// Moves `most` bytes from `from` to `to`; what comes behind them stays where it is. Nobody may be receiving from `from` or
/// sending to `to` meanwhile; the other directions are free.
pub async fn pour(
    from: &TcpStream,
    to: &TcpStream,
    pipes: &Pipes,
    most: u64,
    patience: Patience,
    meter: &mut impl Meter,
) -> Result<(), Dry> {
    if !from.is_at_rest().await {
        return Err(Dry::Arrived);
    }
    let mut loan = Loan::new(pipes);
    if !pipes.has_one_more() || !loan.is_usable() || !splices(from) || !splices(to) {
        loan.rest();
        return Err(Dry::NoPipe);
    }
    if most >= PIPE_LONG_FROM_BYTES {
        loan.lengthen();
    }
    let (mut left, mut turn) = (most, 0);
    while left > 0 {
        let taken = fill(from, &mut loan, left, patience).await?;
        left -= taken as u64;
        meter.taken(taken as u64);
        drain(to, &mut loan, taken, patience, meter).await?;
        turn += taken;
        if turn >= PIPE_TURN_BYTES_MAX && left > 0 {
            turn = 0;
            breathe().await;
        }
    }
    loan.rest();
    Ok(())
}

/// Fills the pipe, which is empty: so a full pipe is never taken for a connection without bytes.
async fn fill(from: &TcpStream, loan: &mut Loan<'_>, left: u64, patience: Patience) -> Result<usize, Dry> {
    let room = left.min(PIPE_LONG_BYTES as u64) as usize;
    loop {
        let filled = loan.pipe().map_err(Dry::Giver)?.fill(from.std(), room);
        match filled {
            Ok(0) if from.read_ended_by_deadline() => return Err(Dry::Giver(io::ErrorKind::TimedOut.into())),
            Ok(0) => {
                loan.rest();
                return Err(Dry::Ended);
            }
            Ok(filled) => return Ok(filled),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                from.receive_by(from.deadlines().after(patience.within).or_earlier(patience.until));
                let ready = ready(from, sockets::READABLE).await;
                from.receive_by(Deadline::NEVER);
                ready.map_err(Dry::Giver)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Dry::Giver(error)),
        }
    }
}

/// Empties the pipe, in which there are `left` bytes.
async fn drain(
    to: &TcpStream,
    loan: &mut Loan<'_>,
    mut left: usize,
    patience: Patience,
    meter: &mut impl Meter,
) -> Result<(), Dry> {
    while left > 0 {
        let drained = loan.pipe().map_err(Dry::Taker)?.drain(to.std(), left, false);
        match drained {
            Ok(0) => return Err(Dry::Taker(io::ErrorKind::WriteZero.into())),
            Ok(drained) => {
                left -= drained;
                meter.given(drained as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                to.end_by(to.deadlines().after(patience.within));
                let ready = ready(to, sockets::WRITABLE).await;
                to.end_by(Deadline::NEVER);
                ready.map_err(Dry::Taker)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if to.ended_by_deadline() => return Err(Dry::Taker(io::ErrorKind::TimedOut.into())),
            Err(error) => return Err(Dry::Taker(error)),
        }
    }
    Ok(())
}

/// Makes splice(2) answer at once instead of waiting. The ring's own receives and sends do not heed this.
fn splices(stream: &TcpStream) -> bool {
    stream.std().set_nonblocking(true).is_ok()
}

/// Waits until the connection has bytes or room, or has ended.
async fn ready(stream: &TcpStream, what: u32) -> io::Result<()> {
    let share = stream.share();
    let entry = PollAdd::new(Fd(share.as_raw_fd()), what).build();
    ring::submit(share, entry).await.0.map(|_| ())
}

impl TcpStream {
    /// Whether nothing has come that was not received yet: no byte, no end. Only for a connection that a [`pour`] has been at.
    pub fn is_silent(&self) -> bool {
        self.std().peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io;
    use crate::io::Deadlines;
    use crate::io::Wait;
    use crate::limits::PIPES_LENT_MAX;
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener as StdListener;
    use std::net::TcpStream as StdStream;
    use std::rc::Rc;

    #[derive(Default)]
    struct Sum(u64, u64);

    impl Meter for Sum {
        fn taken(&mut self, bytes: u64) {
            self.0 += bytes;
        }

        fn given(&mut self, bytes: u64) {
            self.1 += bytes;
        }
    }

    /// A peer, and our end of the connection to it.
    fn connected(deadlines: &Rc<Deadlines>) -> (StdStream, TcpStream) {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        (peer, TcpStream::adopt(listener.accept().unwrap().0, deadlines))
    }

    fn patience(deadlines: &Deadlines) -> Patience {
        Patience { within: 5_000, until: deadlines.after(20_000) }
    }

    #[test]
    fn as_much_is_poured_as_was_asked_for_and_the_rest_can_be_received() {
        io::run(64, async {
            let deadlines = Deadlines::new();
            let ((mut giver, from), (mut taker, to)) = (connected(&deadlines), connected(&deadlines));
            let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
            let (expected, pipes, mut sum) = (sent.clone(), Pipes::default(), Sum::default());
            let giving = std::thread::spawn(move || {
                giver.write_all(&sent).unwrap();
                giver.write_all(b"behind").unwrap();
                giver
            });
            let taking = std::thread::spawn(move || {
                let mut got = vec![0; 3_000_000];
                taker.read_exact(&mut got).unwrap();
                (taker, got)
            });
            pour(&from, &to, &pipes, 3_000_000, patience(&deadlines), &mut sum).await.unwrap();
            assert_eq!((sum.0, sum.1), (3_000_000, 3_000_000));
            let (taker, got) = taking.join().unwrap();
            assert!(got == expected);
            let (received, buf) = from.recv(Vec::with_capacity(64), deadlines.after(5_000), Wait::Later).await;
            assert_eq!((received.unwrap(), &buf[..]), (6, &b"behind"[..]));
            assert!(from.is_at_rest().await && from.is_silent());
            drop(giving.join().unwrap());
            let ended = pour(&from, &to, &pipes, u64::MAX, patience(&deadlines), &mut sum).await;
            assert!(matches!(ended, Err(Dry::Ended)), "{ended:?}");
            taker.set_nonblocking(true).unwrap();
            assert!((&taker).read(&mut [0]).is_err(), "nothing but what was asked for went over");
        })
        .unwrap();
    }

    #[test]
    fn without_a_pipe_nothing_is_taken() {
        io::run(64, async {
            let deadlines = Deadlines::new();
            let ((mut giver, from), (_taker, to)) = (connected(&deadlines), connected(&deadlines));
            giver.write_all(&[7; 1000]).unwrap();
            let (pipes, mut sum) = (Pipes::default(), Sum::default());
            let mut lent: Vec<Loan<'_>> = (0..PIPES_LENT_MAX).map(|_| Loan::new(&pipes)).collect();
            lent.iter_mut().for_each(|loan| assert!(loan.is_usable()));
            let refused = pour(&from, &to, &pipes, 1000, patience(&deadlines), &mut sum).await;
            assert!(matches!(refused, Err(Dry::NoPipe)), "{refused:?}");
            drop(lent);
            pour(&from, &to, &pipes, 1000, patience(&deadlines), &mut sum).await.unwrap();
            assert_eq!((sum.0, sum.1), (1000, 1000));
        })
        .unwrap();
    }
}
