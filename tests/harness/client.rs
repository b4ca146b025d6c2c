//! A small, strict HTTP client: what it calls an answer was received whole.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

/// One connection to a proxy, kept alive between requests.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer received whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the connection may be used again.
    pub keeps: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

impl Client {
    pub fn connect(proxy: SocketAddr) -> io::Result<Client> {
        Client::connect_within(proxy, Duration::from_secs(30))
    }

    /// One that waits no longer than this for anything.
    pub fn connect_within(proxy: SocketAddr, patience: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&proxy, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub fn get(&mut self, url: &str) -> io::Result<Answer> {
        self.get_as(url, "tidegate-test")
    }

    /// A GET whose User-Agent is `agent`: the way a test finds its own exchanges in the report.
    pub fn get_as(&mut self, url: &str, agent: &str) -> io::Result<Answer> {
        self.send(format!("GET {url} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {agent}\r\n\r\n", host(url)).as_bytes())?;
        self.receive(false)
    }

    pub fn head(&mut self, url: &str) -> io::Result<Answer> {
        self.send(
            format!("HEAD {url} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tidegate-test\r\n\r\n", host(url)).as_bytes(),
        )?;
        self.receive(true)
    }

    /// A POST with a chunked body, in chunks of uneven sizes.
    pub fn post_chunked(&mut self, url: &str, body: &[u8]) -> io::Result<Answer> {
        let host = host(url);
        let mut message =
            format!("POST {url} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        let mut rest = body;
        let mut size = 1;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            message.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            message.extend_from_slice(piece);
            message.extend_from_slice(b"\r\n");
            rest = after;
            size = (size * 3 + 1) % 5_000 + 1;
        }
        message.extend_from_slice(b"0\r\n\r\n");
        self.send(&message)?;
        self.receive(false)
    }

    /// A CONNECT; the tunnel if it was opened, the answer if not.
    pub fn tunnel(mut self, target: &str) -> io::Result<Result<Client, Answer>> {
        self.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())?;
        let (status, head) = self.receive_head()?;
        if (200..300).contains(&status) {
            return Ok(Ok(self));
        }
        self.receive_body(status, head, false).map(Err)
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Receives one answer, passing over interim ones.
    pub fn receive(&mut self, to_head: bool) -> io::Result<Answer> {
        loop {
            let (status, head) = self.receive_head()?;
            if status >= 200 {
                return self.receive_body(status, head, to_head);
            }
        }
    }

    fn receive_head(&mut self) -> io::Result<(u16, String)> {
        let mut head = String::new();
        loop {
            let start = head.len();
            if self.stream.read_line(&mut head)? == 0 {
                return Err(broken("the connection closed inside a head"));
            }
            if &head[start..] == "\r\n" {
                break;
            }
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or_else(|| broken(&format!("no status in {head:?}")))?, head))
    }

    fn receive_body(&mut self, status: u16, head: String, to_head: bool) -> io::Result<Answer> {
        let mut answer = Answer { status, head, body: Vec::new(), keeps: true };
        answer.keeps = !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if to_head || status == 204 || status == 304 {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            answer.body = self.receive_chunks()?;
        } else if let Some(length) = answer.header("content-length").and_then(|value| value.parse::<usize>().ok()) {
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body)?;
        } else {
            self.stream.read_to_end(&mut answer.body)?;
            answer.keeps = false;
        }
        Ok(answer)
    }

    fn receive_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end().split(';').next().unwrap_or_default(), 16);
            let size = size.map_err(|_| broken(&format!("no chunk size in {line:?}")))?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            let mut end = String::new();
            self.stream.read_line(&mut end)?;
            if size == 0 {
                while end != "\r\n" {
                    end.clear();
                    if self.stream.read_line(&mut end)? == 0 {
                        return Err(broken("the connection closed inside the trailers"));
                    }
                }
                return Ok(body);
            }
            if end != "\r\n" {
                return Err(broken("a chunk does not end in CRLF"));
            }
        }
    }
}

/// `host:port` of a URL.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn broken(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, words)
}
