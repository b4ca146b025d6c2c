//! The escaping inside a value of extended.log: lossless, and no value can forge a column or a line
//! (`docs/formats/extended-log.md`, "A value").

/// Appends `value` to `out`, escaped. The result is UTF-8 without quotes and control characters.
pub fn escape(value: &[u8], out: &mut Vec<u8>) {
    // Nearly every value is plain: one look, then one copy.
    if are_plain(value) {
        out.extend_from_slice(value);
    } else {
        escape_slowly(value, out);
    }
}

/// Whether nothing in `values` needs escaping. One pass that the compiler turns into vector code.
pub fn are_plain(values: &[u8]) -> bool {
    values.iter().fold(true, |plain, byte| plain & is_plain(*byte))
}

/// `value` escaped, as a `String`.
pub fn escaped(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    escape(value, &mut out);
    String::from_utf8(out).unwrap_or_default() // escape wrote only valid UTF-8
}

/// The bytes that were escaped to `text`; `None` if nothing is escaped so.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'\\' => b'\\',
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'x' => nibble(bytes.next()?)? << 4 | nibble(bytes.next()?)?,
            _ => return None,
        });
    }
    Some(out)
}

/// Whether `text` may stand between the quotes of a line: no quote, no control byte.
pub fn is_clean(text: &[u8]) -> bool {
    text.iter().fold(true, |clean, byte| clean & (*byte >= 0x20 && *byte != b'"' && *byte != 0x7f))
}

fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

fn escape_slowly(value: &[u8], out: &mut Vec<u8>) {
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.extend_from_slice(b"\\\\"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                character if misleads(character) => hex(character.encode_utf8(&mut [0; 4]).as_bytes(), out),
                character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        hex(chunk.invalid(), out);
    }
}

/// Quotes, controls, what some readers take for a line break, and marks that turn the direction of what follows.
fn misleads(character: char) -> bool {
    let marks =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character == '"' || character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') || marks
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_mislead_a_reader_is_escaped_and_the_rest_stands() {
        let table: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"plain text, 100%", "plain text, 100%"),
            (b"a\"b", r"a\x22b"),
            (b"a\\b", r"a\\b"),
            (b"a\tb\r\nc", r"a\tb\r\nc"),
            (b"\x00\x1b[31m\x7f", r"\x00\x1b[31m\x7f"),
            ("Grüße 日本".as_bytes(), "Grüße 日本"),
            (b"\xff\xc3", r"\xff\xc3"),
            ("a\u{85}b\u{2028}c\u{202e}d".as_bytes(), r"a\xc2\x85b\xe2\x80\xa8c\xe2\x80\xaed"),
        ];
        for (value, text) in table {
            assert_eq!(escaped(value), *text);
            assert_eq!(unescape(text).as_deref(), Some(*value));
        }
        for bad in ["\\", "\\q", "\\x", "\\x1", "\\xg0"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_and_never_show_a_quote_or_control(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = escaped(&value);
            prop_assert!(is_clean(text.as_bytes()));
            let breaks = text.contains(['\u{85}', '\u{2028}', '\u{2029}']);
            prop_assert!(!breaks);
            prop_assert_eq!(unescape(&text), Some(value));
        }
    }
}
