//! Lines of extended.log on their way to a store: checked, but not taken apart. Only whoever stores them needs the columns,
//! and that is mostly another machine.

use crate::base::lines;
use crate::record::Record;
use crate::record::line;
use crate::record::line::BadLine;
use crate::record::line::COLUMNS;
use jiff::Timestamp;
use jiff::tz::Offset;

/// Whole lines, each a record, in ascending order of `seq`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    text: Vec<u8>,
    count: usize,
    first: u64,
    last: u64,
}

impl Lines {
    /// The lines that these records would have.
    pub fn of(records: &[Record]) -> Lines {
        let mut lines = Lines::default();
        records.iter().for_each(|record| lines.push_record(record));
        lines
    }

    /// Appends a line, with or without its LF, that [`check`] found to be the record `seq`.
    pub fn push(&mut self, line: &[u8], seq: u64) {
        self.text.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        self.text.push(b'\n');
        self.count(seq);
    }

    /// Appends the line of a record.
    pub fn push_record(&mut self, record: &Record) {
        write_record(&mut self.text, record);
        self.count(record.seq);
    }

    /// An empty one that uses the room of `text`.
    pub fn in_room(mut text: Vec<u8>) -> Lines {
        text.clear();
        Lines { text, ..Lines::default() }
    }

    /// The room of one that is done with.
    pub fn into_room(self) -> Vec<u8> {
        self.text
    }

    /// Appends what follows these.
    pub fn append(&mut self, others: &Lines) {
        if self.count == 0 {
            self.first = others.first;
        }
        self.text.extend_from_slice(&others.text);
        (self.last, self.count) = (others.last, self.count + others.count);
    }

    /// Appends the record `seq` by what `write` appends: its whole line.
    pub fn write(&mut self, seq: u64, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.text);
        self.count(seq);
    }

    fn count(&mut self, seq: u64) {
        if self.count == 0 {
            self.first = seq;
        }
        self.last = seq;
        self.count += 1;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// `seq` of the first; 0 if there are none.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// `seq` of the last; 0 if there are none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// All lines, one after the other.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The records they are.
    pub fn records(&self) -> Result<Vec<Record<&str>>, BadLine> {
        read(&self.text)
    }
}

/// The records that lines are. They come from afar: a line that is none makes all of them useless.
pub fn read(text: &[u8]) -> Result<Vec<Record<&str>>, BadLine> {
    lines::inclusive(text).map(line::view).collect()
}

/// The `seq` of a line that [`line::parse`] takes for a record, without making one: an order of magnitude cheaper, and done
/// once for every request.
pub fn check(line: &[u8]) -> Result<u64, BadLine> {
    match check_quickly(line) {
        Some(seq) => Ok(seq),
        None => line::view(line).map(|record| record.seq), // says what is wrong
    }
}

fn check_quickly(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(line)).ok()?;
    let bytes = text.as_bytes();
    // The tabs that stand between quotes are all the control bytes there are, and these and the outer quotes are all quotes:
    // then every column is quoted and clean. No quote may serve two of them.
    let separators = count_of(bytes, b"\"\t\"");
    let shared = count_of(bytes, b"\t\"\t") > 0 || bytes.starts_with(b"\"\t") || bytes.ends_with(b"\t\"");
    let controls = count_bytes(bytes, |byte| (byte < 0x20) | (byte == 0x7f));
    let quotes = count_bytes(bytes, |byte| byte == b'"');
    let regular = !shared && separators == COLUMNS.len() - 1 && controls == separators && quotes == 2 * COLUMNS.len();
    if !regular || bytes.len() < 2 || bytes.first() != Some(&b'"') || bytes.last() != Some(&b'"') {
        return None;
    }
    let unquoted = |column| str::trim_matches(column, '"');
    let mut front = text.split('\t').map(unquoted);
    front.nth(1)?.parse::<u64>().ok()?; // record_id, client_id
    front.next()?.parse::<u32>().ok()?;
    front.nth(1)?.parse::<u64>().ok()?; // date_time, elapsed
    front.next()?.parse::<u16>().ok()?;
    front.nth(1)?.parse::<u64>().ok()?; // size, upload
    front.next()?.parse::<u64>().ok()?;
    if !matches!(front.next()?, "TRUE" | "FALSE") {
        return None;
    }
    let mut back = text.rsplit('\t').map(unquoted);
    back.nth(1)?; // tls, sni
    back.next()?.parse::<u32>().ok()?;
    back.next()?.parse::<u32>().ok()?;
    let when = back.nth(3)?; // ending, rule, snapshot
    line::timestamp(when)?;
    back.next()?.parse().ok()
}

/// How many bytes `is` holds for. In stretches whose count fits a byte: the compiler then looks at 16 bytes at a time.
pub(super) fn count_bytes(bytes: &[u8], is: impl Fn(u8) -> bool) -> usize {
    let in_stretch = |stretch: &[u8]| stretch.iter().fold(0u8, |sum, byte| sum + u8::from(is(*byte)));
    bytes.chunks(255).map(|stretch| usize::from(in_stretch(stretch))).sum()
}

/// At how many places these three bytes stand.
fn count_of(bytes: &[u8], sought: &[u8; 3]) -> usize {
    let [first, second, third] = *sought;
    let behind = |places: usize| bytes.get(places..).unwrap_or(&[]).chunks(255);
    let stretches = bytes.chunks(255).zip(behind(1)).zip(behind(2));
    let in_stretch = |((a, b), c): ((&[u8], &[u8]), &[u8])| {
        let three = a.iter().zip(b).zip(c);
        three.fold(0u8, |sum, ((a, b), c)| sum + u8::from((*a == first) & (*b == second) & (*c == third)))
    };
    stretches.map(|stretch| usize::from(in_stretch(stretch))).sum()
}

/// Appends a record's line, with its LF. What is derived from other columns is left out.
fn write_record(out: &mut Vec<u8>, record: &Record) {
    let scalar = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    let truth = if record.bypassed { "TRUE" } else { "FALSE" };
    let derived = || "-".to_string();
    let columns: [String; COLUMNS.len()] = [
        scalar(&record.record_id),
        record.client_id.to_string(),
        record.request_id.to_string(),
        derived(),
        record.elapsed_ms.to_string(),
        record.status.to_string(),
        derived(),
        record.upload.to_string(),
        record.download.to_string(),
        truth.to_string(),
        scalar(&record.client_ip),
        scalar(&record.username),
        scalar(&record.method),
        scalar(&record.url),
        scalar(&record.referer),
        scalar(&record.useragent),
        scalar(&record.mime),
        scalar(&record.filter_name),
        scalar(&record.filtering_reason),
        scalar(&record.interface),
        scalar(&record.cachecode),
        scalar(&record.peercode),
        scalar(&record.peer),
        scalar(&record.request_host),
        derived(),
        derived(),
        derived(),
        derived(),
        record.time_profiles.clone(),
        record.user_groups.clone(),
        record.request_types.clone(),
        record.applications.clone(),
        record.categories.clone(),
        record.response_profiles.clone(),
        scalar(&record.upload_types),
        scalar(&record.download_types),
        record.profiles.clone(),
        scalar(&record.node),
        record.seq.to_string(),
        timestamp(record),
        scalar(&record.snapshot),
        scalar(&record.rule),
        record.ending.clone(),
        record.connect_us.to_string(),
        record.first_byte_us.to_string(),
        scalar(&record.sni),
        scalar(&record.tls),
    ];
    out.push(b'"');
    out.extend_from_slice(columns.join("\"\t\"").as_bytes());
    out.extend_from_slice(b"\"\n");
}

fn timestamp(record: &Record) -> String {
    let offset = Offset::from_seconds(i32::from(record.offset_min) * 60).unwrap_or(Offset::UTC);
    let when = Timestamp::from_microsecond(record.ended_us).unwrap_or_default();
    when.to_zoned(offset.to_time_zone()).strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Draft;
    use crate::record::Ended;
    use crate::record::line::Entry;
    use crate::record::line::LineWriter;
    use crate::record::text;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    fn line_of(draft: &Draft, ended: &Ended, seq: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let zone = TimeZone::fixed(Offset::from_seconds(-5400).unwrap());
        LineWriter::new("edge-1", zone).write(&mut out, &Entry::from(draft), ended, "bootbootbo", seq);
        out
    }

    #[test]
    fn an_ordinary_line_is_checked_quickly() {
        let line = line_of(&Draft { url: "http://ü.test/\"".as_bytes(), ..Draft::default() }, &Ended::default(), 41);
        assert_eq!(check_quickly(&line), Some(41));
        assert_eq!(check_quickly(&line[..line.len() - 1]), Some(41), "also without its LF");
    }

    proptest! {
        #[test]
        fn a_record_of_a_line_has_a_line_of_the_same_record(
            url in proptest::collection::vec(any::<u8>(), 0..60),
            list in "[ -~\t\n\"]{0,20}",
            numbers in any::<(u64, u64, u64, u32, u16)>(),
            ended_us in 0i64..253_402_207_200_000_000,
        ) {
            let draft = Draft {
                client_id: numbers.0, request_id: numbers.3, url: &url, rule: &list, categories: &list, ..Draft::default()
            };
            let ended = Ended { upload: numbers.1, download: numbers.2, status: numbers.4, ended_us, ..Ended::default() };
            let line = line_of(&draft, &ended, numbers.1);
            let twice = [&line[..], &line[..]].concat();
            let records = read(&twice).unwrap();
            prop_assert_eq!(check_quickly(&line), Some(numbers.1));
            let lines = Lines::of(&records.iter().map(Record::owned).collect::<Vec<_>>());
            prop_assert_eq!((lines.len(), lines.first(), lines.last()), (2, numbers.1, numbers.1));
            prop_assert_eq!(lines.records().unwrap(), records);
        }

        #[test]
        fn the_check_takes_exactly_what_the_parser_takes(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..4),
        ) {
            let ended = Ended { status: 200, upload: 5, ended_us: 1_700_000_000_000_000, ..Ended::default() };
            let draft = Draft { client_id: 12, request_id: 3, url: b"http://a.test/", ..Draft::default() };
            let mut line = line_of(&draft, &ended, 7);
            for (at, byte, how) in changes {
                let at = at.index(line.len());
                // Mostly bytes that mean something, or digits gone.
                match how {
                    0 => line[at] = byte,
                    1 => line[at] = b"\"\t\n-+09:T"[usize::from(byte) % 9],
                    2 => { line.remove(at); }
                    _ => line.insert(at, b"\"\t0"[usize::from(byte) % 3]),
                }
            }
            prop_assert_eq!(check(&line).ok(), line::parse(&line).ok().map(|record| record.seq));
            if line::parse(&line).is_ok() {
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                let values = text.split(|byte| *byte == b'\t').map(|value| &value[1..value.len() - 1]);
                prop_assert!(values.clone().all(text::is_clean) && values.count() == COLUMNS.len());
            }
            prop_assert!(check_quickly(&line).is_none() || line::parse(&line).is_ok(), "{:?}", String::from_utf8_lossy(&line));
        }

        #[test]
        fn no_bytes_upset_the_check(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&line);
        }
    }
}
