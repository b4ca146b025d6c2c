//! Categories: names for sets of hosts, written inline or read from files on the authoring node.

use crate::limits::HOST_BYTES_MAX;
use crate::limits::POLICY_CATEGORY_FILE_BYTES_MAX;
use crate::limits::POLICY_CATEGORY_HOSTS_MAX;
use crate::limits::POLICY_TEXT_BYTES_MAX;
use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Said;
use crate::policy::compile::reader::Table;
use crate::policy::files::Files;
use std::net::IpAddr;

/// The category of a host that is on no list. It is there in every policy, as number 0.
pub const UNKNOWN: &str = "Unknown";
/// Bad lines of one file that are told one by one.
const BAD_LINES_TOLD: usize = 5;

/// Reads `[[categories]]`.
pub fn compile(root: &mut Table, files: &dyn Files, builder: &mut Builder, out: &mut Complaints) {
    builder.categories.names.push(UNKNOWN.to_string());
    for mut table in root.tables("categories", out) {
        let name = builder::name_of(&mut table, out);
        let number = name.and_then(|name| builder.categories.define(&name, out)).unwrap_or(0);
        table.text("comment", POLICY_TEXT_BYTES_MAX, out);
        let hosts = table.texts("hosts", HOST_BYTES_MAX + 3, out);
        let lists = table.texts("files", POLICY_TEXT_BYTES_MAX, out);
        if hosts.is_none() && lists.is_none() && table.spot_of("hosts").at == table.spot.at {
            let remedy = "add hosts = [\"example.com\"] or files = [\"lists/ads.txt\"]";
            out.add(&table.spot.clone(), "the category names no hosts", remedy);
        }
        for said in hosts.unwrap_or_default() {
            if let Err(words) = add(&said.value, number, builder) {
                let remedy = "write example.com (with all under it) or =www.example.com (that host alone)";
                out.add(&said.spot, format!("bad host `{}`: {words}", said.value), remedy);
            }
        }
        lists.unwrap_or_default().iter().for_each(|said| add_file(said, number, files, builder, out));
        table.finish(out);
        if builder.hosts.len() > POLICY_CATEGORY_HOSTS_MAX {
            let what = format!("the categories hold more than {POLICY_CATEGORY_HOSTS_MAX} hosts");
            out.add(&table_spot(root), what, "use shorter lists");
            return;
        }
    }
}

fn table_spot(root: &Table) -> crate::policy::compile::reader::Spot {
    root.spot_of("categories")
}

fn add(text: &str, category: usize, builder: &mut Builder) -> Result<(), &'static str> {
    let (exact, host) = match text.strip_prefix('=') {
        Some(host) => (true, host),
        None => (false, text.strip_prefix("*.").or(text.strip_prefix('.')).unwrap_or(text)),
    };
    let host = builder::host_name(host)?;
    let exact = exact || host.parse::<IpAddr>().is_ok();
    builder.hosts.add(&host, exact, category);
    Ok(())
}

fn add_file(said: &Said<String>, category: usize, files: &dyn Files, builder: &mut Builder, out: &mut Complaints) {
    let bytes = match files.read(&said.value, POLICY_CATEGORY_FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(words) => {
            out.add(
                &said.spot,
                format!("the list `{}`: {words}", said.value),
                "name a readable file of one host a line",
            );
            return;
        }
    };
    let mut bad = 0_usize;
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let Err((word, words)) = add_line(line, category, builder) else {
            continue;
        };
        bad += 1;
        if bad <= BAD_LINES_TOLD {
            let what = format!("{} line {}: bad host `{}`: {words}", said.value, number + 1, word.escape_debug());
            out.add(&said.spot, what, "correct the line or put # before it");
        }
    }
    if bad > BAD_LINES_TOLD {
        let what = format!("{} has {} more bad lines", said.value, bad - BAD_LINES_TOLD);
        out.add(&said.spot, what, "one host a line, or the format of /etc/hosts; # starts a comment");
    }
}

/// A host, or as in /etc/hosts an address and the hosts it stands for; `#` starts a comment.
fn add_line<'l>(line: &'l [u8], category: usize, builder: &mut Builder) -> Result<(), (String, &'static str)> {
    let line: &'l [u8] = line.split(|byte| *byte == b'#').next().unwrap_or(line);
    let Ok(line) = std::str::from_utf8(line) else {
        return Err((String::from_utf8_lossy(line).into_owned(), "it is not UTF-8"));
    };
    let mut words = line.split_ascii_whitespace().peekable();
    let Some(first) = words.next() else {
        return Ok(());
    };
    let hosts_file = words.peek().is_some() && first.parse::<IpAddr>().is_ok();
    if !hosts_file {
        add(first, category, builder).map_err(|wrong| (first.to_string(), wrong))?;
    }
    for word in words {
        // The machine's own names, which stand in every such file and are meant for its reader alone.
        let own = hosts_file && (word.starts_with("localhost") || word.starts_with("ip6-") || word == "broadcasthost");
        if !own && word != "local" && word.parse::<IpAddr>().is_err() {
            add(word, category, builder).map_err(|wrong| (word.to_string(), wrong))?;
        }
    }
    Ok(())
}
