//! A master's store and a slave's ledger, both on disk, under a network that loses and repeats and processes that die at any point.
//!
//! Invariants: what may be done once only is done at most once; `done` means done; what was cancelled, or expired before it was handed
//! out, was not done; in the end every task has ended, and it is `unknown` only if somebody died.

use crate::harness::dice::Dice;
use crate::harness::dice::number_in;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;
use tidegate::base::clock::Wall;
use tidegate::cluster::ledger::Ledger;
use tidegate::cluster::ledger::Step;
use tidegate::cluster::protocol::TaskReport;
use tidegate::store::tasks::Handed;
use tidegate::store::tasks::NewTask;
use tidegate::store::tasks::Order;
use tidegate::store::tasks::Progress;
use tidegate::store::tasks::TaskStore;

const SEEDS: u64 = 60;
const STEPS: usize = 60;
const LIFE_S: u64 = 40;

struct World {
    dir: TempDir,
    dice: Dice,
    now: Wall,
    store: TaskStore,
    ledger: Ledger,
    process: u32,
    /// What the slave has heard last; nothing after its process died or the line broke.
    list: Option<Vec<Handed>>,
    /// Reports that are still on their way, and come again.
    on_their_way: Vec<TaskReport>,
    done: BTreeMap<String, usize>,
    died_in_the_middle: BTreeMap<String, bool>,
}

impl World {
    fn new(seed: u64) -> World {
        // In memory, where the host has that: thousands of syncs of a disk are not what is tested.
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir_in(place).unwrap();
        World {
            store: TaskStore::open(dir.path()).unwrap(),
            ledger: Ledger::open(dir.path(), "p0").unwrap(),
            dir,
            dice: Dice(seed),
            now: Wall(1_800_000_000_000_000),
            process: 0,
            list: None,
            on_their_way: Vec::new(),
            done: BTreeMap::new(),
            died_in_the_middle: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.dice.roll(12) {
            0 | 1 => self.order(),
            2 => self.cancel(),
            3 | 4 => self.poll(),
            5..=7 => self.slave(),
            8 => self.deliver_again(),
            9 => self.slave_dies(),
            10 => self.store = TaskStore::open(self.dir.path()).unwrap(),
            _ => self.time_passes(1 + self.dice.0 % 30),
        }
    }

    fn order(&mut self) {
        let order = Order::ALL[self.dice.roll(Order::ALL.len() as u64) as usize];
        let new = NewTask { order, by: "ann".into(), on: "all".into(), nodes: vec!["s1".into()], life_s: LIFE_S };
        self.store.order(&new, self.now).unwrap();
    }

    fn cancel(&mut self) {
        let number = 1 + self.dice.roll(12) as i64;
        self.store.cancel(number, "bob", self.now).unwrap();
    }

    fn poll(&mut self) {
        let handed = self.store.hand_out("s1", self.now).unwrap();
        // The reply may be lost, and with it the line.
        self.list = (!self.dice.chance(20)).then_some(handed);
    }

    fn slave(&mut self) {
        match self.ledger.next(self.list.as_deref(), self.now).unwrap() {
            Step::Rest => {}
            Step::Begin(task) => self.carry_out(&task),
            Step::Report(report) => self.tell(report),
        }
    }

    fn carry_out(&mut self, task: &Handed) {
        self.ledger.begin(task).unwrap();
        if self.dice.chance(15) {
            return self.dies_with(&task.id);
        }
        self.on_their_way.push(TaskReport {
            id: task.id.clone(),
            progress: Progress::Started,
            words: String::new(),
            output: None,
        });
        *self.done.entry(task.id.clone()).or_default() += 1;
        if task.order == Order::Restart || self.dice.chance(15) {
            return self.dies_with(&task.id);
        }
        let failed = self.dice.chance(10);
        let progress = if failed { Progress::Failed } else { Progress::Done };
        self.ledger.end(&task.id, progress, "words", None).unwrap();
    }

    fn tell(&mut self, report: TaskReport) {
        if self.dice.chance(20) {
            return; // lost
        }
        self.store.report("s1", &report.id, report.progress, &report.words, self.now).unwrap();
        self.on_their_way.push(report.clone());
        if !self.dice.chance(20) {
            self.ledger.acknowledged(&report.id).unwrap();
        }
    }

    fn deliver_again(&mut self) {
        let count = self.on_their_way.len() as u64;
        if count > 0 {
            let report = self.on_their_way[self.dice.roll(count) as usize].clone();
            self.store.report("s1", &report.id, report.progress, &report.words, self.now).unwrap();
        }
    }

    fn dies_with(&mut self, id: &str) {
        self.died_in_the_middle.insert(id.to_string(), true);
        self.slave_dies();
    }

    fn slave_dies(&mut self) {
        self.process += 1;
        self.ledger = Ledger::open(self.dir.path(), &format!("p{}", self.process)).unwrap();
        self.list = None;
    }

    fn time_passes(&mut self, seconds: u64) {
        self.now = Wall(self.now.0 + seconds as i64 * 1_000_000);
        self.store.expire(self.now).unwrap();
    }

    /// From here on nothing is lost and nobody dies, but for what a restart is.
    fn come_to_rest(&mut self) {
        self.dice = Dice(0);
        for _ in 0..400 {
            self.list = Some(self.store.hand_out("s1", self.now).unwrap());
            match self.ledger.next(self.list.as_deref(), self.now).unwrap() {
                Step::Rest => return,
                Step::Begin(task) => {
                    self.ledger.begin(&task).unwrap();
                    *self.done.entry(task.id.clone()).or_default() += 1;
                    if task.order == Order::Restart {
                        self.slave_dies();
                    } else {
                        self.ledger.end(&task.id, Progress::Done, "words", None).unwrap();
                    }
                }
                Step::Report(report) => {
                    self.store.report("s1", &report.id, report.progress, &report.words, self.now).unwrap();
                    self.ledger.acknowledged(&report.id).unwrap();
                }
            }
        }
        panic!("it does not come to rest");
    }

    fn check(&self, seed: u64) -> BTreeMap<&'static str, usize> {
        let mut seen = BTreeMap::new();
        let (tasks, more) = self.store.list(usize::MAX, None).unwrap();
        assert!(!more, "seed {seed}: more tasks than a list holds");
        for task in tasks {
            let (node, times) = (&task.nodes[0], self.done.get(&task.id).copied().unwrap_or(0));
            let died = self.died_in_the_middle.contains_key(&task.id);
            let words = format!("seed {seed}: done {times} times, died in the middle {died}: {task:?}");
            assert!(!node.progress.is_open(), "{words}");
            assert!(task.order.may_be_redone() || times <= 1, "{words}");
            assert!(times <= 1 || died, "{words}");
            match node.progress {
                // A process that died between note and deed was restarted all the same.
                Progress::Done => assert!(times >= 1 || task.order == Order::Restart && died, "{words}"),
                Progress::Failed => assert!(times >= 1, "{words}"),
                Progress::Cancelled => assert_eq!(times, 0, "{words}"),
                Progress::Unknown => assert!(died, "{words}"),
                Progress::Expired => assert_eq!(times, 0, "once there is contact again every deed is told: {words}"),
                _ => {}
            }
            *seen.entry(node.progress.name()).or_default() += 1;
        }
        seen
    }
}

#[test]
fn under_loss_repetition_and_death_at_any_point_nothing_is_done_twice_and_every_task_ends() {
    let first = number_in("TASKS_SEED").unwrap_or(1);
    let mut seen = BTreeMap::new();
    for seed in first..first + SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.come_to_rest();
        for (progress, count) in world.check(seed) {
            *seen.entry(progress).or_insert(0) += count;
        }
    }
    println!("{seen:?}");
    for progress in ["done", "failed", "cancelled", "unknown", "expired"] {
        assert!(seen.contains_key(progress), "the seeds come to every end: {seen:?}");
    }
}
