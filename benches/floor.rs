//! What a request costs that goes through a proxy which does nothing for it: the floor that the kernel's TCP sets to any proxy on a machine.
//!
//! `floor PORT ORIGIN_PORT` relays bytes between each client and a connection of its own to the origin, with one thread and one ring: receives
//! and accepts that go on by themselves, lent buffers, one submission for all that was to be sent. It parses nothing, decides nothing, records
//! nothing, has no deadlines and pools no connections. `benches/compare --proxies floor,tidegate,haproxy` builds it and measures it beside
//! others, with nginx as the origin, which takes a target in absolute form.
#![allow(unsafe_code)] // it drives a ring by hand, as src/io does; each use says why it is sound

use io_uring::IoUring;
use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::BufRingEntry;
use io_uring::types::Fd;
use std::alloc::Layout;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;

/// More than arrive in one turn with a thousand connections.
const BUFFERS: u16 = 4096;
/// A request or an answer of the bench.
const BUFFER_BYTES: usize = 2048;
const GROUP: u16 = 0;
const ENTRIES: u32 = 8192;

/// What an operation is, in the upper half of its user data; in the lower its descriptor, or the buffer that it sends.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

/// ENOBUFS.
const NO_BUFFER: i32 = 105;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [port, origin] = &arguments[..] else {
        println!("floor PORT ORIGIN_PORT");
        return;
    };
    let number = |text: &String| text.parse::<u16>().unwrap_or_else(|error| panic!("{text}: {error}"));
    Relay::new(number(port), number(origin)).run();
}

struct Relay {
    ring: IoUring,
    buffers: Buffers,
    listener: TcpListener,
    origin: u16,
    /// By descriptor.
    ends: Vec<Option<End>>,
}

/// One end of a connection through the relay.
struct End {
    stream: TcpStream,
    /// The other one, if that is still there.
    other: Option<RawFd>,
}

impl Relay {
    fn new(port: u16, origin: u16) -> Relay {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(2 * ENTRIES).setup_single_issuer().setup_defer_taskrun();
        let ring = builder.build(ENTRIES).expect("a ring of kernel 6.1 or later");
        let buffers = Buffers::lend(&ring);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        Relay { ring, buffers, listener, origin, ends: Vec::new() }
    }

    fn run(mut self) {
        self.push(opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build(), ACCEPT, 0);
        let mut batch = Vec::new();
        loop {
            self.ring.submit_and_wait(1).expect("the ring to turn");
            let take = |cqe: cqueue::Entry| (cqe.user_data(), cqe.result(), cqe.flags());
            batch.extend(self.ring.completion().map(take));
            for (user_data, result, flags) in batch.drain(..) {
                match (user_data >> 32, user_data as u32) {
                    (ACCEPT, _) => self.accepted(result, flags),
                    (RECEIVE, end) => self.received(end as RawFd, result, flags),
                    (_, buffer) => self.buffers.give(buffer as u16),
                }
            }
            self.buffers.publish();
        }
    }

    fn push(&mut self, entry: Entry, what: u64, which: u32) {
        let entry = entry.user_data(what << 32 | u64::from(which));
        // JUSTIFICATION: entries carry addresses.
        // SAFETY: the one kind that does is a send, from a buffer that is given back when it has completed.
        while unsafe { self.ring.submission().push(&entry).is_err() } {
            self.ring.submit().expect("the ring to take what is queued");
        }
    }

    fn accepted(&mut self, result: i32, flags: u32) {
        if !cqueue::more(flags) {
            self.push(opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build(), ACCEPT, 0);
        }
        if result < 0 {
            return;
        }
        // JUSTIFICATION: the ring accepts with a number.
        // SAFETY: it is a descriptor that nobody else has.
        let client = unsafe { TcpStream::from_raw_fd(result) };
        let origin = TcpStream::connect((Ipv4Addr::LOCALHOST, self.origin)).expect("the origin to accept");
        let both = [client.as_raw_fd(), origin.as_raw_fd()];
        for (stream, other) in [(client, both[1]), (origin, both[0])] {
            stream.set_nodelay(true).expect("a socket to take an option");
            let end = stream.as_raw_fd();
            self.receive(end);
            if self.ends.len() <= end as usize {
                self.ends.resize_with(end as usize + 1, || None);
            }
            self.ends[end as usize] = Some(End { stream, other: Some(other) });
        }
    }

    fn receive(&mut self, end: RawFd) {
        self.push(opcode::RecvMulti::new(Fd(end), GROUP).build(), RECEIVE, end as u32);
    }

    fn received(&mut self, end: RawFd, result: i32, flags: u32) {
        let Some(buffer) = cqueue::buffer_select(flags) else {
            // The stream has ended; or more came at once than there were buffers.
            return if result == -NO_BUFFER { self.receive(end) } else { self.ended(end) };
        };
        if !cqueue::more(flags) {
            self.receive(end);
        }
        match self.ends[end as usize].as_ref().and_then(|end| end.other) {
            Some(other) => {
                let send = opcode::Send::new(Fd(other), self.buffers.at(buffer), result.max(0) as u32);
                self.push(send.build(), SEND, u32::from(buffer));
            }
            None => self.buffers.give(buffer),
        }
    }

    /// Closes this end, and has the other one end.
    fn ended(&mut self, end: RawFd) {
        let Some(End { other: Some(other), .. }) = self.ends[end as usize].take() else { return };
        if let Some(other) = &mut self.ends[other as usize] {
            // The number of this end may soon be another one's.
            other.other = None;
            let _ = other.stream.shutdown(Shutdown::Both);
        }
    }
}

/// What the kernel takes from, in turn.
struct Buffers {
    ring: *mut BufRingEntry,
    bytes: Vec<u8>,
    tail: u16,
}

impl Buffers {
    fn lend(uring: &IoUring) -> Buffers {
        let layout =
            Layout::from_size_align(usize::from(BUFFERS) * size_of::<BufRingEntry>(), 4096).expect("a small layout");
        // JUSTIFICATION: the kernel wants whole pages.
        // SAFETY: the layout has a size; zeroed entries are valid. It is never freed.
        let ring = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<BufRingEntry>();
        assert!(!ring.is_null(), "memory for a ring of buffers");
        // JUSTIFICATION: this is how buffers are lent.
        // SAFETY: pages of so many entries, which stay.
        unsafe { uring.submitter().register_buf_ring(ring.addr() as u64, BUFFERS, GROUP) }
            .expect("the kernel to take buffers");
        let mut buffers = Buffers { ring, bytes: vec![0; usize::from(BUFFERS) * BUFFER_BYTES], tail: 0 };
        (0..BUFFERS).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        buffers
    }

    fn at(&self, buffer: u16) -> *const u8 {
        self.bytes[usize::from(buffer) * BUFFER_BYTES..].as_ptr()
    }

    fn give(&mut self, buffer: u16) {
        // JUSTIFICATION: entries are written where the kernel reads them.
        // SAFETY: an entry of the ring, behind the tail that the kernel sees.
        let entry = unsafe { &mut *self.ring.add(usize::from(self.tail % BUFFERS)) };
        entry.set_addr(self.at(buffer).addr() as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // JUSTIFICATION: the tail is a field that the kernel reads at any time.
        // SAFETY: two aligned bytes of the first entry that nobody else writes.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
