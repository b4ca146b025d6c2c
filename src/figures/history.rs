//! A day of figures in intervals of a quarter of an hour: small enough to keep for a thousand nodes.

use super::Figures;
use crate::base::clock::Wall;
use crate::limits::HISTORY_STEP_S;
use serde::Deserialize;
use serde::Serialize;

/// What one node (or all of them together) did in one interval, as far as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// When the interval begins, seconds since 1970.
    pub start_s: i64,
    /// How much of it was seen, in microseconds.
    pub seen_us: u64,
    /// Exchanges ended.
    pub exchanges: u64,
    /// Of these, denied.
    pub denied: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Payload in both directions.
    pub bytes: u64,
    /// The most client connections that were open.
    pub connections_most: u64,
    /// CPU time used, in microseconds.
    pub cpu_us: u64,
    /// The most memory in RAM.
    pub resident_most_bytes: u64,
}

/// The beginning of the interval that `now` is in.
pub fn interval(now: Wall) -> i64 {
    now.0.div_euclid(1_000_000).div_euclid(HISTORY_STEP_S) * HISTORY_STEP_S
}

/// What happened between two looks at a node, the latter at `now`: what a counter grew by, or all of it after a restart.
pub fn between(before: (Wall, &Figures), now: Wall, figures: &Figures) -> Point {
    let (then, old) = before;
    let grown = |of: fn(&Figures) -> u64| match (of(figures), of(old)) {
        (new, old) if new >= old => new - old,
        (new, _) => new,
    };
    Point {
        start_s: interval(now),
        seen_us: now.0.saturating_sub(then.0).clamp(0, HISTORY_STEP_S * 1_000_000) as u64,
        exchanges: grown(|f| f.exchanges),
        denied: grown(Figures::denied),
        failed: grown(Figures::failed),
        bytes: grown(|f| f.upload.saturating_add(f.download)),
        connections_most: figures.connections_open,
        cpu_us: grown(|f| f.cpu_us),
        resident_most_bytes: figures.resident_bytes,
    }
}

impl Point {
    /// Takes in what another look at the same interval saw.
    pub fn add(&mut self, other: &Point) {
        self.seen_us = self.seen_us.saturating_add(other.seen_us);
        self.exchanges = self.exchanges.saturating_add(other.exchanges);
        self.denied = self.denied.saturating_add(other.denied);
        self.failed = self.failed.saturating_add(other.failed);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.connections_most = self.connections_most.max(other.connections_most);
        self.cpu_us = self.cpu_us.saturating_add(other.cpu_us);
        self.resident_most_bytes = self.resident_most_bytes.max(other.resident_most_bytes);
    }

    /// CPU time used, in thousandths of one CPU.
    pub fn cpu_milli(&self) -> u64 {
        self.cpu_us.saturating_mul(1_000).checked_div(self.seen_us).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_is_counted_once_and_a_restart_counts_from_zero() {
        let at = |exchanges, open| Figures {
            exchanges,
            connections_open: open,
            cpu_us: 10 * exchanges,
            ..Figures::default()
        };
        let (first, second, restarted) = (at(100, 5), at(130, 9), at(4, 1));
        let (t0, t1, t2) = (Wall(0), Wall(5_000_000), Wall(10_000_000));
        let mut point = between((t0, &first), t1, &second);
        assert_eq!((point.exchanges, point.connections_most, point.cpu_milli()), (30, 9, 0));
        point.add(&between((t1, &second), t2, &restarted));
        assert_eq!((point.exchanges, point.connections_most, point.seen_us), (34, 9, 10_000_000));
        let back = between((t2, &first), t0, &second);
        assert_eq!(back.seen_us, 0, "a clock that was set back saw nothing");
        assert_eq!(back.cpu_milli(), 0);
        assert_eq!(interval(Wall(1_700_000_123_000_000)) % HISTORY_STEP_S, 0);
    }
}
