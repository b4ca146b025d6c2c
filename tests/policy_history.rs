//! The history of policy, end to end: two administrators at once, what would lock somebody out, and old decisions explained.

mod harness;

use harness::Cluster;
use harness::client::Client;
use harness::tidegate;
use tidegate::admin::Action;
use tidegate::admin::ApplyHow;
use tidegate::admin::ExplainQuestion;
use tidegate::admin::Outcome;
use tidegate::admin::PolicySide;
use tidegate::admin::RefusedKind;

fn apply(document: String, base: Option<u64>, force: bool) -> Action {
    Action::PolicyApply { document, comment: "a test".into(), base, how: ApplyHow { force, waves: None } }
}

/// The policy of the tests with a comment line at its top and one at its end.
fn commented(cluster: &Cluster, top: &str, end: &str) -> String {
    format!("# {top}\n{}# {end}\n", cluster.policy(""))
}

#[test]
fn the_second_of_two_editors_gets_a_conflict_and_merges_what_the_first_applied() {
    let cluster = Cluster::lay_out(0, &[]);
    cluster.master.start();
    let ask = |action| cluster.master.ask(action);
    ask(apply(commented(&cluster, "top", "end"), Some(0), false)).unwrap();
    ask(apply(commented(&cluster, "top by ann", "end"), Some(1), false)).unwrap();
    let bobs = commented(&cluster, "top", "end by bob");
    let refused = ask(apply(bobs.clone(), Some(1), false)).unwrap_err();
    assert_eq!(refused.kind, RefusedKind::Conflict);
    assert!(refused.words.contains("version 2 by") && refused.words.contains("tidegate policy diff 1"), "{refused:?}");

    let control = cluster.master.layout.control.display().to_string();
    let file = cluster.dir().join("bob.toml");
    let file = file.display().to_string();
    std::fs::write(&file, &bobs).unwrap();
    let (code, diff, _) = tidegate(&["--control", &control, "policy", "diff", "1", "2"]);
    assert!(code == 0 && diff.contains("-# top\n+# top by ann\n") && !diff.contains("bob"), "{diff}");
    let (_, diff, _) = tidegate(&["--control", &control, "policy", "diff", "1"]);
    assert!(diff.contains("+# top by ann\n"), "a version alone is compared with what is in force: {diff}");
    let (_, diff, _) = tidegate(&["--control", &control, "policy", "diff", "1", &file]);
    assert!(diff.contains("+# end by bob\n") && !diff.contains("ann"), "{diff}");

    let (code, _, words) = tidegate(&["--control", &control, "policy", "merge", &file, "--base", "1", "-o", &file]);
    assert!(code == 0 && words.contains("--base 2"), "{words}");
    let (code, _, words) = tidegate(&["--control", &control, "policy", "apply", &file, "--base", "2"]);
    assert_eq!(code, 0, "{words}");
    let Ok(Outcome::Policy(text)) = ask(Action::PolicyShow { version: None }) else { panic!() };
    assert_eq!(text.document, commented(&cluster, "top by ann", "end by bob"));

    let carols = commented(&cluster, "top by carol", "end");
    match ask(Action::PolicyMerge { document: carols, base: 1 }) {
        Ok(Outcome::Merged { document, version: 3, overlaps: 1 }) => {
            assert!(
                document.contains("<<<<<<< version 3\n# top by ann\n=======\n# top by carol\n>>>>>>>"),
                "{document}"
            );
            assert!(document.contains("# end by bob"), "{document}");
            assert!(ask(apply(document, Some(3), false)).is_err(), "marks compile");
        }
        other => panic!("{other:?}"),
    }
    let rollback = |base| Action::PolicyRollback { to: 1, comment: String::new(), base, how: ApplyHow::default() };
    assert_eq!(ask(rollback(Some(2))).unwrap_err().kind, RefusedKind::Conflict);
    assert!(matches!(ask(rollback(Some(3))), Ok(Outcome::Applied { version: 4, .. })));
    let same = Action::PolicyDiff { from: PolicySide::Version { version: 1 }, to: PolicySide::InForce };
    assert!(matches!(ask(same), Ok(Outcome::Diff { text, .. }) if text.is_empty()));
}

#[test]
fn what_would_lock_everybody_or_every_slave_out_is_refused_unless_forced_and_that_is_audited() {
    let cluster = Cluster::start(1);
    let ask = |action| cluster.master.ask(action);
    let before = cluster.master.status().unwrap().snapshot;
    let nothing = "[policy]\nname = \"nothing\"\n".to_string();
    let refused = ask(apply(nothing.clone(), None, false)).unwrap_err();
    assert_eq!(refused.kind, RefusedKind::LocksOut);
    assert!(refused.words.contains("deny everything to everybody") && refused.words.contains("--force"), "{refused:?}");
    let loners = cluster.policy("").replace("[access_restriction]", "[access_restriction]\nauthentication = true");
    let loners = loners.replace(", \"CLUSTER\"]", "]");
    assert_ne!(loners, cluster.policy(""));
    let refused = ask(apply(loners, None, false)).unwrap_err();
    assert_eq!(refused.kind, RefusedKind::LocksOut);
    assert!(refused.words.contains("turn every slave away") && refused.words.contains("CLUSTER"), "{refused:?}");
    assert_eq!(cluster.master.status().unwrap().snapshot, before, "a refused apply changed the policy");

    assert!(matches!(ask(apply(nothing, None, true)), Ok(Outcome::Applied { changed: true, .. })));
    cluster.wait_for_policy();
    let answer = Client::connect(cluster.slaves[0].layout.proxy).unwrap().get(&cluster.url("/bytes/1")).unwrap();
    assert_eq!(answer.status, 403);
    let log = std::fs::read_to_string(cluster.master.layout.log.with_file_name("config.log")).unwrap();
    assert!(log.lines().any(|line| line.contains("forced") && line.contains("done")), "{log}");
}

#[test]
fn a_slave_asks_its_master_to_explain_a_decision_of_a_version_it_does_not_hold() {
    let cluster = Cluster::start(1);
    let first = cluster.master.status().unwrap().policy_version;
    let url = cluster.url("/social/x");
    cluster.apply(&cluster.policy("").replace("\"DENY\"", "\"ALLOW\""));
    cluster.wait_for_policy();
    let slave = &cluster.slaves[0];
    let question = |version| {
        Action::Explain(ExplainQuestion {
            client: "127.0.0.1".into(),
            user: None,
            method: None,
            url: url.clone(),
            at: None,
            document: None,
            version,
        })
    };
    let verdict = |version| match slave.ask(question(version)) {
        Ok(Outcome::Explained { verdict, lines, .. }) => (verdict, lines.len()),
        other => panic!("{other:?}"),
    };
    let Ok(Outcome::Explained { lines, .. }) = slave.ask(question(Some(first))) else { panic!() };
    assert!(lines[0].contains("on node slave-1"), "the master explained for itself: {}", lines[0]);
    assert_eq!(verdict(Some(first)).0, "DENY");
    assert_ne!(verdict(None), verdict(Some(first)));
    let shown = slave.ask(Action::PolicyShow { version: Some(first) });
    assert!(matches!(shown, Ok(Outcome::Policy(text)) if text.document == cluster.policy("")));
    assert!(
        matches!(slave.ask(Action::PolicyLog { limit: 9 }), Ok(Outcome::History { versions }) if versions.len() == 2)
    );
    assert_eq!(slave.ask(question(Some(99))).unwrap_err().kind, RefusedKind::NotFound);
    cluster.master.stop();
    let refused = slave.ask(question(Some(first))).unwrap_err();
    assert!(refused.words.contains("master"), "{refused:?}");
}
