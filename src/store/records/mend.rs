//! Bringing the file into order: what an earlier version wrote gets its seals, and after damage what can be made anew is made anew.

use crate::store::records::numbers;
use crate::store::records::numbers::damaged_word;
use crate::store::records::seal;
use rusqlite::Connection;
use rusqlite::TransactionBehavior;
use rusqlite::params;

/// Rows of words that are sealed between two looks: bounded memory.
const WORDS_AT_ONCE: i64 = 10_000;

/// Tables of version 3 become ones of version 4: words, nodes and gaps are sealed as they stand, blocks stay as they are.
pub fn raise_from_3(connection: &mut Connection) -> rusqlite::Result<()> {
    let all = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    all.execute_batch(
        "ALTER TABLE word ADD COLUMN sum INTEGER; ALTER TABLE node ADD COLUMN sum INTEGER; ALTER TABLE gap ADD COLUMN sum INTEGER;
         PRAGMA user_version = 4;",
    )?;
    seal_words(&all)?;
    let mut nodes = all.prepare("SELECT id, epoch, name, highest, last_us FROM node")?;
    let mut rows = nodes.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let epoch: Vec<u8> = row.get(1)?;
        let sum = seal::of_node(id, &epoch, &seal::text_at(row, 2), (row.get(3)?, row.get(4)?));
        all.execute("UPDATE node SET sum = ?2 WHERE id = ?1", params![id, sum])?;
    }
    drop(rows);
    drop(nodes);
    let mut gaps = all.prepare("SELECT node, first, last, after_us, before_us FROM gap")?;
    let mut rows = gaps.query([])?;
    while let Some(row) = rows.next()? {
        let gap: [i64; 5] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
        let sum = seal::of_gap(gap);
        all.execute("UPDATE gap SET sum = ?3 WHERE node = ?1 AND first = ?2", params![gap[0], gap[1], sum])?;
    }
    drop(rows);
    drop(gaps);
    all.commit()
}

fn seal_words(connection: &Connection) -> rusqlite::Result<()> {
    let mut after = 0i64;
    loop {
        let mut statement =
            connection.prepare_cached("SELECT id, text FROM word WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let rows =
            statement.query_map([after, WORDS_AT_ONCE], |row| Ok((row.get(0)?, seal::text_at(row, 1).into_owned())))?;
        let words: Vec<(i64, String)> = rows.collect::<rusqlite::Result<_>>()?;
        let Some((last, _)) = words.last() else { return Ok(()) };
        after = *last;
        let mut note = connection.prepare_cached("UPDATE word SET sum = ?2 WHERE id = ?1")?;
        for (id, text) in &words {
            note.execute(params![id, seal::of_word(*id, text)])?;
        }
    }
}

/// Makes the small tables and all indexes anew from the rows that can be read. A word that is not as it was written becomes one that says so:
/// what it was is not known, and nothing else may take its number.
pub fn mend(connection: &mut Connection) -> rusqlite::Result<()> {
    let all = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Beside the old table, since an index that is not as it should be lets no row be changed.
    all.execute_batch(
        "CREATE TABLE word_anew (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, day INTEGER NOT NULL, sum INTEGER);",
    )?;
    let mut words = all.prepare("SELECT id, text, sum, day FROM word NOT INDEXED")?;
    let mut rows = words.query([])?;
    let mut put = all.prepare("INSERT OR IGNORE INTO word_anew (id, text, day, sum) VALUES (?1, ?2, ?3, ?4)")?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let text = match numbers::word_of(row) {
            Ok((_, text)) => text,
            Err(_) if id == 0 => String::new(),
            Err(_) => damaged_word(id),
        };
        let day = seal::number_at(row, 3).unwrap_or(i64::MAX);
        put.execute(params![id, text, day, seal::of_word(id, &text)])?;
    }
    drop((rows, put));
    drop(words);
    all.execute_batch(
        "DROP TABLE word; ALTER TABLE word_anew RENAME TO word;
         CREATE TABLE node_anew (id INTEGER PRIMARY KEY, epoch BLOB NOT NULL UNIQUE, name TEXT NOT NULL,
             highest INTEGER NOT NULL, last_us INTEGER NOT NULL DEFAULT 0, sum INTEGER);
         INSERT INTO node_anew SELECT id, epoch, name, highest, last_us, sum FROM node NOT INDEXED;
         DROP TABLE node; ALTER TABLE node_anew RENAME TO node;
         CREATE TABLE gap_anew (node INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
             after_us INTEGER NOT NULL DEFAULT 0, before_us INTEGER NOT NULL DEFAULT 0, sum INTEGER, PRIMARY KEY (node, first))
             WITHOUT ROWID;
         INSERT OR IGNORE INTO gap_anew SELECT node, first, last, after_us, before_us, sum FROM gap;
         DROP TABLE gap; ALTER TABLE gap_anew RENAME TO gap;
         REINDEX block;",
    )?;
    all.commit()
}
