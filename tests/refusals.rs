//! What a node cannot start with: each is told in one line that names the thing and the remedy, and the exit code is 1.

mod harness;

use harness::tidegate;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use tidegate::daemon::layout::NodeLayout;
use tidegate::tls::activation::ActivationKey;

#[test]
fn what_a_node_cannot_start_with_is_told_with_its_remedy() {
    let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let file = dir.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let below_file = file.join("dir").display().to_string();
    let key = dir.path().join("activation.key");
    let open_key = dir.path().join("open.key");
    let bad_key = dir.path().join("bad.key");
    let text = ActivationKey::generate().unwrap().to_text();
    for (path, text, mode) in [(&key, text.as_str(), 0o600), (&open_key, &text, 0o644), (&bad_key, "no key", 0o600)] {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let missing_key = dir.path().join("missing.key");
    let path = |path: &Path| path.display().to_string();
    // Role, what is wrong with the params, what the message must hold. /sys/kernel exists and takes no files, even from root.
    let table: Vec<(&str, &str, String, Vec<String>)> = vec![
        ("standalone", "LISTEN_PORT", port.clone(), words(&["LISTEN_PORT", &port, "in use", "another program"])),
        ("standalone", "PORTAL_PORT", port.clone(), words(&["PORTAL_PORT", &port, "in use", "another program"])),
        ("standalone", "STATE_DIR", below_file.clone(), words(&["STATE_DIR", &below_file, "choose another"])),
        ("standalone", "LOG_DIR", below_file.clone(), words(&["LOG_DIR", &below_file, "choose another"])),
        ("standalone", "RUN_DIR", below_file.clone(), words(&["RUN_DIR", &below_file, "choose another"])),
        ("standalone", "STATE_DIR", "/sys/kernel".into(), words(&["STATE_DIR", "/sys/kernel", "choose another"])),
        ("standalone", "LOG_DIR", "/sys/kernel".into(), words(&["LOG_DIR", "/sys/kernel", "choose another"])),
        ("standalone", "RUN_DIR", "/sys/kernel".into(), words(&["RUN_DIR", "/sys/kernel", "choose another"])),
        ("master", "ACTIVATION_KEY_FILE", path(&missing_key), words(&["missing.key", "activation-key new"])),
        ("slave", "ACTIVATION_KEY_FILE", path(&missing_key), words(&["missing.key", "Copy it from the master"])),
        ("master", "ACTIVATION_KEY_FILE", path(&open_key), words(&["open.key", "644", "chmod 600"])),
        ("slave", "ACTIVATION_KEY_FILE", path(&open_key), words(&["open.key", "644", "chmod 600"])),
        ("slave", "ACTIVATION_KEY_FILE", path(&bad_key), words(&["bad.key", "activation key"])),
    ];
    let mut faults = Vec::new();
    for (number, (role, param, value, expected)) in table.into_iter().enumerate() {
        let layout = NodeLayout::at(dir.path(), &format!("node-{number}"), free(), free());
        let mut params = vec![("ROLE", role.to_string())];
        if role == "slave" {
            params.extend([("MASTER_IP", "127.0.0.1".to_string()), ("MASTER_PORT", free().port().to_string())]);
        }
        layout.write(&key, &params, &BTreeMap::from([(param, value.clone())])).unwrap();
        let began = Instant::now();
        let (code, output, error) = tidegate(&["run", "--config", layout.config.to_str().unwrap()]);
        let message = error.lines().filter(|line| line.starts_with("tidegate: ")).collect::<Vec<_>>().join("\n");
        let whole = expected.iter().all(|word| message.contains(word));
        if code != 1 || !output.is_empty() || !whole || began.elapsed() > Duration::from_secs(10) {
            faults.push(format!("{role} with {param}={value}: exit {code}, wanted {expected:?}, said\n{error}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn free() -> SocketAddr {
    tidegate::daemon::layout::free_ports(1).unwrap()[0]
}
