//! Parent proxies: the ways of a snapshot, which parents are up, and how a connection through one is made.
//!
//! A parent that fails is down: nobody is sent to it, and it is looked at again by itself (a TCP connection, less often each
//! time) until it accepts. It is the same parent in the next snapshot, so a swap forgets nothing.

use super::OpenError;
use super::Target;
use super::Upstreams;
use super::credentials::Login;
use super::dial::DialError;
use super::dial::Source;
use super::socks;
use crate::base::clock::Mono;
use crate::io;
use crate::io::Deadline;
use crate::io::TcpStream;
use crate::io::Wait;
use crate::limits::PARENT_ANSWER_BYTES_MAX;
use crate::limits::PARENT_LOOK_MS;
use crate::limits::PARENT_LOOK_MS_MAX;
use crate::policy::ParentProxy;
use crate::policy::Snapshot;
use crate::wire::http1::Parsed;
use crate::wire::http1::ReplyHead;
use crate::wire::http1::ReplyTo;
use crate::wire::http1::parse_reply;
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::rc::Weak;
use std::time::Duration;

/// The ways of one snapshot on one core, by the number of the route.
#[derive(Default)]
pub(in super::super) struct Ways(Vec<Way>);

/// Where a route leads.
pub(super) struct Way {
    /// Tells its direct connections from those of other ways in the pool.
    pub(super) id: u32,
    pub(super) source: Source,
    pub(super) group: Option<Group>,
}

/// Parents of which one is used.
pub(super) struct Group {
    pub(super) name: Rc<str>,
    pub(super) direct_if_down: bool,
    by_hash: bool,
    parents: Vec<Rc<Parent>>,
}

/// A parent proxy, and how it does.
pub(in super::super) struct Parent {
    /// Tells its connections from others in the pool.
    pub(super) id: u32,
    pub(super) proxy: ParentProxy,
    source: Source,
    /// `host:port`, for records and words.
    pub(in super::super) name: Rc<str>,
    down: Cell<bool>,
    /// Failures since it last served.
    failures: Cell<u32>,
}

/// What makes a parent another one: what the policy says of it, and the addresses to leave from.
type Key = (ParentProxy, Vec<IpAddr>);

/// The parents of one core, and the numbers of its ways.
#[derive(Default)]
pub(super) struct Parents {
    known: RefCell<HashMap<Key, Weak<Parent>>>,
    direct: RefCell<HashMap<Vec<IpAddr>, u32>>,
    last_id: Cell<u32>,
}

/// Why a parent did not serve.
pub(super) enum Fault {
    /// It is at fault: the next one is asked.
    Down(String),
    /// It ended the connection instead of answering. The next one is asked; whether this one or the question is at fault
    /// shows there.
    Mute,
    /// It works; this is its answer, or what became of the request.
    Final(OpenError),
}

/// A connection through a parent: what is sent on it now goes where it leads.
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    /// What came behind the parent's answer: the first bytes of who is at the other end.
    pub(super) early: Vec<u8>,
}

impl Ways {
    pub(super) fn of(&self, route: Option<usize>) -> Option<&Way> {
        self.0.get(route?)
    }
}

impl Parents {
    /// The ways of `snapshot`. Parents that other snapshots have too are the same.
    pub(super) fn ways(&self, snapshot: &Snapshot) -> Ways {
        let groups = snapshot.parent_groups();
        self.known.borrow_mut().retain(|_, parent| parent.strong_count() > 0);
        let mut direct = HashMap::new();
        let ways = snapshot.routes().into_iter().map(|to| {
            let id = *direct.entry(to.source.clone()).or_insert_with(|| match self.direct.borrow().get(&to.source) {
                Some(known) => *known,
                None if to.source.is_empty() => 0,
                None => self.new_id(),
            });
            let source: Source = (!to.source.is_empty()).then(|| to.source.clone().into());
            let group = to.group.and_then(|number| groups.get(number)).map(|group| Group {
                name: group.name.as_str().into(),
                direct_if_down: group.direct_if_down,
                by_hash: group.by_hash,
                parents: group.proxies.iter().map(|proxy| self.parent(proxy, &to.source, &source)).collect(),
            });
            Way { id, source, group }
        });
        let ways = Ways(ways.collect());
        *self.direct.borrow_mut() = direct;
        ways
    }

    /// The files of credentials that any parent needs.
    pub(super) fn files(&self) -> Vec<String> {
        let known = self.known.borrow();
        let alive =
            known.iter().filter(|((proxy, _), parent)| !proxy.credentials.is_empty() && parent.strong_count() > 0);
        let mut files: Vec<String> = alive.map(|((proxy, _), _)| proxy.credentials.clone()).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    fn parent(&self, proxy: &ParentProxy, addresses: &[IpAddr], source: &Source) -> Rc<Parent> {
        let key = (proxy.clone(), addresses.to_vec());
        if let Some(known) = self.known.borrow().get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let name = match proxy.host.contains(':') {
            true => format!("[{}]:{}", proxy.host, proxy.port),
            false => format!("{}:{}", proxy.host, proxy.port),
        };
        let parent = Rc::new(Parent {
            id: self.new_id(),
            proxy: proxy.clone(),
            source: source.clone(),
            name: name.into(),
            down: Cell::new(false),
            failures: Cell::new(0),
        });
        self.known.borrow_mut().insert(key, Rc::downgrade(&parent));
        parent
    }

    fn new_id(&self) -> u32 {
        self.last_id.set(self.last_id.get().wrapping_add(1).max(1));
        self.last_id.get()
    }
}

impl Group {
    /// The parents that are up, in the order to ask them for `host`.
    pub(super) fn candidates(&self, host: &str) -> Vec<Rc<Parent>> {
        let mut up: Vec<Rc<Parent>> = self.parents.iter().filter(|parent| !parent.down.get()).map(Rc::clone).collect();
        if self.by_hash {
            // The highest weight wins: a host keeps its parent while others come and go.
            up.sort_by_key(|parent| std::cmp::Reverse(weight(host, &parent.name)));
        }
        up
    }
}

fn weight(host: &str, parent: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (host, parent).hash(&mut hasher);
    hasher.finish()
}

impl Parent {
    /// Whether it takes requests in absolute form; otherwise its connections lead to the origin.
    pub(in super::super) fn takes_requests(&self) -> bool {
        !self.proxy.socks
    }

    /// It serves.
    pub(in super::super) fn served(&self) {
        self.failures.set(0);
    }
}

impl Upstreams {
    /// Connects to the parent, for requests in absolute form.
    pub(super) async fn connect_parent(&self, parent: &Parent) -> Result<Connected, Fault> {
        self.login(parent)?;
        let lookup = self.resolver.look(&parent.proxy.host, Mono::now());
        lookup.ready().await.map_err(|error| Fault::Down(error.to_string()))?;
        self.counters.upstream_connects.add(1);
        // The administrator named it: it may be anywhere, also on this host.
        let dialled = self.dialer.dial(&lookup, parent.proxy.port, &parent.source, |_| true).await;
        match dialled {
            Ok((stream, address)) => Ok(Connected { stream, address, early: Vec::new() }),
            Err(DialError::Source(address)) => Err(Fault::Final(OpenError::Source(address))),
            Err(DialError::Nowhere) => Err(Fault::Down("it has no address that can be used".to_string())),
            Err(DialError::Failed(address, error)) => Err(Fault::Down(OpenError::Connect(address, error).to_string())),
        }
    }

    /// Connects through an HTTP parent with CONNECT.
    pub(super) async fn connect_through(&self, parent: &Parent, target: Target<'_>) -> Result<Connected, Fault> {
        let mut connected = self.connect_parent(parent).await?;
        let authority = match target.host.contains(':') {
            true => format!("[{}]:{}", target.host, target.port),
            false => format!("{}:{}", target.host, target.port),
        };
        let authorization =
            self.authorization(parent)?.map_or(String::new(), |value| format!("Proxy-Authorization: {value}\r\n"));
        let via = &self.via;
        let ask = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}Via: 1.1 {via}\r\n\r\n");
        self.tell(&connected.stream, ask.into_bytes()).await?;
        let mut buf = Vec::with_capacity(1024);
        let deadline = self.deadlines.after(self.timeouts.get().answer);
        let status = loop {
            buf = self.hear(&connected.stream, buf, deadline).await.map_err(|fault| patience(fault, parent))?;
            if let Some(status) = final_status(&mut buf)? {
                break status;
            }
        };
        match status {
            200..300 => {
                parent.served();
                connected.early = buf;
                Ok(connected)
            }
            407 => Err(Fault::Down(REJECTED.to_string())),
            status => {
                parent.served();
                Err(refused(parent, &format!("it answered {status}")))
            }
        }
    }

    /// Connects through a SOCKS5 parent.
    pub(super) async fn connect_socks(
        &self,
        parent: &Parent,
        target: Target<'_>,
        addresses: &[IpAddr],
    ) -> Result<Connected, Fault> {
        let by_name = [socks::Destination::Name(target.host)];
        let by_address: Vec<_> = addresses.iter().map(|address| socks::Destination::Address(*address)).collect();
        let destinations = if by_address.is_empty() { &by_name[..] } else { &by_address[..] };
        let mut code = 1;
        for destination in destinations {
            let mut connected = self.connect_parent(parent).await?;
            let early = self.socks_hello(parent, &connected.stream).await?;
            self.tell(&connected.stream, socks::request(*destination, target.port)).await?;
            let by = self.deadlines.after(self.timeouts.get().answer);
            let (said, early) = self
                .converse(&connected.stream, early, by, socks::reply)
                .await
                .map_err(|fault| patience(fault, parent))?;
            parent.served();
            if said == 0 {
                connected.early = early;
                return Ok(connected);
            }
            code = said;
            // Only these may differ with another address of the same name.
            if !matches!(code, 3 | 4 | 5 | 6 | 8) {
                break;
            }
        }
        Err(refused(parent, socks::words(code)))
    }

    async fn socks_hello(&self, parent: &Parent, stream: &TcpStream) -> Result<Vec<u8>, Fault> {
        let login = self.login(parent)?;
        let by = self.deadlines.after(self.timeouts.get().connect);
        self.tell(stream, socks::greeting(login.as_deref())).await?;
        let greeted = self.converse(stream, Vec::with_capacity(512), by, socks::method).await;
        // No client has a word in this.
        let mute = |fault| if let Fault::Mute = fault { Fault::Down(NO_ANSWER.to_string()) } else { fault };
        let (method, early) = greeted.map_err(mute)?;
        match (method, login) {
            (socks::Method::Nothing, None) => Ok(early),
            (socks::Method::Login, Some(login)) => {
                self.tell(stream, socks::login(&login)).await?;
                Ok(self.converse(stream, early, by, socks::logged_in).await.map_err(mute)?.1)
            }
            // It chose what we did not offer.
            _ => Err(Fault::Down("it does not keep to SOCKS5 (RFC 1928)".to_string())),
        }
    }

    /// Reads until `read` understands; answers that and what came behind it.
    async fn converse<T>(
        &self,
        stream: &TcpStream,
        mut buf: Vec<u8>,
        by: Deadline,
        read: impl Fn(&[u8]) -> Result<socks::Answer<T>, socks::Fault>,
    ) -> Result<(T, Vec<u8>), Fault> {
        loop {
            match read(&buf) {
                Ok(socks::Answer::Whole(said, bytes)) => {
                    buf.drain(..bytes);
                    return Ok((said, buf));
                }
                Ok(socks::Answer::Partial) => {}
                Err(socks::Fault::NotSocks) => return Err(Fault::Down("it does not speak SOCKS5".to_string())),
                Err(socks::Fault::NoMethod) => {
                    return Err(Fault::Down("it wants another way of authentication (its `credentials`?)".to_string()));
                }
                Err(socks::Fault::Rejected) => return Err(Fault::Down(REJECTED.to_string())),
            }
            buf = self.hear(stream, buf, by).await?;
        }
    }

    async fn tell(&self, stream: &TcpStream, bytes: Vec<u8>) -> Result<(), Fault> {
        let (sent, _) = stream.send(bytes, 0, self.timeouts.get().connect).await;
        sent.map_err(|error| Fault::Down(format!("it closed the connection: {error}")))
    }

    async fn hear(&self, stream: &TcpStream, mut buf: Vec<u8>, by: Deadline) -> Result<Vec<u8>, Fault> {
        if buf.len() >= PARENT_ANSWER_BYTES_MAX {
            return Err(Fault::Down("its answer has no end".to_string()));
        }
        buf.reserve(512);
        let (received, buf) = stream.recv(buf, by, Wait::Later).await;
        match received {
            Ok(count) if count > 0 => Ok(buf),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(Fault::Down(SILENT.to_string())),
            _ => Err(Fault::Mute),
        }
    }

    /// The login a parent needs; nothing if it needs none.
    fn login(&self, parent: &Parent) -> Result<Option<Rc<Login>>, Fault> {
        let name = &parent.proxy.credentials;
        if name.is_empty() {
            return Ok(None);
        }
        match self.logins.borrow().get(name) {
            Some(Ok(login)) => Ok(Some(Rc::clone(login))),
            Some(Err(words)) => Err(Fault::Down(words.to_string())),
            None => Err(Fault::Down(format!("its credentials `{name}` have not been read yet"))),
        }
    }

    /// The value of Proxy-Authorization for a parent; nothing if it needs none.
    pub(super) fn authorization(&self, parent: &Parent) -> Result<Option<String>, Fault> {
        Ok(self.login(parent)?.map(|login| login.basic()))
    }

    /// These gave no answer where another one did: they are at fault, not what they were asked.
    pub(in super::super) fn were_mute(self: &Rc<Self>, parents: &[Rc<Parent>]) {
        parents.iter().for_each(|parent| self.parent_failed(parent, NO_ANSWER));
    }

    /// The parent failed: nobody is sent to it until it accepts connections again.
    pub(in super::super) fn parent_failed(self: &Rc<Self>, parent: &Rc<Parent>, why: &str) {
        parent.failures.set(parent.failures.get().saturating_add(1));
        if parent.down.replace(true) {
            return;
        }
        tracing::warn!(event = "parent-down", parent = %parent.name, "parent proxy {} is down: {why}; it is looked at again by itself", parent.name);
        io::spawn(look_again(Rc::downgrade(self), Rc::downgrade(parent)));
    }
}

/// Looks at a parent that is down until it accepts. What became of a login or of its manners shows at its next use.
async fn look_again(upstreams: Weak<Upstreams>, parent: Weak<Parent>) {
    loop {
        let Some(failures) = parent.upgrade().map(|parent| parent.failures.get()) else { return };
        let wait = PARENT_LOOK_MS << failures.saturating_sub(1).min(16);
        tokio::time::sleep(Duration::from_millis(wait.min(PARENT_LOOK_MS_MAX))).await;
        let (Some(upstreams), Some(parent)) = (upstreams.upgrade(), parent.upgrade()) else { return };
        if upstreams.ended.get() {
            return;
        }
        match upstreams.connect_parent(&parent).await {
            Ok(_) => {
                tracing::info!(event = "parent-up", parent = %parent.name, "parent proxy {} accepts connections again", parent.name);
                return parent.down.set(false);
            }
            Err(_) => parent.failures.set(parent.failures.get().saturating_add(1)),
        }
    }
}

/// The status of the final answer to a CONNECT, if `buf` has it whole; what is behind it stays in `buf`.
fn final_status(buf: &mut Vec<u8>) -> Result<Option<u16>, Fault> {
    loop {
        let mut head = ReplyHead::new();
        match parse_reply(buf, ReplyTo::Connect, &mut head) {
            Ok(Parsed::Complete(bytes)) => {
                buf.drain(..bytes);
                if !head.is_interim() {
                    return Ok(Some(head.status()));
                }
            }
            Ok(Parsed::Partial) => return Ok(None),
            Err(error) => return Err(Fault::Down(format!("it does not answer as a proxy: {error}"))),
        }
    }
}

const NO_ANSWER: &str = "it closed the connection without an answer";
const REJECTED: &str = "it does not accept this node's credentials";
const SILENT: &str = "it does not answer in time";

fn refused(parent: &Parent, words: &str) -> Fault {
    Fault::Final(OpenError::ParentRefused(Rc::clone(&parent.name), words.to_string()))
}

/// A parent that has taken our question and is silent may be waiting for a site that is: nobody else is asked the same.
fn patience(fault: Fault, parent: &Parent) -> Fault {
    match fault {
        Fault::Down(words) if words == SILENT => Fault::Final(OpenError::ParentSilent(Rc::clone(&parent.name))),
        fault => fault,
    }
}
