//! The archive inside a snapshot file: what the walk reads in place. Whoever changes a type here raises
//! [`super::header::FORMAT`].

use super::hosts::Hosts;
use crate::limits::POLICY_ROUTES_MAX;
use crate::policy::decision::BITS_WORDS;
use rkyv::Archive;
use rkyv::Serialize;

/// A set of names of one list, as [`crate::policy::decision::Bits`].
pub type Words = [u64; BITS_WORDS];

/// Everything a node needs to decide, explain and show a policy.
#[derive(Archive, Serialize, Default)]
pub struct Body {
    pub document: String,
    pub name: String,
    pub contact: String,
    pub access: Access,
    pub profiles_default_allow: bool,
    pub access_profiles: Vec<AccessProfile>,
    pub time_profiles: Vec<TimeProfile>,
    pub request_types: Vec<RequestType>,
    /// The hosts that request types know by name; its sets are of request types.
    pub type_hosts: Hosts,
    /// The hosts of the categories; its sets are of categories.
    pub hosts: Hosts,
    pub names: Names,
    pub templates: Vec<Template>,
    pub network: Network,
    pub client_address: ClientAddress,
    pub pac: Option<Pac>,
    pub parents: Vec<ParentGroup>,
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    pub regexes: Vec<Vec<u8>>,
    pub regex_sets: Vec<RegexSet>,
    pub header_sets: Vec<HeaderRegexSet>,
    pub zones: Vec<String>,
}

/// The names behind the bits of each list.
#[derive(Archive, Serialize, Default)]
pub struct Names {
    pub profiles: Vec<String>,
    pub user_groups: Vec<String>,
    pub categories: Vec<String>,
}

/// What a verdict names: the record's rule, filter_name and filtering_reason, and the page.
#[derive(Archive, Serialize)]
pub struct Rule {
    pub name: String,
    pub place: String,
    pub section: String,
    pub reason: String,
    pub template: u16,
}

/// Access Restriction.
#[derive(Archive, Serialize, Default)]
pub struct Access {
    pub default_allow: bool,
    pub authentication: bool,
    pub deny: Vec<AccessEntry>,
    pub allow: Vec<AccessEntry>,
}

/// An entry of the allow list or the deny list.
#[derive(Archive, Serialize)]
pub struct AccessEntry {
    pub enabled: bool,
    pub rule: u32,
    pub addresses: Vec<AddressRange>,
    pub rights: u8,
    pub authentication: bool,
    pub user_groups: Words,
}

/// Addresses of one family from `first` to `last`, both included.
#[derive(Archive, Serialize, Clone, Copy)]
pub struct AddressRange {
    pub first: u128,
    pub last: u128,
    pub v4: bool,
}

/// A stretch of ports, both included.
#[derive(Archive, Serialize, Clone, Copy)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// A time profile. Minutes count from local midnight; `from` greater than `to` goes past midnight.
#[derive(Archive, Serialize)]
pub struct TimeProfile {
    pub name: String,
    pub days: u8,
    pub from: u16,
    pub to: u16,
    pub zone: u16,
    pub dates: Vec<DateRange>,
}

/// Days from `first` to `last`, both included, as `year * 10000 + month * 100 + day`.
#[derive(Archive, Serialize, Clone, Copy)]
pub struct DateRange {
    pub first: u32,
    pub last: u32,
}

/// A request type: an empty field asks nothing.
#[derive(Archive, Serialize, Default)]
pub struct RequestType {
    pub name: String,
    pub methods: Vec<String>,
    pub schemes: u8,
    pub ports: Vec<PortRange>,
    pub hosts: Vec<String>,
    pub host_suffixes: Vec<String>,
    pub host_regex: Vec<u32>,
    pub path_prefixes: Vec<String>,
    pub path_regex: Vec<u32>,
    pub headers: Vec<HeaderTest>,
}

/// Regular expressions of request types, of all for their hosts or for their paths, as one automaton.
#[derive(Archive, Serialize)]
pub struct RegexSet {
    pub of_host: bool,
    pub automaton: Vec<u8>,
    /// The type of each expression.
    pub types: Vec<u32>,
}

/// Regular expressions of header tests of one field, as one automaton.
#[derive(Archive, Serialize)]
pub struct HeaderRegexSet {
    /// The field, in lower case.
    pub name: String,
    pub automaton: Vec<u8>,
    /// The test of each expression.
    pub tests: Vec<TestPlace>,
}

/// A header test: the number of its type, and its place there from 0.
#[derive(Archive, Serialize, Clone, Copy)]
pub struct TestPlace {
    pub request_type: u16,
    pub place: u16,
}

/// A question to one header field; all three lists empty: it is there.
#[derive(Archive, Serialize)]
pub struct HeaderTest {
    pub name: String,
    pub equals: Vec<String>,
    pub contains: Vec<String>,
    pub regex: Vec<u32>,
}

/// Conditions and effect of an Access Profiles entry.
#[derive(Archive, Serialize)]
pub struct AccessProfile {
    pub enabled: bool,
    pub rule: u32,
    pub nodes: Vec<Node>,
    pub profiles: Condition,
    pub time_profiles: Condition,
    pub user_groups: Condition,
    pub request_types: Condition,
    pub categories: Condition,
    pub action: Action,
    pub add_profiles: Words,
    pub remove_profiles: Words,
}

/// A node a rule is for, or (`not`) is not for.
#[derive(Archive, Serialize)]
pub struct Node {
    pub name: String,
    pub not: bool,
}

/// Holds if (`any` is empty or shares a name) and `none` shares no name.
#[derive(Archive, Serialize, Default)]
pub struct Condition {
    pub any: Words,
    pub none: Words,
}

/// What an Access Profiles entry does once its conditions hold.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug, PartialEq, Eq))]
pub enum Action {
    Allow,
    Deny,
    Inherit,
    DoNotBypass,
}

/// A block page.
#[derive(Archive, Serialize)]
pub struct Template {
    pub name: String,
    pub status: u16,
    pub title: String,
    pub body: String,
}

/// What may be reached at all.
#[derive(Archive, Serialize, Default)]
pub struct Network {
    pub allow_destinations: Vec<Destination>,
    pub refuse_private: bool,
    pub allow_upgrade: Vec<String>,
    pub connect_ports: Vec<PortRange>,
}

/// What is believed and told about the client's address, as places in the section's tables.
#[derive(Archive, Serialize, Default)]
pub struct ClientAddress {
    pub believed: u8,
    pub told: u8,
}

/// Which way browsers take: `HOST:PORT` in the order they are tried (none: the nodes), and what needs no proxy.
#[derive(Archive, Serialize, Default)]
pub struct Pac {
    pub proxies: Vec<String>,
    pub direct_hosts: Vec<String>,
    pub direct_networks: Vec<AddressRange>,
    pub direct_plain_names: bool,
    pub direct_if_down: bool,
}

/// Addresses refused otherwise that are allowed; no ports: on all.
#[derive(Archive, Serialize)]
pub struct Destination {
    pub addresses: AddressRange,
    pub ports: Vec<PortRange>,
}

/// Parent proxies of which one is used.
#[derive(Archive, Serialize)]
pub struct ParentGroup {
    pub name: String,
    pub by_hash: bool,
    pub direct_if_down: bool,
    pub proxies: Vec<ParentProxy>,
}

/// A parent proxy.
#[derive(Archive, Serialize)]
pub struct ParentProxy {
    pub socks: bool,
    pub host: String,
    pub port: u16,
    pub credentials: String,
    pub resolve_here: bool,
}

/// By which way requests of some profiles to some hosts leave: `group` counts from 1, 0 is direct.
#[derive(Archive, Serialize)]
pub struct Route {
    pub place: String,
    pub enabled: bool,
    pub profiles: Condition,
    pub host_suffixes: Vec<String>,
    pub group: u16,
    pub source: Vec<AddressRange>,
}

/// A number that changes with the size of any archived type: a build with another layout refuses the file by name.
pub const fn layout() -> u64 {
    let sizes = [
        size_of::<ArchivedBody>(),
        size_of::<ArchivedAccessEntry>(),
        size_of::<ArchivedAddressRange>(),
        size_of::<ArchivedTimeProfile>(),
        size_of::<ArchivedRequestType>(),
        size_of::<ArchivedRegexSet>(),
        size_of::<ArchivedHeaderRegexSet>(),
        size_of::<ArchivedTestPlace>(),
        size_of::<ArchivedHeaderTest>(),
        size_of::<ArchivedAccessProfile>(),
        size_of::<ArchivedTemplate>(),
        size_of::<ArchivedDestination>(),
        size_of::<ArchivedNetwork>(),
        size_of::<ArchivedClientAddress>(),
        size_of::<ArchivedPac>(),
        size_of::<ArchivedParentGroup>(),
        size_of::<ArchivedParentProxy>(),
        size_of::<ArchivedRoute>(),
        size_of::<ArchivedRule>(),
        size_of::<super::hosts::ArchivedHosts>(),
        size_of::<super::hosts::ArchivedSlot>(),
        BITS_WORDS,
    ];
    let mut mixed = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < sizes.len() {
        mixed = (mixed ^ sizes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    mixed
}

impl ArchivedBody {
    /// Every index points at something, every number is one that compile writes. The error names what does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        self.check_rest()?;
        self.hosts.check_slots()
    }

    /// The same but for the slots of the categories' host table, which may be millions.
    pub fn check_rest(&self) -> Result<(), &'static str> {
        let names = [
            self.names.profiles.len(),
            self.names.user_groups.len(),
            self.names.categories.len(),
            self.time_profiles.len(),
            self.request_types.len(),
        ];
        hold(names.iter().all(|n| *n <= BITS_WORDS * 64), "a list defines more names than a request can carry")?;
        hold(!self.names.categories.is_empty(), "the category for hosts on no list is missing")?;
        hold(self.rules.len() >= crate::policy::compile::FIXED_RULES, "a fixed rule is missing")?;
        hold(self.rules.iter().all(|r| (r.template.to_native() as usize) < self.templates.len()), "a rule's template")?;
        hold(!self.templates.is_empty(), "there is no template")?;
        let rules = self.rules.len();
        let entries = || self.access.deny.iter().chain(self.access.allow.iter());
        hold(entries().all(|e| (e.rule.to_native() as usize) < rules), "an Access Restriction entry's rule")?;
        hold(self.access_profiles.iter().all(|p| (p.rule.to_native() as usize) < rules), "an Access Profile's rule")?;
        hold(self.time_profiles.iter().all(|t| t.check(self.zones.len())), "a time profile's numbers")?;
        hold(self.request_types.iter().all(|t| t.check(self.regexes.len())), "a request type's regular expression")?;
        hold(self.client_address.check(), "the client address's choices")?;
        hold(self.routes.iter().all(|r| r.check(self.parents.len())), "a route's group of parents")?;
        hold(self.routes.len() <= POLICY_ROUTES_MAX, "more routes than a policy can have")?;
        self.type_hosts.check(self.request_types.len())?;
        self.hosts.check_sets(self.names.categories.len())
    }
}

impl ArchivedTimeProfile {
    fn check(&self, zones: usize) -> bool {
        let day = 24 * 60;
        (self.zone.to_native() as usize) < zones && self.from.to_native() < day && self.to.to_native() <= day
    }
}

impl ArchivedRequestType {
    fn check(&self, regexes: usize) -> bool {
        let headers = self.headers.iter().flat_map(|header| header.regex.iter());
        let mut all = self.host_regex.iter().chain(self.path_regex.iter()).chain(headers);
        all.all(|index| (index.to_native() as usize) < regexes)
    }
}

fn hold(condition: bool, what: &'static str) -> Result<(), &'static str> {
    if condition { Ok(()) } else { Err(what) }
}
