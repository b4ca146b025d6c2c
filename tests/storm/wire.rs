//! A bad wire: carries the frames between a machine and the switch, and hands some on late, behind those that came after them, and
//! some twice.

use crate::harness::dice::Dice;
use crate::switch::Port;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Of a hundred frames so many are late, by up to this: whole windows of TCP overtake them.
const LATE_PERCENT: u64 = 10;
const LATE_US_MAX: u64 = 20_000;
/// Of a hundred frames so many come twice.
const TWICE_PERCENT: u64 = 2;
/// Frames on their way in one direction; beyond that they are lost, as on any wire.
const FRAMES_MAX: usize = 4_096;
const FRAME_BYTES_MAX: usize = 2_048;

/// How often the wire did what.
#[derive(Default)]
pub struct Told {
    pub carried: AtomicU64,
    pub overtaken: AtomicU64,
    pub doubled: AtomicU64,
    /// For which there was no room.
    pub lost: AtomicU64,
}

/// Connects a machine that was attached loosely. Ends with the program, or with the machine's namespaces.
pub fn connect(port: &Port, seed: u64) -> Arc<Told> {
    let (switch, cable) = port.far_end();
    let (near, far) = (tap(&port.path(), "eth0"), tap(&switch, cable));
    let told: Arc<Told> = Arc::default();
    carry(&near, &far, Dice(seed), told.clone());
    carry(&far, &near, Dice(seed ^ 1), told.clone());
    told
}

/// A frame that is to be handed on at a time; the number keeps the order of those that are due together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due(Instant, u64, Vec<u8>);

fn carry(from: &File, to: &File, mut dice: Dice, told: Arc<Told>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let (sender, frames) = mpsc::sync_channel::<Due>(FRAMES_MAX);
    let counted = told.clone();
    thread::spawn(move || {
        let mut buffer = [0; FRAME_BYTES_MAX];
        for number in 0.. {
            let Ok(length) = from.read(&mut buffer) else { return };
            let late = if dice.chance(LATE_PERCENT) { dice.roll(LATE_US_MAX) } else { 0 };
            let due = Instant::now() + Duration::from_micros(late);
            let twice = dice.chance(TWICE_PERCENT);
            counted.doubled.fetch_add(u64::from(twice), Ordering::Relaxed);
            for _ in 0..1 + u64::from(twice) {
                let sent = sender.try_send(Due(due, number, buffer[..length].to_vec()));
                counted.lost.fetch_add(u64::from(sent.is_err()), Ordering::Relaxed);
            }
        }
    });
    thread::spawn(move || {
        let (mut waiting, mut last) = (BinaryHeap::new(), 0);
        loop {
            let now = Instant::now();
            let Some(Reverse(Due(_, number, frame))) = waiting.pop_if_due(now) else {
                match frames.recv_timeout(waiting.patience(now)) {
                    Ok(frame) => waiting.push(Reverse(frame)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                continue;
            };
            told.carried.fetch_add(1, Ordering::Relaxed);
            told.overtaken.fetch_add(u64::from(number < last), Ordering::Relaxed);
            last = number.max(last);
            // A machine whose end is down takes nothing.
            let _ = to.write(&frame);
        }
    });
}

/// What waits until it is due.
trait Waiting {
    fn pop_if_due(&mut self, now: Instant) -> Option<Reverse<Due>>;
    fn patience(&self, now: Instant) -> Duration;
}

impl Waiting for BinaryHeap<Reverse<Due>> {
    fn pop_if_due(&mut self, now: Instant) -> Option<Reverse<Due>> {
        if self.peek()?.0.0 <= now { self.pop() } else { None }
    }

    fn patience(&self, now: Instant) -> Duration {
        self.peek().map_or(Duration::from_secs(1), |next| next.0.0.saturating_duration_since(now))
    }
}

/// Opens a tap that stands in a network namespace.
fn tap(namespace: &Path, name: &str) -> File {
    crate::field::within(namespace, || {
        let tap = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("opening /dev/net/tun");
        take(&tap, name).unwrap_or_else(|error| panic!("taking the tap {name}: {error}"));
        tap
    })
}

#[allow(unsafe_code)] // the one call below
fn take(tap: &File, name: &str) -> io::Result<()> {
    // struct ifreq: 16 bytes of name, then the flags, 40 bytes in all.
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (nix::libc::IFF_TAP | nix::libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // JUSTIFICATION: nothing in std or nix takes a tap. SAFETY: the descriptor is open, and the request is as long as the kernel reads.
    match unsafe { nix::libc::ioctl(tap.as_raw_fd(), nix::libc::TUNSETIFF, request.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What goes in at one end is counted at the other: the wire does what it says of itself, and no more.
#[test]
fn the_wire_hands_frames_on_late_and_twice_as_often_as_it_says_and_changes_none() {
    const FRAMES: u64 = 20_000;
    let ends = || UnixDatagram::pair().map(|(one, other)| (File::from(OwnedFd::from(one)), other)).unwrap();
    let ((from, near), (to, far)) = (ends(), ends());
    let told: Arc<Told> = Arc::default();
    carry(&from, &to, Dice(7), told.clone());
    let sending = thread::spawn(move || {
        for number in 0..FRAMES {
            // With its sum, and of many lengths.
            let body = vec![number as u8; 8 + number as usize % 1_400];
            near.send(&[&number.to_le_bytes()[..], &body].concat()).unwrap();
            if number % 50 == 0 {
                // Slower than the wire carries: frames are a while on their way, and none is lost for want of room.
                thread::sleep(Duration::from_millis(1));
            }
        }
        near
    });
    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (mut seen, mut last, mut behind, mut came) = (vec![0u8; FRAMES as usize], 0, 0, 0);
    let mut buffer = [0; FRAME_BYTES_MAX];
    while seen.contains(&0) || came < told.carried.load(Ordering::Relaxed) {
        let length = far.recv(&mut buffer).expect("every frame comes");
        let number = u64::from_le_bytes(buffer[..8].try_into().unwrap());
        assert!(length == 16 + number as usize % 1_400 && buffer[8..length].iter().all(|byte| *byte == number as u8));
        seen[number as usize] += 1;
        behind += u64::from(number < last);
        last = number.max(last);
        came += 1;
    }
    drop(sending.join().unwrap());
    let [overtaken, doubled, lost] =
        [&told.overtaken, &told.doubled, &told.lost].map(|count| count.load(Ordering::Relaxed));
    let twice = seen.iter().filter(|times| **times == 2).count() as u64;
    println!("{FRAMES} frames: {came} came, {behind} of them behind later ones, {twice} twice, {lost} lost");
    assert!(seen.iter().all(|times| (1..=2).contains(times)));
    assert_eq!((twice, behind, lost), (doubled, overtaken, 0), "as it tells");
    let percent = |count: u64| 100 * count / FRAMES;
    // Who is late is behind others only if others came meanwhile: on a busy machine fewer are.
    assert!((1..=3).contains(&percent(twice)) && (1..=15).contains(&percent(behind)), "{twice} {behind}");
}
