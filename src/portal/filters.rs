//! What a report page is narrowed to, as its address says it: read, turned into a question, and written into links.

use crate::base::clock::Wall;
use crate::portal::lines;
use crate::portal::words;
use crate::report::Question;
use std::collections::BTreeMap;

/// The fields of the address, in the order of chips and form. What is not here is ignored.
const FIELDS: [(&str, &str); 10] = [
    ("node", "Node"),
    ("host", "Host"),
    ("user", "User"),
    ("category", "Category"),
    ("client", "Client"),
    ("rule", "Rule"),
    ("status", "Status"),
    ("blocked", "Blocked"),
    ("from", "From"),
    ("to", "To"),
];

/// Preset time ranges: the address's word, the link's, and microseconds back from now; the last has no bound.
pub const RANGES: [(&str, &str, Option<i64>); 5] = [
    ("15m", "15 min", Some(15 * MINUTE)),
    ("1h", "1 h", Some(60 * MINUTE)),
    ("24h", "24 h", Some(24 * 60 * MINUTE)),
    ("7d", "7 days", Some(7 * 24 * 60 * MINUTE)),
    ("all", "All", None),
];
const RANGE: &str = "range";
const RANGE_DEFAULT: &str = "24h";
const MINUTE: i64 = 60_000_000;

/// The filters of one report page, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    values: BTreeMap<&'static str, String>,
}

/// An active filter, which can be taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    pub label: &'static str,
    pub value: String,
    pub without: String,
}

/// A preset range as a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    pub label: &'static str,
    pub link: String,
    pub active: bool,
}

impl Filters {
    /// Takes from an address what is a filter.
    pub fn read(query: &BTreeMap<String, String>) -> Filters {
        let names = FIELDS.iter().map(|(name, _)| *name).chain([RANGE]);
        let given = names.filter_map(|name| Some((name, query.get(name)?.trim().to_string())));
        Filters { values: given.filter(|(_, value)| !value.is_empty()).collect() }
    }

    /// The value of a filter; empty if it is not set.
    pub fn get(&self, name: &str) -> &str {
        self.values.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The question they stand for, or what each bad one should have been.
    pub fn question(&self, now: Wall) -> Result<Question, Vec<String>> {
        let mut faults = Vec::new();
        let text = |name: &str| self.values.get(name).cloned();
        let mut question = Question {
            node: text("node"),
            host: text("host"),
            user: text("user"),
            category: text("category"),
            client: text("client"),
            rule: text("rule"),
            ..Question::default()
        };
        question.from_us = self.time("from", &mut faults);
        question.to_us = self.time("to", &mut faults);
        if !self.has_times()
            && let Some(back) = RANGES.iter().find(|(name, ..)| *name == self.range()).and_then(|(.., back)| *back)
        {
            question.from_us = Some(now.0 - back);
        }
        question.status = self.parsed("status", "an HTTP status such as 403", &mut faults);
        question.blocked = match self.get("blocked") {
            "" => None,
            "yes" => Some(true),
            "no" => Some(false),
            other => {
                faults.push(format!("Blocked: read \u{201c}{other}\u{201d}; accepted are yes and no"));
                None
            }
        };
        if !RANGES.iter().any(|(name, ..)| *name == self.range()) {
            faults.push(format!("Range: read \u{201c}{}\u{201d}; accepted are 15m, 1h, 24h, 7d and all", self.range()));
        }
        if let (Some(from), Some(to)) = (question.from_us, question.to_us)
            && from >= to
        {
            faults.push("From is not before To".to_string());
        }
        if faults.is_empty() { Ok(question) } else { Err(faults) }
    }

    /// A link to the report with `changes` made to these filters; an empty value takes one off.
    pub fn link(&self, changes: &[(&'static str, &str)]) -> String {
        let mut values = self.values.clone();
        for (name, value) in changes {
            values.insert(name, value.to_string());
        }
        format!("/report{}", query(&values))
    }

    /// These filters as an address's query, with its question mark.
    pub fn query(&self) -> String {
        query(&self.values)
    }

    /// One chip a filter.
    pub fn chips(&self) -> Vec<Chip> {
        let set = FIELDS.iter().filter(|(name, _)| !self.get(name).is_empty());
        set.map(|(name, label)| Chip {
            label,
            value: lines::visible(self.get(name)),
            without: self.link(&[(name, "")]),
        })
        .collect()
    }

    /// One link a preset range; none is active while From or To says otherwise.
    pub fn presets(&self) -> Vec<Preset> {
        let preset = |(name, label, _): &(&'static str, &'static str, Option<i64>)| Preset {
            label,
            link: self.link(&[(RANGE, name), ("from", ""), ("to", "")]),
            active: !self.has_times() && self.range() == *name,
        };
        RANGES.iter().map(preset).collect()
    }

    /// The value of a time field, as `datetime-local` takes it.
    pub fn time_field(&self, name: &str) -> String {
        words::read_time(self.get(name)).map(words::field_time).unwrap_or_default()
    }

    /// The preset that is set, or the default.
    pub fn range(&self) -> &str {
        self.values.get(RANGE).map_or(RANGE_DEFAULT, String::as_str)
    }

    fn has_times(&self) -> bool {
        !self.get("from").is_empty() || !self.get("to").is_empty()
    }

    fn time(&self, name: &'static str, faults: &mut Vec<String>) -> Option<i64> {
        let text = self.values.get(name)?;
        words::read_time(text).map_err(|fault| faults.push(format!("{}: {fault}", label(name)))).ok()
    }

    fn parsed<T: std::str::FromStr>(&self, name: &'static str, accepts: &str, faults: &mut Vec<String>) -> Option<T> {
        let text = self.values.get(name)?;
        let read = text.parse();
        read.map_err(|_| faults.push(format!("{}: read \u{201c}{text}\u{201d}; accepted is {accepts}", label(name))))
            .ok()
    }
}

fn label(name: &str) -> &'static str {
    FIELDS.iter().find(|(field, _)| *field == name).map(|(_, label)| *label).unwrap_or_default()
}

fn query(values: &BTreeMap<&'static str, String>) -> String {
    let set = values.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = set.map(|(name, value)| format!("{name}={}", words::encoded(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        Filters::read(&pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn a_report_is_of_the_last_day_unless_said_otherwise() {
        let now = Wall(1_763_666_760_000_000);
        let from = |pairs: &[(&str, &str)]| filters(pairs).question(now).unwrap().from_us;
        assert_eq!(from(&[]), Some(now.0 - 24 * 60 * MINUTE));
        assert_eq!(from(&[("range", "15m")]), Some(now.0 - 15 * MINUTE));
        assert_eq!(from(&[("range", "all")]), None);
        assert_eq!(from(&[("range", "15m"), ("from", "2025-11-20T19:26")]), Some(now.0));
        assert_eq!(from(&[("range", "15m"), ("to", "2025-11-20T19:26")]), None);
    }

    #[test]
    fn each_bad_filter_is_named_with_what_is_accepted() {
        let bad = filters(&[("from", "x"), ("status", "99999"), ("blocked", "maybe"), ("range", "2y")]);
        let faults = bad.question(Wall(0)).unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
        let turned = filters(&[("from", "2025-11-20T19:26"), ("to", "2025-11-20T19:25")]);
        assert_eq!(turned.question(Wall(0)).unwrap_err(), ["From is not before To"]);
    }

    #[test]
    fn links_narrow_and_chips_take_off() {
        let filters = filters(&[("node", "edge-1"), ("host", "a&b.test"), ("nonsense", "x")]);
        assert_eq!(
            filters.link(&[("user", "ada@192.0.2.7")]),
            "/report?host=a%26b.test&node=edge-1&user=ada%40192.0.2.7"
        );
        let chips = filters.chips();
        assert_eq!(chips.len(), 2);
        assert_eq!(chips[0].without, "/report?host=a%26b.test");
        assert_eq!(chips[1].without, "/report?node=edge-1");
        assert!(filters.presets().iter().any(|preset| preset.active && preset.label == "24 h"));
    }
}
