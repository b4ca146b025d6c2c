//! All that may be asked of a node, as one enum, and all that it answers. Portal, command line and control socket speak
//! [`Action`] and nothing else; the daemon's desk performs it. Never in the data path.
#![forbid(unsafe_code)]

mod policy;
mod tasks;

pub use self::policy::ApplyHow;
pub use self::policy::ExplainQuestion;
pub use self::policy::PolicySide;
pub use self::policy::PolicyText;
pub use self::policy::PolicyVersion;
pub use self::policy::Waves;
pub use self::tasks::TaskAction;
pub use crate::policy::Complaint;
pub use crate::sys::kernel_checks::Finding as KernelCheck;
pub use crate::sys::kernel_checks::Verdict;

use crate::cluster::Counters;
use crate::cluster::MasterLink;
use crate::cluster::NodeRow;
use crate::cluster::membership::MembershipChange;
pub use crate::cluster::rollout::End as RolloutEnd;
pub use crate::cluster::rollout::Rollout;
pub use crate::cluster::tasks::Order;
pub use crate::cluster::tasks::Progress as TaskProgress;
pub use crate::cluster::tasks::Task;
pub use crate::cluster::tasks::TaskNode;
use crate::figures::Point;
use crate::report::Answer;
use crate::report::AuditQuestion;
use crate::report::Proof;
use crate::report::Question;
use crate::report::UnderWay;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

/// One thing that may be asked of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// How the node is. Always allowed.
    Status,
    /// Every node of the cluster as the master knows it; a slave answers with itself alone.
    Nodes,
    /// The exchanges and tunnels that are under way on this node, oldest first.
    Connections {
        /// At most so many.
        limit: u32,
    },
    /// Walk the checklist: one line a check, passed or what to do.
    Verify,
    /// What of the kernel and the host matters to the node, with the command that mends what is amiss.
    Kernel,
    /// Gather what a support desk asks for into one file. No secrets are in it.
    Diagnostics {
        /// Also the last lines of extended.log and config.log: they say who went where.
        with_log: bool,
    },
    /// The policy document of `version`, or the one in force.
    PolicyShow {
        /// A version of the history; absent: the one in force.
        version: Option<u64>,
    },
    /// Compile a document and say all complaints; changes nothing.
    PolicyCheck {
        /// The document's text.
        document: String,
    },
    /// How two policies differ: versions, a document, or the one in force.
    PolicyDiff {
        /// The one side.
        from: PolicySide,
        /// The other.
        to: PolicySide,
    },
    /// Bring what was applied since `base` into a document that was begun from it; changes nothing.
    PolicyMerge {
        /// The document's text.
        document: String,
        /// The version its author started from.
        base: u64,
    },
    /// Compile, store, publish. Refused on a slave.
    PolicyApply {
        /// The document's text.
        document: String,
        /// Why, for the history.
        comment: String,
        /// The version the author started from: refused if another came in between. Absent: apply over anything.
        base: Option<u64>,
        /// How.
        #[serde(default)]
        how: ApplyHow,
    },
    /// The history, newest first.
    PolicyLog {
        /// At most so many.
        limit: u32,
    },
    /// Apply the document of an older version as a new version. Refused on a slave.
    PolicyRollback {
        /// The version to go back to.
        to: u64,
        /// Why, for the history.
        comment: String,
        /// The version that was in force when its author decided: refused if another came in between.
        #[serde(default)]
        base: Option<u64>,
        /// How.
        #[serde(default)]
        how: ApplyHow,
    },
    /// How the newest rollout in waves stands. On a slave: refused.
    PolicyRollout,
    /// End the running rollout: every slave gets the version before.
    PolicyRolloutAbort {
        /// Why.
        comment: String,
    },
    /// End the running rollout: every slave gets the new version at once, unwatched. For emergencies.
    PolicyRolloutSkip {
        /// Why.
        comment: String,
    },
    /// How a request would be decided, narrated by the walk that decides.
    Explain(ExplainQuestion),
    /// A report over the record store. A slave says that its master has it.
    Report(Question),
    /// Whether a node's records of a range are complete and unchanged: on the node by its files, on the master by what is stored.
    Audit(AuditQuestion),
    /// The startup params with their values, help and what they need.
    ParamsShow,
    /// Write changed startup params to the file; all values are checked first and none is written if one is bad.
    ParamsSubmit {
        /// Key to new value; keys not named stay.
        values: BTreeMap<String, String>,
        /// Also if the portal could not be reached any more.
        #[serde(default)]
        force: bool,
    },
    /// Read startup.ini again and take over what may change live.
    Reload,
    /// Restart the daemon in place.
    Restart {
        /// Keep a copy of startup params and policy in the state directory first.
        backup: bool,
    },
    /// Whether a balancer should send clients here. Anybody may ask: it is what health checks see.
    Health {
        /// On a slave: also only if it was in step with its master within so many seconds.
        #[serde(default)]
        synced_within_s: Option<u64>,
    },
    /// The node's figures as Prometheus reads them. Administrators may ask, and whoever asks from METRICS_ALLOW.
    Metrics,
    /// A day of figures, in intervals.
    FiguresOfDay {
        /// Whose; absent: those of all nodes that this one knows, together.
        node: Option<String>,
    },
    /// The script by which a browser finds its proxy. Anybody may ask.
    ProxyScript {
        /// The browser's address.
        client: String,
        /// The name or address by which it reached this node, without a port.
        host: String,
    },
    /// Take a node out of service without failing a request. On a master, for a slave: as a task.
    Drain {
        /// The node; this one if absent.
        #[serde(default)]
        node: Option<String>,
    },
    /// Put it back; on a master, for a slave, as a task.
    Undrain {
        /// The node; this one if absent.
        #[serde(default)]
        node: Option<String>,
    },
    /// Empty what the node remembers of its way out; what is under way goes on.
    Flush {
        /// What is emptied.
        memory: Memory,
    },
    /// Tasks: orders from the master to chosen slaves.
    Task(TaskAction),
    /// Begin another file of extended.log.
    RotateLogs,
    /// Keep a copy of startup params and policy in the state directory, and answer with it. No keys and no records are in it.
    Backup,
    /// On a master: who belongs to the cluster.
    Membership {
        /// What changes.
        change: MembershipChange,
        /// The node's name.
        node: String,
    },
    /// Make an administrator, or give an existing one a new password. From the control socket only.
    AdminAdd {
        /// The administrator's name.
        user: String,
        /// The new password.
        password: String,
    },
    /// Check an administrator's password (the portal's login).
    Login {
        /// The administrator's name.
        user: String,
        /// The password given.
        password: String,
    },
}

/// What a node remembers of its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// What name servers answered.
    Dns,
    /// Connections to origins and parents that wait for a next request.
    Pools,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Memory::Dns => "dns",
            Memory::Pools => "pools",
        })
    }
}

impl Action {
    /// Whether the action changes something and so belongs in config.log.
    pub fn changes(&self) -> bool {
        match self {
            Action::PolicyApply { .. } | Action::PolicyRollback { .. } | Action::ParamsSubmit { .. } => true,
            Action::Restart { .. } | Action::Reload | Action::AdminAdd { .. } => true,
            Action::Drain { .. } | Action::Undrain { .. } | Action::Flush { .. } | Action::Membership { .. } => true,
            Action::Health { .. } | Action::ProxyScript { .. } | Action::Metrics => false,
            Action::FiguresOfDay { .. } => false,
            Action::Status | Action::Nodes | Action::Verify | Action::PolicyShow { .. } => false,
            Action::Kernel | Action::Diagnostics { .. } | Action::Connections { .. } => false,
            Action::PolicyCheck { .. } | Action::PolicyDiff { .. } | Action::PolicyLog { .. } => false,
            Action::PolicyMerge { .. } | Action::PolicyRollout => false,
            Action::PolicyRolloutAbort { .. } | Action::PolicyRolloutSkip { .. } => true,
            Action::Audit(_) => false,
            Action::RotateLogs | Action::Backup => true,
            Action::Task(asked) => matches!(asked, TaskAction::Order { .. } | TaskAction::Cancel { .. }),
            Action::Explain(_) | Action::Report(_) | Action::ParamsShow | Action::Login { .. } => false,
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A process on this machine that the control socket's peer credentials let in.
    Local {
        /// Its user id.
        uid: u32,
        /// That user's name, or the number in words.
        user: String,
    },
    /// An administrator logged in at the portal.
    Administrator {
        /// Their name.
        user: String,
        /// Where they came from.
        address: String,
        /// The address of this node at which they reached its portal, if that is known.
        reached: Option<IpAddr>,
    },
    /// The master of this slave, for an administrator there.
    Master {
        /// Where it is.
        master: String,
        /// Who ordered it there.
        by: String,
        /// The task's id.
        task: String,
    },
    /// The portal itself, before anybody is logged in: it may only ask for Login.
    Visitor {
        /// Where the visitor came from.
        address: String,
    },
}

/// The answer to an action that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// To Status.
    Status(Box<Status>),
    /// To Health: why no client should be sent here; none: clients are welcome.
    Health {
        /// All that stand against it.
        reasons: Vec<Unfit>,
    },
    /// To Metrics.
    Metrics {
        /// Prometheus's text format, version 0.0.4.
        text: String,
    },
    /// To FiguresOfDay.
    FiguresOfDay {
        /// Oldest first; an interval in which nothing was seen is not there.
        points: Vec<Point>,
    },
    /// To ProxyScript.
    ProxyScript {
        /// JavaScript.
        script: String,
    },
    /// To Nodes.
    Nodes {
        /// One row a node.
        nodes: Vec<NodeRow>,
    },
    /// To Connections.
    Connections(UnderWay),
    /// To Verify.
    Verify {
        /// One a check, in order.
        checks: Vec<Check>,
    },
    /// To Kernel.
    Kernel {
        /// One a check, in order.
        checks: Vec<KernelCheck>,
    },
    /// To Diagnostics.
    Diagnostics(Box<Diagnostics>),
    /// To Backup: likewise one archive.
    Backup(Box<Diagnostics>),
    /// To PolicyShow.
    Policy(PolicyText),
    /// To PolicyCheck: the document would compile if `complaints` is empty.
    Checked {
        /// Everything wrong with it.
        complaints: Vec<Complaint>,
    },
    /// To PolicyDiff.
    Diff {
        /// Unified text diff; empty if equal.
        text: String,
        /// Everything wrong with the document, if one is on the `to` side.
        complaints: Vec<Complaint>,
    },
    /// To PolicyMerge.
    Merged {
        /// The document with what was applied since; where both changed the same lines both stand there, between markers.
        document: String,
        /// The version in force, which the document now takes into account.
        version: u64,
        /// At how many places both changed the same lines.
        overlaps: usize,
    },
    /// To PolicyApply and PolicyRollback.
    Applied {
        /// The new version.
        version: u64,
        /// Its snapshot, such as `12-3fa9c1d2e0b4`.
        snapshot: String,
        /// False if the document equals the one in force: nothing was done.
        changed: bool,
        /// It goes to the slaves in waves, of which the first is out.
        #[serde(default)]
        in_waves: bool,
    },
    /// To PolicyRollout.
    Rollout {
        /// The newest one; absent if there never was one.
        rollout: Option<Box<Rollout>>,
    },
    /// To PolicyLog.
    History {
        /// Newest first.
        versions: Vec<PolicyVersion>,
    },
    /// To Explain.
    Explained {
        /// `ALLOW` or `DENY`.
        verdict: String,
        /// The rule that decided.
        rule: String,
        /// The walk, a line each.
        lines: Vec<String>,
    },
    /// To Report.
    Report(Box<Answer>),
    /// To Audit.
    Audit(Box<Proof>),
    /// To Task, listing: newest first.
    Tasks {
        /// With how each slave stands.
        tasks: Vec<Task>,
        /// Whether there are older ones: they are asked for behind the last of these.
        #[serde(default)]
        more: bool,
    },
    /// To Task, asking for an output.
    TaskOutput {
        /// What to call it.
        file_name: String,
        /// In base64.
        content: String,
    },
    /// To Task otherwise, and to Drain and Undrain of another node: how it stands.
    Task(Box<Task>),
    /// To ParamsShow.
    Params {
        /// The file they stand in.
        file: String,
        /// In the table's order.
        params: Vec<Param>,
    },
    /// To ParamsSubmit.
    Submitted {
        /// Keys whose new value is in force already.
        live: Vec<String>,
        /// Keys whose new value waits for a restart.
        waiting: Vec<String>,
    },
    /// To Restart, Drain, Undrain, AdminAdd, Login: done, in words.
    Done {
        /// What was done.
        words: String,
    },
}

/// Why an action was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// What kind of refusal, for programs.
    pub kind: RefusedKind,
    /// What was being done, to what, what happened, what to do.
    pub words: String,
    /// For a document or params: every single fault.
    #[serde(default)]
    pub complaints: Vec<Complaint>,
}

impl Refused {
    /// A refusal in words, without complaints.
    pub fn new(kind: RefusedKind, words: impl Into<String>) -> Self {
        Refused { kind, words: words.into(), complaints: Vec::new() }
    }

    /// The node failed while doing it.
    pub fn failed(words: impl Into<String>) -> Self {
        Refused::new(RefusedKind::Failed, words)
    }

    /// The input is bad.
    pub fn invalid(words: impl Into<String>) -> Self {
        Refused::new(RefusedKind::Invalid, words)
    }

    /// Another node does this.
    pub fn wrong_role(words: impl Into<String>) -> Self {
        Refused::new(RefusedKind::WrongRole, words)
    }
}

/// The kinds of [`Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedKind {
    /// The actor may not do this.
    NotAllowed,
    /// This node's role does not do this (policy is changed on the master).
    WrongRole,
    /// The input is bad; see the complaints.
    Invalid,
    /// Somebody else changed it first.
    Conflict,
    /// It would lock somebody out; it can be forced.
    LocksOut,
    /// There is no such thing.
    NotFound,
    /// The node failed while doing it.
    Failed,
}

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// NODE_NAME.
    pub node: String,
    /// `master`, `slave` or `standalone`.
    pub role: String,
    /// Version of Tidegate.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Proxy listeners, `IP:PORT`.
    pub listen: Vec<String>,
    /// The portal's `IP:PORT`.
    pub portal: String,
    /// Data cores.
    pub cores: usize,
    /// The snapshot in force, such as `12-3fa9c1d2e0b4`.
    pub snapshot: String,
    /// Its policy version; 0 is the built-in policy that denies everything.
    pub policy_version: u64,
    /// On a slave: its master.
    pub master: Option<MasterLink>,
    /// Highest record sequence number written to extended.log.
    pub records_written: u64,
    /// Highest record sequence number the master (or the local store) has acknowledged.
    pub records_acknowledged: u64,
    /// Trouble with the log (a full disk); empty if none.
    pub log_trouble: String,
    /// Startup params that were changed and wait for a restart.
    pub waiting_for_restart: Vec<String>,
    /// Faults in startup.ini as it stands now; empty if none.
    pub params_trouble: Vec<String>,
    /// Totals since start.
    pub counters: Counters,
    /// What the data cores hold now, and whom they turned away.
    #[serde(default)]
    pub front: Front,
    /// Absent unless the node is being taken out of service.
    #[serde(default)]
    pub draining: Option<Draining>,
}

/// A node that is being taken out of service, or is out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Who ordered it, or that the node stops.
    pub by: String,
    /// Since when, microseconds since the epoch.
    pub since_us: i64,
    /// Whether DRAIN_NOTICE is over: answers close their connections.
    pub closing: bool,
}

/// One reason why a balancer should send no client to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfit {
    /// `master`, `no-policy`, `log`, `draining`, `cores` or `not-synced`: for programs.
    pub kind: String,
    /// The reason in words. No secrets and no paths: everybody may read it.
    pub words: String,
}

/// What the data cores hold now, and whom they turned away since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Client connections served now.
    pub connections: u64,
    /// Client connections turned away because there were too many.
    pub shed: u64,
    /// Of these, because there were too many of one client address.
    pub client_limited: u64,
    /// Connections closed for their PROXY header, or for want of one.
    pub proxy_header_refused: u64,
    /// Times a core could not accept for want of descriptors or memory.
    pub exhausted: u64,
    /// Requests refused because no record of them could be opened.
    pub unrecorded: u64,
    /// Sockets that stand in the cores' tables of deadlines: client and origin connections, idle ones included.
    pub sockets: u64,
    /// Operations the kernel has under way for the cores; a core at rest has one accept for each of its listeners.
    pub operations: u64,
    /// Descriptors the process has open.
    pub descriptors: u64,
}

/// One line of `tidegate verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was seen and, if it does not hold, what to do.
    pub words: String,
}

/// What a support desk asks for, in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// What to call it: node and time are in the name.
    pub file_name: String,
    /// A gzipped tar archive, in base64.
    pub archive: String,
    /// What is in it.
    pub contents: Vec<DiagnosticsFile>,
}

/// One file of [`Diagnostics`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticsFile {
    /// Its name inside the archive.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What it says.
    pub about: String,
}

/// One startup param as the portal's form shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// The key.
    pub key: String,
    /// The value in the file, or the default.
    pub value: String,
    /// The default.
    pub default: String,
    /// What it is for.
    pub help: String,
    /// What is accepted, in words.
    pub accepts: String,
    /// Whether a change needs a restart.
    pub restart: bool,
    /// The value in force, if another one.
    pub in_force: Option<String>,
}

/// What performs actions: the daemon's desk, or a stand-in of a test.
pub trait Desk: Send + Sync {
    /// Does `action` for `actor`, or says why not.
    fn perform<'a>(
        &'a self,
        actor: Actor,
        action: Action,
    ) -> Pin<Box<dyn Future<Output = Result<Outcome, Refused>> + Send + 'a>>;
}
