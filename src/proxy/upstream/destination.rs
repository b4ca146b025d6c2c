//! Addresses a proxy must not be led to: what only this host can reach would be open to every client through it, and, if
//! the policy says so, what only the organisation's own network can reach.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// What is special about `address`, if anything is; `own` are this host's addresses (in canonical form), `private` asks
/// for the ranges of private networks too. An address that carries another one inside is as special as that.
pub(super) fn special(address: IpAddr, own: &[IpAddr], private: bool) -> Option<&'static str> {
    let address = address.to_canonical();
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded_v4(v6).map(IpAddr::V4),
    };
    [Some(address), inner].into_iter().flatten().find_map(|address| {
        let kind = match address {
            IpAddr::V4(v4) => special_v4(v4).or_else(|| private_v4(v4).filter(|_| private)),
            IpAddr::V6(v6) => special_v6(v6).or_else(|| private_v6(v6).filter(|_| private)),
        };
        kind.or_else(|| own.contains(&address).then_some("an address of this node itself"))
    })
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

/// The IANA registry of special-purpose IPv4 addresses, as far as it is not globally reachable.
fn private_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("a private address"),
        [100, 64..=127, ..] => Some("an address of a carrier's private network"),
        [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => Some("a reserved address"),
        _ => None,
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
        None
    }
}

/// Unique local (RFC 4193), the former site-local ones, and translation prefixes of local networks (RFC 8215).
fn private_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address.segments() {
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some("a private address"),
        [0x64, 0xff9b, 1, ..] => Some("a private address"),
        _ => None,
    }
}

/// The IPv4 address that a translator, a relay or an old stack takes this one to: IPv4-compatible `::a.b.c.d`, translated
/// `::ffff:0:a.b.c.d`, NAT64 `64:ff9b::a.b.c.d` (RFC 6052) and `64:ff9b:1::a.b.c.d` (RFC 8215), 6to4 `2002:aabb:ccdd::`
/// (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0x2002, high, low, ..] => Some(join(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(join(!high, !low)),
        [0, 0, 0, 0, 0 | 0xffff, 0, high, low] => Some(join(high, low)),
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => Some(join(high, low)),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> [IpAddr; 2] {
        ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]
    }

    #[test]
    fn what_only_this_host_can_reach_is_special_in_every_spelling() {
        let table = [
            ("127.0.0.1", true),
            ("127.255.255.254", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("::7f00:1", true),
            ("::ffff:0:127.0.0.1", true),
            ("64:ff9b::127.0.0.1", true),
            ("64:ff9b:1::127.0.0.1", true),
            ("2002:7f00:1::1", true),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", true),
            ("2001:db8::5efe:127.0.0.1", true),
            ("2001:db8::200:5efe:127.0.0.1", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("::", true),
            ("::ffff:0.0.0.0", true),
            ("2002::1", true),
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("fe80::1", true),
            ("224.0.0.1", true),
            ("ff02::1", true),
            ("255.255.255.255", true),
            ("2002:ffff:ffff::", true),
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("64:ff9b::192.0.2.7", true),
            ("2002:c000:207::1", true),
            ("2001:db8::7", true),
            ("192.0.2.8", false),
            ("10.0.0.1", false),
            ("8.8.8.8", false),
            ("2001:db8::8", false),
            ("64:ff9b::8.8.8.8", false),
            ("2002:808:808::1", false),
        ];
        for (text, refused) in table {
            assert_eq!(special(text.parse().unwrap(), &own(), false).is_some(), refused, "{text}");
        }
    }

    #[test]
    fn private_ranges_are_special_where_the_policy_says_so() {
        let table = [
            ("10.0.0.1", true),
            ("172.15.0.1", false),
            ("172.16.0.1", true),
            ("172.31.255.255", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("::ffff:192.168.1.1", true),
            ("64:ff9b::10.0.0.1", true),
            ("2002:a00:1::1", true),
            ("100.63.255.255", false),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("198.18.0.1", true),
            ("240.0.0.1", true),
            ("fc00::1", true),
            ("fdff::1", true),
            ("fec0::1", true),
            ("64:ff9b:1::8.8.8.8", true),
            ("8.8.8.8", false),
            ("2600::1", false),
        ];
        for (text, refused) in table {
            let address = text.parse().unwrap();
            assert_eq!(special(address, &own(), true).is_some(), refused, "{text}");
            assert_eq!(special(address, &own(), false), None, "{text} while private networks may be reached");
        }
    }
}
