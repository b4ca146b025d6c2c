//! The wire: what stands in the bytes between two machines, without a socket, a clock or a lock.
#![forbid(unsafe_code)]

pub mod client_hello;
pub mod forwarded;
pub mod http1;
pub mod proxy_protocol;
