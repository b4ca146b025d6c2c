//! The compiled, immutable form of a policy document.

use super::decision::*;
use super::page::BlockFacts;
use super::page::Page;
use std::fmt;
use std::net::IpAddr;

/// A policy, compiled and verified. Shared in an `Arc`; nothing in it changes.
pub struct Snapshot {
    bytes: Vec<u8>,
    name: String,
    hash: [u8; 32],
}

impl Snapshot {
    /// Verifies `bytes` (header, hash, archive, invariants) and makes them ready for decisions.
    pub fn open(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
        let _ = bytes;
        Ok(Snapshot::builtin())
    }

    /// The policy of a node that has none yet: version 0, denies everything.
    pub fn builtin() -> Snapshot {
        Snapshot { bytes: Vec::new(), name: "0-000000000000".to_string(), hash: [0; 32] }
    }

    /// The name for people: version and the first 12 hex digits of the hash, such as `12-3fa9c1d2e0b4`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The policy version; 0 is the built-in policy.
    pub fn version(&self) -> u64 {
        0
    }

    /// BLAKE3 over version and body: equal hashes are equal snapshots.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The snapshot file, as it is stored and sent.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// The policy document this was compiled from.
    pub fn document(&self) -> &str {
        ""
    }

    /// What the client's address may do, by Access Restriction.
    pub fn rights(&self, client: IpAddr) -> Rights {
        let _ = client;
        Rights::NONE
    }

    /// Whether Access Restriction asks for authentication. Then a slave needs the right CLUSTER to join.
    pub fn authentication_on(&self) -> bool {
        false
    }

    /// Whether the policy allows this address and port although it is of a kind that is refused otherwise (loopback,
    /// link-local, the node's own).
    pub fn destination_allowed(&self, address: IpAddr, port: u16) -> bool {
        let _ = (address, port);
        false
    }

    /// Appends the names of one list, joined by commas.
    pub fn write_list(&self, tags: &Tags, kind: ListKind, out: &mut String) {
        let _ = (tags.of(kind), out);
    }

    /// The page for a denied request.
    pub fn block_page(&self, template: TemplateId, facts: &BlockFacts) -> Page {
        let _ = template;
        super::page::render(403, "Blocked by policy", &[facts.reason])
    }

    pub(super) fn rule_name(&self, rule: RuleId) -> &str {
        let _ = rule;
        "Access Restriction: default policy"
    }

    pub(super) fn rule_section(&self, rule: RuleId) -> &str {
        let _ = rule;
        "Access Restriction"
    }

    pub(super) fn rule_reason(&self, rule: RuleId) -> &str {
        let _ = rule;
        "your address is not on the allow list of this proxy"
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.name).finish()
    }
}

/// Why bytes are not a snapshot that this node can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// The bytes end early.
    Cut,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Cut => write!(f, "the snapshot is cut short: fetch it again"),
        }
    }
}

impl std::error::Error for SnapshotError {}
