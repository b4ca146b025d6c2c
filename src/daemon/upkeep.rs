//! What is done to a node now and then while it serves: memories emptied, another log file begun, a copy kept.

use super::backup;
use super::desk::NodeDesk;
use crate::admin::Memory;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::limits::LOG_ROTATE_MS;
use std::time::Duration;

/// Empties what the node remembers of its way out.
pub async fn flush(desk: &NodeDesk, memory: Memory) -> Result<Outcome, Refused> {
    let flushed = desk.publisher.flush(memory).await.map_err(|words| {
        Refused::failed(format!(
            "flushing {memory}: {words}. The other cores are flushed; ask again or restart the node"
        ))
    })?;
    let words = match memory {
        Memory::Dns => {
            format!("{flushed} names forgotten, counted on each core: the next requests ask the name servers")
        }
        Memory::Pools => format!("{flushed} idle connections closed: the next requests open new ones"),
    };
    Ok(Outcome::Done { words })
}

/// Has another file of extended.log begun.
pub async fn rotate_logs(desk: &NodeDesk) -> Result<Outcome, Refused> {
    let before = desk.views.progress.borrow().written;
    match desk.views.rotation.rotate(Duration::from_millis(LOG_ROTATE_MS)).await {
        true => Ok(Outcome::Done { words: format!("extended.log begins anew after record {before} or a later one") }),
        false => Err(Refused::failed(format!(
            "rotating extended.log: its writer did not come to it within {LOG_ROTATE_MS} ms; it will once it can write (tidegate status)"
        ))),
    }
}

/// Keeps a copy of startup params and policy, and answers with it.
pub async fn back_up(desk: &NodeDesk) -> Result<Outcome, Refused> {
    let (state_dir, params, node) = (desk.facts.state_dir.clone(), desk.params.clone(), desk.facts.name.clone());
    let snapshot = desk.publisher.current();
    let made = tokio::task::spawn_blocking(move || {
        let dir = backup::keep(&state_dir, params.file(), snapshot.document())?;
        backup::pack(&dir, &node)
    });
    match made.await.map_err(std::io::Error::other).and_then(|made| made) {
        Ok(archive) => Ok(Outcome::Backup(Box::new(archive))),
        Err(error) => Err(Refused::failed(format!("keeping a copy of startup params and policy: {error}"))),
    }
}
