//! Behind a balancer: whom the node takes a client for. Tables and models of the PROXY header, real nodes, a real HAProxy.

mod harness;

use harness::Node;
use harness::test_policy;
use harness::wait_until;
use nix::sys::socket::SockaddrStorage;
use nix::sys::socket::bind;
use nix::sys::socket::connect;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::daemon::layout::NodeLayout;
use tidegate::limits::PROXY_HEADER_BYTES_MAX;
use tidegate::record::Record;
use tidegate::sys::sockets;
use tidegate::wire::proxy_protocol::ProxyHeader;
use tidegate::wire::proxy_protocol::ProxyHeaderError;
use tidegate::wire::proxy_protocol::ProxySaid;
use tidegate::wire::proxy_protocol::crc32c;
use tidegate::wire::proxy_protocol::parse_proxy_header;

// --- the header: tables ---------------------------------------------------------------------------------------------

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x1f, 0x90];

/// A version 2 header with these first bytes behind the signature, and this rest.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
}

/// The header with a checksum TLV behind it: the right one, changed by `wrong`.
fn with_checksum(family: u8, rest: &[u8], wrong: u32) -> Vec<u8> {
    let mut header = binary(0x21, family, &[rest, &tlv(3, &[0; 4])].concat());
    let sum = crc32c([&header, b"", b""]) ^ wrong;
    let end = header.len();
    header[end - 4..].copy_from_slice(&sum.to_be_bytes());
    header
}

fn said(client: &str, balancer: &str) -> ProxySaid {
    ProxySaid::Addresses { client: client.parse().unwrap(), balancer: balancer.parse().unwrap() }
}

/// Headers that are right, each with what it says.
fn accepted() -> Vec<(Vec<u8>, ProxySaid)> {
    let v4 = || said("192.0.2.1:56324", "198.51.100.1:8080");
    let v6_bytes: Vec<u8> = [
        &"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets()[..],
        &"2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets(),
        &[0xdc, 0x04, 0x1f, 0x90],
    ]
    .concat();
    let v6 = || said("[2001:db8::1]:56324", "[2001:db8::2]:8080");
    let line = |text: &str| text.as_bytes().to_vec();
    let ssl = tlv(0x20, &[&[1, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"CN")].concat());
    vec![
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 56324 8080\r\n"), v4()),
        (line("PROXY TCP6 2001:db8::1 2001:db8::2 56324 8080\r\n"), v6()),
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 0 65535\r\n"), said("192.0.2.1:0", "198.51.100.1:65535")),
        (line("PROXY UNKNOWN\r\n"), ProxySaid::Nothing),
        (line("PROXY UNKNOWN ffff::1 whatever stands here\r\n"), ProxySaid::Nothing),
        (line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(91))), ProxySaid::Nothing),
        (binary(0x21, 0x11, V4), v4()),
        (binary(0x21, 0x21, &v6_bytes), v6()),
        (binary(0x20, 0x00, b""), ProxySaid::Nothing),
        (binary(0x20, 0x11, V4), ProxySaid::Nothing),
        (binary(0x20, 0xff, b"what LOCAL says is discarded"), ProxySaid::Nothing),
        (binary(0x21, 0x00, b"so is what nobody specified"), ProxySaid::Nothing),
        (binary(0x21, 0x31, &[7; 216]), ProxySaid::Nothing),
        (binary(0x21, 0x11, &[V4, &tlv(4, b"padding"), &tlv(0xe0, b"a balancer's own")].concat()), v4()),
        (
            binary(0x21, 0x11, &[V4, &tlv(2, "bücher.test".as_bytes()), &tlv(1, b"h2"), &tlv(5, &[9; 128])].concat()),
            v4(),
        ),
        (binary(0x21, 0x11, &[V4, &ssl].concat()), v4()),
        (binary(0x21, 0x11, &[V4, &tlv(0x30, b"blue"), &tlv(4, b"")].concat()), v4()),
        (with_checksum(0x11, V4, 0), v4()),
        (with_checksum(0x21, &[&v6_bytes[..], &tlv(4, &[0; 64])].concat(), 0), v6()),
    ]
}

/// Headers that are refused, each with the reason.
fn refused() -> Vec<(Vec<u8>, ProxyHeaderError)> {
    use ProxyHeaderError::*;
    let line = |text: &str| text.as_bytes().to_vec();
    let v4_and = |rest: &[u8]| binary(0x21, 0x11, &[V4, rest].concat());
    vec![
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 56324 8080\n"), MalformedLine),
        (line("PROXY  TCP4 192.0.2.1 198.51.100.1 56324 8080\r\n"), MalformedLine),
        (line("PROXY TCP4  192.0.2.1 198.51.100.1 56324 8080\r\n"), MalformedLine),
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 56324 8080 \r\n"), MalformedLine),
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n"), MalformedLine),
        (line("PROXY TCP4\t192.0.2.1 198.51.100.1 56324 8080\r\n"), MalformedLine),
        (line("PROXY tcp4 192.0.2.1 198.51.100.1 56324 8080\r\n"), MalformedLine),
        (line("PROXY UDP4 192.0.2.1 198.51.100.1 56324 8080\r\n"), MalformedLine),
        (line("PROXY \r\n"), MalformedLine),
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 56324 8080\r\r\n"), MalformedAddress),
        (line("PROXY TCP4 192.0.2.01 198.51.100.1 56324 8080\r\n"), MalformedAddress),
        (line("PROXY TCP4 192.0.2 198.51.100.1 56324 8080\r\n"), MalformedAddress),
        (line("PROXY TCP4 2001:db8::1 2001:db8::2 56324 8080\r\n"), MalformedAddress),
        (line("PROXY TCP6 192.0.2.1 198.51.100.1 56324 8080\r\n"), MalformedAddress),
        (line("PROXY TCP6 [2001:db8::1] 2001:db8::2 56324 8080\r\n"), MalformedAddress),
        (line("PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 8080\r\n"), MalformedAddress),
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 056324 8080\r\n"), MalformedAddress),
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 +5632 8080\r\n"), MalformedAddress),
        (line("PROXY TCP4 192.0.2.1 198.51.100.1 65536 8080\r\n"), MalformedAddress),
        (line("PROXY TCP4 192.0.2.1 198.51.100.1  8080\r\n"), MalformedAddress),
        (b"PROXY TCP4 192.0.2.\xff 198.51.100.1 56324 8080\r\n".to_vec(), MalformedLine),
        (line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(92))), LineTooLong),
        (line(&"PROXY TCP4 ".repeat(20)), LineTooLong),
        (binary(0x11, 0x11, V4), UnknownVersion(1)),
        (binary(0x31, 0x11, V4), UnknownVersion(3)),
        (binary(0x22, 0x11, V4), UnknownCommand(2)),
        (binary(0x2f, 0x00, b""), UnknownCommand(15)),
        (binary(0x21, 0x12, V4), UnknownFamily(0x12)),
        (binary(0x21, 0x10, V4), UnknownFamily(0x10)),
        (binary(0x21, 0x01, V4), UnknownFamily(0x01)),
        (binary(0x21, 0x41, V4), UnknownFamily(0x41)),
        (binary(0x21, 0x32, &[0; 216]), UnknownFamily(0x32)),
        (binary(0x21, 0x11, &V4[..11]), Truncated),
        (binary(0x21, 0x21, V4), Truncated),
        (binary(0x21, 0x31, &[0; 215]), Truncated),
        (v4_and(&[4]), MalformedTlv(4)),
        (v4_and(&[4, 0]), MalformedTlv(4)),
        (v4_and(&[4, 0, 2, 1]), MalformedTlv(4)),
        (v4_and(&[tlv(4, b"x"), vec![0xe1, 0xff, 0xff]].concat()), MalformedTlv(0xe1)),
        (v4_and(&tlv(2, b"")), MalformedTlv(2)),
        (v4_and(&tlv(2, b"b\xfccher")), MalformedTlv(2)),
        (v4_and(&tlv(3, &[0; 3])), MalformedTlv(3)),
        (v4_and(&tlv(3, &[0; 5])), MalformedTlv(3)),
        (v4_and(&tlv(5, &[0; 129])), MalformedTlv(5)),
        (v4_and(&tlv(0x20, &[1, 0, 0, 0])), MalformedTlv(0x20)),
        (v4_and(&tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 9, b'T'])), MalformedTlv(0x20)),
        (v4_and(&tlv(0x30, b"bl\xfc")), MalformedTlv(0x30)),
        (v4_and(&tlv(3, &[0; 4])), BadChecksum),
        (with_checksum(0x11, V4, 1), BadChecksum),
        (with_checksum(0x11, V4, 0x8000_0000), BadChecksum),
        (with_checksum(0x11, &[V4, &tlv(3, &[0; 4])].concat(), 0), BadChecksum),
        ([SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(), TooLong(16 + 65_535)),
    ]
}

#[test]
fn headers_that_are_right_say_what_they_say_and_end_where_they_end() {
    for (header, expected) in accepted() {
        let whole = Ok(ProxyHeader::Whole { bytes: header.len(), said: expected });
        assert_eq!(parse_proxy_header(&header), whole, "{}", header.escape_ascii());
        let request_behind = [&header[..], b"GET http://a.test/ HTTP/1.1\r\n"].concat();
        assert_eq!(parse_proxy_header(&request_behind), whole, "{}", header.escape_ascii());
    }
}

#[test]
fn headers_that_are_wrong_are_refused_for_their_reason() {
    for (header, why) in refused() {
        assert_eq!(parse_proxy_header(&header), Err(why), "{}", header.escape_ascii());
    }
    let longest = binary(0x20, 0, &vec![0; PROXY_HEADER_BYTES_MAX - 16]);
    assert!(matches!(parse_proxy_header(&longest), Ok(ProxyHeader::Whole { .. })));
    let longer = binary(0x20, 0, &vec![0; PROXY_HEADER_BYTES_MAX - 15]);
    assert_eq!(parse_proxy_header(&longer), Err(ProxyHeaderError::TooLong(PROXY_HEADER_BYTES_MAX + 1)));
}

#[test]
fn what_is_no_header_is_known_by_its_first_different_byte() {
    for other in [
        "GET / HTTP/1.1\r\n",
        "PRO\0",
        "PROXX",
        "proxy ",
        "\r\n\r\nGET / HTTP/1.1",
        "\n",
        "\x16\x03\x01",
        "\r\n\r\n\0\r\nQUIX\n",
    ] {
        assert_eq!(parse_proxy_header(other.as_bytes()), Ok(ProxyHeader::Absent), "{}", other.escape_debug());
    }
    for maybe in ["", "P", "PROXY", "\r", "\r\n\r\n", "\r\n\r\n\0\r\nQUIT\n", "\r\n\r\n\0\r\nQUIT\n!\x11\0"] {
        assert_eq!(parse_proxy_header(maybe.as_bytes()), Ok(ProxyHeader::Partial), "{}", maybe.escape_debug());
    }
}

#[test]
fn the_checksum_is_the_one_of_the_standard() {
    // RFC 3720 appendix B.4 and the usual check value.
    let table: [(&[u8], u32); 4] =
        [(b"123456789", 0xe306_9283), (&[0; 32], 0x8a91_36aa), (&[0xff; 32], 0x62a8_ab43), (b"", 0)];
    for (bytes, expected) in table {
        assert_eq!(crc32c([bytes, b"", b""]), expected);
        let (a, b) = bytes.split_at(bytes.len() / 3);
        assert_eq!(crc32c([a, b"", b]), expected);
    }
}

// --- the header: models ---------------------------------------------------------------------------------------------

/// What comes of the bytes when they arrive piece by piece.
fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut last = Ok(ProxyHeader::Partial);
    for end in ends {
        last = parse_proxy_header(&bytes[..end]);
        if last != Ok(ProxyHeader::Partial) {
            break;
        }
    }
    last
}

fn any_case() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<Vec<u8>> =
        accepted().into_iter().map(|case| case.0).chain(refused().into_iter().map(|case| case.0)).collect();
    prop::sample::select(all)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn a_header_means_the_same_however_it_is_cut(
        bytes in any_case(),
        behind in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(0usize..400, 0..8),
    ) {
        let bytes = [bytes, behind].concat();
        prop_assert_eq!(in_pieces(&bytes, &cuts), in_pieces(&bytes, &[]));
    }

    #[test]
    fn mutations_never_panic_and_never_take_more_than_is_there(
        bytes in any_case(),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        keep in any::<usize>(),
    ) {
        let mut bytes = bytes;
        for (at, to) in changes {
            let at = at % bytes.len();
            bytes[at] = to;
        }
        bytes.truncate(keep % (bytes.len() + 1));
        if let Ok(ProxyHeader::Whole { bytes: taken, .. }) = parse_proxy_header(&bytes) {
            prop_assert!(taken <= bytes.len() && taken <= PROXY_HEADER_BYTES_MAX);
        }
    }

    #[test]
    fn a_checksum_finds_every_changed_bit(rest in prop::collection::vec(any::<u8>(), 0..64), bit in 0usize..(12 * 8)) {
        let whole = with_checksum(0x11, &[V4, &tlv(0xe0, &rest)].concat(), 0);
        let is_whole = matches!(parse_proxy_header(&whole), Ok(ProxyHeader::Whole { .. }));
        prop_assert!(is_whole);
        // A bit of the addresses: everything else is looked at before the checksum.
        let mut changed = whole;
        changed[16 + bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(parse_proxy_header(&changed), Err(ProxyHeaderError::BadChecksum));
    }
}

// --- a node behind balancers ----------------------------------------------------------------------------------------

/// A node by itself, an origin that answers with the head it received, and the node's records.
struct Behind {
    node: Node,
    origin: SocketAddr,
    dir: TempDir,
}

impl Behind {
    /// With these startup params, and this behind the test policy.
    fn start(params: &[(&str, &str)], policy: &str) -> Behind {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap();
        let layout = NodeLayout::at(dir.path(), "alone", free(), free());
        let extra: BTreeMap<&str, String> = params.iter().map(|(key, value)| (*key, value.to_string())).collect();
        layout.write(&dir.path().join("no.key"), &[("ROLE", "standalone".into())], &extra).unwrap();
        let behind = Behind { node: Node::of(&layout), origin: mirror(), dir };
        behind.node.start();
        behind.apply(policy);
        behind
    }

    fn apply(&self, policy: &str) {
        // Clients of the documentation's networks are clients; loopback is one only as itself.
        let document = test_policy(self.origin, policy)
            .replace("\"127.0.0.0/8\"", "\"127.0.0.0/8\", \"192.0.2.0/24\", \"2001:db8::/32\"");
        let outcome = self.node.ask(Action::PolicyApply {
            document,
            comment: String::new(),
            base: None,
            how: Default::default(),
        });
        assert!(matches!(outcome, Ok(Outcome::Applied { .. })), "{outcome:?}");
    }

    fn proxy(&self) -> SocketAddr {
        self.node.layout.proxy
    }

    fn get(&self, name: &str) -> String {
        format!("GET http://{0}/{name} HTTP/1.1\r\nHost: {0}\r\n\r\n", self.origin)
    }

    /// What comes back for these bytes on a connection of their own, until the node closes or the answer is whole.
    fn say(&self, bytes: &[u8]) -> String {
        let mut client = TcpStream::connect(self.proxy()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(bytes).unwrap();
        answer(&mut client)
    }

    /// The record of the request for `/name`.
    fn record(&self, name: &str) -> Record {
        let mut found = None;
        wait_until(&format!("the record of {name}"), || {
            let text = fs::read(&self.node.layout.log).unwrap_or_default();
            let lines = text.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
            let mut records = lines.filter_map(|line| tidegate::record::line::parse(line).ok());
            found = records.find(|record| record.url.ends_with(&format!("/{name}")));
            found.is_some()
        });
        found.unwrap()
    }

    fn front(&self) -> tidegate::admin::Front {
        self.node.status().unwrap().front
    }
}

fn free() -> SocketAddr {
    tidegate::daemon::layout::free_ports(1).unwrap()[0]
}

/// Reads one answer with a length, or what there is before the close.
fn answer(stream: &mut TcpStream) -> String {
    let (mut got, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| body.len() >= length) {
                return text;
            }
        }
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => got.extend_from_slice(&piece[..count]),
            _ => return text,
        }
    }
}

/// An origin that answers every request with the head it received.
fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let (mut got, mut piece) = (Vec::new(), [0; 4096]);
                loop {
                    while let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") {
                        let head: Vec<u8> = got.drain(..end + 4).collect();
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
                        if stream.write_all(&[answer.as_bytes(), &head].concat()).is_err() {
                            return;
                        }
                    }
                    match stream.read(&mut piece) {
                        Ok(count) if count > 0 => got.extend_from_slice(&piece[..count]),
                        _ => return,
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_trusted_balancers_word_is_the_clients_address_in_policy_and_record() {
    let node = Behind::start(&[("PROXY_PROTOCOL", "required"), ("TRUSTED_PROXIES", "127.0.0.1")], "");
    let headers = [
        ("v1", b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 80\r\n".to_vec(), "192.0.2.7"),
        ("v6", b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 80\r\n".to_vec(), "2001:db8::7"),
        ("v2", binary(0x21, 0x11, V4), "192.0.2.1"),
        ("crc", with_checksum(0x11, V4, 0), "192.0.2.1"),
        ("local", binary(0x20, 0, b""), "127.0.0.1"),
        ("unknown", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ];
    for (name, header, client) in &headers {
        let said = node.say(&[header, node.get(name).as_bytes()].concat());
        assert!(said.starts_with("HTTP/1.1 200"), "{name}: {said}");
        assert_eq!(node.record(name).client_ip, *client, "{name}");
    }
    // In pieces, each of its own segment.
    let mut client = TcpStream::connect(node.proxy()).unwrap();
    client.set_nodelay(true).unwrap();
    for piece in [&headers[3].1[..], node.get("pieces").as_bytes()].concat().chunks(7) {
        client.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(answer(&mut client).starts_with("HTTP/1.1 200"));
    assert_eq!(node.record("pieces").client_ip, "192.0.2.1");
    // The policy knows 192.0.2.0/24, not this one.
    let said = node.say(&[b"PROXY TCP4 203.0.113.9 198.51.100.1 5000 80\r\n", node.get("denied").as_bytes()].concat());
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    assert_eq!(node.record("denied").client_ip, "203.0.113.9");
    assert_eq!(node.front().proxy_header_refused, 0);
}

#[test]
fn what_is_no_good_header_is_closed_counted_and_told_but_not_each_time() {
    let node = Behind::start(&[("PROXY_PROTOCOL", "required"), ("TRUSTED_PROXIES", "127.0.0.1")], "");
    let bad = [
        [b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n", node.get("bad").as_bytes()].concat(),
        [&with_checksum(0x11, V4, 1)[..], node.get("bad").as_bytes()].concat(),
        [&binary(0x21, 0x12, V4)[..], node.get("bad").as_bytes()].concat(),
        node.get("bad").into_bytes(),
        b"\x16\x03\x01\x02\x00".to_vec(),
    ];
    for bytes in &bad {
        assert_eq!(node.say(bytes), "", "{}", bytes.escape_ascii());
    }
    // Half a header, then an end; and one that does not come.
    let mut half = TcpStream::connect(node.proxy()).unwrap();
    half.write_all(b"PROXY TCP4 192").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(answer(&mut half), "");
    let begun = std::time::Instant::now();
    assert_eq!(node.say(b"PROXY TCP4"), "");
    let took = begun.elapsed();
    assert!((2..8).contains(&took.as_secs()), "its own deadline is 3 s: {took:?}");
    assert_eq!(node.front().proxy_header_refused, bad.len() as u64 + 2);
    // A port check by the balancer is no refusal.
    drop(TcpStream::connect(node.proxy()).unwrap());
    assert!(node.say(&[&binary(0x20, 0, b"")[..], node.get("good").as_bytes()].concat()).starts_with("HTTP/1.1 200"));
    assert_eq!(node.front().proxy_header_refused, bad.len() as u64 + 2);
    let lines = node.node.journal().lines().filter(|line| line.contains("closed a connection from")).count();
    assert_eq!(lines, 1, "{}", node.node.journal());
    assert!(node.node.journal().contains("malformed PROXY header"), "{}", node.node.journal());
}

#[test]
fn only_trusted_peers_may_speak_it_and_modes_change_while_the_node_runs() {
    let node = Behind::start(&[("PROXY_PROTOCOL", "optional"), ("TRUSTED_PROXIES", "127.0.0.9")], "");
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 80\r\n";
    let with_header = |name: &str| [&header[..], node.get(name).as_bytes()].concat();
    assert!(node.say(node.get("plain").as_bytes()).starts_with("HTTP/1.1 200"));
    assert!(
        node.say(&with_header("forged")).starts_with("HTTP/1.1 400"),
        "who is not trusted sent a malformed request"
    );
    let submit = |values: &[(&str, &str)]| {
        let values = values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        match node.node.ask(Action::ParamsSubmit { values, force: false }) {
            Ok(Outcome::Submitted { live, waiting }) => assert!(waiting.is_empty() && !live.is_empty()),
            other => panic!("{other:?}"),
        }
    };
    submit(&[("TRUSTED_PROXIES", "127.0.0.1")]);
    wait_until("the balancer is trusted", || node.say(&with_header("trusted")).starts_with("HTTP/1.1 200"));
    assert_eq!(node.record("trusted").client_ip, "192.0.2.7");
    assert!(node.say(node.get("none").as_bytes()).starts_with("HTTP/1.1 200"), "optional");
    assert_eq!(node.record("none").client_ip, "127.0.0.1");
    submit(&[("PROXY_PROTOCOL", "required"), ("TRUSTED_PROXIES", "127.0.0.9")]);
    wait_until("strangers are closed", || node.say(node.get("stranger").as_bytes()).is_empty());
    submit(&[("PROXY_PROTOCOL", "off")]);
    wait_until("it is off", || node.say(&with_header("off")).starts_with("HTTP/1.1 400"));
}

#[test]
fn forwarding_fields_are_believed_from_trusted_peers_alone_and_origins_learn_what_policy_says() {
    let node = Behind::start(&[], "");
    let ask = |name: &str, fields: &str| {
        let request = format!("GET http://{0}/{name} HTTP/1.1\r\nHost: {0}\r\n{fields}\r\n", node.origin);
        let said = node.say(request.as_bytes());
        let (_, head) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{name}: {said}"));
        let about = |line: &&str| line.starts_with("X-Forwarded-For") || line.starts_with("Forwarded");
        let told: Vec<String> = head.lines().filter(about).map(str::to_string).collect();
        (told.join(" | "), node.record(name).client_ip)
    };
    let both = "X-Forwarded-For: 192.0.2.9\r\nForwarded: for=192.0.2.8\r\n";
    let at = |told: &str, client: &str| (told.to_string(), client.to_string());
    // By default nobody is believed and nobody told.
    assert_eq!(ask("default", both), at("", "127.0.0.1"));
    let table = [
        // (trusted?, believe, tell_origins, what the origin sees, whom the record names)
        (false, "x-forwarded-for", "as-received", "X-Forwarded-For: 192.0.2.9 | Forwarded: for=192.0.2.8", "127.0.0.1"),
        (false, "forwarded", "x-forwarded-for", "X-Forwarded-For: 127.0.0.1", "127.0.0.1"),
        (false, "nothing", "forwarded", "Forwarded: for=127.0.0.1", "127.0.0.1"),
        (true, "nothing", "nothing", "", "127.0.0.1"),
        (true, "x-forwarded-for", "nothing", "", "192.0.2.9"),
        (true, "forwarded", "nothing", "", "192.0.2.8"),
        (
            true,
            "x-forwarded-for",
            "x-forwarded-for",
            "X-Forwarded-For: 192.0.2.9 | X-Forwarded-For: 127.0.0.1",
            "192.0.2.9",
        ),
        (true, "forwarded", "forwarded", "Forwarded: for=192.0.2.8 | Forwarded: for=127.0.0.1", "192.0.2.8"),
    ];
    let mut trusted_now = false;
    for (number, (trusted, believe, tell, told, client)) in table.into_iter().enumerate() {
        if trusted != std::mem::replace(&mut trusted_now, trusted) {
            let values = BTreeMap::from([("TRUSTED_PROXIES".to_string(), "127.0.0.0/8".to_string())]);
            assert!(node.node.ask(Action::ParamsSubmit { values, force: false }).is_ok());
            node.apply("\n[client_address]\nbelieve = \"forwarded\"\n");
            let mut probe = 0;
            wait_until("the proxy is trusted", || {
                probe += 1;
                ask(&format!("probe-{probe}"), both).1 == "192.0.2.8"
            });
        }
        node.apply(&format!("\n[client_address]\nbelieve = \"{believe}\"\ntell_origins = \"{tell}\"\n"));
        assert_eq!(ask(&format!("row-{number}"), both), at(told, client), "row {number}: {believe}, {tell}");
    }
    // The rightmost address that is no trusted proxy's; what stands left of it anybody may have written.
    node.apply("\n[client_address]\nbelieve = \"x-forwarded-for\"\n");
    assert_eq!(
        ask("chain", "X-Forwarded-For: 203.0.113.1, 192.0.2.5\r\nX-Forwarded-For: 127.9.9.9\r\n"),
        at("", "192.0.2.5")
    );
    // Policy decides by it too.
    let denied =
        format!("GET http://{0}/xff-denied HTTP/1.1\r\nHost: {0}\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n", node.origin);
    assert!(node.say(denied.as_bytes()).starts_with("HTTP/1.1 403"));
    assert_eq!(node.record("xff-denied").client_ip, "203.0.113.1");
}

// --- a real balancer ------------------------------------------------------------------------------------------------

/// HAProxy in front of a node, ended with the value.
struct Haproxy {
    child: Child,
    address: SocketAddr,
}

impl Haproxy {
    fn start(node: &Behind, options: &str) -> Haproxy {
        let address = free();
        let config = node.dir.path().join(format!("haproxy-{}.cfg", address.port()));
        let text = format!(
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
             listen front\n  bind {address}\n  server node {} {options}\n",
            node.proxy()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(config.with_extension("log")).unwrap();
        let child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("haproxy is installed (tests/run installs it)");
        wait_until("haproxy listens", || TcpStream::connect(address).is_ok());
        Haproxy { child, address }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_haproxy_tells_the_node_its_clients_in_both_versions() {
    let node = Behind::start(
        &[("PROXY_PROTOCOL", "required"), ("TRUSTED_PROXIES", "127.0.0.1"), ("MAX_CONNECTIONS_PER_CLIENT", "3")],
        "",
    );
    let options = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl"];
    for (number, options) in options.into_iter().enumerate() {
        let haproxy = Haproxy::start(&node, &format!("{options} check check-send-proxy inter 100"));
        // HAProxy calls from 127.0.0.1, its client from somewhere else: the node must have learnt the latter.
        let mut client = from("127.0.0.77", haproxy.address);
        for turn in 0..3 {
            client.write_all(node.get(&format!("haproxy-{number}-{turn}")).as_bytes()).unwrap();
            assert!(answer(&mut client).starts_with("HTTP/1.1 200"), "{options}");
            assert_eq!(node.record(&format!("haproxy-{number}-{turn}")).client_ip, "127.0.0.77", "{options}");
        }
        // The limit of one client holds for clients, not for the balancer.
        let mut crowd: Vec<_> = (0..6).map(|last| from(&format!("127.0.1.{last}"), haproxy.address)).collect();
        crowd.extend((0..2).map(|_| from("127.0.0.77", haproxy.address)));
        for client in &mut crowd {
            client.write_all(node.get("crowd").as_bytes()).unwrap();
            assert!(answer(client).starts_with("HTTP/1.1 200"), "{options}");
        }
        let mut fourth = from("127.0.0.77", haproxy.address);
        fourth.write_all(node.get("fourth").as_bytes()).unwrap();
        assert!(answer(&mut fourth).starts_with("HTTP/1.1 503"), "{options}");
        // Its health checks (LOCAL, or a line of its own) are no refusals.
        std::thread::sleep(Duration::from_millis(500));
        drop((client, crowd, fourth));
        wait_until("the clients are gone", || node.front().connections <= 1);
    }
    let front = node.front();
    assert_eq!(
        (front.proxy_header_refused, front.client_limited),
        (0, options.len() as u64),
        "{}",
        node.node.journal()
    );
}

/// A connection from a loopback address of our choice.
fn from(local: &str, to: SocketAddr) -> TcpStream {
    let socket = sockets::tcp_socket(&to).unwrap();
    let local = SocketAddr::new(local.parse().unwrap(), 0);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(local)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}
