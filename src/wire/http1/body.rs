//! How a message says where its body ends (RFC 9112 section 6.3).

use super::head::CodingSaid;
use super::head::LengthSaid;
use super::head::Said;
use super::head::Version;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BodyFraming {
    /// There is none: the next message starts right after the head.
    #[default]
    None,
    /// After this many bytes.
    Length(u64),
    /// Where [`super::ChunkedDecoder`] says so.
    Chunked,
    /// When the origin closes its connection; replies only.
    Close,
}

impl BodyFraming {
    /// There are body bytes to relay, or may be.
    pub fn has_body(self) -> bool {
        !matches!(self, BodyFraming::None | BodyFraming::Length(0))
    }
}

/// What makes framing ambiguous; requests and replies name it in their own errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FramingFault {
    LengthMalformed,
    LengthTooLarge,
    LengthRepeated,
    LengthWithCoding,
    CodingUnknown,
    CodingMalformed,
    CodingInOldVersion,
}

/// The framing the fields announce; `Ok(None)` when they announce nothing.
pub(super) fn announced(said: &Said, version: Version) -> Result<Option<BodyFraming>, FramingFault> {
    // Both together is how requests are smuggled: RFC 9112 section 6.1 lets a server refuse, and so we do.
    if said.coding != CodingSaid::Nothing && said.length != LengthSaid::Nothing {
        return Err(FramingFault::LengthWithCoding);
    }
    if said.coding != CodingSaid::Nothing && version == Version::Http10 {
        return Err(FramingFault::CodingInOldVersion);
    }
    match said.coding {
        CodingSaid::Chunked => return Ok(Some(BodyFraming::Chunked)),
        CodingSaid::Unknown => return Err(FramingFault::CodingUnknown),
        CodingSaid::Malformed => return Err(FramingFault::CodingMalformed),
        CodingSaid::Nothing => {}
    }
    match said.length {
        LengthSaid::Nothing => Ok(None),
        LengthSaid::Bytes(bytes) => Ok(Some(BodyFraming::Length(bytes))),
        LengthSaid::Malformed => Err(FramingFault::LengthMalformed),
        LengthSaid::TooLarge => Err(FramingFault::LengthTooLarge),
        LengthSaid::Repeated => Err(FramingFault::LengthRepeated),
    }
}
