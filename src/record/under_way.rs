//! An exchange that is under way, as whoever asks for it sees it.

use serde::Deserialize;
use serde::Serialize;

/// An exchange that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Number of its client connection.
    pub client_id: u64,
    /// The how-manieth exchange on that connection.
    pub request_id: u32,
    /// When its request began to arrive, microseconds since the epoch.
    pub started_us: i64,
    /// The client's address and port.
    pub client: String,
    /// The user's name; empty if unknown.
    pub user: String,
    /// Request method; `CONNECT` for a tunnel.
    pub method: String,
    /// Request URL.
    pub url: String,
    /// Who was asked.
    pub peer: String,
    /// The rule that allowed it.
    pub rule: String,
    /// What it is waiting for, in words.
    pub phase: String,
    /// Bytes from client to server, as of its last update.
    pub upload: u64,
    /// Bytes from server to client, as of its last update.
    pub download: u64,
}

/// The exchanges under way, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// How many there are.
    pub count: u64,
    /// The oldest of them.
    pub oldest: Vec<Exchange>,
}
