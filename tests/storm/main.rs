//! Storms: a master, three slaves, an origin and clients on hosts of their own (network namespaces with real addresses), and all that
//! happens to such hosts: links that are cut, lose packets or reset connections, a slow line, a wire on which frames overtake each other
//! and come twice, a clock that is wrong, a full disk, damage on disk, processes that are paused, killed and restarted. After each storm
//! all nodes enforce the same policy, and every answer that a client received whole stands exactly once in the master's report.
//!
//! 16 faults by default; `TIDEGATE_STORM_FAULTS=300 cargo test --test storm -- --nocapture` for long. The seed is printed;
//! `TIDEGATE_STORM_SEED` repeats the order of faults (not how the machine interleaves them).

mod field;
#[path = "../harness/mod.rs"]
mod harness;
mod relay;
#[path = "../fleet/switch.rs"]
mod switch;
mod wire;

use field::Field;
use harness::account::ids_in_report;
use harness::dice::Dice;
use harness::dice::number_in;
use harness::wait_for_records;
use harness::wait_until;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;
use tidegate::admin::Action;
use tidegate::admin::Outcome;
use tidegate::record::audit::AuditQuestion;
use tidegate::report::Question;

/// Faults of a storm, one after the other; what each breaks may overlap with the next.
const FAULTS: u64 = 16;

#[test]
fn after_every_storm_all_nodes_enforce_one_policy_and_each_answer_is_recorded_once() {
    let by_time =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()));
    let seed = number_in("TIDEGATE_STORM_SEED").unwrap_or_else(by_time);
    let faults = number_in("TIDEGATE_STORM_FAULTS").unwrap_or(FAULTS);
    println!("TIDEGATE_STORM_SEED={seed} TIDEGATE_STORM_FAULTS={faults}");
    let Some(mut field) = Field::new(seed) else {
        return eprintln!("skipped: network namespaces and mounts need root, and the bad wire /dev/net/tun");
    };
    let mut dice = Dice(seed);
    let load = field.load();
    // The first faults are each kind once, so that no run is without one.
    for number in 0..faults {
        let kind = if number < field::KINDS { number } else { dice.roll(field::KINDS) };
        let told = field.strike(kind, &mut dice);
        println!("fault {number}: {told}; {} answers so far", load.answers());
        std::thread::sleep(Duration::from_millis(200 + dice.roll(1_500)));
        if dice.roll(3) == 0 {
            field.heal();
        }
    }
    field.heal();
    load.wait_for_more(200);
    let whole = load.stop();

    let [carried, overtaken, doubled] =
        [&field.wire.carried, &field.wire.overtaken, &field.wire.doubled].map(|count| count.load(Ordering::Relaxed));
    println!("the bad wire carried {carried} frames, {overtaken} of them behind later ones, {doubled} twice");
    assert!(overtaken > 0 && doubled > 0, "the wire is good");

    let snapshot = field.master.status().expect("the master runs").snapshot;
    for slave in &field.slaves {
        wait_until(&format!("{} enforces {snapshot}", slave.layout.name), || {
            slave.status().is_some_and(|status| status.snapshot == snapshot)
        });
    }
    wait_for_records(&field.slaves);
    let found = ids_in_report(&field.master);
    let lost: Vec<_> = whole.iter().filter(|id| !found.contains_key(*id)).take(5).collect();
    let twice: Vec<_> = found.iter().filter(|(_, count)| **count != 1).take(5).collect();
    println!("{} answers received whole, {} records", whole.len(), found.len());
    assert!(lost.is_empty() && twice.is_empty(), "seed {seed}: lost {lost:?}, twice {twice:?}");
    assert_eq!(field.master.report(&Question::default()).gaps, [], "seed {seed}");
    for (at, slave) in field.slaves.iter().enumerate() {
        let Ok(Outcome::Audit(proof)) = slave.ask(Action::Audit(AuditQuestion::default())) else { panic!("an audit") };
        let scratched = field.scratched.contains(&at);
        assert_eq!(proof.holds(), !scratched, "seed {seed}: {}: {:?}", slave.layout.name, proof.findings);
    }
}

/// A storm that is none proves nothing: each bad line meets packets, and a cable that is out carries none.
#[test]
fn the_faults_of_the_lines_are_real() {
    let Some(field) = Field::new(1) else { return eprintln!("skipped: it needs root and /dev/net/tun") };
    let load = field.load();
    load.wait_for_more(50);
    for (what, rule) in [("lost packets", field::LOSES), ("reset connections", field::RESETS)] {
        field.rule(1, rule);
        wait_until(what, || field.met(1) >= 20);
    }
    field.unplug(0);
    wait_until("every slave misses its master", || {
        field.slaves.iter().all(|slave| slave.status().and_then(|status| status.master).is_some_and(|link| !link.up))
    });
    load.wait_for_more(50);
    load.stop();
    let [carried, overtaken, doubled] =
        [&field.wire.carried, &field.wire.overtaken, &field.wire.doubled].map(|count| count.load(Ordering::Relaxed));
    assert!(carried > 1_000 && overtaken > 10 && doubled > 10, "{carried} carried, {overtaken} late, {doubled} twice");
}
