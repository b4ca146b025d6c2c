//! HTTP/1.1 as the data path reads and writes it: tables with the RFC's section, models, mutated bytes, and the same on real
//! sockets in front of an origin that keeps every byte it received.
mod bodies;
mod chunked;
mod corpus;
mod exchanges;
#[path = "../harness/lone_core.rs"]
#[allow(dead_code)] // other areas use the rest
mod lone_core;
mod models;
mod node;
mod readers;
mod refused;
mod tables;
mod upgrades;

use tables::*;
use tidegate::wire::http1::*;

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed().as_secs() < 20, "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// What a request was understood to be, in one readable line.
fn meaning(head: &RequestHead, buf: &[u8]) -> String {
    let mut url = String::new();
    head.write_url(buf, &mut url);
    let keep = if head.keep_alive() { "keep" } else { "close" };
    format!("{} {:?} {url} {:?} {keep}", head.method(buf), head.form(), head.framing())
}

fn request(bytes: &[u8]) -> Result<(Parsed, RequestHead), RequestError> {
    let mut head = RequestHead::new();
    parse_request(bytes, &mut head).map(|parsed| (parsed, head))
}

fn whole_request(bytes: &[u8]) -> RequestHead {
    let (parsed, head) = request(bytes).unwrap_or_else(|e| panic!("{e}: {}", bytes.escape_ascii()));
    assert!(matches!(parsed, Parsed::Complete(_)), "partial: {}", bytes.escape_ascii());
    head
}

#[test]
fn requests_that_can_be_read_in_one_way_are_read_so() {
    for (section, bytes, expected) in ACCEPTED {
        let head = whole_request(bytes.as_bytes());
        assert_eq!(meaning(&head, bytes.as_bytes()), *expected, "{section}: {}", bytes.escape_debug());
    }
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_refused() {
    let mut complaints = Vec::new();
    for (section, bytes, why, status) in REFUSED {
        let refused = request(bytes.as_bytes()).map(|(parsed, head)| (parsed, meaning(&head, bytes.as_bytes())));
        if refused != Err(*why) || why.status() != *status {
            complaints.push(format!("{section}: {bytes:?} was {refused:?}, not {why:?} ({status})"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_head_has_bounds_and_each_has_its_status() {
    let long_line = format!("GET http://a.test/{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(16 * 1024));
    let long_field = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many_fields = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "X: y\r\n".repeat(256));
    let just_enough = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{}\r\n", "X: y\r\n".repeat(255));
    let endless_line = "x".repeat(16 * 1024 + 2);
    for (bytes, expected) in [
        (&long_line, Err(RequestError::LineTooLong)),
        (&endless_line, Err(RequestError::LineTooLong)),
        (&long_field, Err(RequestError::HeadTooLarge)),
        (&many_fields, Err(RequestError::TooManyFields)),
        (&just_enough, Ok(())),
    ] {
        assert_eq!(request(bytes.as_bytes()).map(|_| ()), expected);
    }
    assert_eq!(RequestError::LineTooLong.status(), 414);
    assert_eq!(RequestError::HeadTooLarge.status(), 431);
    assert_eq!(RequestError::TooManyFields.status(), 431);
}

#[test]
fn what_stands_behind_a_head_is_not_of_it() {
    let bytes = b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\na\nbGET ";
    let (parsed, _) = request(bytes).unwrap();
    assert_eq!(parsed, Parsed::Complete(bytes.len() - "a\nbGET ".len()));
}

#[test]
fn a_client_that_waits_for_100_is_recognised_only_when_it_has_a_body() {
    let with = |version: &str, rest: &str| {
        let bytes = format!("POST http://a.test/ HTTP/{version}\r\nHost: a.test\r\nExpect: 100-Continue\r\n{rest}\r\n");
        whole_request(bytes.as_bytes()).expects_continue()
    };
    assert!(with("1.1", "Content-Length: 3\r\n"));
    assert!(with("1.1", "Transfer-Encoding: chunked\r\n"));
    assert!(!with("1.1", "Content-Length: 0\r\n"));
    assert!(!with("1.0", "Content-Length: 3\r\n"));
}

#[test]
fn an_upgrade_counts_only_when_connection_names_it() {
    let asked = |rest: &str| {
        let bytes = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{rest}\r\n");
        let head = whole_request(bytes.as_bytes());
        let protocols: Vec<String> = head.upgrades(bytes.as_bytes()).map(str::to_owned).collect();
        assert_eq!(head.wants_upgrade(), !protocols.is_empty());
        protocols
    };
    assert_eq!(asked("Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"), ["websocket"]);
    assert_eq!(asked("Connection: upgrade\r\nUpgrade: h2c, websocket\r\n"), ["websocket"]);
    // HTTP/2 in a tunnel that policy opened for a WebSocket would carry requests nobody decided about.
    assert!(asked("Connection: upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AA\r\n").is_empty());
    assert!(asked("Upgrade: websocket\r\n").is_empty());
    assert!(asked("Connection: upgrade\r\n").is_empty());
}

#[test]
fn a_request_that_was_here_before_is_recognised_by_our_name_in_via() {
    let circle = |via: &str| {
        let bytes = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{via}\r\n");
        whole_request(bytes.as_bytes()).went_in_a_circle(bytes.as_bytes(), "tide-1")
    };
    assert!(circle("Via: 1.1 tide-1\r\n"));
    assert!(circle("Via: 1.0 fred, HTTP/1.1 TIDE-1 (Tidegate)\r\n"));
    assert!(circle("Via: 1.1 other\r\nVia: 1.1\ttide-1\r\n"));
    assert!(!circle("Via: 1.1 tide-11, 1.1 other (tide-1)\r\n"));
    assert!(!circle(""));
}

fn reply(bytes: &[u8], to: ReplyTo) -> Result<(Parsed, ReplyHead), ReplyError> {
    let mut head = ReplyHead::new();
    parse_reply(bytes, to, &mut head).map(|parsed| (parsed, head))
}

#[test]
fn replies_end_where_the_rfc_says() {
    for (section, to, bytes, status, framing, keeps) in REPLIES {
        let (_, head) = reply(bytes.as_bytes(), *to).unwrap_or_else(|e| panic!("{section}: {e}: {bytes:?}"));
        assert_eq!(
            (head.status(), head.framing(), head.keep_alive()),
            (*status, *framing, *keeps),
            "{section}: {bytes:?}"
        );
    }
}

#[test]
fn replies_that_could_poison_the_next_one_are_refused() {
    for (section, bytes, why) in REFUSED_REPLIES {
        let refused = reply(bytes.as_bytes(), ReplyTo::Other).map(|(_, head)| head.status());
        assert_eq!(refused, Err(*why), "{section}: {bytes:?}");
    }
}

/// Why, what came, how it goes on, what is written.
fn forwarded_requests() -> Vec<(&'static str, &'static str, ForwardRequest<'static>, &'static str)> {
    let plain = ForwardRequest { via: "tide-1", ..ForwardRequest::default() };
    vec![
        (
            "9112 3.2.2: absolute form becomes origin form, Host comes first",
            "GET http://A.test/x?y HTTP/1.1\r\nAccept: */*\r\nhost: a.test\r\nUser-Agent: t \r\n\r\n",
            plain,
            "GET /x?y HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nUser-Agent: t\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9112 3.2.1: an empty path is sent as /, a lone query keeps its meaning",
            "GET http://a.test:81?q HTTP/1.1\r\nHost: a.test:81\r\n\r\n",
            plain,
            "GET /?q HTTP/1.1\r\nHost: a.test:81\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9112 3.2.4: OPTIONS without a path asks about the whole server",
            "OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 3\r\n\r\n",
            plain,
            "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 2\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9110 7.6.1: what was meant for this hop goes no further",
            "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Theirs: 2\r\n\
             Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nTE: gzip\r\n\r\n",
            plain,
            "GET / HTTP/1.1\r\nHost: a.test\r\nX-Theirs: 2\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9110 7.6.1: Connection cannot take away what the message needs",
            "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: Host, Content-Length, Via, Cache-Control\r\n\
             Content-Length: 03\r\nVia: 1.0 before\r\nCache-Control: no-store\r\n\r\n",
            plain,
            "POST / HTTP/1.1\r\nHost: a.test\r\nVia: 1.0 before\r\nCache-Control: no-store\r\nContent-Length: 3\r\n\
             Via: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9110 10.1.4: trailers are asked for hop by hop",
            "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTE: deflate, trailers\r\nConnection: TE\r\n\r\n",
            plain,
            "GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9110 7.8: an upgrade goes on only where policy allows it, and h2c never",
            "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUpgrade: h2c,websocket\r\nConnection: Upgrade\r\n\r\n",
            ForwardRequest { keep_upgrade: true, ..plain },
            "GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9112 7.1 and 9.6: chunked stays chunked, and we may ask to close",
            "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
            ForwardRequest { close: true, ..plain },
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9110 10.1.1: the expectation goes on unless we meet it ourselves",
            "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
            ForwardRequest { drop_expect: true, ..plain },
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
        (
            "9112 3.2.2: a parent proxy gets the absolute form, and our own version",
            "GET http://[::1]:81 HTTP/1.0\r\n\r\n",
            ForwardRequest { to: ForwardTo::Parent, ..plain },
            "GET http://[::1]:81/ HTTP/1.1\r\nHost: [::1]:81\r\nVia: 1.0 tide-1\r\n\r\n",
        ),
        (
            "9112 3.2.3: a parent proxy gets CONNECT as it was",
            "CONNECT A.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
            ForwardRequest { to: ForwardTo::Parent, ..plain },
            "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nVia: 1.1 tide-1\r\n\r\n",
        ),
    ]
}

#[test]
fn a_request_goes_on_normalised() {
    for (why, bytes, how, expected) in forwarded_requests() {
        let head = whole_request(bytes.as_bytes());
        let mut out = Vec::new();
        forward_request(&head, bytes.as_bytes(), &how, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{why}");
    }
}

#[test]
fn a_reply_goes_on_normalised() {
    let plain = ForwardReply { via: "tide-1", date: Some("NOW"), ..ForwardReply::default() };
    for (why, bytes, how, expected, close, dechunk) in [
        (
            "framing is written anew, this hop's fields are gone, a missing date is added",
            "HTTP/1.1 200 Fine\r\nContent-Length: 05\r\nConnection: X-Mine, close\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nA: b\r\n\
             Proxy-Authenticate: Basic\r\n\r\n",
            plain,
            "HTTP/1.1 200 Fine\r\nA: b\r\nDate: NOW\r\nContent-Length: 5\r\nVia: 1.1 tide-1\r\n\r\n",
            false,
            false,
        ),
        (
            "9112 6.3: a body that ends with the connection ends the client's too",
            "HTTP/1.0 200 OK\r\nDate: then\r\n\r\n",
            plain,
            "HTTP/1.1 200 OK\r\nDate: then\r\nConnection: close\r\nVia: 1.0 tide-1\r\n\r\n",
            true,
            false,
        ),
        (
            "9112 7.1: an HTTP/1.0 client does not know chunks",
            "HTTP/1.1 200 OK\r\nDate: then\r\nTransfer-Encoding: chunked\r\n\r\n",
            ForwardReply { client: Version::Http10, ..plain },
            "HTTP/1.1 200 OK\r\nDate: then\r\nConnection: close\r\nVia: 1.1 tide-1\r\n\r\n",
            true,
            true,
        ),
        (
            "9110 8.6: 304 keeps the length it speaks of, 204 has none",
            "HTTP/1.1 304 Not Modified\r\nDate: then\r\nContent-Length: 5\r\n\r\n",
            plain,
            "HTTP/1.1 304 Not Modified\r\nDate: then\r\nContent-Length: 5\r\nVia: 1.1 tide-1\r\n\r\n",
            false,
            false,
        ),
        (
            "9110 8.6: 204 has no length",
            "HTTP/1.1 204 \r\nDate: then\r\nContent-Length: 5\r\n\r\n",
            plain,
            "HTTP/1.1 204 \r\nDate: then\r\nVia: 1.1 tide-1\r\n\r\n",
            false,
            false,
        ),
        (
            "9110 15.2: an interim reply neither ends the connection nor carries a date",
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
            ForwardReply { close: true, ..plain },
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nVia: 1.1 tide-1\r\n\r\n",
            false,
            false,
        ),
        (
            "9110 7.8: 101 carries its Upgrade",
            "HTTP/1.1 101 Go\r\nDate: then\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            ForwardReply { keep_upgrade: true, ..plain },
            "HTTP/1.1 101 Go\r\nDate: then\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nVia: 1.1 tide-1\r\n\r\n",
            false,
            false,
        ),
    ] {
        let (_, head) = reply(bytes.as_bytes(), ReplyTo::Other).unwrap();
        let mut out = Vec::new();
        let plan = forward_reply(&head, bytes.as_bytes(), &how, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{why}");
        assert_eq!(plan, ReplyPlan { close, dechunk }, "{why}");
    }
}

#[test]
fn our_own_answers_cannot_be_split_by_what_a_client_wrote() {
    let mut out = Vec::new();
    let answer = Answer {
        status: 403,
        date: Some("NOW"),
        content_type: Some("text/html"),
        content_length: 9,
        close: true,
        proxy_status: Some("tidegate; error=http_request_denied"),
        fields: &[("X-Host", "evil\r\nSet-Cookie: x")],
    };
    write_answer(&answer, &mut out);
    let expected = "HTTP/1.1 403 Forbidden\r\nDate: NOW\r\nContent-Type: text/html\r\n\
                    Proxy-Status: tidegate; error=http_request_denied\r\nX-Host: evil  Set-Cookie: x\r\n\
                    Content-Length: 9\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn dates_are_written_as_the_rfc_has_them() {
    for (seconds, text) in [
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (-1, "Thu, 01 Jan 1970 00:00:00 GMT"),
    ] {
        assert_eq!(http_date(seconds, &mut [0; 29]), text);
    }
}

#[test]
fn the_page_for_administrators_has_every_reason_with_its_status() {
    let page = include_str!("../../docs/http.md");
    for (_, _, why, status) in REFUSED {
        assert!(page.contains(&format!("| {status} | {why} |")), "docs/http.md lacks: {status}, {why}");
    }
    for (_, _, why) in REFUSED_REPLIES {
        assert!(page.contains(&format!("| {why} |")), "docs/http.md lacks: {why}");
    }
}
