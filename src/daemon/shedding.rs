//! What the journal says when exchanges are refused because no slot is free for their record.

use crate::base::clock::Mono;
use crate::limits::SHEDDING_TOLD_EVERY_MS;

/// How many were refused when it was told last, and when that was.
#[derive(Default)]
pub struct Shedding {
    refused: u64,
    told: Option<Mono>,
}

impl Shedding {
    /// What is to be said now that so many have been refused since the start: at once for the first, then seldom.
    pub fn words(&mut self, refused: u64, now: Mono) -> Option<String> {
        let more = refused.saturating_sub(self.refused);
        let waits = self.told.is_some_and(|told| now.micros_since(told) < SHEDDING_TOLD_EVERY_MS * 1_000);
        if more == 0 || waits {
            return None;
        }
        (self.refused, self.told) = (refused, Some(now));
        Some(format!(
            "{more} exchanges were refused with 503, because every slot for records was taken. Is extended.log in trouble, cure that first \
             (`tidegate status`); otherwise more exchanges were under way at once than RECORD_SLOTS allows on a data core: raise it and \
             restart, or lower the times that slow ones may take"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_first_refusals_are_told_at_once_and_later_ones_together() {
        let (mut shedding, start) = (Shedding::default(), Mono::now());
        let mut at = |ms: u64, refused: u64| {
            let words = shedding.words(refused, Mono(start.0 + Duration::from_millis(ms)));
            words.map(|words| words.split(' ').next().unwrap().to_string())
        };
        assert_eq!(at(0, 0), None);
        assert_eq!(at(5_000, 12).as_deref(), Some("12"));
        assert_eq!(at(10_000, 40), None, "within the minute");
        assert_eq!(at(SHEDDING_TOLD_EVERY_MS + 5_001, 50).as_deref(), Some("38"));
        assert_eq!(at(3 * SHEDDING_TOLD_EVERY_MS, 50), None, "none was refused since");
        assert_eq!(at(3 * SHEDDING_TOLD_EVERY_MS + 1, 51).as_deref(), Some("1"));
    }
}
