//! Reading a TOML document so that every fault is told, with its line: one pass over the values, no fault ends it.

use crate::base::words::nearest;
use crate::limits::POLICY_COMPLAINTS_MAX;
use crate::limits::POLICY_LIST_ENTRIES_MAX;
use crate::policy::Complaint;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

/// Where something stands in the document: for people (`place`) and for the line (`at`, in bytes).
#[derive(Clone, Debug, Default)]
pub struct Spot {
    pub place: String,
    pub at: usize,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Said<T> {
    pub value: T,
    pub spot: Spot,
}

/// The faults found so far.
pub struct Complaints {
    list: Vec<Complaint>,
    line_starts: Vec<usize>,
    suppressed: usize,
    /// Lines with a syntax fault: what recovery made of them is not worth a second complaint.
    broken_lines: Vec<usize>,
}

impl Complaints {
    /// None yet, about `document`.
    pub fn new(document: &str) -> Self {
        let starts = document.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(starts).collect();
        Complaints { list: Vec::new(), line_starts, suppressed: 0, broken_lines: Vec::new() }
    }

    /// Something is wrong at `spot`.
    pub fn add(&mut self, spot: &Spot, what: impl Into<String>, remedy: impl Into<String>) {
        let line = self.line(spot.at);
        if self.broken_lines.contains(&line) {
            return;
        }
        self.push(Complaint { line, place: spot.place.clone(), what: what.into(), remedy: remedy.into() });
    }

    /// Something is wrong with the document as a whole.
    pub fn whole(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(Complaint { line: 0, place: "document".to_string(), what: what.into(), remedy: remedy.into() });
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All faults, by line.
    pub fn finish(mut self) -> Vec<Complaint> {
        self.list.sort_by_key(|complaint| complaint.line);
        if self.suppressed > 0 {
            let what = format!("{} more faults are not shown", self.suppressed);
            let remedy = "correct those above and check again".to_string();
            self.list.push(Complaint { line: 0, place: "document".to_string(), what, remedy });
        }
        self.list
    }

    fn syntax(&mut self, error: &toml::de::Error) {
        let line = self.line(error.span().map_or(0, |span| span.start));
        if self.broken_lines.contains(&line) {
            return;
        }
        self.broken_lines.push(line);
        let remedy = match error.message() {
            text if text.contains("duplicate key") => "keep one of the two",
            _ => "write TOML: key = \"text\", key = [\"one\", \"two\"], [section], [[list entry]]",
        };
        let what = format!("not TOML: {}", error.message().replace('\n', " "));
        self.push(Complaint { line, place: "syntax".to_string(), what, remedy: remedy.to_string() });
    }

    fn push(&mut self, complaint: Complaint) {
        if self.list.len() < POLICY_COMPLAINTS_MAX {
            self.list.push(complaint);
        } else {
            self.suppressed += 1;
        }
    }

    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }
}

/// A table being read. Every key asked for is a known key; [`Table::finish`] complains of the others.
pub struct Table<'r> {
    pub spot: Spot,
    table: &'r DeTable<'r>,
    known: Vec<&'static str>,
}

/// Parses the document (as far as it can be) and reads its root with `read`.
pub fn read_document(document: &str, out: &mut Complaints, read: impl FnOnce(Table, &mut Complaints)) {
    let (root, errors) = DeTable::parse_recoverable(document);
    errors.iter().for_each(|error| out.syntax(error));
    read(Table::new(root.get_ref(), Spot::default()), out);
}

impl<'r> Table<'r> {
    fn new(table: &'r DeTable<'r>, spot: Spot) -> Self {
        Table { spot, table, known: Vec::new() }
    }

    /// The place of `key` in this table; of the table itself if it has none.
    pub fn spot_of(&self, key: &str) -> Spot {
        let at =
            self.table.iter().find(|(name, _)| name.get_ref() == key).map_or(self.spot.at, |(_, v)| v.span().start);
        let dot = if self.spot.place.is_empty() { "" } else { "." };
        Spot { place: format!("{}{dot}{key}", self.spot.place), at }
    }

    /// Complains of every key that is none of `keys`.
    pub fn complain_of_others(&self, keys: &[&str], out: &mut Complaints) {
        for (name, value) in self.table.iter().filter(|(name, _)| !keys.contains(&name.get_ref().as_ref())) {
            let spot = Spot { place: name.get_ref().to_string(), at: value.span().start };
            let remedy = format!("keep to {}, or name it in NEVER_SYNC", keys.join(", "));
            out.add(&spot, "this section is not one of the node's own", remedy);
        }
    }

    /// Text, if the key is there.
    pub fn text(&mut self, key: &'static str, longest: usize, out: &mut Complaints) -> Option<Said<String>> {
        let (value, spot) = self.value(key)?;
        text_of(value.get_ref(), spot, longest, out)
    }

    /// `true` or `false`, if the key is there.
    pub fn boolean(&mut self, key: &'static str, out: &mut Complaints) -> Option<bool> {
        let (value, spot) = self.value(key)?;
        match value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            other => {
                out.add(&spot, format!("{} where true or false is expected", kind(other)), "write true or false");
                None
            }
        }
    }

    /// A whole number, if the key is there.
    pub fn number(&mut self, key: &'static str, out: &mut Complaints) -> Option<Said<u64>> {
        let (value, spot) = self.value(key)?;
        match number_of(value.get_ref()) {
            Some(value) => Some(Said { value, spot }),
            None => {
                let what = format!("{} where a whole number is expected", kind(value.get_ref()));
                out.add(&spot, what, "write digits without quotes");
                None
            }
        }
    }

    /// A list of texts (one text stands for a list of one; numbers count as texts). Absent: `None`. Empty: a complaint.
    pub fn texts(&mut self, key: &'static str, longest: usize, out: &mut Complaints) -> Option<Vec<Said<String>>> {
        let (value, spot) = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            return text_of(value.get_ref(), spot, longest, out).map(|text| vec![text]);
        };
        if items.is_empty() {
            out.add(&spot, "the list is empty", "write at least one entry, or leave the key out");
        }
        if items.len() > POLICY_LIST_ENTRIES_MAX {
            let what = format!("the list has {} entries; {POLICY_LIST_ENTRIES_MAX} are accepted", items.len());
            out.add(&spot, what, "put long lists of hosts into a category's file");
            return Some(Vec::new());
        }
        let place = |index: usize| format!("{}[{}]", spot.place, index + 1);
        let each = items.iter().enumerate().filter_map(|(index, item)| {
            text_of(item.get_ref(), Spot { place: place(index), at: item.span().start }, longest, out)
        });
        Some(each.collect())
    }

    /// The table under `key`, if there.
    pub fn table(&mut self, key: &'static str, out: &mut Complaints) -> Option<Table<'r>> {
        let (value, spot) = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(table, spot)),
            other => {
                let what = format!("{} where a section is expected", kind(other));
                out.add(&spot, what, format!("write [{key}] and its keys below"));
                None
            }
        }
    }

    /// The tables of the list under `key`; empty if it is not there.
    pub fn tables(&mut self, key: &'static str, out: &mut Complaints) -> Vec<Table<'r>> {
        let Some((value, spot)) = self.value(key) else {
            return Vec::new();
        };
        let remedy = format!("write [[{}]] before each entry", spot.place);
        let DeValue::Array(items) = value.get_ref() else {
            out.add(&spot, format!("{} where a list of entries is expected", kind(value.get_ref())), remedy);
            return Vec::new();
        };
        if items.len() > POLICY_LIST_ENTRIES_MAX {
            let what = format!("the list has {} entries; {POLICY_LIST_ENTRIES_MAX} are accepted", items.len());
            out.add(&spot, what, "join entries that do the same");
            return Vec::new();
        }
        let mut tables = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let spot = Spot { place: format!("{}[{}]", spot.place, index + 1), at: item.span().start };
            match item.get_ref() {
                DeValue::Table(table) => tables.push(Table::new(table, spot)),
                other => out.add(&spot, format!("{} where an entry is expected", kind(other)), remedy.clone()),
            }
        }
        tables
    }

    /// Complains of every key that nobody asked for.
    pub fn finish(self, out: &mut Complaints) {
        for (key, _) in self.table.iter().filter(|(key, _)| !self.known.contains(&key.get_ref().as_ref())) {
            let name: &str = key.get_ref();
            let dot = if self.spot.place.is_empty() { "" } else { "." };
            let spot = Spot { place: format!("{}{dot}{name}", self.spot.place), at: key.span().start };
            let remedy = match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            out.add(&spot, format!("unknown key `{name}`"), remedy);
        }
    }

    fn value(&mut self, key: &'static str) -> Option<(&'r Spanned<DeValue<'r>>, Spot)> {
        self.known.push(key);
        let (_, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some((value, self.spot_of(key)))
    }
}

fn text_of(value: &DeValue, spot: Spot, longest: usize, out: &mut Complaints) -> Option<Said<String>> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_string(),
        other => {
            out.add(&spot, format!("{} where text is expected", kind(other)), "write it in double quotes");
            return None;
        }
    };
    if text.len() > longest {
        out.add(&spot, format!("the text has {} bytes; {longest} are accepted", text.len()), "shorten it");
        return None;
    }
    Some(Said { value: text, spot })
}

fn number_of(value: &DeValue) -> Option<u64> {
    let DeValue::Integer(number) = value else {
        return None;
    };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn kind(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time without quotes",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
