//! What a stranger sees: one command, and then curl and a browser through either slave.

mod harness;

use harness::tidegate;
use harness::wait_until;
use serde_json::Value;
use std::io::BufRead;
use std::io::BufReader;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// A running `tidegate demo --json`, and the line it printed.
struct Demo {
    child: Child,
    says: Value,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["demo", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let says = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Demo { child, says }
    }

    fn text(&self, pointer: &str) -> String {
        self.says
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer} in {}", self.says))
            .to_string()
    }

    fn master(&self, arguments: &[&str]) -> (i32, String, String) {
        let control = self.text("/master/control");
        tidegate(&[arguments, &["--control", &control]].concat())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn curl(arguments: &[&str]) -> (String, String) {
    let output =
        Command::new("curl").args(["--silent", "--show-error", "--max-time", "20"]).args(arguments).output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_stranger_starts_the_demo_and_sees_policy_and_report_work_through_both_slaves() {
    let mut demo = Demo::start(&[]);
    let origin = demo.text("/origin");
    for slave in ["/slaves/0/proxy", "/slaves/1/proxy"] {
        let proxy = format!("http://{}", demo.text(slave));
        let (page, error) = curl(&["--proxy", &proxy, &origin]);
        assert!(page.contains("It works"), "{page}{error}");
        let (blocked, _) = curl(&["--proxy", &proxy, "--write-out", "%{http_code}", &format!("{origin}social")]);
        assert!(blocked.ends_with("403"), "{blocked}");
        assert!(blocked.contains("Block social"), "the page names the rule: {blocked}");
        let (tunnelled, error) = curl(&["--proxy", &proxy, "--proxytunnel", &format!("{origin}headers")]);
        assert!(tunnelled.starts_with("GET /headers"), "{tunnelled}{error}");
        let page = browse(&proxy, &origin);
        assert!(page.contains("It works"), "{page}");
    }
    // A change of policy, as an administrator does it.
    let policy = demo.text("/policy");
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, text.replace("\"/social\"", "\"/news\"")).unwrap();
    let (code, output, error) = demo.master(&["policy", "apply", &policy, "-m", "news are off"]);
    assert_eq!(code, 0, "{output}{error}");
    for slave in ["/slaves/0/proxy", "/slaves/1/proxy"] {
        let proxy = format!("http://{}", demo.text(slave));
        wait_until("the slave blocks the news", || {
            curl(&["--proxy", &proxy, &format!("{origin}news")]).0.contains("Block social")
        });
        assert!(curl(&["--proxy", &proxy, &format!("{origin}social")]).0.contains("A page the demo"));
    }
    // The report of both.
    wait_until("both slaves are in the report", || {
        let (_, report, _) = demo.master(&["report", "--json"]);
        let report: Value = serde_json::from_str(&report).unwrap_or_default();
        report["nodes"].as_array().is_some_and(|nodes| nodes.len() >= 2 && report["blocked"].as_u64() >= Some(4))
    });
    let (code, checks, error) = demo.master(&["verify"]);
    assert_eq!(code, 0, "{checks}{error}");

    let pid = demo.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    wait_until("the demo ends after SIGTERM", || demo.child.try_wait().unwrap().is_some());
    let left = Command::new("pgrep")
        .args(["-f", &demo.text("/master/control").replace("/run/control.sock", "")])
        .output()
        .unwrap();
    assert!(left.stdout.is_empty(), "processes are left: {}", String::from_utf8_lossy(&left.stdout));
}

/// What a real browser makes of a page through the proxy.
fn browse(proxy: &str, url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--proxy-server={proxy}"))
        // Chromium does not send loopback through a proxy unless told to.
        .arg("--proxy-bypass-list=<-loopback>")
        .arg(url)
        .stderr(Stdio::null())
        .output()
        .expect("chromium is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
