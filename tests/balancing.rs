//! Real balancers in front of real slaves, by the configurations that `tidegate lb` makes.

mod harness;

use harness::Cluster;
use harness::client::Client;
use harness::tidegate;
use harness::wait_until;
use harness::watched::free;
use harness::watched::from;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::cluster::Counters;
use tidegate::cluster::NodeRow;
use tidegate::cluster::Offer;
use tidegate::cluster::balancer;
use tidegate::cluster::balancer::Backends;
use tidegate::cluster::balancer::haproxy;
use tidegate::cluster::balancer::nginx;

/// Startup params of slaves behind a balancer on this machine.
const BEHIND: [(&str, &str); 4] =
    [("PROXY_PROTOCOL", "required"), ("TRUSTED_PROXIES", "127.0.0.1"), ("SYNCTIME", "1"), ("DRAIN_NOTICE", "3")];

/// A cluster whose slaves are up and enforce the policy.
fn cluster(slaves: usize) -> Cluster {
    let cluster = Cluster::lay_out(slaves, &BEHIND);
    cluster.master.start();
    cluster.apply(&cluster.policy(""));
    cluster.slaves.iter().for_each(|slave| slave.start());
    cluster.wait_for_policy();
    let nodes = || tidegate(&["status", "--json", "--control", &control(&cluster)]).1;
    wait_until("the master hears of all slaves", || nodes().matches("\"role\":\"slave\"").count() == slaves);
    cluster
}

fn control(cluster: &Cluster) -> String {
    cluster.master.layout.control.display().to_string()
}

/// What `tidegate lb` prints, in a file.
fn made(cluster: &Cluster, program: &str, bind: &str) -> PathBuf {
    let (code, text, said) = tidegate(&["lb", program, "--bind", bind, "--control", &control(cluster)]);
    assert_eq!(code, 0, "{said}");
    let path = cluster.dir().join(format!("{program}.cfg"));
    fs::write(&path, text).unwrap();
    path
}

/// Whether a program finds the file good; what it says if not.
fn checked(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    assert!(!said.to_ascii_lowercase().contains("warn"), "{program}: {said}");
}

/// A process that ends with the value.
struct Running(Child);

impl Running {
    fn haproxy(config: &Path, log: &Path) -> Running {
        let log = File::create(log).unwrap();
        let mut haproxy = Command::new("haproxy");
        haproxy.args(["-db", "-f"]).arg(config).stdin(Stdio::null());
        Running(haproxy.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_configurations_are_good_to_the_programs_they_are_for() {
    let cluster = cluster(2);
    cluster.slaves[1].kill();
    let shown = || tidegate(&["lb", "haproxy", "--control", &control(&cluster)]).1;
    wait_until("the dead slave is disabled", || shown().contains(" disabled\n"));
    let text = shown();
    assert!(text.contains("# slave-2 is away: the master has not heard of it since 20"), "{text}");
    assert!(!text.contains(&cluster.master.layout.proxy.to_string()), "the master is never in it: {text}");
    assert!(text.contains(&format!("server slave-1 {} check", cluster.slaves[0].layout.proxy)), "{text}");

    let haproxy = made(&cluster, "haproxy", &free().to_string());
    checked("haproxy", &["-c", "-f", haproxy.to_str().unwrap()]);
    let bind = free().to_string();
    let nginx = made(&cluster, "nginx", &bind);
    checked("nginx", &["-t", "-c", nginx.to_str().unwrap(), "-g", "error_log stderr;"]);

    let keepalived = cluster.dir().join("keepalived.conf");
    for (vip, state, peer) in [("10.99.0.100/24", "master", "10.99.0.2"), ("2001:db8::64/64", "backup", "2001:db8::2")]
    {
        let (code, text, said) =
            tidegate(&["lb", "keepalived", "--vip", vip, "--interface", "tgfront0", "--state", state, "--peer", peer]);
        assert_eq!(code, 0, "{said}");
        fs::write(&keepalived, text).unwrap();
        // In a network of its own, so that the interface exists and nothing else is touched.
        let check = format!(
            "ip link add tgfront0 type veth peer name tgfront1 && ip addr add 10.99.0.1/24 dev tgfront0 && ip link set tgfront0 up \
             && keepalived -t -f {}",
            keepalived.display()
        );
        checked("unshare", &["--net", "sh", "-c", &check]);
    }
}

#[test]
fn addresses_of_every_kind_are_written_as_the_programs_read_them() {
    let row = |name: &str, role: &str, address: &str, listen: &str, portal: &str, up: bool| NodeRow {
        name: name.into(),
        role: role.into(),
        address: address.into(),
        fingerprint: String::new(),
        former_key_until_us: 0,
        version: String::new(),
        snapshot: String::new(),
        current: true,
        last_contact_us: 1_800_000_000_000_000,
        up,
        record_lag: 0,
        records: Default::default(),
        clock_skew_ms: 0,
        refusal: String::new(),
        error: String::new(),
        counters: Counters::default(),
        figures: Default::default(),
        drift: String::new(),
        labels: Vec::new(),
        offer: Offer {
            listen: vec![listen.into()],
            portal: portal.into(),
            proxy_protocol: "required".into(),
            weight: 256,
            draining: false,
            closing: false,
        },
    };
    let backends = balancer::backends(&[
        row("master", "master", "0.0.0.0:8888", "0.0.0.0:8080", "0.0.0.0:8888", true),
        row("four", "slave", "192.0.2.1", "0.0.0.0:8080", "0.0.0.0:8888", true),
        row("four.other", "slave", "192.0.2.2", "192.0.2.3:8080", "0.0.0.0:8888", true),
        row("six_", "slave", "2001:db8::1", "[::]:8080", "[::]:8888", true),
        row("six-other", "slave", "2001:db8::2", "[2001:db8::3]:8080", "[2001:db8::4]:8888", false),
        row("both", "slave", "192.0.2.5", "[::]:8080", "[2001:db8::5]:8888", true),
    ]);
    assert_eq!((backends.slaves.len(), backends.left_out.len()), (5, 0));
    let dir = tempfile::tempdir().unwrap();
    let bind = free().to_string();
    for (balance, synced_within_s) in [("leastconn", None), ("roundrobin", Some(60)), ("source", Some(86_400))] {
        let options = haproxy::Options { bind: bind.clone(), balance: balance.into(), synced_within_s };
        let path = dir.path().join("haproxy.cfg");
        fs::write(&path, haproxy::config(&backends, &options)).unwrap();
        checked("haproxy", &["-c", "-f", path.to_str().unwrap()]);
    }
    let path = dir.path().join("nginx.conf");
    for backends in [&backends, &Backends::default()] {
        fs::write(&path, nginx::config(backends, &bind)).unwrap();
        checked("nginx", &["-t", "-c", path.to_str().unwrap(), "-g", "error_log stderr;"]);
    }
}

#[test]
fn who_is_not_the_master_says_whom_to_ask_and_bad_options_are_refused() {
    let cluster = cluster(1);
    let slave = cluster.slaves[0].layout.control.display().to_string();
    let (code, _, said) = tidegate(&["lb", "haproxy", "--control", &slave]);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("ask its master {}", cluster.master.layout.portal)), "{said}");
    for wrong in [
        &["lb", "haproxy", "--bind", "x\n    bind :1"][..],
        &["lb", "haproxy", "--reload", "true"],
        &["lb", "keepalived", "--vip", "10.0.0.1", "--interface", "eth0; x"],
        &["lb", "keepalived", "--vip", "10.0.0.1/24", "--interface", "eth0", "--router-id", "0"],
    ] {
        assert_eq!(tidegate(wrong).0, 2, "{wrong:?}");
    }
    let (code, _, said) = tidegate(&["lb", "haproxy", "--json", "--control", &slave]);
    assert_eq!(code, 1, "{said}");
}

/// Clients without pause, some over a connection each, some over one they keep; every failure is noted with the time its
/// connection was made.
struct Load {
    balancer: SocketAddr,
    url: String,
    stop: AtomicBool,
    requests: AtomicU64,
    failures: Mutex<Vec<(Instant, String)>>,
}

impl Load {
    fn new(balancer: SocketAddr, url: String) -> Load {
        let (stop, requests, failures) = (AtomicBool::default(), AtomicU64::default(), Mutex::default());
        Load { balancer, url, stop, requests, failures }
    }

    fn run(&self, keeps: bool) {
        let end = Instant::now() + Duration::from_secs(1_200);
        while !self.stop.load(Ordering::Relaxed) && Instant::now() < end {
            let made = Instant::now();
            if let Err(error) = self.connection(keeps) {
                self.failures.lock().unwrap().push((made, error.to_string()));
            }
        }
    }

    /// One connection's life: as long as it is kept, at most a few hundred requests.
    fn connection(&self, keeps: bool) -> io::Result<()> {
        let mut client = Client::connect(self.balancer)?;
        for _ in 0..if keeps { 300 } else { 1 } {
            let answer = client.get(&self.url)?;
            if answer.status != 200 {
                return Err(io::Error::other(format!("status {}", answer.status)));
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            if !answer.keeps || self.stop.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn failures(&self) -> Vec<(Instant, String)> {
        self.failures.lock().unwrap().clone()
    }

    /// Waits until so many more requests have been answered.
    fn go_on(&self, count: u64) {
        let now = self.requests.load(Ordering::Relaxed);
        wait_until("requests go on", || self.requests.load(Ordering::Relaxed) >= now + count);
    }
}

#[test]
fn behind_haproxy_a_drained_slave_costs_no_request_and_a_killed_one_only_those_on_its_connections() {
    let cluster = cluster(2);
    let balancer = free();
    let config = made(&cluster, "haproxy", &balancer.to_string());
    let _haproxy = Running::haproxy(&config, &cluster.dir().join("haproxy.log"));
    let url = cluster.url("/bytes/100");
    wait_until("the balancer leads to a slave", || {
        Client::connect(balancer).and_then(|mut client| client.get(&url)).is_ok_and(|answer| answer.status == 200)
    });
    // The client's own address reaches the record, not the balancer's.
    let mut client = from("127.0.0.77", balancer).unwrap();
    let request = format!("GET {url}?who HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", cluster.origin.address);
    client.write_all(request.as_bytes()).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    let logs = || cluster.slaves.iter().map(|slave| fs::read_to_string(&slave.layout.log).unwrap()).collect::<String>();
    wait_until("the record", || logs().lines().any(|line| line.contains("?who") && line.contains("\"127.0.0.77\"")));

    // More by hand: DRAIN_ROUNDS=50 cargo test --test balancing drained -- --nocapture
    let rounds: u32 = std::env::var("DRAIN_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let load = Load::new(balancer, url.clone());
    let [one, two] = [&cluster.slaves[0], &cluster.slaves[1]];
    let exchanges = |slave: &harness::Node| slave.status().unwrap().counters.exchanges;
    thread::scope(|scope| {
        for number in 0..8 {
            let load = &load;
            scope.spawn(move || load.run(number % 2 == 0));
        }
        // Whatever fails below, the clients end.
        let _stop = Stop(&load.stop);
        load.go_on(500);
        assert!(exchanges(one) > 0 && exchanges(two) > 0, "the balancer uses both");

        for _ in 0..rounds {
            let (code, said, error) =
                tidegate(&["drain", "--wait", "60", "--control", &one.layout.control.display().to_string()]);
            assert_eq!(code, 0, "{said}{error}");
            wait_until("a drained slave gets no client", || {
                let before = exchanges(one);
                load.go_on(300);
                exchanges(one) == before
            });
            one.stop();
            one.start();
            load.go_on(200);
            assert_eq!(exchanges(one), 0, "nor after its restart");
            one.ask(Action::Undrain { node: None }).unwrap();
            wait_until("it gets clients again", || exchanges(one) > 50);
            assert_eq!(load.failures(), [], "neither drain nor restart may cost a request");
        }
        // A stop drains by itself.
        two.stop();
        load.go_on(500);
        two.start();
        wait_until("the other one gets clients again", || exchanges(two) > 50);
        assert_eq!(load.failures(), [], "nor may a stop");

        two.kill();
        // The kernel closes what a ring still held a moment after the process has gone; until then it takes connections.
        wait_until("its port to be closed", || std::net::TcpStream::connect(two.layout.proxy).is_err());
        let dead = Instant::now();
        load.go_on(1_000);
        let failures = load.failures();
        assert!(
            failures.iter().all(|(made, _)| *made < dead),
            "a connection made after its death failed: {failures:?}"
        );
        assert!(failures.len() <= 8, "at most one for each client that was on it: {failures:?}");
    });
    let requests = load.requests.load(Ordering::Relaxed);
    println!(
        "{requests} requests, {rounds} drains and restarts, a stop: 0 failed; {} failed when a slave was killed",
        load.failures().len()
    );
}

#[test]
fn a_master_in_a_balancers_backend_or_in_a_browsers_settings_is_told_of_by_verify() {
    let cluster = cluster(1);
    let verify = || match cluster.master.ask(Action::Verify) {
        Ok(Outcome::Verify { checks }) => {
            checks.into_iter().find(|check| check.name == "no client is sent to the master").unwrap()
        }
        other => panic!("{other:?}"),
    };
    // Twice: verify's own probe is no client.
    for _ in 0..2 {
        let check = verify();
        assert!(check.passed && check.words.contains("no request in the last 10 minutes"), "{}", check.words);
    }
    // What an administrator may do: the line of a slave copied for the master.
    let (code, text, _) = tidegate(&["lb", "haproxy", "--bind", &free().to_string(), "--control", &control(&cluster)]);
    assert_eq!(code, 0);
    let (master, path) = (&cluster.master.layout, cluster.dir().join("haproxy.cfg"));
    let line = format!("    server master {} check port {}\n", master.proxy, master.portal.port());
    fs::write(&path, text + &line).unwrap();
    let haproxy = Running::haproxy(&path, &cluster.dir().join("haproxy.log"));
    wait_until("verify tells of the balancer", || !verify().passed);
    let words = verify().words;
    assert!(words.starts_with("127.0.0.1 checks this master's /health") && words.contains("backend"), "{words}");
    drop(haproxy);
    wait_until("it is forgotten", || verify().passed);

    // A client that takes the master for its proxy. (Its header is wanted here: PROXY_PROTOCOL is on.)
    let mut client = from("127.0.0.1", master.proxy).unwrap();
    client
        .write_all(b"PROXY TCP4 192.0.2.9 127.0.0.1 1000 8080\r\nGET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");
    drop(client);
    wait_until("verify tells of the client", || !verify().passed);
    let words = verify().words;
    assert!(words.contains("the last from anonymous@192.0.2.9"), "{words}");
}

/// Ends the load with the value.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_watched_file_follows_the_slaves_and_stays_when_the_master_is_away() {
    let cluster = cluster(2);
    let (file, reloads, said) =
        (cluster.dir().join("haproxy.cfg"), cluster.dir().join("reloads"), cluster.dir().join("said"));
    let reload = format!("echo once >> {}", reloads.display());
    let output = File::create(&said).unwrap();
    let watching = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["lb", "haproxy", "--bind", ":8080", "--control", &control(&cluster)])
        .args(["--watch", file.to_str().unwrap(), "--reload", &reload])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .spawn()
        .unwrap();
    let mut watching = Running(watching);
    let words = || fs::read_to_string(&said).unwrap();
    let text = || fs::read_to_string(&file).unwrap_or_default();
    let reloaded = || fs::read_to_string(&reloads).unwrap_or_default().lines().count();
    wait_until("a young master is not believed yet", || words().contains("the master started a moment ago"));
    assert_eq!(text(), "");
    wait_until("the file is there, and the balancer was told", || reloaded() == 1);
    assert_eq!(text().matches("\n    server ").count(), 2, "{}", text());
    wait_until("it says so", || words().contains("2 of 2 slaves in service") && words().contains("done: echo"));

    cluster.slaves[1].kill();
    wait_until("the dead slave is disabled", || text().contains(" disabled\n"));
    wait_until("the balancer was told", || reloaded() == 2);
    cluster.slaves[0].kill();
    wait_until("the last slave's silence is not believed", || words().contains("hears of no slave"));
    cluster.slaves[0].start();
    cluster.master.kill();
    wait_until("the master is missed", || words().contains("nobody answers on"));
    assert!(words().lines().last().unwrap().ends_with("stays as it is"), "{}", words());
    assert_eq!(text().matches(" disabled\n").count(), 1, "{}", text());
    assert_eq!(reloaded(), 2);
    assert!(watching.0.try_wait().unwrap().is_none(), "it goes on: {}", words());
}
