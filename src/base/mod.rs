//! The ground: clock as a value, durable files, lines, networks, words for people, lines told seldom, archives that carry the proof of their check.
pub mod archive;
pub mod clock;
pub mod durable;
pub mod lines;
pub mod networks;
pub mod seldom;
pub mod version;
pub mod words;
