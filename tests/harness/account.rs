//! The master's account of what clients got, record by record.

use super::Node;
use std::collections::BTreeMap;
use tidegate::report::Question;
use tidegate::report::RecordRow;

/// How often each `id=` of a URL stands in the master's report.
pub fn ids_in_report(master: &Node) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for record in all_records(master) {
        if let Some((_, id)) = record.url.split_once("id=") {
            *found.entry(id.to_string()).or_default() += 1;
        }
    }
    found
}

/// Every record of the master's report, page by page: one that is stored twice comes twice.
pub fn all_records(master: &Node) -> Vec<RecordRow> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let newest = Some(tidegate::limits::REPORT_ROWS_MAX);
        let page = master.report(&Question { after, newest, rows_only: true, ..Question::default() });
        records.extend(page.newest);
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(records.len() as u64, master.report(&Question::default()).requests, "the pages and the total differ");
    records
}
