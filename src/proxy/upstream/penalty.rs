//! Addresses that failed lately: they are tried last for a while, longer each time, until they work again.

use crate::io::Deadline;
use crate::io::Deadlines;
use crate::limits::PENALTIES_MAX;
use crate::limits::PENALTY_MS;
use crate::limits::PENALTY_MS_MAX;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

/// The addresses of one core that failed.
pub(super) struct Penalties {
    table: RefCell<HashMap<SocketAddr, Penalty>>,
    deadlines: Rc<Deadlines>,
}

struct Penalty {
    until: Deadline,
    last_ms: u64,
}

impl Penalties {
    pub(super) fn new(deadlines: &Rc<Deadlines>) -> Penalties {
        Penalties { table: RefCell::default(), deadlines: Rc::clone(deadlines) }
    }

    /// Whether the address is to be tried last.
    pub(super) fn holds(&self, address: SocketAddr) -> bool {
        self.table.borrow().get(&address).is_some_and(|penalty| !self.deadlines.passed(penalty.until))
    }

    /// The address failed, or was so slow that another one won.
    pub(super) fn add(&self, address: SocketAddr) {
        let mut table = self.table.borrow_mut();
        let last_ms = table.get(&address).map_or(PENALTY_MS / 2, |penalty| penalty.last_ms);
        let next_ms = (last_ms * 2).min(PENALTY_MS_MAX);
        if table.len() >= PENALTIES_MAX && !table.contains_key(&address) {
            table.retain(|_, penalty| !self.deadlines.passed(penalty.until));
        }
        // Full of failures that are all fresh: one more is not remembered, and costs its time when it is tried again.
        if table.len() < PENALTIES_MAX || table.contains_key(&address) {
            table.insert(address, Penalty { until: self.deadlines.after(next_ms), last_ms: next_ms });
        }
    }

    /// The address works.
    pub(super) fn forgive(&self, address: SocketAddr) {
        let mut table = self.table.borrow_mut();
        if !table.is_empty() {
            table.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_address_is_avoided_longer_each_time_and_the_table_is_bounded() {
        let penalties = Penalties::new(&Deadlines::new());
        let address = |number: usize| SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 80));
        let last = |number| penalties.table.borrow().get(&address(number)).map(|penalty| penalty.last_ms);
        let mut seen = Vec::new();
        for _ in 0..12 {
            penalties.add(address(1));
            seen.extend(last(1));
        }
        assert!(seen[0] == PENALTY_MS && seen[1] == 2 * PENALTY_MS && seen[11] == PENALTY_MS_MAX, "{seen:?}");
        assert!(penalties.holds(address(1)) && !penalties.holds(address(2)));
        penalties.forgive(address(1));
        assert!(!penalties.holds(address(1)));
        for number in 0..2 * PENALTIES_MAX {
            penalties.add(address(number));
        }
        assert_eq!(penalties.table.borrow().len(), PENALTIES_MAX);
        assert!(penalties.holds(address(7)), "known ones are still known");
    }
}
