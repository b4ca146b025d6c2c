//! The history of figures: a day of every node that this one knows, in SQLite, so that a restart forgets none of it.

use super::database;
use super::database::DatabaseError;
use crate::figures::Point;
use crate::limits::CLUSTER_NODES_MAX;
use crate::limits::HISTORY_KEPT_S;
use crate::limits::HISTORY_STEP_S;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE points (
    node TEXT NOT NULL,
    start_s INTEGER NOT NULL,
    seen_us INTEGER NOT NULL,
    exchanges INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    connections_most INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL,
    resident_most_bytes INTEGER NOT NULL,
    PRIMARY KEY (node, start_s)
) WITHOUT ROWID;";

/// The most rows: a day of each node. Names that come and go cannot make it grow.
const ROWS_MAX: i64 = CLUSTER_NODES_MAX as i64 * (HISTORY_KEPT_S / HISTORY_STEP_S + 1);

/// A day of figures.
pub struct FigureHistory {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl FigureHistory {
    /// Opens or creates the file at `path`.
    pub fn open(path: &Path) -> Result<FigureHistory, DatabaseError> {
        let connection = database::open(path, FORMAT, SCHEMA)?;
        Ok(FigureHistory { connection: Mutex::new(connection), path: path.to_path_buf() })
    }

    /// Adds what was seen of nodes to what is there, and forgets what is older than a day at `now_s`.
    pub fn add(&self, points: &[(String, Point)], now_s: i64) -> Result<(), DatabaseError> {
        self.try_add(points, now_s).map_err(|error| database::failed(&self.path, "writing", &error))
    }

    /// A day of `node`, or of all nodes together, oldest first; an interval in which nothing was seen is not there.
    pub fn day(&self, node: Option<&str>, now_s: i64) -> Result<Vec<Point>, DatabaseError> {
        self.try_day(node, now_s).map_err(|error| database::failed(&self.path, "reading", &error))
    }

    fn try_add(&self, points: &[(String, Point)], now_s: i64) -> rusqlite::Result<()> {
        let mut connection = self.lock();
        let all = connection.transaction()?;
        all.execute("DELETE FROM points WHERE start_s < ?1", [now_s - HISTORY_KEPT_S])?;
        let mut rows: i64 = all.query_row("SELECT count(*) FROM points", [], |row| row.get(0))?;
        for (node, point) in points {
            let key = params![node, point.start_s];
            let known = all
                .query_row("SELECT 1 FROM points WHERE node = ?1 AND start_s = ?2", key, |_| Ok(()))
                .optional()?
                .is_some();
            if !known && rows >= ROWS_MAX {
                continue;
            }
            rows += i64::from(!known);
            all.execute(
                "INSERT INTO points VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (node, start_s) DO UPDATE SET
                    seen_us = seen_us + excluded.seen_us,
                    exchanges = exchanges + excluded.exchanges,
                    denied = denied + excluded.denied,
                    failed = failed + excluded.failed,
                    bytes = bytes + excluded.bytes,
                    connections_most = max(connections_most, excluded.connections_most),
                    cpu_us = cpu_us + excluded.cpu_us,
                    resident_most_bytes = max(resident_most_bytes, excluded.resident_most_bytes)",
                params![
                    node,
                    point.start_s,
                    kept(point.seen_us),
                    kept(point.exchanges),
                    kept(point.denied),
                    kept(point.failed),
                    kept(point.bytes),
                    kept(point.connections_most),
                    kept(point.cpu_us),
                    kept(point.resident_most_bytes)
                ],
            )?;
        }
        all.commit()
    }

    fn try_day(&self, node: Option<&str>, now_s: i64) -> rusqlite::Result<Vec<Point>> {
        let connection = self.lock();
        // Of all nodes: what was seen is that of the one seen longest, the rest adds up.
        let mut asking = connection.prepare_cached(
            "SELECT start_s, max(seen_us), sum(exchanges), sum(denied), sum(failed), sum(bytes), sum(connections_most),
                    sum(cpu_us), sum(resident_most_bytes)
             FROM points WHERE start_s >= ?1 AND start_s <= ?2 AND (?3 IS NULL OR node = ?3)
             GROUP BY start_s ORDER BY start_s",
        )?;
        let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(|number| number.max(0) as u64);
        let points = asking.query_map(params![now_s - HISTORY_KEPT_S, now_s, node], |row| {
            Ok(Point {
                start_s: row.get(0)?,
                seen_us: number(row, 1)?,
                exchanges: number(row, 2)?,
                denied: number(row, 3)?,
                failed: number(row, 4)?,
                bytes: number(row, 5)?,
                connections_most: number(row, 6)?,
                cpu_us: number(row, 7)?,
                resident_most_bytes: number(row, 8)?,
            })
        })?;
        points.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic between two statements leaves a transaction that SQLite rolls back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slave may say any number: one that is kept can be added a thousand times over without an overflow.
fn kept(number: u64) -> i64 {
    number.min(1 << 50) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_adds_up_survives_and_is_forgotten_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("figures.db");
        let point =
            |start_s, exchanges, connections_most| Point { start_s, exchanges, connections_most, ..Point::default() };
        let of = |node: &str, point| (node.to_string(), point);
        let history = FigureHistory::open(&path).unwrap();
        history.add(&[of("a", point(900, 5, 7)), of("b", point(900, 1, 1))], 1_000).unwrap();
        history.add(&[of("a", point(900, 2, 3)), of("a", point(1_800, 9, 1))], 1_900).unwrap();
        drop(history);
        let history = FigureHistory::open(&path).unwrap();
        assert_eq!(history.day(Some("a"), 1_900).unwrap(), [point(900, 7, 7), point(1_800, 9, 1)]);
        assert_eq!(history.day(None, 1_900).unwrap(), [point(900, 8, 8), point(1_800, 9, 1)]);
        assert_eq!(history.day(Some("c"), 1_900).unwrap(), []);
        // Whatever numbers a slave says, nothing overflows.
        let wild = Point { bytes: u64::MAX, seen_us: u64::MAX, ..point(1_800, u64::MAX, u64::MAX) };
        (0..100).for_each(|_| history.add(&[of("a", wild)], 1_900).unwrap());
        assert!(history.day(None, 1_900).unwrap()[1].exchanges > 1 << 50);
        history.add(&[], 1_800 + HISTORY_KEPT_S + 1).unwrap();
        assert_eq!(history.day(None, 1_900).unwrap(), []);
    }
}
