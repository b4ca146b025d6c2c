//! Names on their way to addresses, with a real node: DNS with its TTLs, /etc/hosts, resolv.conf, both families, and
//! addresses a name must not lead to. Each test lives in mount and network namespaces of its own, with a name server of
//! its own; making those takes root, and without it the tests say so and pass.

mod harness;

use harness::Node;
use harness::client::Answer;
use harness::client::Client;
use harness::wait_until;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::daemon::layout::NodeLayout;

/// Set in the process that is inside the namespaces.
const INSIDE: &str = "TIDEGATE_TEST_INSIDE";
/// An address of the node's own.
const OWN: &str = "192.0.2.1";
const PROXY_PORT: u16 = 8080;
/// DNS records with an IPv4 address.
const KIND_A: u16 = 1;
/// DNS records with an IPv6 address.
const KIND_AAAA: u16 = 28;

const POLICY: &str = r#"
[network]
connect_ports = [80, 443]

[access_restriction]
default = "deny"

[[access_restriction.allow]]
addresses = ["127.0.0.0/8", "::1/128"]
rights = ["PROXY", "CONNECT"]

[[access_profiles]]
name = "Everybody"
action = "ALLOW"
"#;

#[test]
fn a_name_goes_where_dns_says_over_either_family() {
    inside("a_name_goes_where_dns_says_over_either_family", |world| {
        world.dns.say("four.test", 60, &["198.51.100.7"]);
        world.dns.say("six.test", 60, &["2001:db8:7::6"]);
        world.dns.say("half.test", 60, &["2001:db8:dead::1", "198.51.100.8"]);
        let table = [
            ("http://four.test/", "198.51.100.7"),
            ("http://FOUR.test./", "198.51.100.7"),
            ("http://six.test/", "2001:db8:7::6"),
            ("http://half.test/", "198.51.100.8"),
            ("http://198.51.100.9/", "198.51.100.9"),
            ("http://[2001:db8:7::9]/", "2001:db8:7::9"),
        ];
        for proxy in ["127.0.0.1", "[::1]"] {
            for (url, expected) in table {
                let answer = world.get_by(proxy, url);
                assert_eq!((answer.status, text(&answer)), (200, expected.to_string()), "{url} by {proxy}");
            }
            for target in ["six.test:80", "[2001:db8:7::6]:80"] {
                let mut tunnel = world.client(proxy).tunnel(target).unwrap().expect("a tunnel");
                tunnel.send(b"GET / HTTP/1.1\r\nHost: six.test\r\n\r\n").unwrap();
                assert_eq!(text(&tunnel.receive(false).unwrap()), "2001:db8:7::6", "{target} by {proxy}");
            }
        }
    });
}

#[test]
fn a_changed_answer_is_seen_after_its_ttl_and_not_before() {
    inside("a_changed_answer_is_seen_after_its_ttl_and_not_before", |world| {
        let ttl = Duration::from_secs(3);
        world.dns.say("moves.test", 3, &["198.51.100.7"]);
        let before_asking = Instant::now();
        assert_eq!(text(&world.get("http://moves.test/")), "198.51.100.7");
        let answered = Instant::now();
        world.dns.say("moves.test", 3, &["198.51.100.8"]);
        loop {
            let asked = Instant::now();
            let seen = text(&world.get("http://moves.test/"));
            match seen.as_str() {
                "198.51.100.7" => assert!(asked < answered + ttl + Duration::from_secs(2), "still the old address"),
                "198.51.100.8" => break assert!(before_asking.elapsed() >= ttl, "asked again before the TTL was over"),
                other => panic!("{other:?}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(world.dns.asked_for_v4("moves.test."), 2, "one question per TTL, however many requests");
    });
}

#[test]
fn hosts_and_resolv_conf_are_respected() {
    inside("hosts_and_resolv_conf_are_respected", |world| {
        world.dns.say("in-hosts.test", 60, &["198.51.100.99"]);
        world.dns.say("intranet.corp.test", 60, &["198.51.100.20"]);
        world.dns.say("typo.example.corp.test", 60, &["198.51.100.21"]);
        assert_eq!(text(&world.get("http://in-hosts.test/")), "198.51.100.10", "/etc/hosts comes first");
        assert_eq!(text(&world.get("http://in-hosts-6.test/")), "2001:db8:7::10");
        assert_eq!(text(&world.get("http://intranet/")), "198.51.100.20", "short names follow the search list");
        assert_eq!(world.get("http://typo.example/").status, 502, "whole names do not");
    });
}

#[test]
fn a_name_that_does_not_exist_gets_a_page_and_a_record_and_is_found_once_it_does() {
    inside("a_name_that_does_not_exist_gets_a_page_and_a_record_and_is_found_once_it_does", |world| {
        let answer = world.get("http://nobody.test/");
        assert_eq!(answer.status, 502, "{}", answer.head);
        let page = text(&answer);
        assert!(page.contains("does not exist") && page.contains("spelling") && page.contains("Reference"), "{page}");
        assert!(answer.head.contains("error=dns_error"), "{}", answer.head);
        world.wait_for_record(&["TCP_DNS_FAILED", "http://nobody.test/", "502"]);
        let refused = world.client("127.0.0.1").tunnel("nobody.test:443").unwrap().err().expect("no tunnel");
        assert_eq!(refused.status, 502, "{}", refused.head);
        world.dns.set("broken.test", Reply::Failure);
        let answer = world.get("http://broken.test/");
        assert_eq!(answer.status, 502, "{}", answer.head);
        assert!(text(&answer).contains("could not be resolved"), "{}", text(&answer));
        world.wait_for_record(&["TCP_DNS_FAILED", "http://broken.test/", "502"]);
        // The zone says that its absences are good for one second.
        world.dns.say("nobody.test", 60, &["198.51.100.7"]);
        wait_until("the new name is found", || world.get("http://nobody.test/").status == 200);
    });
}

#[test]
fn what_is_not_there_is_not_asked_for_again_while_its_zone_says_so() {
    inside("what_is_not_there_is_not_asked_for_again_while_its_zone_says_so", |world| {
        world.dns.set("nobody.test", Reply::Absent { exists: false, seconds: 60 });
        world.dns.set("hollow.test", Reply::Absent { exists: true, seconds: 60 });
        world.dns.set("moment.test", Reply::Absent { exists: false, seconds: 1 });
        for name in ["nobody.test", "hollow.test"] {
            for _ in 0..5 {
                assert_eq!(world.get(&format!("http://{name}/")).status, 502);
            }
            assert_eq!(world.dns.asked_for_v4(&format!("{name}.")), 1, "{name}");
        }
        wait_until("the absence of a second is asked for again", || {
            assert_eq!(world.get("http://moment.test/").status, 502);
            world.dns.asked_for_v4("moment.test.") > 1
        });
        // A failure is remembered for a few seconds, not longer.
        world.dns.set("broken.test", Reply::Failure);
        let began = Instant::now();
        assert_eq!(world.get("http://broken.test/").status, 502);
        let asked = world.dns.asked_for_v4("broken.test.");
        for _ in 0..5 {
            assert_eq!(world.get("http://broken.test/").status, 502);
        }
        if began.elapsed() < Duration::from_secs(4) {
            assert_eq!(world.dns.asked_for_v4("broken.test."), asked, "a failure is not asked for at each request");
        }
        world.dns.say("broken.test", 60, &["198.51.100.7"]);
        wait_until("the repaired name is found", || world.get("http://broken.test/").status == 200);
    });
}

#[test]
fn the_slower_family_is_not_waited_for() {
    inside("the_slower_family_is_not_waited_for", |world| {
        let (four, six, dead) = ("198.51.100.7", "2001:db8:7::6", "2001:db8:dead::1");
        let ms = Duration::from_millis;
        // (IPv4 after, IPv6 after, IPv6 address, who is reached); never stands for silence.
        let table = [
            ("v4-only-answers", Some(ms(0)), None, six, four),
            ("v6-only-answers", None, Some(ms(0)), six, six),
            ("v6-comes-in-its-moment", Some(ms(0)), Some(ms(20)), six, six),
            ("v6-comes-too-late", Some(ms(0)), Some(ms(2_000)), six, four),
            ("v6-is-dead-and-v4-comes-later", Some(ms(300)), Some(ms(0)), dead, four),
            ("v4-is-late", Some(ms(2_000)), Some(ms(0)), six, six),
        ];
        for (name, v4_after, v6_after, v6, expected) in table {
            let half = |after: Option<Duration>, address: &str| after.map(|after| (after, address.parse().unwrap()));
            world.dns.set(&format!("{name}.test"), Reply::Split { v4: half(v4_after, four), v6: half(v6_after, v6) });
            let began = Instant::now();
            assert_eq!(text(&world.get(&format!("http://{name}.test/"))), expected, "{name}");
            assert!(began.elapsed() < ms(1_500), "{name} took {:?}", began.elapsed());
        }
    });
}

#[test]
fn changed_files_are_noticed() {
    inside("changed_files_are_noticed", |world| {
        world.dns.say("four.test", 600, &["198.51.100.7"]);
        assert_eq!(text(&world.get("http://four.test/")), "198.51.100.7");
        let file = |path: &str| world.dir.path().join(path);
        fs::write(file("etc-hosts"), "127.0.0.1 localhost\n198.51.100.30 four.test\n").unwrap();
        wait_until("hosts is followed", || text(&world.get("http://four.test/")) == "198.51.100.30");
        fs::write(file("etc-hosts"), "127.0.0.1 localhost\n").unwrap();
        wait_until("hosts is followed back", || text(&world.get("http://four.test/")) == "198.51.100.7");
        let other = Dns::start("127.0.0.54:53".parse().unwrap());
        other.say("four.test", 600, &["198.51.100.40"]);
        fs::write(file("etc-resolv.conf"), "nameserver 127.0.0.54\n").unwrap();
        wait_until("resolv.conf is followed", || text(&world.get("http://four.test/")) == "198.51.100.40");
        // Without a name server pinned names still work, and a repaired file helps without a restart.
        fs::write(file("etc-resolv.conf"), "# none\n").unwrap();
        wait_until("no name server is left", || world.get("http://other.test/").status == 502);
        fs::write(file("etc-resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        wait_until("resolv.conf is followed back", || text(&world.get("http://four.test/")) == "198.51.100.7");
    });
}

#[test]
fn a_kept_connection_follows_a_site_that_moves() {
    inside("a_kept_connection_follows_a_site_that_moves", |world| {
        world.dns.say("site.test", 1, &["198.51.100.7"]);
        let mut client = world.client("127.0.0.1");
        let mut get = || text(&client.get("http://site.test:81/").unwrap());
        let first = get();
        assert!(first.starts_with("198.51.100.7 "), "{first}");
        // The name is asked for again and again, and the connection stays.
        let asked = world.dns.asked_for_v4("site.test.");
        wait_until("the name is asked for again", || {
            assert_eq!(get(), first);
            world.dns.asked_for_v4("site.test.") > asked
        });
        // Name servers that are out of order do not break what works.
        world.dns.set("site.test", Reply::Failure);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(7) {
            assert_eq!(get(), first);
        }
        world.dns.say("site.test", 1, &["198.51.100.8"]);
        let began = Instant::now();
        wait_until("the site is followed", || get().starts_with("198.51.100.8 "));
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        world.dns.set("site.test", Reply::Absent { exists: false, seconds: 60 });
        wait_until("the site is gone", || get().contains("does not exist"));
    });
}

#[test]
fn private_networks_are_refused_where_the_policy_says_so() {
    inside("private_networks_are_refused_where_the_policy_says_so", |world| {
        world.dns.say("inside.test", 60, &["10.9.0.1"]);
        world.dns.say("excepted.test", 60, &["10.9.1.1"]);
        assert_eq!(text(&world.get("http://inside.test/")), "10.9.0.1", "unless said otherwise they may be reached");
        world.apply(
            &POLICY.replace("[network]", "[network]\nrefuse_private = true\nallow_destinations = [\"10.9.1.0/24\"]"),
        );
        let table = [
            "10.9.0.1",
            "172.16.1.1",
            "192.168.1.1",
            "100.64.1.1",
            "::ffff:10.9.0.1",
            "64:ff9b::a09:1",
            "2002:a09:1::1",
            "fd00::1",
            "240.0.0.1",
        ];
        for (number, address) in table.into_iter().enumerate() {
            let name = format!("private-{number}.test");
            world.dns.say(&name, 60, &[address]);
            let answer = world.get(&format!("http://{name}/"));
            assert_eq!(answer.status, 403, "{address}: {}", answer.head);
            assert!(text(&answer).contains("allow_destinations"), "{address}: {}", text(&answer));
        }
        assert_eq!(world.get("http://10.9.0.1/").status, 403);
        assert_eq!(text(&world.get("http://excepted.test/")), "10.9.1.1");
        world.dns.say("public.test", 60, &["10.9.0.1", "198.51.100.7"]);
        assert_eq!(text(&world.get("http://public.test/")), "198.51.100.7");
    });
}

#[test]
fn a_silent_name_server_ends_in_words_while_others_are_served() {
    inside("a_silent_name_server_ends_in_words_while_others_are_served", |world| {
        world.dns.say("four.test", 60, &["198.51.100.7"]);
        world.dns.set("silence.test", Reply::Silence);
        let waiting = {
            let mut client = world.client("127.0.0.1");
            thread::spawn(move || (Instant::now(), client.get("http://silence.test/").unwrap()))
        };
        while !waiting.is_finished() {
            assert_eq!(world.get("http://four.test/").status, 200);
            thread::sleep(Duration::from_millis(50));
        }
        let (began, answer) = waiting.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
        assert_eq!(answer.status, 504, "{}", answer.head);
        let page = text(&answer);
        assert!(page.contains("no name server answered in time") || page.contains("No name server"), "{page}");
        assert!(page.contains("/etc/resolv.conf"), "{page}");
        world.wait_for_record(&["TCP_DNS_FAILED", "http://silence.test/", "504"]);
    });
}

#[test]
fn a_name_does_not_lead_to_addresses_that_only_the_node_reaches() {
    inside("a_name_does_not_lead_to_addresses_that_only_the_node_reaches", |world| {
        let table = [
            ("127.0.0.1", "loopback"),
            ("127.8.9.10", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("64:ff9b::7f00:1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("2002:7f00:1::1", "loopback"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("::127.0.0.1", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            (OWN, "of this node"),
            ("::ffff:192.0.2.1", "of this node"),
            ("2001:db8:1::1", "of this node"),
        ];
        for (number, (address, kind)) in table.into_iter().enumerate() {
            let name = format!("rebound-{number}.test");
            world.dns.say(&name, 60, &[address]);
            let answer = world.get(&format!("http://{name}/"));
            assert_eq!(answer.status, 403, "{name} is {address}: {}", answer.head);
            let page = text(&answer);
            assert!(page.contains(kind) && page.contains("allow_destinations"), "{address}: {page}");
            world.wait_for_record(&["TCP_DENIED", &format!("http://{name}/"), "destination"]);
            let refused = world.client("127.0.0.1").tunnel(&format!("{name}:80")).unwrap().err();
            assert_eq!(refused.expect("no tunnel").status, 403, "a tunnel to {name}, which is {address}");
        }
        // Of several addresses only the others are used, and a name that moves is looked at again.
        world.dns.say("both.test", 60, &["127.0.0.1", "198.51.100.7"]);
        assert_eq!(text(&world.get("http://both.test/")), "198.51.100.7");
        world.dns.say("turns.test", 1, &["198.51.100.7"]);
        assert_eq!(text(&world.get("http://turns.test/")), "198.51.100.7");
        world.dns.say("turns.test", 1, &["127.0.0.1"]);
        wait_until("the moved name is refused", || match world.get("http://turns.test/") {
            answer if answer.status == 403 => true,
            answer => {
                assert_eq!(text(&answer), "198.51.100.7");
                thread::sleep(Duration::from_millis(50));
                false
            }
        });
    });
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// A host of its own: addresses, a name server, an origin that tells the address by which it was reached, and a node.
struct World {
    dns: Arc<Dns>,
    node: Node,
    dir: TempDir,
}

/// Runs `body` in a world of its own: `name` is the test's, which is run once more inside the namespaces.
fn inside(name: &str, body: impl FnOnce(&World)) {
    if std::env::var_os(INSIDE).is_some() {
        return body(&World::make());
    }
    let may = Command::new("unshare").args(["--mount", "--net", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: {name} needs root, to make mount and network namespaces with unshare");
    }
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", words(&output.stdout), words(&output.stderr));
    assert!(words(&output.stdout).contains("1 passed"), "{}", words(&output.stdout));
}

impl World {
    fn make() -> World {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap();
        lay_network();
        cover("/etc/resolv.conf", dir.path(), "nameserver 127.0.0.53\nsearch corp.test\n");
        cover(
            "/etc/hosts",
            dir.path(),
            "127.0.0.1 localhost\n198.51.100.10 in-hosts.test\n2001:db8:7::10 in-hosts-6.test\n",
        );
        let dns = Dns::start("127.0.0.53:53".parse().unwrap());
        start_origin(80, false);
        start_origin(81, true);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let layout = NodeLayout::at(dir.path(), "alone", at(PROXY_PORT), at(8888));
        let extra = BTreeMap::from([("LISTEN_IP", "*".to_string())]);
        layout.write(&dir.path().join("no.key"), &[("ROLE", "standalone".into())], &extra).unwrap();
        let node = Node::of(&layout);
        node.start();
        let world = World { dns, node, dir };
        world.apply(POLICY);
        world
    }

    fn apply(&self, document: &str) {
        let action = Action::PolicyApply {
            document: document.into(),
            comment: String::new(),
            base: None,
            how: Default::default(),
        };
        let outcome = self.node.ask(action);
        assert!(matches!(outcome, Ok(Outcome::Applied { .. })), "{outcome:?}");
    }

    fn client(&self, proxy: &str) -> Client {
        Client::connect(format!("{proxy}:{PROXY_PORT}").parse().unwrap()).unwrap()
    }

    fn get(&self, url: &str) -> Answer {
        self.get_by("127.0.0.1", url)
    }

    fn get_by(&self, proxy: &str, url: &str) -> Answer {
        self.client(proxy).get(url).unwrap_or_else(|error| panic!("{url} by {proxy}: {error}"))
    }

    /// Until extended.log has a line with all of `words`.
    fn wait_for_record(&self, words: &[&str]) {
        wait_until(&format!("a record with {words:?}"), || {
            let log = fs::read_to_string(&self.node.layout.log).unwrap_or_default();
            log.lines().any(|line| words.iter().all(|word| line.contains(word)))
        });
    }
}

/// Loopback with two outward addresses of the node's own, and routes that bring two networks here whose addresses are
/// not the node's own.
fn lay_network() {
    let table = [
        "link set lo up",
        "addr add 192.0.2.1/32 dev lo",
        "addr add 2001:db8:1::1/128 dev lo",
        "route add local 198.51.100.0/24 dev lo",
        "route add local 10.9.0.0/16 dev lo",
        "-6 route add local 2001:db8:7::/64 dev lo",
    ];
    for arguments in table {
        let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Puts a file with `text` over `path`, in this mount namespace only.
fn cover(path: &str, dir: &Path, text: &str) {
    let file = dir.join(path.trim_start_matches('/').replace('/', "-"));
    fs::write(&file, text).unwrap();
    let status = Command::new("mount").arg("--bind").args([&file, Path::new(path)]).status().unwrap();
    assert!(status.success(), "mounting over {path}");
}

/// Answers every request on `port` of any address with that address: once per connection, or, if it keeps connections,
/// with the connection's number behind it.
fn start_origin(port: u16, keeps: bool) {
    let listener = TcpListener::bind(("::", port)).unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let address = stream.local_addr().unwrap().ip().to_canonical();
            let serve = move || {
                while read_head(&mut stream) {
                    let (fields, body) = match keeps {
                        true => ("", format!("{address} {number}")),
                        false => ("Connection: close\r\n", address.to_string()),
                    };
                    let length = body.len();
                    let reply = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
                    if stream.write_all(reply.as_bytes()).is_err() || !keeps {
                        break;
                    }
                }
            };
            thread::spawn(serve);
        }
    });
}

/// Reads a request without a body; false at the end of the connection.
fn read_head(stream: &mut TcpStream) -> bool {
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => head.extend_from_slice(&piece[..count]),
            _ => return false,
        }
    }
    true
}

/// What the name server does when asked for a name.
#[derive(Clone)]
enum Reply {
    Addresses {
        ttl: u32,
        addresses: Vec<IpAddr>,
    },
    /// One address in each family, each after its time; nothing: silence.
    Split {
        v4: Option<(Duration, IpAddr)>,
        v6: Option<(Duration, IpAddr)>,
    },
    /// No such name, or none with an address; the zone says for how long that is good.
    Absent {
        exists: bool,
        seconds: u32,
    },
    Failure,
    Silence,
}

/// A name server that knows what the test told it; all other names do not exist, for one second.
struct Dns {
    names: Mutex<HashMap<String, Reply>>,
    questions: Mutex<Vec<(String, u16)>>,
}

impl Dns {
    fn start(address: SocketAddr) -> Arc<Dns> {
        let socket = UdpSocket::bind(address).unwrap();
        let dns = Arc::new(Dns { names: Mutex::default(), questions: Mutex::default() });
        let serving = Arc::clone(&dns);
        thread::spawn(move || {
            let mut packet = [0; 4096];
            loop {
                let (count, from) = socket.recv_from(&mut packet).unwrap();
                let Some((after, reply)) = serving.reply(&packet[..count]) else { continue };
                if after.is_zero() {
                    let _ = socket.send_to(&reply, from);
                } else {
                    let socket = socket.try_clone().unwrap();
                    thread::spawn(move || {
                        thread::sleep(after);
                        let _ = socket.send_to(&reply, from);
                    });
                }
            }
        });
        dns
    }

    fn say(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.set(name, Reply::Addresses { ttl, addresses });
    }

    fn set(&self, name: &str, reply: Reply) {
        self.names.lock().unwrap().insert(format!("{name}."), reply);
    }

    fn asked_for_v4(&self, name: &str) -> usize {
        self.questions.lock().unwrap().iter().filter(|(asked, kind)| asked == name && *kind == KIND_A).count()
    }

    /// The reply and how long it takes; nothing for silence.
    fn reply(&self, query: &[u8]) -> Option<(Duration, Vec<u8>)> {
        const HEAD: usize = 12;
        let (mut name, mut at) = (String::new(), HEAD);
        while query[at] != 0 {
            let length = usize::from(query[at]);
            name += &String::from_utf8_lossy(&query[at + 1..=at + length]).to_lowercase();
            name.push('.');
            at += length + 1;
        }
        let question = &query[HEAD..at + 5];
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        self.questions.lock().unwrap().push((name.clone(), kind));
        let known = self.names.lock().unwrap().get(&name).cloned();
        let (mut after, mut absent_seconds) = (Duration::ZERO, 1);
        let (code, answers) = match known {
            Some(Reply::Silence) => return None,
            Some(Reply::Failure) => (2, Vec::new()),
            Some(Reply::Absent { exists, seconds }) => {
                absent_seconds = seconds;
                (if exists { 0 } else { 3 }, Vec::new())
            }
            Some(Reply::Split { v4, v6 }) => {
                let (delay, address) = if kind == KIND_A { v4? } else { v6? };
                after = delay;
                (0, record(kind, 60, address).into_iter().collect())
            }
            Some(Reply::Addresses { ttl, addresses }) => {
                (0, addresses.into_iter().filter_map(|address| record(kind, ttl, address)).collect())
            }
            None => (3, Vec::new()),
        };
        let no_answer = answers.is_empty() && code != 2;
        let authority = if no_answer { vec![start_of_authority(absent_seconds)] } else { Vec::new() };
        let mut reply = query[..2].to_vec();
        reply.extend([0x85, 0x80 | code, 0, 1, 0, answers.len() as u8, 0, authority.len() as u8, 0, 0]);
        reply.extend_from_slice(question);
        reply.extend(answers.concat());
        reply.extend(authority.concat());
        Some((after, reply))
    }
}

/// An address record for the name of the question, if it is of the kind asked for.
fn record(kind: u16, ttl: u32, address: IpAddr) -> Option<Vec<u8>> {
    let (of, data) = match address {
        IpAddr::V4(v4) => (KIND_A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (KIND_AAAA, v6.octets().to_vec()),
    };
    let mut record = vec![0xc0, 12, 0, of as u8, 0, 1];
    record.extend(ttl.to_be_bytes());
    record.extend([0, data.len() as u8]);
    record.extend(data);
    (kind == of).then_some(record)
}

/// The zone `test`, whose absences are good for so many seconds.
fn start_of_authority(seconds: u32) -> Vec<u8> {
    let mut record = b"\x04test\x00\x00\x06\x00\x01".to_vec();
    record.extend(seconds.to_be_bytes());
    record.extend([0, 22, 0, 0]);
    for number in [1u32, 60, 60, 60, seconds] {
        record.extend(number.to_be_bytes());
    }
    record
}
