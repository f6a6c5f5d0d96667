//! Patterns of branches, tags, labels and paths.

use serde::{Deserialize, Serialize};

use crate::InvalidText;
use crate::text::text_type;

/// The most patterns of one list.
const MOST_PATTERNS: usize = 64;

/// More groups and stars in one pattern would let it take long to compare.
const MOST_WILDCARDS: usize = 16;

text_type!(
    /// A pattern like `release/*`: `*` is anything but `/`, `**` anything, `?` one character, `[a-z]` one of several,
    /// `{a,b}` either; with `!` before it, what it matches is left out again.
    Pattern,
    "pattern",
    "1 to 250 printable characters without spaces at its ends, at most 16 of `*?[{`, with brackets closed, and not only `!`",
    |text| {
        let glob = text.strip_prefix('!').unwrap_or(text);
        (1..=250).contains(&glob.len())
            && glob.trim() == glob
            && !glob.chars().any(char::is_control)
            && glob.bytes().filter(|b| b"*?[{".contains(b)).count() <= MOST_WILDCARDS
            && glob.matches('[').count() == glob.matches(']').count()
            && glob.matches('{').count() == glob.matches('}').count()
    }
);

impl Pattern {
    fn glob(&self) -> &str {
        self.0.strip_prefix('!').unwrap_or(&self.0)
    }

    fn leaves_out(&self) -> bool {
        self.0.starts_with('!')
    }
}

/// Patterns in order: the last one that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Pattern>", into = "Vec<Pattern>")]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns.
    #[must_use]
    pub fn as_slice(&self) -> &[Pattern] {
        &self.0
    }

    /// Whether `text` is chosen. If the first pattern leaves something out, everything else is chosen; without patterns
    /// nothing is.
    #[must_use]
    pub fn choose(&self, text: &str) -> bool {
        self.choose_any(&[text])
    }

    /// Like [`Self::choose`], for something with several names: a pattern matches it if it matches one of them.
    #[must_use]
    pub fn choose_any(&self, names: &[&str]) -> bool {
        let matches =
            |it: &&Pattern| names.iter().any(|name| fast_glob::glob_match(it.glob(), name));
        let deciding = self.0.iter().rev().find(matches);
        match deciding {
            Some(pattern) => !pattern.leaves_out(),
            None => self.0.first().is_some_and(Pattern::leaves_out),
        }
    }
}

impl TryFrom<Vec<Pattern>> for Patterns {
    type Error = InvalidText;

    fn try_from(patterns: Vec<Pattern>) -> Result<Self, Self::Error> {
        if patterns.len() > MOST_PATTERNS {
            let count = format!("{} patterns", patterns.len());
            return Err(InvalidText::new("list of patterns", &count, "at most 64 patterns"));
        }
        Ok(Self(patterns))
    }
}

impl From<Patterns> for Vec<Pattern> {
    fn from(patterns: Patterns) -> Self {
        patterns.0
    }
}

impl std::fmt::Display for Patterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(Pattern::as_str).collect();
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        let parsed: Vec<Pattern> = texts.iter().map(|text| text.parse().unwrap()).collect();
        parsed.try_into().unwrap()
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        for (texts, text, is_chosen) in [
            (&["main"][..], "main", true),
            (&["main"], "mainline", false),
            (&["release/*"], "release/1", true),
            (&["release/*"], "release/1/fix", false),
            (&["release/**"], "release/1/fix", true),
            (&["**"], "a/b", true),
            (&["v[0-9]*"], "v1.2", true),
            (&["v?"], "v12", false),
            (&["{main,next}"], "next", true),
            (&["*", "!wip*"], "wip-1", false),
            (&["*", "!wip*", "wip-keep"], "wip-keep", true),
            (&["!wip*"], "main", true),
            (&["!wip*"], "wip-1", false),
            (&["docs/**"], "docs/a/b.md", true),
            (&["docs/**"], "docs", false),
            (&["**/*.md"], "README.md", true),
            (&["**/*.md"], "a/b/c.md", true),
            (&["*.md"], "a/b.md", false),
            (&[], "main", false),
        ] {
            assert_eq!(patterns(texts).choose(text), is_chosen, "{texts:?} {text}");
        }
    }

    #[test]
    fn a_pattern_is_closed_and_short() {
        for text in ["", "!", " a", "a[", "{a", "a\n", &"*".repeat(17), &"a".repeat(251)] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert!(Patterns::try_from(vec!["a".parse::<Pattern>().unwrap(); 65]).is_err());
    }

    #[test]
    fn no_pattern_takes_long() {
        let began = Instant::now();
        let path = "a/".repeat(2000);
        for text in [
            "**/a/**/a/**/a/**/b",
            "*a*a*a*a*a*a*a*b",
            "{a,b}{a,b}{a,b}{a,b}**/c",
            "[a-z]**/*/**/*/**x",
        ] {
            let chosen = patterns(&[text]);
            assert!(!chosen.choose(&path), "{text}");
            assert!(!chosen.choose(&"a".repeat(4000)), "{text}");
        }
        // A matcher that tries all ways to divide the text would take years.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
