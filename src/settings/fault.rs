//! What is wrong with a startup param: where, what was read, what would be accepted.

use std::fmt;

/// One fault of startup.ini or of values submitted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file; empty for values that stand in none.
    pub file: String,
    /// 1-based line; 0 if the fault has no line.
    pub line: usize,
    /// The key; empty if the fault is not one key's.
    pub key: String,
    /// What was read.
    pub read: String,
    /// What is accepted instead.
    pub accepts: String,
}

impl Fault {
    /// A fault of no file yet; `at` adds it.
    pub(crate) fn new(line: usize, key: &str, read: impl Into<String>, accepts: impl Into<String>) -> Fault {
        Fault { file: String::new(), line, key: key.to_string(), read: read.into(), accepts: accepts.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
        }
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.file.is_empty() || self.line > 0 {
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "read {}; accepted: {}", self.read, self.accepts)
    }
}
