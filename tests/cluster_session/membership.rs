//! Whose a name is, and who belongs to the cluster.

use crate::key;
use crate::store;
use crate::world::*;
use tempfile::TempDir;
use tidegate::cluster::membership::MembershipChange;
use tidegate::record::Epoch;

fn change(master: &Master, change: MembershipChange, node: &str) -> Option<String> {
    master.service.change_membership(change, node).unwrap()
}

fn second<'a>(key: &'a tidegate::tls::activation::ActivationKey, dir: &'a TempDir) -> SlaveSpec<'a> {
    SlaveSpec { epoch: Epoch([99; 16]), ..SlaveSpec::new("s1", key, dir.path()) }
}

#[test]
fn a_second_node_of_the_same_name_is_refused_while_the_first_lives_and_after_it_until_the_name_is_free() {
    let (key, dirs) = (key(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let master = Master::start(&key, open_policy(1), store());
    let first = Slave::start(SlaveSpec::new("s1", &key, dirs[0].path()), master.address);
    until("the first to be in", || first.up());
    let other = Slave::start(second(&key, &dirs[1]), master.address);
    until("the second's words", || other.trouble().starts_with("NameTaken:"));
    let refusal = other.trouble();
    until("the master's words", || master.service.nodes().iter().any(|row| row.refusal == refusal));
    assert!(first.up());
    drop(first);
    until("the name to be bound", || other.trouble().starts_with("NameBound: the name s1"));
    assert!(other.trouble().contains("tidegate node release s1"), "{}", other.trouble());
    assert!(change(&master, MembershipChange::Release, "S1").is_some());
    until("the second to be in", || other.up());
    drop(other);
    let first = Slave::start(SlaveSpec::new("s1", &key, dirs[0].path()), master.address);
    until("the first to be the stranger now", || first.trouble().starts_with("Name"));
}

#[test]
fn a_name_stays_its_nodes_when_the_master_restarts_and_the_node_moves() {
    let (key, dirs) = (key(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let master = Master::start(&key, open_policy(1), store());
    let (address, dir) = (master.address, master.dir.clone());
    let first = Slave::start(SlaveSpec::new("s1", &key, dirs[0].path()), address);
    until("the first to be in", || first.up());
    drop((first, master));
    let master = Master::start_in(dir, address, &key, open_policy(1), store());
    let other = Slave::start(second(&key, &dirs[1]), address);
    until("the second's words", || other.trouble().starts_with("NameBound:"));
    // Its records, and so its epoch, were lost; its key was not.
    let first = Slave::start(second(&key, &dirs[0]), address);
    until("the first to be in again", || first.up());
    drop(master);
}

#[test]
fn a_removed_node_gets_no_policy_and_comes_back_when_it_is_let() {
    let (key, dirs) = (key(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let master = Master::start(&key, open_policy(1), store());
    let slave = Slave::start(SlaveSpec::new("s1", &key, dirs[0].path()), master.address);
    let stays = Slave::start(SlaveSpec::new("s2", &key, dirs[1].path()), master.address);
    until("both to have the policy", || slave.policy().starts_with("1-") && stays.policy().starts_with("1-"));
    assert_eq!(change(&master, MembershipChange::Remove, "s3"), None);
    assert!(change(&master, MembershipChange::Remove, "s1").unwrap().contains("s1 is removed"));
    master.policy.send_replace(open_policy(2));
    until("the other to have the next", || stays.policy().starts_with("2-"));
    until("the words", || slave.trouble().starts_with("Removed: this node was removed from the cluster as s1"));
    assert!(slave.policy().starts_with("1-") && !slave.up());
    until("the master's words", || master.row("s1").is_some_and(|row| row.refusal == slave.trouble()));

    // Under another name its key is barred all the same.
    drop(slave);
    let renamed = Slave::start(SlaveSpec::new("s9", &key, dirs[0].path()), master.address);
    until("the words again", || renamed.trouble().starts_with("Removed:"));
    assert!(change(&master, MembershipChange::Readmit, "s1").is_some());
    until("it to be back", || renamed.up());
}
