//! A slave whose log holds a day that its master has not: how fast it catches up, and what its clients notice.

use super::live;
use super::live::{Load, Quantiles, cpu};
use crate::harness::wait_until;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tidegate::log;
use tidegate::log::{Log, LogConfig};

/// How long clients are counted at a time.
const WINDOW: Duration = Duration::from_secs(2);
/// Windows before the slave catches up, and as many after.
const CALM_WINDOWS: usize = 6;
/// With so few records on their way, there is nothing but what comes from the clients now.
const SETTLED_RECORDS: u64 = 2_000;
/// How long catching up may take.
const CATCH_UP_MAX: Duration = Duration::from_secs(500);

/// With so many records. The log is written by what writes it on a node, while the slave's process does not run; then the slave serves
/// clients, first with its way to the master shut, then while it catches up, then with nothing left to ship.
pub fn catch_up(records: usize) {
    let (cluster, gate) = live::start();
    cluster.wait_for_records();
    cluster.slaves[0].stop();
    let began = Instant::now();
    let bytes = absent_day(&cluster.slaves[0].layout.dir, records);
    println!(
        "catch-up: {records} records in {:.1} GB of log, made in {:.0} s",
        bytes as f64 / 1e9,
        began.elapsed().as_secs_f64()
    );
    gate.shut(true);
    let slave = &cluster.slaves[0];
    slave.start();
    let load = Load::start(slave.layout.proxy, cluster.url("/bytes/100"));
    // Its caches fill, and the pages that its first exchanges touch.
    thread::sleep(WINDOW);
    let mut failures = load.take().failures;
    let mut window = |kind: &mut Vec<Quantiles>| {
        thread::sleep(WINDOW);
        let taken = load.take();
        failures.extend(taken.failures);
        kind.push(Quantiles::of(taken.micros));
    };
    let acknowledged = || slave.status().map_or(0, |status| status.records_acknowledged);
    let (mut calm, mut catching) = (Vec::new(), Vec::new());
    (0..CALM_WINDOWS).for_each(|_| window(&mut calm));
    let (slave_before, master_before, before) = (cpu(slave), cpu(&cluster.master), acknowledged());
    gate.shut(false);
    let opened = Instant::now();
    wait_until("the first records of the day at the master", || acknowledged() > before);
    let (waited, began, first) = (opened.elapsed(), Instant::now(), acknowledged());
    drop(load.take());
    while acknowledged() < records as u64 {
        assert!(began.elapsed() < CATCH_UP_MAX, "{} of {records} records after {CATCH_UP_MAX:?}", acknowledged());
        window(&mut catching);
    }
    let (took, last) = (began.elapsed().as_secs_f64(), acknowledged());
    let per_record = 1e6 / (last - before) as f64;
    println!(
        "catch-up: begun {:.1} s after the master could be reached; {} records in {took:.1} s: {:.0} records/s; CPU for each: slave {:.1} us \
         (its clients' exchanges included), master {:.1} us",
        waited.as_secs_f64(),
        last - first,
        (last - first) as f64 / took,
        (cpu(slave) - slave_before) * per_record,
        (cpu(&cluster.master) - master_before) * per_record
    );
    wait_until("nothing left to ship", || {
        slave.status().is_some_and(|status| status.records_written - status.records_acknowledged < SETTLED_RECORDS)
    });
    drop(load.take());
    (0..CALM_WINDOWS).for_each(|_| window(&mut calm));
    let (without, with) = (told("without catching up", &calm), told("while catching up", &catching));
    println!("catch-up: p99 of requests rises by {:+} us (median of windows)", with as i64 - without as i64);
    println!("catch-up: failed: {} {}", failures.len(), failures.first().cloned().unwrap_or_default());
}

/// Prints what clients met in these windows, and answers the median of their p99.
fn told(when: &str, windows: &[Quantiles]) -> u64 {
    let median = |of: fn(&Quantiles) -> u64| {
        let mut all: Vec<u64> = windows.iter().map(of).collect();
        all.sort_unstable();
        (all.get(all.len() / 2).copied().unwrap_or_default(), all.last().copied().unwrap_or_default())
    };
    let answers: usize = windows.iter().map(|window| window.count).sum();
    let ((p50, _), (p99, p99_worst), (_, worst)) = (median(|w| w.p50), median(|w| w.p99), median(|w| w.max));
    println!(
        "catch-up: {when}: {} windows, {answers} answers, us: p50 {p50}, p99 {p99} (worst window {p99_worst}), max {worst}",
        windows.len()
    );
    p99
}

/// Writes so many records into the log of the node in `dir`, whose process does not run; answers the bytes of lines they are.
fn absent_day(dir: &Path, records: usize) -> u64 {
    let (state_dir, log_dir) = (dir.join("state"), dir.join("log"));
    let config = LogConfig {
        epoch: log::node_id(&state_dir).expect("the node's id"),
        state_dir,
        log_dir: log_dir.clone(),
        node: "slave-1".to_string(),
        cores: 1,
        file_bytes_max: 1 << 30,
        sync_ms: 200,
        count_when_full: false,
        keep_days: 30,
    };
    let (log, mut desks) = Log::start(config).expect("a log");
    let (mut desk, progress) = (desks.remove(0), log.progress());
    let written_before = progress.borrow().written;
    (0..records).for_each(|number| super::record(&mut desk, number as u64));
    super::wait_for("all records durable", || progress.borrow().durable >= written_before + records as u64);
    // Rotated files are compressed before anything is measured.
    super::wait_for("rotated files compressed", || !files(&log_dir).iter().any(|name| is_rotated(name)));
    let bytes = progress.borrow().written.saturating_sub(written_before) * line_bytes(&log_dir);
    log.stop();
    bytes
}

fn is_rotated(name: &str) -> bool {
    name.strip_prefix("extended.log.").is_some_and(|seq| seq.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Bytes of the last line, which is as long as the others.
fn line_bytes(log_dir: &Path) -> u64 {
    let text = fs::read(log_dir.join("extended.log")).expect("a log");
    text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().map_or(0, |line| line.len() as u64 + 1)
}

fn files(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).expect("a folder").flatten();
    files.filter_map(|file| file.file_name().into_string().ok()).collect()
}
