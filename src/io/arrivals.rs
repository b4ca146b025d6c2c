//! Buffers lent to the kernel, which fills one when bytes have come: a connection that waits holds none.

use super::buffers::Buffers;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::alloc::Layout;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;

/// The group the kernel knows them by; there is one to a ring.
pub(super) const GROUP: u16 = 0;
const PAGE_BYTES: usize = 4096;

/// A ring of buffers that the kernel takes from, in order (`io_uring_register_buf_ring(3)`).
pub(super) struct Arrivals {
    ring: NonNull<BufRingEntry>,
    /// What stands in the ring, by the number the kernel names it by.
    lent: Vec<Vec<u8>>,
    tail: u16,
    /// The number of entries less one.
    mask: usize,
    /// Where replacements come from, and where receivers give buffers back: the one used last first, so that it is in the
    /// processor's cache.
    stock: Rc<Buffers>,
}

impl Arrivals {
    /// Lends `count` buffers of `stock` to `uring`; `count` is a power of two.
    pub(super) fn lend(uring: &IoUring, count: u16, stock: &Rc<Buffers>) -> io::Result<Arrivals> {
        // JUSTIFICATION: the kernel shares this memory with us for as long as the ring lives; a `Vec` has no such alignment.
        // SAFETY: the layout has a size, since `count` has; the memory is zeroed, which is a valid array of entries.
        let memory = unsafe { std::alloc::alloc_zeroed(Arrivals::layout(count)) };
        let ring = NonNull::new(memory.cast::<BufRingEntry>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // JUSTIFICATION: this is how buffers are lent.
        // SAFETY: `ring` is page-aligned memory of `count` entries. It is never freed (see `StreamRing`), so it outlives the
        // registration.
        unsafe { uring.submitter().register_buf_ring(ring.as_ptr().addr() as u64, count, GROUP)? };
        let mut arrivals =
            Arrivals { ring, lent: Vec::new(), tail: 0, mask: usize::from(count) - 1, stock: Rc::clone(stock) };
        for id in 0..count {
            arrivals.lent.push(stock.take());
            arrivals.put(id);
        }
        arrivals.publish();
        Ok(arrivals)
    }

    fn layout(count: u16) -> Layout {
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE_BYTES).unwrap_or(Layout::new::<BufRingEntry>())
    }

    /// The buffer of this number, in which the kernel has written `bytes`. Another takes its place.
    pub(super) fn take(&mut self, id: u16, bytes: usize) -> Vec<u8> {
        let place = &mut self.lent[usize::from(id)];
        let mut buf = std::mem::replace(place, self.stock.take());
        debug_assert!(bytes <= buf.capacity());
        // JUSTIFICATION: the kernel wrote into the buffer's room; zeroing it first would cost every read.
        // SAFETY: the buffer was empty and lent whole; the kernel has written `bytes` bytes, at most its capacity, and named
        // it as done: it does not write into it any more.
        unsafe { buf.set_len(bytes.min(buf.capacity())) };
        self.put(id);
        buf
    }

    /// Puts the buffer of this number behind the others.
    fn put(&mut self, id: u16) {
        let buf = &mut self.lent[usize::from(id)];
        let room = buf.spare_capacity_mut();
        let (address, length) = (room.as_mut_ptr().addr() as u64, u32::try_from(room.len()).unwrap_or(u32::MAX));
        let at = usize::from(self.tail) & self.mask;
        // JUSTIFICATION: entries are written where the kernel reads them.
        // SAFETY: `at` is below the number of entries, and the kernel does not read an entry before the tail has passed it.
        let entry = unsafe { &mut *self.ring.as_ptr().add(at) };
        entry.set_addr(address);
        entry.set_len(length);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was put.
    pub(super) fn publish(&self) {
        // JUSTIFICATION: the tail is a field of the first entry that the kernel reads at any time.
        // SAFETY: `ring` points to the first entry; its `resv` field is the tail, two aligned bytes that nobody else writes.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
