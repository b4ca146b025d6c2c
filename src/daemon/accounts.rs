//! Where every node's records are: ended on its cores, in its extended.log, at the master, and which never came.

use super::desk::NodeDesk;
use crate::admin::Refused;
use crate::cluster::NodeRow;
use crate::cluster::RecordAccount;
use crate::record::question::StoredAccount;

impl NodeDesk {
    /// The nodes, each with the account of its records.
    pub async fn accounted_nodes(&self) -> Result<Vec<NodeRow>, Refused> {
        let mut rows = self.nodes();
        let records = self.records.clone();
        let asked = tokio::task::spawn_blocking(move || records.map(|records| records.accounts()).transpose());
        let stored = asked.await.map_err(|error| Refused::failed(format!("asking the record store: {error}")))?;
        let stored = stored.map_err(|error| Refused::failed(error.to_string()))?;
        settle(&mut rows, stored.as_deref());
        Ok(rows)
    }
}

/// Completes `rows` (this node first, then its slaves) with what the store of records has of each; a slave has none, and
/// says of itself what its master told it.
fn settle(rows: &mut [NodeRow], stored: Option<&[StoredAccount]>) {
    for row in rows.iter_mut().filter(|row| row.refusal.is_empty()) {
        // Batches of records say more often how far the log is than figures do.
        let written = row.records.written.max(row.figures.records_written);
        let store = match stored {
            Some(stored) => stored.iter().find(|account| account.node.eq_ignore_ascii_case(&row.name)).cloned(),
            None => Some(StoredAccount { highest: row.figures.records_acknowledged, ..StoredAccount::default() }),
        };
        let store = store.unwrap_or_default();
        row.records = RecordAccount {
            ended: written.max(row.figures.records_written + row.figures.records_waiting),
            written,
            shipped: row.figures.records_acknowledged,
            stored: store.highest.saturating_sub(store.missing),
            missing: store.missing,
            gaps: store.gaps,
        };
        // The store may be ahead of what the node said last.
        row.record_lag = written.saturating_sub(store.highest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::question::Gap;

    #[test]
    fn every_number_is_accounted_for() {
        let mut slave = NodeRow { name: "Edge-1".into(), record_lag: 99, ..NodeRow::default() };
        (slave.figures.records_written, slave.figures.records_waiting) = (120, 3);
        slave.figures.records_acknowledged = 90;
        let refused = NodeRow { name: "edge-1".into(), refusal: "KeyMismatch".into(), ..NodeRow::default() };
        let mut rows = [slave, refused];
        let gap = Gap { node: "edge-1".into(), first: 5, last: 8, after_us: 1, before_us: 2 };
        let store = StoredAccount { node: "edge-1".into(), highest: 100, missing: 4, gaps: vec![gap] };
        settle(&mut rows, Some(&[store]));
        let told = &rows[0].records;
        assert_eq!((told.ended, told.written, told.shipped, told.stored, told.missing), (123, 120, 90, 96, 4));
        assert_eq!((rows[0].record_lag, told.gaps.len()), (20, 1));
        assert_eq!(rows[1].records, RecordAccount::default(), "who was refused has no account");
        settle(&mut rows[..1], None);
        assert_eq!((rows[0].records.stored, rows[0].record_lag), (90, 30), "a slave of itself");
    }
}
