//! Long work in short steps, on a processor that a data core may share. A thread that merely goes behind the data cores (nice) still
//! keeps one that wakes waiting, now and then, until the scheduler's next tick (4 ms). One that pauses by itself after a quarter
//! of a millisecond keeps nobody waiting for longer than that, whatever the scheduler thinks whose turn it is.
//!
//! Why not the lowest class of all (SCHED_IDLE): on a processor that is never idle such work does not get done, and records must reach
//! the master, and policies the data cores, just then. Measured: with all processors busy, a small policy took 1.3 s to be in force.

use crate::base::clock::Mono;
use crate::limits::BREATH_EVERY_US;
use crate::limits::BREATH_US;
use std::time::Duration;

/// Bytes that are hashed or packed between two looks at the clock: some 50 microseconds.
pub const BREATH_STEP_BYTES: usize = 64 * 1024;

/// Pauses of a thread that computes for long.
pub struct Breath {
    since: Mono,
}

impl Breath {
    /// At the beginning of the work.
    pub fn start() -> Breath {
        Breath { since: Mono::now() }
    }

    /// Between two steps of the work, each a few dozen microseconds: sleeps for a moment if it is time, and answers whether it did.
    pub fn take(&mut self) -> bool {
        if Mono::now().micros_since(self.since) < BREATH_EVERY_US {
            return false;
        }
        std::thread::sleep(Duration::from_micros(BREATH_US));
        self.since = Mono::now();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_pauses_after_a_while_and_not_before() {
        let mut breath = Breath { since: Mono(Mono::now().0 + Duration::from_secs(60)) };
        assert!(!breath.take(), "it has hardly begun");
        breath.since = Mono(Mono::now().0 - Duration::from_micros(BREATH_EVERY_US));
        let before = breath.since;
        assert!(breath.take());
        assert!(breath.since.micros_since(before) >= BREATH_EVERY_US + BREATH_US, "it slept, and counts anew");
    }
}
