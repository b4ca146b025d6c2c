//! Names asked of a name server that lies, over real sockets: whatever it says, a lookup ends in time, holds few addresses of the
//! family asked for, and is not believed for longer than our bounds.

use super::OpenError;
use super::resolve::Family;
use super::resolve::Lookup;
use super::resolve::Resolver;
use super::system::System;
use crate::base::clock::Mono;
use crate::limits::DIAL_ADDRESSES_MAX;
use crate::limits::RESOLVER_ABSENT_S_MAX;
use crate::limits::RESOLVER_FOUND_S_MAX;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A question, taken apart.
struct Question<'a> {
    packet: &'a [u8],
    /// Name, type and class as they stand in the packet.
    section: &'a [u8],
    /// The first label.
    label: String,
    v6: bool,
    tcp: bool,
}

impl Question<'_> {
    fn read(packet: &[u8], tcp: bool) -> Option<Question<'_>> {
        let mut at = HEAD_BYTES;
        while *packet.get(at)? != 0 {
            at += usize::from(packet[at]) + 1;
        }
        let first = usize::from(packet[HEAD_BYTES]);
        let label = String::from_utf8_lossy(packet.get(HEAD_BYTES + 1..=HEAD_BYTES + first)?).to_ascii_lowercase();
        let v6 = packet.get(at + 1..at + 3)? == [0, 28];
        Some(Question { packet, section: packet.get(HEAD_BYTES..at + 5)?, label, v6, tcp })
    }

    /// A reply with these flags (low byte: the code), answers and authorities.
    fn reply(&self, flags: u16, answers: &[Vec<u8>], authorities: &[Vec<u8>]) -> Vec<u8> {
        let mut reply = self.packet[..2].to_vec();
        reply.extend((0x8580 | flags).to_be_bytes());
        for count in [1, answers.len(), authorities.len(), 0] {
            reply.extend((count as u16).to_be_bytes());
        }
        reply.extend_from_slice(self.section);
        reply.extend(answers.concat());
        reply.extend(authorities.concat());
        reply
    }

    /// An address record of the kind asked for.
    fn address(&self, owner: &[u8], ttl: u32, last: u8) -> Vec<u8> {
        match self.v6 {
            true => resource(owner, 28, ttl, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
            false => resource(owner, 1, ttl, &[192, 0, 2, last]),
        }
    }
}

const HEAD_BYTES: usize = 12;
/// A compressed name: that of the question.
const ASKED: &[u8] = &[0xc0, 12];

fn resource(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend_from_slice(data);
    record
}

fn name(labels: &str) -> Vec<u8> {
    let mut name: Vec<u8> =
        labels.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    name.push(0);
    name
}

fn start_of_authority(ttl: u32, minimum: u32) -> Vec<u8> {
    let numbers: Vec<u8> = [1, 60, 60, 60, minimum].iter().flat_map(|number| number.to_be_bytes()).collect();
    resource(&name("test"), 6, ttl, &[&[0, 0][..], &numbers].concat())
}

/// A port that is free for both; one that the kernel gives for UDP may be somebody's for TCP.
fn both_on_one_port() -> (UdpSocket, TcpListener) {
    let both = || {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        TcpListener::bind(udp.local_addr().unwrap()).ok().map(|tcp| (udp, tcp))
    };
    (0..100).find_map(|_| both()).expect("of a hundred ports one is free for UDP and TCP")
}

/// A name server that says what `answer` makes of a question: no message, or several. Counts questions.
fn lying(answer: impl Fn(&Question<'_>) -> Vec<Vec<u8>> + Send + Sync + 'static) -> (u16, Arc<AtomicUsize>) {
    let (udp, tcp) = both_on_one_port();
    let port = udp.local_addr().unwrap().port();
    let (answer, asked) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    let (by_tcp, count) = (Arc::clone(&answer), Arc::clone(&asked));
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut packet) {
            let Some(question) = Question::read(&packet[..length], false) else { continue };
            count.fetch_add(1, Ordering::Relaxed);
            answer(&question).iter().for_each(|reply| drop(udp.send_to(reply, from)));
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&by_tcp));
            std::thread::spawn(move || {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
                    if stream.read_exact(&mut packet).is_err() {
                        return;
                    }
                    let Some(question) = Question::read(&packet, true) else { return };
                    for reply in answer(&question) {
                        let framed = [&(reply.len() as u16).to_be_bytes()[..], &reply].concat();
                        if stream.write_all(&framed).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (port, asked)
}

/// Asks on a core; `within` milliseconds bound a question.
fn asking<F: Future>(port: u16, within: u64, test: impl FnOnce(Rc<Resolver>) -> F) -> F::Output {
    crate::io::run(256, async { test(Rc::new(Resolver::new(System::asking(port), within, Arc::default()))).await })
        .unwrap()
}

fn addresses(lookup: &Lookup) -> String {
    let all = [Family::V4, Family::V6].into_iter().flat_map(|family| lookup.addresses(family));
    all.map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
}

/// What must hold of every lookup that has ended.
fn holds(lookup: &Lookup, now: Mono) {
    assert!(lookup.is_settled());
    for family in [Family::V4, Family::V6] {
        let addresses = lookup.addresses(family);
        assert!(addresses.len() <= DIAL_ADDRESSES_MAX);
        for address in addresses {
            assert_eq!(Family::of(address), family);
            let believed = lookup.believed(address, now).unwrap();
            assert!(believed <= Duration::from_secs(RESOLVER_FOUND_S_MAX), "{believed:?}");
        }
    }
    let words = lookup.verdict().map_or_else(|error| error.to_string(), |()| String::new());
    assert!(words.len() < 1_000, "{words}");
}

#[test]
fn what_a_name_server_says_is_taken_for_no_more_than_it_is() {
    let (port, asked) = lying(|question| {
        let good = |ttl| question.address(ASKED, ttl, 7);
        let one = |answers: &[Vec<u8>]| vec![question.reply(0, answers, &[])];
        let mut evil = question.reply(0, &[question.address(ASKED, 60, 66)], &[]);
        match question.label.as_str() {
            "plain" => one(&[good(60)]),
            "never" => one(&[good(0)]),
            "always" => one(&[good(u32::MAX)]),
            "long" => one(&[good(0x7fff_ffff)]),
            // Somebody who guesses: another id, another question, no question at all, a question instead of an answer.
            "id" => {
                evil[0] ^= 0x55;
                vec![evil, question.reply(0, &[good(60)], &[])]
            }
            "question" => {
                evil[HEAD_BYTES + 1] ^= 0x01;
                vec![evil, question.reply(0, &[good(60)], &[])]
            }
            "query" => {
                evil[2] &= 0x7f;
                vec![evil, question.reply(0, &[good(60)], &[])]
            }
            "truncated" if !question.tcp => vec![question.reply(0x0200, &[question.address(ASKED, 60, 66)], &[])],
            "truncated" => one(&[good(60)]),
            "alias" => one(&[resource(ASKED, 5, 60, &name("far.test")), question.address(&name("far.test"), 60, 7)]),
            // A alias that ends nowhere, one that goes in a circle, one that never ends.
            "circle" => one(&[
                resource(ASKED, 5, 60, &name("round.test")),
                resource(&name("round.test"), 5, 60, &name("circle.test")),
            ]),
            "self" => one(&[resource(ASKED, 5, 60, ASKED)]),
            other if other.starts_with("chain") => {
                let number: u32 = other[5..].parse().unwrap();
                one(&[resource(ASKED, 5, 60, &name(&format!("chain{}.test", number + 1)))])
            }
            // More than anybody wants: over UDP as far as it fits, then over TCP.
            "many" if !question.tcp => vec![question.reply(0x0200, &[], &[])],
            "many" => one(&(0..4_000).map(|number| question.address(ASKED, 60, number as u8)).collect::<Vec<_>>()),
            // Of the kind nobody asked for.
            "other" if question.v6 => one(&[resource(ASKED, 1, 60, &[192, 0, 2, 66])]),
            "other" => one(&[resource(ASKED, 28, 60, &[0x20; 16])]),
            "text" => one(&[resource(ASKED, 16, 60, b"\x05hello")]),
            "empty" => one(&[]),
            "absent" => vec![question.reply(3, &[], &[start_of_authority(u32::MAX, u32::MAX)])],
            "refused" => vec![question.reply(5, &[], &[])],
            // Lengths that lie, a name that points at itself.
            "short" => one(&[resource(ASKED, 1, 60, &[192, 0])]),
            "pointer" => {
                one(&[resource(&[0xc0, HEAD_BYTES as u8 + question.section.len() as u8], 1, 60, &[192, 0, 2, 66])])
            }
            "counts" => {
                let mut reply = question.reply(0, &[good(60)], &[]);
                reply[6] = 0xff;
                vec![reply]
            }
            "garbage" => vec![question.packet[..2].iter().copied().chain([0xff; 600]).collect()],
            _ => Vec::new(),
        }
    });
    // (name, addresses or what the lookup says, whether it is asked again at once)
    let table = [
        ("plain", "192.0.2.7 2001:db8::7", false),
        ("never", "192.0.2.7 2001:db8::7", true),
        ("always", "192.0.2.7 2001:db8::7", false),
        ("long", "192.0.2.7 2001:db8::7", false),
        ("id", "192.0.2.7 2001:db8::7", false),
        ("question", "192.0.2.7 2001:db8::7", false),
        ("query", "", false),
        ("truncated", "192.0.2.7 2001:db8::7", false),
        ("alias", "192.0.2.7 2001:db8::7", false),
        ("circle", "", true),
        ("self", "", true),
        ("chain0", "", true),
        ("many", "*", false),
        ("other", "", true),
        ("text", "", true),
        ("empty", "", true),
        ("absent", "", false),
        ("refused", "", false),
        ("short", "", false),
        ("pointer", "", false),
        ("counts", "", false),
        ("garbage", "", false),
        ("silent", "", false),
    ];
    asking(port, 400, |resolver| async move {
        let mut wrong = Vec::new();
        for (label, expected, again) in table {
            let host = format!("{label}.test");
            let before = asked.load(Ordering::Relaxed);
            let lookup = resolver.look(&host, Mono::now());
            let settled = lookup.settled().await;
            let now = Mono::now();
            holds(&lookup, now);
            let found = addresses(&lookup);
            let same = found == expected || expected == "*" && !found.is_empty();
            let questions = asked.load(Ordering::Relaxed) - before;
            assert!(questions <= 100, "{label}: {questions} questions for one name");
            let asks_again = !Rc::ptr_eq(&lookup, &resolver.look(&host, now));
            if !same || settled.is_ok() == expected.is_empty() || asks_again != again {
                wrong.push(format!("{label}: {found:?}, {settled:?}, asked again: {asks_again}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        // A day is over: what was to be believed for ever is asked again. So is an absence after its five minutes.
        let later = |seconds| Mono(Mono::now().0 + Duration::from_secs(seconds + 1));
        for (label, seconds) in
            [("always", RESOLVER_FOUND_S_MAX), ("long", RESOLVER_FOUND_S_MAX), ("absent", RESOLVER_ABSENT_S_MAX)]
        {
            let host = format!("{label}.test");
            let known = resolver.look(&host, Mono::now());
            assert!(known.is_settled(), "{label}");
            assert!(!resolver.look(&host, later(seconds)).is_settled(), "{label} is believed for too long");
        }
        let refused = resolver.look("refused.test", Mono::now()).verdict();
        assert!(matches!(refused, Err(OpenError::Resolve(_))), "{refused:?}");
    });
}

/// SplitMix64: numbers from a seed.
fn roll(seed: u64, below: usize) -> usize {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % below.max(1) as u64) as usize
}

#[test]
fn whatever_is_damaged_in_an_answer_the_lookup_ends_and_keeps_its_bounds() {
    let (port, _) = lying(|question| {
        let seed: u64 = question.label.parse().unwrap_or(0);
        let answers = [
            resource(ASKED, 5, 60, &name("far.test")),
            question.address(&name("far.test"), 1 << roll(seed, 32), 7),
            question.address(ASKED, 60, 8),
            resource(ASKED, 16, 60, b"\x05hello"),
        ];
        let some = roll(seed + 1, answers.len() + 1);
        let mut reply = question.reply(0, &answers[..some], &[start_of_authority(60, 60)]);
        for round in 0..=roll(seed + 2, 4) as u64 {
            // The id and the question stay, so that the answer is looked at.
            let start = HEAD_BYTES + question.section.len();
            let at = start + roll(seed * 31 + round, reply.len() - start + 1);
            match roll(seed * 17 + round, 8) {
                0 => reply.truncate(at),
                1 => reply.insert(at, roll(seed + round, 256) as u8),
                2 => reply[2 + at % 10] = roll(seed * 7 + round, 256) as u8,
                _ if at < reply.len() => reply[at] = roll(seed * 7 + round, 256) as u8,
                _ => {}
            }
        }
        vec![reply]
    });
    const AT_ONCE: usize = 50;
    asking(port, 300, |resolver| async move {
        let mut found = 0;
        for batch in 0..20 {
            let hosts: Vec<String> = (0..AT_ONCE).map(|number| format!("{}.test", batch * AT_ONCE + number)).collect();
            let lookups: Vec<Rc<Lookup>> = hosts.iter().map(|host| resolver.look(host, Mono::now())).collect();
            for lookup in &lookups {
                let settled = lookup.settled().await;
                found += usize::from(settled.is_ok());
                holds(lookup, Mono::now());
            }
        }
        assert!((50..950).contains(&found), "{found} of 1000 found something: the damage is too coarse or too fine");
        assert!(resolver.names() <= 20 * AT_ONCE);
    });
}
