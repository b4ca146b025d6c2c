//! A gzipped tar archive (POSIX ustar) of a few texts, made in memory.

use crate::base::clock::Wall;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io;
use std::io::Write;

const BLOCK: usize = 512;

/// An archive in the making.
pub struct Tarball {
    out: GzEncoder<Vec<u8>>,
    folder: &'static str,
    /// When everything in it was made.
    made: Wall,
}

impl Tarball {
    /// An empty archive whose files stand in `folder`.
    pub fn new(folder: &'static str, made: Wall) -> Tarball {
        Tarball { out: GzEncoder::new(Vec::new(), Compression::default()), folder, made }
    }

    /// Adds a file. Name and folder together are short: a header has 100 bytes for them.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(&header(&format!("{}/{name}", self.folder), bytes.len() as u64, self.made)?)?;
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; BLOCK][..bytes.len().next_multiple_of(BLOCK) - bytes.len()])
    }

    /// The archive.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.finish()
    }
}

fn header(path: &str, bytes: u64, made: Wall) -> io::Result<[u8; BLOCK]> {
    if path.len() > 100 {
        return Err(io::Error::other(format!("the name {path} is longer than the 100 bytes of a tar header")));
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, "0000600\0"); // for its owner alone
    put(108, "0000000\0"); // user and
    put(116, "0000000\0"); // group: whoever unpacks it
    put(124, &format!("{bytes:011o}\0"));
    put(136, &format!("{:011o}\0", made.seconds().max(0)));
    put(148, "        "); // the checksum counts itself as spaces
    put(156, "0"); // a file
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    /// tar itself says whether it is one.
    #[test]
    fn tar_unpacks_what_was_packed() {
        let dir = tempfile::tempdir().unwrap();
        let mut tarball = Tarball::new("folder", Wall(1_700_000_000_000_000));
        let texts = [("empty", Vec::new()), ("block", vec![b'b'; BLOCK]), ("odd.txt", vec![b'o'; BLOCK + 1])];
        for (name, text) in &texts {
            tarball.add(name, text).unwrap();
        }
        assert!(tarball.add(&"n".repeat(100), b"").is_err());
        let path = dir.path().join("x.tar.gz");
        fs::write(&path, tarball.finish().unwrap()).unwrap();
        let tar = Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(dir.path()).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
        for (name, text) in &texts {
            assert_eq!(&fs::read(dir.path().join("folder").join(name)).unwrap(), text, "{name}");
        }
    }
}
