//! A connected socket and what the ring has under way for it: at most one receive (or watch) and one send.

use super::deadline::Entered;
use super::stream_ring::StreamRing;
use super::stream_ring::Waiter;
use super::stream_ring::What;
use crate::limits::ARRIVED_MAX;
use crate::sys::sockets;
use io_uring::opcode;
use io_uring::types::Fd;
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

/// What operations share: the place in the table of deadlines goes first, so that no sweep meets a closed descriptor.
pub(super) struct Socket {
    pub(super) entered: Entered,
    ring: Rc<StreamRing>,
    inward: Inward,
    outward: Outward,
    pub(super) std: std::net::TcpStream,
}

/// The way in.
#[derive(Default)]
struct Inward {
    receiving: Cell<Receiving>,
    /// Where a receive that brings its own buffer writes.
    room: Cell<Vec<u8>>,
    /// What came and nobody has taken, in order.
    arrived: RefCell<Arrived>,
    /// Nothing more comes: 0 is the end of the stream, anything else the error that ended it.
    ended: Cell<Option<i32>>,
    waiter: Waiter,
}

/// Buffers in the order in which they came. The first has its place here, since mostly there is no other: in memory of their own it
/// would cost every receive a line of the processor's cache.
#[derive(Default)]
struct Arrived {
    first: Option<Vec<u8>>,
    /// Nothing while there is no first.
    others: VecDeque<Vec<u8>>,
}

impl Arrived {
    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    fn push(&mut self, buf: Vec<u8>) {
        match self.first {
            None => self.first = Some(buf),
            Some(_) => self.others.push_back(buf),
        }
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let next = self.others.pop_front();
        std::mem::replace(&mut self.first, next)
    }
}

/// What is under way inward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Receiving {
    #[default]
    Nothing,
    /// One receive, into `room`.
    Once,
    /// Whatever comes, whenever it comes, until it is cancelled.
    Watch,
    /// The same, being cancelled.
    Ending,
}

/// The way out.
#[derive(Default)]
struct Outward {
    sending: Cell<bool>,
    buf: Cell<Vec<u8>>,
    result: Cell<i32>,
    waiter: Waiter,
}

impl Socket {
    pub(super) fn new(std: std::net::TcpStream, entered: Entered) -> Rc<Socket> {
        let (inward, outward) = (Inward::default(), Outward::default());
        Rc::new(Socket { entered, ring: StreamRing::here(), inward, outward, std })
    }

    pub(super) fn ring(&self) -> &StreamRing {
        &self.ring
    }

    pub(super) fn fd(&self) -> Fd {
        Fd(self.std.as_raw_fd())
    }

    // --- inward ------------------------------------------------------------------------------------------------------

    /// What waits for a receive, or for a send, is woken soon: has come what it needs.
    #[inline]
    pub(super) fn fetch_waiter(&self, receive: bool) {
        let waiter = if receive { &self.inward.waiter } else { &self.outward.waiter };
        waiter.fetch();
    }

    /// Whether bytes, the stream's end or its failure wait to be taken.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        !self.inward.arrived.borrow().is_empty() || self.inward.ended.get().is_some()
    }

    /// Ready when [`Socket::has_news`].
    pub(super) fn poll_news(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_news() {
            return Poll::Ready(());
        }
        self.inward.waiter.wait(cx);
        Poll::Pending
    }

    /// Has whatever comes from now on arrive here, in buffers that are taken when it comes. `expected` says that it may be
    /// here already.
    pub(super) fn watch(self: &Rc<Self>, expected: bool) {
        if self.inward.receiving.get() != Receiving::Nothing || self.inward.ended.get().is_some() {
            return;
        }
        if !self.ring.lends() {
            return self.receive(self.ring.stock().take(), expected);
        }
        self.inward.receiving.set(Receiving::Watch);
        let entry = opcode::RecvMulti::new(self.fd(), super::arrivals::GROUP).build();
        let flags = if expected { MULTISHOT } else { MULTISHOT | super::ring::POLL_FIRST };
        self.ring.push(Rc::clone(self), What::Receive, super::ring::with_ioprio(entry, flags));
    }

    /// Receives once, into the room of `buf`, of which there must be some.
    pub(super) fn receive(self: &Rc<Self>, mut buf: Vec<u8>, expected: bool) {
        debug_assert!(self.inward.receiving.get() == Receiving::Nothing && buf.len() < buf.capacity());
        let room = buf.spare_capacity_mut();
        let length = u32::try_from(room.len()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(self.fd(), room.as_mut_ptr().cast(), length).build();
        let entry = if expected { entry } else { super::ring::poll_first(entry) };
        // Moving the `Vec` does not move its bytes.
        self.inward.room.set(buf);
        self.inward.receiving.set(Receiving::Once);
        self.ring.push(Rc::clone(self), What::Receive, entry);
    }

    /// Whether nothing is under way inward; cancels a watch. What is here by then has arrived.
    pub(super) fn poll_unwatched(self: &Rc<Self>, cx: &Context<'_>) -> Poll<()> {
        match self.inward.receiving.get() {
            Receiving::Nothing => return Poll::Ready(()),
            Receiving::Watch => self.cancel_watch(),
            Receiving::Once | Receiving::Ending => {}
        }
        self.inward.waiter.wait(cx);
        Poll::Pending
    }

    /// Ends the watch there is.
    pub(super) fn cancel_watch(self: &Rc<Self>) {
        self.inward.receiving.set(Receiving::Ending);
        self.ring.cancel(self, What::Receive);
    }

    /// The oldest bytes that have arrived.
    #[inline]
    pub(super) fn take_arrived(&self) -> Option<Vec<u8>> {
        self.inward.arrived.borrow_mut().pop()
    }

    /// The buffer of a receive that brought nothing.
    pub(super) fn take_room(&self) -> Vec<u8> {
        self.inward.room.take()
    }

    /// How the stream ended: 0 bytes, or an error.
    pub(super) fn ended(&self) -> io::Result<usize> {
        match self.inward.ended.get() {
            Some(0) if self.entered.read_expired() => Err(io::ErrorKind::TimedOut.into()),
            None | Some(0) => Ok(0),
            Some(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// A receive has completed; a watch goes on if there is `more` to come.
    pub(super) fn received(self: Rc<Self>, result: i32, lent: Option<Vec<u8>>, more: bool) {
        let inward = &self.inward;
        let once = inward.receiving.get() == Receiving::Once;
        let buf = if once { Some(self.filled_room(result)) } else { lent };
        match buf {
            Some(buf) if result > 0 => inward.arrived.borrow_mut().push(buf),
            Some(buf) if once => inward.room.set(buf),
            Some(buf) => self.ring.stock().give(buf),
            None => {}
        }
        if !more {
            let was = inward.receiving.replace(Receiving::Nothing);
            match -result {
                0 => inward.ended.set(Some(0)),
                // More came at once than there were buffers; there are again.
                sockets::NO_BUFFER if was == Receiving::Watch => self.watch(true),
                sockets::NO_BUFFER | sockets::CANCELED if was == Receiving::Ending => {}
                error if error > 0 => inward.ended.set(Some(error)),
                _ => {}
            }
        } else if inward.receiving.get() == Receiving::Watch && inward.arrived.borrow().len() > ARRIVED_MAX {
            // Nobody takes it: the rest waits in the kernel, which slows the peer down.
            self.cancel_watch();
        }
        self.inward.waiter.wake();
    }

    fn filled_room(&self, result: i32) -> Vec<u8> {
        let mut buf = self.inward.room.take();
        let bytes = usize::try_from(result).unwrap_or(0).min(buf.capacity() - buf.len());
        // JUSTIFICATION: the kernel wrote into the buffer's free room; zeroing it first would cost every read.
        // SAFETY: `receive` handed the free room of `buf` to the kernel, which wrote the first `bytes` of it and is done.
        unsafe { buf.set_len(buf.len() + bytes) };
        buf
    }

    // --- outward -----------------------------------------------------------------------------------------------------

    /// Begins to send `buf` from `from` to its end: the whole of it if `whole`, else what the peer takes at once. There must
    /// be no send under way.
    pub(super) fn begin_send(self: &Rc<Self>, buf: Vec<u8>, from: usize, whole: bool) {
        assert!(!self.outward.sending.get(), "the kernel still reads what is being sent");
        let left = buf.get(from..).unwrap_or_default();
        let length = u32::try_from(left.len()).unwrap_or(u32::MAX);
        // MSG_WAITALL: the kernel goes on by itself after a part; nobody here is woken to send the rest.
        let flags = if whole { sockets::SEND_WITHOUT_SIGNAL | sockets::WHOLE } else { sockets::SEND_WITHOUT_SIGNAL };
        let entry = opcode::Send::new(self.fd(), left.as_ptr(), length).flags(flags).build();
        self.outward.buf.set(buf);
        self.outward.sending.set(true);
        self.ring.push(Rc::clone(self), What::Send, entry);
    }

    /// Whether a send is under way.
    #[inline]
    pub(super) fn is_sending(&self) -> bool {
        self.outward.sending.get()
    }

    /// What became of the send, and the buffer.
    pub(super) fn poll_sent(&self, cx: &Context<'_>) -> Poll<(io::Result<usize>, Vec<u8>)> {
        if self.outward.sending.get() {
            self.outward.waiter.wait(cx);
            return Poll::Pending;
        }
        let result = self.outward.result.get();
        let sent = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Poll::Ready((sent, self.outward.buf.take()))
    }

    /// A send has completed.
    pub(super) fn sent(&self, result: i32) {
        self.outward.result.set(result);
        self.outward.sending.set(false);
        self.outward.waiter.wake();
    }

    // --- the end -----------------------------------------------------------------------------------------------------

    /// Nobody waits for anything here any more.
    pub(super) fn forget_waiters(&self) {
        self.inward.waiter.forget();
        self.outward.waiter.forget();
    }

    /// Ends what is under way if it is a watch alone. Answers whether anything else is, which only the connection's own end
    /// ends.
    pub(super) fn abandon(self: &Rc<Self>) -> bool {
        let watched = self.inward.receiving.get();
        if watched == Receiving::Watch {
            self.cancel_watch();
        }
        let shares = if matches!(watched, Receiving::Watch | Receiving::Ending) { 2 } else { 1 };
        Rc::strong_count(self) > shares
    }
}

/// `IORING_RECV_MULTISHOT`.
const MULTISHOT: u16 = 1 << 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_taken_in_order_however_much_there_is() {
        let mut arrived = Arrived::default();
        let (mut put, mut taken) = (0..100_u8, 0..100_u8);
        // Ever more of them at once, and none in between.
        for count in 1..=10 {
            put.by_ref().take(count).for_each(|byte| arrived.push(vec![byte]));
            assert_eq!((arrived.len(), arrived.is_empty()), (count, false));
            for byte in taken.by_ref().take(count) {
                assert_eq!(arrived.pop(), Some(vec![byte]));
            }
            assert!(arrived.is_empty() && arrived.pop().is_none());
        }
    }
}
