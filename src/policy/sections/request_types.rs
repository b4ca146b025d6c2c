//! Request Types: names for kinds of requests. Fields that are given must all hold; of a field's values one must. The
//! three ways to name a host are one field, and so are the two ways to name a path.

use crate::limits::HEAD_BYTES_MAX;
use crate::limits::HOST_BYTES_MAX;
use crate::limits::POLICY_TEXT_BYTES_MAX;
use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Said;
use crate::policy::compile::reader::Table;
use crate::policy::facts::Facts;
use crate::policy::facts::Scheme;
use crate::policy::patterns::Pattern;
use crate::policy::snapshot::body::ArchivedHeaderTest;
use crate::policy::snapshot::body::ArchivedPortRange;
use crate::policy::snapshot::body::ArchivedRequestType;
use crate::policy::snapshot::body::HeaderTest;
use crate::policy::snapshot::body::RequestType;
use crate::policy::snapshot::hosts::Hosts;
use crate::policy::snapshot::hosts::HostsBuilder;

const HTTP: u8 = 1;
const HTTPS: u8 = 2;
const TUNNEL: u8 = 4;
/// All of them: what [`scheme_bits`] can answer at most.
pub const SCHEMES_ALL: u8 = HTTP | HTTPS | TUNNEL;

/// Reads `[[request_types]]`.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    for mut table in root.tables("request_types", out) {
        let name =
            builder::name_of(&mut table, out).and_then(|name| builder.request_types.define(&name, out).map(|_| name));
        let mut request_type = fields(&mut table, builder, out);
        request_type.headers = headers(&mut table, builder, out);
        if asks_nothing(&request_type) && out.is_empty() {
            let remedy =
                "add methods, schemes, ports, hosts, host_suffixes, host_regex, path_prefixes, path_regex or headers";
            out.add(&table.spot.clone(), "the request type asks nothing and would hold for every request", remedy);
        }
        table.finish(out);
        if let Some(name) = name {
            request_type.name = name.value;
            builder.body.request_types.push(request_type);
        }
    }
}

fn fields(table: &mut Table, builder: &mut Builder, out: &mut Complaints) -> RequestType {
    table.text("comment", POLICY_TEXT_BYTES_MAX, out);
    let methods = table.texts("methods", 32, out).unwrap_or_default();
    let schemes = table.texts("schemes", 16, out).unwrap_or_default();
    let schemes = schemes
        .iter()
        .filter_map(|said| builder::choice(said, &[("http", HTTP), ("https", HTTPS), ("tunnel", TUNNEL)], out));
    let schemes = schemes.fold(0, |all, one| all | one);
    RequestType {
        name: String::new(),
        methods: methods.iter().filter_map(|said| method(said, out)).collect(),
        schemes,
        ports: builder::ports(table, "ports", out).unwrap_or_default(),
        hosts: hosts(table, "hosts", out),
        host_suffixes: hosts(table, "host_suffixes", out),
        host_regex: builder.patterns(table, "host_regex", true, out),
        path_prefixes: prefixes(table, out),
        path_regex: builder.patterns(table, "path_regex", false, out),
        headers: Vec::new(),
    }
}

fn asks_nothing(t: &RequestType) -> bool {
    let hosts = t.hosts.is_empty() && t.host_suffixes.is_empty() && t.host_regex.is_empty();
    let paths = t.path_prefixes.is_empty() && t.path_regex.is_empty();
    hosts && paths && t.methods.is_empty() && t.schemes == 0 && t.ports.is_empty() && t.headers.is_empty()
}

fn method(said: &Said<String>, out: &mut Complaints) -> Option<String> {
    let good = !said.value.is_empty() && said.value.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
    if !good {
        let remedy = "write a method in capitals, such as \"POST\" (methods are case-sensitive)";
        out.add(&said.spot, format!("bad method `{}`", said.value), remedy);
    }
    good.then(|| said.value.clone())
}

pub(super) fn hosts(table: &mut Table, key: &'static str, out: &mut Complaints) -> Vec<String> {
    let said = table.texts(key, HOST_BYTES_MAX + 2, out).unwrap_or_default();
    let mut hosts = Vec::with_capacity(said.len());
    for said in said {
        match builder::host_name(said.value.strip_prefix('.').unwrap_or(&said.value)) {
            Ok(host) => hosts.push(host),
            Err(words) => out.add(
                &said.spot,
                format!("bad host `{}`: {words}", said.value),
                "write a host such as www.example.com",
            ),
        }
    }
    hosts
}

fn prefixes(table: &mut Table, out: &mut Complaints) -> Vec<String> {
    let said = table.texts("path_prefixes", POLICY_TEXT_BYTES_MAX, out).unwrap_or_default();
    for said in said.iter().filter(|said| !said.value.starts_with('/')) {
        out.add(
            &said.spot,
            format!("the path `{}` does not start with /", said.value),
            "write it from the first slash on",
        );
    }
    said.into_iter().map(|said| said.value).collect()
}

fn headers(table: &mut Table, builder: &mut Builder, out: &mut Complaints) -> Vec<HeaderTest> {
    let mut tests = Vec::new();
    for mut header in table.tables("headers", out) {
        let said = header.text("name", 128, out);
        let token =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let name = said.map(|said| said.value).filter(|name| token(name));
        if name.is_none() {
            out.add(&header.spot_of("name"), "the header test names no field", "add name = \"User-Agent\"");
        }
        let texts = |said: Option<Vec<Said<String>>>| -> Vec<String> {
            said.unwrap_or_default().into_iter().map(|said| said.value).collect()
        };
        let equals = texts(header.texts("equals", HEAD_BYTES_MAX, out));
        let contains = texts(header.texts("contains", HEAD_BYTES_MAX, out));
        let regex = builder.patterns(&mut header, "regex", true, out);
        header.finish(out);
        tests.push(HeaderTest { name: name.unwrap_or_default(), equals, contains, regex });
    }
    tests
}

/// The table of the hosts that types know by name.
pub fn host_table(types: &[RequestType]) -> Result<Hosts, &'static str> {
    let mut table = HostsBuilder::default();
    for (number, t) in types.iter().enumerate() {
        t.hosts.iter().for_each(|host| table.add(host, true, number));
        t.host_suffixes.iter().for_each(|host| table.add(host, false, number));
    }
    table.build()
}

/// The first field of a request type that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The method is another one.
    Method,
    /// The scheme is another one.
    Scheme,
    /// The port is another one.
    Port,
    /// The host is none of those named.
    Host,
    /// The path is none of those named.
    Path,
    /// Header test number so-and-so, counted from 1.
    Header(usize),
}

impl ArchivedRequestType {
    /// The first field that says no; who wants to know of all types which hold asks
    /// [`TypeTables`](crate::policy::type_tables::TypeTables).
    pub fn miss(&self, facts: &Facts, patterns: &[Pattern]) -> Option<Miss> {
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method.as_str() == facts.method) {
            return Some(Miss::Method);
        }
        if self.schemes != 0 && self.schemes & scheme_bits(facts) == 0 {
            return Some(Miss::Scheme);
        }
        if !self.ports.is_empty() && !self.ports.iter().any(|range| range.holds(facts.port)) {
            return Some(Miss::Port);
        }
        let known = self.hosts.iter().any(|known| known.as_str() == facts.host)
            || self.host_suffixes.iter().any(|suffix| lies_under(facts.host, suffix));
        if self.asks_host() && !known && !self.host_found(facts, patterns) {
            return Some(Miss::Host);
        }
        let known = self.path_prefixes.iter().any(|prefix| facts.path.starts_with(prefix.as_str()));
        if self.asks_path() && !known && !self.path_found(facts, patterns) {
            return Some(Miss::Path);
        }
        self.headers_miss(facts, patterns).map(|at| Miss::Header(at + 1))
    }

    /// Whether it asks for a host at all.
    pub fn asks_host(&self) -> bool {
        !self.hosts.is_empty() || !self.host_suffixes.is_empty() || !self.host_regex.is_empty()
    }

    /// Whether it asks for a path at all.
    pub fn asks_path(&self) -> bool {
        !self.path_prefixes.is_empty() || !self.path_regex.is_empty()
    }

    /// Whether one of its regular expressions knows the host.
    pub fn host_found(&self, facts: &Facts, patterns: &[Pattern]) -> bool {
        self.host_regex.iter().any(|index| found(patterns, index.to_native(), facts.host.as_bytes()))
    }

    /// Whether one of its regular expressions knows the path.
    pub fn path_found(&self, facts: &Facts, patterns: &[Pattern]) -> bool {
        self.path_regex.iter().any(|index| found(patterns, index.to_native(), facts.path.as_bytes()))
    }

    /// The first header test that does not hold.
    pub fn headers_miss(&self, facts: &Facts, patterns: &[Pattern]) -> Option<usize> {
        self.headers.iter().position(|test| !test.holds(facts, patterns))
    }
}

impl ArchivedHeaderTest {
    fn holds(&self, facts: &Facts, patterns: &[Pattern]) -> bool {
        facts.headers.value(&self.name).is_some_and(|value| self.holds_for(value, patterns))
    }

    /// Whether it holds wherever the field is, whatever its value.
    pub fn holds_for_any(&self) -> bool {
        let asked = !self.equals.is_empty() || !self.contains.is_empty() || !self.regex.is_empty();
        !asked || self.contains.iter().any(|text| text.is_empty())
    }

    /// Whether it holds for a field of this value.
    pub fn holds_for(&self, value: &[u8], patterns: &[Pattern]) -> bool {
        self.holds_for_any()
            || self.equals.iter().any(|text| value.eq_ignore_ascii_case(text.as_bytes()))
            || self.contains.iter().any(|text| contains(value, text.as_bytes()))
            || self.regex.iter().any(|index| found(patterns, index.to_native(), value))
    }
}

impl ArchivedPortRange {
    /// Whether `port` lies in the range.
    #[inline]
    pub fn holds(&self, port: u16) -> bool {
        self.first.to_native() <= port && port <= self.last.to_native()
    }
}

/// A tunnel to 443 is what `https://` is without inspection: who writes a rule about https means it.
pub fn scheme_bits(facts: &Facts) -> u8 {
    match facts.scheme {
        Scheme::Http => HTTP,
        Scheme::Https => HTTPS,
        Scheme::Tunnel if facts.port == 443 => TUNNEL | HTTPS,
        Scheme::Tunnel => TUNNEL,
    }
}

pub(super) fn lies_under(host: &str, domain: &str) -> bool {
    match host.strip_suffix(domain) {
        Some(rest) => rest.is_empty() || rest.ends_with('.'),
        None => false,
    }
}

fn found(patterns: &[Pattern], index: u32, text: &[u8]) -> bool {
    patterns.get(index as usize).is_some_and(|pattern| pattern.found_in(text))
}

/// Whether `part` occurs in `text`, without regard to ASCII case. Both are bounded by the head's size.
fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}
