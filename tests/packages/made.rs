//! The packages under test: of this build's binary, under this version and the next. The numbers differ, the binary does not.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The version under test, as packages say it.
pub const THIS: &str = env!("CARGO_PKG_VERSION");

/// Both versions' packages, in one folder.
pub fn packages() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
        let _ = fs::remove_dir_all(&out);
        build(THIS, &out);
        build(&next(), &out);
        out
    })
}

/// A version above [`THIS`].
pub fn next() -> String {
    let (rest, patch) = THIS.rsplit_once('.').expect("a version of three numbers");
    format!("{rest}.{}", patch.parse::<u32>().expect("a number") + 1)
}

/// `packaging/build` of this build's binary.
pub fn build(version: &str, out: &Path) {
    let clone = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new(clone.join("packaging/build"))
        .args(["--fast", "--version", version, "--binary", env!("CARGO_BIN_EXE_tidegate"), "--out"])
        .arg(out)
        // Where Cargo builds the tools, when they have to be built.
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
        .output()
        .expect("starting packaging/build");
    assert!(made.status.success(), "packaging/build failed: {}", String::from_utf8_lossy(&made.stderr));
}

pub fn deb(version: &str) -> String {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    format!("tidegate_{version}-1_{machine}.deb")
}

pub fn rpm(version: &str) -> String {
    format!("tidegate-{version}-1.{}.rpm", std::env::consts::ARCH)
}
