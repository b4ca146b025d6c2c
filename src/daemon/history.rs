//! Keeps a day of figures: of this node, and on a master of its slaves, as they said at their contacts.

use super::desk::NodeDesk;
use crate::base::clock::Wall;
use crate::figures;
use crate::figures::Figures;
use crate::figures::Point;
use crate::limits::CLUSTER_NODES_MAX;
use crate::limits::FIGURES_EVERY_MS;
use crate::limits::HISTORY_WRITE_EVERY;
use crate::store::figures::FigureHistory;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Looks at the nodes every few seconds, and writes what was seen now and then.
pub fn keep(desk: Arc<NodeDesk>, history: Arc<FigureHistory>) {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(FIGURES_EVERY_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut seen, mut troubled) = (Seen::default(), false);
        for round in 1u64.. {
            tick.tick().await;
            for row in desk.nodes() {
                // What a node never said, and what it does not say any more, is no point.
                if row.up && row.figures.start_s > 0 {
                    seen.look(&row.name, Wall(row.last_contact_us), row.figures);
                }
            }
            if round % HISTORY_WRITE_EVERY != 0 {
                continue;
            }
            let (points, history) = (seen.take(), history.clone());
            let now_s = Wall::now().0 / 1_000_000;
            let written = tokio::task::spawn_blocking(move || history.add(&points, now_s)).await;
            match written {
                Ok(Err(error)) if !troubled => {
                    tracing::warn!(
                        event = "store-trouble",
                        "keeping the history of figures: {error}; charts have a gap"
                    );
                    troubled = true;
                }
                Ok(Ok(())) => troubled = false,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    });
}

/// What was seen since it was last written.
#[derive(Default)]
struct Seen {
    last: BTreeMap<String, (Wall, Figures)>,
    points: BTreeMap<(String, i64), Point>,
}

impl Seen {
    fn look(&mut self, node: &str, now: Wall, figures: Figures) {
        match self.last.get_mut(node) {
            Some((then, _)) if *then == now => {}
            Some((then, before)) => {
                let point = figures::between((*then, before), now, &figures);
                (*then, *before) = (now, figures);
                let key = (node.to_string(), point.start_s);
                self.points.entry(key).and_modify(|known| known.add(&point)).or_insert(point);
            }
            None => {
                // Nodes that went away for good make room for new ones.
                if self.last.len() >= 2 * CLUSTER_NODES_MAX {
                    self.last.clear();
                }
                self.last.insert(node.to_string(), (now, figures));
            }
        }
    }

    fn take(&mut self) -> Vec<(String, Point)> {
        std::mem::take(&mut self.points).into_iter().map(|((node, _), point)| (node, point)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_counts_once_and_what_was_taken_does_not_come_again() {
        let figures = |exchanges| Figures { exchanges, start_s: 1, ..Figures::default() };
        let mut seen = Seen::default();
        seen.look("a", Wall(1_000_000), figures(10));
        assert_eq!(seen.take(), [], "nobody knows since when");
        seen.look("a", Wall(2_000_000), figures(15));
        seen.look("a", Wall(2_000_000), figures(15));
        seen.look("a", Wall(3_000_000), figures(16));
        let points = seen.take();
        assert_eq!((points.len(), points[0].1.exchanges, points[0].1.seen_us), (1, 6, 2_000_000));
        assert_eq!(seen.take(), []);
    }
}
