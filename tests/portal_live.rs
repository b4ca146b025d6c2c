//! The real portal of real nodes, over HTTPS, as a browser without JavaScript meets it (curl with a jar for cookies), and live in Chromium.

#[path = "portal/chromium.rs"]
mod chromium;
mod harness;

use chromium::Chromium;

use harness::Cluster;
use harness::Node;
use harness::client::Client;
use harness::tidegate;
use harness::wait_until;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::ApplyHow;
use tidegate::admin::Outcome;

const USER: &str = "ada";
const PASSWORD: &str = "correct horse battery";

/// Every page of a master, for whoever is logged in.
const PAGES: [&str; 21] = [
    "/nodes",
    "/nodes/rows",
    "/policy",
    "/policy/edit",
    "/policy/history",
    "/policy/rollout",
    "/policy/rollout/rows",
    "/policy/rollback?to=1",
    "/explain?client=127.0.0.1&url=http://127.0.0.1/social",
    "/report",
    "/report/newest",
    "/support/params",
    "/support/restart",
    "/connections",
    "/verify",
    "/support/kernel",
    "/support/diagnostics",
    "/support/version",
    "/support/restart/progress",
    "/tasks",
    "/tasks/rows",
];

/// Those that a page polls: for nobody they are 401, so that the page can say that the session has ended.
const POLLED: [&str; 4] = ["/nodes/rows", "/policy/rollout/rows", "/report/newest", "/tasks/rows"];

/// One person's browser at one node's portal.
struct Browser {
    portal: String,
    jar: PathBuf,
    dir: TempDir,
}

/// What curl received.
#[derive(Debug)]
struct Page {
    status: u16,
    /// Where a redirect leads; empty if it is none.
    location: String,
    text: String,
}

impl Page {
    #[track_caller]
    fn says(&self, words: &str) -> &Page {
        assert!(self.text.contains(words), "no {words:?} in {} {}:\n{}", self.status, self.location, self.text);
        self
    }

    /// The value of the hidden field `name`.
    #[track_caller]
    fn hidden(&self, name: &str) -> String {
        let before = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.text.split_once(&before).unwrap_or_else(|| panic!("no field {name} in\n{}", self.text));
        rest.split('"').next().unwrap_or_default().to_string()
    }
}

impl Browser {
    fn at(node: &Node) -> Browser {
        let dir = tempfile::Builder::new().prefix("tidegate-browser-").tempdir().unwrap();
        Browser { portal: format!("https://{}", node.layout.portal), jar: dir.path().join("jar"), dir }
    }

    /// A browser beside this one on the same machine: it shares the cookies.
    fn also_at(&self, node: &Node) -> Browser {
        Browser { jar: self.jar.clone(), ..Browser::at(node) }
    }

    fn get(&self, path: &str) -> Page {
        self.curl(&format!("{}{path}", self.portal), &[])
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let arguments: Vec<&str> = fields.iter().flat_map(|field| ["--data-urlencode", field]).collect();
        self.curl(&format!("{}{path}", self.portal), &arguments)
    }

    /// Posts `fields` with the token of the form at `path`.
    fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = self.get(path).hidden("csrf");
        self.post(path, &[fields, &[("csrf", &csrf)]].concat())
    }

    fn log_in(&self) -> Page {
        self.post("/login", &[("user", USER), ("password", PASSWORD)])
    }

    fn curl(&self, url: &str, arguments: &[&str]) -> Page {
        let body = self.dir.path().join("body");
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "20"])
            .arg("--cookie")
            .arg(&self.jar)
            .arg("--cookie-jar")
            .arg(&self.jar)
            .arg("--output")
            .arg(&body)
            .args(["--write-out", "%{http_code} %{redirect_url}"])
            .args(arguments)
            .arg(url)
            .output()
            .expect("curl is installed");
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, location) = told.split_once(' ').unwrap();
        Page { status: status.parse().unwrap(), location: location.into(), text: fs::read_to_string(body).unwrap() }
    }
}

fn add_administrator(node: &Node) {
    let added = node.ask(Action::AdminAdd { user: USER.into(), password: PASSWORD.into() });
    assert!(matches!(added, Ok(Outcome::Done { .. })), "{added:?}");
}

#[test]
fn an_administrator_runs_a_cluster_through_the_portals_of_its_nodes() {
    let cluster = Cluster::start(1);
    let (master, slave) = (&cluster.master, &cluster.slaves[0]);
    let browser = Browser::at(master);
    nobody_gets_in_by_default(&browser, master);
    add_administrator(master);
    only_the_right_password_gets_in(&browser);
    every_page_is_there(&browser);
    an_apply_through_the_form_is_enforced(&browser, &cluster);
    a_form_without_its_token_changes_nothing(&browser, &cluster);
    add_administrator(slave);
    a_slave_shows_the_masters_policy_and_changes_nothing(&browser.also_at(slave), &cluster);
    logging_out_ends_the_session(&browser);
}

#[test]
fn no_policy_shuts_anybody_out_of_the_portal_and_moving_it_away_from_oneself_takes_a_tick() {
    let cluster = Cluster::start(0);
    let master = &cluster.master;
    add_administrator(master);
    let browser = Browser::at(master);
    assert_eq!(browser.log_in().status, 303);

    // The worst there is, for these addresses too: the session stays, and so does the way in.
    let params = fs::read_to_string(&master.layout.config).unwrap();
    let everybody = "[[access_restriction.deny]]\naddresses = [\"any\"]\n";
    let how = ApplyHow { force: true, ..ApplyHow::default() };
    let apply = Action::PolicyApply { document: everybody.into(), comment: "oops".into(), base: None, how };
    assert!(matches!(master.ask(apply), Ok(Outcome::Applied { changed: true, .. })));
    assert_eq!(browser.get("/policy").status, 200);
    let newcomer = Browser::at(master);
    assert_eq!(newcomer.log_in().status, 303);
    let back = newcomer.submit("/policy/rollback?to=1", &[("to", "1"), ("comment", "back")]);
    assert_eq!(back.status, 303, "{back:?}");
    assert_eq!(fs::read_to_string(&master.layout.config).unwrap(), params, "an apply touched startup.ini");

    // PORTAL_IP is what can: it is this node's own, and changed on this page.
    let away = [("was.PORTAL_IP", "127.0.0.1"), ("param.PORTAL_IP", "127.0.0.2")];
    let refused = browser.submit("/support/params", &away);
    assert_eq!(refused.status, 409, "{refused:?}");
    refused.says("you reach it at 127.0.0.1").says("name=\"force\" value=\"yes\"").says("value=\"127.0.0.2\"");
    assert_eq!(fs::read_to_string(&master.layout.config).unwrap(), params);
    let control = master.layout.control.display().to_string();
    let nowhere = ["--control", &control, "params", "set", "PORTAL_IP=192.0.2.1"];
    let (code, _, complaint) = tidegate(&nowhere);
    assert!(code == 1 && complaint.contains("no interface of this host has PORTAL_IP 192.0.2.1"), "{complaint}");
    let forced = browser.submit("/support/params", &[&away[..], &[("force", "yes")]].concat());
    assert_eq!(forced.status, 303, "{forced:?}");
    assert!(fs::read_to_string(&master.layout.config).unwrap().contains("PORTAL_IP=\"127.0.0.2\""));
    let log = fs::read_to_string(master.layout.log.with_file_name("config.log")).unwrap();
    assert!(log.contains("PORTAL_IP=127.0.0.2, forced"), "{log}");
    let (code, _, complaint) = tidegate(&[&nowhere[..], &["--force"]].concat());
    assert_eq!(code, 0, "{complaint}");
}

/// There is no default password, and the login page says what to do about it.
fn nobody_gets_in_by_default(browser: &Browser, master: &Node) {
    browser.get("/login").says("tidegate admin add");
    for (user, password) in [("admin", "admin"), ("admin", "tidegate"), ("root", "root"), ("admin", "")] {
        let page = browser.post("/login", &[("user", user), ("password", password)]);
        assert_eq!(page.status, 403, "{user}/{password}: {page:?}");
    }
    for path in PAGES.iter().filter(|path| !POLLED.contains(path)) {
        let page = browser.get(path);
        assert_eq!(page.status, 303, "{path}");
        assert!(page.location.contains("/login?next="), "{path}: {}", page.location);
    }
    for path in POLLED {
        assert_eq!(browser.get(path).status, 401, "{path}");
    }
    let plain = browser.curl(&format!("http://{}/policy?version=1", master.layout.portal), &[]);
    assert_eq!((plain.status, plain.location), (308, format!("{}/policy?version=1", browser.portal)));
}

fn only_the_right_password_gets_in(browser: &Browser) {
    let wrong = browser.post("/login", &[("user", USER), ("password", "wrong horse")]);
    assert_eq!(wrong.status, 403);
    wrong.says("Name or password is wrong.");
    assert_eq!(browser.get("/nodes").status, 303, "a wrong password opened a session");
    let right = browser.log_in();
    assert_eq!(right.status, 303, "{right:?}");
    browser.get("/nodes").says(USER).says("slave-1");
}

fn every_page_is_there(browser: &Browser) {
    for path in PAGES {
        let page = browser.get(path);
        assert_eq!(page.status, 200, "{path}: {}", page.text);
    }
    browser.get(PAGES[8]).says("DENY").says("Block social");
    assert_eq!(browser.get("/nowhere").status, 404);
}

fn an_apply_through_the_form_is_enforced(browser: &Browser, cluster: &Cluster) {
    let proxy = cluster.slaves[0].layout.proxy;
    let asked = |path: &str| Client::connect(proxy).unwrap().get(&cluster.url(path)).unwrap().status;
    assert_eq!((asked("/social"), asked("/news")), (403, 200));
    let document = cluster.policy("").replace("\"/social\"", "\"/news\"");
    let base = browser.get("/policy/edit").hidden("base");

    let faulty = browser.submit("/policy/edit", &[("act", "check"), ("document", "[nonsense]\n"), ("base", &base)]);
    faulty.says("does not compile").says("Line 1");
    let changed = [("act", "diff"), ("document", document.as_str()), ("base", &base)];
    browser.submit("/policy/edit", &changed).says("+path_prefixes = [&#34;/news&#34;]");
    let silent = [("act", "apply"), ("document", document.as_str()), ("base", &base)];
    assert_eq!(browser.submit("/policy/edit", &silent).status, 422, "applied without a word why");

    let told = [&silent[..], &[("comment", "news are off")]].concat();
    let applied = browser.submit("/policy/edit", &told);
    assert_eq!(applied.status, 303, "{applied:?}");
    wait_until("the slave enforces what was applied in the browser", || asked("/news") == 403);
    assert_eq!(asked("/social"), 200);
    browser.get("/policy/history").says("news are off").says(USER);
    let late = browser.submit("/policy/edit", &told);
    assert_eq!(late.status, 409, "{late:?}");

    let base = browser.get("/policy/edit").hidden("base");
    let alone = cluster.policy("\n[[access_restriction.deny]]\naddresses = [\"127.0.0.1\"]\n");
    let alone = [("act", "apply"), ("document", alone.as_str()), ("base", &base), ("comment", "not me")];
    let refused = browser.submit("/policy/edit", &alone);
    assert_eq!(refused.status, 409, "{refused:?}");
    refused.says("would lock you out: your own address 127.0.0.1").says("name=\"force\"");

    let back = browser.submit("/policy/rollback?to=1", &[("to", "1"), ("comment", "news are on")]);
    assert_eq!(back.status, 303, "{back:?}");
    wait_until("the slave enforces the old policy again", || asked("/news") == 200);
    assert_eq!(asked("/social"), 403);
    cluster.wait_for_records();
    browser.get("/report").says("/report?host=127.0.0.1").says("/news");
}

fn a_form_without_its_token_changes_nothing(browser: &Browser, cluster: &Cluster) {
    let before = cluster.master.status().unwrap();
    let document = cluster.policy("# not to be\n");
    for token in [None, Some("0123456789abcdef")] {
        for (path, fields) in [
            ("/policy/edit", vec![("act", "apply"), ("document", document.as_str()), ("base", "3"), ("comment", "x")]),
            ("/policy/rollback", vec![("to", "2"), ("comment", "x")]),
            ("/support/params", vec![("was.LOG_LEVEL", "info"), ("param.LOG_LEVEL", "debug")]),
            ("/support/restart", vec![("backup", "no")]),
            ("/support/diagnostics", vec![("with_log", "yes")]),
            ("/logout", vec![("next", "/")]),
        ] {
            let fields: Vec<(&str, &str)> = fields.into_iter().chain(token.map(|token| ("csrf", token))).collect();
            assert_eq!(browser.post(path, &fields).status, 403, "{path} {token:?}");
        }
    }
    let after = cluster.master.status().unwrap();
    assert_eq!(after.snapshot, before.snapshot);
    let params = fs::read_to_string(&cluster.master.layout.config).unwrap();
    assert!(!params.contains("debug"), "{params}");
    assert_eq!(browser.get("/nodes").status, 200, "a form without its token ended the session");
}

fn a_slave_shows_the_masters_policy_and_changes_nothing(browser: &Browser, cluster: &Cluster) {
    assert_eq!(browser.log_in().status, 303);
    let shown = browser.get("/policy");
    shown.says("Read-only").says(&cluster.master.layout.portal.to_string()).says("Block social");
    assert!(!shown.text.contains("/policy/edit"), "{}", shown.text);
    assert_eq!(browser.get("/policy/edit").status, 403);
    let before = cluster.slaves[0].status().unwrap().snapshot;
    let document = cluster.policy("# the slave's own\n");
    let csrf = browser.get("/support/restart").hidden("csrf");
    let fields = [("csrf", csrf.as_str()), ("act", "apply"), ("document", &document), ("base", "3"), ("comment", "x")];
    assert_eq!(browser.post("/policy/edit", &fields).status, 403);
    assert_eq!(cluster.slaves[0].status().unwrap().snapshot, before);
}

/// Also: the login at the slave, which is another port of the same host, left the one at the master alone.
fn logging_out_ends_the_session(browser: &Browser) {
    let csrf = browser.get("/support/restart").hidden("csrf");
    let jar = fs::read_to_string(&browser.jar).unwrap();
    assert_eq!(browser.post("/logout", &[("csrf", &csrf)]).status, 303);
    fs::write(&browser.jar, jar).unwrap();
    assert_eq!(browser.get("/nodes").status, 303, "the old cookie still opens the portal");
}

fn snapshot(node: &Node) -> String {
    node.status().map(|status| status.snapshot).unwrap_or_default()
}

#[test]
fn an_administrator_sees_a_rollout_wait_and_presses_the_emergency_button() {
    let cluster = Cluster::start(2);
    let master = &cluster.master;
    add_administrator(master);
    let before = snapshot(master);
    let portal = format!("https://{}", master.layout.portal);
    let mut browser = Chromium::start();
    browser.open(&format!("{portal}/policy/edit"));
    browser.click("Name");
    browser.fill(USER);
    browser.click("Password");
    browser.fill(PASSWORD);
    browser.click("Log in");
    apply_in_waves(&mut browser, "# in waves\n", "new lists");
    browser.wait_for_words("wave 1: reported by all its slaves; watched for 600 s");
    let new = snapshot(master);
    assert_eq!((snapshot(&cluster.slaves[0]), snapshot(&cluster.slaves[1])), (new.clone(), before.clone()));
    browser.picture("rollout-running");

    browser.click("Emergency: all slaves at once");
    browser.wait_for_words("Until now it is on slave-1 alone.");
    browser.picture("rollout-emergency");
    // Not without a reason, and not before the second button.
    browser.click("Send it to all slaves now");
    assert_eq!(browser.value("location.pathname"), "/policy/rollout/skip");
    assert_eq!(snapshot(&cluster.slaves[1]), before);
    browser.click("Why");
    browser.fill("the exploit is out");
    browser.click("Send it to all slaves now");
    browser.wait_for_words("done: every slave has it");
    wait_until("slave-2 has it", || snapshot(&cluster.slaves[1]) == new);
    browser.picture("rollout-done");
    let log = fs::read_to_string(master.layout.log.with_file_name("config.log")).unwrap();
    let line = "\t\"ada@127.0.0.1\"\t\"policy-rollout-skip\"\t\"the exploit is out\"\t\"done\"";
    assert!(log.contains(line), "{log}");

    // Another one, which ends while the page is open: it says so, and its buttons go.
    browser.open(&format!("{portal}/policy/edit"));
    apply_in_waves(&mut browser, "# again\n", "more lists");
    browser.wait_for_words("wave 1: reported by all its slaves; watched for 600 s");
    assert!(browser.text().contains("Call it back"));
    browser.value("window.stays = true");
    let called_back = master.ask(Action::PolicyRolloutAbort { comment: "phones ring".into() });
    assert!(called_back.is_ok(), "{called_back:?}");
    browser.wait_for_words("phones ring");
    browser.picture("rollout-reverted");
    let text = browser.text();
    assert!(text.contains("reverted: every slave has version 2") && !text.contains("Call it back"), "{text}");
    assert_eq!(browser.value("window.stays"), true, "the page was loaded again");
}

/// In the editor: `more` at the end of the document, and the waves.
fn apply_in_waves(browser: &mut Chromium, more: &str, why: &str) {
    browser.click("Policy document");
    browser.value("document.activeElement.setSelectionRange(1e9, 1e9)");
    browser.insert(more);
    browser.click("Apply in waves");
    browser.click("Slaves that have it after each wave");
    browser.fill("1,all");
    browser.click("Seconds that each wave is watched");
    browser.fill("600");
    browser.click("Why");
    browser.fill(why);
    browser.picture("editor-waves");
    browser.click("Apply");
    browser.wait_for_words("Rollout in waves\n");
}

#[test]
fn an_administrator_orders_a_task_by_keyboard_and_sees_the_slave_that_was_away_do_it() {
    let cluster = Cluster::start(2);
    let master = &cluster.master;
    add_administrator(master);
    cluster.slaves[1].stop();
    let mut browser = Chromium::start();
    browser.open(&format!("https://{}/tasks", master.layout.portal));
    browser.tab_to("Name");
    browser.fill(USER);
    browser.tab_to("Password");
    browser.fill(PASSWORD);
    browser.press_enter();
    browser.wait_for_words("Have slaves do something");
    browser.tab_to("What");
    browser.type_text("rot");
    browser.tab_to("On which slaves");
    browser.fill("slave-1, slave-2");
    browser.picture("task-ordering");
    browser.tab_to("Order it");
    browser.press_enter();
    browser.wait_for_words("rotate-logs on slave-1, slave-2");
    browser.value("window.stays = true");
    browser.wait_for_words("1 done");
    browser.wait_for_words("waits until the slave comes for it");
    let row = |name: &str| {
        format!("[...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes('{name}')).innerText")
    };
    let (first, second) = (browser.value(&row("slave-1")), browser.value(&row("slave-2")));
    assert!(first.to_string().contains("done") && second.to_string().contains("queued"), "{first} {second}");
    assert!(browser.text().contains("Cancel it where it was not begun"));
    browser.picture("task-waiting");
    cluster.slaves[1].start();
    browser.wait_for_words("2 done");
    browser.picture("task-done");
    let text = browser.text();
    assert!(text.contains("It has ended on every slave.") && !text.contains("Cancel it"), "{text}");
    assert_eq!(browser.value("window.stays"), true, "the page was loaded again");
}
