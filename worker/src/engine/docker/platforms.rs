//! The platforms that an engine builds for.
//!
//! Its BuildKit tells them: at each request it executes a small program of each platform, and so knows the emulators that
//! the kernel of its machine has then. What is registered on the worker's machine says nothing about the engine's.

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::ListWorkersRequest;
use gantry_domain::platform::Platform;

use super::api;
use super::transport::Socket;
use crate::engine::EngineError;

/// The time limit for the answer.
const WITHIN: Duration = Duration::from_secs(10);

/// The engine's own platform first, then those that it emulates. Platforms that gantry does not know are left out.
pub(super) async fn platforms(socket: &Socket) -> Result<Vec<Platform>, EngineError> {
    let mut platforms = vec![api::info(socket).await?.platform];
    let asking = async {
        let mut control = socket.control().await?;
        let listed = control.client.list_workers(ListWorkersRequest::default()).await;
        listed.map_err(|status| failed(socket, status))
    };
    let listed = tokio::time::timeout(WITHIN, asking).await;
    let listed = listed.map_err(|elapsed| socket.unreachable(elapsed))??.into_inner();
    for told in listed.record.into_iter().flat_map(|worker| worker.platforms) {
        let name = format!("{}/{}/{}", told.os, told.architecture, told.variant);
        let Ok(platform) = name.trim_end_matches('/').parse::<Platform>() else { continue };
        if !platforms.iter().any(|known| known.builds_for(&platform)) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

fn failed(socket: &Socket, status: tonic::Status) -> EngineError {
    // Only an error that did not come from the engine has a source.
    if std::error::Error::source(&status).is_some() {
        return socket.unreachable(status);
    }
    let message = status.message().to_owned();
    EngineError::Refused { what: "say which platforms it builds for", message }
}
