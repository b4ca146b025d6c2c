//! Seals: what of the store's file is as it was written. A disk that flips a bit must not alter a report unseen, so that each block is sealed
//! with what its row says of it, and the rows of words, nodes and gaps each have a seal beside them (`docs/formats/record-block.md`).

use crate::base::clock::Mono;
use crate::base::seldom::Seldom;
use crate::limits;
use rusqlite::Connection;
use rusqlite::Row;
use rusqlite::types::ValueRef;
use std::borrow::Cow;
use std::fmt;
use zstd::bulk::Compressor;

/// The format of frames that earlier versions wrote: without a seal.
const UNSEALED: u8 = 1;
const SEALED: u8 = 2;
const LEVEL: i32 = 3;
const SEAL_BYTES: usize = 8;

/// Why something in the store cannot be read: where, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damaged {}

/// What a block's row says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Whose records: a row of the table `node`.
    pub source: i64,
    /// The lowest number among them.
    pub first_seq: i64,
    /// The highest.
    pub last_seq: i64,
    /// How many.
    pub records: i64,
    /// When the first of them ended, microseconds since the epoch.
    pub min_us: i64,
    /// And the last.
    pub max_us: i64,
}

impl Head {
    /// Its columns, in the order in which [`Head::read`] takes them.
    pub const COLUMNS: &str = "source, first_seq, last_seq, records, min_us, max_us";
    /// How many they are.
    pub const WIDTH: usize = 6;

    /// Reads the first columns of a row.
    pub fn read(row: &Row) -> Result<Head, Damaged> {
        let mut numbers = [0; Head::WIDTH];
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = number_at(row, at)?;
        }
        let [source, first_seq, last_seq, records, min_us, max_us] = numbers;
        Ok(Head { source, first_seq, last_seq, records, min_us, max_us })
    }
}

/// Which frame of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What reports add up.
    Facts,
    /// The rest.
    Details,
}

/// A number in a row.
pub fn number_at(row: &Row, at: usize) -> Result<i64, Damaged> {
    match row.get_ref(at) {
        Ok(ValueRef::Integer(number)) => Ok(number),
        _ => Err(Damaged("what should be a number in its row is none")),
    }
}

/// Bytes in a row.
pub fn bytes_at<'r>(row: &'r Row, at: usize) -> Result<&'r [u8], Damaged> {
    match row.get_ref(at) {
        Ok(ValueRef::Blob(bytes)) => Ok(bytes),
        _ => Err(Damaged("what should be bytes in its row are none")),
    }
}

/// Text in a row, whatever stands there.
pub fn text_at<'r>(row: &'r Row, at: usize) -> Cow<'r, str> {
    match row.get_ref(at) {
        Ok(ValueRef::Text(bytes)) => String::from_utf8_lossy(bytes),
        _ => Cow::Borrowed(""),
    }
}

/// The seal of a word.
pub fn of_word(id: i64, text: &str) -> i64 {
    seal("word", &[id], text.as_bytes())
}

/// The seal of a node's row.
pub fn of_node(id: i64, epoch: &[u8], name: &str, (highest, last_us): (i64, i64)) -> i64 {
    seal("node", &[id, highest, last_us, epoch.len() as i64], &[epoch, name.as_bytes()].concat())
}

/// The seal of a gap: its node, first and last number, and when the records around it ended.
pub fn of_gap(gap: [i64; 5]) -> i64 {
    seal("gap", &gap, &[])
}

/// What SQLite says of a file that is not as it should be, for what it does not see itself.
pub fn corrupt(words: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(words.to_string()))
}

/// Whether something in the file is not as it should be.
pub fn is_corrupt(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{IntegralValueOutOfRange, InvalidColumnType};
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
        || matches!(error, InvalidColumnType(..) | IntegralValueOutOfRange(..))
}

/// Reads a frame of the block `id`. It is asked for alone: one that SQLite cannot read takes no other with it.
pub fn with_frame<T>(
    connection: &Connection,
    id: i64,
    part: Part,
    read: impl FnOnce(&[u8]) -> Result<T, Damaged>,
) -> rusqlite::Result<Result<T, Damaged>> {
    let sql = match part {
        Part::Facts => "SELECT facts FROM block WHERE id = ?1",
        Part::Details => "SELECT details FROM block WHERE id = ?1",
    };
    match connection.prepare_cached(sql)?.query_row([id], |row| Ok(bytes_at(row, 0).and_then(read))) {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(Err(Damaged("it is not where its index says"))),
        Err(error) if is_corrupt(&error) => Ok(Err(Damaged("its pages do not hang together"))),
        answer => answer,
    }
}

/// Whether a frame is as it was packed, without what that takes to unpack if its seal says so.
pub fn check(part: Part, head: &Head, packed: &[u8]) -> Result<(), Damaged> {
    let sealed = packed.strip_prefix(&[SEALED]).and_then(|rest| rest.get(4..)?.split_first_chunk::<SEAL_BYTES>());
    match sealed {
        Some((seal, frame)) if *seal == of_frame(part, head, frame) => Ok(()),
        _ => unpack(part, head, packed).map(|_| ()),
    }
}

/// A page that is open asks every few seconds, and meets the same damage each time.
pub fn tell(what: &str, damaged: &Damaged) {
    static LINES: Seldom = Seldom::new(limits::STORE_DAMAGE_LINES, limits::STORE_DAMAGE_LINES_MS);
    if let Some(untold) = LINES.ask(Mono::now()) {
        tracing::error!(event = "record-block-damaged", "{what} of the record store: {damaged}{untold}");
    }
}

fn of_frame(part: Part, head: &Head, frame: &[u8]) -> [u8; SEAL_BYTES] {
    let what = match part {
        Part::Facts => "facts",
        Part::Details => "details",
    };
    let Head { source, first_seq, last_seq, records, min_us, max_us } = *head;
    seal(what, &[source, first_seq, last_seq, records, min_us, max_us], frame).to_le_bytes()
}

/// Against disks, not against people: who may write the file can seal what is in it.
fn seal(what: &str, numbers: &[i64], bytes: &[u8]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(what.as_bytes());
    numbers.iter().for_each(|number| {
        hasher.update(&number.to_le_bytes());
    });
    hasher.update(bytes);
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Packs blocks, keeping its tables from one to the next.
pub struct Packer(Compressor<'static>);

impl Packer {
    /// One for a writer.
    pub fn new() -> Result<Packer, String> {
        Compressor::new(LEVEL).map(Packer).map_err(|error| error.to_string())
    }

    /// Puts what is already a list of columns into a sealed frame.
    pub fn pack(&mut self, part: Part, head: &Head, raw: &[u8]) -> Result<Vec<u8>, String> {
        let length = u32::try_from(raw.len()).map_err(|error| error.to_string())?;
        let frame = self.0.compress(raw).map_err(|error| error.to_string())?;
        let mut packed = vec![SEALED];
        packed.extend(length.to_le_bytes());
        packed.extend(of_frame(part, head, &frame));
        packed.extend(frame);
        Ok(packed)
    }
}

/// What a frame holds, if it is as it was packed.
pub fn unpack(part: Part, head: &Head, packed: &[u8]) -> Result<Vec<u8>, Damaged> {
    let short = Damaged("it is shorter than its head");
    let (format, rest) = packed.split_first().ok_or(short.clone())?;
    let (length, mut frame) = rest.split_first_chunk::<4>().ok_or(short.clone())?;
    match *format {
        UNSEALED => {}
        SEALED => {
            let (seal, sealed) = frame.split_first_chunk::<SEAL_BYTES>().ok_or(short)?;
            if *seal != of_frame(part, head, sealed) {
                return Err(Damaged("it is not as it was written: its seal differs"));
            }
            frame = sealed;
        }
        _ => return Err(Damaged("it has another format")),
    }
    let length = u32::from_le_bytes(*length) as usize;
    if length > limits::STORE_BLOCK_BYTES_MAX {
        return Err(Damaged("it says that it is larger than any is"));
    }
    let raw = zstd::bulk::decompress(frame, length).map_err(|_| Damaged("it does not unpack"))?;
    if raw.len() == length { Ok(raw) } else { Err(Damaged("it does not unpack to the length it names")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { source: 1, first_seq: 2, last_seq: 9, records: 3, min_us: -4, max_us: 5 };

    #[test]
    fn no_bit_of_a_frame_or_of_its_row_can_flip_unseen() {
        let raw = b"a list of columns, a list of columns".repeat(9);
        let packed = Packer::new().unwrap().pack(Part::Facts, &HEAD, &raw).unwrap();
        assert_eq!(unpack(Part::Facts, &HEAD, &packed).unwrap(), raw);
        assert!(unpack(Part::Details, &HEAD, &packed).is_err(), "it is no other part's");
        for bit in 0..packed.len() * 8 {
            let mut flipped = packed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(Part::Facts, &HEAD, &flipped).is_err(), "bit {bit}");
        }
        for bit in 0..64 {
            let mut heads = [HEAD; Head::WIDTH];
            heads[0].source ^= 1 << bit;
            heads[1].first_seq ^= 1 << bit;
            heads[2].last_seq ^= 1 << bit;
            heads[3].records ^= 1 << bit;
            heads[4].min_us ^= 1 << bit;
            heads[5].max_us ^= 1 << bit;
            assert!(heads.iter().all(|head| unpack(Part::Facts, head, &packed).is_err()), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_an_earlier_version_is_read() {
        let raw = b"a list of columns";
        let mut packed = vec![UNSEALED];
        packed.extend((raw.len() as u32).to_le_bytes());
        packed.extend(zstd::bulk::compress(raw, LEVEL).unwrap());
        assert_eq!(unpack(Part::Facts, &Head::default(), &packed).unwrap(), raw);
    }
}
