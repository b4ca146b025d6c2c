//! The daemon's own messages: to journald with fields under systemd, to standard error otherwise, and the last ones in memory
//! for diagnostics. The level changes live. What each level and field means stands in `docs/journal.md`.

use crate::base::clock::Wall;
use crate::base::words;
use crate::limits::MESSAGE_CHARS_MAX;
use crate::limits::MESSAGES_KEPT_MAX;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing_journald::Priority;
use tracing_journald::PriorityMappings;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Changes the level of what is written, while the daemon runs, and knows what was said last.
pub struct Journal {
    level: Mutex<reload::Handle<LevelFilter, Registry>>,
    recent: Arc<Recent>,
}

impl Journal {
    /// Starts writing messages of `level` and above, each marked with the node's name and role. To be called once, before the
    /// first message.
    pub fn start(level: Level, node: &str, role: &str) -> Self {
        let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
        let recent = Arc::new(Recent::default());
        let registry = tracing_subscriber::registry().with(filter).with(Remember(recent.clone()));
        let journald = std::env::var_os("JOURNAL_STREAM").filter(|stream| is_standard_error(stream));
        let result = match journald.and_then(|_| tracing_journald::layer().ok()) {
            Some(layer) => registry.with(named(layer, node, role)).try_init(),
            None => registry.with(on_standard_error()).try_init(),
        };
        if let Err(error) = result {
            eprintln!("tidegate: messages were set up twice in one process ({error}); the first set-up stays");
        }
        Journal { level: Mutex::new(handle), recent }
    }

    /// From now on writes messages of `level` and above.
    pub fn set_level(&self, level: Level) {
        if let Ok(handle) = self.level.lock() {
            let _ = handle.modify(|filter| *filter = LevelFilter::from_level(level));
        }
    }

    /// The last messages, oldest first, a line each. Without `clients`, a client's address in them is left out.
    pub fn recent(&self, clients: bool) -> String {
        self.recent.text(clients)
    }
}

/// systemd names the journal's end of standard error in JOURNAL_STREAM, device and inode. A program that a service starts
/// inherits the variable and may have its standard error elsewhere: then that is where messages belong.
fn is_standard_error(stream: &OsStr) -> bool {
    let here = fs::metadata("/proc/self/fd/2").map(|meta| format!("{}:{}", meta.dev(), meta.ino()));
    here.is_ok_and(|here| stream == OsStr::new(&here))
}

/// Fields under their own names, so that `journalctl -u tidegate NODE=slave-1` finds what it says; levels as syslog means them.
fn named(layer: tracing_journald::Layer, node: &str, role: &str) -> tracing_journald::Layer {
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    layer
        .with_field_prefix(None)
        .with_syslog_identifier("tidegate".to_string())
        .with_priority_mappings(priorities)
        .with_custom_fields([("NODE", node), ("ROLE", role)])
}

/// Sentences alone: what the fields say stands in them too.
fn on_standard_error<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let fields = format::debug_fn(|writer: &mut format::Writer, field: &Field, value: &dyn fmt::Debug| {
        if field.name() == MESSAGE { write!(writer, "{}", words::tame(&format!("{value:?}"))) } else { Ok(()) }
    });
    tracing_subscriber::fmt::layer().fmt_fields(fields).with_writer(std::io::stderr).with_ansi(false).with_target(false)
}

/// The field that holds the sentence.
const MESSAGE: &str = "message";
/// The field that holds a client's address.
const CLIENT: &str = "client_id";

/// The last messages.
#[derive(Default)]
struct Recent(Mutex<VecDeque<Said>>);

/// One message.
#[derive(Default)]
struct Said {
    at: Wall,
    level: &'static str,
    text: String,
    /// The address of the client it is about; empty if of none.
    client: String,
}

impl Recent {
    fn text(&self, clients: bool) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for said in kept.iter() {
            let at = jiff::Timestamp::from_microsecond(said.at.0).unwrap_or_default();
            let words = match clients || said.client.is_empty() {
                true => said.text.clone(),
                false => said.text.replace(&said.client, "(client)"),
            };
            let _ = writeln!(text, "{} {:5} {words}", at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"), said.level);
        }
        text
    }
}

/// The layer that keeps them.
struct Remember(Arc<Recent>);

impl<S: Subscriber> Layer<S> for Remember {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said { at: Wall::now(), level: event.metadata().level().as_str(), ..Said::default() };
        event.record(&mut said);
        // A data core may be speaking, and a data core waits for nobody: while the list is being read, its line is in the
        // journal alone.
        if let Ok(mut kept) = self.0.0.try_lock() {
            if kept.len() >= MESSAGES_KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back(said);
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            MESSAGE => self.text = words::tame(&format!("{value:?}")).chars().take(MESSAGE_CHARS_MAX).collect(),
            CLIENT => self.client = format!("{value:?}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_messages_are_kept_within_their_bound_and_a_client_is_left_out_unless_asked_for() {
        let recent = Arc::new(Recent::default());
        let subscriber = tracing_subscriber::registry().with(Remember(recent.clone()));
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..MESSAGES_KEPT_MAX {
                tracing::info!("line {number}\u{1b}[2J");
            }
            let client = std::net::IpAddr::from([192, 0, 2, 7]);
            tracing::warn!(event = "client-refused", client_id = %client, "closed a connection from {client}");
        });
        let text = recent.text(false);
        assert_eq!(text.lines().count(), MESSAGES_KEPT_MAX);
        assert!(!text.contains("line 0\\") && text.contains("INFO  line 1\\u{1b}[2J\n"), "{text}");
        assert!(text.ends_with("WARN  closed a connection from (client)\n"), "{text}");
        assert!(recent.text(true).ends_with("closed a connection from 192.0.2.7\n"));
    }

    #[test]
    fn an_inherited_journal_stream_is_not_ours() {
        assert!(!is_standard_error(OsStr::new("0:0")));
        assert!(!is_standard_error(OsStr::new("nonsense")));
        let meta = fs::metadata("/proc/self/fd/2").unwrap();
        assert!(is_standard_error(OsStr::new(&format!("{}:{}", meta.dev(), meta.ino()))));
    }
}
