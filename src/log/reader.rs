//! Reading extended.log for shipping: whole records in sequence, across rotation, from the cursor on.

use crate::log::LogError;
use crate::log::Progress;
use crate::record::Record;
use tokio::sync::watch;

/// Reads extended.log. Calls read files and so block for a moment: use `spawn_blocking` or a thread that may.
pub struct LogReader {
    progress: watch::Receiver<Progress>,
}

impl LogReader {
    /// The next records in sequence, as many as are durable and fit; empty if there is nothing new.
    pub fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Vec<Record>, LogError> {
        let _ = (records_max, bytes_max);
        Ok(Vec::new())
    }

    /// Goes to the first record after `seq`: what the master's highest stored number asks for at every contact.
    pub fn resume_after(&mut self, seq: u64) -> Result<(), LogError> {
        let _ = seq;
        Ok(())
    }

    /// Makes durable that everything up to `seq` is stored at the master.
    pub fn acknowledge(&mut self, seq: u64) -> Result<(), LogError> {
        let _ = seq;
        Ok(())
    }

    /// The highest acknowledged sequence number.
    pub fn acknowledged(&self) -> u64 {
        0
    }

    /// A way to wait: it changes whenever more is durable.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }
}
