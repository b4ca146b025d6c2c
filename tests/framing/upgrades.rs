//! Other protocols: WebSocket through plain proxying and through CONNECT, and what of HTTP remains around them.

use crate::node::*;

const HANDSHAKE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The example of RFC 6455 section 1.3.
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn handshake(to: &str, path: &str) -> String {
    format!("GET {to}{path} HTTP/1.1\r\nHost: ORIGIN\r\n{HANDSHAKE}\r\n")
}

/// Talks in frames of every length form, both ways, to a proper end.
fn talk(client: &mut Client) {
    for (opcode, back, length) in [
        (Frame::TEXT, Frame::TEXT, 5),
        (Frame::PING, Frame::PONG, 3),
        (Frame::BINARY, Frame::BINARY, 0),
        (Frame::BINARY, Frame::BINARY, 125),
        (Frame::BINARY, Frame::BINARY, 126),
        (Frame::BINARY, Frame::BINARY, 65_535),
        (Frame::BINARY, Frame::BINARY, 65_536),
        (Frame::BINARY, Frame::BINARY, 700_000),
        (Frame::CLOSE, Frame::CLOSE, 2),
    ] {
        let message: Vec<u8> = (0..length).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        client.say(Frame::write(opcode, &message, Some(MASK)));
        let (said, echoed) = Frame::read(|count| client.take(count)).expect("a frame back");
        assert!(said == back && echoed == message, "{opcode} {length}");
    }
    assert!(client.is_at_end());
}

#[test]
fn websocket_frames_go_both_ways_through_plain_proxying() {
    let (node, origin) = (Node::start(), Origin::start());
    origin.on("/ws", [say(ACCEPTED), Act::WebSocket]);
    let mut client = node.client();
    // The connection to the origin has served a request before, and serves none afterwards.
    client.say(origin.get("/before"));
    assert_eq!(client.reply().text(), "ok");
    client.say(origin.fill(&handshake("http://ORIGIN", "/ws")));
    let reply = client.reply();
    assert_eq!((reply.status, reply.field("upgrade")), (101, Some("websocket")), "{}", reply.head);
    assert_eq!(reply.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(reply.field("connection"), Some("Upgrade"));
    talk(&mut client);
    drop(client);
    let mut client = node.client();
    client.say(origin.get("/after"));
    assert_eq!(client.reply().text(), "ok");
    let received = origin.received();
    assert_eq!(received.len(), 2);
    assert!(received[0].contains("/before") && received[0].contains("/ws") && !received[0].contains("/after"));
    assert!(received[0].contains("Upgrade: WebSocket\r\nConnection: Upgrade\r\n"), "{}", &received[0][..400]);
    let records = node.records();
    let record = records.iter().find(|record| record.status == 101).expect("a record of the switch");
    assert_eq!((record.cachecode.as_str(), record.ending.as_str()), ("TCP_WEBSOCKET", "--"));
}

#[test]
fn websocket_frames_go_both_ways_through_connect() {
    let (node, origin) = (Node::start(), Origin::start());
    origin.on("/ws", [say(ACCEPTED), Act::WebSocket]);
    let mut client = node.client();
    client.say(origin.fill("CONNECT ORIGIN HTTP/1.1\r\nHost: ORIGIN\r\n\r\n"));
    assert_eq!(client.reply_to("CONNECT").status, 200);
    client.say(origin.fill(&handshake("", "/ws")));
    assert_eq!(client.reply().status, 101);
    talk(&mut client);
    let received = origin.received();
    assert!(received.len() == 1 && !received[0].contains("Via:"), "nobody looks into a tunnel");
}

#[test]
fn frames_sent_before_the_answer_are_not_lost() {
    let (node, origin) = (Node::start(), Origin::start());
    // With its welcome in the same packet as the head, and the client's first frame right behind the request.
    let welcome = Frame::write(Frame::TEXT, b"welcome", None);
    origin.on("/ws", [say([ACCEPTED.as_bytes(), &welcome].concat()), Act::WebSocket]);
    let eager = Frame::write(Frame::TEXT, b"eager", Some(MASK));
    for (framing, body) in
        [("", ""), ("Content-Length: 4\r\n", "body"), ("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n")]
    {
        for apart in [false, true] {
            let head =
                origin.fill(&handshake("http://ORIGIN", "/ws")).replace("\r\n\r\n", &format!("\r\n{framing}\r\n"));
            let mut client = node.client();
            if apart {
                client.say(head).say([body.as_bytes(), &eager].concat());
            } else {
                client.say([head.as_bytes(), body.as_bytes(), &eager].concat());
            }
            assert_eq!(client.reply().status, 101);
            assert_eq!(Frame::read(|count| client.take(count)).unwrap().1, b"welcome", "{framing:?}");
            assert_eq!(Frame::read(|count| client.take(count)).unwrap().1, b"eager", "{framing:?}");
            talk(&mut client);
        }
    }
}

#[test]
fn an_upgrade_the_origin_refuses_is_an_exchange_like_others() {
    let (node, origin) = (Node::start(), Origin::start());
    origin.on("/no", [say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")]);
    let said = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: chat\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n";
    origin.on("/other", [say(said)]);
    let mut client = node.client();
    client.say(origin.fill(&handshake("http://ORIGIN", "/no")));
    assert_eq!(client.reply().text(), "plain");
    client.say(origin.fill(&handshake("http://ORIGIN", "/other")));
    let reply = client.reply();
    assert_eq!((reply.status, reply.field("upgrade")), (426, Some("chat")));
    client.say(origin.get("/next"));
    assert_eq!(client.reply().text(), "ok");
    assert_eq!(origin.received().len(), 1, "both connections go on");
}

#[test]
fn an_upgrade_policy_does_not_allow_reaches_nobody() {
    let (node, origin) = (Node::start(), Origin::start());
    let mut client = node.client();
    for protocols in ["other", "websocket, other", "other, websocket", "TLS/1.0"] {
        let ask = handshake("http://ORIGIN", "/").replace("WebSocket\r\n", &format!("{protocols}\r\n"));
        client.say(origin.fill(&ask));
        let reply = client.reply();
        assert_eq!((reply.status, reply.error()), (403, Some("http_request_denied")), "{protocols}");
    }
    // Offered but not asked for: it was for nobody else (RFC 9110 section 7.8).
    client.say(origin.get("/x").replace("\r\n\r\n", "\r\nUpgrade: other\r\n\r\n"));
    assert_eq!(client.reply().text(), "ok");
    assert!(!origin.received().concat().contains("Upgrade"), "{:?}", origin.received());
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_fault_of_the_origin() {
    let (node, origin) = (Node::start(), Origin::start());
    let switch = |to: &str| say(format!("HTTP/1.1 101 Go\r\nUpgrade: {to}\r\nConnection: Upgrade\r\n\r\nEVIL"));
    origin.on("/chat", [switch("chat")]);
    origin.on("/two", [switch("websocket, chat")]);
    origin.on("/h2c", [switch("h2c")]);
    origin.on("/early", [Act::Early, switch("websocket")]);
    let body = "Content-Length: 100000\r\n\r\npart";
    for request in [
        origin.get("/chat"),
        origin.fill(&handshake("http://ORIGIN", "/chat")),
        origin.fill(&handshake("http://ORIGIN", "/two")),
        origin.fill(&handshake("http://ORIGIN", "/h2c")),
        origin.fill(&handshake("http://ORIGIN", "/early")).replace("\r\n\r\n", &format!("\r\n{body}")),
    ] {
        let mut client = node.client();
        client.say(&request);
        let reply = client.reply();
        assert_eq!((reply.status, reply.error()), (502, Some("http_upgrade_failed")), "{request:?}: {}", reply.head);
        assert!(!reply.text().contains("EVIL"));
    }
    assert_eq!(origin.received().len(), 5, "none was used again");
}
