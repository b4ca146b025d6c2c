//! Exactly-once ingest: what is stored of a node is `1..=highest` without its gaps, changed in the same transaction as
//! the records themselves.

use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::limits;
use crate::record::Epoch;
use crate::record::Record;
use crate::store::records::block::Block;
use crate::store::records::block::Fact;
use crate::store::records::mend;
use crate::store::records::numbers;
use crate::store::records::numbers::Gaps;
use crate::store::records::numbers::Known;
use crate::store::records::numbers::Missing;
use crate::store::records::numbers::note_gap;
use crate::store::records::seal;
use crate::store::records::seal::Damaged;
use crate::store::records::seal::Head;
use crate::store::records::seal::Packer;
use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use rusqlite::params;
use std::collections::HashMap;

const DAY_US: i64 = 86_400_000_000;

/// The one connection that writes.
pub struct Writer {
    connection: Connection,
    words: Words,
    packer: Packer,
    /// When indexes were made anew.
    mended: Option<Mono>,
}

impl Writer {
    /// A writer on an opened store.
    pub fn new(connection: Connection) -> Result<Writer, String> {
        Ok(Writer { connection, words: Words::default(), packer: Packer::new()?, mended: None })
    }

    /// See `RecordStore::ingest`.
    pub fn ingest(&mut self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> rusqlite::Result<u64> {
        let mut stored = self.ingest_in_transaction(node, epoch, batch);
        if let Err(error) = &stored
            && seal::is_corrupt(error)
            && self.mend(error)?
        {
            stored = self.ingest_in_transaction(node, epoch, batch);
        }
        if stored.is_err() {
            // It may hold words of the transaction that was rolled back.
            self.words = Words::default();
        }
        stored
    }

    /// Makes anew what can be; false if that was done lately.
    fn mend(&mut self, error: &rusqlite::Error) -> rusqlite::Result<bool> {
        let now = Mono::now();
        let lately = self.mended.is_some_and(|mended| now.micros_since(mended) < limits::STORE_MEND_EVERY_MS * 1_000);
        if lately {
            return Ok(false);
        }
        self.mended = Some(now);
        self.words = Words::default();
        tracing::error!(
            event = "record-store-mended",
            "the record store is damaged: {error}. Its indexes are made anew, and words that are not as they were written say so from now on. \
             Look at the disk; tidegate report audit --node NAME says what of a node's records is lost"
        );
        mend::mend(&mut self.connection).map(|()| true)
    }

    /// Forgets records that ended before `before`, of so many blocks at most, and when none is left, words not used since. Answers how
    /// many records, and whether there is more to do.
    pub fn prune(&mut self, before: Wall, blocks_max: u32) -> rusqlite::Result<(u64, bool)> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "SELECT id, records, max_us < ?1 FROM block WHERE min_us < ?1 ORDER BY max_us LIMIT ?2";
        let mut statement = transaction.prepare_cached(sql)?;
        let rows = statement.query_map(params![before.0, blocks_max], |row| {
            Ok((row.get(0)?, seal::number_at(row, 1).unwrap_or(1) as u64, row.get(2)?))
        })?;
        let old: Vec<(i64, u64, bool)> = rows.collect::<rusqlite::Result<_>>()?;
        drop(statement);
        let mut forgotten = 0;
        for (id, records, wholly) in &old {
            forgotten += match wholly {
                true => transaction.execute("DELETE FROM block WHERE id = ?1", [id]).map(|_| *records)?,
                false => shorten(&transaction, &mut self.packer, *id, before)?,
            };
        }
        let more = old.len() == blocks_max as usize && forgotten > 0;
        if !more {
            transaction.execute("DELETE FROM word WHERE day < ?1", [before.0.div_euclid(DAY_US)])?;
        }
        transaction.commit()?;
        self.words = Words::default();
        Ok((forgotten, more))
    }

    fn ingest_in_transaction(&mut self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut known = match numbers::known(&transaction, epoch)? {
            Some(known) => known,
            None => {
                let sql = "INSERT INTO node (epoch, name, highest) VALUES (?1, ?2, 0)";
                transaction.execute(sql, params![epoch.0.as_slice(), node])?;
                Known { id: transaction.last_insert_rowid(), highest: 0, last_us: 0 }
            }
        };
        let (source, mut gaps) = (known.id, Gaps::default());
        let mut number = NumberedWords::prepare(&transaction, &mut self.words)?;
        let mut shelf = Shelf::new(&transaction, &mut self.packer, source);
        for record in batch {
            let new = if record.seq > known.highest {
                let times = (known.last_us, record.ended_us);
                note_gap(&transaction, source, Missing { numbers: (known.highest + 1, record.seq - 1), times })?;
                known = Known { highest: record.seq, last_us: record.ended_us, ..known };
                true
            } else {
                gaps.fill(&transaction, source, record)?
            };
            if new {
                shelf.put(number.fact(record)?, record)?;
            }
        }
        shelf.close()?;
        drop(number);
        numbers::keep(&transaction, &known, epoch, node)?;
        transaction.commit()?;
        Ok(known.highest)
    }
}

/// Puts records of one node into blocks: first into its last one, if that is small.
struct Shelf<'t> {
    transaction: &'t Transaction<'t>,
    packer: &'t mut Packer,
    source: i64,
    /// The block that is filled; none before the first record.
    open: Option<Open>,
}

struct Open {
    /// Its row, if it has one.
    id: Option<i64>,
    block: Block,
}

impl<'t> Shelf<'t> {
    fn new(transaction: &'t Transaction<'t>, packer: &'t mut Packer, source: i64) -> Shelf<'t> {
        Shelf { transaction, packer, source, open: None }
    }

    fn put(&mut self, fact: Fact, record: &Record<&str>) -> rusqlite::Result<()> {
        if self.open.is_none() {
            self.open = Some(self.last()?);
        }
        if self.open.as_ref().is_some_and(|open| !open.block.has_room(fact.ended_us)) {
            self.close()?;
        }
        let open = self.open.get_or_insert_with(|| Open { id: None, block: Block::default() });
        open.block.push(fact, record);
        Ok(())
    }

    /// The node's last block, if it is small; an empty one otherwise. One that cannot be read stays as it is.
    fn last(&self) -> rusqlite::Result<Open> {
        let sql = format!(
            "SELECT {}, facts, details, id FROM block
             WHERE id = (SELECT max(id) FROM block WHERE source = ?1) AND records < ?2",
            Head::COLUMNS
        );
        let row = self
            .transaction
            .prepare_cached(&sql)?
            .query_row(params![self.source, limits::STORE_BLOCK_RECORDS_MIN as i64], |row| {
                Ok((row.get(Head::WIDTH + 2)?, block_of(row)))
            });
        Ok(match row.optional()? {
            Some((id, Ok(block))) => Open { id: Some(id), block },
            _ => Open { id: None, block: Block::default() },
        })
    }

    /// Writes the open block.
    fn close(&mut self) -> rusqlite::Result<()> {
        match self.open.take() {
            Some(Open { id, block }) => write_block(self.transaction, self.packer, self.source, id, &block),
            None => Ok(()),
        }
    }
}

fn write_block(
    transaction: &Transaction,
    packer: &mut Packer,
    source: i64,
    id: Option<i64>,
    block: &Block,
) -> rusqlite::Result<()> {
    let (Some((first, last)), Some((min_us, max_us))) = (block.numbers(), block.span()) else { return Ok(()) };
    let (facts, details) =
        block.pack(packer, source).map_err(|words| rusqlite::Error::ToSqlConversionFailure(words.into()))?;
    let sql = "INSERT OR REPLACE INTO block (id, source, first_seq, last_seq, records, min_us, max_us, facts, details)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let records = block.facts().len() as i64;
    let row = params![id, source, first as i64, last as i64, records, min_us, max_us, facts, details];
    transaction.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// Takes the records that ended before `before` out of a block; answers how many. One that cannot be read waits until all of it is old.
fn shorten(transaction: &Transaction, packer: &mut Packer, id: i64, before: Wall) -> rusqlite::Result<u64> {
    let sql = format!("SELECT {}, facts, details FROM block WHERE id = ?1", Head::COLUMNS);
    let read = transaction.prepare_cached(&sql)?.query_row([id], |row| {
        Ok(Head::read(row).and_then(|head| block_of(row).map(|block| (head.source, head.records, block))))
    })?;
    let Ok((source, records, block)) = read else { return Ok(0) };
    let rest = block.since(before.0);
    let kept = rest.facts().len() as u64;
    match kept {
        0 => transaction.execute("DELETE FROM block WHERE id = ?1", [id]).map(|_| ())?,
        _ => write_block(transaction, packer, source, Some(id), &rest)?,
    }
    Ok((records as u64).saturating_sub(kept))
}

/// A row of a block's head, its facts and its details.
fn block_of(row: &Row) -> Result<Block, Damaged> {
    let (facts, details) = (seal::bytes_at(row, Head::WIDTH)?, seal::bytes_at(row, Head::WIDTH + 1)?);
    Block::read(&Head::read(row)?, facts, details)
}

/// Records as facts: their words become numbers.
struct NumberedWords<'t> {
    words: &'t mut Words,
    insert: CachedStatement<'t>,
    seal: CachedStatement<'t>,
}

impl<'t> NumberedWords<'t> {
    fn prepare(transaction: &'t Transaction, words: &'t mut Words) -> rusqlite::Result<NumberedWords<'t>> {
        let insert = transaction.prepare_cached(
            "INSERT INTO word (text, day) VALUES (?1, ?2)
             ON CONFLICT (text) DO UPDATE SET day = max(day, excluded.day) RETURNING id, day, sum",
        )?;
        let seal = transaction.prepare_cached("UPDATE word SET sum = ?2 WHERE id = ?1")?;
        Ok(NumberedWords { words, insert, seal })
    }

    fn fact(&mut self, record: &Record<&str>) -> rusqlite::Result<Fact> {
        let day = record.ended_us.div_euclid(DAY_US);
        let mut column = 0;
        let mut word = |text: &str| {
            column += 1;
            self.words.number((&mut self.insert, &mut self.seal), column - 1, text, day)
        };
        Ok(Fact {
            seq: record.seq,
            ended_us: record.ended_us,
            node: word(record.node)?,
            host: word(record.request_host)?,
            user: word(record.username)?,
            client: word(record.client_ip)?,
            rule: word(record.rule)?,
            filter: word(record.filter_name)?,
            categories: word(record.categories)?,
            status: record.status,
            upload: record.upload,
            download: record.download,
        })
    }
}

/// How many columns are words.
const WORD_COLUMNS: usize = 7;

/// Numbers of words, remembered between batches. A word carries the last day of a record that uses it, so that pruning
/// knows without a search which words nobody uses.
#[derive(Default)]
struct Words {
    known: HashMap<String, (i64, i64)>,
    /// The last word of each column: most columns say the same again and again, and comparing is cheaper than hashing.
    last: [(String, (i64, i64)); WORD_COLUMNS],
}

impl Words {
    fn number(
        &mut self,
        (insert, note): (&mut CachedStatement, &mut CachedStatement),
        column: usize,
        text: &str,
        day: i64,
    ) -> rusqlite::Result<i64> {
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
                let (id, day, sum): (i64, i64, Option<i64>) =
                    insert.query_row(params![text, day], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                match (sum, seal::of_word(id, text)) {
                    (None, new) => note.execute(params![id, new]).map(|_| ())?,
                    (Some(sum), right) if sum == right => {}
                    _ => {
                        return Err(seal::corrupt(
                            "the index of its words does not lead to them, or a word is altered",
                        ));
                    }
                }
                let known = (id, day);
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
