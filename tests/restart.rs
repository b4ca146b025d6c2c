//! Restarts, upgrades and crashes as clients meet them: nobody who connects is refused, nothing under way is cut, no record is lost
//! or written twice. The test plays systemd: it holds the sockets, hears the notifications and starts what ended.
//!
//! `TIDEGATE_RESTARTS=100 TIDEGATE_RATE=2000 cargo test --release --test restart -- --nocapture` is the long run.

#![allow(unsafe_code)] // to hold one thread of a node still, as a debugger does

mod harness;

use harness::Origin;
use harness::client::Client;
use harness::test_policy;
use harness::wait_until;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::admin::Status;
use tidegate::cli::control;
use tidegate::daemon::layout::NodeLayout;
use tidegate::sys::activation;
use tidegate::sys::process;
use tidegate::sys::sd_notify;
use tidegate::sys::sd_notify::Message;

/// What systemd is to the node: it holds the sockets and the FD store, hears what the service says, and starts it.
struct Systemd {
    layout: NodeLayout,
    notify: UnixDatagram,
    /// Of the socket unit.
    sockets: Vec<TcpListener>,
    /// Of the FD store, by name.
    store: Mutex<Vec<(String, TcpListener)>>,
    service: Mutex<Option<Child>>,
    heard: Mutex<Vec<String>>,
    watchdog: Option<Duration>,
    origin: Origin,
    dir: TempDir,
}

impl Systemd {
    /// A service whose sockets are those of its startup.ini.
    fn with_sockets(params: &[(&str, &str)]) -> Systemd {
        let sockets: Vec<_> =
            (0..2).map(|_| tidegate::sys::sockets::listen(loopback(), 4_096, false).unwrap()).collect();
        let address = |index: usize| sockets[index].local_addr().unwrap();
        let (proxy, portal) = (address(0), address(1));
        Systemd::with(sockets, proxy, portal, params)
    }

    fn with(sockets: Vec<TcpListener>, proxy: SocketAddr, portal: SocketAddr, params: &[(&str, &str)]) -> Systemd {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap();
        let layout = NodeLayout::at(dir.path(), "alone", proxy, portal);
        let extra: BTreeMap<&str, String> = params.iter().map(|(key, value)| (*key, value.to_string())).collect();
        layout.write(&dir.path().join("no.key"), &[("ROLE", "standalone".into())], &extra).unwrap();
        let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Systemd {
            layout,
            notify,
            sockets,
            store: Mutex::default(),
            service: Mutex::default(),
            heard: Mutex::default(),
            watchdog: None,
            origin: Origin::start(),
            dir,
        }
    }

    /// Starts the service and waits until it says that it is ready.
    fn start(&self) {
        self.spawn(&["keep"]);
        self.wait_for("READY=1");
    }

    /// The same, and the test policy is in force.
    fn start_with_policy(&self) {
        self.start();
        let document =
            test_policy(self.origin.address, "").replace("connect_ports = [443,", "connect_ports = [\"1-65535\",");
        let action = Action::PolicyApply { document, comment: String::new(), base: None, how: Default::default() };
        let outcome = control::ask(&self.layout.control, &action).unwrap();
        assert!(matches!(outcome, Ok(Outcome::Applied { .. })), "{outcome:?}");
    }

    fn spawn(&self, mode: &[&str]) {
        let journal = OpenOptions::new().create(true).append(true).open(self.journal_file()).unwrap();
        let store = self.store.lock().unwrap();
        let unit = self.sockets.iter().map(|socket| ("tidegate.socket", socket));
        let passed: Vec<_> = unit.chain(store.iter().map(|(name, socket)| (name.as_str(), socket))).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(mode).arg("--config").arg(&self.layout.config);
        command.env_remove("JOURNAL_STREAM").env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        if let Some(watchdog) = self.watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        command.stdin(Stdio::null()).stdout(journal.try_clone().unwrap()).stderr(journal);
        activation::pass(&mut command, &passed, &[]);
        self.heard.lock().unwrap().clear();
        *self.service.lock().unwrap() = Some(command.spawn().unwrap());
    }

    /// Takes in what the service has said.
    fn listen(&self) {
        while let Ok(Message { text, descriptors }) = sd_notify::receive(self.notify.as_fd()) {
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_string();
            if text.starts_with("FDSTOREREMOVE=1") {
                self.store.lock().unwrap().retain(|(kept, _)| *kept != name);
            }
            for descriptor in descriptors {
                self.store.lock().unwrap().push((name.clone(), TcpListener::from(descriptor)));
            }
            self.heard.lock().unwrap().push(text);
        }
    }

    fn wait_for(&self, said: &str) {
        wait_until(&format!("the service says {said}: {}", self.journal()), || {
            self.listen();
            assert!(self.is_running(), "the service ended: {}", self.journal());
            self.heard.lock().unwrap().iter().any(|text| text.contains(said))
        });
    }

    fn is_running(&self) -> bool {
        self.service.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    fn service_pid(&self) -> u32 {
        self.service.lock().unwrap().as_ref().expect("the service runs").id()
    }

    /// Waits until the service's main process has ended; answers whether well.
    fn ended(&self) -> bool {
        let mut well = None;
        wait_until("the service ends", || {
            self.listen();
            well = self.service.lock().unwrap().as_mut().unwrap().try_wait().unwrap();
            well.is_some()
        });
        well.is_some_and(|status| status.success())
    }

    /// `systemctl restart`: what the unit's ExecStop does, SIGTERM, and a start once the main process has ended.
    fn restart(&self) {
        process::signal(self.service_pid(), process::STAND_ASIDE).unwrap();
        process::terminate(self.service_pid()).unwrap();
        assert!(self.ended(), "the restart ends the keeper well: {}", self.journal());
        self.start();
    }

    /// `kill -9` of the node, and what Restart=on-failure does.
    fn kill_node(&self) {
        let pid = self.status().expect("the node answers").pid;
        kill(pid);
        assert!(!self.ended(), "a crash is a failure");
        self.start();
    }

    fn status(&self) -> Option<Status> {
        match control::ask(&self.layout.control, &Action::Status) {
            Ok(Ok(Outcome::Status(status))) => Some(*status),
            _ => None,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.origin.address)
    }

    fn journal_file(&self) -> std::path::PathBuf {
        self.layout.dir.join("journal.log")
    }

    fn journal(&self) -> String {
        let journal = fs::read_to_string(self.journal_file()).unwrap_or_default();
        let tail: Vec<&str> = journal.lines().rev().take(30).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The records of extended.log: each number once, without gaps.
    fn records(&self) -> Vec<HashMap<String, String>> {
        let text = fs::read_to_string(&self.layout.log).unwrap();
        let cells = |line: &str| line.split('\t').map(|cell| cell.trim_matches('"').to_string()).collect::<Vec<_>>();
        let mut lines = text.lines();
        let names = cells(lines.next().expect("the log has a header"));
        let records: Vec<HashMap<String, String>> =
            lines.map(|line| names.iter().cloned().zip(cells(line)).collect()).collect();
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record["seq"], (index + 1).to_string(), "the numbers have no gap and none stands twice");
        }
        let ids: HashSet<&String> = records.iter().map(|record| &record["record_id"]).collect();
        assert_eq!(ids.len(), records.len(), "no record stands twice");
        records
    }

    /// Waits until so many exchanges of `agent` are in the log; more is an error.
    fn wait_for_records(&self, agent: &str, count: usize) {
        let mut seen = 0;
        wait_until(&format!("{count} records of {agent}"), || {
            seen = self.records().iter().filter(|record| record["useragent"] == agent).count();
            assert!(seen <= count, "{seen} records for {count} exchanges");
            seen == count
        });
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- last words\n{}", self.journal());
        }
        let node = self.status().map(|status| status.pid);
        if let Some(mut child) = self.service.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A node whose keeper is gone would stand aside and finish: here it need not.
        if let Some(pid) = node {
            kill(pid);
        }
    }
}

fn kill(pid: u32) {
    let _ = process::signal(pid, 9);
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// What clients met.
#[derive(Default)]
struct Met {
    answered: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    slowest_ms: AtomicU64,
    words: Mutex<Vec<String>>,
}

/// Clients that connect anew for every request, at a steady rate, until told to stop.
struct Load {
    met: Arc<Met>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(systemd: &Systemd, per_second: u64) -> Load {
        let (met, stop) = (Arc::new(Met::default()), Arc::new(AtomicBool::new(false)));
        // Enough that those who wait do not thin the rate out.
        let count = (per_second / 8).max(8);
        let pause = Duration::from_micros(1_000_000 * count / per_second);
        let threads = (0..count).map(|number| {
            let (met, stop, proxy) = (met.clone(), stop.clone(), systemd.layout.proxy);
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: load\r\nConnection: close\r\n\r\n",
                systemd.url("/bytes/700"),
                systemd.origin.address
            );
            thread::spawn(move || {
                thread::sleep(pause * number as u32 / count as u32);
                let mut next = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    match Client::connect(proxy) {
                        Err(error) => {
                            met.refused.fetch_add(1, Ordering::Relaxed);
                            met.words.lock().unwrap().push(format!("refused: {error}"));
                        }
                        Ok(mut client) => match client.send(request.as_bytes()).and_then(|()| client.receive(false)) {
                            Ok(answer) if answer.status == 200 && answer.body.len() == 700 => {
                                met.answered.fetch_add(1, Ordering::Relaxed);
                            }
                            other => {
                                met.cut.fetch_add(1, Ordering::Relaxed);
                                met.words.lock().unwrap().push(format!("cut: {other:?}"));
                            }
                        },
                    }
                    met.slowest_ms.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
                    next = (next + pause).max(Instant::now() - pause);
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            })
        });
        let threads = threads.collect();
        Load { met, stop, threads }
    }

    fn stop(self) -> Arc<Met> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.met
    }
}

impl Met {
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn tell(&self, what: &str) {
        let (refused, cut) = (self.refused.load(Ordering::Relaxed), self.cut.load(Ordering::Relaxed));
        let slowest = self.slowest_ms.load(Ordering::Relaxed);
        println!("{what}: {} answered, {refused} refused, {cut} cut, slowest {slowest} ms", self.answered());
    }
}

fn rounds() -> u32 {
    std::env::var("TIDEGATE_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

fn rate() -> u64 {
    std::env::var("TIDEGATE_RATE").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// Between two restarts: until some more have been answered.
fn let_some_through(load: &Load) {
    let before = load.met.answered();
    wait_until("the load goes on", || load.met.answered() >= before + rate() / 8);
}

#[test]
fn restarts_under_load_refuse_nobody_and_cut_nothing() {
    let systemd = Systemd::with_sockets(&[("CORES", "2")]);
    systemd.start_with_policy();
    let load = Load::start(&systemd, rate());
    for round in 0..rounds() {
        // A slow exchange that the restart falls into.
        let (url, proxy) = (systemd.url("/slow/700"), systemd.layout.proxy);
        let slow = thread::spawn(move || Client::connect(proxy).unwrap().get_as(&url, "slow"));
        let_some_through(&load);
        let before = systemd.status().unwrap().pid;
        if round % 2 == 0 {
            systemd.restart();
        } else {
            let outcome = control::ask(&systemd.layout.control, &Action::Restart { backup: false }).unwrap();
            assert!(matches!(outcome, Ok(Outcome::Done { .. })), "{outcome:?}");
            wait_until("the successor answers", || systemd.status().is_some_and(|status| status.pid != before));
            systemd.listen();
        }
        let answer = slow.join().unwrap().expect("the exchange under way is not cut");
        assert_eq!(answer.status, 200);
    }
    let met = load.stop();
    met.tell("restarts");
    assert_eq!(*met.words.lock().unwrap(), Vec::<String>::new());
    systemd.wait_for_records("load", met.answered() as usize);
    systemd.wait_for_records("slow", rounds() as usize);
    let cut = systemd.records().iter().filter(|record| record["ending"].starts_with('K')).count();
    assert_eq!(cut, 0, "no exchange was ended by a kill");
}

#[test]
fn crashes_under_load_refuse_nobody_and_break_only_what_was_in_service() {
    let systemd = Systemd::with_sockets(&[("CORES", "2")]);
    systemd.start_with_policy();
    let load = Load::start(&systemd, rate());
    for _ in 0..rounds() {
        let_some_through(&load);
        systemd.kill_node();
    }
    let_some_through(&load);
    let met = load.stop();
    met.tell("kill -9");
    let words = met.words.lock().unwrap();
    assert_eq!(met.refused.load(Ordering::Relaxed), 0, "{words:?}");
    wait_until("everything answered is in the log", || {
        let records = systemd.records();
        let of_load = records.iter().filter(|record| record["useragent"] == "load").count() as u64;
        assert!(of_load <= met.answered() + met.cut.load(Ordering::Relaxed), "{of_load} records");
        of_load >= met.answered()
    });
}

#[test]
fn a_tunnel_and_an_idle_connection_live_on_beside_the_successor() {
    // After DRAIN_TIME idle connections end; a busy machine may take long for two restarts.
    let systemd = Systemd::with_sockets(&[("DRAIN_TIME", "120")]);
    systemd.start_with_policy();
    let connect = || Client::connect(systemd.layout.proxy).unwrap();
    let mut idle = connect();
    assert!(idle.get(&systemd.url("/bytes/1")).unwrap().keeps);
    let mut tunnel = connect().tunnel(&systemd.origin.address.to_string()).unwrap().expect("the policy allows it");
    let through = |tunnel: &mut Client| {
        let request = format!("GET /bytes/9 HTTP/1.1\r\nHost: {}\r\n\r\n", systemd.origin.address);
        tunnel.send(request.as_bytes()).and_then(|()| tunnel.receive(false)).map(|answer| answer.body.len())
    };
    assert_eq!(through(&mut tunnel).unwrap(), 9);
    let first = systemd.status().unwrap().pid;
    systemd.restart();
    assert_ne!(systemd.status().unwrap().pid, first);
    systemd.restart();
    assert_eq!(through(&mut tunnel).unwrap(), 9, "the first process still carries it");
    let answer = idle.get(&systemd.url("/bytes/1")).unwrap();
    assert!(answer.status == 200 && !answer.keeps, "one more request is answered, then the connection ends");
    assert_eq!(connect().get(&systemd.url("/bytes/1")).unwrap().status, 200);

    drop(tunnel);
    drop(idle);
    wait_until("the first process ends", || !is_alive(first));
    wait_until("the tunnel's record is in the log", || {
        systemd.records().iter().any(|record| record["method"] == "CONNECT" && record["ending"] == "--")
    });
}

#[test]
fn a_former_process_that_is_killed_leaves_its_records() {
    let systemd = Systemd::with_sockets(&[]);
    systemd.start_with_policy();
    let client = Client::connect(systemd.layout.proxy).unwrap();
    let mut tunnel = client.tunnel(&systemd.origin.address.to_string()).unwrap().expect("the policy allows it");
    let first = systemd.status().unwrap().pid;
    systemd.restart();
    kill(first);
    assert!(tunnel.send(b"x").and_then(|()| tunnel.receive(false)).is_err());
    wait_until("the tunnel's record is in the log, as killed", || {
        systemd.records().iter().any(|record| record["method"] == "CONNECT" && record["ending"].starts_with('K'))
    });
}

#[test]
fn a_keeper_that_is_killed_leaves_a_node_that_makes_room() {
    let systemd = Systemd::with_sockets(&[]);
    systemd.start_with_policy();
    let (url, proxy) = (systemd.url("/slow/1500"), systemd.layout.proxy);
    let slow = thread::spawn(move || Client::connect(proxy).unwrap().get(&url));
    wait_until("it is under way", || systemd.status().unwrap().counters.connections_open > 0);
    kill(systemd.service_pid());
    assert!(!systemd.ended());
    systemd.start();
    assert_eq!(slow.join().unwrap().expect("it is not cut").status, 200);
    assert_eq!(Client::connect(proxy).unwrap().get(&systemd.url("/bytes/1")).unwrap().status, 200);
}

#[test]
fn stopping_waits_for_what_is_under_way_also_beside_the_node() {
    let systemd = Systemd::with_sockets(&[]);
    systemd.start_with_policy();
    let (url, proxy) = (systemd.url("/slow/2500"), systemd.layout.proxy);
    let slow = thread::spawn(move || Client::connect(proxy).unwrap().get_as(&url, "slow"));
    wait_until("it is under way", || systemd.status().unwrap().counters.connections_open > 0);
    systemd.restart();
    process::terminate(systemd.service_pid()).unwrap();
    assert!(systemd.ended(), "{}", systemd.journal());
    assert_eq!(slow.join().unwrap().expect("it is not cut").status, 200);
    systemd.wait_for_records("slow", 1);
}

#[test]
fn other_addresses_than_the_units_are_bound_kept_and_told() {
    let free = || tidegate::daemon::layout::free_ports(1).unwrap()[0];
    let unit = vec![TcpListener::bind("127.0.0.1:0").unwrap()];
    let stranger = unit[0].local_addr().unwrap();
    let systemd = Systemd::with(unit, free(), free(), &[("CORES", "2")]);
    systemd.start_with_policy();
    assert!(systemd.journal().contains(&stranger.to_string()), "{}", systemd.journal());
    assert!(Client::connect(stranger).unwrap().get(&systemd.url("/bytes/1")).is_err(), "closed, not left waiting");
    systemd.listen();
    let names: Vec<String> = systemd.store.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, ["proxy", "proxy", "portal"], "what the node bound itself is in safe keeping");
    let load = Load::start(&systemd, 100);
    for _ in 0..3 {
        let_some_through(&load);
        systemd.restart();
        let_some_through(&load);
        systemd.kill_node();
    }
    let met = load.stop();
    assert_eq!(met.refused.load(Ordering::Relaxed), 0, "{:?}", met.words.lock().unwrap());
    systemd.listen();
    assert_eq!(systemd.store.lock().unwrap().len(), 3, "nothing was bound anew");
}

#[test]
fn a_restart_in_place_without_a_keeper_refuses_nobody() {
    let free = || tidegate::daemon::layout::free_ports(1).unwrap()[0];
    let systemd = Systemd::with(Vec::new(), free(), free(), &[("CORES", "2")]);
    systemd.spawn(&["run"]);
    systemd.wait_for("READY=1");
    let load = Load::start(&systemd, 100);
    let pid = systemd.status().unwrap().pid;
    for _ in 0..3 {
        let started = systemd.status().unwrap().uptime_s;
        thread::sleep(Duration::from_millis(1_100));
        let outcome = control::ask(&systemd.layout.control, &Action::Restart { backup: false }).unwrap();
        assert!(matches!(outcome, Ok(Outcome::Done { .. })), "{outcome:?}");
        wait_until("the node is new", || systemd.status().is_some_and(|status| status.uptime_s <= started));
        assert_eq!(systemd.status().unwrap().pid, pid, "it keeps its process");
    }
    let met = load.stop();
    assert_eq!(met.refused.load(Ordering::Relaxed), 0, "{:?}", met.words.lock().unwrap());
}

#[test]
fn a_reload_puts_params_in_force_and_tells_what_is_wrong() {
    let systemd = Systemd::with_sockets(&[]);
    systemd.start();
    let control = systemd.layout.control.to_str().unwrap();
    let config = &systemd.layout.config;
    let good = fs::read_to_string(config).unwrap();
    fs::write(config, format!("{good}LOG_LEVEL=\"debug\"\nMAX_FDS=\"70000\"\n")).unwrap();
    let (code, _, error) = harness::tidegate(&["reload", "--control", control]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(systemd.status().unwrap().waiting_for_restart, ["MAX_FDS"]);
    fs::write(config, format!("{good}LOG_LEVEL=\"loud\"\n")).unwrap();
    let (code, output, error) = harness::tidegate(&["reload", "--control", control]);
    assert!(code == 1 && format!("{output}{error}").contains("LOG_LEVEL"), "{output}{error}");
    // A restart by that file would end in nothing: it is refused while the node still serves.
    let outcome = control::ask(&systemd.layout.control, &Action::Restart { backup: false }).unwrap();
    assert!(outcome.is_err_and(|refused| refused.complaints.len() == 1));
    // What `systemctl reload` sends where Type=notify-reload is known.
    fs::write(config, &good).unwrap();
    systemd.heard.lock().unwrap().clear();
    process::signal(systemd.service_pid(), process::HANGUP).unwrap();
    systemd.wait_for("RELOADING=1\nMONOTONIC_USEC=");
    systemd.wait_for("READY=1");
    systemd.wait_for("STATUS=standalone alone: policy ");
}

#[test]
fn a_thread_that_hangs_stops_the_watchdogs_food() {
    let mut systemd = Systemd::with_sockets(&[("CORES", "2")]);
    systemd.watchdog = Some(Duration::from_secs(1));
    systemd.start();
    let fed = || {
        systemd.listen();
        systemd.heard.lock().unwrap().iter().filter(|text| *text == "WATCHDOG=1").count()
    };
    wait_until("the watchdog is fed", || fed() >= 3);
    let pid = systemd.status().unwrap().pid;
    for name in ["core-1", "log-writer", "control"] {
        let held = hold_threads(pid, name);
        wait_until(&format!("{name} is missed"), || {
            let before = fed();
            thread::sleep(Duration::from_millis(1_200));
            fed() == before
        });
        drop(held);
        let before = fed();
        wait_until("all is well again", || fed() > before);
    }
}

/// With the number of hosts in TIDEGATE_START_HOSTS (5000000) and a release build: what a start costs under a large policy.
#[test]
fn a_node_with_a_large_policy_is_up_at_once_and_damage_in_it_is_found_later() {
    let hosts: usize = std::env::var("TIDEGATE_START_HOSTS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let systemd = Systemd::with_sockets(&[]);
    systemd.start_with_policy();
    let lists = systemd.layout.dir.join("lists");
    fs::create_dir_all(&lists).unwrap();
    let lines: String = (0..hosts).map(|n| format!("host{n}.site{}.example\n", n % 5_000)).collect();
    fs::write(lists.join("big.txt"), lines).unwrap();
    let document =
        test_policy(systemd.origin.address, "") + "\n[[categories]]\nname = \"Big\"\nfiles = [\"big.txt\"]\n";
    let action = Action::PolicyApply { document, comment: String::new(), base: None, how: Default::default() };
    let outcome = control::ask(&systemd.layout.control, &action).unwrap();
    assert!(matches!(outcome, Ok(Outcome::Applied { .. })), "{outcome:?}");
    let ask = || Client::connect(systemd.layout.proxy).and_then(|mut client| client.get(&systemd.url("/bytes/1")));
    for _ in 0..5 {
        kill(systemd.status().unwrap().pid);
        systemd.ended();
        let begun = Instant::now();
        systemd.spawn(&["keep"]);
        assert_eq!(ask().unwrap().status, 200);
        println!("{hosts} hosts: from the start to the first answer {} ms", begun.elapsed().as_millis());
        systemd.wait_for("READY=1");
    }

    // A bit of the host table turns on the disk: the node starts, finds it, and starts again with the policy before.
    let snapshots = systemd.layout.dir.join("state/snapshots");
    let files = fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("2-")).unwrap();
    process::terminate(systemd.service_pid()).unwrap();
    assert!(systemd.ended());
    let mut bytes = fs::read(&newest).unwrap();
    let place = bytes.windows(14).position(|window| window == b"host777.site77").expect("the table has its names");
    bytes[place] = b'X';
    fs::remove_file(&newest).unwrap();
    fs::write(&newest, bytes).unwrap();
    systemd.start();
    assert_eq!(ask().unwrap().status, 200);
    wait_until("the node is back at version 1", || systemd.status().is_some_and(|status| status.policy_version == 1));
    assert!(newest.with_extension("damaged").exists());
    assert_eq!(ask().unwrap().status, 200);
}

/// A thread that somebody else has stopped, as a hang would; it goes on when this is dropped.
struct HeldThread(nix::libc::pid_t);

/// All threads of this name.
fn hold_threads(pid: u32, name: &str) -> Vec<HeldThread> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap().path());
    let named = threads.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name));
    let numbers = named.map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap());
    let held: Vec<HeldThread> = numbers.filter_map(hold_thread).collect();
    assert!(!held.is_empty(), "the node has no thread {name}");
    held
}

/// Nothing if it has just ended.
fn hold_thread(number: nix::libc::pid_t) -> Option<HeldThread> {
    let none = std::ptr::null_mut::<nix::libc::c_void>();
    // SAFETY: attaching to a thread of a process that this test has started touches no memory of the test.
    let seized = unsafe { nix::libc::ptrace(nix::libc::PTRACE_SEIZE, number, none, none) };
    if seized != 0 {
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(nix::libc::ESRCH));
        return None;
    }
    // SAFETY: as above.
    unsafe { nix::libc::ptrace(nix::libc::PTRACE_INTERRUPT, number, none, none) };
    Some(HeldThread(number))
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: waits for a thread this test traces, and writes to a place of its own.
        unsafe { nix::libc::waitpid(self.0, &mut status, nix::libc::__WALL) };
        let none = std::ptr::null_mut::<nix::libc::c_void>();
        // SAFETY: as in `hold_thread`.
        unsafe { nix::libc::ptrace(nix::libc::PTRACE_DETACH, self.0, none, none) };
    }
}

fn is_alive(pid: u32) -> bool {
    File::open(format!("/proc/{pid}/stat")).is_ok_and(|mut file| {
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).is_ok() && !text.contains(") Z ")
    })
}
