//! How many connections the node serves at once, in all and of one client: one table for all cores.
//!
//! Counting costs a few atomic additions when a connection begins and ends, and nothing per request; it allocates nothing
//! and never waits. Clients are counted in a table of fixed size, each address in every row at a place that a secret
//! chooses: two addresses may share a place, and the smallest of an address' counts holds. So a count is never too low, too
//! high only for who shares all its places, and nobody can choose whom to share them with.

use crate::limits::CLIENT_TABLE_PLACES;
use crate::limits::CLIENT_TABLE_ROWS;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// The node's count of client connections, and its limits.
pub struct Admissions {
    open: AtomicU64,
    /// The most there were since somebody last asked.
    peak: AtomicU64,
    open_max: AtomicU64,
    client_max: AtomicU32,
    secrets: [RandomState; CLIENT_TABLE_ROWS],
    rows: [Box<[AtomicU32]>; CLIENT_TABLE_ROWS],
}

impl Default for Admissions {
    fn default() -> Admissions {
        Admissions::new(u64::MAX, 0)
    }
}

impl Admissions {
    /// Limits of connections in all, and of one client's (0: none).
    pub fn new(open_max: u64, client_max: u32) -> Admissions {
        let row = |_| (0..CLIENT_TABLE_PLACES).map(|_| AtomicU32::new(0)).collect();
        Admissions {
            open: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            open_max: AtomicU64::new(open_max),
            client_max: AtomicU32::new(client_max),
            secrets: std::array::from_fn(|_| RandomState::new()),
            rows: std::array::from_fn(row),
        }
    }

    /// Changes the limits. Connections that are there stay.
    pub fn set_limits(&self, open_max: u64, client_max: u32) {
        self.open_max.store(open_max, Ordering::Relaxed);
        self.client_max.store(client_max, Ordering::Relaxed);
    }

    /// Client connections served now, by all cores.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// The most connections there were since `forget_peak`.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Begins a new peak with what is open now.
    pub fn forget_peak(&self) {
        self.peak.store(self.open(), Ordering::Relaxed);
    }

    /// A place for one more connection, if there is one.
    pub(super) fn enter(&self) -> Option<Place<'_>> {
        let place = Place(self);
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        // Two cores may overwrite each other by one or two: it is a peak to a few connections.
        if before >= self.peak.load(Ordering::Relaxed) {
            self.peak.store(before + 1, Ordering::Relaxed);
        }
        (before < self.open_max.load(Ordering::Relaxed)).then_some(place)
    }

    /// A place for one more connection of this client, if it has one.
    pub(super) fn enter_client(&self, address: IpAddr) -> Option<ClientPlace<'_>> {
        let most = self.client_max.load(Ordering::Relaxed);
        if most == 0 {
            return Some(ClientPlace { table: self, places: None });
        }
        let network = network(address);
        let places =
            std::array::from_fn(|row| (self.secrets[row].hash_one(network) & (CLIENT_TABLE_PLACES as u64 - 1)) as u32);
        let place = ClientPlace { table: self, places: Some(places) };
        let least = place.counts().map(|count| count.fetch_add(1, Ordering::Relaxed)).min();
        (least.unwrap_or(0) < most).then_some(place)
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 site gives a machine.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) << 64,
    }
}

/// A connection in the count of all; leaving is dropping it.
pub(super) struct Place<'a>(&'a Admissions);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in the count of its client's; leaving is dropping it.
pub(super) struct ClientPlace<'a> {
    table: &'a Admissions,
    /// None where the limit was off when it came.
    places: Option<[u32; CLIENT_TABLE_ROWS]>,
}

impl ClientPlace<'_> {
    fn counts(&self) -> impl Iterator<Item = &AtomicU32> {
        let places = self.places.iter().flatten();
        self.table.rows.iter().zip(places).map(|(row, place)| &row[*place as usize])
    }
}

impl Drop for ClientPlace<'_> {
    fn drop(&mut self) {
        self.counts().for_each(|count| {
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_by_address_and_by_network_and_leave_when_dropped() {
        let admissions = Admissions::new(100, 2);
        let enter = |text: &str| admissions.enter_client(text.parse().unwrap());
        let (first, second) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("192.0.2.1").is_none(), "the third");
        assert!(enter("192.0.2.1").is_none(), "who was refused is not counted");
        assert!(enter("192.0.2.2").is_some(), "another client");
        drop(second);
        assert!(enter("192.0.2.1").is_some(), "there is room again");
        let _one = enter("2001:db8::1");
        let _two = enter("2001:db8::ffff:0:0:2");
        assert!(enter("2001:db8::3").is_none(), "one /64 is one client");
        assert!(enter("2001:db8:0:1::3").is_some(), "the next /64 is another");
        drop(first);
    }

    #[test]
    fn the_limit_in_all_holds_and_limits_may_change() {
        let admissions = Admissions::new(1, 0);
        let place = admissions.enter();
        assert!(place.is_some() && admissions.enter().is_none());
        assert_eq!(admissions.open(), 1);
        admissions.set_limits(2, 1);
        assert!(admissions.enter().is_some());
        drop(place);
        assert_eq!(admissions.open(), 0);
        let uncounted = admissions.enter_client("192.0.2.1".parse().unwrap());
        admissions.set_limits(2, 0);
        drop(uncounted);
        assert!(admissions.rows.iter().flat_map(|row| row.iter()).all(|count| count.load(Ordering::Relaxed) == 0));
    }
}
