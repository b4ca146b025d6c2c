//! What a small change of a large policy costs, with a real master and a real slave on loopback: bytes moved, time until the
//! master knows that it is applied, the master's CPU, and what clients of the slave notice of the swap.
//! `benches/policy-delta [HOSTS] [ROUNDS] [PAIRS]`: hosts in a category, applies whose cost is printed, pairs of windows without and with a
//! swap. The slave has the first processor for itself, data core and all its other threads together; clients and origin have the second, and
//! the master what they leave of it, as if it were another host.

#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "shared/live.rs"]
mod live;

use harness::Cluster;
use harness::Node;
use harness::PATIENCE;
use harness::wait_until;
use live::{Gate, Load, Quantiles, cpu};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tidegate::admin::{Action, Outcome};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let hosts: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(5_000_000);
    let rounds: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(10);
    let pairs: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(6);
    let (cluster, gate) = live::start();
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
    for round in 0..rounds.min(3) {
        write_hosts(&lists, hosts, round + 1);
        println!("one host more, another less: {}", apply(&cluster, rounds, round + 1));
    }
    under_load(&cluster, &gate, rounds, pairs);
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
    let document = policy_with(cluster, rules, variant);
    let (master_before, slave_before, began) = (cpu(&cluster.master), cpu(slave), Instant::now());
    let name = cluster.apply(&document);
    let (answered, compile_cpu) = (Instant::now(), cpu(&cluster.master) - master_before);
    wait_until("the slave's report", || reports(cluster, &name));
    let (reported, whole) = (answered.elapsed(), began.elapsed());
    let fetched = slave.status().and_then(|status| status.master).map_or(0, |link| link.fetched_bytes);
    let (master_cpu, slave_cpu) = (cpu(&cluster.master) - master_before, cpu(slave) - slave_before);
    Cost { fetched, reported, whole, master_cpu, compile_cpu, slave_cpu }
}

/// A policy of so many rules beside the list.
fn policy_with(cluster: &Cluster, rules: usize, variant: usize) -> String {
    let rules: String = (0..rules)
        .map(|i| format!("\n[[access_profiles]]\nname = \"rule {i}\"\ncategories = [\"big\"]\naction = \"DENY\"\n"))
        .collect();
    let list = "\n[[categories]]\nname = \"big\"\nfiles = [\"big.txt\"]\n";
    cluster.policy(&format!("{list}{rules}# {variant}\n"))
}

/// Whether the master knows that the slave enforces this snapshot.
fn reports(cluster: &Cluster, name: &str) -> bool {
    match cluster.master.ask(Action::Nodes) {
        Ok(Outcome::Nodes { nodes }) => nodes.iter().any(|row| row.name == "slave-1" && row.snapshot == name),
        other => panic!("nodes: {other:?}"),
    }
}

fn newest(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().flatten().filter_map(|file| file.metadata().ok());
    files.map(|file| file.len()).max().unwrap_or_default()
}

/// How long after the slave's report a window with a swap goes on: the snapshot that was replaced is unmapped in it.
const AFTERMATH: Duration = Duration::from_millis(700);
/// How long a window without a swap lasts before any swap has told how long they take.
const FIRST_WINDOW: Duration = Duration::from_millis(1_500);

/// Clients of the slave in windows without and with a swap, in turn: each asks, waits 2 ms, asks again; every tenth request over a new
/// connection. The master compiles while the gate is shut and nobody counts; a window with a swap begins when the gate opens and has all
/// that is the slave's: fetching, checking, writing, opening, swapping, letting go of the one before.
fn under_load(cluster: &Cluster, gate: &Gate, rules: usize, pairs: usize) {
    let load = Load::start(cluster.slaves[0].layout.proxy, cluster.url("/bytes/100"));
    let (slave, mut length, mut rises) = (&cluster.slaves[0], FIRST_WINDOW, [const { Vec::new() }; 3]);
    let (mut requests, mut failures) = (0, Vec::new());
    for pair in 0..pairs {
        gate.shut(true);
        let name = cluster.apply(&policy_with(cluster, rules + 1 + pair, 0));
        until_idle(&cluster.master);
        let settled = load.take();
        thread::sleep(length);
        let calm = load.take();
        let (cpu_before, master_before, began) = (cpu(slave), cpu(&cluster.master), Instant::now());
        gate.shut(false);
        while !reports(cluster, &name) {
            assert!(began.elapsed() < PATIENCE, "the slave does not report {name}");
            thread::sleep(Duration::from_millis(50));
        }
        let reported = began.elapsed();
        thread::sleep(AFTERMATH);
        let swap = load.take();
        let (slave_cpu, master_cpu) = (cpu(slave) - cpu_before, cpu(&cluster.master) - master_before);
        length = began.elapsed();
        let (without, with) = (Quantiles::of(calm.micros), Quantiles::of(swap.micros));
        println!("without a swap: {without}");
        println!(
            "with a swap:    {with}; reported after {:.0} ms; CPU: slave {slave_cpu:.2} s, master {master_cpu:.2} s",
            reported.as_secs_f64() * 1e3
        );
        let differences = [(with.p50, without.p50), (with.p99, without.p99), (with.max, without.max)];
        rises.iter_mut().zip(differences).for_each(|(rises, (with, without))| rises.push(with as i64 - without as i64));
        requests += without.count + with.count + settled.micros.len();
        failures.extend([settled.failures, calm.failures, swap.failures].concat());
    }
    let [p50, p99, max] = rises.map(median);
    println!("median of {pairs} differences, us: p50 {p50:+} p99 {p99:+} max {max:+}");
    println!(
        "failed (refused, reset, cut, not 200): {} of {} {}",
        failures.len(),
        requests + failures.len(),
        failures.first().cloned().unwrap_or_default()
    );
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Until the node has used less than a fiftieth of a processor for half a second.
fn until_idle(node: &Node) {
    wait_until("the master has nothing to do", || {
        let before = cpu(node);
        thread::sleep(Duration::from_millis(500));
        cpu(node) - before < 0.02
    });
}
