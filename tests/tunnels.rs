//! Tunnels through a real node: the server a client names to TLS stands in the record, and nobody waits for it.

mod harness;

use harness::wait_until;
use harness::watched::Watched;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

const HELLO: &[u8] = include_bytes!("../fuzz/corpus/client_hello/openssl-1.3");
const IN_MANY_RECORDS: &[u8] = include_bytes!("../fuzz/corpus/client_hello/many-records");
const WITHOUT_NAME: &[u8] = include_bytes!("../fuzz/corpus/client_hello/openssl-1.2-no-name");

/// What, what comes with the CONNECT, what comes later, the size of its pieces, the name in the record.
type Case<'a> = (&'a str, &'a [u8], &'a [u8], usize, &'a str);

#[test]
fn the_server_named_to_tls_stands_in_the_record_however_it_comes() {
    let watched = Watched::start();
    let mut nameless = HELLO.to_vec();
    let at = nameless.windows(15).position(|part| part == b"www.example.com").unwrap();
    nameless[at + 3] = b' ';
    let long = [&b"\x16\x03\x01\x40\x00\x01\x00\x3f\x00"[..], &[0; 40_000]].concat();
    let followed = [HELLO, b"\x14\x03\x03\x00\x01\x01", &[0x17; 3_000]].concat();
    let table: [Case; 12] = [
        ("in one piece", b"", HELLO, 1 << 20, "www.example.com"),
        ("byte by byte", b"", HELLO, 1, "www.example.com"),
        ("with the CONNECT", HELLO, b"", 1, "www.example.com"),
        ("half with the CONNECT", &HELLO[..200], &HELLO[200..], 1 << 20, "www.example.com"),
        ("half with the CONNECT, then in pieces", &HELLO[..3], &HELLO[3..], 100, "www.example.com"),
        ("in many records", b"", IN_MANY_RECORDS, 7, "www.example.com"),
        ("with more behind it", b"", &followed, 1 << 20, "www.example.com"),
        ("without a name", b"", WITHOUT_NAME, 1 << 20, ""),
        ("with a name that is none", b"", &nameless, 1 << 20, ""),
        ("longer than a hello may be", b"", &long, 1 << 20, ""),
        ("no TLS", b"", b"SSH-2.0-client\r\n", 3, ""),
        ("never whole", &HELLO[..100], &HELLO[100..300], 50, ""),
    ];
    for (what, early, later, size, name) in table {
        let origin = echo(b"");
        let mut stream = connect(&watched, origin, early);
        // Each piece comes back before the next one goes: whoever waited for more of a hello would wait for ever.
        assert_eq!(take(&mut stream, early.len()), early, "{what}");
        for piece in later.chunks(size) {
            let (mut sender, sent) = (stream.try_clone().unwrap(), piece.to_vec());
            let sending = thread::spawn(move || sender.write_all(&sent).unwrap());
            assert_eq!(take(&mut stream, piece.len()), piece, "{what}");
            sending.join().unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{what}");
        let record = watched.record(&origin.to_string());
        assert_eq!(record.sni, name, "{what}");
        let bytes = (early.len() + later.len()) as u64;
        assert_eq!((record.upload, record.download, record.ending.as_str()), (bytes, bytes, "--"), "{what}");
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() {
    let watched = Watched::start();
    let origin = echo(b"220 mail.example.com\r\n");
    let mut stream = connect(&watched, origin, b"");
    assert_eq!(take(&mut stream, 22), b"220 mail.example.com\r\n");
    // TLS may begin later, as with STARTTLS: nobody takes that for the beginning.
    stream.write_all(b"STARTTLS\r\n").unwrap();
    assert_eq!(take(&mut stream, 10), b"STARTTLS\r\n");
    stream.write_all(HELLO).unwrap();
    assert_eq!(take(&mut stream, HELLO.len()), HELLO);
    drop(stream);
    assert_eq!(watched.record(&origin.to_string()).sni, "");
}

#[test]
fn a_node_that_is_killed_does_not_forget_the_name() {
    let watched = Watched::start();
    let origin = echo(b"");
    let mut stream = connect(&watched, origin, b"");
    stream.write_all(HELLO).unwrap();
    assert_eq!(take(&mut stream, HELLO.len()), HELLO);
    watched.node.kill();
    watched.node.start();
    let record = watched.record(&origin.to_string());
    assert_eq!((record.sni.as_str(), record.ending.as_str()), ("www.example.com", "KD"));
}

/// A tunnel to `origin`; `early` comes in one piece with the request.
fn connect(watched: &Watched, origin: SocketAddr, early: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(watched.proxy()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n");
    stream.write_all(&[request.as_bytes(), early].concat()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(take(&mut stream, 1));
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
    wait_until("the tunnel is open", || watched.node.status().unwrap().counters.tunnels_open > 0);
    stream
}

fn take(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A server that says `first`, then sends back whatever comes, for one connection.
fn echo(first: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(first).unwrap();
        let mut piece = [0; 16_384];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            if stream.write_all(&piece[..count]).is_err() {
                return;
            }
        }
    });
    address
}
