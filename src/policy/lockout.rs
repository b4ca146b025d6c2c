//! What a policy would shut out: asked before it is applied, so that nobody does by mistake what nobody can undo in time.

use crate::policy::decision::Rights;
use crate::policy::snapshot::Snapshot;
use crate::policy::snapshot::body::ArchivedAccessEntry;
use crate::policy::snapshot::body::ArchivedAccessProfile;
use crate::policy::snapshot::body::ArchivedAction;
use crate::policy::snapshot::body::ArchivedCondition;

impl Snapshot {
    /// Why no request of anybody would be allowed, whatever it is; nothing if some may be.
    pub fn denies_everything(&self) -> Option<&'static str> {
        let body = self.body();
        let access = &body.access;
        if access.deny.iter().any(|entry| entry.enabled && is_everybody(entry)) {
            return Some("an entry of the deny list has every address");
        }
        let clients = Rights::PROXY.with(Rights::CONNECT).0;
        let admits = |entry: &ArchivedAccessEntry| entry.enabled && entry.rights & clients != 0;
        if !access.default_allow && !access.allow.iter().any(|entry| admits(entry) && !entry.addresses.is_empty()) {
            return Some("Access Restriction admits no client: there is no allow list, and default is \"deny\"");
        }
        for rule in body.access_profiles.iter().filter(|rule| rule.enabled) {
            match rule.action {
                ArchivedAction::Allow => return None,
                ArchivedAction::Deny if is_unconditional(rule) => {
                    return Some("an Access Profile without conditions denies before any other allows");
                }
                _ => {}
            }
        }
        let words = "no Access Profile allows anything, and access_profiles_default is \"deny\"";
        (!body.profiles_default_allow).then_some(words)
    }
}

/// Whether the entry has all addresses of both families in one range each: what `any` means.
fn is_everybody(entry: &ArchivedAccessEntry) -> bool {
    let has = |v4: bool, last: u128| {
        let whole = |range: &crate::policy::snapshot::body::ArchivedAddressRange| {
            range.v4 == v4 && range.first.to_native() == 0 && range.last.to_native() == last
        };
        entry.addresses.iter().any(whole)
    };
    has(true, u128::from(u32::MAX)) && has(false, u128::MAX)
}

fn is_unconditional(rule: &ArchivedAccessProfile) -> bool {
    let conditions = [&rule.profiles, &rule.time_profiles, &rule.user_groups, &rule.request_types, &rule.categories];
    rule.nodes.is_empty() && conditions.into_iter().all(asks_nothing)
}

fn asks_nothing(condition: &ArchivedCondition) -> bool {
    condition.any.iter().chain(condition.none.iter()).all(|word| word.to_native() == 0)
}

#[cfg(test)]
mod tests {
    use crate::policy::NoFiles;
    use crate::policy::Snapshot;
    use crate::policy::compile;

    #[test]
    fn a_policy_that_allows_nothing_to_anybody_is_known() {
        let office = "[access_restriction]\n[[access_restriction.allow]]\naddresses = [\"10.0.0.0/8\"]\n";
        let allow = "[[access_profiles]]\nname = \"all\"\naction = \"ALLOW\"\n";
        let deny = "[[access_profiles]]\nname = \"none\"\naction = \"DENY\"\n";
        let some = "[[access_profiles]]\nname = \"some\"\naction = \"DENY\"\nnodes = [\"s1\"]\n";
        let everybody = "[[access_restriction.deny]]\naddresses = [\"any\"]\n";
        let v4 = "[[access_restriction.deny]]\naddresses = [\"0.0.0.0/0\"]\n";
        let useless = office.to_string() + "rights = [\"CLUSTER\"]\n" + allow;
        for (document, denies) in [
            (String::new(), true),
            (allow.to_string(), true),
            (office.to_string(), true),
            (format!("{office}{allow}"), false),
            (format!("{office}{deny}{allow}"), true),
            (format!("{office}{some}{allow}"), false),
            (format!("{office}{allow}{deny}"), false),
            (format!("{office}{everybody}{allow}"), true),
            (format!("{office}{v4}{allow}"), false),
            (format!("access_profiles_default = \"allow\"\n{office}"), false),
            (useless, true),
        ] {
            let bytes = compile(&document, 1, &NoFiles).unwrap_or_else(|faults| panic!("{document}\n{faults:?}"));
            let said = Snapshot::open(&bytes).unwrap().denies_everything();
            assert_eq!(said.is_some(), denies, "{document}\n{said:?}");
        }
    }
}
