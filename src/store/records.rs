//! The store of all nodes' records: exactly-once ingest and the questions of the report.
//!
//! The seam is [`RecordStore`]; why the embedded one is SQLite is said in `docs/decisions/0002-record-store.md`.

mod ask;
mod audit;
pub mod block;
mod ingest;
mod mend;
mod numbers;
mod schema;
pub mod seal;

use crate::base::clock::Wall;
use crate::limits;
use crate::record::Epoch;
use crate::record::Record;
use crate::record::audit::AuditQuestion;
use crate::record::audit::Proof;
use crate::record::question::Answer;
use crate::record::question::Question;
use crate::record::question::StoredAccount;
use rusqlite::Connection;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// A store of records. One implementation is embedded ([`SqliteRecords`]); another may stand on other machines, so
/// nothing here speaks of SQL or files. Calls block: ask from a thread that may.
pub trait RecordStore: Send + Sync {
    /// Stores what of `batch` is not stored yet, durably, and answers the highest sequence number stored of this epoch:
    /// that may be acknowledged. A node is known by its epoch; its name may change.
    fn ingest(&self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> Result<u64, StoreError>;
    /// The highest sequence number stored of a node's epoch; 0 if none.
    fn highest(&self, node: &str, epoch: Epoch) -> Result<u64, StoreError>;
    /// Answers a question that `report` has checked.
    fn answer(&self, question: &Question) -> Result<Answer, StoreError>;
    /// Which numbers of a node's records are missing in a range of time. The question names the node.
    fn audit(&self, question: &AuditQuestion) -> Result<Proof, StoreError>;
    /// What is stored of each node, by name, and what never arrived.
    fn accounts(&self) -> Result<Vec<StoredAccount>, StoreError>;
    /// Forgets records that ended before `before`; answers how many.
    fn prune(&self, before: Wall) -> Result<u64, StoreError>;
}

/// Why the store could not do it: what was being done, to what, what happened, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// The embedded store: one SQLite file in WAL mode. One connection writes; a few others read beside it.
pub struct SqliteRecords {
    path: PathBuf,
    writer: Mutex<ingest::Writer>,
    readers: Mutex<Vec<Connection>>,
}

impl SqliteRecords {
    /// Opens or makes the store at `path` (`STATE_DIR/records.db`).
    pub fn open(path: &Path) -> Result<SqliteRecords, StoreError> {
        let writer = schema::open_writer(path).map_err(|why| failed("opening", path, &why))?;
        let writer = Mutex::new(ingest::Writer::new(writer).map_err(|why| failed("opening", path, &why))?);
        Ok(SqliteRecords { path: path.to_path_buf(), writer, readers: Mutex::new(Vec::new()) })
    }

    /// A panic elsewhere leaves no half-done work behind: transactions that were not committed roll back.
    fn writer(&self) -> MutexGuard<'_, ingest::Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `ask` with a connection of its own.
    fn reading<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let readers = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = readers().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => schema::open_reader(&self.path).map_err(|why| failed("opening", &self.path, &why))?,
        };
        let answer = ask(&connection).map_err(|error| failed_by("asking", &self.path, &error))?;
        let mut readers = readers();
        if readers.len() < limits::STORE_READERS_MAX {
            readers.push(connection);
        }
        Ok(answer)
    }
}

impl RecordStore for SqliteRecords {
    fn ingest(&self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> Result<u64, StoreError> {
        let stored = self.writer().ingest(node, epoch, batch);
        stored.map_err(|error| failed_by("storing records in", &self.path, &error))
    }

    fn highest(&self, _node: &str, epoch: Epoch) -> Result<u64, StoreError> {
        self.reading(|connection| numbers::highest(connection, epoch).map(Option::unwrap_or_default))
    }

    fn answer(&self, question: &Question) -> Result<Answer, StoreError> {
        self.reading(|connection| ask::answer(connection, question))
    }

    fn audit(&self, question: &AuditQuestion) -> Result<Proof, StoreError> {
        let mut proof = self.reading(|connection| audit::audit(connection, question))?;
        proof.place = self.path.display().to_string();
        Ok(proof)
    }

    fn accounts(&self) -> Result<Vec<StoredAccount>, StoreError> {
        self.reading(ask::accounts)
    }

    fn prune(&self, before: Wall) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            // The lock is let go between two portions: ingest goes first.
            let some = self.writer().prune(before, limits::STORE_PRUNE_BLOCKS);
            let (some, more) = some.map_err(|error| failed_by("forgetting old records in", &self.path, &error))?;
            forgotten += some;
            if !more {
                return Ok(forgotten);
            }
        }
    }
}

fn failed_by(doing: &str, path: &Path, error: &rusqlite::Error) -> StoreError {
    match seal::is_corrupt(error) {
        true => StoreError(format!(
            "{doing} the record store {}: the file is damaged ({error}). Look at the disk. Stop the master, keep a copy of the file, and save what can be \
             read (sqlite3 records.db .recover), or move it away to begin an empty store: nodes send again what they still have in their logs.",
            path.display()
        )),
        false => failed(doing, path, &error.to_string()),
    }
}

fn failed(doing: &str, path: &Path, why: &str) -> StoreError {
    StoreError(format!(
        "{doing} the record store {}: {why}. Nothing that was acknowledged is lost; see that the disk has space and the file \
         belongs to the service's user.",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::question::Gap;
    use proptest::prelude::*;

    const EPOCH: Epoch = Epoch([1; 16]);

    fn record(seq: u64) -> Record {
        Record {
            seq,
            record_id: format!("0-{seq}-1-boot"),
            node: "edge-1".to_string(),
            ended_us: 1_000_000 * seq as i64,
            request_host: format!("h{}.test", seq % 3),
            username: format!("u{}@10.0.0.1", seq % 2),
            client_ip: "10.0.0.1".to_string(),
            url: format!("http://h{}.test/{seq}", seq % 3),
            categories: if seq.is_multiple_of(2) { "News,Sport".to_string() } else { "Sport".to_string() },
            filter_name: if seq.is_multiple_of(5) { "access".to_string() } else { String::new() },
            rule: "r".to_string(),
            status: 200,
            upload: 1,
            download: 10,
            ..Record::default()
        }
    }

    fn ingest(store: &SqliteRecords, node: &str, epoch: Epoch, seqs: impl IntoIterator<Item = u64>) -> u64 {
        let records: Vec<Record> = seqs.into_iter().map(record).collect();
        let batch: Vec<Record<&str>> = records.iter().map(Record::view).collect();
        store.ingest(node, epoch, &batch).unwrap()
    }

    fn store() -> (tempfile::TempDir, SqliteRecords) {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteRecords::open(&dir.path().join("records.db")).unwrap();
        (dir, store)
    }

    #[test]
    fn a_record_counts_once_whatever_arrives_twice_or_late_and_gaps_are_kept_until_filled() {
        let (dir, store) = store();
        assert_eq!(store.highest("edge-1", EPOCH).unwrap(), 0);
        let told = |store: &SqliteRecords| {
            let answer = store.answer(&Question::default()).unwrap();
            let gaps: Vec<(u64, u64)> = answer.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
            (answer.requests, gaps)
        };
        /// What arrives; then: highest, count, gaps.
        type Step<'a> = (&'a [u64], u64, u64, &'a [(u64, u64)]);
        let steps: &[Step] = &[
            (&[1, 2, 3], 3, 3, &[]),
            (&[2, 3, 4], 4, 4, &[]),
            (&[8, 9, 12], 12, 7, &[(5, 7), (10, 11)]),
            (&[8, 9, 12], 12, 7, &[(5, 7), (10, 11)]),
            (&[6], 12, 8, &[(5, 5), (7, 7), (10, 11)]),
            (&[4, 5, 6, 7, 8], 12, 10, &[(10, 11)]),
            (&[10, 11, 12, 13], 13, 13, &[]),
        ];
        for (seqs, highest, count, gaps) in steps {
            assert_eq!(ingest(&store, "edge-1", EPOCH, seqs.iter().copied()), *highest, "{seqs:?}");
            assert_eq!(told(&store), (*count, gaps.to_vec()), "{seqs:?}");
        }
        assert_eq!(ingest(&store, "edge-2", Epoch([2; 16]), [1]), 1, "another node counts for itself");
        drop(store);
        let again = SqliteRecords::open(&dir.path().join("records.db")).unwrap();
        assert_eq!((again.highest("renamed", EPOCH).unwrap(), told(&again).0), (13, 14));
    }

    #[test]
    fn a_gap_says_of_when_its_records_are_and_every_node_has_its_account() {
        let (dir, store) = store();
        ingest(&store, "edge-1", EPOCH, [3, 4, 9, 10]);
        ingest(&store, "edge-1", EPOCH, [6]);
        ingest(&store, "edge-2", Epoch([2; 16]), 1..=5);
        ingest(&store, "edge-2", Epoch([3; 16]), [2]);
        drop(store);
        let store = SqliteRecords::open(&dir.path().join("records.db")).unwrap();
        let accounts = store.accounts().unwrap();
        let told: Vec<_> = accounts.iter().map(|one| (one.node.as_str(), one.highest, one.missing)).collect();
        assert_eq!(told, [("edge-1", 10, 5), ("edge-2", 2, 1)], "of a node installed anew the new life counts");
        let seconds = |gap: &Gap| (gap.first, gap.last, gap.after_us / 1_000_000, gap.before_us / 1_000_000);
        let gaps: Vec<_> = accounts[0].gaps.iter().map(seconds).collect();
        assert_eq!(gaps, [(1, 2, 0, 3), (5, 5, 4, 6), (7, 8, 6, 9)]);
    }

    #[test]
    fn a_question_is_answered_by_count_rank_and_time() {
        let (_dir, store) = store();
        ingest(&store, "edge-1", EPOCH, 1..=30);
        let all = store.answer(&Question::default()).unwrap();
        assert_eq!((all.requests, all.blocked, all.upload, all.download), (30, 6, 30, 300));
        let names: Vec<(&str, u64)> = all.categories.iter().map(|rank| (rank.name.as_str(), rank.requests)).collect();
        assert_eq!(names, [("Sport", 30), ("News", 15)]);
        assert_eq!((all.hosts.len(), all.hosts[0].bytes, all.users.len(), all.nodes[0].requests), (3, 110, 2, 30));
        assert_eq!(all.blocked_hosts.iter().map(|rank| rank.requests).sum::<u64>(), 6);
        assert_eq!((all.newest.len(), all.newest[0].seq, all.newest[29].seq), (30, 30, 1));
        assert_eq!(all.newest[0].url, "http://h0.test/30");
        assert_eq!(all.series.iter().map(|(_, requests, _)| requests).sum::<u64>(), 30);
        let table: [(Question, u64); 9] = [
            (Question { host: Some("h1.test".to_string()), ..Question::default() }, 10),
            (Question { user: Some("u1@10.0.0.1".to_string()), ..Question::default() }, 15),
            (Question { category: Some("News".to_string()), ..Question::default() }, 15),
            (Question { category: Some("New".to_string()), ..Question::default() }, 0),
            (Question { blocked: Some(true), ..Question::default() }, 6),
            (Question { blocked: Some(false), host: Some("h0.test".to_string()), ..Question::default() }, 8),
            (Question { from_us: Some(11_000_000), to_us: Some(21_000_000), ..Question::default() }, 10),
            (Question { node: Some("nowhere".to_string()), ..Question::default() }, 0),
            (Question { status: Some(404), ..Question::default() }, 0),
        ];
        for (question, requests) in table {
            let answer = store.answer(&question).unwrap();
            assert_eq!((answer.requests, answer.newest.len() as u64), (requests, requests), "{question:?}");
        }
        let few = store.answer(&Question { top: Some(1), newest: Some(2), ..Question::default() }).unwrap();
        assert_eq!((few.hosts.len(), few.newest.len()), (1, 2));
        let bare = store.answer(&Question { top: Some(0), newest: Some(2), ..Question::default() }).unwrap();
        assert_eq!((bare.requests, bare.blocked, bare.hosts.len(), bare.newest.len()), (30, 6, 0, 2));
        // Of several nodes' blocks, which lie in any order in time.
        ingest(&store, "edge-2", Epoch([2; 16]), (1..=2000).rev().step_by(50).collect::<Vec<_>>().into_iter().rev());
        ingest(&store, "edge-3", Epoch([3; 16]), 25..=33);
        let newest =
            store.answer(&Question { newest: Some(4), to_us: Some(33_000_000), ..Question::default() }).unwrap();
        let times: Vec<i64> = newest.newest.iter().map(|row| row.ended_us / 1_000_000).collect();
        assert_eq!(times, [32, 31, 30, 30]);
    }

    #[test]
    fn pages_of_rows_alone_are_those_of_the_whole_report_and_read_nothing_that_is_older() {
        let (dir, store) = store();
        ingest(&store, "edge-1", EPOCH, 1..=3000);
        ingest(&store, "edge-2", Epoch([2; 16]), (1..=2000).step_by(50));
        ingest(&store, "edge-3", Epoch([3; 16]), 25..=33);
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let page = Question { newest: Some(97), rows_only: true, after, ..Question::default() };
            let whole = store.answer(&Question { rows_only: false, ..page.clone() }).unwrap();
            let page = store.answer(&page).unwrap();
            assert_eq!(page.newest, whole.newest);
            assert_eq!((page.requests, page.hosts.len(), page.series.len()), (0, 0, 0), "rows alone");
            assert_eq!(whole.requests, 3049, "sums are of the whole range on every page");
            walked.extend(page.newest);
            match page.last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        assert_eq!(walked.len(), 3049, "each once, and all nodes have records that ended together");
        assert!(walked.is_sorted_by(|one, next| one.ended_us >= next.ended_us));

        // A block that cannot be read is missed only by who must read it.
        let connection = Connection::open(dir.path().join("records.db")).unwrap();
        connection
            .execute("UPDATE block SET facts = x'00' WHERE min_us <= 1000000 AND max_us < 3000000000", [])
            .unwrap();
        let newest =
            |rows_only| store.answer(&Question { newest: Some(97), rows_only, ..Question::default() }).unwrap();
        assert!(newest(false).unreadable > 0);
        assert_eq!(newest(true).unreadable, 0);
        assert_eq!(newest(true).newest, newest(false).newest);
    }

    #[test]
    fn a_walk_through_records_of_one_microsecond_meets_each_once_also_while_others_come_and_go() {
        let (_dir, store) = store();
        let put = |epoch: u8, seqs: std::ops::RangeInclusive<u64>, ended_us: i64| {
            let id = |seq| format!("{epoch}-{seq}");
            let records: Vec<Record> = seqs.map(|seq| Record { ended_us, record_id: id(seq), ..record(seq) }).collect();
            let batch: Vec<Record<&str>> = records.iter().map(Record::view).collect();
            store.ingest("edge-1", Epoch([epoch; 16]), &batch).unwrap();
        };
        // The old records of the second life fill the block that some of the moment's stand in: forgetting them moves those.
        put(1, 1..=1500, 9_000_000);
        put(2, 1..=100, 8_000_000);
        put(2, 101..=1100, 9_000_000);
        let (mut walked, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let question =
                Question { from_us: Some(9_000_000), newest: Some(700), rows_only: true, after, ..Question::default() };
            let page = store.answer(&question).unwrap();
            walked.extend(page.newest.into_iter().map(|row| row.record_id));
            pages += 1;
            match pages {
                1 => assert_eq!(store.prune(Wall(9_000_000)).unwrap(), 100),
                2 => put(1, 1501..=1510, 10_000_000),
                _ => {}
            }
            match page.last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        assert_eq!((walked.len(), pages), (2500, 4));
        walked.sort();
        walked.dedup();
        assert_eq!(walked.len(), 2500);
    }

    #[test]
    fn an_audit_names_what_never_came_and_what_somebody_deleted() {
        let (dir, store) = store();
        ingest(&store, "edge-1", EPOCH, (1..=3000).filter(|seq| !(11..=13).contains(seq)));
        ingest(&store, "edge-2", Epoch([2; 16]), 1..=5);
        let ask = |from_us, to_us| {
            let proof = store.audit(&AuditQuestion { node: Some("edge-1".to_string()), from_us, to_us }).unwrap();
            let found: Vec<(u64, u64)> = proof.findings.iter().map(|one| (one.first, one.last)).collect();
            ((proof.records, proof.first, proof.last), found)
        };
        assert_eq!(ask(None, None), ((2997, 1, 3000), vec![(11, 13)]));
        assert_eq!(ask(Some(14_000_000), Some(20_000_000)), ((6, 14, 19), vec![]), "the range is whole");
        assert_eq!(ask(Some(11_000_000), Some(13_000_000)), ((0, 0, 0), vec![(11, 13)]), "nothing but a gap");
        assert_eq!(ask(Some(5_000_000), Some(11_000_000)), ((6, 5, 10), vec![(11, 13)]), "a gap at its end");
        let outside = Connection::open(dir.path().join("records.db")).unwrap();
        outside.execute("DELETE FROM block WHERE id = 2", []).unwrap();
        assert_eq!(ask(Some(14_000_000), None), ((1963, 14, 3000), vec![(1028, 2051)]));
        outside.execute("DELETE FROM block WHERE id = 3", []).unwrap();
        assert_eq!(ask(Some(14_000_000), None), ((1014, 14, 3000), vec![(1028, 3000)]), "also at the end");
        outside.execute("UPDATE block SET facts = x'00' WHERE id = 1", []).unwrap();
        assert_eq!(ask(None, None).1, [(1, 1027), (11, 13)], "what cannot be read is no proof");
        let answer = store.answer(&Question::default()).unwrap();
        assert_eq!((answer.requests, answer.unreadable), (5, 1024), "and a report says so");
        let nobody = AuditQuestion { node: Some("nobody".to_string()), ..AuditQuestion::default() };
        assert_eq!(store.audit(&nobody).unwrap().records, 0);
    }

    /// A row of `edge-1`'s store altered behind its back, as a disk would.
    fn altered(sql: &str) -> (tempfile::TempDir, SqliteRecords) {
        let (dir, store) = store();
        ingest(&store, "edge-1", EPOCH, (1..=600).filter(|seq| !(11..=13).contains(seq)));
        drop(store);
        let path = dir.path().join("records.db");
        assert_eq!(Connection::open(&path).unwrap().execute(sql, []).unwrap(), 1, "{sql}");
        (dir, SqliteRecords::open(&path).unwrap())
    }

    fn findings(store: &SqliteRecords) -> String {
        let question = AuditQuestion { node: Some("edge-1".to_string()), ..AuditQuestion::default() };
        format!("{:?}", store.audit(&question).unwrap().findings)
    }

    #[test]
    fn rows_that_a_disk_altered_are_named_and_what_comes_is_stored_once_all_the_same() {
        let table = [
            ("UPDATE node SET highest = highest | 4096", "table of nodes"),
            ("UPDATE node SET highest = highest & 511", "table of nodes"),
            ("UPDATE gap SET first = first | 1024", "table of gaps"),
            ("UPDATE gap SET last = last | 64", "table of gaps"),
            ("UPDATE gap SET node = node | 8", "table of gaps"),
        ];
        for (sql, words) in table {
            let (_dir, store) = altered(sql);
            assert!(findings(&store).contains(words), "{sql}: {}", findings(&store));
            assert_eq!(ingest(&store, "edge-1", EPOCH, 1..=605), 605, "{sql}");
            let answer = store.answer(&Question { newest: Some(1000), ..Question::default() }).unwrap();
            let seqs: Vec<u64> = answer.newest.iter().rev().map(|row| row.seq).collect();
            assert!(seqs.iter().copied().eq(1..=605), "{sql}: {seqs:?}");
        }
        let (_dir, store) = altered("UPDATE word SET text = 'h7.test' WHERE text = 'h1.test'");
        let answer = store.answer(&Question::default()).unwrap();
        assert!(answer.hosts.iter().any(|rank| rank.name.starts_with("(damaged word ")), "{:?}", answer.hosts);
        assert!(findings(&store).contains("table of words"), "{}", findings(&store));
        let (_dir, store) = altered("UPDATE block SET source = 7, first_seq = first_seq WHERE id = 1");
        assert!(findings(&store).contains("1 blocks of the store are of no node"), "{}", findings(&store));
        assert_eq!(store.answer(&Question::default()).unwrap().unreadable, 597);
    }

    #[test]
    fn a_number_that_is_stored_twice_is_found_also_if_another_is_missing() {
        let (dir, store) = store();
        ingest(&store, "edge-1", EPOCH, (1..=300).filter(|seq| *seq != 7));
        Connection::open(dir.path().join("records.db"))
            .unwrap()
            .execute("UPDATE node SET highest = 299, sum = NULL", [])
            .unwrap();
        // A store that believes to be one behind takes in what it has; here by a row that says so.
        let connection = Connection::open(dir.path().join("records.db")).unwrap();
        let sum = seal::of_node(1, &EPOCH.0, "edge-1", (299, 299_000_000));
        connection.execute("UPDATE node SET highest = 299, last_us = 299000000, sum = ?1", [sum]).unwrap();
        ingest(&store, "edge-1", EPOCH, [300]);
        let told = findings(&store);
        assert!(told.contains("is stored twice") && told.contains("first: 7"), "{told}");
    }

    #[test]
    fn a_store_of_the_version_before_is_sealed_as_it_stands_and_goes_on() {
        let (dir, store) = store();
        ingest(&store, "edge-1", EPOCH, [1, 2, 5]);
        drop(store);
        let path = dir.path().join("records.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch(
                "ALTER TABLE word DROP COLUMN sum; ALTER TABLE node DROP COLUMN sum; ALTER TABLE gap DROP COLUMN sum; PRAGMA user_version = 3;",
            )
            .unwrap();
        let store = SqliteRecords::open(&path).unwrap();
        assert_eq!(findings(&store).matches("never arrived").count(), findings(&store).matches("words").count());
        assert_eq!(ingest(&store, "edge-1", EPOCH, 1..=6), 6);
        let answer = store.answer(&Question::default()).unwrap();
        assert_eq!((answer.requests, answer.gaps.len(), findings(&store).as_str()), (6, 0, "[]"));
    }

    #[test]
    fn an_index_that_does_not_lead_to_a_word_is_named_and_made_anew_where_it_leads_to_another() {
        // A letter of the word, or the number of its row, in the index alone.
        for (behind, bit, leads_to_another) in [(1, 4, false), (7, 1, true)] {
            let (dir, store) = store();
            ingest(&store, "edge-1", EPOCH, 1..=600);
            drop(store);
            let path = dir.path().join("records.db");
            let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_word_1'";
            let page: usize = Connection::open(&path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let page = &mut bytes[(page - 1) * 4096..page * 4096];
            let at = page.windows(7).position(|window| window == b"h1.test").unwrap();
            page[at + behind] ^= bit;
            std::fs::write(&path, bytes).unwrap();
            let store = SqliteRecords::open(&path).unwrap();
            assert!(findings(&store).contains("the store's table word"), "{}", findings(&store));
            let of_host = Question { host: Some("h1.test".to_string()), ..Question::default() };
            if leads_to_another {
                let refused = store.answer(&of_host).unwrap_err();
                assert!(refused.0.contains("the file is damaged (the index of its words"), "{refused}");
            }
            assert_eq!(ingest(&store, "edge-1", EPOCH, 1..=700), 700);
            let answer = store.answer(&Question { newest: Some(1000), ..Question::default() }).unwrap();
            assert_eq!((answer.requests, answer.unreadable, answer.newest.len()), (700, 0, 700));
            assert!(answer.newest.iter().all(|row| row.host == format!("h{}.test", row.seq % 3)));
            if leads_to_another {
                assert_eq!((store.answer(&of_host).unwrap().requests, findings(&store).as_str()), (234, "[]"));
            }
        }
    }

    #[test]
    fn old_records_are_forgotten_and_do_not_come_back() {
        let (_dir, store) = store();
        ingest(&store, "edge-1", EPOCH, 1..=30);
        assert_eq!(store.prune(Wall(11_000_000)).unwrap(), 10);
        ingest(&store, "edge-1", EPOCH, 5..=31);
        let answer = store.answer(&Question::default()).unwrap();
        assert_eq!((answer.requests, answer.newest.last().unwrap().seq, answer.gaps.len()), (21, 11, 0));
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.db");
        std::fs::write(&path, b"certainly not a database, but long enough to look like a file of somebody else")
            .unwrap();
        assert!(SqliteRecords::open(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x); PRAGMA user_version = 99;").unwrap();
        let Err(refused) = SqliteRecords::open(&path) else { panic!("another version's store was opened") };
        assert!(refused.0.contains("99"), "{refused}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_order_of_overlapping_batches_stores_each_record_once(
            batches in proptest::collection::vec((1u64..60, 1u64..12), 1..20),
        ) {
            let (_dir, store) = store();
            let mut stored = std::collections::BTreeSet::new();
            for (first, count) in batches {
                stored.extend(first..first + count);
                let highest = ingest(&store, "edge-1", EPOCH, first..first + count);
                prop_assert_eq!(Some(&highest), stored.last());
                let answer = store.answer(&Question { newest: Some(1000), ..Question::default() }).unwrap();
                let seqs: Vec<u64> = answer.newest.iter().rev().map(|row| row.seq).collect();
                prop_assert_eq!(&seqs, &stored.iter().copied().collect::<Vec<_>>());
                let missing: u64 = answer.gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
                prop_assert_eq!(missing, highest - stored.len() as u64);
            }
        }
    }
}
