//! Replays a delivery: parses its stored body again, and records it as a new delivery with new decisions.

use std::io::Read as _;

use actix_web::web::Bytes;
use gantry_domain::delivery::Delivery;
use gantry_domain::hook::Hook;
use gantry_domain::id::DeliveryId;
use gantry_seams::deliveries;
use sha2::{Digest as _, Sha256};

use super::directory::find_home;
use super::provider::{self, Envelope, Meaning, Reading, descriptor};
use super::record::{Recorded, record};
use crate::refusal::Refusal;
use crate::state::State;

/// How often a delivery can be replayed.
const MOST_REPLAYS: u32 = 1000;

/// The largest body that is ever accepted. Bounds what a stored object can unpack to.
const LARGEST_BODY: u64 = 32 * 1024 * 1024;

/// Reads a delivery's body from the store, or else from the object store.
pub(crate) async fn find_body(
    state: &State,
    delivery: &Delivery,
) -> Result<Option<Bytes>, Refusal> {
    if let Some(body) = deliveries::find_body(state.store.as_ref(), delivery).await? {
        return Ok(Some(body));
    }
    let packed = deliveries::find_packed_body(state.blobs.as_ref(), delivery).await?;
    let body = packed.map(|packed| unpack(&packed)).transpose()?;
    // The signature was verified on arrival only. The hash detects later changes in the object store.
    if body.as_ref().is_some_and(|body| hex::encode(Sha256::digest(body)) != delivery.body_sha256) {
        tracing::error!(
            delivery.id = %delivery.id,
            "the stored body of delivery {} has changed: something else writes to the object store",
            delivery.id
        );
        return Err(Refusal::Internal);
    }
    Ok(body)
}

fn unpack(packed: &[u8]) -> Result<Bytes, Refusal> {
    let mut body = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(packed).take(LARGEST_BODY);
    match reader.read_to_end(&mut body) {
        Ok(_) => Ok(body.into()),
        Err(error) => {
            tracing::error!("a stored body does not unpack: {error}");
            Err(Refusal::Internal)
        }
    }
}

/// Records a stored delivery as if it arrived now, under a new id.
pub(crate) async fn replay(
    state: &State,
    hook: &Hook,
    earlier: &Delivery,
) -> Result<Delivery, Refusal> {
    state.intake.check()?;
    let body = find_body(state, earlier).await?.ok_or_else(|| Refusal::Conflict {
        code: "body_gone",
        message: format!(
            "the body of delivery {} is no longer kept: let its sender send it again",
            earlier.id
        ),
    })?;
    let home = find_home(state.store.as_ref(), hook).await?;
    for number in 1..=MOST_REPLAYS {
        let id = replay_id(&earlier.id, number)?;
        let envelope = Envelope {
            hook: hook.id.clone(),
            mapping: hook.sender.mapping().cloned(),
            home: home.clone(),
            kind: Some(earlier.kind.clone()),
            id: Some(id.to_string()),
            content_type: None,
        };
        let meaning = provider::read(descriptor(hook.provider()), envelope, &body).await?;
        let Meaning::Record(reading) = meaning else {
            return Err(Refusal::Conflict {
                code: "nothing_to_replay",
                message: format!("nothing in delivery {} can start a run", earlier.id),
            });
        };
        // Some providers put the id into the body, where it is the original's.
        let reading = Reading { id, ..reading };
        match record(state, hook, reading, body.clone()).await? {
            Recorded::New(delivery) => return Ok(delivery),
            Recorded::Repeat(_) | Recorded::Conflict(_) => {}
        }
    }
    Err(Refusal::Conflict {
        code: "replayed_too_often",
        message: format!("delivery {} was replayed {MOST_REPLAYS} times", earlier.id),
    })
}

/// The original delivery's id with the replay's number. A replay of a replay counts as a replay of the original.
fn replay_id(earlier: &DeliveryId, number: u32) -> Result<DeliveryId, Refusal> {
    let first =
        earlier.as_str().rsplit_once(".replay-").map_or(earlier.as_str(), |(first, _)| first);
    format!("{first}.replay-{number}").parse().map_err(|error: gantry_domain::InvalidText| {
        Refusal::invalid("delivery", error.to_string())
    })
}
