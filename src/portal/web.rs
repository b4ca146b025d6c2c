//! What every page needs: who asks, the way to the desk, the frame around the page, and answers that no browser misreads.

use crate::admin::Action;
use crate::admin::Actor;
use crate::admin::Complaint;
use crate::admin::Desk;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::admin::Status;
use crate::base::clock::Mono;
use crate::limits::PORTAL_ACTION_SECONDS_MAX;
use crate::limits::PORTAL_BODY_SECONDS_MAX;
use crate::limits::PORTAL_LOGIN_CHECKS_MAX;
use crate::portal::PeerAddress;
use crate::portal::PortalConfig;
use crate::portal::ReachedAddress;
use crate::portal::assets;
use crate::portal::restart::Ordered;
use crate::portal::session;
use crate::portal::session::Sessions;
use crate::portal::session::Visit;
use crate::portal::throttle::Throttle;
use crate::portal::words;
use crate::tls::random;
use askama::Template;
use axum::Form;
use axum::extract::FromRequest;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The portal of one node: what all requests share.
pub struct Portal {
    pub config: PortalConfig,
    pub sessions: Sessions,
    pub throttle: Throttle,
    /// Passwords being checked now.
    pub checks: Semaphore,
    /// Set once the desk has shown that there is an administrator.
    pub has_administrator: AtomicBool,
    /// Changes when an asset does, so that browsers may keep them.
    pub assets_tag: String,
    /// The restart that was ordered here, if one was.
    pub restart: Ordered,
}

impl Portal {
    pub fn new(config: PortalConfig) -> Arc<Portal> {
        Arc::new(Portal {
            config,
            sessions: Sessions::default(),
            throttle: Throttle::default(),
            checks: Semaphore::new(PORTAL_LOGIN_CHECKS_MAX),
            has_administrator: AtomicBool::new(false),
            assets_tag: assets::tag(),
            restart: Ordered::default(),
        })
    }

    pub fn hands_over(&self) -> bool {
        self.config.hands_over
    }

    pub fn is_slave(&self) -> bool {
        self.config.role == "slave"
    }

    /// Asks the desk. The action runs in a task of its own: a browser that goes away must not stop an apply half-way.
    pub async fn ask(&self, actor: Actor, action: Action) -> Result<Outcome, Refused> {
        let desk: Arc<dyn Desk> = self.config.desk.clone();
        let task = tokio::spawn(async move { desk.perform(actor, action).await });
        match timeout(Duration::from_secs(PORTAL_ACTION_SECONDS_MAX), task).await {
            Ok(Ok(answer)) => answer.map_err(|refused| Refused { words: words::sentence(&refused.words), ..refused }),
            Ok(Err(error)) => Err(failed(format!(
                "The node broke off while doing this ({error}). The journal of the tidegate service says more."
            ))),
            Err(_) => Err(failed(format!(
                "The node has not finished within {PORTAL_ACTION_SECONDS_MAX} s and goes on with it. Look at the result in a moment, before asking again."
            ))),
        }
    }

    /// The frame for somebody who is not logged in.
    pub fn bare_shell(&self, title: &str) -> Shell {
        Shell {
            title: title.to_string(),
            tab: "",
            node: self.config.node_name.clone(),
            role: self.config.role.clone(),
            version: self.config.version.clone(),
            assets_tag: self.assets_tag.clone(),
            ..Shell::default()
        }
    }

    /// An error page for somebody who is not logged in.
    pub fn bare_problem(&self, status: StatusCode, title: &str, words: &str) -> Response {
        let complaints = Vec::new();
        let page = ProblemPage { shell: self.bare_shell(title), words: words.to_string(), complaints };
        render(status, &page)
    }
}

/// One request of a logged-in administrator.
#[derive(Clone)]
pub struct Cx {
    pub portal: Arc<Portal>,
    pub visit: Visit,
    pub token: String,
    pub peer: IpAddr,
    /// The address of this node that the browser reached.
    pub reached: Option<IpAddr>,
}

impl Cx {
    pub async fn ask(&self, action: Action) -> Result<Outcome, Refused> {
        let actor = Actor::Administrator {
            user: self.visit.user.clone(),
            address: self.peer.to_string(),
            reached: self.reached,
        };
        self.portal.ask(actor, action).await
    }

    pub async fn status(&self) -> Result<Status, Refused> {
        match self.ask(Action::Status).await? {
            Outcome::Status(status) => Ok(*status),
            other => Err(unexpected("Status", &other)),
        }
    }

    /// The frame around a page, with what the operator must know whatever the page.
    pub async fn shell(&self, title: &str, tab: &'static str) -> Shell {
        let mut shell = self.portal.bare_shell(title);
        shell.tab = tab;
        shell.user = self.visit.user.clone();
        shell.csrf = self.visit.csrf.clone();
        match self.status().await {
            Ok(status) => shell.tell(&status),
            Err(refused) => shell.warnings.push(refused.words),
        }
        shell.notice = self.portal.sessions.take_notice(&self.token).map(|notice| notice.words).unwrap_or_default();
        shell
    }

    /// Whether a form was made for this session.
    pub fn is_genuine(&self, fields: &Fields) -> bool {
        random::equal(fields.get("csrf").as_bytes(), self.visit.csrf.as_bytes())
    }

    /// The page for an action that was refused where there is no form to show again.
    pub async fn problem(&self, title: &str, tab: &'static str, refused: Refused) -> Response {
        let shell = self.shell(title, tab).await;
        render(status_of(&refused), &ProblemPage { shell, words: refused.words, complaints: refused.complaints })
    }

    /// The answer to a form that another session's page made, where there is no input worth keeping.
    pub async fn stale(&self, title: &str, tab: &'static str) -> Response {
        self.problem(title, tab, Refused { kind: RefusedKind::NotAllowed, words: STALE.into(), complaints: vec![] })
            .await
    }

    /// After a form that was done: says `words` on the page it goes to.
    pub fn done(&self, words: String, to: &str) -> Response {
        self.portal.sessions.leave_notice(&self.token, words);
        see_other(to)
    }
}

/// Said when a form's token is not this session's.
pub const STALE: &str = "This form was opened in another session, so nothing was done. Look it over and send it again.";

/// The frame around every page.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    pub title: String,
    pub tab: &'static str,
    pub node: String,
    pub role: String,
    pub version: String,
    pub snapshot: String,
    /// Empty for a visitor.
    pub user: String,
    pub csrf: String,
    pub notice: String,
    pub warnings: Vec<String>,
    /// On a slave: where the master's portal is.
    pub master_portal: String,
    pub assets_tag: String,
}

impl Shell {
    fn tell(&mut self, status: &Status) {
        self.snapshot = status.snapshot.clone();
        if let Some(master) = &status.master {
            self.master_portal = master_portal(&master.address);
            if !master.trouble.is_empty() {
                self.warnings.push(format!("Master {}: {}", master.address, master.trouble));
            }
        }
        if let Some(draining) = &status.draining {
            let by = &draining.by;
            self.warnings.push(format!("Drained by {by}: balancers send no clients here until `tidegate undrain`."));
        }
        if !status.log_trouble.is_empty() {
            self.warnings.push(format!("Log: {}", status.log_trouble));
        }
        self.warnings.extend(status.params_trouble.iter().map(|fault| format!("Startup params: {fault}")));
        if !status.waiting_for_restart.is_empty() {
            let keys = status.waiting_for_restart.join(", ");
            self.warnings.push(format!("Changed and waiting for a restart (Support, Restart): {keys}"));
        }
    }
}

/// `https://` and the master's address, if that is an address and nothing else.
fn master_portal(address: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']');
    if address.is_empty() || !address.chars().all(is_plain) { String::new() } else { format!("https://{address}/") }
}

/// A form's fields, however it was typed.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first field of that name; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// Reads a form within its size and time, or says what was wrong with it.
pub async fn read_fields(request: Request) -> Result<Fields, (StatusCode, String)> {
    let read = Form::<Vec<(String, String)>>::from_request(request, &());
    match timeout(Duration::from_secs(PORTAL_BODY_SECONDS_MAX), read).await {
        Ok(Ok(Form(fields))) => Ok(Fields(fields)),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            "The form is larger than this page accepts. Long host lists belong in files that the policy document names.".into(),
        )),
        Ok(Err(rejection)) => Err((rejection.status(), format!("The form could not be read: {rejection}."))),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            format!("The form did not arrive within {PORTAL_BODY_SECONDS_MAX} s. Send it again."),
        )),
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let cx = request.extensions().get::<Cx>().cloned();
        match (read_fields(request).await, cx) {
            (Ok(fields), _) => Ok(fields),
            (Err((status, words)), Some(cx)) => {
                let shell = cx.shell("Not understood", "").await;
                Err(render(status, &ProblemPage { shell, words, complaints: vec![] }))
            }
            (Err((status, words)), None) => Err((status, words).into_response()),
        }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    shell: Shell,
    words: String,
    complaints: Vec<Complaint>,
}

/// The page as an answer.
pub fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response(),
        Err(error) => {
            tracing::error!(event = "portal-trouble", "portal: a page could not be written: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page could not be written; the journal says more.").into_response()
        }
    }
}

/// Redirect after POST.
pub fn see_other(to: &str) -> Response {
    // Paths of our own only; one that no header can carry leads home.
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

/// One place turns a refusal into a status code.
pub fn status_of(refused: &Refused) -> StatusCode {
    match refused.kind {
        RefusedKind::NotAllowed | RefusedKind::WrongRole => StatusCode::FORBIDDEN,
        RefusedKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        RefusedKind::Conflict | RefusedKind::LocksOut => StatusCode::CONFLICT,
        RefusedKind::NotFound => StatusCode::NOT_FOUND,
        RefusedKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The desk answered another question than it was asked.
pub fn unexpected(asked: &str, _answered: &Outcome) -> Refused {
    failed(format!("The node answered {asked} with something else. This is a fault of Tidegate: please report it."))
}

fn failed(words: String) -> Refused {
    Refused { kind: RefusedKind::Failed, words, complaints: vec![] }
}

/// See [`ReachedAddress`]: not known without the daemon's extension.
fn reached_by(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ReachedAddress>().map(|reached| reached.0.to_canonical())
}

/// The browser's address. Without the daemon's extension all visitors share one, and so one login limit.
pub fn peer_of(request: &Request) -> IpAddr {
    let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    request.extensions().get::<PeerAddress>().map_or(nobody, |peer| peer.0).ip().to_canonical()
}

/// The session token that a request carries.
pub fn token_of(headers: &HeaderMap) -> Option<&str> {
    let name = cookie_name(headers);
    headers.get_all(header::COOKIE).iter().find_map(|cookies| session::token_in(cookies.to_str().ok()?, &name))
}

/// The name of the cookie for the portal as this browser knows it.
pub fn cookie_name(headers: &HeaderMap) -> String {
    session::cookie_name(headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default())
}

/// The session that a request belongs to, if any.
pub fn cx_of(portal: &Arc<Portal>, request: &Request, touch: bool) -> Option<Cx> {
    let token = token_of(request.headers())?.to_string();
    let visit = portal.sessions.find(&token, Mono::now(), touch)?;
    Some(Cx { portal: portal.clone(), visit, token, peer: peer_of(request), reached: reached_by(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masters_portal_is_a_plain_address_or_nothing() {
        assert_eq!(master_portal("192.0.2.1:8888"), "https://192.0.2.1:8888/");
        assert_eq!(master_portal("[2001:db8::1]:8888"), "https://[2001:db8::1]:8888/");
        for hostile in ["", "evil/..", "a@b", "x\"y", "a b", "a?b"] {
            assert_eq!(master_portal(hostile), "", "{hostile}");
        }
    }
}
