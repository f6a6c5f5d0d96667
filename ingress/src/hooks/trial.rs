//! Sends a test delivery to a hook: a real, signed HTTP request to the public URL that its sender uses.

use std::error::Error as _;
use std::time::{Duration, Instant};

use gantry_domain::hook::Hook;
use gantry_domain::mapping::Mapping;
use gantry_ops::secret::{SecretString, random_hex};
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use super::provider::{Descriptor, descriptor};
use super::receive::machine_time;
use crate::refusal::Refusal;
use crate::state::State;
use gantry_api::{HookAccepted, HookTestResult};

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a ping with a proof of the hook's secret, if it has one, and reports the answer. A ping starts nothing.
pub(crate) async fn send_test_delivery(
    state: &State,
    hook: &Hook,
    secret: Option<&SecretString>,
) -> Result<HookTestResult, Refusal> {
    let path = format!("/hooks/{}/{}", hook.provider(), hook.id);
    let url = state.public_path(&path).map_err(|error| {
        tracing::error!("the public URL is invalid: {error}");
        Refusal::Internal
    })?;
    let (provider, mapping) = (descriptor(hook.provider()), hook.sender.mapping());
    let request = request(client()?, provider, mapping, url.clone(), secret)?;
    let began = Instant::now();
    let sent = request.send().await;
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut result = HookTestResult {
        ok: false,
        url: url.to_string(),
        status: None,
        duration_ms,
        message: String::new(),
        delivery: None,
    };
    match sent {
        Err(error) => result.message = unreachable_message(&error),
        Ok(response) => {
            let status = response.status();
            result.status = Some(status.as_u16());
            let accepted = response.json::<HookAccepted>().await.ok();
            result.ok = status.is_success() && accepted.is_some();
            result.message = meaning(status.as_u16(), accepted.is_some()).to_owned();
            result.delivery = accepted.map(|accepted| accepted.delivery);
        }
    }
    Ok(result)
}

fn client() -> Result<reqwest::Client, Refusal> {
    // The TLS provider is global. An error means that it was already installed.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .map_err(|error| {
            tracing::error!("cannot create an HTTP client: {error}");
            Refusal::Internal
        })
}

pub(super) fn request(
    client: reqwest::Client,
    provider: &Descriptor,
    mapping: Option<&Mapping>,
    url: url::Url,
    secret: Option<&SecretString>,
) -> Result<reqwest::RequestBuilder, Refusal> {
    let body = provider.ping.body;
    let id = format!("test-{}", random_hex::<8>()?.as_str());
    let schemes = provider.proofs_of(mapping);
    let scheme = schemes.first().ok_or(Refusal::Internal)?;
    let prove = |secret| scheme.prove(secret, &id, machine_time(), body.as_bytes());
    let proof = secret.map_or(Some(Vec::new()), prove);
    let mut request = client.post(url).header(CONTENT_TYPE, provider.setup.content_type).body(body);
    for (header, value) in proof.ok_or(Refusal::Internal)? {
        let mut value = HeaderValue::try_from(value).map_err(|_| Refusal::Internal)?;
        value.set_sensitive(true);
        request = request.header(header, value);
    }
    for (header, value) in provider.ping.headers {
        request = request.header(*header, *value);
    }
    if let Some(header) = provider.id_header {
        request = request.header(header, id);
    }
    Ok(request)
}

fn unreachable_message(error: &reqwest::Error) -> String {
    let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!(
        "no answer{cause}: is `server.public_url` right, and does the proxy in front of gantry forward it?"
    )
}

fn meaning(status: u16, is_ours: bool) -> &'static str {
    match status {
        200..=299 if is_ours => "the delivery was accepted",
        200..=299 => "the answer is not gantry's: is `server.public_url` right?",
        300..=399 => {
            "senders do not follow redirects: set `server.public_url` to the target of this one"
        }
        401 => {
            "the signature was refused: does a proxy in front of gantry change the body, or was the secret just changed?"
        }
        404 => "the answer is not gantry's: is `server.public_url` right?",
        413 => "a proxy in front of gantry refuses a body of this size",
        503 => "gantry's store did not accept it in time: see `gantry status`",
        _ => "unexpected status: does the proxy in front of gantry forward POST requests?",
    }
}
