//! The allocator's free memory.

/// Gives pages that the allocator holds free back to the kernel. It takes the allocator's locks one after the other, each for
/// as long as its pages take: after a peak, not while one lasts.
pub fn give_free_pages_back() {
    #[cfg(target_env = "gnu")]
    // JUSTIFICATION: threads' arenas shrink only at their top, so that one small allocation above a peak's buffers keeps all
    // of them; nothing safe asks for more.
    // SAFETY: `malloc_trim` takes a number, touches only memory that the allocator itself holds free, and takes its locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
