//! What request and reply heads share: ranges, versions, fields, and what the fields that concern this hop say.

use std::mem::MaybeUninit;

use crate::limits::BODY_BYTES_MAX;
use crate::limits::CONNECTION_OPTIONS_MAX;
use crate::limits::HEAD_BYTES_MAX;
use crate::limits::HEAD_FIELDS_MAX;
use crate::limits::HEAD_LEADING_BYTES_MAX;

/// How far parsing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head is not whole yet: read more, then ask again with the same head and the longer buffer.
    Partial,
    /// The head is whole and took this many bytes; the body starts there.
    Complete(usize),
}

/// The version a message was written in. We always write 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

impl Version {
    /// As Via writes it.
    pub fn number(self) -> &'static str {
        match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
        }
    }
}

/// A range in the caller's buffer. Heads are bounded far below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Where `part`, which must be a slice of `buf`, stands in it.
    pub fn of(buf: &[u8], part: &[u8]) -> Span {
        let start = part.as_ptr().addr().wrapping_sub(buf.as_ptr().addr());
        debug_assert!(start + part.len() <= buf.len(), "a span of another buffer");
        Span { start: start as u32, end: (start + part.len()) as u32 }
    }

    /// The bytes; none if the caller hands in another, shorter buffer.
    pub fn of_buf(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start as usize..self.end as usize).unwrap_or(&[])
    }

    /// The text, for spans that were checked to be ASCII.
    pub fn text(self, buf: &[u8]) -> &str {
        std::str::from_utf8(self.of_buf(buf)).unwrap_or("")
    }
}

/// A field: its name and value in the buffer, and who it is if this hop cares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub name: Span,
    pub value: Span,
    pub known: Known,
}

/// Fields that this hop must understand; everything else is passed on as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Other,
    Connection,
    /// Fields of this hop only, whether Connection names them or not.
    Hop,
    Te,
    TransferEncoding,
    ContentLength,
    Host,
    Via,
    Expect,
    Upgrade,
    MaxForwards,
    Date,
    XForwardedFor,
    Forwarded,
    /// End-to-end by definition: a Connection option cannot take it away (RFC 9110 section 7.6.1).
    Pinned,
}

impl Known {
    fn of(name: &[u8]) -> Known {
        let Some(first) = name.first() else { return Known::Other };
        // Most names differ in their first letter from all that matter here.
        let is =
            |text: &str| text.as_bytes().first() == Some(&(first | 0x20)) && name.eq_ignore_ascii_case(text.as_bytes());
        match name.len() {
            2 if is("te") => Known::Te,
            3 if is("via") => Known::Via,
            4 if is("host") => Known::Host,
            4 if is("date") => Known::Date,
            6 if is("expect") => Known::Expect,
            7 if is("upgrade") => Known::Upgrade,
            9 if is("forwarded") => Known::Forwarded,
            10 if is("connection") => Known::Connection,
            10 if is("keep-alive") => Known::Hop,
            12 if is("max-forwards") => Known::MaxForwards,
            13 if is("cache-control") || is("authorization") => Known::Pinned,
            14 if is("content-length") => Known::ContentLength,
            15 if is("x-forwarded-for") => Known::XForwardedFor,
            17 if is("transfer-encoding") => Known::TransferEncoding,
            // Gateways that hand fields to programs as CGI variables cannot tell these from the real ones.
            14 if is("http2-settings") || is("content_length") => Known::Hop,
            17 if is("transfer_encoding") => Known::Hop,
            // Proxy-Connection, Proxy-Authorization, Proxy-Authenticate, Proxy-Authentication-Info; Proxy-Status is
            // end-to-end (RFC 9209 section 2).
            n if n > 6 && first | 0x20 == b'p' && name[..6].eq_ignore_ascii_case(b"proxy-") && !is("proxy-status") => {
                Known::Hop
            }
            _ => Known::Other,
        }
    }
}

/// What Content-Length said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum LengthSaid {
    #[default]
    Nothing,
    Bytes(u64),
    Malformed,
    /// A number, but one that other readers may take for a negative one.
    TooLarge,
    Repeated,
}

/// What Transfer-Encoding said, all its fields taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum CodingSaid {
    #[default]
    Nothing,
    Chunked,
    Unknown,
    Malformed,
}

/// What Expect said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum ExpectSaid {
    #[default]
    Nothing,
    Continue,
    Unknown,
}

/// What Max-Forwards said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum HopsSaid {
    #[default]
    Nothing,
    Left(u64),
    /// No number, or more than one field.
    Malformed,
}

/// Everything the fields say to this hop, gathered in the one pass that copies their ranges.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    pub host: Option<Span>,
    pub host_repeated: bool,
    pub length: LengthSaid,
    pub coding: CodingSaid,
    pub expect: ExpectSaid,
    pub close: bool,
    pub keep_alive: bool,
    /// Connection names Upgrade, and an Upgrade field names a protocol we may let through.
    pub upgrade: Option<Span>,
    /// There is more than one Upgrade field, so that two readers may see two lists.
    pub upgrade_repeated: bool,
    connection_upgrade: bool,
    connection_options: u32,
    /// Connection names fields that are not always of this hop.
    pub nominates: bool,
    /// TE accepts trailers.
    pub trailers: bool,
    pub via: bool,
    pub max_forwards: HopsSaid,
    pub date: bool,
}

/// The fields of one head, kept and filled again for the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub list: Vec<Field>,
    pub said: Said,
    /// How much of the buffer was seen when the head was last found to be partial.
    pub seen: usize,
}

/// The array httparse writes into; left uninitialised, since clearing 8 KiB would cost more than most heads.
pub(super) type RawFields<'b> = [MaybeUninit<httparse::Header<'b>>; HEAD_FIELDS_MAX];

/// An empty [`RawFields`].
pub(super) const fn raw_fields<'b>() -> RawFields<'b> {
    [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX]
}

/// The part of the buffer a head may occupy.
pub(super) fn window(buf: &[u8]) -> &[u8] {
    &buf[..buf.len().min(HEAD_BYTES_MAX)]
}

impl Fields {
    /// Forgets the head that was read, keeps the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.said = Said::default();
        self.seen = 0;
    }

    /// No line was completed since the last look: parsing again would find nothing new. Without this a client that sends
    /// a head byte by byte would have it parsed as often.
    pub fn nothing_new(&self, window: &[u8]) -> bool {
        self.seen != 0 && window.len() >= self.seen && !window[self.seen..].contains(&b'\n')
    }

    /// Takes over what httparse found.
    pub fn fill(&mut self, buf: &[u8], found: &[httparse::Header<'_>]) {
        self.clear();
        for header in found {
            let name = header.name.as_bytes();
            let field = Field { name: Span::of(buf, name), value: Span::of(buf, header.value), known: Known::of(name) };
            self.said.hear(buf, &field);
            self.list.push(field);
        }
        let named = self.said.connection_upgrade;
        self.said.upgrade = self.said.upgrade.filter(|span| named && protocols(span.of_buf(buf)).next().is_some());
    }

    /// Connection names more options than anybody needs.
    pub fn too_many_options(&self) -> bool {
        self.said.connection_options > CONNECTION_OPTIONS_MAX
    }

    /// The first value of a field, by name without regard to case.
    pub fn value<'b>(&self, buf: &'b [u8], name: &str) -> Option<&'b [u8]> {
        let same = |field: &&Field| field.name.of_buf(buf).eq_ignore_ascii_case(name.as_bytes());
        self.list.iter().find(same).map(|field| field.value.of_buf(buf))
    }

    /// All fields, in order.
    pub fn pairs<'a, 'b: 'a>(&'a self, buf: &'b [u8]) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'a {
        self.list.iter().map(move |field| (field.name.text(buf), field.value.of_buf(buf)))
    }

    /// Connection names this field.
    pub fn nominated(&self, buf: &[u8], name: &[u8]) -> bool {
        let connections = self.list.iter().filter(|field| field.known == Known::Connection);
        connections.flat_map(|field| elements(field.value.of_buf(buf))).any(|token| token.eq_ignore_ascii_case(name))
    }

    /// Via already names this pseudonym: the message has been here before.
    pub fn via_names(&self, buf: &[u8], pseudonym: &str) -> bool {
        let names = |element: &[u8]| {
            let mut words = element.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
            words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.as_bytes()))
        };
        self.said.via
            && self
                .list
                .iter()
                .filter(|field| field.known == Known::Via)
                .any(|field| elements(field.value.of_buf(buf)).any(names))
    }
}

impl Said {
    fn hear(&mut self, buf: &[u8], field: &Field) {
        let value = field.value.of_buf(buf);
        match field.known {
            Known::Other | Known::Hop | Known::Pinned | Known::XForwardedFor | Known::Forwarded => {}
            Known::Connection => self.hear_connection(value),
            Known::Te => self.trailers |= elements(value).any(|token| token.eq_ignore_ascii_case(b"trailers")),
            Known::TransferEncoding => self.coding = hear_coding(self.coding, value),
            Known::ContentLength => {
                self.length = match self.length {
                    LengthSaid::Nothing => hear_length(value),
                    _ => LengthSaid::Repeated,
                }
            }
            Known::Host => {
                self.host_repeated |= self.host.is_some();
                self.host = Some(field.value);
            }
            Known::Via => self.via = true,
            Known::Expect => {
                let known = value.eq_ignore_ascii_case(b"100-continue") && self.expect != ExpectSaid::Unknown;
                self.expect = if known { ExpectSaid::Continue } else { ExpectSaid::Unknown };
            }
            Known::Upgrade => {
                self.upgrade_repeated |= self.upgrade.is_some();
                self.upgrade = Some(field.value);
            }
            Known::MaxForwards => {
                self.max_forwards = match (self.max_forwards, digits(value)) {
                    (HopsSaid::Nothing, true) => HopsSaid::Left(decimal(value).unwrap_or(u64::MAX)),
                    _ => HopsSaid::Malformed,
                }
            }
            Known::Date => self.date = true,
        }
    }

    fn hear_connection(&mut self, value: &[u8]) {
        for token in elements(value) {
            self.connection_options = self.connection_options.saturating_add(1);
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else if !token.eq_ignore_ascii_case(b"te") {
                self.nominates = true;
            }
        }
    }
}

fn hear_length(value: &[u8]) -> LengthSaid {
    match decimal(value) {
        Some(bytes) if bytes <= BODY_BYTES_MAX => LengthSaid::Bytes(bytes),
        None if !digits(value) => LengthSaid::Malformed,
        _ => LengthSaid::TooLarge,
    }
}

/// The coding after one more Transfer-Encoding field.
fn hear_coding(before: CodingSaid, value: &[u8]) -> CodingSaid {
    value.split(|byte| *byte == b',').map(trim).fold(before, |said, coding| {
        let name = trim(coding.split(|byte| *byte == b';').next().unwrap_or(&[]));
        match (said, coding.eq_ignore_ascii_case(b"chunked")) {
            (CodingSaid::Malformed, _) => CodingSaid::Malformed,
            // Nothing may follow chunked, chunked itself included.
            (CodingSaid::Chunked, _) => CodingSaid::Malformed,
            _ if coding.is_empty() => CodingSaid::Malformed,
            // Chunked has no parameters.
            (_, false) if name.eq_ignore_ascii_case(b"chunked") => CodingSaid::Malformed,
            (_, false) => CodingSaid::Unknown,
            (CodingSaid::Unknown, true) => CodingSaid::Unknown,
            (CodingSaid::Nothing, true) => CodingSaid::Chunked,
        }
    })
}

/// The non-empty elements of a comma-separated list.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// The protocols an Upgrade field names, but for `h2c`: HTTP/2 inside a tunnel that policy opened for something else would
/// carry requests nobody decided about. RFC 9113 section 3.1 has withdrawn it; clients that offer it do well without.
pub(super) fn protocols(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    elements(value).filter(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
}

/// Without optional whitespace at both ends.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Digits and nothing else, at least one.
fn digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// The number, if it is digits and nothing else, and fits in 64 bits.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, digit| {
        digit.is_ascii_digit().then_some(())?;
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// Some line ends in a lone LF. httparse takes those; a machine behind us might not.
pub(super) fn has_bare_line_feed(head: &[u8]) -> bool {
    let [first, rest @ ..] = head else { return false };
    // No early exit: branch-free, the compiler turns the walk into vector instructions.
    let pairs = head.iter().zip(rest);
    (*first == b'\n') | pairs.fold(false, |bare, (before, byte)| bare | ((*before != b'\r') & (*byte == b'\n')))
}

/// How many bytes of empty lines stand before the message, if that many are acceptable (RFC 9112 section 2.2).
pub(super) fn leading_empty(window: &[u8]) -> Option<usize> {
    let count = window.iter().take(HEAD_LEADING_BYTES_MAX + 1).take_while(|b| matches!(b, b'\r' | b'\n')).count();
    (count <= HEAD_LEADING_BYTES_MAX).then_some(count)
}

/// The shortest front of `window` that is wrong already, with its error; `parse` finds the whole of it wrong. What is named is then
/// the same whether one byte more was there or thousands. Only on the way to an error: it parses some sixteen times.
pub(super) fn shortest_wrong<E>(window: &[u8], parse: impl Fn(&[u8]) -> Option<E>) -> (&[u8], Option<E>) {
    let (mut right, mut wrong) = (0, window.len());
    while wrong - right > 1 {
        let middle = right.midpoint(wrong);
        match parse(&window[..middle]) {
            Some(_) => wrong = middle,
            None => right = middle,
        }
    }
    (&window[..wrong], parse(&window[..wrong]))
}

/// Why httparse refused a field, found by walking the lines: only on the way to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldFault {
    Folded,
    Name,
    Control,
}

/// The fault of the first line that has one. `lines` starts after the request or status line.
pub(super) fn field_fault(lines: &[u8]) -> FieldFault {
    for line in lines.split(|byte| *byte == b'\n') {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return FieldFault::Folded;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or(&[]);
        let name = name.strip_suffix(b"\r").unwrap_or(name);
        let is_end = matches!(line, [] | b"\r");
        let nameless = name.is_empty() || !line.contains(&b':');
        if !is_end && (nameless || !name.iter().all(|byte| is_token_byte(*byte))) {
            return FieldFault::Name;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return FieldFault::Control;
        }
    }
    FieldFault::Name
}

/// May stand in a token (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
