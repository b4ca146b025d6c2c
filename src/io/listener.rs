//! Listening sockets: connections are accepted through tokio-uring's ring, one at a time.

use super::deadline::Deadlines;
use super::ring;
use super::tcp::TcpStream;
use crate::limits::ACCEPT_BACK_OFF_MS;
use crate::limits::ACCEPT_CANCEL_PAUSE_MS;
use crate::limits::ACCEPT_CANCELS_MAX;
use crate::sys::sockets;
use io_uring::opcode;
use io_uring::opcode::AsyncCancel2;
use io_uring::types::CancelBuilder;
use io_uring::types::Fd;
use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// A listening socket on this core.
pub struct TcpListener {
    listener: Rc<Listening>,
}

struct Listening {
    std: std::net::TcpListener,
    closed: Cell<bool>,
    /// An accept is in the ring.
    accepting: Cell<bool>,
}

impl TcpListener {
    /// Takes a listening socket over, which must be in blocking mode (the ring waits for it itself).
    pub fn adopt(listener: std::net::TcpListener) -> TcpListener {
        TcpListener {
            listener: Rc::new(Listening { std: listener, closed: Cell::new(false), accepting: Cell::new(false) }),
        }
    }

    /// The next connection, with TCP_NODELAY set; `None` once the listener was closed. Out of descriptors or memory it
    /// waits instead of spinning, and calls `exhausted` each time.
    pub async fn accept(&self, deadlines: &Rc<Deadlines>, mut exhausted: impl FnMut()) -> Option<TcpStream> {
        while !self.listener.closed.get() {
            let entry = opcode::Accept::new(self.fd(), std::ptr::null_mut(), std::ptr::null_mut())
                .flags(sockets::CLOSE_ON_EXEC)
                .build();
            self.listener.accepting.set(true);
            let (result, _) = ring::submit(Rc::clone(&self.listener), entry).await;
            self.listener.accepting.set(false);
            match result {
                Ok(descriptor) => {
                    // JUSTIFICATION: the ring hands a new descriptor over as a number.
                    // SAFETY: a successful accept returned it to us alone; nobody else knows or closes it.
                    let socket = std::net::TcpStream::from(unsafe { OwnedFd::from_raw_fd(descriptor as i32) });
                    // A peer that is gone already is noticed at the first read.
                    let _ = socket.set_nodelay(true);
                    return Some(TcpStream::adopt(socket, deadlines));
                }
                Err(error) if sockets::is_exhaustion(&error) => {
                    exhausted();
                    tokio::time::sleep(Duration::from_millis(ACCEPT_BACK_OFF_MS)).await;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return None,
                // A connection that was reset while it waited is no fault of the listener's.
                Err(_) => super::breathe().await,
            }
        }
        None
    }

    /// Stops accepting here: the pending accept ends. The socket itself listens on as long as somebody else has it, another
    /// core or the next process, so nobody who waits in its backlog is reset.
    pub async fn close(&self) {
        if self.listener.closed.replace(true) {
            return;
        }
        // Again until it has ended: a cancel that meets an accept just being woken finds nothing, and if the connection went to
        // another core meanwhile, the accept waits anew.
        for _ in 0..ACCEPT_CANCELS_MAX {
            let cancel = AsyncCancel2::new(CancelBuilder::fd(self.fd()).all()).build();
            if let (Err(error), ()) = ring::submit((), cancel).await
                && error.kind() == io::ErrorKind::InvalidInput
            {
                // A kernel before 5.19 cannot cancel by descriptor; there the socket itself must go.
                let _ = sockets::shutdown(&self.listener.std, Shutdown::Both);
            }
            super::breathe().await;
            if !self.listener.accepting.get() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(ACCEPT_CANCEL_PAUSE_MS)).await;
        }
    }

    fn fd(&self) -> Fd {
        Fd(self.listener.std.as_raw_fd())
    }

    /// A handle that can close it from another task.
    pub fn share(&self) -> TcpListener {
        TcpListener { listener: Rc::clone(&self.listener) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tcp::tests::on_a_core;
    use super::*;
    use crate::io::Wait;

    /// Sends back and forth with an echo on the same core, without end.
    async fn always_at_work(deadlines: Rc<Deadlines>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        for (stream, begins) in [(near, true), (far, false)] {
            let (stream, deadlines) = (TcpStream::adopt(stream, &deadlines), Rc::clone(&deadlines));
            crate::io::spawn(async move {
                let mut buf = b"ball".to_vec();
                if begins {
                    buf = stream.send(buf, 0, 1_000).await.1;
                }
                loop {
                    buf.clear();
                    let (count, got) = stream.recv(buf, deadlines.after(60_000), Wait::Idle).await;
                    count.unwrap();
                    buf = stream.send(got, 0, 1_000).await.1;
                }
            });
        }
    }

    /// Accepts were handed to the kernel only when nothing else was to be done: a single client that pipelined without end
    /// kept everybody else out.
    #[test]
    fn a_core_whose_streams_always_have_work_accepts_all_the_same() {
        let listener = sockets::listen("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let address = listener.local_addr().unwrap();
        on_a_core(|deadlines| async move {
            for _ in 0..16 {
                always_at_work(Rc::clone(&deadlines)).await;
            }
            let listener = TcpListener::adopt(listener);
            let clients: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(address)).collect();
            for client in clients {
                client.unwrap();
                let accepted = tokio::time::timeout(Duration::from_secs(5), listener.accept(&deadlines, || ())).await;
                assert!(accepted.expect("an accept in time").is_some());
            }
        });
    }

    #[test]
    fn a_closed_listener_ends_its_accept() {
        let listener = sockets::listen("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let address = listener.local_addr().unwrap();
        on_a_core(|deadlines| async move {
            let listener = TcpListener::adopt(listener);
            let closer = listener.share();
            let table = Rc::clone(&deadlines);
            let accepting = crate::io::spawn(async move {
                let first = listener.accept(&table, || ()).await;
                (first.is_some(), listener.accept(&table, || ()).await.is_none())
            });
            let _client = TcpStream::connect(address, &deadlines, deadlines.after(5_000)).await.unwrap();
            crate::io::breathe().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            closer.close().await;
            assert_eq!(accepting.await.unwrap(), (true, true));
        });
    }
}
