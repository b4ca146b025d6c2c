//! Assembly: the only module that knows everyone. [`run`] is a node, [`demo`] a whole cluster on loopback.
#![forbid(unsafe_code)]

mod accounts;
mod audit;
mod auditing;
mod backup;
mod demo;
mod desk;
mod diagnostics;
mod doors;
mod drain;
mod explaining;
mod figures;
mod first_policy;
mod health;
mod history;
mod journal;
mod keeper;
mod kernel;
pub mod layout;
mod node;
pub mod origin;
mod params;
mod performance;
mod policy_desk;
mod publish;
mod reach;
mod rollout;
mod services;
mod shedding;
mod signals;
mod tarball;
mod task_desk;
mod task_runner;
mod tuning;
mod upkeep;
mod verify;
mod vitals;

pub use demo::demo;
pub use keeper::keep;
pub use node::run;
