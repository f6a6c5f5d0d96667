//! What all requests to the APIs of code hosts have in common.

use std::time::Duration;

use gantry_domain::id::LeaseNonce;
use gantry_ops::secret::{ExposeSecret, SecretString, random_hex};
use gantry_seams::store::StoreError;

/// The pauses after failed requests.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// The longest pause that a code host may ask for: the limits of providers last an hour.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A nonce for a claim.
pub(crate) fn nonce() -> Result<LeaseNonce, StoreError> {
    let unavailable = |message: String| StoreError::Unavailable { message };
    let random = random_hex::<16>().map_err(|error| unavailable(error.to_string()))?;
    random
        .as_str()
        .parse()
        .map_err(|error: gantry_domain::InvalidText| unavailable(error.to_string()))
}

/// 5 s, doubling to 15 minutes.
pub(crate) fn pause_after(failures: u32) -> Duration {
    (SHORTEST_PAUSE * (1 << failures.min(10))).min(LONGEST_PAUSE)
}

/// A text without a token, of which a host may see the part after `user:` only.
pub(crate) fn without(text: &str, token: Option<&SecretString>) -> String {
    let Some(token) = token.map(ExposeSecret::expose_secret) else { return text.to_owned() };
    let secret = token.split_once(':').map_or(token, |(_, secret)| secret);
    match secret {
        "" => text.to_owned(),
        secret => text.replace(secret, "***"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_seconds_to_a_quarter_of_an_hour() {
        let after = |failures| pause_after(failures).as_secs();
        assert_eq!([0, 1, 2, 7, 8, u32::MAX].map(after), [5, 10, 20, 640, 900, 900]);
    }

    #[test]
    fn a_text_that_repeats_a_token_loses_it() {
        let without =
            |token: &str| without("401 for octo:s3cr3t", Some(&SecretString::from(token)));
        assert_eq!(without("octo:s3cr3t"), "401 for octo:***");
        assert_eq!(without("s3cr3t"), "401 for octo:***");
        assert_eq!(without(""), "401 for octo:s3cr3t");
    }
}
