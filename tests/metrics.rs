//! Figures: what /metrics says, to whom, and in which form.

mod harness;

use harness::Cluster;
use harness::client::Client;
use harness::watched::Watched;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::figures;

/// What curl got: status, media type, body.
fn fetch(watched: &Watched, scheme: &str, method: &str) -> (u16, String, String) {
    let url = format!("{scheme}://{}/metrics", watched.node.layout.portal);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "20", "--request", method])
        .args(["--write-out", "\n%{http_code} %{content_type}", &url])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, last) = text.rsplit_once('\n').unwrap();
    let (status, kind) = last.split_once(' ').unwrap();
    (status.parse().unwrap(), kind.to_string(), body.to_string())
}

/// Reads Prometheus's text format 0.0.4 strictly: each family announced once, before its samples, which stand together and
/// are no two alike; each line ends; numbers are numbers. Answers the samples by name and labels.
fn read(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let name_is_good = |name: &str| {
        let mut letters = name.bytes();
        letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_')
    };
    let (mut samples, mut announced) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut typed) = (String::new(), false);
    for line in text.strip_suffix('\n').ok_or("the last line does not end")?.split('\n') {
        let complain = |words: &str| format!("{words}: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| complain("no help"))?;
            if !announced.insert(name.to_string()) || help.is_empty() || !name_is_good(name) {
                return Err(complain("announced twice, without words or by a bad name"));
            }
            (family, typed) = (name.to_string(), false);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| complain("no type"))?;
            let fits = name == family && !typed && (kind == "gauge" || (kind == "counter" && name.ends_with("_total")));
            if !fits {
                return Err(complain("a type that does not fit"));
            }
            typed = true;
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or_else(|| complain("no value"))?;
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').ok_or_else(|| complain("labels do not end"))?;
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').ok_or_else(|| complain("a bad label"))?;
                let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                if !name_is_good(name) || inside.is_none_or(|inside| inside.contains(['"', '\\'])) {
                    return Err(complain("a bad label"));
                }
            }
            let value: f64 = value.parse().map_err(|_| complain("no number"))?;
            if name != family || !typed || samples.insert(series.to_string(), value).is_some() {
                return Err(complain("a sample out of its family, or one that is there already"));
            }
        }
    }
    Ok(samples)
}

/// What Prometheus's own checker says, where it is installed.
fn promtool_agrees(text: &str) {
    let Ok(mut child) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn the_strict_reader_refuses_what_prometheus_would() {
    let good = "# HELP a_total Help.\n# TYPE a_total counter\na_total{b=\"c\"} 1\na_total{b=\"d\"} 2.5\n";
    assert_eq!(read(good).unwrap().len(), 2);
    for (from, to) in [("{b=\"d\"}", "{b=\"c\"}"), ("2.5\n", "2.5"), ("2.5", "x"), ("a_total counter", "b counter")] {
        assert!(read(&good.replace(from, to)).is_err(), "{to}");
    }
    assert!(read(&good.replace("# TYPE a_total counter\n", "")).is_err());
}

#[test]
fn every_figure_is_served_and_counts_what_clients_did() {
    let watched = Watched::start();
    let samples = || {
        let (status, kind, text) = fetch(&watched, "http", "GET");
        assert_eq!((status, kind.as_str()), (200, figures::CONTENT_TYPE));
        promtool_agrees(&text);
        read(&text).unwrap_or_else(|words| panic!("{words}\n{text}"))
    };
    let before = samples();
    // And which build it is, whether it enforces what it should, and three figures of where its records are.
    assert_eq!(before.len(), figures::TABLE.len() + 5);
    // One that policy refuses, two that go through over one connection to the origin, and one whose origin is not there.
    let mut client = watched.client();
    assert_eq!(client.get(&watched.url("/social")).unwrap().status, 403);
    assert_eq!(client.get(&watched.url("/news")).unwrap().status, 200);
    assert_eq!(client.get(&watched.url("/")).unwrap().status, 200);
    let nobody = harness::watched::free();
    assert!(client.get(&format!("http://{nobody}/")).unwrap().status >= 500);
    let after = samples();
    let grown = |name: &str| after[name] - before[name];
    for (name, by) in [
        ("tidegate_connections_total", 1.0),
        ("tidegate_exchanges_total", 4.0),
        ("tidegate_denials_total{section=\"access_profiles\"}", 1.0),
        ("tidegate_failures_total{blame=\"server\"}", 1.0),
        ("tidegate_connect_failures_total", 1.0),
        ("tidegate_answers_5xx_total", 1.0),
        ("tidegate_upstream_connects_total", 2.0),
    ] {
        assert_eq!(grown(name), by, "{name}");
    }
    for name in ["tidegate_transferred_bytes_total{direction=\"down\"}", "process_cpu_seconds_total"] {
        assert!(grown(name) > 0.0, "{name}");
    }
    for name in [
        "tidegate_record_slots",
        "tidegate_cores",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
        "tidegate_host_memory_available_bytes",
        "tidegate_policy_version",
    ] {
        harness::wait_until(name, || samples()[name] > 0.0);
    }
    harness::wait_until("the records are in the store", || {
        let now = samples();
        now["tidegate_records_written"] >= 4.0 && now["tidegate_records_acknowledged"] >= 4.0
    });
    assert!(client.get(&watched.url("/news")).is_ok());
}

#[test]
fn a_connection_to_an_origin_is_counted_as_new_or_as_used_again() {
    let watched = Watched::start();
    let samples = || read(&fetch(&watched, "https", "GET").2).unwrap();
    let before = samples();
    for path in ["/news", "/", "/news"] {
        // Each on a client connection of its own, so that the origin's is taken from the pool of its core, if it is there.
        assert_eq!(watched.client().get(&watched.url(path)).unwrap().status, 200);
    }
    let after = samples();
    let grown = |name: &str| after[name] - before[name];
    assert_eq!(grown("tidegate_upstream_connects_total") + grown("tidegate_upstream_reused_total"), 3.0);
}

#[test]
fn only_whom_metrics_allow_names_may_read_and_a_change_is_in_force_at_once() {
    let watched = Watched::with(&[("METRICS_ALLOW", "192.0.2.0/24")]);
    for scheme in ["http", "https"] {
        let (status, _, words) = fetch(&watched, scheme, "GET");
        assert_eq!(status, 403);
        assert!(words.contains("METRICS_ALLOW") && !words.contains("tidegate_"), "{words}");
    }
    watched.submit(&[("METRICS_ALLOW", "192.0.2.0/24,127.0.0.0/8")]);
    harness::wait_until("loopback may read", || fetch(&watched, "http", "GET").0 == 200);
    assert_ne!(fetch(&watched, "https", "POST").0, 200);
    // Whoever may use the control socket may always.
    let control = watched.node.layout.control.display().to_string();
    watched.submit(&[("METRICS_ALLOW", "")]);
    harness::wait_until("nobody may read", || fetch(&watched, "http", "GET").0 == 403);
    let (code, text, words) = harness::tidegate(&["metrics", "--control", &control]);
    assert_eq!(code, 0, "{words}");
    assert!(read(&text).unwrap().contains_key("tidegate_exchanges_total"));
}

#[test]
fn every_node_writes_performance_log_and_the_master_knows_the_figures_of_its_slaves() {
    let cluster = Cluster::start(1);
    let slave = &cluster.slaves[0];
    let mut client = Client::connect(slave.layout.proxy).unwrap();
    assert_eq!(client.get(&cluster.url("/news")).unwrap().status, 200);
    assert_eq!(client.get(&cluster.url("/social")).unwrap().status, 403);
    for node in [&cluster.master, slave] {
        let path = node.layout.dir.join("log/performance.log");
        harness::wait_until("lines are written", || fs::read_to_string(&path).unwrap_or_default().lines().count() > 2);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&figures::header()), "{text}");
        let columns = figures::header().split(',').count();
        assert!(text.lines().all(|line| line.split(',').count() == columns), "{text}");
    }
    harness::wait_until("the master has the slave's figures", || {
        let Ok(Outcome::Nodes { nodes }) = cluster.master.ask(Action::Nodes) else { return false };
        nodes.iter().any(|node| {
            let figures = &node.figures;
            node.role == "slave" && figures.exchanges == 2 && figures.denied() == 1 && figures.resident_bytes > 0
        })
    });
}

#[test]
fn the_masters_day_of_a_slave_survives_that_it_is_killed() {
    let cluster = Cluster::start(1);
    let slave = &cluster.slaves[0];
    let day = |node: &str| -> u64 {
        match cluster.master.ask(Action::FiguresOfDay { node: Some(node.to_string()) }) {
            Ok(Outcome::FiguresOfDay { points }) => points.iter().map(|point| point.exchanges).sum(),
            other => panic!("{other:?}"),
        }
    };
    harness::wait_until("the master has seen the slave's exchanges", || {
        let mut client = Client::connect(slave.layout.proxy).unwrap();
        assert_eq!(client.get(&cluster.url("/news")).unwrap().status, 200);
        day(&slave.layout.name) > 0
    });
    let before = day(&slave.layout.name);
    cluster.master.kill();
    cluster.master.start();
    assert!(day(&slave.layout.name) >= before);
    assert_eq!(day("nobody"), 0);
}

#[test]
fn the_page_of_figures_is_current() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let (_, table) = page.split_once("which is always 1.\n\n").unwrap();
    assert!(
        table == figures::reference(),
        "docs/metrics.md is not current: its table is what `tidegate metrics --reference` prints"
    );
}
