//! Opening a small SQLite file that must survive every crash, readable by its owner alone.

use rusqlite::Connection;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Why a database could not be used, with the file and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseError(pub String);

impl std::fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DatabaseError {}

/// Opens or creates the database at `path` (mode 0600) and brings it to `schema`, whose number is `version`.
pub(super) fn open(path: &Path, version: i64, schema: &str) -> Result<Connection, DatabaseError> {
    // Created by us first, so that it never exists with a wider mode; SQLite gives its side files the same one.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|error| {
        DatabaseError(format!(
            "cannot open {}: {error}. The daemon's user must own STATE_DIR and its disk must have room.",
            path.display()
        ))
    })?;
    let connection = Connection::open(path).map_err(|error| failed(path, "opening", &error))?;
    prepare(&connection, version, schema).map_err(|error| failed(path, "preparing", &error))?;
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|error| failed(path, "reading", &error))?;
    if found != version {
        return Err(DatabaseError(format!(
            "{} has format {found}, this version of Tidegate reads format {version}. Run the version that wrote it, or \
             restore a backup made by this one.",
            path.display()
        )));
    }
    Ok(connection)
}

fn prepare(connection: &Connection, version: i64, schema: &str) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // An answered Apply must be on disk, also when the power fails a moment later.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == 0 {
        connection.execute_batch(&format!("BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version = {version};\nCOMMIT;"))?;
    }
    Ok(())
}

/// An error of SQLite in words: what was being done to which file.
pub(super) fn failed(path: &Path, doing: &str, error: &rusqlite::Error) -> DatabaseError {
    DatabaseError(format!(
        "{doing} {} failed: {error}. Check the disk's room and health; if the file is damaged, restore it from a backup.",
        path.display()
    ))
}
