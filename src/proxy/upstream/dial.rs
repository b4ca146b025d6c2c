//! Connecting to the first of several addresses that accepts (after RFC 8305).

use crate::io::Deadlines;
use crate::io::TcpStream;
use crate::limits::DIAL_STAGGER_MS;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

type Attempt = Result<(TcpStream, SocketAddr), (SocketAddr, io::Error)>;

/// Tries `addresses` in order, the next one when the one before has failed or is slow; the first to accept wins, the
/// others are dropped. The error is that of the last to fail.
pub(super) async fn dial(addresses: &[IpAddr], port: u16, deadlines: &Rc<Deadlines>, within: u64) -> Attempt {
    let mut waiting = addresses.iter().map(|&ip| SocketAddr::new(ip, port));
    let nowhere = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port);
    let Some(first) = waiting.next() else {
        return Err((nowhere, io::Error::other("no address to connect to")));
    };
    if waiting.len() == 0 {
        return attempt(first, Rc::clone(deadlines), within).await;
    }
    let mut running = JoinSet::new();
    running.spawn_local(attempt(first, Rc::clone(deadlines), within));
    let mut last = (first, io::Error::from(io::ErrorKind::ConnectionAborted));
    loop {
        // Each attempt ends by itself at its deadline, so waiting for one is bounded.
        let stagger = if waiting.len() > 0 { Duration::from_millis(DIAL_STAGGER_MS) } else { Duration::MAX };
        match tokio::time::timeout(stagger, running.join_next()).await {
            Ok(Some(Ok(Ok(connected)))) => return Ok(connected),
            Ok(Some(Ok(Err(failed)))) => last = failed,
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) if waiting.len() == 0 => return Err(last),
            Ok(None) => {}
        }
        if let Some(next) = waiting.next() {
            running.spawn_local(attempt(next, Rc::clone(deadlines), within));
        }
    }
}

async fn attempt(address: SocketAddr, deadlines: Rc<Deadlines>, within: u64) -> Attempt {
    match TcpStream::connect(address, &deadlines, deadlines.after(within)).await {
        Ok(stream) => Ok((stream, address)),
        Err(error) => Err((address, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Mono;
    use crate::io;
    use crate::sys::sockets;
    use std::net::TcpListener;

    fn dialled(addresses: &[&str], port: u16) -> (Attempt, Duration) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        io::run(64, async {
            let deadlines = Deadlines::new();
            io::spawn(Rc::clone(&deadlines).sweep(|_| ()));
            let begun = Mono::now();
            (dial(&addresses, port, &deadlines, 1_500).await, begun.0.elapsed())
        })
        .unwrap()
    }

    #[test]
    fn a_refusing_address_is_passed_over_at_once() {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (attempt, took) = dialled(&["127.0.0.1", "127.0.0.2"], port);
        assert_eq!(attempt.ok().unwrap().1.to_string(), format!("127.0.0.2:{port}"));
        assert!(took < Duration::from_millis(DIAL_STAGGER_MS), "{took:?}");
    }

    #[test]
    fn a_silent_address_is_raced_by_the_next() {
        let silent = sockets::listen("127.0.0.3:0".parse().unwrap(), 1, false).unwrap();
        let port = silent.local_addr().unwrap().port();
        // Fill its queue, so that it answers no more.
        let mut filling = Vec::new();
        let full = || std::net::TcpStream::connect_timeout(&silent.local_addr().unwrap(), Duration::from_millis(200));
        while let Ok(stream) = full() {
            filling.push(stream);
        }
        let _listener = TcpListener::bind(("127.0.0.4", port)).unwrap();
        let (attempt, took) = dialled(&["127.0.0.3", "127.0.0.4"], port);
        assert_eq!(attempt.ok().unwrap().1.ip(), IpAddr::from([127, 0, 0, 4]));
        assert!(took < Duration::from_millis(1_400), "{took:?}");
    }

    #[test]
    fn when_all_fail_the_last_error_is_told() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (attempt, _) = dialled(&["127.0.0.1", "127.0.0.5"], port);
        assert_eq!(attempt.err().unwrap().1.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
