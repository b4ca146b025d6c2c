//! Whether a balancer should send clients to this node: what `/health` answers. Cheap enough for many checks a second.

use super::desk::NodeDesk;
use super::services::NO_TRAFFIC;
use crate::admin::Actor;
use crate::admin::Unfit;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::limits::HEALTH_CORE_STILL_MS;
use crate::settings::LogFull;
use crate::settings::Role;
use std::sync::Mutex;
use std::sync::PoisonError;

/// All that stands against sending clients here.
pub fn reasons(desk: &NodeDesk, actor: &Actor, synced_within_s: Option<u64>) -> Vec<Unfit> {
    let now = Mono::now();
    if let Actor::Visitor { address } = actor
        && let Ok(address) = address.parse()
    {
        desk.drain.checked(address, now);
    }
    if desk.facts.role == Role::Master {
        return vec![unfit("master", NO_TRAFFIC.to_string())];
    }
    let mut reasons = Vec::new();
    if desk.drain.standing().is_some() {
        reasons.push(unfit("draining", "draining: this node is being taken out of service".to_string()));
    }
    if desk.publisher.current().version() == 0 {
        let words = "no policy: this node has none yet and would deny every client".to_string();
        reasons.push(unfit("no-policy", words));
    }
    let counts = desk.params.watch().borrow().log_full == LogFull::Count;
    if !counts && !desk.views.progress.borrow().trouble.is_empty() {
        // The trouble names paths; those are for `tidegate status`.
        reasons.push(unfit("log", "log: records cannot be written; see `tidegate status` on this node".to_string()));
    }
    let still = desk.health.still(&desk.publisher.turns(), now);
    if !still.is_empty() {
        let words = format!("cores: data core {} does not turn; restart the node", numbers(&still));
        reasons.push(unfit("cores", words));
    }
    reasons.extend(synced_within_s.and_then(|within_s| not_synced(desk, within_s)));
    reasons
}

/// When each core was last seen to have turned.
#[derive(Default)]
pub struct Watch(Mutex<Vec<(u64, Mono)>>);

impl Watch {
    /// The cores that have not turned for too long, by what they count now. A stand-still is noticed from the second look on.
    fn still(&self, turns: &[u64], now: Mono) -> Vec<usize> {
        // Nothing panics while holding it.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.resize(turns.len(), (u64::MAX, now));
        let looks = turns.iter().zip(seen.iter_mut()).enumerate();
        let still = looks.filter_map(|(index, (count, (last, when)))| {
            if count != last {
                (*last, *when) = (*count, now);
            }
            (now.micros_since(*when) > HEALTH_CORE_STILL_MS * 1_000).then_some(index)
        });
        still.collect()
    }
}

/// A slave that enforces an old policy because it lost its master, or could not take what the master sent.
fn not_synced(desk: &NodeDesk, within_s: u64) -> Option<Unfit> {
    let link = (desk.views.link)()?;
    let since = Wall::now().0.saturating_sub(link.in_step_us) / 1_000_000;
    if link.in_step_us > 0 && since <= within_s.min(i64::MAX as u64) as i64 {
        return None;
    }
    let words = match link.in_step_us {
        0 => "not synced: this node has not been in step with its master since its start".to_string(),
        _ => format!("not synced: last in step with its master more than {within_s} s ago"),
    };
    Some(unfit("not-synced", words))
}

fn unfit(kind: &str, words: String) -> Unfit {
    Unfit { kind: kind.to_string(), words }
}

fn numbers(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_core_whose_count_stands_still_is_named_and_one_that_goes_on_is_not() {
        let watch = Watch::default();
        let start = Mono::now();
        let at = |ms: u64| Mono(start.0 + Duration::from_millis(ms));
        assert!(watch.still(&[5, 5], at(0)).is_empty(), "nothing is known at the first look");
        assert!(watch.still(&[9, 5], at(1_000)).is_empty());
        assert_eq!(watch.still(&[12, 5], at(2_001)), [1]);
        assert!(watch.still(&[12, 6], at(2_500)).is_empty(), "it turns again");
        assert!(watch.still(&[13, 6], at(3_900)).is_empty());
        assert_eq!(watch.still(&[13, 6], at(60_000)), [0, 1]);
    }
}
