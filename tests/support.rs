//! What an operator on call and a support desk see of a real node: messages in a real journald, checks of the host, diagnostics.

mod harness;

use harness::Cluster;
use harness::Node;
use harness::Origin;
use harness::client::Client;
use harness::test_policy;
use harness::tidegate;
use harness::wait_until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use tempfile::TempDir;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::admin::Verdict;
use tidegate::daemon::layout::NodeLayout;

/// A stand-alone node whose standard error is a real journald's: both in a namespace of their own.
struct Journalled {
    layout: NodeLayout,
    /// journald's files, where journalctl outside reads them.
    journal: PathBuf,
    inside: Child,
    _dir: TempDir,
}

/// What runs in the namespace: journald, then the node, its standard error named in JOURNAL_STREAM as systemd does it.
const INSIDE: &str = r#"
set -eu
dir=$1; shift
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
mount --bind "$dir/journal" /run/log/journal
if [ ! -s /etc/machine-id ]; then
    echo 0123456789abcdef0123456789abcdef > "$dir/machine-id"
    [ -e /etc/machine-id ] || touch /etc/machine-id
    mount --bind "$dir/machine-id" /etc/machine-id
fi
/lib/systemd/systemd-journald 2> "$dir/journald.err" &
tries=0
while [ ! -S /run/systemd/journal/socket ] || [ ! -S /run/systemd/journal/stdout ]; do
    tries=$((tries + 1)); [ $tries -lt 600 ] || { echo "journald did not start"; exit 1; }
    sleep 0.05
done
exec 2> "$dir/stderr"
JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"
"#;

impl Journalled {
    fn start(extra: &[(&'static str, &str)]) -> Journalled {
        let dir = tempfile::Builder::new().prefix("tidegate-journal-").tempdir().unwrap();
        let [proxy, portal] = free_ports();
        let layout = NodeLayout::at(dir.path(), "edge-7", proxy, portal);
        let extra: BTreeMap<&str, String> = extra.iter().map(|(key, value)| (*key, value.to_string())).collect();
        layout.write(&dir.path().join("no.key"), &[("ROLE", "standalone".to_string())], &extra).unwrap();
        let journal = dir.path().join("journal");
        fs::create_dir(&journal).unwrap();
        let inside = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INSIDE, "sh"])
            .arg(dir.path())
            .arg(env!("CARGO_BIN_EXE_tidegate"))
            .args(["run", "--config"])
            .arg(&layout.config)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare is installed");
        let mut node = Journalled { layout, journal, inside, _dir: dir };
        wait_until("the node under journald answers", || {
            let ended = node.inside.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", node.standard_error());
            node.status().is_some()
        });
        node
    }

    fn ask(&self, action: Action) -> Outcome {
        tidegate::cli::control::ask(&self.layout.control, &action).unwrap().unwrap()
    }

    fn standard_error(&self) -> String {
        fs::read_to_string(self.layout.dir.with_file_name("stderr")).unwrap_or_default()
    }

    fn status(&self) -> Option<tidegate::admin::Status> {
        match tidegate::cli::control::ask(&self.layout.control, &Action::Status) {
            Ok(Ok(Outcome::Status(status))) => Some(*status),
            _ => None,
        }
    }

    /// What journalctl finds for `FIELD=value` matches.
    fn find(&self, matches: &[&str]) -> Vec<Value> {
        let output = Command::new("journalctl")
            .arg("--directory")
            .arg(&self.journal)
            .args(["--output=json", "--all", "--no-pager", "--quiet"])
            .args(matches)
            .output()
            .expect("journalctl is installed");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The same, once there is at least one.
    fn found(&self, matches: &[&str]) -> Vec<Value> {
        wait_until(&format!("{matches:?} in the journal"), || !self.find(matches).is_empty());
        self.find(matches)
    }
}

impl Drop for Journalled {
    fn drop(&mut self) {
        // The namespace's first process goes with unshare, and everything in it with that.
        let _ = self.inside.kill();
        let _ = self.inside.wait();
    }
}

fn free_ports<const N: usize>() -> [SocketAddr; N] {
    tidegate::daemon::layout::free_ports(N).unwrap().try_into().unwrap()
}

#[test]
fn journalctl_finds_messages_by_node_client_and_snapshot_and_a_flood_of_refusals_stays_a_few_lines() {
    let node = Journalled::start(&[("PROXY_PROTOCOL", "required"), ("TRUSTED_PROXIES", "192.0.2.0/24")]);
    let started = &node.found(&["NODE=edge-7", "EVENT=start"])[0];
    for (field, value) in [("ROLE", "standalone"), ("SYSLOG_IDENTIFIER", "tidegate"), ("PRIORITY", "6")] {
        assert_eq!(started[field], value, "{started}");
    }
    assert!(started["MESSAGE"].as_str().unwrap().contains("starts as standalone edge-7"), "{started}");

    let origin = Origin::start();
    let document = test_policy(origin.address, "");
    let applied =
        node.ask(Action::PolicyApply { document, comment: String::new(), base: None, how: Default::default() });
    let Outcome::Applied { snapshot, .. } = applied else { panic!("{applied:?}") };
    let in_force = &node.found(&["NODE=edge-7", &format!("SNAPSHOT={snapshot}")])[0];
    assert_eq!(in_force["EVENT"], "policy-in-force", "{in_force}");

    for _ in 0..200 {
        // The node closes it for want of a PROXY header, once it is asked something.
        let mut stream = TcpStream::connect(node.layout.proxy).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let _ = stream.read(&mut [0; 64]);
    }
    let refused = node.found(&["NODE=edge-7", "CLIENT_ID=127.0.0.1"]);
    assert!(refused.len() < 20, "{} lines for 200 refusals", refused.len());
    assert_eq!((&refused[0]["PRIORITY"], &refused[0]["EVENT"]), (&"4".into(), &"client-refused".into()));
    assert!(refused[0]["MESSAGE"].as_str().unwrap().contains("TRUSTED_PROXIES"), "{}", refused[0]);
    assert_eq!(node.status().unwrap().front.proxy_header_refused, 200);
    assert_eq!(node.standard_error(), "", "under journald nothing is said twice");
}

#[test]
fn the_log_level_changes_while_the_node_runs() {
    let node = Journalled::start(&[]);
    let set = |level: &str| {
        let outcome = node
            .ask(Action::ParamsSubmit { values: BTreeMap::from([("LOG_LEVEL".into(), level.into())]), force: false });
        assert!(matches!(&outcome, Outcome::Submitted { live, .. } if live == &["LOG_LEVEL"]), "{outcome:?}");
    };
    let fail_a_handshake = || {
        let mut stream = TcpStream::connect(node.layout.portal).unwrap();
        stream.write_all(b"\x16nonsense").unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    };
    fail_a_handshake();
    set("debug");
    fail_a_handshake();
    let failed = node.found(&["EVENT=handshake-failed"]);
    assert_eq!(failed.len(), 1, "the one before the change is not there: {failed:?}");
    assert_eq!((&failed[0]["PRIORITY"], &failed[0]["CLIENT_ID"]), (&"7".into(), &"127.0.0.1".into()));

    set("error");
    fail_a_handshake();
    set("info");
    // Only the second of the two changes is told at info; at error, the first was not.
    wait_until("the change back to info is told", || node.find(&["EVENT=params-in-force"]).len() == 2);
    assert_eq!(node.find(&["EVENT=handshake-failed"]).len(), 1);
}

#[test]
fn a_node_says_what_of_its_host_hurts_and_how_to_mend_it() {
    let cluster = Cluster::start(0);
    let checks = match cluster.master.ask(Action::Kernel) {
        Ok(Outcome::Kernel { checks }) => checks,
        other => panic!("{other:?}"),
    };
    for name in
        ["io_uring", "open files", "listen backlog", "outgoing ports", "connection tracking", "clock", "processor"]
    {
        assert!(checks.iter().any(|check| check.name == name), "no check of {name}: {checks:?}");
    }
    for check in &checks {
        assert!(!check.found.is_empty() && !check.why.is_empty(), "{check:?}");
        assert_eq!(
            check.verdict >= Verdict::Advice,
            !check.remedy.is_empty() && check.verdict != Verdict::Unknown,
            "{check:?}"
        );
    }
    let hurts = checks.iter().any(|check| check.verdict == Verdict::Hurts);
    let control = cluster.master.layout.control.to_str().unwrap();
    let (code, text, error) = tidegate(&["kernel", "--control", control]);
    assert_eq!(code, i32::from(hurts), "{text}{error}");
    assert!(text.contains("io_uring"), "{text}");
    let (_, text, _) = tidegate(&["verify", "--control", control]);
    assert!(text.contains("kernel and host"), "{text}");

    // Without a node the command looks by itself: the host may be why there is none.
    let (_, text, error) = tidegate(&["kernel"]);
    assert!(text.contains("io_uring"), "{text}{error}");
}

#[test]
fn diagnostics_say_what_is_needed_and_no_secret_of_the_node() {
    let cluster = Cluster::lay_out(1, &[]);
    let slave = &cluster.slaves[0];
    let secrets = plant_secrets(&cluster);
    cluster.master.start();
    // Secrets where they do not belong: in a comment of startup.ini, in the policy, in a client's URL.
    let misplaced = format!("# {}, {}\n", secrets.key, secrets.parent);
    cluster.apply(&(misplaced.clone() + &cluster.policy("")));
    let ini = fs::read_to_string(&slave.layout.config).unwrap();
    fs::write(&slave.layout.config, format!("{misplaced}{ini}")).unwrap();
    slave.start();
    cluster.wait_for_policy();
    let client = |path: &str| Client::connect(slave.layout.proxy).unwrap().get(&cluster.url(path)).unwrap().status;
    assert_eq!(client(&format!("/bytes/1?{}", secrets.parent)), 200);
    cluster.wait_for_records();
    add_administrator(slave);
    let browser = Browser::logged_in(slave, cluster.dir());
    let session = browser.cookie();
    let (_, form) = browser.get("/support/diagnostics");
    let downloaded = cluster.dir().join("downloaded.tar.gz");
    let csrf = format!("csrf={}", csrf(&form));
    let asked = ["--data-urlencode", &csrf, "--output", downloaded.to_str().unwrap()];
    assert_eq!(browser.curl("/support/diagnostics", &asked).unwrap().0, 200);
    let listed = Command::new("tar").arg("-tzf").arg(&downloaded).output().expect("tar is installed");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("tidegate-diagnostics/README.txt\n") && !listed.contains("extended.log"), "{listed}");

    for with_log in [false, true] {
        let (files, bytes) = take(slave, cluster.dir(), with_log);
        let text = |name: &str| files.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", files.keys()));
        assert!(text("README.txt").contains(if with_log { "PERSONAL DATA" } else { "Who went where is not in it" }));
        assert!(text("README.txt").contains("proc.txt"), "the contents are listed: {}", text("README.txt"));
        assert!(text("status.json").contains("\"slave-1\""), "{}", text("status.json"));
        assert!(text("startup-params.txt").contains("ROLE=\"slave\"\n"), "{}", text("startup-params.txt"));
        assert!(text("policy.toml").starts_with("# (removed), (removed)\n"), "{}", text("policy.toml"));
        assert!(text("policy.toml").contains("[access_restriction]"), "{}", text("policy.toml"));
        // A slave has it from its master.
        assert!(text("policy-history.json").contains("\"comment\": \"a test\""), "{}", text("policy-history.json"));
        assert!(text("messages.txt").contains("starts as slave slave-1"), "{}", text("messages.txt"));
        assert!(text("kernel.txt").contains("io_uring: allowed"), "{}", text("kernel.txt"));
        assert!(text("verify.txt").contains("passed master reachable"), "{}", text("verify.txt"));
        assert!(text("versions.txt").contains(tidegate::base::version::VERSION), "{}", text("versions.txt"));
        assert!(text("proc.txt").contains("MemAvailable"), "{}", text("proc.txt"));
        assert!(text("sizes.txt").contains("portal-key.pem"), "{}", text("sizes.txt"));
        assert_eq!(files.contains_key("extended.log"), with_log);
        assert_eq!(files.contains_key("config.log"), with_log);
        if with_log {
            assert!(text("extended.log").contains("/bytes/1?(removed)"), "{}", text("extended.log"));
            assert!(text("config.log").contains("diagnostics"), "taking them is noted: {}", text("config.log"));
        }
        for (what, secret) in secrets.all(slave, &session) {
            assert!(!holds(&bytes, secret.as_bytes()), "{what} is in the diagnostics");
        }
    }
}

#[test]
fn the_portal_says_how_far_a_restart_is_until_the_new_process_asks_for_the_login() {
    let cluster = Cluster::lay_out(1, &[("DRAIN_TIME", "600")]);
    let slave = &cluster.slaves[0];
    cluster.master.start();
    cluster.apply(&cluster.policy(""));
    slave.start();
    cluster.wait_for_policy();
    add_administrator(slave);
    let browser = Browser::logged_in(slave, cluster.dir());
    assert_eq!(browser.get("/support/restart/state").0, 204, "no restart was ordered yet");

    let tunnel = Client::connect(slave.layout.proxy).unwrap().tunnel(&cluster.origin.address.to_string()).unwrap();
    let tunnel = tunnel.expect("the policy lets the tunnel through");
    let (_, form) = browser.get("/support/restart");
    assert!(form.contains("1 connection now"), "{form}");
    let (status, page) = browser.post("/support/restart", &[("csrf", &csrf(&form)), ("backup", "yes")]);
    assert_eq!(status, 200, "{page}");
    for words in ["Backed up to", "Draining 1 connection, for ", "url=/support/restart/progress"] {
        assert!(page.contains(words), "no {words:?} in {page}");
    }
    // However often it is asked, the old process says that it waits for the one that is still there.
    for _ in 0..5 {
        let (status, state) = browser.get("/support/restart/state");
        let state: Value = serde_json::from_str(&state).unwrap_or_else(|error| panic!("{status} {state}: {error}"));
        assert!(state["words"].as_str().unwrap().starts_with("Draining 1 connection, for "), "{state}");
        assert!(state["back_in_s"].as_u64().is_some_and(|back| back <= 602), "{state}");
        assert!(browser.get("/support/restart/progress").1.contains("Draining 1 connection"));
    }

    drop(tunnel);
    // While it starts nobody answers, or the old one says that nothing is left.
    wait_until("another process asks for the login", || {
        browser.curl("/support/restart/state", &[]).is_ok_and(|(status, _)| status == 401)
    });
    let (status, _) = browser.get("/support/restart/progress");
    assert_eq!(status, 303, "without a session a page leads to the login");
    browser.log_in();
    let (_, back) = browser.get("/support/restart/progress");
    assert!(back.contains("slave-1 is back"), "{back}");
    assert!(slave.is_running(), "it restarted in place: {}", slave.journal());
}

/// The token of the form on a page.
fn csrf(page: &str) -> String {
    let (_, token) = page.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("no form in {page}"));
    token.split('"').next().unwrap().to_string()
}

fn add_administrator(node: &Node) {
    let added = node.ask(Action::AdminAdd { user: "ada".into(), password: PASSWORD.into() });
    assert!(matches!(added, Ok(Outcome::Done { .. })), "{added:?}");
}

const PASSWORD: &str = "correct horse battery";

struct Planted {
    /// The cluster's activation key.
    key: String,
    /// The password for a parent proxy.
    parent: String,
}

fn plant_secrets(cluster: &Cluster) -> Planted {
    let credentials = cluster.slaves[0].layout.dir.join("credentials");
    fs::create_dir_all(&credentials).unwrap();
    let file = credentials.join("hq");
    let parent = "9b1e-the-parents-password".to_string();
    fs::write(&file, format!("tidegate:{parent}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Planted { key: fs::read_to_string(&cluster.layout.key).unwrap().trim().to_string(), parent }
}

impl Planted {
    /// Everything on the node that opens something, as it stands on disk or was sent.
    fn all(&self, node: &Node, session: &str) -> Vec<(&'static str, String)> {
        let state = node.layout.dir.join("state");
        let pem = fs::read_to_string(state.join("portal-key.pem")).unwrap();
        let body = pem.lines().find(|line| !line.starts_with("-----")).expect("a key has a body").to_string();
        let admins =
            [fs::read(state.join("admins.db")).unwrap(), fs::read(state.join("admins.db-wal")).unwrap_or_default()];
        let hash = admins.iter().find_map(|bytes| argon2(bytes)).expect("admins.db holds a hash");
        vec![
            ("the activation key", self.key.clone()),
            ("a part of the activation key", self.key[self.key.len() - 35..].to_string()),
            ("the portal's private key", body),
            ("an administrator's hash", hash),
            ("an administrator's password", PASSWORD.to_string()),
            ("a parent's password", self.parent.clone()),
            ("a session's cookie", session.to_string()),
        ]
    }
}

fn argon2(bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(7).position(|window| window == b"$argon2")?;
    let text: Vec<u8> = bytes[at..].iter().copied().take_while(|byte| byte.is_ascii_graphic()).collect();
    String::from_utf8(text).ok()
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

/// One person at a node's portal, without JavaScript: curl with a jar for cookies.
struct Browser {
    portal: String,
    jar: PathBuf,
}

impl Browser {
    /// Logged in as the administrator that `node` has.
    fn logged_in(node: &Node, dir: &Path) -> Browser {
        let browser = Browser { portal: format!("https://{}", node.layout.portal), jar: dir.join("jar") };
        browser.log_in();
        browser
    }

    fn log_in(&self) {
        let (status, page) = self.post("/login", &[("user", "ada"), ("password", PASSWORD)]);
        assert_eq!(status, 303, "{page}");
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.curl(path, &[]).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let arguments: Vec<&str> = fields.iter().flat_map(|field| ["--data-urlencode", field]).collect();
        self.curl(path, &arguments).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Status and text; an error if nobody answers.
    fn curl(&self, path: &str, arguments: &[&str]) -> Result<(u16, String), String> {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--insecure",
                "--noproxy",
                "*",
                "--max-time",
                "30",
                "--write-out",
                "\n%{http_code}",
            ])
            .arg("--cookie")
            .arg(&self.jar)
            .arg("--cookie-jar")
            .arg(&self.jar)
            .args(arguments)
            .arg(format!("{}{path}", self.portal))
            .output()
            .expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.rsplit_once('\n') {
            Some((text, status)) if output.status.success() => Ok((status.parse().unwrap(), text.to_string())),
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The session's token.
    fn cookie(&self) -> String {
        let jar = fs::read_to_string(&self.jar).unwrap();
        let line =
            jar.lines().find(|line| line.contains("__Host-tidegate")).unwrap_or_else(|| panic!("no session in {jar}"));
        line.rsplit('\t').next().unwrap().to_string()
    }
}

/// `tidegate diagnostics`, unpacked by tar: its files, and all their bytes together.
fn take(node: &Node, dir: &Path, with_log: bool) -> (BTreeMap<String, String>, Vec<u8>) {
    let archive = dir.join(format!("diagnostics-{with_log}.tar.gz"));
    let control = node.layout.control.to_str().unwrap();
    let mut arguments = vec!["diagnostics", "--control", control, "-o", archive.to_str().unwrap()];
    arguments.extend(with_log.then_some("--with-log"));
    let (code, said, error) = tidegate(&arguments);
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.contains("startup-params.txt"), "{said}");
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, _, error) = tidegate(&arguments);
    assert_eq!(code, 1, "an existing file was written over: {error}");

    let unpacked = dir.join(format!("unpacked-{with_log}"));
    fs::create_dir(&unpacked).unwrap();
    let tar =
        Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&unpacked).status().expect("tar is installed");
    assert!(tar.success());
    let mut files = BTreeMap::new();
    let mut all = Vec::new();
    for entry in fs::read_dir(unpacked.join("tidegate-diagnostics")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        files.insert(
            path.file_name().unwrap().to_str().unwrap().to_string(),
            String::from_utf8_lossy(&bytes).into_owned(),
        );
        all.extend(bytes);
    }
    (files, all)
}
