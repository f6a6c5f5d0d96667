//! A token that one login obtains for many requests.

use std::future::Future;
use std::time::Duration;

use gantry_ops::secret::SecretString;
use reqwest::StatusCode;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::VaultError;
use super::exchange::Answer;

/// Subtracted from the lifetime, for the time until the request arrives.
const MARGIN: Duration = Duration::from_secs(10);
/// The longest time that a token is used, whatever the server says.
const MOST: Duration = Duration::from_secs(3600);

/// The latest token. While it is being obtained, all other requests wait for it; if that fails or is cancelled, the next
/// one tries.
#[derive(Default)]
pub(super) struct TokenCache {
    latest: Mutex<Option<Token>>,
}

/// What a login returned.
pub(super) struct Granted {
    pub(super) token: SecretString,
    pub(super) lifetime: Duration,
}

#[derive(Clone)]
struct Token {
    token: SecretString,
    until: Instant,
    /// Counts the logins, so that a rejected token can be distinguished from the one that replaced it.
    serial: u64,
}

impl TokenCache {
    /// Sends a request with the token, obtained by `login` if there is none. If the answer has the status `rejected`, the
    /// token may have been revoked: sends it once more with a new one, unless it was new.
    pub(super) async fn send<L, S>(
        &self,
        now: Instant,
        rejected: StatusCode,
        login: impl Fn() -> L,
        send: impl Fn(SecretString) -> S,
    ) -> Result<Answer, VaultError>
    where
        L: Future<Output = Result<Granted, VaultError>>,
        S: Future<Output = Result<Answer, VaultError>>,
    {
        let (token, is_new) = self.token(now, None, login()).await?;
        let answer = send(token.token).await?;
        if answer.status != rejected || is_new {
            return Ok(answer);
        }
        let (token, _) = self.token(now, Some(token.serial), login()).await?;
        send(token.token).await
    }

    /// The token, and whether it comes from this `login`. `rejected` is the serial of a token that is no longer accepted.
    async fn token(
        &self,
        now: Instant,
        rejected: Option<u64>,
        login: impl Future<Output = Result<Granted, VaultError>>,
    ) -> Result<(Token, bool), VaultError> {
        let mut latest = self.latest.lock().await;
        match &*latest {
            Some(token) if token.until > now && Some(token.serial) != rejected => {
                Ok((token.clone(), false))
            }
            former => {
                let serial = former.as_ref().map_or(0, |former| former.serial + 1);
                let Granted { token, lifetime } = login.await?;
                let until = now + lifetime.min(MOST).saturating_sub(MARGIN);
                let token = Token { token, until, serial };
                *latest = Some(token.clone());
                Ok((token, true))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_ops::secret::ExposeSecret as _;

    use super::*;

    async fn granted(token: &str, seconds: u64) -> Result<Granted, VaultError> {
        Ok(Granted { token: token.into(), lifetime: Duration::from_secs(seconds) })
    }

    async fn used(tokens: &TokenCache, now: Instant, rejected: Option<u64>, next: &str) -> String {
        let (token, _) = tokens.token(now, rejected, granted(next, 60)).await.unwrap();
        token.token.expose_secret().to_owned()
    }

    #[tokio::test]
    async fn a_token_is_used_until_shortly_before_it_expires() {
        let (tokens, now) = (TokenCache::default(), Instant::now());
        assert_eq!(used(&tokens, now, None, "a").await, "a");
        assert_eq!(used(&tokens, now + Duration::from_secs(49), None, "b").await, "a");
        assert_eq!(used(&tokens, now + Duration::from_secs(50), None, "c").await, "c");
    }

    #[tokio::test]
    async fn any_lifetime_is_accepted_and_bounded() {
        let now = Instant::now();
        for (lifetime, used) in [(0, 0), (9, 0), (11, 1), (3600, 3590), (u64::MAX, 3590)] {
            let tokens = TokenCache::default();
            let (token, is_new) = tokens.token(now, None, granted("a", lifetime)).await.unwrap();
            assert!(is_new);
            assert_eq!(token.until, now + Duration::from_secs(used), "{lifetime}");
        }
    }

    #[tokio::test]
    async fn a_rejected_token_is_replaced_once() {
        let (tokens, now) = (TokenCache::default(), Instant::now());
        assert_eq!(used(&tokens, now, None, "a").await, "a");
        assert_eq!(used(&tokens, now, Some(0), "b").await, "b");
        // Another request had also used the first one.
        assert_eq!(used(&tokens, now, Some(0), "c").await, "b");
    }
}
