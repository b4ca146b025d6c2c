//! One node, from its startup.ini to its end: load, bind, announce, serve, drain. `run` reads as the story of it.

use super::audit::Audit;
use super::desk::FrontDesk;
use super::desk::NodeDesk;
use super::desk::NodeFacts;
use super::desk::Views;
use super::drain::Drain;
use super::health;
use super::journal::Journal;
use super::params;
use super::params::Params;
use super::policy_desk::PolicyDesk;
use super::publish::Publisher;
use super::services;
use super::services::Cluster;
use super::signals;
use super::tuning;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::cli::control;
use crate::cluster::held;
use crate::limits::LISTEN_BACKLOG;
use crate::log;
use crate::log::Log;
use crate::log::LogConfig;
use crate::log::RecordDesk;
use crate::policy::Snapshot;
use crate::proxy::Admissions;
use crate::proxy::Core;
use crate::proxy::CoreConfig;
use crate::proxy::CoreHandle;
use crate::settings;
use crate::settings::Listen;
use crate::settings::PinCpus;
use crate::settings::Role;
use crate::settings::Settings;
use crate::store::admins::Admins;
use crate::store::policies::Policies;
use crate::store::records::RecordStore;
use crate::store::records::SqliteRecords;
use crate::sys::affinity;
use crate::sys::netif;
use crate::sys::peer;
use crate::sys::process;
use crate::sys::rlimit;
use crate::sys::sd_notify::Notify;
use crate::sys::sockets;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Runs a node by the startup.ini at `config` until SIGTERM, SIGINT or a restart.
pub fn run(config: &Path) -> ExitCode {
    match Node::start(config).and_then(Node::live) {
        Ok(End::Stopped) => ExitCode::SUCCESS,
        Ok(End::Restart) => {
            let error = restart(config);
            eprintln!("tidegate: restarting in place: {error}; start the node again");
            ExitCode::FAILURE
        }
        Err(words) => {
            eprintln!("tidegate: {words}");
            ExitCode::FAILURE
        }
    }
}

/// Why a node ended.
enum End {
    Stopped,
    Restart,
}

struct Node {
    runtime: tokio::runtime::Runtime,
    desk: Arc<NodeDesk>,
    log: Log,
    notify: Notify,
    cluster: Cluster,
}

impl Node {
    /// Everything that can fail does so here, before a client is accepted: files, policy, sockets.
    fn start(config: &Path) -> Result<Node, String> {
        let started = Mono::now();
        let settings = load(config)?;
        let journal = Journal::start(params::level(settings.log_level));
        tracing::info!("tidegate {} starts as {} {}", env!("CARGO_PKG_VERSION"), settings.role, settings.node_name);
        prepare_host(&settings)?;
        let runtime = control_runtime()?;
        let _inside = runtime.enter();

        let epoch = log::node_id(&settings.state_dir)
            .map_err(|error| format!("reading the node's id in {}: {error}", settings.state_dir.display()))?;
        let cores = core_count(&settings);
        let (log, desks) = Log::start(LogConfig {
            state_dir: settings.state_dir.clone(),
            log_dir: settings.log_dir.clone(),
            node: settings.node_name.clone(),
            epoch,
            cores,
            file_bytes_max: settings.log_size_limit,
            keep_days: settings.keep_data_days,
        })
        .map_err(|error| error.to_string())?;

        let policies = open_policies(&settings)?;
        let (snapshot, synced, trouble) = first_snapshot(&settings, policies.as_deref());
        let records = open_records(&settings)?;
        let listeners = listen(settings.listen_ip, settings.listen_port, cores, "LISTEN_IP/LISTEN_PORT")?;
        let portal = listen(settings.portal_ip, settings.portal_port, 1, "PORTAL_IP/PORTAL_PORT")?;
        let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
        let listen = vec![address(&listeners[0])?];
        let portal_address = address(&portal[0])?;

        let admissions = Arc::new(tuning::admissions(&settings));
        let handles = start_cores(&settings, listeners, desks, snapshot.clone(), &admissions)?;
        let publisher = Publisher::new(handles, snapshot);
        let params = Arc::new(Params::new(config, settings.clone(), journal));
        let admins = Admins::open(&settings.state_dir).map_err(|error| error.0)?;
        let facts = NodeFacts {
            name: settings.node_name.clone(),
            role: settings.role,
            started,
            listen,
            portal: portal_address,
            cores,
            state_dir: settings.state_dir.clone(),
        };
        let drain = Drain::new(publisher.clone(), params.watch(), &settings.state_dir);
        let cluster = Cluster::start(services::Needs {
            drain: drain.clone(),
            settings: &settings,
            facts: &facts,
            params: params.clone(),
            log: &log,
            epoch,
            publisher: publisher.clone(),
            records: records.clone(),
            synced,
            trouble,
        })?;
        let desk = Arc::new(NodeDesk {
            drain,
            health: health::Watch::default(),
            policy: policy_desk(&settings, &publisher, policies, &cluster),
            views: views(&log, &cluster),
            audit: Audit::new(&settings.log_dir, &settings.node_name),
            restart: Arc::new(tokio::sync::Notify::new()),
            admins: Arc::new(admins),
            facts,
            publisher,
            records,
            params,
        });
        cluster.serve_portal(portal, desk.clone(), &settings)?;
        serve_control(&settings, desk.clone())?;
        services::watch_params(config, desk.params.clone());
        services::follow_log_limits(log.limits(), &desk.params);
        tuning::follow(&desk.params, desk.publisher.clone(), admissions.clone());
        tuning::give_back_after_peaks(admissions);
        services::note_sync(desk.clone(), cluster.slave());
        services::prune(desk.clone());
        desk.drain.resume();
        drop(_inside);
        let notify = Notify::from_environment();
        Ok(Node { runtime, desk, log, notify, cluster })
    }

    /// Serves until told to stop, then lets what is under way end.
    fn live(self) -> Result<End, String> {
        let facts = &self.desk.facts;
        tracing::info!("clients on {}, portal on https://{}/", list(&facts.listen), facts.portal);
        self.notify.ready(&format!("{} {} serves", facts.role, facts.name));
        let (desk, notify) = (self.desk.clone(), &self.notify);
        let end = self.runtime.block_on(async {
            let mut stop = signals::stop().map_err(|error| format!("listening for signals: {error}"))?;
            let beat = notify.watchdog_interval().unwrap_or(Duration::from_secs(3_600));
            let mut beat = tokio::time::interval(beat);
            loop {
                tokio::select! {
                    _ = stop.recv() => return Ok::<_, String>(End::Stopped),
                    _ = desk.restart.notified() => return Ok(End::Restart),
                    _ = beat.tick() => notify.watchdog(),
                }
            }
        })?;
        self.notify.stopping("finishing what is under way");
        self.runtime.block_on(self.desk.drain.before_stop());
        let drain_s = self.desk.params.watch().borrow().times.drain;
        tracing::info!("stopping: finishing what is under way, at most {drain_s} s (DRAIN_TIME)");
        let publisher = self.desk.publisher.clone();
        self.runtime.block_on(publisher.drain(Duration::from_secs(drain_s)));
        publisher.join();
        // The cores are gone: what they recorded is written, and the shipper gets a moment to send it.
        self.log.stop();
        self.runtime.block_on(self.cluster.stop());
        self.runtime.shutdown_timeout(Duration::from_secs(2));
        tracing::info!("stopped");
        Ok(end)
    }
}

fn load(config: &Path) -> Result<Settings, String> {
    let loaded = settings::load(config).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(|fault| format!("  {fault}")).collect();
        format!("the startup params in {} have {} fault(s):\n{}", config.display(), faults.len(), lines.join("\n"))
    })?;
    Ok(loaded.settings)
}

fn prepare_host(settings: &Settings) -> Result<(), String> {
    match rlimit::raise_open_files(settings.max_fds) {
        Ok(limit) if limit < settings.max_fds => {
            tracing::warn!("MAX_FDS is {}, the system allows {limit} open files", settings.max_fds);
        }
        Ok(_) => {}
        Err(error) => tracing::warn!("raising the limit of open files to {}: {error}", settings.max_fds),
    }
    // RUN_DIR is open to look into: the control socket in it guards itself by its mode and by who connects.
    for (key, dir, mode) in [
        ("STATE_DIR", &settings.state_dir, 0o700),
        ("LOG_DIR", &settings.log_dir, 0o750),
        ("RUN_DIR", &settings.run_dir, 0o755),
    ] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(dir)
            .map_err(|error| format!("making {key} {}: {error}; start as root or choose another", dir.display()))?;
        try_writing(dir).map_err(|error| {
            let dir = dir.display();
            format!("writing in {key} {dir}: {error}; give the folder to the user the node runs as, or choose another")
        })?;
    }
    Ok(())
}

/// Finds a folder that takes no files now, where its param can be named, rather than later at some file in it.
fn try_writing(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".may-write-{}", std::process::id()));
    fs::File::create(&probe)?;
    fs::remove_file(&probe)
}

fn control_runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .on_thread_start(affinity::go_behind_data_cores)
        .enable_all()
        .build()
        .map_err(|error| format!("starting the control threads: {error}"))
}

fn core_count(settings: &Settings) -> usize {
    // A master's cores only refuse: one is plenty.
    if settings.role == Role::Master {
        return 1;
    }
    settings.cores.unwrap_or_else(|| affinity::allowed_cpus().map_or(1, |cpus| cpus.len().max(1)))
}

fn open_policies(settings: &Settings) -> Result<Option<Arc<Policies>>, String> {
    match settings.role {
        Role::Slave => Ok(None),
        _ => Policies::open(&settings.state_dir).map(|policies| Some(Arc::new(policies))).map_err(|error| error.0),
    }
}

fn open_records(settings: &Settings) -> Result<Option<Arc<dyn RecordStore>>, String> {
    match settings.role {
        Role::Slave => Ok(None),
        _ => {
            let store =
                SqliteRecords::open(&settings.state_dir.join("records.db")).map_err(|error| error.to_string())?;
            Ok(Some(Arc::new(store)))
        }
    }
}

/// What to enforce until something newer comes: the history's newest, or what the master sent last; otherwise the
/// built-in policy that denies everything. Also when that came, and what was wrong with newer ones.
fn first_snapshot(settings: &Settings, policies: Option<&Policies>) -> (Arc<Snapshot>, Wall, String) {
    let (held, synced, trouble) = match policies {
        Some(policies) => match newest_of(policies) {
            Ok(held) => (held, Wall::default(), String::new()),
            Err(words) => (None, Wall::default(), words),
        },
        None => match held::load(&settings.state_dir) {
            Some(held) => (Some(held.snapshot), held.synced, held.trouble),
            None => (None, Wall::default(), String::new()),
        },
    };
    if !trouble.is_empty() {
        tracing::error!("{trouble}");
    }
    let snapshot = held.unwrap_or_else(|| {
        tracing::warn!("no policy is held: every client is denied until one is applied or comes from the master");
        Snapshot::builtin()
    });
    tracing::info!("policy {} is in force", snapshot.name());
    (Arc::new(snapshot), synced, trouble)
}

/// The newest version of the history whose snapshot is whole. A damaged one is compiled again from its document by the
/// administrator's next apply; meanwhile an older good one is better than denying everybody.
fn newest_of(policies: &Policies) -> Result<Option<Snapshot>, String> {
    let mut troubles = Vec::new();
    for version in policies.log(crate::limits::HELD_SNAPSHOTS as u32).map_err(|error| error.0)? {
        let opened = policies
            .snapshot_bytes(&version)
            .map_err(|error| error.0)
            .and_then(|bytes| Snapshot::open(&bytes).map_err(|error| error.to_string()));
        match opened {
            Ok(snapshot) => {
                troubles.iter().for_each(|words| tracing::error!("{words}"));
                return Ok(Some(snapshot));
            }
            Err(words) => troubles.push(format!("the snapshot of policy {} cannot be used: {words}", version.snapshot)),
        }
    }
    if troubles.is_empty() { Ok(None) } else { Err(troubles.join("; ")) }
}

fn listen(ip: Listen, port: u16, count: usize, keys: &str) -> Result<Vec<TcpListener>, String> {
    let address = match ip {
        Listen::Any => None,
        Listen::Ip(ip) => Some(ip),
    };
    sockets::listen_group(address, port, LISTEN_BACKLOG, count)
        .map_err(|error| format!("listening on {ip}:{port} ({keys}): {error}; is another program using it?"))
}

fn start_cores(
    settings: &Settings,
    listeners: Vec<TcpListener>,
    desks: Vec<RecordDesk>,
    snapshot: Arc<Snapshot>,
    admissions: &Arc<Admissions>,
) -> Result<Vec<CoreHandle>, String> {
    let own_addresses = netif::own_addresses().map_err(|error| format!("asking for this host's addresses: {error}"))?;
    let refuse_as_master = (settings.role == Role::Master).then(|| services::NO_TRAFFIC.to_string());
    let cpus = pins(settings, listeners.len());
    let mut handles = Vec::new();
    for (index, (listener, desk)) in listeners.into_iter().zip(desks).enumerate() {
        let mut config = CoreConfig::new(index, vec![listener], &settings.node_name, desk, snapshot.clone());
        config.cpu = cpus.get(index).copied();
        config.refuse_as_master = refuse_as_master.clone();
        config.own_addresses = own_addresses.clone();
        config.admissions = Arc::clone(admissions);
        let tuning = tuning::of(settings);
        (config.timeouts, config.balancers) = (tuning.timeouts, tuning.balancers);
        config.credentials_dir = settings.credentials_dir.clone();
        let handle = Core::start(config).map_err(|error| {
            format!(
                "starting data core {index}: {error}. Tidegate needs io_uring: kernel 5.15 or newer, \
                 kernel.io_uring_disabled=0, and no seccomp filter that forbids it"
            )
        })?;
        handles.push(handle);
    }
    Ok(handles)
}

/// The processor of each core; shorter than the cores where the kernel chooses.
fn pins(settings: &Settings, cores: usize) -> Vec<usize> {
    let allowed = affinity::allowed_cpus().unwrap_or_default();
    match &settings.pin_cpus {
        PinCpus::None => Vec::new(),
        PinCpus::Auto if settings.role == Role::Master => Vec::new(),
        PinCpus::Auto if cores > 1 && allowed.len() >= cores => allowed[..cores].to_vec(),
        PinCpus::Auto => Vec::new(),
        PinCpus::List(cpus) => cpus.iter().copied().cycle().take(cores).collect(),
    }
}

fn policy_desk(
    settings: &Settings,
    publisher: &Arc<Publisher>,
    policies: Option<Arc<Policies>>,
    cluster: &Cluster,
) -> PolicyDesk {
    let master = settings.master.map(|master| master.to_string()).unwrap_or_default();
    let origin = match settings.role {
        Role::Slave => {
            let (link, master) = (cluster.link(), master.clone());
            Box::new(move || {
                let synced = link().map_or(0, |link| link.synced_us);
                let when = match jiff::Timestamp::from_microsecond(synced) {
                    Ok(time) if synced > 0 => format!("last changed here at {}", time.strftime("%Y-%m-%dT%H:%M:%SZ")),
                    _ => "nothing received yet".to_string(),
                };
                format!("from the master {master}, {when}")
            }) as Box<dyn Fn() -> String + Send + Sync>
        }
        _ => Box::new(String::new),
    };
    PolicyDesk::new(publisher.clone(), policies, settings.lists_dir.clone(), master, origin)
}

fn views(log: &Log, cluster: &Cluster) -> Views {
    Views {
        progress: log.progress(),
        acknowledged: cluster.acknowledged(),
        shipping_trouble: cluster.shipping_trouble(),
        link: cluster.link(),
        nodes: cluster.nodes(),
        proxies: cluster.proxies(),
    }
}

fn serve_control(settings: &Settings, desk: Arc<NodeDesk>) -> Result<(), String> {
    let path = settings.control_socket();
    // Without that group on the host, the socket is root's and this process's user's alone.
    let group = peer::group_id(&settings.control_group);
    let listener = control::bind(&path, group)
        .map_err(|error| format!("opening the control socket {}: {error}", path.display()))?;
    tokio::spawn(control::serve(listener, Arc::new(FrontDesk(desk)), group));
    Ok(())
}

fn restart(config: &Path) -> std::io::Error {
    // The path of our own file, not /proc/self/exe: after an upgrade the new binary stands there.
    let program = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute() && path.exists());
    let program = program.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| PathBuf::from("tidegate"));
    process::replace_self(&program, &[OsStr::new("run"), OsStr::new("--config"), config.as_os_str()])
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
