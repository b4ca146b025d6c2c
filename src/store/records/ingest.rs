//! Exactly-once ingest: what is stored of a node is `1..=highest` without its gaps, changed in the same transaction as
//! the records themselves.

use crate::base::clock::Wall;
use crate::limits;
use crate::record::Epoch;
use crate::record::Record;
use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use rusqlite::params;
use std::collections::HashMap;

const DAY_US: i64 = 86_400_000_000;

/// The one connection that writes.
pub struct Writer {
    connection: Connection,
    words: Words,
}

impl Writer {
    /// A writer on an opened store.
    pub fn new(connection: Connection) -> Writer {
        Writer { connection, words: Words::default() }
    }

    /// See `RecordStore::ingest`.
    pub fn ingest(&mut self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> rusqlite::Result<u64> {
        let stored = self.ingest_in_transaction(node, epoch, batch);
        if stored.is_err() {
            // It may hold words of the transaction that was rolled back.
            self.words = Words::default();
        }
        stored
    }

    /// Forgets at most `limit` records that ended before `before`, and when none is left, words not used since.
    pub fn prune(&mut self, before: Wall, limit: u32) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "DELETE FROM detail WHERE id IN (SELECT detail FROM fact WHERE ended_us < ?1 ORDER BY ended_us, detail LIMIT ?2)",
            params![before.0, limit],
        )?;
        let forgotten = transaction.execute(
            "DELETE FROM fact WHERE (ended_us, detail) IN
                (SELECT ended_us, detail FROM fact WHERE ended_us < ?1 ORDER BY ended_us, detail LIMIT ?2)",
            params![before.0, limit],
        )?;
        if forgotten < limit as usize {
            transaction.execute("DELETE FROM word WHERE day < ?1", [before.0.div_euclid(DAY_US)])?;
        }
        transaction.commit()?;
        self.words = Words::default();
        Ok(forgotten as u64)
    }

    fn ingest_in_transaction(&mut self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (source, mut highest, mut last_us) = match known(&transaction, epoch)? {
            Some(known) => known,
            None => {
                let sql = "INSERT INTO node (epoch, name, highest) VALUES (?1, ?2, 0)";
                transaction.execute(sql, params![epoch.0.as_slice(), node])?;
                (transaction.last_insert_rowid(), 0, 0)
            }
        };
        let mut inserts = Inserts::prepare(&transaction)?;
        for record in batch {
            let new = if record.seq > highest {
                let missing = Missing { numbers: (highest + 1, record.seq - 1), times: (last_us, record.ended_us) };
                note_gap(&transaction, source, missing)?;
                (highest, last_us) = (record.seq, record.ended_us);
                true
            } else {
                fill_gap(&transaction, source, record)?
            };
            if new {
                inserts.insert(&mut self.words, source, record)?;
            }
        }
        drop(inserts);
        transaction
            .prepare_cached("UPDATE node SET name = ?2, highest = ?3, last_us = ?4 WHERE id = ?1")?
            .execute(params![source, node, highest as i64, last_us])?;
        transaction.commit()?;
        Ok(highest)
    }
}

/// The highest stored number of an epoch.
pub fn highest(connection: &Connection, epoch: Epoch) -> rusqlite::Result<Option<u64>> {
    known(connection, epoch).map(|known| known.map(|(_, highest, _)| highest))
}

/// A node's row, its highest stored number, and when that record ended.
fn known(connection: &Connection, epoch: Epoch) -> rusqlite::Result<Option<(i64, u64, i64)>> {
    connection
        .prepare_cached("SELECT id, highest, last_us FROM node WHERE epoch = ?1")?
        .query_row([epoch.0.as_slice()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get(2)?)))
        .optional()
}

/// Numbers that did not arrive, and when the records around them ended.
struct Missing {
    numbers: (u64, u64),
    times: (i64, i64),
}

fn note_gap(transaction: &Transaction, source: i64, missing: Missing) -> rusqlite::Result<()> {
    let ((first, last), (after_us, before_us)) = (missing.numbers, missing.times);
    if first <= last {
        let sql = "INSERT INTO gap (node, first, last, after_us, before_us) VALUES (?1, ?2, ?3, ?4, ?5)";
        transaction.prepare_cached(sql)?.execute(params![source, first as i64, last as i64, after_us, before_us])?;
    }
    Ok(())
}

/// Takes a record out of the gap it lies in; false if it lies in none, that is, is stored.
fn fill_gap(transaction: &Transaction, source: i64, record: &Record<&str>) -> rusqlite::Result<bool> {
    let sql =
        "SELECT first, last, after_us, before_us FROM gap WHERE node = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1";
    let gap = transaction.prepare_cached(sql)?.query_row(params![source, record.seq as i64], |row| {
        let numbers = (row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64);
        Ok(Missing { numbers, times: (row.get(2)?, row.get(3)?) })
    });
    let Some(gap) = gap.optional()?.filter(|gap| record.seq <= gap.numbers.1) else { return Ok(false) };
    let ((first, last), (after_us, before_us)) = (gap.numbers, gap.times);
    transaction
        .prepare_cached("DELETE FROM gap WHERE node = ?1 AND first = ?2")?
        .execute(params![source, first as i64])?;
    let lower = Missing { numbers: (first, record.seq - 1), times: (after_us, record.ended_us) };
    note_gap(transaction, source, lower)?;
    note_gap(transaction, source, Missing { numbers: (record.seq + 1, last), times: (record.ended_us, before_us) })?;
    Ok(true)
}

/// The statements that store a record, prepared for a batch.
struct Inserts<'t> {
    detail: CachedStatement<'t>,
    fact: CachedStatement<'t>,
    word: CachedStatement<'t>,
}

impl<'t> Inserts<'t> {
    fn prepare(transaction: &'t Transaction) -> rusqlite::Result<Inserts<'t>> {
        Ok(Inserts {
            detail: transaction.prepare_cached(
                "INSERT INTO detail (source, seq, record_id, client_id, request_id, offset_min, elapsed_ms, bypassed, method,
                    url, referer, useragent, mime, filtering_reason, interface, cachecode, peercode, peer, time_profiles,
                    user_groups, request_types, applications, response_profiles, upload_types, download_types, profiles,
                    snapshot, ending, connect_us, first_byte_us, sni, tls)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                    ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32)",
            )?,
            fact: transaction.prepare_cached(
                "INSERT INTO fact (ended_us, detail, node, host, user, client, rule, status, filter, categories, upload,
                    download)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?,
            word: transaction.prepare_cached(
                "INSERT INTO word (text, day) VALUES (?1, ?2)
                 ON CONFLICT (text) DO UPDATE SET day = max(day, excluded.day) RETURNING id, day",
            )?,
        })
    }

    fn insert(&mut self, words: &mut Words, source: i64, record: &Record<&str>) -> rusqlite::Result<()> {
        let day = record.ended_us.div_euclid(DAY_US);
        let mut column = 0;
        let mut word = |text: &str| {
            column += 1;
            words.number(&mut self.word, column - 1, text, day)
        };
        let detail = self.detail.insert(params![
            source,
            record.seq as i64,
            record.record_id,
            record.client_id as i64,
            record.request_id,
            record.offset_min,
            record.elapsed_ms as i64,
            record.bypassed,
            word(record.method)?,
            record.url,
            record.referer,
            word(record.useragent)?,
            word(record.mime)?,
            record.filtering_reason,
            word(record.interface)?,
            word(record.cachecode)?,
            word(record.peercode)?,
            word(record.peer)?,
            word(record.time_profiles)?,
            word(record.user_groups)?,
            word(record.request_types)?,
            word(record.applications)?,
            word(record.response_profiles)?,
            word(record.upload_types)?,
            word(record.download_types)?,
            word(record.profiles)?,
            word(record.snapshot)?,
            word(record.ending)?,
            record.connect_us,
            record.first_byte_us,
            word(record.sni)?,
            word(record.tls)?,
        ])?;
        self.fact.execute(params![
            record.ended_us,
            detail,
            word(record.node)?,
            word(record.request_host)?,
            word(record.username)?,
            word(record.client_ip)?,
            word(record.rule)?,
            record.status,
            word(record.filter_name)?,
            word(record.categories)?,
            record.upload.min(i64::MAX as u64) as i64,
            record.download.min(i64::MAX as u64) as i64,
        ])?;
        Ok(())
    }
}

/// How many columns are words.
const WORD_COLUMNS: usize = 26;

/// Numbers of words, remembered between batches. A word carries the last day of a record that uses it, so that pruning
/// knows without a search which words nobody uses.
#[derive(Default)]
struct Words {
    known: HashMap<String, (i64, i64)>,
    /// The last word of each column: most columns say the same again and again, and comparing is cheaper than hashing.
    last: [(String, (i64, i64)); WORD_COLUMNS],
}

impl Words {
    fn number(&mut self, insert: &mut CachedStatement, column: usize, text: &str, day: i64) -> rusqlite::Result<i64> {
        if text.is_empty() {
            return Ok(0);
        }
        let (last, (number, known_day)) = &self.last[column];
        if last == text && *known_day >= day {
            return Ok(*number);
        }
        let known = self.known.get(text).copied().filter(|(_, known_day)| *known_day >= day);
        let known = match known {
            Some(known) => known,
            None => {
                let known = insert.query_row(params![text, day], |row| Ok((row.get(0)?, row.get(1)?)))?;
                if self.known.len() >= limits::STORE_WORDS_KEPT_MAX {
                    self.known.clear();
                }
                self.known.insert(text.to_string(), known);
                known
            }
        };
        let last = &mut self.last[column];
        last.0.clear();
        last.0.push_str(text);
        last.1 = known;
        Ok(known.0)
    }
}
