//! Connections that one client has for itself: NTLM and Negotiate authenticate a connection, not a request (RFC 4559), so
//! nobody else may send anything on it. They close with the client's connection.

use super::Target;
use super::Upstream;
use crate::limits::BOUND_PER_CLIENT_MAX;
use std::cell::RefCell;

/// The idle connections of one client's own.
#[derive(Default)]
pub(in super::super) struct Bound(RefCell<Vec<Own>>);

struct Own {
    host: Box<str>,
    port: u16,
    upstream: Upstream,
}

impl Bound {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// The connection to `target` by `way`. The caller checks that it still lives.
    pub(super) fn take(&self, target: Target<'_>, way: u32) -> Option<Upstream> {
        let mut own = self.0.borrow_mut();
        let same = |own: &Own| *own.host == *target.host && own.port == target.port && own.upstream.way == way;
        let at = own.iter().position(same)?;
        let upstream = own.remove(at).upstream;
        Some(Upstream { connect_us: 0, pooled: true, bound: true, early: Vec::new(), ..upstream })
    }

    /// Takes a connection in; where there are too many, the oldest closes.
    pub(super) fn put(&self, target: Target<'_>, upstream: Upstream) {
        let mut own = self.0.borrow_mut();
        if own.len() >= BOUND_PER_CLIENT_MAX {
            own.remove(0);
        }
        own.push(Own { host: target.host.into(), port: target.port, upstream });
    }
}

/// Whether the value of an Authorization or WWW-Authenticate field names a scheme that authenticates the connection.
pub(in super::super) fn authenticates_connection(value: &[u8]) -> bool {
    // A WWW-Authenticate field may name several: `Basic realm="x", NTLM`.
    value.split(|byte| *byte == b',').any(|part| {
        let scheme = part.trim_ascii_start().split(|byte| *byte == b' ').next().unwrap_or_default().trim_ascii_end();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ntlm_and_negotiate_authenticate_a_connection() {
        let table: [(&[u8], bool); 9] = [
            (b"NTLM", true),
            (b"ntlm TlRMTVNTUAABAAAA", true),
            (b"Negotiate", true),
            (b"Negotiate YIIJvw", true),
            (b"Basic realm=\"x\", NTLM", true),
            (b"Basic QWxhZGRpbg==", false),
            (b"Bearer negotiate", false),
            (b"Basic realm=\"NTLM\"", false),
            (b"", false),
        ];
        for (value, expected) in table {
            assert_eq!(authenticates_connection(value), expected, "{}", String::from_utf8_lossy(value));
        }
    }
}
