//! The commands of the documents: what a test types is what an administrator reads. A command that its page does not show fails the test,
//! so that neither changes without the other.

use crate::machine::Machine;
use std::fs;
use std::path::Path;

/// Runs a command that `page` shows. `said` turns the page's examples (addresses, file names) into this site's.
pub fn follow(machine: &Machine, page: &str, command: &str, said: &[(&str, &str)]) -> String {
    machine.ok(&as_said(page, command, said))
}

/// The command as this site says it; fails unless `page` shows it.
pub fn as_said(page: &str, command: &str, said: &[(&str, &str)]) -> String {
    assert!(shows(page, command), "{page} shows no such line: {command}");
    said.iter().fold(command.to_string(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// Whether a line of the page is this command, but for indentation and a comment behind it; or its text says it as code.
fn shows(page: &str, command: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    text.contains(&format!("`{command}`"))
        || text.lines().any(|line| {
            let line = line.trim().trim_start_matches("$ ");
            line == command || line.strip_prefix(command).is_some_and(|rest| rest.trim_start().starts_with('#'))
        })
}
