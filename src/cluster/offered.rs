//! A snapshot as a master offers it to its slaves: signed manifest, and pieces by their hash.

use crate::limits::CLUSTER_ANSWERS_BYTES_MAX;
use crate::limits::CLUSTER_PIECES_BYTES_MAX;
use crate::limits::CLUSTER_PIECES_MAX;
use crate::limits::SNAPSHOT_ZSTD_LEVEL;
use crate::policy::Snapshot;
use crate::policy::pieces::Manifest;
use crate::policy::pieces::PieceHash;
use crate::policy::pieces::Place;
use crate::policy::pieces::hash_of;
use crate::tls::activation::SnapshotSigner;
use hyper::body::Bytes;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Made once for each snapshot that slaves ask for.
pub struct Offered {
    snapshot: Arc<Snapshot>,
    /// The manifest, encoded.
    pub manifest: Bytes,
    /// The master's signature of it, hex.
    pub signature: String,
    found: HashMap<PieceHash, Found>,
    answers: Mutex<Answers>,
    /// One answer is packed at a time: a hundred slaves that ask for the same wait for the first, and find it made.
    packing: Mutex<()>,
}

enum Found {
    InFile(Place),
    Node(Vec<u8>),
}

/// Answers that were packed, by the hash of what was asked.
#[derive(Default)]
struct Answers {
    bytes: usize,
    made: VecDeque<(PieceHash, Bytes)>,
}

impl Offered {
    /// Cuts and signs `snapshot`. Takes time in proportion to it: not on a thread that others wait for.
    pub fn new(snapshot: Arc<Snapshot>, signer: &SnapshotSigner) -> Offered {
        let pieces = snapshot.pieces();
        let mut found: HashMap<_, _> =
            pieces.places().map(|(entry, place)| (entry.hash, Found::InFile(place))).collect();
        let keep = |node: crate::policy::pieces::Entry, bytes| drop(found.insert(node.hash, Found::Node(bytes)));
        let manifest = Manifest::of(snapshot.hash(), &pieces, keep).encode();
        let signature = data_encoding::HEXLOWER.encode(&signer.sign_manifest(&manifest));
        Offered {
            snapshot,
            manifest: Bytes::from(manifest),
            signature,
            found,
            answers: Mutex::default(),
            packing: Mutex::default(),
        }
    }

    /// Whose.
    pub fn hash(&self) -> [u8; 32] {
        self.snapshot.hash()
    }

    /// The pieces that `wanted` names, hash after hash, packed together in that order. The error says what is wrong with the request.
    pub fn answer(&self, wanted: &[u8]) -> Result<Bytes, String> {
        let (hashes, rest) = wanted.as_chunks::<32>();
        if !rest.is_empty() || hashes.is_empty() || hashes.len() > CLUSTER_PIECES_MAX {
            return Err(format!("a request for pieces names 1 to {CLUSTER_PIECES_MAX} hashes of 32 bytes"));
        }
        let asked = hash_of(wanted);
        let lock = |answers: &Mutex<Answers>| answers.lock().unwrap_or_else(PoisonError::into_inner).find(asked);
        if let Some(made) = lock(&self.answers) {
            return Ok(made);
        }
        let _turn = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = lock(&self.answers) {
            return Ok(made);
        }
        let mut bytes = Vec::new();
        for hash in hashes {
            let piece = match self.found.get(hash) {
                Some(Found::Node(bytes)) => Some(bytes.as_slice()),
                Some(Found::InFile(place)) => self.snapshot.piece(*place),
                None => None,
            };
            bytes.extend_from_slice(piece.ok_or("a request for a piece that is none of this snapshot")?);
            if bytes.len() > CLUSTER_PIECES_BYTES_MAX {
                return Err(format!("a request for more than {CLUSTER_PIECES_BYTES_MAX} bytes of pieces"));
            }
        }
        let packed = zstd::bulk::compress(&bytes, SNAPSHOT_ZSTD_LEVEL).map_err(|error| error.to_string())?;
        let packed = Bytes::from(packed);
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).keep(asked, packed.clone());
        Ok(packed)
    }
}

impl Answers {
    fn find(&self, asked: PieceHash) -> Option<Bytes> {
        self.made.iter().find(|(hash, _)| *hash == asked).map(|(_, bytes)| bytes.clone())
    }

    fn keep(&mut self, asked: PieceHash, packed: Bytes) {
        self.bytes += packed.len();
        self.made.push_back((asked, packed));
        while self.bytes > CLUSTER_ANSWERS_BYTES_MAX {
            self.bytes -= self.made.pop_front().map_or(self.bytes, |(_, oldest)| oldest.len());
        }
    }
}
