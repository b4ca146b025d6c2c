//! The Explain page: how a request would be decided, told by the walk that decides.

use crate::admin::Action;
use crate::admin::Complaint;
use crate::admin::ExplainQuestion;
use crate::admin::Outcome;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    shell: Shell,
    client: String,
    user: String,
    method: String,
    url: String,
    at: String,
    version: String,
    error: String,
    complaints: Vec<Complaint>,
    answer: Option<AnswerView>,
}

struct AnswerView {
    verdict: String,
    allowed: bool,
    rule: String,
    lines: Vec<String>,
}

/// GET /explain: the question stands in the address, so that an answer can be passed on as a link.
pub async fn page(Extension(cx): Extension<Cx>, query: Query<BTreeMap<String, String>>) -> Response {
    let field = |name: &str| query.get(name).map(|value| value.trim().to_string()).unwrap_or_default();
    let mut page = ExplainPage {
        shell: cx.shell("Explain", "explain").await,
        client: field("client"),
        user: field("user"),
        method: field("method"),
        url: field("url"),
        at: field("at"),
        version: field("version"),
        error: String::new(),
        complaints: vec![],
        answer: None,
    };
    if query.is_empty() {
        return web::render(StatusCode::OK, &page);
    }
    let status = ask(&cx, &mut page).await;
    web::render(status, &page)
}

async fn ask(cx: &Cx, page: &mut ExplainPage) -> StatusCode {
    if page.client.is_empty() || page.url.is_empty() {
        page.error = "A client address and a URL are needed.".to_string();
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    let version = match page.version.as_str() {
        "" => None,
        text => match text.parse() {
            Ok(version) => Some(version),
            Err(_) => {
                page.error = "The version of the policy is a number, as the history has it.".to_string();
                return StatusCode::UNPROCESSABLE_ENTITY;
            }
        },
    };
    let given = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let question = ExplainQuestion {
        client: page.client.clone(),
        user: given(&page.user),
        method: given(&page.method),
        url: page.url.clone(),
        at: given(&page.at),
        document: None,
        version,
    };
    let refused = match cx.ask(Action::Explain(question)).await {
        Ok(Outcome::Explained { verdict, rule, lines }) => {
            page.answer = Some(AnswerView { allowed: verdict == "ALLOW", verdict, rule, lines });
            return StatusCode::OK;
        }
        Ok(other) => web::unexpected("Explain", &other),
        Err(refused) => refused,
    };
    let status = web::status_of(&refused);
    page.error = refused.words;
    page.complaints = refused.complaints;
    status
}
