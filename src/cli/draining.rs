//! `tidegate drain` and `tidegate undrain`: the order, and with `--wait` the wait until nobody is served any more. On a master, for a
//! slave, the order is a task.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Status;
use crate::admin::Task;
use crate::cli::args::Ask;
use crate::cli::asking;
use crate::cli::control;
use crate::cli::fail;
use crate::cli::paper::tame;
use crate::cli::tasks;
use crate::cluster::NodeRow;
use crate::limits::DRAIN_LOOK_MS;
use std::io;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Takes the node out of service; with `wait_s`, returns when its last connection is gone.
pub fn drain(ask: &Ask, socket: &Path, node: Option<String>, wait_s: Option<u64>) -> ExitCode {
    let answer = control::ask(socket, &Action::Drain { node });
    match (wait_s, &answer) {
        (_, Ok(Ok(Outcome::Task(_)))) => drain_slave(ask, socket, answer, wait_s),
        (Some(wait_s), Ok(Ok(_))) => wait(ask, wait_s, || look_here(socket)),
        _ => asking::finish(ask, answer),
    }
}

/// Puts a node back into service.
pub fn undrain(ask: &Ask, socket: &Path, node: Option<String>) -> ExitCode {
    match control::ask(socket, &Action::Undrain { node }) {
        Ok(Ok(Outcome::Task(task))) => tasks::finish_followed(ask, socket, Ok(Ok(Outcome::Task(task)))),
        answer => asking::finish(ask, answer),
    }
}

/// A slave's: first until it has the order, then until the master hears from it that it serves nobody.
fn drain_slave(ask: &Ask, socket: &Path, ordered: asking::Answered, wait_s: Option<u64>) -> ExitCode {
    let Some(wait_s) = wait_s else { return tasks::finish_followed(ask, socket, ordered) };
    let done = match tasks::follow(ask, socket, ordered) {
        Ok(Ok(Outcome::Task(task))) if task.is_done() => task,
        Ok(Ok(Outcome::Task(task))) => return fail(&not_done(&task)),
        other => return asking::finish(ask, other),
    };
    let name = done.nodes.first().map(|node| node.node.clone()).unwrap_or_default();
    wait(ask, wait_s, || look_there(socket, &name, done.nodes.first().map_or(0, |node| node.at_us)))
}

fn not_done(task: &Task) -> String {
    let words: Vec<_> =
        task.nodes.iter().map(|node| format!("{} {}: {}", node.node, node.progress, node.words)).collect();
    format!("the drain was not done: {}", words.join("; "))
}

/// How a drain stands.
enum Stands {
    /// In words.
    Serving(String),
    Drained,
    /// Somebody ended the drain.
    BackInService,
}

fn wait(ask: &Ask, wait_s: u64, mut look: impl FnMut() -> Result<Stands, asking::Answered>) -> ExitCode {
    let mut told = String::new();
    for _ in 0..=wait_s.saturating_mul(1_000) / DRAIN_LOOK_MS {
        match look() {
            Ok(Stands::Serving(words)) => tell(&mut told, words),
            Ok(Stands::BackInService) => {
                return fail("somebody put the node back into service (tidegate undrain); it is not drained");
            }
            Ok(Stands::Drained) => {
                let words = "drained: no client is served any more".to_string();
                return asking::finish(ask, Ok(Ok(Outcome::Done { words })));
            }
            Err(other) => return asking::finish(ask, other),
        }
        std::thread::sleep(Duration::from_millis(DRAIN_LOOK_MS));
    }
    fail(&format!(
        "{told} after {wait_s} s. The node stays drained; wait on, or stop it: that cuts what is left after DRAIN_TIME"
    ))
}

fn look_here(socket: &Path) -> Result<Stands, asking::Answered> {
    let status = match control::ask(socket, &Action::Status) {
        Ok(Ok(Outcome::Status(status))) => status,
        other => return Err(other),
    };
    // Until the notice is over balancers may still send clients, however few there are just now.
    Ok(match &status.draining {
        None => Stands::BackInService,
        Some(draining) if draining.closing && status.front.connections == 0 => Stands::Drained,
        Some(_) => Stands::Serving(progress(&status)),
    })
}

/// As of the slave's last contact, which must be after the order was done.
fn look_there(socket: &Path, name: &str, since_us: i64) -> Result<Stands, asking::Answered> {
    let nodes = match control::ask(socket, &Action::Nodes) {
        Ok(Ok(Outcome::Nodes { nodes })) => nodes,
        other => return Err(other),
    };
    let row = nodes.iter().find(|row| row.refusal.is_empty() && row.name.eq_ignore_ascii_case(name));
    Ok(match row {
        Some(row) if row.up && row.last_contact_us > since_us => stands(row),
        _ => Stands::Serving(format!("draining: waiting to hear from {name}")),
    })
}

fn stands(row: &NodeRow) -> Stands {
    let (connections, tunnels) = (row.counters.connections_open, row.counters.tunnels_open);
    match (row.offer.draining, row.offer.closing, connections) {
        (true, true, 0) => Stands::Drained,
        (true, closing, _) => Stands::Serving(words(connections, tunnels, closing)),
        (false, ..) => Stands::BackInService,
    }
}

fn progress(status: &Status) -> String {
    let closing = status.draining.as_ref().is_none_or(|draining| draining.closing);
    words(status.front.connections, status.counters.tunnels_open, closing)
}

fn words(connections: u64, tunnels: u64, closing: bool) -> String {
    let notice = if closing { "" } else { " (balancers are being given notice)" };
    format!("draining: {connections} connections, {tunnels} of them tunnels{notice}")
}

fn tell(told: &mut String, words: String) {
    if *told != words {
        let _ = writeln!(io::stderr(), "{}", tame(&words));
        *told = words;
    }
}
