//! Load from a machine's place on the wire, and an account of what became of every request. Bounded in rate and in time.
//!
//! The threads run here, in the machine's network namespace: to the proxy they are that machine.

use crate::switch::Port;
use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// No load lasts longer, whatever a test forgets.
const LOAD_TIME_MAX: Duration = Duration::from_secs(1800);

/// A request that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Failures whose words are kept: more than a load of an hour can have.
const WORDS_MAX: usize = 100_000;

/// What is asked, by whom, how often.
#[derive(Clone)]
pub struct Plan {
    /// The proxy, or the balancer before it.
    pub proxy: SocketAddr,
    /// An absolute `http://` URL.
    pub url: String,
    /// New connections a second, over all threads.
    pub per_second: u32,
    /// Threads: as many requests may wait at once.
    pub threads: u32,
}

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Whole answers with the status that was expected.
    pub answered: u64,
    /// No connection: refused, reset while connecting, or no answer to it.
    pub refused: u64,
    /// A connection that ended before a byte of the answer.
    pub reset: u64,
    /// An answer that ended before its end.
    pub cut: u64,
    /// A whole answer with another status.
    pub other: u64,
    /// The longest that an answered request took.
    pub slowest: Duration,
    /// When the requests that failed had begun, and what happened to them.
    pub words: Vec<(Instant, String)>,
}

/// A load under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

enum Fate {
    Answered,
    Refused(String),
    Reset(String),
    Cut(String),
    Other(String),
}

impl Load {
    pub fn start(from: &Port, plan: &Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let gap = Duration::from_secs(1) * plan.threads / plan.per_second;
        let threads = (0..plan.threads).map(|number| {
            let (stop, tally, plan, path) = (stop.clone(), tally.clone(), plan.clone(), from.path());
            thread::spawn(move || {
                enter(&path);
                let begun = Instant::now();
                let mut next = begun + gap * number / plan.threads;
                while !stop.load(Ordering::Relaxed) && begun.elapsed() < LOAD_TIME_MAX {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += gap;
                    let started = Instant::now();
                    let fate = ask(plan.proxy, &plan.url);
                    tally.lock().unwrap().count(started, fate);
                }
            })
        });
        let threads = threads.collect();
        Load { stop, tally, threads }
    }

    /// How it stands.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Ends it: what is under way is waited for.
    pub fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a load thread");
        }
        self.tally()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Tally {
    pub fn failed(&self) -> u64 {
        self.refused + self.reset + self.cut + self.other
    }

    /// Fails unless every request was answered.
    pub fn expect_all_answered(&self, during: &str) {
        assert!(self.failed() == 0 && self.answered > 0, "{during}: {self}");
    }

    fn count(&mut self, started: Instant, fate: Fate) {
        let words = match fate {
            Fate::Answered => {
                self.answered += 1;
                self.slowest = self.slowest.max(started.elapsed());
                return;
            }
            Fate::Refused(words) => (&mut self.refused, words),
            Fate::Reset(words) => (&mut self.reset, words),
            Fate::Cut(words) => (&mut self.cut, words),
            Fate::Other(words) => (&mut self.other, words),
        };
        *words.0 += 1;
        if self.words.len() < WORDS_MAX {
            self.words.push((started, words.1));
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { answered, refused, reset, cut, other, slowest, words } = self;
        write!(
            out,
            "{answered} answered (the slowest in {slowest:?}), {refused} refused, {reset} reset, {cut} cut, {other} answered otherwise"
        )?;
        words.iter().take(10).try_for_each(|(_, words)| write!(out, "\n    {words}"))
    }
}

/// A tunnel through the proxy, kept busy: a request each tenth of a second, all on one connection.
pub struct Tunnel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u32, String>>>,
}

impl Tunnel {
    pub fn start(from: &Port, proxy: SocketAddr, origin: &str) -> Tunnel {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, origin, stopped) = (from.path(), origin.to_string(), stop.clone());
        let thread = thread::spawn(move || {
            enter(&path);
            talk_through(proxy, &origin, &stopped)
        });
        Tunnel { stop, thread: Some(thread) }
    }

    /// Ends it; answers how many requests were answered on it, or what broke it.
    pub fn finish(mut self) -> Result<u32, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("a tunnel's thread")
    }
}

fn enter(namespace: &std::path::Path) {
    let file = File::open(namespace).expect("the machine's network namespace");
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering the machine's network namespace");
    // Thousands of connections a second, each of which keeps its port for a minute: a machine that clients are on never has
    // so many, and running out of them is no refusal of the proxy's. It is this namespace's setting alone.
    for (name, value) in [("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
        std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("more ports for the load");
    }
}

/// One request on a connection of its own.
fn ask(proxy: SocketAddr, url: &str) -> Fate {
    let mut stream = match TcpStream::connect_timeout(&proxy, PATIENCE) {
        Ok(stream) => stream,
        Err(error) => return Fate::Refused(format!("connecting to {proxy}: {error}")),
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let host = url.trim_start_matches("http://").split('/').next().unwrap();
    let request = format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    if let Err(error) = stream.write_all(request.as_bytes()) {
        return Fate::Reset(format!("sending the request: {error}"));
    }
    match read_answer(&mut stream) {
        Ok(200) => Fate::Answered,
        Ok(status) => Fate::Other(format!("status {status}")),
        Err((0, error)) => Fate::Reset(format!("waiting for an answer: {error}")),
        Err((bytes, error)) => Fate::Cut(format!("after {bytes} bytes of an answer: {error}")),
    }
}

/// Reads one answer with a Content-Length; its status, or how many bytes came before what.
fn read_answer(stream: &mut TcpStream) -> Result<u16, (usize, String)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some((status, whole)) = extent(&bytes)
            && bytes.len() >= whole
        {
            return Ok(status);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err((bytes.len(), "the connection was closed".into())),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((bytes.len(), error.to_string())),
        }
    }
}

/// Status and length of an answer whose head is there.
fn extent(bytes: &[u8]) -> Option<(u16, usize)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let status = text.split_whitespace().nth(1)?.parse().ok()?;
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")).and_then(|value| value.trim().parse().ok());
    Some((status, head + 4 + length.unwrap_or(0usize)))
}

fn talk_through(proxy: SocketAddr, origin: &str, stop: &AtomicBool) -> Result<u32, String> {
    let mut stream = TcpStream::connect_timeout(&proxy, PATIENCE).map_err(|error| format!("connecting: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let begun = Instant::now();
    let mut say = |request: String, answered: u32| {
        let sent = stream.write_all(request.as_bytes());
        sent.map_err(|error| format!("after {answered} answers, {:?}: sending: {error}", begun.elapsed()))?;
        let answer = read_answer(&mut stream);
        match answer.map_err(|(_, error)| format!("after {answered} answers, {:?}: {error}", begun.elapsed()))? {
            200 => Ok(()),
            status => Err(format!("status {status}")),
        }
    };
    say(format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n"), 0)?;
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LOAD_TIME_MAX {
        say(format!("GET / HTTP/1.1\r\nHost: {origin}\r\n\r\n"), answered)?;
        answered += 1;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(answered)
}
