//! What the store knows of each node beside its records: how far it is, and which numbers did not arrive. Each row has a seal; what one
//! that is not as it was written leaves open is found in the blocks, so that nothing is stored twice and nothing is passed over.

use crate::record::Epoch;
use crate::record::Record;
use crate::store::records::block;
use crate::store::records::seal;
use crate::store::records::seal::Damaged;
use crate::store::records::seal::Head;
use crate::store::records::seal::Part;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::params;

const ROW_DAMAGED: Damaged = Damaged("its row is not as it was written");

/// How far the store is with an epoch of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The node's row.
    pub id: i64,
    /// The highest number that is stored.
    pub highest: u64,
    /// When that record ended.
    pub last_us: i64,
}

/// What is known of an epoch; nothing if none of its records ever came.
pub fn known(connection: &Connection, epoch: Epoch) -> rusqlite::Result<Option<Known>> {
    let epoch = epoch.0.as_slice();
    let sql = "SELECT id, name, highest, last_us, sum FROM node WHERE epoch = ?1";
    let found = connection.prepare_cached(sql)?.query_row([epoch], |row| Ok((row.get(0)?, known_of(row, epoch))));
    match found.optional()? {
        Some((_, Ok(known))) => Ok(Some(known)),
        Some((id, Err(_))) => from_blocks(connection, id).map(Some),
        None => {
            let sql = "SELECT EXISTS (SELECT 1 FROM node NOT INDEXED WHERE epoch = ?1)";
            match connection.prepare_cached(sql)?.query_row([epoch], |row| row.get(0))? {
                true => Err(seal::corrupt("the index of its nodes does not lead to them")),
                false => Ok(None),
            }
        }
    }
}

/// The highest stored number of an epoch.
pub fn highest(connection: &Connection, epoch: Epoch) -> rusqlite::Result<Option<u64>> {
    known(connection, epoch).map(|known| known.map(|known| known.highest))
}

/// A row of `id, name, highest, last_us, sum` under this epoch.
pub fn known_of(row: &Row, epoch: &[u8]) -> Result<Known, Damaged> {
    let [id, highest, last_us, sum] = [0, 2, 3, 4].map(|at| seal::number_at(row, at));
    let (id, highest, last_us) = (id?, highest?, last_us?);
    match seal::of_node(id, epoch, &seal::text_at(row, 1), (highest, last_us)) == sum? {
        true => Ok(Known { id, highest: highest as u64, last_us }),
        false => Err(ROW_DAMAGED),
    }
}

/// What stands in the blocks is what came, up to the last; only what was forgotten since is not there.
fn from_blocks(connection: &Connection, id: i64) -> rusqlite::Result<Known> {
    let sql = "SELECT max(last_seq), max(max_us) FROM block WHERE source = ?1";
    let (last, last_us) = connection
        .prepare_cached(sql)?
        .query_row([id], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    seal::tell(&format!("what it knows of node {id}"), &ROW_DAMAGED);
    match (last, last_us) {
        (Some(last), Some(last_us)) => Ok(Known { id, highest: last as u64, last_us }),
        _ => Err(seal::corrupt(
            "what it knows of the node is not as it was written, and no block says how far the node was",
        )),
    }
}

/// Notes how far an epoch is now.
pub fn keep(transaction: &Transaction, known: &Known, epoch: Epoch, name: &str) -> rusqlite::Result<()> {
    let Known { id, highest, last_us } = *known;
    let sum = seal::of_node(id, &epoch.0, name, (highest as i64, last_us));
    transaction
        .prepare_cached("UPDATE node SET name = ?2, highest = ?3, last_us = ?4, sum = ?5 WHERE id = ?1")?
        .execute(params![id, name, highest as i64, last_us, sum])?;
    Ok(())
}

/// How many columns [`gap_of`] reads.
pub const GAP_WIDTH: usize = 6;

/// A row of `node, first, last, after_us, before_us, sum`.
pub fn gap_of(row: &Row) -> Result<[i64; 5], Damaged> {
    let mut gap = [0; GAP_WIDTH - 1];
    for (at, number) in gap.iter_mut().enumerate() {
        *number = seal::number_at(row, at)?;
    }
    if seal::of_gap(gap) == seal::number_at(row, GAP_WIDTH - 1)? { Ok(gap) } else { Err(ROW_DAMAGED) }
}

/// A row of `id, text, sum`: the number of a word and the word.
pub fn word_of(row: &Row) -> Result<(i64, String), Damaged> {
    let (id, text, sum) = (seal::number_at(row, 0)?, seal::text_at(row, 1), seal::number_at(row, 2)?);
    if seal::of_word(id, &text) == sum { Ok((id, text.into_owned())) } else { Err(ROW_DAMAGED) }
}

/// What stands for a word that is not as it was written.
pub fn damaged_word(number: i64) -> String {
    format!("(damaged word {number})")
}

/// Numbers that did not arrive, and when the records around them ended.
pub struct Missing {
    pub numbers: (u64, u64),
    pub times: (i64, i64),
}

/// Notes a gap, if it is one.
pub fn note_gap(transaction: &Transaction, source: i64, missing: Missing) -> rusqlite::Result<()> {
    let ((first, last), (after_us, before_us)) = (missing.numbers, missing.times);
    if first <= last {
        let sql = "INSERT INTO gap (node, first, last, after_us, before_us, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let sum = seal::of_gap([source, first as i64, last as i64, after_us, before_us]);
        let row = params![source, first as i64, last as i64, after_us, before_us, sum];
        transaction.prepare_cached(sql)?.execute(row)?;
    }
    Ok(())
}

/// The gaps during one batch.
#[derive(Default)]
pub struct Gaps {
    /// Whether all are as they were written; looked at when a record first asks.
    are_sound: Option<bool>,
}

impl Gaps {
    /// Takes a record out of the gap it lies in; false if it lies in none, that is, is stored.
    pub fn fill(&mut self, transaction: &Transaction, source: i64, record: &Record<&str>) -> rusqlite::Result<bool> {
        let are_sound = match self.are_sound {
            Some(known) => known,
            None => *self.are_sound.insert(are_sound(transaction)?),
        };
        // One that is damaged may have been anybody's, anywhere.
        if !are_sound && is_stored(transaction, source, record.seq)? {
            return Ok(false);
        }
        Ok(take_out(transaction, source, record)? || !are_sound)
    }
}

fn are_sound(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT node, first, last, after_us, before_us, sum FROM gap")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Err(damaged) = gap_of(row) {
            seal::tell("a gap", &damaged);
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a block has it. One that cannot be read has what its row says: it was stored.
fn is_stored(connection: &Connection, source: i64, seq: u64) -> rusqlite::Result<bool> {
    let columns = Head::COLUMNS;
    let sql = format!("SELECT {columns}, id FROM block WHERE source = ?1 AND first_seq <= ?2 AND last_seq >= ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut blocks = statement.query(params![source, seq as i64])?;
    let mut facts = Vec::new();
    while let Some(row) = blocks.next()? {
        facts.clear();
        let read = match Head::read(row).and_then(|head| Ok((head, seal::number_at(row, Head::WIDTH)?))) {
            Ok((head, id)) => {
                seal::with_frame(connection, id, Part::Facts, |packed| block::read_facts(&head, packed, &mut facts))?
            }
            Err(damaged) => Err(damaged),
        };
        if read.is_err() || facts.iter().any(|fact| fact.seq == seq) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn take_out(transaction: &Transaction, source: i64, record: &Record<&str>) -> rusqlite::Result<bool> {
    let sql = "SELECT node, first, last, after_us, before_us, sum FROM gap WHERE node = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1";
    let gap = transaction.prepare_cached(sql)?.query_row(params![source, record.seq as i64], |row| Ok(gap_of(row)));
    let Some(Ok([_, first, last, after_us, before_us])) = gap.optional()? else { return Ok(false) };
    if record.seq > last as u64 {
        return Ok(false);
    }
    transaction.prepare_cached("DELETE FROM gap WHERE node = ?1 AND first = ?2")?.execute(params![source, first])?;
    let lower = Missing { numbers: (first as u64, record.seq - 1), times: (after_us, record.ended_us) };
    note_gap(transaction, source, lower)?;
    let upper = Missing { numbers: (record.seq + 1, last as u64), times: (record.ended_us, before_us) };
    note_gap(transaction, source, upper)?;
    Ok(true)
}
