//! Identities and handshakes: the only module that names the TLS and cryptography libraries.
#![forbid(unsafe_code)]

pub mod random;
