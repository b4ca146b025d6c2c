//! Exchanges under way: every one that a kill interrupts gets its record.

mod harness;

use harness::wait_until;
use harness::watched::Watched;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;
use tidegate::admin::Action;
use tidegate::admin::Outcome;

#[test]
fn a_killed_node_leaves_one_record_of_each_exchange_and_tunnel_under_way() {
    let watched = Watched::start();
    let (silent, slow) =
        (origin(b""), origin(b"HTTP/1.1 200 OK\r\nContent-Type: text/x-slow\r\nContent-Length: 9\r\n\r\nhalf"));
    let mut open = Vec::new();
    for index in 0..20 {
        open.push(ask(&watched, &format!("GET http://{silent}/waits-{index} HTTP/1.1\r\nHost: {silent}\r\n\r\n")));
        open.push(ask(
            &watched,
            &format!("POST http://{silent}/posts-{index} HTTP/1.1\r\nHost: {silent}\r\nContent-Length: 10\r\n\r\n1234"),
        ));
        let mut half = ask(&watched, &format!("GET http://{slow}/half-{index} HTTP/1.1\r\nHost: {slow}\r\n\r\n"));
        until(&mut half, b"half");
        let mut tunnel = ask(&watched, &format!("CONNECT {silent} HTTP/1.1\r\nHost: {silent}\r\n\r\n"));
        until(&mut tunnel, b"\r\n\r\n");
        open.extend([half, tunnel]);
    }
    let mut client = watched.client();
    for index in 0..50 {
        assert_eq!(client.get(&watched.url(&format!("/?whole-{index}"))).unwrap().status, 200);
    }
    let under_way = || match watched.node.ask(Action::Connections { limit: 1_000 }) {
        Ok(Outcome::Connections(under_way)) => under_way,
        other => panic!("{other:?}"),
    };
    wait_until("every one is listed", || {
        let oldest = under_way().oldest;
        let count = |phase: &str| oldest.iter().filter(|one| one.phase == phase).count();
        oldest.len() == 80 && count("waiting for the answer") == 40 && count("transferring") == 40
    });
    let first = &under_way().oldest[0];
    assert!(first.url.ends_with("/waits-0") && first.peer == "127.0.0.1" && !first.rule.is_empty(), "{first:?}");
    watched.node.kill();
    watched.node.start();
    assert_eq!(under_way().count, 0, "nothing is under way in the new process");

    let records = watched.records();
    let told = |path: &str| records.iter().filter(|record| record.url.contains(path)).collect::<Vec<_>>();
    for (path, ending, mime, status) in
        [("/waits-", "KH", "-", 0), ("/posts-", "KH", "-", 0), ("/half-", "KD", "text/x-slow", 200)]
    {
        let found = told(path);
        assert_eq!(found.len(), 20, "{path}");
        for record in found {
            assert_eq!((record.ending.as_str(), record.status), (ending, status), "{}", record.url);
            assert!(record.mime == mime || (mime == "-" && record.mime.is_empty()), "{} {:?}", record.url, record.mime);
        }
    }
    let tunnels = told(&silent.to_string()).into_iter().filter(|record| record.method == "CONNECT").collect::<Vec<_>>();
    assert_eq!(tunnels.len(), 20);
    assert!(tunnels.iter().all(|record| record.ending == "KD"), "{:?}", tunnels[0]);
    assert_eq!(told("whole-").len(), 50, "what was complete is there once");
    let mut ids: Vec<&str> = records.iter().map(|record| record.record_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), records.len(), "no exchange has two records");
}

/// An origin that accepts everybody and says `word` to whoever has said something.
fn origin(word: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if !word.is_empty() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(word);
            }
            held.push(stream);
        }
    });
    address
}

fn ask(watched: &Watched, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(watched.proxy()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn until(stream: &mut TcpStream, end: &[u8]) {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(end) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the answer ended: {}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
}
