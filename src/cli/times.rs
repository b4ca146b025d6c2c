//! Points and spans of time as people type and read them.

use crate::base::clock::Wall;
use jiff::Timestamp;
use jiff::Zoned;
use jiff::civil::Date;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// RFC 3339, or local time where no zone is given; a date alone is its midnight.
pub fn point(text: &str) -> Result<Wall, String> {
    let local = |time: DateTime| time.to_zoned(TimeZone::system()).ok().map(|zoned: Zoned| zoned.timestamp());
    let time = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| text.parse::<DateTime>().ok().and_then(local))
        .or_else(|| text.parse::<Date>().ok().and_then(|date| local(date.at(0, 0, 0, 0))));
    time.map(|time| Wall(time.as_microsecond())).ok_or_else(|| {
        format!("the time {text:?} is none: write 2026-05-01T12:00:00Z, or local as 2026-05-01 or \"2026-05-01 12:00\"")
    })
}

/// A span such as `90s`, `15m`, `1h`, `7d`, in microseconds.
pub fn span(text: &str) -> Result<i64, String> {
    let wrong = || format!("the span {text:?} is none: write a number with s, m, h or d, such as 15m");
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3_600,
        Some(b'd') => 86_400,
        _ => return Err(wrong()),
    };
    let number = &text[..text.len() - 1];
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let seconds = number.parse::<i64>().ok().filter(|&number| number > 0).and_then(|number| number.checked_mul(unit));
    seconds.and_then(|seconds| seconds.checked_mul(1_000_000)).ok_or_else(wrong)
}

/// `2026-05-01 12:00:00`, local; `never` for 0.
pub fn local(us: i64) -> String {
    match Timestamp::from_microsecond(us) {
        Ok(time) if us != 0 => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        _ => "never".to_string(),
    }
}

/// RFC 3339 in UTC, for the wire.
pub fn rfc3339(time: Wall) -> String {
    Timestamp::from_microsecond(time.0).map(|time| time.to_string()).unwrap_or_default()
}

/// `3 d 4 h`, `12 min`, `8 s`: the two greatest units that say something.
pub fn lasting(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_rfc3339_or_local_and_anything_else_is_refused_with_examples() {
        assert_eq!(point("1970-01-01T00:00:01Z"), Ok(Wall(1_000_000)));
        assert_eq!(point("1970-01-01T01:00:00+01:00"), Ok(Wall(0)));
        let noon = point("2026-05-01 12:00").unwrap();
        assert_eq!(noon.0 - point("2026-05-01").unwrap().0, 12 * 3_600 * 1_000_000);
        assert_eq!(local(noon.0), "2026-05-01 12:00:00");
        for bad in ["", "yesterday", "2026-13-01", "12:00", "2026-05-01T25:00:00Z"] {
            assert!(point(bad).unwrap_err().contains("2026-05-01T12:00:00Z"), "{bad}");
        }
    }

    #[test]
    fn spans_have_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(seconds * 1_000_000), "{text}");
        }
        for bad in ["", "h", "1", "0h", "-1h", "+1h", "1.5h", "1w", "9223372036854775807d", "1 h", "5\u{e9}"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_short_to_read() {
        let cases = [(8, "8 s"), (725, "12 min 5 s"), (3_600, "1 h 0 min"), (4 * 86_400 + 7_200, "4 d 2 h")];
        for (seconds, words) in cases {
            assert_eq!(lasting(seconds), words);
        }
    }
}
