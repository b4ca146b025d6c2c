//! One client connection: its exchanges, one after the other.

use super::account::Account;
use super::answer;
use super::balancer;
use super::balancer::Peer;
use super::core::CoreState;
use super::exchange;
use super::upstream::Bound;
use crate::base::clock::Mono;
use crate::io as ring;
use crate::io::Deadline;
use crate::io::TcpStream;
use crate::io::Wait;
use crate::limits::LINGER_BYTES_MAX;
use crate::limits::SHEDDING_PER_CORE_MAX;
use crate::wire::http1::Answer;
use crate::wire::http1::Parsed;
use crate::wire::http1::RequestError;
use crate::wire::http1::RequestHead;
use crate::wire::http1::parse_request;
use crate::wire::http1::write_answer;
use crate::wire::http1::write_proxy_status;
use std::cell::Cell;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::rc::Rc;

/// The client of a connection.
pub(super) struct Client<'a> {
    pub(super) state: &'a Rc<CoreState>,
    pub(super) stream: &'a TcpStream,
    pub(super) id: u64,
    /// The other end of the connection, as a trusted balancer named it.
    pub(super) peer: Peer,
    /// The client of the request at hand, as a trusted proxy's fields may name it.
    pub(super) address: Cell<SocketAddr>,
    pub(super) interface: SocketAddr,
    /// Connections to origins that nobody else may use.
    pub(super) bound: Bound,
}

/// A request whose head has been read; `buf` goes on behind the head with what came along.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) buf: &'a [u8],
    pub(super) head_bytes: usize,
}

/// What becomes of the connection after an exchange.
pub(super) enum Next {
    /// Another request may follow, after this many bytes of the buffer; `behind` came after those.
    Again { used: usize, behind: Vec<u8> },
    /// It is closed, once what the client still sends has been read for a moment: closing over unread bytes would reset
    /// the connection, and the client might never see its answer.
    Linger,
    /// It is closed.
    Close,
    /// It was cut by an error, and only a reset tells the client so: its answer would have ended with the close.
    Reset,
}

/// Serves a client's connection to its end.
pub(super) async fn serve(state: Rc<CoreState>, stream: TcpStream) {
    let (open, place) = (Open::count(&state), state.admissions.enter());
    if open.is_too_many() || place.is_none() {
        drop((open, place));
        return shed(&state, stream, "there are too many; MAX_CONNECTIONS and MAX_FDS bound them").await;
    }
    // A peer that is gone already has no address any more, and needs no service.
    let (Ok(address), Ok(interface)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let (peer, buf) = balancer::meet(&state, &stream, canonical(address), Vec::new()).await;
    let Some(peer) = peer else { return state.heads.give(buf) };
    // A trusted proxy that does not tell its clients apart stands for many of them.
    let client_place = if peer.trusted { None } else { Some(state.admissions.enter_client(peer.address.ip())) };
    if matches!(client_place, Some(None)) {
        state.heads.give(buf);
        drop((open, place));
        state.counters.client_limited.add(1);
        return shed(&state, stream, "it has too many; MAX_CONNECTIONS_PER_CLIENT bounds them").await;
    }
    let client = Client {
        state: &state,
        stream: &stream,
        id: state.desk.borrow_mut().next_client_id(),
        peer,
        address: Cell::new(peer.address),
        interface: canonical(interface),
        bound: Bound::default(),
    };
    exchanges(&client, buf).await;
}

/// One exchange after the other, to the connection's end. What came behind a PROXY header stands in `buf`.
async fn exchanges(client: &Client<'_>, mut buf: Vec<u8>) {
    let (state, mut head) = (client.state, RequestHead::new());
    for request_id in 1u32.. {
        // A drain ends idle connections; one that becomes idle later ends itself.
        if request_id > 1 && buf.is_empty() && state.idle_ends.get() {
            break;
        }
        let (arrival, back) = read_head(client, buf, &mut head, request_id == 1).await;
        buf = back;
        // Not part of this future, which waits most of its life.
        let next = state.shelf.place(|| exchange(client, request_id, arrival, &head, &buf)).await;
        match next {
            Next::Again { used, behind } => {
                buf.drain(..used.min(buf.len()));
                buf.extend_from_slice(&behind);
            }
            Next::Linger => {
                buf = linger(state, client.stream, buf).await;
                break;
            }
            Next::Reset => {
                client.stream.reset_on_close();
                break;
            }
            Next::Close => break,
        }
    }
    state.heads.give(buf);
}

/// What came, answered.
async fn exchange<'a>(
    client: &'a Client<'a>,
    request_id: u32,
    arrival: Arrival,
    head: &'a RequestHead,
    buf: &'a [u8],
) -> Next {
    // One exchange, one policy, from here to its end.
    let held = client.state.held();
    match arrival {
        Arrival::Nothing => Next::Close,
        Arrival::Broken(fault, started) => {
            let mut account = Account::begin(client, &held, request_id, started);
            answer::broken(client, &mut account, fault).await
        }
        Arrival::Head { bytes, started } => {
            if client.peer.trusted {
                client.address.set(balancer::client_of(client.state, client.peer, &held.snapshot, head, buf));
            }
            let request = Request { head, buf, head_bytes: bytes };
            let mut account = Account::begin(client, &held, request_id, started);
            exchange::run(client, request, &mut account).await
        }
    }
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What came of waiting for a request.
enum Arrival {
    /// A whole head of so many bytes.
    Head { bytes: usize, started: Mono },
    /// No request: the client closed, or was silent for as long as it may be.
    Nothing,
    /// Part of a head, or what is none.
    Broken(Fault, Mono),
}

/// Why a request's head never became whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client closed or reset the connection.
    Gone,
    /// It took too long.
    Slow,
    /// It is not HTTP as we accept it.
    Malformed(RequestError),
}

async fn read_head(client: &Client<'_>, mut buf: Vec<u8>, head: &mut RequestHead, first: bool) -> (Arrival, Vec<u8>) {
    let (state, deadlines) = (client.state, &client.state.deadlines);
    let mut started = (!buf.is_empty()).then(Mono::now);
    let in_time = || deadlines.after(state.timeouts().head);
    let mut deadline = match (first, started.is_some()) {
        // Who came while the listener closed gets a moment to say what for.
        (true, false) if state.idle_ends.get() => deadlines.after(state.timeouts().linger),
        (false, false) => deadlines.after(state.timeouts().keep_alive),
        _ => in_time(),
    };
    loop {
        if let Some(started) = started {
            match parse_request(&buf, head) {
                Ok(Parsed::Complete(bytes)) => return (Arrival::Head { bytes, started }, buf),
                Ok(Parsed::Partial) => {}
                Err(error) => return (Arrival::Broken(Fault::Malformed(error), started), buf),
            }
        }
        if buf.is_empty() {
            // Who waits holds no buffer.
            state.heads.give(std::mem::take(&mut buf));
        }
        // The parser refuses what has reached HEAD_BYTES_MAX, so this ends.
        let wait = if started.is_some() { Wait::Later } else { Wait::Idle };
        if started.is_some() {
            // The exchange before this one is over; its total time must not end the wait for the rest of a head.
            client.stream.exchange_by(Deadline::NEVER);
        }
        let (received, back) = client.stream.recv(buf, deadline, wait).await;
        buf = back;
        let fault = match received {
            Ok(0) => Fault::Gone,
            Ok(_) => {
                started.get_or_insert_with(ring::moment);
                deadline = deadline.or_earlier(in_time());
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Fault::Slow,
            Err(_) => Fault::Gone,
        };
        // Line ends alone are no request: some clients send them after a body.
        let silent = buf.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        return match started {
            Some(started) if !silent => (Arrival::Broken(fault, started), buf),
            _ => (Arrival::Nothing, buf),
        };
    }
}

/// Reads and forgets what the client still sends, for a moment.
async fn linger(state: &CoreState, stream: &TcpStream, mut buf: Vec<u8>) -> Vec<u8> {
    stream.end_writing();
    let until = state.deadlines.after(state.timeouts().linger);
    let mut left = LINGER_BYTES_MAX;
    loop {
        buf.clear();
        let (received, back) = stream.recv(buf, until, Wait::Later).await;
        buf = back;
        match received {
            Ok(count) if count > 0 && count < left => left -= count,
            _ => return buf,
        }
    }
}

/// Turns a client away in one send: no record, since no request was read.
async fn shed(state: &CoreState, stream: TcpStream, why: &str) {
    state.counters.shed.add(1);
    // A peer whose address cannot be asked has gone already.
    let client = stream.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| canonical(address).ip());
    state.refusals.tell(state, client, || format!("turned a connection from {client} away: {why}"));
    if state.counters.shedding.get() >= SHEDDING_PER_CORE_MAX {
        stream.reset_on_close();
        return;
    }
    let _shedding = Shedding::count(state);
    let mut proxy_status = String::new();
    let details = format!("the connection was turned away: {why}");
    write_proxy_status(&state.via, Some("proxy_internal_error"), &details, &mut proxy_status);
    let answer = Answer {
        status: 503,
        close: true,
        proxy_status: Some(&proxy_status),
        fields: &[("Retry-After", "1")],
        ..Answer::default()
    };
    let mut out = Vec::new();
    write_answer(&answer, &mut out);
    let (sent, buf) = stream.send(out, 0, state.timeouts().linger).await;
    if sent.is_ok() {
        linger(state, &stream, buf).await;
    }
}

/// A connection in the count of those being turned away.
struct Shedding<'a>(&'a CoreState);

impl<'a> Shedding<'a> {
    fn count(state: &'a CoreState) -> Shedding<'a> {
        state.counters.shedding.add(1);
        Shedding(state)
    }
}

impl Drop for Shedding<'_> {
    fn drop(&mut self) {
        self.0.counters.shedding.sub(1);
    }
}

/// A connection in the count of the open ones.
struct Open<'a>(&'a CoreState);

impl<'a> Open<'a> {
    fn count(state: &'a CoreState) -> Open<'a> {
        state.counters.connections_open.add(1);
        Open(state)
    }

    fn is_too_many(&self) -> bool {
        self.0.counters.connections_open.get() > self.0.connections_max as u64
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.connections_open.sub(1);
    }
}
