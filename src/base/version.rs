//! Which Tidegate this is.

/// The version of this build. `packaging/build --version V` sets it from outside; otherwise it is Cargo.toml's.
pub const VERSION: &str = match option_env!("TIDEGATE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
