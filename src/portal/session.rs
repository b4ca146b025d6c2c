//! Who is logged in. A session is a random token in the browser's cookie; memory holds its hash only, so that a copy of
//! the memory's table opens no session. Sans-IO: `now` is an argument.

use crate::base::clock::Mono;
use crate::limits::PORTAL_SESSION_IDLE_SECONDS_MAX;
use crate::limits::PORTAL_SESSION_SECONDS_MAX;
use crate::limits::PORTAL_SESSIONS_MAX;
use crate::tls::random;
use data_encoding::HEXLOWER;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

/// How the cookie's name begins. `__Host-` makes the browser itself insist on Secure, Path=/ and no Domain.
const COOKIE: &str = "__Host-tidegate";

const IDLE_MAX: Duration = Duration::from_secs(PORTAL_SESSION_IDLE_SECONDS_MAX);
const AGE_MAX: Duration = Duration::from_secs(PORTAL_SESSION_SECONDS_MAX);

/// Something to say once, on the next page that the session sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The sentence.
    pub words: String,
}

/// What a valid cookie stands for.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The administrator.
    pub user: String,
    /// The token that every form of this session must carry.
    pub csrf: String,
}

/// All sessions of this node. They end with the process.
#[derive(Default)]
pub struct Sessions {
    table: Mutex<HashMap<[u8; 32], Session>>,
}

struct Session {
    user: String,
    csrf: String,
    made: Mono,
    seen: Mono,
    notice: Option<Notice>,
}

impl Sessions {
    /// Opens a session for `user` and returns the token for the cookie.
    pub fn open(&self, user: &str, now: Mono) -> String {
        let token = HEXLOWER.encode(&random::bytes::<32>());
        let csrf = HEXLOWER.encode(&random::bytes::<32>());
        let session = Session { user: user.to_string(), csrf, made: now, seen: now, notice: None };
        let mut table = self.lock();
        make_room(&mut table, now);
        table.insert(hash(&token), session);
        token
    }

    /// The visit that `token` stands for, if it is valid. `touch` says that a person asked, which keeps the session alive.
    pub fn find(&self, token: &str, now: Mono, touch: bool) -> Option<Visit> {
        let key = hash(token);
        let mut table = self.lock();
        let session = table.get_mut(&key)?;
        if session.is_over(now) {
            table.remove(&key);
            return None;
        }
        if touch {
            session.seen = now;
        }
        Some(Visit { user: session.user.clone(), csrf: session.csrf.clone() })
    }

    /// Leaves a sentence for the next page.
    pub fn leave_notice(&self, token: &str, words: String) {
        if let Some(session) = self.lock().get_mut(&hash(token)) {
            session.notice = Some(Notice { words });
        }
    }

    /// Takes the sentence left for this page.
    pub fn take_notice(&self, token: &str) -> Option<Notice> {
        self.lock().get_mut(&hash(token))?.notice.take()
    }

    /// Ends the session.
    pub fn close(&self, token: &str) {
        self.lock().remove(&hash(token));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        // A panic while the table was held leaves it whole: each change is one insert, remove or assignment.
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Session {
    fn is_over(&self, now: Mono) -> bool {
        now.0.saturating_duration_since(self.seen.0) > IDLE_MAX
            || now.0.saturating_duration_since(self.made.0) > AGE_MAX
    }
}

/// Invariant: after it, there is room for one more.
fn make_room(table: &mut HashMap<[u8; 32], Session>, now: Mono) {
    table.retain(|_, session| !session.is_over(now));
    while table.len() >= PORTAL_SESSIONS_MAX {
        let Some(oldest) = table.iter().min_by_key(|(_, session)| session.seen).map(|(key, _)| *key) else { return };
        table.remove(&oldest);
    }
}

fn hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

/// The cookie's name for a portal that the browser knows as `host`. Cookies know hosts but no ports: without the port in
/// the name, a login at one of two nodes on the same host would end the session at the other.
pub fn cookie_name(host: &str) -> String {
    let port = host.rsplit_once(':').map_or("", |(_, port)| port);
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    if is_port { format!("{COOKIE}-{port}") } else { COOKIE.to_string() }
}

/// The session token among a Cookie header's pairs.
pub fn token_in<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    cookies.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The Set-Cookie value that gives `token` to the browser. No Max-Age: it ends with the browser at the latest.
pub fn cookie(name: &str, token: &str) -> String {
    format!("{name}={token}; Path=/; Secure; HttpOnly; SameSite=Strict")
}

/// The Set-Cookie value that takes the token away again.
pub fn no_cookie(name: &str) -> String {
    format!("{name}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(now: Mono, seconds: u64) -> Mono {
        Mono(now.0 + Duration::from_secs(seconds))
    }

    #[test]
    fn a_session_ends_when_idle_and_live_updates_do_not_keep_it() {
        let (sessions, start) = (Sessions::default(), Mono::now());
        let token = sessions.open("ada", start);
        assert_eq!(sessions.find(&token, later(start, 29 * 60), false).unwrap().user, "ada");
        assert!(sessions.find(&token, later(start, 31 * 60), true).is_none(), "peeking kept it alive");
        assert!(sessions.find(&token, start, true).is_none(), "an expired session came back");
    }

    #[test]
    fn a_session_ends_after_twelve_hours_however_busy() {
        let (sessions, start) = (Sessions::default(), Mono::now());
        let token = sessions.open("ada", start);
        for minute in (0..12 * 60).step_by(20) {
            assert!(sessions.find(&token, later(start, minute * 60), true).is_some(), "minute {minute}");
        }
        assert!(sessions.find(&token, later(start, 12 * 60 * 60 + 1), true).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_the_least_used_goes_first() {
        let (sessions, start) = (Sessions::default(), Mono::now());
        let tokens: Vec<String> =
            (0..PORTAL_SESSIONS_MAX as u64).map(|n| sessions.open("ada", later(start, n))).collect();
        let now = later(start, 1000);
        assert!(sessions.find(&tokens[0], now, true).is_some());
        sessions.open("bob", now);
        assert!(sessions.find(&tokens[0], now, true).is_some(), "the one just used went");
        assert!(sessions.find(&tokens[1], now, true).is_none());
        assert_eq!(sessions.lock().len(), PORTAL_SESSIONS_MAX);
    }

    #[test]
    fn logout_ends_it_and_a_notice_is_said_once() {
        let (sessions, now) = (Sessions::default(), Mono::now());
        let token = sessions.open("ada", now);
        sessions.leave_notice(&token, "done".to_string());
        assert_eq!(sessions.take_notice(&token), Some(Notice { words: "done".to_string() }));
        assert_eq!(sessions.take_notice(&token), None);
        sessions.close(&token);
        assert!(sessions.find(&token, now, true).is_none());
    }

    #[test]
    fn each_port_of_a_host_has_a_cookie_of_its_own() {
        for (host, expected) in [
            ("192.0.2.1:8888", "__Host-tidegate-8888"),
            ("[2001:db8::1]:8889", "__Host-tidegate-8889"),
            ("[2001:db8::1]", "__Host-tidegate"),
            ("gate.example", "__Host-tidegate"),
            ("gate.example:", "__Host-tidegate"),
            ("gate.example:8=8", "__Host-tidegate"),
            ("gate.example:123456", "__Host-tidegate"),
            ("", "__Host-tidegate"),
        ] {
            assert_eq!(cookie_name(host), expected, "{host}");
        }
    }

    #[test]
    fn the_token_is_found_among_other_cookies() {
        for (header, expected) in [
            ("__Host-tidegate=abc", Some("abc")),
            ("a=b; __Host-tidegate=abc; c=d", Some("abc")),
            ("__Host-tidegate-other=abc", None),
            ("x__Host-tidegate=abc", None),
            ("", None),
        ] {
            assert_eq!(token_in(header, "__Host-tidegate"), expected, "{header}");
        }
    }
}
