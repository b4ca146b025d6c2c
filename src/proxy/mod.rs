//! The life of a request: accepted, read, decided, sent on or refused, answered, recorded.
//!
//! | module | what it is |
//! |---|---|
//! | [`core`] | one data core: its thread, its mailbox, what its connections share |
//! | [`connection`] | a client's connection: reading heads, one exchange after the other |
//! | [`balancer`], [`admissions`] | who the client is behind balancers; how many connections it may have |
//! | [`exchange`] | is it permitted, and where does it go |
//! | [`relay`], [`body`] | request and answer on their way, body framing kept |
//! | [`onward`] | what a request becomes for the next machine |
//! | [`tunnel`] | CONNECT and protocol changes: bytes nobody looks into |
//! | [`upstream`] | the one way out: destinations, names, dialling, idle connections, parent proxies |
//! | [`failure`], [`answer`] | what went wrong, and the page that says so |
//! | [`account`] | what is said about an exchange, and its one record |
//! | [`counters`] | what a core counts, readable from every thread |
//!
//! A core waits for its ring and for nothing else; other threads reach it through [`CoreHandle`].
#![forbid(unsafe_code)]

mod account;
mod admissions;
mod answer;
mod balancer;
mod body;
mod connection;
mod core;
mod counters;
mod exchange;
mod failure;
mod onward;
mod relay;
mod tunnel;
mod upstream;

pub use self::core::Core;
pub use self::core::CoreConfig;
pub use self::core::CoreHandle;
pub use self::core::Timeouts;
pub use self::core::Tuning;
pub use self::core::effect_mark;
pub use admissions::Admissions;
pub use balancer::Balancers;
pub use balancer::ProxyProtocol;
pub use counters::CoreCounters;
pub use counters::CoreTotals;
pub use upstream::addresses_in;
