//! What may be asked about tasks: orders from the master to chosen slaves (`docs/tasks.md`).

use crate::cluster::tasks::Order;
use serde::Deserialize;
use serde::Serialize;

/// One thing that may be asked about tasks. On a master; others refuse it and say who is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum TaskAction {
    /// Have slaves do something, each once.
    Order {
        /// What.
        order: Order,
        /// Which: `all`, names separated by commas, or `label:X`.
        on: String,
        /// How long it may wait for a slave, in seconds; absent: an hour.
        #[serde(default)]
        life_s: Option<u64>,
    },
    /// The newest tasks, newest first.
    List {
        /// At most so many; an answer holds a page of them at most.
        limit: u32,
        /// Those that are older than this one, by id or number; absent: the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
    },
    /// How one task stands.
    Show {
        /// Its id, or its number alone.
        id: String,
    },
    /// What a slave brought of a task: an archive, or the lines of a checklist.
    Output {
        /// The task's id, or its number alone.
        id: String,
        /// The slave.
        node: String,
    },
    /// Take one back, as far as slaves have not begun it.
    Cancel {
        /// Its id, or its number alone.
        id: String,
    },
}
