//! Assembly: the only module that knows everyone. [`run`] is a node, [`demo`] a whole cluster on loopback.
#![forbid(unsafe_code)]

mod audit;
mod backup;
mod demo;
mod desk;
mod drain;
mod health;
mod journal;
pub mod layout;
mod node;
pub mod origin;
mod params;
mod policy_desk;
mod publish;
mod services;
mod signals;
mod tuning;
mod verify;

pub use demo::demo;
pub use node::run;
