//! An order to very many slaves at once: until the last has done it and the master has its word on disk.

use super::Master;
use super::Slave;
use super::start_slaves;
use super::wait_for;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;
use tidegate::admin::Action;
use tidegate::admin::Order;
use tidegate::admin::Outcome;
use tidegate::admin::Task;
use tidegate::admin::TaskAction;
use tidegate::admin::TaskProgress;
use tidegate::cli::control;
use tidegate::cluster::protocol::TaskList;
use tidegate::cluster::protocol::TaskReport;
use tidegate::cluster::questions::AskMaster;
use tokio::sync::watch;

const ORDERS: u64 = 5;

pub fn tasks(slaves: usize) {
    let master = Master::start(0);
    master.apply(false, "192.0.2.1");
    let (_runtime, seen, _) = start_slaves(&master, slaves);
    wait_for("all slaves up", || seen.up.load(Relaxed) == slaves as u64);
    std::thread::sleep(Duration::from_secs(2));
    for number in 1..=ORDERS {
        let (cpu, began) = (master.cpu_s(), Instant::now());
        let ordered = ask(&master, TaskAction::Order { order: Order::FlushDns, on: "all".into(), life_s: None });
        let answered = began.elapsed();
        wait_for("all slaves to have told", || seen.tasks_told.load(Relaxed) == number * slaves as u64);
        let (took, cpu) = (began.elapsed(), master.cpu_s() - cpu);
        let task = ask(&master, TaskAction::Show { id: ordered.id });
        let done = task.nodes.iter().filter(|node| node.progress == TaskProgress::Done).count();
        assert_eq!((done, task.nodes.len()), (slaves, slaves), "the master has every slave's word");
        // Time enough for what would be handed out a second time.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(seen.tasks_begun.load(Relaxed), number * slaves as u64, "each slave did it once");
        println!(
            "tasks: flush-dns on {slaves} slaves: ordered in {:.3} s, the last has reported after {:.2} s; master's CPU {cpu:.2} s; each did it \
             once",
            answered.as_secs_f64(),
            took.as_secs_f64()
        );
    }
}

fn ask(master: &Master, asked: TaskAction) -> Task {
    match control::ask(&master.layout.master.control, &Action::Task(asked)) {
        Ok(Ok(Outcome::Task(task))) => *task,
        other => panic!("task: {other:?}"),
    }
}

impl Slave {
    /// Does what is on the list and was not done yet, and tells of it as a slave does: that it began and how it ended, each over a
    /// connection of its own beside the poll.
    pub(super) fn carry_out(&mut self, list: TaskList) {
        self.tasks_revision = list.revision;
        let session = self.connection.as_ref().map(|(_, session)| session.clone());
        for task in list.tasks {
            if !self.tasks_begun.insert(task.id.clone()) {
                continue;
            }
            self.seen.tasks_begun.fetch_add(1, Relaxed);
            let ask = AskMaster { master: self.master.clone(), session: watch::channel(session.clone()).1 };
            let seen = self.seen.clone();
            tokio::spawn(async move {
                let word = |progress| TaskReport { id: task.id.clone(), progress, words: String::new(), output: None };
                let (started, done) = (word(TaskProgress::Started), word(TaskProgress::Done));
                let (_, told) = tokio::join!(ask.report_task(&started, &[]), ask.report_task(&done, &[]));
                told.expect("the master takes a slave's word");
                seen.tasks_told.fetch_add(1, Relaxed);
            });
        }
    }
}
