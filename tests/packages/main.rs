//! The packages: what is in them, and what installation, upgrade, downgrade, removal and purge do to a Debian (and what the .rpm's scripts
//! do to a root of their own).
#![allow(missing_docs)]

#[path = "../fleet/image.rs"]
#[allow(dead_code)] // The fleet has one more.
mod image;
mod made;
mod root;

use made::THIS;
use made::deb;
use made::next;
use made::packages;
use made::rpm;
use root::Root;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The words of a program of this machine.
fn said(program: &str, arguments: &[&str]) -> (bool, String) {
    let said = Command::new(program).args(arguments).current_dir(packages()).output();
    let said = said.unwrap_or_else(|error| panic!("starting {program}: {error}; tests/run installs it"));
    (
        said.status.success(),
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr)),
    )
}

/// Files of a package: path -> mode, `owner/group`.
type Files = BTreeMap<String, (String, String)>;

fn files_of_deb(name: &str) -> Files {
    let (good, words) = said("dpkg-deb", &["--contents", name]);
    assert!(good, "{words}");
    let columns = words.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let files = columns.filter(|columns| !columns[0].starts_with('d'));
    files.map(|columns| (columns[5][1..].to_string(), (columns[0].to_string(), columns[1].to_string()))).collect()
}

fn files_of_rpm(name: &str) -> Files {
    let (good, words) = said(
        "rpm",
        &["-qp", "--queryformat", "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME}\n]", name],
    );
    assert!(good, "{words}");
    let columns =
        words.lines().filter(|line| line.starts_with('/')).map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns.map(|columns| (columns[0].to_string(), (columns[1].to_string(), columns[2].to_string()))).collect()
}

#[test]
fn both_packages_hold_what_a_host_needs_and_nothing_that_anybody_but_root_may_write() {
    let (of_deb, of_rpm) = (files_of_deb(&deb(THIS)), files_of_rpm(&rpm(THIS)));
    let needed = [
        "/usr/bin/tidegate",
        "/etc/tidegate/startup.ini",
        "/etc/tidegate/first-policy.toml",
        "/usr/lib/systemd/system/tidegate.service",
        "/usr/lib/systemd/system/tidegate.socket",
        "/usr/lib/sysusers.d/tidegate.conf",
        "/usr/lib/tmpfiles.d/tidegate.conf",
        "/usr/share/bash-completion/completions/tidegate",
        "/usr/share/fish/vendor_completions.d/tidegate.fish",
        "/usr/share/man/man1/tidegate.1.gz",
        "/usr/share/man/man5/tidegate-startup.ini.5.gz",
        "/usr/share/doc/tidegate/README.md",
        "/usr/share/doc/tidegate/docs/install.md",
        "/usr/share/doc/tidegate/examples/haproxy.cfg",
        "/usr/share/doc/tidegate/examples/keepalived.conf",
        "/usr/share/doc/tidegate/third-party-licences.txt.gz",
    ];
    // Kernel settings are shipped where nothing reads them by itself.
    let settings = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")).unwrap();
    let settings = settings.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let settings: Vec<String> =
        settings.filter(|name| name.ends_with(".conf")).map(|name| format!("/usr/share/tidegate/{name}")).collect();
    for path in needed.into_iter().chain(settings.iter().map(String::as_str)) {
        assert!(of_deb.contains_key(path), "the .deb has {path}");
        assert!(of_rpm.contains_key(path), "the .rpm has {path}");
    }
    for (path, (mode, owner)) in of_deb.iter().chain(&of_rpm) {
        let expected = match path.as_str() {
            "/usr/bin/tidegate" => "-rwxr-xr-x",
            "/etc/tidegate/startup.ini" => "-rw-r-----",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, expected, "{path}");
        let node_owns = path == "/etc/tidegate/startup.ini" && owner == "tidegate/tidegate";
        assert!(node_owns || ["root/root", "0/0"].contains(&owner.as_str()), "{path} is of {owner}");
    }
    let own = |files: &Files, others: &Files| {
        let paths = files.keys().filter(|path| !others.contains_key(*path));
        paths.cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        own(&of_deb, &of_rpm),
        "/usr/share/doc/tidegate/changelog.Debian.gz /usr/share/doc/tidegate/changelog.gz /usr/share/doc/tidegate/copyright \
         /usr/share/lintian/overrides/tidegate /usr/share/zsh/vendor-completions/_tidegate"
    );
    assert_eq!(
        own(&of_rpm, &of_deb),
        "/usr/share/doc/tidegate/CHANGELOG.md /usr/share/licenses/tidegate/LICENSE /usr/share/tidegate/version /usr/share/zsh/site-functions/_tidegate"
    );
}

#[test]
fn what_an_administrator_edits_is_theirs_in_both_packages() {
    let (_, conffiles) = said("dpkg-deb", &["--info", &deb(THIS), "conffiles"]);
    let mut conffiles: Vec<&str> = conffiles.split_whitespace().collect();
    conffiles.sort_unstable();
    assert_eq!(conffiles, ["/etc/tidegate/first-policy.toml", "/etc/tidegate/startup.ini"]);
    let (_, config) = said("rpm", &["-qp", "--configfiles", &rpm(THIS)]);
    assert_eq!(config.split_whitespace().collect::<Vec<_>>(), conffiles);
    let (_, flags) = said("rpm", &["-qp", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", &rpm(THIS)]);
    assert!(flags.contains("/etc/tidegate/startup.ini cn"), "noreplace: {flags}");
}

#[test]
fn debug_symbols_are_apart_and_found_by_the_build_id() {
    let (_, notes) = said("readelf", &["--notes", env!("CARGO_BIN_EXE_tidegate")]);
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).expect("a build id");
    let path = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    let debs = files_of_deb(&deb(THIS).replace("tidegate_", "tidegate-dbgsym_"));
    let rpms = files_of_rpm(&rpm(THIS).replace("tidegate-", "tidegate-debuginfo-"));
    assert!(debs.contains_key(&path), "{path} in {debs:?}");
    assert!(rpms.contains_key(&path), "{path} in {rpms:?}");
    let root = Root::new(packages());
    root.ok(&format!("dpkg -i /packages/{}", deb(THIS)));
    let sections = root.beside("readelf --sections --wide usr/bin/tidegate").words;
    assert!(!sections.contains(".debug_info") && !sections.contains(".symtab"), "{sections}");
    assert!(sections.contains(".gnu_debuglink"), "{sections}");
}

#[test]
fn lintian_and_rpmlint_have_nothing_to_say_that_is_not_explained() {
    let debug = deb(THIS).replace("tidegate_", "tidegate-dbgsym_");
    let (good, words) = said("lintian", &["--allow-root", "--fail-on", "error,warning", &deb(THIS), &debug]);
    assert!(good, "{words}");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/rpmlint.toml");
    let debug = rpm(THIS).replace("tidegate-", "tidegate-debuginfo-");
    let (_, words) = said("rpmlint", &["--config", config.to_str().unwrap(), &rpm(THIS), &debug]);
    assert!(words.contains("0 errors, 0 warnings"), "{words}");
}

#[test]
fn the_balancer_examples_are_such_as_haproxy_and_keepalived_take() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").display().to_string();
    let (good, words) = said("haproxy", &["-c", "-f", &format!("{examples}/haproxy.cfg")]);
    assert!(good, "{words}");
    // In a network of its own, where the interface is.
    let check = format!(
        "ip link add eth0 type veth peer name eth1; ip addr add 192.0.2.5/24 dev eth0; ip link set eth0 up; \
         keepalived --config-test --log-console --use-file {examples}/keepalived.conf"
    );
    let (good, words) = said("unshare", &["--net", "sh", "-ec", &check]);
    assert!(good, "{words}");
}

#[test]
fn two_builds_give_the_same_bytes() {
    let again = tempfile::tempdir().unwrap();
    made::build(THIS, again.path());
    let names = fs::read_dir(again.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in names {
        let (one, other) = (packages().join(&name), again.path().join(&name));
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{} differs", name.display());
    }
}

#[test]
fn a_first_installation_makes_user_and_folders_and_starts_nothing() {
    let root = Root::new(packages());
    let words = root.ok(&format!("dpkg -i /packages/{}", deb(THIS)));
    assert!(
        words.contains("installed and not started") && words.contains("systemctl enable --now tidegate"),
        "{words}"
    );
    assert!(
        root.ok("getent passwd tidegate").contains(":/var/lib/tidegate:/usr/sbin/nologin"),
        "a user nobody logs in as"
    );
    let stat = "stat -c '%n %a %U:%G' /etc/tidegate /etc/tidegate/* /var/lib/tidegate /var/log/tidegate";
    assert_eq!(
        root.ok(stat),
        "/etc/tidegate 750 root:tidegate
/etc/tidegate/credentials 750 root:tidegate
/etc/tidegate/first-policy.toml 644 root:root
/etc/tidegate/lists 750 root:tidegate
/etc/tidegate/startup.ini 640 tidegate:tidegate
/var/lib/tidegate 700 tidegate:tidegate
/var/log/tidegate 750 tidegate:tidegate
"
    );
    assert_eq!(root.run("systemctl is-enabled tidegate").words.trim(), "disabled");
    assert!(root.ok("tidegate policy check /etc/tidegate/first-policy.toml").contains("The document has no fault."));
    root.ok("systemd-analyze verify --man=no tidegate.service tidegate.socket; bash -n /usr/share/bash-completion/completions/tidegate");
    let licences = "zcat /usr/share/doc/tidegate/third-party-licences.txt.gz";
    for linked in ["rustls ", "tokio-uring ", "SQLite ", "Rust standard library "] {
        root.ok(&format!("{licences} | grep '^{linked}'"));
    }
    // As the service: the folder is root's, so that nobody can put a link where root reads the activation key.
    let as_node = "setpriv --reuid=tidegate --regid=tidegate --clear-groups";
    assert!(!root.run(&format!("{as_node} touch /etc/tidegate/activation.key")).good);
    assert!(!root.run(&format!("{as_node} mv /etc/tidegate/startup.ini /etc/tidegate/elsewhere")).good);
}

/// Starts the installed node as its own user, without systemd, and waits for its control socket.
const START: &str = "install -d -o tidegate -g tidegate /run/tidegate
setpriv --reuid=tidegate --regid=tidegate --clear-groups tidegate run & node=$!
for try in $(seq 300); do if tidegate status >/dev/null; then break; fi; sleep 0.1; done; tidegate status";

#[test]
fn the_node_writes_its_startup_params_unless_root_keeps_them() {
    let root = Root::new(packages());
    root.ok(&format!("dpkg -i /packages/{}", deb(THIS)));
    let words = root.ok(&format!("{START}; tidegate params set LOG_LEVEL=debug; kill $node; wait $node"));
    assert!(root.ok("cat /etc/tidegate/startup.ini").contains("\nLOG_LEVEL=\"debug\"\n"), "{words}");
    assert_eq!(root.ok("stat -c '%a %U:%G' /etc/tidegate/startup.ini").trim(), "640 tidegate:tidegate");
    assert_eq!(root.ok("ls -A /etc/tidegate"), "credentials\nfirst-policy.toml\nlists\nstartup.ini\n");
    root.ok("chown root:tidegate /etc/tidegate/startup.ini");
    let refused = root.run(&format!(
        "{START}; tidegate params set LOG_LEVEL=info || status=$?; kill $node; wait $node; exit $status"
    ));
    assert!(!refused.good && refused.words.contains("a file that the daemon's user may write"), "{}", refused.words);
}

#[test]
fn the_first_policy_denies_as_shipped_and_its_steps_make_it_one_that_allows() {
    let root = Root::new(packages());
    root.ok(&format!("dpkg -i /packages/{}", deb(THIS)));
    let policy = "/etc/tidegate/first-policy.toml";
    let explain = "tidegate policy explain --client 10.1.2.3 --url http://example.com/ | grep Verdict";
    let words = root.ok(&format!(
        "{START}; tidegate policy apply {policy} -m one; {explain}
        sed -i '/^## Step 1/,$s/^# //' {policy}; tidegate policy check {policy}; tidegate policy apply {policy} -m two; {explain}"
    ));
    let verdicts: Vec<&str> = words.lines().filter_map(|line| line.strip_prefix("Verdict: ")).collect();
    assert!(verdicts.len() == 2 && verdicts[0].starts_with("DENY") && verdicts[1].starts_with("ALLOW"), "{words}");
}

#[test]
fn an_upgrade_keeps_what_the_administrator_said_and_asks_nothing() {
    let root = Root::new(packages());
    root.ok(&format!("dpkg -i /packages/{}", deb(THIS)));
    root.ok("sed -i 's/^NODE_NAME=.*/NODE_NAME=\"kept\"/' /etc/tidegate/startup.ini
        tidegate activation-key new -o /etc/tidegate/activation.key; echo note > /var/lib/tidegate/note; chown root:tidegate /etc/tidegate/startup.ini");
    let before = root.ok("sha256sum /etc/tidegate/* 2>/dev/null || true; stat -c '%n %a %U:%G' /etc/tidegate/*");
    let words = root.ok(&format!("dpkg -i /packages/{}", deb(&next())));
    assert!(!words.contains("not started"), "the first steps are for the first time: {words}");
    assert_eq!(root.ok("sha256sum /etc/tidegate/* 2>/dev/null || true; stat -c '%n %a %U:%G' /etc/tidegate/*"), before);
    assert!(before.contains("/etc/tidegate/activation.key 600 root:root"), "{before}");
    assert_eq!(root.ok("cat /var/lib/tidegate/note"), "note\n");
}

#[test]
fn a_downgrade_is_refused_in_words_and_changes_nothing() {
    let root = Root::new(packages());
    root.ok(&format!("dpkg -i /packages/{}", deb(&next())));
    let refused = root.run(&format!("dpkg -i /packages/{}", deb(THIS)));
    let words = format!("refusing to go from {}-1 back to {THIS}-1", next());
    assert!(!refused.good && refused.words.contains(&words), "{}", refused.words);
    let status = "dpkg-query -W -f '${Version} ${Status}' tidegate; tidegate --version >/dev/null";
    assert_eq!(root.ok(status), format!("{}-1 install ok installed", next()));
    // What a removed package left was written by it, too.
    root.ok("dpkg -r tidegate");
    assert!(root.run(&format!("dpkg -i /packages/{}", deb(THIS))).words.contains(&words));
    root.ok("dpkg --purge tidegate");
    root.ok(&format!("dpkg -i /packages/{}", deb(THIS)));
}

/// What a node leaves on its host.
const LIVED: &str = "tidegate activation-key new -o /etc/tidegate/activation.key >/dev/null
touch /var/lib/tidegate/policy.db /var/log/tidegate/extended.log /etc/tidegate/credentials/parent";
const LEFT: &str = "find /etc/tidegate /var/lib/tidegate /var/log/tidegate -type f 2>/dev/null | sort || true";

#[test]
fn removal_keeps_all_that_the_node_wrote_and_purge_takes_it_away() {
    let root = Root::new(packages());
    root.ok(&format!("dpkg -i /packages/{}; {LIVED}", deb(THIS)));
    let lived = root.ok(LEFT);
    root.ok("dpkg -r tidegate");
    assert_eq!(root.ok(LEFT), lived);
    assert_eq!(root.run("command -v tidegate").words, "");
    root.ok("dpkg --purge tidegate");
    assert_eq!(root.ok(LEFT), "");
    assert!(
        !root.run("ls -d /etc/tidegate /var/lib/tidegate /var/log/tidegate").words.contains("\n/"),
        "no folders either"
    );
}

#[test]
fn purge_asks_first_and_a_no_keeps_policy_records_and_keys() {
    let root = Root::new(packages());
    root.ok(&format!("dpkg -i /packages/{}; {LIVED}", deb(THIS)));
    root.ok("echo 'tidegate tidegate/purge-state boolean false' | debconf-set-selections");
    root.ok("dpkg --purge tidegate");
    assert_eq!(
        root.ok(LEFT),
        "/etc/tidegate/activation.key\n/etc/tidegate/credentials/parent\n/var/lib/tidegate/policy.db\n/var/log/tidegate/extended.log\n"
    );
}

#[test]
fn the_rpm_installs_upgrades_refuses_a_downgrade_and_keeps_state() {
    let root = Root::new(packages());
    // This machine's rpm on the root: it knows none of the packages there, so nothing it could depend on.
    let rpm_in_root = |arguments: &str| root.beside(&format!("rpm --root $PWD --nodeps --force-debian {arguments}"));
    let words = rpm_in_root(&format!("-i packages/{}", rpm(THIS)));
    assert!(words.good && words.words.contains("installed and not started"), "{}", words.words);
    let stat = "stat -c '%n %a %U:%G' /etc/tidegate /etc/tidegate/startup.ini /var/lib/tidegate /usr/bin/tidegate";
    assert_eq!(
        root.ok(stat),
        "/etc/tidegate 750 root:tidegate
/etc/tidegate/startup.ini 640 tidegate:tidegate
/var/lib/tidegate 700 tidegate:tidegate
/usr/bin/tidegate 755 root:root
"
    );
    root.ok("systemd-analyze verify --man=no tidegate.service tidegate.socket; tidegate --version");
    root.ok(&format!("{LIVED}; sed -i 's/^NODE_NAME=.*/NODE_NAME=\"kept\"/' /etc/tidegate/startup.ini"));
    let lived = root.ok(LEFT);
    let words = rpm_in_root(&format!("-U packages/{}", rpm(&next())));
    assert!(words.good && !words.words.contains("not started"), "{}", words.words);
    assert_eq!(root.ok(LEFT), lived);
    assert!(root.ok("cat /etc/tidegate/startup.ini").contains("NODE_NAME=\"kept\""));
    let refused = rpm_in_root(&format!("-U packages/{}", rpm(THIS)));
    assert!(!refused.good && refused.words.contains("which is newer"), "rpm's own words: {}", refused.words);
    let forced = rpm_in_root(&format!("-U --oldpackage packages/{}", rpm(THIS)));
    assert!(forced.words.contains(&format!("refusing to go from {} back to {THIS}", next())), "ours: {}", forced.words);
    assert_eq!(root.beside("rpm --root $PWD -q tidegate").words.trim(), rpm(&next()).trim_end_matches(".rpm"));
    let erased = rpm_in_root("-e tidegate");
    assert!(erased.good, "{}", erased.words);
    assert_eq!(root.run("command -v tidegate").words, "");
    assert_eq!(root.ok(LEFT), lived.replace("first-policy.toml\n/etc/tidegate/startup.ini\n", "startup.ini.rpmsave\n"));
}
