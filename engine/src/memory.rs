//! Giving memory back to the system. It decides nothing about when that pays: it looks through
//! all of the heap, which takes milliseconds.

/// Gives back what was freed. The allocator keeps what is freed below something that is still in
/// use, and what a walk through a million files needed for a moment stays the node's for good
/// otherwise.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and frees nothing that is in use.
    let _ = unsafe { libc::malloc_trim(0) };
}
