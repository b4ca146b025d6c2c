//! What of the kernel and the host matters to a node: one table, a row a check, each with why it matters and, where something is
//! amiss, the command that mends it. The values recommended stand in `systemd/90-tidegate-sysctl.conf` too.

use crate::limits::LISTEN_BACKLOG;
use crate::sys::kernel::Clock;
use crate::sys::kernel::Host;
use crate::sys::kernel::Uring;
use serde::Deserialize;
use serde::Serialize;

/// What a node wants of its host.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// MAX_FDS.
    pub open_files: u64,
    /// MAX_CONNECTIONS.
    pub connections: u64,
    /// The ports it listens on.
    pub ports: Vec<u16>,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It could not be looked at.
    Unknown,
    /// The node works; it would carry more, or be easier to trust, if this were changed.
    Advice,
    /// Something is refused, lost or about to be.
    Hurts,
}

/// One check, walked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// What it came to.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: String,
    /// The command that mends it; empty if there is nothing to mend.
    pub remedy: String,
}

/// Looks at all of it, in the table's order.
pub fn walk(host: &Host, needs: &Needs) -> Vec<Finding> {
    let row = |check: &Check| {
        let Seen { verdict, found, remedy } = (check.look)(host, needs);
        Finding { name: check.name.to_string(), verdict, found, why: check.why.to_string(), remedy }
    };
    TABLE.iter().map(row).collect()
}

struct Check {
    name: &'static str,
    why: &'static str,
    look: fn(&Host, &Needs) -> Seen,
}

struct Seen {
    verdict: Verdict,
    found: String,
    remedy: String,
}

const TABLE: &[Check] = &[
    Check { name: "kernel", why: "The data cores use what io_uring can do since Linux 5.15.", look: kernel },
    Check {
        name: "io_uring",
        why: "Every connection is served through it; without it the node does not start.",
        look: uring,
    },
    Check {
        name: "open files",
        why: "Each connection is a descriptor, a proxied one several; at the limit new clients are not accepted.",
        look: open_files,
    },
    Check {
        name: "open files of the host",
        why: "All processes of the host share this number; at it nobody opens anything.",
        look: host_files,
    },
    Check {
        name: "listen backlog",
        why: "Connections that come in a burst, or during a restart, wait here; those beyond it are dropped.",
        look: backlog,
    },
    Check {
        name: "SYN backlog",
        why: "Handshakes under way wait here; without SYN cookies a flood of half-open ones locks clients out.",
        look: syn_backlog,
    },
    Check {
        name: "outgoing ports",
        why: "Each connection to an origin takes one, per address of the origin; without one, origins cannot be reached.",
        look: ports,
    },
    Check {
        name: "own ports",
        why: "An outgoing connection that took a port the node listens on would keep it from starting again.",
        look: own_ports,
    },
    Check {
        name: "ports in TIME_WAIT",
        why: "A closed connection holds its outgoing port for a minute unless the kernel may use it again.",
        look: time_wait,
    },
    Check {
        name: "connection tracking",
        why: "With a full table the kernel drops new connections, and the node does not see why.",
        look: conntrack,
    },
    Check {
        name: "locked memory",
        why: "Memory that rings register counts against it; Linux before 5.12 counts the rings themselves.",
        look: locked_memory,
    },
    Check {
        name: "clock",
        why: "Records carry this clock's time, time profiles go by it, and nodes a day apart refuse each other.",
        look: clock,
    },
    Check { name: "entropy", why: "TLS keys are made of it; a host without it waits for some.", look: entropy },
    Check { name: "processor", why: "TLS without instructions for AES costs several times as much.", look: processor },
    Check {
        name: "memory overcommit",
        why: "Snapshots are mapped and threads reserve stacks; strict accounting counts what is never touched.",
        look: overcommit,
    },
];

fn kernel(host: &Host, _: &Needs) -> Seen {
    let Some(release) = host.text("/proc/sys/kernel/osrelease") else { return unknown("/proc/sys is not to be seen") };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (5, 15) => {
            hurts(format!("Linux {release}"), "install a kernel of 5.15 or newer, and boot it")
        }
        (Some(_), Some(_)) => good(format!("Linux {release}")),
        _ => unknown(format!("the release `{release}` is not understood")),
    }
}

fn uring(host: &Host, _: &Needs) -> Seen {
    let disabled = host.setting("kernel.io_uring_disabled").unwrap_or(0);
    match (host.uring, disabled) {
        (Uring::Allowed, 0) => good("allowed"),
        (Uring::Allowed, number) => advice(
            format!("allowed to this process, but kernel.io_uring_disabled is {number}"),
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        (Uring::Forbidden, 1 | 2) => {
            hurts(format!("kernel.io_uring_disabled is {disabled}"), "sysctl -w kernel.io_uring_disabled=0")
        }
        (Uring::Forbidden, _) => hurts(
            "a filter of system calls (seccomp) forbids it",
            "in a unit: SystemCallFilter=@io-event io_uring_setup io_uring_enter io_uring_register; \
             in a container: allow io_uring_setup, io_uring_enter and io_uring_register",
        ),
        (Uring::Absent, _) => hurts("this kernel was built without it", "boot a kernel with CONFIG_IO_URING=y"),
    }
}

fn open_files(host: &Host, needs: &Needs) -> Seen {
    let Some(limit) = host.limit(OPEN_FILES) else { return unknown("/proc/self/limits is not to be seen") };
    let (used, wanted) = (host.entries("/proc/self/fd"), needs.open_files);
    let found = format!("{used} of {} in use", count(limit));
    let nr_open = host.setting("fs.nr_open").filter(|most| *most < wanted);
    let raise = match nr_open {
        Some(_) => format!("sysctl -w fs.nr_open={wanted}, then restart the node"),
        None => format!("systemctl edit tidegate: [Service] LimitNOFILE={wanted}; then systemctl restart tidegate"),
    };
    let carries = limit / DESCRIPTORS_PER_CLIENT;
    match () {
        () if used > limit / 10 * 8 || limit < OPEN_FILES_MIN => hurts(format!("{found}; MAX_FDS is {wanted}"), raise),
        () if limit < wanted => advice(format!("{found}; MAX_FDS is {wanted}"), raise),
        () if carries < needs.connections => {
            let wanted = needs.connections.saturating_mul(DESCRIPTORS_PER_CLIENT);
            advice(
                format!("{found}, enough for {carries} clients; MAX_CONNECTIONS is {}", needs.connections),
                format!("tidegate params set MAX_FDS={wanted}, and restart; or a smaller MAX_CONNECTIONS"),
            )
        }
        () => good(found),
    }
}

fn host_files(host: &Host, _: &Needs) -> Seen {
    let (Some(used), Some(most)) = (host.setting("fs.file-nr"), host.setting("fs.file-max")) else {
        return unknown("fs.file-nr is not to be seen");
    };
    let found = format!("{used} of {} in use", count(most));
    if used > most / 10 * 8 {
        hurts(found, format!("sysctl -w fs.file-max={}", most.saturating_mul(2)))
    } else {
        good(found)
    }
}

fn backlog(host: &Host, _: &Needs) -> Seen {
    let Some(most) = host.setting("net.core.somaxconn") else { return unknown("net.core.somaxconn is not to be seen") };
    let wanted = u64::from(LISTEN_BACKLOG);
    let found = format!("net.core.somaxconn is {most}, the node asks for {wanted}");
    if most < wanted {
        return hurts(found, format!("sysctl -w net.core.somaxconn={wanted}, then restart the node"));
    }
    good(found)
}

fn syn_backlog(host: &Host, _: &Needs) -> Seen {
    let Some(most) = host.setting("net.ipv4.tcp_max_syn_backlog") else {
        return unknown("net.ipv4.tcp_max_syn_backlog is not to be seen");
    };
    let cookies = host.setting("net.ipv4.tcp_syncookies").unwrap_or(0);
    let found = format!("{most}, {} SYN cookies", if cookies == 0 { "without" } else { "with" });
    match (cookies, most < SYN_BACKLOG) {
        (0, _) => advice(found, "sysctl -w net.ipv4.tcp_syncookies=1"),
        (_, true) => advice(found, format!("sysctl -w net.ipv4.tcp_max_syn_backlog={SYN_BACKLOG}")),
        (_, false) => good(found),
    }
}

fn ports(host: &Host, _: &Needs) -> Seen {
    let Some((first, last)) = port_range(host) else {
        return unknown("net.ipv4.ip_local_port_range is not to be seen");
    };
    let ports = (last + 1).saturating_sub(first);
    let found = format!("{ports}, from {first} to {last}");
    match ports {
        0..PORTS_MIN => hurts(found, PORTS_REMEDY),
        PORTS_MIN..PORTS_WANTED => advice(found, PORTS_REMEDY),
        _ => good(found),
    }
}

fn own_ports(host: &Host, needs: &Needs) -> Seen {
    let Some((first, last)) = port_range(host) else {
        return unknown("net.ipv4.ip_local_port_range is not to be seen");
    };
    let reserved = host.text("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let taken = |port: &&u16| (first..=last).contains(&u64::from(**port)) && !is_reserved(&reserved, **port);
    let taken: Vec<String> = needs.ports.iter().filter(taken).map(u16::to_string).collect();
    if taken.is_empty() {
        return good("not among the outgoing ones");
    }
    let all = if reserved.is_empty() { taken.join(",") } else { format!("{reserved},{}", taken.join(",")) };
    advice(
        format!("{} lies among the outgoing ports {first} to {last}", taken.join(", ")),
        format!("sysctl -w net.ipv4.ip_local_reserved_ports={all}"),
    )
}

fn time_wait(host: &Host, _: &Needs) -> Seen {
    match host.setting("net.ipv4.tcp_tw_reuse") {
        None => unknown("net.ipv4.tcp_tw_reuse is not to be seen"),
        Some(1) => good("used again after a second"),
        Some(_) => advice("held for a minute", "sysctl -w net.ipv4.tcp_tw_reuse=1"),
    }
}

fn conntrack(host: &Host, needs: &Needs) -> Seen {
    let most = host.setting("net.netfilter.nf_conntrack_max");
    let (Some(most), Some(used)) = (most, host.setting("net.netfilter.nf_conntrack_count")) else {
        return good("the kernel tracks no connections here");
    };
    let found = format!("{used} of {most} places taken");
    // Each client has a connection of its own and, as a rule, one to an origin.
    let wanted = needs.connections.saturating_mul(2);
    let remedy = |wanted: u64| {
        format!("sysctl -w net.netfilter.nf_conntrack_max={wanted}; or do not track the proxy's port (nft: notrack)")
    };
    match (used > most / 10 * 8, most < wanted) {
        (true, _) => hurts(found, remedy(most.saturating_mul(2).max(wanted))),
        (false, true) => advice(format!("{found}; MAX_CONNECTIONS is {}", needs.connections), remedy(wanted)),
        (false, false) => good(found),
    }
}

fn locked_memory(host: &Host, _: &Needs) -> Seen {
    match host.limit("Max locked memory") {
        None => unknown("/proc/self/limits is not to be seen"),
        Some(limit) if limit < LOCKED_BYTES_WANTED => advice(
            format!("{limit} bytes"),
            "systemctl edit tidegate: [Service] LimitMEMLOCK=infinity; then systemctl restart tidegate",
        ),
        Some(u64::MAX) => good("unlimited"),
        Some(limit) => good(format!("{limit} bytes")),
    }
}

fn clock(host: &Host, _: &Needs) -> Seen {
    let keepers = [("/run/chrony", "chronyc tracking"), ("/run/ntpd.pid", "ntpq -p"), ("/run/ntpsec", "ntpq -p")];
    match host.clock {
        Clock::InStep { off_ms } => good(format!("kept in step, off by {off_ms} ms at most as the kernel estimates")),
        Clock::Loose => advice(
            "nothing keeps it in step",
            "timedatectl set-ntp true (or install chrony); then timedatectl shows `System clock synchronized: yes`",
        ),
        // systemd-timesyncd leaves this file when it has set the clock.
        Clock::NotToBeAsked if host.has("/run/systemd/timesync/synchronized") => {
            good("kept in step by systemd-timesyncd")
        }
        Clock::NotToBeAsked => match keepers.iter().find(|(path, _)| host.has(path)) {
            Some((path, command)) => Seen {
                remedy: format!("ask on the host: {command}"),
                ..unknown(format!(
                    "{path} says that a time daemon runs; whether it is in step, this process may not ask"
                ))
            },
            None => Seen {
                remedy: "ask on the host: timedatectl".to_string(),
                ..unknown("this process may not ask, and no time daemon is to be seen")
            },
        },
    }
}

fn entropy(host: &Host, _: &Needs) -> Seen {
    match host.setting("kernel.random.entropy_avail") {
        None => unknown("kernel.random.entropy_avail is not to be seen"),
        Some(bits) if bits < ENTROPY_BITS_WANTED => {
            advice(format!("{bits} bits"), "give the machine a virtio-rng device, or install rng-tools5 or haveged")
        }
        Some(bits) => good(format!("{bits} bits")),
    }
}

fn processor(host: &Host, _: &Needs) -> Seen {
    let info = host.text("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let Some((_, flags)) = flags.and_then(|line| line.split_once(':')) else {
        return unknown("/proc/cpuinfo names no features");
    };
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let shown: Vec<&str> = PROCESSOR_FLAGS.iter().copied().filter(|flag| has(flag)).collect();
    match has("aes") {
        true => good(shown.join(" ")),
        false => advice(
            format!(
                "no aes among its features ({})",
                if shown.is_empty() { "none known".into() } else { shown.join(" ") }
            ),
            "in a virtual machine: pass the host's processor through (cpu mode host-passthrough)",
        ),
    }
}

fn overcommit(host: &Host, _: &Needs) -> Seen {
    match host.setting("vm.overcommit_memory") {
        None => unknown("vm.overcommit_memory is not to be seen"),
        Some(2) => advice("strict accounting (2)", "sysctl -w vm.overcommit_memory=0"),
        Some(mode) => good(format!("vm.overcommit_memory is {mode}")),
    }
}

/// First and last port that outgoing connections take.
fn port_range(host: &Host) -> Option<(u64, u64)> {
    match host.numbers("/proc/sys/net/ipv4/ip_local_port_range")[..] {
        [first, last] => Some((first, last)),
        _ => None,
    }
}

/// Whether a list such as `8080,9000-9100` holds `port`.
fn is_reserved(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

fn good(found: impl Into<String>) -> Seen {
    Seen { verdict: Verdict::Good, found: found.into(), remedy: String::new() }
}

fn unknown(found: impl Into<String>) -> Seen {
    Seen { verdict: Verdict::Unknown, found: found.into(), remedy: String::new() }
}

fn advice(found: impl Into<String>, remedy: impl Into<String>) -> Seen {
    Seen { verdict: Verdict::Advice, found: found.into(), remedy: remedy.into() }
}

fn hurts(found: impl Into<String>, remedy: impl Into<String>) -> Seen {
    Seen { verdict: Verdict::Hurts, found: found.into(), remedy: remedy.into() }
}

/// A number that may be no limit at all.
fn count(number: u64) -> String {
    if number >= i64::MAX as u64 { "no limit".to_string() } else { number.to_string() }
}

const OPEN_FILES: &str = "Max open files";
/// A client and its connection to an origin; pipes of tunnels come on top where there is room.
const DESCRIPTORS_PER_CLIENT: u64 = 2;
/// Fewer do not carry an office.
const OPEN_FILES_MIN: u64 = 4_096;
/// Handshakes under way that the kernel should hold.
const SYN_BACKLOG: u64 = 4_096;
/// With fewer outgoing ports than this, a busy origin's address runs out of them within a minute at 170 connections a second.
const PORTS_MIN: u64 = 10_000;
/// What the recommended range has, nearly.
const PORTS_WANTED: u64 = 45_000;
const PORTS_REMEDY: &str = "sysctl -w net.ipv4.ip_local_port_range=\"16384 65535\"";
/// Rings of every core and room for what they register.
const LOCKED_BYTES_WANTED: u64 = 8 * 1024 * 1024;
/// What a kernel since 5.18 always shows.
const ENTROPY_BITS_WANTED: u64 = 128;
/// Those that the libraries for TLS, hashing and matching use, on x86-64 and on ARM.
const PROCESSOR_FLAGS: [&str; 9] = ["aes", "pclmulqdq", "vaes", "avx2", "avx512f", "sha_ni", "pmull", "sha2", "asimd"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const RECOMMENDED: &str = include_str!("../../systemd/90-tidegate-sysctl.conf");

    fn needs() -> Needs {
        Needs { open_files: 65_536, connections: 16_384, ports: vec![8080, 8888] }
    }

    /// A host with nothing amiss; each row then spoils one thing.
    fn sound() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("proc/sys/kernel/osrelease", "6.1.0-30-amd64"),
            ("proc/sys/kernel/io_uring_disabled", "0"),
            (
                "proc/self/limits",
                "Max open files  1048576  1048576  files\nMax locked memory  unlimited  unlimited  bytes",
            ),
            ("proc/sys/fs/nr_open", "1048576"),
            ("proc/sys/fs/file-nr", "1200\t0\t9223372036854775807"),
            ("proc/sys/fs/file-max", "9223372036854775807"),
            ("proc/sys/net/core/somaxconn", "4096"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096"),
            ("proc/sys/net/ipv4/tcp_syncookies", "1"),
            ("proc/sys/net/ipv4/ip_local_port_range", "16384\t65535"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", ""),
            ("proc/sys/net/ipv4/tcp_tw_reuse", "1"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "100"),
            ("proc/sys/kernel/random/entropy_avail", "256"),
            ("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu aes avx2 sha_ni\n"),
            ("proc/sys/vm/overcommit_memory", "0"),
        ];
        files.iter().for_each(|(path, text)| write(dir.path(), path, text));
        dir
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn find(host: &Host, name: &str) -> Finding {
        walk(host, &needs()).into_iter().find(|finding| finding.name == name).unwrap()
    }

    #[test]
    fn a_sound_host_has_nothing_to_mend() {
        let dir = sound();
        let host = Host::at(dir.path(), Clock::InStep { off_ms: 3 }, Uring::Allowed);
        for finding in walk(&host, &needs()) {
            assert_eq!((finding.verdict, finding.remedy.as_str()), (Verdict::Good, ""), "{finding:?}");
        }
    }

    #[test]
    fn each_thing_amiss_is_found_with_the_command_that_mends_it() {
        use Verdict::*;
        let conntrack = "proc/sys/net/netfilter/nf_conntrack_count";
        let limits = |files: &str, locked: &str| {
            format!("Max open files  {files}  1048576  files\nMax locked memory  {locked}  1  bytes")
        };
        let table: &[(&str, &str, &str, Verdict, &str)] = &[
            ("proc/sys/kernel/osrelease", "5.10.0-9", "kernel", Hurts, "install a kernel"),
            ("proc/sys/kernel/osrelease", "nonsense", "kernel", Unknown, ""),
            ("proc/sys/kernel/io_uring_disabled", "1", "io_uring", Advice, "sysctl -w kernel.io_uring_disabled=0"),
            ("proc/self/limits", &limits("1024", "1"), "open files", Hurts, "LimitNOFILE=65536"),
            ("proc/self/limits", &limits("20000", "1"), "open files", Advice, "LimitNOFILE=65536"),
            ("proc/sys/fs/nr_open", "20000", "open files", Good, ""),
            ("proc/self/limits", &limits("65536", "1"), "open files", Good, ""),
            ("proc/self/limits", &limits("1048576", "65536"), "locked memory", Advice, "LimitMEMLOCK"),
            ("proc/sys/fs/file-nr", "9000000000000000000", "open files of the host", Hurts, "sysctl -w fs.file-max="),
            ("proc/sys/net/core/somaxconn", "128", "listen backlog", Hurts, "sysctl -w net.core.somaxconn=4096"),
            (
                "proc/sys/net/ipv4/tcp_max_syn_backlog",
                "512",
                "SYN backlog",
                Advice,
                "net.ipv4.tcp_max_syn_backlog=4096",
            ),
            ("proc/sys/net/ipv4/tcp_syncookies", "0", "SYN backlog", Advice, "sysctl -w net.ipv4.tcp_syncookies=1"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999", "outgoing ports", Advice, "16384 65535"),
            ("proc/sys/net/ipv4/ip_local_port_range", "60000\t60999", "outgoing ports", Hurts, "16384 65535"),
            ("proc/sys/net/ipv4/ip_local_port_range", "60999\t60000", "outgoing ports", Hurts, "16384 65535"),
            (
                "proc/sys/net/ipv4/ip_local_port_range",
                "1024\t65535",
                "own ports",
                Advice,
                "ip_local_reserved_ports=8080,8888",
            ),
            ("proc/sys/net/ipv4/tcp_tw_reuse", "2", "ports in TIME_WAIT", Advice, "sysctl -w net.ipv4.tcp_tw_reuse=1"),
            (conntrack, "250000", "connection tracking", Hurts, "nf_conntrack_max=524288"),
            (
                "proc/sys/net/netfilter/nf_conntrack_max",
                "1000",
                "connection tracking",
                Advice,
                "nf_conntrack_max=32768",
            ),
            ("proc/sys/kernel/random/entropy_avail", "12", "entropy", Advice, "virtio-rng"),
            ("proc/cpuinfo", "flags : fpu avx2", "processor", Advice, "host-passthrough"),
            ("proc/cpuinfo", "Features : fp asimd aes pmull", "processor", Good, ""),
            ("proc/sys/vm/overcommit_memory", "2", "memory overcommit", Advice, "sysctl -w vm.overcommit_memory=0"),
        ];
        for (path, text, name, verdict, remedy) in table {
            let dir = sound();
            write(dir.path(), path, text);
            let finding = find(&Host::at(dir.path(), Clock::InStep { off_ms: 0 }, Uring::Allowed), name);
            assert_eq!(finding.verdict, *verdict, "{path} {text}: {finding:?}");
            assert!(finding.remedy.contains(remedy), "{path} {text}: {finding:?}");
            assert_eq!(finding.remedy.is_empty(), remedy.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn clock_and_ring_are_told_from_what_may_be_asked() {
        let dir = sound();
        let at = |clock, uring| Host::at(dir.path(), clock, uring);
        assert_eq!(find(&at(Clock::Loose, Uring::Allowed), "clock").verdict, Verdict::Advice);
        assert_eq!(find(&at(Clock::NotToBeAsked, Uring::Allowed), "clock").verdict, Verdict::Unknown);
        fs::create_dir_all(dir.path().join("run/chrony")).unwrap();
        assert!(find(&at(Clock::NotToBeAsked, Uring::Allowed), "clock").remedy.contains("chronyc"));
        write(dir.path(), "run/systemd/timesync/synchronized", "");
        assert_eq!(find(&at(Clock::NotToBeAsked, Uring::Allowed), "clock").verdict, Verdict::Good);

        let ring = |uring| find(&at(Clock::Loose, uring), "io_uring");
        assert!(ring(Uring::Forbidden).remedy.contains("SystemCallFilter"), "{:?}", ring(Uring::Forbidden));
        assert!(ring(Uring::Absent).remedy.contains("CONFIG_IO_URING"));
        write(dir.path(), "proc/sys/kernel/io_uring_disabled", "2");
        assert_eq!(ring(Uring::Forbidden).remedy, "sysctl -w kernel.io_uring_disabled=0");
    }

    #[test]
    fn a_host_that_shows_nothing_is_unknown_and_not_bad() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path(), Clock::NotToBeAsked, Uring::Allowed);
        let bad: Vec<_> = walk(&host, &needs()).into_iter().filter(|found| found.verdict > Verdict::Unknown).collect();
        assert_eq!(bad, []);
    }

    #[test]
    fn reserved_ports_are_ports_and_ranges() {
        for (list, port, reserved) in [
            ("", 8080, false),
            ("8080", 8080, true),
            ("1,8000-8100", 8080, true),
            ("1,8000-8100", 8101, false),
            ("nonsense,-,8080-", 8080, false),
        ] {
            assert_eq!(is_reserved(list, port), reserved, "{list:?} {port}");
        }
    }

    /// The file that is shipped and the table that asks for it say the same.
    #[test]
    fn the_recommended_settings_satisfy_the_checks_and_each_is_explained() {
        let dir = sound();
        let mut before = "";
        let mut settings = 0;
        for line in RECOMMENDED.lines() {
            if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                assert!(before.starts_with("# "), "{line}: no comment above it");
                let path = name.trim().trim_start_matches('-').replace('.', "/");
                write(dir.path(), &format!("proc/sys/{path}"), value.trim());
                settings += 1;
            }
            before = line;
        }
        assert!(settings >= 6, "{RECOMMENDED}");
        let host = Host::at(dir.path(), Clock::InStep { off_ms: 0 }, Uring::Allowed);
        for finding in walk(&host, &needs()) {
            assert_eq!(finding.verdict, Verdict::Good, "{finding:?}");
        }
    }
}
