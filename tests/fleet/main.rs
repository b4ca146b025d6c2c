//! Whole machines: Debian containers with a real systemd, packages, a balancer pair in front, and what an operator does to them.
//! How it works and what it needs: docs/tests.md.
#![allow(missing_docs)]

#[path = "../harness/mod.rs"]
mod harness;

mod alone;
mod cluster;
mod documents;
mod image;
mod load;
mod machine;
mod packages;
mod site;
mod switch;

use site::Site;
use std::sync::Mutex;

/// Machines are heavy and loads are shy: one site at a time.
static ONE_SITE: Mutex<()> = Mutex::new(());

#[test]
fn a_node_alone_is_installed_lives_under_systemd_and_is_purged_and_no_restart_drops_anything() {
    let _one = ONE_SITE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let site = Site::boot(&["node", "web", "client"]);
    alone::a_node_alone_is_set_up_by_the_documents(&site);
    alone::its_unit_may_do_little(&site);
    alone::its_messages_are_found_by_field(&site);
    alone::a_reload_applies_startup_params(&site);
    alone::restarts_refuse_nobody_and_cut_nothing(&site);
    alone::a_killed_node_refuses_nobody_who_comes_after(&site);
    alone::a_node_that_does_not_turn_is_started_anew(&site);
    alone::what_is_removed_stays_and_what_is_purged_goes(&site);
}

#[test]
fn a_cluster_behind_two_balancers_is_set_up_by_the_documents_and_outlives_what_operators_and_accidents_do() {
    let _one = ONE_SITE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let site = cluster::boot();
    cluster::is_set_up_by_the_documents(&site);
    cluster::stands_behind_two_balancers(&site);
    cluster::changes_policy_everywhere_at_once(&site);
    cluster::tells_its_messages_by_field(&site);
    cluster::loses_nothing_when_a_slave_stops(&site);
    cluster::loses_nothing_when_a_slave_is_drained(&site);
    cluster::loses_nothing_when_the_master_has_all_slaves_restart(&site);
    cluster::loses_only_what_a_killed_slave_had(&site);
    cluster::loses_only_what_a_dead_slave_had(&site);
    cluster::has_its_address_move_when_the_active_balancer_dies(&site);
    cluster::is_upgraded_node_by_node_with_nothing_failed(&site);
    cluster::refuses_to_go_back(&site);
    cluster::says_so_when_clients_are_sent_to_the_master(&site);
}
