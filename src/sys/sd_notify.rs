//! What a service tells whoever started it: one datagram per message, on the socket named by NOTIFY_SOCKET (systemd) or to its
//! keeper (`daemon::keeper`), which tells systemd.

use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::UnixAddr;
use nix::sys::socket::recvmsg;
use nix::sys::socket::sendmsg;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The environment's word for the descriptor that leads to a keeper.
pub const KEEPER: &str = "TIDEGATE_KEEPER";
/// To a keeper: start a successor in my place.
pub const SUCCEED: &str = "TIDEGATE_SUCCEED=1";
/// To a keeper: I have let go of everything but what is under way.
pub const ASIDE: &str = "TIDEGATE_ASIDE=1";
/// Bytes of a message; systemd takes no more either.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The way to the service manager; says nothing to nobody where there is none.
#[derive(Debug)]
pub struct Notify {
    way: Option<Way>,
    keeper: bool,
}

#[derive(Debug)]
struct Way {
    socket: UnixDatagram,
    /// `None`: the socket is connected.
    to: Option<UnixAddr>,
}

/// One message with what came with it.
#[derive(Debug)]
pub struct Message {
    /// Its lines.
    pub text: String,
    /// Descriptors.
    pub descriptors: Vec<OwnedFd>,
}

impl Notify {
    /// Reads the environment. An empty or unusable NOTIFY_SOCKET counts as none: a node must also run without systemd. To be
    /// called once, before there is another thread: the way to a keeper is taken out of the environment.
    pub fn from_environment() -> Notify {
        let keeper = std::env::var(KEEPER).ok().and_then(|number| number.parse::<RawFd>().ok());
        // JUSTIFICATION: a child of ours would otherwise take a descriptor of its own for the way to our keeper.
        // SAFETY: this process has one thread as yet (the caller's duty), so nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(KEEPER) };
        match keeper.filter(|number| *number > 2 && is_socket(*number)) {
            Some(number) => {
                // JUSTIFICATION: the keeper hands the descriptor over as a number.
                // SAFETY: it is open, it was put there for us, and the word for it is gone now: nobody else owns it.
                let socket = UnixDatagram::from(unsafe { OwnedFd::from_raw_fd(number) });
                let _ = nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
                Notify { way: Some(Way { socket, to: None }), keeper: true }
            }
            None => Notify::to(std::env::var_os("NOTIFY_SOCKET").unwrap_or_default().as_bytes()),
        }
    }

    fn to(name: &[u8]) -> Notify {
        let address = match name {
            [] => return Notify { way: None, keeper: false },
            [b'@', rest @ ..] => UnixAddr::new_abstract(rest),
            path => UnixAddr::new(path),
        };
        let way = address.ok().and_then(|to| Some(Way { socket: UnixDatagram::unbound().ok()?, to: Some(to) }));
        Notify { way, keeper: false }
    }

    /// Whether somebody listens.
    pub fn is_heard(&self) -> bool {
        self.way.is_some()
    }

    /// Whether a keeper started this process: it can start a successor while this one still serves.
    pub fn has_keeper(&self) -> bool {
        self.keeper
    }

    /// The node serves: `READY=1`.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The node reads its startup params again: `RELOADING=1`. [`Notify::ready`] ends it.
    pub fn reloading(&self) {
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
    }

    /// The node is on its way down, which may take so long: `STOPPING=1`.
    pub fn stopping(&self, status: &str, within: Duration) {
        let us = within.as_micros();
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={us}\nSTATUS={}", one_line(status)));
    }

    /// A sentence for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.say(&format!("STATUS={}", one_line(status)));
    }

    /// A sign of life for the watchdog.
    pub fn watchdog(&self) {
        self.say("WATCHDOG=1");
    }

    /// Gives a listening socket away for safe keeping (the FD store): the next process is handed it as LISTEN_FDS, by `name`.
    pub fn keep(&self, name: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[socket])
    }

    /// Takes back what was kept under `name`.
    pub fn forget(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    /// Half of the time within which systemd wants signs of life, if it wants any from this process.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.way.as_ref()?;
        let for_us = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        (for_us && micros > 0).then(|| Duration::from_micros(micros / 2))
    }

    /// Says `text` as it stands.
    pub fn say(&self, text: &str) {
        // Nobody to tell that nobody listens; the next message tries again.
        let _ = self.send(text, &[]);
    }

    /// Says `text` and hands `descriptors` with it.
    pub fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(way) = &self.way else { return Ok(()) };
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[][..] } else { &rights[..] };
        let text = [IoSlice::new(text.as_bytes())];
        // A manager that is too busy to read must not hold a node up.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg(way.socket.as_raw_fd(), &text, rights, flags, way.to.as_ref())?;
        Ok(())
    }
}

/// Receives one message, without waiting for one (`WouldBlock`).
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Message> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut room = nix::cmsg_space!([RawFd; 16]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let mut descriptors = Vec::new();
    for part in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // JUSTIFICATION: the kernel hands descriptors over as numbers.
            // SAFETY: each is new in this process and known to nobody else.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    let count = received.bytes;
    Ok(Message { text: String::from_utf8_lossy(&bytes[..count]).into_owned(), descriptors })
}

fn is_socket(number: RawFd) -> bool {
    // JUSTIFICATION: the number comes from the environment and may be anything.
    // SAFETY: borrowed for this call alone, which asks what it is.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    nix::sys::socket::getsockopt(&descriptor.as_fd(), nix::sys::socket::sockopt::SockType).is_ok()
}

/// CLOCK_MONOTONIC as a number, which std's does not give: systemd compares it with its own.
fn monotonic_us() -> u64 {
    let mut now = nix::libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // JUSTIFICATION: std hides the clock's number.
    // SAFETY: the call writes one timespec to the place that is given, which lives as long as the call.
    unsafe { nix::libc::clock_gettime(nix::libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

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

    #[test]
    fn a_listener_given_away_arrives_open_and_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.as_os_str().as_bytes());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        notify.keep("proxy", listener.as_fd()).unwrap();
        drop(listener);
        let mut message = receive(systemd.as_fd()).unwrap();
        assert_eq!(message.text, "FDSTORE=1\nFDPOLL=0\nFDNAME=proxy");
        let kept = TcpListener::from(message.descriptors.remove(0));
        assert_eq!(kept.local_addr().unwrap(), address);
        std::net::TcpStream::connect(address).expect("it still listens");
        assert_eq!(receive(systemd.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
