//! The ring that connections receive and send on, beside tokio-uring's: it knows operations that complete more than once and
//! buffers that the kernel chooses, which tokio-uring 0.5 does not (`docs/decisions/0009-a-ring-for-streams.md`).
//!
//! An operation is a field of its socket, not a future: what is under way is always visible there, and a future that is
//! dropped leaves nothing behind but that. One task per core turns the ring: it submits what has been pushed since its last
//! turn and hands completions to their sockets, which wake whoever waits.

use super::ahead;
use super::ahead::Block;
use super::arrivals::Arrivals;
use super::buffers::Buffers;
use super::socket::Socket;
use crate::base::clock::Mono;
use crate::limits::ARRIVALS_LENT;
use crate::limits::ARRIVALS_LENT_BEFORE_6_1;
use crate::limits::BUFFERS_KEPT_MAX;
use crate::limits::HEAD_BUFFER_BYTES;
use crate::limits::OTHER_RING_WAITS_MS_MAX;
use crate::sys::event;
use io_uring::IoUring;
use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::squeue::Flags;
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use tokio::io::unix::AsyncFd;

/// What an operation does for its socket; the low bits of its user data, above which stands the socket's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum What {
    Receive = 0,
    Send = 1,
}

const WHAT_BITS: u64 = 0b111;
/// The user data of what concerns no socket.
const NOBODY: u64 = u64::MAX;
/// Of so many completions the memory is fetched side by side: about what a turn brings.
const FETCHED_AT_ONCE: usize = 32;
/// The size of a connection's task.
const TASK_BYTES: usize = 1_152;

/// One core's ring for streams.
pub(super) struct StreamRing {
    uring: RefCell<IoUring>,
    /// Readable when there is something to take.
    event: OwnedFd,
    /// Pushed when the submission queue was full and could not be emptied.
    behind: RefCell<VecDeque<Entry>>,
    /// Something was pushed since the last turn.
    pushed: Cell<bool>,
    turner: Waiter,
    /// `None` where the kernel knows no buffer rings (before 6.0): receives then bring their own buffer.
    arrivals: RefCell<Option<Arrivals>>,
    stock: Rc<Buffers>,
    under_way: Cell<u64>,
    moment: Cell<Mono>,
    /// Since when there was something to take in every turn.
    busy_since: Cell<Option<Mono>>,
    /// Completions being handed out, kept for its memory.
    batch: Cell<Vec<(u64, i32, u32)>>,
}

thread_local! {
    static HERE: RefCell<Option<Rc<StreamRing>>> = const { RefCell::new(None) };
}

impl StreamRing {
    /// Makes this thread's ring.
    pub(super) fn begin(entries: u32) -> io::Result<Rc<StreamRing>> {
        let (uring, at_once_max) = make(entries)?;
        // Its own descriptor tells an epoll nothing of work that was put off until we ask for it.
        let event = event::counter()?;
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        let stock = Rc::new(Buffers::new(HEAD_BUFFER_BYTES, BUFFERS_KEPT_MAX));
        let arrivals = Arrivals::lend(&uring, at_once_max, &stock).ok();
        let ring = Rc::new(StreamRing {
            uring: RefCell::new(uring),
            event,
            behind: RefCell::default(),
            pushed: Cell::new(false),
            turner: Waiter::default(),
            arrivals: RefCell::new(arrivals),
            stock,
            under_way: Cell::new(0),
            moment: Cell::new(Mono::now()),
            busy_since: Cell::default(),
            batch: Cell::default(),
        });
        HERE.set(Some(Rc::clone(&ring)));
        Ok(ring)
    }

    /// This thread's ring is no more. What is still under way keeps its memory for good: the kernel may write there.
    pub(super) fn end() {
        if let Some(ring) = HERE.take()
            && ring.under_way.get() > 0
        {
            std::mem::forget(ring.arrivals.take());
        }
    }

    /// This thread's ring. Connections live on cores only: elsewhere there is none, which is a bug of the caller's.
    pub(super) fn here() -> Rc<StreamRing> {
        HERE.with_borrow(|ring| ring.clone()).expect("a connection was taken over outside a core's thread")
    }

    /// The stock that buffers of arrivals come from and go back to.
    pub(super) fn stock(&self) -> &Rc<Buffers> {
        &self.stock
    }

    /// Operations that the kernel has not completed.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way.get()
    }

    /// The moment of this thread's ring's last turn that found something.
    pub(super) fn moment() -> Mono {
        HERE.with_borrow(|ring| ring.as_ref().map_or_else(Mono::now, |ring| ring.moment.get()))
    }

    /// As if the kernel knew no buffer rings.
    #[cfg(test)]
    pub(super) fn lend_no_more(&self) {
        std::mem::forget(self.arrivals.take());
    }

    /// Whether receives may leave the choice of a buffer to the kernel, and complete many times.
    pub(super) fn lends(&self) -> bool {
        self.arrivals.borrow().is_some()
    }

    /// Has the kernel do `entry` for `socket`, which it shares until the last completion. Whatever the entry points at must
    /// stand in the socket, at an address that does not change.
    pub(super) fn push(&self, socket: Rc<Socket>, what: What, entry: Entry) {
        const { assert!(align_of::<Socket>() > WHAT_BITS as usize) };
        let address = Rc::into_raw(socket).expose_provenance() as u64;
        self.under_way.set(self.under_way.get() + 1);
        self.enqueue(entry.user_data(address | what as u64));
    }

    /// Cancels what [`StreamRing::push`] has under way: it completes with `ECANCELED`, if it does not complete otherwise.
    pub(super) fn cancel(&self, socket: &Rc<Socket>, what: What) {
        let target = Rc::as_ptr(socket).expose_provenance() as u64 | what as u64;
        let entry = opcode::AsyncCancel::new(target).build().user_data(NOBODY);
        self.enqueue(entry.flags(Flags::SKIP_SUCCESS));
    }

    fn enqueue(&self, entry: Entry) {
        if !self.try_enqueue(&entry) {
            // Full: the kernel takes what is there, now.
            let _ = self.enter();
            if !self.try_enqueue(&entry) {
                self.behind.borrow_mut().push_back(entry);
            }
        }
        if !self.pushed.replace(true) {
            self.turner.wake();
        }
    }

    fn try_enqueue(&self, entry: &Entry) -> bool {
        if !self.behind.borrow().is_empty() {
            return false; // in order
        }
        let mut uring = self.uring.borrow_mut();
        // JUSTIFICATION: entries carry addresses, which only their maker can vouch for.
        // SAFETY: `push` has its callers put what an entry points at into the socket, which the entry shares; a cancel
        // points at nothing.
        unsafe { uring.submission().push(entry).is_ok() }
    }

    /// Submits, then hands out what is complete. Answers whether there was anything.
    fn turn(&self) -> bool {
        if self.pushed.replace(false) {
            let late: Vec<Entry> = self.behind.borrow_mut().drain(..).collect();
            late.into_iter().for_each(|entry| self.enqueue(entry));
            // What it does not take now (out of memory, completions to be taken first) stays for the next turn.
            self.pushed.set(self.enter().is_err() || !self.behind.borrow().is_empty());
        } else if self.puts_off() {
            // If this fails there is something to take first, which is next.
            let _ = self.enter();
        }
        let mut batch = self.batch.take();
        let take = |cqe: cqueue::Entry| (cqe.user_data(), cqe.result(), cqe.flags());
        batch.extend(self.uring.borrow_mut().completion().map(take));
        // What the kernel still puts off after an enter it does not announce again.
        let found = !batch.is_empty() || self.puts_off();
        if found {
            self.moment.set(Mono::now());
        }
        for some in batch.chunks(FETCHED_AT_ONCE) {
            let sockets = || some.iter().map(|(user_data, ..)| *user_data).filter(|user_data| *user_data != NOBODY);
            sockets().for_each(|user_data| ahead::fetch(address(user_data).cast(), size_of::<Socket>()));
            sockets().for_each(|user_data| self.fetch_waiter(user_data));
            for (user_data, result, flags) in some {
                if *user_data != NOBODY {
                    self.complete(*user_data, *result, *flags);
                }
            }
        }
        batch.clear();
        if found && let Some(arrivals) = &*self.arrivals.borrow() {
            arrivals.publish();
        }
        self.batch.set(batch);
        found
    }

    /// Whether the kernel has something to do, or completions that found no room, for which it must be entered.
    fn puts_off(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let queue = uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Hands the kernel what is in the queue, and has it do what it put off.
    fn enter(&self) -> io::Result<()> {
        let mut uring = self.uring.borrow_mut();
        let entries = u32::try_from(uring.submission().len()).unwrap_or(u32::MAX);
        // JUSTIFICATION: `submit` of this release does not ask for what was put off.
        // SAFETY: the entries were pushed as `try_enqueue` says; there is no argument.
        unsafe { uring.submitter().enter::<()>(entries, 0, GET_EVENTS, None).map(drop) }
    }

    /// Has come what the task needs that waits for this completion, which is handed out soon.
    fn fetch_waiter(&self, user_data: u64) {
        // JUSTIFICATION: as in `complete`.
        // SAFETY: as in `complete`: until the completion is handed out, the share that `push` gave it keeps the socket.
        let socket = unsafe { &*address(user_data) };
        socket.fetch_waiter(is_receive(user_data));
    }

    fn complete(&self, user_data: u64, result: i32, flags: u32) {
        let address = address(user_data);
        if cqueue::more(flags) {
            // JUSTIFICATION: as below.
            // SAFETY: as below; the kernel says that it will complete again, so the share `push` gave it stays out.
            unsafe { Rc::increment_strong_count(address) };
        } else {
            self.under_way.set(self.under_way.get() - 1);
        }
        // JUSTIFICATION: the kernel hands user data back as a number; a table to look sockets up in would cost every completion.
        // SAFETY: `push` made this address from a share of the socket for one operation, and an operation has one last
        // completion, which takes that share back; sockets never leave their thread.
        let socket = unsafe { Rc::from_raw(address) };
        let buf = cqueue::buffer_select(flags).and_then(|id| {
            let bytes = usize::try_from(result).unwrap_or(0);
            self.arrivals.borrow_mut().as_mut().map(|arrivals| arrivals.take(id, bytes))
        });
        if is_receive(user_data) {
            socket.received(result, buf, cqueue::more(flags));
        } else {
            socket.sent(result);
        }
    }

    /// Turns the ring for as long as its runtime lives.
    pub(super) async fn turn_always(self: Rc<Self>) -> io::Result<()> {
        // JUSTIFICATION: readiness of a descriptor that the ring owns.
        // SAFETY: `self`, which this future holds, keeps the descriptor open, and the same, longer than the `AsyncFd`.
        let registered = unsafe { AsyncFd::register_with_interest(Descriptor(&self), tokio::io::Interest::READABLE) };
        let ready = registered.map_err(|error| error.into_parts().1)?;
        loop {
            std::future::poll_fn(|cx| self.poll_while_idle_at_times(&ready, cx)).await?;
            // The runtime submits to the other ring when it has nothing else to do. With streams that always have work it
            // would accept and connect nobody.
            super::breathe().await;
            self.busy_since.set(None);
        }
    }

    /// Turns the ring until there has been something to take in every turn for [`OTHER_RING_WAITS_MS_MAX`].
    fn poll_while_idle_at_times(&self, ready: &AsyncFd<Descriptor<'_>>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.turn() {
            return self.sleep(ready, cx);
        }
        let (now, since) = (self.moment.get(), self.busy_since.get());
        let since = since.unwrap_or(now);
        self.busy_since.set(Some(since));
        if now.micros_since(since) >= OTHER_RING_WAITS_MS_MAX * 1_000 {
            return Poll::Ready(Ok(()));
        }
        // The others have their turns first; what they push then goes in one submission.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Until something is pushed or complete.
    fn sleep(&self, ready: &AsyncFd<Descriptor<'_>>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.turner.wait(cx);
            match ready.poll_read_ready(cx) {
                Poll::Pending if self.pushed.get() => cx.waker().wake_by_ref(),
                Poll::Pending => self.busy_since.set(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(mut guard)) => {
                    guard.clear_ready();
                    // Completions from before the clear would not wake us again.
                    if !self.turn() {
                        continue;
                    }
                    cx.waker().wake_by_ref();
                }
            }
            return Poll::Pending;
        }
    }
}

/// The socket that an operation is for.
fn address(user_data: u64) -> *const Socket {
    std::ptr::with_exposed_provenance((user_data & !WHAT_BITS) as usize)
}

fn is_receive(user_data: u64) -> bool {
    user_data & WHAT_BITS == What::Receive as u64
}

/// The ring, and how many receives complete at most in one turn of it.
fn make(entries: u32) -> io::Result<(IoUring, u16)> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(entries.saturating_mul(4)).setup_taskrun_flag();
    // What arrives is received when we ask, some twenty at a time: in the processor's cache, and in few buffers.
    let deferred = builder.clone().setup_single_issuer().setup_defer_taskrun().build(entries);
    match deferred {
        Ok(uring) => Ok((uring, ARRIVALS_LENT)),
        // Before 6.1.
        Err(_) => Ok((builder.setup_coop_taskrun().build(entries)?, ARRIVALS_LENT_BEFORE_6_1)),
    }
}

/// `IORING_ENTER_GETEVENTS`.
const GET_EVENTS: u32 = 1;

struct Descriptor<'a>(&'a StreamRing);

impl AsRawFd for Descriptor<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }
}

/// Whoever waits for an event: one task at a time. Its waker is kept for the next wait, which is mostly the same task's.
#[derive(Default)]
pub(super) struct Waiter {
    waker: RefCell<Option<Waker>>,
    waits: Cell<bool>,
    /// What the task works with, apart from its own memory.
    block: Cell<Block>,
}

impl Waiter {
    /// The next [`Waiter::wake`] wakes this task.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.waits.set(true);
        self.block.set(Block::current());
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *kept = Some(cx.waker().clone());
        }
    }

    /// The event is near: has come what the task needs that is woken then.
    #[inline]
    pub(super) fn fetch(&self) {
        if self.waits.get()
            && let Some(waker) = &*self.waker.borrow()
        {
            // Of a task of this runtime's: that is what its waker points at.
            ahead::fetch(waker.data().cast(), TASK_BYTES);
            self.block.get().fetch();
        }
    }

    /// The event: wakes who waits.
    pub(super) fn wake(&self) {
        if self.waits.replace(false)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Nobody waits any more, and no task is kept alive for it.
    pub(super) fn forget(&self) {
        self.waits.set(false);
        self.waker.take();
    }
}
