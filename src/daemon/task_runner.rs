//! A slave's tasks: does one after the other what the master orders, each once (`cluster::ledger`), and tells what came of it.

use super::desk::NodeDesk;
use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::Check;
use crate::admin::Diagnostics;
use crate::admin::Memory;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::cluster::MasterLink;
use crate::cluster::ledger::Ledger;
use crate::cluster::ledger::Step;
use crate::cluster::protocol::TaskList;
use crate::cluster::protocol::TaskReport;
use crate::cluster::protocol::fitting;
use crate::cluster::questions::AskMaster;
use crate::cluster::questions::NotTold;
use crate::cluster::sidecar::SlaveHandle;
use crate::cluster::tasks::Handed;
use crate::cluster::tasks::Order;
use crate::cluster::tasks::Output;
use crate::cluster::tasks::Progress;
use crate::limits::TASK_OUTPUT_BYTES_MAX;
use crate::limits::TASK_OUTPUT_TRIES_MAX;
use crate::limits::TASK_RESTART_EXTRA_S;
use crate::limits::TASK_RETRY_MS;
use crate::limits::TASK_RUN_S_MAX;
use crate::tls::random;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::watch;

/// Carries out a slave's tasks. Made by [`Runner::new`], driven by [`Runner::run`].
pub struct Runner {
    desk: Arc<NodeDesk>,
    master: AskMaster,
    tasks: watch::Receiver<Option<TaskList>>,
    link: watch::Receiver<MasterLink>,
    told: String,
    put_off: HashMap<String, PutOff>,
}

/// A result that the master did not take.
struct PutOff {
    tries: u32,
    until: Mono,
}

impl Runner {
    /// Tasks of the node behind `desk`.
    pub fn new(desk: Arc<NodeDesk>, master: AskMaster, slave: &SlaveHandle) -> Self {
        Runner {
            desk,
            master,
            tasks: slave.tasks.clone(),
            link: slave.link.clone(),
            told: String::new(),
            put_off: HashMap::new(),
        }
    }

    /// For as long as the process lives.
    pub async fn run(mut self) {
        let ledger = self.open().await;
        while self.step(&ledger).await.is_some() {}
    }

    async fn open(&mut self) -> Notes {
        let process = data_encoding::HEXLOWER.encode(&random::bytes::<8>());
        loop {
            let (state_dir, process) = (self.desk.facts.state_dir.clone(), process.clone());
            let opened = tokio::task::spawn_blocking(move || Ledger::open(&state_dir, &process)).await;
            match opened.map_err(io::Error::other).and_then(|opened| opened) {
                Ok(ledger) => return Notes(Arc::new(Mutex::new(ledger))),
                Err(error) => self.wait_after(&error).await,
            }
        }
    }

    /// The next thing that is to be done; nothing once the sidecar has ended.
    async fn step(&mut self, notes: &Notes) -> Option<()> {
        let list = self.tasks.borrow_and_update().clone();
        let now = self.masters_clock();
        let put_off = self.put_off();
        let next = notes.with(move |ledger| {
            ledger.next_but(list.as_ref().map(|list| list.tasks.as_slice()), now, |id| put_off.contains(id))
        });
        let done = match next.await {
            Ok(Step::Rest) => return self.rest().await,
            Ok(Step::Begin(task)) => self.carry_out(notes, task).await,
            Ok(Step::Report(report)) => self.report(notes, report).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.told.clear(),
            Err(error) => self.wait_after(&error).await,
        }
        Some(())
    }

    async fn carry_out(&self, notes: &Notes, task: Handed) -> io::Result<()> {
        let begun = task.clone();
        notes.with(move |ledger| ledger.begin(&begun)).await?;
        tracing::info!(event = "task", "doing the master's task {}, {}, ordered by {}", task.id, task.order, task.by);
        // Whether the master hears that it began changes nothing, and it need not wait for that.
        let (master, started) = (self.master.clone(), word(&task, Progress::Started, ""));
        tokio::spawn(async move { master.report_task(&started, &[]).await });
        let Ended { progress, words, output } = self.perform(&task).await;
        tracing::info!(event = "task", "the master's task {}, {}: {progress}. {words}", task.id, task.order);
        notes.with(move |ledger| ledger.end(&task.id, progress, &fitting(&words), output.as_ref())).await
    }

    /// Until there is news, or a result that was put off is due.
    async fn rest(&mut self) -> Option<()> {
        let now = Mono::now();
        // What is due already waits for the master, and its list is news.
        match self.put_off.values().map(|put_off| put_off.until).filter(|until| *until > now).min() {
            None => self.tasks.changed().await.ok(),
            Some(until) => {
                tokio::time::timeout_at(until.0.into(), self.tasks.changed()).await.map_or(Some(()), Result::ok)
            }
        }
    }

    /// The tasks whose results are not due yet.
    fn put_off(&self) -> HashSet<String> {
        let now = Mono::now();
        self.put_off.iter().filter(|(_, put_off)| put_off.until > now).map(|(id, _)| id.clone()).collect()
    }

    async fn report(&mut self, notes: &Notes, report: TaskReport) -> io::Result<()> {
        let mut output = Vec::new();
        if report.output.is_some() {
            let id = report.id.clone();
            match notes.with(move |ledger| output_of(&ledger.output_file(&id))).await {
                Ok(bytes) => output = bytes,
                Err(error) => return self.lose_output(notes, report.id, error.to_string()).await,
            }
        }
        match self.master.report_task(&report, &output).await {
            Ok(()) => {
                self.put_off.remove(&report.id);
                notes.with(move |ledger| ledger.acknowledged(&report.id)).await
            }
            Err(NotTold::Away(words)) => {
                tracing::debug!("telling of the task {}: {words}", report.id);
                // A new contact is as good a moment as any.
                let _ = tokio::time::timeout(Duration::from_millis(TASK_RETRY_MS), self.tasks.changed()).await;
                Ok(())
            }
            Err(NotTold::Refused(words)) if report.output.is_some() => self.lose_output(notes, report.id, words).await,
            Err(NotTold::Refused(words)) => {
                tracing::error!(
                    event = "task-trouble",
                    "the master does not take what came of its task {}: {words}. It is not sent again: there the task will expire",
                    report.id
                );
                notes.with(move |ledger| ledger.acknowledged(&report.id)).await
            }
            Err(NotTold::Failed(words)) => self.put_off_or_lose(notes, report, words).await,
        }
    }

    /// Later tasks go on meanwhile, and not for ever is it tried with the output.
    async fn put_off_or_lose(&mut self, notes: &Notes, report: TaskReport, words: String) -> io::Result<()> {
        let tries = self.put_off.get(&report.id).map_or(1, |before| before.tries.saturating_add(1));
        tracing::debug!("telling of the task {}, try {tries}: {words}", report.id);
        if report.output.is_some() && tries >= TASK_OUTPUT_TRIES_MAX {
            return self
                .lose_output(notes, report.id, format!("sent {tries} times in vain, the last time {words}"))
                .await;
        }
        let pause = Duration::from_millis(TASK_RETRY_MS << tries.min(TASK_OUTPUT_TRIES_MAX).saturating_sub(1));
        self.put_off.insert(report.id, PutOff { tries, until: Mono(Mono::now().0 + pause) });
        Ok(())
    }

    async fn lose_output(&mut self, notes: &Notes, id: String, why: String) -> io::Result<()> {
        tracing::error!(
            event = "task-trouble",
            "what the master's task {id} brought does not reach the master and is deleted: {why}"
        );
        self.put_off.remove(&id);
        notes.with(move |ledger| ledger.lose_output(&id, &why)).await
    }

    async fn perform(&self, task: &Handed) -> Ended {
        let actor =
            Actor::Master { master: self.link.borrow().address.clone(), by: task.by.clone(), task: task.id.clone() };
        let (desk, action) = (self.desk.clone(), action(task.order));
        // A task of its own, so that what takes too long still runs to its end.
        let doing = tokio::spawn(async move { desk.perform(actor, action).await });
        match tokio::time::timeout(Duration::from_secs(TASK_RUN_S_MAX), doing).await {
            Ok(Ok(Ok(_))) if task.order == Order::Restart => self.be_restarted().await,
            Ok(Ok(Ok(outcome))) => ended(outcome, &self.desk.facts.name),
            Ok(Ok(Err(refused))) => Ended::because(Progress::Failed, all_words(&refused)),
            Ok(Err(error)) => {
                Ended::because(Progress::Failed, format!("doing it: {error}; this is a bug of Tidegate's"))
            }
            Err(_) => Ended::because(
                Progress::Unknown,
                format!("it was not over after {TASK_RUN_S_MAX} s and goes on; see the node's journal"),
            ),
        }
    }

    /// The next process notes that it was done: this one ends while it waits here.
    async fn be_restarted(&self) -> Ended {
        let times = self.desk.params.watch().borrow().times;
        let within_s = times.drain_notice + times.drain + TASK_RESTART_EXTRA_S;
        tokio::time::sleep(Duration::from_secs(within_s)).await;
        Ended::because(
            Progress::Failed,
            format!("the node was not replaced by a new process within {within_s} s; see its journal"),
        )
    }

    /// What the master's clock says, as far as this node knows.
    fn masters_clock(&self) -> Wall {
        Wall(Wall::now().0 - self.link.borrow().clock_skew_ms * 1_000)
    }

    async fn wait_after(&mut self, error: &io::Error) {
        let words = error.to_string();
        if words != self.told {
            let dir = self.desk.facts.state_dir.display();
            tracing::error!(
                event = "task-trouble",
                "noting tasks of the master in {dir}: {words}. None is begun before that works: see the disk's room and health"
            );
            self.told = words;
        }
        tokio::time::sleep(Duration::from_millis(TASK_RETRY_MS)).await;
    }
}

/// The ledger, which waits for the disk, on threads that may.
struct Notes(Arc<Mutex<Ledger>>);

impl Notes {
    async fn with<T: Send + 'static>(
        &self,
        note: impl FnOnce(&mut Ledger) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let ledger = self.0.clone();
        let noted =
            tokio::task::spawn_blocking(move || note(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner)));
        noted.await.map_err(io::Error::other)?
    }
}

fn word(task: &Handed, progress: Progress, words: &str) -> TaskReport {
    TaskReport { id: task.id.clone(), progress, words: words.to_string(), output: None }
}

fn action(order: Order) -> Action {
    match order {
        Order::Restart => Action::Restart { backup: false },
        Order::Reload => Action::Reload,
        Order::Drain => Action::Drain { node: None },
        Order::Undrain => Action::Undrain { node: None },
        Order::FlushDns => Action::Flush { memory: Memory::Dns },
        Order::FlushPools => Action::Flush { memory: Memory::Pools },
        Order::RotateLogs => Action::RotateLogs,
        Order::Verify => Action::Verify,
        Order::Diagnostics => Action::Diagnostics { with_log: false },
        Order::Backup => Action::Backup,
    }
}

/// How a task ended.
struct Ended {
    progress: Progress,
    words: String,
    output: Option<Output>,
}

impl Ended {
    fn because(progress: Progress, words: String) -> Ended {
        Ended { progress, words, output: None }
    }
}

fn ended(outcome: Outcome, node: &str) -> Ended {
    match outcome {
        Outcome::Verify { checks } => verified(&checks, node),
        Outcome::Diagnostics(archive) => {
            brought(Order::Diagnostics, *archive, "no secrets are in it, nor who went where")
        }
        Outcome::Backup(archive) => {
            let words = "startup params and policy document, also kept on the node in STATE_DIR/backups; not encrypted, and neither keys nor \
                         records are in it";
            brought(Order::Backup, *archive, words)
        }
        other => Ended::because(Progress::Done, words_of(&other)),
    }
}

/// A checklist with a check that does not hold counts as failed, so that whoever follows learns it from the exit code.
fn verified(checks: &[Check], node: &str) -> Ended {
    let bad: Vec<_> = checks.iter().filter(|check| !check.passed).collect();
    let output =
        Output { name: format!("verify-{node}.json"), content: serde_json::to_vec(checks).unwrap_or_default() };
    let words = bad.iter().map(|check| format!("; {}: {}", check.name, check.words)).collect::<String>();
    Ended {
        progress: if bad.is_empty() { Progress::Done } else { Progress::Failed },
        words: format!("{} of {} checks hold{words}", checks.len() - bad.len(), checks.len()),
        output: Some(output),
    }
}

/// An archive that goes to the master, if it is not too large for that.
fn brought(order: Order, archive: Diagnostics, about: &str) -> Ended {
    let content = data_encoding::BASE64.decode(archive.archive.as_bytes()).unwrap_or_default();
    match content.len() {
        0..=TASK_OUTPUT_BYTES_MAX => Ended {
            progress: Progress::Done,
            words: format!("{} ({} bytes): {about}", archive.file_name, content.len()),
            output: Some(Output { name: archive.file_name, content }),
        },
        bytes => Ended::because(
            Progress::Failed,
            format!(
                "it came to {bytes} bytes, {TASK_OUTPUT_BYTES_MAX} may be sent: use {}",
                order.output_instead().unwrap_or_default()
            ),
        ),
    }
}

/// An output as it waits on the disk.
fn output_of(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(TASK_OUTPUT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > TASK_OUTPUT_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than the {TASK_OUTPUT_BYTES_MAX} bytes that may be sent")));
    }
    Ok(bytes)
}

fn words_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { words } => words.clone(),
        Outcome::Submitted { live, waiting } if live.is_empty() && waiting.is_empty() => {
            "nothing has changed".to_string()
        }
        Outcome::Submitted { live, waiting } => {
            let list = |what: &str, keys: &[String]| {
                if keys.is_empty() { String::new() } else { format!("{what}: {}", keys.join(", ")) }
            };
            let parts = [list("in force", live), list("waiting for a restart", waiting)];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
        }
        _ => String::new(),
    }
}

/// A refusal with every single fault.
fn all_words(refused: &Refused) -> String {
    let complaints =
        refused.complaints.iter().map(|fault| format!("{}: {}; accepted: {}", fault.place, fault.what, fault.remedy));
    std::iter::once(refused.words.clone()).chain(complaints).collect::<Vec<_>>().join(". ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checklist_fails_by_one_check_and_brings_all_of_them() {
        let check = |name: &str, passed| Check { name: name.into(), passed, words: format!("{name} is so") };
        let good = verified(&[check("clock", true), check("log", true)], "s1");
        assert_eq!((good.progress, good.words.as_str()), (Progress::Done, "2 of 2 checks hold"));
        let bad = verified(&[check("clock", true), check("log", false)], "s1");
        assert_eq!((bad.progress, bad.words.as_str()), (Progress::Failed, "1 of 2 checks hold; log: log is so"));
        let output = bad.output.unwrap();
        let brought: Vec<Check> = serde_json::from_slice(&output.content).unwrap();
        assert_eq!((output.name.as_str(), brought.len()), ("verify-s1.json", 2));
    }

    #[test]
    fn an_archive_that_is_too_large_is_not_even_kept_and_the_words_say_where_it_is() {
        let archive = |bytes: usize| Diagnostics {
            file_name: "d.tar.gz".into(),
            archive: data_encoding::BASE64.encode(&vec![7; bytes]),
            contents: Vec::new(),
        };
        let fits = brought(Order::Diagnostics, archive(TASK_OUTPUT_BYTES_MAX), "no secrets");
        assert_eq!((fits.progress, fits.output.unwrap().content.len()), (Progress::Done, TASK_OUTPUT_BYTES_MAX));
        let large = brought(Order::Diagnostics, archive(TASK_OUTPUT_BYTES_MAX + 1), "no secrets");
        assert!(large.progress == Progress::Failed && large.output.is_none());
        assert!(large.words.ends_with("use tidegate diagnostics on the node"), "{}", large.words);
    }
}
