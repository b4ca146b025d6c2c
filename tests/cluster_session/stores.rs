//! What the simulated master keeps records in, and what can be asked of it afterwards. It outlives the master's process.

use crate::simulation::SLAVES;
use crate::simulation::epoch_of;
use crate::simulation::name_of;
use std::sync::Arc;
use std::sync::Mutex;
use tempfile::TempDir;
use tidegate::base::clock::Wall;
use tidegate::record::Epoch;
use tidegate::record::Record;
use tidegate::record::audit::AuditQuestion;
use tidegate::record::audit::Proof;
use tidegate::record::question::Answer;
use tidegate::record::question::Question;
use tidegate::report::StoredAccount;
use tidegate::store::records::RecordStore;
use tidegate::store::records::SqliteRecords;
use tidegate::store::records::StoreError;

/// A store that tells what is in it.
pub trait Kept: RecordStore {
    /// The highest number of a slave's.
    fn highest_of(&self, slave: usize) -> u64;
    /// Of all slaves.
    fn count(&self) -> u64;
    /// What must not have come, so far.
    fn broken(&self) -> Vec<String>;
    /// Where not each number up to the highest is there, once: asked when all have come.
    fn unproven(&self) -> Vec<String>;
    /// The next process of the master opens it.
    fn open_again(&self);
}

/// Numbers in a table.
#[derive(Default)]
pub struct StoreInMemory {
    rows: [Mutex<Vec<u64>>; SLAVES],
    broken: Mutex<Vec<String>>,
}

impl Kept for StoreInMemory {
    fn highest_of(&self, slave: usize) -> u64 {
        self.rows[slave].lock().unwrap().last().copied().unwrap_or(0)
    }

    fn count(&self) -> u64 {
        self.rows.iter().map(|rows| rows.lock().unwrap().len() as u64).sum()
    }

    fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap().clone()
    }

    fn unproven(&self) -> Vec<String> {
        // A gap was told when it came, and a number that is not higher is not taken.
        Vec::new()
    }

    fn open_again(&self) {}
}

impl RecordStore for StoreInMemory {
    fn ingest(&self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> Result<u64, StoreError> {
        let mut rows = self.rows[slave_of(epoch)].lock().unwrap();
        for record in batch.iter() {
            let highest = rows.last().copied().unwrap_or(0);
            // What is stored already is known again, as the real store does; what would leave a gap must not come.
            if record.seq > highest + 1 {
                self.broken.lock().unwrap().push(format!("{node}: {} came after {highest}", record.seq));
            }
            if record.seq > highest {
                rows.push(record.seq);
            }
        }
        Ok(rows.last().copied().unwrap_or(0))
    }

    fn highest(&self, _: &str, epoch: Epoch) -> Result<u64, StoreError> {
        Ok(self.highest_of(slave_of(epoch)))
    }

    fn answer(&self, _: &Question) -> Result<Answer, StoreError> {
        Err(StoreError("not asked in a simulation".into()))
    }

    fn audit(&self, _: &AuditQuestion) -> Result<Proof, StoreError> {
        Err(StoreError("not asked in a simulation".into()))
    }

    fn accounts(&self) -> Result<Vec<StoredAccount>, StoreError> {
        unreachable!("nobody asks for accounts here")
    }

    fn prune(&self, _: Wall) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// The store of a master's, in a folder; each process of it opens it anew.
pub struct RealStore {
    dir: TempDir,
    open: Mutex<Option<Arc<SqliteRecords>>>,
}

impl RealStore {
    pub fn new(dir: TempDir) -> RealStore {
        let store = RealStore { dir, open: Mutex::default() };
        store.open_again();
        store
    }

    fn get(&self) -> Arc<SqliteRecords> {
        self.open.lock().unwrap().clone().unwrap()
    }

    /// What is wrong with a slave's records, in words.
    fn faults_of(&self, slave: usize) -> Vec<String> {
        let (node, highest) = (name_of(slave), self.highest_of(slave));
        if highest == 0 {
            return Vec::new();
        }
        let question = AuditQuestion { node: Some(node.clone()), ..AuditQuestion::default() };
        let proof = self.get().audit(&question).unwrap();
        let mut faults: Vec<_> = proof.findings.iter().map(|finding| format!("{node}: {finding:?}")).collect();
        if (proof.first, proof.last, proof.records) != (1, highest, highest) {
            faults.push(format!("{node}: {} records, {} to {}, of {highest}", proof.records, proof.first, proof.last));
        }
        let accounts = self.get().accounts().unwrap();
        match accounts.iter().filter(|account| account.node == node).collect::<Vec<_>>()[..] {
            [account] if account.highest == highest && account.missing == 0 && account.gaps.is_empty() => {}
            ref accounts => faults.push(format!("{node}: accounts {accounts:?}")),
        }
        faults
    }
}

impl Kept for RealStore {
    fn highest_of(&self, slave: usize) -> u64 {
        self.get().highest(&name_of(slave), epoch_of(slave)).unwrap()
    }

    fn count(&self) -> u64 {
        (0..SLAVES).map(|slave| self.highest_of(slave)).sum()
    }

    fn broken(&self) -> Vec<String> {
        Vec::new()
    }

    fn unproven(&self) -> Vec<String> {
        (0..SLAVES).flat_map(|slave| self.faults_of(slave)).collect()
    }

    fn open_again(&self) {
        let mut open = self.open.lock().unwrap();
        // The former one goes when what is under way in it has ended, beside the new one if need be.
        *open = None;
        *open = Some(Arc::new(SqliteRecords::open(&self.dir.path().join("records.db")).unwrap()));
    }
}

impl RecordStore for RealStore {
    fn ingest(&self, node: &str, epoch: Epoch, batch: &[Record<&str>]) -> Result<u64, StoreError> {
        self.get().ingest(node, epoch, batch)
    }

    fn highest(&self, node: &str, epoch: Epoch) -> Result<u64, StoreError> {
        self.get().highest(node, epoch)
    }

    fn answer(&self, question: &Question) -> Result<Answer, StoreError> {
        self.get().answer(question)
    }

    fn audit(&self, question: &AuditQuestion) -> Result<Proof, StoreError> {
        self.get().audit(question)
    }

    fn accounts(&self) -> Result<Vec<StoredAccount>, StoreError> {
        self.get().accounts()
    }

    fn prune(&self, before: Wall) -> Result<u64, StoreError> {
        self.get().prune(before)
    }
}

fn slave_of(epoch: Epoch) -> usize {
    (0..SLAVES).find(|slave| epoch_of(*slave) == epoch).unwrap()
}
