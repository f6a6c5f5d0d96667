//! A new base image on the real engine and the real registry: three chains and a diamond are rebuilt once each, in order,
//! on exactly the new images.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gantry_tests::git_server::GitServer;
use gantry_tests::real;

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
        let runs = self.gantry.json(&["task", "list-runs", "-n", &format!("{task}-t")]).await;
        let mut runs = runs.as_array().or_else(|| runs["runs"].as_array()).unwrap().clone();
        runs.reverse();
        runs
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
