//! Semantic versions and their constraints, as `Masterminds/semver` 1 compares them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::super::error::TemplateErrorKind;
use super::super::value::Value;
use super::{Call, Function};

mod constraint;

use constraint::Constraints;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("semver", 1, Some(1), semver),
    Function::test("semverCompare", 2, Some(2), semver_compare),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

/// A map with the fields of a version. The original has methods beside them, which no map can have.
fn semver(call: &mut Call<'_>) -> Result {
    let text = call.text(0)?;
    let version = parsed(call, text)?;
    let number = |number: u64| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
    let fields = [
        ("Major", number(version.numbers[0])),
        ("Minor", number(version.numbers[1])),
        ("Patch", number(version.numbers[2])),
        ("Prerelease", version.prerelease.into()),
        ("Metadata", version.metadata.into()),
        ("Original", text.into()),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Ok(BTreeMap::from(fields).into())
}

/// Whether a version satisfies a constraint.
fn semver_compare(call: &mut Call<'_>) -> Result {
    let constraints = Constraints::parse(call.text(0)?)
        .ok_or_else(|| call.fails("the first argument is not a constraint on versions"))?;
    let version = parsed(call, call.text(1)?)?;
    Ok(constraints.admit(&version).into())
}

fn parsed<'a>(
    call: &Call<'_>,
    text: &'a str,
) -> std::result::Result<Version<'a>, TemplateErrorKind> {
    let version = text.strip_prefix('v').unwrap_or(text);
    Version::parse(version).ok_or_else(|| call.fails("the text is not a semantic version"))
}

#[derive(Debug)]
struct Version<'a> {
    /// Major, minor, patch.
    numbers: [u64; 3],
    /// Empty for a release.
    prerelease: &'a str,
    metadata: &'a str,
}

impl<'a> Version<'a> {
    /// Parses `1.2.3-beta.1+meta`. Minor and patch may be missing.
    fn parse(text: &'a str) -> Option<Self> {
        let (core, prerelease, metadata) = split_parts(text)?;
        let mut numbers = [0; 3];
        let mut words = core.split('.');
        for (index, number) in numbers.iter_mut().enumerate() {
            match words.next() {
                Some(word) if word.chars().all(|digit| digit.is_ascii_digit()) => {
                    *number = word.parse::<i64>().ok()?.unsigned_abs();
                }
                None if index > 0 => {}
                _ => return None,
            }
        }
        words.next().is_none().then_some(Self { numbers, prerelease, metadata })
    }

    fn compare(&self, other: &Self) -> Ordering {
        let by_prerelease = || match (self.prerelease, other.prerelease) {
            ("", "") => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (one, other) => compare_prereleases(one, other),
        };
        self.numbers.cmp(&other.numbers).then_with(by_prerelease)
    }
}

/// Splits `1.2.3-beta.1+meta` in three; `None` if what follows `-` or `+` is malformed.
fn split_parts(text: &str) -> Option<(&str, &str, &str)> {
    let (text, metadata) = text.split_once('+').map_or((text, None), |(a, b)| (a, Some(b)));
    let (core, prerelease) = text.split_once('-').map_or((text, None), |(a, b)| (a, Some(b)));
    let is_word = |word: &str| {
        !word.is_empty()
            && word.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
    };
    let is_valid = |part: Option<&str>| part.is_none_or(|part| part.split('.').all(is_word));
    let is_valid = is_valid(prerelease) && is_valid(metadata);
    is_valid.then_some((core, prerelease.unwrap_or(""), metadata.unwrap_or("")))
}

/// Numbers come before words, and the shorter of two prereleases that begin alike before the longer.
fn compare_prereleases(one: &str, other: &str) -> Ordering {
    let (mut ones, mut others) = (one.split('.'), other.split('.'));
    loop {
        let order = match (ones.next(), others.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(one), Some(other)) => match (one.parse::<u64>(), other.parse::<u64>()) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => one.cmp(other),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}
