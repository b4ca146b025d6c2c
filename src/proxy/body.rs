//! Where a body on its way through ends.

use crate::limits::PIPE_BODY_BYTES_MIN;
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
    /// Bytes at the front that go on: fewer, where chunk extensions were left out.
    pub(super) kept: usize,
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

    /// How many bytes may go on unread now that `moved` have: of a body that is long, all that is left.
    pub(super) fn unread(&self, moved: u64) -> Option<u64> {
        match self {
            Body::Length(left) => (*left >= PIPE_BODY_BYTES_MIN).then_some(*left),
            // How long it is shows when it has been long.
            Body::UntilClose => (moved >= PIPE_BODY_BYTES_MIN).then_some(u64::MAX),
            Body::Chunked(_) => None,
        }
    }

    /// So many bytes of it have gone on unread.
    pub(super) fn passed(&mut self, bytes: u64) {
        if let Body::Length(left) = self {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Whether the sender's close is its proper end.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self, Body::UntilClose)
    }

    /// How much of the front of `bytes` is of this body; what is behind is not. What goes on is moved together at the
    /// front, so that nobody behind us reads chunk extensions.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, ChunkedError> {
        if let Body::Chunked(decoder) = self {
            let passed = decoder.pass(bytes)?;
            return Ok(Taken { bytes: passed.consumed, kept: passed.kept, payload: passed.payload as u64 });
        }
        self.look(bytes)
    }

    /// As [`Body::take`], and changes nothing in `bytes`: what was kept is found with another [`Body`] later.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<Taken, ChunkedError> {
        let count = match self {
            Body::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                count
            }
            Body::Chunked(decoder) => {
                let scan = decoder.scan(bytes)?;
                return Ok(Taken { bytes: scan.consumed, kept: scan.consumed, payload: scan.payload as u64 });
            }
            Body::UntilClose => bytes.len(),
        };
        Ok(Taken { bytes: count, kept: count, payload: count as u64 })
    }

    /// As [`Body::take`], and appends what goes on to `out`: the body as it is framed, or its payload alone.
    pub(super) fn pass(&mut self, bytes: &[u8], dechunk: bool, out: &mut Vec<u8>) -> Result<Taken, ChunkedError> {
        if dechunk {
            return self.take_payload(bytes, out);
        }
        let start = out.len();
        out.extend_from_slice(bytes);
        let taken = self.take(&mut out[start..])?;
        out.truncate(start + taken.kept);
        Ok(taken)
    }

    /// As [`Body::take`], and appends the payload alone to `out`.
    pub(super) fn take_payload(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Taken, ChunkedError> {
        let Body::Chunked(decoder) = self else {
            return self.pass(bytes, false, out);
        };
        let mut taken = Taken::default();
        while taken.bytes < bytes.len() && !decoder.ended() {
            let rest = &bytes[taken.bytes..];
            let piece = decoder.next(rest)?;
            out.extend_from_slice(&rest[piece.payload.clone()]);
            taken.payload += piece.payload.len() as u64;
            taken.bytes += piece.consumed;
            taken.kept += piece.payload.len();
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_its_own_and_leaves_what_is_behind() {
        type Row = (BodyFraming, &'static [u8], usize, bool, &'static [u8], &'static [u8]);
        let table: [Row; 7] = [
            (BodyFraming::None, b"next", 0, true, b"", b""),
            (BodyFraming::Length(3), b"abcnext", 3, true, b"abc", b"abc"),
            (BodyFraming::Length(9), b"abc", 3, false, b"abc", b"abc"),
            (BodyFraming::Chunked, b"3\r\nabc\r\n0\r\n\r\nnext", 13, true, b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
            (BodyFraming::Chunked, b"3 ;x=y\r\nabc\r\n0;z\r\n\r\nnext", 20, true, b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
            (BodyFraming::Chunked, b"5\r\nab", 5, false, b"5\r\nab", b"ab"),
            (BodyFraming::Close, b"all", 3, false, b"all", b"all"),
        ];
        for (framing, bytes, taken, whole, framed, plain) in table {
            let payload = plain.len() as u64;
            for (dechunk, expected) in [(false, framed), (true, plain)] {
                let (mut body, mut out) = (Body::new(framing), b"before".to_vec());
                let said = body.pass(bytes, dechunk, &mut out).unwrap();
                assert_eq!(said, Taken { bytes: taken, kept: expected.len(), payload }, "{framing:?}");
                assert_eq!((body.is_whole(), &out[6..]), (whole, expected), "{framing:?}");
            }
            let mut body = Body::new(framing);
            assert_eq!(body.look(bytes).unwrap(), Taken { bytes: taken, kept: taken, payload }, "{framing:?}");
            assert_eq!(body.is_whole(), whole, "{framing:?}");
            let (mut body, mut bytes) = (Body::new(framing), bytes.to_vec());
            let behind = bytes[taken..].to_vec();
            let said = body.take(&mut bytes).unwrap();
            assert_eq!((&bytes[..said.kept], &bytes[taken..]), (framed, &behind[..]), "{framing:?}");
        }
    }
}
