//! Patterns of tags, and which tag that matches one is the newest. Pure: the tags of a repository are passed in.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use semver::{Version, VersionReq};

use crate::InvalidText;
use crate::image::Tag;
use crate::text::serde_as_text;

/// The longest pattern.
const LONGEST: usize = 100;

/// The most `*` of a pattern.
const MOST_STARS: usize = 4;

/// A pattern of tags.
///
/// One that begins with `^`, `~`, `>`, `<` or `=` is a range of versions, any other one a glob. `*` stands for a version:
/// numbers with dots between them. So neither kind takes in another variant, like `20.1-slim`, or a pre-release, unless its
/// own text says so.
#[derive(Debug, Clone)]
pub struct TagPattern {
    text: String,
    /// The range of the version with which a tag begins; `None` for a glob.
    range: Option<VersionReq>,
    /// What else a tag consists of: all of it, or what follows the version.
    glob: Glob,
}

/// How new a tag is among those that match a pattern: its numbers from left to right. Of `20`, `20.0` and `20.0.0` the last
/// is the newest, because it says most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Vec<Vec<u64>>);

impl TagPattern {
    /// The pattern as text. A range has commas between its parts.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How new a tag is; `None` if it does not match.
    #[must_use]
    pub fn rank(&self, tag: &Tag) -> Option<Rank> {
        let mut numbers = Vec::new();
        let Some(range) = &self.range else {
            return self.glob.read(tag.as_str(), false, &mut numbers).then_some(Rank(numbers));
        };
        let (version, rest) = version_of(tag)?;
        let is_in = range.matches(&filled(&version, 0)?);
        numbers.push(version);
        (is_in && self.glob.read(rest, false, &mut numbers)).then_some(Rank(numbers))
    }

    /// The newest of the tags that match.
    pub fn newest<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>) -> Option<&'a Tag> {
        let ranked = tags.into_iter().filter_map(|tag| Some((self.rank(tag)?, Reverse(tag))));
        ranked.max().map(|(_, Reverse(tag))| tag)
    }

    /// Whether it is about a tag that somebody has written: one that matches, or that leaves out the last numbers of those
    /// that match. `20.*` and `^20.1` cover `20`.
    #[must_use]
    pub fn covers(&self, written: &Tag) -> bool {
        let Some(range) = &self.range else {
            return self.glob.read(written.as_str(), true, &mut Vec::new());
        };
        let Some((version, rest)) = version_of(written) else { return false };
        let ends = [filled(&version, 0), filled(&version, u64::MAX)];
        let bounds = range.comparators.iter().map(|it| {
            let bound = Version::new(it.major, it.minor.unwrap_or(0), it.patch.unwrap_or(0));
            let numbers = [bound.major, bound.minor, bound.patch];
            numbers.starts_with(&version).then_some(bound)
        });
        let mut possible = ends.into_iter().chain(bounds).flatten();
        possible.any(|version| range.matches(&version))
            && self.glob.read(rest, false, &mut Vec::new())
    }
}

/// The version with which a tag begins, of one to three numbers, and the rest. A `v` before it is left out.
fn version_of(tag: &Tag) -> Option<(Vec<u64>, &str)> {
    let (numbers, rest) = numbers_of(tag.as_str().strip_prefix('v').unwrap_or(tag.as_str()))?;
    (numbers.len() <= 3).then_some((numbers, rest))
}

/// A version with `other` in place of the numbers that it leaves out.
fn filled(numbers: &[u64], other: u64) -> Option<Version> {
    let at = |place: usize| numbers.get(place).copied().unwrap_or(other);
    numbers.first().map(|major| Version::new(*major, at(1), at(2)))
}

/// The numbers with which a text begins, with dots between them, and the rest. A number that needs more than 64 bits is none.
fn numbers_of(text: &str) -> Option<(Vec<u64>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let numbers: Option<Vec<u64>> = numbers.split('.').map(|number| number.parse().ok()).collect();
    Some((numbers?, rest))
}

/// The texts between the `*` of a pattern. No digit is before a `*`, and neither a digit nor a dot after it, so that there is
/// one way to read a tag.
#[derive(Debug, Clone)]
struct Glob(Vec<String>);

impl Glob {
    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<String> = text.split('*').map(str::to_owned).collect();
        let ends_well = |part: &String| !part.ends_with(|c: char| c.is_ascii_digit());
        let begins_well =
            |part: &String| !part.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let (_, before_a_star) = parts.split_last()?;
        let is_clear = before_a_star.iter().all(ends_well)
            && parts.iter().skip(1).all(begins_well)
            && before_a_star.iter().skip(1).all(|part| !part.is_empty())
            && parts.len() <= MOST_STARS + 1;
        is_clear.then_some(Self(parts))
    }

    /// Reads all of a text, and adds the numbers for which `*` stand. With `may_lack`, `.*` may be left out.
    fn read(&self, text: &str, may_lack: bool, numbers: &mut Vec<Vec<u64>>) -> bool {
        let mut rest = text;
        let mut lacks = false;
        for (place, part) in self.0.iter().enumerate() {
            if place > 0 && !lacks {
                let Some((found, after)) = numbers_of(rest) else { return false };
                numbers.push(found);
                rest = after;
            }
            let is_before_star = place + 1 < self.0.len();
            let shorter = part.strip_suffix('.').filter(|_| may_lack && is_before_star);
            (rest, lacks) = match (rest.strip_prefix(part.as_str()), shorter) {
                (Some(after), _) => (after, false),
                (None, Some(shorter)) => match rest.strip_prefix(shorter) {
                    Some(after) => (after, true),
                    None => return false,
                },
                (None, None) => return false,
            };
        }
        rest.is_empty()
    }
}

impl FromStr for TagPattern {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || {
            InvalidText::new(
                "pattern of tags",
                text,
                "a glob like `20.*` or `20.*-slim`, in which `*` stands for all numbers that follow, with neither a digit \
                 before it nor a digit or dot after it, or a range of versions like `^20.1`, `~1.2` or `>=20 <22`, with a \
                 suffix as in `^20.1-slim`",
            )
        };
        if text.len() > LONGEST {
            return Err(refused());
        }
        let is_range = text.starts_with(['^', '~', '>', '<', '=']);
        let (range, glob) = match text.find('-').filter(|_| is_range) {
            Some(at) => text.split_at(at),
            None if is_range => (text, ""),
            None => ("", text),
        };
        // A tag is refused for the same characters.
        let sample = glob.replace('*', "0");
        let sample = if is_range { format!("0{sample}") } else { sample };
        let is_glob = is_range || glob.contains('*');
        if !is_glob || sample.parse::<Tag>().is_err() {
            return Err(refused());
        }
        let parsed = Glob::parse(glob).ok_or_else(refused)?;
        if !is_range {
            return Ok(Self { text: text.to_owned(), range: None, glob: parsed });
        }
        let range = with_commas(range);
        let is_plain = range.chars().all(|c| c.is_ascii_digit() || ".,^~<>=".contains(c));
        let known = VersionReq::parse(&range).ok().filter(|_| is_plain);
        let known = known.ok_or_else(refused)?;
        Ok(Self { text: format!("{range}{glob}"), range: Some(known), glob: parsed })
    }
}

/// A range with one comma between its parts, and without spaces: `>=20,<22`.
fn with_commas(range: &str) -> String {
    let mut text = String::new();
    for c in range.chars() {
        match c {
            ' ' | ',' if text.ends_with(|c: char| c.is_ascii_digit()) => text.push(','),
            ' ' | ',' => {}
            c => text.push(c),
        }
    }
    text.trim_end_matches(',').to_owned()
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_as_text!(TagPattern);

impl PartialEq for TagPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TagPattern {}

impl PartialOrd for TagPattern {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TagPattern {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for TagPattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> TagPattern {
        text.parse().unwrap()
    }

    fn tags(texts: &[&str]) -> Vec<Tag> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn newest(of: &str, texts: &[&str]) -> Option<String> {
        pattern(of).newest(&tags(texts)).map(ToString::to_string)
    }

    #[test]
    fn the_newest_tag_is_the_one_with_the_greatest_numbers_among_those_that_match() {
        for (of, texts, expected) in [
            ("20.*", &["20.9.0", "20.11.1", "20.2", "21.0.0"][..], Some("20.11.1")),
            ("20.*", &["20", "20.0", "20.0.0"], Some("20.0.0")),
            ("20.*", &["20.11-slim", "20.12.0-rc.1", "20.12.0rc1", "20.3"], Some("20.3")),
            (
                "20.*-slim",
                &["20.9-slim", "20.11-slim", "20.12", "20.13-alpine"],
                Some("20.11-slim"),
            ),
            (
                "*-alpine*",
                &["20.1-alpine3.19", "20.1-alpine3.20", "19-alpine4", "20.2"],
                Some("20.1-alpine3.20"),
            ),
            ("v1.*", &["v1.2", "1.9", "v1.10", "v2.0"], Some("v1.10")),
            (
                "bookworm-*-slim",
                &["bookworm-20240612-slim", "bookworm-20240211-slim", "bookworm-slim"],
                Some("bookworm-20240612-slim"),
            ),
            ("2.0-rc*", &["2.0-rc9", "2.0-rc10", "2.0", "2.0-rc"], Some("2.0-rc10")),
            ("*", &["latest", "3", "3.1", "stable-4", "abcdef1"], Some("3.1")),
            ("^20.1", &["20.0.9", "20.1.0", "v20.3.0", "21.0.0"], Some("v20.3.0")),
            ("^20.1", &["20", "20.1"], Some("20.1")),
            ("~1.2", &["1.2.3", "1.2.10", "1.3.0"], Some("1.2.10")),
            (">=20 <22", &["19.9", "20.1", "21.9.9", "22.0.0"], Some("21.9.9")),
            ("^1", &["1.3.0-rc.1", "1.2.0", "1.4.0-alpine"], Some("1.2.0")),
            ("^1-rc.*", &["1.3.0-rc.2", "1.3.0-rc.10", "1.4.0"], Some("1.3.0-rc.10")),
            ("^20-slim", &["20.1-slim", "20.2-slim", "20.3"], Some("20.2-slim")),
            ("^1", &["v1.2.3", "1.2.3"], Some("1.2.3")),
            ("^1", &["1.2.3.4", "2.0"], None),
            ("20.*", &[], None),
        ] {
            assert_eq!(newest(of, texts).as_deref(), expected, "{of} {texts:?}");
            let turned: Vec<&str> = texts.iter().rev().copied().collect();
            assert_eq!(newest(of, &turned).as_deref(), expected, "{of} in the other order");
        }
    }

    #[test]
    fn a_pattern_covers_a_written_tag_that_it_matches_or_that_says_less() {
        for (of, covered, others) in [
            ("20.*", &["20", "20.1", "20.11.3"][..], &["2", "21", "20-slim", "latest", "200"][..]),
            ("20.*-slim", &["20-slim", "20.1-slim"], &["20", "20.1", "slim", "20.-slim"]),
            ("v1.*", &["v1", "v1.2"], &["1", "1.2", "v2"]),
            ("^20.1", &["20", "20.1", "20.9.1", "v20"], &["20.0", "21", "latest", "20-slim"]),
            (">=20.1 <20.5", &["20", "20.1", "20.4.9"], &["20.5", "20.0.1", "19"]),
            ("~1.2-slim", &["1.2-slim", "1-slim"], &["1.2", "1.3-slim"]),
            ("*", &["3", "3.1"], &["latest", "v3"]),
        ] {
            for tag in tags(covered) {
                assert!(pattern(of).covers(&tag), "{of} {tag}");
            }
            for tag in tags(others) {
                assert!(!pattern(of).covers(&tag), "{of} {tag}");
            }
        }
    }

    #[test]
    fn a_range_is_written_in_one_way() {
        for (text, written) in [
            (">=20 <22", ">=20,<22"),
            (">= 20, < 22", ">=20,<22"),
            ("^20.1-slim", "^20.1-slim"),
            ("20.*", "20.*"),
        ] {
            assert_eq!(pattern(text).to_string(), written);
            assert_eq!(pattern(written), pattern(text));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "20",
            "latest",
            "20*",
            "*.1",
            "20.*.*",
            "**",
            "20.*1",
            "^",
            "^x",
            "^20.1 || ^22",
            "20.* ",
            "-*",
            "a/*",
            "*-*-*-*-*",
            "^1+2",
            ">=20 <",
            "^20.1-sl im",
            &"a".repeat(101),
        ] {
            assert!(text.parse::<TagPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_lists_of_tags_choose_nothing_that_is_no_version() {
        let huge = "9".repeat(100);
        let mut all: Vec<Tag> = (0..10_000).map(|n| format!("1.{n}").parse().unwrap()).collect();
        all.extend(tags(&[
            &format!("1.{huge}"),
            "1.",
            "1..2",
            "1.2.",
            "1._",
            "_",
            "1.99999-x",
            "1.-1",
            "1.0x10",
            &format!("1.{}", "1.".repeat(60)),
        ]));
        assert_eq!(pattern("1.*").newest(&all).unwrap().as_str(), "1.9999");
        assert_eq!(pattern("^1").newest(&all).unwrap().as_str(), "1.9999");
        let largest = format!("1.{}", u64::MAX);
        all.extend(tags(&[&largest]));
        assert_eq!(pattern("~1").newest(&all).unwrap().as_str(), largest);
    }

    proptest! {
        #[test]
        fn any_pattern_reads_any_tag(text in "[\\^~<>=]{0,2}[0-9v.*, -]{0,12}", tag in "[0-9a-z_][0-9a-z_.-]{0,20}") {
            if let (Ok(pattern), Ok(tag)) = (text.parse::<TagPattern>(), tag.parse::<Tag>()) {
                prop_assert!(pattern.rank(&tag).is_none() || pattern.covers(&tag));
                prop_assert_eq!(pattern.to_string().parse::<TagPattern>().unwrap(), pattern);
            }
        }
    }
}
