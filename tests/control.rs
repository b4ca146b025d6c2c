//! The control socket with a real listener and a desk that answers from a table, and the command line in front of it.

use std::fs;
use std::future::Future;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tidegate::admin::Action;
use tidegate::admin::Actor;
use tidegate::admin::Check;
use tidegate::admin::Desk;
use tidegate::admin::Outcome;
use tidegate::admin::Param;
use tidegate::admin::PolicyText;
use tidegate::admin::PolicyVersion;
use tidegate::admin::Refused;
use tidegate::admin::RefusedKind;
use tidegate::admin::Status;
use tidegate::cli::control;
use tidegate::limits;
use tidegate::policy::Complaint;
use tidegate::report::Answer;
use tidegate::report::Rank;

/// A node as far as its control socket goes.
struct Node {
    dir: tempfile::TempDir,
    desk: Arc<FakeDesk>,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start(group: Option<u32>) -> Node {
        let dir = tempfile::tempdir().unwrap();
        // Others must reach the socket for the node to refuse them.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let desk = Arc::new(FakeDesk::default());
        let listener = {
            let _inside = runtime.enter();
            control::bind(&dir.path().join("control.sock"), group).unwrap()
        };
        runtime.spawn(control::serve(listener, desk.clone(), group));
        Node { dir, desk, _runtime: runtime }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn tidegate(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("--control")
            .arg(self.socket())
            .args(args)
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads no input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn asked(&self) -> Vec<(Actor, Action)> {
        std::mem::take(&mut self.desk.asked.lock().unwrap())
    }
}

#[derive(Default)]
struct FakeDesk {
    asked: Mutex<Vec<(Actor, Action)>>,
}

impl Desk for FakeDesk {
    fn perform<'a>(
        &'a self,
        actor: Actor,
        action: Action,
    ) -> Pin<Box<dyn Future<Output = Result<Outcome, Refused>> + Send + 'a>> {
        self.asked.lock().unwrap().push((actor, action.clone()));
        Box::pin(async move { answer(action) })
    }
}

fn answer(action: Action) -> Result<Outcome, Refused> {
    Ok(match action {
        Action::Status => Outcome::Status(Box::new(status())),
        Action::Verify => {
            Outcome::Verify { checks: vec![check("key", true, "0600"), check("clock", false, "start chrony")] }
        }
        Action::PolicyShow { version: Some(9) } => {
            return Err(refused(RefusedKind::NotFound, "there is no version 9", vec![]));
        }
        Action::PolicyShow { .. } => Outcome::Policy(PolicyText {
            version: 3,
            snapshot: "3-abcdefabcdef".to_string(),
            document: "default = \"deny\"\n".to_string(),
            origin: String::new(),
        }),
        Action::PolicyCheck { document } if document.is_empty() => Outcome::Checked { complaints: vec![] },
        Action::PolicyCheck { .. } => Outcome::Checked { complaints: vec![complaint()] },
        Action::PolicyApply { document, .. } if document.contains("bad") => {
            return Err(refused(RefusedKind::Invalid, "the document has 1 fault", vec![complaint()]));
        }
        Action::PolicyApply { .. } => {
            Outcome::Applied { version: 4, snapshot: "4-0123456789ab".to_string(), changed: true, in_waves: false }
        }
        Action::PolicyLog { .. } => Outcome::History {
            versions: vec![PolicyVersion {
                version: 3,
                snapshot: "3-abcdefabcdef".to_string(),
                applied_us: 1_777_640_400_000_000,
                author: "ann".to_string(),
                comment: "evil \u{1b}[2J".to_string(),
                reverted: false,
                current: true,
            }],
        },
        Action::PolicyDiff { .. } => Outcome::Diff { text: "-old\n+new\n".to_string(), complaints: vec![] },
        Action::Explain(_) => {
            Outcome::Explained { verdict: "DENY".into(), rule: "rule-1".into(), lines: vec!["it is late".into()] }
        }
        Action::Report(_) => Outcome::Report(Box::new(Answer {
            requests: 12,
            blocked: 2,
            download: 2_048,
            hosts: vec![Rank { name: "a.example".to_string(), requests: 12, blocked: 2, bytes: 2_048 }],
            ..Answer::default()
        })),
        Action::ParamsShow => Outcome::Params { file: "/etc/x.ini".to_string(), params: vec![param()] },
        Action::ParamsSubmit { .. } => {
            Outcome::Submitted { live: vec!["LOG_LEVEL".into()], waiting: vec!["CORES".into()] }
        }
        _ => Outcome::Done { words: "done as asked".to_string() },
    })
}

fn status() -> Status {
    Status {
        front: tidegate::admin::Front::default(),
        node: "edge-1".to_string(),
        role: "standalone".to_string(),
        version: "0.1.0".to_string(),
        pid: 7,
        uptime_s: 3_700,
        listen: vec!["[::]:8080".to_string()],
        portal: "[::]:8888".to_string(),
        cores: 2,
        snapshot: "3-abcdefabcdef".to_string(),
        policy_version: 3,
        records_written: 10,
        records_acknowledged: 8,
        waiting_for_restart: vec!["CORES".to_string()],
        ..Status::default()
    }
}

fn check(name: &str, passed: bool, words: &str) -> Check {
    Check { name: name.to_string(), passed, words: words.to_string() }
}

fn refused(kind: RefusedKind, words: &str, complaints: Vec<Complaint>) -> Refused {
    Refused { kind, words: words.to_string(), complaints }
}

fn complaint() -> Complaint {
    Complaint {
        line: 4,
        place: "time_profiles[1].days".into(),
        what: "no day".into(),
        remedy: "write Mon to Sun".into(),
    }
}

fn param() -> Param {
    Param {
        key: "CORES".to_string(),
        value: "4".to_string(),
        default: "auto".to_string(),
        help: String::new(),
        accepts: String::new(),
        restart: true,
        in_force: Some("auto".to_string()),
    }
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

#[test]
fn one_connection_takes_many_requests_and_junk_does_not_end_it() {
    let node = Node::start(None);
    let mut stream = BufReader::new(node.connect());
    let junk = [
        "",
        "{}",
        "null",
        "status",
        "{\"action\":\"no-such\"}",
        "{\"action\":\"policy-rollback\"}",
        "[[[[",
        "\u{0}\u{1}",
    ];
    for junk in junk {
        stream.get_mut().write_all(format!("{junk}\n").as_bytes()).unwrap();
        let answer = line(&mut stream);
        assert!(answer.starts_with("{\"refused\":{\"kind\":\"invalid\""), "{junk}: {answer}");
    }
    stream.get_mut().write_all(b"\xff\xfe\n").unwrap();
    assert!(line(&mut stream).contains("invalid"));
    stream.get_mut().write_all(b"{\"action\":\"status\"}\n{\"action\":\"verify\"}\n").unwrap();
    assert!(line(&mut stream).starts_with("{\"ok\":{\"outcome\":\"status\",\"node\":\"edge-1\""));
    assert!(line(&mut stream).starts_with("{\"ok\":{\"outcome\":\"verify\""));
    let asked = node.asked();
    assert_eq!(asked.len(), 2);
    assert!(matches!(&asked[0].0, Actor::Local { .. }));
}

#[test]
fn a_half_closed_connection_still_gets_its_answer_and_an_end_without_a_request_gets_none() {
    let node = Node::start(None);
    let mut stream = node.connect();
    stream.write_all(b"{\"action\":\"status\"}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("{\"ok\":") && answer.ends_with("}\n"), "{answer}");
    let mut stream = node.connect();
    stream.shutdown(Shutdown::Write).unwrap();
    answer.clear();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
}

#[test]
fn a_request_that_is_too_long_is_refused_in_words_while_others_are_served() {
    let node = Node::start(None);
    let mut stream = node.connect();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..limits::CONTROL_REQUEST_BYTES_MAX / chunk.len() + 1 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer).unwrap();
    assert!(answer.contains("longer than"), "{answer}");
    assert!(control::ask(&node.socket(), &Action::Status).unwrap().is_ok());
    let huge = Action::PolicyCheck { document: "x".repeat(limits::CONTROL_REQUEST_BYTES_MAX) };
    assert!(control::ask(&node.socket(), &huge).unwrap_err().to_string().contains("send less"));
}

#[test]
fn more_connections_than_there_is_room_for_wait_and_are_served() {
    let node = Node::start(None);
    let mut idle: Vec<_> = (0..limits::CONTROL_CONNECTIONS_MAX).map(|_| node.connect()).collect();
    let mut late = BufReader::new(node.connect());
    late.get_mut().write_all(b"{\"action\":\"status\"}\n").unwrap();
    late.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(late.read_line(&mut String::new()).is_err(), "there is no room yet");
    idle.pop();
    late.get_ref().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!(line(&mut late).starts_with("{\"ok\":"));
}

/// What `tidegate status` says to another user, as only root can try.
fn status_as(ids: &[&str], node: &Node) -> String {
    // A copy where anybody may reach it: the folder of the build may be closed to others.
    let program = node.dir.path().join("tidegate");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_tidegate"), &program).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(ids).arg("--clear-groups").arg(&program).args(["status", "--json", "--control"]).arg(node.socket());
    let output = command.current_dir("/").output().unwrap();
    String::from_utf8_lossy(&output.stdout).to_string() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn strangers_are_refused_and_members_of_the_group_are_let_in() {
    if tidegate::sys::peer::own_uid() != 0 {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    // The group `daemon` (1) stands for CONTROL_GROUP; nobody is 65534.
    let node = Node::start(Some(1));
    assert_eq!(fs::metadata(node.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    let member = status_as(&["--reuid=65534", "--regid=1"], &node);
    assert!(member.contains("\"outcome\":\"status\""), "{member}");
    assert!(matches!(&node.asked()[0].0, Actor::Local { uid: 65_534, user } if user == "nobody"));
    let kept_out = status_as(&["--reuid=65534", "--regid=65534"], &node);
    assert!(kept_out.contains("you may not connect"), "the mode keeps others out: {kept_out}");
    // And behind the mode stands the check of credentials.
    fs::set_permissions(node.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let refused = status_as(&["--reuid=65534", "--regid=65534"], &node);
    for words in ["\"kind\":\"not-allowed\"", "nobody may not use", "sudo", "the group daemon (CONTROL_GROUP)"] {
        assert!(refused.contains(words), "{words} in {refused}");
    }
    assert_eq!(node.asked(), [], "the desk hears nothing of it");
}

#[test]
fn a_dead_nodes_socket_is_replaced_a_live_ones_and_other_files_are_not() {
    let node = Node::start(None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let live = control::bind(&node.socket(), None).unwrap_err().to_string();
    assert!(live.contains("another node answers"), "{live}");
    let stale = node.dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    control::bind(&stale, None).unwrap();
    let file = node.dir.path().join("file.sock");
    fs::write(&file, "precious").unwrap();
    assert!(control::bind(&file, None).unwrap_err().to_string().contains("another kind"));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let nowhere = control::bind(Path::new("/no/such/dir/control.sock"), None).unwrap_err().to_string();
    assert!(nowhere.contains("RUN_DIR must exist"), "{nowhere}");
}

#[test]
fn who_cannot_ask_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.sock");
    let error = control::ask(&missing, &Action::Status).unwrap_err();
    assert!(error.is_no_node() && error.to_string().contains("systemctl status tidegate"), "{error}");
    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    let error = control::ask(&dead, &Action::Status).unwrap_err();
    assert!(error.is_no_node() && error.to_string().contains("journalctl"), "{error}");
    for (reply, words) in [
        (&b""[..], "without an answer"),
        (b"HTTP/1.1 200 OK\n", "does not understand"),
        (b"{\"ok\"", "does not understand"),
    ] {
        let path = dir.path().join(format!("odd-{}.sock", words.len() + reply.len()));
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            (&stream).write_all(reply).unwrap();
        });
        let error = control::ask(&path, &Action::Status).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        server.join().unwrap();
    }
}

/// What a command prints and with which code it ends.
fn check_command(node: &Node, args: &[&str], stdin: &str, code: i32, expected: &str) {
    let output = node.tidegate(args, stdin);
    let printed = String::from_utf8_lossy(&output.stdout).to_string() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed.trim_end(), expected.trim_end(), "{args:?}");
    assert_eq!(output.status.code(), Some(code), "{args:?}");
}

#[test]
fn people_read_plain_aligned_words() {
    let node = Node::start(None);
    let status = "node       edge-1
role       standalone
version    0.1.0 (pid 7, up 1 h 1 min)
proxy      [::]:8080 on 2 cores
portal     [::]:8888
policy     3-abcdefabcdef
records    10 written, 2 not yet in the report
clients    0 connections open, 0 since start
exchanges  0, 0 denied, 0 failed, 0 tunnels open
traffic    0 B up, 0 B down
! changed and waiting for a restart: CORES (tidegate restart)";
    check_command(&node, &["status"], "", 0, status);
    check_command(&node, &["verify"], "", 1, "passed  key    0600\nFAILED  clock  start chrony\n1 of 2 checks failed.");
    check_command(&node, &["policy", "show"], "", 0, "# policy 3-abcdefabcdef\ndefault = \"deny\"");
    check_command(&node, &["policy", "export"], "", 0, "default = \"deny\"");
    check_command(&node, &["policy", "show", "--version", "9"], "", 1, "there is no version 9");
    let complaint = "  line 4: time_profiles[1].days: no day\n      write Mon to Sun";
    check_command(&node, &["policy", "check", "-"], "x", 1, complaint);
    check_command(&node, &["policy", "check", "-"], "", 0, "The document has no fault.");
    check_command(&node, &["policy", "apply", "-"], "bad", 1, &format!("the document has 1 fault\n{complaint}"));
    check_command(&node, &["policy", "apply", "-", "-m", "why"], "good", 0, "Applied: 4-0123456789ab is in force.");
    check_command(&node, &["policy", "diff", "-"], "x", 0, "-old\n+new");
    let log = "   version  snapshot        applied              by   why\n\
               *        3  3-abcdefabcdef  2026-05-01 13:00:00  ann  evil \\u{1b}[2J";
    check_command(&node, &["policy", "log"], "", 0, log);
    check_command(&node, &["policy", "rollback", "2"], "", 0, "done as asked");
    let explain = ["policy", "explain", "--client", "10.0.0.7", "--url", "http://a.example/"];
    check_command(&node, &explain, "", 0, "it is late\nDENY by rule-1");
    let report = "12 requests, 2 blocked, 0 B up, 2.0 KiB down\n\nHosts\nrequests  blocked    bytes  name\n      12        2  2.0 KiB  a.example";
    check_command(&node, &["report", "--last", "1h"], "", 0, report);
    check_command(&node, &["params", "show"], "", 0, "/etc/x.ini\nCORES  \"4\"  in force: \"auto\" until the restart");
    let set = "In force now: LOG_LEVEL\nWaiting for a restart (tidegate restart): CORES";
    check_command(&node, &["params", "set", "LOG_LEVEL=debug", "CORES=4"], "", 0, set);
    check_command(&node, &["restart", "--backup"], "", 0, "done as asked");
}

#[test]
fn commands_become_the_actions_they_name() {
    let node = Node::start(None);
    let action = |args: &[&str], stdin: &str| {
        node.tidegate(args, stdin);
        node.asked().pop().map(|(_, action)| action)
    };
    let apply =
        Action::PolicyApply { document: "text".into(), comment: "why".into(), base: Some(3), how: Default::default() };
    assert_eq!(action(&["policy", "apply", "-", "-m", "why", "--base", "3"], "text"), Some(apply));
    let add = Action::AdminAdd { user: "ann".into(), password: "correct horse battery".into() };
    assert_eq!(action(&["admin", "add", "ann"], "correct horse battery\nsecond line\n"), Some(add));
    assert_eq!(action(&["admin", "add", "ann"], ""), None, "no password, no question");
    assert_eq!(action(&["restart"], ""), Some(Action::Restart { backup: false }));
    let Some(Action::Report(question)) =
        action(&["report", "--from", "1970-01-01T00:00:01Z", "--blocked", "--top", "3"], "")
    else {
        panic!("no report was asked");
    };
    assert_eq!(
        (question.from_us, question.to_us, question.blocked, question.top),
        (Some(1_000_000), None, Some(true), Some(3))
    );
    let Some(Action::Explain(question)) =
        action(&["policy", "explain", "--client", "::1", "--url", "http://a/", "--at", "2026-05-04 12:30"], "")
    else {
        panic!("nothing was explained");
    };
    assert_eq!(question.at.as_deref(), Some("2026-05-04T12:30:00Z"));
}

#[test]
fn programs_get_json_and_exit_codes_tell_done_refused_and_wrong_usage() {
    let node = Node::start(None);
    let json = |args: &[&str]| -> (Option<i32>, serde_json::Value) {
        let output = node.tidegate(args, "");
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    };
    let (code, status) = json(&["status", "--json"]);
    assert_eq!(
        (code, &status["outcome"], &status["node"], &status["nodes"]),
        (Some(0), &"status".into(), &"edge-1".into(), &serde_json::json!([]))
    );
    let (code, refused) = json(&["policy", "show", "--version", "9", "--json"]);
    assert_eq!((code, &refused["kind"]), (Some(1), &"not-found".into()));
    let (code, verify) = json(&["verify", "--json"]);
    assert_eq!((code, &verify["checks"][1]["passed"]), (Some(1), &false.into()));
    for wrong in
        [&["no-such"][..], &["policy"], &["report", "--last", "1h", "--from", "2026-05-01"], &["demo", "--slaves", "0"]]
    {
        assert_eq!(json(wrong).0, Some(2), "{wrong:?}");
    }
    assert_eq!(json(&["report", "--last", "1 hour"]).0, Some(1));
    assert_eq!(json(&["--help"]).0, Some(0));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["params", "default"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn a_document_is_checked_without_a_node_and_a_key_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let tidegate = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).output().unwrap();
    let file = dir.path().join("policy.toml");
    fs::write(&file, "no_such_section = 1\n").unwrap();
    let output = tidegate(&["policy", "check", "--offline", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("line 1"), "{output:?}");
    fs::write(&file, b"a = 1\n\xff\n").unwrap();
    let output = tidegate(&["policy", "check", "--offline", file.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 2: this is not UTF-8"), "{output:?}");

    let key = dir.path().join("activation.key");
    let args = ["activation-key", "new", "-o", key.to_str().unwrap()];
    assert_eq!(tidegate(&args).status.code(), Some(0));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read(&key).unwrap();
    tidegate::tls::activation::ActivationKey::parse(std::str::from_utf8(&first).unwrap()).unwrap();
    let again = tidegate(&args);
    assert_eq!((again.status.code(), fs::read(&key).unwrap()), (Some(1), first));
}
