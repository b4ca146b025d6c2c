//! Who belongs to the cluster (`/nodes/membership?name=NODE`): removes a node, frees its name, lets it back. On a master.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::cluster::membership::MembershipChange;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Fields;
use crate::portal::web::Shell;
use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;

#[derive(Template)]
#[template(path = "membership.html")]
struct MembershipPage {
    shell: Shell,
    name: String,
    error: String,
}

/// GET /nodes/membership?name=NODE
pub async fn form(Extension(cx): Extension<Cx>, query: Query<BTreeMap<String, String>>) -> Response {
    page(&cx, query.get("name").cloned().unwrap_or_default(), None).await
}

/// POST /nodes/membership
pub async fn submit(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        return cx.stale("Membership", "nodes").await;
    }
    let node = fields.get("name").trim().to_string();
    let change = match fields.get("change") {
        "remove" => MembershipChange::Remove,
        "release" => MembershipChange::Release,
        "readmit" => MembershipChange::Readmit,
        _ => return page(&cx, node, None).await,
    };
    match cx.ask(Action::Membership { change, node: node.clone() }).await {
        Ok(Outcome::Done { words }) => cx.done(format!("Done: {words}."), "/nodes"),
        Ok(other) => page(&cx, node, Some(web::unexpected("Membership", &other))).await,
        Err(refused) => page(&cx, node, Some(refused)).await,
    }
}

async fn page(cx: &Cx, name: String, error: Option<crate::admin::Refused>) -> Response {
    let status = error.as_ref().map_or(StatusCode::OK, web::status_of);
    let shell = cx.shell("Membership", "nodes").await;
    let error = error.map(|refused| refused.words).unwrap_or_default();
    web::render(status, &MembershipPage { shell, name, error })
}
