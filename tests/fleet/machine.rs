//! A machine: a Debian with a real systemd, booted by systemd-nspawn over an overlay of its own. Its disk outlives its power.

use crate::harness::wait_until;
use crate::image::Image;
use crate::switch::Port;
use crate::switch::Switch;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// What systemd-nspawn's own filter keeps from a machine and io_uring needs.
const SYSTEM_CALLS: &str = "@aio io_uring_setup io_uring_enter io_uring_register";

/// Longer than any command takes that ends by itself, seconds.
const COMMAND_S_MAX: &str = "150";

/// How it starts: its own control group in every hierarchy, its own mounts (the overlay vanishes with it), and a process namespace that ends
/// it when the test ends, however that ends.
const START: &str = r#"
set -e
name=$1; shift
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
  case $hierarchy in */cpuset/) continue;; esac
  if [ -w "$hierarchy/cgroup.procs" ]; then
    mkdir -p "$hierarchy/$name" 2>/dev/null && echo $$ > "$hierarchy/$name/cgroup.procs" || true
  fi
done
exec setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child=KILL --mount-proc sh -ec '
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"; root=$2/root; shift 2
  exec systemd-nspawn --quiet --directory "$root" --register=no --keep-unit --console=pipe --boot "$@"' sh "$@"
"#;

/// One machine of the fleet.
pub struct Machine {
    pub name: String,
    pub address: Ipv4Addr,
    pub port: Port,
    image: Image,
    dir: PathBuf,
    power: Mutex<Option<Power>>,
}

/// What there is of a machine that is on.
struct Power {
    child: Child,
    leader: u32,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Machine {
    /// A machine with an empty disk, plugged in and off.
    pub fn new(switch: &Switch, image: Image, disks: &Path, name: &str, address: Ipv4Addr, hosts: &str) -> Machine {
        let dir = disks.join(name);
        for part in ["upper/etc", "work", "root"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        for part in ["upper", "upper/etc"] {
            fs::set_permissions(dir.join(part), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(dir.join("upper/etc/hostname"), format!("{name}\n")).unwrap();
        fs::write(dir.join("upper/etc/hosts"), format!("127.0.0.1 localhost\n{hosts}")).unwrap();
        fs::write(dir.join("upper/etc/resolv.conf"), "# names are in /etc/hosts\n").unwrap();
        let port = switch.attach(name, address);
        Machine { name: name.to_string(), address, port, image, dir, power: Mutex::new(None) }
    }

    /// Power on; answers before the system is up ([`Machine::wait_until_up`]), so that several can start at once.
    pub fn power_on(&self) {
        self.port.plug();
        let console = fs::File::options().create(true).append(true).open(self.dir.join("console.log")).unwrap();
        let child = Command::new("bash")
            .args(["-c", START, "start", &self.group()])
            .args([&self.image.root(), &self.dir])
            .arg(format!("--machine={}", self.port.namespace))
            .arg(format!("--hostname={}", self.name))
            .arg(format!("--network-namespace-path={}", self.port.path().display()))
            .arg(format!("--system-call-filter={SYSTEM_CALLS}"))
            .arg("--capability=CAP_NET_ADMIN")
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .expect("starting bash");
        *self.power.lock().unwrap() = Some(Power { child, leader: 0 });
    }

    /// Until its init has started what belongs to it.
    pub fn wait_until_up(&self) {
        wait_until(&format!("{} is up", self.name), || {
            self.find_leader();
            let state = self.run("systemctl is-system-running");
            ["running", "degraded"].contains(&state.out.trim())
        });
    }

    /// unshare -> systemd-nspawn -> the machine's init. While it boots, systemd-nspawn has other children for a moment: whoever
    /// answers as an init in the end is the one.
    fn find_leader(&self) {
        let mut power = self.power.lock().unwrap();
        let power = power.as_mut().expect("it is on");
        if let Some(ended) = power.child.try_wait().unwrap() {
            panic!("{} did not boot ({ended}): {}", self.name, self.console());
        }
        power.leader = only_child(power.child.id()).and_then(only_child).unwrap_or(0);
    }

    /// The plug is pulled: nothing is said, nothing is written, every process is gone.
    pub fn power_off(&self) {
        self.port.unplug();
        let Some(mut power) = self.power.lock().unwrap().take() else { return };
        power.child.kill().unwrap();
        power.child.wait().unwrap();
    }

    /// Runs a line of shell as root, with nothing in its environment that a login would not have.
    pub fn run(&self, script: &str) -> Said {
        self.run_with(script, b"")
    }

    /// The same, with something to read.
    pub fn run_with(&self, script: &str, input: &[u8]) -> Said {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut child = Command::new("nsenter")
            .args(["--target", &self.leader().to_string(), "--all", "--"])
            .args(["env", "-i", path, "HOME=/var/tmp", "LANG=C.UTF-8", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive"])
            .args(["timeout", COMMAND_S_MAX, "bash", "-c", &format!("cd /var/tmp; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting nsenter: tests/run installs it");
        // A command that reads nothing has closed its end: that is its business.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs what must succeed; answers what it printed.
    pub fn ok(&self, script: &str) -> String {
        self.run(script).expect(&self.name, script)
    }

    /// Writes a file, as the administrator's editor would.
    pub fn write(&self, path: &str, content: &[u8]) {
        self.run_with(&format!("cat > {path}"), content).expect(&self.name, path);
    }

    pub fn read(&self, path: &str) -> String {
        self.ok(&format!("cat {path}"))
    }

    /// Copies a file of this host there.
    pub fn copy(&self, from: &Path, to: &str) {
        let there = format!("/proc/{}/root{to}", self.leader());
        fs::copy(from, &there).unwrap_or_else(|error| panic!("copying {} to {}: {error}", from.display(), self.name));
    }

    fn leader(&self) -> u32 {
        self.power.lock().unwrap().as_ref().unwrap_or_else(|| panic!("{} is off", self.name)).leader
    }

    fn group(&self) -> String {
        self.port.namespace.clone()
    }

    fn console(&self) -> String {
        fs::read_to_string(self.dir.join("console.log")).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let asked = "journalctl --no-pager -o short-precise -n 40 -u tidegate -u haproxy -u keepalived -u nginx; systemctl --no-pager --failed";
        if self.power.lock().unwrap().is_some() { self.run(asked).out } else { self.console() }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- last words of {}\n{}", self.name, self.last_words());
        }
        self.power_off();
        remove_groups(&self.group());
    }
}

/// Takes away a machine's control groups. The kernel lets go of one a moment after its last process.
fn remove_groups(name: &str) {
    const REMOVE: &str = r#"
for group in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
  if [ -d "$group" ]; then find "$group" -depth -type d -exec rmdir {} ';' 2>/dev/null; [ ! -d "$group" ] || exit 1; fi
done"#;
    for _ in 0..50 {
        let removed = Command::new("bash").args(["-c", REMOVE, "remove", name]).status();
        if removed.is_ok_and(|status| status.success()) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

impl Said {
    /// What it printed, if it succeeded; a failed test with all its words if not.
    pub fn expect(self, who: &str, what: &str) -> String {
        assert!(self.code == 0, "on {who}: `{what}` ended with {}\n{}{}", self.code, self.out, self.err);
        self.out
    }

    /// Everything it said.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

fn only_child(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split_whitespace().next()?.parse().ok()
}
