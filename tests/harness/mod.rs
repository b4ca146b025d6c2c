//! Real nodes as real processes on loopback, an origin, and clients that know whether they received an answer whole.
#![allow(dead_code)] // each test binary uses its part of this

pub mod account;
pub mod client;
pub mod dice;
pub mod disk;
pub mod watched;

use std::collections::BTreeMap;
use std::fs;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::admin::Refused;
use tidegate::admin::Status;
use tidegate::cli::control;
use tidegate::daemon::layout::ClusterLayout;
use tidegate::daemon::layout::NodeLayout;
use tidegate::daemon::origin;
use tidegate::report::Answer;
use tidegate::report::Question;
use tidegate::tls::activation::ActivationKey;

/// How long anything may take before a test calls it broken. Generous: the machine may be small and busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where Debian's libfaketime is, by architecture; tests/run installs it.
const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// A master, slaves and an origin. Everything ends with the value.
pub struct Cluster {
    pub layout: ClusterLayout,
    pub master: Node,
    pub slaves: Vec<Node>,
    pub origin: Origin,
    dir: TempDir,
}

/// One node's process.
pub struct Node {
    pub layout: NodeLayout,
    /// What its command line begins with, such as the way into a network namespace.
    pub through: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
}

/// The demo's origin, in this process.
pub struct Origin {
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Cluster {
    /// A cluster with an applied policy that lets loopback clients reach the origin and blocks `/social`.
    pub fn start(slaves: usize) -> Cluster {
        let cluster = Cluster::lay_out(slaves, &[]);
        cluster.master.start();
        cluster.apply(&cluster.policy(""));
        cluster.slaves.iter().for_each(Node::start);
        cluster.wait_for_policy();
        cluster
    }

    /// The files of a cluster; nothing runs yet but the origin.
    pub fn lay_out(slaves: usize, extra: &[(&'static str, &str)]) -> Cluster {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap();
        let key = ActivationKey::generate().unwrap().to_text();
        let extra: BTreeMap<&str, String> = extra.iter().map(|(key, value)| (*key, value.to_string())).collect();
        let layout = ClusterLayout::make(dir.path(), slaves, &key, &extra).unwrap();
        let master = Node::of(&layout.master);
        let slaves = layout.slaves.iter().map(Node::of).collect();
        Cluster { layout, master, slaves, origin: Origin::start(), dir }
    }

    /// The test policy: loopback clients may reach the origin; `/social` is blocked. `more` is appended: sections of its own.
    pub fn policy(&self, more: &str) -> String {
        test_policy(self.origin.address, more)
    }

    /// Applies `document` on the master; answers the new snapshot's name.
    pub fn apply(&self, document: &str) -> String {
        self.master.apply(document)
    }

    /// Until every running slave enforces what the master does.
    pub fn wait_for_policy(&self) {
        let name = self.master.status().expect("the master runs").snapshot;
        for slave in &self.slaves {
            wait_until(&format!("{} enforces {name}", slave.layout.name), || {
                slave.status().is_some_and(|status| status.snapshot == name)
            });
        }
    }

    /// The master's report.
    pub fn report(&self, question: &Question) -> Answer {
        self.master.report(question)
    }

    /// Until the master has every record that every slave wrote.
    pub fn wait_for_records(&self) {
        wait_for_records(&self.slaves);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.origin.address)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Until the master of these slaves has every record that they wrote.
pub fn wait_for_records(slaves: &[Node]) {
    for slave in slaves {
        let mut seen = None;
        let what = format!("all records of {} at the master", slave.layout.name);
        wait_until(&what, || {
            std::thread::sleep(Duration::from_millis(100));
            let Some(status) = slave.status() else { return false };
            // Twice the same number, with a pause: nothing is still on its way from a core to the log.
            let settled = seen == Some(status.records_written);
            seen = Some(status.records_written);
            settled && status.records_acknowledged == status.records_written
        });
    }
}

/// See [`Cluster::policy`].
pub fn test_policy(origin: SocketAddr, more: &str) -> String {
    include_str!("policy.toml").replace("ORIGIN_PORT", &origin.port().to_string()) + more
}

impl Node {
    pub fn of(layout: &NodeLayout) -> Node {
        Node { layout: layout.clone(), through: Vec::new(), variables: Vec::new(), child: Mutex::new(None) }
    }

    /// Its next process has a clock that is off by so much, such as `+1h`.
    pub fn set_clock(&mut self, off_by: &str) {
        let faketime = FAKETIME.into_iter().find(|file| Path::new(file).exists());
        let faketime = faketime.expect("libfaketime is missing: tests/run installs it");
        let skew = [("LD_PRELOAD", faketime), ("FAKETIME", off_by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        self.variables = skew.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
    }

    /// The node's report.
    pub fn report(&self, question: &Question) -> Answer {
        match self.ask(Action::Report(question.clone())) {
            Ok(Outcome::Report(answer)) => *answer,
            other => panic!("report: {other:?}"),
        }
    }

    /// Applies `document` here; answers the new snapshot's name.
    pub fn apply(&self, document: &str) -> String {
        let action = Action::PolicyApply {
            document: document.into(),
            comment: "a test".into(),
            base: None,
            how: Default::default(),
        };
        match self.ask(action) {
            Ok(Outcome::Applied { snapshot, .. }) => snapshot,
            other => panic!("apply: {other:?}"),
        }
    }

    /// Starts the process and waits until its control socket answers.
    pub fn start(&self) {
        self.spawn();
        wait_until(&format!("{} answers on its control socket", self.layout.name), || {
            assert!(self.is_running(), "{} ended: {}", self.layout.name, self.journal());
            self.status().is_some()
        });
    }

    /// Starts the process.
    pub fn spawn(&self) {
        let journal = OpenOptions::new().create(true).append(true).open(self.layout.dir.join("journal.log")).unwrap();
        let words = self.through.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_tidegate"), "run", "--config"]);
        let words: Vec<&str> = words.collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .arg(&self.layout.config)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(journal.try_clone().unwrap())
            .stderr(journal)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
    }

    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().expect("the node runs").id()
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and wait until it ended by itself.
    pub fn stop(&self) {
        let Some(mut child) = self.child.lock().unwrap().take() else { return };
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        wait_until(&format!("{} ends after SIGTERM", self.layout.name), || child.try_wait().unwrap().is_some());
    }

    pub fn ask(&self, action: Action) -> Result<Outcome, Refused> {
        control::ask(&self.layout.control, &action).unwrap_or_else(|error| {
            panic!("asking {}: {error}\n{}", self.layout.name, self.journal());
        })
    }

    /// Its status; nothing if it does not answer.
    pub fn status(&self) -> Option<Status> {
        match control::ask(&self.layout.control, &Action::Status) {
            Ok(Ok(Outcome::Status(status))) => Some(*status),
            _ => None,
        }
    }

    /// What it said so far.
    pub fn journal(&self) -> String {
        fs::read_to_string(self.layout.dir.join("journal.log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.journal();
            let tail: Vec<&str> = journal.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("--- last words of {}\n{}", self.layout.name, tail.join("\n"));
        }
        self.kill();
    }
}

impl Origin {
    pub fn start() -> Origin {
        Origin::at("127.0.0.1:0".parse().unwrap())
    }

    /// One at this address, in the network namespace of the thread that asks.
    pub fn at(address: SocketAddr) -> Origin {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, origin::router()).await });
        Origin { address, _runtime: runtime }
    }
}

/// Waits for a condition, with a deadline; `what` is what was waited for in vain.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the real binary with `arguments`; answers (exit code, standard output, standard error).
pub fn tidegate(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
