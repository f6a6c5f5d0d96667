//! Secrets of a HashiCorp Vault.

use futures_util::future::join_all;
use gantry_remote::vault::{HashicorpLogin, VaultError, VaultKind};

use crate::hashicorp_server::{HashicorpServer, ROLE_ID, SECRET_ID, TOKEN, app_role, fixed_token};
use crate::vault_server::{read, vaults};

#[tokio::test]
async fn a_field_is_read_in_its_latest_version_or_in_a_numbered_one() {
    let server = HashicorpServer::start().await;
    let (client, vault) = (server.client(fixed_token()), &server.vault);
    for (address, value) in [
        ("/v1/secret/data/team/web#token", "third"),
        ("/v1/secret/data/team/web?version=1#token", "first"),
        ("/v1/secret/data/team/web?version=3#a.b", "dotted"),
    ] {
        assert_eq!(read(&client, &format!("{vault}{address}")).await.unwrap(), value, "{address}");
    }
    assert_eq!(server.state().logins, 0);
}

#[tokio::test]
async fn the_namespace_is_that_of_reads_and_logins() {
    let server = HashicorpServer::start().await;
    server.state().namespace = "team-a/ci";
    let address = format!("{}/v1/secret/data/team/web#token", server.vault);
    for login in [fixed_token(), app_role()] {
        let namespace = Some("team-a/ci".to_owned());
        let kind = VaultKind::Hashicorp { login: login.clone(), namespace };
        assert_eq!(read(&vaults(&server.vault, kind), &address).await.unwrap(), "third");
        let error = read(&server.client(login), &address).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
    }
}

#[tokio::test]
async fn an_app_role_logs_in_once_for_many_readers() {
    for lifetime in [2_764_800, 0] {
        let server = HashicorpServer::start().await;
        server.state().lifetime = lifetime;
        let client = server.client(app_role());
        let address = format!("{}/v1/secret/data/team/web#token", server.vault);
        let values = join_all((0..16).map(|_| read(&client, &address))).await;
        assert!(values.into_iter().all(|value| value.unwrap() == "third"));
        assert_eq!(server.counts(), (1, 16));
    }
}

#[tokio::test]
async fn an_app_role_logs_in_again_before_its_token_expires_and_after_it_was_revoked() {
    let server = HashicorpServer::start().await;
    let client = server.client(app_role());
    let address = format!("{}/v1/secret/data/team/web#token", server.vault);
    read(&client, &address).await.unwrap();
    server.state().tokens.clear();
    let values = join_all((0..16).map(|_| read(&client, &address))).await;
    assert!(values.into_iter().all(|value| value.unwrap() == "third"));
    assert_eq!(server.state().logins, 2);

    server.state().lifetime = 5;
    server.state().tokens.clear();
    for logins in 3..=5 {
        read(&client, &address).await.unwrap();
        assert_eq!(server.state().logins, logins);
    }
}

#[tokio::test]
async fn a_path_that_no_policy_permits_costs_one_login_at_most() {
    let server = HashicorpServer::start().await;
    let client = server.client(app_role());
    let denied = format!("{}/v1/secret/data/other/web#token", server.vault);
    for (logins, reads) in [(1, 1), (2, 3)] {
        let error = read(&client, &denied).await.unwrap_err();
        assert!(matches!(error, VaultError::Denied { .. }), "{error}");
        assert!(!error.is_transient());
        assert_eq!(server.counts(), (logins, reads));
    }
    let told = format!(
        "the vault denied gantry access to {denied}: check that the policy of the configured token or role lets it read the path, and that the token has not expired"
    );
    let error = read(&server.client(fixed_token()), &denied).await.unwrap_err();
    assert_eq!(error.to_string(), told);
    assert_eq!(server.counts(), (2, 4));
}

#[tokio::test]
async fn what_is_missing_is_told() {
    let server = HashicorpServer::start().await;
    let (client, vault) = (server.client(fixed_token()), &server.vault);
    for (address, told) in [
        (
            "/v1/secret/data/team/absent#token",
            "does not exist: check its mount, path and version, and that the mount is a KV engine of version 2",
        ),
        (
            "/v1/secret/data/team/web?version=4#token",
            "does not exist: check its mount, path and version, and that the mount is a KV engine of version 2",
        ),
        (
            "/v1/secret/data/team/web?version=2#token",
            "does not exist: this version was deleted: name another one, or restore it",
        ),
        (
            "/v1/secret/data/team/web#absent",
            "does not exist: the secret has no such field: check what stands after `#`",
        ),
    ] {
        let error = read(&client, &format!("{vault}{address}")).await.unwrap_err();
        assert!(matches!(error, VaultError::NotFound { .. }), "{error}");
        assert_eq!(error.to_string(), format!("{vault}{address} {told}"));
        assert!(!error.is_transient());
    }
    for (address, told) in [
        ("/v1/secret/data/team/web#port", "the field is not a string"),
        ("/v1/old/data/web#token", "the answer is not one of a KV engine of version 2"),
    ] {
        let error = read(&client, &format!("{vault}{address}")).await.unwrap_err();
        assert!(matches!(error, VaultError::Nonsense { .. }), "{error}");
        assert!(error.to_string().ends_with(told), "{error}");
    }
}

#[tokio::test]
async fn a_sealed_vault_is_tried_again_by_the_caller() {
    let server = HashicorpServer::start().await;
    server.state().is_sealed = true;
    let address = format!("{}/v1/secret/data/team/web#token", server.vault);
    for login in [fixed_token(), app_role()] {
        let client = server.client(login);
        let error = read(&client, &address).await.unwrap_err();
        assert!(matches!(error, VaultError::Unavailable { .. }), "{error}");
        assert!(error.is_transient());
        server.state().is_sealed = false;
        assert_eq!(read(&client, &address).await.unwrap(), "third");
        server.state().is_sealed = true;
    }
}

#[tokio::test]
async fn unusable_credentials_are_reported() {
    let server = HashicorpServer::start().await;
    let address = format!("{}/v1/secret/data/team/web#token", server.vault);
    for (role_id, secret_id) in [("role-2", SECRET_ID), (ROLE_ID, "secret-id-2")] {
        let (role_id, secret_id) = (role_id.to_owned(), secret_id.into());
        let client = server.client(HashicorpLogin::AppRole { role_id, secret_id });
        let error = read(&client, &address).await.unwrap_err();
        assert!(matches!(error, VaultError::LoginRejected { .. }), "{error}");
        assert!(!error.is_transient());
    }
    let token = format!("{TOKEN}\n");
    let error = read(&server.client(HashicorpLogin::Token(token.into())), &address).await;
    let told = "the token has characters that no header can contain";
    assert!(error.unwrap_err().to_string().ends_with(told));
    let kind = VaultKind::Hashicorp { login: fixed_token(), namespace: Some("a\nb".to_owned()) };
    let error = read(&vaults(&server.vault, kind), &address).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(server.state().reads, 0);
}
