//! How often a password may be tried. Two bounded tables of failures, by address and by name, each forgiven with time.
//! An address from which a name logged in before is held to the address's limit only: whoever hammers a name from
//! elsewhere must not lock its owner out. Sans-IO: `now` is an argument.

use crate::base::clock::Mono;
use crate::limits::PORTAL_LOGIN_ADDRESS_BURST;
use crate::limits::PORTAL_LOGIN_FORGIVE_SECONDS;
use crate::limits::PORTAL_LOGIN_TABLE_MAX;
use crate::limits::PORTAL_LOGIN_USER_BURST;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

const FORGIVE: Duration = Duration::from_secs(PORTAL_LOGIN_FORGIVE_SECONDS);

/// The failures of late, and where each name logged in from.
#[derive(Default)]
pub struct Throttle {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    addresses: HashMap<IpAddr, Failures>,
    users: HashMap<String, Failures>,
    /// Where each name last logged in from.
    known: HashMap<String, (IpAddr, Mono)>,
}

/// A leaky bucket: `until` is when everything is forgiven.
#[derive(Clone, Copy)]
struct Failures {
    until: Mono,
}

impl Throttle {
    /// Counts an attempt before it is made, so that many at once are counted too; or says how long to wait.
    pub fn admit(&self, address: IpAddr, user: &str, now: Mono) -> Result<(), Duration> {
        let address = network(address);
        let mut tables = self.lock();
        let known = tables.known.get(user).is_some_and(|(from, _)| *from == address);
        let wait_address = wait(tables.addresses.get(&address), PORTAL_LOGIN_ADDRESS_BURST, now);
        let wait_user = if known { None } else { wait(tables.users.get(user), PORTAL_LOGIN_USER_BURST, now) };
        if let Some(wait) = wait_address.max(wait_user) {
            return Err(wait);
        }
        count(&mut tables.addresses, address, now);
        if !known {
            count(&mut tables.users, user.to_string(), now);
        }
        Ok(())
    }

    /// The attempt was right: its address starts afresh and is known for this name.
    pub fn succeeded(&self, address: IpAddr, user: &str, now: Mono) {
        let address = network(address);
        let mut tables = self.lock();
        tables.addresses.remove(&address);
        forgive_one(&mut tables.users, user);
        if tables.known.len() >= PORTAL_LOGIN_TABLE_MAX
            && let Some(oldest) = tables.known.iter().min_by_key(|(_, (_, at))| *at).map(|(name, _)| name.clone())
        {
            tables.known.remove(&oldest);
        }
        tables.known.insert(user.to_string(), (address, now));
    }

    /// No password was checked after all: take the count back.
    pub fn withdraw(&self, address: IpAddr, user: &str) {
        let mut tables = self.lock();
        forgive_one(&mut tables.addresses, &network(address));
        forgive_one(&mut tables.users, user);
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic while the tables were held leaves them whole: each change is one insert, remove or assignment.
        self.tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How long until one more fits into the bucket, if it does not now.
fn wait(failures: Option<&Failures>, burst: u32, now: Mono) -> Option<Duration> {
    let owed = failures?.until.0.saturating_duration_since(now.0);
    let most = FORGIVE * (burst - 1);
    (owed > most).then(|| owed - most)
}

fn count<K: Hash + Eq + Clone>(table: &mut HashMap<K, Failures>, key: K, now: Mono) {
    if table.len() >= PORTAL_LOGIN_TABLE_MAX && !table.contains_key(&key) {
        table.retain(|_, failures| failures.until > now);
    }
    if table.len() >= PORTAL_LOGIN_TABLE_MAX
        && !table.contains_key(&key)
        && let Some(nearest) = table.iter().min_by_key(|(_, failures)| failures.until).map(|(key, _)| key.clone())
    {
        table.remove(&nearest);
    }
    let failures = table.entry(key).or_insert(Failures { until: now });
    failures.until = Mono(failures.until.0.max(now.0) + FORGIVE);
}

fn forgive_one<K, Q>(table: &mut HashMap<K, Failures>, key: &Q)
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if let Some(failures) = table.get_mut(key)
        && let Some(earlier) = failures.until.0.checked_sub(FORGIVE)
    {
        failures.until = Mono(earlier);
    }
}

/// An IPv6 host has a whole /64 to call from: it counts as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn exhaust(throttle: &Throttle, address: &str, user: &str, now: Mono) -> u32 {
        (0..1000).take_while(|_| throttle.admit(ip(address), user, now).is_ok()).count() as u32
    }

    #[test]
    fn an_address_has_ten_tries_then_one_in_thirty_seconds() {
        let (throttle, now) = (Throttle::default(), Mono::now());
        assert_eq!(exhaust(&throttle, "192.0.2.1", "ada", now), PORTAL_LOGIN_ADDRESS_BURST);
        let wait = throttle.admit(ip("192.0.2.1"), "ada", now).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= FORGIVE, "{wait:?}");
        let then = Mono(now.0 + wait);
        assert_eq!(exhaust(&throttle, "192.0.2.1", "bob", then), 1, "another name does not help");
        assert_eq!(exhaust(&throttle, "192.0.2.2", "bob", now), PORTAL_LOGIN_ADDRESS_BURST, "others are not held up");
    }

    #[test]
    fn a_name_is_limited_over_all_addresses_but_not_where_its_owner_is() {
        let (throttle, now) = (Throttle::default(), Mono::now());
        throttle.admit(ip("192.0.2.9"), "ada", now).unwrap();
        throttle.succeeded(ip("192.0.2.9"), "ada", now);
        let tries: u32 = (1..8).map(|n| exhaust(&throttle, &format!("198.51.100.{n}"), "ada", now)).sum();
        assert_eq!(tries, PORTAL_LOGIN_USER_BURST);
        assert!(throttle.admit(ip("192.0.2.9"), "ada", now).is_ok(), "the owner is locked out");
    }

    #[test]
    fn a_whole_ipv6_network_and_a_mapped_address_count_as_one() {
        let (throttle, now) = (Throttle::default(), Mono::now());
        assert_eq!(exhaust(&throttle, "2001:db8::1", "a", now), PORTAL_LOGIN_ADDRESS_BURST);
        assert_eq!(exhaust(&throttle, "2001:db8::ffff", "b", now), 0);
        assert_eq!(exhaust(&throttle, "192.0.2.1", "c", now), PORTAL_LOGIN_ADDRESS_BURST);
        assert_eq!(exhaust(&throttle, "::ffff:192.0.2.1", "d", now), 0);
    }

    #[test]
    fn the_tables_are_bounded() {
        let (throttle, now) = (Throttle::default(), Mono::now());
        for n in 0..PORTAL_LOGIN_TABLE_MAX as u32 + 100 {
            let _ = throttle.admit(IpAddr::V4((n << 1).into()), &n.to_string(), now);
            throttle.succeeded(IpAddr::V4((n << 1 | 1).into()), &n.to_string(), now);
        }
        let tables = throttle.lock();
        assert!(tables.addresses.len() <= PORTAL_LOGIN_TABLE_MAX, "{}", tables.addresses.len());
        assert!(tables.users.len() <= PORTAL_LOGIN_TABLE_MAX, "{}", tables.users.len());
        assert!(tables.known.len() <= PORTAL_LOGIN_TABLE_MAX, "{}", tables.known.len());
    }

    #[test]
    fn a_withdrawn_attempt_costs_nothing() {
        let (throttle, now) = (Throttle::default(), Mono::now());
        for _ in 0..100 {
            throttle.admit(ip("192.0.2.1"), "ada", now).unwrap();
            throttle.withdraw(ip("192.0.2.1"), "ada");
        }
    }
}
