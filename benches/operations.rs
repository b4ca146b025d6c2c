//! What the data path does for each request, piece by piece: read the heads, decide, record; then the record's way to the
//! master's store. `benches/instructions` counts the instructions of each piece with callgrind; run by itself
//! (`cargo bench --bench operations [-- NAME..]`) it prints the shortest time of many.

use std::hint::black_box;
use std::time::Instant;
use tidegate::base::clock::Wall;
use tidegate::cluster::packer::Packer;
use tidegate::limits;
use tidegate::log::SpoolSize;
use tidegate::log::body;
use tidegate::log::slots::Spool;
use tidegate::log::slots::State;
use tidegate::policy;
use tidegate::policy::Facts;
use tidegate::policy::NoFiles;
use tidegate::policy::Scheme;
use tidegate::policy::Snapshot;
use tidegate::record::Draft;
use tidegate::record::Ended;
use tidegate::record::Ending;
use tidegate::record::Epoch;
use tidegate::record::batch;
use tidegate::record::line;
use tidegate::record::line::Entry;
use tidegate::record::line::LineWriter;
use tidegate::record::lines;
use tidegate::record::lines::Lines;
use tidegate::store::records::RecordStore;
use tidegate::store::records::SqliteRecords;
use tidegate::wire::http1::ReplyHead;
use tidegate::wire::http1::ReplyTo;
use tidegate::wire::http1::RequestHead;
use tidegate::wire::http1::parse_reply;
use tidegate::wire::http1::parse_request;

/// Does its operation so many times.
type Work = Box<dyn FnMut(u64)>;

/// Name, what one of it is, how many make a fair count, and what makes it ready.
type Operation = (&'static str, &'static str, u64, fn() -> Work);

const OPERATIONS: [Operation; 20] = [
    ("parse-request", "the head of a browser's request", 100, parse_request_head),
    ("parse-reply", "the head of an origin's answer", 100, parse_reply_head),
    ("decide", "a policy of 1,000 Access Profiles rules, the last one holds", 100, decide),
    (
        "decide-mixed",
        "a policy of 1,000 rules of all kinds, 250 request types, a list of a million hosts",
        100,
        decide_mixed,
    ),
    ("decide-regexes", "a policy of 250 request types with 1,000 regular expressions for paths", 10, decide_regexes),
    ("decide-addresses", "1,000 entries of Access Restriction, the last one holds", 100, decide_addresses),
    ("decide-routes", "1,000 routes for hosts and profiles, the last one holds", 100, decide_routes),
    ("decide-headers", "a policy of 250 request types with 500 regular expressions for User-Agent", 10, decide_headers),
    (
        "decide-contains",
        "a policy of 250 request types with 500 texts that User-Agent may contain",
        10,
        decide_contains,
    ),
    ("decide-fields", "a policy of 200 request types that ask for 20 different fields", 10, decide_fields),
    ("open-headers", "open a snapshot with 1,000 regular expressions and 4,000 texts for five fields", 1, open_headers),
    ("decide-two", "a policy of two Access Profiles rules", 100, decide_two),
    ("record", "fill a slot of the spool, patch its numbers, close it", 100, record),
    ("take", "read a closed slot back", 100, take),
    ("line-write", "the slot's record as a line of extended.log", 100, line_write),
    ("line-check", "a line that was read from a file, before it is shipped", 100, line_check),
    ("pack", "a record's share of a batch, checksum and compression", BATCH, pack),
    ("unpack", "a record's share of a batch at the master, taken apart", BATCH, unpack),
    ("line-parse", "a line taken apart", 100, line_parse),
    ("ingest", "a record's share of a batch of lines taken apart and stored by SQLite", BATCH, ingest),
];

const BATCH: u64 = 1000;
const EPOCH: Epoch = Epoch([3; 16]);
const START_US: i64 = 1_763_600_000_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let known = |name: &str| OPERATIONS.iter().find(|operation| operation.0 == name);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => OPERATIONS.iter().for_each(|(name, what, times, _)| println!("{name}\t{times}\t{what}")),
        ["count", name] => {
            let Some((_, _, times, prepare)) = known(name) else { panic!("no operation {name}: see `list`") };
            let mut work = prepare();
            work(*times); // what is done only once is not counted
            measured(&mut work, *times);
        }
        [] => OPERATIONS.iter().for_each(time),
        ref names => names.iter().for_each(|name| time(known(name).expect("an operation of `list`"))),
    }
}

/// What callgrind counts: it looks for this name.
#[inline(never)]
fn measured(work: &mut Work, times: u64) {
    work(times);
}

fn time((name, what, times, prepare): &Operation) {
    let mut work = prepare();
    let (mut best, began) = (f64::MAX, Instant::now());
    while began.elapsed().as_millis() < 700 {
        let started = Instant::now();
        measured(&mut work, *times);
        best = best.min(started.elapsed().as_nanos() as f64 / *times as f64);
    }
    println!("{name:<14} {best:>9.0} ns   {what}");
}

const REQUEST: &[u8] = b"GET http://www.example.com/assets/section-7/item-4711.html?session=1f3c9a&page=3 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
    Referer: http://www.example.com/section-7/index.html\r\nProxy-Connection: keep-alive\r\nCookie: id=0123456789abcdef\r\n\r\n";

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Thu, 20 Nov 2026 22:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\nLast-Modified: Thu, 20 Nov 2026 21:00:00 GMT\r\n\
    Connection: keep-alive\r\nETag: \"691f8a10-400\"\r\nCache-Control: max-age=60\r\nAccept-Ranges: bytes\r\n\r\n";

fn parse_request_head() -> Work {
    let mut head = RequestHead::new();
    Box::new(move |times| {
        for _ in 0..times {
            head.clear();
            black_box(parse_request(black_box(REQUEST), &mut head).expect("a request"));
        }
    })
}

fn parse_reply_head() -> Work {
    let mut request = RequestHead::new();
    parse_request(REQUEST, &mut request).expect("a request");
    let to: ReplyTo = request.reply_to();
    let mut head = ReplyHead::new();
    Box::new(move |times| {
        for _ in 0..times {
            head.clear();
            black_box(parse_reply(black_box(REPLY), to, &mut head).expect("a reply"));
        }
    })
}

fn decide() -> Work {
    let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
    for number in 0..50 {
        document += &format!("[[request_types]]\nname = \"type {number}\"\npath_prefixes = [\"/private-{number}\"]\n");
    }
    for number in 0..999 {
        let kind = number % 50;
        document += &format!(
            "[[access_profiles]]\nname = \"rule {number}\"\nrequest_types = [\"type {kind}\"]\naction = \"DENY\"\n"
        );
    }
    document += "[[access_profiles]]\nname = \"everybody\"\nadd_profiles = [\"ORDINARY\"]\naction = \"ALLOW\"\n";
    deciding(&document, &NoFiles)
}

/// A list of a million hosts, none of which is asked for.
struct MillionHosts;

impl policy::Files for MillionHosts {
    fn read(&self, _name: &str, _limit: usize) -> Result<Vec<u8>, String> {
        let line = |number: u32| format!("host{number}.site{}.example\n", number % 5000);
        Ok((0..1_000_000).map(line).collect::<String>().into_bytes())
    }
}

/// What a large organisation's policy may look like: rules ask for kinds of requests, groups, times and categories, some
/// sort requests by adding profiles, others key on those.
fn decide_mixed() -> Work {
    let mut document = "[access_restriction]\ndefault = \"deny\"\n".to_string();
    document += "[[access_restriction.allow]]\naddresses = [\"10.0.0.0/8\"]\nuser_groups = [\"STAFF\"]\n";
    for number in 0..20 {
        document += &format!(
            "[[access_restriction.allow]]\naddresses = [\"192.168.{number}.1\"]\nuser_groups = [\"G{number}\"]\n"
        );
    }
    document += "[[categories]]\nname = \"Big\"\nfiles = [\"big.txt\"]\n";
    for number in 0..50 {
        document += &format!("[[categories]]\nname = \"C{number}\"\nhosts = [\"c{number}.test\"]\n");
    }
    for (number, days) in ["mon..fri", "sat..sun", "wed"].iter().enumerate() {
        document += &format!("[[time_profiles]]\nname = \"T{number}\"\ndays = [\"{days}\"]\nfrom = \"08:00\"\n");
    }
    for number in 0..250 {
        let asks = match number % 5 {
            0 => format!("path_prefixes = [\"/assets/section-{number}/\", \"/private-{number}\"]"),
            1 => format!("hosts = [\"www{number}.test\", \"ftp{number}.test\"]\nmethods = [\"GET\", \"POST\"]"),
            2 => format!("host_suffixes = [\"s{number}.example.com\"]\nschemes = [\"http\"]"),
            3 => format!("ports = [{}, \"{}-{}\"]", 1000 + number, 2000 + 10 * number, 2009 + 10 * number),
            _ => {
                format!("methods = [\"PUT\", \"M{}\"]\npath_prefixes = [\"/upload-{number}\"]", "X".repeat(number % 7))
            }
        };
        document += &format!("[[request_types]]\nname = \"R{number}\"\n{asks}\n");
    }
    for number in 0..999 {
        let asks = match number % 4 {
            0 => format!("request_types = [\"R{}\"]\naction = \"DENY\"", number % 250),
            1 => format!(
                "categories = [\"C{}\", \"Big\"]\ntime_profiles = [\"!T{}\"]\naction = \"DENY\"",
                number % 50,
                number % 3
            ),
            2 => format!(
                "user_groups = [\"G{}\"]\nrequest_types = [\"!R{}\"]\naction = \"ALLOW\"",
                number % 20,
                number % 250
            ),
            _ if number % 100 == 3 => format!("user_groups = [\"STAFF\"]\nadd_profiles = [\"P{}\"]", number / 100),
            _ => format!("profiles = [\"P{}\"]\ncategories = [\"C{}\"]\naction = \"DENY\"", number % 10, number % 50),
        };
        document += &format!("[[access_profiles]]\nname = \"rule {number}\"\n{asks}\n");
    }
    document += "[[access_profiles]]\nname = \"everybody\"\naction = \"ALLOW\"\n";
    deciding(&document, &MillionHosts)
}

fn decide_regexes() -> Work {
    let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
    for number in 0..250 {
        let regexes: Vec<String> = (0..4)
            .map(|part| match part {
                0 => format!("'^/ads-{number}/'"),
                1 => format!("'/banner[0-9]+_{number}\\.gif$'"),
                2 => format!("'[?&]track{number}=[a-z]+'"),
                _ => format!("'\\.(exe|msi|ps{number})$'"),
            })
            .collect();
        document += &format!("[[request_types]]\nname = \"type {number}\"\npath_regex = [{}]\n", regexes.join(", "));
    }
    document += "[[access_profiles]]\nname = \"no type 7\"\nrequest_types = [\"type 7\"]\naction = \"DENY\"\n";
    document += "[[access_profiles]]\nname = \"everybody\"\naction = \"ALLOW\"\n";
    deciding(&document, &NoFiles)
}

fn decide_addresses() -> Work {
    let mut document = "[access_restriction]\ndefault = \"deny\"\n".to_string();
    for number in 0..500 {
        let (second, third) = (number / 250, number % 250);
        document += &format!("[[access_restriction.deny]]\naddresses = [\"172.{}.{third}.0/24\"]\n", 16 + second);
        document += &format!(
            "[[access_restriction.allow]]\naddresses = [\"192.{}.{third}.0/25\"]\nuser_groups = [\"G{}\"]\n",
            168 + second,
            number % 200
        );
    }
    document += "[[access_restriction.allow]]\naddresses = [\"10.0.0.0/8\"]\nuser_groups = [\"STAFF\"]\n";
    document += "[[access_profiles]]\nname = \"everybody\"\naction = \"ALLOW\"\n";
    deciding(&document, &NoFiles)
}

fn decide_routes() -> Work {
    let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
    for number in 0..20 {
        document += &format!(
            "[[access_profiles]]\nname = \"rule {number}\"\naction = \"INHERIT\"\nadd_profiles = [\"P{number}\"]\n"
        );
    }
    document += "[[access_profiles]]\nname = \"everybody\"\naction = \"ALLOW\"\n";
    for number in 0..999 {
        let asks = match number % 2 {
            0 => format!("host_suffixes = [\"s{number}.example.com\", \"s{number}.test\"]"),
            _ => format!("profiles = [\"!P{}\"]\nhost_suffixes = [\"com\"]", number % 20),
        };
        document += &format!("[[routes]]\nvia = \"direct\"\n{asks}\n");
    }
    document += "[[routes]]\nvia = \"direct\"\nhost_suffixes = [\"example.com\"]\n";
    deciding(&document, &NoFiles)
}

fn decide_headers() -> Work {
    let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
    for number in 0..250 {
        document += &format!(
            "[[request_types]]\nname = \"type {number}\"\nheaders = [{{ name = \"User-Agent\", contains = [\"Agent-{number}\"], \
             regex = ['^Robot{number}/[0-9.]+', 'Version-{number}[a-z]*'] }}]\n"
        );
    }
    document += "[[access_profiles]]\nname = \"no type 7\"\nrequest_types = [\"type 7\"]\naction = \"DENY\"\n";
    document += "[[access_profiles]]\nname = \"everybody\"\naction = \"ALLOW\"\n";
    deciding(&document, &NoFiles)
}

fn decide_contains() -> Work {
    let types = (0..250)
        .map(|number| format!("{{ name = \"User-Agent\", contains = [\"Agent-{number}\", \"Version/{number}.\"] }}"));
    deciding_fields(types)
}

fn decide_fields() -> Work {
    let sent = ["User-Agent", "Accept", "Accept-Language", "Accept-Encoding", "Referer"];
    let types = (0..200).map(|number| {
        let name = sent.get(number % 20).map_or(format!("X-Field-{}", number % 20), |name| name.to_string());
        format!("{{ name = \"{name}\", equals = [\"value {number}\"], contains = [\"part {number}\"] }}")
    });
    deciding_fields(types)
}

fn open_headers() -> Work {
    let mut document = String::new();
    for number in 0..250 {
        let name = HEADERS[1 + number % 5].0;
        let texts =
            |word: &str| (0..8).map(|at| format!("\"{word} {number}.{at} of many\"")).collect::<Vec<_>>().join(", ");
        document += &format!(
            "[[request_types]]\nname = \"type {number}\"\nheaders = [{{ name = \"{name}\", equals = [{}], contains = [{}], \
             regex = ['^Robot{number}/[0-9.]+', 'Version-{number}[a-z]*', '(spider|crawler){number}\\.', '{number}[.]x$'] }}]\n",
            texts("value"),
            texts("part"),
        );
    }
    let file = policy::compile(&document, 1, &NoFiles).expect("a policy that compiles");
    Box::new(move |times| (0..times).for_each(|_| drop(black_box(Snapshot::open(&file).expect("our own snapshot")))))
}

/// Decides under a policy of these header tests, each in a type of its own.
fn deciding_fields(tests: impl Iterator<Item = String>) -> Work {
    let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
    for (number, test) in tests.enumerate() {
        document += &format!("[[request_types]]\nname = \"type {number}\"\nheaders = [{test}]\n");
    }
    document += "[[access_profiles]]\nname = \"no type 7\"\nrequest_types = [\"type 7\"]\naction = \"DENY\"\n";
    document += "[[access_profiles]]\nname = \"everybody\"\naction = \"ALLOW\"\n";
    deciding(&document, &NoFiles)
}

fn decide_two() -> Work {
    let document = "[access_restriction]\ndefault = \"allow\"\n\
        [[categories]]\nname = \"Advertising\"\nhosts = [\"ads.test\"]\n\
        [[access_profiles]]\nname = \"no advertising\"\ncategories = [\"Advertising\"]\naction = \"DENY\"\n\
        [[access_profiles]]\nname = \"everybody\"\nadd_profiles = [\"ORDINARY\"]\naction = \"ALLOW\"\n";
    deciding(document, &NoFiles)
}

/// As a browser sends them.
const HEADERS: [(&str, &str); 6] = [
    ("Host", "www.example.com"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Referer", "http://www.example.com/section-7/index.html"),
];

/// Decides one request under `document`.
fn deciding(document: &str, files: &dyn policy::Files) -> Work {
    let file = policy::compile(document, 1, files).expect("a policy that compiles");
    let snapshot = Snapshot::open(&file).expect("our own snapshot");
    Box::new(move |times| {
        let headers = &HEADERS[..];
        let facts = Facts {
            client: [10, 1, 2, 3].into(),
            user: None,
            method: "GET",
            scheme: Scheme::Http,
            host: "www.example.com",
            port: 80,
            path: "/assets/section-7/item-4711.html?session=1f3c9a&page=3",
            headers: &headers,
            now: Wall(START_US),
            node: "edge-1",
        };
        for _ in 0..times {
            let decision = black_box(policy::decide(&snapshot, black_box(&facts)));
            assert!(matches!(decision.verdict, policy::Verdict::Permit(_)), "the last rule allows");
        }
    })
}

fn draft() -> Draft<'static> {
    Draft {
        client_id: 4711,
        request_id: 12,
        started_us: START_US,
        client: ([10, 1, 2, 3], 40_000).into(),
        interface: ([10, 0, 0, 1], 8080).into(),
        username: Some("anna"),
        method: b"GET",
        url: b"http://www.example.com/assets/section-7/item-4711.html?session=1f3c9a&page=3",
        referer: b"http://www.example.com/section-7/index.html",
        useragent:
            b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        mime: b"text/html",
        peer: "www.example.com",
        request_host: "www.example.com",
        user_groups: "STAFF",
        categories: "Business,Software",
        profiles: "READ ONLY,ANTIVIRUS",
        snapshot: "12-3fa9c1d2e0b4",
        rule: "access_profiles[7] staff",
        ..Draft::default()
    }
}

fn ended(number: u64) -> Ended {
    Ended {
        status: 200,
        upload: 412 + number % 50,
        download: 1024 + number * 7919 % 90_000,
        ended_us: START_US + number as i64 * 517,
        elapsed_us: 700 + number * 31 % 9000,
        connect_us: 0,
        first_byte_us: 650 + (number * 29 % 5000) as u32,
        ending: Ending::COMPLETE,
        ..Ended::default()
    }
}

/// A spool of few slots and the folder it lies in.
fn spool() -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let size = SpoolSize { small_slots: 64, large_slots: 1, ..SpoolSize::default() };
    let spool = Spool::create(&dir.path().join("core-0"), size, "bootbootbo", [0; 16], 0).expect("a spool");
    (dir, spool)
}

fn record() -> Work {
    let (dir, spool) = spool();
    let mut body = Vec::with_capacity(32 * 1024);
    Box::new(move |times| {
        let _ = &dir;
        for number in 0..times {
            let slot = (number % 64) as u32;
            body::write_body(&mut body, &Entry::from(black_box(&draft())));
            spool.fill(slot, &body, &ended(number));
            spool.patch(slot, &ended(number));
            spool.set_state(slot, State::Closed);
        }
    })
}

fn take() -> Work {
    let (dir, spool) = spool();
    let mut body = Vec::with_capacity(32 * 1024);
    body::write_body(&mut body, &Entry::from(&draft()));
    (0..64).for_each(|slot| spool.fill(slot, &body, &ended(1)));
    Box::new(move |times| {
        let _ = &dir;
        for number in 0..times {
            let slot = (number % 64) as u32;
            spool.copy_body(slot, &mut body);
            black_box(body::read_body(&body).expect("a body"));
            spool.set_seq(slot, number);
            black_box(spool.numbers(slot));
        }
    })
}

fn line_write() -> Work {
    let mut writer = LineWriter::new("edge-1", jiff::tz::TimeZone::UTC);
    let mut out = Vec::with_capacity(1024 * 1024);
    let mut body = Vec::new();
    body::write_body(&mut body, &Entry::from(&draft()));
    Box::new(move |times| {
        let entry = body::read_body(&body).expect("a body");
        for number in 0..times {
            if out.len() > 900 * 1024 {
                out.clear();
            }
            writer.write(&mut out, black_box(&entry), &ended(number), "bootbootbo", number);
        }
    })
}

/// So many lines, numbered from `first`.
fn some_lines(first: u64, count: u64) -> Lines {
    let mut writer = LineWriter::new("edge-1", jiff::tz::TimeZone::UTC);
    let (mut text, mut lines) = (Vec::new(), Lines::default());
    for number in first..first + count {
        text.clear();
        let entry = Entry::from(&draft());
        writer.write(&mut text, &Entry { client_id: number / 10, ..entry }, &ended(number), "bootbootbo", number);
        lines.push(&text, number);
    }
    lines
}

fn line_check() -> Work {
    let lines = some_lines(7, 1);
    Box::new(move |times| (0..times).for_each(|_| drop(black_box(lines::check(black_box(lines.text()))))))
}

fn pack() -> Work {
    let mut packer = Packer::new().expect("memory");
    let lines = some_lines(1, BATCH);
    Box::new(move |times| {
        for _ in 0..times / BATCH {
            black_box(packer.pack("edge-1", EPOCH, black_box(&lines)).expect("a batch"));
        }
    })
}

fn unpack() -> Work {
    let lines = some_lines(1, BATCH);
    let packed = Packer::new().expect("memory").pack("edge-1", EPOCH, &lines).expect("a batch");
    Box::new(move |times| {
        for _ in 0..times / BATCH {
            let bytes = zstd::decode_all(black_box(&packed[..])).expect("our own frames");
            black_box(batch::decode(&bytes).expect("our own batch"));
        }
    })
}

fn line_parse() -> Work {
    let lines = some_lines(7, 1);
    Box::new(move |times| {
        for _ in 0..times {
            black_box(line::view(black_box(lines.text())).expect("our own line"));
        }
    })
}

fn ingest() -> Work {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = SqliteRecords::open(&dir.path().join("records.db")).expect("a new store");
    // Made before anything is measured; should they run out, the best time is known already.
    let mut ready: Vec<Lines> = (0..20).rev().map(|batch| some_lines(1 + batch * BATCH, BATCH)).collect();
    let mut next = 1 + 20 * BATCH;
    Box::new(move |times| {
        let _ = &dir;
        for _ in 0..times / BATCH {
            let lines = ready.pop().unwrap_or_else(|| {
                next += BATCH;
                some_lines(next - BATCH, BATCH)
            });
            let records = lines.records().expect("our own lines");
            store.ingest("edge-1", EPOCH, &records).expect("a store that works");
        }
    })
}

const _: () = assert!(BATCH as usize <= limits::BATCH_RECORDS_MAX);
