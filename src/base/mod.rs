//! The ground: clock as a value, durable files, lines, networks, words for people, lines told seldom, long work in short steps, archives that carry
//! the proof of their check.
pub mod archive;
pub mod breath;
pub mod clock;
pub mod durable;
pub mod frames;
pub mod lines;
pub mod networks;
pub mod seldom;
pub mod version;
pub mod words;
