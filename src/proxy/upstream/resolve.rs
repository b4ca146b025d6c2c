//! Names to addresses: /etc/hosts, then the name servers of resolv.conf, both families, cached as long as their TTLs say.

use super::OpenError;
use crate::limits::DIAL_ADDRESSES_MAX;
use crate::limits::RESOLVER_CACHE_ANSWERS;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use std::net::IpAddr;
use std::time::Duration;

/// A core's resolver.
pub(super) struct Resolver {
    names: Option<TokioResolver>,
    within: Duration,
}

impl Resolver {
    /// Reads the host's configuration. Without a usable resolv.conf, /etc/hosts and literal addresses still work.
    pub(super) fn from_system(within_ms: u64) -> Resolver {
        let (config, options) = read_system_conf().unwrap_or_else(|error| {
            tracing::warn!(
                "reading /etc/resolv.conf: {error}; only /etc/hosts and addresses will resolve until a restart"
            );
            (ResolverConfig::default(), ResolverOpts::default())
        });
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        builder.options_mut().cache_size = RESOLVER_CACHE_ANSWERS;
        let names = builder.build().inspect_err(|error| tracing::error!("building the resolver: {error}"));
        Resolver { names: names.ok(), within: Duration::from_millis(within_ms) }
    }

    /// The addresses of `host` in the order to try them: families alternate, beginning with the resolver's first.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, OpenError> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        let names = self.names.as_ref().ok_or_else(|| OpenError::Resolve("this node has no resolver".to_string()))?;
        let found = tokio::time::timeout(self.within, names.lookup_ip(absolute(host))).await;
        match found {
            Err(_) => Err(OpenError::ResolveTimeout),
            Ok(Ok(found)) => Ok(alternate(found.iter())),
            Ok(Err(error)) if error.is_no_records_found() => Err(OpenError::NoSuchHost),
            Ok(Err(hickory_resolver::net::NetError::Timeout)) => Err(OpenError::ResolveTimeout),
            Ok(Err(error)) => Err(OpenError::Resolve(error.to_string())),
        }
    }
}

/// A name with a dot is whole: the search list is for the host's own short names, not for a client's typing errors.
fn absolute(host: &str) -> String {
    if host.contains('.') { format!("{host}.") } else { host.to_string() }
}

fn alternate(found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = found.partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [v6.next(), v4.next()];
        if pair == [None, None] || ordered.len() >= DIAL_ADDRESSES_MAX {
            ordered.truncate(DIAL_ADDRESSES_MAX);
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_the_list_is_bounded() {
        let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
        let found = ips(&["::1", "::2", "::3", "1.1.1.1"]);
        assert_eq!(alternate(found.into_iter()), ips(&["::1", "1.1.1.1", "::2", "::3"]));
        let many = (0..100u8).map(|n| IpAddr::from([10, 0, 0, n]));
        assert_eq!(alternate(many).len(), DIAL_ADDRESSES_MAX);
    }

    #[test]
    fn hosts_and_literals_resolve() {
        crate::io::run(64, async {
            let resolver = Resolver::from_system(3_000);
            assert!(resolver.addresses("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
            assert_eq!(resolver.addresses("::1").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        })
        .unwrap();
    }
}
