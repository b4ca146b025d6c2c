//! The command line: one mode a job, everything asked of a running node goes over its control socket.
#![forbid(unsafe_code)]

mod args;
mod asking;
pub mod control;
mod draining;
mod keys;
mod lb;
mod local;
mod manual;
mod paper;
mod show;
mod tasks;
mod times;
mod verifying;

use args::ActivationKey;
use args::Cli;
use args::Command;
use args::Params;
use args::Policy;
use clap::Parser;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

/// The modes that are not the command line's own: the daemon stands a floor above and hands them down.
#[derive(Clone, Copy)]
pub struct Modes {
    /// `tidegate run`: be a node, by this startup.ini.
    pub run: fn(&Path) -> ExitCode,
    /// `tidegate keep`: hold a node's place under systemd while one process follows another.
    pub keep: fn(&Path) -> ExitCode,
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
    // Wrong usage, --help and --version end here, with 2, 0 and 0.
    let Cli { ask, command } = Cli::parse();
    match command {
        // The two that are the product: they come from the floor above.
        Command::Run { config } => (modes.run)(&config),
        Command::Keep { config } => (modes.keep)(&config),
        Command::Demo { dir, slaves } => (modes.demo)(DemoOptions { dir, slaves: slaves.into(), json: ask.json }),
        // What needs no node.
        Command::Completions { shell } => end(Ok(manual::completions(shell))),
        Command::Man { output } => end(manual::pages(output.as_deref())),
        Command::ActivationKey(ActivationKey::New { output }) => end(keys::new(output.as_deref())),
        Command::ActivationKey(ActivationKey::Rotate { file, days }) => end(keys::rotate(&file, days)),
        Command::ActivationKey(ActivationKey::Retire { file }) => end(keys::retire(&file)),
        Command::ActivationKey(ActivationKey::Show { file }) => end(keys::show(&file)),
        Command::Params(Params::Default) => {
            end(Ok(crate::settings::render(&crate::settings::Said::default()).into_bytes()))
        }
        Command::Metrics { reference: true } => end(Ok(crate::figures::reference().into_bytes())),
        Command::Params(Params::Reference) => end(Ok(manual::startup_params().into_bytes())),
        Command::Policy(Policy::Check { file, offline }) => asking::check(&ask, &file, offline),
        // What a running node is asked.
        other => asking::run(&ask, other),
    }
}

/// Prints what was made, or what went wrong.
fn end(made: Result<Vec<u8>, String>) -> ExitCode {
    match made {
        Ok(bytes) => put(&bytes),
        Err(words) => fail(&words),
    }
}

/// Writes to standard output. A reader that has seen enough (`| head -1`) is no failure.
fn put(bytes: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&format!("writing to standard output failed: {error}")),
    }
}

/// Says what went wrong on standard error.
fn fail(words: &str) -> ExitCode {
    // If even that fails there is nobody to tell.
    let _ = writeln!(io::stderr(), "tidegate: {}", paper::tame(words));
    ExitCode::FAILURE
}

/// Colour on a terminal whose user did not ask for none (no-color.org).
fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
