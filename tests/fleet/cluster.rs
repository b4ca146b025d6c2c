//! A master, two slaves, two balancers with a floating address, an origin and a client; and what happens to them on the job.

use crate::documents::as_said;
use crate::documents::follow;
use crate::harness::wait_until;
use crate::load::Load;
use crate::load::Tally;
use crate::machine::Machine;
use crate::packages;
use crate::site::CLUSTER;
use crate::site::FIRST_POLICY;
use crate::site::FLOATING;
use crate::site::FRONT;
use crate::site::PAGE;
use crate::site::SLOW_PAGE;
use crate::site::Site;
use crate::site::add_administrator;
use crate::site::apply;
use crate::site::fetch;
use crate::site::install;
use crate::site::json;
use crate::site::node_pid;
use crate::site::set_params;
use crate::site::step;
use crate::site::wait_until_answered;
use crate::site::wait_until_verified;
use serde_json::Value;
use std::time::Duration;
use std::time::Instant;

const NODES: [&str; 3] = ["master", "slave1", "slave2"];
const SLAVES: [&str; 2] = ["slave1", "slave2"];
const BALANCERS: [&str; 2] = ["balancer1", "balancer2"];

/// New connections a second: everything runs on the same two cores, in a debug build.
const PER_SECOND: u32 = 100;

/// How long a balancer may go on sending clients to a slave that is gone: it asks each second and wants two failures, and a
/// connection that was being opened waits for its second try.
const BALANCER_NOTICES: Duration = Duration::from_secs(8);

/// How long the floating address may be away: keepalived says each second that it lives, and is missed after three.
const ADDRESS_MOVES: Duration = Duration::from_secs(8);

pub fn boot() -> Site {
    Site::boot(&["master", "slave1", "slave2", "balancer1", "balancer2", "web", "client"])
}

pub fn is_set_up_by_the_documents(site: &Site) {
    step("a master and two slaves by docs/cluster.md");
    let master = site.machine("master");
    NODES.iter().for_each(|name| install(site.machine(name), packages::this()));
    follow(master, CLUSTER, "tidegate activation-key new -o /etc/tidegate/activation.key", &[]);
    set_params(master, &[("ROLE", "master")]);
    follow(master, CLUSTER, "systemctl enable --now tidegate", &[]);
    add_administrator(master, CLUSTER);
    apply(master, FIRST_POLICY);
    for name in SLAVES {
        let slave = site.machine(name);
        // As scp would: the same bytes, for root alone.
        slave.write("/etc/tidegate/activation.key", master.read("/etc/tidegate/activation.key").as_bytes());
        slave.ok("chmod 0600 /etc/tidegate/activation.key");
        set_params(slave, &[("MASTER_IP", "10.77.0.10")]);
        follow(slave, CLUSTER, "systemctl enable --now tidegate", &[]);
    }
    NODES.iter().for_each(|name| wait_until_verified(site.machine(name)));
    for name in SLAVES {
        assert_eq!(fetch(site.machine("client"), site.machine(name).address, PAGE), 200, "straight through {name}");
    }
}

pub fn stands_behind_two_balancers(site: &Site) {
    step("two balancers with a floating address by docs/front.md");
    for name in SLAVES {
        let ours = [("10.0.0.5", "10.77.0.5,10.77.0.6")];
        let command = "tidegate params set TRUSTED_PROXIES=10.0.0.5 PROXY_PROTOCOL=required";
        follow(site.machine(name), FRONT, command, &ours);
    }
    for name in BALANCERS {
        set_up_balancer(site, site.machine(name));
    }
    wait_until("the floating address answers through a slave", || fetch(site.machine("client"), FLOATING, PAGE) == 200);
    NODES.iter().for_each(|name| wait_until_verified(site.machine(name)));
    // Both slaves are up for a balancer when its next checks have passed.
    let load = Load::start(&site.machine("client").port, &site.plan(FLOATING, PAGE, PER_SECOND));
    wait_until_answered(&load, 200);
    load.finish().expect_all_answered("quiet times");
    records_name_the_client(site);
}

fn set_up_balancer(site: &Site, balancer: &Machine) {
    let first = balancer.name == BALANCERS[0];
    let (state, other) = if first { ("master", "10.77.0.6") } else { ("backup", "10.77.0.5") };
    // What the page has come over ssh, this test carries.
    let ours = [("ssh root@MASTER ", ""), (" > /etc/haproxy/haproxy.cfg", "")];
    let command = as_said(FRONT, "ssh root@MASTER tidegate lb haproxy > /etc/haproxy/haproxy.cfg", &ours);
    let mut haproxy = String::new();
    // The master hears of a slave's params at its next contact, within ten seconds.
    wait_until("the master knows that both slaves take PROXY headers", || {
        haproxy = site.machine("master").ok(&command);
        let servers = haproxy.lines().filter(|line| line.trim_start().starts_with("server "));
        servers.filter(|line| line.contains("send-proxy-v2")).count() == SLAVES.len()
    });
    balancer.write("/etc/haproxy/haproxy.cfg", haproxy.as_bytes());
    let ours = [
        ("10.0.0.100/24", "10.77.0.100/24"),
        ("--state master", &format!("--state {state}")),
        ("10.0.0.6", other),
        (" > /etc/keepalived/keepalived.conf", ""),
    ];
    let command = as_said(
        FRONT,
        "tidegate lb keepalived --vip 10.0.0.100/24 --interface eth0 --state master --peer 10.0.0.6 > /etc/keepalived/keepalived.conf",
        &ours,
    );
    balancer.write("/etc/keepalived/keepalived.conf", site.machine("master").ok(&command).as_bytes());
    balancer.ok("haproxy -c -f /etc/haproxy/haproxy.cfg && keepalived -t");
    balancer.ok("systemctl enable --now haproxy keepalived");
    follow(balancer, FRONT, "systemctl reload haproxy", &[]);
    follow(balancer, FRONT, "systemctl restart keepalived", &[]);
}

/// Through two hops the records still say who asked.
fn records_name_the_client(site: &Site) {
    let master = site.machine("master");
    let mut report = Value::Null;
    wait_until("the report has the client's requests by both slaves", || {
        report = json(master, "tidegate report --last 1h --host web.test --client 10.77.0.200 --json");
        let of = |slave: &str| {
            rows(&report, "nodes").iter().any(|row| row["name"] == slave && row["requests"].as_u64() > Some(50))
        };
        SLAVES.iter().all(|slave| of(slave))
    });
    let all = json(master, "tidegate report --last 1h --host web.test --json");
    let users: Vec<&str> = rows(&all, "users").iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(users, ["anonymous@10.77.0.200"], "who asked for pages of web.test");
}

pub fn changes_policy_everywhere_at_once(site: &Site) {
    step("a policy change");
    let (master, client) = (site.machine("master"), site.machine("client"));
    let blocked = master.read(FIRST_POLICY).replace("\"doubleclick.net\"", "\"doubleclick.net\", \"web.test\"");
    master.write("/var/tmp/policy.toml", blocked.as_bytes());
    apply(master, "/var/tmp/policy.toml");
    // The balancers lead each request to another slave.
    let asked = || [(); 6].map(|()| fetch(client, FLOATING, PAGE));
    wait_until("both slaves enforce it", || asked() == [403; 6]);
    NODES.iter().for_each(|name| wait_until_verified(site.machine(name)));
    master.ok("tidegate policy rollback 1 -m 'web.test is open again'");
    wait_until("both slaves enforce what was before", || asked() == [200; 6]);
}

pub fn tells_its_messages_by_field(site: &Site) {
    step("messages of one node in its journal");
    for name in NODES {
        let found = site.machine(name).ok(&format!("journalctl --no-pager -q -o cat -u tidegate NODE={name}"));
        assert!(found.contains("is in force"), "{name}: {found}");
    }
}

pub fn loses_nothing_when_a_slave_stops(site: &Site) {
    step("systemctl stop of a slave under load");
    let slave = site.machine("slave1");
    let (quick, slow) = loads(site);
    slave.ok("systemctl stop tidegate");
    wait_until_answered(&quick, 200);
    slave.ok("systemctl start tidegate");
    wait_until_verified(slave);
    wait_until_answered(&quick, 200);
    let (quick, slow) = (report("quick", quick), report("slow", slow));
    quick.expect_all_answered("a slave stops and starts");
    slow.expect_all_answered("a slave stops and starts, exchanges under way");
}

pub fn loses_nothing_when_a_slave_is_drained(site: &Site) {
    step("tidegate drain and undrain under load");
    let slave = site.machine("slave2");
    let (quick, slow) = loads(site);
    follow(slave, FRONT, "tidegate drain --wait 600", &[("600", "60")]);
    let served = json(slave, "tidegate status --json")["counters"]["exchanges"].as_u64();
    wait_until_answered(&quick, 200);
    assert_eq!(
        json(slave, "tidegate status --json")["counters"]["exchanges"].as_u64(),
        served,
        "a drained slave is sent nobody"
    );
    follow(slave, FRONT, "tidegate undrain", &[]);
    wait_until("it is sent clients again", || {
        json(slave, "tidegate status --json")["counters"]["exchanges"].as_u64() > served
    });
    let (quick, slow) = (report("quick", quick), report("slow", slow));
    quick.expect_all_answered("a slave is drained");
    slow.expect_all_answered("a slave is drained, exchanges under way");
}

pub fn loses_nothing_when_the_master_has_all_slaves_restart(site: &Site) {
    step("tidegate task restart on all slaves under load");
    let master = site.machine("master");
    let (quick, slow) = loads(site);
    let before = SLAVES.map(|name| node_pid(site.machine(name)));
    let said = master.ok("tidegate task restart --on all --follow");
    for (name, before) in SLAVES.into_iter().zip(before) {
        assert_ne!(node_pid(site.machine(name)), before, "{name} is another process: {said}");
        assert!(site.machine(name).ok("systemctl is-active tidegate").contains("active"), "{name}'s unit goes on");
        assert!(said.lines().any(|line| line.contains(name) && line.contains("done")), "{said}");
    }
    wait_until_answered(&quick, 200);
    let (quick, slow) = (report("quick", quick), report("slow", slow));
    quick.expect_all_answered("all slaves restart by order");
    slow.expect_all_answered("all slaves restart by order, exchanges under way");
    SLAVES.iter().for_each(|name| wait_until_verified(site.machine(name)));
}

pub fn loses_only_what_a_killed_slave_had(site: &Site) {
    step("kill -9 of a slave under load");
    let slave = site.machine("slave1");
    let (quick, slow) = loads(site);
    let before = node_pid(slave);
    let killed = Instant::now();
    slave.ok(&format!("kill -9 {before}"));
    let gone = Instant::now();
    wait_until("another process serves", || ![before, 0].contains(&node_pid(slave)));
    wait_until_answered(&quick, 300);
    let (quick, slow) = (report("quick", quick), report("slow", slow));
    only_between(&quick, killed - Duration::from_secs(1), gone, "kill -9 of a slave");
    only_between(&slow, killed - Duration::from_secs(10), gone, "kill -9 of a slave, exchanges under way");
    wait_until_verified(slave);
}

pub fn loses_only_what_a_dead_slave_had(site: &Site) {
    step("power-off of a slave under load");
    let slave = site.machine("slave2");
    let (quick, slow) = loads(site);
    let off = Instant::now();
    slave.power_off();
    std::thread::sleep(BALANCER_NOTICES);
    wait_until_answered(&quick, 300);
    let (quick, slow) = (report("quick", quick), report("slow", slow));
    only_between(&quick, off - Duration::from_secs(1), off + BALANCER_NOTICES, "power-off of a slave");
    only_between(
        &slow,
        off - Duration::from_secs(10),
        off + BALANCER_NOTICES,
        "power-off of a slave, exchanges under way",
    );
    slave.power_on();
    slave.wait_until_up();
    NODES.iter().for_each(|name| wait_until_verified(site.machine(name)));
    has_every_record(site);
}

pub fn has_its_address_move_when_the_active_balancer_dies(site: &Site) {
    step("power-off of the active balancer under load");
    let active = BALANCERS
        .map(|name| site.machine(name))
        .into_iter()
        .find(|machine| holds_address(machine))
        .expect("one holds it");
    let other = site.machine(if active.name == BALANCERS[0] { BALANCERS[1] } else { BALANCERS[0] });
    let (quick, slow) = loads(site);
    let off = Instant::now();
    active.power_off();
    wait_until("the other balancer holds the floating address", || holds_address(other));
    eprintln!("   the address moved after {:?}", off.elapsed());
    wait_until_answered(&quick, 300);
    let (quick, slow) = (report("quick", quick), report("slow", slow));
    only_between(&quick, off - Duration::from_secs(1), off + ADDRESS_MOVES, "power-off of the active balancer");
    only_between(
        &slow,
        off - Duration::from_secs(10),
        off + ADDRESS_MOVES,
        "power-off of the active balancer, exchanges under way",
    );
    active.power_on();
    active.wait_until_up();
    wait_until("traffic flows with both", || fetch(site.machine("client"), FLOATING, PAGE) == 200);
}

pub fn is_upgraded_node_by_node_with_nothing_failed(site: &Site) {
    let next = packages::next();
    step(&format!("upgrade from {} to {} node by node under load", packages::this().version, next.version));
    let (quick, slow) = loads(site);
    for name in ["master", "slave1", "slave2"] {
        let node = site.machine(name);
        install(node, next);
        wait_until(&format!("{name} is the next version"), || {
            json(node, "tidegate status --json")["version"] == next.version.as_str()
        });
        wait_until_answered(&quick, 100);
    }
    NODES.iter().for_each(|name| wait_until_verified(site.machine(name)));
    wait_until_answered(&quick, 100);
    let (quick, slow) = (report("quick", quick), report("slow", slow));
    quick.expect_all_answered("the upgrade");
    slow.expect_all_answered("the upgrade, exchanges under way");
    let master = site.machine("master").read("/etc/tidegate/startup.ini");
    assert!(master.lines().any(|line| line == "ROLE=\"master\""), "settings are kept: {master}");
    has_every_record(site);
}

pub fn refuses_to_go_back(site: &Site) {
    step("a downgrade is refused with words");
    let slave = site.machine("slave2");
    let name = packages::this().deb.file_name().unwrap().to_str().unwrap();
    let said = slave.run(&format!("dpkg -i {name}"));
    assert!(said.code != 0 && said.all().contains("refusing to go from"), "{}", said.all());
    wait_until_verified(slave);
}

pub fn says_so_when_clients_are_sent_to_the_master(site: &Site) {
    step("a request to the master");
    let master = site.machine("master");
    assert_eq!(fetch(site.machine("client"), master.address, PAGE), 403, "the master carries no traffic");
    wait_until("tidegate verify complains of it", || {
        let said = master.run("tidegate verify");
        said.code == 1 && said.out.lines().any(|line| line.starts_with("FAILED") && line.contains("10.77.0.200"))
    });
}

/// Every record of both slaves is in the report, none is missing in between.
fn has_every_record(site: &Site) {
    for name in SLAVES {
        wait_until(&format!("the master has every record of {name}"), || {
            let status = json(site.machine(name), "tidegate status --json");
            status["records_written"].is_u64() && status["records_written"] == status["records_acknowledged"]
        });
    }
    let report = json(site.machine("master"), "tidegate report --last 1h --json");
    assert_eq!(rows(&report, "gaps").len(), 0, "{}", report["gaps"]);
}

/// Quick requests and slow ones from the client, through the floating address, with some answered already.
fn loads(site: &Site) -> (Load, Load) {
    let client = &site.machine("client").port;
    let quick = Load::start(client, &site.plan(FLOATING, PAGE, PER_SECOND));
    let slow = Load::start(client, &site.plan(FLOATING, SLOW_PAGE, 4));
    wait_until_answered(&quick, 100);
    wait_until_answered(&slow, 2);
    (quick, slow)
}

fn report(what: &str, load: Load) -> Tally {
    let tally = load.finish();
    eprintln!("   {what}: {tally}");
    tally
}

/// Whoever began outside this time was served.
fn only_between(tally: &Tally, from: Instant, to: Instant, during: &str) {
    let outside = tally.words.iter().filter(|(started, _)| *started < from || *started > to).count();
    assert!(outside == 0, "{during}: {outside} failed that began before or long after: {tally}");
}

fn holds_address(machine: &Machine) -> bool {
    machine.ok("ip -brief address show dev eth0").contains(&format!("{FLOATING}/"))
}

fn rows<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}
