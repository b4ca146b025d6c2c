//! The writer: one thread that turns closed slots into lines of extended.log, in sequence, and gives the slots back.

use crate::base::clock::Mono;
use crate::limits;
use crate::log::Progress;
use crate::log::desk::Shared;
use crate::log::extended::ExtendedLog;
use crate::log::left_over;
use crate::log::left_over::LeftOver;
use crate::log::recent::Chunk;
use crate::log::recent::Recent;
use crate::log::slots;
use crate::log::slots::Spool;
use crate::log::slots::State;
use crate::log::unrecorded;
use crate::record::line::LineWriter;
use crate::record::lines::Lines;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// What others tell the writer.
#[derive(Default)]
pub struct Control {
    /// How often the writer has turned.
    pub turns: AtomicU64,
    /// Write what is closed, sync, end.
    pub stop: AtomicBool,
    /// Up to here the master has the records, by what it told this process: files are removed on its strength, and the cursor of an
    /// earlier process may be of before the master was set back. 0 until it was asked.
    pub acknowledged: AtomicU64,
    /// Numbers up to here are taken, though the writer did not give them out.
    pub taken: AtomicU64,
    /// extended.log is rotated at this size. Changes live.
    pub file_bytes_max: AtomicU64,
    /// How often somebody asked for another file.
    pub rotations_asked: AtomicU64,
    /// How many of these the writer has answered.
    pub rotations: AtomicU64,
    /// extended.log is synced so often. Changes live.
    pub sync_ms: AtomicU64,
    /// A rotated file is kept this many days. Changes live.
    pub keep_days: AtomicU64,
    /// `seq` of the first record of the current file: another one means that it was rotated.
    pub file_first: AtomicU64,
}

/// The writer's state. `run` is its thread.
pub struct Writer {
    pub cores: Vec<Arc<Shared>>,
    /// Spools of processes that stood aside.
    pub left_over: Vec<LeftOver>,
    /// Those processes, for whoever must tell them to end.
    pub owners: Arc<Mutex<Vec<u32>>>,
    /// When their slots were looked through last.
    pub looked_left_over: Mono,
    pub log: ExtendedLog,
    pub line: LineWriter,
    /// The highest `seq` given out.
    pub seq: u64,
    pub log_dir: PathBuf,
    pub control: Arc<Control>,
    pub progress: watch::Sender<Progress>,
    /// Where shipping finds lines that are durable.
    pub recent: Arc<Recent>,
    pub batch: Batch,
}

/// Lines that are being appended and the slots they came from, behind those of the same chunk that are appended already.
pub struct Batch {
    lines: Lines,
    /// `seq` of the record before the chunk.
    after: u64,
    /// Bytes of the chunk that are in the file.
    appended: usize,
    /// `seq` of the first line that is not.
    first: u64,
    slots: Vec<(Source, u32)>,
    /// Whose unrecorded exchanges a line of the batch tells of, and up to which.
    told: Vec<(Source, u64)>,
    body: Vec<u8>,
}

/// Whose spool a slot is in.
#[derive(Clone, Copy)]
enum Source {
    Core(usize),
    LeftOver(usize),
}

impl Batch {
    /// An empty one behind the record `seq`.
    pub fn after(seq: u64) -> Batch {
        let lines = Lines::default();
        Batch { lines, after: seq, appended: 0, first: 0, slots: Vec::new(), told: Vec::new(), body: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.told.is_empty()
    }

    /// Whether more may come in.
    fn has_room(&self) -> bool {
        self.slots.len() < limits::LOG_APPEND_RECORDS_MAX && self.lines.text().len() <= limits::LOG_CHUNK_BYTES_MAX
    }
}

impl Writer {
    /// Works until told to stop.
    pub fn run(mut self) {
        let mut nap_ms = limits::LOG_NAP_MS_MIN;
        let mut synced = Mono::now();
        let mut looked = Mono::now();
        loop {
            self.control.turns.fetch_add(1, Ordering::Relaxed);
            let stopping = self.control.stop.load(Ordering::Acquire);
            let appended = self.append_some();
            let count = *appended.as_ref().unwrap_or(&0);
            let news = count > 0;
            let due = Mono::now().micros_since(synced) >= self.control.sync_ms.load(Ordering::Relaxed) * 1000;
            let outcome = appended.and_then(|_| if due || (stopping && !news) { self.sync() } else { Ok(()) });
            let outcome = outcome.and_then(|()| self.rotate_if_asked());
            if due {
                synced = Mono::now();
            }
            let well = outcome.is_ok();
            self.note_stuck(well, count);
            self.tell(outcome.err());
            if stopping && (!news || !well) {
                return;
            }
            if Mono::now().micros_since(looked) >= limits::LOG_RETENTION_MS * 1000 {
                looked = Mono::now();
                self.recent.trim();
            }
            if well && count >= limits::LOG_APPEND_RECORDS_MAX {
                continue; // more wait already
            }
            // A poll instead of a wake-up: a core that closes a record makes no system call. Naps grow when nothing comes.
            nap_ms = if news { limits::LOG_NAP_MS_MIN } else { (nap_ms * 2).min(limits::LOG_NAP_MS_MAX) };
            std::thread::park_timeout(Duration::from_millis(if well { nap_ms } else { limits::LOG_RETRY_MS }));
        }
    }

    /// Tells the cores whether the log takes lines: again only when no more wait, since until then slots are out for want of it.
    fn note_stuck(&self, well: bool, count: usize) {
        if !well || count < limits::LOG_APPEND_RECORDS_MAX {
            self.cores.iter().for_each(|shared| shared.stuck.store(!well, Ordering::Relaxed));
        }
    }

    fn rotate_if_asked(&mut self) -> io::Result<()> {
        let asked = self.control.rotations_asked.load(Ordering::Acquire);
        if asked != self.control.rotations.load(Ordering::Relaxed) {
            self.log.rotate_now()?;
            self.control.rotations.store(asked, Ordering::Release);
        }
        Ok(())
    }

    /// Appends the records that wait, at most one batch. Answers how many there were.
    fn append_some(&mut self) -> io::Result<usize> {
        if self.batch.is_empty() {
            self.collect();
        }
        if self.batch.is_empty() {
            return Ok(0);
        }
        let count = self.batch.slots.len() + self.batch.told.len();
        self.log.set_bytes_max(self.control.file_bytes_max.load(Ordering::Relaxed));
        self.log.append(&self.batch.lines.text()[self.batch.appended..], self.batch.first)?;
        self.batch.appended = self.batch.lines.text().len();
        self.control.file_first.store(self.log.end().0, Ordering::Relaxed);
        for (from, slot) in self.batch.slots.drain(..) {
            match from {
                Source::Core(core) => {
                    let shared = &self.cores[core];
                    shared.spool.set_state(slot, State::Free);
                    shared.freed.push(slot);
                }
                // Its process takes no slot back: its writer is gone.
                Source::LeftOver(index) => self.left_over[index].spool.set_state(slot, State::Free),
            }
        }
        for (from, counted) in std::mem::take(&mut self.batch.told) {
            unrecorded::set_told(self.spool(from), counted);
        }
        let full = self.batch.lines.len() + limits::LOG_APPEND_RECORDS_MAX > limits::BATCH_RECORDS_MAX;
        if full || self.batch.appended > limits::LOG_CHUNK_BYTES_MAX {
            self.end_chunk();
        }
        let seq = self.seq;
        self.progress.send_if_modified(|progress| {
            progress.written = seq;
            false // what is not durable interests nobody who waits
        });
        Ok(count)
    }

    /// Gives numbers to closed slots and writes their lines to the batch.
    fn collect(&mut self) {
        self.seq = self.seq.max(self.control.taken.load(Ordering::Acquire));
        self.batch.first = self.seq + 1;
        let mut late = [0; slots::LATE_BYTES];
        for (core, shared) in self.cores.iter().enumerate() {
            while self.batch.has_room()
                && let Some(slot) = shared.closed.pop()
            {
                if let Some(next) = shared.closed.next() {
                    shared.spool.approach(next);
                }
                shared.spool.copy_body(slot, &mut self.batch.body);
                self.batch.slots.push((Source::Core(core), slot));
                let Some(entry) = slots::read_record(&shared.spool, slot, &self.batch.body, &mut late) else {
                    // Its core wrote it just now: only broken memory could come here.
                    tracing::error!(
                        event = "records-lost",
                        core,
                        "a slot of core {core}'s record spool cannot be read: its record is lost"
                    );
                    continue;
                };
                self.seq += 1;
                shared.spool.set_seq(slot, self.seq);
                let ended = shared.spool.numbers(slot);
                let (line, boot, seq) = (&mut self.line, shared.spool.boot(), self.seq);
                self.batch.lines.write(seq, |out| line.write(out, &entry, &ended, boot, seq));
            }
        }
        if !self.left_over.is_empty()
            && Mono::now().micros_since(self.looked_left_over) >= limits::LEFT_OVER_LOOK_MS * 1000
        {
            self.collect_left_over();
            if self.batch.has_room() {
                // All were seen; otherwise the next batch goes on with them.
                self.looked_left_over = Mono::now();
            }
        }
        if self.batch.has_room() {
            self.tell_unrecorded();
        }
        if let Some(shared) = self.cores.first() {
            shared.spool.set_seq_high(self.seq);
        }
    }

    /// The same for what processes that stood aside have finished, and forgets those that are through.
    fn collect_left_over(&mut self) {
        if self.batch.is_empty() {
            // Nothing in the batch counts by their places.
            self.left_over.retain(|one| !one.is_finished());
        }
        let mut late = [0; slots::LATE_BYTES];
        for (index, one) in self.left_over.iter_mut().enumerate() {
            one.look();
            for slot in 0..one.spool.size().slots() {
                if !self.batch.has_room() {
                    break; // the next look finds the rest
                }
                let Some(ended) = one.finished(slot, &mut self.batch.body) else { continue };
                let body = &self.batch.body;
                let Some(entry) = slots::read_record(&one.spool, slot, body, &mut late) else { continue };
                self.batch.slots.push((Source::LeftOver(index), slot));
                self.seq += 1;
                one.spool.set_seq(slot, self.seq);
                let (line, boot, seq) = (&mut self.line, one.spool.boot(), self.seq);
                self.batch.lines.write(seq, |out| line.write(out, &entry, &ended, boot, seq));
            }
        }
        *self.owners.lock().unwrap_or_else(PoisonError::into_inner) = left_over::owners(&self.left_over);
    }

    /// Tells of exchanges that went on without a record: once what waited is written, so that it is one record for all of them.
    fn tell_unrecorded(&mut self) {
        let own = self.cores.len();
        let spools = self.cores.iter().map(|shared| &shared.spool);
        for run in unrecorded::untold(spools.chain(self.left_over.iter().map(|one| &one.spool))) {
            self.seq += 1;
            let (line, seq) = (&mut self.line, self.seq);
            self.batch.lines.write(seq, |out| run.write(line, out, seq));
            let source = |index: usize| if index < own { Source::Core(index) } else { Source::LeftOver(index - own) };
            self.batch.told.extend(run.spools.iter().map(|(index, counted)| (source(*index), *counted)));
            tracing::warn!(event = "exchanges-unrecorded", seq, "{}; record {seq} says so", run.words());
        }
    }

    fn spool(&self, from: Source) -> &Spool {
        match from {
            Source::Core(core) => &self.cores[core].spool,
            Source::LeftOver(index) => &self.left_over[index].spool,
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.log.is_unsynced() {
            return Ok(());
        }
        self.log.sync()?;
        self.end_chunk();
        let seq = self.progress.borrow().written;
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.durable, seq) != seq);
        Ok(())
    }

    /// Hands the chunk, which is in the file, to shipping and begins another.
    fn end_chunk(&mut self) {
        // Lines that are not appended yet (an append failed) stay with their chunk until they are.
        if self.batch.lines.is_empty() || self.batch.appended < self.batch.lines.text().len() {
            return;
        }
        let lines = std::mem::replace(&mut self.batch.lines, Lines::in_room(self.recent.room()));
        let (after, last) = (self.batch.after, lines.last());
        let (file, offset) = self.log.end();
        self.recent.push(Chunk { lines: Arc::new(lines), after, file, offset });
        (self.batch.after, self.batch.appended) = (last, 0);
    }

    /// Shows trouble, or that it is gone.
    fn tell(&self, error: Option<io::Error>) {
        let count = self.cores.iter().any(|shared| shared.count_when_full.load(Ordering::Relaxed));
        let full = if count { "exchanges are only counted" } else { "clients get 503" };
        let words = error.map_or(String::new(), |error| {
            format!(
                "writing extended.log in {}: {error}. Records wait in the spool and {full} when it is full; free space or repair \
                 the file system, then it goes on by itself.",
                self.log_dir.display()
            )
        });
        self.progress.send_if_modified(|progress| {
            let changed = progress.trouble != words;
            if changed && words.is_empty() {
                tracing::info!(event = "log-recovered", "extended.log is written again");
            } else if changed {
                tracing::error!(event = "log-trouble", "{words}");
            }
            progress.trouble = words;
            changed
        });
    }
}
