//! What proxies in front of us say about the client: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Every proxy appends the address it saw, so the list is to be read from its right end, and only as far as those who wrote
//! it are trusted: the client is the rightmost address that is not a trusted proxy's. Everything left of it was said by the
//! client itself. What cannot be read ends the walk: whoever stands left of it cannot be vouched for.

use std::net::IpAddr;
use std::net::SocketAddr;

/// The client by `X-Forwarded-For`: `values` are the values of all such fields in their order. `None` if they name nobody.
pub fn client_by_x_forwarded_for<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let addresses = values.flat_map(|value| value.split(|byte| *byte == b',')).map(|text| node(text.trim_ascii()));
    rightmost(addresses, trusted)
}

/// The client by `Forwarded` (RFC 7239 section 4), from the `for` parameters. `None` if they name nobody.
pub fn client_by_forwarded<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    rightmost(values.flat_map(|value| parts(value, b',')).map(|part| part.and_then(forwarded_for)), trusted)
}

/// Walks from left to right what is meant from right to left: each address replaces what stood left of it, unless it is a
/// trusted proxy's that vouches for its left neighbour.
fn rightmost(addresses: impl Iterator<Item = Option<IpAddr>>, trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    addresses.fold(None, |client, address| match address {
        None => None,
        Some(address) if trusted(address) => client.or(Some(address)),
        untrusted => untrusted,
    })
}

/// One element: `for=192.0.2.43;proto=http;by=203.0.113.43`. `None` if it has no `for`, two, or one without an address.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in parts(element, b';') {
        let pair = pair?.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        if !name.eq_ignore_ascii_case(b"for") {
            continue;
        }
        if found.is_some() {
            return None;
        }
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        // `unknown` and names of a proxy's own (`_hidden`) are no addresses.
        found = Some(node(bare)?);
    }
    found
}

/// Splits at `separator` outside quoted strings; a string without its end is a `None` part.
fn parts(value: &[u8], separator: u8) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let now = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = now.iter().position(|byte| {
            let was_escaped = std::mem::replace(&mut escaped, false);
            match byte {
                _ if was_escaped => {}
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            !quoted && !was_escaped && *byte == separator
        });
        rest = end.map(|end| &now[end + 1..]);
        Some((!quoted).then(|| &now[..end.unwrap_or(now.len())]))
    })
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip())),
    };
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proxies of ours: 10.0.0.0/8 and fd00::/8.
    fn trusted(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
        }
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxys() {
        let table: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["192.0.2.1"], Some("192.0.2.1")),
            (&["1.1.1.1, 192.0.2.1"], Some("192.0.2.1")),
            (&["1.1.1.1, 192.0.2.1, 10.0.0.9"], Some("192.0.2.1")),
            (&["192.0.2.1", "10.0.0.9 ,10.0.0.8"], Some("192.0.2.1")),
            (&["192.0.2.1, 192.0.2.2"], Some("192.0.2.2")),
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.1")),
            (&["192.0.2.1, nonsense, 10.0.0.9"], Some("10.0.0.9")),
            (&["192.0.2.1, nonsense"], None),
            (&["192.0.2.1,"], None),
            (&["nonsense, 192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.1:4711"], Some("192.0.2.1")),
            (&["[2001:db8::1]:4711, fd00::1"], Some("2001:db8::1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1")),
            (&["[192.0.2.1]"], None),
            (&["192.0.2.01"], None),
            (&["\u{ff11}92.0.2.1"], None),
        ];
        for (values, expected) in table {
            let found = client_by_x_forwarded_for(values.iter().map(|v| v.as_bytes()), trusted);
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{values:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_grammar_says() {
        let table: &[(&[&str], Option<&str>)] = &[
            (&["for=192.0.2.43"], Some("192.0.2.43")),
            (&["For=\"[2001:db8:cafe::17]:4711\""], Some("2001:db8:cafe::17")),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], Some("192.0.2.60")),
            (&["by=10.0.0.1; for=192.0.2.60"], Some("192.0.2.60")),
            (&["for=192.0.2.43, for=198.51.100.17"], Some("198.51.100.17")),
            (&["for=192.0.2.43", "for=10.1.1.1"], Some("192.0.2.43")),
            (&["for=192.0.2.43;host=\"a,b;for=1.1.1.1\", for=10.1.1.1"], Some("192.0.2.43")),
            (&["for=192.0.2.43;host=\"\\\",for=1.1.1.1\", for=10.1.1.1"], Some("192.0.2.43")),
            (&["for=192.0.2.43, for=unknown, for=10.1.1.1"], Some("10.1.1.1")),
            (&["for=192.0.2.43, for=_hidden"], None),
            (&["for=192.0.2.43, proto=http"], None),
            (&["for=192.0.2.43;for=192.0.2.44"], None),
            (&["for=192.0.2.43;host=\"open"], None),
            (&["for"], None),
            (&[""], None),
        ];
        for (values, expected) in table {
            let found = client_by_forwarded(values.iter().map(|v| v.as_bytes()), trusted);
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{values:?}");
        }
    }
}
