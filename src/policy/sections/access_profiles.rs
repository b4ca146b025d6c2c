//! Access Profiles: ordered rules. All conditions of a rule must hold; a condition without entries asks nothing. ALLOW
//! and DENY end the walk; INHERIT and DO_NOT_BYPASS change profiles or mark the request and the walk goes on.

use crate::limits::POLICY_NAME_BYTES_MAX;
use crate::limits::POLICY_TEXT_BYTES_MAX;
use crate::policy::compile::builder;
use crate::policy::compile::builder::Builder;
use crate::policy::compile::reader::Complaints;
use crate::policy::compile::reader::Said;
use crate::policy::compile::reader::Table;
use crate::policy::decision::Bits;
use crate::policy::decision::Tags;
use crate::policy::snapshot::body::AccessProfile;
use crate::policy::snapshot::body::Action;
use crate::policy::snapshot::body::ArchivedAccessProfile;
use crate::policy::snapshot::body::ArchivedCondition;
use crate::policy::snapshot::body::Node;

/// The section's name in records and pages.
pub const SECTION: &str = "Access Profiles";
const ACTIONS: [(&str, Action); 4] = [
    ("ALLOW", Action::Allow),
    ("DENY", Action::Deny),
    ("INHERIT", Action::Inherit),
    ("DO_NOT_BYPASS", Action::DoNotBypass),
];

/// Reads `access_profiles_default` and `[[access_profiles]]`. Profiles that a rule far below adds are known above it.
pub fn compile(root: &mut Table, builder: &mut Builder, out: &mut Complaints) {
    let default = root.text("access_profiles_default", 16, out);
    let default = default.and_then(|said| builder::choice(&said, &[("deny", false), ("allow", true)], out));
    builder.body.profiles_default_allow = default.unwrap_or(false);
    let tables = root.tables("access_profiles", out);
    let mut added = Vec::with_capacity(tables.len());
    let mut entries = Vec::with_capacity(tables.len());
    for mut table in tables {
        added.push(add_profiles(&mut table, builder, out));
        entries.push(table);
    }
    let mut names: Vec<String> = Vec::new();
    for (table, added) in entries.into_iter().zip(added) {
        let rule = rule(table, added, &mut names, builder, out);
        builder.body.access_profiles.push(rule);
    }
}

fn add_profiles(table: &mut Table, builder: &mut Builder, out: &mut Complaints) -> Bits {
    let mut profiles = Bits::default();
    for said in table.texts("add_profiles", POLICY_NAME_BYTES_MAX, out).unwrap_or_default() {
        builder.profiles.define_or_find(&said, out).into_iter().for_each(|number| profiles.insert(number));
    }
    profiles
}

fn rule(
    mut table: Table,
    added: Bits,
    names: &mut Vec<String>,
    builder: &mut Builder,
    out: &mut Complaints,
) -> AccessProfile {
    let name = builder::name_of(&mut table, out);
    if let Some(name) = &name {
        unique(name, names, out);
    }
    let name = name.map_or(String::new(), |name| name.value);
    let enabled = table.boolean("enabled", out).unwrap_or(true);
    table.text("comment", POLICY_TEXT_BYTES_MAX, out);
    let action = table.text("action", 32, out).and_then(|said| builder::choice(&said, &ACTIONS, out));
    let mut removed = Bits::default();
    for said in table.texts("remove_profiles", POLICY_NAME_BYTES_MAX, out).unwrap_or_default() {
        builder.profiles.find(&said.value, &said.spot, out).into_iter().for_each(|number| removed.insert(number));
    }
    let reason =
        table.text("reason", POLICY_TEXT_BYTES_MAX, out).map(|said| said.value).filter(|text| !text.is_empty());
    let reason = reason.unwrap_or_else(|| format!("the policy rule \"{name}\" denies this request"));
    let template = builder.template(&mut table, out);
    let profile = AccessProfile {
        enabled,
        rule: builder.rule(SECTION, &name, &table.spot.place, reason, template),
        nodes: nodes(&mut table, out),
        profiles: builder.profiles.condition(&mut table, "profiles", out),
        time_profiles: builder.time_profiles.condition(&mut table, "time_profiles", out),
        user_groups: builder.user_groups.condition(&mut table, "user_groups", out),
        request_types: builder.request_types.condition(&mut table, "request_types", out),
        categories: builder.categories.condition(&mut table, "categories", out),
        action: action.unwrap_or(Action::Inherit),
        add_profiles: added.0,
        remove_profiles: removed.0,
    };
    table.finish(out);
    profile
}

/// Records name rules: two of one name could not be told apart.
fn unique(name: &Said<String>, names: &mut Vec<String>, out: &mut Complaints) {
    if names.contains(&name.value) {
        out.add(&name.spot, format!("the rule `{}` is defined twice", name.value), "give one of them another name");
    }
    names.push(name.value.clone());
}

fn nodes(table: &mut Table, out: &mut Complaints) -> Vec<Node> {
    let said = table.texts("nodes", POLICY_TEXT_BYTES_MAX, out).unwrap_or_default();
    let node = |said: Said<String>| match said.value.strip_prefix('!') {
        Some(name) => Node { name: name.trim_start().to_string(), not: true },
        None => Node { name: said.value, not: false },
    };
    said.into_iter().map(node).collect()
}

/// The first condition of a rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The rule is switched off.
    Disabled,
    /// It is for other nodes.
    Nodes,
    /// profiles
    Profiles,
    /// time_profiles
    TimeProfiles,
    /// user_groups
    UserGroups,
    /// request_types
    RequestTypes,
    /// categories
    Categories,
}

impl ArchivedAccessProfile {
    /// The first condition that says no to a request with these tags on this node; who wants to know of all rules which
    /// hold asks [`RuleSets`](crate::policy::rule_sets::RuleSets).
    pub fn miss(&self, node: &str, tags: &Tags) -> Option<Miss> {
        let conditions = [
            (self.enabled, Miss::Disabled),
            (self.profiles.holds(&tags.profiles), Miss::Profiles),
            (self.time_profiles.holds(&tags.time_profiles), Miss::TimeProfiles),
            (self.user_groups.holds(&tags.user_groups), Miss::UserGroups),
            (self.request_types.holds(&tags.request_types), Miss::RequestTypes),
            (self.categories.holds(&tags.categories), Miss::Categories),
            (self.node_holds(node), Miss::Nodes),
        ];
        conditions.iter().find(|(holds, _)| !holds).map(|(_, miss)| *miss)
    }

    /// Whether the rule is for this node.
    #[inline]
    pub fn node_holds(&self, node: &str) -> bool {
        let mut wanted = None;
        for entry in self.nodes.iter() {
            let same = entry.name.as_str().eq_ignore_ascii_case(node);
            if entry.not && same {
                return false;
            }
            if !entry.not {
                wanted = Some(wanted.unwrap_or(false) || same);
            }
        }
        wanted.unwrap_or(true)
    }
}

impl ArchivedCondition {
    #[inline]
    pub(super) fn holds(&self, tags: &Bits) -> bool {
        let any = Bits(self.any.map(|word| word.to_native()));
        let none = Bits(self.none.map(|word| word.to_native()));
        (any.is_empty() || any.meets(tags)) && !none.meets(tags)
    }
}
