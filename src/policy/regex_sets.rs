//! Many regular expressions of request types looked for in one pass: each set is one automaton that says which of its types
//! know a text. What does not fit a set stays with its type and is looked for by itself.

use super::decision::Bits;
use super::patterns::PatternSet;
use super::snapshot::body::ArchivedRegexSet;
use super::snapshot::body::RegexSet;
use super::snapshot::body::RequestType;
use crate::limits::POLICY_REGEX_SET_ATTEMPTS_MAX;
use crate::limits::POLICY_REGEX_SETS_MAX;

/// The sets of one field of the request types.
#[derive(Default)]
pub struct RegexSets {
    sets: Vec<LoadedSet>,
    /// The types whose expressions for the field are all in sets.
    types: Bits,
}

struct LoadedSet {
    automaton: PatternSet,
    /// The type of each pattern.
    of: Vec<usize>,
    types: Bits,
}

impl RegexSets {
    /// Loads the sets of hosts, or those of paths; all is checked, for a policy of so many types.
    pub fn load(sets: &[ArchivedRegexSet], of_host: bool, request_types: usize) -> Result<RegexSets, String> {
        let mut loaded = RegexSets::default();
        for set in sets.iter().filter(|set| set.of_host == of_host) {
            let automaton = PatternSet::load(&set.automaton)?;
            let of: Vec<usize> = set.types.iter().map(|number| number.to_native() as usize).collect();
            if of.len() != automaton.len() || of.iter().any(|number| *number >= request_types) {
                return Err("a set of regular expressions does not agree with its request types".to_string());
            }
            let mut types = Bits::default();
            of.iter().for_each(|number| types.insert(*number));
            loaded.types.add(&types);
            loaded.sets.push(LoadedSet { automaton, of, types });
        }
        Ok(loaded)
    }

    /// The types whose expressions need not be looked for by themselves.
    pub fn types(&self) -> &Bits {
        &self.types
    }

    /// Adds to `known` those of `wanted` that know `text`.
    #[inline]
    pub fn find(&self, text: &[u8], wanted: &Bits, known: &mut Bits) {
        for set in &self.sets {
            if !set.types.common(wanted).is_empty() {
                set.automaton.each_found(text, |pattern| known.insert(set.of[pattern]));
            }
        }
    }
}

/// The expressions of one type for one field.
struct Group<'a> {
    of: usize,
    patterns: Vec<&'a str>,
}

/// Makes sets of the expressions that types have for hosts and for paths; `texts` are the expressions by number.
pub fn build(types: &[RequestType], texts: &[&str]) -> Vec<RegexSet> {
    let groups = |numbers: fn(&RequestType) -> &[u32]| -> Vec<Group> {
        let all = types.iter().enumerate().filter(|(_, t)| !numbers(t).is_empty());
        all.map(|(of, t)| {
            let patterns = numbers(t).iter().filter_map(|number| texts.get(*number as usize).copied());
            Group { of, patterns: patterns.collect() }
        })
        .collect()
    };
    let mut making = Making { sets: Vec::new(), attempts: POLICY_REGEX_SET_ATTEMPTS_MAX };
    making.make(&groups(|t| &t.host_regex), true);
    making.make(&groups(|t| &t.path_regex), false);
    making.sets
}

struct Making {
    sets: Vec<RegexSet>,
    attempts: usize,
}

impl Making {
    /// One automaton for all, or two for the halves where that grows too large.
    fn make(&mut self, groups: &[Group<'_>], of_host: bool) {
        let patterns: Vec<&str> = groups.iter().flat_map(|group| group.patterns.iter().copied()).collect();
        if patterns.len() < 2 || self.attempts == 0 || self.sets.len() >= POLICY_REGEX_SETS_MAX {
            return;
        }
        self.attempts -= 1;
        if let Some(automaton) = PatternSet::build(&patterns, of_host) {
            let types = groups.iter().flat_map(|group| group.patterns.iter().map(|_| group.of as u32)).collect();
            return self.sets.push(RegexSet { of_host, automaton, types });
        }
        if groups.len() > 1 {
            let (first, second) = groups.split_at(groups.len() / 2);
            self.make(first, of_host);
            self.make(second, of_host);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::clock::Wall;
    use crate::policy;
    use crate::policy::Facts;
    use crate::policy::NoFiles;
    use crate::policy::NoHeaders;
    use crate::policy::Scheme;
    use crate::policy::Snapshot;
    use proptest::prelude::*;

    fn any_pattern() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab/]{1,3}",
            "\\^[ab/]{1,2}",
            "[ab/]{1,2}\\$",
            "[ab]\\.\\*[ab]",
            "\\(a\\|b/\\)\\+",
            "\\[\\^a\\]\\{1,3\\}b",
            Just("^$".to_string()),
            Just(".".to_string()),
            // Alone it is small; with others of its kind it is not.
            "b[ab]\\.\\{6\\}a",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

        #[test]
        fn types_are_found_in_sets_as_they_are_one_by_one(
            types in prop::collection::vec((prop::bool::ANY, prop::collection::vec(any_pattern(), 1..4)), 1..20),
            texts in prop::collection::vec("[abAB/.]{0,12}", 12),
        ) {
            let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
            for (number, (of_host, patterns)) in types.iter().enumerate() {
                let field = if *of_host { "host_regex" } else { "path_regex" };
                document += &format!("[[request_types]]\nname = \"R{number}\"\n{field} = {patterns:?}\n");
            }
            let file = policy::compile(&document, 1, &NoFiles).unwrap_or_else(|complaints| panic!("{complaints:?}\n{document}"));
            let snapshot = Snapshot::open(&file).unwrap();
            for (host, path) in texts.iter().zip(texts.iter().rev()) {
                let facts = Facts {
                    client: [10, 1, 2, 3].into(),
                    user: None,
                    method: "GET",
                    scheme: Scheme::Http,
                    host,
                    port: 80,
                    path,
                    headers: &NoHeaders,
                    now: Wall(0),
                    node: "edge-1",
                };
                let found = snapshot.types().of(&facts, snapshot.body(), snapshot.patterns());
                for (number, one) in snapshot.body().request_types.iter().enumerate() {
                    let holds = one.miss(&facts, snapshot.patterns()).is_none();
                    prop_assert_eq!(found.contains(number), holds, "{:?} {:?} type {} of\n{}", host, path, number, document);
                }
            }
        }
    }

    #[test]
    fn a_thousand_expressions_are_few_sets_and_those_that_explode_stay_alone() {
        let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
        for number in 0..200 {
            document += &format!(
                "[[request_types]]\nname = \"R{number}\"\npath_regex = ['^/ads-{number}/', '/banner[0-9]+_{number}\\.gif$', \
                 '[?&]track{number}=', '\\.x{number}$']\n"
            );
        }
        let sets = |document: &str| {
            let file = policy::compile(document, 1, &NoFiles).unwrap_or_else(|complaints| panic!("{complaints:?}"));
            let snapshot = Snapshot::open(&file).unwrap();
            let sets: Vec<usize> = snapshot.body().regex_sets.iter().map(|set| set.types.len()).collect();
            sets
        };
        let ordinary = sets(&document);
        assert_eq!(ordinary.iter().sum::<usize>(), 800, "{ordinary:?}");
        assert!(ordinary.len() <= 4, "{ordinary:?}");
        // Each of these remembers the last nine bytes: small by itself, too large together.
        let mut document = "[access_restriction]\ndefault = \"allow\"\n".to_string();
        for number in 0..20 {
            let letter = char::from(b'a' + number);
            document += &format!("[[request_types]]\nname = \"R{number}\"\nhost_regex = ['{letter}.{{8}}x']\n");
        }
        let exploding = sets(&document);
        assert!(exploding.iter().sum::<usize>() < 20, "not all together: {exploding:?}");
    }
}
