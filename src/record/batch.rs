//! Batches of records on their way to the master (`docs/formats/record-batch.md`).

use crate::record::Epoch;
use crate::record::Record;
use std::fmt;

/// Records of one node, in sequence, as the master receives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The node's name.
    pub node: String,
    /// The node's epoch.
    pub epoch: Epoch,
    /// In ascending order of `seq`; never empty.
    pub records: Vec<Record>,
}

/// Why bytes are not a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBatch(pub String);

impl fmt::Display for BadBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading a batch of records: {}", self.0)
    }
}

impl std::error::Error for BadBatch {}

/// The bytes of a batch. `records` must be in ascending order of `seq`, and not empty.
pub fn encode(_node: &str, _epoch: Epoch, _records: &[Record]) -> Result<Vec<u8>, BadBatch> {
    Err(BadBatch("not built yet".to_string()))
}

/// Checks and reads the bytes of a batch; whatever they are, it answers.
pub fn decode(_bytes: &[u8]) -> Result<Batch, BadBatch> {
    Err(BadBatch("not built yet".to_string()))
}
