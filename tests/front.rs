//! What stands in front of the nodes: health checks, draining, and the balancers that go by them.

mod harness;

use harness::Cluster;
use harness::Node;
use harness::client::Client;
use harness::tidegate;
use harness::wait_until;
use harness::watched::Watched;
use nix::libc;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::admin::RefusedKind;

/// What curl, as a user would call it, got: status, head and body.
struct Fetched {
    status: u16,
    head: String,
    body: String,
}

/// Runs the curl on this machine; `options` come before the URL.
fn curl(options: &[&str], url: &str) -> Fetched {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--include", "--noproxy", "*", "--max-time", "20"])
        .args(options)
        .arg(url)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| {
        panic!("{url}: {text:?} {}", String::from_utf8_lossy(&output.stderr));
    });
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Fetched { status, head: head.to_ascii_lowercase(), body: body.to_string() }
}

fn at(node: &Node, scheme: &str, path: &str) -> String {
    format!("{scheme}://{}{path}", node.layout.portal)
}

fn health(node: &Node) -> Fetched {
    curl(&[], &at(node, "http", "/health"))
}

fn control(node: &Node) -> String {
    node.layout.control.display().to_string()
}

#[test]
fn health_is_answered_over_plain_http_and_https_to_get_and_head_and_nothing_else_is_open() {
    let watched = Watched::start();
    let node = &watched.node;
    for scheme in ["http", "https"] {
        let got = curl(&[], &at(node, scheme, "/health"));
        assert_eq!((got.status, got.body.as_str()), (200, "ok\n"), "{scheme} {}", got.head);
        assert!(got.head.contains("content-type: text/plain") && got.head.contains("cache-control: no-store"));
        let head = curl(&["--head"], &at(node, scheme, "/health"));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{scheme}");
        let json = curl(&["--header", "Accept: application/json"], &at(node, scheme, "/health"));
        assert_eq!(json.body, "{\"healthy\":true,\"node\":\"alone\",\"reasons\":[]}\n");
        let mistyped = curl(&[], &at(node, scheme, "/health?synced_within=5"));
        assert_eq!(mistyped.status, 400, "{}", mistyped.body);
        assert!(mistyped.body.contains("synced_within_s=60"), "{}", mistyped.body);
        // A stand-alone node has no master to lose.
        assert_eq!(curl(&[], &at(node, scheme, "/health?synced_within_s=1")).status, 200);
    }
    for (options, path) in [(&["--request", "POST"][..], "/health"), (&[], "/health/"), (&[], "/nodes"), (&[], "/")] {
        let got = curl(options, &at(node, "http", path));
        assert_eq!(got.status, 308, "{path}: only what is meant to be open is answered without TLS");
    }
    assert_eq!(curl(&["--request", "POST"], &at(node, "https", "/health")).status, 404);
    let as_proxy = curl(&["--proxy", &at(node, "http", ""), "--noproxy", ""], "http://example.test/health");
    assert_eq!(as_proxy.status, 403, "a proxy request for the path is still a proxy request");
}

#[test]
fn a_node_without_policy_and_a_master_say_why_no_client_should_come() {
    let cluster = Cluster::lay_out(1, &[]);
    cluster.master.start();
    cluster.slaves[0].start();
    let (master, slave) = (health(&cluster.master), health(&cluster.slaves[0]));
    assert_eq!((master.status, slave.status), (503, 503));
    assert!(master.body.contains("master of the cluster. It carries no client traffic"), "{}", master.body);
    assert!(slave.body.starts_with("no policy:"), "{}", slave.body);
    cluster.apply(&cluster.policy(""));
    cluster.wait_for_policy();
    assert_eq!(health(&cluster.slaves[0]).body, "ok\n");
    assert_eq!(health(&cluster.master).status, 503, "a master takes no traffic, whatever its policy");

    // In step, then no more: only who asks for it is told.
    let within =
        |seconds: u64| curl(&[], &at(&cluster.slaves[0], "http", &format!("/health?synced_within_s={seconds}")));
    assert_eq!(within(60).body, "ok\n");
    cluster.master.kill();
    wait_until("the slave says that it is not synced", || within(1).status == 503);
    assert!(within(1).body.starts_with("not synced: last in step with its master more than 1 s ago"));
    assert_eq!(within(3_600).body, "ok\n");
    assert_eq!(health(&cluster.slaves[0]).body, "ok\n", "a slave serves on without its master");
}

#[test]
fn a_drained_node_says_so_at_once_serves_on_and_closes_after_answers_once_the_notice_is_over() {
    let watched = Watched::with(&[("DRAIN_NOTICE", "3600")]);
    let node = &watched.node;
    let (mut kept, mut idle) = (watched.client(), watched.client());
    assert!(kept.get(&watched.url("/bytes/10")).unwrap().keeps && idle.get(&watched.url("/bytes/10")).unwrap().keeps);
    let mut tunnel = watched.tunnel(watched.origin.address);

    let (code, said, _) = tidegate(&["drain", "--control", &control(node)]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("from 3600 s on (DRAIN_NOTICE)"), "{said}");
    let drained = health(node);
    assert_eq!((drained.status, drained.body.starts_with("draining:")), (503, true), "{}", drained.body);
    assert!(kept.get(&watched.url("/bytes/10")).unwrap().keeps, "the balancer has not noticed yet: nothing changes");
    let draining = || node.status().unwrap().draining;
    assert!(draining().unwrap().by.contains("on this host"));
    let (_, shown, _) = tidegate(&["status", "--control", &control(node)]);
    assert!(shown.contains("drained by") && shown.contains("tidegate undrain"), "{shown}");

    assert_eq!(tidegate(&["undrain", "--control", &control(node)]).0, 0);
    watched.submit(&[("DRAIN_NOTICE", "1")]);
    assert_eq!(tidegate(&["drain", "--control", &control(node)]).0, 0);
    wait_until("the notice is over", || draining().unwrap().closing);
    let last = kept.get(&watched.url("/bytes/10")).unwrap();
    assert_eq!((last.status, last.keeps), (200, false), "{}", last.head);
    let refused = Client::connect(watched.proxy()).unwrap().get(&watched.url("/social")).unwrap();
    assert_eq!((refused.status, refused.keeps), (403, false), "answers of ours close as well");
    let new = Client::connect(watched.proxy()).unwrap().get(&watched.url("/bytes/10")).unwrap();
    assert_eq!((new.status, new.keeps), (200, false), "who comes all the same is served");
    let late = idle.get(&watched.url("/bytes/10")).unwrap();
    assert_eq!((late.status, late.keeps), (200, false), "an idle connection is not cut under a request");
    let host = watched.origin.address;
    tunnel.send(format!("GET /bytes/10 HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(tunnel.receive(false).unwrap().status, 200, "tunnels go on");

    drop((kept, idle));
    wait_until("only the tunnel is left", || node.status().unwrap().front.connections == 1);
    let (code, _, said) = tidegate(&["drain", "--wait", "1", "--control", &control(node)]);
    assert_eq!(code, 1, "the tunnel is still there");
    assert!(said.contains("1 connections, 1 of them tunnels"), "{said}");
    drop(tunnel);
    let (code, said, _) = tidegate(&["drain", "--wait", "60", "--control", &control(node)]);
    assert_eq!((code, said.trim()), (0, "drained: no client is served any more"));

    // The order outlives the process, and undrain undoes all of it.
    node.kill();
    node.spawn();
    let mut first = None;
    wait_until("the node answers", || {
        first = node.status();
        first.is_some()
    });
    assert!(first.is_some_and(|status| status.draining.is_some()), "drained from its first answer on");
    assert_eq!(health(node).status, 503, "an order to drain survives a restart");
    wait_until("its answers close", || draining().unwrap().closing);
    assert!(!watched.client().get(&watched.url("/bytes/10")).unwrap().keeps);
    assert_eq!(tidegate(&["undrain", "--control", &control(node)]).0, 0);
    assert_eq!(health(node).body, "ok\n");
    assert!(watched.client().get(&watched.url("/bytes/10")).unwrap().keeps);
    node.kill();
    node.start();
    assert_eq!(health(node).body, "ok\n");
    let audit = fs::read_to_string(node.layout.log.with_file_name("config.log")).unwrap();
    assert_eq!((audit.matches("\"drain\"").count(), audit.matches("\"undrain\"").count()), (4, 2), "{audit}");
}

#[test]
fn undrain_within_the_notice_leaves_no_trace_and_a_second_order_has_its_own_notice() {
    let watched = Watched::with(&[("DRAIN_NOTICE", "3600")]);
    let order = |action: Action| match watched.node.ask(action) {
        Ok(Outcome::Done { words }) => words,
        other => panic!("{other:?}"),
    };
    let drain = || Action::Drain { node: None };
    assert!(order(drain()).starts_with("draining:"));
    assert!(order(drain()).starts_with("this node is drained already, by"));
    assert!(order(Action::Undrain { node: Some("ALONE".into()) }).starts_with("in service again"));
    assert_eq!(order(Action::Undrain { node: None }), "this node is not drained");
    watched.submit(&[("DRAIN_NOTICE", "0")]);
    order(drain());
    wait_until("no notice", || watched.node.status().unwrap().draining.unwrap().closing);
    order(Action::Undrain { node: None });
    assert!(watched.client().get(&watched.url("/bytes/10")).unwrap().keeps);
}

#[test]
fn an_order_for_another_node_or_for_the_master_is_refused_with_what_to_do() {
    let cluster = Cluster::start(1);
    for (node, named, words) in [
        (&cluster.master, None, "it carries no traffic"),
        (&cluster.master, Some("master"), "it carries no traffic"),
        (&cluster.slaves[0], Some("slave-2"), "this node is slave-1"),
    ] {
        let refused = node.ask(Action::Drain { node: named.map(str::to_string) }).unwrap_err();
        assert_eq!(refused.kind, RefusedKind::WrongRole);
        assert!(refused.words.contains(words), "{}", refused.words);
    }
    assert_eq!(health(&cluster.slaves[0]).body, "ok\n");
}

#[test]
fn a_stop_gives_notice_to_a_balancer_that_watches_and_to_nobody_else() {
    let watched = Watched::with(&[("DRAIN_NOTICE", "6")]);
    let node = &watched.node;
    // Watched: it asks again and again.
    assert_eq!((health(node).body, health(node).body), ("ok\n".to_string(), "ok\n".to_string()));
    thread::scope(|scope| {
        let stopping = scope.spawn(|| node.stop());
        wait_until("/health says that it stops", || health(node).status == 503);
        let mut client = watched.client();
        let answer = client.get(&watched.url("/bytes/10")).unwrap();
        assert_eq!((answer.status, answer.keeps), (200, true), "it serves as before while the balancer notices");
        // Asked on and on, the connection ends with an answer that says so, not under a request.
        let closed = loop {
            let answer = client.get(&watched.url("/bytes/10")).expect("no request of a client at work fails");
            if !answer.keeps {
                break answer;
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(closed.status, 200);
        stopping.join().unwrap();
    });
    assert!(node.journal().contains("6 s (DRAIN_NOTICE) for the balancers that ask /health"), "{}", node.journal());
    node.start();
    assert_eq!(health(node).body, "ok\n", "a stop is no order to stay away");
    let before = node.journal().len();
    node.stop();
    assert!(!node.journal()[before..].contains("DRAIN_NOTICE"), "one look is no balancer");
}

/// What the script answers for each URL, asked of a JavaScript engine as a browser asks.
fn ways(script: &str, urls: &[&str]) -> Vec<String> {
    let asking = "
        const [script, urls] = JSON.parse(require('fs').readFileSync(0, 'utf8'));
        const room = require('vm').createContext({});
        require('vm').runInContext(script, room);
        const host = url => url.split('//')[1].split('/')[0].replace(/:[0-9]+$/, '').replace(/^.*@/, '');
        for (const url of urls) { console.log(room.FindProxyForURL(url, host(url))); }";
    let mut node = Command::new("node")
        .args(["-e", asking])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nodejs is installed by tests/run");
    let input = format!(
        "[{},{}]",
        json(script),
        format_args!("[{}]", urls.iter().map(|url| json(url)).collect::<Vec<_>>().join(","))
    );
    node.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect()
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

#[test]
fn browsers_get_the_script_that_policy_makes_and_it_leads_them_as_the_policy_says() {
    let watched = Watched::start();
    let node = &watched.node;
    let apply = |pac: &str| {
        let document = harness::test_policy(watched.origin.address, pac);
        node.ask(Action::PolicyApply { document, comment: String::new(), base: None, how: Default::default() })
    };
    for path in ["/proxy.pac", "/wpad.dat"] {
        let none = curl(&[], &at(node, "http", path));
        assert_eq!((none.status, none.body.contains("no [pac] section")), (404, true), "{}", none.body);
    }
    apply(
        "\n[pac]\nproxies = [\"gw1.example:8080\", \"[2001:db8::5]:8080\"]\ndirect_hosts = [\"Intranet.Example\", \"10.9.9.9\"]\n\
         direct_networks = [\"10.0.0.0/16\", \"192.0.2.7\", \"fd00::/8\", \"198.51.100.1-198.51.100.9\"]\ndirect_if_down = true\n",
    )
    .unwrap();
    let mut scripts = Vec::new();
    for (scheme, path) in [("http", "/proxy.pac"), ("https", "/proxy.pac"), ("http", "/wpad.dat")] {
        let got = curl(&[], &at(node, scheme, path));
        assert_eq!(got.status, 200, "{}", got.body);
        assert!(got.head.contains("content-type: application/x-ns-proxy-autoconfig\r\n"), "{}", got.head);
        assert!(got.head.contains("cache-control: private, max-age=300\r\n"), "{}", got.head);
        scripts.push(got.body);
    }
    assert!(scripts.iter().all(|script| *script == scripts[0]));
    let head = curl(&["--head"], &at(node, "http", "/wpad.dat"));
    assert_eq!((head.status, head.body.as_str()), (200, ""));

    let (direct, proxy) = ("DIRECT", "PROXY gw1.example:8080; PROXY [2001:db8::5]:8080; DIRECT");
    let table = [
        ("http://example.com/", proxy),
        ("https://www.example.com:8443/a?b=c", proxy),
        ("http://intranet.example/", direct),
        ("https://wiki.INTRANET.example./x", direct),
        ("http://notintranet.example/", proxy),
        ("http://intranet.example.com/", proxy),
        ("http://printer/", direct),
        ("http://localhost:3000/", direct),
        ("http://app.localhost/", direct),
        ("http://127.0.0.53/", direct),
        ("http://[::1]:8080/", direct),
        ("http://10.0.255.255/", direct),
        ("http://10.1.0.0/", proxy),
        ("http://10.9.9.9/", direct),
        ("http://192.0.2.7/", direct),
        ("http://192.0.2.8/", proxy),
        ("http://198.51.100.9/", direct),
        ("http://198.51.100.10/", proxy),
        ("http://[fd12:3456::9]/", direct),
        ("http://[2001:db8::1]/", proxy),
        ("http://[::ffff:10.0.3.4]/", direct),
        ("http://[1:2:3:4:5:6:7:8:9]/", proxy),
        ("http://10.0.0.999/", proxy),
        ("http://constructor.example/", proxy),
        ("http://hasownproperty/", direct),
    ];
    let urls: Vec<&str> = table.iter().map(|(url, _)| *url).collect();
    for ((url, expected), said) in table.iter().zip(ways(&scripts[0], &urls)) {
        assert_eq!(said, *expected, "{url}");
    }

    // Nothing is said that no browser could do: without proxies, a stand-alone node names itself as it was reached.
    apply("\n[pac]\ndirect_plain_names = false\n").unwrap();
    let own = curl(&[], &at(node, "http", "/proxy.pac")).body;
    let expected = format!("PROXY {}", node.layout.proxy);
    assert_eq!(ways(&own, &["http://example.com/", "http://printer/"]), [expected.clone(), expected]);

    let refused =
        apply("\n[pac]\nproxies = [\"gw1\"]\ndirect_networks = [\"10.0.0.1/8\"]\ndirect = true\n").unwrap_err();
    let places: Vec<_> = refused.complaints.iter().map(|complaint| complaint.place.as_str()).collect();
    assert_eq!(places, ["pac.proxies[1]", "pac.direct_networks[1]", "pac.direct"], "{:?}", refused.complaints);
    for bad in ["proxies = []".to_string(), format!("proxies = [{}]", "\"a:1\",".repeat(17))] {
        assert_eq!(apply(&format!("\n[pac]\n{bad}\n")).unwrap_err().complaints.len(), 1, "{bad}");
    }
    let many: String = (0..4_000).map(|number| format!("\"{:060}.{number}.example\",", number)).collect();
    let refused = apply(&format!("\n[pac]\ndirect_hosts = [{many}]\n")).unwrap_err();
    assert!(refused.complaints[0].what.contains("browsers get 262144 at most"), "{:?}", refused.complaints);
}

#[test]
fn without_a_balancer_every_node_names_the_slaves_that_take_clients() {
    let cluster = Cluster::lay_out(2, &[("SYNCTIME", "1")]);
    cluster.master.start();
    cluster.apply(&cluster.policy("\n[pac]\n"));
    let nobody = curl(&[], &at(&cluster.master, "http", "/proxy.pac"));
    assert_eq!((nobody.status, nobody.body.contains("No node is known")), (503, true), "{}", nobody.body);
    cluster.slaves.iter().for_each(Node::start);
    cluster.wait_for_policy();
    let [one, two] = [&cluster.slaves[0], &cluster.slaves[1]].map(|slave| format!("PROXY {}", slave.layout.proxy));
    let nodes = || [&cluster.master, &cluster.slaves[0], &cluster.slaves[1]];
    let said = |node: &Node| ways(&curl(&[], &at(node, "http", "/wpad.dat")).body, &["http://example.com/"]).remove(0);
    let orders = [format!("{one}; {two}"), format!("{two}; {one}")];
    wait_until("every node names both", || nodes().iter().all(|node| orders.contains(&said(node))));
    let said_now = nodes().map(said);
    assert!(said_now.iter().all(|way| *way == said_now[0]), "a client hears the same from all: {said_now:?}");
    cluster.slaves[0].ask(Action::Drain { node: None }).unwrap();
    wait_until("nobody is led to a drained slave", || nodes().iter().all(|node| said(node) == two));
    // A slave remembers while its master is away.
    cluster.master.kill();
    assert_eq!(said(&cluster.slaves[1]), two);
}

#[test]
fn a_data_core_that_does_not_turn_makes_the_node_unfit_and_fit_again_once_it_turns() {
    let watched = Watched::start();
    let node = &watched.node;
    assert_eq!(health(node).body, "ok\n");
    let tasks = fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap().map(|task| task.unwrap().path());
    let core =
        tasks.into_iter().find(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == "core-0").unwrap();
    let core = core.file_name().unwrap().to_str().unwrap().parse().unwrap();
    // Only this one thread stops: the portal's go on and answer.
    trace(libc::PTRACE_SEIZE, core);
    trace(libc::PTRACE_INTERRUPT, core);
    wait_until("the node says that it does not turn", || health(node).status == 503);
    assert!(health(node).body.starts_with("cores: data core 0 does not turn"), "{}", health(node).body);
    trace(libc::PTRACE_DETACH, core);
    wait_until("it turns again", || health(node).body == "ok\n");
}

#[allow(unsafe_code)]
fn trace(request: libc::c_uint, thread: libc::pid_t) {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: none of the three requests reads or writes through its pointers.
    let done = unsafe { libc::ptrace(request, thread, nothing, nothing) };
    assert_eq!(done, 0, "request {request}: {}", std::io::Error::last_os_error());
}
