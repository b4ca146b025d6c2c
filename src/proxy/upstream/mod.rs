//! The one way out to the network: [`Upstreams::open`] takes a permit and answers a connection to an origin.

mod destination;
mod dial;
mod pool;
mod resolve;

use super::core::Timeouts;
use super::counters::CoreCounters;
use crate::base::clock::Mono;
use crate::io::Deadlines;
use crate::io::TcpStream;
use crate::policy::Permit;
use crate::policy::Snapshot;
use pool::Pool;
use pool::Pooled;
use resolve::Resolver;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// A core's way to origins: its resolver and its pool of idle connections.
pub(super) struct Upstreams {
    resolver: Resolver,
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
    pub(super) address: SocketAddr,
    /// How long connecting took, the name's resolution included; 0 for a pooled connection.
    pub(super) connect_us: u32,
    pub(super) pooled: bool,
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
            resolver: Resolver::from_system(timeouts.resolve),
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
            return Ok(upstream);
        }
        let begun = Mono::now();
        let mut addresses = self.resolver.addresses(target.host).await?;
        let refused = self.drop_refused(snapshot, target.port, &mut addresses);
        if addresses.is_empty() {
            return Err(refused.map_or(OpenError::NoSuchHost, |(address, kind)| OpenError::Destination(address, kind)));
        }
        self.counters.upstream_connects.add(1);
        let (stream, address) = dial::dial(&addresses, target.port, &self.deadlines, self.timeouts.connect)
            .await
            .map_err(|(address, error)| OpenError::Connect(address, error))?;
        let connect_us = u32::try_from(Mono::now().micros_since(begun)).unwrap_or(u32::MAX).max(1);
        Ok(Upstream { stream, address, connect_us, pooled: false })
    }

    /// Puts a connection whose last answer was read to its end back for the next request.
    pub(super) fn keep(&self, target: Target<'_>, upstream: Upstream) {
        let until = self.deadlines.after(self.timeouts.pooled);
        self.pool.put(target, Pooled { stream: upstream.stream, address: upstream.address, port: target.port, until });
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

    fn take_pooled(&self, snapshot: &Snapshot, target: Target<'_>) -> Option<Upstream> {
        loop {
            let Pooled { stream, address, until, .. } = self.pool.take(target)?;
            // The policy may have changed since it was opened.
            let allowed = self.kind_refused(snapshot, address.ip(), target.port).is_none();
            if allowed && !self.deadlines.passed(until) && stream.is_quiet() {
                return Some(Upstream { stream, address, connect_us: 0, pooled: true });
            }
        }
    }

    fn drop_refused(
        &self,
        snapshot: &Snapshot,
        port: u16,
        addresses: &mut Vec<IpAddr>,
    ) -> Option<(IpAddr, &'static str)> {
        let mut refused = None;
        addresses.retain(|&address| match self.kind_refused(snapshot, address, port) {
            Some(kind) => {
                refused = Some((address, kind));
                false
            }
            None => true,
        });
        refused
    }

    fn kind_refused(&self, snapshot: &Snapshot, address: IpAddr, port: u16) -> Option<&'static str> {
        let address = address.to_canonical();
        let kind = destination::special(address, &self.own_addresses.borrow())?;
        (!snapshot.destination_allowed(address, port)).then_some(kind)
    }
}
