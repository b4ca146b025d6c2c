//! What becomes of rotated files, by a thread that gives way to all others: packed, one at a time, and removed when they may go
//! (`docs/formats/extended-log.md`, "A file").

use crate::base::clock::Mono;
use crate::base::durable;
use crate::limits;
use crate::log::chain;
use crate::log::files;
use crate::log::packed;
use crate::log::writer::Control;
use crate::sys::host;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The state of the thread.
pub struct Upkeep {
    dir: PathBuf,
    control: Arc<Control>,
}

impl Upkeep {
    /// For the log in `dir`.
    pub fn new(dir: &Path, control: Arc<Control>) -> Upkeep {
        Upkeep { dir: dir.to_path_buf(), control }
    }

    /// Works until told to stop.
    pub fn run(self) {
        // What a killed predecessor had not finished.
        let _ = fs::remove_file(files::packing_name(&self.dir));
        let mut looked: Option<(Mono, u64)> = None;
        let mut said = false;
        while !self.stops() {
            let (now, current) = (Mono::now(), self.control.file_first.load(Ordering::Relaxed));
            let due =
                |(at, seen): (Mono, u64)| seen != current || now.micros_since(at) >= limits::LOG_RETENTION_MS * 1000;
            if looked.is_none_or(due) {
                looked = Some((now, current));
                self.look();
            }
            said = self.make_room(said);
            std::thread::park_timeout(Duration::from_millis(limits::LOG_UPKEEP_MS));
        }
    }

    fn look(&self) {
        if let Err(error) = self.forget() {
            tracing::warn!(event = "log-not-removed", error = ?error.kind(), "removing old files of extended.log in {}: {error}", self.dir.display());
        }
        if let Err(error) = self.pack() {
            tracing::warn!(
                event = "log-not-packed",
                error = ?error.kind(),
                "compressing a rotated file of extended.log in {}: {error}. It stays as it is, and this is tried again in a minute",
                self.dir.display()
            );
        }
    }

    fn stops(&self) -> bool {
        self.control.stop.load(Ordering::Acquire)
    }

    /// Removes rotated files that hold nothing unacknowledged, as the master told this process, and have not changed for KEEP_DATA.
    fn forget(&self) -> io::Result<()> {
        let keep = Duration::from_secs(self.control.keep_days.load(Ordering::Relaxed) * 86_400);
        forget(&self.dir, self.acknowledged(), keep)
    }

    fn acknowledged(&self) -> u64 {
        self.control.acknowledged.load(Ordering::Acquire)
    }

    /// Removes what is stored elsewhere, oldest first and however young, while the file system is nearly full. `said` is whether it
    /// was said that nothing is left to remove; so is the answer.
    fn make_room(&self, said: bool) -> bool {
        while let Ok((free, all)) = host::space(&self.dir)
            && is_nearly_full(free, all)
        {
            let removed = oldest_stored(&self.dir, self.acknowledged()).and_then(|oldest| {
                oldest.map_or(Ok(false), |(first, path)| {
                    remove(&self.dir, first)?;
                    tracing::warn!(
                        event = "log-removed-early",
                        "removed {}, which is stored in the report but younger than KEEP_DATA: {} of {} MiB were free",
                        path.display(),
                        free >> 20,
                        all >> 20
                    );
                    Ok(true)
                })
            });
            let why = match removed {
                Ok(true) => continue,
                Ok(false) if self.acknowledged() == 0 => {
                    "none is known to be stored in the report since this start: the store was not reached yet"
                        .to_string()
                }
                Ok(false) => "no file is left that is stored in the report and could be removed".to_string(),
                Err(error) => format!("the oldest file could not be removed: {error}"),
            };
            if !said {
                tracing::warn!(
                    event = "log-space-low",
                    "{} of {} MiB are free for extended.log in {}, and {why}. Give it room, or see why records do not reach the \
                     report; what happens when nothing is free LOG_FULL decides",
                    free >> 20,
                    all >> 20,
                    self.dir.display()
                );
            }
            return true;
        }
        false
    }

    /// Packs the rotated files that are not, oldest first.
    fn pack(&self) -> io::Result<()> {
        for (first, path) in files::rotated(&self.dir)? {
            if self.stops() {
                break;
            }
            if files::is_packed(&path) {
                continue;
            }
            let bytes = fs::metadata(&path)?.len();
            if bytes < limits::LOG_PACK_BYTES_MIN {
                continue;
            }
            // Lines come to an eighth: what is written now must not want for room because of this.
            if host::space(&self.dir)?.0 < bytes / 4 {
                continue;
            }
            pack_file(&self.dir, first, &path, || !self.stops())?;
        }
        Ok(())
    }
}

/// See [`Upkeep::forget`].
fn forget(dir: &Path, acknowledged: u64, keep: Duration) -> io::Result<()> {
    while let Some((first, path)) = oldest_stored(dir, acknowledged)?
        && fs::metadata(&path)?.modified()?.elapsed().is_ok_and(|elapsed| elapsed > keep)
    {
        remove(dir, first)?;
        tracing::info!(event = "log-removed", "removed {}: acknowledged, and older than KEEP_DATA", path.display());
    }
    Ok(())
}

/// The oldest file, if it is rotated and all its records are acknowledged.
fn oldest_stored(dir: &Path, acknowledged: u64) -> io::Result<Option<(u64, PathBuf)>> {
    let mut files = files::files(dir)?.into_iter();
    let (Some((first, path)), Some((next, _))) = (files.next(), files.next()) else { return Ok(None) };
    let stored = next.saturating_sub(1) <= acknowledged;
    Ok((stored && files::is_rotated(&path)).then_some((first, path)))
}

/// Whether so many bytes free, of so many, are too few.
fn is_nearly_full(free: u64, all: u64) -> bool {
    free < (all / limits::LOG_FREE_SHARE).min(limits::LOG_FREE_BYTES)
}

/// Removes a rotated file with its chain. The chain first: a file without one is of an earlier build, a chain without its file is a finding.
fn remove(dir: &Path, first: u64) -> io::Result<()> {
    for path in [chain::path_of(dir, first), files::rotated_name(dir, first), files::packed_name(dir, first)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Puts a packed file in the place of a plain one: at every moment one of both has its name and is whole.
fn pack_file(dir: &Path, first: u64, plain: &Path, go_on: impl Fn() -> bool) -> io::Result<()> {
    let (beside, to) = (files::packing_name(dir), files::packed_name(dir, first));
    let from = File::open(plain)?;
    let packed = pack_beside(&from, &beside, &go_on);
    if !matches!(packed, Ok(true)) {
        let _ = fs::remove_file(&beside);
        return match packed {
            Ok(_) if go_on() => {
                Err(io::Error::other("what was compressed does not read as it was; is the memory sound?"))
            }
            packed => packed.map(|_| ()),
        };
    }
    fs::rename(&beside, &to)?;
    durable::sync_dir(dir)?;
    fs::remove_file(plain)?;
    durable::sync_dir(dir)?;
    let (before, after) = (from.metadata()?.len() >> 20, fs::metadata(&to)?.len() >> 20);
    tracing::info!(event = "log-packed", "compressed {} from {before} to {after} MiB", plain.display());
    Ok(())
}

/// Whether all of `from` now stands packed in the file `beside`, durably, and reads as it was.
fn pack_beside(from: &File, beside: &Path, go_on: &impl Fn() -> bool) -> io::Result<bool> {
    let mut to = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o640).open(beside)?;
    if !packed::pack(from, &mut to, go_on)? || !packed::is_same(to.try_clone()?, from, go_on)? {
        return Ok(false);
    }
    // KEEP_DATA counts from the last line.
    to.set_modified(from.metadata()?.modified()?)?;
    to.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::audit::audit;
    use crate::log::extended::ExtendedLog;
    use crate::record::Draft;
    use crate::record::Ended;
    use crate::record::audit::AuditQuestion;
    use crate::record::line;
    use crate::record::line::Entry;
    use crate::record::line::LineWriter;
    use jiff::tz::TimeZone;

    /// A log of the records 1 to `last`, in files of so many bytes.
    fn write(dir: &Path, last: u64, bytes_max: u64) -> ExtendedLog {
        let (mut log, _) = ExtendedLog::open(dir, bytes_max).unwrap();
        let (mut writer, entry) = (LineWriter::new("edge", TimeZone::UTC), Entry::from(&Draft::default()));
        for seq in 1..=last {
            let mut line = Vec::new();
            writer.write(&mut line, &entry, &Ended::default(), "bootbootbo", seq);
            log.append(&line, seq).unwrap();
        }
        log.sync().unwrap();
        log
    }

    fn firsts(dir: &Path) -> Vec<u64> {
        files::files(dir).unwrap().iter().map(|(first, _)| *first).collect()
    }

    fn assert_whole(dir: &Path, records: u64) {
        let proof = audit(dir, &AuditQuestion::default()).unwrap();
        assert_eq!((proof.records, proof.findings.as_slice()), (records, [].as_slice()));
    }

    fn pack_all(dir: &Path) {
        for (first, path) in files::rotated(dir).unwrap() {
            pack_file(dir, first, &path, || true).unwrap();
        }
    }

    #[test]
    fn files_rotate_by_size_and_go_when_acknowledged_and_old_packed_or_not() {
        for packed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            let log = write(dir, 20, 3000);
            let firsts = firsts(dir);
            assert!(firsts.len() > 2 && firsts[0] == 1, "{firsts:?}");
            for (_, path) in files::files(dir).unwrap() {
                assert!(line::is_header(&fs::read(&path).unwrap()) && fs::metadata(path).unwrap().len() <= 3000);
            }
            if packed {
                pack_all(dir);
            }
            let left = || self::firsts(dir).len();
            forget(dir, 20, Duration::from_secs(60)).unwrap();
            assert_eq!(left(), firsts.len(), "all are young");
            forget(dir, firsts[1] - 2, Duration::ZERO).unwrap();
            assert_eq!(left(), firsts.len(), "the first has an unacknowledged record");
            forget(dir, firsts[1] - 1, Duration::ZERO).unwrap();
            assert_eq!(self::firsts(dir)[0], firsts[1]);
            forget(dir, 20, Duration::ZERO).unwrap();
            assert_eq!(left(), 1, "the one that is written stays");
            drop(log);
            assert_eq!(ExtendedLog::open(dir, 3000).unwrap().1, 20);
            fs::remove_file(dir.join(files::NAME)).unwrap();
            assert_eq!(ExtendedLog::open(dir, 3000).unwrap().1, 0, "no line, no number");
        }
    }

    #[test]
    fn a_packed_file_says_when_it_was_written_and_what_its_last_number_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        drop(write(dir, 20, 3000));
        let (last, path) = files::rotated(dir).unwrap().pop().unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        pack_all(dir);
        let packed = files::packed_name(dir, last);
        assert_eq!(fs::metadata(&packed).unwrap().modified().unwrap(), written);
        fs::remove_file(dir.join(files::NAME)).unwrap();
        let current = files::files(dir).unwrap().len();
        let open = || ExtendedLog::open(dir, 3000).unwrap().1;
        let before = open();
        assert!(before >= last && current > 1);
        let mut bytes = fs::read(&packed).unwrap();
        bytes[40] ^= 1;
        fs::write(&packed, bytes).unwrap();
        assert_eq!(open(), before, "its chain says it if its lines cannot");
    }

    /// What stands in the folder when the process is killed behind each step.
    #[test]
    fn a_crash_at_each_step_of_packing_leaves_a_readable_log_and_the_next_start_goes_on() {
        const RECORDS: u64 = 1_000;
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        drop(write(dir, RECORDS, 200_000));
        let (first, plain) = files::rotated(dir).unwrap().swap_remove(0);
        let (beside, to) = (files::packing_name(dir), files::packed_name(dir, first));
        let content = fs::read(&plain).unwrap();
        assert!(pack_beside(&File::open(&plain).unwrap(), &beside, &|| true).unwrap());
        let whole = fs::read(&beside).unwrap();
        // While it is written, and with all of it.
        for bytes in [0, 1, whole.len() / 2, whole.len()] {
            fs::write(&beside, &whole[..bytes]).unwrap();
            assert_whole(dir, RECORDS);
        }
        // Behind the rename: both are there.
        fs::rename(&beside, &to).unwrap();
        assert_whole(dir, RECORDS);
        // Behind the removal.
        fs::remove_file(&plain).unwrap();
        assert_whole(dir, RECORDS);
        // From each of them the next start comes to the same.
        for (has_plain, has_packed, has_beside) in [(true, false, true), (true, true, false), (false, true, false)] {
            let put = |there: bool, path: &Path, bytes: &[u8]| {
                if there { fs::write(path, bytes).unwrap() } else { drop(fs::remove_file(path)) }
            };
            put(has_plain, &plain, &content);
            put(has_packed, &to, &whole);
            put(has_beside, &beside, &whole[..whole.len() / 2]);
            let control = Arc::new(Control::default());
            control.keep_days.store(30, Ordering::Relaxed);
            let upkeep = Upkeep::new(dir, control.clone());
            std::thread::scope(|scope| {
                let running = scope.spawn(|| upkeep.run());
                let deadline = Mono::now();
                while files::rotated(dir).unwrap().iter().any(|(_, path)| !files::is_packed(path)) {
                    assert!(Mono::now().micros_since(deadline) < 60_000_000, "not packed within a minute");
                    std::thread::yield_now();
                }
                control.stop.store(true, Ordering::Release);
                running.thread().unpark();
            });
            assert!(!beside.exists() && !plain.exists());
            assert_whole(dir, RECORDS);
        }
    }
}
