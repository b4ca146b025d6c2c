//! Files mapped into memory and shared with the kernel's page cache: what is stored there outlives this process.

use crate::base::archive::StableBytes;
use nix::fcntl::posix_fallocate;
use nix::sys::mman::MapFlags;
use nix::sys::mman::ProtFlags;
use nix::sys::mman::mmap;
use nix::sys::mman::munmap;
use std::ffi::c_void;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A file as an array of 64-bit words that any thread may load and store.
///
/// The words are atomics, so no use of them is unsound, whatever other threads (or processes) do to the file's content.
/// The file must not be shortened while it is mapped: the kernel would answer a store with SIGBUS.
pub struct SharedMap {
    start: NonNull<c_void>,
    bytes: usize,
    file: File,
}

// JUSTIFICATION: a core and the log's writer share the spool; a raw pointer alone would tie it to one thread.
// SAFETY: the memory is reached only as atomics, and the pointer is not tied to a thread.
unsafe impl Send for SharedMap {}
// JUSTIFICATION: as above.
// SAFETY: as above; `words` hands out shared references to atomics.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Makes a file of `bytes` zeros, with its blocks reserved so that no later store can find the disk full, and maps
    /// it. Fails if the file exists.
    pub fn create(path: &Path, bytes: usize, mode: u32) -> io::Result<SharedMap> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
        posix_fallocate(&file, 0, i64::try_from(bytes).map_err(io::Error::other)?)?;
        SharedMap::of(file, bytes)
    }

    /// Maps an existing file, as long as it is now (a rest of less than eight bytes is left out).
    pub fn open(path: &Path) -> io::Result<SharedMap> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = file.metadata()?.len();
        SharedMap::of(file, usize::try_from(bytes).map_err(io::Error::other)? & !7)
    }

    /// The file's words, in order.
    pub fn words(&self) -> &[AtomicU64] {
        // JUSTIFICATION: a record must be in the page cache without a system call; only mapped memory does that.
        // SAFETY: `start` is page-aligned and the mapping readable and writable for `bytes` bytes as long as `self`
        // lives; any bit pattern is an AtomicU64, and nobody holds a non-atomic reference into the mapping.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<AtomicU64>(), self.bytes / 8) }
    }

    /// Locks the file against other maps of it, of this process or another, until this one is dropped; `false` if another has
    /// locked it.
    pub fn lock(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn of(file: File, bytes: usize) -> io::Result<SharedMap> {
        let length = NonZeroUsize::new(bytes).ok_or_else(|| io::Error::other("the file is empty"))?;
        // JUSTIFICATION: std has no mmap.
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory that anybody uses.
        let start = unsafe {
            mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &file, 0)?
        };
        Ok(SharedMap { start, bytes, file })
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: exactly what `of` mapped; `words` borrows from `self`, so no reference outlives it.
        let _ = unsafe { munmap(self.start, self.bytes) };
    }
}

/// A file as bytes that are read where the page cache has them, nothing copied. For files that are only ever replaced, never
/// written in place: a writer would change what was checked before.
pub struct ReadMap {
    start: NonNull<c_void>,
    bytes: usize,
}

// JUSTIFICATION: all cores read one mapping; a raw pointer alone would tie it to one thread.
// SAFETY: the memory is mapped for reading alone, and the pointer is not tied to a thread.
unsafe impl Send for ReadMap {}
// JUSTIFICATION: as above.
// SAFETY: as above.
unsafe impl Sync for ReadMap {}

impl ReadMap {
    /// Maps the file at `path`, which may have at most `bytes_max`.
    pub fn open(path: &Path, bytes_max: usize) -> io::Result<ReadMap> {
        let file = File::open(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if bytes > bytes_max {
            return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
        }
        let length = NonZeroUsize::new(bytes).ok_or_else(|| io::Error::other("the file is empty"))?;
        // JUSTIFICATION: std has no mmap.
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory that anybody uses.
        let start = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, &file, 0)? };
        Ok(ReadMap { start, bytes })
    }
}

// JUSTIFICATION: an archive is used where it is mapped.
// SAFETY: the mapping stays where it is until it is dropped, is not writable here, and is private: the files it is for
// are replaced by others, not written (`base::durable`).
unsafe impl StableBytes for ReadMap {
    fn bytes(&self) -> &[u8] {
        // JUSTIFICATION: as above.
        // SAFETY: mapped for reading for `bytes` bytes as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.bytes) }
    }
}

impl Drop for ReadMap {
    fn drop(&mut self) {
        // SAFETY: exactly what `open` mapped; `bytes` borrows from `self`, so no reference outlives it.
        let _ = unsafe { munmap(self.start, self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_is_stored_in_the_map_is_in_the_file_and_in_a_second_map() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let map = SharedMap::create(&path, 8192, 0o600).unwrap();
        assert!(SharedMap::create(&path, 8192, 0o600).is_err(), "an existing file is not taken over");
        map.words()[1023].store(0x0102_0304_0506_0708, Ordering::Release);
        assert_eq!(SharedMap::open(&path).unwrap().words()[1023].load(Ordering::Acquire), 0x0102_0304_0506_0708);
        drop(map);
        assert_eq!(std::fs::read(&path).unwrap()[8184..], [8, 7, 6, 5, 4, 3, 2, 1]);
    }
}
