//! Secrets of an Azure Key Vault.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use gantry_remote::vault::VaultError;
use serde_json::json;
use tokio::sync::Notify;

use crate::key_vault_server::{CLIENT_SECRET, KeyVaultServer, key_vault};
use crate::vault_server::{answer, read, serve, vaults};

#[tokio::test]
async fn a_secret_is_read_in_its_latest_version_or_in_a_named_one() {
    let server = KeyVaultServer::start().await;
    let (client, vault) = (server.client(), &server.vault);
    for (path, value) in [
        ("/secrets/web", "second"),
        ("/Secrets/WEB", "second"),
        ("/secrets/web/1a", "first"),
        ("/secrets/web/2b", "second"),
    ] {
        assert_eq!(read(&client, &format!("{vault}{path}")).await.unwrap(), value, "{path}");
    }
    assert_eq!(server.state().logins, 1);
}

#[tokio::test]
async fn many_readers_wait_for_one_login() {
    let server = KeyVaultServer::start().await;
    let (client, address) = (server.client(), format!("{}/secrets/web", server.vault));
    let values = join_all((0..16).map(|_| read(&client, &address))).await;
    assert!(values.into_iter().all(|value| value.unwrap() == "second"));
    assert_eq!(server.counts(), (1, 16));
}

#[tokio::test]
async fn a_revoked_token_is_replaced_by_one_login_for_all_readers() {
    let server = KeyVaultServer::start().await;
    let (client, address) = (server.client(), format!("{}/secrets/web", server.vault));
    read(&client, &address).await.unwrap();
    server.state().tokens.clear();
    let values = join_all((0..16).map(|_| read(&client, &address))).await;
    assert!(values.into_iter().all(|value| value.unwrap() == "second"));
    assert_eq!(server.state().logins, 2);
}

#[tokio::test]
async fn a_token_that_is_about_to_expire_is_not_used_again() {
    let server = KeyVaultServer::start().await;
    server.state().lifetime = 5;
    let (client, address) = (server.client(), format!("{}/secrets/web", server.vault));
    for logins in 1..=3 {
        read(&client, &address).await.unwrap();
        assert_eq!(server.state().logins, logins);
    }
}

#[tokio::test]
async fn a_login_that_its_reader_gives_up_is_done_by_the_next() {
    let server = KeyVaultServer::start().await;
    let token = "access-token-1";
    server.state().tokens.insert(token.to_owned());
    let (came, logins) = (Arc::new(Notify::new()), AtomicUsize::new(0));
    let first_came = Arc::clone(&came);
    let provider = serve(move |_| {
        first_came.notify_one();
        let is_first = logins.fetch_add(1, Ordering::SeqCst) == 0;
        let granted = json!({"access_token": token, "expires_in": 3599});
        (!is_first).then(|| answer(200, &granted))
    })
    .await;
    let client = vaults(&server.vault, key_vault(&provider, CLIENT_SECRET));
    let address = format!("{}/secrets/web", server.vault);
    let first = async {
        tokio::select! {
            read = read(&client, &address) => panic!("{read:?} without a login"),
            () = came.notified() => {}
        }
    };
    let ((), second) = tokio::join!(first, read(&client, &address));
    assert_eq!(second.unwrap(), "second");
}

#[tokio::test]
async fn a_challenge_that_names_a_foreign_identity_provider_is_not_followed() {
    let (server, foreign) = (KeyVaultServer::start().await, KeyVaultServer::start().await);
    let foreign_authority = format!("{}/contoso.test", foreign.provider);
    server.state().authority = foreign_authority;
    let (client, address) = (server.client(), format!("{}/secrets/web", server.vault));
    read(&client, &address).await.unwrap();
    server.state().tokens.clear();
    read(&client, &address).await.unwrap();
    assert_eq!((server.counts().0, foreign.counts().0), (2, 0));

    // A vault that accepts no token.
    let challenge = format!("Bearer authorization=\"{}/contoso.test\"", foreign.provider);
    let vault = serve(move |_| {
        let mut refused = answer(
            401,
            &json!({"error": {"code": "Unauthorized", "message": "AKV10032: Invalid issuer."}}),
        );
        refused.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
        Some(refused)
    })
    .await;
    let client = vaults(&vault, key_vault(&server.provider, CLIENT_SECRET));
    let error = read(&client, &format!("{vault}/secrets/web")).await.unwrap_err();
    let told = format!(
        "{vault} rejected gantry's credentials for {vault}/secrets/web: 401 Unauthorized: check the vault's credentials in the settings"
    );
    assert_eq!(error.to_string(), told);
    assert!(!error.is_transient());
    assert_eq!(foreign.state().logins, 0);
}

#[tokio::test]
async fn refusals_tell_what_to_do() {
    let server = KeyVaultServer::start().await;
    let (client, vault) = (server.client(), &server.vault);

    let error = read(&client, &format!("{vault}/secrets/absent")).await.unwrap_err();
    assert!(matches!(error, VaultError::NotFound { .. }), "{error}");
    let told = format!(
        "{vault}/secrets/absent does not exist: check its name and version in the Key Vault"
    );
    assert_eq!(error.to_string(), told);
    assert!(!error.is_transient());

    let error = read(&client, &format!("{vault}/secrets/old")).await.unwrap_err();
    assert!(matches!(error, VaultError::Denied { .. }), "{error}");
    let told = format!(
        "the vault denied gantry access to {vault}/secrets/old (SecretDisabled): allow the configured application to get secrets there"
    );
    assert_eq!(error.to_string(), told);

    let client = vaults(vault, key_vault(&server.provider, "wrong"));
    let error = read(&client, &format!("{vault}/secrets/web")).await.unwrap_err();
    assert!(matches!(error, VaultError::LoginRejected { .. }), "{error}");
    let told = format!(
        "{} rejected gantry's credentials for {vault}/secrets/web: 401 Unauthorized (AADSTS7000215): check the vault's credentials in the settings",
        server.provider
    );
    assert_eq!(error.to_string(), told);
    assert!(!error.is_transient());
}
