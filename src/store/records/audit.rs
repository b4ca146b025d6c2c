//! Which numbers of a node's records are missing between the first and the last of a range.

use crate::limits;
use crate::record::audit::AuditQuestion;
use crate::record::audit::Finding;
use crate::record::audit::Proof;
use rusqlite::Connection;
use rusqlite::params;

/// See `RecordStore::audit`.
pub fn audit(connection: &Connection, question: &AuditQuestion) -> rusqlite::Result<Proof> {
    let transaction = connection.unchecked_transaction()?;
    let name = question.node.clone().unwrap_or_default();
    let mut proof = Proof { node: name.clone(), ..Proof::default() };
    for source in sources(&transaction, &name)? {
        audit_source(&transaction, question, source, &mut proof)?;
    }
    transaction.finish()?;
    Ok(proof)
}

/// A node counts in a new epoch after its state was lost: each epoch is a source of its own.
fn sources(connection: &Connection, name: &str) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM node WHERE name = ?1 ORDER BY id")?;
    statement.query_map([name], |row| row.get(0))?.collect()
}

fn audit_source(
    connection: &Connection,
    question: &AuditQuestion,
    source: i64,
    proof: &mut Proof,
) -> rusqlite::Result<()> {
    let (from, to) = (question.from_us.unwrap_or(i64::MIN), question.to_us.unwrap_or(i64::MAX));
    let sql = "SELECT count(*), min(seq), max(seq) FROM fact JOIN detail ON detail.id = fact.detail
               WHERE ended_us >= ?1 AND ended_us < ?2 AND source = ?3";
    let (count, first, last) = connection.prepare_cached(sql)?.query_row(params![from, to, source], |row| {
        let bound = |column| row.get::<_, Option<i64>>(column).map(|seq| seq.unwrap_or(0) as u64);
        Ok((row.get::<_, i64>(0)? as u64, bound(1)?, bound(2)?))
    })?;
    at_the_edges(connection, source, (from, to), (first, last), proof)?;
    if count == 0 {
        return Ok(());
    }
    proof.first = if proof.records == 0 { first } else { proof.first.min(first) };
    proof.last = proof.last.max(last);
    proof.records += count;
    if last - first >= limits::AUDIT_RECORDS_MAX {
        let words =
            format!("more than {} numbers were not gone through; ask for a shorter range", limits::AUDIT_RECORDS_MAX);
        proof.find(Finding { file: String::new(), line: 0, first, last, words });
        return Ok(());
    }
    if count == last - first + 1 {
        return Ok(()); // a number is stored once: all are there
    }
    missing(connection, source, (first, last), proof)
}

/// Numbers before the first and after the last of the range that never arrived, and whose neighbours say that they may have ended in it.
fn at_the_edges(
    connection: &Connection,
    source: i64,
    (from, to): (i64, i64),
    (first, last): (u64, u64),
    proof: &mut Proof,
) -> rusqlite::Result<()> {
    let sql = "SELECT first, last FROM gap WHERE node = ?1 AND before_us > ?2 AND after_us < ?3 AND (last < ?4 OR first > ?5)
               ORDER BY first";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![source, from, to, first as i64, last as i64])?;
    while let Some(row) = rows.next()? {
        let (first, last) = (row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64);
        let words = "never arrived from the node, and may have ended in the range".to_string();
        proof.find(Finding { file: String::new(), line: 0, first, last, words });
    }
    Ok(())
}

/// Goes through every number of the range: some of its records may have ended at another time.
fn missing(connection: &Connection, source: i64, (first, last): (u64, u64), proof: &mut Proof) -> rusqlite::Result<()> {
    let mut there = vec![0u64; ((last - first) / 64 + 1) as usize];
    let mut statement =
        connection.prepare_cached("SELECT seq FROM detail WHERE source = ?1 AND seq BETWEEN ?2 AND ?3")?;
    let mut rows = statement.query(params![source, first as i64, last as i64])?;
    while let Some(row) = rows.next()? {
        let at = row.get::<_, i64>(0)? as u64 - first;
        there[(at / 64) as usize] |= 1 << (at % 64);
    }
    let mut gaps = connection.prepare_cached("SELECT 1 FROM gap WHERE node = ?1 AND first <= ?2 AND last >= ?2")?;
    for at in (0..=last - first).filter(|at| there[(at / 64) as usize] >> (at % 64) & 1 == 0) {
        let seq = first + at;
        let words = match gaps.exists(params![source, seq as i64])? {
            true => "never arrived from the node",
            false => "arrived and was stored, and is not there any more",
        };
        proof.find(Finding { file: String::new(), line: 0, first: seq, last: seq, words: words.to_string() });
    }
    Ok(())
}
