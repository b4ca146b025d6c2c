//! A whole cluster in one folder: where each node of a demo (or of a test) keeps its things, and the files it starts from.

use crate::base::durable;
use crate::limits::DEMO_PORT_MIN;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// The folder and addresses of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLayout {
    /// NODE_NAME, also the folder's name.
    pub name: String,
    /// Its folder; everything it writes is below.
    pub dir: PathBuf,
    /// Its startup.ini.
    pub config: PathBuf,
    /// Its control socket.
    pub control: PathBuf,
    /// Its extended.log.
    pub log: PathBuf,
    /// Where it takes proxy requests (the master: to refuse them).
    pub proxy: SocketAddr,
    /// Where its portal is; on the master, the cluster too.
    pub portal: SocketAddr,
}

/// A cluster on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterLayout {
    /// The folder of it all.
    pub dir: PathBuf,
    /// The master.
    pub master: NodeLayout,
    /// The slaves.
    pub slaves: Vec<NodeLayout>,
    /// The cluster's activation key file.
    pub key: PathBuf,
}

impl ClusterLayout {
    /// Makes the folders and writes an activation key and a startup.ini for a master and `slaves` slaves below `dir`, on
    /// ports that are free now. `extra` are startup params for every node. A folder that holds a cluster already keeps its
    /// key and its state; the startup.ini files are written anew.
    pub fn make(dir: &Path, slaves: usize, key_text: &str, extra: &BTreeMap<&str, String>) -> io::Result<Self> {
        private_dir(dir)?;
        let key = dir.join("activation.key");
        if !key.exists() {
            durable::replace(&key, format!("{key_text}\n").as_bytes(), 0o600)?;
        }
        let ports = free_ports(2 + 2 * slaves)?;
        let node = |name: &str, at: usize| NodeLayout::at(dir, name, ports[at], ports[at + 1]);
        let master = node("master", 0);
        let slaves: Vec<_> = (1..=slaves).map(|number| node(&format!("slave-{number}"), 2 * number)).collect();
        let layout = ClusterLayout { dir: dir.to_path_buf(), master, slaves, key };
        layout.master.write(&layout.key, &[("ROLE", "master".to_string())], extra)?;
        let of_master = [
            ("ROLE", "slave".to_string()),
            ("MASTER_IP", layout.master.portal.ip().to_string()),
            ("MASTER_PORT", layout.master.portal.port().to_string()),
        ];
        for slave in &layout.slaves {
            slave.write(&layout.key, &of_master, extra)?;
        }
        Ok(layout)
    }
}

impl NodeLayout {
    /// A node's places below `dir`.
    pub fn at(dir: &Path, name: &str, proxy: SocketAddr, portal: SocketAddr) -> Self {
        let dir = dir.join(name);
        NodeLayout {
            name: name.to_string(),
            config: dir.join("startup.ini"),
            control: dir.join("run/control.sock"),
            log: dir.join("log/extended.log"),
            dir,
            proxy,
            portal,
        }
    }

    /// Writes the node's startup.ini: its places and addresses, then `role`, then `extra` (which wins).
    pub fn write(&self, key: &Path, role: &[(&str, String)], extra: &BTreeMap<&str, String>) -> io::Result<()> {
        for dir in [self.dir.clone(), self.dir.join("state"), self.dir.join("log"), self.dir.join("run")] {
            private_dir(&dir)?;
        }
        let path = |name: &str| self.dir.join(name).display().to_string();
        let mut params = BTreeMap::from([
            ("NODE_NAME", self.name.clone()),
            ("LISTEN_IP", self.proxy.ip().to_string()),
            ("LISTEN_PORT", self.proxy.port().to_string()),
            ("PORTAL_IP", self.portal.ip().to_string()),
            ("PORTAL_PORT", self.portal.port().to_string()),
            ("ACTIVATION_KEY_FILE", key.display().to_string()),
            ("CREDENTIALS_DIR", path("credentials")),
            ("STATE_DIR", path("state")),
            ("LOG_DIR", path("log")),
            ("RUN_DIR", path("run")),
            ("LISTS_DIR", path("lists")),
            ("CORES", "1".to_string()),
        ]);
        params.extend(role.iter().cloned());
        params.extend(extra.iter().map(|(key, value)| (*key, value.clone())));
        let text: String = params.iter().map(|(key, value)| format!("{key}=\"{value}\"\n")).collect();
        durable::replace(&self.config, text.as_bytes(), 0o600)
    }
}

fn private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// `count` loopback ports nobody uses now. They are held together until all are known, so that none is given twice; and they
/// lie below those that the kernel gives to outgoing connections, one of which could otherwise take a port before its node does.
pub fn free_ports(count: usize) -> io::Result<Vec<SocketAddr>> {
    let outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing_min = outgoing.split_whitespace().next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(0);
    let span = outgoing_min.saturating_sub(DEMO_PORT_MIN);
    let mut held = Vec::new();
    for _ in 0..span {
        if held.len() == count {
            break;
        }
        // One after the other within a process, and apart between processes.
        let next = NEXT_PORT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(PORT_STRIDE));
        match TcpListener::bind((Ipv4Addr::LOCALHOST, DEMO_PORT_MIN + (next % u32::from(span)) as u16)) {
            Ok(listener) => held.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    // A host whose outgoing connections may have nearly all ports.
    while held.len() < count {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    held.iter().map(TcpListener::local_addr).collect()
}

static NEXT_PORT: AtomicU32 = AtomicU32::new(0);
/// So far apart do two processes that follow each other begin to look.
const PORT_STRIDE: u32 = 97;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_of_a_layout_has_addresses_and_folders_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let layout = ClusterLayout::make(dir.path(), 2, "key", &BTreeMap::new()).unwrap();
        let nodes: Vec<_> = std::iter::once(&layout.master).chain(&layout.slaves).collect();
        let mut ports: Vec<_> = nodes.iter().flat_map(|node| [node.proxy.port(), node.portal.port()]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
        let outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let outgoing_min: u16 = outgoing.split_whitespace().next().unwrap().parse().unwrap();
        assert!(ports[5] < outgoing_min || outgoing_min < DEMO_PORT_MIN + 100, "{ports:?}");
        let slave = fs::read_to_string(&layout.slaves[1].config).unwrap();
        assert!(slave.contains("NODE_NAME=\"slave-2\"\n"), "{slave}");
        assert!(slave.contains(&format!("MASTER_PORT=\"{}\"\n", layout.master.portal.port())), "{slave}");
    }
}
