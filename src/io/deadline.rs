//! Deadlines without a cost per operation: a slot per socket, a sweeper per core, and the core's coarse clock.

use super::ring;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::limits::DEADLINE_SWEEP_MS;
use crate::sys::sockets;
use io_uring::opcode::AsyncCancel2;
use io_uring::types::CancelBuilder;
use io_uring::types::Fd;
use std::cell::Cell;
use std::cell::RefCell;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

/// A point on the core's coarse clock, in milliseconds since the core started. Precise to [`DEADLINE_SWEEP_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// Never.
    pub const NEVER: Deadline = Deadline(u64::MAX);
    const NOW: Deadline = Deadline(0);

    /// This or the other, whichever is earlier.
    pub fn or_earlier(self, other: Deadline) -> Deadline {
        Deadline(self.0.min(other.0))
    }
}

/// What happens to a socket whose deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// The reading side ends; what waits for bytes sees an end, and an answer can still be written.
    EndReading,
    /// Both sides end.
    EndBoth,
    /// A connect under way is cancelled: shutting a connecting socket down would make the ring start it again.
    Cancel,
}

struct Slot {
    socket: RawFd,
    read: Cell<Deadline>,
    write: Cell<Deadline>,
    exchange: Cell<Deadline>,
    on_read: Cell<Expiry>,
    on_write: Cell<Expiry>,
    read_expired: Cell<bool>,
    write_expired: Cell<bool>,
    idle: Cell<bool>,
}

/// The core's table of sockets and their deadlines, and its coarse clock.
pub struct Deadlines {
    slots: RefCell<Vec<Option<Slot>>>,
    free: RefCell<Vec<usize>>,
    started: Mono,
    started_wall: Cell<i64>,
    now: Cell<u64>,
    stopped: Cell<bool>,
}

impl Deadlines {
    /// An empty table whose clock stands at 0. [`Deadlines::sweep`] must run for it to be of use.
    pub fn new() -> Rc<Deadlines> {
        Rc::new(Deadlines {
            slots: RefCell::default(),
            free: RefCell::default(),
            started: Mono::now(),
            started_wall: Cell::new(Wall::now().0),
            now: Cell::new(0),
            stopped: Cell::new(false),
        })
    }

    /// The deadline `milliseconds` from now.
    #[inline]
    pub fn after(&self, milliseconds: u64) -> Deadline {
        Deadline(self.now.get().saturating_add(milliseconds).max(1))
    }

    /// Whether `deadline` has passed on the coarse clock.
    #[inline]
    pub fn passed(&self, deadline: Deadline) -> bool {
        deadline.0 <= self.now.get()
    }

    /// The coarse wall clock: at most one sweep old.
    #[inline]
    pub fn wall(&self) -> Wall {
        Wall(self.started_wall.get() + self.now.get() as i64 * 1000)
    }

    /// The wall clock's reading at `mono`, without reading the clock again.
    #[inline]
    pub fn wall_at(&self, mono: Mono) -> Wall {
        Wall(self.started_wall.get() + mono.micros_since(self.started) as i64)
    }

    /// Ends the sweeper at its next tick.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    /// Advances the clock and ends what is overdue, until [`Deadlines::stop`]. One task per core runs this; `each`
    /// is called after every sweep for the core's own slow chores.
    pub async fn sweep(self: Rc<Self>, mut each: impl FnMut(Wall)) {
        let mut ticks = tokio::time::interval(Duration::from_millis(DEADLINE_SWEEP_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stopped.get() {
            ticks.tick().await;
            self.advance();
            for socket in self.end_overdue() {
                let cancel = AsyncCancel2::new(CancelBuilder::fd(Fd(socket)).all()).build();
                // The cancelled operation reports for itself; a cancel that finds nothing came too late to matter.
                let _ = ring::submit((), cancel).await;
            }
            each(self.wall());
        }
    }

    fn advance(&self) {
        let now = Mono::now();
        self.now.set(now.micros_since(self.started) / 1000);
        // A step of the wall clock (NTP at boot) shifts the base, so that records carry the new time from here on.
        let wall = Wall::now().0;
        if (wall - self.wall_at(now).0).abs() > 1000 {
            self.started_wall.set(wall - now.micros_since(self.started) as i64);
        }
    }

    /// Ends every overdue socket and answers those whose connect is to be cancelled.
    fn end_overdue(&self) -> Vec<RawFd> {
        let mut cancels = Vec::new();
        for slot in self.slots.borrow().iter().flatten() {
            if self.passed(slot.read.get()) {
                slot.read.set(Deadline::NEVER);
                slot.read_expired.set(true);
                slot.end(slot.on_read.get(), &mut cancels);
            }
            if self.passed(slot.write.get()) {
                slot.write.set(Deadline::NEVER);
                slot.write_expired.set(true);
                slot.end(slot.on_write.get(), &mut cancels);
            }
            if self.passed(slot.exchange.get()) && !slot.idle.get() {
                slot.exchange.set(Deadline::NEVER);
                slot.write_expired.set(true);
                slot.end(Expiry::EndBoth, &mut cancels);
            }
        }
        cancels
    }

    pub(super) fn enter(self: &Rc<Self>, socket: RawFd) -> Entered {
        let slot = Slot {
            socket,
            read: Cell::new(Deadline::NEVER),
            write: Cell::new(Deadline::NEVER),
            exchange: Cell::new(Deadline::NEVER),
            on_read: Cell::new(Expiry::EndReading),
            on_write: Cell::new(Expiry::EndBoth),
            read_expired: Cell::new(false),
            write_expired: Cell::new(false),
            idle: Cell::new(false),
        };
        let mut slots = self.slots.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                slots[index] = Some(slot);
                index
            }
            None => {
                slots.push(Some(slot));
                slots.len() - 1
            }
        };
        Entered { table: Rc::clone(self), index }
    }

    /// Ends every wait for a next request, which shows as the end of the stream.
    pub fn end_idle(&self) {
        for slot in self.slots.borrow().iter().flatten().filter(|slot| slot.idle.get()) {
            let _ = sockets::shutdown_raw(slot.socket, Shutdown::Read);
        }
    }

    /// Ends every connection at the next sweep.
    pub fn end_all(&self) {
        for slot in self.slots.borrow().iter().flatten() {
            slot.write.set(Deadline::NOW);
        }
    }

    /// How many sockets stand in the table.
    pub fn entered(&self) -> usize {
        self.slots.borrow().len() - self.free.borrow().len()
    }
}

impl Slot {
    fn end(&self, how: Expiry, cancels: &mut Vec<RawFd>) {
        let how = match how {
            Expiry::EndReading => Shutdown::Read,
            Expiry::EndBoth => Shutdown::Both,
            Expiry::Cancel => {
                cancels.push(self.socket);
                return;
            }
        };
        // A socket that is not connected any more has nothing to end: its operations have ended already.
        let _ = sockets::shutdown_raw(self.socket, how);
    }
}

/// A socket's place in the table; leaving is dropping it. The socket must outlive it (its owner holds both).
pub(super) struct Entered {
    table: Rc<Deadlines>,
    index: usize,
}

impl Entered {
    pub(super) fn table(&self) -> &Rc<Deadlines> {
        &self.table
    }

    #[inline]
    fn slot<T>(&self, look: impl FnOnce(&Slot) -> T) -> Option<T> {
        self.table.slots.borrow()[self.index].as_ref().map(look)
    }

    #[inline]
    pub(super) fn read_by(&self, deadline: Deadline) {
        self.slot(|slot| slot.read.set(deadline));
    }

    #[inline]
    pub(super) fn write_by(&self, deadline: Deadline) {
        self.slot(|slot| slot.write.set(deadline));
    }

    #[inline]
    pub(super) fn exchange_by(&self, deadline: Deadline) {
        self.slot(|slot| slot.exchange.set(deadline));
    }

    /// As [`Entered::read_by`], and says whether the wait is one that [`Deadlines::end_idle`] may end.
    #[inline]
    pub(super) fn wait_to_read(&self, deadline: Deadline, idle: bool) {
        self.slot(|slot| {
            slot.read.set(deadline);
            slot.idle.set(idle);
        });
    }

    pub(super) fn on_write(&self, expiry: Expiry) {
        self.slot(|slot| slot.on_write.set(expiry));
    }

    pub(super) fn expire_now(&self) {
        self.write_by(Deadline::NOW);
    }

    pub(super) fn read_expired(&self) -> bool {
        self.slot(|slot| slot.read_expired.get()).unwrap_or(false)
    }

    pub(super) fn write_expired(&self) -> bool {
        self.slot(|slot| slot.write_expired.get()).unwrap_or(false)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.table.slots.borrow_mut()[self.index] = None;
        self.table.free.borrow_mut().push(self.index);
    }
}
