//! The activation key: the one secret of a cluster, and what grows from it. Format: `docs/formats/activation-key.md`.

use crate::base::clock::Wall;
use aws_lc_rs::hkdf;
use aws_lc_rs::rand;
use aws_lc_rs::signature::ED25519;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::UnparsedPublicKey;
use data_encoding::BASE32_NOPAD;
use std::fmt;
use std::path::PathBuf;

/// What every activation key starts with; the digit is the format's version.
pub const PREFIX: &str = "tgak1-";

const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 3;
/// 35 bytes in base32: seven groups of eight, with no padding and no spare bits.
const TEXT_CHARS: usize = (KEY_BYTES + CHECK_BYTES) * 8 / 5;
const GROUP_CHARS: usize = 8;

const CHECK_CONTEXT: &str = "tidegate 2026 activation key checksum";
const CA_LABEL: &[u8] = b"tidegate cluster ca v1";
const SIGNING_LABEL: &[u8] = b"tidegate snapshot signing v1";
const TICKETS_LABEL: &[u8] = b"tidegate cluster tickets v1";
const SALT: &[u8] = b"tidegate activation key v1";
const SNAPSHOT_CONTEXT: &[u8] = b"tidegate manifest signature v1\0";

/// The cluster's secret. Never printed by accident: `Debug` shows a fingerprint, [`ActivationKey::to_text`] is the one
/// way out. Overwritten on drop as far as safe code can promise it.
#[derive(Clone, PartialEq, Eq)]
pub struct ActivationKey {
    secret: [u8; KEY_BYTES],
}

impl ActivationKey {
    /// A new random key from the system's generator.
    pub fn generate() -> Result<Self, KeyFault> {
        let mut secret = [0; KEY_BYTES];
        rand::fill(&mut secret).map_err(|_| KeyFault::NoRandom)?;
        Ok(ActivationKey { secret })
    }

    /// Reads the text form; white space, case and the hyphens between groups do not matter.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let folded: String = text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
        let body = folded.strip_prefix(PREFIX).ok_or(KeyFault::Prefix)?;
        let body: String = body.chars().filter(|c| *c != '-').collect::<String>().to_ascii_uppercase();
        if let Some((at, c)) = body.chars().enumerate().find(|(_, c)| !matches!(c, 'A'..='Z' | '2'..='7')) {
            return Err(KeyFault::Alphabet { at: at + 1, c });
        }
        if body.len() != TEXT_CHARS {
            return Err(KeyFault::Length { chars: body.len() });
        }
        let bytes = BASE32_NOPAD.decode(body.as_bytes()).map_err(|_| KeyFault::Length { chars: body.len() })?;
        let (secret, check) = bytes.split_first_chunk::<KEY_BYTES>().ok_or(KeyFault::Length { chars: body.len() })?;
        if check != checksum(secret) {
            return Err(KeyFault::Checksum);
        }
        Ok(ActivationKey { secret: *secret })
    }

    /// The text form: `tgak1-` and seven groups of eight characters, the checksum included.
    pub fn to_text(&self) -> String {
        let mut bytes = self.secret.to_vec();
        bytes.extend_from_slice(&checksum(&self.secret));
        let body = BASE32_NOPAD.encode(&bytes);
        bytes.fill(0);
        let groups: Vec<&str> =
            (0..TEXT_CHARS).step_by(GROUP_CHARS).filter_map(|at| body.get(at..at + GROUP_CHARS)).collect();
        format!("{PREFIX}{}", groups.join("-"))
    }

    /// Eight hex digits that two people can compare without showing the key.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::derive_key("tidegate 2026 activation key fingerprint", &self.secret);
        data_encoding::HEXLOWER.encode(&hash[..4])
    }

    /// The pair that signs snapshots: the master's half signs, every node of the cluster can check.
    pub fn signer(&self) -> Result<SnapshotSigner, KeyFault> {
        Ok(SnapshotSigner { pair: self.pair(SIGNING_LABEL)?, former: None })
    }

    /// The cluster authority's key as PKCS#8.
    pub(super) fn authority_pkcs8(&self) -> Result<Vec<u8>, KeyFault> {
        let document = self.pair(CA_LABEL)?.to_pkcs8v1().map_err(|_| KeyFault::Crypto)?;
        Ok(document.as_ref().to_vec())
    }

    /// The key that seals resumption tickets in one period of time.
    pub(super) fn ticket_seed(&self, period: i64) -> Result<[u8; KEY_BYTES], KeyFault> {
        self.seed(&[TICKETS_LABEL, &period.to_be_bytes()])
    }

    fn pair(&self, label: &[u8]) -> Result<Ed25519KeyPair, KeyFault> {
        let mut seed = self.seed(&[label])?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyFault::Crypto);
        seed.fill(0);
        pair
    }

    fn seed(&self, info: &[&[u8]]) -> Result<[u8; KEY_BYTES], KeyFault> {
        let mut seed = [0; KEY_BYTES];
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&self.secret);
        let okm = prk.expand(info, hkdf::HKDF_SHA256).map_err(|_| KeyFault::Crypto)?;
        okm.fill(&mut seed).map_err(|_| KeyFault::Crypto)?;
        Ok(seed)
    }
}

impl fmt::Debug for ActivationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActivationKey(fingerprint {})", self.fingerprint())
    }
}

impl Drop for ActivationKey {
    fn drop(&mut self) {
        self.secret.fill(0);
        // Without a reader the compiler may drop the stores above.
        std::hint::black_box(&self.secret);
    }
}

/// Signs snapshots and checks their signatures. What is signed is a context, the length and the BLAKE3 hash of the bytes,
/// so that a snapshot of a gigabyte is read once and no other message of the cluster can pass for one.
pub struct SnapshotSigner {
    pair: Ed25519KeyPair,
    /// Of the key of before, and until when it counts.
    former: Option<(Ed25519KeyPair, Wall)>,
}

/// Length of one key's signature, in bytes. While the cluster changes its key there are two, one after the other.
pub const SIGNATURE_BYTES: usize = 64;

impl SnapshotSigner {
    /// The same, and until then `key` signs and counts as well.
    pub(super) fn beside(self, key: &ActivationKey, until: Wall) -> Result<SnapshotSigner, KeyFault> {
        Ok(SnapshotSigner { former: Some((key.pair(SIGNING_LABEL)?, until)), ..self })
    }

    /// The signature over a manifest, by each key that counts now.
    pub fn sign_manifest(&self, snapshot: &[u8]) -> Vec<u8> {
        let message = signed_message(snapshot);
        self.pairs().flat_map(|pair| pair.sign(&message).as_ref().to_vec()).collect()
    }

    /// Whether `signature` was made over exactly `snapshot` by a holder of a key of this cluster that counts now.
    pub fn verify(&self, snapshot: &[u8], signature: &[u8]) -> bool {
        let (signatures, rest) = signature.as_chunks::<SIGNATURE_BYTES>();
        if !rest.is_empty() || signatures.len() > 2 {
            return false;
        }
        let message = signed_message(snapshot);
        let holds = |pair: &Ed25519KeyPair, signature: &[u8]| {
            UnparsedPublicKey::new(&ED25519, pair.public_key()).verify(&message, signature).is_ok()
        };
        self.pairs().any(|pair| signatures.iter().any(|signature| holds(pair, signature)))
    }

    fn pairs(&self) -> impl Iterator<Item = &Ed25519KeyPair> {
        let former = self.former.as_ref().filter(|(_, until)| Wall::now() < *until).map(|(pair, _)| pair);
        std::iter::once(&self.pair).chain(former)
    }
}

impl fmt::Debug for SnapshotSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotSigner")
    }
}

/// Why a text is not an activation key, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// It does not start with [`PREFIX`].
    Prefix,
    /// Too short or too long: a part is missing or something else was pasted too.
    Length {
        /// Characters read, without prefix and hyphens.
        chars: usize,
    },
    /// A character that no key contains.
    Alphabet {
        /// 1-based place, without prefix and hyphens.
        at: usize,
        /// The character.
        c: char,
    },
    /// All characters are possible, but they do not belong together.
    Checksum,
    /// The line with the former key is none.
    Former(&'static str),
    /// Others than the owner may read the file.
    Mode {
        /// Its mode.
        mode: u32,
    },
    /// The file could not be read.
    File(String),
    /// The system gave no random bytes.
    NoRandom,
    /// The cryptographic library refused a key of the right length: a fault of this build.
    Crypto,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyFault::Prefix => {
                write!(
                    f,
                    "this is no activation key: one starts with {PREFIX}. Make one with `tidegate activation-key new`"
                )
            }
            KeyFault::Length { chars } => write!(
                f,
                "an activation key has {TEXT_CHARS} characters after {PREFIX}, this has {chars}: copy the whole line"
            ),
            KeyFault::Alphabet { at, c } => write!(
                f,
                "character {at} after {PREFIX} is {c:?}; an activation key has only A-Z and 2-7 (no 0, 1, 8, 9). Copy it again"
            ),
            KeyFault::Checksum => f.write_str(
                "the checksum does not match: some character is wrong. Copy the key again from another node",
            ),
            KeyFault::Former(what) => write!(
                f,
                "the line of the former key: {what}. Take the line out, or make both anew with `tidegate activation-key rotate`"
            ),
            KeyFault::Mode { mode } => {
                write!(f, "mode {mode:04o} lets others read the cluster's secret: chmod 600 it")
            }
            KeyFault::File(what) => {
                write!(f, "{what}. Copy it from the master, or make one with `tidegate activation-key new`")
            }
            KeyFault::NoRandom => f.write_str("the system gave no random bytes: try again"),
            KeyFault::Crypto => {
                f.write_str("the cryptographic library refused the key: this build is broken, report it")
            }
        }
    }
}

impl std::error::Error for KeyFault {}

/// A [`KeyFault`] with the file it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: KeyFault,
}

impl fmt::Display for LoadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading the activation key from {}: {}", self.path.display(), self.fault)
    }
}

impl std::error::Error for LoadFault {}

fn checksum(secret: &[u8; KEY_BYTES]) -> [u8; CHECK_BYTES] {
    let hash = blake3::derive_key(CHECK_CONTEXT, secret);
    [hash[0], hash[1], hash[2]]
}

fn signed_message(snapshot: &[u8]) -> Vec<u8> {
    let mut message = SNAPSHOT_CONTEXT.to_vec();
    message.extend_from_slice(&(snapshot.len() as u64).to_le_bytes());
    message.extend_from_slice(blake3::hash(snapshot).as_bytes());
    message
}

/// Seconds since the epoch as certificates count them, `offset_s` away from `now`; never before 1970.
pub(super) fn epoch_seconds(now: Wall, offset_s: i64) -> u64 {
    now.seconds().saturating_add(offset_s).max(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_form_whatever_case_and_spacing_it_is_typed_in() {
        let key = ActivationKey::generate().unwrap();
        let text = key.to_text();
        assert_eq!(text.len(), PREFIX.len() + TEXT_CHARS + TEXT_CHARS / GROUP_CHARS - 1);
        for typed in [text.clone(), text.to_lowercase(), text.to_uppercase(), format!("  {text}\n"), squeezed(&text)] {
            assert_eq!(ActivationKey::parse(&typed).as_ref(), Ok(&key), "{typed}");
        }
        assert_ne!(ActivationKey::generate().unwrap(), key);
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said() {
        let text = ActivationKey { secret: [7; KEY_BYTES] }.to_text();
        let cut = &text[..text.len() - 1];
        let other = if text.ends_with('A') { "B" } else { "A" };
        let cases: &[(String, KeyFault)] = &[
            (String::new(), KeyFault::Prefix),
            ("secret".into(), KeyFault::Prefix),
            (PREFIX.into(), KeyFault::Length { chars: 0 }),
            (cut.into(), KeyFault::Length { chars: TEXT_CHARS - 1 }),
            (format!("{text}A"), KeyFault::Length { chars: TEXT_CHARS + 1 }),
            (format!("{PREFIX}0{}", &text[7..]), KeyFault::Alphabet { at: 1, c: '0' }),
            (format!("{cut}é"), KeyFault::Alphabet { at: TEXT_CHARS, c: 'é' }),
            (format!("{cut}{other}"), KeyFault::Checksum),
        ];
        for (typed, fault) in cases {
            assert_eq!(ActivationKey::parse(typed).as_ref(), Err(fault), "{typed}");
        }
    }

    #[test]
    fn a_changed_character_anywhere_is_noticed() {
        let text = ActivationKey { secret: [200; KEY_BYTES] }.to_text();
        for at in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            if bytes[at] == b'-' {
                continue;
            }
            bytes[at] = if bytes[at] == b'Q' { b'R' } else { b'Q' };
            assert_eq!(ActivationKey::parse(std::str::from_utf8(&bytes).unwrap()), Err(KeyFault::Checksum));
        }
    }

    #[test]
    fn debug_output_does_not_contain_the_key() {
        let key = ActivationKey::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(!key.to_text().contains(shown.as_str()) && shown.contains(&key.fingerprint()));
        assert!(shown.len() < 50);
    }

    #[test]
    fn a_signature_holds_for_the_same_key_and_bytes_only() {
        let key = ActivationKey::generate().unwrap();
        let signature = key.signer().unwrap().sign_manifest(b"snapshot");
        assert_eq!(signature.len(), SIGNATURE_BYTES);
        assert!(key.clone().signer().unwrap().verify(b"snapshot", &signature));
        assert!(!key.signer().unwrap().verify(b"snapshoT", &signature));
        assert!(!key.signer().unwrap().verify(b"snapshot", &signature[1..]));
        assert!(!ActivationKey::generate().unwrap().signer().unwrap().verify(b"snapshot", &signature));
    }

    fn squeezed(text: &str) -> String {
        format!("{PREFIX}{}", text[PREFIX.len()..].replace('-', ""))
    }
}
