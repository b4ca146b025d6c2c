//! The hosts of URLs and the registrable domains of hosts: the columns that a line derives from others.

/// The host of a URL, without user, port and brackets; empty if it has none.
pub fn host_of(url: &[u8]) -> &[u8] {
    let Some(start) = url.windows(3).take(16).position(|three| three == b"://") else { return b"" };
    let rest = &url[start + 3..];
    let authority = &rest[..rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len())];
    let host = authority.iter().rposition(|byte| *byte == b'@').map_or(authority, |at| &authority[at + 1..]);
    if let Some(bracketed) = host.strip_prefix(b"[") {
        return &bracketed[..bracketed.iter().position(|byte| *byte == b']').unwrap_or(bracketed.len())];
    }
    &host[..host.iter().position(|byte| *byte == b':').unwrap_or(host.len())]
}

/// Where the registrable domains of the last hosts begin: the public suffix list is slow to ask, and hosts repeat.
pub struct Domains(Vec<Known>);

#[derive(Clone, Default)]
struct Known {
    host: Vec<u8>,
    domain_at: usize,
}

/// So many hosts are remembered, each in the one place that its bytes say.
const PLACES: usize = 512;
/// Longer hosts are asked for each time.
const BYTES_MAX: usize = 64;

impl Domains {
    /// Nothing known yet.
    pub fn new() -> Domains {
        Domains(vec![Known::default(); PLACES])
    }

    /// The registrable domain of a host by the public suffix list; an address or a single label stands for itself.
    pub fn registrable<'h>(&mut self, host: &'h [u8]) -> &'h [u8] {
        if host.last().is_none_or(u8::is_ascii_digit) || host.contains(&b':') {
            return host;
        }
        if host.len() > BYTES_MAX {
            return registrable(host);
        }
        let known = &mut self.0[place_of(host)];
        if known.host != host {
            known.host.clear();
            known.host.extend_from_slice(host);
            known.domain_at = host.len() - registrable(host).len();
        }
        &host[known.domain_at..]
    }
}

fn registrable(host: &[u8]) -> &[u8] {
    // The list answers a domain that is the end of the host.
    psl::domain(host).map_or(host, |domain| &host[host.len() - domain.as_bytes().len()..])
}

fn place_of(host: &[u8]) -> usize {
    let (words, rest) = host.as_chunks::<8>();
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let sum = words.iter().chain([&last]).fold(host.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    sum as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_registrable_domains_also_when_asked_again() {
        let table = [
            ("www.example.com", "example.com"),
            ("a.b.co.uk", "b.co.uk"),
            ("co.uk", "co.uk"),
            ("Accounts.Google.co.uk", "Google.co.uk"),
            ("localhost", "localhost"),
            ("trailing.example.com.", "example.com."),
            ("10.1.2.3", "10.1.2.3"),
            ("2001:db8::a", "2001:db8::a"),
            ("", ""),
        ];
        let mut domains = Domains::new();
        for (host, domain) in table.into_iter().chain(table) {
            assert_eq!(domains.registrable(host.as_bytes()), domain.as_bytes(), "{host}");
        }
        for number in (0..4000).chain(0..4000) {
            let host = format!("www.{number:0$}.example.com", number % 80 + 1);
            assert_eq!(domains.registrable(host.as_bytes()), b"example.com", "{host}");
        }
    }

    #[test]
    fn a_url_has_a_host() {
        for (url, host) in
            [("http://[::1]:80/", "::1"), ("about:blank", ""), ("https://h", "h"), ("x://u:p@h:1?q", "h"), ("", "")]
        {
            assert_eq!(host_of(url.as_bytes()), host.as_bytes(), "{url}");
        }
    }
}
