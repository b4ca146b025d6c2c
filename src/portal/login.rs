//! Logging in and out.

use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::base::clock::Mono;
use crate::limits::PORTAL_LOGIN_FIELD_BYTES_MAX;
use crate::portal::guard;
use crate::portal::session;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Fields;
use crate::portal::web::Portal;
use crate::portal::web::Shell;
use crate::portal::words;
use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::Response;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    user: String,
    next: String,
    error: String,
    /// There is no administrator yet: say how to make one.
    nobody: bool,
}

#[derive(Template)]
#[template(path = "ended.html")]
struct EndedPage {
    shell: Shell,
    next: String,
    /// What was typed, so that it is not lost.
    document: String,
}

/// GET /login
pub async fn form(
    State(portal): State<Arc<Portal>>,
    query: Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let next = local_path(query.get("next").map_or("/", String::as_str));
    if web::cx_of(&portal, &request, true).is_some() {
        return web::see_other(&next);
    }
    let nobody = nobody_yet(&portal, web::peer_of(&request)).await;
    let error = String::new();
    web::render(
        StatusCode::OK,
        &LoginPage { shell: portal.bare_shell("Log in"), user: String::new(), next, error, nobody },
    )
}

/// POST /login
pub async fn submit(State(portal): State<Arc<Portal>>, request: Request) -> Response {
    let (peer, headers) = (web::peer_of(&request), request.headers().clone());
    let fields = match web::read_fields(request).await {
        Ok(fields) => fields,
        Err((status, words)) => return portal.bare_problem(status, "Not understood", &words),
    };
    match attempt(&portal, peer, &fields).await {
        Ok(()) => {
            // A fresh token at each login: one planted in the browser before it is worth nothing.
            guard::end_session(&portal, &headers);
            let token = portal.sessions.open(fields.get("user"), Mono::now());
            with_cookie(
                web::see_other(&local_path(fields.get("next"))),
                &session::cookie(&web::cookie_name(&headers), &token),
            )
        }
        Err(refusal) => refusal.page(&portal, &fields),
    }
}

/// POST /logout
pub async fn logout(Extension(cx): Extension<Cx>, headers: HeaderMap, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        return cx.stale("Log out", "").await;
    }
    cx.portal.sessions.close(&cx.token);
    with_cookie(web::see_other("/login"), &session::no_cookie(&web::cookie_name(&headers)))
}

/// A form came after its session had ended. What was typed into the editor is shown again, to be copied.
pub async fn session_ended(portal: &Arc<Portal>, request: Request) -> Response {
    let next = request.uri().path().to_string();
    let document = match web::read_fields(request).await {
        Ok(fields) => fields.get("document").to_string(),
        Err(_) => String::new(),
    };
    let page = EndedPage { shell: portal.bare_shell("Session ended"), next: words::encoded(&next), document };
    web::render(StatusCode::UNAUTHORIZED, &page)
}

/// Why somebody was not let in.
enum NotIn {
    /// Unknown name and wrong password alike: the answer tells nobody which names exist.
    Wrong,
    Wait(Duration),
    Busy,
    Nobody,
    Failed(String),
}

impl NotIn {
    fn page(self, portal: &Portal, fields: &Fields) -> Response {
        let (status, error) = match &self {
            NotIn::Wrong => (StatusCode::FORBIDDEN, "Name or password is wrong.".to_string()),
            NotIn::Wait(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!("Too many failed logins. Try again in {}.", words::span(wait.as_secs() + 1)),
            ),
            NotIn::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Many logins are being checked. Try again in 5 s.".into()),
            NotIn::Nobody => (StatusCode::FORBIDDEN, String::new()),
            NotIn::Failed(words) => (StatusCode::INTERNAL_SERVER_ERROR, words.clone()),
        };
        let page = LoginPage {
            shell: portal.bare_shell("Log in"),
            user: fields.get("user").to_string(),
            next: local_path(fields.get("next")),
            error,
            nobody: matches!(self, NotIn::Nobody),
        };
        let mut response = web::render(status, &page);
        let seconds = match self {
            NotIn::Wait(wait) => wait.as_secs() + 1,
            NotIn::Busy => 5,
            _ => return response,
        };
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }
}

async fn attempt(portal: &Portal, peer: IpAddr, fields: &Fields) -> Result<(), NotIn> {
    let (user, password) = (fields.get("user"), fields.get("password"));
    let longest = user.len().max(password.len());
    if user.is_empty() || password.is_empty() || longest > PORTAL_LOGIN_FIELD_BYTES_MAX {
        return Err(NotIn::Wrong);
    }
    portal.throttle.admit(peer, user, Mono::now()).map_err(NotIn::Wait)?;
    let Ok(_turn) = portal.checks.try_acquire() else {
        portal.throttle.withdraw(peer, user);
        return Err(NotIn::Busy);
    };
    match ask(portal, peer, user, password).await {
        Ok(_) => {
            portal.throttle.succeeded(peer, user, Mono::now());
            portal.has_administrator.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(refused) if refused.kind == RefusedKind::NotFound => {
            portal.throttle.withdraw(peer, user);
            Err(NotIn::Nobody)
        }
        Err(refused) if refused.kind == RefusedKind::Failed => {
            portal.throttle.withdraw(peer, user);
            Err(NotIn::Failed(refused.words))
        }
        Err(_) => Err(NotIn::Wrong),
    }
}

async fn ask(portal: &Portal, peer: IpAddr, user: &str, password: &str) -> Result<Outcome, Refused> {
    let actor = Actor::Visitor { address: peer.to_string() };
    portal.ask(actor, Action::Login { user: user.to_string(), password: password.to_string() }).await
}

/// Asked with no name, the desk says NotFound while there is no administrator. Once there is one we never ask again: a
/// password check is slow, and this page is open to everybody.
async fn nobody_yet(portal: &Portal, peer: IpAddr) -> bool {
    if portal.has_administrator.load(Ordering::Relaxed) {
        return false;
    }
    let Ok(_turn) = portal.checks.try_acquire() else { return false };
    match ask(portal, peer, "", "").await {
        Err(refused) if refused.kind == RefusedKind::NotFound => true,
        Err(refused) if refused.kind == RefusedKind::Failed => false,
        _ => {
            portal.has_administrator.store(true, Ordering::Relaxed);
            false
        }
    }
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

/// `next` if it is a path on this portal; otherwise home. `//host` and `/\host` are other sites to a browser.
fn local_path(next: &str) -> String {
    let is_local =
        next.starts_with('/') && !next.starts_with("//") && next.bytes().all(|byte| byte > b' ' && byte < 0x7f);
    if is_local && !next.contains('\\') && !next.starts_with("/login") { next.to_string() } else { "/".to_string() }
}

/// Everything that is no page: in style, with a way back.
pub async fn not_found(State(portal): State<Arc<Portal>>) -> Response {
    let words = "There is no such page on this portal.";
    portal.bare_problem(StatusCode::NOT_FOUND, "No such page", words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_login_only_paths_of_this_portal_are_gone_to() {
        for (next, to) in [
            ("/report?node=edge-1", "/report?node=edge-1"),
            ("", "/"),
            ("https://evil.test/", "/"),
            ("//evil.test", "/"),
            ("/\\evil.test", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
            ("/login", "/"),
        ] {
            assert_eq!(local_path(next), to, "{next:?}");
        }
    }
}
