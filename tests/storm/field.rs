//! The hosts, what can befall them, and how each is mended.

use crate::harness::Node;
use crate::harness::Origin;
use crate::harness::client::Client;
use crate::harness::dice::Dice;
use crate::harness::disk::Disk;
use crate::harness::wait_until;
use crate::relay;
use crate::switch::Port;
use crate::switch::Switch;
use crate::wire;
use crate::wire::Told;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::daemon::layout::NodeLayout;
use tidegate::tls::activation::ActivationKey;

/// Kinds of faults; see [`Field::strike`].
pub const KINDS: u64 = 11;

/// Nobody's net in the world (RFC 5737 has too few addresses that are not taken here): it exists in the test's namespaces alone.
const MASTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SLAVES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(10, 77, 0, 12), Ipv4Addr::new(10, 77, 0, 13)];
const ORIGIN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 30);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 40);
const PROXY_PORT: u16 = 8080;
const PORTAL_PORT: u16 = 8888;
const ORIGIN_PORT: u16 = 8000;
/// What a packet filter does for a bad line, and counts.
pub const LOSES: &str = "numgen random mod 100 < 5 counter drop";
pub const RESETS: &str = "meta l4proto tcp numgen random mod 1000 < 5 counter reject with tcp reset";
/// The slave behind the slow line, the one whose clock is an hour ahead, the one with a small disk.
const SLOW: usize = 1;
const SKEWED: usize = 2;
const SMALL: usize = 0;
/// The slave whose frames overtake each other.
const UNRULY: usize = 2;
/// The small disk, in MiB, and what fills it.
const DISK_MIB: u64 = 160;

/// The hosts. Everything ends with the value.
pub struct Field {
    pub master: Node,
    pub slaves: Vec<Node>,
    ports: Vec<Port>,
    clients: Port,
    applied: u32,
    paused: BTreeSet<usize>,
    /// What the wire of one slave does with its frames.
    pub wire: Arc<Told>,
    /// Files that this test damaged, with what it left in them.
    damaged: BTreeMap<PathBuf, Vec<u8>>,
    /// Slaves of which it changed a line that the master has already.
    pub scratched: BTreeSet<usize>,
    _origin: Origin,
    _disk: Disk,
    _switch: Switch,
    _dir: TempDir,
}

impl Field {
    /// All hosts up, with a policy in force; nothing if this process may not make hosts.
    pub fn new(seed: u64) -> Option<Field> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
            return None;
        }
        let switch = Switch::new();
        let plug = |name: &str, address| {
            let port = switch.attach(name, address);
            port.plug();
            port
        };
        let master = plug("master", MASTER);
        let mut wire = None;
        let slaves: Vec<Port> = SLAVES
            .iter()
            .enumerate()
            .map(|(at, address)| match at {
                UNRULY => {
                    let port = switch.attach_loose(&format!("s{at}"), *address);
                    wire = Some(wire::connect(&port, seed));
                    port.plug();
                    port
                }
                _ => plug(&format!("s{at}"), *address),
            })
            .collect();
        let (origin, clients, relay) = (plug("origin", ORIGIN), plug("clients", CLIENTS), plug("relay", RELAY));
        let origin = within(&origin.path(), || Origin::at(SocketAddr::from((ORIGIN, ORIGIN_PORT))));
        within(&relay.path(), || {
            let listener = TcpListener::bind((RELAY, PORTAL_PORT)).unwrap();
            relay::run(listener, SocketAddr::from((MASTER, PORTAL_PORT)));
        });
        let dir = tempfile::Builder::new().prefix("tidegate-storm-").tempdir().unwrap();
        let (nodes, disk) = nodes(dir.path(), &master, &slaves)?;
        let mut nodes = nodes.into_iter();
        let field = Field {
            master: nodes.next().expect("a master"),
            slaves: nodes.collect(),
            ports: std::iter::once(master).chain(slaves).collect(),
            clients,
            applied: 0,
            paused: BTreeSet::new(),
            damaged: BTreeMap::new(),
            scratched: BTreeSet::new(),
            wire: wire.expect("one slave is behind it"),
            _origin: origin,
            _disk: disk,
            _switch: switch,
            _dir: dir,
        };
        field.master.start();
        let snapshot = field.master.apply(&policy(0));
        field.slaves.iter().for_each(Node::start);
        for slave in &field.slaves {
            wait_until("the first policy on every slave", || slave.status().is_some_and(|s| s.snapshot == snapshot));
        }
        Some(field)
    }

    /// Does one thing that befalls hosts; answers what.
    pub fn strike(&mut self, kind: u64, dice: &mut Dice) -> String {
        let at = dice.roll(4) as usize;
        let name = self.node(at).layout.name.clone();
        match kind {
            0 => {
                self.unplug(at);
                format!("{name}: cable out")
            }
            1 => {
                self.rule(at, LOSES);
                format!("{name}: loses 5 % of its packets")
            }
            2 => {
                self.rule(at, RESETS);
                format!("{name}: resets connections")
            }
            3 => {
                self.signal(at, "STOP");
                self.paused.insert(at);
                format!("{name}: paused")
            }
            4 => {
                self.resume(at);
                self.node(at).kill();
                thread::sleep(Duration::from_millis(dice.roll(800)));
                self.node(at).spawn();
                format!("{name}: kill -9 and started")
            }
            5 => {
                self.resume(at);
                self.node(at).stop();
                self.node(at).spawn();
                format!("{name}: stopped and started")
            }
            6 => {
                self.resume(0);
                self.applied += 1;
                wait_until("the master to answer", || self.master.status().is_some());
                format!("policy {} applied", self.master.apply(&policy(self.applied)))
            }
            7 => {
                let filler = self.filler();
                let _ = fs::write(&filler, vec![0u8; (DISK_MIB as usize) << 20]);
                format!("{}: disk full", self.slaves[SMALL].layout.name)
            }
            8 => self.damage(dice),
            9 => self.scratch(dice),
            _ => {
                for at in shuffled(dice) {
                    self.resume(at);
                    self.node(at).kill();
                }
                for at in shuffled(dice) {
                    self.node(at).spawn();
                }
                "power failure: all nodes killed, started in another order".to_string()
            }
        }
    }

    /// Pulls a node's cable.
    pub fn unplug(&self, at: usize) {
        self.ports[at].unplug();
    }

    /// Mends everything; then all nodes run and answer.
    pub fn heal(&mut self) {
        let _ = fs::remove_file(self.filler());
        for at in 0..=self.slaves.len() {
            self.resume(at);
            let _ = self.nft(at, &["delete", "table", "inet", "storm"]);
            self.ports[at].plug();
            let node = self.node(at);
            if !node.is_running() {
                node.spawn();
            }
            wait_until(&format!("{} answers", node.layout.name), || {
                assert!(node.is_running(), "{} ended: {}", node.layout.name, node.journal());
                node.status().is_some()
            });
        }
    }

    /// Clients that ask through every slave, without end.
    pub fn load(&self) -> Load {
        let (whole, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let workers = (0..6).map(|worker| {
            let proxy = SocketAddr::from((SLAVES[worker % SLAVES.len()], PROXY_PORT));
            let (whole, stop): (Arc<Mutex<BTreeSet<String>>>, _) = (Arc::clone(&whole), stop.clone());
            within(&self.clients.path(), move || thread::spawn(move || ask(worker, proxy, &whole, &stop)))
        });
        Load { workers: workers.collect(), whole: whole.clone(), stop: stop.clone() }
    }

    /// The master is 0, then come the slaves.
    fn node(&self, at: usize) -> &Node {
        if at == 0 { &self.master } else { &self.slaves[at - 1] }
    }

    fn filler(&self) -> PathBuf {
        self.slaves[SMALL].layout.dir.join("log/filler")
    }

    /// A bit of the newest policy that a slave holds on its disk changes while it is off. Only where it holds another
    /// good one: a node without any denies everybody until the master is there, as it must.
    fn damage(&mut self, dice: &mut Dice) -> String {
        let at = 1 + dice.roll(self.slaves.len() as u64) as usize;
        self.resume(at);
        let name = self.node(at).layout.name.clone();
        self.node(at).kill();
        let held = self.held(at);
        let told = match held.split_first() {
            Some((newest, [_, ..])) => {
                let mut bytes = fs::read(newest).unwrap();
                let place = dice.roll(bytes.len() as u64) as usize;
                bytes[place] ^= 1 << dice.roll(8);
                fs::write(newest, &bytes).unwrap();
                self.damaged.insert(newest.clone(), bytes);
                "a bit of its policy changed on its disk"
            }
            _ => "killed; it holds too few good policies for damage",
        };
        self.node(at).spawn();
        format!("{name}: {told}")
    }

    /// A bit of a line of extended.log changes while its slave is off: one of the first half of those that the master has, for only they can
    /// neither be lost nor sent as they are now.
    fn scratch(&mut self, dice: &mut Dice) -> String {
        let at = 1 + dice.roll(self.slaves.len() as u64) as usize;
        self.resume(at);
        let (name, log) = (self.node(at).layout.name.clone(), self.node(at).layout.log.clone());
        self.node(at).kill();
        let cursor = fs::read(self.node(at).layout.dir.join("state/cursor")).unwrap_or_default();
        // docs/formats/cursor.md: where in the file shipping is; no file is full in a storm.
        let shipped = cursor.get(48..56).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap())) as usize;
        let mut lines = fs::read(&log).unwrap();
        let head = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1);
        let told = if shipped / 2 > head + 1_000 && shipped <= lines.len() {
            lines[head + dice.roll((shipped / 2 - head) as u64) as usize] ^= 1 << dice.roll(8);
            fs::write(&log, &lines).unwrap();
            self.scratched.insert(at - 1);
            "a bit of a line of its log changed on its disk"
        } else {
            "killed; the master has too little of its log for damage"
        };
        self.node(at).spawn();
        format!("{name}: {told}")
    }

    /// The policies that a slave holds undamaged, newest first.
    fn held(&self, at: usize) -> Vec<PathBuf> {
        let dir = self.node(at).layout.dir.join("state/snapshots");
        let index = fs::read(dir.join("index.json")).unwrap_or_default();
        let entries: Vec<serde_json::Value> = serde_json::from_slice(&index).unwrap_or_default();
        let files = entries.iter().filter_map(|entry| Some(dir.join(format!("{}.snapshot", entry["hash"].as_str()?))));
        let good = |file: &PathBuf| fs::read(file).is_ok_and(|bytes| self.damaged.get(file) != Some(&bytes));
        files.filter(good).collect()
    }

    fn resume(&mut self, at: usize) {
        if self.paused.remove(&at) {
            self.signal(at, "CONT");
        }
    }

    fn signal(&self, at: usize, signal: &str) {
        if self.node(at).is_running() {
            let pid = self.node(at).pid().to_string();
            assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        }
    }

    /// What the host's packet filter does with what comes in, until it is mended.
    pub fn rule(&self, at: usize, rule: &str) {
        let text = format!("table inet storm {{\n chain in {{\n type filter hook input priority 0;\n {rule}\n }}\n}}");
        self.nft(at, &["delete", "table", "inet", "storm"]).ok();
        self.nft(at, &[&text]).unwrap_or_else(|words| panic!("nft {text}: {words}"));
    }

    /// How many packets the rule has met.
    pub fn met(&self, at: usize) -> u64 {
        let said = self.nft(at, &["list", "table", "inet", "storm"]).unwrap();
        let number = said.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no counter: {said}"))
    }

    fn nft(&self, at: usize, words: &[&str]) -> Result<String, String> {
        let namespace = &self.ports[at].namespace;
        let said = Command::new("ip").args(["netns", "exec", namespace, "nft"]).args(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if said.status.success() { Ok(text(&said.stdout)) } else { Err(text(&said.stderr)) }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        for at in 0..=self.slaves.len() {
            self.resume(at);
        }
        // Before the disk and the namespaces go.
        self.master.kill();
        self.slaves.iter().for_each(Node::kill);
    }
}

/// Traffic that knows which answers it received whole.
pub struct Load {
    whole: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn answers(&self) -> usize {
        self.whole.lock().unwrap().len()
    }

    pub fn wait_for_more(&self, count: usize) {
        let target = self.answers() + count;
        wait_until(&format!("{count} more answers"), || self.answers() >= target);
    }

    pub fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().expect("a client saw something it must not see");
        }
        std::mem::take(&mut *self.whole.lock().unwrap())
    }
}

fn ask(worker: usize, proxy: SocketAddr, whole: &Mutex<BTreeSet<String>>, stop: &AtomicBool) {
    let base = format!("http://{ORIGIN}:{ORIGIN_PORT}");
    let mut kept: Option<Client> = None;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("w{worker}-{number}");
        let path = match number % 3 {
            0 => "chunked/3000",
            1 => "social",
            _ => "bytes/1024",
        };
        let connected = kept.take().map_or_else(|| Client::connect_within(proxy, Duration::from_secs(3)), Ok);
        let answered = connected.and_then(|mut client| Ok((client.get(&format!("{base}/{path}?id={id}"))?, client)));
        match answered {
            // A node whose log cannot be written says so with 503, and promises no record of it.
            Ok((answer, _)) if answer.status == 503 => thread::sleep(Duration::from_millis(20)),
            Ok((answer, client)) => {
                let blocked = path == "social";
                let expected = [if blocked { 403 } else { 200 }, 502, 504];
                assert!(expected.contains(&answer.status), "{path} through {proxy}: {}", answer.head);
                whole.lock().unwrap().insert(id);
                kept = answer.keeps.then_some(client);
                thread::sleep(Duration::from_millis(5));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The nodes' files, the small disk among them.
fn nodes(dir: &Path, master: &Port, slaves: &[Port]) -> Option<(Vec<Node>, Disk)> {
    let key = dir.join("activation.key");
    tidegate::base::durable::replace(&key, ActivationKey::generate().unwrap().to_text().as_bytes(), 0o600).unwrap();
    let at = |name: &str, address: Ipv4Addr| {
        NodeLayout::at(dir, name, SocketAddr::from((address, PROXY_PORT)), SocketAddr::from((address, PORTAL_PORT)))
    };
    let node = |layout: NodeLayout, port: &Port, params: &[(&str, String)]| {
        layout.write(&key, params, &BTreeMap::new()).unwrap();
        let through = ["ip", "netns", "exec", &port.namespace].map(str::to_string).to_vec();
        let mut node = Node::of(&layout);
        node.through = through;
        node
    };
    let mut nodes = vec![node(at("master", MASTER), master, &[("ROLE", "master".to_string())])];
    for (number, port) in slaves.iter().enumerate() {
        let of = if number == SLOW { RELAY } else { MASTER };
        let params =
            [("ROLE", "slave".to_string()), ("MASTER_IP", of.to_string()), ("MASTER_PORT", PORTAL_PORT.to_string())];
        nodes.push(node(at(&format!("slave-{}", number + 1), SLAVES[number]), port, &params));
    }
    nodes[1 + SKEWED].set_clock("+1h");
    let disk = Disk::mount(&dir.join("disk.img"), &nodes[1 + SMALL].layout.dir.join("log"), DISK_MIB)?;
    Some((nodes, disk))
}

fn policy(number: u32) -> String {
    include_str!("../harness/policy.toml")
        .replace("127.0.0.1/32:ORIGIN_PORT", &format!("{ORIGIN}/32:{ORIGIN_PORT}"))
        .replace("ORIGIN_PORT", &ORIGIN_PORT.to_string())
        .replace("127.0.0.0/8", "10.77.0.0/24")
        + &format!("# {number}\n")
}

fn shuffled(dice: &mut Dice) -> Vec<usize> {
    let mut order: Vec<usize> = (0..=SLAVES.len()).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, dice.roll(at as u64 + 1) as usize);
    }
    order
}

/// Does something in a host's network: threads and sockets made there stay there.
pub fn within<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = fs::File::open(namespace).unwrap();
    thread::scope(|scope| {
        let entered = scope.spawn(move || {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering a network namespace");
            work()
        });
        entered.join().expect("what is done in a network namespace")
    })
}
