//! Long bodies, which go through a pipe in the kernel: what arrives, what stays where it was, and who is told what when one ends
//! too early.

use super::node::Act;
use super::node::Node;
use super::node::Origin;
use super::node::say;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use tidegate::proxy::Timeouts;
use tidegate::sys::sockets;

const LONG: usize = 40_000_000;

/// Bytes of which no piece looks like another.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(length + 8);
    while noise.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(length);
    noise
}

fn with_length(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn put(origin: &Origin, path: &str, length: usize) -> String {
    origin.fill(&format!("PUT http://ORIGIN{path} HTTP/1.1\r\nHost: ORIGIN\r\nContent-Length: {length}\r\n\r\n"))
}

/// Without printing forty million bytes where they differ.
fn assert_same(got: &[u8], sent: &[u8]) {
    assert_eq!(got.len(), sent.len());
    assert!(got == sent, "they differ from byte {:?} on", got.iter().zip(sent).position(|(a, b)| a != b));
}

#[test]
fn long_bodies_arrive_as_they_left_and_both_connections_go_on() {
    let (node, origin, body) = (Node::start(), Origin::start(), noise(LONG));
    origin.on("/long", [say(with_length(&body))]);
    let mut client = node.client();
    for _ in 0..2 {
        let reply = client.say(origin.get("/long")).reply();
        assert!(reply.whole);
        assert_same(&reply.body, &body);
        client.say(put(&origin, "/taken", LONG)).say(&body);
        assert_eq!(client.reply().text(), "ok");
        assert_eq!(client.say(origin.get("/short")).reply().text(), "ok");
    }
    let received = origin.received_bytes();
    assert_eq!(received.len(), 1, "one connection to the origin served all");
    let (mut rest, mut uploads) = (&received[0][..], 0);
    while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
        let upload = rest.starts_with(b"PUT /taken");
        rest = &rest[end + 4..];
        if upload {
            assert_same(&rest[..LONG], &body);
            rest = &rest[LONG..];
            uploads += 1;
        }
    }
    assert_eq!((uploads, rest.len()), (2, 0));
    let records = node.records();
    assert_eq!(records.len(), 6);
    for record in &records {
        let long = record.url.ends_with("/long");
        let upload = record.url.ends_with("/taken");
        let expected = (if upload { LONG as u64 } else { 0 }, if long { LONG as u64 } else { 2 });
        assert_eq!((record.upload, record.download), expected, "{}", record.url);
        assert_eq!(record.ending.to_string(), "--", "{}", record.url);
    }
}

#[test]
fn a_long_body_that_ends_with_its_connection_arrives_whole() {
    let (node, origin, body) = (Node::start(), Origin::start(), noise(LONG));
    let answer = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &body[..]].concat();
    origin.on("/closing", [say(answer), Act::Close]);
    let reply = node.client().say(origin.get("/closing")).reply();
    assert!(reply.whole);
    assert_same(&reply.body, &body);
    let record = node.records().remove(0);
    assert_eq!((record.download, record.ending.to_string().as_str()), (LONG as u64, "--"));
}

#[test]
fn a_client_that_reads_late_gets_all_of_a_long_body() {
    let (node, origin, body) = (Node::start(), Origin::start(), noise(LONG));
    origin.on("/long", [say(with_length(&body))]);
    let mut slow = node.client();
    slow.say(origin.get("/long")).await_first_byte();
    // Others are served while it keeps its origin waiting.
    let mut other = node.client();
    for _ in 0..50 {
        assert_eq!(other.say(origin.get("/short")).reply().text(), "ok");
    }
    let reply = slow.reply();
    assert!(reply.whole);
    assert_same(&reply.body, &body);
}

#[test]
fn what_a_client_sends_behind_a_long_body_is_its_next_request() {
    let (node, origin, body) = (Node::start(), Origin::start(), noise(3_000_000));
    let mut message = put(&origin, "/first", body.len()).into_bytes();
    message.extend_from_slice(&body);
    message.extend_from_slice(origin.get("/second").as_bytes());
    message.extend_from_slice(put(&origin, "/third", body.len()).as_bytes());
    message.extend_from_slice(&body);
    message.extend_from_slice(origin.get("/fourth").as_bytes());
    for path in ["/first", "/second", "/third", "/fourth"] {
        origin.on(path, [say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()))]);
    }
    let mut client = node.client();
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&message).unwrap());
    for path in ["/first", "/second", "/third", "/fourth"] {
        assert_eq!(client.reply().text(), path);
    }
    writing.join().unwrap();
    let received = origin.received_bytes().concat();
    for path in ["PUT /first", "GET /second", "PUT /third", "GET /fourth"] {
        let times = received.windows(path.len()).filter(|window| *window == path.as_bytes()).count();
        assert_eq!(times, 1, "{path}");
    }
}

#[test]
fn bytes_behind_a_long_answer_are_nobodys_answer() {
    let (node, origin, body) = (Node::start(), Origin::start(), noise(200_000));
    let mut answer = with_length(&body);
    answer.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    origin.on("/long", [say(answer)]);
    let mut client = node.client();
    for _ in 0..3 {
        // Both at once, so that the second is sent on as soon as the first is answered.
        client.say(format!("{}{}", origin.get("/long"), origin.get("/next")));
        assert_same(&client.reply().body, &body);
        assert_eq!(client.reply().text(), "ok");
    }
    let connections = origin.received();
    // A new connection may be used for /next and then for /long, but not the other way round.
    let reused = |received: &&String| received.split_once("/long").is_some_and(|(_, after)| after.contains("/next"));
    assert_eq!(connections.iter().filter(reused).count(), 0, "bytes that nobody asked for were still to come");
}

#[test]
fn a_long_answer_that_breaks_off_never_looks_whole() {
    let (node, origin, body) = (Node::start(), Origin::start(), noise(2_000_000));
    let promised = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n");
    let part = [promised.as_bytes(), &body].concat();
    let endless = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &body[..]].concat();
    origin.on("/closed", [say(&part), Act::Close]);
    origin.on("/reset", [say(&part), Act::Meet, Act::Reset]);
    origin.on("/endless", [say(endless), Act::Meet, Act::Reset]);
    for path in ["/closed", "/reset", "/endless"] {
        let mut client = node.client();
        client.say(origin.get(path)).await_first_byte();
        if path != "/closed" {
            origin.meet();
        }
        let reply = client.reply();
        assert!(reply.status == 200 && !reply.whole, "{path}: {}", reply.head);
    }
    assert_eq!(node.client().say(origin.get("/next")).reply().text(), "ok");
    for record in node.records().iter().filter(|record| !record.url.ends_with("/next")) {
        assert_eq!(record.ending.to_string(), "SD", "{}", record.url);
    }
}

#[test]
fn a_client_that_goes_away_in_a_long_body_ends_the_exchange_on_both_sides() {
    let (node, origin, body) = (Node::start(), Origin::start(), noise(LONG));
    origin.on("/long", [say(with_length(&body))]);
    for reset in [false, true] {
        let mut client = node.client();
        client.say(origin.get("/long")).await_first_byte();
        client.stream.read_exact(&mut [0; 100_000]).unwrap();
        if reset {
            sockets::reset_on_close(&client.stream).unwrap();
        }
        drop(client);
        let mut client = node.client();
        client.say(put(&origin, "/never", LONG)).say(&body[..3_000_000]);
        let begun = || origin.received().iter().filter(|received| received.contains("/never")).count();
        super::until("the origin has a part", || begun() == 1 + usize::from(reset));
        match reset {
            true => sockets::reset_on_close(&client.stream).unwrap(),
            false => client.stream.shutdown(Shutdown::Write).unwrap(),
        }
        drop(client);
    }
    assert_eq!(node.client().say(origin.get("/next")).reply().text(), "ok");
    let records = node.records();
    assert_eq!(records.len(), 5);
    for record in records.iter().filter(|record| !record.url.ends_with("/next")) {
        assert_eq!(record.ending.to_string(), "CD", "{}", record.url);
        let moved = if record.url.ends_with("/never") { record.upload } else { record.download };
        assert!(moved < LONG as u64, "{}: {moved}", record.url);
    }
    for received in origin.received_bytes() {
        assert!(received.len() < LONG, "the origin took a part for the whole");
    }
}

#[test]
fn an_origin_that_answers_in_the_middle_of_a_long_upload_is_heard() {
    let (node, origin, body) = (Node::start(), Origin::start(), noise(LONG));
    let refusal = "HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!";
    origin.on("/early", [Act::Early, Act::Take(500_000), say(refusal), Act::Close]);
    let mut client = node.client();
    let mut writer = client.stream.try_clone().unwrap();
    let (request, rest) = (put(&origin, "/early", LONG), body.clone());
    // It may be cut off when it has been refused.
    let writing = std::thread::spawn(move || {
        let _ = writer.write_all(request.as_bytes()).and_then(|()| writer.write_all(&rest));
    });
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str()), (413, "no!"));
    writing.join().unwrap();
    assert_eq!(node.client().say(origin.get("/next")).reply().text(), "ok");
}

#[test]
fn who_keeps_a_long_body_waiting_meets_the_deadline_of_bodies() {
    let node = Node::tuned(|config| config.timeouts = Timeouts { body: 400, linger: 200, ..Timeouts::default() });
    let (origin, body) = (Origin::start(), noise(LONG));
    let part = [format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n").as_bytes(), &body[..2_000_000]].concat();
    origin.on("/silent", [say(part), Act::Meet]);
    origin.on("/long", [say(with_length(&body))]);
    let reply = node.client().say(origin.get("/silent")).reply();
    assert!(reply.status == 200 && !reply.whole);
    origin.meet();
    let mut idle = node.client();
    idle.say(put(&origin, "/half", LONG)).say(&body[..2_000_000]);
    assert_eq!(idle.reply().status, 408);
    let mut deaf = node.client();
    deaf.say(origin.get("/long")).await_first_byte();
    // Its answer is given up while it does not read; another's is not.
    let mut other = node.client();
    let mut records = 0;
    super::until("the client that does not read is given up", || {
        assert_eq!(other.say(origin.get("/short")).reply().text(), "ok");
        records += 1;
        node.served() >= records + 3
    });
    let records = node.records();
    let ending = |path: &str| records.iter().find(|record| record.url.ends_with(path)).unwrap().ending.to_string();
    assert_eq!((ending("/silent").as_str(), ending("/long").as_str()), ("sD", "cD"));
}
