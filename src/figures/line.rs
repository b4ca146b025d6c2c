//! A line of performance.log: comma-separated values, a header on the first line of each file.

use super::Figure;
use super::Figures;
use super::TABLE;
use super::exposition::shown;
use crate::base::clock::Wall;

/// The names of the columns.
pub fn header() -> String {
    let columns: Vec<String> = TABLE.iter().map(column).collect();
    format!("timestamp,{}\n", columns.join(","))
}

/// The figures as they were at `now`.
pub fn line(now: Wall, figures: &Figures) -> String {
    let time = jiff::Timestamp::from_microsecond(now.0 / 1_000_000 * 1_000_000).unwrap_or_default();
    let values: Vec<String> = TABLE.iter().map(|figure| shown(figure, figures)).collect();
    format!("{time},{}\n", values.join(","))
}

/// A figure's column: its name without what only Prometheus asks for, then what tells it from others of its name.
pub(super) fn column(figure: &Figure) -> String {
    let name = figure.name.trim_start_matches("tidegate_").trim_end_matches("_total");
    figure.label.map_or_else(|| name.to_string(), |(_, value)| format!("{name}_{value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_line_has_a_value_for_each_column_and_no_two_columns_share_a_name() {
        let figures = Figures { connections: 7, ..Figures::default() };
        let (header, line) = (header(), line(Wall(1_700_000_000_999_999), &figures));
        let names: Vec<&str> = header.trim_end().split(',').collect();
        let values: Vec<&str> = line.trim_end().split(',').collect();
        assert_eq!(names.len(), values.len());
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert_eq!((names[1], values[1]), ("connections", "7"));
        assert_eq!(values[0], "2023-11-14T22:13:20Z");
        assert!(names.contains(&"denials_access_profiles") && names.contains(&"process_cpu_seconds"));
    }
}
