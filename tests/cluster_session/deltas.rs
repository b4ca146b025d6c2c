//! Policies that differ little cost little, and a transfer that was cut goes on where it was.

use crate::world::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tidegate::cluster::protocol::{Build, hash_text};
use tidegate::policy::{Folder, Snapshot, compile};
use tidegate::tls::activation::ActivationKey;

const HOSTS: usize = 200_000;

/// A host that does not compress well.
fn host(i: usize) -> String {
    let digits = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i as u64) << 7;
    format!("h{digits:x}.example{}.com\n", i % 4099)
}

/// A policy with a category of many hosts in a file, of which some are left out, and `rules` rules.
fn big(dir: &Path, version: u64, rules: usize, without: &[usize]) -> Arc<Snapshot> {
    let hosts: String = (0..HOSTS).filter(|i| !without.contains(i)).map(host).collect();
    std::fs::write(dir.join("big.txt"), hosts).unwrap();
    let rules: String = (0..rules)
        .map(|i| format!("[[access_profiles]]\nname = \"rule {i}\"\ncategories = [\"big\"]\naction = \"DENY\"\n"))
        .collect();
    let document = format!(
        "[access_restriction]\ndefault = \"allow\"\n[[categories]]\nname = \"big\"\nfiles = [\"big.txt\"]\n{rules}"
    );
    let bytes = compile(&document, version, &Folder::new(dir)).unwrap_or_else(|complaints| panic!("{complaints:?}"));
    Arc::new(Snapshot::open(&bytes).unwrap())
}

fn folder(dir: &TempDir, name: &str) -> PathBuf {
    let folder = dir.path().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn fetched(slave: &Slave, policy: &Snapshot) -> u64 {
    until("the policy", || slave.policy() == policy.name());
    wait_for("its bytes", || Some(slave.handle.link.borrow().fetched_bytes).filter(|bytes| *bytes > 0))
}

#[test]
fn a_rule_or_a_host_more_beside_a_large_category_moves_less_than_64_kib() {
    let (key, dir) = (ActivationKey::generate().unwrap(), TempDir::new().unwrap());
    let first = big(dir.path(), 1, 20, &[]);
    let master = Master::start(&key, first.clone(), Arc::new(FakeStore::default()));
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), master.address);
    let whole = fetched(&slave, &first);
    assert!(whole > 1_000_000, "{whole}");
    let changes = [
        ("a rule more", big(dir.path(), 2, 21, &[])),
        ("a host less", big(dir.path(), 3, 21, &[100_000])),
        ("a host more, another less", big(dir.path(), 4, 21, &[0])),
        ("no change but the version", big(dir.path(), 5, 21, &[0])),
    ];
    for (what, policy) in changes {
        let before = slave.handle.link.borrow().synced_us;
        master.policy.send_replace(policy.clone());
        until("the policy", || slave.policy() == policy.name());
        until("the sync", || slave.handle.link.borrow().synced_us != before);
        let bytes = slave.handle.link.borrow().fetched_bytes;
        println!("{what}: {bytes} bytes of {whole}");
        assert!(bytes < 64 * 1024, "{what}: {bytes} bytes");
    }
    let snapshots = dir.path().join("snapshots");
    let left = std::fs::read_dir(snapshots).unwrap().flatten().map(|file| file.path());
    let left: Vec<PathBuf> =
        left.filter(|path| path.extension().is_some_and(|e| e == "part" || e == "pieces")).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "nothing half-done stays");
}

/// A link that breaks each connection after so many bytes to the slave.
struct BadLink {
    address: SocketAddr,
    passed: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
}

impl BadLink {
    fn to(master: SocketAddr, budget: u64) -> BadLink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = BadLink { address: listener.local_addr().unwrap(), passed: Arc::default(), cuts: Arc::default() };
        let (passed, cuts) = (link.passed.clone(), link.cuts.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(master)) else { continue };
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
                let (passed, cuts) = (passed.clone(), cuts.clone());
                std::thread::spawn(move || pass(server, client, budget, &passed, &cuts));
            }
        });
        link
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, budget: u64, passed: &AtomicU64, cuts: &AtomicU64) {
    let (mut left, mut buffer) = (budget, [0; 16 * 1024]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        passed.fetch_add(count as u64, Ordering::SeqCst);
        left = left.saturating_sub(count as u64);
        if left == 0 {
            cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_transfer_that_is_cut_again_and_again_goes_on_and_no_piece_is_sent_twice_for_it() {
    let (key, dir) = (ActivationKey::generate().unwrap(), TempDir::new().unwrap());
    let policy = big(dir.path(), 1, 1, &[]);
    let master = Master::start(&key, policy.clone(), Arc::new(FakeStore::default()));
    let plain = Slave::start(SlaveSpec::new("s0", &key, &folder(&dir, "s0")), master.address);
    let whole = fetched(&plain, &policy);
    let link = BadLink::to(master.address, 1_500_000);
    let slave = Slave::start(SlaveSpec::new("s1", &key, &folder(&dir, "s1")), link.address);
    until("the policy over a bad link", || slave.policy() == policy.name());
    let (passed, cuts) = (link.passed.load(Ordering::SeqCst), link.cuts.load(Ordering::SeqCst));
    println!("{cuts} cuts, {passed} bytes over the link, {whole} without a cut");
    assert!(cuts >= 2, "{cuts} cuts");
    // Each cut loses the answer under way, and a hello and a manifest are said again.
    assert!(passed < whole + cuts * 1_200_000, "{passed} bytes for {whole}");
}

#[test]
fn a_transfer_goes_on_after_the_master_restarted_and_after_damage_to_what_had_come() {
    let (key, dir) = (ActivationKey::generate().unwrap(), TempDir::new().unwrap());
    let (policy, store) = (big(dir.path(), 1, 1, &[]), Arc::new(FakeStore::default()));
    let master = Master::start(&key, policy.clone(), store.clone());
    let address = master.address;
    let link = BadLink::to(address, 2_500_000);
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), link.address);
    until("the first cut", || link.cuts.load(Ordering::SeqCst) > 0);
    drop(master);
    drop(slave);
    let before = link.passed.load(Ordering::SeqCst);
    let part = dir.path().join("snapshots").join(format!("{}.part", hash_text(policy.hash())));
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 8;
    bytes[middle] ^= 1;
    // Another file: the one before may still be written to by the slave that was dropped.
    std::fs::remove_file(&part).unwrap();
    std::fs::write(&part, &bytes).unwrap();

    let _master = Master::start_at(address, &key, Build::this(), policy.clone(), store);
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    let bytes = fetched(&slave, &policy);
    println!("{before} bytes before the restart, {bytes} after");
    assert!(bytes > 100_000, "something was missing");
    let held = tidegate::cluster::held::load(dir.path()).unwrap();
    assert_eq!(held.snapshot.prove(), Ok(()));
    assert_eq!(held.snapshot.bytes(), policy.bytes(), "whole, the damaged piece too");
    let plain = Slave::start(SlaveSpec::new("s0", &key, &folder(&dir, "s0")), address);
    let whole = fetched(&plain, &policy);
    assert!(bytes + 1_000_000 < whole, "{bytes} of {whole} were sent after the restart");
}

#[test]
fn a_newer_policy_that_overtakes_a_transfer_takes_over_what_had_come() {
    let (key, dir) = (ActivationKey::generate().unwrap(), TempDir::new().unwrap());
    let (first, second) = (big(dir.path(), 1, 1, &[]), big(dir.path(), 2, 2, &[]));
    let master = Master::start(&key, first.clone(), Arc::new(FakeStore::default()));
    let link = BadLink::to(master.address, 2_500_000);
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), link.address);
    until("the first cut", || link.cuts.load(Ordering::SeqCst) > 0);
    drop(slave);
    master.policy.send_replace(second.clone());
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), master.address);
    let bytes = fetched(&slave, &second);
    let plain = Slave::start(SlaveSpec::new("s0", &key, &folder(&dir, "s0")), master.address);
    let whole = fetched(&plain, &second);
    assert!(bytes + 1_000_000 < whole, "{bytes} of {whole} came for the second");
    assert_ne!(first.name(), second.name());
}
