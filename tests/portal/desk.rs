//! A stand-in for the daemon's desk: a small cluster with something of everything, hostile values among it. Used by the
//! portal's tests.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use tidegate::admin::*;
use tidegate::base::clock::Wall;
use tidegate::cluster::rollout::Plan;
use tidegate::cluster::{Counters, MasterLink, NodeRow, Offer, RecordAccount};
use tidegate::figures::{Figures, Point, interval};
use tidegate::report::{Answer, Finding, Gap, Proof, Question, Rank, RecordRow};

/// What a hostile client writes into its URL.
pub const HOSTILE: &str = "http://evil.test/<script>alert(1)</script>\"'&\u{202e}x";

/// The desk of one node.
pub struct FakeDesk {
    pub role: &'static str,
    /// No administrator exists yet.
    pub nobody: bool,
    /// Said to the next action that is neither Status nor a password check, instead of doing it.
    pub refusals: Mutex<VecDeque<Refused>>,
    /// All that was asked, in order.
    pub asked: Mutex<Vec<(Actor, Action)>>,
}

impl FakeDesk {
    pub fn new(role: &'static str) -> FakeDesk {
        FakeDesk { role, nobody: false, refusals: Mutex::default(), asked: Mutex::default() }
    }

    fn answer(&self, actor: Actor, action: Action) -> Result<Outcome, Refused> {
        self.asked.lock().unwrap().push((actor, action.clone()));
        if !matches!(action, Action::Status | Action::Login { .. })
            && let Some(refused) = self.refusals.lock().unwrap().pop_front()
        {
            return Err(refused);
        }
        Ok(match action {
            Action::Status => Outcome::Status(Box::new(self.status())),
            Action::Nodes => Outcome::Nodes { nodes: self.nodes() },
            Action::Verify => Outcome::Verify { checks: checks() },
            Action::Connections { .. } => Outcome::Connections(Default::default()),
            Action::Kernel => Outcome::Kernel { checks: kernel_checks() },
            Action::Diagnostics { with_log } => Outcome::Diagnostics(Box::new(diagnostics(with_log))),
            Action::PolicyShow { version } => Outcome::Policy(self.policy(version.unwrap_or(12))),
            Action::PolicyCheck { document } => Outcome::Checked { complaints: complaints(&document) },
            Action::PolicyDiff { to: PolicySide::Document { document }, .. } => {
                Outcome::Diff { text: DIFF.to_string(), complaints: complaints(&document) }
            }
            Action::PolicyDiff { .. } => Outcome::Diff { text: DIFF.to_string(), complaints: Vec::new() },
            Action::PolicyRollout | Action::PolicyRolloutAbort { .. } | Action::PolicyRolloutSkip { .. } => {
                Outcome::Rollout { rollout: Some(Box::new(rollout())) }
            }
            Action::PolicyMerge { document, .. } => {
                Outcome::Merged { document: format!("{document}merged\n"), version: 12, overlaps: 0 }
            }
            Action::PolicyApply { document, base, .. } => apply(&document, base)?,
            Action::PolicyLog { .. } => Outcome::History { versions: history() },
            Action::PolicyRollback { .. } => {
                Outcome::Applied { version: 13, snapshot: "13-77aa01b2c3d4".into(), changed: true, in_waves: false }
            }
            Action::Explain(question) => explain(&question),
            Action::Report(question) => Outcome::Report(Box::new(report(&question))),
            Action::Membership { change, node } => Outcome::Done { words: format!("{change} {node}") },
            Action::Audit(question) => Outcome::Audit(Box::new(audit(question.node))),
            Action::ParamsShow => Outcome::Params { file: "/etc/tidegate/startup.ini".into(), params: params() },
            Action::ParamsSubmit { .. } => {
                Outcome::Submitted { live: vec!["LOG_LEVEL".into()], waiting: vec!["CORES".into()] }
            }
            Action::Reload => Outcome::Submitted { live: Vec::new(), waiting: Vec::new() },
            Action::Restart { backup } => Outcome::Done {
                words: format!("The node restarts now, {} a backup.", if backup { "with" } else { "without" }),
            },
            Action::Health { .. } => Outcome::Health { reasons: vec![] },
            Action::FiguresOfDay { .. } => Outcome::FiguresOfDay { points: day() },
            Action::Metrics => Outcome::Metrics { text: "# HELP a A.\n# TYPE a gauge\na 1\n".into() },
            Action::ProxyScript { .. } => Outcome::ProxyScript { script: "// script".into() },
            Action::Drain { .. } | Action::Undrain { .. } | Action::Flush { .. } | Action::RotateLogs => {
                Outcome::Done { words: "done".into() }
            }
            Action::Backup => return Err(refused(RefusedKind::Failed, "not here")),
            Action::Task(_) if self.role != "master" => {
                return Err(refused(RefusedKind::WrongRole, "This node is a slave: ask its master."));
            }
            Action::Task(TaskAction::List { .. }) => {
                Outcome::Tasks { tasks: vec![task(true), task(false)], more: true }
            }
            Action::Task(TaskAction::Order { on, .. }) if on == "nobody" => {
                return Err(refused(RefusedKind::Invalid, "No slave is called nobody."));
            }
            Action::Task(TaskAction::Output { .. }) => {
                Outcome::TaskOutput { file_name: "verify-edge-1.json".into(), content: "W10=".into() }
            }
            Action::Task(_) => Outcome::Task(Box::new(task(true))),
            Action::Login { user, password } => return self.login(&user, &password),
            Action::AdminAdd { .. } => return Err(refused(RefusedKind::NotAllowed, "From the control socket only.")),
        })
    }

    fn login(&self, user: &str, password: &str) -> Result<Outcome, Refused> {
        match (self.nobody, user, password) {
            (true, ..) => Err(refused(RefusedKind::NotFound, "There is no administrator yet.")),
            (_, "ada", "correct horse") => Ok(Outcome::Done { words: "welcome".into() }),
            (_, "ada", _) => Err(refused(RefusedKind::NotAllowed, "The password of ada is wrong.")),
            _ => Err(refused(RefusedKind::NotAllowed, "There is no administrator of that name.")),
        }
    }

    fn status(&self) -> Status {
        let slave = self.role == "slave";
        Status {
            front: Front { connections: 12, ..Front::default() },
            uptime_s: 3 * 86_400,
            node: if slave { "edge-1" } else { "harbour" }.into(),
            role: self.role.into(),
            version: "0.1.0".into(),
            snapshot: "12-3fa9c1d2e0b4".into(),
            policy_version: 12,
            waiting_for_restart: if slave { vec![] } else { vec!["CORES".into()] },
            master: slave.then(|| MasterLink {
                fetched_bytes: 2030,
                address: "192.0.2.10:8888".into(),
                up: true,
                last_contact_us: Wall::now().0 - 700_000,
                clock_skew_ms: -12,
                trouble: String::new(),
                synced_us: Wall::now().0 - 3_723_000_000,
                master_snapshot: "12-3fa9c1d2e0b4".into(),
                in_step_us: Wall::now().0 - 700_000,
            }),
            ..Status::default()
        }
    }

    fn nodes(&self) -> Vec<NodeRow> {
        let now = Wall::now().0;
        let node = |name: &str, role: &str, address: &str, snapshot: &str, ago_us: i64, scale: u64| NodeRow {
            name: name.into(),
            role: role.into(),
            address: address.into(),
            fingerprint: if role == "slave" { "0f1e2d3c4b5a69788796a5b4c3d2e1f0".into() } else { String::new() },
            former_key_until_us: 0,
            version: "0.1.0".into(),
            snapshot: snapshot.into(),
            current: snapshot.starts_with("12-"),
            last_contact_us: now - ago_us,
            up: ago_us < 30_000_000,
            record_lag: 0,
            records: RecordAccount {
                ended: 1_204_424 * scale,
                written: 1_204_418 * scale,
                shipped: 1_204_418 * scale,
                stored: 1_204_418 * scale,
                ..RecordAccount::default()
            },
            clock_skew_ms: -4,
            refusal: String::new(),
            error: String::new(),
            offer: Offer::default(),
            drift: String::new(),
            labels: if role == "slave" { vec!["harbour".into()] } else { Vec::new() },
            figures: Figures { start_s: 1_790_000_000, exchanges: 1_204_418 * scale, ..Figures::default() },
            counters: Counters {
                connections: 9_120 * scale,
                connections_open: 311 * scale,
                exchanges: 1_204_418 * scale,
                denied: 20_117 * scale,
                failed: 412 * scale,
                tunnels_open: 96 * scale,
                upload: 3_204_418_112 * scale,
                download: 91_204_418_112 * scale,
            },
        };
        let edge = node("edge-1", "slave", "192.0.2.21:51442", "12-3fa9c1d2e0b4", 420_000, 2);
        if self.role == "slave" {
            return vec![edge];
        }
        let mut late = node("edge-2", "slave", "192.0.2.22:40110", "11-9c0d11aa22ff", 1_900_000, 1);
        (late.record_lag, late.clock_skew_ms) = (1_204, 2_731);
        late.records = RecordAccount { stored: 1_203_202, missing: 12, gaps: gaps(), ..late.records };
        late.error = "Snapshot 12-3fa9c1d2e0b4 was not taken: no space left on /var/lib/tidegate. Free some; the node keeps 11-9c0d11aa22ff and tries again.".into();
        let mut refused = node("edge-3", "slave", "192.0.2.23:44871", "", 86_400_000_000, 0);
        refused.refusal = "VersionMismatch: the master runs 0.1.0, the slave 0.0.9. Install the same version of the tidegate package on both.".into();
        refused.version = "0.0.9".into();
        vec![node("harbour", self.role, "192.0.2.10:8888", "12-3fa9c1d2e0b4", 0, 0), edge, late, refused]
    }

    fn policy(&self, version: u64) -> PolicyText {
        PolicyText {
            version,
            snapshot: format!("{version}-3fa9c1d2e0b4"),
            document: document(),
            origin: if self.role == "slave" { "192.0.2.10:8888".into() } else { String::new() },
        }
    }
}

impl Desk for FakeDesk {
    fn perform<'a>(
        &'a self,
        actor: Actor,
        action: Action,
    ) -> Pin<Box<dyn Future<Output = Result<Outcome, Refused>> + Send + 'a>> {
        Box::pin(async move { self.answer(actor, action) })
    }
}

/// A day with a quiet night, and an hour in which nobody looked.
fn day() -> Vec<Point> {
    let first = interval(Wall::now()) - 95 * 900;
    let points = (0..96u64).filter(|step| !(30..34).contains(step)).map(|step| {
        let busy = 96 - (step as i64 - 60).unsigned_abs();
        Point {
            start_s: first + step as i64 * 900,
            seen_us: 900_000_000,
            exchanges: busy * busy * 97,
            denied: busy * busy * 7,
            failed: if step % 17 == 0 { 41 } else { step % 3 },
            bytes: busy * busy * 5_204_418,
            connections_most: busy * 31,
            cpu_us: busy * busy * 90_000,
            resident_most_bytes: 180_000_000 + busy * 900_000,
        }
    });
    points.collect()
}

pub fn refused(kind: RefusedKind, words: &str) -> Refused {
    Refused { kind, words: words.into(), complaints: vec![] }
}

fn apply(document: &str, base: Option<u64>) -> Result<Outcome, Refused> {
    let complaints = complaints(document);
    if !complaints.is_empty() {
        return Err(Refused { kind: RefusedKind::Invalid, words: "The document does not compile.".into(), complaints });
    }
    if base != Some(12) {
        return Err(refused(
            RefusedKind::Conflict,
            "Version 12 was applied by grace after you started. Compare, then apply again.",
        ));
    }
    Ok(Outcome::Applied { version: 13, snapshot: "13-77aa01b2c3d4".into(), changed: true, in_waves: false })
}

/// Every line with the word `wrong` is complained of.
fn complaints(document: &str) -> Vec<Complaint> {
    let wrong = document.lines().enumerate().filter(|(_, line)| line.contains("wrong"));
    wrong
        .map(|(index, line)| Complaint {
            line: index + 1,
            place: format!("access_profiles[{index}].action"),
            what: format!("`{line}` is no action."),
            remedy: "Use ALLOW, DENY, INHERIT or DO_NOT_BYPASS.".into(),
        })
        .collect()
}

fn document() -> String {
    let mut text = String::from(
        "# Who may go where. Lists are ordered, top down.\n[access_restriction]\ndefault = \"deny\"\n\n[[access_restriction.allow]]\nname = \"offices\"\n\
         clients = [\"192.0.2.0/24\", \"2001:db8::/32\"]\nrights = [\"PROXY\", \"CONNECT\"]\nuser_groups = [\"staff\"]\n\n\
         [[time_profiles]]\nname = \"working-hours\"\ndays = \"Mon-Fri\"\nhours = \"08:00-18:00\"\n\n[[categories]]\nname = \"gambling\"\n\
         hosts = [\"casino.test\", \".bets.test\"]\n\n[[categories]]\nname = \"social\"\nfile = \"lists/social.txt\"\n\n",
    );
    for rule in ["no-gambling", "no-social-at-work", "no-uploads-of-archives", "everything-else"] {
        let action = if rule == "everything-else" { "ALLOW" } else { "DENY" };
        text.push_str(&format!(
            "[[access_profiles]]\nname = \"{rule}\"\nenabled = true\ncategories = [\"gambling\", \"social\"]\naction = \"{action}\"\ntemplate = \"blocked\"\n\n"
        ));
    }
    text.push_str(
        "[[templates]]\nname = \"blocked\"\nbody = \"<h1>Blocked by {{ rule }}</h1><script>not run</script>\"\n",
    );
    text
}

const DIFF: &str = "--- policy 12\n+++ draft\n@@ -11,7 +11,8 @@\n [[time_profiles]]\n name = \"working-hours\"\n-days = \"Mon-Fri\"\n+days = \"Mon-Sat\"\n+# <b>Saturdays</b> since the shop opened\n hours = \"08:00-18:00\"\n \n";

fn history() -> Vec<PolicyVersion> {
    let comments =
        ["Social media only after six", "Let accounting reach the bank", "First policy <script>alert(1)</script>"];
    let version = |(index, comment): (usize, &&str)| PolicyVersion {
        version: 12 - index as u64,
        snapshot: format!("{}-3fa9c1d2e0b4", 12 - index),
        applied_us: Wall::now().0 - (index as i64 * 90_000 + 3_723) * 1_000_000,
        author: if index == 1 { "root (control socket)" } else { "ada" }.into(),
        comment: comment.to_string(),
        reverted: false,
        current: index == 0,
    };
    comments.iter().enumerate().map(version).collect()
}

fn explain(question: &ExplainQuestion) -> Outcome {
    let lines = [
        format!("snapshot 12-3fa9c1d2e0b4, client {}, {}", question.client, question.url),
        "access_restriction: 192.0.2.7 is in allow list entry \"offices\" (line 5): rights PROXY, CONNECT; groups staff".into(),
        "time_profiles: working-hours holds (Thu 14:05 is within Mon-Fri 08:00-18:00)".into(),
        "categories: casino.test is in gambling (line 17)".into(),
        "access_profiles 1 no-gambling (line 24): matches category gambling -> DENY".into(),
        "decided: DENY by no-gambling, template blocked".into(),
    ];
    Outcome::Explained { verdict: "DENY".into(), rule: "no-gambling".into(), lines: lines.to_vec() }
}

fn checks() -> Vec<Check> {
    let check = |name: &str, passed, words: &str| Check { name: name.into(), passed, words: words.into() };
    vec![
        check("startup.ini", true, "/etc/tidegate/startup.ini is read without faults."),
        check("activation key", true, "Present, mode 0600, checksum right."),
        check("version", true, "Every node runs 0.1.0."),
        check(
            "clock",
            false,
            "edge-2 is 2.7 s ahead of this node. Start an NTP service on edge-2 (timedatectl set-ntp true).",
        ),
        check(
            "policy version",
            false,
            "edge-2 enforces 11-9c0d11aa22ff, the current one is 12-3fa9c1d2e0b4. See its error on the Nodes page.",
        ),
    ]
}

fn params() -> Vec<Param> {
    let param =
        |key: &str, value: &str, default: &str, help: &str, accepts: &str, restart, in_force: Option<&str>| Param {
            key: key.into(),
            value: value.into(),
            default: default.into(),
            help: help.into(),
            accepts: accepts.into(),
            restart,
            in_force: in_force.map(str::to_string),
        };
    vec![
        param(
            "LISTEN_IP",
            "*",
            "*",
            "The address that the proxy listens on.",
            "an IP address, or * for all",
            true,
            None,
        ),
        param("LISTEN_PORT", "8080", "8080", "The port that clients use as their proxy.", "1 to 65535", true, None),
        param("CORES", "4", "0", "Data cores; 0 is one for each processor.", "0 to 1024", true, Some("2")),
        param(
            "LOG_LEVEL",
            "info",
            "info",
            "How much the node tells the journal.",
            "error, warn, info, debug or trace",
            false,
            None,
        ),
        param(
            "NODE_NAME",
            "",
            "",
            "This node's name in the cluster; empty is the machine's name.",
            "letters, digits, . - _",
            true,
            None,
        ),
        param("DRAIN_TIME", "10", "30", "How long what is under way may take.", "0 to 3600", false, None),
        param("KEEP_DATA", "30", "30", "Days that records stay in the report.", "1 to 3650", false, None),
    ]
}

fn report(question: &Question) -> Answer {
    let rank = |names: &[&str], scale: u64, blocked: u64| -> Vec<Rank> {
        let row = |(index, name): (usize, &&str)| {
            let requests = scale / (index as u64 + 1);
            Rank { name: name.to_string(), requests, blocked: requests * blocked / 100, bytes: requests * 18_411 }
        };
        names.iter().enumerate().map(row).collect()
    };
    let start = Wall::now().0 - 24 * 3_600_000_000;
    let wave = |n: i64| {
        400 + (n - 30).unsigned_abs() * 3 + (n as u64 * 7919) % 160 + if (40..90).contains(&n) { 700 } else { 0 }
    };
    Answer {
        requests: 2_408_836,
        blocked: 40_234,
        unrecorded: 0,
        upload: 6_408_836_224,
        download: 182_408_836_224,
        hosts: rank(
            &[
                "updates.example.org",
                "mail.example.com",
                "<b>bold.test</b>",
                "a-host-with-a-very-long-name.deep.inside.some.cloud.region-7.example.net",
                "cdn.example.net",
                "static.example.com",
            ],
            412_006,
            2,
        ),
        users: rank(&["ada@192.0.2.7", "anonymous@192.0.2.31", "grace@192.0.2.8", "linus@192.0.2.9"], 260_114, 3),
        categories: rank(&["business", "news", "social", "gambling"], 800_000, 6),
        blocked_hosts: rank(&["casino.test", "bets.test", "tracker.test"], 12_204, 100),
        rules: rank(&["everything-else", "no-social-at-work", "no-gambling"], 2_300_000, 1),
        nodes: rank(&["edge-1", "edge-2"], 1_600_000, 2),
        series: (0..96)
            .map(|n| (start + n * 900_000_000, wave(n), wave(n) / 12 + if n == 70 { 300 } else { 0 }))
            .collect(),
        newest: (0..question.newest.unwrap_or(50).min(14) as u64).map(record).collect(),
        last: None,
        unreadable: 0,
        gaps: gaps(),
    }
}

fn gaps() -> Vec<Gap> {
    let before_us = Wall::now().0 - 40 * 60_000_000;
    vec![Gap { node: "edge-2".into(), first: 88_120, last: 88_131, after_us: before_us - 2_000_000, before_us }]
}

/// edge-2 lacks what its gap says; everybody else's records are whole.
fn audit(node: Option<String>) -> Proof {
    let node = node.unwrap_or_default();
    let mut proof = Proof { place: "/var/lib/tidegate/records.db".into(), records: 412_006, ..Proof::default() };
    (proof.first, proof.last, proof.not_yet_sealed) = (792_412, 1_204_418, 17);
    if node == "edge-2" {
        let words = "never arrived from the node".to_string();
        proof.find(Finding { file: String::new(), line: 0, first: 88_120, last: 88_131, words });
    }
    Proof { node, ..proof }
}

fn record(n: u64) -> RecordRow {
    let blocked = n % 5 == 2;
    let urls = [
        "https://mail.example.com/inbox?folder=all&page=3",
        "updates.example.org:443",
        "http://casino.test/roulette",
        HOSTILE,
    ];
    RecordRow {
        record_id: format!("e1-{}", 991_204 - n),
        ended_us: Wall::now().0 - n as i64 * 431_000,
        node: if n.is_multiple_of(3) { "edge-2" } else { "edge-1" }.into(),
        seq: 991_204 - n,
        user: ["ada@192.0.2.7", "anonymous@192.0.2.31"][n as usize % 2].into(),
        method: if n % 4 == 1 { "CONNECT" } else { "GET" }.into(),
        url: if blocked { urls[2] } else { urls[n as usize % 4] }.into(),
        host: ["mail.example.com", "updates.example.org", "casino.test", "evil.test"][n as usize % 4].into(),
        status: if blocked { 403 } else { 200 },
        size: 1_900 + n * 77_777,
        elapsed_ms: 12 + n * 31 % 400,
        filter_name: if blocked { "Access Profiles" } else { "-" }.into(),
        filtering_reason: if blocked { "category gambling" } else { "-" }.into(),
        rule: if blocked { "no-gambling" } else { "everything-else" }.into(),
        snapshot: "12-3fa9c1d2e0b4".into(),
        ending: "--".into(),
        categories: if blocked { "gambling" } else { "business" }.into(),
    }
}

fn kernel_checks() -> Vec<KernelCheck> {
    let check = |name: &str, verdict, found: &str, why: &str, remedy: &str| KernelCheck {
        name: name.into(),
        verdict,
        found: found.into(),
        why: why.into(),
        remedy: remedy.into(),
    };
    vec![
        check("io_uring", Verdict::Good, "allowed", "Every connection is served through it.", ""),
        check(
            "listen backlog",
            Verdict::Hurts,
            "net.core.somaxconn is 128, the node asks for 4096",
            "Connections that come in a burst, or during a restart, wait here; those beyond it are dropped.",
            "sysctl -w net.core.somaxconn=4096, then restart the node",
        ),
        check(
            "outgoing ports",
            Verdict::Advice,
            "28232, from 32768 to 60999",
            "Each connection to an origin takes one, per address of the origin.",
            "sysctl -w net.ipv4.ip_local_port_range=\"16384 65535\"",
        ),
        check("clock", Verdict::Unknown, "this process may not ask", "Records carry this clock's time.", "timedatectl"),
    ]
}

fn diagnostics(with_log: bool) -> Diagnostics {
    let file = |name: &str| DiagnosticsFile { name: name.into(), bytes: 1_234, about: "what it says".into() };
    let mut contents = vec![file("README.txt"), file("status.json")];
    contents.extend(with_log.then(|| file("extended.log")));
    // "an archive", in base64: the page hands on what the desk gave.
    Diagnostics {
        file_name: "tidegate-diagnostics-harbour.tar.gz".into(),
        archive: "YW4gYXJjaGl2ZQ==".into(),
        contents,
    }
}

/// One that runs, in its first wave.
fn rollout() -> Rollout {
    let plan = Plan::parse("1,25%,all", 60).unwrap();
    let began = Wall(Wall::now().0 - 42_000_000);
    let mut run = Rollout::new((12, 11), ("12-3fa9c1d2e0b4", "11-0c0ffee0c0ff"), plan, "ada@192.0.2.50", began);
    run.wave = 1;
    run.members.insert("edge-1".into());
    run.notes.push("wave 1 of 3: edge-1".into());
    run.notes.push(format!("wave 1: reported by all its slaves; watched for 60 s {HOSTILE}"));
    run
}

/// A task that is under way, or one that was cancelled.
fn task(open: bool) -> Task {
    let now = Wall::now().0;
    let node = |name: &str, progress: TaskProgress, words: &str, output: &str| TaskNode {
        node: name.into(),
        progress,
        at_us: now - 3_000_000,
        words: words.into(),
        output: output.into(),
        output_bytes: 2_048 * output.len() as u64,
    };
    let cancelled_us = if open { 0 } else { now - 60_000_000 };
    let first = if open { TaskProgress::Started } else { TaskProgress::Cancelled };
    Task {
        id: if open { "12-3fa9c1d2" } else { "11-77aa01b2" }.into(),
        order: if open { Order::Verify } else { Order::Restart },
        by: "ada@192.0.2.7".into(),
        on: if open { "all" } else { "label:harbour" }.into(),
        created_us: now - 90_000_000,
        expires_us: now + 3_510_000_000,
        cancelled_us,
        cancelled_by: if open { "" } else { "ada@192.0.2.7" }.into(),
        nodes: vec![
            node("edge-1", first, "", ""),
            node(
                "edge-2",
                TaskProgress::Failed,
                "22 of 23 checks hold; clock: the clock is not kept by NTP. Run: timedatectl set-ntp true",
                "verify-edge-2.json",
            ),
            node(
                "edge-3",
                if open { TaskProgress::Queued } else { TaskProgress::Expired },
                if open { "" } else { "the node did not come for it in time; it was not done" },
                "",
            ),
        ],
    }
}
