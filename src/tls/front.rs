//! The door on port 8888. One listener, three kinds of callers: slaves (TLS that names the cluster: mutual TLS), browsers
//! (any other TLS: the portal's certificate), and plain HTTP (health checks and proxy auto-configuration are answered, the rest
//! is sent to HTTPS, or refused if it takes us for a proxy).
//!
//! ```text
//! accept --peek--> 0x16 -> ClientHello -> SNI == cluster -> mutual TLS -> Accepted::Cluster | Accepted::Fault
//!            |                       `--> anything else  -> portal TLS -> Accepted::Portal
//!            `---> plain HTTP -> a few paths answered, 308 to https, or 403 for a proxy request
//! ```

use crate::base::clock::Mono;
use crate::base::clock::Wall;
use crate::base::seldom::Seldom;
use crate::limits::FRONT_CLUSTER_CONNECTIONS_MAX;
use crate::limits::FRONT_HANDSHAKE_MS;
use crate::limits::FRONT_HANDSHAKES_MAX;
use crate::limits::FRONT_PORTAL_CONNECTIONS_MAX;
use crate::limits::PEER_LINES_TOLD_MAX;
use crate::limits::REFUSALS_TOLD_MS;
use crate::tls::identity::HandshakeFault;
use crate::tls::identity::NodeIdentity;
use crate::tls::identity::PeerIdentity;
use crate::tls::identity::asks_for_cluster;
use crate::tls::serve::Plain;
use crate::tls::serve::serve_plain;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// The first byte of every TLS record that a client opens with.
const TLS_HANDSHAKE: u8 = 0x16;

/// What came through the door.
#[derive(Debug)]
pub enum Accepted {
    /// A node of this cluster, proven by its leaf.
    Cluster {
        /// The connection.
        stream: FrontStream,
        /// Who it is.
        peer: PeerIdentity,
        /// Where it came from.
        from: SocketAddr,
    },
    /// A browser.
    Portal {
        /// The connection.
        stream: FrontStream,
        /// Where it came from.
        from: SocketAddr,
        /// The address of this node that it reached.
        to: SocketAddr,
    },
    /// A caller that asked for the cluster and failed the handshake.
    Fault {
        /// Why.
        fault: HandshakeFault,
        /// Where it came from.
        from: SocketAddr,
    },
}

/// Sorts callers on the portal's port.
pub struct Front {
    cluster: Option<Arc<NodeIdentity>>,
    portal: Arc<ServerConfig>,
    not_a_proxy: Arc<str>,
    plain: Plain,
    handshakes: Arc<Semaphore>,
    open_portal: Arc<Semaphore>,
    open_cluster: Arc<Semaphore>,
    /// What callers can make it say.
    lines: Seldom,
}

impl Front {
    /// `cluster` is absent on a node that is no master (slaves are then told by TLS that the name is unknown).
    /// `not_a_proxy` is what clients are told that send proxy requests here, `plain` what is answered without TLS.
    pub fn new(
        cluster: Option<Arc<NodeIdentity>>,
        portal: Arc<ServerConfig>,
        not_a_proxy: &str,
        plain: Plain,
    ) -> Arc<Self> {
        Arc::new(Front {
            cluster,
            portal,
            not_a_proxy: Arc::from(not_a_proxy),
            plain,
            handshakes: Arc::new(Semaphore::new(FRONT_HANDSHAKES_MAX)),
            open_portal: Arc::new(Semaphore::new(FRONT_PORTAL_CONNECTIONS_MAX)),
            open_cluster: Arc::new(Semaphore::new(FRONT_CLUSTER_CONNECTIONS_MAX)),
            lines: Seldom::new(PEER_LINES_TOLD_MAX, REFUSALS_TOLD_MS),
        })
    }

    /// Accepts on `listener` (already bound) and sends what came to `out`; ends when `out` is closed. Runs on tokio.
    pub async fn run(self: Arc<Self>, listener: std::net::TcpListener, out: mpsc::Sender<Accepted>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let Ok(handshaking) = self.handshakes.clone().acquire_owned().await else { return Ok(()) };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = out.closed() => return Ok(()),
            };
            match accepted {
                Ok((stream, from)) => {
                    let (front, out) = (self.clone(), out.clone());
                    tokio::spawn(async move { front.greet(stream, from, out, handshaking).await });
                }
                Err(error) => {
                    // Out of descriptors, or the caller was gone already: waiting is all that helps.
                    if let Some(untold) = self.lines.ask(Mono::now()) {
                        let kind = error.kind();
                        tracing::warn!(event = "portal-trouble", error = ?kind, "accepting on the portal's port: {error}{untold}");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn greet(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        out: mpsc::Sender<Accepted>,
        handshaking: OwnedSemaphorePermit,
    ) {
        let deadline = Duration::from_millis(FRONT_HANDSHAKE_MS);
        let accepted = tokio::time::timeout(deadline, self.sort(stream, from)).await;
        drop(handshaking);
        match accepted {
            Ok(Ok(Some(accepted))) => drop(out.send(accepted).await),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::debug!(event = "handshake-failed", client_id = %from.ip(), error = ?error.kind(), "handshake with {from}: {error}")
            }
            Err(_) => {
                tracing::debug!(
                    event = "handshake-failed",
                    client_id = %from.ip(),
                    error = "TimedOut",
                    "handshake with {from}: not finished after {FRONT_HANDSHAKE_MS} ms"
                )
            }
        }
    }

    async fn sort(&self, stream: TcpStream, from: SocketAddr) -> io::Result<Option<Accepted>> {
        stream.set_nodelay(true)?;
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        let to = stream.local_addr()?;
        if first[0] != TLS_HANDSHAKE {
            serve_plain(stream, (to, from), self.not_a_proxy.clone(), self.plain.clone()).await;
            return Ok(None);
        }
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = start.client_hello().server_name().unwrap_or_default().to_string();
        match &self.cluster {
            Some(identity) if asks_for_cluster(&name) => {
                let (config, until) = identity.server_config(&name, Wall::now());
                Ok(self.meet_slave(start.into_stream(config).await, until, from))
            }
            _ => {
                let stream = start.into_stream(self.portal.clone()).await?;
                let stream = self.hold(stream, &self.open_portal, from);
                Ok(stream.map(|stream| Accepted::Portal { stream, from, to }))
            }
        }
    }

    fn meet_slave(
        &self,
        accept: io::Result<TlsStream<TcpStream>>,
        until: Option<Wall>,
        from: SocketAddr,
    ) -> Option<Accepted> {
        let stream = match accept {
            Ok(stream) => stream,
            Err(error) => return Some(Accepted::Fault { fault: HandshakeFault::of(&error), from }),
        };
        let Some(peer) = PeerIdentity::of(stream.get_ref().1.peer_certificates(), until) else {
            return Some(Accepted::Fault { fault: HandshakeFault::KeyMismatch, from });
        };
        let stream = self.hold(stream, &self.open_cluster, from)?;
        Some(Accepted::Cluster { stream, peer, from })
    }

    /// Counts the connection as open, unless too many are.
    fn hold(&self, tls: TlsStream<TcpStream>, open: &Arc<Semaphore>, from: SocketAddr) -> Option<FrontStream> {
        let permit = open.clone().try_acquire_owned().ok();
        if permit.is_none()
            && let Some(untold) = self.lines.ask(Mono::now())
        {
            let client = from.ip();
            tracing::warn!(
                event = "client-refused",
                client_id = %client,
                "closed a connection from {client}: too many are open on the portal's port{untold}"
            );
        }
        Some(FrontStream { tls, _open: permit? })
    }
}

/// A connection whose handshake is done. It counts as open until dropped.
#[derive(Debug)]
pub struct FrontStream {
    tls: TlsStream<TcpStream>,
    _open: OwnedSemaphorePermit,
}

impl AsyncRead for FrontStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for FrontStream {
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
