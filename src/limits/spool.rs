//! The bounds of the spool: the slots that hold a core's records until the log's writer has them.

/// Slots of the spool for ordinary records, unless RECORD_SLOTS says otherwise: so many exchanges may be open on a core at once.
pub const SPOOL_SMALL_SLOTS: u32 = 16 * 1024;
/// The fewest that RECORD_SLOTS may say: what closes in the time of one nap of the log's writer must find room.
pub const RECORD_SLOTS_MIN: u32 = 256;
/// The most: 3 GiB of disk for each data core.
pub const RECORD_SLOTS_MAX: u32 = 1024 * 1024;
/// How often the journal says that exchanges are refused for want of a slot, in milliseconds.
pub const SHEDDING_TOLD_EVERY_MS: u64 = 60_000;
/// Of so many ordinary slots there is one large one.
pub const SPOOL_SMALL_PER_LARGE: u32 = 16;
/// Size of such a slot in bytes: a URL, a user agent and a referer of usual lengths and a dozen names fit.
pub const SPOOL_SMALL_SLOT_BYTES: u32 = 1024;
/// Slots for records with long texts, and for the rest when the small ones are out.
pub const SPOOL_LARGE_SLOTS: u32 = SPOOL_SMALL_SLOTS / SPOOL_SMALL_PER_LARGE;
/// Size of such a slot in bytes: the longest record fits.
pub const SPOOL_LARGE_SLOT_BYTES: u32 = 32 * 1024;
/// The fixed part of a slot in bytes: nine words of state and numbers, then identity and lengths of the texts.
pub const SPOOL_SLOT_FIXED_BYTES: usize = 72 + 106;
/// The most spool files a node recovers: cores of this and former runs.
pub const SPOOL_FILES_MAX: usize = 1024;
/// So many spool files of predecessors may wait for a full disk when a node starts, beside its own: each takes as much of STATE_DIR as those of a core.
/// With more the node does not start before there is room.
pub const SPOOL_FILES_WAITING_MAX: usize = 32;
const _: () = assert!(SPOOL_SMALL_SLOT_BYTES.is_multiple_of(8) && SPOOL_LARGE_SLOT_BYTES.is_multiple_of(8));
