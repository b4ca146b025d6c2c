//! Answers: one walk over the facts in the range adds up everything at once; words are looked up only for what is shown.

use crate::limits;
use crate::record::question::Answer;
use crate::record::question::Gap;
use crate::record::question::Question;
use crate::record::question::Rank;
use crate::record::question::RecordRow;
use crate::record::question::StoredAccount;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::types::Value;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// See `RecordStore::answer`.
pub fn answer(connection: &Connection, question: &Question) -> rusqlite::Result<Answer> {
    // One read transaction: counts, rankings and newest rows are of the same moment.
    let transaction = connection.unchecked_transaction()?;
    let mut answer = Answer { gaps: gaps(&transaction)?, ..Answer::default() };
    if let Some(filter) = Filter::of(&transaction, question)?
        && let Some(span) = span(&transaction, question)?
    {
        let mut categories = Categories { known: HashMap::new(), wanted: question.category.as_deref() };
        let sums = add_up(&transaction, &filter, &mut categories, span)?;
        let top = question.top.unwrap_or(10) as usize;
        answer.requests = sums.all.requests;
        answer.blocked = sums.all.blocked;
        (answer.upload, answer.download) = (sums.upload, sums.download);
        answer.hosts = ranks(&transaction, &sums.hosts, top)?;
        answer.users = ranks(&transaction, &sums.users, top)?;
        answer.rules = ranks(&transaction, &sums.rules, top)?;
        answer.nodes = ranks(&transaction, &sums.nodes, top)?;
        answer.blocked_hosts = ranks(&transaction, &sums.blocked_hosts, top)?;
        answer.categories = categories.ranks(&sums.categories, top);
        answer.series = span.series(&sums.series);
        answer.newest = newest(&transaction, &filter, &mut categories, question.newest.unwrap_or(50) as usize)?;
    }
    transaction.finish()?;
    Ok(answer)
}

/// The part of a question that SQL decides: conditions and their values.
struct Filter {
    sql: String,
    values: Vec<Value>,
}

impl Filter {
    /// `None` if the question names a word that no record has.
    fn of(connection: &Connection, question: &Question) -> rusqlite::Result<Option<Filter>> {
        let from = question.from_us.unwrap_or(i64::MIN);
        let to = question.to_us.unwrap_or(i64::MAX);
        let mut filter =
            Filter { sql: "ended_us >= ? AND ended_us < ?".to_string(), values: vec![from.into(), to.into()] };
        let words = [
            ("node", &question.node),
            ("host", &question.host),
            ("user", &question.user),
            ("client", &question.client),
            ("rule", &question.rule),
        ];
        for (column, text) in words {
            let Some(text) = text else { continue };
            let Some(number) = word_number(connection, text)? else { return Ok(None) };
            filter.require(column, "=", number.into());
        }
        if let Some(status) = question.status {
            filter.require("status", "=", i64::from(status).into());
        }
        if let Some(blocked) = question.blocked {
            filter.require("filter", if blocked { "<>" } else { "=" }, 0i64.into());
        }
        Ok(Some(filter))
    }

    fn require(&mut self, column: &str, is: &str, value: Value) {
        self.sql.push_str(&format!(" AND {column} {is} ?"));
        self.values.push(value);
    }
}

/// The time a question covers, cut into even intervals.
#[derive(Clone, Copy)]
struct Span {
    from: i64,
    step: i64,
    intervals: usize,
}

impl Span {
    fn interval(self, ended_us: i64) -> usize {
        let interval = ended_us.saturating_sub(self.from) / self.step;
        usize::try_from(interval).unwrap_or(0).min(self.intervals - 1)
    }

    fn series(self, sums: &[(u64, u64)]) -> Vec<(i64, u64, u64)> {
        let start = |index: usize| self.from.saturating_add(self.step.saturating_mul(index as i64));
        sums.iter().enumerate().map(|(index, (requests, blocked))| (start(index), *requests, *blocked)).collect()
    }
}

/// The span of the question, narrowed to where records are; `None` if there are none.
fn span(connection: &Connection, question: &Question) -> rusqlite::Result<Option<Span>> {
    let end = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
    let (Some(oldest), Some(newest)) = (end("SELECT min(ended_us) FROM fact")?, end("SELECT max(ended_us) FROM fact")?)
    else {
        return Ok(None);
    };
    let from = question.from_us.unwrap_or(oldest);
    let to = question.to_us.unwrap_or(newest.saturating_add(1)).max(from.saturating_add(1));
    let length = to.saturating_sub(from);
    let intervals = limits::REPORT_INTERVALS_MAX as i64;
    let step = length.div_euclid(intervals) + i64::from(length.rem_euclid(intervals) > 0);
    let step = step.max(1);
    Ok(Some(Span { from, step, intervals: (length.div_euclid(step) + i64::from(length % step > 0)).max(1) as usize }))
}

#[derive(Clone, Copy, Default)]
struct Sum {
    requests: u64,
    blocked: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, blocked: bool, bytes: u64) {
        self.requests += 1;
        self.blocked += u64::from(blocked);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

#[derive(Default)]
struct Sums {
    all: Sum,
    upload: u64,
    download: u64,
    hosts: HashMap<i64, Sum>,
    /// Blocked exchanges alone.
    blocked_hosts: HashMap<i64, Sum>,
    users: HashMap<i64, Sum>,
    rules: HashMap<i64, Sum>,
    nodes: HashMap<i64, Sum>,
    /// By the whole list, taken apart when all is added up.
    categories: HashMap<i64, Sum>,
    series: Vec<(u64, u64)>,
}

fn add_up(connection: &Connection, filter: &Filter, categories: &mut Categories, span: Span) -> rusqlite::Result<Sums> {
    let mut sums = Sums { series: vec![(0, 0); span.intervals], ..Sums::default() };
    let sql = format!(
        "SELECT ended_us, node, host, user, rule, filter, categories, upload, download FROM fact WHERE {}",
        filter.sql
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(&filter.values))?;
    while let Some(row) = rows.next()? {
        let list = row.get(6)?;
        if !categories.wants(connection, list)? {
            continue;
        }
        let blocked = row.get::<_, i64>(5)? != 0;
        let (upload, download) = (row.get::<_, i64>(7)? as u64, row.get::<_, i64>(8)? as u64);
        let bytes = upload.saturating_add(download);
        sums.all.add(blocked, bytes);
        sums.upload = sums.upload.saturating_add(upload);
        sums.download = sums.download.saturating_add(download);
        sums.nodes.entry(row.get(1)?).or_default().add(blocked, bytes);
        sums.hosts.entry(row.get(2)?).or_default().add(blocked, bytes);
        if blocked {
            sums.blocked_hosts.entry(row.get(2)?).or_default().add(blocked, bytes);
        }
        sums.users.entry(row.get(3)?).or_default().add(blocked, bytes);
        sums.rules.entry(row.get(4)?).or_default().add(blocked, bytes);
        sums.categories.entry(list).or_default().add(blocked, bytes);
        let (requests, refused) = &mut sums.series[span.interval(row.get(0)?)];
        *requests += 1;
        *refused += u64::from(blocked);
    }
    categories.learn(connection, sums.categories.keys().copied())?;
    Ok(sums)
}

/// Lists of categories by their number, taken apart.
struct Categories<'a> {
    known: HashMap<i64, Vec<String>>,
    wanted: Option<&'a str>,
}

impl Categories<'_> {
    /// Whether a record with this list is asked for.
    fn wants(&mut self, connection: &Connection, list: i64) -> rusqlite::Result<bool> {
        let Some(wanted) = self.wanted else { return Ok(true) };
        self.learn(connection, [list])?;
        Ok(self.known[&list].iter().any(|name| name == wanted))
    }

    fn learn(&mut self, connection: &Connection, lists: impl IntoIterator<Item = i64>) -> rusqlite::Result<()> {
        for list in lists {
            if let Entry::Vacant(place) = self.known.entry(list) {
                let names = word_text(connection, list)?;
                place.insert(names.split(',').filter(|name| !name.is_empty()).map(str::to_string).collect());
            }
        }
        Ok(())
    }

    fn ranks(&self, lists: &HashMap<i64, Sum>, top: usize) -> Vec<Rank> {
        let mut sums: HashMap<&str, Sum> = HashMap::new();
        for (list, sum) in lists {
            for name in &self.known[list] {
                let total = sums.entry(name).or_default();
                total.requests += sum.requests;
                total.blocked += sum.blocked;
                total.bytes = total.bytes.saturating_add(sum.bytes);
            }
        }
        let mut ranked: Vec<(&str, Sum)> = sums.into_iter().collect();
        ranked.sort_by(|(a_name, a), (b_name, b)| b.requests.cmp(&a.requests).then(a_name.cmp(b_name)));
        ranked.into_iter().take(top).map(|(name, sum)| rank(name.to_string(), sum)).collect()
    }
}

fn ranks(connection: &Connection, sums: &HashMap<i64, Sum>, top: usize) -> rusqlite::Result<Vec<Rank>> {
    let mut ranked: Vec<(i64, Sum)> = sums.iter().map(|(number, sum)| (*number, *sum)).collect();
    let order = |a: &(i64, Sum), b: &(i64, Sum)| b.1.requests.cmp(&a.1.requests).then(a.0.cmp(&b.0));
    if ranked.len() > top && top > 0 {
        ranked.select_nth_unstable_by(top - 1, order);
    }
    ranked.truncate(top);
    ranked.sort_by(order);
    ranked.into_iter().map(|(number, sum)| Ok(rank(word_text(connection, number)?, sum))).collect()
}

fn rank(name: String, sum: Sum) -> Rank {
    Rank { name, requests: sum.requests, blocked: sum.blocked, bytes: sum.bytes }
}

fn newest(
    connection: &Connection,
    filter: &Filter,
    categories: &mut Categories,
    count: usize,
) -> rusqlite::Result<Vec<RecordRow>> {
    // A category is not SQL's to decide; without one, SQL need not look further than the rows asked for.
    let limit = if categories.wanted.is_some() { -1 } else { count as i64 };
    let sql = format!(
        "SELECT fact.categories, detail, ended_us, node, user, host, status, upload, download, filter, rule FROM fact
         WHERE {} ORDER BY ended_us DESC, detail DESC LIMIT {limit}",
        filter.sql
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(&filter.values))?;
    let mut newest = Vec::new();
    while newest.len() < count
        && let Some(row) = rows.next()?
    {
        if !categories.wants(connection, row.get(0)?)? {
            continue;
        }
        let word = |column: usize| word_text(connection, row.get(column)?);
        let (upload, download) = (row.get::<_, i64>(7)? as u64, row.get::<_, i64>(8)? as u64);
        let shown = RecordRow {
            ended_us: row.get(2)?,
            node: word(3)?,
            user: word(4)?,
            host: word(5)?,
            status: row.get(6)?,
            size: upload.saturating_add(download),
            filter_name: word(9)?,
            rule: word(10)?,
            categories: word(0)?,
            ..detail(connection, row.get(1)?)?
        };
        newest.push(shown);
    }
    Ok(newest)
}

/// What a row shows from the detail; the rest is empty.
fn detail(connection: &Connection, id: i64) -> rusqlite::Result<RecordRow> {
    let sql =
        "SELECT record_id, seq, url, elapsed_ms, filtering_reason, method, snapshot, ending FROM detail WHERE id = ?1";
    connection.prepare_cached(sql)?.query_row([id], |row| {
        let word = |column: usize| word_text(connection, row.get(column)?);
        let none = String::new;
        Ok(RecordRow {
            record_id: row.get(0)?,
            ended_us: 0,
            node: none(),
            seq: row.get::<_, i64>(1)? as u64,
            user: none(),
            method: word(5)?,
            url: row.get(2)?,
            host: none(),
            status: 0,
            size: 0,
            elapsed_ms: row.get::<_, i64>(3)? as u64,
            filter_name: none(),
            filtering_reason: row.get(4)?,
            rule: none(),
            snapshot: word(6)?,
            ending: word(7)?,
            categories: none(),
        })
    })
}

/// See `RecordStore::accounts`.
pub fn accounts(connection: &Connection) -> rusqlite::Result<Vec<StoredAccount>> {
    let transaction = connection.unchecked_transaction()?;
    // A name's newest epoch is the one that counts; numbers of former ones may be missing, too, and are in the list.
    let sql = "SELECT name, highest, (SELECT coalesce(sum(last - first + 1), 0) FROM gap WHERE gap.node = node.id)
               FROM node WHERE id IN (SELECT max(id) FROM node GROUP BY name) ORDER BY name";
    let mut statement = transaction.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        let (highest, missing) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
        Ok(StoredAccount { node: row.get(0)?, highest, missing, gaps: Vec::new() })
    })?;
    let mut accounts: Vec<StoredAccount> = rows.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    for gap in gaps(&transaction)? {
        if let Some(account) = accounts.iter_mut().find(|account| account.node == gap.node) {
            account.gaps.push(gap);
        }
    }
    transaction.finish()?;
    Ok(accounts)
}

fn gaps(connection: &Connection) -> rusqlite::Result<Vec<Gap>> {
    let sql = "SELECT name, first, last, after_us, before_us FROM gap JOIN node ON node.id = gap.node
               ORDER BY name, gap.node, first LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([limits::REPORT_GAPS_MAX as i64], |row| {
        let (first, last) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
        Ok(Gap { node: row.get(0)?, first, last, after_us: row.get(3)?, before_us: row.get(4)? })
    })?;
    rows.collect()
}

fn word_number(connection: &Connection, text: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT id FROM word WHERE text = ?1")?.query_row([text], |row| row.get(0)).optional()
}

fn word_text(connection: &Connection, number: i64) -> rusqlite::Result<String> {
    let text = connection
        .prepare_cached("SELECT text FROM word WHERE id = ?1")?
        .query_row([number], |row| row.get(0))
        .optional()?;
    Ok(text.unwrap_or_default())
}
