//! A second reader of HTTP, written without looking at the first, in many bad habits: what goes on must mean the same to all
//! of them. Smuggling is two readers that disagree; where there is nothing to disagree about, there is no smuggling.

use crate::models::Dice;
use crate::models::mutate;
use crate::tables::*;
use tidegate::wire::http1::*;

/// How somebody reads. The plain reader has no habit.
#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    /// LF without CR ends a line.
    lone_feed: bool,
    /// CR without LF ends a line.
    lone_return: bool,
    /// Of two fields of one name the last counts, not the first.
    last_counts: bool,
    /// Content-Length counts even beside Transfer-Encoding.
    length_counts: bool,
    /// Every Transfer-Encoding that has `chunked` somewhere in it is chunked.
    chunked_anywhere: bool,
    /// White space before a colon is of no importance.
    spaced_names: bool,
    /// A line that begins with white space continues the one before.
    folds: bool,
    /// `_` in a name is `-`.
    underscores: bool,
    /// Sizes are read as far as they are numbers, in 64 bits with a sign.
    careless_numbers: bool,
}

/// Names and values.
type Fields = Vec<(String, String)>;

impl Reader {
    const HABITS: usize = 9;

    fn with(habits: usize) -> Reader {
        let has = |habit: usize| habits & (1 << habit) != 0;
        Reader {
            lone_feed: has(0),
            lone_return: has(1),
            last_counts: has(2),
            length_counts: has(3),
            chunked_anywhere: has(4),
            spaced_names: has(5),
            folds: has(6),
            underscores: has(7),
            careless_numbers: has(8),
        }
    }

    /// The next line without its end, and what is behind it.
    fn line(self, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        for at in 0..bytes.len() {
            match bytes[at] {
                b'\r' if bytes.get(at + 1) == Some(&b'\n') => return Some((&bytes[..at], &bytes[at + 2..])),
                b'\r' if self.lone_return => return Some((&bytes[..at], &bytes[at + 1..])),
                b'\n' if self.lone_feed => return Some((&bytes[..at], &bytes[at + 1..])),
                _ => {}
            }
        }
        None
    }

    /// A section of fields up to the empty line, names in small letters, and what is behind it.
    fn fields(self, mut bytes: &[u8]) -> Option<(Fields, &[u8])> {
        let mut fields = Fields::new();
        loop {
            let (line, rest) = self.line(bytes)?;
            bytes = rest;
            if line.is_empty() {
                return Some((fields, bytes));
            }
            let line = String::from_utf8_lossy(line).into_owned();
            if self.folds && line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push_str(&line);
                }
                continue;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            let name = if self.spaced_names { name.trim_matches([' ', '\t']) } else { name };
            let name = name.to_ascii_lowercase();
            let name = if self.underscores { name.replace('_', "-") } else { name };
            fields.push((name, value.trim_matches([' ', '\t']).to_string()));
        }
    }

    fn value<'a>(self, fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
        let mut found = fields.iter().filter(|(said, _)| said == name).map(|(_, value)| value.as_str());
        if self.last_counts { found.next_back() } else { found.next() }
    }

    fn number(self, text: &str, radix: u32) -> Option<i128> {
        if !self.careless_numbers {
            return u64::from_str_radix(text, radix).ok().map(i128::from);
        }
        let text = text.trim_start();
        let text = text.strip_prefix('+').unwrap_or(text);
        let text = if radix == 16 { text.strip_prefix("0x").unwrap_or(text) } else { text };
        let end = text.find(|digit: char| !digit.is_digit(radix)).unwrap_or(text.len());
        let number = text[..end].bytes().fold(0i64, |number, digit| {
            let digit = char::from(digit).to_digit(radix).unwrap_or(0);
            number.wrapping_mul(i64::from(radix)).wrapping_add(i64::from(digit))
        });
        Some(i128::from(number))
    }

    /// Where a message ends and what it says; nothing if this reader waits for more, or gives up.
    fn message(self, bytes: &[u8], bodyless: bool) -> Option<Message> {
        let (line, rest) = self.line(bytes)?;
        let (fields, body) = self.fields(rest)?;
        let coding = self.value(&fields, "transfer-encoding").map(str::to_ascii_lowercase);
        let is_chunked = coding
            .is_some_and(|coding| if self.chunked_anywhere { coding.contains("chunked") } else { coding == "chunked" });
        let length = self.value(&fields, "content-length");
        let (payload, rest) = match (is_chunked, length) {
            _ if bodyless => (Vec::new(), body),
            (true, length) if length.is_none() || !self.length_counts => self.chunks(body)?,
            (_, Some(length)) => {
                let length = usize::try_from(self.number(length, 10)?).ok()?;
                (body.get(..length)?.to_vec(), &body[length..])
            }
            (_, None) => (Vec::new(), body),
        };
        Some(Message {
            line: String::from_utf8_lossy(line).into_owned(),
            host: self.value(&fields, "host").map(str::to_string),
            payload,
            bytes: bytes.len() - rest.len(),
        })
    }

    fn chunks(self, mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
        let mut payload = Vec::new();
        loop {
            let (line, rest) = self.line(bytes)?;
            let line = String::from_utf8_lossy(line).into_owned();
            let size = line.split(';').next().unwrap_or("").trim_end_matches([' ', '\t']);
            let size = usize::try_from(self.number(size, 16)?).ok()?;
            if size == 0 {
                let (_, rest) = self.fields(rest)?;
                return Some((payload, rest));
            }
            payload.extend_from_slice(rest.get(..size)?);
            let (between, rest) = self.line(&rest[size..])?;
            between.is_empty().then_some(())?;
            bytes = rest;
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    line: String,
    host: Option<String>,
    payload: Vec<u8>,
    bytes: usize,
}

/// Every reader finds in `went`, with another message behind it, the one message that is there.
fn all_agree(went: &[u8], bodyless: bool, came: &[u8]) -> Message {
    let with_more = [went, b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"].concat();
    let plain = Reader::default().message(&with_more, bodyless);
    let told = || format!("{}\nbecame {}", came.escape_ascii(), went.escape_ascii());
    let plain = plain.unwrap_or_else(|| panic!("the plain reader does not find its end: {}", told()));
    assert_eq!(plain.bytes, went.len(), "{}", told());
    for habits in 1..1 << Reader::HABITS {
        let reader = Reader::with(habits);
        assert_eq!(reader.message(&with_more, bodyless).as_ref(), Some(&plain), "{reader:?}: {}", told());
    }
    plain
}

/// Bodies, framed in all the ways the heads of the tables may ask for.
const BODIES: &[&str] = &[
    "",
    "abcdefg",
    "0\r\n\r\n",
    "7\r\nabcdefg\r\n0\r\n\r\n",
    "3;x=y\r\nabc\r\n4 ;z\r\ndefg\r\n0;\r\nX-Sum: 7\r\n\r\n",
    "0005\r\nhello\r\n1\r\n0\r\n0\r\nX:\ty \r\nZ:\r\n\r\n",
];

/// What goes on of a body that is whole: the bytes, how many it had, and its payload.
fn passed(framing: BodyFraming, body: &[u8]) -> Option<(Vec<u8>, usize, Vec<u8>)> {
    match framing {
        BodyFraming::None => Some(Default::default()),
        BodyFraming::Length(length) => {
            let length = usize::try_from(length).ok().filter(|length| *length <= body.len())?;
            Some((body[..length].to_vec(), length, body[..length].to_vec()))
        }
        BodyFraming::Chunked => {
            let (goes_on, used, ended) = crate::chunked::pass_chunked(body, &[3]).ok()?;
            let (payload, ..) = crate::chunked::read_chunked(body, &[5]).ok()?;
            ended.then_some((goes_on, used, payload))
        }
        BodyFraming::Close => None,
    }
}

/// Puts a body behind a head, and mutates the head, both, or nothing.
fn with_body(head: &mut Vec<u8>, dice: &mut Dice) {
    let body = BODIES[dice.roll(BODIES.len())].as_bytes();
    match dice.roll(3) {
        0 => head.extend_from_slice(body),
        1 => {
            mutate(head, dice);
            head.extend_from_slice(body);
        }
        _ => {
            head.extend_from_slice(body);
            mutate(head, dice);
        }
    }
}

#[test]
fn readers_of_every_habit_agree_about_a_request_that_went_on() {
    let mut dice = Dice(0x7265_6164_6572_7331);
    let heads: Vec<&str> = ACCEPTED.iter().map(|row| row.1).chain(REFUSED.iter().map(|row| row.1)).collect();
    let (mut head, mut agreed) = (RequestHead::new(), [0; 3]);
    for _ in 0..40_000 {
        let mut came = heads[dice.roll(heads.len())].as_bytes().to_vec();
        with_body(&mut came, &mut dice);
        head.clear();
        let Ok(Parsed::Complete(length)) = parse_request(&came, &mut head) else { continue };
        if head.host().is_empty() || head.is_connect() {
            continue;
        }
        let Some((body, body_bytes, payload)) = passed(head.framing(), &came[length..]) else { continue };
        let mut went = Vec::new();
        forward_request(&head, &came, &ForwardRequest { via: "t", ..ForwardRequest::default() }, &mut went);
        went.extend_from_slice(&body);
        let message = all_agree(&went, false, &came);
        assert_eq!(message.payload, payload, "{}", came.escape_ascii());
        // The plain reader finds the same in what came, of which it knows the empty lines in front to be of no importance.
        let start = came.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let plain =
            Reader::default().message(&came[start..], false).expect("the plain reader understands what was accepted");
        assert_eq!((start + plain.bytes, &plain.payload), (length + body_bytes, &payload), "{}", came.escape_ascii());
        let kind = match head.framing() {
            BodyFraming::None => 0,
            BodyFraming::Length(_) => 1,
            _ => 2,
        };
        agreed[kind] += 1;
    }
    assert!(agreed.iter().all(|count| *count > 50), "too few to tell: {agreed:?} without body, with length, chunked");
}

#[test]
fn readers_of_every_habit_agree_about_a_reply_that_went_on() {
    let mut dice = Dice(0x7265_6164_6572_7332);
    let plain = |row: &(&'static str, &'static str, ReplyError)| (ReplyTo::Other, row.1);
    let heads: Vec<(ReplyTo, &str)> =
        REPLIES.iter().map(|row| (row.1, row.2)).chain(REFUSED_REPLIES.iter().map(plain)).collect();
    let (mut head, mut agreed) = (ReplyHead::new(), [0; 3]);
    for _ in 0..40_000 {
        let (to, bytes) = heads[dice.roll(heads.len())];
        let mut came = bytes.as_bytes().to_vec();
        with_body(&mut came, &mut dice);
        head.clear();
        let Ok(Parsed::Complete(length)) = parse_reply(&came, to, &mut head) else { continue };
        let Some((body, _, payload)) = passed(head.framing(), &came[length..]) else { continue };
        let mut went = Vec::new();
        forward_reply(&head, &came, &ForwardReply { via: "t", ..ForwardReply::default() }, &mut went);
        went.extend_from_slice(&body);
        let message = all_agree(&went, head.framing() == BodyFraming::None, &came);
        assert_eq!(message.payload, payload, "{}", came.escape_ascii());
        let kind = match head.framing() {
            BodyFraming::None => 0,
            BodyFraming::Length(_) => 1,
            _ => 2,
        };
        agreed[kind] += 1;
    }
    assert!(agreed.iter().all(|count| *count > 50), "too few to tell: {agreed:?} without body, with length, chunked");
}
