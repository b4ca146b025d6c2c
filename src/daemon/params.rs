//! startup.ini while the node runs: a change is noticed, applied live where the table says so, and otherwise waits.

use super::journal::Journal;
use crate::admin::Complaint;
use crate::admin::Outcome;
use crate::admin::Param;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::settings;
use crate::settings::Fault;
use crate::settings::LogLevel;
use crate::settings::Settings;
use crate::settings::TABLE;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use tokio::sync::watch;

/// The startup params in force, those in the file, and what differs.
pub struct Params {
    file: PathBuf,
    journal: Journal,
    /// Live params reach their users through this.
    in_force: watch::Sender<Settings>,
    state: Mutex<State>,
    /// One reader or writer of the file at a time: who submits is told what the submission changed, though the watcher
    /// notices the same change.
    turn: Mutex<()>,
}

#[derive(Default)]
struct State {
    waiting: Vec<String>,
    faults: Vec<Fault>,
}

impl Params {
    /// `settings` is what the node was started with.
    pub fn new(file: &Path, settings: Settings, journal: Journal) -> Self {
        let in_force = watch::Sender::new(settings);
        Params { file: file.to_path_buf(), journal, in_force, state: Mutex::default(), turn: Mutex::default() }
    }

    /// startup.ini.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The settings in force: live params change, all others are those of the start.
    pub fn watch(&self) -> watch::Receiver<Settings> {
        self.in_force.subscribe()
    }

    /// The last messages of this node; see [`Journal::recent`].
    pub fn messages(&self, clients: bool) -> String {
        self.journal.recent(clients)
    }

    /// Keys whose new value waits for a restart.
    pub fn waiting(&self) -> Vec<String> {
        self.state().waiting.clone()
    }

    /// Faults of the file as it stands.
    pub fn trouble(&self) -> Vec<String> {
        self.state().faults.iter().map(Fault::to_string).collect()
    }

    /// Reads the file again and takes over what may change live; answers which keys. A file with faults changes nothing.
    pub fn reload(&self) -> Vec<String> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match settings::load(&self.file) {
            Ok(loaded) => self.take_over(loaded.settings),
            Err(faults) => {
                let mut state = self.state();
                if state.faults != faults {
                    let words: Vec<_> = faults.iter().map(Fault::to_string).collect();
                    tracing::error!(
                        event = "params-faulty",
                        "startup params are kept as they were: {}",
                        words.join("; ")
                    );
                }
                state.faults = faults;
                Vec::new()
            }
        }
    }

    /// The same for whoever asks for it: a file with faults is a refusal that names each.
    pub fn reload_asked(&self) -> Result<Outcome, Refused> {
        let live = self.reload();
        let faults = self.state().faults.clone();
        if faults.is_empty() {
            Ok(Outcome::Submitted { live, waiting: self.waiting() })
        } else {
            Err(self.refused(faults))
        }
    }

    /// Whether a process could start by the file as it stands.
    pub fn check(&self) -> Result<(), Refused> {
        settings::load(&self.file).map(drop).map_err(|faults| self.refused(faults))
    }

    fn refused(&self, faults: Vec<Fault>) -> Refused {
        Refused {
            kind: RefusedKind::Invalid,
            words: format!("{} has faults; the startup params in force stay as they are", self.file.display()),
            complaints: faults.into_iter().map(complaint).collect(),
        }
    }

    fn take_over(&self, new: Settings) -> Vec<String> {
        let difference = settings::difference(&self.in_force.borrow(), &new);
        let mut state = self.state();
        state.faults.clear();
        let names = |keys: &[&str]| keys.iter().map(|key| key.to_string()).collect::<Vec<_>>();
        let waiting = names(&difference.waiting);
        if state.waiting != waiting && !waiting.is_empty() {
            tracing::warn!(event = "params-waiting", keys = %waiting.join(" "), "changed startup params wait for a restart: {}", waiting.join(", "));
        }
        state.waiting = waiting;
        drop(state);
        if difference.live.is_empty() {
            return Vec::new();
        }
        tracing::info!(event = "params-in-force", keys = %difference.live.join(" "), "changed startup params are in force: {}", difference.live.join(", "));
        self.journal.set_level(level(new.log_level));
        self.in_force.send_modify(|settings| {
            settings.sync_time = new.sync_time;
            settings.log_size_limit = new.log_size_limit;
            settings.log_sync_ms = new.log_sync_ms;
            settings.log_full = new.log_full;
            settings.keep_data_days = new.keep_data_days;
            settings.log_level = new.log_level;
            settings.proxy_protocol = new.proxy_protocol;
            settings.trusted_proxies = new.trusted_proxies;
            settings.metrics_allow = new.metrics_allow;
            settings.lb_weight = new.lb_weight;
            settings.node_labels = new.node_labels;
            settings.max_connections = new.max_connections;
            settings.max_connections_per_client = new.max_connections_per_client;
            settings.times = new.times;
        });
        names(&difference.live)
    }

    /// The table with values, for a form.
    pub fn show(&self) -> Result<Outcome, Refused> {
        // A file with faults still shows: who repairs it sees what is said, and the faults beside it in the status.
        let bytes = std::fs::read(&self.file)
            .map_err(|error| Refused::failed(format!("reading {}: {error}", self.file.display())))?;
        let (said, _) = settings::parse(&bytes);
        let in_force = self.in_force.borrow().clone();
        let waiting = self.waiting();
        let params = TABLE
            .iter()
            .map(|key| Param {
                key: key.name.to_string(),
                value: said.value(key).to_string(),
                default: key.default.to_string(),
                help: key.help.to_string(),
                accepts: key.accepts.to_string(),
                restart: !key.live(),
                in_force: in_force.text(key.name).filter(|_| waiting.iter().any(|name| name == key.name)),
            })
            .collect();
        Ok(Outcome::Params { file: self.file.display().to_string(), params })
    }

    /// Writes `values` to the file, all or none, and takes over what may change live.
    pub fn submit(&self, values: &BTreeMap<String, String>) -> Result<Outcome, Refused> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match settings::submit(&self.file, values) {
            Ok(loaded) => {
                let live = self.take_over(loaded.settings);
                Ok(Outcome::Submitted { live, waiting: self.waiting() })
            }
            Err(faults) => Err(Refused {
                kind: RefusedKind::Invalid,
                words: format!("{} was not changed", self.file.display()),
                complaints: faults.into_iter().map(complaint).collect(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding it leaves two lists of words, each whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// LOG_LEVEL in tracing's terms.
pub fn level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}

fn complaint(fault: Fault) -> Complaint {
    Complaint { line: fault.line, place: fault.key, what: format!("read {}", fault.read), remedy: fault.accepts }
}
