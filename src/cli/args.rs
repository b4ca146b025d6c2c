//! The arguments, as clap reads them; the help, the completions and the manual pages come from here.

mod policy;
mod tasks;

pub use policy::How;
pub use policy::Policy;
pub use policy::RolloutOrder;
pub use tasks::On;
pub use tasks::Task;

use crate::base::version::VERSION;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use std::path::PathBuf;

/// A secure web gateway: a cluster of forward proxies that enforces one policy and keeps one log
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version = VERSION,
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
    after_long_help = "Examples:
  tidegate demo              a master, two slaves and an origin on loopback, to play with
  tidegate status            how this host's node is
  tidegate verify            walk the checklist; each line says passed or what to do
  tidegate policy apply policy.toml -m 'Block gambling'
  tidegate policy explain --client 10.0.0.7 --url http://example.com/
  tidegate report --last 1h --blocked

Commands that ask a running node use its control socket; root and members of the group that
CONTROL_GROUP names may. With --json they print what the node answered, for programs.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

Files: /etc/tidegate/startup.ini (see tidegate-startup.ini(5)), /var/log/tidegate/extended.log."
)]
pub struct Cli {
    #[command(flatten)]
    pub ask: Ask,
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the node and how to print its answer.
#[derive(Debug, Args)]
pub struct Ask {
    /// The control socket of the node to ask
    ///
    /// Default: control.sock in the RUN_DIR that /etc/tidegate/startup.ini names, or else /run/tidegate/control.sock.
    #[arg(long, global = true, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Print the answer as one JSON object
    ///
    /// What the node answered, or its refusal ({"kind", "words", "complaints"}) with exit code 1.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be a node
    ///
    /// Reads the startup params, takes its role and runs until SIGTERM or SIGINT; on these it lets running exchanges finish.
    Run {
        /// The startup params
        #[arg(long, value_name = "FILE", default_value = crate::settings::DEFAULT_FILE)]
        config: PathBuf,
    },
    /// Keep a node: what systemd starts
    ///
    /// Starts `tidegate run` as its child and holds the listening sockets, so that after `tidegate restart`, `systemctl restart` or an
    /// upgrade the new process serves while the former one finishes what is under way.
    Keep {
        /// The startup params
        #[arg(long, value_name = "FILE", default_value = crate::settings::DEFAULT_FILE)]
        config: PathBuf,
    },
    /// Start a whole cluster on loopback, to play with
    ///
    /// A master, slaves and a small origin, in one folder and on free ports. Prints what to open and what to try, and runs until
    /// Ctrl-C. With --json it prints one JSON line once everything is ready.
    #[command(after_long_help = "Examples:
  tidegate demo
  tidegate demo --slaves 3 --dir /tmp/cluster
  tidegate demo --json | head -1")]
    Demo {
        /// Use this folder and keep it (default: a temporary one)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// How many slaves
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
        slaves: u8,
    },
    /// Show how the node is: role, policy in force, records, and on a master its slaves
    Status,
    /// Show the nodes of the cluster, and in what each enforces something else than its policy (on a master: all of them)
    Nodes,
    /// Look at, check, apply and roll back policy
    #[command(subcommand, arg_required_else_help = true)]
    Policy(Policy),
    /// Show who went where and what was blocked
    ///
    /// On a master: the traffic of all its slaves. Times are RFC 3339 (2026-05-01T12:00:00Z), or local without a zone
    /// (2026-05-01, "2026-05-01 12:00").
    #[command(after_long_help = "Examples:
  tidegate report --last 1h
  tidegate report --from 2026-05-01 --to 2026-05-02 --user ann@10.0.0.7
  tidegate report --last 7d --blocked --top 20
  tidegate report --node slave-2 --host example.com --newest 100 --json")]
    Report(Report),
    /// Walk the checklist of a working node: each line says passed or what to do
    ///
    /// Exits with 1 if a check does not hold.
    Verify {
        /// On a master: also the checklist of every slave, and a request through each that must come out in the report
        #[arg(long)]
        cluster: bool,
    },
    /// Show the exchanges and tunnels that are under way on this node, oldest first
    Connections {
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show what of the kernel and the host matters to the node, and the command that mends what is amiss
    ///
    /// Looks at the host itself if no node runs: it may be why none does. Exits with 1 if something hurts.
    Kernel,
    /// Show the node's figures as Prometheus reads them
    ///
    /// The same as /metrics on the portal's port, which METRICS_ALLOW opens.
    Metrics {
        /// Print the table of docs/metrics.md instead; no node is asked
        #[arg(long)]
        reference: bool,
    },
    /// Gather what a support desk asks for into one file
    ///
    /// Status, checklist, kernel checks, startup params, policy with its history, the last messages, figures from /proc and sizes of
    /// files, in a .tar.gz that lists its contents. No secrets are in it. Who went where is left out unless --with-log.
    #[command(after_long_help = "Examples:
  tidegate diagnostics
  tidegate diagnostics -o /tmp/node.tar.gz --with-log")]
    Diagnostics {
        /// Write to this file, which must not exist yet (default: named after node and time, in this folder)
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Also the last lines of extended.log and config.log: personal data
        #[arg(long)]
        with_log: bool,
    },
    /// Read the startup params again and put in force what needs no restart
    ///
    /// The node does so by itself when the file changes; this waits until it is done, and tells what is wrong with the file.
    Reload,
    /// Restart the daemon; new connections wait a moment, what is under way goes on
    ///
    /// Under systemd (tidegate keep) the former process finishes what is under way beside the new one, for at most HANDOVER_TIME. Elsewhere
    /// it finishes first, within DRAIN_TIME, then becomes the new one.
    Restart {
        /// First keep a copy of startup params and policy in the state directory
        #[arg(long)]
        backup: bool,
    },
    /// Take this node out of service without failing a request; on the master, a slave
    ///
    /// Its /health says 503 at once, so that balancers send new clients elsewhere. All goes on as before until DRAIN_NOTICE is
    /// over; from then on every answer asks its client to come back over another connection. Tunnels go on. The node stays
    /// drained, also over restarts, until `tidegate undrain`. A slave that is named on its master gets the order as a task
    /// (see `tidegate task`), which is followed until it is done.
    #[command(after_long_help = "Examples:
  tidegate drain --wait 600 && systemctl stop tidegate
  tidegate drain slave-2 --wait 600         on the master
  tidegate undrain")]
    Drain {
        /// On the master: the slave that is meant
        #[arg(value_name = "NAME")]
        node: Option<String>,
        /// Return when no client is served any more, or with 1 after so many seconds
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        wait: Option<u64>,
    },
    /// Put a drained node back into service; on the master, a slave
    Undrain {
        /// On the master: the slave that is meant
        #[arg(value_name = "NAME")]
        node: Option<String>,
    },
    /// Order something of slaves, each once, and see what came of it; asked of the master
    ///
    /// A slave that is away gets the order when it comes back, until it expires. What came of it is kept, and noted in config.log of the master
    /// and of the slave.
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_long_help = "Examples:
  tidegate task reload --on all --follow
  tidegate task restart --on slave-1,slave-2
  tidegate task drain --on label:rack-1 --expires 10m
  tidegate task show 12 --follow"
    )]
    Task(Task),
    /// Make this node ask its name servers anew, or open new connections
    ///
    /// What is under way goes on, and a connection that it uses may be kept afterwards.
    #[command(after_long_help = "Examples:
  tidegate flush dns
  tidegate flush pools")]
    Flush {
        /// What is emptied
        #[arg(value_enum)]
        memory: FlushOf,
    },
    /// Begin another file of extended.log
    RotateLogs,
    /// Say who belongs to the cluster; asked of the master
    #[command(subcommand, arg_required_else_help = true)]
    Node(Node),
    /// Make the configuration of the balancer in front of the slaves
    ///
    /// Asked of the master, which knows its slaves: their addresses, ports, weights (LB_WEIGHT), whether they take the PROXY
    /// protocol, and which are away. The master itself is never in it.
    #[command(subcommand, arg_required_else_help = true)]
    Lb(Lb),
    /// Show or change startup params
    #[command(subcommand, arg_required_else_help = true)]
    Params(Params),
    /// Make or change the key that admits nodes to a cluster
    #[command(subcommand, name = "activation-key", arg_required_else_help = true)]
    ActivationKey(ActivationKey),
    /// Make administrators of the portal
    #[command(subcommand, arg_required_else_help = true)]
    Admin(Admin),
    /// Print completions for a shell
    #[command(after_long_help = "Example:
  tidegate completions bash > /usr/share/bash-completion/completions/tidegate")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them to a folder
    Man {
        /// Write every page to this folder
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

/// tidegate flush
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FlushOf {
    /// What name servers answered
    Dns,
    /// Idle connections to origins and parents
    Pools,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Report {
    #[command(subcommand)]
    pub what: Option<ReportOf>,
    /// Records that ended at this time or later
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Records that ended before this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Records of the last while: 90s, 15m, 1h, 7d
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["from", "to"])]
    pub last: Option<String>,
    /// Only this node's
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Only requests to this host
    #[arg(long)]
    pub host: Option<String>,
    /// Only this user's: name@address, or anonymous@address
    #[arg(long)]
    pub user: Option<String>,
    /// Only this client address
    #[arg(long, value_name = "IP")]
    pub client: Option<String>,
    /// Only requests in this category
    #[arg(long, value_name = "NAME")]
    pub category: Option<String>,
    /// Only what this rule decided
    #[arg(long)]
    pub rule: Option<String>,
    /// Only answers with this HTTP status
    #[arg(long, value_name = "CODE")]
    pub status: Option<u16>,
    /// Only what policy blocked
    #[arg(long)]
    pub blocked: bool,
    /// Rows of each ranking
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: u32,
    /// How many of the newest records to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub newest: u32,
}

#[derive(Debug, Subcommand)]
pub enum ReportOf {
    /// Prove that a node's records of a range are complete and unchanged
    ///
    /// Asked of the node itself: its files of extended.log are read and held against their chain; each line that was edited, removed,
    /// inserted or moved is named, and each number that is missing. Asked of the master: the numbers it has stored. Exits with 1
    /// if something does not hold.
    #[command(after_long_help = "Examples:
  tidegate report audit
  tidegate report audit --node slave-2 --from 2026-05-01 --to 2026-05-02")]
    Audit(ReportAudit),
}

#[derive(Debug, Args)]
pub struct ReportAudit {
    /// Whose records; by default those of the node that is asked
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Records that ended at this time or later
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Records that ended before this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Lb {
    /// Print a haproxy.cfg: TCP, PROXY protocol 2, and an HTTP check of each slave's /health every second
    #[command(after_long_help = "Examples, on the master or with its control socket forwarded over ssh:
  tidegate lb haproxy > /etc/haproxy/haproxy.cfg
  tidegate lb haproxy --watch /etc/haproxy/haproxy.cfg --reload 'systemctl reload haproxy'")]
    Haproxy {
        /// Where clients connect: :8080 (all addresses) or 10.0.0.5:8080
        #[arg(long, value_name = "ADDRESS:PORT", default_value = ":8080", value_parser = one_word)]
        bind: String,
        /// Which slave a new connection goes to; source: always the same for a client
        #[arg(long, value_name = "HOW", default_value = "leastconn", value_parser = ["leastconn", "roundrobin", "source"])]
        balance: String,
        /// Send no client to a slave that was not in step with its master for so long
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(15..=86_400))]
        synced_within: Option<u64>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Print an nginx.conf: a stream block, PROXY protocol 1
    ///
    /// The free nginx asks no health: keep the file current with --watch.
    #[command(after_long_help = "Example:
  tidegate lb nginx --watch /etc/nginx/nginx.conf --reload 'nginx -s reload'")]
    Nginx {
        /// Where clients connect: 8080 (all addresses) or 10.0.0.5:8080
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "8080", value_parser = one_word)]
        bind: String,
        #[command(flatten)]
        watch: Watch,
    },
    /// Print a keepalived.conf for one of two balancers that share an address
    ///
    /// Asks no node: run it once for each balancer of the pair.
    #[command(after_long_help = "Example, on the first balancer and then with --state backup on the second:
  tidegate lb keepalived --vip 10.0.0.100/24 --interface eth0 --state master > /etc/keepalived/keepalived.conf")]
    Keepalived {
        /// The floating address, with its prefix length
        #[arg(long, value_name = "ADDRESS/LENGTH")]
        vip: ipnet::IpNet,
        /// The network interface that has it
        #[arg(long, value_name = "NAME", value_parser = interface)]
        interface: String,
        /// VRRP's number of the pair: the same on both, another one for each pair in a network
        #[arg(long, value_name = "N", default_value_t = 51, value_parser = clap::value_parser!(u8).range(1..=255))]
        router_id: u8,
        /// Whether this balancer has the address while both are well
        #[arg(long, default_value = "backup", value_parser = ["master", "backup"])]
        state: String,
        /// The other balancer's address, where the network carries no multicast
        #[arg(long, value_name = "IP")]
        peer: Vec<std::net::IpAddr>,
        /// The program whose absence makes the address move
        #[arg(long, default_value = "haproxy", value_parser = ["haproxy", "nginx"])]
        process: String,
    },
}

/// Keeping a configuration current.
#[derive(Debug, Args)]
pub struct Watch {
    /// Keep this file current instead of printing: it is replaced whole, and only if it changes
    ///
    /// The file stays as it is while the master is away, has just started, or hears of no slave. Runs until it is stopped.
    #[arg(long, value_name = "FILE")]
    pub watch: Option<PathBuf>,
    /// Run this with the shell whenever the file was replaced
    #[arg(long, value_name = "COMMAND", requires = "watch")]
    pub reload: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Params {
    /// Show every startup param of the node with its value
    Show,
    /// Change startup params: all of them, or none if one is bad
    #[command(after_long_help = "Example:
  tidegate params set LOG_LEVEL=debug KEEP_DATA=90")]
    Set {
        /// What to change
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = key_value)]
        values: Vec<(String, String)>,
        /// Also if no interface of this host has the new PORTAL_IP (yet)
        #[arg(long)]
        force: bool,
    },
    /// Print a startup.ini with every default, as the package installs it
    Default,
    /// Print the reference of all startup params (Markdown)
    Reference,
}

#[derive(Debug, Subcommand)]
pub enum ActivationKey {
    /// Make a new activation key; every node of the cluster gets the same one
    #[command(after_long_help = "Example, on the master, then copy the file to each slave:
  tidegate activation-key new -o /etc/tidegate/activation.key")]
    New {
        /// Write it to this file (mode 0600), which must not exist yet
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Put a new key into the file; the one of before counts for a while yet
    ///
    /// Master and slaves may get the new file in any order within that time; each uses it after a restart, which fails no request.
    /// The portal's Nodes page says which slaves still hold the former key. When its time is over, nodes that have only that are refused.
    #[command(after_long_help = "Example, on the master, then copy the file to each slave and restart that, too:
  tidegate activation-key rotate --days 7 && tidegate restart")]
    Rotate {
        /// The key file
        #[arg(short, long, value_name = "FILE", default_value = DEFAULT_KEY_FILE)]
        file: PathBuf,
        /// How long the key of before counts
        #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=30))]
        days: u8,
    },
    /// Take the former key out of the file at once
    Retire {
        /// The key file
        #[arg(short, long, value_name = "FILE", default_value = DEFAULT_KEY_FILE)]
        file: PathBuf,
    },
    /// Tell the fingerprints of the keys in the file, which may be compared and shown
    Show {
        /// The key file
        #[arg(short, long, value_name = "FILE", default_value = DEFAULT_KEY_FILE)]
        file: PathBuf,
    },
}

/// ACTIVATION_KEY_FILE as installed.
const DEFAULT_KEY_FILE: &str = "/etc/tidegate/activation.key";

#[derive(Debug, Subcommand)]
pub enum Node {
    /// Take a node out of the cluster and bar its key
    ///
    /// It gets no policy and brings no records any more. Until it is stopped it serves clients by its last policy. Its name is free.
    Remove {
        /// The node's name
        name: String,
    },
    /// Free the name of a node for a machine that was installed anew or takes its place
    Release {
        /// The node's name
        name: String,
    },
    /// Let a removed node come back
    Readmit {
        /// The name under which it was removed
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Add an administrator, or give one a new password
    ///
    /// The password is asked on the terminal, or read as the first line of standard input; it is never an argument, because
    /// everybody on the host can read those.
    #[command(after_long_help = "Examples:
  tidegate admin add ann
  pass show tidegate/ann | tidegate admin add ann")]
    Add {
        /// The administrator's name
        name: String,
    },
}

/// What goes into a configuration as one word of it.
fn one_word(text: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".:[]*-_".contains(&byte);
    match !text.is_empty() && text.bytes().all(good) {
        true => Ok(text.to_string()),
        false => Err("write an address and a port, such as 10.0.0.5:8080".to_string()),
    }
}

fn interface(text: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte);
    match !text.is_empty() && text.len() < 16 && text.bytes().all(good) {
        true => Ok(text.to_string()),
        false => Err("write the name of a network interface, such as eth0 (see `ip link`)".to_string()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("write it as KEY=VALUE, such as LOG_LEVEL=debug".to_string()),
    }
}
