//! What is refused, on real sockets: the client is told and its connection ends, and no machine behind the proxy ever
//! receives a byte that it could read differently.

use crate::node::*;
use crate::tables::*;
use tidegate::wire::http1::RequestError;

/// A request that would be somebody's next, sent right behind.
const SMUGGLED: &str = "GET http://ORIGIN/smuggled HTTP/1.1\r\nHost: ORIGIN\r\n\r\n";

/// What a row of the tables would reach the origin with, if it were passed on.
fn aimed(origin: &Origin, text: &str) -> String {
    origin.fill(&text.replace("http://a.test/", "http://ORIGIN/").replace("Host: a.test\r\n", "Host: ORIGIN\r\n"))
}

/// Heads that only their size makes wrong: RFC section, head, status.
fn oversized() -> Vec<(&'static str, String, u16)> {
    let with = |fields: String| format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    vec![
        ("9112 3", format!("GET http://a.test/{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(17 * 1024)), 414),
        ("9112 3", format!("GET http://a.test/{}", "x".repeat(40 * 1024)), 414),
        ("9112 3", format!("{} http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "X".repeat(20 * 1024)), 414),
        ("6585 5", with(format!("X: {}\r\n", "x".repeat(70 * 1024))), 431),
        ("6585 5", with(format!("{}: y\r\n", "x".repeat(70 * 1024))), 431),
        ("6585 5", with("X: y\r\n".repeat(10_000)), 431),
        ("6585 5", with("A-Field-Of-Some-Length: and a value\r\n".repeat(10_000)), 431),
        ("9110 7.6.1", with(format!("Connection: {}close\r\n", "a,".repeat(64))), 431),
        ("9110 7.6.1", with("Connection: a\r\n".repeat(65)), 431),
    ]
}

#[test]
fn a_request_that_could_be_read_in_two_ways_ends_its_connection_and_reaches_nobody() {
    let (node, origin) = (Node::start(), Origin::start());
    let rows = REFUSED.iter().map(|(section, bytes, _, status)| (*section, bytes.to_string(), *status));
    for (section, bytes, status) in rows.chain(oversized()) {
        let mut client = node.client();
        client.say(aimed(&origin, &bytes) + &origin.fill(SMUGGLED));
        let reply = client.reply();
        let row = format!("{section}: {}", bytes[..bytes.len().min(200)].escape_debug());
        assert_eq!(reply.status, status, "{row}\n{}", reply.head);
        assert!(reply.whole && reply.text().contains("Reference"), "{row}\n{}", reply.text());
        assert_eq!(reply.field("connection"), Some("close"), "{row}");
        assert_eq!(reply.error(), Some("http_request_error"), "{row}\n{}", reply.head);
        assert!(client.is_at_end(), "{row}: something came behind the refusal");
    }
    assert!(origin.received().is_empty(), "{:?}", origin.received());
}

#[test]
fn an_old_client_that_does_not_say_how_much_it_sends_is_told_to() {
    assert_eq!(RequestError::LengthMissing.status(), 411);
    let (node, origin) = (Node::start(), Origin::start());
    let mut client = node.client();
    client.say(origin.fill("POST http://ORIGIN/ HTTP/1.0\r\n\r\nname=value"));
    assert_eq!(client.reply().status, 411);
    assert!(client.is_at_end() && origin.received().is_empty());
}

/// RFC section, chunked body.
#[rustfmt::skip]
const BAD_CHUNKS: &[(&str, &str)] = &[
    ("9112 7.1", "x\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1", "\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1", "-3\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1", "+3\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1", " 3\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1", "3 \r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1, overflow", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1, overflow", "8000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1, overflow", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1", "3\nabc\r\n0\r\n\r\n"),
    ("9112 7.1", "3\rabc\r\n0\r\n\r\n"),
    ("9112 7.1", "3\r\nabcd\r\n0\r\n\r\n"),
    ("9112 7.1", "3\r\nabc\n0\r\n\r\n"),
    ("9112 7.1", "3\r\nabc0\r\n\r\n"),
    ("9112 7.1.1", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1.1", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1.1", "3;a\u{0}b\r\nabc\r\n0\r\n\r\n"),
    ("9112 7.1.2", "3\r\nabc\r\n0\r\nX : y\r\n\r\n"),
    ("9112 7.1.2", "3\r\nabc\r\n0\r\nX: y\r\n folded\r\n\r\n"),
    ("9112 7.1.2", "3\r\nabc\r\n0\r\nX: y\nZ: y\r\n\r\n"),
    ("9112 7.1.2", "3\r\nabc\r\n0\r\nno colon\r\n\r\n"),
    ("9110 6.5.1", "3\r\nabc\r\n0\r\nContent-Length: 7\r\n\r\n"),
    ("9110 6.5.1", "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("9110 6.5.1", "3\r\nabc\r\n0\r\nHost: b.test\r\n\r\n"),
    ("9110 6.5.1", "3\r\nabc\r\n0\r\nAuthorization: Basic eA==\r\n\r\n"),
];

/// Chunked bodies that only their size makes wrong.
fn oversized_chunks() -> Vec<(&'static str, String)> {
    vec![
        ("9112 7.1.1", format!("3;{}\r\nabc\r\n0\r\n\r\n", "e".repeat(1024))),
        (
            "9112 7.1.1",
            format!("{}0\r\n\r\n", "1;0123456789abcdef0123456789abcdef0123456789abcdef\r\nx\r\n".repeat(500)),
        ),
        ("9110 6.5", format!("3\r\nabc\r\n0\r\n{}\r\n", "X: y\r\n".repeat(10_000))),
        ("9110 6.5", format!("3\r\nabc\r\n0\r\nX: {}\r\n\r\n", "x".repeat(70_000))),
    ]
}

#[test]
fn a_chunked_body_that_could_end_in_two_places_never_ends_at_the_origin() {
    let (node, origin) = (Node::start(), Origin::start());
    let head = origin.fill("POST http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\nTransfer-Encoding: chunked\r\n\r\n");
    let rows = BAD_CHUNKS.iter().map(|(section, body)| (*section, body.to_string()));
    let rows: Vec<(&str, String)> = rows.chain(oversized_chunks()).collect();
    for (section, body) in &rows {
        // With the head, and behind a first chunk that has reached the origin already.
        for first in ["", "5\r\nfirst\r\n"] {
            let row = format!("{section}: {:?} behind {first:?}", &body[..body.len().min(100)]);
            let mut client = node.client();
            if first.is_empty() {
                client.say(head.clone() + body + &origin.fill(SMUGGLED));
            } else {
                let before = origin.received().len();
                client.say(&head).say(first);
                crate::until("the first chunk is there", || {
                    let received = origin.received();
                    received.len() > before && received.last().is_some_and(|bytes| bytes.ends_with(first))
                });
                client.say(body.clone() + &origin.fill(SMUGGLED));
            }
            let reply = client.reply();
            assert_eq!((reply.status, reply.error()), (400, Some("http_request_error")), "{row}");
            assert_eq!(reply.field("connection"), Some("close"), "{row}");
            assert!(client.is_at_end(), "{row}: something came behind the refusal");
        }
    }
    let received = origin.received();
    assert!(received.len() >= rows.len(), "every body that had begun has a connection");
    for bytes in received {
        assert!(!bytes.contains("smuggled") && !bytes.contains("0\r\n\r\n"), "{bytes:?}");
        assert_eq!(bytes.matches("POST").count(), 1, "used again: {bytes:?}");
    }
}

/// Reply heads that only their size makes wrong.
fn oversized_replies() -> Vec<(&'static str, String)> {
    let with = |fields: String| format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
    vec![
        ("6585 5", with("X: y\r\n".repeat(10_000))),
        ("6585 5", with(format!("X: {}\r\n", "x".repeat(70 * 1024)))),
        ("9112 4", format!("HTTP/1.1 200 {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(70 * 1024))),
        ("9110 7.6.1", with(format!("Connection: {}close\r\n", "a,".repeat(64)))),
    ]
}

#[test]
fn a_reply_that_could_be_read_in_two_ways_becomes_502_and_its_connection_is_not_used_again() {
    let (node, origin) = (Node::start(), Origin::start());
    let mut client = node.client();
    let rows = REFUSED_REPLIES.iter().map(|(section, bytes, _)| (*section, bytes.to_string()));
    let rows: Vec<(&str, String)> = rows.chain(oversized_replies()).collect();
    for (number, (section, bytes)) in rows.iter().enumerate() {
        let path = format!("/{number}");
        origin.on(&path, [say(bytes)]);
        client.say(origin.get(&path));
        let reply = client.reply();
        let row = format!("{section}: {:?}", &bytes[..bytes.len().min(200)]);
        assert_eq!(reply.status, 502, "{row}");
        let error = reply.error().unwrap_or_else(|| panic!("{row}: {}", reply.head));
        assert!(error.starts_with("http_"), "{row}: {error}");
        assert!(reply.whole && reply.text().contains("Reference"), "{row}");
        // The fault is not the client's: its connection goes on.
        client.say(origin.get("/fine"));
        assert_eq!(client.reply().text(), "ok", "{row}");
    }
    for bytes in origin.received() {
        let asked: Vec<&str> = bytes.matches("GET /").collect();
        let lied = bytes.lines().filter(|line| line.starts_with("GET /") && !line.starts_with("GET /fine")).count();
        let last = bytes.lines().rfind(|line| line.starts_with("GET /")).unwrap();
        assert!(lied == 0 || (lied == 1 && !last.starts_with("GET /fine")), "{asked:?} on one connection: {bytes:?}");
    }
}

#[test]
fn bad_chunks_of_a_reply_are_told_by_502_or_by_a_cut_and_never_look_whole() {
    let (node, origin) = (Node::start(), Origin::start());
    let rows = BAD_CHUNKS.iter().map(|(section, body)| (*section, body.to_string()));
    let rows: Vec<(&str, String)> = rows.chain(oversized_chunks()).collect();
    for (number, (section, body)) in rows.iter().enumerate() {
        let row = format!("{section}: {:?}", &body[..body.len().min(100)]);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for version in ["1.1", "1.0"] {
            let ask =
                |path: &str| origin.fill(&format!("GET http://ORIGIN{path} HTTP/{version}\r\nHost: ORIGIN\r\n\r\n"));
            let path = format!("/at-once/{number}");
            origin.on(&path, [say(format!("{head}{body}"))]);
            let mut client = node.client();
            client.say(ask(&path));
            let reply = client.reply();
            // Long ones come in pieces, and the first may be on its way before the fault is seen.
            assert!(reply.status == 502 || !reply.whole, "{row}: {} {}", reply.status, reply.whole);
            if reply.status == 502 {
                let types = ["http_response_transfer_coding", "http_response_trailer_section_size"];
                assert!(types.contains(&reply.error().unwrap()), "{row}: {}", reply.head);
            }
            let path = format!("/later/{number}");
            origin.on(&path, [say(format!("{head}5\r\nfirst\r\n")), Act::Meet, say(body)]);
            let mut client = node.client();
            client.say(ask(&path));
            client.await_first_byte();
            origin.meet();
            let reply = client.reply();
            assert_eq!((reply.status, reply.whole), (200, false), "{row} for a {version} client");
        }
    }
    assert_eq!(origin.received().len(), rows.len() * 4, "no connection was used again");
}
