//! What anybody may ask without logging in, over plain HTTP as well as over TLS: balancers and browsers have no password.

use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::Outcome;
use crate::admin::Unfit;
use crate::portal::web;
use crate::portal::web::Portal;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Serialize;
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
