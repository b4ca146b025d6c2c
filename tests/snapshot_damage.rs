//! Damage to documents and snapshots: refused with words or harmless, never a panic, never a wrong policy taken for a
//! right one. The harnesses at the end throw random bytes at both parsers on the stable toolchain; more rounds:
//! `PROPTEST_CASES=100000 cargo test --release --test snapshot_damage`.

use proptest::prelude::*;
use std::path::Path;
use tidegate::base::clock::Wall;
use tidegate::policy;
use tidegate::policy::Facts;
use tidegate::policy::Folder;
use tidegate::policy::NoFiles;
use tidegate::policy::NoHeaders;
use tidegate::policy::Scheme;
use tidegate::policy::Snapshot;
use tidegate::policy::SnapshotError;

const HEADER: usize = 128;

fn example(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name)).unwrap()
}

fn file() -> Vec<u8> {
    let folder = Folder::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples"));
    policy::compile(&example("school.toml"), 5, &folder).unwrap()
}

fn facts<'a>() -> Facts<'a> {
    Facts {
        client: "10.20.1.1".parse().unwrap(),
        user: None,
        method: "GET",
        scheme: Scheme::Http,
        host: "www.games.example.com",
        port: 80,
        path: "/setup.exe",
        headers: &NoHeaders,
        now: Wall(1_781_510_400_000_000),
        node: "n",
    }
}

/// A body as a liar would send it: the header made to fit whatever the body is.
fn with_fitting_header(body: &[u8], like: &[u8]) -> Vec<u8> {
    let mut file = like[..HEADER].to_vec();
    file[32..40].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[24..32]);
    hasher.update(body);
    file[40..72].copy_from_slice(hasher.finalize().as_bytes());
    let checksum = blake3::hash(&file[..96]);
    file[96..HEADER].copy_from_slice(checksum.as_bytes());
    file.extend_from_slice(body);
    file
}

/// Uses every part of a snapshot; what it answers does not matter, that it answers does.
fn use_it(snapshot: &Snapshot) {
    let (decision, lines) = policy::explain(snapshot, &facts());
    policy::decide(snapshot, &facts());
    assert!(!lines.is_empty());
    let mut names = String::new();
    snapshot.write_list(&decision.tags, policy::ListKind::Profiles, &mut names);
    snapshot.write_list(&decision.tags, policy::ListKind::Categories, &mut names);
    if let policy::Verdict::Deny(denial) = decision.verdict {
        snapshot.block_page(denial.template, &policy::BlockFacts::default());
        let _ = (denial.rule(snapshot), denial.section(snapshot), denial.reason(snapshot));
    }
    snapshot.destination_allowed("127.0.0.1".parse().unwrap(), 80);
    snapshot.document();
}

/// A held file is opened without its whole hash: whatever byte of it is damaged, it is refused at once, or it harms nobody until its
/// proof fails.
#[test]
fn a_damaged_held_file_is_refused_at_once_or_by_its_proof() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("held.snapshot");
    let good = file();
    std::fs::write(&path, &good).unwrap();
    let snapshot = Snapshot::open_held(&path).unwrap();
    assert_eq!(snapshot.prove(), Ok(()));
    assert_eq!(snapshot.bytes(), good, "it is the very file");
    use_it(&snapshot);
    let (mut at_once, mut later) = (0, 0);
    for at in (0..good.len()).step_by(7) {
        let mut damaged = good.clone();
        damaged[at] ^= 0x41;
        // A new file each time: one that is mapped must not change.
        let path = dir.path().join(format!("{at}.snapshot"));
        std::fs::write(&path, &damaged).unwrap();
        match Snapshot::open_held(&path) {
            Err(_) => at_once += 1,
            Ok(snapshot) => {
                use_it(&snapshot);
                assert!(snapshot.prove().is_err(), "byte {at}");
                later += 1;
            }
        }
        std::fs::remove_file(path).unwrap();
    }
    assert!(at_once > 0 && later > 0, "{at_once} at once, {later} later");
    for length in [0, 1, HEADER - 1, HEADER, good.len() / 2, good.len() - 1] {
        let path = dir.path().join(format!("cut-{length}.snapshot"));
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(Snapshot::open_held(&path).is_err(), "{length} bytes");
    }
    assert!(Snapshot::open_held(&dir.path().join("nowhere")).is_err());
}

#[test]
fn every_bit_of_the_header_is_covered() {
    let file = file();
    for at in 0..HEADER {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            let error = Snapshot::open(&damaged).expect_err("a damaged header is refused");
            let expected = match at {
                0..8 => matches!(error, SnapshotError::NotASnapshot),
                8..12 => matches!(error, SnapshotError::ForeignFormat { .. }),
                _ => matches!(error, SnapshotError::HeaderDamaged),
            };
            assert!(expected, "byte {at} bit {bit}: {error:?}");
            assert!(error.to_string().contains("again"), "{error}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_or_with_something_behind_it_is_refused() {
    let file = file();
    for length in (0..HEADER).chain((HEADER..file.len()).step_by(97)).chain([file.len() - 1]) {
        assert!(Snapshot::open(&file[..length]).is_err(), "{length} bytes");
    }
    let longer = [&file[..], b"x"].concat();
    assert!(matches!(Snapshot::open(&longer), Err(SnapshotError::Cut { .. })));
    use_it(&Snapshot::open(&file).unwrap());
}

#[test]
fn every_byte_of_the_body_is_covered_by_the_hash() {
    let file = file();
    for at in (HEADER..file.len()).step_by(11) {
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        assert_eq!(Snapshot::open(&damaged).err(), Some(SnapshotError::BodyDamaged), "byte {at}");
    }
}

#[test]
fn foreign_formats_and_layouts_are_refused_by_name() {
    let mut other_layout = file();
    other_layout[16] ^= 1;
    let other_layout = with_fitting_header(&other_layout[HEADER..], &other_layout);
    assert_eq!(Snapshot::open(&other_layout).err(), Some(SnapshotError::ForeignLayout));
    let mut newer = file();
    newer[8] = 5;
    let error = Snapshot::open(&newer).unwrap_err();
    assert_eq!(error, SnapshotError::ForeignFormat { format: 5 });
    assert!(error.to_string().contains("format 5 and this build reads format 4"), "{error}");
    for foreign in [&b""[..], b"\x7fELF", b"[policy]\nname = \"a document, not a snapshot\"\n"] {
        assert_eq!(Snapshot::open(foreign).err(), Some(SnapshotError::NotASnapshot));
    }
    let whole = file();
    assert_eq!(with_fitting_header(&whole[HEADER..], &whole), whole, "the test knows the format");
}

#[test]
fn one_flipped_bit_under_a_fitting_header_never_panics() {
    let file = file();
    let mut harmless = 0;
    for at in HEADER..file.len() {
        let mut body = file[HEADER..].to_vec();
        body[at - HEADER] ^= 1 << (at % 8);
        if let Ok(snapshot) = Snapshot::open(&with_fitting_header(&body, &file)) {
            use_it(&snapshot);
            harmless += 1;
        }
    }
    assert!(harmless > 0, "a letter of the document may change: bytecheck alone does not see that");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bodies_damaged_in_several_places_under_a_fitting_header_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        thread_local!(static FILE: Vec<u8> = file());
        FILE.with(|file| {
            let mut body = file[HEADER..].to_vec();
            for (at, byte) in &flips {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            if let Some(cut) = &cut {
                body.truncate(cut.index(body.len()));
            }
            if let Ok(snapshot) = Snapshot::open(&with_fitting_header(&body, file)) {
                use_it(&snapshot);
            }
        });
    }

    #[test]
    fn random_bytes_are_no_snapshot(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Snapshot::open(&bytes).is_err());
        let body = with_fitting_header(&bytes, &file());
        if let Ok(snapshot) = Snapshot::open(&body) {
            use_it(&snapshot);
        }
    }

    #[test]
    fn random_text_compiles_or_earns_complaints(text in "\\PC{0,200}") {
        compile_and_use(&text);
    }

    #[test]
    fn toml_like_text_compiles_or_earns_complaints(pieces in prop::collection::vec(piece(), 0..60)) {
        compile_and_use(&pieces.concat());
    }

    #[test]
    fn a_damaged_document_compiles_or_earns_complaints(
        edits in prop::collection::vec((any::<prop::sample::Index>(), piece()), 1..8),
    ) {
        let mut text = example("school.toml");
        for (at, piece) in &edits {
            let mut at = at.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            text.insert_str(at, piece);
        }
        compile_and_use(&text);
    }
}

fn compile_and_use(text: &str) {
    match policy::compile(text, 1, &NoFiles) {
        Ok(file) => use_it(&Snapshot::open(&file).expect("what compiles opens")),
        Err(complaints) => {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            assert!(!complaints.is_empty());
            for complaint in complaints {
                assert!(complaint.line <= lines && !complaint.what.is_empty() && !complaint.remedy.is_empty());
            }
        }
    }
}

fn piece() -> impl Strategy<Value = String> {
    let words = vec![
        "[policy]\n",
        "[access_restriction]\n",
        "[[access_restriction.allow]]\n",
        "[[access_profiles]]\n",
        "[network]\n",
        "[[request_types]]\n",
        "[[categories]]\n",
        "[[time_profiles]]\n",
        "[[templates]]\n",
        "name = ",
        "addresses = ",
        "\"any\"\n",
        "\"10.0.0.0/8\"\n",
        "\"x\"\n",
        "[\"a\", \"b\"]\n",
        "hosts = ",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "\n",
        "=",
        ".",
        "#",
        "true\n",
        "08:00\n",
        "1\n",
        "-1\n",
        "99999999999999999999\n",
        "0x1f\n",
        "1e400\n",
        "nan\n",
        "\u{0}",
        "\u{feff}",
        "\\",
        "\r\n",
        "path_regex = ",
        "'(a|b)*c'\n",
        "from = ",
        "\"23:00\"\n",
        "days = ",
        "\"mon..sun\"\n",
        "action = ",
        "\"ALLOW\"\n",
        "body = ",
        "\"{{url}}\"\n",
        "\"\"\"\n",
        "a.b.c = 1\n",
        "[[a]]\n",
        "[a.b]\n",
    ];
    prop_oneof![8 => prop::sample::select(words).prop_map(str::to_string), 1 => "\\PC{0,6}"]
}
