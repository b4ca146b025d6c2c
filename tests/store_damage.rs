//! A disk that flips bits in the master's record store: a report never shows what was altered as if it were true, an audit names the damage,
//! and records go on coming in.

mod harness;

use harness::client::Client;
use harness::dice::Dice;
use harness::dice::number_in;
use harness::wait_until;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;
use tidegate::base::clock::Wall;
use tidegate::record::Epoch;
use tidegate::record::Record;
use tidegate::record::audit::AuditQuestion;
use tidegate::record::audit::Proof;
use tidegate::record::question::Answer;
use tidegate::record::question::Question;
use tidegate::record::question::RecordRow;
use tidegate::store::records::RecordStore;
use tidegate::store::records::SqliteRecords;
use tidegate::store::records::StoreError;

/// Flips in the test of random flips.
const FLIPS: u64 = 300;
const NODES: [(&str, u8); 2] = [("edge-1", 1), ("edge-2", 2)];
/// Of each node; every fiftieth never came.
const RECORDS: u64 = 600;

fn record(node: &str, seq: u64) -> Record {
    Record {
        seq,
        record_id: format!("1700000000-{seq}-1-{node}"),
        client_id: seq,
        request_id: 1,
        node: node.to_string(),
        ended_us: 1_000_000 * seq as i64,
        request_host: format!("host-{}.test", seq % 40),
        username: format!("user-{}@10.0.0.1", seq % 30),
        client_ip: format!("10.0.0.{}", seq % 9),
        url: format!("http://host-{}.test/{:x}", seq % 40, seq.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        categories: "News,Sport".to_string(),
        rule: "default".to_string(),
        status: 200,
        download: 10 + seq % 1000,
        ..Record::default()
    }
}

fn put(
    store: &SqliteRecords,
    (node, epoch): (&str, u8),
    seqs: impl IntoIterator<Item = u64>,
) -> Result<u64, StoreError> {
    let records: Vec<Record> = seqs.into_iter().map(|seq| record(node, seq)).collect();
    let batch: Vec<Record<&str>> = records.iter().map(Record::view).collect();
    store.ingest(node, Epoch([epoch; 16]), &batch)
}

fn came(seq: u64) -> bool {
    !seq.is_multiple_of(50)
}

/// A store that was closed, in a folder of its own.
fn whole() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteRecords::open(&path(&dir)).unwrap();
    for first in (1..RECORDS).step_by(150) {
        for node in NODES {
            put(&store, node, (first..first + 150).filter(|seq| came(*seq))).unwrap();
        }
    }
    drop(store);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "all of it is in one file");
    dir
}

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("records.db")
}

fn everything(store: &SqliteRecords) -> Result<Answer, StoreError> {
    store.answer(&Question { newest: Some(5_000), top: Some(100), ..Question::default() })
}

fn audited(store: &SqliteRecords, node: &str) -> Result<Proof, StoreError> {
    store.audit(&AuditQuestion { node: Some(node.to_string()), ..AuditQuestion::default() })
}

fn rows_of(answer: &Answer) -> BTreeMap<String, RecordRow> {
    answer.newest.iter().map(|row| (row.record_id.clone(), row.clone())).collect()
}

/// What of a report is not as it was, and does not say so itself.
fn altered(answer: &Answer, truth: &Answer) -> Vec<String> {
    let known = rows_of(truth);
    let says_so = |row: &RecordRow| format!("{row:?}").contains("(damaged");
    let rows = answer.newest.iter().filter(|row| !says_so(row) && known.get(&row.record_id) != Some(row));
    let mut altered: Vec<String> = rows.map(|row| format!("{row:?}")).collect();
    for (ranks, true_ranks) in
        [(&answer.hosts, &truth.hosts), (&answer.users, &truth.users), (&answer.nodes, &truth.nodes)]
    {
        let is_true = |name: &str| name.starts_with("(damaged") || true_ranks.iter().any(|rank| rank.name == name);
        altered.extend(ranks.iter().filter(|rank| !is_true(&rank.name)).map(|rank| format!("{rank:?}")));
    }
    altered
}

/// Whether no node's audit finds anything.
fn is_proved(store: &SqliteRecords) -> bool {
    NODES.iter().all(|(node, _)| {
        audited(store, node).is_ok_and(|proof| {
            // What never came is no damage.
            let never = |words: &str| words.starts_with("never arrived");
            proof.more_findings == 0 && proof.findings.iter().all(|one| never(&one.words))
        })
    })
}

/// The store at `path`, of which a bit was flipped: what it does wrong.
fn faults(path: &Path, truth: &Answer) -> Vec<String> {
    // What cannot be opened says so.
    let Ok(store) = SqliteRecords::open(path) else { return Vec::new() };
    let mut faults = Vec::new();
    let proved = is_proved(&store);
    match everything(&store) {
        Ok(answer) => {
            faults.extend(altered(&answer, truth));
            let is_whole = (answer.requests, answer.download, answer.newest.len(), &answer.gaps)
                == (truth.requests, truth.download, truth.newest.len(), &truth.gaps);
            if !is_whole && answer.unreadable == 0 && proved {
                faults.push(format!(
                    "{} records of {}, gaps {:?}, and nobody says so",
                    answer.requests, truth.requests, answer.gaps
                ));
            }
        }
        Err(error) if proved => faults.push(format!("no report, and audits that hold: {error}")),
        Err(_) => {}
    }
    // All that a slave would send again, what never came, and something new.
    let mut all_taken = true;
    for node in NODES {
        match put(&store, node, 1..=RECORDS + 5) {
            Ok(highest) if highest != RECORDS + 5 => {
                faults.push(format!("{highest} of {} were acknowledged", RECORDS + 5))
            }
            Ok(_) => {}
            // Whoever sent it is told, and keeps it.
            Err(_) => all_taken = false,
        }
    }
    if let Ok(answer) = everything(&store) {
        let mut numbers: Vec<&str> =
            answer.newest.iter().map(|row| row.record_id.as_str()).filter(|id| !id.is_empty()).collect();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        if numbers.len() < count && is_proved(&store) {
            faults.push(format!("{} records stand there twice, and nobody says so", count - numbers.len()));
        }
        let all = NODES.len() as u64 * (RECORDS + 5);
        if all_taken && answer.requests + answer.unreadable < all && is_proved(&store) {
            faults.push(format!("{} and {} of {all} records, and nobody says so", answer.requests, answer.unreadable));
        }
    }
    faults
}

#[test]
fn whatever_bit_of_the_store_flips_no_report_shows_it_as_true_and_what_is_lost_or_doubled_is_named() {
    let (dir, damaged) = (whole(), tempfile::tempdir().unwrap());
    let truth = everything(&SqliteRecords::open(&path(&dir)).unwrap()).unwrap();
    let bytes = fs::read(path(&dir)).unwrap();
    let seed = number_in("STORE_SEED").unwrap_or(7);
    println!("STORE_SEED={seed}, {} bytes", bytes.len());
    let mut dice = Dice(seed);
    for flip in 0..number_in("STORE_FLIPS").unwrap_or(FLIPS) {
        let (at, bit) = (dice.roll(bytes.len() as u64) as usize, dice.roll(8));
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        for entry in fs::read_dir(damaged.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(path(&damaged), flipped).unwrap();
        let faults = faults(&path(&damaged), &truth);
        assert!(faults.is_empty(), "STORE_SEED={seed}, flip {flip}, bit {bit} of byte {at}: {faults:?}");
    }
}

/// Where the frames of blocks begin in the store's file: behind a format, a length and a seal.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let is_frame = |at: &usize| bytes[*at..].starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) && bytes[at - 13] == 2;
    (13..bytes.len() - 4).filter(is_frame).collect()
}

#[test]
fn a_master_with_a_flipped_bit_in_its_store_says_which_records_it_cannot_read_and_takes_in_new_ones() {
    let cluster = harness::Cluster::start(1);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    let get = |count: usize| {
        let mut client = Client::connect(slave.layout.proxy).unwrap();
        for _ in 0..count {
            assert_eq!(client.get(&cluster.url("/bytes/1")).unwrap().status, 200);
        }
        cluster.wait_for_records();
    };
    get(300);
    master.stop();
    let path = master.layout.dir.join("state/records.db");
    // In what SQLite has not put into the file yet: from there on it counts as not written, and the slave sends it again.
    let log = path.with_extension("db-wal");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(&log, bytes).unwrap();
    master.start();
    wait_until("all records", || cluster.report(&Question::default()).requests == 300);
    assert_eq!(cluster.report(&Question::default()).gaps, []);

    master.stop();
    drop(SqliteRecords::open(&path).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    let first = frames(&bytes)[0];
    bytes[first + 40] ^= 0x20;
    fs::write(&path, bytes).unwrap();
    let flipped_us = Wall::now().0;
    master.start();
    get(5);

    let whole = cluster.report(&Question { newest: Some(1_000), ..Question::default() });
    assert!(whole.unreadable >= 256 && whole.requests + whole.unreadable == 305, "{whole:?}");
    assert_eq!(whole.newest.len() as u64, whole.requests);
    let later = cluster.report(&Question { from_us: Some(flipped_us), ..Question::default() });
    assert_eq!((later.requests, later.unreadable), (5, 0));
    assert!(master.journal().contains("of the record store: it is not as it was written"), "{}", master.journal());
    let name = slave.layout.name.as_str();
    let control = master.layout.control.to_str().unwrap();
    let (code, said, complaint) = harness::tidegate(&["report", "audit", "--node", name, "--control", control]);
    let numbers = format!("1 to {}", whole.unreadable);
    assert!(code == 1 && said.contains(&numbers) && said.contains("cannot be read"), "{code} {said}{complaint}");
    let (code, said, complaint) = harness::tidegate(&["report", "--control", control]);
    let words = format!("! {} records of the range stand in damaged blocks", whole.unreadable);
    assert!(code == 0 && said.contains(&words), "{code} {said}{complaint}");
}
