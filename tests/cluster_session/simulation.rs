//! The sessions of sidecar, shipper and master over a network that exists in memory and in a time of its own: lines are slow, end in the
//! middle of a message, or are not to be had; what was said on a line that ended arrives late, behind what was said on the next, or twice;
//! slaves and master die at any moment and come back with what was on disk. Thousands of seeds, each an hour of trouble in some milliseconds.
//!
//! What must hold in every moment: no slave enforces what was not applied on the master, nor an older policy after a newer one; nothing is
//! acknowledged that is not stored; nothing is stored twice or out of its order. And when the trouble is over: every slave enforces the
//! newest policy, and every record is stored. The master's store is a table in memory ([`crate::stores`]), and under some seeds the real one.
//!
//! `TIDEGATE_SIMULATION_SEEDS=20000 cargo test --test cluster_session simulation`; `TIDEGATE_SIMULATION_SEED=7` repeats one.

use crate::dice::Dice;
use crate::dice::number_in;
use crate::stores::Kept;
use crate::stores::RealStore;
use crate::stores::StoreInMemory;
use crate::world::FakeLog;
use crate::world::open_policy;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::base::clock::Wall;
use tidegate::cluster::client::Line;
use tidegate::cluster::client::MasterAddress;
use tidegate::cluster::client::Way;
use tidegate::cluster::held;
use tidegate::cluster::master::MasterConfig;
use tidegate::cluster::master::MasterService;
use tidegate::cluster::protocol::Build;
use tidegate::cluster::shipper::RemoteSink;
use tidegate::cluster::shipper::ShipStatus;
use tidegate::cluster::shipper::Source;
use tidegate::cluster::shipper::ship;
use tidegate::cluster::sidecar::Sidecar;
use tidegate::cluster::sidecar::SlaveConfig;
use tidegate::cluster::sidecar::Vitals;
use tidegate::log::Progress;
use tidegate::policy::Publish;
use tidegate::policy::Snapshot;
use tidegate::record::Epoch;
use tidegate::record::lines::Lines;
use tidegate::store::members::Members;
use tidegate::tls::activation::ActivationKey;
use tidegate::tls::dial::DialFault;
use tidegate::tls::identity::NodeIdentity;
use tidegate::tls::identity::PeerIdentity;
use tidegate::tls::keyring::KeyRing;
use tidegate::tls::node_key::NodeKey;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

/// Seeds of a run in `tests/run`.
const SEEDS: u64 = 2_000;
/// And with the real store, which works ten times as long.
const SEEDS_WITH_REAL_STORE: u64 = 200;
/// What befalls the cluster under one seed.
const STEPS: u64 = 25;
pub const SLAVES: usize = 2;
/// Policies there are to apply: compiled once for all seeds.
const POLICIES: u64 = 1 + STEPS;
/// What a line holds in each direction.
const PIPE_BYTES: usize = 16 * 1024;
/// How long what arrives late, or again, may take.
const LATE_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take after the last trouble until all is well, in the simulation's time.
const SETTLED_WITHIN: Duration = Duration::from_secs(300);

#[test]
fn whatever_network_and_crashes_do_no_foreign_policy_is_enforced_and_no_record_is_lost_or_doubled() {
    play_all(SEEDS, Arc::<StoreInMemory>::default);
}

#[test]
fn the_same_holds_with_the_store_that_a_master_has() {
    play_all(SEEDS_WITH_REAL_STORE, || Arc::new(RealStore::new(in_memory())));
}

fn play_all<S: Kept + 'static>(seeds: u64, store: impl Fn() -> Arc<S> + Sync) {
    let seeds = match number_in("TIDEGATE_SIMULATION_SEED") {
        Some(one) => one..one + 1,
        None => 0..number_in("TIDEGATE_SIMULATION_SEEDS").unwrap_or(seeds),
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let account = Mutex::new([0; 4]);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (store, mine, account) = (&store, seeds.clone().skip(worker).step_by(workers), &account);
            scope.spawn(move || {
                for seed in mine {
                    let played = runtime().block_on(play(seed, store()));
                    account.lock().unwrap().iter_mut().zip(played).for_each(|(all, more)| *all += more);
                }
            });
        }
    });
    let [applied, stored, lines, repeated] = account.into_inner().unwrap();
    println!("{applied} policies applied, {stored} records stored, {lines} lines opened, {repeated} repeated");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // One after the other, as a seed must play out the same way again.
        .max_blocking_threads(1)
        .build()
        .unwrap()
}

/// Plays one seed; answers how much came of it.
async fn play(seed: u64, store: Arc<dyn Kept>) -> [u64; 4] {
    let mut world = World::new(seed, store);
    for _ in 0..STEPS {
        world.step().await;
        world.law.check(seed);
    }
    world.settle().await;
    let unproven = world.law.store.unproven();
    assert!(unproven.is_empty(), "TIDEGATE_SIMULATION_SEED={seed}: {unproven:?}");
    world.law.check(seed);
    let net = world.net.lock().unwrap();
    [world.applied, world.law.store.count(), net.opened, net.repeated]
}

/// What must hold, and what was seen to break it.
struct Law {
    applied: Mutex<BTreeSet<String>>,
    store: Arc<dyn Kept>,
    broken: Mutex<Vec<String>>,
}

impl Law {
    fn break_with(&self, words: String) {
        self.broken.lock().unwrap().push(words);
    }

    fn check(&self, seed: u64) {
        let broken: Vec<_> = self.broken.lock().unwrap().iter().cloned().chain(self.store.broken()).collect();
        assert!(broken.is_empty(), "TIDEGATE_SIMULATION_SEED={seed}: {broken:?}");
    }
}

/// The network: who can reach the master, and the lines there are.
struct Net {
    dice: Dice,
    master: Option<Arc<MasterService>>,
    /// Slaves whose cable is out.
    cut: [bool; SLAVES],
    /// Tells the lines of a slave that its cable, or its master, went.
    ends: [watch::Sender<u64>; SLAVES],
    /// What serves at the master's end.
    serving: Vec<AbortHandle>,
    opened: u64,
    /// Lines on which a slave's words arrived a second time.
    repeated: u64,
}

struct World {
    seed: u64,
    dice: Dice,
    law: Arc<Law>,
    net: Arc<Mutex<Net>>,
    ring: KeyRing,
    policy: watch::Sender<Arc<Snapshot>>,
    applied: u64,
    members: TempDir,
    slaves: Vec<SimSlave>,
}

/// A slave: what is on its disk, and what runs.
struct SimSlave {
    identity: Arc<NodeIdentity>,
    peer: PeerIdentity,
    epoch: Epoch,
    disk: TempDir,
    log: SimLog,
    enforced: Arc<Mutex<String>>,
    running: Vec<AbortHandle>,
}

impl World {
    fn new(seed: u64, store: Arc<dyn Kept>) -> World {
        let (ring, identities) = keys();
        let law = Arc::new(Law { applied: Mutex::default(), store, broken: Mutex::default() });
        let net = Net {
            dice: Dice(!seed),
            master: None,
            cut: [false; SLAVES],
            ends: std::array::from_fn(|_| watch::channel(0).0),
            serving: Vec::new(),
            opened: 0,
            repeated: 0,
        };
        let slaves = (0..SLAVES).map(|number| {
            let name = name_of(number);
            SimSlave {
                identity: identities[number].clone(),
                peer: identities[number].as_seen().unwrap(),
                epoch: epoch_of(number),
                disk: in_memory(),
                log: SimLog { log: FakeLog::new(&name), number, law: law.clone() },
                enforced: Arc::default(),
                running: Vec::new(),
            }
        });
        let mut world = World {
            seed,
            dice: Dice(seed),
            net: Arc::new(Mutex::new(net)),
            ring: ring.clone(),
            policy: watch::channel(policies()[0].clone()).0,
            applied: 0,
            members: in_memory(),
            slaves: slaves.collect(),
            law,
        };
        world.law.applied.lock().unwrap().insert(policies()[0].name().to_string());
        world.start_master();
        (0..SLAVES).for_each(|number| world.start_slave(number));
        world
    }

    async fn step(&mut self) {
        let slave = self.dice.roll(SLAVES as u64) as usize;
        match self.dice.roll(10) {
            0..=2 => self.apply(),
            3..=5 => self.slaves[slave].log.log.append(1 + self.dice.roll(40) as usize),
            6 => self.cut(slave, true),
            7 => (0..SLAVES).for_each(|slave| self.cut(slave, false)),
            8 => {
                self.stop_master();
                // Its death shows at once or after a while.
                sleep(Duration::from_millis(self.dice.roll(4_000))).await;
                self.start_master();
            }
            _ => {
                self.stop_slave(slave).await;
                self.start_slave(slave);
            }
        }
        sleep(Duration::from_millis(self.dice.roll(3_000))).await;
    }

    /// No trouble any more; comes back when all is as it must be.
    async fn settle(&mut self) {
        (0..SLAVES).for_each(|slave| self.cut(slave, false));
        let newest = self.policy.borrow().name().to_string();
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let enforced = self.slaves.iter().all(|slave| *slave.enforced.lock().unwrap() == newest);
            let stored = self.slaves.iter().all(|slave| {
                let written = slave.log.log.progress().borrow().written;
                self.law.store.highest_of(slave.log.number) == written
                    && slave.log.log.cursor.load(Ordering::SeqCst) == written
            });
            if enforced && stored {
                return;
            }
            assert!(
                Instant::now() < until,
                "TIDEGATE_SIMULATION_SEED={}: not settled: policies {enforced}, records {stored}",
                self.seed
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn apply(&mut self) {
        self.applied += 1;
        let next = policies()[self.applied as usize].clone();
        self.law.applied.lock().unwrap().insert(next.name().to_string());
        self.policy.send_replace(next);
    }

    fn cut(&mut self, slave: usize, cut: bool) {
        let mut net = self.net.lock().unwrap();
        net.cut[slave] = cut;
        if cut {
            net.ends[slave].send_modify(|end| *end += 1);
        }
    }

    fn start_master(&mut self) {
        self.law.store.open_again();
        let config = MasterConfig {
            node: "m".into(),
            build: Build::this(),
            current: self.policy.subscribe(),
            records: self.law.store.clone(),
            signer: self.ring.signer().unwrap(),
            members: Arc::new(Members::open(self.members.path()).unwrap()),
        };
        self.net.lock().unwrap().master = Some(MasterService::new(config));
    }

    fn stop_master(&mut self) {
        let mut net = self.net.lock().unwrap();
        net.master = None;
        net.serving.drain(..).for_each(|serving| serving.abort());
        net.ends.iter().for_each(|end| end.send_modify(|end| *end += 1));
    }

    fn start_slave(&mut self, number: usize) {
        let slave = &mut self.slaves[number];
        let held = held::load(slave.disk.path());
        let synced = held.as_ref().map(|held| held.synced);
        let current = Arc::new(held.map_or_else(Snapshot::builtin, |held| held.snapshot));
        *slave.enforced.lock().unwrap() = current.name().to_string();
        let way = way(self.net.clone(), number, slave.peer.clone());
        let master = MasterAddress::over(way, "the master".into(), slave.identity.clone());
        let config = SlaveConfig {
            master: master.clone(),
            build: Build::this(),
            epoch: slave.epoch,
            state_dir: slave.disk.path().to_path_buf(),
            synctime_ms: Arc::new(60_000.into()),
            signer: Arc::new(self.ring.signer().unwrap()),
            own: None,
        };
        let publish = publish(self.law.clone(), self.net.clone(), slave.enforced.clone());
        let (sidecar, handle) = Sidecar::new(config, current, synced, publish, Arc::new(Vitals::default));
        let sink = RemoteSink::new(master, slave.epoch, handle.session.clone());
        let (status, _) = watch::channel(ShipStatus::default());
        slave.running = vec![
            tokio::spawn(sidecar.run()).abort_handle(),
            tokio::spawn(ship(slave.log.clone(), sink, status)).abort_handle(),
        ];
    }

    async fn stop_slave(&mut self, number: usize) {
        self.slaves[number].running.drain(..).for_each(|running| running.abort());
        self.net.lock().unwrap().ends[number].send_modify(|end| *end += 1);
        // What it had begun to write is written or not; nobody writes on after its death.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    }
}

/// The cores of a slave: they take what they are given, or now and then cannot.
fn publish(law: Arc<Law>, net: Arc<Mutex<Net>>, enforced: Arc<Mutex<String>>) -> Publish {
    Arc::new(move |snapshot| {
        let (law, net, enforced) = (law.clone(), net.clone(), enforced.clone());
        Box::pin(async move {
            if net.lock().unwrap().dice.roll(20) == 0 {
                return Err("a core did not answer (a simulation)".to_string());
            }
            let mut enforced = enforced.lock().unwrap();
            let version =
                |name: &str| name.split('-').next().and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
            if !law.applied.lock().unwrap().contains(snapshot.name()) {
                law.break_with(format!("{} was never applied", snapshot.name()));
            }
            if version(snapshot.name()) < version(&enforced) {
                law.break_with(format!("{} after {enforced}", snapshot.name()));
            }
            *enforced = snapshot.name().to_string();
            Ok(())
        })
    })
}

/// A slave's way to the master.
fn way(net: Arc<Mutex<Net>>, slave: usize, peer: PeerIdentity) -> Way {
    Arc::new(move || {
        let (net, peer) = (net.clone(), peer.clone());
        Box::pin(async move {
            let wait = net.lock().unwrap().dice.roll(300);
            sleep(Duration::from_millis(wait)).await;
            open(&net, slave, peer).map(|line| Box::new(line) as Box<dyn Line>).map_err(DialFault::Unreachable)
        }) as Pin<Box<dyn Future<Output = _> + Send>>
    })
}

fn open(net: &Arc<Mutex<Net>>, slave: usize, peer: PeerIdentity) -> io::Result<DuplexStream> {
    let mut held = net.lock().unwrap();
    let refused = held.cut[slave] || held.dice.roll(10) == 0;
    let Some(master) = held.master.clone().filter(|_| !refused) else {
        return Err(io::ErrorKind::ConnectionRefused.into());
    };
    held.opened += 1;
    let (near, near_end) = tokio::io::duplex(PIPE_BYTES);
    let far_end = held.served(&master, slave, peer.clone());
    // One line in three ends in the middle of something.
    let bytes = if held.dice.roll(3) == 0 { held.dice.roll(30_000) } else { u64::MAX };
    let (one, other) = (held.dice.roll(1 << 40), held.dice.roll(1 << 40));
    let mut ends = held.ends[slave].subscribe();
    let after = After { late_ms: held.sometimes(30), again_ms: held.sometimes(20) };
    let net = net.clone();
    tokio::spawn(async move {
        let (near_read, near_write) = tokio::io::split(near_end);
        let (far_read, far_write) = tokio::io::split(far_end);
        let mut there = Carrier::new(near_read, far_write, one);
        let mut back = Carrier::new(far_read, near_write, other);
        // The first that ends takes the line with it.
        tokio::select! {
            () = there.carry(bytes) => {}
            () = back.carry(bytes) => {}
            _ = ends.changed() => {}
        }
        let _ = back.to.shutdown().await;
        after.play(there, &net, slave, peer).await;
    });
    Ok(near)
}

impl Net {
    /// A line's end at the slave's side, served at the other by `master`.
    fn served(&mut self, master: &Arc<MasterService>, slave: usize, peer: PeerIdentity) -> DuplexStream {
        let (far_end, far) = tokio::io::duplex(PIPE_BYTES);
        let from = SocketAddr::from(([192, 0, 2, slave as u8 + 1], 40_000));
        self.serving.push(tokio::spawn(master.clone().serve(far, peer, from)).abort_handle());
        far_end
    }

    /// So often, a wait of up to twenty seconds.
    fn sometimes(&mut self, percent: u64) -> Option<u64> {
        self.dice.chance(percent).then(|| self.dice.roll(20_000))
    }
}

/// What becomes of what a slave had said on a line when it ends: nothing more of it arrives, or what is missing arrives late, when the slave has long said
/// other things on other lines; and all of it may arrive once more.
struct After {
    late_ms: Option<u64>,
    again_ms: Option<u64>,
}

impl After {
    async fn play(self, mut there: Carrier, net: &Arc<Mutex<Net>>, slave: usize, peer: PeerIdentity) {
        if let Some(late_ms) = self.late_ms {
            sleep(Duration::from_millis(late_ms)).await;
            let _ = timeout(LATE_WITHIN, there.carry(u64::MAX)).await;
        }
        let said = std::mem::take(&mut there.said);
        drop(there);
        let Some(again_ms) = self.again_ms else { return };
        sleep(Duration::from_millis(again_ms)).await;
        let far_end = {
            let mut held = net.lock().unwrap();
            let Some(master) = held.master.clone() else { return };
            held.repeated += 1;
            held.served(&master, slave, peer)
        };
        let (mut read, mut write) = tokio::io::split(far_end);
        let (mut answers, say) = (Vec::new(), async {
            let _ = write.write_all(&said).await;
            let _ = write.shutdown().await;
        });
        let _ = timeout(LATE_WITHIN, async { tokio::join!(say, read.read_to_end(&mut answers)) }).await;
    }
}

/// One direction of a line.
struct Carrier {
    from: ReadHalf<DuplexStream>,
    to: WriteHalf<DuplexStream>,
    dice: Dice,
    /// On its way.
    pending: Vec<u8>,
    /// All that arrived.
    said: Vec<u8>,
}

impl Carrier {
    fn new(from: ReadHalf<DuplexStream>, to: WriteHalf<DuplexStream>, seed: u64) -> Carrier {
        Carrier { from, to, dice: Dice(seed), pending: Vec::new(), said: Vec::new() }
    }

    /// Carries so many bytes. Whoever stops listening can go on later: what is on its way stays.
    async fn carry(&mut self, mut bytes: u64) {
        let mut buffer = [0; 4_096];
        while bytes > 0 {
            if self.pending.is_empty() {
                let Ok(count @ 1..) = self.from.read(&mut buffer).await else { return };
                self.pending.extend_from_slice(&buffer[..count]);
                sleep(Duration::from_millis(self.dice.roll(100))).await;
            }
            let most = self.pending.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            let Ok(written @ 1..) = self.to.write(&self.pending[..most]).await else { return };
            self.said.extend(self.pending.drain(..written));
            bytes -= written as u64;
        }
    }
}

/// extended.log in memory; it knows what may be acknowledged.
#[derive(Clone)]
struct SimLog {
    log: FakeLog,
    number: usize,
    law: Arc<Law>,
}

impl Source for SimLog {
    fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Arc<Lines>, String> {
        self.log.next_batch(records_max.min(25), bytes_max)
    }
    fn resume_after(&mut self, seq: u64) -> Result<(), String> {
        self.log.resume_after(seq)
    }
    fn acknowledge(&mut self, seq: u64) -> Result<(), String> {
        let stored = self.law.store.highest_of(self.number);
        if stored < seq {
            self.law.break_with(format!("{seq} acknowledged, {stored} stored"));
        }
        self.log.acknowledge(seq)
    }
    fn progress(&self) -> watch::Receiver<Progress> {
        self.log.progress()
    }
}

/// The cluster's key and the slaves' identities: the same under every seed, since making them is what takes time.
fn keys() -> &'static (KeyRing, Vec<Arc<NodeIdentity>>) {
    static KEYS: OnceLock<(KeyRing, Vec<Arc<NodeIdentity>>)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let ring = KeyRing::of(ActivationKey::generate().unwrap());
        let identity = |number| {
            NodeIdentity::new(&ring, NodeKey::generate().unwrap(), &name_of(number), "slave", Wall::now()).unwrap()
        };
        let identities = (0..SLAVES).map(identity).collect();
        (ring, identities)
    })
}

pub fn name_of(slave: usize) -> String {
    format!("s{slave}")
}

pub fn epoch_of(slave: usize) -> Epoch {
    Epoch([slave as u8 + 1; 16])
}

fn policies() -> &'static [Arc<Snapshot>] {
    static POLICIES_MADE: OnceLock<Vec<Arc<Snapshot>>> = OnceLock::new();
    POLICIES_MADE.get_or_init(|| (1..=POLICIES).map(open_policy).collect())
}

/// A folder whose files are in memory, where the machine has such: thousands of seeds write little files.
fn in_memory() -> TempDir {
    let shared = Path::new("/dev/shm");
    let dir = tempfile::Builder::new().prefix("tidegate-simulation-").tempdir_in(shared);
    dir.or_else(|_| TempDir::new()).unwrap()
}
