//! The files of extended.log once they are rotated: compressed, read by all who read them, kept until they may go.

mod harness;

use harness::Cluster;
use harness::client::Client;
use harness::dice::Dice;
use harness::disk::Disk;
use harness::wait_until;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use tidegate::log::Log;
use tidegate::log::LogConfig;
use tidegate::log::LogReader;
use tidegate::log::RecordDesk;
use tidegate::log::audit::audit;
use tidegate::record::Draft;
use tidegate::record::Ended;
use tidegate::record::Ending;
use tidegate::record::Epoch;
use tidegate::record::Record;
use tidegate::record::audit::AuditQuestion;
use tidegate::record::audit::Proof;
use tidegate::report::Question;

fn config(dir: &Path) -> LogConfig {
    LogConfig {
        state_dir: dir.join("state"),
        log_dir: dir.join("log"),
        node: "edge-1".to_string(),
        epoch: Epoch([7; 16]),
        cores: 1,
        file_bytes_max: 150_000,
        sync_ms: 0,
        count_when_full: false,
        keep_days: 30,
    }
}

/// Writes so many records and waits until they are durable.
fn write(log: &Log, desk: &mut RecordDesk, count: u64) {
    let from = log.progress().borrow().written;
    for seq in from + 1..=from + count {
        let url = format!("http://a.test/{seq}");
        let draft = Draft { client_id: seq, request_id: 1, method: b"GET", url: url.as_bytes(), ..Draft::default() };
        let ended =
            Ended { status: 200, ended_us: seq as i64 * 1_000_000, ending: Ending::COMPLETE, ..Ended::default() };
        desk.open(&draft, &ended).unwrap().close(&ended);
        // One file must not take all of them in one write.
        if seq % 100 == 0 {
            wait_until("records to be written", || log.progress().borrow().written >= seq);
        }
    }
    wait_until("records to be durable", || log.progress().borrow().durable >= from + count);
}

/// The rotated files, oldest first.
fn rotated(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let is_rotated = |path: &PathBuf| {
        path.file_name().unwrap().to_str().unwrap().starts_with("extended.log.")
            && !path.to_str().unwrap().ends_with(".chain")
    };
    let mut files: Vec<PathBuf> = names.filter(is_rotated).collect();
    files.sort();
    files
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "zst")
}

fn wait_until_packed(dir: &Path) {
    wait_until("all rotated files to be packed", || rotated(dir).iter().all(|path| is_packed(path)));
    assert!(rotated(dir).len() >= 4, "{:?}", rotated(dir));
}

fn first_of(path: &Path) -> u64 {
    path.file_name().unwrap().to_str().unwrap().split('.').nth(2).unwrap().parse().unwrap()
}

fn proof(dir: &Path) -> Proof {
    audit(&dir.join("log"), &AuditQuestion::default()).unwrap()
}

/// What the reader hands out from where it is, in small batches.
fn read_on(reader: &mut LogReader) -> Vec<Record> {
    let mut all = Vec::new();
    loop {
        let batch = reader.next_batch(70, 1 << 20).unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch.records().unwrap().iter().map(Record::owned));
    }
}

fn seqs(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}

#[test]
fn rotated_files_are_compressed_and_shipping_and_audit_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut desks) = Log::start(config(dir.path())).unwrap();
    write(&log, &mut desks[0], 3_000);
    wait_until_packed(dir.path());
    let packed: u64 = rotated(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(packed < 3_000 * 100, "{packed} bytes of 3000 records");
    log.stop();

    // Nothing is in memory any more.
    let (log, mut desks) = Log::start(config(dir.path())).unwrap();
    let mut reader = log.reader().unwrap();
    assert_eq!(seqs(&read_on(&mut reader)), (1..=3_000).collect::<Vec<_>>());
    let middle = first_of(&rotated(dir.path())[1]) + 50;
    reader.resume_after(middle).unwrap();
    let again = read_on(&mut reader);
    assert_eq!(seqs(&again), (middle + 1..=3_000).collect::<Vec<_>>());
    assert_eq!(again[0].url, format!("http://a.test/{}", middle + 1));
    // The cursor names a place in a packed file: reading goes on there after a restart.
    reader.resume_after(0).unwrap();
    let some = reader.next_batch(middle as usize, 1 << 20).unwrap();
    reader.acknowledge(some.last()).unwrap();
    let acknowledged = some.last();
    drop(reader);
    write(&log, &mut desks[0], 10);
    drop(desks);
    log.stop();
    let (log, _desks) = Log::start(config(dir.path())).unwrap();
    let mut reader = log.reader().unwrap();
    assert_eq!(seqs(&read_on(&mut reader)), (acknowledged + 1..=3_010).collect::<Vec<_>>());
    assert_eq!(log.acknowledged(), 0, "the cursor alone is no word of the master's");
    reader.resume_after(acknowledged).unwrap();
    assert_eq!(log.acknowledged(), acknowledged);
    let proof = proof(dir.path());
    assert_eq!((proof.records, proof.findings.as_slice()), (3_010, [].as_slice()));
}

#[test]
fn a_flipped_bit_in_a_compressed_file_is_named_by_the_audit_and_the_rest_flows_on() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut desks) = Log::start(config(dir.path())).unwrap();
    write(&log, &mut desks[0], 3_000);
    wait_until_packed(dir.path());
    log.stop();
    let files = rotated(dir.path());
    let (first, next) = (first_of(&files[1]), first_of(&files[2]));
    let good = fs::read(&files[1]).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 4;
    fs::write(&files[1], &bad).unwrap();

    let found = proof(dir.path()).findings;
    let name = files[1].file_name().unwrap().to_str().unwrap();
    assert_eq!(
        found.iter().map(|one| (one.file.as_str(), one.first, one.last)).collect::<Vec<_>>(),
        [(name, first, next - 1)]
    );
    assert!(found[0].words.contains("cannot be read") && found[0].words.contains("frame"), "{}", found[0].words);
    let (log, _desks) = Log::start(config(dir.path())).unwrap();
    let read = seqs(&read_on(&mut log.reader().unwrap()));
    assert_eq!(read, (1..first).chain(next..=3_000).collect::<Vec<_>>());
    log.stop();

    // In the table behind the frames: named, and nothing is lost.
    let mut bad = good.clone();
    let end = bad.len() - 30;
    bad[end] ^= 4;
    fs::write(&files[1], &bad).unwrap();
    let found = proof(dir.path());
    assert_eq!((found.records, found.findings.len()), (3_000, 1));
    assert!(found.findings[0].file == name && found.findings[0].words.contains("table"), "{:?}", found.findings);
    // As it was: all is proved again.
    fs::write(&files[1], &good).unwrap();
    assert!(proof(dir.path()).holds());
}

/// So many exchanges with long lines that cannot be compressed to less than half.
fn exchange(cluster: &Cluster, count: u64) {
    let mut dice = Dice(count);
    let mut client = Client::connect(cluster.slaves[0].layout.proxy).unwrap();
    for _ in 0..count {
        let noise: String = (0..100).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
        assert_eq!(client.get(&cluster.url(&format!("/bytes/10?{noise}"))).unwrap().status, 200);
    }
}

#[test]
fn a_nearly_full_disk_costs_the_oldest_stored_files_and_none_that_is_not_stored() {
    let cluster = Cluster::lay_out(1, &[("LOG_SIZE_LIMIT", "1M"), ("CORES", "1")]);
    let slave = &cluster.slaves[0];
    let log_dir = slave.layout.log.parent().unwrap();
    let Some(disk) = Disk::mount(&cluster.dir().join("disk.img"), log_dir, 48) else { return };
    cluster.master.start();
    cluster.apply(&cluster.policy(""));
    slave.start();
    cluster.wait_for_policy();
    let files = || rotated(log_dir.parent().unwrap());
    let firsts = || files().iter().map(|path| first_of(path)).collect::<Vec<_>>();

    exchange(&cluster, 3_000);
    cluster.wait_for_records();
    wait_until("three files to be packed", || {
        let files = files();
        files.len() >= 3 && files.iter().all(|path| is_packed(path))
    });
    let before = firsts();
    disk.fill(1_024);
    wait_until("the oldest file to be removed", || !firsts().contains(&before[0]));
    let nothing_left = || slave.journal().contains("no file is left that is stored");
    let all = disk.space().1;
    wait_until("enough to be free", || disk.space().0 >= all / 20);
    let left = firsts();
    assert!(before.ends_with(&left), "oldest first: {left:?} of {before:?}");
    assert!(!left.is_empty() && !nothing_left(), "no more than must go");
    for gone in before.iter().filter(|first| !left.contains(first)) {
        assert!(
            slave.journal().contains(&format!("extended.log.{gone:020}.zst, which is stored")),
            "{}",
            slave.journal()
        );
        assert!(!log_dir.join(format!("extended.log.{gone:020}.chain")).exists());
    }

    // Nobody stores what comes now.
    disk.free();
    cluster.master.stop();
    let stored = slave.status().unwrap().records_written;
    exchange(&cluster, 3_000);
    // Packed, too: what packing gives back later would be room.
    wait_until("files that are not stored", || {
        firsts().iter().filter(|first| **first > stored).count() >= 2 && files().iter().all(|path| is_packed(path))
    });
    let unstored: Vec<u64> = firsts().into_iter().filter(|first| *first > stored).collect();
    disk.fill(64);
    wait_until("the node to say that nothing is left to remove", nothing_left);
    let still = firsts();
    let begun_before = still.iter().filter(|first| **first <= stored).count();
    assert!(begun_before <= 1, "of those that are stored but for their end there is one at most: {still:?}, {stored}");
    assert!(still.ends_with(&unstored), "{still:?} without some of {unstored:?}");

    disk.free();
    cluster.master.start();
    cluster.wait_for_records();
    let report = cluster.report(&Question::default());
    assert_eq!((report.requests, report.gaps.len()), (6_000, 0), "each once");
}

/// The cursor says what the master had, and that is not what it has.
#[test]
fn nothing_is_removed_for_want_of_room_that_a_master_set_back_lacks() {
    let cluster = Cluster::lay_out(1, &[("LOG_SIZE_LIMIT", "1M"), ("CORES", "1")]);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    let log_dir = slave.layout.log.parent().unwrap();
    let Some(disk) = Disk::mount(&cluster.dir().join("disk.img"), log_dir, 48) else { return };
    master.start();
    cluster.apply(&cluster.policy(""));
    slave.start();
    cluster.wait_for_policy();
    let (state, backup) = (master.layout.dir.join("state"), cluster.dir().join("backup"));
    master.stop();
    copy(&state, &backup);
    master.start();
    exchange(&cluster, 3_000);
    cluster.wait_for_records();
    let files = || rotated(log_dir.parent().unwrap());
    wait_until("three files to be packed", || files().len() >= 3 && files().iter().all(|path| is_packed(path)));
    let before = files();

    slave.stop();
    master.stop();
    fs::remove_dir_all(&state).unwrap();
    copy(&backup, &state);
    disk.fill(1_024);
    slave.start();
    let told = "none is known to be stored in the report since this start";
    wait_until("the slave to look for room", || {
        slave.journal().contains("log-space-low") || slave.journal().contains(told)
    });
    assert!(slave.journal().contains(told), "{}", slave.journal());
    assert_eq!(files(), before, "removed what the master lacks");

    // What it has then may go.
    master.start();
    cluster.wait_for_records();
    let report = cluster.report(&Question::default());
    assert_eq!((report.requests, report.gaps.len()), (3_000, 0), "each once");
    wait_until("the oldest file to be removed", || files() != before);
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}
