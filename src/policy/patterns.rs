//! Regular expressions: compiled on the authoring node to small automata that read each byte once, loaded by every node.

use crate::limits::POLICY_REGEX_DFA_BYTES_MAX;
use crate::limits::POLICY_REGEX_PATTERN_BYTES_MAX;
use crate::limits::POLICY_REGEX_SET_BYTES_MAX;
use regex_automata::Input;
use regex_automata::MatchKind;
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

/// Many patterns ready to search with, all in one pass.
pub struct PatternSet(dense::DFA<Vec<u32>>);

impl PatternSet {
    /// One automaton for all of `patterns`, if it stays small.
    pub fn build(patterns: &[&str], any_case: bool) -> Option<Vec<u8>> {
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(POLICY_REGEX_SET_BYTES_MAX))
            .determinize_size_limit(Some(POLICY_REGEX_SET_BYTES_MAX));
        let dense = builder(config, POLICY_REGEX_SET_BYTES_MAX, any_case).build_many(patterns).ok()?;
        let (bytes, padding) = dense.to_bytes_little_endian();
        Some(bytes[padding..].to_vec())
    }

    /// Loads an automaton that [`PatternSet::build`] wrote; checks all of it.
    pub fn load(bytes: &[u8]) -> Result<PatternSet, String> {
        // It is read in whole words, which must lie where words may.
        let mut room = vec![0; bytes.len() + align_of::<u32>()];
        let start = room.as_ptr().align_offset(align_of::<u32>());
        let place = room.get_mut(start..start + bytes.len()).ok_or("no room for it")?;
        place.copy_from_slice(bytes);
        let (automaton, _) = dense::DFA::from_bytes(place).map_err(|error| error.to_string())?;
        Ok(PatternSet(automaton.to_owned()))
    }

    /// How many patterns it looks for.
    pub fn len(&self) -> usize {
        self.0.pattern_len()
    }

    /// Hands over the number of each pattern that matches anywhere in `text`, some more than once.
    #[inline]
    pub fn each_found(&self, text: &[u8], mut found: impl FnMut(usize)) {
        let automaton = &self.0;
        // See `Pattern::found_in`.
        let Ok(mut state) = automaton.start_state_forward(&Input::new(text)) else { return };
        let mut all_of = |state| {
            (0..automaton.match_len(state)).for_each(|at| found(automaton.match_pattern(state, at).as_usize()));
        };
        for byte in text {
            let next = automaton.next_state(state, *byte);
            // What matches at every byte is told once.
            if next != state && automaton.is_special_state(next) {
                if automaton.is_match_state(next) {
                    all_of(next);
                } else if automaton.is_dead_state(next) {
                    return;
                }
            }
            state = next;
        }
        state = automaton.next_eoi_state(state);
        if automaton.is_match_state(state) {
            all_of(state);
        }
    }
}

fn builder(config: dense::Config, nfa_bytes_max: usize, any_case: bool) -> dense::Builder {
    let mut builder = dense::Builder::new();
    builder
        .configure(config)
        .thompson(thompson::Config::new().nfa_size_limit(Some(nfa_bytes_max)))
        .syntax(syntax::Config::new().unicode(false).utf8(false).case_insensitive(any_case).nest_limit(50));
    builder
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
    let dense =
        builder(config, POLICY_REGEX_DFA_BYTES_MAX, any_case).build(pattern).map_err(|error| in_words(&error))?;
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
