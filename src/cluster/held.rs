//! The snapshots a slave holds on disk, so that it enforces its last policy while the master is away, also after its own
//! restart (R4).
//!
//! `STATE_DIR/snapshots/HASH.snapshot` are snapshot files as the master sent them; `index.json` lists them, the one in
//! force first. A snapshot is written and synced before the index names it, and the index is replaced whole, so that a
//! crash at any point leaves the old or the new state.

use crate::base::clock::Wall;
use crate::base::durable;
use crate::cluster::protocol::hash_text;
use crate::cluster::protocol::parse_hash;
use crate::limits::CLUSTER_MESSAGE_BYTES_MAX;
use crate::limits::HELD_SNAPSHOTS;
use crate::policy::Snapshot;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const INDEX: &str = "index.json";
const SUFFIX: &str = ".snapshot";
/// The policy that this node refused last, until it takes one.
const REFUSED: &str = "refused.json";

/// A snapshot that was in force when the node stopped.
#[derive(Debug)]
pub struct HeldSnapshot {
    /// It.
    pub snapshot: Snapshot,
    /// When it came from the master.
    pub synced: Wall,
    /// What was wrong with newer ones, if this is not the newest; empty if it is.
    pub trouble: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    hash: String,
    name: String,
    synced_us: i64,
}

/// The newest good snapshot in `state_dir`; absent if there is none. What is damaged is passed over and named in
/// `trouble` and in the journal, and stays where it is.
pub fn load(state_dir: &Path) -> Option<HeldSnapshot> {
    let dir = dir(state_dir);
    let mut troubles = Vec::new();
    let entries = match read_index(&dir) {
        Ok(entries) => entries,
        Err(what) if dir.exists() => {
            troubles.push(what);
            entries_by_age(&dir)
        }
        Err(_) => return None,
    };
    for entry in entries {
        match open(&dir, &entry) {
            Ok(snapshot) => {
                let trouble = troubles.join(" ");
                return Some(HeldSnapshot { snapshot, synced: Wall(entry.synced_us), trouble });
            }
            Err(what) => {
                let path = path_of(&dir, &entry.hash);
                let words = format!(
                    "The held snapshot {} ({}) is damaged: {what}. An older one is used until the master sends it again.",
                    path.display(),
                    entry.name
                );
                tracing::error!(event = "policy-kept", "{words}");
                troubles.push(words);
            }
        }
    }
    None
}

/// A policy of the master's that this node could not use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPolicy {
    /// Its hash, hex.
    pub hash: String,
    /// Which, and why, as the master is told.
    pub words: String,
}

/// The policy that was refused before this process began; absent if the last one was taken.
pub fn refused(state_dir: &Path) -> Option<RefusedPolicy> {
    let mut bytes = Vec::new();
    let file = File::open(dir(state_dir).join(REFUSED)).ok()?;
    file.take(CLUSTER_MESSAGE_BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
    let refused: RefusedPolicy = serde_json::from_slice(&bytes).ok()?;
    parse_hash(&refused.hash).is_some().then_some(refused)
}

/// Notes that a policy was refused, or with nothing that one was taken.
pub fn note_refused(state_dir: &Path, refused: Option<&RefusedPolicy>) -> io::Result<()> {
    let path = dir(state_dir).join(REFUSED);
    match refused {
        Some(refused) => {
            fs::create_dir_all(dir(state_dir))?;
            durable::replace(&path, &serde_json::to_vec(refused)?, 0o600)
        }
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// Writes a verified snapshot beside the others, synced; it is not yet the one that [`load`] answers.
pub fn store(state_dir: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let dir = dir(state_dir);
    fs::create_dir_all(&dir)?;
    durable::replace(&path_of(&dir, &hash_text(snapshot.hash())), &snapshot.bytes(), 0o600)
}

/// The snapshot file `hash`, if it is here and whole: it was stored, and then something kept it from being put in force.
pub fn proven(state_dir: &Path, hash: [u8; 32]) -> Option<Snapshot> {
    let snapshot = Snapshot::open_held(&path_of(&dir(state_dir), &hash_text(hash))).ok()?;
    (snapshot.hash() == hash && snapshot.prove().is_ok()).then_some(snapshot)
}

/// Where something that belongs to `hash` stands while it is not a snapshot file yet. Makes the folder.
pub fn path_beside(state_dir: &Path, hash: [u8; 32], extension: &str) -> io::Result<PathBuf> {
    let dir = dir(state_dir);
    fs::create_dir_all(&dir)?;
    Ok(dir.join(format!("{}.{extension}", hash_text(hash))))
}

/// The files that stand there.
pub fn files(state_dir: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(dir(state_dir)) else { return Vec::new() };
    let paths = files.flatten().map(|file| file.path());
    paths.filter(|path| path.extension().is_some_and(|its| its == extension)).collect()
}

/// Takes a whole, synced snapshot file in under its name.
pub fn adopt(state_dir: &Path, file: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let dir = dir(state_dir);
    fs::rename(file, path_of(&dir, &hash_text(snapshot.hash())))?;
    durable::sync_dir(&dir)
}

/// Makes a stored snapshot the one in force, and removes the oldest.
pub fn make_current(state_dir: &Path, snapshot: &Snapshot, synced: Wall) -> io::Result<()> {
    let dir = dir(state_dir);
    let hash = hash_text(snapshot.hash());
    let mut entries = read_index(&dir).unwrap_or_default();
    entries.retain(|entry| entry.hash != hash);
    entries.insert(0, Entry { hash, name: snapshot.name().to_string(), synced_us: synced.0 });
    entries.truncate(HELD_SNAPSHOTS);
    let text = serde_json::to_vec_pretty(&entries).map_err(io::Error::other)?;
    durable::replace(&dir.join(INDEX), &text, 0o600)?;
    remove_others(&dir, &entries);
    Ok(())
}

/// Where the file of `snapshot` stands, if it is held.
pub fn file_of(state_dir: &Path, snapshot: &Snapshot) -> PathBuf {
    path_of(&dir(state_dir), &hash_text(snapshot.hash()))
}

fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join("snapshots")
}

fn path_of(dir: &Path, hash: &str) -> PathBuf {
    dir.join(format!("{hash}{SUFFIX}"))
}

fn read_index(dir: &Path) -> Result<Vec<Entry>, String> {
    let path = dir.join(INDEX);
    let damaged = |what: &dyn std::fmt::Display| format!("The index {} is damaged: {what}.", path.display());
    let bytes = read_at_most(&path, CLUSTER_MESSAGE_BYTES_MAX).map_err(|e| damaged(&e))?;
    let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|e| damaged(&e))?;
    // The hash becomes a file name: nothing but a hash may.
    if entries.iter().any(|entry| parse_hash(&entry.hash).is_none()) {
        return Err(damaged(&"it names what is no hash"));
    }
    Ok(entries)
}

/// Without an index, the snapshot files themselves, newest first.
fn entries_by_age(dir: &Path) -> Vec<Entry> {
    let Ok(files) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> = files
        .filter_map(|file| {
            let file = file.ok()?;
            let hash = file.file_name().to_str()?.strip_suffix(SUFFIX)?.to_string();
            parse_hash(&hash)?;
            let modified = file.metadata().ok()?.modified().ok()?;
            let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Some(Entry { hash, name: "unnamed".to_string(), synced_us: since.as_micros() as i64 })
        })
        .collect();
    found.sort_by_key(|entry| std::cmp::Reverse(entry.synced_us));
    found
}

fn open(dir: &Path, entry: &Entry) -> Result<Snapshot, String> {
    let snapshot = Snapshot::open_held(&path_of(dir, &entry.hash)).map_err(|e| e.to_string())?;
    if hash_text(snapshot.hash()) != entry.hash {
        return Err(format!("it holds {} and not what its file name says", snapshot.name()));
    }
    Ok(snapshot)
}

fn read_at_most(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// What cannot be removed costs a little disk and is tried again at the next policy.
fn remove_others(dir: &Path, kept: &[Entry]) {
    let Ok(files) = fs::read_dir(dir) else { return };
    for file in files.flatten() {
        let name = file.file_name();
        let Some(hash) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        if !kept.iter().any(|entry| entry.hash == hash) {
            let _ = fs::remove_file(file.path());
        }
    }
}
