//! Keeps the build cache within bounds.

use bollard_buildkit_proto::moby::buildkit::v1::{DiskUsageRequest, PruneRequest};

use super::transport::{Control, Socket};
use crate::engine::EngineError;

/// Removes what was used longest ago until at most `keep_bytes` are left; what a build uses now stays.
///
/// Through BuildKit's own call: the HTTP API's parameter has changed its name between engines, and one that does not
/// know the name it is given removes everything.
pub(super) async fn prune(socket: &Socket, keep_bytes: u64) -> Result<u64, EngineError> {
    let keep = i64::try_from(keep_bytes).unwrap_or(i64::MAX);
    let request = PruneRequest { all: true, reserved_space: keep, ..PruneRequest::default() };
    remove(socket, &mut socket.control().await?, request).await
}

/// Removes the archives of contexts that came from these addresses. Each address was random, so no other build can ask
/// for what came from it.
pub(super) async fn forget_contexts(socket: &Socket, urls: &[String]) -> Result<u64, EngineError> {
    let mut engine = socket.control().await?;
    // Docker Engine 20.10 looks at descriptions only when it lists, and at ids only when it removes.
    let filter = urls.iter().map(|url| format!("description==\"http url {url}\"")).collect();
    let listed = engine.client.disk_usage(DiskUsageRequest { filter, ..Default::default() }).await;
    let found = listed.map_err(|status| failed(socket, status))?.into_inner().record;
    // No filter at all would mean every record.
    if found.is_empty() {
        return Ok(0);
    }
    let filter = found.into_iter().map(|record| format!("id=={}", record.id)).collect();
    let request = PruneRequest { all: true, filter, ..PruneRequest::default() };
    remove(socket, &mut engine, request).await
}

async fn remove(
    socket: &Socket,
    engine: &mut Control,
    request: PruneRequest,
) -> Result<u64, EngineError> {
    let removed = engine.client.prune(request).await;
    let mut removed = removed.map_err(|status| failed(socket, status))?.into_inner();
    let mut freed = 0_u64;
    while let Some(record) = removed.message().await.map_err(|status| failed(socket, status))? {
        freed = freed.saturating_add(u64::try_from(record.size).unwrap_or(0));
    }
    Ok(freed)
}

fn failed(socket: &Socket, status: tonic::Status) -> EngineError {
    // Only what did not come from the engine has a source.
    if std::error::Error::source(&status).is_some() {
        return socket.unreachable(status);
    }
    let message = status.message().to_owned();
    EngineError::Refused { what: "shrink its build cache", message }
}
