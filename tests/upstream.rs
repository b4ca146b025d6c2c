//! The way out, with a real node: connections used again and sent twice, connections a client authenticated on, parent
//! proxies (HTTP and SOCKS5, written here), routes, and the address a connection leaves from.

mod harness;

use harness::Node;
use harness::client::Answer;
use harness::client::Client;
use harness::tidegate;
use harness::wait_until;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::daemon::layout::NodeLayout;
use tidegate::record::Record;
use tidegate::sys::sockets;

const POLICY: &str = r#"
access_profiles_default = "allow"

[access_restriction]
default = "allow"

[network]
connect_ports = ["any"]
allow_destinations = ["127.0.0.1/32"]
"#;

#[test]
fn only_what_is_idempotent_and_bodiless_is_sent_twice_and_only_on_a_stale_connection() {
    let (gateway, site) = (Gateway::start(""), Site::start());
    let body = "Content-Length: 2\r\n";
    // (what the origin does at the second request of a connection, method, fields, body, answer, times the origin saw it)
    let table = [
        ("close", "GET", "", "", 200, 2),
        ("reset", "GET", "", "", 200, 2),
        ("close", "HEAD", "", "", 200, 2),
        ("close", "DELETE", "", "", 200, 2),
        ("close", "PUT", "Content-Length: 0\r\n", "", 200, 2),
        ("close", "PUT", body, "ab", 502, 1),
        ("close", "POST", "", "", 502, 1),
        ("close", "POST", body, "ab", 502, 1),
        ("reset", "POST", body, "ab", 502, 1),
        ("close", "PATCH", "Content-Length: 0\r\n", "", 502, 1),
        ("byte", "GET", "", "", 502, 1),
        ("head", "GET", "", "", 502, 1),
        ("interim", "GET", "", "", 502, 1),
    ];
    for (number, (what, method, fields, body, status, times)) in table.into_iter().enumerate() {
        // A client of its own each: the pool is the node's.
        let mut client = gateway.client();
        assert_eq!(client.get(&site.url("/warm")).unwrap().status, 200, "{what} {method}");
        let path = format!("/stale-{what}/{number}");
        let (url, host) = (site.url(&path), site.address);
        client.send(format!("{method} {url} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n{body}").as_bytes()).unwrap();
        let answer = client.receive(method == "HEAD").unwrap();
        assert_eq!(answer.status, status, "{what} {method} {fields:?}: {}", answer.head);
        let seen = site.seen(&path);
        assert_eq!(seen.len(), times, "{what} {method} {fields:?}: {seen:?}");
        assert!(seen.windows(2).all(|two| two[0] != two[1]), "on another connection: {seen:?}");
    }
    // A new connection that fails is the origin's last word.
    for what in ["close", "reset"] {
        let path = format!("/always-{what}/x");
        let answer = gateway.client().get(&site.url(&path)).unwrap();
        assert_eq!(answer.status, 502, "{what}: {}", answer.head);
        // The warm connections of above are gone, or it was one of them that failed first.
        let connections: HashSet<usize> = site.seen(&path).into_iter().collect();
        assert!(connections.len() <= 2, "{what}: {connections:?}");
    }
    let fresh = Site::start();
    for what in ["close", "reset", "byte"] {
        let path = format!("/always-{what}/x");
        assert_eq!(gateway.client().get(&fresh.url(&path)).unwrap().status, 502, "{what}");
        assert_eq!(fresh.seen(&path).len(), 1, "{what} on a new connection");
    }
}

#[test]
fn a_connection_is_not_used_again_after_an_error() {
    let gateway = Gateway::start("");
    // A reply that says close, one with bytes behind it, one that is cut, one that is no HTTP.
    for what in ["bye", "surplus", "cut", "garbage"] {
        let site = Site::start();
        let mut client = gateway.client();
        // A cut answer breaks the client's connection as well.
        let _ = client.get(&site.url(&format!("/reply-{what}")));
        let answer = gateway.client().get(&site.url("/warm")).unwrap();
        assert_eq!(
            (answer.status, text(&answer)),
            (200, "1".to_string()),
            "{what}: the next request is on connection 1"
        );
    }
    let site = Site::start();
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(text(&client.get(&site.url("/warm")).unwrap()), "0", "and without an error on the same");
    }
    assert_eq!(text(&gateway.client().get(&site.url("/warm")).unwrap()), "0", "for everybody");
}

#[test]
fn a_connection_a_client_authenticated_on_is_that_clients_alone() {
    let (gateway, site) = (Gateway::start(""), Site::start());
    let ask = |client: &mut Client, token: &str| {
        let fields = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
        let (url, host) = (site.url("/secret"), site.address);
        client.send(format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n").as_bytes()).unwrap();
        let answer = client.receive(false).unwrap();
        (answer.status, text(&answer))
    };
    for scheme in ["NTLM", "Negotiate"] {
        let mut ann = gateway.client();
        let (status, connection) = ask(&mut ann, "");
        assert_eq!(status, 401);
        // Others come and go between her steps, and get connections of their own.
        let mut bob = gateway.client();
        let (status, other) = ask(&mut bob, "");
        assert_eq!(status, 401);
        assert_ne!(other, connection, "{scheme}: the handshake has begun on that connection");
        assert_eq!(ask(&mut ann, &format!("{scheme} hello")), (401, connection.clone()));
        assert_eq!(ask(&mut ann, &format!("{scheme} ann")), (200, format!("ann on {connection}")));
        assert_eq!(ask(&mut ann, ""), (200, format!("ann on {connection}")), "authenticated as long as she stays");
        for _ in 0..3 {
            assert_eq!(ask(&mut gateway.client(), "").0, 401, "{scheme}: nobody else is ann");
        }
        assert_eq!(ask(&mut bob, "").1, other, "bob has his own too, since he was asked for NTLM");
        // Who sends it unasked is bound as well.
        let mut eve = gateway.client();
        let (status, words) = ask(&mut eve, &format!("{scheme} eve"));
        assert_eq!((status, words.starts_with("eve on ")), (200, true), "{words}");
        assert_eq!(ask(&mut gateway.client(), "").0, 401);
        let open = site.open();
        drop(ann);
        wait_until("her connection is closed with her", || !site.is_open(connection.parse().unwrap()));
        assert!(open > 0);
    }
    // Basic authenticates requests: the connection is everybody's.
    let basic = Site::start();
    let fields =
        format!("GET {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic YTpi\r\n\r\n", basic.url("/warm"), basic.address);
    let mut client = gateway.client();
    client.send(fields.as_bytes()).unwrap();
    assert_eq!(text(&client.receive(false).unwrap()), "0");
    assert_eq!(text(&gateway.client().get(&basic.url("/warm")).unwrap()), "0");
}

#[test]
fn flush_closes_idle_connections_and_forgets_names_and_stands_in_the_audit() {
    let (gateway, site) = (Gateway::start(""), Site::start());
    let mut client = gateway.client();
    let connection = |client: &mut Client| text(&client.get(&site.url("/warm")).unwrap());
    let before = connection(&mut client);
    assert_eq!(connection(&mut client), before, "the connection is used again");
    assert_eq!(client.get("http://nowhere.invalid/").unwrap().status, 502);

    let control = gateway.node.layout.control.display().to_string();
    let flush = |what: &str| tidegate(&["flush", what, "--control", &control]);
    let (code, said, _) = flush("dns");
    assert!(code == 0 && said.contains("names forgotten") && !said.starts_with("0 "), "{said}");
    assert!(flush("dns").1.starts_with("0 names forgotten"), "nothing is remembered any more");
    assert_eq!(connection(&mut client), before, "connections are another matter");
    let (code, said, _) = flush("pools");
    assert!(code == 0 && said.contains("idle connections closed") && !said.starts_with("0 "), "{said}");
    assert_ne!(connection(&mut client), before, "a new connection");
    assert_ne!(flush("auth").0, 0, "there is no such memory");
    let audit = fs::read_to_string(gateway.node.layout.log.with_file_name("config.log")).unwrap();
    assert_eq!(audit.matches("\"flush\"").count(), 3, "{audit}");
}

#[test]
fn routes_send_profiles_and_hosts_to_parents_or_straight_on() {
    let (one, two, site) = (HttpParent::start("one", ""), HttpParent::start("two", ""), Site::start());
    let routes = format!(
        r#"
[[access_profiles]]
name = "Branch"
request_types = ["Branch"]
add_profiles = ["BRANCH"]

[[request_types]]
name = "Branch"
headers = [{{ name = "User-Agent", equals = ["branch"] }}]

[[parents]]
name = "HQ"
proxies = [{{ type = "http", address = "{}" }}]

[[parents]]
name = "Branch office"
proxies = [{{ type = "http", address = "{}" }}]

[[routes]]
comment = "near"
host_suffixes = ["127.0.0.1"]
via = "direct"

[[routes]]
profiles = ["BRANCH"]
via = "Branch office"

[[routes]]
host_suffixes = ["far.test"]
via = "HQ"
"#,
        one.address, two.address
    );
    let gateway = Gateway::start(&routes);
    let mut client = gateway.client();
    let near = client.get(&site.url("/warm")).unwrap();
    assert_eq!(text(&near), "0", "straight to the origin");
    let far = text(&client.get("http://www.far.test/a?b").unwrap());
    assert!(far.starts_with("one: GET http://www.far.test/a?b HTTP/1.1"), "{far}");
    let branch = text(&client.get_as("http://www.far.test/", "branch").unwrap());
    assert!(branch.starts_with("two: GET http://www.far.test/ HTTP/1.1"), "{branch}");
    assert_eq!(client.get("http://nowhere.invalid/").unwrap().status, 502, "no route: resolved here, and not found");
    let again = text(&client.get("http://other.far.test:81/").unwrap());
    assert!(again.starts_with("one: GET http://other.far.test:81/"), "{again}");
    assert_eq!(one.connections(), 1, "one connection to the parent for all hosts behind it");
    // Tunnels go through CONNECT, and what the far end says first arrives.
    let greeter = greeter();
    one.leads("mail.far.test:25", greeter);
    let mut tunnel = gateway.client().tunnel("mail.far.test:25").unwrap().expect("a tunnel");
    tunnel.send(b"GET me\r\n\r\n").unwrap();
    assert_eq!(text(&tunnel.receive(false).unwrap()), "220 hello");
    let refused = gateway.client().tunnel("unknown.far.test:443").unwrap().err().expect("no tunnel");
    assert_eq!(refused.status, 502, "{}", refused.head);
    assert!(text(&refused).contains("404"), "{}", text(&refused));
    let records = gateway.records(6);
    let peers: Vec<String> = records.iter().map(|record| format!("{} {}", record.peercode, record.peer)).collect();
    assert_eq!(peers[0], "DIRECT 127.0.0.1");
    assert_eq!(peers[1], format!("PARENT_HIT {}", one.address));
    assert_eq!(peers[2], format!("PARENT_HIT {}", two.address));
    let told = explain(&gateway, "http://www.far.test/");
    assert!(told.contains("Routes: routes[3] via HQ"), "{told}");
}

#[test]
fn a_parent_that_fails_is_passed_over_until_it_is_back() {
    let (first, second) = (free_address(), HttpParent::start("second", ""));
    let routes = format!(
        "[[parents]]\nname = \"HQ\"\nproxies = [{{ type = \"http\", address = \"{first}\" }}, \
         {{ type = \"http\", address = \"{}\" }}]\n[[routes]]\nvia = \"HQ\"\n",
        second.address
    );
    let gateway = Gateway::start(&routes);
    let ask = || {
        let answer = gateway.client().get("http://far.test/").unwrap();
        (answer.status, text(&answer).split(':').next().unwrap_or_default().to_string())
    };
    for _ in 0..3 {
        assert_eq!(ask(), (200, "second".to_string()));
    }
    let back = HttpParent::start_at("first", "", first);
    wait_until("the first is used again", || ask().1 == "first");
    // It dies while connections to it are pooled.
    drop(back);
    wait_until("the second takes over", || ask().1 == "second");
    let journal = gateway.node.journal();
    assert!(journal.contains(&format!("parent proxy {first} is down")), "{journal}");
    assert!(journal.contains(&format!("parent proxy {first} accepts connections again")), "{journal}");
    assert!(gateway.records(4).iter().all(|record| record.peercode == "PARENT_HIT"));
}

/// A proxy that takes connections and never answers: it closes them at once (`"close"`), resets them, or does so when it has
/// heard the question. With the first lines it heard.
fn mute(what: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let hears = Arc::clone(&heard);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            if what.starts_with("reset") {
                sockets::reset_on_close(&stream).unwrap();
            }
            let mut wire = Wire::new(stream);
            if !what.ends_with("at once")
                && let Some(head) = wire.head()
            {
                hears.lock().unwrap().push(head.lines().next().unwrap_or_default().to_string());
            }
        }
    });
    (address, heard)
}

fn group(kind: &str, parents: &[SocketAddr], more: &str) -> String {
    let parents: Vec<String> =
        parents.iter().map(|address| format!("{{ type = \"{kind}\", address = \"{address}\" }}")).collect();
    format!(
        "[[parents]]\nname = \"HQ\"\nproxies = [{}]\n{more}\n[[routes]]\nhost_suffixes = [\"test\"]\nvia = \"HQ\"\n",
        parents.join(", ")
    )
}

#[test]
fn what_a_parent_leaves_unanswered_goes_to_the_next_if_it_may_be_sent_again() {
    for what in ["close", "reset", "close at once", "reset at once"] {
        let ((first, heard), second) = (mute(what), HttpParent::start("second", ""));
        let gateway = Gateway::start(&group("http", &[first, second.address], ""));
        // Whether the first has just been found up again or is still passed over: nobody notices.
        for _ in 0..3 {
            let answer = gateway.client().get("http://far.test/a").unwrap();
            assert_eq!(answer.status, 200, "{what}: {}", answer.head);
            assert!(text(&answer).starts_with("second: GET http://far.test/a HTTP/1.1"), "{what}: {}", text(&answer));
        }
        let journal = gateway.node.journal();
        let down = format!("parent proxy {first} is down: ");
        assert!(journal.contains(&down), "{what}: {journal}");
        // What must not be done twice is not.
        // One whose reset comes while it is looked at does not accept: that may be so each time.
        if what != "reset at once" {
            wait_until("the first is found to accept again", || {
                gateway.node.journal().contains("accepts connections again")
            });
        }
        let mut passed_over = 0;
        let refused = loop {
            let mut client = gateway.client();
            client.send(b"POST http://far.test/b HTTP/1.1\r\nHost: far.test\r\nContent-Length: 2\r\n\r\nab").unwrap();
            let answer = client.receive(false).unwrap();
            // It may have been found down once more just before: then the second has answered.
            if answer.status != 200 {
                assert_eq!(answer.status, 502, "{what}: {}", answer.head);
                break true;
            }
            passed_over += 1;
            // A reset that comes while we connect is no sending: then the second may answer each time.
            if what == "reset at once" && passed_over == 3 {
                break false;
            }
            assert!(passed_over < 100, "{what}: the first is never asked");
            thread::sleep(Duration::from_millis(100));
        };
        let heard = heard.lock().unwrap().clone();
        let posts = heard.iter().filter(|line| line.starts_with("POST ")).count();
        assert_eq!(posts, usize::from(!what.ends_with("at once")), "{what}: {heard:?}");
        // A tunnel is asked for anew.
        let greeter = greeter();
        second.leads("mail.far.test:25", greeter);
        for _ in 0..2 {
            let mut tunnel = gateway.client().tunnel("mail.far.test:25").unwrap().expect("a tunnel");
            tunnel.send(b"GET me\r\n\r\n").unwrap();
            assert_eq!(text(&tunnel.receive(false).unwrap()), "220 hello", "{what}");
        }
        let peers: Vec<String> = gateway
            .records(5 + passed_over + usize::from(refused && what != "reset at once"))
            .into_iter()
            .map(|record| record.peer)
            .collect();
        let by_second = peers.iter().filter(|peer| **peer == second.address.to_string()).count();
        assert_eq!(by_second, 5 + passed_over, "{what}: {peers:?}");
    }
}

#[test]
fn a_request_that_no_parent_answers_takes_none_of_them_down_and_goes_nowhere_else() {
    let (one, two, site) = (mute("close"), mute("reset"), Site::start());
    let mut document = group("http", &[one.0, two.0], "direct_if_down = true");
    document = document.replace("host_suffixes = [\"test\"]\n", "");
    let gateway = Gateway::start(&document);
    for number in 1..=2 {
        let answer = gateway.client().get(&site.url("/warm")).unwrap();
        assert_eq!(answer.status, 502, "{}", answer.head);
        assert!(text(&answer).contains("closed the connection without an answer"), "{}", text(&answer));
        let refused = gateway.client().tunnel(&site.address.to_string()).unwrap().err().expect("no tunnel");
        assert_eq!(refused.status, 502, "{}", refused.head);
        for (_, heard) in [&one, &two] {
            assert_eq!(heard.lock().unwrap().len(), 2 * number, "each is asked once each time: {heard:?}");
        }
    }
    assert_eq!(site.open(), 0, "nobody went straight to the site");
    assert!(!gateway.node.journal().contains("is down"), "{}", gateway.node.journal());
}

#[test]
fn behind_a_socks_parent_an_origin_that_closes_is_not_the_parents_fault() {
    let ((first, _), second, site) = (mute("close at once"), SocksParent::start(None), Site::start());
    second.leads("far.test", site.address);
    let gateway = Gateway::start(&group("socks5", &[first, second.address], ""));
    for _ in 0..2 {
        assert_eq!(gateway.client().get("http://far.test/warm").unwrap().status, 200, "past the first, which is mute");
    }
    let answer = gateway.client().get("http://far.test/always-close/x").unwrap();
    assert_eq!(answer.status, 502, "{}", answer.head);
    let journal = gateway.node.journal();
    assert!(journal.contains(&format!("parent proxy {first} is down")), "{journal}");
    assert!(!journal.contains(&format!("parent proxy {} is down", second.address)), "{journal}");
}

#[test]
fn with_all_parents_down_nothing_goes_out_unless_the_policy_says_so() {
    let (down, site) = (free_address(), Site::start());
    let routes = |more: &str| {
        format!(
            "[[parents]]\nname = \"HQ\"\n{more}proxies = [{{ type = \"http\", address = \"{down}\" }}]\n\
             [[routes]]\nvia = \"HQ\"\n"
        )
    };
    let gateway = Gateway::start(&routes(""));
    for _ in 0..2 {
        let answer = gateway.client().get(&site.url("/warm")).unwrap();
        assert_eq!(answer.status, 503, "{}", answer.head);
        assert!(answer.head.contains("error=destination_unavailable"), "{}", answer.head);
        assert!(text(&answer).contains("HQ"), "{}", text(&answer));
    }
    assert!(site.seen("/warm").is_empty());
    gateway.apply(&routes("direct_if_down = true\n"));
    assert_eq!(gateway.client().get(&site.url("/warm")).unwrap().status, 200);
    let records = gateway.records(3);
    assert_eq!((records[0].cachecode.as_str(), records[0].filter_name.as_str()), ("TCP_CONNECTION_FAILED", "parents"));
    assert_eq!(records[2].peercode, "DIRECT");
}

#[test]
fn by_hash_a_host_keeps_to_its_parent_and_moves_only_when_that_is_down() {
    let (a, b) = (HttpParent::start("a", ""), HttpParent::start("b", ""));
    let routes = format!(
        "[[parents]]\nname = \"HQ\"\nchoose = \"hash\"\nproxies = [{{ type = \"http\", address = \"{}\" }}, \
         {{ type = \"http\", address = \"{}\" }}]\n[[routes]]\nvia = \"HQ\"\n",
        a.address, b.address
    );
    let gateway = Gateway::start(&routes);
    let ask = |host: usize| text(&gateway.client().get(&format!("http://h{host}.test/")).unwrap())[..1].to_string();
    let first: Vec<String> = (0..24).map(ask).collect();
    assert!(first.iter().any(|who| who == "a") && first.iter().any(|who| who == "b"), "{first:?}");
    assert_eq!((0..24).map(ask).collect::<Vec<_>>(), first);
    drop(a);
    wait_until("all go to b", || (0..24).all(|host| ask(host) == "b"));
}

#[test]
fn credentials_are_each_nodes_own_file_and_a_parent_that_rejects_them_is_named() {
    let parent = HttpParent::start("hq", "Basic YW5uOnNlY3JldA==");
    let routes = format!(
        "[[parents]]\nname = \"HQ\"\nproxies = [{{ type = \"http\", address = \"{}\", credentials = \"hq\" }}]\n\
         [[routes]]\nvia = \"HQ\"\n",
        parent.address
    );
    let gateway = Gateway::start(&routes);
    let get = || gateway.client().get("http://far.test/").unwrap();
    let missing = get();
    assert_eq!(missing.status, 503, "{}", missing.head);
    assert!(text(&missing).contains("HQ"), "{}", text(&missing));
    let journal = gateway.node.journal();
    assert!(journal.contains("credentials/hq") && journal.contains("0600"), "{journal}");
    gateway.write_credentials("hq", "ann:secret\n", 0o644);
    wait_until("the mode is told", || gateway.node.journal().contains("chmod 0600"));
    assert_eq!(get().status, 503);
    gateway.write_credentials("hq", "ann:wrong\n", 0o600);
    wait_until("a wrong password is told apart", || get().status == 502);
    wait_until("a record of it", || {
        let records = gateway.records(1);
        let rejected = records.iter().find(|record| record.status == 502);
        rejected.is_some_and(|record| record.cachecode == "TCP_AUTH_FAILED" && record.filter_name == "parents")
    });
    gateway.write_credentials("hq", "ann:secret\n", 0o600);
    wait_until("the right one is followed", || get().status == 200);
    // What a client says to its proxy is not the parent's, and ours is nobody else's.
    let mut client = gateway.client();
    client
        .send(b"GET http://far.test/ HTTP/1.1\r\nHost: far.test\r\nProxy-Authorization: Basic Y2xpZW50\r\n\r\n")
        .unwrap();
    let answer = client.receive(false).unwrap();
    assert_eq!(answer.status, 200);
    assert!(!text(&answer).contains("Y2xpZW50") && !answer.head.contains("YW5uOnNlY3JldA"), "{}", text(&answer));
    let site = Site::start();
    parent.leads("far.test:443", site.address);
    let mut tunnel = gateway.client().tunnel("far.test:443").unwrap().expect("a tunnel");
    tunnel.send(b"GET /warm HTTP/1.1\r\nHost: far.test\r\n\r\n").unwrap();
    assert_eq!(tunnel.receive(false).unwrap().status, 200);
    let seen = site.heads();
    assert!(!seen.concat().to_lowercase().contains("authorization"), "{seen:?}");
    let document = gateway.policy.lock().unwrap().clone();
    assert!(!document.contains("secret"));
}

#[test]
fn socks_parents_take_names_or_addresses_with_and_without_a_password() {
    let site = Site::start();
    let (open, closed) = (SocksParent::start(None), SocksParent::start(Some(("ann", "secret"))));
    let port = site.address.port();
    for parent in [&open, &closed] {
        parent.leads("far.test", site.address);
    }
    let routes = format!(
        r#"
[[parents]]
name = "open"
proxies = [{{ type = "socks5", address = "{open}" }}]
[[parents]]
name = "closed"
proxies = [{{ type = "socks5", address = "{closed}", credentials = "socks" }}]
[[parents]]
name = "here"
proxies = [{{ type = "socks5", address = "{open}", resolve = "node" }}]
[[routes]]
host_suffixes = ["closed.far.test"]
via = "closed"
[[routes]]
host_suffixes = ["localhost"]
via = "here"
[[routes]]
via = "open"
"#,
        open = open.address,
        closed = closed.address
    );
    closed.leads("closed.far.test", site.address);
    let gateway = Gateway::start_with(&routes, |gateway| gateway.write_credentials("socks", "ann:secret\n", 0o600));
    let mut client = gateway.client();
    for _ in 0..2 {
        let answer = client.get(&format!("http://far.test:{port}/warm")).unwrap();
        assert_eq!((answer.status, text(&answer)), (200, "0".to_string()), "kept for the next request");
    }
    assert_eq!(open.asked(), [format!("name far.test:{port}")]);
    assert_eq!(site.heads()[0].split("\r\n").next(), Some("GET /warm HTTP/1.1"), "the origin gets its own form");
    assert_eq!(client.get(&format!("http://closed.far.test:{port}/warm")).unwrap().status, 200);
    assert_eq!(closed.asked(), [format!("name closed.far.test:{port}")]);
    assert_eq!(client.get(&format!("http://localhost:{port}/warm")).unwrap().status, 200);
    assert_eq!(open.asked().last().unwrap(), &format!("address 127.0.0.1:{port}"), "resolved and looked at here");
    let mut tunnel = gateway.client().tunnel(&format!("far.test:{port}")).unwrap().expect("a tunnel");
    tunnel.send(b"GET /warm HTTP/1.1\r\nHost: far.test\r\n\r\n").unwrap();
    assert_eq!(tunnel.receive(false).unwrap().status, 200);
    let refused = client.get(&format!("http://unknown.test:{port}/")).unwrap();
    assert_eq!(refused.status, 502, "{}", refused.head);
    assert!(text(&refused).contains("cannot reach the host"), "{}", text(&refused));
    gateway.write_credentials("socks", "ann:wrong\n", 0o600);
    wait_until("a wrong password is noticed", || {
        let tunnel = gateway.client().tunnel(&format!("closed.far.test:{port}")).unwrap();
        tunnel.err().is_some_and(|answer| answer.status == 503 && text(&answer).contains("closed"))
    });
}

#[test]
fn a_parent_is_not_asked_for_addresses_that_clients_may_not_reach() {
    let (parent, socks) = (HttpParent::start("hq", ""), SocksParent::start(None));
    let routes = format!(
        "[[parents]]\nname = \"HQ\"\nproxies = [{{ type = \"http\", address = \"{}\" }}]\n\
         [[parents]]\nname = \"S\"\nproxies = [{{ type = \"socks5\", address = \"{}\" }}]\n\
         [[routes]]\nhost_suffixes = [\"s.test\", \"169.254.1.1\"]\nvia = \"S\"\n[[routes]]\nvia = \"HQ\"\n",
        parent.address, socks.address
    );
    let gateway = Gateway::start(&routes);
    let table = [
        ("169.254.169.254", 403),
        ("169.254.1.1", 403),
        ("[::1]", 403),
        ("[::ffff:127.0.0.2]", 403),
        ("[64:ff9b::7f00:2]", 403),
        ("0.0.0.0", 403),
        ("127.0.0.2", 403),
    ];
    for (host, status) in table {
        let answer = gateway.client().get(&format!("http://{host}:81/")).unwrap();
        assert_eq!(answer.status, status, "{host}: {}", answer.head);
        let refused = gateway.client().tunnel(&format!("{host}:81")).unwrap().err().expect("no tunnel");
        assert_eq!(refused.status, status, "CONNECT {host}");
    }
    // Spellings that a parent might take for an address.
    for host in ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.0x2"] {
        let answer = gateway.client().get(&format!("http://{host}:81/")).unwrap();
        assert!(matches!(answer.status, 400 | 403 | 502), "{host}: {}", answer.head);
    }
    assert_eq!((parent.connections(), socks.asked().len()), (0, 0));
}

#[test]
fn a_connection_leaves_from_the_address_of_its_route() {
    let site = Site::start();
    let routes = "[[request_types]]\nname = \"Far\"\npath_prefixes = [\"/foreign\"]\n\
                  [[access_profiles]]\nname = \"F\"\nrequest_types = [\"Far\"]\nadd_profiles = [\"FOREIGN\"]\n\
                  [[request_types]]\nname = \"Own\"\npath_prefixes = [\"/peer/own\"]\n\
                  [[access_profiles]]\nname = \"O\"\nrequest_types = [\"Own\"]\nadd_profiles = [\"OWN\"]\n\
                  [[routes]]\nprofiles = [\"FOREIGN\"]\nvia = \"direct\"\nsource = [\"192.0.2.200\"]\n\
                  [[routes]]\nprofiles = [\"OWN\"]\nvia = \"direct\"\nsource = [\"127.0.0.9\", \"::1\"]\n";
    let gateway = Gateway::start(routes);
    let mut client = gateway.client();
    for _ in 0..2 {
        assert_eq!(text(&client.get(&site.url("/peer/usual")).unwrap()), "127.0.0.1");
        assert_eq!(
            text(&client.get(&site.url("/peer/own")).unwrap()),
            "127.0.0.9",
            "not on a pooled connection of others"
        );
    }
    let foreign = client.get(&site.url("/foreign")).unwrap();
    assert_eq!(foreign.status, 503, "{}", foreign.head);
    assert!(text(&foreign).contains("192.0.2.200"), "{}", text(&foreign));
    let records = gateway.records(5);
    assert_eq!((records[4].cachecode.as_str(), records[4].ending.as_str()), ("TCP_BIND_FAILED", "RC"));
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn explain(gateway: &Gateway, url: &str) -> String {
    let client: IpAddr = "127.0.0.1".parse().unwrap();
    let (code, said, error) = harness::tidegate(&[
        "policy",
        "explain",
        "--control",
        gateway.node.layout.control.to_str().unwrap(),
        "--client",
        &client.to_string(),
        "--url",
        url,
    ]);
    assert_eq!(code, 0, "{said}{error}");
    said
}

fn free_address() -> SocketAddr {
    tidegate::daemon::layout::free_ports(1).unwrap()[0]
}

/// A stand-alone node.
struct Gateway {
    node: Node,
    policy: Mutex<String>,
    _dir: TempDir,
}

impl Gateway {
    /// With the test policy and `more`.
    fn start(more: &str) -> Gateway {
        Gateway::start_with(more, |_| ())
    }

    fn start_with(more: &str, before: impl FnOnce(&Gateway)) -> Gateway {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap();
        let layout = NodeLayout::at(dir.path(), "alone", free_address(), free_address());
        let role = [("ROLE", "standalone".to_string())];
        layout.write(&dir.path().join("no.key"), &role, &BTreeMap::new()).unwrap();
        let gateway = Gateway { node: Node::of(&layout), policy: Mutex::default(), _dir: dir };
        before(&gateway);
        gateway.node.start();
        gateway.apply(more);
        gateway
    }

    fn apply(&self, more: &str) {
        let document = format!("{POLICY}{more}");
        *self.policy.lock().unwrap() = document.clone();
        let outcome = self.node.ask(Action::PolicyApply {
            document,
            comment: String::new(),
            base: None,
            how: Default::default(),
        });
        assert!(matches!(outcome, Ok(Outcome::Applied { .. })), "{outcome:?}");
    }

    fn client(&self) -> Client {
        Client::connect(self.node.layout.proxy).unwrap()
    }

    fn write_credentials(&self, name: &str, text: &str, mode: u32) {
        let dir = self.node.layout.dir.join("credentials");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("new"), text).unwrap();
        fs::set_permissions(dir.join("new"), fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(dir.join("new"), dir.join(name)).unwrap();
    }

    /// The records so far, once there are at least `count`.
    fn records(&self, count: usize) -> Vec<Record> {
        let mut records = Vec::new();
        wait_until(&format!("{count} records"), || {
            let log = fs::read(&self.node.layout.log).unwrap_or_default();
            let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = log[..whole].split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
            records = lines.map(|line| tidegate::record::line::parse(line).unwrap()).collect();
            records.len() >= count
        });
        records
    }
}

/// A connection read line by line.
struct Wire {
    stream: TcpStream,
    behind: Vec<u8>,
}

impl Wire {
    fn new(stream: TcpStream) -> Wire {
        Wire { stream, behind: Vec::new() }
    }

    /// A head up to its empty line; nothing at the end of the connection.
    fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = self.behind.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        Some(String::from_utf8(self.behind.drain(..end).collect()).unwrap())
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.behind.len() < count {
            self.more()?;
        }
        Some(self.behind.drain(..count).collect())
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = [0; 4096];
        let count = self.stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        self.behind.extend_from_slice(&piece[..count]);
        Some(())
    }

    fn say(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    fn answer(&mut self, status: &str, fields: &str, body: &str) -> Option<()> {
        let length = body.len();
        self.say(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}").as_bytes())
    }

    /// Bytes both ways to the end of both.
    fn join(mut self, other: TcpStream) {
        let (mut up, mut down) = (other.try_clone().unwrap(), self.stream.try_clone().unwrap());
        let _ = up.write_all(&std::mem::take(&mut self.behind));
        let mut from = other;
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut down);
            let _ = down.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut self.stream, &mut up);
        let _ = up.shutdown(Shutdown::Write);
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// A server that can be stopped: its listener and all its connections close.
struct Server {
    address: SocketAddr,
    listener: TcpListener,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    fn start(address: SocketAddr, serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Server {
        let listener = sockets::listen(address, 128, false).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepting, streams) = (listener.try_clone().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (serve, kept) = (Arc::new(serve), Arc::clone(&streams));
        thread::spawn(move || {
            let mut number = 0;
            while let Ok((stream, _)) = accepting.accept() {
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(number, stream));
                number += 1;
            }
        });
        Server { address, listener, streams }
    }

    fn connections(&self) -> usize {
        self.streams.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = sockets::shutdown(&self.listener, Shutdown::Both);
        for stream in self.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// An origin that does as the path says, and says on which connection.
struct Site {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(usize, String)>>>,
    ended: Arc<Mutex<HashSet<usize>>>,
    server: Server,
}

impl Site {
    fn start() -> Site {
        let (seen, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(HashSet::new())));
        let (sees, ends) = (Arc::clone(&seen), Arc::clone(&ended));
        let server = Server::start("127.0.0.1:0".parse().unwrap(), move |number, stream| {
            // The server's own copy of the stream would keep it open.
            let closing = stream.try_clone().unwrap();
            serve_site(number, stream, &sees);
            let _ = closing.shutdown(Shutdown::Both);
            ends.lock().unwrap().insert(number);
        });
        Site { address: server.address, seen, ended, server }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The connections on which requests for `path` came.
    fn seen(&self, path: &str) -> Vec<usize> {
        let seen = self.seen.lock().unwrap();
        let of_path = seen.iter().filter(|(_, head)| head.split(' ').nth(1) == Some(path));
        of_path.map(|(number, _)| *number).collect()
    }

    fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(_, head)| head.clone()).collect()
    }

    fn is_open(&self, number: usize) -> bool {
        !self.ended.lock().unwrap().contains(&number)
    }

    fn open(&self) -> usize {
        self.server.connections() - self.ended.lock().unwrap().len()
    }
}

fn serve_site(number: usize, stream: TcpStream, seen: &Mutex<Vec<(usize, String)>>) -> Option<()> {
    let peer = stream.peer_addr().unwrap().ip();
    let mut wire = Wire::new(stream);
    let mut user = None;
    for request in 0.. {
        let head = wire.head()?;
        if let Some(length) = field(&head, "content-length") {
            wire.bytes(length.parse().unwrap())?;
        }
        seen.lock().unwrap().push((number, head.clone()));
        let path = head.split(' ').nth(1).unwrap_or_default();
        let first = path.split('/').nth(1).unwrap_or_default();
        let does = match first.split_once('-') {
            Some(("stale", does)) if request > 0 => does,
            Some(("always" | "reply", does)) => does,
            _ => first,
        };
        match does {
            "close" => return None,
            "reset" => {
                let _ = sockets::reset_on_close(&wire.stream);
                return None;
            }
            "byte" => return wire.say(b"H"),
            "head" => return wire.say(b"HTTP/1.1 200 OK\r\nContent-Le"),
            "interim" => return wire.say(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
            "bye" => return wire.answer("200 OK", "Connection: close\r\n", "bye"),
            "surplus" => wire.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n")?,
            "cut" => return wire.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
            "garbage" => wire.say(b"220 smtp ready\r\n\r\n")?,
            "peer" => wire.answer("200 OK", "", &peer.to_string())?,
            "secret" => {
                let said = field(&head, "authorization").and_then(|value| value.split_once(' '));
                match said.map(|(_, token)| token) {
                    Some("hello") => {
                        wire.answer("401 Go on", "WWW-Authenticate: NTLM challenge\r\n", &number.to_string())?
                    }
                    other => {
                        user = other.map(str::to_string).or(user);
                        let offers = "WWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: NTLM\r\n";
                        match &user {
                            Some(user) => wire.answer("200 OK", "", &format!("{user} on {number}"))?,
                            None => wire.answer("401 Who", offers, &number.to_string())?,
                        }
                    }
                }
            }
            _ if head.starts_with("HEAD ") => wire.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")?,
            _ => wire.answer("200 OK", "", &number.to_string())?,
        }
    }
    None
}

/// Says hello before it is asked anything, as a mail server does, in the form of an answer.
fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut wire = Wire::new(stream.unwrap());
            let _ = wire.answer("220 OK", "", "220 hello");
            let _ = wire.head();
        }
    });
    address
}

/// A parent that answers requests itself, with its name and what it was asked, and connects tunnels where it was told.
struct HttpParent {
    address: SocketAddr,
    leads: Arc<Mutex<HashMap<String, SocketAddr>>>,
    server: Server,
}

impl HttpParent {
    fn start(name: &'static str, password: &'static str) -> HttpParent {
        HttpParent::start_at(name, password, "127.0.0.1:0".parse().unwrap())
    }

    /// With a `password` it wants that value of Proxy-Authorization.
    fn start_at(name: &'static str, password: &'static str, address: SocketAddr) -> HttpParent {
        let leads: Arc<Mutex<HashMap<String, SocketAddr>>> = Arc::default();
        let known = Arc::clone(&leads);
        let server = Server::start(address, move |_, stream| {
            serve_parent(name, password, stream, &known);
        });
        HttpParent { address: server.address, leads, server }
    }

    fn leads(&self, target: &str, to: SocketAddr) {
        self.leads.lock().unwrap().insert(target.to_string(), to);
    }

    fn connections(&self) -> usize {
        self.server.connections()
    }
}

fn serve_parent(
    name: &str,
    password: &str,
    stream: TcpStream,
    leads: &Mutex<HashMap<String, SocketAddr>>,
) -> Option<()> {
    let mut wire = Wire::new(stream);
    loop {
        let head = wire.head()?;
        let said = field(&head, "proxy-authorization").unwrap_or_default();
        if said != password {
            wire.answer("407 Who are you", "Proxy-Authenticate: Basic realm=\"hq\"\r\n", "")?;
            continue;
        }
        let Some(target) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
            let shown = if password.is_empty() { head.clone() } else { head.replace(password, "*") };
            wire.answer("200 OK", "", &format!("{name}: {shown}"))?;
            continue;
        };
        let to = leads.lock().unwrap().get(target).copied();
        let Some(to) = to else {
            return wire.answer("404 Unknown", "", "");
        };
        let mut other = TcpStream::connect(to).ok()?;
        // What the far end says first comes in one piece with the answer, if it is quick.
        let mut early = [0; 1024];
        other.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let count = match other.read(&mut early) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            count => count.ok()?,
        };
        other.set_read_timeout(None).unwrap();
        let mut answer = b"HTTP/1.1 200 Connected\r\nX-Parent: hq\r\n\r\n".to_vec();
        answer.extend_from_slice(&early[..count]);
        wire.say(&answer)?;
        wire.join(other);
        return Some(());
    }
}

/// A SOCKS5 server that connects where it was told, and to addresses.
struct SocksParent {
    address: SocketAddr,
    leads: Arc<Mutex<HashMap<String, SocketAddr>>>,
    asked: Arc<Mutex<Vec<String>>>,
    _server: Server,
}

impl SocksParent {
    fn start(login: Option<(&'static str, &'static str)>) -> SocksParent {
        let leads: Arc<Mutex<HashMap<String, SocketAddr>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (known, hears) = (Arc::clone(&leads), Arc::clone(&asked));
        let server = Server::start("127.0.0.1:0".parse().unwrap(), move |_, stream| {
            serve_socks(login, stream, &known, &hears);
        });
        SocksParent { address: server.address, leads, asked, _server: server }
    }

    fn leads(&self, host: &str, to: SocketAddr) {
        self.leads.lock().unwrap().insert(host.to_string(), to);
    }

    /// What was asked for, in order.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve_socks(
    login: Option<(&str, &str)>,
    stream: TcpStream,
    leads: &Mutex<HashMap<String, SocketAddr>>,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut wire = Wire::new(stream);
    let greeting = wire.bytes(2)?;
    let methods = wire.bytes(usize::from(greeting[1]))?;
    let wanted = if login.is_some() { 2 } else { 0 };
    if greeting[0] != 5 || !methods.contains(&wanted) {
        return wire.say(&[5, 255]);
    }
    wire.say(&[5, wanted])?;
    if let Some((user, password)) = login {
        let length = wire.bytes(2)?[1];
        let said_user = wire.bytes(usize::from(length))?;
        let length = wire.bytes(1)?[0];
        let said_password = wire.bytes(usize::from(length))?;
        let good = said_user == user.as_bytes() && said_password == password.as_bytes();
        wire.say(&[1, u8::from(!good)])?;
        if !good {
            return None;
        }
    }
    let kind = wire.bytes(4)?[3];
    let (what, host) = match kind {
        1 => ("address", IpAddr::from(<[u8; 4]>::try_from(wire.bytes(4)?).unwrap()).to_string()),
        4 => ("address", IpAddr::from(<[u8; 16]>::try_from(wire.bytes(16)?).unwrap()).to_string()),
        _ => {
            let length = wire.bytes(1)?[0];
            ("name", String::from_utf8(wire.bytes(usize::from(length))?).unwrap())
        }
    };
    let port = u16::from_be_bytes(wire.bytes(2)?.try_into().unwrap());
    asked.lock().unwrap().push(format!("{what} {host}:{port}"));
    let to = leads.lock().unwrap().get(&host).copied();
    let to = to.or_else(|| host.parse().ok().map(|ip| SocketAddr::new(ip, port)));
    let Some(other) = to.and_then(|to| TcpStream::connect(to).ok()) else {
        return wire.say(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]);
    };
    wire.say(&[5, 0, 0, 3, 2, b'o', b'k', 0, 80])?;
    wire.join(other);
    Some(())
}
