//! `tidegate drain` and `tidegate undrain`: the order, and with `--wait` the wait until nobody is served any more.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Status;
use crate::cli::args::Ask;
use crate::cli::asking;
use crate::cli::control;
use crate::cli::fail;
use crate::cli::paper::tame;
use crate::limits::DRAIN_LOOK_MS;
use std::io;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Takes the node out of service; with `wait_s`, returns when its last connection is gone.
pub fn drain(ask: &Ask, socket: &Path, node: Option<String>, wait_s: Option<u64>) -> ExitCode {
    let answer = control::ask(socket, &Action::Drain { node });
    let (Some(wait_s), Ok(Ok(_))) = (wait_s, &answer) else { return asking::finish(ask, answer) };
    let mut told = String::new();
    for _ in 0..=wait_s.saturating_mul(1_000) / DRAIN_LOOK_MS {
        let status = match control::ask(socket, &Action::Status) {
            Ok(Ok(Outcome::Status(status))) => status,
            other => return asking::finish(ask, other),
        };
        if status.draining.is_none() {
            return fail("somebody put the node back into service (tidegate undrain); it is not drained");
        }
        // Until the notice is over balancers may still send clients, however few there are just now.
        if status.draining.as_ref().is_some_and(|draining| draining.closing) && status.front.connections == 0 {
            let words = "drained: no client is served any more".to_string();
            return asking::finish(ask, Ok(Ok(Outcome::Done { words })));
        }
        tell(&mut told, progress(&status));
        std::thread::sleep(Duration::from_millis(DRAIN_LOOK_MS));
    }
    fail(&format!(
        "{told} after {wait_s} s. The node stays drained; wait on, or stop it: that cuts what is left after DRAIN_TIME"
    ))
}

fn progress(status: &Status) -> String {
    let notice = match &status.draining {
        Some(draining) if !draining.closing => " (balancers are being given notice)",
        _ => "",
    };
    let (connections, tunnels) = (status.front.connections, status.counters.tunnels_open);
    format!("draining: {connections} connections, {tunnels} of them tunnels{notice}")
}

fn tell(told: &mut String, words: String) {
    if *told != words {
        let _ = writeln!(io::stderr(), "{}", tame(&words));
        *told = words;
    }
}
