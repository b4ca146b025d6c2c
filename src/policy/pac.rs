//! `/proxy.pac` and `/wpad.dat`: the script by which a browser finds its way, made by policy for one client.

use crate::limits::PAC_BYTES_MAX;
use crate::limits::PAC_PROXIES_MAX;
use crate::policy::snapshot::body::ArchivedAddressRange;
use crate::policy::snapshot::body::ArchivedPac;
use std::fmt::Write;
use std::net::IpAddr;

/// What every script does with the lists above it.
const SCRIPT: &str = include_str!("pac.js");

/// Why there is no script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoScript {
    /// The policy has no `[pac]`.
    NotInPolicy,
    /// It names no proxy, and no node is known that browsers may use.
    NoProxy,
    /// It would be longer than browsers take.
    TooLong,
}

/// A node that browsers may use, with its share of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// `ADDRESS:PORT`, an IPv6 address in brackets.
    pub address: String,
    /// Its share.
    pub weight: u16,
}

/// The script for `client`. Without proxies in the policy each client has the nodes in an order of its own, which stays
/// while they do.
pub fn script(pac: &ArchivedPac, title: &str, client: IpAddr, nodes: &[Choice]) -> Result<String, NoScript> {
    let mut proxies: Vec<&str> = match pac.proxies.is_empty() {
        false => pac.proxies.iter().map(|proxy| proxy.as_str()).collect(),
        true => in_hash_order(client, nodes),
    };
    if proxies.is_empty() {
        return Err(NoScript::NoProxy);
    }
    proxies.truncate(PAC_PROXIES_MAX);
    let mut way: String = proxies.iter().map(|proxy| format!("PROXY {proxy}; ")).collect();
    match pac.direct_if_down {
        true => way.push_str("DIRECT"),
        false => way.truncate(way.trim_end_matches("; ").len()),
    }
    let mut out = String::with_capacity(SCRIPT.len() + 1024);
    // Names and addresses were read strictly: nothing in them ends a string or a comment.
    let _ = writeln!(out, "// Made by Tidegate from policy {title}. Changes made here are lost.");
    let _ = writeln!(out, "var proxies = \"{way}\";");
    let _ = writeln!(out, "var plainNames = {};", pac.direct_plain_names);
    out.push_str("var hosts = {\"localhost\": 1");
    for host in pac.direct_hosts.iter().filter(|host| host.as_str() != "localhost") {
        let _ = write!(out, ",\n    \"{}\": 1", host.as_str());
    }
    out.push_str("};\nvar networks = [[\"7f000000\", \"7fffffff\"],\n    [\"");
    let loopback = format!("{:032x}", 1);
    let _ = write!(out, "{loopback}\", \"{loopback}\"]");
    for range in pac.direct_networks.iter() {
        let _ = write!(out, ",\n    [\"{}\", \"{}\"]", hex(range, range.first.into()), hex(range, range.last.into()));
    }
    out.push_str("];\n\n");
    out.push_str(SCRIPT);
    if out.len() > PAC_BYTES_MAX { Err(NoScript::TooLong) } else { Ok(out) }
}

fn hex(range: &ArchivedAddressRange, number: u128) -> String {
    if range.v4 { format!("{number:08x}") } else { format!("{number:032x}") }
}

/// Weighted rendezvous hashing: each client has its own order, nodes come first as often as their weights say, and one that
/// goes moves its own clients only.
fn in_hash_order(client: IpAddr, nodes: &[Choice]) -> Vec<&str> {
    let key = match client.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        // A host has many addresses of its network.
        IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
    };
    let mut scored: Vec<(f64, &str)> = nodes.iter().map(|node| (score(&key, node), node.address.as_str())).collect();
    scored.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    scored.into_iter().map(|(_, address)| address).collect()
}

fn score(key: &[u8], node: &Choice) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key).update(node.address.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // Between 0 and 1, and neither of them.
    let unit = ((u64::from_le_bytes(first) >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    f64::from(node.weight.max(1)) / -unit.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_an_order_of_its_own_weights_share_them_and_a_node_that_goes_moves_its_own_clients() {
        let node = |name: &str, weight| Choice { address: format!("{name}:8080"), weight };
        let nodes = [node("a", 1), node("b", 1), node("c", 2)];
        let client = |number: u32| IpAddr::V4((0x0a00_0000 + number).into());
        let first = |number: u32, nodes: &[Choice]| in_hash_order(client(number), nodes)[0].to_string();
        let clients = 4_000;
        let share = |name: &str| (0..clients).filter(|number| first(*number, &nodes).starts_with(name)).count();
        for (name, expected) in [("a", 1_000), ("b", 1_000), ("c", 2_000)] {
            assert!(share(name).abs_diff(expected) < 150, "{name} has {}", share(name));
        }
        for number in 0..clients {
            let before = first(number, &nodes);
            if !before.starts_with('b') {
                assert_eq!(first(number, &[nodes[0].clone(), nodes[2].clone()]), before);
            }
            let mut turned = nodes.to_vec();
            turned.reverse();
            assert_eq!(in_hash_order(client(number), &turned), in_hash_order(client(number), &nodes));
        }
        let dressed = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(in_hash_order(dressed, &nodes), in_hash_order("10.0.0.7".parse().unwrap(), &nodes));
    }
}
