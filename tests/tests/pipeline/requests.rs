//! Runs requested over the API build what was requested: the same commit again, with new bases or the same ones, and
//! the upload that was sent.

use std::net::TcpListener;
use std::time::Duration;

use gantry_domain::image::Digest;
use gantry_domain::run::{ErrorCode, Run, RunStatus};
use gantry_ingress::{Ingress, IngressSettings, Listeners};
use gantry_ops::health::Health;
use gantry_seams::uploads;
use gantry_tests::pipeline::{BASE, DOCKERFILE, TestPipeline};
use reqwest::{Body, Client, Method, StatusCode};
use serde_json::{Value, json};

/// The API of an installation.
pub(super) struct Api {
    client: Client,
    url: String,
    token: String,
}

impl Api {
    pub(super) async fn of(gantry: &TestPipeline) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let token = gantry_ingress::issue_admin_token(gantry.store.as_ref()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
        let ingress = Ingress {
            store: gantry.store.clone(),
            queues: gantry.queues.clone(),
            blobs: gantry.blobs.clone(),
            keyring: gantry.keyring.clone(),
            providers: std::sync::Arc::new(gantry.providers.clone()),
            webhooks: gantry.webhooks.clone(),
            health: Health::default(),
            settings: IngressSettings::default(),
        };
        let listeners = Listeners { api: listener, hooks: None };
        tokio::spawn(gantry_ingress::run(ingress, listeners, gantry.stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { client, url, token: token.as_str().to_owned() }
    }

    async fn send(
        &self,
        path: &str,
        media_type: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, Value) {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .header("content-type", media_type)
            .body(body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    /// Sends JSON, and returns what is answered.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let answer = request.bearer_auth(&self.token).json(body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    /// The same API for somebody with another token.
    pub(super) fn with_token(&self, token: &str) -> Self {
        Self { client: self.client.clone(), url: self.url.clone(), token: token.to_owned() }
    }

    /// Starts a run and waits for its end.
    pub(super) async fn run(&self, gantry: &TestPipeline, path: &str, body: &Value) -> Run {
        let (status, run) = self.send(path, "application/json", body.to_string()).await;
        assert_eq!(status, StatusCode::CREATED, "{run}");
        gantry.settle().await;
        gantry.run(run["id"].as_str().unwrap()).await
    }
}

/// The commit and the base that a run was built from.
fn made_from(run: &Run) -> (&str, &Digest) {
    let product = run.state.done().unwrap().outcome.product();
    let product = product.unwrap_or_else(|| panic!("{run:?}"));
    (product.commit.as_ref().unwrap().as_str(), &product.bases[0].digest)
}

fn digest(digit: &str) -> Digest {
    format!("sha256:{}", digit.repeat(64)).parse().unwrap()
}

#[tokio::test]
async fn a_rerun_builds_the_commit_of_its_run_and_same_bases_its_bases_too() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let commit = hello.commit("main", DOCKERFILE).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    let api = Api::of(&gantry).await;
    let first = api.run(&gantry, "/registries/reg/tasks/hello/runs", &json!({})).await;
    let (old, new) = (digest("b"), digest("c"));
    assert_eq!(made_from(&first), (commit.as_str(), &old));

    hello.commit("main", &[("file", "newer")]).unwrap();
    gantry.registries.have(BASE, &new);
    let same_bases = json!({"same_bases": true});
    let again = api.run(&gantry, "/runs/ca1/reruns", &json!({})).await;
    assert_eq!(made_from(&again), (commit.as_str(), &new));
    let same = api.run(&gantry, "/runs/ca1/reruns", &same_bases).await;
    assert_eq!(made_from(&same), (commit.as_str(), &old));
    let order = gantry.engine.asked().pop().unwrap().order;
    assert!(order.dockerfile.contains(&format!("{BASE}@{old}")), "{}", order.dockerfile);
    // A rerun of a rerun must request the same bases again.
    let same = same.id;
    let again = api.run(&gantry, &format!("/runs/{same}/reruns"), &json!({})).await;
    assert_eq!(made_from(&again), (commit.as_str(), &new));
    let again = api.run(&gantry, &format!("/runs/{same}/reruns"), &same_bases).await;
    assert_eq!(made_from(&again), (commit.as_str(), &old));
}

#[tokio::test]
async fn a_rerun_of_a_run_that_failed_before_its_build_builds_the_commit_that_it_read() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    let dockerfile = "FROM registry.test/late:1\nRUN true\n";
    let commit = hello.commit("main", &[("Dockerfile", dockerfile)]).unwrap();
    gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.settle().await;
    let api = Api::of(&gantry).await;
    let first = api.run(&gantry, "/registries/reg/tasks/hello/runs", &json!({})).await;
    let (status, code, _) = failed(&first);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::BaseNotFound));
    let refused = json!({"same_bases": true}).to_string();
    let (status, refused) = api.send("/runs/ca1/reruns", "application/json", refused).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (StatusCode::CONFLICT, &json!("bases_unknown"))
    );

    gantry.registries.have("registry.test/late:1", &digest("d"));
    hello.commit("main", &[("file", "newer")]).unwrap();
    let again = api.run(&gantry, "/runs/ca1/reruns", &json!({})).await;
    assert_eq!(made_from(&again), (commit.as_str(), &digest("d")));
}

/// Uploads an archive, and returns its id.
async fn upload(api: &Api, archive: Vec<u8>) -> String {
    let path = "/registries/reg/uploads";
    let (status, upload) = api.send(path, "application/octet-stream", archive).await;
    assert_eq!(status, StatusCode::CREATED, "{upload}");
    upload["id"].as_str().unwrap().to_owned()
}

fn failed(run: &Run) -> (RunStatus, ErrorCode, String) {
    let error = run.state.done().unwrap().outcome.error().expect("it failed");
    (run.status(), error.code, error.to_string())
}

#[tokio::test]
async fn an_upload_that_was_exchanged_in_the_object_store_is_not_built() {
    let gantry = super::start().await;
    let api = Api::of(&gantry).await;
    let (sent, other) = (archive("FROM registry.test/busybox:1\n"), archive("FROM evil.test/x\n"));
    let id = upload(&api, sent.clone()).await;
    let path = uploads::blob_path(&id.parse().unwrap());
    let build = json!({"upload": id, "images": ["web:{{.Run.ID}}"]});

    gantry.blobs.put(&path, other.into()).await.unwrap();
    let run = api.run(&gantry, "/registries/reg/builds", &build).await;
    assert!(gantry.engine.asked().is_empty(), "nothing was built");
    let (status, code, words) = failed(&run);
    assert_eq!((status, code), (RunStatus::Failed, ErrorCode::Unsigned));
    assert!(words.starts_with("the archive in the object store has the SHA-256 "), "{words}");
    assert!(
        words.ends_with(
            " was uploaded: something else than gantry wrote there, so it is not built: find out who may write to the object \
             store (docs/redis-acl.md), then upload it again"
        ),
        "{words}"
    );
    assert!(gantry.log("ca1", 1).await.contains(&words), "the log says so as well");

    gantry.blobs.put(&path, sent.into()).await.unwrap();
    let run = api.run(&gantry, "/registries/reg/builds", &build).await;
    assert_eq!(run.status(), RunStatus::Succeeded);
}

#[tokio::test]
async fn an_upload_is_kept_for_a_week_if_a_run_was_started_from_it_and_else_for_a_day() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let gantry = super::start().await;
    let api = Api::of(&gantry).await;
    let unused = upload(&api, archive("FROM registry.test/busybox:1\n")).await;
    let used = upload(&api, archive("FROM registry.test/busybox:1\n")).await;
    let build = json!({"upload": used, "images": ["web:{{.Run.ID}}"]});
    api.run(&gantry, "/registries/reg/builds", &build).await;
    let there = async |id: &str| {
        gantry.scheduler().keeper().forget_old().await.unwrap();
        let id = id.parse().unwrap();
        let has_bytes = gantry.blobs.get(&uploads::blob_path(&id)).await.is_ok();
        let found = uploads::find(gantry.store.as_ref(), &id).await.unwrap();
        assert_eq!(found.is_some(), has_bytes);
        has_bytes
    };
    gantry.clock.advance(DAY - Duration::from_secs(60));
    assert!(there(&unused).await && there(&used).await);
    gantry.clock.advance(Duration::from_secs(120));
    assert!(!there(&unused).await);
    gantry.clock.advance(DAY * 5);
    assert!(there(&used).await);
    gantry.clock.advance(DAY);
    assert!(!there(&used).await);
    let (status, refused) = api.send("/runs/ca1/reruns", "application/json", "{}").await;
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::CONFLICT, &json!("source_gone")));
}

#[tokio::test]
async fn a_dockerfile_linking_to_itself_is_a_user_error() {
    let gantry = super::start().await;
    let api = Api::of(&gantry).await;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, target) in [("Dockerfile", "a"), ("a", "b"), ("b", "a")] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, target).unwrap();
    }
    let id = upload(&api, archive.into_inner().unwrap()).await;
    let build = json!({"upload": id, "images": ["web:{{.Run.ID}}"]});
    let run = api.run(&gantry, "/registries/reg/builds", &build).await;
    let words =
        "step `build`: `Dockerfile` is a link that leads back to itself: make it point to a file";
    assert_eq!(failed(&run), (RunStatus::Failed, ErrorCode::SourceRefused, words.to_owned()));
}

fn archive(dockerfile: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}
