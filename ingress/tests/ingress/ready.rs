//! What the server reports to monitoring.

use gantry_ingress::IngressSettings;
use gantry_ops::health::Need;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rig::TestServer;

#[tokio::test]
async fn readyz_names_missing_parts_without_reasons() {
    let server = TestServer::open_with(IngressSettings::default(), true).await;
    server.health.awaits("store", "10.0.0.7:6379 does not answer");
    server.health.watches("queue", Need::Helpful, || async { Ok(()) });
    for url in [&server.url, &server.hooks_url] {
        let answer = server.client.get(format!("{url}/readyz")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let parts: Value = answer.json().await.unwrap();
        assert_eq!(parts, json!({"store": "missing", "queue": "ready"}));
        let alive = server.client.get(format!("{url}/healthz")).send().await.unwrap();
        assert_eq!(alive.status(), StatusCode::OK);
    }
}
