//! Which numbers of a node's records are missing between the first and the last of a range.

use crate::limits;
use crate::record::audit::AuditQuestion;
use crate::record::audit::Finding;
use crate::record::audit::Proof;
use crate::store::records::block;
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
    let found = in_range(connection, source, (from, to), proof)?;
    at_the_edges(connection, source, (from, to), (found.first, found.last), proof)?;
    // A range without an end goes on to the last record that was stored.
    let last = if question.to_us.is_none() { found.last.max(highest(connection, source)?) } else { found.last };
    if found.count == 0 {
        return Ok(());
    }
    proof.first = if proof.records == 0 { found.first } else { proof.first.min(found.first) };
    proof.last = proof.last.max(last);
    proof.records += found.count;
    if last - found.first >= limits::AUDIT_RECORDS_MAX {
        let words =
            format!("more than {} numbers were not gone through; ask for a shorter range", limits::AUDIT_RECORDS_MAX);
        proof.find(Finding { file: String::new(), line: 0, first: found.first, last, words });
        return Ok(());
    }
    if found.count == last - found.first + 1 {
        return Ok(()); // a number is stored once: all are there
    }
    missing(connection, source, (found.first, last), proof)
}

/// The records of a range.
struct Found {
    count: u64,
    first: u64,
    last: u64,
}

fn in_range(
    connection: &Connection,
    source: i64,
    (from, to): (i64, i64),
    proof: &mut Proof,
) -> rusqlite::Result<Found> {
    let sql = "SELECT facts, first_seq, last_seq FROM block WHERE source = ?1 AND max_us >= ?2 AND min_us < ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut blocks = statement.query(params![source, from, to])?;
    let (mut found, mut facts) = (Found { count: 0, first: u64::MAX, last: 0 }, Vec::new());
    while let Some(row) = blocks.next()? {
        facts.clear();
        if let Err(damaged) = block::read_facts(row.get_ref(0)?.as_blob()?, &mut facts) {
            let words = format!("stand in a block of the store that cannot be read: {damaged}");
            proof.find(Finding { file: String::new(), line: 0, first: row.get(1)?, last: row.get(2)?, words });
            continue;
        }
        for fact in facts.iter().filter(|fact| from <= fact.ended_us && fact.ended_us < to) {
            found.count += 1;
            found.first = found.first.min(fact.seq);
            found.last = found.last.max(fact.seq);
        }
    }
    found.first = if found.count == 0 { 0 } else { found.first };
    Ok(found)
}

fn highest(connection: &Connection, source: i64) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT highest FROM node WHERE id = ?1")?.query_row([source], |row| row.get(0))
}

/// Numbers before the first and after the last of the range that never arrived, and whose neighbours say that they may have ended in it.
fn at_the_edges(
    connection: &Connection,
    source: i64,
    (from, to): (i64, i64),
    (first, last): (u64, u64),
    proof: &mut Proof,
) -> rusqlite::Result<()> {
    let sql =
        "SELECT first, last FROM gap WHERE node = ?1 AND before_us > ?2 AND after_us < ?3 AND (last < ?4 OR first > ?5)
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
    let sql = "SELECT facts, first_seq, last_seq FROM block WHERE source = ?1 AND last_seq >= ?2 AND first_seq <= ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut blocks = statement.query(params![source, first as i64, last as i64])?;
    let mut facts = Vec::new();
    while let Some(row) = blocks.next()? {
        facts.clear();
        let mut mark = |seq: u64| there[((seq - first) / 64) as usize] |= 1 << ((seq - first) % 64);
        match block::read_facts(row.get_ref(0)?.as_blob()?, &mut facts) {
            Ok(()) => facts.iter().map(|fact| fact.seq).filter(|seq| (first..=last).contains(seq)).for_each(mark),
            // That was said before.
            Err(_) => (row.get::<_, u64>(1)?.max(first)..=row.get::<_, u64>(2)?.min(last)).for_each(&mut mark),
        }
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
