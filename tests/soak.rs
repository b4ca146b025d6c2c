//! A soak: clients that abort at random points, for a bounded time, and then nothing is left of them.
//!
//! 20 seconds by default; `TIDEGATE_SOAK_SECONDS=1800 cargo test --test soak -- --nocapture` for long. The seed is printed;
//! `TIDEGATE_SOAK_SEED` repeats one (what each client does, not how the machine interleaves them).

mod harness;

use harness::Origin;
use harness::dice::Dice;
use harness::dice::number_in;
use harness::wait_until;
use harness::watched::Watched;
use harness::watched::warm_up;
use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use tidegate::daemon::origin::pattern;
use tidegate::sys::sockets;

/// Clients at once.
const CLIENTS: u64 = 24;
/// Descriptors that may stay: the cores' pipes kept for coming tunnels (two each), and a few of the control threads.
const DESCRIPTORS_KEPT: usize = 2 * tidegate::limits::PIPES_KEPT_MAX + 16;

/// Memory that a stand-alone node may hold in the end beside the pages of its report store, however long it ran: the store's
/// 100,000 words and the log's last lines for shipping (16 MiB each at most), buffers, and what the allocator holds free. Of
/// the growth in a run of 380 s (88 MiB), the store's pages were 64: they fill in three minutes, and then nothing grew.
const MEMORY_KEPT_KIB: u64 = 32 * 1024;

/// The pages of the report store that are in the node's memory at most: those its cache takes, if there are so many.
fn store_pages_kib(watched: &Watched) -> u64 {
    let file = watched.node.layout.dir.join("state/records.db");
    let bytes = fs::metadata(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
    // A page in the cache has a head of its own.
    bytes.div_ceil(1024).min(tidegate::limits::STORE_CACHE_KIB as u64) * 9 / 8
}

/// What a client did: numbers of exchanges whose request went out whole, and of those whose answer's head came back.
#[derive(Default)]
struct Done {
    connections: u64,
    begun: Vec<u64>,
    answered: Vec<u64>,
}

#[test]
fn clients_that_abort_at_random_leave_nothing_behind_and_every_exchange_is_recorded_once() {
    let lasting = Duration::from_secs(number_in("TIDEGATE_SOAK_SECONDS").unwrap_or(20));
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = number_in("TIDEGATE_SOAK_SEED").unwrap_or(u64::from(clock));
    println!("seed {seed}, {lasting:?} (TIDEGATE_SOAK_SEED={seed} TIDEGATE_SOAK_SECONDS={})", lasting.as_secs());
    // A log that is never put aside: the test reads one file.
    let mut watched = Watched::with(&[("LOG_SIZE_LIMIT", "64G")]);
    warm_up(&watched);
    let (front, descriptors, resident) = (watched.front(), watched.descriptors(), watched.resident_kib());
    let recorded_before = settle(&watched).len();

    let begun = Instant::now();
    let done: Vec<Done> = thread::scope(|scope| {
        let (proxy, origin) = (watched.proxy(), watched.origin.address);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || unlucky(client, seed, proxy, origin, begun + lasting)))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let peak = watched.resident_kib();
    watched.wait_for_no_connections();
    let settled = settle(&watched);

    // Every exchange that anybody saw is there, none twice, and the sequence has no gap.
    let mut seen: HashMap<u64, u32> = HashMap::new();
    for number in settled.iter().filter_map(|line| line.number) {
        *seen.entry(number).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "recorded twice: {twice:?}");
    let answered: usize = done.iter().map(|done| done.answered.len()).sum();
    for number in done.iter().flat_map(|done| &done.answered) {
        assert!(seen.contains_key(number), "exchange {number} was answered and is in no record");
    }
    let mut sequence: Vec<u64> = settled.iter().map(|line| line.seq).collect();
    sequence.sort_unstable();
    assert!(sequence.windows(2).all(|pair| pair[1] == pair[0] + 1), "the sequence has gaps or repeats");
    let internal = settled.iter().filter(|line| line.internal).count();
    assert_eq!(internal, 0, "exchanges that ended by an error of our own");
    let (connections, whole) = done.iter().fold((0, 0), |(c, w), done| (c + done.connections, w + done.begun.len()));
    println!(
        "{connections} connections, {whole} requests sent whole, {answered} answered, {} records in {:?}",
        settled.len() - recorded_before,
        begun.elapsed()
    );
    assert!(answered as u64 > lasting.as_secs() * 20, "only {answered} answered");

    // Nothing is left. An origin that ends takes the idle connections to it along.
    drop(std::mem::replace(&mut watched.origin, Origin::start()));
    // One accept under way for the core's one listener.
    let at_rest = 1;
    wait_until("sockets, operations and descriptors are back", || {
        let now = watched.front();
        now.connections == 0
            && now.sockets == 0
            && now.operations == at_rest
            && watched.descriptors() <= descriptors + DESCRIPTORS_KEPT
    });
    let (now, descriptors_now, resident_now) = (watched.front(), watched.descriptors(), watched.resident_kib());
    println!("before {front:?}\nafter  {now:?}");
    println!("descriptors {descriptors} -> {descriptors_now}; resident {resident} -> {peak} -> {resident_now} KiB");
    assert_eq!(now.unrecorded, 0, "a record slot was missing");
    let may_keep = store_pages_kib(&watched) + MEMORY_KEPT_KIB;
    println!("the store's pages and the rest may keep {may_keep} KiB");
    assert!(
        resident_now < resident + may_keep,
        "memory grew from {resident} to {resident_now} KiB, by more than {may_keep}"
    );

    // A record slot that was left open would be found, and written as a cut exchange, by the next start.
    watched.node.stop();
    watched.node.start();
    let again = settle(&watched).len();
    assert_eq!(again, settled.len(), "a record slot was left open");
    assert!(!watched.node.journal().contains("panicked"), "{}", watched.node.journal());
}

/// What the test looks at in a record: an hour of them would not fit in memory whole.
struct Line {
    seq: u64,
    /// The exchange, if the record names one of ours.
    number: Option<u64>,
    /// An error of our own.
    internal: bool,
}

/// The records, once no more come.
fn settle(watched: &Watched) -> Vec<Line> {
    let log = &watched.node.layout.log;
    let mut last = u64::MAX;
    wait_until("all records are written", || {
        thread::sleep(Duration::from_millis(400));
        let now = fs::metadata(log).unwrap().len();
        std::mem::replace(&mut last, now) == now
    });
    let lines = BufReader::new(File::open(log).unwrap()).split(b'\n').skip(1);
    lines.map(|line| Line::of(&line.unwrap())).collect()
}

impl Line {
    fn of(line: &[u8]) -> Line {
        let record = tidegate::record::line::parse(line).unwrap_or_else(|error| panic!("{error:?}"));
        let number = record.url.split_once("?soak=").map(|(_, number)| number.parse().unwrap());
        Line { seq: record.seq, number, internal: record.ending.starts_with('I') }
    }
}

/// One client after the other on one thread, each with a few exchanges and most with an accident.
fn unlucky(client: u64, seed: u64, proxy: SocketAddr, origin: SocketAddr, until: Instant) -> Done {
    let mut dice = Dice(seed ^ client.wrapping_mul(0xd134_2543_de82_ef95));
    let mut done = Done::default();
    let mut number = client * 1_000_000_000;
    while Instant::now() < until {
        done.connections += 1;
        let mut stream = TcpStream::connect(proxy).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for _ in 0..=dice.roll(4) {
            number += 1;
            if !one_exchange(&mut stream, &mut dice, number, origin, &mut done) {
                break;
            }
        }
        match dice.roll(4) {
            0 => drop(sockets::reset_on_close(&stream)),
            1 => drop(stream.shutdown(Shutdown::Write)),
            _ => {}
        }
    }
    done
}

/// Whether the connection goes on.
fn one_exchange(stream: &mut TcpStream, dice: &mut Dice, number: u64, origin: SocketAddr, done: &mut Done) -> bool {
    let request = request(dice, number, origin);
    let tunnel = request.starts_with(b"CONNECT");
    let cut = if dice.chance(30) { dice.roll(request.len() as u64) as usize } else { request.len() };
    // In one piece, or in two with the ring's turn between them.
    let middle = if dice.chance(30) { dice.roll(cut as u64 + 1) as usize } else { cut };
    if stream.write_all(&request[..middle]).is_err() {
        return false;
    }
    if middle < cut {
        thread::sleep(Duration::from_micros(dice.roll(3_000)));
        if stream.write_all(&request[middle..cut]).is_err() {
            return false;
        }
    }
    if cut < request.len() {
        thread::sleep(Duration::from_micros(dice.roll(5_000)));
        return false;
    }
    done.begun.push(number);
    // Some never look at the answer, some at part of it.
    if dice.chance(15) {
        return false;
    }
    let Some(length) = answer_head(stream) else { return false };
    // A tunnel's record, and that of a head nobody can read, do not name the number.
    if !tunnel && !request.windows(8).any(|part| part == b"nonsense") {
        done.answered.push(number);
    }
    if tunnel {
        return through_the_tunnel(stream, dice, origin);
    }
    let want = if dice.chance(20) { dice.roll(length as u64 + 1) as usize } else { length };
    let mut body = vec![0; want];
    stream.read_exact(&mut body).is_ok() && want == length
}

fn request(dice: &mut Dice, number: u64, origin: SocketAddr) -> Vec<u8> {
    let magnitude = 4 + dice.roll(15);
    let size = dice.roll(1 << magnitude);
    let head = |method: &str, path: &str, more: &str| {
        format!("{method} http://{origin}{path}?soak={number} HTTP/1.1\r\nHost: {origin}\r\n{more}\r\n").into_bytes()
    };
    match dice.roll(10) {
        0 => head("POST", "/echo", &format!("Content-Length: {size}\r\n"))
            .into_iter()
            .chain(pattern(size as usize))
            .collect(),
        1 => head("GET", &format!("/slow/{}", dice.roll(200)), ""),
        2 => head("GET", "/social", ""),
        3 => format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n").into_bytes(),
        4 => head("GET", "/bytes/1", "Content-Length: nonsense\r\n"),
        5 => head("GET", &format!("/bytes/{size}"), &format!("X-Big: {}\r\n", "b".repeat(dice.roll(30_000) as usize))),
        _ => head("GET", &format!("/bytes/{size}"), ""),
    }
}

/// Reads an answer's head, byte by byte so that nothing behind it is taken; its Content-Length.
fn answer_head(stream: &mut TcpStream) -> Option<usize> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    Some(length.and_then(|length| length.trim().parse().ok()).unwrap_or(0))
}

/// A tunnel is used for a moment, or not at all; its connection never goes on.
fn through_the_tunnel(stream: &mut TcpStream, dice: &mut Dice, origin: SocketAddr) -> bool {
    if dice.chance(70) {
        let request = format!("GET /bytes/{} HTTP/1.1\r\nHost: {origin}\r\n\r\n", dice.roll(300_000));
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read(&mut vec![0; 1 + dice.roll(100_000) as usize]);
    }
    false
}
