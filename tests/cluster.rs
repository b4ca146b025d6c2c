//! The main job, end to end, with real processes: one policy enforced on every slave, one log at the master.

mod harness;

use harness::Cluster;
use harness::account::all_records;
use harness::account::ids_in_report;
use harness::client::Answer;
use harness::client::Client;
use harness::client::host;
use harness::tidegate;
use harness::wait_until;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::cluster::NodeRow;
use tidegate::daemon::origin::pattern;
use tidegate::report::AuditQuestion;
use tidegate::report::Question;

/// Requests through each slave in the test of the main job.
const MIXED_REQUESTS: usize = 10_000;

#[test]
fn both_slaves_serve_ten_thousand_mixed_requests_and_the_master_counts_each_once() {
    let cluster = Cluster::start(2);
    let with_curl = 500;
    thread::scope(|scope| {
        for slave in &cluster.slaves {
            for worker in 0..4 {
                let (proxy, cluster) = (slave.layout.proxy, &cluster);
                let count = (MIXED_REQUESTS - with_curl) / 4;
                scope.spawn(move || mixed_requests(cluster, proxy, worker, count));
            }
            let (proxy, cluster) = (slave.layout.proxy, &cluster);
            scope.spawn(move || curl_requests(cluster, proxy, with_curl));
        }
    });
    cluster.wait_for_records();
    let report = cluster.report(&Question::default());
    // A tunnel is one exchange; what was asked inside it is the tunnel's business.
    let expected = 2 * MIXED_REQUESTS as u64;
    let by_node: BTreeMap<_, _> = report.nodes.iter().map(|rank| (rank.name.as_str(), rank.requests)).collect();
    assert_eq!(by_node, BTreeMap::from([("slave-1", expected / 2), ("slave-2", expected / 2)]));
    assert_eq!(report.requests, expected);
    assert_eq!(report.gaps, []);
}

/// GET with length and chunked, POST with a chunked body, HEAD, CONNECT: every body is what the origin has.
fn mixed_requests(cluster: &Cluster, proxy: SocketAddr, worker: usize, count: usize) {
    let mut client = Client::connect(proxy).unwrap();
    for number in 0..count {
        let size = (number * 37 + worker * 101) % 9_000;
        let answer = match number % 10 {
            0..=3 => client.get(&cluster.url(&format!("/bytes/{size}"))),
            4..=5 => client.get(&cluster.url(&format!("/chunked/{size}"))),
            6..=7 => client.post_chunked(&cluster.url("/echo"), &pattern(size)),
            8 => client.head(&cluster.url(&format!("/bytes/{size}"))),
            _ => through_tunnel(cluster, proxy, size),
        };
        let answer = answer.unwrap_or_else(|error| panic!("request {number} of worker {worker}: {error}"));
        assert_eq!(answer.status, 200, "{}", answer.head);
        let body = if number % 10 == 8 { Vec::new() } else { pattern(size) };
        assert!(answer.body == body, "request {number} of worker {worker}: another body");
    }
}

fn through_tunnel(cluster: &Cluster, proxy: SocketAddr, size: usize) -> io::Result<Answer> {
    let target = cluster.origin.address.to_string();
    let mut tunnel = Client::connect(proxy)?.tunnel(&target)?.expect("the policy allows the tunnel");
    tunnel.send(format!("GET /bytes/{size} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n").as_bytes())?;
    tunnel.receive(false)
}

/// A real client that users have: curl, many transfers on few connections.
fn curl_requests(cluster: &Cluster, proxy: SocketAddr, count: usize) {
    let folder = cluster.dir().join(format!("curl-{}", proxy.port()));
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--create-dirs", "--proxy", &format!("http://{proxy}")])
        .args(["--output", &format!("{}/#1", folder.display())])
        .arg(cluster.url(&format!("/bytes/[1-{count}]")))
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for size in 1..=count {
        assert!(std::fs::read(folder.join(size.to_string())).unwrap() == pattern(size), "curl's body {size}");
    }
}

#[test]
fn fifty_applies_under_traffic_are_each_enforced_on_both_slaves_and_stay_so() {
    let cluster = Cluster::start(2);
    let block_news = "\n[[request_types]]\nname = \"news\"\npath_prefixes = [\"/news\"]\n";
    let with_news = cluster.policy(block_news);
    let without_news = with_news.replace("request_types = [\"social\"]", "request_types = [\"social\", \"news\"]");
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let mut delays_ms: Vec<u128> = Vec::new();
    let mut snapshots = BTreeSet::from([cluster.master.status().unwrap().snapshot]);
    thread::scope(|scope| {
        for slave in &cluster.slaves {
            for _ in 0..2 {
                let (proxy, stop, served, cluster) = (slave.layout.proxy, &stop, &served, &cluster);
                scope.spawn(move || steady_traffic(cluster, proxy, stop, served));
            }
        }
        let mut probes: Vec<_> =
            cluster.slaves.iter().map(|slave| Client::connect(slave.layout.proxy).unwrap()).collect();
        for apply in 0..50 {
            let (document, expected) = if apply % 2 == 0 { (&without_news, 403) } else { (&with_news, 200) };
            snapshots.insert(cluster.apply(document));
            let applied = Instant::now();
            for probe in &mut probes {
                wait_until("the slave enforces the apply", || {
                    probe.get(&cluster.url("/news")).unwrap().status == expected
                });
                delays_ms.push(applied.elapsed().as_millis());
            }
            // Once enforced, it stays enforced.
            for probe in &mut probes {
                assert_eq!(probe.get(&cluster.url("/news")).unwrap().status, expected);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    delays_ms.sort_unstable();
    let at = |percent: usize| delays_ms[(delays_ms.len() - 1) * percent / 100];
    println!(
        "enforced on a slave after Apply's answer, ms: min {} p50 {} p90 {} p99 {} max {} (n={}); {} requests meanwhile",
        delays_ms[0],
        at(50),
        at(90),
        at(99),
        at(100),
        delays_ms.len(),
        served.load(Ordering::Relaxed)
    );
    // How long it takes is the bench's matter (benches/cluster, apply): here other tests share the processors.
    cluster.wait_for_records();
    for record in all_records(&cluster.master) {
        assert!(snapshots.contains(&record.snapshot), "a record names {:?}, which was never applied", record.snapshot);
    }
}

/// Requests without pause on one connection: `/` always works, `/news` is answered or blocked by policy, nothing else.
fn steady_traffic(cluster: &Cluster, proxy: SocketAddr, stop: &AtomicBool, served: &AtomicUsize) {
    let mut client = Client::connect(proxy).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let page = client.get(&cluster.url("/")).expect("a page nobody blocks");
        assert_eq!(page.status, 200, "{}", page.head);
        let news = client.get(&cluster.url("/news")).expect("an answer, allowed or blocked");
        assert!(news.status == 200 || news.status == 403, "{}", news.head);
        assert!(news.keeps, "a block page must not cost the connection: {}", news.head);
        served.fetch_add(2, Ordering::Relaxed);
    }
}

/// How often a process is killed: `TIDEGATE_KILLS=1000 cargo test --test cluster killed_in_turn -- --nocapture` for long.
fn kills() -> usize {
    std::env::var("TIDEGATE_KILLS").map_or(40, |text| text.parse().expect("TIDEGATE_KILLS: a number"))
}

#[test]
fn slaves_and_master_killed_in_turn_under_load_lose_and_repeat_no_record() {
    let cluster = Cluster::start(2);
    let load = Load::start(&cluster, &cluster.slaves.iter().map(|slave| slave.layout.proxy).collect::<Vec<_>>());
    for kill in 0..kills() {
        let (round, slave) = (kill / 2, &cluster.slaves[kill / 2 % 2]);
        load.wait_for_more(100);
        if kill % 2 == 0 {
            slave.kill();
            slave.start();
            continue;
        }
        cluster.master.kill();
        load.wait_for_more(20 + 20 * (round % 5));
        cluster.master.start();
        if round % 3 == 0 {
            // Let it take records before the next kill, so that kills fall into ingest too; otherwise the next slave dies while
            // its master may not be back.
            let highest = || slave.status().map_or(0, |status| status.records_acknowledged);
            let before = highest();
            wait_until("the master takes records again", || highest() > before);
        }
    }
    load.wait_for_more(50);
    let whole = load.stop();
    cluster.wait_for_records();
    assert_each_once(&cluster, &whole);
}

#[test]
fn a_slave_restarted_while_the_master_is_away_serves_by_its_last_policy_and_catches_up() {
    let cluster = Cluster::start(1);
    let slave = &cluster.slaves[0];
    let before = slave.status().unwrap().snapshot;
    cluster.master.kill();
    slave.stop();
    slave.start();
    let mut client = Client::connect(slave.layout.proxy).unwrap();
    for _ in 0..100 {
        assert_eq!(client.get(&cluster.url("/")).unwrap().status, 200);
        assert_eq!(client.get(&cluster.url("/social")).unwrap().status, 403);
    }
    let status = slave.status().unwrap();
    assert_eq!(status.snapshot, before);
    let link = status.master.expect("a slave has a master");
    assert!(!link.up && !link.trouble.is_empty(), "{link:?}");
    // And again, with nothing but what it holds.
    slave.kill();
    slave.start();
    assert_eq!(Client::connect(slave.layout.proxy).unwrap().get(&cluster.url("/")).unwrap().status, 200);

    cluster.master.start();
    let changed = cluster.apply(&cluster.policy("\n# changed while the slave was alone\n"));
    wait_until("the slave has the new policy", || slave.status().is_some_and(|status| status.snapshot == changed));
    cluster.wait_for_records();
    assert_eq!(cluster.report(&Question::default()).requests, 201);
    let told = || std::fs::read_to_string(slave.layout.log.with_file_name("config.log")).unwrap_or_default();
    wait_until("config.log tells of the sync", || told().contains(&format!("\"policy-sync\"\t\"{changed}\"")));
    assert!(told().contains("\"master\""), "config.log tells of the master's absence: {}", told());
}

/// What a slave records while its master is away for weeks stands at its own time afterwards; and a line that somebody took out of the
/// slave's log meanwhile is missed by number and time, on the master's pages and in its figures.
#[test]
fn records_that_come_weeks_late_stand_where_they_belong_and_a_lost_one_is_named() {
    let cluster = Cluster::start(1);
    let slave = &cluster.slaves[0];
    let ask = |count: usize| {
        let mut client = Client::connect(slave.layout.proxy).unwrap();
        (0..count).for_each(|_| assert_eq!(client.get(&cluster.url("/")).unwrap().status, 200));
    };
    ask(5);
    cluster.wait_for_records();
    cluster.master.stop();
    ask(10);
    slave.stop();
    let log = &slave.layout.log.with_file_name("extended.log");
    let text = std::fs::read_to_string(log).unwrap();
    let three_weeks = jiff::Span::new().weeks(3);
    // The first line names the columns, so that a line's place is its number.
    let lines = text.lines().enumerate().filter(|(at, _)| *at != 10).map(|(at, line)| {
        let mut columns: Vec<String> = line.split('\t').map(str::to_string).collect();
        if at > 5 {
            let (date, time) = columns[39].trim_matches('"').split_once('T').unwrap();
            let date: jiff::civil::Date = date.parse().unwrap();
            columns[39] = format!("\"{}T{time}\"", date - three_weeks);
        }
        columns.join("\t") + "\n"
    });
    std::fs::write(log, lines.collect::<String>()).unwrap();

    cluster.master.start();
    slave.start();
    ask(1);
    cluster.wait_for_records();
    let week = 7 * 24 * 3_600_000_000;
    let now = tidegate::base::clock::Wall::now().0;
    let between =
        |from, to| Question { from_us: Some(now - from * week), to_us: Some(now - to * week), ..Question::default() };
    assert_eq!(cluster.report(&between(4, 2)).requests, 9, "three weeks ago");
    assert_eq!(cluster.report(&between(2, -1)).requests, 6, "today");
    let row = nodes(&cluster).into_iter().find(|row| row.name == "slave-1").unwrap();
    let told = &row.records;
    assert_eq!((told.ended, told.written, told.stored, told.missing, row.record_lag), (16, 16, 15, 1, 0), "{told:?}");
    let gap = &told.gaps[0];
    assert_eq!((gap.first, gap.last), (10, 10));
    assert!((now - gap.after_us) / week >= 2 && (now - gap.before_us) / week >= 2, "{gap:?}");
    let question =
        AuditQuestion { node: Some("slave-1".into()), from_us: Some(now - 4 * week), to_us: Some(now - 2 * week) };
    let Ok(Outcome::Audit(proof)) = cluster.master.ask(Action::Audit(question)) else { panic!("no proof") };
    assert_eq!((proof.records, proof.holds()), (9, false), "{proof:?}");
    let Ok(Outcome::Metrics { text }) = cluster.master.ask(Action::Metrics) else { panic!("no figures") };
    assert!(text.contains("tidegate_node_records_missing{node=\"slave-1\"} 1\n"), "{text}");
    assert!(text.contains("tidegate_node_records_stored{node=\"slave-1\"} 15\n"), "{text}");
}

#[test]
fn refused_slaves_and_the_master_say_why_and_what_to_do() {
    let cluster = Cluster::lay_out(3, &[]);
    cluster.master.start();
    let guarded = cluster.policy("").replace("[access_restriction]", "[access_restriction]\nauthentication = true");
    let no_right = guarded.replace(", \"CLUSTER\"", "");
    cluster.apply(&no_right);
    let trouble =
        |slave: usize| cluster.slaves[slave].status().and_then(|status| status.master).map(|link| link.trouble);
    let says = |slave: usize, word: &str| {
        wait_until(&format!("slave {slave} says {word}"), || trouble(slave).is_some_and(|words| words.contains(word)));
        wait_until(&format!("the master says {word}"), || nodes(&cluster).iter().any(|row| row.refusal.contains(word)));
    };
    cluster.slaves[0].start();
    says(0, "NotOnAllowList");
    assert!(trouble(0).unwrap().contains("allow list"), "the remedy is missing: {:?}", trouble(0));
    // The remedy works, without a restart.
    cluster.apply(&guarded);
    wait_until("the slave is let in", || cluster.slaves[0].status().unwrap().policy_version == 2);

    let key = cluster.dir().join("other.key");
    let (code, _, error) = tidegate(&["activation-key", "new", "-o", key.to_str().unwrap()]);
    assert_eq!(code, 0, "{error}");
    change_param(&cluster.slaves[1].layout.config, "ACTIVATION_KEY_FILE", key.to_str().unwrap());
    cluster.slaves[1].start();
    says(1, "KeyMismatch");

    change_param(&cluster.slaves[2].layout.config, "NODE_NAME", "slave-1");
    cluster.slaves[2].start();
    says(2, "NameTaken");
}

fn nodes(cluster: &Cluster) -> Vec<NodeRow> {
    match cluster.master.ask(Action::Nodes) {
        Ok(Outcome::Nodes { nodes }) => nodes,
        other => panic!("nodes: {other:?}"),
    }
}

fn change_param(config: &std::path::Path, key: &str, value: &str) {
    let text = std::fs::read_to_string(config).unwrap();
    let others = text.lines().filter(|line| !line.starts_with(&format!("{key}=")));
    let text: String = others.map(|line| format!("{line}\n")).collect();
    std::fs::write(config, format!("{text}{key}=\"{value}\"\n")).unwrap();
}

#[test]
fn the_master_refuses_to_proxy_and_says_that_it_is_the_master() {
    let cluster = Cluster::start(1);
    for port in [cluster.master.layout.proxy, cluster.master.layout.portal] {
        let answer = Client::connect(port).unwrap().get(&cluster.url("/")).unwrap();
        assert_eq!(answer.status, 403, "{}", answer.head);
        let page = String::from_utf8_lossy(&answer.body).to_lowercase();
        assert!(page.contains("master") && page.contains("no client traffic"), "{page}");
        let refused = Client::connect(port).unwrap().tunnel(&cluster.origin.address.to_string()).unwrap();
        assert_eq!(refused.err().expect("no tunnel through the master").status, 403);
    }
}

#[test]
fn no_client_can_forge_a_record() {
    let cluster = Cluster::start(1);
    let proxy = cluster.slaves[0].layout.proxy;
    let url = cluster.url("/bytes/3?q=%22%09%0A'\\|end");
    let agents = [
        "quote\" tab\there",
        "back\\slash \\n \\x41",
        "\u{e9}\u{4e16}\u{1f30a}",
        "\"\t\"200\"\t\"forged\"",
        "'; DROP TABLE records; --",
    ];
    for agent in agents {
        assert_eq!(Client::connect(proxy).unwrap().get_as(&url, agent).unwrap().status, 200);
    }
    // Bytes no header may carry are refused, and the refusal is a record too.
    for bad in ["nul\0", "bare\rreturn", "bell\x07"] {
        assert_eq!(Client::connect(proxy).unwrap().get_as(&url, bad).unwrap().status, 400);
    }
    cluster.wait_for_records();
    let log = std::fs::read(&cluster.slaves[0].layout.log).unwrap();
    let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1 + agents.len() + 3, "a header and a line for each exchange");
    for line in &lines {
        assert_eq!(line.split(|byte| *byte == b'\t').count(), 47, "{}", String::from_utf8_lossy(line));
        assert!(line.iter().all(|byte| *byte >= b' ' || *byte == b'\t') && !line.contains(&0x7f));
    }
    let report = cluster.report(&Question::default());
    assert_eq!(report.requests, (agents.len() + 3) as u64);
    // The report shows text as the log holds it: escaped, so that nothing in it can be mistaken for something else.
    let logged = url.replace('\\', "\\\\");
    assert_eq!(report.newest.iter().filter(|row| row.url == logged).count(), agents.len(), "{:?}", report.newest);
}

/// Traffic that knows which answers it received whole.
struct Load {
    whole: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    workers: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(cluster: &Cluster, proxies: &[SocketAddr]) -> Load {
        let mut load = Load { whole: Arc::default(), stop: Arc::default(), workers: Vec::new() };
        for (at, proxy) in proxies.iter().copied().cycle().take(4).enumerate() {
            let (whole, stop) = (load.whole.clone(), load.stop.clone());
            let base = cluster.url("");
            load.workers.push(thread::spawn(move || load_worker(at, proxy, &base, &whole, &stop)));
        }
        load
    }

    /// Until so many more answers have been received whole.
    fn wait_for_more(&self, count: usize) {
        let target = self.whole.lock().unwrap().len() + count;
        wait_until(&format!("{count} more answers"), || self.whole.lock().unwrap().len() >= target);
    }

    fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().expect("a load worker saw something it must not see");
        }
        std::mem::take(&mut *self.whole.lock().unwrap())
    }
}

fn load_worker(at: usize, proxy: SocketAddr, base: &str, whole: &Mutex<BTreeSet<String>>, stop: &AtomicBool) {
    let mut client = None;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("w{at}-{number}");
        let exchange = |client: &mut Option<Client>| -> io::Result<Answer> {
            if client.is_none() {
                *client = Some(Client::connect(proxy)?);
            }
            let client = client.as_mut().expect("just connected");
            match number % 4 {
                0 => client.get(&format!("{base}/chunked/3000?id={id}")),
                1 => client.post_chunked(&format!("{base}/echo?id={id}"), &pattern(2_000)),
                2 => client.get(&format!("{base}/social?id={id}")),
                _ => client.get(&format!("{base}/bytes/1024?id={id}")),
            }
        };
        match exchange(&mut client) {
            Ok(answer) => {
                let expected = if number % 4 == 2 { 403 } else { 200 };
                assert_eq!(answer.status, expected, "{} via {proxy}: {}", host(base), answer.head);
                whole.lock().unwrap().insert(id);
            }
            // The node was killed: the client cannot tell more, and tries again.
            Err(_) => {
                client = None;
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn assert_each_once(cluster: &Cluster, whole: &BTreeSet<String>) {
    let found = ids_in_report(&cluster.master);
    let lost: Vec<_> = whole.iter().filter(|id| !found.contains_key(*id)).collect();
    let twice: Vec<_> = found.iter().filter(|(_, count)| **count != 1).collect();
    println!("{} answers received whole, {} records", whole.len(), found.len());
    assert!(
        lost.is_empty(),
        "{} answers received whole are not in the report: {:?}",
        lost.len(),
        &lost[..lost.len().min(5)]
    );
    assert!(twice.is_empty(), "in the report more than once: {:?}", &twice[..twice.len().min(5)]);
    assert_eq!(cluster.report(&Question::default()).gaps, []);
}
