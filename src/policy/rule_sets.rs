//! Which Access Profiles rules hold, 512 at a time. For each list of tags there is, per name, the set of rules that ask
//! for it and the set of rules that refuse it, and one set of rules that ask for none. A rule's conditions hold if it is
//! in what all lists leave over; the lowest number left is the next rule of the walk.
//!
//! Made from the rules when a snapshot is opened, not stored in it: a stored set could contradict its rule, and proving
//! that it does not costs as much as making it.

use super::decision::Bits;
use super::decision::ListKind;
use super::decision::Tags;
use super::snapshot::body::ArchivedAccessProfile;
use super::snapshot::body::ArchivedCondition;
use crate::limits::POLICY_NAMES_PER_LIST_MAX;

/// Words of a block. A cache line: less, and a walk through a thousand rules looks at more tags; more, and a walk that
/// ends at the first rule pays for rules it never reaches.
const BLOCK_WORDS: usize = 8;
pub const BLOCK_RULES: usize = BLOCK_WORDS * 64;

/// A set of rules whose numbers lie within one block.
pub type Block = [u64; BLOCK_WORDS];

/// The lists but profiles: these do not change while rules are walked.
const STEADY: [ListKind; 4] =
    [ListKind::TimeProfiles, ListKind::UserGroups, ListKind::RequestTypes, ListKind::Categories];

/// The rules of a policy, by what they ask for.
pub struct RuleSets {
    /// Rules that are switched on.
    enabled: Vec<Block>,
    /// As [`STEADY`].
    steady: [Dimension; 4],
    profiles: Dimension,
    nodes: Dimension,
    /// Names that `nodes` numbers, in lower case. A rule that names a node beyond the most a list may have passes here
    /// and is looked at by itself.
    node_names: Vec<String>,
}

impl RuleSets {
    /// Of a policy's rules, in their order.
    pub fn new(rules: &[ArchivedAccessProfile]) -> RuleSets {
        let blocks = rules.len().div_ceil(BLOCK_RULES);
        let mut enabled = vec![Block::default(); blocks];
        for (number, _) in rules.iter().enumerate().filter(|(_, rule)| rule.enabled) {
            insert(&mut enabled[number / BLOCK_RULES], number);
        }
        let by = |condition: fn(&ArchivedAccessProfile) -> &ArchivedCondition| {
            Dimension::new(rules.iter().map(|rule| asked(condition(rule))), blocks)
        };
        let steady = [
            by(|rule| &rule.time_profiles),
            by(|rule| &rule.user_groups),
            by(|rule| &rule.request_types),
            by(|rule| &rule.categories),
        ];
        let node_names = node_names(rules);
        let nodes = Dimension::new(rules.iter().map(|rule| asked_nodes(rule, &node_names)), blocks);
        RuleSets { enabled, steady, profiles: by(|rule| &rule.profiles), nodes, node_names }
    }

    /// A walk for a request with these tags on this node.
    #[inline]
    pub fn walk<'s>(&'s self, node: &str, tags: &Tags) -> RuleWalk<'s> {
        let mut tag = Bits::default();
        let known = self.node_names.iter().position(|name| name.eq_ignore_ascii_case(node));
        known.into_iter().for_each(|number| tag.insert(number));
        let (steady, profiles) = (Block::default(), Met::default());
        let mut walk = RuleWalk { sets: self, node: tag, block: 0, next: 0, steady, profiles };
        walk.enter(tags);
        walk
    }
}

/// A walk through the rules that hold.
pub struct RuleWalk<'s> {
    sets: &'s RuleSets,
    /// The number of the node, if a rule names it.
    node: Bits,
    block: usize,
    /// The next rule to look at, counted from the block's first.
    next: usize,
    /// Rules of this block that hold but for their profiles.
    steady: Block,
    /// What the request's profiles are to the rules of this block.
    profiles: Met,
}

impl RuleWalk<'_> {
    /// The next rule that holds for these tags.
    #[inline]
    pub fn next(&mut self, tags: &Tags) -> Option<usize> {
        while self.block < self.sets.enabled.len() {
            // Of the word that the walk stands in, rules before `next` are done.
            let mut todo = u64::MAX << (self.next % 64);
            for word in self.next / 64..BLOCK_WORDS {
                let hold = self.steady[word] & self.profiles.asked[word] & !self.profiles.refused[word] & todo;
                if hold != 0 {
                    let number = word * 64 + hold.trailing_zeros() as usize;
                    self.next = number + 1;
                    return Some(self.block * BLOCK_RULES + number);
                }
                todo = u64::MAX;
            }
            (self.block, self.next) = (self.block + 1, 0);
            self.enter(tags);
        }
        None
    }

    /// Told after a rule has changed the profiles from `before` to those of `tags`: rules below it may hold now, or no
    /// longer.
    #[inline]
    pub fn profiles_changed(&mut self, before: &Bits, tags: &Tags) {
        let (profiles, block) = (&self.sets.profiles, self.block);
        if before.without(&tags.profiles).is_empty() {
            profiles.meet(block, &tags.profiles.without(before), &mut self.profiles);
        } else {
            profiles.start(block, &mut self.profiles);
            profiles.meet(block, &tags.profiles, &mut self.profiles);
        }
    }

    /// Finds what holds in this block.
    #[inline]
    fn enter(&mut self, tags: &Tags) {
        let sets = self.sets;
        let Some(enabled) = sets.enabled.get(self.block) else { return };
        self.steady = *enabled;
        for (dimension, kind) in sets.steady.iter().zip(STEADY) {
            dimension.narrow(self.block, tags.of(kind), &mut self.steady);
        }
        sets.nodes.narrow(self.block, &self.node, &mut self.steady);
        sets.profiles.start(self.block, &mut self.profiles);
        sets.profiles.meet(self.block, &tags.profiles, &mut self.profiles);
    }
}

/// What a request's tags of one list are to the rules of a block.
#[derive(Clone, Copy, Default)]
struct Met {
    /// Rules that ask for one of the tags, or for none.
    asked: Block,
    /// Rules that refuse one of the tags.
    refused: Block,
}

/// What rules ask of one list of tags.
pub struct Dimension {
    /// No rule asks this list anything.
    idle: bool,
    /// Rules that name no tag of which one must be there.
    free: Vec<Block>,
    /// Tags that rules name.
    named: Bits,
    /// Where the rows of each named tag start.
    starts: Vec<u32>,
    /// For each named tag, block after block: the rules that ask for it and those that refuse it.
    rows: Vec<Met>,
}

impl Dimension {
    /// Of what each rule asks for and refuses.
    pub fn new(rules: impl Iterator<Item = (Bits, Bits)>, blocks: usize) -> Dimension {
        let mut dimension = Dimension {
            idle: true,
            free: vec![Block::default(); blocks],
            named: Bits::default(),
            starts: vec![0; POLICY_NAMES_PER_LIST_MAX],
            rows: Vec::new(),
        };
        for (number, (any, none)) in rules.enumerate() {
            if any.is_empty() {
                insert(&mut dimension.free[number / BLOCK_RULES], number);
            }
            any.iter().for_each(|tag| insert(&mut dimension.row(tag, number, blocks).asked, number));
            none.iter().for_each(|tag| insert(&mut dimension.row(tag, number, blocks).refused, number));
        }
        dimension.idle = dimension.named.is_empty();
        dimension
    }

    /// The row of a tag in the block of a rule.
    fn row(&mut self, tag: usize, rule: usize, blocks: usize) -> &mut Met {
        if !self.named.contains(tag) {
            self.named.insert(tag);
            self.starts[tag] = self.rows.len() as u32;
            self.rows.resize(self.rows.len() + blocks, Met::default());
        }
        &mut self.rows[self.starts[tag] as usize + rule / BLOCK_RULES]
    }

    /// Takes rules away whose condition does not hold for these tags.
    #[inline]
    pub fn narrow(&self, block: usize, tags: &Bits, rules: &mut Block) {
        if self.idle {
            return;
        }
        let mut met = Met::default();
        self.start(block, &mut met);
        self.meet(block, tags, &mut met);
        for (at, rules) in rules.iter_mut().enumerate() {
            *rules &= met.asked[at] & !met.refused[at];
        }
    }

    /// What no tags are to the rules of the block.
    #[inline(always)]
    fn start(&self, block: usize, met: &mut Met) {
        met.asked = self.free.get(block).copied().unwrap_or_default();
        met.refused = Block::default();
    }

    /// Adds what these tags are to the rules of the block.
    #[inline(always)]
    fn meet(&self, block: usize, tags: &Bits, met: &mut Met) {
        for (at, (named, tags)) in self.named.0.iter().zip(&tags.0).enumerate() {
            let mut rest = named & tags;
            while rest != 0 {
                let start =
                    self.starts.get(at * 64 + rest.trailing_zeros() as usize).map_or(0, |start| *start as usize);
                rest &= rest - 1;
                let Some(row) = self.rows.get(start + block) else { continue };
                for at in 0..BLOCK_WORDS {
                    met.asked[at] |= row.asked[at];
                    met.refused[at] |= row.refused[at];
                }
            }
        }
    }
}

/// Puts a rule into the set of its block.
pub fn insert(block: &mut Block, rule: usize) {
    block[rule % BLOCK_RULES / 64] |= 1 << (rule % 64);
}

/// What a condition asks for and refuses.
pub fn asked(condition: &ArchivedCondition) -> (Bits, Bits) {
    (Bits(condition.any.map(|word| word.to_native())), Bits(condition.none.map(|word| word.to_native())))
}

/// The first names of nodes that rules name, as many as a list of names may have.
fn node_names(rules: &[ArchivedAccessProfile]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for node in rules.iter().flat_map(|rule| rule.nodes.iter()) {
        let name = node.name.to_ascii_lowercase();
        if names.len() < POLICY_NAMES_PER_LIST_MAX && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The nodes a rule is for and not for, by their numbers; nothing if one of them has no number.
fn asked_nodes(rule: &ArchivedAccessProfile, names: &[String]) -> (Bits, Bits) {
    let (mut any, mut none) = (Bits::default(), Bits::default());
    for node in rule.nodes.iter() {
        let Some(number) = names.iter().position(|name| name.eq_ignore_ascii_case(&node.name)) else {
            return (Bits::default(), Bits::default());
        };
        if node.not { none.insert(number) } else { any.insert(number) }
    }
    (any, none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_rule_left_comes_next_and_changed_profiles_count_from_there_on() {
        let name = |number: usize| {
            let mut bits = Bits::default();
            bits.insert(number);
            bits
        };
        let rules = 1300;
        let mut enabled = vec![Block::default(); 3];
        (0..rules).filter(|rule| rule % 7 == 0).for_each(|rule| insert(&mut enabled[rule / BLOCK_RULES], rule));
        let nothing = || Dimension::new((0..rules).map(|_| (Bits::default(), Bits::default())), 3);
        let by_profile = (0..rules).map(|rule| match rule % 2 {
            0 => (Bits::default(), Bits::default()),
            _ => (name(200), name(3)),
        });
        let sets = RuleSets {
            enabled,
            steady: [nothing(), nothing(), nothing(), nothing()],
            profiles: Dimension::new(by_profile, 3),
            nodes: nothing(),
            node_names: Vec::new(),
        };
        let mut tags = Tags::default();
        let mut walk = sets.walk("any", &tags);
        let mut seen = Vec::new();
        while let Some(rule) = walk.next(&tags) {
            seen.push(rule);
            let before = tags.profiles;
            match rule {
                126 => tags.profiles.insert(200),
                1001 => tags.profiles.insert(3),
                _ => continue,
            }
            walk.profiles_changed(&before, &tags);
        }
        let expected: Vec<usize> =
            (0..rules).filter(|rule| rule % 7 == 0 && (rule % 2 == 0 || (*rule > 126 && *rule <= 1001))).collect();
        assert_eq!(seen, expected);
    }
}
