//! The portal driven request by request over a stand-in desk: who gets in, what every role sees, what is refused.

#[path = "portal/desk.rs"]
mod desk;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use desk::{FakeDesk, HOSTILE, refused};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate::admin::{Action, Actor, ApplyHow, Complaint, Order, Refused, RefusedKind, TaskAction, Waves};
use tidegate::limits::{PORTAL_FORM_BYTES_MAX, PORTAL_LOGIN_ADDRESS_BURST};
use tidegate::portal::{PeerAddress, PortalConfig, router};
use tidegate::report::AuditQuestion;
use tower::ServiceExt;

/// A portal, and a browser that keeps its cookie and the token of the last form it saw.
struct Browser {
    app: Router,
    desk: Arc<FakeDesk>,
    peer: SocketAddr,
    cookie: String,
    csrf: String,
}

struct Page {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Page {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    #[track_caller]
    fn says(&self, words: &str) -> &Page {
        assert!(self.text.contains(words), "no {words:?} in:\n{}", self.text);
        self
    }

    #[track_caller]
    fn does_not_say(&self, words: &str) -> &Page {
        assert!(!self.text.contains(words), "{words:?} in:\n{}", self.text);
        self
    }
}

impl Browser {
    fn visit(desk: FakeDesk) -> Browser {
        let desk = Arc::new(desk);
        let (node_name, role, version) = ("harbour".to_string(), desk.role.to_string(), "0.1.0".to_string());
        let app = router(PortalConfig { desk: desk.clone(), node_name, role, version, hands_over: false });
        let peer = SocketAddr::from(([192, 0, 2, 50], 4711));
        Browser { app, desk, peer, cookie: String::new(), csrf: String::new() }
    }

    async fn logged_in(role: &'static str) -> Browser {
        let mut browser = Browser::visit(FakeDesk::new(role));
        let page = browser.log_in("ada", "correct horse").await;
        assert_eq!((page.status, page.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/"));
        browser.get("/nodes").await;
        browser
    }

    async fn log_in(&mut self, user: &str, password: &str) -> Page {
        self.post("/login", &[("user", user), ("password", password)]).await
    }

    async fn get(&mut self, path: &str) -> Page {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Sends a form as it is, without the token.
    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.post_from(path, fields, &[]).await
    }

    async fn post_from(&mut self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{}={}", enc(name), enc(value))).collect();
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(pairs.join("&"))).unwrap()).await
    }

    /// Sends a form with its token, as the page would.
    async fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = self.csrf.clone();
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        self.post(path, &fields).await
    }

    async fn send(&mut self, mut request: Request<Body>) -> Page {
        request.headers_mut().insert(header::HOST, "harbour:8888".parse().unwrap());
        if !self.cookie.is_empty() {
            request.headers_mut().insert(header::COOKIE, self.cookie.parse().unwrap());
        }
        request.extensions_mut().insert(PeerAddress(self.peer));
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let page = Page { status: parts.status, headers: parts.headers, text };
        if let Some(cookie) = page.header(header::SET_COOKIE).split(';').next().filter(|cookie| !cookie.is_empty()) {
            self.cookie = cookie.to_string();
        }
        if let Some((_, rest)) = page.text.split_once("name=\"csrf\" value=\"") {
            self.csrf = rest.split('"').next().unwrap().to_string();
        }
        page
    }

    /// What the desk was asked, but for the Status that every page asks.
    fn asked(&self) -> Vec<Action> {
        let asked = self.desk.asked.lock().unwrap();
        asked.iter().map(|(_, action)| action.clone()).filter(|action| !matches!(action, Action::Status)).collect()
    }
}

fn enc(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

const PAGES: [(&str, &str); 25] = [
    ("/nodes", "edge-1"),
    ("/nodes", "Most client connections open"),
    ("/nodes/node?name=edge-1", "tidegate_exchanges_total"),
    ("/nodes/node?name=edge-1", "In its extended.log"),
    ("/nodes/audit?name=edge-1", "no number is missing"),
    ("/policy", "access_restriction"),
    ("/explain", "Client address"),
    ("/explain?client=192.0.2.7&url=http://casino.test/", "no-gambling"),
    ("/report", "Report"),
    ("/support/params", "LISTEN_PORT"),
    ("/support/restart", "Back the configuration up first?"),
    ("/connections", "under way"),
    ("/verify", "timedatectl"),
    ("/support/kernel", "sysctl -w net.core.somaxconn=4096"),
    ("/support/diagnostics", "personal data"),
    ("/support/version", "What changed"),
    ("/support/restart/progress", "No restart is under way"),
    ("/nodes/rows", "12-3fa9c1d2e0b4"),
    ("/policy/history", "Let accounting reach the bank"),
    ("/policy/diff?from=11&to=12", "Compare"),
    ("/policy/rollout", "reported by all its slaves"),
    ("/policy/rollout/rows", "running, wave 1 of 3"),
    ("/policy/rollout/skip", "Until now it is on <strong>edge-1</strong> alone"),
    ("/policy/edit", "Edit policy"),
    ("/policy/rollback?to=11", "Roll back"),
];

#[tokio::test]
async fn every_page_is_there_for_every_role() {
    for role in ["standalone", "master", "slave"] {
        let mut browser = Browser::logged_in(role).await;
        for (path, words) in PAGES {
            let page = browser.get(path).await;
            let masters_alone = path.starts_with("/policy/edit") || path.starts_with("/policy/rollback");
            let expected = if role == "slave" && masters_alone { StatusCode::FORBIDDEN } else { StatusCode::OK };
            assert_eq!(page.status, expected, "{role} {path}");
            page.says(words);
        }
    }
}

#[tokio::test]
async fn a_master_orders_follows_cancels_and_gets_what_slaves_bring_and_a_slave_leads_there() {
    let mut browser = Browser::logged_in("master").await;
    browser.get("/nodes").await.says("href=\"/tasks\"");
    browser.get("/nodes/node?name=edge-1").await.says("/tasks?on=edge-1");
    browser.get("/tasks?on=edge-1").await.says("value=\"edge-1\"").says("1 started").says("1 cancelled");
    browser.get("/tasks/rows").await.says("12-3fa9c1d2").says("/tasks?before=11-77aa01b2");
    // Older ones, also when the page asks again by itself.
    browser.get("/tasks?before=11-77aa01b2").await.says("data-live=\"/tasks/rows?before=11-77aa01b2\"");
    browser.get("/tasks/rows?before=11-77aa01b2").await.says("12-3fa9c1d2");
    let older = |asked: &&Action| matches!(asked, Action::Task(TaskAction::List { before: Some(id), .. }) if id == "11-77aa01b2");
    assert_eq!(browser.asked().iter().filter(older).count(), 2, "{:?}", browser.asked());
    browser
        .get("/tasks/task?id=12")
        .await
        .says("22 of 23 checks hold")
        .says("Cancel it")
        .says("Download verify-edge-2.json");
    browser.get("/tasks/task/rows?id=12").await.says("timedatectl");
    let page = browser.submit("/tasks", &[("order", "drain"), ("on", "edge-1"), ("life", "600")]).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert_eq!(page.header(header::LOCATION), "/tasks/task?id=12-3fa9c1d2");
    let ordered = TaskAction::Order { order: Order::Drain, on: "edge-1".into(), life_s: Some(600) };
    assert!(browser.asked().contains(&Action::Task(ordered)), "{:?}", browser.asked());
    let page = browser.submit("/tasks", &[("order", "drain"), ("on", "nobody"), ("life", "600")]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("No slave is called nobody").says("value=\"nobody\"");
    page.says("value=\"drain\" selected").says("value=\"600\" selected");
    let meant = [("id", "12-3fa9c1d2"), ("node", "edge-2")];
    let page = browser.submit("/tasks/output", &meant).await;
    assert_eq!((page.header(header::CONTENT_TYPE), page.text.as_str()), ("application/json", "[]"));
    assert_eq!(browser.submit("/tasks/cancel", &meant).await.status, StatusCode::SEE_OTHER);
    assert!(browser.asked().contains(&Action::Task(TaskAction::Cancel { id: "12-3fa9c1d2".into() })));
    for path in ["/tasks", "/tasks/cancel", "/tasks/output"] {
        let page = browser.post(path, &[("order", "restart"), ("on", "all"), ("id", "12"), ("node", "edge-2")]).await;
        assert!(page.status.is_client_error(), "{path} {}", page.status);
    }
    let orders =
        browser.asked().iter().filter(|action| matches!(action, Action::Task(TaskAction::Order { .. }))).count();
    assert_eq!(orders, 2, "a forged form orders nothing");

    let mut browser = Browser::logged_in("slave").await;
    browser.get("/tasks").await.says("ask its master").says("Open the master");
}

#[tokio::test]
async fn a_rollout_is_ended_only_with_a_reason_and_only_the_one_that_the_form_spoke_of() {
    let mut browser = Browser::logged_in("master").await;
    browser.get("/policy/rollout").await.says("href=\"/policy/rollout/skip\"").does_not_say("value=\"skip\"");
    for act in ["skip", "abort"] {
        let fields = [("act", act), ("version", "12"), ("comment", " ")];
        let page = browser.submit("/policy/rollout", &fields).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        page.says("Say in a few words why");
        let fields = [("act", act), ("version", "11"), ("comment", "phones ring")];
        let page = browser.submit("/policy/rollout", &fields).await;
        assert_eq!(page.status, StatusCode::CONFLICT);
        page.says("The rollout that this form spoke of has ended").says("value=\"phones ring\"");
    }
    assert!(!browser.asked().iter().any(Action::changes), "{:?}", browser.asked());
    for act in ["skip", "abort"] {
        let fields = [("act", act), ("version", "12"), ("comment", "phones ring")];
        let page = browser.submit("/policy/rollout", &fields).await;
        assert_eq!(page.header(header::LOCATION), "/policy/rollout", "{}", page.text);
    }
    let comment = || "phones ring".to_string();
    let changes: Vec<Action> = browser.asked().into_iter().filter(Action::changes).collect();
    let ordered = [Action::PolicyRolloutSkip { comment: comment() }, Action::PolicyRolloutAbort { comment: comment() }];
    assert_eq!(changes, ordered);
}

/// A fragment that another tab polls must not take what is to be said on the page that comes.
#[tokio::test]
async fn what_a_page_polls_leaves_the_words_to_the_page_they_are_for() {
    let mut browser = Browser::logged_in("master").await;
    browser.submit("/tasks", &[("order", "drain"), ("on", "edge-1"), ("life", "600")]).await;
    for path in ["/tasks/task/rows?id=12", "/tasks/rows", "/policy/rollout/rows", "/nodes/rows"] {
        browser.get(path).await.does_not_say("Ordered: ");
    }
    browser.get("/tasks/task?id=12").await.says("Ordered: ");
}

#[tokio::test]
async fn without_a_session_pages_lead_to_the_login_and_back() {
    let mut browser = Browser::visit(FakeDesk::new("master"));
    for (path, _) in PAGES.iter().filter(|(path, _)| !path.ends_with("/rows")) {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{path}");
        assert!(page.header(header::LOCATION).starts_with("/login?next=%2F"), "{path}");
    }
    // What a page polls leads nowhere: the page itself says that the session has ended.
    for path in ["/nodes/rows", "/policy/rollout/rows", "/tasks/rows", "/tasks/task/rows?id=12"] {
        assert_eq!(browser.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    browser.cookie = "__Host-tidegate-8888=0123".to_string();
    assert_eq!(browser.get("/nodes").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.asked(), [], "the desk was asked for a stranger");
    let next = [("user", "ada"), ("password", "correct horse"), ("next", "/report?node=edge-1")];
    assert_eq!(browser.post("/login", &next).await.header(header::LOCATION), "/report?node=edge-1");
}

#[tokio::test]
async fn the_cookie_and_every_answer_keep_browsers_strict() {
    let mut browser = Browser::visit(FakeDesk::new("master"));
    let page = browser.log_in("ada", "correct horse").await;
    let cookie = page.header(header::SET_COOKIE).to_string();
    assert!(cookie.starts_with("__Host-tidegate-8888="), "{cookie}");
    for flag in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.split("; ").any(|part| part == flag), "{flag} is not in {cookie}");
    }
    for path in ["/login", "/nodes", "/nowhere", "/assets/portal.css", "/policy/edit"] {
        let page = browser.get(path).await;
        let policy = page.header(header::CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(page.header(header::X_FRAME_OPTIONS), "DENY", "{path}");
        assert_eq!(page.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
        assert_eq!(page.header(header::REFERRER_POLICY), "same-origin", "{path}");
        let kept = if path.starts_with("/assets") { "private, max-age=86400" } else { "no-store" };
        assert_eq!(page.header(header::CACHE_CONTROL), kept, "{path}");
    }
}

#[tokio::test]
async fn a_new_login_has_a_new_token_and_logout_ends_it() {
    let mut browser = Browser::logged_in("master").await;
    let first = browser.cookie.clone();
    browser.log_in("ada", "correct horse").await;
    assert_ne!(browser.cookie, first);
    let second = std::mem::replace(&mut browser.cookie, first);
    assert_eq!(browser.get("/nodes").await.status, StatusCode::SEE_OTHER, "the old session is still open");
    browser.cookie = second.clone();
    browser.get("/nodes").await;
    assert_eq!(browser.submit("/logout", &[]).await.header(header::LOCATION), "/login");
    browser.cookie = second;
    assert_eq!(browser.get("/nodes").await.status, StatusCode::SEE_OTHER, "the session outlived its logout");
}

#[tokio::test]
async fn unknown_names_and_wrong_passwords_get_the_same_answer() {
    let mut browser = Browser::visit(FakeDesk::new("master"));
    let wrong = browser.log_in("ada", "wrong").await;
    let unknown = browser.log_in("eve", "wrong").await;
    assert_eq!((wrong.status, unknown.status), (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN));
    assert_eq!(wrong.text.replace("ada", "NAME"), unknown.text.replace("eve", "NAME"));
    wrong.says("Name or password is wrong.").says("value=\"ada\"");
}

#[tokio::test]
async fn login_is_limited_by_address_with_words_and_retry_after() {
    let mut browser = Browser::visit(FakeDesk::new("master"));
    for _ in 0..PORTAL_LOGIN_ADDRESS_BURST {
        assert_eq!(browser.log_in("ada", "wrong").await.status, StatusCode::FORBIDDEN);
    }
    let page = browser.log_in("ada", "correct horse").await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(page.header(header::RETRY_AFTER).parse::<u32>().unwrap() <= 30);
    page.says("Try again in");
    browser.peer = SocketAddr::from(([192, 0, 2, 51], 1));
    assert_eq!(browser.log_in("ada", "correct horse").await.status, StatusCode::SEE_OTHER, "others are held up");
}

#[tokio::test]
async fn a_node_without_administrators_says_how_to_make_one() {
    let mut browser = Browser::visit(FakeDesk { nobody: true, ..FakeDesk::new("master") });
    browser.get("/login").await.says("tidegate admin add NAME");
    for _ in 0..2 * PORTAL_LOGIN_ADDRESS_BURST {
        browser.log_in("ada", "x").await.says("tidegate admin add NAME");
    }
    let mut browser = Browser::visit(FakeDesk::new("master"));
    browser.get("/login").await.does_not_say("tidegate admin add");
}

#[tokio::test]
async fn no_form_is_obeyed_without_its_token_or_from_another_site() {
    let forms: [(&str, &[(&str, &str)]); 6] = [
        ("/policy/edit", &[("act", "apply"), ("document", "x"), ("comment", "y"), ("base", "12")]),
        ("/policy/rollback", &[("to", "11"), ("comment", "y")]),
        ("/support/params", &[("was.CORES", "2"), ("param.CORES", "4")]),
        ("/policy/rollout", &[("act", "skip"), ("comment", "why")]),
        ("/support/restart", &[("backup", "no")]),
        ("/logout", &[]),
    ];
    let mut browser = Browser::logged_in("master").await;
    let good = browser.csrf.clone();
    for (path, fields) in forms {
        for token in ["", "0000", &good[1..]] {
            let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("csrf", token)]).collect();
            assert_eq!(browser.post(path, &fields).await.status, StatusCode::FORBIDDEN, "{path} with {token:?}");
        }
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("csrf", good.as_str())]).collect();
        for headers in [[("origin", "https://evil.test")], [("origin", "null")], [("sec-fetch-site", "cross-site")]] {
            let page = browser.post_from(path, &fields, &headers).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{path} with {headers:?}");
            page.says("came from another site");
        }
    }
    assert!(!browser.asked().iter().any(Action::changes), "{:?}", browser.asked());
    let page = browser.post_from("/login", &[("user", "ada")], &[("origin", "https://evil.test")]).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_editor_checks_diffs_and_applies_and_keeps_what_was_typed() {
    let mut browser = Browser::logged_in("master").await;
    let document = "fine\r\nthis is wrong\r\n";
    let typed = |act| [("act", act), ("document", document), ("comment", "why & how"), ("base", "12")];
    let page = browser.submit("/policy/edit", &typed("check")).await;
    page.says("1 complaint").says("href=\"#L2\" data-line=\"2\"").says("id=\"L2\"").says("data-marks=\"2\"");
    page.says("this is wrong\n").says("value=\"why &#38; how\"").says("Use ALLOW, DENY");
    let page = browser.submit("/policy/edit", &typed("diff")).await;
    page.says("<span class=\"add\">+days").says("<span class=\"del\">-days").does_not_say("<b>Saturdays");
    let page = browser.submit("/policy/edit", &typed("apply")).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("this is wrong");
    let bare = [("act", "apply"), ("document", "fine"), ("comment", " "), ("base", "12")];
    browser.submit("/policy/edit", &bare).await.says("Nothing was applied").says("fine");

    let stale = [("act", "apply"), ("document", "fine\r\n"), ("comment", "late"), ("base", "11")];
    let page = browser.submit("/policy/edit", &stale).await;
    assert_eq!(page.status, StatusCode::CONFLICT);
    page.says("applied by grace").says("name=\"rebase\" value=\"12\"").says("/policy?version=12");
    page.says("What they changed").says("<span class=\"add\">+days").says("value=\"merge\"").says("start over");
    let merging = [("act", "merge"), ("document", "fine\r\n"), ("comment", "late"), ("base", "11")];
    let page = browser.submit("/policy/edit", &merging).await;
    page.says("has what version 12 changed").says("merged\n").says("name=\"base\" value=\"12\"").says("value=\"late\"");
    let rebased: Vec<(&str, &str)> = stale.iter().copied().chain([("rebase", "12")]).collect();
    let page = browser.submit("/policy/edit", &rebased).await;
    assert_eq!((page.status, page.header(header::LOCATION)), (StatusCode::SEE_OTHER, "/policy"));
    let applied = browser.asked().into_iter().rev().find(|action| matches!(action, Action::PolicyApply { .. }));
    let expected = Action::PolicyApply {
        document: "fine\n".into(),
        comment: "late".into(),
        base: Some(12),
        how: Default::default(),
    };
    assert_eq!(applied, Some(expected), "line ends, comment or base changed on the way");
    browser.get("/policy").await.says("Version 13 is in force");
    browser.get("/policy").await.does_not_say("Version 13 is in force");
    let asked = browser.desk.asked.lock().unwrap();
    let actor = Actor::Administrator { user: "ada".into(), address: "192.0.2.50".into(), reached: None };
    assert!(asked.iter().filter(|(_, action)| action.changes()).all(|(by, _)| *by == actor));
}

#[tokio::test]
async fn what_locks_somebody_out_is_applied_only_with_its_box_ticked_and_waves_are_passed_on() {
    let mut browser = Browser::logged_in("master").await;
    let words = "This policy would deny everything to everybody.".to_string();
    let refused = Refused::new(RefusedKind::LocksOut, words);
    browser.desk.refusals.lock().unwrap().push_back(refused);
    let typed = [
        ("act", "apply"),
        ("document", "fine"),
        ("comment", "why"),
        ("base", "12"),
        ("waves", "1,all"),
        ("window", "45"),
    ];
    let page = browser.submit("/policy/edit", &typed).await;
    assert_eq!(page.status, StatusCode::CONFLICT);
    page.says("deny everything to everybody")
        .says("name=\"force\" value=\"yes\"")
        .says("value=\"1,all\"")
        .says("value=\"45\"");
    let forced: Vec<(&str, &str)> = typed.iter().copied().chain([("force", "yes")]).collect();
    assert_eq!(browser.submit("/policy/edit", &forced).await.status, StatusCode::SEE_OTHER);
    let hows: Vec<ApplyHow> = browser
        .asked()
        .into_iter()
        .filter_map(|action| match action {
            Action::PolicyApply { how, .. } => Some(how),
            _ => None,
        })
        .collect();
    let waves = Some(Waves { sizes: "1,all".into(), window_s: 45 });
    let how = |force| ApplyHow { force, waves: waves.clone() };
    assert_eq!(hows, [how(false), how(true)]);
}

#[tokio::test]
async fn an_edit_sent_after_its_session_ended_is_not_lost() {
    let mut browser = Browser::visit(FakeDesk::new("master"));
    let page = browser.post("/policy/edit", &[("act", "apply"), ("document", "an hour's <work>")]).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    page.says("an hour&#39;s &#60;work&#62;").says("/login?next=%2Fpolicy%2Fedit");
}

#[tokio::test]
async fn a_slaves_policy_is_read_only_and_says_whose_it_is() {
    let mut browser = Browser::logged_in("slave").await;
    let page = browser.get("/policy").await;
    page.says("Read-only: this is the policy of the master 192.0.2.10:8888")
        .says("Version 12, received")
        .says("https://192.0.2.10:8888/policy");
    page.does_not_say("/policy/edit").does_not_say("/policy/rollback");
    let fields = [("act", "apply"), ("document", "x"), ("comment", "y"), ("base", "12"), ("to", "11")];
    for path in ["/policy/edit", "/policy/rollback"] {
        let page = browser.submit(path, &fields).await;
        if path == "/policy/edit" {
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{path}");
        }
    }
    assert!(!browser.asked().iter().any(Action::changes), "a slave's portal asked for {:?}", browser.asked());
    let page = browser.get("/report").await;
    page.says("kept by the master").says("https://192.0.2.10:8888/report");
    assert!(!browser.asked().iter().any(|action| matches!(action, Action::Report(_))));
}

#[tokio::test]
async fn what_clients_and_authors_wrote_is_shown_and_never_obeyed() {
    let mut browser = Browser::logged_in("master").await;
    for path in ["/report", "/report/newest", "/policy", "/policy/history", "/policy/edit", "/nodes"] {
        let page = browser.get(path).await;
        page.does_not_say("<script>alert").does_not_say("<b>bold").does_not_say("<script>not").does_not_say("\u{202e}");
    }
    browser.get("/report").await.says("&#60;script&#62;alert(1)&#60;/script&#62;").says("\\u{202e}");
    assert!(HOSTILE.contains('\u{202e}'));
    let query = format!("/report?host={}&client={}", enc("\"><script>alert(1)</script>"), enc("'x"));
    browser.get(&query).await.does_not_say("<script>alert").says("Remove filter");
    let page = browser.get(&format!("/explain?client={0}&url={0}", enc("\"><script>alert(1)</script>"))).await;
    page.does_not_say("<script>alert");
    let refusal = refused(RefusedKind::Failed, "<img src=x onerror=alert(1)>");
    browser.desk.refusals.lock().unwrap().push_back(refusal);
    let page = browser.get("/verify").await;
    assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
    page.does_not_say("<img").says("&#60;img src=x onerror");
}

#[tokio::test]
async fn a_reports_rows_narrow_and_its_filters_reach_the_desk() {
    let mut browser = Browser::logged_in("master").await;
    let page = browser.get("/report?node=edge-1&range=7d").await;
    page.says("/report?host=casino.test&#38;node=edge-1&#38;range=7d")
        .says("records 88120 to 88131")
        .says("aria-label=\"Requests from");
    page.says("blocked=yes&#38;host=casino.test&#38;node=edge-1");
    page.says("data-live=\"/report/newest?node=edge-1&#38;range=7d\"");
    let Some(Action::Report(question)) = browser.asked().pop() else { panic!("no report was asked for") };
    assert_eq!(question.node.as_deref(), Some("edge-1"));
    let page = browser.get("/report?status=many&from=never").await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("accepted is an HTTP status such as 403").says("value=\"many\"");
}

#[tokio::test]
async fn missing_records_are_named_with_their_time_and_an_audit_asks_for_its_range() {
    let mut browser = Browser::logged_in("master").await;
    let rows = browser.get("/nodes/rows").await.text;
    assert!(rows.contains("12 never arrived though later ones did"), "{rows}");
    let node = browser.get("/nodes/node?name=edge-2").await.text;
    assert!(node.contains("records 88120 to 88131</th><td class=\"nowrap\"><time datetime="), "{node}");
    let audit = browser.get("/nodes/audit?name=edge-2&from=2026-11-20T10:00&to=2026-11-21T10:00").await.text;
    assert!(audit.contains("Not proved") && audit.contains("never arrived from the node"), "{audit}");
    let range = AuditQuestion {
        node: Some("edge-2".into()),
        from_us: Some(1_795_168_800_000_000),
        to_us: Some(1_795_255_200_000_000),
    };
    let asked = browser.desk.asked.lock().unwrap().iter().any(|(_, action)| *action == Action::Audit(range.clone()));
    assert!(asked, "the range reaches the desk");
    let turned = browser.get("/nodes/audit?name=edge-2&from=2026-11-21T10:00&to=2026-11-20T10:00").await;
    assert_eq!(turned.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn bad_startup_params_are_told_beside_their_fields_and_kept() {
    let mut browser = Browser::logged_in("standalone").await;
    let complaint = |place: &str| Complaint {
        line: 0,
        place: place.into(),
        what: "read \"<many>\"".into(),
        remedy: "Accepted is 0 to 1024.".into(),
    };
    let mut refusal = refused(RefusedKind::Invalid, "Nothing was written.");
    refusal.complaints = vec![complaint("CORES"), complaint("NO_FIELD")];
    browser.desk.refusals.lock().unwrap().extend([refused(RefusedKind::Invalid, "unused")]);
    browser.desk.refusals.lock().unwrap()[0] = refusal;
    let typed = [("was.CORES", "4"), ("param.CORES", "<many>"), ("was.LOG_LEVEL", "info"), ("param.LOG_LEVEL", "info")];
    let page = browser.submit("/support/params", &typed).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.says("value=\"&#60;many&#62;\"")
        .says("id=\"e-CORES\"")
        .says("aria-invalid")
        .says("NO_FIELD")
        .says("1 of the fields");
    let Some(Action::ParamsSubmit { values, force: false }) =
        browser.asked().into_iter().find(|action| matches!(action, Action::ParamsSubmit { .. }))
    else {
        panic!("nothing was submitted")
    };
    assert_eq!(values.into_iter().collect::<Vec<_>>(), [("CORES".to_string(), "<many>".to_string())]);
    let page = browser.submit("/support/params", &[("was.CORES", "4"), ("param.CORES", "2")]).await;
    assert_eq!(page.header(header::LOCATION), "/support/params");
    browser.get("/support/params").await.says("In force after a restart: CORES");
}

#[tokio::test]
async fn restart_asks_about_the_backup_and_does_as_told() {
    let mut browser = Browser::logged_in("slave").await;
    let page = browser.submit("/support/restart", &[]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!browser.asked().iter().any(Action::changes));
    for (answer, backup) in [("yes", true), ("no", false)] {
        browser.get("/support/restart").await;
        let page = browser.submit("/support/restart", &[("backup", answer)]).await;
        page.says("The node restarts now").says("Draining 12 connections, for 10 s at most.");
        // Without script the page asks for itself again, and with it the script knows where to ask.
        page.says("url=/support/restart/progress").says("data-restart=\"/support/restart/state\"");
        assert_eq!(browser.asked().pop(), Some(Action::Restart { backup }));
    }
    browser.get("/support/restart/progress").await.says("Draining 12 connections");
    let state = browser.get("/support/restart/state").await;
    assert_eq!(state.header(header::CONTENT_TYPE), "application/json");
    state.says("\"back_in_s\":12");
}

#[tokio::test]
async fn nobody_learns_of_a_restart_without_a_session_and_no_restart_is_no_progress() {
    let mut browser = Browser::logged_in("master").await;
    assert_eq!(browser.get("/support/restart/state").await.status, StatusCode::NO_CONTENT);
    browser.cookie.clear();
    assert_eq!(browser.get("/support/restart/state").await.status, StatusCode::UNAUTHORIZED);
    let page = browser.get("/support/restart/progress").await;
    assert_eq!(page.header(header::LOCATION), "/login?next=%2Fsupport%2Frestart%2Fprogress");
}

#[tokio::test]
async fn diagnostics_are_a_download_for_a_form_of_this_session_and_the_log_only_if_asked_for() {
    let mut browser = Browser::logged_in("master").await;
    let forged = browser.post("/support/diagnostics", &[("with_log", "yes")]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.asked().iter().filter(|action| matches!(action, Action::Diagnostics { .. })).count(), 0);
    for (fields, with_log) in [(&[][..], false), (&[("with_log", "yes")][..], true)] {
        browser.get("/support/diagnostics").await;
        let page = browser.submit("/support/diagnostics", fields).await;
        assert_eq!((page.status, page.text.as_str()), (StatusCode::OK, "an archive"));
        assert_eq!(page.header(header::CONTENT_TYPE), "application/gzip");
        let named = "attachment; filename=\"tidegate-diagnostics-harbour.tar.gz\"";
        assert_eq!(page.header(header::CONTENT_DISPOSITION), named);
        assert_eq!(browser.asked().pop(), Some(Action::Diagnostics { with_log }));
    }
}

#[tokio::test]
async fn what_is_no_page_or_no_form_is_refused_in_style() {
    let mut browser = Browser::logged_in("master").await;
    for path in ["/nowhere", "/policy/..%2f", "/assets/../Cargo.toml"] {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        page.says("There is no such page").says("portal.css");
    }
    let large = "x".repeat(PORTAL_FORM_BYTES_MAX);
    let page = browser.submit("/support/params", &[("param.A", &large)]).await;
    assert_eq!(page.status, StatusCode::PAYLOAD_TOO_LARGE);
    page.says("larger than this page accepts");
    let page = browser.submit("/policy/edit", &[("act", "check"), ("document", &large)]).await;
    assert_eq!(page.status, StatusCode::OK, "the editor takes more");
    for (body, kind) in [("a=%zz&=&&&=%00", "application/x-www-form-urlencoded"), ("{}", "application/json")] {
        let request = Request::post("/support/restart").header("content-type", kind).body(Body::from(body)).unwrap();
        let page = browser.send(request).await;
        assert!(page.status.is_client_error(), "{kind}");
        page.says("portal.css");
    }
}
