//! From what the file says to what it means on this host: types, defaults, and the checks that concern two keys.

use crate::base::networks::Networks;
use crate::limits::LABEL_BYTES_MAX;
use crate::limits::LABELS_MAX;
use crate::limits::RECORD_SLOTS_MAX;
use crate::limits::RECORD_SLOTS_MIN;
use crate::settings::Fault;
use crate::settings::Key;
use crate::settings::Listen;
use crate::settings::LogFull;
use crate::settings::LogLevel;
use crate::settings::PinCpus;
use crate::settings::ProxyProtocol;
use crate::settings::Role;
use crate::settings::Said;
use crate::settings::Settings;
use crate::settings::Times;
use crate::settings::key;
use crate::settings::said::quote;
use crate::settings::scope;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const NO_MASTER: &str = "nothing, because this node takes no policy from a master: its own policy says it all";

/// What `said` means on the host of this name, or everything that is wrong with it.
pub fn resolve(said: &Said, host_name: &str) -> Result<Settings, Vec<Fault>> {
    let mut reader = Reader { said, faults: Vec::new() };
    let role_said = reader.read("ROLE", role);
    let node_name = reader.read("NODE_NAME", node_name);
    let hostname = reader.read("HOSTNAME", dns_name);
    let listen_ip = reader.read("LISTEN_IP", Listen::parse);
    let listen_port = reader.read("LISTEN_PORT", |text| number(text, 0, 65_535));
    let proxy_protocol = reader.read("PROXY_PROTOCOL", proxy_protocol);
    let trusted_proxies = reader.read("TRUSTED_PROXIES", Networks::parse);
    let lb_weight = reader.read("LB_WEIGHT", lb_weight);
    let node_labels = reader.read("NODE_LABELS", node_labels);
    let portal_ip = reader.read("PORTAL_IP", Listen::parse);
    let portal_port = reader.read("PORTAL_PORT", |text| number(text, 0, 65_535));
    let metrics_allow = reader.read("METRICS_ALLOW", Networks::parse);
    let master_ip = reader.read("MASTER_IP", master_ip);
    let master_port = reader.read("MASTER_PORT", |text| number(text, 1, 65_535));
    let sync_time = reader.read("SYNCTIME", |text| number(text, 1, 3_600));
    let never_sync = reader.read("NEVER_SYNC", |text| Some(text.to_string()));
    let always_sync = reader.read("ALWAYS_SYNC", |text| Some(text.to_string()));
    let always_sync = always_sync.and_then(|text| reader.sections("ALWAYS_SYNC", scope::sections(&text)));
    let never_sync = never_sync.zip(always_sync.as_ref());
    let never_sync =
        never_sync.and_then(|(text, always)| reader.sections("NEVER_SYNC", scope::local_sections(&text, always)));
    let own_sections_file = reader.read("OWN_SECTIONS_FILE", absolute);
    let log_size_limit = reader.read("LOG_SIZE_LIMIT", size);
    let log_sync = reader.read("LOG_SYNC", |text| number(text, 0, 1_000));
    let (least, most) = (u64::from(RECORD_SLOTS_MIN), u64::from(RECORD_SLOTS_MAX));
    let record_slots = reader.read("RECORD_SLOTS", |text| number(text, least, most));
    let log_full = reader.read("LOG_FULL", log_full);
    let keep_data = reader.read("KEEP_DATA", |text| number(text, 1, 3_650));
    let log_level = reader.read("LOG_LEVEL", log_level);
    let cores = reader.read("CORES", cores);
    let pin_cpus = reader.read("PIN_CPUS", pin_cpus);
    let max_fds = reader.read("MAX_FDS", |text| number(text, 256, 4_194_304));
    let max_connections = reader.read("MAX_CONNECTIONS", |text| number(text, 16, 4_194_304));
    let per_client = reader.read("MAX_CONNECTIONS_PER_CLIENT", |text| number(text, 0, 1_048_576));
    let times = times(&mut reader);
    let activation_key_file = reader.read("ACTIVATION_KEY_FILE", absolute);
    let credentials_dir = reader.read("CREDENTIALS_DIR", absolute);
    let state_dir = reader.read("STATE_DIR", absolute);
    let log_dir = reader.read("LOG_DIR", absolute);
    let run_dir = reader.read("RUN_DIR", absolute);
    let lists_dir = reader.read("LISTS_DIR", absolute);
    let control_group = reader.read("CONTROL_GROUP", group_name);

    if let (Some(role), Some(master)) = (role_said, master_ip) {
        reader.check_role(role, master);
    }
    if let (Some(role), Some(master)) = (role_said, master_ip) {
        let is_slave = role.map_or(master.is_some(), |role| role == Role::Slave);
        let said = [
            ("NEVER_SYNC", never_sync.as_ref().is_some_and(|sections| !sections.is_empty())),
            ("ALWAYS_SYNC", always_sync.as_ref().is_some_and(|sections| !sections.is_empty())),
        ];
        said.iter().filter(|(_, said)| *said && !is_slave).for_each(|(key, _)| reader.blame(key, NO_MASTER));
    }
    if let (Some(a), Some(b), Some(ip_a), Some(ip_b)) = (listen_port, portal_port, listen_ip, portal_ip) {
        reader.check_ports(a, b, ip_a, ip_b);
    }
    if let (Some(Some(master)), Some(port), Some(ip), Some(own)) = (master_ip, master_port, portal_ip, portal_port) {
        reader.check_own_master(master, port, ip, own);
    }
    if let (Some(mode), Some(trusted)) = (proxy_protocol, &trusted_proxies) {
        reader.check_proxy_protocol(mode, trusted);
    }
    let node_name = node_name.map(|name| if name.is_empty() { usable_host_name(host_name) } else { name });
    // Every `None` left a fault behind, so the `?`s below can only be reached with faults to tell.
    let build = || {
        let master = master_ip?;
        let role = role_said?.unwrap_or(if master.is_some() { Role::Slave } else { Role::Standalone });
        let node_name = node_name?;
        let hostname = hostname?;
        Some(Settings {
            role,
            hostname: if hostname.is_empty() { node_name.clone() } else { hostname },
            node_name,
            listen_ip: listen_ip?,
            listen_port: listen_port? as u16,
            proxy_protocol: proxy_protocol?,
            trusted_proxies: trusted_proxies?,
            lb_weight: lb_weight?,
            node_labels: node_labels?,
            portal_ip: portal_ip?,
            portal_port: portal_port? as u16,
            metrics_allow: metrics_allow?,
            master: master.map(|ip| SocketAddr::new(ip, master_port.unwrap_or_default() as u16)),
            sync_time: Duration::from_secs(sync_time?),
            never_sync: never_sync?,
            always_sync: always_sync?,
            own_sections_file: own_sections_file?,
            log_size_limit: log_size_limit?,
            log_sync_ms: log_sync?,
            record_slots: record_slots? as u32,
            log_full: log_full?,
            keep_data_days: keep_data? as u32,
            log_level: log_level?,
            cores: cores?,
            pin_cpus: pin_cpus?,
            max_fds: max_fds?,
            max_connections: max_connections?,
            max_connections_per_client: per_client? as u32,
            times: times?,
            activation_key_file: activation_key_file?,
            credentials_dir: credentials_dir?,
            state_dir: state_dir?,
            log_dir: log_dir?,
            run_dir: run_dir?,
            lists_dir: lists_dir?,
            control_group: control_group?,
        })
    };
    match build() {
        Some(settings) if reader.faults.is_empty() => Ok(settings),
        _ => Err(reader.faults),
    }
}

struct Reader<'a> {
    said: &'a Said,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn read<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        // A name not in the table is caught by the first test that resolves anything.
        let key = key(name)?;
        let text = self.said.value(key);
        let value = parse(text);
        if value.is_none() {
            self.fault(key, quote(text), key.accepts.to_string());
        }
        value
    }

    fn fault(&mut self, key: &Key, read: String, accepts: String) {
        self.faults.push(Fault::new(self.said.line(key), key.name, read, accepts));
    }

    fn blame(&mut self, name: &str, accepts: &str) {
        if let Some(key) = key(name) {
            self.fault(key, quote(self.said.value(key)), accepts.to_string());
        }
    }

    fn check_role(&mut self, role: Option<Role>, master: Option<IpAddr>) {
        match (role, master) {
            (Some(Role::Slave), None) => self.blame("MASTER_IP", "the master's IP address, because ROLE is slave"),
            (Some(Role::Master), Some(_)) => {
                self.blame("MASTER_IP", "nothing, because ROLE is master; or ROLE=\"slave\"")
            }
            (Some(Role::Standalone), Some(_)) => {
                self.blame("MASTER_IP", "nothing, because ROLE is standalone; or ROLE=\"slave\"")
            }
            _ => {}
        }
    }

    fn sections<T>(&mut self, key: &'static str, read: Result<Vec<T>, String>) -> Option<Vec<T>> {
        read.map_err(|accepts| self.blame(key, &accepts)).ok()
    }

    fn check_ports(&mut self, proxy: u64, portal: u64, proxy_ip: Listen, portal_ip: Listen) {
        if proxy == portal && proxy != 0 && proxy_ip.overlaps(portal_ip) {
            self.blame("PORTAL_PORT", &format!("another port than LISTEN_PORT, which is {proxy} on the same address"));
        }
    }

    fn check_proxy_protocol(&mut self, mode: ProxyProtocol, trusted: &Networks) {
        if mode != ProxyProtocol::Off && trusted.is_empty() {
            let accepts =
                format!("the balancers' addresses, because PROXY_PROTOCOL is {mode} and only they may use it");
            self.blame("TRUSTED_PROXIES", &accepts);
        }
    }

    fn check_own_master(&mut self, master: IpAddr, master_port: u64, portal: Listen, portal_port: u64) {
        if portal == Listen::Ip(master) && master_port == portal_port {
            self.blame("MASTER_IP", "another node's address: this is the node's own PORTAL_IP and PORTAL_PORT");
        }
    }
}

fn times(reader: &mut Reader<'_>) -> Option<Times> {
    let mut seconds = |key, least, most| reader.read(key, |text| number(text, least, most));
    // All are read before one that is wrong ends it: every fault is told.
    let (head, idle) = (seconds("HEAD_TIME", 1, DAY_S), seconds("IDLE_TIME", 1, DAY_S));
    let (body, connect) = (seconds("BODY_TIME", 1, DAY_S), seconds("CONNECT_TIME", 1, DAY_S));
    let (answer, tunnel) = (seconds("ANSWER_TIME", 1, DAY_S), seconds("TUNNEL_TIME", 1, DAY_S));
    let (total, drain) = (seconds("TOTAL_TIME", 1, 7 * DAY_S), seconds("DRAIN_TIME", 0, 3_600));
    let drain_notice = seconds("DRAIN_NOTICE", 0, 3_600);
    let handover = seconds("HANDOVER_TIME", 0, DAY_S);
    Some(Times {
        head: head?,
        idle: idle?,
        body: body?,
        connect: connect?,
        answer: answer?,
        tunnel: tunnel?,
        total: total?,
        drain: drain?,
        drain_notice: drain_notice?,
        handover: handover?,
    })
}

const DAY_S: u64 = 86_400;

fn proxy_protocol(text: &str) -> Option<ProxyProtocol> {
    match text {
        "off" => Some(ProxyProtocol::Off),
        "optional" => Some(ProxyProtocol::Optional),
        "required" => Some(ProxyProtocol::Required),
        _ => None,
    }
}

/// The outer `None` is a bad value, the inner one `auto`.
fn role(text: &str) -> Option<Option<Role>> {
    match text {
        "auto" => Some(None),
        "standalone" => Some(Some(Role::Standalone)),
        "master" => Some(Some(Role::Master)),
        "slave" => Some(Some(Role::Slave)),
        _ => None,
    }
}

fn word_of(text: &str, bytes_max: usize, extra: &[u8]) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || extra.contains(&byte);
    (text.len() <= bytes_max && text.bytes().all(good)).then(|| text.to_string())
}

fn node_name(text: &str) -> Option<String> {
    word_of(text, 63, b".-_")
}

fn dns_name(text: &str) -> Option<String> {
    word_of(text, 253, b".-")
}

fn group_name(text: &str) -> Option<String> {
    word_of(text, 32, b".-_")
}

/// A host name may be longer than a node name, or odd: what does not fit is left out.
fn usable_host_name(host_name: &str) -> String {
    let name: String = host_name.chars().filter(|&c| node_name(&c.to_string()).is_some()).take(63).collect();
    if name.is_empty() { "localhost".to_string() } else { name }
}

fn master_ip(text: &str) -> Option<Option<IpAddr>> {
    if text.is_empty() {
        return Some(None);
    }
    text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast()).map(Some)
}

/// Digits only: no sign, no space, nothing a reader could take for another number.
fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (least..=most).contains(number))
}

fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 1 << 10),
        b'M' | b'm' => (&text[..text.len() - 1], 1 << 20),
        b'G' | b'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let bytes = number(digits, 1, u64::MAX)?.checked_mul(unit)?;
    ((1 << 20)..=(1 << 40)).contains(&bytes).then_some(bytes)
}

fn log_full(text: &str) -> Option<LogFull> {
    match text {
        "refuse" => Some(LogFull::Refuse),
        "count" => Some(LogFull::Count),
        _ => None,
    }
}

fn log_level(text: &str) -> Option<LogLevel> {
    match text {
        "error" => Some(LogLevel::Error),
        "warn" => Some(LogLevel::Warn),
        "info" => Some(LogLevel::Info),
        "debug" => Some(LogLevel::Debug),
        "trace" => Some(LogLevel::Trace),
        _ => None,
    }
}

fn cores(text: &str) -> Option<Option<usize>> {
    if text == "auto" { Some(None) } else { number(text, 1, 256).map(|cores| Some(cores as usize)) }
}

fn lb_weight(text: &str) -> Option<Option<u16>> {
    if text == "auto" { Some(None) } else { number(text, 1, 256).map(|weight| Some(weight as u16)) }
}

fn node_labels(text: &str) -> Option<Vec<String>> {
    let labels: Vec<String> = text.split(',').map(|label| label.trim().to_string()).collect();
    match text.trim().is_empty() {
        true => Some(Vec::new()),
        false => (labels.len() <= LABELS_MAX && labels.iter().all(|label| is_label(label))).then_some(labels),
    }
}

/// Whether a text can be one of a node's labels.
pub fn is_label(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= LABEL_BYTES_MAX && text.bytes().all(good)
}

fn pin_cpus(text: &str) -> Option<PinCpus> {
    match text {
        "auto" => return Some(PinCpus::Auto),
        "none" => return Some(PinCpus::None),
        _ => {}
    }
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, 0, 1_023)?, number(last, 0, 1_023)?);
        if first > last {
            return None;
        }
        cpus.extend((first..=last).map(|cpu| cpu as usize));
    }
    // A CPU named twice would carry two cores unawares.
    let mut sorted = cpus.clone();
    sorted.sort_unstable();
    sorted.dedup();
    (sorted.len() == cpus.len()).then_some(PinCpus::List(cpus))
}

fn absolute(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    path.is_absolute().then_some(path)
}
