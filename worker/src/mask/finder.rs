//! Finds the longest of many texts that ends at each byte of a stream.

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::noncontiguous::NFA;

/// An automaton for a set of texts.
#[derive(Debug)]
pub(super) struct Finder {
    automaton: NFA,
    start: StateID,
    /// For each state, how many of the last bytes may be the beginning of a text.
    depths: Vec<u32>,
}

/// A state of the automaton; `None` before the first byte.
#[derive(Debug, Default)]
pub(super) struct Cursor(Option<StateID>);

impl Finder {
    pub(super) fn new(texts: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut texts: Vec<Vec<u8>> = texts.filter(|text| !text.is_empty()).collect();
        texts.sort_unstable();
        texts.dedup();
        let built = NFA::new(&texts).map(|automaton| {
            let start = automaton.start_state(Anchored::No);
            (automaton, start)
        });
        match built {
            Ok((automaton, Ok(start))) => {
                let depths = depths(&automaton, start, &texts);
                Self { automaton, start, depths }
            }
            Ok((_, Err(error))) => {
                unreachable!("an automaton is made for both kinds of start: {error}")
            }
            // Only a limit of 2^31 states can make it fail; the texts are bounded far below that.
            Err(error) => unreachable!("a few texts fit an automaton: {error}"),
        }
    }
}

/// Walking a text from the start visits the states of its prefixes.
fn depths(automaton: &NFA, start: StateID, texts: &[Vec<u8>]) -> Vec<u32> {
    let mut depths = Vec::new();
    for text in texts {
        let mut state = start;
        for (depth, &byte) in (1..).zip(text) {
            state = automaton.next_state(Anchored::No, state, byte);
            if depths.len() <= state.as_usize() {
                depths.resize(state.as_usize() + 1, 0);
            }
            depths[state.as_usize()] = depth;
        }
    }
    depths
}

impl Cursor {
    /// Reads a byte. Returns the length of the longest text that ends with it.
    pub(super) fn advance(&mut self, finder: &Finder, byte: u8) -> Option<usize> {
        let state = self.0.unwrap_or(finder.start);
        let state = finder.automaton.next_state(Anchored::No, state, byte);
        self.0 = Some(state);
        // The longest one comes first; the others were added from the states of its suffixes.
        finder
            .automaton
            .is_match(state)
            .then(|| finder.automaton.pattern_len(finder.automaton.match_pattern(state, 0)))
    }

    /// How many of the last bytes may be the beginning of a text.
    pub(super) fn depth(&self, finder: &Finder) -> usize {
        let depth = self.0.and_then(|state| finder.depths.get(state.as_usize()));
        depth.map_or(0, |depth| *depth as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_text_that_ends_at_a_byte_is_found() {
        let texts = ["b", "ab", "cab", "abx"].map(|text| text.as_bytes().to_vec());
        let finder = Finder::new(texts.into_iter());
        let mut cursor = Cursor::default();
        let found: Vec<_> = b"cabx".iter().map(|byte| cursor.advance(&finder, *byte)).collect();
        assert_eq!(found, [None, None, Some(3), Some(3)]);
    }
}
