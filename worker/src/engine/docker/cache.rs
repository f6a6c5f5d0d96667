//! Keeps the build cache within bounds.

use bollard_buildkit_proto::moby::buildkit::v1::PruneRequest;

use super::transport::Socket;
use crate::engine::EngineError;

/// Removes what was used longest ago until at most `keep_bytes` are left; what a build uses now stays.
///
/// Through BuildKit's own call: the HTTP API's parameter has changed its name between engines, and one that does not
/// know the name it is given removes everything.
pub(super) async fn prune(socket: &Socket, keep_bytes: u64) -> Result<u64, EngineError> {
    let keep = i64::try_from(keep_bytes).unwrap_or(i64::MAX);
    remove(socket, PruneRequest { all: true, reserved_space: keep, ..PruneRequest::default() }).await
}

/// Removes the archive of a context. The engine keeps it beside the files in it, though no other build can ask for it:
/// its address was random.
pub(super) async fn forget_context(socket: &Socket, url: &str) -> Result<u64, EngineError> {
    let filter = vec![format!("description==\"http url {url}\"")];
    remove(socket, PruneRequest { all: true, filter, ..PruneRequest::default() }).await
}

async fn remove(socket: &Socket, request: PruneRequest) -> Result<u64, EngineError> {
    let refused = |status: tonic::Status| {
        if std::error::Error::source(&status).is_some() {
            socket.unreachable(status)
        } else {
            let message = status.message().to_owned();
            EngineError::Refused { what: "shrink its build cache", message }
        }
    };
    let mut engine = socket.control().await?;
    let mut removed = engine.client.prune(request).await.map_err(refused)?.into_inner();
    let mut freed = 0_u64;
    while let Some(record) = removed.message().await.map_err(refused)? {
        freed = freed.saturating_add(u64::try_from(record.size).unwrap_or(0));
    }
    Ok(freed)
}
