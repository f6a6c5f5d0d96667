//! How many more requests a registry allows, according to the headers of its answers.

use std::time::Duration;

use reqwest::header::HeaderMap;

/// No registry's limit lasts longer. A larger number is usually a time of day, or a mistake.
pub(crate) const LONGEST_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How many more requests a registry allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The requests that are left.
    pub remaining: u64,
    /// After this time at the latest there are more. At most a day.
    pub resets_in: Duration,
}

impl Allowance {
    /// The allowance of an answer, if it has one that says when it is reset: `RateLimit-Remaining` with the window of
    /// Docker Hub (`76;w=21600`) or with `RateLimit-Reset`, or `RateLimit` with all in one, by any version of the draft.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let (remaining, seconds) = match header("ratelimit") {
            Some(all) => (parameter(all, &["remaining", "r"])?, parameter(all, &["reset", "t"])?),
            None => {
                let left = header("ratelimit-remaining")?;
                let reset = header("ratelimit-reset").and_then(number);
                (number(left)?, reset.or_else(|| parameter(left, &["w"]))?)
            }
        };
        Some(Self { remaining, resets_in: Duration::from_secs(seconds).min(LONGEST_LIMIT) })
    }
}

/// The number before any parameters.
fn number(text: &str) -> Option<u64> {
    text.split(';').next()?.trim().parse().ok()
}

/// The number of the first parameter with one of these names.
fn parameter(text: &str, names: &[&str]) -> Option<u64> {
    let pairs = text.split([',', ';']).filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| names.contains(&name.trim()));
    values.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn allowance(headers: &[(&'static str, &'static str)]) -> Option<(u64, u64)> {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let allowance = Allowance::of(&pairs.collect::<HeaderMap>())?;
        Some((allowance.remaining, allowance.resets_in.as_secs()))
    }

    #[test]
    fn the_headers_of_real_registries_and_of_the_drafts_are_read() {
        for (headers, read) in [
            // Docker Hub.
            (
                &[
                    ("ratelimit-limit", "100;w=21600"),
                    ("ratelimit-remaining", "76;w=21600"),
                    ("docker-ratelimit-source", "192.0.2.7"),
                ][..],
                Some((76, 21600)),
            ),
            (&[("ratelimit-remaining", "0"), ("ratelimit-reset", "30")], Some((0, 30))),
            (&[("ratelimit-remaining", "5;w=60"), ("ratelimit-reset", "7")], Some((5, 7))),
            (&[("ratelimit", "limit=100, remaining=50, reset=30")], Some((50, 30))),
            (&[("ratelimit", "\"default\";r=50;t=30")], Some((50, 30))),
            // A time of day instead of a duration.
            (
                &[("ratelimit-remaining", "5"), ("ratelimit-reset", "1764530000")],
                Some((5, 24 * 3600)),
            ),
            (&[("ratelimit-remaining", "5")], None),
            (&[("ratelimit", "limit=100")], None),
            (&[("ratelimit-remaining", "many;w=60")], None),
            (&[("ratelimit-remaining", "-1;w=60")], None),
            (&[("ratelimit-remaining", "5;w=99999999999999999999")], None),
            (&[], None),
        ] {
            assert_eq!(allowance(headers), read, "{headers:?}");
        }
    }
}
