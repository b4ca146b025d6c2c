//! The cluster service of the master: slaves say hello, hold a poll for the next policy, fetch it, and bring records.

use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::base::seldom::Seldom;
use crate::cluster::NodeRow;
use crate::cluster::Refusal;
use crate::cluster::balancer;
use crate::cluster::client::Line;
use crate::cluster::handing;
use crate::cluster::intake::Intake;
use crate::cluster::intake::Overtaken;
use crate::cluster::offered::Offered;
use crate::cluster::protocol;
use crate::cluster::protocol::Build;
use crate::cluster::protocol::Hello;
use crate::cluster::protocol::HelloReply;
use crate::cluster::protocol::Message;
use crate::cluster::protocol::Poll;
use crate::cluster::protocol::PollReply;
use crate::cluster::protocol::Proxy;
use crate::cluster::protocol::Stored;
use crate::cluster::protocol::Welcome;
use crate::cluster::protocol::hash_text;
use crate::cluster::questions::AnswerQuestion;
use crate::cluster::questions::QUESTION_BYTES_MAX;
use crate::cluster::roster::Caller;
use crate::cluster::roster::Newcomer;
use crate::cluster::roster::Roster;
use crate::cluster::tasks::Tasks;
use crate::limits::BATCH_BYTES_MAX;
use crate::limits::BATCH_WIRE_BYTES_MAX;
use crate::limits::CLUSTER_BATCH_MS;
use crate::limits::CLUSTER_MESSAGE_BYTES_MAX;
use crate::limits::CLUSTER_OFFERED_MAX;
use crate::limits::CLUSTER_PROXIES_LOOK_MS;
use crate::limits::CLUSTER_REQUEST_MS;
use crate::limits::PEER_LINES_TOLD_MAX;
use crate::limits::POLICY_ANSWER_BYTES_MAX;
use crate::limits::POLICY_ANSWER_MS;
use crate::limits::POLICY_QUESTIONS_MAX;
use crate::limits::REFUSALS_TOLD_MS;
use crate::limits::TASK_OUTPUTS_COMING_MAX;
use crate::policy::Rights;
use crate::policy::Snapshot;
use crate::record::batch;
use crate::store::members::Members;
use crate::store::records::RecordStore;
use crate::tls::activation::SnapshotSigner;
use crate::tls::identity::HandshakeFault;
use crate::tls::identity::PeerIdentity;
use crate::tls::random;
use crate::tls::serve::Patience;
use crate::tls::serve::serve;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::Bytes};
use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// What the cluster service works with.
pub struct MasterConfig {
    /// The master's NODE_NAME.
    pub node: String,
    /// What it runs; [`Build::this`] but in tests.
    pub build: Build,
    /// The policy in force; a new value here goes to all slaves at once.
    pub current: watch::Receiver<Arc<Snapshot>>,
    /// Where records go.
    pub records: Arc<dyn RecordStore>,
    /// Signs snapshots.
    pub signer: SnapshotSigner,
    /// Whose which name is.
    pub members: Arc<Members>,
}

/// The master's side of the cluster. Cheap to clone in its `Arc`; lives as long as the daemon.
pub struct MasterService {
    pub(super) config: Arc<MasterConfig>,
    roster: Mutex<Roster>,
    /// The newest first.
    offered: tokio::sync::Mutex<Vec<Arc<Offered>>>,
    /// What polls are told of the others, and when it was looked up.
    told: Mutex<Option<(Mono, Vec<Proxy>)>>,
    intake: Intake,
    /// During a rollout: who gets the version before.
    held_back: watch::Sender<Option<HeldBack>>,
    /// Answers questions about older policies; nothing before the node's desk is there.
    answers: OnceLock<AnswerQuestion>,
    questions: Semaphore,
    /// Orders to slaves; nothing before they are there.
    pub(super) tasks: OnceLock<Arc<Tasks>>,
    /// Places for reports of tasks with an output.
    pub(super) outputs: Semaphore,
    /// Refusals that callers can make it tell.
    pub(super) lines: Seldom,
}

impl MasterService {
    /// A service that knows no slave yet.
    pub fn new(config: MasterConfig) -> Arc<Self> {
        Arc::new(MasterService {
            roster: Mutex::new(Roster::new(&config.node, config.build.clone())),
            offered: tokio::sync::Mutex::default(),
            told: Mutex::default(),
            intake: Intake::new(),
            held_back: watch::Sender::new(None),
            answers: OnceLock::new(),
            questions: Semaphore::new(POLICY_QUESTIONS_MAX),
            tasks: OnceLock::new(),
            outputs: Semaphore::new(TASK_OUTPUTS_COMING_MAX),
            lines: Seldom::new(PEER_LINES_TOLD_MAX, REFUSALS_TOLD_MS),
            config: Arc::new(config),
        })
    }

    /// All slaves, and the callers that were refused in the last minute.
    pub fn nodes(&self) -> Vec<NodeRow> {
        let current = self.config.current.borrow().clone();
        let held = self.held_back.borrow().clone();
        let rows_by =
            |snapshot: &Snapshot| self.roster().rows(snapshot.name(), &hash_text(snapshot.effect()), Wall::now());
        let mut rows = rows_by(&current);
        if let Some(held) = held {
            // During a rollout a slave is in step if it has what it is to have.
            rows.retain(|row| held.members.contains(&row.name.to_ascii_lowercase()));
            let others = rows_by(&held.before).into_iter();
            rows.extend(others.filter(|row| !held.members.contains(&row.name.to_ascii_lowercase())));
            rows.sort_by(|one, other| {
                (!one.refusal.is_empty(), &one.name).cmp(&(!other.refusal.is_empty(), &other.name))
            });
        }
        rows
    }

    /// From now on slaves that are not members get the version before; `None`: all get the current one.
    pub fn hold_back(&self, held: Option<HeldBack>) {
        self.held_back.send_replace(held);
    }

    /// What version a slave gets.
    fn target(&self, node: &str, held: Option<&HeldBack>) -> Arc<Snapshot> {
        match held.filter(|held| !held.members.contains(&node.to_ascii_lowercase())) {
            Some(held) => held.before.clone(),
            None => self.config.current.borrow().clone(),
        }
    }

    /// From now on `answer` answers what slaves ask about older policies.
    pub fn answer_with(&self, answer: AnswerQuestion) {
        // Set once, when the node starts.
        let _ = self.answers.set(answer);
    }

    /// The slaves that take clients now.
    pub fn proxies(&self) -> Vec<Proxy> {
        balancer::proxies(&balancer::backends(&self.nodes()))
    }

    /// The same as of a moment ago: with a thousand slaves, each of which asks every few seconds and more often after an Apply,
    /// looking at all of them for each was most of the master's work.
    fn proxies_lately(&self) -> Vec<Proxy> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Mono::now();
        match &*told {
            Some((looked, proxies)) if now.micros_since(*looked) < CLUSTER_PROXIES_LOOK_MS * 1_000 => proxies.clone(),
            _ => told.insert((now, self.proxies())).1.clone(),
        }
    }

    /// A caller asked for the cluster and failed the handshake: shown on the Nodes page with the remedy.
    pub fn handshake_failed(&self, fault: &HandshakeFault, from: SocketAddr) {
        let refusal = match fault {
            HandshakeFault::KeyMismatch => Refusal::KeyMismatch,
            HandshakeFault::Clock => Refusal::ClocksApart,
            HandshakeFault::Other(what) => {
                tracing::debug!(event = "handshake-failed", peer = %from.ip(), "cluster handshake with {from}: {what}");
                return;
            }
        };
        self.remember_refused(from.ip(), "", "", refusal);
    }

    /// Serves one connection of a slave, whose other end is proven to be `peer`, until it closes.
    pub async fn serve(self: Arc<Self>, stream: impl Line + 'static, peer: PeerIdentity, from: SocketAddr) {
        let not_a_proxy = Arc::from("This is the cluster's port of a Tidegate master. It carries no client traffic.\n");
        let visitor = Visitor { peer, address: unmapped(from.ip()) };
        let decorate = move |request: &mut hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(visitor.clone());
        };
        serve(stream, self.router(), Patience::CLUSTER, not_a_proxy, decorate).await;
    }

    fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(protocol::HELLO_PATH, post(hello))
            .route(protocol::POLL_PATH, post(poll))
            .route(&format!("{}{{hash}}", protocol::MANIFEST_PATH), get(manifest))
            .route(&format!("{}{{hash}}", protocol::PIECES_PATH), post(pieces))
            .route(protocol::RECORDS_PATH, get(stored).post(records))
            .route(protocol::POLICY_PATH, post(policy_question))
            .route(protocol::TASK_PATH, post(handing::report))
            .with_state(self)
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_refused(&self, address: IpAddr, node: &str, version: &str, why: Refusal) {
        let words = why.words();
        let news = self.roster().remember_refused(address, node, version, why, Wall::now());
        // A caller with many addresses is news each time.
        if news && let Some(untold) = self.lines.ask(Mono::now()) {
            tracing::warn!(
                event = "node-refused",
                slave = %node,
                peer = %address,
                // Each refusal's words begin with its name.
                error = words.split(':').next().unwrap_or_default(),
                "refused the node {node:?} at {address}. {words}{untold}"
            );
        }
    }

    /// R9: with authentication on, a slave's address must have the right CLUSTER.
    fn may_join(&self, address: IpAddr) -> bool {
        let current = self.config.current.borrow();
        !current.authentication_on() || current.rights(address).contains(Rights::CLUSTER)
    }

    /// The node behind a request that follows a hello.
    pub(super) fn admit(&self, fields: &HeaderMap, visitor: &Visitor) -> Result<(Caller, String), Fault> {
        let session = fields.get(protocol::SESSION_FIELD).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let caller = self.roster().caller(session, Wall::now()).ok_or(Fault::NoSession)?;
        // A connection may outlive the time of the key it was opened with.
        let counts = visitor.peer.former_until().is_none_or(|until| Wall::now() < until);
        if !counts || !visitor.peer.is(&caller.node) || visitor.peer.fingerprint() != caller.fingerprint {
            return Err(Fault::NoSession);
        }
        if !self.may_join(visitor.address) {
            self.roster().end(session);
            let why = Refusal::NotOnAllowList { address: visitor.address.to_string() };
            self.remember_refused(visitor.address, &caller.node, &self.config.build.version, why.clone());
            return Err(Fault::Refused(why));
        }
        Ok((caller, session.to_string()))
    }

    /// The version that this slave is to enforce.
    fn offered_to(&self, caller: &Caller) -> Arc<Snapshot> {
        self.target(&caller.node, self.held_back.borrow().as_ref())
    }

    /// It, ready to be fetched, if it is the one that the slave asks for.
    async fn offered(&self, caller: &Caller, hash: &str) -> Result<Arc<Offered>, Fault> {
        let snapshot = self.offered_to(caller);
        if protocol::parse_hash(hash) != Some(snapshot.hash()) {
            return Err(Fault::NotFound);
        }
        let mut ready = self.offered.lock().await;
        if let Some(offered) = ready.iter().find(|offered| offered.hash() == snapshot.hash()) {
            return Ok(offered.clone());
        }
        let config = self.config.clone();
        let made = tokio::task::spawn_blocking(move || Arc::new(Offered::new(snapshot, &config.signer)));
        let made = made.await.map_err(Fault::failed)?;
        ready.truncate(CLUSTER_OFFERED_MAX - 1);
        ready.insert(0, made.clone());
        Ok(made)
    }
}

impl fmt::Debug for MasterService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterService({})", self.config.node)
    }
}

/// Who gets which version during a rollout.
#[derive(Clone)]
pub struct HeldBack {
    /// What the slaves get that are no members.
    pub before: Arc<Snapshot>,
    /// Those that get the current one, in small letters.
    pub members: BTreeSet<String>,
}

/// Who stands at the other end of the connection a request came on.
#[derive(Clone)]
pub(super) struct Visitor {
    peer: PeerIdentity,
    address: IpAddr,
}

pub(super) type Service = State<Arc<MasterService>>;
pub(super) type Who = Extension<Visitor>;

async fn hello(State(master): Service, Extension(visitor): Who, body: Body) -> Result<Response, Fault> {
    let bytes = read_message(body).await?;
    let hello = match protocol::decode::<Hello>(&bytes) {
        Ok(hello) => hello,
        Err(fault) => return Err(foreign_version(&master, &visitor, &bytes).unwrap_or(Fault::Bad(fault.to_string()))),
    };
    let session = data_encoding::HEXLOWER.encode(&random::bytes::<16>());
    let said = let_in(&master, &hello, &visitor, &session).await?;
    if let Err(why) = said {
        master.remember_refused(visitor.address, &hello.node, &hello.build.version, why.clone());
        return Err(Fault::Refused(why));
    }
    tracing::info!(
        event = "node-joined",
        slave = %hello.node,
        peer = %visitor.address,
        snapshot = %hello.snapshot,
        "the slave {} at {} joined with snapshot {}",
        hello.node,
        visitor.address,
        hello.snapshot
    );
    Ok(message(&HelloReply::Welcome(Welcome {
        session,
        master: master.config.node.clone(),
        clock_us: Wall::now().0,
        synctime_ms: protocol::synctime(hello.synctime_ms),
        snapshot: master.config.current.borrow().name().to_string(),
    })))
}

/// Looks at everything that speaks against a node; if nothing does, its requests come under `session` from now on.
async fn let_in(
    master: &Arc<MasterService>,
    hello: &Hello,
    visitor: &Visitor,
    session: &str,
) -> Result<Result<(), Refusal>, Fault> {
    let newcomer = Newcomer {
        hello,
        address: visitor.address,
        proven: visitor.peer.is(&hello.node),
        allowed: master.may_join(visitor.address),
        fingerprint: visitor.peer.fingerprint().to_string(),
        former_until: visitor.peer.former_until(),
    };
    let refusal = master.roster().refusal(&newcomer, Wall::now());
    if let Some(why) = refusal {
        return Ok(Err(why));
    }
    // Last, since a name that is new is bound by it.
    if let Some(why) = master.stranger(&hello.node, &newcomer.fingerprint).await.map_err(Fault::Failed)? {
        return Ok(Err(why));
    }
    Ok(master.roster().hello(&newcomer, session.to_string(), Wall::now()))
}

/// A hello that this version cannot read may be one of another version: that is what must be said then.
fn foreign_version(master: &MasterService, visitor: &Visitor, bytes: &[u8]) -> Option<Fault> {
    let build = protocol::build_of(bytes)?;
    let why = Build::refusal(&master.config.build, &build)?;
    master.remember_refused(visitor.address, "", &build.version, why.clone());
    Some(Fault::Refused(why))
}

async fn poll(
    State(master): Service,
    Extension(visitor): Who,
    fields: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let (caller, session) = master.admit(&fields, &visitor)?;
    let poll: Poll = protocol::decode(&read_message(body).await?).map_err(|e| Fault::Bad(e.to_string()))?;
    // Before it is shown: who sees a label may choose by it.
    master.keep_labels(&caller.node, &poll.labels).await;
    let mut open = OpenPoll::begin(&master, session, &poll);
    let hold = Duration::from_millis(poll.hold_ms.min(caller.synctime_ms));
    let (mut current, mut held) = (master.config.current.clone(), master.held_back.subscribe());
    let tasks = master.tasks();
    let mut revision = tasks.as_ref().map(|tasks| tasks.revision(&caller.node));
    let news = async {
        loop {
            let target = hash_text(master.target(&caller.node, held.borrow_and_update().as_ref()).hash());
            let has_list = revision.as_mut().is_none_or(|now| *now.borrow_and_update() == poll.tasks_revision);
            if target != poll.have && target != poll.seen || !has_list {
                return;
            }
            let changed = tokio::select! {
                changed = current.changed() => changed,
                changed = held.changed() => changed,
                changed = handing::changed(&mut revision) => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    };
    // Whether it changed or the time is over, the answer is the same: what this slave is to have now.
    let _ = tokio::time::timeout(hold, news).await;
    let tasks = master.list_for(&caller.node, &poll).await;
    let snapshot = master.offered_to(&caller);
    open.answered = true;
    Ok(message(&PollReply {
        hash: hash_text(snapshot.hash()),
        snapshot: snapshot.name().to_string(),
        version: snapshot.version(),
        clock_us: Wall::now().0,
        proxies: master.proxies_lately(),
        tasks,
    }))
}

async fn policy_question(
    State(master): Service,
    Extension(visitor): Who,
    fields: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let (caller, _) = master.admit(&fields, &visitor)?;
    let question = read_body(body, QUESTION_BYTES_MAX, CLUSTER_REQUEST_MS).await?;
    let _place = master.questions.acquire().await.map_err(Fault::failed)?;
    let answer = master.answers.get().ok_or_else(|| Fault::failed("the master is starting: ask again"))?;
    let answered =
        tokio::time::timeout(Duration::from_millis(POLICY_ANSWER_MS), answer(caller.node, question.to_vec()));
    let answer = answered.await.map_err(|_| Fault::failed(format!("no answer within {POLICY_ANSWER_MS} ms")))?;
    let answer = answer.map_err(Fault::Bad)?;
    match answer.len() {
        0..=POLICY_ANSWER_BYTES_MAX => Ok(answer.into_response()),
        bytes => Err(Fault::Bad(format!("the answer has {bytes} bytes, {POLICY_ANSWER_BYTES_MAX} may be sent"))),
    }
}

/// Counts a poll as open until it is answered or its connection breaks, which drops the handler.
struct OpenPoll<'a> {
    master: &'a MasterService,
    session: String,
    answered: bool,
}

impl<'a> OpenPoll<'a> {
    fn begin(master: &'a MasterService, session: String, poll: &Poll) -> Self {
        master.roster().poll_begins(&session, poll);
        OpenPoll { master, session, answered: false }
    }
}

impl Drop for OpenPoll<'_> {
    fn drop(&mut self) {
        self.master.roster().poll_ends(&self.session, self.answered, Wall::now());
    }
}

async fn manifest(
    State(master): Service,
    Extension(visitor): Who,
    fields: HeaderMap,
    Path(hash): Path<String>,
) -> Result<Response, Fault> {
    let (caller, _) = master.admit(&fields, &visitor)?;
    let offered = master.offered(&caller, &hash).await?;
    Ok(([(protocol::SIGNATURE_FIELD, offered.signature.clone())], offered.manifest.clone()).into_response())
}

async fn pieces(
    State(master): Service,
    Extension(visitor): Who,
    fields: HeaderMap,
    Path(hash): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let (caller, _) = master.admit(&fields, &visitor)?;
    let wanted = read_message(body).await?;
    let offered = master.offered(&caller, &hash).await?;
    let answer = tokio::task::spawn_blocking(move || offered.answer(&wanted)).await.map_err(Fault::failed)?;
    Ok(answer.map_err(Fault::Bad)?.into_response())
}

async fn stored(State(master): Service, Extension(visitor): Who, fields: HeaderMap) -> Result<Response, Fault> {
    let (caller, session) = master.admit(&fields, &visitor)?;
    let records = master.config.records.clone();
    let asked = tokio::task::spawn_blocking(move || records.highest(&caller.node, caller.epoch));
    let seq = asked.await.map_err(Fault::failed)?.map_err(Fault::failed)?;
    master.roster().stored(&session, seq, 0);
    Ok(message(&Stored { seq }))
}

async fn records(
    State(master): Service,
    Extension(visitor): Who,
    fields: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let (caller, session) = master.admit(&fields, &visitor)?;
    let written = fields.get(protocol::WRITTEN_FIELD).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    // Without a length it may be as long as any.
    let length = fields.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(usize::MAX);
    let coming = master.intake.enter(&caller.node, length.min(BATCH_WIRE_BYTES_MAX)).await?;
    let wire = coming.meanwhile(read_body(body, BATCH_WIRE_BYTES_MAX, CLUSTER_BATCH_MS)).await??;
    let turn = coming.turn().await?;
    let store = master.config.records.clone();
    let ingested = tokio::task::spawn_blocking(move || {
        // Unpacking and storing block, also when whoever asked has gone.
        let _turn = turn;
        ingest(&*store, &caller, &wire)
    });
    let seq = ingested.await.map_err(Fault::failed)??;
    master.roster().stored(&session, seq, written);
    Ok(message(&Stored { seq }))
}

fn ingest(store: &dyn RecordStore, caller: &Caller, wire: &[u8]) -> Result<u64, Fault> {
    let mut bytes = Vec::new();
    let unpacked = zstd::stream::read::Decoder::new(wire)
        .and_then(|decoder| decoder.take(BATCH_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    unpacked.map_err(|e| Fault::Bad(format!("unpacking a batch of records: {e}")))?;
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(Fault::Bad(format!("a batch of records unpacks to more than {BATCH_BYTES_MAX} bytes")));
    }
    let batch = batch::decode(&bytes).map_err(|e| Fault::Bad(e.to_string()))?;
    if !batch.node.eq_ignore_ascii_case(&caller.node) || batch.epoch != caller.epoch {
        let (of, by) = ((&batch.node, batch.epoch), (&caller.node, caller.epoch));
        return Err(Fault::Bad(format!(
            "a batch of {} (epoch {}) came in the session of {} (epoch {})",
            of.0, of.1, by.0, by.1
        )));
    }
    store.ingest(&caller.node, caller.epoch, &batch.records).map_err(Fault::failed)
}

async fn read_message(body: Body) -> Result<Bytes, Fault> {
    read_body(body, CLUSTER_MESSAGE_BYTES_MAX, CLUSTER_REQUEST_MS).await
}

pub(super) async fn read_body(body: Body, bytes_max: usize, deadline_ms: u64) -> Result<Bytes, Fault> {
    let read = tokio::time::timeout(Duration::from_millis(deadline_ms), to_bytes(body, bytes_max)).await;
    let read = read.map_err(|_| Fault::Late(deadline_ms))?;
    read.map_err(|e| Fault::Bad(format!("reading the body (at most {bytes_max} bytes): {e}")))
}

fn message<M: Message>(message: &M) -> Response {
    protocol::encode(message).into_response()
}

/// An IPv4 client of a listener on `[::]` is still an IPv4 client to the allow list.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Why a request is not done; each becomes one answer.
#[derive(Debug)]
pub(super) enum Fault {
    Refused(Refusal),
    NoSession,
    NotFound,
    Overtaken,
    Bad(String),
    /// The body was not here within so many milliseconds.
    Late(u64),
    Failed(String),
}

impl From<Overtaken> for Fault {
    fn from(_: Overtaken) -> Self {
        Fault::Overtaken
    }
}

impl Fault {
    pub(super) fn failed(error: impl fmt::Display) -> Self {
        Fault::Failed(error.to_string())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        match self {
            Fault::Refused(why) => {
                (StatusCode::FORBIDDEN, protocol::encode(&HelloReply::Refused { why })).into_response()
            }
            Fault::NoSession => (StatusCode::UNAUTHORIZED, "no such session: say hello again").into_response(),
            Fault::NotFound => (StatusCode::NOT_FOUND, "not the current snapshot: poll again").into_response(),
            Fault::Overtaken => (StatusCode::CONFLICT, "a newer batch of this node has come").into_response(),
            Fault::Bad(words) => (StatusCode::BAD_REQUEST, protocol::fitting(&words)).into_response(),
            Fault::Late(within_ms) => {
                (StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {within_ms} ms")).into_response()
            }
            Fault::Failed(words) => {
                // Of the process, not of one service: an answer knows no service.
                static LINES: Seldom = Seldom::new(PEER_LINES_TOLD_MAX, REFUSALS_TOLD_MS);
                if let Some(untold) = LINES.ask(Mono::now()) {
                    tracing::error!(event = "store-trouble", "serving a slave: {words}{untold}");
                }
                (StatusCode::SERVICE_UNAVAILABLE, protocol::fitting(&words)).into_response()
            }
        }
    }
}
