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

/// Every record of the master's report, page by page; the same record on two pages counts once, two records twice.
pub fn all_records(master: &Node) -> Vec<RecordRow> {
    let mut records: BTreeMap<(String, u64), RecordRow> = BTreeMap::new();
    let mut to_us = None;
    loop {
        let newest = Some(tidegate::limits::REPORT_ROWS_MAX);
        let question = Question { to_us, newest, rows_only: true, ..Question::default() };
        let page = master.report(&question).newest;
        let before = records.len();
        let oldest = page.last().map(|record| record.ended_us);
        records.extend(page.into_iter().map(|record| ((record.node.clone(), record.seq), record)));
        if records.len() == before {
            break;
        }
        // `to_us` is exclusive: records of the same microsecond as the oldest must not be skipped.
        to_us = oldest.map(|oldest| oldest + 1);
    }
    assert_eq!(records.len() as u64, master.report(&Question::default()).requests, "the pages and the total differ");
    records.into_values().collect()
}
