//! `tidegate report audit`: whether a node's records are complete and unchanged.

use super::desk::NodeDesk;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::log;
use crate::report;
use crate::report::AuditQuestion;
use crate::report::Proof;
use crate::settings::Role;

/// On the node itself its files; on a master what it has stored; on a stand-alone node both.
pub async fn audit(desk: &NodeDesk, question: &AuditQuestion) -> Result<Outcome, Refused> {
    report::check_audit(question).map_err(Refused::invalid)?;
    let own_name = desk.facts.name.clone();
    let name = question.node.clone().unwrap_or_else(|| own_name.clone());
    let own = name == own_name && desk.facts.role != Role::Master;
    let records = desk.records.clone();
    if !own && records.is_none() {
        return Err(Refused::wrong_role(format!(
            "this node is {own_name}, a slave, and has its own records only: ask on {name}, or on the master"
        )));
    }
    if question.node.is_none() && !own {
        return Err(Refused::invalid("the master writes no records of its own: say whose are meant with --node NAME"));
    }
    let question = AuditQuestion { node: Some(name.clone()), ..question.clone() };
    let log_dir = desk.facts.log_dir.clone();
    // It reads files for long: on a thread that may.
    let looking = tokio::task::spawn_blocking(move || {
        let files = if own { Some(log::audit::audit(&log_dir, &question)) } else { None };
        let files = files.transpose().map_err(|error| {
            format!("auditing extended.log in {}: {error}. See that the files can be read.", log_dir.display())
        })?;
        let stored = records.map(|records| records.audit(&question).map_err(|error| error.to_string())).transpose()?;
        Ok::<Proof, String>(both(files, stored.unwrap_or_default()))
    });
    match looking.await {
        Ok(Ok(proof)) if proof.records == 0 && proof.files == 0 && proof.holds() => Err(Refused::new(
            RefusedKind::NotFound,
            format!("no record of {name} in this range is kept here: see the node's name and the range"),
        )),
        Ok(Ok(proof)) => Ok(Outcome::Audit(Box::new(Proof { node: name, ..proof }))),
        Ok(Err(words)) => Err(Refused::failed(words)),
        Err(error) => Err(Refused::failed(format!("auditing: {error}"))),
    }
}

/// The files' proof with what the store misses; the store's alone if there are no files.
fn both(files: Option<Proof>, stored: Proof) -> Proof {
    let Some(mut proof) = files else { return stored };
    for mut finding in stored.findings {
        finding.file = "records.db".to_string();
        proof.find(finding);
    }
    proof.more_findings += stored.more_findings;
    proof
}
