//! Authenticates requests by `Authorization: Bearer gantry_<id>_<secret>`.

use std::future::{Ready, ready};

use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use gantry_domain::id::TokenId;
use gantry_domain::token::Token;
use gantry_seams::store::Store;
use gantry_seams::tokens;
use zeroize::Zeroizing;

use super::issue::{PREFIX, is_secret_of};
use super::{Allowed, Needs};
use crate::connections;
use crate::error::ApiError;
use crate::refusal::Refusal;
use crate::state::State;

/// The valid token of a request.
#[derive(Clone)]
struct Shown(Token);

/// Requires a valid token before anything else of the request is read, so that a caller without one learns nothing
/// else.
pub(crate) async fn with_token(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let state = request.app_data::<web::Data<State>>().cloned();
    let shown = bearer(request.request()).map(Zeroizing::new);
    let (Some(state), Some(shown)) = (state, shown) else {
        return Err(ApiError::from(Refusal::Unauthorized).into());
    };
    let token = authenticate(state.store.as_ref(), &shown).await.map_err(ApiError::from)?;
    connections::showed_token(request.request(), &token.id).map_err(ApiError::from)?;
    request.extensions_mut().insert(Shown(token));
    next.call(request).await
}

fn bearer(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

async fn authenticate(store: &dyn Store, shown: &str) -> Result<Token, Refusal> {
    let (id, secret) = shown
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.rsplit_once('_'))
        .ok_or(Refusal::Unauthorized)?;
    let id: TokenId = id.parse().map_err(|_| Refusal::Unauthorized)?;
    let token = tokens::find(store, &id).await?.ok_or(Refusal::Unauthorized)?;
    if !is_secret_of(&token, secret) || !token.is_active(store.now().await?) {
        return Err(Refusal::Unauthorized);
    }
    Ok(token)
}

impl<S: Needs> FromRequest for Allowed<S> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let Some(Shown(token)) = request.extensions().get().cloned() else {
            return ready(Err(Refusal::Unauthorized.into()));
        };
        ready(Self::with(token).map_err(ApiError::from))
    }
}
