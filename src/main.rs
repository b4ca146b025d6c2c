//! `tidegate`: one binary, a mode for each job.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::main(tidegate::cli::Modes {
        run: tidegate::daemon::run,
        keep: tidegate::daemon::keep,
        demo: tidegate::daemon::demo,
    })
}
