//! The snapshot in force, and how another one takes its place: prepared on every core, then committed on every core; if one
//! core cannot prepare, all keep the old.

use crate::admin::Memory;
use crate::cluster::Enforced;
use crate::cluster::protocol::hash_text;
use crate::limits::SNAPSHOT_LET_GO_MS;
use crate::limits::SWAP_MS_MAX;
use crate::policy::Publish;
use crate::policy::Snapshot;
use crate::proxy::CoreHandle;
use crate::proxy::CoreTotals;
use crate::proxy::Tuning;
use crate::proxy::effect_mark;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// Swaps snapshots on the cores of this node.
pub struct Publisher {
    cores: Mutex<Arc<Vec<CoreHandle>>>,
    current: watch::Sender<Arc<Snapshot>>,
    /// One swap at a time, or two could interleave their steps.
    turn: tokio::sync::Mutex<()>,
}

impl Publisher {
    /// `snapshot` is what the cores were started with.
    pub fn new(cores: Vec<CoreHandle>, snapshot: Arc<Snapshot>) -> Arc<Self> {
        let current = watch::Sender::new(snapshot);
        Arc::new(Publisher { cores: Mutex::new(Arc::new(cores)), current, turn: tokio::sync::Mutex::new(()) })
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// What the cores decide by, as they say themselves.
    pub fn enforced(&self) -> Enforced {
        let current = self.current();
        let apart = |core: &CoreHandle| core.enforces() != effect_mark(&current);
        let trouble = match self.cores().iter().position(apart) {
            Some(core) => format!("Its core {core} decides by another policy than {}. Restart it.", current.name()),
            None => String::new(),
        };
        let own_sections = current.own_sections().iter().map(|name| name.to_string()).collect();
        Enforced { effect: hash_text(current.effect()), own_sections, trouble }
    }

    /// To wait for the next one (the master's long polls do).
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// What all cores have counted.
    pub fn totals(&self) -> CoreTotals {
        self.cores().iter().map(CoreHandle::totals).fold(CoreTotals::default(), |sum, core| sum + core)
    }

    /// Puts `snapshot` in force on all cores, or on none. `keep` runs between the two steps: whoever must store the
    /// snapshot durably does it there, and its failure calls the swap off too.
    pub async fn publish(
        &self,
        snapshot: Arc<Snapshot>,
        keep: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let cores = self.cores();
        for (index, core) in cores.iter().enumerate() {
            if let Err(words) = step(index, "prepare", core.prepare(snapshot.clone())).await {
                self.call_off(&cores).await;
                return Err(words);
            }
        }
        if let Err(words) = keep() {
            self.call_off(&cores).await;
            return Err(words);
        }
        let mut late = Vec::new();
        for (index, core) in cores.iter().enumerate() {
            // A prepared core commits with one store: it can be late, not unable. The others must not wait behind it
            // with another policy.
            late.extend(step(index, "commit", core.commit()).await.err());
        }
        let _letting_go = let_go(self.current.send_replace(snapshot));
        if late.is_empty() { Ok(()) } else { Err(late.join("; ")) }
    }

    /// The same as a function value, for the sidecar (which has stored the snapshot before).
    pub fn as_publish(self: &Arc<Self>) -> Publish {
        let publisher = self.clone();
        Arc::new(move |snapshot| {
            let publisher = publisher.clone();
            Box::pin(async move { publisher.publish(snapshot, || Ok(())).await })
        })
    }

    /// Hands every core how it is tuned from now on.
    pub async fn tune(&self, tuning: Tuning) {
        for (index, core) in self.cores().iter().enumerate() {
            if let Err(words) = step(index, "tune", core.tune(tuning.clone())).await {
                tracing::error!(
                    event = "core-trouble",
                    core = index,
                    "changed startup params: {words}; a restart puts them in force"
                );
            }
        }
    }

    /// Has every core close its connections after their answers, or keep them again.
    pub async fn close_after_answers(&self, close: bool) {
        for (index, core) in self.cores().iter().enumerate() {
            if let Err(words) = step(index, "close after answers", core.close_after_answers(close)).await {
                tracing::error!("draining: {words}; that core's clients stay until they leave by themselves");
            }
        }
    }

    /// Empties `memory` on every core; says how much was in it. A core that does not answer keeps none of the others from it.
    pub async fn flush(&self, memory: Memory) -> Result<u64, String> {
        let (mut flushed, mut troubles) = (0, Vec::new());
        for (index, core) in self.cores().iter().enumerate() {
            let step = match memory {
                Memory::Dns => step(index, "forget names", core.forget_names()).await,
                Memory::Pools => step(index, "close idle connections", core.close_idle()).await,
            };
            match step {
                Ok(count) => flushed += count,
                Err(words) => troubles.push(words),
            }
        }
        if troubles.is_empty() { Ok(flushed) } else { Err(troubles.join("; ")) }
    }

    /// Stops accepting on every core; connections go on, but with `end_idle` those that wait for a next request.
    pub async fn stand_aside(&self, end_idle: bool) {
        for (index, core) in self.cores().iter().enumerate() {
            if let Err(words) = step(index, "stop accepting", core.stand_aside(end_idle)).await {
                tracing::warn!("{words}");
            }
        }
    }

    /// Waits until no connection is left, at most `within`.
    pub async fn until_idle(&self, within: Duration) {
        let idle = async {
            while self.totals().connections_open > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(within, idle).await;
    }

    /// How often each core has turned.
    pub fn turns(&self) -> Vec<u64> {
        self.cores().iter().map(CoreHandle::turns).collect()
    }

    /// Stops accepting on every core and waits for what is under way, at most `within`.
    pub async fn drain(&self, within: Duration) {
        let cores = self.cores();
        let drains: Vec<_> = (0..cores.len())
            .map(|index| {
                let cores = cores.clone();
                tokio::spawn(async move { cores[index].drain(within).await })
            })
            .collect();
        for drain in drains {
            match tokio::time::timeout(within + Duration::from_millis(SWAP_MS_MAX), drain).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(words))) => tracing::warn!(event = "core-trouble", "draining a core: {words}"),
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(event = "core-trouble", "a core did not drain in time; its connections are cut")
                }
            }
        }
    }

    /// Waits for the cores' threads. After [`Publisher::drain`].
    pub fn join(&self) {
        let cores = std::mem::take(&mut *self.lock());
        match Arc::try_unwrap(cores) {
            Ok(cores) => cores.into_iter().for_each(CoreHandle::join),
            Err(_) => {
                tracing::warn!(event = "core-trouble", "somebody still holds the cores; they end with the process")
            }
        }
    }

    async fn call_off(&self, cores: &[CoreHandle]) {
        for (index, core) in cores.iter().enumerate() {
            if let Err(words) = step(index, "abort", core.abort()).await {
                tracing::warn!(event = "core-trouble", core = index, "calling a policy swap off: {words}");
            }
        }
    }

    fn cores(&self) -> Arc<Vec<CoreHandle>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Vec<CoreHandle>>> {
        // Nothing panics while holding it; were it so, the handles would still be whole.
        self.cores.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Keeps a snapshot that was replaced until nobody else does: who holds it last unmaps it, which takes milliseconds for millions of
/// hosts, and that must not be a data core in the middle of its requests.
fn let_go(replaced: Arc<Snapshot>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while Arc::strong_count(&replaced) > 1 {
            tokio::time::sleep(Duration::from_millis(SNAPSHOT_LET_GO_MS)).await;
        }
        // Its pages are given back off the threads that wait for the network, too.
        let _ = tokio::task::spawn_blocking(move || drop(replaced)).await;
    })
}

async fn step<T>(index: usize, name: &str, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(Duration::from_millis(SWAP_MS_MAX), asked).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(words)) => Err(format!("{name} on core {index}: {words}")),
        Err(_) => Err(format!("{name} on core {index}: no answer within {SWAP_MS_MAX} ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_snapshot_is_not_let_go_by_the_core_that_used_it_last() {
        let replaced = Arc::new(Snapshot::builtin());
        let (weak, on_a_core) = (Arc::downgrade(&replaced), replaced.clone());
        let letting_go = let_go(replaced);
        tokio::time::sleep(Duration::from_millis(50)).await; // it looks for the first time
        std::thread::spawn(move || drop(on_a_core)).join().unwrap();
        assert!(weak.upgrade().is_some(), "the core only put it down");
        tokio::time::timeout(Duration::from_secs(10), letting_go).await.expect("let go soon").unwrap();
        assert!(weak.upgrade().is_none());
    }
}
