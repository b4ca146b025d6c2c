//! From a core's memory to extended.log and on to the master, losing nothing that a client was told.
//!
//! | module | what it is |
//! |---|---|
//! | [`desk`] | the core's side of the record spool: open, update, close |
//! | [`reader`] | reading extended.log for shipping, from the cursor on |
#![forbid(unsafe_code)]

pub mod desk;
pub mod reader;

pub use desk::OpenRecord;
pub use desk::RecordDesk;
pub use desk::SpoolFull;
pub use reader::LogReader;

use crate::record::Epoch;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use tokio::sync::watch;

/// What the log needs to know.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// STATE_DIR: `spool/` and `cursor` stand there.
    pub state_dir: PathBuf,
    /// LOG_DIR: `extended.log` and its rotated predecessors stand there.
    pub log_dir: PathBuf,
    /// NODE_NAME, for the column `node`.
    pub node: String,
    /// The node's epoch, from [`node_id`].
    pub epoch: Epoch,
    /// How many cores write records.
    pub cores: usize,
    /// LOG_SIZE_LIMIT: a file larger than this is rotated.
    pub file_bytes_max: u64,
    /// KEEP_DATA: how many days a rotated file is kept at least.
    pub keep_days: u32,
}

/// How far the log is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Highest sequence number written to extended.log.
    pub written: u64,
    /// Highest sequence number that is also on the disk: a reader may ship up to here.
    pub durable: u64,
    /// What is wrong and what to do about it (a full disk); empty if nothing.
    pub trouble: String,
}

/// Why the log cannot start: what was being done, to what, what happened, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError(pub String);

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogError {}

/// The running log: a thread that takes records from the cores' spools and appends them to extended.log.
pub struct Log {
    progress: watch::Receiver<Progress>,
}

impl Log {
    /// Recovers what a predecessor left in the spool, repairs extended.log's tail and starts the writer. Answers a desk
    /// for each core.
    pub fn start(config: LogConfig) -> Result<(Log, Vec<RecordDesk>), LogError> {
        let _ = config;
        Err(LogError("not built yet".to_string()))
    }

    /// How far the log is, and a way to wait for more.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// A reader for shipping, at the cursor.
    pub fn reader(&self) -> Result<LogReader, LogError> {
        Err(LogError("not built yet".to_string()))
    }

    /// The highest acknowledged sequence number.
    pub fn acknowledged(&self) -> u64 {
        0
    }

    /// Writes what the desks have closed, syncs and ends the thread. Call when the cores have ended.
    pub fn stop(self) {}
}

/// The node's epoch: `STATE_DIR/node-id`, made if absent.
pub fn node_id(state_dir: &Path) -> io::Result<Epoch> {
    let _ = state_dir;
    Err(io::Error::other("not built yet"))
}
