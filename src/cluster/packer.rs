//! Batches made ready for the wire.

use crate::limits;
use crate::record::Epoch;
use crate::record::batch;
use crate::record::batch::BadBatch;
use crate::record::lines::Lines;
use std::io;
use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

/// Compresses batches; keeps its working memory between two.
pub struct Packer(Compressor<'static>);

impl Packer {
    /// A packer of `limits::BATCH_ZSTD_LEVEL`.
    pub fn new() -> io::Result<Packer> {
        Ok(Packer(Compressor::new(limits::BATCH_ZSTD_LEVEL)?))
    }

    /// A batch of these lines, compressed. In two frames, so that nobody has to copy the lines behind the head first.
    pub fn pack(&mut self, node: &str, epoch: Epoch, lines: &Lines) -> Result<Vec<u8>, BadBatch> {
        let head = batch::head(node, epoch, lines)?;
        let room = compress_bound(head.len()) + compress_bound(lines.text().len());
        let mut packed = io::Cursor::new(Vec::with_capacity(room));
        for part in [&head, lines.text()] {
            packed.set_position(packed.get_ref().len() as u64);
            let done = self.0.compress_to_buffer(part, &mut packed);
            done.map_err(|error| BadBatch(format!("it cannot be compressed: {error}")))?;
        }
        Ok(packed.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn a_packed_batch_unpacks_to_the_same_bytes_time_and_again() {
        let mut packer = Packer::new().unwrap();
        for count in [1, 100, 3000] {
            let url = "http://a.test/".to_string();
            let records: Vec<Record> =
                (1..=count).map(|seq| Record { seq, url: url.clone(), ..Record::default() }).collect();
            let lines = Lines::of(&records);
            let packed = packer.pack("edge-1", Epoch([5; 16]), &lines).unwrap();
            let whole = batch::encode("edge-1", Epoch([5; 16]), &lines).unwrap();
            assert_eq!(zstd::decode_all(&packed[..]).unwrap(), whole);
            assert!(packed.len() < 400 + lines.text().len() / 5);
        }
    }
}
