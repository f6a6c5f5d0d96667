//! A HashiCorp Vault, as far as reading a secret needs it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use gantry_remote::vault::{HashicorpLogin, RemoteVaults, VaultKind};
use serde_json::{Value, json};

use crate::vault_server::{Answer, Asked, answer, serve, vaults};

pub(crate) const ROLE_ID: &str = "role-1";
pub(crate) const SECRET_ID: &str = "secret-id-1";
pub(crate) const TOKEN: &str = "fixed-token-1";

/// A HashiCorp Vault.
pub(crate) struct HashicorpServer {
    pub(crate) vault: String,
    state: Arc<Mutex<HashicorpState>>,
}

pub(crate) struct HashicorpState {
    /// Seconds; 0 for tokens that do not expire.
    pub(crate) lifetime: u64,
    pub(crate) logins: usize,
    pub(crate) reads: usize,
    /// The tokens that are valid.
    pub(crate) tokens: HashSet<String>,
    pub(crate) namespace: &'static str,
    pub(crate) is_sealed: bool,
}

impl HashicorpServer {
    /// The engine at `secret` has the secret `team/web` with three versions, of which the second is deleted. No policy
    /// permits `other`. The engine at `old` is of version 1.
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(HashicorpState {
            lifetime: 2_764_800,
            logins: 0,
            reads: 0,
            tokens: HashSet::from([TOKEN.to_owned()]),
            namespace: "",
            is_sealed: false,
        }));
        let of_vault = Arc::clone(&state);
        let vault = serve(move |asked| Some(of_vault.lock().unwrap().answer(asked))).await;
        Self { vault, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, HashicorpState> {
        self.state.lock().unwrap()
    }

    /// The logins and reads so far.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.logins, state.reads)
    }

    pub(crate) fn client(&self, login: HashicorpLogin) -> RemoteVaults {
        vaults(&self.vault, VaultKind::Hashicorp { login, namespace: None })
    }
}

pub(crate) fn fixed_token() -> HashicorpLogin {
    HashicorpLogin::Token(TOKEN.into())
}

pub(crate) fn app_role() -> HashicorpLogin {
    HashicorpLogin::AppRole { role_id: ROLE_ID.to_owned(), secret_id: SECRET_ID.into() }
}

fn errors(status: u16, errors: &[&str]) -> Answer {
    answer(status, &json!({"errors": errors}))
}

fn version(number: u64, data: &Value) -> Value {
    let deletion_time = if data.is_null() { "2026-01-02T03:04:05.678Z" } else { "" };
    let metadata = json!({
        "created_time": "2026-01-01T00:00:00Z",
        "custom_metadata": null,
        "deletion_time": deletion_time,
        "destroyed": false,
        "version": number,
    });
    json!({"request_id": "r", "lease_id": "", "lease_duration": 0, "data": {"data": data, "metadata": metadata}, "auth": null})
}

impl HashicorpState {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.header("x-vault-request") != "true" {
            return errors(412, &["missing required header"]);
        }
        if self.is_sealed {
            return errors(503, &["Vault is sealed"]);
        }
        if asked.header("x-vault-namespace") != self.namespace {
            return errors(403, &["permission denied"]);
        }
        if asked.path == "/v1/auth/approle/login" { self.log_in(asked) } else { self.read(asked) }
    }

    fn log_in(&mut self, asked: &Asked) -> Answer {
        self.logins += 1;
        assert_eq!(asked.method, "POST");
        let login: Value = serde_json::from_str(&asked.body).unwrap();
        if login != json!({"role_id": ROLE_ID, "secret_id": SECRET_ID}) {
            return errors(400, &["invalid role or secret ID"]);
        }
        let token = format!("hvs.token-{}", self.logins);
        self.tokens.insert(token.clone());
        let auth = json!({"client_token": token, "lease_duration": self.lifetime, "renewable": true, "policies": ["web"]});
        answer(200, &json!({"request_id": "r", "data": null, "auth": auth}))
    }

    fn read(&mut self, asked: &Asked) -> Answer {
        self.reads += 1;
        assert_eq!(asked.method, "GET");
        if !self.tokens.contains(asked.header("x-vault-token")) {
            return errors(
                403,
                &["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"],
            );
        }
        let fields = |token| json!({"token": token, "port": 8200, "a.b": "dotted"});
        match asked.path.as_str() {
            "/v1/secret/data/team/web" | "/v1/secret/data/team/web?version=3" => {
                answer(200, &version(3, &fields("third")))
            }
            "/v1/secret/data/team/web?version=2" => answer(404, &version(2, &Value::Null)),
            "/v1/secret/data/team/web?version=1" => answer(200, &version(1, &fields("first"))),
            "/v1/old/data/web" => answer(200, &json!({"data": {"token": "of version 1"}})),
            path if path.starts_with("/v1/secret/data/other") => {
                errors(403, &["1 error occurred:\n\t* permission denied\n\n"])
            }
            _ => errors(404, &[]),
        }
    }
}
