//! Which header tests hold for a request, without a look at one after the other. The tests of all request types are sorted by
//! the field they ask; for each field there is a table from what it may say to the set of tests that accept it. The
//! request's fields are gone through once, so that tests of fields it does not have cost it nothing.
//!
//! Made from the types when a snapshot is opened, but for the automata of regular expressions ([`super::regex_sets`]), which it
//! has with it.

use super::decision::Bits;
use super::facts::Facts;
use super::patterns::Pattern;
use super::regex_sets::HeaderSet;
use super::snapshot::body::ArchivedBody;
use super::snapshot::body::ArchivedHeaderTest;
use super::snapshot::body::ArchivedRequestType;
use super::text_finder::TextFinder;
use crate::limits::POLICY_HEADER_TESTS_IN_TABLES;
use crate::limits::POLICY_HEADER_TEXT_BYTES_MAX;
use crate::limits::POLICY_HEADER_TEXTS_MAX;
use crate::limits::POLICY_NAMES_PER_LIST_MAX;
use std::collections::BTreeMap;
use std::collections::HashMap;

/// A header test: which of which type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TestId {
    pub request_type: usize,
    /// Counted from 0.
    pub place: usize,
}

/// A set of header tests: for each place, the types whose test there is in it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Tests([Bits; POLICY_HEADER_TESTS_IN_TABLES]);

impl Tests {
    fn insert(&mut self, test: TestId) {
        self.0[test.place].insert(test.request_type);
    }

    fn contains(&self, test: TestId) -> bool {
        self.0[test.place].contains(test.request_type)
    }

    fn add(&mut self, other: &Tests) {
        self.0.iter_mut().zip(&other.0).for_each(|(all, more)| all.add(more));
    }
}

/// The header tests of a policy, by what they ask for.
pub struct HeaderTables {
    /// Types with header tests.
    types: Bits,
    /// The tests that are in tables.
    tests: Tests,
    /// Types with more tests than that.
    more: Bits,
    /// By the fields' names, of which `names` has as many, ascending.
    tables: Vec<FieldTable>,
    names: Vec<(usize, String)>,
    /// A bit for each length of a name that there is.
    lengths: u64,
}

/// Which fields of a request had a table: a field that comes again is not looked at.
#[derive(Default)]
struct Seen([Bits; POLICY_HEADER_TESTS_IN_TABLES]);

impl Seen {
    /// Whether it was there already.
    fn put(&mut self, table: usize) -> bool {
        let (part, number) = (table / POLICY_NAMES_PER_LIST_MAX, table % POLICY_NAMES_PER_LIST_MAX);
        let before = self.0[part].contains(number);
        self.0[part].insert(number);
        before
    }
}

impl HeaderTables {
    /// Of a policy's types, in their order, and the sets of their regular expressions for fields.
    pub fn new(types: &[ArchivedRequestType], sets: Vec<HeaderSet>) -> HeaderTables {
        let mut made = HeaderTables {
            types: Bits::default(),
            tests: Tests::default(),
            more: Bits::default(),
            tables: Vec::new(),
            names: Vec::new(),
            lengths: 0,
        };
        let mut by_name: BTreeMap<(usize, String), Vec<Asked>> = BTreeMap::new();
        for (request_type, t) in types.iter().enumerate().filter(|(_, t)| !t.headers.is_empty()) {
            made.types.insert(request_type);
            if t.headers.len() > POLICY_HEADER_TESTS_IN_TABLES {
                made.more.insert(request_type);
            }
            for (place, test) in t.headers.iter().enumerate().take(POLICY_HEADER_TESTS_IN_TABLES) {
                let id = TestId { request_type, place };
                made.tests.insert(id);
                by_name.entry((test.name.len(), test.name.to_ascii_lowercase())).or_default().push(Asked { id, test });
            }
        }
        let mut sets_of: HashMap<String, Vec<HeaderSet>> = HashMap::new();
        sets.into_iter().for_each(|set| sets_of.entry(set.name.clone()).or_default().push(set));
        let mut room = Room { texts: POLICY_HEADER_TEXTS_MAX, bytes: POLICY_HEADER_TEXT_BYTES_MAX };
        for (name, tests) in by_name {
            made.lengths |= length_bit(name.0);
            made.tables.push(FieldTable::new(&tests, sets_of.remove(&name.1).unwrap_or_default(), &mut room));
            made.names.push(name);
        }
        made
    }

    /// Takes away from `types` those with header tests that do not hold.
    #[inline]
    pub fn narrow(&self, facts: &Facts, body: &ArchivedBody, patterns: &[Pattern], types: &mut Bits) {
        if self.types.meets(types) {
            self.narrow_by_fields(facts, body, patterns, types);
        }
    }

    /// Apart, so that a policy without header tests has nothing of it on its way.
    #[inline(never)]
    fn narrow_by_fields(&self, facts: &Facts, body: &ArchivedBody, patterns: &[Pattern], types: &mut Bits) {
        let (mut held, mut seen) = (Tests::default(), Seen::default());
        facts.headers.each(&mut |name, value| {
            if let Some(number) = self.table_of(name)
                && !seen.put(number)
            {
                self.tables[number].find(value, types, &mut held, |test| {
                    let one = body.request_types.get(test.request_type).and_then(|t| t.headers.get(test.place));
                    one.is_some_and(|one| one.holds_for(value, patterns))
                });
            }
        });
        self.tests.0.iter().zip(&held.0).for_each(|(asked, held)| types.remove(&asked.without(held)));
        for number in self.more.common(types).iter() {
            if body.request_types.get(number).is_none_or(|t| t.headers_miss(facts, patterns).is_some()) {
                types.take(number);
            }
        }
    }

    #[inline]
    fn table_of(&self, name: &str) -> Option<usize> {
        if self.lengths & length_bit(name.len()) == 0 {
            return None;
        }
        let lower = || name.bytes().map(|byte| byte.to_ascii_lowercase());
        self.names
            .binary_search_by(|(length, known)| length.cmp(&name.len()).then_with(|| known.bytes().cmp(lower())))
            .ok()
    }
}

/// Names of 63 bytes and more share one.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// A test while tables are made.
struct Asked<'t> {
    id: TestId,
    test: &'t ArchivedHeaderTest,
}

/// How many texts may still go into tables, and how long they may be together.
struct Room {
    texts: usize,
    bytes: usize,
}

impl Room {
    /// Takes room for the texts of a test, if there is enough.
    fn take(&mut self, test: &ArchivedHeaderTest) -> bool {
        let texts = test.equals.len() + test.contains.len();
        let bytes = test.equals.iter().chain(test.contains.iter()).map(|text| text.len()).sum::<usize>();
        let enough = texts <= self.texts && bytes <= self.bytes;
        if enough {
            (self.texts, self.bytes) = (self.texts - texts, self.bytes - bytes);
        }
        enough
    }
}

/// The tests of one field.
struct FieldTable {
    types: Bits,
    /// Tests that any value passes.
    any: Tests,
    /// Lower-case values, ascending, each with its place in `answers`.
    equals: Vec<(Box<[u8]>, u32)>,
    /// Types that look for texts in the value.
    contains_types: Bits,
    contains: TextFinder,
    answers: Vec<Tests>,
    sets: Vec<HeaderSet>,
    /// Tests with regular expressions that are in no set, or with texts for which there was no room.
    alone: Vec<TestId>,
}

impl FieldTable {
    fn new(tests: &[Asked], sets: Vec<HeaderSet>, room: &mut Room) -> FieldTable {
        let (mut types, mut any, mut alone) = (Bits::default(), Tests::default(), Vec::new());
        let (mut equals, mut contains, mut contains_types) = (Texts::default(), Texts::default(), Bits::default());
        for Asked { id, test } in tests {
            types.insert(id.request_type);
            let in_set = test.regex.is_empty() || sets.iter().any(|set| set.tests.contains(id));
            if test.holds_for_any() {
                any.insert(*id);
            } else if !in_set || !room.take(test) {
                alone.push(*id);
            } else {
                test.equals.iter().for_each(|text| equals.add(text, *id));
                test.contains.iter().for_each(|text| contains.add(text, *id));
                if !test.contains.is_empty() {
                    contains_types.insert(id.request_type);
                }
            }
        }
        let mut answers = Answers::default();
        let equals = equals.0.into_iter().map(|(text, tests)| (text.into(), answers.number(tests))).collect();
        let (texts, tests): (Vec<Vec<u8>>, Vec<Tests>) = contains.0.into_iter().unzip();
        let texts: Vec<&[u8]> = texts.iter().map(|text| &text[..]).collect();
        let contains = TextFinder::new(&texts, |text, others| {
            let mut tests = tests[text];
            others.into_iter().for_each(|others| tests.add(&answers.all[others as usize]));
            answers.number(tests)
        });
        FieldTable { types, any, equals, contains_types, contains, answers: answers.all, sets, alone }
    }

    /// Adds to `held` the tests that `value` passes, as far as they are of `types`; `holds` looks at one by itself.
    #[inline]
    fn find(&self, value: &[u8], types: &Bits, held: &mut Tests, holds: impl Fn(TestId) -> bool) {
        if !self.types.meets(types) {
            return;
        }
        held.add(&self.any);
        let lower = || value.iter().map(|byte| byte.to_ascii_lowercase());
        if let Ok(at) = self.equals.binary_search_by(|(known, _)| known.iter().copied().cmp(lower())) {
            held.add(&self.answers[self.equals[at].1 as usize]);
        }
        if self.contains_types.meets(types) {
            self.contains.each_found(value, |answer| held.add(&self.answers[answer as usize]));
        }
        for set in self.sets.iter().filter(|set| set.types.meets(types)) {
            set.automaton.each_found(value, |pattern| held.insert(set.tests[pattern]));
        }
        for test in &self.alone {
            if types.contains(test.request_type) && !held.contains(*test) && holds(*test) {
                held.insert(*test);
            }
        }
    }
}

/// Lower-case texts and the tests that have them.
#[derive(Default)]
struct Texts(BTreeMap<Vec<u8>, Tests>);

impl Texts {
    fn add(&mut self, text: &str, test: TestId) {
        self.0.entry(text.to_ascii_lowercase().into_bytes()).or_default().insert(test);
    }
}

/// Sets of tests, each kept once.
#[derive(Default)]
struct Answers {
    all: Vec<Tests>,
    numbers: HashMap<Tests, u32>,
}

impl Answers {
    fn number(&mut self, tests: Tests) -> u32 {
        *self.numbers.entry(tests).or_insert_with(|| {
            self.all.push(tests);
            self.all.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Wall;
    use crate::limits::POLICY_HEADER_SET_BYTES_MAX;
    use crate::policy;
    use crate::policy::Headers;
    use crate::policy::NoFiles;
    use crate::policy::Scheme;
    use crate::policy::Snapshot;
    use proptest::prelude::*;

    /// Fields of any bytes.
    struct Said(Vec<(String, Vec<u8>)>);

    impl Headers for Said {
        fn value(&self, name: &str) -> Option<&[u8]> {
            self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..])
        }

        fn each(&self, field: &mut dyn FnMut(&str, &[u8])) {
            self.0.iter().for_each(|(name, value)| field(name, value));
        }
    }

    fn said(fields: &[(&str, &str)]) -> Said {
        Said(fields.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect())
    }

    fn facts(headers: &dyn Headers) -> Facts<'_> {
        Facts {
            client: [10, 1, 2, 3].into(),
            user: None,
            method: "GET",
            scheme: Scheme::Http,
            host: "www.example.com",
            port: 80,
            path: "/",
            headers,
            now: Wall(0),
            node: "edge-1",
        }
    }

    fn open(types: &[String]) -> Snapshot {
        let document = types.concat();
        let file = policy::compile(&document, 1, &NoFiles).unwrap_or_else(|complaints| panic!("{complaints:?}"));
        Snapshot::open(&file).unwrap()
    }

    fn a_type(number: usize, tests: &[String]) -> String {
        format!("[[request_types]]\nname = \"R{number}\"\nheaders = [{}]\n", tests.join(", "))
    }

    /// Compares with a look at one type after the other; returns which hold.
    fn as_one_by_one(snapshot: &Snapshot, headers: &dyn Headers) -> Vec<usize> {
        let facts = facts(headers);
        let found = snapshot.types().of(&facts, snapshot.body(), snapshot.patterns());
        let types = snapshot.body().request_types.iter().enumerate();
        let holding = types.filter(|(_, t)| t.miss(&facts, snapshot.patterns()).is_none()).map(|(number, _)| number);
        let holding: Vec<usize> = holding.collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), holding);
        holding
    }

    fn tables(snapshot: &Snapshot) -> HeaderTables {
        let types = &snapshot.body().request_types;
        let sets = snapshot.body().header_sets.iter().map(|set| HeaderSet::load(set, types).unwrap());
        HeaderTables::new(types, sets.collect())
    }

    fn names() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["X-A", "x-a", "X-B", "X-C1", "x-c1", "X-D"]).prop_map(str::to_string)
    }

    fn a_test() -> impl Strategy<Value = String> {
        let list = |text: &'static str| prop_oneof![Just(Vec::new()), prop::collection::vec(text, 1..4)];
        let regex = prop_oneof!["[ab]{1,3}", "\\^[ab]", "[ab]\\$", "\\[\\^a\\]b", "a\\.\\*b", Just("^$".to_string()),];
        let regexes = prop_oneof![Just(Vec::new()), prop::collection::vec(regex, 1..4)];
        (names(), list("[abA ]{0,3}"), list("[abB\u{e9}]{0,3}"), regexes).prop_map(|(name, equals, contains, regex)| {
            let lists = [("equals", equals), ("contains", contains), ("regex", regex)];
            let lists = lists.iter().filter(|(_, texts)| !texts.is_empty());
            let lists: String = lists.map(|(key, texts)| format!(", {key} = {texts:?}")).collect();
            format!("{{ name = '{name}'{lists} }}")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        #[test]
        fn tests_hold_by_tables_as_they_do_one_by_one(
            types in prop::collection::vec(prop::collection::vec(a_test(), 1..7), 1..20),
            requests in prop::collection::vec(
                prop::collection::vec(
                    (names(), prop::collection::vec(prop::sample::select(b"aabbAB \0\xc3\xa9\xff".to_vec()), 0..12)),
                    0..6,
                ),
                20,
            ),
        ) {
            let types: Vec<String> = types.iter().enumerate().map(|(number, tests)| a_type(number, tests)).collect();
            let snapshot = open(&types);
            for fields in requests {
                as_one_by_one(&snapshot, &Said(fields));
            }
        }
    }

    #[test]
    fn what_fits_no_table_is_looked_at_by_itself() {
        let mut types = Vec::new();
        for number in 0..20 {
            // Each remembers nine bytes: small by itself, too large together.
            let letter = char::from(b'a' + number as u8);
            types.push(a_type(number, &[format!("{{ name = 'X-R', regex = ['{letter}.{{8}}x'] }}")]));
        }
        for number in 20..24 {
            let texts: Vec<String> = (0..4000).map(|at| format!("text {number}.{at}.")).collect();
            types.push(a_type(number, &[format!("{{ name = 'X-T', contains = {texts:?} }}")]));
        }
        let long = "l".repeat(POLICY_HEADER_TEXT_BYTES_MAX / 8 - 64);
        for number in 24..36 {
            let key = if number % 2 == 0 { "equals" } else { "contains" };
            types.push(a_type(number, &[format!("{{ name = 'X-Z', {key} = ['{number}{long}'] }}")]));
        }
        let six: Vec<String> = (0..6).map(|at| format!("{{ name = 'X-S', contains = ['{at}'] }}")).collect();
        types.push(a_type(36, &six));
        let snapshot = open(&types);
        let tables = tables(&snapshot);
        let alone = |name: &str| tables.tables[tables.table_of(name).unwrap()].alone.len();
        assert!((1..=20).contains(&alone("x-r")), "{}", alone("x-r"));
        assert_eq!(alone("x-t"), 2, "two lists of 4,000 fit");
        assert!((1..12).contains(&alone("x-z")), "{}", alone("x-z"));
        assert!(tables.more.contains(36));

        let holding = |fields: &[(&str, &str)]| as_one_by_one(&snapshot, &said(fields));
        assert_eq!(holding(&[]), [0; 0]);
        assert_eq!(holding(&[("X-R", "--abcdefghix")]), [0]);
        assert_eq!(holding(&[("x-r", "abbtefghixxXyt........x")]), [0, 1, 19]);
        for number in 20..24 {
            assert_eq!(holding(&[("X-T", &format!("a TEXT {number}.3999. more"))]), [number]);
        }
        for number in 24..36 {
            let found = holding(&[("X-Z", &format!("{number}{long}"))]);
            assert_eq!(found, [number]);
            assert_eq!(holding(&[("X-Z", &format!("-{number}{long}-"))]).len(), number % 2);
        }
        assert_eq!(holding(&[("X-S", "012345")]), [36]);
        assert_eq!(holding(&[("X-S", "01234")]), [0; 0]);
        assert_eq!(holding(&[("X-S", "12345")]), [0; 0]);
    }

    #[test]
    fn each_field_has_one_table_whatever_the_case_and_is_seen_once() {
        let test = |name: &str| format!("{{ name = '{name}', regex = ['a.{{8}}x', 'b'] }}");
        let types: Vec<String> = (0..250).map(|number| a_type(number, &[test(&format!("X-{number}"))])).collect();
        let tables = tables(&open(&types));
        let asked = ["X-7", "x-7", "X-249", "X-250", "Y-7", ""];
        let known = asked.iter().filter_map(|name| tables.table_of(name)).map(|at| &tables.names[at].1);
        assert_eq!(known.collect::<Vec<_>>(), ["x-7", "x-7", "x-249"]);
        let mut seen = Seen::default();
        let last = POLICY_NAMES_PER_LIST_MAX * POLICY_HEADER_TESTS_IN_TABLES - 1;
        for number in [0, 255, 256, last] {
            assert!(!seen.put(number) && seen.put(number), "{number}");
        }
    }

    #[test]
    fn five_thousand_texts_and_expressions_take_the_memory_that_the_bounds_say() {
        let texts = |word: &str, number: usize| -> Vec<String> {
            (0..8).map(|at| format!("{word} {number}.{at} of many")).collect()
        };
        let types: Vec<String> = (0..250)
            .map(|number| {
                let (equals, contains) = (texts("value", number), texts("part", number));
                let regex = [
                    format!("^Robot{number}/[0-9.]+"),
                    format!("Version-{number}[a-z]*"),
                    format!("(spider|crawler){number}[.]"),
                    format!("{number}[.]x$"),
                ];
                let name = number % 5;
                let test =
                    format!("{{ name = 'X-{name}', equals = {equals:?}, contains = {contains:?}, regex = {regex:?} }}");
                a_type(number, &[test])
            })
            .collect();
        let snapshot = open(&types);
        let sets = snapshot.body().header_sets.iter().map(|set| set.automaton.len()).sum::<usize>();
        assert!(sets <= POLICY_HEADER_SET_BYTES_MAX, "{sets}");
        let tables = tables(&snapshot);
        assert!(tables.tables.iter().all(|table| table.alone.is_empty()), "all of it is in tables");
        let finders = tables.tables.iter().map(|table| table.contains.bytes()).sum::<usize>();
        let answers = tables.tables.iter().map(|table| size_of_val(&table.answers[..])).sum::<usize>();
        let values =
            tables.tables.iter().flat_map(|table| &table.equals).map(|(text, _)| text.len() + 32).sum::<usize>();
        let bytes: usize = 250 * 16 * "value 249.7 of many".len();
        assert!(finders + answers + values <= 13 * bytes + 160 * 4000 + 5 * 1100, "{finders} {answers} {values}");
        for (field, value, numbers) in [
            ("x-4", "a PART 249.7 OF MANY", &[249][..]),
            ("X-3", "VALUE 103.0 of many", &[103]),
            ("X-0", "-spiDER245.-", &[245]),
            ("X-2", "robot7/1 part 12.0 of many", &[7, 12]),
        ] {
            assert_eq!(as_one_by_one(&snapshot, &said(&[(field, value)])), numbers, "{field}: {value}");
        }
    }
}
