//! Batches of records on their way into the store: bounded in bytes for all nodes together, and taken in turns, so that a node that
//! floods or dawdles takes neither memory nor time from the others.
//!
//! ```text
//! request -> room in bytes -> body read -> the node's turn -> a turn of all -> unpacked and stored -> answer
//!               (a newer batch of the same node ends an older one anywhere before the last step)
//! ```

use crate::limits::CLUSTER_INGESTS_MAX;
use crate::limits::CLUSTER_INTAKE_KIB;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::watch;

/// What all batches that come in share.
#[derive(Debug)]
pub(super) struct Intake {
    room_kib: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    nodes: Mutex<HashMap<String, Arc<Gate>>>,
}

/// One node's gate.
#[derive(Debug)]
struct Gate {
    /// The number of the newest batch.
    newest: watch::Sender<u64>,
    turn: Arc<Semaphore>,
}

/// A batch that is coming in. Its room in memory is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Coming {
    gate: Arc<Gate>,
    number: u64,
    turns: Arc<Semaphore>,
    _room: OwnedSemaphorePermit,
}

/// The right to store one batch; to be held until that is done.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: [OwnedSemaphorePermit; 2],
    _coming: Coming,
}

/// A newer batch of the same node has come: this one's sender has gone, or does not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overtaken;

impl Intake {
    pub(super) fn new() -> Intake {
        Intake {
            room_kib: Arc::new(Semaphore::new(CLUSTER_INTAKE_KIB as usize)),
            turns: Arc::new(Semaphore::new(CLUSTER_INGESTS_MAX)),
            nodes: Mutex::default(),
        }
    }

    /// A batch of `node` with `bytes` on the wire asks for room. Who asked first gets it first.
    pub(super) async fn enter(&self, node: &str, bytes: usize) -> Result<Coming, Overtaken> {
        let gate = self.gate(node);
        let mut number = 0;
        gate.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        let kib = (bytes as u64).div_ceil(1024).clamp(1, u64::from(CLUSTER_INTAKE_KIB)) as u32;
        let room = gate.unless_overtaken(number, self.room_kib.clone().acquire_many_owned(kib)).await?;
        // Closing a semaphore is the one error there is, and nobody does.
        let room = room.map_err(|_| Overtaken)?;
        Ok(Coming { gate, number, turns: self.turns.clone(), _room: room })
    }

    fn gate(&self, node: &str) -> Arc<Gate> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as have a batch under way, and one: bounded by the connections there may be.
        nodes.retain(|name, gate| name == node || Arc::strong_count(gate) > 1);
        let new = || Arc::new(Gate { newest: watch::channel(0).0, turn: Arc::new(Semaphore::new(1)) });
        nodes.entry(node.to_string()).or_insert_with(new).clone()
    }
}

impl Coming {
    /// Does something for this batch (reads it, say), unless a newer one comes meanwhile.
    pub(super) async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> Result<T, Overtaken> {
        self.gate.unless_overtaken(self.number, work).await
    }

    /// Waits for the node's turn, and for one among all.
    pub(super) async fn turn(self) -> Result<Turn, Overtaken> {
        let own = self.meanwhile(self.gate.turn.clone().acquire_owned()).await?.map_err(|_| Overtaken)?;
        let of_all = self.meanwhile(self.turns.clone().acquire_owned()).await?.map_err(|_| Overtaken)?;
        Ok(Turn { _permits: [own, of_all], _coming: self })
    }
}

impl Gate {
    async fn unless_overtaken<T>(&self, number: u64, work: impl Future<Output = T>) -> Result<T, Overtaken> {
        let mut newest = self.newest.subscribe();
        tokio::select! {
            biased;
            _ = newest.wait_for(|newest| *newest > number) => Err(Overtaken),
            done = work => Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn waits<T>(work: impl Future<Output = T>) -> bool {
        tokio::time::timeout(Duration::from_millis(50), work).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_has_one_turn_at_a_time_and_its_newer_batch_ends_the_older_one() {
        let intake = Intake::new();
        let storing = intake.enter("s1", 1_000).await.unwrap().turn().await.unwrap();
        let second = intake.enter("s1", 1_000).await.unwrap();
        let waiting = tokio::spawn(second.turn());
        tokio::task::yield_now().await;
        let third = intake.enter("s1", 1_000).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap_err(), Overtaken);
        assert!(waits(third.meanwhile(std::future::pending::<()>())).await, "the newest goes on");
        let third = tokio::spawn(third.turn());
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "until the first is stored");
        drop(storing);
        drop(third.await.unwrap().unwrap());
        assert_eq!(intake.nodes.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_and_room_are_shared_and_whoever_waits_longest_is_next() {
        let intake = Intake::new();
        let whole = CLUSTER_INTAKE_KIB as usize * 1024;
        let large = intake.enter("large", whole).await.unwrap();
        assert!(waits(intake.enter("s1", 1)).await, "no room");
        drop(large);
        let mut turns = Vec::new();
        for node in 0..CLUSTER_INGESTS_MAX {
            turns.push(intake.enter(&format!("s{node}"), 10).await.unwrap().turn().await.unwrap());
        }
        assert!(waits(intake.enter("one-more", 10).await.unwrap().turn()).await, "no turn");
        turns.pop();
        assert!(intake.enter("one-more", 10).await.unwrap().turn().await.is_ok());
        turns.clear();
        assert_eq!(intake.room_kib.available_permits(), CLUSTER_INTAKE_KIB as usize);
    }
}
