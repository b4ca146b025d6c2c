//! Who a node of the cluster is: the authority that the activation key seeds, the short-lived leaf each node mints for
//! itself, and the mutual TLS configuration on both ends.

use crate::base::clock::Wall;
use crate::limits::CLUSTER_LEAF_BACKDATED_S;
use crate::limits::CLUSTER_LEAF_LIFE_S;
use crate::limits::CLUSTER_LEAF_RENEWED_AFTER_S;
use crate::tls::activation::ActivationKey;
use crate::tls::activation::epoch_seconds;
use crate::tls::keyring::KeyRing;
use crate::tls::node_key;
use crate::tls::node_key::NodeKey;
use crate::tls::tickets::Tickets;
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

/// The name every slave asks port 8888 for, after `k`, the fingerprint of its activation key and a dot; whoever asks for
/// another name gets the portal.
pub const CLUSTER_NAME: &str = "cluster.tidegate.internal";
/// Servers whose tickets a slave keeps: its master, under two keys.
const CLIENT_SESSIONS: usize = 2;
const NODE_SUFFIX: &str = "node.tidegate.internal";

/// A member of the cluster: its authority, this node's own key, and the current leaf about it. Shared by everything on the node
/// that speaks to the cluster; the leaf is minted anew each day, so that neither a long uptime nor a stolen leaf outlives a
/// week. While the cluster changes its activation key, a node is a member under the former one as well.
pub struct NodeIdentity {
    /// Under the key, then under the former one if there is one.
    memberships: Vec<Membership>,
    key: NodeKey,
    node: String,
    role: String,
}

/// What a node is under one activation key.
struct Membership {
    authority: Authority,
    /// The end of a former key.
    until: Option<Wall>,
    /// The name in ClientHello by which a slave says which key it holds.
    asked_as: String,
    minted: Mutex<Minted>,
}

struct Minted {
    at: Wall,
    leaf: CertificateDer<'static>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl NodeIdentity {
    /// Derives the authorities from `ring` and mints the first leaf for `node`.
    pub fn new(ring: &KeyRing, key: NodeKey, node: &str, role: &str, now: Wall) -> Result<Arc<Self>, IdentityFault> {
        if !is_node_name(node) {
            return Err(IdentityFault::Name(node.to_string()));
        }
        let former = ring.former().map(|former| (&former.key, Some(former.until)));
        let keys = [(ring.key(), None)].into_iter().chain(former);
        let memberships = keys.map(|(of, until)| Membership::new(of, until, (&key, node, role), now));
        let memberships = memberships.collect::<Result<_, _>>()?;
        Ok(Arc::new(NodeIdentity { memberships, key, node: node.to_string(), role: role.to_string() }))
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What masters know this node's key by.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint()
    }

    /// This node as the other end of a handshake sees it; nothing if its leaf cannot be read, which would be a bug.
    pub fn as_seen(&self) -> Option<PeerIdentity> {
        let leaf = self.memberships[0].minted.lock().unwrap_or_else(PoisonError::into_inner).leaf.clone();
        PeerIdentity::of(Some(&[leaf]), None)
    }

    /// For the accepting side: demands a leaf of this cluster from a client that asked for `name`; and the time until which
    /// that client's activation key counts, if it is the former one. Who names a key that does not count is met under the
    /// current one, and learns so that its own is another.
    pub fn server_config(&self, name: &str, now: Wall) -> (Arc<ServerConfig>, Option<Wall>) {
        let asked = self.counting(now).find(|membership| membership.asked_as == name);
        let membership = asked.unwrap_or(&self.memberships[0]);
        (self.fresh(membership, now).0, membership.until)
    }

    /// For the connecting side: the ways to show who this node is, the first choice first. Each trusts the authority of one
    /// activation key alone, shows the node's leaf, and asks for the name.
    pub(super) fn ways(&self, now: Wall) -> Vec<(String, Arc<ClientConfig>)> {
        self.counting(now).map(|membership| (membership.asked_as.clone(), self.fresh(membership, now).1)).collect()
    }

    fn counting(&self, now: Wall) -> impl Iterator<Item = &Membership> {
        self.memberships.iter().filter(move |membership| membership.until.is_none_or(|until| now < until))
    }

    fn fresh(&self, membership: &Membership, now: Wall) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let mut minted = membership.minted.lock().unwrap_or_else(PoisonError::into_inner);
        let age_s = now.seconds() - minted.at.seconds();
        // A clock that was set back leaves a leaf from the future: that one is minted anew as well.
        if !(-CLUSTER_LEAF_RENEWED_AFTER_S..CLUSTER_LEAF_RENEWED_AFTER_S).contains(&age_s) {
            match membership.authority.mint((&self.key, &self.node, &self.role), now) {
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

impl Membership {
    fn new(
        key: &ActivationKey,
        until: Option<Wall>,
        about: (&NodeKey, &str, &str),
        now: Wall,
    ) -> Result<Self, IdentityFault> {
        let authority = Authority::of(key)?;
        let minted = Mutex::new(authority.mint(about, now)?);
        Ok(Membership { asked_as: authority.asked_as.clone(), authority, until, minted })
    }
}

/// Whether a name in a ClientHello asks for the cluster, under whichever key.
pub(super) fn asks_for_cluster(name: &str) -> bool {
    name.strip_suffix(CLUSTER_NAME).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Who stands at the other end of a cluster connection, as its leaf says it.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    leaf: CertificateDer<'static>,
    /// Of the node's own key. Told once: it is asked for at each request.
    fingerprint: Arc<str>,
    until: Option<Wall>,
}

impl PeerIdentity {
    /// From the first certificate of a finished handshake, under an activation key that counts until then.
    pub(super) fn of(certificates: Option<&[CertificateDer<'_>]>, until: Option<Wall>) -> Option<Self> {
        let leaf = certificates?.first()?.clone().into_owned();
        let key = ParsedCertificate::try_from(&leaf).ok()?.subject_public_key_info();
        Some(PeerIdentity { fingerprint: node_key::fingerprint(&key).into(), leaf, until })
    }

    /// Whether the leaf was minted for `node`. The handshake has proven that it is this cluster's.
    pub fn is(&self, node: &str) -> bool {
        let Ok(leaf) = ParsedCertificate::try_from(&self.leaf) else { return false };
        is_node_name(node)
            && ServerName::try_from(node_dns_name(node)).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
    }

    /// What the node's own key is known by.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The end of the activation key it showed, if that is the former one.
    pub fn former_until(&self) -> Option<Wall> {
        self.until
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
    asked_as: String,
    tickets: Arc<Tickets>,
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
        Ok(Authority {
            asked_as: format!("k{}.{CLUSTER_NAME}", key.fingerprint()),
            tickets: Arc::new(Tickets::new(key)),
            issuer: Issuer::new(params, pair),
            certificate,
        })
    }

    /// A leaf about a node's own key, its name and its role.
    fn mint(&self, (key, node, role): (&NodeKey, &str, &str), now: Wall) -> Result<Minted, IdentityFault> {
        let pair = key.pair();
        let leaf = self.leaf_params(node, role, now)?.signed_by(pair, &self.issuer).map_err(minting)?;
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
        server.ticketer = self.tickets.clone();
        // One for the sidecar's next connection and one for the shipper's.
        server.send_tls13_tickets = 2;

        let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(tls13).map_err(minting)?;
        let mut client = client.with_root_certificates(roots).with_client_auth_cert(chain, key()).map_err(minting)?;
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        client.resumption = rustls::client::Resumption::in_memory_sessions(CLIENT_SESSIONS);
        Ok(Minted { at: now, leaf: leaf.der().clone(), server: Arc::new(server), client: Arc::new(client) })
    }

    fn leaf_params(&self, node: &str, role: &str, now: Wall) -> Result<CertificateParams, IdentityFault> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |offset_s| epoch + Duration::from_secs(epoch_seconds(now, offset_s));
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("{node} ({role})"));
        // Every node may become the one that others call, so every leaf carries the cluster's name beside its own.
        let names =
            [node_dns_name(node), format!("{role}.role.tidegate.internal"), CLUSTER_NAME.into(), self.asked_as.clone()];
        for name in names {
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
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
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
        let identity = identity(&KeyRing::of(ActivationKey::generate().unwrap()), "s1", NOW);
        let config = |now| identity.ways(now).remove(0).1;
        let first = config(NOW);
        assert!(Arc::ptr_eq(&first, &config(Wall(NOW.0 + DAY_US / 2))));
        let second = config(Wall(NOW.0 + DAY_US));
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&second, &config(Wall(NOW.0 - DAY_US))));
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

    #[tokio::test]
    async fn a_node_is_known_by_its_key_and_keeps_it_from_leaf_to_leaf() {
        let key = KeyRing::of(ActivationKey::generate().unwrap());
        let (slave, master) = (identity(&key, "s1", Wall::now()), identity(&key, "m", Wall::now()));
        let own = slave.fingerprint();
        let seen = meet(&master, &slave, Wall::now()).await.0.unwrap();
        let tomorrow = meet(&master, &slave, Wall(Wall::now().0 + DAY_US)).await.0.unwrap();
        assert_eq!([seen.fingerprint(), tomorrow.fingerprint()], [&own; 2]);
        let other = meet(&master, &identity(&key, "s1", Wall::now()), Wall::now()).await.0.unwrap();
        assert!(other.is("s1") && other.fingerprint() != own);
    }

    #[tokio::test]
    async fn while_the_key_changes_holders_of_old_and_new_meet_in_whatever_order_they_change() {
        let (old, new) = (ActivationKey::generate().unwrap(), ActivationKey::generate().unwrap());
        let (only_old, only_new) = (KeyRing::of(old.clone()), KeyRing::of(new.clone()));
        let until = Wall(Wall::now().0 + DAY_US);
        let both = only_old.clone().rotated(new, until);
        for (master, slave, shown, meets) in [
            (&both, &only_old, Some(until), true),
            (&both, &only_new, None, true),
            (&both, &both, None, true),
            (&only_old, &both, None, true),
            (&only_new, &both, None, true),
            (&only_new, &only_old, None, false),
        ] {
            let (master, slave) = (identity(master, "m", Wall::now()), identity(slave, "s1", Wall::now()));
            let (accepted, connected) = meet(&master, &slave, Wall::now()).await;
            assert_eq!((accepted.is_ok(), connected.is_ok()), (meets, meets));
            if let Ok(peer) = accepted {
                assert_eq!(peer.former_until(), shown);
            }
        }
        let (master, slave) = (identity(&both, "m", Wall::now()), identity(&only_old, "s1", Wall::now()));
        assert_eq!(
            meet(&master, &slave, until).await.1.unwrap_err(),
            HandshakeFault::KeyMismatch,
            "the window is over"
        );
    }

    #[tokio::test]
    async fn a_session_is_resumed_by_the_masters_next_process_and_still_says_who_it_is() {
        let key = KeyRing::of(ActivationKey::generate().unwrap());
        let slave = identity(&key, "s1", Wall::now());
        for resumed in [false, true, true] {
            let process = identity(&key, "m", Wall::now());
            let (name, client) = slave.ways(Wall::now()).remove(0);
            let (server, _) = process.server_config(&name, Wall::now());
            let (near, far) = tokio::io::duplex(64 * 1024);
            let connect = TlsConnector::from(client).connect(ServerName::try_from(name).unwrap(), near);
            let (accepted, connected) = tokio::join!(TlsAcceptor::from(server).accept(far), connect);
            let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
            let kind = accepted.get_ref().1.handshake_kind().unwrap();
            assert_eq!(kind == rustls::HandshakeKind::Resumed, resumed, "{kind:?}");
            let peer = PeerIdentity::of(accepted.get_ref().1.peer_certificates(), None).unwrap();
            assert!(peer.is("s1") && peer.fingerprint() == slave.fingerprint());
            // The tickets come with the first bytes that the server sends.
            accepted.write_all(b"x").await.unwrap();
            accepted.flush().await.unwrap();
            connected.read_u8().await.unwrap();
        }
    }

    fn identity(ring: &KeyRing, node: &str, now: Wall) -> Arc<NodeIdentity> {
        NodeIdentity::new(ring, NodeKey::generate().unwrap(), node, "slave", now).unwrap()
    }

    /// As `dial` and `front` do it, over memory.
    async fn meet(
        master: &NodeIdentity,
        slave: &NodeIdentity,
        now: Wall,
    ) -> (Result<PeerIdentity, HandshakeFault>, Result<PeerIdentity, HandshakeFault>) {
        let mut last = None;
        for (name, client) in slave.ways(now) {
            let (server, until) = master.server_config(&name, now);
            let (near, far) = tokio::io::duplex(64 * 1024);
            let connect = TlsConnector::from(client).connect(ServerName::try_from(name).unwrap(), near);
            let (accepted, connected) = tokio::join!(TlsAcceptor::from(server).accept(far), connect);
            let accepted = accepted.map_err(|e| HandshakeFault::of(&e));
            let accepted = accepted.map(|s| PeerIdentity::of(s.get_ref().1.peer_certificates(), until).unwrap());
            let connected = connected.map_err(|e| HandshakeFault::of(&e));
            let connected = connected.map(|s| PeerIdentity::of(s.get_ref().1.peer_certificates(), None).unwrap());
            let met = accepted.is_ok();
            last = Some((accepted, connected));
            if met {
                break;
            }
        }
        last.unwrap()
    }

    async fn handshake(
        server: &ActivationKey,
        client: &ActivationKey,
        server_at: Wall,
        client_at: Wall,
    ) -> (Result<PeerIdentity, HandshakeFault>, Result<PeerIdentity, HandshakeFault>) {
        let master = identity(&KeyRing::of(server.clone()), "m", server_at);
        let slave = identity(&KeyRing::of(client.clone()), "s1", client_at);
        // Leaves are as old as the clocks say: minted then, and not looked at again before they are used.
        meet(&master, &slave, server_at.min(client_at)).await
    }
}
