//! A data core as clients and origins see it: real sockets on loopback, a real policy, a real log.

#[path = "harness/lone_core.rs"]
mod lone_core;

use lone_core::LoneCore;
use lone_core::snapshot;
use std::collections::HashMap;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;
use tidegate::policy::Snapshot;
use tidegate::proxy::CoreConfig;
use tidegate::proxy::CoreHandle;
use tidegate::proxy::Timeouts;
use tidegate::record::Record;
use tidegate::sys::sockets;

const POLICY: &str = r#"
access_profiles_default = "allow"
[access_restriction]
default = "allow"
[network]
allow_destinations = ["127.0.0.1/32"]
allow_upgrade = ["echo"]
connect_ports = ["1-65535"]
[[categories]]
name = "Forbidden"
hosts = ["forbidden.test"]
[[access_profiles]]
name = "No forbidden things"
categories = ["Forbidden"]
action = "DENY"
reason = "forbidden things are forbidden"
"#;

/// A running core with its log.
struct Node {
    core: LoneCore,
    proxy: SocketAddr,
}

impl Node {
    fn start(tune: impl FnOnce(&mut CoreConfig)) -> Node {
        let core = LoneCore::start("test-node", POLICY, |config| {
            config.timeouts = Timeouts { head: 5_000, linger: 500, ..Timeouts::default() };
            tune(config);
        });
        Node { proxy: core.address, core }
    }

    fn core(&self) -> &CoreHandle {
        self.core.handle()
    }

    fn client(&self) -> Client {
        Client::new(self.proxy)
    }

    fn swap(&self, to: Arc<Snapshot>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            self.core().prepare(to).await.unwrap();
            self.core().commit().await.unwrap();
        });
    }

    /// Drains the core, ends the log and reads what it says.
    fn records(self) -> Vec<Record> {
        self.records_within(Duration::from_secs(10))
    }

    fn records_within(self, within: Duration) -> Vec<Record> {
        self.core.records(within)
    }
}

/// A client that speaks HTTP/1.1 byte by byte.
struct Client {
    stream: TcpStream,
    behind: Vec<u8>,
}

#[derive(Debug, Default)]
struct Response {
    status: u16,
    fields: HashMap<String, String>,
    body: Vec<u8>,
    /// The body came to the end its framing promised.
    whole: bool,
    interims: Vec<u16>,
}

impl Response {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    fn new(proxy: SocketAddr) -> Client {
        let stream = TcpStream::connect(proxy).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, behind: Vec::new() }
    }

    fn say(&mut self, text: &str) -> &mut Client {
        self.stream.write_all(text.as_bytes()).unwrap();
        self
    }

    fn get(&mut self, url: &str) -> Response {
        self.request("GET", url, "", b"")
    }

    fn request(&mut self, method: &str, url: &str, fields: &str, body: &[u8]) -> Response {
        let host = url.strip_prefix("http://").unwrap_or(url).split('/').next().unwrap().to_string();
        let mut bytes = format!("{method} {url} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes).unwrap();
        self.response(method == "HEAD")
    }

    fn more(&mut self) -> bool {
        let mut buf = [0; 65536];
        match self.stream.read(&mut buf) {
            Ok(0) => false,
            Ok(count) => {
                self.behind.extend_from_slice(&buf[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("reading an answer: {error}"),
        }
    }

    fn closed(&mut self) -> bool {
        !self.more() && self.behind.is_empty()
    }

    fn response(&mut self, head_only: bool) -> Response {
        let mut interims = Vec::new();
        loop {
            let Some(mut response) = self.head() else { return Response { interims, ..Response::default() } };
            if (100..200).contains(&response.status) && response.status != 101 {
                interims.push(response.status);
                continue;
            }
            response.interims = interims;
            let bodyless = head_only || matches!(response.status, 101 | 204 | 304);
            if bodyless {
                response.whole = true;
            } else {
                self.body(&mut response);
            }
            return response;
        }
    }

    fn head(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = self.behind.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more() {
                return None;
            }
        };
        let head = String::from_utf8(self.behind.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap()[9..12].parse().unwrap();
        let fields = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_ascii_lowercase(), v.to_string()));
        Some(Response { status, fields: fields.collect(), ..Response::default() })
    }

    fn body(&mut self, response: &mut Response) {
        if response.fields.get("transfer-encoding").is_some_and(|v| v == "chunked") {
            return self.chunked(response);
        }
        match response.fields.get("content-length").map(|v| v.parse::<usize>().unwrap()) {
            Some(length) => {
                while self.behind.len() < length && self.more() {}
                response.whole = self.behind.len() >= length;
                let length = length.min(self.behind.len());
                response.body = self.behind.drain(..length).collect();
            }
            None => {
                // Only a proper end makes it whole; a reset does not.
                let mut buf = [0; 65536];
                response.whole = loop {
                    match self.stream.read(&mut buf) {
                        Ok(0) => break true,
                        Ok(count) => self.behind.extend_from_slice(&buf[..count]),
                        Err(_) => break false,
                    }
                };
                response.body = std::mem::take(&mut self.behind);
            }
        }
    }

    fn chunked(&mut self, response: &mut Response) {
        loop {
            let Some(line_end) = self.until(b"\r\n") else { return };
            let line: Vec<u8> = self.behind.drain(..line_end).collect();
            let size = std::str::from_utf8(&line[..line.len() - 2]).unwrap().split(';').next().unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            while self.behind.len() < size + 2 && self.more() {}
            if self.behind.len() < size + 2 {
                return;
            }
            response.body.extend_from_slice(&self.behind[..size]);
            self.behind.drain(..size + 2);
            if size == 0 {
                response.whole = true;
                return;
            }
        }
    }

    fn until(&mut self, what: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.behind.windows(what.len()).position(|w| w == what) {
                return Some(at + what.len());
            }
            if !self.more() {
                return None;
            }
        }
    }
}

/// What an origin has seen: connection number, head and body of each request.
type Seen = Arc<Mutex<Vec<(usize, String, Vec<u8>)>>>;

/// An origin that does as the path says.
struct Origin {
    address: SocketAddr,
    seen: Seen,
}

impl Origin {
    fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen::default();
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let seen = Arc::clone(&shared);
                std::thread::spawn(move || origin_connection(stream.unwrap(), number, &seen));
            }
        });
        Origin { address, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connections(&self) -> usize {
        let mut numbers: Vec<usize> = self.seen.lock().unwrap().iter().map(|(number, ..)| *number).collect();
        numbers.dedup();
        numbers.len()
    }
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2654435761) >> 13) as u8).collect()
}

fn origin_connection(stream: TcpStream, number: usize, seen: &Seen) {
    let mut client = Client { stream, behind: Vec::new() };
    while let Some(end) = client.until(b"\r\n\r\n") {
        let head = String::from_utf8(client.behind.drain(..end).collect()).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_string();
        let mut parts = path.split('/').skip(1);
        let what = parts.next().unwrap_or("").to_string();
        let size: usize = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        if what == "early" {
            seen.lock().unwrap().push((number, head, Vec::new()));
            let _ = client.stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!");
            std::thread::sleep(Duration::from_millis(50));
            return;
        }
        if head.to_ascii_lowercase().contains("expect: 100-continue") {
            if what == "reject" {
                seen.lock().unwrap().push((number, head, Vec::new()));
                let _ = client.stream.write_all(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            let _ = client.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let mut request = Response::default();
        for line in head.split("\r\n").skip(1) {
            if let Some((name, value)) = line.split_once(": ") {
                request.fields.insert(name.to_ascii_lowercase(), value.to_string());
            }
        }
        if request.fields.contains_key("content-length") || request.fields.contains_key("transfer-encoding") {
            client.body(&mut request);
            if !request.whole {
                return;
            }
        }
        let is_head = head.starts_with("HEAD");
        seen.lock().unwrap().push((number, head.clone(), request.body.clone()));
        let out = &mut client.stream;
        let sent = match what.as_str() {
            "length" => {
                let mut bytes =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: text/x-test; a=b\r\nContent-Length: {size}\r\n\r\n")
                        .into_bytes();
                if !is_head {
                    bytes.extend_from_slice(&pattern(size));
                }
                out.write_all(&bytes)
            }
            "chunked" => {
                let _ = out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for piece in pattern(size).chunks(7000) {
                    let _ = out.write_all(format!("{:x};x=y\r\n", piece.len()).as_bytes());
                    let _ = out.write_all(piece);
                    let _ = out.write_all(b"\r\n");
                }
                out.write_all(b"0\r\n\r\n")
            }
            "close" => {
                let _ = out.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                let _ = out.write_all(&pattern(size));
                return;
            }
            "echo" => {
                let _ = out
                    .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len()).as_bytes());
                out.write_all(&request.body)
            }
            "204" => out.write_all(b"HTTP/1.1 204 No Content\r\n\r\n"),
            "304" => out.write_all(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n"),
            "cutlength" => {
                let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
                return;
            }
            "cutchunked" => {
                let _ = out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
                return;
            }
            "cutclose" => {
                let _ = out.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello");
                std::thread::sleep(Duration::from_millis(100));
                let _ = sockets::reset_on_close(&*out);
                return;
            }
            "nothing" => return,
            "garbage" => out.write_all(b"220 smtp ready\r\n\r\n"),
            "silent" => {
                std::thread::sleep(Duration::from_secs(30));
                return;
            }
            "stall" => {
                let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
                std::thread::sleep(Duration::from_secs(30));
                return;
            }
            "hints" => out.write_all(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ),
            "surplus" => out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nevil"),
            "once" => {
                // Says nothing of closing, and closes.
                let _ = out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                return;
            }
            "upgrade" => {
                let _ = out.write_all(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwelcome");
                echo(client);
                return;
            }
            _ => out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn echo(mut client: Client) {
    let early = std::mem::take(&mut client.behind);
    let _ = client.stream.write_all(&early);
    let mut buf = [0; 65536];
    while let Ok(count) = client.stream.read(&mut buf) {
        if count == 0 || client.stream.write_all(&buf[..count]).is_err() {
            break;
        }
    }
    let _ = client.stream.shutdown(Shutdown::Write);
}

/// A server for tunnels: sends back all it got once the client has ended its side.
fn tunnel_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut got = Vec::new();
                if stream.read_to_end(&mut got).is_ok() {
                    let _ = stream.write_all(&got);
                }
            });
        }
    });
    address
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn answers_of_every_framing_arrive_as_they_left_on_one_connection() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let mut client = node.client();
    let sizes = [0, 1, 1024, 16 * 1024, 100_000, 3_000_000];
    for framing in ["length", "chunked"] {
        for size in sizes {
            let response = client.get(&origin.url(&format!("/{framing}/{size}")));
            assert_eq!(response.status, 200, "{framing} {size}");
            assert!(response.whole && response.body == pattern(size), "{framing} {size}");
            assert!(response.fields["via"].contains("tidegate-test-node"), "{:?}", response.fields);
            assert!(response.fields.contains_key("date"));
        }
    }
    for (method, path, status, length) in
        [("HEAD", "/length/500", 200, Some("500")), ("GET", "/204", 204, None), ("GET", "/304", 304, Some("77"))]
    {
        let response = client.request(method, &origin.url(path), "", b"");
        let said = response.fields.get("content-length").map(String::as_str);
        assert_eq!((response.status, said), (status, length), "{path}");
    }
    assert_eq!(client.get(&origin.url("/length/3")).body, pattern(3), "the connection is still in step");
    assert_eq!(origin.connections(), 1, "all went over one connection to the origin");
    let response = client.get(&origin.url("/close/70000"));
    assert!(response.whole && response.body == pattern(70_000));
    assert!(client.closed(), "an answer that ends by close closes");
    let records = node.records();
    assert_eq!(records.len(), 17);
    assert!(records.iter().all(|r| r.ending == "--" && r.cachecode == "TCP_MISS" && r.peercode == "DIRECT"));
    let down: Vec<u64> = records[..6].iter().map(|r| r.download).collect();
    assert_eq!(down, sizes.map(|s| s as u64));
    assert_eq!(records[7].download, 1, "payload is counted, not its chunk lines");
    assert_eq!((records[1].mime.as_str(), records[1].client_id), ("text/x-test", records[16].client_id));
    assert_eq!(records[16].request_id, 17);
    assert!(records[0].connect_us > 0 && records[1].connect_us == 0);
    assert!(records.iter().all(|r| r.snapshot.starts_with("1-") && !r.rule.is_empty()));
}

#[test]
fn requests_of_every_framing_arrive_as_they_left() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let mut client = node.client();
    for size in [0, 1, 1000, 40_000, 2_000_000] {
        let body = pattern(size);
        let fields = format!("Content-Length: {size}\r\n");
        let response = client.request("POST", &origin.url("/echo"), &fields, &body);
        assert!(response.status == 200 && response.body == body, "length {size}: {}", response.status);
        let mut chunked = Vec::new();
        for piece in body.chunks(5000) {
            chunked.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let response = client.request("POST", &origin.url("/echo"), "Transfer-Encoding: chunked\r\n", &chunked);
        assert!(response.status == 200 && response.body == body, "chunked {size}: {}", response.status);
    }
    // A second request sent along with the first's body is the next one.
    let url = origin.url("/echo");
    let host = origin.address;
    client.say(&format!(
        "POST {url} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabcGET {} HTTP/1.1\r\nHost: {host}\r\n\r\n",
        origin.url("/length/5")
    ));
    assert_eq!(client.response(false).text(), "abc");
    assert_eq!(client.response(false).body, pattern(5));
    // A client of old gets the payload alone, and a close.
    let mut old = node.client();
    old.say(&format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/chunked/50000")));
    let response = old.response(false);
    assert!(response.whole && response.body == pattern(50_000) && !response.fields.contains_key("transfer-encoding"));
    let records = node.records();
    assert_eq!(records.len(), 13);
    assert_eq!(records[8].upload, 2_000_000);
    assert_eq!(records[9].upload, 2_000_000, "payload is counted, not its chunk lines");
}

#[test]
fn expectations_and_early_answers_go_through() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let host = origin.address;
    let mut client = node.client();
    let expect = |path: &str| {
        format!(
            "POST {} HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            origin.url(path)
        )
    };
    client.say(&expect("/echo"));
    assert_eq!(client.head().unwrap().status, 100, "the body is not sent before");
    client.say("body");
    assert_eq!(client.response(false).text(), "body");
    client.say(&expect("/reject"));
    let response = client.response(false);
    assert_eq!((response.status, response.interims.len()), (417, 0));
    assert_eq!(response.fields["connection"], "close", "nobody knows whether the body still comes");
    let mut client = node.client();
    let response = client.get(&origin.url("/hints"));
    assert_eq!((response.interims, response.body), (vec![103], b"ok".to_vec()));
    // The origin answers before the body is there.
    client.say(&format!("POST {} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 50000000\r\n\r\n", origin.url("/early")));
    let mut sending = client.stream.try_clone().unwrap();
    let feeder = std::thread::spawn(move || while sending.write_all(&[0; 65536]).is_ok() {});
    let response = client.response(false);
    assert_eq!((response.status, response.text().as_str()), (413, "no!"));
    feeder.join().unwrap();
    let records = node.records();
    assert_eq!(records.iter().map(|r| r.status).collect::<Vec<_>>(), [200, 417, 200, 413]);
}

#[test]
fn a_cut_answer_never_looks_whole() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    for path in ["/cutlength", "/cutchunked", "/cutclose"] {
        let response = node.client().get(&origin.url(path));
        assert_eq!(response.status, 200, "{path}");
        assert!(!response.whole, "{path}");
    }
    for (path, status) in [("/nothing", 502), ("/garbage", 502)] {
        let response = node.client().get(&origin.url(path));
        assert_eq!(response.status, status, "{path}");
        assert!(response.fields["proxy-status"].contains("error="), "{:?}", response.fields);
        assert!(response.text().contains("Reference"), "{}", response.text());
    }
    let endings: Vec<String> = node.records().into_iter().map(|r| format!("{} {}", r.ending, r.cachecode)).collect();
    let cut = "SD TCP_ABORTED";
    assert_eq!(endings, [cut, cut, cut, "SH TCP_ABORTED", "SH TCP_INVALID_RESPONSE"]);
}

#[test]
fn an_idle_connection_that_died_is_replaced_for_who_may_be_sent_twice() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let mut client = node.client();
    for _ in 0..20 {
        assert_eq!(client.get(&origin.url("/once")).text(), "ok");
    }
    // What came behind an answer is not the next one's.
    assert_eq!(client.get(&origin.url("/surplus")).text(), "ok");
    assert_eq!(client.get(&origin.url("/length/2")).body, pattern(2));
    assert!(node.records().iter().all(|r| r.ending == "--"));
}

#[test]
fn denials_carry_their_page_and_their_rule() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let mut client = node.client();
    let response = client.get("http://forbidden.test/x?y=<z>");
    assert_eq!(response.status, 403);
    let page = response.text();
    assert!(page.contains("forbidden things are forbidden") && page.contains("No forbidden things"), "{page}");
    // With a body on its way the same, and the connection goes on where the body was read.
    assert_eq!(client.request("POST", "http://forbidden.test/", "Content-Length: 3\r\n", b"abc").status, 403);
    assert_eq!(client.request("HEAD", "http://forbidden.test/", "", b"").status, 403);
    assert_eq!(client.get(&origin.url("/length/1")).status, 200, "the connection goes on");
    client.say("CONNECT forbidden.test:443 HTTP/1.1\r\nHost: forbidden.test:443\r\n\r\n");
    assert_eq!(client.response(false).status, 403);
    let records = node.records();
    assert_eq!(records.len(), 5);
    assert_eq!((records[0].cachecode.as_str(), records[0].ending.as_str()), ("TCP_DENIED", "PR"));
    assert_eq!(records[0].filter_name, "Access Profiles");
    assert_eq!(records[0].filtering_reason, "forbidden things are forbidden");
    assert_eq!(records[0].categories, "Forbidden");
    assert!(records[0].rule.contains("No forbidden things"));
    assert!(records[3].filter_name.is_empty());
    assert!(page.contains(&records[0].record_id), "the reference code finds the record");
}

#[test]
fn destinations_of_this_host_are_refused_unless_allowed() {
    let node = Node::start(|config| config.own_addresses = vec!["192.0.2.9".parse().unwrap()]);
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let hosts = ["127.0.0.2", "[::1]", "[::ffff:127.0.0.2]", "0.0.0.0", "169.254.169.254", "192.0.2.9", "[fe80::1]"];
    let mut client = node.client();
    for host in hosts {
        let response = client.get(&format!("http://{host}:{port}/"));
        assert_eq!(response.status, 403, "{host}");
        assert!(response.fields["proxy-status"].contains("destination_ip_prohibited"));
        client.say(&format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"));
        assert_eq!(client.response(false).status, 403, "CONNECT {host}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nothing was dialled");
    let records = node.records();
    assert!(records.iter().all(|r| r.filter_name == "destination" && r.cachecode == "TCP_DENIED"));
    assert_eq!(records.len(), hosts.len() * 2);
}

#[test]
fn errors_say_what_and_whose() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let table = [
        (format!("GET http://{closed}/ HTTP/1.1\r\nHost: {closed}\r\n\r\n"), 502, "SC", "TCP_CONNECTION_FAILED"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), 400, "CR", "NONE"),
        ("GET https://x/ HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), 501, "CR", "NONE"),
        ("GET  http://x/ HTTP/1.1\r\n\r\n".to_string(), 400, "CR", "NONE"),
        ("nonsense\r\n\r\n".to_string(), 400, "CR", "NONE"),
        (
            format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nVia: 1.1 tidegate-test-node\r\n\r\n",
                origin.url("/204"),
                origin.address
            ),
            508,
            "LR",
            "NONE",
        ),
    ];
    for (request, status, ..) in &table {
        let mut client = node.client();
        client.say(request);
        let response = client.response(false);
        assert_eq!(response.status, *status, "{request}");
        assert!(response.whole && response.text().contains("<h1>"), "{request}");
    }
    let records = node.records();
    for ((request, status, ending, code), record) in table.iter().zip(&records) {
        assert_eq!(
            (record.status, record.ending.as_str(), record.cachecode.as_str()),
            (*status, *ending, *code),
            "{request}"
        );
    }
    assert_eq!(records.len(), table.len());
}

#[test]
fn tunnels_carry_both_ways_and_end_half_by_half() {
    let node = Node::start(|_| ());
    let server = tunnel_server();
    let mut client = node.client();
    // The first bytes come right behind the request.
    client.say(&format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\nfirst "));
    assert_eq!(client.head().unwrap().status, 200);
    let big = pattern(5_000_000);
    client.stream.write_all(&big).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut got = std::mem::take(&mut client.behind);
    client.stream.read_to_end(&mut got).unwrap();
    assert!(got[..6] == *b"first " && got[6..] == big);
    until("the tunnel is gone", || node.core().totals().tunnels_open == 0);
    let record = &node.records()[0];
    assert_eq!((record.cachecode.as_str(), record.ending.as_str(), record.status), ("TCP_TUNNEL", "--", 200));
    assert_eq!((record.upload, record.download), (5_000_006, 5_000_006));
    assert_eq!((record.method.as_str(), record.url.as_str()), ("CONNECT", server.to_string().as_str()));
}

#[test]
fn an_upgrade_goes_through_where_allowed_and_is_refused_elsewhere() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let mut client = node.client();
    let ask = |protocol: &str| {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n",
            origin.url("/upgrade"),
            origin.address
        )
    };
    client.say(&ask("websocket"));
    let refused = client.response(false);
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("websocket"), "{}", refused.text());
    client.say(&ask("echo"));
    let response = client.response(true);
    assert_eq!((response.status, response.fields["upgrade"].as_str()), (101, "echo"));
    client.say("ping");
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut got = std::mem::take(&mut client.behind);
    client.stream.read_to_end(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), "welcomeping");
    let records = node.records();
    assert_eq!(records[0].cachecode, "TCP_DENIED_WEBSOCKET");
    assert_eq!((records[1].cachecode.as_str(), records[1].upload, records[1].download), ("TCP_WEBSOCKET", 4, 11));
}

#[test]
fn a_master_refuses_everything_and_says_why() {
    let words = "This node is the master of the cluster: it carries no client traffic.";
    let node = Node::start(|config| config.refuse_as_master = Some(words.to_string()));
    for request in
        ["GET http://x.test/ HTTP/1.1\r\nHost: x.test\r\n\r\n", "CONNECT x.test:443 HTTP/1.1\r\nHost: x.test\r\n\r\n"]
    {
        let mut client = node.client();
        client.say(request);
        let response = client.response(false);
        assert_eq!(response.status, 403);
        assert!(response.text().contains(words), "{}", response.text());
        assert!(response.fields.contains_key("proxy-status"));
    }
    let records = node.records();
    assert!(records.iter().all(|r| r.cachecode == "TCP_DENIED" && r.filtering_reason == words));
    assert_eq!(records.len(), 2);
}

#[test]
fn a_swap_under_traffic_fails_nothing_and_each_record_names_its_policy() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let url = Arc::new(origin.url("/length/1024"));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, url, stop) = (node.client(), Arc::clone(&url), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let response = client.get(&url);
                    assert!(response.status == 200 && response.body.len() == 1024);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for version in 2..=30 {
        node.swap(snapshot(&format!("{POLICY}\n# {version}\n"), version));
        std::thread::sleep(Duration::from_millis(10));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let count: usize = clients.into_iter().map(|c| c.join().unwrap()).sum();
    node.swap(snapshot(&POLICY.replace("default = \"allow\"", "default = \"deny\""), 31));
    assert_eq!(node.client().get(&url).status, 403, "the swap holds from the next request on");
    let records = node.records();
    assert_eq!(records.len(), count + 1);
    let mut versions: Vec<&str> = records.iter().map(|r| r.snapshot.split('-').next().unwrap()).collect();
    versions.sort();
    versions.dedup();
    assert!(versions.len() > 10, "{versions:?}");
    assert_eq!(records.last().unwrap().snapshot.split('-').next(), Some("31"));
}

#[test]
fn who_is_slow_meets_a_deadline() {
    let timeouts = Timeouts {
        head: 400,
        keep_alive: 600,
        // Long enough for this test's own origin to make its bytes on a busy machine.
        body: 1_500,
        answer: 3_000,
        tunnel: 600,
        linger: 200,
        ..Timeouts::default()
    };
    let (node, origin) = (Node::start(|config| config.timeouts = timeouts), Origin::start());
    let host = origin.address;
    let mut silent = node.client();
    let mut half = node.client();
    half.say("GET http://x/ HT");
    assert_eq!(half.response(false).status, 408, "a head that does not end");
    assert!(silent.closed(), "a client that says nothing");
    let mut idle = node.client();
    assert_eq!(idle.get(&origin.url("/204")).status, 204);
    assert!(idle.closed(), "a client that says nothing more");
    let mut body = node.client();
    body.say(&format!("POST {} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\nab", origin.url("/echo")));
    assert_eq!(body.response(false).status, 408, "a body that does not end");
    assert_eq!(node.client().get(&origin.url("/silent")).status, 504, "an origin that says nothing");
    assert!(!node.client().get(&origin.url("/stall")).whole, "an origin that stops");
    let server = tunnel_server();
    let mut tunnel = node.client();
    tunnel.say(&format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n"));
    assert_eq!(tunnel.head().unwrap().status, 200);
    assert!(tunnel.closed(), "a tunnel in which nothing moves");
    let mut deaf = node.client();
    deaf.say(&format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", origin.url("/length/50000000")));
    std::thread::sleep(Duration::from_millis(1500));
    until("the deaf client is given up", || node.core().totals().connections_open == 0);
    let endings: Vec<String> = node.records().into_iter().map(|r| r.ending).collect();
    assert_eq!(endings, ["cR", "--", "cD", "sH", "sD", "cD", "cD"]);
}

#[test]
fn too_many_clients_are_told_so_and_the_rest_are_served() {
    let (node, origin) = (Node::start(|config| config.connections_max = 2), Origin::start());
    let (mut first, mut second) = (node.client(), node.client());
    assert_eq!(first.get(&origin.url("/204")).status, 204);
    assert_eq!(second.get(&origin.url("/204")).status, 204);
    assert_eq!(node.client().response(false).status, 503);
    assert_eq!(first.get(&origin.url("/204")).status, 204);
    drop(second);
    until("there is room again", || node.core().totals().connections_open == 1);
    assert_eq!(node.client().get(&origin.url("/204")).status, 204);
    assert_eq!(node.core().totals().shed, 1);
    assert_eq!(node.records().len(), 4);
}

#[test]
fn what_does_not_end_in_time_is_cut_and_recorded_as_such() {
    let node = Node::start(|_| ());
    let server = tunnel_server();
    let mut tunnel = node.client();
    tunnel.say(&format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\nsome"));
    assert_eq!(tunnel.head().unwrap().status, 200);
    let begun = Instant::now();
    let record = &node.records_within(Duration::from_millis(300))[0];
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!((record.ending.as_str(), record.upload), ("KD", 4));
    assert!(tunnel.closed());
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    // In a process of its own: descriptors are counted.
    if std::env::var_os("TIDEGATE_TEST_LEAK").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "clients_that_go_away_leave_nothing_behind"])
            .env("TIDEGATE_TEST_LEAK", "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let node = Node::start(|config| config.timeouts.pooled = 500);
    let origin = Origin::start();
    let server = tunnel_server();
    let host = origin.address;
    assert_eq!(node.client().get(&origin.url("/204")).status, 204);
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    until("quiet", || node.core().totals().connections_open == 0);
    std::thread::sleep(Duration::from_millis(3000));
    let before = count();
    for round in 0..100 {
        let requests = [
            String::new(),
            "GET http://x/ HT".to_string(),
            format!("POST {} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\nab", origin.url("/echo")),
            format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", origin.url("/length/3000000")),
            format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\nsome bytes"),
        ];
        for request in requests {
            let mut client = node.client();
            client.say(&request);
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(1));
                let _ = sockets::reset_on_close(&client.stream);
            }
        }
    }
    until("all connections are closed", || node.core().totals().connections_open == 0);
    let start = Instant::now();
    // Kept pipes for tunnels, the pool's last idle connections and the origin's threads may take a moment or stay.
    while count() > before + 8 && start.elapsed() < Duration::from_secs(8) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(count() <= before + 8, "{} descriptors before, {} after", before, count());
    assert_eq!(node.core().totals().tunnels_open, 0);
}

#[test]
fn a_drain_lets_what_runs_end_and_closes_the_rest() {
    let (node, origin) = (Node::start(|_| ()), Origin::start());
    let mut idle = node.client();
    assert_eq!(idle.get(&origin.url("/204")).status, 204);
    let server = tunnel_server();
    let mut tunnel = node.client();
    tunnel.say(&format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n"));
    assert_eq!(tunnel.head().unwrap().status, 200);
    let proxy = node.proxy;
    let draining = std::thread::spawn(move || node.records());
    assert!(idle.closed(), "an idle connection is closed");
    until("new connections are refused", || TcpStream::connect(proxy).is_err());
    tunnel.stream.write_all(b"still here").unwrap();
    tunnel.stream.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    tunnel.stream.read_to_string(&mut got).unwrap();
    assert_eq!(got, "still here");
    assert_eq!(draining.join().unwrap().len(), 2);
}
