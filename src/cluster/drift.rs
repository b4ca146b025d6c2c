//! Whether a node enforces what the master's policy says, sans-IO: what it reports beside what is expected of it.

use crate::cluster::Enforced;

/// In what a node that reports `enforced` and has `snapshot` differs from the policy `current` with the effect `expected`; empty if in nothing.
pub fn words(enforced: &Enforced, snapshot: &str, current: &str, expected: &str) -> String {
    let mut found = Vec::new();
    if !enforced.trouble.is_empty() {
        found.push(enforced.trouble.clone());
    }
    if enforced.effect == expected {
        return found.join(" ");
    }
    if snapshot != current {
        let snapshot = if snapshot.is_empty() { "nothing" } else { snapshot };
        found.push(format!("It enforces {snapshot}, and the policy of the cluster is {current}."));
    }
    if !enforced.own_sections.is_empty() {
        let sections = enforced.own_sections.join(", ");
        found.push(format!("Sections of its own are in force instead of the master's: {sections} (its NEVER_SYNC)."));
    }
    if found.is_empty() && enforced.effect.is_empty() {
        found.push("It has not yet said what it enforces.".to_string());
    }
    if found.is_empty() {
        found.push(format!(
            "What it enforces is not what {snapshot} says. Restart it; if that does not help, look in its journal."
        ));
    }
    found.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_has_its_words_and_none_has_none() {
        let enforced = |effect: &str, own: &[&str], trouble: &str| Enforced {
            effect: effect.to_string(),
            own_sections: own.iter().map(|name| name.to_string()).collect(),
            trouble: trouble.to_string(),
        };
        for (said, snapshot, expected) in [
            (enforced("aa", &[], ""), "2-aa", ""),
            (enforced("bb", &[], ""), "1-bb", "It enforces 1-bb, and the policy of the cluster is 2-aa."),
            (
                enforced("cc", &["network", "pac"], ""),
                "2-aa",
                "instead of the master's: network, pac (its NEVER_SYNC).",
            ),
            (enforced("cc", &["pac"], ""), "1-bb", "It enforces 1-bb, and the policy of the cluster is 2-aa. Sections"),
            (enforced("aa", &[], "Core 1 lags."), "2-aa", "Core 1 lags."),
            (enforced("", &[], ""), "2-aa", "not yet said"),
            (enforced("cc", &[], ""), "2-aa", "not what 2-aa says"),
            (enforced("", &[], ""), "", "It enforces nothing"),
        ] {
            let found = words(&said, snapshot, "2-aa", "aa");
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        }
    }
}
