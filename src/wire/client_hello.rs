//! A TLS ClientHello, sans-IO: what a client of TLS 1.0 to 1.3 says before anything is encrypted (RFC 8446 sections 4.1.2 and
//! 5.1, RFC 5246 and its elders, RFC 6066 section 3 for the server name, RFC 7301 for ALPN).
//!
//! The bytes are anybody's: a tunnel may carry something else, or a hello that was made to be read in two ways. So lengths must
//! agree to the last byte, nothing may stand twice, and a hello that a server would refuse is none here. It may come in one
//! record or in many, and in any pieces: the answer depends on nothing but the bytes, and more of them never change it.

use crate::limits::CLIENT_HELLO_BYTES_MAX;
use crate::limits::CLIENT_HELLO_EXTENSIONS_MAX;
use crate::limits::SERVER_NAME_BYTES_MAX;
use std::fmt;
use std::ops::Range;

/// How far reading a hello came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstFlight {
    /// What is here may become a hello: read more, then ask again with the longer buffer.
    Partial,
    /// The bytes are not TLS, and will not become it.
    NotTls,
    /// The hello is whole.
    Hello(ClientHello),
}

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The handshake message behind its head, its records taken off.
    body: Vec<u8>,
    server_name: Range<usize>,
    alpn: Range<usize>,
    versions: Range<usize>,
}

impl ClientHello {
    /// The name of the server it wants, as the client spells it; nothing if it named none.
    pub fn server_name(&self) -> Option<&str> {
        std::str::from_utf8(&self.body[self.server_name.clone()]).ok().filter(|name| !name.is_empty())
    }

    /// The protocols it offers to speak inside, the one it likes best first; none if it did not say.
    pub fn protocols(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.body[self.alpn.clone()];
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first()?;
            let (name, behind) = behind.split_at_checked(usize::from(*length))?;
            rest = behind;
            Some(name)
        })
    }

    /// The versions of TLS it offers, as they stand on the wire (0x0304 is TLS 1.3): what it lists, or the highest it knows
    /// where it has no list. Values that mean nothing (GREASE, RFC 8701) are among them.
    pub fn versions(&self) -> impl Iterator<Item = u16> {
        self.body[self.versions.clone()].as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair))
    }
}

/// Why a hello is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHelloError {
    /// A record that is empty, or longer than a plaintext record may be.
    RecordLength(usize),
    /// A record that is no handshake stands among those of the hello.
    Interrupted(u8),
    /// A handshake message other than ClientHello comes first.
    NotAHello(u8),
    /// The hello is longer than [`CLIENT_HELLO_BYTES_MAX`].
    TooLong(usize),
    /// Something follows the hello in its last record.
    Surplus,
    /// A version before TLS 1.0.
    OldVersion(u16),
    /// A length does not agree with what it counts.
    BadLength,
    /// There is no cipher suite, or the one compression that must be offered is not.
    NoChoice,
    /// An extension stands twice.
    Repeated(u16),
    /// More than [`CLIENT_HELLO_EXTENSIONS_MAX`] extensions.
    TooManyExtensions,
    /// The server's name is no name, or there are two.
    BadServerName,
}

impl fmt::Display for ClientHelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientHelloError::RecordLength(bytes) => write!(f, "a TLS record of {bytes} bytes"),
            ClientHelloError::Interrupted(kind) => {
                write!(f, "a TLS record of type {kind} in the middle of a ClientHello")
            }
            ClientHelloError::NotAHello(kind) => {
                write!(f, "a handshake message of type {kind} where a ClientHello belongs")
            }
            ClientHelloError::TooLong(bytes) => {
                write!(f, "a ClientHello of {bytes} bytes, more than {CLIENT_HELLO_BYTES_MAX}")
            }
            ClientHelloError::Surplus => f.write_str("bytes behind a ClientHello in its record"),
            ClientHelloError::OldVersion(version) => write!(f, "version {version:#06x}, which is before TLS 1.0"),
            ClientHelloError::BadLength => f.write_str("a length in a ClientHello that does not fit"),
            ClientHelloError::NoChoice => {
                f.write_str("a ClientHello without a cipher suite or without null compression")
            }
            ClientHelloError::Repeated(kind) => write!(f, "extension {kind} twice in a ClientHello"),
            ClientHelloError::TooManyExtensions => write!(f, "more than {CLIENT_HELLO_EXTENSIONS_MAX} extensions"),
            ClientHelloError::BadServerName => f.write_str("a server name that is none"),
        }
    }
}

/// Reads the ClientHello at the front of `buf`, which is everything that came so far.
pub fn parse_client_hello(buf: &[u8]) -> Result<FirstFlight, ClientHelloError> {
    // A handshake record of TLS 1.0 or later begins so; the minor version is to be ignored (RFC 8446 section 5.1).
    match *buf {
        [] | [HANDSHAKE] => return Ok(FirstFlight::Partial),
        [HANDSHAKE, 3, ..] => {}
        _ => return Ok(FirstFlight::NotTls),
    }
    match message(buf)? {
        Some(body) => read(body).map(FirstFlight::Hello),
        None => Ok(FirstFlight::Partial),
    }
}

/// The first handshake message without its head, taken out of as many records as it stands in; nothing if there is more
/// to come. What is wrong is told as soon as it is here.
fn message(mut buf: &[u8]) -> Result<Option<Vec<u8>>, ClientHelloError> {
    let mut message = Vec::new();
    loop {
        let Some((head, behind)) = buf.split_at_checked(RECORD_HEAD_BYTES) else {
            return match buf {
                [kind, ..] if *kind != HANDSHAKE => Err(ClientHelloError::Interrupted(*kind)),
                _ => Ok(None),
            };
        };
        if head[0] != HANDSHAKE {
            return Err(ClientHelloError::Interrupted(head[0]));
        }
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(ClientHelloError::RecordLength(length));
        }
        let here = behind.len().min(length);
        message.extend_from_slice(&behind[..here]);
        let Some(bytes) = message_bytes(&message)? else {
            match here < length {
                true => return Ok(None),
                false => buf = &behind[length..],
            }
            continue;
        };
        // The whole record counts, also what of it is still to come: more bytes must not change the answer.
        if message.len() - here + length > bytes {
            return Err(ClientHelloError::Surplus);
        }
        if message.len() == bytes {
            message.drain(..MESSAGE_HEAD_BYTES);
            return Ok(Some(message));
        }
        if here < length {
            return Ok(None);
        }
        buf = &behind[length..];
    }
}

/// How long the message is with its head; nothing if its head is not here yet.
fn message_bytes(message: &[u8]) -> Result<Option<usize>, ClientHelloError> {
    if let Some(kind) = message.first()
        && *kind != CLIENT_HELLO
    {
        return Err(ClientHelloError::NotAHello(*kind));
    }
    let Some(&[_, high, middle, low]) = message.first_chunk::<MESSAGE_HEAD_BYTES>() else { return Ok(None) };
    let bytes = MESSAGE_HEAD_BYTES + u32::from_be_bytes([0, high, middle, low]) as usize;
    match bytes > CLIENT_HELLO_BYTES_MAX {
        true => Err(ClientHelloError::TooLong(bytes)),
        false => Ok(Some(bytes)),
    }
}

/// The message: version, random, session id, cipher suites, compressions, extensions (RFC 8446 section 4.1.2; before TLS 1.3
/// the extensions may be missing).
fn read(body: Vec<u8>) -> Result<ClientHello, ClientHelloError> {
    let mut at = Cursor::over(&body, 0..body.len());
    let version_at = at.at;
    let version = at.number(2)?;
    if version < TLS_1_0 {
        return Err(ClientHelloError::OldVersion(version as u16));
    }
    at.take(RANDOM_BYTES)?;
    if at.counted(1)?.len() > SESSION_ID_BYTES_MAX {
        return Err(ClientHelloError::BadLength);
    }
    let suites = at.counted(2)?;
    if suites.len() % 2 != 0 {
        return Err(ClientHelloError::BadLength);
    }
    let compressions = at.counted(1)?;
    if suites.is_empty() || !body[compressions].contains(&NO_COMPRESSION) {
        return Err(ClientHelloError::NoChoice);
    }
    let mut found = Extensions { versions: version_at..version_at + 2, ..Extensions::default() };
    if !at.is_at_end() {
        let extensions = at.counted(2)?;
        at.end()?;
        found.read(&body, extensions)?;
    }
    let Extensions { server_name, alpn, versions } = found;
    Ok(ClientHello { body, server_name, alpn, versions })
}

/// What of the extensions anybody asks for.
#[derive(Default)]
struct Extensions {
    server_name: Range<usize>,
    alpn: Range<usize>,
    versions: Range<usize>,
}

impl Extensions {
    fn read(&mut self, body: &[u8], all: Range<usize>) -> Result<(), ClientHelloError> {
        let mut at = Cursor::over(body, all);
        let mut kinds = [0; CLIENT_HELLO_EXTENSIONS_MAX];
        let mut count = 0;
        while !at.is_at_end() {
            let kind = at.number(2)? as u16;
            if kinds[..count].contains(&kind) {
                return Err(ClientHelloError::Repeated(kind));
            }
            *kinds.get_mut(count).ok_or(ClientHelloError::TooManyExtensions)? = kind;
            count += 1;
            let value = Cursor::over(body, at.counted(2)?);
            match kind {
                SERVER_NAME => self.server_name = server_name(value)?,
                ALPN => self.alpn = protocols(value)?,
                SUPPORTED_VERSIONS => self.versions = versions(value)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// RFC 6066 section 3: a list with at most one name of each type, of which only host names exist.
fn server_name(mut value: Cursor<'_>) -> Result<Range<usize>, ClientHelloError> {
    let mut list = Cursor::over(value.bytes, value.counted(2)?);
    value.end()?;
    let mut found = 0..0;
    if list.is_at_end() {
        return Err(ClientHelloError::BadServerName);
    }
    while !list.is_at_end() {
        let kind = list.number(1)?;
        let name = list.counted(2)?;
        if kind != HOST_NAME {
            continue;
        }
        let text = &list.bytes[name.clone()];
        let is_a_name = (1..=SERVER_NAME_BYTES_MAX).contains(&text.len())
            && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
        if !is_a_name || !found.is_empty() {
            return Err(ClientHelloError::BadServerName);
        }
        found = name;
    }
    Ok(found)
}

/// RFC 7301 section 3.1: a list of one or more names, none of them empty.
fn protocols(mut value: Cursor<'_>) -> Result<Range<usize>, ClientHelloError> {
    let all = value.counted(2)?;
    value.end()?;
    let mut list = Cursor::over(value.bytes, all.clone());
    if list.is_at_end() {
        return Err(ClientHelloError::BadLength);
    }
    while !list.is_at_end() {
        if list.counted(1)?.is_empty() {
            return Err(ClientHelloError::BadLength);
        }
    }
    Ok(all)
}

/// RFC 8446 section 4.2.1: a list of one or more versions.
fn versions(mut value: Cursor<'_>) -> Result<Range<usize>, ClientHelloError> {
    let all = value.counted(1)?;
    value.end()?;
    match all.is_empty() || all.len() % 2 != 0 {
        true => Err(ClientHelloError::BadLength),
        false => Ok(all),
    }
}

/// A place in the message that moves on with what is read; it answers where things stand.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    fn over(bytes: &'a [u8], part: Range<usize>) -> Cursor<'a> {
        Cursor { bytes, at: part.start, end: part.end }
    }

    fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    fn take(&mut self, count: usize) -> Result<Range<usize>, ClientHelloError> {
        if count > self.end - self.at {
            return Err(ClientHelloError::BadLength);
        }
        self.at += count;
        Ok(self.at - count..self.at)
    }

    /// A number of so many bytes, the high one first.
    fn number(&mut self, bytes: usize) -> Result<usize, ClientHelloError> {
        let part = self.take(bytes)?;
        Ok(self.bytes[part].iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// What a length of so many bytes counts.
    fn counted(&mut self, length_bytes: usize) -> Result<Range<usize>, ClientHelloError> {
        let count = self.number(length_bytes)?;
        self.take(count)
    }

    fn end(&self) -> Result<(), ClientHelloError> {
        if self.is_at_end() { Ok(()) } else { Err(ClientHelloError::BadLength) }
    }
}

const RECORD_HEAD_BYTES: usize = 5;
/// RFC 8446 section 5.1.
const RECORD_BYTES_MAX: usize = 1 << 14;
const MESSAGE_HEAD_BYTES: usize = 4;
const RANDOM_BYTES: usize = 32;
const SESSION_ID_BYTES_MAX: usize = 32;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const TLS_1_0: usize = 0x0301;
const NO_COMPRESSION: u8 = 0;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const HOST_NAME: usize = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes with their length before them.
    fn counted(length_bytes: usize, bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u64).to_be_bytes()[8 - length_bytes..], bytes].concat()
    }

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &counted(2, value)].concat()
    }

    fn named(name: &[u8]) -> Vec<u8> {
        extension(SERVER_NAME, &counted(2, &[&[0][..], &counted(2, name)].concat()))
    }

    fn offering(names: &[&[u8]]) -> Vec<u8> {
        let names: Vec<Vec<u8>> = names.iter().map(|name| counted(1, name)).collect();
        extension(ALPN, &counted(2, &names.concat()))
    }

    fn body(version: u16, suites: &[u8], compressions: &[u8], extensions: Option<&[Vec<u8>]>) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend_from_slice(&[7; RANDOM_BYTES]);
        body.extend_from_slice(&counted(1, &[9; 32]));
        body.extend_from_slice(&counted(2, suites));
        body.extend_from_slice(&counted(1, compressions));
        if let Some(extensions) = extensions {
            body.extend_from_slice(&counted(2, &extensions.concat()));
        }
        body
    }

    fn message_of(body: &[u8]) -> Vec<u8> {
        [&[CLIENT_HELLO][..], &counted(3, body)].concat()
    }

    fn record(payload: &[u8]) -> Vec<u8> {
        [&[HANDSHAKE, 3, 1][..], &counted(2, payload)].concat()
    }

    /// A hello of a browser's kind with these extensions.
    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        record(&message_of(&body(0x0303, &[0x13, 1, 0x13, 2], &[0], Some(extensions))))
    }

    fn read_whole(bytes: &[u8]) -> ClientHello {
        match parse_client_hello(bytes) {
            Ok(FirstFlight::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        }
    }

    fn browser() -> Vec<u8> {
        hello(&[
            extension(0x0a0a, b""),
            named(b"www.Example.com"),
            offering(&[b"h2", b"http/1.1"]),
            extension(SUPPORTED_VERSIONS, &counted(1, &[0x1a, 0x1a, 3, 4, 3, 3])),
            extension(51, &[5; 1216]),
        ])
    }

    #[test]
    fn a_browsers_hello_says_name_protocols_and_versions() {
        let mut bytes = browser();
        let hello = read_whole(&bytes);
        assert_eq!(hello.server_name(), Some("www.Example.com"));
        assert_eq!(hello.protocols().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
        assert_eq!(hello.versions().collect::<Vec<_>>(), [0x1a1a, 0x0304, 0x0303]);
        // Early data, or a change_cipher_spec, in the same flight: records of their own.
        bytes.extend_from_slice(&[20, 3, 3, 0, 1, 1, 23, 3]);
        assert_eq!(read_whole(&bytes), hello);
    }

    #[test]
    fn an_old_hello_has_no_extensions() {
        let old = record(&message_of(&body(0x0301, &[0, 47], &[1, 0], None)));
        let hello = read_whole(&old);
        assert_eq!((hello.server_name(), hello.protocols().count()), (None, 0));
        assert_eq!(hello.versions().collect::<Vec<_>>(), [0x0301]);
        let empty = record(&message_of(&body(0x0302, &[0, 47], &[0], Some(&[]))));
        assert_eq!(read_whole(&empty).versions().collect::<Vec<_>>(), [0x0302]);
    }

    #[test]
    fn what_is_no_tls_is_known_by_its_first_bytes() {
        let table: [&[u8]; 7] = [
            b"SSH-2.0-x\r\n",
            b"GET / HTTP/1.1\r\n",
            b"\x16\x02\x00",
            b"\x16\x04",
            b"\x15\x03\x01",
            b"\x80\x2e\x01",
            b"\0",
        ];
        for bytes in table {
            assert_eq!(parse_client_hello(bytes), Ok(FirstFlight::NotTls), "{}", bytes.escape_ascii());
        }
        for bytes in [&b""[..], b"\x16", b"\x16\x03", b"\x16\x03\x01\x00"] {
            assert_eq!(parse_client_hello(bytes), Ok(FirstFlight::Partial), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        use ClientHelloError::*;
        let with = |extensions: &[Vec<u8>]| hello(extensions);
        let good = message_of(&body(0x0303, &[0x13, 1], &[0], Some(&[named(b"a.test")])));
        let shorter = |by: usize| record(&message_of(&body(0x0303, &[0x13, 1], &[0], None)[..73 - by]));
        let name_list = |list: &[u8]| with(&[extension(SERVER_NAME, &counted(2, list))]);
        let many: Vec<Vec<u8>> = (0..=CLIENT_HELLO_EXTENSIONS_MAX as u16).map(|n| extension(1000 + n, b"")).collect();
        let table: Vec<(Vec<u8>, ClientHelloError)> = vec![
            (vec![22, 3, 1, 0, 0], RecordLength(0)),
            (vec![22, 3, 1, 0x40, 1], RecordLength(0x4001)),
            (record(&[2, 0, 0, 1, 0]), NotAHello(2)),
            (record(&[1, 0, 0x41, 0]), TooLong(0x4104)),
            ([record(&good[..9]), vec![21]].concat(), Interrupted(21)),
            ([record(&good[..2]), vec![23, 3, 3, 0, 5]].concat(), Interrupted(23)),
            ([record(&good[..9]), record(&[]), record(&good[9..])].concat(), RecordLength(0)),
            (record(&[&good[..], &[0]].concat()), Surplus),
            (record(&[&good[..], &good[..]].concat()), Surplus),
            (record(&message_of(&body(0x0300, &[0, 47], &[0], None))), OldVersion(0x0300)),
            (record(&message_of(&body(0x0002, &[0, 47], &[0], None))), OldVersion(2)),
            (record(&message_of(&[])), BadLength),
            (shorter(1), BadLength),
            (shorter(4), BadLength),
            (shorter(40), BadLength),
            (record(&message_of(&[body(0x0303, &[0, 47], &[0], None), vec![0]].concat())), BadLength),
            (record(&message_of(&[body(0x0303, &[0, 47], &[0], Some(&[])), vec![0]].concat())), BadLength),
            (record(&message_of(&body(0x0303, &[0, 47, 1], &[0], None))), BadLength),
            (record(&message_of(&body(0x0303, &[], &[0], None))), NoChoice),
            (record(&message_of(&body(0x0303, &[0, 47], &[], None))), NoChoice),
            (record(&message_of(&body(0x0303, &[0, 47], &[1], None))), NoChoice),
            (with(&[named(b"a.test"), named(b"b.test")]), Repeated(0)),
            (with(&[extension(5, b""), extension(6, b""), extension(5, b"")]), Repeated(5)),
            (with(&many), TooManyExtensions),
            (with(&[vec![0, 0, 0, 9, 1]]), BadLength),
            (with(&[vec![0, 0, 0]]), BadLength),
            (with(&[named(b"")]), BadServerName),
            (with(&[named(&[b'a'; SERVER_NAME_BYTES_MAX + 1])]), BadServerName),
            (with(&[named(b"a.test\0.evil")]), BadServerName),
            (with(&[named(b"a b")]), BadServerName),
            (with(&[named(b"[::1]")]), BadServerName),
            (with(&[named("b\u{fc}cher.test".as_bytes())]), BadServerName),
            (name_list(b""), BadServerName),
            (name_list(b"\0\0\x01a\0\0\x01b"), BadServerName),
            (name_list(b"\0\0\x02a"), BadLength),
            (name_list(b"\0"), BadLength),
            (with(&[extension(SERVER_NAME, b"\0\x04\0\0\x01a!")]), BadLength),
            (with(&[extension(SERVER_NAME, b"")]), BadLength),
            (with(&[extension(ALPN, b"\0\0")]), BadLength),
            (with(&[offering(&[b""])]), BadLength),
            (with(&[extension(ALPN, b"\0\x03\x01h\x05")]), BadLength),
            (with(&[extension(ALPN, b"\0\x02\x01h2")]), BadLength),
            (with(&[extension(SUPPORTED_VERSIONS, b"\0")]), BadLength),
            (with(&[extension(SUPPORTED_VERSIONS, b"\x03\x03\x04\x03")]), BadLength),
            (with(&[extension(SUPPORTED_VERSIONS, b"\x02\x03\x04\x03")]), BadLength),
        ];
        for (number, (bytes, error)) in table.iter().enumerate() {
            assert_eq!(parse_client_hello(bytes), Err(*error), "case {number}: {}", bytes.escape_ascii());
        }
        // A name of a type that does not exist is nobody's.
        let other = name_list(b"\x07\0\x02??\0\0\x01a");
        assert_eq!(read_whole(&other).server_name(), Some("a"));
    }

    /// The message in records of these sizes, in turn.
    fn in_records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut rest, mut bytes) = (message, Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            bytes.extend_from_slice(&record(piece));
            rest = behind;
        }
        bytes
    }

    /// What the parser says of all beginnings: nothing, until the one answer that stays.
    fn holds_for_every_split(bytes: &[u8]) -> Result<FirstFlight, ClientHelloError> {
        let whole = parse_client_hello(bytes);
        let mut said = false;
        for end in 0..bytes.len() {
            let part = parse_client_hello(&bytes[..end]);
            said = said || part != Ok(FirstFlight::Partial);
            assert!(!said || part == whole, "{end} of {}: {part:?}, then {whole:?}", bytes.len());
        }
        whole
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn a_hello_means_the_same_in_any_records_and_any_pieces(
            name in "[a-z0-9-]{1,20}(\\.[a-z]{1,8}){0,3}",
            sizes in prop::collection::vec(1usize..300, 1..8),
            protocols in prop::collection::vec("[a-z0-9/.]{1,12}", 0..4),
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut extensions = vec![named(name.as_bytes())];
            if !protocols.is_empty() {
                extensions.push(offering(&protocols.iter().map(String::as_bytes).collect::<Vec<_>>()));
            }
            let message = message_of(&body(0x0303, &[0x13, 1], &[0], Some(&extensions)));
            let mut bytes = in_records(&message, &sizes);
            bytes.extend_from_slice(&behind);
            let Ok(FirstFlight::Hello(hello)) = holds_for_every_split(&bytes) else { panic!("not read") };
            prop_assert_eq!(hello.server_name(), Some(&name[..]));
            let read: Vec<String> = hello.protocols().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            prop_assert_eq!(read, protocols);
        }

        #[test]
        fn any_damage_is_read_or_refused_and_more_bytes_never_change_the_answer(
            sizes in prop::collection::vec(1usize..2000, 1..4),
            damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
            length in any::<usize>(),
        ) {
            let mut bytes = in_records(&browser()[RECORD_HEAD_BYTES..], &sizes);
            for (at, byte) in damage {
                let at = at % bytes.len().min(400);
                bytes[at] = byte;
            }
            bytes.truncate(length % (bytes.len() + 1));
            let _ = holds_for_every_split(&bytes);
        }
    }
}
