//! The daemon's own messages: to journald under systemd, to standard error otherwise; the level changes live.

use std::sync::Mutex;
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Changes the level of what is written, while the daemon runs.
pub struct Journal {
    level: Mutex<reload::Handle<LevelFilter, Registry>>,
}

impl Journal {
    /// Starts writing messages of `level` and above. To be called once, before the first message.
    pub fn start(level: Level) -> Self {
        let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
        let registry = tracing_subscriber::registry().with(filter);
        // systemd sets JOURNAL_STREAM for a service whose output goes to the journal: then structured fields are worth
        // more than lines of text.
        let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
        let result = match journald {
            Some(layer) => registry.with(layer).try_init(),
            None => registry
                .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false))
                .try_init(),
        };
        if let Err(error) = result {
            eprintln!("tidegate: messages were set up twice in one process ({error}); the first set-up stays");
        }
        Journal { level: Mutex::new(handle) }
    }

    /// From now on writes messages of `level` and above.
    pub fn set_level(&self, level: Level) {
        if let Ok(handle) = self.level.lock() {
            let _ = handle.modify(|filter| *filter = LevelFilter::from_level(level));
        }
    }
}
