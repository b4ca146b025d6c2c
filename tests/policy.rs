//! What a policy document means: tables of (document, request) -> (verdict, rule), and every complaint it can earn.

#[path = "policy/model.rs"]
mod model;

use proptest::prelude::*;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tidegate::base::clock::Wall;
use tidegate::policy;
use tidegate::policy::BlockFacts;
use tidegate::policy::Facts;
use tidegate::policy::Folder;
use tidegate::policy::ListKind;
use tidegate::policy::NoFiles;
use tidegate::policy::NoHeaders;
use tidegate::policy::Rights;
use tidegate::policy::Scheme;
use tidegate::policy::Snapshot;
use tidegate::policy::Verdict;

/// Everybody may do everything, for tests of one section.
const OPEN: &str = "access_profiles_default = \"allow\"\n[access_restriction]\ndefault = \"allow\"\n";

fn snapshot(document: &str) -> Snapshot {
    let file = policy::compile(document, 7, &NoFiles).unwrap_or_else(|complaints| panic!("{complaints:#?}"));
    Snapshot::open(&file).unwrap()
}

fn facts<'a>() -> Facts<'a> {
    Facts {
        client: "10.1.2.3".parse().unwrap(),
        user: None,
        method: "GET",
        scheme: Scheme::Http,
        host: "www.example.com",
        port: 80,
        path: "/",
        headers: &NoHeaders,
        now: at("2026-03-02T10:00:00Z"),
        node: "slave-1",
    }
}

fn at(time: &str) -> Wall {
    Wall(time.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn tunnel<'a>(host: &'a str, port: u16) -> Facts<'a> {
    Facts { method: "CONNECT", scheme: Scheme::Tunnel, host, port, path: "", ..facts() }
}

/// `ALLOW Access Profiles: Staff`, by `decide`; `explain` must agree.
fn verdict(snapshot: &Snapshot, facts: &Facts) -> String {
    let words = |verdict: &Verdict| match verdict {
        Verdict::Permit(permit) => format!("ALLOW {}", permit.rule(snapshot)),
        Verdict::Deny(denial) => format!("DENY {}", denial.rule(snapshot)),
    };
    let decided = policy::decide(snapshot, facts);
    let (explained, lines) = policy::explain(snapshot, facts);
    assert_eq!(words(&decided.verdict), words(&explained.verdict));
    assert_eq!((&decided.tags, decided.do_not_bypass), (&explained.tags, explained.do_not_bypass));
    assert!(lines.last().unwrap().starts_with("Verdict: "), "{lines:#?}");
    words(&decided.verdict)
}

fn list(snapshot: &Snapshot, facts: &Facts, kind: ListKind) -> String {
    let mut names = String::new();
    snapshot.write_list(&policy::decide(snapshot, facts).tags, kind, &mut names);
    names
}

fn complaints(document: &str) -> Vec<policy::Complaint> {
    policy::compile(document, 1, &NoFiles).expect_err("the document is faulty")
}

#[test]
fn with_nothing_said_every_client_is_denied() {
    for (name, snapshot) in [("builtin", Snapshot::builtin()), ("empty", snapshot(""))] {
        for client in ["127.0.0.1", "10.0.0.1", "::1", "2001:db8::1"] {
            let facts = Facts { client: client.parse().unwrap(), ..facts() };
            assert_eq!(verdict(&snapshot, &facts), "DENY Access Restriction: default policy", "{name} {client}");
            assert_eq!(snapshot.rights(facts.client), Rights::NONE);
        }
    }
    let builtin = Snapshot::builtin();
    assert_eq!(builtin.version(), 0);
    assert!(builtin.name().starts_with("0-") && builtin.name().len() == 14, "{}", builtin.name());
    let admitted = snapshot("[access_restriction]\ndefault = \"allow\"\n");
    assert_eq!(verdict(&admitted, &facts()), "DENY Access Profiles: default policy", "admitted is not yet allowed");
}

#[test]
fn the_deny_list_comes_before_the_allow_list_and_the_first_entry_decides() {
    let snapshot = snapshot(
        r#"
access_profiles_default = "allow"
[access_restriction]
default = "deny"
[[access_restriction.deny]]
comment = "Lost"
addresses = ["10.1.0.9", "10.9.0.0-10.9.0.7"]
[[access_restriction.deny]]
comment = "Switched off"
enabled = false
addresses = ["any"]
[[access_restriction.allow]]
comment = "Guests"
addresses = ["10.1.1.0/24"]
rights = ["PROXY"]
user_groups = ["GUESTS"]
[[access_restriction.allow]]
comment = "Office"
addresses = ["10.0.0.0/8", "2001:db8::/32"]
user_groups = ["STAFF", "PRINTERS"]
[[access_restriction.allow]]
addresses = ["192.0.2.1"]
rights = ["CLUSTER"]
"#,
    );
    for (client, plain, tunnelled, groups) in [
        ("10.1.0.9", "DENY Access Restriction: Deny list: Lost", "DENY Access Restriction: Deny list: Lost", ""),
        ("10.9.0.7", "DENY Access Restriction: Deny list: Lost", "DENY Access Restriction: Deny list: Lost", ""),
        (
            "10.9.0.8",
            "ALLOW Access Profiles: default policy",
            "ALLOW Access Profiles: default policy",
            "STAFF,PRINTERS",
        ),
        ("10.1.1.4", "ALLOW Access Profiles: default policy", "DENY Access Restriction: Allow list: Guests", "GUESTS"),
        (
            "::ffff:10.1.1.4",
            "ALLOW Access Profiles: default policy",
            "DENY Access Restriction: Allow list: Guests",
            "GUESTS",
        ),
        (
            "2001:db8::5",
            "ALLOW Access Profiles: default policy",
            "ALLOW Access Profiles: default policy",
            "STAFF,PRINTERS",
        ),
        (
            "192.0.2.1",
            "DENY Access Restriction: Allow list: entry 3",
            "DENY Access Restriction: Allow list: entry 3",
            "",
        ),
        ("192.0.2.2", "DENY Access Restriction: default policy", "DENY Access Restriction: default policy", ""),
        ("::1", "DENY Access Restriction: default policy", "DENY Access Restriction: default policy", ""),
    ] {
        let client: IpAddr = client.parse().unwrap();
        let (get, connect) = (Facts { client, ..facts() }, Facts { client, ..tunnel("www.example.com", 443) });
        assert_eq!(verdict(&snapshot, &get), plain, "{client}");
        assert_eq!(verdict(&snapshot, &connect), tunnelled, "{client}");
        assert_eq!(list(&snapshot, &get, ListKind::UserGroups), groups, "{client}");
    }
    let rights = |client: &str| snapshot.rights(client.parse().unwrap());
    assert_eq!(rights("192.0.2.1"), Rights::CLUSTER);
    assert!(!rights("10.9.0.8").contains(Rights::CLUSTER), "no entry grants CLUSTER by default");
    assert_eq!(rights("10.1.0.9"), Rights::NONE);
}

#[test]
fn authentication_denies_who_has_no_user_unless_the_entry_exempts_them() {
    let snapshot = snapshot(
        r#"
access_profiles_default = "allow"
[access_restriction]
authentication = true
[[access_restriction.allow]]
comment = "Printers"
addresses = ["10.1.2.3"]
authentication = false
[[access_restriction.allow]]
comment = "All"
addresses = ["any"]
"#,
    );
    assert!(snapshot.authentication_on());
    assert_eq!(verdict(&snapshot, &facts()), "ALLOW Access Profiles: default policy");
    let other = Facts { client: "10.1.2.4".parse().unwrap(), ..facts() };
    assert_eq!(verdict(&snapshot, &other), "DENY Access Restriction: Allow list: All");
    assert_eq!(verdict(&snapshot, &Facts { user: Some("anna"), ..other }), "ALLOW Access Profiles: default policy");
}

#[test]
fn time_profiles_follow_the_clocks_of_their_zone_through_both_changes_and_past_midnight() {
    let snapshot = snapshot(&format!(
        r#"{OPEN}
[[time_profiles]]
name = "Work"
days = ["mon..fri"]
from = "08:00"
to = "18:00"
timezone = "Europe/Berlin"
[[time_profiles]]
name = "Small hours"
from = "02:00"
to = "03:00"
timezone = "Europe/Berlin"
[[time_profiles]]
name = "Friday night"
days = ["friday"]
from = "22:00"
to = "06:00"
timezone = "America/New_York"
[[time_profiles]]
name = "Holidays"
dates = ["2026-12-24..2027-01-01", "2026-05-01"]
timezone = "UTC"
[[time_profiles]]
name = "Weekend"
days = ["sat..mon"]
timezone = "UTC"
"#
    ));
    for (time, profiles) in [
        // Monday 2 March 2026, winter time (UTC+1); Monday is in sat..mon.
        ("2026-03-02T06:59:59Z", "Weekend"),
        ("2026-03-02T07:00:00Z", "Work,Weekend"),
        ("2026-03-02T16:59:59Z", "Work,Weekend"),
        ("2026-03-02T17:00:00Z", "Weekend"),
        // Tuesday 30 June, summer time (UTC+2).
        ("2026-06-30T06:00:00Z", "Work"),
        ("2026-06-30T16:00:00Z", ""),
        // Sunday 29 March 2026: at 01:00 UTC clocks go from 02:00 to 03:00; that day has no small hours.
        ("2026-03-29T00:59:59Z", "Weekend"),
        ("2026-03-29T01:00:00Z", "Weekend"),
        // Sunday 25 October 2026: the hour from 02:00 comes twice.
        ("2026-10-25T00:30:00Z", "Small hours,Weekend"),
        ("2026-10-25T01:30:00Z", "Small hours,Weekend"),
        ("2026-10-25T02:00:00Z", "Weekend"),
        // Friday 22:00 in New York (UTC-5) is Saturday 03:00 UTC; its end is Saturday 06:00 there.
        ("2026-01-10T02:59:59Z", "Weekend"),
        ("2026-01-10T03:00:00Z", "Friday night,Weekend"),
        ("2026-01-10T10:59:59Z", "Friday night,Weekend"),
        ("2026-01-10T11:00:00Z", "Weekend"),
        // Thursday night is not Friday night.
        ("2026-01-09T10:00:00Z", "Work"),
        ("2026-12-24T00:00:00Z", "Holidays"),
        ("2027-01-01T23:59:59Z", "Holidays"),
        ("2026-05-01T20:00:00Z", "Holidays"),
    ] {
        let facts = Facts { now: at(time), ..facts() };
        assert_eq!(list(&snapshot, &facts, ListKind::TimeProfiles), profiles, "{time}");
        verdict(&snapshot, &facts);
    }
}

#[test]
fn request_types_hold_if_every_field_given_holds() {
    let snapshot = snapshot(&format!(
        r#"{OPEN}
[[request_types]]
name = "Uploads"
methods = ["POST", "PUT"]
schemes = ["http"]
[[request_types]]
name = "Https"
schemes = ["https"]
[[request_types]]
name = "Tunnels"
schemes = ["tunnel"]
[[request_types]]
name = "High ports"
ports = ["8000-8999", 9443]
[[request_types]]
name = "Hosts"
hosts = ["exact.example.net"]
host_suffixes = ["example.org"]
host_regex = ['^ads\d+\.']
[[request_types]]
name = "Api"
hosts = ["www.example.com"]
path_prefixes = ["/api/"]
path_regex = ['\.json(\?|$)']
[[request_types]]
name = "Tablets"
headers = [{{ name = "User-Agent", contains = "tablet" }}, {{ name = "X-Site", equals = ["a", "b"] }}]
[[request_types]]
name = "Cookied"
headers = [{{ name = "Cookie" }}]
"#
    ));
    let tablet: &[(&str, &str)] = &[("user-agent", "Big TABLET 3"), ("x-site", "B"), ("cookie", "")];
    let phone: &[(&str, &str)] = &[("user-agent", "Phone"), ("x-site", "b")];
    let base = facts();
    for (name, facts, types) in [
        ("plain", base, ""),
        ("post", Facts { method: "POST", ..base }, "Uploads"),
        ("post lower", Facts { method: "post", ..base }, ""),
        ("https post", Facts { method: "POST", scheme: Scheme::Https, port: 443, ..base }, "Https"),
        ("tunnel 443", tunnel("x.example.com", 443), "Https,Tunnels"),
        ("tunnel 8443", tunnel("x.example.com", 8443), "Tunnels,High ports"),
        ("port", Facts { port: 9443, ..base }, "High ports"),
        ("port off", Facts { port: 9000, ..base }, ""),
        ("exact", Facts { host: "exact.example.net", ..base }, "Hosts"),
        ("under exact", Facts { host: "a.exact.example.net", ..base }, ""),
        ("suffix itself", Facts { host: "example.org", ..base }, "Hosts"),
        ("under suffix", Facts { host: "a.example.org", ..base }, "Hosts"),
        ("like suffix", Facts { host: "anexample.org", ..base }, ""),
        ("regex", Facts { host: "ads7.x", ..base }, "Hosts"),
        ("prefix", Facts { path: "/api/x", ..base }, "Api"),
        ("path regex", Facts { path: "/x.json?y", ..base }, "Api"),
        ("path of another host", Facts { path: "/api/x", host: "z.example.com", ..base }, ""),
        ("headers", Facts { headers: &tablet, ..base }, "Tablets,Cookied"),
        ("one header of two", Facts { headers: &phone, ..base }, ""),
    ] {
        assert_eq!(list(&snapshot, &facts, ListKind::RequestTypes), types, "{name}");
    }
}

#[test]
fn access_profiles_walk_top_down_and_profiles_build_on_each_other() {
    let snapshot = snapshot(
        r#"
[access_restriction]
[[access_restriction.allow]]
addresses = ["10.1.0.0/16"]
user_groups = ["STAFF"]
[[access_restriction.allow]]
addresses = ["10.2.0.0/16"]
user_groups = ["GUESTS"]
[[categories]]
name = "News"
hosts = ["news.example.com"]
[[categories]]
name = "Tabloids"
hosts = ["bad.news.example.com", "=only.example.net"]
[[access_profiles]]
name = "Off"
enabled = false
action = "DENY"
[[access_profiles]]
name = "Mark news"
categories = ["News"]
action = "DO_NOT_BYPASS"
add_profiles = ["READING", "WATCHED"]
[[access_profiles]]
name = "Nobody watches staff"
user_groups = ["STAFF"]
remove_profiles = ["WATCHED"]
[[access_profiles]]
name = "Other node"
nodes = ["slave-2"]
action = "DENY"
[[access_profiles]]
name = "News but no tabloids"
profiles = ["READING"]
categories = ["News", "!Tabloids"]
action = "ALLOW"
[[access_profiles]]
name = "Tabloids"
categories = ["Tabloids"]
action = "DENY"
reason = "no tabloids"
[[access_profiles]]
name = "Unknown hosts of guests"
categories = ["Unknown"]
user_groups = ["!STAFF"]
action = "DENY"
[[access_profiles]]
name = "Rest"
nodes = ["!slave-9"]
action = "ALLOW"
"#,
    );
    let base = facts();
    let guest = Facts { client: "10.2.0.1".parse().unwrap(), ..base };
    for (name, facts, expected, profiles) in [
        ("news", Facts { host: "news.example.com", ..base }, "ALLOW Access Profiles: News but no tabloids", "READING"),
        (
            "guest",
            Facts { host: "news.example.com", ..guest },
            "ALLOW Access Profiles: News but no tabloids",
            "READING,WATCHED",
        ),
        ("tabloid", Facts { host: "bad.news.example.com", ..base }, "DENY Access Profiles: Tabloids", "READING"),
        ("exact", Facts { host: "only.example.net", ..base }, "DENY Access Profiles: Tabloids", ""),
        ("under exact", Facts { host: "x.only.example.net", ..base }, "ALLOW Access Profiles: Rest", ""),
        ("guest unknown", guest, "DENY Access Profiles: Unknown hosts of guests", ""),
        ("node 2", Facts { node: "slave-2", ..base }, "DENY Access Profiles: Other node", ""),
        ("node 9", Facts { node: "SLAVE-9", ..base }, "DENY Access Profiles: default policy", ""),
    ] {
        assert_eq!(verdict(&snapshot, &facts), expected, "{name}");
        assert_eq!(list(&snapshot, &facts, ListKind::Profiles), profiles, "{name}");
    }
    let news = policy::decide(&snapshot, &Facts { host: "bad.news.example.com", ..base });
    assert!(news.do_not_bypass && !policy::decide(&snapshot, &base).do_not_bypass);
    let Verdict::Deny(denial) = news.verdict else { panic!("tabloids are denied") };
    assert_eq!((denial.section(&snapshot), denial.reason(&snapshot)), ("Access Profiles", "no tabloids"));
    assert_eq!(list(&snapshot, &Facts { host: "bad.news.example.com", ..base }, ListKind::Categories), "News,Tabloids");
    assert_eq!(list(&snapshot, &base, ListKind::Categories), "Unknown");
}

#[test]
fn tunnels_go_to_443_unless_the_policy_names_other_ports() {
    let closed = snapshot(OPEN);
    assert_eq!(verdict(&closed, &tunnel("x.example.com", 443)), "ALLOW Access Profiles: default policy");
    assert_eq!(verdict(&closed, &tunnel("x.example.com", 22)), "DENY Network: connect_ports");
    let open = snapshot(&format!("{OPEN}[network]\nconnect_ports = [\"any\"]\n"));
    assert_eq!(verdict(&open, &tunnel("x.example.com", 22)), "ALLOW Access Profiles: default policy");
}

#[test]
fn destinations_and_upgrades_are_allowed_only_as_named() {
    let snapshot = snapshot(&format!(
        "{OPEN}[network]\nallow_upgrade = [\"WebSocket\"]\nallow_destinations = [\"127.0.0.1/32:8000\", \"10.0.0.0/8\", \"[::1]:80-90\", \"[fd00::/8]\", \"fe80::1\"]\n"
    ));
    for (address, port, allowed) in [
        ("127.0.0.1", 8000, true),
        ("127.0.0.1", 8001, false),
        ("127.0.0.2", 8000, false),
        ("10.255.0.1", 1, true),
        ("::1", 85, true),
        ("::1", 91, false),
        ("::ffff:127.0.0.1", 8000, true),
        ("fd12::1", 9, true),
        ("fe80::1", 9, true),
        ("fe80::2", 9, false),
    ] {
        assert_eq!(snapshot.destination_allowed(address.parse().unwrap(), port), allowed, "{address} {port}");
    }
    for (upgrade, allowed) in
        [("websocket", true), ("WEBSOCKET", true), ("h2c", false), ("websocket, h2c", false), ("", false)]
    {
        let fields: &[(&str, &str)] = &[("Upgrade", upgrade)];
        let Verdict::Permit(permit) = policy::decide(&snapshot, &Facts { headers: &fields, ..facts() }).verdict else {
            panic!("everything is allowed here")
        };
        assert_eq!(permit.upgrade_allowed(), allowed, "{upgrade}");
    }
    let Verdict::Permit(permit) = policy::decide(&snapshot, &facts()).verdict else { panic!("allowed") };
    assert!(!permit.upgrade_allowed(), "a request that asks for nothing gets nothing");
}

#[test]
fn the_first_route_that_holds_decides_and_the_walk_tells_it() {
    let document = r#"
access_profiles_default = "allow"
[access_restriction]
default = "allow"
[[access_profiles]]
name = "Guests"
user_groups = ["!NOBODY"]
request_types = ["Guest"]
add_profiles = ["GUEST"]
[[access_restriction.allow]]
addresses = ["any"]
user_groups = ["NOBODY"]
[[request_types]]
name = "Guest"
methods = ["GET"]
[[parents]]
name = "HQ"
choose = "hash"
direct_if_down = true
proxies = [
  { type = "http", address = "proxy.example:3128", credentials = "hq" },
  { type = "socks5", address = "[2001:db8::1]:1080", resolve = "node" },
]
[[routes]]
comment = "off"
enabled = false
via = "direct"
[[routes]]
host_suffixes = ["corp.test"]
via = "direct"
source = ["192.0.2.5", "2001:db8::5"]
[[routes]]
profiles = ["!GUEST"]
via = "HQ"
"#;
    let snapshot = snapshot(document);
    let groups = snapshot.parent_groups();
    assert_eq!((groups.len(), groups[0].by_hash, groups[0].direct_if_down), (1, true, true));
    let proxies: Vec<_> =
        groups[0].proxies.iter().map(|p| (p.socks, p.host.as_str(), p.port, p.resolve_here)).collect();
    assert_eq!(proxies, [(false, "proxy.example", 3128, false), (true, "2001:db8::1", 1080, true)]);
    assert_eq!(groups[0].proxies[0].credentials, "hq");
    let source: Vec<String> = snapshot.routes()[1].source.iter().map(|address| address.to_string()).collect();
    assert_eq!((source.join(" "), snapshot.routes()[1].group), ("192.0.2.5 2001:db8::5".to_string(), None));
    assert_eq!(snapshot.routes()[2].group, Some(0));
    for (host, route) in [("www.corp.test", Some(1)), ("corp.test", Some(1)), ("evilcorp.test", Some(2))] {
        let Verdict::Permit(permit) = policy::decide(&snapshot, &Facts { host, ..facts() }).verdict else {
            panic!("{host}")
        };
        assert_eq!(permit.route(), route, "{host}");
    }
    let (_, lines) = policy::explain(&snapshot, &Facts { host: "www.corp.test", ..facts() });
    let told = "Routes: routes[2] via direct, leaving from 192.0.2.5 or 2001:db8::5";
    assert!(lines.iter().any(|line| line == told), "{lines:#?}");
}

#[test]
fn faults_of_parents_and_routes_are_told() {
    let hq = "[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"http\", address = \"p.test:1\" }]\n";
    let table = [
        ("[[parents]]\nname = \"HQ\"\n", "0 proxies"),
        ("[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"http\" }]\n", "no address"),
        ("[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"ftp\", address = \"p.test:1\" }]\n", "`ftp`"),
        ("[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"http\", address = \"p.test\" }]\n", "`p.test`"),
        ("[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"http\", address = \"p.test:0\" }]\n", "`p.test:0`"),
        ("[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"http\", address = \"::1:3128\" }]\n", "`::1:3128`"),
        (
            "[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"http\", address = \"p.test:1\", credentials = \"../x\" }]\n",
            "`../x`",
        ),
        (
            "[[parents]]\nname = \"HQ\"\nproxies = [{ type = \"http\", address = \"p.test:1\", resolve = \"node\" }]\n",
            "only socks5",
        ),
        ("[[parents]]\nname = \"direct\"\nproxies = [{ type = \"http\", address = \"p.test:1\" }]\n", "is taken"),
        (&format!("{hq}{hq}"), "is taken"),
        ("[[routes]]\ncomment = \"x\"\n", "leads nowhere"),
        (&format!("{hq}[[routes]]\nvia = \"HR\"\n"), "`HR`"),
        ("[[routes]]\nvia = \"direct\"\nprofiles = [\"NONE\"]\n", "unknown profile"),
        ("[[routes]]\nvia = \"direct\"\nsource = [\"eth0\"]\n", "`eth0`"),
        ("[[routes]]\nvia = \"direct\"\nsource = [\"10.0.0.1\", \"10.0.0.2\"]\n", "second address"),
        ("[[routes]]\nvia = \"direct\"\npassword = \"x\"\n", "unknown key `password`"),
        ("[network]\nrefuse_private = \"yes\"\n", "true or false"),
    ];
    for (document, what) in table {
        let told = complaints(document);
        assert!(
            told.iter().any(|c| c.what.contains(what) && c.line > 0 && !c.remedy.is_empty()),
            "{document}: {told:?}"
        );
    }
}

#[test]
fn a_document_with_five_faults_earns_five_complaints_each_with_its_line_and_remedy() {
    let document = r#"
[access_restriction]
defualt = "deny"
[[access_restriction.allow]]
addresses = ["10.0.0.0/33"]
[[request_types]]
name = "Programs"
path_regex = ['(exe']
[[access_profiles]]
name = "Block"
categories = ["Socail"]
action = "DENNY"
[[categories]]
name = "Social"
hosts = ["social.example"]
"#;
    let found: Vec<_> = complaints(document).into_iter().map(|c| (c.line, c.place, c.what, c.remedy)).collect();
    let expected = [
        (3, "access_restriction.defualt", "unknown key `defualt`", "did you mean `default`?"),
        (5, "access_restriction.allow[1].addresses[1]", "bad address `10.0.0.0/33`", "write 10.0.0.0/8"),
        (8, "request_types[1].path_regex[1]", "bad regular expression `(exe`", "correct the pattern"),
        (11, "access_profiles[1].categories[1]", "unknown category `Socail`", "did you mean `Social`?"),
        (12, "access_profiles[1].action", "`DENNY` is not accepted", "did you mean `DENY`?"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, place, what, remedy), (at, at_place, says, cure)) in found.iter().zip(expected) {
        assert_eq!((*line, place.as_str()), (at, at_place));
        assert!(what.starts_with(says) && remedy.starts_with(cure), "{what} / {remedy}");
    }
}

#[test]
fn every_kind_of_fault_is_told_with_its_line() {
    let long_name = format!("[[categories]]\nname = \"{}\"\nhosts = [\"x\"]", "x".repeat(65));
    for (document, line, what) in [
        ("[policy]\nname = ", 2, "not TOML"),
        ("[[[", 1, "not TOML"),
        ("[policy]\nname = \"a\"\nname = \"b\"", 3, "not TOML"),
        ("policy = 3", 1, "a number where a section"),
        ("[policy]\nname = 3.5", 2, "a number with a fraction where text"),
        ("[access_restriction]\nauthentication = \"yes\"", 2, "text where true or false"),
        ("[access_restriction]\nallow = 3", 2, "a number where a list of entries"),
        ("[access_restriction]\nallow = [3]", 2, "a number where an entry"),
        ("[[access_restriction.allow]]\ncomment = \"x\"", 1, "the entry names no addresses"),
        ("[[access_restriction.allow]]\naddresses = []", 2, "the list is empty"),
        ("[[access_restriction.allow]]\naddresses = [\"any\"]\nrights = [\"PROXI\"]", 3, "`PROXI` is not accepted"),
        ("[[access_restriction.allow]]\naddresses = [\"any\"]\nrights = [\"BYPASS\"]", 3, "there is no right `BYPASS`"),
        ("[[access_restriction.allow]]\naddresses = [\"any\"]\nrights = [\"config\"]", 3, "there is no right `CONFIG`"),
        ("[[access_restriction.deny]]\naddresses = [\"any\"]\nrights = [\"PROXY\"]", 3, "unknown key `rights`"),
        ("[[access_restriction.deny]]\naddresses = [\"10.0.0.1/8\"]", 2, "bad address"),
        ("[[time_profiles]]\nname = \"x\"\nfrom = \"8:00\"", 3, "bad time `8:00`"),
        ("[[time_profiles]]\nname = \"x\"\nfrom = 08:00", 3, "a date or time without quotes"),
        ("[[time_profiles]]\nname = \"x\"\nto = \"24:01\"", 3, "bad time"),
        ("[[time_profiles]]\nname = \"x\"\nfrom = \"08:00\"\nto = \"08:00\"", 3, "the stretch is empty"),
        ("[[time_profiles]]\nname = \"x\"\ntimezone = \"Europe/Berln\"", 3, "unknown time zone"),
        ("[[time_profiles]]\nname = \"x\"\ntimezone = \"../../etc/passwd\"", 3, "unknown time zone"),
        ("[[time_profiles]]\nname = \"x\"\ndays = [\"mo\"]", 3, "`mo` is not accepted"),
        ("[[time_profiles]]\nname = \"x\"\ndates = [\"2026-13-01\"]", 3, "bad date"),
        ("[[time_profiles]]\nname = \"x\"\ndates = [2026-12-01]", 3, "a date or time without quotes"),
        ("[[request_types]]\nname = \"x\"", 1, "the request type asks nothing"),
        ("[[request_types]]\nname = \"x\"\nmethods = [\"get\"]", 3, "bad method"),
        ("[[request_types]]\nname = \"x\"\nports = [0]", 3, "bad port"),
        ("[[request_types]]\nname = \"x\"\nhosts = [\"http://x/\"]", 3, "bad host"),
        ("[[request_types]]\nname = \"x\"\npath_prefixes = [\"x\"]", 3, "the path `x`"),
        ("[[request_types]]\nname = \"x\"\nheaders = [{ equals = \"x\" }]", 3, "the header test names no field"),
        ("[[request_types]]\nmethods = [\"GET\"]", 1, "the entry has no name"),
        (
            "[[request_types]]\nname = \"x\"\nmethods = [\"GET\"]\n[[request_types]]\nname = \"x\"\nmethods = [\"GET\"]",
            5,
            "the request type `x` is defined twice",
        ),
        ("[[categories]]\nname = \"x\"", 1, "the category names no hosts"),
        ("[[categories]]\nname = \"Unknown\"\nhosts = [\"x\"]", 2, "the category `Unknown` is defined twice"),
        ("[[categories]]\nname = \"a,b\"\nhosts = [\"x\"]", 2, "`a,b` cannot be a name"),
        (&long_name, 2, "the text has 65 bytes"),
        ("[[categories]]\nname = \"x\"\nhosts = [\"b\u{fc}cher.example\"]", 3, "bad host"),
        ("[[categories]]\nname = \"x\"\nfiles = [\"a.txt\"]", 3, "the list `a.txt`"),
        ("[[access_profiles]]\nname = \"x\"\nprofiles = [\"A\"]", 3, "unknown profile `A`"),
        ("[[access_profiles]]\nname = \"x\"\nremove_profiles = [\"A\"]", 3, "unknown profile `A`"),
        ("[[access_profiles]]\nname = \"x\"\nuser_groups = [\"!A\"]", 3, "unknown user group `A`"),
        ("[[access_profiles]]\nname = \"x\"\ntime_profiles = [\"A\"]", 3, "unknown time profile `A`"),
        ("[[access_profiles]]\nname = \"x\"\nrequest_types = [\"A\"]", 3, "unknown request type `A`"),
        ("[[access_profiles]]\nname = \"x\"\ntemplate = \"A\"", 3, "unknown template `A`"),
        ("[[access_profiles]]\nname = \"x\"\n[[access_profiles]]\nname = \"x\"", 4, "the rule `x` is defined twice"),
        ("access_profiles_default = \"maybe\"", 1, "`maybe` is not accepted"),
        ("[[templates]]\nname = \"x\"\nstatus = 200", 3, "the status 200"),
        ("[[templates]]\nname = \"x\"\nstatus = \"403\"", 3, "text where a whole number"),
        ("[[templates]]\nname = \"x\"\nbody = \"{{urll}}\"", 3, "unknown placeholder {{urll}}"),
        ("[network]\nallow_destinations = [\"localhost:80\"]", 2, "bad destination"),
        ("[network]\nallow_upgrade = [\"web socket\"]", 2, "bad protocol"),
        ("[network]\nconnect_ports = [\"70000\"]", 2, "bad port"),
        ("[sections]\nx = 1", 1, "unknown key `sections`"),
    ] {
        let found = complaints(document);
        let told = found.iter().any(|c| c.line == line && c.what.starts_with(what) && !c.remedy.is_empty());
        assert!(told, "{document}\n{found:#?}");
        assert!(found.len() <= 2, "one fault, not many complaints: {document}\n{found:#?}");
    }
    let many = "[[categories]]\n".repeat(500);
    assert_eq!(complaints(&many).len(), 101, "the list of complaints is bounded");
    assert!(complaints(&"#".repeat(5 * 1024 * 1024))[0].what.contains("4194304 are accepted"));
    let names: String = (0..300).map(|n| format!("[[categories]]\nname = \"c{n}\"\nhosts = [\"x\"]\n")).collect();
    assert!(complaints(&names).iter().all(|c| c.what.starts_with("more than 256 names")));
}

#[test]
fn category_files_are_read_with_comments_hosts_file_lines_and_complaints_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let document = format!("{OPEN}[[categories]]\nname = \"Ads\"\nfiles = [\"ads.txt\"]\n");
    let lines = "# ads\r\nads.example.com # the worst\n\n=one.example.com\n*.wild.example\n127.0.0.1 localhost tracker.example pixel.example\n0.0.0.0 0.0.0.0\n192.0.2.7\nUPPER.Example.\n";
    std::fs::write(dir.path().join("ads.txt"), lines).unwrap();
    let files = Folder::new(dir.path());
    let snapshot = Snapshot::open(&policy::compile(&document, 1, &files).unwrap()).unwrap();
    for (host, category) in [
        ("x.ads.example.com", "Ads"),
        ("one.example.com", "Ads"),
        ("x.one.example.com", "Unknown"),
        ("wild.example", "Ads"),
        ("pixel.example", "Ads"),
        ("localhost", "Unknown"),
        ("192.0.2.7", "Ads"),
        ("upper.example", "Ads"),
        ("example.com", "Unknown"),
    ] {
        assert_eq!(list(&snapshot, &Facts { host, ..facts() }, ListKind::Categories), category, "{host}");
    }
    std::fs::write(dir.path().join("ads.txt"), "good.example\nbad host/\n".to_string() + &"http://x\n".repeat(10))
        .unwrap();
    let found = policy::compile(&document, 1, &files).unwrap_err();
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(found[0].what.starts_with("ads.txt line 2: bad host `host/`") && found[0].line == 6, "{found:#?}");
    assert!(found[5].what.contains("6 more bad lines"), "{found:#?}");
}

#[test]
fn block_pages_say_what_why_which_rule_and_whom_to_ask() {
    let snapshot = snapshot(
        r#"
[policy]
block_contact = "helpdesk@example.com"
[access_restriction]
default = "allow"
[[access_profiles]]
name = "None"
action = "DENY"
template = "own"
[[templates]]
name = "own"
status = 451
title = "Closed"
body = "<p>{{host}}</p>"
"#,
    );
    let decision = policy::decide(&snapshot, &facts());
    let Verdict::Deny(denial) = decision.verdict else { panic!("denied") };
    let block = BlockFacts {
        url: "http://www.example.com/<x>",
        host: "www.example.com",
        reason: denial.reason(&snapshot),
        rule: denial.rule(&snapshot),
        reference: "R-17",
        ..BlockFacts::default()
    };
    let own = snapshot.block_page(denial.template, &block);
    assert_eq!(own.status, 451);
    assert!(own.body.contains("<h1>Closed</h1>") && own.body.contains("<p>www.example.com</p>"));
    let builtin = Snapshot::builtin();
    let Verdict::Deny(denial) = policy::decide(&builtin, &facts()).verdict else { panic!("denied") };
    let block = BlockFacts { reason: denial.reason(&builtin), rule: denial.rule(&builtin), ..block };
    let page = builtin.block_page(denial.template, &block);
    assert_eq!(page.status, 403);
    for part in ["/&lt;x&gt;", "not on the allow list", "Access Restriction: default policy", "R-17", builtin.name()] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
}

#[test]
fn the_narration_names_every_rule_looked_at_and_why_it_did_not_hold() {
    let file = policy::compile(&example("school.toml"), 3, &examples()).unwrap();
    let snapshot = Snapshot::open(&file).unwrap();
    let pupil = Facts { client: "10.20.1.1".parse().unwrap(), host: "x.games.example.com", ..facts() };
    let monday = Facts { now: at("2026-06-15T08:00:00Z"), ..pupil };
    let (_, lines) = policy::explain(&snapshot, &monday);
    let text = lines.join("\n");
    for part in [
        "Request Types: \"Uploads\" not matched: the method is GET",
        "Categories: x.games.example.com is Games",
        "Access Restriction: Allow list: Pupils (access_restriction.allow[2]) admits 10.20.1.1",
        "Access Profiles: access_profiles[1] \"Mark exams\" matched: INHERIT, the walk goes on; adds EXAM",
        "access_profiles[2] \"Teachers are not examined\" not matched: by user_groups; the client is in: PUPILS",
        "Verdict: DENY by Access Profiles: Nothing else in exams: only encyclopedias are open during exams",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn the_walk_printed_in_the_guide_is_the_one_that_explain_tells() {
    let file = policy::compile(&example("school.toml"), 1, &examples()).unwrap();
    let snapshot = Snapshot::open(&file).unwrap();
    let pupil = Facts { client: "10.20.1.1".parse().unwrap(), now: at("2026-06-15T10:00:00Z"), ..facts() };
    let (_, lines) = policy::explain(&snapshot, &pupil);
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md")).unwrap();
    let block = guide.split("```\nTime Profiles:").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    // The first line tells local time, which is the zone's of whoever runs this test.
    for line in block.lines().skip(1) {
        assert!(lines.iter().any(|told| told == line), "{line}\nis not among\n{}", lines.join("\n"));
    }
}

fn examples() -> Folder {
    Folder::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples"))
}

fn example(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name)).unwrap()
}

#[test]
fn every_example_of_the_documentation_compiles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let document = std::fs::read_to_string(&path).unwrap();
            let file = policy::compile(&document, 1, &Folder::of_document(&path));
            let file = file.unwrap_or_else(|complaints| panic!("{}: {complaints:#?}", path.display()));
            assert_eq!(Snapshot::open(&file).unwrap().document(), document);
            seen += 1;
        }
    }
    assert!(seen >= 2);
}

#[test]
fn the_first_policy_does_what_the_readme_says() {
    let file = policy::compile(&example("first-policy.toml"), 1, &NoFiles).unwrap();
    let snapshot = Snapshot::open(&file).unwrap();
    let lunch = at("2026-03-02T11:30:00Z");
    for (host, now, expected) in [
        ("www.example.org", facts().now, "ALLOW Access Profiles: Staff may browse"),
        ("www.facebook.com", facts().now, "DENY Access Profiles: Social networks wait for lunch"),
        ("www.facebook.com", lunch, "ALLOW Access Profiles: Staff may browse"),
        ("ad.doubleclick.net", lunch, "DENY Access Profiles: No advertising"),
    ] {
        assert_eq!(verdict(&snapshot, &Facts { host, now, ..facts() }), expected, "{host}");
    }
}

#[test]
fn compiling_is_deterministic_and_the_version_is_part_of_the_name() {
    let document = example("school.toml");
    let one = policy::compile(&document, 1, &examples()).unwrap();
    assert_eq!(one, policy::compile(&document, 1, &examples()).unwrap());
    let (one, two) =
        (Snapshot::open(&one).unwrap(), Snapshot::open(&policy::compile(&document, 2, &examples()).unwrap()).unwrap());
    assert_ne!(one.hash(), two.hash());
    assert!(two.name().starts_with("2-") && Snapshot::open(&two.bytes()).unwrap().name() == two.name());
}

#[test]
fn diffs_are_unified_and_empty_when_nothing_changed() {
    assert_eq!(policy::diff(("old", "a\nb\n"), ("new", "a\nb\n")), "");
    let text = policy::diff(("old", "a\nb\n"), ("new", "a\nc\n"));
    assert!(text.contains("-b\n") && text.contains("+c\n") && text.contains("--- old"), "{text}");
}

/// A million hosts compile, open and are found. Times are printed, for release builds:
/// `cargo test --release --test policy -- --nocapture million`
#[test]
fn a_million_hosts_compile_open_and_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = (0..1_000_000).map(|n| format!("host{n}.site{}.example\n", n % 5000)).collect();
    std::fs::write(dir.path().join("big.txt"), lines).unwrap();
    let document = format!("{OPEN}[[categories]]\nname = \"Big\"\nfiles = [\"big.txt\"]\n");
    let started = tidegate::base::clock::Mono::now();
    let file = policy::compile(&document, 1, &Folder::new(dir.path())).unwrap();
    let compiled = tidegate::base::clock::Mono::now();
    let snapshot = Arc::new(Snapshot::open(&file).unwrap());
    let opened = tidegate::base::clock::Mono::now();
    assert_eq!(snapshot.category_hosts(), 1_000_000);
    let hosts: Vec<String> =
        (0..1_000_000_usize).step_by(37).map(|n| format!("www.host{n}.site{}.example", n % 5000)).collect();
    let mut nanos = u64::MAX;
    for batch in hosts.chunks(2_000) {
        let deciding = tidegate::base::clock::Mono::now();
        for host in batch {
            let decision = policy::decide(&snapshot, &Facts { host, ..facts() });
            assert!(matches!(decision.verdict, Verdict::Permit(_)));
        }
        let took = tidegate::base::clock::Mono::now().micros_since(deciding);
        nanos = nanos.min(took * 1000 / batch.len() as u64);
    }
    for host in hosts.iter().step_by(11) {
        assert_eq!(list(&snapshot, &Facts { host, ..facts() }, ListKind::Categories), "Big");
    }
    assert_eq!(list(&snapshot, &Facts { host: "site1.example", ..facts() }, ListKind::Categories), "Unknown");
    println!(
        "1,000,000 hosts: compile {} ms, open {} ms, file {} MiB, decide {nanos} ns",
        compiled.micros_since(started) / 1000,
        opened.micros_since(compiled) / 1000,
        file.len() >> 20
    );
}

/// The cost of a decision under a small policy, printed: `cargo test --release --test policy -- --nocapture small`
#[test]
fn a_small_policy_decides_quickly() {
    let snapshot = Snapshot::open(&policy::compile(&example("school.toml"), 1, &examples()).unwrap()).unwrap();
    let first = Snapshot::open(&policy::compile(&example("first-policy.toml"), 1, &NoFiles).unwrap()).unwrap();
    let fields: &[(&str, &str)] =
        &[("Host", "www.example.com"), ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/131.0")];
    let pupil = Facts {
        client: "10.20.1.1".parse().unwrap(),
        headers: &fields,
        path: "/assets/pictures/one.jpg?size=large",
        ..facts()
    };
    for (name, snapshot) in [("school.toml", &snapshot), ("first-policy.toml", &first)] {
        // The best of many short batches: the machine may be busy with other tests.
        let (rounds, mut nanos, mut permits) = (2_000, u64::MAX, 0);
        for _ in 0..50 {
            let started = tidegate::base::clock::Mono::now();
            for _ in 0..rounds {
                let decision = policy::decide(snapshot, std::hint::black_box(&pupil));
                permits += usize::from(matches!(decision.verdict, Verdict::Permit(_)));
            }
            nanos = nanos.min(tidegate::base::clock::Mono::now().micros_since(started) * 1000 / rounds);
        }
        println!("{name}: decide {nanos} ns ({permits} permits)");
        assert!(nanos < 100_000, "even an unoptimised build decides in well under 100 us, not {nanos} ns");
    }
}

fn host() -> impl Strategy<Value = String> {
    let known =
        prop::sample::select(vec!["games.example.com", "wikipedia.org", "call7.example.com", "meet.example.com", "x"]);
    prop_oneof![known.prop_map(str::to_string), "[a-z.]{0,30}", "\\PC{0,20}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn explain_tells_what_decide_decides(
        client in any::<u32>(), near in any::<bool>(), host in host(), port in any::<u16>(), tunnel in any::<bool>(),
        path in "\\PC{0,30}", method in "[A-Z]{0,7}", now in any::<i64>(), agent in "\\PC{0,30}", user in any::<bool>(),
    ) {
        thread_local! {
            static SCHOOL: Snapshot =
                Snapshot::open(&policy::compile(&example("school.toml"), 1, &examples()).unwrap()).unwrap();
        }
        let octets = client.to_be_bytes();
        let address = if near { [10, 20 - octets[0] % 2 * 10, octets[2], octets[3]] } else { octets };
        let fields: &[(&str, &str)] = &[("User-Agent", &agent)];
        let scheme = if tunnel { Scheme::Tunnel } else { Scheme::Http };
        let facts = Facts {
            client: IpAddr::from(address), user: user.then_some("anna"), method: &method, scheme, host: &host, port,
            path: &path, headers: &fields, now: Wall(now), node: "n",
        };
        SCHOOL.with(|school| verdict(school, &facts));
    }
}
