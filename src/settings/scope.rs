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

/// The sections that `text` names, with commas between them; or what is wrong with it.
pub(super) fn local_sections(text: &str) -> Result<Vec<LocalSection>, String> {
    let mut sections = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match POLICY_SECTIONS.iter().find(|section| section.name == name) {
            Some(PolicySection { local: Some(local), .. }) if !sections.contains(local) => sections.push(*local),
            Some(PolicySection { local: Some(_), .. }) => {
                return Err(format!("each section once; {name} stands twice"));
            }
            Some(section) => {
                return Err(format!("{}; {name} is taken from the master, because {}", accepted(), section.why));
            }
            None => {
                return Err(format!("{}; there is no section {name} that a node could have of its own", accepted()));
            }
        }
    }
    sections.sort_unstable();
    Ok(sections)
}

fn accepted() -> String {
    let names = POLICY_SECTIONS.iter().filter(|section| section.local.is_some()).map(|section| section.name);
    format!("{} with commas between them, or nothing", names.collect::<Vec<_>>().join(", "))
}
