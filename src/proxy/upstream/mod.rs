//! The one way out to the network: [`Upstreams::open`] takes a permit and answers a connection to an origin, or through a
//! parent proxy where a route says so.

mod bound;
mod credentials;
mod destination;
mod dial;
mod parent;
mod penalty;
mod pool;
mod resolve;
mod socks;
mod system;

pub(super) use bound::Bound;
pub(super) use bound::authenticates_connection;
pub(super) use parent::Parent;
pub(super) use parent::Ways;
pub use resolve::addresses_in;

use super::core::Timeouts;
use super::counters::CoreCounters;
use crate::base::clock::Mono;
use crate::io::Deadline;
use crate::io::Deadlines;
use crate::io::TcpStream;
use crate::limits::POOLED_BELIEVED_MS_MAX;
use crate::limits::POOLED_BELIEVED_MS_MIN;
use crate::policy::Permit;
use crate::policy::Snapshot;
use credentials::Found;
use credentials::Logins;
use dial::DialError;
use dial::Dialer;
use dial::Source;
use parent::Connected;
use parent::Fault;
use parent::Group;
use parent::Parents;
use pool::Pool;
use pool::Pooled;
use resolve::Family;
use resolve::Lookup;
use resolve::Resolver;
use std::cell::Cell;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use system::Marks;
use system::Said;
use system::System;

/// A core's way to origins: its resolver and its pool of idle connections.
pub(super) struct Upstreams {
    resolver: Resolver,
    dialer: Dialer,
    pool: Pool,
    parents: Parents,
    logins: RefCell<Logins>,
    credentials_dir: PathBuf,
    /// This node's name in Via.
    via: String,
    own_addresses: RefCell<Vec<IpAddr>>,
    deadlines: Rc<Deadlines>,
    timeouts: Cell<Timeouts>,
    counters: Arc<CoreCounters>,
    /// The core is ending: nobody looks at parents any more.
    ended: Cell<bool>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// Lower case, no brackets, no trailing dot.
    pub(super) host: &'a str,
    pub(super) port: u16,
}

/// A connection to an origin, ready for a request.
pub(super) struct Upstream {
    pub(super) stream: TcpStream,
    /// Of the other end: the origin's, or the parent's.
    pub(super) address: SocketAddr,
    /// The parent it leads through.
    pub(super) parent: Option<Rc<Parent>>,
    /// The first bytes of a tunnel's other end, which came with a parent's answer.
    pub(super) early: Vec<u8>,
    /// How long connecting took, the name's resolution included; 0 for a pooled connection.
    pub(super) connect_us: u32,
    pub(super) pooled: bool,
    /// The client that uses it has it for itself, because it authenticated on it.
    pub(super) bound: bool,
    /// The way it was opened by: only requests that go the same way may use it.
    way: u32,
    /// Until then its name need not be asked for again.
    believed: Deadline,
}

impl Upstream {
    /// Whether an idle connection has stayed quiet: nothing came, and the other end has not closed.
    fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
    }

    /// The parent that takes requests in absolute form on this connection.
    pub(super) fn parent_for_requests(&self) -> Option<&Parent> {
        self.parent.as_deref().filter(|parent| parent.takes_requests())
    }
}

/// Which connections a request may be sent on.
#[derive(Clone, Copy)]
pub(super) enum Over<'a> {
    /// One that the client has for itself, else an idle one of the pool, else a new one.
    Any(&'a Bound),
    /// A new one: an idle one has just failed.
    New,
    /// A new one by another parent than these, which gave no answer.
    Past(&'a [Rc<Parent>]),
    /// A new one that nobody but the client and the other end look into.
    Tunnel,
}

/// Why there is no connection to the origin.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The name does not exist or has no address.
    NoSuchHost,
    /// The name could not be resolved, for this reason.
    Resolve(String),
    /// Resolving took too long.
    ResolveTimeout,
    /// The address is one a proxy must not be led to; the words say of which kind.
    Destination(IpAddr, &'static str),
    /// Of a group, no parent proxy is up; the words are what the last one asked said.
    NoParent(Rc<str>, String),
    /// A parent proxy refused the request, in these words.
    ParentRefused(Rc<str>, String),
    /// Parent proxies closed the connection instead of answering; this one was the last.
    ParentMute(Rc<str>),
    /// A parent proxy took the request and did not answer in time.
    ParentSilent(Rc<str>),
    /// The policy says to leave from this address, which is none of this node's.
    Source(IpAddr),
    /// No address accepted a connection; this is what the last one tried said.
    Connect(SocketAddr, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NoSuchHost => f.write_str("the host's name does not exist or has no address"),
            OpenError::Resolve(why) => write!(f, "the host's name could not be resolved: {why}"),
            OpenError::ResolveTimeout => f.write_str("no name server answered in time for the host's name"),
            OpenError::Destination(address, kind) => {
                write!(f, "{address} is {kind}, which this proxy does not connect to")
            }
            OpenError::NoParent(group, why) if why.is_empty() => write!(f, "all parent proxies of `{group}` are down"),
            OpenError::NoParent(group, why) => write!(f, "no parent proxy of `{group}` can be used: {why}"),
            OpenError::ParentRefused(parent, words) => write!(f, "the parent proxy {parent} did not connect: {words}"),
            OpenError::ParentMute(parent) => {
                write!(f, "the parent proxy {parent} closed the connection without an answer")
            }
            OpenError::ParentSilent(parent) => write!(f, "the parent proxy {parent} did not answer in time"),
            OpenError::Source(address) => {
                write!(f, "the policy sends this connection out from {address}, which is no address of this node")
            }
            OpenError::Connect(address, error) if error.kind() == io::ErrorKind::TimedOut => {
                write!(f, "{address} did not accept a connection in time")
            }
            OpenError::Connect(address, error) => write!(f, "connecting to {address}: {error}"),
        }
    }
}

/// What a core's upstreams are made of.
pub(super) struct Set<'a> {
    pub(super) timeouts: Timeouts,
    pub(super) own_addresses: Vec<IpAddr>,
    pub(super) credentials_dir: PathBuf,
    pub(super) via: &'a str,
    pub(super) deadlines: &'a Rc<Deadlines>,
    pub(super) counters: &'a Arc<CoreCounters>,
}

impl Upstreams {
    pub(super) fn new(set: Set<'_>) -> Rc<Upstreams> {
        Rc::new(Upstreams {
            resolver: Resolver::new(System::of(Said::read()), set.timeouts.resolve, Arc::clone(set.counters)),
            dialer: Dialer::new(set.deadlines, set.timeouts.connect),
            pool: Pool::default(),
            parents: Parents::default(),
            logins: RefCell::default(),
            credentials_dir: set.credentials_dir,
            via: set.via.to_string(),
            own_addresses: RefCell::new(set.own_addresses),
            deadlines: Rc::clone(set.deadlines),
            timeouts: Cell::new(set.timeouts),
            counters: Arc::clone(set.counters),
            ended: Cell::new(false),
        })
    }

    /// How long things may take from the next step on.
    pub(super) fn tune(&self, timeouts: Timeouts) {
        self.timeouts.set(timeouts);
        self.resolver.within.set(Duration::from_millis(timeouts.resolve));
        self.dialer.within.set(timeouts.connect);
    }

    /// The ways of a snapshot on this core. The files of credentials it names are read by
    /// [`Upstreams::read_credentials`].
    pub(super) fn ways(&self, snapshot: &Snapshot) -> Ways {
        self.parents.ways(snapshot)
    }

    /// Opens a connection to `target`. The permit is the proof that policy said yes; `snapshot` is the policy that said it
    /// (`ways` are its ways), asked again about the address the name resolved to.
    #[inline]
    pub(super) async fn open(
        self: &Rc<Self>,
        permit: &Permit,
        snapshot: &Snapshot,
        ways: &Ways,
        target: Target<'_>,
        over: Over<'_>,
    ) -> Result<Upstream, OpenError> {
        if let Some(way) = ways.of(permit.route()) {
            // In a box: only routed requests need the room.
            return Box::pin(self.open_by(way, snapshot, target, over)).await;
        }
        if let Over::Any(bound) = over
            && let Some(upstream) = self.take_idle(snapshot, target, 0, bound)
        {
            if !self.deadlines.passed(upstream.believed) {
                return Ok(upstream);
            }
            if let Some(upstream) = Box::pin(self.believe_again(upstream, target.host)).await {
                return Ok(upstream);
            }
        }
        Box::pin(self.open_direct(snapshot, target, 0, &None)).await
    }

    /// By a way that is not the usual one.
    async fn open_by(
        self: &Rc<Self>,
        way: &parent::Way,
        snapshot: &Snapshot,
        target: Target<'_>,
        over: Over<'_>,
    ) -> Result<Upstream, OpenError> {
        if let Some(group) = &way.group {
            match self.open_by_parent(group, snapshot, target, over).await {
                Err(OpenError::NoParent(..)) if group.direct_if_down => {}
                opened => return opened,
            }
        }
        if let Over::Any(bound) = over
            && let Some(upstream) = self.take_idle(snapshot, target, way.id, bound)
        {
            if !self.deadlines.passed(upstream.believed) {
                return Ok(upstream);
            }
            if let Some(upstream) = self.believe_again(upstream, target.host).await {
                return Ok(upstream);
            }
        }
        self.open_direct(snapshot, target, way.id, &way.source).await
    }

    async fn open_by_parent(
        self: &Rc<Self>,
        group: &Group,
        snapshot: &Snapshot,
        target: Target<'_>,
        over: Over<'_>,
    ) -> Result<Upstream, OpenError> {
        self.refuse_by_name(snapshot, target)?;
        let mut last = String::new();
        let (mut mute, mut past) = (Vec::new(), None);
        for parent in group.candidates(target.host) {
            if let Over::Past(tried) = over
                && tried.iter().any(|other| other.id == parent.id)
            {
                past = Some(parent);
                continue;
            }
            if let Over::Any(bound) = over {
                let at = if parent.takes_requests() { self.at_parent(&parent) } else { target };
                // One that the client has for itself is known by the site it authenticated at.
                let own = bound.take(target, parent.id).filter(Upstream::is_quiet);
                let idle = own.or_else(|| self.take_pooled(at, parent.id, |_| true));
                if let Some(mut upstream) = idle {
                    upstream.parent = Some(Rc::clone(&parent));
                    if !self.deadlines.passed(upstream.believed) {
                        return Ok(upstream);
                    }
                    // Where the parent resolved the name, nobody here can see a site move: such a connection has its day.
                    if parent.takes_requests()
                        && let Some(upstream) = self.believe_again(upstream, &parent.proxy.host).await
                    {
                        return Ok(upstream);
                    }
                }
            }
            match self.open_at(&parent, snapshot, target, matches!(over, Over::Tunnel)).await {
                Ok(upstream) => {
                    self.were_mute(&mute);
                    return Ok(upstream);
                }
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Down(why)) => {
                    self.parent_failed(&parent, &why);
                    last = format!("{}: {why}", parent.name);
                }
                Err(Fault::Mute) => mute.push(parent),
            }
        }
        // Who gave no answer to this request may be well. It is not down, and nobody gets past it by asking what it chokes on.
        match mute.pop().or(past) {
            Some(parent) => Err(OpenError::ParentMute(Rc::clone(&parent.name))),
            None => Err(OpenError::NoParent(Rc::clone(&group.name), last)),
        }
    }

    /// A new connection through this parent.
    async fn open_at(
        &self,
        parent: &Rc<Parent>,
        snapshot: &Snapshot,
        target: Target<'_>,
        tunnel: bool,
    ) -> Result<Upstream, Fault> {
        let begun = Mono::now();
        let connected = if !parent.takes_requests() {
            let addresses = match parent.proxy.resolve_here {
                true => self.addresses_for_parent(snapshot, target).await.map_err(Fault::Final)?,
                false => target.host.parse().into_iter().collect(),
            };
            self.connect_socks(parent, target, &addresses).await?
        } else if tunnel {
            self.connect_through(parent, target).await?
        } else {
            self.connect_parent(parent).await?
        };
        let now = Mono::now();
        let Connected { stream, address, early } = connected;
        if !tunnel && !early.is_empty() {
            // Bytes from before the request could be taken for its answer.
            let words = "it sent bytes nobody had asked for".to_string();
            return Err(Fault::Final(OpenError::ParentRefused(Rc::clone(&parent.name), words)));
        }
        let lookup = self.resolver.look(&parent.proxy.host, now);
        Ok(Upstream {
            stream,
            address,
            parent: Some(Rc::clone(parent)),
            early,
            connect_us: u32::try_from(now.micros_since(begun)).unwrap_or(u32::MAX).max(1),
            pooled: false,
            bound: false,
            way: parent.id,
            believed: self.believed(&lookup, address.ip(), now),
        })
    }

    /// The addresses of `target` that policy allows, for a parent that is told addresses.
    async fn addresses_for_parent(&self, snapshot: &Snapshot, target: Target<'_>) -> Result<Vec<IpAddr>, OpenError> {
        let lookup = self.resolver.look(target.host, Mono::now());
        lookup.settled().await?;
        let mut refused = None;
        let mut addresses: Vec<IpAddr> =
            [Family::V4, Family::V6].into_iter().flat_map(|family| lookup.addresses(family)).collect();
        addresses.retain(|address| match self.kind_refused(snapshot, *address, target.port) {
            Some(kind) => {
                refused = Some((*address, kind));
                false
            }
            None => true,
        });
        match (addresses.is_empty(), refused) {
            (true, Some((address, kind))) => Err(OpenError::Destination(address, kind)),
            (true, None) => Err(OpenError::NoSuchHost),
            (false, _) => Ok(addresses),
        }
    }

    /// What can be refused without resolving the name: a parent may resolve it, and reads spellings of addresses that we
    /// do not (`127.1`, `0x7f000001`), so a name that could be one goes to nobody.
    fn refuse_by_name(&self, snapshot: &Snapshot, target: Target<'_>) -> Result<(), OpenError> {
        let address = match target.host.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) if target.host == "localhost" || target.host.ends_with(".localhost") => Ipv4Addr::LOCALHOST.into(),
            Err(_) => {
                let last = target.host.rsplit('.').next().unwrap_or_default();
                let hexadecimal =
                    last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
                let number = hexadecimal || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()));
                return if number { Err(OpenError::NoSuchHost) } else { Ok(()) };
            }
        };
        match self.kind_refused(snapshot, address, target.port) {
            Some(kind) => Err(OpenError::Destination(address, kind)),
            None => Ok(()),
        }
    }

    /// A new connection straight to the origin.
    async fn open_direct(
        &self,
        snapshot: &Snapshot,
        target: Target<'_>,
        way: u32,
        source: &Source,
    ) -> Result<Upstream, OpenError> {
        let begun = Mono::now();
        let lookup = self.resolver.look(target.host, begun);
        lookup.ready().await?;
        self.counters.upstream_connects.add(1);
        let refused = Cell::new(None);
        let admits = |address| {
            let kind = self.kind_refused(snapshot, address, target.port);
            kind.inspect(|kind| refused.set(Some((address, *kind)))).is_none()
        };
        let dialled = self.dialer.dial(&lookup, target.port, source, admits).await;
        let (stream, address) = dialled.map_err(|error| match (error, refused.take()) {
            (DialError::Failed(address, error), _) => OpenError::Connect(address, error),
            (DialError::Source(address), _) => OpenError::Source(address),
            (DialError::Nowhere, Some((address, kind))) => OpenError::Destination(address, kind),
            (DialError::Nowhere, None) => lookup.verdict().err().unwrap_or(OpenError::NoSuchHost),
        })?;
        let now = Mono::now();
        let connect_us = u32::try_from(now.micros_since(begun)).unwrap_or(u32::MAX).max(1);
        let believed = self.believed(&lookup, address.ip(), now);
        Ok(Upstream {
            stream,
            address,
            parent: None,
            early: Vec::new(),
            connect_us,
            pooled: false,
            bound: false,
            way,
            believed,
        })
    }

    /// Puts a connection whose last answer was read to its end back for the next request: of everybody, or of the client
    /// that authenticated on it. It stays watched: what comes before the next request shows that the connection is of no
    /// more use, without a system call to ask.
    #[inline]
    pub(super) fn keep(&self, target: Target<'_>, upstream: Upstream, own: Option<&Bound>) {
        upstream.stream.watch();
        if let Some(bound) = own {
            return bound.put(target, upstream);
        }
        let until = self.deadlines.after(self.timeouts.get().pooled);
        let Upstream { stream, address, parent, way, believed, .. } = upstream;
        let target = match &parent {
            Some(parent) if parent.takes_requests() => self.at_parent(parent),
            _ => target,
        };
        self.pool.put(target, Pooled { stream, address, port: target.port, way, until, believed });
    }

    /// The parent's own place in the pool: its connections take requests for every host.
    fn at_parent<'p>(&self, parent: &'p Parent) -> Target<'p> {
        Target { host: &parent.proxy.host, port: parent.proxy.port }
    }

    /// Appends Proxy-Authorization for the parent to a head that is whole but for its last line.
    pub(super) fn authorize(&self, parent: &Parent, out: &mut Vec<u8>) {
        if let Ok(Some(value)) = self.authorization(parent) {
            out.extend_from_slice(b"Proxy-Authorization: ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Reads the files of credentials that parents need, on another thread. What is said of them holds from then on.
    pub(super) async fn read_credentials(&self) {
        let files = self.parents.files();
        if files.is_empty() {
            return self.logins.borrow_mut().clear();
        }
        let dir = self.credentials_dir.clone();
        if let Ok(found) = tokio::task::spawn_blocking(move || Found::read(&dir, files)).await {
            let logins = found.into_logins(&self.logins.borrow());
            *self.logins.borrow_mut() = logins;
        }
    }

    /// The core is ending.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.close_idle();
    }

    /// Closes what has been idle too long.
    pub(super) fn expire(&self) {
        self.pool.expire(|until| self.deadlines.passed(until));
    }

    /// How many idle connections there are.
    pub(super) fn idle(&self) -> u64 {
        self.pool.len() as u64
    }

    /// Closes all idle connections; says how many there were.
    pub(super) fn close_idle(&self) -> u64 {
        let idle = self.idle();
        self.pool.expire(|_| true);
        idle
    }

    /// Forgets what name servers answered; says how many names that were.
    pub(super) fn forget_names(&self) -> u64 {
        self.resolver.forget()
    }

    /// Replaces the list of this host's addresses.
    pub(super) fn set_own_addresses(&self, addresses: Vec<IpAddr>) {
        *self.own_addresses.borrow_mut() = addresses;
    }

    /// Looks whether the files that say how names resolve have changed, and follows them. Files are looked at and read on
    /// another thread.
    pub(super) async fn follow_system(&self) {
        let known = self.resolver.system().marks;
        let said = tokio::task::spawn_blocking(move || (Marks::look() != known).then(Said::read)).await;
        if let Ok(Some(said)) = said {
            tracing::info!(
                event = "names-reread",
                "/etc/resolv.conf or /etc/hosts has changed: names resolve by what they say now"
            );
            self.resolver.follow(System::of(said));
        }
    }

    /// An idle connection of the client's own, or of the pool.
    #[inline]
    fn take_idle(&self, snapshot: &Snapshot, target: Target<'_>, way: u32, bound: &Bound) -> Option<Upstream> {
        // The policy may have changed since it was opened.
        let allowed = |address: SocketAddr| self.kind_refused(snapshot, address.ip(), target.port).is_none();
        if !bound.is_empty()
            && let Some(own) = bound.take(target, way)
            && allowed(own.address)
            && own.is_quiet()
        {
            return Some(own);
        }
        self.take_pooled(target, way, allowed)
    }

    /// The latest used connection of the pool that still lives and that `allowed` accepts.
    #[inline]
    fn take_pooled(&self, target: Target<'_>, way: u32, allowed: impl Fn(SocketAddr) -> bool) -> Option<Upstream> {
        loop {
            let Pooled { stream, address, way, until, believed, .. } = self.pool.take(target, way)?;
            if allowed(address) && !self.deadlines.passed(until) && stream.is_quiet() {
                self.counters.upstream_reused.add(1);
                return Some(Upstream {
                    stream,
                    address,
                    parent: None,
                    early: Vec::new(),
                    connect_us: 0,
                    pooled: true,
                    bound: false,
                    way,
                    believed,
                });
            }
        }
    }

    /// Asks whether the name of an idle connection still leads to its address; if it has moved, the connection closes. If
    /// nobody can say, it stays: it works, and a new one would need the answer too.
    async fn believe_again(&self, upstream: Upstream, host: &str) -> Option<Upstream> {
        let now = Mono::now();
        let lookup = self.resolver.look(host, now);
        let said = lookup.settled().await;
        let ip = upstream.address.ip();
        let moved = match said {
            Ok(()) => lookup.believed(ip, now).is_none(),
            Err(OpenError::NoSuchHost) => true,
            Err(_) => false,
        };
        let alive = !moved && upstream.is_quiet();
        alive.then(|| Upstream { believed: self.believed(&lookup, ip, now), ..upstream })
    }

    fn believed(&self, lookup: &Lookup, address: IpAddr, now: Mono) -> Deadline {
        let ms = lookup.believed(address, now).map_or(0, |believed| believed.as_millis() as u64);
        self.deadlines.after(ms.clamp(POOLED_BELIEVED_MS_MIN, POOLED_BELIEVED_MS_MAX))
    }

    fn kind_refused(&self, snapshot: &Snapshot, address: IpAddr, port: u16) -> Option<&'static str> {
        let kind = destination::special(address, &self.own_addresses.borrow(), snapshot.refuse_private())?;
        (!snapshot.destination_allowed(address, port)).then_some(kind)
    }
}

#[cfg(test)]
mod hostile;
