//! Idle connections to origins, the latest used first: the rest can then grow old and go.

use super::Target;
use crate::io::Deadline;
use crate::io::TcpStream;
use crate::limits::POOLED_PER_CORE_MAX;
use crate::limits::POOLED_PER_HOST_MAX;
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

/// An idle connection.
pub(super) struct Pooled {
    /// Watched: whatever the origin says now, nobody has asked for.
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) port: u16,
    /// The way it was opened by; see `parent::Ways`.
    pub(super) way: u32,
    /// Closed when it has been idle until then.
    pub(super) until: Deadline,
    /// Until then nobody asks whether its name still leads to its address.
    pub(super) believed: Deadline,
}

/// The idle connections of one core, by host.
pub(super) struct Pool {
    shelves: RefCell<Vec<Shelf>>,
    by_host: RefCell<HashMap<Box<str>, usize>>,
    /// The shelf that was looked for last: the next request mostly goes there too, without its name being hashed.
    last: Cell<usize>,
    count: Cell<usize>,
    all_max: usize,
    per_host_max: usize,
}

/// The idle connections to one host.
struct Shelf {
    host: Box<str>,
    idle: Vec<Pooled>,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::of(POOLED_PER_CORE_MAX, POOLED_PER_HOST_MAX)
    }
}

impl Pool {
    fn of(all_max: usize, per_host_max: usize) -> Pool {
        Pool {
            shelves: RefCell::default(),
            by_host: RefCell::default(),
            last: Cell::new(0),
            count: Cell::new(0),
            all_max,
            per_host_max,
        }
    }

    /// The latest used connection to `target` by `way`. The caller checks that it still lives.
    pub(super) fn take(&self, target: Target<'_>, way: u32) -> Option<Pooled> {
        let at = self.shelf(target.host)?;
        let idle = &mut self.shelves.borrow_mut()[at].idle;
        let at = idle.iter().rposition(|pooled| pooled.port == target.port && pooled.way == way)?;
        self.count.set(self.count.get() - 1);
        Some(idle.remove(at))
    }

    /// Takes a connection in; where there are too many already, it is closed instead.
    pub(super) fn put(&self, target: Target<'_>, pooled: Pooled) {
        if self.count.get() >= self.all_max {
            return;
        }
        let at = self.shelf(target.host).unwrap_or_else(|| self.add_shelf(target.host));
        let idle = &mut self.shelves.borrow_mut()[at].idle;
        if idle.len() < self.per_host_max {
            idle.push(pooled);
            self.count.set(self.count.get() + 1);
        }
    }

    /// Closes the connections whose time is up, and those the origin has closed.
    pub(super) fn expire(&self, up: impl Fn(Deadline) -> bool) {
        let mut shelves = self.shelves.borrow_mut();
        let hosts = shelves.len();
        shelves.retain_mut(|shelf| {
            shelf.idle.retain(|pooled| !up(pooled.until) && pooled.stream.is_quiet());
            !shelf.idle.is_empty()
        });
        self.count.set(shelves.iter().map(|shelf| shelf.idle.len()).sum());
        if shelves.len() < hosts {
            let places = shelves.iter().enumerate().map(|(at, shelf)| (shelf.host.clone(), at));
            *self.by_host.borrow_mut() = places.collect();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count.get()
    }

    fn shelf(&self, host: &str) -> Option<usize> {
        let last = self.last.get();
        if self.shelves.borrow().get(last).is_some_and(|shelf| *shelf.host == *host) {
            return Some(last);
        }
        let at = *self.by_host.borrow().get(host)?;
        self.last.set(at);
        Some(at)
    }

    fn add_shelf(&self, host: &str) -> usize {
        let mut shelves = self.shelves.borrow_mut();
        shelves.push(Shelf { host: host.into(), idle: Vec::new() });
        let at = shelves.len() - 1;
        self.by_host.borrow_mut().insert(host.into(), at);
        self.last.set(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io;
    use crate::io::Deadlines;
    use std::future::Future;
    use std::net::TcpListener;
    use std::net::TcpStream as Other;
    use std::rc::Rc;

    fn on_a_core<F: Future>(test: impl FnOnce(Rc<Deadlines>) -> F) -> F::Output {
        io::run(64, async {
            let deadlines = Deadlines::new();
            io::spawn(Rc::clone(&deadlines).sweep(|_| ()));
            test(deadlines).await
        })
        .unwrap()
    }

    /// An idle connection, which is good for `ms`, and its other end.
    async fn idle(deadlines: &Rc<Deadlines>, port: u16, way: u32, ms: u64) -> (Pooled, Other) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address, deadlines, deadlines.after(5_000)).await.unwrap();
        let until = deadlines.after(ms);
        stream.watch();
        (Pooled { stream, address, port, way, until, believed: until }, listener.accept().unwrap().0)
    }

    /// Until so many sockets are open: one with a receive under way closes when that has ended.
    async fn open(deadlines: &Deadlines, count: usize) {
        let begun = crate::base::clock::Mono::now();
        while deadlines.entered() != count {
            assert!(begun.0.elapsed() < std::time::Duration::from_secs(5), "{} are open", deadlines.entered());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    fn at(host: &str, port: u16) -> Target<'_> {
        Target { host, port }
    }

    #[test]
    fn a_connection_is_found_by_host_port_and_way_the_latest_first() {
        on_a_core(|deadlines| async move {
            let pool = Pool::default();
            let mut far_ends = Vec::new();
            let mut addresses = Vec::new();
            for (port, way) in [(80, 0), (80, 0), (81, 0), (80, 7)] {
                let (pooled, far_end) = idle(&deadlines, port, way, 60_000).await;
                addresses.push(pooled.address);
                far_ends.push(far_end);
                pool.put(at("a.test", port), pooled);
            }
            let took = |host, port, way| pool.take(at(host, port), way).map(|pooled| pooled.address);
            assert_eq!(took("b.test", 80, 0), None);
            assert_eq!(took("a.test", 443, 0), None);
            assert_eq!(took("a.test", 80, 8), None);
            assert_eq!(took("a.test", 80, 7), Some(addresses[3]));
            assert_eq!(took("a.test", 80, 0), Some(addresses[1]), "the latest");
            assert_eq!(took("a.test", 80, 0), Some(addresses[0]));
            assert_eq!(took("a.test", 80, 0), None);
            assert_eq!(took("a.test", 81, 0), Some(addresses[2]));
        });
    }

    #[test]
    fn what_is_too_many_is_closed_and_so_is_what_is_idle_too_long_or_dead() {
        on_a_core(|deadlines| async move {
            let pool = Pool::of(4, 2);
            let mut far_ends = Vec::new();
            for host in ["a.test", "a.test", "a.test", "b.test", "c.test", "d.test"] {
                let ms = if host == "b.test" { 1 } else { 60_000 };
                let (pooled, far_end) = idle(&deadlines, 80, 0, ms).await;
                far_ends.push(far_end);
                pool.put(at(host, 80), pooled);
            }
            // Two of a, one of b and c; the rest closes.
            assert_eq!(pool.count.get(), 4);
            open(&deadlines, 4).await;
            // One idle too long, one closed by its origin.
            drop(far_ends.remove(0));
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            pool.expire(|until| deadlines.passed(until));
            assert_eq!(pool.count.get(), 2);
            open(&deadlines, 2).await;
            assert!(pool.take(at("b.test", 80), 0).is_none() && pool.take(at("c.test", 80), 0).is_some());
            pool.expire(|_| true);
            assert_eq!(pool.count.get(), 0);
            open(&deadlines, 0).await;
        });
    }
}
