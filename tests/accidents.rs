//! What clients and tunnels do to a whole node over a day, in a minute: it serves the others, and nothing stays behind.

mod harness;

use harness::Origin;
use harness::client::Client;
use harness::wait_until;
use harness::watched::Watched;
use harness::watched::endless_origin;
use harness::watched::warm_up;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tidegate::daemon::origin::pattern;
use tidegate::record::Record;
use tidegate::sys::sockets;

/// Clients that have an accident in the test of accidents.
const ACCIDENTS: usize = 2_000;

#[test]
fn two_thousand_accidents_disturb_nobody_and_each_exchange_has_its_line() {
    let mut watched = Watched::start();
    warm_up(&watched);
    let (descriptors, resident) = (watched.descriptors(), watched.resident_kib());
    let before = watched.records().len();
    let (endless, _) = endless_origin(Duration::from_millis(5));
    let (stop, good) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for worker in 0..3 {
            let (watched, stop, good) = (&watched, &stop, &good);
            scope.spawn(move || good_traffic(watched, worker, stop, good));
        }
        let unlucky: Vec<_> = (0..4).map(|part| (part, &watched)).collect();
        let unlucky: Vec<_> = unlucky
            .into_iter()
            .map(|(part, watched)| {
                scope.spawn(move || accidents(watched, endless, part * ACCIDENTS / 4..(part + 1) * ACCIDENTS / 4))
            })
            .collect();
        unlucky.into_iter().for_each(|thread| thread.join().unwrap());
        stop.store(true, Ordering::Relaxed);
    });
    watched.wait_for_no_connections();
    let good = good.load(Ordering::Relaxed) as usize;
    assert!(good > 100, "only {good} good exchanges");

    // Every accident that said something is one exchange with one line; those that said nothing are none. Of a connection
    // that is reset before the node came to read it, there is nothing to tell.
    let spoke: Vec<usize> = (0..ACCIDENTS).filter(|number| Accident::of(*number) != Accident::Mute).collect();
    let seen_for_sure = spoke.iter().filter(|number| !resets(**number)).count();
    let (least, most) = (before + good + seen_for_sure, before + good + spoke.len());
    let mut lines = 0;
    wait_until("a line for each exchange", || {
        thread::sleep(Duration::from_millis(300));
        let now = watched.records().len();
        now >= least && std::mem::replace(&mut lines, now) == now
    });
    let records = watched.records();
    assert!(records.len() <= most, "{} lines of at most {most} exchanges", records.len());
    let mut endings: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut by_number: HashMap<usize, &Record> = HashMap::new();
    for record in &records[before..] {
        if let Some((_, number)) = record.url.split_once("?accident=") {
            assert!(by_number.insert(number.parse().unwrap(), record).is_none(), "{} twice", record.url);
        }
        let kind = record.url.rsplit('/').next().unwrap().split('?').next().unwrap();
        let kind = kind.trim_end_matches(|c: char| c.is_ascii_digit() || c == ':');
        *endings.entry((format!("{} {kind}", record.method), record.ending.to_string())).or_default() += 1;
    }
    println!("{good} good exchanges meanwhile; endings: {endings:?}");
    for number in 0..ACCIDENTS {
        let accident = Accident::of(number);
        if matches!(accident, Accident::HalfHead | Accident::Mute | Accident::Tunnel | Accident::Noise) {
            continue;
        }
        let Some(record) = by_number.get(&number) else {
            assert!(resets(number) && accident != Accident::HalfAnswer, "no line for {accident:?} {number}");
            continue;
        };
        let ending = record.ending.to_string();
        let sensible = match accident {
            Accident::HalfBody | Accident::HalfChunks | Accident::HalfAnswer => ending.starts_with('C'),
            _ => ending.starts_with('C') || ending == "--",
        };
        assert!(sensible, "{accident:?} ended {ending}: {}", record.url);
    }
    // An origin that ends takes the idle connections to it along; they would be kept for their half minute otherwise.
    drop(std::mem::replace(&mut watched.origin, Origin::start()));
    wait_until("the descriptors are back", || watched.descriptors() <= descriptors + 16);
    let grown = watched.resident_kib().saturating_sub(resident);
    println!("descriptors {descriptors} -> {}, memory grown by {grown} KiB", watched.descriptors());
    assert!(grown < 32 * 1024, "memory grew by {grown} KiB");
}

fn good_traffic(watched: &Watched, worker: usize, stop: &AtomicBool, good: &AtomicU64) {
    let mut client = watched.client();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let size = (number * 997 + worker * 31) % 50_000;
        let answer = match number % 3 {
            0 => client.get(&watched.url(&format!("/bytes/{size}"))),
            1 => client.get(&watched.url(&format!("/chunked/{size}"))),
            _ => client.post_chunked(&watched.url("/echo"), &pattern(size)),
        };
        let answer = answer.unwrap_or_else(|error| panic!("good request {number} of {worker}: {error}"));
        assert!(answer.status == 200 && answer.body == pattern(size), "good request {number}: {}", answer.head);
        good.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    Mute,
    HalfHead,
    HalfBody,
    HalfChunks,
    HalfAnswer,
    Impatient,
    Tunnel,
    Noise,
}

impl Accident {
    fn of(number: usize) -> Accident {
        [
            Accident::Mute,
            Accident::HalfHead,
            Accident::HalfBody,
            Accident::HalfChunks,
            Accident::HalfAnswer,
            Accident::Impatient,
            Accident::Tunnel,
            Accident::Noise,
        ][number % 8]
    }

    /// What the client sends before it stops; `chance` decides how far it gets.
    fn bytes(self, number: usize, chance: usize, origin: SocketAddr) -> Vec<u8> {
        let head = |method: &str, path: &str, more: &str| {
            format!("{method} http://{origin}{path}?accident={number} HTTP/1.1\r\nHost: {origin}\r\n{more}\r\n")
                .into_bytes()
        };
        let cut = |mut bytes: Vec<u8>, least: usize| {
            bytes.truncate(least + chance % (bytes.len() - least));
            bytes
        };
        match self {
            Accident::Mute => Vec::new(),
            // Not its last byte, and at least one.
            Accident::HalfHead => cut(head("GET", "/bytes/1", "Accept: */*\r\n"), 1),
            Accident::HalfBody => {
                let head = head("POST", "/echo", "Content-Length: 5000\r\n");
                let whole = head.len();
                cut([head, pattern(5_000)].concat(), whole)
            }
            Accident::HalfChunks => {
                let head = head("POST", "/echo", "Transfer-Encoding: chunked\r\n");
                let whole = head.len();
                cut(
                    [head, b"1f4\r\n".to_vec(), vec![b'x'; 500], b"\r\n1f4\r\n".to_vec(), vec![b'x'; 500]].concat(),
                    whole,
                )
            }
            Accident::HalfAnswer => head("GET", "/", ""),
            Accident::Impatient => head("GET", "/slow/300", ""),
            Accident::Tunnel => format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\nGET / HT").into_bytes(),
            Accident::Noise => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no HTTP at all\r\n\r\n".to_vec(),
        }
    }
}

/// Accidents with a crowd of them under way at any moment, every second one ending in a reset.
fn accidents(watched: &Watched, endless: SocketAddr, numbers: std::ops::Range<usize>) {
    let mut under_way = VecDeque::new();
    for number in numbers {
        let chance = chance(number);
        let mut stream = TcpStream::connect(watched.proxy()).unwrap();
        let accident = Accident::of(number);
        let origin = if accident == Accident::HalfAnswer { endless } else { watched.origin.address };
        stream.write_all(&accident.bytes(number, chance, origin)).unwrap();
        if accident == Accident::HalfAnswer {
            stream.read_exact(&mut vec![0; 1 + chance % 50_000]).unwrap();
        }
        under_way.push_back((stream, number));
        if under_way.len() > 25 {
            under_way.pop_front().into_iter().for_each(end);
        }
        thread::sleep(Duration::from_micros((chance % 2_000) as u64));
    }
    under_way.into_iter().for_each(end);
}

fn end((stream, number): (TcpStream, usize)) {
    if resets(number) {
        let _ = sockets::reset_on_close(&stream);
    }
}

/// How a client's accident goes on from its number: the same in every run.
fn chance(number: usize) -> usize {
    number.wrapping_mul(0x9e37_79b9) >> 7
}

fn resets(number: usize) -> bool {
    chance(number).is_multiple_of(2)
}

#[test]
fn a_tunnel_that_rests_holds_two_descriptors_and_no_processor() {
    const TUNNELS: usize = 400;
    let watched = Watched::start();
    warm_up(&watched);
    let descriptors = watched.descriptors();
    let mut tunnels: Vec<Client> = (0..TUNNELS).map(|_| watched.tunnel(watched.origin.address)).collect();
    // Each has been used once.
    for tunnel in &mut tunnels {
        tunnel.send(b"GET /bytes/1000 HTTP/1.1\r\nHost: origin\r\n\r\n").unwrap();
        assert!(tunnel.receive(false).unwrap().body == pattern(1_000));
    }
    let held = watched.descriptors() - descriptors;
    assert!(held <= 2 * TUNNELS + 16, "{TUNNELS} resting tunnels hold {held} descriptors");
    let before = watched.ticks();
    thread::sleep(Duration::from_secs(2));
    let spent = watched.ticks() - before;
    println!("{TUNNELS} resting tunnels: {held} descriptors, {spent} ticks in 2 s");
    assert!(spent <= 20, "resting tunnels cost {spent} ticks of 200");
    drop(tunnels);
    wait_until("the descriptors are back", || watched.descriptors() <= descriptors + 16);
}

#[test]
fn a_client_that_stops_reading_holds_its_origin_back() {
    const EACH: usize = 8;
    let watched = Watched::start();
    warm_up(&watched);
    let (address, poured) = endless_origin(Duration::ZERO);
    let resident = watched.resident_kib();
    let mut deaf = Vec::new();
    for _ in 0..EACH {
        let request = format!("GET http://{address}/ HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let mut plain = watched.client();
        plain.send(request.as_bytes()).unwrap();
        let mut tunnel = watched.tunnel(address);
        tunnel.send(b"GET / HTTP/1.1\r\nHost: origin\r\n\r\n").unwrap();
        deaf.extend([plain, tunnel]);
    }
    let mut last = 0;
    wait_until("the origin pours no more", || {
        thread::sleep(Duration::from_millis(500));
        let now = poured.load(Ordering::Relaxed);
        now > 0 && std::mem::replace(&mut last, now) == now
    });
    let grown = watched.resident_kib().saturating_sub(resident);
    println!("{} deaf clients: the origin poured {last} bytes, memory grew by {grown} KiB", deaf.len());
    assert!(grown < 16 * 1024, "memory grew by {grown} KiB");
}
