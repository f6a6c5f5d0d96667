//! A backup taken while pushes arrive and builds run, restored to another folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_tests::git_server::GitServer;
use gantry_tests::real;

use crate::push::{Push, repository};
use crate::service::{Gantry, text, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_busy_service_is_restored_whole() {
    let mut gantry = Gantry::up().await;
    let git = GitServer::start().await.unwrap();
    let name = unique("backup");
    let (repository, first) = repository(&git, &name, &real::base_image());
    let context = format!("{}#main", git.url(&name));
    let image = format!("{name}:{{{{.Run.ID}}}}");
    gantry.ok(&["task", "create", "-n", "web", "-t", &image, "-c", &context]).await;
    let hook = gantry
        .json(&["hook", "create", "--provider", "github", "--repository", &git.url(&name)])
        .await;
    // A finished build, one that runs during the backup, and its log.
    let done = gantry.context("done", "FROM BASE\nRUN echo it was built before\n");
    let done = gantry.run(&["build", &done, "-t", &unique("done")]).await;
    assert!(done.status.success(), "{}", text(&done));
    let slow = gantry.context("slow", "FROM BASE\nRUN echo begun; sleep 4; echo done at last\n");
    let slow = gantry.json(&["build", &slow, "-t", &unique("slow"), "--no-wait"]).await;
    let slow = slow["id"].as_str().unwrap().to_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    while gantry.json(&["runs", "show", &slow]).await["status"] != "Running" {
        assert!(Instant::now() < deadline, "the build does not begin");
    }

    // Pushes before, during and after the backup.
    let push = async |before: &str, number: usize| {
        let after = repository.commit("main", &[("file", &number.to_string())]).unwrap();
        let push = Push { git: &git, name: &name, before, after: &after };
        let id = format!("72d3162e-cc78-11e3-81ab-{number:012}");
        assert_eq!(push.deliver(&hook, &id).await, 202);
        after
    };
    let mut head = first;
    for number in 0..3 {
        head = push(&head, number).await;
    }
    let is_taken = Arc::new(AtomicBool::new(false));
    let backup = async {
        // Twice, because an existing backup is brought up to date.
        gantry.ok(&["store", "backup", "--data", "data", "--to", "backup"]).await;
        let told = gantry.run(&["store", "backup", "--data", "data", "--to", "backup"]).await;
        is_taken.store(true, Ordering::SeqCst);
        told
    };
    let pushing = async {
        let mut number = 3;
        while !is_taken.load(Ordering::SeqCst) {
            head = push(&head, number).await;
            number += 1;
        }
        number
    };
    let (told, pushed) = tokio::join!(backup, pushing);
    assert!(told.status.success(), "{}", text(&told));
    let key = "keep data/secret.key too, in another place";
    assert!(text(&told).contains(key), "{}", text(&told));
    gantry.stop().await;

    let at = |name: &str| gantry.folder.path().join(name);
    assert!(!at("backup/secret.key").exists());
    std::fs::rename(at("data"), at("lost")).unwrap();
    std::fs::rename(at("backup"), at("data")).unwrap();
    std::fs::copy(at("lost/secret.key"), at("data/secret.key")).unwrap();
    // The client still has its token.
    gantry.start(&real::docker_host()).await;

    let deliveries = gantry.ok(&["delivery", "list"]).await;
    for number in 0..3 {
        assert!(deliveries.contains(&format!("81ab-{number:012}")), "{deliveries}");
    }
    let restored = (0..pushed).filter(|n| deliveries.contains(&format!("81ab-{n:012}"))).count();
    eprintln!("{restored} of {pushed} pushes are in the backup");
    // What was building is built again, and what was waiting is built.
    let followed = gantry.run(&["logs", &slow, "--follow"]).await;
    assert!(text(&followed).contains("done at last"), "{}", text(&followed));
    let shown = gantry.json(&["runs", "show", &slow]).await;
    assert_eq!(
        (&shown["status"], shown["attempts"].as_array().unwrap().len()),
        (&"Succeeded".into(), 2)
    );
    // What was pushed after the backup is found at the start: its head is built, like a push whose webhook was lost.
    let expected = restored + usize::from(restored < pushed);
    let deadline = Instant::now() + Duration::from_secs(60);
    let runs = loop {
        let runs = gantry.json(&["task", "list-runs", "-n", "web"]).await;
        let runs = runs.as_array().or_else(|| runs["runs"].as_array()).unwrap().clone();
        if runs.iter().all(|run| run["status"] == "Succeeded") && runs.len() >= expected {
            break runs;
        }
        assert!(Instant::now() < deadline, "{runs:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // Each push is completely in the backup or not at all; each run is built once, and its log can be read.
    assert_eq!(runs.len(), expected);
    assert!(runs.iter().any(|run| run["commit"] == head.as_str()), "{runs:#?}");
    for run in &runs {
        let log = gantry.run(&["logs", run["id"].as_str().unwrap()]).await;
        assert!(text(&log).contains("it is built"), "{}", text(&log));
    }
    let before = gantry.json(&["runs", "list"]).await.to_string();
    assert!(before.contains("Succeeded") && !before.contains("Error"), "{before}");
    // Another push works as usual.
    let after = repository.commit("main", &[("file", "after")]).unwrap();
    let next = Push { git: &git, name: &name, before: &head, after: &after };
    assert_eq!(next.deliver(&hook, "82d3162e-cc78-11e3-81ab-000000000000").await, 202);
    let log = gantry.run(&["logs", "--task", "web", "--follow"]).await;
    assert!(text(&log).contains("it is built"), "{}", text(&log));
}
