//! Answers: one walk over the facts in the range adds up everything at once; words are looked up only for what is shown.

use crate::limits;
use crate::record::UNRECORDED_RULE;
use crate::record::question::Answer;
use crate::record::question::Gap;
use crate::record::question::Place;
use crate::record::question::Question;
use crate::record::question::Rank;
use crate::record::question::RecordRow;
use crate::record::question::StoredAccount;
use crate::store::records::block;
use crate::store::records::block::Details;
use crate::store::records::block::Fact;
use crate::store::records::numbers;
use crate::store::records::numbers::damaged_word;
use crate::store::records::seal;
use crate::store::records::seal::Damaged;
use crate::store::records::seal::Head;
use crate::store::records::seal::Part;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use std::cmp::Ordering;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;

/// See `RecordStore::answer`.
pub fn answer(connection: &Connection, question: &Question) -> rusqlite::Result<Answer> {
    // One read transaction: counts, rankings and newest rows are of the same moment.
    let transaction = connection.unchecked_transaction()?;
    let mut answer = Answer { gaps: gaps(&transaction)?.into_iter().flatten().collect(), ..Answer::default() };
    if let Some(filter) = Filter::of(&transaction, question)?
        && let Some(span) = span(&transaction, question)?
    {
        let mut categories = Categories { known: HashMap::new(), wanted: question.category.as_deref() };
        let newest = Newest::of(question.newest.unwrap_or(50) as usize, question.after);
        let top = question.top.unwrap_or(10) as usize;
        let series = vec![(0, 0); span.intervals];
        let sums = Sums { series, newest, ranks: top > 0, rows_only: question.rows_only, ..Sums::default() };
        let sums = add_up(&transaction, &filter, &mut categories, span, sums)?;
        answer.requests = sums.all.requests;
        answer.unrecorded = sums.unrecorded;
        answer.blocked = sums.all.blocked;
        answer.unreadable = sums.unreadable;
        (answer.upload, answer.download) = (sums.upload, sums.download);
        answer.hosts = ranks(&transaction, &sums.hosts, top)?;
        answer.users = ranks(&transaction, &sums.users, top)?;
        answer.rules = ranks(&transaction, &sums.rules, top)?;
        answer.nodes = ranks(&transaction, &sums.nodes, top)?;
        answer.blocked_hosts = ranks(&transaction, &sums.blocked_hosts, top)?;
        answer.categories = categories.ranks(&sums.categories, top);
        if !question.rows_only {
            answer.series = span.series(&sums.series);
        }
        answer.last = sums.newest.last();
        let unreadable;
        (answer.newest, unreadable) = rows(&transaction, sums.newest)?;
        answer.unreadable = answer.unreadable.saturating_add(unreadable);
    }
    transaction.finish()?;
    Ok(answer)
}

/// A word of a fact.
type OfFact = fn(&Fact) -> i64;

/// What a fact must be to be asked for; the category is looked at apart.
struct Filter {
    from_us: i64,
    to_us: i64,
    /// What a word must be, and where it stands.
    words: Vec<(i64, OfFact)>,
    status: Option<u16>,
    blocked: Option<bool>,
}

impl Filter {
    /// `None` if the question names a word that no record has.
    fn of(connection: &Connection, question: &Question) -> rusqlite::Result<Option<Filter>> {
        let named: [(&Option<String>, OfFact); 5] = [
            (&question.node, |fact| fact.node),
            (&question.host, |fact| fact.host),
            (&question.user, |fact| fact.user),
            (&question.client, |fact| fact.client),
            (&question.rule, |fact| fact.rule),
        ];
        let mut words = Vec::new();
        for (text, of) in named {
            let Some(text) = text else { continue };
            let Some(number) = word_number(connection, text)? else { return Ok(None) };
            words.push((number, of));
        }
        Ok(Some(Filter {
            from_us: question.from_us.unwrap_or(i64::MIN),
            to_us: question.to_us.unwrap_or(i64::MAX),
            words,
            status: question.status,
            blocked: question.blocked,
        }))
    }

    fn holds(&self, fact: &Fact) -> bool {
        fact.ended_us >= self.from_us
            && fact.ended_us < self.to_us
            && self.words.iter().all(|(number, of)| of(fact) == *number)
            && self.status.is_none_or(|status| fact.status == status)
            && self.blocked.is_none_or(|blocked| (fact.filter != 0) == blocked)
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
    let (Some(oldest), Some(newest)) = (end("SELECT min(min_us) FROM block")?, end("SELECT max(max_us) FROM block")?)
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

/// Sums by the number of a word.
type SumsBy = HashMap<i64, Sum, BuildHasherDefault<NumberHasher>>;

/// Spreads the numbers of words, which the store gives out one after the other: nobody outside chooses them.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_i64(i64::from(*byte)));
    }

    fn write_i64(&mut self, number: i64) {
        let mixed = (self.0 ^ number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[derive(Default)]
struct Sums {
    all: Sum,
    /// Whether rankings are asked for.
    ranks: bool,
    /// Whether nothing is added up.
    rows_only: bool,
    /// Exchanges that have no record, by the records that say so.
    unrecorded: u64,
    upload: u64,
    download: u64,
    hosts: SumsBy,
    /// Blocked exchanges alone.
    blocked_hosts: SumsBy,
    users: SumsBy,
    rules: SumsBy,
    nodes: SumsBy,
    /// By the whole list, taken apart when all is added up.
    categories: SumsBy,
    series: Vec<(u64, u64)>,
    newest: Newest,
    /// Records of blocks that cannot be read.
    unreadable: u64,
}

impl Sums {
    fn add(&mut self, fact: &Fact, span: Span) {
        let (blocked, bytes) = (fact.filter != 0, fact.upload.saturating_add(fact.download));
        self.all.add(blocked, bytes);
        self.upload = self.upload.saturating_add(fact.upload);
        self.download = self.download.saturating_add(fact.download);
        let (requests, refused) = &mut self.series[span.interval(fact.ended_us)];
        *requests += 1;
        *refused += u64::from(blocked);
        // An open page that asks for the newest records alone, again and again, has no use for the rest.
        if !self.ranks {
            return;
        }
        self.nodes.entry(fact.node).or_default().add(blocked, bytes);
        self.hosts.entry(fact.host).or_default().add(blocked, bytes);
        if blocked {
            self.blocked_hosts.entry(fact.host).or_default().add(blocked, bytes);
        }
        self.users.entry(fact.user).or_default().add(blocked, bytes);
        self.rules.entry(fact.rule).or_default().add(blocked, bytes);
        self.categories.entry(fact.categories).or_default().add(blocked, bytes);
    }
}

fn add_up(
    connection: &Connection,
    filter: &Filter,
    categories: &mut Categories,
    span: Span,
    mut sums: Sums,
) -> rusqlite::Result<Sums> {
    // Newest first, by the index: the rest need not be read once the rows are found.
    let order = if sums.rows_only { " ORDER BY max_us DESC" } else { "" };
    let columns = Head::COLUMNS;
    let sql = format!("SELECT {columns}, id FROM block WHERE max_us >= ?1 AND min_us < ?2{order}");
    let to_us = if sums.rows_only { filter.to_us.min(sums.newest.to_us()) } else { filter.to_us };
    let mut statement = connection.prepare_cached(&sql)?;
    let mut blocks = statement.query([filter.from_us, to_us])?;
    let mut facts = Vec::new();
    let mut counted = Unrecorded { rule: word_number(connection, UNRECORDED_RULE)?, unpacked: None, damaged: 0 };
    while let Some(row) = blocks.next()? {
        let head = Head::read(row);
        let last_us = head.as_ref().map_or(i64::MAX, |head| head.max_us);
        if sums.rows_only && sums.newest.has_all_after(last_us) {
            sums.newest.more = true;
            break;
        }
        facts.clear();
        let id = seal::number_at(row, Head::WIDTH).unwrap_or(0);
        let head = match head {
            Ok(head) => facts_of(connection, id, head, &mut facts)?,
            Err(damaged) => Err(damaged),
        };
        let head = match head {
            Ok(head) => head,
            Err(damaged) => {
                sums.unreadable +=
                    seal::number_at(row, 3).unwrap_or(0).clamp(1, limits::STORE_BLOCK_RECORDS_MAX as i64) as u64;
                tell_damage(id, &damaged);
                continue;
            }
        };
        let place = InBlock { id, head };
        for (at, fact) in facts.iter().enumerate().filter(|(_, fact)| filter.holds(fact)) {
            if categories.wants(connection, fact.categories)? {
                sums.newest.offer(place, at, fact);
                if sums.rows_only {
                    continue;
                }
                match counted.number(connection, place, at, fact)? {
                    Some(number) => sums.unrecorded = sums.unrecorded.saturating_add(number),
                    None => sums.add(fact, span),
                }
            }
        }
    }
    sums.unreadable += counted.damaged;
    categories.learn(connection, sums.categories.keys().copied())?;
    Ok(sums)
}

fn facts_of(
    connection: &Connection,
    id: i64,
    head: Head,
    facts: &mut Vec<Fact>,
) -> rusqlite::Result<Result<Head, Damaged>> {
    seal::with_frame(connection, id, Part::Facts, |packed| block::read_facts(&head, packed, facts).map(|()| head))
}

fn tell_damage(block: i64, damaged: &Damaged) {
    seal::tell(&format!("block {block}"), damaged);
}

/// A block, and what its row said of it when its facts were read.
#[derive(Clone, Copy)]
struct InBlock {
    id: i64,
    head: Head,
}

/// Finds the records that tell how many exchanges have none.
struct Unrecorded {
    /// Their rule; `None` if no record has it.
    rule: Option<i64>,
    /// The block that was looked into last.
    unpacked: Option<(i64, Option<Details>)>,
    /// Such records whose details cannot be read.
    damaged: u64,
}

impl Unrecorded {
    /// How many exchanges without a record this one tells of; `None` if it is an exchange's own: some policy's rule may have that name.
    fn number(
        &mut self,
        connection: &Connection,
        block: InBlock,
        at: usize,
        fact: &Fact,
    ) -> rusqlite::Result<Option<u64>> {
        if Some(fact.rule) != self.rule {
            return Ok(None);
        }
        if self.unpacked.as_ref().is_none_or(|(id, _)| *id != block.id) {
            self.unpacked = Some((block.id, details(connection, block)?));
        }
        let Some(row) = self.unpacked.as_ref().and_then(|(_, details)| details.as_ref()).map(|details| details.row(at))
        else {
            self.damaged += 1;
            return Ok(Some(0));
        };
        Ok((row.record_id.split('-').nth(2) == Some("0")).then(|| {
            let number = row.filtering_reason.split(' ').next().unwrap_or_default();
            number.parse().unwrap_or(0)
        }))
    }
}

/// The details of a block; none if they cannot be read, or are another's.
fn details(connection: &Connection, block: InBlock) -> rusqlite::Result<Option<Details>> {
    // Those of another block that stands in its place have another head.
    let read = seal::with_frame(connection, block.id, Part::Details, |packed| Details::read(&block.head, packed))?;
    Ok(read.map_err(|damaged| tell_damage(block.id, &damaged)).ok())
}

/// The newest facts so far behind a place, and where they stand.
#[derive(Default)]
struct Newest {
    count: usize,
    after: Option<Place>,
    /// The oldest of them on top.
    found: BinaryHeap<Reverse<Found>>,
    /// Whether there may be older ones.
    more: bool,
}

/// A fact, by its place, and where its details are.
struct Found {
    place: Place,
    block: InBlock,
    at: usize,
    fact: Fact,
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Found {}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Newest {
    fn of(count: usize, after: Option<Place>) -> Newest {
        Newest { count, after, ..Newest::default() }
    }

    /// What ended at this time or later is none of them.
    fn to_us(&self) -> i64 {
        self.after.map_or(i64::MAX, |after| after.ended_us.saturating_add(1))
    }

    /// Whether what ended at `last_us` or earlier has no place among them.
    fn has_all_after(&self, last_us: i64) -> bool {
        self.found.len() >= self.count
            && self.found.peek().is_none_or(|Reverse(oldest)| oldest.place.ended_us > last_us)
    }

    fn offer(&mut self, block: InBlock, at: usize, fact: &Fact) {
        let place = Place { ended_us: fact.ended_us, source: block.head.source, seq: fact.seq };
        if self.after.is_some_and(|after| place >= after) {
            return;
        }
        let full = self.found.len() >= self.count;
        self.more |= full;
        if full && self.found.peek().is_none_or(|Reverse(oldest)| place < oldest.place) {
            return;
        }
        if full {
            self.found.pop();
        }
        self.found.push(Reverse(Found { place, block, at, fact: *fact }));
    }

    /// Where the oldest of them stands, if there may be older ones.
    fn last(&self) -> Option<Place> {
        self.found.peek().filter(|_| self.more).map(|Reverse(oldest)| oldest.place)
    }
}

/// The newest records as they are shown, newest first, and of how many the details cannot be read. Each block is unpacked once.
fn rows(connection: &Connection, newest: Newest) -> rusqlite::Result<(Vec<RecordRow>, u64)> {
    let mut unpacked: HashMap<i64, Option<Details>> = HashMap::new();
    let (mut rows, mut unreadable) = (Vec::new(), 0);
    for Reverse(found) in newest.found.into_sorted_vec() {
        let details = match unpacked.entry(found.block.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(details(connection, found.block)?),
        };
        let (fact, word) = (&found.fact, |number| word_text(connection, number));
        unreadable += u64::from(details.is_none());
        rows.push(RecordRow {
            ended_us: fact.ended_us,
            seq: fact.seq,
            node: word(fact.node)?,
            user: word(fact.user)?,
            host: word(fact.host)?,
            status: fact.status,
            size: fact.upload.saturating_add(fact.download),
            filter_name: word(fact.filter)?,
            rule: word(fact.rule)?,
            categories: word(fact.categories)?,
            ..details.as_ref().map_or_else(unread_row, |details| details.row(found.at))
        });
    }
    Ok((rows, unreadable))
}

/// What stands for details that cannot be read.
fn unread_row() -> RecordRow {
    RecordRow { url: "(damaged in the store)".to_string(), ..Details::default().row(0) }
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

    fn ranks(&self, lists: &SumsBy, top: usize) -> Vec<Rank> {
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

fn ranks(connection: &Connection, sums: &SumsBy, top: usize) -> rusqlite::Result<Vec<Rank>> {
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

/// See `RecordStore::accounts`.
pub fn accounts(connection: &Connection) -> rusqlite::Result<Vec<StoredAccount>> {
    let transaction = connection.unchecked_transaction()?;
    // A name's newest epoch is the one that counts; numbers of former ones may be missing, too, and are in the list.
    let sql = "SELECT name, highest, (SELECT coalesce(sum(last - first + 1), 0) FROM gap WHERE gap.node = node.id)
               FROM node WHERE id IN (SELECT max(id) FROM node GROUP BY name) ORDER BY name";
    let mut statement = transaction.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        let (highest, missing) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
        Ok(StoredAccount { node: seal::text_at(row, 0).into_owned(), highest, missing, gaps: Vec::new() })
    })?;
    let mut accounts: Vec<StoredAccount> = rows.collect::<rusqlite::Result<_>>()?;
    drop(statement);
    for gap in gaps(&transaction)?.into_iter().flatten() {
        if let Some(account) = accounts.iter_mut().find(|account| account.node == gap.node) {
            account.gaps.push(gap);
        }
    }
    transaction.finish()?;
    Ok(accounts)
}

/// The gaps there are; one that is not as it was written is told to the journal.
fn gaps(connection: &Connection) -> rusqlite::Result<Vec<Option<Gap>>> {
    let sql =
        "SELECT gap.node, first, last, after_us, before_us, gap.sum, name FROM gap JOIN node ON node.id = gap.node
               ORDER BY name, gap.node, first LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([limits::REPORT_GAPS_MAX as i64], |row| {
        let read = numbers::gap_of(row);
        Ok(read.map_err(|damaged| seal::tell("a gap", &damaged)).ok().map(|[_, first, last, after_us, before_us]| {
            let node = seal::text_at(row, numbers::GAP_WIDTH).into_owned();
            Gap { node, first: first as u64, last: last as u64, after_us, before_us }
        }))
    })?;
    rows.collect()
}

/// The number of a word; none if no record has it.
fn word_number(connection: &Connection, text: &str) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT id FROM word WHERE text = ?1";
    let number = connection.prepare_cached(sql)?.query_row([text], |row| row.get(0)).optional()?;
    match number.map(|number| word(connection, number)).transpose()? {
        // The row is as it was written, and has another text.
        Some(Ok(found)) if found != text => Err(seal::corrupt("the index of its words does not lead to them")),
        _ => Ok(number),
    }
}

/// A word by its number; where it is not as it was written, the answer says so in its place.
fn word_text(connection: &Connection, number: i64) -> rusqlite::Result<String> {
    Ok(word(connection, number)?.unwrap_or_else(|damaged| {
        seal::tell(&format!("word {number}"), &damaged);
        damaged_word(number)
    }))
}

fn word(connection: &Connection, number: i64) -> rusqlite::Result<Result<String, Damaged>> {
    if number == 0 {
        return Ok(Ok(String::new()));
    }
    let sql = "SELECT id, text, sum FROM word WHERE id = ?1";
    let word = connection.prepare_cached(sql)?.query_row([number], |row| Ok(numbers::word_of(row))).optional()?;
    Ok(word.unwrap_or(Err(Damaged("it is not there any more"))).map(|(_, text)| text))
}
