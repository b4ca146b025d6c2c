//! The portal over a stand-in for the daemon's desk, on plain HTTP, for whoever works on its pages:
//! `cargo run --example portal_preview -- master 8899`, then open http://localhost:8899/ and log in as `ada`,
//! `correct horse`; with `logged-in` as a third argument every visitor is ada, which a headless browser needs. Browsers take the portal's cookie over plain HTTP from localhost only. Nothing here is shipped.

#[path = "../tests/portal/desk.rs"]
#[allow(dead_code)]
mod desk;

use axum::extract::ConnectInfo;
use axum::http::HeaderValue;
use axum::http::header;
use axum::middleware::{self, Next};
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate::portal::{PeerAddress, PortalConfig, router};
use tower::ServiceExt;

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
        hands_over: false,
        desk: Arc::new(desk::FakeDesk::new(role)),
        node_name: if role == "slave" { "edge-1" } else { "harbour" }.into(),
        role: role.into(),
        version: "0.1.0".into(),
    };
    let mut app = router(config).layer(middleware::from_fn(peer));
    if args.next().as_deref() == Some("logged-in") {
        let cookie = log_in(&app, port).await;
        app = app.layer(middleware::from_fn(move |request, next| with_cookie(cookie.clone(), request, next)));
    }
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

/// The cookie of a session for `localhost:PORT`.
async fn log_in(app: &axum::Router, port: u16) -> HeaderValue {
    let login = axum::extract::Request::post("/login")
        .header(header::HOST, format!("localhost:{port}"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 0))))
        .body(axum::body::Body::from("user=ada&password=correct+horse"))
        .expect("a request of our own");
    let answer = app.clone().oneshot(login).await.expect("the portal answers");
    let cookie = answer.headers()[header::SET_COOKIE].to_str().expect("a cookie is text");
    HeaderValue::from_str(cookie.split(';').next().unwrap_or_default()).expect("a cookie is a header's value")
}

async fn with_cookie(cookie: HeaderValue, mut request: axum::extract::Request, next: Next) -> axum::response::Response {
    request.headers_mut().insert(header::COOKIE, cookie);
    next.run(request).await
}
