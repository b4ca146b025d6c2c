//! Documents and diffs, line by line, and the complaints that point into them.

use crate::admin::Complaint;
use crate::limits::PORTAL_COMPLAINTS_MAX;
use crate::limits::PORTAL_LINES_NUMBERED_MAX;

/// One line of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    pub text: String,
    /// A complaint points here.
    pub marked: bool,
}

/// A document as a page shows it: numbered lines, and what is past the bound as plain text.
pub struct Document {
    pub lines: Vec<Line>,
    pub rest: String,
}

/// Numbers a document's lines.
pub fn document(text: &str) -> Document {
    let lines = text.lines().take(PORTAL_LINES_NUMBERED_MAX).enumerate();
    let lines = lines.map(|(index, text)| Line { number: index + 1, text: text.to_string(), marked: false }).collect();
    let rest: Vec<&str> = text.lines().skip(PORTAL_LINES_NUMBERED_MAX).collect();
    Document { lines, rest: rest.join("\n") }
}

/// The lines that complaints point at, each with two before and after; runs that touch are one.
pub fn excerpts(text: &str, complaints: &[Complaint]) -> Vec<Vec<Line>> {
    let mut marked: Vec<usize> = complaints.iter().map(|complaint| complaint.line).filter(|line| *line > 0).collect();
    marked.sort_unstable();
    marked.dedup();
    let is_near = |number: usize| {
        let next = marked.partition_point(|line| line.saturating_add(2) < number);
        marked.get(next).is_some_and(|line| *line <= number + 2)
    };
    let mut runs: Vec<Vec<Line>> = Vec::new();
    let mut previous = 0;
    for (index, text) in text.lines().enumerate() {
        let number = index + 1;
        if !is_near(number) {
            continue;
        }
        if previous == 0 || previous + 1 != number {
            runs.push(Vec::new());
        }
        previous = number;
        let line = Line { number, text: text.to_string(), marked: marked.binary_search(&number).is_ok() };
        runs.last_mut().into_iter().for_each(|run| run.push(line.clone()));
    }
    runs
}

/// The complaints a page lists, and how many more there are.
pub fn listed(mut complaints: Vec<Complaint>) -> (Vec<Complaint>, usize) {
    let more = complaints.len().saturating_sub(PORTAL_COMPLAINTS_MAX);
    complaints.truncate(PORTAL_COMPLAINTS_MAX);
    (complaints, more)
}

/// One line of a diff. The sign stands in the text; `kind` only adds colour to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffLine {
    /// `add`, `del`, `hunk` or `same`.
    pub kind: &'static str,
    pub text: String,
}

/// A unified diff as a page shows it.
pub struct Diff {
    pub lines: Vec<DiffLine>,
    pub rest: String,
    pub added: usize,
    pub removed: usize,
}

/// Takes a unified diff apart. Only what stands before its first hunk can be a file's name.
pub fn diff(text: &str) -> Diff {
    let mut in_hunk = false;
    let mut lines = Vec::new();
    for text in text.lines() {
        in_hunk |= text.starts_with("@@");
        let kind = match text.as_bytes().first() {
            Some(b'@') => "hunk",
            Some(b'+' | b'-') if !in_hunk => "hunk",
            Some(b'+') => "add",
            Some(b'-') => "del",
            _ => "same",
        };
        lines.push(DiffLine { kind, text: text.to_string() });
    }
    let count = |kind| lines.iter().filter(|line: &&DiffLine| line.kind == kind).count();
    let (added, removed) = (count("add"), count("del"));
    let rest = lines.split_off(lines.len().min(PORTAL_LINES_NUMBERED_MAX));
    let rest: Vec<String> = rest.into_iter().map(|line| line.text).collect();
    Diff { lines, rest: rest.join("\n"), added, removed }
}

/// What a browser sends for a text area, as it was before: HTML forms turn every line end into CR LF.
pub fn from_form(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// Shows control and direction-changing characters as `\u{..}`: a record must not be able to disguise itself.
pub fn visible(text: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(is_hidden) {
        return text.to_string();
    }
    text.chars().map(|c| if is_hidden(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize) -> Complaint {
        Complaint { line, place: String::new(), what: String::new(), remedy: String::new() }
    }

    #[test]
    fn excerpts_stand_around_the_complaints_and_join() {
        let text: String = (1..=30).map(|n| format!("line {n}\n")).collect();
        let numbers = |complaints: &[Complaint]| -> Vec<Vec<usize>> {
            excerpts(&text, complaints).iter().map(|run| run.iter().map(|line| line.number).collect()).collect()
        };
        assert_eq!(numbers(&[at(1), at(4)]), [vec![1, 2, 3, 4, 5, 6]]);
        assert_eq!(numbers(&[at(20), at(10), at(10)]), [vec![8, 9, 10, 11, 12], vec![18, 19, 20, 21, 22]]);
        assert_eq!(numbers(&[at(0), at(31 + 5), at(usize::MAX - 4)]), Vec::<Vec<usize>>::new());
        assert!(excerpts(&text, &[at(10)])[0][2].marked);
    }

    #[test]
    fn a_diff_is_told_by_its_signs_and_a_removed_dash_line_is_no_header() {
        let diff = diff("--- policy 12\n+++ draft\n@@ -1,2 +1,2 @@\n same\n---- old\n+new\n");
        let kinds: Vec<&str> = diff.lines.iter().map(|line| line.kind).collect();
        assert_eq!(kinds, ["hunk", "hunk", "hunk", "same", "del", "add"]);
        assert_eq!((diff.added, diff.removed), (1, 1));
    }

    #[test]
    fn hidden_characters_become_visible() {
        assert_eq!(visible("http://a/\u{202e}gpj.exe\n"), "http://a/\\u{202e}gpj.exe\\u{a}");
        assert_eq!(visible("caf\u{e9}"), "caf\u{e9}");
    }

    #[test]
    fn a_long_document_is_numbered_up_to_the_bound_and_whole() {
        let text = "x\n".repeat(PORTAL_LINES_NUMBERED_MAX + 2);
        let document = document(&text);
        assert_eq!((document.lines.len(), document.rest.as_str()), (PORTAL_LINES_NUMBERED_MAX, "x\nx"));
    }
}
