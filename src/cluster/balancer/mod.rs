//! The slaves as balancers and browsers are to know them, and the balancer configurations made from that. Words only: rows
//! in, text out.

pub mod haproxy;
pub mod keepalived;
pub mod nginx;

use crate::cluster::NodeRow;
use crate::cluster::protocol::Proxy;
use crate::limits::CLUSTER_PROXIES_MAX;
use std::net::IpAddr;
use std::net::SocketAddr;

/// The nodes that may stand behind a balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// The master's name.
    pub master: String,
    /// The slaves, by name.
    pub slaves: Vec<Backend>,
    /// Who cannot be listed at all, and why.
    pub left_out: Vec<(String, String)>,
}

/// A slave behind a balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// NODE_NAME.
    pub name: String,
    /// Where it takes clients.
    pub proxy: SocketAddr,
    /// Where its `/health` is asked.
    pub health: SocketAddr,
    /// Its share of the clients.
    pub weight: u16,
    /// Whether it takes a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Whether it serves clients without one, so that browsers may use it without a balancer.
    pub direct: bool,
    /// Whether it is being taken out of service. Health checks see it by themselves.
    pub draining: bool,
    /// Why it should get no client now; empty if it may.
    pub away: String,
}

impl Backends {
    /// How many may get clients now.
    pub fn live(&self) -> usize {
        self.slaves.iter().filter(|slave| slave.away.is_empty()).count()
    }
}

/// Sorts the rows of a master. Its own is never among the slaves.
pub fn backends(rows: &[NodeRow]) -> Backends {
    let mut found = Backends::default();
    for row in rows {
        if row.role != "slave" {
            found.master.clone_from(&row.name);
            continue;
        }
        match backend(row) {
            Ok(slave) => found.slaves.push(slave),
            Err(why) => {
                let name = if row.name.is_empty() { "a node without name" } else { &row.name };
                found.left_out.push((format!("{name} at {}", row.address), why));
            }
        }
    }
    found.slaves.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// The slaves that take clients without a balancer now, as browsers are told of them.
pub fn proxies(backends: &Backends) -> Vec<Proxy> {
    let fit = |slave: &&Backend| slave.away.is_empty() && !slave.draining && slave.direct;
    let live = backends.slaves.iter().filter(fit);
    live.map(|slave| Proxy { address: slave.proxy, weight: slave.weight }).take(CLUSTER_PROXIES_MAX).collect()
}

fn backend(row: &NodeRow) -> Result<Backend, String> {
    if !row.refusal.is_empty() {
        return Err(row.refusal.clone());
    }
    let seen: IpAddr = row.address.parse().map_err(|_| "its address is not known".to_string())?;
    let listen = row.offer.listen.first().map(String::as_str).unwrap_or_default();
    let away = match row.up {
        true => String::new(),
        false => format!("away: the master has not heard of it since {}", when(row.last_contact_us)),
    };
    Ok(Backend {
        name: row.name.clone(),
        proxy: reach(listen, seen, "LISTEN_IP")?,
        health: reach(&row.offer.portal, seen, "PORTAL_IP")?,
        weight: row.offer.weight.clamp(1, 256),
        proxy_protocol: matches!(row.offer.proxy_protocol.as_str(), "optional" | "required"),
        direct: row.offer.proxy_protocol != "required",
        draining: row.offer.draining,
        away,
    })
}

/// Where a listener is reached by others: one on every address, at the address the node connects to its master from.
fn reach(listener: &str, seen: IpAddr, key: &str) -> Result<SocketAddr, String> {
    let listener: SocketAddr = listener.parse().map_err(|_| format!("its {key} is not known"))?;
    match listener.ip().to_canonical() {
        ip if ip.is_unspecified() => Ok(SocketAddr::new(seen, listener.port())),
        ip if ip.is_loopback() && !seen.is_loopback() => {
            Err(format!("its {key} is {ip}, which only the node itself reaches: set another {key} there"))
        }
        ip => Ok(SocketAddr::new(ip, listener.port())),
    }
}

fn when(us: i64) -> String {
    // To the second, and the same in each call: a file must not change because it was made again.
    let time = jiff::Timestamp::from_microsecond(us).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A comment of one line, whatever the words hold.
fn comment(out: &mut String, indent: &str, words: &str) {
    let tame: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    out.push_str(indent);
    out.push_str("# ");
    out.push_str(&tame);
    out.push('\n');
}

/// What stands above every generated configuration.
fn title(out: &mut String, backends: &Backends, program: &str) {
    comment(
        out,
        "",
        &format!("Made by `tidegate lb {program}` for the slaves of {}. Changes made here are lost.", backends.master),
    );
    for (name, why) in &backends.left_out {
        comment(out, "", &format!("left out: {name}: {why}"));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cluster::Counters;
    use crate::cluster::Offer;

    pub(crate) fn row(name: &str, role: &str, address: &str, listen: &str) -> NodeRow {
        NodeRow {
            name: name.into(),
            role: role.into(),
            address: address.into(),
            fingerprint: String::new(),
            former_key_until_us: 0,
            version: "1".into(),
            snapshot: "1-a".into(),
            current: true,
            last_contact_us: 1_800_000_000_000_000,
            up: true,
            record_lag: 0,
            records: Default::default(),
            clock_skew_ms: 0,
            refusal: String::new(),
            error: String::new(),
            counters: Counters::default(),
            figures: Default::default(),
            drift: String::new(),
            labels: Vec::new(),
            offer: Offer {
                listen: vec![listen.into()],
                portal: "[::]:8888".into(),
                proxy_protocol: "required".into(),
                weight: 4,
                draining: false,
                closing: false,
            },
        }
    }

    /// A master, three slaves of which one is away and one is draining, and two that cannot be listed.
    pub(crate) fn cluster() -> Vec<NodeRow> {
        let mut away = row("s2", "slave", "2001:db8::2", "[::]:8080");
        away.up = false;
        let mut draining = row("s3", "slave", "192.0.2.3", "0.0.0.0:3128");
        (draining.offer.draining, draining.offer.proxy_protocol) = (true, "off".into());
        let mut refused = row("s4", "slave", "192.0.2.4", "");
        refused.refusal = "VersionMismatch: other\nversions".into();
        let local = row("s5", "slave", "192.0.2.5", "127.0.0.1:8080");
        let master = row("m", "master", "0.0.0.0:8888", "0.0.0.0:8080");
        vec![master, draining, row("s1", "slave", "192.0.2.1", "10.0.0.1:8080"), away, refused, local]
    }

    #[test]
    fn slaves_are_listed_by_where_others_reach_them_and_the_master_never() {
        let backends = backends(&cluster());
        assert_eq!((backends.master.as_str(), backends.live()), ("m", 2));
        let seen: Vec<_> = backends
            .slaves
            .iter()
            .map(|s| format!("{} {} {} {} {}", s.name, s.proxy, s.health, s.weight, s.proxy_protocol))
            .collect();
        assert_eq!(
            seen,
            [
                "s1 10.0.0.1:8080 192.0.2.1:8888 4 true",
                "s2 [2001:db8::2]:8080 [2001:db8::2]:8888 4 true",
                "s3 192.0.2.3:3128 192.0.2.3:8888 4 false",
            ]
        );
        assert_eq!(backends.slaves[1].away, "away: the master has not heard of it since 2027-01-15T08:00:00Z");
        assert_eq!(backends.left_out.len(), 2);
        assert!(backends.left_out[1].1.contains("set another LISTEN_IP"), "{:?}", backends.left_out);
        assert_eq!(proxies(&backends), [], "s1 takes clients from balancers only");
        let mut rows = cluster();
        rows.iter_mut().for_each(|row| row.offer.proxy_protocol = "optional".into());
        let backends = super::backends(&rows);
        let proxies: Vec<_> = proxies(&backends).iter().map(|proxy| proxy.address.to_string()).collect();
        assert_eq!(proxies, ["10.0.0.1:8080"], "neither who is away nor who is draining");
    }
}
