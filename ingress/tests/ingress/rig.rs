//! A running server, and requests to test it.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use gantry_domain::hook::{Hook, HookSecret, Provider, Sender};
use gantry_domain::id::RunPrefix;
use gantry_domain::timestamp::Timestamp;
use gantry_ingress::{Ingress, IngressSettings, Listeners, ServeError};
use gantry_objects::ObjectBlobs;
use gantry_ops::health::Health;
use gantry_ops::secret::{Keyring, SecretString};
use gantry_remote::code_host::{CodeHosts, ProviderApi};
use gantry_remote::git::{Git, GitLimits};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::webhook::Webhooks;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::queue::Queues;
use gantry_seams::store::{
    Batch, CommitError, Entry, From, Index, Key, Record, Room, SharedStore, Store, StoreError,
    Watch,
};
use gantry_seams::{hooks, registries};
use gantry_sqlite::{Options, SqliteStore};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &str = "It's a Secret to Everybody";

/// A running server and its components.
pub(crate) struct TestServer {
    pub(crate) url: String,
    /// Where hooks are served: the same as `url`, unless there is a separate listener.
    pub(crate) hooks_url: String,
    pub(crate) admin: String,
    pub(crate) store: SharedStore,
    pub(crate) queues: Queues,
    pub(crate) blobs: SharedBlobs,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) health: Health,
    pub(crate) client: Client,
    /// While true, no commit completes.
    pub(crate) stuck: Arc<AtomicBool>,
    pub(crate) stop: CancellationToken,
    /// Resolves when the server has stopped.
    pub(crate) served: Option<JoinHandle<Result<(), ServeError>>>,
    _folder: TempDir,
}

/// Sends to public addresses only. Created once, because it reads the system's certificates.
static WEBHOOKS: LazyLock<Webhooks> = LazyLock::new(|| {
    Webhooks::new(&OutboundClient::new(OutboundPolicy::default()).unwrap()).unwrap()
});

/// Code hosts of which none has an API. Created once, for the same reason.
static NO_CODE_HOSTS: LazyLock<Arc<dyn ProviderApi>> = LazyLock::new(|| {
    let http = OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()).unwrap();
    let limits = GitLimits { fetched_bytes: 1, checkout_bytes: 1, checkout_files: 1 };
    let git = Git::new(Arc::clone(http.policy()), limits);
    Arc::new(CodeHosts::new(git, &http, Vec::new()).unwrap())
});

impl TestServer {
    pub(crate) async fn open() -> Self {
        Self::open_with(IngressSettings::default(), false).await
    }

    pub(crate) async fn open_with(settings: IngressSettings, hooks_apart: bool) -> Self {
        Self::open_on(Options::default(), settings, hooks_apart).await
    }

    /// A server whose store may not grow beyond `budget`.
    pub(crate) async fn open_on_budget(budget: u64) -> Self {
        let options = Options { max_bytes: Some(budget), ..Options::default() };
        Self::open_on(options, IngressSettings::default(), false).await
    }

    async fn open_on(options: Options, settings: IngressSettings, hooks_apart: bool) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let stuck = Arc::new(AtomicBool::new(false));
        let store: SharedStore = Arc::new(MayBeStuck {
            store: SqliteStore::in_memory(options).unwrap(),
            stuck: Arc::clone(&stuck),
        });
        let blobs: SharedBlobs = Arc::new(ObjectBlobs::local(folder.path().join("blobs")).unwrap());
        let keyring = Arc::new(Keyring::open_or_create(&folder.path().join("secret.key")).unwrap());
        let stop = CancellationToken::new();
        let queues = gantry_local::queues(&stop);
        let admin = gantry_ingress::bootstrap_admin_token(store.as_ref()).await.unwrap().unwrap();
        let api = TcpListener::bind("127.0.0.1:0").unwrap();
        let apart = hooks_apart.then(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let mut server = Self {
            url: url(&api),
            hooks_url: url(apart.as_ref().unwrap_or(&api)),
            admin: admin.as_str().to_owned(),
            store,
            queues,
            blobs,
            keyring,
            health: Health::default(),
            client: Client::builder().no_proxy().build().unwrap(),
            stuck,
            stop: stop.clone(),
            served: None,
            _folder: folder,
        };
        let listeners = Listeners { api, hooks: apart };
        let serving = gantry_ingress::run(server.ingress(settings), listeners, stop);
        server.served = Some(tokio::spawn(serving));
        server
    }

    /// The components of this server, for another one.
    pub(crate) fn ingress(&self, settings: IngressSettings) -> Ingress {
        Ingress {
            store: Arc::clone(&self.store),
            queues: self.queues.clone(),
            blobs: Arc::clone(&self.blobs),
            keyring: Arc::clone(&self.keyring),
            providers: Arc::clone(&NO_CODE_HOSTS),
            webhooks: WEBHOOKS.clone(),
            health: self.health.clone(),
            settings,
        }
    }

    /// A running server with a registry `contoso`.
    pub(crate) async fn with_registry() -> Self {
        let server = Self::open().await;
        server.create_registry("contoso").await;
        server
    }

    pub(crate) async fn create_registry(&self, name: &str) {
        let body = json!({"name": name, "host": "registry.test:5000"});
        self.post("/registries", body).await.expect(StatusCode::CREATED);
    }

    /// The prefix, which distinguishes registries with the same name.
    pub(crate) async fn prefix(&self, registry: &str) -> RunPrefix {
        let found = registries::find(self.store.as_ref(), &registry.parse().unwrap()).await;
        found.unwrap().unwrap().prefix
    }

    /// A hook of `contoso` with GitHub's published secret.
    pub(crate) async fn hook(&self, provider: Provider) -> Hook {
        self.hook_of(Sender::new(provider, None).unwrap()).await
    }

    /// Like [`Self::hook`], for any sender.
    pub(crate) async fn hook_of(&self, sender: Sender) -> Hook {
        let id = gantry_ops::secret::random_hex::<16>().unwrap().parse().unwrap();
        let secret = SecretString::from(SECRET);
        let sealed = self.keyring.seal(&hooks::seal_for(&id), &secret).unwrap();
        let created = self.store.now().await.unwrap();
        let hook = Hook {
            id,
            registry: "contoso".parse().unwrap(),
            prefix: self.prefix("contoso").await,
            sender,
            repositories: Vec::new(),
            secrets: vec![HookSecret { sealed, created }],
            is_provisioned: false,
            created,
        };
        hooks::create(self.store.as_ref(), &hook).await.unwrap();
        hook
    }

    pub(crate) fn hook_url(&self, hook: &Hook) -> String {
        format!("{}/hooks/{}/{}", self.hooks_url, hook.provider(), hook.id)
    }

    /// A delivery as GitHub sends it.
    pub(crate) fn github(&self, hook: &Hook, event: &str, id: &str, body: &str) -> RequestBuilder {
        self.github_with(SECRET, hook, event, id, body)
    }

    pub(crate) fn github_with(
        &self,
        secret: &str,
        hook: &Hook,
        event: &str,
        id: &str,
        body: &str,
    ) -> RequestBuilder {
        self.client
            .post(self.hook_url(hook))
            .header("content-type", "application/json")
            .header("x-github-event", event)
            .header("x-github-delivery", id)
            .header("x-hub-signature-256", signature(secret, body))
            .body(body.to_owned())
    }

    /// A notification as a registry sends it.
    pub(crate) fn notify(&self, hook: &Hook, body: &str) -> RequestBuilder {
        self.client
            .post(self.hook_url(hook))
            .header("content-type", "application/vnd.docker.distribution.events.v1+json")
            .bearer_auth(SECRET)
            .body(body.to_owned())
    }

    pub(crate) fn api(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/api/v1{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.api(Method::GET, path).bearer_auth(&self.admin)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.api(Method::POST, path).bearer_auth(&self.admin).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.api(Method::PATCH, path).bearer_auth(&self.admin).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.api(Method::DELETE, path).bearer_auth(&self.admin)).await
    }

    /// A token's text.
    pub(crate) async fn token(&self, scope: &str, registries: Option<&[&str]>) -> String {
        let body = match registries {
            Some(registries) => json!({"scope": scope, "registries": registries}),
            None => json!({"scope": scope}),
        };
        let made = self.post("/tokens", body).await.expect(StatusCode::CREATED);
        made["text"].as_str().unwrap().to_owned()
    }

    /// Every delivery in the ledger, newest first.
    pub(crate) async fn ledger(&self) -> Vec<Value> {
        let mut path = "/deliveries?limit=500".to_owned();
        let mut all = Vec::new();
        loop {
            let page = self.get(&path).await.expect(StatusCode::OK);
            all.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => path = format!("/deliveries?limit=500&after={next}"),
                None => return all,
            }
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Self::read(request.send().await.unwrap()).await
    }

    async fn read(response: reqwest::Response) -> Self {
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    /// As a provider sends: again, as long as the server is busy or drops the connection, which happens with large
    /// bodies on a busy machine.
    pub(crate) async fn at_last(request: impl Fn() -> RequestBuilder) -> Self {
        within(async {
            loop {
                match request().send().await {
                    Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {}
                    Ok(response) => break Self::read(response).await,
                    Err(error) => assert!(error.is_request(), "{error:?}"),
                }
            }
        })
        .await
    }

    #[track_caller]
    pub(crate) fn expect(self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The word of an error.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn signature(secret: &str, body: &str) -> String {
    signature_of(secret, body.as_bytes())
}

pub(crate) fn signature_of(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// A push of `main` from one commit to another, each a digit repeated 40 times.
pub(crate) fn push(before: char, after: char) -> String {
    let commit = |digit: char| digit.to_string().repeat(40);
    json!({
        "ref": "refs/heads/main", "before": commit(before), "after": commit(after),
        "repository": {"clone_url": "https://github.com/octo/hello.git", "default_branch": "main"},
        "pusher": {"name": "mona"},
    })
    .to_string()
}

/// A short time limit for stalled senders, but long enough for an honest one on a busy machine.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

/// Waits for something that others do, with a time limit.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it took too long")
}

/// A store whose commits can be made to hang.
struct MayBeStuck {
    store: SqliteStore,
    stuck: Arc<AtomicBool>,
}

#[async_trait]
impl Store for MayBeStuck {
    async fn load(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        self.store.load(keys).await
    }

    async fn range(
        &self,
        index: &Index,
        from: From,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.range(index, from, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        while self.stuck.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.store.commit(batch).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }

    async fn room(&self) -> Result<Room, StoreError> {
        self.store.room().await
    }

    fn watch(&self, key: &Key) -> Watch {
        self.store.watch(key)
    }
}
