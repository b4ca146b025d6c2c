//! The master's memory of its slaves, sans-IO: who may come in, who is here, who was refused and why.
//!
//! ```text
//!            KeyMismatch | VersionMismatch | NotOnAllowList | NameTaken --> refused (remembered for its page)
//!           /
//! caller --hello--> session --poll, poll, records, poll ...--> silence --> down (row stays)
//!                      ^----------------- hello (a new session replaces the old one) <---'
//! ```

use crate::base::clock::Wall;
use crate::cluster::Counters;
use crate::cluster::Enforced;
use crate::cluster::NodeRow;
use crate::cluster::Offer;
use crate::cluster::RecordAccount;
use crate::cluster::Refusal;
use crate::cluster::drift;
use crate::cluster::protocol::Build;
use crate::cluster::protocol::Hello;
use crate::cluster::protocol::Poll;
use crate::cluster::protocol::synctime;
use crate::figures::Figures;
use crate::limits::CLOCK_SKEW_WARN_MS;
use crate::limits::CLUSTER_NAME_HELD_MS;
use crate::limits::CLUSTER_NODES_MAX;
use crate::limits::CLUSTER_REFUSED_MAX;
use crate::limits::CLUSTER_REFUSED_SHOWN_MS;
use crate::record::Epoch;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

/// The slaves of one master. Bounded: see `limits`.
pub struct Roster {
    build: Build,
    master: String,
    nodes: BTreeMap<String, Node>,
    /// Which node a session is: asked with every request.
    sessions: HashMap<String, String>,
    refused: VecDeque<Refused>,
}

struct Node {
    hello: Hello,
    fingerprint: String,
    former_until: Option<Wall>,
    epoch: Epoch,
    session: String,
    address: IpAddr,
    last_contact: Wall,
    polls_open: usize,
    skew_us: i64,
    written: u64,
    stored: u64,
    snapshot: String,
    error: String,
    counters: Counters,
    figures: Figures,
    enforced: Enforced,
    offer: Offer,
    labels: Vec<String>,
}

struct Refused {
    address: IpAddr,
    node: String,
    version: String,
    why: Refusal,
    at: Wall,
}

/// Who a request of a session comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node's name.
    pub node: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// The fingerprint of its own key.
    pub fingerprint: String,
    /// How long its polls are held.
    pub synctime_ms: u64,
}

/// A node that introduces itself.
pub struct Newcomer<'a> {
    /// What it says.
    pub hello: &'a Hello,
    /// Where it comes from.
    pub address: IpAddr,
    /// Whether its certificate bears the name it gives.
    pub proven: bool,
    /// Whether policy lets its address join.
    pub allowed: bool,
    /// The fingerprint of its own key, by its certificate.
    pub fingerprint: String,
    /// The end of the activation key it holds, if that is the former one.
    pub former_until: Option<Wall>,
}

impl Roster {
    /// An empty one for the master of this name and build.
    pub fn new(master: &str, build: Build) -> Self {
        Roster {
            build,
            master: master.to_string(),
            nodes: BTreeMap::new(),
            sessions: HashMap::new(),
            refused: VecDeque::new(),
        }
    }

    /// A node introduces itself. If nothing speaks against it, its requests come under `session`; an older session of its ends.
    pub fn hello(&mut self, newcomer: &Newcomer, session: String, now: Wall) -> Result<(), Refusal> {
        match self.refusal(newcomer, now) {
            Some(why) => Err(why),
            None => {
                self.let_in(newcomer, session, now);
                Ok(())
            }
        }
    }

    /// What speaks against a node, but for what `store::members` knows of its name and key.
    pub fn refusal(&self, newcomer: &Newcomer, now: Wall) -> Option<Refusal> {
        let Newcomer { hello, address, proven, allowed, .. } = newcomer;
        let taken = |holder: String| Some(Refusal::NameTaken { name: hello.node.clone(), holder });
        let holder = self.nodes.get(&key(&hello.node));
        match holder {
            _ if !proven => Some(Refusal::KeyMismatch),
            _ if self.build != hello.build => Build::refusal(&self.build, &hello.build),
            _ if !allowed => Some(Refusal::NotOnAllowList { address: address.to_string() }),
            _ if key(&hello.node) == key(&self.master) => taken("the master itself".to_string()),
            Some(node) if node.hello.epoch != hello.epoch && node.holds_its_name(now) => {
                taken(node.address.to_string())
            }
            _ => None,
        }
    }

    fn let_in(&mut self, newcomer: &Newcomer, session: String, now: Wall) {
        let (hello, from) = (newcomer.hello, newcomer.address);
        self.refused.retain(|refused| key(&refused.node) != key(&hello.node) || refused.address != from);
        let before = self.take(&hello.node);
        let known = before.filter(|node| node.hello.epoch == hello.epoch);
        if self.nodes.len() >= CLUSTER_NODES_MAX {
            let oldest = self.nodes.iter().min_by_key(|(_, node)| node.last_contact).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.take(&name));
        }
        self.sessions.insert(session.clone(), key(&hello.node));
        let node = Node {
            epoch: Epoch::parse(&hello.epoch).unwrap_or(Epoch([0; 16])),
            hello: hello.clone(),
            fingerprint: newcomer.fingerprint.clone(),
            former_until: newcomer.former_until,
            session,
            address: from,
            last_contact: now,
            polls_open: 0,
            skew_us: hello.clock_us.saturating_sub(now.0),
            written: known.as_ref().map_or(0, |node| node.written),
            stored: known.as_ref().map_or(0, |node| node.stored),
            snapshot: hello.snapshot.clone(),
            error: String::new(),
            figures: known.as_ref().map(|node| node.figures.clone()).unwrap_or_default(),
            enforced: known.as_ref().map(|node| node.enforced.clone()).unwrap_or_default(),
            labels: known.as_ref().map(|node| node.labels.clone()).unwrap_or_default(),
            counters: known.map(|node| node.counters).unwrap_or_default(),
            offer: hello.offer.clone(),
        };
        self.nodes.insert(key(&hello.node), node);
    }

    /// The caller that `session` was given to; absent if there is no such session (it must say hello again).
    pub fn caller(&mut self, session: &str, now: Wall) -> Option<Caller> {
        let node = self.node_of(session)?;
        node.last_contact = now;
        Some(Caller {
            node: node.hello.node.clone(),
            epoch: node.epoch,
            fingerprint: node.fingerprint.clone(),
            synctime_ms: synctime(node.hello.synctime_ms),
        })
    }

    /// A poll begins: the node says how it is.
    pub fn poll_begins(&mut self, session: &str, poll: &Poll) {
        let Some(node) = self.node_of(session) else { return };
        node.polls_open += 1;
        node.skew_us = poll.skew_us;
        node.written = node.written.max(poll.written);
        node.snapshot = poll.snapshot.clone();
        node.error = poll.error.clone();
        node.counters = poll.counters.clone();
        node.figures = poll.figures.clone();
        node.enforced = poll.enforced.clone();
        node.offer = poll.offer.clone();
        node.labels = poll.labels.clone();
    }

    /// A poll was answered, or its connection broke.
    pub fn poll_ends(&mut self, session: &str, answered: bool, now: Wall) {
        let Some(node) = self.node_of(session) else { return };
        node.polls_open = node.polls_open.saturating_sub(1);
        if answered {
            node.last_contact = now;
        }
    }

    /// Records of the node are stored up to `stored`; it has written up to `written`.
    pub fn stored(&mut self, session: &str, stored: u64, written: u64) {
        let Some(node) = self.node_of(session) else { return };
        node.stored = node.stored.max(stored);
        node.written = node.written.max(written).max(stored);
    }

    /// A caller was refused: remembered for the page. Answers whether that is news, and not the same as last time.
    pub fn remember_refused(&mut self, address: IpAddr, node: &str, version: &str, why: Refusal, now: Wall) -> bool {
        self.forget_old(now);
        let same = |known: &Refused| known.address == address && key(&known.node) == key(node);
        let news = !self.refused.iter().any(|known| same(known) && known.why == why);
        self.refused.retain(|known| !same(known));
        if self.refused.len() >= CLUSTER_REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(Refused { address, node: node.to_string(), version: version.to_string(), why, at: now });
        news
    }

    /// Ends a session; its node must say hello again.
    pub fn end(&mut self, session: &str) {
        if let Some(name) = self.sessions.remove(session)
            && let Some(node) = self.nodes.get_mut(&name).filter(|node| node.session == session)
        {
            node.session.clear();
        }
    }

    /// Forgets a node: its session ends, and it is not shown any more.
    pub fn forget(&mut self, name: &str) {
        self.take(name);
    }

    /// All slaves, then all refused callers of the last minute. `current` is the name of the policy they are to enforce, `effect` its effect.
    pub fn rows(&mut self, current: &str, effect: &str, now: Wall) -> Vec<NodeRow> {
        self.forget_old(now);
        let mut rows: Vec<NodeRow> = self.nodes.values().map(|node| node.row(current, effect, now)).collect();
        for refused in &self.refused {
            let same = rows.iter_mut().find(|row| {
                !refused.node.is_empty()
                    && key(&row.name) == key(&refused.node)
                    && row.address == refused.address.to_string()
            });
            match same {
                Some(row) => row.refusal = refused.why.words(),
                None => rows.push(refused.row()),
            }
        }
        rows
    }

    fn take(&mut self, name: &str) -> Option<Node> {
        let node = self.nodes.remove(&key(name))?;
        self.sessions.remove(&node.session);
        Some(node)
    }

    fn node_of(&mut self, session: &str) -> Option<&mut Node> {
        // A session that a newer one of its node has replaced is none.
        self.nodes.get_mut(self.sessions.get(session)?).filter(|node| node.session == session)
    }

    fn forget_old(&mut self, now: Wall) {
        self.refused.retain(|refused| ms_between(refused.at, now) < CLUSTER_REFUSED_SHOWN_MS);
    }
}

impl Node {
    fn holds_its_name(&self, now: Wall) -> bool {
        self.polls_open > 0 && self.is_up(now) || ms_between(self.last_contact, now) < CLUSTER_NAME_HELD_MS
    }

    fn is_up(&self, now: Wall) -> bool {
        ms_between(self.last_contact, now) < 2 * synctime(self.hello.synctime_ms)
    }

    fn row(&self, current: &str, effect: &str, now: Wall) -> NodeRow {
        NodeRow {
            name: self.hello.node.clone(),
            role: self.hello.role.clone(),
            address: self.address.to_string(),
            fingerprint: self.fingerprint.clone(),
            former_key_until_us: self.former_until.map_or(0, |until| until.0),
            version: self.hello.build.version.clone(),
            snapshot: self.snapshot.clone(),
            current: self.snapshot == current,
            last_contact_us: self.last_contact.0,
            up: self.is_up(now),
            record_lag: self.written.saturating_sub(self.stored),
            records: RecordAccount { written: self.written, ..RecordAccount::default() },
            clock_skew_ms: self.skew_us / 1_000,
            refusal: String::new(),
            error: self.error_and_more(now),
            counters: self.counters.clone(),
            offer: self.offer.clone(),
            figures: self.figures.clone(),
            drift: drift::words(&self.enforced, &self.snapshot, current, effect),
            labels: self.labels.clone(),
        }
    }

    /// What the node said is wrong with it, and what its master sees.
    fn error_and_more(&self, now: Wall) -> String {
        let former = self.former_until.map(|until| former_key_words(until, now)).unwrap_or_default();
        let words = [self.error.clone(), skew_words(self.skew_us / 1_000), former];
        words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl Refused {
    fn row(&self) -> NodeRow {
        NodeRow {
            name: self.node.clone(),
            role: "slave".to_string(),
            address: self.address.to_string(),
            fingerprint: String::new(),
            former_key_until_us: 0,
            version: self.version.clone(),
            snapshot: String::new(),
            current: false,
            last_contact_us: self.at.0,
            up: false,
            record_lag: 0,
            records: RecordAccount::default(),
            clock_skew_ms: 0,
            refusal: self.why.words(),
            error: String::new(),
            counters: Counters::default(),
            offer: Offer::default(),
            figures: Figures::default(),
            drift: String::new(),
            labels: Vec::new(),
        }
    }
}

/// The warning both sides give when their clocks are too far apart; empty if they are not.
pub fn skew_words(skew_ms: i64) -> String {
    if skew_ms.unsigned_abs() <= CLOCK_SKEW_WARN_MS.unsigned_abs() {
        return String::new();
    }
    let (by, way) = (skew_ms.unsigned_abs(), if skew_ms > 0 { "ahead of" } else { "behind" });
    format!("ClockSkew: the slave's clock is {by} ms {way} the master's. Let NTP set the clocks of both nodes.")
}

/// What a master says of a slave that holds the former activation key.
fn former_key_words(until: Wall, now: Wall) -> String {
    let hours = (until.seconds() - now.seconds()).max(0) / 3_600;
    format!(
        "FormerKey: it still holds the former activation key, which counts for {hours} h more. Copy the key file from the master to this \
         slave (mode 0600) and restart it."
    )
}

/// Node names are compared as host names are: without regard to case.
fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn ms_between(earlier: Wall, later: Wall) -> u64 {
    later.0.saturating_sub(earlier.0).max(0) as u64 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Wall = Wall(1_800_000_000_000_000);
    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn later(ms: u64) -> Wall {
        Wall(T0.0 + ms as i64 * 1_000)
    }

    fn hello(node: &str, epoch: u8) -> Hello {
        Hello {
            build: Build::this(),
            node: node.into(),
            role: "slave".into(),
            epoch: Epoch([epoch; 16]).to_string(),
            clock_us: T0.0,
            snapshot: "1-aaaaaaaaaaaa".into(),
            offer: Offer::default(),
            synctime_ms: 60_000,
        }
    }

    fn comes(hello: &Hello, address: IpAddr) -> Newcomer<'_> {
        Newcomer { hello, address, proven: true, allowed: true, fingerprint: "aa".into(), former_until: None }
    }

    fn roster() -> Roster {
        Roster::new("m", Build::this())
    }

    #[test]
    fn refusals_come_in_the_order_in_which_their_remedies_help() {
        let other = Build { version: "9.9.9".into(), ..Build::this() };
        let versions = Refusal::VersionMismatch { master: Build::this().version, slave: "9.9.9".into() };
        let not_allowed = Refusal::NotOnAllowList { address: A.to_string() };
        let master = Refusal::NameTaken { name: "M".into(), holder: "the master itself".into() };
        for (name, build, proven, allowed, expected) in [
            ("s1", Build::this(), true, true, None),
            ("s1", other.clone(), false, false, Some(Refusal::KeyMismatch)),
            ("s1", other, true, false, Some(versions)),
            ("M", Build::this(), true, false, Some(not_allowed)),
            ("M", Build::this(), true, true, Some(master)),
        ] {
            let hello = Hello { build, ..hello(name, 1) };
            let mut roster = roster();
            let said = roster.hello(&Newcomer { proven, allowed, ..comes(&hello, A) }, "x".into(), T0).err();
            assert_eq!(said, expected, "{name}");
            if let Some(why) = said {
                assert!(roster.remember_refused(A, name, "", why.clone(), T0));
                assert!(!roster.remember_refused(A, name, "", why, T0), "the same refusal again is no news");
            }
            let rows = roster.rows("", "", T0);
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].refusal, expected.map(|why| why.words()).unwrap_or_default());
        }
    }

    #[test]
    fn a_name_is_held_while_its_node_lives_and_free_soon_after() {
        let mut roster = roster();
        roster.hello(&comes(&hello("s1", 1), A), "one".into(), T0).unwrap();
        let taken = Refusal::NameTaken { name: "S1".into(), holder: A.to_string() };
        assert_eq!(roster.hello(&comes(&hello("S1", 2), B), "two".into(), T0), Err(taken));
        roster.hello(&comes(&hello("s1", 1), B), "moved".into(), T0).unwrap();
        assert_eq!(roster.caller("one", T0), None, "the node's newer session ends the older");

        roster.poll_begins("moved", &Poll::default());
        let in_poll = later(CLUSTER_NAME_HELD_MS);
        assert!(roster.hello(&comes(&hello("s1", 2), A), "two".into(), in_poll).is_err(), "a poll is open");
        roster.poll_ends("moved", false, in_poll);
        roster.hello(&comes(&hello("s1", 2), A), "two".into(), in_poll).unwrap();
    }

    #[test]
    fn a_refused_caller_is_shown_for_a_while_and_forgotten_when_it_gets_in() {
        let mut roster = roster();
        roster.remember_refused(A, "", "", Refusal::KeyMismatch, T0);
        let why = roster.hello(&Newcomer { allowed: false, ..comes(&hello("s1", 1), A) }, "x".into(), T0).unwrap_err();
        roster.remember_refused(A, "s1", "", why, T0);
        assert_eq!(roster.rows("", "", T0).len(), 2);
        roster.hello(&comes(&hello("s1", 1), A), "x".into(), T0).unwrap();
        let rows = roster.rows("", "", T0);
        assert_eq!(rows.iter().map(|row| row.refusal.is_empty()).collect::<Vec<_>>(), [true, false]);
        assert_eq!(roster.rows("", "", later(CLUSTER_REFUSED_SHOWN_MS)).len(), 1);
    }

    #[test]
    fn a_row_tells_lag_skew_error_and_whether_the_node_is_up() {
        let mut roster = roster();
        roster.hello(&comes(&hello("s1", 1), A), "x".into(), T0).unwrap();
        let said = Poll {
            skew_us: 3_000_000,
            written: 10,
            snapshot: "2-b".into(),
            error: "disk full.".into(),
            enforced: Enforced { effect: "cc".into(), own_sections: vec!["pac".into()], ..Enforced::default() },
            ..Poll::default()
        };
        roster.poll_begins("x", &said);
        roster.stored("x", 4, 12);
        let row = roster.rows("2-b", "bb", T0).remove(0);
        assert_eq!((row.record_lag, row.clock_skew_ms, row.current, row.up), (8, 3_000, true, true));
        assert!(row.drift.contains("pac (its NEVER_SYNC)"), "{}", row.drift);
        assert!(row.error.starts_with("disk full. ClockSkew: the slave's clock is 3000 ms ahead"), "{}", row.error);
        assert!(roster.rows("2-b", "bb", later(119_999))[0].up);
        assert!(!roster.rows("2-b", "bb", later(120_000))[0].up);
    }

    #[test]
    fn the_roster_stays_within_its_bounds() {
        let mut roster = roster();
        for i in 0..CLUSTER_NODES_MAX + 10 {
            roster.hello(&comes(&hello(&format!("s{i}"), 1), A), format!("{i}"), later(i as u64)).unwrap();
        }
        for i in 0..CLUSTER_REFUSED_MAX as u32 + 10 {
            roster.remember_refused(IpAddr::V4(i.into()), "", "", Refusal::KeyMismatch, T0);
        }
        assert_eq!(roster.rows("", "", T0).len(), CLUSTER_NODES_MAX + CLUSTER_REFUSED_MAX);
        assert_eq!(roster.caller("0", T0), None, "the node silent for longest went");
    }
}
