//! A permitted request on its way to the origin, and its answer on the way back.

mod stream;

use super::account::Account;
use super::answer as own;
use super::answer::Reading;
use super::body::Body;
use super::connection::Client;
use super::connection::Next;
use super::connection::Request;
use super::core::CoreState;
use super::failure::Failure;
use super::onward;
use super::tunnel;
use super::upstream::Over;
use super::upstream::Parent;
use super::upstream::Target;
use super::upstream::Upstream;
use super::upstream::authenticates_connection;
use crate::io::Deadline;
use crate::io::TcpStream;
use crate::io::Wait;
use crate::limits::INTERIM_REPLIES_MAX;
use crate::policy::Permit;
use crate::record::By;
use crate::record::CacheCode;
use crate::record::Ending;
use crate::record::Phase;
use crate::wire::http1::ForwardReply;
use crate::wire::http1::ForwardRequest;
use crate::wire::http1::Parsed;
use crate::wire::http1::ReplyError;
use crate::wire::http1::ReplyHead;
use crate::wire::http1::Version;
use crate::wire::http1::forward_reply;
use crate::wire::http1::forward_request;
use crate::wire::http1::parse_reply;
use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Sends a permitted request on and its answer back. `body` is what of the request's body is still to come behind the
/// `used` bytes that came with the head.
pub(super) async fn forward<'a>(
    client: &'a Client<'a>,
    request: Request<'a>,
    account: &mut Account<'a>,
    permit: Permit,
    mut body: Body,
    used: usize,
) -> Next {
    let state = client.state;
    let target = Target { host: request.head.host(), port: request.head.port() };
    let switch = request.head.wants_upgrade() && permit.upgrade_allowed();
    let mut room = Room::new(state);
    let tell = onward::tell_client(client, &account.held.snapshot);
    let how = ForwardRequest { via: &state.via, keep_upgrade: switch, tell, ..ForwardRequest::default() };
    forward_request(request.head, request.buf, &how, &mut room.out);
    let head_bytes = room.out.len();
    // It was looked through when the request came; this look takes chunk extensions out.
    let early = &request.buf[request.head_bytes..used];
    if let Err(error) = Body::new(request.head.framing()).pass(early, false, &mut room.out) {
        break_off(state, room);
        return own::refuse(client, account, Failure::BadBody(error), Reading::Part).await;
    }
    if account.ask().is_err() {
        break_off(state, room);
        let reading = if body.is_whole() { Reading::Whole(used) } else { Reading::Part };
        return own::refuse(client, account, Failure::NoRecord, reading).await;
    }
    let held = account.held;
    // An idle connection has failed; parents have closed theirs without an answer.
    let (mut stale, mut mute) = (false, Vec::new());
    // The head is spelt for an origin; a parent gets it in absolute form.
    let (mut for_parent, mut head_bytes) = (false, head_bytes);
    let next = loop {
        let over = match (stale, &mute[..]) {
            (false, []) => Over::Any(&client.bound),
            (true, []) => Over::New,
            (_, tried) => Over::Past(tried),
        };
        let upstream = match state.upstreams.open(&permit, &held.snapshot, &held.ways, target, over).await {
            Ok(upstream) => upstream,
            Err(error) => {
                let reading = if body.is_whole() { Reading::Whole(used) } else { Reading::Part };
                break own::refuse(client, account, Failure::Open(error), reading).await;
            }
        };
        account.asked(&upstream);
        let parent = upstream.parent_for_requests();
        if parent.is_some() || for_parent {
            for_parent = parent.is_some();
            head_bytes = onward::spell_anew(client, request, parent, how, head_bytes, &mut room.out);
        }
        let whole = body.is_whole();
        let gate = Gate::new(whole);
        let until = account.until;
        let delivery = Delivery { client, request, origin: &upstream.stream, parent, gate: &gate, switch, until };
        if !whole {
            // An origin that takes the request in drops holds nobody for ever either.
            upstream.stream.exchange_by(until);
        }
        let told = delivery.run(account, &mut room, &mut body).await;
        // An origin may close an idle connection just when it is used again: then nobody has seen the request.
        let untouched = matches!(told, Err(Stop::Untouched(_)));
        if untouched && upstream.pooled && onward::may_be_sent_again(&request) {
            stale = true;
            continue;
        }
        // Behind a SOCKS parent it is the origin that gave no answer.
        if let Some(parent) = upstream.parent.as_ref().filter(|parent| parent.takes_requests()) {
            match &told {
                Err(Stop::Untouched(_)) if !upstream.pooled && onward::may_be_sent_again(&request) => {
                    mute.push(Rc::clone(parent));
                    continue;
                }
                Err(Stop::Untouched(_)) if !upstream.pooled => {
                    state.upstreams.parent_failed(parent, "it gave no answer")
                }
                Err(Stop::Fail(Failure::ParentRejects(_))) => {
                    state.upstreams.parent_failed(parent, "it does not accept this node's credentials");
                }
                Err(_) => {}
                Ok(_) => {
                    parent.served();
                    state.upstreams.were_mute(&mute);
                }
            }
        }
        account.ended.upload += gate.upload.take();
        break match told {
            Ok(Delivered { switched: true, .. }) => {
                break_off(state, room);
                let early = [&request.buf[used..], &gate.behind.take()].concat();
                return tunnel::run(client, account, &upstream.stream, &early).await;
            }
            Ok(delivered) => finish(client, account, request, upstream, &gate, delivered, used),
            Err(stop) => give_up(client, account, &gate, stop, used).await,
        };
    };
    break_off(state, room);
    next
}

/// Whether the origin authenticates the connection, not the request: then it is this client's alone from here on.
fn binds(request: &Request<'_>, delivered: &Delivered) -> bool {
    let said = request.head.field(request.buf, "authorization");
    delivered.binds || said.is_some_and(authenticates_connection)
}

/// The whole answer has been sent.
fn finish(
    client: &Client<'_>,
    account: &mut Account<'_>,
    request: Request<'_>,
    upstream: Upstream,
    gate: &Gate,
    delivered: Delivered,
    used: usize,
) -> Next {
    account.settle_now(Ending::COMPLETE);
    let uploaded = gate.uploaded.get();
    if delivered.reusable && uploaded && !client.state.draining.get() {
        let target = Target { host: request.head.host(), port: request.head.port() };
        upstream.stream.exchange_by(Deadline::NEVER);
        let own = upstream.bound || binds(&request, &delivered);
        // Behind a trusted proxy one connection may stand for many clients: there it is nobody's, and closes.
        if !(own && client.peer.trusted) {
            client.state.upstreams.keep(target, upstream, own.then_some(&client.bound));
        }
    }
    match (delivered.close, uploaded) {
        (false, true) => Next::Again { used, behind: gate.behind.take() },
        // The client said itself that nothing follows.
        (true, true) if !request.head.keep_alive() => Next::Close,
        _ => Next::Linger,
    }
}

/// The answer could not be sent whole, or not at all.
async fn give_up(client: &Client<'_>, account: &mut Account<'_>, gate: &Gate, stop: Stop, used: usize) -> Next {
    // What the upload met first explains what the answer met then.
    let cause = gate.fault.take();
    // Whatever failed after the exchange's total time failed because of it.
    let too_long = client.state.deadlines.passed(account.until);
    if account.is_open() {
        let (ending, cachecode) = match (&cause, &stop) {
            _ if too_long => (Ending::new(By::Local, Phase::Data), CacheCode::Timeout),
            (Some(_), _) => (Ending::new(By::Client, Phase::Data), CacheCode::Aborted),
            (None, Stop::Cut(ending, cachecode, _)) => (*ending, *cachecode),
            (None, Stop::Fail(_) | Stop::Untouched(_)) => (Ending::DROPPED, CacheCode::SystemError),
        };
        account.ended.cachecode = cachecode;
        account.settle(ending);
        let reset = matches!(stop, Stop::Cut(_, _, true)) || cause.is_some() || too_long;
        return if reset { Next::Reset } else { Next::Close };
    }
    let phase = if gate.uploaded.get() { Phase::Headers } else { Phase::Data };
    let failure = match (cause, stop) {
        _ if too_long => Failure::TooLong(phase),
        (Some(failure), _) | (None, Stop::Fail(failure) | Stop::Untouched(failure)) => failure,
        (None, Stop::Cut(..)) => Failure::ClientGone(Phase::Data),
    };
    let reading = if gate.uploaded.get() && gate.behind.borrow().is_empty() && gate.upload.get() == 0 {
        Reading::Whole(used)
    } else {
        Reading::Part
    };
    own::refuse(client, account, failure, reading).await
}

fn break_off(state: &CoreState, room: Room) {
    state.heads.give(room.out);
    state.heads.give(room.replies);
    state.give_reply_head(room.head);
}

/// The memory an exchange works in.
struct Room {
    /// What is sent: the request (kept until an answer begins, in case it must be sent again), then the answer.
    out: Vec<u8>,
    /// What the origin answers: a buffer is taken when it comes.
    replies: Vec<u8>,
    /// What the first receive brought.
    received: Option<io::Result<usize>>,
    head: ReplyHead,
}

impl Room {
    fn new(state: &CoreState) -> Room {
        let (out, head) = (state.heads.take(), state.take_reply_head());
        Room { out, replies: Vec::new(), received: None, head }
    }
}

/// What upload and answer, which run at the same time, tell each other.
struct Gate {
    /// The request's body has been sent whole.
    uploaded: Cell<bool>,
    /// The answer has been sent, or will not be.
    answered: Cell<bool>,
    /// Payload uploaded beyond what came with the head.
    upload: Cell<u64>,
    /// Why the upload ended early.
    fault: Cell<Option<Failure>>,
    /// What came behind the request's body.
    behind: RefCell<Vec<u8>>,
}

impl Gate {
    fn new(uploaded: bool) -> Gate {
        Gate {
            uploaded: Cell::new(uploaded),
            answered: Cell::new(false),
            upload: Cell::new(0),
            fault: Cell::new(None),
            behind: RefCell::default(),
        }
    }
}

/// The answer went out whole.
#[derive(Default)]
struct Delivered {
    /// The origin's connection may be used again.
    reusable: bool,
    /// The client was told that its connection closes.
    close: bool,
    /// Both sides go on in another protocol.
    switched: bool,
    /// The origin asks the client to authenticate the connection.
    binds: bool,
}

/// Why the answer did not go out whole.
enum Stop {
    /// The origin has not answered a single byte.
    Untouched(Failure),
    /// Nothing has been sent to the client.
    Fail(Failure),
    /// Part of the answer has been sent; true if only a reset tells the client so.
    Cut(Ending, CacheCode, bool),
}

/// One attempt at one origin.
struct Delivery<'a> {
    client: &'a Client<'a>,
    request: Request<'a>,
    origin: &'a TcpStream,
    /// Who answers, if it is a parent proxy.
    parent: Option<&'a Parent>,
    gate: &'a Gate,
    switch: bool,
    /// When the exchange is over at the latest.
    until: Deadline,
}

impl Delivery<'_> {
    async fn run(&self, account: &mut Account<'_>, room: &mut Room, body: &mut Body) -> Result<Delivered, Stop> {
        if body.is_whole() {
            self.ask(room).await?;
            return self.answer(account, room).await;
        }
        let within = self.client.state.timeouts().body;
        let (sent, out) = self.origin.send(std::mem::take(&mut room.out), 0, within).await;
        room.out = out;
        sent.map_err(|error| unsent(&error))?;
        let mut uploading = pin!(self.upload(body));
        let mut answering = pin!(self.answer(account, room));
        let (mut uploaded, mut told) = (false, None);
        // Both always run to their ends: an operation must not be dropped while the kernel works on it.
        std::future::poll_fn(|cx| {
            uploaded = uploaded || uploading.as_mut().poll(cx).is_ready();
            if told.is_none()
                && let Poll::Ready(end) = answering.as_mut().poll(cx)
            {
                told = Some(end);
                if !uploaded {
                    self.stop_uploading();
                    uploaded = uploading.as_mut().poll(cx).is_ready();
                }
            }
            match uploaded {
                true => told.take().map_or(Poll::Pending, Poll::Ready),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Sends a whole request and receives the beginning of its answer.
    async fn ask(&self, room: &mut Room) -> Result<(), Stop> {
        let state = self.client.state;
        let deadline = state.deadlines.after(state.timeouts().answer).or_earlier(self.until);
        let (out, replies) = (std::mem::take(&mut room.out), std::mem::take(&mut room.replies));
        let asked = self.origin.ask(out, replies, state.timeouts().body, deadline).await;
        (room.out, room.replies) = (asked.ask, asked.answer);
        // An origin may answer before it has read all, and then close: the answer counts.
        match (asked.sent, &asked.received) {
            (Err(error), Ok(0) | Err(_)) => return Err(unsent(&error)),
            _ => room.received = Some(asked.received),
        }
        Ok(())
    }

    /// The answer is out before the request is in: the client gets a moment to notice.
    fn stop_uploading(&self) {
        let state = self.client.state;
        self.gate.answered.set(true);
        self.origin.end();
        self.client.stream.receive_by(state.deadlines.after(state.timeouts().linger));
    }

    async fn answer(&self, account: &mut Account<'_>, room: &mut Room) -> Result<Delivered, Stop> {
        let head_bytes = self.read_final_head(room).await?;
        let state = self.client.state;
        let status = room.head.status();
        if status == 407
            && let Some(parent) = self.parent
        {
            // It asks us, not the client, who would take it for our question.
            return Err(Stop::Fail(Failure::ParentRejects(parent.name.to_string())));
        }
        let switched = status == 101;
        if switched && !self.may_switch(room) {
            return Err(Stop::Fail(Failure::BadReply(ReplyError::SwitchWithoutUpgrade)));
        }
        let mut body = Body::new(room.head.framing());
        let close = !self.request.head.keep_alive() || state.closes() || !self.gate.uploaded.get();
        let client_version = self.request.head.version();
        room.out.clear();
        let (head, replies, out) = (&room.head, &room.replies, &mut room.out);
        let plan = state.with_date(|date| {
            let keep_upgrade = switched || (status == 426 && self.switch);
            let how = ForwardReply { via: &state.via, client: client_version, close, keep_upgrade, date: Some(date) };
            forward_reply(head, replies, &how, out)
        });
        let first = &room.replies[head_bytes..];
        let taken = if switched {
            room.out.extend_from_slice(first);
            account.ended.download = first.len() as u64;
            first.len()
        } else {
            let taken = body.pass(first, plan.dechunk, &mut room.out);
            let taken = taken.map_err(|error| Stop::Fail(Failure::BadReplyBody(error)))?;
            account.ended.download = taken.payload;
            taken.bytes
        };
        let surplus = taken < first.len();
        account.ended.status = status;
        account.ended.cachecode = if switched { CacheCode::Websocket } else { CacheCode::Miss };
        account.ended.ending = Ending::running(Phase::Data);
        let mime = room.head.field(&room.replies, "content-type").unwrap_or(b"");
        account.open_now(mime).map_err(|_| Stop::Fail(Failure::NoRecord))?;
        // Without a length or chunks of its own, the answer would look whole when the connection closes.
        let by_close = body.ends_by_close() || plan.dechunk;
        let (sent, out) = self.client.stream.send(std::mem::take(&mut room.out), 0, state.timeouts().body).await;
        room.out = out;
        sent.map_err(|error| client_cut(&error, by_close))?;
        let mut clean = !surplus;
        if !body.is_whole() && !switched {
            clean &= self.stream(account, room, &mut body, plan.dechunk, by_close).await?;
        }
        if !self.gate.uploaded.get() {
            // The answer is out before the request is in: the exchange is over, only the connection lingers.
            account.ended.upload += self.gate.upload.take();
            account.settle(Ending::COMPLETE);
        }
        let binds = status == 401 && onward::asks_for_connection(&room.head, &room.replies);
        Ok(Delivered { reusable: clean && room.head.keep_alive(), close: plan.close, switched, binds })
    }

    /// A protocol that policy allowed and the client asked for, by an origin that has the whole request: what stands in the
    /// way of the switched connection then is nothing of HTTP any more.
    fn may_switch(&self, room: &Room) -> bool {
        let asked = |protocol: &str| {
            self.request.head.upgrades(self.request.buf).any(|offered| offered.eq_ignore_ascii_case(protocol))
        };
        self.switch && self.gate.uploaded.get() && room.head.upgrades(&room.replies).all(asked)
    }

    /// Reads up to and with the head of the final reply, passing interim ones on.
    async fn read_final_head(&self, room: &mut Room) -> Result<usize, Stop> {
        let to = self.request.head.reply_to();
        let mut interims = 0;
        room.head.clear();
        loop {
            if !room.replies.is_empty() {
                match parse_reply(&room.replies, to, &mut room.head) {
                    Ok(Parsed::Complete(bytes)) if room.head.is_interim() => {
                        interims += 1;
                        if interims > INTERIM_REPLIES_MAX {
                            return Err(Stop::Fail(Failure::EndlessInterim));
                        }
                        self.pass_interim(room).await?;
                        room.replies.drain(..bytes);
                        continue;
                    }
                    Ok(Parsed::Complete(bytes)) => return Ok(bytes),
                    Ok(Parsed::Partial) => {}
                    Err(error) => return Err(Stop::Fail(Failure::BadReply(error))),
                }
            }
            let received = match room.received.take() {
                Some(received) => received,
                None => self.receive(room).await,
            };
            let untouched = room.replies.is_empty() && interims == 0;
            match received {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(Stop::Fail(Failure::OriginSilent)),
                _ if untouched => return Err(Stop::Untouched(Failure::OriginGone)),
                _ => return Err(Stop::Fail(Failure::ReplyCut)),
            }
        }
    }

    /// Receives more of the answer's head.
    async fn receive(&self, room: &mut Room) -> io::Result<usize> {
        let state = self.client.state;
        let deadline = state.deadlines.after(state.timeouts().answer).or_earlier(self.until);
        // The parser refuses what has reached HEAD_BYTES_MAX, so this ends.
        let (received, replies) = self.origin.recv(std::mem::take(&mut room.replies), deadline, Wait::Later).await;
        room.replies = replies;
        received
    }

    /// HTTP/1.0 knows no interim replies.
    async fn pass_interim(&self, room: &mut Room) -> Result<(), Stop> {
        if self.request.head.version() == Version::Http10 {
            return Ok(());
        }
        let state = self.client.state;
        let mut out = state.heads.take();
        let how = ForwardReply { via: &state.via, ..ForwardReply::default() };
        forward_reply(&room.head, &room.replies, &how, &mut out);
        let (sent, out) = self.client.stream.send(out, 0, state.timeouts().body).await;
        state.heads.give(out);
        sent.map_err(|_| Stop::Fail(Failure::ClientGone(Phase::Headers)))
    }
}

fn unsent(error: &io::Error) -> Stop {
    match error.kind() {
        // It lives, and takes nothing.
        io::ErrorKind::TimedOut => Stop::Fail(Failure::OriginSilent),
        _ => Stop::Untouched(Failure::OriginGone),
    }
}

fn client_cut(error: &io::Error, by_close: bool) -> Stop {
    match error.kind() {
        io::ErrorKind::TimedOut => Stop::Cut(Ending::new(By::ClientTimeout, Phase::Data), CacheCode::Timeout, true),
        _ => Stop::Cut(Ending::new(By::Client, Phase::Data), CacheCode::Aborted, by_close),
    }
}

fn origin_cut(error: Option<io::Error>, by_close: bool) -> Stop {
    match error.map(|error| error.kind()) {
        Some(io::ErrorKind::TimedOut) => {
            Stop::Cut(Ending::new(By::ServerTimeout, Phase::Data), CacheCode::Timeout, by_close)
        }
        _ => Stop::Cut(Ending::new(By::Server, Phase::Data), CacheCode::Aborted, by_close),
    }
}
