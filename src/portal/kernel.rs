//! Support, Kernel: what of the host matters to the node, what is amiss, and the command that mends it.

use crate::admin::Action;
use crate::admin::KernelCheck;
use crate::admin::Outcome;
use crate::admin::Verdict;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use askama::Template;
use axum::Extension;
use axum::http::StatusCode;
use axum::response::Response;

#[derive(Template)]
#[template(path = "kernel.html")]
struct KernelPage {
    shell: Shell,
    checks: Vec<CheckView>,
    hurts: usize,
    advice: usize,
}

struct CheckView {
    check: KernelCheck,
    /// The verdict in a word.
    word: &'static str,
    /// How its badge is coloured.
    kind: &'static str,
}

/// GET /support/kernel
pub async fn page(Extension(cx): Extension<Cx>) -> Response {
    match cx.ask(Action::Kernel).await {
        Ok(Outcome::Kernel { checks }) => {
            let of = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
            let (hurts, advice) = (of(Verdict::Hurts), of(Verdict::Advice));
            let checks = checks.into_iter().map(view).collect();
            let page = KernelPage { shell: cx.shell("Kernel", "kernel").await, checks, hurts, advice };
            web::render(StatusCode::OK, &page)
        }
        Ok(other) => cx.problem("Kernel", "kernel", web::unexpected("Kernel", &other)).await,
        Err(refused) => cx.problem("Kernel", "kernel", refused).await,
    }
}

fn view(check: KernelCheck) -> CheckView {
    let (word, kind) = match check.verdict {
        Verdict::Good => ("good", "good"),
        Verdict::Unknown => ("unknown", "plain"),
        Verdict::Advice => ("advice", "warn"),
        Verdict::Hurts => ("hurts", "bad"),
    };
    CheckView { check, word, kind }
}
