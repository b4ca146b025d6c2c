//! The disk of LOG_DIR is full: what LOG_FULL chooses, with real processes on small file systems of their own.

mod harness;

use harness::Cluster;
use harness::Node;
use harness::account::ids_in_report;
use harness::client::Client;
use harness::disk::Disk;
use harness::tidegate;
use harness::wait_until;
use harness::watched::WaitingRoom;
use harness::watched::any_port;
use std::net::TcpStream;
use std::thread;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::limits::RECORD_SLOTS_MIN;
use tidegate::limits::SPOOL_LARGE_SLOTS;
use tidegate::limits::SPOOL_SMALL_PER_LARGE;
use tidegate::limits::SPOOL_SMALL_SLOTS;
use tidegate::report::Answer;
use tidegate::report::Question;

/// A cluster of one slave, of one core, whose log has a disk of its own and is synced after so many milliseconds; both run.
fn cluster(log_full: &str, log_sync: &str) -> Option<(Cluster, Disk)> {
    cluster_with(&[("LOG_FULL", log_full), ("LOG_SYNC", log_sync), ("CORES", "1")])
}

fn cluster_with(params: &[(&'static str, &str)]) -> Option<(Cluster, Disk)> {
    let cluster = Cluster::lay_out(1, params);
    let slave = &cluster.slaves[0];
    let disk = Disk::mount(&cluster.dir().join("disk.img"), slave.layout.log.parent().unwrap(), 48)?;
    cluster.master.start();
    cluster.apply(&cluster.policy(""));
    slave.start();
    cluster.wait_for_policy();
    Some((cluster, disk))
}

/// Until the slave says that its log takes nothing, with a request now and then.
fn wait_until_full(cluster: &Cluster, client: &mut Client, served: &mut u64) {
    wait_until("the status names the full disk", || {
        *served += u64::from(client.get(&cluster.url("/bytes/10?id=filling")).unwrap().status == 200);
        !cluster.slaves[0].status().unwrap().log_trouble.is_empty()
    });
}

const CLIENTS: u64 = 8;
/// What may be opened and wait while the log takes nothing.
const SLOTS: u64 = SPOOL_SMALL_SLOTS as u64 + SPOOL_LARGE_SLOTS as u64;

/// More exchanges than there are `slots`: all must be served.
fn overfill(cluster: &Cluster, slots: u64) -> u64 {
    let (url, each) = (cluster.url("/bytes/10?id=over"), slots / CLIENTS + 100);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(cluster.slaves[0].layout.proxy).unwrap();
                for number in 0..each {
                    let answer = client.get(&url).unwrap();
                    assert_eq!(answer.status, 200, "request {number}: {}", String::from_utf8_lossy(&answer.body));
                }
            });
        }
    });
    CLIENTS * each
}

/// What one client is served whole before it is refused, and the words of that.
fn until_refused(cluster: &Cluster, name: u64) -> (Vec<String>, String) {
    let (mut client, mut whole) = (Client::connect(cluster.slaves[0].layout.proxy).unwrap(), Vec::new());
    for number in 0..2 * SLOTS {
        let id = format!("full-{name}-{number}");
        match client.get(&cluster.url(&format!("/bytes/10?id={id}"))) {
            Ok(answer) if answer.status == 200 => whole.push(id),
            Ok(answer) if answer.status == 503 => return (whole, String::from_utf8_lossy(&answer.body).into_owned()),
            other => panic!("request {number}: {other:?}"),
        }
    }
    panic!("a node that cannot log must not serve");
}

/// A client of the slave, once that lets it in.
fn connected(slave: &Node) -> Client {
    let mut client = None;
    wait_until("the slave accepts clients", || {
        client = Client::connect(slave.layout.proxy).ok();
        client.is_some()
    });
    client.unwrap()
}

fn report_of(cluster: &Cluster, rule: Option<&str>) -> Answer {
    cluster.report(&Question { rule: rule.map(str::to_string), newest: Some(10), ..Question::default() })
}

fn wait_for_a_whole_report(cluster: &Cluster, served: u64) {
    let counts = || {
        let answer = report_of(cluster, None);
        (answer.requests, answer.unrecorded)
    };
    wait_until(&format!("{served} exchanges in the report, with what is only counted"), || {
        let (requests, unrecorded) = counts();
        requests + unrecorded >= served
    });
    cluster.wait_for_records();
    let (requests, unrecorded) = counts();
    assert_eq!(requests + unrecorded, served, "{requests} recorded, {unrecorded} counted");
    assert!(unrecorded >= 500, "{unrecorded}");
}

fn is_fit(node: &Node) -> bool {
    match node.ask(Action::Health { synced_within_s: None }) {
        Ok(Outcome::Health { reasons, .. }) => reasons.is_empty(),
        other => panic!("health: {other:?}"),
    }
}

fn set(node: &Node, param: &str) {
    let control = node.layout.control.to_str().unwrap();
    let (code, _, errors) = tidegate(&["params", "set", "--control", control, param]);
    assert_eq!(code, 0, "{errors}");
}

#[test]
fn a_full_disk_stops_service_and_loses_nothing() {
    let Some((cluster, disk)) = cluster("refuse", "0") else { return };
    let slave = &cluster.slaves[0];
    disk.fill(64);
    let whom = &cluster;
    let told: Vec<(Vec<String>, String)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|name| scope.spawn(move || until_refused(whom, name))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(told.iter().all(|(_, refused)| refused.contains("log")), "{}", told[0].1);
    let whole: Vec<&String> = told.iter().flat_map(|(whole, _)| whole).collect();
    wait_until("the status names the full disk", || slave.status().unwrap().log_trouble.contains("503"));
    assert!(!is_fit(slave));

    // Killed while full, and started while full: nothing is forgotten.
    slave.kill();
    slave.start();
    wait_until("the status names the full disk again", || !slave.status().unwrap().log_trouble.is_empty());
    disk.free();
    wait_until("service is back", || {
        Client::connect(slave.layout.proxy)
            .and_then(|mut client| client.get(&cluster.url("/")))
            .is_ok_and(|answer| answer.status == 200)
    });
    wait_until("what was served to be in the report", || report_of(&cluster, None).requests >= whole.len() as u64);
    cluster.wait_for_records();
    let found = ids_in_report(&cluster.master);
    let lost: Vec<_> = whole.iter().filter(|id| !found.contains_key(**id)).take(5).collect();
    assert!(lost.is_empty(), "served and not recorded: {lost:?} of {}", whole.len());
    assert_eq!(report_of(&cluster, None).unrecorded, 0);
}

#[test]
fn with_count_exchanges_go_on_and_their_number_survives_a_kill_and_is_told_in_one_record() {
    let Some((cluster, disk)) = cluster("count", "100") else { return };
    let slave = &cluster.slaves[0];
    disk.fill(64);
    let mut served = 0;
    let mut client = Client::connect(slave.layout.proxy).unwrap();
    wait_until_full(&cluster, &mut client, &mut served);
    served += overfill(&cluster, SLOTS);
    let status = slave.status().unwrap();
    assert!(status.log_trouble.contains("only counted"), "{}", status.log_trouble);
    assert!(is_fit(slave), "a balancer may go on sending clients");
    // Twice, and started while the disk is full: it serves, and what the predecessors had waits on.
    for _ in 0..2 {
        slave.kill();
        slave.start();
        let mut client = connected(slave);
        wait_until_full(&cluster, &mut client, &mut served);
    }
    disk.free();
    wait_for_a_whole_report(&cluster, served);

    let told = report_of(&cluster, Some("LOG_FULL"));
    assert_eq!((told.newest.len(), told.requests), (1, 0), "one record, and no exchange of its own: {:?}", told.newest);
    let row = &told.newest[0];
    assert_eq!(row.url, format!("{} exchanges without a record", told.unrecorded));
    assert!(row.filtering_reason.starts_with(&format!("{} exchanges between ", told.unrecorded)), "{row:?}");
    assert_eq!((row.ending.as_str(), row.node.as_str()), ("R-", slave.layout.name.as_str()));
    let control = cluster.master.layout.control.to_str().unwrap();
    let (code, text, errors) = tidegate(&["report", "--control", control]);
    assert_eq!(code, 0, "{errors}");
    assert!(text.contains(&format!("{} more went on without a record", told.unrecorded)), "{text}");

    // Once more, and killed when it is told: it is told once.
    slave.kill();
    slave.start();
    wait_until("the slave serves", || {
        Client::connect(slave.layout.proxy)
            .and_then(|mut client| client.get(&cluster.url("/bytes/10?id=last")))
            .is_ok_and(|answer| answer.status == 200)
    });
    wait_for_a_whole_report(&cluster, served + 1);
    assert_eq!(report_of(&cluster, Some("LOG_FULL")).newest.len(), 1);
}

#[test]
fn log_full_changes_live_and_what_was_counted_is_told_as_soon_as_there_is_room() {
    let Some((cluster, disk)) = cluster("refuse", "1000") else { return };
    let slave = &cluster.slaves[0];
    disk.fill(64);
    let mut served = 0;
    set(slave, "LOG_FULL=count");
    wait_until("the change is in force", || slave.journal().contains("LOG_FULL"));
    let mut client = Client::connect(slave.layout.proxy).unwrap();
    wait_until_full(&cluster, &mut client, &mut served);
    served += overfill(&cluster, SLOTS);
    set(slave, "LOG_FULL=refuse");
    wait_until("it is refused again", || {
        let mut client = Client::connect(slave.layout.proxy).unwrap();
        let status = client.get(&cluster.url("/bytes/10?id=refused")).unwrap().status;
        served += u64::from(status == 200);
        status == 503
    });
    disk.free();
    wait_for_a_whole_report(&cluster, served);
    assert_eq!(report_of(&cluster, Some("LOG_FULL")).newest.len(), 1);
}

#[test]
fn with_count_slots_that_are_under_way_refuse_as_ever_and_only_a_full_disk_lets_exchanges_go_on_without_a_record() {
    let few = RECORD_SLOTS_MIN.to_string();
    let params = [("LOG_FULL", "count"), ("CORES", "1"), ("RECORD_SLOTS", few.as_str())];
    let Some((cluster, disk)) = cluster_with(&params) else { return };
    let (slave, room) = (&cluster.slaves[0], WaitingRoom::open());
    cluster.apply(&any_port(&cluster.policy(""), cluster.origin.address));
    cluster.wait_for_policy();
    let slots = (RECORD_SLOTS_MIN + RECORD_SLOTS_MIN / SPOOL_SMALL_PER_LARGE) as usize;
    let waiting = |count: usize| -> Vec<TcpStream> {
        let waiting = (0..count).map(|_| room.ask(slave.layout.proxy, "waiting")).collect();
        wait_until("everybody waits at the origin", || room.count() == count);
        waiting
    };
    let answered = |mut waiting: Vec<TcpStream>| {
        room.answer_all();
        waiting.iter_mut().for_each(|stream| assert_eq!(WaitingRoom::status(stream), "200"));
        waiting.len() as u64
    };

    // The disk has room: nothing goes on without a record.
    let all = waiting(slots);
    for _ in 0..20 {
        assert_eq!(WaitingRoom::status(&mut room.ask(slave.layout.proxy, "beyond")), "503");
    }
    let mut served = answered(all);
    wait_until("all of them are in the report", || report_of(&cluster, None).requests == served);

    // It has none: whoever comes is served, those who stay for long as well.
    disk.fill(64);
    wait_until_full(&cluster, &mut connected(slave), &mut served);
    let all = waiting(slots + 30);
    served += overfill(&cluster, slots as u64);
    assert!(is_fit(slave), "a balancer may go on sending clients");
    served += answered(all);

    disk.free();
    wait_for_a_whole_report(&cluster, served);
    assert_eq!(report_of(&cluster, Some("LOG_FULL")).newest.len(), 1);
    // And slots that are under way refuse again.
    let all = waiting(slots);
    assert_eq!(WaitingRoom::status(&mut room.ask(slave.layout.proxy, "beyond")), "503");
    answered(all);
}
