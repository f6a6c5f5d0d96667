//! Stores a verified delivery with its body and events in one commit, then rings the doorbells.

use actix_web::web::Bytes;
use gantry_domain::delivery::{Delivery, Verdict};
use gantry_domain::hook::Hook;
use gantry_domain::id::DeliveryId;
use gantry_ops::telemetry;
use gantry_seams::deliveries::{self, AcceptedDelivery, LARGE_BODY, UnownedBody};
use gantry_seams::store::StoreError;
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use super::provider::{Reading, descriptor};
use crate::state::State;

/// Stores a new delivery with its events, and rings for them.
pub(super) async fn record(
    state: &State,
    hook: &Hook,
    reading: Reading,
    body: Bytes,
) -> Result<Recorded, StoreError> {
    let store = state.store.as_ref();
    let received = state.clock.now(store).await?;
    let delivery = Delivery {
        id: reading.id,
        hook: hook.id.clone(),
        provider: hook.provider(),
        registry: hook.registry.clone(),
        prefix: hook.prefix,
        kind: reading.kind,
        received,
        body_sha256: hex::encode(Sha256::digest(&body)),
        body_bytes: body.len() as u64,
        verdict: reading.verdict,
        trace: telemetry::current_trace(),
        meaning: reading.events,
        unread: reading.unread,
    };
    let body = keep_apart_if_large(state, &delivery, body).await?;
    let is_apart = body.is_none();
    let storing = tracing::info_span!("store delivery");
    let accepted = deliveries::accept(store, &delivery, body).instrument(storing).await?;
    if is_apart {
        drop_if_unowned(state, &delivery, &accepted).await;
    }
    match accepted {
        AcceptedDelivery::New => {
            count(state, &delivery);
            for event in delivery.event_ids() {
                state.doorbells.event(event, delivery.trace.clone());
            }
            Ok(Recorded::New(delivery))
        }
        AcceptedDelivery::Repeat(earlier) => Ok(Recorded::Repeat(earlier)),
        AcceptedDelivery::Conflict(_) => {
            tracing::warn!(
                delivery.id = %delivery.id, hook.id = %hook.id,
                "delivery {} came again with another body: the first one is kept", delivery.id
            );
            Ok(Recorded::Conflict(delivery.id))
        }
    }
}

/// Puts a large body into the object store, because in the store it would delay all other commits. Returns the body if
/// it must go into the store: it is small, or the object store failed or is slow.
async fn keep_apart_if_large(
    state: &State,
    delivery: &Delivery,
    body: Bytes,
) -> Result<Option<Bytes>, StoreError> {
    if body.len() < LARGE_BODY {
        return Ok(Some(body));
    }
    // Announced first, so that retention finds and removes the body if its delivery is never accepted.
    deliveries::announce_body(state.store.as_ref(), delivery).await?;
    let put = deliveries::put_body(state.blobs.as_ref(), delivery, body.clone());
    match tokio::time::timeout(descriptor(delivery.provider).object_patience, put).await {
        Ok(Ok(())) => return Ok(None),
        Ok(Err(error)) => {
            tracing::debug!(delivery.id = %delivery.id, "a large body goes into the store: {error}");
        }
        Err(_) => {
            tracing::debug!(delivery.id = %delivery.id, "a large body goes into the store: the object store is slow");
        }
    }
    Ok(Some(body))
}

/// Removes a body from the object store if its delivery was not accepted. If that fails, retention removes it later.
async fn drop_if_unowned(state: &State, delivery: &Delivery, accepted: &AcceptedDelivery) {
    let unowned = match accepted {
        AcceptedDelivery::New => None,
        AcceptedDelivery::Repeat(stands) | AcceptedDelivery::Conflict(stands) => {
            UnownedBody::of(delivery, stands)
        }
    };
    let Some(unowned) = unowned else { return };
    let gone = unowned.remove(state.store.as_ref(), state.blobs.as_ref());
    match tokio::time::timeout(descriptor(delivery.provider).object_patience, gone).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(delivery.id = %delivery.id, "a body without a delivery is removed later: {error}");
        }
        Err(_) => {
            tracing::debug!(delivery.id = %delivery.id, "a body without a delivery is removed later: the object store is slow");
        }
    }
}

/// The result of [`record`].
pub(super) enum Recorded {
    /// The delivery is new and stored.
    New(Delivery),
    /// It was accepted before, as this delivery.
    Repeat(Delivery),
    /// A delivery with this id and another body was accepted before.
    Conflict(DeliveryId),
}

fn count(state: &State, delivery: &Delivery) {
    let is_unreadable = matches!(delivery.verdict, Verdict::Unreadable { .. });
    state.tally.count(&delivery.hook, |counts| {
        counts.accepted += 1;
        counts.unreadable += u64::from(is_unreadable);
    });
}
