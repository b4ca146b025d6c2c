//! The building code, run as a test: floors, doors, sizes and paths. Every complaint gives `file:line` and what to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Module -> the modules it may import (floors point down). `*` is for assembly alone.
const MAY_IMPORT: &[(&str, &str)] = &[
    ("limits", ""),
    ("base", "limits"),
    ("wire", "base limits"),
    ("record", "base limits"),
    ("figures", "base limits"),
    ("settings", "base limits"),
    ("sys", "base limits"),
    ("io", "base limits sys"),
    ("policy", "base limits wire record sys settings"),
    ("tls", "base limits wire sys io"),
    ("log", "base limits record sys"),
    ("proxy", "base limits wire record figures sys io policy tls log"),
    ("cluster", "base limits wire record figures settings sys policy tls log store"),
    ("store", "base limits record figures sys policy tls report"),
    ("report", "base limits record store"),
    ("admin", "base limits figures sys policy report cluster"),
    ("portal", "base limits figures tls policy report cluster admin"),
    ("cli", "base limits figures settings sys policy report cluster admin tls"),
    ("daemon", "*"),
    ("lib", "*"),
    ("main", "cli daemon"),
];

/// A word that has a home: (word, homes, remedy). Each outside crate has one door.
const AT_HOME: &[(&str, &str, &str)] = &[
    ("tokio_uring", "src/io/", "ask io for it"),
    ("io_uring::", "src/io/", "ask io for it"),
    ("httparse", "src/wire/", "take a RequestHead or ReplyHead"),
    ("nix::", "src/sys/", "give sys a verb for it"),
    ("libc::", "src/sys/ src/io/", "give sys a verb for it"),
    ("notify::", "src/sys/watch.rs", "use sys::watch"),
    ("rustls", "src/tls/", "ask tls for it"),
    ("rcgen", "src/tls/", "ask tls for it"),
    ("aws_lc_rs", "src/tls/", "ask tls for it"),
    ("rusqlite", "src/store/", "give the store a verb for it"),
    ("axum", "src/portal/ src/cluster/ src/daemon/", "speak admin::Action instead"),
    ("askama", "src/portal/", "render in the portal"),
    ("clap", "src/cli/", "parse arguments in cli"),
    ("regex_automata", "src/policy/", "ask policy for it"),
    ("toml::", "src/policy/", "ask policy for it"),
    ("hickory_", "src/proxy/upstream/", "ask proxy::upstream::resolve"),
    ("rkyv", "src/base/archive.rs src/policy/", "take a Verified<T>"),
    ("argon2", "src/store/admins.rs", "ask store::admins"),
    ("flate2", "src/daemon/tarball.rs", "give the tarball a verb for it"),
    ("crc32fast", "src/log/chain.rs", "take the chain's prints"),
    ("memchr::", "src/base/lines.rs", "ask base::lines"),
    (
        "zstd::",
        "src/base/frames.rs src/cluster/ src/store/records/seal.rs src/log/packed.rs",
        "compress where things travel or are kept",
    ),
    ("Instant::now", "src/base/clock.rs", "take `now` as an argument, or Mono::now()"),
    ("SystemTime::now", "src/base/clock.rs", "take `now` as an argument, or Wall::now()"),
    ("use crate::{", "", "write one `use crate::module::Name;` a line: this test reads them"),
    ("FIXME", "", "resolve it, refuse it in words, or open an issue"),
    ("TODO", "", "resolve it, refuse it in words, or open an issue"),
];

/// Where `unsafe` may be written. Everywhere else the module forbids it.
const UNSAFE_HOMES: &[&str] = &["src/sys/", "src/io/", "src/base/archive.rs"];

/// Lines of code a file may have before its tests: split by noun while the seam is still visible.
const CODE_LINES_MAX: usize = 640;

/// Columns of a line.
const COLUMNS_MAX: usize = 160;

#[test]
fn imports_point_down() {
    let may: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let complaints = for_each_line(|file, line| {
        let from = module_of(file);
        let Some(allowed) = may.get(from) else {
            return Some(format!("`{from}` is on no floor: add it to MAY_IMPORT"));
        };
        let above = line.split("crate::").skip(1).map(first_word).find(|to| {
            *to != from && *allowed != "*" && may.contains_key(to) && !allowed.split(' ').any(|name| name == *to)
        })?;
        Some(format!("`{from}` imports `{above}`, which is not below it"))
    });
    assert_none(complaints);
}

#[test]
fn words_stay_at_home() {
    let complaints = for_each_line(|file, line| {
        if line.trim_start().starts_with("//") {
            return None;
        }
        let found = AT_HOME
            .iter()
            .find(|(word, homes, _)| names(line, word) && !homes.split_whitespace().any(|home| file.starts_with(home)));
        found.map(|(word, _, remedy)| format!("`{word}` here: {remedy}"))
    });
    assert_none(complaints);
}

#[test]
fn unsafe_stays_in_its_rooms_and_is_forbidden_elsewhere() {
    let mut complaints = for_each_line(|file, line| {
        let code = line.split("//").next().unwrap_or_default();
        let is_unsafe = code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        let home = UNSAFE_HOMES.iter().any(|home| file.starts_with(home));
        (is_unsafe && !home)
            .then(|| "`unsafe` outside sys, io and base/archive: put it behind a safe verb there".into())
    });
    for (module, _) in MAY_IMPORT {
        let root = format!("src/{module}/mod.rs");
        let open = ["base", "sys", "io"].contains(module);
        if !open && fs::read_to_string(&root).is_ok_and(|text| !text.contains("#![forbid(unsafe_code)]")) {
            complaints.push(format!("{root}:1: add #![forbid(unsafe_code)]"));
        }
    }
    assert_none(complaints);
}

#[test]
fn every_unsafe_block_says_why_and_why_it_is_sound() {
    let mut complaints = Vec::new();
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !(code.contains("unsafe {") || code.contains("unsafe impl")) {
                continue;
            }
            let above = lines[index.saturating_sub(12)..index].join("\n");
            for word in ["JUSTIFICATION:", "SAFETY:"] {
                if !above.contains(word) {
                    complaints.push(format!("{}:{}: unsafe without `// {word}`", path.display(), index + 1));
                }
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn files_stay_short_and_lines_readable() {
    let mut complaints = for_each_line(|_, line| {
        let columns = line.chars().count();
        (columns > COLUMNS_MAX).then(|| format!("{columns} columns: break the line at {COLUMNS_MAX}"))
    });
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = production(&text).count();
        if code > CODE_LINES_MAX {
            complaints.push(format!("{}:{code}: {code} lines before its tests: split it by noun", path.display()));
        }
    }
    assert_none(complaints);
}

#[test]
fn paths_named_in_the_documents_exist() {
    let mut complaints = Vec::new();
    for document in ["ARCHITECTURE.md", "README.md"] {
        let text = fs::read_to_string(document).expect("README.md and ARCHITECTURE.md stand at the top of the project");
        for (index, line) in text.lines().enumerate() {
            for word in line.split(['`', '(', ')', ' ']) {
                let named = ["src/", "docs/", "tests/", "benches/", "packaging/", "systemd/", ".ci/"];
                let path = word.trim_end_matches(['.', ',', ':', ';']);
                if named.iter().any(|root| path.starts_with(root)) && !path.contains('*') && !Path::new(path).exists() {
                    complaints.push(format!("{document}:{}: `{path}` does not exist", index + 1));
                }
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn every_format_has_its_page() {
    let pages = [
        "startup-ini",
        "policy-document",
        "snapshot",
        "record-spool",
        "extended-log",
        "extended-log-chain",
        "record-block",
        "cursor",
        "record-batch",
        "performance-log",
    ];
    let missing = pages.iter().map(|page| format!("docs/formats/{page}.md")).filter(|path| !Path::new(path).exists());
    assert_none(missing.map(|path| format!("{path}:1: write the page of this format")).collect());
}

/// Whoever searches the journal by EVENT finds each in the page, and nothing in the page in vain.
#[test]
fn every_event_of_the_journal_is_explained() {
    let page = fs::read_to_string("docs/journal.md").expect("docs/journal.md explains the journal");
    let mut said = Vec::new();
    let complaints = for_each_line(|_, line| {
        let (_, rest) = line.split_once("event = \"")?;
        let name = rest.split('"').next().unwrap_or_default().to_string();
        said.push(name.clone());
        (!page.contains(&format!("`{name}`")))
            .then(|| format!("the event `{name}` is not in docs/journal.md: explain it"))
    });
    assert_none(complaints);
    let (_, events) = page.split_once("## Events").expect("the page has a section Events");
    let rows = events.lines().filter(|line| line.starts_with("| `"));
    let named = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    let idle = named.filter(|name| !said.iter().any(|said| said == name));
    assert_none(idle.map(|name| format!("docs/journal.md:1: nothing says the event `{name}` any more")).collect());
}

/// The checks themselves are checked on a planted fault.
#[test]
fn the_line_checks_see_what_they_are_for() {
    assert_eq!(first_word("policy::Snapshot;"), "policy");
    assert_eq!(module_of("src/wire/http1/head.rs"), "wire");
    assert_eq!(module_of("src/limits.rs"), "limits");
    assert!(names("let x = nix::unistd::getpid();", "nix::"));
    assert!(!names("use std::os::unix::fs::FileExt;", "nix::"));
}

fn for_each_line(mut check: impl FnMut(&str, &str) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for path in sources(Path::new("src")) {
        let file = path.to_str().expect("our own file names are UTF-8");
        for (index, line) in production(&fs::read_to_string(&path).unwrap()).enumerate() {
            complaints.extend(check(file, line).map(|what| format!("{file}:{}: {what}", index + 1)));
        }
    }
    complaints
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    found.sort();
    found
}

/// The lines of a file before its tests: what runs in production.
fn production(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]")
}

/// Whether `line` holds `word` and not merely a longer word that ends in it: `unix::` is not `nix::`.
fn names(line: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].chars().next_back().is_some_and(in_word))
}

fn module_of(file: &str) -> &str {
    file.split('/').nth(1).unwrap_or_default().trim_end_matches(".rs")
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
