//! The spools of processes that stood aside: each still finishes what was under way when it was succeeded, and closes the
//! records of that in its own spool. The successor's writer, which alone appends to extended.log, finds them there.
//!
//! A living process holds the lock of its spool file; who can take the lock knows that nobody changes the file any more.

use crate::limits::LEFT_OVER_FILE_FIRST;
use crate::limits::LEFT_OVER_PROCESSES_MAX;
use crate::log::body;
use crate::log::slots::Spool;
use crate::log::slots::State;
use crate::log::unrecorded;
use crate::record::Ended;
use crate::sys::process;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// The spool of a process that stood aside.
pub struct LeftOver {
    path: PathBuf,
    pub spool: Spool,
    /// Its process has ended.
    over: bool,
}

impl LeftOver {
    /// Takes a predecessor's spool over, of one that lives or is gone (`over`): under a name that no core of this process uses.
    pub fn adopt(path: PathBuf, spool: Spool, over: bool) -> io::Result<LeftOver> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix("core-")?.parse::<u32>().ok();
        if number(&path).is_some_and(|number| number >= LEFT_OVER_FILE_FIRST) {
            return Ok(LeftOver { path, spool, over });
        }
        let taken = fs::read_dir(dir)?.filter_map(|entry| number(&entry.ok()?.path()));
        // Behind the newest, so that a lower number is an older process.
        let free = taken.max().map_or(0, |last| last.saturating_add(1)).max(LEFT_OVER_FILE_FIRST);
        let aside = dir.join(format!("core-{free}"));
        fs::rename(&path, &aside)?;
        Ok(LeftOver { path: aside, spool, over })
    }

    /// Looks whether its process still lives. Before a look through the slots: what a dead one stored last is then seen.
    pub fn look(&mut self) {
        if !self.over && self.spool.take_over() {
            self.spool.free_doubles();
            self.over = true;
        }
    }

    /// The record of `slot` if it is to be written now, to `body` and with its numbers: it is closed, or will never be. A slot
    /// that holds none any more is freed.
    pub fn finished(&self, slot: u32, body: &mut Vec<u8>) -> Option<Ended> {
        let state = self.spool.state(slot);
        if state == State::Free || (state == State::Open && !self.over) {
            return None;
        }
        if !self.spool.recover_body(slot, body) || body::read_body(body).is_none() {
            // Its core had not finished opening it, so its client had received nothing.
            self.spool.set_state(slot, State::Free);
            return None;
        }
        let ended = self.spool.numbers(slot);
        Some(if state == State::Open { ended.killed() } else { ended })
    }

    /// Whether nothing more can come. Then its file is gone.
    pub fn is_finished(&self) -> bool {
        if !self.over
            || !unrecorded::is_told(&self.spool)
            || (0..self.spool.size().slots()).any(|slot| self.spool.state(slot) != State::Free)
        {
            return false;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("removing the empty record spool {}: {error}; the next start does", self.path.display());
        }
        true
    }
}

/// The processes behind `left_over`, oldest first.
pub fn owners(left_over: &[LeftOver]) -> Vec<u32> {
    let mut owners: Vec<u32> = Vec::new();
    for pid in left_over.iter().filter(|one| !one.over).map(|one| one.spool.owner()) {
        if pid != 0 && !owners.contains(&pid) {
            owners.push(pid);
        }
    }
    owners
}

/// Tells the oldest to end where there are too many.
pub fn bound(left_over: &[LeftOver]) {
    let owners = owners(left_over);
    let too_many = owners.len().saturating_sub(LEFT_OVER_PROCESSES_MAX);
    owners.into_iter().take(too_many).for_each(dismiss);
}

/// Tells process `pid`, which holds the lock of its spool and so lives, to end.
pub fn dismiss(pid: u32) {
    tracing::info!("telling the former process {pid} to end");
    if let Err(error) = process::terminate(pid) {
        tracing::warn!("telling the former process {pid} to end: {error}");
    }
}
