//! `tidegate lb`: balancer configurations for the slaves that the master knows, printed once or kept current in a file.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Status;
use crate::base::durable;
use crate::cli::args::Ask;
use crate::cli::args::Lb;
use crate::cli::args::Watch;
use crate::cli::control;
use crate::cli::fail;
use crate::cli::paper::tame;
use crate::cli::put;
use crate::cluster::balancer;
use crate::cluster::balancer::Backends;
use crate::cluster::balancer::haproxy;
use crate::cluster::balancer::keepalived;
use crate::cluster::balancer::nginx;
use crate::limits::LB_FILE_BYTES_MAX;
use crate::limits::LB_LOOK_MS;
use crate::limits::LB_RELOAD_S_MAX;
use crate::limits::LB_RETRY_S_MAX;
use crate::limits::LB_SETTLE_S;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;

/// Prints a configuration, or keeps a file current with it.
pub fn run(ask: &Ask, socket: &Path, lb: Lb) -> ExitCode {
    if ask.json {
        return fail(
            "a balancer's configuration has no JSON form; for programs there is `tidegate status --json` on the master",
        );
    }
    match lb {
        Lb::Haproxy { bind, balance, synced_within, watch } => {
            let options = haproxy::Options { bind, balance, synced_within_s: synced_within };
            made(socket, &watch, |backends| haproxy::config(backends, &options))
        }
        Lb::Nginx { bind, watch } => made(socket, &watch, |backends| nginx::config(backends, &bind)),
        Lb::Keepalived { vip, interface, router_id, state, peer, process } => {
            let is_master = state == "master";
            put(keepalived::config(&keepalived::Options { vip, interface, router_id, is_master, peers: peer, process })
                .as_bytes())
        }
    }
}

fn made(socket: &Path, watch: &Watch, config: impl Fn(&Backends) -> String) -> ExitCode {
    match (&watch.watch, &watch.reload) {
        (Some(file), reload) => keep_current(socket, file, reload.as_deref(), config),
        (None, _) => match look(socket) {
            Ok((_, backends)) => {
                if backends.live() == 0 {
                    say("no slave is up: this configuration serves nobody. See `tidegate status`");
                }
                put(config(&backends).as_bytes())
            }
            Err(words) => fail(&words),
        },
    }
}

/// What the master knows now.
fn look(socket: &Path) -> Result<(Status, Backends), String> {
    let ask = |action: Action| match control::ask(socket, &action) {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(refused)) => Err(refused.words),
        Err(error) => Err(error.to_string()),
    };
    let other = || "the node answered something else than it was asked; use the command of its version".to_string();
    let Outcome::Status(status) = ask(Action::Status)? else { return Err(other()) };
    match (status.role.as_str(), &status.master) {
        ("master", _) => {}
        (_, Some(master)) => {
            return Err(format!("this node is a slave: ask its master {}, which knows the others", master.address));
        }
        _ => {
            return Err(
                "this node is stand-alone: it has no slaves to put behind a balancer. Give one node ROLE=\"master\" \
                        and the others its address as MASTER_IP"
                    .to_string(),
            );
        }
    }
    let Outcome::Nodes { nodes } = ask(Action::Nodes)? else { return Err(other()) };
    Ok((*status, balancer::backends(&nodes)))
}

/// Looks again and again; replaces the file when what should stand there changes, and then has the balancer take it over.
fn keep_current(socket: &Path, file: &Path, reload: Option<&str>, config: impl Fn(&Backends) -> String) -> ExitCode {
    let mut keeper = Keeper { file, reload, told: String::new(), owed: false };
    let mut wait_s = 0;
    loop {
        let done = look(socket).and_then(|(status, backends)| keeper.bring(&status, &backends, config(&backends)));
        match done {
            Ok(()) => {
                (wait_s, keeper.told) = (0, String::new());
                std::thread::sleep(Duration::from_millis(LB_LOOK_MS));
            }
            Err(words) => {
                wait_s = (wait_s * 2).clamp(1, LB_RETRY_S_MAX);
                keeper.tell(format!("{words}. {} stays as it is", file.display()));
                std::thread::sleep(Duration::from_secs(wait_s));
            }
        }
    }
}

/// The file that is kept current.
struct Keeper<'a> {
    file: &'a Path,
    reload: Option<&'a str>,
    told: String,
    /// The file was replaced, and the balancer has not taken it over.
    owed: bool,
}

impl Keeper<'_> {
    fn bring(&mut self, status: &Status, backends: &Backends, text: String) -> Result<(), String> {
        if status.uptime_s < LB_SETTLE_S {
            return Err(format!(
                "the master started a moment ago and may not know all its slaves before {LB_SETTLE_S} s"
            ));
        }
        if backends.live() == 0 {
            return Err("the master hears of no slave: that is more likely its trouble than theirs".to_string());
        }
        let path = self.file.display();
        let current = read(self.file).map_err(|error| format!("reading {path}: {error}"))?;
        if current.as_deref() != Some(text.as_bytes()) {
            durable::replace(self.file, text.as_bytes(), 0o644).map_err(|error| format!("writing {path}: {error}"))?;
            self.owed = true;
            let (live, all) = (backends.live(), backends.slaves.len());
            say(&format!("{path} replaced: {live} of {all} slaves in service"));
        }
        match (self.owed, self.reload) {
            (true, Some(command)) => {
                reload(command)?;
                say(&format!("done: {command}"));
                self.owed = false;
            }
            _ => self.owed = false,
        }
        Ok(())
    }

    /// The same trouble is told once.
    fn tell(&mut self, words: String) {
        if self.told != words {
            say(&words);
            self.told = words;
        }
    }
}

fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    opened.take(LB_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Runs the administrator's command, for a bounded time.
fn reload(command: &str) -> Result<(), String> {
    let failed = |what: String| format!("{command}: {what}; it is tried again");
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    for _ in 0..LB_RELOAD_S_MAX * 20 {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(50)),
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(failed(status.to_string())),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    let _ = child.kill().and_then(|()| child.wait());
    Err(failed(format!("not done within {LB_RELOAD_S_MAX} s, and ended")))
}

fn say(words: &str) {
    // If even that fails there is nobody to tell.
    let _ = writeln!(io::stderr(), "tidegate lb: {}", tame(words));
}
