//! The chain of extended.log and the audit that holds the files against it: whoever changes a line is found.

mod harness;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::log::Log;
use tidegate::log::LogConfig;
use tidegate::log::audit::audit;
use tidegate::record::Draft;
use tidegate::record::Ended;
use tidegate::record::Ending;
use tidegate::record::Epoch;
use tidegate::record::audit::AuditQuestion;
use tidegate::record::audit::Proof;

/// In a file of this size about ten records have room.
const FILE_BYTES: u64 = 4_500;

fn config(dir: &Path) -> LogConfig {
    LogConfig {
        state_dir: dir.join("state"),
        log_dir: dir.join("log"),
        node: "edge-1".to_string(),
        epoch: Epoch([7; 16]),
        cores: 1,
        file_bytes_max: FILE_BYTES,
        sync_ms: 200,
        count_when_full: false,
        keep_days: 30,
    }
}

/// Writes records one by one, so that files rotate and blocks are many; the `n`-th ends `n` seconds after the epoch.
fn write(dir: &Path, seqs: std::ops::RangeInclusive<u64>) {
    let (log, mut desks) = Log::start(config(dir)).unwrap();
    for seq in seqs {
        record(&mut desks[0], seq);
        let deadline = Instant::now() + Duration::from_secs(20);
        while log.progress().borrow().written < seq {
            assert!(Instant::now() < deadline, "record {seq} is not written");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    log.stop();
}

/// What a start repairs, recovers and seals.
fn start_again(dir: &Path) {
    Log::start(config(dir)).unwrap().0.stop();
}

fn record(desk: &mut tidegate::log::RecordDesk, seq: u64) {
    let draft = Draft { client_id: seq, request_id: 1, method: b"GET", url: b"http://a.test/", ..Draft::default() };
    let ended = Ended { status: 200, ended_us: seq as i64 * 1_000_000, ending: Ending::COMPLETE, ..Ended::default() };
    desk.open(&draft, &ended).unwrap().close(&ended);
}

fn all(dir: &Path) -> Proof {
    audit(&dir.join("log"), &AuditQuestion::default()).unwrap()
}

/// The folders as they are at one moment: a copy during which the writer wrote is of none, and is made again.
fn copy(from: &Path) -> TempDir {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let to = tempfile::tempdir().unwrap();
        for part in ["log", "state"] {
            assert!(Command::new("cp").arg("-a").arg(from.join(part)).arg(to.path()).status().unwrap().success());
        }
        let compared = Command::new("diff").arg("-rq").arg(from.join("log")).arg(to.path().join("log")).output();
        if compared.unwrap().status.success() {
            return to;
        }
        assert!(Instant::now() < deadline, "the log in {} never rests", from.display());
    }
}

/// The files of the log, oldest first, the current one last.
fn files(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = names.filter(|path| !path.to_str().unwrap().ends_with(".chain")).collect();
    files.sort_by_key(|path| (path.extension().is_some_and(|end| end == "log"), path.clone()));
    files
}

fn chain(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("log/extended.log.{first:020}.chain"))
}

fn first_of(file: &Path) -> u64 {
    file.extension().unwrap().to_str().unwrap().parse().unwrap()
}

fn change(file: &Path, how: impl FnOnce(&mut Vec<String>)) {
    let mut lines: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_string).collect();
    how(&mut lines);
    fs::write(file, lines.join("\n") + "\n").unwrap();
}

/// `file:line:first-last word` of each finding.
fn told(proof: &Proof) -> Vec<String> {
    let one = |f: &tidegate::record::audit::Finding| {
        let file = f.file.trim_start_matches("extended.log").trim_start_matches(['.', '0']);
        let kinds = ["edited", "removed", "inserted", "gone", "damaged", "go on"];
        let kind = kinds.iter().find(|word| f.words.contains(**word)).unwrap_or(&"?");
        format!("{file}:{}:{}-{} {kind}", f.line, f.first, f.last)
    };
    proof.findings.iter().map(one).collect()
}

#[test]
fn what_nobody_touched_holds_over_rotations_and_restarts_and_in_every_range() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1..=30);
    let head = all(dir.path()).head;
    assert!(head.starts_with("30 ") && head.len() == 3 + 64, "{head}");
    write(dir.path(), 31..=60);
    let proof = all(dir.path());
    assert_eq!((proof.records, proof.first, proof.last, proof.findings.as_slice()), (60, 1, 60, [].as_slice()));
    assert_eq!((proof.sealed_late, proof.not_yet_sealed, proof.files_unsealed), (0, 0, 0));
    assert!(proof.files >= 4, "{proof:?}");
    let range = AuditQuestion { node: None, from_us: Some(25_000_000), to_us: Some(28_000_000) };
    let part = audit(&dir.path().join("log"), &range).unwrap();
    assert_eq!((part.records, part.first, part.last, part.holds()), (3, 25, 27, true));
    assert!(part.files < proof.files, "files outside the range are not read");
}

#[test]
fn an_edited_removed_inserted_or_moved_line_is_named_with_file_line_and_number() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1..=40);
    let second = first_of(&files(dir.path())[1]);
    let third = first_of(&files(dir.path())[2]);
    // Line 1 is the header, so that line n has the number second + n - 2.
    let (n, f) = (|line: u64| second + line - 2, second);
    type How = fn(&mut Vec<String>);
    let table: &[(&str, How, Vec<String>)] = &[
        (
            "edited",
            |lines| lines[3] = lines[3].replace("a.test", "b.test"),
            vec![format!("{f}:4:{0}-{0} edited", n(4))],
        ),
        ("unreadable", |lines| lines[3] = "x".into(), vec![format!("{f}:4:{0}-{0} edited", n(4))]),
        (
            "its number too",
            |lines| lines[3] = lines[4].replace("a.test", "b.test"),
            vec![format!("{f}:4:{0}-{0} edited", n(4))],
        ),
        ("removed", |lines| drop(lines.remove(3)), vec![format!("{f}:0:{0}-{0} removed", n(4))]),
        ("several", |lines| drop(lines.drain(2..5)), vec![format!("{f}:0:{}-{} removed", n(3), n(5))]),
        ("the first", |lines| drop(lines.remove(1)), vec![format!("{f}:0:{0}-{0} removed", n(2))]),
        ("the last", |lines| drop(lines.pop()), vec![format!("{f}:0:{0}-{0} removed", third - 1)]),
        ("twice", |lines| lines.insert(4, lines[3].clone()), vec![format!("{f}:5:{0}-{0} inserted", n(4))]),
        ("junk", |lines| lines.insert(4, "x".into()), vec![format!("{f}:5:0-0 inserted")]),
        (
            "moved",
            |lines| lines.swap(3, 4),
            vec![format!("{f}:4:{0}-{0} inserted", n(5)), format!("{f}:0:{0}-{0} removed", n(5))],
        ),
    ];
    for (name, how, expected) in table {
        let copy = copy(dir.path());
        change(&files(copy.path())[1], how);
        assert_eq!(&told(&all(copy.path())), expected, "{name}");
    }
    // The same in the file that is written now.
    let copy = copy(dir.path());
    let current = files(copy.path()).pop().unwrap();
    change(&current, |lines| drop(lines.pop()));
    assert_eq!(told(&all(copy.path())), [":0:40-40 removed"]);
    change(&current, |lines| drop(lines.remove(1)));
    let proof = all(copy.path());
    assert_eq!((proof.findings.len(), proof.holds()), (2, false), "{proof:?}");
}

#[test]
fn a_file_or_a_chain_that_is_gone_or_was_made_anew_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1..=50);
    let firsts: Vec<u64> = files(dir.path())[..3].iter().map(|file| first_of(file)).collect();
    let second = firsts[1];
    let without_file = copy(dir.path());
    fs::remove_file(&files(without_file.path())[1]).unwrap();
    let range = format!("{second}.chain:0:{second}-{} gone", firsts[2] - 1);
    assert!(told(&all(without_file.path())).contains(&range), "{:?}", told(&all(without_file.path())));
    fs::remove_file(chain(without_file.path(), second)).unwrap();
    assert_eq!(told(&all(without_file.path())), [range]);
    let without_chain = copy(dir.path());
    fs::remove_file(chain(without_chain.path(), second)).unwrap();
    assert!(told(&all(without_chain.path())).contains(&format!("{second}:0:{second}-{second} gone")));
    let damaged = copy(dir.path());
    let mut bytes = fs::read(chain(damaged.path(), second)).unwrap();
    bytes[64 + 20] ^= 1;
    fs::write(chain(damaged.path(), second), bytes).unwrap();
    assert!(told(&all(damaged.path())).contains(&format!("{second}.chain:0:{second}-{second} damaged")));
    // Lines and their chain replaced by those of another log: the file after it does not go on from there.
    let other = tempfile::tempdir().unwrap();
    write(other.path(), 1..=50);
    let forged = copy(dir.path());
    fs::copy(&files(other.path())[1], &files(forged.path())[1]).unwrap();
    fs::copy(chain(other.path(), second), chain(forged.path(), second)).unwrap();
    let forged = told(&all(forged.path()));
    assert!(forged.contains(&format!("{0}.chain:0:{0}-{0} go on", firsts[2])), "{forged:?}");
}

#[test]
fn a_kill_at_any_moment_and_a_chain_torn_at_any_byte_leave_a_log_that_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut desks) = Log::start(LogConfig { file_bytes_max: 1 << 20, ..config(dir.path()) }).unwrap();
    for seq in 1..=300 {
        record(&mut desks[0], seq);
        if seq % 30 == 0 {
            // What a process killed now would leave, or nearly: the files are copied one after the other, spool last.
            let killed = copy(dir.path());
            start_again(killed.path());
            let proof = all(killed.path());
            assert!(proof.holds() && proof.not_yet_sealed == 0, "killed after {seq}: {proof:?}");
        }
    }
    log.stop();
    let whole = fs::metadata(chain(dir.path(), 1)).unwrap().len();
    for cut in [0, 10, 63, 64, 70, 100, whole / 2, whole - 1] {
        let torn = copy(dir.path());
        let file = fs::OpenOptions::new().write(true).open(chain(torn.path(), 1)).unwrap();
        file.set_len(cut).unwrap();
        start_again(torn.path());
        let proof = all(torn.path());
        assert_eq!((proof.records, proof.holds()), (300, true), "cut at {cut}: {proof:?}");
        assert!(proof.sealed_late > 0, "cut at {cut}: it is told");
    }
}

#[test]
fn a_bit_flipped_in_the_chain_of_the_current_file_is_kept_and_told_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1..=5);
    let path = chain(dir.path(), 1);
    let mut damaged = fs::read(&path).unwrap();
    // In the first block's fingerprints; four blocks stand behind it.
    damaged[64 + 16] ^= 1;
    fs::write(&path, &damaged).unwrap();
    start_again(dir.path());
    assert_eq!(fs::read(&path).unwrap(), damaged, "nothing of it is cut or written anew");
    let found = |proof: Proof| proof.findings.into_iter().map(|one| (one.file, one.words)).collect::<Vec<_>>();
    let told = found(all(dir.path()));
    assert!(told.iter().any(|(file, what)| file.ends_with(".chain") && what.contains("damaged")), "{told:?}");
    // The log goes on, and what is written from here on is proved.
    write(dir.path(), 6..=9);
    let proof = all(dir.path());
    assert_eq!((proof.records, proof.last), (9, 9));
    assert_eq!(found(proof), told, "no finding more");
}

#[test]
fn a_log_of_an_earlier_build_is_sealed_from_its_current_file_on() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1..=40);
    for entry in fs::read_dir(dir.path().join("log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "chain") {
            fs::remove_file(path).unwrap();
        }
    }
    let before = files(dir.path()).len() as u64 - 1;
    write(dir.path(), 41..=60);
    let proof = all(dir.path());
    assert!(proof.holds() && proof.files_unsealed == before && proof.sealed_late > 0, "{proof:?}");
    change(&files(dir.path())[1], |lines| drop(lines.remove(4)));
    assert_eq!(all(dir.path()).findings.len(), 1, "a missing number is found without a chain, too");
}

#[test]
fn the_node_audits_its_files_and_the_master_what_it_stored() {
    let cluster = harness::Cluster::start(1);
    let slave = &cluster.slaves[0];
    let mut client = harness::client::Client::connect(slave.layout.proxy).unwrap();
    for _ in 0..5 {
        let answer = client.get(&cluster.url("/bytes/1")).unwrap();
        assert_eq!(answer.status, 200);
    }
    cluster.wait_for_records();
    let ask = |node: &harness::Node, name: Option<&str>| {
        node.ask(Action::Audit(AuditQuestion { node: name.map(str::to_string), ..AuditQuestion::default() }))
    };
    let proof = |outcome| match outcome {
        Ok(Outcome::Audit(proof)) => *proof,
        other => panic!("audit: {other:?}"),
    };
    let name = slave.layout.name.as_str();
    for proof in [proof(ask(slave, None)), proof(ask(&cluster.master, Some(name)))] {
        assert!(proof.holds() && proof.records >= 5 && proof.node == name, "{proof:?}");
    }
    assert!(ask(&cluster.master, None).unwrap_err().words.contains("--node"));
    assert!(ask(slave, Some("other")).unwrap_err().words.contains("on the master"));
    let command = |node: &harness::Node, more: &[&str]| {
        let control = node.layout.control.to_str().unwrap().to_string();
        let (code, text, errors) = harness::tidegate(&[&["report", "audit", "--control", &control], more].concat());
        (code, text + &errors)
    };
    let range = ["--node", name, "--from", "2020-01-01", "--to", "2100-01-01"];
    let (code, text) = command(&cluster.master, &range);
    assert!(code == 0 && text.contains(name), "{text}");
    assert_eq!(command(slave, &range[2..]).0, 0);
    // Of a day when there was no node there are none: it is the range that is asked for.
    let that_day = ["--node", name, "--from", "2020-01-01", "--to", "2020-01-02"];
    for (node, words) in [(&cluster.master, &that_day[..]), (slave, &that_day[2..])] {
        let (code, text) = command(node, words);
        assert!(code == 1 && text.contains(&format!("no record of {name} in this range")), "{text}");
    }
    change(&slave.layout.log, |lines| lines[2] = lines[2].replace("GET", "PUT"));
    let proof = proof(ask(slave, None));
    assert_eq!(told(&proof), [":3:2-2 edited"]);
    let (code, text) = command(slave, &[]);
    assert!(code == 1 && text.contains("edited"), "{text}");
}
