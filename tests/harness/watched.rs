//! A node by itself, whose process can be looked into.

use super::Node;
use super::Origin;
use super::client::Client;
use super::test_policy;
use super::wait_until;
use nix::sys::socket::SockaddrStorage;
use nix::sys::socket::bind;
use nix::sys::socket::connect;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Front;
use tidegate::admin::Outcome;
use tidegate::daemon::layout::NodeLayout;
use tidegate::record::Record;
use tidegate::sys::sockets;

pub struct Watched {
    pub node: Node,
    pub origin: Origin,
    _dir: TempDir,
}

impl Watched {
    pub fn start() -> Watched {
        Watched::with(&[])
    }

    /// With these startup params.
    pub fn with(params: &[(&str, &str)]) -> Watched {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap();
        let layout = NodeLayout::at(dir.path(), "alone", free(), free());
        let extra: BTreeMap<&str, String> = params.iter().map(|(key, value)| (*key, value.to_string())).collect();
        layout.write(&dir.path().join("no.key"), &[("ROLE", "standalone".into())], &extra).unwrap();
        let watched = Watched { node: Node::of(&layout), origin: Origin::start(), _dir: dir };
        watched.node.start();
        let document = any_port(&test_policy(watched.origin.address, ""), watched.origin.address);
        let document = document.replace("connect_ports = [443,", "connect_ports = [\"1-65535\",");
        let action = Action::PolicyApply { document, comment: String::new(), base: None, how: Default::default() };
        let outcome = watched.node.ask(action);
        assert!(matches!(outcome, Ok(Outcome::Applied { .. })), "{outcome:?}");
        watched
    }

    pub fn proxy(&self) -> SocketAddr {
        self.node.layout.proxy
    }

    pub fn client(&self) -> Client {
        Client::connect(self.proxy()).unwrap()
    }

    pub fn tunnel(&self, origin: SocketAddr) -> Client {
        self.client().tunnel(&origin.to_string()).unwrap().expect("the policy allows the tunnel")
    }

    /// What the cores hold and whom they turned away.
    pub fn front(&self) -> Front {
        self.node.status().expect("the node answers").front
    }

    /// Changes startup params of the running node; all of them must count at once.
    pub fn submit(&self, values: &[(&str, &str)]) {
        let values = values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        match self.node.ask(Action::ParamsSubmit { values, force: false }) {
            Ok(Outcome::Submitted { waiting, .. }) => assert!(waiting.is_empty(), "{waiting:?}"),
            other => panic!("{other:?}"),
        }
    }

    /// The one record whose URL ends in `end`, once it is there.
    pub fn record(&self, end: &str) -> Record {
        let mut found = None;
        wait_until(&format!("the record of {end}"), || {
            found = self.records().into_iter().find(|record| record.url.ends_with(end));
            found.is_some()
        });
        found.unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.origin.address)
    }

    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.node.pid())).unwrap().count()
    }

    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.node.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time so far, in hundredths of a second.
    pub fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.node.pid())).unwrap();
        let after_name = stat.rsplit(") ").next().unwrap();
        after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    pub fn wait_for_no_connections(&self) {
        wait_until("all connections are gone", || self.node.status().unwrap().counters.connections_open == 0);
    }

    pub fn records(&self) -> Vec<Record> {
        let text = fs::read(&self.node.layout.log).unwrap();
        let lines = text.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
        lines.filter_map(|line| tidegate::record::line::parse(line).ok()).collect()
    }
}

pub fn free() -> SocketAddr {
    tidegate::daemon::layout::free_ports(1).unwrap()[0]
}

/// An origin whose answers never end, with a pause between two pieces; tells how much it got rid of.
pub fn endless_origin(pause: Duration) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let poured = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&poured);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), Arc::clone(&count));
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let mut piece = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
                while stream.write_all(&piece).is_ok() {
                    count.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    piece.resize(65_536, b'x');
                    thread::sleep(pause);
                }
            });
        }
    });
    (address, poured)
}

/// A connection from a loopback address of our choice.
pub fn from(local: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = sockets::tcp_socket(&to)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(local.parse().unwrap(), 0)))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// Fills pools and buffers, so that what is measured afterwards is what stays behind.
pub fn warm_up(watched: &Watched) {
    for _ in 0..3 {
        assert_eq!(watched.client().get(&watched.url("/bytes/100000")).unwrap().status, 200);
    }
    wait_until("the lines of the warming up", || watched.records().len() == 3);
    watched.wait_for_no_connections();
}

/// The test policy, and any port of the origin's host may be reached.
pub fn any_port(document: &str, origin: SocketAddr) -> String {
    let one_port = format!("127.0.0.1/32:{}", origin.port());
    assert!(document.contains(&one_port));
    document.replace(&one_port, "127.0.0.1/32")
}

/// An origin that keeps whoever asks waiting until it is told to answer.
pub struct WaitingRoom {
    pub address: SocketAddr,
    waiting: Arc<Mutex<Vec<TcpStream>>>,
}

impl WaitingRoom {
    pub fn open() -> WaitingRoom {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let room = WaitingRoom { address: listener.local_addr().unwrap(), waiting: Arc::default() };
        let waiting = room.waiting.clone();
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| waiting.lock().unwrap().push(stream)));
        room
    }

    /// Somebody asks for it through a proxy.
    pub fn ask(&self, proxy: SocketAddr, path: &str) -> TcpStream {
        let (mut stream, origin) = (TcpStream::connect(proxy).unwrap(), self.address);
        stream.write_all(format!("GET http://{origin}/{path} HTTP/1.1\r\nHost: {origin}\r\n\r\n").as_bytes()).unwrap();
        stream
    }

    /// The status that is answered; empty if none is.
    pub fn status(stream: &mut TcpStream) -> String {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).map(|()| String::from_utf8_lossy(&head[9..]).into_owned()).unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.waiting.lock().unwrap().len()
    }

    pub fn answer_all(&self) {
        for mut stream in self.waiting.lock().unwrap().drain(..) {
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).unwrap() > 0, "whoever connects asks");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
        }
    }
}
