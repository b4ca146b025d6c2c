//! Collects the node's figures: sums of what the cores count, and a few files of /proc. Nobody on the data path waits for it.

use super::desk::NodeFacts;
use super::drain::Drain;
use super::publish::Publisher;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::figures::Figures;
use crate::log::Progress;
use crate::log::in_flight::InFlight;
use crate::proxy::CoreTotals;
use crate::sys::process;
use std::sync::Arc;
use tokio::sync::watch;

/// Where figures come from.
pub struct Gauges {
    /// The cores.
    pub publisher: Arc<Publisher>,
    /// How far extended.log is.
    pub progress: watch::Receiver<Progress>,
    /// What is on its way there.
    pub in_flight: InFlight,
    /// Highest record the master (or the local store) has acknowledged.
    pub acknowledged: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether the node is being taken out of service.
    pub drain: Arc<Drain>,
    /// What the node is.
    pub facts: NodeFacts,
}

impl Gauges {
    /// The node's figures now.
    pub fn read(&self) -> Figures {
        let (host_memory_bytes, host_memory_available_bytes) = process::host_memory();
        let up_us = Mono::now().micros_since(self.facts.started) as i64;
        Figures {
            start_s: (Wall::now().0.saturating_sub(up_us).max(0) / 1_000_000) as u64,
            cores: self.facts.cores as u64,
            records_written: self.progress.borrow().written,
            records_waiting: self.in_flight.waiting(),
            records_acknowledged: (self.acknowledged)(),
            policy_version: self.publisher.current().version(),
            draining: u64::from(self.drain.standing().is_some()),
            cpu_us: process::cpu_us(),
            resident_bytes: process::resident_bytes(),
            descriptors: process::open_descriptors(),
            descriptors_max: process::descriptors_max(),
            host_memory_bytes,
            host_memory_available_bytes,
            host_load_milli: process::load_milli(),
            ..of_cores(self.publisher.totals())
        }
    }
}

fn of_cores(totals: CoreTotals) -> Figures {
    Figures {
        connections: totals.connections,
        connections_open: totals.connections_open,
        shed: totals.shed,
        client_limited: totals.client_limited,
        proxy_header_refused: totals.proxy_header_refused,
        exhausted: totals.exhausted,
        exchanges: totals.exchanges,
        tunnels_open: totals.tunnels_open,
        upload: totals.upload,
        download: totals.download,
        denials: totals.denials,
        failures: totals.failures,
        connect_failed: totals.connect_failed,
        answered_5xx: totals.answered_5xx,
        upstream_connects: totals.upstream_connects,
        upstream_reused: totals.upstream_reused,
        upstream_idle: totals.upstream_idle,
        dns_questions: totals.dns_questions,
        dns_remembered: totals.dns_remembered,
        dns_failures: totals.dns_failures,
        sockets: totals.sockets,
        operations: totals.operations,
        sweeps: totals.turns,
        records_refused: totals.unrecorded,
        exchanges_unrecorded: totals.only_counted,
        record_slots: totals.record_slots,
        record_slots_free: totals.record_slots_free,
        ..Figures::default()
    }
}
