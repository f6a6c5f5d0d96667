//! Limits the build cache.

use bollard_buildkit_proto::moby::buildkit::v1::{DiskUsageRequest, PruneRequest};

use super::transport::{Control, Socket};
use crate::engine::EngineError;

/// Removes the least recently used records until at most `keep_bytes` are left. Records in use by a build stay.
///
/// This uses BuildKit's own call. The parameter of the HTTP API has different names in different engines, and an engine
/// that does not know the name removes everything. Do not drop the future: before Docker 24, builds hang until the engine
/// restarts if a client disconnects meanwhile (moby/buildkit#3857).
pub(super) async fn prune(socket: &Socket, keep_bytes: u64) -> Result<u64, EngineError> {
    let keep = i64::try_from(keep_bytes).unwrap_or(i64::MAX);
    let request = PruneRequest { all: true, reserved_space: keep, ..PruneRequest::default() };
    remove(socket, &mut socket.control().await?, request).await
}

/// Removes the archives of contexts that came from these URLs. Each URL was random, so no other build can use them.
pub(super) async fn forget_contexts(socket: &Socket, urls: &[String]) -> Result<u64, EngineError> {
    let mut engine = socket.control().await?;
    // Docker Engine 20.10 filters by description only when listing, and by id only when removing.
    let filter = urls.iter().map(|url| format!("description==\"http url {url}\"")).collect();
    let listed = engine.client.disk_usage(DiskUsageRequest { filter, ..Default::default() }).await;
    let found = listed.map_err(|status| failed(socket, status))?.into_inner().record;
    let mut freed = 0_u64;
    // One record per call. If a client disconnects during a call that removes several, an engine before Docker 24 waits
    // forever to report the next record, and holds the lock that every build needs (moby/buildkit#3857).
    for record in found {
        let filter = vec![format!("id=={}", record.id)];
        let request = PruneRequest { all: true, filter, ..PruneRequest::default() };
        freed = freed.saturating_add(remove(socket, &mut engine, request).await?);
    }
    Ok(freed)
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
    // Only an error that did not come from the engine has a source.
    if std::error::Error::source(&status).is_some() {
        return socket.unreachable(status);
    }
    let message = status.message().to_owned();
    EngineError::Refused { what: "shrink its build cache", message }
}
