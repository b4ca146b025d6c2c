//! What must hold for every message: however it is cut, passed on twice, or mutated.
use super::*;
use crate::chunked::read_chunked;
use proptest::prelude::*;

/// Reads a request handed over in growing pieces, as a connection does.
fn request_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<(Parsed, String), RequestError> {
    let mut head = RequestHead::new();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut last = Parsed::Partial;
    for end in ends {
        last = parse_request(&bytes[..end], &mut head)?;
        if last != Parsed::Partial {
            break;
        }
    }
    let meaning = if last == Parsed::Partial { String::new() } else { meaning(&head, bytes) };
    Ok((last, meaning))
}

fn any_request() -> impl Strategy<Value = String> {
    let field =
        ("[A-Za-z][A-Za-z0-9-]{0,12}", "[ -~]{0,20}").prop_map(|(name, value)| format!("X-{name}: {value}\r\n"));
    let framing = prop_oneof![
        Just(String::new()),
        (0u64..1_000_000).prop_map(|n| format!("Content-Length: {n}\r\n")),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
    ];
    let hop = prop_oneof![
        Just(""),
        Just("Connection: close\r\n"),
        Just("Connection: keep-alive, X-a\r\nProxy-Connection: keep-alive\r\n"),
        Just("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        Just("TE: trailers\r\n"),
        Just("Via: 1.1 other\r\n"),
    ];
    let host = prop_oneof![Just("a.test"), Just("B.Test:8080"), Just("[2001:db8::1]"), Just("192.0.2.7:81")];
    let target = prop_oneof!["(/[!-\"$->@-~]{0,30})?", "(/[a-z/]{0,9})?\\?[a-z=&?]{0,9}"];
    let fields = prop::collection::vec(field, 0..6);
    let method = prop_oneof![Just("GET"), Just("POST"), Just("HEAD"), Just("OPTIONS"), Just("PURGE")];
    (method, host, target, fields, framing, hop).prop_map(|(method, host, target, fields, framing, hop)| {
        format!("{method} http://{host}{target} HTTP/1.1\r\nHost: {host}\r\n{}{framing}{hop}\r\n", fields.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_head_means_the_same_however_it_is_cut(
        text in prop_oneof![
            any_request(),
            prop::sample::select(REFUSED).prop_map(|case| case.1.to_owned()),
            prop::sample::select(ACCEPTED).prop_map(|case| case.1.to_owned()),
        ],
        cuts in prop::collection::vec(0usize..2000, 0..12),
    ) {
        let bytes = text.as_bytes();
        prop_assert_eq!(request_in_pieces(bytes, &cuts), request_in_pieces(bytes, &[]));
    }

    #[test]
    fn what_goes_on_means_what_came(text in any_request(), parent in any::<bool>()) {
        let came = whole_request(text.as_bytes());
        let to = if parent { ForwardTo::Parent } else { ForwardTo::Origin };
        let how = ForwardRequest { via: "tide-1", to, keep_upgrade: true, ..ForwardRequest::default() };
        let mut out = Vec::new();
        forward_request(&came, text.as_bytes(), &how, &mut out);
        let went = whole_request(&out);
        prop_assert!(went.went_in_a_circle(&out, "tide-1"));
        prop_assert_eq!(went.method(&out), came.method(text.as_bytes()));
        prop_assert_eq!((went.host(), went.port(), went.address()), (came.host(), came.port(), came.address()));
        prop_assert_eq!(went.framing(), came.framing());
        prop_assert_eq!(went.wants_upgrade(), came.wants_upgrade());
        let (mut url_came, mut url_went) = (String::new(), String::new());
        came.write_url(text.as_bytes(), &mut url_came);
        went.write_url(&out, &mut url_went);
        // OPTIONS without a path says `*` to an origin, which no URL can.
        let came_as = if went.form() == TargetForm::Asterisk { format!("{url_came}*") } else { url_came };
        prop_assert_eq!(url_went, came_as);
        // Sent on once more, nothing changes but Via: normal form is normal.
        let mut again = Vec::new();
        forward_request(&went, &out, &how, &mut again);
        let via = b"Via: 1.1 tide-1\r\n\r\n";
        let (said, said_again) = (sorted_lines(&out), sorted_lines(&[&again[..again.len() - via.len()], b"\r\n"].concat()));
        prop_assert_eq!(said, said_again);
        // Every end-to-end field arrived unchanged.
        let end_to_end = |head: &RequestHead, buf: &[u8]| -> Vec<(String, Vec<u8>)> {
            let theirs = head.fields(buf).filter(|(name, _)| name.starts_with("X-") && !name.eq_ignore_ascii_case("x-a"));
            theirs.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
        };
        prop_assert_eq!(end_to_end(&went, &out), end_to_end(&came, text.as_bytes()));
    }

    #[test]
    fn chunked_payload_survives_any_chunking_and_any_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..12),
        sizes in prop::collection::vec(1usize..400, 1..40),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
        let length = wire.len();
        wire.extend_from_slice(&behind);
        prop_assert_eq!(read_chunked(&wire, &sizes), Ok((chunks.concat(), length, true)));
    }
}

fn sorted_lines(head: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(head).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A small generator of its own, so that a failing run can be repeated from its seed alone.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

/// Bytes that mean something to a parser of HTTP.
const SPICE: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"\r\n\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"chunked",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a.test\r\n",
    b"Connection: Host\r\n",
    b"@",
    b"[",
    b"]",
    b"http://",
    b"/",
    b"?",
    b"#",
    b"%",
    b"\x80",
    b"\xff",
    b"ffffffffffffffff",
    b"Upgrade: x\r\n",
    b"Via: 1.1 t\r\n",
];

pub fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(5) {
            0 if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            3 => {
                let end = at + dice.roll(bytes.len() - at + 1);
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ => drop(bytes.splice(at..at, SPICE[dice.roll(SPICE.len())].iter().copied())),
        }
    }
}

#[test]
fn mutated_messages_never_panic_and_what_goes_on_is_always_understood() {
    let mut dice = Dice(0x7469_6465_6761_7465);
    let requests: Vec<&str> = ACCEPTED.iter().map(|case| case.1).chain(REFUSED.iter().map(|case| case.1)).collect();
    let (mut head, mut reply_head, mut out, mut accepted) = (RequestHead::new(), ReplyHead::new(), Vec::new(), 0);
    for _ in 0..400_000 {
        let mut bytes = requests[dice.roll(requests.len())].as_bytes().to_vec();
        mutate(&mut bytes, &mut dice);
        head.clear();
        if let Ok(Parsed::Complete(length)) = parse_request(&bytes, &mut head) {
            accepted += 1;
            assert!(length <= bytes.len());
            // An https target goes to another proxy alone: origin form would lose the scheme.
            let to = if head.scheme() == Scheme::Https { ForwardTo::Parent } else { ForwardTo::Origin };
            let how = ForwardRequest { via: "t", to, keep_upgrade: dice.roll(2) == 0, ..ForwardRequest::default() };
            out.clear();
            forward_request(&head, &bytes, &how, &mut out);
            // HTTP/1.0 without any host cannot be sent anywhere, and no proxy would.
            if !head.host().is_empty() {
                let went = whole_request(&out);
                assert_eq!(went.framing(), head.framing(), "{} became {}", bytes.escape_ascii(), out.escape_ascii());
                assert_eq!((went.host(), went.port()), (head.host(), head.port()), "{}", bytes.escape_ascii());
            }
        }
        let case = REPLIES[dice.roll(REPLIES.len())];
        let mut bytes = case.2.as_bytes().to_vec();
        mutate(&mut bytes, &mut dice);
        reply_head.clear();
        if let Ok(Parsed::Complete(length)) = parse_reply(&bytes, case.1, &mut reply_head) {
            assert!(length <= bytes.len());
            out.clear();
            forward_reply(
                &reply_head,
                &bytes,
                &ForwardReply { via: "t", keep_upgrade: true, ..ForwardReply::default() },
                &mut out,
            );
            let (_, went) = reply(&out, case.1)
                .unwrap_or_else(|e| panic!("{e}: {} became {}", bytes.escape_ascii(), out.escape_ascii()));
            assert_eq!(
                (went.status(), went.framing()),
                (reply_head.status(), reply_head.framing()),
                "{}",
                bytes.escape_ascii()
            );
        }
        let mut bytes = b"4;x\r\nabcd\r\n1\r\nz\r\n0\r\nX: y\r\n\r\n".to_vec();
        mutate(&mut bytes, &mut dice);
        let in_one = read_chunked(&bytes, &[usize::MAX]);
        assert_eq!(read_chunked(&bytes, &[1 + dice.roll(5)]), in_one, "{}", bytes.escape_ascii());
    }
    assert!(
        accepted > 1_000,
        "only {accepted} mutated requests were accepted: the mutations are too coarse to test forwarding"
    );
}
