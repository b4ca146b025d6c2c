//! Text as lines. The node's own log is read and proved line by line, once for every request, so where a line ends is looked for
//! many bytes at a time.

/// The lines of `text`, each with its LF; the last may have none. As `split_inclusive`, several times as quick.
pub fn inclusive(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut ends, mut begun) = (text, memchr::memchr_iter(b'\n', text), 0);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = ends.next().map_or(rest.len(), |end| end + 1 - begun);
        let (line, behind) = rest.split_at(bytes);
        (rest, begun) = (behind, begun + bytes);
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_those_of_the_standard_library(text in proptest::collection::vec(0u8..16, 0..300)) {
            let expected: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            prop_assert_eq!(inclusive(&text).collect::<Vec<_>>(), expected);
        }
    }
}
