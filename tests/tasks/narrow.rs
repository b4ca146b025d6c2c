//! A line to the master that breaks when more goes up than it carries, and that may let nobody in who is not in already.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;

pub struct NarrowLine {
    pub address: SocketAddr,
    carries: Arc<AtomicU64>,
    is_shut: Arc<AtomicBool>,
    turned_away: Arc<AtomicU64>,
}

impl NarrowLine {
    /// One that carries everything, until it is told otherwise.
    pub fn to(master: SocketAddr) -> NarrowLine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = NarrowLine {
            address: listener.local_addr().unwrap(),
            carries: Arc::new(AtomicU64::new(u64::MAX)),
            is_shut: Arc::default(),
            turned_away: Arc::default(),
        };
        let (carries, is_shut, turned_away) = (line.carries.clone(), line.is_shut.clone(), line.turned_away.clone());
        thread::spawn(move || {
            for slave in listener.incoming().flatten() {
                if is_shut.load(Ordering::Relaxed) {
                    turned_away.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let carries = carries.clone();
                // A master that is away is seen by the slave as a connection that ends.
                thread::spawn(move || TcpStream::connect(master).and_then(|master| relay(slave, master, &carries)));
            }
        });
        line
    }

    /// From now on each connection breaks that has sent more to the master.
    pub fn carry_at_most(&self, bytes: u64) {
        self.carries.store(bytes, Ordering::Relaxed);
    }

    /// From now on new connections end at once, or do not; those that are open stay.
    pub fn shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::Relaxed);
    }

    /// How many connections ended so.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

fn relay(mut slave: TcpStream, mut master: TcpStream, carries: &AtomicU64) -> io::Result<()> {
    let (mut up, mut down) = (slave.try_clone()?, master.try_clone()?);
    thread::spawn(move || io::copy(&mut down, &mut slave));
    let (mut buffer, mut sent) = (vec![0; 16 * 1024], 0);
    while let Ok(count @ 1..) = up.read(&mut buffer) {
        sent += count as u64;
        if sent > carries.load(Ordering::Relaxed) {
            break;
        }
        master.write_all(&buffer[..count])?;
    }
    let _ = up.shutdown(Shutdown::Both);
    master.shutdown(Shutdown::Both)
}
