//! A few matches among many runs are found at once.

use gantry_domain::decide::planner;
use gantry_domain::id::{LeaseNonce, RunId, TokenId, WorkerId};
use gantry_domain::lineage::OutputImage;
use gantry_domain::platform::Platform;
use gantry_domain::recipe::Recipe;
use gantry_domain::run::{Outcome, Product};
use gantry_domain::step::Steps;
use gantry_seams::runs::{self, Finish, Limits};
use gantry_seams::store::Batch;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Answer, TestServer};

/// More runs than one request scans.
const NEWER: usize = 2_100;

const DIGEST: &str = "sha256:5555555555555555555555555555555555555555555555555555555555555555";

#[tokio::test]
async fn a_filtered_run_is_on_the_first_page_among_thousands() {
    let server = TestServer::with_registry().await;
    server.create_registry("fabrikam").await;
    let pushed =
        finish(&server, create(&server, "contoso", 1).await[0], "registry.test/team/web:v1").await;
    let other =
        finish(&server, create(&server, "fabrikam", 1).await[0], "other.test:5000/web:v1").await;
    create(&server, "contoso", NEWER).await;

    let contosos = server.token("read", Some(&["contoso"])).await;
    let digest = format!("image={DIGEST}");
    for (query, token, expected) in [
        ("status=Succeeded", &server.admin, vec![&other, &pushed]),
        ("status=Succeeded&registry=contoso", &server.admin, vec![&pushed]),
        ("status=Succeeded", &contosos, vec![&pushed]),
        ("status=Failed", &server.admin, vec![]),
        ("image=team/web", &server.admin, vec![&pushed]),
        ("image=team/web:v1", &contosos, vec![&pushed]),
        ("image=registry.test/team/web:v1", &server.admin, vec![&pushed]),
        ("image=team/web:v2", &server.admin, vec![]),
        ("image=other.test:5000/web", &server.admin, vec![&other]),
        ("image=web", &server.admin, vec![&other]),
        ("image=web", &contosos, vec![]),
        ("image=web&status=Failed", &server.admin, vec![]),
        (&digest, &server.admin, vec![&other, &pushed]),
        (&digest, &contosos, vec![&pushed]),
    ] {
        let request = server.api(Method::GET, &format!("/runs?{query}")).bearer_auth(token);
        let page = Answer::of(request).await.expect(StatusCode::OK);
        let found: Vec<&Value> =
            page["items"].as_array().unwrap().iter().map(|run| &run["id"]).collect();
        let expected: Vec<Value> = expected.iter().map(|run| json!(run.to_string())).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{query}");
        assert_eq!(page["next"], Value::Null, "{query}");
    }
}

/// Creates waiting runs.
async fn create(server: &TestServer, registry: &str, count: usize) -> Vec<RunId> {
    let recipe: Recipe = serde_json::from_value(json!({
        "source": {"kind": "upload", "upload": "u1", "digest": DIGEST},
        "platforms": "linux/amd64",
        "timeout": 600,
        "work": {"build": {"dockerfile": "Dockerfile", "images": ["web:v1"], "push": true}},
    }))
    .unwrap();
    let (event, by): (_, TokenId) = ("request:r1".parse().unwrap(), "admin".parse().unwrap());
    let draft = planner::for_quick_run(registry.parse().unwrap(), recipe, None, event, by);
    let mut ids = Vec::new();
    while ids.len() < count {
        let some = 64.min(count - ids.len());
        let (store, now) = (server.store.as_ref(), server.store.now().await.unwrap());
        let (prefix, signer) = (server.prefix(registry).await, server.keyring.as_ref());
        let creation = runs::Creation::begin(store, Batch::default(), prefix, signer, now);
        let mut creation = creation.await.unwrap();
        for _ in 0..some {
            ids.push(creation.add(draft.clone(), None).unwrap().id);
        }
        store.commit(creation.finish()).await.unwrap();
        // Runs of the same millisecond would be ordered by id.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    ids
}

/// Completes a run that pushes an image.
async fn finish(server: &TestServer, run: RunId, image: &str) -> RunId {
    let store = server.store.as_ref();
    runs::ready(
        store,
        run,
        &"linux-amd64".parse().unwrap(),
        None,
        Limits { registry: 8, task: None },
    )
    .await
    .unwrap();
    let (worker, nonce): (WorkerId, LeaseNonce) =
        ("w1".parse().unwrap(), "1".repeat(32).parse().unwrap());
    let lease = std::time::Duration::from_secs(30);
    let pool = Platform::default().pool();
    let taken = runs::take(store, &pool, &worker, &nonce, lease).await.unwrap().unwrap();
    let (image, digest) = (image.parse().unwrap(), DIGEST.parse().unwrap());
    let output = OutputImage { image, digest, children: Vec::new() };
    let product = Product { outputs: vec![output], ..Product::default() };
    let finish = Finish::Outcome(Outcome::Succeeded(product));
    runs::finish(store, run, &taken.holder, finish, &Steps::default()).await.unwrap();
    run
}
