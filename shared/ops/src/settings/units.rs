//! Parses durations and sizes: a number with a unit.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

const DURATION_RULE: &str =
    "a duration is a whole number and `ms`, `s`, `m`, `h` or `d`, like `30s`";
const SIZE_RULE: &str =
    "a size is a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`, like `10GiB`";

/// Parses a duration, like `30s`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

/// Parses a size, like `10GiB`, to bytes.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).ok_or_else(|| serde::de::Error::custom(SIZE_RULE))
}

/// Parses a duration of settings and options: `30s`, `12h`, `90d`.
///
/// # Errors
/// The rule that the text violates.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    read_duration(text).ok_or(DURATION_RULE)
}

fn read_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_never_guessed() {
        assert_eq!(read_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(read_duration("30 d"), Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_size("10GiB"), Some(10 << 30));
        for refused in [
            "",
            "30",
            "s",
            "-1s",
            "1.5h",
            "30sec",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(read_duration(refused), None, "{refused}");
        }
        for refused in ["10", "10GB", "10gib", "18446744073709551615KiB"] {
            assert_eq!(parse_size(refused), None, "{refused}");
        }
    }
}
