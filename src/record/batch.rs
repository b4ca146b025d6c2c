//! Batches of records on their way to the master (`docs/formats/record-batch.md`).

use crate::limits;
use crate::record::Epoch;
use crate::record::Record;
use crate::record::line::COLUMNS;
use crate::record::lines;
use crate::record::lines::Lines;
use std::fmt;

const MAGIC: &[u8; 8] = b"TGBATCH\0";
const FORMAT: u32 = 1;
const SUM_AT: usize = 64;
const HEADER_BYTES: usize = 96;

/// Records of one node, in sequence, as the master receives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The node's name.
    pub node: String,
    /// The node's epoch.
    pub epoch: Epoch,
    /// In ascending order of `seq`; never empty.
    pub records: Vec<Record<&'a str>>,
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

/// The beginning of a batch: header and name. The lines' own bytes follow it, at least one line and at most
/// `limits::BATCH_RECORDS_MAX`.
pub fn head(node: &str, epoch: Epoch, lines: &Lines) -> Result<Vec<u8>, BadBatch> {
    check_count(lines.len())?;
    if node.len() > limits::NODE_NAME_BYTES_MAX {
        return Err(BadBatch(format!("the node's name is longer than {} bytes", limits::NODE_NAME_BYTES_MAX)));
    }
    let text = lines.text();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + node.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&fingerprint());
    bytes.extend_from_slice(&epoch.0);
    bytes.extend_from_slice(&lines.first().to_le_bytes());
    bytes.extend_from_slice(&lines.last().to_le_bytes());
    bytes.extend_from_slice(&(lines.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(node.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(node.as_bytes());
    let sum = sum(&bytes, text);
    bytes[SUM_AT..HEADER_BYTES].copy_from_slice(&sum);
    if bytes.len() + text.len() > limits::BATCH_BYTES_MAX {
        return Err(BadBatch(format!(
            "it is larger than {} bytes: send fewer records at once",
            limits::BATCH_BYTES_MAX
        )));
    }
    Ok(bytes)
}

/// The bytes of a batch: its [`head`] and its lines.
pub fn encode(node: &str, epoch: Epoch, lines: &Lines) -> Result<Vec<u8>, BadBatch> {
    let mut bytes = head(node, epoch, lines)?;
    bytes.extend_from_slice(lines.text());
    Ok(bytes)
}

/// Checks and reads the bytes of a batch; whatever they are, it answers.
pub fn decode(bytes: &[u8]) -> Result<Batch<'_>, BadBatch> {
    let bad = |words: &str| Err(BadBatch(words.to_string()));
    if bytes.len() > limits::BATCH_BYTES_MAX {
        return bad("it is larger than any batch");
    }
    if bytes.len() < HEADER_BYTES {
        return bad("it is shorter than its header");
    }
    if &bytes[..8] != MAGIC {
        return bad("it is not a batch of records (wrong magic)");
    }
    if bytes[8..12] != FORMAT.to_le_bytes() || bytes[12..16] != fingerprint() {
        return bad("it was made by another version of Tidegate; install the same version on both nodes");
    }
    let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
    let (count, name_bytes) = (number(48) as u32 as usize, (number(48) >> 32) as usize);
    if name_bytes > limits::NODE_NAME_BYTES_MAX || count > limits::BATCH_RECORDS_MAX {
        return bad("its header names more than the limits allow");
    }
    if number(56).checked_add((HEADER_BYTES + name_bytes) as u64) != Some(bytes.len() as u64) {
        return bad("it has not the length that its header says");
    }
    let (head, text) = bytes.split_at(HEADER_BYTES + name_bytes);
    if head[SUM_AT..HEADER_BYTES] != sum(head, text) {
        return bad("it is damaged (its checksum differs)");
    }
    let Ok(node) = std::str::from_utf8(&head[HEADER_BYTES..]) else { return bad("the node's name is not UTF-8") };
    let records = lines::read(text).map_err(|error| BadBatch(format!("a line is no record: {error}")))?;
    check_order(&records)?;
    let ends = [records.first(), records.last()].map(|record| record.map_or(0, |record| record.seq));
    if records.len() != count || ends != [number(32), number(40)] {
        return bad("its records are not those that its header names");
    }
    let epoch = Epoch(bytes[16..32].try_into().unwrap_or_default());
    Ok(Batch { node: node.to_string(), epoch, records })
}

fn check_order(records: &[Record<&str>]) -> Result<(), BadBatch> {
    check_count(records.len())?;
    if records[0].seq == 0 || records.windows(2).any(|two| two[0].seq >= two[1].seq) {
        return Err(BadBatch("its records are not in ascending order of seq".to_string()));
    }
    Ok(())
}

fn check_count(records: usize) -> Result<(), BadBatch> {
    if records == 0 || records > limits::BATCH_RECORDS_MAX {
        return Err(BadBatch(format!("it has {records} records, not 1 to {}", limits::BATCH_RECORDS_MAX)));
    }
    Ok(())
}

fn fingerprint() -> [u8; 4] {
    let [a, b, c, d, ..] = *blake3::hash(COLUMNS.join(" ").as_bytes()).as_bytes();
    [a, b, c, d]
}

fn sum(head: &[u8], text: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..SUM_AT]).update(&head[HEADER_BYTES..]).update(text);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: Epoch = Epoch([5; 16]);

    fn record(seq: u64) -> Record {
        Record {
            seq,
            record_id: format!("1-{seq}-1-boot"),
            url: "http://a.test/\\x22".to_string(),
            ..Record::default()
        }
    }

    #[test]
    fn a_batch_reads_back_and_every_damaged_byte_or_cut_is_refused() {
        let records = vec![record(3), record(4), record(9)];
        let bytes = encode("edge-1", EPOCH, &Lines::of(&records)).unwrap();
        let records = records.iter().map(Record::view).collect();
        assert_eq!(decode(&bytes).unwrap(), Batch { node: "edge-1".to_string(), epoch: EPOCH, records });
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(decode(&bad).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut old = bytes.clone();
        old[8] = 2;
        assert!(decode(&old).unwrap_err().0.contains("another version"));
    }

    #[test]
    fn records_that_are_no_sequence_are_refused() {
        for records in [vec![], vec![record(2), record(2)], vec![record(2), record(1)], vec![record(0)]] {
            let bytes = encode("edge-1", EPOCH, &Lines::of(&records));
            assert!(bytes.and_then(|bytes| decode(&bytes).map(|_| ())).is_err());
        }
        assert!(encode(&"n".repeat(300), EPOCH, &Lines::of(&[record(1)])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
