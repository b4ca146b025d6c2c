//! A policy that reaches the slaves in waves, sans-IO: who gets it, what is waited for, and when it is called back.
//!
//! ```text
//! wave 1 --all its slaves report it--> watched for a window --no worse than the rest--> wave 2 ... --> done
//!    |                                        |
//!    '-- refused, not reported in time -------'-- worse, silent, restarted --> reverted: all get the version before
//! ```

use crate::base::clock::Wall;
use crate::cluster::NodeRow;
use crate::figures::Figures;
use crate::limits::ROLLOUT_APPLIED_MS;
use crate::limits::ROLLOUT_CPU_RISE_US;
use crate::limits::ROLLOUT_EXCHANGES_MIN;
use crate::limits::ROLLOUT_NOTES_MAX;
use crate::limits::ROLLOUT_RISE_MILLI;
use crate::limits::ROLLOUT_SILENT_MS;
use crate::limits::ROLLOUT_START_SLACK_S;
use crate::limits::ROLLOUT_WAVES_MAX;
use crate::limits::ROLLOUT_WINDOW_S_MAX;
use crate::limits::ROLLOUT_WINDOW_S_MIN;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// How many slaves have the new version once a wave is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// So many.
    Nodes(u32),
    /// So many of a hundred of those that are up, and at least one.
    Percent(u8),
    /// All, those too that come later.
    All,
}

/// The waves of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In order; the last is [`Size::All`].
    pub waves: Vec<Size>,
    /// How long each wave but the last is watched, in seconds.
    pub window_s: u64,
}

impl Plan {
    /// Reads what an administrator writes: `1,25%,all`.
    pub fn parse(waves: &str, window_s: u64) -> Result<Plan, String> {
        if !(ROLLOUT_WINDOW_S_MIN..=ROLLOUT_WINDOW_S_MAX).contains(&window_s) {
            return Err(format!(
                "the window is {window_s} s; from {ROLLOUT_WINDOW_S_MIN} to {ROLLOUT_WINDOW_S_MAX} s are accepted"
            ));
        }
        let mut read = waves.split(',').map(|text| size(text.trim())).collect::<Result<Vec<_>, _>>()?;
        if read.last() != Some(&Size::All) {
            read.push(Size::All);
        }
        if read.len() > ROLLOUT_WAVES_MAX || read[..read.len() - 1].contains(&Size::All) {
            return Err(format!("the waves {waves:?} are more than {ROLLOUT_WAVES_MAX}, or go on after `all`"));
        }
        Ok(Plan { waves: read, window_s })
    }
}

fn size(text: &str) -> Result<Size, String> {
    let wrong = || format!("the wave {text:?} is neither a number of slaves, a percentage such as 25%, nor `all`");
    match text.strip_suffix('%') {
        _ if text.eq_ignore_ascii_case("all") => Ok(Size::All),
        Some(percent) => {
            let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
            percent.map(Size::Percent).ok_or_else(wrong)
        }
        None => text.parse().ok().filter(|count| *count > 0).map(Size::Nodes).ok_or_else(wrong),
    }
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Every slave gets the new version.
    Done,
    /// Every slave gets the version before.
    Reverted,
}

/// A rollout, as it is kept on disk and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The version that is rolled out.
    pub version: u64,
    /// Its snapshot's name.
    pub snapshot: String,
    /// The version before.
    pub before: u64,
    /// Its snapshot's name.
    pub before_snapshot: String,
    /// The waves.
    pub plan: Plan,
    /// Who applied it.
    pub by: String,
    /// When, microseconds since the epoch.
    pub started_us: i64,
    /// The wave that is out, counted from 1; 0 before the first.
    pub wave: usize,
    /// The slaves of all waves so far, in small letters.
    pub members: BTreeSet<String>,
    /// What happened, oldest first.
    pub notes: Vec<String>,
    /// How it ended; nothing while it runs.
    pub end: Option<End>,
    /// Since when this wave is waited for or watched: not kept, so that a master that was restarted begins the wave's waiting anew.
    #[serde(skip)]
    phase: Phase,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing was looked at since this process knows of it.
    #[default]
    Fresh,
    /// The wave's slaves have until then to report the version.
    Spreading { until: Wall },
    /// They have it; figures are compared at the end.
    Watching { until: Wall, figures: BTreeMap<String, Figures> },
}

impl Rollout {
    /// A rollout of which nothing is out yet. `versions` and `snapshots`: the new one, then the one before.
    pub fn new(versions: (u64, u64), snapshots: (&str, &str), plan: Plan, by: &str, now: Wall) -> Rollout {
        Rollout {
            version: versions.0,
            snapshot: snapshots.0.to_string(),
            before: versions.1,
            before_snapshot: snapshots.1.to_string(),
            plan,
            by: by.to_string(),
            started_us: now.0,
            wave: 0,
            members: BTreeSet::new(),
            notes: Vec::new(),
            end: None,
            phase: Phase::Fresh,
        }
    }

    /// Whether the slave gets the new version.
    pub fn includes(&self, node: &str) -> bool {
        match self.end {
            Some(End::Done) => true,
            Some(End::Reverted) => false,
            None => self.is_last() || self.members.contains(&key(node)),
        }
    }

    /// Looks at the slaves. True: something changed that must be kept and acted on.
    pub fn look(&mut self, now: Wall, slaves: &[NodeRow]) -> bool {
        if self.end.is_some() {
            return false;
        }
        if let Some(why) = self.fault(now, slaves) {
            self.revert(&why);
            return true;
        }
        match std::mem::take(&mut self.phase) {
            Phase::Fresh if self.wave == 0 => self.next_wave(now, slaves),
            Phase::Fresh => {
                self.note(format!(
                    "wave {}: the master was restarted; the wave goes on, its waiting begins anew",
                    self.wave
                ));
                self.phase = spreading(now);
                true
            }
            Phase::Spreading { until } => self.spread(until, now, slaves),
            Phase::Watching { until, figures } if now < until || !self.has_told_since(until, &figures, slaves) => {
                self.phase = Phase::Watching { until, figures };
                false
            }
            Phase::Watching { figures, .. } => match self.judge(&figures, slaves) {
                Ok(words) => {
                    self.note(words);
                    self.next_wave(now, slaves)
                }
                Err(why) => {
                    self.revert(&why);
                    true
                }
            },
        }
    }

    /// Calls it back: every slave gets the version before.
    pub fn revert(&mut self, why: &str) {
        self.note(format!("reverted to version {}: {why}", self.before));
        self.end = Some(End::Reverted);
    }

    /// Sends it to every slave at once, whatever the figures say.
    pub fn skip(&mut self, why: &str) {
        self.note(format!("version {} goes to every slave at once, unwatched: {why}", self.version));
        self.end = Some(End::Done);
    }

    fn is_last(&self) -> bool {
        self.wave > 0 && self.wave >= self.plan.waves.len()
    }

    /// A slave of the wave that refuses the version, or that fell silent or started again while it was watched.
    fn fault(&self, now: Wall, slaves: &[NodeRow]) -> Option<String> {
        let refusal = refusal_words(&self.snapshot);
        // A caller that was turned away is not the slave whose name it gives.
        for row in slaves.iter().filter(|row| row.refusal.is_empty() && self.includes(&row.name)) {
            if row.error.starts_with(&refusal) {
                return Some(format!("{} refused it: {}", row.name, row.error));
            }
            let Phase::Watching { figures, .. } = &self.phase else { continue };
            let Some(before) = figures.get(&key(&row.name)) else { continue };
            if !row.up || now.0 - row.last_contact_us >= ROLLOUT_SILENT_MS as i64 * 1_000 {
                return Some(format!("{} fell silent after it had it", row.name));
            }
            if row.figures.start_s.abs_diff(before.start_s) > ROLLOUT_START_SLACK_S {
                return Some(format!("the process of {} ended and was started again after it had it", row.name));
            }
        }
        None
    }

    /// Whether every watched slave of the wave was heard of after the window: until then one that has stopped looks as well as ever.
    fn has_told_since(&self, until: Wall, watched: &BTreeMap<String, Figures>, slaves: &[NodeRow]) -> bool {
        slaves
            .iter()
            .filter(|row| row.refusal.is_empty() && self.includes(&row.name) && watched.contains_key(&key(&row.name)))
            .all(|row| row.last_contact_us >= until.0)
    }

    fn next_wave(&mut self, now: Wall, slaves: &[NodeRow]) -> bool {
        if self.is_last() {
            self.note(
                "done: every slave that is up enforces it; those that are away get it when they are back".to_string(),
            );
            self.end = Some(End::Done);
            return true;
        }
        let up: Vec<String> = slaves.iter().filter(|row| is_slave(row)).map(|row| key(&row.name)).collect();
        let size = self.plan.waves[self.wave];
        let count = match size {
            Size::Nodes(count) => count as usize,
            Size::Percent(percent) => (up.len() * usize::from(percent)).div_ceil(100).max(1),
            Size::All => up.len(),
        };
        self.wave += 1;
        let before = self.members.len();
        for name in up {
            if self.members.len() >= count && size != Size::All {
                break;
            }
            self.members.insert(name);
        }
        let names: Vec<&str> = self.members.iter().map(String::as_str).collect();
        let words = match (self.members.len() - before, size) {
            (_, Size::All) => "all slaves".to_string(),
            (0, _) => "no further slave: the waves before have as many".to_string(),
            _ => names.join(", "),
        };
        self.note(format!("wave {} of {}: {words}", self.wave, self.plan.waves.len()));
        if self.members.len() == before && size != Size::All {
            return self.next_wave(now, slaves);
        }
        self.phase = spreading(now);
        true
    }

    fn spread(&mut self, until: Wall, now: Wall, slaves: &[NodeRow]) -> bool {
        let has_it = |name: &String| slaves.iter().any(|row| key(&row.name) == *name && row.snapshot == self.snapshot);
        let missing: Vec<&str> = self.members.iter().filter(|name| !has_it(name)).map(String::as_str).collect();
        if !missing.is_empty() {
            if now >= until {
                let (names, seconds) = (missing.join(", "), ROLLOUT_APPLIED_MS / 1_000);
                self.revert(&format!("{names} did not report it within {seconds} s"));
                return true;
            }
            self.phase = Phase::Spreading { until };
            return false;
        }
        let has_rest = slaves.iter().any(|row| is_slave(row) && !self.includes(&row.name));
        if self.is_last() || !has_rest {
            if !self.is_last() {
                self.note(format!(
                    "wave {}: reported by all its slaves; no slave is left to compare them with, so nothing more is waited for",
                    self.wave
                ));
            }
            return self.next_wave(now, slaves);
        }
        let watched = slaves.iter().filter(|row| row.refusal.is_empty() && (row.up || self.includes(&row.name)));
        let figures = watched.map(|row| (key(&row.name), row.figures.clone()));
        let until = Wall(now.0 + self.plan.window_s as i64 * 1_000_000);
        self.phase = Phase::Watching { until, figures: figures.collect() };
        self.note(format!("wave {}: reported by all its slaves; watched for {} s", self.wave, self.plan.window_s));
        true
    }

    /// The wave beside the rest: words to go on, or why not.
    fn judge(&self, before: &BTreeMap<String, Figures>, slaves: &[NodeRow]) -> Result<String, String> {
        let (mut wave, mut rest) = (Sums::default(), Sums::default());
        for row in slaves.iter().filter(|row| row.refusal.is_empty()) {
            let Some(before) = before.get(&key(&row.name)) else { continue };
            if self.includes(&row.name) { wave.add(before, &row.figures) } else { rest.add(before, &row.figures) }
        }
        let least = wave.exchanges.min(rest.exchanges);
        if least < ROLLOUT_EXCHANGES_MIN {
            return Ok(format!(
                "wave {}: too little traffic to judge by ({} exchanges in the wave, {} in the rest, {ROLLOUT_EXCHANGES_MIN} are \
                 needed in both), so its reports alone count",
                self.wave, wave.exchanges, rest.exchanges
            ));
        }
        let shares = [
            ("blocked", wave.denied, rest.denied),
            ("answered with 5xx", wave.answered_5xx, rest.answered_5xx),
            ("without a connection to an origin or parent", wave.connect_failed, rest.connect_failed),
            ("failed by the other side", wave.servers, rest.servers),
            ("failed by the node itself", wave.own, rest.own),
        ];
        let mut worse = Vec::new();
        for (what, ours, theirs) in shares {
            let (ours, theirs) = (milli(ours, wave.exchanges), milli(theirs, rest.exchanges));
            if ours > 2 * theirs && ours > theirs + ROLLOUT_RISE_MILLI {
                let (ours, theirs) = (percent(ours), percent(theirs));
                worse.push(format!("{what}: {ours} of the wave's exchanges, {theirs} of the rest's"));
            }
        }
        let (ours, theirs) = (wave.cpu_us / wave.exchanges, rest.cpu_us / rest.exchanges);
        if ours > 2 * theirs && ours > theirs + ROLLOUT_CPU_RISE_US {
            worse.push(format!("CPU time: {ours} us for an exchange in the wave, {theirs} us in the rest"));
        }
        // All that is worse: an unreachable parent shows as 5xx, too, and the one explains the other.
        if !worse.is_empty() {
            return Err(worse.join("; "));
        }
        Ok(format!(
            "wave {}: no worse than the rest ({} of {} exchanges blocked, {} of {} in the rest)",
            self.wave, wave.denied, wave.exchanges, rest.denied, rest.exchanges
        ))
    }

    fn note(&mut self, words: String) {
        if self.notes.len() < ROLLOUT_NOTES_MAX {
            self.notes.push(words);
        }
    }
}

/// What some slaves did in a window.
#[derive(Default)]
struct Sums {
    exchanges: u64,
    denied: u64,
    answered_5xx: u64,
    connect_failed: u64,
    servers: u64,
    own: u64,
    cpu_us: u64,
}

impl Sums {
    fn add(&mut self, before: &Figures, now: &Figures) {
        let grown = |of: &dyn Fn(&Figures) -> u64| of(now).saturating_sub(of(before));
        let failures = |blames: &'static [usize]| {
            move |figures: &Figures| {
                blames.iter().fold(0_u64, |sum, blame| sum.saturating_add(figures.failures[*blame]))
            }
        };
        self.exchanges = self.exchanges.saturating_add(grown(&|figures| figures.exchanges));
        self.denied = self.denied.saturating_add(grown(&Figures::denied));
        self.answered_5xx = self.answered_5xx.saturating_add(grown(&|figures| figures.answered_5xx));
        self.connect_failed = self.connect_failed.saturating_add(grown(&|figures| figures.connect_failed));
        // By their places in `figures::BLAMES`: server and server_timeout; time, resource, internal.
        self.servers = self.servers.saturating_add(grown(&failures(&[2, 3])));
        self.own = self.own.saturating_add(grown(&failures(&[4, 5, 6])));
        self.cpu_us = self.cpu_us.saturating_add(grown(&|figures| figures.cpu_us));
    }
}

/// How a slave's words begin that did not take the snapshot of this name.
pub fn refusal_words(snapshot: &str) -> String {
    format!("Policy {snapshot} not taken")
}

fn spreading(now: Wall) -> Phase {
    Phase::Spreading { until: Wall(now.0 + ROLLOUT_APPLIED_MS as i64 * 1_000) }
}

fn is_slave(row: &NodeRow) -> bool {
    row.up && row.refusal.is_empty()
}

fn milli(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1_000).checked_div(whole).unwrap_or(0)
}

fn percent(milli: u64) -> String {
    format!("{}.{} %", milli / 10, milli % 10)
}

/// Node names are compared as host names are: without regard to case.
fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "2-bbbbbbbbbbbb";
    const OLD: &str = "1-aaaaaaaaaaaa";

    fn at(seconds: u64) -> Wall {
        Wall(1_800_000_000_000_000 + seconds as i64 * 1_000_000)
    }

    fn slave(name: &str, snapshot: &str, exchanges: u64, denied: u64) -> NodeRow {
        let mut figures = Figures { exchanges, cpu_us: exchanges * 100, ..Figures::default() };
        figures.denials[0] = denied;
        let last_contact_us = at(1_000_000).0;
        NodeRow {
            name: name.into(),
            snapshot: snapshot.into(),
            up: true,
            last_contact_us,
            figures,
            ..NodeRow::default()
        }
    }

    fn rollout(waves: &str) -> Rollout {
        Rollout::new((2, 1), (NEW, OLD), Plan::parse(waves, 30).unwrap(), "ann", at(0))
    }

    fn last(rollout: &Rollout) -> &str {
        rollout.notes.last().map_or("", String::as_str)
    }

    #[test]
    fn waves_are_read_as_written_and_end_with_all() {
        let read = |text| Plan::parse(text, 30).map(|plan| plan.waves);
        assert_eq!(read("1,25%,all"), Ok(vec![Size::Nodes(1), Size::Percent(25), Size::All]));
        assert_eq!(read(" 2 , 50%"), Ok(vec![Size::Nodes(2), Size::Percent(50), Size::All]));
        for bad in ["", "0", "101%", "x", "all,1", "-1", "1,,2", &"1,".repeat(40)] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(Plan::parse("1", 1).is_err() && Plan::parse("1", 1_000_000).is_err());
    }

    #[test]
    fn a_wave_waits_for_its_reports_then_is_compared_with_the_rest() {
        let mut run = rollout("1,all");
        let old = ["a", "b", "c"].map(|name| slave(name, OLD, 0, 0));
        assert!(run.look(at(0), &old));
        assert!(run.includes("A") && !run.includes("b"), "{run:?}");
        assert!(!run.look(at(1), &old));
        let mut rows = old.clone();
        rows[0].snapshot = NEW.into();
        assert!(run.look(at(2), &rows));
        assert!(!run.look(at(31), &rows), "the window is not over");
        let good = [slave("a", NEW, 1_000, 30), slave("b", OLD, 800, 20), slave("c", OLD, 900, 20)];
        assert!(run.look(at(32), &good));
        assert!(run.includes("late comer") && run.end.is_none(), "{run:?}");
        let all = ["a", "b", "c"].map(|name| slave(name, NEW, 2_000, 30));
        assert!(run.look(at(33), &all));
        assert_eq!(run.end, Some(End::Done), "{run:?}");
    }

    #[test]
    fn what_is_worse_than_the_rest_reverts_the_wave_and_says_why() {
        type Change = fn(&mut NodeRow);
        let changes: [(&str, Change); 8] = [
            ("blocked: 30.0 %", |row| row.figures.denials[0] = 300),
            ("answered with 5xx: 30.0 %", |row| row.figures.answered_5xx = 300),
            ("without a connection to an origin or parent", |row| row.figures.connect_failed = 300),
            ("failed by the other side", |row| row.figures.failures[3] = 300),
            ("failed by the node itself", |row| row.figures.failures[6] = 300),
            ("CPU time", |row| row.figures.cpu_us = 2_000_000),
            ("fell silent", |row| row.up = false),
            ("started again", |row| row.figures.start_s = 1_000),
        ];
        for (why, change) in changes {
            let mut run = rollout("1,all");
            let old = ["a", "b"].map(|name| slave(name, OLD, 0, 0));
            run.look(at(0), &old);
            run.look(at(1), &[slave("a", NEW, 0, 0), old[1].clone()]);
            let mut bad = [slave("a", NEW, 1_000, 10), slave("b", OLD, 1_000, 10)];
            change(&mut bad[0]);
            assert!(run.look(at(31), &bad), "{why}");
            assert_eq!(run.end, Some(End::Reverted), "{why}: {run:?}");
            assert!(last(&run).contains(why), "{why}: {}", last(&run));
            assert!(!run.includes("a"));
        }
    }

    /// Whether a slave is up takes up to twice its SYNCTIME to tell: longer than a window may be.
    #[test]
    fn a_slave_of_the_wave_that_says_nothing_is_not_judged_but_waited_for_until_it_counts_as_silent() {
        let watched = || {
            let mut run = rollout("1,all");
            run.look(at(0), &["a", "b"].map(|name| slave(name, OLD, 0, 0)));
            run.look(at(1), &[slave("a", NEW, 0, 0), slave("b", OLD, 0, 0)]);
            run
        };
        let rows = |heard| {
            let mut rows = [slave("a", NEW, 1_000, 10), slave("b", OLD, 1_000, 10)];
            rows[0].last_contact_us = at(heard).0;
            rows
        };
        let mut run = watched();
        assert!(!run.look(at(31), &rows(20)), "it was not heard of since the window: {run:?}");
        assert!(!run.look(at(34), &rows(20)));
        assert!(run.look(at(35), &rows(20)));
        assert!(last(&run).contains("a fell silent") && run.end == Some(End::Reverted), "{run:?}");
        let mut run = watched();
        assert!(!run.look(at(32), &rows(29)));
        assert!(run.look(at(33), &rows(32)));
        assert!(run.includes("b") && run.end.is_none(), "{run:?}");
    }

    #[test]
    fn a_caller_that_was_turned_away_is_not_taken_for_the_slave_whose_name_it_gave() {
        let mut run = rollout("1,all");
        let stranger = NodeRow { name: "a".into(), refusal: "another key".into(), ..NodeRow::default() };
        let with_stranger = |rows: [NodeRow; 2]| rows.into_iter().chain([stranger.clone()]).collect::<Vec<_>>();
        run.look(at(0), &with_stranger(["a", "b"].map(|name| slave(name, OLD, 0, 0))));
        run.look(at(1), &with_stranger([slave("a", NEW, 0, 0), slave("b", OLD, 0, 0)]));
        assert!(!run.look(at(2), &with_stranger([slave("a", NEW, 9, 0), slave("b", OLD, 9, 0)])), "{run:?}");
        assert!(run.look(at(31), &with_stranger([slave("a", NEW, 900, 0), slave("b", OLD, 900, 0)])));
        assert!(run.includes("b") && run.end.is_none(), "{run:?}");
    }

    #[test]
    fn a_refusal_or_a_missing_report_reverts_also_in_the_last_wave() {
        let mut run = rollout("all");
        let mut rows = ["a", "b"].map(|name| slave(name, OLD, 0, 0));
        run.look(at(0), &rows);
        rows[0].snapshot = NEW.into();
        rows[1].error = format!("{}, {OLD} kept: the disk is full.", refusal_words(NEW));
        assert!(run.look(at(1), &rows));
        assert!(last(&run).contains("b refused it") && last(&run).contains("the disk is full"), "{}", last(&run));

        let mut run = rollout("1,all");
        let rows = ["a", "b"].map(|name| slave(name, OLD, 0, 0));
        run.look(at(0), &rows);
        assert!(!run.look(at(ROLLOUT_APPLIED_MS / 1_000 - 1), &rows));
        assert!(run.look(at(ROLLOUT_APPLIED_MS / 1_000), &rows));
        assert!(last(&run).contains("a did not report it"), "{}", last(&run));
    }

    #[test]
    fn without_a_rest_or_with_little_traffic_reports_alone_count_and_it_is_said() {
        let mut run = rollout("1,all");
        run.look(at(0), &[slave("a", OLD, 0, 0)]);
        run.look(at(1), &[slave("a", NEW, 0, 0)]);
        assert!(run.notes.iter().any(|note| note.contains("no slave is left to compare")), "{run:?}");
        let mut run = rollout("1,all");
        run.look(at(0), &["a", "b"].map(|name| slave(name, OLD, 0, 0)));
        let rows = [slave("a", NEW, 10, 10), slave("b", OLD, 10, 0)];
        run.look(at(1), &rows);
        run.look(at(31), &rows);
        assert!(run.notes.iter().any(|note| note.contains("too little traffic")), "{run:?}");
        assert!(run.end.is_none() && run.includes("b"));
    }

    #[test]
    fn a_wave_that_adds_nobody_is_passed_over() {
        let mut run = rollout("1,25%,50%,all");
        let rows = ["a", "b", "c", "d"].map(|name| slave(name, OLD, 0, 0));
        run.look(at(0), &rows);
        let members = |run: &Rollout| run.members.len();
        assert_eq!((run.wave, members(&run)), (1, 1));
        let mut rows = rows;
        rows[0].snapshot = NEW.into();
        run.look(at(1), &rows);
        run.look(at(31), &rows);
        assert_eq!((run.wave, members(&run)), (3, 2), "{run:?}");
    }

    #[test]
    fn a_restarted_master_goes_on_with_the_wave_and_says_so() {
        let mut run = rollout("1,all");
        let rows = ["a", "b"].map(|name| slave(name, OLD, 0, 0));
        run.look(at(0), &rows);
        let text = serde_json::to_string(&run).unwrap();
        let mut again: Rollout = serde_json::from_str(&text).unwrap();
        assert!(again.look(at(100), &[]), "no slave is back yet");
        assert!(last(&again).contains("restarted") && again.includes("a") && again.end.is_none());
        assert!(!again.look(at(101), &[]));
    }
}
