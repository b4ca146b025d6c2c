//! CONNECT and protocol changes: bytes nobody looks into, through pipes in the kernel.

use super::account::Account;
use super::answer;
use super::answer::Reading;
use super::connection::Client;
use super::connection::Next;
use super::connection::Request;
use super::core::CoreState;
use super::failure::Failure;
use super::upstream::Over;
use super::upstream::Target;
use crate::io;
use crate::io::Flow;
use crate::io::TcpStream;
use crate::limits::CLIENT_HELLO_BYTES_MAX;
use crate::policy::Permit;
use crate::record::By;
use crate::record::CacheCode;
use crate::record::Ending;
use crate::record::Phase;
use crate::wire::client_hello::FirstFlight;
use crate::wire::client_hello::parse_client_hello;
use crate::wire::http1::ESTABLISHED;
use std::io::ErrorKind;

/// Opens the tunnel a client asked for with CONNECT, and runs it to its end.
pub(super) async fn connect(
    client: &Client<'_>,
    request: Request<'_>,
    account: &mut Account<'_>,
    permit: Permit,
) -> Next {
    let state = client.state;
    let target = Target { host: request.head.host(), port: request.head.port() };
    if account.ask().is_err() {
        return answer::refuse(client, account, Failure::NoRecord, Reading::Whole(request.head_bytes)).await;
    }
    let held = account.held;
    let upstream = match state.upstreams.open(&permit, &held.snapshot, &held.ways, target, Over::Tunnel).await {
        Ok(upstream) => upstream,
        Err(error) => {
            return answer::refuse(client, account, Failure::Open(error), Reading::Whole(request.head_bytes)).await;
        }
    };
    account.asked(&upstream);
    account.ended.status = 200;
    account.ended.cachecode = CacheCode::Tunnel;
    account.ended.download = upstream.early.len() as u64;
    account.ended.ending = Ending::running(Phase::Data);
    if account.open(b"").is_err() {
        return answer::refuse(client, account, Failure::NoRecord, Reading::Part).await;
    }
    let mut out = state.heads.take();
    out.extend_from_slice(ESTABLISHED);
    out.extend_from_slice(&upstream.early);
    let (sent, out) = client.stream.send(out, 0, state.timeouts().body).await;
    state.heads.give(out);
    if sent.is_err() {
        account.settle(Ending::new(By::Client, Phase::Data));
        return Next::Close;
    }
    let early = &request.buf[request.head_bytes..];
    relay(client, account, &upstream.stream, early, Some(Beginning::default())).await
}

/// Relays between client and origin, who have changed to another protocol, to the end of both. What the client has sent
/// already (`early`) goes first.
pub(super) async fn run(client: &Client<'_>, account: &mut Account<'_>, origin: &TcpStream, early: &[u8]) -> Next {
    relay(client, account, origin, early, None).await
}

async fn relay(
    client: &Client<'_>,
    account: &mut Account<'_>,
    origin: &TcpStream,
    early: &[u8],
    mut beginning: Option<Beginning>,
) -> Next {
    let state = client.state;
    let _open = Open::count(state);
    let (mut early, late) = (early.to_vec(), origin.unwatch().await);
    early.extend_from_slice(&client.stream.unwatch().await);
    account.ended.download += late.len() as u64;
    let (uploaded, downloaded) = (account.ended.upload, account.ended.download);
    if !late.is_empty() && client.stream.send(late, 0, state.timeouts().body).await.0.is_err() {
        account.settle(Ending::new(By::Client, Phase::Data));
        return Next::Close;
    }
    let uploaded = uploaded + early.len() as u64;
    if let Some(seen) = &mut beginning
        && !early.is_empty()
        && !seen.look(&early, account)
    {
        beginning = None;
    }
    if !early.is_empty() {
        let (sent, _) = origin.send(early, 0, state.timeouts().body).await;
        if sent.is_err() {
            account.settle(Ending::new(By::Server, Phase::Data));
            return Next::Close;
        }
    }
    let flow = Flow::default();
    let moved = || account.update(uploaded + flow.up.get(), downloaded + flow.down.get());
    let told = &*account;
    let mut look = beginning.map(|mut seen| move |bytes: &[u8]| seen.look(bytes, told));
    let look = look.as_mut().map(|look| look as &mut dyn FnMut(&[u8]) -> bool);
    let within = (state.timeouts().tunnel, account.until);
    let relayed = io::relay(client.stream, origin, &state.pipes, within, &flow, moved, look).await;
    account.ended.upload = uploaded + flow.up.get();
    account.ended.download = downloaded + flow.down.get();
    let ending = match relayed {
        // No descriptors for the pipes, or none for the reactor.
        Err(_) => Ending::new(By::Resource, Phase::Data),
        Ok(()) if flow.idle.get() && state.deadlines.passed(account.until) => Ending::new(By::Local, Phase::Data),
        Ok(()) => Ending::new(ended_by(&flow), Phase::Data),
    };
    account.settle(if ending.by == By::Nobody { Ending::COMPLETE } else { ending });
    Next::Close
}

/// Who ended a tunnel that did not end by itself. A failed way up failed at reading from the client or at writing to the
/// origin; only writing to somebody who is gone says `BrokenPipe`.
fn ended_by(flow: &Flow) -> By {
    match (flow.idle.get(), flow.up_failed.get(), flow.down_failed.get()) {
        (true, _, _) => By::ClientTimeout,
        (_, Some(ErrorKind::BrokenPipe), _) => By::Server,
        (_, Some(_), _) => By::Client,
        (_, _, Some(ErrorKind::BrokenPipe)) => By::Client,
        (_, _, Some(_)) => By::Server,
        (false, None, None) => By::Nobody,
    }
}

/// The beginning of what a tunnel's client sends, looked at for the server it names to TLS. It goes on meanwhile: a protocol in
/// which the server speaks first, or that is no TLS, notices nothing.
#[derive(Default)]
struct Beginning {
    /// What came, if the ClientHello did not come in one piece.
    came: Vec<u8>,
}

impl Beginning {
    /// Looks at the next piece; answers whether more may tell more.
    fn look(&mut self, piece: &[u8], account: &Account<'_>) -> bool {
        let parsed = match self.came.is_empty() {
            true => parse_client_hello(piece),
            false => {
                self.came.extend_from_slice(piece);
                parse_client_hello(&self.came)
            }
        };
        match parsed {
            Ok(FirstFlight::Partial) if self.came.is_empty() => {
                self.came.extend_from_slice(piece);
                true
            }
            // A hello in records of a few bytes may be longer on the wire than in itself.
            Ok(FirstFlight::Partial) => self.came.len() < 2 * CLIENT_HELLO_BYTES_MAX,
            Ok(FirstFlight::Hello(hello)) => {
                if let Some(name) = hello.server_name() {
                    account.tell_sni(name);
                }
                false
            }
            Ok(FirstFlight::NotTls) | Err(_) => false,
        }
    }
}

/// A tunnel in the count of the open ones.
struct Open<'a>(&'a CoreState);

impl<'a> Open<'a> {
    fn count(state: &'a CoreState) -> Open<'a> {
        state.counters.tunnels_open.add(1);
        Open(state)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.tunnels_open.sub(1);
    }
}
