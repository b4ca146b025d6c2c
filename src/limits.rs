//! Every bound of the product, with its reason, and the relations between them, proven at compile time.
//!
//! Nothing a client, an origin, a slave or a file sends may make a node grow without bound (law 7): whoever adds an
//! input adds its limit here.

/// The longest request line we read, in bytes. RFC 9112 section 3 asks for at least 8,000 octets.
pub const REQUEST_LINE_BYTES_MAX: usize = 16 * 1024;
/// The longest message head (request or reply line plus all fields), in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most header fields in one head.
pub const HEAD_FIELDS_MAX: usize = 256;

/// The largest policy document an administrator may submit, in bytes: a list of a hundred thousand hosts fits inline,
/// longer lists belong in files.
pub const POLICY_DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest compiled snapshot a node accepts, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The longest URL a record keeps, in bytes; what is longer is cut and ends in `...`.
pub const RECORD_URL_BYTES_MAX: usize = 8 * 1024;

const _: () = assert!(REQUEST_LINE_BYTES_MAX < HEAD_BYTES_MAX, "a longest request line must leave room for fields");
const _: () = assert!(RECORD_URL_BYTES_MAX <= REQUEST_LINE_BYTES_MAX);

// --- policy --------------------------------------------------------------------------------------------------------

/// The most names one list of a policy may define (profiles, user groups, time profiles, request types, categories
/// each). A request's tags are fixed sets of this many bits, so that deciding allocates nothing.
pub const POLICY_NAMES_PER_LIST_MAX: usize = 256;
const _: () = assert!(POLICY_NAMES_PER_LIST_MAX & 63 == 0, "tags are whole 64-bit words");
