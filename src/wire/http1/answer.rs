//! What the proxy says in its own name.

use super::forward::field;
use super::forward::raw_field;
use super::forward::status_digits;
use crate::limits::PROXY_STATUS_DETAILS_CHARS_MAX;

/// The interim reply that lets a waiting client send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The answer to a CONNECT whose tunnel is open.
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The head of an answer the proxy makes itself. Values must be free of control bytes; a CR or LF in one is replaced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The date, if there is a clock at hand: [`http_date`].
    pub date: Option<&'a str>,
    /// The type of the body; none if there is no body.
    pub content_type: Option<&'a str>,
    /// The length of the body that follows; for HEAD the length it would have had.
    pub content_length: u64,
    /// The connection closes after this answer.
    pub close: bool,
    /// RFC 9209: what went wrong, for machines, such as `tidegate; error=dns_error`.
    pub proxy_status: Option<&'a str>,
    /// Further fields.
    pub fields: &'a [(&'a str, &'a str)],
}

/// Appends the head of an answer. Nothing here may be cached: it is about this client, this policy and this moment.
pub fn write_answer(answer: &Answer<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&status_digits(answer.status));
    out.push(b' ');
    out.extend_from_slice(reason_phrase(answer.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    let optional =
        [("Date", answer.date), ("Content-Type", answer.content_type), ("Proxy-Status", answer.proxy_status)];
    for (name, value) in optional {
        if let Some(value) = value {
            safe_field(name, value, out);
        }
    }
    for (name, value) in answer.fields {
        safe_field(name, value, out);
    }
    field(out, "Content-Length", answer.content_length);
    raw_field(out, b"Cache-Control", b"no-store");
    if answer.close {
        raw_field(out, b"Connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a value for Proxy-Status (RFC 9209): who speaks, the type of the error if there is one, and words for people,
/// which become ASCII here, as the form asks for. `node` must be a token of RFC 9651 section 3.3.4.
pub fn write_proxy_status(node: &str, error: Option<&str>, details: &str, out: &mut String) {
    out.push_str(node);
    if let Some(error) = error {
        out.push_str("; error=");
        out.push_str(error);
    }
    out.push_str("; details=\"");
    for character in details.chars().take(PROXY_STATUS_DETAILS_CHARS_MAX) {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => out.push('?'),
        }
    }
    out.push('"');
}

/// What a status is called.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Refused",
    }
}

/// The date in the form of RFC 9110 section 5.6.7, such as `Sun, 06 Nov 1994 08:49:37 GMT`, written into `out`.
pub fn http_date(unix_seconds: i64, out: &mut [u8; 29]) -> &str {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    // Four digits of year are all the form has.
    let seconds = unix_seconds.clamp(0, 253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    out.copy_from_slice(b"Thu, 00 Jan 0000 00:00:00 GMT");
    out[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    let month_at = (month - 1) as usize * 3;
    out[8..11].copy_from_slice(&MONTHS[month_at..month_at + 3]);
    let mut two = |at: usize, number: i64| {
        out[at] = b'0' + (number / 10 % 10) as u8;
        out[at + 1] = b'0' + (number % 10) as u8;
    };
    two(5, day);
    two(12, year / 100);
    two(14, year % 100);
    two(17, second / 3600);
    two(20, second / 60 % 60);
    two(23, second % 60);
    std::str::from_utf8(out).unwrap_or("")
}

/// Year, month and day of a day since 1970, counted from 1 March 0000 so that leap days come last in their year.
fn civil(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468;
    let era = since / 146_097;
    let day_of_era = since % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// A value may hold a host a client wrote; it must not become two fields.
fn safe_field(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|byte| if byte.is_ascii_control() && byte != b'\t' { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}
