//! The master's cluster service, as far as tasks go: lists with the polls, and what slaves say of them.

use crate::base::clock::Mono;
use crate::cluster::master::Fault;
use crate::cluster::master::MasterService;
use crate::cluster::master::Service;
use crate::cluster::master::Who;
use crate::cluster::master::read_body;
use crate::cluster::protocol;
use crate::cluster::protocol::Poll;
use crate::cluster::protocol::TaskList;
use crate::cluster::protocol::TaskReport;
use crate::cluster::tasks::Tasks;
use crate::limits::CLUSTER_MESSAGE_BYTES_MAX;
use crate::limits::TASK_OUTPUT_BYTES_MAX;
use crate::limits::TASK_OUTPUT_MS;
use crate::limits::TASK_RETRY_MS;
use axum::body::Body;
use axum::extract::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::IntoResponse;
use axum::response::Response;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

impl MasterService {
    /// From now on slaves get their orders from these.
    pub fn hand_out(&self, tasks: Arc<Tasks>) {
        // Set once, when the node starts.
        let _ = self.tasks.set(tasks);
    }

    pub(super) fn tasks(&self) -> Option<Arc<Tasks>> {
        self.tasks.get().cloned()
    }

    /// What a slave is to do, if that is not the list it has.
    pub(super) async fn list_for(&self, node: &str, poll: &Poll) -> Option<TaskList> {
        let tasks = self.tasks()?;
        let revision = *tasks.revision(node).borrow();
        if revision == poll.tasks_revision {
            return None;
        }
        let name = node.to_string();
        let looked = tokio::task::spawn_blocking(move || tasks.hand_out(&name, revision)).await;
        match looked.map_err(|error| error.to_string()).and_then(|list| list.map_err(|error| error.to_string())) {
            Ok(list) => Some(list),
            Err(words) => {
                tracing::error!(event = "store-trouble", slave = %node, "handing out tasks to {node}: {words}");
                // It asks again at once.
                tokio::time::sleep(Duration::from_millis(TASK_RETRY_MS)).await;
                None
            }
        }
    }

    /// What a slave says of its labels is kept, for when it is away. If that fails the next poll brings it again.
    pub(super) async fn keep_labels(&self, node: &str, labels: &[String]) {
        let Some(tasks) = self.tasks().filter(|tasks| tasks.are_new_labels(node, labels)) else { return };
        let (name, labels) = (node.to_string(), labels.to_vec());
        let kept = tokio::task::spawn_blocking(move || tasks.note_labels(&name, &labels)).await;
        let trouble = kept.map_or_else(|error| Some(error.to_string()), |kept| kept.err().map(|error| error.0));
        if let Some((words, untold)) = trouble.and_then(|words| Some((words, self.lines.ask(Mono::now())?))) {
            tracing::error!(event = "store-trouble", slave = %node, "keeping the labels of {node}: {words}{untold}");
        }
    }
}

/// Until there is another list. A master that hands out nothing has nothing that changes.
pub(super) async fn changed(revision: &mut Option<watch::Receiver<u64>>) -> Result<(), watch::error::RecvError> {
    match revision {
        Some(revision) => revision.changed().await,
        None => std::future::pending().await,
    }
}

/// A slave's word on a task.
pub(super) async fn report(
    State(master): Service,
    Extension(visitor): Who,
    fields: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let (caller, _) = master.admit(&fields, &visitor)?;
    // Without a length it may be as long as any.
    let length = fields.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(usize::MAX);
    let _place = match length {
        0..=CLUSTER_MESSAGE_BYTES_MAX => None,
        // Each is in memory, whole.
        _ => Some(master.outputs.acquire().await.map_err(Fault::failed)?),
    };
    let bytes = read_body(body, CLUSTER_MESSAGE_BYTES_MAX + TASK_OUTPUT_BYTES_MAX, TASK_OUTPUT_MS).await?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let report: TaskReport = protocol::decode(line).map_err(|e| Fault::Bad(e.to_string()))?;
    let content = bytes.get(line.len() + 1..).unwrap_or_default().to_vec();
    if report.output.is_none() && !content.is_empty() {
        return Err(Fault::Bad("something follows a report that names no output".to_string()));
    }
    if content.len() > TASK_OUTPUT_BYTES_MAX {
        return Err(Fault::Bad(format!("an output of {} bytes, {TASK_OUTPUT_BYTES_MAX} may be sent", content.len())));
    }
    let tasks = master.tasks().ok_or_else(|| Fault::failed("the master is starting: say it again"))?;
    let kept = tokio::task::spawn_blocking(move || tasks.report(&caller.node, &report, content));
    kept.await.map_err(Fault::failed)?.map_err(Fault::failed)?;
    Ok(StatusCode::OK.into_response())
}
