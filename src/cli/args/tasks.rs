//! `tidegate task`: what may be ordered of slaves.

use super::FlushOf;
use clap::Args;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Task {
    /// Restart the daemon of slaves; what is under way there goes on
    Restart(On),
    /// Have slaves read their startup params again
    Reload(On),
    /// Take slaves out of service without failing a request
    Drain(On),
    /// Put drained slaves back into service
    Undrain(On),
    /// Make slaves ask their name servers anew, or open new connections
    Flush {
        /// What is emptied
        #[arg(value_enum)]
        memory: FlushOf,
        #[command(flatten)]
        on: On,
    },
    /// Have slaves begin another file of extended.log
    RotateLogs(On),
    /// Have slaves walk the checklist; a slave on which a check does not hold has failed
    Verify(On),
    /// Have slaves bring what a support desk asks for
    ///
    /// An archive of each slave is kept here: tidegate task output. No secrets are in it, nor who went where.
    Diagnostics(On),
    /// Have slaves keep and bring a copy of their startup params and policy
    ///
    /// It is not encrypted, and neither keys nor records are in it: it is no backup of the whole node.
    Backup(On),
    /// Write to a file what a slave brought of a task
    #[command(after_long_help = "Examples:
  tidegate task output 12 slave-1
  tidegate task output 12 slave-1 -o /tmp/slave-1.tar.gz")]
    Output {
        /// The task's id, or its number alone
        id: String,
        /// The slave
        #[arg(value_name = "NAME")]
        node: String,
        /// Write to this file, which must not exist yet (default: named by the slave, in this folder)
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show the newest tasks and how they stand
    List {
        /// At most so many (100 and no more)
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Those that are older than this task: its id, or its number alone
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
    /// Show how each slave stands with a task, and what came of it
    ///
    /// With --follow: exits with 1 unless every slave has done it.
    Show {
        /// The task's id, or its number alone
        id: String,
        /// Print what happens until the task has ended on every slave
        #[arg(long)]
        follow: bool,
    },
    /// Take a task back: no slave begins it any more
    ///
    /// A slave that has begun it goes on; what came of it is shown as always.
    Cancel {
        /// The task's id, or its number alone
        id: String,
    },
}

/// Of which slaves, and for how long.
#[derive(Debug, Args)]
pub struct On {
    /// The slaves: all, names separated by commas, or label:X (those with X in their NODE_LABELS)
    #[arg(long, value_name = "NODES")]
    pub on: String,
    /// How long the order waits for a slave that is away: 30m, 12h, 7d (default: 1h)
    #[arg(long, value_name = "SPAN")]
    pub expires: Option<String>,
    /// Print what happens until the task has ended on every slave; exit with 1 unless every slave has done it
    #[arg(long)]
    pub follow: bool,
}
