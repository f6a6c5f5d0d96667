//! Provides the engine with a build's secrets, for `RUN --mount=type=secret`.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::Secrets;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use gantry_ops::secret::{ExposeSecret as _, SecretString};
use tonic::{Request, Response, Status};

use crate::engine::BuildOrder;

/// The secrets of one build, by id.
pub(super) struct BuildSecrets(BTreeMap<String, SecretString>);

impl BuildSecrets {
    pub(super) fn of(order: &BuildOrder) -> Self {
        let mut secrets = order.secret_build_args.clone();
        secrets.extend(order.secrets.clone());
        Self(secrets)
    }
}

#[tonic::async_trait]
impl Secrets for BuildSecrets {
    /// Without a secret of this id the mount is left out, and the step continues unless it has `required=true`.
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
