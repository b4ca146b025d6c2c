//! The demo's small origin: pages to look at, bytes to count, bodies to echo. Never started by `tidegate run`.

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::Path;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;
use axum::routing::get;
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use crate::limits::DEMO_BODY_BYTES_MAX;
use crate::limits::DEMO_SLOW_MS_MAX;

/// What the origin answers:
///
/// * `/` - a page; `/social`, `/download` - pages the demo's policy speaks about;
/// * `/bytes/N` - N deterministic bytes with Content-Length; `/chunked/N` - the same, chunked;
/// * `/echo` - the body it was sent; `/status/CODE`; `/slow/MS`; `/headers` - the head it received.
pub fn router() -> Router {
    Router::new()
        .route("/", get(|| page("It works", "This page came from the demo's origin, through Tidegate.")))
        .route("/news", get(|| page("News", "Nothing new under the proxy.")))
        .route("/social", get(|| page("Social", "A page the demo's first policy blocks.")))
        .route("/bytes/{count}", get(bytes))
        .route("/chunked/{count}", get(chunked))
        .route("/echo", any(echo))
        .route("/status/{code}", any(status))
        .route("/slow/{ms}", any(slow))
        .route("/headers", any(headers))
        .layer(DefaultBodyLimit::max(DEMO_BODY_BYTES_MAX))
}

/// The `count` bytes that `/bytes/N` and `/chunked/N` answer: a byte depends on its place alone, so that a test can
/// know them without asking.
pub fn pattern(count: usize) -> Vec<u8> {
    (0..count as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

async fn page(title: &'static str, words: &'static str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><body style=\"font:1.1rem system-ui;max-width:36rem;margin:3rem auto;padding:0 1rem\">\
         <h1>{title}</h1><p>{words}</p><p><a href=\"/\">home</a> <a href=\"/news\">news</a> <a href=\"/social\">social</a></p>\n"
    ))
}

async fn bytes(Path(count): Path<usize>) -> Response {
    if count > DEMO_BODY_BYTES_MAX {
        return too_many();
    }
    ([(header::CONTENT_TYPE, "application/octet-stream")], pattern(count)).into_response()
}

async fn chunked(Path(count): Path<usize>) -> Response {
    if count > DEMO_BODY_BYTES_MAX {
        return too_many();
    }
    let pieces: Vec<Bytes> = pattern(count).chunks(8_192).map(Bytes::copy_from_slice).collect();
    let body = Body::new(Pieces(pieces.into_iter()));
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

fn too_many() -> Response {
    (StatusCode::BAD_REQUEST, format!("at most {DEMO_BODY_BYTES_MAX} bytes\n")).into_response()
}

async fn echo(request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    match axum::body::to_bytes(request.into_body(), DEMO_BODY_BYTES_MAX).await {
        Ok(body) => ([(header::CONTENT_TYPE, kind)], body).into_response(),
        Err(_) => (StatusCode::PAYLOAD_TOO_LARGE, format!("at most {DEMO_BODY_BYTES_MAX} bytes\n")).into_response(),
    }
}

async fn status(Path(code): Path<u16>) -> Response {
    match StatusCode::from_u16(code) {
        Ok(status) if status.as_u16() >= 200 => (status, format!("{status}\n")).into_response(),
        _ => (StatusCode::BAD_REQUEST, "a status from 200 to 599\n").into_response(),
    }
}

async fn slow(Path(ms): Path<u64>) -> Response {
    tokio::time::sleep(Duration::from_millis(ms.min(DEMO_SLOW_MS_MAX))).await;
    format!("waited {ms} ms\n").into_response()
}

async fn headers(request: Request) -> String {
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    text
}

/// A body of unknown length, sent piece by piece, so that hyper frames it as chunks.
struct Pieces(std::vec::IntoIter<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}
