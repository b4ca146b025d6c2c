//! Idle connections to origins, the latest used first: the rest can then grow old and go.

use super::Target;
use crate::io::Deadline;
use crate::io::Receiving;
use crate::io::TcpStream;
use crate::limits::POOLED_PER_CORE_MAX;
use crate::limits::POOLED_PER_HOST_MAX;
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

/// An idle connection.
pub(super) struct Pooled {
    pub(super) stream: TcpStream,
    /// Under way as long as the origin says nothing: whatever it says now, nobody has asked for.
    pub(super) receiving: Receiving,
    pub(super) address: SocketAddr,
    pub(super) port: u16,
    /// Closed when it has been idle until then.
    pub(super) until: Deadline,
    /// Until then nobody asks whether its name still leads to its address.
    pub(super) believed: Deadline,
}

/// The idle connections of one core, by host.
#[derive(Default)]
pub(super) struct Pool {
    hosts: RefCell<HashMap<Box<str>, Vec<Pooled>>>,
    count: Cell<usize>,
}

impl Pool {
    /// The latest used connection to `target`. The caller checks that it still lives.
    pub(super) fn take(&self, target: Target<'_>) -> Option<Pooled> {
        let mut hosts = self.hosts.borrow_mut();
        let idle = hosts.get_mut(target.host)?;
        let at = idle.iter().rposition(|pooled| pooled.port == target.port)?;
        self.count.set(self.count.get() - 1);
        Some(idle.remove(at))
    }

    /// Takes a connection in; where there are too many already, it is closed instead.
    pub(super) fn put(&self, target: Target<'_>, pooled: Pooled) {
        if self.count.get() >= POOLED_PER_CORE_MAX {
            return;
        }
        let mut hosts = self.hosts.borrow_mut();
        match hosts.get_mut(target.host) {
            Some(idle) if idle.len() >= POOLED_PER_HOST_MAX => return,
            Some(idle) => idle.push(pooled),
            None => {
                hosts.insert(target.host.into(), vec![pooled]);
            }
        }
        self.count.set(self.count.get() + 1);
    }

    /// Closes the connections whose time is up, and those the origin has closed.
    pub(super) fn expire(&self, up: impl Fn(Deadline) -> bool) {
        let mut kept = 0;
        self.hosts.borrow_mut().retain(|_, idle| {
            idle.retain_mut(|pooled| !up(pooled.until) && !pooled.receiving.is_over());
            kept += idle.len();
            !idle.is_empty()
        });
        self.count.set(kept);
    }
}
