//! What may be asked of an audit, and its answer, as values.

use crate::limits;
use serde::{Deserialize, Serialize};

/// Whose records, and of when. Times are microseconds since the epoch, UTC; absent means all that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditQuestion {
    /// The node that wrote the records; absent: the one that is asked.
    pub node: Option<String>,
    /// Records that ended at this time or later.
    pub from_us: Option<i64>,
    /// Records that ended before this time.
    pub to_us: Option<i64>,
}

impl AuditQuestion {
    /// Whether a record that ended then is asked for.
    pub fn covers(&self, ended_us: i64) -> bool {
        self.from_us.is_none_or(|from| from <= ended_us) && self.to_us.is_none_or(|to| ended_us < to)
    }
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The node whose records were looked at.
    pub node: String,
    /// Where: a folder of log files, or the record store.
    pub place: String,
    /// How many records end in the range.
    pub records: u64,
    /// The lowest number among them; 0 if there is none.
    pub first: u64,
    /// The highest.
    pub last: u64,
    /// Files that were read whole, for the range.
    pub files: u64,
    /// Lines that were sealed at a start of the node, not as they were written.
    pub sealed_late: u64,
    /// Lines at the log's end that are not sealed yet.
    pub not_yet_sealed: u64,
    /// Files without a chain, of earlier builds: of these only the sequence was looked at.
    pub files_unsealed: u64,
    /// `SEQ DIGEST` of the last block that was read; empty without one.
    pub head: String,
    /// What is wrong, in the order of the files.
    pub findings: Vec<Finding>,
    /// How many more findings there are than stand in the list.
    pub more_findings: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The file's name; empty in the record store.
    pub file: String,
    /// The line in it, counted from 1; 0 if it is no line.
    pub line: u64,
    /// The first number it is about; 0 if unknown.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// What is wrong.
    pub words: String,
}

impl Proof {
    /// Whether nothing is missing and nothing was changed.
    pub fn holds(&self) -> bool {
        self.findings.is_empty() && self.more_findings == 0
    }

    /// What is to be known of it though it is no fault: how many, and of what.
    pub fn notes(&self) -> Vec<(u64, &'static str)> {
        let all = [
            (
                self.sealed_late,
                "lines were sealed at a start of the node (after a crash or an upgrade), not as they were written",
            ),
            (self.not_yet_sealed, "lines at the end are younger than the last seal"),
            (self.files_unsealed, "files of an earlier build have no chain: only their numbers were looked at"),
        ];
        all.into_iter().filter(|(count, _)| *count > 0).collect()
    }

    /// Counts a record that ended in the range.
    pub fn count(&mut self, seq: u64) {
        self.first = if self.records == 0 { seq } else { self.first.min(seq) };
        self.last = self.last.max(seq);
        self.records += 1;
    }

    /// Notes what is wrong. The same about the number that follows makes one finding of both, if it is no line.
    pub fn find(&mut self, finding: Finding) {
        if let Some(before) = self.findings.last_mut()
            && (finding.line, before.line) == (0, 0)
            && finding.first > 0
            && before.last.checked_add(1) == Some(finding.first)
            && (&before.file, &before.words) == (&finding.file, &finding.words)
        {
            before.last = finding.last;
        } else if self.findings.len() < limits::AUDIT_FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}
