//! Exchanges that went on without a record because the log had no room (LOG_FULL=count): each core counts its own in the header of
//! its spool, where the numbers survive the process, and the log tells them in one record when it takes lines again
//! (`docs/formats/record-spool.md`, "What is only counted").

use crate::limits;
use crate::log::files;
use crate::log::slots::Spool;
use crate::record::By;
use crate::record::Draft;
use crate::record::Ended;
use crate::record::Ending;
use crate::record::Phase;
use crate::record::UNRECORDED_RULE;
use crate::record::line::Entry;
use crate::record::line::LineWriter;
use jiff::Timestamp;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Counts one exchange that is recorded at `now_us`, or would be. For the spool's core alone.
pub fn count(spool: &Spool, now_us: i64) {
    let words = Words::of(spool);
    let before = words.counted.load(Ordering::Relaxed);
    if before == words.told.load(Ordering::Relaxed) {
        words.first_us.store(now_us as u64, Ordering::Relaxed);
    }
    words.last_us.store(now_us as u64, Ordering::Relaxed);
    words.counted.store(before.wrapping_add(1), Ordering::Release);
}

/// Whether a record tells of all that were counted.
pub fn is_told(spool: &Spool) -> bool {
    let words = Words::of(spool);
    words.counted.load(Ordering::Acquire) == words.told.load(Ordering::Relaxed)
}

/// Notes that the record of the first `counted` is in the log.
pub fn set_told(spool: &Spool, counted: u64) {
    Words::of(spool).told.store(counted, Ordering::Release);
}

/// The words in a spool's header.
struct Words<'a> {
    /// How many exchanges of this core went on unrecorded.
    counted: &'a AtomicU64,
    /// When the first of those that no record tells of did.
    first_us: &'a AtomicU64,
    /// When the last of them did.
    last_us: &'a AtomicU64,
    /// Of how many a record tells.
    told: &'a AtomicU64,
}

impl Words<'_> {
    fn of(spool: &Spool) -> Words<'_> {
        let [counted, first_us, last_us, told] = spool.unrecorded_words();
        Words { counted, first_us, last_us, told }
    }
}

/// What the cores of one run have counted and no record tells of yet.
pub struct Untold {
    /// The last part of the run's record ids.
    pub boot: String,
    /// How many exchanges.
    number: u64,
    /// How many of this run, with those that are told.
    of_run: u64,
    first_us: i64,
    last_us: i64,
    /// Which spools of the ones given, and what each had counted.
    pub spools: Vec<(usize, u64)>,
}

/// What no record tells of yet, by run.
pub fn untold<'s>(spools: impl Iterator<Item = &'s Spool> + Clone) -> Vec<Untold> {
    let mut runs: Vec<Untold> = Vec::new();
    for spool in spools.clone().filter(|spool| !is_told(spool)) {
        if runs.iter().all(|run| run.boot != spool.boot()) {
            let boot = spool.boot().to_string();
            runs.push(Untold { boot, number: 0, of_run: 0, first_us: i64::MAX, last_us: 0, spools: Vec::new() });
        }
    }
    for run in &mut runs {
        for (index, spool) in spools.clone().enumerate().filter(|(_, spool)| spool.boot() == run.boot) {
            let words = Words::of(spool);
            let counted = words.counted.load(Ordering::Acquire);
            run.of_run = run.of_run.saturating_add(counted);
            let number = counted.saturating_sub(words.told.load(Ordering::Relaxed));
            if number > 0 {
                run.number = run.number.saturating_add(number);
                run.first_us = run.first_us.min(words.first_us.load(Ordering::Relaxed) as i64);
                run.last_us = run.last_us.max(words.last_us.load(Ordering::Relaxed) as i64);
                run.spools.push((index, counted));
            }
        }
    }
    runs.retain(|run| run.number > 0);
    runs
}

impl Untold {
    /// Appends the line of the record that tells of them.
    pub fn write(&self, line: &mut LineWriter, out: &mut Vec<u8>, seq: u64) {
        let url = format!("{} exchanges without a record", self.number);
        let reason = self.words();
        let draft = Draft {
            // With the run's name: an id that no other record has, also not a later one of the same run.
            client_id: self.of_run,
            request_id: 0,
            started_us: self.first_us,
            url: url.as_bytes(),
            filtering_reason: &reason,
            rule: UNRECORDED_RULE,
            ..Draft::default()
        };
        let ended = Ended {
            ended_us: self.last_us,
            elapsed_us: self.last_us.saturating_sub(self.first_us).max(0) as u64,
            ending: Ending::new(By::Resource, Phase::Complete),
            ..Ended::default()
        };
        line.write(out, &Entry::from(&draft), &ended, &self.boot, seq);
    }

    /// The number comes first: reports add it up.
    pub fn words(&self) -> String {
        let at = |us: i64| Timestamp::from_microsecond(us).unwrap_or_default();
        format!(
            "{} exchanges between {:.0} and {:.0} went on without a record: the log had no room for them (LOG_FULL=count)",
            self.number,
            at(self.first_us),
            at(self.last_us)
        )
    }
}

/// Before anything is appended: a predecessor may have been killed when the record was in the log and not yet noted as told.
pub fn settle<'s>(spools: impl Iterator<Item = &'s Spool> + Clone, log_dir: &Path) -> io::Result<()> {
    if spools.clone().all(is_told) {
        return Ok(());
    }
    // Of each run, what its last record says.
    let mut logged: HashMap<String, u64> = HashMap::new();
    files::tail_lines(log_dir, limits::LOG_RECOVERY_BYTES_MAX, |text| {
        if let Some((of_run, boot)) = told_by(text) {
            let most = logged.entry(boot.to_string()).or_default();
            *most = of_run.max(*most);
        }
    })?;
    for (boot, of_run) in logged {
        let run = || spools.clone().filter(|spool| spool.boot() == boot);
        let told: u64 = run().map(|spool| Words::of(spool).told.load(Ordering::Relaxed)).sum();
        let mut more = of_run.saturating_sub(told);
        // Which core counted them is nowhere told: only the sum must be right.
        for words in run().map(Words::of) {
            let told = words.told.load(Ordering::Relaxed);
            let part = words.counted.load(Ordering::Acquire).saturating_sub(told).min(more);
            words.told.store(told + part, Ordering::Release);
            more -= part;
        }
    }
    Ok(())
}

/// How many of which run the line tells of, if it is such a record: by its id, `SECONDS-OF_RUN-0-BOOT`.
fn told_by(text: &[u8]) -> Option<(u64, &str)> {
    let id = text.split(|byte| *byte == b'\t').next()?.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut parts = std::str::from_utf8(id).ok()?.splitn(4, '-');
    let (_seconds, of_run, request, boot) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (request == "0").then_some((of_run.parse().ok()?, boot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::slots::SpoolSize;
    use crate::record::line;
    use jiff::tz::TimeZone;
    use std::fs;

    const TINY: SpoolSize = SpoolSize { small_slots: 1, small_bytes: 1024, large_slots: 1, large_bytes: 32768 };

    fn numbers(spools: &[Spool]) -> Vec<(u64, i64, i64)> {
        untold(spools.iter()).iter().map(|run| (run.number, run.first_us, run.last_us)).collect()
    }

    /// Writes the records of what is untold to the log in `dir`, as its writer does, and notes nothing.
    fn tell(dir: &Path, spools: &[Spool]) {
        let (mut lines, mut writer) = (Vec::new(), LineWriter::new("edge", TimeZone::UTC));
        line::write_header(&mut lines);
        untold(spools.iter()).iter().for_each(|run| run.write(&mut writer, &mut lines, 1));
        fs::write(dir.join("extended.log"), lines).unwrap();
    }

    #[test]
    fn what_was_counted_is_told_once_wherever_the_process_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let open = |core: u64, boot: &str| {
            Spool::create(&dir.path().join(format!("core-{core}")), TINY, boot, [0; 16], 0).unwrap()
        };
        let spools = [open(0, "bootbootbo"), open(1, "bootbootbo"), open(2, "otherother")];
        assert!(numbers(&spools).is_empty());
        [(0, 50), (0, 60), (1, 40), (2, 70), (0, 80)].iter().for_each(|(core, us)| count(&spools[*core], *us));
        assert_eq!(numbers(&spools), [(4, 40, 80), (1, 70, 70)]);
        // Killed before the line: all is untold still, for a successor too.
        let again = [0, 1, 2].map(|core| Spool::open(&dir.path().join(format!("core-{core}"))).unwrap());
        settle(again.iter(), dir.path()).unwrap();
        assert_eq!(numbers(&again), [(4, 40, 80), (1, 70, 70)]);
        // Killed behind the line: what came meanwhile is untold.
        tell(dir.path(), &spools);
        [(1, 90), (1, 95)].iter().for_each(|(core, us)| count(&spools[*core], *us));
        settle(again.iter(), dir.path()).unwrap();
        assert_eq!(numbers(&again).iter().map(|run| run.0).collect::<Vec<_>>(), [2]);
        let run = &untold(again.iter())[0];
        assert_eq!((run.of_run, run.spools.as_slice()), (6, [(1, 3)].as_slice()));
        set_told(&again[1], 3);
        assert!(numbers(&again).is_empty());
        count(&spools[0], 200);
        assert_eq!(numbers(&again), [(1, 200, 200)]);
    }
}
