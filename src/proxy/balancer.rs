//! Who the client is when balancers and proxies stand in front of the node: only those in TRUSTED_PROXIES are believed.

use super::core::CoreState;
use crate::base::networks::Networks;
use crate::io::TcpStream;
use crate::io::Wait;
use crate::limits::REFUSALS_TOLD_MS;
use crate::policy::Believed;
use crate::policy::Snapshot;
use crate::wire::forwarded;
use crate::wire::http1::RequestHead;
use crate::wire::proxy_protocol::ProxyHeader;
use crate::wire::proxy_protocol::ProxyHeaderError;
use crate::wire::proxy_protocol::ProxySaid;
use crate::wire::proxy_protocol::parse_proxy_header;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;

/// Whether connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// Never: such a header is a malformed request.
    #[default]
    Off,
    /// Those of trusted peers may.
    Optional,
    /// All do; peers that are not trusted are closed.
    Required,
}

/// What stands in front of the node.
#[derive(Clone, Debug, Default)]
pub struct Balancers {
    /// PROXY_PROTOCOL.
    pub proxy_protocol: ProxyProtocol,
    /// TRUSTED_PROXIES.
    pub trusted: Networks,
}

/// Who is at the other end, once whoever may say something about it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// The client's address, or the nearest one known to be on the way to it.
    pub(super) address: SocketAddr,
    /// Whether that is a trusted proxy's, whose fields about its own client may be believed.
    pub(super) trusted: bool,
}

/// Learns who the peer of a fresh connection is, from its PROXY header if there is to be one. What came behind that is left
/// in `buf`. `None`: the connection is refused; that has been counted and told.
pub(super) async fn meet(
    state: &CoreState,
    stream: &TcpStream,
    address: SocketAddr,
    buf: Vec<u8>,
) -> (Option<Peer>, Vec<u8>) {
    let balancers = state.balancers();
    let trusts = |address: SocketAddr| balancers.trusted.holds(address.ip());
    let unasked = Peer { address, trusted: trusts(address) };
    match (balancers.proxy_protocol, unasked.trusted) {
        (ProxyProtocol::Off, _) | (ProxyProtocol::Optional, false) => return (Some(unasked), buf),
        (ProxyProtocol::Required, false) => {
            refuse(state, address, Refusal::NotTrusted);
            return (None, buf);
        }
        (ProxyProtocol::Optional | ProxyProtocol::Required, true) => {}
    }
    let (said, buf) = read_header(state, stream, buf).await;
    let required = balancers.proxy_protocol == ProxyProtocol::Required;
    let peer = match said {
        Ok(Some(ProxySaid::Addresses { client, .. })) => Peer { address: client, trusted: trusts(client) },
        Ok(Some(ProxySaid::Nothing)) => unasked,
        Ok(None) | Err(Refusal::Slow { nothing: true }) if !required => unasked,
        // A check that a balancer's port is open says nothing, and is nothing to tell.
        Err(Refusal::Gone { nothing: true }) => return (None, buf),
        Ok(None) => {
            refuse(state, address, Refusal::Absent);
            return (None, buf);
        }
        Err(refusal) => {
            refuse(state, address, refusal);
            return (None, buf);
        }
    };
    (Some(peer), buf)
}

/// The client of one request: the connection's, or whom the fields that policy believes name, if a trusted proxy sent them.
pub(super) fn client_of(
    state: &CoreState,
    peer: Peer,
    snapshot: &Snapshot,
    head: &RequestHead,
    buf: &[u8],
) -> SocketAddr {
    let balancers = state.balancers();
    let trusted = |address: IpAddr| balancers.trusted.holds(address);
    let values = |name: &'static str| {
        let same = move |(field, value): (&str, _)| field.eq_ignore_ascii_case(name).then_some(value);
        head.fields(buf).filter_map(same)
    };
    let named = match snapshot.believed() {
        Believed::Nothing => None,
        Believed::XForwardedFor => forwarded::client_by_x_forwarded_for(values("x-forwarded-for"), trusted),
        Believed::Forwarded => forwarded::client_by_forwarded(values("forwarded"), trusted),
    };
    // Its port is nobody's: the connection it came on is not ours.
    named.map_or(peer.address, |address| SocketAddr::new(address, 0))
}

/// Reads a header; `Ok(None)` if there is none.
async fn read_header(
    state: &CoreState,
    stream: &TcpStream,
    mut buf: Vec<u8>,
) -> (Result<Option<ProxySaid>, Refusal>, Vec<u8>) {
    let until = state.deadlines.after(state.timeouts().proxy_header);
    loop {
        match parse_proxy_header(&buf) {
            Ok(ProxyHeader::Partial) => {}
            Ok(ProxyHeader::Absent) => return (Ok(None), buf),
            Ok(ProxyHeader::Whole { bytes, said }) => {
                buf.drain(..bytes);
                return (Ok(Some(said)), buf);
            }
            Err(error) => return (Err(Refusal::Malformed(error)), buf),
        }
        // The parser refuses what is longer than PROXY_HEADER_BYTES_MAX, so this ends.
        let wait = if buf.is_empty() { Wait::Idle } else { Wait::Later };
        let (received, back) = stream.recv(buf, until, wait).await;
        buf = back;
        let nothing = buf.is_empty();
        match received {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return (Err(Refusal::Slow { nothing }), buf),
            _ => return (Err(Refusal::Gone { nothing }), buf),
        }
    }
}

/// Why a connection is closed before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// PROXY_PROTOCOL is required, and the peer is not among those who may speak it.
    NotTrusted,
    /// It is required, and did not come.
    Absent,
    Malformed(ProxyHeaderError),
    Slow {
        nothing: bool,
    },
    Gone {
        nothing: bool,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotTrusted => f.write_str(
                "PROXY_PROTOCOL is required and this peer is not in TRUSTED_PROXIES; add it there if it is a balancer",
            ),
            Refusal::Absent => {
                f.write_str("no PROXY header, which PROXY_PROTOCOL requires; make the balancer send one")
            }
            Refusal::Malformed(error) => write!(f, "malformed PROXY header: {error}; look at the balancer's settings"),
            Refusal::Slow { .. } => f.write_str("its PROXY header did not come in time"),
            Refusal::Gone { .. } => f.write_str("it closed inside its PROXY header"),
        }
    }
}

fn refuse(state: &CoreState, address: SocketAddr, refusal: Refusal) {
    state.counters.proxy_header_refused.add(1);
    state.refusals.tell(state, address.ip(), || format!("closed a connection from {}: {refusal}", address.ip()));
}

/// Tells the journal of refusals, but not of each: a flood of them must not become a flood of lines.
#[derive(Default)]
pub(super) struct Refusals {
    next: Cell<Option<crate::io::Deadline>>,
    untold: Cell<u64>,
}

impl Refusals {
    /// Tells what `words` say of `client`, or counts it for the next time.
    pub(super) fn tell(&self, state: &CoreState, client: IpAddr, words: impl FnOnce() -> String) {
        if self.next.get().is_some_and(|next| !state.deadlines.passed(next)) {
            self.untold.set(self.untold.get() + 1);
            return;
        }
        self.next.set(Some(state.deadlines.after(REFUSALS_TOLD_MS)));
        let untold = match self.untold.take() {
            0 => String::new(),
            untold => format!(" (and {untold} more refusals since the last such line)"),
        };
        tracing::warn!(event = "client-refused", client_id = %client, "{}{untold}", words());
    }
}
