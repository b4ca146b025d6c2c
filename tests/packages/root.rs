//! A Debian root to install into: an overlay over a bare one, entered by chroot, with namespaces of its own for mounts, processes and
//! network. No init runs in it: what a booted system does with the packages is the fleet's to show.

use crate::image::Image;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use tempfile::TempDir;

/// Enters the root. What a script leaves running ends with it.
const ENTER: &str = r#"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/tree"
mount --bind /dev "$2/tree/dev"
mount -t proc proc "$2/tree/proc"
mkdir -p "$2/tree/packages"
mount --bind "$3" "$2/tree/packages"
ip link set lo up
case $4 in
  chroot) exec chroot "$2/tree" sh -c "$5" ;;
  beside) cd "$2/tree" && exec sh -c "$5" ;;
esac
"#;

/// A root with a disk of its own. Packages are in `/packages`.
pub struct Root {
    disk: TempDir,
    packages: std::path::PathBuf,
}

/// What a script said, and whether it ended well.
#[derive(Debug)]
pub struct Said {
    pub good: bool,
    pub words: String,
}

impl Root {
    pub fn new(packages: &Path) -> Root {
        let disk = tempfile::Builder::new().prefix("tidegate-packages-").tempdir().unwrap();
        for part in ["upper", "work", "tree"] {
            fs::create_dir(disk.path().join(part)).unwrap();
        }
        fs::set_permissions(disk.path().join("upper"), fs::Permissions::from_mode(0o755)).unwrap();
        Root { disk, packages: packages.to_path_buf() }
    }

    /// Runs a script in the root; nobody answers questions there.
    pub fn run(&self, script: &str) -> Said {
        self.enter("chroot", script)
    }

    /// Runs a script in the root and answers its words; fails the test when the script failed.
    pub fn ok(&self, script: &str) -> String {
        let said = self.run(script);
        assert!(said.good, "`{script}` failed: {}", said.words);
        said.words
    }

    /// Runs a script of this machine's programs, with the root as working folder.
    pub fn beside(&self, script: &str) -> Said {
        self.enter("beside", script)
    }

    fn enter(&self, how: &str, script: &str) -> Said {
        let said = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "--net",
                "--pid",
                "--fork",
                "--kill-child=KILL",
                "timeout",
                "120",
            ])
            .args(["sh", "-ec", ENTER, "enter"])
            .args([&Image::Bare.root(), self.disk.path(), &self.packages])
            .args([how, &format!("exec 2>&1; set -e; {script}")])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .expect("starting unshare: tests/run installs it");
        let words = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        Said { good: said.status.success(), words }
    }
}
