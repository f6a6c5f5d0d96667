//! Operations on API tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_api::TokenCreate;
use gantry_domain::id::{RegistryName, RunPrefix, TokenId};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::token::{Scope, Token};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{registries, tokens};
use zeroize::Zeroizing;

use super::paging::{Listed, Paging};
use crate::access::{Admin, Allowed, Grant, issue};
use crate::refusal::{Mistakes, Refusal};
use crate::state::State;

/// The most registries of one token.
const MOST_REGISTRIES: usize = 100;

/// Ten years. A longer life is not accepted: leave it out for a token that does not expire.
const LONGEST_LIFE: u64 = 10 * 365 * 24 * 3600;

/// Lists tokens, including revoked and expired ones.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Admin>,
    paging: &Paging,
) -> Result<Listed<Token>, Refusal> {
    allowed.check_everywhere()?;
    let store = state.store.as_ref();
    let after: Option<TokenId> = paging.after_id()?;
    let found = tokens::list(store, after.as_ref(), paging.limit() + 1).await?;
    Ok(Listed::of(found, paging.limit(), |token| token.id.to_string()))
}

/// Creates a token, and returns its text, which cannot be retrieved again.
pub(crate) async fn create(
    state: &State,
    allowed: &Allowed<Admin>,
    new: &TokenCreate,
    now: Timestamp,
) -> Result<(Token, Zeroizing<String>), Refusal> {
    allowed.check_everywhere()?;
    let mut mistakes = Mistakes::default();
    let scope = mistakes.parse::<Scope>("scope", &new.scope);
    if new.description.chars().count() > 200 || new.description.chars().any(char::is_control) {
        mistakes.add("description", "at most 200 characters, none of them control");
    }
    let registries = match &new.registries {
        None => None,
        Some(names) => Some(bind(state.store.as_ref(), &mut mistakes, names).await?),
    };
    if new.expires_in.is_some_and(|seconds| !(1..=LONGEST_LIFE).contains(&seconds)) {
        mistakes.add("expires_in", "1 second to 10 years");
    }
    let Some(scope) = scope else {
        return Err(Refusal::Invalid(mistakes));
    };
    mistakes.none()?;
    let grant = Grant {
        description: new.description.clone(),
        scope,
        registries,
        expires: new.expires_in.map(|seconds| now.after(Duration::from_secs(seconds))),
    };
    Ok(issue(state.store.as_ref(), grant).await?)
}

/// The current registries of these names. The token will not be valid for later registries of the same name.
async fn bind(
    store: &dyn Store,
    mistakes: &mut Mistakes,
    names: &[String],
) -> Result<BTreeMap<RegistryName, RunPrefix>, StoreError> {
    if names.is_empty() || names.len() > MOST_REGISTRIES {
        let message = format!("name 1 to {MOST_REGISTRIES}, or leave it out for all");
        mistakes.add("registries", message);
        return Ok(BTreeMap::new());
    }
    let mut bound = BTreeMap::new();
    for name in names {
        let Some(name) = mistakes.parse::<RegistryName>("registries", name) else { continue };
        match registries::find(store, &name).await? {
            Some(registry) => {
                bound.insert(name, registry.prefix);
            }
            None => mistakes.add(
                "registries",
                format!(
                    "there is no registry `{name}`: create it first, see `gantry registry list`"
                ),
            ),
        }
    }
    Ok(bound)
}

/// Revokes a token permanently.
pub(crate) async fn revoke(
    state: &State,
    allowed: &Allowed<Admin>,
    id: &TokenId,
    now: Timestamp,
) -> Result<Token, Refusal> {
    allowed.check_everywhere()?;
    let revoked = tokens::revoke(state.store.as_ref(), id, now).await?;
    revoked.ok_or_else(|| Refusal::NotFound { what: "token", name: id.to_string() })
}
