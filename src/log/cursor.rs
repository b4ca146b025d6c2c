//! The cursor: up to where the master has this node's records (`docs/formats/cursor.md`).

use crate::base::durable;
use crate::record::Epoch;
use std::fs;
use std::io;
use std::path::Path;

const MAGIC: &[u8; 8] = b"TGCURSOR";
const FORMAT: u32 = 1;
const REST_BYTES: u32 = 48;
const BYTES: usize = 72;

/// Where shipping is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Every record up to this number is stored at the master.
    pub acknowledged: u64,
    /// First number of the file in which the next record is looked for; a hint.
    pub file: u64,
    /// Where in that file; a hint.
    pub offset: u64,
}

impl Cursor {
    /// Reads the cursor of `epoch`. One that is not there or not to be trusted is the beginning: the master will say
    /// what it has.
    pub fn load(path: &Path, epoch: Epoch) -> Cursor {
        match fs::read(path) {
            Ok(bytes) => Cursor::read(&bytes, epoch).unwrap_or_else(|why| {
                tracing::warn!(
                    event = "cursor-unreadable",
                    "reading the cursor {}: {why}; shipping begins where the master says (nothing to do)",
                    path.display()
                );
                Cursor::default()
            }),
            Err(_) => Cursor::default(),
        }
    }

    /// Replaces the cursor durably.
    pub fn save(self, path: &Path, epoch: Epoch) -> io::Result<()> {
        durable::replace(path, &self.bytes(epoch), 0o600)
    }

    fn bytes(self, epoch: Epoch) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&REST_BYTES.to_le_bytes());
        bytes.extend_from_slice(&epoch.0);
        for number in [self.acknowledged, self.file, self.offset, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(&sum.as_bytes()[..8]);
        bytes
    }

    fn read(bytes: &[u8], epoch: Epoch) -> Result<Cursor, &'static str> {
        if bytes.len() != BYTES {
            return Err("it has not the length of a cursor");
        }
        if &bytes[..8] != MAGIC {
            return Err("it is not a cursor (wrong magic)");
        }
        if bytes[8..12] != FORMAT.to_le_bytes() || bytes[12..16] != REST_BYTES.to_le_bytes() {
            return Err("it is of another format");
        }
        if bytes[64..] != blake3::hash(&bytes[..64]).as_bytes()[..8] {
            return Err("it is damaged");
        }
        if bytes[16..32] != epoch.0 {
            return Err("it is of another epoch of this node");
        }
        let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
        Ok(Cursor { acknowledged: number(32), file: number(40), offset: number(48) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_any_damaged_byte_makes_it_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        let epoch = Epoch([9; 16]);
        let cursor = Cursor { acknowledged: 77, file: 12, offset: 4711 };
        assert_eq!(Cursor::load(&path, epoch), Cursor::default());
        cursor.save(&path, epoch).unwrap();
        assert_eq!(Cursor::load(&path, epoch), cursor);
        assert_eq!(Cursor::load(&path, Epoch([8; 16])), Cursor::default());
        let good = fs::read(&path).unwrap();
        assert_eq!(good.len(), BYTES);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Cursor::read(&bad, epoch).is_err(), "byte {at}");
            assert!(Cursor::read(&good[..at], epoch).is_err(), "cut at {at}");
        }
    }
}
