//! What is known about a request when it is decided. Facts borrow from the connection's buffer; nothing is copied.

use crate::base::clock::Wall;
use std::net::IpAddr;

/// Everything policy may ask about one request.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address (behind a trusted balancer: the true one).
    pub client: IpAddr,
    /// The authenticated user, if any.
    pub user: Option<&'a str>,
    /// The method as sent: methods are case-sensitive.
    pub method: &'a str,
    /// How the request reaches its origin.
    pub scheme: Scheme,
    /// Lowercase, no brackets, no trailing dot.
    pub host: &'a str,
    /// The origin's port.
    pub port: u16,
    /// Path with query; empty for a tunnel.
    pub path: &'a str,
    /// The request's header fields.
    pub headers: &'a dyn Headers,
    /// When the request is decided.
    pub now: Wall,
    /// NODE_NAME of the node that decides.
    pub node: &'a str,
}

/// How a request reaches its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`
    Http,
    /// `https://`, its content seen (inspection).
    Https,
    /// CONNECT: bytes nobody looks into. The scheme `https` of a policy document covers tunnels to port 443 as well.
    Tunnel,
}

/// Header fields by name.
pub trait Headers {
    /// The value of the first field called `name` (compared without regard to case).
    fn value(&self, name: &str) -> Option<&[u8]>;

    /// Hands over the name and the value of each field, in order.
    fn each(&self, field: &mut dyn FnMut(&str, &[u8]));
}

/// A request without header fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn value(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn each(&self, _field: &mut dyn FnMut(&str, &[u8])) {}
}

/// Fields in a list, for explanations and tests.
impl Headers for &[(&str, &str)] {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
    }

    fn each(&self, field: &mut dyn FnMut(&str, &[u8])) {
        self.iter().for_each(|(name, value)| field(name, value.as_bytes()));
    }
}
