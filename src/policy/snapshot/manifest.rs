//! The manifest of a snapshot: its pieces by hash, as a tree, so that the list of a million pieces need not be sent to tell that one of them
//! is another. Format: `docs/formats/snapshot-manifest.md`.
//!
//! ```text
//! manifest (signed) -> top of each section -> nodes (pieces that hold entries) -> pieces of the file
//! ```

use crate::base::breath::Breath;
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::limits::SNAPSHOT_PIECE_BYTES_MAX;
use crate::limits::SNAPSHOT_PIECES_MAX;
use std::fmt;

/// BLAKE3 of a piece.
pub type PieceHash = [u8; 32];

/// The format this build writes and reads.
pub const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"TIDEMAN\n";
const LIST_MAGIC: [u8; 8] = *b"TIDEPCS\n";
/// Entries of a node, and of a section's top.
pub const FAN_OUT: usize = 128;
const ENTRY_BYTES: usize = 36;
const SECTIONS_MAX: usize = 8;
const DEPTH_MAX: u8 = 3;

/// A piece, of the file or of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Of its bytes.
    pub hash: PieceHash,
    /// How many they are.
    pub length: u32,
}

/// Where in the file a piece lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From here.
    pub offset: usize,
    /// So many bytes.
    pub length: usize,
}

/// A snapshot file in pieces, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Each section with its pieces.
    pub sections: Vec<(Kind, Vec<Entry>)>,
}

impl Pieces {
    /// Every piece with its place.
    pub fn places(&self) -> impl Iterator<Item = (Entry, Place)> {
        self.sections.iter().flat_map(|(_, entries)| entries).scan(0, |at, entry| {
            let place = Place { offset: *at, length: entry.length as usize };
            *at += place.length;
            Some((*entry, place))
        })
    }

    /// Bytes of the whole file.
    pub fn length(&self) -> u64 {
        self.sections.iter().flat_map(|(_, entries)| entries).map(|entry| u64::from(entry.length)).sum()
    }

    /// As they are noted beside a file that is not whole yet.
    pub fn list(&self) -> Vec<u8> {
        let mut bytes = LIST_MAGIC.to_vec();
        for (kind, entries) in &self.sections {
            bytes.push(kind.number());
            bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&write_entries(entries));
        }
        bytes
    }

    /// Reads what [`Pieces::list`] wrote. Whether the pieces are what it says is seen by their hashes.
    pub fn read_list(bytes: &[u8]) -> Result<Pieces, BadManifest> {
        let mut reader = Reader(bytes);
        if reader.take::<8>()? != LIST_MAGIC {
            return Err(BadManifest("a list of pieces does not begin as one does"));
        }
        let mut pieces = Pieces::default();
        while !reader.0.is_empty() {
            let [kind] = reader.take()?;
            let count = u32::from_le_bytes(reader.take()?) as usize;
            if count > SNAPSHOT_PIECES_MAX {
                return Err(BadManifest("it has too many pieces"));
            }
            let entries = (0..count).map(|_| reader.entry(true)).collect::<Result<Vec<_>, _>>()?;
            pieces.sections.push((Kind::of(kind)?, entries));
        }
        Ok(pieces)
    }
}

/// What a section of the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The header.
    Header,
    /// What is neither of the others: rules, names, the document.
    Rest,
    /// Slots of the categories' host table.
    HostSlots,
    /// Its names.
    HostNames,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Header, Kind::Rest, Kind::HostSlots, Kind::HostNames];

    fn number(self) -> u8 {
        self as u8
    }

    fn of(number: u8) -> Result<Kind, BadManifest> {
        Kind::ALL.get(number as usize).copied().ok_or(BadManifest("it has a section of an unknown kind"))
    }
}

/// What a snapshot is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The snapshot's hash.
    pub hash: [u8; 32],
    /// Bytes of its file.
    pub length: u64,
    /// Its sections, in the order of the file.
    pub sections: Vec<Section>,
}

/// A section as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub length: u64,
    /// How many levels of nodes lie between `top` and its pieces.
    pub depth: u8,
    /// The topmost entries.
    pub top: Vec<Entry>,
}

/// A piece's hash.
pub fn hash_of(bytes: &[u8]) -> PieceHash {
    *blake3::hash(bytes).as_bytes()
}

impl Manifest {
    /// That of the snapshot `hash` in `pieces`; each node of the tree is handed to `keep`.
    pub fn of(hash: [u8; 32], pieces: &Pieces, mut keep: impl FnMut(Entry, Vec<u8>)) -> Manifest {
        let mut breath = Breath::start();
        let sections = pieces.sections.iter().map(|(kind, entries)| {
            let length = entries.iter().map(|entry| u64::from(entry.length)).sum();
            let (mut top, mut depth) = (entries.clone(), 0);
            while top.len() > FAN_OUT {
                let nodes = top.chunks(FAN_OUT).map(|entries| {
                    let bytes = write_entries(entries);
                    let node = Entry { hash: hash_of(&bytes), length: bytes.len() as u32 };
                    keep(node, bytes);
                    breath.take();
                    node
                });
                top = nodes.collect();
                depth += 1;
            }
            Section { kind: *kind, length, depth, top }
        });
        Manifest { hash, length: pieces.length(), sections: sections.collect() }
    }

    /// As it is sent and signed.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.hash);
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.push(self.sections.len() as u8);
        for section in &self.sections {
            bytes.push(section.kind.number());
            bytes.push(section.depth);
            bytes.push(section.top.len() as u8);
            bytes.extend_from_slice(&section.length.to_le_bytes());
            bytes.extend_from_slice(&write_entries(&section.top));
        }
        bytes
    }

    /// Reads and checks one.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, BadManifest> {
        let mut reader = Reader(bytes);
        if reader.take::<8>()? != MAGIC {
            return Err(BadManifest("it does not begin as a manifest does"));
        }
        if u32::from_le_bytes(reader.take()?) != FORMAT {
            return Err(BadManifest("it has another format"));
        }
        let (hash, length) = (reader.take()?, u64::from_le_bytes(reader.take()?));
        let [count] = reader.take()?;
        if count as usize > SECTIONS_MAX {
            return Err(BadManifest("it has too many sections"));
        }
        let sections = (0..count).map(|_| reader.section()).collect::<Result<Vec<_>, _>>()?;
        let sum = sections.iter().try_fold(0_u64, |sum, section| sum.checked_add(section.length));
        if !reader.0.is_empty() {
            return Err(BadManifest("something follows its end"));
        }
        if length == 0 || length > SNAPSHOT_BYTES_MAX as u64 || sum != Some(length) {
            return Err(BadManifest("the lengths of its sections do not fit"));
        }
        Ok(Manifest { hash, length, sections })
    }
}

impl Section {
    /// The entries one level below `entries`, whose nodes are `nodes`, one after the other. All were checked by their hash.
    pub fn descend(&self, nodes: &[Vec<u8>], bottom: bool) -> Result<Vec<Entry>, BadManifest> {
        let mut below = Vec::new();
        for node in nodes {
            let mut reader = Reader(node);
            while !reader.0.is_empty() {
                below.push(reader.entry(bottom)?);
                if below.len() > SNAPSHOT_PIECES_MAX {
                    return Err(BadManifest("it has too many pieces"));
                }
            }
        }
        Ok(below)
    }

    /// Whether these are pieces that make up the section.
    pub fn check(&self, pieces: &[Entry]) -> Result<(), BadManifest> {
        let sum: u64 = pieces.iter().map(|piece| u64::from(piece.length)).sum();
        if sum == self.length { Ok(()) } else { Err(BadManifest("a section's pieces are not as long as it is")) }
    }
}

fn write_entries(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        bytes.extend_from_slice(&entry.hash);
        bytes.extend_from_slice(&entry.length.to_le_bytes());
    }
    bytes
}

/// Bytes that are read from their front.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadManifest> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(BadManifest("it is cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// An entry of a piece of the file, or (not `bottom`) of a node.
    fn entry(&mut self, bottom: bool) -> Result<Entry, BadManifest> {
        let entry = Entry { hash: self.take()?, length: u32::from_le_bytes(self.take()?) };
        let length = entry.length as usize;
        let fits = match bottom {
            true => (1..=SNAPSHOT_PIECE_BYTES_MAX).contains(&length),
            false => (ENTRY_BYTES..=FAN_OUT * ENTRY_BYTES).contains(&length) && length.is_multiple_of(ENTRY_BYTES),
        };
        if fits { Ok(entry) } else { Err(BadManifest("a piece has a length that no piece has")) }
    }

    fn section(&mut self) -> Result<Section, BadManifest> {
        let [kind, depth, count] = self.take()?;
        let kind = Kind::of(kind)?;
        if depth > DEPTH_MAX || count as usize > FAN_OUT {
            return Err(BadManifest("a section is deeper or broader than any is"));
        }
        let length = u64::from_le_bytes(self.take()?);
        let top = (0..count).map(|_| self.entry(depth == 0)).collect::<Result<Vec<_>, _>>()?;
        Ok(Section { kind, length, depth, top })
    }
}

/// Why bytes are not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadManifest(pub &'static str);

impl fmt::Display for BadManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its manifest cannot be used: {}", self.0)
    }
}

impl std::error::Error for BadManifest {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn pieces(rest: usize) -> Pieces {
        let entry = |i: usize| Entry { hash: hash_of(&i.to_le_bytes()), length: 1 + i as u32 % 1000 };
        Pieces { sections: vec![(Kind::Header, vec![entry(7)]), (Kind::Rest, (0..rest).map(entry).collect())] }
    }

    #[test]
    fn the_tree_leads_back_to_every_piece() {
        for count in [1, FAN_OUT, FAN_OUT + 1, FAN_OUT * FAN_OUT, FAN_OUT * FAN_OUT + 1] {
            let (pieces, mut nodes) = (pieces(count), HashMap::new());
            let manifest = Manifest::of([3; 32], &pieces, |entry, bytes| drop(nodes.insert(entry, bytes)));
            let manifest = Manifest::decode(&manifest.encode()).unwrap();
            for (section, (kind, expected)) in manifest.sections.iter().zip(&pieces.sections) {
                let mut entries = section.top.clone();
                for level in (0..section.depth).rev() {
                    let bytes: Vec<_> = entries.iter().map(|entry| nodes[entry].clone()).collect();
                    entries = section.descend(&bytes, level == 0).unwrap();
                }
                assert_eq!((section.kind, &entries), (*kind, expected));
                assert_eq!(Pieces::read_list(&pieces.list()), Ok(pieces.clone()));
                assert_eq!(section.check(&entries), Ok(()));
                assert!(section.check(&entries[1..]).is_err());
            }
        }
    }

    #[test]
    fn one_piece_that_changes_changes_one_node_of_each_level() {
        let nodes = |pieces: &Pieces| {
            let mut nodes = HashMap::new();
            Manifest::of([3; 32], pieces, |entry, bytes| drop(nodes.insert(entry, bytes)));
            nodes
        };
        let (one, mut two) = (pieces(40_000), pieces(40_000));
        two.sections[1].1[20_000].hash = [9; 32];
        let (one, two) = (nodes(&one), nodes(&two));
        assert_eq!(two.keys().filter(|entry| !one.contains_key(*entry)).count(), 2);
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_refused_or_read_within_the_bounds(
            flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            cut in any::<usize>(),
        ) {
            let mut bytes = Manifest::of([3; 32], &pieces(300), |_, _| ()).encode();
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut % 3);
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert!(manifest.length <= SNAPSHOT_BYTES_MAX as u64);
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}
