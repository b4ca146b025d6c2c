//! `Verified<T>`: bytes we own, with the proof that rkyv checked them, so that readers use them in place.
#![allow(unsafe_code)] // the one unchecked access below, after the check that makes it sound

use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable};
use std::marker::PhantomData;

/// Bytes that somebody keeps in their place.
///
/// # Safety
///
/// [`StableBytes::bytes`] always answers the same bytes at the same address, and nobody changes them, as long as the value
/// lives, wherever it is moved to.
pub unsafe trait StableBytes: Send + Sync {
    /// They.
    fn bytes(&self) -> &[u8];
}

// JUSTIFICATION: copied bytes are kept like mapped ones.
// SAFETY: the vector is owned by a `Verified`, which hands it to nobody; moving it does not move its heap.
unsafe impl StableBytes for AlignedVec {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Bytes that hold a valid archive of `T`. Made only by [`Verified::check`] and [`Verified::adopt`]; immutable after.
pub struct Verified<T: Archive> {
    /// Into what `_keeper` keeps.
    start: *const u8,
    length: usize,
    _keeper: Box<dyn StableBytes>,
    of: PhantomData<fn() -> T>,
}

// JUSTIFICATION: all cores read one snapshot; the pointer alone would tie it to a thread.
// SAFETY: the bytes are read only, and their keeper is Send and Sync.
unsafe impl<T: Archive> Send for Verified<T> {}
// JUSTIFICATION: as above.
// SAFETY: as above.
unsafe impl<T: Archive> Sync for Verified<T> {}

impl<T> Verified<T>
where
    T: Archive,
    T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, Error>>,
{
    /// Copies `bytes` to aligned memory and checks that they are an archive of `T`. The error says what rkyv found.
    pub fn check(bytes: &[u8]) -> Result<Self, String> {
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        Self::adopt(Box::new(aligned), 0)
    }

    /// Checks that the bytes of `keeper` from `from` on are an archive of `T`, and uses them where they are. They must be
    /// aligned as rkyv wants it (to 16 bytes).
    pub fn adopt(keeper: Box<dyn StableBytes>, from: usize) -> Result<Self, String> {
        let bytes = keeper.bytes().get(from..).ok_or("the archive begins behind the end")?;
        rkyv::access::<T::Archived, Error>(bytes).map_err(|error| error.to_string())?;
        let (start, length) = (bytes.as_ptr(), bytes.len());
        Ok(Verified { start, length, _keeper: keeper, of: PhantomData })
    }

    /// The archive, read in place.
    #[inline]
    pub fn get(&self) -> &T::Archived {
        // JUSTIFICATION: checking again costs time in proportion to the archive, and a snapshot is read per request.
        // SAFETY: `adopt` validated exactly these bytes as a `T::Archived` at their root, alignment included; their keeper
        // keeps them in place and unchanged.
        unsafe { rkyv::access_unchecked::<T::Archived>(self.bytes()) }
    }

    /// The bytes of the archive.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // JUSTIFICATION: asking the keeper would be a call through a table for every look at a snapshot.
        // SAFETY: `start` and `length` are what the keeper answered, which stays as it is while the keeper lives.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_reads_back_and_cut_bytes_are_refused() {
        let value = vec![String::from("one"), String::from("a string longer than eight bytes")];
        let bytes = rkyv::to_bytes::<Error>(&value).unwrap();
        let verified = Verified::<Vec<String>>::check(&bytes).unwrap();
        assert_eq!(verified.get()[1].as_str(), value[1]);
        for cut in 0..bytes.len() {
            let _ = Verified::<Vec<String>>::check(&bytes[..cut]).map(|v| v.get().len());
        }
        assert!(Verified::<Vec<String>>::check(&[]).is_err());
    }
}
