//! Many glob patterns, matched together in time that does not depend on how they are written.

use std::collections::{BTreeSet, HashSet};

/// Patterns, of which one or none matches a text as a whole. `*` stands for any run of characters, `?` for any one;
/// upper and lower case of ASCII are the same.
///
/// Patterns without either are looked up. The others lie in a row: one of k characters that are no stars has k + 1
/// places, and a bit says that the text so far may have led there. A step shifts all bits by one and keeps those whose
/// place the character leads to, and those of places with a star.
#[derive(Debug)]
pub(super) struct Patterns {
    exact: HashSet<Box<[u8]>>,
    /// Where a pattern begins.
    begin: Bits,
    /// Where one ends.
    end: Bits,
    /// Where any character leads back to the same place.
    star: Bits,
    /// Places that a character leads to, by its class.
    enter: Vec<Bits>,
    /// The class of each byte; 0: it is in no pattern, and only `?` takes it.
    classes: [u8; 256],
}

/// A set of places, 64 in each word.
type Bits = Vec<u64>;

fn set(bits: &mut Bits, place: usize) {
    let word = place / 64;
    if bits.len() <= word {
        bits.resize(word + 1, 0);
    }
    bits[word] |= 1 << (place % 64);
}

impl Patterns {
    /// Compiles `patterns`, all of them lower case afterwards.
    pub(super) fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Self {
        let patterns: BTreeSet<Vec<u8>> =
            patterns.into_iter().map(|pattern| pattern.to_ascii_lowercase().into_bytes()).collect();
        let (globs, exact): (Vec<_>, Vec<_>) =
            patterns.into_iter().partition(|pattern| pattern.iter().any(|byte| matches!(byte, b'*' | b'?')));
        let mut classes = [0_u8; 256];
        let mut last_class = 0_u8;
        for byte in globs.iter().flatten().filter(|byte| !matches!(byte, b'*' | b'?')) {
            let class = &mut classes[usize::from(*byte)];
            // Text has fewer than 255 different bytes: some stand in no UTF-8.
            if *class == 0 {
                last_class = last_class.saturating_add(1);
                *class = last_class;
            }
        }
        let mut all = Self {
            exact: exact.into_iter().map(Vec::into_boxed_slice).collect(),
            begin: Bits::new(),
            end: Bits::new(),
            star: Bits::new(),
            enter: vec![Bits::new(); usize::from(last_class) + 1],
            classes,
        };
        let mut place = 0;
        for glob in &globs {
            place = all.add(glob, place);
        }
        let words = place.div_ceil(64);
        for bits in [&mut all.begin, &mut all.end, &mut all.star].into_iter().chain(&mut all.enter) {
            bits.resize(words, 0);
        }
        all
    }

    /// Adds a pattern from `place` on; gives the first place behind it.
    fn add(&mut self, glob: &[u8], mut place: usize) -> usize {
        set(&mut self.begin, place);
        for byte in glob {
            if *byte == b'*' {
                set(&mut self.star, place);
                continue;
            }
            place += 1;
            if *byte == b'?' {
                self.enter.iter_mut().for_each(|bits| set(bits, place));
            } else {
                set(&mut self.enter[usize::from(self.classes[usize::from(*byte)])], place);
            }
        }
        set(&mut self.end, place);
        place + 1
    }

    /// Whether one of the patterns matches `text`, which is in lower case.
    pub(super) fn matches(&self, text: &str) -> bool {
        if self.exact.contains(text.as_bytes()) {
            return true;
        }
        let mut now = self.begin.clone();
        for byte in text.bytes() {
            let enter = &self.enter[usize::from(self.classes[usize::from(byte)])];
            let mut carry = 0;
            for ((word, enter), star) in now.iter_mut().zip(enter).zip(&self.star) {
                let before = *word;
                *word = (((before << 1) | carry) & enter) | (before & star);
                carry = before >> 63;
            }
        }
        now.iter().zip(&self.end).any(|(now, end)| now & end != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The meaning of a pattern, without regard to time.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => plainly(rest, text) || (!text.is_empty() && plainly(pattern, &text[1..])),
            ([b'?', rest @ ..], [_, text @ ..]) => plainly(rest, text),
            ([first, rest @ ..], [byte, text @ ..]) => first == byte && plainly(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn all_together_match_what_one_of_them_matches(
            patterns in prop::collection::vec("[ab.*?]{0,7}", 0..40), text in "[abc.]{0,9}",
        ) {
            let together = Patterns::new(patterns.iter().map(String::as_str)).matches(&text);
            let one = patterns.iter().any(|pattern| plainly(pattern.as_bytes(), text.as_bytes()));
            prop_assert_eq!(together, one, "{:?} {}", patterns, text);
        }
    }

    #[test]
    fn patterns_lie_across_words() {
        let long = format!("{}*z", "x".repeat(100));
        let patterns = Patterns::new(["a*", long.as_str(), "q?"]);
        assert!(patterns.matches(&format!("{}yyz", "x".repeat(100))));
        assert!(!patterns.matches(&format!("{}yyz", "x".repeat(99))));
        assert!(patterns.matches("qq") && patterns.matches("abc") && !patterns.matches("q"));
    }
}
