//! The target of a request (RFC 9112 section 3.2) and the one spelling of a host that policy, resolver and record see.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::limits::HOST_BYTES_MAX;
use crate::limits::HOST_LABEL_BYTES_MAX;

/// In which form the target stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TargetForm {
    /// `GET http://host/path`: what a client says to a proxy.
    #[default]
    Absolute,
    /// `CONNECT host:port`.
    Authority,
    /// `GET /path`: what a client says to an origin; a proxy that is no origin refuses it.
    Origin,
    /// `OPTIONS *`.
    Asterisk,
}

/// The scheme of an absolute target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scheme {
    /// `http`, port 80.
    #[default]
    Http,
    /// `https`, port 443.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port of a target that names none.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// What is wrong with an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthorityFault {
    Userinfo,
    Host,
    Port,
}

/// A scheme and what follows `://`.
pub(super) fn split_scheme(target: &[u8]) -> Option<(Option<Scheme>, &[u8])> {
    if let [b'h', b't', b't', b'p', b':', b'/', b'/', rest @ ..] = target {
        return Some((Some(Scheme::Http), rest)); // as nearly all are
    }
    let colon = target.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte))?;
    let (scheme, rest) = target.split_at(colon);
    let rest = rest.strip_prefix(b"://")?;
    let known = match scheme {
        s if s.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
        s if s.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
        [] => return None,
        _ => None,
    };
    Some((known, rest))
}

/// `host:port` into its two parts, the host still as it was written, brackets included.
pub(super) fn split_authority(authority: &[u8]) -> Result<(&[u8], Option<u16>), AuthorityFault> {
    if authority.contains(&b'@') {
        return Err(AuthorityFault::Userinfo);
    }
    let host_end = match authority {
        [b'[', ..] => authority.iter().position(|byte| *byte == b']').ok_or(AuthorityFault::Host)? + 1,
        _ => authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_end);
    match port {
        // `host:` means the default port (RFC 3986 section 3.2.3).
        [] | [b':'] => Ok((host, None)),
        [b':', digits @ ..] => Ok((host, Some(port_number(digits).ok_or(AuthorityFault::Port)?))),
        _ => Err(AuthorityFault::Host),
    }
}

fn port_number(digits: &[u8]) -> Option<u16> {
    let number = super::head::decimal(digits).filter(|_| digits.len() <= 5)?;
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// Writes the one spelling of a host: lower case, no brackets, no trailing dot, addresses as the standard writes them.
pub(super) fn normalise_host(written: &[u8], out: &mut String) -> Result<Option<IpAddr>, AuthorityFault> {
    out.clear();
    if let [b'[', inner @ .., b']'] = written {
        let text = std::str::from_utf8(inner).map_err(|_| AuthorityFault::Host)?;
        let address: Ipv6Addr = text.parse().map_err(|_| AuthorityFault::Host)?;
        write!(out, "{address}").map_err(|_| AuthorityFault::Host)?;
        return Ok(Some(IpAddr::V6(address)));
    }
    let name = written.strip_suffix(b".").unwrap_or(written);
    if name.is_empty() || name.len() > HOST_BYTES_MAX || !labels_hold(name) {
        return Err(AuthorityFault::Host);
    }
    out.push_str(std::str::from_utf8(name).map_err(|_| AuthorityFault::Host)?);
    out.make_ascii_lowercase();
    if !ends_in_number(out) {
        return Ok(None);
    }
    let address: Ipv4Addr = out.parse().map_err(|_| AuthorityFault::Host)?;
    Ok(Some(IpAddr::V4(address)))
}

/// Letters, digits, `-` and `_` in labels that are neither empty nor too long.
fn labels_hold(name: &[u8]) -> bool {
    let mut label_bytes = 0;
    for byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' if label_bytes < HOST_LABEL_BYTES_MAX => {
                label_bytes += 1
            }
            b'.' if label_bytes > 0 => label_bytes = 0,
            _ => return false,
        }
    }
    label_bytes > 0
}

/// Resolvers of the old school read `127.1`, `017700000001` and `0x7f000001` as addresses.
fn ends_in_number(host: &str) -> bool {
    let last = &host[host.bytes().rposition(|byte| byte == b'.').map_or(0, |dot| dot + 1)..];
    if !last.starts_with(|first: char| first.is_ascii_digit()) {
        return false;
    }
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || last.bytes().all(|byte| byte.is_ascii_digit())
}
