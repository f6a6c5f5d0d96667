//! Provides the engine with credentials for the registries of bases.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::filesync::v1::auth_server::Auth;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use gantry_domain::image::RegistryHost;
use gantry_ops::secret::{Credentials, ExposeSecret as _};
use tonic::{Request, Response, Status};

/// The credentials of one build, by registry.
pub(super) struct RegistryCredentials(BTreeMap<RegistryHost, Credentials>);

impl RegistryCredentials {
    pub(super) fn new(registries: BTreeMap<RegistryHost, Credentials>) -> Self {
        Self(registries)
    }

    fn find(&self, host: &str) -> Option<&Credentials> {
        // The engine uses the host that it connects to for Docker Hub, which is one with its name.
        self.0.get(&host.parse::<RegistryHost>().ok()?)
    }
}

#[tonic::async_trait]
impl Auth for RegistryCredentials {
    /// Empty credentials mean anonymous access; used for unknown registries.
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let answer = match self.find(&request.into_inner().host) {
            Some(found) => CredentialsResponse {
                // A secret without a user is an identity token.
                username: match found.identity_token() {
                    Some(_) => String::new(),
                    None => found.username.clone(),
                },
                secret: found.password.expose_secret().to_owned(),
            },
            None => CredentialsResponse::default(),
        };
        Ok(Response::new(answer))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(by_itself())
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(by_itself())
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(by_itself())
    }
}

/// The engine then uses the credentials to fetch a token from the registry itself.
fn by_itself() -> Status {
    Status::unimplemented("the engine fetches registry tokens by itself")
}
