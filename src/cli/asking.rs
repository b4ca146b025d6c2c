//! The commands that ask a running node: arguments to action, outcome to page and exit code.

use crate::admin::Action;
use crate::admin::ApplyHow;
use crate::admin::ExplainQuestion;
use crate::admin::Memory;
use crate::admin::Outcome;
use crate::admin::PolicySide;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::admin::RolloutEnd;
use crate::admin::Verdict;
use crate::admin::Waves;
use crate::base::clock::Wall;
use crate::base::durable;
use crate::cli::args::Admin;
use crate::cli::args::Ask;
use crate::cli::args::Command;
use crate::cli::args::FlushOf;
use crate::cli::args::How;
use crate::cli::args::Node;
use crate::cli::args::Params;
use crate::cli::args::Policy;
use crate::cli::args::Report;
use crate::cli::args::ReportAudit;
use crate::cli::args::ReportOf;
use crate::cli::args::RolloutOrder;
use crate::cli::colour;
use crate::cli::control;
use crate::cli::draining;
use crate::cli::fail;
use crate::cli::lb;
use crate::cli::local;
use crate::cli::paper::Paper;
use crate::cli::put;
use crate::cli::show;
use crate::cli::tasks;
use crate::cli::times;
use crate::cli::verifying;
use crate::cluster::membership::MembershipChange;
use crate::limits::ROLLOUT_FOLLOW_MS;
use crate::report::AuditQuestion;
use crate::report::Question;
use crate::settings;
use serde_json::Value;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Runs a command that asks a node.
pub fn run(ask: &Ask, command: Command) -> ExitCode {
    let socket = socket(ask);
    match command {
        Command::Status => status(ask, &socket),
        Command::Lb(lb) => lb::run(ask, &socket, lb),
        Command::Drain { node, wait } => draining::drain(ask, &socket, node, wait),
        Command::Undrain { node } => draining::undrain(ask, &socket, node),
        Command::Verify { cluster: true } => verifying::cluster(ask, &socket),
        Command::Task(task) => tasks::run(ask, &socket, task),
        Command::Kernel => kernel(ask, &socket),
        Command::Diagnostics { output, with_log } => diagnostics(ask, &socket, output, with_log),
        Command::Policy(Policy::Show { version }) => show_policy(ask, &socket, version),
        Command::Policy(Policy::Merge { file, base, output }) => merge(ask, &socket, &file, base, output.as_deref()),
        Command::Policy(Policy::Rollout { order: None, follow: true }) => follow(ask, &socket),
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
        Command::Verify { .. } => Action::Verify,
        Command::Nodes => Action::Nodes,
        Command::Connections { limit } => Action::Connections { limit },
        Command::Metrics { .. } => Action::Metrics,
        Command::Reload => Action::Reload,
        Command::Restart { backup } => Action::Restart { backup },
        Command::RotateLogs => Action::RotateLogs,
        Command::Flush { memory } => Action::Flush { memory: memory_of(memory) },
        Command::Node(Node::Remove { name }) => membership(MembershipChange::Remove, name),
        Command::Node(Node::Release { name }) => membership(MembershipChange::Release, name),
        Command::Node(Node::Readmit { name }) => membership(MembershipChange::Readmit, name),
        Command::Report(Report { what: Some(ReportOf::Audit(range)), .. }) => Action::Audit(range_of(range)?),
        Command::Report(report) => Action::Report(question(report)?),
        Command::Params(Params::Show) => Action::ParamsShow,
        Command::Params(Params::Set { values, force }) => {
            Action::ParamsSubmit { values: values.into_iter().collect(), force }
        }
        Command::Admin(Admin::Add { name }) => {
            let password = local::password(&name)?;
            Action::AdminAdd { user: name, password }
        }
        Command::Policy(policy) => policy_action(policy)?,
        // Everything else is dispatched before; were a command forgotten there, this is the friendliest that can be done.
        _ => Action::Status,
    })
}

fn memory_of(named: FlushOf) -> Memory {
    match named {
        FlushOf::Dns => Memory::Dns,
        FlushOf::Pools => Memory::Pools,
    }
}

fn policy_action(policy: Policy) -> Result<Action, String> {
    Ok(match policy {
        Policy::Check { file, .. } => Action::PolicyCheck { document: local::document(&file)? },
        Policy::Show { version } | Policy::Export { version, .. } => Action::PolicyShow { version },
        Policy::Diff { one, other } => comparing(one, other)?,
        Policy::Merge { file, base, .. } => Action::PolicyMerge { document: local::document(&file)?, base },
        Policy::Apply { file, message, base, how } => Action::PolicyApply {
            document: local::document(&file)?,
            comment: message.unwrap_or_default(),
            base,
            how: how_of(how),
        },
        Policy::Rollout { order: None, .. } => Action::PolicyRollout,
        Policy::Rollout { order: Some(RolloutOrder::Abort { message }), .. } => {
            Action::PolicyRolloutAbort { comment: message.unwrap_or_default() }
        }
        Policy::Rollout { order: Some(RolloutOrder::Skip { message }), .. } => {
            Action::PolicyRolloutSkip { comment: message.unwrap_or_default() }
        }
        Policy::Log { limit } => Action::PolicyLog { limit },
        Policy::Rollback { version, message, base, how } => {
            Action::PolicyRollback { to: version, comment: message.unwrap_or_default(), base, how: how_of(how) }
        }
        Policy::Explain { client, url, method, user, at, document, version } => Action::Explain(ExplainQuestion {
            client: client.to_string(),
            user,
            method: Some(method),
            url,
            at: at.map(|at| times::point(&at)).transpose()?.map(times::rfc3339),
            document: document.map(|file| local::document(&file)).transpose()?,
            version,
        }),
    })
}

fn how_of(how: How) -> ApplyHow {
    let window_s = how.window;
    ApplyHow { force: how.force, waves: how.waves.map(|sizes| Waves { sizes, window_s }) }
}

/// A file alone is what would come after the policy in force, a version alone what was before it.
fn comparing(one: String, other: Option<String>) -> Result<Action, String> {
    let one = side(one)?;
    Ok(match (other, &one) {
        (Some(other), _) => Action::PolicyDiff { from: one, to: side(other)? },
        (None, PolicySide::Version { .. }) => Action::PolicyDiff { from: one, to: PolicySide::InForce },
        (None, _) => Action::PolicyDiff { from: PolicySide::InForce, to: one },
    })
}

fn side(text: String) -> Result<PolicySide, String> {
    match text.parse() {
        Ok(version) => Ok(PolicySide::Version { version }),
        Err(_) => local::document(Path::new(&text)).map(|document| PolicySide::Document { document }),
    }
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
        rows_only: false,
        after: None,
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
        Outcome::Rollout { rollout: Some(rollout) } => rollout.end != Some(RolloutEnd::Reverted),
        Outcome::Merged { overlaps, .. } => *overlaps == 0,
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

/// The merged document goes where it is wanted, what is to be known about it to standard error.
fn merge(ask: &Ask, socket: &Path, file: &Path, base: u64, output: Option<&Path>) -> ExitCode {
    let document = match local::document(file) {
        Ok(document) => document,
        Err(words) => return fail(&words),
    };
    let answer = control::ask(socket, &Action::PolicyMerge { document, base });
    let Ok(Ok(Outcome::Merged { document, version, overlaps })) = answer else { return refuse(ask, answer) };
    if ask.json {
        return finish(ask, Ok(Ok(Outcome::Merged { document, version, overlaps })));
    }
    let written = match output {
        None => put(document.as_bytes()),
        Some(path) => match durable::replace(path, document.as_bytes(), 0o644) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => return fail(&format!("writing {} failed: {error}", path.display())),
        },
    };
    let words = match overlaps {
        0 => format!("Merged with version {version}: check it, then apply it with --base {version}."),
        _ => format!(
            "Merged with version {version}, but both changed the same lines at {overlaps} place(s): choose between the marks (<<<<<<<), then \
             apply with --base {version}."
        ),
    };
    let _ = writeln!(io::stderr(), "{words}");
    worse(written, overlaps == 0)
}

/// Prints each line of what happens once, until the rollout ends or the command is.
fn follow(ask: &Ask, socket: &Path) -> ExitCode {
    let mut told = 0;
    loop {
        let answer = control::ask(socket, &Action::PolicyRollout);
        let rollout = match &answer {
            Ok(Ok(Outcome::Rollout { rollout: Some(rollout) })) => rollout,
            _ => return finish(ask, answer),
        };
        if rollout.end.is_some() && ask.json {
            return finish(ask, answer);
        }
        if !ask.json {
            for words in rollout.notes.iter().skip(told) {
                let _ = put(format!("{words}\n").as_bytes());
            }
            told = rollout.notes.len();
        }
        if let Some(end) = rollout.end {
            return worse(ExitCode::SUCCESS, end == RolloutEnd::Done);
        }
        std::thread::sleep(Duration::from_millis(ROLLOUT_FOLLOW_MS));
    }
}
