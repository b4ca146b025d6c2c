//! The fixed header of a snapshot file, and every reason to refuse one. See docs/formats/snapshot.md.

use super::body;
use crate::base::breath::BREATH_STEP_BYTES;
use crate::base::breath::Breath;
use crate::limits::SNAPSHOT_BYTES_MAX;
use std::fmt;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// The format this build writes and reads.
pub const FORMAT: u32 = 4;
const MAGIC: [u8; 8] = *b"TIDEPOL\n";
/// Where the digest of all but the host table stands; zeros in files of before it was there.
const REST_AT: usize = 72;
/// Where the checksum of the bytes before it stands.
const CHECKSUM_AT: usize = 96;

/// A digest of an archive but for the bulk of its host table: what is proven at a start before anything is decided.
pub type RestDigest = [u8; CHECKSUM_AT - REST_AT];

/// What the header says.
pub struct Header {
    /// It, as it stands in the file.
    pub bytes: [u8; HEADER_BYTES],
    /// The policy version.
    pub version: u64,
    /// Over version and body.
    pub hash: [u8; 32],
    /// Over the rest of the body; `None` if the file has none.
    pub rest: Option<RestDigest>,
}

/// The header for `body`, whose rest has this digest.
pub fn write(version: u64, body: &[u8], rest: &RestDigest) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    header[16..24].copy_from_slice(&body::layout().to_le_bytes());
    header[24..32].copy_from_slice(&version.to_le_bytes());
    header[32..40].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[40..REST_AT].copy_from_slice(&hash(version, body));
    header[REST_AT..CHECKSUM_AT].copy_from_slice(rest);
    let checksum = blake3::hash(&header[..CHECKSUM_AT]);
    header[CHECKSUM_AT..].copy_from_slice(checksum.as_bytes());
    header
}

/// Checks header and hash of a whole file; returns what it says and the body.
pub fn read(file: &[u8]) -> Result<(Header, &[u8]), SnapshotError> {
    let (header, body) = read_unproven(file)?;
    prove(header.version, &header.hash, body)?;
    Ok((header, body))
}

/// Checks the hash of a body.
pub fn prove(version: u64, said: &[u8; 32], body: &[u8]) -> Result<(), SnapshotError> {
    if hash(version, body) == *said { Ok(()) } else { Err(SnapshotError::BodyDamaged) }
}

/// Checks the header of a whole file, and not the body's hash.
pub fn read_unproven(file: &[u8]) -> Result<(Header, &[u8]), SnapshotError> {
    if file.len() > SNAPSHOT_BYTES_MAX {
        return Err(SnapshotError::TooLarge { bytes: file.len() });
    }
    if file.len() < MAGIC.len() || file[..8] != MAGIC {
        return Err(SnapshotError::NotASnapshot);
    }
    if file.len() < HEADER_BYTES {
        return Err(SnapshotError::Cut { said: HEADER_BYTES as u64, bytes: file.len() });
    }
    let (header, body) = file.split_at(HEADER_BYTES);
    let format = u32::from_le_bytes(field(header, 8));
    if format != FORMAT {
        return Err(SnapshotError::ForeignFormat { format });
    }
    if blake3::hash(&header[..CHECKSUM_AT]).as_bytes()[..] != header[CHECKSUM_AT..] {
        return Err(SnapshotError::HeaderDamaged);
    }
    if u64::from_le_bytes(field(header, 16)) != body::layout() {
        return Err(SnapshotError::ForeignLayout);
    }
    let said = u64::from_le_bytes(field(header, 32));
    if said != body.len() as u64 {
        return Err(SnapshotError::Cut { said: said.saturating_add(HEADER_BYTES as u64), bytes: file.len() });
    }
    let version = u64::from_le_bytes(field(header, 24));
    let rest: RestDigest = field(header, REST_AT);
    let rest = (rest != RestDigest::default()).then_some(rest);
    Ok((Header { bytes: field(header, 0), version, hash: field(header, 40), rest }, body))
}

/// The hash that names a snapshot: the version is part of it, so that a rollback is a snapshot of its own.
fn hash(version: u64, body: &[u8]) -> [u8; 32] {
    let (mut hasher, mut breath) = (blake3::Hasher::new(), Breath::start());
    hasher.update(&version.to_le_bytes());
    for step in body.chunks(BREATH_STEP_BYTES) {
        hasher.update(step);
        breath.take();
    }
    *hasher.finalize().as_bytes()
}

/// `N` bytes at `at`. The caller has checked that the header is whole.
fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

/// Why bytes are not a snapshot that this node can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// The bytes do not start as a snapshot does.
    NotASnapshot,
    /// More bytes than any snapshot may have.
    TooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// A snapshot of another format version.
    ForeignFormat {
        /// The version it says.
        format: u32,
    },
    /// The same format number but another layout: a build with other types.
    ForeignLayout,
    /// The header's checksum does not match.
    HeaderDamaged,
    /// The file is shorter or longer than its header says.
    Cut {
        /// Bytes it should have.
        said: u64,
        /// Bytes it has.
        bytes: usize,
    },
    /// The body's hash does not match.
    BodyDamaged,
    /// The hash matches but the archive is not one.
    BadArchive(String),
    /// The archive is one but its content contradicts itself.
    BadContent(&'static str),
    /// A regular expression of the archive cannot be loaded here.
    BadRegex(String),
    /// This node does not know a time zone the policy uses.
    UnknownZone {
        /// Its name.
        zone: String,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AGAIN: &str = "fetch or compile it again";
        match self {
            SnapshotError::NotASnapshot => write!(f, "these bytes are not a policy snapshot (wrong magic): {AGAIN}"),
            SnapshotError::TooLarge { bytes } => {
                write!(f, "the snapshot has {bytes} bytes, more than {SNAPSHOT_BYTES_MAX}: shorten the category lists")
            }
            SnapshotError::ForeignFormat { format } => write!(
                f,
                "the snapshot has format {format} and this build reads format {FORMAT}: install the same version of \
                 tidegate on all nodes, or {AGAIN} if the file is damaged"
            ),
            SnapshotError::ForeignLayout => write!(
                f,
                "the snapshot was written by a build whose types are laid out differently: install the same version of \
                 tidegate on all nodes and compile it again"
            ),
            SnapshotError::HeaderDamaged => write!(f, "the snapshot's header is damaged (checksum): {AGAIN}"),
            SnapshotError::Cut { said, bytes } => {
                write!(f, "the snapshot should have {said} bytes and has {bytes}: {AGAIN}")
            }
            SnapshotError::BodyDamaged => write!(f, "the snapshot's body is damaged (hash): {AGAIN}"),
            SnapshotError::BadArchive(found) => write!(f, "the snapshot's archive is not valid ({found}): {AGAIN}"),
            SnapshotError::BadContent(what) => write!(f, "the snapshot contradicts itself ({what}): {AGAIN}"),
            SnapshotError::BadRegex(found) => {
                write!(f, "a regular expression of the snapshot cannot be loaded ({found}): {AGAIN}")
            }
            SnapshotError::UnknownZone { zone } => write!(
                f,
                "this node does not know the time zone `{zone}`: install the package tzdata (the master has it), or \
                 change the zone in the policy"
            ),
        }
    }
}

impl std::error::Error for SnapshotError {}
