//! Whether the portal could still be reached: asked before PORTAL_IP is changed, since that shuts out at the next restart.

use crate::admin::Actor;
use crate::admin::Refused;
use crate::admin::RefusedKind;
use crate::settings::Listen;
use crate::sys::netif;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Refuses a new PORTAL_IP at which nobody, or not whoever submits it, would reach the portal. `in_force` is where it listens now.
pub fn refuse_lockout(actor: &Actor, values: &BTreeMap<String, String>, in_force: Listen) -> Result<(), Refused> {
    // What is not an address is complained of with the other faults.
    let Some(new) = values.get("PORTAL_IP").and_then(|value| Listen::parse(value)) else { return Ok(()) };
    let reached = match actor {
        Actor::Administrator { reached, .. } => *reached,
        _ => None,
    };
    // A host that does not tell its addresses cannot be asked for them.
    let own = netif::own_addresses().unwrap_or_default();
    match why_unreachable(in_force, new, &own, reached) {
        Some(why) => {
            let remedy = "Nothing was changed. Choose another PORTAL_IP, or submit it all the same with --force (in the portal: tick the box at the end)";
            Err(Refused::new(RefusedKind::LocksOut, format!("{why}. {remedy}")))
        }
        None => Ok(()),
    }
}

fn why_unreachable(in_force: Listen, new: Listen, own: &[IpAddr], reached: Option<IpAddr>) -> Option<String> {
    if new == in_force {
        return None;
    }
    let ip = new.ip().filter(|ip| !ip.is_unspecified());
    // All of 127.0.0.0/8 is there, though the interface has one of it.
    if let Some(ip) = ip.filter(|ip| !own.is_empty() && !own.contains(ip) && !ip.is_loopback()) {
        return Some(format!(
            "no interface of this host has PORTAL_IP {ip}: after a restart the node could not listen there, nor start"
        ));
    }
    let reached = reached.filter(|reached| !new.overlaps(Listen::Ip(*reached)))?;
    Some(format!(
        "this would lock you out of the portal: you reach it at {reached}, and after a restart it would listen at {new} alone"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_that_nobody_or_not_who_moves_it_would_reach_is_known() {
        let own: Vec<IpAddr> =
            ["127.0.0.1", "192.0.2.7", "2001:db8::7"].iter().map(|address| address.parse().unwrap()).collect();
        for (in_force, new, reached, refused) in [
            ("*", "192.0.2.7", "192.0.2.7", ""),
            ("*", "192.0.2.7", "", ""),
            ("*", "192.0.2.7", "127.0.0.1", "you reach it at 127.0.0.1"),
            ("*", "127.0.0.1", "192.0.2.7", "would listen at 127.0.0.1 alone"),
            ("*", "127.0.0.9", "", ""),
            ("*", "0.0.0.0", "192.0.2.7", ""),
            ("*", "0.0.0.0", "2001:db8::7", "you reach it at 2001:db8::7"),
            ("0.0.0.0", "*", "192.0.2.7", ""),
            ("*", "192.0.2.8", "", "no interface of this host has PORTAL_IP 192.0.2.8"),
            ("*", "192.0.2.8", "192.0.2.7", "no interface of this host"),
            // As it is now: he sees that he reaches it.
            ("192.0.2.8", "192.0.2.8", "192.0.2.7", ""),
        ] {
            let listen = |text| Listen::parse(text).unwrap();
            let said = why_unreachable(listen(in_force), listen(new), &own, reached.parse().ok()).unwrap_or_default();
            assert_eq!(said.is_empty(), refused.is_empty(), "{in_force} to {new}, {reached}: {said}");
            assert!(said.contains(refused), "{said}");
        }
        let unknown = Listen::Ip("192.0.2.8".parse().unwrap());
        assert_eq!(why_unreachable(Listen::Any, unknown, &[], None), None);
    }
}
