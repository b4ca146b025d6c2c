//! Whole exchanges on real sockets: what the origin received, byte by byte, and what the client could tell.

use crate::node::*;

/// RFC section, what a client says, what the origin receives. `ORIGIN` is the origin's address.
#[rustfmt::skip]
const FORWARDED: &[(&str, &str, &str)] = &[
    ("9112 3.2: Host comes first and once, whatever its case and place",
     "GET http://ORIGIN/a HTTP/1.1\r\nACCEPT:*/*\r\nhOST:   ORIGIN\t\r\nUser-Agent:\tt  \r\n\r\n",
     "GET /a HTTP/1.1\r\nHost: ORIGIN\r\nACCEPT:*/*\r\nUser-Agent:\tt\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
    ("9112 2.2: empty lines before a request are not of it",
     "\r\n\r\nGET http://ORIGIN/b HTTP/1.1\r\nHost: ORIGIN\r\n\r\n",
     "GET /b HTTP/1.1\r\nHost: ORIGIN\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
    ("9110 2.5: a request of old goes on in our version",
     "GET http://ORIGIN/c HTTP/1.0\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n\r\n",
     "GET /c HTTP/1.1\r\nHost: ORIGIN\r\nVia: 1.0 tidegate-framing\r\n\r\n"),
    ("9110 8.6: a length is written in one way",
     "POST http://ORIGIN/d HTTP/1.1\r\nHost: ORIGIN\r\nCONTENT-LENGTH: 0003\r\nX: y\r\n\r\nabc",
     "POST /d HTTP/1.1\r\nHost: ORIGIN\r\nX: y\r\nContent-Length: 3\r\nVia: 1.1 tidegate-framing\r\n\r\nabc"),
    ("9112 7.1.1: chunk extensions and white space go no further",
     "POST http://ORIGIN/e HTTP/1.1\r\nHost: ORIGIN\r\ntransfer-encoding:CHUNKED\r\n\r\n3 ;x=\"y;\" \r\nabc\r\n1;\r\nd\r\n0;z\r\n\r\n",
     "POST /e HTTP/1.1\r\nHost: ORIGIN\r\nTransfer-Encoding: chunked\r\nVia: 1.1 tidegate-framing\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"),
    ("9110 6.5: trailers go on",
     "POST http://ORIGIN/f HTTP/1.1\r\nHost: ORIGIN\r\nTrailer: X-Sum\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
     "POST /f HTTP/1.1\r\nHost: ORIGIN\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\nVia: 1.1 tidegate-framing\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n"),
    ("9110 7.6.1: what Connection names was for us",
     "GET http://ORIGIN/g HTTP/1.1\r\nHost: ORIGIN\r\nConnection: keep-alive, x-mine ,,\tX-Other\r\nX-Mine: 1\r\nX-OTHER: 2\r\nx-mine: 3\r\nX-Theirs: 4\r\n\r\n",
     "GET /g HTTP/1.1\r\nHost: ORIGIN\r\nX-Theirs: 4\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
    ("9110 7.6.1: Connection cannot take away what the message needs",
     "POST http://ORIGIN/h HTTP/1.1\r\nHost: ORIGIN\r\nConnection: Host, Content-Length, Via, Authorization, Cache-Control\r\nContent-Length: 3\r\nAuthorization: Basic eA==\r\nCache-Control: no-store\r\nVia: 1.1 before\r\n\r\nabc",
     "POST /h HTTP/1.1\r\nHost: ORIGIN\r\nAuthorization: Basic eA==\r\nCache-Control: no-store\r\nVia: 1.1 before\r\nContent-Length: 3\r\nVia: 1.1 tidegate-framing\r\n\r\nabc"),
    ("9110 7.6.1: Connection cannot take framing away",
     "POST http://ORIGIN/i HTTP/1.1\r\nHost: ORIGIN\r\nConnection: Transfer-Encoding, close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
     "POST /i HTTP/1.1\r\nHost: ORIGIN\r\nTransfer-Encoding: chunked\r\nVia: 1.1 tidegate-framing\r\n\r\n1\r\na\r\n0\r\n\r\n"),
    ("9110 7.6.1: fields of one hop go no further, named or not",
     "GET http://ORIGIN/j HTTP/1.1\r\nHost: ORIGIN\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nKeep-Alive: timeout=5\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
     "GET /j HTTP/1.1\r\nHost: ORIGIN\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
    ("3875 4.1.18: what a CGI program would take for framing goes no further",
     "GET http://ORIGIN/k HTTP/1.1\r\nHost: ORIGIN\r\nContent_Length: 5\r\nTRANSFER_ENCODING: chunked\r\nX_Y: z\r\n\r\n",
     "GET /k HTTP/1.1\r\nHost: ORIGIN\r\nX_Y: z\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
    ("9110 10.1.1: an expectation without a body, or from a client of old, is none",
     "POST http://ORIGIN/l HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
     "POST /l HTTP/1.1\r\nHost: ORIGIN\r\nContent-Length: 1\r\nVia: 1.0 tidegate-framing\r\n\r\na"),
    ("9110 9.3.8: no secrets in a TRACE, and a hop less to go",
     "TRACE http://ORIGIN/m HTTP/1.1\r\nHost: ORIGIN\r\nAuthorization: Basic eA==\r\nCookie: a=b\r\nX: y\r\nMax-Forwards: 5\r\n\r\n",
     "TRACE /m HTTP/1.1\r\nHost: ORIGIN\r\nX: y\r\nMax-Forwards: 4\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
    ("9112 3.2.4: OPTIONS for the whole server, and a hop less to go",
     "OPTIONS http://ORIGIN HTTP/1.1\r\nHost: ORIGIN\r\nMax-Forwards: 1\r\n\r\n",
     "OPTIONS * HTTP/1.1\r\nHost: ORIGIN\r\nMax-Forwards: 0\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
    ("9110 7.6.2: more hops than we can count are many",
     "OPTIONS http://ORIGIN/n HTTP/1.1\r\nHost: ORIGIN\r\nMax-Forwards: 99999999999999999999999\r\n\r\n",
     "OPTIONS /n HTTP/1.1\r\nHost: ORIGIN\r\nMax-Forwards: 18446744073709551614\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
    ("9110 7.6.2: other methods keep their Max-Forwards",
     "GET http://ORIGIN/o HTTP/1.1\r\nHost: ORIGIN\r\nMax-Forwards: 0\r\n\r\n",
     "GET /o HTTP/1.1\r\nHost: ORIGIN\r\nMax-Forwards: 0\r\nVia: 1.1 tidegate-framing\r\n\r\n"),
];

#[test]
fn the_origin_receives_the_normal_form_and_nothing_else() {
    let (node, origin) = (Node::start(), Origin::start());
    for (why, says, receives) in FORWARDED {
        let fresh = origin.received().len();
        let mut client = node.client();
        client.say(origin.fill(says));
        assert_eq!(client.reply().text(), "ok", "{why}");
        let received = origin.received();
        // Each row goes to the pooled connection of the one before.
        let bytes = received.last().unwrap();
        assert!(received.len() <= fresh.max(1), "{why}: a new connection");
        let receives = origin.fill(receives);
        assert!(bytes.ends_with(&receives), "{why}\nwanted {receives:?}\n   got {bytes:?}");
    }
    let all: usize = FORWARDED.iter().map(|(_, _, receives)| origin.fill(receives).len()).sum();
    assert_eq!(origin.received().concat().len(), all, "no byte beside");
}

#[test]
fn a_user_agent_of_any_bytes_is_decided_upon_passed_on_and_recorded() {
    let document = format!(
        "{}[[request_types]]\nname = \"Bots\"\nheaders = [{{ name = \"User-Agent\", contains = [\"b\u{f6}t\"], \
         regex = ['^evil.*\\xff'] }}]\n",
        crate::node::POLICY
    )
    .replace(
        "[[access_profiles]]",
        "[[access_profiles]]\nname = \"No bots\"\nrequest_types = [\"Bots\"]\naction = \"DENY\"\n[[access_profiles]]",
    );
    let snapshot = crate::lone_core::snapshot(&document, 1);
    let (node, origin) = (Node::tuned(|config| config.snapshot = snapshot), Origin::start());
    let agents: [(&[u8], u16, &str); 6] = [
        (
            "Mozilla/5.0 (caf\u{e9}; \u{65e5}\u{672c}) \u{1f980}".as_bytes(),
            200,
            "Mozilla/5.0 (caf\u{e9}; \u{65e5}\u{672c}) \u{1f980}",
        ),
        (b"\xff\xfe\xc3", 200, "\\xff\\xfe\\xc3"),
        (b"a\"b\\c\td", 200, "a\\x22b\\\\c\\td"),
        ("a b\u{f6}t".as_bytes(), 403, "a b\u{f6}t"),
        (b"evil\x80\xff", 403, "evil\\x80\\xff"),
        (b"evil", 200, "evil"),
    ];
    for (number, (agent, status, _)) in agents.iter().enumerate() {
        let head = origin.get(&format!("/agent-{number}")).replace("\r\n\r\n", "\r\nUser-Agent: ");
        let mut client = node.client();
        client.say([head.as_bytes(), agent, b"\r\n\r\n"].concat());
        assert_eq!(client.reply().status, *status, "{}", agent.escape_ascii());
        let received = origin.received().concat();
        let line = format!("User-Agent: {}\r\n", String::from_utf8_lossy(agent));
        assert_eq!(received.contains(&format!("/agent-{number} ")), *status == 200);
        assert!(*status != 200 || received.contains(&line), "{received}");
    }
    for (record, (_, status, written)) in node.records().iter().zip(agents) {
        assert_eq!((record.status, record.useragent.as_str()), (status, written));
    }
}

#[test]
fn bodies_sent_in_small_pieces_arrive_as_they_would_in_one() {
    let (node, origin) = (Node::start(), Origin::start());
    let (_, says, receives) = FORWARDED[4];
    let says = origin.fill(says);
    let head = says.find("\r\n\r\n").unwrap() + 4;
    for size in [1, 2, 5] {
        let mut client = node.client();
        client.say(&says[..head]);
        for piece in says.as_bytes()[head..].chunks(size) {
            client.say(piece);
        }
        assert_eq!(client.reply().text(), "ok");
        assert!(origin.received().last().unwrap().ends_with(&origin.fill(receives)), "{:?}", origin.received());
    }
}

/// RFC section, method, what an origin says with too many bytes behind, status and body of what the client gets.
#[rustfmt::skip]
const SURPLUS: &[(&str, &str, &str, u16, &str)] = &[
    ("9112 6.3", "GET", "HTTP/1.1 204 No Content\r\n\r\nEVIL", 204, ""),
    ("9112 6.3", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nEVIL", 204, ""),
    ("9112 6.3", "GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", 204, ""),
    ("9112 6.3", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nEVIL", 304, ""),
    ("9112 6.3", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", 200, ""),
    ("9112 6.3", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nEVIL\r\n0\r\n\r\n", 200, ""),
    ("9112 6.3", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", 200, ""),
    ("9112 6.3", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodEVIL", 200, "good"),
    ("9112 6.3", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", 200, "good"),
    ("9112 9.2", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood\r\n", 200, "good"),
];

#[test]
fn bytes_behind_a_reply_are_nobodys() {
    let (node, origin) = (Node::start(), Origin::start());
    let mut client = node.client();
    for (number, (section, method, says, status, body)) in SURPLUS.iter().enumerate() {
        let head = says.find("\r\n\r\n").unwrap() + 4;
        let whole = head + body.len() + if says.contains("4\r\ngood") { "4\r\n\r\n0\r\n\r\n".len() } else { 0 };
        let row = format!("{section}: {method} {says:?}");
        // All at once, and the surplus once the connection rests in the pool.
        origin.on(&format!("/{number}/once"), [say(says)]);
        origin.on(&format!("/{number}/late"), [say(&says[..whole]), Act::Meet, say(&says[whole..]), Act::Meet]);
        for how in ["once", "late"] {
            client.say(origin.get(&format!("/{number}/{how}")).replacen("GET", method, 1));
            let reply = client.reply_to(method);
            assert_eq!((reply.status, reply.text().as_str(), reply.whole), (*status, *body, true), "{row} {how}");
            if how == "late" {
                origin.meet();
                origin.meet();
            }
            client.say(origin.get("/next"));
            let next = client.reply();
            assert_eq!((next.status, next.text().as_str()), (200, "ok"), "{row} {how}: {}", next.head);
        }
    }
    for bytes in origin.received() {
        let asked = bytes.lines().filter(|line| line.contains(" HTTP/1.1"));
        let behind: Vec<&str> = asked.skip_while(|line| !line.contains("/once") && !line.contains("/late")).collect();
        assert!(behind.len() < 2, "used again after bytes that were nobody's: {behind:?}");
    }
}

#[test]
fn replies_without_a_body_keep_both_connections_whatever_length_they_claim() {
    let (node, origin) = (Node::start(), Origin::start());
    let mut client = node.client();
    for (path, method, says, status, length) in [
        ("/a", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 400\r\n\r\n", 204, None),
        ("/b", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 400\r\n\r\n", 304, Some("400")),
        ("/c", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n", 200, Some("400")),
        ("/d", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
        (
            "/e",
            "HEAD",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 9223372036854775807\r\n\r\n",
            404,
            Some("9223372036854775807"),
        ),
        ("/f", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200, None),
    ] {
        origin.on(path, [say(says)]);
        client.say(origin.get(path).replacen("GET", method, 1));
        let reply = client.reply_to(method);
        assert_eq!((reply.status, reply.field("content-length")), (status, length), "{says:?}");
        assert_eq!((reply.field("transfer-encoding"), reply.field("connection")), (None, None), "{says:?}");
    }
    client.say(origin.get("/next"));
    assert_eq!(client.reply().text(), "ok");
    assert_eq!(origin.received().len(), 1, "all over one connection");
}

/// What an origin says before it closes, and whether it resets instead: part of a reply.
const CUT: &[(&str, bool)] = &[
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", true),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello", false),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0", false),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", false),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n", false),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true),
    ("HTTP/1.1 200 OK\r\n\r\nhello", true),
];

#[test]
fn a_reply_closed_early_is_never_taken_for_a_whole_one() {
    let (node, origin) = (Node::start(), Origin::start());
    for (number, (says, reset)) in CUT.iter().enumerate() {
        let path = format!("/{number}");
        let end = if *reset { Act::Reset } else { Act::Close };
        // A reset throws away what was not yet read: the client must have had it first.
        origin.on(&path, [say(says), Act::Meet, end]);
        for version in ["1.1", "1.0"] {
            let mut client = node.client();
            client.say(origin.fill(&format!("GET http://ORIGIN{path} HTTP/{version}\r\nHost: ORIGIN\r\n\r\n")));
            client.await_first_byte();
            origin.meet();
            let reply = client.reply();
            assert_eq!((reply.status, reply.whole), (200, false), "{says:?} to a client of {version}");
        }
    }
    for (says, error) in [
        ("", "connection_terminated"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "http_response_incomplete"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "http_response_incomplete"),
    ] {
        origin.on("/head", [say(says), Act::Close]);
        let mut client = node.client();
        client.say(origin.get("/head"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.error(), reply.whole), (502, Some(error), true), "{says:?}");
    }
}

#[test]
fn interim_replies_reach_who_knows_them() {
    let (node, origin) = (Node::start(), Origin::start());
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n";
    origin.on("/three", [say(format!("HTTP/1.1 102 Processing\r\n\r\n{hints}{hints}{last}"))]);
    origin.on("/apart", [say(hints), Act::Meet, say(&hints[..20]), Act::Meet, say(format!("{}{last}", &hints[20..]))]);
    origin.on("/endless", [say(hints.repeat(40) + last)]);
    let mut client = node.client();
    client.say(origin.get("/three"));
    let reply = client.reply();
    assert_eq!((reply.interims, reply.body), (vec![102, 103, 103], b"last".to_vec()));
    client.say(origin.get("/apart"));
    origin.meet();
    origin.meet();
    let reply = client.reply();
    assert_eq!((reply.interims, reply.body), (vec![103, 103], b"last".to_vec()));
    let mut old = node.client();
    old.say(origin.fill("GET http://ORIGIN/three HTTP/1.0\r\n\r\n"));
    let bytes = String::from_utf8(old.rest()).unwrap();
    assert!(bytes.starts_with("HTTP/1.1 200 OK\r\n") && bytes.ends_with("\r\n\r\nlast"), "{bytes}");
    client.say(origin.get("/endless"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.error()), (502, Some("http_protocol_error")));
    client.say(origin.get("/three"));
    assert_eq!(client.reply().text(), "last", "nothing of the endless ones is left");
}

#[test]
fn expectations_are_met_by_the_origin_or_not_at_all() {
    let (node, origin) = (Node::start(), Origin::start());
    let done = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
    origin.on("/waits", [Act::Early, say("HTTP/1.1 100 Continue\r\n\r\n"), Act::Take(4), say(done)]);
    origin.on("/never-says", [Act::Early, Act::Take(4), say(done)]);
    origin.on("/refuses", [Act::Early, say("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"), Act::Take(4)]);
    let ask = |path: &str, version: &str| {
        let fields = "Host: ORIGIN\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
        origin.fill(&format!("POST http://ORIGIN{path} HTTP/{version}\r\n{fields}"))
    };
    // The body follows only once the origin has asked for it.
    let mut client = node.client();
    client.say(ask("/waits", "1.1"));
    let interim = "HTTP/1.1 100 Continue\r\nVia: 1.1 tidegate-framing\r\n\r\n";
    assert_eq!(String::from_utf8(client.take(interim.len()).unwrap()).unwrap(), interim);
    client.say("body");
    assert_eq!(client.reply().text(), "done");
    // A client may stop waiting (RFC 9110 section 10.1.1), and an origin need not say 100.
    let mut client = node.client();
    client.say(ask("/never-says", "1.1") + "body");
    let reply = client.reply();
    assert_eq!((reply.text().as_str(), reply.interims.len()), ("done", 0));
    // A client of old gets no interim reply, even if the origin sends one.
    let mut old = node.client();
    old.say(ask("/waits", "1.0") + "body");
    let reply = old.reply();
    assert_eq!((reply.text().as_str(), reply.interims.len()), ("done", 0));
    // Refused before the body: nobody knows whether it still comes, so nothing more is read as a request.
    let mut client = node.client();
    client.say(ask("/refuses", "1.1"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str(), reply.field("connection")), (413, "no", Some("close")));
    client.say(origin.get("/smuggled"));
    assert!(client.is_at_end());
    assert!(!origin.received().concat().contains("smuggled"));
    let received = origin.received().concat();
    assert_eq!(
        received.matches("Expect: 100-continue\r\n").count(),
        3,
        "all but the old client's went on with their expectation"
    );
}

#[test]
fn a_reply_before_the_end_of_the_request_ends_both_connections() {
    let (node, origin) = (Node::start(), Origin::start());
    origin.on("/early", [Act::Early, say("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"), Act::Meet]);
    for framing in ["Content-Length: 100000000", "Transfer-Encoding: chunked"] {
        let mut client = node.client();
        let head = format!("POST http://ORIGIN/early HTTP/1.1\r\nHost: ORIGIN\r\n{framing}\r\n\r\n5\r\nhello\r\n");
        client.say(origin.fill(&head));
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str(), reply.field("connection")), (403, "no", Some("close")));
        // What comes now is still of the old body, whatever it looks like.
        client.say(origin.get("/smuggled"));
        assert!(client.is_at_end());
        origin.meet();
        assert_eq!(node_next(&node, &origin), "ok");
    }
    let received = origin.received();
    assert!(received.iter().all(|bytes| !bytes.contains("smuggled")), "{received:?}");
    let behind = received.iter().filter_map(|bytes| bytes.split_once("/early"));
    assert!(behind.clone().all(|(_, behind)| !behind.contains("/next")) && behind.count() == 2, "{received:?}");
}

fn node_next(node: &Node, origin: &Origin) -> String {
    let mut client = node.client();
    client.say(origin.get("/next"));
    client.reply().text()
}

#[test]
fn requests_sent_without_waiting_are_answered_in_their_order() {
    let (node, origin) = (Node::start(), Origin::start());
    let mut client = node.client();
    let (mut said, mut expected) = (String::new(), Vec::new());
    for number in 0..30 {
        let body = if number % 5 == 3 { String::new() } else { format!("{number:03}") };
        origin.on(&format!("/{number}"), [say(format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{body}"))]);
        let target = format!("http://ORIGIN/{number} HTTP/1.1\r\nHost: ORIGIN\r\n");
        said += &match number % 5 {
            0 => format!("GET {target}\r\n"),
            1 => format!("POST {target}Content-Length: 27\r\n\r\nGET /not-a-request HTTP/1.1"),
            2 => format!(
                "POST {target}Transfer-Encoding: chunked\r\n\r\n1b;x\r\nGET /not-a-request HTTP/1.1\r\n0\r\n\r\n"
            ),
            3 => format!("HEAD {target}\r\n"),
            _ => "GET http://forbidden.test/ HTTP/1.1\r\nHost: forbidden.test\r\n\r\n".to_string(),
        };
        expected.push(match number % 5 {
            3 => (200, String::new()),
            4 => (403, String::new()),
            _ => (200, format!("{number:03}")),
        });
    }
    client.say(origin.fill(&said));
    for (number, (status, body)) in expected.iter().enumerate() {
        let reply = client.reply_to(if number % 5 == 3 { "HEAD" } else { "GET" });
        assert_eq!(reply.status, *status, "{number}");
        assert!(*status == 403 || reply.text() == *body, "{number}: {}", reply.text());
    }
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn a_reply_is_not_lost_to_what_a_client_sent_behind_its_last_request() {
    let (node, origin) = (Node::start(), Origin::start());
    // The reply ends by close, so that no request after it can be answered.
    let long = say("x".repeat(300_000));
    origin.on("/closes", [say("HTTP/1.1 200 OK\r\n\r\n"), Act::Meet, long, Act::Close]);
    for _ in 0..5 {
        let mut client = node.client();
        client.say(origin.get("/closes"));
        // The proxy has no reason to read this one: it lies in the socket when the connection ends.
        client.await_first_byte();
        client.say(origin.get("/smuggled"));
        origin.meet();
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.len(), reply.whole), (200, 300_000, true), "no reset over unread bytes");
    }
    assert!(!origin.received().concat().contains("smuggled"));
}

#[test]
fn old_clients_are_answered_and_closed() {
    let (node, origin) = (Node::start(), Origin::start());
    origin.on(
        "/chunked",
        [say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n")],
    );
    for fields in
        ["", "Connection: keep-alive\r\n", "Connection: Keep-Alive\r\nHost: ORIGIN\r\nProxy-Connection: keep-alive\r\n"]
    {
        for (path, body) in [("/x", "ok"), ("/chunked", "abcde")] {
            let mut client = node.client();
            client.say(origin.fill(&format!("GET http://ORIGIN{path} HTTP/1.0\r\n{fields}\r\n")));
            let reply = client.reply();
            assert_eq!((reply.text().as_str(), reply.field("connection")), (body, Some("close")), "{fields:?}");
            assert_eq!((reply.field("keep-alive"), reply.field("transfer-encoding")), (None, None));
            assert!(client.is_at_end());
        }
    }
    assert_eq!(origin.received().len(), 1, "the way to the origin is kept all the same");
}

#[test]
fn trailers_of_a_reply_reach_who_knows_chunks() {
    let (node, origin) = (Node::start(), Origin::start());
    let says =
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
    origin.on("/trailers", [say(says)]);
    let mut client = node.client();
    client.say(origin.get("/trailers").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    let bytes = String::from_utf8(client.rest()).unwrap();
    assert!(bytes.contains("Trailer: X-Sum\r\n"), "{bytes}");
    assert!(bytes.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n"), "{bytes}");
}

#[test]
fn the_last_hop_answers_itself_and_reflects_no_secret() {
    let (node, origin) = (Node::start(), Origin::start());
    let mut client = node.client();
    let secrets = "Authorization: Basic c2VjcmV0\r\nCOOKIE: secret=1\r\nProxy-Authorization: Basic c2VjcmV0\r\n";
    client.say(origin.fill(&format!(
        "TRACE http://ORIGIN/x?y HTTP/1.1\r\nHost: ORIGIN\r\nX-Mine: 1\r\n{secrets}Max-Forwards: 0\r\n\r\n"
    )));
    let reply = client.reply();
    assert_eq!((reply.status, reply.field("content-type")), (200, Some("message/http")));
    let expected = "TRACE http://ORIGIN/x?y HTTP/1.1\r\nHost: ORIGIN\r\nX-Mine: 1\r\nMax-Forwards: 0\r\n\r\n";
    assert_eq!(reply.text(), origin.fill(expected));
    assert!(reply.field("proxy-status").unwrap().starts_with("tidegate-framing; details="));
    client.say(origin.fill("OPTIONS http://ORIGIN HTTP/1.1\r\nHost: ORIGIN\r\nMax-Forwards: 00\r\n\r\n"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert!(reply.field("allow").unwrap().contains("CONNECT"), "{}", reply.head);
    // Policy is asked first.
    client.say("TRACE http://forbidden.test/ HTTP/1.1\r\nHost: forbidden.test\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(client.reply().status, 403);
    assert!(origin.received().is_empty(), "{:?}", origin.received());
    client.say(origin.get("/next"));
    assert_eq!(client.reply().text(), "ok", "the connection is in step");
    let records = node.records();
    assert_eq!((records[0].cachecode.as_str(), records[0].ending.as_str()), ("TCP_INTERFACE", "--"));
    assert_eq!((records[1].status, records[2].cachecode.as_str(), records.len()), (200, "TCP_DENIED", 4));
}

#[test]
fn a_request_that_comes_back_is_told_so() {
    let (node, origin) = (Node::start(), Origin::start());
    let mut client = node.client();
    for (via, status) in [
        ("Via: 1.1 tidegate-framing\r\n", 508),
        ("Via: 1.1 other, 1.0 TIDEGATE-framing (somebody)\r\n", 508),
        ("Via: 1.1 other\r\nVIA: HTTP/1.1\ttidegate-framing\r\n", 508),
        ("Connection: Via\r\nVia: 1.1 tidegate-framing\r\n", 508),
        ("Via: 1.1 tidegate-framing-2, 1.1 x (tidegate-framing)\r\n", 200),
    ] {
        client.say(origin.fill(&format!("GET http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n{via}\r\n")));
        let reply = client.reply();
        assert_eq!(reply.status, status, "{via:?}");
        assert_eq!(reply.error(), (status == 508).then_some("proxy_loop_detected"), "{via:?}");
    }
    // A node that is its own origin's way out: the second time round it is refused.
    let itself = node.address;
    client.say(format!("GET http://{itself}/ HTTP/1.1\r\nHost: {itself}\r\n\r\n"));
    assert_eq!(client.reply().status, 400, "an origin's request to a proxy");
}

#[test]
fn every_answer_of_ours_says_who_and_why_to_machines() {
    let node = Node::tuned(|config| {
        config.timeouts.head = 300;
        config.timeouts.body = 300;
        config.timeouts.answer = 300;
        config.timeouts.linger = 100;
    });
    let origin = Origin::start();
    origin.on("/silent", [Act::Meet]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ask = |url: &str, fields: &str| {
        let host = url.split('/').nth(2).unwrap();
        origin.fill(&format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
    };
    for (request, status, error, details) in [
        (
            ask("http://forbidden.test/", ""),
            403,
            "http_request_denied",
            "forbidden \\\"things\\\" are forbidden: verboten f?r alle",
        ),
        (
            ask("http://ORIGIN/", "Connection: upgrade\r\nUpgrade: other\r\n"),
            403,
            "http_request_denied",
            "allow_upgrade",
        ),
        (ask(&format!("http://{closed}/"), ""), 502, "connection_refused", "refused"),
        (ask("http://[::1]:9/", ""), 403, "destination_ip_prohibited", "::1"),
        (ask("http://nobody.invalid/", ""), 502, "dns_error", "name"),
        (ask("http://ORIGIN/silent", ""), 504, "http_response_timeout", "did not answer in time"),
        (ask("https://ORIGIN/", ""), 501, "http_request_error", "CONNECT"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), 400, "http_request_error", "as to a web site"),
        ("GET http://x/ HT".to_string(), 408, "http_request_error", "waited"),
        (ask("http://ORIGIN/", "Content-Length: 5\r\n"), 408, "http_request_error", "waited"),
        (ask("http://ORIGIN/", "Content-Length: x\r\n"), 400, "http_request_error", "Content-Length is not a number"),
    ] {
        let mut client = node.client();
        client.say(&request);
        let reply = client.reply();
        let said = reply.field("proxy-status").unwrap_or_else(|| panic!("{request:?}: {}", reply.head));
        if error == "dns_error" {
            // Without name servers in reach the same request ends in dns_timeout.
            assert!(said.starts_with("tidegate-framing; error=dns_"), "{said}");
            continue;
        }
        assert_eq!(reply.status, status, "{request:?}: {}", reply.head);
        assert!(said.starts_with(&format!("tidegate-framing; error={error}; details=\"")), "{said}");
        assert!(said.contains(details) && said.ends_with('"') && said.is_ascii(), "{said}");
    }
    let node = Node::tuned(|config| config.connections_max = 0);
    let reply = node.client().reply();
    assert_eq!((reply.status, reply.error()), (503, Some("proxy_internal_error")));
}
