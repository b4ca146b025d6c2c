//! Child processes of the demo, and this process's own replacement.

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;

/// Starts `command` so that the kernel ends the child (SIGTERM) when the calling thread ends, however it ends: a demo that
/// is killed leaves no nodes behind.
pub fn spawn_bound(command: &mut Command) -> io::Result<Child> {
    let parent = nix::unistd::getpid();
    let bind = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from)?;
        // The parent may have died before the line above.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(3)) }
    };
    // JUSTIFICATION: the death signal can only be asked for by the child itself, between fork and exec.
    // SAFETY: `bind` makes two system calls (prctl, getppid), both async-signal-safe, and allocates nothing (its error
    // is a bare number, ESRCH).
    unsafe { command.pre_exec(bind) };
    // A group of its own: Ctrl-C reaches the demo alone, which then ends its nodes in order.
    command.process_group(0).spawn()
}

/// How many descriptors this process has open; 0 where /proc does not say.
pub fn open_descriptors() -> u64 {
    // The listing holds one itself.
    std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count().saturating_sub(1) as u64)
}

/// Asks process `pid` to end in good order (SIGTERM).
pub fn terminate(pid: u32) -> io::Result<()> {
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM).map_err(io::Error::from)
}

/// Replaces this process by `program` with `arguments`, keeping its pid. Returns only if that failed.
pub fn replace_self(program: &Path, arguments: &[&std::ffi::OsStr]) -> io::Error {
    Command::new(program).args(arguments).exec()
}
