//! Batches made ready for the wire.

use crate::base::frames::Frames;
use crate::limits;
use crate::record::Epoch;
use crate::record::batch;
use crate::record::batch::BadBatch;
use crate::record::lines::Lines;
use std::io;

/// Compresses batches; keeps its working memory between two.
pub struct Packer(Frames);

impl Packer {
    /// A packer of `limits::BATCH_ZSTD_LEVEL`.
    pub fn new() -> io::Result<Packer> {
        Ok(Packer(Frames::new(limits::BATCH_ZSTD_LEVEL)?))
    }

    /// A batch of these lines, compressed. In two frames, so that nobody has to copy the lines behind the head first. Blocks.
    pub fn pack(&mut self, node: &str, epoch: Epoch, lines: &Lines) -> Result<Vec<u8>, BadBatch> {
        let head = batch::head(node, epoch, lines)?;
        let mut packed = Vec::new();
        for part in [&head, lines.text()] {
            self.0.add(part, &mut packed).map_err(|error| BadBatch(format!("it cannot be compressed: {error}")))?;
        }
        Ok(packed)
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
