//! The tables of the record store.
//!
//! Records stand in blocks (`docs/formats/record-block.md`). Text that repeats (hosts, users, names) stands once in `word`; `gap` has the
//! numbers that did not arrive though later ones did. `sum` is the seal of a row (`seal.rs`).

use crate::limits::STORE_CACHE_KIB;
use crate::store::records::mend;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use std::path::Path;
use std::time::Duration;

/// The version of these tables, in the file's header.
const VERSION: i64 = 4;
/// What is raised to it: without seals.
const BEFORE: i64 = 3;
const BUSY_MS: u64 = 10_000;

const TABLES: &str = "
    CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, day INTEGER NOT NULL, sum INTEGER);
    CREATE TABLE node (id INTEGER PRIMARY KEY, epoch BLOB NOT NULL UNIQUE, name TEXT NOT NULL, highest INTEGER NOT NULL,
        last_us INTEGER NOT NULL DEFAULT 0, sum INTEGER);
    CREATE TABLE gap (node INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        after_us INTEGER NOT NULL DEFAULT 0, before_us INTEGER NOT NULL DEFAULT 0, sum INTEGER, PRIMARY KEY (node, first))
        WITHOUT ROWID;
    CREATE TABLE block (
        id INTEGER PRIMARY KEY, source INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
        records INTEGER NOT NULL, min_us INTEGER NOT NULL, max_us INTEGER NOT NULL, facts BLOB NOT NULL, details BLOB NOT NULL);
    CREATE INDEX block_time ON block (max_us, min_us);
    CREATE INDEX block_source ON block (source, first_seq, last_seq);
    INSERT INTO word (id, text, day) VALUES (0, '', 9223372036854775807);
";

/// Opens the store for writing, making its tables if it is new.
pub fn open_writer(path: &Path) -> Result<Connection, String> {
    let mut connection = Connection::open(path).map_err(|error| error.to_string())?;
    prepare(&connection).map_err(|error| error.to_string())?;
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    match version {
        VERSION => Ok(connection),
        BEFORE => {
            mend::raise_from_3(&mut connection)
                .map_err(|error| format!("bringing it from the format {BEFORE} to {VERSION}: {error}"))?;
            Ok(connection)
        }
        0 => make(&connection).map(|()| connection).map_err(|error| error.to_string()),
        other => Err(format!(
            "it has the format {other}, this version of Tidegate reads {VERSION}. Start the version that wrote it, or move \
             the file away to begin an empty store: nodes send again what they still have in their logs"
        )),
    }
}

/// Opens the store for reading beside the writer.
pub fn open_reader(path: &Path) -> Result<Connection, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| error.to_string())?;
    prepare(&connection)
        .and_then(|()| connection.pragma_update(None, "query_only", true))
        .map_err(|error| error.to_string())?;
    Ok(connection)
}

/// WAL lets readers read while the writer writes; FULL syncs each commit, so that an acknowledgement is a promise kept
/// through a power failure.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_millis(BUSY_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -STORE_CACHE_KIB)?; // negative: KiB, not pages
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A damaged page is met as soon as it is read, not when what it misleads to is.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn make(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))
}
