//! What tasks are made of: the order, how a slave stands with it, and what it brings.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// What a slave is ordered to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Restart the daemon.
    Restart,
    /// Read startup.ini again.
    Reload,
    /// Leave service without failing a request.
    Drain,
    /// Come back into service.
    Undrain,
    /// Ask the name servers anew.
    FlushDns,
    /// Close idle connections to origins and parents.
    FlushPools,
    /// Begin another file of extended.log.
    RotateLogs,
    /// Walk the checklist.
    Verify,
    /// Bring what a support desk asks for.
    Diagnostics,
    /// Keep a copy of startup params and policy, and bring it.
    Backup,
}

impl Order {
    /// All of them, in the order in which people are shown them.
    pub const ALL: [Order; 10] = [
        Order::Restart,
        Order::Reload,
        Order::Drain,
        Order::Undrain,
        Order::FlushDns,
        Order::FlushPools,
        Order::RotateLogs,
        Order::Verify,
        Order::Diagnostics,
        Order::Backup,
    ];

    /// Its name on the wire, on disk and for people.
    pub fn name(self) -> &'static str {
        match self {
            Order::Restart => "restart",
            Order::Reload => "reload",
            Order::Drain => "drain",
            Order::Undrain => "undrain",
            Order::FlushDns => "flush-dns",
            Order::FlushPools => "flush-pools",
            Order::RotateLogs => "rotate-logs",
            Order::Verify => "verify",
            Order::Diagnostics => "diagnostics",
            Order::Backup => "backup",
        }
    }

    /// The order of this name.
    pub fn named(name: &str) -> Option<Order> {
        Order::ALL.into_iter().find(|order| order.name() == name)
    }

    /// Whether doing it a second time does no more than doing it once: only then may a slave that died in the middle begin anew.
    pub fn may_be_redone(self) -> bool {
        match self {
            Order::Reload | Order::Drain | Order::Undrain => true,
            Order::FlushDns | Order::FlushPools | Order::Verify => true,
            Order::Restart | Order::RotateLogs | Order::Diagnostics | Order::Backup => false,
        }
    }

    /// For an order that is there to bring something: where an administrator gets it if it does not reach the master.
    pub fn output_instead(self) -> Option<&'static str> {
        match self {
            Order::Diagnostics => Some("tidegate diagnostics on the node"),
            Order::Backup => Some("the copy in STATE_DIR/backups on the node"),
            Order::Restart | Order::Reload | Order::Drain | Order::Undrain => None,
            Order::FlushDns | Order::FlushPools | Order::RotateLogs | Order::Verify => None,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a slave stands with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// It waits for the slave.
    Queued,
    /// It was handed to the slave, which has not said yet that it began.
    Sent,
    /// The slave has begun.
    Started,
    /// It was done.
    Done,
    /// It was not done; the words say why.
    Failed,
    /// The slave was interrupted: whether it was done is not known.
    Unknown,
    /// The task's time was over before the slave said how it ended.
    Expired,
    /// It was cancelled before the slave began.
    Cancelled,
}

impl Progress {
    const ALL: [Progress; 8] = [
        Progress::Queued,
        Progress::Sent,
        Progress::Started,
        Progress::Done,
        Progress::Failed,
        Progress::Unknown,
        Progress::Expired,
        Progress::Cancelled,
    ];

    /// Its name on the wire, on disk and for people.
    pub fn name(self) -> &'static str {
        match self {
            Progress::Queued => "queued",
            Progress::Sent => "sent",
            Progress::Started => "started",
            Progress::Done => "done",
            Progress::Failed => "failed",
            Progress::Unknown => "unknown",
            Progress::Expired => "expired",
            Progress::Cancelled => "cancelled",
        }
    }

    /// Whether something is still to come.
    pub fn is_open(self) -> bool {
        matches!(self, Progress::Queued | Progress::Sent | Progress::Started)
    }

    pub(super) fn named(name: &str) -> Option<Progress> {
        Progress::ALL.into_iter().find(|progress| progress.name() == name)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An order and how every slave it is for stands with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its number on this master, a dash, and eight hex digits that no other task of that number has.
    pub id: String,
    /// What is ordered.
    pub order: Order,
    /// Who ordered it.
    pub by: String,
    /// For which slaves, as it was said: `all`, names, or `label:X`.
    pub on: String,
    /// When, microseconds since the epoch.
    pub created_us: i64,
    /// After this no slave begins it.
    pub expires_us: i64,
    /// When it was cancelled; 0 if it was not.
    pub cancelled_us: i64,
    /// Who cancelled it; empty if nobody.
    pub cancelled_by: String,
    /// Each slave.
    pub nodes: Vec<TaskNode>,
}

impl Task {
    /// Whether something is still to come from any slave.
    pub fn is_open(&self) -> bool {
        self.nodes.iter().any(|node| node.progress.is_open())
    }

    /// How many slaves stand how with it.
    pub fn counts(&self) -> Vec<(Progress, usize)> {
        let count = |progress| self.nodes.iter().filter(|node| node.progress == progress).count();
        Progress::ALL.into_iter().map(|progress| (progress, count(progress))).filter(|(_, count)| *count > 0).collect()
    }

    /// Whether every slave has done it.
    pub fn is_done(&self) -> bool {
        self.nodes.iter().all(|node| node.progress == Progress::Done)
    }
}

/// How a slave stands with a task, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskNode {
    /// Its name.
    pub node: String,
    /// How.
    pub progress: Progress,
    /// Since when, by the master's clock, microseconds since the epoch.
    pub at_us: i64,
    /// What came of it; empty before the end.
    pub words: String,
    /// What it brought, by the name of its file; empty if nothing, or if it is not kept any more.
    #[serde(default)]
    pub output: String,
    /// How large that is.
    #[serde(default)]
    pub output_bytes: u64,
}

/// What a slave brings of a task, beside words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What to call it.
    pub name: String,
    /// The whole file.
    pub content: Vec<u8>,
}

/// A task on its way to a slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The task's id.
    pub id: String,
    /// What is ordered.
    pub order: Order,
    /// Who ordered it.
    pub by: String,
    /// When it expires, by the master's clock, microseconds since the epoch.
    pub expires_us: i64,
    /// It was cancelled: not to be begun any more.
    pub withdrawn: bool,
}

/// What an administrator wants done.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// What.
    pub order: Order,
    /// By whom.
    pub by: String,
    /// For which slaves, as it was said.
    pub on: String,
    /// These slaves.
    pub nodes: Vec<String>,
    /// How long it may wait, in seconds.
    pub life_s: u64,
}
