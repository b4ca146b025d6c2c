//! Waits between attempts: doubling with jitter, so that a hundred slaves do not knock at once.

use crate::limits::CLUSTER_BACKOFF_MS_MAX;
use crate::limits::CLUSTER_BACKOFF_MS_MIN;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// How long to wait next.
#[derive(Debug)]
pub struct Backoff {
    next_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next_ms: CLUSTER_BACKOFF_MS_MIN }
    }
}

impl Backoff {
    /// The wait after one more failure: between half and the whole of a span that doubles up to its bound.
    pub fn failed(&mut self) -> Duration {
        self.failed_with(RandomState::new().build_hasher().finish())
    }

    /// It worked: the next failure starts small again.
    pub fn worked(&mut self) {
        *self = Backoff::default();
    }

    fn failed_with(&mut self, random: u64) -> Duration {
        let span = self.next_ms;
        self.next_ms = (span * 2).min(CLUSTER_BACKOFF_MS_MAX);
        Duration::from_millis(span / 2 + random % (span / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_whatever_the_dice_say() {
        for random in [0, 1, 99, u64::MAX] {
            let mut backoff = Backoff::default();
            let waits: Vec<u64> = (0..10).map(|_| backoff.failed_with(random).as_millis() as u64).collect();
            assert!(waits[0] <= CLUSTER_BACKOFF_MS_MIN && waits[0] >= CLUSTER_BACKOFF_MS_MIN / 2);
            assert!(waits[9] <= CLUSTER_BACKOFF_MS_MAX && waits[9] >= CLUSTER_BACKOFF_MS_MAX / 2, "{waits:?}");
            backoff.worked();
            assert!(backoff.failed_with(random).as_millis() as u64 <= CLUSTER_BACKOFF_MS_MIN);
        }
    }
}
