//! Two packages: this version and the next one. The next one is this clone with a higher number in its manifest, as a release is; Cargo
//! builds it beside this one and shares every dependency.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// A package and what it says of itself.
#[derive(Clone, Debug)]
pub struct Package {
    pub version: String,
    pub deb: PathBuf,
}

/// This clone's package.
pub fn this() -> &'static Package {
    static MADE: OnceLock<Package> = OnceLock::new();
    MADE.get_or_init(|| pack(Path::new(env!("CARGO_BIN_EXE_tidegate")), env!("CARGO_PKG_VERSION")))
}

/// The next version's.
pub fn next() -> &'static Package {
    static MADE: OnceLock<Package> = OnceLock::new();
    MADE.get_or_init(|| {
        let version = next_version();
        pack(&build_next(&version), &version)
    })
}

fn next_version() -> String {
    let (rest, patch) = env!("CARGO_PKG_VERSION").rsplit_once('.').expect("a version of three numbers");
    format!("{rest}.{}", patch.parse::<u32>().expect("a number") + 1)
}

fn pack(binary: &Path, version: &str) -> Package {
    let out = target_folder().join("fleet").join(version);
    let _ = fs::remove_dir_all(&out);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build");
    let made = Command::new(&script)
        .args([
            Path::new("--fast"),
            Path::new("--binary"),
            binary,
            Path::new("--version"),
            Path::new(version),
            Path::new("--out"),
            &out,
        ])
        .env("CARGO_TARGET_DIR", target_folder())
        .output()
        .expect("packaging/build");
    assert!(made.status.success(), "{} failed:\n{}", script.display(), String::from_utf8_lossy(&made.stderr));
    let debs = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        path.file_name().unwrap().to_string_lossy().starts_with("tidegate_")
            && path.extension().is_some_and(|end| end == "deb")
    };
    let deb = debs.into_iter().find(named).unwrap_or_else(|| panic!("no tidegate_*.deb in {}", out.display()));
    Package { version: version.to_string(), deb }
}

/// Builds the next version and answers its binary: a folder of links to this clone, with a manifest of its own.
fn build_next(version: &str) -> PathBuf {
    let clone = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = target_folder().join("fleet/next");
    fs::create_dir_all(&folder).unwrap();
    for name in [
        "src",
        "docs",
        "benches",
        "examples",
        "tests",
        "systemd",
        "packaging",
        "askama.toml",
        "README.md",
        "CHANGELOG.md",
    ] {
        let link = folder.join(name);
        let _ = fs::remove_file(&link);
        if clone.join(name).exists() {
            symlink(clone.join(name), &link).unwrap();
        }
    }
    write_if_changed(
        &folder.join("Cargo.toml"),
        &next_manifest(&fs::read_to_string(clone.join("Cargo.toml")).unwrap(), version),
    );
    let lock = fs::read_to_string(clone.join("Cargo.lock")).unwrap();
    let own = |version: &str| format!("name = \"tidegate\"\nversion = \"{version}\"");
    write_if_changed(&folder.join("Cargo.lock"), &lock.replace(&own(env!("CARGO_PKG_VERSION")), &own(version)));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--offline", "--quiet", "--bin", "tidegate-next"]);
    let profile = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(&folder).env("CARGO_TARGET_DIR", target_folder()).output().expect("cargo");
    assert!(built.status.success(), "building version {version} failed:\n{}", String::from_utf8_lossy(&built.stderr));
    profile.join("tidegate-next")
}

/// The clone's manifest with another version. The binary has another name, so that Cargo does not put it in this one's place.
fn next_manifest(manifest: &str, version: &str) -> String {
    let this = format!("version = \"{}\"\n", env!("CARGO_PKG_VERSION"));
    assert!(manifest.contains(&this), "Cargo.toml has a line {this}");
    let manifest = manifest.replacen(&this, &format!("version = \"{version}\"\nautobins = false\n"), 1);
    manifest.replace("default-run = \"tidegate\"", "default-run = \"tidegate-next\"")
        + "\n[[bin]]\nname = \"tidegate-next\"\npath = \"src/main.rs\"\n"
}

/// A file with a new time is a new file to Cargo.
fn write_if_changed(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).unwrap();
    }
}

/// Cargo's target folder: two above the binary under test.
fn target_folder() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap().parent().unwrap().to_path_buf()
}
