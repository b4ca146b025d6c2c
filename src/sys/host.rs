//! What the host calls itself.

/// The host's name as the kernel has it; `localhost` if it has none.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    if name.is_empty() { "localhost".to_string() } else { name }
}

/// Bytes free for this process and bytes in all, on the file system that holds `path`.
pub fn space(path: &std::path::Path) -> std::io::Result<(u64, u64)> {
    let told = nix::sys::statvfs::statvfs(path)?;
    let block = told.fragment_size();
    Ok((told.blocks_available() * block, told.blocks() * block))
}
