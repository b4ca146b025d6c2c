//! The master's durable state.
#![forbid(unsafe_code)]

pub mod records;
