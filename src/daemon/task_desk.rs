//! Tasks at the master: who is meant, may there be more, and what is told of results.

use super::audit::Audit;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::admin::TaskAction;
use crate::cluster::master::MasterService;
use crate::cluster::tasks::NewTask;
use crate::cluster::tasks::Order;
use crate::cluster::tasks::Task;
use crate::cluster::tasks::Tasks;
use crate::cluster::tasks::TellResult;
use crate::cluster::tasks::is_task_id;
use crate::limits::TASK_BY_BYTES_MAX;
use crate::limits::TASK_LIFE_S;
use crate::limits::TASK_LIFE_S_MAX;
use crate::limits::TASK_LIFE_S_MIN;
use crate::limits::TASK_ON_BYTES_MAX;
use crate::limits::TASKS_LOOK_MS;
use crate::limits::TASKS_OPEN_MAX;
use crate::settings::is_label;
use crate::store::DatabaseError;
use std::sync::Arc;
use std::time::Duration;

/// The master's tasks as administrators ask for them.
pub struct TaskDesk {
    tasks: Arc<Tasks>,
    master: Arc<MasterService>,
}

impl TaskDesk {
    /// Slaves get their orders from `tasks` from now on.
    pub fn new(master: Arc<MasterService>, tasks: Arc<Tasks>) -> Self {
        master.hand_out(tasks.clone());
        TaskDesk { tasks, master }
    }

    /// Does what `by` asks.
    pub async fn perform(&self, by: &str, action: &TaskAction) -> Result<Outcome, Refused> {
        let tasks = self.tasks.clone();
        match action.clone() {
            TaskAction::Order { order, on, life_s } => self.order(by, order, &on, life_s).await,
            TaskAction::List { before: Some(before), .. } if !is_task_id(&before) => Err(Refused::invalid(format!(
                "{before:?} is no task: its id, or its number alone, stands in `tidegate task list`"
            ))),
            TaskAction::List { limit, before } => {
                let (tasks, more) = blocking(move || tasks.list(limit as usize, before.as_deref())).await?;
                Ok(Outcome::Tasks { tasks, more })
            }
            TaskAction::Show { id } => found(&id.clone(), blocking(move || tasks.show(&id)).await?),
            TaskAction::Output { id, node } => {
                let (meant, of) = (id.clone(), node.clone());
                let output = blocking(move || tasks.output(&meant, &of)).await?;
                let missing = || {
                    Refused::new(RefusedKind::NotFound, format!("nothing is kept that {node} brought of the task {id}"))
                };
                let output = output.ok_or_else(missing)?;
                let content = data_encoding::BASE64.encode(&output.content);
                Ok(Outcome::TaskOutput { file_name: output.name, content })
            }
            TaskAction::Cancel { id } => {
                let (meant, by) = (id.clone(), fitting(by));
                let task = blocking(move || tasks.cancel(&meant, &by)).await?;
                match task.as_ref().is_some_and(|task| task.cancelled_us == 0) {
                    true => Err(Refused::new(
                        RefusedKind::Conflict,
                        format!("the task {id} has ended: see `tidegate task show {id}`"),
                    )),
                    false => found(&id, task),
                }
            }
        }
    }

    /// Queues an order for the slaves that `on` names.
    pub async fn order(&self, by: &str, order: Order, on: &str, life_s: Option<u64>) -> Result<Outcome, Refused> {
        let life_s = life_s.unwrap_or(TASK_LIFE_S);
        if !(TASK_LIFE_S_MIN..=TASK_LIFE_S_MAX).contains(&life_s) {
            return Err(Refused::invalid(format!(
                "a task cannot wait for {life_s} s: from {TASK_LIFE_S_MIN} s to {} days",
                TASK_LIFE_S_MAX / 86_400
            )));
        }
        if on.len() > TASK_ON_BYTES_MAX || on.chars().any(char::is_control) {
            return Err(Refused::invalid("the list of nodes is too long or is no text"));
        }
        let (master, tasks, chosen) = (self.master.clone(), self.tasks.clone(), on.trim().to_string());
        let (by, on) = (fitting(by), chosen.clone());
        let task = tokio::task::spawn_blocking(move || {
            let members = master.member_names().map_err(failed)?;
            let nodes = choose(&chosen, &members, |label| tasks.labelled(label)).map_err(Refused::invalid)?;
            let task = tasks.order(&NewTask { order, by, on, nodes, life_s }).map_err(failed)?;
            task.ok_or_else(|| {
                Refused::new(
                    RefusedKind::Conflict,
                    format!(
                        "{TASKS_OPEN_MAX} tasks are open already: wait for them, or cancel some (`tidegate task list`)"
                    ),
                )
            })
        });
        let task = task.await.map_err(|error| Refused::failed(format!("ordering a task: {error}")))??;
        Ok(Outcome::Task(Box::new(task)))
    }
}

/// Ends what has waited for too long, for as long as the master lives.
pub async fn look_after(tasks: Arc<Tasks>) {
    let mut told = String::new();
    loop {
        let looking = tasks.clone();
        let looked = tokio::task::spawn_blocking(move || looking.look_after()).await;
        let trouble = match looked {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => error.0,
            Err(error) => error.to_string(),
        };
        if !trouble.is_empty() && trouble != told {
            tracing::error!(event = "store-trouble", "ending tasks that expired: {trouble}");
        }
        told = trouble;
        tokio::time::sleep(Duration::from_millis(TASKS_LOOK_MS)).await;
    }
}

/// Every result goes into config.log.
pub fn tell(audit: Audit) -> TellResult {
    Box::new(move |node, task| {
        let standing = task.nodes.iter().find(|one| one.node.eq_ignore_ascii_case(node));
        if let Some(one) = standing {
            let words = if one.words.is_empty() { String::new() } else { format!(": {}", one.words) };
            audit.event(
                "task",
                &format!("{} {} on {}", task.id, task.order, one.node),
                &format!("{}{words}", one.progress),
            );
        }
    })
}

/// The nodes that are meant, or what is wrong with what was said.
fn choose(on: &str, members: &[String], labelled: impl Fn(&str) -> Vec<String>) -> Result<Vec<String>, String> {
    if members.is_empty() {
        return Err("this cluster has no slave yet: one belongs to it from its first contact on".to_string());
    }
    if on.eq_ignore_ascii_case("all") {
        return Ok(members.to_vec());
    }
    if let Some(label) = on.strip_prefix("label:") {
        if !is_label(label) {
            return Err(format!("`{label}` is no label (see NODE_LABELS in startup.ini)"));
        }
        let labelled = labelled(label);
        let nodes: Vec<_> =
            members.iter().filter(|name| labelled.contains(&name.to_ascii_lowercase())).cloned().collect();
        return match nodes.is_empty() {
            true => Err(format!("no slave has the label {label}: set NODE_LABELS in a slave's startup.ini")),
            false => Ok(nodes),
        };
    }
    let mut nodes = Vec::new();
    for name in on.split(',').map(str::trim) {
        match members.iter().find(|member| member.eq_ignore_ascii_case(name)) {
            Some(member) if nodes.contains(member) => {}
            Some(member) => nodes.push(member.clone()),
            None if name.is_empty() => {
                return Err("say on which nodes: all, names separated by commas, or label:X".to_string());
            }
            None => {
                return Err(format!(
                    "no slave of this cluster is called {name}: `tidegate nodes` lists those that were heard of"
                ));
            }
        }
    }
    Ok(nodes)
}

fn found(id: &str, task: Option<Task>) -> Result<Outcome, Refused> {
    let missing = || {
        Refused::new(
            RefusedKind::NotFound,
            format!("there is no task {id}: `tidegate task list` shows those that are kept"),
        )
    };
    task.map(|task| Outcome::Task(Box::new(task))).ok_or_else(missing)
}

async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(ask).await {
        Ok(answer) => answer.map_err(failed),
        Err(error) => Err(Refused::failed(format!("asking for tasks: {error}"))),
    }
}

fn failed(error: DatabaseError) -> Refused {
    Refused::failed(error.0)
}

/// Who orders, made to fit what is handed to slaves.
fn fitting(by: &str) -> String {
    let mut text: String = by.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=text.len().min(TASK_BY_BYTES_MAX)).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_chosen_by_name_by_label_or_all_and_a_mistake_is_named() {
        let members = ["s1".to_string(), "S2".to_string()];
        let labelled =
            |label: &str| if label == "edge" { vec!["s2".to_string(), "gone".to_string()] } else { Vec::new() };
        let chosen = |on: &str| choose(on, &members, labelled);
        assert_eq!(chosen("all").unwrap(), members);
        assert_eq!(chosen("s2, S1,s2").unwrap(), ["S2", "s1"]);
        assert_eq!(chosen("label:edge").unwrap(), ["S2"], "who left the cluster is not meant");
        for (on, words) in [
            ("", "say on which nodes"),
            ("s1,", "say on which nodes"),
            ("s3", "no slave of this cluster is called s3"),
            ("label:core", "no slave has the label core"),
            ("label:", "is no label"),
        ] {
            let said = chosen(on).unwrap_err();
            assert!(said.contains(words), "{on}: {said}");
        }
        assert!(choose("all", &[], labelled).unwrap_err().contains("no slave yet"));
    }

    #[test]
    fn who_orders_is_cut_between_characters() {
        assert_eq!(fitting("ann\n@x"), "ann @x");
        assert!(fitting(&"é".repeat(TASK_BY_BYTES_MAX)).len() <= TASK_BY_BYTES_MAX);
    }
}
