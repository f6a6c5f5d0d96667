//! Knocks at a hook as its sender would: a real, signed request through HTTP to the address that senders are told.

use std::error::Error as _;
use std::time::{Duration, Instant};

use gantry_domain::hook::Hook;
use gantry_ops::secret::{SecretString, random_hex};
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use super::provider::{Descriptor, descriptor};
use crate::refusal::Refusal;
use crate::state::State;
use gantry_api::{HookAccepted, HookTestResult};

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a ping that means nothing, with one of the hook's secrets, and says what came of it.
pub(crate) async fn knock(
    state: &State,
    hook: &Hook,
    secret: &SecretString,
) -> Result<HookTestResult, Refusal> {
    let path = format!("/hooks/{}/{}", hook.provider, hook.id);
    let url = state.public_path(&path).map_err(|error| {
        tracing::error!("the public URL is none: {error}");
        Refusal::Internal
    })?;
    let request = request(client()?, descriptor(hook.provider), url.clone(), secret)?;
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
    // The process has one TLS provider; whoever comes second finds it installed, which is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .map_err(|error| {
            tracing::error!("no HTTP client could be made: {error}");
            Refusal::Internal
        })
}

pub(super) fn request(
    client: reqwest::Client,
    provider: &Descriptor,
    url: url::Url,
    secret: &SecretString,
) -> Result<reqwest::RequestBuilder, Refusal> {
    let body = provider.ping.body;
    let proof = provider.proof.prove(secret, body.as_bytes()).ok_or(Refusal::Internal)?;
    let (proof_header, proof) = proof;
    let mut proof = HeaderValue::try_from(proof).map_err(|_| Refusal::Internal)?;
    proof.set_sensitive(true);
    let mut request = client
        .post(url)
        .header(CONTENT_TYPE, provider.setup.content_type)
        .header(proof_header, proof)
        .body(body);
    for (header, value) in provider.ping.headers {
        request = request.header(*header, *value);
    }
    if let Some(header) = provider.id_header {
        request = request.header(header, format!("test-{}", random_hex::<8>()?.as_str()));
    }
    Ok(request)
}

fn unreachable_message(error: &reqwest::Error) -> String {
    let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!(
        "nobody answers there{cause}: is `server.public_url` right, and does a proxy before gantry let it through?"
    )
}

fn meaning(status: u16, is_ours: bool) -> &'static str {
    match status {
        200..=299 if is_ours => "the door opens: the signature was right, and it was accepted",
        200..=299 => "something else than gantry answers there: is `server.public_url` right?",
        300..=399 => {
            "it redirects, and senders do not follow: set `server.public_url` to where it leads"
        }
        401 => {
            "the signature was refused: does a proxy before gantry change the body, or did the secret just change?"
        }
        404 => "something else than gantry answers there: is `server.public_url` right?",
        413 => "a proxy before gantry refuses the body's size",
        503 => "gantry's store did not take it in time: see `gantry status`",
        _ => "an unexpected answer: does a proxy before gantry let POST through?",
    }
}
