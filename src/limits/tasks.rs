//! The bounds of tasks: orders from the master to its slaves (`docs/tasks.md`).

use super::*;

/// Tasks a master keeps, ended ones included; the oldest ended ones are forgotten first.
pub const TASKS_KEPT_MAX: usize = 1_000;
/// Rows a master keeps, one for each slave of each task: a hundred tasks of a cluster of a thousand, some 20 MB on disk.
pub const TASK_ROWS_MAX: usize = 100_000;
/// Tasks in one answer to a list; older ones are asked for behind the last of them. A screen or two.
pub const TASKS_LISTED_MAX: usize = 100;
/// Rows of slaves in one answer to a list, but that one task is always whole: some 500 KB of JSON, for a hundred tasks of a cluster of fifty.
pub const TASK_ROWS_LISTED_MAX: usize = 5_000;
/// Tasks that have not ended everywhere, at one time: an administrator can still look through that many. More are refused.
pub const TASKS_OPEN_MAX: usize = 64;
/// Tasks handed to a slave at one time, oldest first; it begins one after the other, so that more would only wait there.
pub const TASKS_HANDED_MAX: usize = 16;
/// A task that nobody gave a time to expires after this, in seconds: an order that was meant for now must not surprise tomorrow.
pub const TASK_LIFE_S: u64 = 3_600;
/// The shortest life of a task, in seconds: less could be over before a slave's next poll.
pub const TASK_LIFE_S_MIN: u64 = 10;
/// The longest life of a task, in seconds: a week.
pub const TASK_LIFE_S_MAX: u64 = 7 * 86_400;
/// A master looks this often which tasks have expired, in milliseconds.
pub const TASKS_LOOK_MS: u64 = 1_000;
/// A slave's work on one task ends after this, in seconds; what it did until then is not known.
pub const TASK_RUN_S_MAX: u64 = CONTROL_ACTION_S_MAX;
/// Beyond the time that a restart takes by the startup params, a slave gives it this long, in seconds, before it says that it failed.
pub const TASK_RESTART_EXTRA_S: u64 = 60;
/// After trouble with the disk or the master a slave waits this long before it goes on with its tasks, in milliseconds.
pub const TASK_RETRY_MS: u64 = 2_000;
/// Tries to bring a result with its output to the master before the result goes there without. A line that cannot carry it, or a
/// master without room, must not keep the result back for ever; what the slave has still to do goes on between the tries.
pub const TASK_OUTPUT_TRIES_MAX: u32 = 5;
/// The largest output of a task that goes to the master, in bytes: diagnostics of a node with a policy of a megabyte are a tenth of
/// it. What is larger stays on the slave, where its own command gets it.
pub const TASK_OUTPUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// All outputs that a master keeps, in bytes; the oldest go first.
pub const TASK_OUTPUTS_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Reports with an output that a master takes in at one time; more wait. A few, since each is in its memory.
pub const TASK_OUTPUTS_COMING_MAX: usize = 4;
/// A report with its output must arrive within this, in milliseconds: over a slow line it takes a while.
pub const TASK_OUTPUT_MS: u64 = 120_000;
/// The writer of extended.log begins another file within this, in milliseconds, unless its disk is full or slow.
pub const LOG_ROTATE_MS: u64 = 10_000;
/// Copies of startup params and policy that a node keeps (`tidegate restart --backup`, a backup by task); the oldest go first.
pub const BACKUPS_KEPT_MAX: usize = 32;
/// Tasks that a slave remembers, so that none is done twice. The master has stored what came of those that are forgotten first.
pub const TASKS_NOTED_MAX: usize = 1_024;
/// The largest file of a slave's notes, in bytes: each note has a result of at most [`CLUSTER_TEXT_BYTES_MAX`], escaped, until the
/// master has it.
pub const TASKS_NOTED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Who ordered a task, in bytes: a name and an address.
pub const TASK_BY_BYTES_MAX: usize = 512;
/// A task's id, in bytes: a number and eight hex digits.
pub const TASK_ID_BYTES_MAX: usize = 32;
/// Labels of a node; each has at most [`LABEL_BYTES_MAX`] bytes.
pub const LABELS_MAX: usize = 8;
/// A label, in bytes.
pub const LABEL_BYTES_MAX: usize = 32;
/// Names that a command may list behind `--on`, in bytes of the whole: every node of a cluster by its name.
pub const TASK_ON_BYTES_MAX: usize = 64 * 1024;
/// `--follow` looks this often how a task stands, in milliseconds.
pub const TASK_FOLLOW_MS: u64 = 250;
/// `tidegate verify --cluster` waits for the slaves' checklists so long, in seconds.
pub const VERIFY_CLUSTER_S: u64 = 30;
/// A probe through a slave must be answered within this, in milliseconds: a name that resolves nowhere takes name servers a while.
pub const PROBE_REQUEST_MS_MAX: u64 = 15_000;
/// And must stand in the report so long after its answer, in milliseconds.
pub const PROBE_RECORDED_MS_MAX: u64 = 15_000;

const _: () = assert!(TASK_LIFE_S_MIN < TASK_LIFE_S && TASK_LIFE_S < TASK_LIFE_S_MAX);
const _: () = assert!(TASKS_HANDED_MAX <= TASKS_OPEN_MAX && TASKS_OPEN_MAX < TASKS_NOTED_MAX);
const _: () = assert!(
    TASKS_HANDED_MAX * (6 * TASK_BY_BYTES_MAX + TASK_ID_BYTES_MAX + 256) < CLUSTER_MESSAGE_BYTES_MAX * 7 / 8,
    "what is handed out fits into the answer to a poll, beside the proxies"
);
