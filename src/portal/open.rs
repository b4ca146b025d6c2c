//! What anybody may ask without logging in, over plain HTTP as well as over TLS: balancers and browsers have no password.

use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::Outcome;
use crate::admin::Unfit;
use crate::figures;
use crate::limits::PAC_MAX_AGE_S;
use crate::portal::web;
use crate::portal::web::Portal;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Serialize;
use std::net::Ipv6Addr;
use std::sync::Arc;

const TEXT: &str = "text/plain; charset=utf-8";

/// GET /health: 200 if a balancer should send clients here, otherwise 503 and all that stands against it.
pub async fn health(State(portal): State<Arc<Portal>>, request: Request) -> Response {
    let as_json = wants_json(&request);
    let synced_within_s = match synced_within(request.uri().query().unwrap_or_default()) {
        Ok(seconds) => seconds,
        Err(words) => return (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, TEXT)], words).into_response(),
    };
    let actor = Actor::Visitor { address: web::peer_of(&request).to_string() };
    let reasons = match portal.ask(actor, Action::Health { synced_within_s }).await {
        Ok(Outcome::Health { reasons }) => reasons,
        Ok(other) => vec![Unfit { kind: "fault".into(), words: web::unexpected("Health", &other).words }],
        Err(refused) => vec![Unfit { kind: "fault".into(), words: refused.words }],
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if as_json {
        let health = Health { healthy: reasons.is_empty(), node: &portal.config.node_name, reasons: &reasons };
        let text = serde_json::to_string(&health).unwrap_or_default() + "\n";
        return (status, [(header::CONTENT_TYPE, "application/json")], text).into_response();
    }
    let text = match reasons.is_empty() {
        true => "ok\n".to_string(),
        false => reasons.iter().map(|reason| format!("{}\n", reason.words)).collect(),
    };
    (status, [(header::CONTENT_TYPE, TEXT)], text).into_response()
}

#[derive(Serialize)]
struct Health<'a> {
    healthy: bool,
    node: &'a str,
    reasons: &'a [Unfit],
}

/// GET /metrics: the node's figures, for whom METRICS_ALLOW lets ask and for an administrator who is logged in.
pub async fn metrics(State(portal): State<Arc<Portal>>, request: Request) -> Response {
    let answer = match web::cx_of(&portal, &request, false) {
        Some(cx) => cx.ask(Action::Metrics).await,
        None => portal.ask(Actor::Visitor { address: web::peer_of(&request).to_string() }, Action::Metrics).await,
    };
    let refused = match answer {
        Ok(Outcome::Metrics { text }) => {
            return ([(header::CONTENT_TYPE, figures::CONTENT_TYPE)], text).into_response();
        }
        Ok(other) => web::unexpected("Metrics", &other),
        Err(refused) => refused,
    };
    (web::status_of(&refused), [(header::CONTENT_TYPE, TEXT)], refused.words + "\n").into_response()
}

/// GET /proxy.pac and /wpad.dat: the script by which the browser that asks finds its proxy.
pub async fn proxy_script(State(portal): State<Arc<Portal>>, request: Request) -> Response {
    let client = web::peer_of(&request).to_string();
    let said = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let host = host_of(said).unwrap_or(&portal.config.node_name).to_string();
    let actor = Actor::Visitor { address: client.clone() };
    let refused = match portal.ask(actor, Action::ProxyScript { client, host }).await {
        Ok(Outcome::ProxyScript { script }) => {
            // Made for this client: no shared cache may hand it to another one.
            let keep = format!("private, max-age={PAC_MAX_AGE_S}");
            let kind = (header::CONTENT_TYPE, "application/x-ns-proxy-autoconfig".to_string());
            return ([kind, (header::CACHE_CONTROL, keep)], script).into_response();
        }
        Ok(other) => web::unexpected("ProxyScript", &other),
        Err(refused) => refused,
    };
    // Nobody logged in: what is passing is no fault of the node's.
    let status = match web::status_of(&refused) {
        StatusCode::INTERNAL_SERVER_ERROR => StatusCode::SERVICE_UNAVAILABLE,
        status => status,
    };
    (status, [(header::CONTENT_TYPE, TEXT)], refused.words + "\n").into_response()
}

/// The host of a Host field, if it can stand in a script as it is.
fn host_of(said: &str) -> Option<&str> {
    let host = match said.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => &said[..inside.len() + 2],
        None => said.split(':').next().unwrap_or_default(),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.len() < 256 && host.bytes().all(plain),
    };
    good.then_some(host)
}

fn wants_json(request: &Request) -> bool {
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split([',', ';']).any(|part| part.trim().eq_ignore_ascii_case("application/json"))
}

/// A question that is mistyped must not look like a weaker one that was answered.
fn synced_within(query: &str) -> Result<Option<u64>, String> {
    let mut seconds = None;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let number =
            part.strip_prefix("synced_within_s=").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match number.and_then(|text| text.parse().ok()).filter(|number| *number > 0) {
            Some(number) => seconds = Some(number),
            None => {
                return Err(
                    "This is not understood: ask for /health, or for /health?synced_within_s=60 with a number of \
                            seconds.\n"
                        .to_string(),
                );
            }
        }
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_question_is_no_weaker_question() {
        for (query, answer) in [
            ("", Some(None)),
            ("&", Some(None)),
            ("synced_within_s=60", Some(Some(60))),
            ("synced_within_s=0", None),
            ("synced_within_s=-1", None),
            ("synced_within_s=+1", None),
            ("synced_within_s=", None),
            ("synced_within_s=99999999999999999999", None),
            ("synced_within=60", None),
            ("a=b", None),
        ] {
            assert_eq!(synced_within(query).ok(), answer, "{query}");
        }
    }

    #[test]
    fn a_host_stands_in_a_script_only_if_it_can_end_nothing_there() {
        for (said, host) in [
            ("gw.example:8888", Some("gw.example")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("[2001:db8::1]:8888", Some("[2001:db8::1]")),
            ("[::1\"; alert(1)]", None),
            ("a\";x", None),
            ("a b:1", None),
            ("", None),
            (":8888", None),
        ] {
            assert_eq!(host_of(said), host, "{said}");
        }
    }

    #[test]
    fn json_is_for_those_who_ask_for_it() {
        for (accept, json) in [
            ("application/json", true),
            ("text/html, Application/JSON;q=0.9", true),
            ("*/*", false),
            ("application/json-seq", false),
        ] {
            let request = Request::builder().header("accept", accept).body(axum::body::Body::empty()).unwrap();
            assert_eq!(wants_json(&request), json, "{accept}");
        }
    }
}
