//! A master of this cluster that sends what it should not: the slave keeps its policy and says why.

use crate::world::*;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tidegate::base::clock::Wall;
use tidegate::cluster::held;
use tidegate::cluster::protocol::{self, HelloReply, Poll, PollReply, Welcome, hash_text};
use tidegate::policy::Snapshot;
use tidegate::policy::pieces::{Entry, Kind, Manifest, Pieces, hash_of};
use tidegate::tls::activation::ActivationKey;
use tidegate::tls::front::Accepted;
use tidegate::tls::serve::{Patience, serve};
use tokio::runtime::Runtime;
use tower::service_fn;

/// What the liar does to a snapshot, its manifest or its pieces.
#[derive(Clone)]
enum Lie {
    /// None: a good snapshot.
    Truth,
    /// A flipped bit of the file that the manifest covers: a master with bad memory.
    FlippedThenSigned(usize),
    /// A file cut short, signed.
    CutThenSigned(usize),
    /// A flipped bit in the manifest after signing: somebody on the way.
    SignedThenFlipped(usize),
    /// A flipped bit in the manifest before: it says what cannot be, or asks for pieces that nobody has.
    ManifestFlipped(usize),
    /// Signed with another cluster's key.
    ForeignSignature,
    /// Another snapshot than the one promised.
    Another,
    /// Pieces that are no zstd at all.
    Noise,
    /// A flipped bit in one of the pieces.
    PieceFlipped(usize),
    /// Pieces that end too early.
    PiecesCut,
    /// More than was asked for.
    PiecesLonger,
    /// A length that would fill the disk.
    Huge,
}

struct Liar {
    key: ActivationKey,
    truth: Arc<Snapshot>,
    lie: Mutex<Lie>,
    last_poll: Mutex<Poll>,
}

#[test]
fn a_snapshot_damaged_in_any_way_is_not_taken_and_the_reason_reaches_the_master() {
    let (key, dir) = (ActivationKey::generate().unwrap(), TempDir::new().unwrap());
    let first = open_policy(1);
    let master = Master::start(&key, first.clone(), Arc::new(FakeStore::default()));
    let address = master.address;
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    until("the good policy", || slave.policy() == first.name());
    until("the good policy to be held", || held::load(dir.path()).is_some());
    // Two slaves at once in one folder would mix what they are told.
    drop((slave, master));

    // Most of it is the table of hosts, of which a slave sees whether it is whole by the hash over everything alone.
    let hosts: String = (0..2_000).map(|host| format!("\"host-{host}.test\", ")).collect();
    let open = "[access_restriction]\ndefault = \"allow\"\n";
    let truth = policy(2, &format!("{open}[[categories]]\nname = \"MANY\"\nhosts = [{hosts}]\n"));
    let length = truth.bytes().len();
    let liar = Arc::new(Liar {
        key: key.clone(),
        truth: truth.clone(),
        lie: Mutex::new(Lie::ForeignSignature),
        last_poll: Mutex::default(),
    });
    let _runtime = Liar::start(liar.clone(), address);
    let mut lies = vec![
        (Lie::ForeignSignature, "signature does not fit"),
        (Lie::SignedThenFlipped(70), "signature does not fit"),
        (Lie::Another, "instead"),
        (Lie::Noise, "unpacking"),
        (Lie::PieceFlipped(0), "damaged"),
        (Lie::PieceFlipped(length - 1), "damaged"),
        (Lie::PiecesCut, "missing"),
        (Lie::PiecesLonger, ""),
        (Lie::Huge, "lengths"),
        (Lie::CutThenSigned(length - 1), ""),
        (Lie::CutThenSigned(1), ""),
    ];
    lies.extend([0, 9, 20, length / 3, length / 2, length - 1].map(|at| (Lie::FlippedThenSigned(at), "")));
    lies.extend([0, 9, 15, 44, 52, 53, 54, 55, 64, 90].map(|at| (Lie::ManifestFlipped(at), "")));
    for (lie, words) in lies {
        *liar.lie.lock().unwrap() = lie;
        liar.last_poll.lock().unwrap().error = String::new();
        // A slave waits longer after each bad snapshot: a fresh one starts with the short wait.
        let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
        let error = wait_for("the reason at the master", || {
            let poll = liar.last_poll.lock().unwrap();
            // Not the last poll of the slave before.
            let own = !poll.error.is_empty() && poll.error == slave.trouble();
            (own && poll.error.contains(words)).then(|| poll.error.clone())
        });
        assert!(error.contains(&format!("{} kept", first.name())), "{error}");
        assert_eq!(slave.policy(), first.name());
        assert_eq!(held::load(dir.path()).unwrap().snapshot.name(), first.name());
    }

    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), address);
    until("the last lie to be refused again", || !slave.trouble().is_empty());
    *liar.lie.lock().unwrap() = Lie::Truth;
    until("the truth, taken when it comes", || slave.policy() == truth.name());
}

#[test]
fn a_damaged_held_snapshot_is_passed_over_for_the_one_before_and_said() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (open_policy(1), open_policy(2));
    assert!(held::load(dir.path()).is_none());
    for snapshot in [&one, &two] {
        held::store(dir.path(), snapshot).unwrap();
        held::make_current(dir.path(), snapshot, Wall(7)).unwrap();
    }
    let load = || held::load(dir.path());
    assert_eq!((load().unwrap().snapshot.name(), load().unwrap().trouble), (two.name(), String::new()));

    let newest = dir.path().join("snapshots").join(format!("{}.snapshot", hash_text(two.hash())));
    let good = std::fs::read(&newest).unwrap();
    for at in (0..good.len()).step_by(good.len() / 40 + 1) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&newest, &bad).unwrap();
        let held = load().unwrap();
        assert_eq!(held.snapshot.name(), one.name(), "byte {at}");
        assert!(held.trouble.contains(two.name()) && held.trouble.contains("damaged"), "{}", held.trouble);
    }
    std::fs::remove_file(&newest).unwrap();
    assert_eq!(load().unwrap().snapshot.name(), one.name());

    // Without its index the folder still speaks; with nothing good in it there is nothing.
    let index = dir.path().join("snapshots/index.json");
    std::fs::write(&index, b"[{\"hash\":\"../../etc/passwd\",\"name\":\"\",\"synced_us\":0}]").unwrap();
    assert_eq!(load().unwrap().snapshot.name(), one.name());
    std::fs::remove_file(dir.path().join("snapshots").join(format!("{}.snapshot", hash_text(one.hash())))).unwrap();
    assert!(load().is_none());
}

#[test]
fn only_the_newest_held_snapshots_stay() {
    let dir = TempDir::new().unwrap();
    for version in 1..=9 {
        let snapshot = open_policy(version);
        held::store(dir.path(), &snapshot).unwrap();
        held::make_current(dir.path(), &snapshot, Wall(version as i64)).unwrap();
        assert_eq!(held::load(dir.path()).unwrap().snapshot.version(), version);
    }
    let files = std::fs::read_dir(dir.path().join("snapshots")).unwrap().count();
    assert_eq!(files, tidegate::limits::HELD_SNAPSHOTS + 1);
}

impl Liar {
    fn start(liar: Arc<Liar>, address: SocketAddr) -> Runtime {
        let key = liar.key.clone();
        let handle = move |accepted| {
            let liar = liar.clone();
            async move {
                let Accepted::Cluster { stream, .. } = accepted else { return };
                let service = service_fn(move |request| {
                    let liar = liar.clone();
                    async move { Ok::<_, Infallible>(liar.answer(request).await) }
                });
                serve(stream, service, Patience::CLUSTER, Arc::from(""), |_| ()).await;
            }
        };
        front(address, &key, handle).0
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_string();
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        match path.as_str() {
            protocol::HELLO_PATH => text(protocol::encode(&HelloReply::Welcome(Welcome {
                session: "x".into(),
                master: "m".into(),
                clock_us: Wall::now().0,
                synctime_ms: 60_000,
                snapshot: String::new(),
            }))),
            protocol::POLL_PATH => {
                let poll: Poll = protocol::decode(&body).unwrap();
                let hold = std::time::Duration::from_millis(poll.hold_ms.min(100));
                let wait = poll.seen == hash_text(self.truth.hash());
                *self.last_poll.lock().unwrap() = poll;
                if wait {
                    tokio::time::sleep(hold).await;
                }
                text(protocol::encode(&PollReply {
                    hash: hash_text(self.truth.hash()),
                    snapshot: self.truth.name().into(),
                    version: self.truth.version(),
                    clock_us: Wall::now().0,
                    proxies: Vec::new(),
                    tasks: None,
                }))
            }
            path if path.starts_with(protocol::MANIFEST_PATH) => self.manifest(),
            _ => self.pieces(&body),
        }
    }

    /// The file that is offered, in pieces of its own cut.
    fn offered(&self) -> (Vec<u8>, Pieces) {
        let mut bytes = self.truth.bytes();
        match *self.lie.lock().unwrap() {
            Lie::FlippedThenSigned(at) => bytes[at] ^= 0x10,
            Lie::CutThenSigned(length) => bytes.truncate(length),
            _ => {}
        }
        let entry = |piece: &[u8]| Entry { hash: hash_of(piece), length: piece.len() as u32 };
        let entries = bytes.chunks(1000).map(entry).collect();
        (bytes, Pieces { sections: vec![(Kind::Rest, entries)] })
    }

    fn manifest(&self) -> Response<Full<Bytes>> {
        let ((_, pieces), lie) = (self.offered(), self.lie.lock().unwrap().clone());
        let hash = if matches!(lie, Lie::Another) { open_policy(3).hash() } else { self.truth.hash() };
        let mut manifest = Manifest::of(hash, &pieces, |_, _| ());
        if matches!(lie, Lie::Huge) {
            manifest.length = u64::MAX;
            manifest.sections[0].length = u64::MAX;
        }
        let mut bytes = manifest.encode();
        if let Lie::ManifestFlipped(at) = lie {
            bytes[at] ^= 0x10;
        }
        let foreign = ActivationKey::generate().unwrap();
        let signer = if matches!(lie, Lie::ForeignSignature) { &foreign } else { &self.key };
        let signature = signer.signer().unwrap().sign_manifest(&bytes);
        if let Lie::SignedThenFlipped(at) = lie {
            bytes[at] ^= 1;
        }
        let mut answer = text(bytes);
        let signature = data_encoding::HEXLOWER.encode(&signature).parse().unwrap();
        answer.headers_mut().insert(protocol::SIGNATURE_FIELD, signature);
        answer
    }

    fn pieces(&self, wanted: &[u8]) -> Response<Full<Bytes>> {
        let ((bytes, pieces), lie) = (self.offered(), self.lie.lock().unwrap().clone());
        let mut answer = Vec::new();
        for hash in wanted.chunks(32) {
            let found = pieces.places().find(|(entry, _)| entry.hash == hash);
            let Some((_, place)) = found else {
                let mut refused = text(b"no such piece".to_vec());
                *refused.status_mut() = StatusCode::BAD_REQUEST;
                return refused;
            };
            answer.extend_from_slice(&bytes[place.offset..][..place.length]);
        }
        match lie {
            Lie::PieceFlipped(at) => {
                let at = at.min(answer.len() - 1);
                answer[at] ^= 1;
            }
            Lie::PiecesCut => answer.truncate(answer.len() - 1),
            Lie::PiecesLonger => answer.push(7),
            _ => {}
        }
        text(if matches!(lie, Lie::Noise) { vec![7; 99] } else { zstd::bulk::compress(&answer, 1).unwrap() })
    }
}

fn text(bytes: Vec<u8>) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from(bytes)))
}
