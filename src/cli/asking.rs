//! The commands that ask a running node: arguments to action, outcome to page and exit code.

use crate::admin::Action;
use crate::admin::ExplainQuestion;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::admin::Verdict;
use crate::base::clock::Wall;
use crate::base::durable;
use crate::cli::args::Admin;
use crate::cli::args::Ask;
use crate::cli::args::Command;
use crate::cli::args::Node;
use crate::cli::args::Params;
use crate::cli::args::Policy;
use crate::cli::args::Report;
use crate::cli::args::ReportAudit;
use crate::cli::args::ReportOf;
use crate::cli::colour;
use crate::cli::control;
use crate::cli::draining;
use crate::cli::fail;
use crate::cli::lb;
use crate::cli::local;
use crate::cli::paper::Paper;
use crate::cli::put;
use crate::cli::show;
use crate::cli::times;
use crate::cluster::membership::MembershipChange;
use crate::report::AuditQuestion;
use crate::report::Question;
use crate::settings;
use serde_json::Value;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs a command that asks a node.
pub fn run(ask: &Ask, command: Command) -> ExitCode {
    let socket = socket(ask);
    match command {
        Command::Status => status(ask, &socket),
        Command::Lb(lb) => lb::run(ask, &socket, lb),
        Command::Drain { node, wait } => draining::drain(ask, &socket, node, wait),
        Command::Kernel => kernel(ask, &socket),
        Command::Diagnostics { output, with_log } => diagnostics(ask, &socket, output, with_log),
        Command::Policy(Policy::Show { version }) => show_policy(ask, &socket, version),
        Command::Policy(Policy::Export { version, output }) => export(ask, &socket, version, output.as_deref()),
        other => match action(other) {
            Ok(action) => finish(ask, control::ask(&socket, &action)),
            Err(words) => fail(&words),
        },
    }
}

/// `policy check`: by the node, which has the list files, or here if there is none.
pub fn check(ask: &Ask, file: &Path, offline: bool) -> ExitCode {
    let document = match local::document(file) {
        Ok(document) => document,
        Err(words) => return fail(&words),
    };
    if !offline {
        match control::ask(&socket(ask), &Action::PolicyCheck { document: document.clone() }) {
            Err(error) if error.is_no_node() && ask.control.is_none() => {
                let _ = writeln!(
                    io::stderr(),
                    "tidegate: no node runs here; checking without one, list files beside the document"
                );
            }
            answer => return finish(ask, answer),
        }
    }
    finish(ask, Ok(Ok(Outcome::Checked { complaints: local::check(file, &document) })))
}

/// Where the node is asked.
fn socket(ask: &Ask) -> PathBuf {
    if let Some(path) = &ask.control {
        return path.clone();
    }
    let file = Path::new(settings::DEFAULT_FILE);
    settings::run_dir(file).unwrap_or_else(|| PathBuf::from("/run/tidegate")).join("control.sock")
}

/// The action a command stands for.
fn membership(change: MembershipChange, node: String) -> Action {
    Action::Membership { change, node }
}

fn action(command: Command) -> Result<Action, String> {
    Ok(match command {
        Command::Verify => Action::Verify,
        Command::Nodes => Action::Nodes,
        Command::Metrics { .. } => Action::Metrics,
        Command::Reload => Action::Reload,
        Command::Restart { backup } => Action::Restart { backup },
        Command::Undrain { node } => Action::Undrain { node },
        Command::Node(Node::Remove { name }) => membership(MembershipChange::Remove, name),
        Command::Node(Node::Release { name }) => membership(MembershipChange::Release, name),
        Command::Node(Node::Readmit { name }) => membership(MembershipChange::Readmit, name),
        Command::Report(Report { what: Some(ReportOf::Audit(range)), .. }) => Action::Audit(range_of(range)?),
        Command::Report(report) => Action::Report(question(report)?),
        Command::Params(Params::Show) => Action::ParamsShow,
        Command::Params(Params::Set { values }) => Action::ParamsSubmit { values: values.into_iter().collect() },
        Command::Admin(Admin::Add { name }) => {
            let password = local::password(&name)?;
            Action::AdminAdd { user: name, password }
        }
        Command::Policy(policy) => policy_action(policy)?,
        // Everything else is dispatched before; were a command forgotten there, this is the friendliest that can be done.
        _ => Action::Status,
    })
}

fn policy_action(policy: Policy) -> Result<Action, String> {
    Ok(match policy {
        Policy::Check { file, .. } => Action::PolicyCheck { document: local::document(&file)? },
        Policy::Show { version } | Policy::Export { version, .. } => Action::PolicyShow { version },
        Policy::Diff { file } => Action::PolicyDiff { document: local::document(&file)? },
        Policy::Apply { file, message, base } => {
            Action::PolicyApply { document: local::document(&file)?, comment: message.unwrap_or_default(), base }
        }
        Policy::Log { limit } => Action::PolicyLog { limit },
        Policy::Rollback { version, message } => {
            Action::PolicyRollback { to: version, comment: message.unwrap_or_default() }
        }
        Policy::Explain { client, url, method, user, at, document } => Action::Explain(ExplainQuestion {
            client: client.to_string(),
            user,
            method: Some(method),
            url,
            at: at.map(|at| times::point(&at)).transpose()?.map(times::rfc3339),
            document: document.map(|file| local::document(&file)).transpose()?,
        }),
    })
}

fn question(report: Report) -> Result<Question, String> {
    let point = |text: Option<String>| text.map(|text| times::point(&text)).transpose();
    let from = match &report.last {
        Some(span) => Some(Wall(Wall::now().0.saturating_sub(times::span(span)?))),
        None => point(report.from)?,
    };
    Ok(Question {
        from_us: from.map(|time| time.0),
        to_us: point(report.to)?.map(|time| time.0),
        node: report.node,
        host: report.host,
        user: report.user,
        category: report.category,
        client: report.client,
        rule: report.rule,
        status: report.status,
        blocked: report.blocked.then_some(true),
        top: Some(report.top),
        newest: Some(report.newest),
    })
}

fn range_of(range: ReportAudit) -> Result<AuditQuestion, String> {
    let point = |text: Option<String>| text.map(|text| times::point(&text)).transpose();
    let (from_us, to_us) = (point(range.from)?.map(|time| time.0), point(range.to)?.map(|time| time.0));
    Ok(AuditQuestion { node: range.node, from_us, to_us })
}

/// What came of asking a node.
pub type Answered = Result<Result<Outcome, Refused>, control::ControlError>;

/// Prints an answer and turns it into an exit code.
pub fn finish(ask: &Ask, answer: Answered) -> ExitCode {
    match answer {
        Ok(Ok(outcome)) if ask.json => print_json(&outcome, holds(&outcome)),
        Ok(Ok(outcome)) => {
            let mut paper = Paper::new(colour(&io::stdout()));
            show::outcome(&mut paper, &outcome);
            worse(put(paper.into_text().as_bytes()), holds(&outcome))
        }
        other => refuse(ask, other),
    }
}

/// Whether the outcome is good news: a checklist with a failure and a document with a fault are answers, yet exit with 1.
fn holds(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Audit(proof) => proof.holds(),
        Outcome::Verify { checks } => checks.iter().all(|check| check.passed),
        Outcome::Kernel { checks } => checks.iter().all(|check| check.verdict < Verdict::Hurts),
        Outcome::Checked { complaints } | Outcome::Diff { complaints, .. } => complaints.is_empty(),
        _ => true,
    }
}

fn refuse(ask: &Ask, answer: Answered) -> ExitCode {
    let refused = match answer {
        Ok(Ok(_)) => return ExitCode::SUCCESS,
        Ok(Err(refused)) => refused,
        Err(error) if !ask.json => return fail(&error.to_string()),
        Err(error) => Refused { kind: RefusedKind::Failed, words: error.to_string(), complaints: Vec::new() },
    };
    if ask.json {
        return print_json(&refused, false);
    }
    let mut paper = Paper::new(colour(&io::stderr()));
    show::refused(&mut paper, &refused);
    let _ = io::stderr().write_all(paper.into_text().as_bytes());
    ExitCode::FAILURE
}

fn print_json(value: &impl serde::Serialize, good: bool) -> ExitCode {
    match serde_json::to_string(value) {
        Ok(text) => worse(put(format!("{text}\n").as_bytes()), good),
        Err(error) => fail(&format!("the answer cannot be written as JSON: {error}")),
    }
}

fn worse(printed: ExitCode, good: bool) -> ExitCode {
    if good { printed } else { ExitCode::FAILURE }
}

/// A master's status has its nodes below; with --json they are the field `nodes`.
fn status(ask: &Ask, socket: &Path) -> ExitCode {
    let outcome = match control::ask(socket, &Action::Status) {
        Ok(Ok(outcome)) => outcome,
        other => return refuse(ask, other),
    };
    let is_master = matches!(&outcome, Outcome::Status(status) if status.role == "master");
    // Status is worth showing also when the list of nodes cannot be had.
    let nodes = match is_master.then(|| control::ask(socket, &Action::Nodes)) {
        Some(Ok(Ok(Outcome::Nodes { nodes }))) => nodes,
        _ => Vec::new(),
    };
    if ask.json {
        let Ok(mut value) = serde_json::to_value(&outcome) else { return fail("the status cannot be written as JSON") };
        if let (Value::Object(fields), Ok(nodes)) = (&mut value, serde_json::to_value(&nodes)) {
            fields.insert("nodes".to_string(), nodes);
        }
        return print_json(&value, true);
    }
    let mut paper = Paper::new(colour(&io::stdout()));
    show::outcome(&mut paper, &outcome);
    if !nodes.is_empty() {
        paper.heading("Nodes");
        show::nodes(&mut paper, &nodes);
    }
    put(paper.into_text().as_bytes())
}

/// The document with a comment above it that says which one it is; still a document.
fn show_policy(ask: &Ask, socket: &Path, version: Option<u64>) -> ExitCode {
    match control::ask(socket, &Action::PolicyShow { version }) {
        Ok(Ok(Outcome::Policy(policy))) if !ask.json => {
            let mut paper = Paper::new(colour(&io::stdout()));
            let origin = if policy.origin.is_empty() { String::new() } else { format!(", {}", policy.origin) };
            paper.line(&format!("# policy {}{origin}", policy.snapshot));
            paper.block(&policy.document);
            put(paper.into_text().as_bytes())
        }
        answer => finish(ask, answer),
    }
}

/// The node looks, since its limits are what counts; without one, this process does.
fn kernel(ask: &Ask, socket: &Path) -> ExitCode {
    match control::ask(socket, &Action::Kernel) {
        Err(error) if error.is_no_node() && ask.control.is_none() => {
            let _ = writeln!(io::stderr(), "tidegate: no node runs here; looking at the host without one");
            finish(ask, Ok(Ok(Outcome::Kernel { checks: local::kernel() })))
        }
        answer => finish(ask, answer),
    }
}

fn diagnostics(ask: &Ask, socket: &Path, output: Option<PathBuf>, with_log: bool) -> ExitCode {
    let diagnostics = match control::ask(socket, &Action::Diagnostics { with_log }) {
        Ok(Ok(Outcome::Diagnostics(diagnostics))) => *diagnostics,
        Ok(Ok(_)) => return fail("the node answered something else than diagnostics; use the command of its version"),
        other => return refuse(ask, other),
    };
    let path = match local::keep_diagnostics(&diagnostics, output) {
        Ok(path) => path,
        Err(words) => return fail(&words),
    };
    if ask.json {
        let file = path.display().to_string();
        return print_json(&serde_json::json!({ "file": file, "contents": diagnostics.contents }), true);
    }
    let mut paper = Paper::new(colour(&io::stdout()));
    show::diagnostics(&mut paper, &path, &diagnostics);
    put(paper.into_text().as_bytes())
}

fn export(ask: &Ask, socket: &Path, version: Option<u64>, output: Option<&Path>) -> ExitCode {
    let policy = match control::ask(socket, &Action::PolicyShow { version }) {
        Ok(Ok(Outcome::Policy(policy))) => policy,
        Ok(Ok(_)) => return fail("the node answered something else than a policy; use the command of its version"),
        other => return refuse(ask, other),
    };
    let Some(path) = output else { return put(policy.document.as_bytes()) };
    match durable::replace(path, policy.document.as_bytes(), 0o644) {
        Ok(()) => put(format!("Wrote {} to {}.\n", policy.snapshot, path.display()).as_bytes()),
        Err(error) => fail(&format!("writing {} failed: {error}", path.display())),
    }
}
