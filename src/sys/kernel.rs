//! What the kernel and the host are like: settings, limits and counts as /proc shows them, the clock, and whether io_uring may be
//! used. Only looked at, never changed; what it means for a node is `kernel_checks`' to say.

use crate::limits::KERNEL_FILE_BYTES_MAX;
use nix::libc;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// The host a node runs on, or a folder that looks like one.
pub struct Host {
    root: PathBuf,
    /// The clock, as the kernel keeps it.
    pub clock: Clock,
    /// Whether a ring may be made.
    pub uring: Uring,
}

/// What the kernel says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Something keeps it in step; by at most so many milliseconds it may be off.
    InStep {
        /// The kernel's own estimate.
        off_ms: i64,
    },
    /// Nothing does.
    Loose,
    /// This process may not ask (systemd's ProtectClock, or a filter of system calls).
    NotToBeAsked,
}

/// Whether a ring may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uring {
    /// Yes.
    Allowed,
    /// A setting of the kernel or a filter of system calls forbids it.
    Forbidden,
    /// The kernel has none.
    Absent,
}

impl Host {
    /// The one this process runs on.
    pub fn this() -> Host {
        Host { root: PathBuf::from("/"), clock: ask_clock(), uring: ask_uring() }
    }

    /// A folder with files such as `proc/sys/net/core/somaxconn`, for tests.
    pub fn at(root: impl Into<PathBuf>, clock: Clock, uring: Uring) -> Host {
        Host { root: root.into(), clock, uring }
    }

    /// The beginning of a file, without white space around it; nothing if it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.root.join(path.trim_start_matches('/'))).ok()?;
        file.take(KERNEL_FILE_BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_string())
    }

    /// The numbers a file begins with.
    pub fn numbers(&self, path: &str) -> Vec<u64> {
        let text = self.text(path).unwrap_or_default();
        text.split_whitespace().map_while(|word| word.parse().ok()).collect()
    }

    /// A setting: `net.core.somaxconn`.
    pub fn setting(&self, name: &str) -> Option<u64> {
        self.numbers(&format!("/proc/sys/{}", name.replace('.', "/"))).first().copied()
    }

    /// A limit of this process, by its name in /proc/self/limits; no limit is the largest number.
    pub fn limit(&self, name: &str) -> Option<u64> {
        let limits = self.text("/proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        match line.split_whitespace().next()? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    }

    /// How many entries a folder has.
    pub fn entries(&self, path: &str) -> u64 {
        std::fs::read_dir(self.root.join(path.trim_start_matches('/'))).map_or(0, |list| list.count() as u64)
    }

    /// Whether there is a file or folder.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path.trim_start_matches('/')).exists()
    }
}

fn ask_clock() -> Clock {
    // JUSTIFICATION: nothing safe asks the kernel whether its clock is in step.
    // SAFETY: `timex` is plain numbers, for which zero is a value; with `modes` zero the call changes nothing and fills the
    // struct it is given, which outlives it.
    let (state, told) = unsafe {
        let mut told: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut told), told)
    };
    match state {
        -1 => Clock::NotToBeAsked,
        _ if told.status & libc::STA_UNSYNC != 0 => Clock::Loose,
        _ => Clock::InStep { off_ms: told.esterror / 1_000 },
    }
}

fn ask_uring() -> Uring {
    // JUSTIFICATION: io_uring has no file that says whether a filter of system calls lets it through; asking does.
    // SAFETY: with a null pointer for its parameters the call makes nothing: the kernel refuses it with EFAULT where rings are
    // allowed, after the checks that refuse it otherwise. It reads no memory of ours.
    let answered = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
    match std::io::Error::last_os_error().raw_os_error() {
        _ if answered >= 0 => Uring::Allowed,
        Some(libc::ENOSYS) => Uring::Absent,
        Some(libc::EPERM | libc::EACCES) => Uring::Forbidden,
        _ => Uring::Allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_read() {
        let host = Host::this();
        // The tests run real nodes: without io_uring they would say so elsewhere.
        assert_eq!(host.uring, Uring::Allowed);
        assert!(host.text("/proc/sys/kernel/osrelease").is_some_and(|release| release.contains('.')));
        assert!(host.setting("net.core.somaxconn").is_some_and(|backlog| backlog > 0));
        assert!(host.limit("Max open files").is_some_and(|files| files > 0));
        assert_eq!(
            (host.text("/proc/nowhere"), host.setting("no.such.setting"), host.limit("Max")),
            (None, None, None)
        );
    }

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        write(
            "proc/self/limits",
            "Limit  Soft  Hard\nMax open files   unlimited   20000  files\nMax locked memory  8192  8192  bytes\n",
        );
        write("proc/long", &"x".repeat(KERNEL_FILE_BYTES_MAX + 1));
        let host = Host::at(dir.path(), Clock::Loose, Uring::Absent);
        assert_eq!(host.numbers("/proc/sys/net/ipv4/ip_local_port_range"), [32_768, 60_999]);
        assert_eq!(host.limit("Max open files"), Some(u64::MAX));
        assert_eq!(host.limit("Max locked memory"), Some(8_192));
        assert_eq!(host.text("/proc/long").map(|text| text.len()), Some(KERNEL_FILE_BYTES_MAX));
        assert!(host.has("/proc/self") && !host.has("/run"));
    }
}
