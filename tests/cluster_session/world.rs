//! A master and slaves on loopback, with real TLS, real policy and a store of records: what the tests of the cluster
//! drive. A master has a runtime of its own, so that it can vanish with all its connections.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::base::clock::Wall;
use tidegate::cluster::NodeRow;
use tidegate::cluster::client::MasterAddress;
use tidegate::cluster::held;
use tidegate::cluster::master::{MasterConfig, MasterService};
use tidegate::cluster::protocol::Build;
use tidegate::cluster::shipper::{RemoteSink, ShipStatus, Source, ship};
use tidegate::cluster::sidecar::{Sidecar, SlaveConfig, SlaveHandle, Vitals};
use tidegate::log::Progress;
use tidegate::policy::{NoFiles, Publish, Snapshot, compile};
use tidegate::record::audit::{AuditQuestion, Proof};
use tidegate::record::lines::Lines;
use tidegate::record::question::{Answer, Question};
use tidegate::record::{Epoch, Record};
use tidegate::report::StoredAccount;
use tidegate::store::members::Members;
use tidegate::store::records::{RecordStore, StoreError};
use tidegate::tls::activation::ActivationKey;
use tidegate::tls::front::{Accepted, Front};
use tidegate::tls::identity::NodeIdentity;
use tidegate::tls::keyring::KeyRing;
use tidegate::tls::node_key::NodeKey;
use tidegate::tls::portal::{PortalNames, load_or_make};
use tidegate::tls::serve::{Patience, Plain, serve};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tower::service_fn;

pub const REFUSAL_TO_PROXY: &str = "This is the master. It carries no client traffic: use a slave.\n";

/// A compiled policy that differs by its version and `comment`.
pub fn policy(version: u64, document: &str) -> Arc<Snapshot> {
    let bytes = compile(document, version, &NoFiles).unwrap_or_else(|complaints| panic!("{complaints:?}"));
    Arc::new(Snapshot::open(&bytes).unwrap())
}

/// A policy that lets everybody in.
pub fn open_policy(version: u64) -> Arc<Snapshot> {
    policy(version, "[access_restriction]\ndefault = \"allow\"\n")
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A master that can be started again at its address after it was dropped.
pub struct Master {
    pub service: Arc<MasterService>,
    pub policy: watch::Sender<Arc<Snapshot>>,
    pub address: SocketAddr,
    runtime: Option<Runtime>,
    pub dir: Arc<TempDir>,
}

impl Master {
    pub fn start(key: &ActivationKey, policy: Arc<Snapshot>, records: Arc<dyn RecordStore>) -> Self {
        Master::start_at("127.0.0.1:0".parse().unwrap(), key, Build::this(), policy, records)
    }

    pub fn start_at(
        address: SocketAddr,
        key: &ActivationKey,
        build: Build,
        policy: Arc<Snapshot>,
        records: Arc<dyn RecordStore>,
    ) -> Self {
        Master::start_with(Arc::new(TempDir::new().unwrap()), address, key, build, policy, records)
    }

    /// One whose state is in `dir`: the next process of a master that was there before.
    pub fn start_in(
        dir: Arc<TempDir>,
        address: SocketAddr,
        key: &ActivationKey,
        policy: Arc<Snapshot>,
        records: Arc<dyn RecordStore>,
    ) -> Self {
        Master::start_with(dir, address, key, Build::this(), policy, records)
    }

    fn start_with(
        dir: Arc<TempDir>,
        address: SocketAddr,
        key: &ActivationKey,
        build: Build,
        policy: Arc<Snapshot>,
        records: Arc<dyn RecordStore>,
    ) -> Self {
        let (policy, current) = watch::channel(policy);
        let signer = key.signer().unwrap();
        let members = Arc::new(Members::open(dir.path()).unwrap());
        let service = MasterService::new(MasterConfig { node: "m".into(), build, current, records, signer, members });
        let serving = service.clone();
        let (runtime, address) = front(address, key, move |accepted| {
            let service = serving.clone();
            async move {
                match accepted {
                    Accepted::Cluster { stream, peer, from } => service.serve(stream, peer, from).await,
                    Accepted::Fault { fault, from } => service.handshake_failed(&fault, from),
                    Accepted::Portal { stream, .. } => {
                        let portal = service_fn(async |_| {
                            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"the portal"))))
                        });
                        serve(stream, portal, Patience::PORTAL, Arc::from(REFUSAL_TO_PROXY), |_| ()).await;
                    }
                }
            }
        });
        Master { service, policy, address, runtime: Some(runtime), dir }
    }

    pub fn row(&self, node: &str) -> Option<NodeRow> {
        self.service.nodes().into_iter().find(|row| row.name == node)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // As sudden as a kill: no connection is closed in an orderly way by the service.
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Port 8888 of some node, in a runtime of its own.
pub fn front<F: Future<Output = ()> + Send + 'static>(
    address: SocketAddr,
    key: &ActivationKey,
    handle: impl Fn(Accepted) -> F + Send + 'static,
) -> (Runtime, SocketAddr) {
    let runtime = runtime();
    let listener = wait_for("the master's port", || std::net::TcpListener::bind(address).ok());
    let address = listener.local_addr().unwrap();
    let dir = TempDir::new().unwrap();
    let portal = load_or_make(dir.path(), &PortalNames::default(), Wall::now()).unwrap();
    let identity =
        NodeIdentity::new(&KeyRing::of(key.clone()), NodeKey::generate().unwrap(), "m", "master", Wall::now()).unwrap();
    let front = Front::new(Some(identity), portal, REFUSAL_TO_PROXY, Plain::nothing());
    let (out, mut accepted) = mpsc::channel(8);
    runtime.spawn(async move { front.run(listener, out).await.unwrap() });
    runtime.spawn(async move {
        while let Some(accepted) = accepted.recv().await {
            tokio::spawn(handle(accepted));
        }
    });
    (runtime, address)
}

/// What may be different about a slave.
pub struct SlaveSpec<'a> {
    pub node: &'a str,
    pub key: &'a ActivationKey,
    pub build: Build,
    pub epoch: Epoch,
    pub state_dir: &'a Path,
    /// The cores' answer to a new policy.
    pub cores: fn(&Snapshot) -> Result<(), String>,
}

impl<'a> SlaveSpec<'a> {
    pub fn new(node: &'a str, key: &'a ActivationKey, state_dir: &'a Path) -> Self {
        let epoch = Epoch([node.bytes().fold(7, u8::wrapping_add); 16]);
        SlaveSpec { node, key, build: Build::this(), epoch, state_dir, cores: |_| Ok(()) }
    }
}

/// A slave without cores: what they would enforce is noted, with the time.
pub struct Slave {
    pub handle: SlaveHandle,
    pub enforced: Arc<Mutex<Vec<(String, Instant)>>>,
    pub master: MasterAddress,
    pub epoch: Epoch,
    _runtime: RunningRuntime,
}

struct RunningRuntime(Option<Runtime>);

impl Drop for RunningRuntime {
    fn drop(&mut self) {
        // Waits for its threads: a runtime that ends lets every timer run out, and a slave that waits to try a policy again would do
        // so on its way out, beside the slave that the test starts next.
        self.0.take().unwrap().shutdown_timeout(Duration::from_secs(10));
    }
}

impl Slave {
    pub fn start(spec: SlaveSpec, master: SocketAddr) -> Self {
        let runtime = runtime();
        let identity = NodeIdentity::new(
            &KeyRing::of(spec.key.clone()),
            NodeKey::load_or_make(spec.state_dir).unwrap(),
            spec.node,
            "slave",
            Wall::now(),
        )
        .unwrap();
        let master = MasterAddress::new(master.to_string(), identity);
        let held = held::load(spec.state_dir);
        let synced = held.as_ref().map(|held| held.synced);
        let current = Arc::new(held.map_or_else(Snapshot::builtin, |held| held.snapshot));
        let enforced = Arc::new(Mutex::new(vec![(current.name().to_string(), Instant::now())]));
        let (noted, cores) = (enforced.clone(), spec.cores);
        let publish: Publish = Arc::new(move |snapshot| {
            let noted = noted.clone();
            Box::pin(async move {
                cores(&snapshot)?;
                noted.lock().unwrap().push((snapshot.name().to_string(), Instant::now()));
                Ok(())
            })
        });
        let config = SlaveConfig {
            master: master.clone(),
            build: spec.build,
            epoch: spec.epoch,
            state_dir: spec.state_dir.to_path_buf(),
            synctime_ms: Arc::new(std::sync::atomic::AtomicU64::new(60_000)),
            signer: Arc::new(spec.key.signer().unwrap()),
            own: None,
        };
        let (sidecar, handle) = Sidecar::new(config, current, synced, publish, Arc::new(Vitals::default));
        runtime.spawn(sidecar.run());
        Slave { handle, enforced, master, epoch: spec.epoch, _runtime: RunningRuntime(Some(runtime)) }
    }

    pub fn policy(&self) -> String {
        self.enforced.lock().unwrap().last().unwrap().0.clone()
    }

    pub fn trouble(&self) -> String {
        self.handle.link.borrow().trouble.clone()
    }

    pub fn up(&self) -> bool {
        self.handle.link.borrow().up
    }

    /// Ships `log` to the master under this slave's session.
    pub fn ship(&self, log: FakeLog) -> (JoinHandle<()>, watch::Receiver<ShipStatus>) {
        let (status, seen) = watch::channel(ShipStatus::default());
        let sink = RemoteSink::new(self.master.clone(), self.epoch, self.handle.session.clone());
        let runtime = self._runtime.0.as_ref().unwrap();
        (runtime.spawn(ship(log, sink, status)), seen)
    }
}

/// extended.log in memory, with its cursor.
#[derive(Clone)]
pub struct FakeLog {
    node: String,
    lines: Arc<Mutex<Vec<Record>>>,
    next: usize,
    pub cursor: Arc<AtomicU64>,
    progress: watch::Sender<Progress>,
}

impl FakeLog {
    pub fn new(node: &str) -> Self {
        let progress = watch::channel(Progress::default()).0;
        FakeLog { node: node.into(), lines: Arc::default(), next: 0, cursor: Arc::default(), progress }
    }

    pub fn append(&self, count: usize) {
        let mut lines = self.lines.lock().unwrap();
        for _ in 0..count {
            let seq = lines.len() as u64 + 1;
            let (node, url) = (self.node.clone(), format!("http://origin.test/{seq}"));
            lines.push(Record { seq, node, url, record_id: format!("{seq}"), ..Record::default() });
        }
        let written = lines.len() as u64;
        self.progress.send_replace(Progress { written, durable: written, trouble: String::new() });
    }
}

impl Source for FakeLog {
    fn next_batch(&mut self, records_max: usize, _bytes_max: usize) -> Result<Arc<Lines>, String> {
        let lines = self.lines.lock().unwrap();
        let batch: Vec<Record> = lines.iter().skip(self.next).take(records_max).cloned().collect();
        self.next += batch.len();
        Ok(Arc::new(Lines::of(&batch)))
    }
    fn resume_after(&mut self, seq: u64) -> Result<(), String> {
        self.next = seq as usize;
        Ok(())
    }
    fn acknowledge(&mut self, seq: u64) -> Result<(), String> {
        self.cursor.store(seq, Ordering::SeqCst);
        Ok(())
    }
    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}

/// A store of records in memory. It counts what it is given, and every n-th time loses the answer after storing.
#[derive(Default)]
pub struct FakeStore {
    pub rows: Mutex<BTreeMap<(String, Epoch), Vec<Record>>>,
    pub given: AtomicU64,
    pub calls: AtomicU64,
    pub lose_every: AtomicU64,
    /// A node whose batches take so long.
    pub slow: Option<(String, Duration)>,
}

impl RecordStore for FakeStore {
    fn ingest(&self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> Result<u64, StoreError> {
        if let Some((_, takes)) = self.slow.as_ref().filter(|(slow, _)| slow == node) {
            self.calls.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(*takes);
        }
        let mut rows = self.rows.lock().unwrap();
        let rows = rows.entry((node.to_string(), epoch)).or_default();
        for record in batch {
            self.given.fetch_add(1, Ordering::SeqCst);
            match record.seq.cmp(&(rows.len() as u64 + 1)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => rows.push(record.owned()),
                std::cmp::Ordering::Greater => panic!("a gap before {}", record.seq),
            }
        }
        let lose = self.lose_every.load(Ordering::SeqCst);
        if lose > 0 && self.calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(lose) {
            return Err(StoreError("stored, but the answer is lost (a test)".into()));
        }
        Ok(rows.len() as u64)
    }
    fn highest(&self, node: &str, epoch: Epoch) -> Result<u64, StoreError> {
        Ok(self.rows.lock().unwrap().get(&(node.to_string(), epoch)).map_or(0, |rows| rows.len() as u64))
    }
    fn answer(&self, _: &Question) -> Result<Answer, StoreError> {
        Err(StoreError("not asked in these tests".into()))
    }
    fn audit(&self, _: &AuditQuestion) -> Result<Proof, StoreError> {
        Err(StoreError("not asked in these tests".into()))
    }
    fn accounts(&self) -> Result<Vec<StoredAccount>, StoreError> {
        Err(StoreError("not asked in these tests".into()))
    }
    fn prune(&self, _: Wall) -> Result<u64, StoreError> {
        Ok(0)
    }
}

impl FakeStore {
    pub fn count(&self) -> u64 {
        self.rows.lock().unwrap().values().map(|rows| rows.len() as u64).sum()
    }
}

/// Waits for a condition, with a deadline that names what was waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited 20 s for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()))
}
