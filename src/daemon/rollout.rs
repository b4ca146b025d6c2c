//! Runs a rollout in waves on the master: looks at the slaves, keeps how far it is before it acts, and calls it back.

use super::audit::Audit;
use super::publish::Publisher;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::cluster::master::HeldBack;
use crate::cluster::master::MasterService;
use crate::cluster::rollout::End;
use crate::cluster::rollout::Rollout;
use crate::limits::ROLLOUT_AGAIN_MS;
use crate::limits::ROLLOUT_LOOK_MS;
use crate::limits::ROLLOUT_SILENT_MS;
use crate::limits::ROLLOUT_STALL_MS;
use crate::policy::Snapshot;
use crate::store::policies;
use crate::store::policies::Policies;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

/// The rollouts of a master.
pub struct Rollouts {
    master: Arc<MasterService>,
    policies: Arc<Policies>,
    publisher: Arc<Publisher>,
    audit: Audit,
    running: Mutex<Option<Running>>,
    /// One step at a time: the look every moment, an abort, a skip.
    step: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Running {
    rollout: Rollout,
    before: Arc<Snapshot>,
}

impl Rollouts {
    /// Takes up the rollout that ran when the master stopped, before any slave is served.
    pub fn new(
        master: Arc<MasterService>,
        policies: Arc<Policies>,
        publisher: Arc<Publisher>,
        audit: Audit,
    ) -> Arc<Self> {
        let rollouts = Rollouts {
            master,
            policies,
            publisher,
            audit,
            running: Mutex::new(None),
            step: tokio::sync::Mutex::new(()),
        };
        match rollouts.kept() {
            Ok(Some((rollout, true))) => rollouts.resume(rollout),
            Ok(_) => {}
            Err(refused) => tracing::error!(event = "rollout-trouble", "the rollout of before: {}", refused.words),
        }
        Arc::new(rollouts)
    }

    /// Looks at the slaves until the process ends.
    pub async fn run(self: Arc<Self>) {
        let mut steadiness = Steadiness::default();
        loop {
            tokio::time::sleep(Duration::from_millis(ROLLOUT_LOOK_MS)).await;
            if !steadiness.holds(Mono::now(), Wall::now()) || !self.is_running() {
                continue;
            }
            let kept = {
                let _step = self.step.lock().await;
                let slaves = self.master.nodes();
                self.change(|rollout| rollout.look(Wall::now(), &slaves)).await
            };
            if let Err(words) = kept {
                // Not done either: it is looked at again, from where it stood.
                tracing::error!(event = "rollout-trouble", "{words}");
                tokio::time::sleep(Duration::from_millis(ROLLOUT_AGAIN_MS)).await;
            }
        }
    }

    /// Whether one runs.
    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// Begins one whose version has just become part of the history: every slave keeps `before` until its wave comes.
    pub fn begin(&self, rollout: Rollout, before: Arc<Snapshot>) {
        self.master.hold_back(Some(HeldBack { before: before.clone(), members: BTreeSet::new() }));
        *self.running() = Some(Running { rollout, before });
    }

    /// The newest one.
    pub fn show(&self) -> Result<Outcome, Refused> {
        let running = self.running().as_ref().map(|running| running.rollout.clone());
        let rollout = match running {
            Some(rollout) => Some(rollout),
            None => self.kept()?.map(|(rollout, _)| rollout),
        };
        Ok(Outcome::Rollout { rollout: rollout.map(Box::new) })
    }

    /// Every slave gets the version before.
    pub async fn abort(&self, by: &str, comment: &str) -> Result<Outcome, Refused> {
        self.end(|rollout| rollout.revert(&format!("aborted by {by}: {}", reason(comment)))).await
    }

    /// Every slave gets the new version.
    pub async fn skip(&self, by: &str, comment: &str) -> Result<Outcome, Refused> {
        self.end(|rollout| rollout.skip(&format!("ordered by {by}: {}", reason(comment)))).await
    }

    async fn end(&self, how: impl FnOnce(&mut Rollout)) -> Result<Outcome, Refused> {
        let _step = self.step.lock().await;
        if !self.is_running() {
            return Err(Refused::new(
                RefusedKind::NotFound,
                "no rollout is running; `tidegate policy rollout` shows how the last one ended",
            ));
        }
        let kept = self.change(|rollout| {
            how(rollout);
            true
        });
        kept.await
            .map_err(|words| Refused::failed(format!("{words}. Nothing was changed, the rollout goes on as before")))?;
        self.show()
    }

    /// Changes the rollout by `change`; what it answers true to is kept on the disk first, then told and done. The error says why it could
    /// not be kept; nothing is done then.
    async fn change(&self, change: impl FnOnce(&mut Rollout) -> bool) -> Result<(), String> {
        let Some(mut next) = self.running().clone() else { return Ok(()) };
        let notes = next.rollout.notes.len();
        if !change(&mut next.rollout) {
            *self.running() = Some(next);
            return Ok(());
        }
        let kept = self.keep(&next.rollout).await;
        kept.map_err(|words| format!("keeping how far the rollout of {} is: {words}", next.rollout.snapshot))?;
        for words in next.rollout.notes.iter().skip(notes) {
            tracing::info!(event = "rollout", snapshot = %next.rollout.snapshot, "rollout of {}: {words}", next.rollout.snapshot);
            self.audit.event("policy-rollout", &next.rollout.snapshot, words);
        }
        let Running { rollout, before } = next.clone();
        match rollout.end {
            None => {
                self.hold_back(&rollout, &before);
                *self.running() = Some(next);
            }
            Some(End::Done) => {
                self.master.hold_back(None);
                *self.running() = None;
            }
            Some(End::Reverted) => {
                // The master first: with nobody held back any more, all slaves get what it has.
                if let Err(words) = self.publisher.publish(before, || Ok(())).await {
                    tracing::error!(event = "rollout-trouble", "going back to {}: {words}", rollout.before_snapshot);
                }
                self.master.hold_back(None);
                *self.running() = None;
            }
        }
        Ok(())
    }

    /// The last wave holds nobody back, those neither that come later.
    fn hold_back(&self, rollout: &Rollout, before: &Arc<Snapshot>) {
        let everybody = rollout.wave >= rollout.plan.waves.len();
        let held = HeldBack { before: before.clone(), members: rollout.members.clone() };
        self.master.hold_back((!everybody).then_some(held));
    }

    fn resume(&self, rollout: Rollout) {
        let path = self.policies.snapshot_path(&rollout.before_snapshot);
        match Snapshot::open_held(&path) {
            Ok(before) => {
                let before = Arc::new(before);
                self.hold_back(&rollout, &before);
                tracing::info!(
                    event = "rollout",
                    "the rollout of {} goes on with wave {}",
                    rollout.snapshot,
                    rollout.wave
                );
                *self.running() = Some(Running { rollout, before });
            }
            Err(error) => tracing::error!(
                event = "rollout-trouble",
                "the rollout of {} cannot go on: the snapshot before it, {}, cannot be used ({error}), so every slave gets {}",
                rollout.snapshot,
                path.display(),
                rollout.snapshot
            ),
        }
    }

    async fn keep(&self, rollout: &Rollout) -> Result<(), String> {
        let text = serde_json::to_string(rollout).map_err(|error| error.to_string())?;
        let outcome = match rollout.end {
            None => policies::Outcome::Running,
            Some(End::Done) => policies::Outcome::Done,
            Some(End::Reverted) => policies::Outcome::Reverted,
        };
        let (policies, version) = (self.policies.clone(), rollout.version);
        let kept = tokio::task::spawn_blocking(move || policies.keep_rollout(version, &text, outcome)).await;
        kept.map_err(|error| error.to_string())?.map_err(|error| error.0)
    }

    fn kept(&self) -> Result<Option<(Rollout, bool)>, Refused> {
        let Some((text, runs)) = self.policies.newest_rollout().map_err(|error| Refused::failed(error.0))? else {
            return Ok(None);
        };
        let rollout = serde_json::from_str(&text).map_err(|error| {
            Refused::failed(format!(
                "reading the newest rollout in policy.db: {error}; every slave gets the current version"
            ))
        })?;
        Ok(Some((rollout, runs)))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what is reckoned from clocks can be believed. A master that was held up for long, or whose clock was set, would take its slaves for
/// silent: then they get the time to be heard of again before anything is judged.
#[derive(Default)]
struct Steadiness {
    last: Option<(Mono, Wall)>,
    again: Option<Mono>,
}

impl Steadiness {
    /// To be asked every [`ROLLOUT_LOOK_MS`].
    fn holds(&mut self, now: Mono, wall: Wall) -> bool {
        let strays = self.last.is_some_and(|(last, last_wall)| {
            let passed_us = now.micros_since(last);
            let set_by_us = (wall.0 - last_wall.0).saturating_sub(passed_us as i64);
            passed_us.max(set_by_us.unsigned_abs()) > ROLLOUT_STALL_MS * 1_000
        });
        self.last = Some((now, wall));
        if strays {
            self.again = Some(Mono(now.0 + Duration::from_millis(ROLLOUT_SILENT_MS)));
        }
        self.again.is_none_or(|again| now >= again)
    }
}

fn reason(comment: &str) -> &str {
    if comment.is_empty() { "no reason given" } else { comment }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_stall_or_a_clock_that_was_set_nothing_is_judged_until_slaves_can_have_been_heard_of() {
        let begin = Mono::now();
        // How long nobody asked, in milliseconds; by how much the clock was set meanwhile, in seconds; how long nothing is judged then.
        for (stall_ms, set_s, waits_ms) in [
            (20_000, 0, 15_000),
            (8_250, 0, 15_000),
            (250, 60, 15_000),
            (250, -3_600, 15_000),
            // What the machine's load and a clock that is kept in time do.
            (7_750, 0, 0),
            (250, 7, 0),
            (250, -7, 0),
        ] {
            let mut steadiness = Steadiness::default();
            let mut ask = |ms: u64, set_s: i64| {
                let wall = Wall(1_700_000_000_000_000 + ms as i64 * 1_000 + set_s * 1_000_000);
                steadiness.holds(Mono(begin.0 + Duration::from_millis(ms)), wall)
            };
            assert!(ask(0, 0) && ask(250, 0));
            let after = 250 + stall_ms;
            let waited_ms = (0..).step_by(250).find(|ms| ask(after + ms, set_s));
            assert_eq!(waited_ms, Some(waits_ms), "{stall_ms} ms, {set_s} s");
        }
    }
}
