//! Where a snapshot file is cut into pieces, so that two snapshots that differ little share most of them.
//!
//! ```text
//! header | rest ........ | slots of the host table | its names | rest ...
//!   one  | by content    | by groups of slots      | by groups | by content
//! ```
//! The bulk of the host table is cut where its groups are, counted from its own start: what comes before it may grow. The rest is
//! cut where its content says so (a rolling hash), so that a line more in the document moves the cuts behind it along.

use super::Snapshot;
use super::bulk;
use super::header::HEADER_BYTES;
use super::hosts::GROUP_SLOTS;
use super::manifest::Entry;
use super::manifest::Kind;
use super::manifest::Pieces;
use super::manifest::hash_of;
use crate::base::breath::BREATH_STEP_BYTES;
use crate::base::breath::Breath;
use crate::limits::SNAPSHOT_PIECE_BYTES_MAX;
use crate::limits::SNAPSHOT_REST_PIECE_BYTES;

pub(super) fn cut(snapshot: &Snapshot) -> Pieces {
    let (body, archive) = (snapshot.body(), snapshot.archive.bytes());
    let bulk = bulk(body, archive);
    let group_ends = body.hosts.groups.iter().skip(1).map(|end| end.to_native() as usize);
    let slot_bytes = size_of::<super::hosts::ArchivedSlot>() * GROUP_SLOTS;
    let slots: Vec<usize> = (slot_bytes..bulk.slots.1 - bulk.slots.0).step_by(slot_bytes).collect();
    let names: Vec<usize> = group_ends.collect();
    let mut regions = [(bulk.slots, Kind::HostSlots, slots), (bulk.text, Kind::HostNames, names)];
    regions.sort_by_key(|(place, ..)| *place);

    let mut sections = vec![(Kind::Header, entries(&snapshot.header, &[HEADER_BYTES]))];
    let mut at = 0;
    for ((from, to), kind, cuts) in regions {
        let rest = &archive[at..from.max(at)];
        sections.push((Kind::Rest, entries(rest, &cuts_by_content(rest))));
        sections.push((kind, entries(&archive[from.max(at)..to.max(at)], &cuts)));
        at = to.max(at);
    }
    sections.push((Kind::Rest, entries(&archive[at..], &cuts_by_content(&archive[at..]))));
    sections.retain(|(_, entries)| !entries.is_empty());
    Pieces { sections }
}

/// The pieces of `bytes` that end at `ends` (ascending; the last end is that of the bytes, said or not). A stretch longer than any piece may
/// be becomes several.
fn entries(bytes: &[u8], ends: &[usize]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(ends.len() + 1);
    let (mut at, mut breath) = (0, Breath::start());
    for end in ends.iter().copied().chain([bytes.len()]) {
        let end = end.min(bytes.len());
        for piece in bytes[at..end.max(at)].chunks(SNAPSHOT_PIECE_BYTES_MAX) {
            entries.push(Entry { hash: hash_of(piece), length: piece.len() as u32 });
            breath.take();
        }
        at = end.max(at);
    }
    entries
}

/// Where `bytes` are cut by what they hold: behind a byte with which the hash of the last 64 bytes ends in zeros. Much is cut into larger
/// pieces, so that their number stays small.
fn cuts_by_content(bytes: &[u8]) -> Vec<usize> {
    let mean = (bytes.len() / 8192).next_power_of_two().clamp(SNAPSHOT_REST_PIECE_BYTES, SNAPSHOT_PIECE_BYTES_MAX / 4);
    let (least, most) = (mean / 4, mean * 4);
    // The upper bits of the hash have seen the most bytes.
    let mask = !(u64::MAX >> mean.trailing_zeros());
    let (mut cuts, mut began, mut hash) = (Vec::new(), 0, 0_u64);
    let (mut at, mut breath) = (0, Breath::start());
    for step in bytes.chunks(BREATH_STEP_BYTES) {
        for byte in step {
            at += 1;
            hash = (hash << 1).wrapping_add(GEAR[*byte as usize]);
            let length = at - began;
            if length >= most || (length >= least && hash & mask == 0) {
                cuts.push(at);
                began = at;
            }
        }
        breath.take();
    }
    cuts
}

/// A number without pattern for each byte (splitmix64).
static GEAR: [u64; 256] = {
    let (mut table, mut at, mut state) = ([0; 256], 0, 0_u64);
    while at < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::super::manifest::Place;
    use super::*;
    use crate::policy::Files;
    use crate::policy::compile;
    use std::collections::HashSet;

    fn snapshot(version: u64, rules: &str) -> Snapshot {
        let document = format!("{rules}[[categories]]\nname = \"big\"\nfiles = [\"big\"]\n");
        Snapshot::open(&compile(&document, version, &Many).unwrap()).unwrap()
    }

    /// A file of 30,000 hosts.
    struct Many;

    impl Files for Many {
        fn read(&self, _: &str, _: usize) -> Result<Vec<u8>, String> {
            Ok((0..30_000).map(|i| format!("host{i}.example.com\n")).collect::<String>().into_bytes())
        }
    }

    fn rule(name: &str) -> String {
        format!("[[access_profiles]]\nname = \"{name}\"\ncategories = [\"big\"]\naction = \"DENY\"\n")
    }

    #[test]
    fn the_pieces_are_the_file() {
        let empty = Snapshot::builtin();
        for snapshot in [snapshot(1, ""), empty] {
            let pieces = snapshot.pieces();
            let mut file = Vec::new();
            for (entry, place) in pieces.places() {
                let bytes = snapshot.piece(place).unwrap();
                assert_eq!((entry.hash, entry.length as usize), (hash_of(bytes), bytes.len()));
                file.extend_from_slice(bytes);
            }
            assert_eq!(file, snapshot.bytes());
            assert_eq!(pieces.length(), file.len() as u64);
            assert_eq!(snapshot.piece(Place { offset: file.len(), length: 1 }), None);
        }
    }

    #[test]
    fn a_rule_more_leaves_the_host_table_and_most_of_the_document_as_they_are() {
        let rules: String = (0..200).map(|i| rule(&format!("rule {i}"))).collect();
        let (one, two) = (snapshot(1, &rules), snapshot(2, &format!("{}{rules}", rule("a new first one"))));
        let held: HashSet<_> = one.pieces().places().map(|(entry, _)| entry.hash).collect();
        let (pieces, mut changed) = (two.pieces(), 0);
        for (kind, entries) in &pieces.sections {
            let news: usize = entries.iter().filter(|e| !held.contains(&e.hash)).map(|e| e.length as usize).sum();
            assert!(news == 0 || !matches!(kind, Kind::HostSlots | Kind::HostNames), "{kind:?}");
            changed += news;
        }
        assert!(changed * 5 < two.bytes().len(), "{changed} of {} bytes are new", two.bytes().len());
    }

    #[test]
    fn content_is_cut_at_the_same_places_wherever_it_lies() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (blake3::hash(&i.to_le_bytes())).as_bytes()[0]).collect();
        let shifted = [b"something before", &bytes[..]].concat();
        let of = |bytes: &[u8]| entries(bytes, &cuts_by_content(bytes)).iter().map(|e| e.hash).collect::<HashSet<_>>();
        let (one, two) = (of(&bytes), of(&shifted));
        assert!(
            one.len() > 50 && one.difference(&two).count() <= 2,
            "{} of {}",
            one.difference(&two).count(),
            one.len()
        );
    }
}
