//! Connecting to the first of several addresses that accepts (RFC 8305): families alternate, the next is tried when the
//! one before has failed or has been silent for 250 ms, addresses that are still being learnt join in, the first to accept
//! wins and the others are dropped.

use super::penalty::Penalties;
use super::resolve::Family;
use super::resolve::Lookup;
use crate::base::clock::Mono;
use crate::io::Deadlines;
use crate::io::TcpStream;
use crate::limits::DIAL_ADDRESSES_MAX;
use crate::limits::DIAL_STAGGER_MS;
use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

type Attempt = Result<(TcpStream, SocketAddr), (SocketAddr, io::Error)>;

/// What a core dials with.
pub(super) struct Dialer {
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) penalties: Penalties,
    /// For one address to accept, in milliseconds.
    pub(super) within: Cell<u64>,
}

/// The address a connection leaves from, by family; a family without one is not used. `None`: whatever the kernel says.
pub(super) type Source = Option<Rc<[IpAddr]>>;

/// Why nothing was dialled, or nobody accepted.
#[derive(Debug)]
pub(super) enum DialError {
    /// Of the addresses none could be tried.
    Nowhere,
    /// What the last one to fail said.
    Failed(SocketAddr, io::Error),
    /// This address to leave from is not this node's.
    Source(IpAddr),
}

impl Dialer {
    pub(super) fn new(deadlines: &Rc<Deadlines>, within: u64) -> Dialer {
        Dialer { deadlines: Rc::clone(deadlines), penalties: Penalties::new(deadlines), within: Cell::new(within) }
    }

    /// Connects to one of the addresses that `lookup` has or still gets and that `admits` accepts.
    pub(super) async fn dial(
        &self,
        lookup: &Lookup,
        port: u16,
        source: &Source,
        admits: impl Fn(IpAddr) -> bool,
    ) -> Result<(TcpStream, SocketAddr), DialError> {
        let mut race = Race { dialer: self, port, source, tried: Vec::new(), last: Family::V4 };
        let mut running: JoinSet<Attempt> = JoinSet::new();
        let mut begun: Vec<(SocketAddr, Mono)> = Vec::new();
        let mut failed = None;
        let mut next_at = Mono::now();
        loop {
            // Made before looking, so that no change is missed.
            let changed = lookup.changed();
            let settled = lookup.is_settled();
            let next = race.next(lookup, &admits);
            if let Some(address) = next
                && (running.is_empty() || Mono::now() >= next_at)
            {
                race.start(address);
                let from = from_for(source, address.ip());
                let attempt = attempt(address, from, Rc::clone(&self.deadlines), self.within.get());
                if settled && begun.is_empty() && race.next(lookup, &admits).is_none() {
                    // Nobody to race with: most connections.
                    return self.ended(attempt.await, from).map_err(|(_, error)| error);
                }
                running.spawn_local(attempt);
                let now = Mono::now();
                begun.push((address, now));
                next_at = Mono(now.0 + Duration::from_millis(DIAL_STAGGER_MS));
                continue;
            }
            if running.is_empty() && settled {
                return Err(failed.unwrap_or(DialError::Nowhere));
            }
            tokio::select! {
                Some(done) = running.join_next() => {
                    // An attempt that was aborted or panicked is none; its address stays untold.
                    let Ok(attempt) = done else { continue };
                    let from = attempt.as_ref().map_or_else(|(to, _)| *to, |(_, to)| *to);
                    match self.ended(attempt, from_for(source, from.ip())) {
                        Ok(connected) => {
                            self.mark_slow(&begun, connected.1);
                            return Ok(connected);
                        }
                        Err((address, error)) => {
                            begun.retain(|(known, _)| *known != address);
                            failed = Some(error);
                            next_at = Mono::now();
                        }
                    }
                }
                () = changed, if !settled => {}
                () = tokio::time::sleep_until(next_at.0.into()), if next.is_some() => {}
            }
        }
    }

    fn ended(
        &self,
        attempt: Attempt,
        from: Option<IpAddr>,
    ) -> Result<(TcpStream, SocketAddr), (SocketAddr, DialError)> {
        match attempt {
            Ok((stream, address)) => {
                self.penalties.forgive(address);
                Ok((stream, address))
            }
            Err((address, error)) => match from {
                Some(from) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    Err((address, DialError::Source(from)))
                }
                _ => {
                    if blames_address(&error) {
                        self.penalties.add(address);
                    }
                    Err((address, DialError::Failed(address, error)))
                }
            },
        }
    }

    /// Who began so much earlier than the winner and still has not answered would cost every connection that time.
    fn mark_slow(&self, begun: &[(SocketAddr, Mono)], winner: SocketAddr) {
        let now = Mono::now();
        let long = Duration::from_millis(DIAL_STAGGER_MS);
        let slow =
            |(address, at): &&(SocketAddr, Mono)| *address != winner && now.0.saturating_duration_since(at.0) >= long;
        begun.iter().filter(slow).for_each(|(address, _)| self.penalties.add(*address));
    }
}

/// Which addresses have been tried, and whose turn it is.
struct Race<'a> {
    dialer: &'a Dialer,
    port: u16,
    source: &'a Source,
    tried: Vec<SocketAddr>,
    last: Family,
}

impl Race<'_> {
    /// The other family than the last tried, if it has one left; what failed lately after all others.
    fn next(&self, lookup: &Lookup, admits: impl Fn(IpAddr) -> bool) -> Option<SocketAddr> {
        if self.tried.len() >= DIAL_ADDRESSES_MAX {
            return None;
        }
        let families = match self.last {
            Family::V4 => [Family::V6, Family::V4],
            Family::V6 => [Family::V4, Family::V6],
        };
        let left = || {
            families
                .into_iter()
                .flat_map(|family| lookup.addresses(family))
                .filter(|ip| self.source.is_none() || from_for(self.source, *ip).is_some())
                .filter(|ip| admits(*ip))
                .map(|ip| SocketAddr::new(ip, self.port))
                .filter(|address| !self.tried.contains(address))
        };
        left().find(|address| !self.dialer.penalties.holds(*address)).or_else(|| left().next())
    }

    fn start(&mut self, address: SocketAddr) {
        self.tried.push(address);
        self.last = Family::of(address.ip());
    }
}

/// The address to leave from on the way to `to`.
fn from_for(source: &Source, to: IpAddr) -> Option<IpAddr> {
    source.as_ref()?.iter().copied().find(|from| Family::of(*from) == Family::of(to))
}

/// Whether the error says something of the address, and not of our own wants.
fn blames_address(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | ConnectionAborted | TimedOut | NetworkUnreachable | HostUnreachable
    )
}

async fn attempt(address: SocketAddr, from: Option<IpAddr>, deadlines: Rc<Deadlines>, within: u64) -> Attempt {
    match TcpStream::connect_from(from, address, &deadlines, deadlines.after(within)).await {
        Ok(stream) => Ok((stream, address)),
        Err(error) => Err((address, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sockets;
    use std::future::Future;
    use std::net::TcpListener;

    fn on_a_core<F: Future>(test: impl FnOnce(Rc<Dialer>) -> F) -> F::Output {
        crate::io::run(64, async {
            let deadlines = Deadlines::new();
            crate::io::spawn(Rc::clone(&deadlines).sweep(|_| ()));
            test(Rc::new(Dialer::new(&deadlines, 1_500))).await
        })
        .unwrap()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A lookup that has the IPv6 and the IPv4 addresses among `texts`.
    fn known(texts: &[&str]) -> Lookup {
        Lookup::known(&ips(texts))
    }

    /// A listener at `ip` that answers no more: its queue is full. With what fills it.
    fn silent(ip: &str) -> (TcpListener, Vec<std::net::TcpStream>) {
        let listener = sockets::listen(SocketAddr::new(ip.parse().unwrap(), 0), 1, false).unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            filling.push(stream);
        }
        (listener, filling)
    }

    #[test]
    fn families_alternate_and_what_failed_lately_comes_last() {
        let table: [(&[&str], &[&str], &str); 4] = [
            (&["::1", "::2", "::3", "1.1.1.1"], &[], "::1 1.1.1.1 ::2 ::3"),
            (&["1.1.1.1", "1.1.1.2", "::1"], &[], "::1 1.1.1.1 1.1.1.2"),
            (&["::1", "::2", "1.1.1.1"], &["::1"], "::2 1.1.1.1 ::1"),
            (&["::1", "1.1.1.1"], &["::1", "1.1.1.1"], "::1 1.1.1.1"),
        ];
        for (addresses, failed, expected) in table {
            let dialer = Dialer::new(&Deadlines::new(), 100);
            failed.iter().for_each(|text| dialer.penalties.add(SocketAddr::new(text.parse().unwrap(), 80)));
            let lookup = known(addresses);
            let mut race = Race { dialer: &dialer, port: 80, source: &None, tried: Vec::new(), last: Family::V4 };
            while let Some(next) = race.next(&lookup, |_| true) {
                race.start(next);
            }
            let order: Vec<String> = race.tried.iter().map(|address| address.ip().to_string()).collect();
            assert_eq!(order.join(" "), expected);
        }
        let many: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let dialer = Dialer::new(&Deadlines::new(), 100);
        let mut race = Race { dialer: &dialer, port: 80, source: &None, tried: Vec::new(), last: Family::V4 };
        while let Some(next) = race.next(&known(&many), |_| true) {
            race.start(next);
        }
        assert_eq!(race.tried.len(), DIAL_ADDRESSES_MAX);
    }

    #[test]
    fn a_refusing_address_is_passed_over_at_once_and_tried_last_from_then_on() {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        on_a_core(|dialer| async move {
            let lookup = known(&["127.0.0.1", "127.0.0.2"]);
            let begun = Mono::now();
            let (_stream, address) = dialer.dial(&lookup, port, &None, |_| true).await.unwrap();
            assert_eq!(address.to_string(), format!("127.0.0.2:{port}"));
            assert!(begun.0.elapsed() < Duration::from_millis(DIAL_STAGGER_MS), "{:?}", begun.0.elapsed());
            assert!(dialer.penalties.holds(SocketAddr::new(ips(&["127.0.0.1"])[0], port)));
        });
    }

    #[test]
    fn a_silent_address_is_raced_by_the_next_and_leaves_nothing_behind() {
        let (listener, _filling) = silent("127.0.0.3");
        let port = listener.local_addr().unwrap().port();
        let other = TcpListener::bind(("127.0.0.4", port)).unwrap();
        on_a_core(|dialer| async move {
            let lookup = known(&["127.0.0.3", "127.0.0.4"]);
            let begun = Mono::now();
            let (stream, address) = dialer.dial(&lookup, port, &None, |_| true).await.unwrap();
            let took = begun.0.elapsed();
            assert_eq!(address.ip(), ips(&["127.0.0.4"])[0]);
            let stagger = Duration::from_millis(DIAL_STAGGER_MS);
            assert!(took >= stagger && took < Duration::from_millis(1_400), "{took:?}");
            // The loser is cancelled by the sweeper, long before its own deadline.
            while dialer.deadlines.entered() > 1 {
                assert!(begun.0.elapsed() < Duration::from_millis(1_400), "the loser lingers");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drop(stream);
            // It was slow: the next connection does not wait for it.
            let begun = Mono::now();
            let (_stream, address) = dialer.dial(&lookup, port, &None, |_| true).await.unwrap();
            assert_eq!(address.ip(), ips(&["127.0.0.4"])[0]);
            assert!(begun.0.elapsed() < stagger, "{:?}", begun.0.elapsed());
        });
        drop(other);
    }

    #[test]
    fn addresses_that_come_later_join_the_race() {
        let listener = TcpListener::bind("127.0.0.6:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        on_a_core(|dialer| async move {
            let lookup = Rc::new(Lookup::growing(&ips(&["::1"])));
            let later = Rc::clone(&lookup);
            crate::io::spawn(async move {
                tokio::time::sleep(Duration::from_millis(60)).await;
                later.grow(&ips(&["127.0.0.6"]));
            });
            let (_stream, address) = dialer.dial(&lookup, port, &None, |_| true).await.unwrap();
            assert_eq!(address.ip(), ips(&["127.0.0.6"])[0]);
        });
    }

    #[test]
    fn when_all_fail_the_last_error_is_told_and_nowhere_is_told_too() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        on_a_core(|dialer| async move {
            let lookup = known(&["127.0.0.1", "127.0.0.5"]);
            let failed = dialer.dial(&lookup, port, &None, |_| true).await.err().unwrap();
            let DialError::Failed(address, error) = failed else { panic!("{failed:?}") };
            assert_eq!((address.port(), error.kind()), (port, io::ErrorKind::ConnectionRefused));
            let nowhere = dialer.dial(&lookup, port, &None, |_| false).await.err().unwrap();
            assert!(matches!(nowhere, DialError::Nowhere));
            assert_eq!(dialer.deadlines.entered(), 0);
        });
    }

    #[test]
    fn a_connection_leaves_from_the_address_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        on_a_core(|dialer| async move {
            let lookup = known(&["127.0.0.1", "::1"]);
            let source: Source = Some(ips(&["127.0.0.77"]).into());
            let (stream, _) = dialer.dial(&lookup, port, &source, |_| true).await.unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), ips(&["127.0.0.77"])[0]);
            let foreign: Source = Some(ips(&["192.0.2.77"]).into());
            let failed = dialer.dial(&lookup, port, &foreign, |_| true).await.err().unwrap();
            assert!(matches!(failed, DialError::Source(address) if address == ips(&["192.0.2.77"])[0]), "{failed:?}");
            let other_family: Source = Some(ips(&["2001:db8::1"]).into());
            let only_v4 = known(&["127.0.0.1"]);
            let failed = dialer.dial(&only_v4, port, &other_family, |_| true).await.err().unwrap();
            assert!(matches!(failed, DialError::Nowhere), "{failed:?}");
        });
    }
}
