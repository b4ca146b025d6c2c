//! Regular expressions: compiled on the authoring node to small automata that read each byte once, loaded by every node.

use crate::limits::POLICY_REGEX_DFA_BYTES_MAX;
use crate::limits::POLICY_REGEX_PATTERN_BYTES_MAX;
use regex_automata::Input;
use regex_automata::dfa::Automaton;
use regex_automata::dfa::StartKind;
use regex_automata::dfa::dense;
use regex_automata::dfa::sparse;
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

/// A pattern ready to search with.
pub struct Pattern(sparse::DFA<Vec<u8>>);

impl Pattern {
    /// Loads an automaton that [`build`] wrote; checks all of it.
    pub fn load(bytes: &[u8]) -> Result<Pattern, String> {
        let (automaton, _) = sparse::DFA::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Pattern(automaton.to_owned()))
    }

    /// Whether it matches anywhere in `text`.
    #[inline]
    pub fn found_in(&self, text: &[u8]) -> bool {
        // The automata have no quitting bytes and start unanchored, which are the only reasons for a search to fail.
        self.0.try_search_fwd(&Input::new(text).earliest(true)).is_ok_and(|found| found.is_some())
    }
}

/// Compiles `pattern` to bytes for [`Pattern::load`], or says what is wrong with it. Classes such as `\w` are ASCII.
pub fn build(pattern: &str, any_case: bool) -> Result<Vec<u8>, String> {
    if pattern.len() > POLICY_REGEX_PATTERN_BYTES_MAX {
        return Err(format!("it is longer than {POLICY_REGEX_PATTERN_BYTES_MAX} bytes"));
    }
    let config = dense::Config::new()
        .start_kind(StartKind::Unanchored)
        .dfa_size_limit(Some(POLICY_REGEX_DFA_BYTES_MAX))
        .determinize_size_limit(Some(POLICY_REGEX_DFA_BYTES_MAX));
    let dense = dense::Builder::new()
        .configure(config)
        .thompson(thompson::Config::new().nfa_size_limit(Some(POLICY_REGEX_DFA_BYTES_MAX)))
        .syntax(syntax::Config::new().unicode(false).utf8(false).case_insensitive(any_case).nest_limit(50))
        .build(pattern)
        .map_err(|error| in_words(&error))?;
    let sparse = dense.to_sparse().map_err(|error| in_words(&error))?;
    Ok(sparse.to_bytes_little_endian())
}

/// The innermost cause in one line: that is where the parser says which part of the pattern it means.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
    last.trim().trim_start_matches("error: ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_what_they_say_and_bad_ones_are_refused_in_one_line() {
        let pattern = Pattern::load(&build(r"^(ads|track)\d+\.", true).unwrap()).unwrap();
        for (text, found) in [("ads12.example.com", true), ("TRACK7.x", true), ("x.ads1.y", false), ("", false)] {
            assert_eq!(pattern.found_in(text.as_bytes()), found, "{text}");
        }
        assert!(Pattern::load(&build(r"\.exe$", false).unwrap()).unwrap().found_in(b"/a\xff.exe"));
        for bad in ["(", "[z-a]", r"(a{500}){500}", r"\p{Greek}", "(?P<x"] {
            let words = build(bad, false).unwrap_err();
            assert!(!words.is_empty() && !words.contains('\n'), "{bad}: {words}");
        }
        assert!(build(&"x".repeat(POLICY_REGEX_PATTERN_BYTES_MAX + 1), false).is_err());
        assert!(Pattern::load(b"rust-regex-automata-dfa-sparse").is_err());
    }
}
