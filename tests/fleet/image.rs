//! Roots of Debian bookworm for the machines: made once by debootstrap, kept outside the clone, never written to by a machine.
//!
//! A node's root is bare (what a fresh server has, and curl); the others have a balancer, keepalived and a web server as well. The folder's
//! name holds the lists of packages, so that a changed list makes new roots. When one cannot be made the test fails and says why.

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use std::env;
use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

/// What every machine has beyond Debian's smallest: an init, and what an administrator types.
const BARE: &[&str] = &["systemd", "systemd-sysv", "dbus", "iproute2", "curl", "ca-certificates", "procps", "debconf"];

/// What stands around the nodes: balancers, the floating address, an origin.
const SERVICES: &[&str] = &["haproxy", "keepalived", "nginx-light"];

/// Which of the two roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    Bare,
    Services,
}

impl Image {
    /// Its root; made when it is not there.
    pub fn root(self) -> PathBuf {
        let roots = roots();
        match self {
            Image::Bare => roots.join("bare"),
            Image::Services => roots.join("services"),
        }
    }
}

/// The folder with both roots.
fn roots() -> PathBuf {
    assert!(
        nix::unistd::geteuid().is_root(),
        "the fleet boots machines: containers and network namespaces need root; run this test as root"
    );
    let name = format!(
        "debian-bookworm-{}",
        &blake3::hash([BARE, &["+"], SERVICES].concat().join(" ").as_bytes()).to_hex()[..12]
    );
    let cache = cache();
    fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("making {}: {error}", cache.display()));
    let roots = cache.join(&name);
    // Another run of the tests may want the same roots: one makes them, the others wait.
    let lock = File::create(cache.join(format!("{name}.lock"))).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
    if !roots.exists() {
        make(&cache.join(format!("{name}.partial")), &roots);
    }
    roots
}

fn cache() -> PathBuf {
    let home =
        || env::var_os("HOME").map_or_else(|| PathBuf::from("/var/cache"), |home| PathBuf::from(home).join(".cache"));
    env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("tidegate")
}

/// Makes both roots beside their place and moves them there whole.
fn make(partial: &Path, roots: &Path) {
    eprintln!("making {}: debootstrap takes a minute or two, once", roots.display());
    let _ = fs::remove_dir_all(partial);
    fs::create_dir_all(partial).unwrap();
    let bare = partial.join("bare").display().to_string();
    let services = partial.join("services").display().to_string();
    said_yes("debootstrap", &["--variant=minbase", &format!("--include={}", BARE.join(",")), "bookworm", &bare]);
    said_yes("cp", &["-a", &bare, &services]);
    let install = ["apt-get", "install", "-y", "-q", "--no-install-recommends"];
    let chroot = |command: &[&str]| {
        said_yes("chroot", &[&[services.as_str(), "env", "DEBIAN_FRONTEND=noninteractive"], command].concat())
    };
    chroot(&[&install[..], SERVICES].concat());
    // Each machine starts what it is there for, and makes itself an identity.
    chroot(&["systemctl", "disable", "haproxy", "keepalived", "nginx"]);
    for root in [&bare, &services] {
        said_yes("chroot", &[root, "apt-get", "clean"]);
        fs::write(Path::new(root).join("etc/machine-id"), "").unwrap();
    }
    fs::rename(partial, roots).unwrap();
}

fn said_yes(program: &str, arguments: &[&str]) {
    let said = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let said = said.unwrap_or_else(|error| panic!("starting {program}: {error}; tests/run installs it"));
    if !said.status.success() {
        let words = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        let tail: Vec<&str> = words.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        panic!(
            "the machines' root cannot be made, so nothing of the fleet can be tested: `{program} {}` said:\n{}\nIt needs root and a Debian \
             mirror; what it makes is kept in {}.",
            arguments.join(" "),
            tail.join("\n"),
            cache().display()
        );
    }
}
