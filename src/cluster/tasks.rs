//! The master's end of tasks: queues them, wakes the polls of the slaves they are for, and keeps what comes of them.
//! What is on disk: `store::tasks`; the slave's end: `cluster::ledger`.

pub use crate::store::tasks::Handed;
pub use crate::store::tasks::NewTask;
pub use crate::store::tasks::Order;
pub use crate::store::tasks::Output;
pub use crate::store::tasks::Progress;
pub use crate::store::tasks::Task;
pub use crate::store::tasks::TaskNode;
pub use crate::store::tasks::is_task_id;

use crate::base::clock::Wall;
use crate::cluster::protocol::TaskList;
use crate::cluster::protocol::TaskReport;
use crate::limits::CLUSTER_MEMBERS_MAX;
use crate::store::DatabaseError;
use crate::store::tasks::TaskStore;
use crate::tls::random;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::watch;

/// Told of every result: the slave's name and the task with it.
pub type TellResult = Box<dyn Fn(&str, &Task) + Send + Sync>;

/// The tasks of a master. Its methods block, but for [`Tasks::revision`].
pub struct Tasks {
    store: TaskStore,
    /// By a node's name in small letters: changes with what is to be handed to it. 0: there never was anything.
    revisions: Mutex<HashMap<String, watch::Sender<u64>>>,
    labels: Mutex<HashMap<String, Vec<String>>>,
    tell: TellResult,
}

impl Tasks {
    /// The tasks in `state_dir`, as they stood when the master stopped.
    pub fn open(state_dir: &Path, tell: TellResult) -> Result<Arc<Tasks>, DatabaseError> {
        let store = TaskStore::open(state_dir)?;
        let labels = store.labels()?.into_iter().map(|(node, labels)| (key(&node), labels)).collect();
        let tasks = Tasks { store, revisions: Mutex::default(), labels: Mutex::new(labels), tell };
        for node in tasks.store.nodes_with_open()? {
            tasks.changed(&node);
        }
        Ok(Arc::new(tasks))
    }

    /// Queues a task and wakes the slaves it is for; absent if too many are open.
    pub fn order(&self, new: &NewTask) -> Result<Option<Task>, DatabaseError> {
        let task = self.store.order(new, Wall::now())?;
        new.nodes.iter().filter(|_| task.is_some()).for_each(|node| self.changed(node));
        Ok(task)
    }

    /// Cancels the task that is meant by id or number; absent if there is none.
    pub fn cancel(&self, meant: &str, by: &str) -> Result<Option<Task>, DatabaseError> {
        let Some(number) = self.store.find(meant)? else { return Ok(None) };
        let task = self.store.cancel(number, by, Wall::now())?;
        let open = task.iter().flat_map(|task| &task.nodes).filter(|node| node.progress.is_open());
        open.for_each(|node| self.changed(&node.node));
        Ok(task)
    }

    /// The newest tasks before the one that is meant by id or number, or of all, newest first, and whether there are older ones: a page of
    /// them. That one may have been forgotten meanwhile.
    pub fn list(&self, limit: usize, before: Option<&str>) -> Result<(Vec<Task>, bool), DatabaseError> {
        let number = |meant: &str| meant.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        self.store.list(limit, before.map(number))
    }

    /// The task that is meant by id or number.
    pub fn show(&self, meant: &str) -> Result<Option<Task>, DatabaseError> {
        match self.store.find(meant)? {
            Some(number) => self.store.show(number),
            None => Ok(None),
        }
    }

    /// What a slave brought of the task that is meant by id or number.
    pub fn output(&self, meant: &str, node: &str) -> Result<Option<Output>, DatabaseError> {
        match self.store.find(meant)? {
            Some(number) => self.store.output(number, node),
            None => Ok(None),
        }
    }

    /// Ends what has waited for too long.
    pub fn look_after(&self) -> Result<(), DatabaseError> {
        for (node, task) in self.store.expire(Wall::now())? {
            self.changed(&node);
            (self.tell)(&node, &task);
        }
        Ok(())
    }

    /// A node left the cluster or gave its name away.
    pub fn forget_node(&self, node: &str) -> Result<(), DatabaseError> {
        self.store.forget_node(node, Wall::now())?;
        self.labels().remove(&key(node));
        self.changed(node);
        Ok(())
    }

    /// The nodes that are known by a label, in small letters.
    pub fn labelled(&self, label: &str) -> Vec<String> {
        let labels = self.labels();
        labels
            .iter()
            .filter(|(_, labels)| labels.iter().any(|one| one == label))
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// Whether these are not the labels that are known of a node.
    pub(super) fn are_new_labels(&self, node: &str, labels: &[String]) -> bool {
        self.labels().get(&key(node)).map_or(!labels.is_empty(), |known| known != labels)
    }

    /// A slave says what labels it has.
    pub(super) fn note_labels(&self, node: &str, labels: &[String]) -> Result<(), DatabaseError> {
        self.store.note_labels(node, labels)?;
        self.labels().insert(key(node), labels.to_vec());
        Ok(())
    }

    /// Changes with what is to be handed to a slave.
    pub(super) fn revision(&self, node: &str) -> watch::Receiver<u64> {
        let mut revisions = self.revisions();
        if revisions.len() > 2 * CLUSTER_MEMBERS_MAX {
            // Names come and go; whose poll is not held and who has no task needs none.
            revisions.retain(|_, revision| revision.receiver_count() > 0 || *revision.borrow() != 0);
        }
        revisions.entry(key(node)).or_default().subscribe()
    }

    /// What a slave is to have, as of this revision or later.
    pub(super) fn hand_out(&self, node: &str, revision: u64) -> Result<TaskList, DatabaseError> {
        Ok(TaskList { revision, tasks: self.store.hand_out(node, Wall::now())? })
    }

    /// A slave's word on a task, with the content of the output that it names.
    pub(super) fn report(&self, node: &str, report: &TaskReport, content: Vec<u8>) -> Result<(), DatabaseError> {
        let output = report.output.clone().map(|name| Output { name, content });
        let TaskReport { id, progress, words, .. } = report;
        let news = self.store.report_with(node, id, *progress, words, output.as_ref(), Wall::now())?;
        if let Some(task) = news
            && !report.progress.is_open()
        {
            self.changed(node);
            (self.tell)(node, &task);
        }
        Ok(())
    }

    fn changed(&self, node: &str) {
        let mut revisions = self.revisions();
        revisions.entry(key(node)).or_default().send_modify(|revision| {
            // After a restart of the master no slave must take a new list for one that it has.
            *revision = if *revision == 0 { 1 + u64::from(u32::from_le_bytes(random::bytes())) } else { *revision + 1 };
        });
    }

    fn revisions(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<u64>>> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn labels(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({:?})", self.store)
    }
}

/// Node names are compared as host names are: without regard to case.
fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TASKS_HANDED_MAX;

    fn order(tasks: &Tasks, node: &str) -> Task {
        order_for(tasks, node, 60)
    }

    fn order_for(tasks: &Tasks, node: &str, life_s: u64) -> Task {
        let nodes = vec![node.to_string()];
        tasks
            .order(&NewTask { order: Order::Drain, by: "ann".into(), on: node.into(), nodes, life_s })
            .unwrap()
            .unwrap()
    }

    fn done(task: &Task) -> TaskReport {
        TaskReport { id: task.id.clone(), progress: Progress::Done, words: String::new(), output: None }
    }

    #[test]
    fn a_slave_has_another_revision_whenever_it_is_to_have_another_list_also_after_a_restart_of_the_master() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Tasks::open(dir.path(), Box::new(|_, _| ())).unwrap();
        let tasks = open();
        let revision = |tasks: &Tasks| *tasks.revision("s1").borrow();
        assert_eq!(revision(&tasks), 0, "there never was anything");
        let mut seen = std::collections::BTreeSet::from([0]);
        let mut is_news = |tasks: &Tasks, what: &str| assert!(seen.insert(revision(tasks)), "{what}");
        order_for(&tasks, "s1", 0);
        is_news(&tasks, "the first order");
        tasks.look_after().unwrap();
        is_news(&tasks, "it expired");
        let ordered: Vec<Task> = (0..TASKS_HANDED_MAX + 2).map(|_| order(&tasks, "s1")).collect();
        is_news(&tasks, "more orders");
        let list = |tasks: &Tasks| tasks.hand_out("s1", 1).unwrap().tasks;
        assert_eq!(list(&tasks).len(), TASKS_HANDED_MAX);
        tasks.report("s1", &done(&ordered[0]), Vec::new()).unwrap();
        is_news(&tasks, "a result makes room for the next order");
        assert_eq!(list(&tasks).last().unwrap().id, ordered[TASKS_HANDED_MAX].id);
        tasks.cancel(&ordered[1].id, "ann").unwrap();
        is_news(&tasks, "a cancel");
        let before = revision(&tasks);
        tasks.report("s1", &done(&ordered[0]), Vec::new()).unwrap();
        order(&tasks, "s2");
        assert_eq!(revision(&tasks), before, "what is no news, or another's");
        let tasks = open();
        is_news(&tasks, "a restart with something open");
        tasks.forget_node("S1").unwrap();
        is_news(&tasks, "leaving");
    }

    #[test]
    fn labels_outlive_the_master_and_go_with_their_node() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Tasks::open(dir.path(), Box::new(|_, _| ())).unwrap();
        let labels = ["edge".to_string()];
        let tasks = open();
        assert!(tasks.are_new_labels("S1", &labels));
        tasks.note_labels("S1", &labels).unwrap();
        let tasks = open();
        assert!(!tasks.are_new_labels("s1", &labels));
        assert_eq!((tasks.labelled("edge"), tasks.labelled("core")), (vec!["s1".to_string()], Vec::new()));
        tasks.forget_node("s1").unwrap();
        assert!(tasks.labelled("edge").is_empty());
    }
}
