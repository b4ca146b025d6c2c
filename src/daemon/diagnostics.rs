//! Diagnostics: what a support desk asks for, gathered into one archive. Secrets never: nothing that holds one is read into it,
//! and what is read is searched for them all the same. Who went where: only if asked for.

use super::desk::NodeDesk;
use super::kernel;
use super::tarball::Tarball;
use super::verify;
use crate::admin::Check;
use crate::admin::Diagnostics;
use crate::admin::DiagnosticsFile;
use crate::admin::KernelCheck;
use crate::admin::Outcome;
use crate::admin::Param;
use crate::admin::Refused;
use crate::base::clock::Wall;
use crate::base::version::VERSION;
use crate::base::words;
use crate::limits::ACTIVATION_KEY_FILE_BYTES_MAX;
use crate::limits::DIAGNOSTICS_ARCHIVE_BYTES_MAX;
use crate::limits::DIAGNOSTICS_ENTRIES_MAX;
use crate::limits::DIAGNOSTICS_FILE_BYTES_MAX;
use crate::limits::DIAGNOSTICS_FILES_MAX;
use crate::limits::DIAGNOSTICS_LOG_BYTES_MAX;
use crate::limits::POLICY_LOG_ROWS_MAX;
use crate::settings::Settings;
use crate::store::admins;
use crate::sys::host;
use crate::tls::activation;
use std::fmt::Write;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// The folder inside the archive.
const FOLDER: &str = "tidegate-diagnostics";
/// What stands where a secret stood.
const REMOVED: &str = "(removed)";

/// Gathers everything; `with_log` also what says who went where.
pub async fn gather(desk: &NodeDesk, with_log: bool) -> Result<Outcome, Refused> {
    let settings = desk.params.watch().borrow().clone();
    let now = Wall::now();
    let mut files = of_the_node(desk, with_log).await;
    let work = move || {
        files.extend(of_the_host(&settings));
        if with_log {
            files.extend(logs(&settings.log_dir));
        }
        let secrets = Secrets::of(&settings);
        files.iter_mut().for_each(|file| secrets.scrub(&mut file.text));
        pack(files, with_log, &settings.node_name, now)
    };
    let packed = tokio::task::spawn_blocking(work).await;
    match packed.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(diagnostics) => Ok(Outcome::Diagnostics(Box::new(diagnostics))),
        Err(error) => Err(Refused::failed(format!("packing diagnostics: {error}"))),
    }
}

/// A file in the making.
struct Text {
    name: &'static str,
    about: &'static str,
    text: String,
}

/// What the node itself knows.
async fn of_the_node(desk: &NodeDesk, with_log: bool) -> Vec<Text> {
    let file = |name, about, text| Text { name, about, text };
    let current = desk.publisher.current();
    let history =
        desk.policy.log(POLICY_LOG_ROWS_MAX).await.map_or_else(|refused| refused.words, |outcome| json(&outcome));
    let params = desk.params.show().map_or_else(|refused| refused.words, |outcome| params(&outcome));
    vec![
        file("status.json", "role, version, listeners, policy, records, counters, troubles", json(&desk.status())),
        file("nodes.json", "this node and, on a master, its slaves with addresses and counters", json(&desk.nodes())),
        file("verify.txt", "the checklist of tidegate verify", checklist(&verify::walk(desk).await)),
        file("kernel.txt", "the checks of tidegate kernel", host_checks(&kernel::look(desk))),
        file("startup-params.txt", "every startup param as in the file, and as in force where that differs", params),
        file(
            "policy.toml",
            "the policy document in force; its names and addresses are those you wrote",
            current.document().to_string(),
        ),
        file("policy-history.json", "versions of policy: when, who, why", history),
        file(
            "messages.txt",
            "the last messages of this process, as in the journal; addresses of clients left out unless the log is in",
            desk.params.messages(with_log),
        ),
    ]
}

/// What the host tells of itself and of this process.
fn of_the_host(settings: &Settings) -> Vec<Text> {
    const PROC: [(&str, &str); 12] = [
        ("/proc/self/status", "this process: memory, threads, capabilities, seccomp"),
        ("/proc/self/limits", "its limits"),
        ("/proc/self/smaps_rollup", "its memory by kind"),
        ("/proc/meminfo", "the host's memory"),
        ("/proc/loadavg", "the host's load"),
        ("/proc/cpuinfo", "its processors"),
        ("/proc/net/sockstat", "sockets in use"),
        ("/proc/net/snmp", "counters of IP, TCP, UDP"),
        ("/proc/net/netstat", "more of them: listen queues that overflowed, SYN cookies"),
        ("/proc/pressure/cpu", "who waited for a processor"),
        ("/proc/pressure/io", "who waited for disks"),
        ("/proc/pressure/memory", "who waited for memory"),
    ];
    let mut proc = String::new();
    for (path, about) in PROC {
        let text = read_beginning(Path::new(path), DIAGNOSTICS_FILE_BYTES_MAX / PROC.len());
        let text = text.unwrap_or_else(|error| format!("(not read: {error})"));
        let _ = writeln!(proc, "=== {path}: {about}\n{}\n", text.trim_end());
    }
    vec![
        Text { name: "versions.txt", about: "versions of Tidegate, kernel and distribution", text: versions() },
        Text { name: "proc.txt", about: "figures of this process and of the host, from /proc", text: proc },
        Text {
            name: "sizes.txt",
            about: "names, sizes, modes and ages of the node's files, and free space",
            text: sizes(settings),
        },
    ]
}

/// The logs' ends: they say who went where, and who changed what.
fn logs(log_dir: &Path) -> Vec<Text> {
    let end = |name: &str| {
        let path = log_dir.join(name);
        read_end(&path).unwrap_or_else(|error| format!("(reading {}: {error})", path.display()))
    };
    vec![
        Text {
            name: "extended.log",
            about: "the last requests: PERSONAL DATA, who went where",
            text: end("extended.log"),
        },
        Text {
            name: "config.log",
            about: "the last changes: PERSONAL DATA, who did what from where",
            text: end("config.log"),
        },
    ]
}

fn pack(mut files: Vec<Text>, with_log: bool, node: &str, now: Wall) -> io::Result<Diagnostics> {
    let time = jiff::Timestamp::from_microsecond(now.0).unwrap_or_default();
    let readme = readme(&files, with_log, node, &time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    files.insert(0, Text { name: "README.txt", about: "what is in here, and what is not", text: readme });
    files.truncate(DIAGNOSTICS_FILES_MAX);
    let mut tarball = Tarball::new(FOLDER, now);
    let mut contents = Vec::new();
    for Text { name, about, text } in &files {
        let bytes = &text.as_bytes()[..text.len().min(DIAGNOSTICS_FILE_BYTES_MAX)];
        tarball.add(name, bytes)?;
        contents.push(DiagnosticsFile { name: name.to_string(), bytes: bytes.len() as u64, about: about.to_string() });
    }
    let archive = tarball.finish()?;
    if archive.len() > DIAGNOSTICS_ARCHIVE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it came to {} bytes, more than the bound of {DIAGNOSTICS_ARCHIVE_BYTES_MAX}",
            archive.len()
        )));
    }
    Ok(Diagnostics {
        file_name: format!("tidegate-diagnostics-{node}-{}.tar.gz", time.strftime("%Y%m%dT%H%M%SZ")),
        archive: data_encoding::BASE64.encode(&archive),
        contents,
    })
}

fn readme(files: &[Text], with_log: bool, node: &str, time: &str) -> String {
    let log = match with_log {
        true => "extended.log and config.log are in it: PERSONAL DATA. Pass it on only to whom you may pass that on.",
        false => "Who went where is not in it: extended.log, config.log and the addresses of clients were left out.",
    };
    let mut text = format!(
        "Diagnostics of the Tidegate node {node}, {time}, version {}.\n\n{log}\n\
         No secrets are in it: the activation key, private keys, passwords, their hashes, credentials for parent proxies and\n\
         sessions are not gathered, and whatever was gathered was searched for them. Addresses and names of your nodes, of your\n\
         administrators, and what you wrote into the policy are in it.\n\n",
        VERSION
    );
    for file in files {
        let _ = writeln!(text, "{:20} {}", file.name, file.about);
    }
    text
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("(not written: {error})"))
}

fn checklist(checks: &[Check]) -> String {
    let line =
        |check: &Check| format!("{} {}: {}\n", if check.passed { "passed" } else { "FAILED" }, check.name, check.words);
    checks.iter().map(line).collect()
}

fn host_checks(checks: &[KernelCheck]) -> String {
    let line = |check: &KernelCheck| {
        let remedy = if check.remedy.is_empty() { String::new() } else { format!("\n    {}", check.remedy) };
        format!("{:?} {}: {}{remedy}\n", check.verdict, check.name, check.found)
    };
    checks.iter().map(line).collect()
}

/// The params that the table knows, from it alone: comments and unknown lines of the file stay where they are.
fn params(outcome: &Outcome) -> String {
    let Outcome::Params { file, params } = outcome else { return String::new() };
    let line = |param: &Param| {
        let in_force = param.in_force.as_ref().map_or(String::new(), |value| format!("  # in force: \"{value}\""));
        format!("{}=\"{}\"{in_force}\n", param.key, param.value)
    };
    format!("# {file}\n") + &params.iter().map(line).collect::<String>()
}

fn versions() -> String {
    let read =
        |path: &str| read_beginning(Path::new(path), 4_096).unwrap_or_else(|error| format!("({path}: {error})\n"));
    format!(
        "tidegate {} ({}, built for {})\n\n{}\n{}",
        VERSION,
        if cfg!(debug_assertions) { "debug" } else { "release" },
        std::env::consts::ARCH,
        read("/proc/version"),
        read("/etc/os-release"),
    )
}

fn sizes(settings: &Settings) -> String {
    let mut text = String::new();
    let folders: [(&str, &PathBuf); 5] = [
        ("STATE_DIR", &settings.state_dir),
        ("LOG_DIR", &settings.log_dir),
        ("RUN_DIR", &settings.run_dir),
        ("LISTS_DIR", &settings.lists_dir),
        ("CREDENTIALS_DIR", &settings.credentials_dir),
    ];
    for (key, dir) in folders {
        let space = host::space(dir).map_or_else(
            |error| error.to_string(),
            |(free, all)| format!("{} free of {}", words::bytes(free), words::bytes(all)),
        );
        let _ = writeln!(text, "=== {key} {}: {space}", dir.display());
        let mut left = DIAGNOSTICS_ENTRIES_MAX;
        list(dir, dir, 0, &mut left, &mut text);
    }
    text
}

/// Folders below `dir`, three deep; links are named, not followed.
fn list(root: &Path, dir: &Path, depth: usize, left: &mut usize, text: &mut String) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).take(*left).collect();
    entries.sort();
    for path in entries {
        if *left == 0 {
            text.push_str("(more is not listed)\n");
            return;
        }
        *left -= 1;
        let (Ok(meta), Ok(name)) = (path.symlink_metadata(), path.strip_prefix(root)) else { continue };
        let changed = jiff::Timestamp::from_second(meta.mtime()).unwrap_or_default();
        let name = words::tame(&name.display().to_string());
        let _ = writeln!(
            text,
            "{:>14} {:06o} {:>5}:{:<5} {changed} {name}",
            meta.len(),
            meta.mode(),
            meta.uid(),
            meta.gid()
        );
        if meta.is_dir() && depth < 2 {
            list(root, &path, depth + 1, left, text);
        }
    }
}

fn read_beginning(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last whole lines of a file.
fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(DIAGNOSTICS_LOG_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(DIAGNOSTICS_LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match text.split_once('\n') {
        Some((_, whole)) if from > 0 => Ok(whole.to_string()),
        _ => Ok(text),
    }
}

/// The secrets of this node, to be searched for. Nothing that is gathered should have one; this is for what an administrator
/// wrote where it does not belong, and for the mistake that is not made yet.
struct Secrets(Vec<String>);

impl Secrets {
    fn of(settings: &Settings) -> Secrets {
        let mut found = Vec::new();
        let key = read_beginning(&settings.activation_key_file, ACTIVATION_KEY_FILE_BYTES_MAX).unwrap_or_default();
        found.extend(key.lines().map(|line| line.trim().to_string()));
        for entry in
            fs::read_dir(&settings.credentials_dir).into_iter().flatten().flatten().take(DIAGNOSTICS_ENTRIES_MAX)
        {
            let login = read_beginning(&entry.path(), crate::limits::CREDENTIALS_BYTES_MAX).unwrap_or_default();
            found.extend(login.trim_end().split_once(':').map(|(_, password)| password.to_string()));
        }
        // A password of three letters would tear words apart and is none.
        found.retain(|secret| secret.len() >= 4);
        found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Secrets(found)
    }

    fn scrub(&self, text: &mut String) {
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), REMOVED);
            }
        }
        // By their looks, whoever's they are: activation keys, hashes of passwords, private keys.
        for (begins, ends) in [
            (activation::PREFIX, Ends::AtWord),
            (admins::HASH_BEGINS, Ends::AtWord),
            ("-----BEGIN PRIVATE KEY-----", Ends::With("-----END PRIVATE KEY-----")),
            ("-----BEGIN EC PRIVATE KEY-----", Ends::With("-----END EC PRIVATE KEY-----")),
            ("-----BEGIN RSA PRIVATE KEY-----", Ends::With("-----END RSA PRIVATE KEY-----")),
        ] {
            remove_all(text, begins, &ends);
        }
    }
}

/// Where a secret that is known by its beginning ends.
enum Ends {
    /// At white space or a quote.
    AtWord,
    /// With these words; at the end of the text without them.
    With(&'static str),
}

fn remove_all(text: &mut String, begins: &str, ends: &Ends) {
    let mut kept = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(begins) {
        let tail = &rest[at..];
        let length = match ends {
            Ends::AtWord => {
                tail.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\')).unwrap_or(tail.len())
            }
            Ends::With(words) => tail.find(words).map_or(tail.len(), |at| at + words.len()),
        };
        kept.push_str(&rest[..at]);
        kept.push_str(REMOVED);
        rest = &tail[length..];
    }
    if !kept.is_empty() {
        kept.push_str(rest);
        *text = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_removed_and_the_rest_stays() {
        let key = activation::ActivationKey::generate().unwrap().to_text();
        let secrets = Secrets(vec!["hunter2 hunter2".to_string()]);
        let pem = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----";
        for (text, expected) in [
            ("nothing to see".to_string(), "nothing to see"),
            (format!("# key: {key}, do not lose it"), "# key: (removed) do not lose it"),
            (format!("{key}\n{key}"), "(removed)\n(removed)"),
            ("hash=\"$argon2id$v=19$m=1$abc\" x".to_string(), "hash=\"(removed)\" x"),
            (format!("a\n{pem}\nb"), "a\n(removed)\nb"),
            ("cut -----BEGIN PRIVATE KEY-----\nMIGH".to_string(), "cut (removed)"),
            ("login hunter2 hunter2!".to_string(), "login (removed)!"),
        ] {
            let mut scrubbed = text.clone();
            secrets.scrub(&mut scrubbed);
            assert_eq!(scrubbed, expected, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_log_begins_with_a_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(read_end(&path).unwrap(), "one\ntwo\n");
        let line = format!("{}\n", "x".repeat(999));
        fs::write(&path, line.repeat(2_000)).unwrap();
        let end = read_end(&path).unwrap();
        assert!(
            end.len() as u64 <= DIAGNOSTICS_LOG_BYTES_MAX && end.len() > DIAGNOSTICS_LOG_BYTES_MAX as usize - 1_000
        );
        assert!(end.lines().all(|line| line.len() == 999));
    }
}
