//! What the administrator writes (the policy document), its compiled form (the snapshot) and the walk that decides.
//!
//! ```text
//! document --compile (authoring node)--> snapshot file --Snapshot::open (every node)--> decide | explain
//! ```
//! No I/O but [`Folder`], no clock: time comes with the [`Facts`]. With nothing said, a client is denied, a request
//! that no Access Profile allows is denied, and a tunnel to a port not in `[network] connect_ports` (443) is denied.
#![forbid(unsafe_code)]

mod address_table;
mod compile;
mod decision;
mod facts;
mod files;
mod header_tables;
mod lockout;
mod merge;
mod own;
pub mod pac;
pub mod page;
mod patterns;
mod regex_sets;
mod route_table;
mod rule_sets;
mod sections;
mod snapshot;
mod text_finder;
mod type_tables;
mod walk;

pub use compile::compile;
pub use decision::Decision;
pub use decision::Denial;
pub use decision::ListKind;
pub use decision::Permit;
pub use decision::Rights;
pub use decision::RuleId;
pub use decision::Tags;
pub use decision::TemplateId;
pub use decision::Verdict;
pub use facts::Facts;
pub use facts::Headers;
pub use facts::NoHeaders;
pub use facts::Scheme;
pub use files::Files;
pub use files::Folder;
pub use files::NoFiles;
pub use merge::Merged;
pub use merge::merge;
pub use own::OwnSections;
pub use page::BlockFacts;
pub use page::Page;
pub use sections::client_address::Believed;
pub use sections::client_address::Told;
pub use sections::parents::ParentGroup;
pub use sections::parents::ParentProxy;
pub use sections::parents::RouteTo;
pub use snapshot::Snapshot;
pub use snapshot::SnapshotError;
pub use snapshot::manifest as pieces;
pub use walk::decide;
pub use walk::explain;

use serde::Deserialize;
use serde::Serialize;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Swaps the snapshot on all cores, in two steps; any failure keeps the old one and says why.
pub type Publish = Arc<dyn Fn(Arc<Snapshot>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// One fault of a policy document or of startup.ini, with its place and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// 1-based line; 0 if the fault has no line.
    pub line: usize,
    /// Where: `access_profiles[3].action`, entries counted from 1.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What would be accepted.
    pub remedy: String,
}

/// A unified diff of two documents, each with its name; empty if they are equal.
pub fn diff(old: (&str, &str), new: (&str, &str)) -> String {
    if old.1 == new.1 {
        return String::new();
    }
    merge::lines(old.1, new.1).unified_diff().context_radius(3).header(old.0, new.0).to_string()
}
