//! What the fuzz targets check, on their corpus and on a bounded number of mutations of it, with the stable toolchain.
//! `TIDEGATE_FUZZ_ROUNDS=10000000 cargo test --test framing corpus` for hours; `TIDEGATE_FUZZ_SEED` for other mutations.

use crate::models::Dice;
use crate::models::mutate;
use std::fs;
use std::path::Path;

#[path = "../../fuzz/properties.rs"]
mod properties;

/// Mutations of each target's corpus.
const ROUNDS: u64 = 30_000;

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number")))
}

#[test]
fn the_corpus_and_what_becomes_of_it_hold_what_fuzzing_checks() {
    for (target, holds) in properties::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!(!corpus.is_empty(), "{} is empty", folder.display());
        corpus.iter().for_each(|bytes| holds(bytes));
        let mut dice = Dice(number_in("TIDEGATE_FUZZ_SEED").unwrap_or(0x636f_7270_7573_2e31));
        for _ in 0..number_in("TIDEGATE_FUZZ_ROUNDS").unwrap_or(ROUNDS) {
            let mut bytes = corpus[dice.roll(corpus.len())].clone();
            mutate(&mut bytes, &mut dice);
            let outcome = std::panic::catch_unwind(|| holds(&bytes));
            assert!(outcome.is_ok(), "{target}: keep this one in {}: {}", folder.display(), bytes.escape_ascii());
        }
    }
}
