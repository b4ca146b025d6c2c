//! What stands before every page: headers that keep browsers strict, the same-origin check, and the session.

use crate::base::clock::Mono;
use crate::limits::PORTAL_POLICY_FORM_BYTES_MAX;
use crate::portal::login;
use crate::portal::web;
use crate::portal::web::Portal;
use crate::portal::words;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use std::sync::Arc;

/// Fragments that pages poll: they do not keep a session alive, and answer 401 rather than the login page.
pub const LIVE_PATHS: [&str; 6] =
    ["/nodes/rows", "/policy/rollout/rows", "/report/newest", "/tasks/rows", "/tasks/task/rows", RESTART_STATE];
/// How far a restart is.
pub const RESTART_STATE: &str = "/support/restart/state";

/// Nothing but our own files, no frames, no inline code or style. Referrer-Policy is `same-origin` and not `no-referrer`,
/// because the latter makes browsers send `Origin: null` with our own forms. No HSTS: the certificate is self-signed, and
/// a browser that remembers HSTS would no longer let the administrator pass its warning.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Puts the headers on every answer; a page's own (the assets' Cache-Control) win.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Refuses what another site makes a browser send. A browser says in Sec-Fetch-Site or Origin whose page asks.
pub async fn same_origin(State(portal): State<Arc<Portal>>, request: Request, next: Next) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !safe && !is_same_origin(request.headers()) {
        let words = "This form came from another site than this portal, so nothing was done. Open the portal itself and do it there.";
        return portal.bare_problem(StatusCode::FORBIDDEN, "Refused", words);
    }
    next.run(request).await
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    if text(HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site != "same-origin") {
        return false;
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        // Programs send none; the token in the form decides then.
        (None, _) => true,
        (Some(origin), Some(host)) => {
            let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
    }
}

/// Lets only a valid session through; sends others to the login page and back after it.
pub async fn session(State(portal): State<Arc<Portal>>, mut request: Request, next: Next) -> Response {
    let live = LIVE_PATHS.contains(&request.uri().path());
    match web::cx_of(&portal, &request, !live) {
        Some(cx) => {
            request.extensions_mut().insert(cx);
            next.run(request).await
        }
        None if live => (StatusCode::UNAUTHORIZED, "The session has ended.").into_response(),
        None if matches!(*request.method(), Method::GET | Method::HEAD) => {
            let here = request.uri().path_and_query().map(|path| path.as_str()).unwrap_or("/");
            web::see_other(&format!("/login?next={}", words::encoded(here)))
        }
        None => login::session_ended(&portal, request).await,
    }
}

/// The policy editor alone may send so much, and only with a session or just after one.
pub fn editor_limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(PORTAL_POLICY_FORM_BYTES_MAX)
}

/// Ends the session that `headers` carry, if any.
pub fn end_session(portal: &Portal, headers: &HeaderMap) {
    if let Some(token) = web::token_of(headers)
        && portal.sessions.find(token, Mono::now(), false).is_some()
    {
        portal.sessions.close(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_sites_form_is_known_by_what_the_browser_says() {
        for (site, origin, host, ours) in [
            (None, None, Some("node:8888"), true),
            (Some("same-origin"), Some("https://node:8888"), Some("node:8888"), true),
            (None, Some("https://NODE:8888"), Some("node:8888"), true),
            (None, Some("https://evil.test"), Some("node:8888"), false),
            (None, Some("https://node:8889"), Some("node:8888"), false),
            (None, Some("null"), Some("node:8888"), false),
            (None, Some("https://node:8888"), None, false),
            (Some("cross-site"), None, Some("node:8888"), false),
            (Some("same-site"), Some("https://node:8888"), Some("node:8888"), false),
            (Some("none"), None, Some("node:8888"), false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("sec-fetch-site", site), ("origin", origin), ("host", host)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(is_same_origin(&headers), ours, "{site:?} {origin:?} {host:?}");
        }
    }
}
