//! What happened in one exchange, as values: the draft a core writes when it starts to answer, the numbers at its end,
//! the line of extended.log that both become, the owned [`Record`] read back from that line, and batches of those.
//!
//! | module | what it is |
//! |---|---|
//! | this | [`Draft`], [`Ended`], [`Ending`], codes, [`Epoch`], [`Record`] |
//! | [`line`] | the line codec of extended.log (`docs/formats/extended-log.md`) |
//! | [`lines`] | lines that travel: checked, not taken apart |
//! | `pen`, `domains` | what writing a line needs: room and digits, hosts and their domains |
//! | [`text`] | the escaping inside a value |
//! | [`batch`] | records on their way to the master (`docs/formats/record-batch.md`) |
//! | [`under_way`] | an exchange that is under way |
//! | [`audit`] | what may be asked of an audit, and its answer |
//! | [`question`] | what may be asked of a store of records, and its answers |
#![forbid(unsafe_code)]

pub mod audit;
pub mod batch;
mod codes;
mod domains;
pub mod line;
pub mod lines;
mod pen;
pub mod question;
mod reading;
pub mod text;
pub mod under_way;

pub use codes::By;
pub use codes::CacheCode;
pub use codes::Ending;
pub use codes::PeerCode;
pub use codes::Phase;

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

/// The rule of a record that tells how many exchanges have none (LOG_FULL=count). Its `request_id` is 0, which no exchange has, and its
/// `filtering_reason` begins with their number.
pub const UNRECORDED_RULE: &str = "LOG_FULL";

/// What a core knows of an exchange when it starts to answer: text, borrowed from wherever it stands.
///
/// Empty text means absent. Text longer than its bound in `limits` is cut when the record is opened. Lists are names
/// joined by commas.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Number of the client connection, from `RecordDesk::next_client_id`.
    pub client_id: u64,
    /// The how-manieth exchange on that connection, from 1.
    pub request_id: u32,
    /// When the request began to arrive, microseconds since the epoch.
    pub started_us: i64,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The address and port that received the request.
    pub interface: SocketAddr,
    /// The user's name, if authenticated; without the `@ip`, which the codec adds.
    pub username: Option<&'a str>,
    /// Request method.
    pub method: &'a [u8],
    /// Request URL, or `host:port` of a tunnel.
    pub url: &'a [u8],
    /// The `Referer` field.
    pub referer: &'a [u8],
    /// The `User-Agent` field.
    pub useragent: &'a [u8],
    /// Media type of what was served.
    pub mime: &'a [u8],
    /// The section that blocked.
    pub filter_name: &'a str,
    /// Why it blocked.
    pub filtering_reason: &'a str,
    /// The host really asked; `tidegate` if the node answered itself.
    pub peer: &'a str,
    /// The request's host.
    pub request_host: &'a str,
    /// Time profiles.
    pub time_profiles: &'a str,
    /// User groups.
    pub user_groups: &'a str,
    /// Request types (the column `request_profiles`).
    pub request_types: &'a str,
    /// Application signatures.
    pub applications: &'a str,
    /// Categories.
    pub categories: &'a str,
    /// Response profiles.
    pub response_profiles: &'a str,
    /// Content types of the upload.
    pub upload_types: &'a str,
    /// Content types of the download.
    pub download_types: &'a str,
    /// Profiles.
    pub profiles: &'a str,
    /// Name of the snapshot that decided.
    pub snapshot: &'a str,
    /// The rule that decided.
    pub rule: &'a str,
    /// Server name of the TLS ClientHello in a tunnel, if seen.
    pub sni: &'a [u8],
    /// What may be told while the record is open, because it is opened before it is known.
    pub late: Option<Late>,
    /// TLS versions and ciphers on both sides, if inspected.
    pub tls: &'a str,
}

/// A text that a record may be opened without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// The server's name of a tunnel: its client says it once the tunnel is open.
    Sni,
    /// The type of an answer that is still waited for.
    Mime,
}

impl Default for Draft<'_> {
    fn default() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Draft {
            client_id: 0,
            request_id: 0,
            started_us: 0,
            client: nowhere,
            interface: nowhere,
            username: None,
            method: b"",
            url: b"",
            referer: b"",
            useragent: b"",
            mime: b"",
            filter_name: "",
            filtering_reason: "",
            peer: "",
            request_host: "",
            time_profiles: "",
            user_groups: "",
            request_types: "",
            applications: "",
            categories: "",
            response_profiles: "",
            upload_types: "",
            download_types: "",
            profiles: "",
            snapshot: "",
            rule: "",
            sni: b"",
            late: None,
            tls: "",
        }
    }
}

/// The numbers of an exchange: first estimates when the record is opened, patched while it runs, final when it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ended {
    /// HTTP status answered.
    pub status: u16,
    /// Payload bytes client to server.
    pub upload: u64,
    /// Payload bytes server to client.
    pub download: u64,
    /// When the exchange ended (or: was last heard of), microseconds since the epoch.
    pub ended_us: i64,
    /// From the first byte of the request to the end, microseconds.
    pub elapsed_us: u64,
    /// Time to connect upstream, microseconds; 0 on a pooled connection.
    pub connect_us: u32,
    /// From the request's first byte to the first byte of the answer, microseconds.
    pub first_byte_us: u32,
    /// Who ended it and in which phase. While the record is open: [`By::Nobody`] and the phase it is in.
    pub ending: Ending,
    /// How it was answered.
    pub cachecode: CacheCode,
    /// Where the answer came from.
    pub peercode: PeerCode,
    /// Whether the user bypassed a block.
    pub bypassed: bool,
}

impl Ended {
    /// The numbers of a record that was open when its process was killed: they tell its last update, and the phase it was in.
    pub fn killed(self) -> Ended {
        let phase = if self.ending.phase == Phase::Complete { Phase::Data } else { self.ending.phase };
        Ended { ending: Ending::new(By::Killed, phase), ..self }
    }
}

/// A node's identity for its records: random, made once with its state directory. Sequence numbers count within it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub [u8; 16]);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

impl Epoch {
    /// Reads the 32 hex digits that `Display` writes.
    pub fn parse(text: &str) -> Option<Epoch> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut epoch = [0; 16];
        for (byte, pair) in epoch.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Epoch(epoch))
    }
}

/// A record as extended.log has it: what a line says, column by column.
///
/// Text is kept as it stands in the log, *escaped* ([`text`]): it holds no control byte whatever a client sent, so that
/// a report or a terminal can show it as it is. Absent text is empty. Derived columns (size, range, the tld and
/// referer_host columns, date_time) are not kept: the codec derives them again.
///
/// `T` is what text is kept in: a `Record` owns it, a `Record<&str>` borrows it from the line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record<T = String> {
    /// Unique in the cluster: `SECONDS-CLIENT-REQUEST-BOOT`.
    pub record_id: T,
    /// Number of the client connection.
    pub client_id: u64,
    /// The how-manieth exchange on it.
    pub request_id: u32,
    /// When the exchange ended, microseconds since the epoch.
    pub ended_us: i64,
    /// The node's offset from UTC then, minutes east.
    pub offset_min: i16,
    /// Milliseconds it took.
    pub elapsed_ms: u64,
    /// HTTP status answered.
    pub status: u16,
    /// Payload bytes client to server.
    pub upload: u64,
    /// Payload bytes server to client.
    pub download: u64,
    /// Whether the user bypassed a block.
    pub bypassed: bool,
    /// The client's address.
    pub client_ip: T,
    /// `user@ip` or `anonymous@ip`.
    pub username: T,
    /// Request method.
    pub method: T,
    /// Request URL.
    pub url: T,
    /// The `Referer` field.
    pub referer: T,
    /// The `User-Agent` field.
    pub useragent: T,
    /// Media type of what was served.
    pub mime: T,
    /// The section that blocked; empty if none did.
    pub filter_name: T,
    /// Why it blocked.
    pub filtering_reason: T,
    /// `IP:PORT` that received the request.
    pub interface: T,
    /// How it was answered.
    pub cachecode: T,
    /// Where the answer came from.
    pub peercode: T,
    /// The host really asked.
    pub peer: T,
    /// The request's host.
    pub request_host: T,
    /// Time profiles.
    pub time_profiles: T,
    /// User groups.
    pub user_groups: T,
    /// Request types.
    pub request_types: T,
    /// Application signatures.
    pub applications: T,
    /// Categories.
    pub categories: T,
    /// Response profiles.
    pub response_profiles: T,
    /// Content types of the upload.
    pub upload_types: T,
    /// Content types of the download.
    pub download_types: T,
    /// Profiles.
    pub profiles: T,
    /// The node that wrote it.
    pub node: T,
    /// That node's number of the record, without gaps.
    pub seq: u64,
    /// The snapshot that decided.
    pub snapshot: T,
    /// The rule that decided.
    pub rule: T,
    /// Two letters: who ended it, in which phase.
    pub ending: T,
    /// Time to connect upstream, microseconds.
    pub connect_us: u32,
    /// Time to the first byte of the answer, microseconds.
    pub first_byte_us: u32,
    /// Server name of the TLS ClientHello in a tunnel.
    pub sni: T,
    /// TLS versions and ciphers on both sides.
    pub tls: T,
}

impl<T: AsRef<str>> Record<T> {
    /// Bytes in both directions.
    pub fn size(&self) -> u64 {
        self.upload.saturating_add(self.download)
    }

    /// Whether policy blocked it.
    pub fn blocked(&self) -> bool {
        !self.filter_name.as_ref().is_empty()
    }

    /// The same record, borrowing its text.
    pub fn view(&self) -> Record<&str> {
        self.map(AsRef::as_ref)
    }

    /// The same record, owning its text.
    pub fn owned(&self) -> Record {
        self.map(|text| text.as_ref().to_string())
    }

    fn map<'a, U>(&'a self, f: impl Fn(&'a T) -> U) -> Record<U> {
        Record {
            record_id: f(&self.record_id),
            client_id: self.client_id,
            request_id: self.request_id,
            ended_us: self.ended_us,
            offset_min: self.offset_min,
            elapsed_ms: self.elapsed_ms,
            status: self.status,
            upload: self.upload,
            download: self.download,
            bypassed: self.bypassed,
            client_ip: f(&self.client_ip),
            username: f(&self.username),
            method: f(&self.method),
            url: f(&self.url),
            referer: f(&self.referer),
            useragent: f(&self.useragent),
            mime: f(&self.mime),
            filter_name: f(&self.filter_name),
            filtering_reason: f(&self.filtering_reason),
            interface: f(&self.interface),
            cachecode: f(&self.cachecode),
            peercode: f(&self.peercode),
            peer: f(&self.peer),
            request_host: f(&self.request_host),
            time_profiles: f(&self.time_profiles),
            user_groups: f(&self.user_groups),
            request_types: f(&self.request_types),
            applications: f(&self.applications),
            categories: f(&self.categories),
            response_profiles: f(&self.response_profiles),
            upload_types: f(&self.upload_types),
            download_types: f(&self.download_types),
            profiles: f(&self.profiles),
            node: f(&self.node),
            seq: self.seq,
            snapshot: f(&self.snapshot),
            rule: f(&self.rule),
            ending: f(&self.ending),
            connect_us: self.connect_us,
            first_byte_us: self.first_byte_us,
            sni: f(&self.sni),
            tls: f(&self.tls),
        }
    }
}
