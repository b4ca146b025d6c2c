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
        if !self.types.meets(types) {
            return;
        }
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
                test.contains.iter().for_each(|_| contains_types.insert(id.request_type));
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
