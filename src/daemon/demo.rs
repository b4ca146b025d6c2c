//! `tidegate demo`: a master, slaves and a small origin on loopback, each node a real process of this very binary, all in
//! one folder. A node that ends is started again, as systemd would.

use super::layout::ClusterLayout;
use super::layout::NodeLayout;
use super::origin;
use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Status;
use crate::base::clock::Mono;
use crate::cli::DemoOptions;
use crate::cli::control;
use crate::limits::DEMO_SLAVES_MAX;
use crate::limits::DEMO_START_S_MAX;
use crate::sys::process;
use crate::tls::activation::ActivationKey;
use crate::tls::random;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;

/// The administrator of every demo.
const ADMIN: &str = "admin";

/// Starts the demo, prints what to open and what to try, and runs until SIGINT or SIGTERM.
pub fn demo(options: DemoOptions) -> ExitCode {
    match Demo::start(&options).and_then(|demo| demo.run(options.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("tidegate demo: {words}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    layout: ClusterLayout,
    nodes: Vec<Running>,
    origin: SocketAddr,
    policy: PathBuf,
    password: String,
    runtime: tokio::runtime::Runtime,
    /// Removed when the demo ends, if the user named no folder.
    temporary: Option<PathBuf>,
}

/// One node's process.
struct Running {
    layout: NodeLayout,
    child: Child,
}

impl Demo {
    fn start(options: &DemoOptions) -> Result<Demo, String> {
        let slaves = options.slaves;
        if slaves == 0 || slaves > DEMO_SLAVES_MAX {
            return Err(format!("--slaves {slaves}: give a number from 1 to {DEMO_SLAVES_MAX}"));
        }
        let (dir, temporary) = folder(options.dir.as_deref())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| format!("starting the origin's runtime: {error}"))?;
        let origin = start_origin(&runtime)?;
        let key = ActivationKey::generate().map_err(|fault| format!("making an activation key: {fault}"))?;
        let layout = ClusterLayout::make(&dir, slaves, &key.to_text(), &BTreeMap::new())
            .map_err(|error| format!("laying out the cluster in {}: {error}", dir.display()))?;
        let policy = dir.join("policy.toml");
        fs::write(&policy, first_policy(origin)).map_err(|error| format!("writing {}: {error}", policy.display()))?;
        let password = data_encoding::BASE64URL_NOPAD.encode(&random::bytes::<12>());
        let mut demo = Demo { layout, nodes: Vec::new(), origin, policy, password, runtime, temporary };
        demo.bring_up()?;
        Ok(demo)
    }

    /// Master first, then its administrator and its policy, then the slaves, each until it enforces that policy.
    fn bring_up(&mut self) -> Result<(), String> {
        let master = self.layout.master.clone();
        progress(&format!("starting the master in {}", master.dir.display()));
        self.nodes.push(Running::spawn(&master)?);
        self.wait_for(&master, |_| true)?;
        self.ask(Action::AdminAdd { user: ADMIN.to_string(), password: self.password.clone() })?;
        let document = fs::read_to_string(&self.policy).map_err(|error| error.to_string())?;
        self.ask(Action::PolicyApply {
            document,
            comment: "the demo's first policy".to_string(),
            base: None,
            how: Default::default(),
        })?;
        let Outcome::Status(now) = self.ask(Action::Status)? else {
            return Err("the master answered something else than its status".to_string());
        };
        for slave in self.layout.slaves.clone() {
            progress(&format!("starting {}", slave.name));
            self.nodes.push(Running::spawn(&slave)?);
        }
        for slave in self.layout.slaves.clone() {
            self.wait_for(&slave, |status| status.snapshot == now.snapshot)?;
            progress(&format!("{} enforces policy {}", slave.name, now.snapshot));
            let login = Action::AdminAdd { user: ADMIN.to_string(), password: self.password.clone() };
            perform(&slave.control, login)?;
        }
        Ok(())
    }

    fn ask(&self, action: Action) -> Result<Outcome, String> {
        perform(&self.layout.master.control, action)
    }

    /// Waits until `node` answers on its control socket with a status that is `good`.
    fn wait_for(&mut self, node: &NodeLayout, good: impl Fn(&Status) -> bool) -> Result<(), String> {
        let since = Mono::now();
        let mut told_s = 0;
        loop {
            if let Ok(Outcome::Status(status)) = perform(&node.control, Action::Status)
                && good(&status)
            {
                return Ok(());
            }
            for running in &mut self.nodes {
                if let Ok(Some(status)) = running.child.try_wait() {
                    return Err(format!(
                        "{} ended with {status}: {}",
                        running.layout.name,
                        last_words(&running.layout)
                    ));
                }
            }
            let waited_s = Mono::now().micros_since(since) / 1_000_000;
            if waited_s > DEMO_START_S_MAX {
                return Err(format!("{} is not ready after {waited_s} s: {}", node.name, last_words(node)));
            }
            if waited_s > told_s {
                told_s = waited_s;
                progress(&format!("waiting for {} ({waited_s} s)", node.name));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn run(mut self, json: bool) -> Result<(), String> {
        if json {
            println!("{}", self.as_json());
        } else {
            print!("{}", self.as_words());
        }
        self.watch()?;
        progress("stopping");
        for running in &self.nodes {
            let _ = process::terminate(running.child.id());
        }
        for running in &mut self.nodes {
            let _ = running.child.wait();
        }
        if let Some(dir) = &self.temporary {
            let _ = fs::remove_dir_all(dir);
        }
        Ok(())
    }

    /// Until a signal comes: starts nodes again that ended.
    fn watch(&mut self) -> Result<(), String> {
        let nodes = &mut self.nodes;
        self.runtime.block_on(async {
            let mut stop = super::signals::stop().map_err(|error| format!("listening for signals: {error}"))?;
            let mut tick = tokio::time::interval(Duration::from_millis(200));
            loop {
                tokio::select! {
                    _ = stop.recv() => return Ok(()),
                    _ = tick.tick() => nodes.iter_mut().try_for_each(Running::start_again_if_ended)?,
                }
            }
        })
    }

    fn as_json(&self) -> serde_json::Value {
        let portal = |node: &NodeLayout| format!("https://{}/", node.portal);
        let slaves = self.layout.slaves.iter().map(|slave| {
            json!({"name": slave.name, "proxy": slave.proxy.to_string(), "portal": portal(slave), "control": slave.control, "log": slave.log})
        });
        let slaves: Vec<_> = slaves.collect();
        let master = &self.layout.master;
        json!({
            "master": {"portal": portal(master), "control": master.control},
            "slaves": slaves,
            "origin": format!("http://{}/", self.origin),
            "policy": self.policy,
            "admin": {"user": ADMIN, "password": self.password},
        })
    }

    fn as_words(&self) -> String {
        let proxy = self.layout.slaves[0].proxy;
        let other = self.layout.slaves.last().map_or(proxy, |slave| slave.proxy);
        let (origin, policy) = (self.origin, self.policy.display());
        let control = self.layout.master.control.display();
        let tidegate = std::env::current_exe().map_or("tidegate".to_string(), |path| path.display().to_string());
        let slaves: String = self
            .layout
            .slaves
            .iter()
            .map(|slave| format!("  {:<8} proxy {}   portal https://{}/\n", slave.name, slave.proxy, slave.portal))
            .collect();
        format!(
            "\nA Tidegate cluster is up in {dir}\n\n  \
             master   portal https://{portal}/   (the certificate is its own: your browser will ask)\n{slaves}  \
             origin   http://{origin}/\n  \
             log in   {ADMIN} / {password}\n\n\
             Try:\n\n  \
             an allowed page          curl -x http://{proxy} http://{origin}/\n  \
             a blocked one            curl -x http://{other} http://{origin}/social\n  \
             a tunnel                 curl -p -x http://{proxy} http://{origin}/headers\n  \
             why                      {tidegate} policy explain --client 127.0.0.1 --url http://{origin}/social --control {control}\n  \
             change the policy        edit {policy} (swap /social for /news), then\n                           \
             {tidegate} policy apply {policy} -m \"news are off\" --control {control}\n  \
             the report of all nodes  {tidegate} report --last 1h --control {control}\n  \
             a browser                chromium --proxy-server=http://{proxy} --proxy-bypass-list='<-loopback>' http://{origin}/\n\n\
             Ctrl-C ends it.\n",
            dir = self.layout.dir.display(),
            portal = self.layout.master.portal,
            password = self.password,
        )
    }
}

impl Drop for Demo {
    /// A demo that could not start leaves no process behind.
    fn drop(&mut self) {
        for running in &mut self.nodes {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Running {
    fn spawn(layout: &NodeLayout) -> Result<Running, String> {
        let journal = journal_path(layout);
        let started = || {
            let out = OpenOptions::new().create(true).append(true).open(&journal)?;
            let program = std::env::current_exe()?;
            let mut command = Command::new(program);
            command
                .arg("run")
                .arg("--config")
                .arg(&layout.config)
                .env_remove("JOURNAL_STREAM")
                .env_remove("NOTIFY_SOCKET");
            process::spawn_bound(command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out))
        };
        let child = started().map_err(|error| format!("starting {}: {error}", layout.name))?;
        Ok(Running { layout: layout.clone(), child })
    }

    fn start_again_if_ended(&mut self) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            progress(&format!("{} ended with {status}; starting it again", self.layout.name));
            *self = Running::spawn(&self.layout)?;
        }
        Ok(())
    }
}

/// Performs `action` at a node's control socket; a refusal comes back as its words.
fn perform(control: &Path, action: Action) -> Result<Outcome, String> {
    match control::ask(control, &action) {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(refused)) => Err(refused.words),
        Err(error) => Err(error.to_string()),
    }
}

fn folder(named: Option<&Path>) -> Result<(PathBuf, Option<PathBuf>), String> {
    if let Some(dir) = named {
        let dir = std::path::absolute(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        return Ok((dir, None));
    }
    let dir = std::env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
    Ok((dir.clone(), Some(dir)))
}

fn start_origin(runtime: &tokio::runtime::Runtime) -> Result<SocketAddr, String> {
    let words = |error: std::io::Error| format!("starting the demo's origin: {error}");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).map_err(words)?;
    let address = listener.local_addr().map_err(words)?;
    runtime.spawn(async move {
        if let Err(error) = axum::serve(listener, origin::router()).await {
            progress(&format!("the origin stopped: {error}"));
        }
    });
    Ok(address)
}

fn journal_path(layout: &NodeLayout) -> PathBuf {
    layout.dir.join("journal.log")
}

/// The end of what a node said before it ended.
fn last_words(layout: &NodeLayout) -> String {
    let text = fs::read_to_string(journal_path(layout)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Progress goes to standard error: standard output is for the one JSON line or the words.
fn progress(words: &str) {
    eprintln!("tidegate demo: {words}");
}

fn first_policy(origin: SocketAddr) -> String {
    include_str!("demo_policy.toml").replace("ORIGIN_PORT", &origin.port().to_string())
}
