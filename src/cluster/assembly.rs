//! A slave makes a snapshot file of pieces: those it has, and those it fetches. Sans network.
//!
//! `STATE_DIR/snapshots/HASH.part` is the file as it grows, each piece in its place, and `HASH.pieces` lists them. Nothing else is noted of
//! the progress: a piece is there if its hash fits, so an assembly goes on where it was cut, whoever cut it.

use crate::base::breath::Breath;
use crate::base::durable;
use crate::cluster::held;
use crate::limits::CLUSTER_PIECES_BYTES_MAX;
use crate::limits::CLUSTER_PIECES_MAX;
use crate::limits::SNAPSHOT_PIECE_BYTES_MAX;
use crate::policy::Snapshot;
use crate::policy::pieces::Entry;
use crate::policy::pieces::Manifest;
use crate::policy::pieces::PieceHash;
use crate::policy::pieces::Pieces;
use crate::policy::pieces::Place;
use crate::policy::pieces::hash_of;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What this node has of pieces: the snapshot in force, and what was left of an assembly.
pub struct Known {
    current: Arc<Snapshot>,
    nodes: HashMap<PieceHash, Vec<u8>>,
    in_current: HashMap<PieceHash, Place>,
    left: Vec<(File, HashMap<PieceHash, Place>)>,
}

impl Known {
    /// Looks at the snapshot in force, whose pieces are `pieces`, and at what was left in `state_dir`.
    pub fn look(state_dir: &Path, current: Arc<Snapshot>, pieces: &Pieces) -> Known {
        let mut known = Known {
            in_current: pieces.places().map(|(e, p)| (e.hash, p)).collect(),
            current,
            nodes: HashMap::new(),
            left: Vec::new(),
        };
        known.learn_nodes(pieces);
        for list in held::files(state_dir, LIST) {
            let read = fs::read(&list).ok().and_then(|bytes| Pieces::read_list(&bytes).ok());
            let (Some(pieces), Ok(part)) = (read, File::open(list.with_extension(PART))) else { continue };
            known.learn_nodes(&pieces);
            known.left.push((part, pieces.places().map(|(e, p)| (e.hash, p)).collect()));
        }
        known
    }

    fn learn_nodes(&mut self, pieces: &Pieces) {
        Manifest::of([0; 32], pieces, |entry, bytes| drop(self.nodes.insert(entry.hash, bytes)));
    }

    /// A node of a manifest's tree.
    pub fn node(&self, entry: &Entry) -> Option<Vec<u8>> {
        self.nodes.get(&entry.hash).cloned()
    }

    /// The bytes of a piece, if they are here and whole. Those of the snapshot in force were hashed when its pieces were told: should they
    /// change before they are written, the whole file is found not to be what it should, and the next attempt hashes them again.
    fn piece(&self, entry: &Entry) -> Option<Cow<'_, [u8]>> {
        let held = self.in_current.get(&entry.hash).and_then(|place| self.current.piece(*place));
        held.map(Cow::Borrowed).or_else(|| {
            self.left.iter().find_map(|(file, places)| {
                let bytes = read_at(file, *places.get(&entry.hash)?)?;
                (hash_of(&bytes) == entry.hash).then_some(Cow::Owned(bytes))
            })
        })
    }
}

const PART: &str = "part";
const LIST: &str = "pieces";

/// A snapshot file that is being put together.
pub struct Assembly {
    part: PathBuf,
    file: File,
    pieces: Pieces,
    /// What is missing, in the order of the file, and everywhere it belongs.
    missing: Vec<Entry>,
    places: HashMap<PieceHash, Vec<Place>>,
}

impl Assembly {
    /// Begins (or goes on with) the file of `manifest`, which is made of `pieces`, with all that is `known`.
    pub fn begin(state_dir: &Path, manifest: &Manifest, pieces: Pieces, known: &Known) -> io::Result<Assembly> {
        let part = held::path_beside(state_dir, manifest.hash, PART)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&part)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process of this node is at it; it is tried again"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let begun_before = file.metadata()?.len() > 0;
        file.set_len(manifest.length)?;
        durable::replace(&part.with_extension(LIST), &pieces.list(), 0o600)?;
        let mut assembly = Assembly { part, file, pieces, missing: Vec::new(), places: HashMap::new() };
        assembly.fill(known, begun_before)?;
        Ok(assembly)
    }

    /// Puts in place what is known and not there from before; the rest is missing.
    fn fill(&mut self, known: &Known, begun_before: bool) -> io::Result<()> {
        let mut breath = Breath::start();
        for (entry, place) in self.pieces.places() {
            breath.take();
            if begun_before && read_at(&self.file, place).is_some_and(|bytes| hash_of(&bytes) == entry.hash) {
                continue;
            }
            if let Some(bytes) = known.piece(&entry) {
                self.file.write_all_at(&bytes, place.offset as u64)?;
                continue;
            }
            let places = self.places.entry(entry.hash).or_default();
            if places.is_empty() {
                self.missing.push(entry);
            }
            places.push(place);
        }
        Ok(())
    }

    /// What to ask for next; nothing if all is there.
    pub fn next(&self) -> &[Entry] {
        fitting(&self.missing)
    }

    /// Puts in place what [`Assembly::next`] asked for: the pieces one after the other. The error says what is wrong with them.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), String> {
        let count = self.next().len();
        let taken = split(&self.missing[..count], bytes)?;
        let mut breath = Breath::start();
        for (entry, piece) in self.missing.iter().zip(taken) {
            breath.take();
            for place in self.places.remove(&entry.hash).unwrap_or_default() {
                let written = self.file.write_all_at(piece, place.offset as u64);
                written.map_err(|error| no_room(&self.part, &error))?;
            }
        }
        self.missing.drain(..count);
        Ok(())
    }

    /// The whole file: checked from its first byte to its last, durable, and then held under its own name.
    pub fn finish(self, state_dir: &Path, hash: [u8; 32]) -> Result<Snapshot, String> {
        self.file.sync_all().map_err(|error| no_room(&self.part, &error))?;
        let checked = Snapshot::open_held(&self.part).map_err(|error| error.to_string()).and_then(|snapshot| {
            snapshot.prove().map_err(|error| error.to_string())?;
            let fits = snapshot.hash() == hash;
            if fits { Ok(snapshot) } else { Err(format!("the master sent {} instead", snapshot.name())) }
        });
        // What cannot be used stays: the next attempt finds every piece in its place, and asks for none.
        if let Ok(snapshot) = &checked {
            held::adopt(state_dir, &self.part, snapshot).map_err(|error| no_room(&self.part, &error))?;
            for extension in [PART, LIST] {
                held::files(state_dir, extension).iter().for_each(|file| drop(fs::remove_file(file)));
            }
        }
        checked
    }
}

/// What a slave says when its disk does not take a snapshot.
pub fn no_room(path: &Path, error: &io::Error) -> String {
    format!("storing it in {}: {error}. Make room or repair the disk", path.display())
}

/// As many of `entries` as one answer may hold.
pub fn fitting(entries: &[Entry]) -> &[Entry] {
    let mut bytes = 0;
    let fits = entries.iter().take(CLUSTER_PIECES_MAX).take_while(|entry| {
        bytes += entry.length as usize;
        bytes <= CLUSTER_PIECES_BYTES_MAX
    });
    &entries[..fits.count()]
}

/// The pieces that `bytes` are made of, each checked.
pub fn split<'b>(entries: &[Entry], bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, &'static str> {
    let (mut rest, mut pieces, mut breath) = (bytes, Vec::with_capacity(entries.len()), Breath::start());
    for entry in entries {
        let (piece, after) = rest.split_at_checked(entry.length as usize).ok_or("a piece of it is missing")?;
        if hash_of(piece) != entry.hash {
            return Err("a piece of it is damaged");
        }
        pieces.push(piece);
        rest = after;
        breath.take();
    }
    if rest.is_empty() { Ok(pieces) } else { Err("more came than was asked for") }
}

fn read_at(file: &File, place: Place) -> Option<Vec<u8>> {
    if place.length > SNAPSHOT_PIECE_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; place.length];
    file.read_exact_at(&mut bytes, place.offset as u64).ok().map(|()| bytes)
}
