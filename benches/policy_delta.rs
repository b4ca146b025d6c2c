//! What a small change of a large policy costs, with a real master and a real slave on loopback: bytes moved, time until the
//! master knows that it is applied, the master's CPU, and what clients of the slave notice of the swap.
//! `benches/policy-delta [HOSTS] [ROUNDS]`; a line per figure.

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::Cluster;
use harness::Node;
use harness::client::Client;
use harness::wait_until;
use std::fs;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::admin::{Action, Outcome};

/// The kernel counts a process's time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let hosts: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(5_000_000);
    let rounds: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(10);
    let cluster = Cluster::start(1);
    let lists = cluster.master.layout.dir.join("lists");
    fs::create_dir_all(&lists).unwrap();
    write_hosts(&lists, hosts, 0);
    let first = apply(&cluster, 0, 0);
    println!("first transfer, {hosts} hosts: {first}");
    let file = newest(&cluster.slaves[0].layout.dir.join("state/snapshots"));
    println!("snapshot file: {:.1} MiB", file as f64 / 1_048_576.0);
    for round in 0..rounds {
        println!("one rule more: {}", apply(&cluster, round + 1, 0));
    }
    for round in 0..3 {
        write_hosts(&lists, hosts, round + 1);
        println!("one host more, another less: {}", apply(&cluster, rounds, round + 1));
    }
    under_load(&cluster, rounds);
}

/// A list in which one host differs with `variant`.
fn write_hosts(lists: &Path, hosts: usize, variant: usize) {
    let mut out = BufWriter::new(fs::File::create(lists.join("big.txt")).unwrap());
    for i in 0..hosts {
        let digits = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        match i == hosts / 2 {
            true => writeln!(out, "variant{variant}.example.com").unwrap(),
            false => writeln!(out, "h{digits:x}{i:x}.example{}.com", i % 4099).unwrap(),
        }
    }
    out.flush().unwrap();
}

/// What one apply cost.
struct Cost {
    fetched: u64,
    /// From Apply's answer to the slave's report at the master.
    reported: Duration,
    whole: Duration,
    master_cpu: f64,
    /// Of that, until Apply answered: compiling.
    compile_cpu: f64,
    slave_cpu: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} bytes fetched, reported {:.0} ms after Apply's answer ({:.0} ms after Apply), CPU: master {:.2} s to compile and {:.2} s \
             to hand out, slave {:.2} s",
            self.fetched,
            self.reported.as_secs_f64() * 1e3,
            self.whole.as_secs_f64() * 1e3,
            self.compile_cpu,
            self.master_cpu - self.compile_cpu,
            self.slave_cpu
        )
    }
}

fn apply(cluster: &Cluster, rules: usize, variant: usize) -> Cost {
    let slave = &cluster.slaves[0];
    let rules: String = (0..rules)
        .map(|i| format!("\n[[access_profiles]]\nname = \"rule {i}\"\ncategories = [\"big\"]\naction = \"DENY\"\n"))
        .collect();
    let list = "\n[[categories]]\nname = \"big\"\nfiles = [\"big.txt\"]\n";
    let document = cluster.policy(&format!("{list}{rules}# {variant}\n"));
    let (master_before, slave_before, began) = (cpu(&cluster.master), cpu(slave), Instant::now());
    let name = cluster.apply(&document);
    let (answered, compile_cpu) = (Instant::now(), cpu(&cluster.master) - master_before);
    wait_until("the slave's report", || match cluster.master.ask(Action::Nodes) {
        Ok(Outcome::Nodes { nodes }) => nodes.iter().any(|row| row.name == "slave-1" && row.snapshot == name),
        other => panic!("nodes: {other:?}"),
    });
    let (reported, whole) = (answered.elapsed(), began.elapsed());
    let fetched = slave.status().and_then(|status| status.master).map_or(0, |link| link.fetched_bytes);
    let (master_cpu, slave_cpu) = (cpu(&cluster.master) - master_before, cpu(slave) - slave_before);
    Cost { fetched, reported, whole, master_cpu, compile_cpu, slave_cpu }
}

/// CPU seconds of a node's process so far.
fn cpu(node: &Node) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

fn newest(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().flatten().filter_map(|file| file.metadata().ok());
    files.map(|file| file.len()).max().unwrap_or_default()
}

/// Clients of the slave before and during swaps: each asks, waits 2 ms, asks again; every tenth request over a new connection.
fn under_load(cluster: &Cluster, rules: usize) {
    let (stop, swapping) = (AtomicBool::new(false), AtomicBool::new(false));
    let (calm, during, errors) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let (proxy, url) = (cluster.slaves[0].layout.proxy, cluster.url("/bytes/100"));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let into = if swapping.load(Ordering::Relaxed) { &during } else { &calm };
                    match ten_requests(proxy, &url) {
                        Ok(times) => into.lock().unwrap().extend(times),
                        Err(error) => errors.lock().unwrap().push(error.to_string()),
                    }
                }
            });
        }
        thread::sleep(Duration::from_secs(5));
        swapping.store(true, Ordering::Relaxed);
        for round in 0..5 {
            apply(cluster, rules + 1 + round, 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (calm, during, errors) =
        (calm.into_inner().unwrap(), during.into_inner().unwrap(), errors.into_inner().unwrap());
    println!("requests without an apply: {}", quantiles(calm));
    println!("requests during 5 applies: {}", quantiles(during));
    println!("failed (refused, reset, cut, not 200): {} {}", errors.len(), errors.first().cloned().unwrap_or_default());
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

fn quantiles(mut micros: Vec<u64>) -> String {
    micros.sort_unstable();
    let at = |share: f64| micros.get(((micros.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or_default();
    format!("{} answers, us: p50 {} p99 {} p99.9 {} max {}", micros.len(), at(0.5), at(0.99), at(0.999), at(1.0))
}
