//! Which node has which name, on a master: each name belongs to the key of the first node that came with it, and the keys of
//! removed nodes are barred. `STATE_DIR/nodes.db`; format: `docs/formats/known-nodes.md`.

use crate::base::clock::Wall;
use crate::limits::CLUSTER_BARRED_MAX;
use crate::limits::CLUSTER_MEMBERS_MAX;
use crate::store::database;
use crate::store::database::DatabaseError;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// The file in STATE_DIR.
pub const FILE: &str = "nodes.db";
const VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE member (
    name TEXT PRIMARY KEY NOT NULL COLLATE NOCASE,
    fingerprint TEXT NOT NULL,
    first_seen_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE barred (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    removed_us INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Whose a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The fingerprint of the node's own key.
    pub fingerprint: String,
    /// When it came first.
    pub first_seen: Wall,
}

/// What a node's name and key are to this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its name is its own.
    Member,
    /// Its key was removed under this name.
    Barred(String),
    /// Its name is another node's.
    Taken(Member),
    /// Its name is new, and there is no room for another.
    Full,
}

/// The names and keys of a cluster. Every change is on disk when it is answered.
#[derive(Debug)]
pub struct Members {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Members {
    /// Opens or makes the file in `state_dir`.
    pub fn open(state_dir: &Path) -> Result<Members, DatabaseError> {
        let path = state_dir.join(FILE);
        let connection = Mutex::new(database::open(&path, VERSION, SCHEMA)?);
        Ok(Members { path, connection })
    }

    /// What `name` and `fingerprint` are here. A name that nobody has becomes this node's, durably.
    pub fn meet(&self, name: &str, fingerprint: &str, now: Wall) -> Result<Standing, DatabaseError> {
        let connection = self.connection();
        let found = barred(&connection, fingerprint)
            .and_then(|barred| Ok((barred, member(&connection, name)?)))
            .map_err(|error| self.failed("asking", &error))?;
        match found {
            (Some(removed), _) => return Ok(Standing::Barred(removed)),
            (None, Some(member)) if member.fingerprint == fingerprint => return Ok(Standing::Member),
            (None, Some(other)) => return Ok(Standing::Taken(other)),
            (None, None) => {}
        }
        let added = connection.execute(
            "INSERT INTO member SELECT ?1, ?2, ?3 WHERE (SELECT count(*) FROM member) < ?4",
            params![name, fingerprint, now.0, CLUSTER_MEMBERS_MAX as i64],
        );
        let added = added.map_err(|error| self.failed("writing", &error))?;
        Ok(if added == 1 { Standing::Member } else { Standing::Full })
    }

    /// Takes the name from its node and bars that node's key. Answers false if nobody has the name.
    pub fn remove(&self, name: &str, now: Wall) -> Result<bool, DatabaseError> {
        let mut connection = self.connection();
        let removed = connection.transaction().and_then(|change| {
            let Some(member) = member(&change, name)? else { return Ok(false) };
            let values = params![member.fingerprint, name, now.0];
            change.execute("INSERT OR REPLACE INTO barred VALUES (?1, ?2, ?3)", values)?;
            change.execute("DELETE FROM member WHERE name = ?1", [name])?;
            // Bounded: who has been away for longest is let in again before anybody's disk fills.
            change.execute(
                "DELETE FROM barred WHERE fingerprint IN (SELECT fingerprint FROM barred ORDER BY removed_us DESC LIMIT -1 OFFSET ?1)",
                [CLUSTER_BARRED_MAX as i64],
            )?;
            change.commit()?;
            Ok(true)
        });
        removed.map_err(|error| self.failed("writing", &error))
    }

    /// Frees the name for the next node that comes with it. Answers false if nobody has it.
    pub fn release(&self, name: &str) -> Result<bool, DatabaseError> {
        let released = self.connection().execute("DELETE FROM member WHERE name = ?1", [name]);
        released.map(|rows| rows > 0).map_err(|error| self.failed("writing", &error))
    }

    /// Lets nodes in again that were removed under this name. Answers false if there is none.
    pub fn readmit(&self, name: &str) -> Result<bool, DatabaseError> {
        let readmitted = self.connection().execute("DELETE FROM barred WHERE name = ?1", [name]);
        readmitted.map(|rows| rows > 0).map_err(|error| self.failed("writing", &error))
    }

    /// All names that belong to a node.
    pub fn names(&self) -> Result<Vec<String>, DatabaseError> {
        let connection = self.connection();
        let asked = connection.prepare_cached("SELECT name FROM member ORDER BY name");
        let names = asked.and_then(|mut asked| asked.query_map([], |row| row.get(0))?.collect());
        names.map_err(|error| self.failed("asking", &error))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &str, error: &rusqlite::Error) -> DatabaseError {
        database::failed(&self.path, doing, error)
    }
}

fn member(connection: &Connection, name: &str) -> rusqlite::Result<Option<Member>> {
    let read = |row: &rusqlite::Row| Ok(Member { fingerprint: row.get(0)?, first_seen: Wall(row.get(1)?) });
    connection
        .prepare_cached("SELECT fingerprint, first_seen_us FROM member WHERE name = ?1")?
        .query_row([name], read)
        .optional()
}

fn barred(connection: &Connection, fingerprint: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT name FROM barred WHERE fingerprint = ?1")?
        .query_row([fingerprint], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Wall = Wall(1_800_000_000_000_000);

    #[test]
    fn a_name_belongs_to_the_first_key_that_came_with_it_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let members = Members::open(dir.path()).unwrap();
        assert_eq!(members.meet("s1", "aa", T0), Ok(Standing::Member));
        drop(members);
        let members = Members::open(dir.path()).unwrap();
        let first = Member { fingerprint: "aa".into(), first_seen: T0 };
        assert_eq!(members.meet("S1", "bb", Wall(T0.0 + 1)), Ok(Standing::Taken(first)));
        assert_eq!(members.meet("S1", "aa", T0), Ok(Standing::Member));
        assert_eq!(members.release("s1"), Ok(true));
        assert_eq!(members.meet("s1", "bb", T0), Ok(Standing::Member), "a machine that was installed anew");
        assert_eq!(
            (members.release("s9"), members.remove("s9", T0), members.readmit("s9")),
            (Ok(false), Ok(false), Ok(false))
        );
    }

    #[test]
    fn a_removed_nodes_key_is_barred_under_every_name_and_its_name_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let members = Members::open(dir.path()).unwrap();
        members.meet("s1", "aa", T0).unwrap();
        assert_eq!(members.remove("S1", T0), Ok(true));
        for name in ["s1", "s2"] {
            assert_eq!(members.meet(name, "aa", T0), Ok(Standing::Barred("S1".into())), "{name}");
        }
        assert_eq!(members.meet("s1", "bb", T0), Ok(Standing::Member));
        assert_eq!(members.readmit("s1"), Ok(true));
        assert_eq!(members.meet("s2", "aa", T0), Ok(Standing::Member));
    }

    #[test]
    fn names_and_barred_keys_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let members = Members::open(dir.path()).unwrap();
        // One by one each would wait for the disk.
        members.connection().execute_batch("BEGIN").unwrap();
        for number in 0..CLUSTER_MEMBERS_MAX {
            assert_eq!(members.meet(&format!("s{number}"), &format!("{number}"), T0), Ok(Standing::Member));
        }
        members.connection().execute_batch("COMMIT").unwrap();
        assert_eq!(members.meet("one-more", "x", T0), Ok(Standing::Full));
        assert_eq!(members.meet("s7", "7", T0), Ok(Standing::Member));
        members.remove("s7", T0).unwrap();
        assert_eq!(members.meet("one-more", "x", T0), Ok(Standing::Member));
    }
}
