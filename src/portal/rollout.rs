//! A rollout in waves (`/policy/rollout`): how it stands, live; called back, or sent to all slaves at once in an emergency.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::admin::Rollout;
use crate::admin::RolloutEnd;
use crate::base::clock::Wall;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Fields;
use crate::portal::web::Shell;
use crate::portal::words;
use crate::portal::words::Moment;
use askama::Template;
use axum::Extension;
use axum::http::StatusCode;
use axum::response::Response;

#[derive(Template)]
#[template(path = "policy_rollout.html")]
struct RolloutPage {
    shell: Shell,
    rows: Rows,
    /// The version, while it is on its way.
    running: Option<u64>,
    comment: String,
    error: String,
}

#[derive(Template)]
#[template(path = "policy_rollout_rows.html")]
struct Rows {
    run: Option<RolloutView>,
}

#[derive(Template)]
#[template(path = "policy_rollout_skip.html")]
struct SkipPage {
    shell: Shell,
    version: u64,
    before: u64,
    /// The slaves that have it already; empty if none has.
    members: String,
    comment: String,
    error: String,
}

struct RolloutView {
    version: u64,
    snapshot: String,
    before: u64,
    before_snapshot: String,
    by: String,
    began: Moment,
    /// In a few words, and `good`, `bad` or `info`.
    state: String,
    tone: &'static str,
    running: bool,
    notes: Vec<String>,
}

/// GET /policy/rollout: how the newest rollout in waves stands.
pub async fn page(Extension(cx): Extension<Cx>) -> Response {
    show(&cx, "", None).await
}

/// GET /policy/rollout/rows: what the page polls.
pub async fn fragment(Extension(cx): Extension<Cx>) -> Response {
    match newest(&cx).await {
        Ok(rollout) => web::render(StatusCode::OK, &rows(rollout)),
        Err(refused) => cx.problem("Rollout", "history", refused).await,
    }
}

/// GET /policy/rollout/skip: what the emergency button would do, before it does.
pub async fn confirm_skip(Extension(cx): Extension<Cx>) -> Response {
    skip_page(&cx, "", None).await
}

/// POST /policy/rollout: call it back, or send it to everybody at once.
pub async fn end(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        return cx.stale("Rollout", "history").await;
    }
    let skip = fields.get("act") == "skip";
    let comment = fields.get("comment").trim().to_string();
    match order(&cx, skip, fields.get("version"), &comment).await {
        Ok(words) => cx.done(words, "/policy/rollout"),
        Err(refused) if skip => skip_page(&cx, &comment, Some(refused)).await,
        Err(refused) => show(&cx, &comment, Some(refused)).await,
    }
}

/// Does it if `version`, which the form spoke of, is the one on its way; answers what to say.
async fn order(cx: &Cx, skip: bool, version: &str, comment: &str) -> Result<String, Refused> {
    if comment.is_empty() {
        return Err(Refused::invalid("Say in a few words why, for config.log. Nothing was changed."));
    }
    let running = newest(cx).await?.filter(|run| run.end.is_none());
    let Some(run) = running.filter(|run| run.version.to_string() == version) else {
        let words = "The rollout that this form spoke of has ended. Nothing was changed; see below how it stands.";
        return Err(Refused::new(RefusedKind::Conflict, words));
    };
    let comment = comment.to_string();
    let action = if skip { Action::PolicyRolloutSkip { comment } } else { Action::PolicyRolloutAbort { comment } };
    cx.ask(action).await?;
    Ok(match skip {
        true => format!("Version {} is on its way to all slaves at once, as you ordered.", run.version),
        false => {
            format!("Version {} was called back, as you ordered: all slaves get version {}.", run.version, run.before)
        }
    })
}

async fn show(cx: &Cx, comment: &str, error: Option<Refused>) -> Response {
    let status = error.as_ref().map_or(StatusCode::OK, web::status_of);
    match newest(cx).await {
        Ok(rollout) => {
            let page = RolloutPage {
                shell: cx.shell("Rollout", "history").await,
                running: rollout.as_ref().filter(|run| run.end.is_none()).map(|run| run.version),
                rows: rows(rollout),
                comment: comment.to_string(),
                error: error.map(|refused| refused.words).unwrap_or_default(),
            };
            web::render(status, &page)
        }
        Err(refused) => cx.problem("Rollout", "history", refused).await,
    }
}

/// Where nothing is on its way, the page of the rollout, which says so.
async fn skip_page(cx: &Cx, comment: &str, error: Option<Refused>) -> Response {
    let running = newest(cx).await.ok().flatten().filter(|run| run.end.is_none());
    let Some(run) = running else {
        let words = "No rollout is under way, so there is nothing to send on.";
        let error = error.unwrap_or_else(|| Refused::new(RefusedKind::NotFound, words));
        return show(cx, comment, Some(error)).await;
    };
    let status = error.as_ref().map_or(StatusCode::OK, web::status_of);
    let page = SkipPage {
        shell: cx.shell("Emergency", "history").await,
        version: run.version,
        before: run.before,
        members: run.members.into_iter().collect::<Vec<_>>().join(", "),
        comment: comment.to_string(),
        error: error.map(|refused| refused.words).unwrap_or_default(),
    };
    web::render(status, &page)
}

async fn newest(cx: &Cx) -> Result<Option<Rollout>, Refused> {
    match cx.ask(Action::PolicyRollout).await? {
        Outcome::Rollout { rollout } => Ok(rollout.map(|rollout| *rollout)),
        other => Err(web::unexpected("PolicyRollout", &other)),
    }
}

fn rows(rollout: Option<Rollout>) -> Rows {
    let run = rollout.map(|run| {
        let (state, tone) = match run.end {
            None => (format!("running, wave {} of {}", run.wave, run.plan.waves.len()), "info"),
            Some(RolloutEnd::Done) => ("done: every slave has it".to_string(), "good"),
            Some(RolloutEnd::Reverted) => (format!("reverted: every slave has version {}", run.before), "bad"),
        };
        RolloutView {
            version: run.version,
            snapshot: run.snapshot,
            before: run.before,
            before_snapshot: run.before_snapshot,
            by: run.by,
            began: words::moment(run.started_us, Wall::now()),
            state,
            tone,
            running: run.end.is_none(),
            notes: run.notes,
        }
    });
    Rows { run }
}
