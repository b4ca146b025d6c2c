//! Access Restriction: which clients may use the proxy, and for what. Deny list first, then allow list, each top down;
//! the first entry that has the client's address decides; otherwise the default policy.

use crate::limits::POLICY_NAME_BYTES_MAX;
use crate::limits::POLICY_TEXT_BYTES_MAX;
use crate::policy::compile::RULE_ACCESS_DEFAULT;
use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Said;
use crate::policy::compile::reader::Table;
use crate::policy::decision::Bits;
use crate::policy::decision::Rights;
use crate::policy::snapshot::body::AccessEntry;
use crate::policy::snapshot::body::ArchivedAccess;
use crate::policy::snapshot::body::ArchivedAccessEntry;
use crate::policy::snapshot::body::ArchivedAddressRange;
#[cfg(test)]
use std::net::IpAddr;

/// The section's name in records and pages.
pub const SECTION: &str = "Access Restriction";
/// What an admitted client may do if nothing else is said.
const RIGHTS_DEFAULT: Rights = Rights::PROXY.with(Rights::CONNECT);
const RIGHTS: [(&str, Rights); 3] =
    [("PROXY", Rights::PROXY), ("CONNECT", Rights::CONNECT), ("CLUSTER", Rights::CLUSTER)];
/// Rights that other products' policies know and nothing here would ask for: what they are said to do would not happen.
const RIGHTS_REFUSED: [(&str, &str); 2] = [
    (
        "CONFIG",
        "who may use the portal is said by its password and PORTAL_IP, not by an address in the policy: leave it out",
    ),
    (
        "BYPASS",
        "nobody is offered a way around a block: leave it out, or put an Access Profiles rule that allows above the one that denies",
    ),
];

/// Reads `[access_restriction]`.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    let Some(mut section) = root.table("access_restriction", out) else {
        return;
    };
    let default = section.text("default", 16, out);
    let default = default.and_then(|said| builder::choice(&said, &[("deny", false), ("allow", true)], out));
    builder.body.access.default_allow = default.unwrap_or(false);
    let authentication = section.boolean("authentication", out).unwrap_or(false);
    builder.body.access.authentication = authentication;
    for entry in section.tables("deny", out) {
        let entry = deny_entry(entry, builder, out);
        builder.body.access.deny.push(entry);
    }
    for entry in section.tables("allow", out) {
        let entry = allow_entry(entry, authentication, builder, out);
        builder.body.access.allow.push(entry);
    }
    section.finish(out);
}

fn deny_entry(mut table: Table, builder: &mut Builder, out: &mut Complaints) -> AccessEntry {
    let (enabled, comment, addresses) = common(&mut table, out);
    let reason = table.text("reason", POLICY_TEXT_BYTES_MAX, out).map(|said| said.value);
    let reason = reason.unwrap_or_else(|| "your address is on the deny list of this proxy".to_string());
    let template = builder.template(&mut table, out);
    let name = format!("Deny list: {}", comment.unwrap_or_else(|| short(&table.spot.place)));
    let rule = builder.rule(SECTION, &name, &table.spot.place, reason, template);
    table.finish(out);
    AccessEntry { enabled, rule, addresses, rights: 0, authentication: false, user_groups: Bits::default().0 }
}

fn allow_entry(mut table: Table, authentication: bool, builder: &mut Builder, out: &mut Complaints) -> AccessEntry {
    let (enabled, comment, addresses) = common(&mut table, out);
    let rights = table.texts("rights", 16, out).map_or(RIGHTS_DEFAULT, |said| {
        let each = said.iter().filter_map(|said| right(said, out));
        each.fold(Rights::NONE, Rights::with)
    });
    let authentication = table.boolean("authentication", out).unwrap_or(authentication);
    let mut user_groups = Bits::default();
    for said in table.texts("user_groups", POLICY_NAME_BYTES_MAX, out).unwrap_or_default() {
        builder.user_groups.define_or_find(&said, out).into_iter().for_each(|number| user_groups.insert(number));
    }
    let template = builder.template(&mut table, out);
    let name = format!("Allow list: {}", comment.unwrap_or_else(|| short(&table.spot.place)));
    let rule = builder.rule(SECTION, &name, &table.spot.place, String::new(), template);
    table.finish(out);
    AccessEntry { enabled, rule, addresses, rights: rights.0, authentication, user_groups: user_groups.0 }
}

fn right(said: &Said<String>, out: &mut Complaints) -> Option<Rights> {
    let refused = RIGHTS_REFUSED.iter().find(|(word, _)| word.eq_ignore_ascii_case(&said.value));
    if let Some((word, remedy)) = refused {
        out.add(&said.spot, format!("there is no right `{word}`"), *remedy);
        return None;
    }
    builder::choice(said, &RIGHTS, out)
}

type Common = (bool, Option<String>, Vec<crate::policy::snapshot::body::AddressRange>);

fn common(table: &mut Table, out: &mut Complaints) -> Common {
    let enabled = table.boolean("enabled", out).unwrap_or(true);
    let comment = table.text("comment", POLICY_TEXT_BYTES_MAX, out).map(|said| said.value);
    let said = table.texts("addresses", 128, out);
    if said.is_none() && table.spot_of("addresses").at == table.spot.at {
        let remedy = "add addresses = [\"10.0.0.0/8\"], or [\"any\"] for every client";
        out.add(&table.spot.clone(), "the entry names no addresses", remedy);
    }
    let addresses = said.unwrap_or_default().iter().flat_map(|said| builder::addresses(said, out)).collect();
    (enabled, comment.filter(|text| !text.is_empty()), addresses)
}

/// `access_restriction.allow[2]` -> `entry 2`.
fn short(place: &str) -> String {
    let number = place.rsplit('[').next().unwrap_or("").trim_end_matches(']');
    format!("entry {number}")
}

/// What Access Restriction says about a client.
pub struct Admission<'s> {
    /// The entry or the default policy.
    pub rule: u32,
    /// Whether the client is admitted at all.
    pub admitted: bool,
    /// What it may do.
    pub rights: Rights,
    /// Whether a user must be known.
    pub authentication: bool,
    /// The entry, unless the default policy decided.
    pub entry: Option<&'s ArchivedAccessEntry>,
}

impl ArchivedAccess {
    /// Finds the entry for `client` by walking the lists. Who asks for each request asks
    /// [`AddressTable`](crate::policy::address_table::AddressTable), which must say the same.
    #[cfg(test)]
    pub fn admit(&self, client: IpAddr) -> Admission<'_> {
        let address = builder::number(client);
        let holds =
            |entry: &&ArchivedAccessEntry| entry.enabled && entry.addresses.iter().any(|range| range.holds(address));
        let denied = self.deny.iter().find(holds).map(|entry| (entry, false));
        self.admission(denied.or_else(|| self.allow.iter().find(holds).map(|entry| (entry, true))))
    }

    /// What the entry that decides says, or the default policy if none does.
    #[inline]
    pub fn admission<'s>(&'s self, decides: Option<(&'s ArchivedAccessEntry, bool)>) -> Admission<'s> {
        if let Some((entry, admits)) = decides {
            return Admission::of(entry, admits);
        }
        let (admitted, authentication) = (self.default_allow, self.authentication);
        let rights = if admitted { RIGHTS_DEFAULT } else { Rights::NONE };
        Admission { rule: RULE_ACCESS_DEFAULT, admitted, rights, authentication, entry: None }
    }
}

impl<'s> Admission<'s> {
    fn of(entry: &'s ArchivedAccessEntry, admitted: bool) -> Self {
        let (rule, rights) = (entry.rule.to_native(), Rights(entry.rights));
        Admission { rule, admitted, rights, authentication: entry.authentication, entry: Some(entry) }
    }
}

impl ArchivedAddressRange {
    /// Whether the address (see [`builder::number`]) lies in the range.
    #[inline]
    pub fn holds(&self, (address, v4): (u128, bool)) -> bool {
        self.v4 == v4 && self.first.to_native() <= address && address <= self.last.to_native()
    }
}
