//! Support, Restart: asks about the backup, orders it, and says how far it is, with and without JavaScript.
//!
//! ```text
//! POST -> progress page --(script: /support/restart/state each second)--> 200 draining ... no answer ... 401: a new process
//!                       `-(no script: the page asks for itself again)---> draining ... login -> "is back"
//! ```
//! Sessions are a process's own: who is told to log in is talking to the new one.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::base::clock::Mono;
use crate::limits::PORTAL_START_SECONDS;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Fields;
use crate::portal::web::STALE;
use crate::portal::web::Shell;
use crate::portal::words;
use askama::Template;
use axum::Extension;
use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::PoisonError;

/// A restart that was ordered here.
#[derive(Clone, Copy)]
pub struct Leaving {
    since: Mono,
    /// How long what is under way may take, in seconds; nothing if the startup params could not be asked.
    drain_s: Option<u64>,
    /// The portal itself moves to another address or port.
    moves: bool,
}

/// The restart of this process, once it was ordered. A process has only one.
#[derive(Default)]
pub struct Ordered(Mutex<Option<Leaving>>);

impl Ordered {
    fn get(&self) -> Option<Leaving> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, leaving: Leaving) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaving);
    }
}

#[derive(Template)]
#[template(path = "restart.html")]
struct RestartPage {
    shell: Shell,
    waiting: Vec<String>,
    /// Connections that would be drained now.
    connections: String,
    error: String,
}

#[derive(Template)]
#[template(path = "restarting.html")]
struct RestartingPage {
    shell: Shell,
    /// What the desk said when it was ordered; empty later.
    words: String,
    progress: Progress,
    moves: bool,
}

#[derive(Template)]
#[template(path = "restarted.html")]
struct RestartedPage {
    shell: Shell,
    /// Seconds since the process started.
    up: String,
    /// It started lately enough to be the restart that somebody waits for.
    is_fresh: bool,
}

/// How far a restart is.
#[derive(Serialize)]
struct Progress {
    /// What comes before the new process answers.
    #[serde(skip)]
    step: &'static str,
    /// In words.
    words: String,
    /// Seconds until the node should answer again.
    back_in_s: Option<u64>,
    /// Seconds after which a page without script asks again: past the time in which nobody answers, if that comes next.
    #[serde(skip)]
    again_s: u64,
}

/// GET /support/restart
pub async fn form(Extension(cx): Extension<Cx>) -> Response {
    form_page(&cx, StatusCode::OK, String::new()).await
}

/// POST /support/restart
pub async fn submit(Extension(cx): Extension<Cx>, fields: Fields) -> Response {
    if !cx.is_genuine(&fields) {
        return form_page(&cx, StatusCode::FORBIDDEN, STALE.to_string()).await;
    }
    let backup = match fields.get("backup") {
        "yes" => true,
        "no" => false,
        _ => {
            let words = "Say whether to back the configuration up first. The node was not restarted.".to_string();
            return form_page(&cx, StatusCode::UNPROCESSABLE_ENTITY, words).await;
        }
    };
    let waiting = cx.status().await.map(|status| status.waiting_for_restart).unwrap_or_default();
    let moves = waiting.iter().any(|key| matches!(key.as_str(), "PORTAL_IP" | "PORTAL_PORT"));
    let drain_s = drain_s(&cx).await;
    match cx.ask(Action::Restart { backup }).await {
        // Not a redirect: the node may be gone before the browser follows it.
        Ok(Outcome::Done { words }) => {
            cx.portal.restart.set(Leaving { since: Mono::now(), drain_s, moves });
            progress_page(&cx, words::sentence(&words)).await
        }
        Ok(other) => form_page(&cx, StatusCode::INTERNAL_SERVER_ERROR, web::unexpected("Restart", &other).words).await,
        Err(refused) => form_page(&cx, web::status_of(&refused), refused.words).await,
    }
}

/// GET /support/restart/progress
pub async fn progress(Extension(cx): Extension<Cx>) -> Response {
    progress_page(&cx, String::new()).await
}

/// GET /support/restart/state: the same for the script. What is no 200 is another process, or none.
pub async fn state(Extension(cx): Extension<Cx>) -> Response {
    match cx.portal.restart.get() {
        Some(leaving) => Json(how_far(&cx, leaving).await).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn form_page(cx: &Cx, status: StatusCode, error: String) -> Response {
    let told = cx.status().await.ok();
    let connections = told.as_ref().map_or(String::new(), |told| connections(told.front.connections));
    let waiting = told.map(|told| told.waiting_for_restart).unwrap_or_default();
    let shell = cx.shell("Restart", "restart").await;
    web::render(status, &RestartPage { shell, waiting, connections, error })
}

async fn progress_page(cx: &Cx, words: String) -> Response {
    if let Some(leaving) = cx.portal.restart.get() {
        let progress = how_far(cx, leaving).await;
        // The frame asks nothing more of a node that is on its way out.
        let shell = cx.portal.bare_shell("Restarting");
        return web::render(StatusCode::OK, &RestartingPage { shell, words, progress, moves: leaving.moves });
    }
    match cx.status().await {
        Ok(status) => {
            let shell = cx.shell("Restart", "restart").await;
            let page = RestartedPage { shell, up: words::span(status.uptime_s), is_fresh: status.uptime_s < FRESH_S };
            web::render(StatusCode::OK, &page)
        }
        Err(refused) => cx.problem("Restart", "restart", refused).await,
    }
}

async fn how_far(cx: &Cx, leaving: Leaving) -> Progress {
    let connections = cx.status().await.map(|status| status.front.connections);
    let gone_s = Mono::now().micros_since(leaving.since) / 1_000_000;
    let drain_left_s = leaving.drain_s.map(|drain_s| drain_s.saturating_sub(gone_s));
    if cx.portal.hands_over() { handing_over(connections, drain_left_s) } else { told(connections, drain_left_s) }
}

/// Where the next process starts at once, nobody waits for what is under way.
fn handing_over(connections_left: Result<u64, Refused>, drain_left_s: Option<u64>) -> Progress {
    let mut words = format!("A new process takes over: back in about {PORTAL_START_SECONDS} s.");
    if let (Ok(count @ 1..), Some(left @ 1..)) = (connections_left, drain_left_s) {
        words += &format!(" This one finishes {}, for {left} s at most.", connections(count));
    }
    Progress {
        step: "a new process starts",
        words,
        back_in_s: Some(PORTAL_START_SECONDS),
        again_s: PORTAL_START_SECONDS,
    }
}

fn told(connections_left: Result<u64, Refused>, drain_left_s: Option<u64>) -> Progress {
    let step = "what is under way ends";
    let Ok(count @ 1..) = connections_left else {
        let words = format!("No connection is left. The node starts again: back in about {PORTAL_START_SECONDS} s.");
        return Progress { step, words, back_in_s: Some(PORTAL_START_SECONDS), again_s: 2 * PORTAL_START_SECONDS };
    };
    let (draining, back_in_s) = (connections(count), drain_left_s.map(|left| left + PORTAL_START_SECONDS));
    let words = match (drain_left_s, back_in_s) {
        (Some(left), Some(back)) if left > 0 => {
            format!("Draining {draining}, for {left} s at most. Back in about {back} s, sooner if they end.")
        }
        (Some(_), _) => {
            format!("The time for draining is over: {draining} cut. Back in about {PORTAL_START_SECONDS} s.")
        }
        _ => format!("Draining {draining}."),
    };
    let again_s = if drain_left_s == Some(0) { 2 * PORTAL_START_SECONDS } else { AGAIN_S };
    Progress { step, words, back_in_s, again_s }
}

fn connections(count: u64) -> String {
    match count {
        1 => "1 connection".to_string(),
        _ => format!("{} connections", words::count(count)),
    }
}

/// How long a restart may let clients finish: DRAIN_TIME alone, since balancers need no notice of a restart.
async fn drain_s(cx: &Cx) -> Option<u64> {
    let Ok(Outcome::Params { params, .. }) = cx.ask(Action::ParamsShow).await else { return None };
    let time = params.iter().find(|param| param.key == "DRAIN_TIME")?;
    // What is empty in the file is its default.
    let seconds = |text: &str| text.trim().parse::<u64>().ok();
    seconds(&time.value).or_else(|| seconds(&time.default))
}

/// A page without script asks again after so many seconds while clients are drained.
const AGAIN_S: u64 = 2;
/// A node that started within so many seconds is back from the restart somebody waited for.
const FRESH_S: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_that_hands_over_does_not_wait_for_what_is_under_way() {
        let taken_over = "A new process takes over: back in about 2 s.";
        for (connections, words) in [(Ok(12), " This one finishes 12 connections, for 26 s at most."), (Ok(0), "")] {
            let progress = handing_over(connections, Some(26));
            assert_eq!((progress.words, progress.back_in_s), (format!("{taken_over}{words}"), Some(2)));
        }
    }

    #[test]
    fn progress_is_told_in_words_and_seconds() {
        let gone = || Err(Refused::failed("gone"));
        for (connections, drain_left_s, words, back_in_s) in [
            (
                Ok(12),
                Some(26),
                "Draining 12 connections, for 26 s at most. Back in about 28 s, sooner if they end.",
                Some(28),
            ),
            (Ok(1), Some(1), "Draining 1 connection, for 1 s at most. Back in about 3 s, sooner if they end.", Some(3)),
            (Ok(3), Some(0), "The time for draining is over: 3 connections cut. Back in about 2 s.", Some(2)),
            (Ok(1_200), None, "Draining 1,200 connections.", None),
            (Ok(0), Some(26), "No connection is left. The node starts again: back in about 2 s.", Some(2)),
            (gone(), Some(26), "No connection is left. The node starts again: back in about 2 s.", Some(2)),
        ] {
            let progress = told(connections, drain_left_s);
            assert_eq!((progress.words.as_str(), progress.back_in_s), (words, back_in_s));
        }
    }
}
