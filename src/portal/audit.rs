//! Audit (`/nodes/audit?name=NODE`): whether a node's records of a range are complete and unchanged.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::base::clock::Wall;
use crate::portal::filters::Filters;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use crate::portal::words;
use crate::report::AuditQuestion;
use crate::report::Finding;
use crate::report::Proof;
use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    name: String,
    from: String,
    to: String,
    faults: Vec<String>,
    proof: Option<ProofView>,
}

struct ProofView {
    holds: bool,
    records: String,
    numbers: String,
    place: String,
    head: String,
    notes: Vec<String>,
    findings: Vec<FindingView>,
    more: String,
}

struct FindingView {
    place: String,
    numbers: String,
    words: String,
}

/// GET /nodes/audit?name=NODE&from=TIME&to=TIME: the last day unless the address says otherwise.
pub async fn page(Extension(cx): Extension<Cx>, query: Query<BTreeMap<String, String>>) -> Response {
    let filters = Filters::read(&query);
    let mut page = AuditPage {
        shell: cx.shell("Audit", "nodes").await,
        name: query.get("name").cloned().unwrap_or_default(),
        from: filters.time_field("from"),
        to: filters.time_field("to"),
        faults: Vec::new(),
        proof: None,
    };
    let mut status = StatusCode::OK;
    match filters.question(Wall::now()) {
        Ok(range) => {
            let node = Some(page.name.clone()).filter(|name| !name.is_empty());
            let question = AuditQuestion { node, from_us: range.from_us, to_us: range.to_us };
            match cx.ask(Action::Audit(question)).await {
                Ok(Outcome::Audit(proof)) => page.proof = Some(view(*proof)),
                Ok(other) => page.faults.push(web::unexpected("Audit", &other).words),
                Err(refused) => {
                    status = web::status_of(&refused);
                    page.faults.push(words::sentence(&refused.words));
                }
            }
        }
        Err(faults) => (status, page.faults) = (StatusCode::UNPROCESSABLE_ENTITY, faults),
    }
    web::render(status, &page)
}

fn view(proof: Proof) -> ProofView {
    let notes = proof.notes().into_iter().map(|(count, words)| format!("{} {words}", words::count(count)));
    ProofView {
        holds: proof.holds(),
        records: words::count(proof.records),
        numbers: if proof.records > 0 { format!("{} to {}", proof.first, proof.last) } else { "none".to_string() },
        notes: notes.collect(),
        more: if proof.more_findings > 0 { words::count(proof.more_findings) } else { String::new() },
        place: proof.place,
        head: proof.head,
        findings: proof.findings.into_iter().map(finding).collect(),
    }
}

fn finding(finding: Finding) -> FindingView {
    let place = match (finding.file.is_empty(), finding.line) {
        (true, _) => "record store".to_string(),
        (false, 0) => finding.file,
        (false, line) => format!("{}, line {line}", finding.file),
    };
    let numbers = match (finding.first, finding.last) {
        (0, _) => String::new(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first} to {last}"),
    };
    FindingView { place, numbers, words: finding.words }
}
