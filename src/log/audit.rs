//! Holding extended.log against its chain: which lines were edited, removed, inserted or moved, and which files are gone
//! (`docs/formats/extended-log-chain.md`).

use crate::base::clock::Mono;
use crate::limits;
use crate::log::chain;
use crate::log::chain::Block;
use crate::log::chain::Digest;
use crate::log::chain::Kind;
use crate::log::chain::Print;
use crate::log::chain::Reader;
use crate::log::files;
use crate::log::files::LogFile;
use crate::record::audit::AuditQuestion;
use crate::record::audit::Finding;
use crate::record::audit::Proof;
use crate::record::line;
use data_encoding::HEXLOWER;
use std::collections::VecDeque;
use std::io;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// Reads the files in `dir` whose records may end in the range, whole, and says what does not hold. The node may be writing
/// meanwhile.
pub fn audit(dir: &Path, question: &AuditQuestion) -> io::Result<Proof> {
    let files = files::files(dir)?;
    let mut walk = Walk {
        dir,
        question,
        proof: Proof { place: dir.display().to_string(), ..Proof::default() },
        next: None,
        begun: Mono::now(),
    };
    walk.look_for_chains_alone(&files)?;
    let mut starts = Vec::new();
    for (first, path) in &files {
        starts.push(start_of(&mut open(dir, *first, path)?)?);
    }
    for (index, (first, path)) in files.iter().enumerate() {
        let early =
            starts.get(index + 1).copied().flatten().zip(question.from_us).is_some_and(|(end, from)| end < from);
        let late = starts[index].zip(question.to_us).is_some_and(|(start, to)| start >= to);
        if early || late {
            walk.next = None;
            continue;
        }
        let one = OneFile { first: *first, path, is_last: index + 1 == files.len() };
        walk.file(&one, &files[..index], files.get(index + 1).map(|(first, _)| *first))?;
    }
    Ok(walk.proof)
}

struct Walk<'a> {
    dir: &'a Path,
    question: &'a AuditQuestion,
    proof: Proof,
    /// The number that must come next; `None` if any may.
    next: Option<u64>,
    begun: Mono,
}

struct OneFile<'a> {
    first: u64,
    path: &'a Path,
    /// It may be the one that is written now.
    is_last: bool,
}

/// A chain as it was when it was looked through.
struct Seal {
    first: u64,
    before: (u64, Digest),
    digest: Digest,
    /// Length of what holds, and of the file.
    bytes: u64,
    length: u64,
    last: u64,
}

impl Walk<'_> {
    /// A chain whose file is gone.
    fn look_for_chains_alone(&mut self, files: &[(u64, PathBuf)]) -> io::Result<()> {
        let current = files.last().map(|(first, path)| chain_of(self.dir, *first, path, files)).transpose()?;
        for first in chain::firsts(self.dir)? {
            if files.iter().all(|(other, _)| *other != first) && current != Some(first) {
                let last = seal(self.dir, first).map_or(0, |seal| seal.last);
                self.find(
                    &name(&chain::path_of(self.dir, first)),
                    0,
                    (first, last),
                    "its file of extended.log is gone",
                );
            }
        }
        Ok(())
    }

    fn file(&mut self, one: &OneFile, before: &[(u64, PathBuf)], after: Option<u64>) -> io::Result<()> {
        // The chain first: every line it covers then stands in the file already.
        let seal = seal(self.dir, chain_of(self.dir, one.first, one.path, before)?);
        let file_name = name(one.path);
        let mut lines = Lines::new(open(self.dir, one.first, one.path)?);
        self.proof.files += 1;
        if !lines.reader.get_ref().table_holds() {
            let words =
                "the table at its end is not what was written: where its compressed frames begin was looked for";
            self.find(&file_name, 0, (one.first, one.first), words);
        }
        match seal {
            Ok(seal) => {
                self.check_seal(&seal, one, before);
                let reader = Reader::open(self.dir, seal.first)?;
                let mut sealed = Sealed {
                    reader,
                    until: seal.bytes,
                    damaged: seal.bytes < seal.length,
                    block: None,
                    at: 0,
                    seen: Seen::default(),
                };
                self.compare(&file_name, one.is_last, &mut lines, &mut sealed, seal.last)?;
                self.proof.head = format!("{} {}", seal.last, HEXLOWER.encode(&seal.digest));
            }
            Err(error) => {
                let had_one = before.iter().any(|(first, _)| chain::path_of(self.dir, *first).exists())
                    || after.is_some_and(|after| Reader::open(self.dir, after).is_ok_and(|r| r.before.0 == one.first));
                if error.kind() != io::ErrorKind::NotFound {
                    self.find(&file_name, 0, (one.first, one.first), &format!("its chain cannot be read: {error}"));
                } else if had_one {
                    self.find(&file_name, 0, (one.first, one.first), "its chain is gone: nothing proves its lines");
                } else {
                    self.proof.files_unsealed += 1;
                }
                self.sequence_alone(&file_name, &mut lines)?;
            }
        }
        Ok(())
    }

    /// Whether the chain is whole and goes on where the one before ended.
    fn check_seal(&mut self, seal: &Seal, one: &OneFile, before: &[(u64, PathBuf)]) {
        let file = name(&chain::path_of(self.dir, seal.first));
        if seal.bytes < seal.length {
            let from = if seal.last == 0 { seal.first } else { seal.last + 1 };
            let words = "the chain is damaged from here on: nothing proves the lines behind";
            self.find(&file, 0, (from, from), words);
        }
        let Some((previous, _)) = before.last() else { return };
        let (named, digest) = seal.before;
        if named == 0 && !before.iter().any(|(first, _)| chain::path_of(self.dir, *first).exists()) {
            return; // the first file that has a chain
        }
        if named > *previous && named < one.first {
            let words = "a file of extended.log that the next chain names is gone, with its chain";
            self.find(&name(&chain::path_of(self.dir, named)), 0, (named, one.first - 1), words);
            self.next = Some(one.first);
        } else if named != *previous || self::seal(self.dir, named).is_ok_and(|seal| seal.digest != digest) {
            let words = format!("the chain does not go on where that of the file before ended (record {previous})");
            self.find(&file, 0, (one.first, one.first), &words);
        }
    }

    /// Walks lines and fingerprints side by side.
    fn compare(
        &mut self,
        file: &str,
        is_last: bool,
        lines: &mut Lines,
        sealed: &mut Sealed,
        sealed_last: u64,
    ) -> io::Result<()> {
        loop {
            self.hurry()?;
            let (Some(line), proof) = (lines.peek(0)?, sealed.peek()?) else {
                let Some((seq, _, _)) = sealed.peek()? else { return Ok(()) };
                match &lines.lost {
                    Some(words) => self.lost(file, words, sealed, sealed_last + 1)?,
                    None => {
                        self.removed(file, seq);
                        sealed.step();
                    }
                }
                continue;
            };
            if let (true, Some(next), Some(words)) = (line.behind_loss, line.seq, &lines.lost)
                && proof.is_some_and(|(seq, _, _)| seq < next)
            {
                self.lost(file, words, sealed, next)?;
                continue;
            }
            let Some((seq, print, kind)) = proof else {
                match line.seq {
                    // Of a damaged chain that is said once, not of each line.
                    Some(seq) if (is_last || sealed.damaged) && seq > sealed_last => {
                        self.proof.not_yet_sealed += u64::from(!sealed.damaged);
                        self.good(seq, line.ended_us);
                    }
                    _ => self.inserted(file, &line),
                }
                lines.step();
                continue;
            };
            if line.print != print && !self.differs(file, (seq, print), &line, lines.peek(1)?) {
                match line.seq.is_some_and(|other| other > seq) && !misplaced(&line, lines.peek(1)?) {
                    true => {
                        self.removed(file, seq);
                        sealed.step();
                    }
                    false => {
                        self.inserted(file, &line);
                        lines.step();
                    }
                }
                continue;
            }
            self.proof.sealed_late += u64::from(kind == Kind::AtStart);
            self.good(seq, line.ended_us);
            if let Some(range) = sealed.agrees(lines.text(), line.print == print) {
                self.find(file, 0, range, "the lines are not what was written, though made to look so");
            }
            lines.step();
            sealed.step();
        }
    }

    /// Whether the line, which is not what was sealed, stands in the place of it: then it was edited.
    fn differs(&mut self, file: &str, sealed: (u64, Print), line: &Line, after: Option<Line>) -> bool {
        let (seq, print) = sealed;
        let in_its_place = line.seq == Some(seq)
            || (line.seq.is_none_or(|other| other > seq)
                && (line.seq.is_none() || misplaced(line, after))
                && after.is_none_or(|after| after.print != print));
        if in_its_place {
            self.find(file, line.number, (seq, seq), "the line was edited: it is not what was written");
        }
        in_its_place
    }

    /// A file without a chain: its numbers tell what is missing, and nothing tells what was edited.
    fn sequence_alone(&mut self, file: &str, lines: &mut Lines) -> io::Result<()> {
        while let Some(line) = lines.peek(0)? {
            self.hurry()?;
            match line.seq {
                Some(seq) if self.next.is_none_or(|next| seq >= next) => self.good(seq, line.ended_us),
                Some(_) => self.inserted(file, &line),
                None => self.find(file, line.number, (0, 0), "the line is no record"),
            }
            lines.step();
        }
        Ok(())
    }

    fn good(&mut self, seq: u64, ended_us: i64) {
        if let Some(next) = self.next.filter(|next| *next < seq) {
            self.find("", 0, (next, seq - 1), "no line has these numbers");
        }
        self.next = seq.checked_add(1);
        if self.question.covers(ended_us) {
            self.proof.count(seq);
        }
    }

    /// What is sealed before `next` cannot be decompressed.
    fn lost(&mut self, file: &str, words: &str, sealed: &mut Sealed, next: u64) -> io::Result<()> {
        let Some((first, _, _)) = sealed.peek()? else { return Ok(()) };
        while sealed.peek()?.is_some_and(|(seq, _, _)| seq < next) {
            sealed.step();
        }
        self.find(file, 0, (first, next - 1), &format!("these lines cannot be read: {words}"));
        self.next = Some(next);
        Ok(())
    }

    fn removed(&mut self, file: &str, seq: u64) {
        self.find(file, 0, (seq, seq), "the line was removed");
        self.next = seq.checked_add(1);
    }

    fn inserted(&mut self, file: &str, line: &Line) {
        let seq = line.seq.unwrap_or(0);
        self.find(file, line.number, (seq, seq), "the line was not written here: inserted, or moved");
    }

    fn find(&mut self, file: &str, line: u64, (first, last): (u64, u64), words: &str) {
        self.proof.find(Finding { file: file.to_string(), line, first, last, words: words.to_string() });
    }

    fn hurry(&self) -> io::Result<()> {
        if Mono::now().micros_since(self.begun) < limits::AUDIT_S_MAX * 1_000_000 {
            return Ok(());
        }
        let words = format!("it took more than {} s; ask for a shorter range", limits::AUDIT_S_MAX);
        Err(io::Error::new(io::ErrorKind::TimedOut, words))
    }
}

/// Whether the line's number is higher than that of the line after it: it has no business there.
fn misplaced(line: &Line, after: Option<Line>) -> bool {
    after.is_some_and(|after| after.seq.zip(line.seq).is_some_and(|(after, own)| after <= own))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Opens a file that may be rotated just now.
fn open(dir: &Path, first: u64, path: &Path) -> io::Result<BufReader<LogFile>> {
    let opened = LogFile::reader(path);
    if files::is_rotated(path) {
        return opened;
    }
    // If it has been rotated, what was opened may be its successor.
    match LogFile::reader(&files::rotated_name(dir, first)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => opened,
        rotated => rotated,
    }
}

/// The name of the chain of a file: of the current one, whose first lines somebody may have removed, the newest that no
/// rotated file has.
fn chain_of(dir: &Path, first: u64, path: &Path, files: &[(u64, PathBuf)]) -> io::Result<u64> {
    if files::is_rotated(path) {
        return Ok(first);
    }
    let rotated = files.iter().map(|(other, _)| *other).rfind(|other| *other < first).unwrap_or(0);
    let own = |other: &u64| *other <= first && *other > rotated;
    Ok(chain::firsts(dir)?.into_iter().rfind(own).unwrap_or(first))
}

/// Looks a chain through. A block may be being written: then it is whole a moment later.
fn seal(dir: &Path, first: u64) -> io::Result<Seal> {
    for last_try in [false, false, false, false, true] {
        let mut reader = Reader::open(dir, first)?;
        while reader.next_block()?.is_some() {}
        if reader.bytes == reader.length || last_try {
            let Reader { before, digest, bytes, length, last, .. } = reader;
            return Ok(Seal { first, before, digest, bytes, length, last });
        }
        std::thread::sleep(Duration::from_millis(limits::LOG_NAP_MS_MAX));
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// When the first record of a file ended.
fn start_of(reader: &mut BufReader<LogFile>) -> io::Result<Option<i64>> {
    let mut text = Vec::new();
    while next_line(reader, &mut text)?.0 > 0 {
        if let Ok(record) = line::view(&text) {
            return Ok(Some(record.ended_us));
        }
    }
    Ok(None)
}

/// Reads the next line, behind what cannot be decompressed if the next ones cannot. Answers its length, 0 at the end, and of what was
/// passed over what was wrong with it.
fn next_line(reader: &mut BufReader<LogFile>, text: &mut Vec<u8>) -> io::Result<(usize, Option<String>)> {
    let mut passed = None;
    loop {
        match files::next_line(reader, text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // Nothing is read ahead: the error came from the file.
                if reader.get_mut().pass_over().is_none() {
                    return Err(error);
                }
                passed = Some(error.to_string());
            }
            read => return Ok((read?, passed)),
        }
    }
}

#[derive(Clone, Copy)]
struct Line {
    /// From 1; 0 behind lines that cannot be decompressed.
    number: u64,
    /// Lines before it cannot be decompressed.
    behind_loss: bool,
    /// `None` if it cannot be read.
    seq: Option<u64>,
    ended_us: i64,
    print: Print,
}

/// The lines of a file, with a look ahead.
struct Lines {
    reader: BufReader<LogFile>,
    text: Vec<u8>,
    number: u64,
    /// What was wrong with lines that cannot be decompressed.
    lost: Option<String>,
    ahead: VecDeque<Line>,
    /// Of those ahead.
    texts: VecDeque<Vec<u8>>,
}

impl Lines {
    fn new(reader: BufReader<LogFile>) -> Lines {
        Lines { reader, text: Vec::new(), number: 0, lost: None, ahead: VecDeque::new(), texts: VecDeque::new() }
    }

    /// The line so many behind the next; none behind the last whole one.
    fn peek(&mut self, ahead: usize) -> io::Result<Option<Line>> {
        while self.ahead.len() <= ahead {
            let (length, passed) = next_line(&mut self.reader, &mut self.text)?;
            let behind_loss = passed.is_some();
            self.lost = passed.or(self.lost.take());
            if length == 0 || self.text.last() != Some(&b'\n') {
                break;
            }
            self.number += 1;
            if self.number == 1 && line::is_header(&self.text) {
                continue;
            }
            let (seq, ended_us) = match line::view(&self.text) {
                Ok(record) => (Some(record.seq), record.ended_us),
                Err(_) => (None, 0),
            };
            let number = if self.lost.is_some() { 0 } else { self.number };
            self.ahead.push_back(Line { number, behind_loss, seq, ended_us, print: chain::print(&self.text) });
            self.texts.push_back(self.text.clone());
        }
        Ok(self.ahead.get(ahead).copied())
    }

    /// The next line, once it was peeked at.
    fn text(&self) -> &[u8] {
        self.texts.front().map_or(&[], Vec::as_slice)
    }

    fn step(&mut self) {
        self.ahead.pop_front();
        self.texts.pop_front();
    }
}

/// The fingerprints of a chain, one by one.
struct Sealed {
    reader: Reader,
    /// What was looked through; what was written since is not for this audit.
    until: u64,
    /// Behind it the chain is damaged.
    damaged: bool,
    block: Option<Block>,
    at: usize,
    seen: Seen,
}

/// What was seen of the block's lines.
#[derive(Default)]
struct Seen {
    hasher: blake3::Hasher,
    /// How many are what they were, by their fingerprints.
    lines: usize,
}

impl Sealed {
    fn peek(&mut self) -> io::Result<Option<(u64, Print, Kind)>> {
        if self.block.as_ref().is_none_or(|block| self.at >= block.prints.len()) {
            (self.at, self.seen) = (0, Seen::default());
            self.block = if self.reader.bytes < self.until { self.reader.next_block()? } else { None };
        }
        Ok(self.block.as_ref().map(|block| (block.first + self.at as u64, block.prints[self.at], block.kind)))
    }

    /// Takes the text of the line at hand. With the block's last one: the numbers of its lines, if their fingerprints are all
    /// right and they are wrong all the same.
    fn agrees(&mut self, text: &[u8], print_agrees: bool) -> Option<(u64, u64)> {
        let block = self.block.as_ref()?;
        self.seen.hasher.update(text);
        self.seen.lines += usize::from(print_agrees);
        let count = block.prints.len();
        let forged = self.seen.lines == count && self.seen.hasher.finalize() != block.lines;
        forged.then(|| (block.first, block.first + count as u64 - 1))
    }

    fn step(&mut self) {
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::extended::ExtendedLog;
    use crate::record::Draft;
    use crate::record::Ended;
    use crate::record::line::Entry;
    use crate::record::line::LineWriter;

    /// Changes five bytes so that the CRC-32 around them stays: by the generator polynomial, lowest bit of a byte first.
    fn forge(bytes: &mut [u8]) {
        for bit in (0..33).filter(|bit| 0x1_04c1_1db7u64 >> (32 - bit) & 1 == 1) {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_line_that_was_edited_so_that_its_fingerprint_stays_is_found_by_its_blocks_digest() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = ExtendedLog::open(dir.path(), 1 << 30).unwrap();
        let mut writer = LineWriter::new("edge", jiff::tz::TimeZone::UTC);
        let mut lines = Vec::new();
        let entry = Entry::from(&Draft::default());
        (1..=3).for_each(|seq| writer.write(&mut lines, &entry, &Ended::default(), "bootbootbo", seq));
        log.append(&lines, 1).unwrap();
        log.sync().unwrap();
        let question = AuditQuestion::default();
        assert!(audit(dir.path(), &question).unwrap().findings.is_empty());
        let path = dir.path().join("extended.log");
        let mut text = std::fs::read(&path).unwrap();
        let at = text.len() - lines.len() + lines.len() / 3 + 100;
        let line = chain::print(&text[at - 50..at + 50]);
        forge(&mut text[at..at + 5]);
        assert_eq!(chain::print(&text[at - 50..at + 50]), line, "the fingerprint stays");
        std::fs::write(&path, &text).unwrap();
        let found = audit(dir.path(), &question).unwrap().findings;
        assert_eq!(found.iter().map(|one| (one.first, one.last)).collect::<Vec<_>>(), [(1, 3)]);
        assert!(found[0].words.contains("made to look so"), "{}", found[0].words);
    }
}
