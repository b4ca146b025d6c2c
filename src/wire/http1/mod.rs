//! HTTP/1.1 as RFC 9110 and RFC 9112 have it, sans-IO and strict.
//!
//! A gateway that reads a message differently from the machine behind it can be made to pass what it would refuse, so
//! that whatever two readers might understand in two ways is refused here, with a typed error that knows its status.
//! Bytes come in, ranges into the caller's buffer go out; a [`RequestHead`] or [`ReplyHead`] is kept by its connection and
//! filled again for every message, so that in steady state reading a head allocates nothing.
//!
//! | noun | where |
//! |---|---|
//! | request head | [`parse_request`], [`RequestHead`], [`RequestError`] |
//! | reply head | [`parse_reply`], [`ReplyHead`], [`ReplyError`] |
//! | body | [`BodyFraming`], [`ChunkedDecoder`] |
//! | what goes on | [`forward_request`], [`forward_reply`] |
//! | what we say ourselves | [`write_answer`], [`Answer`] |
//!
//! Decisions where the RFCs leave a choice: an absolute target whose authority differs from Host is refused rather than
//! obeyed; any repeated Content-Length is refused, equal or not; transfer codings other than a single `chunked` are not
//! served; HTTP/1.0 clients are never kept alive (RFC 9112 section 9.3 forbids it to proxies); a host whose last label is a
//! number must be a dotted quad, so that `http://0x7f000001/` cannot be one host to policy and another to a resolver.

mod answer;
mod body;
mod chunked;
mod forward;
mod head;
mod reply;
mod request;
mod request_error;
mod target;

pub use answer::{Answer, CONTINUE, ESTABLISHED, http_date, reason_phrase, write_answer, write_proxy_status};
pub use body::BodyFraming;
pub use chunked::{ChunkedDecoder, ChunkedError, Passed, Piece, Scan};
pub use forward::{ForwardReply, ForwardRequest, ForwardTo, ReplyPlan, TellClient, forward_reply, forward_request};
pub use head::{Parsed, Version};
pub use reply::{ReplyError, ReplyHead, ReplyTo, parse_reply};
pub use request::{RequestHead, parse_request};
pub use request_error::RequestError;
pub use target::{Scheme, TargetForm};
