//! The head of a reply, as strict as the head of a request: a reply two readers could understand in two ways would poison
//! the client's next one.

use std::fmt;

use super::body::BodyFraming;
use super::body::FramingFault;
use super::body::announced;
use super::head::FieldFault;
use super::head::Fields;
use super::head::Parsed;
use super::head::Span;
use super::head::Version;
use super::head::field_fault;
use super::head::has_bare_line_feed;
use super::head::leading_empty;
use super::head::protocols;
use super::head::raw_fields;
use super::head::shortest_wrong;
use super::head::window;
use crate::limits::HEAD_BYTES_MAX;

/// What a reply's framing depends on in the request it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReplyTo {
    /// HEAD: there is never a body.
    Head,
    /// CONNECT: a 2xx turns the connection into a tunnel.
    Connect,
    /// Everything else.
    #[default]
    Other,
}

/// Reads a reply head from the start of `buf` into `head`, as an answer to a request of kind `to`.
///
/// On [`Parsed::Partial`] read more and call again with the same head and the longer buffer; call [`ReplyHead::clear`]
/// before another connection uses the head. An interim reply (1xx) is a head of its own, after which the next is read.
pub fn parse_reply(buf: &[u8], to: ReplyTo, head: &mut ReplyHead) -> Result<Parsed, ReplyError> {
    let window = window(buf);
    if head.fields.nothing_new(window) {
        return partial(window, head);
    }
    if leading_empty(window) != Some(0) {
        return Err(ReplyError::StatusLine);
    }
    let mut fields = raw_fields();
    let mut raw = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let bytes = match config.parse_response_with_uninit_headers(&mut raw, window, &mut fields) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return partial(window, head),
        Err(_) => return Err(name_the_fault(window)),
    };
    if has_bare_line_feed(&window[..bytes]) {
        return Err(ReplyError::BareLineFeed);
    }
    let (Some(status), Some(minor)) = (raw.code, raw.version) else {
        return Err(ReplyError::StatusLine);
    };
    if status < 100 {
        return Err(ReplyError::StatusLine);
    }
    head.status = status;
    head.reason = status_reason(window);
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    head.fields.fill(window, raw.headers);
    head.framing = framing_of(head, to)?;
    Ok(Parsed::Complete(bytes))
}

/// Why a reply is refused: always the origin's doing, answered with 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The head is longer than [`HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// More fields than [`crate::limits::HEAD_FIELDS_MAX`].
    TooManyFields,
    /// The status line is not `version status reason`.
    StatusLine,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// A line ends in LF without CR.
    BareLineFeed,
    /// A field's value continues on the next line.
    Folded,
    /// A field's name is not a token, or white space stands before its colon.
    FieldName,
    /// NUL, a lone CR or another control byte in a field.
    ControlByte,
    /// Content-Length is not a number.
    LengthMalformed,
    /// Content-Length is beyond [`crate::limits::BODY_BYTES_MAX`].
    LengthTooLarge,
    /// More than one Content-Length.
    LengthRepeated,
    /// Content-Length together with Transfer-Encoding.
    LengthWithCoding,
    /// A transfer coding other than chunked, which nobody asked for.
    CodingUnknown,
    /// Transfer-Encoding does not end in a single chunked.
    CodingMalformed,
    /// Transfer-Encoding in an HTTP/1.0 reply.
    CodingInOldVersion,
    /// 101 without Upgrade and Connection: upgrade, with several Upgrade fields, or to a protocol nobody asked for.
    SwitchWithoutUpgrade,
    /// Connection names more than [`crate::limits::CONNECTION_OPTIONS_MAX`] options.
    TooManyOptions,
}

impl ReplyError {
    /// The status the client gets instead: always 502.
    pub fn status(self) -> u16 {
        502
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplyError::HeadTooLarge => "the origin's reply has too large a head",
            ReplyError::TooManyFields => "the origin's reply has too many fields",
            ReplyError::StatusLine => "the origin's reply does not start with an HTTP status line",
            ReplyError::Version => "the origin's reply is not HTTP/1.1 or HTTP/1.0",
            ReplyError::BareLineFeed => "a line of the origin's reply ends in LF without CR",
            ReplyError::Folded => "a field of the origin's reply continues on the next line",
            ReplyError::FieldName => "a field of the origin's reply has a malformed name",
            ReplyError::ControlByte => "a field of the origin's reply holds a control byte",
            ReplyError::LengthMalformed => "the origin's Content-Length is not a number",
            ReplyError::LengthTooLarge => "the origin's Content-Length is beyond what programs can count",
            ReplyError::LengthRepeated => "the origin's reply has more than one Content-Length",
            ReplyError::LengthWithCoding => "the origin's reply has Content-Length and Transfer-Encoding",
            ReplyError::CodingUnknown => "the origin's reply uses a transfer coding that nobody asked for",
            ReplyError::CodingMalformed => "the origin's Transfer-Encoding does not end in a single chunked",
            ReplyError::CodingInOldVersion => "the origin's HTTP/1.0 reply has Transfer-Encoding",
            ReplyError::SwitchWithoutUpgrade => {
                "the origin switches to a protocol that nobody asked for, or that it does not name"
            }
            ReplyError::TooManyOptions => "the Connection field of the origin's reply names too many options",
        })
    }
}

impl std::error::Error for ReplyError {}

/// A reply's head as ranges into the buffer it was parsed from. Keep one per upstream connection.
#[derive(Clone, Debug, Default)]
pub struct ReplyHead {
    status: u16,
    pub(super) reason: Span,
    pub(super) version: Version,
    pub(super) fields: Fields,
    framing: BodyFraming,
}

impl ReplyHead {
    /// A head that holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what was read, keeps the memory: before another connection's bytes come.
    pub fn clear(&mut self) {
        self.fields.clear();
    }

    /// The status, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// An interim reply: the final one follows on the same connection. 101 is final for HTTP.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// The version the origin spoke.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The first value of a field, its name compared without regard to case.
    pub fn field<'b>(&self, buf: &'b [u8], name: &str) -> Option<&'b [u8]> {
        self.fields.value(buf, name)
    }

    /// All fields in order.
    pub fn fields<'a, 'b: 'a>(&'a self, buf: &'b [u8]) -> impl Iterator<Item = (&'b str, &'b [u8])> + 'a {
        self.fields.pairs(buf)
    }

    /// Where the body ends.
    pub fn framing(&self) -> BodyFraming {
        self.framing
    }

    /// The origin's connection may serve another request once this reply was read to its end.
    pub fn keep_alive(&self) -> bool {
        let said = &self.fields.said;
        let wanted = match self.version {
            Version::Http11 => !said.close,
            Version::Http10 => said.keep_alive && !said.close,
        };
        wanted && self.framing != BodyFraming::Close && self.status != 101
    }

    /// The protocols the origin switches to or asks for.
    pub fn upgrades<'b>(&self, buf: &'b [u8]) -> impl Iterator<Item = &'b str> {
        let value = self.fields.said.upgrade.map_or(&[][..], |span| span.of_buf(buf));
        protocols(value).map(|token| std::str::from_utf8(token).unwrap_or(""))
    }
}

/// RFC 9112 section 6.3, in its order.
fn framing_of(head: &ReplyHead, to: ReplyTo) -> Result<BodyFraming, ReplyError> {
    let said = &head.fields.said;
    if head.fields.too_many_options() {
        return Err(ReplyError::TooManyOptions);
    }
    if head.status == 101 && (said.upgrade.is_none() || said.upgrade_repeated) {
        return Err(ReplyError::SwitchWithoutUpgrade);
    }
    let tunnel = to == ReplyTo::Connect && (200..300).contains(&head.status);
    if tunnel {
        // RFC 9110 section 9.3.6: both fields are ignored in a 2xx to CONNECT.
        return Ok(BodyFraming::None);
    }
    let announced = announced(said, head.version).map_err(framing_fault)?;
    if to == ReplyTo::Head || (100..200).contains(&head.status) || matches!(head.status, 204 | 304) {
        return Ok(BodyFraming::None);
    }
    Ok(announced.unwrap_or(BodyFraming::Close))
}

/// What stands after `HTTP/1.1 200 `; httparse withholds reasons that are not ASCII.
fn status_reason(window: &[u8]) -> Span {
    let end = window.iter().position(|byte| *byte == b'\r').unwrap_or(0);
    let start = "HTTP/1.1 200 ".len().min(end);
    Span { start: start as u32, end: end as u32 }
}

fn partial(window: &[u8], head: &mut ReplyHead) -> Result<Parsed, ReplyError> {
    head.fields.seen = window.len();
    if window.len() >= HEAD_BYTES_MAX {
        return Err(ReplyError::HeadTooLarge);
    }
    Ok(Parsed::Partial)
}

fn name_the_fault(window: &[u8]) -> ReplyError {
    let parse = |front: &[u8]| {
        let (mut fields, mut raw) = (raw_fields(), httparse::Response::new(&mut []));
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut raw, front, &mut fields).err()
    };
    let (window, Some(error)) = shortest_wrong(window, parse) else { return ReplyError::StatusLine };
    let line_end = window.iter().position(|byte| *byte == b'\n').map_or(window.len(), |at| at + 1);
    match error {
        httparse::Error::TooManyHeaders => ReplyError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => match field_fault(&window[line_end..]) {
            FieldFault::Folded => ReplyError::Folded,
            FieldFault::Name => ReplyError::FieldName,
            FieldFault::Control => ReplyError::ControlByte,
        },
        httparse::Error::Version if window.starts_with(b"HTTP/") => ReplyError::Version,
        _ => ReplyError::StatusLine,
    }
}

fn framing_fault(fault: FramingFault) -> ReplyError {
    match fault {
        FramingFault::LengthMalformed => ReplyError::LengthMalformed,
        FramingFault::LengthTooLarge => ReplyError::LengthTooLarge,
        FramingFault::LengthRepeated => ReplyError::LengthRepeated,
        FramingFault::LengthWithCoding => ReplyError::LengthWithCoding,
        FramingFault::CodingUnknown => ReplyError::CodingUnknown,
        FramingFault::CodingMalformed => ReplyError::CodingMalformed,
        FramingFault::CodingInOldVersion => ReplyError::CodingInOldVersion,
    }
}
