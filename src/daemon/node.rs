//! One node, from its startup.ini to its end: load, bind, announce, serve, drain. `run` reads as the story of it.

use super::audit::Audit;
use super::desk::FrontDesk;
use super::desk::NodeDesk;
use super::desk::NodeFacts;
use super::desk::Views;
use super::doors::Doors;
use super::drain::Drain;
use super::first_policy;
use super::health;
use super::history;
use super::journal::Journal;
use super::kernel;
use super::params;
use super::params::Params;
use super::performance;
use super::policy_desk::PolicyDesk;
use super::publish::Publisher;
use super::rollout::Rollouts;
use super::services;
use super::services::Cluster;
use super::signals;
use super::tuning;
use super::vitals::Vitals;
use crate::base::clock::Mono;
use crate::base::version::VERSION;
use crate::cli::control;
use crate::cluster::held;
use crate::limits::ASIDE_TASKS_MS;
use crate::limits::LEFT_OVER_EXTRA_S;
use crate::limits::RESTART_ANSWER_MS;
use crate::limits::STATUS_LINE_MS;
use crate::limits::STOP_EXTRA_S;
use crate::log;
use crate::log::Log;
use crate::log::LogConfig;
use crate::log::RecordDesk;
use crate::log::SpoolSize;
use crate::policy::Snapshot;
use crate::proxy::Admissions;
use crate::proxy::Core;
use crate::proxy::CoreConfig;
use crate::proxy::CoreHandle;
use crate::settings;
use crate::settings::LogFull;
use crate::settings::PinCpus;
use crate::settings::Role;
use crate::settings::Settings;
use crate::store::admins::Admins;
use crate::store::figures::FigureHistory;
use crate::store::policies::Policies;
use crate::store::records::RecordStore;
use crate::store::records::SqliteRecords;
use crate::sys::activation;
use crate::sys::activation::Passed;
use crate::sys::affinity;
use crate::sys::netif;
use crate::sys::peer;
use crate::sys::process;
use crate::sys::rlimit;
use crate::sys::sd_notify;
use crate::sys::sd_notify::Notify;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Runs a node by the startup.ini at `config` until SIGTERM, SIGINT or a restart.
pub fn run(config: &Path) -> ExitCode {
    // Both before there is another thread.
    let (notify, passed) = (Notify::from_environment(), activation::take());
    let settings = match load(config) {
        Ok(settings) => settings,
        Err(words) => {
            eprintln!("tidegate: {words}");
            // Trying again helps nobody before the file is mended: systemd is told so by this code.
            return ExitCode::from(FAULTY_PARAMS);
        }
    };
    match Node::start(config, settings, notify, passed).and_then(Node::live) {
        Ok(End::Stopped) => ExitCode::SUCCESS,
        Ok(End::Restart(doors)) => {
            let error = restart(config, &doors);
            eprintln!("tidegate: restarting in place: {error}; start the node again");
            ExitCode::FAILURE
        }
        Err(words) => {
            eprintln!("tidegate: {words}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code for startup params with faults (EX_CONFIG of sysexits.h).
const FAULTY_PARAMS: u8 = 78;

/// Why a node ended.
enum End {
    Stopped,
    /// In place: the sockets stay open.
    Restart(Doors),
}

/// What a node was told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Stop,
    Restart,
    StandAside,
}

struct Node {
    runtime: tokio::runtime::Runtime,
    desk: Arc<NodeDesk>,
    log: Log,
    notify: Notify,
    /// Who started this process, if that is a keeper.
    keeper: Option<u32>,
    doors: Doors,
    vitals: Vitals,
    cluster: Cluster,
}

impl Node {
    /// Everything that can fail does so here, before a client is accepted: files, policy, sockets.
    fn start(config: &Path, settings: Settings, notify: Notify, passed: Vec<Passed>) -> Result<Node, String> {
        let started = Mono::now();
        let keeper = notify.has_keeper().then(process::parent);
        let journal =
            Journal::start(params::level(settings.log_level), &settings.node_name, &settings.role.to_string());
        tracing::info!(event = "start", "tidegate {} starts as {} {}", VERSION, settings.role, settings.node_name);
        prepare_host(&settings)?;
        kernel::tell(&settings);
        let runtime = control_runtime()?;
        let _inside = runtime.enter();

        let epoch = log::node_id(&settings.state_dir)
            .map_err(|error| format!("reading the node's id in {}: {error}", settings.state_dir.display()))?;
        let cores = core_count(&settings);
        let of_log = LogConfig {
            state_dir: settings.state_dir.clone(),
            log_dir: settings.log_dir.clone(),
            node: settings.node_name.clone(),
            epoch,
            cores,
            file_bytes_max: settings.log_size_limit,
            sync_ms: settings.log_sync_ms,
            count_when_full: settings.log_full == LogFull::Count,
            keep_days: settings.keep_data_days,
        };
        let (log, desks) = Log::start_sized(of_log, SpoolSize::with_slots(settings.record_slots))
            .map_err(|error| error.to_string())?;

        let policies = open_policies(&settings)?;
        let own = first_policy::own_sections(&settings)?;
        let (snapshot, synced, trouble) = first_policy::first_snapshot(&settings, policies.as_deref(), own.clone());
        let held_file = match &policies {
            Some(policies) => policies.snapshot_path(snapshot.name()),
            None => held::file_of(&settings.state_dir, &snapshot),
        };
        let records = open_records(&settings)?;
        let doors = Doors::open(&settings, cores, passed, &notify)?;
        let sockets = |error: io::Error| format!("preparing the listening sockets: {error}");
        let (listen, portal_address) =
            (vec![doors.proxy_address().map_err(sockets)?], doors.portal_address().map_err(sockets)?);
        let listeners = doors.for_cores(cores).map_err(sockets)?;

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
            hands_over: keeper.is_some(),
            log_dir: settings.log_dir.clone(),
        };
        let drain = Drain::new(publisher.clone(), params.watch(), &settings.state_dir);
        let mut cluster = Cluster::start(services::Needs {
            own,
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
        let rollouts = cluster.rollouts(policies.as_ref(), &publisher, &settings);
        let tasks = cluster.task_desk(&settings)?;
        let desk = Arc::new(NodeDesk {
            gauges: cluster.gauges(),
            history: Arc::new(
                FigureHistory::open(&settings.state_dir.join("figures.db")).map_err(|error| error.to_string())?,
            ),
            drain,
            health: health::Watch::default(),
            tasks,
            policy: policy_desk(&settings, &publisher, policies, &cluster, rollouts),
            views: views(&log, &cluster),
            audit: Audit::new(&settings.log_dir, &settings.node_name),
            restart: Arc::new(tokio::sync::Notify::new()),
            admins: Arc::new(admins),
            facts,
            publisher,
            records,
            params,
        });
        cluster.serve_portal(doors.for_portal().map_err(sockets)?, desk.clone(), &settings)?;
        cluster.answer_questions(&desk);
        doors.turn_strangers_away().map_err(sockets)?;
        serve_control(&settings, desk.clone())?;
        services::watch_params(config, desk.params.clone());
        services::follow_log_limits(log.limits(), &desk.params);
        tuning::follow(&desk.params, desk.publisher.clone(), admissions.clone());
        tuning::give_back_after_peaks(admissions);
        services::note_sync(desk.clone(), cluster.slave());
        performance::keep(desk.gauges.clone(), &desk.params);
        history::keep(desk.clone(), desk.history.clone());
        services::prune(desk.clone());
        cluster.carry_out_tasks(&desk);
        drop(_inside);
        prove_held(&desk, held_file);
        let vitals = Vitals::new(desk.publisher.clone(), log.turns(), runtime.handle().clone(), cluster.tasks());
        Ok(Node { runtime, desk, log, notify, keeper, doors, vitals, cluster })
    }

    /// Serves until told to go, then lets what is under way end.
    fn live(mut self) -> Result<End, String> {
        let facts = &self.desk.facts;
        tracing::info!(event = "ready", "clients on {}, portal on https://{}/", list(&facts.listen), facts.portal);
        match self.serve()? {
            Told::Stop => self.stop(false).map(|_| End::Stopped),
            Told::Restart => self.stop(true).map(End::Restart),
            Told::StandAside => self.finish_aside().map(|()| End::Stopped),
        }
    }

    /// Until the node is told to go.
    fn serve(&mut self) -> Result<Told, String> {
        let (desk, notify, keeper, vitals) = (self.desk.clone(), &self.notify, self.keeper, &mut self.vitals);
        self.runtime.block_on(async {
            let mut orders = signals::orders().map_err(|error| format!("listening for signals: {error}"))?;
            let beat = notify.watchdog_interval().unwrap_or(Duration::from_secs(3_600));
            let mut beat = tokio::time::interval(beat);
            let mut show = tokio::time::interval(Duration::from_millis(STATUS_LINE_MS));
            let mut shown = String::new();
            // Only now: a signal that comes at once is heard.
            notify.ready(&desk.status_line());
            loop {
                tokio::select! {
                    order = orders.next() => match order {
                        // A keeper that was killed leaves its node to the next keeper's.
                        signals::Order::Stop if keeper.is_some_and(|keeper| keeper != process::parent()) => {
                            return Ok::<_, String>(Told::StandAside);
                        }
                        signals::Order::Stop => return Ok(Told::Stop),
                        signals::Order::StandAside => return Ok(Told::StandAside),
                        signals::Order::Reload => reload(&desk, notify).await,
                    },
                    () = desk.restart.notified() => {
                        // The answer to whoever asked goes out first.
                        tokio::time::sleep(Duration::from_millis(RESTART_ANSWER_MS)).await;
                        match keeper {
                            Some(_) => notify.say(sd_notify::SUCCEED),
                            None => return Ok(Told::Restart),
                        }
                    }
                    _ = beat.tick() => match vitals.look() {
                        stuck if stuck.is_empty() => notify.watchdog(),
                        stuck => tracing::error!("the watchdog is told nothing: {}", stuck.join(", ")),
                    },
                    _ = show.tick(), if notify.is_heard() => {
                        let now = desk.status_line();
                        if now != shown {
                            notify.status(&now);
                            shown = now;
                        }
                    }
                }
            }
        })
    }

    /// Finishes what is under way, then lets go of everything; of the sockets at once, unless a successor needs them (or somebody
    /// else holds them): who connects now is better refused than left waiting.
    fn stop(mut self, keep_doors: bool) -> Result<Doors, String> {
        let times = self.desk.params.watch().borrow().times;
        let drain_s = times.drain;
        let words = format!("finishing what is under way, at most {drain_s} s (DRAIN_TIME)");
        self.notify.stopping(&words, Duration::from_secs(times.drain_notice + drain_s + STOP_EXTRA_S));
        if !keep_doors {
            // In place nobody has to go elsewhere.
            self.runtime.block_on(self.desk.drain.before_stop());
            self.doors = Doors::closed();
        }
        tracing::info!(event = "stopping", "stopping: {words}");
        self.log.dismiss_left_over();
        let publisher = self.desk.publisher.clone();
        self.runtime.block_on(publisher.drain(Duration::from_secs(drain_s)));
        publisher.join();
        self.runtime.block_on(self.log.wait_for_left_over(Duration::from_secs(drain_s + LEFT_OVER_EXTRA_S)));
        // The cores are gone: what they recorded is written, and the shipper gets a moment to send it.
        self.log.stop();
        self.runtime.block_on(self.cluster.stop());
        self.runtime.shutdown_timeout(Duration::from_secs(2));
        tracing::info!(event = "stopped", "stopped");
        Ok(self.doors)
    }

    /// Lets go of everything that a successor needs (the log, the stores, the portal, the cluster), then finishes what is under
    /// way beside it. The records of that wait in the spool, where the successor's writer finds them.
    fn finish_aside(self) -> Result<(), String> {
        process::outlive_parent();
        let times = self.desk.params.watch().borrow().times;
        tracing::info!(
            "a successor takes over: what is under way goes on here, at most {} s (HANDOVER_TIME)",
            times.handover
        );
        let publisher = self.desk.publisher.clone();
        self.runtime.block_on(publisher.stand_aside(false));
        drop((self.desk, self.cluster, self.vitals, self.doors));
        self.runtime.shutdown_timeout(Duration::from_millis(ASIDE_TASKS_MS));
        self.log.stop();
        self.notify.say(sd_notify::ASIDE);
        drop(self.notify);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("finishing what is under way: {error}"))?;
        runtime.block_on(async {
            let mut stop = signals::stop().map_err(|error| format!("listening for signals: {error}"))?;
            let drain = Duration::from_secs(times.drain);
            let finished = async {
                // Idle connections may bring one more request, whose answer then ends them.
                publisher.until_idle(drain).await;
                publisher.stand_aside(true).await;
                publisher.until_idle(Duration::from_secs(times.handover).saturating_sub(drain)).await;
            };
            tokio::select! {
                () = finished => {}
                () = stop.recv() => {
                    tracing::info!("told to end: what is still under way has {} s (DRAIN_TIME)", times.drain);
                    publisher.stand_aside(true).await;
                    publisher.until_idle(drain).await;
                }
            }
            publisher.drain(Duration::ZERO).await;
            Ok::<_, String>(())
        })?;
        tracing::info!("all that was under way has ended");
        Ok(())
    }
}

/// Checks in the background what opening the held snapshot left, which takes time in proportion to its lists. A file that fails is
/// set aside, and the node starts again with the one before, as if it had found the damage at once.
fn prove_held(desk: &Arc<NodeDesk>, file: PathBuf) {
    let (snapshot, restart) = (desk.publisher.current(), desk.restart.clone());
    let proving = move || {
        affinity::go_behind_data_cores();
        let Err(error) = snapshot.prove() else { return };
        let aside = file.with_extension("damaged");
        tracing::error!(
            "the held snapshot {} is damaged: {error}. It is kept as {}, and the node starts again with an older one",
            file.display(),
            aside.display()
        );
        match fs::rename(&file, &aside) {
            Ok(()) => restart.notify_one(),
            Err(error) => tracing::error!("setting {} aside: {error}; remove it and restart the node", file.display()),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("prove".to_string()).spawn(proving) {
        tracing::error!("starting the thread that proves the held snapshot: {error}");
    }
}

/// SIGHUP: what `systemctl reload` sends where it knows Type=notify-reload.
async fn reload(desk: &Arc<NodeDesk>, notify: &Notify) {
    notify.reloading();
    let params = desk.params.clone();
    let _ = tokio::task::spawn_blocking(move || params.reload()).await;
    notify.ready(&desk.status_line());
}

fn load(config: &Path) -> Result<Settings, String> {
    let loaded = settings::load(config).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(|fault| format!("  {fault}")).collect();
        format!("the startup params in {} have {} fault(s):\n{}", config.display(), faults.len(), lines.join("\n"))
    })?;
    Ok(loaded.settings)
}

fn prepare_host(settings: &Settings) -> Result<(), String> {
    let wanted = settings.max_fds;
    match rlimit::raise_open_files(wanted) {
        Ok(limit) if limit < wanted => {
            tracing::warn!(
                event = "host-hurts",
                "MAX_FDS is {wanted}, the system allows {limit} open files; `tidegate kernel` says what to do"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(event = "host-hurts", "raising the limit of open files to {wanted}: {error}"),
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

fn start_cores(
    settings: &Settings,
    listeners: Vec<Vec<TcpListener>>,
    desks: Vec<RecordDesk>,
    snapshot: Arc<Snapshot>,
    admissions: &Arc<Admissions>,
) -> Result<Vec<CoreHandle>, String> {
    let own_addresses = netif::own_addresses().map_err(|error| format!("asking for this host's addresses: {error}"))?;
    let refuse_as_master = (settings.role == Role::Master).then(|| services::NO_TRAFFIC.to_string());
    let cpus = pins(settings, listeners.len());
    let mut handles = Vec::new();
    for (index, (listeners, desk)) in listeners.into_iter().zip(desks).enumerate() {
        let mut config = CoreConfig::new(index, listeners, &settings.node_name, desk, snapshot.clone());
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
    rollouts: Option<Arc<Rollouts>>,
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
    PolicyDesk::new(
        publisher.clone(),
        policies,
        settings.lists_dir.clone(),
        master,
        origin,
        cluster.nodes(),
        cluster.ask_master(),
        rollouts,
    )
}

fn views(log: &Log, cluster: &Cluster) -> Views {
    Views {
        progress: log.progress(),
        rotation: log.rotation(),
        in_flight: log.in_flight(),
        acknowledged: cluster.acknowledged(),
        shipping_trouble: cluster.shipping_trouble(),
        link: cluster.link(),
        nodes: cluster.nodes(),
        proxies: cluster.proxies(),
        cluster: cluster.master(),
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

fn restart(config: &Path, doors: &Doors) -> io::Error {
    let mut command = Command::new(process::own_program());
    command.args([OsStr::new("run"), OsStr::new("--config"), config.as_os_str()]);
    activation::pass(&mut command, &doors.to_pass_on(), &[]);
    process::replace_self(&mut command)
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
