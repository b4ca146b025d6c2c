//! Figures: what a node counts and measures, as one table. `/metrics`, performance.log, the cluster's polls and the portal's
//! charts are all read from it, so that a figure has one name and one meaning everywhere.
//!
//! | file | what it is |
//! |---|---|
//! | `table` | the one table: name, labels, kind, unit, help |
//! | `exposition` | the text that Prometheus reads (`docs/metrics.md`) |
//! | `history` | a day of them in intervals, for charts |
//! | `line` | a line of performance.log (`docs/formats/performance-log.md`) |
#![forbid(unsafe_code)]

mod exposition;
mod history;
mod line;
mod table;

pub use exposition::CONTENT_TYPE;
pub use exposition::NodeFigures;
pub use exposition::add_nodes;
pub use exposition::exposition;
pub use exposition::reference;
pub use exposition::shown;
pub use history::Point;
pub use history::between;
pub use history::interval;
pub use line::header;
pub use line::line;
pub use table::Figure;
pub use table::Kind;
pub use table::TABLE;
pub use table::Unit;

use serde::Deserialize;
use serde::Serialize;

/// The sections and parts of the node that deny, as `denials` counts them: (label, the record's filter_name). The last one
/// stands for all that are not named here.
pub const SECTIONS: [(&str, &str); 9] = [
    ("access_restriction", "Access Restriction"),
    ("access_profiles", "Access Profiles"),
    ("network", "Network"),
    ("destination", "destination"),
    ("parents", "parents"),
    ("routes", "routes"),
    ("upgrade", "upgrade"),
    ("role", "role"),
    ("other", ""),
];

/// The place of a filter_name in [`SECTIONS`].
pub fn section_of(filter_name: &str) -> usize {
    SECTIONS.iter().position(|(_, name)| *name == filter_name).unwrap_or(SECTIONS.len() - 1)
}

/// Whose fault a failed exchange was, as `failures` counts them, by the first letter of the record's ending.
pub const BLAMES: [(&str, char); 8] = [
    ("client", 'C'),
    ("client_timeout", 'c'),
    ("server", 'S'),
    ("server_timeout", 's'),
    ("time", 'L'),
    ("resource", 'R'),
    ("internal", 'I'),
    ("killed", 'K'),
];

/// The place of an ending's letter in [`BLAMES`]; what ends in no such way is an error of ours.
pub fn blame_of(letter: char) -> usize {
    BLAMES.iter().position(|(_, code)| *code == letter).unwrap_or(6)
}

/// A node's figures at one moment. Counters are totals since its start. Each is exact; together they are a moment's blur.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // the table says what each is
pub struct Figures {
    pub start_s: u64,
    pub connections: u64,
    pub connections_open: u64,
    pub shed: u64,
    pub client_limited: u64,
    pub proxy_header_refused: u64,
    pub exhausted: u64,
    pub exchanges: u64,
    pub tunnels_open: u64,
    pub upload: u64,
    pub download: u64,
    pub denials: [u64; SECTIONS.len()],
    pub failures: [u64; BLAMES.len()],
    pub connect_failed: u64,
    pub answered_5xx: u64,
    pub upstream_connects: u64,
    pub upstream_reused: u64,
    pub upstream_idle: u64,
    pub dns_questions: u64,
    pub dns_remembered: u64,
    pub dns_failures: u64,
    pub sockets: u64,
    pub operations: u64,
    pub cores: u64,
    pub sweeps: u64,
    pub records_written: u64,
    pub records_waiting: u64,
    pub records_acknowledged: u64,
    pub records_refused: u64,
    pub exchanges_unrecorded: u64,
    pub record_slots: u64,
    pub record_slots_free: u64,
    pub policy_version: u64,
    pub draining: u64,
    pub cpu_us: u64,
    pub resident_bytes: u64,
    pub descriptors: u64,
    pub descriptors_max: u64,
    pub host_memory_bytes: u64,
    pub host_memory_available_bytes: u64,
    pub host_load_milli: u64,
}

impl Figures {
    /// Exchanges that were denied.
    pub fn denied(&self) -> u64 {
        self.denials.iter().copied().fold(0, u64::saturating_add)
    }

    /// Exchanges that failed.
    pub fn failed(&self) -> u64 {
        self.failures.iter().copied().fold(0, u64::saturating_add)
    }
}
