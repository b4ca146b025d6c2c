//! Reading extended.log for shipping: whole records in sequence, across rotation, from the cursor on.

use crate::base::breath::Breath;
use crate::base::clock::Mono;
use crate::limits;
use crate::log::LogConfig;
use crate::log::LogError;
use crate::log::Progress;
use crate::log::cursor::Cursor;
use crate::log::files;
use crate::log::files::LogFile;
use crate::log::recent::Recent;
use crate::log::writer::Control;
use crate::record::Epoch;
use crate::record::Record;
use crate::record::line;
use crate::record::lines;
use crate::record::lines::Lines;
use crate::record::text;
use std::collections::VecDeque;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

/// Lines read between two looks at the clock: some thirty microseconds.
const LINES_A_STEP: usize = 32;

/// Reads extended.log. Calls read files and so block for a moment: use `spawn_blocking` or a thread that may.
pub struct LogReader {
    dir: PathBuf,
    cursor_path: PathBuf,
    epoch: Epoch,
    node: String,
    progress: watch::Receiver<Progress>,
    control: Arc<Control>,
    /// The newest lines: the file is read only for what is not there (any more).
    recent: Arc<Recent>,
    acknowledged: u64,
    /// The number of the next record to hand out.
    next: u64,
    place: Option<Place>,
    /// Where the file goes on behind the lines that came from memory; a hint.
    hint: Option<Cursor>,
    /// Beginnings of damaged lines seen since the last record, whose numbers the next record will tell.
    damaged: VecDeque<String>,
    /// (last number, place after it) of batches handed out and not yet acknowledged.
    outstanding: VecDeque<(u64, u64, u64)>,
    /// The cursor that is to be saved, if it was put off; and when the last was saved.
    unsaved: Option<Cursor>,
    saved: Mono,
}

/// A place in a file: the next byte to read.
struct Place {
    first: u64,
    file: BufReader<LogFile>,
    offset: u64,
}

impl LogReader {
    pub(crate) fn open(
        config: &LogConfig,
        cursor_path: &Path,
        progress: watch::Receiver<Progress>,
        control: Arc<Control>,
        recent: Arc<Recent>,
    ) -> Result<LogReader, LogError> {
        let cursor = Cursor::load(cursor_path, config.epoch);
        let mut reader = LogReader {
            dir: config.log_dir.clone(),
            cursor_path: cursor_path.to_path_buf(),
            epoch: config.epoch,
            node: config.node.clone(),
            progress,
            control,
            recent,
            acknowledged: cursor.acknowledged,
            next: cursor.acknowledged + 1,
            place: None,
            hint: None,
            damaged: VecDeque::new(),
            outstanding: VecDeque::new(),
            unsaved: None,
            saved: Mono::now(),
        };
        reader.place = reader.hinted(cursor).map_err(|error| reader.failed("opening", &error))?;
        Ok(reader)
    }

    /// The next records in sequence, as many as are durable and fit (at least one, whatever its size); empty if there is
    /// nothing new.
    pub fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Arc<Lines>, LogError> {
        let durable = self.progress.borrow().durable;
        if let Some(chunk) = self.recent.take(self.next, durable, records_max, bytes_max) {
            let last = chunk.lines.last();
            self.hint = Some(Cursor { acknowledged: last, file: chunk.file, offset: chunk.offset });
            (self.next, self.place) = (last + 1, None);
            self.damaged.clear();
            self.outstanding.push_back((last, chunk.file, chunk.offset));
            return Ok(chunk.lines);
        }
        // As far as memory does not go: then it can go on from there.
        let durable = durable.min(self.recent.behind(self.next).unwrap_or(durable));
        let mut records = Lines::default();
        let read = self.read_some(&mut records, durable, records_max, bytes_max);
        if let (false, Some(place)) = (records.is_empty(), &self.place) {
            self.outstanding.push_back((records.last(), place.first, place.offset));
        }
        match read {
            Err(error) if records.is_empty() => Err(self.failed("reading", &error)),
            _ => Ok(Arc::new(records)), // an error after some records will show again, without them
        }
    }

    /// Goes to the first record after `seq`: what the master's highest stored number asks for at every contact.
    pub fn resume_after(&mut self, seq: u64) -> Result<(), LogError> {
        if seq > self.progress.borrow().written {
            tracing::warn!(
                event = "records-set-back",
                "the master has records of this node up to {seq}, more than this node ever wrote: its state directory was set \
                 back. Numbers go on after {seq}. After restoring STATE_DIR remove node-id there"
            );
            self.control.taken.fetch_max(seq, Ordering::AcqRel);
        }
        if seq.checked_add(1) != Some(self.next) {
            self.next = seq.saturating_add(1);
            (self.place, self.hint) = (None, None);
            self.damaged.clear();
        }
        if seq == self.acknowledged {
            // Now it is known again, and not only from the cursor.
            self.control.acknowledged.store(seq, Ordering::Release);
            return Ok(());
        }
        self.acknowledge_at(seq)
    }

    /// Notes that everything up to `seq` is stored at the master: durably, unless more is about to follow.
    pub fn acknowledge(&mut self, seq: u64) -> Result<(), LogError> {
        if seq <= self.acknowledged { Ok(()) } else { self.acknowledge_at(seq) }
    }

    /// The highest acknowledged sequence number.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// A way to wait: it changes whenever more is durable.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    fn acknowledge_at(&mut self, seq: u64) -> Result<(), LogError> {
        let mut cursor = Cursor { acknowledged: seq, file: 0, offset: 0 };
        while let Some((last, file, offset)) = self.outstanding.front().copied()
            && last <= seq
        {
            cursor = Cursor { acknowledged: seq, file, offset };
            self.outstanding.pop_front();
        }
        self.acknowledged = seq;
        self.control.acknowledged.store(seq, Ordering::Release);
        self.recent.acknowledge(seq);
        self.unsaved = Some(cursor);
        // Two syncs for each batch of a backlog would cost more than they are worth: the master knows what it has.
        let more = seq < self.progress.borrow().durable;
        let now = Mono::now();
        if more && now.micros_since(self.saved) < limits::LOG_CURSOR_MS * 1000 {
            return Ok(());
        }
        self.saved = now;
        self.save()
    }

    fn save(&mut self) -> Result<(), LogError> {
        let Some(cursor) = self.unsaved else { return Ok(()) };
        cursor.save(&self.cursor_path, self.epoch).map_err(|error| {
            LogError(format!(
                "saving the cursor {}: {error}. Nothing is lost; free space or repair the permissions there.",
                self.cursor_path.display()
            ))
        })?;
        self.unsaved = None;
        Ok(())
    }

    /// Reads until enough is there or the record `durable` is reached.
    fn read_some(&mut self, records: &mut Lines, durable: u64, records_max: usize, bytes_max: usize) -> io::Result<()> {
        if self.next <= durable
            && let Some(hint) = self.hint.take()
        {
            self.place = self.hinted(hint)?;
        }
        let (mut bytes, mut text, mut breath) = (0, Vec::new(), Breath::start());
        while self.next <= durable && records.len() < records_max && bytes < bytes_max {
            if records.len().is_multiple_of(LINES_A_STEP) {
                breath.take();
            }
            if self.place.is_none() && !self.find()? {
                return self.give_up_until(durable, records, records_max);
            }
            let Some(place) = &mut self.place else { continue };
            let length = match place.read_line(&mut text) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let first = place.first;
                    if !place.pass_over()? {
                        return Err(error);
                    }
                    self.note_loss(first, &error);
                    continue;
                }
                read => read?,
            };
            if length == 0 {
                let after = place.first;
                self.place = self.file_after(after)?;
                if self.place.is_none() {
                    return self.give_up_until(durable, records, records_max);
                }
                continue;
            }
            if line::is_header(&text) {
                continue;
            }
            match lines::check(&text) {
                Ok(seq) if seq < self.next => self.damaged.clear(),
                Ok(seq) => {
                    self.mark_damaged(seq.min(durable + 1), records, records_max);
                    if seq > durable || records.len() >= records_max {
                        return place_back(&mut self.place, length);
                    }
                    bytes += text.len();
                    self.next = seq + 1;
                    records.push(&text, seq);
                }
                Err(why) => self.note_damage(&text, &why),
            }
        }
        Ok(())
    }

    /// No file has records from `next` on, though they were written: somebody removed lines. Their numbers become markers
    /// as far as damaged lines stand for them, and a gap at the master beyond.
    fn give_up_until(&mut self, durable: u64, records: &mut Lines, records_max: usize) -> io::Result<()> {
        self.mark_damaged(durable + 1, records, records_max);
        if self.next <= durable && records.len() < records_max {
            tracing::error!(
                event = "records-lost",
                "reading extended.log in {}: the records {} to {durable} are not there any more (removed by hand?). The \
                 master will show them as missing",
                self.dir.display(),
                self.next
            );
            self.next = durable + 1;
            self.place = None;
        }
        Ok(())
    }

    /// Lines that cannot be decompressed have no marker: nobody knows how many they are. What is missing between the records
    /// before and behind them the master shows as a gap.
    fn note_loss(&mut self, first: u64, error: &io::Error) {
        tracing::error!(
            event = "records-lost",
            "reading {}: {error}. The records from about {} on in it are lost here, and the master will show them as missing",
            files::packed_name(&self.dir, first).display(),
            self.next
        );
        self.damaged.clear();
    }

    fn note_damage(&mut self, text: &[u8], why: &line::BadLine) {
        tracing::error!(
            event = "records-lost",
            "reading extended.log in {} near record {}: {why}; a marker record takes its place",
            self.dir.display(),
            self.next
        );
        if self.damaged.len() < limits::BATCH_RECORDS_MAX {
            let beginning = &text.trim_ascii_end()[..text.trim_ascii_end().len().min(512)];
            self.damaged.push_back(format!("{}\u{0}{why}", text::escaped(beginning)));
        }
    }

    /// Puts markers for damaged lines in the place of the numbers before `end`. Lines for which no number is free were never
    /// records.
    fn mark_damaged(&mut self, end: u64, records: &mut Lines, records_max: usize) {
        while self.next < end && records.len() < records_max {
            let Some(damaged) = self.damaged.pop_front() else { return };
            let (beginning, why) = damaged.split_once('\u{0}').unwrap_or((&damaged, ""));
            records.push_record(&Record {
                record_id: format!("damaged-{}-{}", self.epoch, self.next),
                url: beginning.to_string(),
                filtering_reason: text::escaped(
                    format!("this line of extended.log could not be read: {why}").as_bytes(),
                ),
                ending: "I-".to_string(),
                node: text::escaped(self.node.as_bytes()),
                seq: self.next,
                ..Record::default()
            });
            self.next += 1;
        }
        if self.next >= end {
            self.damaged.clear();
        }
    }

    /// The place the cursor names, if a line begins there.
    fn hinted(&self, cursor: Cursor) -> io::Result<Option<Place>> {
        let files = files::files(&self.dir)?;
        let Some((first, path)) = files.into_iter().find(|(first, _)| *first == cursor.file) else { return Ok(None) };
        let mut file = LogFile::reader(&path)?;
        if cursor.offset == 0 || cursor.offset > file.get_ref().plain_bytes()? {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(cursor.offset - 1))?;
        let mut before = [0];
        match file.read_exact(&mut before) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None), // found from the file's beginning
            read => read?,
        }
        Ok((before == *b"\n").then_some(Place { first, file, offset: cursor.offset }))
    }

    /// Opens the file in which `next` must be: the last that begins at or before it, else the first after it. Not far before it.
    fn find(&mut self) -> io::Result<bool> {
        let files = files::files(&self.dir)?;
        let at = files.iter().rposition(|(first, _)| *first <= self.next).unwrap_or(0);
        self.place = match files.into_iter().nth(at) {
            Some((first, path)) => {
                let mut place = Place { first, file: LogFile::reader(&path)?, offset: 0 };
                place.approach(self.next)?;
                Some(place)
            }
            None => None,
        };
        Ok(self.place.is_some())
    }

    fn file_after(&self, first: u64) -> io::Result<Option<Place>> {
        let next = files::files(&self.dir)?.into_iter().find(|(other, _)| *other > first);
        next.map(|(first, path)| Ok(Place { first, file: LogFile::reader(&path)?, offset: 0 })).transpose()
    }

    fn failed(&self, doing: &str, error: &io::Error) -> LogError {
        LogError(format!("{doing} extended.log in {}: {error}. See that the files can be read.", self.dir.display()))
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!(event = "cursor-unwritten", "{error}");
        }
    }
}

impl Place {
    /// Goes to the beginning of a line at or before the record `next`: lines stand in the order of their numbers, so that halving
    /// what is left finds it. A master that is back after hours names a place that nobody remembers, in a file of a gigabyte.
    fn approach(&mut self, next: u64) -> io::Result<()> {
        let (mut low, mut high) = (0, self.file.get_ref().plain_bytes()?);
        while high - low > limits::LOG_APPROACH_BYTES {
            let middle = low + (high - low) / 2;
            match self.first_record(middle, high)? {
                Some((offset, seq)) if seq <= next => low = offset,
                _ => high = middle,
            }
        }
        self.offset = self.file.seek(SeekFrom::Start(low))?;
        Ok(())
    }

    /// The first whole line between two places that is a record: where it begins, and its number.
    fn first_record(&mut self, from: u64, to: u64) -> io::Result<Option<(u64, u64)>> {
        let mut text = Vec::new();
        self.offset = self.file.seek(SeekFrom::Start(from))?;
        let mut look = || -> io::Result<Option<(u64, u64)>> {
            self.offset += self.file.skip_until(b'\n')? as u64;
            while self.offset < to {
                let offset = self.offset;
                if self.read_line(&mut text)? == 0 {
                    break;
                }
                if let Ok(seq) = lines::check(&text) {
                    return Ok(Some((offset, seq)));
                }
            }
            Ok(None)
        };
        match look() {
            // What cannot be decompressed is met again when it is read.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            looked => looked,
        }
    }

    /// Reads the next whole line into `text` (what is longer than any line of ours is passed over, its beginning
    /// kept). Answers its length in the file, 0 at the end.
    fn read_line(&mut self, text: &mut Vec<u8>) -> io::Result<u64> {
        text.clear();
        let mut length = (&mut self.file).take(limits::LOG_LINE_BYTES_MAX as u64).read_until(b'\n', text)? as u64;
        if length > 0 && text.last() != Some(&b'\n') {
            let skipped = self.file.skip_until(b'\n')? as u64;
            if skipped == 0 {
                // The end of the file stands inside the line: it is still being written.
                self.file.seek(SeekFrom::Start(self.offset))?;
                return Ok(0);
            }
            length += skipped;
        }
        self.offset += length;
        Ok(length)
    }

    /// Goes on behind what cannot be decompressed, if that is the trouble.
    fn pass_over(&mut self) -> io::Result<bool> {
        let Some(behind) = self.file.get_mut().pass_over() else { return Ok(false) };
        self.offset = self.file.seek(SeekFrom::Start(behind))?;
        Ok(true)
    }
}

/// Un-reads the last line.
fn place_back(place: &mut Option<Place>, length: u64) -> io::Result<()> {
    if let Some(place) = place {
        place.offset -= length;
        place.file.seek(SeekFrom::Start(place.offset))?;
    }
    Ok(())
}
