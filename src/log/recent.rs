//! The newest lines of extended.log, still in memory: shipping takes them from here and reads the file only to catch up
//! (`docs/decisions/0006-shipping-from-memory.md`). What stands here stands in the file, byte for byte, and is handed out only
//! when it is durable there.

use crate::limits;
use crate::record::lines::Lines;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Lines as the writer appended them, with the place in the files that follows them.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The lines.
    pub lines: Arc<Lines>,
    /// `seq` of the record before the first of these, 0 if there is none: no record has a number between the two.
    pub after: u64,
    /// First number of the file in which the last of them stands.
    pub file: u64,
    /// The offset there of what follows it.
    pub offset: u64,
}

/// Chunks in order of `seq`, as many as memory is granted; the oldest are forgotten first.
#[derive(Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Room of chunks that are gone: fresh memory of the kernel costs more than writing the lines.
    spare: Vec<Vec<u8>>,
}

impl Recent {
    /// Keeps a chunk that follows all others.
    pub fn push(&self, chunk: Chunk) {
        let mut kept = self.kept();
        kept.bytes += chunk.lines.text().len();
        kept.chunks.push_back(chunk);
        while kept.bytes > limits::LOG_RECENT_BYTES_MAX {
            kept.drop_oldest();
        }
    }

    /// Forgets what the master has.
    pub fn acknowledge(&self, seq: u64) {
        let mut kept = self.kept();
        while kept.chunks.front().is_some_and(|chunk| chunk.lines.last() <= seq) {
            kept.drop_oldest();
        }
    }

    /// Room for the next chunk.
    pub fn room(&self) -> Vec<u8> {
        self.kept().spare.pop().unwrap_or_default()
    }

    /// Gives unused room back to the system.
    pub fn trim(&self) {
        self.kept().spare.clear();
    }

    /// The records from `next` on up to a chunk's end, no more than asked for and none beyond `durable`: if the first of
    /// them begins a chunk. Small chunks come together.
    pub fn take(&self, next: u64, durable: u64, records_max: usize, bytes_max: usize) -> Option<Chunk> {
        let kept = self.kept();
        let at = kept.chunks.iter().position(|chunk| chunk.lines.last() >= next)?;
        let mut chunks = kept.chunks.range(at..);
        let mut taken = chunks.next().filter(|chunk| chunk.after < next && next <= chunk.lines.first())?.clone();
        let fits = |records: usize, bytes: usize| records <= records_max && bytes <= bytes_max;
        if taken.lines.last() > durable || !fits(taken.lines.len(), taken.lines.text().len()) {
            return None;
        }
        for chunk in chunks {
            let small = taken.lines.text().len() <= limits::LOG_RECENT_JOINED_BYTES;
            let records = taken.lines.len() + chunk.lines.len();
            let bytes = taken.lines.text().len() + chunk.lines.text().len();
            if !small || !fits(records, bytes) || chunk.lines.last() > durable {
                break;
            }
            Arc::make_mut(&mut taken.lines).append(&chunk.lines);
            (taken.file, taken.offset) = (chunk.file, chunk.offset);
        }
        Some(taken)
    }

    /// The record before the first chunk that begins after `next`: so far the file must be read.
    pub fn behind(&self, next: u64) -> Option<u64> {
        self.kept().chunks.iter().map(|chunk| chunk.after).find(|after| *after >= next)
    }

    /// A panic elsewhere leaves whole chunks behind: nothing here is done by halves.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn drop_oldest(&mut self) {
        let Some(chunk) = self.chunks.pop_front() else { return };
        self.bytes -= chunk.lines.text().len();
        let room = Arc::try_unwrap(chunk.lines).map(Lines::into_room).unwrap_or_default();
        let spare: usize = self.spare.iter().map(Vec::capacity).sum();
        if room.capacity() > 0 && spare + room.capacity() <= limits::LOG_RECENT_BYTES_MAX / 2 {
            self.spare.push(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn chunk(after: u64, seqs: &[u64], url_bytes: usize) -> Chunk {
        let url = "u".repeat(url_bytes);
        let record = |seq: &u64| Record { seq: *seq, url: url.clone(), ..Record::default() };
        let lines = Lines::of(&seqs.iter().map(record).collect::<Vec<_>>());
        Chunk { lines: Arc::new(lines), after, file: 1, offset: after + 1000 }
    }

    fn taken(recent: &Recent, next: u64, durable: u64, records_max: usize) -> Option<(u64, u64, u64)> {
        let chunk = recent.take(next, durable, records_max, 1 << 20)?;
        assert_eq!(chunk.lines.records().unwrap().len(), chunk.lines.len());
        Some((chunk.lines.first(), chunk.lines.last(), chunk.offset))
    }

    #[test]
    fn chunks_are_handed_out_from_their_beginning_whole_and_only_when_durable() {
        let recent = Recent::default();
        recent.push(chunk(10, &[11, 12], 1));
        recent.push(chunk(12, &[15], 1));
        recent.push(chunk(15, &[16, 17, 18], 100_000));
        recent.push(chunk(18, &[19], 1));
        /// next, durable, most records; then what is handed out.
        type Step = (u64, u64, usize, Option<(u64, u64, u64)>);
        let steps: &[Step] = &[
            (11, 10, 99, None),
            (11, 12, 99, Some((11, 12, 1010))),
            (11, 15, 99, Some((11, 15, 1012))),
            (11, 15, 2, Some((11, 12, 1010))),
            (11, 15, 1, None),
            (10, 19, 99, None),
            (12, 19, 99, None),
            (13, 15, 99, Some((15, 15, 1012))),
            (15, 15, 99, Some((15, 15, 1012))),
            (15, 19, 99, Some((15, 18, 1015))),
            (19, 19, 99, Some((19, 19, 1018))),
            (20, 30, 99, None),
        ];
        for (next, durable, records_max, expected) in steps {
            assert_eq!(taken(&recent, *next, *durable, *records_max), *expected, "{next} of {durable}");
        }
        assert_eq!(
            [1, 10, 11, 12, 17, 19].map(|next| recent.behind(next)),
            [10, 10, 12, 12, 18, 0].map(|n| (n > 0).then_some(n))
        );
        recent.acknowledge(15);
        assert_eq!((taken(&recent, 11, 19, 99), taken(&recent, 16, 19, 99)), (None, Some((16, 18, 1015))));
        assert!(recent.room().capacity() > 0, "room is used again");
    }

    #[test]
    fn the_oldest_chunks_are_forgotten_when_there_are_too_many() {
        let recent = Recent::default();
        let each = limits::LOG_RECENT_BYTES_MAX / 8;
        (0..20).for_each(|seq| recent.push(chunk(seq, &[seq + 1], each)));
        assert!(recent.kept().bytes <= limits::LOG_RECENT_BYTES_MAX);
        assert_eq!((recent.behind(1), recent.kept().chunks.len()), (Some(13), 7));
        let spare: usize = recent.kept().spare.iter().map(Vec::capacity).sum();
        assert!(spare <= limits::LOG_RECENT_BYTES_MAX / 2);
    }
}
