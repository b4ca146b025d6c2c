//! extended.log as files: append, rotate, sync, find, and repair at start (`docs/formats/extended-log.md`, "A file").

use crate::base::durable;
use crate::limits;
use crate::log::chain;
use crate::log::chain::Chain;
use crate::log::chain::Kind;
use crate::log::files;
use crate::log::files::LogFile;
use crate::log::files::NAME;
use crate::log::files::first_seq;
use crate::log::files::last_seq;
use crate::log::files::next_line;
use crate::log::files::rotated;
use crate::log::files::rotated_name;
use crate::record::line;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufReader;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// The file that is written now and its rotated predecessors.
pub struct ExtendedLog {
    dir: PathBuf,
    bytes_max: u64,
    /// `None` between the two steps of a rotation.
    file: Option<File>,
    /// Length of what is wholly written.
    bytes: u64,
    /// How much of the lines that are being appended is written beyond that.
    partly: usize,
    /// `seq` of the file's first record; `None` if it has none.
    first: Option<u64>,
    unsynced: bool,
    chain: Chain,
}

impl ExtendedLog {
    /// Opens the log in `dir`, cutting away what a crash left of a line. Answers it and the `seq` of its last line, 0 if
    /// there is no line in any file.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<(ExtendedLog, u64)> {
        let chain = Chain::new(dir);
        let mut log = ExtendedLog {
            dir: dir.to_path_buf(),
            bytes_max,
            file: None,
            bytes: 0,
            partly: 0,
            first: None,
            unsynced: false,
            chain,
        };
        let mut last = None;
        let current = dir.join(NAME);
        if current.exists() {
            let file = open_for_append(&current)?;
            let tail = repair(&file)?;
            last = tail.last;
            log.first = if last.is_some() { first_seq(&current)? } else { None };
            log.bytes = tail.bytes;
            log.file = Some(file);
        }
        if last.is_none() {
            for (first, path) in rotated(dir)?.into_iter().rev() {
                last = last_of(dir, first, &path)?;
                if last.is_some() {
                    break;
                }
            }
        }
        // What a full disk puts off is done with the next append; meanwhile the node runs, and can be asked.
        log.seal_rest().or_else(unless_full)?;
        log.ready().or_else(unless_full)?;
        log.sync().or_else(unless_full)?;
        Ok((log, last.unwrap_or(0)))
    }

    /// From now on the file is rotated at this size.
    pub fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Appends whole lines, the first of them numbered `first`. After an error call again with the same lines: it goes on
    /// at the very byte.
    pub fn append(&mut self, lines: &[u8], first: u64) -> io::Result<()> {
        let would_be = self.bytes + lines.len() as u64;
        if self.partly == 0 && self.first.is_some() && would_be > self.bytes_max {
            self.rotate()?;
        }
        if self.chain.is_full() {
            self.sync()?;
        }
        self.ready()?;
        let Some(file) = &self.file else { return Err(io::Error::other("extended.log is not open")) };
        let (start, mut partly) = (self.bytes, self.partly);
        let written = loop {
            match file.write_at(&lines[partly..], start + partly as u64) {
                Ok(0) if partly < lines.len() => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => partly += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            }
            if partly == lines.len() {
                break Ok(());
            }
        };
        self.partly = partly;
        self.unsynced = true;
        written?;
        self.bytes += lines.len() as u64;
        self.partly = 0;
        self.first.get_or_insert(first);
        self.chain.add(lines, first, Kind::Written);
        Ok(())
    }

    /// After an error of [`ExtendedLog::append`]: cuts away what it had written, instead of another call with the same lines.
    pub fn drop_partial(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.partly) > 0
            && let Some(file) = &self.file
        {
            file.set_len(self.bytes)?;
        }
        Ok(())
    }

    /// Makes what was appended durable, and seals it.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced
            && let Some(file) = &self.file
        {
            file.sync_data()?;
            self.unsynced = false;
        }
        // Behind the sync: the chain covers no line that a power failure can take.
        self.first.map_or(Ok(()), |first| self.chain.seal(first))
    }

    /// The place behind the last line: first number of its file, and offset there.
    pub fn end(&self) -> (u64, u64) {
        (self.first.unwrap_or(0), self.bytes)
    }

    /// Whether there is something to sync.
    pub fn is_unsynced(&self) -> bool {
        self.unsynced || self.chain.is_behind()
    }

    /// Begins another file, unless nothing is in this one or a line of it is not whole yet.
    pub fn rotate_now(&mut self) -> io::Result<()> {
        if self.partly == 0 {
            self.rotate()?;
        }
        self.ready()
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Some(first) = self.first else { return Ok(()) };
        self.sync()?;
        self.chain.sync()?;
        fs::rename(self.dir.join(NAME), rotated_name(&self.dir, first))?;
        self.chain.end_file();
        (self.file, self.bytes, self.first) = (None, 0, None);
        Ok(())
    }

    /// Goes on with the chain of the file, and seals the lines that a crash (or an earlier build) left unsealed.
    fn seal_rest(&mut self) -> io::Result<()> {
        let Some(first) = self.first else { return Ok(()) };
        // If somebody took its first lines away, the file no longer says how its chain is called.
        let rotated = rotated(&self.dir)?;
        let own = |other: &u64| *other <= first && rotated.last().is_none_or(|(last, _)| last < other);
        let first = chain::firsts(&self.dir)?.into_iter().rfind(own).unwrap_or(first);
        self.first = Some(first);
        let Some((chain, sealed)) = Chain::open(&self.dir, first)? else { return self.leave_to_audit(first) };
        self.chain = chain;
        let mut file = File::open(self.dir.join(NAME))?;
        let from = unsealed_from(&file, self.bytes, sealed, limits::LOG_READ_BYTES as u64)?;
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::with_capacity(limits::LOG_READ_BYTES, file);
        let (mut text, mut late) = (Vec::new(), 0u64);
        while next_line(&mut reader, &mut text)? > 0 {
            let seq = if line::is_header(&text) { None } else { line::seq_of(text.trim_ascii_end()) };
            if let Some(seq) = seq.filter(|seq| *seq > sealed) {
                self.chain.add(&text, seq, Kind::AtStart);
                late += 1;
            }
            if self.chain.is_full() {
                self.chain.seal(first)?;
            }
        }
        if late > 0 {
            tracing::info!(event = "log-sealed-late", "sealed {late} lines of extended.log that no chain covered");
        }
        self.chain.seal(first)
    }

    /// The chain of the current file is damaged, and not as a crash does it: the file is put aside as it is, with its chain, so
    /// that the audit finds what was done to them, and another is begun.
    fn leave_to_audit(&mut self, first: u64) -> io::Result<()> {
        tracing::error!(
            event = "log-chain-damaged",
            "the chain of extended.log from record {first} on, {}, is damaged, and not at its end: both files are kept as they \
             are and a new file is begun. Run tidegate report audit, and find out who wrote to them",
            chain::path_of(&self.dir, first).display()
        );
        fs::rename(self.dir.join(NAME), rotated_name(&self.dir, first))?;
        durable::sync_dir(&self.dir)?;
        (self.file, self.bytes, self.first) = (None, 0, None);
        Ok(())
    }

    /// Sees that there is a file to append to, with its header.
    fn ready(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(open_for_append(&self.dir.join(NAME))?);
            self.bytes = 0;
            durable::sync_dir(&self.dir)?;
        }
        if self.bytes == 0
            && let Some(file) = &self.file
        {
            let mut header = Vec::new();
            line::write_header(&mut header);
            file.write_all_at(&header, 0)?;
            self.bytes = header.len() as u64;
            self.unsynced = true;
        }
        Ok(())
    }
}

/// Whether there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero)
}

/// Takes it as it is that there is no room.
pub fn unless_full(error: io::Error) -> io::Result<()> {
    if is_full(&error) { Ok(()) } else { Err(error) }
}

/// An offset, the start of a line, before which all lines of `file` are sealed: they are up to `sealed`. Looked for from the
/// end, in windows of `window` bytes and more, because a start must not take longer the longer the file is.
fn unsealed_from(mut file: &File, bytes: u64, sealed: u64, mut window: u64) -> io::Result<u64> {
    let mut text = Vec::new();
    while sealed > 0 && window < bytes {
        let mut at = bytes - window;
        file.seek(SeekFrom::Start(at))?;
        let mut reader = BufReader::new(file);
        // The rest of the line that the window begins in.
        at += next_line(&mut reader, &mut text)? as u64;
        let mut seq = None;
        while seq.is_none() && at < bytes {
            let length = next_line(&mut reader, &mut text)? as u64;
            seq = line::seq_of(text.trim_ascii_end());
            if seq.is_some_and(|seq| seq <= sealed) {
                return Ok(at);
            }
            at += length.max(1);
        }
        window = window.saturating_mul(8);
    }
    Ok(0)
}

fn open_for_append(path: &Path) -> io::Result<File> {
    // Not O_APPEND: a retried append must land on the very byte.
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)
}

/// The `seq` of the last line of a rotated file; `None` if it has none.
fn last_of(dir: &Path, first: u64, path: &Path) -> io::Result<Option<u64>> {
    if !files::is_packed(path) {
        return Ok(repair(&open_for_append(path)?)?.last.map(|last| last.max(first)));
    }
    let mut file = LogFile::open(path)?;
    let bytes = file.plain_bytes()?;
    let mut start = bytes;
    let mut last = None;
    while last.is_none() && start > 0 {
        start = start.saturating_sub(limits::LOG_FRAME_BYTES as u64);
        last = last_seq(&file.read_from(start)?);
    }
    // What cannot be decompressed had numbers, too: they were sealed before the file was packed.
    let sealed = chain::last(dir, first);
    Ok(last.max(sealed).map(|last| last.max(first)))
}

struct Tail {
    /// Length after the repair.
    bytes: u64,
    /// `seq` of the last line; `None` if there is no line.
    last: Option<u64>,
}

/// Cuts the file after its last whole line and finds that line's number.
fn repair(file: &File) -> io::Result<Tail> {
    let bytes = file.metadata()?.len();
    let mut window = 512 * 1024;
    loop {
        let start = bytes.saturating_sub(window);
        let mut content = vec![0; (bytes - start) as usize];
        file.read_exact_at(&mut content, start)?;
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let last = last_seq(&content[..whole]);
        if (whole > 0 && last.is_some()) || start == 0 {
            let end = start + whole as u64;
            if end < bytes {
                tracing::warn!(
                    event = "log-torn",
                    "extended.log ended in {} bytes of a torn line: cut away",
                    bytes - end
                );
                file.set_len(end)?;
                file.sync_data()?;
            }
            return Ok(Tail { bytes: end, last });
        }
        window *= 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Draft;
    use crate::record::Ended;
    use crate::record::line::Entry;
    use crate::record::line::LineWriter;
    use jiff::tz::TimeZone;

    fn lines(seqs: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        let mut writer = LineWriter::new("edge", TimeZone::UTC);
        let mut out = Vec::new();
        let entry = Entry::from(&Draft::default());
        seqs.for_each(|seq| writer.write(&mut out, &entry, &Ended::default(), "bootbootbo", seq));
        out
    }

    #[test]
    fn a_start_reads_no_more_of_a_long_file_than_what_no_chain_covers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = ExtendedLog::open(dir.path(), 1 << 30).unwrap();
        log.append(&lines(1..=500), 1).unwrap();
        let bytes = log.bytes;
        let file = File::open(dir.path().join(NAME)).unwrap();
        let all = lines(1..=500);
        let start_of = |seq: u64| bytes - all.len() as u64 + lines(1..=seq - 1).len() as u64;
        for (window, sealed) in [(100, 500), (1_000, 499), (1_000, 400), (5_000, 2), (1_000, 1), (1_000, 0)] {
            let from = unsealed_from(&file, bytes, sealed, window).unwrap();
            assert!(from == 0 || from <= start_of(sealed + 1).min(bytes), "window {window}, sealed {sealed}: {from}");
            if sealed >= 400 {
                assert!(from > bytes / 2, "window {window}, sealed {sealed}: {from} of {bytes}");
            }
        }
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_cut_to_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let (mut log, last) = ExtendedLog::open(dir.path(), 1 << 30).unwrap();
        assert_eq!(last, 0);
        log.append(&lines(1..=2), 1).unwrap();
        let two = fs::metadata(&path).unwrap().len() as usize;
        log.append(&lines(3..=3), 3).unwrap();
        drop(log);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut log, last) = ExtendedLog::open(dir.path(), 1 << 30).unwrap();
            let kept = fs::read(&path).unwrap();
            assert_eq!(kept.last(), Some(&b'\n'));
            let expected = if cut == whole.len() {
                3
            } else if cut >= two {
                2
            } else {
                last
            };
            assert_eq!(last, expected, "cut at {cut}");
            log.append(&lines(last + 1..=3), last + 1).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}: the lost lines fit in again");
        }
    }
}
