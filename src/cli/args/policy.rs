//! `tidegate policy`: what may be said of policy.

use clap::Args;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Say everything that is wrong with a policy document; changes nothing
    ///
    /// Asks the node, because only it has the list files that the document names. Without a node, or with --offline, the
    /// document is compiled here, and list files are looked for beside it.
    Check {
        /// The document; - reads standard input
        file: PathBuf,
        /// Compile here, without asking a node
        #[arg(long)]
        offline: bool,
    },
    /// Print the policy document in force, or of an older version
    Show {
        /// A version of the history
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// Show how two policies differ: versions, files, or the one in force
    ///
    /// A number is a version of the history, anything else a file (./12 is the file called 12); - reads standard input. With one side only,
    /// a file is compared with the policy in force as what would come after it, a version as what was before.
    #[command(after_long_help = "Examples:
  tidegate policy diff draft.toml       what applying it would change
  tidegate policy diff 11               what changed since version 11
  tidegate policy diff 11 14
  tidegate policy diff 11 draft.toml")]
    Diff {
        /// The one side
        #[arg(value_name = "A")]
        one: String,
        /// The other side
        #[arg(value_name = "B")]
        other: Option<String>,
    },
    /// Bring what was applied since you started into your document
    ///
    /// For when an apply is refused because another came in between. Where both changed the same lines, both stand there between marks
    /// (<<<<<<<, =======, >>>>>>>), and the exit code is 1: choose, then apply with --base and the version that is printed.
    #[command(after_long_help = "Example:
  tidegate policy merge policy.toml --base 12 -o policy.toml")]
    Merge {
        /// Your document; - reads standard input
        file: PathBuf,
        /// The version you started from
        #[arg(long, value_name = "N")]
        base: u64,
        /// Write to this file
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Compile a document and enforce it on all nodes of the cluster
    ///
    /// Nothing changes if the document has a fault: the policy in force stays.
    #[command(after_long_help = "Example:
  tidegate policy show > policy.toml
  editor policy.toml
  tidegate policy diff policy.toml
  tidegate policy apply policy.toml -m 'Open the payroll site' --base 12")]
    Apply {
        /// The document; - reads standard input
        file: PathBuf,
        /// Why, for the history
        #[arg(short, long, value_name = "COMMENT")]
        message: Option<String>,
        /// The version you started from; refused if another came in between
        #[arg(long, value_name = "N")]
        base: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Show how the rollout in waves stands, or end it
    ///
    /// Exits with 1 if the newest one was reverted.
    #[command(args_conflicts_with_subcommands = true)]
    Rollout {
        #[command(subcommand)]
        order: Option<RolloutOrder>,
        /// Print what happens as it happens, until the rollout ends
        #[arg(long)]
        follow: bool,
    },
    /// List the versions of policy, newest first
    Log {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u32,
    },
    /// Apply the document of an older version as a new version
    Rollback {
        /// The version to go back to
        version: u64,
        /// Why, for the history
        #[arg(short, long, value_name = "COMMENT")]
        message: Option<String>,
        /// The version in force when you decided; refused if another came in between
        #[arg(long, value_name = "N")]
        base: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Write the policy document, byte for byte, to a file or to standard output
    Export {
        /// A version of the history; the one in force if absent
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        /// Write to this file
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Tell, step by step, how a request would be decided
    #[command(after_long_help = "Examples:
  tidegate policy explain --client 10.0.0.7 --url http://example.com/
  tidegate policy explain --client 10.0.0.7 --method CONNECT --url example.com:443 --at '2026-05-04 12:30'
  tidegate policy explain --client 10.0.0.7 --url http://example.com/ --document draft.toml
  tidegate policy explain --client 10.0.0.7 --url http://example.com/ --version 12")]
    Explain {
        /// The client's address
        #[arg(long, value_name = "IP")]
        client: std::net::IpAddr,
        /// The URL, or host:port with --method CONNECT
        #[arg(long)]
        url: String,
        /// The request's method
        #[arg(long, default_value = "GET")]
        method: String,
        /// The authenticated user
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// When: RFC 3339, or local time without a zone; now if absent
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// Explain by this document instead of the policy in force
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
        /// Explain by this version of the history: why a request was decided as its record says
        #[arg(long, value_name = "N", conflicts_with = "document")]
        version: Option<u64>,
    },
}

/// How a policy is applied.
#[derive(Debug, Args)]
pub struct How {
    /// Apply although it denies everything to everybody, or turns every slave away
    #[arg(long)]
    pub force: bool,
    /// Reach the slaves in waves: how many have it after each, such as 1,25%,all
    ///
    /// Each wave waits for the reports of its slaves and is then compared with the rest: blocked and failed exchanges, CPU time. A
    /// refusal, a slave that falls silent, or figures that are worse call the version back from all slaves.
    #[arg(long, value_name = "SIZES")]
    pub waves: Option<String>,
    /// How long each wave is watched
    #[arg(long, value_name = "SECONDS", default_value_t = crate::limits::ROLLOUT_WINDOW_S)]
    pub window: u64,
}

#[derive(Debug, Subcommand)]
pub enum RolloutOrder {
    /// Call the version back: every slave gets the one before
    Abort {
        /// Why
        #[arg(short, long, value_name = "COMMENT")]
        message: Option<String>,
    },
    /// For emergencies: every slave gets the new version at once, whatever the figures say
    Skip {
        /// Why
        #[arg(short, long, value_name = "COMMENT")]
        message: Option<String>,
    },
}
