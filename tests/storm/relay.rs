//! A slow line: a relay that hands on what it gets, in both directions, each piece 200 ms after it came.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How long a piece is on its way.
const DELAY: Duration = Duration::from_millis(200);
/// Pieces on their way in one direction.
const PIECES: usize = 256;

/// Relays from `listener` to `target` until the program ends, in the network namespace of the thread that asks.
pub fn run(listener: TcpListener, target: SocketAddr) {
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            thread::spawn(move || {
                // A master that is away is seen by the slave as a connection that ends.
                let Ok(far) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else { return };
                let _ = both_ways(near, far);
            });
        }
    });
}

fn both_ways(near: TcpStream, far: TcpStream) -> io::Result<()> {
    let back = (far.try_clone()?, near.try_clone()?);
    thread::spawn(move || one_way(back.0, back.1));
    one_way(near, far);
    Ok(())
}

fn one_way(mut from: TcpStream, mut to: TcpStream) {
    let (sender, pieces) = mpsc::sync_channel::<(Instant, Vec<u8>)>(PIECES);
    let Ok(mut out) = to.try_clone() else { return };
    let writer = thread::spawn(move || {
        for (due, piece) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if out.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = out.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now() + DELAY, buffer[..count].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    let _ = writer.join();
    let _ = to.flush();
}

#[test]
fn the_slow_line_delays_each_piece_both_ways_and_loses_none() {
    let [far, near] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let (target, line) = (far.local_addr().unwrap(), near.local_addr().unwrap());
    run(near, target);
    thread::spawn(move || far.incoming().flatten().for_each(|peer| drop(io::copy(&mut &peer, &mut &peer))));
    let mut stream = TcpStream::connect(line).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    for round in 0..3u8 {
        let (sent, mut back) = (vec![round; 50_000], vec![0; 50_000]);
        let began = Instant::now();
        stream.write_all(&sent).unwrap();
        stream.read_exact(&mut back).unwrap();
        assert!(back == sent && began.elapsed() >= 2 * DELAY, "{:?}", began.elapsed());
    }
}
