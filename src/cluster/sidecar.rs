//! The slave's sidecar: it holds a poll at the master, and brings each new policy from there to the cores.
//!
//! ```text
//! connect -> hello -> poll ... -> news -> fetch -> signature -> Snapshot::open -> store -> publish -> make current -> poll
//!    ^__________|______|_______________________|__________ any failure keeps the old policy and says so on both ends
//!     backoff 0.2 - 5 s                         (a bad snapshot is fetched again after a growing wait)
//! ```

use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::cluster::Counters;
use crate::cluster::Enforced;
use crate::cluster::MasterLink;
use crate::cluster::Offer;
use crate::cluster::backoff::Backoff;
use crate::cluster::client::Answer;
use crate::cluster::client::Connection;
use crate::cluster::client::MasterAddress;
use crate::cluster::client::Trouble;
use crate::cluster::fetch::Fetch;
use crate::cluster::fetch::NotFetched;
use crate::cluster::held;
use crate::cluster::held::RefusedPolicy;
use crate::cluster::protocol;
use crate::cluster::protocol::Build;
use crate::cluster::protocol::Hello;
use crate::cluster::protocol::HelloReply;
use crate::cluster::protocol::Message;
use crate::cluster::protocol::Poll;
use crate::cluster::protocol::PollReply;
use crate::cluster::protocol::Proxy;
use crate::cluster::protocol::TaskList;
use crate::cluster::protocol::Welcome;
use crate::cluster::protocol::hash_text;
use crate::cluster::protocol::skew_us;
use crate::cluster::rollout::refusal_words;
use crate::cluster::roster::skew_words;
use crate::figures::Figures;
use crate::limits::CLUSTER_HOLD_MS_MAX;
use crate::limits::CLUSTER_MESSAGE_BYTES_MAX;
use crate::limits::CLUSTER_PUBLISH_MS;
use crate::limits::CLUSTER_REQUEST_MS;
use crate::limits::CLUSTER_RETRY_MS_MAX;
use crate::limits::CLUSTER_RETRY_MS_MIN;
use crate::limits::FIGURES_EVERY_MS;
use crate::policy::OwnSections;
use crate::policy::Publish;
use crate::policy::Snapshot;
use crate::record::Epoch;
use crate::tls::activation::SnapshotSigner;
use hyper::{Method, StatusCode};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// What a slave tells its master of itself and needs to follow it.
#[derive(Clone)]
pub struct SlaveConfig {
    /// Where the master is and who we are.
    pub master: MasterAddress,
    /// What we run; [`Build::this`] but in tests.
    pub build: Build,
    /// The node's epoch.
    pub epoch: Epoch,
    /// STATE_DIR.
    pub state_dir: PathBuf,
    /// SYNCTIME, in milliseconds. It may change at any time: the next poll is held by it.
    pub synctime_ms: Arc<AtomicU64>,
    /// Checks what the master signed.
    pub signer: Arc<SnapshotSigner>,
    /// Sections that are not taken from the master.
    pub own: Option<Arc<OwnSections>>,
}

/// What the node says of itself at every contact.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// Totals since its start.
    pub counters: Counters,
    /// Highest record written to extended.log.
    pub written: u64,
    /// Trouble of its own (a full disk); empty if none.
    pub trouble: String,
    /// What it offers to balancers.
    pub offer: Offer,
    /// All its figures.
    pub figures: Figures,
    /// What its cores decide by.
    pub enforced: Enforced,
    /// Its NODE_LABELS.
    pub labels: Vec<String>,
}

/// Asked before every poll; must answer at once.
pub type AskVitals = Arc<dyn Fn() -> Vitals + Send + Sync>;

/// What the rest of the node sees of the sidecar.
#[derive(Clone, Debug)]
pub struct SlaveHandle {
    /// How the link to the master is.
    pub link: watch::Receiver<MasterLink>,
    /// The session at the master, while there is one: the shipper works under it.
    pub session: watch::Receiver<Option<String>>,
    /// The cluster's proxies, as the master named them last; none before the first contact.
    pub proxies: watch::Receiver<Vec<Proxy>>,
    /// What the master wants done, as it said last; nothing while it is away.
    pub tasks: watch::Receiver<Option<TaskList>>,
}

/// See the module. Made by [`Sidecar::new`], driven by [`Sidecar::run`] on a tokio runtime.
pub struct Sidecar {
    config: SlaveConfig,
    publish: Publish,
    vitals: AskVitals,
    current: Arc<Snapshot>,
    seen: [u8; 32],
    policy_trouble: String,
    retry_ms: u64,
    /// Whether a refused policy is to be tried again.
    retry_due: Arc<AtomicBool>,
    round_trip_us: i64,
    skew_us: i64,
    link: watch::Sender<MasterLink>,
    session: watch::Sender<Option<String>>,
    proxies: watch::Sender<Vec<Proxy>>,
    tasks: watch::Sender<Option<TaskList>>,
}

impl Sidecar {
    /// `current` is what the cores enforce now: the held snapshot or the built-in one, which came at `synced`.
    pub fn new(
        config: SlaveConfig,
        current: Arc<Snapshot>,
        synced: Option<Wall>,
        publish: Publish,
        vitals: AskVitals,
    ) -> (Self, SlaveHandle) {
        let (link, link_seen) = watch::channel(MasterLink {
            address: config.master.address.clone(),
            synced_us: synced.map_or(0, |synced| synced.0),
            ..MasterLink::default()
        });
        let (session, session_seen) = watch::channel(None);
        let (proxies, proxies_seen) = watch::channel(Vec::new());
        let (tasks, tasks_seen) = watch::channel(None);
        // A policy that was refused stays refused: its reason is told at once, and it is tried again only after the longest wait.
        let refused = held::refused(&config.state_dir).filter(|refused| refused.hash != hash_text(current.hash()));
        let seen = refused.as_ref().and_then(|refused| protocol::parse_hash(&refused.hash)).unwrap_or(current.hash());
        let retry_ms = if refused.is_some() { CLUSTER_RETRY_MS_MAX } else { CLUSTER_RETRY_MS_MIN };
        let sidecar = Sidecar {
            config,
            publish,
            vitals,
            current,
            seen,
            policy_trouble: refused.map(|refused| refused.words).unwrap_or_default(),
            retry_ms,
            retry_due: Arc::default(),
            round_trip_us: 0,
            skew_us: 0,
            link,
            session,
            proxies,
            tasks,
        };
        let handle = SlaveHandle { link: link_seen, session: session_seen, proxies: proxies_seen, tasks: tasks_seen };
        (sidecar, handle)
    }

    /// Follows the master until the future is dropped, whatever happens to it.
    pub async fn run(mut self) {
        // What the process before refused waits for as long as a policy does that was refused again and again.
        self.wait_to_retry();
        let mut backoff = Backoff::default();
        loop {
            let Err(trouble) = self.follow(&mut backoff).await;
            self.session.send_replace(None);
            // What the master has withdrawn meanwhile is not known.
            self.tasks.send_replace(None);
            self.lost(&trouble);
            tokio::time::sleep(backoff.failed()).await;
        }
    }

    /// One connection's life.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Trouble> {
        let mut connection = Connection::open(&self.config.master).await?;
        let welcome = self.hello(&mut connection).await?;
        tracing::info!(event = "master-joined", master = %self.config.master.address, "joined the master {} at {}", welcome.master, self.config.master.address);
        self.session.send_replace(Some(welcome.session.clone()));
        backoff.worked();
        loop {
            let own_ms = self.config.synctime_ms.load(Ordering::Relaxed);
            let hold_ms = welcome.synctime_ms.min(own_ms).min(CLUSTER_HOLD_MS_MAX).min(FIGURES_EVERY_MS);
            let reply = self.poll(&mut connection, &welcome.session, hold_ms).await?;
            let in_force = hash_text(self.current.hash());
            if reply.hash == in_force {
                if !self.policy_trouble.is_empty() {
                    self.note_refused(None).await;
                }
                self.settle(String::new());
            } else if reply.version == 0 {
                self.seen = protocol::parse_hash(&reply.hash).unwrap_or(self.seen);
                self.settle(format!(
                    "The master has no policy yet; this node keeps {}. Apply a policy on the master.",
                    self.current.name()
                ));
            } else if !self.is_refused(&reply.hash) {
                self.bring(&mut connection, &welcome.session, &reply).await?;
            }
        }
    }

    async fn hello(&mut self, connection: &mut Connection) -> Result<Welcome, Trouble> {
        // The round trip is measured on the clock that nobody sets: the other one may be set while we measure.
        let began = Mono::now();
        let hello = Hello {
            build: self.config.build.clone(),
            node: self.config.master.identity.node().to_string(),
            role: "slave".to_string(),
            epoch: self.config.epoch.to_string(),
            clock_us: Wall::now().0,
            snapshot: self.current.name().to_string(),
            offer: (self.vitals)().offer,
            synctime_ms: self.config.synctime_ms.load(Ordering::Relaxed),
        };
        let body = protocol::encode(&hello);
        let deadline = Duration::from_millis(CLUSTER_REQUEST_MS);
        let answer =
            connection.ask(Method::POST, protocol::HELLO_PATH, &[], body, CLUSTER_MESSAGE_BYTES_MAX, deadline).await?;
        let (received, took_us) = (Wall::now(), Mono::now().micros_since(began));
        match checked(answer)? {
            HelloReply::Welcome(welcome) => {
                self.round_trip_us = took_us.min(CLUSTER_REQUEST_MS * 1_000) as i64;
                self.contact(received, welcome.clock_us, &welcome.snapshot);
                Ok(welcome)
            }
            HelloReply::Refused { why } => Err(Trouble::Refused(why)),
        }
    }

    async fn poll(&mut self, connection: &mut Connection, session: &str, hold_ms: u64) -> Result<PollReply, Trouble> {
        let vitals = (self.vitals)();
        let refused_policy = self.seen != self.current.hash() && !self.policy_trouble.is_empty();
        let poll = Poll {
            have: hash_text(self.current.hash()),
            snapshot: self.current.name().to_string(),
            seen: hash_text(self.seen),
            hold_ms: if refused_policy { hold_ms.min(self.retry_ms) } else { hold_ms },
            skew_us: self.skew_us,
            written: vitals.written,
            error: protocol::fitting(&join_words(&self.policy_trouble, &vitals.trouble)),
            counters: vitals.counters,
            offer: vitals.offer,
            figures: vitals.figures,
            enforced: vitals.enforced,
            labels: vitals.labels,
            tasks_revision: self.tasks.borrow().as_ref().map_or(0, |list| list.revision),
        };
        let deadline = Duration::from_millis(poll.hold_ms + CLUSTER_REQUEST_MS);
        let fields = [(protocol::SESSION_FIELD, session.to_string())];
        let body = protocol::encode(&poll);
        let path = protocol::POLL_PATH;
        let answer = connection.ask(Method::POST, path, &fields, body, CLUSTER_MESSAGE_BYTES_MAX, deadline).await?;
        let reply: PollReply = checked(answer)?;
        self.contact(Wall::now(), reply.clock_us, &reply.snapshot);
        self.proxies.send_if_modified(|proxies| {
            let news = *proxies != reply.proxies;
            proxies.clone_from(&reply.proxies);
            news
        });
        self.tasks.send_if_modified(|tasks| {
            let first = tasks.is_none();
            match &reply.tasks {
                Some(list) => *tasks = Some(list.clone()),
                None => drop(tasks.get_or_insert_default()),
            }
            first || reply.tasks.is_some()
        });
        Ok(reply)
    }

    /// Brings the master's snapshot into force. Only trouble with the connection is an error: a snapshot that cannot be
    /// used is told at the next poll, and fetched again after a wait.
    async fn bring(&mut self, connection: &mut Connection, session: &str, reply: &PollReply) -> Result<(), Trouble> {
        let hash = protocol::parse_hash(&reply.hash).unwrap_or_default();
        self.seen = hash;
        let mut fetch = Fetch {
            connection,
            session,
            state_dir: self.config.state_dir.clone(),
            signer: &self.config.signer,
            wire_bytes: 0,
        };
        let fetched = fetch.bring(hash, self.current.clone()).await;
        let wire_bytes = fetch.wire_bytes;
        // What was wrong with a transfer is over with the next one; what the node could not use, its next process need not try at once.
        let came_whole = fetched.is_ok();
        let enforced = match fetched {
            Ok(snapshot) => self.enforce(Arc::new(snapshot.with_own(self.config.own.clone())), wire_bytes).await,
            Err(NotFetched::Unusable(what)) => Err(what),
            Err(NotFetched::Trouble(trouble)) => {
                // The first poll of the next connection goes on with it.
                self.seen = self.current.hash();
                return Err(trouble);
            }
            Err(NotFetched::Overtaken) => {
                // The next poll brings the newer one.
                self.seen = self.current.hash();
                return Ok(());
            }
        };
        match enforced {
            Ok(()) => {
                let name = self.current.name();
                tracing::info!(
                    event = "policy-in-force",
                    snapshot = %name,
                    bytes = wire_bytes,
                    "policy {name} of the master is in force"
                );
                self.retry_ms = CLUSTER_RETRY_MS_MIN;
                self.note_refused(None).await;
                self.settle(String::new());
            }
            Err(what) => {
                let words = format!("{}, {} kept: {what}.", refusal_words(&reply.snapshot), self.current.name());
                if words != self.policy_trouble {
                    tracing::error!(event = "policy-kept", snapshot = %self.current.name(), "{words}");
                }
                self.retry_ms = (self.retry_ms * 2).min(CLUSTER_RETRY_MS_MAX);
                self.wait_to_retry();
                if came_whole {
                    self.note_refused(Some(RefusedPolicy { hash: reply.hash.clone(), words: words.clone() })).await;
                }
                self.settle(words);
            }
        }
        Ok(())
    }

    /// Whether this policy was refused and is not yet to be tried again: polls come oftener than that.
    fn is_refused(&self, hash: &str) -> bool {
        let refused = hash == hash_text(self.seen) && self.seen != self.current.hash();
        refused && !self.policy_trouble.is_empty() && !self.retry_due.load(Ordering::Relaxed)
    }

    /// From now on a refused policy waits.
    fn wait_to_retry(&mut self) {
        let (due, wait) = (Arc::new(AtomicBool::new(false)), Duration::from_millis(self.retry_ms));
        self.retry_due = due.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            due.store(true, Ordering::Relaxed);
        });
    }

    /// Keeps for the next process what was refused, as far as the disk lets.
    async fn note_refused(&self, refused: Option<RefusedPolicy>) {
        let state_dir = self.config.state_dir.clone();
        let noted = tokio::task::spawn_blocking(move || held::note_refused(&state_dir, refused.as_ref())).await;
        if let Err(error) = noted.map_err(std::io::Error::other).and_then(|noted| noted) {
            tracing::debug!("noting that a policy was refused: {error}");
        }
    }

    /// Swaps to a verified and stored snapshot, and remembers it.
    async fn enforce(&mut self, snapshot: Arc<Snapshot>, wire_bytes: u64) -> Result<(), String> {
        let swap = (self.publish)(snapshot.clone());
        let swapped = tokio::time::timeout(Duration::from_millis(CLUSTER_PUBLISH_MS), swap).await;
        swapped.map_err(|_| format!("the cores did not take it within {CLUSTER_PUBLISH_MS} ms"))??;
        self.current = snapshot.clone();
        let synced = Wall::now();
        self.link.send_modify(|link| {
            link.synced_us = synced.0;
            link.fetched_bytes = wire_bytes;
            link.in_step_us = synced.0;
        });
        let state_dir = self.config.state_dir.clone();
        let kept = tokio::task::spawn_blocking(move || held::make_current(&state_dir, &snapshot, synced)).await;
        if let Err(error) = kept.map_err(std::io::Error::other).and_then(|kept| kept) {
            // It is in force; after a restart with the master away the one before would be. Worth a line, no more.
            tracing::warn!(event = "policy-not-noted", snapshot = %self.current.name(), "noting {} as the policy in force: {error}", self.current.name());
        }
        Ok(())
    }

    fn contact(&mut self, received: Wall, master_us: i64, master_snapshot: &str) {
        let before = skew_words(self.skew_us / 1_000);
        self.skew_us = skew_us(received.0, self.round_trip_us, master_us);
        let skew_ms = self.skew_us / 1_000;
        let words = skew_words(skew_ms);
        if !words.is_empty() && before.is_empty() {
            tracing::warn!(event = "clock-skew", master = %self.config.master.address, "{words}");
        }
        let trouble = join_words(&self.policy_trouble, &words);
        let in_step = master_snapshot == self.current.name();
        self.link.send_modify(|link| {
            link.up = true;
            link.last_contact_us = received.0;
            if in_step {
                link.in_step_us = received.0;
            }
            link.clock_skew_ms = skew_ms;
            link.master_snapshot = master_snapshot.to_string();
            link.trouble = trouble;
        });
    }

    fn settle(&mut self, policy_trouble: String) {
        self.policy_trouble = policy_trouble;
        let trouble = join_words(&self.policy_trouble, &skew_words(self.skew_us / 1_000));
        self.link.send_if_modified(|link| std::mem::replace(&mut link.trouble, trouble.clone()) != trouble);
    }

    fn lost(&mut self, trouble: &Trouble) {
        let words = trouble.to_string();
        let known = { self.link.borrow().trouble == words };
        if !known {
            tracing::warn!(event = "master-lost", master = %self.config.master.address, "{words}. This node goes on with policy {}", self.current.name());
        }
        self.link.send_modify(|link| {
            link.up = false;
            link.trouble = words;
        });
    }
}

/// A message from an answer of any status.
pub(super) fn checked<M: Message>(answer: Answer) -> Result<M, Trouble> {
    let answer = accepted(answer)?;
    protocol::decode(&answer.body).map_err(|e| Trouble::Answer(format!("the master's answer cannot be read: {e}")))
}

/// The answer if its status says that it is one.
pub(super) fn accepted(answer: Answer) -> Result<Answer, Trouble> {
    match answer.status {
        StatusCode::OK => Ok(answer),
        StatusCode::UNAUTHORIZED => Err(Trouble::NoSession),
        StatusCode::FORBIDDEN => match protocol::decode(&answer.body) {
            Ok(HelloReply::Refused { why }) => Err(Trouble::Refused(why)),
            _ => Err(Trouble::Answer("the master refuses this node and does not say why".to_string())),
        },
        status => {
            let words = protocol::fitting(&String::from_utf8_lossy(&answer.body));
            Err(Trouble::Answer(format!("the master answered {status}: {words}")))
        }
    }
}

fn join_words(one: &str, two: &str) -> String {
    [one, two].into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ")
}
