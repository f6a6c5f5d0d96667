//! The hooks that gantry made, compared with what their code host has.

use std::net::TcpListener;
use std::sync::Arc;

use gantry_domain::registry::Registry;
use gantry_ingress::{Ingress, IngressSettings, Listeners};
use gantry_ops::health::Health;
use gantry_ops::secret::SecretString;
use gantry_remote::code_host::{CodeHostFailure, SentDelivery};
use gantry_seams::hooks;
use gantry_tests::pipeline::TestPipeline;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// The API of an installation.
struct Api {
    client: Client,
    url: String,
    token: String,
}

impl Api {
    async fn of(gantry: &TestPipeline) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let token = gantry_ingress::issue_admin_token(gantry.store.as_ref()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
        let ingress = Ingress {
            store: gantry.store.clone(),
            queues: gantry.queues.clone(),
            blobs: gantry.blobs.clone(),
            keyring: gantry.keyring.clone(),
            providers: Arc::new(gantry.providers.clone()),
            webhooks: gantry.webhooks.clone(),
            health: Health::default(),
            settings: IngressSettings::default(),
        };
        let listeners = Listeners { api: listener, hooks: None };
        tokio::spawn(gantry_ingress::run(ingress, listeners, gantry.stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { client, url, token: token.as_str().to_owned() }
    }

    async fn send(&self, method: Method, path: &str) -> Value {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let answer = request.bearer_auth(&self.token).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }
}

/// An installation that made a webhook for a task, and the id of its hook.
async fn start() -> (TestPipeline, String) {
    let gantry = super::start().await;
    gantry.providers.open();
    gantry.git.repository("web").unwrap();
    let bound_to = Registry::seals_for(TestPipeline::prefix());
    let token = gantry.keyring.seal(&bound_to, &SecretString::from("ghp_token")).unwrap();
    gantry.task_with("web", "web:{{.Run.ID}}", |task| task.git_token = Some(token)).await;
    gantry.schedule().await;
    let all = hooks::list(gantry.store.as_ref(), None, None, 10).await.unwrap();
    let made = all.into_iter().find(|hook| hook.is_provisioned).unwrap();
    (gantry, made.id.to_string())
}

fn sent(id: &str, delivery: &str, is_accepted: bool) -> SentDelivery {
    SentDelivery {
        id: id.to_owned(),
        delivery: Some(delivery.to_owned()),
        at: "2026-01-05T10:00:00Z".to_owned(),
        event: "push".to_owned(),
        outcome: if is_accepted { "202 OK" } else { "503 Service Unavailable" }.to_owned(),
        is_accepted,
    }
}

async fn examined(api: &Api, hook: &str) -> Value {
    api.send(Method::GET, &format!("/hooks/{hook}/webhook")).await
}

#[tokio::test]
async fn a_delivery_that_did_not_arrive_is_named_and_sent_again_once() {
    let (gantry, hook) = start().await;
    let api = Api::of(&gantry).await;
    assert_eq!(examined(&api, &hook).await["advice"], json!([]));
    gantry.providers.change_hooks(|hooks| {
        let webhook = hooks.values_mut().next().unwrap();
        webhook.sent =
            vec![sent("3", "lost", false), sent("2", "here", true), sent("1", "lost", false)];
    });
    let report = examined(&api, &hook).await;
    assert_eq!(report["webhook"]["state"], "InPlace");
    let deliveries = report["found"][0]["deliveries"].as_array().unwrap();
    let arrived: Vec<&Value> = deliveries.iter().map(|sent| &sent["arrived"]).collect();
    assert_eq!(arrived, [false, true, false]);
    assert_eq!(deliveries[0]["outcome"], "503 Service Unavailable");
    assert!(report["advice"][0].as_str().unwrap().contains("--redeliver"), "{report}");

    let path = format!("/hooks/{hook}/redeliveries");
    let again = api.send(Method::POST, &path).await;
    assert_eq!(again["deliveries"], json!(["lost"]));
    assert_eq!(gantry.providers.hooks().values().next().unwrap().redelivered, ["3"]);
}

#[tokio::test]
async fn a_missing_or_disabled_webhook_and_a_silent_host_are_named() {
    let (gantry, hook) = start().await;
    let api = Api::of(&gantry).await;
    gantry.providers.change_hooks(|hooks| {
        hooks.values_mut().next().unwrap().faults.push("is not active".to_owned());
    });
    let report = examined(&api, &hook).await;
    assert!(report["advice"][0].as_str().unwrap().contains("is not active"), "{report}");
    gantry.providers.change_hooks(std::collections::BTreeMap::clear);
    let report = examined(&api, &hook).await;
    assert!(report["advice"][0].as_str().unwrap().contains("has no webhook"), "{report}");
    gantry.providers.fail_hook(CodeHostFailure::RefusedToken, "it needs the scope `x`");
    let report = examined(&api, &hook).await;
    assert_eq!(report["advice"], json!(["it needs the scope `x`"]));
}

#[tokio::test]
async fn a_hook_that_gantry_did_not_make_has_no_token_to_look_with() {
    let (gantry, _) = start().await;
    let api = Api::of(&gantry).await;
    let report = examined(&api, "hook").await;
    assert!(report["advice"][0].as_str().unwrap().contains("did not make"), "{report}");
    assert_eq!(report["found"], json!([]));
}
