//! Limits the build cache.
//!
//! Records are removed through the HTTP API. BuildKit's own call removes them as well, but if its client disconnects
//! meanwhile, an engine before Docker 24 waits forever to report the next record, and holds the lock that every build
//! needs (moby/buildkit#3857).

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::DiskUsageRequest;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::header::HOST;

use super::transport::{Socket, refusal};
use crate::engine::EngineError;

/// The time limit for a removal: an engine that hangs never answers.
const PATIENCE: Duration = Duration::from_secs(600);

/// The most bytes of an answer, which lists the ids of the removed records.
const ANSWER_LIMIT: usize = 16 << 20;

/// Removes the least recently used records until at most `keep_bytes` are left. Records in use by a build stay.
pub(super) async fn prune(socket: &Socket, keep_bytes: u64) -> Result<u64, EngineError> {
    // The name differs between versions of the API, and an engine that does not know it removes everything.
    let keep = i64::try_from(keep_bytes).unwrap_or(i64::MAX);
    remove(socket, &format!("keep-storage={keep}&reserved-space={keep}")).await
}

/// Removes the archives of contexts that came from these URLs. Each URL was random, so no other build can use them.
pub(super) async fn forget_contexts(socket: &Socket, urls: &[String]) -> Result<u64, EngineError> {
    // Docker Engine 20.10 filters by description only when listing, and the HTTP API by one id only.
    let filter = urls.iter().map(|url| format!("description==\"http url {url}\"")).collect();
    let request = DiskUsageRequest { filter, ..Default::default() };
    let listed = socket.control().await?.client.disk_usage(request).await;
    let mut freed = 0_u64;
    for record in listed.map_err(|status| failed(socket, status))?.into_inner().record {
        // Without a filter every record would be removed.
        if record.id.is_empty() || !record.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            continue;
        }
        let filters = format!("filters=%7B%22id%22%3A%5B%22{}%22%5D%7D", record.id);
        freed = freed.saturating_add(remove(socket, &filters).await?);
    }
    Ok(freed)
}

async fn remove(socket: &Socket, what: &str) -> Result<u64, EngineError> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(rename = "SpaceReclaimed", default)]
        freed: u64,
    }

    let removed = async {
        let request = Request::post(format!("/build/prune?all=1&{what}")).header(HOST, "engine");
        let request = request.body(Full::new(Bytes::new())).map_err(|e| socket.unreachable(e))?;
        let response = socket.request(request).await?;
        if !response.status().is_success() {
            let message = refusal(response).await;
            return Err(EngineError::Refused { what: REMOVE, message });
        }
        let answer = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let answer = answer.map_err(|e| socket.unreachable(e))?.to_bytes();
        let answer: Answer = serde_json::from_slice(&answer).map_err(|e| socket.unreachable(e))?;
        Ok(answer.freed)
    };
    tokio::time::timeout(PATIENCE, removed).await.map_err(|e| socket.unreachable(e))?
}

const REMOVE: &str = "shrink its build cache";

fn failed(socket: &Socket, status: tonic::Status) -> EngineError {
    // Only an error that did not come from the engine has a source.
    if std::error::Error::source(&status).is_some() {
        return socket.unreachable(status);
    }
    let message = status.message().to_owned();
    EngineError::Refused { what: REMOVE, message }
}
