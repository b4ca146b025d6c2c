//! Identities and handshakes of the control plane: the activation key and what grows from it, the portal's certificate,
//! and the door on port 8888 that tells cluster, browsers and misdirected proxy clients apart.
#![forbid(unsafe_code)]

pub mod activation;
pub mod dial;
pub mod front;
pub mod identity;
pub mod keyring;
pub mod node_key;
pub mod portal;
pub mod random;
pub mod serve;
mod tickets;
