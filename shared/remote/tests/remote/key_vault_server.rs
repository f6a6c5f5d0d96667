//! An Azure Key Vault and its identity provider, as far as reading a secret needs them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use gantry_remote::vault::{KeyVaultLogin, RemoteVaults, VaultKind};
use serde_json::json;

use crate::vault_server::{Answer, Asked, answer, serve, vaults};

const TENANT: &str = "contoso.test";
pub(crate) const CLIENT_SECRET: &str = "client-secret-1";

/// A Key Vault and its identity provider, at addresses of their own.
pub(crate) struct KeyVaultServer {
    pub(crate) vault: String,
    pub(crate) provider: String,
    state: Arc<Mutex<KeyVaultState>>,
}

pub(crate) struct KeyVaultState {
    /// Seconds.
    pub(crate) lifetime: u64,
    pub(crate) logins: usize,
    pub(crate) reads: usize,
    /// The tokens that are valid.
    pub(crate) tokens: HashSet<String>,
    /// The identity provider that a challenge names.
    pub(crate) authority: String,
}

impl KeyVaultServer {
    /// It has the secret `web` with the versions `1a` and `2b`, and the disabled secret `old`.
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(KeyVaultState {
            lifetime: 3599,
            logins: 0,
            reads: 0,
            tokens: HashSet::new(),
            authority: format!("https://login.microsoftonline.com/{TENANT}"),
        }));
        let (of_vault, of_provider) = (Arc::clone(&state), Arc::clone(&state));
        let vault = serve(move |asked| Some(of_vault.lock().unwrap().read(asked))).await;
        let provider = serve(move |asked| Some(of_provider.lock().unwrap().log_in(asked))).await;
        Self { vault, provider, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, KeyVaultState> {
        self.state.lock().unwrap()
    }

    /// The logins and reads so far.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.logins, state.reads)
    }

    pub(crate) fn client(&self) -> RemoteVaults {
        vaults(&self.vault, key_vault(&self.provider, CLIENT_SECRET))
    }
}

pub(crate) fn key_vault(provider: &str, client_secret: &str) -> VaultKind {
    VaultKind::KeyVault(KeyVaultLogin {
        authority: provider.parse().unwrap(),
        tenant: TENANT.to_owned(),
        client_id: "gantry".to_owned(),
        client_secret: client_secret.into(),
        scope: "https://vault.azure.net/.default".to_owned(),
    })
}

impl KeyVaultState {
    fn log_in(&mut self, asked: &Asked) -> Answer {
        self.logins += 1;
        assert_eq!(
            (asked.method.as_str(), asked.path.as_str()),
            ("POST", "/contoso.test/oauth2/v2.0/token")
        );
        assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
        let form: HashMap<_, _> = url::form_urlencoded::parse(asked.body.as_bytes()).collect();
        assert_eq!(form["grant_type"], "client_credentials");
        assert_eq!(form["client_id"], "gantry");
        assert_eq!(form["scope"], "https://vault.azure.net/.default");
        if form["client_secret"] != CLIENT_SECRET {
            let refused = json!({
                "error": "invalid_client",
                "error_description": format!("AADSTS7000215: Invalid client secret provided: {}", form["client_secret"]),
                "error_codes": [7_000_215],
            });
            return answer(401, &refused);
        }
        let token = format!("access-token-{}", self.logins);
        self.tokens.insert(token.clone());
        let granted = json!({
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": token,
        });
        answer(200, &granted)
    }

    fn read(&mut self, asked: &Asked) -> Answer {
        self.reads += 1;
        assert_eq!(asked.method, "GET");
        let token = asked.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        if !self.tokens.contains(token) {
            let challenge = format!(
                "Bearer authorization=\"{}\", resource=\"https://vault.azure.net\"",
                self.authority
            );
            let body = json!({"error": {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}});
            let mut refused = answer(401, &body);
            refused.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
            return refused;
        }
        let value = match asked.path.as_str() {
            "/secrets/web?api-version=7.4" | "/secrets/web/2b?api-version=7.4" => "second",
            "/secrets/web/1a?api-version=7.4" => "first",
            "/secrets/old?api-version=7.4" => {
                let inner = json!({"code": "SecretDisabled"});
                let problem = json!({"code": "Forbidden", "message": "Operation get is not allowed on a disabled secret.", "innererror": inner});
                return answer(403, &json!({"error": problem}));
            }
            _ => {
                let problem = json!({"code": "SecretNotFound", "message": "A secret with (name/id) x was not found in this key vault."});
                return answer(404, &json!({"error": problem}));
            }
        };
        let attributes = json!({"enabled": true, "created": 1_700_000_000, "recoveryLevel": "Recoverable+Purgeable"});
        answer(
            200,
            &json!({"value": value, "id": "https://v/secrets/web/2b", "attributes": attributes}),
        )
    }
}
