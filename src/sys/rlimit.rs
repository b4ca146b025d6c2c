//! How many descriptors the process may hold.

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use std::io;

/// Raises the limit of open descriptors towards `wanted`: also the hard limit where we may, else up to it.
/// Answers the limit now in force, which is never lower than before.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if wanted <= soft {
        return Ok(soft);
    }
    let raised_hard = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok();
    if !raised_hard {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    }
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_never_lowers_and_a_small_wish_changes_nothing() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise_open_files(1).unwrap(), soft);
        assert_eq!(raise_open_files(hard).unwrap(), hard);
    }
}
