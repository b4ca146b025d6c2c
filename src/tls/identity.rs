//! Who a node of the cluster is: the authority that the activation key seeds, the short-lived leaf each node mints for
//! itself, and the mutual TLS configuration on both ends.

use crate::base::clock::Wall;
use crate::limits::CLUSTER_LEAF_BACKDATED_S;
use crate::limits::CLUSTER_LEAF_LIFE_S;
use crate::limits::CLUSTER_LEAF_RENEWED_AFTER_S;
use crate::tls::activation::ActivationKey;
use crate::tls::activation::epoch_seconds;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyPair, KeyUsagePurpose, SanType, SerialNumber};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// The name every slave asks port 8888 for; whoever asks for another one gets the portal.
pub const CLUSTER_NAME: &str = "cluster.tidegate.internal";
const NODE_SUFFIX: &str = "node.tidegate.internal";

/// A member of the cluster: the authority and this node's current leaf. Shared by everything on the node that speaks to
/// the cluster; the leaf is minted anew each day, so that neither a long uptime nor a stolen leaf outlives a week.
pub struct NodeIdentity {
    authority: Authority,
    node: String,
    role: String,
    minted: Mutex<Minted>,
}

struct Minted {
    at: Wall,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl NodeIdentity {
    /// Derives the authority from `key` and mints the first leaf for `node`.
    pub fn new(key: &ActivationKey, node: &str, role: &str, now: Wall) -> Result<Arc<Self>, IdentityFault> {
        if !is_node_name(node) {
            return Err(IdentityFault::Name(node.to_string()));
        }
        let authority = Authority::of(key)?;
        let minted = authority.mint(node, role, now)?;
        Ok(Arc::new(NodeIdentity {
            authority,
            node: node.to_string(),
            role: role.to_string(),
            minted: Mutex::new(minted),
        }))
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// For the accepting side: demands a leaf of this cluster from the client.
    pub fn server_config(&self, now: Wall) -> Arc<ServerConfig> {
        self.fresh(now).0
    }

    /// For the connecting side: trusts this cluster's authority alone and shows the node's leaf.
    pub fn client_config(&self, now: Wall) -> Arc<ClientConfig> {
        self.fresh(now).1
    }

    fn fresh(&self, now: Wall) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        let age_s = now.seconds() - minted.at.seconds();
        // A clock that was set back leaves a leaf from the future: that one is minted anew as well.
        if !(-CLUSTER_LEAF_RENEWED_AFTER_S..CLUSTER_LEAF_RENEWED_AFTER_S).contains(&age_s) {
            match self.authority.mint(&self.node, &self.role, now) {
                Ok(new) => *minted = new,
                Err(fault) => tracing::warn!(
                    event = "identity-trouble",
                    "minting this node's cluster certificate: {fault}; keeping the last one"
                ),
            }
        }
        (minted.server.clone(), minted.client.clone())
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeIdentity({}, {})", self.node, self.role)
    }
}

/// Who stands at the other end of a cluster connection, as its leaf says it.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    leaf: CertificateDer<'static>,
}

impl PeerIdentity {
    /// From the first certificate of a finished handshake.
    pub(super) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        certificates?.first().map(|leaf| PeerIdentity { leaf: leaf.clone().into_owned() })
    }

    /// Whether the leaf was minted for `node`. The handshake has proven that it is this cluster's.
    pub fn is(&self, node: &str) -> bool {
        let Ok(leaf) = ParsedCertificate::try_from(&self.leaf) else { return false };
        is_node_name(node)
            && ServerName::try_from(node_dns_name(node)).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
    }
}

/// Whether `name` may be a node's name: 1 to 63 letters, digits, hyphens and underscores in labels joined by dots, so that
/// it fits a certificate, a file name and a log column.
pub fn is_node_name(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 63 && name.split('.').all(label)
}

/// Why a cluster handshake failed, as far as TLS tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The other end holds another activation key (or none).
    KeyMismatch,
    /// The certificates are this cluster's, but outside their time: a clock is more than a day off.
    Clock,
    /// Anything else, in TLS's own words.
    Other(String),
}

impl HandshakeFault {
    /// Reads an error of a handshake, or of the first read after one: with TLS 1.3 a client learns that its leaf was
    /// refused only then.
    pub fn of(error: &std::io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        inner.map_or_else(|| HandshakeFault::Other(error.to_string()), HandshakeFault::of_tls)
    }

    /// Looks for an error of TLS in `error` and its causes; absent if TLS did not cause it.
    pub fn among_causes_of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(tls) =
                error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()?.downcast_ref::<Error>())
            {
                return Some(HandshakeFault::of_tls(tls));
            }
            cause = error.source();
        }
        None
    }

    fn of_tls(error: &Error) -> Self {
        use CertificateError as C;
        match error {
            Error::InvalidCertificate(
                C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
            )
            | Error::AlertReceived(AlertDescription::CertificateExpired) => HandshakeFault::Clock,
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => HandshakeFault::KeyMismatch,
            Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::DecryptError
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired,
            ) => HandshakeFault::KeyMismatch,
            other => HandshakeFault::Other(other.to_string()),
        }
    }
}

impl fmt::Display for HandshakeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeFault::KeyMismatch => f.write_str("the other end does not hold the same activation key"),
            HandshakeFault::Clock => {
                f.write_str("a certificate is outside its time: one of the clocks is a day or more off")
            }
            HandshakeFault::Other(words) => f.write_str(words),
        }
    }
}

/// Why a node could not be given its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityFault {
    /// The node's name cannot stand in a certificate.
    Name(String),
    /// Making keys, certificates or configuration failed.
    Minting(String),
}

impl fmt::Display for IdentityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityFault::Name(name) => write!(
                f,
                "{name:?} cannot be a node's name: use 1 to 63 letters, digits, hyphens and underscores (NODE_NAME)"
            ),
            IdentityFault::Minting(what) => write!(f, "making this node's cluster certificate failed: {what}"),
        }
    }
}

impl std::error::Error for IdentityFault {}

/// The one cryptographic provider of the control plane.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// The same key makes the same authority, byte for byte, on every node and at any time: Ed25519 signs
    /// deterministically, and nothing in the certificate depends on the clock.
    fn of(key: &ActivationKey) -> Result<Self, IdentityFault> {
        let pkcs8 = PrivatePkcs8KeyDer::from(key.authority_pkcs8().map_err(minting)?);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).map_err(minting)?;
        let mut params = CertificateParams::default();
        // The fingerprint in the name makes a foreign leaf fail as "unknown issuer", not as a bad signature.
        params.distinguished_name = named(&format!("Tidegate cluster {}", key.fingerprint()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(SerialNumber::from(1u64));
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2120, 1, 1);
        let certificate = params.self_signed(&pair).map_err(minting)?.der().clone();
        Ok(Authority { issuer: Issuer::new(params, pair), certificate })
    }

    fn mint(&self, node: &str, role: &str, now: Wall) -> Result<Minted, IdentityFault> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(minting)?;
        let leaf = self.leaf_params(node, role, now)?.signed_by(&pair, &self.issuer).map_err(minting)?;
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let chain = vec![leaf.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(minting)?;
        let roots = Arc::new(roots);
        let tls13 = &[&rustls::version::TLS13];

        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build().map_err(minting)?;
        let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(tls13).map_err(minting)?;
        let mut server =
            server.with_client_cert_verifier(verifier).with_single_cert(chain.clone(), key()).map_err(minting)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session would outlive the leaf it was proven with; cluster connections are few and long.
        server.send_tls13_tickets = 0;

        let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(tls13).map_err(minting)?;
        let mut client = client.with_root_certificates(roots).with_client_auth_cert(chain, key()).map_err(minting)?;
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Minted { at: now, server: Arc::new(server), client: Arc::new(client) })
    }

    fn leaf_params(&self, node: &str, role: &str, now: Wall) -> Result<CertificateParams, IdentityFault> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |offset_s| epoch + Duration::from_secs(epoch_seconds(now, offset_s));
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("{node} ({role})"));
        // Every node may become the one that others call, so every leaf carries the cluster's name beside its own.
        for name in [node_dns_name(node), format!("{role}.role.tidegate.internal"), CLUSTER_NAME.to_string()] {
            params.subject_alt_names.push(SanType::DnsName(name.try_into().map_err(minting)?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = at(-CLUSTER_LEAF_BACKDATED_S);
        params.not_after = at(CLUSTER_LEAF_LIFE_S);
        Ok(params)
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn node_dns_name(node: &str) -> String {
    format!("{}.{NODE_SUFFIX}", node.to_ascii_lowercase())
}

fn minting(error: impl fmt::Display) -> IdentityFault {
    IdentityFault::Minting(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::TlsConnector;

    const NOW: Wall = Wall(1_800_000_000_000_000);
    const DAY_US: i64 = 86_400_000_000;

    #[test]
    fn the_same_key_makes_the_same_authority_on_every_node() {
        let key = ActivationKey::generate().unwrap();
        let one = Authority::of(&key).unwrap();
        assert_eq!(one.certificate, Authority::of(&key).unwrap().certificate);
        assert_ne!(one.certificate, Authority::of(&ActivationKey::generate().unwrap()).unwrap().certificate);
    }

    #[test]
    fn the_leaf_is_minted_anew_each_day_and_after_the_clock_was_set_back() {
        let identity = NodeIdentity::new(&ActivationKey::generate().unwrap(), "s1", "slave", NOW).unwrap();
        let first = identity.client_config(NOW);
        assert!(Arc::ptr_eq(&first, &identity.client_config(Wall(NOW.0 + DAY_US / 2))));
        let second = identity.client_config(Wall(NOW.0 + DAY_US));
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&second, &identity.client_config(Wall(NOW.0 - DAY_US))));
    }

    #[test]
    fn node_names_that_fit_no_certificate_are_refused() {
        for good in ["s1", "proxy-1.site_a", "A", &"x".repeat(63)] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "ä", "a/b", "a\0", &"x".repeat(64)] {
            assert!(!is_node_name(bad), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn both_ends_of_the_same_key_meet_and_know_each_others_names() {
        let key = ActivationKey::generate().unwrap();
        let (server, client) = handshake(&key, &key, Wall::now(), Wall::now()).await;
        let (server, client) = (server.unwrap(), client.unwrap());
        assert!(server.is("s1") && server.is("S1") && !server.is("s2") && !server.is("m") && !server.is("a b"));
        assert!(client.is("m") && !client.is("s1"));
    }

    #[tokio::test]
    async fn a_wrong_key_is_named_on_both_sides() {
        let (mine, theirs) = (ActivationKey::generate().unwrap(), ActivationKey::generate().unwrap());
        let (server, client) = handshake(&mine, &theirs, Wall::now(), Wall::now()).await;
        assert_eq!(server.unwrap_err(), HandshakeFault::KeyMismatch);
        assert_eq!(client.unwrap_err(), HandshakeFault::KeyMismatch);
    }

    #[tokio::test]
    async fn a_clock_that_is_days_off_is_named_on_both_sides() {
        let key = ActivationKey::generate().unwrap();
        let (server, client) = handshake(&key, &key, Wall(Wall::now().0 - 9 * DAY_US), Wall::now()).await;
        assert_eq!(client.unwrap_err(), HandshakeFault::Clock);
        assert_eq!(server.unwrap_err(), HandshakeFault::Clock);
    }

    async fn handshake(
        server: &ActivationKey,
        client: &ActivationKey,
        server_at: Wall,
        client_at: Wall,
    ) -> (Result<PeerIdentity, HandshakeFault>, Result<PeerIdentity, HandshakeFault>) {
        let server = NodeIdentity::new(server, "m", "master", server_at).unwrap().server_config(server_at);
        let client = NodeIdentity::new(client, "s1", "slave", client_at).unwrap().client_config(client_at);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(CLUSTER_NAME).unwrap();
        let (accepted, connected) =
            tokio::join!(TlsAcceptor::from(server).accept(far), TlsConnector::from(client).connect(name, near));
        let accepted = accepted.map_err(|e| HandshakeFault::of(&e));
        let connected = connected.map_err(|e| HandshakeFault::of(&e));
        (
            accepted.map(|s| PeerIdentity::of(s.get_ref().1.peer_certificates()).unwrap()),
            connected.map(|s| PeerIdentity::of(s.get_ref().1.peer_certificates()).unwrap()),
        )
    }
}
