//! `tidegate verify --cluster`, on a master: its own checklist, that of every slave (as a task), and a request through each slave that
//! must come out in the master's records.

use crate::admin::Action;
use crate::admin::Check;
use crate::admin::Order;
use crate::admin::Outcome;
use crate::admin::Task;
use crate::admin::TaskAction;
use crate::admin::TaskNode;
use crate::cli::args::Ask;
use crate::cli::asking;
use crate::cli::control;
use crate::cli::fail;
use crate::cluster::NodeRow;
use crate::limits::PROBE_RECORDED_MS_MAX;
use crate::limits::PROBE_REQUEST_MS_MAX;
use crate::limits::TASK_FOLLOW_MS;
use crate::limits::VERIFY_CLUSTER_S;
use crate::report::Question;
use std::hash::BuildHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Walks the checklists of the whole cluster and asks through each slave.
pub fn cluster(ask: &Ask, socket: &Path) -> ExitCode {
    match control::ask(socket, &Action::Status) {
        Ok(Ok(Outcome::Status(status))) if status.role == "master" => {}
        Ok(Ok(Outcome::Status(status))) => {
            let master = status.master.map(|link| format!(", {}", link.address)).unwrap_or_default();
            return fail(&format!("verify --cluster is asked on the master{master}: this node is a {}", status.role));
        }
        other => return asking::finish(ask, other),
    }
    let (own, rows) = match (control::ask(socket, &Action::Verify), control::ask(socket, &Action::Nodes)) {
        (Ok(Ok(Outcome::Verify { checks })), Ok(Ok(Outcome::Nodes { nodes }))) => (checks, nodes),
        (Ok(Ok(Outcome::Verify { .. })), other) | (other, _) => return asking::finish(ask, other),
    };
    let name = rows.first().map(|row| row.name.clone()).unwrap_or_default();
    let mut checks: Vec<Check> = own.into_iter().map(|check| of_node(&name, check)).collect();
    let slaves: Vec<NodeRow> = rows.into_iter().skip(1).filter(|row| row.refusal.is_empty()).collect();
    match checklists(socket) {
        Ok(theirs) => checks.extend(theirs),
        Err(words) => checks.push(Check { name: "slaves".to_string(), passed: false, words }),
    }
    checks.extend(probes(socket, &slaves));
    asking::finish(ask, Ok(Ok(Outcome::Verify { checks })))
}

fn of_node(node: &str, check: Check) -> Check {
    Check { name: format!("{node}: {}", check.name), ..check }
}

/// What every slave says of itself; one that is away is a check that does not hold.
fn checklists(socket: &Path) -> Result<Vec<Check>, String> {
    let order = TaskAction::Order { order: Order::Verify, on: "all".to_string(), life_s: Some(VERIFY_CLUSTER_S) };
    let mut task = task(socket, order)?;
    while task.is_open() {
        std::thread::sleep(Duration::from_millis(TASK_FOLLOW_MS));
        task = self::task(socket, TaskAction::Show { id: task.id.clone() })?;
    }
    Ok(task.nodes.iter().flat_map(|node| checklist(socket, &task, node)).collect())
}

fn task(socket: &Path, action: TaskAction) -> Result<Task, String> {
    match control::ask(socket, &Action::Task(action)) {
        Ok(Ok(Outcome::Task(task))) => Ok(*task),
        Ok(Ok(_)) => Err("the node answered something else than a task; use the command of its version".to_string()),
        Ok(Err(refused)) => Err(refused.words),
        Err(error) => Err(error.to_string()),
    }
}

fn checklist(socket: &Path, task: &Task, node: &TaskNode) -> Vec<Check> {
    let output = TaskAction::Output { id: task.id.clone(), node: node.node.clone() };
    if !node.output.is_empty()
        && let Ok(Ok(Outcome::TaskOutput { content, .. })) = control::ask(socket, &Action::Task(output))
        && let Some(checks) = data_encoding::BASE64.decode(content.as_bytes()).ok()
        && let Ok(checks) = serde_json::from_slice::<Vec<Check>>(&checks)
    {
        return checks.into_iter().map(|check| of_node(&node.node, check)).collect();
    }
    let words = format!("{}: {}. See that it runs and reaches the master: tidegate nodes", node.progress, node.words);
    vec![Check { name: format!("{}: checklist", node.node), passed: false, words }]
}

/// A request that was sent through a slave.
struct Probe {
    node: String,
    /// Nobody else asks for it.
    host: String,
    outcome: Result<u16, String>,
}

/// Asks through every slave that is up, then looks for all of that in the report.
fn probes(socket: &Path, slaves: &[NodeRow]) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut sent = Vec::new();
    for row in slaves.iter().filter(|row| row.up) {
        match way_in(row) {
            Ok(address) => {
                let host = format!("probe-{:016x}.tidegate.invalid", RandomState::new().build_hasher().finish());
                sent.push(Probe { node: row.name.clone(), outcome: request(address, &host), host });
            }
            Err(words) => checks.push(Check { name: format!("{}: probe", row.name), passed: true, words }),
        }
    }
    checks.extend(sent.into_iter().map(|probe| {
        let (passed, words) = match recorded(socket, &probe) {
            Ok(words) => (true, words),
            Err(words) => (false, words),
        };
        Check { name: format!("{}: probe", probe.node), passed, words }
    }));
    checks
}

/// Where a slave takes clients, as seen from here; why it is not asked, if it is not.
fn way_in(row: &NodeRow) -> Result<SocketAddr, String> {
    if row.offer.proxy_protocol == "required" {
        return Err(
            "not asked: it takes clients from balancers alone (PROXY_PROTOCOL=required); ask through one".to_string()
        );
    }
    let seen = row.address.parse::<IpAddr>().or_else(|_| row.address.parse::<SocketAddr>().map(|at| at.ip()));
    let listen = row.offer.listen.first().and_then(|listen| listen.parse::<SocketAddr>().ok());
    match (listen, seen) {
        (Some(listen), _) if !listen.ip().is_unspecified() => Ok(listen),
        (Some(listen), Ok(seen)) => Ok(SocketAddr::new(seen, listen.port())),
        _ => Err("not asked: it has not said yet where it takes clients".to_string()),
    }
}

/// Asks for a name that resolves nowhere: whatever policy says of it, the node answers by itself and writes a record. Answers the status.
fn request(address: SocketAddr, host: &str) -> Result<u16, String> {
    let patience = Duration::from_millis(PROBE_REQUEST_MS_MAX);
    let asked = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        write!(
            stream,
            "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tidegate-verify\r\nConnection: close\r\n\r\n"
        )?;
        let mut head = vec![0; 12];
        stream.read_exact(&mut head)?;
        Ok(head)
    };
    let head = asked().map_err(|error| {
        format!("asking through {address}: {error}. See that it runs and that the firewall lets this host in")
    })?;
    let status = std::str::from_utf8(&head).ok().and_then(|head| head.strip_prefix("HTTP/1.1 ")?.parse().ok());
    status.ok_or_else(|| {
        format!("asking through {address}: what answered is no Tidegate. See which program has that port")
    })
}

/// Waits until the report has the probe.
fn recorded(socket: &Path, probe: &Probe) -> Result<String, String> {
    let status = probe.outcome.clone()?;
    let question = Question { host: Some(probe.host.clone()), newest: Some(1), top: Some(0), ..Question::default() };
    for looked_ms in (0..=PROBE_RECORDED_MS_MAX).step_by(TASK_FOLLOW_MS as usize) {
        match control::ask(socket, &Action::Report(question.clone())) {
            Ok(Ok(Outcome::Report(answer))) if answer.requests == 1 => {
                let by = answer.newest.first().map(|row| row.node.clone()).unwrap_or_default();
                if by != probe.node {
                    return Err(format!(
                        "answered with {status}, and recorded by {by}: something stands before the node"
                    ));
                }
                return Ok(format!("answered with {status}, and in the report after {looked_ms} ms"));
            }
            Ok(Ok(Outcome::Report(answer))) if answer.requests > 1 => {
                return Err(format!("answered with {status}, and {} times in the report", answer.requests));
            }
            Ok(Err(refused)) => return Err(refused.words),
            Err(error) => return Err(error.to_string()),
            Ok(Ok(_)) => std::thread::sleep(Duration::from_millis(TASK_FOLLOW_MS)),
        }
    }
    Err(format!(
        "answered with {status}, and not in the report after {} s. See the node's record lag: tidegate nodes",
        PROBE_RECORDED_MS_MAX / 1_000
    ))
}
