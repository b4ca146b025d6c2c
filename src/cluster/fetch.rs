//! A slave fetches a snapshot: the manifest, the nodes of its tree that it does not know, the pieces that it does not have.

use crate::cluster::assembly::Assembly;
use crate::cluster::assembly::Known;
use crate::cluster::assembly::fitting;
use crate::cluster::assembly::no_room;
use crate::cluster::assembly::split;
use crate::cluster::client::Answer;
use crate::cluster::client::Connection;
use crate::cluster::client::Trouble;
use crate::cluster::held;
use crate::cluster::protocol;
use crate::cluster::sidecar::accepted;
use crate::limits::CLUSTER_PIECES_BYTES_MAX;
use crate::limits::CLUSTER_PIECES_MS;
use crate::limits::CLUSTER_REQUEST_MS;
use crate::limits::SNAPSHOT_MANIFEST_BYTES_MAX;
use crate::policy::Snapshot;
use crate::policy::pieces::Entry;
use crate::policy::pieces::Manifest;
use crate::policy::pieces::Pieces;
use crate::tls::activation::SnapshotSigner;
use hyper::{Method, StatusCode};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no snapshot.
pub enum NotFetched {
    /// The connection broke, or the master refuses this node: what has come stays, and the next fetch goes on from there.
    Trouble(Trouble),
    /// A newer policy overtook it.
    Overtaken,
    /// It cannot be used, in words.
    Unusable(String),
}

impl From<Trouble> for NotFetched {
    fn from(trouble: Trouble) -> Self {
        NotFetched::Trouble(trouble)
    }
}

impl From<String> for NotFetched {
    fn from(words: String) -> Self {
        NotFetched::Unusable(words)
    }
}

/// What a fetch works with.
pub struct Fetch<'a> {
    /// To the master.
    pub connection: &'a mut Connection,
    /// At the master.
    pub session: &'a str,
    /// STATE_DIR.
    pub state_dir: PathBuf,
    /// Checks what the master signed.
    pub signer: &'a SnapshotSigner,
    /// Bytes that came over the network so far.
    pub wire_bytes: u64,
}

impl Fetch<'_> {
    /// Brings the snapshot `hash` here, verified and stored. `current` is in force and has some of its pieces.
    pub async fn bring(&mut self, hash: [u8; 32], current: Arc<Snapshot>) -> Result<Snapshot, NotFetched> {
        let state_dir = self.state_dir.clone();
        let held = work(move || held::proven(&state_dir, hash)).await?;
        if let Some(held) = held {
            return Ok(held);
        }
        let manifest = self.manifest(hash).await?;
        let state_dir = self.state_dir.clone();
        let known = work(move || {
            let pieces = current.pieces();
            Known::look(&state_dir, current, &pieces)
        });
        let known = known.await?;
        let pieces = self.pieces(&manifest, &known).await?;
        let state_dir = self.state_dir.clone();
        let begun = work(move || {
            Assembly::begin(&state_dir, &manifest, pieces, &known).map_err(|error| no_room(&state_dir, &error))
        });
        let mut assembly = begun.await??;
        while !assembly.next().is_empty() {
            let bytes = self.ask(hash, assembly.next()).await?;
            assembly = work(move || assembly.put(&bytes).map(|()| assembly)).await??;
        }
        let state_dir = self.state_dir.clone();
        Ok(work(move || assembly.finish(&state_dir, hash)).await??)
    }

    async fn manifest(&mut self, hash: [u8; 32]) -> Result<Manifest, NotFetched> {
        let path = format!("{}{}", protocol::MANIFEST_PATH, protocol::hash_text(hash));
        let fields = [(protocol::SESSION_FIELD, self.session.to_string())];
        let deadline = Duration::from_millis(CLUSTER_REQUEST_MS + CLUSTER_PIECES_MS);
        let asked = self.connection.ask(Method::GET, &path, &fields, Vec::new(), SNAPSHOT_MANIFEST_BYTES_MAX, deadline);
        let answer = asked.await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(NotFetched::Overtaken);
        }
        let answer = usable(answer)?;
        self.wire_bytes += answer.body.len() as u64;
        let signature = answer.fields.get(protocol::SIGNATURE_FIELD).and_then(|value| value.to_str().ok());
        let signature = signature.and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
        let signature = signature.ok_or_else(|| "its signature is missing".to_string())?;
        if !self.signer.verify(&answer.body, &signature) {
            let words = "its signature does not fit: it was changed on its way or on the master";
            return Err(NotFetched::Unusable(words.to_string()));
        }
        let manifest = Manifest::decode(&answer.body).map_err(|error| error.to_string())?;
        if manifest.hash != hash {
            let other = protocol::hash_text(manifest.hash);
            return Err(NotFetched::Unusable(format!("the master sent {} instead", &other[..12])));
        }
        Ok(manifest)
    }

    /// Goes down the tree of each section to its pieces.
    async fn pieces(&mut self, manifest: &Manifest, known: &Known) -> Result<Pieces, NotFetched> {
        let mut pieces = Pieces::default();
        for section in &manifest.sections {
            let mut entries = section.top.clone();
            for level in (0..section.depth).rev() {
                let nodes = self.nodes(manifest.hash, &entries, known).await?;
                entries = section.descend(&nodes, level == 0).map_err(|error| error.to_string())?;
            }
            section.check(&entries).map_err(|error| error.to_string())?;
            pieces.sections.push((section.kind, entries));
        }
        Ok(pieces)
    }

    async fn nodes(&mut self, hash: [u8; 32], entries: &[Entry], known: &Known) -> Result<Vec<Vec<u8>>, NotFetched> {
        let mut nodes: Vec<Option<Vec<u8>>> = entries.iter().map(|entry| known.node(entry)).collect();
        let missing: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].is_none()).collect();
        let wanted: Vec<Entry> = missing.iter().map(|at| entries[*at]).collect();
        let mut done = 0;
        while done < wanted.len() {
            let batch = fitting(&wanted[done..]).to_vec();
            let bytes = self.ask(hash, &batch).await?;
            let count = batch.len();
            let taken = work(move || -> Result<Vec<Vec<u8>>, String> {
                Ok(split(&batch, &bytes)?.into_iter().map(<[u8]>::to_vec).collect())
            });
            missing[done..].iter().zip(taken.await??).for_each(|(at, node)| nodes[*at] = Some(node));
            done += count;
        }
        Ok(nodes.into_iter().flatten().collect())
    }

    /// Asks for some pieces; what comes is as long as they are together, and not yet checked.
    async fn ask(&mut self, hash: [u8; 32], entries: &[Entry]) -> Result<Vec<u8>, NotFetched> {
        let path = format!("{}{}", protocol::PIECES_PATH, protocol::hash_text(hash));
        let fields = [(protocol::SESSION_FIELD, self.session.to_string())];
        let body = entries.iter().flat_map(|entry| entry.hash).collect();
        let length: usize = entries.iter().map(|entry| entry.length as usize).sum();
        let deadline = Duration::from_millis(CLUSTER_PIECES_MS);
        // Compressed bytes are at most a little more than the bytes.
        let bytes_max = CLUSTER_PIECES_BYTES_MAX + CLUSTER_PIECES_BYTES_MAX / 8;
        let answer = self.connection.ask(Method::POST, &path, &fields, body, bytes_max, deadline).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(NotFetched::Overtaken);
        }
        let answer = usable(answer)?;
        self.wire_bytes += answer.body.len() as u64;
        zstd::bulk::decompress(&answer.body, length)
            .map_err(|error| NotFetched::Unusable(format!("unpacking pieces of it: {error}")))
    }
}

/// A master that answers something else than what was asked for is no reason to connect again: it is told, and tried later.
fn usable(answer: Answer) -> Result<Answer, NotFetched> {
    accepted(answer).map_err(|trouble| match trouble {
        Trouble::Answer(words) => NotFetched::Unusable(words),
        trouble => NotFetched::Trouble(trouble),
    })
}

/// Does what takes time in proportion to a policy, on a thread that may block. What takes long there pauses by itself ([`crate::base::breath`]).
async fn work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotFetched> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| NotFetched::Unusable(format!("working on it: {error}")))
}
