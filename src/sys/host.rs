//! What the host calls itself.

/// The host's name as the kernel has it; `localhost` if it has none.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    if name.is_empty() { "localhost".to_string() } else { name }
}
