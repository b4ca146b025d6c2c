//! The tables of the record store.
//!
//! `fact` is what reports add up: narrow rows in order of time, so that a report over a range is one walk over
//! neighbouring pages. `detail` is the rest of a record, fetched only for the rows that are shown. Text that repeats
//! (hosts, users, names) stands once in `word`.

use crate::limits::STORE_CACHE_KIB;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use std::path::Path;
use std::time::Duration;

/// The version of these tables, in the file's header.
const VERSION: i64 = 2;
const BUSY_MS: u64 = 10_000;

const TABLES: &str = "
    CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, day INTEGER NOT NULL);
    CREATE TABLE node (id INTEGER PRIMARY KEY, epoch BLOB NOT NULL UNIQUE, name TEXT NOT NULL, highest INTEGER NOT NULL,
        last_us INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE gap (node INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        after_us INTEGER NOT NULL DEFAULT 0, before_us INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (node, first))
        WITHOUT ROWID;
    CREATE TABLE fact (
        ended_us INTEGER NOT NULL, detail INTEGER NOT NULL, node INTEGER NOT NULL, host INTEGER NOT NULL,
        user INTEGER NOT NULL, client INTEGER NOT NULL, rule INTEGER NOT NULL, status INTEGER NOT NULL,
        filter INTEGER NOT NULL, categories INTEGER NOT NULL, upload INTEGER NOT NULL, download INTEGER NOT NULL,
        PRIMARY KEY (ended_us, detail)) WITHOUT ROWID;
    CREATE TABLE detail (
        id INTEGER PRIMARY KEY, source INTEGER NOT NULL, seq INTEGER NOT NULL, record_id TEXT NOT NULL,
        client_id INTEGER NOT NULL, request_id INTEGER NOT NULL, offset_min INTEGER NOT NULL, elapsed_ms INTEGER NOT NULL,
        bypassed INTEGER NOT NULL, method INTEGER NOT NULL, url TEXT NOT NULL, referer TEXT NOT NULL,
        useragent INTEGER NOT NULL, mime INTEGER NOT NULL, filtering_reason TEXT NOT NULL, interface INTEGER NOT NULL,
        cachecode INTEGER NOT NULL, peercode INTEGER NOT NULL, peer INTEGER NOT NULL, time_profiles INTEGER NOT NULL,
        user_groups INTEGER NOT NULL, request_types INTEGER NOT NULL, applications INTEGER NOT NULL,
        response_profiles INTEGER NOT NULL, upload_types INTEGER NOT NULL, download_types INTEGER NOT NULL,
        profiles INTEGER NOT NULL, snapshot INTEGER NOT NULL, ending INTEGER NOT NULL, connect_us INTEGER NOT NULL,
        first_byte_us INTEGER NOT NULL, sni INTEGER NOT NULL, tls INTEGER NOT NULL);
    INSERT INTO word (id, text, day) VALUES (0, '', 9223372036854775807);
";

/// From version 1, which did not know the times around a gap.
const FROM_1: &str = "
    ALTER TABLE node ADD COLUMN last_us INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE gap ADD COLUMN after_us INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE gap ADD COLUMN before_us INTEGER NOT NULL DEFAULT 0;
";

/// Opens the store for writing, making its tables if it is new.
pub fn open_writer(path: &Path) -> Result<Connection, String> {
    let connection = Connection::open(path).map_err(|error| error.to_string())?;
    prepare(&connection).map_err(|error| error.to_string())?;
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    match version {
        VERSION => Ok(connection),
        1 => change(&connection, FROM_1).map(|()| connection).map_err(|error| error.to_string()),
        0 => change(&connection, TABLES).map(|()| connection).map_err(|error| error.to_string()),
        other => Err(format!(
            "it has the format {other}, this version of Tidegate reads {VERSION}. Start the version that wrote it, or move \
             the file away to begin an empty store"
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
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Makes the tables what this version knows, or leaves them as they are.
fn change(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {sql} PRAGMA user_version = {VERSION}; COMMIT;"))
}
