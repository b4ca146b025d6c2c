//! The portal's own files: one style sheet, one script, one picture. Nothing comes from elsewhere.

use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;

const CSS: &str = include_str!("assets/portal.css");
const JS: &str = include_str!("assets/portal.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Changes when one of the files does: pages name it in their links, so that browsers may keep the files for a day.
pub fn tag() -> String {
    let mut hasher = blake3::Hasher::new();
    for text in [CSS, JS, ICON] {
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex()[..12].to_string()
}

/// The style sheet.
pub async fn css() -> Response {
    file("text/css; charset=utf-8", CSS)
}

/// The script.
pub async fn js() -> Response {
    file("text/javascript; charset=utf-8", JS)
}

/// The picture in the browser's tab.
pub async fn icon() -> Response {
    file("image/svg+xml", ICON)
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "private, max-age=86400")];
    (StatusCode::OK, headers, text).into_response()
}
