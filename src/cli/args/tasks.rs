//! `tidegate task`: what may be ordered of slaves.

use clap::Args;
use clap::Subcommand;

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
    /// Show the newest tasks and how they stand
    List {
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: u32,
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
