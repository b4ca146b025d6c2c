//! The wire between the machines: a bridge in a network namespace of its own, and one more namespace per machine. Nothing of it is in the
//! host's own network: its routes and addresses stay as they are, and nobody else reaches the machines.

use std::cell::RefCell;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// How names of namespaces (and of control groups) of the fleet begin; the number of the process that made them follows.
const PREFIX: &str = "tgfleet";

/// Switches that this process made: each gets names of its own.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A bridge. Its machines' namespaces end with it.
pub struct Switch {
    namespace: String,
    ports: RefCell<Vec<String>>,
}

/// A machine's end of a cable, and the name of its namespace.
#[derive(Clone, Debug)]
pub struct Port {
    switch: String,
    cable: String,
    address: Ipv4Addr,
    pub namespace: String,
}

impl Switch {
    pub fn new() -> Switch {
        sweep();
        let namespace = format!("{PREFIX}-{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &namespace]);
        ip(&["-n", &namespace, "link", "add", "tgfleet0", "type", "bridge"]);
        ip(&["-n", &namespace, "link", "set", "tgfleet0", "up"]);
        Switch { namespace, ports: RefCell::default() }
    }

    /// A new machine's place: `eth0` with this address, and nothing beyond the bridge.
    pub fn attach(&self, name: &str, address: Ipv4Addr) -> Port {
        self.place(name, address, |cable, namespace| {
            let ends = ["name", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace];
            ip(&[&["-n", &self.namespace, "link", "add"][..], &ends[..]].concat());
        })
    }

    /// The same, with two loose ends instead of a cable: whoever opens both taps carries the frames.
    #[allow(dead_code)] // the storm's alone
    pub fn attach_loose(&self, name: &str, address: Ipv4Addr) -> Port {
        self.place(name, address, |cable, namespace| {
            ip(&["-n", namespace, "tuntap", "add", "dev", "eth0", "mode", "tap"]);
            ip(&["-n", &self.namespace, "tuntap", "add", "dev", cable, "mode", "tap"]);
        })
    }

    fn place(&self, name: &str, address: Ipv4Addr, connect: impl FnOnce(&str, &str)) -> Port {
        let namespace = format!("{}-{name}", self.namespace);
        ip(&["netns", "add", &namespace]);
        self.ports.borrow_mut().push(namespace.clone());
        let cable = format!("to-{name}");
        connect(&cable, &namespace);
        ip(&["-n", &self.namespace, "link", "set", &cable, "master", "tgfleet0", "up"]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        Port { switch: self.namespace.clone(), cable, address, namespace }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for namespace in self.ports.borrow().iter().chain([&self.namespace]) {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
        }
    }
}

impl Port {
    /// As when a machine boots: it has its own address and nothing of an earlier life.
    pub fn plug(&self) {
        ip(&["-n", &self.namespace, "address", "flush", "dev", "eth0"]);
        ip(&["-n", &self.namespace, "address", "add", &format!("{}/24", self.address), "dev", "eth0"]);
        ip(&["-n", &self.namespace, "link", "set", "eth0", "up"]);
        ip(&["-n", &self.switch, "link", "set", &self.cable, "up"]);
    }

    /// From now on nothing goes in or out: not even the goodbyes that a dying process's kernel would send.
    pub fn unplug(&self) {
        ip(&["-n", &self.switch, "link", "set", &self.cable, "down"]);
    }

    /// The switch's end of its cable: the file of the switch's namespace, and the name there.
    #[allow(dead_code)] // the storm's alone
    pub fn far_end(&self) -> (PathBuf, &str) {
        (PathBuf::from("/run/netns").join(&self.switch), &self.cable)
    }

    /// The file that stands for its namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }
}

/// Namespaces whose test died without tidying up.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "delete", &name]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let said = Command::new("ip").args(arguments).output().expect("starting ip: tests/run installs it");
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "ip {}: {words}", arguments.join(" "));
}
