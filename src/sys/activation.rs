//! Listening sockets that outlive a process: taken from whoever started us (systemd's LISTEN_FDS protocol), handed to whom we
//! start. A connection that comes between two processes waits in the socket's backlog.

use crate::limits::PASSED_LISTENERS_MAX;
use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::AcceptConn;
use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The first descriptor of the protocol (sd_listen_fds(3)).
const FIRST: RawFd = 3;
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";
const FOR_PID: &str = "LISTEN_PID";

/// A listening socket that was handed to this process.
#[derive(Debug)]
pub struct Passed {
    /// What it is called: the socket unit's name, or the name under which a predecessor gave it away.
    pub name: String,
    /// It.
    pub listener: TcpListener,
}

/// Takes the listening TCP sockets that were handed to this process; what else was handed is closed. To be called once, before
/// there is another thread: the environment is cleared, so that no child takes them for its own.
pub fn take() -> Vec<Passed> {
    let said = |name: &str| env::var(name).unwrap_or_default();
    let (count, names, pid) = (said(COUNT), said(NAMES), said(FOR_PID));
    for name in [COUNT, NAMES, FOR_PID] {
        // JUSTIFICATION: a child of ours would otherwise believe that its descriptors 3 and up are listeners.
        // SAFETY: this process has one thread as yet (the caller's duty), so nobody reads the environment meanwhile.
        unsafe { env::remove_var(name) };
    }
    // A keeper names itself: it cannot know its child's number before there is a child.
    let for_us = [std::process::id(), nix::unistd::getppid().as_raw() as u32].map(|pid| pid.to_string()).contains(&pid);
    let count = if for_us { count.parse().unwrap_or(0).min(PASSED_LISTENERS_MAX) } else { 0 };
    let mut names = names.split(':');
    let mut passed = Vec::new();
    for number in FIRST..FIRST + count as RawFd {
        let name = names.next().unwrap_or_default().to_string();
        if let Some(descriptor) = own(number)
            && getsockopt(&descriptor, AcceptConn).unwrap_or(false)
        {
            let listener = TcpListener::from(descriptor);
            // A listener of another family than IP has no such address.
            if listener.local_addr().is_ok() {
                passed.push(Passed { name, listener });
            }
        }
    }
    passed
}

/// Descriptor `number` as ours alone, closed when another program is started; `None` if it is not open.
fn own(number: RawFd) -> Option<OwnedFd> {
    // JUSTIFICATION: the protocol hands descriptors over as numbers.
    // SAFETY: only asked whether it is open, for the time of this call.
    let open = fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD).is_ok();
    // JUSTIFICATION: as above.
    // SAFETY: it is open, whoever started us put it there for us, and `take` reads the numbers once: nobody else owns it.
    let descriptor = open.then(|| unsafe { OwnedFd::from_raw_fd(number) })?;
    let _ = fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    Some(descriptor)
}

/// Lets `command` start with `listeners` as LISTEN_FDS, by their names, and with `more` behind them: answers the first number
/// of those. The caller holds all of them until the command is started.
pub fn pass(command: &mut Command, listeners: &[(&str, &TcpListener)], more: &[BorrowedFd<'_>]) -> RawFd {
    let names: Vec<&str> = listeners.iter().map(|(name, _)| *name).collect();
    command.env(COUNT, listeners.len().to_string());
    command.env(NAMES, names.join(":"));
    command.env(FOR_PID, std::process::id().to_string());
    let handed = listeners.iter().map(|(_, listener)| listener.as_fd()).chain(more.iter().copied());
    let mut numbers: Vec<RawFd> = handed.map(|descriptor| descriptor.as_raw_fd()).collect();
    let behind = FIRST + numbers.len() as RawFd;
    let place = move || {
        // First out of the way of the places that are to be taken, then each to its own.
        for number in &mut numbers {
            // JUSTIFICATION: between fork and exec only bare system calls are allowed.
            // SAFETY: fcntl takes numbers; nothing of Rust's is touched.
            *number = checked(unsafe { libc::fcntl(*number, libc::F_DUPFD_CLOEXEC, behind) })?;
        }
        for (place, number) in (FIRST..).zip(&numbers) {
            // JUSTIFICATION: as above.
            // SAFETY: dup2 takes numbers; what stood at `place` belongs to a program that is about to be replaced.
            checked(unsafe { libc::dup2(*number, place) })?;
        }
        Ok(())
    };
    // JUSTIFICATION: the protocol wants fixed numbers, which only the child itself can arrange.
    // SAFETY: `place` makes two kinds of system calls, both async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(place) };
    FIRST + listeners.len() as RawFd
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
