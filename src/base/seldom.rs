//! Lines that a peer can cause: told up to a bound, counted beyond it, so that a flood of causes is no flood of lines.

use crate::base::clock::Mono;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Lets `burst` lines through in each window; the rest is counted and told with the next line.
pub struct Seldom {
    burst: u32,
    window_ms: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: Option<Mono>,
    told: u32,
    untold: u64,
}

impl Seldom {
    /// Up to `burst` lines in `window_ms`.
    pub const fn new(burst: u32, window_ms: u64) -> Self {
        Seldom { burst, window_ms, state: Mutex::new(State { begun: None, told: 0, untold: 0 }) }
    }

    /// Whether a line may be told now: then what to put at its end, words about those that were not. Otherwise it is counted.
    pub fn ask(&self, now: Mono) -> Option<String> {
        // A panic while holding it leaves three numbers, each whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = state.begun.is_none_or(|begun| now.micros_since(begun) >= self.window_ms * 1_000);
        if over {
            (state.begun, state.told) = (Some(now), 0);
        }
        if state.told >= self.burst {
            state.untold += 1;
            return None;
        }
        state.told += 1;
        Some(match std::mem::take(&mut state.untold) {
            0 => String::new(),
            untold => format!(" (and {untold} more like it that were not told)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_becomes_a_few_lines_and_a_number() {
        let start = Mono::now();
        let at = |ms: u64| Mono(start.0 + Duration::from_millis(ms));
        let seldom = Seldom::new(2, 10_000);
        assert_eq!(seldom.ask(at(0)).as_deref(), Some(""));
        assert_eq!(seldom.ask(at(1)).as_deref(), Some(""));
        for ms in 2..1_000 {
            assert_eq!(seldom.ask(at(ms)), None);
        }
        assert_eq!(seldom.ask(at(10_000)).as_deref(), Some(" (and 998 more like it that were not told)"));
        assert_eq!(seldom.ask(at(10_001)).as_deref(), Some(""));
        assert_eq!(seldom.ask(at(10_002)), None);
    }
}
