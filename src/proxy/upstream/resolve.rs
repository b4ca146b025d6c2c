//! Names to addresses: /etc/hosts, then the name servers of resolv.conf, A and AAAA asked at the same time, each kept as
//! long as its TTL says. What does not exist is kept as long as its zone says (RFC 2308), a failure for a few seconds
//! (RFC 9520). Who asks for a name that is being asked for waits for the same answer.

use super::super::counters::CoreCounters;
use super::OpenError;
use super::system::System;
use crate::base::clock::Mono;
use crate::io;
use crate::limits::DIAL_ADDRESSES_MAX;
use crate::limits::RESOLUTION_DELAY_MS;
use crate::limits::RESOLVER_ABSENT_S_MAX;
use crate::limits::RESOLVER_FAILED_S;
use crate::limits::RESOLVER_FOUND_S_MAX;
use crate::limits::RESOLVER_NAMES_MAX;
use crate::limits::RESOLVER_WORDS_CHARS_MAX;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::DnsError;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::RecordType;
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A core's resolver and what it remembers.
pub(super) struct Resolver {
    system: RefCell<Rc<System>>,
    known: RefCell<Generations>,
    pub(super) within: Cell<Duration>,
    counters: Arc<CoreCounters>,
}

impl Resolver {
    pub(super) fn new(system: System, within_ms: u64, counters: Arc<CoreCounters>) -> Resolver {
        Resolver {
            system: RefCell::new(Rc::new(system)),
            known: RefCell::default(),
            within: Cell::new(Duration::from_millis(within_ms)),
            counters,
        }
    }

    /// The configuration in force.
    pub(super) fn system(&self) -> Rc<System> {
        Rc::clone(&self.system.borrow())
    }

    /// Another configuration: what the old one said is forgotten.
    pub(super) fn follow(&self, system: System) {
        *self.system.borrow_mut() = Rc::new(system);
        self.forget();
    }

    /// Forgets what was answered; says how many names that were. Who waits for an answer still gets it.
    pub(super) fn forget(&self) -> u64 {
        let known = self.known.take();
        (known.young.len() + known.old.len()) as u64
    }

    /// What is known of `host`, which may still be growing. What is not known, or not any more, is being asked.
    pub(super) fn look(&self, host: &str, now: Mono) -> Rc<Lookup> {
        if let Ok(literal) = host.parse() {
            return Rc::new(Lookup::of(&[literal], now));
        }
        let system = self.system();
        if let Some(pinned) = system.pinned(host) {
            return Rc::new(Lookup::of(pinned, now));
        }
        let old = self.known.borrow_mut().get(host);
        if let Some(known) = old.as_ref().filter(|known| known.is_fresh(now)) {
            self.counters.dns_remembered.add(1);
            return Rc::clone(known);
        }
        let lookup = Rc::new(old.map_or_else(Lookup::default, |old| old.what_is_fresh(now)));
        for family in [Family::V6, Family::V4] {
            if matches!(&*lookup.half(family).borrow(), Half::Asking) {
                let question =
                    Question { names: system.names.clone(), host: absolute(host), within: self.within.get() };
                self.counters.dns_questions.add(1);
                io::spawn(ask(Rc::clone(&lookup), family, question, Arc::clone(&self.counters)));
            }
        }
        self.known.borrow_mut().put(host, Rc::clone(&lookup));
        lookup
    }
}

/// A name with a dot is whole: the search list is for the host's own short names, not for a client's typing errors.
fn absolute(host: &str) -> String {
    if host.contains('.') { format!("{host}.") } else { host.to_string() }
}

/// One of the two kinds of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V6,
    V4,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Family {
        if address.is_ipv6() { Family::V6 } else { Family::V4 }
    }
}

/// What is known of one name. Answers arrive while others look at it.
#[derive(Default)]
pub(super) struct Lookup {
    v6: RefCell<Half>,
    v4: RefCell<Half>,
    changed: Notify,
}

/// What is known of a name in one family.
#[derive(Clone, Debug, Default)]
enum Half {
    #[default]
    Asking,
    Found {
        addresses: Vec<IpAddr>,
        until: Mono,
    },
    Absent {
        /// Not of this family only: the name does not exist (RFC 8020).
        name: bool,
        until: Mono,
    },
    Failed {
        why: Why,
        until: Mono,
    },
}

#[derive(Clone, Debug)]
enum Why {
    Silence,
    Words(String),
}

impl Lookup {
    /// Addresses nobody has to be asked for.
    fn of(addresses: &[IpAddr], now: Mono) -> Lookup {
        let until = later(now, RESOLVER_FOUND_S_MAX);
        let half = |family| {
            let addresses: Vec<IpAddr> = addresses.iter().copied().filter(|a| Family::of(*a) == family).collect();
            RefCell::new(match addresses.is_empty() {
                true => Half::Absent { name: false, until },
                false => Half::Found { addresses, until },
            })
        };
        Lookup { v6: half(Family::V6), v4: half(Family::V4), changed: Notify::new() }
    }

    /// Waits until there is an address to begin with. Where IPv4 is first, IPv6 gets its moment (RFC 8305 section 3). It
    /// ends, because each question does.
    pub(super) async fn ready(&self) -> Result<(), OpenError> {
        let mut delay = None;
        loop {
            // Made before looking, so that no change is missed.
            let changed = self.changed.notified();
            if self.is_settled() {
                return self.verdict();
            }
            if self.has(Family::V6) {
                return Ok(());
            }
            if !self.has(Family::V4) {
                changed.await;
                continue;
            }
            let until =
                delay.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(RESOLUTION_DELAY_MS))));
            tokio::select! {
                () = changed => {}
                () = until.as_mut() => return Ok(()),
            }
        }
    }

    /// Waits until both families have answered.
    pub(super) async fn settled(&self) -> Result<(), OpenError> {
        loop {
            let changed = self.changed.notified();
            if self.is_settled() {
                return self.verdict();
            }
            changed.await;
        }
    }

    /// Hears of the next change after this call.
    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Whether nothing more will be learnt.
    pub(super) fn is_settled(&self) -> bool {
        [&self.v6, &self.v4].iter().all(|half| !matches!(&*half.borrow(), Half::Asking))
    }

    /// The addresses of one family, in the order the name servers gave them.
    pub(super) fn addresses(&self, family: Family) -> Vec<IpAddr> {
        match &*self.half(family).borrow() {
            Half::Found { addresses, .. } => addresses.clone(),
            _ => Vec::new(),
        }
    }

    /// How long it may be believed that this address is the name's, from `now` on; nothing if it is not.
    pub(super) fn believed(&self, address: IpAddr, now: Mono) -> Option<Duration> {
        match &*self.half(Family::of(address)).borrow() {
            Half::Found { addresses, until } if addresses.contains(&address) => {
                Some(until.0.saturating_duration_since(now.0))
            }
            _ => None,
        }
    }

    /// What a lookup without a single address means.
    pub(super) fn verdict(&self) -> Result<(), OpenError> {
        let halves = [&self.v6, &self.v4].map(|half| half.borrow().clone());
        if halves.iter().any(|half| matches!(half, Half::Found { .. })) {
            return Ok(());
        }
        if halves.iter().any(|half| matches!(half, Half::Absent { name: true, .. })) {
            return Err(OpenError::NoSuchHost);
        }
        let why = halves.into_iter().find_map(|half| match half {
            Half::Failed { why, .. } => Some(why),
            _ => None,
        });
        Err(match why {
            None => OpenError::NoSuchHost,
            Some(Why::Silence) => OpenError::ResolveTimeout,
            Some(Why::Words(words)) => OpenError::Resolve(words),
        })
    }

    fn half(&self, family: Family) -> &RefCell<Half> {
        match family {
            Family::V6 => &self.v6,
            Family::V4 => &self.v4,
        }
    }

    fn has(&self, family: Family) -> bool {
        matches!(&*self.half(family).borrow(), Half::Found { .. })
    }

    fn learn(&self, family: Family, half: Half) {
        *self.half(family).borrow_mut() = half;
        self.changed.notify_waiters();
    }

    fn is_fresh(&self, now: Mono) -> bool {
        self.v6.borrow().is_fresh(now) && self.v4.borrow().is_fresh(now)
    }

    fn what_is_fresh(&self, now: Mono) -> Lookup {
        let half = |half: &RefCell<Half>| match &*half.borrow() {
            // Who asks will tell the other lookup.
            Half::Asking => Half::Asking,
            half if half.is_fresh(now) => half.clone(),
            _ => Half::Asking,
        };
        Lookup { v6: RefCell::new(half(&self.v6)), v4: RefCell::new(half(&self.v4)), changed: Notify::new() }
    }
}

impl Half {
    fn is_fresh(&self, now: Mono) -> bool {
        match self {
            Half::Asking => true,
            Half::Found { until, .. } | Half::Absent { until, .. } | Half::Failed { until, .. } => now < *until,
        }
    }
}

/// What is asked, of whom, and for how long.
struct Question {
    names: Option<TokioResolver>,
    host: String,
    within: Duration,
}

/// Asks for the addresses of one family and puts the answer in. It always puts one in, in time.
async fn ask(lookup: Rc<Lookup>, family: Family, question: Question, counters: Arc<CoreCounters>) {
    let Question { names, host, within } = question;
    let kind = match family {
        Family::V6 => RecordType::AAAA,
        Family::V4 => RecordType::A,
    };
    let Some(names) = names else {
        let words = "this node has no name server: /etc/resolv.conf names none".to_string();
        counters.dns_failures.add(1);
        return lookup.learn(family, Half::Failed { why: Why::Words(words), until: Mono::now() });
    };
    let answer = tokio::time::timeout(within, names.lookup(host, kind)).await;
    let now = Mono::now();
    let failed = |why| Half::Failed { why, until: later(now, RESOLVER_FAILED_S) };
    let half = match answer {
        Err(_) | Ok(Err(NetError::Timeout)) => failed(Why::Silence),
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
            // Without its zone's word, an absence is not kept (RFC 2308 section 5).
            let seconds = u64::from(none.negative_ttl.unwrap_or(0)).min(RESOLVER_ABSENT_S_MAX);
            Half::Absent { name: none.response_code == ResponseCode::NXDomain, until: later(now, seconds) }
        }
        Ok(Err(error)) => failed(Why::Words(error.to_string().chars().take(RESOLVER_WORDS_CHARS_MAX).collect())),
        Ok(Ok(found)) => half_of(found.answers(), family, Mono(found.valid_until()), now),
    };
    if matches!(half, Half::Failed { .. }) {
        counters.dns_failures.add(1);
    }
    lookup.learn(family, half);
}

/// What a name server's answer says of the family that was asked for: few addresses, and not for long.
fn half_of(answers: &[Record], family: Family, valid_until: Mono, now: Mono) -> Half {
    let addresses: Vec<IpAddr> = answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        // Nobody asked for others.
        .filter(|address| Family::of(*address) == family)
        .take(DIAL_ADDRESSES_MAX)
        .collect();
    match addresses.is_empty() {
        true => Half::Absent { name: false, until: now },
        false => Half::Found { addresses, until: valid_until.min(later(now, RESOLVER_FOUND_S_MAX)) },
    }
}

/// What is taken from the bytes of an answer, and for how many seconds it is believed; `None` if they are no message. For fuzzing.
pub fn addresses_in(answer: &[u8], v6: bool) -> Option<(Vec<IpAddr>, u64)> {
    let message = Message::from_vec(answer).ok()?;
    let now = Mono::now();
    let ttl = message.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
    let family = if v6 { Family::V6 } else { Family::V4 };
    match half_of(&message.answers, family, later(now, ttl.into()), now) {
        Half::Found { addresses, until } => Some((addresses, until.0.duration_since(now.0).as_secs())),
        _ => Some((Vec::new(), 0)),
    }
}

fn later(now: Mono, seconds: u64) -> Mono {
    Mono(now.0 + Duration::from_secs(seconds))
}

/// What is remembered, in two generations: the young one takes what is used; when it is full, it becomes the old one, and
/// what nobody has used for so long is gone. Bounded, without a search for what to throw away.
#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, Rc<Lookup>>,
    old: HashMap<Box<str>, Rc<Lookup>>,
}

impl Generations {
    fn get(&mut self, host: &str) -> Option<Rc<Lookup>> {
        if let Some(known) = self.young.get(host) {
            return Some(Rc::clone(known));
        }
        let known = self.old.remove(host)?;
        self.put(host, Rc::clone(&known));
        Some(known)
    }

    fn put(&mut self, host: &str, lookup: Rc<Lookup>) {
        if let Some(known) = self.young.get_mut(host) {
            *known = lookup;
            return;
        }
        if self.young.len() >= RESOLVER_NAMES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(host.into(), lookup);
    }
}

#[cfg(test)]
impl Resolver {
    /// How many names it remembers.
    pub(super) fn names(&self) -> usize {
        let known = self.known.borrow();
        known.young.len() + known.old.len()
    }
}

#[cfg(test)]
impl Lookup {
    /// A lookup that knows `addresses` and nothing else.
    pub(super) fn known(addresses: &[IpAddr]) -> Lookup {
        Lookup::of(addresses, Mono::now())
    }

    /// A lookup that knows `addresses` and is still asking for the other family.
    pub(super) fn growing(addresses: &[IpAddr]) -> Lookup {
        let lookup = Lookup::known(addresses);
        for half in [&lookup.v6, &lookup.v4] {
            if matches!(&*half.borrow(), Half::Absent { .. }) {
                half.replace(Half::Asking);
            }
        }
        lookup
    }

    /// The other family's answer has come.
    pub(super) fn grow(&self, addresses: &[IpAddr]) {
        let until = later(Mono::now(), 60);
        self.learn(Family::of(addresses[0]), Half::Found { addresses: addresses.to_vec(), until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let mut known = Generations::default();
        let now = Mono::now();
        let lookup = || Rc::new(Lookup::of(&[IpAddr::from([192, 0, 2, 1])], now));
        known.put("used.test", lookup());
        for number in 0..3 * RESOLVER_NAMES_MAX {
            known.put(&format!("{number}.test"), lookup());
            assert!(known.young.len() + known.old.len() <= RESOLVER_NAMES_MAX);
            if number % 100 == 0 {
                assert!(known.get("used.test").is_some(), "after {number} others");
            }
        }
        assert!(known.get("0.test").is_none());
    }

    #[test]
    fn a_lookup_is_asked_again_in_the_family_that_has_grown_old() {
        let now = Mono::now();
        let soon = later(now, 5);
        let lookup = Lookup::of(&[IpAddr::from([192, 0, 2, 1])], now);
        *lookup.v6.borrow_mut() = Half::Absent { name: false, until: soon };
        assert!(lookup.is_fresh(now) && !lookup.is_fresh(soon));
        let next = lookup.what_is_fresh(soon);
        assert!(matches!(&*next.v6.borrow(), Half::Asking) && next.has(Family::V4));
        assert_eq!(
            lookup.believed(IpAddr::from([192, 0, 2, 1]), soon).map(|d| d.as_secs()),
            Some(RESOLVER_FOUND_S_MAX - 5)
        );
        assert_eq!(lookup.believed(IpAddr::from([192, 0, 2, 2]), soon), None);
    }

    #[test]
    fn what_failed_and_what_is_absent_are_told_apart() {
        let now = Mono::now();
        let absent = |name| Half::Absent { name, until: now };
        let failed = |why| Half::Failed { why, until: now };
        let found = || Half::Found { addresses: vec![IpAddr::from([192, 0, 2, 1])], until: now };
        let table = [
            (absent(false), absent(false), "NoSuchHost"),
            (failed(Why::Silence), absent(true), "NoSuchHost"),
            (failed(Why::Silence), absent(false), "ResolveTimeout"),
            (absent(false), failed(Why::Words("broken".into())), "Resolve(\"broken\")"),
            (failed(Why::Words("broken".into())), found(), "found"),
        ];
        for (v6, v4, expected) in table {
            let lookup = Lookup { v6: RefCell::new(v6), v4: RefCell::new(v4), changed: Notify::new() };
            let said = lookup.verdict().map_or_else(|error| format!("{error:?}"), |()| "found".to_string());
            assert_eq!(said, expected);
        }
    }
}
