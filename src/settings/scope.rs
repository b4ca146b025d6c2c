//! Whose a setting is: a node's (startup params, never synced) or the cluster's (sections of the policy, equal on all nodes).
//!
//! Nothing that comes from a master reaches a startup param: they are made of startup.ini alone (`resolve` is the one
//! function that makes `Settings`), and no part of `cluster` writes that file. `tests/sections.rs` tries.

use std::fmt;

/// Whom a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This node alone: its file says it, and no master can change it.
    Node,
    /// All nodes: the master's policy says it.
    Cluster,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scope::Node => "node",
            Scope::Cluster => "cluster",
        })
    }
}

/// When a change counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// At once.
    Live,
    /// At a restart, which opens other listeners.
    Rebind,
    /// At a restart.
    Restart,
}

impl Apply {
    /// In a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Apply::Live => "A change counts at once.",
            Apply::Rebind => "A change needs a restart and opens other listeners: who connects there must follow.",
            Apply::Restart => "A change needs a restart.",
        }
    }
}

impl fmt::Display for Apply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Apply::Live => "live",
            Apply::Rebind => "rebind",
            Apply::Restart => "restart",
        })
    }
}

/// A section of the policy document: what the cluster sets.
#[derive(Debug)]
pub struct PolicySection {
    /// Its name in the document.
    pub name: &'static str,
    /// Whose it is.
    pub scope: Scope,
    /// When a change counts.
    pub apply: Apply,
    /// Whether it holds secrets. None does: a policy names files of credentials, which stay on the node.
    pub secret: bool,
    /// As what NEVER_SYNC may name it; none if it must be the same on all nodes.
    pub local: Option<LocalSection>,
    /// Why it may, or may not.
    pub why: &'static str,
}

const WHO: &str = "it decides who may do what, and that is one decision for the whole cluster";
const TERMS: &str = "rules that are equal on all nodes refer to it by name";

const fn equal(name: &'static str, why: &'static str) -> PolicySection {
    PolicySection { name, scope: Scope::Cluster, apply: Apply::Live, secret: false, local: None, why }
}

const fn local(name: &'static str, section: LocalSection, why: &'static str) -> PolicySection {
    PolicySection { local: Some(section), ..equal(name, why) }
}

/// Every section of a policy document.
pub const POLICY_SECTIONS: &[PolicySection] = &[
    equal("policy", "it names the policy that all nodes enforce"),
    equal("access_restriction", WHO),
    equal("access_profiles", WHO),
    equal("access_profiles_default", WHO),
    equal("time_profiles", TERMS),
    equal("request_types", TERMS),
    equal("categories", TERMS),
    equal("templates", TERMS),
    local("network", LocalSection::Network, "what a node reaches depends on where it stands"),
    local("client_address", LocalSection::ClientAddress, "what stands in front of a node may differ from node to node"),
    local("pac", LocalSection::Pac, "browsers of a branch office may have another way out"),
    equal("parents", "its routes refer to profiles of rules that are equal on all nodes"),
    equal("routes", "they refer to profiles of rules that are equal on all nodes"),
];

/// A section that a slave may have of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LocalSection {
    /// `[client_address]`
    ClientAddress,
    /// `[network]`
    Network,
    /// `[pac]`
    Pac,
}

impl LocalSection {
    /// Its name in the policy document.
    pub fn name(self) -> &'static str {
        match self {
            LocalSection::ClientAddress => "client_address",
            LocalSection::Network => "network",
            LocalSection::Pac => "pac",
        }
    }
}

/// The sections that NEVER_SYNC names in `text`, without those in `always`; or what is wrong with it.
pub(super) fn local_sections(text: &str, always: &[&str]) -> Result<Vec<LocalSection>, String> {
    if text.trim() == "all" {
        let names = POLICY_SECTIONS.iter().filter(|section| !always.contains(&section.name));
        return Ok(sorted(names.filter_map(|section| section.local).collect()));
    }
    let mut sections = Vec::new();
    for name in names(text)? {
        if always.contains(&name) {
            return Err(format!(
                "a section that ALWAYS_SYNC does not name; {name} stands in both, so delete it in one of them"
            ));
        }
        match POLICY_SECTIONS.iter().find(|section| section.name == name) {
            Some(PolicySection { local: Some(local), .. }) => sections.push(*local),
            Some(section) => {
                return Err(format!("{}; {name} is taken from the master, because {}", accepted(), section.why));
            }
            None => {
                return Err(format!("{}; there is no section {name} that a node could have of its own", accepted()));
            }
        }
    }
    Ok(sorted(sections))
}

/// The sections that ALWAYS_SYNC names in `text`; or what is wrong with it.
pub(super) fn sections(text: &str) -> Result<Vec<&'static str>, String> {
    let known = |name: &str| POLICY_SECTIONS.iter().map(|section| section.name).find(|known| *known == name);
    let all: Vec<_> = POLICY_SECTIONS.iter().map(|section| section.name).collect();
    let unknown =
        |name: &str| format!("of {} any, with commas between them; there is no section {name}", all.join(", "));
    Ok(sorted(names(text)?.into_iter().map(|name| known(name).ok_or_else(|| unknown(name))).collect::<Result<_, _>>()?))
}

/// The names in a list with commas between them, each once.
fn names(text: &str) -> Result<Vec<&str>, String> {
    let mut names = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if names.contains(&name) {
            return Err(format!("each section once; {name} stands twice"));
        }
        names.push(name);
    }
    Ok(names)
}

fn sorted<T: Ord>(mut sections: Vec<T>) -> Vec<T> {
    sections.sort_unstable();
    sections
}

fn accepted() -> String {
    let names = POLICY_SECTIONS.iter().filter(|section| section.local.is_some()).map(|section| section.name);
    format!("{} with commas between them; or all, or nothing", names.collect::<Vec<_>>().join(", "))
}
