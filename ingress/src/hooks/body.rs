//! Reads a body of somebody who has proved nothing yet: bounded in size, time and, over all connections, memory.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt as _;

use super::budget::{ByteBudget, HeldBytes};
use crate::error::ApiError;

/// A body, and the room that it takes.
pub(crate) struct HeldBody {
    pub(crate) bytes: Bytes,
    _held: HeldBytes,
}

/// Reads a body of at most `most` bytes within `patience`.
pub(crate) async fn read(
    request: &HttpRequest,
    payload: Payload,
    most: u64,
    budget: &ByteBudget,
    patience: Duration,
) -> Result<HeldBody, ApiError> {
    let declared = declared_length(request);
    if declared.is_some_and(|length| length > most) {
        return Err(ApiError::TooLarge { most });
    }
    tokio::time::timeout(patience, read_all(payload, declared, most, budget))
        .await
        .map_err(|_| ApiError::TooSlow)?
}

fn declared_length(request: &HttpRequest) -> Option<u64> {
    let value = request.headers().get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

async fn read_all(
    mut payload: Payload,
    declared: Option<u64>,
    most: u64,
    budget: &ByteBudget,
) -> Result<HeldBody, ApiError> {
    // Room is held as bytes arrive, not as they are announced: announcing costs a sender nothing.
    let mut held = budget.hold();
    let mut whole = BytesMut::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|_| ApiError::BrokenOff)?;
        if (whole.len() + piece.len()) as u64 > most {
            return Err(ApiError::TooLarge { most });
        }
        if !held.grow(piece.len() as u64) {
            return Err(ApiError::Busy);
        }
        if whole.is_empty() && declared == Some(piece.len() as u64) {
            return Ok(HeldBody { bytes: piece, _held: held });
        }
        whole.extend_from_slice(&piece);
    }
    Ok(HeldBody { bytes: whole.freeze(), _held: held })
}
