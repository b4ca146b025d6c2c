//! Master and slaves: who belongs to the cluster, how policy goes down and records come up.
//!
//! | module | what it is |
//! |---|---|
//! | this | refusals with their remedies, and the rows that portal and command line show |
//! | [`protocol`] | the messages and their bounds, sans-IO (`docs/formats/cluster-protocol.md`) |
//! | [`roster`] | the master's memory of its slaves, sans-IO |
//! | [`master`] | the cluster service on port 8888 |
//! | [`client`] | one connection of a slave to its master |
//! | [`sidecar`] | slave: hello, long poll, fetch, verify, keep, publish |
//! | [`offered`] | master: a snapshot in pieces, signed |
//! | [`fetch`] | slave: which pieces are missing, and asking for them |
//! | [`assembly`] | slave: the file that pieces become |
//! | [`held`] | slave: the last good snapshots on disk |
//! | [`shipper`] | every node: from extended.log to the store of records, exactly once |
//! | [`drift`] | master: what a node enforces beside what it should |
//! | [`balancer`] | the slaves as balancers and browsers are to know them |
//! | [`questions`] | what a slave asks about older versions of policy |
//! | [`rollout`] | a policy that reaches the slaves in waves, sans-IO |
//! | [`tasks`] | master: orders to slaves and what comes of them |
//! | `handing` | master: tasks over the wire |
//! | [`ledger`] | slave: its notes of tasks, by which each is done once |
//! | [`packer`] | batches made ready for the wire |
//! | [`backoff`] | waits between attempts |
#![forbid(unsafe_code)]

pub mod assembly;
pub mod backoff;
pub mod balancer;
pub mod client;
pub mod drift;
pub mod fetch;
mod handing;
pub mod held;
mod intake;
pub mod ledger;
pub mod master;
pub mod membership;
pub mod offered;
pub mod packer;
pub mod protocol;
pub mod questions;
pub mod rollout;
pub mod roster;
pub mod shipper;
pub mod sidecar;
pub mod tasks;

use crate::figures::Figures;
use crate::record::question::Gap;
use serde::{Deserialize, Serialize};

/// Why the master refuses a hello. Each carries its remedy; both ends show it in the same words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "kebab-case")]
pub enum Refusal {
    /// The two nodes do not hold the same activation key (seen as a failed TLS handshake).
    KeyMismatch,
    /// The two nodes run different versions of Tidegate or of its formats.
    VersionMismatch {
        /// The master's version.
        master: String,
        /// The slave's version.
        slave: String,
    },
    /// Authentication is on at the master and the slave's address is not on its allow list.
    NotOnAllowList {
        /// The slave's address as the master saw it.
        address: String,
    },
    /// Another node uses the same name.
    NameTaken {
        /// The name.
        name: String,
        /// The address of the node that has it.
        holder: String,
    },
    /// The name belongs to another node, by that one's key.
    NameBound {
        /// The name.
        name: String,
        /// When the node that has it came first, RFC 3339.
        since: String,
    },
    /// The node was removed from the cluster.
    Removed {
        /// Under which name.
        name: String,
    },
    /// The cluster has as many names as it may.
    NoRoom,
    /// The clocks are so far apart that a certificate of the other end is not valid (seen as a failed TLS handshake).
    ClocksApart,
}

impl Refusal {
    /// What is wrong and what to do, in one sentence each.
    pub fn words(&self) -> String {
        match self {
            Refusal::KeyMismatch => {
                "KeyMismatch: master and slave do not hold the same activation key. Copy the file named by \
                ACTIVATION_KEY_FILE from the master to the slave (mode 0600) and restart the slave."
                    .to_string()
            }
            Refusal::VersionMismatch { master, slave } => format!(
                "VersionMismatch: the master runs {master}, the slave {slave}. Install the same version of the tidegate package on both."
            ),
            Refusal::NotOnAllowList { address } => format!(
                "NotOnAllowList: authentication is on at the master and {address} is not on its allow list. On the master, add an \
                 Access Restriction -> Allow list entry for {address} with the right CLUSTER and apply."
            ),
            Refusal::NameBound { name, since } => format!(
                "NameBound: the name {name} belongs to another node of this cluster, which came first at {since}. Set another NODE_NAME in \
                 this node's startup.ini; or, if this machine was installed anew or takes that one's place: `tidegate node release {name}` \
                 on the master."
            ),
            Refusal::Removed { name } => format!(
                "Removed: this node was removed from the cluster as {name}. To let it back: `tidegate node readmit {name}` on the master."
            ),
            Refusal::NoRoom => format!(
                "NoRoom: the cluster has {} names already. On the master, `tidegate node remove NAME` for those that are gone.",
                crate::limits::CLUSTER_MEMBERS_MAX
            ),
            Refusal::ClocksApart => {
                "ClocksApart: the clocks of master and slave are a day or more apart, so their certificates are not valid \
                 for each other. Let NTP set the clocks of both nodes."
                    .to_string()
            }
            Refusal::NameTaken { name, holder } => format!(
                "NameTaken: a node at {holder} already uses the name {name}. Set another NODE_NAME in this node's startup.ini."
            ),
        }
    }
}

/// The counters every node reports: totals since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Client connections accepted.
    pub connections: u64,
    /// Client connections open now.
    pub connections_open: u64,
    /// Exchanges ended.
    pub exchanges: u64,
    /// Of these, refused by policy.
    pub denied: u64,
    /// Of these, ended by an error of client, upstream or node.
    pub failed: u64,
    /// Tunnels open now.
    pub tunnels_open: u64,
    /// Bytes client to server.
    pub upload: u64,
    /// Bytes server to client.
    pub download: u64,
}

/// What a node effectively enforces, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enforced {
    /// The effect of its policy ([`crate::policy::Snapshot::effect`]), hex: the snapshot's hash, unless sections of its own are in force.
    pub effect: String,
    /// These sections, by name.
    pub own_sections: Vec<String>,
    /// What is wrong inside the node (a core that decides by another policy than the others); empty if nothing.
    pub trouble: String,
}

/// What a node has to offer to those who send clients: a balancer, or a browser's proxy auto-configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Proxy listeners, `IP:PORT`; an unspecified address is every address of the node.
    pub listen: Vec<String>,
    /// The portal's `IP:PORT`, where `/health` is asked.
    pub portal: String,
    /// PROXY_PROTOCOL: `off`, `optional` or `required`.
    pub proxy_protocol: String,
    /// Its share of the clients, beside the other nodes' numbers.
    pub weight: u16,
    /// Whether it is being taken out of service.
    pub draining: bool,
    /// Whether DRAIN_NOTICE is over: answers close their connections.
    #[serde(default)]
    pub closing: bool,
}

/// One node as the master knows it (the Nodes page, `tidegate status --json` on the master).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// NODE_NAME.
    pub name: String,
    /// `master`, `slave` or `standalone`.
    pub role: String,
    /// Address as seen by the master.
    pub address: String,
    /// Version of Tidegate.
    pub version: String,
    /// The fingerprint of its own key; empty for a caller that was refused.
    #[serde(default)]
    pub fingerprint: String,
    /// Until when the activation key counts that it holds, microseconds since the epoch; 0: it holds the current one.
    #[serde(default)]
    pub former_key_until_us: i64,
    /// The snapshot the node says it enforces, such as `12-3fa9c1d2e0b4`; empty before its first.
    pub snapshot: String,
    /// Whether that is the master's current one.
    pub current: bool,
    /// Microseconds since the epoch.
    pub last_contact_us: i64,
    /// Whether it was heard of within twice SYNCTIME.
    pub up: bool,
    /// Records the node has written and the master has not yet stored.
    pub record_lag: u64,
    /// Where its records are; all zero for a caller that was refused, and on a slave but for its own side.
    #[serde(default)]
    pub records: RecordAccount,
    /// The node's clock minus the master's, milliseconds.
    pub clock_skew_ms: i64,
    /// What the master refused it for, in words with the remedy; empty if it did not.
    pub refusal: String,
    /// The last error the node reported (a snapshot it could not use, a full disk); empty if none.
    pub error: String,
    /// Its counters at the last contact.
    pub counters: Counters,
    /// What it has to offer to balancers, as of the last contact.
    #[serde(default)]
    pub offer: Offer,
    /// All its figures at the last contact.
    #[serde(default)]
    pub figures: Figures,
    /// In what it enforces something else than the master's policy, in words; empty if in nothing.
    #[serde(default)]
    pub drift: String,
    /// Its NODE_LABELS.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// Where a node's records are, by their numbers: they count from 1 within the node's epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordAccount {
    /// Ended on the cores.
    pub ended: u64,
    /// Of these, in extended.log.
    pub written: u64,
    /// Of these, shipped: the node knows that they are stored.
    pub shipped: u64,
    /// How many the store of records has received, older ones that it has forgotten since included.
    pub stored: u64,
    /// How many are missing there though later ones came.
    pub missing: u64,
    /// Which, with the time; bounded.
    pub gaps: Vec<Gap>,
}

/// A slave's view of its master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MasterLink {
    /// MASTER_IP:MASTER_PORT.
    pub address: String,
    /// Whether the last contact succeeded.
    pub up: bool,
    /// Microseconds since the epoch of the last success; 0 if never.
    pub last_contact_us: i64,
    /// This node's clock minus the master's, milliseconds.
    pub clock_skew_ms: i64,
    /// What is wrong and what to do about it; empty if nothing.
    pub trouble: String,
    /// The master's own snapshot as of the last contact; empty before the first.
    pub master_snapshot: String,
    /// When the policy in force came, microseconds since the epoch; 0 if never.
    pub synced_us: i64,
    /// When this node last knew that it enforces what its master does, microseconds since the epoch; 0 if never.
    #[serde(default)]
    pub in_step_us: i64,
    /// Bytes that came over the network for the policy that came last.
    #[serde(default)]
    pub fetched_bytes: u64,
}
