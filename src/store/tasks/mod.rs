//! Tasks of a master: orders to slaves, how each slave stands with each, and what came of it. `STATE_DIR/tasks.db`;
//! format: `docs/formats/tasks.md`.
//!
//! ```text
//! queued --handed out--> sent --the slave's word--> started --the slave's word--> done | failed | unknown
//!   |  cancel               |  `-the slave's word--> cancelled (it was withdrawn before it was begun)
//!   `-----> cancelled       `----------- the task's time is over ----> expired (a word that comes later still counts)
//! ```

mod list;
mod nouns;

pub use self::nouns::Handed;
pub use self::nouns::NewTask;
pub use self::nouns::Order;
pub use self::nouns::Output;
pub use self::nouns::Progress;
pub use self::nouns::Task;
pub use self::nouns::TaskNode;

use super::database;
use super::database::DatabaseError;
use crate::base::clock::Wall;
use crate::limits::TASK_ID_BYTES_MAX;
use crate::limits::TASK_OUTPUTS_BYTES_MAX;
use crate::limits::TASK_ROWS_MAX;
use crate::limits::TASKS_HANDED_MAX;
use crate::limits::TASKS_KEPT_MAX;
use crate::limits::TASKS_OPEN_MAX;
use crate::tls::random;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::params;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The file in STATE_DIR.
pub const FILE: &str = "tasks.db";
const VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE task (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    nonce TEXT NOT NULL,
    ordered TEXT NOT NULL,
    by TEXT NOT NULL,
    chosen TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    cancelled_us INTEGER NOT NULL DEFAULT 0,
    cancelled_by TEXT NOT NULL DEFAULT ''
);
CREATE TABLE target (
    number INTEGER NOT NULL REFERENCES task,
    node TEXT NOT NULL COLLATE NOCASE,
    progress TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    words TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (number, node)
) WITHOUT ROWID;
CREATE TABLE output (
    number INTEGER NOT NULL,
    node TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (number, node)
);
CREATE INDEX open_target ON target (node, number) WHERE progress IN ('queued', 'sent', 'started');
CREATE TABLE label (
    node TEXT PRIMARY KEY NOT NULL COLLATE NOCASE,
    labels TEXT NOT NULL
) WITHOUT ROWID;
";

/// The tasks of a master. Every change is on disk when it is answered.
#[derive(Debug)]
pub struct TaskStore {
    path: PathBuf,
    connection: Mutex<Connection>,
}

type Result<T> = std::result::Result<T, DatabaseError>;

impl TaskStore {
    /// Opens or makes the file in `state_dir`.
    pub fn open(state_dir: &Path) -> Result<TaskStore> {
        let path = state_dir.join(FILE);
        let connection = Mutex::new(database::open(&path, VERSION, SCHEMA)?);
        Ok(TaskStore { path, connection })
    }

    /// Queues a task; absent if there are as many open ones as there may be.
    pub fn order(&self, new: &NewTask, now: Wall) -> Result<Option<Task>> {
        self.change("ordering a task", |all| {
            let open = "SELECT count(DISTINCT number) FROM target WHERE progress IN ('queued', 'sent', 'started')";
            if all.query_row(open, [], |row| row.get::<_, i64>(0))? >= TASKS_OPEN_MAX as i64 {
                return Ok(None);
            }
            let nonce = data_encoding::HEXLOWER.encode(&random::bytes::<4>());
            let expires_us = now.0 + new.life_s as i64 * 1_000_000;
            all.execute(
                "INSERT INTO task (nonce, ordered, by, chosen, created_us, expires_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![nonce, new.order.name(), new.by, new.on, now.0, expires_us],
            )?;
            let number = all.last_insert_rowid();
            let mut add = all.prepare_cached("INSERT OR IGNORE INTO target VALUES (?1, ?2, 'queued', ?3, '')")?;
            for node in &new.nodes {
                add.execute(params![number, node, now.0])?;
            }
            forget_oldest(all)?;
            task(all, number)
        })
    }

    /// Cancels a task: a slave that it was not handed to never gets it, one that it was handed to is told. Absent if there is none.
    pub fn cancel(&self, number: i64, by: &str, now: Wall) -> Result<Option<Task>> {
        self.change("cancelling a task", |all| {
            all.execute(
                "UPDATE task SET cancelled_us = ?2, cancelled_by = ?3 WHERE number = ?1 AND cancelled_us = 0
                     AND EXISTS (SELECT 1 FROM target WHERE target.number = ?1 AND progress IN ('queued', 'sent', 'started'))",
                params![number, now.0, by],
            )?;
            all.execute(
                "UPDATE target SET progress = 'cancelled', at_us = ?2, words = 'cancelled before it was handed to the node'
                     WHERE number = ?1 AND progress = 'queued' AND (SELECT cancelled_us FROM task WHERE number = ?1) <> 0",
                params![number, now.0],
            )?;
            task(all, number)
        })
    }

    /// What is to be handed to a slave now, oldest first. What it did not have yet counts as sent from here on, on disk.
    pub fn hand_out(&self, node: &str, now: Wall) -> Result<Vec<Handed>> {
        self.change("handing out tasks", |all| {
            let handed = all
                .prepare_cached(
                    "SELECT number, nonce, ordered, by, expires_us, cancelled_us FROM target JOIN task USING (number)
                         WHERE node = ?1 AND progress IN ('queued', 'sent', 'started') AND expires_us > ?2
                         ORDER BY number LIMIT ?3",
                )?
                .query_map(params![node, now.0, TASKS_HANDED_MAX as i64], |row| Ok((row.get::<_, i64>(0)?, handed(row)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut mark = all.prepare_cached(
                "UPDATE target SET progress = 'sent', at_us = ?3 WHERE number = ?1 AND node = ?2 AND progress = 'queued'",
            )?;
            for (number, _) in &handed {
                mark.execute(params![number, node, now.0])?;
            }
            Ok(handed.into_iter().map(|(_, handed)| handed).collect())
        })
    }

    /// A slave's word on a task. Answers the task, with this slave alone, if that is news, and nothing if it is known already or there is
    /// no such task: the slave need not say it again in any case.
    pub fn report(&self, node: &str, id: &str, progress: Progress, words: &str, now: Wall) -> Result<Option<Task>> {
        self.report_with(node, id, progress, words, None, now)
    }

    /// The same, with what the slave brings; both are kept or neither is.
    pub fn report_with(
        &self,
        node: &str,
        id: &str,
        progress: Progress,
        words: &str,
        output: Option<&Output>,
        now: Wall,
    ) -> Result<Option<Task>> {
        self.change("keeping the result of a task", |all| {
            let Some(number) = number_of(all, id)? else { return Ok(None) };
            // A result is the last word; but that a task expired was only the master's.
            let may_follow = if progress == Progress::Started {
                "'queued', 'sent'"
            } else {
                "'queued', 'sent', 'started', 'expired'"
            };
            let changed = all.execute(
                &format!(
                    "UPDATE target SET progress = ?3, at_us = ?4, words = ?5
                         WHERE number = ?1 AND node = ?2 AND progress IN ({may_follow})"
                ),
                params![number, node, progress.name(), now.0, words],
            )?;
            if changed == 0 {
                return Ok(None);
            }
            if let Some(Output { name, content }) = output {
                all.execute(
                    "INSERT OR REPLACE INTO output VALUES (?1, ?2, ?3, ?4)",
                    params![number, node, name, content],
                )?;
                forget_oldest_outputs(all, TASK_OUTPUTS_BYTES_MAX)?;
            }
            task_on(all, number, Some(node))
        })
    }

    /// Ends what has waited for too long; answers which slaves that concerns, each with its task, and it alone.
    pub fn expire(&self, now: Wall) -> Result<Vec<(String, Task)>> {
        let open = "progress IN ('queued', 'sent', 'started') AND (SELECT expires_us FROM task WHERE task.number = target.number) <= ?1";
        let over = self.look("looking for tasks that expired", |all| {
            all.prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM target WHERE {open})"))?
                .query_row([now.0], |row| row.get::<_, bool>(0))
        })?;
        if !over {
            return Ok(Vec::new());
        }
        self.change("ending tasks that expired", |all| {
            let ended: Vec<(i64, String)> = all
                .prepare_cached(&format!("SELECT number, node FROM target WHERE {open}"))?
                .query_map([now.0], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            all.execute(
                &format!(
                    "UPDATE target SET progress = 'expired', at_us = ?1, words = CASE progress
                         WHEN 'queued' THEN 'the node did not come for it in time; it was not done'
                         WHEN 'sent' THEN 'it was on its way to the node, which did not answer in time: whether it was done is not known yet'
                         ELSE 'the node began it and did not answer in time: whether it was done is not known yet' END
                     WHERE {open}"
                ),
                [now.0],
            )?;
            let mut concerned = Vec::new();
            for (number, node) in ended {
                concerned.extend(task_on(all, number, Some(&node))?.map(|task| (node, task)));
            }
            Ok(concerned)
        })
    }

    /// A node is no part of the cluster any more, or another takes its name: what was for it is for nobody.
    pub fn forget_node(&self, node: &str, now: Wall) -> Result<()> {
        self.change("ending the tasks of a node that left", |all| {
            all.execute(
                "UPDATE target SET progress = CASE progress WHEN 'queued' THEN 'cancelled' ELSE 'expired' END, at_us = ?2,
                     words = 'the node left the cluster or gave its name away'
                     WHERE node = ?1 AND progress IN ('queued', 'sent', 'started')",
                params![node, now.0],
            )?;
            all.execute("DELETE FROM label WHERE node = ?1", [node]).map(drop)
        })
    }

    /// One task.
    pub fn show(&self, number: i64) -> Result<Option<Task>> {
        self.look("showing a task", |all| task(all, number))
    }

    /// What a slave brought of a task.
    pub fn output(&self, number: i64, node: &str) -> Result<Option<Output>> {
        self.look("reading the output of a task", |all| {
            all.query_row(
                "SELECT name, content FROM output WHERE number = ?1 AND node = ?2",
                params![number, node],
                |row| Ok(Output { name: row.get(0)?, content: row.get(1)? }),
            )
            .optional()
        })
    }

    /// The task that is meant by its id, or by its number alone.
    pub fn find(&self, meant: &str) -> Result<Option<i64>> {
        self.look("looking for a task", |all| match meant.parse::<i64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => number_of(all, meant),
        })
    }

    /// The slaves that have something to do.
    pub fn nodes_with_open(&self) -> Result<Vec<String>> {
        self.look("looking for open tasks", |all| {
            all.prepare_cached("SELECT DISTINCT node FROM target WHERE progress IN ('queued', 'sent', 'started')")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// Notes the labels of a node, for the time when it is away.
    pub fn note_labels(&self, node: &str, labels: &[String]) -> Result<()> {
        self.change("noting labels", |all| {
            let labels = labels.join(",");
            all.execute("INSERT OR REPLACE INTO label VALUES (?1, ?2)", params![node, labels]).map(drop)
        })
    }

    /// Every node's labels, as far as they were heard of.
    pub fn labels(&self) -> Result<Vec<(String, Vec<String>)>> {
        self.look("reading labels", |all| {
            let words = |text: String| text.split(',').filter(|label| !label.is_empty()).map(str::to_string).collect();
            all.prepare_cached("SELECT node, labels FROM label")?
                .query_map([], |row| Ok((row.get(0)?, words(row.get(1)?))))?
                .collect()
        })
    }

    fn look<T>(&self, doing: &str, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        ask(&self.connection()).map_err(|error| database::failed(&self.path, doing, &error))
    }

    fn change<T>(&self, doing: &str, make: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let made = connection.transaction().and_then(|all| {
            let made = make(&all)?;
            all.commit()?;
            Ok(made)
        });
        made.map_err(|error| database::failed(&self.path, doing, &error))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a text can be a task's id.
pub fn is_task_id(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    !text.is_empty() && text.len() <= TASK_ID_BYTES_MAX && text.bytes().all(good)
}

fn number_of(all: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    let Some((number, nonce)) = id.split_once('-') else { return Ok(None) };
    let Ok(number) = number.parse::<i64>() else { return Ok(None) };
    all.prepare_cached("SELECT number FROM task WHERE number = ?1 AND nonce = ?2")?
        .query_row(params![number, nonce], |row| row.get(0))
        .optional()
}

fn task(all: &Connection, number: i64) -> rusqlite::Result<Option<Task>> {
    task_on(all, number, None)
}

/// A task with all its slaves, or with one: of a thousand slaves each has its say, and to read all of them each time would take a second.
fn task_on(all: &Connection, number: i64, node: Option<&str>) -> rusqlite::Result<Option<Task>> {
    let read = |row: &Row| {
        Ok(Task {
            id: id(row)?,
            order: order(row)?,
            by: row.get(3)?,
            on: row.get(4)?,
            created_us: row.get(5)?,
            expires_us: row.get(6)?,
            cancelled_us: row.get(7)?,
            cancelled_by: row.get(8)?,
            nodes: Vec::new(),
        })
    };
    let found = all.prepare_cached("SELECT * FROM task WHERE number = ?1")?.query_row([number], read).optional()?;
    let Some(mut task) = found else { return Ok(None) };
    let chosen = if node.is_some() { "node = ?2" } else { "?2 IS NULL" };
    task.nodes = all
        .prepare_cached(&format!(
            "SELECT node, progress, at_us, words, coalesce(name, ''), coalesce(length(content), 0)
                 FROM target LEFT JOIN output USING (number, node) WHERE number = ?1 AND {chosen} ORDER BY node"
        ))?
        .query_map(params![number, node], |row| {
            let progress: String = row.get(1)?;
            let progress = Progress::named(&progress).ok_or_else(|| unreadable(1, &progress))?;
            let output_bytes = row.get::<_, i64>(5)?.unsigned_abs();
            Ok(TaskNode {
                node: row.get(0)?,
                progress,
                at_us: row.get(2)?,
                words: row.get(3)?,
                output: row.get(4)?,
                output_bytes,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(task))
}

fn handed(row: &Row) -> rusqlite::Result<Handed> {
    let cancelled_us: i64 = row.get(5)?;
    Ok(Handed {
        id: id(row)?,
        order: order(row)?,
        by: row.get(3)?,
        expires_us: row.get(4)?,
        withdrawn: cancelled_us != 0,
    })
}

/// Of a row that begins with number and nonce.
fn id(row: &Row) -> rusqlite::Result<String> {
    Ok(format!("{}-{}", row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
}

/// Of a row whose third column it is.
fn order(row: &Row) -> rusqlite::Result<Order> {
    let name: String = row.get(2)?;
    Order::named(&name).ok_or_else(|| unreadable(2, &name))
}

fn unreadable(column: usize, text: &str) -> rusqlite::Error {
    let words = format!("{text:?} is nothing that this version writes");
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, words.into())
}

/// Forgets ended tasks beyond what is kept, the oldest first.
fn forget_oldest(all: &Transaction) -> rusqlite::Result<()> {
    let count = |what: &str| all.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, i64>(0));
    while count("task")? > TASKS_KEPT_MAX as i64 || count("target")? > TASK_ROWS_MAX as i64 {
        let oldest: Option<i64> = all
            .query_row(
                "SELECT number FROM task WHERE NOT EXISTS (SELECT 1 FROM target WHERE target.number = task.number
                     AND progress IN ('queued', 'sent', 'started')) ORDER BY number LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?;
        let Some(oldest) = oldest else { return Ok(()) };
        all.execute("DELETE FROM output WHERE number = ?1", [oldest])?;
        all.execute("DELETE FROM target WHERE number = ?1", [oldest])?;
        all.execute("DELETE FROM task WHERE number = ?1", [oldest])?;
    }
    Ok(())
}

/// Forgets outputs beyond what is kept, the oldest first.
fn forget_oldest_outputs(all: &Transaction, bytes_max: u64) -> rusqlite::Result<()> {
    let bytes = "SELECT coalesce(sum(length(content)), 0) FROM output";
    while all.query_row(bytes, [], |row| row.get::<_, i64>(0))?.unsigned_abs() > bytes_max {
        all.execute("DELETE FROM output WHERE rowid = (SELECT min(rowid) FROM output)", [])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Wall = Wall(1_800_000_000_000_000);

    fn later(seconds: i64) -> Wall {
        Wall(T0.0 + seconds * 1_000_000)
    }

    fn new(nodes: &[&str]) -> NewTask {
        let nodes = nodes.iter().map(|node| node.to_string()).collect();
        NewTask { order: Order::Drain, by: "ann@10.0.0.9".into(), on: "all".into(), nodes, life_s: 60 }
    }

    fn store() -> (tempfile::TempDir, TaskStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = TaskStore::open(dir.path()).unwrap();
        (dir, store)
    }

    fn standing(store: &TaskStore, task: &Task) -> Vec<Progress> {
        let number = store.find(&task.id).unwrap().unwrap();
        store.show(number).unwrap().unwrap().nodes.iter().map(|node| node.progress).collect()
    }

    #[test]
    fn a_task_goes_to_each_slave_until_it_said_how_it_ended_also_after_a_restart_of_the_master() {
        let (dir, store) = store();
        let task = store.order(&new(&["s1", "s2"]), T0).unwrap().unwrap();
        assert_eq!(standing(&store, &task), [Progress::Queued, Progress::Queued]);
        let first = store.hand_out("S1", T0).unwrap();
        assert_eq!((first.len(), first[0].id.as_str(), first[0].withdrawn), (1, task.id.as_str(), false));
        drop(store);
        let store = TaskStore::open(dir.path()).unwrap();
        assert_eq!(store.hand_out("s1", T0).unwrap(), first, "nothing was heard of it yet");
        assert!(store.report("s1", &task.id, Progress::Started, "", T0).unwrap().is_some());
        assert!(store.report("s1", &task.id, Progress::Done, "drained", T0).unwrap().is_some());
        assert!(store.report("s1", &task.id, Progress::Done, "drained", T0).unwrap().is_none(), "that is no news");
        assert!(
            store.report("s1", &task.id, Progress::Started, "", T0).unwrap().is_none(),
            "a late word changes nothing"
        );
        assert!(store.hand_out("s1", T0).unwrap().is_empty());
        assert_eq!(standing(&store, &task), [Progress::Done, Progress::Queued]);
        assert_eq!(store.nodes_with_open().unwrap(), ["s2"]);
        assert!(store.report("s2", "1-00000000", Progress::Done, "", T0).unwrap().is_none(), "another master's task");
    }

    #[test]
    fn a_cancelled_task_never_reaches_who_had_it_not_and_is_withdrawn_from_who_had() {
        let (_dir, store) = store();
        let task = store.order(&new(&["s1", "s2"]), T0).unwrap().unwrap();
        store.hand_out("s1", T0).unwrap();
        let number = store.find(&task.id).unwrap().unwrap();
        let cancelled = store.cancel(number, "bob", later(1)).unwrap().unwrap();
        assert_eq!((cancelled.cancelled_us, cancelled.cancelled_by.as_str()), (later(1).0, "bob"));
        assert_eq!(standing(&store, &task), [Progress::Sent, Progress::Cancelled]);
        assert!(store.hand_out("s2", later(1)).unwrap().is_empty());
        assert!(store.hand_out("s1", later(1)).unwrap()[0].withdrawn);
        // It may have begun before the word came.
        store.report("s1", &task.id, Progress::Done, "", later(2)).unwrap();
        assert_eq!(standing(&store, &task), [Progress::Done, Progress::Cancelled]);
        let again = store.cancel(number, "eve", later(3)).unwrap().unwrap();
        assert_eq!(again.cancelled_by, "bob", "what has ended is not cancelled");
    }

    #[test]
    fn what_waits_too_long_expires_and_a_late_word_still_counts() {
        let (_dir, store) = store();
        let task = store.order(&new(&["s1", "s2"]), T0).unwrap().unwrap();
        store.hand_out("s1", T0).unwrap();
        assert!(store.expire(later(59)).unwrap().is_empty());
        assert!(store.hand_out("s2", later(60)).unwrap().is_empty(), "not a moment longer, whoever looks first");
        let ended = store.expire(later(60)).unwrap();
        assert_eq!(ended.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["s1", "s2"]);
        assert_eq!(standing(&store, &task), [Progress::Expired, Progress::Expired]);
        for ((node, task), words) in ended.iter().zip(["it was on its way to the node", "the node did not come for it"])
        {
            assert!(task.nodes.len() == 1 && task.nodes[0].node == *node, "{task:?}");
            assert!(task.nodes[0].words.starts_with(words), "{task:?}");
        }
        assert!(store.report("s1", &task.id, Progress::Done, "drained", later(90)).unwrap().is_some());
        assert_eq!(standing(&store, &task), [Progress::Done, Progress::Expired]);
    }

    #[test]
    fn what_a_slave_brings_comes_with_its_result_and_goes_with_its_task() {
        let (_dir, store) = store();
        let task = store.order(&new(&["s1"]), T0).unwrap().unwrap();
        let output = Output { name: "verify-s1.json".into(), content: b"[]".to_vec() };
        for _ in 0..2 {
            store.report_with("s1", &task.id, Progress::Done, "all well", Some(&output), T0).unwrap();
        }
        let number = store.find(&task.id).unwrap().unwrap();
        let node = store.show(number).unwrap().unwrap().nodes.remove(0);
        assert_eq!((node.output.as_str(), node.output_bytes), ("verify-s1.json", 2));
        assert_eq!(store.output(number, "S1").unwrap(), Some(output));
        assert_eq!(store.output(number, "s2").unwrap(), None);
    }

    #[test]
    fn beyond_what_is_kept_of_outputs_the_oldest_go() {
        let (_dir, store) = store();
        let task = store.order(&new(&["s1", "s2", "s3"]), T0).unwrap().unwrap();
        for node in ["s2", "s1", "s3"] {
            let output = Output { name: "d.tar.gz".into(), content: vec![0; 10] };
            store.report_with(node, &task.id, Progress::Done, "", Some(&output), T0).unwrap();
        }
        let number = store.find(&task.id).unwrap().unwrap();
        for (bytes_max, kept) in [(30, [10, 10, 10]), (29, [10, 0, 10]), (10, [0, 0, 10]), (9, [0, 0, 0])] {
            store.change("a test", |all| forget_oldest_outputs(all, bytes_max)).unwrap();
            let nodes = store.show(number).unwrap().unwrap().nodes;
            assert_eq!(nodes.iter().map(|node| node.output_bytes).collect::<Vec<_>>(), kept, "{bytes_max}");
        }
    }

    #[test]
    fn a_master_made_anew_gives_no_id_out_again() {
        let [id, of_another] =
            [store(), store()].map(|(_dir, store)| store.order(&new(&["s1"]), T0).unwrap().unwrap().id);
        assert!(id.starts_with("1-") && of_another.starts_with("1-") && id != of_another, "{id} {of_another}");
    }

    #[test]
    fn a_node_that_leaves_takes_its_tasks_and_labels_with_it() {
        let (_dir, store) = store();
        let task = store.order(&new(&["s1", "s2"]), T0).unwrap().unwrap();
        store.note_labels("s1", &["rack-1".into(), "edge".into()]).unwrap();
        assert_eq!(store.labels().unwrap(), [("s1".to_string(), vec!["rack-1".to_string(), "edge".to_string()])]);
        store.forget_node("S1", T0).unwrap();
        assert_eq!(standing(&store, &task), [Progress::Cancelled, Progress::Queued]);
        assert!(store.labels().unwrap().is_empty());
    }

    #[test]
    fn open_tasks_are_bounded_and_the_oldest_ended_ones_are_forgotten() {
        let (_dir, store) = store();
        for _ in 0..TASKS_OPEN_MAX {
            assert!(store.order(&new(&["s1"]), T0).unwrap().is_some());
        }
        assert!(store.order(&new(&["s1"]), T0).unwrap().is_none());
        assert_eq!(store.hand_out("s1", T0).unwrap().len(), TASKS_HANDED_MAX);
        store.expire(later(60)).unwrap();
        // One by one each would wait for the disk.
        store.connection().execute_batch("PRAGMA synchronous = OFF").unwrap();
        for _ in 0..TASKS_KEPT_MAX {
            let task = store.order(&new(&["s1"]), later(60)).unwrap().unwrap();
            store.report("s1", &task.id, Progress::Done, "", later(60)).unwrap();
        }
        assert_eq!(count(&store, "task"), TASKS_KEPT_MAX);
        assert!(store.show(1).unwrap().is_none());
    }

    #[test]
    fn tasks_of_very_many_slaves_are_bounded_by_their_rows() {
        let (_dir, store) = store();
        store.connection().execute_batch("PRAGMA synchronous = OFF").unwrap();
        let names: Vec<String> = (0..20_000).map(|number| format!("s{number}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        for _ in 0..=TASK_ROWS_MAX / all.len() {
            store.order(&new(&all), T0).unwrap().unwrap();
        }
        let count = || count(&store, "task");
        assert_eq!(count(), TASK_ROWS_MAX / all.len() + 1, "what is open is never forgotten");
        store.connection().execute_batch("UPDATE target SET progress = 'expired'").unwrap();
        store.order(&new(&["s1"]), later(60)).unwrap().unwrap();
        assert_eq!((count(), store.show(2).unwrap()), (TASK_ROWS_MAX / all.len(), None));
    }

    fn count(store: &TaskStore, table: &str) -> usize {
        let sql = format!("SELECT count(*) FROM {table}");
        store.connection().query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize
    }
}
