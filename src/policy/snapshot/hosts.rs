//! Which categories (or request types) a host is in: a hash table over host names, read in place, that finds a host and every domain above
//! it in one pass from the end of the name to its start.

use super::body::Words;
use crate::base::breath::Breath;
use crate::limits::HOST_BYTES_MAX;
use crate::limits::HOST_PROBES_MAX;
use crate::policy::decision::Bits;
use rkyv::Archive;
use rkyv::Serialize;
use std::collections::HashMap;

/// How many slots share a stretch of the text. Names lie in the order of their slots, and their offsets count from the stretch of
/// their group: one host more or less changes one stretch of slots and one of text, whatever millions there are beside it
/// ([`super::cut`] makes pieces of exactly these stretches).
pub const GROUP_SLOTS: usize = 2048;
/// How many slots are checked between two looks at the clock: some 30 microseconds.
const CHECK_STEP_SLOTS: usize = 8 * GROUP_SLOTS;

/// The table. `slots` is a power of two long (or empty) and at most half full.
#[derive(Archive, Serialize, Default)]
pub struct Hosts {
    pub seed: u64,
    pub slots: Vec<Slot>,
    pub text: Vec<u8>,
    /// Where in the text the names of each [`GROUP_SLOTS`] slots begin.
    pub groups: Vec<u32>,
    /// The most frequent first, so that a new combination of a few hosts does not renumber that of millions.
    pub sets: Vec<Words>,
}

/// A host at `offset` of its group's text; `len` 0 is a free slot.
#[derive(Archive, Serialize, Clone, Copy, Default)]
pub struct Slot {
    pub offset: u32,
    pub set: u16,
    pub len: u8,
    /// Bit 0: the name itself only, not what lies under it. The others: bits of the hash, so that a stranger in the
    /// same place seldom costs a look at the text.
    pub mark: u8,
}

/// Hosts on their way into a table.
#[derive(Default)]
pub struct HostsBuilder {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    offset: u32,
    category: u16,
    len: u8,
    exact: bool,
}

impl HostsBuilder {
    /// Puts `host` (valid, lowercase, at most [`HOST_BYTES_MAX`]) into `category`; unless `exact`, all under it too.
    pub fn add(&mut self, host: &str, exact: bool, category: usize) {
        let (Ok(offset), Ok(len)) = (u32::try_from(self.text.len()), u8::try_from(host.len())) else {
            return;
        };
        self.text.extend_from_slice(host.as_bytes());
        self.entries.push(Entry { offset, category: category as u16, len, exact });
    }

    /// How many hosts were added.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The table, or what is wrong.
    pub fn build(self) -> Result<Hosts, &'static str> {
        if self.entries.is_empty() {
            return Ok(Hosts::default());
        }
        for seed in 0..8_u64 {
            let mut table = Table::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), &self.text, self.entries.len());
            if self.entries.iter().try_for_each(|entry| table.insert(*entry)).is_ok() {
                table.number_sets_by_frequency();
                return Ok(table.in_order_of_slots());
            }
        }
        Err("hosts collide too often, or lie in too many different combinations")
    }
}

struct Table<'t> {
    seed: u64,
    text: &'t [u8],
    slots: Vec<Slot>,
    sets: Vec<Words>,
    /// (set, category added) -> the set that results.
    grown: HashMap<(u16, u16), u16>,
}

impl<'t> Table<'t> {
    fn new(seed: u64, text: &'t [u8], hosts: usize) -> Self {
        let slots = vec![Slot::default(); (hosts * 2).next_power_of_two().max(8)];
        Table { seed, text, slots, sets: vec![Words::default()], grown: HashMap::new() }
    }

    fn insert(&mut self, entry: Entry) -> Result<(), ()> {
        let host = &self.text[entry.offset as usize..][..entry.len as usize];
        let hash = finish(host.iter().rev().fold(start(self.seed), |hash, byte| step(hash, *byte)), entry.exact);
        let (mask, mark) = (self.slots.len() - 1, mark(hash, entry.exact));
        for probe in 0..HOST_PROBES_MAX {
            let at = (hash as usize + probe) & mask;
            let slot = self.slots[at];
            if slot.len == 0 {
                let set = self.grow(0, entry.category).ok_or(())?;
                self.slots[at] = Slot { offset: entry.offset, set, len: entry.len, mark };
                return Ok(());
            }
            let same = slot.mark == mark && &self.text[slot.offset as usize..][..slot.len as usize] == host;
            if same {
                self.slots[at].set = self.grow(slot.set, entry.category).ok_or(())?;
                return Ok(());
            }
        }
        Err(())
    }

    /// The number of the set that has `category` beside all of `set`.
    fn grow(&mut self, set: u16, category: u16) -> Option<u16> {
        if let Some(known) = self.grown.get(&(set, category)) {
            return Some(*known);
        }
        let mut bits = Bits(self.sets[set as usize]);
        bits.insert(category as usize);
        let number = match self.sets.iter().position(|known| *known == bits.0) {
            Some(known) => known,
            None => {
                self.sets.push(bits.0);
                self.sets.len() - 1
            }
        };
        let number = u16::try_from(number).ok()?;
        self.grown.insert((set, category), number);
        Some(number)
    }

    fn number_sets_by_frequency(&mut self) {
        let mut counts = vec![0_usize; self.sets.len()];
        self.slots.iter().filter(|slot| slot.len != 0).for_each(|slot| counts[slot.set as usize] += 1);
        let mut order: Vec<usize> = (0..self.sets.len()).filter(|set| counts[*set] > 0).collect();
        // By the magnitude alone: of two sets that are nearly as frequent, one host more must not make the other the first.
        order.sort_by_key(|set| (std::cmp::Reverse(counts[*set].ilog2()), self.sets[*set]));
        let mut numbers = vec![0_u16; self.sets.len()];
        order.iter().enumerate().for_each(|(number, set)| numbers[*set] = number as u16);
        self.slots.iter_mut().filter(|slot| slot.len != 0).for_each(|slot| slot.set = numbers[slot.set as usize]);
        self.sets = order.iter().map(|set| self.sets[*set]).collect();
    }

    /// The finished table, its names in the order of their slots.
    fn in_order_of_slots(self) -> Hosts {
        let mut slots = self.slots;
        let mut text = Vec::with_capacity(self.text.len());
        let mut groups = Vec::with_capacity(slots.len().div_ceil(GROUP_SLOTS));
        for group in slots.chunks_mut(GROUP_SLOTS) {
            let begins = text.len();
            groups.push(begins as u32);
            for slot in group.iter_mut().filter(|slot| slot.len != 0) {
                let name = &self.text[slot.offset as usize..][..slot.len as usize];
                slot.offset = (text.len() - begins) as u32;
                text.extend_from_slice(name);
            }
        }
        Hosts { seed: self.seed, slots, text, groups, sets: self.sets }
    }
}

impl ArchivedHosts {
    /// The categories of `host`: those of its own entries and of every domain above it.
    #[inline]
    pub fn find(&self, host: &[u8]) -> Bits {
        let mut found = Bits::default();
        if self.slots.is_empty() || host.len() > HOST_BYTES_MAX {
            return found;
        }
        let mut hash = start(self.seed.to_native());
        for (at, byte) in host.iter().enumerate().rev() {
            // What was hashed so far is a domain above the host, unless nothing was.
            if *byte == b'.' && at + 1 < host.len() {
                self.probe(hash, &host[at + 1..], false, &mut found);
            }
            hash = step(hash, *byte);
        }
        if !host.is_empty() {
            self.probe(hash, host, false, &mut found);
        }
        self.probe(hash, host, true, &mut found);
        found
    }

    #[inline]
    fn probe(&self, hash: u64, name: &[u8], exact: bool, found: &mut Bits) {
        let hash = finish(hash, exact);
        let (mask, mark) = (self.slots.len() - 1, mark(hash, exact));
        for probe in 0..HOST_PROBES_MAX {
            let at = (hash as usize + probe) & mask;
            let slot = &self.slots[at];
            if slot.len == 0 {
                return;
            }
            if slot.mark == mark && self.text_of(at, slot) == Some(name) {
                if let Some(set) = self.sets.get(slot.set.to_native() as usize) {
                    found.add(&Bits(set.map(|word| word.to_native())));
                }
                return;
            }
        }
    }

    /// The name in `slot`, which stands at `at`.
    fn text_of(&self, at: usize, slot: &ArchivedSlot) -> Option<&[u8]> {
        let offset = self.groups.get(at / GROUP_SLOTS)?.to_native() as usize + slot.offset.to_native() as usize;
        self.text.get(offset..offset + slot.len as usize)
    }

    /// How many hosts the table holds (a host in several categories counts once).
    pub fn count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.len != 0).count()
    }

    /// What an archive must hold so that every lookup ends and finds its texts.
    pub fn check(&self, categories: usize) -> Result<(), &'static str> {
        self.check_sets(categories)?;
        self.check_slots()
    }

    /// The part of it that looks at every slot. A lookup in a table for which it does not hold ends too, and finds less.
    pub fn check_slots(&self) -> Result<(), &'static str> {
        let inside = |at: usize, slot: &ArchivedSlot| {
            slot.len == 0 || (self.text_of(at, slot).is_some() && (slot.set.to_native() as usize) < self.sets.len())
        };
        let mut breath = Breath::start();
        for (step, slots) in self.slots.chunks(CHECK_STEP_SLOTS).enumerate() {
            let first = step * CHECK_STEP_SLOTS;
            if !slots.iter().enumerate().all(|(at, slot)| inside(first + at, slot)) {
                return Err("an entry of the host table");
            }
            breath.take();
        }
        Ok(())
    }

    /// The other part.
    pub fn check_sets(&self, categories: usize) -> Result<(), &'static str> {
        let slots = self.slots.len();
        if slots != 0 && !slots.is_power_of_two() {
            return Err("the host table's size");
        }
        if self.groups.len() != slots.div_ceil(GROUP_SLOTS) {
            return Err("the host table's groups");
        }
        let named = |set: &rkyv::Archived<Words>| Bits(set.map(|w| w.to_native())).iter().all(|bit| bit < categories);
        if self.sets.iter().all(named) { Ok(()) } else { Err("a set of the host table") }
    }
}

fn start(seed: u64) -> u64 {
    0xcbf2_9ce4_8422_2325 ^ seed
}

/// One byte of FNV-1a: a suffix's hash is the way to the next longer one, which is why names are hashed backwards.
fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// FNV's low bits are poor; a table index needs good ones.
fn finish(hash: u64, exact: bool) -> u64 {
    let mut mixed = hash ^ if exact { 0xa076_1d64_78bd_642f } else { 0 };
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn mark(hash: u64, exact: bool) -> u8 {
    (hash >> 56) as u8 & 0xfe | u8::from(exact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::archive::Verified;

    fn archived(builder: HostsBuilder) -> Verified<Hosts> {
        let hosts = builder.build().unwrap();
        Verified::check(&rkyv::to_bytes::<rkyv::rancor::Error>(&hosts).unwrap()).unwrap()
    }

    #[test]
    fn a_host_has_the_categories_of_its_entries_and_of_every_domain_above_it() {
        let mut builder = HostsBuilder::default();
        builder.add("example.com", false, 1);
        builder.add("news.example.com", false, 2);
        builder.add("exact.example.org", true, 3);
        builder.add("example.com", false, 4);
        let table = archived(builder);
        assert_eq!(table.get().check(5), Ok(()));
        assert!(table.get().check(4).is_err(), "a bit without a name is refused");
        for (host, categories) in [
            ("example.com", &[1, 4][..]),
            ("www.example.com", &[1, 4]),
            ("a.b.news.example.com", &[1, 2, 4]),
            ("badexample.com", &[]),
            ("com", &[]),
            ("", &[]),
            (".", &[]),
            ("example.com.", &[]),
            ("exact.example.org", &[3]),
            ("sub.exact.example.org", &[]),
        ] {
            assert_eq!(table.get().find(host.as_bytes()).iter().collect::<Vec<_>>(), categories, "{host}");
        }
        let long = "a.".repeat(200) + "example.com";
        assert!(table.get().find(long.as_bytes()).is_empty(), "longer than any host name");
    }

    #[test]
    fn one_host_more_changes_one_group_of_slots_and_the_names_of_that_group_alone() {
        let host = |i: usize| format!("host{i}.example{}.com", i % 997);
        let table = |without: Option<usize>| {
            let mut builder = HostsBuilder::default();
            (0..60_000).filter(|i| Some(*i) != without).for_each(|i| builder.add(&host(i), false, 1 + i % 2));
            builder.build().unwrap()
        };
        let whole = table(None);
        for without in [0, 30_000, 59_999] {
            let less = table(Some(without));
            let pairs = whole.slots.chunks(GROUP_SLOTS).zip(less.slots.chunks(GROUP_SLOTS));
            let bytes = |slots: &[Slot]| slots.iter().map(|s| (s.offset, s.set, s.len, s.mark)).collect::<Vec<_>>();
            let changed = pairs.filter(|(a, b)| bytes(a) != bytes(b)).count();
            assert!(changed <= 2, "{changed} of {} groups of slots", whole.groups.len());
            let names = |hosts: &Hosts| -> Vec<Vec<u8>> {
                let ends = hosts.groups.iter().skip(1).copied().chain([hosts.text.len() as u32]);
                hosts.groups.iter().zip(ends).map(|(a, b)| hosts.text[*a as usize..b as usize].to_vec()).collect()
            };
            let changed = names(&whole).iter().zip(names(&less)).filter(|(a, b)| **a != *b).count();
            assert!(changed <= 2, "{changed} of {} groups of names", whole.groups.len());
        }
    }
}
