//! What a restart keeps first, if the administrator says so: startup params and policy, in a folder of their own.

use crate::base::clock::Wall;
use crate::base::durable;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

/// Copies the startup.ini and the policy document in force to `STATE_DIR/backups/TIME/`; answers that folder.
pub fn keep(state_dir: &Path, startup_ini: &Path, document: &str) -> io::Result<PathBuf> {
    let time = jiff::Timestamp::from_microsecond(Wall::now().0).unwrap_or_default();
    let dir = state_dir.join("backups").join(time.strftime("%Y%m%dT%H%M%S%.6fZ").to_string());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    durable::replace(&dir.join("startup.ini"), &fs::read(startup_ini)?, 0o600)?;
    durable::replace(&dir.join("policy.toml"), document.as_bytes(), 0o600)?;
    Ok(dir)
}
