//! The cluster's activation key is changed while the cluster works; nodes are removed and named anew. Real processes, by the
//! commands an administrator types.

mod harness;

use harness::Cluster;
use harness::tidegate;
use harness::wait_until;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::cluster::NodeRow;
use tidegate::settings;

/// Gives each node a key file of its own, as on hosts of their own; answers them, the master's first.
fn own_key_files(cluster: &Cluster) -> Vec<PathBuf> {
    let layouts = std::iter::once(&cluster.layout.master).chain(&cluster.layout.slaves);
    let own = layouts.map(|layout| {
        let file = layout.dir.join("own.key");
        copy(&cluster.layout.key, &file);
        let change = [("ACTIVATION_KEY_FILE".to_string(), file.display().to_string())];
        settings::submit(&layout.config, &change.into()).unwrap();
        file
    });
    own.collect()
}

fn copy(from: &PathBuf, to: &PathBuf) {
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The slave as the master knows it; nothing before it has come (again).
fn row(cluster: &Cluster, name: &str) -> Option<NodeRow> {
    match cluster.master.ask(Action::Nodes) {
        Ok(Outcome::Nodes { nodes }) => nodes.into_iter().find(|row| row.name == name),
        other => panic!("nodes: {other:?}"),
    }
}

/// Does what an administrator's command says; answers what it printed.
fn typed(arguments: &[&str]) -> String {
    let (code, output, error) = tidegate(arguments);
    assert_eq!(code, 0, "{arguments:?}: {error}");
    output
}

fn again(node: &harness::Node) {
    node.stop();
    node.start();
}

#[test]
fn the_activation_key_is_changed_node_by_node_and_no_policy_misses_a_slave() {
    let cluster = Cluster::lay_out(2, &[]);
    let files = own_key_files(&cluster);
    let file = |at: usize| files[at].to_str().unwrap();
    cluster.master.start();
    cluster.apply(&cluster.policy(""));
    cluster.slaves.iter().for_each(harness::Node::start);
    cluster.wait_for_policy();

    let said = typed(&["activation-key", "rotate", "--file", file(0), "--days", "2"]);
    assert!(said.contains("the former one counts until"), "{said}");
    let (code, _, twice) = tidegate(&["activation-key", "rotate", "--file", file(0)]);
    assert!(code == 1 && twice.contains("holds a former key"), "{twice}");
    again(&cluster.master);
    cluster.apply(&cluster.policy("# with the new key on the master\n"));
    cluster.wait_for_policy();
    for slave in ["slave-1", "slave-2"] {
        wait_until("the master to say who holds the former key", || {
            row(&cluster, slave).is_some_and(|row| row.error.contains("FormerKey:"))
        });
    }

    copy(&files[0], &files[1]);
    again(&cluster.slaves[0]);
    wait_until("the first slave to hold the new one", || {
        row(&cluster, "slave-1").is_some_and(|row| row.up && row.error.is_empty() && row.former_key_until_us == 0)
    });
    cluster.apply(&cluster.policy("# one slave with each key\n"));
    cluster.wait_for_policy();

    typed(&["activation-key", "retire", "--file", file(0)]);
    let shown = typed(&["activation-key", "show", "--file", file(0)]);
    assert!(shown.starts_with("key ") && !shown.contains("former"), "{shown}");
    again(&cluster.master);
    wait_until("the slave with the old key to be refused", || {
        let link = cluster.slaves[1].status().and_then(|status| status.master);
        link.is_some_and(|link| link.trouble.starts_with("KeyMismatch:"))
    });
    let snapshot = cluster.apply(&cluster.policy("# for holders of the new key\n"));
    wait_until("the first slave to enforce it", || {
        row(&cluster, "slave-1").is_some_and(|row| row.snapshot == snapshot)
    });
    assert_ne!(cluster.slaves[1].status().unwrap().snapshot, snapshot);
    copy(&files[0], &files[2]);
    again(&cluster.slaves[1]);
    cluster.wait_for_policy();
}

#[test]
fn a_node_that_is_removed_is_out_and_a_machine_installed_anew_gets_its_name_when_the_administrator_says_so() {
    let cluster = Cluster::start(2);
    let control = cluster.master.layout.control.to_str().unwrap().to_string();
    let node = |verb: &str, name: &str| tidegate(&["--control", &control, "node", verb, name]);
    let trouble = |at: usize| {
        cluster.slaves[at].status().and_then(|status| status.master).map_or(String::new(), |link| link.trouble)
    };

    assert_eq!(node("remove", "slave-9").0, 1);
    let (code, said, error) = node("remove", "slave-1");
    assert!(code == 0 && said.contains("slave-1 is removed"), "{said}{error}");
    wait_until("the removed slave to know", || trouble(0).starts_with("Removed:"));
    let snapshot = cluster.apply(&cluster.policy("# after the removal\n"));
    wait_until("the other slave to enforce it", || {
        row(&cluster, "slave-2").is_some_and(|row| row.snapshot == snapshot)
    });
    assert_ne!(cluster.slaves[0].status().unwrap().snapshot, snapshot);
    assert_eq!(node("readmit", "slave-1").0, 0);
    cluster.wait_for_policy();

    cluster.slaves[1].stop();
    fs::remove_dir_all(cluster.slaves[1].layout.dir.join("state")).unwrap();
    cluster.slaves[1].start();
    wait_until("the machine installed anew to be told", || {
        trouble(1).starts_with("NameBound:") || trouble(1).starts_with("NameTaken:")
    });
    wait_until("its remedy", || trouble(1).contains("tidegate node release slave-2"));
    assert_eq!(node("release", "slave-2").0, 0);
    cluster.wait_for_policy();
    let log = fs::read_to_string(cluster.master.layout.dir.join("log/config.log")).unwrap();
    for change in ["remove slave-1", "readmit slave-1", "release slave-2"] {
        assert!(log.contains(change), "{change}: {log}");
    }
}
