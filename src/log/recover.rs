//! What a killed predecessor left in its spools becomes lines of extended.log, each record once
//! (`docs/formats/record-spool.md`, "Recovery").

use crate::limits;
use crate::log::LogError;
use crate::log::body;
use crate::log::extended;
use crate::log::extended::ExtendedLog;
use crate::log::files;
use crate::log::left_over::LeftOver;
use crate::log::slots;
use crate::log::slots::BadSpool;
use crate::log::slots::Spool;
use crate::log::slots::State;
use crate::log::unrecorded;
use crate::record::Ended;
use crate::record::line;
use crate::record::line::LineWriter;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

const CHUNK_BYTES: usize = 1024 * 1024;

/// Where the numbers stand when the predecessor's records are not yet counted.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// `seq` of the log's last line, 0 if there is none.
    pub last: u64,
    /// Up to where the master has the records.
    pub acknowledged: u64,
    /// This run's kernel boot id.
    pub kernel_boot: [u8; 16],
}

/// Appends the records of all spools in `spool_dir` that are not in the log and removes the spools. Answers the highest
/// `seq` given out, and the spools of those who live. If the disk is full, also those that hold what did not fit: the writer goes on.
pub fn recover(
    spool_dir: &Path,
    log_dir: &Path,
    log: &mut ExtendedLog,
    writer: &mut LineWriter,
    standing: Standing,
) -> Result<(u64, Vec<LeftOver>), LogError> {
    let spools = open_all(spool_dir)?;
    // A predecessor that lives has stood aside: what it has closed is written here, the rest while it goes on.
    let living: Vec<bool> = spools.iter().map(|(_, spool)| !spool.take_over()).collect();
    spools.iter().zip(&living).filter(|(_, lives)| !**lives).for_each(|((_, spool), _)| spool.free_doubles());
    unrecorded::settle(spools.iter().map(|(_, spool)| spool), log_dir)
        .map_err(|error| failed("reading the end of extended.log in", log_dir, &error))?;
    let mut survivors = survivors(&spools, &living, standing.last);
    forget_logged(&mut survivors, &spools, log_dir, standing.kernel_boot)
        .map_err(|error| failed("reading the end of extended.log in", log_dir, &error))?;
    // In the order the predecessor had begun to write them, then by time.
    survivors.sort_by_key(|one| (one.assigned == 0, one.assigned, one.ended.ended_us));
    let mut seq = numbers_start(&spools, &survivors, standing);
    let first = seq + 1;
    let mut done = 0;
    let appended = append(log, writer, &spools, &survivors, &mut seq, &mut done);
    let last = seq;
    let dead: Vec<&Spool> =
        spools.iter().zip(&living).filter(|(_, lives)| !**lives).map(|((_, spool), _)| spool).collect();
    let appended = appended.and_then(|()| tell_unrecorded(log, writer, &dead, &mut seq)).and_then(|()| log.sync());
    let appended = match appended {
        Err(error) if extended::is_full(&error) && spools.len() <= limits::SPOOL_FILES_WAITING_MAX => {
            tracing::warn!(
                event = "records-wait",
                "appending the records that predecessors left to extended.log in {}: {error}. {} of them wait in the spool; they \
                 follow once there is room",
                log_dir.display(),
                survivors.len() - done
            );
            keep_waiting(log, &spools, &living, &survivors, done)
        }
        appended => appended,
    };
    appended.map_err(|error| {
        failed("appending the records that a killed predecessor left to extended.log in", log_dir, &error)
    })?;
    if done > 0 {
        tracing::info!(event = "records-recovered", "recovered {done} records of predecessors, seq {first} to {last}");
    }
    for one in survivors[..done].iter().filter(|one| living[one.spool]) {
        spools[one.spool].1.set_state(one.slot, State::Free);
    }
    let all_done = done == survivors.len();
    let mut left_over = Vec::new();
    for ((path, spool), living) in spools.into_iter().zip(living) {
        if living || !(all_done && unrecorded::is_told(&spool)) {
            let named = path.clone();
            let adopted = LeftOver::adopt(path, spool, !living);
            left_over.push(adopted.map_err(|error| failed("adopting the spool", &named, &error))?);
        } else {
            fs::remove_file(&path).map_err(|error| failed("removing the recovered spool", &path, &error))?;
        }
    }
    Ok((seq, left_over))
}

/// The disk is full: what is not in the log stays in the spools, and nothing else does.
fn keep_waiting(
    log: &mut ExtendedLog,
    spools: &[(PathBuf, Spool)],
    living: &[bool],
    survivors: &[Survivor],
    done: usize,
) -> io::Result<()> {
    log.drop_partial()?;
    log.sync().or_else(extended::unless_full)?;
    let waiting: HashSet<(usize, u32)> = survivors[done..].iter().map(|one| (one.spool, one.slot)).collect();
    for (spool, slot) in &waiting {
        // The number that it was to have may be another's before its line is written.
        spools[*spool].1.set_seq(*slot, 0);
    }
    for (index, (_, spool)) in spools.iter().enumerate().filter(|(index, _)| !living[*index]) {
        for slot in (0..spool.size().slots()).filter(|slot| !waiting.contains(&(index, *slot))) {
            spool.set_state(slot, State::Free);
        }
    }
    Ok(())
}

/// A record that is not in the log.
struct Survivor {
    spool: usize,
    slot: u32,
    /// The number the predecessor gave it, 0 if none.
    assigned: u64,
    ended: Ended,
}

fn open_all(spool_dir: &Path) -> Result<Vec<(PathBuf, Spool)>, LogError> {
    let mut spools = Vec::new();
    for path in spool_files(spool_dir).map_err(|error| failed("listing the spools in", spool_dir, &error))? {
        match Spool::open(&path) {
            Ok(spool) => spools.push((path, spool)),
            Err(BadSpool::Empty) => {
                fs::remove_file(&path).map_err(|error| failed("removing the empty spool", &path, &error))?;
            }
            Err(BadSpool::Unreadable(why)) => {
                let aside = slots::set_aside(&path).map_err(|error| failed("setting aside", &path, &error))?;
                tracing::error!(
                    event = "records-lost",
                    "recovering the record spool {}: {why}. It is kept as {}; records of exchanges that were under way \
                     when its node was killed are in it. The version of Tidegate that wrote it can read it",
                    path.display(),
                    aside.display()
                );
            }
            Err(BadSpool::Io(error)) => return Err(failed("opening the record spool", &path, &error)),
        }
    }
    Ok(spools)
}

/// `core-N` for any N, and nothing else; in order of N.
fn spool_files(spool_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(spool_dir)? {
        let entry = entry?;
        let core = entry.file_name().to_str().and_then(|name| name.strip_prefix("core-")?.parse::<u32>().ok());
        files.extend(core.map(|core| (core, entry.path())));
    }
    files.sort();
    files.truncate(limits::SPOOL_FILES_MAX);
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn survivors(spools: &[(PathBuf, Spool)], living: &[bool], last: u64) -> Vec<Survivor> {
    let mut survivors = Vec::new();
    let mut body = Vec::new();
    for (index, (_, spool)) in spools.iter().enumerate() {
        for slot in 0..spool.size().slots() {
            let (state, assigned) = (spool.state(slot), spool.seq(slot));
            let logged = assigned != 0 && assigned <= last;
            if logged && living[index] && state == State::Closed {
                // The writer died between the line and this.
                spool.set_state(slot, State::Free);
            }
            if state == State::Free
                || (state == State::Open && living[index])
                || logged
                || !spool.recover_body(slot, &mut body)
                || body::read_body(&body).is_none()
            {
                continue;
            }
            let ended = spool.numbers(slot);
            let ended = if state == State::Open { ended.killed() } else { ended };
            survivors.push(Survivor { spool: index, slot, assigned, ended });
        }
    }
    survivors
}

/// After the machine itself went down, pages of a spool may be older than the log: their records are known by their ids.
fn forget_logged(
    survivors: &mut Vec<Survivor>,
    spools: &[(PathBuf, Spool)],
    log_dir: &Path,
    kernel_boot: [u8; 16],
) -> io::Result<()> {
    let doubtful = |one: &Survivor| kernel_boot == [0; 16] || spools[one.spool].1.kernel_boot() != kernel_boot;
    let ids: Vec<Option<Vec<u8>>> =
        survivors.iter().map(|one| doubtful(one).then(|| record_id(&spools[one.spool].1, one.slot))).collect();
    let wanted: HashSet<&[u8]> = ids.iter().flatten().map(Vec::as_slice).collect();
    let mut logged = HashSet::new();
    if !wanted.is_empty() {
        files::tail_lines(log_dir, limits::LOG_RECOVERY_BYTES_MAX, |text| {
            let id = text.split(|byte| *byte == b'\t').next().unwrap_or_default();
            if let Some(known) =
                wanted.get(id.trim_ascii().strip_prefix(b"\"").and_then(|id| id.strip_suffix(b"\"")).unwrap_or(id))
            {
                logged.insert(known.to_vec());
            }
        })?;
    }
    let mut ids = ids.into_iter();
    survivors.retain(|_| ids.next().flatten().is_none_or(|id| !logged.contains(&id)));
    Ok(())
}

fn record_id(spool: &Spool, slot: u32) -> Vec<u8> {
    let (mut body, mut id) = (Vec::new(), Vec::new());
    spool.copy_body(slot, &mut body);
    if let Some(entry) = body::read_body(&body) {
        line::write_record_id(&mut id, entry.started_us, entry.client_id, entry.request_id, spool.boot());
    }
    id
}

/// The number before the first one to give. The log says it; only if its lines were taken away do others know better.
fn numbers_start(spools: &[(PathBuf, Spool)], survivors: &[Survivor], standing: Standing) -> u64 {
    let known = standing.last.max(standing.acknowledged);
    if standing.last > 0 && standing.acknowledged <= standing.last {
        return known;
    }
    let begun = survivors.iter().map(|one| one.assigned).filter(|assigned| *assigned > 0).min();
    let high = spools.iter().map(|(_, spool)| spool.seq_high()).max().unwrap_or(0);
    known.max(begun.map_or(high, |begun| begun - 1))
}

fn append(
    log: &mut ExtendedLog,
    writer: &mut LineWriter,
    spools: &[(PathBuf, Spool)],
    survivors: &[Survivor],
    seq: &mut u64,
    done: &mut usize,
) -> io::Result<()> {
    let (mut body, mut lines, mut given) = (Vec::new(), Vec::new(), *seq);
    for (index, one) in survivors.iter().enumerate() {
        let spool = &spools[one.spool].1;
        spool.copy_body(one.slot, &mut body);
        let mut late = [0; slots::LATE_BYTES];
        let Some(entry) = slots::read_record(spool, one.slot, &body, &mut late) else { continue };
        given += 1;
        // Before the line, so that a kill during this recovery is recovered like any other.
        spool.set_seq(one.slot, given);
        writer.write(&mut lines, &entry, &one.ended, spool.boot(), given);
        if lines.len() >= CHUNK_BYTES {
            log.append(&lines, *seq + 1)?;
            lines.clear();
            (*seq, *done) = (given, index + 1);
        }
    }
    if !lines.is_empty() {
        log.append(&lines, *seq + 1)?;
    }
    (*seq, *done) = (given, survivors.len());
    Ok(())
}

/// Tells of the exchanges that predecessors had only counted.
fn tell_unrecorded(log: &mut ExtendedLog, writer: &mut LineWriter, spools: &[&Spool], seq: &mut u64) -> io::Result<()> {
    for run in unrecorded::untold(spools.iter().copied()) {
        let mut lines = Vec::new();
        run.write(writer, &mut lines, *seq + 1);
        log.append(&lines, *seq + 1)?;
        *seq += 1;
        run.spools.iter().for_each(|(index, counted)| unrecorded::set_told(spools[*index], *counted));
        tracing::warn!(event = "exchanges-unrecorded", seq = *seq, "{}; record {seq} says so", run.words());
    }
    Ok(())
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> LogError {
    LogError(format!(
        "{doing} {}: {error}. Nothing is lost: the records stay where they are. Free space or repair the permissions \
         there and start again.",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::slots::SpoolSize;
    use crate::record::Draft;
    use crate::record::line::Entry;

    const TINY: SpoolSize = SpoolSize { small_slots: 4, small_bytes: 1024, large_slots: 1, large_bytes: 32768 };

    #[test]
    fn on_a_full_disk_what_is_not_in_the_log_waits_without_a_number_and_nothing_else_of_the_dead_does() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = ExtendedLog::open(dir.path(), 1 << 30).unwrap();
        let mut body = Vec::new();
        body::write_body(&mut body, &Entry::from(&Draft::default()));
        let spools = ["core-0", "core-1"].map(|name| {
            let path = dir.path().join(name);
            let spool = Spool::create(&path, TINY, "bootbootbo", [0; 16], 0).unwrap();
            for slot in 0..4 {
                spool.fill(slot, &body, &Ended::default());
                spool.set_state(slot, State::Closed);
                spool.set_seq(slot, 10 + u64::from(slot));
            }
            (path, spool)
        });
        let survivor = |spool, slot| Survivor { spool, slot, assigned: 0, ended: Ended::default() };
        // The first is in the log now, the next two are not; all else never had to be.
        let survivors = [survivor(0, 0), survivor(0, 1), survivor(1, 2)];
        keep_waiting(&mut log, &spools, &[false, true], &survivors, 1).unwrap();
        let seen = |spool: usize| {
            (0..4).map(|slot| (spools[spool].1.state(slot), spools[spool].1.seq(slot))).collect::<Vec<_>>()
        };
        let (free, closed) = (State::Free, State::Closed);
        assert_eq!(seen(0), [(free, 10), (closed, 0), (free, 12), (free, 13)]);
        assert_eq!(seen(1), [(closed, 10), (closed, 11), (closed, 0), (closed, 13)], "its process lives");
    }
}
