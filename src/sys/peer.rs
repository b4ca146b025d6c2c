//! Who is at the other end of a Unix socket, and what the host knows of users and groups.

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;

/// The process at the other end, as the kernel noted it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its process id, for messages only: it may be another process by now.
    pub pid: i32,
}

/// The process at the other end of a connected Unix stream socket.
pub fn peer(socket: &impl AsFd) -> io::Result<Peer> {
    let credentials = getsockopt(&socket.as_fd(), PeerCredentials)?;
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
}

/// The user this process acts as.
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The name of a user, if the host knows one.
pub fn user_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

/// The id of a group, if the host knows it.
pub fn group_id(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// The name of a group, if the host knows it.
pub fn group_name(gid: u32) -> Option<String> {
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name)
}

/// Whether the user of `peer` is in the group, by the process's primary group or by the host's group list. The list is asked
/// at each call: someone taken out of the group is out at once.
pub fn in_group(peer: Peer, group: u32) -> bool {
    if peer.gid == group {
        return true;
    }
    let Some(user) = User::from_uid(Uid::from_raw(peer.uid)).ok().flatten() else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    nix::unistd::getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&Gid::from_raw(group)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer(&one).unwrap();
        assert_eq!((peer.uid, peer.pid), (own_uid(), std::process::id() as i32));
        assert!(in_group(peer, peer.gid));
        assert!(!in_group(peer, 4_000_000_000));
    }

    #[test]
    fn root_has_a_name_and_an_unknown_group_has_no_id() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_name(0).as_deref(), Some("root"));
        assert_eq!(group_id("no-such-group-on-this-host"), None);
    }
}
