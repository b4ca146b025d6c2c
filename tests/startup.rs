//! Startup params: what is accepted, what is refused and in which words, and that the generated references are current.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tidegate::limits;
use tidegate::settings;
use tidegate::settings::Listen;
use tidegate::settings::LogLevel;
use tidegate::settings::PinCpus;
use tidegate::settings::Role;
use tidegate::settings::Said;
use tidegate::settings::Settings;
use tidegate::settings::TABLE;

/// The faults of a file with this content, one line each, without the file's name.
fn faults(content: impl AsRef<[u8]>) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("startup.ini");
    fs::write(&path, content).unwrap();
    let found = settings::load(&path).err().unwrap_or_default();
    let prefix = format!("{}:", path.display());
    found.iter().map(|fault| fault.to_string().strip_prefix(&prefix).unwrap().trim().to_string()).collect()
}

fn settings_of(content: &str) -> Settings {
    let (said, faults) = settings::parse(content.as_bytes());
    assert_eq!(faults, [], "{content}");
    settings::resolve(&said, "a-host").unwrap()
}

#[test]
fn every_fault_is_told_at_once_with_line_key_what_was_read_and_what_is_accepted() {
    let file = "ROLE=\"slave\"\n\
                LISTEN_PORT=\"80x80\"\n\
                MASTER_ADDR=\"10.0.0.1\"\n\
                # a comment\n\
                LOG_LEVEL=debug\n\
                LISTEN_PORT=\"8081\"\n\
                KEEP_DATA=\"0\"\n";
    let expected = [
        "MASTER_IP: read \"\"; accepted: the master's IP address, because ROLE is slave",
        "2: LISTEN_PORT: read \"80x80\"; accepted: a port from 0 to 65535 (0 = any free port)",
        "3: MASTER_ADDR: read \"MASTER_ADDR=\\\"10.0.0.1\\\"\"; accepted: a key of this version of Tidegate: ROLE, ",
        "5: LOG_LEVEL: read \"debug\"; accepted: the value in double quotes right after the =, such as \"8080\"",
        "6: LISTEN_PORT: read the key a second time (\"8081\"); accepted: each key once; it already stands on line 2",
        "7: KEEP_DATA: read \"0\"; accepted: days from 1 to 3650",
    ];
    let found = faults(file);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "\n   found {found}\nexpected {expected}");
    }
}

#[test]
fn each_bad_file_has_exactly_its_fault() {
    let cases: &[(&[u8], &str)] = &[
        (b"LISTEN_PORT", "1: read \"LISTEN_PORT\"; accepted: KEY=\"value\""),
        (b"LISTEN_PORT=\"8080", "1: LISTEN_PORT: read \"\\\"8080\"; accepted: a closing double quote"),
        (
            b"LISTEN_PORT=\"8080\" # why",
            "1: LISTEN_PORT: read \"\\\"8080\\\" # why\"; accepted: nothing after the closing quote",
        ),
        (b"LISTEN_PORT='8080'", "1: LISTEN_PORT: read \"'8080'\"; accepted: the value in double quotes"),
        (b"LISTEN_PORT = \"8080\"", "did you mean LISTEN_PORT?"),
        (b"LISTENPORT=\"8080\"", "did you mean LISTEN_PORT?"),
        (b"listen_port=\"8080\"", "did you mean LISTEN_PORT?"),
        (
            b"NEVER_SYNC=\"cache\"",
            "1: NEVER_SYNC: read \"cache\"; accepted: network, client_address, pac with commas between them; or all, or nothing; there is no section cache",
        ),
        (
            b"MASTER_IP=\"192.0.2.1\"\nNEVER_SYNC=\"pac,access_profiles\"",
            "access_profiles is taken from the master, because it decides",
        ),
        (b"MASTER_IP=\"192.0.2.1\"\nNEVER_SYNC=\"pac,pac\"", "pac stands twice"),
        (b"NEVER_SYNC=\"pac\"", "accepted: nothing, because this node takes no policy from a master"),
        (
            b"ALWAYS_SYNC=\"pac\"",
            "1: ALWAYS_SYNC: read \"pac\"; accepted: nothing, because this node takes no policy from a master",
        ),
        (
            b"MASTER_IP=\"192.0.2.1\"\nALWAYS_SYNC=\"cache\"",
            "2: ALWAYS_SYNC: read \"cache\"; accepted: of policy, access_restriction, access_profiles,",
        ),
        (b"MASTER_IP=\"192.0.2.1\"\nALWAYS_SYNC=\"pac, pac\"", "pac stands twice"),
        (
            b"MASTER_IP=\"192.0.2.1\"\nNEVER_SYNC=\"pac\"\nALWAYS_SYNC=\"pac\"",
            "2: NEVER_SYNC: read \"pac\"; accepted: a section that ALWAYS_SYNC does not name; pac stands in both",
        ),
        (b"\n\xff\xfe\n", "2: read \"\u{fffd}\u{fffd}\"; accepted: text in UTF-8"),
        (b"NODE_NAME=\"$(reboot)\"", "accepted: a value without \"$\""),
        (b"NODE_NAME=\"a\\b\"", "accepted: a value without \"\\\\\""),
        (b"NODE_NAME=\"a\x1b[2Jb\"", "accepted: a value without \"\\u{1b}\""),
        (b"NODE_NAME=\"a b\"", "1: NODE_NAME: read \"a b\"; accepted: 1 to 63 letters"),
        (b"LISTEN_PORT=\"65536\"", "accepted: a port from 0"),
        (b"LISTEN_PORT=\"+80\"", "accepted: a port from 0"),
        (b"LISTEN_PORT=\"\"", "accepted: a port from 0"),
        (b"MASTER_PORT=\"0\"", "accepted: a port from 1"),
        (b"LISTEN_IP=\"localhost\"", "accepted: * (every IPv4 and IPv6 address)"),
        (b"MASTER_IP=\"0.0.0.0\"", "MASTER_IP: read \"0.0.0.0\"; accepted: the master's IP address, or nothing"),
        (b"SYNCTIME=\"1 hour\"", "accepted: seconds from 1 to 3600"),
        (b"LOG_SYNC=\"1001\"", "accepted: milliseconds from 0 to 1000"),
        (b"LOG_SIZE_LIMIT=\"1T\"", "accepted: bytes, with K, M or G"),
        (b"LOG_SIZE_LIMIT=\"1023K\"", "accepted: bytes, with K, M or G"),
        (b"LOG_SIZE_LIMIT=\"99999999999999999999G\"", "accepted: bytes, with K, M or G"),
        (b"LOG_LEVEL=\"134217727\"", "accepted: error, warn, info"),
        (b"CORES=\"0\"", "accepted: auto or a number from 1"),
        (b"PIN_CPUS=\"3-1\"", "accepted: auto, none or CPU numbers"),
        (b"PIN_CPUS=\"1,1\"", "accepted: auto, none or CPU numbers"),
        (b"STATE_DIR=\"state\"", "accepted: an absolute path"),
        (b"PROXY_PROTOCOL=\"on\"", "1: PROXY_PROTOCOL: read \"on\"; accepted: off, optional or required"),
        (b"PROXY_PROTOCOL=\"required\"", "TRUSTED_PROXIES: read \"\"; accepted: the balancers' addresses, because"),
        (b"TRUSTED_PROXIES=\"10.0.0.1/8\"", "accepted: addresses and networks such as"),
        (b"TRUSTED_PROXIES=\"balancer.test\"", "accepted: addresses and networks such as"),
        (b"HEAD_TIME=\"0\"", "1: HEAD_TIME: read \"0\"; accepted: seconds from 1 to 86400"),
        (b"TOTAL_TIME=\"604801\"", "accepted: seconds from 1 to 604800"),
        (b"DRAIN_TIME=\"1h\"", "accepted: seconds from 0 to 3600"),
        (b"DRAIN_NOTICE=\"3601\"", "accepted: seconds from 0 to 3600"),
        (b"LB_WEIGHT=\"0\"", "accepted: auto or a number from 1 to 256"),
        (b"NODE_LABELS=\"edge,rack 1\"", "accepted: at most 8 labels"),
        (b"NODE_LABELS=\"1,2,3,4,5,6,7,8,9\"", "accepted: at most 8 labels"),
        (b"MAX_CONNECTIONS=\"15\"", "accepted: a number from 16 to 4194304"),
        (b"ROLE=\"Slave\"", "accepted: auto, standalone, master or slave"),
        (
            b"ROLE=\"master\"\nMASTER_IP=\"10.0.0.1\"",
            "2: MASTER_IP: read \"10.0.0.1\"; accepted: nothing, because ROLE is master",
        ),
        (b"ROLE=\"standalone\"\nMASTER_IP=\"10.0.0.1\"", "accepted: nothing, because ROLE is standalone"),
        (b"ROLE=\"slave\"", "accepted: the master's IP address, because ROLE is slave"),
        (b"PORTAL_PORT=\"8080\"", "1: PORTAL_PORT: read \"8080\"; accepted: another port than LISTEN_PORT"),
        (b"LISTEN_PORT=\"8888\"\nLISTEN_IP=\"10.0.0.1\"", "accepted: another port than LISTEN_PORT"),
        (b"PORTAL_IP=\"10.0.0.1\"\nMASTER_IP=\"10.0.0.1\"", "accepted: another node's address"),
        // The unreadable MASTER_IP is the one fault; that a slave then has none is not a second.
        (
            b"ROLE=\"slave\"\nMASTER_IP=10.0.0.1",
            "2: MASTER_IP: read \"10.0.0.1\"; accepted: the value in double quotes",
        ),
    ];
    for (content, expected) in cases {
        let found = faults(content);
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{}\n{found:#?}\n{expected}",
            String::from_utf8_lossy(content)
        );
    }
}

#[test]
fn huge_and_missing_files_are_refused_and_faults_are_bounded() {
    let found = faults(vec![b'#'; limits::STARTUP_INI_BYTES_MAX + 1]);
    assert!(found.len() == 1 && found[0].contains("a file of at most"), "{found:?}");
    let found = faults("x\n".repeat(5_000));
    assert_eq!(found.len(), limits::STARTUP_INI_FAULTS_MAX + 1);
    let found = faults(format!("{}=\"1\"\n", "K".repeat(100_000)));
    assert!(found.len() == 1 && found[0].len() < 1_000, "{found:?}");
    let found = settings::load(Path::new("/no/such/startup.ini")).unwrap_err();
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().starts_with("/no/such/startup.ini: read nothing (No such file"), "{}", found[0]);
}

#[test]
fn an_empty_file_is_a_standalone_node_with_every_default() {
    let settings = settings_of("");
    assert_eq!(settings.role, Role::Standalone);
    assert_eq!((settings.node_name.as_str(), settings.hostname.as_str()), ("a-host", "a-host"));
    assert_eq!((settings.listen_ip, settings.listen_port), (Listen::Any, 8080));
    assert_eq!((settings.portal_ip, settings.portal_port), (Listen::Any, 8888));
    assert_eq!((settings.master, settings.cores, &settings.pin_cpus), (None, None, &PinCpus::Auto));
    assert_eq!((settings.log_size_limit, settings.log_level), (1 << 30, LogLevel::Info));
    assert_eq!(settings.control_socket(), Path::new("/run/tidegate/control.sock"));
}

#[test]
fn values_mean_what_they_say() {
    let settings = settings_of(
        "\u{feff}MASTER_IP=\"192.0.2.1\"\r\nMASTER_PORT=\"9999\"\nNODE_NAME=\"edge-1.lan\"\n  SYNCTIME=\"5\"  \n\
         LOG_SIZE_LIMIT=\"10m\"\nPIN_CPUS=\"7,0-2\"\nCORES=\"3\"\nLISTEN_IP=\"::1\"\nLISTEN_PORT=\"0\"\nPORTAL_PORT=\"0\"\nHOSTNAME=\"proxy.lan\"\nCONTROL_GROUP=\"\"",
    );
    assert_eq!((settings.role, settings.master), (Role::Slave, Some("192.0.2.1:9999".parse().unwrap())));
    assert_eq!((settings.node_name.as_str(), settings.hostname.as_str()), ("edge-1.lan", "proxy.lan"));
    assert_eq!((settings.sync_time, settings.log_size_limit), (Duration::from_secs(5), 10 << 20));
    assert_eq!((settings.pin_cpus, settings.cores), (PinCpus::List(vec![7, 0, 1, 2]), Some(3)));
    assert_eq!(settings.listen_ip, Listen::Ip("::1".parse().unwrap()));
    assert_eq!(settings.control_group, "");
    assert_eq!(settings_of("ROLE=\"master\"").role, Role::Master);
}

#[test]
fn every_key_is_resolved_and_has_a_text_and_help() {
    let settings = settings_of(
        "MASTER_IP=\"192.0.2.1\"\nTRUSTED_PROXIES=\"10.0.0.0/8\"\nNEVER_SYNC=\"pac, network\"\nALWAYS_SYNC=\"policy,access_profiles\"\nNODE_LABELS=\"edge, rack-1\"",
    );
    let names: Vec<&str> = TABLE.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), names.iter().collect::<std::collections::BTreeSet<_>>().len());
    for key in TABLE {
        assert!(settings.text(key.name).is_some_and(|text| !text.is_empty()), "{}", key.name);
        assert!(key.help.ends_with('.') && !key.accepts.ends_with('.'), "{}", key.name);
    }
    assert_eq!(settings.text("NEVER_SYNC").as_deref(), Some("network,pac"));
    assert_eq!(settings.text("NODE_LABELS").as_deref(), Some("edge,rack-1"));
    assert_eq!(settings.text("ALWAYS_SYNC").as_deref(), Some("access_profiles,policy"));
}

#[test]
fn never_sync_all_is_every_section_a_node_may_have_but_for_those_in_always_sync() {
    for (always, own) in [
        ("", "client_address,network,pac"),
        ("pac", "client_address,network"),
        ("network,access_profiles", "client_address,pac"),
        ("network,client_address,pac", ""),
    ] {
        let said = format!("MASTER_IP=\"192.0.2.1\"\nNEVER_SYNC=\"all\"\nALWAYS_SYNC=\"{always}\"");
        assert_eq!(settings_of(&said).text("NEVER_SYNC").as_deref(), Some(own), "{always}");
    }
}

#[test]
fn the_difference_compares_meaning_and_tells_live_keys_from_waiting_ones() {
    let old = settings_of("LOG_SIZE_LIMIT=\"1G\"");
    assert!(settings::difference(&old, &settings_of("LOG_SIZE_LIMIT=\"1024M\"\nROLE=\"standalone\"")).is_empty());
    let new = settings_of(
        "MASTER_IP=\"192.0.2.1\"\nLOG_LEVEL=\"debug\"\nKEEP_DATA=\"9\"\nSYNCTIME=\"9\"\nLOG_SIZE_LIMIT=\"2G\"",
    );
    let difference = settings::difference(&old, &new);
    assert_eq!(difference.live, ["SYNCTIME", "LOG_SIZE_LIMIT", "KEEP_DATA", "LOG_LEVEL"]);
    assert_eq!(difference.waiting, ["ROLE", "MASTER_IP", "MASTER_PORT"]);
}

#[test]
fn submit_writes_all_changes_or_nothing_and_keeps_the_mode_and_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (real, path) = (dir.path().join("real.ini"), dir.path().join("startup.ini"));
    fs::write(&real, "LISTEN_PORT=\"3128\"\nKEEP_DATA=\"soon\"\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    let changes = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };

    let before = fs::read(&real).unwrap();
    let bad = changes(&[
        ("LOG_LEVEL", "loud"),
        ("PORTAL_PORT", "3128"),
        ("COLOUR", "red"),
        ("NODE_NAME", "a\"b"),
        ("SYNCTIME", "9"),
    ]);
    let faults = settings::submit(&path, &bad).unwrap_err();
    let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
    for key in ["LOG_LEVEL", "PORTAL_PORT", "COLOUR", "NODE_NAME", "KEEP_DATA"] {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    assert_eq!(faults.len(), 5, "{faults:#?}");
    assert_eq!(fs::read(&real).unwrap(), before, "nothing is written when a value is bad");

    let good = changes(&[("LOG_LEVEL", "debug"), ("KEEP_DATA", " 90 ")]);
    let loaded = settings::submit(&path, &good).unwrap();
    assert_eq!(
        (loaded.settings.log_level, loaded.settings.keep_data_days, loaded.settings.listen_port),
        (LogLevel::Debug, 90, 3128)
    );
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(settings::load(&path).unwrap().settings, loaded.settings);
    let text = fs::read_to_string(&real).unwrap();
    assert!(text.contains("\n# How many days log files"), "the help stands above the key");
    assert_eq!(text, settings::render(&settings::load(&path).unwrap().said));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside");
}

#[test]
fn submit_does_not_write_over_lines_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("startup.ini");
    fs::write(&path, "export LISTEN_PORT=\"1\"\n").unwrap();
    let faults =
        settings::submit(&path, &BTreeMap::from([("LOG_LEVEL".to_string(), "debug".to_string())])).unwrap_err();
    assert!(faults.len() == 1 && faults[0].line == 1, "{faults:?}");
}

proptest! {
    #[test]
    fn the_parser_takes_any_bytes_and_its_faults_fit_on_lines(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let (said, faults) = settings::parse(&bytes);
        let _ = settings::resolve(&said, "a-host");
        for fault in faults {
            prop_assert!(!fault.to_string().contains(['\n', '\u{1b}']), "{fault}");
        }
    }

    #[test]
    fn what_is_rendered_is_read_back_the_same(lines in proptest::collection::vec((0..TABLE.len(), "[ -~äß]{0,40}"), 0..30), host in "\\PC{0,80}") {
        let text: String = lines.iter().map(|(key, value)| format!("{}=\"{value}\"\n", TABLE[*key].name)).collect();
        let (said, _) = settings::parse(text.as_bytes());
        let rendered = settings::render(&said);
        let (again, faults) = settings::parse(rendered.as_bytes());
        prop_assert_eq!(faults, []);
        prop_assert_eq!(settings::render(&again), rendered);
        prop_assert_eq!(settings::resolve(&again, &host).is_ok(), settings::resolve(&said, &host).is_ok());
    }
}

#[test]
fn the_default_file_is_what_an_empty_file_means() {
    let rendered = settings::render(&Said::default());
    assert_eq!(settings_of(&rendered), settings_of(""));
    let printed = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["params", "default"]).output().unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), rendered);
    assert!(rendered.lines().all(|line| line.chars().count() <= 120));
}

#[test]
fn the_reference_and_the_manual_pages_in_docs_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tidegate = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).output().unwrap();
    let reference = String::from_utf8(tidegate(&["params", "reference"]).stdout).unwrap();
    let kept = fs::read_to_string(root.join("docs/startup-params.md")).unwrap();
    assert!(
        reference == kept,
        "docs/startup-params.md is not current: run `tidegate params reference > docs/startup-params.md`"
    );
    let dir = tempfile::tempdir().unwrap();
    assert!(tidegate(&["man", "-o", dir.path().to_str().unwrap()]).status.success());
    let pages = |folder: &Path| -> BTreeMap<String, String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect()
    };
    let (fresh, kept) = (pages(dir.path()), pages(&root.join("docs/man")));
    assert!(
        fresh.keys().eq(kept.keys()),
        "docs/man has other pages than there are commands: empty it and run `tidegate man -o docs/man`"
    );
    for (name, text) in &fresh {
        assert!(kept[name] == *text, "docs/man/{name} is not current: run `tidegate man -o docs/man`");
    }
}
