//! The ground: clock as a value, ids, durable files, archives that carry the proof of their check.
pub mod archive;
pub mod clock;
pub mod durable;
