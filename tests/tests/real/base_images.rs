//! Base images on the real engine and real registries: three chains and a diamond are rebuilt once each, in order, on exactly
//! the new images; hooks or none lead to the same end; a newer tag is followed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gantry_tests::git_server::GitServer;
use gantry_tests::pulled::PulledImage;
use gantry_tests::real;
use gantry_tests::servers::distribution::{Distribution, Notified};

use crate::service::{Gantry, text, unique};

/// Each task with what it is built on: `base`, or other tasks.
const TASKS: [(&str, &[&str]); 8] = [
    ("a1", &["base"]),
    ("a2", &["a1"]),
    ("a3", &["a2"]),
    ("b1", &["base"]),
    ("b2", &["b1"]),
    ("c1", &["base"]),
    ("c2", &["c1"]),
    // Its sides have different heights.
    ("top", &["a2", "b1"]),
];

struct Graph {
    gantry: Gantry,
    prefix: String,
}

impl Graph {
    fn image(&self, name: &str) -> String {
        format!("{}/{}-{name}:latest", real::registry(), self.prefix)
    }

    /// Builds the image that all are built on, by hand.
    async fn push_base(&self, content: &str) {
        let dockerfile = format!("FROM BASE\nRUN echo {content} > /content\n");
        let context = self.gantry.context(content, &dockerfile);
        let image = format!("{}-base:latest", self.prefix);
        let built = self.gantry.run(&["build", &context, "-t", &image]).await;
        assert!(built.status.success(), "{}", text(&built));
    }

    /// The successful runs of a task, oldest first.
    async fn runs(&self, task: &str) -> Vec<serde_json::Value> {
        runs_of(&self.gantry, &format!("{task}-t")).await
    }

    /// Waits until each task has this many runs, and all of them have succeeded.
    async fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let mut is_done = true;
            for (task, _) in TASKS {
                let runs = self.runs(task).await;
                is_done &=
                    runs.len() >= count && runs.iter().all(|run| run["status"] == "Succeeded");
            }
            if is_done {
                return;
            }
            assert!(Instant::now() < deadline, "not all tasks were built {count} times");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test]
async fn a_new_base_rebuilds_three_chains_and_a_diamond_once_each_in_order() {
    let graph = Graph { gantry: Gantry::up().await, prefix: unique("graph") };
    let git = GitServer::start().await.unwrap();
    graph.push_base("one").await;
    for (task, on) in TASKS {
        let name = format!("{}-{task}", graph.prefix);
        let repository = git.repository(&name).unwrap();
        let (last, others) = on.split_first().unwrap();
        let stages = others.iter().map(|it| format!("FROM {} AS {it}\n", graph.image(it)));
        let copies = others.iter().map(|it| format!("COPY --from={it} /content /content-{it}\n"));
        let dockerfile = format!(
            "{}FROM {}\n{}RUN cat /content > /content-of-{task}\n",
            stages.collect::<String>(),
            graph.image(last),
            copies.collect::<String>()
        );
        repository.commit("main", &[("Dockerfile", &dockerfile)]).unwrap();
        let (image, context) = (format!("{name}:latest"), format!("{}#main", git.url(&name)));
        let named = format!("{task}-t");
        let create = ["task", "create", "-n", &named, "-t", &image, "-c", &context];
        let all = ["--base-image-trigger-type", "All", "--commit-trigger-enabled", "false"];
        graph.gantry.ok(&[&create[..], &all].concat()).await;
        graph.gantry.ok(&["task", "run", "-n", &named]).await;
    }
    graph.wait_for(1).await;

    graph.push_base("two").await;
    graph.wait_for(2).await;
    let mut built = BTreeMap::new();
    for (task, on) in TASKS {
        let runs = graph.runs(task).await;
        assert_eq!(runs.len(), 2, "{task} was built once more: {runs:#?}");
        let run = graph.gantry.json(&["runs", "show", runs[1]["id"].as_str().unwrap()]).await;
        assert_eq!(run["trigger"], "Image Update", "{run:#}");
        for base in run["bases"].as_array().unwrap() {
            let image = base["image"].as_str().unwrap();
            let parent = on.iter().find(|it| graph.image(it) == image).unwrap();
            let Some(expected) = built.get(parent) else {
                assert_eq!(*parent, "base", "it was built after {parent}");
                continue;
            };
            assert_eq!(base["digest"], *expected, "{task} on {parent}");
        }
        let digest = run["images"][0]["digest"].clone();
        built.insert(task, digest);
    }
}

/// What is there at the end, without what differs between two installations: names of hosts and times.
#[derive(Debug, PartialEq)]
struct End {
    /// What the base has, and how often its content has changed.
    base: (String, u64),
    /// Of each task and run: what started it, and the images that it was built on. Those that gantry made itself are told as
    /// the run that made them.
    runs: Vec<(String, String, Vec<String>)>,
    /// How often the image between has changed.
    between: u64,
}

/// Somebody pushes a base, and then another one, on which two tasks are built, one after the other. The registry notifies
/// gantry of each push, or no notification arrives, and gantry asks.
async fn base_of_somebody_else(is_told: bool) -> End {
    let mut registry = Distribution::new().unwrap();
    let host = registry.host();
    let mut gantry = Gantry::installed();
    let allow = format!("outbound.allow=127.0.0.1,http://{host}");
    // Whoever is told does not ask in time.
    let interval = if is_told { "images.interval=1h" } else { "images.interval=30s" };
    gantry.start_with(&real::docker_host(), &[&allow, interval]).await;
    gantry.ok(&["registry", "create", "demo", "--login-server", &host]).await;
    let hook = gantry.json(&["hook", "create", "--provider", "distribution"]).await;
    let (url, secret) = (hook["url"].as_str().unwrap(), hook["secret"].as_str().unwrap());
    let notified = is_told.then_some(Notified { url, secret });
    registry.start(notified.as_ref()).await.unwrap();

    let git = GitServer::start().await.unwrap();
    let push = async |word| registry.push(&real::base_image(), "os", "1", word).await.unwrap();
    push("one").await;
    for (task, on) in [("node", "os:1"), ("web", "node:1")] {
        let dockerfile = format!("FROM {host}/{on}\nRUN echo $WORD > /word-of-{task}\n");
        git.repository(task).unwrap().commit("main", &[("Dockerfile", &dockerfile)]).unwrap();
        let (image, context) = (format!("{task}:1"), format!("{}#main", git.url(task)));
        let create = ["task", "create", "-n", task, "-t", &image, "-c", &context];
        gantry.ok(&[&create[..], &["--commit-trigger-enabled", "false"]].concat()).await;
        gantry.ok(&["task", "run", "-n", task]).await;
        wait_for_runs(&gantry, task, 1).await;
    }
    wait_until(async || asked_for(&gantry, &host).await).await;

    let second = push("two").await;
    wait_for_runs(&gantry, "web", 2).await;
    let web = PulledImage::find(&format!("{host}/web:1")).await.unwrap().unwrap();
    assert_eq!(web.file("word-of-web").await.unwrap(), "two\n");
    end_of(&gantry, &host, &second).await
}

/// Whether it is known what the base and the image between have.
async fn asked_for(gantry: &Gantry, host: &str) -> bool {
    let listed = gantry.json(&["image", "list"]).await;
    let listed = listed.as_array().or_else(|| listed["items"].as_array()).unwrap();
    let known = |name: &str| {
        let image = format!("{host}/{name}");
        listed.iter().any(|it| it["image"] == *image && it["digest"].is_string())
    };
    known("os:1") && known("node:1")
}

async fn end_of(gantry: &Gantry, host: &str, base: &str) -> End {
    let fact = async |image: &str| {
        let shown = gantry.json(&["image", "show", &format!("{host}/{image}")]).await;
        let fact = &shown["facts"][0];
        (fact["digest"].as_str().unwrap().to_owned(), fact["generation"].as_u64().unwrap())
    };
    let mut runs = Vec::new();
    let mut made = BTreeMap::new();
    for task in ["node", "web"] {
        for run in runs_of(gantry, task).await {
            let run = gantry.json(&["runs", "show", run["id"].as_str().unwrap()]).await;
            let id = run["id"].as_str().unwrap().to_owned();
            let bases = run["bases"].as_array().unwrap().iter().map(|base| {
                let digest = base["digest"].as_str().unwrap().to_owned();
                made.get(&digest).cloned().unwrap_or(digest)
            });
            let bases = bases.collect();
            made.insert(run["images"][0]["digest"].as_str().unwrap().to_owned(), id.clone());
            runs.push((id, run["trigger"].as_str().unwrap().to_owned(), bases));
        }
    }
    let (os, between) = (fact("os:1").await, fact("node:1").await.1);
    assert_eq!(os.0, base);
    End { base: os, runs, between }
}

/// The runs of a task, oldest first.
async fn runs_of(gantry: &Gantry, task: &str) -> Vec<serde_json::Value> {
    let runs = gantry.json(&["task", "list-runs", "-n", task]).await;
    let mut runs = runs.as_array().or_else(|| runs["runs"].as_array()).unwrap().clone();
    runs.reverse();
    runs
}

async fn wait_for_runs(gantry: &Gantry, task: &str, count: usize) {
    wait_until(async || {
        let runs = runs_of(gantry, task).await;
        runs.len() >= count && runs.iter().all(|run| run["status"] == "Succeeded")
    })
    .await;
}

async fn wait_until(holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !holds().await {
        assert!(Instant::now() < deadline, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_notifies_and_one_of_which_every_hook_is_lost_lead_to_the_same_end() {
    let (told, asked) = tokio::join!(base_of_somebody_else(true), base_of_somebody_else(false));
    assert_eq!(told, asked);
    assert_eq!((told.base.1, told.between, told.runs.len()), (2, 2, 4), "{told:#?}");
}

#[tokio::test]
async fn a_task_that_follows_a_range_is_rebuilt_on_a_newer_tag_of_the_real_registry() {
    let (gantry, prefix) = (Gantry::up().await, unique("follow"));
    let git = GitServer::start().await.unwrap();
    let push = async |version: &str| {
        let dockerfile = format!("FROM BASE\nRUN echo {version} > /version\n");
        let context = gantry.context(version, &dockerfile);
        let built = gantry.run(&["build", &context, "-t", &format!("{prefix}:{version}")]).await;
        assert!(built.status.success(), "{}", text(&built));
    };
    push("1.9.0").await;
    push("1.10.0-rc.1").await;
    let repository = git.repository(&prefix).unwrap();
    let dockerfile =
        format!("FROM {}/{prefix}:1\nRUN cat /version > /built-on\n", real::registry());
    repository.commit("main", &[("Dockerfile", &dockerfile)]).unwrap();
    let policy = format!("{}/{prefix}:^1", real::registry());
    let (image, context) = (format!("{prefix}-web:latest"), format!("{}#main", git.url(&prefix)));
    let create = ["task", "create", "-n", "web", "-t", &image, "-c", &context];
    let options = ["--base-image-follow", &policy, "--commit-trigger-enabled", "false"];
    gantry.ok(&[&create[..], &options].concat()).await;
    let deadline = Instant::now() + Duration::from_secs(120);
    let until = async |is_there: &dyn Fn(&serde_json::Value) -> bool, args: &[&str]| {
        loop {
            let found = gantry.json(args).await;
            if is_there(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{args:?}: {found:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let has_chosen = |found: &serde_json::Value| {
        let images = found.as_array().unwrap();
        images.iter().any(|it| it["image"] == *policy && it["chosen"]["tag"] == "1.9.0")
    };
    until(&has_chosen, &["image", "list"]).await;
    gantry.ok(&["task", "run", "-n", "web"]).await;
    push("1.10.0").await;
    let are_two = |found: &serde_json::Value| {
        let runs = found.as_array().unwrap();
        runs.len() == 2 && runs.iter().all(|run| run["status"] == "Succeeded")
    };
    let runs = until(&are_two, &["task", "list-runs", "-n", "web"]).await;
    // The newest first.
    for (run, tag) in runs.as_array().unwrap().iter().zip(["1.10.0", "1.9.0"]) {
        let run = gantry.json(&["runs", "show", run["id"].as_str().unwrap()]).await;
        let base = &run["bases"][0];
        assert_eq!((&base["policy"], &base["tag"]), (&policy.as_str().into(), &tag.into()));
    }
}
