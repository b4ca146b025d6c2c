//! A rotated file of extended.log, compressed (`docs/formats/extended-log.md`, "A packed file"): frames of whole lines that are
//! decompressed one by one, so that a reader which wants a place in the middle does not read all that stands before it.

use crate::base::breath::Breath;
use crate::base::frames::Frames;
use crate::limits::LOG_FRAME_BYTES;
use crate::limits::LOG_PACK_LEVEL;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::fs::FileExt;
use zstd::bulk::Decompressor;
use zstd::zstd_safe;

/// A frame that programs of others pass over.
const TABLE_MAGIC: u32 = 0x184d_2a5e;
const TABLE_NAME: &[u8; 8] = b"TGFRAMES";
/// Magic and length, name; then the entries.
const TABLE_HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16;
/// Count, zeros, checksum.
const TABLE_END_BYTES: usize = 16;
const SUM_BYTES: usize = 8;

type Sum = [u8; SUM_BYTES];

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
struct Frame {
    start: u64,
    bytes: u32,
    plain_start: u64,
    plain_bytes: u32,
    /// Of the frame as it stands; `None` if the table is damaged.
    sum: Option<Sum>,
}

/// A packed file: reads as what was packed, and seeks in it.
pub struct Packed {
    file: File,
    frames: Vec<Frame>,
    table_holds: bool,
    position: u64,
    /// Which frame is decompressed.
    at: Option<usize>,
    plain: Vec<u8>,
    decompressor: Decompressor<'static>,
}

impl Packed {
    /// Opens a packed file by its table of frames; where that is damaged, by looking the frames through.
    pub fn open(file: File) -> io::Result<Packed> {
        let table = read_table(&file)?;
        let table_holds = table.is_some();
        let frames = table.map_or_else(|| look_through(&file), Ok)?;
        let decompressor = Decompressor::new()?;
        Ok(Packed { file, frames, table_holds, position: 0, at: None, plain: Vec::new(), decompressor })
    }

    /// Length of what was packed.
    pub fn plain_bytes(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.plain_start + u64::from(frame.plain_bytes))
    }

    /// Whether the table of frames is what was written.
    pub fn table_holds(&self) -> bool {
        self.table_holds
    }

    /// Goes to the first place behind the frame that the position is in, which does not hold. Answers it.
    pub fn pass_over(&mut self) -> u64 {
        if let Some(frame) = self.index().and_then(|index| self.frames.get(index)) {
            self.position = frame.plain_start + u64::from(frame.plain_bytes);
        }
        self.position
    }

    /// The frame that the position is in; `None` behind the last.
    fn index(&self) -> Option<usize> {
        let behind = self.frames.partition_point(|frame| frame.plain_start <= self.position);
        behind.checked_sub(1).filter(|_| self.position < self.plain_bytes())
    }

    fn decompress(&mut self, index: usize) -> io::Result<()> {
        let frame = self.frames[index];
        self.at = None;
        let mut bytes = vec![0; frame.bytes as usize];
        self.file.read_exact_at(&mut bytes, frame.start)?;
        let damaged = || {
            let words = format!(
                "the {} bytes of a compressed frame from byte {} on are not what was written",
                frame.bytes, frame.start
            );
            io::Error::new(io::ErrorKind::InvalidData, words)
        };
        if frame.sum.is_some_and(|sum| sum != sum_of(&bytes)) {
            return Err(damaged());
        }
        self.plain.clear();
        self.plain.reserve(LOG_FRAME_BYTES);
        let decompressed = self.decompressor.decompress_to_buffer(&bytes, &mut self.plain);
        if decompressed.map_err(|_| damaged())? != frame.plain_bytes as usize {
            return Err(damaged());
        }
        self.at = Some(index);
        Ok(())
    }
}

impl Read for Packed {
    /// A frame that does not hold is an error of kind `InvalidData`, at its beginning.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(index) = self.index() else { return Ok(0) };
        if self.at != Some(index) {
            self.decompress(index)?;
        }
        let from = (self.position - self.frames[index].plain_start) as usize;
        let count = room.len().min(self.plain.len() - from);
        room[..count].copy_from_slice(&self.plain[from..from + count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Packed {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.plain_bytes().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Packs all of `from` into `to`, which is empty. `go_on` is asked before each frame; if it says no, so does the answer.
pub fn pack(from: &File, to: &mut File, mut go_on: impl FnMut() -> bool) -> io::Result<bool> {
    // Sums for programs of others; our own cover the compressed bytes.
    let mut frames = Frames::with_sums(LOG_PACK_LEVEL)?;
    let (mut entries, mut at, mut plain, mut frame) = (Vec::new(), 0, vec![0; LOG_FRAME_BYTES], Vec::new());
    let mut breath = Breath::start();
    loop {
        breath.take();
        if !go_on() {
            return Ok(false);
        }
        let count = fill(from, &mut plain, at)?;
        if count == 0 {
            break;
        }
        // Whole lines, if a line is not longer than a frame.
        let whole = if count < plain.len() { None } else { plain.iter().rposition(|byte| *byte == b'\n') };
        let count = whole.map_or(count, |last| last + 1);
        frame.clear();
        frames.add(&plain[..count], &mut frame)?;
        to.write_all(&frame)?;
        entries.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        entries.extend_from_slice(&(count as u32).to_le_bytes());
        entries.extend_from_slice(&sum_of(&frame));
        at += count as u64;
    }
    to.write_all(&table(&entries))?;
    Ok(true)
}

/// Whether `packed` reads as `plain`, byte for byte. `go_on` is asked now and then; if it says no, so does the answer.
pub fn is_same(packed: File, plain: &File, mut go_on: impl FnMut() -> bool) -> io::Result<bool> {
    let mut packed = Packed::open(packed)?;
    let (mut ours, mut theirs, mut at) = (vec![0; LOG_FRAME_BYTES], vec![0; LOG_FRAME_BYTES], 0);
    let mut breath = Breath::start();
    loop {
        breath.take();
        let count = packed.read(&mut ours)?;
        if !go_on() || fill(plain, &mut theirs[..count.max(1)], at)? != count || ours[..count] != theirs[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(packed.table_holds);
        }
        at += count as u64;
    }
}

/// Reads as much as there is. Answers how much.
fn fill(file: &File, room: &mut [u8], at: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < room.len() {
        match file.read_at(&mut room[count..], at + count as u64) {
            Ok(0) => break,
            Ok(bytes) => count += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn table(entries: &[u8]) -> Vec<u8> {
    let count = (entries.len() / ENTRY_BYTES) as u32;
    let bytes = (TABLE_NAME.len() + entries.len() + TABLE_END_BYTES) as u32;
    let mut table = Vec::with_capacity(8 + bytes as usize);
    table.extend_from_slice(&TABLE_MAGIC.to_le_bytes());
    table.extend_from_slice(&bytes.to_le_bytes());
    table.extend_from_slice(TABLE_NAME);
    table.extend_from_slice(entries);
    table.extend_from_slice(&count.to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    let sum = sum_of(&table);
    table.extend_from_slice(&sum);
    table
}

/// The frames by the table at the end of the file; `None` if that is not what was written.
fn read_table(file: &File) -> io::Result<Option<Vec<Frame>>> {
    let length = file.metadata()?.len();
    let mut end = [0; TABLE_END_BYTES];
    let Some(end_at) = length.checked_sub(TABLE_END_BYTES as u64) else { return Ok(None) };
    file.read_exact_at(&mut end, end_at)?;
    let count = number(&end[..4]) as usize;
    let bytes = TABLE_HEAD_BYTES + count * ENTRY_BYTES + TABLE_END_BYTES;
    let Some(start) = length.checked_sub(bytes as u64) else { return Ok(None) };
    let mut table = vec![0; bytes];
    file.read_exact_at(&mut table, start)?;
    let (table, sum) = table.split_at(bytes - SUM_BYTES);
    if sum != sum_of(table) || table[8..TABLE_HEAD_BYTES] != *TABLE_NAME {
        return Ok(None);
    }
    let (mut frames, mut at, mut plain_at) = (Vec::with_capacity(count), 0, 0);
    for entry in table[TABLE_HEAD_BYTES..].as_chunks::<ENTRY_BYTES>().0.iter().take(count) {
        let (bytes, plain_bytes) = (number(&entry[..4]), number(&entry[4..8]));
        let [.., a, b, c, d, e, f, g, h] = *entry;
        let sum = Some([a, b, c, d, e, f, g, h]);
        frames.push(Frame { start: at, bytes, plain_start: plain_at, plain_bytes, sum });
        at += u64::from(bytes);
        plain_at += u64::from(plain_bytes);
    }
    let possible = frames.iter().all(|frame| frame.plain_bytes > 0 && frame.plain_bytes as usize <= LOG_FRAME_BYTES);
    Ok((at == start && possible).then_some(frames))
}

/// The frames one after the other, as far as they can be told apart.
fn look_through(file: &File) -> io::Result<Vec<Frame>> {
    let (mut frames, mut at, mut plain_at) = (Vec::new(), 0, 0);
    let mut room = vec![0; zstd_safe::compress_bound(LOG_FRAME_BYTES)];
    loop {
        let count = fill(file, &mut room, at)?;
        let found = &room[..count];
        let Ok(bytes) = zstd_safe::find_frame_compressed_size(found) else { break };
        let Ok(Some(plain_bytes)) = zstd_safe::get_frame_content_size(found) else { break };
        if plain_bytes == 0 || plain_bytes > LOG_FRAME_BYTES as u64 {
            break; // the table, or nothing of ours
        }
        let (bytes, plain_bytes) = (bytes as u32, plain_bytes as u32);
        frames.push(Frame { start: at, bytes, plain_start: plain_at, plain_bytes, sum: None });
        at += u64::from(bytes);
        plain_at += u64::from(plain_bytes);
    }
    Ok(frames)
}

fn sum_of(bytes: &[u8]) -> Sum {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d, e, f, g, h]
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Lines of many lengths, three frames of them.
    fn text() -> Vec<u8> {
        let mut text = Vec::new();
        let mut number = 1u64;
        while text.len() < 2 * LOG_FRAME_BYTES + 1000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(format!("\"{number}\"\t\"{}\"\n", "x".repeat((number >> 55) as usize)).as_bytes());
        }
        text
    }

    fn packed(dir: &Path, text: &[u8]) -> Vec<u8> {
        fs::write(dir.join("plain"), text).unwrap();
        let mut to =
            File::options().read(true).write(true).create(true).truncate(true).open(dir.join("packed")).unwrap();
        let plain = File::open(dir.join("plain")).unwrap();
        assert!(pack(&plain, &mut to, || true).unwrap());
        assert!(is_same(to, &plain, || true).unwrap());
        fs::read(dir.join("packed")).unwrap()
    }

    fn open(dir: &Path, bytes: &[u8]) -> Packed {
        fs::write(dir.join("changed"), bytes).unwrap();
        Packed::open(File::open(dir.join("changed")).unwrap()).unwrap()
    }

    /// What can be read, and how often a frame had to be passed over.
    fn all(packed: &mut Packed) -> (Vec<u8>, usize) {
        let (mut text, mut room, mut damaged) = (Vec::new(), vec![0; 100_000], 0);
        loop {
            match packed.read(&mut room) {
                Ok(0) => return (text, damaged),
                Ok(count) => text.extend_from_slice(&room[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                    packed.pass_over();
                    damaged += 1;
                }
            }
        }
    }

    #[test]
    fn what_was_packed_reads_back_from_any_place_and_by_the_tools_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let text = text();
        let bytes = packed(dir.path(), &text);
        assert!(bytes.len() < text.len());
        assert_eq!(zstd::decode_all(&bytes[..]).unwrap(), text, "the table is passed over by others");
        let mut packed = open(dir.path(), &bytes);
        assert_eq!(packed.plain_bytes(), text.len() as u64);
        for place in [0, 1, LOG_FRAME_BYTES - 1, LOG_FRAME_BYTES, LOG_FRAME_BYTES + 1, 77, text.len() - 1, text.len()] {
            packed.seek(SeekFrom::Start(place as u64)).unwrap();
            assert!(all(&mut packed).0 == text[place..], "from byte {place}");
        }
        assert!(
            packed.frames[..2]
                .iter()
                .all(|frame| text[frame.plain_start as usize + frame.plain_bytes as usize - 1] == b'\n')
        );
        for text in [&b""[..], b"one line\n", b"no line", &vec![b'x'; LOG_FRAME_BYTES * 2]] {
            let bytes = self::packed(dir.path(), text);
            assert_eq!(all(&mut open(dir.path(), &bytes)), (text.to_vec(), 0));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_costs_its_frame_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let text = text();
        let bytes = packed(dir.path(), &text);
        let table_at = bytes.len() - (TABLE_HEAD_BYTES + 3 * ENTRY_BYTES + TABLE_END_BYTES);
        let ends = [0..12, table_at - 8..bytes.len()].into_iter().flatten();
        for at in ends.chain((0..bytes.len()).step_by(49_999)) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            let mut packed = open(dir.path(), &bad);
            let (read, damaged) = all(&mut packed);
            if at < table_at {
                assert_eq!((damaged, packed.table_holds()), (1, true), "byte {at}");
                assert!(read.len() >= text.len() - LOG_FRAME_BYTES, "byte {at}: {} of {}", read.len(), text.len());
            } else {
                assert!(!packed.table_holds() && read == text, "byte {at}: the table is not needed");
            }
        }
        for cut in [0, 1, 100, table_at, bytes.len() - 1] {
            assert!(!open(dir.path(), &bytes[..cut]).table_holds(), "cut at {cut}");
        }
    }
}
