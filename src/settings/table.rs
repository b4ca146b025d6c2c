//! The one table of startup params.

use super::scope::Apply;
use super::scope::Scope;

/// One startup param.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// Its value when the file says nothing.
    pub default: &'static str,
    /// What values are accepted, in words.
    pub accepts: &'static str,
    /// What it is for; stands above the key in the file and beside the field in the portal.
    pub help: &'static str,
    /// When a change counts.
    pub apply: Apply,
    /// Whose it is.
    pub scope: Scope,
    /// Whether its value is a secret, which no page and no log may show. None is: secrets stand in files of their own, which params name.
    pub secret: bool,
}

impl Key {
    /// Whether a running node takes a change over at once; otherwise it waits for a restart.
    pub fn live(&self) -> bool {
        self.apply == Apply::Live
    }
}

/// The key of this name.
pub fn key(name: &str) -> Option<&'static Key> {
    TABLE.iter().find(|key| key.name == name)
}

const PORT: &str = "a port from 0 to 65535 (0 = any free port)";
const ADDRESS: &str = "* (every IPv4 and IPv6 address) or one IP address";
const DIRECTORY: &str = "an absolute path";
const NETWORKS: &str =
    "addresses and networks such as 10.0.0.0/8,2001:db8::7 with commas between them, or nothing (none)";
const SECONDS: &str = "seconds from 1 to 86400";

/// Every startup param, in the order of the file.
pub const TABLE: &[Key] = &[
    Key {
        name: "ROLE",
        default: "auto",
        accepts: "auto, standalone, master or slave",
        help: "What this node is. A slave carries traffic by its master's policy, a master holds policy and reports for its \
               slaves and carries no traffic, a stand-alone node does both for itself. auto: slave if MASTER_IP is set, \
               otherwise standalone.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "NODE_NAME",
        default: "",
        accepts: "1 to 63 letters, digits, dots, hyphens or underscores, or nothing (the host's name)",
        help: "The name of this node in reports, in extended.log and on the master's Nodes page. No two nodes of a cluster may \
               have the same. Empty: the host's name.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "HOSTNAME",
        default: "",
        accepts: "a host name of 1 to 253 letters, digits, dots or hyphens, or nothing (NODE_NAME)",
        help: "The name by which people reach this node: it stands in the portal's certificate. Nodes behind one load balancer \
               may share it. Empty: NODE_NAME.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LISTEN_IP",
        default: "*",
        accepts: ADDRESS,
        help: "The address on which clients reach the proxy. *: every IPv4 and IPv6 address. 0.0.0.0: every IPv4 address.",
        apply: Apply::Rebind,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LISTEN_PORT",
        default: "8080",
        accepts: PORT,
        help: "The port of the proxy.",
        apply: Apply::Rebind,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "PROXY_PROTOCOL",
        default: "off",
        accepts: "off, optional or required",
        help: "Whether clients come through a balancer that says their addresses in a PROXY protocol header (version 1 or 2). \
               Only peers in TRUSTED_PROXIES may say so. off: such a header is an error. optional: a trusted peer may send one. \
               required: every connection must begin with one, and peers that are not trusted are closed at once.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "TRUSTED_PROXIES",
        default: "",
        accepts: NETWORKS,
        help: "The balancers and proxies in front of this node whose word about a client's address counts: in PROXY protocol \
               headers (PROXY_PROTOCOL) and, if the policy's [client_address] believes them, in X-Forwarded-For or Forwarded. \
               MAX_CONNECTIONS_PER_CLIENT does not count them.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LB_WEIGHT",
        default: "auto",
        accepts: "auto or a number from 1 to 256",
        help: "How large this node's share of the clients is, beside the other nodes' numbers, in the balancer configurations that \
               tidegate lb makes and in /proxy.pac. auto: the number of its data cores.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "NODE_LABELS",
        default: "",
        accepts: "at most 8 labels of letters, digits, dot, dash and underscore (at most 32 characters each), separated by commas",
        help: "Labels of this node, such as its site or rack. On the master, tidegate task --on label:X orders something of all slaves that \
               have the label X.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "PORTAL_IP",
        default: "*",
        accepts: ADDRESS,
        help: "The address of the Configuration Portal and, on a master, of the service its slaves connect to.",
        apply: Apply::Rebind,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "PORTAL_PORT",
        default: "8888",
        accepts: PORT,
        help: "The port of the Configuration Portal and, on a master, of the service its slaves connect to (their MASTER_PORT).",
        apply: Apply::Rebind,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "METRICS_ALLOW",
        default: "127.0.0.1,::1",
        accepts: NETWORKS,
        help: "Who may read this node's figures at /metrics on the portal's port without logging in: the addresses of your \
               Prometheus. Everybody else is answered 403. Empty: nobody.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "MASTER_IP",
        default: "",
        accepts: "the master's IP address, or nothing (this node has no master)",
        help: "On a slave: the address of its master. Empty on a master and on a stand-alone node.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "MASTER_PORT",
        default: "8888",
        accepts: "a port from 1 to 65535",
        help: "On a slave: the PORTAL_PORT of its master.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "SYNCTIME",
        default: "60",
        accepts: "seconds from 1 to 3600",
        help: "On a slave: the longest silence between it and its master, in seconds. A change of policy does not wait for it: \
               the master tells its slaves at once.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "NEVER_SYNC",
        default: "",
        accepts: "network, client_address, pac with commas between them; or all, or nothing",
        help: "On a slave: sections of the policy that it does not take from its master. OWN_SECTIONS_FILE says them instead, \
               whole: what it leaves out is as if a policy left it out. All other sections are always taken; all is every \
               section that may be named, but for those in ALWAYS_SYNC. The master's Nodes page shows the difference.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "ALWAYS_SYNC",
        default: "",
        accepts: "sections of the policy with commas between them, or nothing",
        help: "On a slave: sections of the policy that it takes from its master whatever NEVER_SYNC says: the exceptions of \
               NEVER_SYNC=\"all\", also when a later version lets nodes have more sections of their own. A section that \
               stands in both by its name is a fault, and the node does not start.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "OWN_SECTIONS_FILE",
        default: "/etc/tidegate/own-sections.toml",
        accepts: "an absolute path",
        help: "On a slave with NEVER_SYNC: the file with its own sections, written as in a policy document. It is read at the \
               start; with NEVER_SYNC empty it is not looked at.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LOG_SIZE_LIMIT",
        default: "1G",
        accepts: "bytes, with K, M or G if wanted, from 1M to 1024G",
        help: "extended.log is put aside under a dated name and begun anew when it reaches this size.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LOG_SYNC",
        default: "200",
        accepts: "milliseconds from 0 to 1000",
        help: "How often extended.log is synced to the disk while there is news: what a power failure may cost. A crash of the process costs nothing. \
               0: after every write, before the records count as durable; for disks that sync fast.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "RECORD_SLOTS",
        default: "16384",
        accepts: "a number from 256 to 1048576",
        help: "How many exchanges a data core holds at once, beside a sixteenth of that for those with long texts. Who asks beyond is told \
               503, and those that are there go on. A slot takes 3 KiB of STATE_DIR's disk.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LOG_FULL",
        default: "refuse",
        accepts: "refuse or count",
        help: "What becomes of exchanges that the log has no room for, because its disk is full. refuse: they get 503; nothing is \
               carried that is not recorded. count: they go on without a record; how many they were, and between which times, \
               is recorded once the disk takes lines again.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "KEEP_DATA",
        default: "30",
        accepts: "days from 1 to 3650",
        help: "How many days log files that were put aside, and records in the report store, are kept. Log files that are stored \
               in the report go earlier when the disk of LOG_DIR is nearly full, oldest first; what is not stored there never goes.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LOG_LEVEL",
        default: "info",
        accepts: "error, warn, info, debug or trace",
        help: "How much the daemon says about itself in the journal.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "CORES",
        default: "auto",
        accepts: "auto or a number from 1 to 256",
        help: "How many data cores (threads that carry traffic) there are. auto: one for each CPU the daemon may use.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "PIN_CPUS",
        default: "auto",
        accepts: "auto, none or CPU numbers from 0 to 1023 such as 0,2-5",
        help: "On which CPUs the data cores run. auto: each on a CPU of its own if there are enough. none: wherever the kernel \
               likes. A list: the first core on the first CPU named, and so on.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "MAX_FDS",
        default: "65536",
        accepts: "a number from 256 to 4194304",
        help: "How many files and connections the daemon may have open; a proxied connection needs up to six.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "MAX_CONNECTIONS",
        default: "65536",
        accepts: "a number from 16 to 4194304",
        help: "How many client connections the node serves at once. Who comes beyond is told 503 and closed; those that are \
               there go on.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "MAX_CONNECTIONS_PER_CLIENT",
        default: "4096",
        accepts: "a number from 0 to 1048576 (0 = no limit of its own)",
        help: "How many connections one client address (of IPv6: one /64 network) may have at once. Who comes beyond is told \
               503 and closed.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "HEAD_TIME",
        default: "10",
        accepts: SECONDS,
        help: "How long a client may take for the whole head of a request: from its first byte, or from the connection for its \
               first request. Then it is answered 408.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "IDLE_TIME",
        default: "60",
        accepts: SECONDS,
        help: "How long a client's connection may wait for its next request before it is closed.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "BODY_TIME",
        default: "60",
        accepts: SECONDS,
        help: "How long a body may stand still, either way: a client that sends nothing more of its request or takes nothing \
               more of its answer, an origin that sends nothing more.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "CONNECT_TIME",
        default: "5",
        accepts: SECONDS,
        help: "How long one address of an origin may take to accept a connection.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "ANSWER_TIME",
        default: "120",
        accepts: SECONDS,
        help: "How long an origin may take to begin its answer once it has the request. Then the client is answered 504.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "TUNNEL_TIME",
        default: "600",
        accepts: SECONDS,
        help: "How long nothing may move in a tunnel before it is closed.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "TOTAL_TIME",
        default: "86400",
        accepts: "seconds from 1 to 604800",
        help: "How long one exchange, or one tunnel, may last altogether, however busy it is.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "DRAIN_TIME",
        default: "10",
        accepts: "seconds from 0 to 3600",
        help: "How long what is under way may go on when the node is told to stop or to restart, before it is cut. Idle \
               connections are closed at once.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "DRAIN_NOTICE",
        default: "5",
        accepts: "seconds from 0 to 3600",
        help: "How long a node that is drained, or told to stop while a balancer asks its /health, goes on as before: the \
               balancer's checks need that long to notice. After that every answer asks its client to come back over another \
               connection.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "HANDOVER_TIME",
        default: "3600",
        accepts: "seconds from 0 to 86400",
        help: "How long what is under way (a long download, a tunnel) may go on in the former process after a restart or an upgrade \
               that put a new one beside it, before it is cut. Only under systemd; elsewhere DRAIN_TIME counts for restarts too.",
        apply: Apply::Live,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "ACTIVATION_KEY_FILE",
        default: "/etc/tidegate/activation.key",
        accepts: DIRECTORY,
        help: "The file with the cluster's activation key, the same on every node (tidegate activation-key new). A stand-alone \
               node needs none.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "CREDENTIALS_DIR",
        default: "/etc/tidegate/credentials",
        accepts: DIRECTORY,
        help: "Where a policy's parent proxies find this node's credentials: a file of mode 0600 for each name, one line \
               user:password. Each node has its own; they are never synced.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "STATE_DIR",
        default: "/var/lib/tidegate",
        accepts: DIRECTORY,
        help: "What the node must not lose: policy history, held snapshots, records not yet delivered, the report store.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LOG_DIR",
        default: "/var/log/tidegate",
        accepts: DIRECTORY,
        help: "Where extended.log, config.log and performance.log stand.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "RUN_DIR",
        default: "/run/tidegate",
        accepts: DIRECTORY,
        help: "Where the control socket of the running daemon stands.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "LISTS_DIR",
        default: "/etc/tidegate/lists",
        accepts: DIRECTORY,
        help: "Where the node that compiles the policy looks for the list files a policy document names.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
    Key {
        name: "CONTROL_GROUP",
        default: "tidegate",
        accepts: "a group name of 1 to 32 letters, digits, dots, hyphens or underscores, or nothing (no group)",
        help: "The group whose members may use the tidegate command against the running daemon. root and the daemon's own user \
               always may. Empty: nobody else.",
        apply: Apply::Restart,
        scope: Scope::Node,
        secret: false,
    },
];
