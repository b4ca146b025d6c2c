//! The Configuration Portal: server-rendered pages over [`Desk`], for a browser with or without JavaScript.
#![forbid(unsafe_code)]

use crate::admin::Desk;
use axum::Router;
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
}

/// The browser's address, which the daemon adds to each request as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// The portal's routes, to be served over TLS.
pub fn router(config: PortalConfig) -> Router {
    let _ = config;
    Router::new()
}
