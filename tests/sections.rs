//! What a slave takes from its master, what it keeps of its own, and what the master sees of it: with real processes, and by trying to
//! change with a policy what is a node's own.

mod harness;

use harness::Cluster;
use harness::Node;
use harness::client::Client;
use harness::tidegate;
use harness::wait_until;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::cluster::NodeRow;
use tidegate::cluster::protocol::{self, HelloReply, Poll, PollReply, Welcome};
use tidegate::policy::{NoFiles, compile};
use tidegate::settings::{Apply, POLICY_SECTIONS, Scope, TABLE};

fn row(cluster: &Cluster, node: &str) -> Option<NodeRow> {
    match cluster.master.ask(Action::Nodes) {
        Ok(Outcome::Nodes { nodes }) => nodes.into_iter().find(|row| row.name == node),
        other => panic!("nodes: {other:?}"),
    }
}

fn drift(cluster: &Cluster, node: &str) -> String {
    row(cluster, node).map(|row| row.drift).unwrap_or_default()
}

/// The status of the answer to a CONNECT to the origin: 200 where the policy lets tunnels to its port through.
fn tunnel(cluster: &Cluster, slave: &Node) -> u16 {
    let client = Client::connect(slave.layout.proxy).unwrap();
    client.tunnel(&cluster.origin.address.to_string()).unwrap().map_or_else(|answer| answer.status, |_| 200)
}

fn signal(node: &Node, name: &str) {
    let pid = node.pid().to_string();
    assert!(Command::new("kill").args([name, pid.as_str()]).status().unwrap().success());
}

#[test]
fn a_slave_keeps_the_section_that_never_sync_names_through_every_apply_and_the_master_shows_it() {
    let cluster = Cluster::lay_out(2, &[]);
    let (own, plain) = (&cluster.slaves[0], &cluster.slaves[1]);
    let file = own.layout.dir.join("own.toml");
    let section = format!("[network]\nallow_destinations = [\"127.0.0.1/32:{}\"]\n", cluster.origin.address.port());
    let mut params = fs::read_to_string(&own.layout.config).unwrap();
    params.push_str(&format!("NEVER_SYNC=\"network\"\nOWN_SECTIONS_FILE=\"{}\"\n", file.display()));
    fs::write(&own.layout.config, params).unwrap();

    // Without the file the node does not guess: it says what to write where, and does not start.
    let (code, _, words) = tidegate(&["run", "--config", own.layout.config.to_str().unwrap()]);
    assert!(code != 0 && words.contains("own.toml") && words.contains("NEVER_SYNC names sections"), "{code}: {words}");
    fs::write(&file, "[access_restriction]\ndefault = \"allow\"\n").unwrap();
    let (code, _, words) = tidegate(&["run", "--config", own.layout.config.to_str().unwrap()]);
    assert!(code != 0 && words.contains("own.toml:1: access_restriction: this section is not"), "{code}: {words}");
    fs::write(&file, &section).unwrap();

    cluster.master.start();
    cluster.apply(&cluster.policy(""));
    cluster.slaves.iter().for_each(Node::start);
    cluster.wait_for_policy();
    for apply in 0..3 {
        // The master's [network] lets tunnels to the origin through; the slave's own names no ports, so 443 alone.
        assert_eq!((tunnel(&cluster, own), tunnel(&cluster, plain)), (403, 200), "apply {apply}");
        let mut client = Client::connect(own.layout.proxy).unwrap();
        assert_eq!(client.get(&cluster.url("/social")).unwrap().status, 403, "the other sections are the master's");
        wait_until("the master to see what the slave has of its own", || {
            drift(&cluster, "slave-1").contains("instead of the master's: network (its NEVER_SYNC)")
                && drift(&cluster, "slave-2").is_empty()
        });
        cluster.apply(&cluster.policy(&format!("\n[[templates]]\nname = \"t{apply}\"\n")));
        cluster.wait_for_policy();
    }
    own.stop();
    own.start();
    assert_eq!(tunnel(&cluster, own), 403, "also from the held snapshot");

    let Ok(Outcome::Metrics { text }) = cluster.master.ask(Action::Metrics) else { panic!("metrics") };
    assert!(text.contains("tidegate_node_drift{node=\"slave-1\"} 1\n"), "{text}");
    assert!(text.contains("tidegate_node_drift{node=\"slave-2\"} 0\n"), "{text}");
    assert!(text.contains("tidegate_node_drift{node=\"master\"} 0\n"), "{text}");
    let control = cluster.master.layout.control.display().to_string();
    let (code, text, words) = tidegate(&["--control", &control, "nodes"]);
    assert!(code == 0 && text.contains("! slave-1: Sections of its own are in force"), "{text}{words}");
}

#[test]
fn a_slave_that_does_not_follow_is_seen_at_once_and_no_longer_when_it_does() {
    let cluster = Cluster::start(2);
    wait_until("no drift", || drift(&cluster, "slave-1").is_empty() && drift(&cluster, "slave-2").is_empty());
    signal(&cluster.slaves[0], "-STOP");
    let before = row(&cluster, "slave-1").unwrap().snapshot;
    let name = cluster.apply(&cluster.policy("\n[[templates]]\nname = \"other\"\n"));
    wait_until("the slave that follows", || drift(&cluster, "slave-2").is_empty());
    let words = drift(&cluster, "slave-1");
    signal(&cluster.slaves[0], "-CONT");
    assert_eq!(words, format!("It enforces {before}, and the policy of the cluster is {name}."));
    wait_until("the slave that was stopped", || drift(&cluster, "slave-1").is_empty());
}

#[test]
fn a_slave_killed_again_and_again_while_a_policy_comes_to_it_ends_with_that_policy() {
    let cluster = Cluster::start(1);
    let (slave, lists) = (&cluster.slaves[0], cluster.master.layout.dir.join("lists"));
    fs::create_dir_all(&lists).unwrap();
    let snapshots = slave.layout.dir.join("state/snapshots");
    let part = || {
        let files = fs::read_dir(&snapshots).map(|files| files.flatten().collect::<Vec<_>>()).unwrap_or_default();
        files.iter().any(|file| file.path().extension().is_some_and(|extension| extension == "part"))
    };
    let mut cut = 0;
    for round in 0..6_u64 {
        // Other hosts each time: nothing of what the slave has is of use.
        let hosts: String = (0..150_000_u64)
            .map(|i| format!("h{:x}.example.com\n", (i + 1 + (round << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        fs::write(lists.join("big.txt"), hosts).unwrap();
        let name = cluster.apply(&cluster.policy("\n[[categories]]\nname = \"big\"\nfiles = [\"big.txt\"]\n"));
        let mut in_force = false;
        wait_until("the transfer to begin, or to be over", || {
            in_force = slave.status().is_some_and(|status| status.snapshot == name);
            in_force || part()
        });
        std::thread::sleep(std::time::Duration::from_millis(7 * round));
        slave.kill();
        cut += u32::from(part());
        slave.start();
        cluster.wait_for_policy();
        assert!(!part(), "what was half-done is gone");
        assert_eq!(Client::connect(slave.layout.proxy).unwrap().get(&cluster.url("/bytes/9")).unwrap().status, 200);
    }
    println!("{cut} of 6 kills came in the middle of a transfer");
    assert!(cut > 0);
}

#[test]
fn every_startup_param_is_the_nodes_and_every_section_of_the_policy_the_clusters() {
    for key in TABLE {
        assert_eq!((key.scope, key.secret), (Scope::Node, false), "{}", key.name);
        assert_eq!(key.live(), key.apply == Apply::Live);
    }
    for section in POLICY_SECTIONS {
        assert_eq!((section.scope, section.secret), (Scope::Cluster, false), "{}", section.name);
        // Each is one that compile knows.
        for document in
            [format!("[[{}]]\n", section.name), format!("[{}]\n", section.name), format!("{} = 1\n", section.name)]
        {
            let complaints = compile(&document, 1, &NoFiles).err().unwrap_or_default();
            assert!(
                complaints.iter().all(|complaint| !complaint.what.contains("unknown")),
                "{document}: {complaints:?}"
            );
        }
    }
}

fn key_name() -> impl Strategy<Value = String> {
    (0..TABLE.len(), any::<bool>()).prop_map(|(at, lower)| {
        let name = TABLE[at].name;
        if lower { name.to_lowercase() } else { name.to_string() }
    })
}

/// `message` with more fields: as a master could send it that wants to set a slave's startup params.
fn with_fields<M: protocol::Message>(message: &M, fields: &BTreeMap<String, String>) -> Vec<u8> {
    let mut value: serde_json::Value = serde_json::from_slice(&protocol::encode(message)).unwrap();
    let object = value.as_object_mut().unwrap();
    for (key, text) in fields {
        object.entry(key.clone()).or_insert_with(|| text.clone().into());
    }
    object.insert("settings".to_string(), serde_json::to_value(fields).unwrap());
    object.insert("params".to_string(), serde_json::to_value(fields).unwrap());
    serde_json::to_vec(&value).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A policy document has no place for a startup param: whichever way it is written in, it is a complaint.
    #[test]
    fn no_policy_document_says_a_startup_param(key in key_name(), value in "[a-z0-9./:]{0,12}", form in 0..4) {
        let line = match form {
            0 => format!("{key} = \"{value}\"\n"),
            1 => format!("[startup]\n{key} = \"{value}\"\n"),
            2 => format!("[[{key}]]\nvalue = \"{value}\"\n"),
            _ => format!("[policy]\n{key} = \"{value}\"\n"),
        };
        let complaints = compile(&line, 1, &NoFiles).err();
        prop_assert!(complaints.is_some_and(|complaints| !complaints.is_empty()), "{line}");
    }

    /// What a slave reads of a master's messages is the same with any startup param in them as without.
    #[test]
    fn no_message_of_a_master_says_a_startup_param(
        fields in prop::collection::btree_map(key_name(), "[ -~]{0,20}", 1..8),
        version in any::<u64>(),
    ) {
        let reply = PollReply { hash: protocol::hash_text([7; 32]), snapshot: "3-070707".into(), version, ..PollReply::default() };
        prop_assert_eq!(protocol::decode::<PollReply>(&with_fields(&reply, &fields)), Ok(reply));
        let welcome = Welcome {
            session: "x".into(),
            master: "m".into(),
            clock_us: 1,
            synctime_ms: version % 100_000,
            snapshot: String::new(),
        };
        let hello = HelloReply::Welcome(welcome);
        prop_assert_eq!(protocol::decode::<HelloReply>(&with_fields(&hello, &fields)), Ok(hello));
        let poll = Poll { have: protocol::hash_text([1; 32]), seen: protocol::hash_text([1; 32]), ..Poll::default() };
        prop_assert_eq!(protocol::decode::<Poll>(&with_fields(&poll, &fields)), Ok(poll));
    }
}

/// The same end to end: whatever is applied on the master, a slave's file and its params in force stay.
#[test]
fn no_apply_changes_a_startup_param_of_a_slave() {
    let cluster = Cluster::start(1);
    let slave = &cluster.slaves[0];
    let params = || match slave.ask(Action::ParamsShow) {
        Ok(Outcome::Params { params, .. }) => format!("{params:?}"),
        other => panic!("params: {other:?}"),
    };
    let (file, shown) = (fs::read(&slave.layout.config).unwrap(), params());
    let sections = [
        "\n[pac]\nproxies = [\"192.0.2.1:1\"]\n",
        "\n[client_address]\nbelieve = \"x-forwarded-for\"\n",
        "\n[[time_profiles]]\nname = \"LISTEN_PORT\"\nfrom = \"08:00\"\nto = \"09:00\"\n",
        "\n[[templates]]\nname = \"NEVER_SYNC\"\nbody = \"LISTEN_PORT=\\\"1\\\"\"\n",
        "",
    ];
    for more in sections {
        cluster.apply(&cluster.policy(more));
        cluster.wait_for_policy();
        assert!(fs::read(&slave.layout.config).unwrap() == file, "startup.ini after {more}");
        assert_eq!(params(), shown, "after {more}");
    }
    assert_eq!(slave.status().unwrap().waiting_for_restart, Vec::<String>::new());
}
