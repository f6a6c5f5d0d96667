//! Several worker processes on one engine: whatever they push concurrently, each tag points to what its own run built.

use futures_util::future::join_all;
use gantry_tests::git_server::GitServer;
use gantry_tests::on_each_engine;
use gantry_tests::pulled::PulledImage;
use gantry_tests::real::{self, Engine};
use gantry_tests::role::Role;

use crate::scaled::{Scaled, unique};

const DOCKERFILE: &str = "FROM scratch\nCOPY file /file\n";

const WORKERS: usize = 3;

/// Branches of one repository. Their tasks push to one repository of the registry, each with its own tag.
const BRANCHES: [&str; 6] = ["b0", "b1", "b2", "b3", "b4", "b5"];

/// 12 runs in all.
const ROUNDS: usize = 2;

mod few {
    use super::*;

    on_each_engine!(slow on the default engine: three_workers_on_one_engine_never_tag_each_others_images);
}

async fn three_workers_on_one_engine_never_tag_each_others_images(on: Engine) {
    assert_tags_show_what_was_built(&on.docker_host(), ROUNDS).await;
}

mod slow {
    use gantry_tests::real;

    use super::assert_tags_show_what_was_built;

    /// 102 runs in all.
    const ROUNDS: usize = 17;

    #[tokio::test(flavor = "multi_thread")]
    async fn three_workers_on_one_engine_never_tag_each_others_images() {
        assert_tags_show_what_was_built(&real::docker_host(), ROUNDS).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_workers_on_one_engine_with_the_containerd_store_never_tag_each_others_images() {
        assert_tags_show_what_was_built(&real::containerd_docker_host(), ROUNDS).await;
    }
}

async fn assert_tags_show_what_was_built(docker_host: &str, rounds: usize) {
    let mut scaled = Scaled::new().await;
    let (mut ingress, url) = scaled.ingress("ingress");
    let mut roles: Vec<Role> = (0..WORKERS)
        .map(|number| scaled.worker_on(&format!("worker-{number}"), docker_host))
        .collect();
    roles.push(scaled.scheduler());
    ingress.spawn().unwrap();
    for role in &mut roles {
        role.spawn().unwrap();
    }
    ingress.until_ready().await.unwrap();
    for role in &mut roles {
        role.until_ready().await.unwrap();
    }
    scaled.admit("ingress").await;
    scaled.ask(&url, &["registry", "create", "demo", "--login-server", &real::registry()]).await;
    let git = GitServer::start().await.unwrap();
    let source = git.repository("app").unwrap();
    let repository = unique("shared");
    for branch in BRANCHES {
        let (image, context) =
            (format!("{repository}:{branch}"), format!("{}#{branch}", git.url("app")));
        let create = ["task", "create", "-n", branch, "-t", &image, "-c", &context];
        scaled.ask(&url, &create).await;
    }
    for round in 0..rounds {
        for branch in BRANCHES {
            let content = content(branch, round);
            source.commit(branch, &[("Dockerfile", DOCKERFILE), ("file", &content)]).unwrap();
        }
        let runs = BRANCHES.map(async |branch| {
            let run = scaled.ask(&url, &["task", "run", "-n", branch]).await;
            assert_eq!(run["status"], "Succeeded", "{run}");
        });
        join_all(runs).await;
        for branch in BRANCHES {
            assert_eq!(tagged(&repository, branch).await, content(branch, round));
        }
    }
    for role in &mut roles {
        role.terminate().await.unwrap();
    }
}

fn content(branch: &str, round: usize) -> String {
    format!("branch {branch}, round {round}")
}

/// The content of `/file` in the image of a branch's tag, according to the registry.
async fn tagged(repository: &str, branch: &str) -> String {
    let image = format!("{}/{repository}:{branch}", real::registry());
    PulledImage::find(&image).await.unwrap().expect("a tag").file("file").await.unwrap()
}
