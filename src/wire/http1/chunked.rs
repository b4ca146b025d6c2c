//! The chunked coding (RFC 9112 section 7.1), read in pieces of any size.
//!
//! The decoder checks every byte and tells how far it came, so that a body can be passed on where it stands, chunks,
//! trailers and all, without being taken apart and wrapped again. [`ChunkedDecoder::pass`] is that: what it leaves in the
//! buffer has no chunk extensions and no white space around sizes any more, which nobody needs and which other readers
//! read in other ways. [`ChunkedDecoder::next`] hands out the payload instead, for those who look inside and for HTTP/1.0
//! clients; [`ChunkedDecoder::scan`] only looks.
//!
//! ```text
//! Size -> [Space -> Extension] -> SizeLf -> Data -> DataCr -> DataLf -> Size ...
//!                                        \ size 0 -> TrailerStart -> TrailerName -> TrailerValue -> TrailerLf -> TrailerStart ...
//!                                                               \-> EndLf -> Ended
//! ```

use std::fmt;
use std::ops::Range;

use super::head::is_token_byte;
use crate::limits::BODY_BYTES_MAX;
use crate::limits::CHUNK_EXTENSION_BYTES_MAX;
use crate::limits::CHUNK_LINE_BYTES_MAX;
use crate::limits::CHUNK_SIZE_DIGITS_MAX;
use crate::limits::TRAILER_BYTES_MAX;

/// Why a chunked body is refused. The connection it came on cannot be used again: nobody knows where the next message
/// starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkedError {
    /// A chunk's size is missing or holds something other than hexadecimal digits.
    Size,
    /// A chunk's size is beyond [`BODY_BYTES_MAX`], or has more digits than such a number needs.
    SizeOverflow,
    /// A chunk's size line, or all extensions of the body together, are longer than anybody needs.
    ExtensionTooLong,
    /// A line does not end in CR LF, or holds a control byte.
    LineEnd,
    /// A chunk's data is not followed by CR LF.
    DataEnd,
    /// A trailer field is malformed.
    Trailer,
    /// A trailer field that would change framing, routing or authentication (RFC 9110 section 6.5.1).
    TrailerForbidden,
    /// The trailer section is too long.
    TrailerTooLong,
}

impl fmt::Display for ChunkedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChunkedError::Size => "chunked body: a chunk's size is not a hexadecimal number",
            ChunkedError::SizeOverflow => "chunked body: a chunk's size is beyond what programs can count",
            ChunkedError::ExtensionTooLong => "chunked body: chunk extensions are too long",
            ChunkedError::LineEnd => "chunked body: a line holds a control byte or does not end in CR LF",
            ChunkedError::DataEnd => "chunked body: a chunk is longer than its size says",
            ChunkedError::Trailer => "chunked body: a trailer field is malformed",
            ChunkedError::TrailerForbidden => "chunked body: a trailer field may not stand in a trailer",
            ChunkedError::TrailerTooLong => "chunked body: the trailer section is too long",
        })
    }
}

impl std::error::Error for ChunkedError {}

/// What [`ChunkedDecoder::scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scan {
    /// Bytes of the buffer that belong to this body, all of them checked; less than the buffer only when it ended.
    pub consumed: usize,
    /// Payload bytes among them.
    pub payload: usize,
    /// The body ended with the last consumed byte.
    pub ended: bool,
}

/// What [`ChunkedDecoder::pass`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Passed {
    /// Bytes of the buffer that belonged to this body; less than the buffer only when it ended.
    pub consumed: usize,
    /// Bytes at the front of the buffer that now are to be sent on.
    pub kept: usize,
    /// Payload bytes among them.
    pub payload: usize,
    /// The body ended with the last consumed byte.
    pub ended: bool,
}

/// What [`ChunkedDecoder::next`] found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Piece {
    /// Bytes of the buffer used up, the payload included.
    pub consumed: usize,
    /// Where the payload stands in the buffer; may be empty.
    pub payload: Range<usize>,
    /// The body ended with the last consumed byte.
    pub ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before or among the digits of a size.
    Size {
        digits: bool,
    },
    /// White space that only an extension may follow.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Ended,
}

/// The longest name in [`FORBIDDEN`] fits.
const NAME_BYTES_KEPT: usize = 24;

/// The decoder's memory of what it has read; no larger than a cache line and a half, never on the heap.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Of the chunk being read: first the size as far as it was read, then what is left of the data.
    left: u64,
    line_bytes: usize,
    extension_bytes: u64,
    payload_bytes: u64,
    trailer_bytes: usize,
    name: [u8; NAME_BYTES_KEPT],
    name_bytes: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder {
            state: State::Size { digits: false },
            left: 0,
            line_bytes: 0,
            extension_bytes: 0,
            payload_bytes: 0,
            trailer_bytes: 0,
            name: [0; NAME_BYTES_KEPT],
            name_bytes: 0,
        }
    }
}

impl ChunkedDecoder {
    /// A decoder at the first byte of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks as much of `buf` as belongs to the body. After an error the decoder must not be used again.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, ChunkedError> {
        let mut scan = Scan { ended: self.ended(), ..Scan::default() };
        while scan.consumed < buf.len() && !scan.ended {
            let piece = self.next(&buf[scan.consumed..])?;
            scan.consumed += piece.consumed;
            scan.payload += piece.payload.len();
            scan.ended = piece.ended;
        }
        Ok(scan)
    }

    /// As [`ChunkedDecoder::scan`], and closes the gaps that chunk extensions leave at the front of `buf`. What stands
    /// behind the body stays where it is.
    pub fn pass(&mut self, buf: &mut [u8]) -> Result<Passed, ChunkedError> {
        let mut passed = Passed { ended: self.ended(), ..Passed::default() };
        while passed.consumed < buf.len() && !self.ended() {
            let from = passed.consumed;
            let run = if self.state == State::Data {
                let run = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len() - from);
                self.take_data(run);
                passed.payload += run;
                run
            } else {
                self.state = self.step(buf[from])?;
                1
            };
            passed.consumed += run;
            if matches!(self.state, State::Space | State::Extension) {
                continue;
            }
            if passed.kept != from {
                buf.copy_within(from..from + run, passed.kept);
            }
            passed.kept += run;
        }
        passed.ended = self.ended();
        Ok(passed)
    }

    /// The next run of payload in `buf`. Call again with what was not consumed until nothing is left or the body ended.
    pub fn next(&mut self, buf: &[u8]) -> Result<Piece, ChunkedError> {
        let mut at = 0;
        while at < buf.len() && self.state != State::Ended {
            if self.state == State::Data {
                let run = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len() - at);
                self.take_data(run);
                return Ok(Piece { consumed: at + run, payload: at..at + run, ended: false });
            }
            self.state = self.step(buf[at])?;
            at += 1;
        }
        Ok(Piece { consumed: at, payload: at..at, ended: self.ended() })
    }

    /// The last chunk and the trailer section were read to their end.
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Payload bytes seen so far.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// The last chunk was read: what follows, if anything, is the trailer section.
    pub fn in_trailer(&self) -> bool {
        use State::{EndLf, TrailerLf, TrailerName, TrailerStart, TrailerValue};
        matches!(self.state, TrailerStart | TrailerName | TrailerValue | TrailerLf | EndLf)
    }

    fn take_data(&mut self, run: usize) {
        self.left -= run as u64;
        self.payload_bytes = self.payload_bytes.saturating_add(run as u64);
        if self.left == 0 {
            self.state = State::DataCr;
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkedError> {
        match self.state {
            State::Size { .. } | State::Space | State::Extension | State::SizeLf => self.step_in_size_line(byte),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(self.start_size_line()),
            State::DataCr | State::DataLf => Err(ChunkedError::DataEnd),
            State::EndLf if byte == b'\n' => Ok(State::Ended),
            State::EndLf => Err(ChunkedError::LineEnd),
            // Data and Ended are not stepped through byte by byte.
            State::Data | State::Ended => Ok(self.state),
            _ => self.step_in_trailer(byte),
        }
    }

    fn start_size_line(&mut self) -> State {
        self.left = 0;
        self.line_bytes = 0;
        State::Size { digits: false }
    }

    fn step_in_size_line(&mut self, byte: u8) -> Result<State, ChunkedError> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(ChunkedError::ExtensionTooLong);
        }
        match (self.state, byte) {
            (State::Size { .. }, digit) if digit.is_ascii_hexdigit() => {
                self.add_digit(digit)?;
                Ok(State::Size { digits: true })
            }
            (State::Size { digits: true }, b'\r') | (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size { digits: true }, b' ' | b'\t') | (State::Space, b' ' | b'\t') => self.extend(State::Space),
            (State::Size { digits: true }, b';') | (State::Space, b';') => self.extend(State::Extension),
            (State::Extension, byte) if byte == b'\t' || !byte.is_ascii_control() => self.extend(State::Extension),
            (State::SizeLf, b'\n') if self.left == 0 => Ok(State::TrailerStart),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::SizeLf | State::Extension, _) => Err(ChunkedError::LineEnd),
            _ => Err(ChunkedError::Size),
        }
    }

    fn add_digit(&mut self, digit: u8) -> Result<(), ChunkedError> {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit | 0x20) - b'a' + 10,
        };
        if self.left > BODY_BYTES_MAX >> 4 || self.line_bytes > CHUNK_SIZE_DIGITS_MAX {
            return Err(ChunkedError::SizeOverflow);
        }
        self.left = self.left << 4 | u64::from(value);
        Ok(())
    }

    fn extend(&mut self, next: State) -> Result<State, ChunkedError> {
        self.extension_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX + self.payload_bytes / 16 {
            return Err(ChunkedError::ExtensionTooLong);
        }
        Ok(next)
    }

    fn step_in_trailer(&mut self, byte: u8) -> Result<State, ChunkedError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(ChunkedError::TrailerTooLong);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, byte) if is_token_byte(byte) => {
                self.name_bytes = 0;
                self.keep_name_byte(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => self.check_name(),
            (State::TrailerName, byte) if is_token_byte(byte) => {
                self.keep_name_byte(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, byte) if byte == b'\t' || !byte.is_ascii_control() => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerValue | State::TrailerLf, _) => Err(ChunkedError::LineEnd),
            _ => Err(ChunkedError::Trailer),
        }
    }

    fn keep_name_byte(&mut self, byte: u8) {
        if let Some(place) = self.name.get_mut(self.name_bytes) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_bytes += 1;
    }

    fn check_name(&self) -> Result<State, ChunkedError> {
        let name = &self.name[..self.name_bytes.min(NAME_BYTES_KEPT)];
        // A longer name than any of those is none of those, whatever it begins with.
        let listed = self.name_bytes <= NAME_BYTES_KEPT && FORBIDDEN.iter().any(|text| text.as_bytes() == name);
        let forbidden = listed || name.starts_with(b"proxy-");
        if forbidden { Err(ChunkedError::TrailerForbidden) } else { Ok(State::TrailerValue) }
    }
}

/// Fields whose arrival after the body would come too late for whoever had to obey them, or would be obeyed by a reader
/// that merges trailers into the head.
const FORBIDDEN: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-forwarded-for",
];

const _: () = {
    let mut index = 0;
    while index < FORBIDDEN.len() {
        assert!(FORBIDDEN[index].len() <= NAME_BYTES_KEPT, "a forbidden name is longer than what is kept of a name");
        index += 1;
    }
};
