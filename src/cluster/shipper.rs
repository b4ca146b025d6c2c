//! From extended.log to the store of records, exactly once: read a batch, hand it over, move the cursor on the ack.
//!
//! At every (new) contact the store is asked how far it is, and reading resumes there: a batch whose ack was lost is not
//! sent again, and what the store lacks is, whatever the cursor says. What arrives twice all the same the store drops by
//! its sequence number. One loop serves a slave (the store is behind the master) and a master or stand-alone node (it
//! is in the same process): they differ in the [`Sink`].

use crate::base::clock::Mono;
use crate::cluster::backoff::Backoff;
use crate::cluster::client::Connection;
use crate::cluster::client::MasterAddress;
use crate::cluster::client::Trouble;
use crate::cluster::packer::Packer;
use crate::cluster::protocol;
use crate::cluster::protocol::Stored;
use crate::cluster::sidecar::checked;
use crate::limits::BATCH_LINE_BYTES_MAX;
use crate::limits::BATCH_RECORDS_MAX;
use crate::limits::CLUSTER_BATCH_MS;
use crate::limits::CLUSTER_MESSAGE_BYTES_MAX;
use crate::limits::CLUSTER_REQUEST_MS;
use crate::limits::SHIP_EVERY_MS;
use crate::log::LogReader;
use crate::log::Progress;
use crate::record::Epoch;
use crate::record::lines::Lines;
use crate::store::records::RecordStore;
use hyper::Method;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How shipping is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShipStatus {
    /// The store has everything up to this sequence number.
    pub acknowledged: u64,
    /// What is wrong and what to do; empty if nothing.
    pub trouble: String,
}

/// Where records come from: the log's reader, or a stand-in of a test. Calls may block.
pub trait Source: Send + 'static {
    /// The next records in sequence; empty if there is nothing new.
    fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Arc<Lines>, String>;
    /// Goes to the first record after `seq`.
    fn resume_after(&mut self, seq: u64) -> Result<(), String>;
    /// Moves the cursor, durably.
    fn acknowledge(&mut self, seq: u64) -> Result<(), String>;
    /// How far the log is; changes whenever more may be read.
    fn progress(&self) -> watch::Receiver<Progress>;
}

impl Source for LogReader {
    fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> Result<Arc<Lines>, String> {
        LogReader::next_batch(self, records_max, bytes_max).map_err(|e| e.to_string())
    }
    fn resume_after(&mut self, seq: u64) -> Result<(), String> {
        LogReader::resume_after(self, seq).map_err(|e| e.to_string())
    }
    fn acknowledge(&mut self, seq: u64) -> Result<(), String> {
        LogReader::acknowledge(self, seq).map_err(|e| e.to_string())
    }
    fn progress(&self) -> watch::Receiver<Progress> {
        LogReader::progress(self)
    }
}

/// Where records go.
pub trait Sink: Send {
    /// (Re)establishes contact; answers the highest sequence number that is stored.
    fn resume(&mut self) -> impl Future<Output = Result<u64, Trouble>> + Send;
    /// Whether the contact that [`Sink::resume`] made has been replaced since.
    fn is_stale(&self) -> bool {
        false
    }
    /// Stores a batch durably; answers the highest sequence number that is stored. `written` is how far the log is.
    fn store(&mut self, batch: Arc<Lines>, written: u64) -> impl Future<Output = Result<u64, Trouble>> + Send;
}

/// Ships until the future is dropped. Whatever fails is tried again, with growing waits, from where the store says it is.
pub async fn ship<S: Source, K: Sink>(source: S, mut sink: K, status: watch::Sender<ShipStatus>) {
    let progress = source.progress();
    let mut shipping = Shipping { source: Arc::new(Mutex::new(source)), progress, status };
    let mut backoff = Backoff::default();
    loop {
        let Err(trouble) = shipping.one_contact(&mut sink, &mut backoff).await;
        let words = format!("shipping records: {trouble}");
        let new = shipping.status.send_if_modified(|status| {
            let new = status.trouble != words;
            status.trouble.clone_from(&words);
            new
        });
        if new {
            tracing::warn!(event = "shipping-trouble", "{words}");
        }
        tokio::time::sleep(backoff.failed()).await;
    }
}

struct Shipping<S> {
    source: Arc<Mutex<S>>,
    progress: watch::Receiver<Progress>,
    status: watch::Sender<ShipStatus>,
}

impl<S: Source> Shipping<S> {
    async fn one_contact<K: Sink>(
        &mut self,
        sink: &mut K,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, Trouble> {
        let stored = sink.resume().await?;
        self.with_source(move |source| source.resume_after(stored)).await?;
        self.acknowledge(stored).await?;
        let mut batch = self.read().await?;
        loop {
            if batch.is_empty() {
                self.wait_for_more().await;
                // A master that was restored from a backup may lack what it had: it is asked even if nothing is new.
                if sink.is_stale() {
                    return Err(Trouble::NoSession);
                }
                batch = self.read().await?;
                continue;
            }
            let (began, busy) = (Mono::now(), batch.len() >= BATCH_RECORDS_MAX / 4);
            let last = batch.last();
            let written = self.progress.borrow().written;
            // With a backlog the next batch is read while this one travels. Without one, reading waits a moment, so that
            // a trickle of records makes a few batches a second and not one for each.
            let stored = if busy {
                let (stored, next) = tokio::join!(sink.store(batch, written), self.read());
                batch = next?;
                stored?
            } else {
                sink.store(std::mem::take(&mut batch), written).await?
            };
            if stored < last {
                return Err(Trouble::Answer(format!("the store has only up to {stored} after a batch up to {last}")));
            }
            backoff.worked();
            self.acknowledge(stored).await?;
            if !busy {
                let took = Duration::from_micros(Mono::now().micros_since(began));
                tokio::time::sleep(Duration::from_millis(SHIP_EVERY_MS).saturating_sub(took)).await;
                batch = self.read().await?;
            }
        }
    }

    async fn read(&self) -> Result<Arc<Lines>, Trouble> {
        self.with_source(|source| source.next_batch(BATCH_RECORDS_MAX, BATCH_LINE_BYTES_MAX)).await
    }

    async fn acknowledge(&self, stored: u64) -> Result<(), Trouble> {
        self.with_source(move |source| source.acknowledge(stored)).await?;
        self.status.send_modify(|status| *status = ShipStatus { acknowledged: stored, trouble: String::new() });
        Ok(())
    }

    /// Wakes when the log has more, and now and then in any case: a lost wake-up must not hold records back.
    async fn wait_for_more(&mut self) {
        let deadline = Duration::from_millis(5 * SHIP_EVERY_MS);
        if let Ok(Err(_closed)) = tokio::time::timeout(deadline, self.progress.changed()).await {
            tokio::time::sleep(deadline).await;
        }
    }

    async fn with_source<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Trouble> {
        let source = self.source.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&mut source.lock().unwrap_or_else(PoisonError::into_inner)).map_err(Trouble::Answer)
        });
        done.await.map_err(|e| Trouble::Answer(format!("reading the log: {e}")))?
    }
}

/// The master over the network, under the session that the sidecar holds.
pub struct RemoteSink {
    master: MasterAddress,
    epoch: Epoch,
    session: watch::Receiver<Option<String>>,
    open: Option<(Connection, String)>,
    packer: Option<Packer>,
}

impl RemoteSink {
    /// For records of `epoch`, under the sessions seen in `session`.
    pub fn new(master: MasterAddress, epoch: Epoch, session: watch::Receiver<Option<String>>) -> Self {
        RemoteSink { master, epoch, session, open: None, packer: None }
    }

    async fn connect(&mut self) -> Result<u64, Trouble> {
        // Without a session there is nothing to try: the sidecar has the trouble and its words.
        let session = match self.session.wait_for(Option::is_some).await {
            Ok(session) => session.clone().unwrap_or_default(),
            Err(_) => return Err(Trouble::Unreachable("this node is stopping".to_string())),
        };
        let mut connection = Connection::open(&self.master).await?;
        let fields = [(protocol::SESSION_FIELD, session.clone())];
        let deadline = Duration::from_millis(CLUSTER_REQUEST_MS);
        let path = protocol::RECORDS_PATH;
        let answer =
            connection.ask(Method::GET, path, &fields, Vec::new(), CLUSTER_MESSAGE_BYTES_MAX, deadline).await?;
        let stored: Stored = checked(answer)?;
        self.open = Some((connection, session));
        Ok(stored.seq)
    }

    async fn send(&mut self, batch: Arc<Lines>, written: u64) -> Result<u64, Trouble> {
        let Some((mut connection, session)) = self.open.take() else {
            return Err(Trouble::Unreachable("the connection to the master is gone".to_string()));
        };
        let (node, epoch) = (self.master.identity.node().to_string(), self.epoch);
        let packer = self.packer.take();
        let packed = tokio::task::spawn_blocking(move || {
            let mut packer = packer.map_or_else(Packer::new, Ok).map_err(|e| e.to_string())?;
            let packed = packer.pack(&node, epoch, &batch).map_err(|e| e.to_string())?;
            Ok::<_, String>((packer, packed))
        });
        let packed = packed.await.map_err(|e| Trouble::Answer(e.to_string()))?;
        let (packer, packed) = packed.map_err(|e| Trouble::Answer(format!("packing a batch of records: {e}")))?;
        self.packer = Some(packer);
        let fields = [(protocol::SESSION_FIELD, session.clone()), (protocol::WRITTEN_FIELD, written.to_string())];
        let deadline = Duration::from_millis(CLUSTER_BATCH_MS);
        let path = protocol::RECORDS_PATH;
        let answer = connection.ask(Method::POST, path, &fields, packed, CLUSTER_MESSAGE_BYTES_MAX, deadline).await?;
        let stored: Stored = checked(answer)?;
        self.open = Some((connection, session));
        Ok(stored.seq)
    }
}

impl Sink for RemoteSink {
    async fn resume(&mut self) -> Result<u64, Trouble> {
        self.open = None;
        self.connect().await
    }

    fn is_stale(&self) -> bool {
        let ours = self.open.as_ref().map(|(_, session)| session);
        self.session.borrow().as_ref() != ours
    }

    /// After any failure the connection is gone: its next user resumes.
    async fn store(&mut self, batch: Arc<Lines>, written: u64) -> Result<u64, Trouble> {
        self.send(batch, written).await
    }
}

/// The store in the same process: a master's or a stand-alone node's own records.
pub struct LocalSink {
    /// NODE_NAME.
    pub node: String,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The store.
    pub records: Arc<dyn RecordStore>,
}

impl Sink for LocalSink {
    async fn resume(&mut self) -> Result<u64, Trouble> {
        let (records, node, epoch) = (self.records.clone(), self.node.clone(), self.epoch);
        blocking(move || records.highest(&node, epoch)).await
    }

    async fn store(&mut self, batch: Arc<Lines>, _written: u64) -> Result<u64, Trouble> {
        let (records, node, epoch) = (self.records.clone(), self.node.clone(), self.epoch);
        blocking(move || {
            let batch = batch.records().map_err(|e| e.to_string())?;
            records.ingest(&node, epoch, &batch).map_err(|e| e.to_string())
        })
        .await
    }
}

async fn blocking<E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<u64, E> + Send + 'static,
) -> Result<u64, Trouble> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| Trouble::Answer(e.to_string()))?;
    done.map_err(|e| Trouble::Answer(e.to_string()))
}
