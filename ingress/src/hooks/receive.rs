//! `POST /hooks/{provider}/{hook}`: limit, verify, record, answer.
//!
//! Every resource is bounded until the signature is verified. An unknown hook gets the same answer as a wrong
//! signature, in the same time. After that the answer is 2xx or 503: on anything else senders retry for ever or disable
//! the hook.

use std::sync::Arc;
use std::time::SystemTime;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use gantry_domain::delivery::Verdict;
use gantry_domain::hook::{Hook, Provider};
use gantry_domain::id::{DeliveryId, EventId, HookId};
use gantry_ops::metrics::{self, HookVerdict};
use gantry_ops::telemetry;
use gantry_seams::store::StoreError;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::body::RawDelivery;
use super::directory::{LookupError, OpenHook};
use super::provider::{self, Descriptor, Envelope, Meaning, descriptor};
use super::record::{Recorded, record};
use super::verify::Proof;
use crate::error::ApiError;
use crate::refusal::Refusal;
use crate::state::State;
use crate::trace;
use gantry_api::HookAccepted;

/// The route's name in traces.
const ROUTE: &str = "/hooks/{provider}/{hook}";

pub(crate) async fn receive(
    state: Data<State>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let Some((provider, hook)) = addressed(&request) else {
        return Err(ApiError::no_route(&request));
    };
    if request.method() != Method::POST {
        return Ok(HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "POST"))
            .finish());
    }
    let unknown = |_| Refusal::NotFound { what: "provider", name: provider.to_owned() };
    let provider: Provider = provider.parse().map_err(unknown)?;
    let began = Instant::now();
    let taken = take(&state, descriptor(provider), hook, &request, payload).await;
    let verdict = match &taken {
        Ok(taken) => taken.verdict,
        Err(error) => verdict_of(error),
    };
    metrics::hook(provider, verdict, began.elapsed());
    Ok(taken?.answer)
}

/// The provider and hook in the path after `/hooks`.
fn addressed(request: &HttpRequest) -> Option<(&str, &str)> {
    let (provider, hook) = request.match_info().unprocessed().strip_prefix('/')?.split_once('/')?;
    (!hook.is_empty() && !hook.contains('/')).then_some((provider, hook))
}

/// The outcome of a request with a valid signature.
pub(super) struct Taken {
    pub(super) verdict: HookVerdict,
    pub(super) answer: HttpResponse,
}

pub(super) async fn take(
    state: &State,
    provider: &Descriptor,
    hook: &str,
    request: &HttpRequest,
    payload: Payload,
) -> Result<Taken, Refusal> {
    let headers = request.headers();
    check_headers(provider, headers)?;
    let began = Instant::now();
    let found = match hook.parse::<HookId>() {
        Ok(id) => find_hook(state, &id, began + provider.store_patience).await?,
        Err(_) => None,
    };
    // The store's patience covers the lookup and the commit, not the time in which the body arrives.
    let patience = provider.store_patience.saturating_sub(began.elapsed());
    let keys = found.as_ref().map_or(state.hooks.nobody(), |found| &found.keys);
    let mapping = found.as_ref().and_then(|found| found.hook.sender.mapping());
    let proof = Proof::new(&provider.proofs_of(mapping), headers, keys, machine_time());
    let (most, body_patience) = (provider.largest_body, state.settings.body_patience);
    let raw =
        RawDelivery::read(request, payload, proof, most, &state.budget, body_patience).await?;
    let verified = raw.verify();
    let Some(found) = found.filter(|found| found.hook.provider() == provider.name) else {
        state.tally.count_unknown();
        return Err(Refusal::HookRefused);
    };
    let hook = &found.hook;
    let verified = verified.map_err(|why| {
        if let Some(count) = state.tally.count_refused(&hook.id) {
            tracing::warn!(hook.id = %hook.id, count, "{count} deliveries to hook {} were refused, the last because {why}", hook.id);
        }
        Refusal::HookRefused
    })?;

    let (body, _held) = verified.into_body().await?;
    let deadline = Instant::now() + patience;
    match read(provider, &found, headers, &body).await? {
        Meaning::Never { id } => {
            state.tally.count(&hook.id, |counts| counts.dropped += 1);
            let answer = accepted(HttpResponse::Accepted(), &id, std::iter::empty());
            Ok(Taken { verdict: HookVerdict::Dropped, answer })
        }
        Meaning::Record(reading) => {
            state.intake.check().inspect_err(|_| {
                state.tally.count(&hook.id, |counts| counts.unavailable += 1);
            })?;
            let span = trace::span_of_delivery(request, ROUTE, &reading.id);
            let recorded = record(state, hook, reading, body).instrument(span.clone());
            let taken = answer(state, hook, timeout_at(deadline, recorded).await);
            if taken.is_err() {
                telemetry::broken(&span, "unavailable");
            }
            taken
        }
    }
}

/// The time of the machine, which senders compare with theirs. No record depends on it.
#[expect(clippy::disallowed_methods, reason = "the store's clock may be behind the senders'")]
pub(super) fn machine_time() -> SystemTime {
    SystemTime::now()
}

fn verdict_of(error: &Refusal) -> HookVerdict {
    match error {
        Refusal::HookRefused | Refusal::Unauthorized | Refusal::Forbidden(_) => {
            HookVerdict::Refused
        }
        Refusal::TooLarge { .. } => HookVerdict::TooLarge,
        Refusal::TooSlow { .. }
        | Refusal::BrokenOff
        | Refusal::UnsupportedMedia(_)
        | Refusal::Invalid(_)
        | Refusal::NotFound { .. }
        | Refusal::Conflict { .. }
        | Refusal::KeyReused { .. } => HookVerdict::Malformed,
        Refusal::TooManyConnections { .. }
        | Refusal::Busy
        | Refusal::Unavailable
        | Refusal::Full
        | Refusal::ObjectsFull
        | Refusal::Internal => HookVerdict::Unavailable,
    }
}

/// Refuses encodings and types that the provider never sends, before the signature is checked.
fn check_headers(provider: &Descriptor, headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.get_all(header::CONTENT_ENCODING).any(|coding| coding != "identity") {
        // The signature covers the bytes as sent, and a few compressed bytes may decompress to very many.
        let remedy = "send the body as it is, without Content-Encoding";
        return Err(Refusal::UnsupportedMedia(remedy.into()));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !provider.takes(content_type) {
        let remedy = format!("send {}", provider.content_types.join(" or "));
        return Err(Refusal::UnsupportedMedia(remedy.into()));
    }
    Ok(())
}

async fn find_hook(
    state: &State,
    id: &HookId,
    deadline: Instant,
) -> Result<Option<Arc<OpenHook>>, Refusal> {
    let lookup = state.hooks.find(state.store.as_ref(), &state.keyring, id);
    match timeout_at(deadline, lookup).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(LookupError::Store(error))) => {
            tracing::warn!(hook.id = %id, "hook {id} could not be looked up: {error}");
            Err(Refusal::Unavailable)
        }
        Ok(Err(LookupError::Secret(error))) => {
            tracing::error!(hook.id = %id, "hook {id} cannot verify anything: {error}");
            Err(Refusal::Unavailable)
        }
        Err(_) => Err(Refusal::Unavailable),
    }
}

async fn read(
    provider: &Descriptor,
    found: &OpenHook,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Meaning, Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let envelope = Envelope {
        hook: found.hook.id.clone(),
        mapping: found.hook.sender.mapping().cloned(),
        home: found.home.clone(),
        kind: provider.kind_header.and_then(text),
        id: provider.id_header.and_then(text),
        content_type: text(header::CONTENT_TYPE.as_str()),
    };
    provider::read(provider, envelope, body).await
}

fn answer(
    state: &State,
    hook: &Hook,
    recorded: Result<Result<Recorded, StoreError>, tokio::time::error::Elapsed>,
) -> Result<Taken, Refusal> {
    match recorded {
        Ok(Ok(Recorded::New(delivery))) => {
            let verdict = match &delivery.verdict {
                Verdict::Events => HookVerdict::Accepted,
                Verdict::Ping | Verdict::OfNoInterest { .. } => HookVerdict::NoInterest,
                Verdict::Unreadable { .. } => HookVerdict::Unreadable,
                Verdict::Conflict => HookVerdict::Conflict,
            };
            let answer = accepted(HttpResponse::Accepted(), &delivery.id, delivery.event_ids());
            Ok(Taken { verdict, answer })
        }
        Ok(Ok(Recorded::Repeat(earlier))) => {
            let answer = accepted(HttpResponse::Ok(), &earlier.id, earlier.event_ids());
            Ok(Taken { verdict: HookVerdict::Repeat, answer })
        }
        Ok(Ok(Recorded::Conflict(id))) => {
            let answer = accepted(HttpResponse::Accepted(), &id, std::iter::empty());
            Ok(Taken { verdict: HookVerdict::Conflict, answer })
        }
        Ok(Err(error)) => {
            state.tally.count(&hook.id, |counts| counts.unavailable += 1);
            tracing::warn!(hook.id = %hook.id, "a delivery to hook {} was not stored: {error}", hook.id);
            Err(match error {
                StoreError::Full { .. } => Refusal::Full,
                StoreError::Unavailable { .. } | StoreError::Undecodable { .. } => {
                    Refusal::Unavailable
                }
            })
        }
        Err(_) => {
            state.tally.count(&hook.id, |counts| counts.unavailable += 1);
            tracing::warn!(hook.id = %hook.id, "a delivery to hook {} was not stored in time", hook.id);
            Err(Refusal::Unavailable)
        }
    }
}

fn accepted(
    mut response: actix_web::HttpResponseBuilder,
    id: &DeliveryId,
    events: impl Iterator<Item = EventId>,
) -> HttpResponse {
    response.json(HookAccepted {
        delivery: id.to_string(),
        events: events.map(|event| event.to_string()).collect(),
    })
}
