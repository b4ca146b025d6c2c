//! One connection of a slave to its master: requests with deadlines and bounded answers.

use crate::cluster::Refusal;
use crate::limits::CLUSTER_CONNECT_MS;
use crate::tls::dial::DialFault;
use crate::tls::dial::dial;
use crate::tls::identity::CLUSTER_NAME;
use crate::tls::identity::HandshakeFault;
use crate::tls::identity::NodeIdentity;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::task::JoinHandle;

/// Where the master is, who we are, and how to get there.
#[derive(Clone)]
pub struct MasterAddress {
    /// `MASTER_IP:MASTER_PORT`; an IPv6 address in brackets.
    pub address: String,
    /// This node's identity.
    pub identity: Arc<NodeIdentity>,
    way: Way,
}

/// Opens lines to the master.
pub type Way = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Box<dyn Line>, DialFault>> + Send>> + Send + Sync>;

/// A line to the master: bytes both ways, with both ends proven.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

impl MasterAddress {
    /// A master over TCP and mutual TLS.
    pub fn new(address: String, identity: Arc<NodeIdentity>) -> Self {
        let (to, who) = (address.clone(), identity.clone());
        let way: Way = Arc::new(move || {
            let (to, who) = (to.clone(), who.clone());
            Box::pin(async move { dial(&to, &who).await.map(|line| Box::new(line) as Box<dyn Line>) })
        });
        MasterAddress { address, identity, way }
    }

    /// One over another way: a network of a test's own, which loses what it likes.
    pub fn over(way: Way, address: String, identity: Arc<NodeIdentity>) -> Self {
        MasterAddress { address, identity, way }
    }
}

impl fmt::Debug for MasterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterAddress({}, {:?})", self.address, self.identity)
    }
}

/// An open connection. Dropping it closes it.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

/// What the master answered.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub fields: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why the master could not be asked. Each says what to do in its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The network did not get us there, or broke.
    Unreachable(String),
    /// The master refuses this node.
    Refused(Refusal),
    /// The master knows nothing of this session: say hello again.
    NoSession,
    /// The master answered what it should not have.
    Answer(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable(what) => f.write_str(what),
            Trouble::Refused(refusal) => f.write_str(&refusal.words()),
            Trouble::NoSession => f.write_str("the master has restarted or forgot this node; saying hello again"),
            Trouble::Answer(what) => f.write_str(what),
        }
    }
}

impl Connection {
    /// Connects and shakes hands, within its deadline.
    pub async fn open(master: &MasterAddress) -> Result<Self, Trouble> {
        let deadline = Duration::from_millis(CLUSTER_CONNECT_MS);
        let unreachable = |what: &dyn fmt::Display| {
            Trouble::Unreachable(format!(
                "reaching the master at {}: {what}. Check MASTER_IP and MASTER_PORT, that the master runs, and the firewall \
                 between",
                master.address
            ))
        };
        let dialled = tokio::time::timeout(deadline, (master.way)()).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(DialFault::Handshake(fault))) => return Err(trouble_of(fault, &master.address)),
            Ok(Err(fault)) => return Err(unreachable(&fault)),
            Err(_) => return Err(unreachable(&format!("no answer within {CLUSTER_CONNECT_MS} ms"))),
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
        // Errors of the connection reach whoever waits for an answer; nobody else needs them.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, driver })
    }

    /// Asks and reads the whole answer, of at most `bytes_max`, within `deadline`.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        fields: &[(&'static str, String)],
        body: Vec<u8>,
        bytes_max: usize,
        deadline: Duration,
    ) -> Result<Answer, Trouble> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, CLUSTER_NAME);
        for (name, value) in fields {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|e| Trouble::Answer(format!("asking the master for {path}: {e}")))?;
        let exchange = async {
            self.sender.ready().await.map_err(|e| broken(&e))?;
            let answer = self.sender.send_request(request).await.map_err(|e| broken(&e))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, bytes_max).collect().await;
            let body = body.map_err(|e| Trouble::Unreachable(format!("reading the master's answer to {path}: {e}")))?;
            Ok(Answer { status: head.status, fields: head.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::Unreachable(format!(
                "the master did not answer {path} within {} ms",
                deadline.as_millis()
            ))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// With TLS 1.3 a master that refuses our certificate does so after our side of the handshake is over.
fn broken(error: &hyper::Error) -> Trouble {
    match HandshakeFault::among_causes_of(error) {
        Some(HandshakeFault::KeyMismatch) => Trouble::Refused(Refusal::KeyMismatch),
        Some(HandshakeFault::Clock) => Trouble::Refused(Refusal::ClocksApart),
        _ => {
            let cut = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
            let cause = match (cut, error.source()) {
                // The library's own words for this are a page of its manual.
                (Some(io::ErrorKind::UnexpectedEof), _) => "the master closed it".to_string(),
                (_, Some(cause)) => format!("{error}: {cause}"),
                (_, None) => error.to_string(),
            };
            Trouble::Unreachable(format!("the connection to the master broke: {cause}. Connecting again"))
        }
    }
}

fn trouble_of(fault: HandshakeFault, address: &str) -> Trouble {
    match fault {
        HandshakeFault::KeyMismatch => Trouble::Refused(Refusal::KeyMismatch),
        HandshakeFault::Clock => Trouble::Refused(Refusal::ClocksApart),
        HandshakeFault::Other(what) => Trouble::Unreachable(format!(
            "shaking hands with the master at {address}: {what}. Check that MASTER_PORT is the portal's port of a Tidegate master"
        )),
    }
}
