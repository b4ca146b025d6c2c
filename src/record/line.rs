//! The line codec of extended.log (`docs/formats/extended-log.md`): [`LineWriter`] turns an [`Entry`] and its numbers
//! into a line, [`parse`] (of a file of its own) turns a line into a [`Record`](crate::record::Record).

pub use crate::record::reading::BadLine;
pub use crate::record::reading::parse;
pub use crate::record::reading::seq_of;
pub(super) use crate::record::reading::timestamp;
pub use crate::record::reading::view;

use crate::record::Draft;
use crate::record::Ended;
use crate::record::Late;
use crate::record::domains;
use crate::record::domains::Domains;
use crate::record::pen::Pen;
use crate::record::pen::SLACK;
use crate::record::text;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::net::SocketAddr;

/// The names of the columns, in order; the first 37 are the incumbent's.
pub const COLUMNS: [&str; 47] = [
    "record_id",
    "client_id",
    "request_id",
    "date_time",
    "elapsed_time",
    "status",
    "size",
    "upload",
    "download",
    "bypassed",
    "client_ip",
    "username",
    "method",
    "url",
    "http_referer",
    "useragent",
    "mime",
    "filter_name",
    "filtering_reason",
    "interface",
    "cachecode",
    "peercode",
    "peer",
    "request_host",
    "request_tld",
    "referer_host",
    "referer_tld",
    "range",
    "time_profiles",
    "user_groups",
    "request_profiles",
    "application_signatures",
    "categories",
    "response_profiles",
    "upload_content_types",
    "download_content_types",
    "profiles",
    "node",
    "seq",
    "timestamp",
    "snapshot",
    "rule",
    "ending",
    "connect_us",
    "first_byte_us",
    "sni",
    "tls",
];

/// How many texts an [`Entry`] has.
pub const TEXTS: usize = 23;

/// The places of the texts in an [`Entry`], in the spool's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is the field of `Draft` with the same name")]
pub enum Text {
    Username,
    Method,
    Url,
    Referer,
    Useragent,
    Mime,
    FilterName,
    FilteringReason,
    Peer,
    RequestHost,
    TimeProfiles,
    UserGroups,
    RequestTypes,
    Applications,
    Categories,
    ResponseProfiles,
    UploadTypes,
    DownloadTypes,
    Profiles,
    Snapshot,
    Rule,
    Sni,
    Tls,
}

/// A [`Draft`] as plain fields: what a slot of the spool holds and a line is written from. Texts are bytes here, because
/// what comes back from a file after a crash need not be UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// See [`Draft::client_id`].
    pub client_id: u64,
    /// See [`Draft::request_id`].
    pub request_id: u32,
    /// See [`Draft::started_us`].
    pub started_us: i64,
    /// See [`Draft::client`].
    pub client: SocketAddr,
    /// See [`Draft::interface`].
    pub interface: SocketAddr,
    /// Whether the user is known.
    pub named: bool,
    /// See [`Draft::late`].
    pub late: Option<Late>,
    /// Whether it is known that no text needs escaping; if false, each is looked at when it is written.
    pub plain: bool,
    /// By [`Text`].
    pub texts: [&'a [u8]; TEXTS],
}

impl<'a> From<&Draft<'a>> for Entry<'a> {
    fn from(draft: &Draft<'a>) -> Entry<'a> {
        Entry {
            client_id: draft.client_id,
            request_id: draft.request_id,
            started_us: draft.started_us,
            client: draft.client,
            interface: draft.interface,
            named: draft.username.is_some(),
            late: draft.late,
            plain: false,
            texts: [
                draft.username.unwrap_or_default().as_bytes(),
                draft.method,
                draft.url,
                draft.referer,
                draft.useragent,
                draft.mime,
                draft.filter_name.as_bytes(),
                draft.filtering_reason.as_bytes(),
                draft.peer.as_bytes(),
                draft.request_host.as_bytes(),
                draft.time_profiles.as_bytes(),
                draft.user_groups.as_bytes(),
                draft.request_types.as_bytes(),
                draft.applications.as_bytes(),
                draft.categories.as_bytes(),
                draft.response_profiles.as_bytes(),
                draft.upload_types.as_bytes(),
                draft.download_types.as_bytes(),
                draft.profiles.as_bytes(),
                draft.snapshot.as_bytes(),
                draft.rule.as_bytes(),
                draft.sni,
                draft.tls.as_bytes(),
            ],
        }
    }
}

/// Appends the header line.
pub fn write_header(out: &mut Vec<u8>) {
    for (index, column) in COLUMNS.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\"" } else { b"\t\"" });
        out.extend_from_slice(column.as_bytes());
        out.push(b'"');
    }
    out.push(b'\n');
}

/// Whether a line is a header line (of this or another version).
pub fn is_header(line: &[u8]) -> bool {
    line.starts_with(b"\"record_id\"")
}

/// A record's id: `SECONDS-CLIENT-REQUEST-BOOT`.
pub fn write_record_id(out: &mut Vec<u8>, started_us: i64, client_id: u64, request_id: u32, boot: &str) {
    let mut room = [0; 3 * 21 + SLACK];
    let mut pen = Pen::new(&mut room);
    pen_record_id(&mut pen, started_us, client_id, request_id);
    out.extend_from_slice(pen.written());
    out.extend_from_slice(boot.as_bytes());
}

/// The id without its last part.
fn pen_record_id(pen: &mut Pen, started_us: i64, client_id: u64, request_id: u32) {
    pen.number(started_us.max(0) as u64 / 1_000_000);
    pen.fixed(b"-");
    pen.number(client_id);
    pen.fixed(b"-");
    pen.number(u64::from(request_id));
    pen.fixed(b"-");
}

/// Writes lines for one node. Keeps what changes seldom (the node's name, the second's date in words, the domains of
/// hosts) and room for a line.
pub struct LineWriter {
    node: Vec<u8>,
    zone: TimeZone,
    second: i64,
    date_time: String,
    timestamp: String,
    offset: String,
    domains: Domains,
    room: Vec<u8>,
    escaped: Vec<u8>,
}

/// What a line needs beside its texts, node and dates: 46 separators, names of codes, a dozen numbers, three addresses.
const LINE_FIXED_BYTES: usize = 1024;

impl LineWriter {
    /// Lines of `node`, with local times of `zone`.
    pub fn new(node: &str, zone: TimeZone) -> LineWriter {
        let mut name = Vec::new();
        text::escape(node.as_bytes(), &mut name);
        let blank = String::new;
        LineWriter {
            node: name,
            zone,
            second: i64::MIN,
            date_time: blank(),
            timestamp: blank(),
            offset: blank(),
            domains: Domains::new(),
            room: Vec::new(),
            escaped: Vec::new(),
        }
    }

    /// Appends the line of a record, with its LF. `boot` is the last part of its id.
    pub fn write(&mut self, out: &mut Vec<u8>, entry: &Entry, ended: &Ended, boot: &str, seq: u64) {
        let micros = self.turn_to(ended.ended_us);
        let texts: usize = entry.texts.iter().map(|text| text.len()).sum();
        // Hosts stand once more or twice; of four bytes each if they must be escaped.
        let bytes_max = LINE_FIXED_BYTES + self.node.len() + boot.len() + 4 * 3 * texts + SLACK;
        if self.room.len() < bytes_max {
            self.room.resize(bytes_max, 0);
        }
        let mut line = Line { pen: Pen::new(&mut self.room), plain: entry.plain, escaped: &mut self.escaped };
        let text = |which: Text| entry.texts[which as usize];
        line.pen.fixed(b"\"");
        pen_record_id(&mut line.pen, entry.started_us, entry.client_id, entry.request_id);
        line.pen.bytes(boot.as_bytes());
        line.numeric(entry.client_id);
        line.numeric(u64::from(entry.request_id));
        line.raw(self.date_time.as_bytes());
        line.numeric(ended.elapsed_us / 1000);
        line.numeric(u64::from(ended.status));
        let size = ended.upload.saturating_add(ended.download);
        line.numeric(size);
        line.numeric(ended.upload);
        line.numeric(ended.download);
        line.raw(if ended.bypassed { b"TRUE" } else { b"FALSE" });
        line.pen.next();
        line.pen.address(entry.client.ip());
        line.pen.next();
        if entry.named {
            line.text(text(Text::Username));
        } else {
            line.pen.fixed(b"anonymous");
        }
        line.pen.fixed(b"@");
        line.pen.address(entry.client.ip());
        for which in [Text::Method, Text::Url, Text::Referer, Text::Useragent, Text::Mime] {
            line.scalar(text(which));
        }
        line.scalar(text(Text::FilterName));
        line.scalar(text(Text::FilteringReason));
        line.pen.next();
        line.pen.endpoint(entry.interface);
        line.raw(ended.cachecode.code().as_bytes());
        line.raw(ended.peercode.code().as_bytes());
        line.scalar(text(Text::Peer));
        let host = text(Text::RequestHost);
        let referer_host = domains::host_of(text(Text::Referer));
        line.scalar(host);
        line.scalar(self.domains.registrable(host));
        line.scalar(referer_host);
        line.scalar(self.domains.registrable(referer_host));
        line.raw(range(size).as_bytes());
        for which in [Text::TimeProfiles, Text::UserGroups, Text::RequestTypes, Text::Applications, Text::Categories] {
            line.list(text(which));
        }
        line.list(text(Text::ResponseProfiles));
        line.scalar(text(Text::UploadTypes));
        line.scalar(text(Text::DownloadTypes));
        line.list(text(Text::Profiles));
        line.raw(&self.node);
        line.numeric(seq);
        line.raw(self.timestamp.as_bytes());
        line.pen.fixed(b".");
        line.pen.six_digits(micros);
        line.pen.bytes(self.offset.as_bytes());
        line.scalar(text(Text::Snapshot));
        line.scalar(text(Text::Rule));
        line.pen.next();
        line.pen.fixed(&[ended.ending.by.code() as u8, ended.ending.phase.code() as u8]);
        line.numeric(u64::from(ended.connect_us));
        line.numeric(u64::from(ended.first_byte_us));
        line.scalar(text(Text::Sni));
        line.scalar(text(Text::Tls));
        line.pen.fixed(b"\"\n");
        out.extend_from_slice(line.pen.written());
    }

    /// Sets the date in words to the second of `us`; answers the microseconds beyond it.
    fn turn_to(&mut self, us: i64) -> u32 {
        // The years that have four digits: what lies outside is not a time of an exchange.
        let us = us.clamp(0, 253_402_207_200_000_000);
        let second = us / 1_000_000;
        if second != self.second {
            let zoned = Timestamp::from_second(second).unwrap_or_default().to_zoned(self.zone.clone());
            self.date_time = zoned.strftime("%d/%b/%Y:%H:%M:%S").to_string();
            self.timestamp = zoned.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            self.offset = zoned.strftime("%:z").to_string();
            self.second = second;
        }
        (us % 1_000_000) as u32
    }
}

/// The decade of a size.
fn range(size: u64) -> &'static str {
    const BUCKETS: [&str; 11] = [
        "0-100", "100-1K", "1K-10K", "10K-100K", "100K-1M", "1M-10M", "10M-100M", "100M-1G", "1G-10G", "10G-100G",
        "100G-1T",
    ];
    if size < 100 { BUCKETS[0] } else { BUCKETS.get(size.ilog10() as usize - 1).copied().unwrap_or("1T-") }
}

/// A line that is being written: how a value of each kind is spelt.
struct Line<'a> {
    pen: Pen<'a>,
    plain: bool,
    escaped: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn raw(&mut self, value: &[u8]) {
        self.pen.next();
        self.pen.bytes(value);
    }

    fn numeric(&mut self, value: u64) {
        self.pen.next();
        self.pen.number(value);
    }

    fn scalar(&mut self, value: &[u8]) {
        match value {
            b"" => self.pen.fixed(b"\"\t\"-"),
            b"-" => self.raw(b"\\x2d"),
            value => self.list(value),
        }
    }

    fn list(&mut self, value: &[u8]) {
        self.pen.next();
        if !value.is_empty() {
            self.text(value);
        }
    }

    fn text(&mut self, value: &[u8]) {
        if self.plain {
            return self.pen.bytes(value);
        }
        self.escaped.clear();
        text::escape(value, self.escaped);
        self.pen.bytes(self.escaped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::By;
    use crate::record::CacheCode;
    use crate::record::Ending;
    use crate::record::PeerCode;
    use crate::record::Phase;
    use proptest::prelude::*;

    fn line_of(draft: &Draft, ended: &Ended, seq: u64) -> Vec<u8> {
        let mut out = Vec::new();
        LineWriter::new("edge-1", TimeZone::UTC).write(&mut out, &Entry::from(draft), ended, "bootbootbo", seq);
        out
    }

    fn values(line: &[u8]) -> Vec<String> {
        let line = std::str::from_utf8(line).unwrap().trim_end_matches('\n');
        line.split('\t').map(|value| value.trim_matches('"').to_string()).collect()
    }

    #[test]
    fn a_record_is_written_in_the_documented_columns() {
        let draft = Draft {
            client_id: 91,
            request_id: 2,
            started_us: 1_531_492_103_250_000,
            client: "192.168.0.24:40001".parse().unwrap(),
            interface: "[2001:db8::1]:8080".parse().unwrap(),
            username: Some("anna"),
            method: b"GET",
            url: b"https://ssl.gstatic.com/x.png",
            referer: b"https://me@Accounts.Google.co.uk:8443/a?b",
            useragent: b"-",
            mime: b"image/png",
            peer: "ssl.gstatic.com",
            request_host: "ssl.gstatic.com",
            user_groups: "ADMINS,STAFF",
            download_types: "image/png",
            snapshot: "12-3fa9c1d2e0b4",
            rule: "allow staff",
            ..Draft::default()
        };
        let ended = Ended {
            status: 200,
            upload: 26,
            download: 600,
            ended_us: 1_531_492_106_913_007,
            elapsed_us: 3_663_007,
            connect_us: 15,
            first_byte_us: 77,
            ending: Ending::new(By::Client, Phase::Data),
            cachecode: CacheCode::Miss,
            peercode: PeerCode::Direct,
            bypassed: false,
        };
        let line = line_of(&draft, &ended, 7);
        let expected = "1531492103-91-2-bootbootbo|91|2|13/Jul/2018:14:28:26|3663|200|626|26|600|FALSE|192.168.0.24|\
            anna@192.168.0.24|GET|https://ssl.gstatic.com/x.png|https://me@Accounts.Google.co.uk:8443/a?b|\\x2d|image/png|\
            -|-|[2001:db8::1]:8080|TCP_MISS|DIRECT|ssl.gstatic.com|ssl.gstatic.com|gstatic.com|Accounts.Google.co.uk|\
            Google.co.uk|100-1K||ADMINS,STAFF|||||-|image/png||edge-1|7|2018-07-13T14:28:26.913007+00:00|\
            12-3fa9c1d2e0b4|allow staff|CD|15|77|-|-";
        assert_eq!(values(&line).join("|"), expected);
        assert_eq!(values(&line).len(), COLUMNS.len());
        assert_eq!(seq_of(&line), Some(7));
        let record = parse(&line).unwrap();
        assert_eq!(record.ended_us, ended.ended_us);
        assert_eq!(
            (record.size(), record.username.as_str(), record.useragent.as_str()),
            (626, "anna@192.168.0.24", "\\x2d")
        );
        assert!(!record.blocked() && record.mime == "image/png" && record.upload_types.is_empty());
    }

    #[test]
    fn sizes_fall_in_decades() {
        let ranges =
            [(0, "0-100"), (99, "0-100"), (100, "100-1K"), (999, "100-1K"), (1000, "1K-10K"), (u64::MAX, "1T-")];
        for (size, bucket) in ranges {
            assert_eq!(range(size), bucket, "{size}");
        }
    }

    #[test]
    fn a_line_that_is_not_a_record_is_refused_by_column() {
        let good = line_of(&Draft::default(), &Ended::default(), 1);
        let replaced =
            |from: &str, to: &str| String::from_utf8(good.clone()).unwrap().replacen(from, to, 1).into_bytes();
        let table = [
            (Vec::new(), "begin and end"),
            (good[..good.len() / 2].to_vec(), ""),
            (replaced("\"FALSE\"", "\"no\""), "bypassed"),
            (replaced("1970-01-01T", "yesterday"), "timestamp"),
            (replaced("\t\"FALSE\"", "\t\"FALSE\"\t\"FALSE\""), ""),
            (replaced("edge-1", "ed\"ge"), "quote"),
            (vec![b'"', 0xff, b'"'], "UTF-8"),
        ];
        for (line, word) in table {
            let refused = parse(&line).unwrap_err();
            assert!(refused.0.contains(word), "{refused} should name {word}");
        }
        for cut in 0..good.len() - 1 {
            assert!(parse(&good[..cut]).is_err(), "{cut} bytes of a line are not a line");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_one_record_is_one_line_of_47_columns_and_reads_back(
            url in proptest::collection::vec(any::<u8>(), 0..120),
            agent in proptest::collection::vec(proptest::sample::select(&b"\"\t\r\n\\-x\x00\x7f\xff\xc2\x85a"[..]), 0..40),
            user in ".{0,20}",
            rule in "[ -~\t\n\"]{0,20}",
            numbers in any::<(u64, u64, u64, u32, u16)>(),
            ended_us in 0i64..253_402_207_200_000_000,
        ) {
            let draft = Draft {
                client_id: numbers.0, request_id: numbers.3, username: Some(&user), url: &url, useragent: &agent, referer: &url,
                rule: &rule, categories: &rule, ..Draft::default()
            };
            let ended = Ended { upload: numbers.1, download: numbers.2, status: numbers.4, ended_us, ..Ended::default() };
            let line = line_of(&draft, &ended, numbers.1);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\t').count(), COLUMNS.len() - 1);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'"').count(), COLUMNS.len() * 2);
            let record = parse(&line).unwrap();
            prop_assert_eq!((record.client_id, record.request_id), (numbers.0, numbers.3));
            prop_assert_eq!((record.upload, record.download, record.status), (numbers.1, numbers.2, numbers.4));
            prop_assert_eq!((record.ended_us, record.seq), (ended_us, numbers.1));
            prop_assert_eq!(text::unescape(&record.url), Some(url));
            prop_assert_eq!(text::unescape(&record.useragent), Some(agent));
            prop_assert_eq!(text::unescape(&record.rule), Some(rule.clone().into_bytes()));
            prop_assert_eq!(text::unescape(&record.categories), Some(rule.into_bytes()));
        }

        #[test]
        fn no_bytes_upset_the_parser(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
            let _ = seq_of(&line);
        }
    }
}
