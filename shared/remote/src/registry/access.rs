//! How requests are authorized at one registry for one user, as learned from the registry's challenges.

use std::collections::HashMap;

use gantry_ops::secret::SecretString;
use tokio::time::Instant;

/// More scopes than a user's images have repositories, usually. What is forgotten costs two requests to learn again.
const MOST_SCOPES: usize = 4096;

/// How requests of one scope are authorized.
#[derive(Debug, Clone)]
pub(super) enum Access {
    Basic,
    Token { token: SecretString, until: Instant },
}

impl Access {
    fn is_valid(&self, now: Instant) -> bool {
        match self {
            Self::Basic => true,
            Self::Token { until, .. } => *until > now,
        }
    }

    /// Tokens that end first are worth the least. `Basic` is learned with one request less.
    fn worth(&self) -> Option<Instant> {
        match self {
            Self::Basic => None,
            Self::Token { until, .. } => Some(*until),
        }
    }
}

/// The access by scope, for a limited number of scopes.
#[derive(Debug, Default)]
pub(super) struct KnownAccess {
    by_scope: HashMap<String, Access>,
}

impl KnownAccess {
    /// The access to a scope, unless it has expired.
    pub(super) fn find(&self, scope: &str, now: Instant) -> Option<Access> {
        self.by_scope.get(scope).filter(|access| access.is_valid(now)).cloned()
    }

    /// Keeps the access to a scope. If there are too many, the least useful is forgotten.
    pub(super) fn learn(&mut self, scope: String, access: Access, now: Instant) {
        if self.by_scope.len() >= MOST_SCOPES && !self.by_scope.contains_key(&scope) {
            self.by_scope.retain(|_, access| access.is_valid(now));
        }
        if self.by_scope.len() >= MOST_SCOPES && !self.by_scope.contains_key(&scope) {
            let least = self.by_scope.iter().min_by_key(|(_, access)| access.worth());
            if let Some(least) = least.map(|(scope, _)| scope.clone()) {
                self.by_scope.remove(&least);
            }
        }
        self.by_scope.insert(scope, access);
    }

    /// Forgets the access to a scope, which the registry no longer accepts.
    pub(super) fn forget(&mut self, scope: &str) {
        self.by_scope.remove(scope);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(until: Instant) -> Access {
        Access::Token { token: "t".into(), until }
    }

    #[test]
    fn a_token_is_used_until_it_expires() {
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        let mut known = KnownAccess::default();
        known.learn("a".to_owned(), token(now + minute), now);
        known.learn("b".to_owned(), Access::Basic, now);
        assert!(known.find("a", now).is_some());
        assert!(known.find("a", now + minute).is_none());
        assert!(known.find("b", now + minute).is_some());
        known.forget("b");
        assert!(known.find("b", now).is_none());
    }

    #[test]
    fn a_full_cache_forgets_expired_tokens_and_then_the_one_that_expires_first() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut known = KnownAccess::default();
        for number in 0..MOST_SCOPES {
            let until = now + second * u32::try_from(number + 1).unwrap();
            known.learn(number.to_string(), token(until), now);
        }
        known.learn("new".to_owned(), token(now + second * 9999), now);
        assert_eq!(known.by_scope.len(), MOST_SCOPES);
        assert!(known.find("0", now).is_none() && known.find("1", now).is_some());
        // Learned anew, a known scope takes no place.
        known.learn("new".to_owned(), token(now + second * 9998), now);
        assert!(known.find("1", now).is_some());
        known.learn("newer".to_owned(), token(now + second * 9999), now + second * 100);
        assert_eq!(known.by_scope.len(), MOST_SCOPES - 98);
    }
}
