//! What a restart keeps first, if the administrator says so, and what a task brings to the master: startup params and policy. Not
//! encrypted, so nothing that is secret is in it; and so it is no backup of a whole node.

use super::tarball::Tarball;
use crate::admin::Diagnostics;
use crate::admin::DiagnosticsFile;
use crate::base::clock::Wall;
use crate::base::durable;
use crate::limits::BACKUPS_KEPT_MAX;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

/// Copies the startup.ini and the policy document in force to `STATE_DIR/backups/TIME/`; answers that folder. The oldest go.
pub fn keep(state_dir: &Path, startup_ini: &Path, document: &str) -> io::Result<PathBuf> {
    let backups = state_dir.join("backups");
    let time = jiff::Timestamp::from_microsecond(Wall::now().0).unwrap_or_default();
    let dir = backups.join(time.strftime("%Y%m%dT%H%M%S%.6fZ").to_string());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    durable::replace(&dir.join("startup.ini"), &fs::read(startup_ini)?, 0o600)?;
    durable::replace(&dir.join("policy.toml"), document.as_bytes(), 0o600)?;
    forget_oldest(&backups)?;
    Ok(dir)
}

/// A kept copy as one archive.
pub fn pack(dir: &Path, node: &str) -> io::Result<Diagnostics> {
    let mut tarball = Tarball::new("tidegate-backup", Wall::now());
    let mut contents = Vec::new();
    for (name, about) in [("startup.ini", "the startup params"), ("policy.toml", "the policy document in force")] {
        let bytes = fs::read(dir.join(name))?;
        tarball.add(name, &bytes)?;
        contents.push(DiagnosticsFile { name: name.into(), bytes: bytes.len() as u64, about: about.into() });
    }
    let time = dir.file_name().unwrap_or_default().to_string_lossy();
    Ok(Diagnostics {
        file_name: format!("tidegate-backup-{node}-{time}.tar.gz"),
        archive: data_encoding::BASE64.encode(&tarball.finish()?),
        contents,
    })
}

/// The names are times: they sort by age.
fn forget_oldest(backups: &Path) -> io::Result<()> {
    let mut kept = fs::read_dir(backups)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    kept.sort();
    let over = kept.len().saturating_sub(BACKUPS_KEPT_MAX);
    kept[..over].iter().try_for_each(fs::remove_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_kept_for_their_owner_alone_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let params = dir.path().join("startup.ini");
        fs::write(&params, "ROLE=\"slave\"\n").unwrap();
        let first = keep(dir.path(), &params, "one").unwrap();
        for _ in 0..BACKUPS_KEPT_MAX {
            keep(dir.path(), &params, "more").unwrap();
        }
        assert!(!first.exists());
        let kept: Vec<_> =
            fs::read_dir(dir.path().join("backups")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept.len(), BACKUPS_KEPT_MAX);
        let packed = pack(&kept[0], "s1").unwrap();
        assert!(packed.file_name.starts_with("tidegate-backup-s1-2") && packed.file_name.ends_with("Z.tar.gz"));
        assert_eq!(packed.contents.iter().map(|file| file.bytes).collect::<Vec<_>>(), [13, 4]);
    }
}
