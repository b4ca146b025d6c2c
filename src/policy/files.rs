//! Files that a policy document names (category lists), read on the node that authors it.

use std::fs::File;
use std::io::Read;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

/// Where compile finds the files that a document names.
pub trait Files {
    /// The content of `name`, at most `limit` bytes, or what is wrong and what to do.
    fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>, String>;
}

/// No files: a document that names one gets a complaint.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _name: &str, _limit: usize) -> Result<Vec<u8>, String> {
        Err("this document has no folder to read files from; write the hosts into the document".to_string())
    }
}

/// The files of one folder and its subfolders, and of no other place.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Folder(path.into())
    }

    /// The folder that the document at `path` lies in.
    pub fn of_document(path: &Path) -> Self {
        Folder(path.parent().unwrap_or(Path::new(".")).to_path_buf())
    }
}

impl Files for Folder {
    fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>, String> {
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !inside {
            return Err("the path must lie inside the document's folder: no leading `/`, no `..`".to_string());
        }
        let path = self.0.join(name);
        let real = path.canonicalize().map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        let root = self.0.canonicalize().map_err(|error| format!("cannot open {}: {error}", self.0.display()))?;
        if !real.starts_with(&root) {
            return Err(format!("{} is a link to a place outside the document's folder", path.display()));
        }
        if !real.is_file() {
            return Err(format!("{} is not a regular file", path.display()));
        }
        read_at_most(&real, limit).map_err(|error| format!("cannot read {}: {error}", path.display()))
    }
}

fn read_at_most(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_inside_the_folder_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("policy");
        std::fs::create_dir_all(inside.join("lists")).unwrap();
        std::fs::write(inside.join("lists/ads.txt"), "ads.example\n").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), inside.join("link")).unwrap();
        let folder = Folder::of_document(&inside.join("policy.toml"));
        assert_eq!(folder.read("lists/ads.txt", 100).unwrap(), b"ads.example\n");
        let absolute = dir.path().join("secret").display().to_string();
        for (name, says) in [
            ("", "must lie inside"),
            ("../secret", "must lie inside"),
            ("lists/../../secret", "must lie inside"),
            (absolute.as_str(), "must lie inside"),
            ("link", "link to a place outside"),
            ("lists", "not a regular file"),
            ("missing", "cannot open"),
        ] {
            let words = folder.read(name, 100).unwrap_err();
            assert!(words.contains(says), "{name}: {words}");
        }
        assert!(folder.read("lists/ads.txt", 5).unwrap_err().contains("larger than 5"));
        assert!(NoFiles.read("x", 1).is_err());
    }
}
