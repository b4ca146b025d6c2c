//! What a service tells systemd: one datagram per message on the socket named by NOTIFY_SOCKET.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The way to the service manager; says nothing to nobody where there is none.
#[derive(Debug)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// Reads NOTIFY_SOCKET. An empty or unusable one counts as none: a node must also run without systemd.
    pub fn from_environment() -> Notify {
        Notify::to(std::env::var_os("NOTIFY_SOCKET").unwrap_or_default().as_bytes())
    }

    fn to(name: &[u8]) -> Notify {
        let address = match name {
            [] => return Notify { socket: None },
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
            path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
        };
        Notify { socket: address.ok().and_then(|address| Some((UnixDatagram::unbound().ok()?, address))) }
    }

    /// The node serves: `READY=1`.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The node is on its way down: `STOPPING=1`.
    pub fn stopping(&self, status: &str) {
        self.say(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// A sentence for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.say(&format!("STATUS={}", one_line(status)));
    }

    /// A sign of life for the watchdog.
    pub fn watchdog(&self) {
        self.say("WATCHDOG=1");
    }

    /// Half of the time within which systemd wants signs of life, if it wants any from this process.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        let for_us = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        (for_us && micros > 0).then(|| Duration::from_micros(micros / 2))
    }

    fn say(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            // Nobody to tell that systemd does not listen; the next message tries again.
            let _: io::Result<usize> = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_datagrams_and_a_status_stays_on_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.as_os_str().as_bytes());
        notify.ready("serving\nREADY=0");
        notify.watchdog();
        let mut buf = [0; 256];
        let n = systemd.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"READY=1\nSTATUS=serving READY=0");
        let n = systemd.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"WATCHDOG=1");
        Notify::to(b"").ready("nobody listens");
    }
}
