//! The slave's side of port 8888: one connection to the master, both ends proven.

use crate::base::clock::Wall;
use crate::tls::identity::HandshakeFault;
use crate::tls::identity::NodeIdentity;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects to `master` (`HOST:PORT`) and shows it this node's leaf; while the cluster changes its activation key, first under
/// the new one and then, if the master does not hold that yet, under the former. The caller bounds the time.
pub async fn dial(master: &str, identity: &NodeIdentity) -> Result<DialStream, DialFault> {
    let mut refused = HandshakeFault::KeyMismatch;
    for (name, config) in identity.ways(Wall::now()) {
        let stream = TcpStream::connect(master).await.map_err(DialFault::Unreachable)?;
        stream.set_nodelay(true).map_err(DialFault::Unreachable)?;
        let name =
            ServerName::try_from(name).map_err(|e| DialFault::Handshake(HandshakeFault::Other(e.to_string())))?;
        match TlsConnector::from(config).connect(name, stream).await.map_err(|e| HandshakeFault::of(&e)) {
            Ok(tls) => return Ok(DialStream { tls }),
            Err(HandshakeFault::KeyMismatch) => refused = HandshakeFault::KeyMismatch,
            Err(fault) => return Err(DialFault::Handshake(fault)),
        }
    }
    Err(DialFault::Handshake(refused))
}

/// An open connection to the master.
#[derive(Debug)]
pub struct DialStream {
    tls: TlsStream<TcpStream>,
}

impl DialStream {
    /// Whether a ticket of an earlier connection spared both ends the signatures of a whole handshake.
    pub fn is_resumed(&self) -> bool {
        self.tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum DialFault {
    /// The network did not get us there.
    Unreachable(io::Error),
    /// Whoever is there is not our master, or did not take us for its slave.
    Handshake(HandshakeFault),
}

impl fmt::Display for DialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialFault::Unreachable(error) => write!(f, "{error}"),
            DialFault::Handshake(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for DialFault {}

impl AsyncRead for DialStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for DialStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
