//! Load at a constant rate, for latencies: requests are due at fixed moments whether the answers before came or not, and a latency
//! counts from the moment its request was due. A proxy that stalls is charged for all who would have waited meanwhile.
//!
//! `load ADDRESS TARGET HOST RATE CONNECTIONS SECONDS` prints one line of JSON. `benches/compare --latency` compiles it by itself
//! (`rustc -O`): it needs nothing but the standard library.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Requests of the first moment do not count: connections are opened in it, also by the proxy.
const WARM_UP: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [address, target, host, rate, connections, seconds] = &arguments[..] else {
        println!("load ADDRESS TARGET HOST RATE CONNECTIONS SECONDS");
        return;
    };
    let number = |text: &String| text.parse::<f64>().unwrap_or_else(|error| panic!("{text}: {error}"));
    let (rate, connections, length) = (number(rate), number(connections) as u32, Duration::from_secs_f64(number(seconds)));
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let start = Instant::now() + Duration::from_millis(100);
    let interval = Duration::from_secs_f64(f64::from(connections) / rate);
    let threads: Vec<_> = (0..connections)
        .map(|number| {
            let stream = connect(address);
            // Each connection's requests are due between those of the others.
            let first = start + interval * number / connections;
            let (request, until) = (request.clone(), start + WARM_UP + length);
            thread::spawn(move || serve(stream, &request, first, interval, start + WARM_UP, until))
        })
        .collect();
    let mut took: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().expect("a connection failed")).collect();
    took.sort_unstable();
    let at = |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len() - 1)).copied().unwrap_or(0) as f64 / 1e3;
    println!(
        "{{\"requests\": {}, \"p50_us\": {:.1}, \"p90_us\": {:.1}, \"p99_us\": {:.1}, \"p999_us\": {:.1}, \"most_us\": {:.1}}}",
        took.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
    stream.set_nodelay(true).expect("an option of a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option of a socket");
    stream
}

/// One connection's requests; the nanoseconds from the moment each was due to the end of its answer.
fn serve(
    mut stream: TcpStream,
    request: &[u8],
    first: Instant,
    interval: Duration,
    counted_from: Instant,
    until: Instant,
) -> Vec<u64> {
    let (mut took, mut due, mut buf) = (Vec::new(), first, vec![0; 64 * 1024]);
    while due < until {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request).expect("sending a request");
        receive(&mut stream, &mut buf);
        if due >= counted_from {
            took.push(due.elapsed().as_nanos() as u64);
        }
        due += interval;
    }
    took
}

/// One whole answer of status 200 with a Content-Length.
fn receive(stream: &mut TcpStream, buf: &mut [u8]) {
    let (mut filled, mut whole) = (0, usize::MAX);
    while filled < whole {
        assert!(filled < buf.len(), "the answer is longer than {} bytes", buf.len());
        match stream.read(&mut buf[filled..]) {
            Ok(0) => panic!("closed in the middle of an answer"),
            Ok(count) => filled += count,
            Err(error) => panic!("receiving an answer: {error}"),
        }
        if whole == usize::MAX
            && let Some(head) = buf[..filled].windows(4).position(|four| four == b"\r\n\r\n")
        {
            whole = head + 4 + content_length(&buf[..head]);
        }
    }
    assert!(filled == whole, "{} bytes behind an answer", filled - whole);
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "an answer that is not 200: {head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.and_then(|text| text.trim().parse().ok()).expect("an answer without Content-Length")
}
