//! Patterns of `${X#p}`, `${X%p}` and `${X/p/r}`. The wildcards are `*` and `?`; neither matches a line break.

use super::expand::{ExpandError, Work};

pub(super) struct Glob {
    parts: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `*`
    Any,
    /// `?`
    One,
    Letter(char),
}

impl Glob {
    pub(super) fn parse(pattern: &str) -> Result<Self, ExpandError> {
        let mut parts = Vec::new();
        let mut letters = pattern.chars();
        while let Some(letter) = letters.next() {
            let part = match letter {
                '*' => Part::Any,
                '?' => Part::One,
                '\\' => match letters.next() {
                    Some(escaped @ ('}' | '/' | '*' | '?' | '\\')) => Part::Letter(escaped),
                    _ => return Err(ExpandError::Pattern(pattern.to_owned())),
                },
                letter => Part::Letter(letter),
            };
            // Two stars match the same as one.
            if part != Part::Any || parts.last() != Some(&Part::Any) {
                parts.push(part);
            }
        }
        Ok(Self { parts })
    }

    pub(super) fn reverse(&mut self) {
        self.parts.reverse();
    }

    /// The length of the longest or shortest match at the start of the text.
    ///
    /// Reads the text once and tracks all reachable positions in the pattern, so it never backtracks.
    pub(super) fn matches_at_start(
        &self,
        text: &[char],
        longest: bool,
        work: &Work,
    ) -> Result<Option<usize>, ExpandError> {
        let mut places = vec![0];
        let mut found = None;
        for length in 0..=text.len() {
            work.spend(1 + places.len())?;
            self.pass_stars(&mut places);
            if places.last() == Some(&self.parts.len()) {
                found = Some(length);
                if !longest {
                    break;
                }
            }
            let Some(&letter) = text.get(length) else { break };
            places = self.step(&places, letter);
            if places.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// Adds the positions after stars, because a star may match nothing. `places` stays sorted.
    fn pass_stars(&self, places: &mut Vec<usize>) {
        let mut all = Vec::with_capacity(places.len() + 1);
        for &place in &*places {
            for place in
                [Some(place), self.is_star(place).then_some(place + 1)].into_iter().flatten()
            {
                if all.last() != Some(&place) {
                    all.push(place);
                }
            }
        }
        *places = all;
    }

    fn is_star(&self, place: usize) -> bool {
        self.parts.get(place) == Some(&Part::Any)
    }

    fn step(&self, places: &[usize], letter: char) -> Vec<usize> {
        let mut next = Vec::with_capacity(places.len());
        for &place in places {
            let place = match self.parts.get(place) {
                Some(Part::Any) if letter != '\n' => place,
                Some(Part::One) if letter != '\n' => place + 1,
                Some(Part::Letter(expected)) if *expected == letter => place + 1,
                Some(Part::Any | Part::One | Part::Letter(_)) | None => continue,
            };
            if next.last() != Some(&place) {
                next.push(place);
            }
        }
        next
    }
}
