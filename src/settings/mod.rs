//! Startup params: who a node is and where it listens. One table ([`TABLE`]) defines every key; the parser, the portal's
//! form, the manual page and the file the package installs are all read from it.
//!
//! ```text
//! startup.ini --parse--> Said (what the file says) --resolve--> Settings (what it means on this host)
//! ```
//! The file's format is described in `docs/formats/startup-ini.md`.
#![forbid(unsafe_code)]

mod fault;
mod file;
mod resolve;
mod said;
mod scope;
mod table;

pub use fault::Fault;
pub use file::Loaded;
pub use file::host_name;
pub use file::load;
pub use file::run_dir;
pub use file::submit;
pub use resolve::is_label;
pub use resolve::resolve;
pub use said::Said;
pub use said::parse;
pub use said::render;
pub use scope::Apply;
pub use scope::LocalSection;
pub use scope::POLICY_SECTIONS;
pub use scope::PolicySection;
pub use scope::Scope;
pub use table::Key;
pub use table::TABLE;
pub use table::key;

use crate::base::networks::Networks;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where startup.ini stands unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/tidegate/startup.ini";

/// What the startup params mean on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the node is; `ROLE="auto"` is already decided.
    pub role: Role,
    /// NODE_NAME: unique in the cluster; the host's name unless set.
    pub node_name: String,
    /// HOSTNAME: the name people reach the node by; NODE_NAME unless set.
    pub hostname: String,
    /// LISTEN_IP: where clients connect.
    pub listen_ip: Listen,
    /// LISTEN_PORT; 0 = any free port.
    pub listen_port: u16,
    /// PROXY_PROTOCOL: whether balancers say who their clients are. Live.
    pub proxy_protocol: ProxyProtocol,
    /// TRUSTED_PROXIES: whose word about a client's address counts. Live.
    pub trusted_proxies: Networks,
    /// LB_WEIGHT: the node's share of the clients; `None` = its data cores. Live.
    pub lb_weight: Option<u16>,
    /// NODE_LABELS: by which tasks choose this node. Live.
    pub node_labels: Vec<String>,
    /// PORTAL_IP: where the portal and, on a master, the cluster service listen.
    pub portal_ip: Listen,
    /// PORTAL_PORT; 0 = any free port.
    pub portal_port: u16,
    /// METRICS_ALLOW: who may read /metrics without logging in. Live.
    pub metrics_allow: Networks,
    /// MASTER_IP and MASTER_PORT; `Some` exactly on a slave.
    pub master: Option<SocketAddr>,
    /// SYNCTIME: the longest silence between slave and master. Live.
    pub sync_time: Duration,
    /// NEVER_SYNC without ALWAYS_SYNC: sections that this slave has of its own.
    pub never_sync: Vec<LocalSection>,
    /// ALWAYS_SYNC: sections that it takes from the master whatever NEVER_SYNC says.
    pub always_sync: Vec<&'static str>,
    /// OWN_SECTIONS_FILE.
    pub own_sections_file: PathBuf,
    /// LOG_SIZE_LIMIT in bytes: extended.log is rotated at this size. Live.
    pub log_size_limit: u64,
    /// LOG_SYNC in milliseconds: how often extended.log is synced. Live.
    pub log_sync_ms: u64,
    /// RECORD_SLOTS: how many exchanges a data core holds at once.
    pub record_slots: u32,
    /// LOG_FULL: what becomes of exchanges that the log has no room for. Live.
    pub log_full: LogFull,
    /// KEEP_DATA in days: older rotated logs and records are deleted. Live.
    pub keep_data_days: u32,
    /// LOG_LEVEL of the daemon's own messages. Live.
    pub log_level: LogLevel,
    /// CORES: `None` = one data core for each CPU the process may run on.
    pub cores: Option<usize>,
    /// PIN_CPUS: where the data cores run.
    pub pin_cpus: PinCpus,
    /// MAX_FDS: the limit on open files the daemon sets for itself.
    pub max_fds: u64,
    /// MAX_CONNECTIONS: client connections at once. Live.
    pub max_connections: u64,
    /// MAX_CONNECTIONS_PER_CLIENT: of one address; 0 = no limit. Live.
    pub max_connections_per_client: u32,
    /// HEAD_TIME to DRAIN_NOTICE: how long things may take. Live.
    pub times: Times,
    /// ACTIVATION_KEY_FILE.
    pub activation_key_file: PathBuf,
    /// CREDENTIALS_DIR.
    pub credentials_dir: PathBuf,
    /// STATE_DIR.
    pub state_dir: PathBuf,
    /// LOG_DIR.
    pub log_dir: PathBuf,
    /// RUN_DIR.
    pub run_dir: PathBuf,
    /// LISTS_DIR: relative names in a policy document's `files` start here.
    pub lists_dir: PathBuf,
    /// CONTROL_GROUP: the group whose members may use the control socket.
    pub control_group: String,
}

/// How long things may take, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// HEAD_TIME: a whole request head.
    pub head: u64,
    /// IDLE_TIME: until a client's next request.
    pub idle: u64,
    /// BODY_TIME: until a body goes on.
    pub body: u64,
    /// CONNECT_TIME: until an address accepts.
    pub connect: u64,
    /// ANSWER_TIME: until an answer begins.
    pub answer: u64,
    /// TUNNEL_TIME: until something moves in a tunnel.
    pub tunnel: u64,
    /// TOTAL_TIME: an exchange or tunnel altogether.
    pub total: u64,
    /// DRAIN_TIME: what is under way when the node stops.
    pub drain: u64,
    /// DRAIN_NOTICE: until a balancer has noticed.
    pub drain_notice: u64,
    /// HANDOVER_TIME.
    pub handover: u64,
}

impl Settings {
    /// The control socket of a node with these settings.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// The value in force of a key, in the words the file would use; `None` if there is no such key.
    pub fn text(&self, key: &str) -> Option<String> {
        let master = |part: fn(SocketAddr) -> String| self.master.map(part).unwrap_or_default();
        Some(match key {
            "ROLE" => self.role.to_string(),
            "NODE_NAME" => self.node_name.clone(),
            "HOSTNAME" => self.hostname.clone(),
            "LISTEN_IP" => self.listen_ip.to_string(),
            "LISTEN_PORT" => self.listen_port.to_string(),
            "PROXY_PROTOCOL" => self.proxy_protocol.to_string(),
            "TRUSTED_PROXIES" => self.trusted_proxies.to_string(),
            "METRICS_ALLOW" => self.metrics_allow.to_string(),
            "LB_WEIGHT" => self.lb_weight.map_or("auto".to_string(), |weight| weight.to_string()),
            "NODE_LABELS" => self.node_labels.join(","),
            "PORTAL_IP" => self.portal_ip.to_string(),
            "PORTAL_PORT" => self.portal_port.to_string(),
            "MASTER_IP" => master(|address| address.ip().to_string()),
            "MASTER_PORT" => master(|address| address.port().to_string()),
            "SYNCTIME" => self.sync_time.as_secs().to_string(),
            "NEVER_SYNC" => self.never_sync.iter().map(|section| section.name()).collect::<Vec<_>>().join(","),
            "ALWAYS_SYNC" => self.always_sync.join(","),
            "OWN_SECTIONS_FILE" => self.own_sections_file.display().to_string(),
            "LOG_SIZE_LIMIT" => self.log_size_limit.to_string(),
            "LOG_SYNC" => self.log_sync_ms.to_string(),
            "RECORD_SLOTS" => self.record_slots.to_string(),
            "LOG_FULL" => self.log_full.to_string(),
            "KEEP_DATA" => self.keep_data_days.to_string(),
            "LOG_LEVEL" => self.log_level.to_string(),
            "CORES" => self.cores.map_or("auto".to_string(), |cores| cores.to_string()),
            "PIN_CPUS" => self.pin_cpus.to_string(),
            "MAX_FDS" => self.max_fds.to_string(),
            "MAX_CONNECTIONS" => self.max_connections.to_string(),
            "MAX_CONNECTIONS_PER_CLIENT" => self.max_connections_per_client.to_string(),
            "HEAD_TIME" => self.times.head.to_string(),
            "IDLE_TIME" => self.times.idle.to_string(),
            "BODY_TIME" => self.times.body.to_string(),
            "CONNECT_TIME" => self.times.connect.to_string(),
            "ANSWER_TIME" => self.times.answer.to_string(),
            "TUNNEL_TIME" => self.times.tunnel.to_string(),
            "TOTAL_TIME" => self.times.total.to_string(),
            "DRAIN_TIME" => self.times.drain.to_string(),
            "DRAIN_NOTICE" => self.times.drain_notice.to_string(),
            "HANDOVER_TIME" => self.times.handover.to_string(),
            "ACTIVATION_KEY_FILE" => self.activation_key_file.display().to_string(),
            "CREDENTIALS_DIR" => self.credentials_dir.display().to_string(),
            "STATE_DIR" => self.state_dir.display().to_string(),
            "LOG_DIR" => self.log_dir.display().to_string(),
            "RUN_DIR" => self.run_dir.display().to_string(),
            "LISTS_DIR" => self.lists_dir.display().to_string(),
            "CONTROL_GROUP" => self.control_group.clone(),
            _ => return None,
        })
    }
}

/// Which keys differ between the settings in force and new ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys a running node takes over at once.
    pub live: Vec<&'static str>,
    /// Keys that wait for a restart.
    pub waiting: Vec<&'static str>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.waiting.is_empty()
    }
}

/// Compares the meaning of two settings, key by key: `1G` and `1024M` are the same.
pub fn difference(old: &Settings, new: &Settings) -> Difference {
    let changed = TABLE.iter().filter(|key| old.text(key.name) != new.text(key.name));
    let (live, waiting): (Vec<_>, Vec<_>) = changed.partition(|key| key.live());
    let names = |keys: Vec<&Key>| keys.into_iter().map(|key| key.name).collect();
    Difference { live: names(live), waiting: names(waiting) }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Alone: carries traffic, holds its own policy and reports.
    Standalone,
    /// Holds policy and reports for the cluster; carries no client traffic.
    Master,
    /// Carries traffic by the master's policy.
    Slave,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Standalone => "standalone",
            Role::Master => "master",
            Role::Slave => "slave",
        })
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `*`: every address, IPv4 and IPv6.
    Any,
    /// One address (`0.0.0.0`: every IPv4 address, `::`: every IPv6 address).
    Ip(IpAddr),
}

impl Listen {
    /// As startup.ini has it: `*` or one address.
    pub fn parse(text: &str) -> Option<Listen> {
        if text == "*" { Some(Listen::Any) } else { text.parse().ok().map(Listen::Ip) }
    }

    /// The addresses to try, best first: `*` is one dual-stack IPv6 socket, or IPv4 alone on a host without IPv6.
    pub fn candidates(self, port: u16) -> Vec<SocketAddr> {
        match self {
            Listen::Any => {
                vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))]
            }
            Listen::Ip(ip) => vec![SocketAddr::from((ip, port))],
        }
    }

    /// The one address, or `None` for every address of both families.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Listen::Any => None,
            Listen::Ip(ip) => Some(ip),
        }
    }

    /// Whether a socket on `self` and one on `other` would want the same address.
    pub fn overlaps(self, other: Listen) -> bool {
        match (self, other) {
            (Listen::Any, _) | (_, Listen::Any) => true,
            (Listen::Ip(a), Listen::Ip(b)) if a.is_ipv4() == b.is_ipv4() => {
                a == b || a.is_unspecified() || b.is_unspecified()
            }
            (Listen::Ip(a), Listen::Ip(b)) => {
                // An IPv6 wildcard socket is dual-stack on Linux unless told otherwise.
                (a.is_ipv6() && a.is_unspecified()) || (b.is_ipv6() && b.is_unspecified())
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Any => f.write_str("*"),
            Listen::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Never.
    Off,
    /// Those of trusted peers may.
    Optional,
    /// All do.
    Required,
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyProtocol::Off => "off",
            ProxyProtocol::Optional => "optional",
            ProxyProtocol::Required => "required",
        })
    }
}

/// What becomes of exchanges that the log has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFull {
    /// They are refused.
    Refuse,
    /// They go on unrecorded, and are counted.
    Count,
}

impl fmt::Display for LogFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFull::Refuse => "refuse",
            LogFull::Count => "count",
        })
    }
}

/// How much the daemon says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what needs a human.
    Error,
    /// And what may soon.
    Warn,
    /// And what changed.
    Info,
    /// And why.
    Debug,
    /// Everything.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        })
    }
}

/// Where the data cores run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinCpus {
    /// Each core on a CPU of its own if there are enough CPUs, unpinned otherwise.
    Auto,
    /// Wherever the kernel likes.
    None,
    /// Core i on the i-th CPU of the list, starting again at its end.
    List(Vec<usize>),
}

impl fmt::Display for PinCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinCpus::Auto => f.write_str("auto"),
            PinCpus::None => f.write_str("none"),
            PinCpus::List(cpus) => {
                let words: Vec<String> = cpus.iter().map(usize::to_string).collect();
                f.write_str(&words.join(","))
            }
        }
    }
}
