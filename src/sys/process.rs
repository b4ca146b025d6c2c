//! Child processes of the demo, and this process's own replacement.

use nix::sys::resource::Resource;
use nix::sys::resource::UsageWho;
use nix::sys::resource::getrlimit;
use nix::sys::resource::getrusage;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::time::TimeVal;
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
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
    // The kernel says their number as the folder's size since Linux 6.2; an older one says 0, and they must be listed.
    let said = std::fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
    // The listing holds one itself.
    let listed = || std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count().saturating_sub(1) as u64);
    if said > 0 { said } else { listed() }
}

/// How many descriptors this process may have open.
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// CPU time this process has used, user and system, in microseconds.
pub fn cpu_us() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let micros = |time: TimeVal| time.num_microseconds().max(0) as u64;
    micros(usage.user_time()) + micros(usage.system_time())
}

/// Memory of this process that is in RAM, in bytes; 0 where /proc does not say.
pub fn resident_bytes() -> u64 {
    kib_of(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:") * 1024
}

/// The host's RAM and what programs could still get of it, in bytes; zeros where /proc does not say.
pub fn host_memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (kib_of(&text, "MemTotal:") * 1024, kib_of(&text, "MemAvailable:") * 1024)
}

/// The host's load average over one minute, in thousandths; 0 where /proc does not say.
pub fn load_milli() -> u64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    (load * 1_000.0).round() as u64
}

fn kib_of(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Asks process `pid` to end in good order (SIGTERM).
pub fn terminate(pid: u32) -> io::Result<()> {
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM).map_err(io::Error::from)
}

/// SIGTERM: end in good order.
pub const TERMINATE: i32 = nix::libc::SIGTERM;
/// SIGHUP: read the startup params again.
pub const HANGUP: i32 = nix::libc::SIGHUP;
/// SIGABRT: end at once; somebody hangs.
pub const ABORT: i32 = nix::libc::SIGABRT;
/// SIGUSR1: a successor takes over.
pub const STAND_ASIDE: i32 = nix::libc::SIGUSR1;

/// Sends `signal` to process `pid`.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?), Signal::try_from(signal)?)?)
}

/// The process that started this one, or that inherited it.
pub fn parent() -> u32 {
    nix::unistd::getppid().as_raw() as u32
}

/// Undoes the bond of [`spawn_bound`] in the child: it may outlive its parent from now on.
pub fn outlive_parent() {
    // A bond that could not be undone ends this process a little earlier than it wished.
    let _ = nix::sys::prctl::set_pdeathsig(None);
}

/// Where our own program stands now. By its path, not /proc/self/exe: after an upgrade the new one stands there.
pub fn own_program() -> PathBuf {
    let named = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute() && path.exists());
    named.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| PathBuf::from("tidegate"))
}

/// Replaces this process by `command`, keeping its pid. Returns only if that failed.
pub fn replace_self(command: &mut Command) -> io::Error {
    command.exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_this_process_and_host_can_be() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let (open, listed) = (open_descriptors(), std::fs::read_dir("/proc/self/fd").unwrap().count() as u64);
        assert!(open >= 3 && listed > 3, "{open} open, {listed} listed");
        drop(file);
        let (total, available) = host_memory();
        assert!(total > resident_bytes() && total >= available && resident_bytes() > 1024 * 1024);
        assert!(descriptors_max() >= open && cpu_us() > 0);
        assert_eq!(kib_of("VmPeak:\t9 kB\nVmRSS:\t  123 kB\n", "VmRSS:"), 123);
    }
}
