//! What this host says of names: /etc/resolv.conf and /etc/hosts, read when they change. Reading files blocks, so it is
//! done before a core serves, and later on another thread.

use crate::limits::DIAL_ADDRESSES_MAX;
use crate::limits::HOSTS_FILE_BYTES_MAX;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the name servers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where names are pinned.
const HOSTS: &str = "/etc/hosts";

/// What changes with a file: also one that was replaced by another, or by none.
type Mark = Option<(u64, u64, i64, i64)>;

/// The files as they were when they were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks([Mark; 2]);

impl Marks {
    /// Looks at the files. Blocks.
    pub(super) fn look() -> Marks {
        Marks([RESOLV_CONF, HOSTS].map(|path| {
            let found = fs::metadata(path).ok()?;
            Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        }))
    }
}

/// The host's configuration of names.
pub(super) struct System {
    /// The name servers; none if resolv.conf names none.
    pub(super) names: Option<TokioResolver>,
    hosts: HashMap<Box<str>, Vec<IpAddr>>,
    /// The files it was read from.
    pub(super) marks: Marks,
}

/// What stands in the files, on its way from the thread that reads them to the core that uses it.
pub(super) struct Said {
    servers: Result<(ResolverConfig, ResolverOpts), String>,
    hosts: HashMap<Box<str>, Vec<IpAddr>>,
    marks: Marks,
}

impl Said {
    /// Reads the files. Blocks.
    pub(super) fn read() -> Said {
        // Looked at before reading: a change meanwhile shows as one at the next look.
        let marks = Marks::look();
        let servers = read_bounded(RESOLV_CONF)
            .map_err(|error| error.to_string())
            .and_then(|text| parse_resolv_conf(text).map_err(|error| error.to_string()));
        let hosts = read_bounded(HOSTS).unwrap_or_else(|error| {
            tracing::warn!(event = "names-trouble", error = ?error.kind(), "reading {HOSTS}: {error}; no name is pinned until it can be read");
            String::new()
        });
        Said { servers, hosts: parse_hosts(&hosts), marks }
    }
}

impl System {
    /// Puts into force what the files say. Without a usable resolv.conf, /etc/hosts and literal addresses still work.
    pub(super) fn of(said: Said) -> System {
        let names = match said.servers {
            Ok((config, options)) => build(config, options),
            Err(error) => {
                tracing::warn!(
                    event = "names-trouble",
                    "reading {RESOLV_CONF}: {error}; only {HOSTS} and addresses resolve until it is corrected"
                );
                None
            }
        };
        System { names, hosts: said.hosts, marks: said.marks }
    }

    /// The addresses that /etc/hosts gives a name. Then nobody else is asked.
    pub(super) fn pinned(&self, host: &str) -> Option<&[IpAddr]> {
        self.hosts.get(host).map(Vec::as_slice)
    }
}

fn build(config: ResolverConfig, options: ResolverOpts) -> Option<TokioResolver> {
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    // What is known is kept in `resolve`, for both families and with absences and failures.
    builder.options_mut().cache_size = 0;
    builder.options_mut().use_hosts_file = ResolveHosts::Never;
    builder.build().inspect_err(|error| tracing::error!(event = "names-trouble", "building the resolver: {error}")).ok()
}

fn read_bounded(path: impl AsRef<Path>) -> std::io::Result<String> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(HOSTS_FILE_BYTES_MAX as u64).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Lines of an address and names (hosts(5)), names in lower case. A line that is none is passed over, as everybody does.
fn parse_hosts(text: &str) -> HashMap<Box<str>, Vec<IpAddr>> {
    let mut hosts: HashMap<Box<str>, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let addresses = hosts.entry(name.into()).or_default();
            if !addresses.contains(&address) && addresses.len() < DIAL_ADDRESSES_MAX {
                addresses.push(address);
            }
        }
    }
    hosts
}

#[cfg(test)]
impl System {
    /// One name server, at this port of loopback.
    pub(super) fn asking(port: u16) -> System {
        use hickory_resolver::config::NameServerConfig;
        let (_, options) = parse_resolv_conf("nameserver 127.0.0.1\n").unwrap();
        let mut server = NameServerConfig::udp_and_tcp([127, 0, 0, 1].into());
        server.connections.iter_mut().for_each(|connection| connection.port = port);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        System { names: build(config, options), hosts: HashMap::new(), marks: Marks::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_everybody_reads_them() {
        let text = "127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # both\n\n#10.0.0.1 gone\n \
                    nonsense here\n192.0.2.1 A.Test. b.test\n192.0.2.1 a.test\nfe80::1%eth0 scoped\n";
        let hosts = parse_hosts(text);
        let of =
            |name: &str| hosts.get(name).map(|all| all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "));
        assert_eq!(of("localhost").as_deref(), Some("127.0.0.1 ::1"));
        assert_eq!(of("ip6-localhost").as_deref(), Some("::1"));
        assert_eq!(of("a.test").as_deref(), Some("192.0.2.1"));
        assert_eq!(of("b.test").as_deref(), Some("192.0.2.1"));
        for absent in ["gone", "here", "scoped", "nonsense"] {
            assert_eq!(of(absent), None, "{absent}");
        }
    }
}
