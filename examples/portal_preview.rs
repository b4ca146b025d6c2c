//! The portal over a stand-in for the daemon's desk, on plain HTTP, for whoever works on its pages:
//! `cargo run --example portal_preview -- master 8899`, then open http://localhost:8899/ and log in as `ada`,
//! `correct horse`. Browsers take the portal's cookie over plain HTTP from localhost only. Nothing here is shipped.

#[path = "../tests/portal/desk.rs"]
#[allow(dead_code)]
mod desk;

use axum::extract::ConnectInfo;
use axum::middleware::{self, Next};
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate::portal::{PeerAddress, PortalConfig, router};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let role: &'static str = match args.next().as_deref() {
        Some("slave") => "slave",
        Some("standalone") => "standalone",
        _ => "master",
    };
    let port = args.next().and_then(|port| port.parse().ok()).unwrap_or(8899);
    let config = PortalConfig {
        desk: Arc::new(desk::FakeDesk::new(role)),
        node_name: if role == "slave" { "edge-1" } else { "harbour" }.into(),
        role: role.into(),
        version: "0.1.0".into(),
    };
    let app = router(config).layer(middleware::from_fn(peer));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://localhost:{}/ as ada, correct horse", listener.local_addr()?.port());
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn peer(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: axum::extract::Request,
    next: Next,
) -> axum::response::Response {
    request.extensions_mut().insert(PeerAddress(peer));
    next.run(request).await
}
