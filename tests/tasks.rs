//! Tasks: orders from the master to chosen slaves. Each is done once, whatever dies in between, and what came of it is kept.

mod harness;
#[path = "tasks/model.rs"]
mod model;
#[path = "tasks/narrow.rs"]
mod narrow;

use harness::Cluster;
use harness::Node;
use harness::client::Client;
use harness::dice::Dice;
use harness::dice::number_in;
use harness::tidegate;
use harness::wait_until;
use narrow::NarrowLine;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tidegate::admin::Action;
use tidegate::admin::Check;
use tidegate::admin::Order;
use tidegate::admin::Outcome;
use tidegate::admin::RefusedKind;
use tidegate::admin::Task;
use tidegate::admin::TaskAction;
use tidegate::admin::TaskProgress;
use tidegate::limits::TASK_OUTPUT_BYTES_MAX;
use tidegate::report::Question;

/// Kills in the test of kills; each is one of slave or master in the middle of a task.
const KILLS: u64 = 12;

fn order(master: &Node, order: Order, on: &str) -> Task {
    order_for(master, order, on, None)
}

fn order_for(master: &Node, order: Order, on: &str, life_s: Option<u64>) -> Task {
    task_of(master.ask(Action::Task(TaskAction::Order { order, on: on.into(), life_s })))
}

fn task_of(answer: Result<Outcome, tidegate::admin::Refused>) -> Task {
    match answer {
        Ok(Outcome::Task(task)) => *task,
        other => panic!("{other:?}"),
    }
}

fn show(master: &Node, id: &str) -> Task {
    task_of(master.ask(Action::Task(TaskAction::Show { id: id.into() })))
}

/// The task once it has ended on every slave.
fn ended(master: &Node, task: &Task) -> Task {
    wait_until(&format!("{} {} ends", task.id, task.order), || !show(master, &task.id).is_open());
    show(master, &task.id)
}

fn standing(task: &Task) -> Vec<(&str, TaskProgress)> {
    task.nodes.iter().map(|node| (node.node.as_str(), node.progress)).collect()
}

fn is_drained(node: &Node) -> bool {
    node.status().unwrap().draining.is_some()
}

fn config_log(node: &Node) -> String {
    fs::read_to_string(node.layout.dir.join("log/config.log")).unwrap_or_default()
}

/// What `slave-1` brought of a task, in a file.
fn bring(master: &Node, task: &Task, path: PathBuf) -> PathBuf {
    let (control, path_text) = (master.layout.control.display().to_string(), path.display().to_string());
    let (code, said, complaint) =
        tidegate(&["task", "output", &task.id, "slave-1", "-o", &path_text, "--control", &control]);
    assert_eq!(code, 0, "{said}{complaint}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "for whoever asked alone");
    path
}

/// A line over which the slave will reach its master.
fn line_between(slave: &Node, master: &Node) -> NarrowLine {
    let line = NarrowLine::to(master.layout.portal);
    let config = fs::read_to_string(&slave.layout.config).unwrap();
    let port = |port: u16| format!("MASTER_PORT=\"{port}\"");
    let narrowed = config.replace(&port(master.layout.portal.port()), &port(line.address.port()));
    assert_ne!(narrowed, config);
    fs::write(&slave.layout.config, narrowed).unwrap();
    line
}

/// How often a slave began a task, by its journal.
fn times_begun(slave: &Node, task: &Task) -> usize {
    slave.journal().matches(&format!("doing the master's task {}", task.id)).count()
}

#[test]
fn an_order_reaches_the_slaves_it_is_for_and_both_ends_note_who_gave_it() {
    let cluster = Cluster::start(2);
    let (master, slaves) = (&cluster.master, &cluster.slaves);
    let drained = ended(master, &order(master, Order::Drain, "all"));
    assert_eq!(standing(&drained), [("slave-1", TaskProgress::Done), ("slave-2", TaskProgress::Done)]);
    assert!(drained.nodes[0].words.starts_with("draining: /health says 503"), "{drained:?}");
    assert!(slaves.iter().all(is_drained));

    // By label, which the slave says of itself.
    let values = [("NODE_LABELS".to_string(), "edge,rack-1".to_string())].into();
    slaves[1].ask(Action::ParamsSubmit { values, force: false }).unwrap();
    wait_until("the master knows the label", || {
        let asked = master.ask(Action::Nodes).unwrap();
        matches!(asked, Outcome::Nodes { nodes } if nodes.iter().any(|node| node.labels == ["edge", "rack-1"]))
    });
    let undrained = ended(master, &order(master, Order::Undrain, "label:rack-1"));
    assert_eq!(standing(&undrained), [("slave-2", TaskProgress::Done)]);
    assert_eq!((is_drained(&slaves[0]), is_drained(&slaves[1])), (true, false));
    let undrained = ended(master, &order(master, Order::Undrain, "SLAVE-1,slave-2"));
    assert_eq!(undrained.nodes[1].words, "this node is not drained");

    // What fails says why.
    fs::write(&slaves[0].layout.config, fs::read_to_string(&slaves[0].layout.config).unwrap() + "NONSENSE=\"1\"\n")
        .unwrap();
    for order_of in [Order::Reload, Order::Restart] {
        let failed = ended(master, &order(master, order_of, "slave-1"));
        assert_eq!(standing(&failed), [("slave-1", TaskProgress::Failed)]);
        assert!(failed.nodes[0].words.contains("NONSENSE"), "{failed:?}");
    }
    let control = master.layout.control.display().to_string();
    let (code, said, _) = tidegate(&["task", "reload", "--on", "slave-1", "--follow", "--control", &control]);
    assert!(code == 1 && said.contains("reload on slave-1: failed: "), "{code} {said}");
    // What has ended cannot be cancelled.
    let late = master.ask(Action::Task(TaskAction::Cancel { id: drained.id.clone() })).unwrap_err();
    assert!(late.kind == RefusedKind::Conflict && late.words.contains("has ended"), "{late:?}");
    assert_eq!(standing(&show(master, &drained.id)), standing(&drained));
    let by = format!("by task {} of the master", drained.id);
    assert!(config_log(&slaves[0]).contains(&by), "{}", config_log(&slaves[0]));
    let told = config_log(master);
    assert!(told.contains("\"task-order\"\t\"drain on all\""), "{told}");
    assert!(told.contains(&format!("{} drain on slave-2", drained.id)), "{told}");
}

#[test]
fn a_restart_is_done_when_the_node_is_back_as_a_new_process_and_only_then() {
    let cluster = Cluster::start(1);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    let task = ended(master, &order(master, Order::Restart, "slave-1"));
    assert_eq!(standing(&task), [("slave-1", TaskProgress::Done)]);
    assert!(task.nodes[0].words.contains("a new process"), "{task:?}");
    assert_eq!(slave.journal().matches("starts as slave").count(), 2, "{}", slave.journal());
    assert_eq!(times_begun(slave, &task), 1);
}

#[test]
fn an_order_waits_for_a_slave_that_is_away_until_it_expires_or_is_cancelled() {
    let cluster = Cluster::start(2);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    slave.kill();
    let expiring = order_for(master, Order::Drain, "all", Some(10));
    let cancelled = order(master, Order::Drain, "slave-1");
    let waiting = order(master, Order::Restart, "slave-1");
    assert_eq!(standing(&expiring)[0], ("slave-1", TaskProgress::Queued));
    let id = cancelled.id.split('-').next().unwrap().to_string();
    let cancelled = task_of(master.ask(Action::Task(TaskAction::Cancel { id })));
    assert_eq!(standing(&cancelled), [("slave-1", TaskProgress::Cancelled)]);
    let again = master.ask(Action::Task(TaskAction::Cancel { id: cancelled.id.clone() }));
    assert_eq!(
        again.map(|outcome| task_of(Ok(outcome)).cancelled_us),
        Ok(cancelled.cancelled_us),
        "it stays cancelled, once"
    );
    let expired = ended(master, &expiring);
    assert_eq!(standing(&expired), [("slave-1", TaskProgress::Expired), ("slave-2", TaskProgress::Done)]);
    assert!(expired.nodes[0].words.contains("it was not done"), "{expired:?}");

    slave.start();
    assert_eq!(standing(&ended(master, &waiting)), [("slave-1", TaskProgress::Done)]);
    wait_until("the slave is back", || slave.status().is_some());
    assert!(!is_drained(slave), "what expired or was cancelled is not done");
    assert_eq!((times_begun(slave, &expiring), times_begun(slave, &cancelled)), (0, 0));
}

#[test]
fn whoever_is_killed_in_the_middle_a_task_ends_and_what_may_be_done_once_is_begun_once() {
    let seed = number_in("TASKS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("TASKS_SEED={seed}");
    let mut dice = Dice(seed);
    let cluster = Cluster::start(1);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    for round in 0..KILLS {
        let kinds: Vec<_> = Order::ALL.into_iter().filter(|order| *order != Order::Verify).collect();
        let what = kinds[dice.roll(kinds.len() as u64) as usize];
        let task = order(master, what, "slave-1");
        if dice.chance(50) {
            // Surely between receipt and result.
            wait_until("the slave has begun", || times_begun(slave, &task) > 0);
        } else {
            std::thread::sleep(Duration::from_millis(dice.roll(60)));
        }
        let (kills_slave, kills_master) = [(true, false), (false, true), (true, true)][dice.roll(3) as usize];
        if kills_slave {
            slave.kill();
        }
        if kills_master {
            master.kill();
            master.start();
        }
        if kills_slave {
            slave.start();
        }
        let task = ended(master, &task);
        let words =
            format!("round {round}, {what}, slave {kills_slave}, master {kills_master}: {task:?}\n{}", slave.journal());
        let may_be_unknown = kills_slave && !what.may_be_redone() && what != Order::Restart;
        match task.nodes[0].progress {
            TaskProgress::Done => {}
            TaskProgress::Unknown if may_be_unknown => {}
            _ => panic!("{words}"),
        }
        if !what.may_be_redone() {
            // A kill between the note and the deed leaves nothing to see.
            let least = usize::from(!kills_slave);
            assert!((least..=1).contains(&times_begun(slave, &task)), "{words}");
        }
        wait_until("the slave answers", || slave.status().is_some());
        if what == Order::Drain || what == Order::Undrain {
            assert_eq!(is_drained(slave), what == Order::Drain, "{words}");
        }
    }
}

#[test]
fn a_drain_ordered_on_the_master_is_followed_until_the_slave_serves_nobody() {
    let cluster = Cluster::lay_out(2, &[("DRAIN_NOTICE", "0")]);
    cluster.master.start();
    cluster.apply(&cluster.policy(""));
    cluster.slaves.iter().for_each(Node::start);
    cluster.wait_for_policy();
    let control = cluster.master.layout.control.display().to_string();
    let client = Client::connect(cluster.slaves[1].layout.proxy).unwrap();
    let target = cluster.origin.address.to_string();
    let tunnel = client.tunnel(&target).unwrap().expect("the policy allows the tunnel");
    let (code, _, said) = tidegate(&["drain", "slave-2", "--wait", "6", "--control", &control]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("1 connections, 1 of them tunnels") && said.contains("The node stays drained"), "{said}");
    assert!(is_drained(&cluster.slaves[1]) && !is_drained(&cluster.slaves[0]));
    drop(tunnel);
    let (code, said, complaint) = tidegate(&["drain", "slave-2", "--wait", "60", "--control", &control]);
    assert_eq!(code, 0, "{complaint}");
    assert!(said.contains("drained already") && said.ends_with("drained: no client is served any more\n"), "{said}");
    let (code, said, _) = tidegate(&["undrain", "slave-2", "--control", &control]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("undrain on slave-2: done: in service again"), "{said}");
    assert!(!is_drained(&cluster.slaves[1]));

    let (code, said, _) = tidegate(&["task", "list", "--control", &control]);
    assert!(code == 0 && said.matches("1 done").count() == 3, "{said}");
    let (code, said, _) = tidegate(&["task", "reload", "--on", "all", "--follow", "--control", &control]);
    assert!(code == 0 && said.contains("reload on slave-1: done: nothing has changed"), "{said}");
    let (code, _, said) = tidegate(&["task", "reload", "--on", "slave-3", "--control", &control]);
    assert!(code == 1 && said.contains("no slave of this cluster is called slave-3"), "{said}");
}

#[test]
fn flushes_rotation_checklist_diagnostics_and_a_copy_come_from_the_slave_to_the_master() {
    let cluster = Cluster::start(1);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    Client::connect(slave.layout.proxy).unwrap().get(&cluster.url("/bytes/10")).unwrap();
    cluster.wait_for_records();
    let done = |what: Order| {
        let task = ended(master, &order(master, what, "slave-1"));
        assert_eq!(standing(&task), [("slave-1", TaskProgress::Done)], "{task:?}");
        task
    };
    assert!(done(Order::FlushDns).nodes[0].words.contains("names forgotten"));
    assert!(done(Order::FlushPools).nodes[0].words.contains("idle connections closed"));

    let log_dir = slave.layout.dir.join("log");
    let files = || fs::read_dir(&log_dir).unwrap().flatten().map(|file| file.file_name().into_string().unwrap());
    // A rotated file is compressed soon after; by its chain it is known either way.
    let chains = || files().filter(|name| name.ends_with(".chain")).count();
    assert_eq!(chains(), 1);
    done(Order::RotateLogs);
    Client::connect(slave.layout.proxy).unwrap().get(&cluster.url("/bytes/10")).unwrap();
    cluster.wait_for_records();
    assert_eq!(chains(), 2, "{:?}", files().collect::<Vec<_>>());
    assert_eq!(cluster.report(&Default::default()).requests, 2, "records go on across the files");

    let verified = ended(master, &order(master, Order::Verify, "slave-1"));
    assert!(verified.nodes[0].words.contains("checks hold"), "{verified:?}");
    assert_eq!(verified.nodes[0].output, "verify-slave-1.json");
    let bring = |task: &Task, file: &str| bring(master, task, cluster.dir().join(file));
    let checks: Vec<tidegate::admin::Check> =
        serde_json::from_slice(&fs::read(bring(&verified, "verify.json")).unwrap()).unwrap();
    assert!(checks.len() > 5, "{checks:?}");
    let holds = if checks.iter().all(|check| check.passed) { TaskProgress::Done } else { TaskProgress::Failed };
    assert_eq!(standing(&verified), [("slave-1", holds)], "{checks:?}");

    let key = fs::read_to_string(cluster.dir().join("activation.key")).unwrap();
    for (what, name) in
        [(Order::Diagnostics, "tidegate-diagnostics/status.json"), (Order::Backup, "tidegate-backup/startup.ini")]
    {
        let archive = bring(&done(what), &format!("{what}.tar.gz"));
        let unpacked = std::process::Command::new("tar").arg("xzOf").arg(&archive).output().unwrap();
        assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
        let unpacked = String::from_utf8_lossy(&unpacked.stdout);
        assert!(!unpacked.contains(key.trim()), "{what}: no key is in it");
        assert!(!unpacked.contains("/bytes/10"), "{what}: nor who went where");
        let listed = std::process::Command::new("tar").arg("tzf").arg(&archive).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.lines().any(|line| line == name), "{listed}");
    }
    assert_eq!(fs::read_dir(slave.layout.dir.join("state/backups")).unwrap().count(), 1);
    let left: Vec<_> =
        fs::read_dir(slave.layout.dir.join("state")).unwrap().flatten().map(|file| file.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".output")), "{left:?}");
}

/// What cannot be sent keeps neither its result back nor the tasks after it, and the bound is what it says.
#[test]
fn an_output_that_does_not_get_through_is_given_up_and_later_tasks_do_not_wait_for_it() {
    let cluster = Cluster::lay_out(1, &[]);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    let line = line_between(slave, master);
    master.start();
    let mut dice = Dice(5);
    let noise: String = (0..300_000).map(|_| char::from(b'a' + dice.roll(26) as u8)).collect();
    cluster.apply(&cluster.policy(&format!("# {noise}\n")));
    slave.start();
    cluster.wait_for_policy();

    line.carry_at_most(64 * 1024);
    let backup = order(master, Order::Backup, "slave-1");
    let drain = ended(master, &order(master, Order::Drain, "slave-1"));
    assert_eq!(standing(&drain), [("slave-1", TaskProgress::Done)]);
    assert!(show(master, &backup.id).is_open(), "the drain did not wait for it: {:?}", show(master, &backup.id));
    let backup = ended(master, &backup);
    assert_eq!(standing(&backup), [("slave-1", TaskProgress::Failed)]);
    let words = &backup.nodes[0].words;
    assert!(words.contains("did not reach the master and is lost: sent 5 times in vain"), "{words}");
    assert!(words.contains("use the copy in STATE_DIR/backups on the node") && backup.nodes[0].output.is_empty());
    assert_eq!(times_begun(slave, &backup), 1);

    // The largest that may be sent, and one byte more.
    for (bytes, progress) in
        [(TASK_OUTPUT_BYTES_MAX, TaskProgress::Done), (TASK_OUTPUT_BYTES_MAX + 1, TaskProgress::Failed)]
    {
        line.carry_at_most(64 * 1024);
        let task = order(master, Order::Backup, "slave-1");
        let output = slave.layout.dir.join(format!("state/task-{}.output", task.id));
        let notes = slave.layout.dir.join("state/tasks.json");
        wait_until("the slave has noted what it brings", || {
            let noted: serde_json::Value = serde_json::from_slice(&fs::read(&notes).unwrap()).unwrap();
            let entry = noted["entries"].as_array().unwrap().iter().find(|entry| entry["id"] == task.id);
            entry.is_some_and(|entry| entry["state"]["output"].is_string())
        });
        slave.kill();
        let content: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        fs::write(&output, &content).unwrap();
        line.carry_at_most(u64::MAX);
        slave.start();
        let task = ended(master, &task);
        assert_eq!(standing(&task), [("slave-1", progress)], "{bytes}: {task:?}");
        if progress == TaskProgress::Done {
            assert!(fs::read(bring(master, &task, cluster.dir().join("largest"))).unwrap() == content);
        } else {
            let words = &task.nodes[0].words;
            assert!(words.contains("it is larger than the 8388608 bytes that may be sent"), "{words}");
        }
        assert!(!output.exists());
    }
}

/// An order is for an hour by the master's clock: one that is two hours ahead must not take it for old.
#[test]
fn a_slave_whose_clock_is_wrong_goes_by_its_masters_time() {
    let mut cluster = Cluster::lay_out(1, &[]);
    cluster.slaves[0].set_clock("+2h");
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    master.start();
    slave.start();
    wait_until("the slave knows its master's clock", || {
        slave.status().and_then(|status| status.master).is_some_and(|link| link.clock_skew_ms > 7_000_000)
    });
    assert_eq!(standing(&ended(master, &order(master, Order::Drain, "slave-1"))), [("slave-1", TaskProgress::Done)]);
    assert!(is_drained(slave));
}

#[test]
fn a_result_waits_for_a_master_that_went_away_in_the_middle() {
    let cluster = Cluster::start(1);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    // It waits for a record to arrive at the master: long enough to lose that.
    let task = order(master, Order::Verify, "slave-1");
    wait_until("the slave has begun", || times_begun(slave, &task) == 1);
    master.kill();
    let over = format!("the master's task {}, verify: ", task.id);
    wait_until("it is over without the master", || slave.journal().contains(&over));
    master.start();
    let task = ended(master, &task);
    assert!(task.nodes[0].words.contains("checks hold; "), "the master is missed: {task:?}");
    assert_eq!(times_begun(slave, &task), 1);
}

/// The poll that brought the order stays open, so that nothing tells the slave that its master went and came back.
#[test]
fn a_result_that_finds_no_way_while_the_session_stands_is_told_once_there_is_one() {
    let cluster = Cluster::lay_out(1, &[]);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    let line = line_between(slave, master);
    master.start();
    slave.start();
    let joined = || slave.journal().matches("joined the master").count();
    wait_until("the slave is in", || slave.status().and_then(|status| status.master).is_some_and(|link| link.up));
    let before = joined();
    line.shut(true);
    let task = order(master, Order::Drain, "slave-1");
    wait_until("it is drained", || is_drained(slave));
    // Its beginning, its end, and the end again.
    wait_until("the slave tries more than once", || line.turned_away() > 3);
    assert_eq!(standing(&show(master, &task.id)), [("slave-1", TaskProgress::Sent)]);
    let link = slave.status().and_then(|status| status.master).unwrap();
    assert!(link.up && joined() == before, "{link:?}: the session stands");
    line.shut(false);
    assert_eq!(standing(&ended(master, &task)), [("slave-1", TaskProgress::Done)]);
    assert_eq!(times_begun(slave, &task), 1);
}

#[test]
fn what_cannot_be_noted_is_not_begun_the_journal_says_so_and_it_is_done_once_that_works() {
    let cluster = Cluster::start(1);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    // A folder where the notes go: no file takes its place.
    let notes = slave.layout.dir.join("state/tasks.json");
    fs::create_dir(&notes).unwrap();
    let task = order(master, Order::Drain, "slave-1");
    wait_until("the slave's words", || slave.journal().contains("None is begun before that works"));
    assert_eq!((times_begun(slave, &task), is_drained(slave)), (0, false));
    assert!(show(master, &task.id).is_open());
    fs::remove_dir(&notes).unwrap();
    assert_eq!(standing(&ended(master, &task)), [("slave-1", TaskProgress::Done)]);
    assert!(times_begun(slave, &task) == 1 && is_drained(slave));
}

#[test]
fn only_a_master_orders_tasks_and_the_others_say_who_does() {
    let cluster = Cluster::start(1);
    let ask = || Action::Task(TaskAction::Order { order: Order::Drain, on: "all".into(), life_s: None });
    let refused = cluster.slaves[0].ask(ask()).unwrap_err();
    assert_eq!(refused.kind, RefusedKind::WrongRole);
    assert!(refused.words.contains("ask its master"), "{}", refused.words);
    for (life_s, on, words) in [(Some(1), "all", "cannot wait for 1 s"), (None, "label:x", "no slave has the label x")]
    {
        let refused =
            cluster.master.ask(Action::Task(TaskAction::Order { order: Order::Drain, on: on.into(), life_s }));
        assert!(refused.as_ref().is_err_and(|refused| refused.words.contains(words)), "{refused:?}");
    }
    let absent = cluster.master.ask(Action::Task(TaskAction::Show { id: "77".into() })).unwrap_err();
    assert_eq!(absent.kind, RefusedKind::NotFound);
}

/// Every slave says its checklist, a request goes through each and comes out in the report, and what is amiss makes the exit code.
#[test]
fn the_whole_cluster_is_verified_from_its_master() {
    let cluster = Cluster::start(2);
    let verify = |node: &Node| {
        let control = node.layout.control.display().to_string();
        let (code, out, err) = tidegate(&["--control", &control, "verify", "--cluster", "--json"]);
        let checks = serde_json::from_str::<serde_json::Value>(&out).map(|mut answer| answer["checks"].take());
        let checks: Vec<Check> = checks.ok().and_then(|checks| serde_json::from_value(checks).ok()).unwrap_or_default();
        (code, checks, err)
    };
    let (code, checks, err) = verify(&cluster.master);
    let held = |checks: &[Check], name: &str| {
        checks.iter().find(|check| check.name == name).map(|check| (check.passed, check.words.clone()))
    };
    for slave in ["slave-1", "slave-2"] {
        let (passed, words) = held(&checks, &format!("{slave}: probe")).unwrap_or_else(|| panic!("{checks:?} {err}"));
        assert!(passed && words.contains("in the report after"), "{words}");
        assert!(
            checks.iter().filter(|check| check.name.starts_with(slave)).count() > 5,
            "its own checklist: {checks:?}"
        );
    }
    assert!(checks.iter().any(|check| check.name.starts_with("master: ")), "{checks:?}");
    assert_eq!(code == 0, checks.iter().all(|check| check.passed), "{checks:?}");
    let report = cluster.report(&Question { newest: Some(100), ..Question::default() });
    assert_eq!(report.newest.iter().filter(|row| row.host.starts_with("probe-")).count(), 2, "{:?}", report.newest);

    // A slave that is away is not passed over.
    cluster.slaves[1].kill();
    let (code, checks, _) = verify(&cluster.master);
    let (passed, words) = held(&checks, "slave-2: checklist").expect("who is away is named");
    assert!(code == 1 && !passed && words.contains("tidegate nodes"), "{words}");
    let (code, _, err) = verify(&cluster.slaves[0]);
    assert!(code == 1 && err.contains("asked on the master"), "{err}");
}
