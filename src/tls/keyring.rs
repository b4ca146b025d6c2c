//! The content of the activation key file: the key and, while a cluster changes it, the former one with the time until which
//! it still counts. Format: `docs/formats/activation-key.md`.

use crate::base::clock::Wall;
use crate::limits::ACTIVATION_KEY_FILE_BYTES_MAX;
use crate::limits::ACTIVATION_KEY_WINDOW_S_MAX;
use crate::tls::activation::ActivationKey;
use crate::tls::activation::KeyFault;
use crate::tls::activation::LoadFault;
use crate::tls::activation::SnapshotSigner;
use jiff::Timestamp;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a line with the former key begins with.
const FORMER: &str = "former ";
/// Between the former key and its end.
const UNTIL: &str = " until ";

/// The keys a node holds: one, or two while the cluster changes its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    key: ActivationKey,
    former: Option<Former>,
}

/// A key that counts for a while yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The key.
    pub key: ActivationKey,
    /// Until when it counts.
    pub until: Wall,
}

impl KeyRing {
    /// One key and no other.
    pub fn of(key: ActivationKey) -> KeyRing {
        KeyRing { key, former: None }
    }

    /// The same with `new` in front: the key of before counts until `until`. One that was former already is dropped.
    pub fn rotated(self, new: ActivationKey, until: Wall) -> KeyRing {
        KeyRing { key: new, former: Some(Former { key: self.key, until }) }
    }

    /// The same without a former key.
    pub fn retired(self) -> KeyRing {
        KeyRing::of(self.key)
    }

    /// The cluster's key.
    pub fn key(&self) -> &ActivationKey {
        &self.key
    }

    /// The one before, whether or not its time is over.
    pub fn former(&self) -> Option<&Former> {
        self.former.as_ref()
    }

    /// Reads the file, which nobody but its owner may read.
    pub fn load(path: &Path) -> Result<KeyRing, LoadFault> {
        let fault = |fault| LoadFault { path: path.to_path_buf(), fault };
        let mut file = File::open(path).map_err(|e| fault(KeyFault::File(e.to_string())))?;
        let meta = file.metadata().map_err(|e| fault(KeyFault::File(e.to_string())))?;
        if meta.mode() & 0o077 != 0 {
            return Err(fault(KeyFault::Mode { mode: meta.mode() & 0o7777 }));
        }
        let mut text = String::new();
        let read = file.by_ref().take(ACTIVATION_KEY_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text);
        read.map_err(|e| fault(KeyFault::File(e.to_string())))?;
        if text.len() > ACTIVATION_KEY_FILE_BYTES_MAX {
            return Err(fault(KeyFault::Length { chars: text.len() }));
        }
        KeyRing::parse(&text).map_err(fault)
    }

    /// Reads the text of the file.
    pub fn parse(text: &str) -> Result<KeyRing, KeyFault> {
        let is_former = |line: &&str| line.trim_start().starts_with(FORMER);
        let (former, key): (Vec<&str>, Vec<&str>) = text.lines().partition(is_former);
        let former = match former[..] {
            [] => None,
            [line] => Some(Former::parse(line)?),
            _ => return Err(KeyFault::Former("there are two of them")),
        };
        Ok(KeyRing { key: ActivationKey::parse(&key.concat())?, former })
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.key.to_text());
        if let Some(former) = &self.former {
            let until = Timestamp::from_second(former.until.seconds()).unwrap_or_default();
            text.push_str(&format!("{FORMER}{}{UNTIL}{until}\n", former.key.to_text()));
        }
        text
    }

    /// What signs snapshots so that holders of each key that counts can check them, and checks what any of these signed.
    pub fn signer(&self) -> Result<SnapshotSigner, KeyFault> {
        match &self.former {
            None => self.key.signer(),
            Some(former) => Ok(self.key.signer()?.beside(&former.key, former.until)?),
        }
    }
}

impl Former {
    fn parse(line: &str) -> Result<Former, KeyFault> {
        let words = line.trim().strip_prefix(FORMER).unwrap_or_default();
        let (key, until) = words.split_once(UNTIL).ok_or(KeyFault::Former("it has no `until` and time"))?;
        let until: Timestamp =
            until.trim().parse().map_err(|_| KeyFault::Former("its time is none (such as 2026-12-24T12:00:00Z)"))?;
        // What counts for ever is no former key: a time typed with another century would leave the old door open.
        let latest = Wall::now().seconds().saturating_add(ACTIVATION_KEY_WINDOW_S_MAX);
        if until.as_second() > latest {
            return Err(KeyFault::Former("its time is more than 31 days away"));
        }
        Ok(Former { key: ActivationKey::parse(key)?, until: Wall(until.as_microsecond()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::durable;

    fn two() -> (ActivationKey, ActivationKey) {
        (ActivationKey::generate().unwrap(), ActivationKey::generate().unwrap())
    }

    fn in_a_day() -> Wall {
        Wall((Wall::now().seconds() + 86_400) * 1_000_000)
    }

    #[test]
    fn a_ring_survives_its_text_and_an_older_file_is_one_with_one_key() {
        let (old, new) = two();
        let ring = KeyRing::parse(&format!("{}\n", old.to_text())).unwrap();
        assert_eq!(ring, KeyRing::of(old.clone()));
        let rotated = ring.rotated(new.clone(), in_a_day());
        assert_eq!(KeyRing::parse(&rotated.to_text()), Ok(rotated.clone()));
        assert_eq!((rotated.key(), &rotated.former().unwrap().key), (&new, &old));
        assert_eq!(rotated.retired(), KeyRing::of(new));
    }

    #[test]
    fn what_is_wrong_with_a_former_key_is_said() {
        let (old, new) = two();
        let (old, new) = (old.to_text(), new.to_text());
        for (former, expected) in [
            (format!("former {old}"), "no `until`"),
            (format!("former {old} until tomorrow"), "its time is none"),
            (format!("former {old} until 2126-01-01T00:00:00Z"), "31 days"),
            (
                format!("former {old} until 2026-01-01T00:00:00Z\nformer {old} until 2026-01-01T00:00:00Z"),
                "two of them",
            ),
            ("former tgak1-AAAA until 2026-01-01T00:00:00Z".to_string(), "56 characters"),
        ] {
            let words = KeyRing::parse(&format!("{new}\n{former}\n")).unwrap_err().to_string();
            assert!(words.contains(expected), "{former}: {words}");
            assert!(!words.contains(&old) && !words.contains(&new));
        }
    }

    #[test]
    fn what_is_signed_in_the_window_is_accepted_by_holders_of_either_key_and_after_it_by_those_of_the_new() {
        let (old, new) = two();
        let holder_of_old = old.signer().unwrap();
        let holder_of_new = new.signer().unwrap();
        let ring = KeyRing::of(old.clone()).rotated(new, in_a_day());
        let signature = ring.signer().unwrap().sign_manifest(b"policy");
        assert!(holder_of_old.verify(b"policy", &signature) && holder_of_new.verify(b"policy", &signature));
        assert!(!holder_of_old.verify(b"policy 2", &signature) && !holder_of_new.verify(b"policy 2", &signature));
        assert!(ring.signer().unwrap().verify(b"policy", &holder_of_old.sign_manifest(b"policy")));

        let over = KeyRing { former: Some(Former { key: old, until: Wall(Wall::now().0 - 1) }), ..ring };
        let signature = over.signer().unwrap().sign_manifest(b"policy");
        assert!(!holder_of_old.verify(b"policy", &signature) && holder_of_new.verify(b"policy", &signature));
        assert!(!over.signer().unwrap().verify(b"policy", &holder_of_old.sign_manifest(b"policy")));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("activation.key");
        let key = ActivationKey::generate().unwrap();
        assert!(matches!(KeyRing::load(&path).unwrap_err().fault, KeyFault::File(_)));
        for (mode, accepted) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            durable::replace(&path, format!("{}\n", key.to_text()).as_bytes(), mode).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            match KeyRing::load(&path) {
                Ok(read) => assert!(accepted && *read.key() == key, "{mode:o}"),
                Err(fault) => {
                    assert!(!accepted, "{mode:o}");
                    assert!(fault.to_string().contains("chmod 600"), "{fault}");
                    assert!(fault.to_string().contains("activation.key"), "{fault}");
                }
            }
        }
    }
}
