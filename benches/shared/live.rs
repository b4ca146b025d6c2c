//! What benches of a slave under load share: clients that count, the gate between it and its master, and reading of both.

use crate::harness::Cluster;
use crate::harness::Node;
use crate::harness::client::Client;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate::sys::affinity;

/// The kernel counts a process's time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// A master and a slave with its first policy, and the gate between them.
pub fn start() -> (Cluster, Gate) {
    let mut cluster = Cluster::lay_out(1, &[]);
    let gate = set_apart(&mut cluster);
    cluster.master.start();
    cluster.apply(&cluster.policy(""));
    cluster.slaves[0].start();
    cluster.wait_for_policy();
    (cluster, gate)
}

/// Gives the one slave of a cluster, none of whose nodes runs yet, the first processor for itself, data core and all its other threads
/// together; the master gets what clients, origin and gate leave of the second, as if it were another host. The gate lies between both.
fn set_apart(cluster: &mut Cluster) -> Gate {
    let processors = affinity::allowed_cpus().unwrap();
    affinity::pin_thread(processors[1 % processors.len()]).unwrap();
    let gate = Gate::before(cluster.master.layout.portal);
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    cluster.master.through = words(&["chrt", "--idle", "0"]);
    let slave = &mut cluster.slaves[0];
    slave.through = words(&["taskset", "-c", &processors[0].to_string()]);
    let said = fs::read_to_string(&slave.layout.config).unwrap();
    let port = |port: u16| format!("MASTER_PORT=\"{port}\"");
    let through_gate = said.replace(&port(cluster.master.layout.portal.port()), &port(gate.address.port()));
    fs::write(&slave.layout.config, through_gate).unwrap();
    gate
}

/// Four clients, each of which asks, waits 2 ms, asks again; every tenth request over a new connection.
pub struct Load {
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Taken>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(proxy: SocketAddr, url: String) -> Load {
        let (stop, taken): (Arc<AtomicBool>, Arc<Mutex<Taken>>) = Default::default();
        let client = |_| {
            let (stop, taken, url) = (stop.clone(), taken.clone(), url.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let times = ten_requests(proxy, &url);
                    let mut taken = taken.lock().unwrap();
                    match times {
                        Ok(times) => taken.micros.extend(times),
                        Err(error) => taken.failures.push(error.to_string()),
                    }
                }
            })
        };
        let clients = (0..4).map(client).collect();
        Load { stop, taken, clients }
    }

    /// What they met since they were last asked.
    pub fn take(&self) -> Taken {
        std::mem::take(&mut *self.taken.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.drain(..).for_each(|client| drop(client.join()));
    }
}

/// What clients met since they were last asked.
#[derive(Default)]
pub struct Taken {
    pub micros: Vec<u64>,
    pub failures: Vec<String>,
}

fn ten_requests(proxy: SocketAddr, url: &str) -> std::io::Result<Vec<u64>> {
    let mut client = Client::connect(proxy)?;
    let mut times = Vec::new();
    for _ in 0..10 {
        let began = Instant::now();
        let answer = client.get(url)?;
        if answer.status != 200 {
            return Err(std::io::Error::other(answer.head));
        }
        times.push(began.elapsed().as_micros() as u64);
        thread::sleep(Duration::from_millis(2));
    }
    Ok(times)
}

pub struct Quantiles {
    pub count: usize,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Quantiles {
    pub fn of(mut micros: Vec<u64>) -> Quantiles {
        micros.sort_unstable();
        let at =
            |share: f64| micros.get(((micros.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or_default();
        Quantiles { count: micros.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answers, us: p50 {} p99 {} max {}", self.count, self.p50, self.p99, self.max)
    }
}

/// What lies between the slave and its master: while it is shut, bytes wait in it.
pub struct Gate {
    pub address: SocketAddr,
    shut: Arc<AtomicBool>,
}

impl Gate {
    pub fn before(master: SocketAddr) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate { address: listener.local_addr().unwrap(), shut: Arc::default() };
        let shut = gate.shut.clone();
        thread::spawn(move || {
            for slave in listener.incoming().flatten() {
                let Ok(master) = TcpStream::connect(master) else { continue };
                for (from, to) in [(&slave, &master), (&master, &slave)] {
                    let (from, to, shut) = (from.try_clone().unwrap(), to.try_clone().unwrap(), shut.clone());
                    thread::spawn(move || carry(from, to, &shut));
                }
            }
        });
        gate
    }

    pub fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::Relaxed);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shut: &AtomicBool) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while shut.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
/// CPU seconds of a node's process so far.
pub fn cpu(node: &Node) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
