//! What holds for vaults of either kind: grants, and faults of their servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use gantry_domain::vault::{SecretAddress, VaultGrant};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::vault::{
    HashicorpLogin, RemoteVaults, VaultConfig, VaultError, VaultKind, Vaults as _, VaultsError,
};
use hyper::Response;
use serde_json::json;
use tokio::time::Instant;

use crate::canary::Canary;
use crate::hashicorp_server::{HashicorpServer, TOKEN, app_role, fixed_token};
use crate::key_vault_server::{CLIENT_SECRET, KeyVaultServer, key_vault};
use crate::registry::within;
use crate::vault_server::{Answer, Asked, answer, read, read_until, serve, stalled, vaults};

pub(crate) fn hashicorp(login: HashicorpLogin) -> VaultKind {
    VaultKind::Hashicorp { login, namespace: None }
}

/// A client and an address for each kind of login: at a Key Vault with the identity provider `provider`, and at a
/// HashiCorp Vault.
pub(crate) fn each_kind(vault: &str, provider: &str) -> [(RemoteVaults, String); 3] {
    let key = format!("{vault}/secrets/web");
    let kv = format!("{vault}/v1/secret/data/team/web#token");
    [
        (vaults(vault, key_vault(provider, CLIENT_SECRET)), key),
        (vaults(vault, hashicorp(fixed_token())), kv.clone()),
        (vaults(vault, hashicorp(app_role())), kv),
    ]
}

/// Answers logins of both kinds as real servers do, and everything else with `read`.
pub(crate) async fn logging_in(
    read: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
) -> String {
    serve(move |asked| match asked.path.as_str() {
        "/contoso.test/oauth2/v2.0/token" => {
            Some(answer(200, &json!({"access_token": "access-token-1", "expires_in": 3599})))
        }
        "/v1/auth/approle/login" => {
            let auth = json!({"client_token": "hvs.token-1", "lease_duration": 3600});
            Some(answer(200, &json!({"auth": auth})))
        }
        _ => read(asked),
    })
    .await
}

#[tokio::test]
async fn without_a_grant_nothing_is_sent() {
    let (key, kv) = (KeyVaultServer::start().await, HashicorpServer::start().await);
    let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()).unwrap();
    let config = |origin: &str, kind| VaultConfig { origin: origin.parse().unwrap(), kind };
    let configs = vec![
        config(&key.vault, key_vault(&key.provider, CLIENT_SECRET)),
        config(&kv.vault, hashicorp(app_role())),
    ];
    let grant = |registry: &str, below: String| VaultGrant {
        registry: registry.parse().unwrap(),
        below: below.parse().unwrap(),
    };
    let grants = vec![
        grant("web", format!("{}/secrets/web", key.vault)),
        grant("api", format!("{}/v1/secret/data/team", kv.vault)),
    ];
    let vaults = RemoteVaults::new(&http, configs.clone(), grants).unwrap();
    let read = async |registry: &str, address: String| {
        let (registry, address) = (registry.parse().unwrap(), address.parse().unwrap());
        vaults.read(&registry, &address, within(30)).await.map(drop)
    };
    for (registry, address) in [
        ("web", format!("{}/secrets/web-2", key.vault)),
        ("api", format!("{}/secrets/web", key.vault)),
        ("web", format!("{}/v1/secret/data/team/web#token", kv.vault)),
        ("api", format!("{}/v1/secret/data/team-b#token", kv.vault)),
        ("api", "https://elsewhere.test/v1/secret/data/team#token".to_owned()),
    ] {
        let error = read(registry, address.clone()).await.unwrap_err();
        let told = format!(
            "tasks of registry {registry} may not read {address}: ask the operator to add `{registry}={}` or a path above it to the \
             setting `vaults.grants`",
            address.parse::<SecretAddress>().unwrap().path()
        );
        assert_eq!(error.to_string(), told);
        assert!(!error.is_transient());
    }
    assert_eq!(key.counts(), (0, 0));
    assert_eq!(kv.counts(), (0, 0));

    read("web", format!("{}/secrets/web", key.vault)).await.unwrap();
    read("api", format!("{}/v1/secret/data/team/web#token", kv.vault)).await.unwrap();

    let twice = vec![configs[0].clone(), configs[0].clone()];
    let error = RemoteVaults::new(&http, twice, Vec::new()).unwrap_err();
    assert!(matches!(error, VaultsError::Twice(_)), "{error}");
}

#[tokio::test]
async fn a_secret_of_the_other_kind_is_not_configured() {
    let server = HashicorpServer::start().await;
    let client = server.client(fixed_token());
    let error = read(&client, &format!("{}/secrets/web", server.vault)).await.unwrap_err();
    assert!(matches!(error, VaultError::NotConfigured { .. }), "{error}");
    assert_eq!(server.state().reads, 0);
}

#[tokio::test]
async fn the_guard_holds_for_vaults_and_identity_providers() {
    let canary = Canary::start();
    let inside = format!("https://127.0.0.2:{}", canary.port());
    let server = KeyVaultServer::start().await;
    let of_provider = vaults(&server.vault, key_vault(&inside, CLIENT_SECRET));
    let at = format!("{}/secrets/web", server.vault);
    for (client, address) in each_kind(&inside, &inside).into_iter().chain([(of_provider, at)]) {
        let error = read(&client, &address).await.unwrap_err();
        assert!(matches!(error, VaultError::Outbound(_)), "{error}");
        assert!(!error.is_transient());
    }
    assert!(canary.is_untouched());
}

#[tokio::test]
async fn redirects_are_refused_and_their_target_sees_nothing() {
    let came = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&came);
    let target = serve(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Some(answer(200, &json!({"value": "stolen"})))
    })
    .await;
    for code in [301, 302, 303, 307, 308] {
        let location = format!("{target}/x?token={TOKEN}");
        let redirect = move |_: &Asked| {
            let redirect = Response::builder().status(code).header("location", &location);
            Some(redirect.body(hyper::body::Bytes::new().into()).unwrap())
        };
        let everything = serve(redirect.clone()).await;
        let reads = logging_in(redirect).await;
        for server in [everything, reads] {
            for (client, address) in each_kind(&server, &server) {
                let error = read(&client, &address).await.unwrap_err();
                let told = format!(
                    "{server} redirects to {target} for {address}: configure the address that answers itself"
                );
                assert_eq!(error.to_string(), told, "{code}");
                assert!(!error.is_transient());
            }
        }
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_of_more_than_64_kib_is_refused() {
    let padded = |bytes: usize| {
        move |_: &Asked| {
            let fields = json!({"token": "value"});
            let body =
                json!({"value": "value", "data": {"data": fields}, "padding": "x".repeat(bytes)});
            Some(answer(200, &body))
        }
    };
    let nearly = logging_in(padded(65_000)).await;
    for (client, address) in each_kind(&nearly, &nearly) {
        assert_eq!(read(&client, &address).await.unwrap(), "value");
    }
    let large = padded(65_536);
    for server in [logging_in(large).await, serve(large).await] {
        for (client, address) in each_kind(&server, &server) {
            let error = read(&client, &address).await.unwrap_err();
            let told =
                format!("{address} cannot be read from {server}: the answer is larger than 64 KiB");
            assert_eq!(error.to_string(), told);
            assert!(!error.is_transient());
        }
    }
}

#[tokio::test]
async fn a_server_that_is_silent_or_stops_half_way_is_unreachable_after_the_deadline() {
    let (server, soon) = (KeyVaultServer::start().await, Duration::from_millis(200));
    for head in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"value\":"] {
        let slow = stalled(head).await;
        let of_provider = vaults(&server.vault, key_vault(&slow, CLIENT_SECRET));
        let at = format!("{}/secrets/web", server.vault);
        let deadline = Instant::now() + soon;
        let clients = each_kind(&slow, &slow).into_iter().chain([(of_provider, at)]);
        let reads = clients.map(async |(client, address)| {
            let error = read_until(&client, &address, deadline).await.unwrap_err();
            assert!(matches!(error, VaultError::Unreachable { .. }), "{error}");
            assert!(error.is_transient());
        });
        join_all(reads).await;
    }
    let nobody = "http://127.0.0.1:1";
    for (client, address) in each_kind(nobody, nobody) {
        let error = read(&client, &address).await.unwrap_err();
        assert!(matches!(error, VaultError::Unreachable { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_busy_server_is_tried_again_by_the_caller() {
    for status in [408, 412, 429, 500, 502, 503, 504] {
        let busy = move |_: &Asked| {
            let mut busy = answer(status, &json!({"errors": ["later"]}));
            busy.headers_mut().insert("retry-after", "7".parse().unwrap());
            Some(busy)
        };
        for server in [serve(busy).await, logging_in(busy).await] {
            for (client, address) in each_kind(&server, &server) {
                let error = read(&client, &address).await.unwrap_err();
                assert!(matches!(error, VaultError::Unavailable { .. }), "{error}");
                assert!(error.is_transient());
                assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
            }
        }
    }
}
