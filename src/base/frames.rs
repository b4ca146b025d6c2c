//! Compressed frames, made in short steps: a megabyte takes milliseconds, and the processor may be one of a data core's.

use crate::base::breath::BREATH_STEP_BYTES;
use crate::base::breath::Breath;
use std::io;
use zstd::stream::raw::Encoder;
use zstd::stream::raw::InBuffer;
use zstd::stream::raw::Operation;
use zstd::stream::raw::OutBuffer;
use zstd::zstd_safe::CParameter;
use zstd::zstd_safe::compress_bound;

/// Makes frames; keeps its working memory between two.
pub struct Frames(Encoder<'static>);

impl Frames {
    /// Of a level of zstd.
    pub fn new(level: i32) -> io::Result<Frames> {
        Ok(Frames(Encoder::new(level)?))
    }

    /// With zstd's own sum at the end of each frame.
    pub fn with_sums(level: i32) -> io::Result<Frames> {
        let mut frames = Frames::new(level)?;
        frames.0.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(frames)
    }

    /// Adds a frame of `part` to `packed`. Blocks, and sleeps between steps.
    pub fn add(&mut self, part: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
        let mut breath = Breath::start();
        packed.reserve(compress_bound(part.len()));
        self.0.reinit()?;
        self.0.set_pledged_src_size(Some(part.len() as u64))?;
        let begun = packed.len();
        let mut out = OutBuffer::around_pos(packed, begun);
        // The compressor works off blocks of 128 KiB, a fifth of a millisecond each.
        for step in part.chunks(BREATH_STEP_BYTES) {
            let mut step = InBuffer::around(step);
            while step.pos() < step.src.len() {
                let before = step.pos();
                self.0.run(&mut step, &mut out)?;
                if step.pos() == before {
                    return Err(io::Error::other("the compressor takes no more"));
                }
            }
            breath.take();
        }
        match self.0.finish(&mut out, true)? {
            0 => Ok(()),
            left => Err(io::Error::other(format!("{left} bytes of a compressed frame had no room"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zstd::zstd_safe::get_frame_content_size;

    #[test]
    fn frames_of_any_size_say_their_size_and_unpack_to_what_went_in() {
        // What cannot be made smaller, and what can.
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for sums in [false, true] {
            let mut frames = if sums { Frames::with_sums(1) } else { Frames::new(1) }.unwrap();
            for size in [0, 1, BREATH_STEP_BYTES, BREATH_STEP_BYTES + 1, 3_000_001] {
                for part in [vec![b'x'; size], (0..size).map(|_| noise()).collect::<Vec<u8>>()] {
                    let mut packed = b"before".to_vec();
                    frames.add(&part, &mut packed).unwrap();
                    let frame = packed.strip_prefix(b"before").unwrap();
                    assert_eq!(get_frame_content_size(frame).ok().flatten(), Some(size as u64));
                    assert_eq!(zstd::decode_all(frame).unwrap(), part);
                    assert_eq!(frame[4] & 0x04 != 0, sums, "the descriptor's bit for a sum (RFC 8878, 3.1.1.1.1)");
                }
            }
        }
    }
}
