//! Support, Startup Params: view, edit, submit.

use crate::admin::Action;
use crate::admin::Complaint;
use crate::admin::Outcome;
use crate::admin::Param;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Fields;
use crate::portal::web::STALE;
use crate::portal::web::Shell;
use crate::portal::words;
use askama::Template;
use axum::Extension;
use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;

#[derive(Template)]
#[template(path = "params.html")]
struct ParamsPage {
    shell: Shell,
    file: String,
    error: String,
    locks_out: bool,
    /// Complaints about nothing that has a field here.
    others: Vec<Complaint>,
    params: Vec<ParamView>,
    faults: usize,
}

struct ParamView {
    key: String,
    /// What stands in the field: the file's value, or what was typed and refused.
    value: String,
    /// What stood in the field when the page was made: only what differs from it is submitted.
    was: String,
    default: String,
    help: String,
    accepts: String,
    restart: bool,
    in_force: Option<String>,
    errors: Vec<String>,
}

/// GET /support/params
pub async fn params(Extension(cx): Extension<Cx>) -> Response {
    params_page(&cx, None, None).await
}

/// POST /support/params
pub async fn submit(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        let refused = Refused { kind: RefusedKind::NotAllowed, words: STALE.into(), complaints: vec![] };
        return params_page(&cx, Some(&fields), Some(refused)).await;
    }
    let values = changed(&fields);
    if values.is_empty() {
        return cx.done("No value was changed, so nothing was written.".to_string(), "/support/params");
    }
    match cx.ask(Action::ParamsSubmit { values, force: fields.get("force") == "yes" }).await {
        Ok(Outcome::Submitted { live, waiting }) => cx.done(submitted(&live, &waiting), "/support/params"),
        Ok(other) => params_page(&cx, Some(&fields), Some(web::unexpected("ParamsSubmit", &other))).await,
        Err(refused) => params_page(&cx, Some(&fields), Some(refused)).await,
    }
}

/// The fields whose value is not what the page showed: somebody else's change of another key stays.
fn changed(fields: &Fields) -> BTreeMap<String, String> {
    let typed = fields.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("param.")?, value)));
    typed
        .filter(|(key, value)| fields.get(&format!("was.{key}")) != value.as_str())
        .map(|(key, value)| (key.to_string(), value.clone()))
        .collect()
}

fn submitted(live: &[String], waiting: &[String]) -> String {
    let mut words = "Saved.".to_string();
    if !live.is_empty() {
        words.push_str(&format!(" In force now: {}.", live.join(", ")));
    }
    if !waiting.is_empty() {
        words.push_str(&format!(" In force after a restart: {}.", waiting.join(", ")));
    }
    words
}

async fn params_page(cx: &Cx, typed: Option<&Fields>, refused: Option<Refused>) -> Response {
    let (file, params) = match cx.ask(Action::ParamsShow).await {
        Ok(Outcome::Params { file, params }) => (file, params),
        Ok(other) => return cx.problem("Startup Params", "params", web::unexpected("ParamsShow", &other)).await,
        Err(refused) => return cx.problem("Startup Params", "params", refused).await,
    };
    let status = refused.as_ref().map_or(StatusCode::OK, web::status_of);
    let locks_out = refused.as_ref().is_some_and(|refused| refused.kind == RefusedKind::LocksOut);
    let (error, complaints) = refused.map_or((String::new(), vec![]), |refused| (refused.words, refused.complaints));
    let params: Vec<ParamView> = params.into_iter().map(|param| view(param, typed, &complaints)).collect();
    let has_field = |complaint: &Complaint| params.iter().any(|param| param.key == complaint.place);
    let (own, others): (Vec<_>, Vec<_>) = complaints.into_iter().partition(has_field);
    let shell = cx.shell("Startup Params", "params").await;
    web::render(status, &ParamsPage { shell, file, error, locks_out, faults: own.len(), others, params })
}

fn view(param: Param, typed: Option<&Fields>, complaints: &[Complaint]) -> ParamView {
    let field = |prefix: &str| {
        let name = format!("{prefix}.{}", param.key);
        typed.and_then(|fields| fields.0.iter().find(|(key, _)| *key == name)).map(|(_, value)| value.clone())
    };
    let errors = complaints.iter().filter(|complaint| complaint.place == param.key);
    ParamView {
        value: field("param").unwrap_or_else(|| param.value.clone()),
        was: field("was").unwrap_or_else(|| param.value.clone()),
        errors: errors
            .map(|complaint| {
                words::sentence(&format!("{}; accepted: {}", complaint.what.trim_end_matches('.'), complaint.remedy))
            })
            .collect(),
        key: param.key,
        default: param.default,
        help: param.help,
        accepts: param.accepts,
        restart: param.restart,
        in_force: param.in_force,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_changed_on_the_page_is_submitted() {
        let pairs = [
            ("csrf", "x"),
            ("was.CORES", "2"),
            ("param.CORES", "4"),
            ("was.LISTEN_IP", "*"),
            ("param.LISTEN_IP", "*"),
            ("param.NEW", "1"),
        ];
        let fields = Fields(pairs.map(|(key, value)| (key.to_string(), value.to_string())).to_vec());
        let expected = [("CORES", "4"), ("NEW", "1")].map(|(key, value)| (key.to_string(), value.to_string()));
        assert_eq!(changed(&fields), BTreeMap::from(expected));
    }
}
