//! Addresses a proxy must not be led to: what only this host can reach would be open to every client through it.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// What is special about `address` (in its canonical form), if anything is; `own` are this host's addresses.
pub(super) fn special(address: IpAddr, own: &[IpAddr]) -> Option<&'static str> {
    let kind = match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    };
    kind.or_else(|| own.contains(&address).then_some("an address of this node itself"))
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_link_local() {
        Some("a link-local address")
    } else if address.octets()[0] == 0 {
        Some("an unspecified address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_broadcast() {
        Some("the broadcast address")
    } else {
        None
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_unspecified() {
        Some("an unspecified address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else {
        // A translator or an old stack takes these to the IPv4 address inside.
        embedded_v4(address).and_then(special_v4)
    }
}

/// The IPv4 address in an IPv4-compatible (`::a.b.c.d`) or NAT64 (`64:ff9b::a.b.c.d`) address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = address.segments();
    let nat64 = (a, b, c, d, e, f) == (0x64, 0xff9b, 0, 0, 0, 0);
    let compatible = (a, b, c, d, e, f) == (0, 0, 0, 0, 0, 0);
    (nat64 || compatible).then(|| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_host_can_reach_is_special_in_every_spelling() {
        let own: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let table = [
            ("127.0.0.1", true),
            ("127.255.255.254", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("::7f00:1", true),
            ("64:ff9b::127.0.0.1", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("::", true),
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("224.0.0.1", true),
            ("ff02::1", true),
            ("255.255.255.255", true),
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("2001:db8::7", true),
            ("192.0.2.8", false),
            ("10.0.0.1", false),
            ("8.8.8.8", false),
            ("2001:db8::8", false),
            ("64:ff9b::8.8.8.8", false),
        ];
        for (text, refused) in table {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(special(address.to_canonical(), &own).is_some(), refused, "{text}");
        }
    }
}
