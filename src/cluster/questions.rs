//! What a slave asks its master about policy: older versions, and how they would have decided. The cluster carries question and answer
//! as bytes, within bounds; what they mean is the business of the nodes' desks. And how it tells its master of its tasks.

use crate::cluster::client::Answer;
use crate::cluster::client::Connection;
use crate::cluster::client::MasterAddress;
use crate::cluster::client::Trouble;
use crate::cluster::protocol;
use crate::cluster::protocol::TaskReport;
use crate::cluster::sidecar::accepted;
use crate::limits::CLUSTER_MESSAGE_BYTES_MAX;
use crate::limits::CLUSTER_REQUEST_MS;
use crate::limits::POLICY_ANSWER_BYTES_MAX;
use crate::limits::POLICY_ANSWER_MS;
use crate::limits::TASK_OUTPUT_MS;
use hyper::Method;
use hyper::StatusCode;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Answers the question of the node with this name. The error is words for its administrator.
pub type AnswerQuestion =
    Arc<dyn Fn(String, Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> + Send + Sync>;

/// A slave's way to ask.
#[derive(Clone)]
pub struct AskMaster {
    /// Where the master is.
    pub master: MasterAddress,
    /// The session that the sidecar has.
    pub session: watch::Receiver<Option<String>>,
}

impl AskMaster {
    /// Asks a question about policy.
    pub async fn ask(&self, question: Vec<u8>) -> Result<Vec<u8>, String> {
        self.post(protocol::POLICY_PATH, question, POLICY_ANSWER_BYTES_MAX, POLICY_ANSWER_MS).await
    }

    /// Says how this node stands with a task, with the `output` that the report names; done when the master has both on disk.
    pub async fn report_task(&self, report: &TaskReport, output: &[u8]) -> Result<(), NotTold> {
        let mut message = protocol::encode(report);
        let mut within_ms = CLUSTER_REQUEST_MS;
        if report.output.is_some() {
            message.push(b'\n');
            message.extend_from_slice(output);
            within_ms = TASK_OUTPUT_MS;
        }
        let mut line = self.open().await.map_err(NotTold::Away)?;
        let answer = line.post(protocol::TASK_PATH, message, CLUSTER_MESSAGE_BYTES_MAX, within_ms).await;
        let status = answer.as_ref().ok().map(|answer| answer.status);
        match (status, answer.and_then(accepted)) {
            (_, Ok(_)) => Ok(()),
            (_, Err(trouble @ (Trouble::NoSession | Trouble::Refused(_)))) => Err(NotTold::Away(self.words(trouble))),
            (Some(StatusCode::BAD_REQUEST), Err(trouble)) => Err(NotTold::Refused(self.words(trouble))),
            (_, Err(trouble)) => Err(NotTold::Failed(self.words(trouble))),
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>, bytes_max: usize, within_ms: u64) -> Result<Vec<u8>, String> {
        let answer = self.open().await?.post(path, body, bytes_max, within_ms).await;
        answer.and_then(accepted).map(|answer| answer.body.to_vec()).map_err(|trouble| self.words(trouble))
    }

    /// A connection of its own: the sidecar's holds a poll.
    async fn open(&self) -> Result<Line, String> {
        let session = self.session.borrow().clone();
        let session = session.ok_or_else(|| {
            format!(
                "the master {} cannot be asked now: this node has no session with it (tidegate status says why)",
                self.master.address
            )
        })?;
        let connection = Connection::open(&self.master).await.map_err(|trouble| self.words(trouble))?;
        Ok(Line { connection, session })
    }

    fn words(&self, trouble: Trouble) -> String {
        format!("asking the master {}: {trouble}", self.master.address)
    }
}

/// A connection with the session that it speaks for.
struct Line {
    connection: Connection,
    session: String,
}

impl Line {
    async fn post(&mut self, path: &str, body: Vec<u8>, bytes_max: usize, within_ms: u64) -> Result<Answer, Trouble> {
        let fields = [(protocol::SESSION_FIELD, self.session.clone())];
        let deadline = Duration::from_millis(within_ms);
        self.connection.ask(Method::POST, path, &fields, body, bytes_max, deadline).await
    }
}

/// Why the master does not have a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTold {
    /// It could not be asked; a report was not sent.
    Away(String),
    /// It broke on its way, or the master could not keep it: another try may do.
    Failed(String),
    /// The master does not take this, however often it comes.
    Refused(String),
}

/// The largest question: no documents are in it.
pub const QUESTION_BYTES_MAX: usize = CLUSTER_MESSAGE_BYTES_MAX;
