//! Tasks over real connections: what a slave may say of them, and what becomes of its list when its master goes and comes back.

use crate::key;
use crate::store;
use crate::world::*;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::cluster::client::Connection;
use tidegate::cluster::membership::MembershipChange;
use tidegate::cluster::protocol;
use tidegate::cluster::protocol::TaskReport;
use tidegate::cluster::questions::AskMaster;
use tidegate::cluster::questions::NotTold;
use tidegate::cluster::tasks::NewTask;
use tidegate::cluster::tasks::Order;
use tidegate::cluster::tasks::Progress;
use tidegate::cluster::tasks::Task;
use tidegate::cluster::tasks::Tasks;
use tidegate::limits::TASK_OUTPUT_BYTES_MAX;

/// The tasks in the folder of `master`, which hands them out from now on.
fn tasks_of(master: &Master) -> Arc<Tasks> {
    let tasks = Tasks::open(master.dir.path(), Box::new(|_, _| ())).unwrap();
    master.service.hand_out(tasks.clone());
    tasks
}

fn order(tasks: &Tasks, nodes: &[&str]) -> Task {
    let nodes = nodes.iter().map(|node| node.to_string()).collect();
    let new = NewTask { order: Order::Verify, by: "ann".into(), on: "all".into(), nodes, life_s: 600 };
    tasks.order(&new).unwrap().unwrap()
}

fn progress(tasks: &Tasks, task: &Task) -> Vec<Progress> {
    tasks.show(&task.id).unwrap().unwrap().nodes.iter().map(|node| node.progress).collect()
}

fn done(task: &Task, output: Option<&str>) -> TaskReport {
    let output = output.map(str::to_string);
    TaskReport { id: task.id.clone(), progress: Progress::Done, words: "all well".into(), output }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

/// How many tasks are on the slave's list; nothing while it has none.
fn listed(slave: &Slave) -> Option<usize> {
    slave.handle.tasks.borrow().as_ref().map(|list| list.tasks.len())
}

#[test]
fn a_slave_answers_for_itself_alone_and_what_it_brings_is_bounded_at_the_master_too() {
    let (key, dirs) = (key(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let master = Master::start(&key, open_policy(1), store());
    let tasks = tasks_of(&master);
    let [one, two] = [("s1", 0), ("s2", 1)]
        .map(|(name, at)| Slave::start(SlaveSpec::new(name, &key, dirs[at].path()), master.address));
    until("both to be in", || one.up() && two.up());
    let task = order(&tasks, &["s1"]);
    until("the order at the slave it is for", || listed(&one) == Some(1));
    let ask =
        |of: &Slave, session: &Slave| AskMaster { master: of.master.clone(), session: session.handle.session.clone() };

    // Another slave's word is taken for nobody's, and under a session that is not its own it is not heard at all.
    wait(ask(&two, &two).report_task(&done(&task, None), &[])).unwrap();
    assert_eq!(progress(&tasks, &task), [Progress::Sent]);
    let stolen = wait(ask(&two, &one).report_task(&done(&task, None), &[]));
    assert!(matches!(stolen, Err(NotTold::Away(_))), "{stolen:?}");
    assert_eq!((progress(&tasks, &task), listed(&two)), (vec![Progress::Sent], Some(0)));

    // A slave that does not keep to the bounds.
    let own = ask(&one, &one);
    let large = vec![0; TASK_OUTPUT_BYTES_MAX + 1];
    let told = wait(own.report_task(&done(&task, Some("verify-s1.json")), &large));
    assert!(matches!(&told, Err(NotTold::Refused(words)) if words.contains("8388608 may be sent")), "{told:?}");
    let unnamed = [protocol::encode(&done(&task, None)), b"\nunnamed".to_vec()].concat();
    let status = wait(async {
        let session = one.handle.session.borrow().clone().unwrap();
        let mut connection = Connection::open(&one.master).await.unwrap();
        let fields = [(protocol::SESSION_FIELD, session)];
        let (method, deadline) = (hyper::Method::POST, Duration::from_secs(10));
        connection.ask(method, protocol::TASK_PATH, &fields, unnamed, 65_536, deadline).await.unwrap().status
    });
    assert_eq!(status, 400);
    assert_eq!(progress(&tasks, &task), [Progress::Sent]);

    wait(own.report_task(&done(&task, Some("verify-s1.json")), &large[1..])).unwrap();
    assert_eq!(progress(&tasks, &task), [Progress::Done]);
    assert_eq!(tasks.output(&task.id, "s1").unwrap().unwrap().content.len(), TASK_OUTPUT_BYTES_MAX);
    until("the list without it", || listed(&one) == Some(0));
}

#[test]
fn a_slave_without_its_master_has_no_list_and_a_master_that_comes_back_hands_out_what_is_open() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let master = Master::start(&key, open_policy(1), store());
    let (tasks, address, state) = (tasks_of(&master), master.address, master.dir.clone());
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    let [first, second] = [order(&tasks, &["s1"]), order(&tasks, &["s1"])];
    until("both orders", || listed(&slave) == Some(2));
    drop((master, tasks));
    until("a slave that does not know what was withdrawn meanwhile", || listed(&slave).is_none());

    let master = Master::start_in(state, address, &key, open_policy(1), store());
    let tasks = tasks_of(&master);
    until("what is open", || listed(&slave) == Some(2));
    tasks.cancel(&second.id, "ann").unwrap().unwrap();
    let withdrawn = || slave.handle.tasks.borrow().as_ref().is_some_and(|list| list.tasks[1].withdrawn);
    until("the news that one is withdrawn", withdrawn);

    assert!(master.service.change_membership(MembershipChange::Remove, "s1").unwrap().is_some());
    assert_eq!(
        (progress(&tasks, &first), progress(&tasks, &second)),
        (vec![Progress::Expired], vec![Progress::Expired])
    );
}
