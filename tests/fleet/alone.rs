//! A node alone: installed, under systemd, restarted and killed under load, removed and purged.

use crate::documents::follow;
use crate::harness::wait_until;
use crate::load::Load;
use crate::load::Tunnel;
use crate::packages;
use crate::site::INSTALL;
use crate::site::PAGE;
use crate::site::SLOW_PAGE;
use crate::site::Site;
use crate::site::add_administrator;
use crate::site::fetch;
use crate::site::install;
use crate::site::main_pid;
use crate::site::node_pid;
use crate::site::set_params;
use crate::site::step;
use crate::site::wait_until_answered;
use crate::site::wait_until_verified;
use std::time::Duration;
use std::time::Instant;

/// Longer than a quick exchange is in service.
const SERVICE_TIME: Duration = Duration::from_secs(1);

/// How the load weighs: by default what two cores carry in a debug build beside everything else, in a run by hand what is asked.
struct Weight {
    rounds: u32,
    per_second: u32,
}

impl Weight {
    fn asked() -> Weight {
        let asked = |key: &str, default: u32| {
            std::env::var(key)
                .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{key} wants a number, not {value}")))
        };
        Weight { rounds: asked("TIDEGATE_FLEET_ROUNDS", 4), per_second: asked("TIDEGATE_FLEET_PER_SECOND", 300) }
    }
}

pub fn a_node_alone_is_set_up_by_the_documents(site: &Site) {
    step("set-up by docs/install.md");
    let node = site.machine("node");
    install(node, packages::this());
    follow(node, INSTALL, "systemctl enable --now tidegate", &[]);
    add_administrator(node, INSTALL);
    assert_eq!(fetch(site.machine("client"), node.address, PAGE), 403, "a node without a policy lets nobody through");
    let (policy, clients) = ("/etc/tidegate/first-policy.toml", "s|10.0.0.0/8|10.77.0.0/16|");
    let edit = "/^## Step [13]/,/^$/ s/^# //";
    follow(node, INSTALL, &format!("editor {policy}"), &[("editor", &format!("sed -i -e '{edit}' -e '{clients}'"))]);
    follow(node, INSTALL, &format!("tidegate policy apply {policy} -m \"first policy\""), &[]);
    wait_until_verified(node);
    assert_eq!(fetch(site.machine("client"), node.address, PAGE), 200);
}

pub fn its_unit_may_do_little(site: &Site) {
    step("systemd-analyze security");
    let said = site.machine("node").ok("systemd-analyze security tidegate.service --no-pager");
    let score = said.lines().find_map(|line| line.split("exposure level for tidegate.service: ").nth(1));
    let score: f64 =
        score.and_then(|rest| rest.split_whitespace().next()).and_then(|score| score.parse().ok()).expect("a score");
    assert!(score <= 1.5, "exposure {score}:\n{said}");
}

pub fn its_messages_are_found_by_field(site: &Site) {
    step("journalctl NODE=");
    let found = site.machine("node").ok("journalctl --no-pager -o cat -u tidegate NODE=node");
    assert!(found.contains("is in force"), "{found}");
    let other = site.machine("node").run("journalctl --no-pager -q -o cat -u tidegate NODE=another");
    assert_eq!(other.out, "", "messages of a node that is not here");
}

pub fn a_reload_applies_startup_params(site: &Site) {
    step("systemctl reload");
    let node = site.machine("node");
    let before = main_pid(node);
    set_params(node, &[("MAX_CONNECTIONS_PER_CLIENT", "4321")]);
    node.ok("systemctl reload tidegate");
    let params = node.ok("tidegate params show");
    assert!(params.contains("4321"), "after the reload: {params}");
    assert_eq!(main_pid(node), before, "a reload is no restart");
    let line = node.ok("systemctl show --value -p StatusText tidegate");
    assert!(line.contains("standalone"), "the status line: {line}");
}

pub fn restarts_refuse_nobody_and_cut_nothing(site: &Site) {
    let Weight { rounds, per_second } = Weight::asked();
    step(&format!("{rounds} times systemctl restart at {per_second} new connections a second"));
    let (node, client) = (site.machine("node"), &site.machine("client").port);
    let quick = Load::start(client, &site.plan(node.address, PAGE, per_second));
    let slow = Load::start(client, &site.plan(node.address, SLOW_PAGE, 4));
    let tunnel = Tunnel::start(client, (node.address, 8080).into(), "web.test:443");
    wait_until_answered(&quick, 100);
    for _ in 0..rounds {
        let before = node_pid(node);
        node.ok("systemctl restart tidegate");
        wait_until("another process serves", || ![before, 0].contains(&node_pid(node)));
        wait_until_answered(&quick, 100);
    }
    let (quick, slow, tunnel) = (quick.finish(), slow.finish(), tunnel.finish());
    eprintln!("   quick: {quick}\n   slow: {slow}\n   requests in one tunnel: {tunnel:?}");
    quick.expect_all_answered("restarts");
    slow.expect_all_answered("restarts, exchanges under way");
    assert!(tunnel.is_ok_and(|answered| answered > 0), "a tunnel lives on beside the new process");
}

pub fn a_killed_node_refuses_nobody_who_comes_after(site: &Site) {
    let Weight { rounds, per_second } = Weight::asked();
    step(&format!("{rounds} times kill -9 at {per_second} new connections a second"));
    let (node, client) = (site.machine("node"), &site.machine("client").port);
    let load = Load::start(client, &site.plan(node.address, PAGE, per_second));
    let mut killed = Vec::new();
    wait_until_answered(&load, 100);
    for _ in 0..rounds {
        let before = node_pid(node);
        let asked = Instant::now();
        node.ok(&format!("kill -9 {before}"));
        killed.push((asked, Instant::now()));
        wait_until("another process serves", || ![before, 0].contains(&node_pid(node)));
        wait_until_answered(&load, 100);
    }
    let tally = load.finish();
    eprintln!("   {tally}");
    assert_eq!(tally.refused, 0, "{tally}");
    // Whom the dead process had accepted is lost with it. Whoever came afterwards waited in the kernel and was served.
    let in_service =
        |started: &Instant| killed.iter().any(|(asked, done)| *started < *done && *started + SERVICE_TIME > *asked);
    let later: Vec<&String> =
        tally.words.iter().filter(|(started, _)| !in_service(started)).map(|(_, words)| words).collect();
    assert!(
        later.is_empty() && tally.words.len() as u64 == tally.failed(),
        "failed though not in service at a kill: {later:?}; {tally}"
    );
}

pub fn a_node_that_does_not_turn_is_started_anew(site: &Site) {
    step("the watchdog");
    let node = site.machine("node");
    let before = node_pid(node);
    node.ok(&format!("kill -STOP {before}"));
    wait_until("systemd starts the node anew", || ![before, 0].contains(&node_pid(node)));
    let said = node.ok("journalctl --no-pager -o cat -u tidegate | grep -i watchdog");
    assert!(said.contains("Watchdog timeout"), "{said}");
    wait_until_verified(node);
}

pub fn what_is_removed_stays_and_what_is_purged_goes(site: &Site) {
    step("remove, install again, purge");
    let node = site.machine("node");
    follow(node, INSTALL, "apt remove tidegate", &[("apt remove", "apt-get remove -y")]);
    node.ok("! pgrep -x tidegate && test -s /var/lib/tidegate/policy.db && test -s /var/log/tidegate/extended.log");
    install(node, packages::this());
    node.ok("systemctl enable --now tidegate");
    wait_until_verified(node);
    follow(node, INSTALL, "apt purge tidegate", &[("apt purge", "apt-get purge -y")]);
    node.ok("! pgrep -x tidegate; ! ls -d /var/lib/tidegate /var/log/tidegate /etc/tidegate /usr/bin/tidegate 2>/dev/null | grep .");
}
