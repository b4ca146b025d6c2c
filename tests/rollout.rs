//! A policy that reaches the slaves in waves, with real nodes: refused, worse than the rest, interrupted, called back, sent on.

mod harness;

use harness::Cluster;
use harness::Node;
use harness::client::Client;
use harness::tidegate;
use harness::wait_until;
use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use tidegate::admin::Action;
use tidegate::admin::ApplyHow;
use tidegate::admin::Outcome;
use tidegate::admin::RefusedKind;
use tidegate::admin::Rollout;
use tidegate::admin::RolloutEnd;
use tidegate::admin::Waves;

/// Applies `document` in waves of one slave and all; answers the new snapshot's name.
fn roll_out(cluster: &Cluster, document: String, window_s: u64) -> String {
    let waves = Some(Waves { sizes: "1,all".into(), window_s });
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

fn with_news_blocked(cluster: &Cluster) -> String {
    let document = cluster.policy("\n[[request_types]]\nname = \"news\"\npath_prefixes = [\"/bytes\"]\n");
    document.replace("request_types = [\"social\"]", "request_types = [\"social\", \"news\"]")
}

/// Does `work` while a client of each slave asks a hundred times a second.
fn under_traffic(cluster: &Cluster, work: impl FnOnce()) {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        for slave in &cluster.slaves {
            scope.spawn(move || {
                let mut client = Client::connect(slave.layout.proxy).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get(&cluster.url("/bytes/10"));
                    if !answer.is_ok_and(|answer| answer.keeps) {
                        client = Client::connect(slave.layout.proxy).unwrap();
                    }
                    thread::sleep(std::time::Duration::from_millis(10));
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
        let why = ["answered with 5xx", "without a connection to an origin or parent"];
        assert!(ended.notes.iter().any(|note| why.iter().any(|why| note.contains(why))), "{:#?}", ended.notes);
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
    assert!(log.contains("policy-rollout-skip") && log.contains("policy-rollout-abort"), "{log}");
}
