//! What the door tells those who watch over it.

use gantry_ingress::IngressSettings;
use gantry_ops::health::Need;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::Door;

#[tokio::test]
async fn a_door_says_what_is_missing_and_to_strangers_not_why() {
    let door = Door::open_with(IngressSettings::default(), true).await;
    door.health.awaits("store", "10.0.0.7:6379 does not answer");
    door.health.watches("queue", Need::Helpful, || async { Ok(()) });
    for url in [&door.url, &door.hooks_url] {
        let answer = door.client.get(format!("{url}/readyz")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let parts: Value = answer.json().await.unwrap();
        assert_eq!(parts, json!({"store": "missing", "queue": "ready"}));
        let alive = door.client.get(format!("{url}/healthz")).send().await.unwrap();
        assert_eq!(alive.status(), StatusCode::OK);
    }
}
