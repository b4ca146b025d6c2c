//! Figures as Prometheus reads them: its text format, version 0.0.4.

use super::Figure;
use super::Figures;
use super::Kind;
use super::TABLE;
use super::Unit;
use std::fmt::Write;

/// The media type of [`exposition`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All figures, and which program says so: `version` and `role` are words without quotes or line ends.
pub fn exposition(figures: &Figures, version: &str, role: &str) -> String {
    let mut text = String::with_capacity(8 * 1024);
    let mut before = "";
    for figure in TABLE {
        if figure.name != before {
            before = figure.name;
            announce(&mut text, figure.name, figure.help, figure.kind);
        }
        let value = shown(figure, figures);
        let _ = match figure.label {
            Some((label, name)) => writeln!(text, "{}{{{label}=\"{name}\"}} {value}", figure.name),
            None => writeln!(text, "{} {value}", figure.name),
        };
    }
    let clean = |words: &str| words.replace(['"', '\\', '\n'], "");
    announce(&mut text, "tidegate_build_info", "Always 1; its labels say which Tidegate this is.", Kind::Gauge);
    let _ = writeln!(text, "tidegate_build_info{{version=\"{}\",role=\"{}\"}} 1", clean(version), clean(role));
    text
}

/// What a node knows of a node of its cluster, itself included.
#[derive(Clone, Copy, Debug)]
pub struct NodeFigures<'n> {
    /// NODE_NAME.
    pub node: &'n str,
    /// Whether it enforces something else than it should.
    pub drifts: bool,
    /// How many of its records were stored.
    pub stored: u64,
    /// How many are missing though later ones came.
    pub missing: u64,
    /// How many are in its extended.log and not stored yet.
    pub lag: u64,
}

/// Adds what a node knows of the nodes of its cluster (a master: all of them).
pub fn add_nodes(text: &mut String, nodes: &[NodeFigures]) {
    for (name, help, of) in PER_NODE {
        announce(text, name, help, Kind::Gauge);
        for node in nodes {
            let _ = writeln!(text, "{name}{{node=\"{}\"}} {}", node.node, of(node));
        }
    }
}

type PerNode = (&'static str, &'static str, fn(&NodeFigures) -> u64);

const PER_NODE: [PerNode; 4] = [
    (
        "tidegate_node_drift",
        "1 if the node enforces something else than the policy of the cluster: why stands on the Nodes page.",
        |node| u64::from(node.drifts),
    ),
    ("tidegate_node_records_stored", "Records of the node that the report's store has received.", |node| node.stored),
    (
        "tidegate_node_records_missing",
        "Records of the node that never came though later ones did: which stand on its page.",
        |node| node.missing,
    ),
    ("tidegate_node_records_lag", "Records in the node's extended.log that are not stored yet.", |node| node.lag),
];

fn announce(text: &mut String, name: &str, help: &str, kind: Kind) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", word(kind));
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    }
}

/// The value in the unit that is shown.
pub fn shown(figure: &Figure, figures: &Figures) -> String {
    let value = (figure.of)(figures);
    match figure.unit {
        Unit::Count | Unit::Bytes | Unit::Seconds => value.to_string(),
        Unit::Micros => format!("{}.{:06}", value / 1_000_000, value % 1_000_000),
        Unit::Thousandths => format!("{}.{:03}", value / 1_000, value % 1_000),
    }
}

/// The table of docs/metrics.md.
pub fn reference() -> String {
    let mut text =
        "| name | kind | labels | column of performance.log | what it says |\n|---|---|---|---|---|\n".to_string();
    let mut at = 0;
    while let Some(figure) = TABLE.get(at) {
        let family: Vec<&Figure> = TABLE[at..].iter().take_while(|other| other.name == figure.name).collect();
        at += family.len();
        let labels: Vec<String> = family.iter().filter_map(|one| Some(format!("`{}`", one.label?.1))).collect();
        let labels = figure.label.map(|(label, _)| format!("`{label}`: {}", labels.join(", "))).unwrap_or_default();
        let columns: Vec<String> = family.iter().map(|one| format!("`{}`", super::line::column(one))).collect();
        let (name, kind, help) = (figure.name, word(figure.kind), figure.help);
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {} | {help} |", columns.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_loads_are_shown_as_such() {
        let figures = Figures { cpu_us: 61_000_042, host_load_milli: 1_250, upload: 7, ..Figures::default() };
        let text = exposition(&figures, "1\"\n", "slave");
        for line in [
            "process_cpu_seconds_total 61.000042",
            "tidegate_host_load1 1.250",
            "tidegate_transferred_bytes_total{direction=\"up\"} 7",
            "# TYPE tidegate_connections_open gauge",
            "tidegate_build_info{version=\"1\",role=\"slave\"} 1",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE tidegate_denials_total").count(), 1);
    }
}
