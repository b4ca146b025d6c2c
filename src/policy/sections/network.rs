//! Network: what may be reached at all, whoever asks. Addresses that are dangerous to reach through a proxy (loopback,
//! link-local, the node's own; private networks if asked for) are refused by the proxy unless they are named here.

use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Said;
use crate::policy::compile::reader::Table;
use crate::policy::facts::Facts;
use crate::policy::snapshot::body::ArchivedNetwork;
use crate::policy::snapshot::body::Destination;
use crate::policy::snapshot::body::PortRange;
use std::net::IpAddr;

/// Reads `[network]`.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    builder.body.network.connect_ports = vec![PortRange { first: 443, last: 443 }];
    let Some(mut table) = root.table("network", out) else {
        return;
    };
    let network = &mut builder.body.network;
    for said in table.texts("allow_destinations", 128, out).unwrap_or_default() {
        destination(&said, &mut network.allow_destinations, out);
    }
    network.refuse_private = table.boolean("refuse_private", out).unwrap_or(false);
    let upgrades = table.texts("allow_upgrade", 64, out).unwrap_or_default();
    network.allow_upgrade = upgrades.iter().filter_map(|said| protocol(said, out)).collect();
    if let Some(ports) = builder::ports(&mut table, "connect_ports", out) {
        network.connect_ports = ports;
    }
    table.finish(out);
}

/// `127.0.0.1/32:8000`, `10.0.0.0/8`, `[::1]:8000-8999`.
fn destination(said: &Said<String>, destinations: &mut Vec<Destination>, out: &mut Complaints) {
    let (addresses, ports) = split_ports(&said.value);
    let parsed_ports = match ports {
        Some(text) => builder::parse_ports(text).map(|range| vec![range]),
        None => Some(Vec::new()),
    };
    match (builder::parse_addresses(addresses), parsed_ports) {
        (Ok(ranges), Some(ports)) => {
            destinations.extend(ranges.into_iter().map(|addresses| Destination { addresses, ports: ports.clone() }))
        }
        (addresses, _) => {
            let words = addresses.err().unwrap_or_else(|| "the port is not 1 to 65535".to_string());
            let remedy = "write 127.0.0.1/32:8000, 10.0.0.0/8, [::1]:8000 or [fd00::/8]";
            out.add(&said.spot, format!("bad destination `{}`: {words}", said.value), remedy);
        }
    }
}

/// Addresses and ports. An IPv6 address with ports stands in brackets, inside or before its mask.
fn split_ports(text: &str) -> (&str, Option<&str>) {
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((addresses, "")) => (addresses, None),
            Some((addresses, rest)) => (addresses, Some(rest.strip_prefix(':').unwrap_or(""))),
            None => (text, None),
        };
    }
    match text.rsplit_once(':') {
        Some((addresses, ports)) if !addresses.contains(':') => (addresses, Some(ports)),
        _ => (text, None),
    }
}

fn protocol(said: &Said<String>, out: &mut Complaints) -> Option<String> {
    let good = !said.value.is_empty() && said.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    if !good {
        out.add(
            &said.spot,
            format!("bad protocol `{}`", said.value),
            "write an Upgrade protocol such as \"websocket\"",
        );
    }
    good.then(|| said.value.to_ascii_lowercase())
}

impl ArchivedNetwork {
    /// Whether the address and port are named in `allow_destinations`.
    pub fn allows_destination(&self, address: IpAddr, port: u16) -> bool {
        let address = builder::number(address);
        self.allow_destinations.iter().any(|destination| {
            let ports = &destination.ports;
            destination.addresses.holds(address) && (ports.is_empty() || ports.iter().any(|range| range.holds(port)))
        })
    }

    /// Whether a tunnel to `port` is allowed at all.
    #[inline]
    pub fn allows_tunnel(&self, port: u16) -> bool {
        self.connect_ports.iter().any(|range| range.holds(port))
    }

    /// Whether the request asks for protocol changes, and every one it offers is named in `allow_upgrade`.
    #[inline]
    pub fn allows_upgrade(&self, facts: &Facts) -> bool {
        if self.allow_upgrade.is_empty() {
            return false;
        }
        let Some(offered) = facts.headers.value("upgrade") else {
            return false;
        };
        let named =
            |protocol: &[u8]| self.allow_upgrade.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(protocol));
        offered.split(|byte| *byte == b',').all(|protocol| named(protocol.trim_ascii()))
    }
}
