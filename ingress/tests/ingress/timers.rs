//! The timers of tasks in the API.

use reqwest::StatusCode;
use serde_json::json;

use crate::rig::TestServer;

#[tokio::test]
async fn a_task_shows_its_timers_and_when_they_are_due_next() {
    let server = TestServer::with_registry().await;
    let body = json!({
        "name": "web", "context": "https://github.com/octo/hello.git#main", "push": false,
        "timers": [
            {"name": "nightly", "schedule": "0  3 * * *", "timezone": "europe/berlin"},
            {"name": "off", "schedule": "0 4 * * *", "status": "Disabled", "overlap": "skip", "misfire": "all"},
        ],
    });
    let created = server.post("/registries/contoso/tasks", body).await.expect(StatusCode::CREATED);
    let shown = server.get("/registries/contoso/tasks/web").await.json();
    assert_eq!(shown["timers"], created["timers"]);
    let (nightly, off) = (&shown["timers"][0], &shown["timers"][1]);
    assert_eq!(nightly["schedule"], "0 3 * * *");
    assert_eq!(nightly["timezone"], "Europe/Berlin");
    assert_eq!([&nightly["misfire"], &nightly["overlap"]], ["once", "allow"]);
    let next = nightly["next"].as_str().unwrap();
    assert!(next.ends_with("T01:00:00.000Z") || next.ends_with("T02:00:00.000Z"), "{next}");
    assert_eq!(off["next"], json!(null));
    assert_eq!(
        [&off["status"], &off["overlap"], &off["catch_up"]],
        [&json!("Disabled"), &json!("skip"), &json!(3600)]
    );

    // What was read may be sent back.
    let change = json!({"timers": [nightly]});
    let changed = server.patch("/registries/contoso/tasks/web", change).await.json();
    assert_eq!(changed["timers"], json!([nightly]));
    let none = server.patch("/registries/contoso/tasks/web", json!({"timers": []})).await.json();
    assert_eq!(none["timers"], json!(null));
    assert_eq!(none["revision"], 3);
}

#[tokio::test]
async fn wrong_timers_are_refused_with_all_mistakes() {
    let server = TestServer::with_registry().await;
    let refused = async |timers: serde_json::Value| {
        let body = json!({
            "name": "web", "context": "https://github.com/octo/hello.git#main", "push": false, "timers": timers,
        });
        let refused = server.post("/registries/contoso/tasks", body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
        refused.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    let timers = json!([
        {"name": "-", "schedule": "* * * *", "timezone": "Mars", "status": "on", "misfire": "x", "catch_up": 1, "overlap": "x"},
        {"name": "never", "schedule": "0 0 30 2 *"},
    ]);
    insta::assert_snapshot!(refused(timers).await, @r"
    timers.name: `-` is no timer name: 1 to 50 letters, digits, `-` or `_`, beginning with a letter or digit
    timers.schedule: `* * * *` is no schedule: it has 4 fields, and five are needed: minute, hour, day of the month, month, day of the week
    timers.timezone: `Mars` is no time zone: a name like `UTC` or `Europe/Berlin`
    timers.status: `on` is no status: `Enabled` or `Disabled`
    timers.misfire: `x` is no choice for missed instants: `skip`, `once` or `all`
    timers.catch_up: `1 s` is no window for missed instants: 60 to 86400 seconds
    timers.overlap: `x` is no choice for overlapping runs: `allow`, `skip`, `queue` or `cancel`
    timers.schedule: `0 0 30 2 *` is never due within five years: the day of the month and the day of the week must both match
    ");
    let many: Vec<_> =
        (0..21).map(|it| json!({"name": format!("t{it}"), "schedule": "* * * * *"})).collect();
    assert!(refused(json!(many)).await.contains("at most 20 timers"));
    let twice =
        json!([{"name": "t", "schedule": "* * * * *"}, {"name": "t", "schedule": "1 * * * *"}]);
    assert!(refused(twice).await.contains("the name of another timer"));
}
