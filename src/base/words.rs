//! Words for people that several faces share: byte counts, the word that was probably meant, text that steers no terminal.

/// `512 B`, `1.5 MiB`, `3.0 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.0;
    let mut unit = 0;
    // From here on it would round to 1024.0.
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The text with every control and direction-changing character made visible: a URL must not be able to move the cursor.
pub fn tame(text: &str) -> String {
    let harmless =
        |c: char| c == '\t' || !(c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
    text.chars().fold(String::with_capacity(text.len()), |mut tamed, c| {
        if harmless(c) {
            tamed.push(c);
        } else {
            tamed.extend(c.escape_unicode());
        }
        tamed
    })
}

/// The known word closest to `word`, if it is close enough to be a slip: a quarter of its letters and one more.
pub fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // A longer word is near to none of ours; its first letters bound the work.
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    let allowed = 1 + word.chars().count() / 4;
    let distances = known.map(|known| (distance(&word, &known.to_lowercase()), known));
    distances.filter(|(far, _)| *far <= allowed).min_by_key(|(far, _)| *far).map(|(_, known)| known)
}

/// Letters to insert, delete or replace (Levenshtein), row by row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_round_to_the_unit_that_reads_best() {
        let table = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, words) in table {
            assert_eq!(bytes(count), words);
        }
    }

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let known = ["LISTEN_PORT", "LISTEN_IP", "LOG_LEVEL"];
        let find = |word| nearest(word, known.into_iter());
        assert_eq!(find("LISTEN_PROT"), Some("LISTEN_PORT"));
        assert_eq!(find("loglevel"), Some("LOG_LEVEL"));
        assert_eq!(find("COLOUR"), None);
        assert_eq!(find(&"L".repeat(100_000)), None);
    }
}
