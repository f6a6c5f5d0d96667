//! The encoding of messages.

use gantry_domain::trace::TraceParent;
use gantry_seams::queue::QueueError;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::queue_error;

/// Increased when a message changes in a way that an older process would misread.
const VERSION: u32 = 1;
/// The header of W3C Trace Context.
const TRACE: &str = "traceparent";
const PERSISTENT: u8 = 2;

/// A message with the version of its encoding.
#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    v: u32,
    message: M,
}

pub(crate) struct Outgoing {
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

/// A message could not be decoded, and never will be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it has version {0}, and this gantry knows up to {VERSION}")]
    Version(u32),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

pub(crate) fn encode<M: Serialize>(
    message: &M,
    trace: Option<&TraceParent>,
) -> Result<Outgoing, QueueError> {
    let body = serde_json::to_vec(&Envelope { v: VERSION, message }).map_err(queue_error)?;
    let mut headers = FieldTable::default();
    if let Some(trace) = trace {
        headers.insert(TRACE.into(), AMQPValue::LongString(trace.to_string().into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    Ok(Outgoing { body, properties })
}

pub(crate) fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, Unreadable> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } = serde_json::from_slice(body)?;
    if v > VERSION {
        return Err(Unreadable::Version(v));
    }
    Ok(serde_json::from_slice::<Envelope<M>>(body)?.message)
}

/// The trace that a message is part of. An invalid header counts as none.
pub(crate) fn trace(delivery: &Delivery) -> Option<TraceParent> {
    let headers = delivery.properties.headers().as_ref()?;
    let AMQPValue::LongString(text) = headers.inner().get(TRACE)? else { return None };
    text.to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip() {
        let outgoing = encode(&7_u32, None).unwrap();
        assert_eq!(String::from_utf8(outgoing.body.clone()).unwrap(), r#"{"v":1,"message":7}"#);
        assert_eq!(decode::<u32>(&outgoing.body).unwrap(), 7);
    }

    #[test]
    fn messages_of_a_later_version_are_refused() {
        assert!(matches!(decode::<u32>(br#"{"v":2,"message":7}"#), Err(Unreadable::Version(2))));
        for wrong in ["", "{}", r#"{"v":1}"#, r#"{"v":1,"message":"seven"}"#] {
            assert!(matches!(decode::<u32>(wrong.as_bytes()), Err(Unreadable::Json(_))), "{wrong}");
        }
    }
}
