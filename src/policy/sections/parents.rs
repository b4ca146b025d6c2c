//! Parents and routes: by which way a permitted request leaves. A route is for profiles and hosts; the first that holds
//! decides; without one a request goes straight to its origin.

use crate::limits::POLICY_PARENT_GROUPS_MAX;
use crate::limits::POLICY_PARENTS_PER_GROUP_MAX;
use crate::limits::POLICY_ROUTES_MAX;
use crate::limits::POLICY_TEXT_BYTES_MAX;
use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Said;
use crate::policy::compile::reader::Table;
#[cfg(test)]
use crate::policy::decision::Tags;
use crate::policy::sections::request_types::hosts;
#[cfg(test)]
use crate::policy::sections::request_types::lies_under;
use crate::policy::snapshot::body;
use crate::policy::snapshot::body::ArchivedBody;
use crate::policy::snapshot::body::ArchivedRoute;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// The section's name where the walk is told.
pub const SECTION: &str = "Routes";
/// In a route: straight to the origin.
const DIRECT: &str = "direct";

/// Some parent proxies of which one is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentGroup {
    /// Its name.
    pub name: String,
    /// The one a host's hash says, so that a host keeps to one parent; otherwise the first in order.
    pub by_hash: bool,
    /// With all of them down, straight to the origin instead of an error.
    pub direct_if_down: bool,
    /// In order.
    pub proxies: Vec<ParentProxy>,
}

/// A parent proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParentProxy {
    /// SOCKS5 (RFC 1928); otherwise HTTP.
    pub socks: bool,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The file of credentials that each node has for it; empty: none.
    pub credentials: String,
    /// SOCKS5: this node resolves names and looks at their addresses; otherwise the parent does.
    pub resolve_here: bool,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// The number of the group of parents; `None`: straight to the origin.
    pub group: Option<usize>,
    /// The addresses to leave from, at most one of a family; none: as the kernel says.
    pub source: Vec<IpAddr>,
}

/// Reads `[[parents]]` and `[[routes]]`.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    let tables = root.tables("parents", out);
    if tables.len() > POLICY_PARENT_GROUPS_MAX {
        let what = format!("{} groups of parents; {POLICY_PARENT_GROUPS_MAX} are accepted", tables.len());
        out.whole(what, "join groups with the same proxies");
        return;
    }
    for table in tables {
        let group = group(table, builder, out);
        builder.body.parents.extend(group);
    }
    let tables = root.tables("routes", out);
    if tables.len() > POLICY_ROUTES_MAX {
        let what = format!("{} routes; {POLICY_ROUTES_MAX} are accepted", tables.len());
        return out.whole(what, "join routes: one takes many host_suffixes");
    }
    for table in tables {
        let route = route(table, builder, out);
        builder.body.routes.extend(route);
    }
}

fn group(mut table: Table, builder: &Builder, out: &mut Complaints) -> Option<body::ParentGroup> {
    let name = builder::name_of(&mut table, out);
    table.text("comment", POLICY_TEXT_BYTES_MAX, out);
    let choose = table.text("choose", 16, out);
    let choose = choose.and_then(|said| builder::choice(&said, &[("order", false), ("hash", true)], out));
    let direct_if_down = table.boolean("direct_if_down", out).unwrap_or(false);
    let spot = table.spot_of("proxies");
    let tables = table.tables("proxies", out);
    if tables.is_empty() || tables.len() > POLICY_PARENTS_PER_GROUP_MAX {
        let what = format!("the group has {} proxies; 1 to {POLICY_PARENTS_PER_GROUP_MAX} are accepted", tables.len());
        out.add(&spot, what, "write proxies = [{ type = \"http\", address = \"proxy.example:3128\" }]");
    }
    let proxies = tables.into_iter().filter_map(|table| proxy(table, out)).collect();
    table.finish(out);
    let name = name?;
    if name.value == DIRECT || builder.body.parents.iter().any(|group| group.name == name.value) {
        let what = format!("the name `{}` is taken", name.value);
        out.add(&name.spot, what, "give the group a name of its own; `direct` means no parent");
        return None;
    }
    Some(body::ParentGroup { name: name.value, by_hash: choose.unwrap_or(false), direct_if_down, proxies })
}

fn proxy(mut table: Table, out: &mut Complaints) -> Option<body::ParentProxy> {
    let kind = table.text("type", 16, out);
    let socks = kind.and_then(|said| builder::choice(&said, &[("http", false), ("socks5", true)], out));
    let address = table.text("address", 300, out);
    if address.is_none() && table.spot_of("address").at == table.spot.at {
        out.add(&table.spot.clone(), "the proxy has no address", "add address = \"proxy.example:3128\"");
    }
    let address = address.and_then(|said| host_and_port(&said, out));
    let credentials = table.text("credentials", 64, out).and_then(|said| file_name(said, out)).unwrap_or_default();
    let resolve = table.text("resolve", 16, out);
    if let Some(said) = resolve.as_ref().filter(|_| socks != Some(true)) {
        out.add(
            &said.spot,
            "only socks5 can choose who resolves",
            "leave `resolve` out: an HTTP parent resolves names",
        );
    }
    let resolve = resolve.and_then(|said| builder::choice(&said, &[("parent", false), ("node", true)], out));
    table.finish(out);
    let (host, port) = address?;
    let proxy = body::ParentProxy {
        socks: socks.unwrap_or(false),
        host,
        port,
        credentials,
        resolve_here: resolve.unwrap_or(false),
    };
    Some(proxy)
}

/// `proxy.example:3128`, `10.0.0.1:1080`, `[2001:db8::1]:3128`.
/// `proxy.example:3128` taken apart.
pub(super) fn host_and_port(said: &Said<String>, out: &mut Complaints) -> Option<(String, u16)> {
    let split = said.value.rsplit_once(':');
    let port = split.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0);
    let host = split.map(|(host, _)| (host, builder::host_name(host)));
    match (host, port) {
        // Without brackets nobody could say where an IPv6 address ends.
        (Some((text, Ok(host))), Some(port)) if text.starts_with('[') || !text.contains(':') => Some((host, port)),
        _ => {
            let remedy = "write \"proxy.example:3128\", \"10.0.0.1:1080\" or \"[2001:db8::1]:3128\"";
            out.add(&said.spot, format!("bad address of a proxy `{}`", said.value), remedy);
            None
        }
    }
}

fn file_name(said: Said<String>, out: &mut Complaints) -> Option<String> {
    let letters = said.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let good = letters && !said.value.is_empty() && !said.value.starts_with('.');
    if !good {
        let remedy = "write the name of a file in CREDENTIALS_DIR, without a path: letters, digits, `.`, `_`, `-`";
        out.add(&said.spot, format!("bad name of a file of credentials `{}`", said.value), remedy);
    }
    good.then_some(said.value)
}

fn route(mut table: Table, builder: &mut Builder, out: &mut Complaints) -> Option<body::Route> {
    table.text("comment", POLICY_TEXT_BYTES_MAX, out);
    let enabled = table.boolean("enabled", out).unwrap_or(true);
    let profiles = builder.profiles.condition(&mut table, "profiles", out);
    let host_suffixes = hosts(&mut table, "host_suffixes", out);
    let group = table.text("via", 64, out);
    if group.is_none() && table.spot_of("via").at == table.spot.at {
        out.add(
            &table.spot.clone(),
            "the route leads nowhere",
            "add via = \"name of a [[parents]] group\" or \"direct\"",
        );
    }
    let group = group.and_then(|said| find_group(&said, builder, out));
    let source = source(&mut table, out);
    let place = table.spot.place.clone();
    table.finish(out);
    Some(body::Route { place, enabled, profiles, host_suffixes, group: group?, source })
}

/// The group's number, counted from 1; 0 is direct.
fn find_group(said: &Said<String>, builder: &Builder, out: &mut Complaints) -> Option<u16> {
    if said.value == DIRECT {
        return Some(0);
    }
    let names = || builder.body.parents.iter().map(|group| group.name.as_str());
    let found = names().position(|name| name == said.value);
    if found.is_none() {
        let remedy = builder::near_or(&said.value, names(), "define it in [[parents]], or write \"direct\"");
        out.add(&said.spot, format!("unknown group of parents `{}`", said.value), remedy);
    }
    found.map(|at| at as u16 + 1)
}

fn source(table: &mut Table, out: &mut Complaints) -> Vec<body::AddressRange> {
    let mut source: Vec<body::AddressRange> = Vec::new();
    for said in table.texts("source", 64, out).unwrap_or_default() {
        let Ok(address) = said.value.parse::<IpAddr>() else {
            out.add(
                &said.spot,
                format!("bad address `{}`", said.value),
                "write an address of the node, such as 192.0.2.5",
            );
            continue;
        };
        let (number, v4) = builder::number(address);
        if source.iter().any(|known| known.v4 == v4) {
            let what = format!("`{}` is the second address of its family", said.value);
            out.add(&said.spot, what, "write at most one IPv4 and one IPv6 address");
            continue;
        }
        source.push(body::AddressRange { first: number, last: number, v4 });
    }
    source
}

impl ArchivedBody {
    /// The number of the first route that holds for this host and these tags, by walking the list. Who asks for each request asks
    /// [`RouteTable`](crate::policy::route_table::RouteTable), which must say the same.
    #[cfg(test)]
    pub fn route(&self, host: &str, tags: &Tags) -> Option<u16> {
        self.routes.iter().position(|route| route.holds(host, tags)).map(|at| at as u16)
    }

    /// The groups, for who connects to them.
    pub fn parent_groups(&self) -> Vec<ParentGroup> {
        let proxy = |proxy: &body::ArchivedParentProxy| ParentProxy {
            socks: proxy.socks,
            host: proxy.host.to_string(),
            port: proxy.port.to_native(),
            credentials: proxy.credentials.to_string(),
            resolve_here: proxy.resolve_here,
        };
        let group = |group: &body::ArchivedParentGroup| ParentGroup {
            name: group.name.to_string(),
            by_hash: group.by_hash,
            direct_if_down: group.direct_if_down,
            proxies: group.proxies.iter().map(proxy).collect(),
        };
        self.parents.iter().map(group).collect()
    }

    /// Where the routes lead, in the order of their numbers.
    pub fn routes_to(&self) -> Vec<RouteTo> {
        let address = |range: &body::ArchivedAddressRange| match (range.v4, range.first.to_native()) {
            (true, number) => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            (false, number) => IpAddr::V6(Ipv6Addr::from_bits(number)),
        };
        let route = |route: &ArchivedRoute| RouteTo {
            group: (route.group.to_native() as usize).checked_sub(1),
            source: route.source.iter().map(address).collect(),
        };
        self.routes.iter().map(route).collect()
    }

    /// A route in the words of the walk: where it stands and where it leads.
    pub fn route_words(&self, number: u16) -> String {
        let Some(route) = self.routes.get(number as usize) else {
            return "no route".to_string();
        };
        let group = (route.group.to_native() as usize).checked_sub(1).and_then(|at| self.parents.get(at));
        let via = group.map_or(DIRECT, |group| group.name.as_str());
        let source: Vec<String> = self
            .routes_to()
            .get(number as usize)
            .map_or_else(Vec::new, |to| to.source.iter().map(IpAddr::to_string).collect());
        let from = if source.is_empty() { String::new() } else { format!(", leaving from {}", source.join(" or ")) };
        format!("{} via {via}{from}", route.place)
    }
}

impl ArchivedRoute {
    #[cfg(test)]
    fn holds(&self, host: &str, tags: &Tags) -> bool {
        let hosts =
            || self.host_suffixes.is_empty() || self.host_suffixes.iter().any(|suffix| lies_under(host, suffix));
        self.enabled && self.profiles.holds(&tags.profiles) && hosts()
    }

    /// Whether its numbers point at something.
    pub fn check(&self, groups: usize) -> bool {
        self.group.to_native() as usize <= groups && self.source.len() <= 2
    }
}
