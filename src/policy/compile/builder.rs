//! What sections share while a document is compiled: the body that grows, names and their numbers, and the values that
//! many fields have (names, addresses, ports, hosts, patterns).

use super::FIXED_RULES;
use super::reader::Complaints;
use super::reader::Said;
use super::reader::Spot;
use super::reader::Table;
use crate::base::words::nearest;
use crate::limits::HOST_BYTES_MAX;
use crate::limits::POLICY_NAME_BYTES_MAX;
use crate::limits::POLICY_NAMES_PER_LIST_MAX;
use crate::limits::POLICY_REGEXES_MAX;
use crate::limits::POLICY_TEXT_BYTES_MAX;
use crate::policy::decision::Bits;
use crate::policy::patterns;
use crate::policy::regex_sets;
use crate::policy::sections::request_types;
use crate::policy::sections::templates::BLOCKED;
use crate::policy::snapshot::body::AddressRange;
use crate::policy::snapshot::body::Body;
use crate::policy::snapshot::body::Condition;
use crate::policy::snapshot::body::PortRange;
use crate::policy::snapshot::body::Rule;
use crate::policy::snapshot::hosts::HostsBuilder;
use std::collections::HashMap;
use std::net::IpAddr;

/// A snapshot's body under construction.
pub struct Builder {
    pub body: Body,
    pub hosts: HostsBuilder,
    pub time_profiles: NameList,
    pub request_types: NameList,
    pub categories: NameList,
    pub user_groups: NameList,
    pub profiles: NameList,
    /// (pattern, any case) -> its number, so that a pattern used twice is stored once.
    patterns: HashMap<(String, bool), u32>,
}

impl Builder {
    /// Of `document`.
    pub fn new(document: &str) -> Self {
        Builder {
            body: Body { document: document.to_string(), rules: fixed_rules(), ..Body::default() },
            hosts: HostsBuilder::default(),
            time_profiles: NameList::new("time profile", "[[time_profiles]]"),
            request_types: NameList::new("request type", "[[request_types]]"),
            categories: NameList::new("category", "[[categories]]"),
            user_groups: NameList::new("user group", "user_groups of an Access Restriction entry"),
            profiles: NameList::new("profile", "add_profiles of an Access Profiles entry"),
            patterns: HashMap::new(),
        }
    }

    /// The finished body.
    pub fn finish(mut self, out: &mut Complaints) -> Option<Body> {
        let names = &mut self.body.names;
        names.profiles = self.profiles.names;
        names.user_groups = self.user_groups.names;
        names.categories = self.categories.names;
        let mut texts = vec![""; self.body.regexes.len()];
        self.patterns.iter().for_each(|((text, _), number)| texts[*number as usize] = text.as_str());
        self.body.regex_sets = regex_sets::build(&self.body.request_types, &texts);
        self.body.header_sets = regex_sets::build_of_headers(&self.body.request_types, &texts);
        match request_types::host_table(&self.body.request_types) {
            Ok(hosts) => self.body.type_hosts = hosts,
            Err(words) => {
                out.whole(format!("the request types' hosts: {words}"), "join request types that name the same hosts");
                return None;
            }
        }
        match self.hosts.build() {
            Ok(hosts) => self.body.hosts = hosts,
            Err(words) => {
                out.whole(format!("the categories' hosts: {words}"), "join categories that hold the same hosts");
                return None;
            }
        }
        Some(self.body)
    }

    /// Adds a rule that a verdict may name.
    pub fn rule(&mut self, section: &str, name: &str, place: &str, reason: String, template: u16) -> u32 {
        let rule = Rule {
            name: format!("{section}: {name}"),
            place: place.to_string(),
            section: section.to_string(),
            reason,
            template,
        };
        self.body.rules.push(rule);
        (self.body.rules.len() - 1) as u32
    }

    /// The template that `key` names, or the one for blocks.
    pub fn template(&self, table: &mut Table, out: &mut Complaints) -> u16 {
        let Some(said) = table.text("template", POLICY_NAME_BYTES_MAX, out) else {
            return BLOCKED;
        };
        let names = || self.body.templates.iter().map(|template| template.name.as_str());
        match names().position(|name| name == said.value) {
            Some(index) => index as u16,
            None => {
                let remedy = near_or(&said.value, names(), "define it in [[templates]], or leave the key out");
                out.add(&said.spot, format!("unknown template `{}`", said.value), remedy);
                BLOCKED
            }
        }
    }

    /// The numbers of the patterns under `key`.
    pub fn patterns(&mut self, table: &mut Table, key: &'static str, any_case: bool, out: &mut Complaints) -> Vec<u32> {
        let said = table.texts(key, POLICY_TEXT_BYTES_MAX, out).unwrap_or_default();
        said.iter().filter_map(|said| self.pattern(said, any_case, out)).collect()
    }

    fn pattern(&mut self, said: &Said<String>, any_case: bool, out: &mut Complaints) -> Option<u32> {
        let key = (said.value.clone(), any_case);
        if let Some(known) = self.patterns.get(&key) {
            return Some(*known);
        }
        if self.body.regexes.len() >= POLICY_REGEXES_MAX {
            let what = format!("more than {POLICY_REGEXES_MAX} regular expressions");
            out.add(&said.spot, what, "join some with `|`, or use exact hosts and suffixes");
            return None;
        }
        match patterns::build(&said.value, any_case) {
            Ok(bytes) => {
                self.body.regexes.push(bytes);
                let number = (self.body.regexes.len() - 1) as u32;
                self.patterns.insert(key, number);
                Some(number)
            }
            Err(words) => {
                let remedy = "correct the pattern; in TOML, 'single quotes' keep backslashes as they are";
                out.add(&said.spot, format!("bad regular expression `{}`: {words}", said.value), remedy);
                None
            }
        }
    }
}

fn fixed_rules() -> Vec<Rule> {
    let rule = |section: &str, name: &str, place: &str, reason: &str| Rule {
        name: format!("{section}: {name}"),
        place: place.to_string(),
        section: section.to_string(),
        reason: reason.to_string(),
        template: BLOCKED,
    };
    let rules = [
        rule(
            "Access Restriction",
            "default policy",
            "access_restriction.default",
            "your address is not on the allow list of this proxy",
        ),
        rule(
            "Access Profiles",
            "default policy",
            "access_profiles_default",
            "no rule of the policy allows this request",
        ),
        rule("Network", "connect_ports", "network.connect_ports", "tunnels to this port are not allowed by the policy"),
    ];
    let rules: [Rule; FIXED_RULES] = rules;
    Vec::from(rules)
}

/// The names that one list of the policy defines; a name's place is its bit.
pub struct NameList {
    pub names: Vec<String>,
    what: &'static str,
    defined_by: &'static str,
}

impl NameList {
    fn new(what: &'static str, defined_by: &'static str) -> Self {
        NameList { names: Vec::new(), what, defined_by }
    }

    /// Defines a name that must be new. A duplicate gets a complaint.
    pub fn define(&mut self, said: &Said<String>, out: &mut Complaints) -> Option<usize> {
        if self.names.contains(&said.value) {
            let what = format!("the {} `{}` is defined twice", self.what, said.value);
            out.add(&said.spot, what, "give one of them another name, or join them");
            return None;
        }
        self.define_or_find(said, out)
    }

    /// The number of a name, which is defined by this if it is new.
    pub fn define_or_find(&mut self, said: &Said<String>, out: &mut Complaints) -> Option<usize> {
        if !good_name(said, out) {
            return None;
        }
        if let Some(known) = self.names.iter().position(|name| *name == said.value) {
            return Some(known);
        }
        if self.names.len() >= POLICY_NAMES_PER_LIST_MAX {
            let what = format!("more than {POLICY_NAMES_PER_LIST_MAX} names of the kind {}", self.what);
            out.add(&said.spot, what, "join some of them");
            return None;
        }
        self.names.push(said.value.clone());
        Some(self.names.len() - 1)
    }

    /// The number of a name that must have been defined.
    pub fn find(&self, name: &str, spot: &Spot, out: &mut Complaints) -> Option<usize> {
        let found = self.names.iter().position(|known| known == name);
        if found.is_none() {
            let otherwise = format!("define it by {}", self.defined_by);
            let remedy = near_or(name, self.names.iter().map(String::as_str), &otherwise);
            out.add(spot, format!("unknown {} `{name}`", self.what), remedy);
        }
        found
    }

    /// The condition under `key`: names of which one must be there, `!names` of which none may be.
    pub fn condition(&self, table: &mut Table, key: &'static str, out: &mut Complaints) -> Condition {
        let (mut any, mut none) = (Bits::default(), Bits::default());
        for said in table.texts(key, POLICY_NAME_BYTES_MAX + 1, out).unwrap_or_default() {
            let (set, name) = match said.value.strip_prefix('!') {
                Some(name) => (&mut none, name.trim_start()),
                None => (&mut any, said.value.as_str()),
            };
            if let Some(number) = self.find(name, &said.spot, out) {
                set.insert(number);
            }
        }
        Condition { any: any.0, none: none.0 }
    }
}

/// A name as lists, records and reports can carry it.
fn good_name(said: &Said<String>, out: &mut Complaints) -> bool {
    let name = &said.value;
    let good = !name.is_empty()
        && name.trim() == name
        && !name.starts_with('!')
        && !name.chars().any(|c| c == ',' || c == '"' || c.is_control());
    if !good {
        let remedy = "write a name without comma, double quote, leading `!` or spaces around it";
        out.add(&said.spot, format!("`{}` cannot be a name", name.escape_debug()), remedy);
    }
    good
}

/// The key `name`, which every entry of a list must have.
pub fn name_of(table: &mut Table, out: &mut Complaints) -> Option<Said<String>> {
    let said = table.text("name", POLICY_NAME_BYTES_MAX, out);
    if said.is_none() && table.spot_of("name").at == table.spot.at {
        out.add(&table.spot.clone(), "the entry has no name", "add name = \"...\"");
    }
    said.filter(|said| good_name(said, out))
}

/// A remedy: the word that was meant, or else `otherwise`.
pub fn near_or<'k>(word: &str, known: impl Iterator<Item = &'k str>, otherwise: &str) -> String {
    nearest(word, known).map_or(otherwise.to_string(), |near| format!("did you mean `{near}`?"))
}

/// One of `choices`, compared without regard to case.
pub fn choice<T: Copy>(said: &Said<String>, choices: &[(&str, T)], out: &mut Complaints) -> Option<T> {
    let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&said.value)).map(|(_, value)| *value);
    if found.is_none() {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let near = nearest(&said.value, words.iter().copied());
        let hint = near.map_or(String::new(), |near| format!("did you mean `{near}`? "));
        out.add(
            &said.spot,
            format!("`{}` is not accepted here", said.value),
            format!("{hint}accepted: {}", words.join(", ")),
        );
    }
    found
}

/// Addresses: `10.0.0.0/8`, `10.1.2.3`, `10.1.2.3-10.1.2.9`, `any`.
pub fn addresses(said: &Said<String>, out: &mut Complaints) -> Vec<AddressRange> {
    match parse_addresses(&said.value) {
        Ok(ranges) => ranges,
        Err(words) => {
            let remedy = "write 10.0.0.0/8, 2001:db8::/32, one address, first-last, or \"any\"";
            out.add(&said.spot, format!("bad address `{}`: {words}", said.value), remedy);
            Vec::new()
        }
    }
}

/// The ranges that `text` means.
pub fn parse_addresses(text: &str) -> Result<Vec<AddressRange>, String> {
    if text.eq_ignore_ascii_case("any") {
        let last_v4 = u128::from(u32::MAX);
        let v4 = AddressRange { first: 0, last: last_v4, v4: true };
        return Ok(vec![v4, AddressRange { first: 0, last: u128::MAX, v4: false }]);
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (parse_address(first)?, parse_address(last)?),
        None if text.contains('/') => network(text)?,
        None => (parse_address(text)?, parse_address(text)?),
    };
    let ((first, v4), (last, last_v4)) = (number(first), number(last));
    if v4 != last_v4 {
        return Err("one end is IPv4 and the other IPv6".to_string());
    }
    if first > last {
        return Err("the range ends before it starts".to_string());
    }
    Ok(vec![AddressRange { first, last, v4 }])
}

fn network(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let net: ipnet::IpNet = text.parse().map_err(|_| "not a network".to_string())?;
    if net.trunc() != net {
        return Err(format!("the network is {}; the address has bits outside its mask", net.trunc()));
    }
    let last = match net {
        ipnet::IpNet::V4(net) => IpAddr::V4(net.broadcast()),
        ipnet::IpNet::V6(net) => IpAddr::V6(net.broadcast()),
    };
    Ok((net.network(), last))
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_| format!("`{}` is not an IP address", text.trim()))
}

/// An address as a number and its family; IPv4 in IPv6 dress counts as IPv4.
pub fn number(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), true),
        IpAddr::V6(v6) => (v6.to_bits(), false),
    }
}

/// The ports under `key`: `443`, `"8000-8999"`, `"any"`.
pub fn ports(table: &mut Table, key: &'static str, out: &mut Complaints) -> Option<Vec<PortRange>> {
    let said = table.texts(key, 16, out)?;
    Some(said.iter().filter_map(|said| port_range(said, out)).collect())
}

fn port_range(said: &Said<String>, out: &mut Complaints) -> Option<PortRange> {
    let range = parse_ports(&said.value);
    if range.is_none() {
        out.add(&said.spot, format!("bad port `{}`", said.value), "write 443, \"8000-8999\" or \"any\" (1 to 65535)");
    }
    range
}

/// The range that `text` means.
pub fn parse_ports(text: &str) -> Option<PortRange> {
    if text.eq_ignore_ascii_case("any") {
        return Some(PortRange { first: 1, last: u16::MAX });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first >= 1 && first <= last).then_some(PortRange { first, last })
}

/// `text` as a host name (lowercase, no final dot), or what is wrong with it.
pub fn host_name(text: &str) -> Result<String, &'static str> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if !host.is_ascii() {
        return Err("it has letters outside ASCII: write its xn-- form");
    }
    if host.contains('/') || host.contains(':') {
        return Err("it has a scheme, port or path: write the host alone");
    }
    let label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (1..=63).contains(&label.len()) && letters
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(label) {
        return Err("it is not a host name");
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_networks_ranges_and_single_ones() {
        let ends = |text: &str| {
            let ranges = parse_addresses(text).unwrap();
            (ranges[0].first, ranges[0].last, ranges[0].v4)
        };
        assert_eq!(ends("10.0.0.0/8"), (0x0a00_0000, 0x0aff_ffff, true));
        assert_eq!(ends("10.0.0.1"), (0x0a00_0001, 0x0a00_0001, true));
        assert_eq!(ends("10.0.0.1 - 10.0.0.9"), (0x0a00_0001, 0x0a00_0009, true));
        assert_eq!(ends("::ffff:10.0.0.1"), (0x0a00_0001, 0x0a00_0001, true));
        assert_eq!(ends("::1"), (1, 1, false));
        assert_eq!(parse_addresses("any").unwrap().len(), 2);
        for bad in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", "host", "1.2.3"] {
            assert!(parse_addresses(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_and_ports_read_strictly() {
        for (text, host) in [
            ("Example.COM.", Ok("example.com")),
            ("localhost", Ok("localhost")),
            ("_dmarc.x", Ok("_dmarc.x")),
            ("[::1]", Ok("::1")),
            ("10.0.0.1", Ok("10.0.0.1")),
        ] {
            assert_eq!(host_name(text).as_deref(), host, "{text}");
        }
        for bad in ["", "a..b", "http://x", "x:80", "x/y", "ex ample", "\u{e4}.de", &"a".repeat(64)] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
        for (text, ports) in [("443", Some((443, 443))), ("1-65535", Some((1, 65535))), ("any", Some((1, 65535)))] {
            assert_eq!(parse_ports(text).map(|p| (p.first, p.last)), ports);
        }
        for bad in ["0", "65536", "9-8", "x", "-", ""] {
            assert!(parse_ports(bad).is_none(), "{bad}");
        }
    }
}
