//! Two administrators who began from the same document: what each of them changed, in one document, line by line.

use crate::limits::POLICY_DIFF_MS;
use similar::DiffOp;
use similar::TextDiff;
use std::ops::Range;
use std::time::Duration;

/// A document with the changes of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// It. Where both changed the same lines, both stand there between lines of marks, which no policy compiles with.
    pub document: String,
    /// At how many places that is so.
    pub overlaps: usize,
}

/// The difference of two documents by lines. Past the bound in time it is coarser, and right all the same.
pub(super) fn lines<'a>(old: &'a str, new: &'a str) -> TextDiff<'a, 'a, 'a, str> {
    TextDiff::configure().timeout(Duration::from_millis(POLICY_DIFF_MS)).diff_lines(old, new)
}

/// What `theirs` and `yours` changed in `base`. `names` stand in the marks: theirs, then yours.
pub fn merge(base: &str, theirs: &str, yours: &str, names: (&str, &str)) -> Merged {
    let base_lines = split(base);
    let (mut theirs, mut yours) = (Side::new(base, theirs), Side::new(base, yours));
    let mut merged = Merged { document: String::new(), overlaps: 0 };
    let mut done = 0;
    while let Some(first) = [theirs.next_start(), yours.next_start()].into_iter().flatten().min() {
        base_lines[done..first].iter().for_each(|line| merged.document.push_str(line));
        // All changes that overlap or touch, of either side, are decided together.
        let mut region = first..first;
        while theirs.take_in(&mut region) || yours.take_in(&mut region) {}
        done = region.end;
        let (their_text, your_text) = (theirs.text(&region), yours.text(&region));
        match (their_text, your_text) {
            (Some(one), None) | (None, Some(one)) => merged.document.push_str(&one),
            (Some(one), Some(other)) if one == other => merged.document.push_str(&one),
            (their_text, your_text) => {
                let (their_text, your_text) = (their_text.unwrap_or_default(), your_text.unwrap_or_default());
                merged.overlaps += 1;
                merged.document.push_str(&format!(
                    "<<<<<<< {}\n{}=======\n{}>>>>>>> {}\n",
                    names.0,
                    whole(&their_text),
                    whole(&your_text),
                    names.1
                ));
            }
        }
    }
    base_lines[done..].iter().for_each(|line| merged.document.push_str(line));
    merged
}

/// What one of the two changed.
struct Side<'a> {
    lines: Vec<&'a str>,
    /// (lines of the base, lines of this one), in order.
    changes: Vec<(Range<usize>, Range<usize>)>,
    next: usize,
    /// The changes of the region that is decided now.
    region: Range<usize>,
}

impl<'a> Side<'a> {
    fn new(base: &str, text: &'a str) -> Self {
        let diff = lines(base, text);
        let changed = diff.ops().iter().filter(|op| !matches!(op, DiffOp::Equal { .. }));
        let changes = changed.map(|op| (op.old_range(), op.new_range())).collect();
        Side { lines: split(text), changes, next: 0, region: 0..0 }
    }

    fn next_start(&mut self) -> Option<usize> {
        self.region = self.next..self.next;
        self.changes.get(self.next).map(|(old, _)| old.start)
    }

    /// Widens the region by this side's next change, if that touches it.
    fn take_in(&mut self, region: &mut Range<usize>) -> bool {
        let Some((old, _)) = self.changes.get(self.next).filter(|(old, _)| old.start <= region.end) else {
            return false;
        };
        region.end = region.end.max(old.end);
        self.next += 1;
        self.region.end = self.next;
        true
    }

    /// The lines of this side in the place of the base's `region`; nothing if it left that as it was.
    fn text(&self, region: &Range<usize>) -> Option<String> {
        let changes = &self.changes[self.region.clone()];
        let (first, last) = (changes.first()?, changes.last()?);
        let start = first.1.start - (first.0.start - region.start);
        let end = last.1.end + (region.end - last.0.end);
        Some(self.lines[start..end].concat())
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// A last line without an end would swallow the mark after it.
fn whole(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_string() } else { format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "a\nb\nc\nd\ne\nf\n";

    #[test]
    fn changes_at_different_places_are_both_there_and_the_same_change_once() {
        let table = [
            ("A\nb\nc\nd\ne\nf\n", "a\nb\nc\nd\ne\nF\n", "A\nb\nc\nd\ne\nF\n"),
            ("a\nb\nc\nd\ne\nf\ng\n", "x\na\nb\nc\nd\ne\nf\n", "x\na\nb\nc\nd\ne\nf\ng\n"),
            ("a\nb\ne\nf\n", BASE, "a\nb\ne\nf\n"),
            (BASE, "a\nB1\nB2\nc\nd\ne\n", "a\nB1\nB2\nc\nd\ne\n"),
            ("a\nB\nc\nd\ne\nf\n", "a\nB\nc\nd\nE\nf\n", "a\nB\nc\nd\nE\nf\n"),
            ("", "", ""),
        ];
        for (theirs, yours, expected) in table {
            let merged = merge(BASE, theirs, yours, ("theirs", "yours"));
            assert_eq!((merged.document.as_str(), merged.overlaps), (expected, 0), "{theirs:?} {yours:?}");
        }
    }

    #[test]
    fn where_both_changed_the_same_lines_both_stand_between_marks() {
        let merged = merge(BASE, "a\nB\nc\nd\ne\nf\n", "a\nbb\nc\nd\ne\nf", ("version 4", "yours"));
        assert_eq!(merged.document, "a\n<<<<<<< version 4\nB\n=======\nbb\n>>>>>>> yours\nc\nd\ne\nf");
        assert_eq!(merged.overlaps, 1);
        let merged = merge(BASE, "a\n", "a\nb\nc\nD\ne\nf\n", ("4", "yours"));
        assert_eq!(merged.document, "a\n<<<<<<< 4\n=======\nb\nc\nD\ne\nf\n>>>>>>> yours\n");
    }
}
