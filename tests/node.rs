//! One node as an administrator meets it: its startup params, its policy, its restart, its end.

mod harness;

use harness::Node;
use harness::Origin;
use harness::client::Client;
use harness::test_policy;
use harness::tidegate;
use harness::wait_until;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::admin::RefusedKind;
use tidegate::daemon::layout::NodeLayout;
use tidegate::daemon::origin::pattern;
use tidegate::report::Question;

/// A stand-alone node with the test policy applied, and an origin.
struct Alone {
    node: Node,
    origin: Origin,
    dir: TempDir,
}

impl Alone {
    fn start() -> Alone {
        let alone = Alone::lay_out();
        alone.node.start();
        alone.apply(&test_policy(alone.origin.address, ""));
        alone
    }

    fn lay_out() -> Alone {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap();
        let layout = NodeLayout::at(dir.path(), "alone", free(), free());
        layout.write(&dir.path().join("no.key"), &[("ROLE", "standalone".into())], &BTreeMap::new()).unwrap();
        Alone { node: Node::of(&layout), origin: Origin::start(), dir }
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

    fn client(&self) -> Client {
        Client::connect(self.node.layout.proxy).unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.origin.address)
    }

    /// Writes startup.ini anew with one param changed, as an editor would.
    fn change_param(&self, key: &str, value: &str) {
        let config = &self.node.layout.config;
        let text = fs::read_to_string(config).unwrap();
        let others: String =
            text.lines().filter(|line| !line.starts_with(&format!("{key}="))).map(|line| format!("{line}\n")).collect();
        let beside = config.with_extension("new");
        fs::write(&beside, format!("{others}{key}=\"{value}\"\n")).unwrap();
        fs::rename(beside, config).unwrap();
    }
}

fn free() -> SocketAddr {
    tidegate::daemon::layout::free_ports(1).unwrap()[0]
}

#[test]
fn a_node_alone_enforces_records_and_reports_like_a_cluster() {
    let alone = Alone::start();
    let mut client = alone.client();
    assert_eq!(client.get(&alone.url("/bytes/5000")).unwrap().body, pattern(5_000));
    assert_eq!(client.get(&alone.url("/social")).unwrap().status, 403);
    wait_until("both are in the report", || match alone.node.ask(Action::Report(Question::default())) {
        Ok(Outcome::Report(report)) => report.requests == 2 && report.blocked == 1,
        other => panic!("{other:?}"),
    });
    let (code, checks, error) = tidegate(&["verify", "--control", alone.node.layout.control.to_str().unwrap()]);
    assert_eq!(code, 0, "{checks}{error}");
}

#[test]
fn with_nothing_said_every_client_is_denied() {
    let alone = Alone::lay_out();
    alone.node.start();
    let answer = alone.client().get(&alone.url("/")).unwrap();
    assert_eq!(answer.status, 403, "{}", answer.head);
    assert!(alone.client().tunnel(&alone.origin.address.to_string()).unwrap().is_err());
}

#[test]
fn a_startup_ini_with_five_errors_is_told_in_one_breath_and_starts_nothing() {
    let alone = Alone::lay_out();
    let config = &alone.node.layout.config;
    let good = fs::read_to_string(config).unwrap();
    let bad = "ROLE=\"boss\"\nLISTEN_PORT=\"99999\"\nLISTEN_PROT=\"8080\"\nLOG_LEVEL=loud\nKEEP_DATA=\"30\"\nKEEP_DATA=\"31\"\n";
    let keys = ["ROLE", "LISTEN_PORT", "LISTEN_PROT", "LOG_LEVEL", "KEEP_DATA"];
    fs::write(config, bad).unwrap();
    let (code, output, error) = tidegate(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!((code, output.as_str()), (78, ""), "the code that tells systemd not to try again");
    for (line, key) in [1, 2, 3, 4, 6].into_iter().zip(keys) {
        let place = format!("startup.ini:{line}: {key}: ");
        let told =
            error.lines().find(|told| told.contains(&place)).unwrap_or_else(|| panic!("{place:?} is not in\n{error}"));
        assert!(told.contains("read") && told.contains("accepted"), "{told}");
    }
    assert!(error.contains("5 fault"), "{error}");
    assert_eq!(fs::read_dir(alone.node.layout.dir.join("state")).unwrap().count(), 0, "nothing was started");

    // The same file under a running node: the old params stay in force, and the faults are told.
    fs::write(config, good).unwrap();
    alone.node.start();
    fs::write(config, bad).unwrap();
    wait_until("the status tells the faults", || alone.node.status().unwrap().params_trouble.len() == 5);
    assert_eq!(alone.client().get(&alone.url("/")).unwrap().status, 403);
}

#[test]
fn a_changed_startup_ini_is_taken_over_live_or_said_to_wait() {
    let alone = Alone::start();
    alone.change_param("LOG_LEVEL", "debug");
    wait_until("the new LOG_LEVEL is in force", || alone.node.journal().contains("LOG_LEVEL"));
    assert_eq!(alone.node.status().unwrap().waiting_for_restart, Vec::<String>::new());
    let moved = free();
    alone.change_param("LISTEN_PORT", &moved.port().to_string());
    wait_until("the node says that LISTEN_PORT waits", || {
        alone.node.status().unwrap().waiting_for_restart == ["LISTEN_PORT".to_string()]
    });
    assert_eq!(alone.client().get(&alone.url("/")).unwrap().status, 200);

    let before = alone.node.pid();
    let outcome = alone.node.ask(Action::Restart { backup: true });
    let Ok(Outcome::Done { words }) = outcome else { panic!("{outcome:?}") };
    assert!(words.contains("backups"), "{words}");
    wait_until("the node serves on its new port", || {
        Client::connect(moved)
            .and_then(|mut client| client.get(&alone.url("/")))
            .is_ok_and(|answer| answer.status == 200)
    });
    wait_until("the node answers again", || alone.node.status().is_some());
    let status = alone.node.status().unwrap();
    assert_eq!(status.pid, before, "a restart in place keeps the process");
    assert_eq!((status.waiting_for_restart.len(), status.policy_version), (0, 1));
    let backups: Vec<_> = fs::read_dir(alone.node.layout.dir.join("state/backups")).unwrap().collect();
    assert_eq!(backups.len(), 1);
}

#[test]
fn submitted_params_are_written_all_or_none() {
    let alone = Alone::start();
    let submit = |pairs: &[(&str, &str)]| {
        let values = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        alone.node.ask(Action::ParamsSubmit { values, force: false })
    };
    let before = fs::read(&alone.node.layout.config).unwrap();
    let refused = submit(&[("LOG_LEVEL", "debug"), ("LISTEN_PORT", "many")]).unwrap_err();
    assert_eq!(refused.kind, RefusedKind::Invalid);
    assert_eq!(refused.complaints.len(), 1, "{refused:?}");
    assert_eq!(fs::read(&alone.node.layout.config).unwrap(), before);
    let done = submit(&[("LOG_LEVEL", "debug"), ("CORES", "2")]);
    assert_eq!(done, Ok(Outcome::Submitted { live: vec!["LOG_LEVEL".into()], waiting: vec!["CORES".into()] }));
}

#[test]
fn a_policy_with_five_errors_is_told_with_lines_and_the_old_one_stays() {
    let alone = Alone::start();
    let file = alone.dir.path().join("bad.toml");
    let good = test_policy(alone.origin.address, "");
    let bad = good
        .replace("default = \"deny\"", "default = \"perhaps\"")
        .replace("127.0.0.0/8", "127.0.0.0/99")
        .replace("request_types = [\"social\"]", "request_types = [\"sozial\"]")
        .replace("action = \"DENY\"", "action = \"FORBID\"")
        .replace("path_prefixes", "path_prefix");
    fs::write(&file, &bad).unwrap();
    let control = alone.node.layout.control.to_str().unwrap();
    let (code, output, error) = tidegate(&["policy", "apply", file.to_str().unwrap(), "--control", control]);
    assert_eq!(code, 1);
    let told = format!("{output}{error}");
    for wrong in ["perhaps", "127.0.0.0/99", "sozial", "FORBID", "path_prefix"] {
        let line = 1 + bad.lines().position(|line| line.contains(wrong)).unwrap();
        assert!(
            told.lines().any(|told| told.contains(wrong) && told.contains(&line.to_string())),
            "{wrong} of line {line} is not told:\n{told}"
        );
    }
    assert_eq!(alone.client().get(&alone.url("/")).unwrap().status, 200);
    assert_eq!(alone.node.status().unwrap().policy_version, 1);
}

#[test]
fn history_diff_rollback_and_conflict_work_from_the_command_line() {
    let alone = Alone::start();
    let control = alone.node.layout.control.to_str().unwrap();
    let run = |arguments: &[&str]| tidegate(&[arguments, &["--control", control]].concat());
    let file = alone.dir.path().join("policy.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, test_policy(alone.origin.address, "").replace("/social", "/news")).unwrap();
    let (code, diff, _) = run(&["policy", "diff", path]);
    assert!(
        code == 0 && diff.contains("-path_prefixes = [\"/social\"]") && diff.contains("+path_prefixes = [\"/news\"]"),
        "{diff}"
    );
    assert_eq!(run(&["policy", "apply", path, "-m", "news off", "--base", "1"]).0, 0);
    assert_eq!(alone.client().get(&alone.url("/news")).unwrap().status, 403);
    let (code, _, error) = run(&["policy", "apply", path, "--base", "1"]);
    assert!(code == 1 && error.contains("version 2"), "{error}");
    assert_eq!(run(&["policy", "rollback", "1", "-m", "people want news"]).0, 0);
    assert_eq!(alone.client().get(&alone.url("/news")).unwrap().status, 200);
    let (_, log, _) = run(&["policy", "log"]);
    assert!(log.contains("news off") && log.contains("people want news"), "{log}");
    let (_, told, _) = run(&["policy", "explain", "--client", "127.0.0.1", "--url", &alone.url("/social")]);
    assert!(told.contains("DENY") && told.contains("Block social"), "{told}");
    let audit = fs::read_to_string(alone.node.layout.dir.join("log/config.log")).unwrap();
    assert!(audit.contains("\"policy-rollback\""), "{audit}");
}

#[test]
fn what_is_under_way_ends_well_when_the_node_is_told_to_stop() {
    let alone = Alone::start();
    let (url, proxy) = (alone.url("/slow/1500"), alone.node.layout.proxy);
    let slow = thread::spawn(move || Client::connect(proxy).unwrap().get(&url));
    wait_until("the slow exchange is under way", || alone.node.status().unwrap().counters.connections_open > 0);
    thread::sleep(Duration::from_millis(200));
    alone.node.stop();
    let answer = slow.join().unwrap().expect("the answer under way is not cut");
    assert_eq!(answer.status, 200);
    alone.node.start();
    wait_until("its record is in the report", || match alone.node.ask(Action::Report(Question::default())) {
        Ok(Outcome::Report(report)) => report.newest.iter().any(|row| row.url.ends_with("/slow/1500")),
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_second_node_on_the_same_state_is_refused_in_words() {
    let alone = Alone::start();
    let (code, _, error) = tidegate(&["run", "--config", alone.node.layout.config.to_str().unwrap()]);
    assert_eq!(code, 1, "{error}");
    assert_eq!(alone.client().get(&alone.url("/")).unwrap().status, 200, "the first one still serves");
    assert!(alone.node.status().is_some(), "and still answers on its control socket");
}
