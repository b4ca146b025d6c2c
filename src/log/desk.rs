//! The core's side of the record spool.

use crate::log::body;
use crate::log::ring::Ring;
use crate::log::slots::Spool;
use crate::log::slots::State;
use crate::log::unrecorded;
use crate::record::Draft;
use crate::record::Ended;
use crate::record::Ending;
use crate::record::line::Entry;
use crate::record::line::write_record_id;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// No slot is free: the log cannot take another record, so the exchange must not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolFull;

impl fmt::Display for SpoolFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "opening a record: the record spool is full, so nothing may be served. Look at the node's log trouble \
             (a full disk?); records flow again by themselves when it is gone.",
        )
    }
}

impl std::error::Error for SpoolFull {}

/// What a core and the writer share: the spool and the two ways of its slots.
pub(crate) struct Shared {
    pub spool: Spool,
    /// Core to writer: closed slots.
    pub closed: Ring,
    /// Writer to core: slots that are free again.
    pub freed: Ring,
    /// LOG_FULL=count: what finds no slot while the log is stuck is counted instead of refused. Changes live.
    pub count_when_full: AtomicBool,
    /// The log takes no lines, as its writer saw last; until all that waited for it is written.
    pub stuck: AtomicBool,
}

/// Where one core opens its records. No call makes a system call, takes a lock or allocates.
///
/// It may be moved to its core's thread before first use; after that it and its open records stay there.
pub struct RecordDesk {
    shared: Arc<Shared>,
    // Last in, first out: the slots used last are still in the processor's cache.
    small: Vec<u32>,
    large: Vec<u32>,
    body: Vec<u8>,
    client_id: u64,
    cores: u64,
}

impl RecordDesk {
    /// The desk of core `core` of `cores` and what the writer needs of it.
    pub(crate) fn new(spool: Spool, core: usize, cores: usize) -> (RecordDesk, Arc<Shared>) {
        let size = spool.size();
        let shared = Arc::new(Shared {
            closed: Ring::new(size.slots()),
            freed: Ring::new(size.slots()),
            spool,
            count_when_full: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
        });
        let desk = RecordDesk {
            shared: shared.clone(),
            small: (0..size.small_slots).rev().collect(),
            large: (size.small_slots..size.slots()).rev().collect(),
            body: Vec::with_capacity(size.large_bytes as usize),
            client_id: core as u64 + 1,
            cores: cores.max(1) as u64,
        };
        (desk, shared)
    }

    /// A number for a new client connection: no other connection of this run of the node has it, on any core.
    pub fn next_client_id(&mut self) -> u64 {
        let id = self.client_id;
        self.client_id = id.wrapping_add(self.cores);
        id
    }

    /// The id that a record with these numbers has (for a block page's reference code): `SECONDS-CLIENT-REQUEST-BOOT`.
    /// This one allocates.
    pub fn record_id(&self, started_us: i64, client_id: u64, request_id: u32) -> String {
        let mut id = Vec::with_capacity(48);
        write_record_id(&mut id, started_us, client_id, request_id, self.shared.spool.boot());
        String::from_utf8(id).unwrap_or_default() // digits, dashes and the boot tag are ASCII
    }

    /// Opens a record: from here on it will be in extended.log, once, whatever becomes of this process. Call before the
    /// first byte of an answer leaves.
    pub fn open(&mut self, draft: &Draft, ended: &Ended) -> Result<OpenRecord, SpoolFull> {
        let slot = self.take_slot(draft)?;
        self.shared.spool.fill(slot, &self.body, ended);
        Ok(OpenRecord { shared: Some(self.shared.clone()), slot, stays_on_its_thread: PhantomData })
    }

    /// [`RecordDesk::open`]; where it cannot because the log is stuck, and exchanges may go on unrecorded (LOG_FULL=count), this one is
    /// counted and has none.
    pub fn open_or_count(&mut self, draft: &Draft, ended: &Ended) -> Result<Option<OpenRecord>, SpoolFull> {
        match self.open(draft, ended) {
            Err(SpoolFull) if self.counts_when_full() => {
                unrecorded::count(&self.shared.spool, ended.ended_us);
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Writes an open record anew, in another slot: more has become known of its exchange than can be told. A kill meanwhile
    /// leaves one of both. Where there is no slot, and exchanges would go on unrecorded, it stays as it is but for its numbers.
    pub fn rewrite(&mut self, record: &mut OpenRecord, draft: &Draft, ended: &Ended) -> Result<(), SpoolFull> {
        let slot = match self.take_slot(draft) {
            Err(SpoolFull) if self.counts_when_full() => {
                record.update(ended);
                return Ok(());
            }
            taken => taken?,
        };
        self.shared.spool.fill(slot, &self.body, ended);
        let old = std::mem::replace(&mut record.slot, slot);
        self.shared.spool.set_state(old, State::Free);
        self.have(old);
        Ok(())
    }

    /// How many slots there are, and how many of them are free.
    pub fn slots(&mut self) -> (u64, u64) {
        self.take_back();
        (u64::from(self.shared.spool.size().slots()), (self.small.len() + self.large.len()) as u64)
    }

    /// Spells the body and takes a slot that it fits.
    fn take_slot(&mut self, draft: &Draft) -> Result<u32, SpoolFull> {
        self.take_back();
        body::write_body(&mut self.body, &Entry::from(draft));
        let small = if self.shared.spool.fits_small(&self.body) { self.small.pop() } else { None };
        small.or_else(|| self.large.pop()).ok_or(SpoolFull)
    }

    /// Slots that are all under way, while the log takes lines, are RECORD_SLOTS' business: who comes then is refused in any case.
    fn counts_when_full(&self) -> bool {
        self.shared.count_when_full.load(Ordering::Relaxed) && self.shared.stuck.load(Ordering::Relaxed)
    }

    fn take_back(&mut self) {
        while let Some(slot) = self.shared.freed.pop() {
            self.have(slot);
        }
    }

    fn have(&mut self, slot: u32) {
        if slot < self.shared.spool.size().small_slots { self.small.push(slot) } else { self.large.push(slot) }
    }
}

/// A record that is being lived. Dropped without a close it is closed by its last numbers and the ending `ID`.
pub struct OpenRecord {
    /// `None` once closed.
    shared: Option<Arc<Shared>>,
    slot: u32,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl OpenRecord {
    /// Patches the numbers.
    pub fn update(&self, ended: &Ended) {
        if let Some(shared) = &self.shared {
            shared.spool.patch(self.slot, ended);
        }
    }

    /// Tells the text that the record was opened without: of one with [`Draft::late`], once, at most as long as its room.
    pub fn tell_late(&self, text: &[u8]) {
        if let Some(shared) = &self.shared {
            shared.spool.tell_late(self.slot, text);
        }
    }

    /// Patches the numbers for the last time and hands the record to the log.
    pub fn close(mut self, ended: &Ended) {
        if let Some(shared) = self.shared.take() {
            self.hand_over(&shared, ended);
        }
    }

    fn hand_over(&self, shared: &Shared, ended: &Ended) {
        shared.spool.patch(self.slot, ended);
        shared.spool.set_state(self.slot, State::Closed);
        shared.closed.push(self.slot);
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let last = shared.spool.numbers(self.slot);
            self.hand_over(&shared, &Ended { ending: Ending::DROPPED, ..last });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::slots::SpoolSize;

    const TINY: SpoolSize = SpoolSize { small_slots: 3, small_bytes: 1024, large_slots: 1, large_bytes: 32768 };

    #[test]
    fn a_full_spool_refuses_until_the_writer_gives_a_slot_back() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(&dir.path().join("core-1"), TINY, "bootbootbo", [0; 16], 0).unwrap();
        let (mut desk, shared) = RecordDesk::new(spool, 1, 2);
        assert_eq!([desk.next_client_id(), desk.next_client_id()], [2, 4]);
        let agent = [b'a'; 1500];
        let long = Draft { useragent: &agent, ..Draft::default() };
        let open: Vec<OpenRecord> = (0..3).map(|_| desk.open(&Draft::default(), &Ended::default()).unwrap()).collect();
        let large = desk.open(&long, &Ended::default()).unwrap();
        assert!(desk.open(&Draft::default(), &Ended::default()).is_err());
        assert_eq!(desk.slots(), (4, 0));
        drop(open);
        let slot = shared.closed.pop().unwrap();
        assert_eq!((shared.spool.state(slot), shared.spool.numbers(slot).ending), (State::Closed, Ending::DROPPED));
        large.close(&Ended { ending: Ending::COMPLETE, status: 200, ..Ended::default() });
        assert!(desk.open(&Draft::default(), &Ended::default()).is_err(), "closed is not free yet");
        shared.freed.push(slot);
        assert!(desk.open(&long, &Ended::default()).is_err(), "a long record needs a large slot");
        assert!(desk.open(&Draft::default(), &Ended::default()).is_ok());
        let closed: Vec<u32> = std::iter::from_fn(|| shared.closed.pop()).collect();
        assert_eq!(shared.spool.numbers(closed[2]).status, 200, "each closed once, in order");
    }
}
