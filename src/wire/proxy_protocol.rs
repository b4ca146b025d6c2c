//! PROXY protocol, versions 1 and 2, sans-IO: what a balancer says about the client in front of it (the specification is
//! HAProxy's `doc/proxy-protocol.txt`).
//!
//! Whoever can make this parser believe an address can be anybody to policy and log, so it takes exactly what the
//! specification describes: one space, no leading zero, no family that its addresses contradict, TLVs that fill the header to
//! its last byte, and a CRC32c that is right where there is one. Whether the peer may say anything at all is its caller's
//! question (TRUSTED_PROXIES). The parser is our own because the crates that exist leave the checksum and most of this
//! strictness to their callers and allocate; nothing is kept between calls, so any split of the bytes gives the same result.

use crate::limits::PROXY_HEADER_BYTES_MAX;
use crate::limits::PROXY_UNIQUE_ID_BYTES_MAX;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

/// How far reading a header came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// What is here may become a header: read more, then ask again with the longer buffer.
    Partial,
    /// The bytes are no PROXY header, and will not become one.
    Absent,
    /// The header took this many bytes; what follows is the client's.
    Whole {
        /// Bytes of the header.
        bytes: usize,
        /// What it says.
        said: ProxySaid,
    },
}

/// What a header says about the connection behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxySaid {
    /// Nothing: the balancer speaks for itself (a health check), or does not know. The connection's own addresses count.
    Nothing,
    /// The client's address, and the one it connected to.
    Addresses {
        /// The client.
        client: SocketAddr,
        /// Where it connected to, at the balancer.
        balancer: SocketAddr,
    },
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderError {
    /// A version 1 line without its end within the 107 bytes the longest one has.
    LineTooLong,
    /// A version 1 line whose words are not those of the specification.
    MalformedLine,
    /// A version 1 address or port that is not in its one spelling, or of the other family.
    MalformedAddress,
    /// A version other than 2 behind the binary signature.
    UnknownVersion(u8),
    /// A command other than LOCAL and PROXY.
    UnknownCommand(u8),
    /// A family or transport that does not exist, or that is no TCP connection.
    UnknownFamily(u8),
    /// The header is longer than [`PROXY_HEADER_BYTES_MAX`].
    TooLong(usize),
    /// The header is too short for the addresses of its family.
    Truncated,
    /// A TLV that does not fit, or whose value is not what its type has.
    MalformedTlv(u8),
    /// The checksum is wrong, or there are two.
    BadChecksum,
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyHeaderError::LineTooLong => f.write_str("a version 1 line without an end"),
            ProxyHeaderError::MalformedLine => f.write_str("a version 1 line that is none"),
            ProxyHeaderError::MalformedAddress => f.write_str("a version 1 line with a malformed address or port"),
            ProxyHeaderError::UnknownVersion(version) => write!(f, "version {version}, which does not exist"),
            ProxyHeaderError::UnknownCommand(command) => write!(f, "command {command}, which does not exist"),
            ProxyHeaderError::UnknownFamily(family) => write!(f, "family and transport {family:#04x}, which is no TCP"),
            ProxyHeaderError::TooLong(bytes) => write!(f, "{bytes} bytes, more than {PROXY_HEADER_BYTES_MAX}"),
            ProxyHeaderError::Truncated => f.write_str("a header too short for its addresses"),
            ProxyHeaderError::MalformedTlv(kind) => write!(f, "a malformed TLV of type {kind:#04x}"),
            ProxyHeaderError::BadChecksum => f.write_str("a CRC32c that does not fit the header"),
        }
    }
}

/// Reads the header at the front of `buf`. The answer depends on nothing but the bytes.
pub fn parse_proxy_header(buf: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    if begins(buf, SIGNATURE) {
        return binary(buf);
    }
    if begins(buf, LINE_START) {
        return line(buf);
    }
    Ok(ProxyHeader::Absent)
}

/// `buf` is the beginning of `start`, or begins with it.
fn begins(buf: &[u8], start: &[u8]) -> bool {
    let common = buf.len().min(start.len());
    buf[..common] == start[..common]
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 8080\r\n`.
fn line(buf: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let window = &buf[..buf.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if buf.len() < LINE_BYTES_MAX { Ok(ProxyHeader::Partial) } else { Err(ProxyHeaderError::LineTooLong) };
    };
    let words = window[..end].strip_suffix(b"\r").ok_or(ProxyHeaderError::MalformedLine)?;
    let words = std::str::from_utf8(words).map_err(|_| ProxyHeaderError::MalformedLine)?;
    let words = words.strip_prefix("PROXY ").ok_or(ProxyHeaderError::MalformedLine)?;
    let said = match words.split_once(' ').unwrap_or((words, "")) {
        // Whatever follows UNKNOWN is to be ignored.
        ("UNKNOWN", _) => ProxySaid::Nothing,
        ("TCP4", rest) => line_addresses(rest, |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?,
        ("TCP6", rest) => line_addresses(rest, |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?,
        _ => return Err(ProxyHeaderError::MalformedLine),
    };
    Ok(ProxyHeader::Whole { bytes: end + 1, said })
}

fn line_addresses(rest: &str, address: impl Fn(&str) -> Option<IpAddr>) -> Result<ProxySaid, ProxyHeaderError> {
    let mut words = rest.split(' ');
    let mut word = || words.next().ok_or(ProxyHeaderError::MalformedLine);
    let words_said = [word()?, word()?, word()?, word()?];
    if words.next().is_some() {
        return Err(ProxyHeaderError::MalformedLine);
    }
    let [client, balancer, client_port, balancer_port] = words_said;
    let at = |ip, number| Some(SocketAddr::new(address(ip)?, port(number)?));
    match (at(client, client_port), at(balancer, balancer_port)) {
        (Some(client), Some(balancer)) => Ok(ProxySaid::Addresses { client, balancer }),
        _ => Err(ProxyHeaderError::MalformedAddress),
    }
}

/// Decimal, without sign and leading zero.
fn port(text: &str) -> Option<u16> {
    let one_spelling = text == "0" || !text.starts_with('0');
    (one_spelling && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Version 2: signature, version and command, family and transport, length, addresses, TLVs.
fn binary(buf: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let Some(fixed) = buf.get(SIGNATURE.len()..FIXED_BYTES) else {
        return Ok(ProxyHeader::Partial);
    };
    let (version, command, family) = (fixed[0] >> 4, fixed[0] & 0x0f, fixed[1]);
    if version != 2 {
        return Err(ProxyHeaderError::UnknownVersion(version));
    }
    if command > PROXY {
        return Err(ProxyHeaderError::UnknownCommand(command));
    }
    let bytes = FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if bytes > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong(bytes));
    }
    // What cannot be right is refused before its rest is waited for.
    let address_bytes = match (command, family) {
        // The specification has both discarded unread: their addresses mean nothing, so that nobody knows where TLVs start.
        (LOCAL, _) | (PROXY, UNSPECIFIED) => None,
        (_, TCP4) => Some(12),
        (_, TCP6) => Some(36),
        (_, UNIX_STREAM) => Some(216),
        _ => return Err(ProxyHeaderError::UnknownFamily(family)),
    };
    if address_bytes.is_some_and(|count| FIXED_BYTES + count > bytes) {
        return Err(ProxyHeaderError::Truncated);
    }
    let Some(header) = buf.get(..bytes) else {
        return Ok(ProxyHeader::Partial);
    };
    let Some(address_bytes) = address_bytes else {
        return Ok(ProxyHeader::Whole { bytes, said: ProxySaid::Nothing });
    };
    let (addresses, _) = header[FIXED_BYTES..].split_at(address_bytes);
    check_tlvs(header, FIXED_BYTES + address_bytes)?;
    Ok(ProxyHeader::Whole { bytes, said: binary_addresses(family, addresses) })
}

fn binary_addresses(family: u8, addresses: &[u8]) -> ProxySaid {
    let port = |at: usize| u16::from_be_bytes(array(addresses, at));
    let (client, balancer): (IpAddr, IpAddr) = match family {
        TCP4 => (array::<4>(addresses, 0).into(), array::<4>(addresses, 4).into()),
        TCP6 => (array::<16>(addresses, 0).into(), array::<16>(addresses, 16).into()),
        // A client on a socket of the balancer's own machine has no address.
        _ => return ProxySaid::Nothing,
    };
    let ports = addresses.len() - 4;
    ProxySaid::Addresses {
        client: SocketAddr::new(client, port(ports)),
        balancer: SocketAddr::new(balancer, port(ports + 2)),
    }
}

/// The bytes of `from` at `at`; zeros where it is too short, which its callers have excluded.
fn array<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

/// The TLVs fill the header from `at` on, each is what its type says, and the checksum is right.
fn check_tlvs(header: &[u8], at: usize) -> Result<(), ProxyHeaderError> {
    let mut checksum_at = None;
    for tlv in Tlvs::of(header, at) {
        let Tlv { kind, at, value } = tlv?;
        let good = match kind {
            TYPE_CRC32C if checksum_at.is_some() => return Err(ProxyHeaderError::BadChecksum),
            TYPE_CRC32C => {
                checksum_at = Some(at);
                value.len() == 4
            }
            TYPE_AUTHORITY => !value.is_empty() && std::str::from_utf8(value).is_ok(),
            TYPE_UNIQUE_ID => value.len() <= PROXY_UNIQUE_ID_BYTES_MAX,
            // A byte of flags and a number of verification, then TLVs of its own.
            TYPE_SSL => value.len() >= 5 && Tlvs::of(value, 5).all(|inner| inner.is_ok()),
            TYPE_NETWORK_NAMESPACE => value.is_ascii(),
            _ => true,
        };
        if !good {
            return Err(ProxyHeaderError::MalformedTlv(kind));
        }
    }
    let Some(at) = checksum_at else { return Ok(()) };
    // Computed as if its own four bytes were zero.
    let computed = crc32c([&header[..at], &[0; 4], &header[at + 4..]]);
    if computed == u32::from_be_bytes(array(header, at)) { Ok(()) } else { Err(ProxyHeaderError::BadChecksum) }
}

struct Tlv<'a> {
    kind: u8,
    /// Where its value begins in what is read.
    at: usize,
    value: &'a [u8],
}

/// Type, length in two bytes, value; to the last byte.
struct Tlvs<'a> {
    of: &'a [u8],
    at: usize,
}

impl Tlvs<'_> {
    fn of(of: &[u8], at: usize) -> Tlvs<'_> {
        Tlvs { of, at }
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<Tlv<'a>, ProxyHeaderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.of.get(self.at..).filter(|rest| !rest.is_empty())?;
        let at = self.at + 3;
        let whole = rest.get(..3).and_then(|head| {
            let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
            rest.get(3..3 + length)
        });
        // After a fault nothing follows.
        self.at = whole.map_or(self.of.len(), |value| at + value.len());
        Some(whole.map(|value| Tlv { kind: rest[0], at, value }).ok_or(ProxyHeaderError::MalformedTlv(rest[0])))
    }
}

/// CRC-32C (Castagnoli; RFC 3720 appendix B.4) of `parts` in a row. Byte by byte: a header is short and comes once.
pub fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let bytes = parts.into_iter().flatten();
    !bytes.fold(!0u32, |crc, byte| CRC32C_TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8))
}

const CRC32C_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

const LINE_START: &[u8] = b"PROXY ";
/// With CR and LF; the specification counts out the longest one.
const LINE_BYTES_MAX: usize = 107;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_UNIQUE_ID: u8 = 0x05;
const TYPE_SSL: u8 = 0x20;
const TYPE_NETWORK_NAMESPACE: u8 = 0x30;
