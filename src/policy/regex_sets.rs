//! Many regular expressions of request types looked for in one pass: each set is one automaton that says which of its types
//! know a text. What does not fit a set stays with its type and is looked for by itself.

use super::decision::Bits;
use super::header_tables::TestId;
use super::patterns::PatternSet;
use super::snapshot::body::ArchivedHeaderRegexSet;
use super::snapshot::body::ArchivedRegexSet;
use super::snapshot::body::ArchivedRequestType;
use super::snapshot::body::ArchivedTestPlace;
use super::snapshot::body::HeaderRegexSet;
use super::snapshot::body::RegexSet;
use super::snapshot::body::RequestType;
use super::snapshot::body::TestPlace;
use crate::limits::POLICY_HEADER_SET_BYTES_MAX;
use crate::limits::POLICY_HEADER_SETS_MAX;
use crate::limits::POLICY_HEADER_TESTS_IN_TABLES;
use crate::limits::POLICY_REGEX_SET_FAILURES_MAX;
use crate::limits::POLICY_REGEX_SETS_MAX;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::VecDeque;

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

/// The set of some header tests of one field.
pub struct HeaderSet {
    /// The field, in lower case.
    pub name: String,
    pub automaton: PatternSet,
    /// The test of each pattern.
    pub tests: Vec<TestId>,
    pub types: Bits,
}

impl HeaderSet {
    /// Loads a set of tests of these request types; all is checked.
    pub fn load(set: &ArchivedHeaderRegexSet, types: &[ArchivedRequestType]) -> Result<HeaderSet, String> {
        let automaton = PatternSet::load(&set.automaton)?;
        let id = |test: &ArchivedTestPlace| TestId {
            request_type: usize::from(test.request_type.to_native()),
            place: usize::from(test.place.to_native()),
        };
        let tests: Vec<TestId> = set.tests.iter().map(id).collect();
        // A test is in a set with all its expressions or with none.
        let agrees = |test: &TestId| {
            let known = types.get(test.request_type).and_then(|t| t.headers.get(test.place));
            test.place < POLICY_HEADER_TESTS_IN_TABLES
                && known.is_some_and(|known| {
                    let patterns = tests.iter().filter(|other| *other == test).count();
                    known.name.eq_ignore_ascii_case(&set.name) && known.regex.len() == patterns
                })
        };
        if tests.len() != automaton.len() || !tests.iter().all(agrees) {
            return Err("a set of regular expressions does not agree with its header tests".to_string());
        }
        let mut of = Bits::default();
        tests.iter().for_each(|test| of.insert(test.request_type));
        Ok(HeaderSet { name: set.name.to_ascii_lowercase(), automaton, tests, types: of })
    }
}

/// The expressions of one type, or of one test of it, for one field.
struct Group<'a, Of> {
    of: Of,
    patterns: Vec<&'a str>,
}

/// Makes sets of the expressions that types have for hosts and for paths; `texts` are the expressions by number.
pub fn build(types: &[RequestType], texts: &[&str]) -> Vec<RegexSet> {
    let groups = |numbers: fn(&RequestType) -> &[u32]| -> Vec<Group<u32>> {
        let all = types.iter().enumerate().filter(|(_, t)| !numbers(t).is_empty());
        all.map(|(of, t)| Group { of: of as u32, patterns: texts_of(numbers(t), texts) }).collect()
    };
    let fields = [(true, groups(|t| &t.host_regex)), (false, groups(|t| &t.path_regex))];
    let room = Room { sets: POLICY_REGEX_SETS_MAX, failures: POLICY_REGEX_SET_FAILURES_MAX, bytes: usize::MAX };
    let made = make(&fields, |of_host| *of_host, room);
    made.into_iter().map(|made| RegexSet { of_host: made.field, automaton: made.automaton, types: made.of }).collect()
}

/// Makes sets of the expressions that header tests have, at least one for each field that many ask.
pub fn build_of_headers(types: &[RequestType], texts: &[&str]) -> Vec<HeaderRegexSet> {
    let mut by_name: BTreeMap<String, Vec<Group<TestPlace>>> = BTreeMap::new();
    for (request_type, t) in types.iter().enumerate() {
        let tests = t.headers.iter().enumerate().take(POLICY_HEADER_TESTS_IN_TABLES);
        for (place, test) in tests.filter(|(_, test)| !test.regex.is_empty()) {
            let of = TestPlace { request_type: request_type as u16, place: place as u16 };
            let groups = by_name.entry(test.name.to_ascii_lowercase()).or_default();
            groups.push(Group { of, patterns: texts_of(&test.regex, texts) });
        }
    }
    let mut fields: Vec<(String, Vec<Group<TestPlace>>)> = by_name.into_iter().collect();
    // Those that gain most come first.
    fields.sort_by_key(|(_, groups)| Reverse(groups.len()));
    let room = Room {
        sets: POLICY_HEADER_SETS_MAX,
        failures: POLICY_REGEX_SET_FAILURES_MAX,
        bytes: POLICY_HEADER_SET_BYTES_MAX,
    };
    let made = make(&fields, |_| true, room);
    made.into_iter()
        .map(|made| HeaderRegexSet { name: made.field, automaton: made.automaton, tests: made.of })
        .collect()
}

fn texts_of<'a>(numbers: &[u32], texts: &[&'a str]) -> Vec<&'a str> {
    numbers.iter().filter_map(|number| texts.get(*number as usize).copied()).collect()
}

/// How many sets may be made, how often that may fail, and how large they may be together.
struct Room {
    sets: usize,
    failures: usize,
    bytes: usize,
}

/// A set of a field, and whose each expression is.
struct Made<Field, Of> {
    field: Field,
    automaton: Vec<u8>,
    of: Vec<Of>,
}

/// For each field one automaton for all, or two for the halves where that grows too large. The halves come after all fields, so that
/// one of which nothing fits does not take the room of the others.
fn make<Field: Clone, Of: Copy>(
    fields: &[(Field, Vec<Group<Of>>)],
    any_case: impl Fn(&Field) -> bool,
    mut room: Room,
) -> Vec<Made<Field, Of>> {
    let mut made: Vec<Made<Field, Of>> = Vec::new();
    let mut todo: VecDeque<(&Field, &[Group<Of>])> =
        fields.iter().map(|(field, groups)| (field, &groups[..])).collect();
    while let Some((field, groups)) = todo.pop_front() {
        let patterns: Vec<&str> = groups.iter().flat_map(|group| group.patterns.iter().copied()).collect();
        if patterns.len() < 2 || room.failures == 0 || made.len() >= room.sets {
            continue;
        }
        match PatternSet::build(&patterns, any_case(field)) {
            Some(automaton) if automaton.len() <= room.bytes => {
                room.bytes -= automaton.len();
                let of = groups.iter().flat_map(|group| group.patterns.iter().map(|_| group.of)).collect();
                made.push(Made { field: field.clone(), automaton, of });
            }
            Some(_) => {}
            None => {
                room.failures -= 1;
                if groups.len() > 1 {
                    let (first, second) = groups.split_at(groups.len() / 2);
                    todo.extend([(field, first), (field, second)]);
                }
            }
        }
    }
    made
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
