//! A data core on a real socket, an origin that does as it is told and keeps every byte it received, and a client that
//! knows whether it got an answer whole.

use crate::lone_core::LoneCore;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use tidegate::proxy::CoreConfig;
use tidegate::proxy::Timeouts;
use tidegate::record::Record;
use tidegate::sys::sockets;

pub const POLICY: &str = r#"
access_profiles_default = "allow"
[access_restriction]
default = "allow"
[network]
allow_destinations = ["127.0.0.1/32"]
allow_upgrade = ["websocket", "chat"]
connect_ports = ["1-65535"]
[[categories]]
name = "Forbidden"
hosts = ["forbidden.test"]
[[access_profiles]]
name = "No forbidden things"
categories = ["Forbidden"]
action = "DENY"
reason = "forbidden \"things\" are forbidden: verboten für alle"
"#;

/// How long anything may take before a test calls it broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running core with its log.
pub struct Node {
    core: LoneCore,
    pub address: SocketAddr,
}

impl Node {
    pub fn start() -> Node {
        Node::tuned(|_| ())
    }

    pub fn tuned(tune: impl FnOnce(&mut CoreConfig)) -> Node {
        let core = LoneCore::start("framing", POLICY, |config| {
            config.timeouts = Timeouts { linger: 500, ..Timeouts::default() };
            tune(config);
        });
        Node { address: core.address, core }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// How many exchanges have ended.
    pub fn served(&self) -> u64 {
        self.core.handle().totals().exchanges
    }

    /// Drains the core, ends the log and reads what it says.
    pub fn records(self) -> Vec<Record> {
        self.core.records(Duration::from_secs(10))
    }
}

/// What an origin does for a path, one after the other.
#[derive(Clone, Debug)]
pub enum Act {
    /// The request's body is not read first, as it is otherwise.
    Early,
    /// Says this.
    Say(Vec<u8>),
    /// Tells the test that it is here, and waits until the test lets it go on.
    Meet,
    /// Reads so many bytes beyond the request.
    Take(usize),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Speaks WebSocket frames: echoes messages, answers pings, ends after a close frame.
    WebSocket,
}

pub fn say(text: impl AsRef<[u8]>) -> Act {
    Act::Say(text.as_ref().to_vec())
}

#[derive(Default)]
struct Shared {
    acts: HashMap<String, Vec<Act>>,
    received: Vec<Vec<u8>>,
}

/// An origin. What it does for a path must be said before the path is asked for; other paths are answered with `ok`.
pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    arrived: mpsc::Receiver<()>,
    go_on: mpsc::SyncSender<()>,
}

impl Origin {
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (arrive, arrived) = mpsc::channel();
        let (go_on, wait) = mpsc::sync_channel(0);
        let wait = Arc::new(Mutex::new(wait));
        let for_threads = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                // What is said is on its way at once, not when the last is acknowledged.
                stream.set_nodelay(true).unwrap();
                let mut shared = for_threads.lock().unwrap();
                let number = shared.received.len();
                shared.received.push(Vec::new());
                let connection = Connection {
                    stream,
                    number,
                    shared: Arc::clone(&for_threads),
                    arrive: arrive.clone(),
                    wait: Arc::clone(&wait),
                    behind: Vec::new(),
                };
                std::thread::spawn(move || connection.serve());
            }
        });
        Origin { address, shared, arrived, go_on }
    }

    /// What it does for `path`.
    pub fn on(&self, path: &str, acts: impl IntoIterator<Item = Act>) {
        self.shared.lock().unwrap().acts.insert(path.to_string(), acts.into_iter().collect());
    }

    /// Waits until it has come to its [`Act::Meet`], then lets it go on.
    pub fn meet(&self) {
        self.arrived.recv_timeout(PATIENCE).expect("the origin comes to where it was to meet");
        self.go_on.send(()).unwrap();
    }

    /// As [`Origin::received`], in bytes.
    pub fn received_bytes(&self) -> Vec<Vec<u8>> {
        self.shared.lock().unwrap().received.clone()
    }

    /// All bytes received, of each connection in the order they were made.
    pub fn received(&self) -> Vec<String> {
        let shared = self.shared.lock().unwrap();
        shared.received.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// `text` with this origin's address in the place of `ORIGIN`.
    pub fn fill(&self, text: &str) -> String {
        text.replace("ORIGIN", &self.address.to_string())
    }

    /// A plain request for `path`.
    pub fn get(&self, path: &str) -> String {
        self.fill(&format!("GET http://ORIGIN{path} HTTP/1.1\r\nHost: ORIGIN\r\n\r\n"))
    }
}

/// One connection of an origin.
struct Connection {
    stream: TcpStream,
    number: usize,
    shared: Arc<Mutex<Shared>>,
    arrive: mpsc::Sender<()>,
    wait: Arc<Mutex<mpsc::Receiver<()>>>,
    behind: Vec<u8>,
}

impl Connection {
    fn serve(mut self) {
        while let Some(head) = self.until(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or("").to_string();
            let default = vec![say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")];
            let acts = self.shared.lock().unwrap().acts.get(&path).cloned().unwrap_or(default);
            let early = matches!(acts.first(), Some(Act::Early));
            if !early && self.read_body(&head).is_none() {
                return;
            }
            for act in acts {
                if self.perform(act).is_none() {
                    return;
                }
            }
        }
    }

    /// Nothing where the connection has ended.
    fn perform(&mut self, act: Act) -> Option<()> {
        match act {
            Act::Early => Some(()),
            Act::Say(bytes) => self.stream.write_all(&bytes).ok(),
            Act::Meet => {
                self.arrive.send(()).ok()?;
                self.wait.lock().unwrap().recv().ok()
            }
            Act::Take(count) => self.take(count).map(drop),
            Act::Close => None,
            Act::Reset => {
                let _ = sockets::reset_on_close(&self.stream);
                None
            }
            Act::WebSocket => self.speak_websocket(),
        }
    }

    fn speak_websocket(&mut self) -> Option<()> {
        loop {
            let (opcode, message) = Frame::read(|count| self.take(count))?;
            let reply = if opcode == Frame::PING { Frame::PONG } else { opcode };
            self.stream.write_all(&Frame::write(reply, &message, None)).ok()?;
            if opcode == Frame::CLOSE {
                return None;
            }
        }
    }

    fn read_body(&mut self, head: &str) -> Option<()> {
        let head = head.to_ascii_lowercase();
        if head.contains("transfer-encoding: chunked") {
            loop {
                let line = String::from_utf8(self.until(b"\r\n")?).ok()?;
                let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
                if size == 0 {
                    while self.until(b"\r\n")? != b"\r\n" {}
                    return Some(());
                }
                self.take(size + 2)?;
            }
        }
        let length =
            head.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        self.take(length).map(drop)
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.behind.len() < count {
            self.more()?;
        }
        Some(self.behind.drain(..count).collect())
    }

    fn until(&mut self, what: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.behind.windows(what.len()).position(|window| window == what) {
                return Some(self.behind.drain(..at + what.len()).collect());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut buf = [0; 65536];
        let count = self.stream.read(&mut buf).ok().filter(|count| *count > 0)?;
        self.behind.extend_from_slice(&buf[..count]);
        self.shared.lock().unwrap().received[self.number].extend_from_slice(&buf[..count]);
        Some(())
    }
}

/// Frames of RFC 6455 section 5.2.
pub struct Frame;

impl Frame {
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;

    /// A whole message; a client masks it.
    pub fn write(opcode: u8, message: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match message.len() {
            length @ 0..126 => frame.push(masked | length as u8),
            length @ 126..65536 => {
                frame.push(masked | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(masked | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(mask.as_ref().map_or(&[], |mask| &mask[..]));
        let mask = mask.unwrap_or_default();
        frame.extend(message.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        frame
    }

    /// The next message: `take` gives so many bytes, or nothing at the end.
    pub fn read(mut take: impl FnMut(usize) -> Option<Vec<u8>>) -> Option<(u8, Vec<u8>)> {
        let start = take(2)?;
        let length = match start[1] & 0x7f {
            126 => take(2)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            127 => take(8)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            length => usize::from(length),
        };
        let mask = if start[1] & 0x80 != 0 { take(4)? } else { vec![0; 4] };
        let message = take(length)?.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]).collect();
        Some((start[0] & 0x0f, message))
    }
}

/// What a client got.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The body came to the end that its framing promised.
    pub whole: bool,
    /// The statuses of the interim replies before it.
    pub interims: Vec<u16>,
}

impl Reply {
    /// The value of a field, or nothing.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(said, _)| said.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `error` of its Proxy-Status by this node.
    pub fn error(&self) -> Option<&str> {
        let (_, rest) = self.field("proxy-status")?.split_once("tidegate-framing; error=")?;
        rest.split(';').next()
    }
}

/// A client that says bytes.
pub struct Client {
    pub stream: TcpStream,
    behind: Vec<u8>,
    reset: bool,
}

impl Client {
    pub fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, behind: Vec::new(), reset: false }
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Waits until the first byte of a reply is here.
    pub fn await_first_byte(&mut self) {
        assert_eq!(self.stream.peek(&mut [0]).unwrap(), 1);
    }

    /// The reply to any request but HEAD.
    pub fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    /// The reply to a request of this method; status 0 if the connection ended without one.
    pub fn reply_to(&mut self, method: &str) -> Reply {
        let mut interims = Vec::new();
        loop {
            let Some(head) = self.until(b"\r\n\r\n") else { return Reply { interims, ..Reply::default() } };
            let head = String::from_utf8_lossy(&head).into_owned();
            let status = head.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status");
            if (100..200).contains(&status) && status != 101 {
                interims.push(status);
                continue;
            }
            let mut reply = Reply { status, head, interims, ..Reply::default() };
            let tunnel = method == "CONNECT" && status == 200;
            reply.whole = method == "HEAD" || tunnel || matches!(status, 101 | 204 | 304) || self.body(&mut reply);
            return reply;
        }
    }

    /// The connection ends here, properly and without another byte.
    pub fn is_at_end(&mut self) -> bool {
        self.more().is_none() && self.behind.is_empty()
    }

    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.behind.len() < count {
            self.more()?;
        }
        Some(self.behind.drain(..count).collect())
    }

    /// Everything to the end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more().is_some() {}
        std::mem::take(&mut self.behind)
    }

    fn body(&mut self, reply: &mut Reply) -> bool {
        if reply.field("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            return self.chunked(&mut reply.body).is_some();
        }
        match reply.field("content-length").map(|length| length.parse().unwrap()) {
            Some(length) => match self.take(length) {
                Some(body) => {
                    reply.body = body;
                    true
                }
                None => false,
            },
            None => {
                reply.body = self.rest();
                !self.reset
            }
        }
    }

    fn chunked(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let line = String::from_utf8(self.until(b"\r\n")?).unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size and nothing else");
            if size == 0 {
                while self.until(b"\r\n")? != b"\r\n" {}
                return Some(());
            }
            body.extend_from_slice(&self.take(size)?);
            self.take(2)?;
        }
    }

    fn until(&mut self, what: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.behind.windows(what.len()).position(|window| window == what) {
                return Some(self.behind.drain(..at + what.len()).collect());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut buf = [0; 65536];
        match self.stream.read(&mut buf) {
            Ok(0) => None,
            Ok(count) => {
                self.behind.extend_from_slice(&buf[..count]);
                Some(())
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.reset = true;
                None
            }
            Err(error) => panic!("reading an answer: {error}"),
        }
    }
}
