//! One node sends more than the master can take.

use crate::key;
use crate::world::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::base::clock::Wall;
use tidegate::cluster::Offer;
use tidegate::cluster::client::Connection;
use tidegate::cluster::client::MasterAddress;
use tidegate::cluster::packer::Packer;
use tidegate::cluster::protocol;
use tidegate::cluster::protocol::Hello;
use tidegate::cluster::protocol::HelloReply;
use tidegate::record::Epoch;
use tidegate::record::Record;
use tidegate::record::lines::Lines;
use tidegate::tls::identity::NodeIdentity;
use tidegate::tls::keyring::KeyRing;
use tidegate::tls::node_key::NodeKey;

/// Connections over which the flood comes, each with a batch at all times.
const CONNECTIONS: usize = 64;
/// How long the store takes for each.
const STORING_MS: u64 = 2_000;
const FLOOD: Epoch = Epoch([3; 16]);

async fn hello(master: &MasterAddress) -> (Connection, String) {
    let mut connection = Connection::open(master).await.unwrap();
    let hello = Hello {
        build: protocol::Build::this(),
        node: "flood".into(),
        role: "slave".into(),
        epoch: FLOOD.to_string(),
        clock_us: Wall::now().0,
        snapshot: String::new(),
        offer: Offer::default(),
        synctime_ms: 60_000,
    };
    let (method, deadline) = (hyper::Method::POST, Duration::from_secs(10));
    let body = protocol::encode(&hello);
    let answer = connection.ask(method, protocol::HELLO_PATH, &[], body, 65_536, deadline).await.unwrap();
    match protocol::decode(&answer.body).unwrap() {
        HelloReply::Welcome(welcome) => (connection, welcome.session),
        HelloReply::Refused { why } => panic!("{}", why.words()),
    }
}

/// Sends the same batch again and again, whatever comes back.
async fn send(master: MasterAddress, session: String, batch: Arc<Vec<u8>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::open(&master).await else { continue };
        let fields = [(protocol::SESSION_FIELD, session.clone())];
        let (method, deadline) = (hyper::Method::POST, Duration::from_secs(60));
        let _ = connection.ask(method, protocol::RECORDS_PATH, &fields, batch.to_vec(), 65_536, deadline).await;
    }
}

#[test]
fn a_node_that_floods_the_master_with_records_does_not_starve_the_others() {
    let (key, dir) = (key(), TempDir::new().unwrap());
    let store =
        Arc::new(FakeStore { slow: Some(("flood".into(), Duration::from_millis(STORING_MS))), ..FakeStore::default() });
    let master = Master::start(&key, open_policy(1), store.clone());
    let ring = KeyRing::of(key.clone());
    let identity = NodeIdentity::new(&ring, NodeKey::generate().unwrap(), "flood", "slave", Wall::now()).unwrap();
    let address = MasterAddress::new(master.address.to_string(), identity);
    let records: Vec<Record> =
        (1..=2_000).map(|seq| Record { seq, record_id: seq.to_string(), ..Record::default() }).collect();
    let batch = Arc::new(Packer::new().unwrap().pack("flood", FLOOD, &Lines::of(&records)).unwrap());
    let (runtime, stop) = (runtime(), Arc::new(AtomicBool::new(false)));
    let (_kept, session) = runtime.block_on(hello(&address));
    for _ in 0..CONNECTIONS {
        runtime.spawn(send(address.clone(), session.clone(), batch.clone(), stop.clone()));
    }
    until("the flood to be stored", || store.calls.load(Ordering::SeqCst) > 1);

    let modest = Slave::start(SlaveSpec::new("modest", &key, dir.path()), master.address);
    until("the modest one to be in", || modest.up());
    let log = FakeLog::new("modest");
    let (_, shipped) = modest.ship(log.clone());
    // One after the other. Behind all of the flood each would wait for sixteen turns of four, longer than this test does.
    for record in 1..=5 {
        log.append(1);
        until("a record of the modest one at the master", || shipped.borrow().acknowledged == record);
    }
    stop.store(true, Ordering::Relaxed);
    runtime.shutdown_background();
}
