//! A real master and many simulated slaves: what an Apply, an idle cluster, the return after a restart and a flood of records cost
//! the master. A simulated slave speaks the cluster's protocol with keys and connections of its own; it has no cores and no disk, so
//! that one machine can hold a thousand.
//!
//! ```text
//! cargo bench --bench cluster -- idle 1000 20          slaves, seconds: CPU of the master while nothing happens
//! cargo bench --bench cluster -- storm 1000            kill -9 of the master and its restart: until the last slave is back
//! cargo bench --bench cluster -- apply 100 1000000 10  slaves, hosts in a category, applies that change one rule
//! cargo bench --bench cluster -- tasks 1000            an order to so many slaves: until the last has done it and said so
//! cargo bench --bench cluster -- ingest 4 100000       slaves, records each: durable records a second, bytes of each
//! cargo bench --bench cluster -- log 2000000           records of one core to extended.log, and read back for shipping, as after an absence
//! cargo bench --bench cluster -- catch-up 1000000      a real slave with so many records that the master lacks, and clients of it meanwhile
//! ```

#[path = "cluster/catch_up.rs"]
mod catch_up;
#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "shared/live.rs"]
mod live;
#[path = "cluster/tasks.rs"]
mod tasks;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::base::clock::Wall;
use tidegate::cli::control;
use tidegate::cluster::Offer;
use tidegate::cluster::assembly::{fitting, split};
use tidegate::cluster::client::Connection;
use tidegate::cluster::client::Line;
use tidegate::cluster::client::MasterAddress;
use tidegate::cluster::client::Trouble;
use tidegate::cluster::client::Way;
use tidegate::cluster::packer::Packer;
use tidegate::cluster::protocol;
use tidegate::cluster::protocol::Hello;
use tidegate::cluster::protocol::HelloReply;
use tidegate::cluster::protocol::Poll;
use tidegate::cluster::protocol::PollReply;
use tidegate::daemon::layout::ClusterLayout;
use tidegate::figures::Figures;
use tidegate::log::Log;
use tidegate::log::LogConfig;
use tidegate::log::RecordDesk;
use tidegate::policy::pieces::{Entry, Manifest};
use tidegate::record::Draft;
use tidegate::record::Ended;
use tidegate::record::Ending;
use tidegate::record::Epoch;
use tidegate::record::Record;
use tidegate::record::lines::Lines;
use tidegate::tls::activation::ActivationKey;
use tidegate::tls::dial::dial;
use tidegate::tls::identity::NodeIdentity;
use tidegate::tls::keyring::KeyRing;
use tidegate::tls::node_key::NodeKey;
use tokio::sync::watch;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a poll is held, as slaves ask for.
const HOLD_MS: u64 = 5_000;
/// What a slave enforces before its first policy.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Records in a batch, as shippers send them when they catch up.
const BATCH_RECORDS: usize = 2_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize| arguments.get(at).map(|text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}")));
    match (arguments.first().map(String::as_str), number(1), number(2), number(3)) {
        (Some("idle"), Some(slaves), Some(seconds), _) => idle(slaves, seconds),
        (Some("storm"), Some(slaves), _, _) => storm(slaves),
        (Some("apply"), Some(slaves), Some(hosts), Some(applies)) => apply(slaves, hosts, applies),
        (Some("tasks"), Some(slaves), _, _) => tasks::tasks(slaves),
        (Some("ingest"), Some(slaves), Some(records), _) => ingest(slaves, records),
        (Some("log"), Some(records), _, _) => log(records),
        (Some("catch-up"), Some(records), _, _) => catch_up::catch_up(records),
        _ => {
            println!(
                "cluster idle SLAVES SECONDS | storm SLAVES | apply SLAVES HOSTS APPLIES | tasks SLAVES | ingest SLAVES RECORDS \
                 | log RECORDS | catch-up RECORDS"
            )
        }
    }
}

/// A master of its own, in a folder of its own.
struct Master {
    layout: ClusterLayout,
    ring: KeyRing,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Master {
    fn start(hosts: usize) -> Master {
        let dir = tempfile::Builder::new().prefix("tidegate-bench-").tempdir().expect("a folder");
        let key = ActivationKey::generate().expect("a key");
        let layout = ClusterLayout::make(dir.path(), 0, &key.to_text(), &Default::default()).expect("a layout");
        let lists = layout.master.dir.join("lists");
        fs::create_dir_all(&lists).expect("a folder");
        let list: String = (0..hosts).map(|host| format!("host-{host}.bench.test\n")).collect();
        fs::write(lists.join("bench.txt"), list).expect("a list");
        let process = spawn(&layout);
        let master = Master { layout, ring: KeyRing::of(key), process, _dir: dir };
        master.wait();
        master
    }

    fn wait(&self) {
        let until = Instant::now() + PATIENCE;
        while !matches!(control::ask(&self.layout.master.control, &Action::Status), Ok(Ok(_))) {
            assert!(Instant::now() < until, "the master does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn restart(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
        self.process = spawn(&self.layout);
    }

    /// Applies a policy whose one rule allows `address`; answers the snapshot's name.
    fn apply(&self, with_hosts: bool, address: &str) -> String {
        let category = if with_hosts { "[[categories]]\nname = \"BENCH\"\nfiles = [\"bench.txt\"]\n" } else { "" };
        let document = format!("[[access_restriction.allow]]\naddresses = [\"{address}\"]\n{category}");
        let action = Action::PolicyApply { document, comment: "a bench".into(), base: None, how: Default::default() };
        match control::ask(&self.layout.master.control, &action) {
            Ok(Ok(Outcome::Applied { snapshot, .. })) => snapshot,
            other => panic!("apply: {other:?}"),
        }
    }

    /// CPU time of all its threads, in seconds.
    fn cpu_s(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the master's threads");
        tasks.filter_map(|task| Some(schedstat_s(&task.ok()?.path().join("schedstat")))).sum()
    }

    fn resident_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("the master's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1_024
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(layout: &ClusterLayout) -> Child {
    let log = fs::File::create(layout.master.dir.join("journal")).expect("a journal");
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["run", "--config"])
        .arg(&layout.master.config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("starting a master")
}

/// What all simulated slaves tell the one who measures.
#[derive(Default)]
struct Seen {
    /// Slaves whose last poll was answered and that speak to the master now.
    up: AtomicU64,
    /// Answers to polls.
    polls: AtomicU64,
    /// Bytes of policy fetched.
    fetched: AtomicU64,
    /// Handshakes, and those that a ticket of an earlier one made short.
    connected: AtomicU64,
    resumed: AtomicU64,
    /// What slaves with the policy of this hash know.
    known: Mutex<Option<(String, Arc<Known>)>>,
    /// Tasks that slaves have begun, and those of which the master has their word.
    tasks_begun: AtomicU64,
    tasks_told: AtomicU64,
}

/// The way to the master that a slave takes; says which of its handshakes were resumed.
fn counting(address: SocketAddr, identity: Arc<NodeIdentity>, seen: Arc<Seen>) -> Way {
    Arc::new(move || {
        let (identity, seen) = (identity.clone(), seen.clone());
        Box::pin(async move {
            let stream = dial(&address.to_string(), &identity).await?;
            seen.resumed.fetch_add(u64::from(stream.is_resumed()), Ordering::Relaxed);
            Ok(Box::new(stream) as Box<dyn Line>)
        })
    })
}

/// One of them.
struct Slave {
    name: String,
    master: MasterAddress,
    epoch: Epoch,
    seen: Arc<Seen>,
    /// The policy it reports as enforced, for whoever waits.
    have: watch::Sender<String>,
    connection: Option<(Connection, String)>,
    /// The pieces of the policy it has.
    known: Arc<Known>,
    /// Its list of tasks, and what it began of all it ever had.
    tasks_revision: u64,
    tasks_begun: HashSet<String>,
}

/// Of a policy: its pieces, and the nodes of their tree.
#[derive(Default)]
struct Known {
    pieces: HashSet<Entry>,
    nodes: HashMap<Entry, Vec<u8>>,
}

impl Slave {
    fn new(number: usize, address: SocketAddr, ring: &KeyRing, seen: &Arc<Seen>) -> Slave {
        let name = format!("slave-{number}");
        let key = NodeKey::generate().expect("a key");
        let identity = NodeIdentity::new(ring, key, &name, "slave", Wall::now()).expect("an identity");
        let epoch = Epoch(std::array::from_fn(|at| (number >> (8 * (at % 4))) as u8));
        let master =
            MasterAddress::over(counting(address, identity.clone(), seen.clone()), address.to_string(), identity);
        Slave {
            name,
            master,
            epoch,
            seen: seen.clone(),
            have: watch::channel(NOTHING.to_string()).0,
            connection: None,
            known: Arc::default(),
            tasks_revision: 0,
            tasks_begun: HashSet::new(),
        }
    }

    /// Polls until the program ends; comes back when the connection breaks.
    async fn run(mut self) {
        loop {
            if self.turn().await.is_err() {
                if self.connection.take().is_some_and(|(_, session)| !session.is_empty()) {
                    self.seen.up.fetch_sub(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Trouble> {
        if self.connection.is_none() {
            self.connection = Some((Connection::open(&self.master).await?, String::new()));
            self.seen.connected.fetch_add(1, Ordering::Relaxed);
            let session = self.hello().await?;
            self.seen.up.fetch_add(1, Ordering::Relaxed);
            self.connection.as_mut().expect("just made").1 = session;
            self.tasks_revision = 0;
        }
        let have = self.have.borrow().clone();
        let (seen, tasks_revision) = (have.clone(), self.tasks_revision);
        let (figures, offer) = (figures(), offer());
        let poll = Poll { seen, have, hold_ms: HOLD_MS, figures, offer, tasks_revision, ..Poll::default() };
        let reply: PollReply = self.ask("POST", protocol::POLL_PATH, protocol::encode(&poll)).await?;
        self.seen.polls.fetch_add(1, Ordering::Relaxed);
        if reply.hash != *self.have.borrow() {
            self.fetch(&reply.hash).await?;
            self.have.send_replace(reply.hash);
        }
        if let Some(list) = reply.tasks {
            self.carry_out(list);
        }
        Ok(())
    }

    /// Fetches of a snapshot what the one before did not have, as a slave does, and keeps none of it but hashes.
    async fn fetch(&mut self, hash: &str) -> Result<(), Trouble> {
        let manifest = self.counted("GET", &format!("{}{hash}", protocol::MANIFEST_PATH), Vec::new()).await?;
        let manifest = Manifest::decode(&manifest).expect("a manifest");
        let (known, mut now) = (self.known.clone(), Known::default());
        let mut missing = Vec::new();
        for section in &manifest.sections {
            let mut entries = section.top.clone();
            for level in (0..section.depth).rev() {
                let unknown: Vec<Entry> = entries.iter().filter(|e| !known.nodes.contains_key(*e)).copied().collect();
                let mut come = self.pieces(hash, &unknown, true).await?.into_iter();
                let nodes: Vec<Vec<u8>> = entries
                    .iter()
                    .map(|entry| known.nodes.get(entry).cloned().unwrap_or_else(|| come.next().expect("a node")))
                    .collect();
                now.nodes.extend(entries.iter().copied().zip(nodes.iter().cloned()));
                entries = section.descend(&nodes, level == 0).expect("nodes");
            }
            missing.extend(entries.iter().filter(|entry| !known.pieces.contains(*entry)));
            now.pieces.extend(entries);
        }
        self.pieces(hash, &missing, false).await?;
        // Slaves with one policy know the same: kept once for all of them.
        let mut shared = self.seen.known.lock().expect("no panic");
        let kept = shared.as_ref().filter(|(of, _)| of == hash).map(|(_, known)| known.clone());
        self.known = kept.unwrap_or_else(|| Arc::new(now));
        *shared = Some((hash.to_string(), self.known.clone()));
        Ok(())
    }

    async fn pieces(&mut self, hash: &str, wanted: &[Entry], keep: bool) -> Result<Vec<Vec<u8>>, Trouble> {
        let (path, mut come, mut done) = (format!("{}{hash}", protocol::PIECES_PATH), Vec::new(), 0);
        while done < wanted.len() {
            let batch = fitting(&wanted[done..]);
            let packed = self.counted("POST", &path, batch.iter().flat_map(|entry| entry.hash).collect()).await?;
            if keep {
                let length = batch.iter().map(|entry| entry.length as usize).sum();
                let bytes = zstd::bulk::decompress(&packed, length).expect("pieces");
                come.extend(split(batch, &bytes).expect("pieces").into_iter().map(<[u8]>::to_vec));
            }
            done += batch.len();
        }
        Ok(come)
    }

    async fn counted(&mut self, method: &str, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Trouble> {
        let bytes = self.bytes(method, path, body).await?;
        self.seen.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    async fn hello(&mut self) -> Result<String, Trouble> {
        let hello = Hello {
            build: protocol::Build::this(),
            node: self.name.clone(),
            role: "slave".into(),
            epoch: self.epoch.to_string(),
            clock_us: Wall::now().0,
            snapshot: String::new(),
            offer: offer(),
            synctime_ms: HOLD_MS,
        };
        match self.ask("POST", protocol::HELLO_PATH, protocol::encode(&hello)).await? {
            HelloReply::Welcome(welcome) => Ok(welcome.session),
            HelloReply::Refused { why } => panic!("{}: {}", self.name, why.words()),
        }
    }

    async fn ask<M: protocol::Message>(&mut self, method: &str, path: &str, body: Vec<u8>) -> Result<M, Trouble> {
        let bytes = self.bytes(method, path, body).await?;
        protocol::decode(&bytes).map_err(|error| Trouble::Answer(error.to_string()))
    }

    async fn bytes(&mut self, method: &str, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Trouble> {
        let (connection, session) = self.connection.as_mut().expect("a connection");
        let fields = [(protocol::SESSION_FIELD, session.clone())];
        let method = method.parse().expect("a method");
        let answer = connection.ask(method, path, &fields, body, usize::MAX >> 1, PATIENCE).await?;
        match answer.status.as_u16() {
            200 => Ok(answer.body.to_vec()),
            401 => Err(Trouble::NoSession),
            status => Err(Trouble::Answer(format!("{status}: {}", String::from_utf8_lossy(&answer.body)))),
        }
    }
}

/// As long as those of a busy node.
fn figures() -> Figures {
    let busy = |value: &mut serde_json::Value| match value {
        serde_json::Value::Array(all) => all.iter_mut().for_each(|one| *one = 1_234_567_890u64.into()),
        one => *one = 1_234_567_890u64.into(),
    };
    let mut value = serde_json::to_value(Figures::default()).expect("figures");
    value.as_object_mut().expect("an object").values_mut().for_each(busy);
    serde_json::from_value(value).expect("figures")
}

fn offer() -> Offer {
    Offer {
        listen: vec!["[::]:8080".into()],
        portal: "[::]:8888".into(),
        proxy_protocol: "off".into(),
        weight: 100,
        draining: false,
        closing: false,
    }
}

/// Slaves that run on a thread of their own beside the one who measures.
fn start_slaves(master: &Master, slaves: usize) -> (tokio::runtime::Runtime, Arc<Seen>, Vec<watch::Receiver<String>>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let seen = Arc::new(Seen::default());
    let made: Vec<Slave> =
        (0..slaves).map(|number| Slave::new(number, master.layout.master.portal, &master.ring, &seen)).collect();
    let have = made.iter().map(|slave| slave.have.subscribe()).collect();
    for slave in made {
        runtime.spawn(slave.run());
    }
    (runtime, seen, have)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

fn idle(slaves: usize, seconds: usize) {
    let master = Master::start(0);
    master.apply(false, "192.0.2.1");
    let (_runtime, seen, _) = start_slaves(&master, slaves);
    wait_for("all slaves up", || seen.up.load(Ordering::Relaxed) == slaves as u64);
    std::thread::sleep(Duration::from_secs(HOLD_MS / 1_000 + 1));
    let (cpu, polls, began) = (master.cpu_s(), seen.polls.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds as u64));
    let (cpu, polls) = (master.cpu_s() - cpu, seen.polls.load(Ordering::Relaxed) - polls);
    let share = 100.0 * cpu / began.elapsed().as_secs_f64();
    println!(
        "idle: {slaves} slaves, {polls} polls in {seconds} s: {share:.1} % of a core, {:.0} us a poll, {} MiB resident",
        1e6 * cpu / polls as f64,
        master.resident_mib()
    );
}

fn storm(slaves: usize) {
    let mut master = Master::start(0);
    master.apply(false, "192.0.2.1");
    let (_runtime, seen, _) = start_slaves(&master, slaves);
    let first = wait_for("all slaves up", || seen.up.load(Ordering::Relaxed) == slaves as u64);
    println!("storm: {slaves} new slaves joined in {:.2} s, master's CPU {:.2} s", first.as_secs_f64(), master.cpu_s());
    std::thread::sleep(Duration::from_secs(2));
    for round in 1..=3 {
        let (connected, resumed) = (seen.connected.load(Ordering::Relaxed), seen.resumed.load(Ordering::Relaxed));
        master.restart();
        let again = || seen.connected.load(Ordering::Relaxed) >= connected + slaves as u64;
        let back = wait_for("all slaves back", || again() && seen.up.load(Ordering::Relaxed) == slaves as u64);
        println!(
            "storm: kill -9 {round}: all {slaves} back in {:.2} s, {} of {} handshakes resumed, CPU of the new master {:.2} s",
            back.as_secs_f64(),
            seen.resumed.load(Ordering::Relaxed) - resumed,
            seen.connected.load(Ordering::Relaxed) - connected,
            master.cpu_s()
        );
        std::thread::sleep(Duration::from_secs(2));
    }
}

fn apply(slaves: usize, hosts: usize, applies: usize) {
    let master = Master::start(hosts);
    let began = Instant::now();
    master.apply(hosts > 0, "192.0.2.1");
    println!("apply: first, {hosts} hosts: {:.2} s", began.elapsed().as_secs_f64());
    let (_runtime, seen, have) = start_slaves(&master, slaves);
    wait_for("all slaves up with a policy", || have.iter().all(|have| *have.borrow() != NOTHING));
    let mut took = Vec::new();
    for number in 0..applies {
        let before: Vec<String> = have.iter().map(|have| have.borrow().clone()).collect();
        let (cpu, fetched, began) = (master.cpu_s(), seen.fetched.load(Ordering::Relaxed), Instant::now());
        master.apply(hosts > 0, &format!("192.0.2.{}", number % 200 + 2));
        let compiled = began.elapsed();
        wait_for("all slaves with the new policy", || {
            have.iter().zip(&before).all(|(have, before)| *have.borrow() != *before)
        });
        took.push(began.elapsed());
        println!(
            "apply: {slaves} slaves, {hosts} hosts: answered after {:.3} s, last slave after {:.3} s; master's CPU {:.2} s; {:.1} KiB to each slave",
            compiled.as_secs_f64(),
            began.elapsed().as_secs_f64(),
            master.cpu_s() - cpu,
            (seen.fetched.load(Ordering::Relaxed) - fetched) as f64 / 1024.0 / slaves as f64
        );
    }
    took.sort_unstable();
    println!(
        "apply: median {:.3} s, slowest {:.3} s; {} MiB resident",
        took[took.len() / 2].as_secs_f64(),
        took[took.len() - 1].as_secs_f64(),
        master.resident_mib()
    );
}

fn ingest(slaves: usize, records: usize) {
    let master = Master::start(0);
    master.apply(false, "192.0.2.1");
    let seen = Arc::new(Seen::default());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let batches: Vec<Vec<Vec<u8>>> = (0..slaves).map(|slave| batches(slave, records)).collect();
    let (cpu, began) = (master.cpu_s(), Instant::now());
    let senders: Vec<_> = batches
        .into_iter()
        .enumerate()
        .map(|(number, batches)| {
            runtime.spawn(send(Slave::new(number, master.layout.master.portal, &master.ring, &seen), batches))
        })
        .collect();
    for sender in senders {
        runtime.block_on(sender).expect("a slave that sends");
    }
    let (took, all) = (began.elapsed().as_secs_f64(), (slaves * records) as f64);
    let cpu = master.cpu_s() - cpu;
    let bytes: u64 = ["records.db", "records.db-wal"]
        .iter()
        .filter_map(|file| fs::metadata(master.layout.master.dir.join("state").join(file)).ok())
        .map(|file| file.len())
        .sum();
    println!(
        "ingest: {slaves} slaves, {all} records durable in {took:.2} s: {:.0} records/s, {:.1} us of the master's CPU and {:.0} bytes on disk for each",
        all / took,
        1e6 * cpu / all,
        bytes as f64 / all
    );
}

async fn send(mut slave: Slave, batches: Vec<Vec<u8>>) {
    let connection = Connection::open(&slave.master).await.expect("a connection");
    slave.connection = Some((connection, String::new()));
    let session = slave.hello().await.expect("a session");
    slave.connection.as_mut().expect("just made").1 = session;
    for batch in batches {
        slave.bytes("POST", protocol::RECORDS_PATH, batch).await.expect("an answer to a batch");
    }
}

/// Records as a day's traffic has them: few clients, some hosts, many paths.
fn batches(slave: usize, records: usize) -> Vec<Vec<u8>> {
    let node = format!("slave-{slave}");
    let epoch = Epoch(std::array::from_fn(|at| (slave >> (8 * (at % 4))) as u8));
    let mut packer = Packer::new().expect("a packer");
    let began_us = Wall::now().0 - 3_600_000_000;
    let record = |seq: u64| {
        let dice = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seq >> 7;
        let host = format!("www.host-{}.test", dice % 500);
        Record {
            seq,
            record_id: format!("{}-{}-{}-boot", began_us / 1_000_000 + seq as i64 / 1_000, dice % 9_000, seq),
            client_id: dice % 9_000,
            request_id: (seq % 50) as u32,
            elapsed_ms: dice % 300,
            status: if dice.is_multiple_of(9) { 403 } else { 200 },
            upload: 300 + dice % 500,
            download: dice % 60_000,
            client_ip: format!("10.0.{}.{}", dice % 4, dice % 250),
            method: "GET".into(),
            url: format!("http://{host}/path/{}/{}.html", dice % 97, dice % 10_007),
            useragent: format!("Mozilla/5.0 (X11; Linux x86_64) bench/{}", dice % 7),
            mime: "text/html".into(),
            peer: host.clone(),
            request_host: host,
            node: node.clone(),
            ended_us: began_us + seq as i64 * 1_000,
            snapshot: "1-0123456789ab".into(),
            rule: "access_profiles/1".into(),
            ..Record::default()
        }
    };
    let seqs: Vec<u64> = (1..=records as u64).collect();
    seqs.chunks(BATCH_RECORDS)
        .map(|seqs| {
            packer
                .pack(&node, epoch, &Lines::of(&seqs.iter().map(|seq| record(*seq)).collect::<Vec<_>>()))
                .expect("a batch")
        })
        .collect()
}

/// One core's records to the log and back, with everything a node does with them: chain, syncs, rotation.
fn log(records: usize) {
    let dir = tempfile::Builder::new().prefix("tidegate-bench-").tempdir().expect("a folder");
    let config = LogConfig {
        state_dir: dir.path().join("state"),
        log_dir: dir.path().join("log"),
        node: "edge-1".to_string(),
        epoch: Epoch([7; 16]),
        cores: 1,
        file_bytes_max: 1 << 28,
        sync_ms: 200,
        count_when_full: false,
        keep_days: 30,
    };
    let (log, mut desks) = Log::start(config).expect("a log");
    let mut desk = desks.remove(0);
    let (others, began) = (cpu_of_others_s(), Instant::now());
    let own = thread_cpu_s();
    for number in 0..records {
        record(&mut desk, number as u64);
    }
    let (own, offered) = (thread_cpu_s() - own, began.elapsed());
    let progress = log.progress();
    wait_for("all records durable", || progress.borrow().durable >= records as u64);
    let took = began.elapsed().as_secs_f64();
    println!(
        "log: {records} records of one core durable in {took:.2} s (offered in {:.2}): {:.0} records/s, {:.2} us of the core (waiting for room included) and {:.2} us of the log writer for each",
        offered.as_secs_f64(),
        records as f64 / took,
        1e6 * own / records as f64,
        1e6 * (cpu_of_others_s() - others) / records as f64
    );
    let (mut packer, mut reader) = (Packer::new().expect("a packer"), log.reader().expect("a reader"));
    reader.resume_after(0).expect("the beginning");
    let (mut read, mut bytes, own, began) = (0, 0, thread_cpu_s(), Instant::now());
    loop {
        let lines = reader.next_batch(BATCH_RECORDS, tidegate::limits::BATCH_BYTES_MAX / 2).expect("a batch");
        if lines.is_empty() {
            break;
        }
        read += lines.len();
        bytes += packer.pack("edge-1", Epoch([7; 16]), &lines).expect("a batch").len();
    }
    let (took, own) = (began.elapsed().as_secs_f64(), thread_cpu_s() - own);
    println!(
        "log: {read} read back and packed in {took:.2} s: {:.0} records/s, {:.2} us of CPU and {:.0} bytes on the wire for each",
        read as f64 / took,
        1e6 * own / read as f64,
        bytes as f64 / read as f64
    );
    log.stop();
}

fn record(desk: &mut RecordDesk, number: u64) {
    let dice = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let (host, url) = (
        format!("www.host-{}.test", dice % 500),
        format!("http://www.host-{}.test/path/{}.html", dice % 500, dice % 10_007),
    );
    let draft = Draft {
        client_id: dice % 9_000,
        request_id: (number % 50) as u32 + 1,
        started_us: Wall::now().0,
        method: b"GET",
        url: url.as_bytes(),
        useragent: b"Mozilla/5.0 (X11; Linux x86_64) bench/1.0",
        mime: b"text/html",
        request_host: &host,
        peer: &host,
        snapshot: "1-0123456789ab",
        rule: "access_profiles/1",
        ..Draft::default()
    };
    let ended = Ended {
        status: 200,
        download: dice % 60_000,
        ended_us: Wall::now().0,
        ending: Ending::COMPLETE,
        ..Ended::default()
    };
    let open = loop {
        match desk.open(&draft, &ended) {
            Ok(open) => break open,
            // All slots hold records that the log writer has yet to carry away.
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    };
    open.close(&ended);
}

fn thread_cpu_s() -> f64 {
    schedstat_s(Path::new("/proc/thread-self/schedstat"))
}

/// CPU time of this process's threads but the one that asks.
fn cpu_of_others_s() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    tasks.filter_map(|task| Some(schedstat_s(&task.ok()?.path().join("schedstat")))).sum::<f64>() - thread_cpu_s()
}

fn schedstat_s(path: &Path) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}
