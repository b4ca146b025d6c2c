//! Connections: the exchanges and tunnels that are under way on this node.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::base::clock::Wall;
use crate::base::words::bytes;
use crate::limits::PORTAL_CONNECTIONS_SHOWN;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use crate::portal::words;
use crate::portal::words::Moment;
use crate::report::Exchange;
use askama::Template;
use axum::Extension;
use axum::http::StatusCode;
use axum::response::Response;

#[derive(Template)]
#[template(path = "connections.html")]
struct ConnectionsPage {
    shell: Shell,
    checked: Moment,
    count: String,
    more: bool,
    rows: Vec<Row>,
}

struct Row {
    exchange: Exchange,
    started: Moment,
    lasting: String,
    upload: String,
    download: String,
}

/// GET /connections
pub async fn page(Extension(cx): Extension<Cx>) -> Response {
    match cx.ask(Action::Connections { limit: PORTAL_CONNECTIONS_SHOWN }).await {
        Ok(Outcome::Connections(under_way)) => {
            let (now, shown) = (Wall::now(), under_way.oldest.len() as u64);
            let page = ConnectionsPage {
                shell: cx.shell("Connections", "connections").await,
                checked: words::moment(now.0, now),
                count: words::count(under_way.count),
                more: under_way.count > shown,
                rows: under_way.oldest.into_iter().map(|exchange| row(exchange, now)).collect(),
            };
            web::render(StatusCode::OK, &page)
        }
        Ok(other) => cx.problem("Connections", "connections", web::unexpected("Connections", &other)).await,
        Err(refused) => cx.problem("Connections", "connections", refused).await,
    }
}

fn row(exchange: Exchange, now: Wall) -> Row {
    Row {
        started: words::moment(exchange.started_us, now),
        lasting: words::span(u64::try_from((now.0 - exchange.started_us) / 1_000_000).unwrap_or(0)),
        upload: bytes(exchange.upload),
        download: bytes(exchange.download),
        exchange,
    }
}
