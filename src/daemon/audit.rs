//! config.log: who changed what, on which node, and how it ended. Quoted TAB-separated columns, a header on the first line.

use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::ApplyHow;
use crate::admin::Refused;
use crate::admin::TaskAction;
use crate::base::clock::Wall;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

const COLUMNS: [&str; 6] = ["timestamp", "node", "who", "action", "arguments", "outcome"];

/// Appends to config.log.
pub struct Audit {
    path: PathBuf,
    node: String,
}

impl Audit {
    /// `config.log` in `log_dir`.
    pub fn new(log_dir: &Path, node: &str) -> Self {
        Audit { path: log_dir.join("config.log"), node: node.to_string() }
    }

    /// Writes one line. Secrets and whole documents are not in it: [`words`] decides what is.
    pub fn note(&self, actor: &Actor, action: &Action, outcome: Result<(), &Refused>) {
        let (name, arguments) = words(action);
        let outcome = match outcome {
            Ok(()) => "done".to_string(),
            Err(refused) => format!("refused: {}", refused.words),
        };
        self.write(&who(actor), name, &arguments, &outcome);
    }

    /// Writes one line for what the cluster did: a policy that came, a refusal, contact lost and found.
    pub fn event(&self, name: &str, arguments: &str, outcome: &str) {
        self.write("the cluster", name, arguments, outcome);
    }

    fn write(&self, who: &str, name: &str, arguments: &str, outcome: &str) {
        let time = jiff::Timestamp::from_microsecond(Wall::now().0).unwrap_or_default().to_string();
        let line = line(&[&time, &self.node, who, name, arguments, outcome]);
        if let Err(error) = self.append(&line) {
            tracing::error!(
                event = "config-log-trouble",
                "writing {}: {error}; {name} by {who} is not in it",
                self.path.display()
            );
        }
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?;
        let header = if file.metadata()?.len() == 0 { self::line(&COLUMNS) } else { String::new() };
        // One write, so that lines of two actors never mix.
        file.write_all(format!("{header}{line}").as_bytes())
    }
}

/// Who asks, in one word for the log.
pub fn who(actor: &Actor) -> String {
    match actor {
        Actor::Local { uid, user } => format!("{user} (uid {uid}) on this host"),
        Actor::Administrator { user, address, .. } => format!("{user}@{address}"),
        Actor::Visitor { address } => format!("anonymous@{address}"),
        Actor::Master { master, by, task } => format!("{by}, by task {task} of the master {master}"),
    }
}

fn words(action: &Action) -> (&'static str, String) {
    match action {
        Action::PolicyApply { document, comment, base, how } => {
            ("policy-apply", format!("{} bytes, base {base:?}{}: {comment}", document.len(), how_words(how)))
        }
        Action::PolicyRollback { to, comment, how, .. } => {
            ("policy-rollback", format!("to {to}{}: {comment}", how_words(how)))
        }
        Action::ParamsSubmit { values, force } => {
            let said = values.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
            ("params-submit", if *force { format!("{said}, forced") } else { said })
        }
        Action::Reload => ("reload", String::new()),
        Action::Restart { backup } => ("restart", format!("backup {backup}")),
        Action::AdminAdd { user, .. } => ("admin-add", user.clone()),
        Action::Login { user, .. } => ("login", user.clone()),
        Action::Drain { node } => ("drain", node.clone().unwrap_or_default()),
        Action::Undrain { node } => ("undrain", node.clone().unwrap_or_default()),
        Action::Flush { memory } => ("flush", memory.to_string()),
        Action::Task(TaskAction::Order { order, on, life_s }) => {
            let life = life_s.map(|life_s| format!(", for {life_s} s")).unwrap_or_default();
            ("task-order", format!("{order} on {on}{life}"))
        }
        Action::RotateLogs => ("rotate-logs", String::new()),
        Action::Backup => ("backup", String::new()),
        Action::Task(TaskAction::Output { id, node }) => ("task-output", format!("{id} of {node}")),
        Action::Task(TaskAction::Cancel { id }) => ("task-cancel", id.clone()),
        Action::Task(_) => ("task", String::new()),
        Action::Membership { change, node } => ("membership", format!("{change} {node}")),
        Action::Health { .. } => ("health", String::new()),
        Action::ProxyScript { .. } => ("proxy-script", String::new()),
        Action::FiguresOfDay { .. } => ("figures-of-day", String::new()),
        Action::Metrics => ("metrics", String::new()),
        Action::Status => ("status", String::new()),
        Action::Nodes => ("nodes", String::new()),
        Action::Verify => ("verify", String::new()),
        Action::Connections { limit } => ("connections", limit.to_string()),
        Action::Kernel => ("kernel", String::new()),
        Action::Diagnostics { with_log } => ("diagnostics", format!("with log {with_log}")),
        Action::PolicyShow { .. } => ("policy-show", String::new()),
        Action::PolicyCheck { .. } => ("policy-check", String::new()),
        Action::PolicyDiff { .. } => ("policy-diff", String::new()),
        Action::PolicyRollout => ("policy-rollout", String::new()),
        Action::PolicyRolloutAbort { comment } => ("policy-rollout-abort", comment.clone()),
        Action::PolicyRolloutSkip { comment } => ("policy-rollout-skip", comment.clone()),
        Action::PolicyMerge { .. } => ("policy-merge", String::new()),
        Action::PolicyLog { .. } => ("policy-log", String::new()),
        Action::Explain(_) => ("explain", String::new()),
        Action::Report(_) => ("report", String::new()),
        Action::Audit(_) => ("audit", String::new()),
        Action::ParamsShow => ("params-show", String::new()),
    }
}

fn how_words(how: &ApplyHow) -> String {
    let waves = how.waves.as_ref();
    let waves = waves.map(|waves| format!(", in waves {} of {} s", waves.sizes, waves.window_s)).unwrap_or_default();
    format!("{waves}{}", if how.force { ", forced" } else { "" })
}

fn line(values: &[&str]) -> String {
    let mut text = values.iter().map(|value| format!("\"{}\"", escaped(value))).collect::<Vec<_>>().join("\t");
    text.push('\n');
    text
}

/// Nobody forges a column or a line by what they type into a comment.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            control if control.is_control() => text.extend(control.escape_unicode()),
            plain => text.push(plain),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_forges_neither_column_nor_line_and_a_password_is_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::new(dir.path(), "node-1");
        let actor = Actor::Administrator { user: "alice".into(), address: "10.0.0.9".into(), reached: None };
        let comment = "why\"\t\"not\"\n\"forged\"".to_string();
        audit.note(&actor, &Action::PolicyRollback { to: 3, comment, base: None, how: ApplyHow::default() }, Ok(()));
        let add = Action::AdminAdd { user: "bob".into(), password: "correct horse".into() };
        let refused = Refused {
            kind: crate::admin::RefusedKind::NotAllowed,
            words: "not from the portal".into(),
            complaints: Vec::new(),
        };
        audit.note(&actor, &add, Err(&refused));
        let text = std::fs::read_to_string(dir.path().join("config.log")).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| line.split('\t').count() == COLUMNS.len()), "{text}");
        assert!(!text.contains("horse"), "{text}");
    }
}
