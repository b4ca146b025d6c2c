//! The files of extended.log: what they are called, which there are, and reading one, plain or packed.

use crate::limits;
use crate::log::packed::Packed;
use crate::record::line;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

/// The file that is written now.
pub const NAME: &str = "extended.log";
const PACKED_END: &str = ".zst";

/// What the file that begins with `first` is called when it is rotated.
pub fn rotated_name(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{NAME}.{first:020}"))
}

/// What it is called when it is packed.
pub fn packed_name(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{NAME}.{first:020}{PACKED_END}"))
}

/// Where a file is packed.
pub fn packing_name(dir: &Path) -> PathBuf {
    dir.join(format!(".{NAME}.packing"))
}

/// Whether the file has been rotated, by its name.
pub fn is_rotated(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name != NAME)
}

/// Whether the file is packed, by its name.
pub fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == &PACKED_END[1..])
}

/// The rotated files of `dir` with their first numbers, oldest first. Of one that stands there plain and packed, the plain one.
pub fn rotated(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(NAME)?.strip_prefix('.'));
        let digits = rest.map(|rest| rest.strip_suffix(PACKED_END).unwrap_or(rest));
        if let Some(first) = digits.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok()) {
            files.push((first, entry.path()));
        }
    }
    files.sort();
    files.dedup_by_key(|(first, _)| *first);
    Ok(files)
}

/// All files of `dir` that hold records, with their first numbers, oldest first.
pub fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    // The current one first: if it is rotated meanwhile, it is in the list twice rather than not at all.
    let current = dir.join(NAME);
    let first = if current.exists() { first_seq(&current)? } else { None };
    let mut files = rotated(dir)?;
    if let Some(first) = first
        && files.iter().all(|(other, _)| *other != first)
    {
        files.push((first, current));
    }
    files.sort();
    Ok(files)
}

/// Calls `see` with each line of the last `bytes_max` bytes of the log, newest file first. What cannot be decompressed is passed over.
pub fn tail_lines(dir: &Path, bytes_max: u64, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    let mut left = bytes_max;
    for (_, path) in files(dir)?.iter().rev() {
        let mut file = LogFile::open(path)?;
        let bytes = file.plain_bytes()?;
        let start = bytes.saturating_sub(left);
        file.read_from(start)?.split(|byte| *byte == b'\n').for_each(&mut see);
        left -= bytes - start;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads the next line into `text`, a longer one than any of ours in pieces. Answers its length, 0 at the end.
pub fn next_line(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<usize> {
    text.clear();
    Read::take(reader, limits::LOG_LINE_BYTES_MAX as u64).read_until(b'\n', text)
}

/// The `seq` of the first line that has one.
pub fn first_seq(path: &Path) -> io::Result<Option<u64>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut text = Vec::new();
    let mut before = 0;
    while next_line(&mut reader, &mut text)? > 0 {
        if line::is_header(&text) || text.last() != Some(&b'\n') {
            continue;
        }
        match line::seq_of(&text[..text.len() - 1]) {
            // Damaged lines before it had the numbers before its own.
            Some(seq) => return Ok(Some(seq.saturating_sub(before).max(1))),
            None => before += 1,
        }
    }
    Ok(None)
}

/// The number of the last of these whole lines (the first may be a piece); damaged ones after it count.
pub fn last_seq(lines: &[u8]) -> Option<u64> {
    let mut damaged = 0;
    for text in lines.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n') {
        if line::is_header(text) {
            return None;
        }
        match line::seq_of(text) {
            Some(seq) => return Some(seq + damaged),
            None => damaged += 1,
        }
    }
    None
}

/// A file of the log, open for reading. A packed one reads as what was packed: places in it are those of the plain file.
pub enum LogFile {
    /// As it was written.
    Plain(File),
    /// Compressed. On the heap: it is larger.
    Packed(Box<Packed>),
}

impl LogFile {
    /// Opens the file at `path`. If it has been packed meanwhile, the packed one.
    pub fn open(path: &Path) -> io::Result<LogFile> {
        let opened = File::open(path);
        let packed = match (&opened, is_packed(path)) {
            (_, true) => opened?,
            (Err(error), false) if error.kind() == io::ErrorKind::NotFound && is_rotated(path) => {
                let mut name = path.as_os_str().to_os_string();
                name.push(PACKED_END);
                File::open(name)?
            }
            (_, false) => return Ok(LogFile::Plain(opened?)),
        };
        Ok(LogFile::Packed(Box::new(Packed::open(packed)?)))
    }

    /// The same with room to read ahead.
    pub fn reader(path: &Path) -> io::Result<BufReader<LogFile>> {
        Ok(BufReader::with_capacity(limits::LOG_READ_BYTES, LogFile::open(path)?))
    }

    /// How long it is, unpacked.
    pub fn plain_bytes(&self) -> io::Result<u64> {
        match self {
            LogFile::Plain(file) => Ok(file.metadata()?.len()),
            LogFile::Packed(packed) => Ok(packed.plain_bytes()),
        }
    }

    /// Whether it is known where its frames are.
    pub fn table_holds(&self) -> bool {
        match self {
            LogFile::Plain(_) => true,
            LogFile::Packed(packed) => packed.table_holds(),
        }
    }

    /// After an error of kind `InvalidData`: goes to the first place behind what cannot be read, and answers it. `None` if nothing
    /// can be passed over.
    pub fn pass_over(&mut self) -> Option<u64> {
        match self {
            LogFile::Plain(_) => None,
            LogFile::Packed(packed) => Some(packed.pass_over()),
        }
    }

    /// All from `start` on that can be read.
    pub fn read_from(&mut self, start: u64) -> io::Result<Vec<u8>> {
        self.seek(SeekFrom::Start(start))?;
        let mut content = Vec::new();
        while let Err(error) = self.read_to_end(&mut content) {
            if error.kind() != io::ErrorKind::InvalidData || self.pass_over().is_none() {
                return Err(error);
            }
        }
        Ok(content)
    }
}

impl Read for LogFile {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            LogFile::Plain(file) => file.read(room),
            LogFile::Packed(packed) => packed.read(room),
        }
    }
}

impl Seek for LogFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            LogFile::Plain(file) => file.seek(to),
            LogFile::Packed(packed) => packed.seek(to),
        }
    }
}
