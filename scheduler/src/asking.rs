//! What all requests to the APIs of code hosts have in common.

use std::time::Duration;

use futures_util::future::BoxFuture;
use gantry_domain::id::LeaseNonce;
use gantry_domain::registry::Registry;
use gantry_domain::sealed::Sealed;
use gantry_domain::task::Task;
use gantry_ops::secret::{ExposeSecret, Keyring, SecretString, random_hex};
use gantry_remote::code_host::{CodeHostError, CodeHostFailure, RepositoryAccess};
use gantry_seams::store::StoreError;

/// How many tokens are tried. More tasks would only send the same query to the same host.
const TOKENS: usize = 3;

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

/// Sends a query with the address and token of each task in turn, until one is accepted. It never uses an address from an
/// event: then a sender of hooks could have the tokens sent to a server of its own.
pub(crate) async fn with_tokens<T>(
    keyring: &Keyring,
    tasks: &[Task],
    token_of: impl Fn(&Task) -> Option<&Sealed>,
    query: impl for<'q> Fn(RepositoryAccess<'q>) -> BoxFuture<'q, Result<T, CodeHostError>>,
) -> Result<T, CodeHostError> {
    let mut last = refused("no task reads the repository from git".to_owned());
    let with_git = tasks.iter().filter_map(|task| Some((task, task.repository()?)));
    for (task, url) in with_git.take(TOKENS) {
        let open = |sealed| keyring.open(&Registry::seals_for(task.prefix), sealed);
        let token = match token_of(task).map(open).transpose() {
            Ok(token) => token,
            Err(error) => {
                last = refused(error.to_string());
                continue;
            }
        };
        match query(RepositoryAccess {
            url,
            registry: Some(&task.id.registry),
            token: token.as_ref(),
            host_keys: task.recipe.source.host_keys(),
        })
        .await
        {
            Err(error) if error.refused_token() => last = error,
            answer => return answer,
        }
    }
    Err(last)
}

fn refused(message: String) -> CodeHostError {
    CodeHostError { message, kind: CodeHostFailure::RefusedToken }
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
