//! What a core counts: one writer, any number of readers, no locked instruction.

use crate::figures::BLAMES;
use crate::figures::SECTIONS;
use std::ops::Add;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// The counters of one core, on cache lines of their own. Only that core writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreCounters {
    /// Sweeps of its table of deadlines.
    pub(super) turns: Counter,
    /// By which snapshot it decides: no count, but as cheap to tell.
    pub(super) enforces: Counter,
    pub(super) connections: Counter,
    pub(super) connections_open: Counter,
    pub(super) shed: Counter,
    pub(super) shedding: Counter,
    pub(super) client_limited: Counter,
    pub(super) proxy_header_refused: Counter,
    pub(super) sockets: Counter,
    pub(super) operations: Counter,
    pub(super) exhausted: Counter,
    pub(super) exchanges: Counter,
    pub(super) denied: Counter,
    pub(super) failed: Counter,
    pub(super) connect_failed: Counter,
    pub(super) answered_5xx: Counter,
    pub(super) unrecorded: Counter,
    pub(super) only_counted: Counter,
    pub(super) tunnels_open: Counter,
    pub(super) upload: Counter,
    pub(super) download: Counter,
    pub(super) upstream_connects: Counter,
    pub(super) upstream_reused: Counter,
    pub(super) upstream_idle: Counter,
    pub(super) dns_questions: Counter,
    pub(super) dns_remembered: Counter,
    pub(super) dns_failures: Counter,
    pub(super) record_slots: Counter,
    pub(super) record_slots_free: Counter,
    /// Of `denied`, by section of the policy.
    pub(super) denials: [Counter; SECTIONS.len()],
    /// Of `failed`, by whose fault.
    pub(super) failures: [Counter; BLAMES.len()],
}

/// A moment's copy of the counters; sums over cores with `+`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTotals {
    /// Client connections accepted.
    pub connections: u64,
    /// Client connections open now.
    pub connections_open: u64,
    /// Client connections turned away because there were too many.
    pub shed: u64,
    /// Of these, because there were too many of one client address.
    pub client_limited: u64,
    /// Connections closed for their PROXY header, or for want of one.
    pub proxy_header_refused: u64,
    /// Sockets in the core's table of deadlines, as the last sweep found them.
    pub sockets: u64,
    /// Operations under way in the core's ring, as the last sweep found them.
    pub operations: u64,
    /// Times a core could not accept for want of descriptors or memory.
    pub exhausted: u64,
    /// Exchanges ended.
    pub exchanges: u64,
    /// Of these, refused by policy.
    pub denied: u64,
    /// Of these, ended by an error of client, upstream or node.
    pub failed: u64,
    /// Of these, before there was a connection to an origin or parent.
    pub connect_failed: u64,
    /// Exchanges answered with 500 to 599, by whomever.
    pub answered_5xx: u64,
    /// Requests refused because no record of them could be opened. They are in no log; nothing was served.
    pub unrecorded: u64,
    /// Exchanges that went on without a record because none could be opened: the log tells how many, and when.
    pub only_counted: u64,
    /// Tunnels open now.
    pub tunnels_open: u64,
    /// Payload bytes client to server.
    pub upload: u64,
    /// Payload bytes server to client.
    pub download: u64,
    /// Connections made to origins.
    pub upstream_connects: u64,
    /// Times an idle connection to an origin was used again.
    pub upstream_reused: u64,
    /// Idle connections to origins, as the last sweep of the pool found them.
    pub upstream_idle: u64,
    /// Questions asked of name servers.
    pub dns_questions: u64,
    /// Names that needed no question.
    pub dns_remembered: u64,
    /// Questions without an answer.
    pub dns_failures: u64,
    /// Slots of the record spool.
    pub record_slots: u64,
    /// Of these, free as the last sweep of the pool found them.
    pub record_slots_free: u64,
    /// Of `denied`, by section: see [`SECTIONS`].
    pub denials: [u64; SECTIONS.len()],
    /// Of `failed`, by whose fault: see [`BLAMES`].
    pub failures: [u64; BLAMES.len()],
    /// Sweeps of the core's table of deadlines.
    pub turns: u64,
}

impl CoreCounters {
    /// What they show now. Each is exact; together they are a moment's blur.
    pub fn totals(&self) -> CoreTotals {
        CoreTotals {
            connections: self.connections.get(),
            connections_open: self.connections_open.get(),
            shed: self.shed.get(),
            client_limited: self.client_limited.get(),
            proxy_header_refused: self.proxy_header_refused.get(),
            sockets: self.sockets.get(),
            operations: self.operations.get(),
            exhausted: self.exhausted.get(),
            exchanges: self.exchanges.get(),
            denied: self.denied.get(),
            failed: self.failed.get(),
            connect_failed: self.connect_failed.get(),
            answered_5xx: self.answered_5xx.get(),
            unrecorded: self.unrecorded.get(),
            only_counted: self.only_counted.get(),
            tunnels_open: self.tunnels_open.get(),
            upload: self.upload.get(),
            download: self.download.get(),
            upstream_connects: self.upstream_connects.get(),
            upstream_reused: self.upstream_reused.get(),
            upstream_idle: self.upstream_idle.get(),
            dns_questions: self.dns_questions.get(),
            dns_remembered: self.dns_remembered.get(),
            dns_failures: self.dns_failures.get(),
            record_slots: self.record_slots.get(),
            record_slots_free: self.record_slots_free.get(),
            denials: self.denials.each_ref().map(Counter::get),
            failures: self.failures.each_ref().map(Counter::get),
            turns: self.turns.get(),
        }
    }
}

impl Add for CoreTotals {
    type Output = CoreTotals;

    fn add(self, other: CoreTotals) -> CoreTotals {
        CoreTotals {
            connections: self.connections + other.connections,
            connections_open: self.connections_open + other.connections_open,
            shed: self.shed + other.shed,
            client_limited: self.client_limited + other.client_limited,
            proxy_header_refused: self.proxy_header_refused + other.proxy_header_refused,
            sockets: self.sockets + other.sockets,
            operations: self.operations + other.operations,
            exhausted: self.exhausted + other.exhausted,
            exchanges: self.exchanges + other.exchanges,
            denied: self.denied + other.denied,
            failed: self.failed + other.failed,
            connect_failed: self.connect_failed + other.connect_failed,
            answered_5xx: self.answered_5xx + other.answered_5xx,
            unrecorded: self.unrecorded + other.unrecorded,
            only_counted: self.only_counted + other.only_counted,
            tunnels_open: self.tunnels_open + other.tunnels_open,
            upload: self.upload + other.upload,
            download: self.download + other.download,
            upstream_connects: self.upstream_connects + other.upstream_connects,
            upstream_reused: self.upstream_reused + other.upstream_reused,
            upstream_idle: self.upstream_idle + other.upstream_idle,
            dns_questions: self.dns_questions + other.dns_questions,
            dns_remembered: self.dns_remembered + other.dns_remembered,
            dns_failures: self.dns_failures + other.dns_failures,
            record_slots: self.record_slots + other.record_slots,
            record_slots_free: self.record_slots_free + other.record_slots_free,
            denials: std::array::from_fn(|at| self.denials[at] + other.denials[at]),
            failures: std::array::from_fn(|at| self.failures[at] + other.failures[at]),
            turns: self.turns + other.turns,
        }
    }
}

/// A number with one writer: an ordinary load and store, never a locked add.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn sub(&self, count: u64) {
        self.0.store(self.get().wrapping_sub(count), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
