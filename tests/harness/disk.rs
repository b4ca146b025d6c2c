//! A small file system in a file, mounted over a folder: it can be filled without hurting anybody.

use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

/// A mounted one. It goes with the value.
pub struct Disk(PathBuf);

impl Disk {
    /// Makes one of so many MiB in the file `image` and mounts it at `place`; nothing if this may not mount.
    pub fn mount(image: &Path, place: &Path, mib: u64) -> Option<Disk> {
        fs::create_dir_all(place).unwrap();
        fs::File::create(image).and_then(|file| file.set_len(mib << 20)).unwrap();
        let quiet = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        // Nothing kept back for root, and no journal that grows: full is full.
        let made = quiet(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-O", "^has_journal"]).arg(image));
        let mounted = made && quiet(Command::new("mount").args(["-o", "loop"]).arg(image).arg(place));
        if !mounted {
            eprintln!("skipped: mounting a small file system needs root");
        }
        mounted.then(|| Disk(place.to_path_buf()))
    }

    /// Takes all room but so many KiB.
    pub fn fill(&self, but_kib: usize) {
        self.free();
        let mut filler = fs::File::create(self.filler()).unwrap();
        let block = vec![0u8; 1024];
        let mut kib = 0;
        let full = loop {
            match filler.write_all(&block) {
                Ok(()) => kib += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
        filler.set_len(u64::try_from(kib - but_kib.min(kib)).unwrap() * 1024).unwrap();
        // What is only promised to be written is not yet free.
        filler.sync_all().unwrap();
    }

    /// Gives it back.
    pub fn free(&self) {
        let _ = fs::remove_file(self.filler());
    }

    /// How many bytes are free, and how many there are.
    pub fn space(&self) -> (u64, u64) {
        tidegate::sys::host::space(&self.0).unwrap()
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
