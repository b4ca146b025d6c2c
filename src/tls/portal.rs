//! The portal's certificate: self-signed at first start, replaceable by the administrator.

use crate::base::clock::Wall;
use crate::base::durable;
use crate::tls::activation::epoch_seconds;
use crate::tls::identity::provider;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// File name of the certificate chain in the state directory.
pub const CERT_FILE: &str = "portal-cert.pem";
/// File name of the private key in the state directory (mode 0600).
pub const KEY_FILE: &str = "portal-key.pem";

/// Browsers refuse server certificates that live longer than 825 days.
const LIFE_S: i64 = 820 * 86_400;
const BACKDATED_S: i64 = 86_400;

/// Whom the self-signed certificate speaks for.
#[derive(Clone, Debug, Default)]
pub struct PortalNames {
    /// Host name, node name and other DNS names; those that cannot stand in a certificate are left out.
    pub names: Vec<String>,
    /// The node's own addresses.
    pub addresses: Vec<IpAddr>,
}

/// The TLS configuration of the portal from the files in `state_dir`, which are made if neither exists. An administrator
/// may put a chain and key of their own in their place; they are read at start.
pub fn load_or_make(state_dir: &Path, names: &PortalNames, now: Wall) -> Result<Arc<ServerConfig>, PortalFault> {
    let (cert, key) = (state_dir.join(CERT_FILE), state_dir.join(KEY_FILE));
    match (cert.exists(), key.exists()) {
        (true, true) => {}
        (true, false) => return Err(PortalFault::new(&key, "it is missing, but its certificate is there")),
        // A first start that was killed between the two files leaves a key alone: it gets its certificate now.
        (false, _) => make(&cert, &key, names, now)?,
    }
    config(&cert, &key)
}

fn config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, PortalFault> {
    let chain = CertificateDer::pem_file_iter(cert).and_then(|certs| certs.collect::<Result<Vec<_>, _>>());
    let chain = chain.map_err(|e| PortalFault::new(cert, e))?;
    if chain.is_empty() {
        return Err(PortalFault::new(cert, "it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| PortalFault::new(key, e))?;
    let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = versions
        .map_err(|e| PortalFault::new(cert, e))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| PortalFault::new(cert, format!("it does not fit its key {}: {e}", key.display())))?;
    let mut config = config;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn make(cert: &Path, key: &Path, names: &PortalNames, now: Wall) -> Result<(), PortalFault> {
    let pair = match std::fs::read_to_string(key) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|e| PortalFault::new(key, e))?,
        Err(_) => {
            let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| PortalFault::new(key, e))?;
            durable::replace(key, pair.serialize_pem().as_bytes(), 0o600).map_err(|e| PortalFault::new(key, e))?;
            pair
        }
    };
    let made = params(names, now).self_signed(&pair).map_err(|e| PortalFault::new(cert, e))?;
    durable::replace(cert, made.pem().as_bytes(), 0o644).map_err(|e| PortalFault::new(cert, e))
}

fn params(names: &PortalNames, now: Wall) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    let mut distinguished = DistinguishedName::new();
    let first = names.names.first().map_or("localhost", String::as_str);
    distinguished.push(DnType::CommonName, format!("Tidegate portal of {first}"));
    params.distinguished_name = distinguished;
    for name in names.names.iter().map(String::as_str).chain(["localhost"]) {
        let san = name.to_string().try_into().map(SanType::DnsName);
        params.subject_alt_names.extend(san.ok().filter(|san| !params.subject_alt_names.contains(san)));
    }
    params.subject_alt_names.extend(names.addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = epoch + Duration::from_secs(epoch_seconds(now, -BACKDATED_S));
    params.not_after = epoch + Duration::from_secs(epoch_seconds(now, LIFE_S));
    params
}

/// What is wrong with the portal's certificate files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalFault {
    /// The file.
    pub path: PathBuf,
    /// What happened.
    pub what: String,
}

impl PortalFault {
    fn new(path: &Path, what: impl fmt::Display) -> Self {
        PortalFault { path: path.to_path_buf(), what: what.to_string() }
    }
}

impl fmt::Display for PortalFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the portal's certificate file {}: {}. Put a PEM chain in {CERT_FILE} and its key in {KEY_FILE}, or remove both \
             files and restart for a self-signed pair",
            self.path.display(),
            self.what
        )
    }
}

impl std::error::Error for PortalFault {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names() -> PortalNames {
        PortalNames {
            names: vec!["gw.example".into(), "bad name".into()],
            addresses: vec!["192.0.2.1".parse().unwrap()],
        }
    }

    #[test]
    fn the_first_start_makes_a_pair_and_later_starts_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        load_or_make(dir.path(), &names(), Wall::now()).unwrap();
        let first = std::fs::read(dir.path().join(CERT_FILE)).unwrap();
        load_or_make(dir.path(), &names(), Wall::now()).unwrap();
        assert_eq!(std::fs::read(dir.path().join(CERT_FILE)).unwrap(), first);
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn broken_files_are_named_with_the_remedy_and_left_alone() {
        for (cert, key) in [(Some("x"), None), (None, Some("x")), (Some("x"), Some("x")), (Some(""), Some(""))] {
            let dir = tempfile::tempdir().unwrap();
            for (name, content) in [(CERT_FILE, cert), (KEY_FILE, key)] {
                if let Some(content) = content {
                    std::fs::write(dir.path().join(name), content).unwrap();
                }
            }
            let fault = load_or_make(dir.path(), &names(), Wall::now()).unwrap_err();
            assert!(fault.to_string().contains("remove both files"), "{fault}");
            assert_eq!(dir.path().join(CERT_FILE).exists(), cert.is_some());
        }
    }

    #[test]
    fn a_key_left_alone_by_a_crash_gets_its_certificate() {
        let dir = tempfile::tempdir().unwrap();
        load_or_make(dir.path(), &names(), Wall::now()).unwrap();
        let key = std::fs::read(dir.path().join(KEY_FILE)).unwrap();
        std::fs::remove_file(dir.path().join(CERT_FILE)).unwrap();
        load_or_make(dir.path(), &names(), Wall::now()).unwrap();
        assert_eq!(std::fs::read(dir.path().join(KEY_FILE)).unwrap(), key);
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&one, &two] {
            load_or_make(dir.path(), &names(), Wall::now()).unwrap();
        }
        std::fs::copy(one.path().join(CERT_FILE), two.path().join(CERT_FILE)).unwrap();
        let fault = load_or_make(two.path(), &names(), Wall::now()).unwrap_err();
        assert!(fault.to_string().contains("does not fit its key"), "{fault}");
    }
}
