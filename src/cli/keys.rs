//! `tidegate activation-key`: makes the file with the cluster's key, changes it and tells what is in it; no node is asked.

use crate::base::clock::Wall;
use crate::base::durable;
use crate::cli::paper::tame;
use crate::tls::activation::ActivationKey;
use crate::tls::keyring::KeyRing;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::chown;
use std::path::Path;

/// A new activation key, to a file that only its owner can read or to standard output.
pub fn new(output: Option<&Path>) -> Result<Vec<u8>, String> {
    let key = ActivationKey::generate().map_err(|fault| format!("making an activation key failed: {fault}"))?;
    let text = format!("{}\n", key.to_text().trim_end());
    let Some(path) = output else { return Ok(text.into_bytes()) };
    // Never over an existing key: every node of the cluster would have to get the new one.
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    match written {
        Ok(()) => {
            let words = format!(
                "Wrote a new activation key ({}) to {}. Copy the file to every node of the cluster, owner the daemon's user, mode 0600.\n",
                key.fingerprint(),
                path.display()
            );
            Ok(tame_lines(&words))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(format!(
            "{} exists already and is left as it is: nodes that hold its key would no longer know each other. Move it away first if you \
             mean it.",
            path.display()
        )),
        Err(error) => Err(format!("writing {} failed: {error}", path.display())),
    }
}

/// A new key in front of the one in `file`, which counts for `days` more.
pub fn rotate(file: &Path, days: u8) -> Result<Vec<u8>, String> {
    let ring = load(file)?;
    let new = ActivationKey::generate().map_err(|fault| format!("making an activation key failed: {fault}"))?;
    let until = Wall((Wall::now().seconds() + i64::from(days) * 86_400) * 1_000_000);
    if let Some(former) = ring.former().filter(|former| Wall::now() < former.until) {
        return Err(format!(
            "{} holds a former key ({}) that counts until {}: nodes may still hold nothing else. When all have the new one, \
             `tidegate activation-key retire`, then rotate again",
            file.display(),
            former.key.fingerprint(),
            at(former.until)
        ));
    }
    let ring = ring.rotated(new, until);
    replace(file, &ring)?;
    Ok(tame_lines(&format!(
        "The key of {} is now {}; the former one counts until {}. Next: restart this node (`tidegate restart`), copy the file to \
         every other node of the cluster (same owner, mode 0600) and restart that. The master's Nodes page says which slaves still \
         hold the former key.",
        file.display(),
        ring.key().fingerprint(),
        at(until)
    )))
}

/// No former key any more.
pub fn retire(file: &Path) -> Result<Vec<u8>, String> {
    let ring = load(file)?;
    let Some(former) = ring.former().map(|former| former.key.fingerprint()) else {
        return Err(format!("{} holds one key ({}) and no former one", file.display(), ring.key().fingerprint()));
    };
    replace(file, &ring.retired())?;
    Ok(tame_lines(&format!(
        "The former key ({former}) is out of {}. It stops counting on this node with its next restart: `tidegate restart`.",
        file.display()
    )))
}

/// The fingerprints.
pub fn show(file: &Path) -> Result<Vec<u8>, String> {
    let ring = load(file)?;
    let mut words = format!("key {}\n", ring.key().fingerprint());
    if let Some(former) = ring.former() {
        let over = if Wall::now() < former.until { "" } else { " (over)" };
        words.push_str(&format!("former key {} until {}{over}\n", former.key.fingerprint(), at(former.until)));
    }
    Ok(words.into_bytes())
}

fn load(file: &Path) -> Result<KeyRing, String> {
    KeyRing::load(file).map_err(|fault| fault.to_string())
}

/// Replaces the file durably; its owner stays who it was.
fn replace(file: &Path, ring: &KeyRing) -> Result<(), String> {
    let failed = |error: io::Error| format!("writing {} failed: {error}; it is as it was", file.display());
    let before = fs::metadata(file).map_err(failed)?;
    durable::replace(file, ring.to_text().as_bytes(), 0o600).map_err(failed)?;
    chown(file, Some(before.uid()), Some(before.gid())).map_err(|error| {
        format!("{} is written, but giving it back to its owner failed: {error}. Do so by hand", file.display())
    })
}

fn at(time: Wall) -> String {
    jiff::Timestamp::from_second(time.seconds()).unwrap_or_default().to_string()
}

fn tame_lines(words: &str) -> Vec<u8> {
    format!("{}\n", tame(words.trim_end())).into_bytes()
}
