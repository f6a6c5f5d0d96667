//! Constraints like `>=1.2, <2 || ^3.1`.

use std::cmp::Ordering;

use super::{Version, split_parts};

/// Alternatives, of each of which all must hold.
#[derive(Debug)]
pub(super) struct Constraints(Vec<Vec<Constraint>>);

impl Constraints {
    /// `None` if one of them is malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let alternative = |text: &str| -> Option<Vec<Constraint>> {
            let all: Option<Vec<_>> = text.split(',').map(Constraint::parse_all).collect();
            Some(all?.into_iter().flatten().collect())
        };
        text.split("||").map(alternative).collect::<Option<_>>().map(Self)
    }

    /// Whether a version satisfies them.
    pub(super) fn admit(&self, version: &Version<'_>) -> bool {
        self.0.iter().any(|all| all.iter().all(|constraint| constraint.admits(version)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// `~`: the same minor version, or the same major version if no minor one is given.
    Tilde,
    /// `^`: the same major version.
    Caret,
}

/// The longer of two that begin alike comes first.
const OPERATORS: [(&str, Operator); 11] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterOrEqual),
    ("=>", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("=<", Operator::LessOrEqual),
    ("~>", Operator::Tilde),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
];

#[derive(Debug)]
struct Constraint {
    operator: Operator,
    /// What is not given is 0.
    numbers: [u64; 3],
    prerelease: String,
    /// How many numbers are given before the first `x`: 0 for `x`, 1 for `1` and `1.x`. A missing patch counts as given.
    given: usize,
}

impl Constraint {
    /// Parses one constraint, or a range like `1.2 - 1.4`, which is two.
    fn parse_all(text: &str) -> Option<Vec<Self>> {
        let bounds = text.trim().split_once(char::is_whitespace).and_then(|(low, rest)| {
            let high = rest.trim_start().strip_prefix('-')?;
            Some((low, high.starts_with(char::is_whitespace).then(|| high.trim())?))
        });
        match bounds {
            Some((low, high)) => Some(vec![
                Self::parse(Operator::GreaterOrEqual, low)?,
                Self::parse(Operator::LessOrEqual, high)?,
            ]),
            None => {
                let text = text.trim();
                let found = OPERATORS.iter().find_map(|(sign, operator)| {
                    Some((*operator, text.strip_prefix(sign)?.trim_start()))
                });
                let (operator, version) = found.unwrap_or((Operator::Equal, text));
                Some(vec![Self::parse(operator, version)?])
            }
        }
    }

    fn parse(operator: Operator, version: &str) -> Option<Self> {
        let (core, prerelease, _) = split_parts(version.strip_prefix('v').unwrap_or(version))?;
        let words: Vec<&str> = core.split('.').collect();
        if words.len() > 3 {
            return None;
        }
        let is_any = |word: &str| matches!(word, "x" | "X" | "*");
        let mut given = words.iter().position(|word| is_any(word)).unwrap_or(words.len());
        let mut numbers = [0; 3];
        for (number, word) in numbers.iter_mut().zip(words.iter().take(given)) {
            let is_number = word.chars().all(|digit| digit.is_ascii_digit());
            *number = word.parse().ok().filter(|_| is_number)?;
        }
        if words.iter().skip(given).any(|word| !is_any(word) && word.parse::<u64>().is_err()) {
            return None;
        }
        if given == 2 && words.len() == 2 {
            given = 3;
        }
        let prerelease = if given == 0 { "" } else { prerelease }.to_owned();
        Some(Self { operator, numbers, prerelease, given })
    }

    fn admits(&self, version: &Version<'_>) -> bool {
        let bound = Version { numbers: self.numbers, prerelease: &self.prerelease, metadata: "" };
        let order = version.compare(&bound);
        // Prereleases are admitted only by constraints that name one.
        let is_unwanted = !version.prerelease.is_empty() && self.prerelease.is_empty();
        let has_wildcard = self.given < 3;
        match self.operator {
            Operator::NotEqual if !has_wildcard => order != Ordering::Equal,
            _ if is_unwanted => false,
            Operator::NotEqual => !self.has_same_numbers(version),
            Operator::Equal if !has_wildcard => order == Ordering::Equal,
            Operator::Equal | Operator::Tilde => self.is_about(version, order),
            Operator::Caret => order != Ordering::Less && version.numbers[0] == self.numbers[0],
            Operator::Greater => order == Ordering::Greater,
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::Less if !has_wildcard => order == Ordering::Less,
            Operator::LessOrEqual if !has_wildcard => order != Ordering::Greater,
            Operator::Less | Operator::LessOrEqual => {
                let [major, minor, _] = version.numbers;
                major <= self.numbers[0] && (minor <= self.numbers[1] || self.given == 1)
            }
        }
    }

    fn is_about(&self, version: &Version<'_>, order: Ordering) -> bool {
        // The original reads `~0.0.0` and `*` as any version.
        let is_any = self.numbers == [0; 3] && matches!(self.given, 0 | 3);
        order != Ordering::Less && (is_any || self.has_same_numbers(version))
    }

    /// Whether the major version is the same, and the minor one too if it is given.
    fn has_same_numbers(&self, version: &Version<'_>) -> bool {
        let compared = if self.given == 1 { 1 } else { 2 };
        version.numbers[..compared] == self.numbers[..compared]
    }
}
