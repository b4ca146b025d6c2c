//! performance.log: the node's figures every few seconds, a line each (`docs/formats/performance-log.md`). It may be missing a
//! line where the disk was full; nothing waits for it.

use super::figures::Gauges;
use super::params::Params;
use super::shedding::Shedding;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::figures;
use crate::limits::FIGURES_EVERY_MS;
use crate::settings::Settings;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "performance.log";
const DAY_US: i64 = 86_400 * 1_000_000;

/// Writes a line every few seconds as long as the node lives.
pub fn keep(gauges: Arc<Gauges>, params: &Params) {
    let settings = params.watch();
    tokio::spawn(async move {
        let mut log = PerformanceLog::new(&settings.borrow().log_dir);
        let mut shedding = Shedding::default();
        let mut tick = tokio::time::interval(Duration::from_millis(FIGURES_EVERY_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (gauges, bounds) = (gauges.clone(), Bounds::of(&settings.borrow()));
            // Files block: not on a thread that serves.
            let written = tokio::task::spawn_blocking(move || {
                let read = gauges.read();
                log.note(Wall::now(), &figures::line(Wall::now(), &read), &bounds);
                (log, read.records_refused)
            });
            let Ok((back, refused)) = written.await else { return };
            log = back;
            if let Some(words) = shedding.words(refused, Mono::now()) {
                tracing::warn!(event = "exchanges-shed", "{words}");
            }
        }
    });
}

/// How much of it is kept.
struct Bounds {
    /// LOG_SIZE_LIMIT.
    bytes_max: u64,
    /// KEEP_DATA.
    keep: Duration,
}

impl Bounds {
    fn of(settings: &Settings) -> Bounds {
        let keep = Duration::from_secs(u64::from(settings.keep_data_days) * 86_400);
        Bounds { bytes_max: settings.log_size_limit, keep }
    }
}

struct PerformanceLog {
    dir: PathBuf,
    open: Option<Open>,
    trouble: String,
}

struct Open {
    file: File,
    bytes: u64,
    /// Days since 1970: each has a file of its own.
    day: i64,
}

impl PerformanceLog {
    fn new(dir: &Path) -> PerformanceLog {
        PerformanceLog { dir: dir.to_path_buf(), open: None, trouble: String::new() }
    }

    /// Appends `line`; what stops it is told once, and tried again with the next line.
    fn note(&mut self, now: Wall, line: &str, bounds: &Bounds) {
        match self.append(now, line, bounds) {
            Ok(()) => self.trouble.clear(),
            Err(error) => {
                self.open = None;
                let words = error.to_string();
                if words != self.trouble {
                    tracing::warn!(
                        event = "performance-log-trouble",
                        error = ?error.kind(),
                        "writing {}: {error}. Figures of this time are missing in it; see that LOG_DIR has room and belongs to the service's user",
                        self.dir.join(NAME).display()
                    );
                }
                self.trouble = words;
            }
        }
    }

    fn append(&mut self, now: Wall, line: &str, bounds: &Bounds) -> io::Result<()> {
        let day = now.0.div_euclid(DAY_US);
        if self.open.as_ref().is_some_and(|open| open.day != day || open.bytes + line.len() as u64 > bounds.bytes_max) {
            self.open = None;
            self.put_aside(now)?;
            self.forget(bounds.keep)?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(open(&self.dir, now, day)?),
        };
        if let Err(error) = open.file.write_all(line.as_bytes()) {
            // Half a line must not stand before the next one.
            let _ = open.file.set_len(open.bytes);
            return Err(error);
        }
        open.bytes += line.len() as u64;
        Ok(())
    }

    fn put_aside(&self, now: Wall) -> io::Result<()> {
        put_aside(&self.dir, now)
    }

    /// Removes files that were put aside and have not changed for `keep`.
    fn forget(&self, keep: Duration) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with("performance-") && name.ends_with(".log"));
            let old = || entry.metadata()?.modified().map(|at| at.elapsed().is_ok_and(|age| age > keep));
            if ours && old()? {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Opens today's file. One of another day, or with other columns (another version wrote it), is put aside.
fn open(dir: &Path, now: Wall, day: i64) -> io::Result<Open> {
    let path = dir.join(NAME);
    if !goes_on(&path, day)? {
        put_aside(dir, now)?;
    }
    let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o640).open(&path)?;
    let mut bytes = file.metadata()?.len();
    let start = if bytes == 0 {
        figures::header()
    } else {
        // What a crash cut is ended: it has too few columns, and readers skip it.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last == *b"\n" { String::new() } else { "\n".to_string() }
    };
    file.write_all(start.as_bytes())?;
    bytes += start.len() as u64;
    Ok(Open { file, bytes, day })
}

/// Whether the file there may be appended to; one that is not there may.
fn goes_on(path: &Path, day: i64) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let (mut header, length) = (String::new(), file.metadata()?.len());
    let changed = jiff::Timestamp::try_from(file.metadata()?.modified()?).unwrap_or_default();
    // A file that is no text is no performance.log of ours: aside with it.
    let read = BufReader::new(file.take(figures::header().len() as u64 + 1)).read_line(&mut header);
    Ok(length == 0 || (read.is_ok() && header == figures::header() && changed.as_second().div_euclid(86_400) == day))
}

fn put_aside(dir: &Path, now: Wall) -> io::Result<()> {
    let time = jiff::Timestamp::from_microsecond(now.0).unwrap_or_default().strftime("%Y%m%dT%H%M%S").to_string();
    let named = |count: u32| match count {
        0 => dir.join(format!("performance-{time}.log")),
        count => dir.join(format!("performance-{time}-{count}.log")),
    };
    let Some(free) = (0..1_000).map(named).find(|path| !path.exists()) else {
        return Err(io::Error::other("a thousand files were put aside within a second"));
    };
    match fs::rename(dir.join(NAME), free) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    const BOUNDS: Bounds = Bounds { bytes_max: 1 << 20, keep: Duration::from_secs(86_400) };

    #[test]
    fn files_begin_with_the_header_and_are_put_aside_by_day_and_by_size() {
        let dir = tempfile::tempdir().unwrap();
        let now = Wall::now();
        let mut log = PerformanceLog::new(dir.path());
        log.append(now, "one\n", &BOUNDS).unwrap();
        // Another process goes on where this one stopped, and ends what it left half.
        OpenOptions::new().append(true).open(dir.path().join(NAME)).unwrap().write_all(b"cut").unwrap();
        let mut log = PerformanceLog::new(dir.path());
        log.append(now, "two\n", &BOUNDS).unwrap();
        let header = figures::header();
        assert_eq!(files(dir.path()), [(NAME.to_string(), format!("{header}one\ncut\ntwo\n"))]);
        let small = Bounds { bytes_max: header.len() as u64 + 15, ..BOUNDS };
        log.append(now, "three\n", &small).unwrap();
        log.append(Wall(now.0 + DAY_US), "four\n", &BOUNDS).unwrap();
        let files = files(dir.path());
        assert_eq!(files.len(), 3);
        assert_eq!(files[2], (NAME.to_string(), format!("{header}four\n")));
        assert!(files.iter().all(|(name, text)| name.starts_with("performance") && text.starts_with(&header)));
    }

    #[test]
    fn a_file_with_other_columns_is_put_aside_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "timestamp,other\n1,2\n").unwrap();
        fs::write(dir.path().join("extended.log"), "not ours").unwrap();
        let mut log = PerformanceLog::new(dir.path());
        log.append(Wall::now(), "one\n", &BOUNDS).unwrap();
        assert_eq!(files(dir.path()).len(), 3);
        log.forget(Duration::from_secs(3_600)).unwrap();
        assert_eq!(files(dir.path()).len(), 3, "young ones stay");
        log.forget(Duration::ZERO).unwrap();
        let left: Vec<String> = files(dir.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["extended.log", NAME]);
    }
}
