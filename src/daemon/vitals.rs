//! Whether the node really turns: what the watchdog is told only if it holds. A process can be there and answer nothing, because
//! one thread of it hangs.

use super::publish::Publisher;
use crate::limits::CONTROL_TICK_MS;
use crate::log::LogTurns;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// What is looked at.
pub struct Vitals {
    publisher: Arc<Publisher>,
    log: LogTurns,
    control: Handle,
    /// Grows as the control threads' timers do.
    ticks: Arc<AtomicU64>,
    tasks: Vec<(&'static str, AbortHandle)>,
    before: Vec<Sign>,
}

/// One thread's sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sign {
    name: String,
    /// Grows as it turns.
    count: u64,
    /// It has nothing to do, and may stand still.
    resting: bool,
}

impl Vitals {
    /// `tasks` are those that must not end before the node does.
    pub fn new(
        publisher: Arc<Publisher>,
        log: LogTurns,
        control: Handle,
        tasks: Vec<(&'static str, AbortHandle)>,
    ) -> Vitals {
        let ticks = Arc::new(AtomicU64::new(0));
        let ticking = ticks.clone();
        // A thread that hangs while it waits for the network for all of them rests by its own account: this tells.
        control.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(CONTROL_TICK_MS)).await;
                ticking.fetch_add(1, Ordering::Relaxed);
            }
        });
        Vitals { publisher, log, control, ticks, tasks, before: Vec::new() }
    }

    /// What has not turned since the look before, in words; nothing if all is well.
    pub fn look(&mut self) -> Vec<String> {
        let now = self.signs();
        let mut stuck = stuck(&self.before, &now);
        self.before = now;
        let ended = self.tasks.iter().filter(|(_, task)| task.is_finished());
        stuck.extend(ended.map(|(name, _)| format!("{name} has ended")));
        stuck
    }

    fn signs(&self) -> Vec<Sign> {
        let cores = self.publisher.turns().into_iter().enumerate();
        let mut signs: Vec<Sign> =
            cores.map(|(index, count)| Sign { name: format!("data core {index}"), count, resting: false }).collect();
        signs.push(Sign { name: "the writer of extended.log".to_string(), count: self.log.count(), resting: false });
        let ticks = self.ticks.load(Ordering::Relaxed);
        signs.push(Sign { name: "the control threads' clock".to_string(), count: ticks, resting: false });
        let metrics = self.control.metrics();
        signs.extend((0..metrics.num_workers()).map(|index| {
            let count = metrics.worker_park_unpark_count(index);
            // An odd number of parkings and unparkings: it is parked.
            Sign { name: format!("control thread {index}"), count, resting: count % 2 == 1 }
        }));
        signs
    }
}

/// Who stands still between two looks without resting. Who was not there at the first one is given time to the next.
fn stuck(before: &[Sign], now: &[Sign]) -> Vec<String> {
    let stands = |sign: &&Sign| !sign.resting && before.contains(sign);
    now.iter().filter(stands).map(|sign| format!("{} does not turn", sign.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(name: &str, count: u64, resting: bool) -> Sign {
        Sign { name: name.into(), count, resting }
    }

    #[test]
    fn who_stands_still_is_named_unless_it_rests_or_is_new() {
        let before = [sign("core 0", 7, false), sign("core 1", 7, false), sign("control 0", 3, true)];
        let now = [
            sign("core 0", 8, false),
            sign("core 1", 7, false),
            sign("control 0", 3, true),
            sign("control 1", 0, false),
        ];
        assert_eq!(stuck(&before, &now), ["core 1 does not turn"]);
        assert_eq!(stuck(&[], &now), Vec::<String>::new());
    }

    #[test]
    fn a_control_thread_that_blocks_is_noticed_and_an_idle_one_is_not() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let (entered, entering) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let _ = entered.send(());
            let _ = blocked.recv();
        });
        entering.recv().unwrap();
        let signs = || {
            let metrics = runtime.metrics();
            let one = |index| {
                let count = metrics.worker_park_unpark_count(index);
                sign(&format!("{index}"), count, count % 2 == 1)
            };
            (0..2).map(one).collect::<Vec<_>>()
        };
        let deadline = std::time::Duration::from_secs(20);
        let begun = crate::base::clock::Mono::now();
        loop {
            let before = signs();
            std::thread::sleep(std::time::Duration::from_millis(50));
            if stuck(&before, &signs()).len() == 1 {
                break;
            }
            assert!(crate::base::clock::Mono::now().micros_since(begun) < deadline.as_micros() as u64, "{before:?}");
        }
        release.send(()).unwrap();
        loop {
            let before = signs();
            std::thread::sleep(std::time::Duration::from_millis(50));
            if stuck(&before, &signs()).is_empty() {
                break;
            }
            assert!(crate::base::clock::Mono::now().micros_since(begun) < deadline.as_micros() as u64, "{before:?}");
        }
    }
}
