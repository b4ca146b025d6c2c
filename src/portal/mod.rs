//! The Configuration Portal: server-rendered pages over [`Desk`], for a browser with or without JavaScript.
//!
//! ```text
//! browser --TLS--> router: headers -> same origin -> session -> page -> admin::Action -> Desk
//!                  (guard.rs)                        (one file a page)
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `web` | who asks, the way to the desk, the frame around a page |
//! | `guard` | what stands before every page |
//! | `session`, `throttle` | who is logged in; how often a password may be tried (sans-IO) |
//! | `login`, `nodes`, `tasks`, `connections`, `figures` (a node's own page, charts), `policy`, `rollout`, `explain`, `report`, `verify` | the pages |
//! | `support` (startup params), `restart`, `kernel`, `diagnostics`, `version` | those under Support |
//! | `open` | what anybody may ask without logging in, over plain HTTP too |
//! | `filters`, `chart`, `lines`, `words` | what pages are made of, without I/O |
//! | `templates/`, `assets/` | their HTML; style sheet and script |
#![forbid(unsafe_code)]

mod assets;
mod audit;
mod chart;
mod connections;
mod diagnostics;
mod explain;
mod figures;
mod filters;
mod guard;
mod kernel;
mod lines;
mod login;
mod membership;
mod nodes;
mod open;
mod policy;
mod report;
mod restart;
mod rollout;
mod session;
mod support;
mod tasks;
mod throttle;
mod verify;
mod version;
mod web;
mod words;

use crate::admin::Desk;
use crate::limits::PORTAL_FORM_BYTES_MAX;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use axum::routing::post;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the daemon hands the portal.
#[derive(Clone)]
pub struct PortalConfig {
    /// Performs every action; the portal knows nobody else.
    pub desk: Arc<dyn Desk>,
    /// NODE_NAME.
    pub node_name: String,
    /// `master`, `slave` or `standalone`.
    pub role: String,
    /// Version of Tidegate.
    pub version: String,
    /// A restart hands over to a new process at once.
    pub hands_over: bool,
}

/// What is answered over plain HTTP as well as over TLS, to anybody.
pub const OPEN_PATHS: [&str; 4] = ["/health", "/metrics", "/proxy.pac", "/wpad.dat"];

/// The browser's address, which the daemon adds to each request as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// The address of this node that the browser reached, likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachedAddress(pub IpAddr);

/// The portal's routes, to be served over TLS: the session's cookie is for HTTPS alone.
pub fn router(config: PortalConfig) -> Router {
    let portal = web::Portal::new(config);
    let session = middleware::from_fn_with_state(portal.clone(), guard::session);
    let editor = Router::new()
        .route("/policy/edit", get(policy::edit).post(policy::submit))
        .route_layer(session.clone())
        .layer(guard::editor_limit());
    open_pages()
        .merge(pages().route_layer(session))
        .merge(editor)
        .fallback(login::not_found)
        .method_not_allowed_fallback(login::not_found)
        .layer(DefaultBodyLimit::max(PORTAL_FORM_BYTES_MAX))
        .layer(middleware::from_fn_with_state(portal.clone(), guard::same_origin))
        .layer(middleware::from_fn(guard::headers))
        .with_state(portal)
}

/// What needs no session.
fn open_pages() -> Router<Arc<web::Portal>> {
    Router::new()
        .route("/health", get(open::health))
        .route("/metrics", get(open::metrics))
        .route("/proxy.pac", get(open::proxy_script))
        .route("/wpad.dat", get(open::proxy_script))
        .route("/login", get(login::form).post(login::submit))
        .route("/assets/portal.css", get(assets::css))
        .route("/assets/portal.js", get(assets::js))
        .route("/assets/icon.svg", get(assets::icon))
}

/// What does.
fn pages() -> Router<Arc<web::Portal>> {
    Router::new()
        .route("/", get(home))
        .route("/logout", post(login::logout))
        .route("/nodes", get(nodes::page))
        .route("/nodes/rows", get(nodes::fragment))
        .route("/nodes/node", get(figures::page))
        .route("/nodes/audit", get(audit::page))
        .route("/connections", get(connections::page))
        .route("/nodes/membership", get(membership::form).post(membership::submit))
        .route("/tasks", get(tasks::page).post(tasks::order))
        .route("/tasks/rows", get(tasks::fragment))
        .route("/tasks/task", get(tasks::one))
        .route("/tasks/task/rows", get(tasks::one_fragment))
        .route("/tasks/cancel", post(tasks::cancel))
        .route("/tasks/output", post(tasks::output))
        .route("/policy", get(policy::page))
        .route("/policy/history", get(policy::history))
        .route("/policy/rollout", get(rollout::page).post(rollout::end))
        .route("/policy/rollout/rows", get(rollout::fragment))
        .route("/policy/rollout/skip", get(rollout::confirm_skip))
        .route("/policy/diff", get(policy::compare))
        .route("/policy/rollback", get(policy::confirm_rollback).post(policy::rollback))
        .route("/explain", get(explain::page))
        .route("/report", get(report::page))
        .route("/report/newest", get(report::fragment))
        .route("/support", get(support_home))
        .route("/support/params", get(support::params).post(support::submit))
        .route("/support/restart", get(restart::form).post(restart::submit))
        .route("/support/restart/progress", get(restart::progress))
        .route(guard::RESTART_STATE, get(restart::state))
        .route("/support/kernel", get(kernel::page))
        .route("/support/diagnostics", get(diagnostics::page).post(diagnostics::download))
        .route("/support/version", get(version::page))
        .route("/verify", get(verify::page))
}

async fn home() -> axum::response::Response {
    web::see_other("/nodes")
}

async fn support_home() -> axum::response::Response {
    web::see_other("/support/params")
}
