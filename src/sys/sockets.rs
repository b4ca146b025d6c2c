//! TCP sockets with the options a proxy needs.

use nix::sys::socket::AddressFamily;
use nix::sys::socket::Backlog;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::SockaddrLike;
use nix::sys::socket::SockaddrStorage;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use std::io;
use std::net::IpAddr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

/// A listening socket of a group: every core binds its own to the same address, and the kernel spreads connections.
/// `::` serves IPv4 too unless `v6_only`. Bind the first with port 0 and the rest to the port it got.
pub fn listen(address: SocketAddr, backlog: u32, v6_only: bool) -> io::Result<TcpListener> {
    let socket = tcp_socket(&address)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &v6_only)?;
    }
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&socket, Backlog::new(backlog.min(i32::MAX as u32) as i32)?)?;
    Ok(TcpListener::from(socket))
}

/// Binds `count` sockets of one group (see [`listen`]) to `ip:port`; `None` is every address of both families, or of
/// IPv4 where the host has no IPv6. With port 0 the kernel chooses one port for the whole group.
pub fn listen_group(ip: Option<IpAddr>, port: u16, backlog: u32, count: usize) -> io::Result<Vec<TcpListener>> {
    let any_v4 = IpAddr::from([0, 0, 0, 0]);
    let (ip, first) = match ip {
        Some(ip) => (ip, listen(SocketAddr::new(ip, port), backlog, false)?),
        None => {
            let any_v6 = IpAddr::from([0u16; 8]);
            match listen(SocketAddr::new(any_v6, port), backlog, false) {
                Ok(first) => (any_v6, first),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(_) => (any_v4, listen(SocketAddr::new(any_v4, port), backlog, false)?),
            }
        }
    };
    let port = first.local_addr()?.port();
    let mut group = vec![first];
    for _ in 1..count {
        group.push(listen(SocketAddr::new(ip, port), backlog, false)?);
    }
    Ok(group)
}

/// A fresh TCP socket of the family of `address`.
pub fn tcp_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Ok(nix::sys::socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Lets a fresh socket leave from `address`; the port is chosen at the connect, so that one port serves many destinations.
pub fn leave_from(socket: &OwnedFd, address: IpAddr) -> io::Result<()> {
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0)))?)
}

/// Ends one or both directions of a connection, or a listener's listening, whoever waits on it.
pub fn shutdown(socket: impl AsFd, how: Shutdown) -> io::Result<()> {
    shutdown_raw(socket.as_fd().as_raw_fd(), how)
}

/// As [`shutdown`], for a table of descriptors whose owners are elsewhere.
pub fn shutdown_raw(socket: RawFd, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => nix::sys::socket::Shutdown::Read,
        Shutdown::Write => nix::sys::socket::Shutdown::Write,
        Shutdown::Both => nix::sys::socket::Shutdown::Both,
    };
    Ok(nix::sys::socket::shutdown(socket, how)?)
}

/// Makes the close that follows a reset: what the peer has not read is lost, and it knows that the stream was cut.
pub fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    Ok(setsockopt(&socket.as_fd(), sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?)
}

/// `MSG_NOSIGNAL`, for operations submitted elsewhere: a closed peer is an error, not a signal.
pub const SEND_WITHOUT_SIGNAL: i32 = MsgFlags::MSG_NOSIGNAL.bits();

/// `MSG_WAITALL`, for sends submitted elsewhere: the ring sends what is left after a part by itself.
pub const WHOLE: i32 = MsgFlags::MSG_WAITALL.bits();

/// `ENOBUFS`, as completions say it.
pub const NO_BUFFER: i32 = nix::libc::ENOBUFS;

/// `ECANCELED`, as completions say it.
pub const CANCELED: i32 = nix::libc::ECANCELED;

/// `SOCK_CLOEXEC`, for accepts submitted elsewhere.
pub const CLOSE_ON_EXEC: i32 = nix::libc::SOCK_CLOEXEC;

/// What a poll submitted elsewhere waits for: bytes to receive, or the end of them.
pub const READABLE: u32 = (nix::libc::POLLIN | nix::libc::POLLRDHUP) as u32;

/// What a poll submitted elsewhere waits for: room to send.
pub const WRITABLE: u32 = nix::libc::POLLOUT as u32;

/// An address in the kernel's form, for a connect submitted elsewhere.
#[derive(Debug)]
pub struct RawAddress(SockaddrStorage);

impl RawAddress {
    /// Writes `address` in the kernel's form.
    pub fn new(address: SocketAddr) -> RawAddress {
        RawAddress(SockaddrStorage::from(address))
    }

    /// Where the bytes begin; valid as long as `self` does not move.
    pub fn as_ptr(&self) -> *const nix::libc::sockaddr {
        self.0.as_ptr()
    }

    /// How many bytes they are.
    pub fn size(&self) -> u32 {
        self.0.len()
    }
}

/// Whether this error says that descriptors or socket memory ran out: accepting again at once would spin.
pub fn is_exhaustion(error: &io::Error) -> bool {
    use nix::libc;
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Whether this error is a cancelled operation.
pub fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ECANCELED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpStream;

    #[test]
    fn a_group_shares_one_port_and_the_any_address_serves_both_families() {
        let group = listen_group(None, 0, 16, 3).unwrap();
        let port = group[0].local_addr().unwrap().port();
        assert!(group.iter().all(|l| l.local_addr().unwrap().port() == port));
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if group[0].local_addr().unwrap().is_ipv6() {
            TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn reset_on_close_shows_at_the_peer_as_a_cut_stream() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        reset_on_close(&theirs).unwrap();
        drop(theirs);
        assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
