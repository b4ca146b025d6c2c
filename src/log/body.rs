//! The body of a slot: the part of a record that does not change once it is begun, as bytes (`docs/formats/record-spool.md`).

use super::slots::NUMBER_WORDS;
use crate::limits;
use crate::record::Late;
use crate::record::line::Entry;
use crate::record::line::TEXTS;
use crate::record::line::Text;
use crate::record::text;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

/// What stands before the texts.
pub const BODY_FIXED_BYTES: usize = limits::SPOOL_SLOT_FIXED_BYTES - NUMBER_WORDS * 8;
/// Lengths in a body: one for each text and a reserved one.
const LENGTHS: usize = TEXTS + 1;
const _: () = assert!(BODY_FIXED_BYTES == 58 + 2 * LENGTHS && LENGTHS.is_multiple_of(4));
const FLAGS_AT: usize = 56;
/// The flag of a body behind which there is room for the server's name, told late.
const LATE_SNI: u16 = 8;
/// The same for the answer's type.
const LATE_MIME: u16 = 16;

/// Writes the unchanging part of a record to `body` (cleared first), each text cut to its bound.
pub fn write_body(body: &mut Vec<u8>, entry: &Entry) {
    let mut lengths = [0; LENGTHS];
    for ((text, bytes_max), length) in entry.texts.iter().zip(limits::RECORD_TEXT_BYTES_MAX).zip(&mut lengths) {
        let kept = kept_of(text, bytes_max);
        *length = if kept == text.len() { kept } else { kept + DOTS.len() } as u16; // every bound is below 64 KiB
    }
    body.clear();
    body.resize(BODY_FIXED_BYTES, 0);
    let mut rest = &mut body[..BODY_FIXED_BYTES];
    put(&mut rest, entry.client_id.to_le_bytes());
    put(&mut rest, entry.started_us.to_le_bytes());
    put(&mut rest, entry.request_id.to_le_bytes());
    put(&mut rest, entry.client.port().to_le_bytes());
    put(&mut rest, entry.interface.port().to_le_bytes());
    put(&mut rest, address_bytes(entry.client.ip()));
    put(&mut rest, address_bytes(entry.interface.ip()));
    let (client_is_4, interface_is_4) = (entry.client.is_ipv4(), entry.interface.is_ipv4());
    let flags = u16::from(client_is_4) | u16::from(interface_is_4) << 1 | u16::from(entry.named) << 2;
    let flags = flags
        | match entry.late {
            None => 0,
            Some(Late::Sni) => LATE_SNI,
            Some(Late::Mime) => LATE_MIME,
        };
    put(&mut rest, flags.to_le_bytes());
    for [a, b, c, d] in lengths.as_chunks::<4>().0 {
        // Four at once: they are read again as one word.
        let four = u64::from(*a) | u64::from(*b) << 16 | u64::from(*c) << 32 | u64::from(*d) << 48;
        put(&mut rest, four.to_le_bytes());
    }
    for (text, length) in entry.texts.iter().zip(lengths) {
        // Half of the texts of an ordinary record are empty.
        if length > 0 {
            append_cut(body, text, usize::from(length));
        }
    }
}

/// Writes a field and moves on behind it.
fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    let (place, behind) = std::mem::take(rest).split_at_mut(N);
    place.copy_from_slice(&field);
    *rest = behind;
}

/// Reads what [`write_body`] wrote; `None` if the lengths do not agree.
pub fn read_body(body: &[u8]) -> Option<Entry<'_>> {
    let (fixed, mut rest) = body.split_at_checked(BODY_FIXED_BYTES)?;
    let two = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
    let eight = |at: usize| fixed[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
    let flags = two(FLAGS_AT);
    let plain = text::are_plain(rest);
    let mut texts: [&[u8]; TEXTS] = [b""; TEXTS];
    for (index, text) in texts.iter_mut().enumerate() {
        (*text, rest) = rest.split_at_checked(usize::from(two(58 + 2 * index)))?;
    }
    Some(Entry {
        client_id: eight(0),
        started_us: eight(8) as i64,
        request_id: u32::from(two(16)) | u32::from(two(18)) << 16,
        client: SocketAddr::new(read_address(&fixed[24..40], flags & 1 != 0)?, two(20)),
        interface: SocketAddr::new(read_address(&fixed[40..56], flags & 2 != 0)?, two(22)),
        named: flags & 4 != 0,
        late: late_in(flags),
        plain,
        texts,
    })
}

/// The text that there is room for behind the body.
pub fn late_of(body: &[u8]) -> Option<Late> {
    late_in(u16::from(*body.get(FLAGS_AT)?))
}

fn late_in(flags: u16) -> Option<Late> {
    if flags & LATE_SNI != 0 { Some(Late::Sni) } else { (flags & LATE_MIME != 0).then_some(Late::Mime) }
}

/// So much room, in bytes of text, is kept for it.
pub fn late_bytes_max(late: Late) -> usize {
    match late {
        Late::Sni => limits::SERVER_NAME_BYTES_MAX,
        Late::Mime => limits::LATE_MIME_BYTES_MAX,
    }
}

/// The text it stands for.
pub fn late_text(late: Late) -> Text {
    match late {
        Late::Sni => Text::Sni,
        Late::Mime => Text::Mime,
    }
}

fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn read_address(bytes: &[u8], is_4: bool) -> Option<IpAddr> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let [a, b, c, d, ..] = bytes;
    Some(if is_4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bytes).into() })
}

/// What a text that is cut ends in.
const DOTS: &[u8] = b"...";

/// How much of `text` is kept if it may have `bytes_max`: all, or as much as leaves room for the dots and ends between two
/// characters if it is UTF-8.
fn kept_of(text: &[u8], bytes_max: usize) -> usize {
    if text.len() <= bytes_max {
        return text.len();
    }
    let mut end = bytes_max - DOTS.len();
    while end > bytes_max - 2 * DOTS.len() && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    end
}

/// Appends `text` in `length` bytes, as [`kept_of`] has found.
fn append_cut(body: &mut Vec<u8>, text: &[u8], length: usize) {
    if text.len() == length {
        return body.extend_from_slice(text);
    }
    body.extend_from_slice(&text[..length - DOTS.len()]);
    body.extend_from_slice(DOTS);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_for_a_body_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_body(&body);
        }

        #[test]
        fn a_text_is_cut_between_characters(text in "[a-zäöü日本]{1,60}", bytes_max in 8usize..40) {
            let mut out = Vec::new();
            let kept = kept_of(text.as_bytes(), bytes_max);
            append_cut(&mut out, text.as_bytes(), if kept == text.len() { kept } else { kept + 3 });
            prop_assert!(out.len() <= bytes_max && std::str::from_utf8(&out).is_ok());
        }
    }
}
