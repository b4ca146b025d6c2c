//! A descriptor that becomes readable when somebody signals it.

use nix::sys::eventfd::EfdFlags;
use nix::sys::eventfd::EventFd;
use std::io;
use std::os::fd::OwnedFd;

/// An event counter for a ring to signal: `eventfd(2)`, not blocking.
pub fn counter() -> io::Result<OwnedFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?.into())
}
