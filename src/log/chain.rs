//! The chain of extended.log: a fingerprint of every line, in blocks that each cover the one before
//! (`docs/formats/extended-log-chain.md`).

use crate::base::durable;
use crate::base::lines;
use crate::limits;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

const MAGIC: &[u8; 8] = b"TGCHAIN1";
const HEADER_BYTES: usize = 64;
const BLOCK_HEAD_BYTES: usize = 16;
const PRINT_BYTES: usize = 4;
const DIGEST_BYTES: usize = 32;
const BLOCK_BYTES_MAX: usize = BLOCK_HEAD_BYTES + limits::LOG_CHAIN_BLOCK_LINES_MAX * PRINT_BYTES + 2 * DIGEST_BYTES;

/// What is kept of a line: enough to find which one of a block is not what it was. That one is not, the block's digest of all
/// its lines proves; a digest of each would cost the log's writer more than all else it does.
pub type Print = u32;
/// What a block comes to, with all before it.
pub type Digest = [u8; DIGEST_BYTES];

/// The fingerprint of a line, LF included.
pub fn print(line: &[u8]) -> Print {
    crc32fast::hash(line)
}

/// The chain of the file that begins with the record `first`.
pub fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("extended.log.{first:020}.chain"))
}

/// The first numbers of all chains in `dir`, ascending.
pub fn firsts(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let digits =
            name.to_str().and_then(|name| name.strip_prefix("extended.log.")?.strip_suffix(".chain")).unwrap_or("");
        if digits.len() == 20 {
            firsts.extend(digits.parse::<u64>());
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// The last number that is sealed of the file that begins with `first`; `None` if none is, or the chain cannot be read.
pub fn last(dir: &Path, first: u64) -> Option<u64> {
    let mut reader = Reader::open(dir, first).ok()?;
    while reader.next_block().ok()?.is_some() {}
    (reader.last > 0).then_some(reader.last)
}

/// When lines were sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As they were written.
    Written,
    /// At a start of the node.
    AtStart,
}

/// The chain of the file that is written now.
pub struct Chain {
    dir: PathBuf,
    /// `None` until the file's first line is sealed.
    open: Option<Open>,
    /// Lines that are not sealed yet: runs of consecutive numbers.
    pending: Vec<Run>,
    pending_lines: usize,
}

struct Open {
    file: File,
    bytes: u64,
    digest: Digest,
}

struct Run {
    first: u64,
    kind: Kind,
    prints: Vec<Print>,
    /// Over the lines.
    lines: blake3::Hasher,
}

impl Chain {
    /// The chain for a log in `dir` whose file has no record yet.
    pub fn new(dir: &Path) -> Chain {
        Chain { dir: dir.to_path_buf(), open: None, pending: Vec::new(), pending_lines: 0 }
    }

    /// The chain for a log in `dir` whose file begins with `first`. Cuts away what a crash left of a block. Answers also the
    /// last number that is sealed, 0 if none is. `None` if the chain is damaged otherwise: it is left as it is.
    pub fn open(dir: &Path, first: u64) -> io::Result<Option<(Chain, u64)>> {
        let mut chain = Chain::new(dir);
        let path = path_of(dir, first);
        if !path.exists() {
            return Ok(Some((chain, 0)));
        }
        let Ok(mut reader) = Reader::open(dir, first) else {
            let begun = fs::read(&path)?;
            if begun.len() >= HEADER_BYTES && begun.iter().any(|byte| *byte != 0) {
                return Ok(None);
            }
            tracing::warn!(
                event = "log-chain-torn",
                "{} has no whole beginning: the chain of this file begins anew",
                path.display()
            );
            fs::remove_file(&path)?;
            return Ok(Some((chain, 0)));
        };
        while reader.next_block()?.is_some() {}
        let (end, last) = (reader.bytes, reader.last);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        if end < file.metadata()?.len() {
            if !is_torn(&file, end)? {
                return Ok(None);
            }
            tracing::warn!(
                event = "log-chain-torn",
                "{} ended in {} bytes of a torn block: cut away; the lines it stood for are sealed again",
                path.display(),
                file.metadata()?.len() - end
            );
            file.set_len(end)?;
            file.sync_data()?;
        }
        chain.open = Some(Open { file, bytes: end, digest: reader.digest });
        Ok(Some((chain, last)))
    }

    /// Takes whole lines, numbered from `first` on, to be sealed by the next [`Chain::seal`].
    pub fn add(&mut self, lines: &[u8], first: u64, kind: Kind) {
        let (mut seq, mut rest) = (first, lines);
        while !rest.is_empty() {
            let follows = |run: &&mut Run| {
                let count = run.prints.len();
                run.kind == kind && run.first + count as u64 == seq && count < limits::LOG_CHAIN_BLOCK_LINES_MAX
            };
            if self.pending.last_mut().as_ref().is_none_or(|run| !follows(run)) {
                self.pending.push(Run { first: seq, kind, prints: Vec::new(), lines: blake3::Hasher::new() });
            }
            let Some(run) = self.pending.last_mut() else { return };
            let before = run.prints.len();
            let room = limits::LOG_CHAIN_BLOCK_LINES_MAX - before;
            let bytes = lines::inclusive(rest)
                .take(room)
                .map(|line| {
                    run.prints.push(print(line));
                    line.len()
                })
                .sum();
            // All at once: long stretches are several times as quick as one line after the other.
            run.lines.update(&rest[..bytes]);
            rest = &rest[bytes..];
            let added = run.prints.len() - before;
            seq += added as u64;
            self.pending_lines += added;
        }
    }

    /// Whether lines wait to be sealed.
    pub fn is_behind(&self) -> bool {
        self.pending_lines > 0
    }

    /// Whether more wait than may.
    pub fn is_full(&self) -> bool {
        self.pending_lines >= limits::LOG_CHAIN_PENDING_MAX
    }

    /// Writes what waits, in blocks. `file_first` is the first number of the file the lines stand in. After an error call again:
    /// it goes on at the very byte.
    pub fn seal(&mut self, file_first: u64) -> io::Result<()> {
        if !self.is_behind() {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => begin(&self.dir, file_first)?,
        };
        let (mut blocks, mut digest) = (Vec::new(), open.digest);
        for run in &self.pending {
            let start = blocks.len();
            blocks.extend_from_slice(&run.first.to_le_bytes());
            blocks.extend_from_slice(&(run.prints.len() as u32).to_le_bytes());
            blocks.extend_from_slice(&u32::from(run.kind == Kind::AtStart).to_le_bytes());
            run.prints.iter().for_each(|print| blocks.extend_from_slice(&print.to_le_bytes()));
            blocks.extend_from_slice(run.lines.finalize().as_bytes());
            digest = digest_of(&digest, &blocks[start..]);
            blocks.extend_from_slice(&digest);
        }
        let written = open.file.write_all_at(&blocks, open.bytes);
        if written.is_ok() {
            open.bytes += blocks.len() as u64;
            open.digest = digest;
            self.pending.clear();
            self.pending_lines = 0;
        }
        self.open = Some(open);
        written
    }

    /// Makes what is sealed durable.
    pub fn sync(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data())
    }

    /// The file is rotated: the next line begins another chain.
    pub fn end_file(&mut self) {
        self.open = None;
    }
}

/// Whether what stands behind `end` may be what a crash left: a piece of one block, or zeros where its pages never reached the
/// disk. A whole block that does not hold, or one with another behind it, is none of a crash's.
fn is_torn(file: &File, end: u64) -> io::Result<bool> {
    let length = file.metadata()?.len() - end;
    let mut rest = vec![0; length.min(BLOCK_BYTES_MAX as u64) as usize];
    file.read_exact_at(&mut rest, end)?;
    let mut behind = file;
    behind.seek(SeekFrom::Start(end + rest.len() as u64))?;
    for byte in BufReader::with_capacity(limits::LOG_READ_BYTES, behind).bytes() {
        if byte? != 0 {
            return Ok(false);
        }
    }
    let said = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    if said < BLOCK_HEAD_BYTES {
        return Ok(true);
    }
    let Some(bytes) = block_bytes(&rest) else { return Ok(false) };
    // A digest ends in so many zeros once in 2^64.
    let in_part = length < bytes as u64 || said + 8 <= bytes;
    Ok(in_part && !(BLOCK_HEAD_BYTES + DIGEST_BYTES..said).any(|at| holds_at(&rest, at)))
}

/// The bytes of the block that begins here; `None` if none begins like this.
fn block_bytes(head: &[u8]) -> Option<usize> {
    let count = number(head.get(8..12)?) as usize;
    let kind = number(head.get(12..16)?);
    let possible = (1..=limits::LOG_CHAIN_BLOCK_LINES_MAX).contains(&count) && kind <= 1;
    possible.then_some(BLOCK_HEAD_BYTES + count * PRINT_BYTES + 2 * DIGEST_BYTES)
}

/// Whether at `at` there is a block that goes on from the digest before it.
fn holds_at(rest: &[u8], at: usize) -> bool {
    let Some(block) = block_bytes(&rest[at..]).and_then(|bytes| rest.get(at..at + bytes)) else { return false };
    let mut before = [0; DIGEST_BYTES];
    before.copy_from_slice(&rest[at - DIGEST_BYTES..at]);
    let (block, digest) = block.split_at(block.len() - DIGEST_BYTES);
    digest == digest_of(&before, block)
}

fn digest_of(before: &Digest, block: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(block);
    *hasher.finalize().as_bytes()
}

/// A new chain behind the newest there is.
fn begin(dir: &Path, first: u64) -> io::Result<Open> {
    let (mut before, mut digest) = (0, [0; DIGEST_BYTES]);
    if let Some(newest) = firsts(dir)?.into_iter().rfind(|other| *other != first) {
        // A chain that cannot be read is named all the same, with zeros: the audit then finds it.
        before = newest;
        if let Ok(mut reader) = Reader::open(dir, newest) {
            while reader.next_block()?.is_some() {}
            digest = reader.digest;
        }
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&first.to_le_bytes());
    header.extend_from_slice(&before.to_le_bytes());
    header.extend_from_slice(&digest);
    let sum = blake3::hash(&header);
    header.extend_from_slice(&sum.as_bytes()[..8]);
    let path = path_of(dir, first);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o640).open(path)?;
    file.write_all_at(&header, 0)?;
    durable::sync_dir(dir)?;
    Ok(Open { file, bytes: HEADER_BYTES as u64, digest: *blake3::hash(&header).as_bytes() })
}

/// A block as it stands in a chain.
#[derive(Debug)]
pub struct Block {
    /// Number of its first line.
    pub first: u64,
    /// When it was sealed.
    pub kind: Kind,
    /// One for each line.
    pub prints: Vec<Print>,
    /// BLAKE3 over all lines.
    pub lines: Digest,
}

/// Reads a chain, block by block, as long as it holds. Reads no further than the file was long when it was opened.
pub struct Reader {
    file: io::Take<BufReader<File>>,
    /// The first number of the file before, 0 if none; and the digest its chain must end in.
    pub before: (u64, Digest),
    /// The digest up to here.
    pub digest: Digest,
    /// Length of what holds.
    pub bytes: u64,
    /// Length of the file.
    pub length: u64,
    /// The last number that is sealed, 0 if none.
    pub last: u64,
}

impl Reader {
    /// Opens the chain of the file that begins with `first`. A header that does not hold is an error of kind `InvalidData`.
    pub fn open(dir: &Path, first: u64) -> io::Result<Reader> {
        let file = File::open(path_of(dir, first))?;
        let length = file.metadata()?.len();
        let mut file = BufReader::new(file).take(length);
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).map_err(|_| io::ErrorKind::InvalidData)?;
        let holds = header[..8] == *MAGIC
            && number(&header[8..16]) == first
            && header[56..] == blake3::hash(&header[..56]).as_bytes()[..8];
        if !holds {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut before = [0; DIGEST_BYTES];
        before.copy_from_slice(&header[24..56]);
        let digest = *blake3::hash(&header).as_bytes();
        let bytes = HEADER_BYTES as u64;
        Ok(Reader { file, before: (number(&header[16..24]), before), digest, bytes, length, last: 0 })
    }

    /// The next block; `None` at the end, and where a block does not hold (then `bytes` is less than `length`).
    pub fn next_block(&mut self) -> io::Result<Option<Block>> {
        let mut block = vec![0; BLOCK_HEAD_BYTES];
        if !self.fill(&mut block)? {
            return Ok(None);
        }
        let (first, count) = (number(&block[..8]), number(&block[8..12]) as usize);
        let kind = match number(&block[12..16]) {
            0 => Kind::Written,
            1 => Kind::AtStart,
            _ => return Ok(None),
        };
        if count == 0 || count > limits::LOG_CHAIN_BLOCK_LINES_MAX || first.checked_add(count as u64).is_none() {
            return Ok(None);
        }
        let prints_end = BLOCK_HEAD_BYTES + count * PRINT_BYTES;
        block.resize(prints_end + DIGEST_BYTES, 0);
        let mut digest = [0; DIGEST_BYTES];
        if !self.fill(&mut block[BLOCK_HEAD_BYTES..])? || !self.fill(&mut digest)? {
            return Ok(None);
        }
        if digest != digest_of(&self.digest, &block) {
            return Ok(None);
        }
        self.digest = digest;
        self.bytes += (block.len() + DIGEST_BYTES) as u64;
        self.last = first + count as u64 - 1;
        let prints = block[BLOCK_HEAD_BYTES..prints_end].as_chunks::<PRINT_BYTES>().0;
        let mut lines = [0; DIGEST_BYTES];
        lines.copy_from_slice(&block[prints_end..]);
        Ok(Some(Block {
            first,
            kind,
            prints: prints.iter().map(|print| Print::from_le_bytes(*print)).collect(),
            lines,
        }))
    }

    /// Whether there were as many bytes.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.file.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_cut_at_any_byte_goes_on_and_one_changed_at_any_byte_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = Chain::new(dir.path());
        let mut ends = vec![(0, 0)];
        for first in [1, 4, 7] {
            chain.add(b"one\ntwo\nthree\n", first, Kind::Written);
            chain.seal(1).unwrap();
            ends.push((fs::metadata(path_of(dir.path(), 1)).unwrap().len() as usize, first + 2));
        }
        let whole = fs::read(path_of(dir.path(), 1)).unwrap();
        let expected = |at: usize| ends.iter().rev().find(|(end, _)| *end <= at).unwrap().1;
        for at in 0..whole.len() {
            fs::write(path_of(dir.path(), 1), &whole[..at]).unwrap();
            let (mut chain, sealed) = Chain::open(dir.path(), 1).unwrap().unwrap();
            assert_eq!(sealed, expected(at), "cut at {at}");
            chain.add(b"again\n", sealed + 1, Kind::AtStart);
            chain.seal(1).unwrap();
            assert_eq!(Chain::open(dir.path(), 1).unwrap().unwrap().1, sealed + 1, "cut at {at}: it goes on");
            // A power failure: the length is there, the pages are not.
            let lost = whole[..at].iter().copied().chain(std::iter::repeat_n(0, whole.len() - at)).collect::<Vec<_>>();
            fs::write(path_of(dir.path(), 1), &lost).unwrap();
            let digest_is_nearly_whole =
                ends.iter().any(|(end, _)| at < *end && at + 8 > *end) || (1..64).contains(&at);
            assert!(digest_is_nearly_whole || Chain::open(dir.path(), 1).unwrap().is_some(), "zeros from {at} on");
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(path_of(dir.path(), 1), &bad).unwrap();
            let opened = Chain::open(dir.path(), 1).unwrap();
            // Nothing tells a last block that says it is longer than the file from one that was being written.
            let says_longer = at == ends[2].0 + 9;
            assert!(opened.is_none() || says_longer, "changed at {at}");
            assert!(says_longer || fs::read(path_of(dir.path(), 1)).unwrap() == bad, "changed at {at}: nothing is cut");
        }
    }
}
