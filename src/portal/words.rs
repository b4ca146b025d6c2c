//! Figures, times and links as people read them.

use crate::base::clock::Wall;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::fmt::Write;

/// A moment, for a `<time>` element. Without one (a node never heard of), `iso` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// RFC 3339 in UTC, for machines.
    pub iso: String,
    /// `2026-11-20 19:26:25 UTC`, or `never`.
    pub text: String,
    /// The same without the zone, and without the date if that is today's: for a column that names both.
    pub short: String,
    /// `3 s ago`.
    pub ago: String,
}

/// `us` microseconds since the epoch, seen from `now`. Zero or less is "never".
pub fn moment(us: i64, now: Wall) -> Moment {
    match Timestamp::from_microsecond(us) {
        Ok(time) if us > 0 => Moment {
            iso: time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            text: time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            short: time.strftime(if is_today(time, now) { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string(),
            ago: ago(now.0 - us),
        },
        _ => Moment { text: "never".to_string(), ..Moment::default() },
    }
}

fn is_today(time: Timestamp, now: Wall) -> bool {
    let day = |time: Timestamp| time.as_second().div_euclid(86_400);
    Timestamp::from_microsecond(now.0).is_ok_and(|now| day(now) == day(time))
}

fn ago(us: i64) -> String {
    if us < 0 {
        return format!("{} ahead", span(us.unsigned_abs() / 1_000_000));
    }
    match us as u64 / 1_000_000 {
        0 => "now".to_string(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// `3 s`, `5 min`, `7 h`, `12 d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Words as a sentence: the desk's begin small, because the command line puts its own name before them.
pub fn sentence(words: &str) -> String {
    let mut letters = words.trim_end().chars();
    let Some(first) = letters.next() else { return String::new() };
    let mut out: String = first.to_uppercase().chain(letters).collect();
    if !out.ends_with(['.', '!', '?', ':']) {
        out.push('.');
    }
    out
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `3.4 %` of a whole; a whole of nothing is `0 %`.
pub fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "0 %".to_string(),
        _ => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

/// `+0.4 ms`-like words for a clock's skew: sign always, seconds once it is past one.
pub fn skew(ms: i64) -> String {
    if ms.unsigned_abs() < 1000 { format!("{ms:+} ms") } else { format!("{:+.1} s", ms as f64 / 1000.0) }
}

/// Reads a time as a person or a `datetime-local` field writes it, in UTC if it names no zone.
pub fn read_time(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_microsecond());
    }
    let civil = text.trim_end_matches(" UTC").parse::<DateTime>().ok();
    civil.and_then(|civil| civil.to_zoned(TimeZone::UTC).ok()).map(|zoned| zoned.timestamp().as_microsecond()).ok_or_else(
        || format!("read \u{201c}{text}\u{201d}; accepted is a time such as 2026-11-20T19:30, in UTC, or RFC 3339 with a zone"),
    )
}

/// The value of a `datetime-local` field.
pub fn field_time(us: i64) -> String {
    Timestamp::from_microsecond(us).map(|time| time.strftime("%Y-%m-%dT%H:%M:%S").to_string()).unwrap_or_default()
}

/// `value` as it may stand in a URL's query.
pub fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        for (number, words) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(count(number), words);
        }
        for (ms, words) in [(0, "+0 ms"), (-12, "-12 ms"), (2500, "+2.5 s")] {
            assert_eq!(skew(ms), words);
        }
        assert_eq!(percent(0, 0), "0 %");
        assert_eq!(percent(1, 8), "12.5 %");
        assert_eq!(encoded("a b&c=\"\u{e9}"), "a%20b%26c%3D%22%C3%A9");
    }

    #[test]
    fn times_are_utc_and_wild_ones_do_no_harm() {
        let now = Wall(1_763_666_785_000_000);
        let then = moment(now.0 - 5_000_000, now);
        assert_eq!(then.iso, "2025-11-20T19:26:20Z");
        assert_eq!(then.ago, "5 s ago");
        assert_eq!(moment(0, now).text, "never");
        for us in [i64::MIN, -1, i64::MAX] {
            assert_eq!(moment(us, Wall(0)).text, "never", "{us}");
        }
        assert_eq!(moment(now.0, Wall(now.0 - 130_000_000)).ago, "2 min ahead");
    }

    #[test]
    fn a_time_is_read_with_and_without_a_zone() {
        for text in ["2025-11-20T19:26", "2025-11-20T19:26:00", "2025-11-20 19:26:00 UTC", "2025-11-20T20:26:00+01:00"]
        {
            assert_eq!(read_time(text), Ok(1_763_666_760_000_000), "{text}");
        }
        assert!(read_time("yesterday").unwrap_err().contains("yesterday"));
        assert_eq!(read_time(&field_time(1_763_666_760_000_000)), Ok(1_763_666_760_000_000));
    }
}
