//! The core's side of the record spool.

use crate::record::Draft;
use crate::record::Ended;
use std::fmt;
use std::marker::PhantomData;

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

/// Where one core opens its records. No call makes a system call, takes a lock or allocates.
///
/// It may be moved to its core's thread before first use; after that it and its open records stay there.
pub struct RecordDesk {}

impl RecordDesk {
    /// A number for a new client connection: no other connection of this node has it, on any core.
    pub fn next_client_id(&mut self) -> u64 {
        0
    }

    /// Writes the record's id (for a block page's reference code): `SECONDS-CLIENT-REQUEST-BOOT`.
    pub fn record_id(&self, started_us: i64, client_id: u64, request_id: u32) -> String {
        let _ = (started_us, client_id, request_id);
        String::new()
    }

    /// Opens a record: from here on it will be in extended.log, once, whatever becomes of this process. Call before the
    /// first byte of an answer leaves.
    pub fn open(&mut self, draft: &Draft, ended: &Ended) -> Result<OpenRecord, SpoolFull> {
        let _ = (draft, ended);
        Err(SpoolFull)
    }
}

/// A record that is being lived. Dropped without a close it is closed by its last numbers and the ending `ID`.
pub struct OpenRecord {
    stays_on_its_thread: PhantomData<*const ()>,
}

impl OpenRecord {
    /// Patches the numbers.
    pub fn update(&self, ended: &Ended) {
        let _ = ended;
        let _ = self.stays_on_its_thread;
    }

    /// Patches the numbers for the last time and hands the record to the log.
    pub fn close(self, ended: &Ended) {
        self.update(ended);
    }
}
