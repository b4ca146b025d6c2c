//! Where a body on its way through ends.

use crate::wire::http1::BodyFraming;
use crate::wire::http1::ChunkedDecoder;
use crate::wire::http1::ChunkedError;

/// What is still to come of a body.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// What the chunks say.
    Chunked(Box<ChunkedDecoder>),
    /// Everything until the sender closes.
    UntilClose,
}

/// What of a piece of bytes belongs to the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes of the body as it is framed.
    pub(super) bytes: usize,
    /// Of these, payload.
    pub(super) payload: u64,
}

impl Body {
    pub(super) fn new(framing: BodyFraming) -> Body {
        match framing {
            BodyFraming::None => Body::Length(0),
            BodyFraming::Length(bytes) => Body::Length(bytes),
            BodyFraming::Chunked => Body::Chunked(Box::default()),
            BodyFraming::Close => Body::UntilClose,
        }
    }

    /// Whether nothing more is to come.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(decoder) => decoder.ended(),
            Body::UntilClose => false,
        }
    }

    /// Whether the sender's close is its proper end.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self, Body::UntilClose)
    }

    /// How much of the front of `bytes` is of this body; what is behind is not.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Taken, ChunkedError> {
        match self {
            Body::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                Ok(Taken { bytes: count, payload: count as u64 })
            }
            Body::Chunked(decoder) => {
                let scan = decoder.scan(bytes)?;
                Ok(Taken { bytes: scan.consumed, payload: scan.payload as u64 })
            }
            Body::UntilClose => Ok(Taken { bytes: bytes.len(), payload: bytes.len() as u64 }),
        }
    }

    /// As [`Body::take`], and appends the payload alone to `out`.
    pub(super) fn take_payload(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Taken, ChunkedError> {
        let Body::Chunked(decoder) = self else {
            let taken = self.take(bytes)?;
            out.extend_from_slice(&bytes[..taken.bytes]);
            return Ok(taken);
        };
        let mut taken = Taken::default();
        while taken.bytes < bytes.len() && !decoder.ended() {
            let rest = &bytes[taken.bytes..];
            let piece = decoder.next(rest)?;
            out.extend_from_slice(&rest[piece.payload.clone()]);
            taken.payload += piece.payload.len() as u64;
            taken.bytes += piece.consumed;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_its_own_and_leaves_what_is_behind() {
        type Row = (BodyFraming, &'static [u8], usize, u64, bool, &'static [u8]);
        let table: [Row; 6] = [
            (BodyFraming::None, b"next", 0, 0, true, b""),
            (BodyFraming::Length(3), b"abcnext", 3, 3, true, b"abc"),
            (BodyFraming::Length(9), b"abc", 3, 3, false, b"abc"),
            (BodyFraming::Chunked, b"3\r\nabc\r\n0\r\n\r\nnext", 13, 3, true, b"abc"),
            (BodyFraming::Chunked, b"5\r\nab", 5, 2, false, b"ab"),
            (BodyFraming::Close, b"all", 3, 3, false, b"all"),
        ];
        for (framing, bytes, taken, payload, whole, plain) in table {
            let expected = Taken { bytes: taken, payload };
            let mut body = Body::new(framing);
            assert_eq!(body.take(bytes).unwrap(), expected, "{framing:?}");
            assert_eq!(body.is_whole(), whole, "{framing:?}");
            let (mut body, mut out) = (Body::new(framing), Vec::new());
            assert_eq!(body.take_payload(bytes, &mut out).unwrap(), expected, "{framing:?}");
            assert_eq!((body.is_whole(), &out[..]), (whole, plain), "{framing:?}");
        }
    }
}
