//! One data core: a thread with a ring, its mailbox, and what its connections share.

use super::account::Scratch;
use super::admissions::Admissions;
use super::balancer::Balancers;
use super::balancer::Refusals;
use super::connection;
use super::counters::CoreCounters;
use super::counters::CoreTotals;
use super::upstream::Set;
use super::upstream::Upstreams;
use super::upstream::Ways;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::io;
use crate::io::Buffers;
use crate::io::Deadlines;
use crate::io::Pipes;
use crate::io::TcpListener;
use crate::limits::BODY_BUFFER_BYTES;
use crate::limits::BUFFERS_KEPT_MAX;
use crate::limits::CONNECTIONS_PER_CORE_MAX;
use crate::limits::CORE_END_MS_MAX;
use crate::limits::CORE_MAILBOX_MAX;
use crate::limits::OWN_ADDRESSES_REFRESH_MS;
use crate::limits::POOL_SWEEP_MS;
use crate::limits::RING_ENTRIES;
use crate::limits::SYSTEM_LOOK_MS;
use crate::log::RecordDesk;
use crate::policy::Snapshot;
use crate::sys::affinity;
use crate::sys::netif;
use crate::wire::http1::ReplyHead;
use crate::wire::http1::http_date;
use std::cell::Cell;
use std::cell::RefCell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// What a core is started with.
pub struct CoreConfig {
    /// Its number, for names.
    pub index: usize,
    /// The processor it is pinned to; `None` leaves it to the kernel.
    pub cpu: Option<usize>,
    /// Its listening sockets (see `sys::sockets::listen_group`).
    pub listeners: Vec<std::net::TcpListener>,
    /// NODE_NAME: in Via, in policy's facts and on pages.
    pub node_name: String,
    /// On a master: why this node carries no traffic. Every request is answered 403 with these words.
    pub refuse_as_master: Option<String>,
    /// Where the core opens its records.
    pub spool: RecordDesk,
    /// The addresses of this host, refused as destinations unless policy allows them (`sys::netif::own_addresses`).
    pub own_addresses: Vec<IpAddr>,
    /// CREDENTIALS_DIR: what this node tells parent proxies of itself.
    pub credentials_dir: PathBuf,
    /// The policy to start with.
    pub snapshot: Arc<Snapshot>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Client connections served at once by this core.
    pub connections_max: usize,
    /// Client connections served at once by all cores, which share this.
    pub admissions: Arc<Admissions>,
    /// What stands in front of the node.
    pub balancers: Balancers,
}

impl CoreConfig {
    /// A core with the usual timeouts and bounds.
    pub fn new(
        index: usize,
        listeners: Vec<std::net::TcpListener>,
        node_name: &str,
        spool: RecordDesk,
        snapshot: Arc<Snapshot>,
    ) -> CoreConfig {
        CoreConfig {
            index,
            cpu: None,
            listeners,
            node_name: node_name.to_string(),
            refuse_as_master: None,
            spool,
            own_addresses: Vec::new(),
            credentials_dir: PathBuf::from("/etc/tidegate/credentials"),
            snapshot,
            timeouts: Timeouts::default(),
            connections_max: CONNECTIONS_PER_CORE_MAX,
            admissions: Arc::default(),
            balancers: Balancers::default(),
        }
    }
}

/// How long things may take, in milliseconds. Each is as precise as `limits::DEADLINE_SWEEP_MS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a balancer's PROXY header, from the accept.
    pub proxy_header: u64,
    /// For a whole request head, from its first byte (from the accept, for a connection's first).
    pub head: u64,
    /// For a next request on an idle client connection.
    pub keep_alive: u64,
    /// For the next bytes of a body, either way, and for a client to take bytes.
    pub body: u64,
    /// For a name to resolve.
    pub resolve: u64,
    /// For one address to accept a connection.
    pub connect: u64,
    /// For the head of an answer, once the request is on its way.
    pub answer: u64,
    /// For a tunnel in which nothing moves.
    pub tunnel: u64,
    /// For an idle connection to an origin.
    pub pooled: u64,
    /// For an exchange or a tunnel altogether, from its request's head.
    pub total: u64,
    /// For what a client still sends after its answer, before the connection is closed.
    pub linger: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            proxy_header: 3_000,
            head: 10_000,
            keep_alive: 60_000,
            body: 60_000,
            resolve: 8_000,
            connect: 5_000,
            answer: 120_000,
            tunnel: 600_000,
            pooled: 30_000,
            total: 86_400_000,
            linger: 2_000,
        }
    }
}

/// What a running core takes over when startup params change: connections and exchanges go by it from their next step on.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What stands in front of the node.
    pub balancers: Balancers,
}

/// Starts data cores.
pub struct Core;

impl Core {
    /// Starts a core's thread and waits until it serves.
    pub fn start(config: CoreConfig) -> std::io::Result<CoreHandle> {
        let (orders, mailbox) = mpsc::channel(CORE_MAILBOX_MAX);
        let counters = Arc::new(CoreCounters::default());
        let (started, starting) = std::sync::mpsc::sync_channel(1);
        let name = format!("core-{}", config.index);
        let shown = Arc::clone(&counters);
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            if let Some(cpu) = config.cpu
                && let Err(error) = affinity::pin_thread(cpu)
            {
                tracing::warn!(
                    event = "core-trouble",
                    "{name}: pinning to processor {cpu}: {error}; it runs where the kernel puts it"
                );
            }
            let failed = started.clone();
            if let Err(error) = io::run(RING_ENTRIES, live(config, shown, mailbox, started)) {
                let _ = failed.send(Err(error));
            }
        })?;
        let said =
            starting.recv().unwrap_or_else(|_| Err(std::io::Error::other("the core's thread ended at its start")));
        said.map(|()| CoreHandle { orders, counters, thread })
    }
}

/// Tells by which snapshot a core decides: the first bytes of its effect.
pub fn effect_mark(snapshot: &Snapshot) -> u64 {
    let effect = snapshot.effect();
    u64::from_le_bytes(*effect.first_chunk().unwrap_or(&[0; 8]))
}

/// The way to a core from other threads.
pub struct CoreHandle {
    orders: mpsc::Sender<Order>,
    counters: Arc<CoreCounters>,
    thread: JoinHandle<()>,
}

impl CoreHandle {
    /// First step of a swap: the core holds `snapshot` ready. Replaces one prepared before.
    pub async fn prepare(&self, snapshot: Arc<Snapshot>) -> Result<(), String> {
        self.ask(|ack| Order::Prepare(snapshot, ack)).await
    }

    /// Second step: requests from now on are decided by the prepared snapshot.
    pub async fn commit(&self) -> Result<(), String> {
        self.ask(Order::Commit).await
    }

    /// Drops a prepared snapshot.
    pub async fn abort(&self) -> Result<(), String> {
        self.ask(Order::Abort).await
    }

    /// Changes how the core is tuned.
    pub async fn tune(&self, tuning: Tuning) -> Result<(), String> {
        self.ask(|ack| Order::Tune(Box::new(tuning), ack)).await
    }

    /// From now on every answer closes its connection (or, with false, again keeps it): clients come back over another one,
    /// which a balancer may lead elsewhere. Connections are accepted and served as before, and tunnels go on.
    pub async fn close_after_answers(&self, close: bool) -> Result<(), String> {
        self.ask(|ack| Order::CloseAfterAnswers(close, ack)).await
    }

    /// Forgets what name servers answered; says how many names that were.
    pub async fn forget_names(&self) -> Result<u64, String> {
        self.ask(Order::ForgetNames).await
    }

    /// Closes the connections to origins and parents that wait for a next request; says how many there were.
    pub async fn close_idle(&self) -> Result<u64, String> {
        self.ask(Order::CloseIdle).await
    }

    /// Stops accepting; what is there goes on. Answers say from now on that their connection ends, and with `end_idle` so do
    /// connections that wait for a next request.
    pub async fn stand_aside(&self, end_idle: bool) -> Result<(), String> {
        self.ask(|ack| Order::StandAside(end_idle, ack)).await
    }

    /// Stops accepting, lets what is under way end for up to `within`, cuts the rest, ends the core. Returns when the
    /// last connection is gone; [`CoreHandle::join`] then returns at once.
    pub async fn drain(&self, within: Duration) -> Result<(), String> {
        self.ask(|ack| Order::Drain(within, ack)).await
    }

    /// What the core has counted, from any thread at any time.
    pub fn counters(&self) -> Arc<CoreCounters> {
        Arc::clone(&self.counters)
    }

    /// The [`effect_mark`] of the snapshot that the core decides by.
    pub fn enforces(&self) -> u64 {
        self.counters.enforces.get()
    }

    /// Grows with every turn of the core: one that stands still is stuck.
    pub fn turns(&self) -> u64 {
        self.counters.turns.get()
    }

    /// What the core has counted so far.
    pub fn totals(&self) -> CoreTotals {
        self.counters.totals()
    }

    /// Waits for the core's thread to end; stops it first if it was not drained.
    pub fn join(self) {
        drop(self.orders);
        let begun = Mono::now();
        while !self.thread.is_finished() {
            if Mono::now().micros_since(begun) > CORE_END_MS_MAX * 1000 {
                tracing::error!("a data core does not end; the process goes on without it");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.thread.join().is_err() {
            tracing::error!(
                event = "core-trouble",
                "a data core panicked outside its connections; this is a bug of Tidegate's"
            );
        }
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Order) -> Result<T, String> {
        let (ack, answer) = oneshot::channel();
        let gone = || "the data core has ended; restart the node".to_string();
        self.orders.send(order(ack)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

type Ack = oneshot::Sender<Result<(), String>>;
type Count = oneshot::Sender<Result<u64, String>>;

enum Order {
    Prepare(Arc<Snapshot>, Ack),
    Commit(Ack),
    Abort(Ack),
    Tune(Box<Tuning>, Ack),
    CloseAfterAnswers(bool, Ack),
    ForgetNames(Count),
    CloseIdle(Count),
    StandAside(bool, Ack),
    Drain(Duration, Ack),
}

/// A snapshot as one core holds it: counted without atomics.
pub(super) struct Held {
    pub(super) snapshot: Arc<Snapshot>,
    /// Where its routes lead, on this core.
    pub(super) ways: Ways,
}

impl Held {
    fn new(snapshot: Arc<Snapshot>, upstreams: &Upstreams) -> Rc<Held> {
        let ways = upstreams.ways(&snapshot);
        Rc::new(Held { snapshot, ways })
    }
}

/// What all connections of one core share. Nothing here is touched by another thread but the counters.
pub(super) struct CoreState {
    pub(super) node_name: String,
    pub(super) refuse_as_master: Option<String>,
    pub(super) connections_max: usize,
    pub(super) admissions: Arc<Admissions>,
    pub(super) refusals: Refusals,
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) heads: Rc<Buffers>,
    /// Room for exchanges.
    pub(super) shelf: io::Shelf,
    pub(super) bodies: Buffers,
    pub(super) pipes: Pipes,
    pub(super) desk: RefCell<RecordDesk>,
    pub(super) upstreams: Rc<Upstreams>,
    pub(super) counters: Arc<CoreCounters>,
    pub(super) draining: Cell<bool>,
    /// The node is to be left: answers close their connections.
    pub(super) closing: Cell<bool>,
    /// Connections that wait for a next request are ended, and none begins to.
    pub(super) idle_ends: Cell<bool>,
    /// The time to drain is over: what still runs is being cut.
    pub(super) cutting: Cell<bool>,
    pub(super) scratch: RefCell<Scratch>,
    pub(super) reply_heads: RefCell<Vec<ReplyHead>>,
    /// This node's name in Via: a token.
    pub(super) via: String,
    timeouts: Cell<Timeouts>,
    balancers: RefCell<Rc<Balancers>>,
    date: RefCell<(i64, String)>,
    snapshot: RefCell<Rc<Held>>,
    prepared: RefCell<Option<Rc<Held>>>,
}

impl CoreState {
    fn new(config: CoreConfig, counters: Arc<CoreCounters>) -> (Rc<CoreState>, Vec<std::net::TcpListener>) {
        let deadlines = Deadlines::new();
        let via = format!("tidegate-{}", token(&config.node_name));
        let upstreams = Upstreams::new(Set {
            timeouts: config.timeouts,
            own_addresses: config.own_addresses,
            credentials_dir: config.credentials_dir,
            via: &via,
            deadlines: &deadlines,
            counters: &counters,
        });
        counters.enforces.set(effect_mark(&config.snapshot));
        let held = Held::new(config.snapshot, &upstreams);
        let state = CoreState {
            node_name: config.node_name,
            refuse_as_master: config.refuse_as_master,
            connections_max: config.connections_max,
            admissions: config.admissions,
            refusals: Refusals::default(),
            deadlines,
            upstreams,
            heads: io::heads(),
            shelf: io::Shelf::default(),
            bodies: Buffers::new(BODY_BUFFER_BYTES, BUFFERS_KEPT_MAX),
            pipes: Pipes::default(),
            desk: RefCell::new(config.spool),
            counters,
            draining: Cell::new(false),
            closing: Cell::new(false),
            idle_ends: Cell::new(false),
            cutting: Cell::new(false),
            scratch: RefCell::default(),
            reply_heads: RefCell::default(),
            via,
            timeouts: Cell::new(config.timeouts),
            balancers: RefCell::new(Rc::new(config.balancers)),
            date: RefCell::new((i64::MIN, String::new())),
            snapshot: RefCell::new(held),
            prepared: RefCell::default(),
        };
        (Rc::new(state), config.listeners)
    }

    /// The policy that decides a request whose head has just been read; the exchange holds it to its end.
    pub(super) fn held(&self) -> Rc<Held> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Whether an answer that begins now ends its connection.
    #[inline]
    pub(super) fn closes(&self) -> bool {
        self.draining.get() || self.closing.get()
    }

    /// How long things may take now.
    #[inline]
    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts.get()
    }

    /// What stands in front of the node now.
    pub(super) fn balancers(&self) -> Rc<Balancers> {
        Rc::clone(&self.balancers.borrow())
    }

    /// Hands `with` the date of now, as fields have it. It is spelt once a second.
    pub(super) fn with_date<T>(&self, with: impl FnOnce(&str) -> T) -> T {
        let now = self.deadlines.wall().seconds();
        let mut date = self.date.borrow_mut();
        if date.0 != now {
            *date = (now, http_date(now, &mut [0; 29]).to_string());
        }
        with(&date.1)
    }

    /// A reply head with its memory, to be given back.
    pub(super) fn take_reply_head(&self) -> ReplyHead {
        self.reply_heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a reply head back.
    pub(super) fn give_reply_head(&self, mut head: ReplyHead) {
        let mut heads = self.reply_heads.borrow_mut();
        if heads.len() < BUFFERS_KEPT_MAX {
            head.clear();
            heads.push(head);
        }
    }
}

/// A name as Via may have it (RFC 9110 section 5.6.2).
fn token(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().map(|c| if fits(c) { c } else { '-' }).collect()
}

async fn live(
    config: CoreConfig,
    counters: Arc<CoreCounters>,
    mut mailbox: mpsc::Receiver<Order>,
    started: std::sync::mpsc::SyncSender<std::io::Result<()>>,
) {
    let (state, listeners) = CoreState::new(config, counters);
    io::spawn(Rc::clone(&state.deadlines).sweep(chores(&state)));
    let listeners: Vec<TcpListener> = listeners.into_iter().map(TcpListener::adopt).collect();
    for listener in &listeners {
        io::spawn(accept(Rc::clone(&state), listener.share()));
    }
    state.upstreams.read_credentials().await;
    let _ = started.send(Ok(()));
    let (within, ack) = obey(&state, &listeners, &mut mailbox).await;
    stand_aside(&state, &listeners, true).await;
    // Unless somebody else holds them for a successor, who connects now is refused, not left waiting for the end of this.
    drop(listeners);
    state.upstreams.end();
    wait_until_empty(&state, within).await;
    if state.counters.connections_open.get() > 0 {
        state.cutting.set(true);
        state.deadlines.end_all();
        wait_until_empty(&state, Duration::from_secs(2)).await;
    }
    // What nobody waits for any more (a connect given up by a faster one) must end too: the ring is left when it is empty.
    state.deadlines.end_all();
    wait_until(Duration::from_secs(2), || state.deadlines.entered() == 0).await;
    state.deadlines.stop();
    if let Some(ack) = ack {
        let _ = ack.send(Ok(()));
    }
}

/// What a core does now and then, between sweeps.
fn chores(state: &Rc<CoreState>) -> impl FnMut(Wall) + use<> {
    let state = Rc::clone(state);
    let (mut pool_by, mut own_by) =
        (state.deadlines.after(POOL_SWEEP_MS), state.deadlines.after(OWN_ADDRESSES_REFRESH_MS));
    let mut system_by = state.deadlines.after(SYSTEM_LOOK_MS);
    move |_now| {
        state.counters.turns.add(1);
        state.counters.sockets.set(state.deadlines.entered() as u64);
        state.counters.operations.set(io::operations());
        if state.deadlines.passed(pool_by) {
            pool_by = state.deadlines.after(POOL_SWEEP_MS);
            state.upstreams.expire();
            state.counters.upstream_idle.set(state.upstreams.idle());
            let (slots, free) = state.desk.borrow_mut().slots();
            state.counters.record_slots.set(slots);
            state.counters.record_slots_free.set(free);
            state.heads.shed();
            state.shelf.shed();
            state.bodies.shed();
        }
        if state.deadlines.passed(system_by) {
            system_by = state.deadlines.after(SYSTEM_LOOK_MS);
            let state = Rc::clone(&state);
            io::spawn(async move {
                state.upstreams.follow_system().await;
                state.upstreams.read_credentials().await;
            });
        }
        if state.deadlines.passed(own_by) {
            own_by = state.deadlines.after(OWN_ADDRESSES_REFRESH_MS);
            io::spawn(refresh_own_addresses(Rc::clone(&state)));
        }
    }
}

/// Asks the kernel on another thread: the answer takes long where there are many interfaces.
async fn refresh_own_addresses(state: Rc<CoreState>) {
    match tokio::task::spawn_blocking(netif::own_addresses).await {
        Ok(Ok(addresses)) => state.upstreams.set_own_addresses(addresses),
        Ok(Err(error)) => {
            tracing::warn!(event = "addresses-unknown", error = ?error.kind(), "listing this host's addresses: {error}; the list before stays in force")
        }
        Err(_) => {}
    }
}

/// Does as the mailbox says until it says drain, or nobody is left to say anything.
async fn obey(
    state: &Rc<CoreState>,
    listeners: &[TcpListener],
    mailbox: &mut mpsc::Receiver<Order>,
) -> (Duration, Option<Ack>) {
    while let Some(order) = mailbox.recv().await {
        match order {
            Order::Prepare(snapshot, ack) => {
                let held = Held::new(snapshot, &state.upstreams);
                // Before the swap, so that its first request finds them.
                state.upstreams.read_credentials().await;
                *state.prepared.borrow_mut() = Some(held);
                let _ = ack.send(Ok(()));
            }
            Order::Commit(ack) => {
                let prepared = state.prepared.borrow_mut().take();
                let _ = ack.send(match prepared {
                    Some(snapshot) => {
                        state.counters.enforces.set(effect_mark(&snapshot.snapshot));
                        *state.snapshot.borrow_mut() = snapshot;
                        Ok(())
                    }
                    None => Err("commit without a prepared snapshot".to_string()),
                });
            }
            Order::Abort(ack) => {
                state.prepared.borrow_mut().take();
                let _ = ack.send(Ok(()));
            }
            Order::Tune(tuning, ack) => {
                state.timeouts.set(tuning.timeouts);
                state.upstreams.tune(tuning.timeouts);
                *state.balancers.borrow_mut() = Rc::new(tuning.balancers);
                let _ = ack.send(Ok(()));
            }
            Order::CloseAfterAnswers(close, ack) => {
                state.closing.set(close);
                let _ = ack.send(Ok(()));
            }
            Order::ForgetNames(count) => {
                let _ = count.send(Ok(state.upstreams.forget_names()));
            }
            Order::CloseIdle(count) => {
                let _ = count.send(Ok(state.upstreams.close_idle()));
            }
            Order::StandAside(end_idle, ack) => {
                stand_aside(state, listeners, end_idle).await;
                let _ = ack.send(Ok(()));
            }
            Order::Drain(within, ack) => return (within, Some(ack)),
        }
    }
    (Duration::ZERO, None)
}

async fn stand_aside(state: &CoreState, listeners: &[TcpListener], end_idle: bool) {
    state.draining.set(true);
    for listener in listeners {
        listener.close().await;
    }
    if end_idle {
        state.idle_ends.set(true);
        state.deadlines.end_idle();
    }
}

async fn wait_until_empty(state: &CoreState, within: Duration) {
    wait_until(within, || state.counters.connections_open.get() == 0).await;
}

async fn wait_until(within: Duration, holds: impl Fn() -> bool) {
    let begun = Mono::now();
    while !holds() && Mono::now().0.saturating_duration_since(begun.0) < within {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn accept(state: Rc<CoreState>, listener: TcpListener) {
    while let Some(client) = listener.accept(&state.deadlines, || state.counters.exhausted.add(1)).await {
        state.counters.connections.add(1);
        io::spawn(connection::serve(Rc::clone(&state), client));
    }
}
