//! The command line: one mode a job, everything asked of a running node goes over its control socket.
#![forbid(unsafe_code)]

/// Reads the arguments and runs the mode they name.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
