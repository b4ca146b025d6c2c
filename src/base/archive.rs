//! `Verified<T>`: bytes we own, with the proof that rkyv checked them, so that readers use them in place.
#![allow(unsafe_code)] // the one unchecked access below, after the check that makes it sound

use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable};
use std::marker::PhantomData;

/// Bytes that hold a valid archive of `T`. Made only by [`Verified::check`]; immutable after.
pub struct Verified<T: Archive> {
    bytes: AlignedVec,
    of: PhantomData<fn() -> T>,
}

impl<T> Verified<T>
where
    T: Archive,
    T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, Error>>,
{
    /// Copies `bytes` to aligned memory and checks that they are an archive of `T`. The error says what rkyv found.
    pub fn check(bytes: &[u8]) -> Result<Self, String> {
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::access::<T::Archived, Error>(&aligned).map_err(|error| error.to_string())?;
        Ok(Verified { bytes: aligned, of: PhantomData })
    }

    /// The archive, read in place.
    #[inline]
    pub fn get(&self) -> &T::Archived {
        // JUSTIFICATION: checking again costs time in proportion to the archive, and a snapshot is read per request.
        // SAFETY: `check` validated exactly these bytes as a `T::Archived` at their root; they are owned, aligned by
        // `AlignedVec`, never handed out mutably and never changed after.
        unsafe { rkyv::access_unchecked::<T::Archived>(&self.bytes) }
    }

    /// The bytes of the archive.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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
