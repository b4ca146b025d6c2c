//! `tidegate`: one binary, a mode for each job.
fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
