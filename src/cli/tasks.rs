//! `tidegate task`: orders to slaves through their master, and how they stand.

use crate::admin::Action;
use crate::admin::Order;
use crate::admin::Outcome;
use crate::admin::Task;
use crate::admin::TaskAction;
use crate::admin::TaskNode;
use crate::admin::TaskProgress;
use crate::base::words::bytes;
use crate::cli::args;
use crate::cli::args::Ask;
use crate::cli::args::FlushOf;
use crate::cli::args::On;
use crate::cli::asking;
use crate::cli::asking::Answered;
use crate::cli::control;
use crate::cli::fail;
use crate::cli::local;
use crate::cli::paper::Cell;
use crate::cli::paper::Ink;
use crate::cli::paper::Paper;
use crate::cli::paper::cell;
use crate::cli::paper::tame;
use crate::cli::put;
use crate::cli::times;
use crate::limits::TASK_FOLLOW_MS;
use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Runs a command about tasks.
pub fn run(ask: &Ask, socket: &Path, task: args::Task) -> ExitCode {
    if let args::Task::Output { id, node, output } = task {
        return keep_output(ask, socket, id, node, output);
    }
    let (asked, follows) = match asked(task) {
        Ok(asked) => asked,
        Err(words) => return fail(&words),
    };
    let answer = control::ask(socket, &Action::Task(asked));
    if follows { finish_followed(ask, socket, answer) } else { asking::finish(ask, answer) }
}

fn asked(task: args::Task) -> Result<(TaskAction, bool), String> {
    let order = |order: Order, on: On| {
        let life_s = on.expires.map(|span| times::span(&span)).transpose()?.map(|us| us.unsigned_abs() / 1_000_000);
        Ok((TaskAction::Order { order, on: on.on, life_s }, on.follow))
    };
    match task {
        args::Task::Restart(on) => order(Order::Restart, on),
        args::Task::Reload(on) => order(Order::Reload, on),
        args::Task::Drain(on) => order(Order::Drain, on),
        args::Task::Undrain(on) => order(Order::Undrain, on),
        args::Task::Flush { memory: FlushOf::Dns, on } => order(Order::FlushDns, on),
        args::Task::Flush { memory: FlushOf::Pools, on } => order(Order::FlushPools, on),
        args::Task::RotateLogs(on) => order(Order::RotateLogs, on),
        args::Task::Verify(on) => order(Order::Verify, on),
        args::Task::Diagnostics(on) => order(Order::Diagnostics, on),
        args::Task::Backup(on) => order(Order::Backup, on),
        args::Task::Output { id, node, .. } => Ok((TaskAction::Output { id, node }, false)),
        args::Task::List { limit, before } => Ok((TaskAction::List { limit, before }, false)),
        args::Task::Show { id, follow } => Ok((TaskAction::Show { id }, follow)),
        args::Task::Cancel { id } => Ok((TaskAction::Cancel { id }, false)),
    }
}

fn keep_output(ask: &Ask, socket: &Path, id: String, node: String, output: Option<PathBuf>) -> ExitCode {
    let answer = control::ask(socket, &Action::Task(TaskAction::Output { id, node }));
    let Ok(Ok(Outcome::TaskOutput { file_name, content })) = &answer else { return asking::finish(ask, answer) };
    if ask.json {
        return asking::finish(ask, answer);
    }
    match local::keep_archive(file_name, content, output) {
        Ok(path) => put(format!("Wrote {}.\n", path.display()).as_bytes()),
        Err(words) => fail(&words),
    }
}

/// The same, and its end as an exit code.
pub fn finish_followed(ask: &Ask, socket: &Path, answer: Answered) -> ExitCode {
    let followed = follow(ask, socket, answer);
    match &followed {
        Ok(Ok(Outcome::Task(task))) => {
            let done = task.is_done();
            // What happened was told line by line.
            let printed = if ask.json { asking::finish(ask, followed) } else { ExitCode::SUCCESS };
            if done { printed } else { ExitCode::FAILURE }
        }
        _ => asking::finish(ask, followed),
    }
}

/// Prints each change once, until the task has ended on every slave.
pub fn follow(ask: &Ask, socket: &Path, mut answer: Answered) -> Answered {
    let mut told = BTreeMap::new();
    loop {
        let Ok(Ok(Outcome::Task(task))) = &answer else { return answer };
        for node in task.nodes.iter().filter(|_| !ask.json) {
            let line = line(task, node);
            if told.get(&node.node) != Some(&line) {
                let _ = put(format!("{}\n", tame(&line)).as_bytes());
                told.insert(node.node.clone(), line);
            }
        }
        if !task.is_open() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(TASK_FOLLOW_MS));
        answer = control::ask(socket, &Action::Task(TaskAction::Show { id: task.id.clone() }));
    }
}

fn line(task: &Task, node: &TaskNode) -> String {
    let words = if node.words.is_empty() { String::new() } else { format!(": {}", node.words) };
    format!("{} {} on {}: {}{words}", task.id, task.order, node.node, node.progress)
}

/// A page of tasks, a line each.
pub fn list(paper: &mut Paper, tasks: &[Task], more: bool) {
    let Some(last) = tasks.last() else {
        return paper.line("No task was ordered yet (tidegate task --help).");
    };
    let head = ["task", "order", "on", "ordered", "by", "stands"];
    let mut rows: Vec<Vec<Cell>> = vec![head.into_iter().map(|text| cell(text).ink(Ink::Dim)).collect()];
    rows.extend(tasks.iter().map(|task| {
        vec![
            cell(&task.id),
            cell(task.order.name()),
            cell(&task.on),
            cell(times::local(task.created_us)),
            cell(&task.by),
            cell(counts(task)).ink(ink_of(task)),
        ]
    }));
    paper.table(&rows);
    if more {
        paper.line(&format!("Older ones: tidegate task list --before {}", last.id));
    }
}

/// One task with each slave.
pub fn show(paper: &mut Paper, task: &Task) {
    paper.line(&format!(
        "Task {}: {} on {}, ordered {} by {}",
        task.id,
        task.order,
        task.on,
        times::local(task.created_us),
        task.by
    ));
    if task.cancelled_us != 0 {
        paper.line(&format!("Cancelled {} by {}", times::local(task.cancelled_us), task.cancelled_by));
    } else if task.is_open() {
        paper.line(&format!("Expires {}", times::local(task.expires_us)));
    }
    let rows: Vec<Vec<Cell>> = task
        .nodes
        .iter()
        .map(|node| {
            let ink = ink_of_progress(node.progress);
            let output = if node.output.is_empty() { String::new() } else { bytes(node.output_bytes) };
            let (progress, since) = (cell(node.progress.name()).ink(ink), cell(times::local(node.at_us)));
            vec![cell(&node.node), progress, since, cell(output), cell(&node.words)]
        })
        .collect();
    paper.table(&rows);
    if task.nodes.iter().any(|node| !node.output.is_empty()) {
        paper.line(&format!("What a slave brought: tidegate task output {} NAME", task.id));
    }
}

/// `1 queued, 3 done`.
fn counts(task: &Task) -> String {
    task.counts().iter().map(|(progress, count)| format!("{count} {progress}")).collect::<Vec<_>>().join(", ")
}

fn ink_of(task: &Task) -> Ink {
    match (task.is_open(), task.is_done()) {
        (true, _) => Ink::Plain,
        (false, true) => Ink::Green,
        (false, false) => Ink::Red,
    }
}

fn ink_of_progress(progress: TaskProgress) -> Ink {
    match progress {
        TaskProgress::Done => Ink::Green,
        TaskProgress::Queued | TaskProgress::Sent | TaskProgress::Started => Ink::Plain,
        TaskProgress::Cancelled => Ink::Dim,
        TaskProgress::Failed | TaskProgress::Unknown | TaskProgress::Expired => Ink::Red,
    }
}
