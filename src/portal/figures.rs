//! Figures over a day as small charts: of one node (`/nodes/node?name=NODE`), and of all of them on the Nodes page.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::base::clock::Wall;
use crate::base::words::bytes;
use crate::cluster::NodeRow;
use crate::figures::Point;
use crate::figures::TABLE;
use crate::figures::shown;
use crate::limits::HISTORY_STEP_S;
use crate::portal::chart;
use crate::portal::chart::Chart;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use crate::portal::words;
use crate::portal::words::Moment;
use crate::report::Gap;
use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;

#[derive(Template)]
#[template(path = "node.html")]
struct NodePage {
    shell: Shell,
    name: String,
    role: String,
    up: bool,
    /// What the master knows its key by; empty for this node itself.
    fingerprint: String,
    /// Absent for a caller that was refused.
    records: Option<RecordsView>,
    day: String,
    /// What each figure is called, says and is now; none if the node has not said any.
    figures: Vec<Row>,
}

struct Row {
    name: String,
    help: &'static str,
    value: String,
}

struct RecordsView {
    ended: String,
    written: String,
    shipped: String,
    stored: String,
    lag: String,
    missing: String,
    gaps: Vec<GapView>,
}

struct GapView {
    numbers: String,
    after: Moment,
    before: Moment,
}

/// A day as charts, with the numbers as a table for whoever cannot see them.
#[derive(Template)]
#[template(path = "day.html")]
pub struct Day {
    charts: Vec<Small>,
    points: Vec<PointView>,
    whose: String,
    /// Why there is nothing, if it could not be asked.
    trouble: String,
}

struct Small {
    title: &'static str,
    stacked: bool,
    chart: Chart,
}

struct PointView {
    time: String,
    requests: String,
    denied: String,
    failed: String,
    bytes: String,
    connections: String,
    cpu: String,
    memory: String,
}

/// GET /nodes/node?name=NODE
pub async fn page(Extension(cx): Extension<Cx>, query: Query<BTreeMap<String, String>>) -> Response {
    let name = query.get("name").cloned().unwrap_or_default();
    let node = match find(&cx, &name).await {
        Ok(node) => node,
        Err(refused) => return cx.problem("Node", "nodes", refused).await,
    };
    let told = node.figures.start_s > 0;
    let figures = TABLE.iter().filter(|_| told).map(|figure| {
        let name =
            figure.label.map_or_else(|| figure.name.to_string(), |(_, value)| format!("{} ({value})", figure.name));
        Row { name, help: figure.help, value: shown(figure, &node.figures) }
    });
    let day = day(&cx, Some(&node.name)).await;
    let page = NodePage {
        shell: cx.shell("Node", "nodes").await,
        figures: figures.collect(),
        records: node.refusal.is_empty().then(|| records(&node, Wall::now())),
        day: day.render().unwrap_or_default(),
        name: node.name,
        role: node.role,
        up: node.up,
        fingerprint: node.fingerprint,
    };
    web::render(StatusCode::OK, &page)
}

fn records(node: &NodeRow, now: Wall) -> RecordsView {
    let told = &node.records;
    let gap = |gap: &Gap| GapView {
        numbers: gap.numbers(),
        after: words::moment(gap.after_us, now),
        before: words::moment(gap.before_us, now),
    };
    RecordsView {
        ended: words::count(told.ended),
        written: words::count(told.written),
        shipped: words::count(told.shipped),
        stored: words::count(told.stored),
        lag: words::count(node.record_lag),
        missing: words::count(told.missing),
        gaps: told.gaps.iter().map(gap).collect(),
    }
}

async fn find(cx: &Cx, name: &str) -> Result<NodeRow, Refused> {
    match cx.ask(Action::Nodes).await? {
        Outcome::Nodes { nodes } => {
            nodes.into_iter().find(|node| node.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                Refused::new(
                    RefusedKind::NotFound,
                    "no node of this name is known here; the Nodes page lists those that are",
                )
            })
        }
        other => Err(web::unexpected("Nodes", &other)),
    }
}

/// The day of `node`, or of all that this one knows.
pub async fn day(cx: &Cx, node: Option<&str>) -> Day {
    let asked = cx.ask(Action::FiguresOfDay { node: node.map(str::to_string) }).await;
    let (points, trouble) = match asked {
        Ok(Outcome::FiguresOfDay { points }) => (points, String::new()),
        Ok(other) => (Vec::new(), web::unexpected("FiguresOfDay", &other).words),
        Err(refused) => (Vec::new(), refused.words),
    };
    let whose = node.map_or_else(|| "all nodes together".to_string(), str::to_string);
    Day { charts: charts(&whole(&points)), points: points.iter().rev().map(view).collect(), whose, trouble }
}

/// With an empty point for each interval in which nothing was seen, so that time runs evenly.
fn whole(points: &[Point]) -> Vec<Point> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let known: BTreeMap<i64, &Point> = points.iter().map(|point| (point.start_s, point)).collect();
    // The desk answers a day; whatever it answers, no more than that is drawn.
    let starts =
        (0..=96).map(|step| last.start_s - (96 - step) * HISTORY_STEP_S).filter(|start| *start >= first.start_s);
    let empty = |start_s| Point { start_s, ..Point::default() };
    starts.map(|start| known.get(&start).map_or_else(|| empty(start), |point| **point)).collect()
}

fn charts(points: &[Point]) -> Vec<Small> {
    let one = |title, what, stacked, shown: fn(u64) -> String, of: fn(&Point) -> (u64, u64)| {
        let series: Vec<(i64, u64, u64)> =
            points.iter().map(|point| (point.start_s.saturating_mul(1_000_000), of(point).0, of(point).1)).collect();
        chart::of(what, shown, &series).map(|chart| Small { title, stacked, chart })
    };
    [
        one("Requests", "Requests", true, words::count, |point| (point.exchanges, point.denied)),
        one("Failed", "Failed requests", false, words::count, |point| (point.failed, point.failed)),
        one("Data", "Data in both directions", false, bytes, |point| (point.bytes, 0)),
        one("Connections", "Most client connections open", false, words::count, |point| (point.connections_most, 0)),
        one("CPU", "CPUs in use", false, cpus, |point| (point.cpu_milli(), 0)),
        one("Memory", "Most memory in use", false, bytes, |point| (point.resident_most_bytes, 0)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn cpus(milli: u64) -> String {
    format!("{}.{:02}", milli / 1_000, milli % 1_000 / 10)
}

fn view(point: &Point) -> PointView {
    PointView {
        time: chart::short_time(point.start_s.saturating_mul(1_000_000)),
        requests: words::count(point.exchanges),
        denied: words::count(point.denied),
        failed: words::count(point.failed),
        bytes: bytes(point.bytes),
        connections: words::count(point.connections_most),
        cpu: cpus(point.cpu_milli()),
        memory: bytes(point.resident_most_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_drawn_as_a_gap_and_never_more_than_a_day() {
        let point = |step: i64| Point { start_s: step * HISTORY_STEP_S, exchanges: 1, ..Point::default() };
        let drawn = whole(&[point(1), point(4)]);
        assert_eq!(drawn.iter().map(|point| point.exchanges).collect::<Vec<_>>(), [1, 0, 0, 1]);
        assert_eq!(whole(&[point(1), point(1_000_000)]).len(), 97);
        assert!(whole(&[]).is_empty() && charts(&[]).is_empty());
        assert_eq!(charts(&drawn).len(), 1, "what was always nothing is no chart");
        assert_eq!(cpus(1_259), "1.25");
    }
}
