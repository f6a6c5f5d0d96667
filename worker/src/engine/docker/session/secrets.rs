//! Gives the engine a build's secrets, when a `RUN --mount=type=secret` asks for them.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::Secrets;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use tonic::{Request, Response, Status};

/// Secrets by id, for one build.
pub(super) struct BuildSecrets(BTreeMap<String, SecretString>);

impl BuildSecrets {
    pub(super) fn new(secrets: BTreeMap<String, SecretString>) -> Self {
        Self(secrets)
    }
}

#[tonic::async_trait]
impl Secrets for BuildSecrets {
    /// An id that is not there leaves the mount out, and the step goes on unless it says `required=true`.
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        match self.0.get(&id) {
            Some(secret) => {
                let data = secret.expose_secret().as_bytes().to_vec();
                Ok(Response::new(GetSecretResponse { data }))
            }
            None => Err(Status::not_found(format!("secret {id} not found"))),
        }
    }
}
