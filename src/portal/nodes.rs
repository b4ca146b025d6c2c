//! The Nodes page: every node as the master knows it, and what is wrong with which.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::base::clock::Wall;
use crate::base::words::bytes;
use crate::cluster::MasterLink;
use crate::cluster::NodeRow;
use crate::portal::figures;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use crate::portal::words;
use crate::portal::words::Moment;
use askama::Template;
use axum::Extension;
use axum::http::StatusCode;
use axum::response::Response;

/// Skew past which a node's clock is warned of, in milliseconds (R13).
const SKEW_WARN_MS: u64 = 2000;

#[derive(Template)]
#[template(path = "nodes.html")]
struct NodesPage {
    shell: Shell,
    link: Option<LinkView>,
    rows: Rows,
    day: String,
}

#[derive(Template)]
#[template(path = "nodes_rows.html")]
struct Rows {
    nodes: Vec<NodeView>,
    up: usize,
    behind: usize,
    drifting: usize,
    lag: String,
    exchanges: String,
    denied: String,
    checked: Moment,
    /// A master sees all nodes; the others see themselves.
    whole_cluster: bool,
}

struct NodeView {
    name: String,
    link: String,
    role: String,
    address: String,
    version: String,
    snapshot: String,
    current: bool,
    up: bool,
    draining: bool,
    contact: Moment,
    lag: String,
    lagging: bool,
    skew: String,
    skewed: bool,
    refusal: String,
    error: String,
    drift: String,
    labels: Vec<String>,
    /// How many records never came; empty if none is missing.
    missing: String,
    open: String,
    tunnels: String,
    exchanges: String,
    denied: String,
    failed: String,
    upload: String,
    download: String,
}

/// A slave's view of its master.
struct LinkView {
    address: String,
    up: bool,
    contact: Moment,
    skew: String,
    skewed: bool,
    trouble: String,
    synced: Moment,
}

/// GET /nodes
pub async fn page(Extension(cx): Extension<Cx>) -> Response {
    match ask(&cx).await {
        Ok(nodes) => {
            let now = Wall::now();
            let link = cx.status().await.ok().and_then(|status| status.master).map(|link| link_view(link, now));
            let day = figures::day(&cx, None).await.render().unwrap_or_default();
            let page = NodesPage { shell: cx.shell("Nodes", "nodes").await, link, rows: rows(&cx, nodes, now), day };
            web::render(StatusCode::OK, &page)
        }
        Err(refused) => cx.problem("Nodes", "nodes", refused).await,
    }
}

/// GET /nodes/rows: what the page polls.
pub async fn fragment(Extension(cx): Extension<Cx>) -> Response {
    match ask(&cx).await {
        Ok(nodes) => web::render(StatusCode::OK, &rows(&cx, nodes, Wall::now())),
        Err(refused) => cx.problem("Nodes", "nodes", refused).await,
    }
}

async fn ask(cx: &Cx) -> Result<Vec<NodeRow>, Refused> {
    match cx.ask(Action::Nodes).await? {
        Outcome::Nodes { nodes } => Ok(nodes),
        other => Err(web::unexpected("Nodes", &other)),
    }
}

fn rows(cx: &Cx, nodes: Vec<NodeRow>, now: Wall) -> Rows {
    let sum = |figure: fn(&NodeRow) -> u64| words::count(nodes.iter().map(figure).fold(0, u64::saturating_add));
    Rows {
        up: nodes.iter().filter(|node| node.up).count(),
        drifting: nodes.iter().filter(|node| !node.drift.is_empty()).count(),
        behind: nodes.iter().filter(|node| !node.current).count(),
        lag: sum(|node| node.record_lag),
        exchanges: sum(|node| node.counters.exchanges),
        denied: sum(|node| node.counters.denied),
        checked: words::moment(now.0, now),
        whole_cluster: cx.portal.config.role == "master",
        nodes: nodes.into_iter().map(|node| view(node, now)).collect(),
    }
}

fn view(node: NodeRow, now: Wall) -> NodeView {
    NodeView {
        link: format!("/nodes/node?name={}", words::encoded(&node.name)),
        name: node.name,
        role: node.role,
        address: node.address,
        version: node.version,
        snapshot: node.snapshot,
        current: node.current,
        up: node.up,
        draining: node.offer.draining,
        contact: words::moment(node.last_contact_us, now),
        lag: words::count(node.record_lag),
        lagging: node.record_lag > 0,
        skew: words::skew(node.clock_skew_ms),
        skewed: node.clock_skew_ms.unsigned_abs() > SKEW_WARN_MS,
        refusal: node.refusal,
        error: node.error,
        drift: node.drift,
        labels: node.labels,
        missing: Some(node.records.missing).filter(|missing| *missing > 0).map(words::count).unwrap_or_default(),
        open: words::count(node.counters.connections_open),
        tunnels: words::count(node.counters.tunnels_open),
        exchanges: words::count(node.counters.exchanges),
        denied: words::count(node.counters.denied),
        failed: words::count(node.counters.failed),
        upload: bytes(node.counters.upload),
        download: bytes(node.counters.download),
    }
}

fn link_view(link: MasterLink, now: Wall) -> LinkView {
    LinkView {
        up: link.up,
        contact: words::moment(link.last_contact_us, now),
        skew: words::skew(link.clock_skew_ms),
        skewed: link.clock_skew_ms.unsigned_abs() > SKEW_WARN_MS,
        synced: words::moment(link.synced_us, now),
        address: link.address,
        trouble: link.trouble,
    }
}
