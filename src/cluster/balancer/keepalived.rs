//! A whole keepalived.conf for one of a pair of balancers that share a floating address. It does not depend on the slaves.

use super::comment;
use std::fmt::Write;
use std::net::IpAddr;

/// What the administrator says of this balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The floating address with its prefix length.
    pub vip: ipnet::IpNet,
    /// The network interface that has it.
    pub interface: String,
    /// VRRP's number of the pair, 1 to 255: the same on both, another one for each pair in a network.
    pub router_id: u8,
    /// Whether this one has the address while both are well.
    pub is_master: bool,
    /// The other balancers' addresses, where the network carries no multicast.
    pub peers: Vec<IpAddr>,
    /// The program whose absence makes the address move.
    pub process: String,
}

/// The configuration.
pub fn config(options: &Options) -> String {
    let (state, priority) = if options.is_master { ("MASTER", 150) } else { ("BACKUP", 100) };
    let Options { vip, interface, router_id, process, .. } = options;
    let mut out = String::new();
    comment(
        &mut out,
        "",
        "Made by `tidegate lb keepalived`. The other balancer of the pair has the other --state and the same --router-id.",
    );
    let _ = write!(
        out,
        "
global_defs {{
    enable_script_security
    script_user root
}}

# The address goes where the balancer runs.
vrrp_script balancer {{
    script \"/usr/bin/pgrep -x {process}\"
    interval 1
    timeout 1
    fall 2
    rise 2
}}

vrrp_instance tidegate {{
    state {state}
    interface {interface}
    virtual_router_id {router_id}
    priority {priority}
    advert_int 1
"
    );
    if vip.addr().is_ipv4() {
        // A newcomer on the network takes some time to believe one announcement.
        out.push_str("    garp_master_refresh 60\n");
    }
    if !options.peers.is_empty() {
        out.push_str("    unicast_peer {\n");
        for peer in &options.peers {
            let _ = writeln!(out, "        {peer}");
        }
        out.push_str("    }\n");
    }
    let _ = write!(
        out,
        "    virtual_ipaddress {{
        {vip}
    }}
    track_script {{
        balancer
    }}
}}
"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_of_a_pair_differ_in_state_and_priority_alone() {
        let options = |is_master| Options {
            vip: "10.0.0.100/24".parse().unwrap(),
            interface: "eth0".into(),
            router_id: 51,
            is_master,
            peers: vec!["10.0.0.6".parse().unwrap()],
            process: "haproxy".into(),
        };
        let (one, other) = (config(&options(true)), config(&options(false)));
        let differ: Vec<_> = one.lines().zip(other.lines()).filter(|(one, other)| one != other).collect();
        assert_eq!(differ, [("    state MASTER", "    state BACKUP"), ("    priority 150", "    priority 100")]);
        assert!(
            one.contains("        10.0.0.100/24\n") && one.contains("    unicast_peer {\n        10.0.0.6\n    }\n")
        );
    }
}
