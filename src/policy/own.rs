//! A slave's own sections: those that its NEVER_SYNC keeps from being taken from the master, read from a file of its own.

use super::Complaint;
use super::Snapshot;
use super::compile;
use super::snapshot::body::ArchivedBody;
use crate::settings::LocalSection;

/// Sections of the policy that are the node's own, whatever the master's policy says in theirs.
pub struct OwnSections {
    sections: Vec<LocalSection>,
    /// Made of the file alone. What the file leaves out is as if a policy left it out.
    snapshot: Snapshot,
}

impl OwnSections {
    /// Reads `document`, which may have these sections and no others.
    pub fn compile(document: &str, sections: &[LocalSection]) -> Result<OwnSections, Vec<Complaint>> {
        let names: Vec<&str> = sections.iter().map(|section| section.name()).collect();
        let file = compile::compile_sections(document, &names)?;
        let snapshot = Snapshot::open(&file).map_err(|error| {
            let (what, remedy) = (error.to_string(), "report this: what compiles must open".to_string());
            vec![Complaint { line: 0, place: String::new(), what, remedy }]
        })?;
        let mut sections = sections.to_vec();
        sections.sort_unstable();
        Ok(OwnSections { sections, snapshot })
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.sections.iter().map(|section| section.name())
    }

    pub(super) fn holds(&self, section: LocalSection) -> bool {
        self.sections.contains(&section)
    }

    pub(super) fn body(&self) -> &ArchivedBody {
        self.snapshot.body()
    }

    /// The effect of these sections on the snapshot `hash`.
    pub(super) fn effect_on(&self, hash: [u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("tidegate own sections v1");
        hasher.update(&hash);
        for name in self.names() {
            hasher.update(name.as_bytes()).update(b"\0");
        }
        *hasher.update(&self.snapshot.hash()).finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Believed;
    use crate::policy::Facts;
    use crate::policy::NoFiles;
    use crate::policy::NoHeaders;
    use crate::policy::Scheme;
    use crate::policy::Verdict;
    use crate::policy::decide;
    use std::sync::Arc;

    const MASTERS: &str = "[access_restriction]\ndefault = \"allow\"\n[network]\nrefuse_private = true\n\
        [client_address]\nbelieve = \"x-forwarded-for\"\n[[access_profiles]]\nname = \"all\"\naction = \"ALLOW\"\n";

    fn masters() -> Snapshot {
        Snapshot::open(&compile(MASTERS, 3, &NoFiles).unwrap()).unwrap()
    }

    fn tunnel_allowed(snapshot: &Snapshot, port: u16) -> bool {
        let facts = Facts {
            client: "192.0.2.1".parse().unwrap(),
            user: None,
            method: "CONNECT",
            scheme: Scheme::Tunnel,
            host: "example.com",
            port,
            path: "",
            headers: &NoHeaders,
            now: crate::base::clock::Wall(1_781_510_400_000_000),
            node: "n",
        };
        matches!(decide(snapshot, &facts).verdict, Verdict::Permit(_))
    }

    #[test]
    fn own_sections_are_in_force_and_the_others_are_the_masters() {
        let own = OwnSections::compile("[network]\nconnect_ports = [8443]\n", &[LocalSection::Network]).unwrap();
        let snapshot = masters().with_own(Some(Arc::new(own)));
        assert_eq!((tunnel_allowed(&snapshot, 8443), tunnel_allowed(&snapshot, 443)), (true, false));
        assert!(!snapshot.refuse_private(), "the whole section is the node's own");
        assert_eq!(snapshot.believed(), Believed::XForwardedFor, "and this one the master's");
        assert_eq!(snapshot.own_sections(), ["network"]);
        assert_eq!(snapshot.name(), masters().name());
        assert_ne!(snapshot.effect(), masters().effect());
        assert_eq!(masters().effect(), masters().hash());
    }

    #[test]
    fn a_section_that_the_file_leaves_out_is_not_the_masters_either() {
        let own = OwnSections::compile("", &[LocalSection::ClientAddress, LocalSection::Pac]).unwrap();
        let snapshot = masters().with_own(Some(Arc::new(own)));
        assert_eq!(snapshot.believed(), Believed::Nothing);
        assert!(snapshot.refuse_private());
        assert_eq!(snapshot.own_sections(), ["client_address", "pac"]);
    }

    #[test]
    fn other_sections_in_the_file_are_complained_of() {
        for document in ["[pac]\n", "[[access_profiles]]\nname = \"x\"\naction = \"ALLOW\"\n", "network = 7\n"] {
            let complaints = OwnSections::compile(document, &[LocalSection::Network]).err().unwrap();
            assert!(!complaints.is_empty() && complaints[0].line > 0, "{document}: {complaints:?}");
        }
    }
}
