//! The real portal of real nodes, over HTTPS, as a browser without JavaScript meets it: curl with a jar for cookies.

mod harness;

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
const PAGES: [&str; 19] = [
    "/nodes",
    "/nodes/rows",
    "/policy",
    "/policy/edit",
    "/policy/history",
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
    for path in PAGES.iter().filter(|path| !["/nodes/rows", "/report/newest"].contains(path)) {
        let page = browser.get(path);
        assert_eq!(page.status, 303, "{path}");
        assert!(page.location.contains("/login?next="), "{path}: {}", page.location);
    }
    assert_eq!(browser.get("/nodes/rows").status, 401);
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
    browser.get(PAGES[6]).says("DENY").says("Block social");
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
