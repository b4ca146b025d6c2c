//! Assembly: the only module that knows everyone. `run` is a node, `demo` a whole cluster on loopback.
#![forbid(unsafe_code)]

#[allow(dead_code)] // until the node is in
mod journal;
#[allow(dead_code)] // until the demo is in
mod origin;

use crate::cli::DemoOptions;
use std::path::Path;
use std::process::ExitCode;

/// Runs a node by the startup params in `config` until it is told to stop.
pub fn run(config: &Path) -> ExitCode {
    let _ = config;
    ExitCode::FAILURE
}

/// Runs a whole cluster on loopback.
pub fn demo(options: DemoOptions) -> ExitCode {
    let _ = options;
    ExitCode::FAILURE
}
