//! The store of all nodes' records: exactly-once ingest and the questions of the report.

use crate::base::clock::Wall;
use crate::record::Epoch;
use crate::record::Record;
use crate::record::question::Answer;
use crate::record::question::Question;
use std::fmt;
use std::path::Path;

/// A store of records. One implementation is embedded ([`SqliteRecords`]); another may stand on other machines, so
/// nothing here speaks of SQL or files. Calls block: ask from a thread that may.
pub trait RecordStore: Send + Sync {
    /// Stores what of `batch` is not stored yet, durably, and answers the highest sequence number stored of this node
    /// and epoch: that may be acknowledged.
    fn ingest(&self, node: &str, epoch: Epoch, batch: &[Record]) -> Result<u64, StoreError>;
    /// The highest sequence number stored of a node and epoch; 0 if none.
    fn highest(&self, node: &str, epoch: Epoch) -> Result<u64, StoreError>;
    /// Answers a question that `report` has checked.
    fn answer(&self, question: &Question) -> Result<Answer, StoreError>;
    /// Forgets records that ended before `before`; answers how many.
    fn prune(&self, before: Wall) -> Result<u64, StoreError>;
}

/// Why the store could not do it: what was being done, to what, what happened, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// The embedded store: one SQLite file.
pub struct SqliteRecords {}

impl SqliteRecords {
    /// Opens or makes the store at `path` (`STATE_DIR/records.db`).
    pub fn open(path: &Path) -> Result<SqliteRecords, StoreError> {
        let _ = path;
        Ok(SqliteRecords {})
    }
}

impl RecordStore for SqliteRecords {
    fn ingest(&self, _node: &str, _epoch: Epoch, _batch: &[Record]) -> Result<u64, StoreError> {
        Err(StoreError("not built yet".to_string()))
    }
    fn highest(&self, _node: &str, _epoch: Epoch) -> Result<u64, StoreError> {
        Err(StoreError("not built yet".to_string()))
    }
    fn answer(&self, _question: &Question) -> Result<Answer, StoreError> {
        Err(StoreError("not built yet".to_string()))
    }
    fn prune(&self, _before: Wall) -> Result<u64, StoreError> {
        Err(StoreError("not built yet".to_string()))
    }
}
