//! A list of networks, as startup params write it.

use std::fmt;
use std::net::IpAddr;

/// Addresses and networks of both families. An IPv4 address inside IPv6 (`::ffff:192.0.2.1`) is the IPv4 address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    list: Vec<ipnet::IpNet>,
}

impl Networks {
    /// Reads `10.0.0.0/8, 192.0.2.7, 2001:db8::/32`; nothing is the empty list. `None` if a part is neither an address
    /// nor a network, or has bits outside its mask: nobody knows then which network was meant.
    pub fn parse(text: &str) -> Option<Networks> {
        if text.trim().is_empty() {
            return Some(Networks::default());
        }
        let list = text.split(',').map(|part| network(part.trim())).collect::<Option<_>>()?;
        Some(Networks { list })
    }

    /// Whether the address is in one of them.
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.list.iter().any(|network| network.contains(&address))
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

fn network(text: &str) -> Option<ipnet::IpNet> {
    match text.parse::<ipnet::IpNet>() {
        Ok(network) => (network.trunc() == network).then_some(network),
        Err(_) => text.parse::<IpAddr>().ok().map(|address| ipnet::IpNet::from(address.to_canonical())),
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.list.iter().enumerate() {
            write!(f, "{}{network}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_networks_are_read_and_hold_what_they_say() {
        let networks = Networks::parse("10.0.0.0/8, 192.0.2.7,2001:db8::/32").unwrap();
        assert_eq!((networks.len(), networks.to_string().as_str()), (3, "10.0.0.0/8,192.0.2.7/32,2001:db8::/32"));
        for (address, held) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.1.1", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("::1", false),
        ] {
            assert_eq!(networks.holds(address.parse().unwrap()), held, "{address}");
        }
        assert!(Networks::parse("").unwrap().is_empty());
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "proxy.test", "10.0.0.0/8,", "10.0.0.0-10.0.0.9"] {
            assert_eq!(Networks::parse(bad), None, "{bad}");
        }
    }
}
