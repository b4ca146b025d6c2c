//! The life of a request: accepted, read, decided, sent on or refused, answered, recorded.
//!
//! | module | what it is |
//! |---|---|
//! | [`core`] | one data core: its thread, its mailbox, what its connections share |
//! | [`counters`] | what a core counts, readable from every thread |
//!
//! A core waits for its ring and for nothing else; other threads reach it through [`CoreHandle`].
#![forbid(unsafe_code)]
#![allow(dead_code)] // until the exchange is in

mod connection;
mod core;
mod counters;
mod upstream;

pub use self::core::Core;
pub use self::core::CoreConfig;
pub use self::core::CoreHandle;
pub use self::core::Timeouts;
pub use counters::CoreCounters;
pub use counters::CoreTotals;
