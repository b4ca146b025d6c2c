//! What master and slave say to each other: the messages, their bounds, and nothing of sockets.
//! Format: `docs/formats/cluster-protocol.md`.

use crate::base::version::VERSION;
use crate::cluster::Counters;
use crate::cluster::Enforced;
use crate::cluster::Offer;
use crate::cluster::Refusal;
use crate::figures::Figures;
use crate::limits::CLUSTER_MESSAGE_BYTES_MAX;
use crate::limits::CLUSTER_PROXIES_MAX;
use crate::limits::CLUSTER_SYNCTIME_MS_MAX;
use crate::limits::CLUSTER_SYNCTIME_MS_MIN;
use crate::limits::CLUSTER_TEXT_BYTES_MAX;
use crate::limits::LABELS_MAX;
use crate::limits::LOCAL_SECTIONS_MAX;
use crate::limits::TASK_BY_BYTES_MAX;
use crate::limits::TASKS_HANDED_MAX;
use crate::record::Epoch;
use crate::settings::is_label;
use crate::store::tasks::Handed;
use crate::store::tasks::Progress;
use crate::store::tasks::is_task_id;
use crate::tls::identity::is_node_name;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// Where a hello goes, whatever the protocol's number, so that nodes of different versions can tell each other so. The other
/// paths bear the number: another one is simply not found.
pub const HELLO_PATH: &str = "/cluster/1/hello";
/// Where the long poll goes.
pub const POLL_PATH: &str = "/cluster/3/poll";
/// Where the manifest of a snapshot is fetched: its hash follows.
pub const MANIFEST_PATH: &str = "/cluster/3/manifest/";
/// Where pieces of a snapshot are asked for: its hash follows.
pub const PIECES_PATH: &str = "/cluster/3/pieces/";
/// Where batches of records go (POST) and where the highest stored number is asked (GET).
pub const RECORDS_PATH: &str = "/cluster/3/records";

/// Where a slave asks about older versions of policy.
pub const POLICY_PATH: &str = "/cluster/3/policy";

/// Where a slave says how it stands with a task.
pub const TASK_PATH: &str = "/cluster/3/task";

/// The field of every request after the hello: the session it belongs to.
pub const SESSION_FIELD: &str = "tidegate-session";
/// The field of a batch: the highest sequence number the node has written, for the lag.
pub const WRITTEN_FIELD: &str = "tidegate-written";
/// The field of a manifest: the master's signature in hex.
pub const SIGNATURE_FIELD: &str = "tidegate-signature";

/// What must be equal on all nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Version of the package.
    pub version: String,
    /// The formats that cross the wire, such as `cluster 3, snapshot 3, batch 1`.
    pub formats: String,
}

impl Build {
    /// This build's.
    pub fn this() -> Self {
        Build {
            version: VERSION.to_string(),
            // Each number is raised with its page in docs/formats/: development builds of one version may differ in it.
            formats: "cluster 3, snapshot 3, record batch 1".to_string(),
        }
    }

    fn words(&self, other: &Build) -> String {
        if self.version == other.version {
            format!("{} ({})", self.version, self.formats)
        } else {
            self.version.clone()
        }
    }

    /// Absent if both may work together.
    pub fn refusal(master: &Build, slave: &Build) -> Option<Refusal> {
        let differ = || Refusal::VersionMismatch { master: master.words(slave), slave: slave.words(master) };
        (master != slave).then(differ)
    }
}

/// A slave introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What it runs.
    pub build: Build,
    /// NODE_NAME.
    pub node: String,
    /// Its role.
    pub role: String,
    /// Its epoch: tells a node that moved from another one with the same name.
    pub epoch: String,
    /// Its clock when it sent this, microseconds since the epoch.
    pub clock_us: i64,
    /// Name of the snapshot it enforces.
    pub snapshot: String,
    /// What it offers to balancers.
    pub offer: Offer,
    /// Its SYNCTIME: the longest silence it wants.
    pub synctime_ms: u64,
}

/// The master lets it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Goes with every further request.
    pub session: String,
    /// The master's NODE_NAME.
    pub master: String,
    /// The master's clock when it answered.
    pub clock_us: i64,
    /// How long a poll is held.
    pub synctime_ms: u64,
    /// Name of the master's own snapshot.
    pub snapshot: String,
}

/// The answer to a hello, and to any request whose session the master no longer honours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum HelloReply {
    /// Come in.
    Welcome(Welcome),
    /// No, and why.
    Refused {
        /// Why.
        why: Refusal,
    },
}

/// The slave's long poll: how it is, and which snapshot it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// Hash of the snapshot in force, hex.
    pub have: String,
    /// Its name.
    pub snapshot: String,
    /// Hash of the snapshot last fetched: unlike `have` if that one could not be used. The master answers at once if its
    /// own is neither.
    pub seen: String,
    /// The slave would like an answer after this at the latest.
    pub hold_ms: u64,
    /// Its clock minus the master's, as it measured last, microseconds.
    pub skew_us: i64,
    /// Highest record it has written.
    pub written: u64,
    /// What is wrong with it; empty if nothing.
    pub error: String,
    /// Its counters.
    pub counters: Counters,
    /// What it offers to balancers now.
    pub offer: Offer,
    /// All its figures now.
    #[serde(default)]
    pub figures: Figures,
    /// What it effectively enforces.
    pub enforced: Enforced,
    /// Its labels, by which tasks choose it.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The revision of the list of tasks that it has; 0 if none. The master answers at once if there is another.
    #[serde(default)]
    pub tasks_revision: u64,
}

/// The master's answer to a poll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollReply {
    /// Hash of the master's current snapshot, hex.
    pub hash: String,
    /// Its name.
    pub snapshot: String,
    /// Its version; 0 says that the master has no policy yet, and slaves keep theirs.
    pub version: u64,
    /// The master's clock when it answered.
    pub clock_us: i64,
    /// The slaves that take clients now, for browsers that ask a node for the way: at most
    /// [`crate::limits::CLUSTER_PROXIES_MAX`].
    pub proxies: Vec<Proxy>,
    /// What the slave is to do; absent: what it has is still so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskList>,
}

/// All that a slave is to do, oldest first: at most [`crate::limits::TASKS_HANDED_MAX`], the next ones when these have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskList {
    /// Named in the next polls; 0: the list is empty and there never was another.
    pub revision: u64,
    /// The tasks.
    pub tasks: Vec<Handed>,
}

/// A slave's word on a task: `started`, `done`, `failed`, `unknown` or `cancelled`. An answer says that it is on the master's disk,
/// or that the master knows no such task (any more).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task's id.
    pub id: String,
    /// How the slave stands with it.
    pub progress: Progress,
    /// What came of it.
    pub words: String,
    /// The name of the file that follows: the report is then one line, and after it come the file's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// A proxy that takes clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// `IP:PORT`.
    pub address: SocketAddr,
    /// Its share of the clients.
    pub weight: u16,
}

/// How far the master has stored a node's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The highest sequence number; 0 if none.
    pub seq: u64,
}

/// A message that is checked beyond its shape when it is read.
pub trait Message: Serialize + DeserializeOwned {
    /// Why the values cannot be, though the shape is right.
    fn fault(&self) -> Option<&'static str>;
}

/// The bytes of a message.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    // Structs of strings and numbers have no way to fail; an empty body would be refused by the reader.
    serde_json::to_vec(message).unwrap_or_default()
}

/// Checks and reads a message; whatever the bytes are, it answers.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, BadMessage> {
    if bytes.len() > CLUSTER_MESSAGE_BYTES_MAX {
        return Err(BadMessage(format!("{} bytes, at most {CLUSTER_MESSAGE_BYTES_MAX} are read", bytes.len())));
    }
    let message: M = serde_json::from_slice(bytes).map_err(|e| BadMessage(e.to_string()))?;
    match message.fault() {
        Some(fault) => Err(BadMessage(fault.to_string())),
        None => Ok(message),
    }
}

/// Only what every version of Tidegate says in a hello: read when [`decode`] fails, so that a foreign version is told so
/// and not that its message is bad.
pub fn build_of(bytes: &[u8]) -> Option<Build> {
    #[derive(Deserialize)]
    struct AnyHello {
        build: AnyBuild,
    }
    #[derive(Deserialize)]
    struct AnyBuild {
        version: String,
        #[serde(default)]
        formats: String,
    }
    let small = bytes.get(..CLUSTER_MESSAGE_BYTES_MAX).unwrap_or(bytes);
    let build = serde_json::from_slice::<AnyHello>(small).ok()?.build;
    let build = Build { version: build.version, formats: build.formats };
    (is_text(&build.version) && is_text(&build.formats)).then_some(build)
}

/// Why bytes are not the message that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMessage(pub String);

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading a cluster message: {}", self.0)
    }
}

impl std::error::Error for BadMessage {}

impl Message for Hello {
    fn fault(&self) -> Option<&'static str> {
        let texts = [&self.build.version, &self.build.formats, &self.role, &self.snapshot];
        match () {
            () if !is_node_name(&self.node) => Some("the node's name is none"),
            () if Epoch::parse(&self.epoch).is_none() => Some("the epoch is not 32 hex digits"),
            () if !texts.into_iter().all(|t| is_text(t)) => Some("a text is too long or has control characters"),
            () => self.offer.fault(),
        }
    }
}

impl Message for HelloReply {
    fn fault(&self) -> Option<&'static str> {
        match self {
            HelloReply::Welcome(welcome) if !is_text(&welcome.session) || welcome.session.is_empty() => {
                Some("the session is no text")
            }
            HelloReply::Welcome(welcome) if !is_node_name(&welcome.master) => Some("the master's name is none"),
            HelloReply::Refused { why } if why.words().len() > CLUSTER_TEXT_BYTES_MAX => {
                Some("the refusal is too long")
            }
            _ => None,
        }
    }
}

impl Message for Poll {
    fn fault(&self) -> Option<&'static str> {
        match () {
            () if parse_hash(&self.have).is_none() || parse_hash(&self.seen).is_none() => {
                Some("a hash is not 64 hex digits")
            }
            () if !is_text(&self.snapshot) || !is_text(&self.error) => {
                Some("a text is too long or has control characters")
            }
            () if self.labels.len() > LABELS_MAX || !self.labels.iter().all(|label| is_label(label)) => {
                Some("too many labels, or one that is none")
            }
            () => self.enforced.fault().or(self.offer.fault()),
        }
    }
}

impl Enforced {
    fn fault(&self) -> Option<&'static str> {
        let own = self.own_sections.len() <= LOCAL_SECTIONS_MAX && self.own_sections.iter().all(|name| is_text(name));
        match () {
            () if !self.effect.is_empty() && parse_hash(&self.effect).is_none() => {
                Some("the effect is not 64 hex digits")
            }
            () if !own || !is_text(&self.trouble) => {
                Some("a text of what it enforces is too long, or there are too many")
            }
            () => None,
        }
    }
}

impl Offer {
    fn fault(&self) -> Option<&'static str> {
        let listen_fits = self.listen.len() <= 64 && self.listen.iter().all(|listener| is_text(listener));
        match () {
            () if !listen_fits => Some("too many listeners, or one that is no text"),
            () if !is_text(&self.portal) || !is_text(&self.proxy_protocol) => {
                Some("a text of its offer is too long or has control characters")
            }
            () => None,
        }
    }
}

impl Message for PollReply {
    fn fault(&self) -> Option<&'static str> {
        match () {
            () if parse_hash(&self.hash).is_none() => Some("the hash is not 64 hex digits"),
            () if !is_text(&self.snapshot) => Some("the snapshot's name is no text"),
            () if self.proxies.len() > CLUSTER_PROXIES_MAX => Some("more proxies than a reply may name"),
            () => self.tasks.as_ref().and_then(TaskList::fault),
        }
    }
}

impl TaskList {
    fn fault(&self) -> Option<&'static str> {
        let good = |task: &Handed| is_task_id(&task.id) && is_text(&task.by) && task.by.len() <= TASK_BY_BYTES_MAX;
        match () {
            () if self.tasks.len() > TASKS_HANDED_MAX => Some("more tasks than a reply may hand out"),
            () if !self.tasks.iter().all(good) => Some("a task has no id, or who ordered it is no text"),
            () => None,
        }
    }
}

impl Message for TaskReport {
    fn fault(&self) -> Option<&'static str> {
        match self.progress {
            Progress::Queued | Progress::Sent | Progress::Expired => Some("that is not for a slave to say of a task"),
            _ if !is_task_id(&self.id) => Some("the task's id is none"),
            _ if self.output.as_ref().is_some_and(|name| !is_file_name(name)) => Some("the name of its output is none"),
            _ if !is_text(&self.words) => Some("the words on a task are too long or have control characters"),
            _ => None,
        }
    }
}

impl Message for Stored {
    fn fault(&self) -> Option<&'static str> {
        None
    }
}

/// The hex form of a snapshot's hash.
pub fn hash_text(hash: [u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(&hash)
}

/// Reads what [`hash_text`] writes.
pub fn parse_hash(text: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// `ms` brought into the range that both sides accept as SYNCTIME.
pub fn synctime(ms: u64) -> u64 {
    ms.clamp(CLUSTER_SYNCTIME_MS_MIN, CLUSTER_SYNCTIME_MS_MAX)
}

/// `words` made to fit a message: control characters become spaces, what is too long is cut.
pub fn fitting(words: &str) -> String {
    let mut text: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = text.len().min(CLUSTER_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// A slave's clock minus the master's, microseconds: the master's reading is taken to be of the middle between sending
/// (`sent_us`) and receiving (`received_us`), or of half a known round trip before receiving.
pub fn skew_us(received_us: i64, round_trip_us: i64, master_us: i64) -> i64 {
    received_us.saturating_sub(round_trip_us / 2).saturating_sub(master_us)
}

/// What is called so goes into answers of the portal and into folders of administrators.
fn is_file_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= 255 && !text.starts_with('.') && text.bytes().all(good)
}

fn is_text(text: &str) -> bool {
    text.len() <= CLUSTER_TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            build: Build::this(),
            node: "s1".into(),
            role: "slave".into(),
            epoch: Epoch([7; 16]).to_string(),
            clock_us: 1,
            snapshot: "12-3fa9c1d2e0b4".into(),
            offer: offer(),
            synctime_ms: 60_000,
        }
    }

    fn offer() -> Offer {
        Offer { listen: vec!["127.0.0.1:8080".into()], portal: "[::]:8888".into(), ..Offer::default() }
    }

    fn poll() -> Poll {
        Poll { offer: offer(), have: hash_text([1; 32]), seen: hash_text([2; 32]), ..Poll::default() }
    }

    #[test]
    fn messages_survive_the_wire() {
        assert_eq!(decode(&encode(&hello())), Ok(hello()));
        assert_eq!(decode(&encode(&poll())), Ok(poll()));
        assert_eq!(decode(&encode(&Stored { seq: u64::MAX })), Ok(Stored { seq: u64::MAX }));
        for why in [
            Refusal::KeyMismatch,
            Refusal::VersionMismatch { master: "1".into(), slave: "2".into() },
            Refusal::NotOnAllowList { address: "192.0.2.1".into() },
            Refusal::NameTaken { name: "s1".into(), holder: "192.0.2.2".into() },
        ] {
            let reply = HelloReply::Refused { why };
            assert_eq!(decode(&encode(&reply)), Ok(reply));
        }
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let cases = [
            (Hello { node: "a b".into(), ..hello() }, "name"),
            (Hello { epoch: "12".into(), ..hello() }, "epoch"),
            (Hello { role: "slave\n".into(), ..hello() }, "control"),
            (Hello { snapshot: "x".repeat(CLUSTER_TEXT_BYTES_MAX + 1), ..hello() }, "too long"),
            (Hello { offer: Offer { listen: vec!["a".into(); 65], ..offer() }, ..hello() }, "listeners"),
            (Hello { offer: Offer { portal: "a\nb".into(), ..offer() }, ..hello() }, "offer"),
        ];
        for (hello, word) in cases {
            let fault = decode::<Hello>(&encode(&hello)).unwrap_err();
            assert!(fault.0.contains(word), "{fault} should speak of {word}");
        }
        assert!(decode::<Poll>(&encode(&Poll { have: "zz".into(), ..poll() })).is_err());
        assert!(decode::<Poll>(&encode(&Poll { labels: vec!["a b".into()], ..poll() })).is_err());
        let report = |progress| TaskReport { id: "7-3fa9c1d2".into(), progress, words: "drained".into(), output: None };
        let named = |name: &str| TaskReport { output: Some(name.into()), ..report(Progress::Done) };
        assert_eq!(decode(&encode(&named("a-1.tar.gz"))), Ok(named("a-1.tar.gz")));
        assert!(decode::<TaskReport>(&encode(&named("../a"))).is_err());
        assert_eq!(decode(&encode(&report(Progress::Done))), Ok(report(Progress::Done)));
        assert!(decode::<TaskReport>(&encode(&report(Progress::Expired))).is_err());
        assert!(decode::<TaskReport>(&encode(&TaskReport { id: "7;".into(), ..report(Progress::Done) })).is_err());
        assert!(decode::<Poll>(&vec![b' '; CLUSTER_MESSAGE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_foreign_versions_hello_still_tells_its_build() {
        let foreign = br#"{"build":{"version":"9.0","formats":"cluster 7","more":1},"something":"else"}"#;
        assert!(decode::<Hello>(foreign).is_err());
        assert_eq!(build_of(foreign).unwrap().version, "9.0");
        assert_eq!(build_of(b"{}"), None);
        assert_eq!(build_of(b"\"x\""), None);
    }

    #[test]
    fn equal_versions_with_other_formats_are_told_apart_in_words() {
        let (mine, theirs) = (Build::this(), Build { formats: "cluster 9".into(), ..Build::this() });
        assert_eq!(Build::refusal(&mine, &mine), None);
        let words = Build::refusal(&mine, &theirs).unwrap().words();
        assert!(words.contains("cluster 3") && words.contains("cluster 9"), "{words}");
        let newer = Build { version: "9.9.9".into(), ..Build::this() };
        let words = Build::refusal(&mine, &newer).unwrap().words();
        assert!(words.contains("the slave 9.9.9") && words.contains(&format!("runs {}", mine.version)), "{words}");
    }

    #[test]
    fn skew_is_measured_against_the_middle_of_the_round_trip() {
        for (received, round_trip, master, skew) in [
            (1_000, 200, 900, 0),
            (5_000_000, 0, 2_000_000, 3_000_000),
            (0, 2, 99, -100),
            (i64::MIN, 4, i64::MAX, i64::MIN),
        ] {
            assert_eq!(skew_us(received, round_trip, master), skew);
        }
    }

    #[test]
    fn words_are_made_to_fit() {
        assert_eq!(fitting("a\nb"), "a b");
        let long = "é".repeat(CLUSTER_TEXT_BYTES_MAX);
        assert!(is_text(&fitting(&long)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<Hello>(&bytes);
            let _ = decode::<HelloReply>(&bytes);
            let _ = decode::<Poll>(&bytes);
            let _ = decode::<PollReply>(&bytes);
            let _ = decode::<TaskReport>(&bytes);
            let _ = decode::<Stored>(&bytes);
            let _ = build_of(&bytes);
        }

        #[test]
        fn a_damaged_message_is_refused_or_still_within_its_bounds(at in any::<usize>(), byte in any::<u8>()) {
            for good in [encode(&hello()), encode(&poll())] {
                let mut bytes = good;
                let at = at % bytes.len();
                bytes[at] = byte;
                if let Ok(hello) = decode::<Hello>(&bytes) {
                    prop_assert_eq!(hello.fault(), None);
                }
                if let Ok(poll) = decode::<Poll>(&bytes) {
                    prop_assert_eq!(poll.fault(), None);
                }
            }
        }
    }
}
