//! What actions about policy and their answers are made of.

use serde::Deserialize;
use serde::Serialize;

/// A request to be explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQuestion {
    /// The client's address.
    pub client: String,
    /// The user's name, if authenticated.
    #[serde(default)]
    pub user: Option<String>,
    /// `GET` if absent; `CONNECT` for a tunnel.
    #[serde(default)]
    pub method: Option<String>,
    /// The URL, or `host:port` for CONNECT.
    pub url: String,
    /// RFC 3339 time, or now.
    #[serde(default)]
    pub at: Option<String>,
    /// A document to explain by instead of the policy in force.
    #[serde(default)]
    pub document: Option<String>,
    /// A version of the history to explain by instead of the policy in force.
    #[serde(default)]
    pub version: Option<u64>,
}

/// One side of a comparison of policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum PolicySide {
    /// The policy in force.
    InForce,
    /// A version of the history.
    Version {
        /// Counted from 1.
        version: u64,
    },
    /// A document that is not applied.
    Document {
        /// Its text.
        document: String,
    },
}

/// How a policy is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApplyHow {
    /// Although it would lock somebody out.
    pub force: bool,
    /// In waves; absent: on all slaves at once.
    pub waves: Option<Waves>,
}

/// A rollout as an administrator orders it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waves {
    /// How many slaves have it after each wave: `1,25%,all`.
    pub sizes: String,
    /// How long each wave is watched, in seconds.
    pub window_s: u64,
}

/// A policy document with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyText {
    /// Its place in the history; 0 before the first apply.
    pub version: u64,
    /// Its snapshot.
    pub snapshot: String,
    /// The text.
    pub document: String,
    /// On a slave: where it came from and when.
    pub origin: String,
}

/// One version of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// Counted from 1.
    pub version: u64,
    /// Its snapshot.
    pub snapshot: String,
    /// When it was applied, microseconds since the epoch.
    pub applied_us: i64,
    /// By whom.
    pub author: String,
    /// Why.
    pub comment: String,
    /// Whether it is in force.
    pub current: bool,
    /// Whether its rollout was called back.
    #[serde(default)]
    pub reverted: bool,
}
