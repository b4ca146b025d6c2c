//! Noticing that one file changed, also when editors and our own writer replace it by renaming another over it.

use notify::Event;
use notify::EventKind;
use notify::RecommendedWatcher;
use notify::RecursiveMode;
use notify::Watcher;
use notify::event::AccessKind;
use notify::event::AccessMode;
use notify::event::ModifyKind;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Keeps watching until it is dropped.
pub struct FileWatch {
    _watcher: RecommendedWatcher,
}

/// Watches the file at `path`, which need not exist yet; its folder must. The receiver gets a `()` after each change; changes
/// that come faster than they are taken become one. A file that is being written is reported when it is closed, so that
/// nobody reads half of it.
pub fn watch(path: &Path) -> io::Result<(FileWatch, mpsc::Receiver<()>)> {
    let (changed, receiver) = mpsc::channel(1);
    let files = names_of(path)?;
    let watched = files.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error means that events were lost: better to look once too often.
        let looks =
            event.map_or(true, |event| is_change(event.kind) && event.paths.iter().any(|path| watched.contains(path)));
        if looks {
            let _ = changed.try_send(());
        }
    })
    .map_err(io::Error::other)?;
    // The folders, not the files: a watch on a file stays with the old one when another is renamed over it.
    let folders: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent().map(Path::to_path_buf)).collect();
    for folder in folders {
        watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
    }
    Ok((FileWatch { _watcher: watcher }, receiver))
}

/// The file by its own name and, if it is a link, by the name it leads to.
fn names_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut names = vec![folder.canonicalize()?.join(name)];
    if let Ok(real) = path.canonicalize()
        && !names.contains(&real)
    {
        names.push(real);
    }
    Ok(names)
}

/// Creation is left out: the closing after the first write follows it, or the renaming is an event of its own.
fn is_change(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn told(receiver: &mut mpsc::Receiver<()>, within_ms: u64) -> bool {
        timeout(Duration::from_millis(within_ms), receiver.recv()).await.is_ok()
    }

    #[tokio::test]
    async fn writes_renames_and_removal_are_told_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("startup.ini");
        let (_watch, mut receiver) = watch(&path).unwrap();
        let beside = dir.path().join("beside");
        fs::write(&beside, "x").unwrap();
        assert!(!told(&mut receiver, 300).await, "another file of the folder");
        fs::write(&path, "one").unwrap();
        assert!(told(&mut receiver, 5_000).await, "a first write");
        // Twice: a watch on the file itself would stay with the replaced one.
        for round in ["first", "second"] {
            while told(&mut receiver, 100).await {}
            fs::write(&beside, "two").unwrap();
            fs::rename(&beside, &path).unwrap();
            assert!(told(&mut receiver, 5_000).await, "the {round} rename");
        }
        while told(&mut receiver, 100).await {}
        fs::remove_file(&path).unwrap();
        assert!(told(&mut receiver, 5_000).await, "removal");
    }

    #[tokio::test]
    async fn a_link_is_watched_at_both_ends_and_reading_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let (path, real) = (dir.path().join("startup.ini"), elsewhere.path().join("real.ini"));
        fs::write(&real, "one").unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        let (_watch, mut receiver) = watch(&path).unwrap();
        fs::read(&path).unwrap();
        assert!(!told(&mut receiver, 300).await, "reading");
        fs::write(&real, "two").unwrap();
        assert!(told(&mut receiver, 5_000).await, "a write to what the link leads to");
    }
}
