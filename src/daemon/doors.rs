//! The listening sockets of a node: taken from whoever started it where they are the ones that startup.ini names, bound
//! otherwise, and kept open while one process follows another.

use crate::limits::LISTEN_BACKLOG;
use crate::settings::Listen;
use crate::settings::Settings;
use crate::sys::activation::Passed;
use crate::sys::sd_notify::Notify;
use crate::sys::sockets;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::AsFd;

/// What the proxy's sockets are called on their way to a successor.
const PROXY: &str = "proxy";
/// The portal's.
const PORTAL: &str = "portal";

/// The sockets. Each stays open as long as one of its copies does; a connection waits in its backlog meanwhile.
pub struct Doors {
    proxy: Vec<TcpListener>,
    portal: Vec<TcpListener>,
    /// Handed to us, but startup.ini names no such address.
    strange: Vec<Passed>,
}

/// One address that startup.ini names.
struct Wanted {
    name: &'static str,
    ip: Listen,
    port: u16,
    keys: &'static str,
}

impl Doors {
    /// Opens what `settings` name: from `passed` if it is there, by binding otherwise. What was bound is given to the service
    /// manager for safe keeping.
    pub fn open(settings: &Settings, cores: usize, passed: Vec<Passed>, notify: &Notify) -> Result<Doors, String> {
        let proxy =
            Wanted { name: PROXY, ip: settings.listen_ip, port: settings.listen_port, keys: "LISTEN_IP/LISTEN_PORT" };
        let portal =
            Wanted { name: PORTAL, ip: settings.portal_ip, port: settings.portal_port, keys: "PORTAL_IP/PORTAL_PORT" };
        let (for_proxy, rest): (Vec<_>, Vec<_>) = passed.into_iter().partition(|one| proxy.is(one));
        let (for_portal, strange): (Vec<_>, Vec<_>) = rest.into_iter().partition(|one| portal.is(one));
        // What a predecessor had put into safe keeping and nobody wants any more goes first: its address may be wanted.
        let (outdated, strange): (Vec<_>, Vec<_>) =
            strange.into_iter().partition(|one| [PROXY, PORTAL].contains(&one.name.as_str()));
        let forgotten = |wanted: &Wanted| outdated.iter().any(|one| one.name == wanted.name);
        let stale = [&proxy, &portal].map(forgotten);
        drop(outdated);
        for one in &strange {
            let address = address_of(&one.listener);
            tracing::warn!(
                "{} listens on {address}, which is neither LISTEN_IP/LISTEN_PORT nor PORTAL_IP/PORTAL_PORT: connections \
                 there are closed. Make the unit and startup.ini agree (systemctl edit tidegate.socket)",
                one.name
            );
        }
        Ok(Doors {
            proxy: proxy.open(for_proxy, cores, stale[0], notify)?,
            portal: portal.open(for_portal, 1, stale[1], notify)?,
            strange,
        })
    }

    /// None.
    pub fn closed() -> Doors {
        Doors { proxy: Vec::new(), portal: Vec::new(), strange: Vec::new() }
    }

    /// The proxy's address.
    pub fn proxy_address(&self) -> io::Result<SocketAddr> {
        self.proxy[0].local_addr()
    }

    /// The portal's.
    pub fn portal_address(&self) -> io::Result<SocketAddr> {
        self.portal[0].local_addr()
    }

    /// The proxy's sockets for `cores` cores: each socket is some core's, and each core has one. Cores that share one are
    /// woken in turn.
    pub fn for_cores(&self, cores: usize) -> io::Result<Vec<Vec<TcpListener>>> {
        let mut shares: Vec<Vec<TcpListener>> = (0..cores).map(|_| Vec::new()).collect();
        for index in 0..self.proxy.len().max(cores) {
            let listener = self.proxy[index % self.proxy.len()].try_clone()?;
            // The ring waits for connections by itself; systemd hands sockets over in the other mode.
            listener.set_nonblocking(false)?;
            shares[index % cores].push(listener);
        }
        Ok(shares)
    }

    /// The portal's sockets.
    pub fn for_portal(&self) -> io::Result<Vec<TcpListener>> {
        self.portal.iter().map(TcpListener::try_clone).collect()
    }

    /// Closes every connection to a socket that startup.ini does not name: better than letting clients wait there. To be called
    /// inside the control runtime.
    pub fn turn_strangers_away(&self) -> io::Result<()> {
        for one in &self.strange {
            let listener = one.listener.try_clone()?;
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(async move {
                loop {
                    if listener.accept().await.is_err() {
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            });
        }
        Ok(())
    }

    /// All of them with their names, for a successor.
    pub fn to_pass_on(&self) -> Vec<(&str, &TcpListener)> {
        let proxy = self.proxy.iter().map(|listener| (PROXY, listener));
        let portal = self.portal.iter().map(|listener| (PORTAL, listener));
        let strange = self.strange.iter().map(|one| (one.name.as_str(), &one.listener));
        proxy.chain(portal).chain(strange).collect()
    }
}

impl Wanted {
    /// Whether `one` listens where this says. Port 0 is any port, so there the name must tell.
    fn is(&self, one: &Passed) -> bool {
        one.listener.local_addr().is_ok_and(|local| {
            let ip_fits = match self.ip {
                Listen::Any => local.ip().is_unspecified(),
                Listen::Ip(ip) => local.ip() == ip,
            };
            ip_fits && if self.port == 0 { one.name == self.name } else { local.port() == self.port }
        })
    }

    fn open(
        &self,
        passed: Vec<Passed>,
        count: usize,
        stale: bool,
        notify: &Notify,
    ) -> Result<Vec<TcpListener>, String> {
        if stale {
            notify.forget(self.name);
        }
        if !passed.is_empty() {
            // Those from safe keeping are there still, unless they went with outdated ones of their name.
            for one in passed.iter().filter(|one| stale && one.name == self.name) {
                self.keep(&one.listener, notify);
            }
            return Ok(passed.into_iter().map(|one| one.listener).collect());
        }
        let address = match self.ip {
            Listen::Any => None,
            Listen::Ip(ip) => Some(ip),
        };
        let bound = sockets::listen_group(address, self.port, LISTEN_BACKLOG, count).map_err(|error| {
            let (ip, port, keys) = (self.ip, self.port, self.keys);
            format!("listening on {ip}:{port} ({keys}): {error}; is another program, or tidegate.socket, using it?")
        })?;
        bound.iter().for_each(|listener| self.keep(listener, notify));
        Ok(bound)
    }

    fn keep(&self, listener: &TcpListener, notify: &Notify) {
        if let Err(error) = notify.keep(self.name, listener.as_fd()) {
            tracing::warn!(
                "giving the socket of {} to the service manager: {error}; a restart will refuse connections for a moment",
                self.keys
            );
        }
    }
}

fn address_of(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "an unknown address".to_string(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ip: Listen, port: u16) -> Wanted {
        Wanted { name: PROXY, ip, port, keys: "" }
    }

    fn passed(name: &str, address: &str) -> Passed {
        Passed { name: name.into(), listener: TcpListener::bind(address).unwrap() }
    }

    #[test]
    fn a_passed_socket_is_taken_by_its_address_or_with_port_0_by_its_name() {
        let here = passed("tidegate.socket", "127.0.0.1:0");
        let address = here.listener.local_addr().unwrap();
        assert!(wanted(Listen::Ip(address.ip()), address.port()).is(&here));
        assert!(!wanted(Listen::Ip(address.ip()), address.port() ^ 1).is(&here));
        assert!(!wanted(Listen::Any, address.port()).is(&here), "one address is not every address");
        assert!(!wanted(Listen::Ip(address.ip()), 0).is(&here));
        assert!(wanted(Listen::Ip(address.ip()), 0).is(&passed(PROXY, "127.0.0.1:0")));
        let any = passed("tidegate.socket", "[::]:0");
        assert!(wanted(Listen::Any, any.listener.local_addr().unwrap().port()).is(&any));
    }

    #[test]
    fn every_socket_has_a_core_and_every_core_a_socket() {
        let doors = |count| Doors {
            proxy: (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect(),
            portal: Vec::new(),
            strange: Vec::new(),
        };
        for (sockets, cores, each) in [(1, 3, [1, 1, 1].as_slice()), (3, 2, &[2, 1]), (2, 2, &[1, 1])] {
            let shares = doors(sockets).for_cores(cores).unwrap();
            assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), each, "{sockets} sockets, {cores} cores");
        }
    }
}
