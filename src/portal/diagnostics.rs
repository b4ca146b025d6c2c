//! Support, Diagnostics: what a support desk asks for, as one download.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Fields;
use crate::portal::web::Shell;
use askama::Template;
use axum::Extension;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use data_encoding::BASE64;

#[derive(Template)]
#[template(path = "diagnostics.html")]
struct DiagnosticsPage {
    shell: Shell,
}

/// GET /support/diagnostics
pub async fn page(Extension(cx): Extension<Cx>) -> Response {
    web::render(StatusCode::OK, &DiagnosticsPage { shell: cx.shell("Diagnostics", "diagnostics").await })
}

/// POST /support/diagnostics: a form, since gathering costs the node something and another site must not make a browser do it.
pub async fn download(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        return cx.stale("Diagnostics", "diagnostics").await;
    }
    let with_log = fields.get("with_log") == "yes";
    let diagnostics = match cx.ask(Action::Diagnostics { with_log }).await {
        Ok(Outcome::Diagnostics(diagnostics)) => *diagnostics,
        Ok(other) => return cx.problem("Diagnostics", "diagnostics", web::unexpected("Diagnostics", &other)).await,
        Err(refused) => return cx.problem("Diagnostics", "diagnostics", refused).await,
    };
    let named = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", diagnostics.file_name));
    match (BASE64.decode(diagnostics.archive.as_bytes()), named) {
        (Ok(archive), Ok(named)) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/gzip")),
                (header::CONTENT_DISPOSITION, named),
            ];
            (StatusCode::OK, headers, archive).into_response()
        }
        _ => {
            let outcome = Outcome::Diagnostics(Box::new(diagnostics));
            cx.problem("Diagnostics", "diagnostics", web::unexpected("Diagnostics", &outcome)).await
        }
    }
}
