//! The Verify page: the checklist, a line each, passed or what to do.

use crate::admin::Action;
use crate::admin::Check;
use crate::admin::Outcome;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use askama::Template;
use axum::Extension;
use axum::http::StatusCode;
use axum::response::Response;

#[derive(Template)]
#[template(path = "verify.html")]
struct VerifyPage {
    shell: Shell,
    checks: Vec<Check>,
    failed: usize,
}

/// GET /verify
pub async fn page(Extension(cx): Extension<Cx>) -> Response {
    match cx.ask(Action::Verify).await {
        Ok(Outcome::Verify { checks }) => {
            let failed = checks.iter().filter(|check| !check.passed).count();
            let page = VerifyPage { shell: cx.shell("Verify", "verify").await, checks, failed };
            web::render(StatusCode::OK, &page)
        }
        Ok(other) => cx.problem("Verify", "verify", web::unexpected("Verify", &other)).await,
        Err(refused) => cx.problem("Verify", "verify", refused).await,
    }
}
