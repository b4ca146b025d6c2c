//! One operation on the ring that keeps what it works on alive.

use io_uring::squeue::Entry;
use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use tokio_uring::InFlightOneshot;
use tokio_uring::OneshotOutputTransform;
use tokio_uring::UnsubmittedOneshot;

/// Gives back what the operation held, with its result.
pub(super) struct GiveBack<D>(PhantomData<fn() -> D>);

impl<D: 'static> OneshotOutputTransform for GiveBack<D> {
    type Output = (io::Result<u32>, D);
    type StoredData = (D, UnderWay);

    fn transform_oneshot_output(self, (data, _): (D, UnderWay), cqe: io_uring::cqueue::Entry) -> Self::Output {
        let result = cqe.result();
        (if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u32) }, data)
    }
}

thread_local! {
    static UNDER_WAY: Cell<u64> = const { Cell::new(0) };
}

/// Operations of this thread's ring that the kernel has not completed.
pub(super) fn under_way() -> u64 {
    UNDER_WAY.get()
}

/// An operation in that count. It lives with what the operation holds, so it stays while the kernel is at it, also when
/// nobody waits any more.
pub(super) struct UnderWay(());

impl UnderWay {
    fn count() -> UnderWay {
        UNDER_WAY.set(UNDER_WAY.get() + 1);
        UnderWay(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get() - 1);
    }
}

/// An operation on its way.
pub(super) type Operation<D> = InFlightOneshot<(D, UnderWay), GiveBack<D>>;

/// Submits `entry`. `held` stays alive until the kernel has completed the operation, even if the future is dropped:
/// it must own everything the entry points at, at addresses that do not change when `held` moves.
pub(super) fn submit<D: Unpin + 'static>(held: D, entry: Entry) -> Operation<D> {
    UnsubmittedOneshot::new((held, UnderWay::count()), GiveBack(PhantomData), entry).submit()
}

/// `IORING_RECVSEND_POLL_FIRST`: do not try at once, arm the poll; saves a failing attempt where data comes later.
pub(super) const POLL_FIRST: u16 = 1;

/// Marks a receive or send as one that has to wait anyway.
pub(super) fn poll_first(entry: Entry) -> Entry {
    with_ioprio(entry, POLL_FIRST)
}

/// Sets the flags that receives and sends carry in `ioprio`.
pub(super) fn with_ioprio(mut entry: Entry, flags: u16) -> Entry {
    const { assert!(size_of::<Entry>() == 64) };
    // JUSTIFICATION: this release of the crate has no setter for them.
    // SAFETY: `Entry` is `repr(C)` around the kernel's 64-byte submission entry, whose bytes 2..4 are `ioprio` (a u16 at
    // an even offset of an 8-aligned struct); any bit pattern is valid there.
    unsafe { (&raw mut entry).cast::<u16>().add(1).write(flags) };
    entry
}
