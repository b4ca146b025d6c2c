//! The addresses of this host's network interfaces.

use nix::ifaddrs::getifaddrs;
use std::io;
use std::net::IpAddr;

/// Every IPv4 and IPv6 address of every interface, sorted, each once.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = getifaddrs()?.filter_map(|interface| ip_of(&interface.address?)).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn loopback_is_among_the_own_addresses() {
        assert!(own_addresses().unwrap().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
