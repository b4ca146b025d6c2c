//! The command line: one mode a job, everything asked of a running node goes over its control socket.
#![forbid(unsafe_code)]

pub mod control;

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

/// The modes that are not the command line's own: the daemon stands a floor above and hands them down.
#[derive(Clone, Copy)]
pub struct Modes {
    /// `tidegate run`: be a node, by this startup.ini.
    pub run: fn(&Path) -> ExitCode,
    /// `tidegate demo`: a whole cluster in a folder.
    pub demo: fn(DemoOptions) -> ExitCode,
}

/// What `tidegate demo` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// The folder to use and keep; a temporary one if absent.
    pub dir: Option<PathBuf>,
    /// How many slaves.
    pub slaves: usize,
    /// Print one JSON line once ready instead of words.
    pub json: bool,
}

/// Reads the arguments and runs the mode they name.
pub fn main(modes: Modes) -> ExitCode {
    let _ = modes;
    ExitCode::SUCCESS
}
