//! Lines of extended.log back to records (`docs/formats/extended-log.md`): what [`super::line`] writes, and what others may
//! have made of it.

use crate::record::Record;
use crate::record::line::COLUMNS;
use crate::record::lines;
use crate::record::text;
use jiff::Timestamp;
use std::fmt;

/// Why a line is not a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine(pub String);

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a line, with or without its LF.
pub fn parse(line: &[u8]) -> Result<Record, BadLine> {
    view(line).map(|record| record.owned())
}

/// The same without a copy of anything.
pub fn view(line: &[u8]) -> Result<Record<&str>, BadLine> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| BadLine("it is not UTF-8".to_string()))?;
    if !(line.starts_with('"') && line.ends_with('"')) {
        return Err(BadLine("it does not begin and end with a quote".to_string()));
    }
    let mut columns = Columns::new(line);
    let record = read_columns(&mut columns)?;
    match columns.rest.next() {
        None => Ok(record),
        Some(_) => Err(BadLine(format!("it has more than {} columns", COLUMNS.len()))),
    }
}

fn read_columns<'a>(columns: &mut Columns<'a>) -> Result<Record<&'a str>, BadLine> {
    let mut record = Record {
        record_id: columns.scalar()?,
        client_id: columns.number()?,
        request_id: columns.number()?,
        ..Record::default()
    };
    columns.skip(1)?;
    record.elapsed_ms = columns.number()?;
    record.status = columns.number()?;
    columns.skip(1)?;
    record.upload = columns.number()?;
    record.download = columns.number()?;
    record.bypassed = columns.truth()?;
    record.client_ip = columns.scalar()?;
    record.username = columns.scalar()?;
    record.method = columns.scalar()?;
    record.url = columns.scalar()?;
    record.referer = columns.scalar()?;
    record.useragent = columns.scalar()?;
    record.mime = columns.scalar()?;
    record.filter_name = columns.scalar()?;
    record.filtering_reason = columns.scalar()?;
    record.interface = columns.scalar()?;
    record.cachecode = columns.scalar()?;
    record.peercode = columns.scalar()?;
    record.peer = columns.scalar()?;
    record.request_host = columns.scalar()?;
    columns.skip(4)?;
    record.time_profiles = columns.text()?;
    record.user_groups = columns.text()?;
    record.request_types = columns.text()?;
    record.applications = columns.text()?;
    record.categories = columns.text()?;
    record.response_profiles = columns.text()?;
    record.upload_types = columns.scalar()?;
    record.download_types = columns.scalar()?;
    record.profiles = columns.text()?;
    record.node = columns.scalar()?;
    record.seq = columns.number()?;
    (record.ended_us, record.offset_min) = columns.timestamp()?;
    record.snapshot = columns.scalar()?;
    record.rule = columns.scalar()?;
    record.ending = columns.text()?;
    record.connect_us = columns.number()?;
    record.first_byte_us = columns.number()?;
    record.sni = columns.scalar()?;
    record.tls = columns.scalar()?;
    Ok(record)
}

/// The `seq` of a line, without reading the rest.
pub fn seq_of(line: &[u8]) -> Option<u64> {
    let column = COLUMNS.iter().position(|name| *name == "seq")?;
    let text = line.split(|byte| *byte == b'\t').nth(column)?;
    std::str::from_utf8(text.strip_prefix(b"\"")?.strip_suffix(b"\"")?).ok()?.parse().ok()
}

/// The values of a line, one after the other.
struct Columns<'a> {
    // By the tab alone, which is searched for faster than the quotes around it: no value holds one.
    rest: std::str::Split<'a, char>,
    index: usize,
    /// Whether the line has as many control bytes as tabs between 47 columns, and two quotes for each: if it then falls into 47
    /// quoted columns, none of them holds another, and none needs to be looked at.
    regular: bool,
}

impl<'a> Columns<'a> {
    /// Those of a line without its LF.
    fn new(line: &'a str) -> Columns<'a> {
        let controls = lines::count_bytes(line.as_bytes(), |byte| (byte < 0x20) | (byte == 0x7f));
        let quotes = lines::count_bytes(line.as_bytes(), |byte| byte == b'"');
        let regular = controls == COLUMNS.len() - 1 && quotes == 2 * COLUMNS.len();
        Columns { rest: line.split('\t'), index: 0, regular }
    }

    fn text(&mut self) -> Result<&'a str, BadLine> {
        let name = COLUMNS.get(self.index).copied().unwrap_or("-");
        self.index += 1;
        let quoted = self.rest.next().ok_or_else(|| BadLine(format!("it ends before the column {name}")))?;
        match quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            None => Err(BadLine(format!("the column {name} is not quoted"))),
            Some(text) if self.regular || text::is_clean(text.as_bytes()) => Ok(text),
            Some(_) => Err(BadLine(format!("the column {name} holds a quote or control byte"))),
        }
    }

    fn scalar(&mut self) -> Result<&'a str, BadLine> {
        self.text().map(|text| if text == "-" { "" } else { text })
    }

    fn skip(&mut self, columns: usize) -> Result<(), BadLine> {
        (0..columns).try_for_each(|_| self.text().map(|_| ()))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, BadLine> {
        let text = self.text()?;
        text.parse().map_err(|_| self.bad(text, "a number"))
    }

    fn truth(&mut self) -> Result<bool, BadLine> {
        match self.text()? {
            "TRUE" => Ok(true),
            "FALSE" => Ok(false),
            text => Err(self.bad(text, "TRUE or FALSE")),
        }
    }

    /// Microseconds since the epoch and the offset in minutes.
    fn timestamp(&mut self) -> Result<(i64, i16), BadLine> {
        let text = self.text()?;
        timestamp(text).ok_or_else(|| self.bad(text, "a time such as 2026-11-20T19:24:02.000001+00:00"))
    }

    fn bad(&self, text: &str, accepts: &str) -> BadLine {
        let name = COLUMNS[self.index - 1];
        BadLine(format!("the column {name} is {:?}, not {accepts}", text.chars().take(40).collect::<String>()))
    }
}

/// Microseconds since the epoch and the offset in minutes of `2026-11-20T19:24:02.000001+00:00`.
pub(super) fn timestamp(text: &str) -> Option<(i64, i16)> {
    timestamp_as_written(text.as_bytes()).or_else(|| timestamp_of_any_kind(text))
}

/// The same for what [`LineWriter`] writes, and for nothing that the library would read differently.
fn timestamp_as_written(text: &[u8]) -> Option<(i64, i16)> {
    let text: &[u8; 32] = text.try_into().ok()?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (29, b':')];
    let number = |at: usize, digits: usize| {
        let digit =
            |sum: Option<i64>, byte: &u8| Some(sum? * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?));
        text[at..at + digits].iter().fold(Some(0), digit)
    };
    let [year, month, day] = [number(0, 4)?, number(5, 2)?, number(8, 2)?];
    let [hour, minute, second, micros] = [number(11, 2)?, number(14, 2)?, number(17, 2)?, number(20, 6)?];
    let offset = number(27, 2)? * 60 + number(30, 2)?;
    let whole = marks.iter().all(|(at, mark)| text[*at] == *mark) && matches!(text[26], b'+' | b'-');
    // The 29th and later of a month are left to the library, which knows the calendar; so are the years at its ends.
    let usual = (1970..9000).contains(&year) && (1..=12).contains(&month) && (1..=28).contains(&day);
    if !whole || !usual || hour > 23 || minute > 59 || second > 59 || number(27, 2)? > 23 || number(30, 2)? > 59 {
        return None;
    }
    let offset = if text[26] == b'-' { -offset } else { offset };
    let seconds = days_from_1970(year, month, day) * 86_400 + (hour * 60 + minute - offset) * 60 + second;
    Some((seconds * 1_000_000 + micros, offset as i16))
}

/// Days from 1 January 1970 to a date of the Gregorian calendar: years begin in March, so that the leap day is their last.
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let before_month = (153 * ((month + 9) % 12) + 2) / 5;
    365 * year + year / 4 - year / 100 + year / 400 + before_month + day - 1 - 719_468
}

fn timestamp_of_any_kind(text: &str) -> Option<(i64, i16)> {
    let when: Timestamp = text.parse().ok()?;
    Some((when.as_microsecond(), text.get(text.len().saturating_sub(6)..).and_then(offset_minutes)?))
}

/// Minutes of `+HH:MM`.
fn offset_minutes(text: &str) -> Option<i16> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    Some(sign * (hours.parse::<i16>().ok()?.checked_mul(60)? + minutes.parse::<i16>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_are_read_as_the_library_reads_them(
            us in 0i64..253_402_207_200_000_000, minutes in -1439i32..1440, change in any::<Option<(prop::sample::Index, u8)>>(),
        ) {
            let zone = jiff::tz::Offset::from_seconds(minutes * 60).unwrap().to_time_zone();
            let when = Timestamp::from_microsecond(us).unwrap().to_zoned(zone);
            let mut text = when.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string().into_bytes();
            if let Some((at, byte)) = change {
                let at = at.index(text.len());
                text[at] = b"0123456789-+:.T"[usize::from(byte) % 15];
            }
            let text = String::from_utf8(text).unwrap();
            let quickly = timestamp_as_written(text.as_bytes());
            prop_assert!(quickly.is_none() || quickly == timestamp_of_any_kind(&text), "{} {:?}", text, quickly);
            if change.is_none() && us < 220_000_000_000_000_000 && us > 86_400_000_000 {
                prop_assert_eq!(timestamp(&text), Some((us, minutes as i16)));
            }
        }
    }
}
