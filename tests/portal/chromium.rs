//! A real Chromium without a window, driven over its debugging pipe: what a person at a keyboard and a mouse does and sees.

use super::harness::PATIENCE;
use super::harness::wait_until;
use serde_json::Value;
use serde_json::json;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// One browser with one page open.
pub struct Chromium {
    child: Child,
    orders: File,
    answers: mpsc::Receiver<Value>,
    page: Value,
    count: u64,
    _dir: TempDir,
}

impl Chromium {
    pub fn start() -> Chromium {
        let dir = tempfile::Builder::new().prefix("tidegate-chromium-").tempdir().unwrap();
        let (orders, answers) = (dir.path().join("orders"), dir.path().join("answers"));
        assert!(Command::new("mkfifo").arg(&orders).arg(&answers).status().unwrap().success());
        // Chromium takes its orders from descriptor 3 and answers on 4.
        let child = Command::new("sh")
            .args(["-c", "orders=$1 answers=$2; shift 2; exec chromium \"$@\" 3<\"$orders\" 4>\"$answers\"", "sh"])
            .arg(&orders)
            .arg(&answers)
            .args(["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            // The portal's certificate is its own.
            .args(["--ignore-certificate-errors", "--no-proxy-server", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let orders = OpenOptions::new().write(true).open(orders).unwrap();
        let heard = BufReader::new(File::open(answers).unwrap());
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for message in heard.split(0).map_while(Result::ok) {
                let _ = sender.send(serde_json::from_slice(&message).unwrap_or_default());
            }
        });
        let mut browser = Chromium { child, orders, answers, page: Value::Null, count: 0, _dir: dir };
        let target = browser.order("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.order("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.page = attached["sessionId"].clone();
        browser
    }

    /// Goes there and waits until the page is whole.
    pub fn open(&mut self, url: &str) {
        self.order("Page.navigate", json!({ "url": url }));
        self.wait_for(
            &format!("{url} is open"),
            "document.readyState === 'complete' && location.href !== 'about:blank'",
        );
    }

    /// What `expression` is on the page; null while a page goes and another comes.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true });
        self.order("Runtime.evaluate", asked)["result"]["value"].clone()
    }

    /// What a person reads.
    pub fn text(&mut self) -> String {
        self.value("document.body.innerText").as_str().unwrap_or_default().to_string()
    }

    #[track_caller]
    pub fn wait_for(&mut self, what: &str, expression: &str) {
        wait_until(what, || self.value(expression) == json!(true));
    }

    /// Until the page says so.
    #[track_caller]
    pub fn wait_for_words(&mut self, words: &str) {
        let mut last = String::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while !last.contains(words) {
            assert!(std::time::Instant::now() < deadline, "no {words:?} on the page:\n{last}");
            thread::sleep(Duration::from_millis(50));
            last = self.text();
        }
    }

    /// Clicks with the mouse into the middle of the button, link, field or summary of that name.
    #[track_caller]
    pub fn click(&mut self, name: &str) {
        let found = format!(
            "(() => {{ const one = [...document.querySelectorAll({CONTROLS:?})].find((one) => ({NAME_OF})(one) === {}); if (!one) return null; \
             one.scrollIntoView({{ block: 'center' }}); const at = one.getBoundingClientRect(); \
             return [at.x + at.width / 2, at.y + at.height / 2]; }})()",
            json!(name)
        );
        let mut at = Value::Null;
        wait_until(&format!("{name:?} is there to be clicked"), || {
            at = self.value(&found);
            at.is_array()
        });
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
            self.order("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses Tab until the control of that name has the focus.
    #[track_caller]
    pub fn tab_to(&mut self, name: &str) {
        let focused = format!("({NAME_OF})(document.activeElement)");
        let mut passed = Vec::new();
        for _ in 0..80 {
            let now = self.value(&focused).as_str().unwrap_or_default().to_string();
            if now == name {
                return;
            }
            passed.push(now);
            self.press("Tab", 9, "");
        }
        panic!("{name:?} is not reached by Tab; passed: {passed:?}");
    }

    pub fn press_enter(&mut self) {
        self.press("Enter", 13, "\r");
    }

    /// A key as a person presses it; `text` is what it writes.
    pub fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.order("Input.dispatchKeyEvent", event);
        }
    }

    /// Types letters and digits, one by one, into what has the focus.
    pub fn type_text(&mut self, text: &str) {
        for letter in text.chars() {
            let code = u32::from(letter.to_ascii_uppercase());
            self.press(&letter.to_string(), code, &letter.to_string());
        }
    }

    /// Writes `text` where the cursor is.
    pub fn insert(&mut self, text: &str) {
        self.order("Input.insertText", json!({ "text": text }));
    }

    /// Puts `text` in place of what the focused field has.
    pub fn fill(&mut self, text: &str) {
        self.value("document.activeElement.select()");
        self.insert(text);
    }

    /// Keeps pictures of the page in TIDEGATE_PORTAL_SHOTS, if that is set: light, dark, and on a phone.
    pub fn picture(&mut self, name: &str) {
        let Ok(folder) = std::env::var("TIDEGATE_PORTAL_SHOTS") else { return };
        for (kind, width, scheme) in [("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")] {
            let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500 });
            self.order("Emulation.setDeviceMetricsOverride", size);
            let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
            self.order("Emulation.setEmulatedMedia", json!({ "features": features }));
            let shot = self.order("Page.captureScreenshot", json!({ "format": "png" }));
            let png = data_encoding::BASE64.decode(shot["data"].as_str().unwrap().as_bytes()).unwrap();
            std::fs::write(format!("{folder}/{name}-{kind}.png"), png).unwrap();
        }
        self.order("Emulation.clearDeviceMetricsOverride", json!({}));
        self.order("Emulation.setEmulatedMedia", json!({ "features": [] }));
    }

    /// Gives an order and waits for its answer.
    fn order(&mut self, method: &str, params: Value) -> Value {
        self.count += 1;
        let mut order = json!({ "id": self.count, "method": method, "params": params });
        if self.page.is_string() {
            order["sessionId"] = self.page.clone();
        }
        self.orders.write_all(format!("{order}\0").as_bytes()).unwrap();
        loop {
            let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == json!(self.count) {
                return answer["result"].clone();
            }
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONTROLS: &str = "button, a, input:not([type=hidden]), select, textarea, summary";

/// What a control is called: its label, or what stands on it.
const NAME_OF: &str =
    "(one) => ((one.labels && one.labels[0] && one.labels[0].firstChild.textContent) || one.innerText || '').trim()";
