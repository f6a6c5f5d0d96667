//! What people see of a change of a base image: what it would rebuild, what it has rebuilt, and why an image is as it is.

use std::time::Duration;

use gantry_domain::image::Digest;
use gantry_tests::pipeline::{BASE, REGISTRY, TestPipeline};
use serde_json::{Value, json};

fn own(name: &str) -> String {
    format!("{REGISTRY}/{name}:latest")
}

fn digest(letter: char) -> Digest {
    format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap()
}

/// Creates a task that pushes `name:latest`, and builds it once from this Dockerfile.
async fn built(gantry: &TestPipeline, name: &str, dockerfile: &str) {
    let repository = gantry.git.repository(name).unwrap();
    repository.commit("main", &[("Dockerfile", dockerfile)]).unwrap();
    let image = format!("{name}:latest");
    let task = gantry.task_with(name, &image, |task| task.source_trigger = None).await;
    gantry.settle().await;
    gantry.ask(&task, None).await;
    gantry.settle().await;
}

/// Asks the registries for all tags, and does all that follows.
async fn look(gantry: &TestPipeline) {
    gantry.clock.advance(Duration::from_secs(3600));
    while gantry.scheduler().watch_images().await.unwrap() {}
    gantry.settle().await;
}

/// Three tasks, each on the image of the one before, and `tool`, which only copies from the first base.
async fn chain(gantry: &TestPipeline) {
    gantry.registries.have("registry.test/other:1", &digest('e'));
    built(gantry, "base", &format!("FROM {BASE}\nRUN true\n")).await;
    built(gantry, "node", &format!("FROM {}\nRUN true\n", own("base"))).await;
    built(gantry, "web", &format!("FROM {}\nRUN true\n", own("node"))).await;
    let tool = format!("FROM {BASE} AS a\nFROM registry.test/other:1\nCOPY --from=a /b /b\n");
    built(gantry, "tool", &tool).await;
    look(gantry).await;
}

/// Some fields of each item.
fn fields(items: &Value, names: &[&str]) -> Vec<Vec<Value>> {
    let items = items.as_array().unwrap().iter();
    items.map(|item| names.iter().map(|name| item[*name].clone()).collect()).collect()
}

fn row(values: impl IntoIterator<Item = Value>) -> Vec<Value> {
    values.into_iter().collect()
}

#[tokio::test]
async fn before_a_change_its_impact_is_told_in_order_with_who_is_left_out_and_why() {
    let gantry = super::start().await;
    chain(&gantry).await;
    let impact = gantry.get(&format!("images/impact?base={BASE}")).await;
    assert_eq!(
        fields(&impact["tasks"], &["depth", "task", "after", "through", "last_run"]),
        [
            row([json!(1), json!("base"), json!(null), json!(BASE), json!("ca1")]),
            row([json!(2), json!("node"), json!(["base"]), json!(own("base")), json!("ca2")]),
            row([json!(3), json!("web"), json!(["node"]), json!(own("node")), json!("ca3")]),
        ]
    );
    assert_eq!(
        fields(&impact["others"], &["task", "through", "rule"]),
        [row([json!("tool"), json!(BASE), json!("only_buildtime")])]
    );
    let took = impact["tasks"].as_array().unwrap().iter().map(|it| it["took_ms"].as_u64().unwrap());
    assert_eq!(impact["total_ms"], took.sum::<u64>());
    assert_eq!(impact["total_ms"], impact["longest_ms"], "one after another");

    let shown = gantry.get(&format!("images/show?image={}", own("base"))).await;
    assert_eq!(fields(&shown["makers"], &["task", "run"]), [row([json!("base"), json!("ca1")])]);
    assert_eq!(
        fields(&shown["users"], &["task", "role"]),
        [row([json!("node"), json!("runtime")])]
    );
    assert_eq!(shown["facts"][0]["generation"], 1);
    let images = gantry.get("images").await;
    let images = fields(&images["items"], &["image", "users", "counted"]);
    assert!(images.contains(&row([json!(BASE), json!(2), json!(1)])), "{images:?}");
}

#[tokio::test]
async fn after_a_change_every_image_tells_why_it_is_as_it_is() {
    let gantry = super::start().await;
    chain(&gantry).await;
    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;

    let why = gantry.get(&format!("images/why?image={}", own("node"))).await;
    let origin = &why["origin"];
    assert_eq!(origin["run"], "ca6");
    assert_eq!(origin["cause"], format!("{} changed (wave ca-w1)", own("base")));
    assert_eq!(origin["trigger"], "Image Update");
    let cause = &origin["wave"]["cause"];
    assert_eq!((&origin["wave"]["id"], &cause["image"]), (&json!("ca-w1"), &json!(BASE)));
    assert_eq!((&cause["from"], &cause["to"]), (&json!(digest('b')), &json!(digest('c'))));
    assert_eq!(origin["moved"][0]["image"], own("base"));
    assert_eq!(origin["moved"][0]["to"], origin["bases"][0]["digest"]);
    assert_eq!(
        fields(&why["upstream"], &["depth", "run", "task"]),
        [row([json!(1), json!("ca5"), json!("base")])]
    );
    assert_eq!(why["upstream"][0]["bases"][0]["digest"], json!(digest('c')));
    assert_eq!(
        fields(&why["children"], &["depth", "task", "run"]),
        [row([json!(1), json!("web"), json!("ca7")])]
    );

    // From the base, which gantry did not build, down to the last image.
    let why = gantry.get(&format!("images/why?image={BASE}")).await;
    assert_eq!((&why["digest"], why.get("origin")), (&json!(digest('c')), None));
    let children = fields(&why["children"], &["depth", "task", "run"]);
    let chain = [(1, "base", "ca5"), (2, "node", "ca6"), (3, "web", "ca7")];
    assert_eq!(
        children,
        chain.map(|(depth, task, run)| row([json!(depth), json!(task), json!(run)]))
    );
    // What it was before is the base of an image that no tag has any more, and of the tool.
    let why = gantry.get(&format!("images/why?image={BASE}@{}", digest('b'))).await;
    assert_eq!(fields(&why["children"], &["task"]), [row([json!("tool")])]);
}

#[tokio::test]
async fn a_wave_shows_its_tasks_and_its_runs_name_it() {
    let gantry = super::start().await;
    chain(&gantry).await;
    gantry.registries.have(BASE, &digest('c'));
    look(&gantry).await;

    let waves = gantry.get("registries/reg/waves").await;
    assert_eq!(
        fields(&waves["items"], &["id", "state", "image"]),
        [row([json!("ca-w1"), json!("Done"), json!(BASE)])]
    );
    let mut wave = gantry.get("waves/ca-w1").await;
    wave["tasks"].as_array_mut().unwrap().sort_by_key(|task| task["task"].to_string());
    assert_eq!(
        fields(&wave["tasks"], &["task", "after", "status", "run"]),
        [
            row([json!("base"), json!(null), json!("Built"), json!("ca5")]),
            row([json!("node"), json!(["base"]), json!("Built"), json!("ca6")]),
            row([json!("web"), json!(["node"]), json!("Built"), json!("ca7")]),
        ]
    );
    let run = gantry.get("runs/ca6").await;
    assert_eq!((&run["wave"], &run["trigger"]), (&json!("ca-w1"), &json!("Image Update")));
    let listed = gantry.get("runs").await;
    assert_eq!(listed["items"][0]["wave"], "ca-w1");
    let event = gantry.get(&format!("events/{}", wave["event"].as_str().unwrap())).await;
    let candidates = fields(&event["decision"]["candidates"], &["task", "wave", "rule"]);
    assert!(candidates.contains(&row([json!("base"), json!("ca-w1"), json!(null)])));
    assert!(candidates.contains(&row([json!("tool"), json!(null), json!("only_buildtime")])));
}
