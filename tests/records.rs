//! Records from a core's desk to extended.log and on to a reader: through crashes, rotation, damage and full disks.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use tidegate::log::Log;
use tidegate::log::LogConfig;
use tidegate::log::LogReader;
use tidegate::log::OpenRecord;
use tidegate::log::RecordDesk;
use tidegate::log::SpoolSize;
use tidegate::log::audit::audit;
use tidegate::log::node_id;
use tidegate::record::By;
use tidegate::record::Draft;
use tidegate::record::Ended;
use tidegate::record::Ending;
use tidegate::record::Epoch;
use tidegate::record::Phase;
use tidegate::record::Record;
use tidegate::record::audit::AuditQuestion;
use tidegate::record::line;

const TINY: SpoolSize = SpoolSize { small_slots: 8, small_bytes: 1024, large_slots: 2, large_bytes: 32768 };

fn config(dir: &Path, cores: usize) -> LogConfig {
    LogConfig {
        state_dir: dir.join("state"),
        log_dir: dir.join("log"),
        node: "edge-1".to_string(),
        epoch: Epoch([7; 16]),
        cores,
        file_bytes_max: 1 << 30,
        sync_ms: 200,
        count_when_full: false,
        keep_days: 30,
    }
}

/// A draft whose client_id tells it from all others.
fn draft(id: u64) -> Draft<'static> {
    Draft {
        client_id: id,
        request_id: 1,
        method: b"GET",
        url: b"http://a.test/",
        request_host: "a.test",
        ..Draft::default()
    }
}

fn done(status: u16) -> Ended {
    Ended { status, download: 10, ended_us: 1_700_000_000_000_000, ending: Ending::COMPLETE, ..Ended::default() }
}

fn running() -> Ended {
    Ended { ended_us: 1_700_000_000_000_000, ending: Ending::running(Phase::Data), ..Ended::default() }
}

fn within<T>(seconds: u64, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every record in all files, in order of the files; every line must be whole.
fn logged(log_dir: &Path) -> Vec<Record> {
    let mut names: Vec<_> = fs::read_dir(log_dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let end_of = |path: &Path| path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_string();
    // Not a chain, not what is being packed, and not a packed file whose plain one is still there.
    names.retain(|path| {
        let twice = end_of(path) == "zst" && path.with_extension("").exists();
        !["chain", "packing"].contains(&end_of(path).as_str()) && !twice
    });
    names.sort_by_key(|path| (path.extension().is_some_and(|end| end == "log"), path.clone()));
    let mut records = Vec::new();
    for path in names {
        let mut text = fs::read(&path).unwrap();
        if end_of(&path) == "zst" {
            text = zstd::decode_all(&text[..]).unwrap();
        }
        assert!(text.is_empty() || text.ends_with(b"\n"));
        let lines = text.split(|byte| *byte == b'\n').filter(|text| !text.is_empty() && !line::is_header(text));
        records.extend(lines.map(|text| line::parse(text).unwrap()));
    }
    records
}

fn assert_seqs_have_no_gap(records: &[Record]) {
    let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=records.len() as u64).collect::<Vec<_>>());
}

/// The chain covers every line, and each is what was written.
fn assert_proved(log_dir: &Path, records: usize) {
    let proof = audit(log_dir, &AuditQuestion::default()).unwrap();
    let counts = (proof.records, proof.not_yet_sealed, proof.files_unsealed);
    assert_eq!((counts, proof.findings.as_slice()), ((records as u64, 0, 0), [].as_slice()));
}

/// All that is durable, read in small batches and acknowledged.
fn read_all(reader: &mut LogReader) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let batch = reader.next_batch(3, 1 << 20).unwrap();
        if batch.is_empty() {
            return all;
        }
        reader.acknowledge(batch.last()).unwrap();
        all.extend(batch.records().unwrap().iter().map(Record::owned));
    }
}

fn wait_durable(log: &Log, seq: u64) {
    within(10, "records to be durable", || (log.progress().borrow().durable >= seq).then_some(()));
}

#[test]
fn what_closes_is_logged_in_sequence_and_a_second_start_goes_on_counting() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3u64 {
        let (log, mut desks) = Log::start(config(dir.path(), 2)).unwrap();
        for id in 0..100 {
            let open = desks[(id % 2) as usize].open(&draft(run * 100 + id), &running()).unwrap();
            open.update(&running());
            open.close(&done(200));
        }
        log.stop();
        let records = logged(&dir.path().join("log"));
        assert_seqs_have_no_gap(&records);
        assert_eq!(records.len() as u64, (run + 1) * 100);
        let ids: BTreeSet<&str> = records.iter().map(|record| record.record_id.as_str()).collect();
        assert_eq!(ids.len(), records.len(), "record ids are unique");
    }
}

#[test]
fn a_second_node_on_the_same_state_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _log = Log::start_sized(config(dir.path(), 1), TINY).unwrap();
    let refused = Log::start_sized(config(dir.path(), 1), TINY).map(|_| ()).unwrap_err();
    assert!(refused.0.contains("another Tidegate"), "{refused}");
}

#[test]
fn node_id_is_made_once_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let made = node_id(dir.path()).unwrap();
    assert_eq!(node_id(dir.path()).unwrap(), made);
    fs::write(dir.path().join("node-id"), "zz").unwrap();
    assert!(node_id(dir.path()).is_err());
}

/// What a process is killed with: the state directory and log as they are at one moment, seen by a successor. A copy during
/// which the writer appended is none of one moment, and is made again.
fn copy_of(from: &Path) -> tempfile::TempDir {
    loop {
        let to = tempfile::tempdir().unwrap();
        for part in ["log", "state"] {
            assert!(Command::new("cp").arg("-a").arg(from.join(part)).arg(to.path()).status().unwrap().success());
        }
        if files_of(&to.path().join("log")) == files_of(&from.join("log")) {
            return to;
        }
    }
}

fn files_of(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| (name.clone().into(), fs::read(dir.join(name)).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    /// Any mixture of opens, updates, closes and pauses, cut off at its end as a kill would: every record that was opened is
    /// in the log once, those that were closed with their last numbers, the others with `K`.
    #[test]
    fn a_crash_at_any_point_loses_and_doubles_nothing(
        steps in proptest::collection::vec((0u8..5, any::<proptest::sample::Index>()), 1..60),
        torn in 0usize..400,
        cores_after in 1usize..4,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (log, mut desks) = Log::start_sized(config(dir.path(), 2), TINY).unwrap();
        let mut open: Vec<(u64, OpenRecord)> = Vec::new();
        let mut expected: BTreeMap<u64, u16> = BTreeMap::new();
        for (id, (step, pick)) in steps.into_iter().enumerate() {
            let id = id as u64 + 1;
            match step {
                0 | 1 => if let Ok(record) = desks[(id % 2) as usize].open(&draft(id), &running()) {
                    expected.insert(id, 0);
                    open.push((id, record));
                },
                2 if !open.is_empty() => {
                    let (id, record) = &open[pick.index(open.len())];
                    record.update(&Ended { status: 100, ..running() });
                    expected.insert(*id, 100);
                }
                3 if !open.is_empty() => {
                    let (id, record) = open.swap_remove(pick.index(open.len()));
                    record.close(&done(200));
                    expected.insert(id, 200);
                }
                4 => std::thread::sleep(Duration::from_millis(2)),
                _ => {}
            }
        }
        let after = copy_of(dir.path());
        let unclosed: BTreeSet<u64> = open.iter().map(|(id, _)| *id).collect();
        drop(open);
        log.stop();
        // A write that was cut short: only lines whose slots are still held may be torn. (The copy may have caught the writer
        // before it gave slots back, so tearing more would be a fault that a kill cannot make.)
        let path = after.path().join("log/extended.log");
        let text = fs::read(&path).unwrap();
        fs::write(&path, [&text[..], &vec![b'"'; torn % 50]].concat()).unwrap();
        let (log, _desks) = Log::start_sized(config(after.path(), cores_after), TINY).unwrap();
        log.stop();
        let records = logged(&after.path().join("log"));
        assert_seqs_have_no_gap(&records);
        let found: BTreeMap<u64, u16> = records.iter().map(|record| (record.client_id, record.status)).collect();
        prop_assert_eq!(records.len(), found.len(), "a record twice");
        prop_assert_eq!(&found, &expected);
        for record in &records {
            let killed = record.ending.starts_with('K');
            prop_assert_eq!(killed, unclosed.contains(&record.client_id), "{:?}", record);
        }
    }
}

/// Not a test of its own: the process that `kill_minus_nine` kills. It opens a record, tells its number (as a client that has its
/// answer would), closes it.
#[test]
fn writer_process_for_kill_minus_nine() {
    let Ok(dir) = std::env::var("TIDEGATE_TEST_RECORDS_DIR") else { return };
    let mut config = config(Path::new(&dir), 1);
    config.file_bytes_max = 100_000;
    let (_log, mut desks) = Log::start(config).unwrap();
    let base: u64 = std::env::var("TIDEGATE_TEST_RECORDS_BASE").unwrap().parse().unwrap();
    for id in base.. {
        let open = desks[0].open(&draft(id), &running()).unwrap();
        println!("told {id}");
        open.close(&done(200));
        if id % 64 == 0 {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

#[test]
fn kill_minus_nine_twelve_times_and_every_told_record_is_in_the_log_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = BTreeSet::new();
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer_process_for_kill_minus_nine", "--exact", "--nocapture"])
            .env("TIDEGATE_TEST_RECORDS_DIR", dir.path())
            .env("TIDEGATE_TEST_RECORDS_BASE", (round * 1_000_000 + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = 500 + round * 97;
        let mut seen = 0;
        while let Some(Ok(text)) = lines.next() {
            let Some(id) = text.rsplit("told ").next().and_then(|id| id.parse::<u64>().ok()) else { continue };
            told.insert(id);
            seen += 1;
            if seen == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= enough, "the child ended by itself in round {round}");
    }
    let (log, _desks) = Log::start(config(dir.path(), 1)).unwrap();
    log.stop();
    let records = logged(&dir.path().join("log"));
    assert_seqs_have_no_gap(&records);
    let found: BTreeSet<u64> = records.iter().map(|record| record.client_id).collect();
    assert_eq!(found.len(), records.len(), "a record twice");
    let lost: Vec<&u64> = told.difference(&found).collect();
    assert!(lost.is_empty(), "told to a client and not in the log: {lost:?}");
    assert_proved(&dir.path().join("log"), records.len());
}

#[test]
fn a_reader_goes_across_rotated_files_and_takes_up_at_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), 1);
    config.file_bytes_max = 4000;
    let mut read = Vec::new();
    for run in 0..4u64 {
        let (log, mut desks) = Log::start_sized(config.clone(), TINY).unwrap();
        let mut reader = log.reader().unwrap();
        for id in 0..20 {
            within(5, "a free slot", || desks[0].open(&draft(run * 20 + id), &running()).ok()).close(&done(200));
            std::thread::sleep(Duration::from_millis(2));
        }
        wait_durable(&log, (run + 1) * 20);
        if run % 2 == 0 {
            read.extend(read_all(&mut reader));
            assert_eq!(log.acknowledged(), (run + 1) * 20);
        }
        log.stop();
    }
    assert!(fs::read_dir(dir.path().join("log")).unwrap().count() > 3, "there are rotated files");
    let (log, _desks) = Log::start_sized(config, TINY).unwrap();
    read.extend(read_all(&mut log.reader().unwrap()));
    assert_seqs_have_no_gap(&read);
    assert_eq!(read.len(), 80);
    // The master lost its store, or has more than the cursor says: it tells, and the reader follows.
    let mut reader = log.reader().unwrap();
    for after in [0, 37, 79, 80, 41] {
        reader.resume_after(after).unwrap();
        let seqs: Vec<u64> = read_all(&mut reader).iter().map(|record| record.seq).collect();
        assert_eq!(seqs, (after + 1..=80).collect::<Vec<_>>());
    }
    // A lost cursor costs a search, nothing else.
    fs::write(dir.path().join("state/cursor"), b"rubbish").unwrap();
    let mut reader = log.reader().unwrap();
    reader.resume_after(70).unwrap();
    assert_eq!(read_all(&mut reader).len(), 10);
}

#[test]
fn a_damaged_line_is_shipped_as_a_marker_and_removed_lines_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log/extended.log");
    let (log, mut desks) = Log::start_sized(config(dir.path(), 1), TINY).unwrap();
    for id in 1..=6 {
        desks[0].open(&draft(id), &running()).unwrap().close(&done(200));
    }
    log.stop();
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    lines[2] = lines[2].replace("\"GET\"", "\"G\"ET\"");
    lines[4] = "not a line \u{1} at all".to_string();
    lines.remove(5);
    lines.insert(1, String::new());
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let (log, mut desks) = Log::start_sized(config(dir.path(), 1), TINY).unwrap();
    desks[0].open(&draft(7), &running()).unwrap().close(&done(200));
    wait_durable(&log, 7);
    let records = read_all(&mut log.reader().unwrap());
    let seen: Vec<(u64, &str)> = records.iter().map(|record| (record.seq, record.ending.as_str())).collect();
    // An inserted line has no number, the removed fifth is a gap.
    assert_eq!(seen, [(1, "--"), (2, "I-"), (3, "--"), (4, "I-"), (6, "--"), (7, "--")]);
    assert!(records[3].url.starts_with("not a line \\x01") && records[3].record_id.starts_with("damaged-"));
    assert!(records[1].filtering_reason.contains("could not be read"));
}

/// Wherever the master says that it is, in a file of megabytes with damage here and there: what is handed out is what reading from the
/// beginning hands out.
#[test]
fn a_reader_finds_any_place_of_a_large_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log/extended.log");
    let (log, mut desks) = Log::start(config(dir.path(), 1)).unwrap();
    for id in 1..=6_000 {
        within(5, "a free slot", || desks[0].open(&draft(id), &running()).ok()).close(&done(200));
    }
    wait_durable(&log, 6_000);
    log.stop();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.len() as u64 > 6 * tidegate::limits::LOG_APPROACH_BYTES, "a large file");
    let kept = text.lines().enumerate().filter(|(at, _)| !(3_000..3_010).contains(at));
    let damaged = kept.map(|(at, line)| if at % 97 == 5 { "no record at all" } else { line }.to_string() + "\n");
    fs::write(&path, damaged.collect::<String>()).unwrap();

    let (log, _desks) = Log::start(config(dir.path(), 1)).unwrap();
    let whole: Vec<(u64, String)> =
        read_all(&mut log.reader().unwrap()).into_iter().map(|record| (record.seq, record.ending)).collect();
    assert!(whole.len() > 5_900 && whole.iter().any(|(_, ending)| ending == "I-"));
    let mut reader = log.reader().unwrap();
    for after in (0..6_000).step_by(83).chain([2_999, 3_005, 5_999, 1]) {
        reader.resume_after(after).unwrap();
        let batch = reader.next_batch(10, 1 << 20).unwrap();
        let found: Vec<(u64, String)> =
            batch.records().unwrap().iter().map(|record| (record.seq, record.ending.to_string())).collect();
        let expected: Vec<_> = whole.iter().filter(|(seq, _)| *seq > after).take(10).cloned().collect();
        assert_eq!(found, expected, "after {after}");
    }
}

/// What is still in memory, what only the files have, and what a batch is too small for: whatever a reader is asked for
/// and wherever it starts anew, it hands out every record once and in order.
#[test]
fn shipping_goes_on_between_memory_and_files_without_a_gap_or_a_double() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), 1);
    config.file_bytes_max = 40_000;
    let (log, mut desks) = Log::start(config.clone()).unwrap();
    let mut closed = 0;
    let mut close = |count: u64| {
        for _ in 0..count {
            closed += 1;
            desks[0].open(&draft(closed), &running()).unwrap().close(&done(200));
        }
        wait_durable(&log, closed);
        closed
    };
    let taken = |reader: &mut LogReader, records_max: usize| -> Vec<u64> {
        let batch = reader.next_batch(records_max, 1 << 20).unwrap();
        let records = batch.records().unwrap();
        records.iter().map(|record| record.client_id).collect()
    };
    let mut reader = log.reader().unwrap();
    let mut seen = Vec::new();
    // Into the first chunk with a batch smaller than it, so that its rest comes from the file, then on from memory.
    close(100);
    close(50);
    seen.extend(taken(&mut reader, 30));
    assert_eq!(seen.len(), 30);
    let rest = taken(&mut reader, 1000);
    assert!(rest.len() <= 70, "the file is read up to where memory begins, not {} records", rest.len());
    seen.extend(rest);
    while seen.len() < 150 {
        seen.extend(taken(&mut reader, 1000));
    }
    assert_eq!(seen, (1..=150).collect::<Vec<_>>());
    // An answer that was lost: the store has 120, which lies inside a chunk.
    reader.resume_after(120).unwrap();
    let last = close(200);
    let mut again = Vec::new();
    while again.len() < 230 {
        again.extend(taken(&mut reader, 64));
    }
    assert_eq!(again, (121..=last).collect::<Vec<_>>());
    reader.acknowledge(last).unwrap();
    assert!(taken(&mut reader, 64).is_empty());
    // A master that lost everything: memory has forgotten what was acknowledged, the files have not.
    reader.resume_after(0).unwrap();
    let all: Vec<u64> = read_all(&mut reader).iter().map(|record| record.seq).collect();
    assert_eq!(all, (1..=last).collect::<Vec<_>>());
    // And a reader that starts at the cursor finds its place in the files.
    let last = close(10);
    let records = read_all(&mut log.reader().unwrap());
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), (last - 9..=last).collect::<Vec<_>>());
}

/// A file system of so few bytes that it is soon full; unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn of(bytes: u32) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_stops_service_with_words_and_loses_nothing_when_it_has_space_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::of(64 * 1024) else {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 40 * 1024]).unwrap();
    let mut config = config(dir.path(), 1);
    config.log_dir = disk.0.path().join("log");
    let (log, mut desks) = Log::start_sized(config.clone(), TINY).unwrap();
    let mut next = 0u64;
    let serve = |desks: &mut Vec<RecordDesk>, next: &mut u64| match desks[0].open(&draft(*next + 1), &running()) {
        Ok(open) => {
            open.close(&done(200));
            *next += 1;
            true
        }
        Err(_) => false,
    };
    let refused_in_a_row = |desks: &mut Vec<RecordDesk>, next: &mut u64| {
        let mut refused = 0;
        within(30, "the spool to be full", || {
            refused = if serve(desks, next) { 0 } else { refused + 1 };
            (refused > 60).then_some(())
        });
    };
    refused_in_a_row(&mut desks, &mut next);
    let trouble =
        within(5, "words about it", || Some(log.progress().borrow().trouble.clone()).filter(|words| !words.is_empty()));
    assert!(trouble.contains("No space left") && trouble.contains("free"), "{trouble}");
    fs::remove_file(&ballast).unwrap();
    within(5, "service again", || serve(&mut desks, &mut next).then_some(()));
    within(5, "the trouble to be over", || log.progress().borrow().trouble.is_empty().then_some(()));
    // Full again, and now the node is stopped (as a kill would) and started: the torn line and the held records come right.
    refused_in_a_row(&mut desks, &mut next);
    log.stop();
    drop(desks);
    for _ in 0..3 {
        let (log, mut desks) = Log::start_sized(config.clone(), TINY).unwrap();
        refused_in_a_row(&mut desks, &mut next);
        assert!(!log.progress().borrow().trouble.is_empty(), "it runs, and says that the disk is full");
        log.stop();
    }
    // Room comes while it runs: what waited follows, behind whatever was written of it in part.
    let (log, mut desks) = Log::start_sized(config.clone(), TINY).unwrap();
    assert!(serve(&mut desks, &mut next), "there is a slot");
    within(5, "words about it", || (!log.progress().borrow().trouble.is_empty()).then_some(()));
    let roomy = Command::new("mount").args(["-o", "remount,size=1m"]).arg(disk.0.path()).status();
    assert!(roomy.unwrap().success());
    within(10, "all that waited", || (log.progress().borrow().durable >= next).then_some(()));
    log.stop();
    let records = logged(&config.log_dir);
    assert_seqs_have_no_gap(&records);
    let mut found: Vec<u64> = records.iter().map(|record| record.client_id).collect();
    found.sort(); // what was recovered is in order of time, which here is the same for all
    assert_eq!(found, (1..=next).collect::<Vec<_>>(), "each once");
    assert_proved(&config.log_dir, records.len());
    assert!(records.iter().all(|record| record.ending != Ending::new(By::Killed, Phase::Data).to_string()));
}

#[test]
fn a_spool_of_another_version_is_set_aside_and_the_node_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _desks) = Log::start_sized(config(dir.path(), 1), TINY).unwrap();
    log.stop();
    let path = dir.path().join("state/spool/core-0");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    fs::write(&path, bytes).unwrap();
    let (log, _desks) = Log::start_sized(config(dir.path(), 1), TINY).unwrap();
    log.stop();
    let names: Vec<String> = fs::read_dir(dir.path().join("state/spool"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().to_string())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("core-0.unreadable-")), "{names:?}");
}

/// One process after another stands aside: its writer is gone, its cores go on. Whoever has the log writes what they close, once.
#[test]
fn what_a_core_closes_after_its_log_stood_aside_is_written_by_the_successors() {
    let dir = tempfile::tempdir().unwrap();
    let spools = || fs::read_dir(dir.path().join("state/spool")).unwrap().count() - 1; // beside the lock
    let mut former = Vec::new();
    for run in 0..3u64 {
        let (log, mut desks) = Log::start(config(dir.path(), 1)).unwrap();
        let open: Vec<OpenRecord> = (0..4).map(|id| desks[0].open(&draft(run * 4 + id), &running()).unwrap()).collect();
        former.push((desks, open.into_iter()));
        // Every former core closes one under this log, one after it, and opens one more.
        for (_, open) in &mut former {
            open.next().unwrap().close(&done(200));
        }
        wait_durable(&log, run * (run + 1) / 2 + run + 1);
        log.stop();
    }
    let (log, _desks) = Log::start(config(dir.path(), 1)).unwrap();
    assert_eq!(spools(), 4, "three are adopted");
    assert_eq!(logged(&dir.path().join("log")).len(), 6);
    let late = former[0].0[0].open(&draft(100), &running()).unwrap();
    for (_, open) in &mut former {
        open.by_ref().for_each(|open| open.close(&done(200)));
    }
    wait_durable(&log, 12);
    drop(late); // closed by its drop
    wait_durable(&log, 13);
    drop(former);
    within(10, "the files of processes that are gone to be removed", || (spools() == 1).then_some(()));
    log.stop();
    let records = logged(&dir.path().join("log"));
    assert_seqs_have_no_gap(&records);
    let ids: BTreeSet<u64> = records.iter().map(|record| record.client_id).collect();
    assert_eq!(ids, (0..12).chain([100]).collect(), "each once");
    assert_eq!(records.len(), 13);
}

/// Each sync seals what was written since the last in one block of the chain, so blocks tell how often it was synced.
#[test]
fn log_sync_chooses_how_much_is_written_between_two_syncs_and_changes_live() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut desks) = Log::start(LogConfig { sync_ms: 0, ..config(dir.path(), 1) }).unwrap();
    let mut written = 0;
    let mut write_twenty = || {
        for _ in 0..20 {
            written += 1;
            desks[0].open(&draft(written), &running()).unwrap().close(&done(200));
            within(10, "a record to be written", || (log.progress().borrow().written >= written).then_some(()));
        }
        wait_durable(&log, written);
        let chain = dir.path().join(format!("log/extended.log.{:020}.chain", 1));
        let bytes = fs::metadata(chain).unwrap().len() - 64 - written * 4;
        bytes / 80
    };
    assert_eq!(write_twenty(), 20, "every write is synced");
    log.limits().set(1 << 30, 1_000, 30);
    assert!(write_twenty() < 40, "many writes, few syncs");
    log.limits().set(1 << 30, 0, 30);
    let before = write_twenty();
    assert_eq!(write_twenty(), before + 20, "every write is synced again");
    log.stop();
}
