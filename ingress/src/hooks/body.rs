//! Reads the body of an unauthenticated sender, bounded in size, time and total memory of all connections.

use std::io;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::{Bytes, Payload};
use futures_util::StreamExt as _;

use super::budget::{ByteBudget, HeldBytes};
use super::kept::KeptBody;
use super::verify::{Proof, RejectedDelivery};
use crate::refusal::Refusal;

/// A delivery that is not verified yet.
pub(crate) struct RawDelivery {
    proof: Proof,
    body: KeptBody,
    held: HeldBytes,
}

/// A delivery whose sender knows a secret of its hook, or the address if its provider can be told nothing else.
///
/// [`RawDelivery::verify`] is the only constructor and the fields are private, so code that takes a `VerifiedDelivery`
/// cannot be reached by an unsigned request.
pub(crate) struct VerifiedDelivery {
    body: KeptBody,
    held: HeldBytes,
}

impl RawDelivery {
    /// Reads a body of at most `most` bytes within `patience`, and computes the proof on the fly.
    pub(crate) async fn read(
        request: &HttpRequest,
        payload: Payload,
        proof: Proof,
        most: u64,
        budget: &ByteBudget,
        patience: Duration,
    ) -> Result<Self, Refusal> {
        if declared_length(request).is_some_and(|length| length > most) {
            return Err(Refusal::TooLarge { most });
        }
        let held = budget.hold().ok_or(Refusal::Busy)?;
        let gave_way = held.gave_way();
        let delivery = Self { proof, body: KeptBody::new(), held };
        tokio::select! {
            biased;
            read = tokio::time::timeout(patience, delivery.read_all(payload, most)) => {
                read.map_err(|_| Refusal::TooSlow { patience })?
            }
            () = gave_way => Err(Refusal::Busy),
        }
    }

    async fn read_all(mut self, mut payload: Payload, most: u64) -> Result<Self, Refusal> {
        while let Some(piece) = payload.next().await {
            let piece = piece.map_err(|_| Refusal::BrokenOff)?;
            if (self.body.length() + piece.len()) as u64 > most {
                return Err(Refusal::TooLarge { most });
            }
            // Memory is reserved as bytes arrive and not by `Content-Length`, since announcing a length costs a sender
            // nothing.
            if !self.held.grow(piece.len() as u64) {
                return Err(Refusal::Busy);
            }
            self.push(piece).await.map_err(no_room)?;
        }
        Ok(self)
    }

    /// Both are updated together: exactly the bytes that are kept are verified.
    async fn push(&mut self, piece: Bytes) -> io::Result<()> {
        self.proof.update(&piece);
        self.body.push(piece).await
    }

    /// Verifies that the sender knows a secret of the hook.
    pub(crate) fn verify(self) -> Result<VerifiedDelivery, RejectedDelivery> {
        self.proof.finish()?;
        self.held.stay();
        Ok(VerifiedDelivery { body: self.body, held: self.held })
    }
}

impl VerifiedDelivery {
    /// The verified bytes, and their share of the budget until it is dropped.
    pub(crate) async fn into_body(self) -> Result<(Bytes, HeldBytes), Refusal> {
        Ok((self.body.into_bytes().await.map_err(no_room)?, self.held))
    }
}

fn declared_length(request: &HttpRequest) -> Option<u64> {
    let value = request.headers().get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

fn no_room(error: io::Error) -> Refusal {
    tracing::error!("a large body cannot be kept in {}: {error}", std::env::temp_dir().display());
    Refusal::Busy
}
