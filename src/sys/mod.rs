//! System calls behind safe verbs. Everything that names `nix` is here; callers see std types.
#![allow(unsafe_code)] // memory mapping needs it; each use says why it is sound

pub mod activation;
pub mod affinity;
pub mod event;
pub mod host;
pub mod kernel;
pub mod kernel_checks;
pub mod map;
pub mod memory;
pub mod netif;
pub mod peer;
pub mod pipes;
pub mod process;
pub mod rlimit;
pub mod sd_notify;
pub mod sockets;
pub mod terminal;
pub mod watch;
