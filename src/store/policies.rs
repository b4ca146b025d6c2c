//! The history of policy: every applied document with its snapshot, author and reason, none ever changed or deleted.
//!
//! `policy.db` in STATE_DIR holds the history; the compiled snapshots stand beside it as files, because they can be as
//! large as [`crate::limits::SNAPSHOT_BYTES_MAX`] and are used mapped. A snapshot is durable before its version is in the
//! history, so whatever the history names is there; a file the history does not name is left over from a crash between the two
//! and is replaced by the next apply.

use crate::base::durable;
use crate::store::database;
use crate::store::database::DatabaseError;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::TransactionBehavior;
use rusqlite::params;
use std::fmt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The history of policy of a master or stand-alone node. Calls block on the disk: never from a data core.
pub struct Policies {
    path: PathBuf,
    snapshots: PathBuf,
    connection: Mutex<Connection>,
}

/// One version to add.
#[derive(Clone, Debug)]
pub struct NewVersion<'a> {
    /// Its number: [`Policies::next_version`] at the time it was compiled.
    pub version: u64,
    /// The snapshot's name, such as `12-3fa9c1d2e0b4`.
    pub snapshot: &'a str,
    /// The snapshot's full hash.
    pub hash: &'a str,
    /// The snapshot file.
    pub bytes: &'a [u8],
    /// What the administrator wrote.
    pub document: &'a str,
    /// Who.
    pub author: &'a str,
    /// Why.
    pub comment: &'a str,
    /// When, microseconds since the epoch.
    pub applied_us: i64,
    /// The version the author started from; `None`: whatever is in force.
    pub base: Option<u64>,
    /// Its rollout in waves, as text of whoever runs it; `None`: it is for all slaves at once.
    pub rollout: Option<&'a str>,
}

/// One version of the history, without its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Counted from 1.
    pub version: u64,
    /// The snapshot's name.
    pub snapshot: String,
    /// The snapshot's full hash.
    pub hash: String,
    /// By whom.
    pub author: String,
    /// Why.
    pub comment: String,
    /// When, microseconds since the epoch.
    pub applied_us: i64,
    /// Whether its rollout in waves was called back: it was never in force everywhere.
    pub reverted: bool,
}

/// One version with its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Everything else about it.
    pub version: Version,
    /// What the administrator wrote.
    pub document: String,
}

/// How a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Running,
    /// Its version is in force everywhere.
    Done,
    /// Its version was called back.
    Reverted,
}

/// Why a version was not added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// Another version came in since `base`, or since the new one was compiled.
    Conflict {
        /// The version in force now.
        current: u64,
        /// Who applied it.
        author: String,
    },
    /// The disk or the database failed; nothing changed.
    Failed(String),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::Conflict { current, author } => write!(
                f,
                "version {current} by {author} was applied in between. Look at what it changed (tidegate policy diff), bring your \
                 change to it (tidegate policy merge) and apply again."
            ),
            AppendError::Failed(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for AppendError {}

impl From<DatabaseError> for AppendError {
    fn from(error: DatabaseError) -> Self {
        AppendError::Failed(error.0)
    }
}

const FORMAT: i64 = 1;
const SCHEMA: &str = "CREATE TABLE versions (
    version    INTEGER PRIMARY KEY CHECK (version > 0),
    snapshot   TEXT NOT NULL UNIQUE,
    hash       TEXT NOT NULL,
    document   TEXT NOT NULL,
    author     TEXT NOT NULL,
    comment    TEXT NOT NULL,
    applied_us INTEGER NOT NULL
) STRICT;
CREATE TRIGGER versions_are_not_changed BEFORE UPDATE ON versions
    BEGIN SELECT RAISE(ABORT, 'the history of policy is not rewritten'); END;
CREATE TRIGGER versions_are_not_deleted BEFORE DELETE ON versions
    BEGIN SELECT RAISE(ABORT, 'the history of policy is not rewritten'); END;";
/// Added to databases of earlier builds when they are opened: format 1 means the table of versions.
const ROLLOUTS: &str = "CREATE TABLE IF NOT EXISTS rollouts (
    version INTEGER PRIMARY KEY REFERENCES versions (version),
    text    TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('running', 'done', 'reverted'))
) STRICT;";
const COLUMNS: &str = "version, snapshot, hash, author, comment, applied_us,
    EXISTS (SELECT 1 FROM rollouts r WHERE r.version = versions.version AND r.outcome = 'reverted')";

impl Policies {
    /// Opens `policy.db` and `snapshots/` in the state directory, creating what is missing.
    pub fn open(state_dir: &Path) -> Result<Policies, DatabaseError> {
        let path = state_dir.join("policy.db");
        let snapshots = state_dir.join("snapshots");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&snapshots).map_err(|error| {
            DatabaseError(format!(
                "cannot make {}: {error}. The daemon's user must own STATE_DIR.",
                snapshots.display()
            ))
        })?;
        let connection = database::open(&path, FORMAT, SCHEMA)?;
        connection.execute_batch(ROLLOUTS).map_err(|error| database::failed(&path, "preparing", &error))?;
        let connection = Mutex::new(connection);
        Ok(Policies { path, snapshots, connection })
    }

    /// The number the next version will have.
    pub fn next_version(&self) -> Result<u64, DatabaseError> {
        highest(&self.connection())
            .map(|highest| highest + 1)
            .map_err(|error| database::failed(&self.path, "reading", &error))
    }

    /// Stores the snapshot, then adds the version, or changes nothing.
    pub fn append(&self, new: &NewVersion) -> Result<(), AppendError> {
        let mut connection = self.connection();
        let doing = |error| database::failed(&self.path, "adding a version to", &error);
        // Immediate: no second writer can come between the look and the insert.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(doing)?;
        let newest = newest(&transaction).map_err(doing)?;
        let (current, author) =
            newest.map_or((0, String::new()), |stored| (stored.version.version, stored.version.author));
        let next = highest(&transaction).map_err(doing)? + 1;
        if new.base.is_some_and(|base| base != current) || new.version != next {
            return Err(AppendError::Conflict { current, author });
        }
        let file = self.snapshot_path(new.snapshot);
        durable::replace(&file, new.bytes, 0o600).map_err(|error| {
            AppendError::Failed(format!(
                "cannot write {}: {error}. The policy in force stays; make room on the disk and apply again.",
                file.display()
            ))
        })?;
        transaction
            .execute(
                "INSERT INTO versions (version, snapshot, hash, document, author, comment, applied_us)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    new.version as i64,
                    new.snapshot,
                    new.hash,
                    new.document,
                    new.author,
                    new.comment,
                    new.applied_us
                ],
            )
            .map_err(doing)?;
        if let Some(text) = new.rollout {
            let sql = "INSERT INTO rollouts (version, text, outcome) VALUES (?1, ?2, 'running')";
            transaction.execute(sql, params![new.version as i64, text]).map_err(doing)?;
        }
        transaction.commit().map_err(doing)?;
        Ok(())
    }

    /// Keeps how far the rollout of `version` is. Once it is reverted, the version before it is the current one again.
    pub fn keep_rollout(&self, version: u64, text: &str, outcome: Outcome) -> Result<(), DatabaseError> {
        let sql = "UPDATE rollouts SET text = ?2, outcome = ?3 WHERE version = ?1";
        let outcome = match outcome {
            Outcome::Running => "running",
            Outcome::Done => "done",
            Outcome::Reverted => "reverted",
        };
        let kept = self.connection().execute(sql, params![version as i64, text, outcome]);
        kept.map(drop).map_err(|error| database::failed(&self.path, "keeping the rollout in", &error))
    }

    /// The newest rollout, and whether it runs.
    pub fn newest_rollout(&self) -> Result<Option<(String, bool)>, DatabaseError> {
        let sql = "SELECT text, outcome = 'running' FROM rollouts ORDER BY version DESC LIMIT 1";
        let found = self.connection().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional();
        found.map_err(|error| database::failed(&self.path, "reading the rollout in", &error))
    }

    /// The newest version whose rollout was not reverted, which is the one in force; `None` before the first apply.
    pub fn current(&self) -> Result<Option<Stored>, DatabaseError> {
        newest(&self.connection()).map_err(|error| database::failed(&self.path, "reading", &error))
    }

    /// One version of the history.
    pub fn get(&self, version: u64) -> Result<Option<Stored>, DatabaseError> {
        let Ok(version) = i64::try_from(version) else { return Ok(None) };
        self.connection()
            .query_row(&format!("SELECT {COLUMNS}, document FROM versions WHERE version = ?1"), [version], stored)
            .optional()
            .map_err(|error| database::failed(&self.path, "reading", &error))
    }

    /// The history, newest first, at most `limit` versions.
    pub fn log(&self, limit: u32) -> Result<Vec<Version>, DatabaseError> {
        let connection = self.connection();
        let read = || {
            let sql = format!("SELECT {COLUMNS} FROM versions ORDER BY version DESC LIMIT ?1");
            connection.prepare(&sql)?.query_map([limit], version)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|error| database::failed(&self.path, "reading", &error))
    }

    /// The file of a snapshot of the history. Whoever reads it verifies it.
    pub fn snapshot_path(&self, snapshot: &str) -> PathBuf {
        self.snapshots.join(format!("{snapshot}.snapshot"))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held left at most an open transaction, which SQLite rolled back when it was dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn newest(connection: &Connection) -> rusqlite::Result<Option<Stored>> {
    let sql = format!(
        "SELECT {COLUMNS}, document FROM versions
         WHERE version NOT IN (SELECT version FROM rollouts WHERE outcome = 'reverted') ORDER BY version DESC LIMIT 1"
    );
    connection.query_row(&sql, [], stored).optional()
}

fn highest(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT COALESCE(MAX(version), 0) FROM versions", [], |row| Ok(row.get::<_, i64>(0)? as u64))
}

fn version(row: &Row) -> rusqlite::Result<Version> {
    Ok(Version {
        version: row.get::<_, i64>(0)? as u64,
        snapshot: row.get(1)?,
        hash: row.get(2)?,
        author: row.get(3)?,
        comment: row.get(4)?,
        applied_us: row.get(5)?,
        reverted: row.get(6)?,
    })
}

fn stored(row: &Row) -> rusqlite::Result<Stored> {
    Ok(Stored { version: version(row)?, document: row.get(7)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn new(version: u64, base: Option<u64>) -> NewVersion<'static> {
        let snapshot: &'static str = Box::leak(format!("{version}-abcdefabcdef").into_boxed_str());
        let document: &'static str = Box::leak(format!("# document {version}\n").into_boxed_str());
        NewVersion {
            version,
            snapshot,
            hash: "abcdef",
            bytes: b"snapshot",
            document,
            author: "ann",
            comment: "why",
            applied_us: 1_000 + version as i64,
            base,
            rollout: None,
        }
    }

    #[test]
    fn versions_come_back_as_they_went_in_also_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let policies = Policies::open(dir.path()).unwrap();
        assert_eq!(policies.current().unwrap(), None);
        assert_eq!(policies.next_version().unwrap(), 1);
        for n in 1..=3 {
            policies.append(&new(n, Some(n - 1))).unwrap();
        }
        drop(policies);
        let policies = Policies::open(dir.path()).unwrap();
        let current = policies.current().unwrap().unwrap();
        assert_eq!((current.version.version, current.document.as_str()), (3, "# document 3\n"));
        assert_eq!(policies.get(2).unwrap().unwrap().version.applied_us, 1_002);
        assert_eq!(policies.get(9).unwrap(), None);
        assert_eq!(policies.get(u64::MAX).unwrap(), None);
        let numbers: Vec<u64> = policies.log(2).unwrap().iter().map(|version| version.version).collect();
        assert_eq!(numbers, [3, 2]);
        assert_eq!(fs::read(policies.snapshot_path(&current.version.snapshot)).unwrap(), b"snapshot");
    }

    #[test]
    fn a_version_from_an_older_base_or_with_a_taken_number_is_a_conflict_that_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let policies = Policies::open(dir.path()).unwrap();
        policies.append(&new(1, None)).unwrap();
        let conflict = AppendError::Conflict { current: 1, author: "ann".to_string() };
        for (version, base) in [(2, Some(0)), (1, None), (3, None), (2, Some(2))] {
            assert_eq!(policies.append(&new(version, base)), Err(conflict.clone()), "{version} on {base:?}");
        }
        assert_eq!(policies.log(10).unwrap().len(), 1);
        policies.append(&new(2, Some(1))).unwrap();
    }

    #[test]
    fn a_reverted_version_stays_in_the_history_and_is_not_the_current_one() {
        let dir = tempfile::tempdir().unwrap();
        let policies = Policies::open(dir.path()).unwrap();
        policies.append(&new(1, None)).unwrap();
        policies.append(&NewVersion { rollout: Some("begun"), ..new(2, Some(1)) }).unwrap();
        assert_eq!(policies.current().unwrap().unwrap().version.version, 2);
        assert_eq!(policies.newest_rollout().unwrap(), Some(("begun".to_string(), true)));
        policies.keep_rollout(2, "called back", Outcome::Reverted).unwrap();
        drop(policies);
        let policies = Policies::open(dir.path()).unwrap();
        assert_eq!(policies.newest_rollout().unwrap(), Some(("called back".to_string(), false)));
        assert_eq!(policies.current().unwrap().unwrap().version.version, 1);
        assert_eq!(policies.next_version().unwrap(), 3);
        assert!(matches!(policies.append(&new(2, None)), Err(AppendError::Conflict { current: 1, .. })));
        policies.append(&new(3, Some(1))).unwrap();
        let reverted: Vec<bool> = policies.log(9).unwrap().iter().map(|version| version.reverted).collect();
        assert_eq!(reverted, [false, true, false]);
    }

    #[test]
    fn the_history_cannot_be_rewritten_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let policies = Policies::open(dir.path()).unwrap();
        policies.append(&new(1, None)).unwrap();
        for sql in ["UPDATE versions SET author = 'eve'", "DELETE FROM versions"] {
            assert!(policies.connection().execute(sql, []).is_err(), "{sql}");
        }
        for file in ["policy.db", "policy.db-wal", "snapshots/1-abcdefabcdef.snapshot"] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{file}");
        }
    }

    #[test]
    fn a_snapshot_that_cannot_be_written_leaves_the_history_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let policies = Policies::open(dir.path()).unwrap();
        fs::remove_dir(dir.path().join("snapshots")).unwrap();
        let error = policies.append(&new(1, None)).unwrap_err();
        assert!(error.to_string().contains("make room"), "{error}");
        assert_eq!(policies.current().unwrap(), None);
    }

    #[test]
    fn a_database_of_another_format_or_no_database_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        drop(Policies::open(dir.path()).unwrap());
        let path = dir.path().join("policy.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
        let words = Policies::open(dir.path()).err().unwrap().to_string();
        assert!(words.contains("format 7") && words.contains("backup"), "{words}");
        for side in ["policy.db-wal", "policy.db-shm"] {
            let _ = fs::remove_file(dir.path().join(side));
        }
        fs::write(&path, "not a database, but long enough to look at".repeat(100)).unwrap();
        let words = Policies::open(dir.path()).err().unwrap().to_string();
        assert!(words.contains("policy.db") && words.contains("backup"), "{words}");
    }
}
