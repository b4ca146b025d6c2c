//! Time as a value. Words (parsing, policy, sessions) take a [`Wall`] or a [`Mono`]; only machines read the clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock time in microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

impl Wall {
    /// Reads the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall(since.as_micros() as i64)
    }

    /// Whole seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

/// A point on the monotonic clock, for durations and deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub Instant);

impl Mono {
    /// Reads the monotonic clock.
    pub fn now() -> Self {
        Mono(Instant::now())
    }

    /// Microseconds from `earlier` to this point; 0 if `earlier` is later.
    pub fn micros_since(self, earlier: Mono) -> u64 {
        self.0.saturating_duration_since(earlier.0).as_micros() as u64
    }
}
