//! A slave's notes of its tasks: `STATE_DIR/tasks.json` (format: `docs/formats/tasks.md`). By them a task is done once, whatever is
//! delivered twice and whenever the process dies.
//!
//! ```text
//! handed --begin (on disk first)--> started --end (on disk first)--> ended --the master has it--> acknowledged --expired--> forgotten
//!    `-- withdrawn ----------------------------> ended: cancelled    ^
//!          started, and the process died: begun anew, or ended ------'   (see `Order::may_be_redone`)
//! ```

use crate::base::clock::Wall;
use crate::base::durable;
use crate::cluster::protocol::TaskReport;
use crate::cluster::protocol::fitting;
use crate::limits::TASKS_NOTED_BYTES_MAX;
use crate::limits::TASKS_NOTED_MAX;
use crate::store::tasks::Handed;
use crate::store::tasks::Order;
use crate::store::tasks::Output;
use crate::store::tasks::Progress;
use serde::Deserialize;
use serde::Serialize;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

/// The file in STATE_DIR.
pub const FILE: &str = "tasks.json";
/// The files beside it that hold outputs: these, with a task's id between them.
const OUTPUT_BEGINS: &str = "task-";
const OUTPUT_ENDS: &str = ".output";

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To note this task as begun ([`Ledger::begin`]), then to do it.
    Begin(Handed),
    /// To tell the master this until it has it.
    Report(TaskReport),
    /// Nothing before there is news.
    Rest,
}

/// The notes of one process of a slave.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    /// What no other process is called.
    process: String,
    noted: Noted,
    /// What is noted is not on disk yet.
    unsaved: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Noted {
    /// The notes of before were damaged: which tasks were begun is not known until the master's list was seen.
    lost: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    id: String,
    order: Order,
    expires_us: i64,
    state: State,
    acknowledged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum State {
    Started {
        process: String,
    },
    Ended {
        progress: Progress,
        words: String,
        /// What is in the file [`Ledger::output_file`] is to be called at the master.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
    },
}

impl Ledger {
    /// Reads what the processes before this one noted. Notes that are damaged are set aside: then nothing that may be done only once
    /// is begun before the master was told that nobody knows whether it was done.
    pub fn open(state_dir: &Path, process: &str) -> io::Result<Ledger> {
        let path = state_dir.join(FILE);
        let mut ledger = Ledger { path, process: process.to_string(), noted: Noted::default(), unsaved: false };
        match read(&ledger.path) {
            Ok(noted) => ledger.noted = noted.unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = ledger.path.with_extension("damaged");
                tracing::error!(
                    event = "task-trouble",
                    "the notes of tasks in {} are damaged: {error}. They are kept as {}; a task that may be done once only and was handed out \
                     before is not begun",
                    ledger.path.display(),
                    aside.display()
                );
                fs::copy(&ledger.path, &aside)?;
                ledger.noted.lost = true;
                ledger.unsaved = true;
                ledger.save()?;
            }
            Err(error) => return Err(error),
        }
        ledger.remove_left_outputs(state_dir)?;
        Ok(ledger)
    }

    /// What is to be done, given what the master hands out at the time `now` by its clock; nothing (`None`) while it is away. What
    /// that takes of notes is on disk when it is answered.
    pub fn next(&mut self, handed: Option<&[Handed]>, now: Wall) -> io::Result<Step> {
        self.next_but(handed, now, |_| false)
    }

    /// The same, without the results of the tasks that are `put_off`: what else there is to do does not wait for them.
    pub fn next_but(
        &mut self,
        handed: Option<&[Handed]>,
        now: Wall,
        put_off: impl Fn(&str) -> bool,
    ) -> io::Result<Step> {
        self.save()?;
        let Some(handed) = handed else { return Ok(Step::Rest) };
        self.settle_lost(handed);
        self.settle_interrupted(handed, now);
        self.settle_withdrawn(handed);
        self.forget_old(now);
        self.save()?;
        let mut reports = self.noted.entries.iter().filter_map(Entry::report);
        if let Some(report) = reports.find(|report| !put_off(&report.id)) {
            return Ok(Step::Report(report));
        }
        let room = self.noted.entries.len() < TASKS_NOTED_MAX;
        let due = handed.iter().find(|task| self.is_due(task, now));
        Ok(due.filter(|_| room).map_or(Step::Rest, |task| Step::Begin(task.clone())))
    }

    /// Notes, before it is done, that a task is begun. An error: it must not be done.
    pub fn begin(&mut self, task: &Handed) -> io::Result<()> {
        let before = self.noted.clone();
        self.put(task, State::Started { process: self.process.clone() });
        let saved = self.save();
        if saved.is_err() {
            self.noted = before;
            self.unsaved = false;
        }
        saved
    }

    /// Notes how a task ended, before anybody is told. An error: [`Ledger::next`] will try to bring it to disk before anything else,
    /// without an output that there was no room for: the words say so.
    pub fn end(&mut self, id: &str, progress: Progress, words: &str, output: Option<&Output>) -> io::Result<()> {
        let file = self.output_file(id);
        let Some(entry) = self.noted.entries.iter_mut().find(|entry| entry.id == id) else { return Ok(()) };
        let kept = output.map_or(Ok(()), |output| durable::replace(&file, &output.content, 0o600));
        let name = output.map(|output| output.name.clone());
        entry.state = State::Ended { progress, words: words.to_string(), output: name };
        if let Err(error) = &kept {
            entry.lose_output(&format!("keeping it on the node: {error}"));
        }
        self.unsaved = true;
        self.save().and(kept)
    }

    /// The result of a task goes to the master without its output, for this reason.
    pub fn lose_output(&mut self, id: &str, why: &str) -> io::Result<()> {
        let file = self.output_file(id);
        let Some(entry) = self.noted.entries.iter_mut().find(|entry| entry.id == id) else { return Ok(()) };
        entry.lose_output(why);
        self.unsaved = true;
        self.save()?;
        remove(&file)
    }

    /// Where the output of a task is until the master has it.
    pub fn output_file(&self, id: &str) -> PathBuf {
        self.path.with_file_name(format!("{OUTPUT_BEGINS}{id}{OUTPUT_ENDS}"))
    }

    /// The master has the result on its disk.
    pub fn acknowledged(&mut self, id: &str) -> io::Result<()> {
        let file = self.output_file(id);
        let Some(entry) = self.noted.entries.iter_mut().find(|entry| entry.id == id) else { return Ok(()) };
        entry.acknowledged = true;
        if let State::Ended { words, output, .. } = &mut entry.state {
            // It is kept there now.
            words.clear();
            *output = None;
        }
        self.unsaved = true;
        self.save()?;
        remove(&file)
    }

    /// What was written before a process died that could not note it any more, or forgotten after it was told.
    fn remove_left_outputs(&self, state_dir: &Path) -> io::Result<()> {
        for file in fs::read_dir(state_dir)? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix(OUTPUT_BEGINS).and_then(|name| name.strip_suffix(OUTPUT_ENDS));
            let is_awaited = |id: &str| {
                self.noted
                    .entries
                    .iter()
                    .any(|entry| entry.id == id && matches!(&entry.state, State::Ended { output: Some(_), .. }))
            };
            if id.is_some_and(|id| !is_awaited(id)) {
                remove(&file.path())?;
            }
        }
        Ok(())
    }

    fn is_due(&self, task: &Handed, now: Wall) -> bool {
        let untouched = match self.noted.entries.iter().find(|entry| entry.id == task.id) {
            None => true,
            // What this process began it does not begin again; what another left is here only if it may be redone.
            Some(entry) => matches!(&entry.state, State::Started { process } if *process != self.process),
        };
        untouched && !task.withdrawn && task.expires_us > now.0
    }

    fn settle_lost(&mut self, handed: &[Handed]) {
        if !self.noted.lost {
            return;
        }
        for task in handed.iter().filter(|task| !task.order.may_be_redone()) {
            let words = "the node's notes of its tasks were damaged: whether it was done is not known".to_string();
            self.put(task, State::Ended { progress: Progress::Unknown, words, output: None });
        }
        self.noted.lost = false;
        self.unsaved = true;
    }

    /// Decides about what an earlier process began and did not end.
    fn settle_interrupted(&mut self, handed: &[Handed], now: Wall) {
        for entry in &mut self.noted.entries {
            let State::Started { process } = &entry.state else { continue };
            if *process == self.process {
                continue;
            }
            let wanted = handed.iter().any(|task| task.id == entry.id && !task.withdrawn && task.expires_us > now.0);
            let (progress, words) = match entry.order {
                Order::Restart => (Progress::Done, "restarted: the node runs as a new process"),
                order if order.may_be_redone() && wanted => continue,
                _ => (
                    Progress::Unknown,
                    "the node's process ended in the middle of it: whether it was done is not known",
                ),
            };
            entry.state = State::Ended { progress, words: words.to_string(), output: None };
            self.unsaved = true;
        }
    }

    fn settle_withdrawn(&mut self, handed: &[Handed]) {
        for task in handed.iter().filter(|task| task.withdrawn) {
            if !self.noted.entries.iter().any(|entry| entry.id == task.id) {
                let words = "cancelled before the node began it".to_string();
                self.put(task, State::Ended { progress: Progress::Cancelled, words, output: None });
            }
        }
    }

    /// Who has the result on disk and cannot hand the task out any more needs no note of it; nor, beyond the bound, who has the result.
    fn forget_old(&mut self, now: Wall) {
        let before = self.noted.entries.len();
        self.noted.entries.retain(|entry| !entry.acknowledged || entry.expires_us > now.0);
        while self.noted.entries.len() >= TASKS_NOTED_MAX {
            let Some(oldest) = self.noted.entries.iter().position(|entry| entry.acknowledged) else { break };
            self.noted.entries.remove(oldest);
        }
        self.unsaved |= self.noted.entries.len() != before;
    }

    fn put(&mut self, task: &Handed, state: State) {
        self.noted.entries.retain(|entry| entry.id != task.id);
        self.noted.entries.push(Entry {
            id: task.id.clone(),
            order: task.order,
            expires_us: task.expires_us,
            state,
            acknowledged: false,
        });
        self.unsaved = true;
    }

    fn save(&mut self) -> io::Result<()> {
        if self.unsaved {
            let bytes = serde_json::to_vec(&self.noted).map_err(io::Error::other)?;
            durable::replace(&self.path, &bytes, 0o600)?;
            self.unsaved = false;
        }
        Ok(())
    }
}

impl Entry {
    /// Whoever ordered what was to be brought has not got it: that failed. What a task did beside that stays done.
    fn lose_output(&mut self, why: &str) {
        let State::Ended { progress, words, output } = &mut self.state else { return };
        let Some(name) = output.take() else { return };
        let instead = self.order.output_instead();
        if instead.is_some() && *progress == Progress::Done {
            *progress = Progress::Failed;
        }
        let instead = instead.map_or(String::new(), |instead| format!("; use {instead}"));
        *words = fitting(&format!("{name} did not reach the master and is lost: {why}{instead}. {words}"));
    }

    fn report(&self) -> Option<TaskReport> {
        match &self.state {
            State::Ended { progress, words, output } if !self.acknowledged => Some(TaskReport {
                id: self.id.clone(),
                progress: *progress,
                words: words.clone(),
                output: output.clone(),
            }),
            _ => None,
        }
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> io::Result<Option<Noted>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(TASKS_NOTED_BYTES_MAX).read_to_end(&mut bytes)?;
    let damaged = |error: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, error);
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_000_000);

    fn task(id: &str, order: Order) -> Handed {
        Handed { id: id.into(), order, by: "ann".into(), expires_us: 2_000_000, withdrawn: false }
    }

    fn ended(step: Step) -> (String, Progress) {
        match step {
            Step::Report(report) => (report.id, report.progress),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_task_that_comes_again_and_again_is_begun_once() {
        let dir = tempfile::tempdir().unwrap();
        let list = [task("1-a", Order::Drain)];
        let mut ledger = Ledger::open(dir.path(), "p1").unwrap();
        assert_eq!(
            ledger.next(None, NOW).unwrap(),
            Step::Rest,
            "nothing is begun that the master may have withdrawn meanwhile"
        );
        assert_eq!(ledger.next(Some(&list), NOW).unwrap(), Step::Begin(list[0].clone()));
        ledger.begin(&list[0]).unwrap();
        assert_eq!(ledger.next(Some(&list), NOW).unwrap(), Step::Rest);
        ledger.end("1-a", Progress::Done, "drained", None).unwrap();
        for _ in 0..2 {
            assert_eq!(ended(ledger.next(Some(&list), NOW).unwrap()), ("1-a".into(), Progress::Done));
        }
        ledger.acknowledged("1-a").unwrap();
        let mut ledger = Ledger::open(dir.path(), "p2").unwrap();
        assert_eq!(ledger.next(Some(&list), NOW).unwrap(), Step::Rest);
        assert_eq!(ledger.next(Some(&[]), Wall(2_000_000)).unwrap(), Step::Rest);
        assert!(ledger.noted.entries.is_empty(), "acknowledged and expired");
    }

    #[test]
    fn what_a_dead_process_left_is_begun_anew_or_told_as_what_is_known_of_it() {
        let begun = |order: Order| {
            let dir = tempfile::tempdir().unwrap();
            let mut ledger = Ledger::open(dir.path(), "p1").unwrap();
            ledger.begin(&task("1-a", order)).unwrap();
            drop(ledger);
            let ledger = Ledger::open(dir.path(), "p2").unwrap();
            (dir, ledger)
        };
        let (_dir, mut ledger) = begun(Order::Restart);
        assert_eq!(ended(ledger.next(Some(&[]), NOW).unwrap()), ("1-a".into(), Progress::Done));
        let (_dir, mut ledger) = begun(Order::Drain);
        let list = [task("1-a", Order::Drain)];
        assert_eq!(ledger.next(None, NOW).unwrap(), Step::Rest, "whether it is still wanted only the master knows");
        assert_eq!(ledger.next(Some(&list), NOW).unwrap(), Step::Begin(list[0].clone()));
        for list in [vec![], vec![Handed { withdrawn: true, ..task("1-a", Order::Drain) }]] {
            let (_dir, mut ledger) = begun(Order::Drain);
            assert_eq!(ended(ledger.next(Some(&list), NOW).unwrap()), ("1-a".into(), Progress::Unknown));
        }
    }

    #[test]
    fn what_is_withdrawn_or_expired_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), "p1").unwrap();
        let list = [task("1-a", Order::Drain)];
        assert_eq!(ledger.next(Some(&list), Wall(2_000_000)).unwrap(), Step::Rest);
        let list = [Handed { withdrawn: true, ..task("1-a", Order::Drain) }];
        assert_eq!(ended(ledger.next(Some(&list), NOW).unwrap()), ("1-a".into(), Progress::Cancelled));
        // Had the cancel crossed with something older that handed it out: it stays cancelled.
        assert_eq!(
            ended(ledger.next(Some(&[task("1-a", Order::Drain)]), NOW).unwrap()),
            ("1-a".into(), Progress::Cancelled)
        );
    }

    #[test]
    fn damaged_notes_begin_nothing_twice_that_may_be_done_once_only() {
        let dir = tempfile::tempdir().unwrap();
        for damage in [&b""[..], b"{", b"null", b"{\"lost\":false,\"entries\":[{}]}"] {
            fs::write(dir.path().join(FILE), damage).unwrap();
            // Also if it dies before the master's list comes.
            drop(Ledger::open(dir.path(), "p1").unwrap());
            let mut ledger = Ledger::open(dir.path(), "p2").unwrap();
            let list = [task("1-a", Order::Restart), task("2-b", Order::Drain)];
            assert_eq!(ended(ledger.next(Some(&list), NOW).unwrap()), ("1-a".into(), Progress::Unknown));
            ledger.acknowledged("1-a").unwrap();
            assert_eq!(ledger.next(Some(&list), NOW).unwrap(), Step::Begin(list[1].clone()));
            let newer = [task("3-c", Order::Restart)];
            assert_eq!(ledger.next(Some(&newer), NOW).unwrap(), Step::Begin(newer[0].clone()));
            assert_eq!(fs::read(dir.path().join("tasks.damaged")).unwrap(), damage);
        }
    }

    #[test]
    fn nothing_is_begun_that_cannot_be_noted_and_a_result_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), "p1").unwrap();
        let list = [task("1-a", Order::Drain), task("2-b", Order::Drain)];
        ledger.begin(&list[0]).unwrap();
        let path = std::mem::replace(&mut ledger.path, dir.path().join("absent/tasks.json"));
        assert!(ledger.begin(&list[1]).is_err());
        assert!(ledger.end("1-a", Progress::Done, "", None).is_err());
        assert!(ledger.next(Some(&list), NOW).is_err(), "and so nobody is told");
        ledger.path = path;
        assert_eq!(ended(ledger.next(Some(&list), NOW).unwrap()), ("1-a".into(), Progress::Done));
        let mut ledger = Ledger::open(dir.path(), "p2").unwrap();
        assert_eq!(ended(ledger.next(Some(&list), NOW).unwrap()), ("1-a".into(), Progress::Done));
    }

    #[test]
    fn an_output_waits_on_the_disk_until_the_master_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let list = [task("1-a", Order::Verify)];
        let mut ledger = Ledger::open(dir.path(), "p1").unwrap();
        ledger.begin(&list[0]).unwrap();
        fs::write(ledger.output_file("9-f"), "of a process that died before it noted it").unwrap();
        let output = Output { name: "verify-s1.json".into(), content: b"[]".to_vec() };
        ledger.end("1-a", Progress::Done, "all well", Some(&output)).unwrap();
        let mut ledger = Ledger::open(dir.path(), "p2").unwrap();
        assert!(!ledger.output_file("9-f").exists());
        let Step::Report(report) = ledger.next(Some(&list), NOW).unwrap() else { panic!("nothing to tell") };
        assert_eq!(report.output.as_deref(), Some("verify-s1.json"));
        assert_eq!(fs::read(ledger.output_file("1-a")).unwrap(), b"[]");
        ledger.acknowledged("1-a").unwrap();
        assert!(!ledger.output_file("1-a").exists());
    }

    #[test]
    fn a_result_that_is_put_off_keeps_nothing_back_and_goes_without_its_output_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let list = [task("1-a", Order::Diagnostics), task("2-b", Order::Drain), task("3-c", Order::Verify)];
        let mut ledger = Ledger::open(dir.path(), "p1").unwrap();
        let output = Output { name: "d.tar.gz".into(), content: vec![0; 9] };
        for place in [0, 2] {
            ledger.begin(&list[place]).unwrap();
            ledger.end(&list[place].id, Progress::Done, "all well", Some(&output)).unwrap();
        }
        let next = |ledger: &mut Ledger, put_off: &[&str]| {
            ledger.next_but(Some(&list), NOW, |id| put_off.contains(&id)).unwrap()
        };
        assert_eq!(ended(next(&mut ledger, &["3-c"])), ("1-a".into(), Progress::Done));
        assert_eq!(ended(next(&mut ledger, &["1-a"])), ("3-c".into(), Progress::Done));
        assert_eq!(next(&mut ledger, &["1-a", "3-c"]), Step::Begin(list[1].clone()));

        for (id, progress) in [("1-a", Progress::Failed), ("3-c", Progress::Done)] {
            ledger.lose_output(id, "the line is narrow").unwrap();
            ledger.lose_output(id, "told twice").unwrap();
            assert!(!ledger.output_file(id).exists());
            let mut ledger = Ledger::open(dir.path(), "p2").unwrap();
            let step = ledger.next_but(Some(&list), NOW, |other| other != id).unwrap();
            let Step::Report(report) = step else { panic!("nothing to tell") };
            assert_eq!((report.progress, report.output), (progress, None));
            assert!(report.words.starts_with("d.tar.gz did not reach the master and is lost: the line is narrow"));
            assert!(report.words.ends_with(". all well"), "{}", report.words);
        }
    }

    #[test]
    fn notes_are_bounded_and_the_oldest_that_the_master_has_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), "p1").unwrap();
        for number in 0..TASKS_NOTED_MAX {
            ledger.put(&task(&format!("{number}"), Order::Drain), State::Started { process: "p1".into() });
        }
        let list = [task("a-new", Order::Drain)];
        assert_eq!(ledger.next(Some(&list), NOW).unwrap(), Step::Rest, "all of them are under way: no room");
        ledger.end("7", Progress::Done, "", None).unwrap();
        ledger.acknowledged("7").unwrap();
        assert_eq!(ledger.next(Some(&list), NOW).unwrap(), Step::Begin(list[0].clone()));
        assert!(!ledger.noted.entries.iter().any(|entry| entry.id == "7"));
    }
}
