//! Work that computes for long and that nobody waits for, on a processor that a data core may share: hashing a policy of hundreds of
//! megabytes. A thread that merely goes behind the data cores still keeps one that wakes waiting, now
//! and then, until the scheduler's next tick (4 ms). So this work goes on threads of its own that anybody who wakes displaces at once.

use crate::base::clock::Mono;
use crate::limits::ASIDE_PAUSE_MS;
use crate::sys::affinity;
use std::time::Duration;

/// Does such work, but no longer aside once it had to wait for long: where processors have no time left over, it must get done, too.
pub struct Aside {
    /// A piece of work that took longer has had to wait.
    slow_ms: u64,
    /// Until then work is done as other work is.
    pause_until: Option<Mono>,
}

impl Aside {
    /// Whose pieces of work take less than this where there is time for them, in milliseconds.
    pub fn new(slow_ms: u64) -> Aside {
        Aside { slow_ms, pause_until: None }
    }

    /// Does `work`; the error says why it cannot.
    pub async fn work<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let began = Mono::now();
        if self.pause_until.is_some_and(|until| began < until) {
            return tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string());
        }
        // The thread that waits for it is one of those that may block.
        let waits = tokio::task::spawn_blocking(move || on_its_own_thread(work));
        let result = waits.await.map_err(|error| error.to_string()).and_then(|result| result);
        let now = Mono::now();
        if now.micros_since(began) >= self.slow_ms * 1_000 {
            self.pause_until = Some(Mono(now.0 + Duration::from_millis(ASIDE_PAUSE_MS)));
        }
        result
    }
}

fn on_its_own_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let thread = std::thread::Builder::new().name("aside".to_string()).spawn(|| {
        affinity::go_aside();
        work()
    });
    let thread = thread.map_err(|error| format!("starting a thread: {error}"))?;
    thread.join().map_err(|_| "the thread that worked on it panicked".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> String {
        std::thread::current().name().unwrap_or_default().to_string()
    }

    #[tokio::test]
    async fn work_that_had_to_wait_is_followed_by_work_that_goes_with_all_other() {
        let mut aside = Aside::new(10_000);
        assert_eq!(aside.work(name).await.unwrap(), "aside");
        assert_eq!(aside.work(name).await.unwrap(), "aside");
        let mut never_fast_enough = Aside::new(0);
        assert_eq!(never_fast_enough.work(name).await.unwrap(), "aside");
        assert_ne!(never_fast_enough.work(name).await.unwrap(), "aside");
        never_fast_enough.pause_until = Some(Mono::now());
        assert_eq!(never_fast_enough.work(name).await.unwrap(), "aside", "the pause is over");
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_in_words() {
        let failing = || -> u8 { panic!("the work fails") };
        let error = Aside::new(1_000).work(failing).await.unwrap_err();
        assert!(error.contains("panicked"), "{error}");
    }
}
