//! A policy that reaches the slaves in waves, with real nodes: refused, worse than the rest, interrupted, called back, sent on.

mod harness;

use harness::Cluster;
use harness::Node;
use harness::client::Client;
use harness::tidegate;
use harness::wait_until;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tidegate::admin::Action;
use tidegate::admin::ApplyHow;
use tidegate::admin::Outcome;
use tidegate::admin::RefusedKind;
use tidegate::admin::Rollout;
use tidegate::admin::RolloutEnd;
use tidegate::admin::Waves;

/// Applies `document` in waves of one slave and all; answers the new snapshot's name.
fn roll_out(cluster: &Cluster, document: String, window_s: u64) -> String {
    roll_out_to(cluster, "1,all", document, window_s)
}

fn roll_out_to(cluster: &Cluster, sizes: &str, document: String, window_s: u64) -> String {
    let waves = Some(Waves { sizes: sizes.into(), window_s });
    let how = ApplyHow { force: false, waves };
    match cluster.master.ask(Action::PolicyApply { document, comment: "in waves".into(), base: None, how }) {
        Ok(Outcome::Applied { snapshot, changed: true, .. }) => snapshot,
        other => panic!("{other:?}"),
    }
}

fn rollout(cluster: &Cluster) -> Rollout {
    match cluster.master.ask(Action::PolicyRollout) {
        Ok(Outcome::Rollout { rollout: Some(rollout) }) => *rollout,
        other => panic!("{other:?}"),
    }
}

fn snapshot(node: &Node) -> String {
    node.status().map(|status| status.snapshot).unwrap_or_default()
}

fn wait_for_end(cluster: &Cluster, end: RolloutEnd) -> Rollout {
    wait_until("the rollout's end", || rollout(cluster).end.is_some());
    let ended = rollout(cluster);
    assert_eq!(ended.end, Some(end), "{:#?}", ended.notes);
    ended
}

fn has_noted(cluster: &Cluster, words: &str) -> bool {
    rollout(cluster).notes.iter().any(|note| note.contains(words))
}

/// Until it was called back, all nodes have `before` again, and the history says which version that was; answers why.
fn wait_until_called_back(cluster: &Cluster, before: &str) -> String {
    let ended = wait_for_end(cluster, RolloutEnd::Reverted);
    for node in cluster.slaves.iter().chain([&cluster.master]) {
        wait_until(&format!("{} is back at {before}", node.layout.name), || snapshot(node) == before);
    }
    let Ok(Outcome::History { versions }) = cluster.master.ask(Action::PolicyLog { limit: 99 }) else { panic!() };
    for row in versions.iter().filter(|row| row.version == ended.version) {
        assert!(row.reverted && !row.current, "{row:?}");
    }
    ended.notes.last().cloned().unwrap_or_default()
}

/// What `tidegate policy rollout` says.
fn told(cluster: &Cluster) -> String {
    let control = cluster.master.layout.control.display().to_string();
    tidegate(&["policy", "rollout", "--control", &control]).1
}

fn with_news_blocked(cluster: &Cluster) -> String {
    let document = cluster.policy("\n[[request_types]]\nname = \"news\"\npath_prefixes = [\"/bytes\"]\n");
    document.replace("request_types = [\"social\"]", "request_types = [\"social\", \"news\"]")
}

/// Does `work` while a client of each slave asks a hundred times a second.
fn under_traffic(cluster: &Cluster, work: impl FnOnce()) {
    let url = cluster.url("/bytes/10");
    under_traffic_of(cluster, &|client: &mut Client| client.get(&url).is_ok_and(|answer| answer.keeps), work);
}

/// The same with an exchange of the test's own, which answers whether its connection may be used again.
fn under_traffic_of(cluster: &Cluster, exchange: &(dyn Fn(&mut Client) -> bool + Sync), work: impl FnOnce()) {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        for slave in &cluster.slaves {
            scope.spawn(move || {
                let connect = || Client::connect_within(slave.layout.proxy, Duration::from_secs(5)).ok();
                let mut client = None;
                while !stop.load(Ordering::Relaxed) {
                    // A slave that was stopped does not answer, and that is no fault of the test's.
                    client = client.or_else(connect).and_then(|mut client| exchange(&mut client).then_some(client));
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
        // Also when the work fails: a scope waits for its threads.
        let _stops = AtTheEnd(stop);
        work();
    });
}

/// Says so when it goes.
struct AtTheEnd<'s>(&'s AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The slaves' names are in the order of waves: slave-1 is the first.
fn commented(cluster: &Cluster) -> String {
    cluster.policy("\n# another version\n")
}

#[test]
fn a_slave_that_refuses_the_version_reverts_the_wave_and_the_others_never_had_it() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.master);
    let state = cluster.slaves[0].layout.dir.join("state");
    let (held, aside) = (state.join("snapshots"), state.join("snapshots.aside"));
    fs::rename(&held, &aside).unwrap();
    fs::write(&held, "no folder").unwrap();
    let new = roll_out(&cluster, commented(&cluster), 10);
    let ended = wait_for_end(&cluster, RolloutEnd::Reverted);
    assert!(ended.notes.iter().any(|note| note.contains("slave-1 refused it")), "{:#?}", ended.notes);
    for node in [&cluster.master, &cluster.slaves[0], &cluster.slaves[1]] {
        wait_until(&format!("{} is back at {before}", node.layout.name), || snapshot(node) == before);
    }
    assert!(!cluster.slaves[1].journal().contains(&format!("policy {new} of the master is in force")));
    let Ok(Outcome::History { versions }) = cluster.master.ask(Action::PolicyLog { limit: 9 }) else { panic!() };
    let seen: Vec<_> = versions.iter().map(|row| (row.version, row.current, row.reverted)).collect();
    assert_eq!(seen, [(2, false, true), (1, true, false)]);
    // A reverted version is not in force after the master's restart either, and the next one has a number of its own.
    cluster.master.kill();
    cluster.master.start();
    assert_eq!(snapshot(&cluster.master), before);
    fs::remove_file(&held).unwrap();
    fs::rename(&aside, &held).unwrap();
    assert!(cluster.apply(&commented(&cluster)).starts_with("3-"));
    cluster.wait_for_policy();
}

#[test]
fn a_wave_that_blocks_more_than_the_rest_is_called_back_by_itself() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.master);
    under_traffic(&cluster, || {
        let new = roll_out(&cluster, with_news_blocked(&cluster), 12);
        wait_until("slave-1 enforces the new version", || snapshot(&cluster.slaves[0]) == new);
        assert_eq!(snapshot(&cluster.slaves[1]), before);
        wait_until("the rollout's end", || rollout(&cluster).end.is_some());
    });
    let ended = wait_for_end(&cluster, RolloutEnd::Reverted);
    assert!(ended.notes.iter().any(|note| note.contains("blocked: ")), "{:#?}", ended.notes);
    for slave in &cluster.slaves {
        wait_until("the version before is in force again", || snapshot(slave) == before);
    }
    let answer = Client::connect(cluster.slaves[0].layout.proxy).unwrap().get(&cluster.url("/bytes/10")).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn waves_go_on_while_they_are_no_worse_and_one_whose_clients_reach_no_origin_is_called_back() {
    let cluster = Cluster::start(4);
    let control = cluster.master.layout.control.display().to_string();
    let roll_out = |document: String| {
        let file = cluster.dir().join("next.toml");
        fs::write(&file, document).unwrap();
        let waves = ["--waves", "1,50%,all", "--window", "10", "-m", "in waves", "--control", &control];
        let (code, text, errors) = tidegate(&[&["policy", "apply", file.to_str().unwrap()], &waves[..]].concat());
        assert!(code == 0 && text.contains("on its way in waves"), "{text}{errors}");
    };
    let names = || cluster.slaves.iter().map(snapshot).collect::<Vec<_>>();
    let before = names();
    under_traffic(&cluster, || {
        roll_out(commented(&cluster));
        let mut seen = Vec::new();
        wait_until("the rollout's end", || {
            let news = names().iter().zip(&before).filter(|(now, before)| now != before).count();
            if seen.last() != Some(&news) {
                seen.push(news);
            }
            rollout(&cluster).end.is_some()
        });
        wait_for_end(&cluster, RolloutEnd::Done);
        assert!(seen.is_sorted() && seen.contains(&1) && seen.contains(&2), "slaves with the new version: {seen:?}");
        cluster.wait_for_policy();

        // A parent that nobody is at: each client of the first wave gets an error, and nobody else does.
        let nowhere = "\n[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"http\", address = \"127.0.0.1:1\" }]\n[[routes]]\nvia = \"HQ\"\n";
        let good = names();
        roll_out(cluster.policy(nowhere));
        let mut most = 0;
        wait_until("the rollout's end", || {
            most = most.max(names().iter().zip(&good).filter(|(now, good)| now != good).count());
            rollout(&cluster).end.is_some()
        });
        let ended = wait_for_end(&cluster, RolloutEnd::Reverted);
        assert_eq!(most, 1, "the wave was called back before the next had it");
        let why = ["answered with 5xx: ", "without a connection to an origin or parent: "];
        assert!(why.iter().all(|why| ended.notes.iter().any(|note| note.contains(why))), "{:#?}", ended.notes);
        wait_until("the version before is in force again", || names() == good);
    });
}

#[test]
fn a_master_killed_in_the_middle_of_a_wave_goes_on_with_it() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.master);
    let new = roll_out(&cluster, commented(&cluster), 10);
    wait_until("slave-1 has it", || snapshot(&cluster.slaves[0]) == new);
    cluster.master.kill();
    cluster.master.start();
    assert_eq!(snapshot(&cluster.master), new);
    wait_until("the master says that it goes on", || {
        rollout(&cluster).notes.iter().any(|note| note.contains("the master was restarted"))
    });
    assert_eq!(rollout(&cluster).end, None);
    assert_eq!(snapshot(&cluster.slaves[1]), before, "a slave outside the wave got the version");
    let ended = wait_for_end(&cluster, RolloutEnd::Done);
    assert!(ended.notes.iter().any(|note| note.contains("too little traffic")), "{:#?}", ended.notes);
    cluster.wait_for_policy();
}

#[test]
fn while_a_rollout_runs_no_other_begins_and_it_can_be_called_back_or_sent_on_at_once() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.master);
    let control = cluster.master.layout.control.display().to_string();
    let order = |words: &[&str]| {
        let arguments = [&["--control", &control, "policy", "rollout"], words].concat();
        tidegate(&arguments)
    };
    let first = roll_out(&cluster, commented(&cluster), 600);
    wait_until("slave-1 has it", || snapshot(&cluster.slaves[0]) == first);
    let how = ApplyHow::default();
    let other = Action::PolicyApply { document: cluster.policy("# x\n"), comment: String::new(), base: None, how };
    assert_eq!(cluster.master.ask(other).unwrap_err().kind, RefusedKind::Conflict);
    let (code, text, _) = order(&["abort", "-m", "phones ring"]);
    assert!(code == 1 && text.contains("phones ring") && text.contains("reverted"), "{text}");
    wait_until("slave-1 is back", || snapshot(&cluster.slaves[0]) == before);

    let second = roll_out(&cluster, commented(&cluster), 600);
    assert!(second.starts_with("3-"), "{second}");
    wait_until("slave-1 has it", || snapshot(&cluster.slaves[0]) == second);
    assert_eq!(snapshot(&cluster.slaves[1]), before);
    let (code, text, _) = order(&["skip", "-m", "the exploit is out"]);
    assert!(code == 0 && text.contains("unwatched") && text.contains("the exploit is out"), "{text}");
    cluster.wait_for_policy();
    let (code, text, _) = order(&["--follow"]);
    assert!(code == 0 && text.contains("wave 1 of 2: slave-1"), "{text}");
    let log = fs::read_to_string(cluster.master.layout.log.with_file_name("config.log")).unwrap();
    let who = log.lines().find(|line| line.contains("\t\"policy-apply\"\t")).and_then(|line| line.split('\t').nth(2));
    let who = who.expect("the apply in config.log");
    assert!(who.len() > 2 && who != "\"the cluster\"", "{who}");
    for (action, why) in [("policy-rollout-abort", "phones ring"), ("policy-rollout-skip", "the exploit is out")] {
        let line = format!("\t{who}\t\"{action}\"\t\"{why}\"\t\"done\"");
        assert!(log.contains(&line), "{line} in:\n{log}");
    }
    assert!(rollout(&cluster).notes.iter().any(|note| note.contains(who.trim_matches('"'))), "{who}");
}

/// A parent proxy that says `answer` to whatever it is asked; a tunnel's connection is reset on the first byte that comes through it.
fn parent_that_says(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Until the test's process ends.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut head = BufReader::new(&stream).lines();
                while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let _ = (&stream).write_all(answer.as_bytes());
                if answer.starts_with("HTTP/1.1 200") {
                    // Closing with unread bytes resets.
                    let _ = (&stream).read(&mut [0]);
                }
            });
        }
    });
    address
}

fn by_parent(cluster: &Cluster, address: SocketAddr) -> String {
    cluster.policy(&format!(
        "\n[[parents]]\nname = \"HQ\"\nproxies = [{{ type = \"http\", address = \"{address}\" }}]\n[[routes]]\nvia = \"HQ\"\n"
    ))
}

#[test]
fn a_wave_whose_answers_turn_into_5xx_or_whose_tunnels_die_at_once_is_called_back_and_it_is_said_which() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.master);
    let failing =
        parent_that_says("HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    under_traffic(&cluster, || {
        roll_out(&cluster, by_parent(&cluster, failing), 10);
        let why = wait_until_called_back(&cluster, &before);
        assert!(why.contains("answered with 5xx: ") && !why.contains("without a connection"), "{why}");
        assert!(told(&cluster).contains(&why), "{}", told(&cluster));
    });
    let deaf = parent_that_says("HTTP/1.1 200 Connection established\r\n\r\n");
    let target = cluster.origin.address.to_string();
    let through_a_tunnel = |client: &mut Client| {
        let asked = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        let opened = client.send(asked.as_bytes()).and_then(|()| client.receive(true));
        if opened.is_ok_and(|answer| answer.status == 200) {
            let _ = client.get("/bytes/10");
        }
        false
    };
    under_traffic_of(&cluster, &through_a_tunnel, || {
        roll_out(&cluster, by_parent(&cluster, deaf), 10);
        let why = wait_until_called_back(&cluster, &before);
        assert!(why.contains("failed by the other side: ") && !why.contains("5xx"), "{why}");
    });
}

/// Types of requests whose expressions multiply each other's states, so that each costs every request a pass of its own.
fn with_costly_expressions(cluster: &Cluster) -> String {
    let types: Vec<String> = (0..COSTLY_TYPES)
        .map(|number| {
            let (one, other) = (char::from(b'a' + (number % 20) as u8), char::from(b'b' + (number / 20) as u8));
            format!("\n[[request_types]]\nname = \"costly {number}\"\npath_regex = ['{one}.{{7}}{other}.{{2}}#']\n")
        })
        .collect();
    cluster.policy(&types.concat())
}

const COSTLY_TYPES: usize = 100;

#[test]
fn a_wave_that_needs_much_more_cpu_for_its_exchanges_than_the_rest_is_called_back() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.master);
    let url = format!("{}?{}", cluster.url("/bytes/10"), "abcdefghijklmnopqrst".repeat(200));
    let exchange = |client: &mut Client| client.get(&url).is_ok_and(|answer| answer.keeps && answer.status == 200);
    under_traffic_of(&cluster, &exchange, || {
        roll_out(&cluster, with_costly_expressions(&cluster), 10);
        let why = wait_until_called_back(&cluster, &before);
        assert!(why.contains(": CPU time: "), "the CPU alone is worse: {why}");
    });
}

fn signal(node: &Node, name: &str) {
    assert!(Command::new("kill").args([name, &node.pid().to_string()]).status().unwrap().success());
}

#[test]
fn a_slave_of_the_wave_that_stops_or_starts_again_while_it_is_watched_calls_the_version_back() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.master);
    let (first, second) = (&cluster.slaves[0], &cluster.slaves[1]);
    // Stopped just as long as the window: it is up by its SYNCTIME all the time.
    roll_out(&cluster, commented(&cluster), 10);
    wait_until("slave-1 is watched", || has_noted(&cluster, "wave 1: reported by all its slaves; watched"));
    signal(first, "-STOP");
    let ended = wait_for_end(&cluster, RolloutEnd::Reverted);
    assert!(ended.notes.iter().any(|note| note.contains("slave-1 fell silent")), "{:#?}", ended.notes);
    assert_eq!(snapshot(second), before, "a slave outside the wave got the version");
    signal(first, "-CONT");
    wait_until_called_back(&cluster, &before);

    roll_out(&cluster, commented(&cluster), 60);
    wait_until("slave-1 is watched", || has_noted(&cluster, "wave 1: reported by all its slaves; watched"));
    first.kill();
    first.start();
    let why = wait_until_called_back(&cluster, &before);
    assert!(why.contains("the process of slave-1 ended and was started again"), "{why}");
}

#[test]
fn a_refusal_in_the_second_wave_calls_the_first_back_too() {
    let cluster = Cluster::start(3);
    let before = snapshot(&cluster.master);
    let held = cluster.slaves[1].layout.dir.join("state/snapshots");
    fs::rename(&held, held.with_file_name("snapshots.aside")).unwrap();
    fs::write(&held, "no folder").unwrap();
    let new = roll_out_to(&cluster, "1,2,all", commented(&cluster), 10);
    wait_until("slave-1 enforces the new version", || snapshot(&cluster.slaves[0]) == new);
    let why = wait_until_called_back(&cluster, &before);
    assert!(why.contains("slave-2 refused it: "), "{why}");
    assert!(has_noted(&cluster, "wave 2 of 3: slave-1, slave-2"), "{:#?}", rollout(&cluster).notes);
    let last = cluster.slaves[2].journal();
    assert!(!last.contains(&new), "slave-3 had the version: {last}");
    let config_log = fs::read_to_string(cluster.master.layout.log.with_file_name("config.log")).unwrap();
    assert!(config_log.contains(&why), "{config_log}");
}

#[test]
fn a_master_killed_at_every_turn_of_a_rollout_goes_on_from_where_it_stood() {
    let cluster = Cluster::start(3);
    let names = || cluster.slaves.iter().map(snapshot).collect::<Vec<_>>();
    let before = names();
    let new = roll_out_to(&cluster, "1,2,all", commented(&cluster), 10);
    let turns =
        ["wave 1 of 3: slave-1", "wave 1: reported by all", "wave 2 of 3: slave-1, slave-2", "wave 2: reported by all"];
    for (turn, wave) in turns.iter().zip([1, 1, 2, 2]) {
        wait_until(turn, || has_noted(&cluster, turn));
        cluster.master.kill();
        cluster.master.start();
        let now = rollout(&cluster);
        assert_eq!((now.wave, now.end), (wave, None), "{turn}: {:#?}", now.notes);
        for (slave, before) in cluster.slaves.iter().zip(&before).skip(wave) {
            assert_eq!(&snapshot(slave), before, "{turn}: {} is outside the wave", slave.layout.name);
        }
    }
    let ended = wait_for_end(&cluster, RolloutEnd::Done);
    let restarts = ended.notes.iter().filter(|note| note.contains("the master was restarted")).count();
    assert!(restarts >= 2, "{:#?}", ended.notes);
    wait_until("all slaves have it", || names().iter().all(|name| *name == new));
}

#[test]
fn a_master_killed_while_a_bad_wave_is_watched_calls_it_back_all_the_same() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.master);
    under_traffic(&cluster, || {
        roll_out(&cluster, with_news_blocked(&cluster), 10);
        wait_until("slave-1 is watched", || has_noted(&cluster, "wave 1: reported by all its slaves; watched"));
        cluster.master.kill();
        cluster.master.start();
        let why = wait_until_called_back(&cluster, &before);
        assert!(why.contains("blocked: ") && has_noted(&cluster, "the master was restarted"), "{why}");
    });
    // A rollout that has ended is not taken up again.
    cluster.master.kill();
    cluster.master.start();
    assert_eq!(rollout(&cluster).end, Some(RolloutEnd::Reverted));
    assert_eq!(snapshot(&cluster.master), before);
}

#[test]
fn an_order_that_cannot_be_kept_is_refused_and_told_nowhere_and_holds_when_given_again() {
    let cluster = Cluster::start(2);
    let before = snapshot(&cluster.slaves[1]);
    let new = roll_out(&cluster, commented(&cluster), 300);
    wait_until("the wave to be watched", || has_noted(&cluster, "watched for"));
    // As on a disk that takes nothing: whoever writes waits, and then gives up.
    let policies = rusqlite::Connection::open(cluster.master.layout.dir.join("state/policy.db")).unwrap();
    policies.execute_batch("BEGIN IMMEDIATE").unwrap();
    for order in [
        Action::PolicyRolloutAbort { comment: "kept nowhere".into() },
        Action::PolicyRolloutSkip { comment: "kept nowhere".into() },
    ] {
        let refused = cluster.master.ask(order).unwrap_err();
        assert_eq!(refused.kind, RefusedKind::Failed);
        assert!(refused.words.contains("Nothing was changed, the rollout goes on as before"), "{}", refused.words);
    }
    assert!(!told(&cluster).contains("kept nowhere"), "{}", told(&cluster));
    assert_eq!((rollout(&cluster).end, snapshot(&cluster.slaves[1])), (None, before.clone()));
    policies.execute_batch("ROLLBACK").unwrap();
    cluster.master.ask(Action::PolicyRolloutAbort { comment: "kept".into() }).unwrap();
    assert_eq!(rollout(&cluster).end, Some(RolloutEnd::Reverted));
    assert_eq!(told(&cluster).matches("aborted by").count(), 1, "{}", told(&cluster));
    wait_until("the first slave to be back", || snapshot(&cluster.slaves[0]) == before);
    assert_ne!(new, before);
}
