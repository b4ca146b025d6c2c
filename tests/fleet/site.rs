//! A site: machines on one wire, an origin, a client, and how an administrator brings nodes into service.

use crate::documents::as_said;
use crate::documents::follow;
use crate::harness::wait_until;
use crate::image::Image;
use crate::load::Load;
use crate::load::Plan;
use crate::machine::Machine;
use crate::packages::Package;
use crate::switch::Switch;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use tempfile::TempDir;

pub const INSTALL: &str = "docs/install.md";
pub const CLUSTER: &str = "docs/cluster.md";
pub const FRONT: &str = "docs/front.md";

/// The floating address of the balancers.
pub const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

/// A page of the origin, and one that takes about two seconds.
pub const PAGE: &str = "http://web.test/";
pub const SLOW_PAGE: &str = "http://web.test/slow/page";

/// Machines and their addresses; each site has those it needs.
const ADDRESSES: &[(&str, u8)] = &[
    ("balancer1", 5),
    ("balancer2", 6),
    ("node", 9),
    ("master", 10),
    ("slave1", 11),
    ("slave2", 12),
    ("web", 80),
    ("client", 200),
];

/// The origin: what it serves at once, and what takes its time.
const ORIGIN: &str = "server {
  listen 80 default_server;
  listen 443 default_server;
  root /srv;
  access_log off;
  keepalive_requests 1000000;
  location /slow/ { limit_rate 32k; }
}
";

/// Machines that are on.
pub struct Site {
    pub machines: Vec<Machine>,
    _switch: Switch,
    _disks: TempDir,
}

impl Site {
    /// Boots these machines, with an origin on `web` and nothing else in service.
    pub fn boot(names: &[&str]) -> Site {
        let disks = tempfile::Builder::new().prefix("tidegate-fleet-").tempdir().unwrap();
        let switch = Switch::new();
        let hosts: String =
            ADDRESSES.iter().map(|(name, last)| format!("10.77.0.{last} {name} {name}.test\n")).collect();
        let machine = |name: &&str| {
            let last = ADDRESSES.iter().find(|(known, _)| known == name).expect("a machine of the list").1;
            let image = if name.starts_with("balancer") || *name == "web" { Image::Services } else { Image::Bare };
            Machine::new(&switch, image, disks.path(), name, Ipv4Addr::new(10, 77, 0, last), &hosts)
        };
        let site = Site { machines: names.iter().map(machine).collect(), _switch: switch, _disks: disks };
        site.machines.iter().for_each(Machine::power_on);
        site.machines.iter().for_each(Machine::wait_until_up);
        site.serve();
        site
    }

    pub fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.name == name).expect("a machine of the site")
    }

    /// A load of new connections from the client.
    pub fn plan(&self, proxy: Ipv4Addr, url: &str, per_second: u32) -> Plan {
        Plan { proxy: SocketAddr::from((proxy, 8080)), url: url.to_string(), per_second, threads: 64.min(per_second) }
    }

    fn serve(&self) {
        let web = self.machine("web");
        web.write("/etc/nginx/sites-enabled/default", ORIGIN.as_bytes());
        web.ok("mkdir -p /srv/slow; echo a page > /srv/index.html; head -c 65536 /dev/zero > /srv/slow/page; systemctl start nginx");
    }
}

/// The package's file comes to the machine as a download would, and is installed as the page says.
pub fn install(machine: &Machine, package: &Package) {
    let name = package.deb.file_name().unwrap().to_str().unwrap();
    machine.copy(&package.deb, &format!("/var/tmp/{name}"));
    follow(machine, INSTALL, "dpkg -i tidegate_VERSION_amd64.deb", &[("tidegate_VERSION_amd64.deb", name)]);
}

/// The administrator's editor: the line of the key, with its help above it, gets another value.
pub fn set_params(machine: &Machine, params: &[(&str, &str)]) {
    for (key, value) in params {
        let edit = format!(
            "sed -i 's|^#\\? *{key}=.*|{key}=\"{value}\"|' /etc/tidegate/startup.ini && grep -qx '{key}=\"{value}\"' /etc/tidegate/startup.ini"
        );
        machine.ok(&edit);
    }
}

/// Until every line of `tidegate verify` says passed. What does not yet is printed when it changes.
pub fn wait_until_verified(machine: &Machine) {
    let mut last = Vec::new();
    wait_until(&format!("tidegate verify is green on {}", machine.name), || {
        let said = machine.run("tidegate verify");
        let failed: Vec<String> =
            said.all().lines().filter(|line| !line.starts_with("passed")).map(str::to_string).collect();
        if said.code != 0 && failed != last {
            eprintln!("   not yet on {}: {}", machine.name, failed.join(" | "));
        }
        last = failed;
        said.code == 0
    });
}

/// A page of the origin as a client's curl sees it: the status, and who it was for.
pub fn fetch(client: &Machine, proxy: Ipv4Addr, url: &str) -> u16 {
    let said = client.run(&format!("curl -s -o /dev/null -w '%{{http_code}}' -m 10 -x http://{proxy}:8080 {url}"));
    said.out.trim().parse().unwrap_or(0)
}

pub fn step(words: &str) {
    eprintln!("-- {words}");
}

/// The policy of the README, as the package brings it.
pub const FIRST_POLICY: &str = "/usr/share/doc/tidegate/examples/first-policy.toml";

pub fn add_administrator(machine: &Machine, page: &str) {
    let command = as_said(page, "tidegate admin add alice", &[]);
    machine.run_with(&command, b"correct horse battery staple\n").expect(&machine.name, &command);
}

/// Applies a policy with the page's command.
pub fn apply(machine: &Machine, policy: &str) {
    follow(
        machine,
        CLUSTER,
        "tidegate policy apply first-policy.toml -m \"first policy\"",
        &[("first-policy.toml", policy)],
    );
}

/// The process that systemd watches: the node's keeper; 0 while there is none.
pub fn main_pid(machine: &Machine) -> u32 {
    machine.ok("systemctl show --value -p MainPID tidegate").trim().parse().expect("a number")
}

/// Until so many more requests were answered.
pub fn wait_until_answered(load: &Load, more: u64) {
    let goal = load.tally().answered + more;
    wait_until("requests are answered", || load.tally().answered >= goal);
}

/// The process that carries traffic, as the node itself says; 0 while there is none. systemd knows its keeper ([`main_pid`]).
pub fn node_pid(machine: &Machine) -> u64 {
    json(machine, "tidegate status --json")["pid"].as_u64().unwrap_or(0)
}

/// What a command answers as JSON; null where it does not.
pub fn json(machine: &Machine, command: &str) -> Value {
    serde_json::from_str(&machine.run(command).out).unwrap_or(Value::Null)
}
