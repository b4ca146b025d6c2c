//! The master's durable state.
#![forbid(unsafe_code)]

pub mod admins;
mod database;
pub mod figures;
pub mod members;
pub mod policies;
pub mod records;
pub mod tasks;

pub use database::DatabaseError;
