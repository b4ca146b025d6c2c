//! What runs beside the data path on ordinary tokio: port 8888, the sidecar or the cluster service, shipping, watching.

use super::audit::Audit;
use super::desk;
use super::desk::FrontDesk;
use super::desk::NodeDesk;
use super::desk::NodeFacts;
use super::drain::Drain;
use super::figures::Gauges;
use super::params::Params;
use super::publish::Publisher;
use super::rollout::Rollouts;
use super::task_desk;
use super::task_desk::TaskDesk;
use super::task_runner::Runner;
use crate::base::clock::Wall;
use crate::base::version::VERSION;
use crate::cluster::MasterLink;
use crate::cluster::NodeRow;
use crate::cluster::client::MasterAddress;
use crate::cluster::master::MasterConfig;
use crate::cluster::master::MasterService;
use crate::cluster::protocol::Build;
use crate::cluster::protocol::Proxy;
use crate::cluster::questions::AskMaster;
use crate::cluster::shipper;
use crate::cluster::shipper::LocalSink;
use crate::cluster::shipper::RemoteSink;
use crate::cluster::shipper::ShipStatus;
use crate::cluster::sidecar::Sidecar;
use crate::cluster::sidecar::SlaveConfig;
use crate::cluster::sidecar::SlaveHandle;
use crate::cluster::sidecar::Vitals;
use crate::cluster::tasks::Tasks;
use crate::limits::ACCEPTED_QUEUE_MAX;
use crate::limits::PARAMS_LOOK_S;
use crate::limits::PRUNE_EVERY_S;
use crate::limits::SHIP_LAST_MS_MAX;
use crate::log::Log;
use crate::log::LogLimits;
use crate::policy::OwnSections;
use crate::portal;
use crate::portal::PortalConfig;
use crate::record::Epoch;
use crate::settings;
use crate::settings::LogFull;
use crate::settings::Role;
use crate::settings::Settings;
use crate::store::members::Members;
use crate::store::policies::Policies;
use crate::store::records::RecordStore;
use crate::sys::netif;
use crate::sys::watch as file_watch;
use crate::tls::front::Accepted;
use crate::tls::front::Front;
use crate::tls::identity::NodeIdentity;
use crate::tls::keyring::KeyRing;
use crate::tls::node_key::NodeKey;
use crate::tls::portal as portal_tls;
use crate::tls::serve::Patience;
use crate::tls::serve::Plain;
use crate::tls::serve::serve;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::task::JoinHandle;

/// What a client is told that takes the master for a proxy.
pub const NO_TRAFFIC: &str = "This node is the master of the cluster. It carries no client traffic: \
    use one of its slaves, or the load balancer in front of them, as your proxy.";
/// What a client is told that takes the portal's port of another node for the proxy's.
const NOT_THE_PROXY_PORT: &str =
    "This is the Configuration Portal's port. It carries no client traffic: use this node's proxy port.";

/// What the services are started from.
pub struct Needs<'a> {
    /// Startup params.
    pub settings: &'a Settings,
    /// What the node is.
    pub facts: &'a NodeFacts,
    /// Live params.
    pub params: Arc<Params>,
    /// extended.log.
    pub log: &'a Log,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The snapshot in force and the cores.
    pub publisher: Arc<Publisher>,
    /// Whether the node is being taken out of service.
    pub drain: Arc<Drain>,
    /// The record store of a master or stand-alone node.
    pub records: Option<Arc<dyn RecordStore>>,
    /// When a slave's held snapshot came.
    pub synced: Wall,
    /// What was wrong with newer held snapshots.
    pub trouble: String,
    /// On a slave, the sections that are not taken from the master.
    pub own: Option<Arc<OwnSections>>,
}

/// This node's part in a cluster: master, slave, or alone.
pub struct Cluster {
    identity: Option<Arc<NodeIdentity>>,
    master: Option<Arc<MasterService>>,
    slave: Option<SlaveHandle>,
    ask_master: Option<AskMaster>,
    ship: watch::Receiver<ShipStatus>,
    gauges: Arc<Gauges>,
    /// What must go on as long as the node does.
    tasks: Vec<(&'static str, AbortHandle)>,
    progress: watch::Receiver<crate::log::Progress>,
}

impl Cluster {
    /// Starts what the role asks for. To be called inside the control runtime.
    pub fn start(needs: Needs) -> Result<Cluster, String> {
        let key = match needs.settings.role {
            Role::Standalone => None,
            Role::Master | Role::Slave => Some(load_key(needs.settings)?),
        };
        let identity = key.as_ref().map(|key| identity(key, needs.settings)).transpose()?;
        let reader = needs.log.reader().map_err(|error| error.to_string())?;
        let (ship, ship_seen) = watch::channel(ShipStatus::default());
        let seen = ship_seen.clone();
        let gauges = Arc::new(Gauges {
            publisher: needs.publisher.clone(),
            progress: needs.log.progress(),
            in_flight: needs.log.in_flight(),
            acknowledged: Box::new(move || seen.borrow().acknowledged),
            drain: needs.drain.clone(),
            facts: needs.facts.clone(),
        });
        let mut cluster = Cluster {
            gauges,
            identity,
            master: None,
            slave: None,
            ask_master: None,
            ship: ship_seen,
            tasks: Vec::new(),
            progress: needs.log.progress(),
        };
        match (&key, &needs.records) {
            (Some(key), None) => {
                let (slave, address) = cluster.start_sidecar(key, &needs)?;
                cluster.ask_master = Some(AskMaster { master: address.clone(), session: slave.session.clone() });
                let sink = RemoteSink::new(address, needs.epoch, slave.session.clone());
                cluster.slave = Some(slave);
                cluster.must_go_on("the shipper", tokio::spawn(shipper::ship(reader, sink, ship)));
            }
            (key, Some(records)) => {
                if let Some(key) = key {
                    cluster.master = Some(master_service(key, &needs, records.clone())?);
                }
                let sink = LocalSink { node: needs.facts.name.clone(), epoch: needs.epoch, records: records.clone() };
                cluster.must_go_on("the shipper", tokio::spawn(shipper::ship(reader, sink, ship)));
            }
            // A stand-alone node has its store: `node` opens one for every role but a slave's.
            (None, None) => return Err("a stand-alone node without a record store; this is a bug of Tidegate's".into()),
        }
        Ok(cluster)
    }

    fn must_go_on(&mut self, name: &'static str, task: JoinHandle<()>) {
        self.tasks.push((name, task.abort_handle()));
    }

    /// What must go on as long as the node does, for the watchdog.
    pub fn tasks(&self) -> Vec<(&'static str, AbortHandle)> {
        self.tasks.clone()
    }

    fn start_sidecar(&mut self, ring: &KeyRing, needs: &Needs) -> Result<(SlaveHandle, MasterAddress), String> {
        let (Some(identity), Some(master)) = (self.identity.clone(), needs.settings.master) else {
            return Err("a slave without master; this is a bug of Tidegate's".to_string());
        };
        let address = MasterAddress::new(master.to_string(), identity);
        let config = SlaveConfig {
            master: address.clone(),
            build: Build::this(),
            epoch: needs.epoch,
            state_dir: needs.settings.state_dir.clone(),
            synctime_ms: follow_sync_time(&needs.params),
            signer: Arc::new(ring.signer().map_err(|fault| fault.to_string())?),
            own: needs.own.clone(),
        };
        let (publisher, progress, gauges) = (needs.publisher.clone(), needs.log.progress(), self.gauges.clone());
        let (facts, settings, drain) = (needs.facts.clone(), needs.params.watch(), needs.drain.clone());
        let (held, held_trouble) = (needs.publisher.current().hash(), needs.trouble.clone());
        let vitals = Arc::new(move || {
            // Not held: the figures look there too, and with a writer between them two looks would wait for each other.
            let progress = progress.borrow().clone();
            // What was damaged on disk matters until the master's next snapshot takes its place.
            let damaged = if publisher.current().hash() == held { held_trouble.as_str() } else { "" };
            let trouble = if progress.trouble.is_empty() { damaged } else { progress.trouble.as_str() };
            let trouble = trouble.to_string();
            let offer = desk::offer(&facts, &settings.borrow(), drain.standing());
            let labels = settings.borrow().node_labels.clone();
            let counters = desk::counters(publisher.totals());
            let enforced = publisher.enforced();
            Vitals { counters, written: progress.written, trouble, offer, figures: gauges.read(), enforced, labels }
        });
        let synced = (needs.synced != Wall::default()).then_some(needs.synced);
        let publish = needs.publisher.as_publish();
        let (sidecar, handle) = Sidecar::new(config, needs.publisher.current(), synced, publish, vitals);
        self.must_go_on("the sidecar", tokio::spawn(sidecar.run()));
        Ok((handle, address))
    }

    /// Serves port 8888: the portal for browsers and, on a master, the cluster for its slaves.
    pub fn serve_portal(
        &self,
        listeners: Vec<TcpListener>,
        desk: Arc<NodeDesk>,
        settings: &Settings,
    ) -> Result<(), String> {
        let names = portal_tls::PortalNames {
            names: vec![settings.hostname.clone(), settings.node_name.clone(), "localhost".to_string()],
            addresses: netif::own_addresses().unwrap_or_default(),
        };
        let tls =
            portal_tls::load_or_make(&settings.state_dir, &names, Wall::now()).map_err(|fault| fault.to_string())?;
        let not_a_proxy = if settings.role == Role::Master { NO_TRAFFIC } else { NOT_THE_PROXY_PORT };
        let cluster = self.master.as_ref().and(self.identity.clone());
        let hands_over = desk.facts.hands_over;
        let router = portal::router(PortalConfig {
            hands_over,
            desk: Arc::new(FrontDesk(desk)),
            node_name: settings.node_name.clone(),
            role: settings.role.to_string(),
            version: VERSION.to_string(),
        });
        let decorate = |request: &mut hyper::Request<hyper::body::Incoming>, from| {
            request.extensions_mut().insert(portal::PeerAddress(from));
        };
        let front = Front::new(cluster, tls, not_a_proxy, Plain::new(&portal::OPEN_PATHS, router.clone(), decorate));
        let (sender, mut accepted) = mpsc::channel(ACCEPTED_QUEUE_MAX);
        for listener in listeners {
            let (front, sender) = (front.clone(), sender.clone());
            tokio::spawn(async move {
                if let Err(error) = front.run(listener, sender).await {
                    tracing::error!(event = "portal-trouble", error = ?error.kind(), "the portal's port stopped accepting: {error}; restart the node");
                }
            });
        }
        let master = self.master.clone();
        let not_a_proxy: Arc<str> = Arc::from(not_a_proxy);
        tokio::spawn(async move {
            while let Some(accepted) = accepted.recv().await {
                match (accepted, &master) {
                    (Accepted::Portal { stream, from, to }, _) => {
                        let decorate = move |request: &mut hyper::Request<hyper::body::Incoming>| {
                            request.extensions_mut().insert(portal::PeerAddress(from));
                            request.extensions_mut().insert(portal::ReachedAddress(to.ip()));
                        };
                        let serving = serve(stream, router.clone(), Patience::PORTAL, not_a_proxy.clone(), decorate);
                        tokio::spawn(serving);
                    }
                    (Accepted::Cluster { stream, peer, from }, Some(master)) => {
                        tokio::spawn(master.clone().serve(stream, peer, from));
                    }
                    (Accepted::Fault { fault, from }, Some(master)) => master.handshake_failed(&fault, from),
                    // Only a master's front knows the cluster's name.
                    (Accepted::Cluster { .. } | Accepted::Fault { .. }, None) => {}
                }
            }
        });
        Ok(())
    }

    /// On a master: its rollouts in waves, from where they stood.
    pub fn rollouts(
        &mut self,
        policies: Option<&Arc<Policies>>,
        publisher: &Arc<Publisher>,
        settings: &Settings,
    ) -> Option<Arc<Rollouts>> {
        let (master, policies) = (self.master.clone()?, policies?.clone());
        let audit = Audit::new(&settings.log_dir, &settings.node_name);
        let rollouts = Rollouts::new(master, policies, publisher.clone(), audit);
        self.must_go_on("the rollouts", tokio::spawn(rollouts.clone().run()));
        Some(rollouts)
    }

    /// On a master: its orders to slaves, as they stood when it stopped.
    pub fn task_desk(&mut self, settings: &Settings) -> Result<Option<TaskDesk>, String> {
        let Some(master) = self.master.clone() else { return Ok(None) };
        let tell = task_desk::tell(Audit::new(&settings.log_dir, &settings.node_name));
        let tasks = Tasks::open(&settings.state_dir, tell).map_err(|error| error.0)?;
        self.must_go_on("the tasks", tokio::spawn(task_desk::look_after(tasks.clone())));
        Ok(Some(TaskDesk::new(master, tasks)))
    }

    /// On a slave: from now on `desk` does what the master orders.
    pub fn carry_out_tasks(&mut self, desk: &Arc<NodeDesk>) {
        let (Some(slave), Some(ask)) = (self.slave.clone(), self.ask_master.clone()) else { return };
        self.must_go_on("the tasks", tokio::spawn(Runner::new(desk.clone(), ask, &slave).run()));
    }

    /// A slave's way to ask its master about older policies.
    pub fn ask_master(&self) -> Option<AskMaster> {
        self.ask_master.clone()
    }

    /// On a master: slaves ask `desk` about older policies.
    pub fn answer_questions(&self, desk: &Arc<NodeDesk>) {
        let Some(master) = &self.master else { return };
        let desk = desk.clone();
        master.answer_with(Arc::new(move |node, question| {
            let desk = desk.clone();
            Box::pin(async move { desk.policy.answer_slave(&node, &question).await })
        }));
    }

    /// The sidecar of a slave.
    pub fn slave(&self) -> Option<SlaveHandle> {
        self.slave.clone()
    }

    /// How a slave stands with its master.
    pub fn link(&self) -> Box<dyn Fn() -> Option<MasterLink> + Send + Sync> {
        let link = self.slave.as_ref().map(|slave| slave.link.clone());
        Box::new(move || link.as_ref().map(|link| link.borrow().clone()))
    }

    /// A master's slaves.
    pub fn nodes(&self) -> Box<dyn Fn() -> Vec<NodeRow> + Send + Sync> {
        let master = self.master.clone();
        Box::new(move || master.as_ref().map(|master| master.nodes()).unwrap_or_default())
    }

    /// On a master, the service of the cluster.
    pub fn master(&self) -> Option<Arc<MasterService>> {
        self.master.clone()
    }

    /// The nodes that browsers may use; none on a stand-alone node, and on a slave before its first contact.
    pub fn proxies(&self) -> Box<dyn Fn() -> Vec<Proxy> + Send + Sync> {
        let (master, slave) = (self.master.clone(), self.slave.as_ref().map(|slave| slave.proxies.clone()));
        Box::new(move || match (&master, &slave) {
            (Some(master), _) => master.proxies(),
            (None, Some(proxies)) => proxies.borrow().clone(),
            (None, None) => Vec::new(),
        })
    }

    /// What the node counts and measures.
    pub fn gauges(&self) -> Arc<Gauges> {
        self.gauges.clone()
    }

    /// How far records are in the store that counts.
    pub fn acknowledged(&self) -> Box<dyn Fn() -> u64 + Send + Sync> {
        let ship = self.ship.clone();
        Box::new(move || ship.borrow().acknowledged)
    }

    /// What stops records from getting there.
    pub fn shipping_trouble(&self) -> Box<dyn Fn() -> String + Send + Sync> {
        let ship = self.ship.clone();
        Box::new(move || ship.borrow().trouble.clone())
    }

    /// Gives the shipper a moment for the last records. What it does not send now it sends after the next start.
    pub async fn stop(&self) {
        let mut ship = self.ship.clone();
        let written = self.progress.borrow().written;
        let all_sent = ship.wait_for(|status| status.acknowledged >= written || !status.trouble.is_empty());
        let _ = tokio::time::timeout(Duration::from_millis(SHIP_LAST_MS_MAX), all_sent).await;
    }
}

fn load_key(settings: &Settings) -> Result<KeyRing, String> {
    let handed = key_from_service_manager(settings);
    let path = handed.as_ref().unwrap_or(&settings.activation_key_file);
    KeyRing::load(path).map_err(|fault| {
        format!(
            "{fault}\n  A {} needs the cluster's activation key: make one on the first node with \
             `tidegate activation-key new -o {}`, and copy that file to the others",
            settings.role,
            path.display()
        )
    })
}

/// The key as systemd hands it over (LoadCredential=activation.key:...): then root alone can read the file itself. Only for
/// the default of ACTIVATION_KEY_FILE; who names another means that one. The unit's stand-in for a key that is not
/// there yet counts as none.
fn key_from_service_manager(settings: &Settings) -> Option<PathBuf> {
    let default =
        settings::key("ACTIVATION_KEY_FILE").is_some_and(|key| settings.activation_key_file == Path::new(key.default));
    let handed = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join("activation.key");
    let is_key = std::fs::metadata(&handed).is_ok_and(|file| file.len() > NO_KEY.len() as u64 + 1);
    (default && is_key).then_some(handed)
}

/// What tidegate.service sets as credential where there is no key (SetCredential=activation.key:none).
const NO_KEY: &str = "none";

fn identity(ring: &KeyRing, settings: &Settings) -> Result<Arc<NodeIdentity>, String> {
    let key = NodeKey::load_or_make(&settings.state_dir)?;
    NodeIdentity::new(ring, key, &settings.node_name, &settings.role.to_string(), Wall::now())
        .map_err(|fault| fault.to_string())
}

fn master_service(ring: &KeyRing, needs: &Needs, records: Arc<dyn RecordStore>) -> Result<Arc<MasterService>, String> {
    Ok(MasterService::new(MasterConfig {
        node: needs.facts.name.clone(),
        build: Build::this(),
        current: needs.publisher.watch(),
        records,
        signer: ring.signer().map_err(|fault| fault.to_string())?,
        members: Arc::new(Members::open(&needs.settings.state_dir).map_err(|error| error.to_string())?),
    }))
}

/// Notices changes of startup.ini. Where the kernel's notices do not reach (a network file system, say), a look now and
/// then does.
pub fn watch_params(config: &Path, params: Arc<Params>) {
    let watching = file_watch::watch(config);
    if let Err(error) = &watching {
        tracing::warn!(
            event = "params-unwatched",
            "watching {}: {error}; it is looked at every {PARAMS_LOOK_S} s instead",
            config.display()
        );
    }
    tokio::spawn(async move {
        let (_watch, mut changed) = match watching {
            Ok((watch, changed)) => (Some(watch), Some(changed)),
            Err(_) => (None, None),
        };
        loop {
            let look = tokio::time::sleep(Duration::from_secs(PARAMS_LOOK_S));
            match &mut changed {
                Some(changed) => tokio::select! {
                    notice = changed.recv() => if notice.is_none() { return },
                    () = look => {}
                },
                None => look.await,
            }
            let params = params.clone();
            // Reading a file blocks: not on a thread that serves.
            let _ = tokio::task::spawn_blocking(move || params.reload()).await;
        }
    });
}

/// SYNCTIME in milliseconds, kept up to date.
fn follow_sync_time(params: &Params) -> Arc<AtomicU64> {
    let mut settings = params.watch();
    let millis = |settings: &Settings| settings.sync_time.as_millis() as u64;
    let sync_time_ms = Arc::new(AtomicU64::new(millis(&settings.borrow_and_update())));
    let following = sync_time_ms.clone();
    tokio::spawn(async move {
        while settings.changed().await.is_ok() {
            following.store(millis(&settings.borrow_and_update()), Ordering::Relaxed);
        }
    });
    sync_time_ms
}

/// Brings LOG_SIZE_LIMIT, LOG_SYNC, LOG_FULL and KEEP_DATA to the log whenever they change.
pub fn follow_log_limits(limits: LogLimits, params: &Params) {
    let mut settings = params.watch();
    tokio::spawn(async move {
        while settings.changed().await.is_ok() {
            let now = settings.borrow_and_update();
            limits.set(now.log_size_limit, now.log_sync_ms, now.keep_data_days);
            limits.count_when_full(now.log_full == LogFull::Count);
        }
    });
}

/// On a slave: what happens between it and its master goes into config.log too, where administrators look.
pub fn note_sync(desk: Arc<NodeDesk>, slave: Option<SlaveHandle>) {
    let Some(mut slave) = slave else { return };
    let mut policy = desk.publisher.watch();
    // What is held at the start is told too.
    policy.mark_changed();
    tokio::spawn(async move {
        let mut told = String::new();
        loop {
            tokio::select! {
                changed = policy.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let name = policy.borrow_and_update().name().to_string();
                    desk.audit.event("policy-sync", &name, "in force");
                }
                changed = slave.link.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let link = slave.link.borrow_and_update().clone();
                    let now = if link.up && link.trouble.is_empty() { "in contact".to_string() } else { link.trouble };
                    if now != told {
                        desk.audit.event("master", &link.address, &now);
                        told = now;
                    }
                }
            }
        }
    });
}

/// Forgets records older than KEEP_DATA, now and every few hours.
pub fn prune(desk: Arc<NodeDesk>) {
    let Some(records) = desk.records.clone() else { return };
    let settings = desk.params.watch();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(PRUNE_EVERY_S));
        loop {
            tick.tick().await;
            let days = i64::from(settings.borrow().keep_data_days);
            let before = Wall(Wall::now().0 - days * 86_400 * 1_000_000);
            let records = records.clone();
            match tokio::task::spawn_blocking(move || records.prune(before)).await {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(count)) => tracing::info!(
                    event = "records-forgotten",
                    "forgot {count} records older than KEEP_DATA ({days} days)"
                ),
                Ok(Err(error)) => tracing::error!(event = "store-trouble", "forgetting old records: {error}"),
            }
        }
    });
}
