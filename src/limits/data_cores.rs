//! The bounds of the data cores: what clients and origins can make a node hold, and for how long.

use super::*;

/// How often a core looks for overdue connections, in milliseconds; every deadline is this coarse. 10 wake-ups a second
/// of an idle core do not show in its CPU time.
pub const DEADLINE_SWEEP_MS: u64 = 100;
/// How long a core waits before it accepts again when descriptors or memory ran out, in milliseconds.
pub const ACCEPT_BACK_OFF_MS: u64 = 100;
/// Buffers of [`HEAD_BUFFER_BYTES`] that a core lends to the kernel, which fills them in turn with what arrives; a power of
/// two. One that is filled is replaced at once, so this bounds only what arrives in one turn of the ring, which is some twenty
/// connections; more waits for the next. Few, so that the memory they touch stays in the processor's cache.
pub const ARRIVALS_LENT: u16 = 64;
/// The same for kernels that receive for all connections in one turn: who finds none has to begin anew, which is dear.
pub const ARRIVALS_LENT_BEFORE_6_1: u16 = 1024;
/// Accepts and connects are handed to the kernel at least this often, in milliseconds, however busy the streams are.
pub const OTHER_RING_WAITS_MS_MAX: u64 = 1;
/// Buffers of bytes that may have arrived on a watched connection before anybody took them. Then the watch ends and the rest
/// waits in the kernel, which slows the peer down. What the kernel has under way by then still arrives: some thirty buffers.
pub const ARRIVED_MAX: usize = 4;
/// Submissions a core's ring holds before it must be flushed.
pub const RING_ENTRIES: u32 = 2048;
/// The size of a long stream's pipe, and the most one splice(2) is asked to move into any pipe, in bytes; unprivileged users may
/// not have larger ones.
pub const PIPE_LONG_BYTES: usize = 1024 * 1024;
/// The smallest pipe worth having for a body, in bytes: who has spent the user's pipe pages gets two pages.
pub const PIPE_BYTES_MIN: usize = 64 * 1024;
/// Pipes a core keeps for coming tunnels and bodies (each is two descriptors).
pub const PIPES_KEPT_MAX: usize = 64;
/// Pipes a core has lent above which bodies go through buffers: a tunnel cannot do without one, a body can.
pub const PIPES_LENT_MAX: usize = 256;
/// From how many bytes on a body, or one direction of a tunnel, counts as a long stream and gets a long pipe.
pub const PIPE_LONG_FROM_BYTES: u64 = 1024 * 1024;
/// Long pipes a core holds at once: 16 of 1 MiB leave most of a user's 64 MiB of pipe pages to ordinary pipes.
pub const PIPES_LONG_MAX: usize = 16;
/// Bytes a tunnel or body may move through its pipe before other connections of its core get their turn: copying them takes some
/// tenths of a millisecond, and a request needs four turns or five.
pub const PIPE_TURN_BYTES_MAX: usize = 1024 * 1024;
/// Fillings a tunnel may move before, however small they are.
pub const PIPE_TURNS_MAX: u32 = 16;
/// From how many bytes on what is left of a body goes through a pipe, in bytes: below, setting it up costs more than copying.
pub const PIPE_BODY_BYTES_MIN: u64 = 64 * 1024;
/// Client connections a core serves at once; what comes beyond is told 503 and closed.
pub const CONNECTIONS_PER_CORE_MAX: usize = 32 * 1024;
/// Client connections that a core is telling 503 at once; what comes beyond is reset without a word, so that turning away
/// never costs more than serving.
pub const SHEDDING_PER_CORE_MAX: u64 = 256;
/// Rows of the table that counts connections by client address. An address is counted in every row at a place of its own,
/// and the smallest count holds: to be taken for a busy client one has to share all its places.
pub const CLIENT_TABLE_ROWS: usize = 2;
/// Places of a row: with 8,000 clients at once one in seventy shares both its places with others, and that matters only
/// if those are near the limit. Four bytes each, shared by all cores.
pub const CLIENT_TABLE_PLACES: usize = 64 * 1024;
/// How often the node looks whether a peak of connections is over, in seconds.
pub const PEAK_LOOK_S: u64 = 5;
/// Connections below which there was no peak worth giving memory back for: their buffers are kept anyway.
pub const PEAK_CONNECTIONS_MIN: u64 = 512;
/// How often a core tells the journal of refused connections, in milliseconds; the counters count each.
pub const REFUSALS_TOLD_MS: u64 = 10_000;
/// Lines of one kind that peers of port 8888 can cause and that are told in that time; more are counted. A cluster that is being set
/// up is refused for several reasons at several addresses, and each should be read.
pub const PEER_LINES_TOLD_MAX: u32 = 20;
/// As much of one file goes into diagnostics, in bytes: the largest policy document fits.
pub const DIAGNOSTICS_FILE_BYTES_MAX: usize = POLICY_DOCUMENT_BYTES_MAX;
/// As much of the end of a log goes into diagnostics, in bytes: some thousand requests.
pub const DIAGNOSTICS_LOG_BYTES_MAX: u64 = 1024 * 1024;
/// Files of diagnostics, at most; their number is fixed by the code, the bound is for the archive's size.
pub const DIAGNOSTICS_FILES_MAX: usize = 32;
/// Entries of one folder that diagnostics list.
pub const DIAGNOSTICS_ENTRIES_MAX: usize = 1_000;
/// The largest archive of diagnostics, in bytes, once compressed: what is larger is refused in words rather than sent.
pub const DIAGNOSTICS_ARCHIVE_BYTES_MAX: usize = 32 * 1024 * 1024;
const _: () = assert!(DIAGNOSTICS_ARCHIVE_BYTES_MAX / 3 * 4 < CONTROL_ANSWER_BYTES_MAX);
const _: () = assert!(DIAGNOSTICS_LOG_BYTES_MAX <= DIAGNOSTICS_FILE_BYTES_MAX as u64);
/// As much of a file below /proc is read to know the host, in bytes: a few processors of /proc/cpuinfo.
pub const KERNEL_FILE_BYTES_MAX: usize = 64 * 1024;
/// The last messages a node keeps in memory, for diagnostics: a day of a healthy node, some minutes of a sick one.
pub const MESSAGES_KEPT_MAX: usize = 500;
/// As much of each is kept, in characters.
pub const MESSAGE_CHARS_MAX: usize = 1_000;
/// Orders that may wait in a core's mailbox; they come from one publisher and one main thread.
pub const CORE_MAILBOX_MAX: usize = 16;
/// The size of the buffers heads are read into and written from, in bytes; a longer head grows its buffer to
/// [`HEAD_BYTES_MAX`]. Not a power of two: a thousand buffers that all begin at the same distance from a page would fall into
/// the same few sets of the processor's caches.
pub const HEAD_BUFFER_BYTES: usize = 16 * 1024 + 3 * 64;
/// The size of the buffers bodies are moved through, in bytes.
pub const BODY_BUFFER_BYTES: usize = 64 * 1024;
/// Free buffers of each size that a core keeps. What is not needed for [`POOL_SWEEP_MS`] is freed, down to
/// [`BUFFERS_KEPT_MIN`].
pub const BUFFERS_KEPT_MAX: usize = 4096;
/// Blocks for exchanges, some 3 KiB each, that a core keeps while it may need them; see `io::Shelf`.
pub const EXCHANGES_SHELVED_MAX: usize = 1024;
/// Free buffers of each size that a core keeps even if it does not need them.
pub const BUFFERS_KEPT_MIN: usize = 64;
/// Addresses of one host that are tried, at most.
pub const DIAL_ADDRESSES_MAX: usize = 6;
/// How long one address may be silent before the next is tried beside it, in milliseconds (RFC 8305 section 5).
pub const DIAL_STAGGER_MS: u64 = 250;
/// How long a first IPv4 answer waits for the IPv6 one, in milliseconds (RFC 8305 section 3).
pub const RESOLUTION_DELAY_MS: u64 = 50;
/// Names of which a core remembers what name servers said, at most; each answer also ends with its TTL.
pub const RESOLVER_NAMES_MAX: usize = 4096;
/// The longest an address is believed without asking again, in seconds: a TTL of weeks is an error, or an attack.
pub const RESOLVER_FOUND_S_MAX: u64 = 24 * 3_600;
/// The longest a name is believed not to exist, in seconds: a site that is being set up is found within minutes, whatever
/// its zone says.
pub const RESOLVER_ABSENT_S_MAX: u64 = 300;
/// The most characters kept of what a failed question says: it is remembered by name, and a name server may have had a say in it.
pub const RESOLVER_WORDS_CHARS_MAX: usize = 200;
/// How long a failure of the name servers is remembered, in seconds (RFC 9520 section 3.2: 1 to 300).
pub const RESOLVER_FAILED_S: u64 = 5;
/// As much of /etc/hosts and /etc/resolv.conf is read, in bytes.
pub const HOSTS_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a core looks whether /etc/resolv.conf, /etc/hosts or a file of credentials has changed, in milliseconds.
pub const SYSTEM_LOOK_MS: u64 = 2_000;
/// Addresses that failed lately of which a core remembers it.
pub const PENALTIES_MAX: usize = 1024;
/// How long an address that failed once is tried last, in milliseconds; twice as long each further time.
pub const PENALTY_MS: u64 = 30_000;
/// The longest an address is tried last, in milliseconds.
pub const PENALTY_MS_MAX: u64 = 600_000;
/// How long a connection is used again without asking whether its name has moved, at least, in milliseconds: a TTL of 0
/// must not mean a question for each request.
pub const POOLED_BELIEVED_MS_MIN: u64 = 5_000;
/// The same, at most: where a TTL says more, a moved site is still followed within this time.
pub const POOLED_BELIEVED_MS_MAX: u64 = 300_000;
/// How soon a parent proxy that failed is looked at again, in milliseconds; twice as long each further time.
pub const PARENT_LOOK_MS: u64 = 500;
/// The longest a parent proxy that is down is not looked at, in milliseconds: so long its return may go unnoticed.
pub const PARENT_LOOK_MS_MAX: u64 = 10_000;
/// The longest answer of a parent proxy to a CONNECT, in bytes.
pub const PARENT_ANSWER_BYTES_MAX: usize = 16 * 1024;
/// The largest file of credentials, in bytes: a name and a password of 255 each (RFC 1929) fit.
pub const CREDENTIALS_BYTES_MAX: usize = 1024;
/// Connections to origins that a client's connection may have for itself, because it authenticated on them: a browser
/// speaks with one site on a connection, rarely with two.
pub const BOUND_PER_CLIENT_MAX: usize = 4;
/// Idle connections to origins that a core keeps.
pub const POOLED_PER_CORE_MAX: usize = 8192;
/// Idle connections to one host that a core keeps.
pub const POOLED_PER_HOST_MAX: usize = 2048;
/// How often a core closes idle connections that have grown old, in milliseconds.
pub const POOL_SWEEP_MS: u64 = 2_000;
/// How often a node reads anew which addresses its host has, in milliseconds.
pub const OWN_ADDRESSES_REFRESH_MS: u64 = 60_000;

const _: () = assert!(CLIENT_TABLE_PLACES.is_power_of_two());
const _: () = assert!(POOLED_PER_HOST_MAX <= POOLED_PER_CORE_MAX && DEADLINE_SWEEP_MS < DIAL_STAGGER_MS);
const _: () = assert!(RESOLUTION_DELAY_MS < DIAL_STAGGER_MS && PENALTY_MS <= PENALTY_MS_MAX);
const _: () = assert!(POOLED_BELIEVED_MS_MIN <= POOLED_BELIEVED_MS_MAX);
