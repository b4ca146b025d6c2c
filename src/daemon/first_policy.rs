//! What a node enforces when it starts: the policy it has, and a slave's own sections.

use crate::base::clock::Wall;
use crate::cluster::held;
use crate::limits::HELD_SNAPSHOTS;
use crate::limits::POLICY_LOG_ROWS_MAX;
use crate::policy::OwnSections;
use crate::policy::Snapshot;
use crate::settings::Settings;
use crate::store::policies::Policies;
use std::sync::Arc;

/// What to enforce until something newer comes: the history's newest, or what the master sent last; otherwise the
/// built-in policy that denies everything. Also when that came, and what was wrong with newer ones.
pub fn first_snapshot(
    settings: &Settings,
    policies: Option<&Policies>,
    own: Option<Arc<OwnSections>>,
) -> (Arc<Snapshot>, Wall, String) {
    let (held, synced, trouble) = match policies {
        Some(policies) => match newest_of(policies) {
            Ok(held) => (held, Wall::default(), String::new()),
            Err(words) => (None, Wall::default(), words),
        },
        None => match held::load(&settings.state_dir) {
            Some(held) => (Some(held.snapshot), held.synced, held.trouble),
            None => (None, Wall::default(), String::new()),
        },
    };
    if !trouble.is_empty() {
        tracing::error!(event = "policy-kept", "{trouble}");
    }
    let snapshot = held.unwrap_or_else(|| {
        tracing::warn!(
            event = "policy-missing",
            "no policy is held: every client is denied until one is applied or comes from the master"
        );
        Snapshot::builtin()
    });
    tracing::info!(event = "policy-in-force", snapshot = %snapshot.name(), "policy {} is in force", snapshot.name());
    (Arc::new(snapshot.with_own(own)), synced, trouble)
}

/// A slave's own sections, if NEVER_SYNC names any.
pub fn own_sections(settings: &Settings) -> Result<Option<Arc<OwnSections>>, String> {
    if settings.never_sync.is_empty() {
        return Ok(None);
    }
    let path = &settings.own_sections_file;
    let document = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "reading {}: {error}. NEVER_SYNC names sections that this node has of its own: write them there (OWN_SECTIONS_FILE), \
             or empty NEVER_SYNC",
            path.display()
        )
    })?;
    match OwnSections::compile(&document, &settings.never_sync) {
        Ok(own) => Ok(Some(Arc::new(own))),
        Err(complaints) => {
            let lines = complaints
                .iter()
                .map(|c| format!("{}:{}: {}: {}; {}", path.display(), c.line, c.place, c.what, c.remedy));
            Err(lines.collect::<Vec<_>>().join("\n  "))
        }
    }
}

/// The newest version of the history whose snapshot is whole. A damaged one is compiled again from its document by the
/// administrator's next apply; meanwhile an older good one is better than denying everybody.
fn newest_of(policies: &Policies) -> Result<Option<Snapshot>, String> {
    let mut troubles = Vec::new();
    // One whose rollout was called back is not in force, however new it is.
    let versions = policies.log(POLICY_LOG_ROWS_MAX).map_err(|error| error.0)?;
    for version in versions.into_iter().filter(|version| !version.reverted).take(HELD_SNAPSHOTS) {
        match Snapshot::open_held(&policies.snapshot_path(&version.snapshot)) {
            Ok(snapshot) => {
                troubles.iter().for_each(|words| tracing::error!(event = "policy-kept", "{words}"));
                return Ok(Some(snapshot));
            }
            Err(error) => troubles.push(format!(
                "the snapshot of policy {name} cannot be used: {error}. `tidegate policy rollback {number}` compiles the same \
                 document again",
                name = version.snapshot,
                number = version.version
            )),
        }
    }
    if troubles.is_empty() { Ok(None) } else { Err(troubles.join("; ")) }
}
