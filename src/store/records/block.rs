//! A block of records, packed by columns (`docs/formats/record-block.md`), sans-IO.
//!
//! Neighbours in a column look alike, so that a record takes a fraction of the bytes that it takes as a row; and a report that adds up
//! reads the facts alone.

use crate::limits;
use crate::record::Record;
use crate::record::question::RecordRow;
use crate::store::records::seal::Damaged;
use crate::store::records::seal::Head;
use crate::store::records::seal::Packer;
use crate::store::records::seal::Part;
use crate::store::records::seal::unpack;
use std::ops::Range;

const NUMBERS: usize = 8;
const TEXTS: usize = 23;

/// What reports add up of a record: words by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// The node's number of the record.
    pub seq: u64,
    /// When the exchange ended, microseconds since the epoch.
    pub ended_us: i64,
    /// NODE_NAME when it was written; like all that follow a word's number, 0 for no word.
    pub node: i64,
    /// The request's host.
    pub host: i64,
    /// `user@ip` or `anonymous@ip`.
    pub user: i64,
    /// The client's address.
    pub client: i64,
    /// The rule that decided.
    pub rule: i64,
    /// The section that blocked.
    pub filter: i64,
    /// Categories, the list as one word.
    pub categories: i64,
    /// HTTP status answered.
    pub status: u16,
    /// Payload bytes client to server.
    pub upload: u64,
    /// Payload bytes server to client.
    pub download: u64,
}

/// Records of one epoch, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    facts: Vec<Fact>,
    details: Details,
    /// When the first and the last of its records ended; absent if it has none.
    span: Option<(i64, i64)>,
    /// The lowest and the highest number in it.
    numbers: Option<(u64, u64)>,
}

impl Block {
    fn of(facts: Vec<Fact>, details: Details) -> Block {
        let mut block = Block { details, ..Block::default() };
        facts.into_iter().for_each(|fact| block.push_fact(fact));
        block
    }

    /// Its facts.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// Whether a record that ended then may be added.
    pub fn has_room(&self, ended_us: i64) -> bool {
        let (from, to) = self.span.unwrap_or((ended_us, ended_us));
        let span = to.max(ended_us).saturating_sub(from.min(ended_us));
        self.facts.len() < limits::STORE_BLOCK_RECORDS_MAX
            && self.details.bytes() < limits::STORE_BLOCK_BYTES_FULL
            && span <= limits::STORE_BLOCK_SPAN_US
    }

    /// When the first and the last of its records ended; absent if it has none.
    pub fn span(&self) -> Option<(i64, i64)> {
        self.span
    }

    /// The lowest and the highest number in it.
    pub fn numbers(&self) -> Option<(u64, u64)> {
        self.numbers
    }

    /// Adds a record; there must be room.
    pub fn push(&mut self, fact: Fact, record: &Record<&str>) {
        self.push_fact(fact);
        self.details.push(record);
    }

    fn push_fact(&mut self, fact: Fact) {
        let (from, to) = self.span.unwrap_or((fact.ended_us, fact.ended_us));
        self.span = Some((from.min(fact.ended_us), to.max(fact.ended_us)));
        let (first, last) = self.numbers.unwrap_or((fact.seq, fact.seq));
        self.numbers = Some((first.min(fact.seq), last.max(fact.seq)));
        self.facts.push(fact);
    }

    /// The records of it that ended at `from_us` or later.
    pub fn since(&self, from_us: i64) -> Block {
        let kept: Vec<usize> = (0..self.facts.len()).filter(|at| self.facts[*at].ended_us >= from_us).collect();
        let facts = kept.iter().map(|at| self.facts[*at]).collect();
        Block::of(facts, self.details.only(&kept))
    }

    /// What the row of it says as one of `source`.
    pub fn head(&self, source: i64) -> Head {
        let ((first, last), (min_us, max_us)) = (self.numbers.unwrap_or_default(), self.span.unwrap_or_default());
        let records = self.facts.len() as i64;
        Head { source, first_seq: first as i64, last_seq: last as i64, records, min_us, max_us }
    }

    /// As bytes: facts and details, as ones of `source`.
    pub fn pack(&self, packer: &mut Packer, source: i64) -> Result<(Vec<u8>, Vec<u8>), String> {
        let head = self.head(source);
        let facts = packer.pack(Part::Facts, &head, &facts_raw(&self.facts))?;
        Ok((facts, packer.pack(Part::Details, &head, &self.details.raw())?))
    }

    /// Reads what [`Block::pack`] wrote.
    pub fn read(head: &Head, facts: &[u8], details: &[u8]) -> Result<Block, Damaged> {
        let (mut read, details) = (Vec::new(), Details::read(head, details)?);
        read_facts(head, facts, &mut read)?;
        if read.len() != details.numbers.len() {
            return Err(Damaged("its facts and its details are of different numbers of records"));
        }
        Ok(Block::of(read, details))
    }
}

/// Reads the facts of a block behind those that are in `into`.
pub fn read_facts(head: &Head, packed: &[u8], into: &mut Vec<Fact>) -> Result<(), Damaged> {
    let raw = unpack(Part::Facts, head, packed)?;
    let mut reader = Reader(&raw);
    let count = reader.count()?;
    let start = into.len();
    into.resize(start + count, Fact::default());
    let facts = &mut into[start..];
    reader.differences(facts, |fact, value| fact.seq = value)?;
    reader.differences(facts, |fact, value| fact.ended_us = value as i64)?;
    let words: [fn(&mut Fact) -> &mut i64; 7] = [
        |fact| &mut fact.node,
        |fact| &mut fact.host,
        |fact| &mut fact.user,
        |fact| &mut fact.client,
        |fact| &mut fact.rule,
        |fact| &mut fact.filter,
        |fact| &mut fact.categories,
    ];
    for word in words {
        for fact in &mut *facts {
            *word(fact) = i64::try_from(reader.varint()?).map_err(|_| Damaged("it names a word beyond all words"))?;
        }
    }
    for fact in &mut *facts {
        fact.status = u16::try_from(reader.varint()?).map_err(|_| Damaged("it has a status beyond all statuses"))?;
    }
    for fact in &mut *facts {
        fact.upload = reader.varint()?;
    }
    for fact in &mut *facts {
        fact.download = reader.varint()?;
    }
    reader.end()
}

fn facts_raw(facts: &[Fact]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(facts.len() * 20);
    write_varint(&mut raw, facts.len() as u64);
    write_differences(&mut raw, facts.iter().map(|fact| fact.seq));
    write_differences(&mut raw, facts.iter().map(|fact| fact.ended_us as u64));
    let columns: [fn(&Fact) -> u64; 10] = [
        |fact| fact.node as u64,
        |fact| fact.host as u64,
        |fact| fact.user as u64,
        |fact| fact.client as u64,
        |fact| fact.rule as u64,
        |fact| fact.filter as u64,
        |fact| fact.categories as u64,
        |fact| u64::from(fact.status),
        |fact| fact.upload,
        |fact| fact.download,
    ];
    for column in columns {
        facts.iter().for_each(|fact| write_varint(&mut raw, column(fact)));
    }
    raw
}

/// What a record has beside its fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// started_s, client_id, request_id, offset_min (zigzag), elapsed_ms, bypassed, connect_us, first_byte_us.
    numbers: Vec<[u64; NUMBERS]>,
    texts: [Column; TEXTS],
}

/// Values of a column of text, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Column {
    /// Where each ends.
    ends: Vec<u32>,
    text: String,
}

const DIFFERENCES: Range<usize> = 0..3;
const BOOT: usize = 0;
const METHOD: usize = 1;
const URL: usize = 2;
const FILTERING_REASON: usize = 6;
const SNAPSHOT: usize = 19;
const ENDING: usize = 20;

impl Default for Details {
    fn default() -> Self {
        Details { numbers: Vec::new(), texts: std::array::from_fn(|_| Column::default()) }
    }
}

impl Details {
    fn push(&mut self, record: &Record<&str>) {
        let (started_s, boot) = taken_apart(record);
        self.numbers.push([
            started_s,
            record.client_id,
            u64::from(record.request_id),
            zigzag(i64::from(record.offset_min)),
            record.elapsed_ms,
            u64::from(record.bypassed),
            u64::from(record.connect_us),
            u64::from(record.first_byte_us),
        ]);
        let texts: [&str; TEXTS] = [
            boot,
            record.method,
            record.url,
            record.referer,
            record.useragent,
            record.mime,
            record.filtering_reason,
            record.interface,
            record.cachecode,
            record.peercode,
            record.peer,
            record.time_profiles,
            record.user_groups,
            record.request_types,
            record.applications,
            record.response_profiles,
            record.upload_types,
            record.download_types,
            record.profiles,
            record.snapshot,
            record.ending,
            record.sni,
            record.tls,
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.push(text);
        }
    }

    fn only(&self, kept: &[usize]) -> Details {
        let numbers = kept.iter().map(|at| self.numbers[*at]).collect();
        let texts = self.texts.each_ref().map(|column| {
            let mut only = Column::default();
            kept.iter().for_each(|at| only.push(column.get(*at)));
            only
        });
        Details { numbers, texts }
    }

    /// Bytes of its text.
    fn bytes(&self) -> usize {
        self.texts.iter().map(|column| column.text.len()).sum()
    }

    fn raw(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.bytes() + self.numbers.len() * (TEXTS + 2 * NUMBERS));
        write_varint(&mut raw, self.numbers.len() as u64);
        for column in 0..NUMBERS {
            let values = self.numbers.iter().map(|numbers| numbers[column]);
            match DIFFERENCES.contains(&column) {
                true => write_differences(&mut raw, values),
                false => values.for_each(|value| write_varint(&mut raw, value)),
            }
        }
        for column in &self.texts {
            (0..column.ends.len()).for_each(|at| write_varint(&mut raw, column.get(at).len() as u64));
            raw.extend_from_slice(column.text.as_bytes());
        }
        raw
    }

    /// Reads the details of a block.
    pub fn read(head: &Head, packed: &[u8]) -> Result<Details, Damaged> {
        let raw = unpack(Part::Details, head, packed)?;
        let mut reader = Reader(&raw);
        let count = reader.count()?;
        let mut details = Details { numbers: vec![[0; NUMBERS]; count], ..Details::default() };
        for column in 0..NUMBERS {
            match DIFFERENCES.contains(&column) {
                true => reader.differences(&mut details.numbers, |numbers, value| numbers[column] = value)?,
                false => {
                    for numbers in &mut details.numbers {
                        numbers[column] = reader.varint()?;
                    }
                }
            }
        }
        for column in &mut details.texts {
            *column = reader.column(count)?;
        }
        reader.end()?;
        Ok(details)
    }

    /// What a report's row shows of the details; the rest is empty. All is, if there is no such record.
    pub fn row(&self, at: usize) -> RecordRow {
        let text = |column: usize| self.texts[column].get(at).to_string();
        let numbers = self.numbers.get(at).unwrap_or(&[0; NUMBERS]);
        RecordRow {
            record_id: put_together(numbers, self.texts[BOOT].get(at)),
            ended_us: 0,
            node: String::new(),
            seq: 0,
            user: String::new(),
            method: text(METHOD),
            url: text(URL),
            host: String::new(),
            status: 0,
            size: 0,
            elapsed_ms: numbers[4],
            filter_name: String::new(),
            filtering_reason: text(FILTERING_REASON),
            rule: String::new(),
            snapshot: text(SNAPSHOT),
            ending: text(ENDING),
            categories: String::new(),
        }
    }
}

/// The parts of a record's id that stand nowhere else: the second of its start, and what is behind the last dash. An id of another form
/// stands whole.
fn taken_apart<'r>(record: &Record<&'r str>) -> (u64, &'r str) {
    let usual = || {
        let (started, rest) = record.record_id.split_once('-')?;
        let (numbers, boot) = rest.rsplit_once('-')?;
        let started_s: u64 = started.parse().ok().filter(|started_s| *started_s > 0)?;
        let same = !boot.is_empty()
            && started == started_s.to_string()
            && numbers == format!("{}-{}", record.client_id, record.request_id);
        same.then_some((started_s, boot))
    };
    usual().unwrap_or((0, record.record_id))
}

fn put_together(numbers: &[u64; NUMBERS], boot: &str) -> String {
    match numbers[0] {
        0 => boot.to_string(),
        started_s => format!("{started_s}-{}-{}-{boot}", numbers[1], numbers[2]),
    }
}

impl Column {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32); // bounded: STORE_BLOCK_BYTES_MAX
    }

    /// The value of a record; empty if there is no such record.
    fn get(&self, at: usize) -> &str {
        let Some(end) = self.ends.get(at) else { return "" };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..*end as usize]
    }
}

/// Reads a block that is unpacked.
struct Reader<'r>(&'r [u8]);

impl Reader<'_> {
    fn count(&mut self) -> Result<usize, Damaged> {
        match self.varint()? {
            count if count <= limits::STORE_BLOCK_RECORDS_MAX as u64 => Ok(count as usize),
            _ => Err(Damaged("it says that it has more records than any has")),
        }
    }

    fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            if at == 9 && *byte > 1 {
                return Err(Damaged("a number in it is larger than 64 bits"));
            }
            value |= u64::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(Damaged("a number in it does not end"))
    }

    fn differences<T>(&mut self, into: &mut [T], set: impl Fn(&mut T, u64)) -> Result<(), Damaged> {
        let mut value = 0u64;
        for item in into {
            value = value.wrapping_add(unzigzag(self.varint()?) as u64);
            set(item, value);
        }
        Ok(())
    }

    fn column(&mut self, count: usize) -> Result<Column, Damaged> {
        let (mut ends, mut end) = (Vec::with_capacity(count), 0usize);
        for _ in 0..count {
            end = end.saturating_add(usize::try_from(self.varint()?).unwrap_or(usize::MAX));
            ends.push(u32::try_from(end).map_err(|_| Damaged("a text in it is longer than the block"))?);
        }
        let (text, rest) = self.0.split_at_checked(end).ok_or(Damaged("a text in it is cut"))?;
        let text = std::str::from_utf8(text).map_err(|_| Damaged("a text in it is not UTF-8"))?;
        if !ends.iter().all(|end| text.is_char_boundary(*end as usize)) {
            return Err(Damaged("a text in it ends within a letter"));
        }
        self.0 = rest;
        Ok(Column { ends, text: text.to_string() })
    }

    fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged("more is in it than its records")) }
    }
}

fn write_varint(raw: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        raw.push(value as u8 | 0x80);
        value >>= 7;
    }
    raw.push(value as u8);
}

fn write_differences(raw: &mut Vec<u8>, values: impl Iterator<Item = u64>) {
    let mut before = 0u64;
    for value in values {
        write_varint(raw, zigzag(value.wrapping_sub(before) as i64));
        before = value;
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: i64 = 3;

    fn record(seq: u64) -> Record {
        Record {
            seq,
            record_id: format!("1700000{seq:03}-{}-1-bootbootbo", seq * 7),
            client_id: seq * 7,
            request_id: 1,
            ended_us: 1_700_000_000_000_000 + seq as i64 * 1_013,
            offset_min: -90,
            elapsed_ms: 3 * seq,
            url: format!("http://h{}.test/ä/{seq}", seq % 3),
            method: "GET".into(),
            ending: "--".into(),
            ..Record::default()
        }
    }

    fn fact(seq: u64) -> Fact {
        let ended_us = record(seq).ended_us;
        Fact { seq, ended_us, host: seq as i64 % 3, status: 200, upload: u64::MAX, download: seq, ..Fact::default() }
    }

    fn block(numbers: impl IntoIterator<Item = u64>) -> Block {
        let mut block = Block::default();
        numbers.into_iter().for_each(|seq| block.push(fact(seq), &record(seq).view()));
        block
    }

    fn packed(block: &Block) -> (Vec<u8>, Vec<u8>) {
        block.pack(&mut Packer::new().unwrap(), SOURCE).unwrap()
    }

    #[test]
    fn a_block_reads_as_it_was_written_and_is_small() {
        let whole = block((1..=900).rev());
        let (facts, details) = packed(&whole);
        assert_eq!(Block::read(&whole.head(SOURCE), &facts, &details).unwrap(), whole);
        assert!(facts.len() + details.len() < 900 * 16, "{} and {} bytes", facts.len(), details.len());
        assert_eq!((whole.numbers(), whole.span().unwrap().0), (Some((1, 900)), fact(1).ended_us));
        let later = whole.since(fact(891).ended_us);
        assert_eq!(later, block((891..=900).rev()));
        let row = later.details.row(0);
        assert_eq!((row.record_id, row.url), (record(900).record_id, record(900).url));
        let empty = Block::default();
        assert_eq!(Block::read(&empty.head(SOURCE), &packed(&empty).0, &packed(&empty).1).unwrap(), empty);
    }

    #[test]
    fn an_id_of_another_form_stays_what_it_is() {
        for id in ["", "-", "0-7-1-b", "01-7-1-b", "5-8-1-b", "5-7-1-", "anything at all", "5-7-1-b"] {
            let odd = Record { record_id: id.to_string(), client_id: 7, request_id: 1, ..Record::default() };
            let mut block = Block::default();
            block.push(Fact::default(), &odd.view());
            let (facts, details) = packed(&block);
            let read = Block::read(&block.head(SOURCE), &facts, &details).unwrap();
            assert_eq!(read.details.row(0).record_id, id);
        }
    }

    #[test]
    fn a_full_block_has_no_room() {
        let mut full = block(0..limits::STORE_BLOCK_RECORDS_MAX as u64 - 1);
        let last = full.span().unwrap().1;
        assert!(full.has_room(last) && !full.has_room(last + limits::STORE_BLOCK_SPAN_US));
        full.push(fact(9), &record(9).view());
        assert!(!full.has_room(last));
        let long = Record { url: "u".repeat(limits::STORE_BLOCK_BYTES_FULL), ..record(1) };
        let mut large = Block::default();
        large.push(fact(1), &long.view());
        assert!(!large.has_room(fact(1).ended_us));
        let (facts, details) = packed(&large);
        assert_eq!(Block::read(&large.head(SOURCE), &facts, &details).unwrap(), large);
    }

    proptest! {
        #[test]
        fn any_record_comes_back(numbers in proptest::collection::vec((any::<u64>(), any::<i64>(), any::<u16>(), ".{0,20}"), 0..20)) {
            let mut block = Block::default();
            for (number, time, small, text) in &numbers {
                let record = Record {
                    record_id: text.clone(), client_id: *number, request_id: u32::from(*small), offset_min: *small as i16,
                    url: text.clone(), tls: text.clone(), elapsed_ms: *number, connect_us: u32::from(*small), ..Record::default()
                };
                let fact = Fact {
                    seq: *number, ended_us: *time, node: *time & i64::MAX, categories: i64::MAX, status: *small, upload: *number,
                    ..Fact::default()
                };
                block.push(fact, &record.view());
            }
            let (facts, details) = packed(&block);
            prop_assert_eq!(Block::read(&block.head(SOURCE), &facts, &details).unwrap(), block);
        }

        #[test]
        fn damage_is_refused_and_never_a_panic(at in any::<usize>(), flip in 1u8..=255, cut in any::<bool>()) {
            let whole = block(1..=40);
            let (mut facts, mut details) = packed(&whole);
            for bytes in [&mut facts, &mut details] {
                let at = at % bytes.len();
                if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            }
            let head = whole.head(SOURCE);
            let is_another = |facts: &[u8], details: &[u8]| Block::read(&head, facts, details).is_ok();
            // One byte that makes a sealed frame an unsealed one leaves the seal where a frame would begin.
            prop_assert!(!is_another(&facts, &packed(&whole).1) && !is_another(&packed(&whole).0, &details));
        }

        #[test]
        fn bytes_of_anybody_are_refused_in_words(raw in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (mut packer, head) = (Packer::new().unwrap(), Head::default());
            let _ = read_facts(&head, &packer.pack(Part::Facts, &head, &raw).unwrap(), &mut Vec::new());
            let _ = Details::read(&head, &packer.pack(Part::Details, &head, &raw).unwrap());
            let _ = read_facts(&head, &raw, &mut Vec::new());
        }
    }
}
