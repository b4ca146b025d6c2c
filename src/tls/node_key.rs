//! The key of one node: made at its first start, kept in STATE_DIR, and what its certificates are about. By it the master
//! knows a node again, whatever name another one gives itself. Format: `docs/formats/known-nodes.md`.

use crate::base::durable;
use crate::limits::NODE_KEY_FILE_BYTES_MAX;
use rcgen::KeyPair;
use rcgen::PublicKeyData;
use std::fmt;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The file in STATE_DIR.
pub const FILE: &str = "node.key";

/// A node's key pair (ECDSA on P-256).
pub struct NodeKey {
    pair: KeyPair,
}

impl NodeKey {
    /// A new one that no file holds.
    pub fn generate() -> Result<NodeKey, String> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        pair.map(|pair| NodeKey { pair }).map_err(|error| format!("making this node's key failed: {error}"))
    }

    /// The one in `state_dir`; if there is none yet, it is made and kept (mode 0600).
    pub fn load_or_make(state_dir: &Path) -> Result<NodeKey, String> {
        let path = state_dir.join(FILE);
        let fault = |what: &dyn fmt::Display| {
            format!(
                "reading this node's key {}: {what}. Restore it from a backup; or delete it, and this node is a new one to its master \
                 (there: `tidegate node release NAME`)",
                path.display()
            )
        };
        match read(&path) {
            Ok(pem) => KeyPair::from_pem(&pem).map(|pair| NodeKey { pair }).map_err(|error| fault(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = NodeKey::generate()?;
                durable::replace(&path, key.pair.serialize_pem().as_bytes(), 0o600)
                    .map_err(|error| format!("keeping this node's key in {}: {error}", path.display()))?;
                Ok(key)
            }
            Err(error) => Err(fault(&error)),
        }
    }

    /// What the master knows this node by.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.pair.subject_public_key_info())
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.fingerprint())
    }
}

/// 32 hex digits of the BLAKE3 hash of a public key (SubjectPublicKeyInfo, DER).
pub(super) fn fingerprint(public_key_info: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&blake3::hash(public_key_info).as_bytes()[..16])
}

fn read(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!("mode {mode:04o} lets others read it: chmod 600 it")));
    }
    let mut text = String::new();
    file.by_ref().take(NODE_KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_node_has_the_same_key_at_every_start_and_another_has_another() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = NodeKey::load_or_make(one.path()).unwrap().fingerprint();
        assert_eq!(first.len(), 32);
        assert_eq!(NodeKey::load_or_make(one.path()).unwrap().fingerprint(), first);
        assert_ne!(NodeKey::load_or_make(two.path()).unwrap().fingerprint(), first);
        assert_eq!(fs::metadata(one.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_is_damaged_or_that_others_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        NodeKey::load_or_make(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(NodeKey::load_or_make(dir.path()).unwrap_err().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        let words = NodeKey::load_or_make(dir.path()).unwrap_err();
        assert!(words.contains("node.key") && words.contains("node release"), "{words}");
    }
}
