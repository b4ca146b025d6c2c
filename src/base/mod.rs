//! The ground: clock as a value, durable files, words for people, archives that carry the proof of their check.
pub mod archive;
pub mod clock;
pub mod durable;
pub mod words;
