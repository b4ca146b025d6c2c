//! The Policy pages: what is in force, the editor with Check, Diff and Apply, the history and the way back.

use crate::admin::Action;
use crate::admin::ApplyHow;
use crate::admin::Complaint;
use crate::admin::Outcome;
use crate::admin::PolicySide;
use crate::admin::PolicyText;
use crate::admin::PolicyVersion;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::admin::Waves;
use crate::base::clock::Wall;
use crate::limits::PORTAL_HISTORY_ROWS_MAX;
use crate::limits::ROLLOUT_WINDOW_S;
use crate::portal::lines;
use crate::portal::lines::Diff;
use crate::portal::lines::Document;
use crate::portal::lines::Line;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Fields;
use crate::portal::web::STALE;
use crate::portal::web::Shell;
use crate::portal::words;
use crate::portal::words::Moment;
use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;

type Params = Query<BTreeMap<String, String>>;

#[derive(Template)]
#[template(path = "policy.html")]
struct PolicyPage {
    shell: Shell,
    slave: bool,
    /// An older version than the one in force is shown.
    older: bool,
    version: u64,
    snapshot: String,
    /// On a slave: the address of its master.
    master: String,
    synced: Option<Moment>,
    document: Document,
}

#[derive(Template)]
#[template(path = "policy_edit.html")]
struct EditPage {
    shell: Shell,
    document: String,
    comment: String,
    base: String,
    /// What was found, in a sentence; empty before anything was asked.
    verdict: String,
    /// `good` or `bad`.
    tone: &'static str,
    complaints: Vec<Complaint>,
    more: usize,
    excerpts: Vec<Vec<Line>>,
    marks: String,
    diff: Option<Diff>,
    /// What somebody else applied meanwhile.
    conflict: Option<Conflict>,
    /// The apply was refused because it would lock somebody out.
    locks_out: bool,
    /// What was typed into the fields of a rollout in waves.
    waves: String,
    window: u64,
}

/// What was applied since an edit began.
struct Conflict {
    /// The version in force.
    version: u64,
    /// The one that the edit began from.
    base: u64,
    /// Who applied what since, newest first.
    since: Vec<VersionView>,
    /// What they changed.
    diff: Diff,
}

#[derive(Template)]
#[template(path = "policy_diff.html")]
struct DiffPage {
    shell: Shell,
    from: u64,
    to: u64,
    /// The version on the `to` side, if the history still lists it.
    about: Option<VersionView>,
    diff: Diff,
}

#[derive(Template)]
#[template(path = "policy_history.html")]
struct HistoryPage {
    shell: Shell,
    slave: bool,
    versions: Vec<VersionView>,
}

struct VersionView {
    version: u64,
    snapshot: String,
    applied: Moment,
    author: String,
    comment: String,
    current: bool,
    reverted: bool,
}

#[derive(Template)]
#[template(path = "policy_rollback.html")]
struct RollbackPage {
    shell: Shell,
    to: u64,
    comment: String,
    base: u64,
    error: String,
    locks_out: bool,
    diff: Diff,
}

/// GET /policy
pub async fn page(Extension(cx): Extension<Cx>, query: Params) -> Response {
    let version = query.get("version").and_then(|text| text.parse().ok());
    let (shown, in_force) = match (show(&cx, version).await, version) {
        (Ok(shown), None) => (shown.clone(), shown.version),
        (Ok(shown), Some(_)) => match show(&cx, None).await {
            Ok(current) => (shown, current.version),
            Err(refused) => return cx.problem("Policy", "policy", refused).await,
        },
        (Err(refused), _) => return cx.problem("Policy", "policy", refused).await,
    };
    let slave = cx.portal.is_slave();
    let master = cx.status().await.ok().and_then(|status| status.master);
    let synced = master.as_ref().map(|link| words::moment(link.synced_us, Wall::now()));
    let page = PolicyPage {
        shell: cx.shell("Policy", "policy").await,
        slave,
        older: shown.version != in_force,
        version: shown.version,
        snapshot: shown.snapshot,
        master: master.map(|link| link.address).unwrap_or_default(),
        synced,
        document: lines::document(&shown.document),
    };
    web::render(StatusCode::OK, &page)
}

/// GET /policy/edit
pub async fn edit(Extension(cx): Extension<Cx>, query: Params) -> Response {
    if let Some(refused) = only_on_master(&cx) {
        return cx.problem("Edit policy", "edit", refused).await;
    }
    let current = match show(&cx, None).await {
        Ok(current) => current,
        Err(refused) => return cx.problem("Edit policy", "edit", refused).await,
    };
    // An older version may be the text to start from; the base stays the version in force.
    let document = match query.get("from").and_then(|text| text.parse().ok()) {
        None => current.document,
        Some(from) => match show(&cx, Some(from)).await {
            Ok(older) => older.document,
            Err(refused) => return cx.problem("Edit policy", "edit", refused).await,
        },
    };
    let draft = Draft { document, comment: String::new(), base: current.version.to_string(), how: ApplyHow::default() };
    draft.page(&cx, StatusCode::OK, Finding::default()).await
}

/// POST /policy/edit: Check, Diff or Apply, as the pressed button says.
pub async fn submit(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if let Some(refused) = only_on_master(&cx) {
        return cx.problem("Edit policy", "edit", refused).await;
    }
    let draft = Draft::read(&fields);
    if !cx.is_genuine(&fields) {
        return draft.page(&cx, StatusCode::FORBIDDEN, Finding::bad(STALE.to_string())).await;
    }
    match fields.get("act") {
        "apply" => draft.apply(&cx).await,
        "diff" => draft.diff(&cx).await,
        "merge" => draft.merge(&cx).await,
        _ => draft.check(&cx).await,
    }
}

/// GET /policy/history
pub async fn history(Extension(cx): Extension<Cx>) -> Response {
    match versions(&cx).await {
        Ok(versions) => {
            let slave = cx.portal.is_slave();
            let page = HistoryPage { shell: cx.shell("Policy history", "history").await, slave, versions };
            web::render(StatusCode::OK, &page)
        }
        Err(refused) => cx.problem("Policy history", "history", refused).await,
    }
}

/// GET /policy/diff?from=A&to=B: how two versions differ.
pub async fn compare(Extension(cx): Extension<Cx>, query: Params) -> Response {
    let version = |name: &str| query.get(name).and_then(|text| text.trim().parse::<u64>().ok());
    let (Some(from), Some(to)) = (version("from"), version("to")) else {
        let words = "Which two versions to compare is not said. Choose them in the history.".to_string();
        let refused = Refused { kind: RefusedKind::Invalid, words, complaints: vec![] };
        return cx.problem("Compare versions", "history", refused).await;
    };
    match diff_of(&cx, PolicySide::Version { version: from }, PolicySide::Version { version: to }).await {
        Ok((text, _)) => {
            let about = versions(&cx).await.unwrap_or_default().into_iter().find(|row| row.version == to);
            let shell = cx.shell("Compare versions", "history").await;
            web::render(StatusCode::OK, &DiffPage { shell, from, to, about, diff: lines::diff(&text) })
        }
        Err(refused) => cx.problem("Compare versions", "history", refused).await,
    }
}

/// GET /policy/rollback?to=N: what would change, before it does.
pub async fn confirm_rollback(Extension(cx): Extension<Cx>, query: Params) -> Response {
    rollback_page(&cx, query.get("to").map_or("", String::as_str), "", None).await
}

/// POST /policy/rollback
pub async fn rollback(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if let Some(refused) = only_on_master(&cx) {
        return cx.problem("Roll back", "history", refused).await;
    }
    let (to, comment) = (fields.get("to"), fields.get("comment").trim());
    if !cx.is_genuine(&fields) {
        let refused = Refused { kind: RefusedKind::NotAllowed, words: STALE.to_string(), complaints: vec![] };
        return rollback_page(&cx, to, comment, Some(refused)).await;
    }
    let Ok(version) = to.parse() else { return rollback_page(&cx, to, comment, None).await };
    let (base, how) = (fields.get("base").parse().ok(), how(&fields));
    let action = Action::PolicyRollback { to: version, comment: comment.to_string(), base, how };
    match cx.ask(action).await {
        Ok(outcome) => match applied(&outcome) {
            Some(words) => cx.done(format!("Rolled back to the document of version {version}. {words}"), "/policy"),
            None => rollback_page(&cx, to, comment, Some(web::unexpected("PolicyRollback", &outcome))).await,
        },
        Err(refused) => rollback_page(&cx, to, comment, Some(refused)).await,
    }
}

async fn rollback_page(cx: &Cx, to: &str, comment: &str, error: Option<Refused>) -> Response {
    if let Some(refused) = only_on_master(cx) {
        return cx.problem("Roll back", "history", refused).await;
    }
    let Ok(version) = to.parse::<u64>() else {
        let words = "Which version to roll back to is not said. Choose one in the history.".to_string();
        let refused = Refused { kind: RefusedKind::Invalid, words, complaints: vec![] };
        return cx.problem("Roll back", "history", refused).await;
    };
    let base = show(cx, None).await.map(|current| current.version).unwrap_or_default();
    match diff_of(cx, PolicySide::InForce, PolicySide::Version { version }).await {
        Ok((diff, _)) => {
            let status = error.as_ref().map_or(StatusCode::OK, web::status_of);
            let page = RollbackPage {
                shell: cx.shell("Roll back", "history").await,
                to: version,
                comment: comment.to_string(),
                base,
                locks_out: error.as_ref().is_some_and(|refused| refused.kind == RefusedKind::LocksOut),
                error: error.map(|refused| refused.words).unwrap_or_default(),
                diff: lines::diff(&diff),
            };
            web::render(status, &page)
        }
        Err(refused) => cx.problem("Roll back", "history", refused).await,
    }
}

/// What stands in the editor.
struct Draft {
    document: String,
    comment: String,
    base: String,
    how: ApplyHow,
}

/// What was found out about a draft.
#[derive(Default)]
struct Finding {
    verdict: String,
    tone: &'static str,
    complaints: Vec<Complaint>,
    diff: Option<Diff>,
    conflict: Option<Conflict>,
    locks_out: bool,
}

impl Finding {
    fn bad(verdict: String) -> Finding {
        Finding { verdict, tone: "bad", ..Finding::default() }
    }

    fn complaints(complaints: Vec<Complaint>) -> Finding {
        if complaints.is_empty() {
            let verdict = "The document compiles. Nothing is applied yet.".to_string();
            return Finding { verdict, tone: "good", ..Finding::default() };
        }
        let plural = if complaints.len() == 1 { "" } else { "s" };
        let verdict = format!("The document does not compile: {} complaint{plural}.", complaints.len());
        Finding { complaints, ..Finding::bad(verdict) }
    }
}

impl Draft {
    fn read(fields: &Fields) -> Draft {
        // The conflict page offers to start from the version that came in between.
        let rebase = fields.get("rebase");
        let base = if rebase.is_empty() { fields.get("base") } else { rebase };
        Draft {
            document: lines::from_form(fields.get("document")),
            comment: fields.get("comment").trim().to_string(),
            base: base.to_string(),
            how: how(fields),
        }
    }

    async fn check(self, cx: &Cx) -> Response {
        match cx.ask(Action::PolicyCheck { document: self.document.clone() }).await {
            Ok(Outcome::Checked { complaints }) => self.found(cx, Finding::complaints(complaints)).await,
            Ok(other) => self.refused(cx, web::unexpected("PolicyCheck", &other)).await,
            Err(refused) => self.refused(cx, refused).await,
        }
    }

    async fn diff(self, cx: &Cx) -> Response {
        let document = self.document.clone();
        match diff_of(cx, PolicySide::InForce, PolicySide::Document { document }).await {
            Ok((text, complaints)) => {
                let diff = lines::diff(&text);
                let mut finding = Finding::complaints(complaints);
                if diff.lines.is_empty() {
                    finding.verdict.push_str(" It equals the one in force.");
                }
                finding.diff = Some(diff);
                self.found(cx, finding).await
            }
            Err(refused) => self.refused(cx, refused).await,
        }
    }

    /// Brings into the text what others applied since it was begun.
    async fn merge(mut self, cx: &Cx) -> Response {
        let Ok(base) = self.base.parse::<u64>() else { return self.without_base(cx).await };
        match cx.ask(Action::PolicyMerge { document: self.document.clone(), base }).await {
            Ok(Outcome::Merged { document, version, overlaps }) => {
                (self.document, self.base) = (document, version.to_string());
                let finding = match overlaps {
                    0 => {
                        let verdict = format!(
                            "Your text now has what version {version} changed. Look at the difference, then apply."
                        );
                        Finding { verdict, tone: "good", ..Finding::default() }
                    }
                    _ => Finding::bad(format!(
                        "You and version {version} changed the same lines at {overlaps} place(s). Both stand in the text, between lines of \
                         <<<<<<< and >>>>>>>: choose, take the marks out, then apply."
                    )),
                };
                self.found(cx, finding).await
            }
            Ok(other) => self.refused(cx, web::unexpected("PolicyMerge", &other)).await,
            Err(refused) => self.refused(cx, refused).await,
        }
    }

    async fn without_base(self, cx: &Cx) -> Response {
        let words = "The form does not say which version it started from. Open the editor afresh and put the text in.";
        self.page(cx, StatusCode::UNPROCESSABLE_ENTITY, Finding::bad(words.to_string())).await
    }

    async fn apply(self, cx: &Cx) -> Response {
        if self.comment.is_empty() {
            let words = "Say in a few words why, for the history; then apply again. Nothing was applied.";
            return self.page(cx, StatusCode::UNPROCESSABLE_ENTITY, Finding::bad(words.to_string())).await;
        }
        let Ok(base) = self.base.parse::<u64>() else { return self.without_base(cx).await };
        let (document, comment, how) = (self.document.clone(), self.comment.clone(), self.how.clone());
        match cx.ask(Action::PolicyApply { document, comment, base: Some(base), how }).await {
            Ok(outcome) => match applied(&outcome) {
                Some(words) => cx.done(words, where_to(&outcome)),
                None => self.refused(cx, web::unexpected("PolicyApply", &outcome)).await,
            },
            Err(refused) => self.refused(cx, refused).await,
        }
    }

    async fn found(self, cx: &Cx, finding: Finding) -> Response {
        // A document with complaints is a good answer to "check": the page is the answer, not an error.
        self.page(cx, StatusCode::OK, finding).await
    }

    async fn refused(self, cx: &Cx, refused: Refused) -> Response {
        let status = web::status_of(&refused);
        let mut finding = Finding { complaints: refused.complaints, ..Finding::bad(refused.words) };
        finding.locks_out = refused.kind == RefusedKind::LocksOut;
        if refused.kind == RefusedKind::Conflict
            && let Ok(base) = self.base.parse()
        {
            finding.conflict = conflict(cx, base).await;
        }
        self.page(cx, status, finding).await
    }

    async fn page(self, cx: &Cx, status: StatusCode, finding: Finding) -> Response {
        let excerpts = lines::excerpts(&self.document, &finding.complaints);
        let marked = excerpts.iter().flatten().filter(|line| line.marked);
        let marks: Vec<String> = marked.map(|line| line.number.to_string()).collect();
        let (complaints, more) = lines::listed(finding.complaints);
        let page = EditPage {
            shell: cx.shell("Edit policy", "edit").await,
            document: self.document,
            comment: self.comment,
            base: self.base,
            verdict: finding.verdict,
            tone: finding.tone,
            complaints,
            more,
            excerpts,
            marks: marks.join(" "),
            diff: finding.diff,
            conflict: finding.conflict,
            locks_out: finding.locks_out,
            window: self.how.waves.as_ref().map_or(ROLLOUT_WINDOW_S, |waves| waves.window_s),
            waves: self.how.waves.map(|waves| waves.sizes).unwrap_or_default(),
        };
        web::render(status, &page)
    }
}

async fn show(cx: &Cx, version: Option<u64>) -> Result<PolicyText, Refused> {
    match cx.ask(Action::PolicyShow { version }).await? {
        Outcome::Policy(text) => Ok(text),
        other => Err(web::unexpected("PolicyShow", &other)),
    }
}

/// What the form says about how it is to be applied.
fn how(fields: &Fields) -> ApplyHow {
    let given = fields.get("waves").trim();
    let window_s = fields.get("window").trim().parse().unwrap_or(ROLLOUT_WINDOW_S);
    let waves = (!given.is_empty()).then(|| Waves { sizes: given.to_string(), window_s });
    ApplyHow { force: fields.get("force") == "yes", waves }
}

/// Who applied what since `base`.
async fn conflict(cx: &Cx, base: u64) -> Option<Conflict> {
    let version = show(cx, None).await.ok()?.version;
    let since = versions(cx).await.unwrap_or_default().into_iter().filter(|row| row.version > base).collect();
    let (text, _) = diff_of(cx, PolicySide::Version { version: base }, PolicySide::InForce).await.unwrap_or_default();
    Some(Conflict { version, base, since, diff: lines::diff(&text) })
}

/// The history, newest first.
async fn versions(cx: &Cx) -> Result<Vec<VersionView>, Refused> {
    match cx.ask(Action::PolicyLog { limit: PORTAL_HISTORY_ROWS_MAX }).await? {
        Outcome::History { versions } => {
            let now = Wall::now();
            Ok(versions.into_iter().map(|version| version_view(version, now)).collect())
        }
        other => Err(web::unexpected("PolicyLog", &other)),
    }
}

async fn diff_of(cx: &Cx, from: PolicySide, to: PolicySide) -> Result<(String, Vec<Complaint>), Refused> {
    match cx.ask(Action::PolicyDiff { from, to }).await? {
        Outcome::Diff { text, complaints } => Ok((text, complaints)),
        other => Err(web::unexpected("PolicyDiff", &other)),
    }
}

/// The page that shows what came of an apply.
fn where_to(outcome: &Outcome) -> &'static str {
    if matches!(outcome, Outcome::Applied { in_waves: true, .. }) { "/policy/rollout" } else { "/policy" }
}

/// What to say after an apply.
fn applied(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Applied { version, in_waves: true, .. } => {
            Some(format!("The rollout of version {version} has begun."))
        }
        Outcome::Applied { version, snapshot, changed: true, .. } => {
            Some(format!("Version {version} is in force (snapshot {snapshot})."))
        }
        Outcome::Applied { version, changed: false, .. } => {
            Some(format!("The document equals version {version}, which is in force already: nothing was changed."))
        }
        _ => None,
    }
}

/// A slave's policy is its master's: no form here changes it, whatever the desk would say.
fn only_on_master(cx: &Cx) -> Option<Refused> {
    let words = "This node is a slave: its policy comes from the master and is changed there.".to_string();
    cx.portal.is_slave().then_some(Refused { kind: RefusedKind::WrongRole, words, complaints: vec![] })
}

fn version_view(version: PolicyVersion, now: Wall) -> VersionView {
    VersionView {
        version: version.version,
        snapshot: version.snapshot,
        applied: words::moment(version.applied_us, now),
        author: version.author,
        comment: version.comment,
        current: version.current,
        reverted: version.reverted,
    }
}
