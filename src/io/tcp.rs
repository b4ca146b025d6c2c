//! TCP on the ring.

use super::deadline::Deadline;
use super::deadline::Deadlines;
use super::deadline::Expiry;
use super::ring;
use super::socket::Socket;
use crate::sys::sockets;
use crate::sys::sockets::RawAddress;
use io_uring::opcode;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::rc::Rc;

/// What a receive waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Bytes that are likely here already.
    Soon,
    /// Bytes that the peer has yet to send.
    Later,
    /// A next request that need not come: [`Deadlines::end_idle`] ends the wait.
    Idle,
}

/// A connection on this core. Dropping it ends what it has under way, then closes it.
pub struct TcpStream {
    socket: Rc<Socket>,
}

/// What became of [`TcpStream::ask`].
pub struct Asked {
    /// Whether the whole was sent.
    pub sent: io::Result<()>,
    /// What was sent, given back.
    pub ask: Vec<u8>,
    /// How many bytes of the answer came.
    pub received: io::Result<usize>,
    /// They, behind what the buffer held before.
    pub answer: Vec<u8>,
}

impl TcpStream {
    /// Takes a connected socket over, which must be in blocking mode (the ring waits for it itself).
    pub fn adopt(std: std::net::TcpStream, deadlines: &Rc<Deadlines>) -> TcpStream {
        let entered = deadlines.enter(std.as_raw_fd());
        TcpStream { socket: Socket::new(std, entered) }
    }

    /// Connects to `address`; ends with `TimedOut` soon after `deadline`.
    pub async fn connect(address: SocketAddr, deadlines: &Rc<Deadlines>, deadline: Deadline) -> io::Result<TcpStream> {
        TcpStream::connect_from(None, address, deadlines, deadline).await
    }

    /// As [`TcpStream::connect`], leaving from the address `from` of this host (`AddrNotAvailable` if it is none).
    pub async fn connect_from(
        from: Option<IpAddr>,
        address: SocketAddr,
        deadlines: &Rc<Deadlines>,
        deadline: Deadline,
    ) -> io::Result<TcpStream> {
        let socket = sockets::tcp_socket(&address)?;
        if let Some(from) = from {
            sockets::leave_from(&socket, from)?;
        }
        let stream = TcpStream::adopt(std::net::TcpStream::from(socket), deadlines);
        stream.socket.std.set_nodelay(true)?;
        let raw = Box::new(RawAddress::new(address));
        let entry = opcode::Connect::new(stream.socket.fd(), raw.as_ptr().cast(), raw.size()).build();
        stream.socket.entered.on_write(Expiry::Cancel);
        stream.socket.entered.write_by(deadline);
        // `raw` is boxed, so its bytes stay where they are; the socket's share keeps the descriptor open.
        let (result, _) = ring::submit((Rc::clone(&stream.socket), raw), entry).await;
        stream.socket.entered.write_by(Deadline::NEVER);
        stream.socket.entered.on_write(Expiry::EndBoth);
        match result {
            Ok(_) => Ok(stream),
            Err(_) if stream.socket.entered.write_expired() => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }

    /// Receives behind what `buf` holds. `Ok(0)` is the end of the stream; `TimedOut` means the deadline passed (the
    /// connection can then still be written to).
    ///
    /// A wait for what has yet to come needs no buffer: `buf` may be `Vec::new()`, and the one that comes back is of the
    /// core's stock ([`super::heads`]).
    pub async fn recv(&self, buf: Vec<u8>, deadline: Deadline, wait: Wait) -> (io::Result<usize>, Vec<u8>) {
        let socket = &self.socket;
        if !socket.has_news() {
            if wait == Wait::Soon {
                return self.recv_into(buf, deadline).await;
            }
            socket.entered.wait_to_read(deadline, wait == Wait::Idle);
            // In each poll: a watch that was being ended when this wait began must begin again.
            poll_fn(|cx| {
                socket.watch(wait == Wait::Idle);
                socket.poll_news(cx)
            })
            .await;
            socket.entered.wait_to_read(Deadline::NEVER, false);
        }
        self.take_news(buf)
    }

    /// Bodies go straight into the caller's buffer.
    async fn recv_into(&self, buf: Vec<u8>, deadline: Deadline) -> (io::Result<usize>, Vec<u8>) {
        let socket = &self.socket;
        poll_fn(|cx| socket.poll_unwatched(cx)).await;
        if socket.has_news() {
            return self.take_news(buf);
        }
        if buf.len() == buf.capacity() {
            return (Err(io::Error::other("a receive needs room in its buffer")), buf);
        }
        let before = buf.len();
        socket.receive(buf, true);
        socket.entered.wait_to_read(deadline, false);
        poll_fn(|cx| socket.poll_news(cx)).await;
        socket.entered.wait_to_read(Deadline::NEVER, false);
        match socket.take_arrived() {
            Some(buf) => (Ok(buf.len() - before), buf),
            None => (socket.ended(), socket.take_room()),
        }
    }

    /// What has arrived, behind what `buf` holds.
    #[inline]
    fn take_news(&self, mut buf: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let Some(arrived) = self.socket.take_arrived() else { return (self.socket.ended(), buf) };
        let count = arrived.len();
        if buf.capacity() == 0 {
            return (Ok(count), arrived);
        }
        buf.extend_from_slice(&arrived);
        self.socket.ring().stock().give(arrived);
        (Ok(count), buf)
    }

    /// Has what comes from now on arrive by itself, so that [`TcpStream::is_quiet`] can tell without asking the kernel.
    pub fn watch(&self) {
        self.socket.forget_waiters();
        self.socket.watch(false);
    }

    /// Whether nothing has come that nobody asked for: no bytes, no end of the stream. Only for a watched connection.
    pub fn is_quiet(&self) -> bool {
        !self.socket.has_news()
    }

    /// Nothing is received by itself any more; answers what had been, and from then on all bytes stay in the socket, for
    /// others who read it (such as [`super::relay`]).
    pub async fn unwatch(&self) -> Vec<u8> {
        poll_fn(|cx| self.socket.poll_unwatched(cx)).await;
        let mut all = Vec::new();
        while let Some(arrived) = self.socket.take_arrived() {
            all.extend_from_slice(&arrived);
            self.socket.ring().stock().give(arrived);
        }
        all
    }

    /// Sends the whole of `ask` and waits for the beginning of the answer, which comes behind what `answer` holds: the caller
    /// wakes once, for the answer or at `deadline`. What the peer has not taken then it must take within `within`
    /// milliseconds.
    pub async fn ask(&self, ask: Vec<u8>, answer: Vec<u8>, within: u64, deadline: Deadline) -> Asked {
        let length = ask.len();
        self.sent_before().await;
        self.socket.begin_send(ask, 0, true);
        // One deadline for both: nobody is woken when the send is done, who could take a second one back.
        let (received, answer) = self.recv(answer, deadline, Wait::Later).await;
        // Done long ago, unless the peer answers or leaves before it has taken the whole, or takes nothing at all.
        self.socket.entered.write_by(self.deadlines().after(within));
        let (result, ask) = poll_fn(|cx| self.socket.poll_sent(cx)).await;
        self.socket.entered.write_by(Deadline::NEVER);
        let sent = match result {
            Ok(sent) if sent == length => Ok(()),
            _ if self.socket.entered.write_expired() => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) => Err(error),
        };
        Asked { sent, ask, received, answer }
    }

    /// Sends `buf` from `from` to its end. Each part the peer takes puts the deadline off to `within` milliseconds later.
    pub async fn send(&self, buf: Vec<u8>, from: usize, within: u64) -> (io::Result<()>, Vec<u8>) {
        let (mut buf, mut at) = (buf, from);
        self.sent_before().await;
        while at < buf.len() {
            self.socket.begin_send(buf, at, false);
            self.socket.entered.write_by(self.deadlines().after(within));
            let (result, back) = poll_fn(|cx| self.socket.poll_sent(cx)).await;
            self.socket.entered.write_by(Deadline::NEVER);
            buf = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(sent) => at += sent,
                Err(_) if self.socket.entered.write_expired() => return (Err(io::ErrorKind::TimedOut.into()), buf),
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    /// A send whose future was dropped goes on until the kernel is done; there is one at a time.
    #[inline]
    async fn sent_before(&self) {
        if self.socket.is_sending() {
            let _ = poll_fn(|cx| self.socket.poll_sent(cx)).await;
        }
    }

    /// Tells the peer that nothing more comes from us.
    pub fn end_writing(&self) {
        // A peer that is gone already needs no telling.
        let _ = self.socket.std.shutdown(Shutdown::Write);
    }

    /// Ends the connection in both directions: operations under way complete, the peer sees the end.
    pub fn end(&self) {
        let _ = self.socket.std.shutdown(Shutdown::Both);
    }

    /// Makes the coming close a reset, so that the peer can tell a cut stream from a whole one.
    pub fn reset_on_close(&self) {
        let _ = sockets::reset_on_close(&self.socket.std);
    }

    /// Puts the deadline of a receive under way, or of the next, at `deadline` instead.
    pub fn receive_by(&self, deadline: Deadline) {
        self.socket.entered.read_by(deadline);
    }

    /// Both directions end at `deadline`, whatever the single operations may: what an exchange may take altogether. It does
    /// not end a [`Wait::Idle`], which belongs to no exchange.
    #[inline]
    pub fn exchange_by(&self, deadline: Deadline) {
        self.socket.entered.exchange_by(deadline);
    }

    /// The other end's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.std.peer_addr()
    }

    /// Our end's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.std.local_addr()
    }

    /// The table the connection stands in.
    pub fn deadlines(&self) -> &Rc<Deadlines> {
        self.socket.entered.table()
    }

    pub(super) fn std(&self) -> &std::net::TcpStream {
        &self.socket.std
    }

    pub(super) fn share(&self) -> SharedSocket {
        SharedSocket(Rc::clone(&self.socket))
    }

    /// Both directions end at `deadline`, whatever goes on.
    pub(super) fn end_by(&self, deadline: Deadline) {
        self.socket.entered.write_by(deadline);
    }

    pub(super) fn ended_by_deadline(&self) -> bool {
        self.socket.entered.write_expired()
    }

    pub(super) fn read_ended_by_deadline(&self) -> bool {
        self.socket.entered.read_expired()
    }

    /// Whether all that comes stays in the socket from here on; not if something has arrived that nobody has received.
    pub(super) async fn is_at_rest(&self) -> bool {
        poll_fn(|cx| self.socket.poll_unwatched(cx)).await;
        !self.socket.has_news()
    }
}

/// A share of a connection's socket that keeps its descriptor open.
pub(super) struct SharedSocket(Rc<Socket>);

impl SharedSocket {
    pub(super) fn std(&self) -> &std::net::TcpStream {
        &self.0.std
    }
}

impl AsRawFd for SharedSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.std.as_raw_fd()
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.socket.forget_waiters();
        // Another share means an operation is under way: the kernel keeps it until it is done, so the operation has to end.
        // A watch is cancelled. Shutting down ends receives and sends; a connect is cancelled by the next sweep.
        if self.socket.abandon() {
            self.end();
            self.socket.entered.expire_now();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::clock::Mono;
    use crate::io;
    use crate::io::TcpListener;
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener as StdListener;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    /// Runs `test` on a core with a sweeper.
    pub(in crate::io) fn on_a_core<F: Future>(test: impl FnOnce(Rc<Deadlines>) -> F) -> F::Output {
        io::run(64, async {
            let deadlines = Deadlines::new();
            io::spawn(Rc::clone(&deadlines).sweep(|_| ()));
            test(deadlines).await
        })
        .unwrap()
    }

    async fn pair(deadlines: &Rc<Deadlines>) -> (TcpStream, std::net::TcpStream) {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let far = deadlines.after(5_000);
        let ours = TcpStream::connect(listener.local_addr().unwrap(), deadlines, far).await.unwrap();
        (ours, listener.accept().unwrap().0)
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let start = Mono::now();
        while !holds() {
            assert!(start.0.elapsed() < Duration::from_secs(5), "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn bytes_go_both_ways_and_a_read_appends() {
        on_a_core(|deadlines| async move {
            let (ours, mut theirs) = pair(&deadlines).await;
            let (sent, _) = ours.send(b"..to them".to_vec(), 2, 1000).await;
            sent.unwrap();
            let mut got = [0; 7];
            theirs.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"to them");
            theirs.write_all(b" and back").unwrap();
            let mut buf = Vec::with_capacity(64);
            buf.extend_from_slice(b"there");
            let (count, buf) = ours.recv(buf, deadlines.after(1000), Wait::Later).await;
            assert_eq!((count.unwrap(), &buf[..]), (9, &b"there and back"[..]));
        });
    }

    #[test]
    fn asking_wakes_for_the_answer_and_what_comes_unasked_shows() {
        on_a_core(|deadlines| async move {
            let (ours, mut theirs) = pair(&deadlines).await;
            ours.watch();
            io::breathe().await;
            assert!(ours.is_quiet());
            theirs.write_all(b"answered").unwrap();
            let asked = ours.ask(b"question".to_vec(), Vec::new(), 1_000, deadlines.after(5_000)).await;
            assert_eq!((asked.received.unwrap(), &asked.answer[..]), (8, &b"answered"[..]));
            assert_eq!((asked.sent.is_ok(), &asked.ask[..]), (true, &b"question"[..]));
            assert!(ours.is_quiet());
            theirs.write_all(b"!").unwrap();
            until("the unasked byte shows", || !ours.is_quiet()).await;
            let (count, buf) = ours.recv(asked.answer, deadlines.after(1_000), Wait::Later).await;
            assert_eq!((count.unwrap(), &buf[..]), (1, &b"answered!"[..]));
            let mut got = [0; 8];
            theirs.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"question");
            drop(theirs);
            until("the end shows", || !ours.is_quiet()).await;
            assert_eq!(ours.recv(Vec::new(), deadlines.after(1_000), Wait::Later).await.0.unwrap(), 0);
        });
    }

    #[test]
    fn a_peer_that_neither_takes_nor_answers_is_given_up() {
        on_a_core(|deadlines| async move {
            let (ours, _theirs) = pair(&deadlines).await;
            let asked = ours.ask(vec![7; 64 << 20], Vec::new(), 300, deadlines.after(300)).await;
            assert_eq!(asked.received.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
            assert_eq!(asked.sent.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_watch_ends_with_its_connection_which_is_reset_if_that_was_asked() {
        on_a_core(|deadlines| async move {
            for reset in [false, true] {
                let (ours, mut theirs) = pair(&deadlines).await;
                ours.watch();
                io::breathe().await;
                if reset {
                    ours.reset_on_close();
                }
                drop(ours);
                until("the slot is free", || deadlines.entered() == 0).await;
                theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let seen = theirs.read(&mut [0]).map_err(|error| error.kind());
                assert_eq!(seen, if reset { Err(std::io::ErrorKind::ConnectionReset) } else { Ok(0) });
            }
            until("nothing is under way", || io::operations() <= 1).await;
        });
    }

    #[test]
    fn what_nobody_takes_stays_with_the_peer_and_all_of_it_comes_in_order() {
        all_comes_in_order(true);
    }

    #[test]
    fn a_kernel_without_buffer_rings_will_do() {
        all_comes_in_order(false);
    }

    fn all_comes_in_order(lend: bool) {
        on_a_core(|deadlines| async move {
            if !lend {
                super::super::stream_ring::StreamRing::here().lend_no_more();
            }
            let (ours, theirs) = pair(&deadlines).await;
            let sent: Vec<u8> = (0..30_000_000u32).map(|n| (n.wrapping_mul(7919) >> 8) as u8).collect();
            let (expected, taken) = (sent.clone(), Arc::new(AtomicUsize::new(0)));
            let (counted, mut peer) = (taken.clone(), theirs.try_clone().unwrap());
            let peer = std::thread::spawn(move || {
                for part in sent.chunks(100_000) {
                    peer.write_all(part).unwrap();
                    counted.fetch_add(part.len(), Ordering::Relaxed);
                }
            });
            ours.watch();
            until("the peer is held back", || {
                let before = taken.load(Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
                before > 0 && before == taken.load(Ordering::Relaxed)
            })
            .await;
            assert!(taken.load(Ordering::Relaxed) < 20_000_000, "it was not");
            // By turns: as it comes, into a buffer of the caller's, and what is left when the watch ends.
            let (mut got, mut turn) = (Vec::new(), 0);
            while got.len() < expected.len() {
                turn += 1;
                match turn % 7 {
                    3 => got.extend_from_slice(&ours.unwatch().await),
                    wait => {
                        let wait = if wait < 3 { Wait::Soon } else { Wait::Later };
                        let buf = if turn % 2 == 0 { Vec::new() } else { Vec::with_capacity(50_000) };
                        let buf = if wait == Wait::Soon { Vec::with_capacity(70_000) } else { buf };
                        let (count, buf) = ours.recv(buf, deadlines.after(5_000), wait).await;
                        assert_eq!(count.unwrap(), buf.len());
                        got.extend_from_slice(&buf);
                    }
                }
            }
            peer.join().unwrap();
            assert!(got == expected);
            drop(theirs);
            assert_eq!(ours.recv(Vec::with_capacity(9), deadlines.after(1_000), Wait::Soon).await.0.unwrap(), 0);
        });
    }

    #[test]
    fn a_watch_that_ends_under_who_waits_begins_again() {
        on_a_core(|deadlines| async move {
            let (ours, mut theirs) = pair(&deadlines).await;
            ours.watch();
            io::breathe().await;
            // As when more arrives than may lie about.
            ours.socket.cancel_watch();
            let late = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                theirs.write_all(b"late").map(|()| theirs)
            });
            let (count, buf) = ours.recv(Vec::new(), deadlines.after(3_000), Wait::Later).await;
            assert!(count.is_ok() && buf == b"late", "{count:?}");
            late.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_crowd_that_speaks_at_once_is_heard_with_few_buffers() {
        on_a_core(|deadlines| async move {
            let crowd = usize::from(crate::limits::ARRIVALS_LENT) * 3;
            let mut both = Vec::new();
            for _ in 0..crowd {
                let pair = pair(&deadlines).await;
                pair.0.watch();
                both.push(pair);
            }
            io::breathe().await;
            for round in 0..3u8 {
                both.iter_mut().for_each(|(_, theirs)| theirs.write_all(&[round; 1000]).unwrap());
                for (ours, _) in &both {
                    let (count, buf) = ours.recv(Vec::new(), deadlines.after(5_000), Wait::Later).await;
                    assert_eq!((count.unwrap(), buf), (1000, vec![round; 1000]));
                }
            }
        });
    }

    #[test]
    fn a_read_past_its_deadline_ends_and_an_answer_can_still_be_sent() {
        on_a_core(|deadlines| async move {
            let (ours, mut theirs) = pair(&deadlines).await;
            let start = Mono::now();
            let (count, _) = ours.recv(Vec::with_capacity(16), deadlines.after(300), Wait::Later).await;
            assert_eq!(count.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
            assert!(start.0.elapsed() < Duration::from_secs(2));
            ours.send(b"too late".to_vec(), 0, 1000).await.0.unwrap();
            drop(ours);
            let mut got = String::new();
            theirs.read_to_string(&mut got).unwrap();
            assert_eq!(got, "too late", "the peer sees the answer and then the close");
            assert_eq!(deadlines.entered(), 0);
        });
    }

    #[test]
    fn a_send_nobody_takes_ends_at_its_deadline() {
        on_a_core(|deadlines| async move {
            let (ours, _theirs) = pair(&deadlines).await;
            let (sent, _) = ours.send(vec![7; 64 << 20], 0, 300).await;
            assert_eq!(sent.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_connection_dropped_with_a_read_under_way_closes_and_frees_its_slot() {
        on_a_core(|deadlines| async move {
            let (ours, mut theirs) = pair(&deadlines).await;
            let table = Rc::clone(&deadlines);
            let reading =
                io::spawn(async move { ours.recv(Vec::with_capacity(16), table.after(60_000), Wait::Later).await.0 });
            io::breathe().await;
            reading.abort();
            until("the slot is free", || deadlines.entered() == 0).await;
            theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the peer sees the close");
        });
    }

    #[test]
    fn a_connect_into_silence_ends_at_its_deadline_and_frees_its_descriptor() {
        // A listener whose queue is full answers no more SYNs: the kernel's own blackhole.
        let listener = sockets::listen("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let address = listener.local_addr().unwrap();
        on_a_core(|deadlines| async move {
            let mut filling = Vec::new();
            loop {
                match TcpStream::connect(address, &deadlines, deadlines.after(500)).await {
                    Ok(stream) => filling.push(stream),
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
                        break;
                    }
                }
                assert!(filling.len() < 100, "the queue never fills");
            }
            until("only the queued ones hold slots", || deadlines.entered() == filling.len()).await;
            // The same when nobody waits for the connect any more.
            let table = Rc::clone(&deadlines);
            let connecting =
                io::spawn(async move { TcpStream::connect(address, &table, table.after(60_000)).await.err() });
            io::breathe().await;
            io::breathe().await;
            assert_eq!(deadlines.entered(), filling.len() + 1, "the connect is under way");
            connecting.abort();
            until("the abandoned connect is gone", || deadlines.entered() == filling.len()).await;
        });
    }

    #[test]
    fn a_relay_passes_bytes_and_ends_on_and_idles_out() {
        on_a_core(|deadlines| async move {
            let pipes = io::Pipes::default();
            for idle_out in [false, true] {
                let (a, mut client) = pair(&deadlines).await;
                let (b, mut origin) = pair(&deadlines).await;
                let echo = std::thread::spawn(move || {
                    let mut got = Vec::new();
                    origin.read_to_end(&mut got).unwrap();
                    if origin.write_all(&got).is_ok() && idle_out {
                        let _ = origin.read(&mut [0]);
                    }
                });
                let big: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(7919) >> 8) as u8).collect();
                let sent = big.clone();
                let user = std::thread::spawn(move || {
                    client.write_all(&sent).unwrap();
                    if idle_out {
                        return (Vec::new(), Some(client));
                    }
                    client.shutdown(Shutdown::Write).unwrap();
                    let mut got = Vec::new();
                    client.read_to_end(&mut got).unwrap();
                    (got, None)
                });
                let flow = io::Flow::default();
                io::relay(&a, &b, &pipes, (500, Deadline::NEVER), &flow, || (), None).await.unwrap();
                drop((a, b));
                let (got, _held) = user.join().unwrap();
                assert_eq!(flow.up.get(), big.len() as u64);
                assert_eq!(flow.idle.get(), idle_out);
                if !idle_out {
                    assert!(got == big && flow.down.get() == big.len() as u64);
                }
                drop(_held);
                echo.join().unwrap();
            }
        });
    }

    #[test]
    fn accept_without_descriptors_backs_off_and_goes_on() {
        // In a process of its own: the limit of descriptors is the whole process's.
        if std::env::var_os("TIDEGATE_TEST_EMFILE").is_none() {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "io::tcp::tests::accept_without_descriptors_backs_off_and_goes_on"])
                .env("TIDEGATE_TEST_EMFILE", "1")
                .stdout(std::process::Stdio::null())
                .status();
            assert!(status.unwrap().success());
            return;
        }
        let listener = sockets::listen("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let address = listener.local_addr().unwrap();
        on_a_core(|deadlines| async move {
            let listener = TcpListener::adopt(listener);
            let client = TcpStream::connect(address, &deadlines, deadlines.after(5_000)).await.unwrap();
            let mut hoard = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                hoard.push(file);
                assert!(hoard.len() < 5_000_000);
            }
            let tries = Rc::new(std::cell::Cell::new(0));
            let (counted, table) = (Rc::clone(&tries), Rc::clone(&deadlines));
            let accepting =
                io::spawn(async move { listener.accept(&table, || counted.set(counted.get() + 1)).await.is_some() });
            tokio::time::sleep(Duration::from_millis(450)).await;
            assert!((2..=6).contains(&tries.get()), "{} tries in 450 ms", tries.get());
            hoard.clear();
            assert!(accepting.await.unwrap());
            drop(client);
        });
    }
}
