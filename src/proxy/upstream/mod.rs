//! The one way out to the network: [`Upstreams::open`] takes a permit and answers a connection to an origin.

mod destination;
mod dial;
mod penalty;
mod pool;
mod resolve;
mod system;

use super::core::Timeouts;
use super::counters::CoreCounters;
use crate::base::clock::Mono;
use crate::io::Deadline;
use crate::io::Deadlines;
use crate::io::Receiving;
use crate::io::TcpStream;
use crate::io::Wait;
use crate::limits::POOLED_BELIEVED_MS_MAX;
use crate::limits::POOLED_BELIEVED_MS_MIN;
use crate::policy::Permit;
use crate::policy::Snapshot;
use dial::DialError;
use dial::Dialer;
use pool::Pool;
use pool::Pooled;
use resolve::Lookup;
use resolve::Resolver;
use std::cell::Cell;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use system::Marks;
use system::Said;
use system::System;

/// A core's way to origins: its resolver and its pool of idle connections.
pub(super) struct Upstreams {
    resolver: Resolver,
    dialer: Dialer,
    pool: Pool,
    own_addresses: RefCell<Vec<IpAddr>>,
    deadlines: Rc<Deadlines>,
    timeouts: Timeouts,
    counters: Arc<CoreCounters>,
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
    /// The receive of the answer, if it was begun already.
    pub(super) receiving: Option<Receiving>,
    pub(super) address: SocketAddr,
    /// How long connecting took, the name's resolution included; 0 for a pooled connection.
    pub(super) connect_us: u32,
    pub(super) pooled: bool,
    /// Until then its name need not be asked for again.
    believed: Deadline,
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

impl Upstreams {
    pub(super) fn new(
        timeouts: Timeouts,
        own_addresses: Vec<IpAddr>,
        deadlines: &Rc<Deadlines>,
        counters: &Arc<CoreCounters>,
    ) -> Upstreams {
        Upstreams {
            resolver: Resolver::new(System::of(Said::read()), timeouts.resolve),
            dialer: Dialer::new(deadlines, timeouts.connect),
            pool: Pool::default(),
            own_addresses: RefCell::new(own_addresses),
            deadlines: Rc::clone(deadlines),
            timeouts,
            counters: Arc::clone(counters),
        }
    }

    /// Opens a connection to `target`: an idle one if `pooled` allows, else a new one. The permit is the proof that
    /// policy said yes; `snapshot` is the policy that said it, asked again about the address the name resolved to.
    pub(super) async fn open(
        &self,
        _permit: &Permit,
        snapshot: &Snapshot,
        target: Target<'_>,
        pooled: bool,
    ) -> Result<Upstream, OpenError> {
        if pooled && let Some(upstream) = self.take_pooled(snapshot, target) {
            if !self.deadlines.passed(upstream.believed) {
                return Ok(upstream);
            }
            if let Some(upstream) = self.believe_again(upstream, target).await {
                return Ok(upstream);
            }
        }
        let begun = Mono::now();
        let lookup = self.resolver.look(target.host, begun);
        lookup.ready().await?;
        self.counters.upstream_connects.add(1);
        let refused = Cell::new(None);
        let admits = |address| {
            let kind = self.kind_refused(snapshot, address, target.port);
            kind.inspect(|kind| refused.set(Some((address, *kind)))).is_none()
        };
        let (stream, address) =
            self.dialer.dial(&lookup, target.port, &None, admits).await.map_err(|error| {
                match (error, refused.take()) {
                    (DialError::Failed(address, error), _) => OpenError::Connect(address, error),
                    (DialError::Source(address), _) => OpenError::Source(address),
                    (DialError::Nowhere, Some((address, kind))) => OpenError::Destination(address, kind),
                    (DialError::Nowhere, None) => lookup.verdict().err().unwrap_or(OpenError::NoSuchHost),
                }
            })?;
        let now = Mono::now();
        let connect_us = u32::try_from(now.micros_since(begun)).unwrap_or(u32::MAX).max(1);
        let believed = self.believed(&lookup, address.ip(), now);
        Ok(Upstream { stream, receiving: None, address, connect_us, pooled: false, believed })
    }

    /// Puts a connection whose last answer was read to its end back for the next request. The receive of that request's
    /// answer begins now, into `buffer`: what comes before the request shows that the connection is of no more use, without
    /// a system call to ask.
    pub(super) fn keep(&self, target: Target<'_>, upstream: Upstream, buffer: Vec<u8>) {
        let until = self.deadlines.after(self.timeouts.pooled);
        let receiving = upstream.stream.begin_recv(buffer, Wait::Later);
        let Upstream { stream, address, believed, .. } = upstream;
        self.pool.put(target, Pooled { stream, receiving, address, port: target.port, until, believed });
    }

    /// Closes what has been idle too long.
    pub(super) fn expire(&self) {
        self.pool.expire(|until| self.deadlines.passed(until));
    }

    /// Closes all idle connections.
    pub(super) fn close_idle(&self) {
        self.pool.expire(|_| true);
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
            tracing::info!("/etc/resolv.conf or /etc/hosts has changed: names resolve by what they say now");
            self.resolver.follow(System::of(said));
        }
    }

    /// The latest used idle connection that still lives and that this policy allows.
    fn take_pooled(&self, snapshot: &Snapshot, target: Target<'_>) -> Option<Upstream> {
        loop {
            let Pooled { stream, mut receiving, address, until, believed, .. } = self.pool.take(target)?;
            // The policy may have changed since it was opened.
            let allowed = self.kind_refused(snapshot, address.ip(), target.port).is_none();
            if allowed && !self.deadlines.passed(until) && !receiving.is_over() {
                let receiving = Some(receiving);
                return Some(Upstream { stream, receiving, address, connect_us: 0, pooled: true, believed });
            }
        }
    }

    /// Asks whether the name of a pooled connection still leads to its address; if it has moved, the connection closes. If
    /// nobody can say, it stays: it works, and a new one would need the answer too.
    async fn believe_again(&self, mut upstream: Upstream, target: Target<'_>) -> Option<Upstream> {
        let now = Mono::now();
        let lookup = self.resolver.look(target.host, now);
        let said = lookup.settled().await;
        let ip = upstream.address.ip();
        let moved = match said {
            Ok(()) => lookup.believed(ip, now).is_none(),
            Err(OpenError::NoSuchHost) => true,
            Err(_) => false,
        };
        let quiet = !upstream.receiving.as_mut().is_some_and(Receiving::is_over);
        let alive = !moved && quiet;
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
