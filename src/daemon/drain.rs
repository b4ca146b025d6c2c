//! Taking this node out of service without failing a request, and putting it back.
//!
//! ```text
//! serving --drain--> /health says 503, all else as before --DRAIN_NOTICE--> answers close their connections
//!    ^                  |                                                        |
//!    `-----undrain------+--------------------------------------------------------'   (tunnels go on all the while)
//! ```
//! A stop goes the same way before its listeners close. An order survives restarts (`STATE_DIR/drained`): who took a node
//! out of service to look at it does not want a reboot to put it back.

use super::publish::Publisher;
use crate::admin::Draining;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::base::durable;
use crate::limits::DRAIN_NOTE_BYTES_MAX;
use crate::limits::DRAIN_TELL_MS_MAX;
use crate::limits::HEALTH_CHECKERS_MAX;
use crate::limits::HEALTH_WATCHED_S;
use crate::settings::Settings;
use serde::Deserialize;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::watch;

/// Whether this node is being taken out of service.
pub struct Drain {
    publisher: Arc<Publisher>,
    settings: watch::Receiver<Settings>,
    note: PathBuf,
    standing: watch::Sender<Option<Standing>>,
    checkers: Mutex<Vec<Checker>>,
    /// One order at a time, or the note and the cores could end up saying different things.
    turn: tokio::sync::Mutex<()>,
}

/// An order to drain, or a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    by: String,
    since: Wall,
    closing: bool,
}

/// What the note on disk says.
#[derive(Serialize, Deserialize)]
struct Note {
    by: String,
    since_us: i64,
}

/// Somebody who asked for /health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checker {
    /// From where.
    pub address: IpAddr,
    /// How often within [`HEALTH_WATCHED_S`] of the time before.
    pub times: u32,
    /// When last.
    pub last: Mono,
}

impl Drain {
    /// Goes on with an order that was given before a restart: nobody who asks is ever told otherwise. To be called inside the control
    /// runtime, before anybody can ask.
    pub fn new(publisher: Arc<Publisher>, settings: watch::Receiver<Settings>, state_dir: &Path) -> Arc<Self> {
        let note = state_dir.join("drained");
        let before = order_of_before(&note);
        let drain = Arc::new(Drain {
            publisher,
            settings,
            note,
            standing: watch::Sender::new(before.clone()),
            checkers: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        });
        if let Some(Standing { since, .. }) = before {
            let drain = drain.clone();
            // No balancer sends clients to a node that was down a moment ago: there is nobody to give notice to.
            tokio::spawn(async move { drain.close_after_notice(since, 0).await });
        }
        drain
    }

    /// How it stands; absent while the node is in service.
    pub fn standing(&self) -> Option<Draining> {
        let standing = self.standing.borrow();
        standing.as_ref().map(|standing| Draining {
            by: standing.by.clone(),
            since_us: standing.since.0,
            closing: standing.closing,
        })
    }

    /// Takes the node out of service.
    pub async fn begin(self: &Arc<Self>, by: &str) -> Result<Outcome, Refused> {
        let _turn = self.turn.lock().await;
        if let Some(draining) = self.standing() {
            return Ok(Outcome::Done { words: format!("this node is drained already, by {}", draining.by) });
        }
        let since = Wall::now();
        let note = serde_json::to_vec(&Note { by: by.to_string(), since_us: since.0 }).unwrap_or_default();
        durable::replace(&self.note, &note, 0o600).map_err(|error| {
            Refused::failed(format!("noting the drain in {}: {error}; the node stays in service", self.note.display()))
        })?;
        self.standing.send_replace(Some(Standing { by: by.to_string(), since, closing: false }));
        let notice_s = self.settings.borrow().times.drain_notice;
        tracing::warn!("this node is drained by {by}: /health says 503, in {notice_s} s (DRAIN_NOTICE) answers close");
        let drain = self.clone();
        tokio::spawn(async move { drain.close_after_notice(since, notice_s).await });
        Ok(Outcome::Done {
            words: format!(
                "draining: /health says 503 now, from {notice_s} s on (DRAIN_NOTICE) answers close their connections, tunnels go \
                 on. It lasts, also over a restart, until `tidegate undrain`"
            ),
        })
    }

    /// Puts the node back into service.
    pub async fn end(&self) -> Result<Outcome, Refused> {
        let _turn = self.turn.lock().await;
        if self.standing.borrow().is_none() {
            return Ok(Outcome::Done { words: "this node is not drained".to_string() });
        }
        match std::fs::remove_file(&self.note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let words = format!("removing {}: {error}; the node stays drained", self.note.display());
                return Err(Refused::failed(words));
            }
            _ => {}
        }
        self.standing.send_replace(None);
        self.publisher.close_after_answers(false).await;
        tracing::info!("this node is in service again");
        Ok(Outcome::Done { words: "in service again: balancers see it at their next checks".to_string() })
    }

    /// The node is told to stop: /health says so, a balancer that watches gets DRAIN_NOTICE to lead clients elsewhere, and
    /// clients at work learn with their next answer that their connection ends. Returns when the listeners may close.
    pub async fn before_stop(&self) {
        let (notice_s, drain_s) = {
            let times = self.settings.borrow().times;
            (times.drain_notice, times.drain)
        };
        let was = self.standing.send_replace(Some(Standing {
            by: "its stop".to_string(),
            since: Wall::now(),
            closing: false,
        }));
        let watched = self.is_watched(Mono::now());
        if watched && notice_s > 0 && !was.is_some_and(|standing| standing.closing) {
            tracing::info!("stopping: {notice_s} s (DRAIN_NOTICE) for the balancers that ask /health to notice");
            tokio::time::sleep(Duration::from_secs(notice_s)).await;
        }
        self.mark_closing(None);
        self.publisher.close_after_answers(true).await;
        let until = Duration::from_millis(DRAIN_TELL_MS_MAX).min(Duration::from_secs(drain_s));
        let told = async {
            while self.has_askers() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(until, told).await;
    }

    /// Notes who asks for /health.
    pub fn checked(&self, address: IpAddr, now: Mono) {
        note_checker(&mut self.checkers(), address, now);
    }

    /// Who asks for /health again and again.
    pub fn watchers(&self, now: Mono) -> Vec<Checker> {
        self.checkers().iter().filter(|checker| checker.times > 1 && is_recent(checker, now)).copied().collect()
    }

    fn is_watched(&self, now: Mono) -> bool {
        !self.watchers(now).is_empty()
    }

    fn checkers(&self) -> MutexGuard<'_, Vec<Checker>> {
        // Nothing panics while holding it; were it so, the list would still be whole.
        self.checkers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that may still ask something.
    fn has_askers(&self) -> bool {
        let totals = self.publisher.totals();
        totals.connections_open > totals.tunnels_open
    }

    async fn close_after_notice(&self, since: Wall, notice_s: u64) {
        tokio::time::sleep(Duration::from_secs(notice_s)).await;
        // Whoever undrains meanwhile must not be followed by this.
        let _turn = self.turn.lock().await;
        if self.standing.borrow().as_ref().is_some_and(|standing| standing.since == since) {
            self.publisher.close_after_answers(true).await;
            // It is told once it is so on every core.
            self.mark_closing(Some(since));
        }
    }

    /// Whether there is an order, of that time if one is given, to be marked.
    fn mark_closing(&self, since: Option<Wall>) -> bool {
        self.standing.send_if_modified(|standing| match standing {
            Some(standing) if since.is_none_or(|since| standing.since == since) => {
                standing.closing = true;
                true
            }
            _ => false,
        })
    }
}

/// What the node was told before it started, if that is to drain.
fn order_of_before(note: &Path) -> Option<Standing> {
    let before = read_note(note).unwrap_or_else(|error| {
        // Somebody gave the order; who and when is less than that it was given.
        tracing::error!("reading {}: {error}; this node stays drained until `tidegate undrain`", note.display());
        Some(Note { by: "an order whose note is damaged".to_string(), since_us: 0 })
    })?;
    tracing::warn!("this node is drained by {}: /health says 503 until `tidegate undrain`", before.by);
    Some(Standing { by: before.by, since: Wall(before.since_us), closing: false })
}

fn read_note(path: &Path) -> io::Result<Option<Note>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(DRAIN_NOTE_BYTES_MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
}

fn note_checker(checkers: &mut Vec<Checker>, address: IpAddr, now: Mono) {
    let address = address.to_canonical();
    match checkers.iter_mut().find(|checker| checker.address == address) {
        Some(checker) => {
            checker.times = if is_recent(checker, now) { checker.times.saturating_add(1) } else { 1 };
            checker.last = now;
        }
        None => {
            if checkers.len() >= HEALTH_CHECKERS_MAX {
                let oldest = checkers.iter().enumerate().min_by_key(|(_, checker)| checker.last).map(|(at, _)| at);
                oldest.map(|at| checkers.swap_remove(at));
            }
            checkers.push(Checker { address, times: 1, last: now });
        }
    }
}

fn is_recent(checker: &Checker, now: Mono) -> bool {
    now.micros_since(checker.last) < HEALTH_WATCHED_S * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_twice_within_ten_seconds_watches_and_the_list_is_bounded() {
        let start = Mono::now();
        let at = |seconds: u64| Mono(start.0 + Duration::from_secs(seconds));
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut checkers = Vec::new();
        note_checker(&mut checkers, address(1), at(0));
        assert_eq!(checkers[0].times, 1, "one look is a person's");
        note_checker(&mut checkers, "::ffff:192.0.2.1".parse().unwrap(), at(9));
        assert_eq!((checkers.len(), checkers[0].times), (1, 2));
        assert!(is_recent(&checkers[0], at(18)) && !is_recent(&checkers[0], at(19)));
        note_checker(&mut checkers, address(1), at(30));
        assert_eq!(checkers[0].times, 1, "after a silence the count begins anew");
        for last in 2..=200 {
            note_checker(&mut checkers, address(last), at(30 + u64::from(last)));
        }
        assert_eq!(checkers.len(), HEALTH_CHECKERS_MAX);
        assert!(checkers.iter().all(|checker| checker.address != address(1)), "the oldest went");
    }

    #[test]
    fn a_note_is_read_back_and_a_damaged_one_is_an_error_not_an_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drained");
        assert!(read_note(&path).unwrap().is_none());
        std::fs::write(&path, br#"{"by":"root","since_us":5}"#).unwrap();
        assert_eq!(read_note(&path).unwrap().unwrap().by, "root");
        for damaged in [&b""[..], b"{", b"null", &[b'x'; 9_000]] {
            std::fs::write(&path, damaged).unwrap();
            assert!(read_note(&path).is_err());
        }
    }
}
