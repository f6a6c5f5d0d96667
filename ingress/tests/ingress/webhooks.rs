//! How the webhooks that gantry keeps at code hosts are shown.

use std::time::Duration;

use gantry_domain::source::GitUrl;
use gantry_seams::place::Place;
use gantry_seams::provisioning::{self, State};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::TestServer;

const TASK: &str = "/registries/contoso/tasks/web";

/// Records how the webhook of the task's repository stands.
async fn record(server: &TestServer, state: State) {
    let url: GitUrl = "https://git.test/octo/web.git".parse().unwrap();
    let place = Place { registry: server.prefix("contoso").await, repository: url.key() };
    let (store, nonce) = (server.store.as_ref(), "1".repeat(32).parse().unwrap());
    let claimed = provisioning::claim(store, &place, &nonce, Duration::from_secs(60)).await;
    provisioning::record(store, &claimed.unwrap().unwrap(), state, None).await.unwrap();
}

#[tokio::test]
async fn a_task_shows_how_the_webhook_that_it_needs_stands() {
    let server = TestServer::with_registry().await;
    let task = json!({
        "name": "web", "context": "https://git.test/octo/web.git#main",
        "images": ["web:{{.Run.ID}}"], "source_trigger": {"name": "t"},
    });
    let created = server.post("/registries/contoso/tasks", task).await.expect(StatusCode::CREATED);
    assert_eq!(created["webhook"], json!({"state": "Pending"}));

    let now = server.store.now().await.unwrap();
    for (state, shown) in [
        (
            State::ByHand { why: "no token".to_owned() },
            json!({"state": "ByHand", "message": "no token"}),
        ),
        (
            State::Problem { message: "no".to_owned(), since: now, failures: 1, next: now },
            json!({"state": "Problem", "message": "no", "next": now.to_string()}),
        ),
        (
            State::InPlace { ids: vec!["7".to_owned()], checked: now },
            json!({"state": "InPlace", "ids": ["7"], "checked": now.to_string()}),
        ),
    ] {
        record(&server, state).await;
        let found = server.get(TASK).await.expect(StatusCode::OK);
        assert_eq!(found["webhook"], shown);
    }

    let polling = json!({"source_trigger": {"name": "t", "poll": 60}});
    let polling = server.patch(TASK, polling).await.expect(StatusCode::OK);
    assert_eq!(polling.get("webhook"), None::<&Value>, "it looks for changes itself");
}
