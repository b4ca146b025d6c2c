//! The cluster over loopback, with real TLS: refusals on both sides, policy going down, records coming up, and both
//! through the absence and the lies of a master.

mod batches;
mod deltas;
#[path = "../harness/dice.rs"]
mod dice;
mod flood;
mod lies;
mod membership;
mod simulation;
mod stores;
mod tasks;
mod world;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::cluster::protocol::Build;
use tidegate::policy::Snapshot;
use tidegate::tls::activation::ActivationKey;
use world::*;

fn key() -> ActivationKey {
    ActivationKey::generate().unwrap()
}

fn store() -> Arc<FakeStore> {
    Arc::new(FakeStore::default())
}

#[test]
fn a_slave_joins_gets_the_policy_and_stands_on_the_nodes_page() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), master.address);
    let name = master.policy.borrow().name().to_string();
    until("the policy at the slave", || slave.policy() == name);
    let row = wait_for("a current row", || master.row("s1").filter(|row| row.current && row.up));
    assert_eq!((row.refusal.as_str(), row.error.as_str(), row.role.as_str()), ("", "", "slave"));
    assert_eq!(row.version, Build::this().version);
    assert!(row.clock_skew_ms.abs() < 100, "{}", row.clock_skew_ms);
    assert!(slave.up() && slave.trouble().is_empty());
    assert!(slave.handle.link.borrow().synced_us > 0);
}

#[test]
fn a_policy_change_reaches_every_slave_within_a_second() {
    let key = key();
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let master = Master::start(&key, open_policy(1), store());
    let slaves = [("s1", &dirs[0]), ("s2", &dirs[1])]
        .map(|(name, dir)| Slave::start(SlaveSpec::new(name, &key, dir.path()), master.address));
    let mut slowest = Duration::ZERO;
    for version in 2..=30 {
        let new = open_policy(version);
        let name = new.name().to_string();
        let applied = Instant::now();
        master.policy.send_replace(new);
        for slave in &slaves {
            until("the new policy", || slave.policy() == name);
            let at = slave.enforced.lock().unwrap().last().unwrap().1;
            slowest = slowest.max(at.saturating_duration_since(applied));
        }
    }
    println!("slowest of 58 policy changes: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    until("both rows to be current", || master.service.nodes().iter().filter(|row| row.current).count() == 2);
}

#[test]
fn a_wrong_key_is_refused_in_the_same_words_on_both_sides() {
    let (key, wrong, dir) = (key(), key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let slave = Slave::start(SlaveSpec::new("s1", &wrong, dir.path()), master.address);
    until("the slave's words", || slave.trouble().starts_with("KeyMismatch:"));
    let row = wait_for("the master's row", || master.service.nodes().pop());
    assert_eq!(row.refusal, slave.trouble());
    assert_eq!((row.address.as_str(), row.up), ("127.0.0.1", false));
    assert_eq!(slave.policy(), Snapshot::builtin().name());
}

#[test]
fn other_versions_are_refused_and_both_sides_say_which() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let build = Build { version: "9.9.9".into(), ..Build::this() };
    let slave = Slave::start(SlaveSpec { build, ..SlaveSpec::new("s1", &key, dir.path()) }, master.address);
    until("the slave's words", || slave.trouble().starts_with("VersionMismatch:"));
    assert!(slave.trouble().contains("the slave 9.9.9"), "{}", slave.trouble());
    let row = wait_for("the master's row", || master.row("s1"));
    assert_eq!((row.refusal, row.version.as_str()), (slave.trouble(), "9.9.9"));
}

#[test]
fn with_authentication_on_a_slave_needs_its_address_on_the_allow_list() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let strict = "[access_restriction]\nauthentication = true\n";
    let master = Master::start(&key, policy(1, strict), store());
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), master.address);
    until("the slave's words", || slave.trouble().starts_with("NotOnAllowList:"));
    assert!(slave.trouble().contains("127.0.0.1"), "{}", slave.trouble());
    assert_eq!(wait_for("the master's row", || master.row("s1")).refusal, slave.trouble());

    // The remedy, taken by its word.
    let entry = "[[access_restriction.allow]]\naddresses = [\"127.0.0.1\"]\nrights = [\"CLUSTER\"]\n";
    master.policy.send_replace(policy(2, &format!("{strict}{entry}")));
    until("the slave to be let in", || slave.up() && slave.policy().starts_with("2-"));
    until("the refusal to be gone", || master.row("s1").is_some_and(|row| row.refusal.is_empty() && row.up));

    // And taken back: the policy that refuses it does not reach it, but the reason does.
    master.policy.send_replace(policy(3, strict));
    until("the slave's words again", || slave.trouble().starts_with("NotOnAllowList:"));
}

#[test]
fn a_slave_named_like_its_master_is_told_so() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let slave = Slave::start(SlaveSpec::new("m", &key, dir.path()), master.address);
    until("the slave's words", || slave.trouble().contains("the master itself already uses the name m"));
    drop(master);
}

#[test]
fn a_slave_works_on_while_its_master_is_away_also_after_its_own_restart_and_catches_up() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let address = master.address;
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    until("the first policy", || slave.policy().starts_with("1-"));
    until("the policy to be held", || tidegate::cluster::held::load(dir.path()).is_some());
    drop(master);
    until("the slave to notice", || !slave.up());
    until("the remedy", || slave.trouble().contains("MASTER_IP"));
    assert!(slave.policy().starts_with("1-"));

    drop(slave);
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    assert!(slave.policy().starts_with("1-"), "the held policy is in force before any contact");
    until("an attempt", || !slave.trouble().is_empty());

    let back = Instant::now();
    let master = Master::start_at(address, &key, Build::this(), open_policy(2), store());
    until("the second policy", || slave.policy().starts_with("2-"));
    assert!(back.elapsed() < Duration::from_secs(7), "{:?}", back.elapsed());
    until("a row without trouble", || master.row("s1").is_some_and(|row| row.current));
}

#[test]
fn a_policy_that_the_cores_refuse_is_not_taken_and_the_next_good_one_is() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let cores = |new: &Snapshot| if new.version() == 2 { Err("core 0 is out of memory".to_string()) } else { Ok(()) };
    let slave = Slave::start(SlaveSpec { cores, ..SlaveSpec::new("s1", &key, dir.path()) }, master.address);
    until("the first policy", || slave.policy().starts_with("1-"));
    master.policy.send_replace(open_policy(2));
    let row = wait_for("the error at the master", || master.row("s1").filter(|row| !row.error.is_empty()));
    assert!(row.error.contains("core 0 is out of memory") && row.snapshot.starts_with("1-"), "{row:?}");
    assert!(!row.current);
    assert!(slave.policy().starts_with("1-") && slave.trouble().contains("core 0"));
    assert!(tidegate::cluster::held::load(dir.path()).unwrap().snapshot.name().starts_with("1-"));
    master.policy.send_replace(open_policy(3));
    until("the third policy", || slave.policy().starts_with("3-") && slave.trouble().is_empty());
}

#[test]
fn a_refused_policy_stays_refused_over_the_slaves_restart_and_the_master_is_told_why() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let cores = |new: &Snapshot| if new.version() == 2 { Err("core 0 is out of memory".to_string()) } else { Ok(()) };
    let slave = Slave::start(SlaveSpec { cores, ..SlaveSpec::new("s1", &key, dir.path()) }, master.address);
    until("the first policy", || slave.policy().starts_with("1-"));
    master.policy.send_replace(open_policy(2));
    until("the refusal", || tidegate::cluster::held::refused(dir.path()).is_some());
    drop(slave);
    // The next process could take it, and is told by its disk that the one before could not.
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), master.address);
    until("the reason in the next process", || slave.up() && slave.trouble().contains("core 0 is out of memory"));
    let row = wait_for("the reason at the master", || master.row("s1").filter(|row| !row.error.is_empty()));
    assert!(row.error.starts_with("Policy 2-") && row.snapshot.starts_with("1-"), "{row:?}");
    assert!(slave.policy().starts_with("1-"));
    master.policy.send_replace(open_policy(3));
    until("the third policy", || slave.policy().starts_with("3-") && slave.trouble().is_empty());
    until("the note to be gone", || tidegate::cluster::held::refused(dir.path()).is_none());
}

#[test]
fn a_master_without_a_policy_does_not_take_the_slaves_policy_away() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(4), store());
    let address = master.address;
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    until("the policy", || slave.policy().starts_with("4-"));
    drop(master);
    let master = Master::start_at(address, &key, Build::this(), Arc::new(Snapshot::builtin()), store());
    until("the words", || slave.trouble().contains("has no policy yet"));
    assert!(slave.policy().starts_with("4-") && slave.up());
    master.policy.send_replace(open_policy(5));
    until("the new policy", || slave.policy().starts_with("5-") && slave.trouble().is_empty());
}

#[test]
fn records_arrive_once_through_lost_acks_a_dying_master_and_a_slow_trickle() {
    let (key, dir, store) = (key(), TempDir::new().unwrap(), store());
    store.lose_every.store(3, Ordering::SeqCst);
    let mut master = Master::start(&key, open_policy(1), store.clone());
    let address = master.address;
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    let log = FakeLog::new("s1");
    let cursor = log.cursor.clone();
    let (_task, status) = slave.ship(log.clone());
    for round in 1..=5 {
        log.append(20_000);
        log.append(1);
        if round % 2 == 0 {
            drop(master);
            master = Master::start_at(address, &key, Build::this(), open_policy(round), store.clone());
        }
    }
    until("all records", || store.count() == 100_005);
    until("the cursor", || cursor.load(Ordering::SeqCst) == 100_005 && status.borrow().acknowledged == 100_005);
    let given = store.given.load(Ordering::SeqCst);
    println!("{given} records were given to the store, 100005 of them new");
    until("no lag", || master.row("s1").is_some_and(|row| row.record_lag == 0));

    store.lose_every.store(0, Ordering::SeqCst);
    log.append(1);
    until("the record after a lost ack", || store.count() == 100_006);
    let ended = Instant::now();
    log.append(1);
    until("a single record", || store.count() == 100_007);
    assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
}

#[test]
fn records_of_a_master_that_lost_its_store_are_sent_again() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let address = master.address;
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    let log = FakeLog::new("s1");
    let (_task, status) = slave.ship(log.clone());
    log.append(100);
    until("the acks", || status.borrow().acknowledged == 100);
    drop(master);
    let empty = store();
    let _master = Master::start_at(address, &key, Build::this(), open_policy(1), empty.clone());
    until("everything again", || empty.count() == 100);
}

#[test]
fn plain_http_is_sent_to_https_and_proxy_requests_are_refused_with_the_reason() {
    let master = Master::start(&key(), open_policy(1), store());
    let port = master.address.port();
    for (request, status, expected) in [
        ("GET /nodes?a=b HTTP/1.1\r\nHost: gw.test:PORT\r\n\r\n", "308", "location: https://gw.test:PORT/nodes?a=b"),
        ("HEAD / HTTP/1.0\r\n\r\n", "308", "location: https://127.0.0.1:PORT/"),
        ("GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", "403", REFUSAL_TO_PROXY),
        ("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", "403", REFUSAL_TO_PROXY),
        ("nonsense\r\n\r\n", "400", ""),
    ] {
        let mut client = TcpStream::connect(master.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(request.replace("PORT", &port.to_string()).as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.split(' ').nth(1) == Some(status), "{request:?} was answered {answer:?}");
        assert!(answer.contains(&expected.replace("PORT", &port.to_string())), "{request:?}: {answer:?}");
    }
}

#[test]
fn browsers_get_the_portal_on_the_same_port_and_proxy_requests_over_tls_are_refused_too() {
    let master = Master::start(&key(), open_policy(1), store());
    let url = format!("https://{}/", master.address);
    for (target, expected) in [("/", "the portal"), ("http://example.com/", REFUSAL_TO_PROXY)] {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "--max-time", "10", "--request-target", target, &url]);
        let answer = curl.output().expect("curl runs: tests/run installs it");
        assert_eq!(String::from_utf8_lossy(&answer.stdout), expected, "{target}");
    }
}

#[test]
fn noise_at_the_door_harms_nobody() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let noise: Vec<u8> = (0..2_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for start in
        [&[][..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"]
    {
        for length in [0, 1, 50, 2_000] {
            let mut client = TcpStream::connect(master.address).unwrap();
            let _ = client.write_all(&[start, &noise[..length]].concat());
        }
    }
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), master.address);
    until("the slave to be in", || slave.up());
    assert_eq!(master.service.nodes().len(), 1, "noise is no refused node");
}

#[test]
fn a_caller_that_says_nothing_is_let_go_and_keeps_nobody_out() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let mut silent = TcpStream::connect(master.address).unwrap();
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), master.address);
    until("the slave to be in", || slave.up());
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0, "closed without a word");
}
