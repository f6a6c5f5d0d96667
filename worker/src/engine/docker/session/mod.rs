//! A build's session: the services that the engine calls during a build.
//!
//! The engine is the gRPC client here. It requests the Dockerfile, the context, secrets and credentials, which are in
//! memory or streamed, and only while the [`Session`] exists: dropping it ends them all.

use std::sync::Arc;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSyncServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use bollard_buildkit_proto::moby::upload::v1::upload_server::UploadServer;
use hyper::server::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

pub(super) use self::context::Context;
use self::credentials::RegistryCredentials;
use self::dockerfile::Dockerfile;
pub(super) use self::dockerfile::FOLDER as DOCKERFILE_FOLDER;
use self::health::Alive;
use self::secrets::BuildSecrets;
use super::random_id;
use super::transport::Socket;
use crate::engine::{BuildOrder, EngineError};

mod context;
mod credentials;
mod dockerfile;
mod health;
mod secrets;

/// The methods that the engine may call. It calls none that are not announced here.
const METHODS: [&str; 5] = [
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.upload.v1.Upload/Pull",
];

/// An open session.
pub(super) struct Session {
    id: String,
    _server: AbortOnDropHandle<()>,
}

impl Session {
    /// Opens a session for `order`, and serves it until it is dropped.
    pub(super) async fn open(
        socket: &Socket,
        order: &BuildOrder,
        context: Arc<Context>,
    ) -> Result<Self, EngineError> {
        let id = random_id();
        // The engine does not request files again that have equal keys, sizes and times, and would use the Dockerfile
        // of an earlier build. So no two builds may share a key.
        let shared_key = random_id();
        let stream = socket
            .upgrade("/session", |request| {
                let request = request
                    .header("X-Docker-Expose-Session-Uuid", &id)
                    .header("X-Docker-Expose-Session-Name", "gantry")
                    .header("X-Docker-Expose-Session-Sharedkey", shared_key);
                METHODS.iter().fold(request, |request, method| {
                    request.header("X-Docker-Expose-Session-Grpc-Method", *method)
                })
            })
            .await?;

        let routes = Routes::new(HealthServer::new(Alive))
            .add_service(AuthServer::new(RegistryCredentials::new(order.registries.clone())))
            .add_service(SecretsServer::new(BuildSecrets::of(order)))
            .add_service(FileSyncServer::new(Dockerfile::new(&order.dockerfile)))
            .add_service(UploadServer::from_arc(context))
            .prepare();
        let server = tokio::spawn(async move {
            // A broken session fails the build with an error of the engine, which has more details.
            let _reported_there = http2::Builder::new(TokioExecutor::new())
                .serve_connection(stream, TowerToHyperService::new(routes))
                .await;
        });
        Ok(Self { id, _server: AbortOnDropHandle::new(server) })
    }

    /// The id that a build refers to its session by.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}
