//! Batches of records on their way to the master (`docs/formats/record-batch.md`).

use crate::base::archive::Verified;
use crate::limits;
use crate::record::Epoch;
use crate::record::Record;
use rkyv::rancor::Error;
use std::fmt;

/// What the fingerprint is made of: whoever changes `Record` changes this (a test compares it with the type).
const FIELDS: &str = "record_id client_id:u64 request_id:u32 ended_us:i64 offset_min:i16 elapsed_ms:u64 status:u16 upload:u64 \
    download:u64 bypassed:bool client_ip username method url referer useragent mime filter_name filtering_reason interface \
    cachecode peercode peer request_host time_profiles user_groups request_types applications categories \
    response_profiles upload_types download_types profiles node seq:u64 snapshot rule ending connect_us:u32 \
    first_byte_us:u32 sni tls";
const MAGIC: &[u8; 8] = b"TGBATCH\0";
const FORMAT: u32 = 1;
const SUM_AT: usize = 64;
const HEADER_BYTES: usize = 96;

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

/// The bytes of a batch. `records` must be in ascending order of `seq`, not empty, and at most
/// `limits::BATCH_RECORDS_MAX`.
pub fn encode(node: &str, epoch: Epoch, records: &[Record]) -> Result<Vec<u8>, BadBatch> {
    check_order(records)?;
    let [first, .., last] = [records.first(), records.last()].map(|record| record.map_or(0, |record| record.seq));
    if node.len() > limits::NODE_NAME_BYTES_MAX {
        return Err(BadBatch(format!("the node's name is longer than {} bytes", limits::NODE_NAME_BYTES_MAX)));
    }
    let archive = rkyv::to_bytes::<Error>(&Records(records.to_vec())).map_err(|error| BadBatch(error.to_string()))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + node.len() + archive.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&fingerprint());
    bytes.extend_from_slice(&epoch.0);
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&last.to_le_bytes());
    bytes.extend_from_slice(&(records.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(node.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(archive.len() as u64).to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(node.as_bytes());
    bytes.extend_from_slice(&archive);
    let sum = sum(&bytes);
    bytes[SUM_AT..HEADER_BYTES].copy_from_slice(&sum);
    if bytes.len() > limits::BATCH_BYTES_MAX {
        return Err(BadBatch(format!(
            "it is larger than {} bytes: send fewer records at once",
            limits::BATCH_BYTES_MAX
        )));
    }
    Ok(bytes)
}

/// Checks and reads the bytes of a batch; whatever they are, it answers.
pub fn decode(bytes: &[u8]) -> Result<Batch, BadBatch> {
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
    if bytes[SUM_AT..HEADER_BYTES] != sum(bytes) {
        return bad("it is damaged (its checksum differs)");
    }
    let (node, archive) = bytes[HEADER_BYTES..].split_at(name_bytes);
    let Ok(node) = std::str::from_utf8(node) else { return bad("the node's name is not UTF-8") };
    let verified = Verified::<Records>::check(archive).map_err(BadBatch)?;
    let Records(records) =
        rkyv::deserialize::<Records, Error>(verified.get()).map_err(|error| BadBatch(error.to_string()))?;
    check_order(&records)?;
    let ends = [records.first(), records.last()].map(|record| record.map_or(0, |record| record.seq));
    if records.len() != count || ends != [number(32), number(40)] {
        return bad("its records are not those that its header names");
    }
    let epoch = Epoch(bytes[16..32].try_into().unwrap_or_default());
    Ok(Batch { node: node.to_string(), epoch, records })
}

/// A name for the archived type, so that the derive knows its checks.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Records(Vec<Record>);

fn check_order(records: &[Record]) -> Result<(), BadBatch> {
    if records.is_empty() || records.len() > limits::BATCH_RECORDS_MAX {
        return Err(BadBatch(format!("it has {} records, not 1 to {}", records.len(), limits::BATCH_RECORDS_MAX)));
    }
    if records[0].seq == 0 || records.windows(2).any(|two| two[0].seq >= two[1].seq) {
        return Err(BadBatch("its records are not in ascending order of seq".to_string()));
    }
    Ok(())
}

fn fingerprint() -> [u8; 4] {
    let [a, b, c, d, ..] = *blake3::hash(FIELDS.as_bytes()).as_bytes();
    [a, b, c, d]
}

fn sum(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..SUM_AT]).update(&bytes[HEADER_BYTES..]);
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
        let bytes = encode("edge-1", EPOCH, &records).unwrap();
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
    fn records_that_are_no_sequence_are_refused_on_both_sides() {
        for records in [vec![], vec![record(2), record(2)], vec![record(2), record(1)], vec![record(0)]] {
            assert!(encode("edge-1", EPOCH, &records).is_err());
        }
        assert!(encode(&"n".repeat(300), EPOCH, &[record(1)]).is_err());
    }

    #[test]
    fn the_fingerprint_follows_the_fields_of_a_record() {
        let shown = format!("{:?}", Record::default());
        let fields: Vec<&str> = shown.split(": ").filter_map(|part| part.rsplit([' ', '{']).next()).collect();
        let named: Vec<&str> = FIELDS.split_whitespace().map(|field| field.split(':').next().unwrap()).collect();
        assert_eq!(fields[..fields.len() - 1], named);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
