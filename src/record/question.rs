//! What may be asked of a store of records, and its answers, as values. They stand down here because the store answers them.

use serde::{Deserialize, Serialize};

/// What somebody asks of the report. Everything absent means "any"; times are microseconds since the epoch, UTC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// Records that ended at this time or later.
    pub from_us: Option<i64>,
    /// Records that ended before this time.
    pub to_us: Option<i64>,
    /// The node that carried the exchange.
    pub node: Option<String>,
    /// The request's host.
    pub host: Option<String>,
    /// `user@ip` or `anonymous@ip`.
    pub user: Option<String>,
    /// A category the request fell in.
    pub category: Option<String>,
    /// The client's address.
    pub client: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The HTTP status that was answered.
    pub status: Option<u16>,
    /// Only what policy blocked (`true`), only what it did not (`false`).
    pub blocked: Option<bool>,
    /// How many rows each ranking has (default 10, at most `limits::REPORT_ROWS_MAX`).
    pub top: Option<u32>,
    /// How many of the newest records to list (default 50, at most `limits::REPORT_ROWS_MAX`).
    pub newest: Option<u32>,
    /// Only these: sums, rankings and series stay empty, and what is older than the rows listed is not read. Whoever goes through a report
    /// page by page asks so.
    #[serde(default)]
    pub rows_only: bool,
    /// List the newest behind this place: the next page, with `last` of the answer before. Sums are of the whole range all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Place>,
}

/// Where a record stands in a report, which lists the latest first. No two stand at the same place, however many ended in the same
/// microsecond, and a record keeps its place, whatever comes or is forgotten around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// When the exchange ended, microseconds since the epoch, UTC.
    pub ended_us: i64,
    /// The store's number of the node's epoch.
    pub source: i64,
    /// The node's number of the record.
    pub seq: u64,
}

/// One row of a ranking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rank {
    /// What is ranked: a host, a user, ...
    pub name: String,
    /// Exchanges.
    pub requests: u64,
    /// Of these, blocked by policy.
    pub blocked: u64,
    /// Bytes, both directions.
    pub bytes: u64,
}

/// One record as a report shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordRow {
    /// The record's id, unique in the cluster.
    pub record_id: String,
    /// When the exchange ended, microseconds since the epoch, UTC.
    pub ended_us: i64,
    /// The node that carried it.
    pub node: String,
    /// The node's number of the record.
    pub seq: u64,
    /// `user@ip`.
    pub user: String,
    /// Request method.
    pub method: String,
    /// Request URL, or `host:port` of a tunnel.
    pub url: String,
    /// Request host.
    pub host: String,
    /// HTTP status answered.
    pub status: u16,
    /// Bytes, both directions.
    pub size: u64,
    /// Milliseconds.
    pub elapsed_ms: u64,
    /// The section that blocked, or `-`.
    pub filter_name: String,
    /// Why it blocked, or `-`.
    pub filtering_reason: String,
    /// The rule that decided.
    pub rule: String,
    /// The snapshot that decided.
    pub snapshot: String,
    /// Who ended the exchange and in which phase.
    pub ending: String,
    /// Categories, comma-separated.
    pub categories: String,
}

/// Sequence numbers of one node that never arrived though later ones did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The node.
    pub node: String,
    /// First missing sequence number.
    pub first: u64,
    /// Last missing sequence number.
    pub last: u64,
    /// When the record before them ended, microseconds since the epoch; 0 if there is none, or it is not known.
    #[serde(default)]
    pub after_us: i64,
    /// When the record behind them ended.
    #[serde(default)]
    pub before_us: i64,
}

impl Gap {
    /// Which numbers, in words.
    pub fn numbers(&self) -> String {
        if self.first == self.last {
            format!("record {}", self.first)
        } else {
            format!("records {} to {}", self.first, self.last)
        }
    }
}

/// What the store of records has of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredAccount {
    /// The node.
    pub node: String,
    /// The highest number that is stored, of its newest epoch.
    pub highest: u64,
    /// How many numbers up to that never arrived.
    pub missing: u64,
    /// Which: of all its epochs, the oldest first, bounded.
    pub gaps: Vec<Gap>,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Exchanges that match.
    pub requests: u64,
    /// Of these, blocked by policy.
    pub blocked: u64,
    /// Exchanges that went on without a record, by the records that tell so (LOG_FULL=count). They are in no other number.
    #[serde(default)]
    pub unrecorded: u64,
    /// Bytes client to server.
    pub upload: u64,
    /// Bytes server to client.
    pub download: u64,
    /// Top hosts by requests.
    pub hosts: Vec<Rank>,
    /// Top users by requests.
    pub users: Vec<Rank>,
    /// Top categories by requests.
    pub categories: Vec<Rank>,
    /// Top hosts among what was blocked.
    pub blocked_hosts: Vec<Rank>,
    /// By rule that decided.
    pub rules: Vec<Rank>,
    /// By node.
    pub nodes: Vec<Rank>,
    /// (start of interval in microseconds, requests, blocked), evenly spaced over the range, at most 120 intervals.
    pub series: Vec<(i64, u64, u64)>,
    /// The newest records that match, newest first.
    pub newest: Vec<RecordRow>,
    /// Where the last of them stands, if there may be older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Place>,
    /// Records of the range that are stored and cannot be read: they are not counted.
    #[serde(default)]
    pub unreadable: u64,
    /// Missing sequence numbers, whatever the filter says: a gap must be seen.
    pub gaps: Vec<Gap>,
}
