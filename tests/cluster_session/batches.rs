//! Batches of records word by word: whose they may be, what the answer to one says, and what a slave makes of an answer that says less.

use crate::key;
use crate::store;
use crate::world::*;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::cluster::client::Connection;
use tidegate::cluster::client::Trouble;
use tidegate::cluster::packer::Packer;
use tidegate::cluster::protocol;
use tidegate::cluster::protocol::Stored;
use tidegate::cluster::shipper::ShipStatus;
use tidegate::cluster::shipper::Sink;
use tidegate::cluster::shipper::ship;
use tidegate::record::Epoch;
use tidegate::record::Record;
use tidegate::record::lines::Lines;
use tokio::sync::watch;

const OTHER: Epoch = Epoch([77; 16]);

fn batch(node: &str, epoch: Epoch, seqs: RangeInclusive<u64>) -> Vec<u8> {
    let records: Vec<Record> =
        seqs.map(|seq| Record { seq, record_id: seq.to_string(), ..Record::default() }).collect();
    Packer::new().unwrap().pack(node, epoch, &Lines::of(&records)).unwrap()
}

/// Posts a batch under the session of `slave`: the status and the words, or how far the answer says that the store is.
fn post(slave: &Slave, batch: Vec<u8>) -> Result<u64, (u16, String)> {
    runtime().block_on(async {
        let session = slave.handle.session.borrow().clone().unwrap();
        let mut connection = Connection::open(&slave.master).await.unwrap();
        let fields = [(protocol::SESSION_FIELD, session)];
        let (method, deadline) = (hyper::Method::POST, Duration::from_secs(10));
        let answer = connection.ask(method, protocol::RECORDS_PATH, &fields, batch, 65_536, deadline).await.unwrap();
        match answer.status.as_u16() {
            200 => Ok(protocol::decode::<Stored>(&answer.body).unwrap().seq),
            status => Err((status, String::from_utf8_lossy(&answer.body).into_owned())),
        }
    })
}

#[test]
fn a_batch_of_another_node_or_epoch_is_refused_in_words_and_none_of_it_is_stored() {
    let (key, dirs, store) = (key(), [TempDir::new().unwrap(), TempDir::new().unwrap()], store());
    let master = Master::start(&key, open_policy(1), store.clone());
    let [one, two] = [("s1", 0), ("s2", 1)]
        .map(|(name, at)| Slave::start(SlaveSpec::new(name, &key, dirs[at].path()), master.address));
    until("both to be in", || one.up() && two.up());
    let foreign = [("s2", two.epoch), ("s2", one.epoch), ("s3", one.epoch), ("s1", two.epoch), ("s1", OTHER)];
    for (node, epoch) in foreign {
        let (status, said) = post(&one, batch(node, epoch, 1..=5)).unwrap_err();
        let words = format!("a batch of {node} (epoch {epoch}) came in the session of s1 (epoch {})", one.epoch);
        assert!(status == 400 && said.contains(&words), "{status} {said}");
    }
    assert_eq!(store.given.load(Ordering::SeqCst), 0, "{:?}", store.rows.lock().unwrap().keys());
    // A name is the same in capitals, and stands in the store as the session has it.
    assert_eq!(post(&one, batch("S1", one.epoch, 1..=3)), Ok(3));
    assert_eq!(post(&two, batch("s2", two.epoch, 1..=2)), Ok(2));
    let rows: Vec<_> = store.rows.lock().unwrap().iter().map(|(whose, rows)| (whose.clone(), rows.len())).collect();
    assert_eq!(rows, [(("s1".to_string(), one.epoch), 3), (("s2".to_string(), two.epoch), 2)]);
}

#[test]
fn the_answer_to_a_batch_says_how_far_the_store_is_with_all_of_it() {
    let (key, dir, store) = (key(), TempDir::new().unwrap(), store());
    let master = Master::start(&key, open_policy(1), store.clone());
    let slave = Slave::start(SlaveSpec::new("s1", &key, dir.path()), master.address);
    until("it to be in", || slave.up());
    for (seqs, stored) in [(1..=50, 50), (1..=50, 50), (40..=60, 60), (3..=7, 60), (61..=61, 61)] {
        assert_eq!(post(&slave, batch("s1", slave.epoch, seqs.clone())), Ok(stored), "{seqs:?}");
    }
    assert_eq!(store.count(), 61);
}

/// A store that has all it was given, and says that it has less.
#[derive(Clone, Default)]
struct Miser(Arc<Mutex<Hoard>>);

#[derive(Default)]
struct Hoard {
    /// How often each number came.
    came: BTreeMap<u64, u64>,
    batches: u64,
    asked: u64,
    /// What it holds back in an answer to a batch, and when it is asked how far it is.
    less: [u64; 2],
    /// The most it ever said.
    said: u64,
}

impl Hoard {
    fn say(&mut self, less: u64) -> u64 {
        let stored = self.came.last_key_value().map_or(0, |(seq, _)| *seq).saturating_sub(less);
        self.said = self.said.max(stored);
        stored
    }
}

impl Sink for Miser {
    async fn resume(&mut self) -> Result<u64, Trouble> {
        let mut hoard = self.0.lock().unwrap();
        hoard.asked += 1;
        let less = hoard.less[1];
        Ok(hoard.say(less))
    }

    async fn store(&mut self, batch: Arc<Lines>, _written: u64) -> Result<u64, Trouble> {
        let mut hoard = self.0.lock().unwrap();
        hoard.batches += 1;
        (batch.first()..=batch.last()).for_each(|seq| *hoard.came.entry(seq).or_default() += 1);
        let less = hoard.less[0];
        Ok(hoard.say(less))
    }
}

#[test]
fn a_master_that_acknowledges_less_than_it_was_sent_is_named_and_asked_ever_more_seldom_and_nothing_is_lost() {
    for (less, is_sent_again) in [([1, 0], false), ([1, 1], true), ([u64::MAX, u64::MAX], true)] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (miser, log) = (Miser::default(), FakeLog::new("s1"));
            miser.0.lock().unwrap().less = less;
            let (status, seen) = watch::channel(ShipStatus::default());
            let shipping = tokio::spawn(ship(log.clone(), miser.clone(), status));
            log.append(10);
            tokio::time::sleep(Duration::from_secs(600)).await;
            {
                let hoard = miser.0.lock().unwrap();
                // A wait doubles up to 5 s, and at least half of it is waited.
                assert!((1..=260).contains(&hoard.asked) && hoard.batches <= hoard.asked, "{less:?}: {}", hoard.asked);
                assert_eq!(hoard.came.values().any(|times| *times > 1), is_sent_again, "{less:?}: {:?}", hoard.came);
                assert!(log.cursor.load(Ordering::SeqCst) <= hoard.said, "{less:?}");
                assert!(hoard.came.keys().copied().eq(1..=10), "{less:?}: {:?}", hoard.came);
            }
            if is_sent_again {
                let words = &seen.borrow().trouble;
                assert!(
                    words.contains("the store has only up to ") && words.contains("after a batch up to 10"),
                    "{words}"
                );
            }
            // It is made good.
            miser.0.lock().unwrap().less = [0, 0];
            log.append(5);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(*seen.borrow(), ShipStatus { acknowledged: 15, trouble: String::new() }, "{less:?}");
            assert_eq!(log.cursor.load(Ordering::SeqCst), 15);
            shipping.abort();
        });
    }
}
