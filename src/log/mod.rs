//! From a core's memory to extended.log and on to the master, losing nothing that a client was told.
//!
//! | module | what it is |
//! |---|---|
//! | [`desk`] | the core's side of the record spool: open, update, close |
//! | [`in_flight`] | which exchanges are under way |
//! | [`slots`] | the spool's file: header and slots in mapped memory |
//! | [`body`] | what stands in a slot, as bytes |
//! | `ring` | slot numbers between a core and the writer |
//! | `writer` | the thread that appends closed records, in sequence |
//! | `extended` | extended.log as it is written: append, rotate, sync, repair |
//! | `files` | its files: names, listing, reading |
//! | `packed` | a rotated file, compressed, that can be read from any place |
//! | `upkeep` | packs rotated files, and removes those that may go |
//! | `chain` | what proves that nobody changed extended.log |
//! | [`audit`] | holding extended.log against its chain |
//! | `recent` | the newest lines, still in memory for shipping |
//! | `recover` | what a killed predecessor left in its spools |
//! | `left_over` | the spools of predecessors that stood aside and still live |
//! | `unrecorded` | how many exchanges went on without a record |
//! | [`reader`] | reading extended.log for shipping, from the cursor on |
//! | `cursor` | up to where the master has the records |
#![forbid(unsafe_code)]

pub mod audit;
pub mod body;
mod chain;
mod cursor;
pub mod desk;
mod extended;
mod files;
pub mod in_flight;
mod left_over;
mod packed;
pub mod reader;
mod recent;
mod recover;
mod ring;
pub mod slots;
mod unrecorded;
mod upkeep;
mod writer;

pub use desk::OpenRecord;
pub use desk::RecordDesk;
pub use desk::SpoolFull;
pub use reader::LogReader;
pub use slots::SpoolSize;

use crate::base::clock::Mono;
use crate::base::durable;
use crate::limits;
use crate::log::cursor::Cursor;
use crate::log::extended::ExtendedLog;
use crate::log::in_flight::InFlight;
use crate::log::recent::Recent;
use crate::log::recover::Standing;
use crate::log::slots::Spool;
use crate::log::upkeep::Upkeep;
use crate::log::writer::Batch;
use crate::log::writer::Control;
use crate::log::writer::Writer;
use crate::record::Epoch;
use crate::record::line::LineWriter;
use crate::sys::affinity;
use std::fmt;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// What the log needs to know.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// STATE_DIR: `spool/` and `cursor` stand there.
    pub state_dir: PathBuf,
    /// LOG_DIR: `extended.log` and its rotated predecessors stand there.
    pub log_dir: PathBuf,
    /// NODE_NAME, for the column `node`.
    pub node: String,
    /// The node's epoch, from [`node_id`].
    pub epoch: Epoch,
    /// How many cores write records.
    pub cores: usize,
    /// LOG_SIZE_LIMIT: a file larger than this is rotated.
    pub file_bytes_max: u64,
    /// LOG_SYNC: extended.log is synced so often, in milliseconds; 0: after every write.
    pub sync_ms: u64,
    /// LOG_FULL=count: exchanges that the log has no room for go on unrecorded and are counted. Otherwise they are refused.
    pub count_when_full: bool,
    /// KEEP_DATA: how many days a rotated file is kept at least.
    pub keep_days: u32,
}

/// How far the log is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Highest sequence number written to extended.log.
    pub written: u64,
    /// Highest sequence number that is also on the disk: a reader may ship up to here.
    pub durable: u64,
    /// What is wrong and what to do about it (a full disk); empty if nothing.
    pub trouble: String,
}

/// Why the log cannot start: what was being done, to what, what happened, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError(pub String);

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogError {}

/// The running log: a thread that takes records from the cores' spools and appends them to extended.log.
pub struct Log {
    config: LogConfig,
    progress: watch::Receiver<Progress>,
    control: Arc<Control>,
    recent: Arc<Recent>,
    in_flight: InFlight,
    writer: Option<JoinHandle<()>>,
    upkeep: Option<JoinHandle<()>>,
    /// The processes that stood aside and still live.
    owners: Arc<Mutex<Vec<u32>>>,
    /// Locked as long as this log lives: no second node may use the spool.
    _lock: File,
}

impl Log {
    /// Recovers what a predecessor left in the spool, repairs extended.log's tail and starts the writer. Answers a desk
    /// for each core.
    pub fn start(config: LogConfig) -> Result<(Log, Vec<RecordDesk>), LogError> {
        Log::start_sized(config, SpoolSize::default())
    }

    /// [`Log::start`] with spools of another size: for tests that want to see them full.
    pub fn start_sized(config: LogConfig, size: SpoolSize) -> Result<(Log, Vec<RecordDesk>), LogError> {
        let spool_dir = config.state_dir.join("spool");
        fs::create_dir_all(&config.log_dir).map_err(|error| failed("making", &config.log_dir, error))?;
        make_private(&spool_dir).map_err(|error| failed("making", &spool_dir, error))?;
        let lock = lock(&spool_dir)?;
        let (mut log, last) = ExtendedLog::open(&config.log_dir, config.file_bytes_max)
            .map_err(|error| failed("opening extended.log in", &config.log_dir, error))?;
        let mut line = LineWriter::new(&config.node, jiff::tz::TimeZone::system());
        let acknowledged = Cursor::load(&config.state_dir.join(CURSOR), config.epoch).acknowledged;
        let kernel_boot = kernel_boot();
        let standing = Standing { last, acknowledged, kernel_boot };
        let (seq, left_over) = recover::recover(&spool_dir, &config.log_dir, &mut log, &mut line, standing)?;
        left_over::bound(&left_over);
        let owners = Arc::new(Mutex::new(left_over::owners(&left_over)));
        let boot = boot_tag().map_err(|error| failed("reading random bytes from", Path::new(RANDOM), error))?;
        let (mut desks, mut cores) = (Vec::new(), Vec::new());
        for core in 0..config.cores {
            let path = spool_dir.join(format!("core-{core}"));
            let spool = Spool::create(&path, size, &boot, kernel_boot, seq)
                .map_err(|error| failed("making the record spool", &path, error))?;
            let (desk, shared) = RecordDesk::new(spool, core, config.cores);
            shared.count_when_full.store(config.count_when_full, Ordering::Relaxed);
            desks.push(desk);
            cores.push(shared);
        }
        let control = Arc::new(Control::default());
        control.file_bytes_max.store(config.file_bytes_max, Ordering::Relaxed);
        control.sync_ms.store(config.sync_ms, Ordering::Relaxed);
        control.keep_days.store(u64::from(config.keep_days), Ordering::Relaxed);
        let (sender, progress) = watch::channel(Progress { written: seq, durable: seq, trouble: String::new() });
        let recent = Arc::new(Recent::default());
        let in_flight = InFlight::new(&cores);
        let writer = Writer {
            cores,
            left_over,
            owners: owners.clone(),
            looked_left_over: Mono::now(),
            log,
            line,
            seq,
            log_dir: config.log_dir.clone(),
            control: control.clone(),
            progress: sender,
            recent: recent.clone(),
            batch: Batch::after(seq),
        };
        let writer = std::thread::Builder::new()
            .name("log-writer".to_string())
            .spawn(|| {
                affinity::go_behind_data_cores();
                writer.run();
            })
            .map_err(|error| failed("starting the writer of", &config.log_dir, error))?;
        let upkeep = Upkeep::new(&config.log_dir, control.clone());
        let upkeep = std::thread::Builder::new()
            .name("log-upkeep".to_string())
            .spawn(|| {
                affinity::go_last();
                upkeep.run();
            })
            .map_err(|error| failed("starting the upkeep of", &config.log_dir, error))?;
        let (writer, upkeep) = (Some(writer), Some(upkeep));
        Ok((Log { config, progress, control, recent, in_flight, writer, upkeep, owners, _lock: lock }, desks))
    }

    /// Changes LOG_SIZE_LIMIT, LOG_SYNC, LOG_FULL and KEEP_DATA while the log runs.
    pub fn limits(&self) -> LogLimits {
        LogLimits { control: self.control.clone(), in_flight: self.in_flight.clone() }
    }

    /// Which exchanges are under way, from any thread.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }

    /// How often the writer has turned, from any thread.
    pub fn turns(&self) -> LogTurns {
        LogTurns(self.control.clone())
    }

    /// Tells the processes that stood aside for this one, and still finish what was under way, to end: the node does.
    pub fn dismiss_left_over(&self) {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        owners.into_iter().for_each(left_over::dismiss);
    }

    /// Waits until they have ended and their records are written, at most `within`.
    pub async fn wait_for_left_over(&self, within: Duration) {
        let gone = async {
            while !self.owners.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                tokio::time::sleep(Duration::from_millis(limits::LEFT_OVER_LOOK_MS)).await;
            }
        };
        let _ = tokio::time::timeout(within, gone).await;
    }

    /// A way to have another file begun.
    pub fn rotation(&self) -> LogRotation {
        LogRotation(self.control.clone())
    }

    /// How far the log is, and a way to wait for more.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// A reader for shipping, at the cursor. There is one cursor, so let there be one reader.
    pub fn reader(&self) -> Result<LogReader, LogError> {
        let cursor = self.config.state_dir.join(CURSOR);
        LogReader::open(&self.config, &cursor, self.progress.clone(), self.control.clone(), self.recent.clone())
    }

    /// The highest sequence number that was acknowledged since the log was started.
    pub fn acknowledged(&self) -> u64 {
        self.control.acknowledged.load(Ordering::Acquire)
    }

    /// Writes what the desks have closed, syncs and ends the thread. Call when the cores have ended; what is still open
    /// then is recovered by the next start.
    pub fn stop(self) {
        drop(self);
    }
}

/// A sign of life of the log's writer.
pub struct LogTurns(Arc<Control>);

impl LogTurns {
    /// Grows with every turn.
    pub fn count(&self) -> u64 {
        self.0.turns.load(Ordering::Relaxed)
    }
}

/// A way to have another file of extended.log begun.
pub struct LogRotation(Arc<Control>);

impl LogRotation {
    /// Has the writer begin another file; answers whether it did within the time. If not, it does so once it can write again.
    pub async fn rotate(&self, within: Duration) -> bool {
        let asked = self.0.rotations_asked.fetch_add(1, Ordering::AcqRel) + 1;
        let answered = async {
            while self.0.rotations.load(Ordering::Acquire) < asked {
                tokio::time::sleep(Duration::from_millis(limits::LOG_NAP_MS_MAX)).await;
            }
        };
        tokio::time::timeout(within, answered).await.is_ok()
    }
}

/// The limits of a running log that change live.
pub struct LogLimits {
    control: Arc<Control>,
    in_flight: InFlight,
}

impl LogLimits {
    /// From now on: a file larger than `file_bytes_max` is rotated, what was written synced every `sync_ms` milliseconds, a rotated
    /// file kept at least `keep_days` days.
    pub fn set(&self, file_bytes_max: u64, sync_ms: u64, keep_days: u32) {
        self.control.file_bytes_max.store(file_bytes_max, Ordering::Relaxed);
        self.control.sync_ms.store(sync_ms, Ordering::Relaxed);
        self.control.keep_days.store(u64::from(keep_days), Ordering::Relaxed);
    }

    /// From now on: exchanges that the log has no room for go on unrecorded and are counted; or they are refused.
    pub fn count_when_full(&self, count: bool) {
        self.in_flight.shared().for_each(|shared| shared.count_when_full.store(count, Ordering::Relaxed));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Release);
        for thread in [&self.writer, &self.upkeep].into_iter().flatten() {
            thread.thread().unpark();
        }
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!(
                event = "log-trouble",
                "the writer of extended.log panicked; what it had not written is recovered at the next start"
            );
        }
        if self.upkeep.take().is_some_and(|upkeep| upkeep.join().is_err()) {
            tracing::error!(
                event = "log-trouble",
                "what compresses and removes rotated files panicked; the next start begins anew with them"
            );
        }
    }
}

/// The node's epoch: `STATE_DIR/node-id`, made if absent.
pub fn node_id(state_dir: &Path) -> io::Result<Epoch> {
    let path = state_dir.join("node-id");
    match fs::read_to_string(&path) {
        Ok(text) => Epoch::parse(text.trim()).ok_or_else(|| {
            io::Error::other(format!(
                "{} does not hold 32 hex digits. Restore it from a backup, or remove it: the node then counts its records \
                 in a new epoch",
                path.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(state_dir)?;
            let epoch = Epoch(random()?);
            durable::replace(&path, format!("{epoch}\n").as_bytes(), 0o600)?;
            Ok(epoch)
        }
        Err(error) => Err(error),
    }
}

const CURSOR: &str = "cursor";
const RANDOM: &str = "/dev/urandom";

fn failed(doing: &str, path: &Path, error: io::Error) -> LogError {
    LogError(format!(
        "{doing} {}: {error}. See that the folder exists, belongs to the service's user and has space, then start again.",
        path.display()
    ))
}

fn make_private(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn lock(spool_dir: &Path) -> Result<File, LogError> {
    let path = spool_dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|error| failed("opening", &path, error))?;
    let begun = Mono::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A predecessor may be just ending, or a child it forked may hold its descriptors until it is another program.
            Err(TryLockError::WouldBlock) if Mono::now().micros_since(begun) < limits::SPOOL_LOCK_WAIT_MS * 1_000 => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LogError(format!(
                    "locking {}: another Tidegate uses this STATE_DIR. Stop it, or give this node a STATE_DIR of its own.",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed("locking", &path, error)),
        }
    }
}

/// Sixteen random bytes from the kernel.
fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Ten characters that no other start of any node will draw.
fn boot_tag() -> io::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    Ok(random()?[..10].iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)])).collect())
}

/// The kernel's boot id; zeros if it does not say.
fn kernel_boot() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Epoch::parse(&text.trim().replace('-', "")).map_or([0; 16], |id| id.0)
}
