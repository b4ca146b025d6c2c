//! Which numbers of a node's records are missing, or there twice, between the first and the last of a range; and what of the store's file is
//! not as it was written.

use crate::limits;
use crate::record::audit::AuditQuestion;
use crate::record::audit::Finding;
use crate::record::audit::Proof;
use crate::store::records::block;
use crate::store::records::block::Fact;
use crate::store::records::numbers;
use crate::store::records::seal;
use crate::store::records::seal::Damaged;
use crate::store::records::seal::Head;
use crate::store::records::seal::Part;
use rusqlite::Connection;
use rusqlite::Row;
use rusqlite::params;

/// See `RecordStore::audit`.
pub fn audit(connection: &Connection, question: &AuditQuestion) -> rusqlite::Result<Proof> {
    let transaction = connection.unchecked_transaction()?;
    let name = question.node.clone().unwrap_or_default();
    let mut proof = Proof { node: name.clone(), ..Proof::default() };
    rows_as_written(&transaction, &mut proof)?;
    indexes_as_rows(&transaction, &mut proof)?;
    for source in sources(&transaction, &name)? {
        audit_source(&transaction, question, source, &mut proof)?;
    }
    transaction.finish()?;
    Ok(proof)
}

/// Words, nodes and gaps: a seal each.
fn rows_as_written(connection: &Connection, proof: &mut Proof) -> rusqlite::Result<()> {
    let is_node = |row: &Row| numbers::known_of(row, seal::bytes_at(row, 5)?).map(|_| ());
    type IsSound<'f> = &'f dyn Fn(&Row) -> Result<(), Damaged>;
    let tables: [(&str, &str, IsSound); 3] = [
        ("words", "SELECT id, text, sum FROM word NOT INDEXED WHERE id <> 0", &|row| numbers::word_of(row).map(|_| ())),
        ("nodes", "SELECT id, name, highest, last_us, sum, epoch FROM node NOT INDEXED", &is_node),
        ("gaps", "SELECT node, first, last, after_us, before_us, sum FROM gap", &|row| {
            numbers::gap_of(row).map(|_| ())
        }),
    ];
    for (what, sql, is_sound) in tables {
        let (mut statement, mut damaged) = (connection.prepare_cached(sql)?, 0);
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            damaged += u64::from(is_sound(row).is_err());
        }
        if damaged > 0 {
            proof.find(of_file(format!(
                "{damaged} rows of the store's table of {what} are not as they were written: the disk altered them"
            )));
        }
    }
    Ok(())
}

/// Whether what leads to rows leads to all of them, and says what they say.
fn indexes_as_rows(connection: &Connection, proof: &mut Proof) -> rusqlite::Result<()> {
    for table in ["word", "node"] {
        let said: String = connection.query_row(&format!("PRAGMA integrity_check({table})"), [], |row| row.get(0))?;
        if said != "ok" {
            proof.find(of_file(format!("the store's table {table}: {said}")));
        }
    }
    let sql = "SELECT count(*) FROM block NOT INDEXED WHERE source NOT IN (SELECT id FROM node)";
    match connection.query_row(sql, [], |row| row.get::<_, u64>(0))? {
        0 => {}
        blocks => proof.find(of_file(format!("{blocks} blocks of the store are of no node that it knows"))),
    }
    // That would read every byte of all blocks here; their rows begin with what the indexes have of them.
    let indexes = [
        ("block_time", ["max_us", "min_us", "id"].as_slice()),
        ("block_source", &["source", "first_seq", "last_seq", "id"]),
    ];
    for (index, columns) in indexes {
        let (first, columns) = (columns[0], columns.join(", "));
        let rows = walked(connection, &format!("SELECT {columns} FROM block NOT INDEXED"), false)?;
        let led = walked(
            connection,
            &format!("SELECT {columns} FROM block INDEXED BY {index} WHERE {first} >= ?1 ORDER BY {columns}"),
            true,
        )?;
        if rows != led {
            let words = format!(
                "the index {index} of the store and the rows of its blocks differ: a report may leave blocks out that it leads to no more"
            );
            proof.find(of_file(words));
        }
    }
    Ok(())
}

/// What a walk met: how much, a sum that no order alters, and whether it was in order if it had to be.
fn walked(connection: &Connection, sql: &str, in_order: bool) -> rusqlite::Result<(u64, u64, bool)> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = if in_order { statement.query([i64::MIN])? } else { statement.query([])? };
    let (mut count, mut sum, mut sorted, mut before) = (0, 0u64, true, [i64::MIN; 4]);
    while let Some(row) = rows.next()? {
        let mut now = [0; 4];
        for (at, number) in now.iter_mut().enumerate().take(row.as_ref().column_count()) {
            *number = seal::number_at(row, at).unwrap_or(i64::MIN);
        }
        sorted &= !in_order || before <= now;
        sum = sum.wrapping_add(now.iter().fold(0, |mixed, number| mix(mixed ^ *number as u64)));
        count += 1;
        before = now;
    }
    Ok((count, sum, sorted))
}

/// Of the store's file as a whole.
fn of_file(words: String) -> Finding {
    Finding { file: String::new(), line: 0, first: 0, last: 0, words }
}

/// Spreads a number over 64 bits, one to one.
fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
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
    if found.count == last - found.first + 1
        && (found.first..=last).fold(0, |sum: u64, seq| sum.wrapping_add(mix(seq))) == found.sum
    {
        return Ok(()); // each number, once
    }
    missing(connection, source, (found.first, last), (from, to), proof)
}

/// The records of a range.
struct Found {
    count: u64,
    first: u64,
    last: u64,
    /// Of the numbers, mixed: one that is there twice does not hide one that is not there.
    sum: u64,
}

fn in_range(
    connection: &Connection,
    source: i64,
    (from, to): (i64, i64),
    proof: &mut Proof,
) -> rusqlite::Result<Found> {
    let columns = Head::COLUMNS;
    let sql = format!("SELECT {columns}, id FROM block WHERE source = ?1 AND max_us >= ?2 AND min_us < ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut blocks = statement.query(params![source, from, to])?;
    let (mut found, mut facts) = (Found { count: 0, first: u64::MAX, last: 0, sum: 0 }, Vec::new());
    while let Some(row) = blocks.next()? {
        facts.clear();
        if let Err(damaged) = facts_of(connection, row, &mut facts)? {
            proof.find(unread(row, "that", &damaged));
            continue;
        }
        if let Err(damaged) = details_of(connection, row)? {
            proof.find(unread(row, "whose details", &damaged));
        }
        for fact in facts.iter().filter(|fact| from <= fact.ended_us && fact.ended_us < to) {
            found.count += 1;
            found.first = found.first.min(fact.seq);
            found.last = found.last.max(fact.seq);
            found.sum = found.sum.wrapping_add(mix(fact.seq));
        }
    }
    found.first = if found.count == 0 { 0 } else { found.first };
    Ok(found)
}

fn facts_of(connection: &Connection, row: &Row, facts: &mut Vec<Fact>) -> rusqlite::Result<Result<(), Damaged>> {
    of_block(connection, row, Part::Facts, |head, packed| block::read_facts(head, packed, facts))
}

fn details_of(connection: &Connection, row: &Row) -> rusqlite::Result<Result<(), Damaged>> {
    of_block(connection, row, Part::Details, |head, packed| seal::check(Part::Details, head, packed))
}

/// Reads a frame of the block in a row of its head and its `id`.
fn of_block(
    connection: &Connection,
    row: &Row,
    part: Part,
    read: impl FnOnce(&Head, &[u8]) -> Result<(), Damaged>,
) -> rusqlite::Result<Result<(), Damaged>> {
    match Head::read(row).and_then(|head| Ok((head, seal::number_at(row, Head::WIDTH)?))) {
        Ok((head, id)) => seal::with_frame(connection, id, part, |packed| read(&head, packed)),
        Err(damaged) => Ok(Err(damaged)),
    }
}

/// Numbers of a block: one `that`, or one `whose details`, cannot be read.
fn unread(row: &Row, which: &str, damaged: &Damaged) -> Finding {
    let (first, last) = numbers_of(row);
    let words = format!("stand in a block of the store {which} cannot be read: {damaged}");
    Finding { file: String::new(), line: 0, first, last, words }
}

/// The numbers that a block's row names, whatever they are.
fn numbers_of(row: &Row) -> (u64, u64) {
    let number = |at| seal::number_at(row, at).unwrap_or(0).max(0) as u64;
    (number(1), number(2))
}

fn highest(connection: &Connection, source: i64) -> rusqlite::Result<u64> {
    let sql = "SELECT highest FROM node WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row([source], |row| Ok(seal::number_at(row, 0).unwrap_or(0).max(0) as u64))
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
fn missing(
    connection: &Connection,
    source: i64,
    (first, last): (u64, u64),
    times: (i64, i64),
    proof: &mut Proof,
) -> rusqlite::Result<()> {
    let mut there = vec![0u64; ((last - first) / 64 + 1) as usize];
    let columns = Head::COLUMNS;
    let sql = format!("SELECT {columns}, id FROM block WHERE source = ?1 AND last_seq >= ?2 AND first_seq <= ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut blocks = statement.query(params![source, first as i64, last as i64])?;
    let (mut facts, mut twice) = (Vec::new(), Vec::new());
    while let Some(row) = blocks.next()? {
        facts.clear();
        let mut mark = |seq: u64| {
            let (word, bit) = (((seq - first) / 64) as usize, 1 << ((seq - first) % 64));
            let is_there = there[word] & bit != 0;
            there[word] |= bit;
            is_there
        };
        match facts_of(connection, row, &mut facts)? {
            Ok(()) => {
                for seq in facts.iter().map(|fact| fact.seq).filter(|seq| (first..=last).contains(seq)) {
                    if mark(seq) && twice.len() < limits::AUDIT_FINDINGS_MAX {
                        twice.push(seq);
                    }
                }
            }
            Err(damaged) => {
                let (from, to) = numbers_of(row);
                (from.max(first)..=to.min(last)).for_each(|seq| {
                    mark(seq);
                });
                // Those of the range were told before.
                if Head::read(row).is_ok_and(|head| head.max_us < times.0 || head.min_us >= times.1) {
                    proof.find(unread(row, "that", &damaged));
                }
            }
        }
    }
    for seq in twice {
        proof.find(Finding {
            file: String::new(),
            line: 0,
            first: seq,
            last: seq,
            words: "is stored twice".to_string(),
        });
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
