//! The bounds of rollouts in waves (`docs/policy.md`).

use super::*;

/// The most waves of a rollout: more than anybody would watch.
pub const ROLLOUT_WAVES_MAX: usize = 16;
/// How long each wave may be watched, in seconds: figures come every [`FIGURES_EVERY_MS`], so that less would compare noise.
pub const ROLLOUT_WINDOW_S_MIN: u64 = 10;
/// See above; beyond an hour somebody should look themselves.
pub const ROLLOUT_WINDOW_S_MAX: u64 = 3_600;
/// Unless said otherwise.
pub const ROLLOUT_WINDOW_S: u64 = 30;
/// All slaves of a wave must report the version after this, in milliseconds: a slave that lost its connection is back within
/// [`CLUSTER_HOLD_MS_MAX`] and a few seconds of backoff, also after the master's own restart.
pub const ROLLOUT_APPLIED_MS: u64 = 30_000;
/// A slave of the wave that was not heard of for so long while it was watched has fallen silent, in milliseconds: three times
/// [`FIGURES_EVERY_MS`], within which each slave is heard of. Whether a node is up takes twice its SYNCTIME to tell, longer than most windows.
pub const ROLLOUT_SILENT_MS: u64 = 3 * FIGURES_EVERY_MS;
/// Exchanges that wave and rest must each have had in the window for their shares to say something.
pub const ROLLOUT_EXCHANGES_MIN: u64 = 100;
/// A share (of a thousand exchanges) is worse if it is twice the rest's and above it by more than this.
pub const ROLLOUT_RISE_MILLI: u64 = 50;
/// CPU time for an exchange is worse if it is twice the rest's and above it by more than this, in microseconds.
pub const ROLLOUT_CPU_RISE_US: u64 = 500;
/// A node's time of start as it reckons it wanders with its clock; by more than this, in seconds, it is another start.
pub const ROLLOUT_START_SLACK_S: u64 = 5;
/// Lines of what happened that a rollout keeps: four for each wave.
pub const ROLLOUT_NOTES_MAX: usize = 4 * ROLLOUT_WAVES_MAX;
/// How often a running rollout looks at its slaves, in milliseconds.
pub const ROLLOUT_LOOK_MS: u64 = 250;
/// A master that did not look for so long was held up, and one whose clock moved by so much otherwise was set, in milliseconds: less than makes a
/// slave look silent that was heard of [`FIGURES_EVERY_MS`] before.
pub const ROLLOUT_STALL_MS: u64 = 8_000;
/// How long it waits when it could not keep how far it is, in milliseconds: each time is an error in the journal.
pub const ROLLOUT_AGAIN_MS: u64 = 5_000;
/// `tidegate policy rollout --follow` asks this often, in milliseconds.
pub const ROLLOUT_FOLLOW_MS: u64 = 500;
