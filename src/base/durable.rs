//! Files that survive a crash whole: written beside, synced, renamed over, directory synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces the file at `path` by `bytes`, so that after a crash at any point the old or the new content is there,
/// never a part. `mode` is that of the new file (0o600 for secrets).
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let beside = dir.join(format!(".{}.new-{}", name.to_string_lossy(), std::process::id()));
    let written = write_synced(&beside, bytes, mode).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.and_then(|()| sync_dir(dir))
}

/// Overwrites the file at `path` where it stands: for a writer that owns the file but may not change its folder. A crash in the
/// middle can leave it torn; `copy`, written whole before and removed after, then has the new content.
pub fn overwrite(path: &Path, bytes: &[u8], copy: &Path) -> io::Result<()> {
    replace(copy, bytes, 0o600)?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    fs::remove_file(copy)
}

/// Makes renames and new names in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A leftover of a crashed predecessor may carry another mode: it goes first.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replace_writes_whole_files_with_the_asked_mode_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for content in [&b"one"[..], b"two, longer", b""] {
            replace(&path, content, 0o600).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn overwrite_keeps_the_file_and_its_mode_and_leaves_a_copy_only_when_it_did_not_come_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("params"), dir.path().join("copy"));
        replace(&path, b"one", 0o640).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        for content in [&b"two, longer"[..], b"3", b""] {
            overwrite(&path, content, &copy).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
            assert!(!copy.exists());
        }
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.ino(), after.permissions().mode() & 0o777), (inode, 0o640));
        assert!(overwrite(&dir.path().join("absent"), b"four", &copy).is_err());
        assert_eq!(fs::read(&copy).unwrap(), b"four");
    }
}
