//! What a startup.ini says, before anybody asks what it means: lines `KEY="value"` and `#` comments.

use crate::base::words::nearest;
use crate::limits;
use crate::settings::Fault;
use crate::settings::Key;
use crate::settings::TABLE;
use crate::settings::key;
use std::collections::BTreeMap;

/// The values a file gives, each with its line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    values: BTreeMap<&'static str, (usize, String)>,
}

impl Said {
    /// The value said for `key`, or its default.
    pub fn value(&self, key: &Key) -> &str {
        self.values.get(key.name).map_or(key.default, |(_, value)| value)
    }

    /// The line `key` stands on; 0 if the file does not say it.
    pub fn line(&self, key: &Key) -> usize {
        self.values.get(key.name).map_or(0, |(line, _)| *line)
    }

    /// Whether the file says something for `key`.
    pub fn says(&self, key: &Key) -> bool {
        self.values.contains_key(key.name)
    }

    /// Says `value` for `key`, whatever was said before. The value stands on no line until the file is read again.
    pub fn say(&mut self, key: &'static Key, value: &str) {
        self.values.insert(key.name, (0, value.to_string()));
    }
}

/// Reads a file's text. Faults do not stop the reading: what could be read is in `Said`, everything else in the faults.
pub fn parse(bytes: &[u8]) -> (Said, Vec<Fault>) {
    let mut said = Said::default();
    let mut faults = Vec::new();
    if bytes.len() > limits::STARTUP_INI_BYTES_MAX {
        let read = format!("{} bytes", bytes.len());
        let accepts = format!("a file of at most {} bytes", limits::STARTUP_INI_BYTES_MAX);
        return (said, vec![Fault::new(0, "", read, accepts)]);
    }
    for (index, raw) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if let Err(fault) = read_line(index + 1, raw, &mut said) {
            faults.push(fault);
        }
        if faults.len() == limits::STARTUP_INI_FAULTS_MAX {
            let accepts = "a file with fewer faults: the rest was not looked at";
            faults.push(Fault::new(index + 1, "", format!("{} faults up to here", faults.len()), accepts));
            break;
        }
    }
    (said, faults)
}

/// Writes the whole file: every key of the table with its help above it.
pub fn render(said: &Said) -> String {
    let mut text = String::from(HEADING);
    for key in TABLE {
        text.push('\n');
        for line in wrap(&explain(key), 110) {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("{}=\"{}\"\n", key.name, said.value(key)));
    }
    text
}

const HEADING: &str = "# Startup params of this Tidegate node: who it is and where it listens. Policy does not stand here.\n\
# Lines are KEY=\"value\". The portal (Support -> Startup Params) and `tidegate params set` write this whole file anew;\n\
# comments of your own do not survive that.\n";

/// The help, what is accepted and when a change counts, as one paragraph.
fn explain(key: &Key) -> String {
    let when = key.apply.words();
    format!("{} Accepted: {}. Default: \"{}\". {when}", key.help, key.accepts, key.default)
}

fn read_line(line: usize, raw: &[u8], said: &mut Said) -> Result<(), Fault> {
    const FORM: &str = "KEY=\"value\", a # comment or an empty line";
    let Ok(text) = std::str::from_utf8(raw) else {
        return Err(Fault::new(line, "", quote(&String::from_utf8_lossy(raw)), "text in UTF-8"));
    };
    let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(());
    }
    let Some((name, rest)) = text.split_once('=') else {
        return Err(Fault::new(line, "", quote(text), FORM));
    };
    let Some(key) = key(name) else {
        return Err(Fault::new(line, &shorten(name.trim()), quote(text), known_instead(name.trim())));
    };
    let value = quoted_value(rest).map_err(|accepts| Fault::new(line, key.name, quote(rest), accepts))?;
    if let Some((first, _)) = said.values.get(key.name) {
        return Err(Fault::new(
            line,
            key.name,
            format!("the key a second time ({})", quote(value)),
            format!("each key once; it already stands on line {first}: delete one of the two"),
        ));
    }
    said.values.insert(key.name, (line, value.to_string()));
    Ok(())
}

/// The value between the quotes, or what would have been accepted.
fn quoted_value(rest: &str) -> Result<&str, String> {
    let Some(inner) = rest.strip_prefix('"') else {
        return Err("the value in double quotes right after the =, such as \"8080\"".to_string());
    };
    let Some((value, after)) = inner.split_once('"') else {
        return Err("a closing double quote on the same line".to_string());
    };
    if !after.is_empty() {
        return Err("nothing after the closing quote; a comment stands on a line of its own".to_string());
    }
    check_characters(value).map(|()| value)
}

/// No value needs these, and without them the file means the same to a shell that sources it.
pub(super) fn check_characters(value: &str) -> Result<(), String> {
    if value.len() > limits::STARTUP_VALUE_BYTES_MAX {
        return Err(format!("a value of at most {} bytes", limits::STARTUP_VALUE_BYTES_MAX));
    }
    match value.chars().find(|&c| matches!(c, '"' | '\\' | '$' | '`') || c.is_control()) {
        Some(bad) => Err(format!("a value without {}", quote(&bad.to_string()))),
        None => Ok(()),
    }
}

/// What to say of a key that is not in the table.
pub(super) fn known_instead(name: &str) -> String {
    match nearest(name, TABLE.iter().map(|key| key.name)) {
        Some(near) => format!("a key of this version of Tidegate; did you mean {near}?"),
        None => format!(
            "a key of this version of Tidegate: {}",
            TABLE.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Text from outside, safe to show on one line of a terminal: quoted, control characters escaped, cut if long.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", shorten(text))
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_string(),
    }
}

/// Breaks a paragraph into lines of at most `width` characters where words allow it.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}
