//! Many texts looked for in one pass, whatever their ASCII case: the automaton of Aho and Corasick. What several texts mean
//! together is worked out when it is made, so that a byte costs one answer and not one for each text that ends there.

/// No text ends in this state.
const NOTHING: u32 = u32::MAX;

/// Finds texts in a text.
///
/// States are the beginnings of texts, numbered by length and then by alphabet, so that those which are one byte longer than
/// another stand side by side. State 0 is the empty beginning.
pub struct TextFinder {
    /// By state: the first that is longer by one byte. One more at the end.
    longer: Vec<u32>,
    /// By state: its last byte.
    last: Vec<u8>,
    /// By state: the longest other one that it ends with.
    within: Vec<u32>,
    /// By state: the answer for the texts it ends with.
    answers: Vec<u32>,
    /// From the empty beginning, by byte.
    first: [u32; 256],
}

/// The texts from `from` to `to` have a beginning of `length` bytes in common.
#[derive(Clone, Copy)]
struct Stretch {
    from: usize,
    to: usize,
    length: usize,
}

impl TextFinder {
    /// For `texts`: lower-case, ascending, none twice, none empty. `answer` makes the answer for where text number so-and-so
    /// ends; if others end there too, it is told the answer for those.
    pub fn new(texts: &[&[u8]], mut answer: impl FnMut(usize, Option<u32>) -> u32) -> TextFinder {
        let mut finder =
            TextFinder { longer: Vec::new(), last: vec![0], within: vec![0], answers: vec![NOTHING], first: [0; 256] };
        let mut stretches = vec![Stretch { from: 0, to: texts.len(), length: 0 }];
        let mut state = 0;
        while let Some(Stretch { from, to, length }) = stretches.get(state).copied() {
            finder.longer.push(stretches.len() as u32);
            // A text that is the beginning itself stands before those that go on.
            let mut from = from + texts[from..to].iter().take_while(|text| text.len() == length).count();
            while from < to {
                let byte = texts[from][length];
                let more = texts[from..to].iter().take_while(|text| text[length] == byte).count();
                stretches.push(Stretch { from, to: from + more, length: length + 1 });
                finder.add(state as u32, byte);
                if texts[from].len() == length + 1 {
                    let made = finder.answers.len() - 1;
                    let before = Some(finder.answers[made]).filter(|answer| *answer != NOTHING);
                    finder.answers[made] = answer(from, before);
                }
                from += more;
            }
            state += 1;
        }
        finder.longer.push(stretches.len() as u32);
        for (at, byte) in finder.last.iter().enumerate().take(finder.longer[1] as usize).skip(1) {
            finder.first[usize::from(*byte)] = at as u32;
            finder.first[usize::from(byte.to_ascii_uppercase())] = at as u32;
        }
        finder
    }

    /// The state that is `byte` longer than `state`.
    fn add(&mut self, state: u32, byte: u8) {
        let mut within = self.within[state as usize];
        let found = loop {
            // All shorter states are there, with what is longer than they by a byte.
            match self.longer_by(within, byte) {
                Some(found) if state != 0 => break found,
                _ if within == 0 => break 0,
                _ => within = self.within[within as usize],
            }
        };
        self.last.push(byte);
        self.within.push(found);
        self.answers.push(self.answers[found as usize]);
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let words = [&self.longer, &self.within, &self.answers];
        words.map(|words| size_of_val(&words[..])).iter().sum::<usize>() + self.last.len() + size_of_val(&self.first)
    }

    #[inline]
    fn longer_by(&self, state: u32, byte: u8) -> Option<u32> {
        let from = self.longer[state as usize] as usize;
        let to = self.longer.get(state as usize + 1).map_or(self.last.len(), |to| *to as usize);
        let at = self.last[from..to].binary_search(&byte).ok()?;
        Some((from + at) as u32)
    }

    /// Hands over the answer of each place in `text` where a text ends, the same one also several times.
    #[inline]
    pub fn each_found(&self, text: &[u8], mut found: impl FnMut(u32)) {
        let mut state = 0;
        for byte in text {
            let lower = byte.to_ascii_lowercase();
            state = loop {
                if state == 0 {
                    break self.first[usize::from(*byte)];
                }
                match self.longer_by(state, lower) {
                    Some(next) => break next,
                    None => state = self.within[state as usize],
                }
            };
            let answer = self.answers[state as usize];
            if answer != NOTHING {
                found(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The texts that end at places where a finder says so, by number.
    fn found(texts: &[&[u8]], text: &[u8]) -> BTreeSet<usize> {
        let mut answers: Vec<BTreeSet<usize>> = Vec::new();
        let finder = TextFinder::new(texts, |number, others| {
            let mut answer = others.map_or(BTreeSet::new(), |others| answers[others as usize].clone());
            answer.insert(number);
            answers.push(answer);
            answers.len() as u32 - 1
        });
        let mut all = BTreeSet::new();
        finder.each_found(text, |answer| all.extend(&answers[answer as usize]));
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn every_text_is_found_where_it_is_and_nowhere_else(
            texts in prop::collection::btree_set("[abc\u{e9}]{1,5}", 0..12),
            text in prop::collection::vec(prop::sample::select(b"abcABC\xc3\xa9\xff".to_vec()), 0..20),
        ) {
            let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            let lower = text.to_ascii_lowercase();
            let holds = |number: &usize| lower.windows(texts[*number].len()).any(|window| window == texts[*number]);
            prop_assert_eq!(found(&texts, &text), (0..texts.len()).filter(holds).collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn bytes_of_every_value_are_texts() {
        let texts: Vec<[u8; 1]> = (0..=255).filter(|byte: &u8| !byte.is_ascii_uppercase()).map(|byte| [byte]).collect();
        let texts: Vec<&[u8]> = texts.iter().map(|text| &text[..]).collect();
        for (number, text) in texts.iter().enumerate() {
            assert_eq!(found(&texts, text), BTreeSet::from([number]));
            assert_eq!(found(&texts, &text.to_ascii_uppercase()), BTreeSet::from([number]));
        }
    }
}
