//! What a record costs on its way: desk, line, parse, batch, store, report. `cargo bench --bench store_sqlite [-- RECORDS [LOG]]`
//! prints a line per figure; with LOG it leaves the synthetic extended.log there for `benches/store_compare.py`.

use std::fs::File;
use std::hint::black_box;
use std::io::BufWriter;
use std::io::Write;
use std::time::Instant;
use tidegate::limits;
use tidegate::log::Log;
use tidegate::log::LogConfig;
use tidegate::record::Draft;
use tidegate::record::Ended;
use tidegate::record::Ending;
use tidegate::record::Epoch;
use tidegate::record::Record;
use tidegate::record::batch;
use tidegate::record::line;
use tidegate::record::line::Entry;
use tidegate::record::line::LineWriter;
use tidegate::record::lines::Lines;
use tidegate::record::question::Question;
use tidegate::report;
use tidegate::store::records::RecordStore;
use tidegate::store::records::SqliteRecords;

const EPOCH: Epoch = Epoch([3; 16]);
const START_US: i64 = 1_763_600_000_000_000;
/// A million records make about two days of an office.
const STEP_US: i64 = 170_000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let count: u64 = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let log_path = arguments.next();
    desk();
    let lines = lines(count.min(200_000));
    parse(&lines);
    store(count, log_path);
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// Small numbers more often: the product of two dice.
    fn skewed(&mut self, sides: u64) -> u64 {
        self.roll(sides) * self.roll(sides) / sides
    }
}

struct Texts {
    host: String,
    url: String,
    referer: String,
    agent: String,
    user: String,
    category: &'static str,
    blocked: bool,
    ended: Ended,
    client: u64,
}

fn texts(dice: &mut Dice, number: u64) -> Texts {
    const CATEGORIES: [&str; 8] = [
        "Search Engines & Portals",
        "News",
        "Business,Software",
        "Streaming Media",
        "Advertisements",
        "Social Networks",
        "",
        "CDN,Software",
    ];
    let host_number = dice.skewed(5000);
    let host = format!("www{}.site{host_number}.example.com", host_number % 7);
    let (path, id) = (dice.roll(100_000), dice.roll(1 << 40));
    let user = dice.skewed(500);
    let blocked = dice.roll(20) == 0;
    let size = dice.skewed(200_000);
    Texts {
        url: format!("http://{host}/assets/section-{}/item-{path}.html?session={id:x}&page={}", path % 50, path % 9),
        referer: if dice.roll(3) == 0 {
            String::new()
        } else {
            format!("http://{host}/section-{}/index.html", path % 50)
        },
        host,
        agent: format!(
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36",
            100 + dice.roll(40)
        ),
        user: format!("user{user}"),
        category: CATEGORIES[(host_number % 8) as usize],
        blocked,
        ended: Ended {
            status: if blocked { 403 } else { 200 },
            upload: dice.roll(500),
            download: size,
            ended_us: START_US + number as i64 * STEP_US,
            elapsed_us: dice.skewed(500_000),
            connect_us: dice.roll(9000) as u32,
            first_byte_us: dice.roll(90_000) as u32,
            ending: if blocked { Ending::DENIED } else { Ending::COMPLETE },
            ..Ended::default()
        },
        client: user,
    }
}

fn draft(texts: &Texts, number: u64) -> Draft<'_> {
    let [a, b] = (texts.client as u16).to_be_bytes();
    Draft {
        client_id: number / 8 + 1,
        request_id: (number % 8) as u32 + 1,
        started_us: texts.ended.ended_us - texts.ended.elapsed_us as i64,
        client: ([10, 1, a, b], 40_000).into(),
        interface: ([10, 0, 0, 1], 8080).into(),
        username: Some(&texts.user),
        method: b"GET",
        url: texts.url.as_bytes(),
        referer: texts.referer.as_bytes(),
        useragent: texts.agent.as_bytes(),
        mime: b"text/html",
        filter_name: if texts.blocked { "Access Profiles" } else { "" },
        filtering_reason: if texts.blocked { "category" } else { "" },
        peer: &texts.host,
        request_host: &texts.host,
        user_groups: "STAFF",
        categories: texts.category,
        profiles: "READ ONLY,ANTIVIRUS",
        snapshot: "12-3fa9c1d2e0b4",
        rule: if texts.blocked { "access_profiles[2] no advertisements" } else { "access_profiles[7] staff" },
        ..Draft::default()
    }
}

fn tell(what: &str, count: u64, started: Instant) {
    let each = started.elapsed().as_nanos() as f64 / count as f64;
    println!("{what:<44} {each:>10.0} ns each {:>12.0} /s", 1e9 / each);
}

fn desk() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = LogConfig {
        state_dir: dir.path().join("state"),
        log_dir: dir.path().join("log"),
        node: "bench".to_string(),
        epoch: EPOCH,
        cores: 1,
        file_bytes_max: 1 << 30,
        sync_ms: 200,
        count_when_full: false,
        keep_days: 1,
    };
    let (log, mut desks) = Log::start(config).expect("a log in a temporary folder");
    let (mut dice, mut taken) = (Dice(1), Vec::new());
    let (rounds, count) = (20, 10_000);
    for round in 0..rounds {
        let texts: Vec<Texts> = (0..count).map(|number| texts(&mut dice, number)).collect();
        let drafts: Vec<Draft> = texts.iter().zip(0..).map(|(texts, number)| draft(texts, number)).collect();
        let started = Instant::now();
        for (draft, texts) in drafts.iter().zip(&texts) {
            desks[0].open(draft, &texts.ended).expect("more slots than a round opens").close(&texts.ended);
        }
        taken.push(started.elapsed().as_nanos() as f64 / count as f64);
        let all = (round + 1) * count;
        while log.progress().borrow().written < all {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    taken.sort_by(f64::total_cmp);
    println!(
        "{:<44} {:>10.0} ns each (median of {rounds} rounds, writer running beside)",
        "desk: open + close",
        taken[rounds as usize / 2]
    );
}

fn lines(count: u64) -> Vec<u8> {
    let mut dice = Dice(2);
    let texts: Vec<Texts> = (0..count).map(|number| texts(&mut dice, number)).collect();
    let mut out = Vec::with_capacity(count as usize * 900);
    let mut writer = LineWriter::new("bench", jiff::tz::TimeZone::UTC);
    let started = Instant::now();
    for (texts, number) in texts.iter().zip(0..) {
        writer.write(&mut out, &Entry::from(&draft(texts, number)), &texts.ended, "bootbootbo", number + 1);
    }
    tell("line: write", count, started);
    println!("{:<44} {:>10.0} bytes", "line: length", out.len() as f64 / count as f64);
    out
}

fn parse(lines: &[u8]) {
    let started = Instant::now();
    let records: Vec<Record> =
        lines.split_inclusive(|byte| *byte == b'\n').map(|text| line::parse(text).expect("our own line")).collect();
    tell("line: parse", records.len() as u64, started);
    let started = Instant::now();
    let batches: Vec<Vec<u8>> = records
        .chunks(limits::BATCH_RECORDS_MAX)
        .map(|some| batch::encode("bench", EPOCH, &Lines::of(some)).expect("in order"))
        .collect();
    tell("batch: encode", records.len() as u64, started);
    let started = Instant::now();
    batches.iter().for_each(|bytes| drop(black_box(batch::decode(bytes).expect("our own batch"))));
    tell("batch: verify and decode", records.len() as u64, started);
}

fn store(count: u64, log_path: Option<String>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("records.db");
    let store = SqliteRecords::open(&path).expect("a new store");
    let mut log = log_path.map(|path| BufWriter::new(File::create(path).expect("the log's path")));
    let (mut dice, mut writer) = (Dice(3), LineWriter::new("bench", jiff::tz::TimeZone::UTC));
    let (mut number, mut spent, mut text) = (0, 0.0, Vec::new());
    while number < count {
        let mut records = Vec::new();
        for _ in 0..1000.min(count - number) {
            let texts = texts(&mut dice, number);
            number += 1;
            text.clear();
            writer.write(&mut text, &Entry::from(&draft(&texts, number)), &texts.ended, "bootbootbo", number);
            log.iter_mut().for_each(|log| log.write_all(&text).expect("space for the log"));
            records.push(line::parse(&text).expect("our own line"));
        }
        let started = Instant::now();
        let views: Vec<Record<&str>> = records.iter().map(Record::view).collect();
        store.ingest("bench", EPOCH, &views).expect("ingest");
        spent += started.elapsed().as_secs_f64();
    }
    println!("{:<44} {:>10.0} records/s (batches of 1000, each synced)", "store: ingest", count as f64 / spent);
    let size = |end: &str| std::fs::metadata(format!("{}{end}", path.display())).map_or(0, |data| data.len());
    println!(
        "{:<44} {:>10.0} bytes a record ({} + {} MB wal)",
        "store: size",
        size("") as f64 / count as f64,
        size("") >> 20,
        size("-wal") >> 20
    );
    let end = START_US + count as i64 * STEP_US;
    let ask = |what: &str, question: Question| {
        let mut taken: Vec<f64> = (0..5)
            .map(|_| {
                let started = Instant::now();
                black_box(report::answer(&store, &question).expect("an answer"));
                started.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        taken.sort_by(f64::total_cmp);
        println!("report: {what:<36} {:>10.1} ms (median of 5)", taken[2]);
    };
    ask("last hour", Question { from_us: Some(end - 3_600_000_000), ..Question::default() });
    ask("last day", Question { from_us: Some(end - 86_400_000_000), ..Question::default() });
    ask("everything", Question::default());
    ask("everything of one host", Question { host: Some("www1.site1.example.com".to_string()), ..Question::default() });
    ask("everything of one user", Question { user: Some("user1@10.1.0.1".to_string()), ..Question::default() });
    ask("everything blocked", Question { blocked: Some(true), ..Question::default() });
    ask("everything of one category", Question { category: Some("News".to_string()), ..Question::default() });
}
