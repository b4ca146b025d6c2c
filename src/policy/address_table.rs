//! Which entry of Access Restriction holds for a client, without a look at one after the other: stretches of addresses for
//! which the same entry is the first that holds. Made from the entries when a snapshot is opened (see [`super::rule_sets`] for
//! why); [`ArchivedAccess::admit`] says what must come out.

use super::compile::builder;
use super::snapshot::body::ArchivedAccess;
use super::snapshot::body::ArchivedAccessEntry;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The entries by the addresses they hold for.
pub struct AddressTable {
    v4: Stretches,
    v6: Stretches,
}

/// The first address of each stretch, ascending from 0, and the entry that holds there: its number in the deny list, or behind
/// that in the allow list.
#[derive(Default)]
struct Stretches {
    firsts: Vec<u128>,
    entries: Vec<u32>,
}

/// No entry: the default policy.
const NONE: u32 = u32::MAX;

impl AddressTable {
    /// Of a policy's entries, in their order.
    pub fn new(access: &ArchivedAccess) -> AddressTable {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (number, entry) in access.deny.iter().chain(access.allow.iter()).enumerate() {
            for range in entry.addresses.iter().filter(|_| entry.enabled) {
                let edges = if range.v4 { &mut v4 } else { &mut v6 };
                let (first, last) = (range.first.to_native(), range.last.to_native());
                if first > last {
                    continue;
                }
                edges.push((first, number as u32, 1));
                // Behind the last address there is nothing.
                edges.extend(last.checked_add(1).map(|behind| (behind, number as u32, -1)));
            }
        }
        AddressTable { v4: Stretches::of(v4), v6: Stretches::of(v6) }
    }

    /// The entry that decides about `client`, and whether it admits it; nothing if the default policy does.
    #[inline]
    pub fn find<'s>(&self, access: &'s ArchivedAccess, client: IpAddr) -> Option<(&'s ArchivedAccessEntry, bool)> {
        let (address, v4) = builder::number(client);
        let number = if v4 { &self.v4 } else { &self.v6 }.find(address) as usize;
        match number.checked_sub(access.deny.len()) {
            None => access.deny.get(number).map(|entry| (entry, false)),
            Some(allowed) => access.allow.get(allowed).map(|entry| (entry, true)),
        }
    }
}

impl Stretches {
    /// Of the places where an entry begins (+1) to hold and where it ends (-1).
    fn of(mut edges: Vec<(u128, u32, i32)>) -> Stretches {
        edges.sort_unstable();
        let mut holding: BTreeMap<u32, i32> = BTreeMap::new();
        let mut stretches = Stretches { firsts: vec![0], entries: vec![NONE] };
        for (address, entry, change) in edges {
            let depth = holding.entry(entry).or_default();
            *depth += change;
            if *depth == 0 {
                holding.remove(&entry);
            }
            stretches.from(address, holding.keys().next().copied().unwrap_or(NONE));
        }
        stretches
    }

    /// From this address on, which is not before the last one, this entry holds.
    fn from(&mut self, address: u128, entry: u32) {
        if self.firsts.last() == Some(&address) {
            self.firsts.pop();
            self.entries.pop();
        }
        if self.entries.last() != Some(&entry) {
            self.firsts.push(address);
            self.entries.push(entry);
        }
    }

    #[inline]
    fn find(&self, address: u128) -> u32 {
        let behind = self.firsts.partition_point(|first| *first <= address);
        behind.checked_sub(1).and_then(|at| self.entries.get(at)).copied().unwrap_or(NONE)
    }
}

#[cfg(test)]
mod tests {
    use crate::policy;
    use crate::policy::NoFiles;
    use crate::policy::Snapshot;
    use proptest::prelude::*;
    use std::net::IpAddr;

    /// Networks and addresses that overlap, touch, and lie at the ends of what there is.
    fn any_addresses() -> impl Strategy<Value = String> {
        prop_oneof![
            (0u8..4, 20u32..=32).prop_map(|(third, bits)| {
                let address = u32::from_be_bytes([10, 0, third, 0x55]) & (u32::MAX << (32 - bits));
                format!("{}/{bits}", std::net::Ipv4Addr::from(address))
            }),
            (0u8..4, 0u8..=255, 0u8..=255).prop_map(|(third, a, b)| format!(
                "10.0.{third}.{}-10.0.{third}.{}",
                a.min(b),
                a.max(b)
            )),
            (0u16..6).prop_map(|last| format!("2001:db8::{last}")),
            (120u8..=128).prop_map(|bits| format!("2001:db8::/{bits}")),
            Just("255.255.255.255".to_string()),
            Just("0.0.0.0/0".to_string()),
            Just("::/0".to_string()),
            Just("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124".to_string()),
        ]
    }

    fn any_entry() -> impl Strategy<Value = String> {
        let list = prop_oneof![Just("deny"), Just("allow")];
        (list, prop::collection::vec(any_addresses(), 1..4), prop::bool::weighted(0.9)).prop_map(
            |(list, addresses, enabled)| {
                format!("[[access_restriction.{list}]]\naddresses = {addresses:?}\nenabled = {enabled}\n")
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

        #[test]
        fn the_table_finds_the_entry_that_a_walk_through_the_lists_finds(
            entries in prop::collection::vec(any_entry(), 0..12),
            thirds in prop::collection::vec((0u8..5, any::<u8>()), 20),
        ) {
            let document = format!("[access_restriction]\ndefault = \"allow\"\n{}", entries.concat());
            let file = policy::compile(&document, 1, &NoFiles).unwrap_or_else(|complaints| panic!("{complaints:?}\n{document}"));
            let snapshot = Snapshot::open(&file).unwrap();
            let four = thirds.iter().map(|(third, last)| IpAddr::from([10, 0, *third, *last]));
            let six = (0..20).map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
            let ends = ["0.0.0.0", "9.255.255.255", "10.0.4.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
            let ends = ends.into_iter().map(|text| text.parse::<IpAddr>().unwrap());
            for client in four.chain(six).chain(ends) {
                let walked = snapshot.body().access.admit(client);
                let found = snapshot.admission(client);
                prop_assert_eq!((found.rule, found.admitted), (walked.rule, walked.admitted), "{} under\n{}", client, document);
                prop_assert_eq!(found.entry.is_some(), walked.entry.is_some());
            }
        }
    }
}
