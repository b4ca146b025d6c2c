//! The one table of figures.

use super::BLAMES;
use super::Figures;
use super::SECTIONS;

/// How a figure moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from zero at the node's start.
    Counter,
    /// It is as it is now.
    Gauge,
}

/// What a figure is measured in, by what stands in [`Figures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Whole seconds.
    Seconds,
    /// Microseconds there, seconds in what is shown.
    Micros,
    /// Thousandths there, whole ones in what is shown.
    Thousandths,
}

/// One figure; all of one name stand together and have one kind, unit and help.
#[derive(Debug)]
pub struct Figure {
    /// Its name as Prometheus knows it.
    pub name: &'static str,
    /// What tells figures of one name apart: (label, value).
    pub label: Option<(&'static str, &'static str)>,
    /// How it moves.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// Its value.
    pub of: fn(&Figures) -> u64,
}

const fn counter(name: &'static str, unit: Unit, help: &'static str, of: fn(&Figures) -> u64) -> Figure {
    Figure { name, label: None, kind: Kind::Counter, unit, help, of }
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str, of: fn(&Figures) -> u64) -> Figure {
    Figure { name, label: None, kind: Kind::Gauge, unit, help, of }
}

const fn denial<const SECTION: usize>() -> Figure {
    Figure {
        name: "tidegate_denials_total",
        label: Some(("section", SECTIONS[SECTION].0)),
        kind: Kind::Counter,
        unit: Unit::Count,
        help: "Exchanges the node refused, by the section of the policy or the part of the node that did.",
        of: |figures| figures.denials[SECTION],
    }
}

const fn failure<const BLAME: usize>() -> Figure {
    Figure {
        name: "tidegate_failures_total",
        label: Some(("blame", BLAMES[BLAME].0)),
        kind: Kind::Counter,
        unit: Unit::Count,
        help: "Exchanges that an error ended, by whose it was (time: the exchange took longer than TOTAL_TIME or the like; \
               resource: the node had no room).",
        of: |figures| figures.failures[BLAME],
    }
}

const fn transfer(direction: &'static str, of: fn(&Figures) -> u64) -> Figure {
    Figure {
        name: "tidegate_transferred_bytes_total",
        label: Some(("direction", direction)),
        kind: Kind::Counter,
        unit: Unit::Bytes,
        help: "Payload of ended exchanges and tunnels: up from clients, down to them.",
        of,
    }
}

/// Every figure, in the order of the text and of performance.log's columns.
pub const TABLE: &[Figure] = &[
    counter("tidegate_connections_total", Unit::Count, "Client connections accepted.", |f| f.connections),
    gauge("tidegate_connections_open", Unit::Count, "Client connections open now.", |f| f.connections_open),
    counter(
        "tidegate_connections_shed_total",
        Unit::Count,
        "Client connections turned away because there were too many.",
        |f| f.shed,
    ),
    counter(
        "tidegate_connections_client_limited_total",
        Unit::Count,
        "Of those turned away: because there were too many of one client address.",
        |f| f.client_limited,
    ),
    counter(
        "tidegate_proxy_headers_refused_total",
        Unit::Count,
        "Connections closed for their PROXY header, or for want of one.",
        |f| f.proxy_header_refused,
    ),
    counter(
        "tidegate_accept_exhausted_total",
        Unit::Count,
        "Times a core could not accept for want of descriptors or memory.",
        |f| f.exhausted,
    ),
    counter("tidegate_exchanges_total", Unit::Count, "Exchanges (requests, tunnels) ended.", |f| f.exchanges),
    gauge("tidegate_tunnels_open", Unit::Count, "Tunnels open now.", |f| f.tunnels_open),
    transfer("up", |f| f.upload),
    transfer("down", |f| f.download),
    denial::<0>(),
    denial::<1>(),
    denial::<2>(),
    denial::<3>(),
    denial::<4>(),
    denial::<5>(),
    denial::<6>(),
    denial::<7>(),
    denial::<8>(),
    failure::<0>(),
    failure::<1>(),
    failure::<2>(),
    failure::<3>(),
    failure::<4>(),
    failure::<5>(),
    failure::<6>(),
    failure::<7>(),
    counter(
        "tidegate_connect_failures_total",
        Unit::Count,
        "Of the exchanges that an error ended: before there was a connection to an origin or parent (names that do not resolve included).",
        |f| f.connect_failed,
    ),
    counter(
        "tidegate_answers_5xx_total",
        Unit::Count,
        "Exchanges answered with a status from 500 to 599, by an origin, a parent or the node itself.",
        |f| f.answered_5xx,
    ),
    counter(
        "tidegate_upstream_connects_total",
        Unit::Count,
        "Connections the node began to origins and parent proxies.",
        |f| f.upstream_connects,
    ),
    counter(
        "tidegate_upstream_reused_total",
        Unit::Count,
        "Times an idle connection of the pool was used instead of a new one.",
        |f| f.upstream_reused,
    ),
    gauge(
        "tidegate_upstream_idle_connections",
        Unit::Count,
        "Idle connections in the pools, as the last sweep of them found.",
        |f| f.upstream_idle,
    ),
    counter("tidegate_dns_questions_total", Unit::Count, "Questions asked of name servers (A and AAAA each).", |f| {
        f.dns_questions
    }),
    counter(
        "tidegate_dns_remembered_total",
        Unit::Count,
        "Names answered without a question: from what a core remembers, or with a question already under way.",
        |f| f.dns_remembered,
    ),
    counter(
        "tidegate_dns_failures_total",
        Unit::Count,
        "Questions that had no answer in time or got an error; a name that does not exist is none.",
        |f| f.dns_failures,
    ),
    gauge(
        "tidegate_sockets_open",
        Unit::Count,
        "Sockets the data cores hold: to clients and to origins, idle ones included.",
        |f| f.sockets,
    ),
    gauge(
        "tidegate_ring_operations",
        Unit::Count,
        "Operations the kernel has under way for the data cores' rings.",
        |f| f.operations,
    ),
    gauge("tidegate_cores", Unit::Count, "Data cores.", |f| f.cores),
    counter(
        "tidegate_core_sweeps_total",
        Unit::Count,
        "Turns of the data cores' own clocks, of all cores together: falls behind where a core is held up.",
        |f| f.sweeps,
    ),
    gauge(
        "tidegate_records_written",
        Unit::Count,
        "The highest number of a record in extended.log; it outlives restarts.",
        |f| f.records_written,
    ),
    gauge(
        "tidegate_records_waiting",
        Unit::Count,
        "Records of ended exchanges that the log's writer has not taken yet.",
        |f| f.records_waiting,
    ),
    gauge(
        "tidegate_records_acknowledged",
        Unit::Count,
        "The highest number of a record that the master (or the node's own report store) has stored.",
        |f| f.records_acknowledged,
    ),
    counter(
        "tidegate_records_refused_total",
        Unit::Count,
        "Requests refused because no record of them could be opened: the spool was full.",
        |f| f.records_refused,
    ),
    counter(
        "tidegate_exchanges_unrecorded_total",
        Unit::Count,
        "Exchanges that went on without a record because none could be opened (LOG_FULL=count).",
        |f| f.exchanges_unrecorded,
    ),
    gauge("tidegate_record_slots", Unit::Count, "Slots of the record spools.", |f| f.record_slots),
    gauge(
        "tidegate_record_slots_free",
        Unit::Count,
        "Of these, free: the rest hold open exchanges, or records that wait for the log's writer.",
        |f| f.record_slots_free,
    ),
    gauge("tidegate_policy_version", Unit::Count, "The version of the policy in force; 0 is none.", |f| {
        f.policy_version
    }),
    gauge("tidegate_draining", Unit::Count, "1 while the node is being taken out of service.", |f| f.draining),
    counter("process_cpu_seconds_total", Unit::Micros, "CPU time the daemon used, user and system.", |f| f.cpu_us),
    gauge("process_resident_memory_bytes", Unit::Bytes, "Memory of the daemon that is in RAM.", |f| f.resident_bytes),
    gauge("process_open_fds", Unit::Count, "Descriptors the daemon has open.", |f| f.descriptors),
    gauge("process_max_fds", Unit::Count, "Descriptors it may have open.", |f| f.descriptors_max),
    gauge("process_start_time_seconds", Unit::Seconds, "When the daemon started, in seconds since 1970.", |f| {
        f.start_s
    }),
    gauge("tidegate_host_memory_bytes", Unit::Bytes, "RAM of the host.", |f| f.host_memory_bytes),
    gauge("tidegate_host_memory_available_bytes", Unit::Bytes, "RAM that programs could still get.", |f| {
        f.host_memory_available_bytes
    }),
    gauge("tidegate_host_load1", Unit::Thousandths, "Load average of the host over one minute.", |f| f.host_load_milli),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_follow_the_conventions_and_families_stand_together() {
        let mut ended: Vec<&str> = Vec::new();
        for (index, figure) in TABLE.iter().enumerate() {
            let name = figure.name;
            assert_eq!(name.ends_with("_total"), figure.kind == Kind::Counter, "{name}: counters end in _total");
            let stem = name.trim_end_matches("_total");
            assert_eq!(stem.ends_with("_bytes"), figure.unit == Unit::Bytes, "{name}");
            assert_eq!(stem.ends_with("_seconds"), matches!(figure.unit, Unit::Seconds | Unit::Micros), "{name}");
            assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
            assert!(figure.help.ends_with('.') && !figure.help.contains(['\n', '\\']), "{name}");
            let before = index.checked_sub(1).map(|index| &TABLE[index]);
            if before.is_some_and(|before| before.name == name) {
                let before = before.unwrap();
                assert_eq!((before.help, before.kind, before.unit), (figure.help, figure.kind, figure.unit), "{name}");
                assert!(before.label.is_some() && before.label != figure.label, "{name}");
            } else {
                assert!(!ended.contains(&name), "{name} stands in two places");
                ended.push(name);
            }
        }
    }

    #[test]
    fn every_section_and_every_blame_has_its_row() {
        let values = |name: &str| -> Vec<&str> {
            TABLE.iter().filter(|figure| figure.name == name).filter_map(|figure| Some(figure.label?.1)).collect()
        };
        assert_eq!(values("tidegate_denials_total"), SECTIONS.map(|(label, _)| label));
        assert_eq!(values("tidegate_failures_total"), BLAMES.map(|(label, _)| label));
    }
}
