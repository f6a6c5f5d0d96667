//! `gantry ingress`, `gantry scheduler` and `gantry worker` as operators run them: processes over Redis and RabbitMQ.

use std::time::{Duration, Instant};

use gantry_tests::git_server::GitServer;
use gantry_tests::proxy::Way;
use gantry_tests::real;
use gantry_tests::role::Role;
use gantry_tests::servers::free_port;
use gantry_tests::servers::redis::Redis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::push::{Push, repository};
use crate::scaled::{Scaled, WITHIN, broker, unique};

/// The answer of a role's `/readyz`: the status, and the state of each part.
async fn readyz(role: &Role) -> Option<(u16, serde_json::Value)> {
    let answer = reqwest::get(format!("http://{}/readyz", role.telemetry())).await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.ok()?))
}

/// Waits until `/readyz` answers `status` with a body that satisfies `hold`.
async fn until_says(role: &mut Role, status: u16, hold: impl Fn(&serde_json::Value) -> bool) {
    let deadline = Instant::now() + WITHIN;
    let mut said = None;
    while !matches!(&said, Some((code, parts)) if *code == status && hold(parts)) {
        role.lives().unwrap();
        assert!(Instant::now() < deadline, "it says {said:?}\n{}", role.last_words());
        tokio::time::sleep(Duration::from_millis(25)).await;
        said = readyz(role).await;
    }
}

fn is_missing(parts: &serde_json::Value, part: &str) -> bool {
    parts[part].as_str().is_some_and(|words| words.starts_with("missing: "))
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_start_before_their_servers_build_what_a_push_asks_for() {
    let mut scaled = Scaled::new().await;
    scaled.redis.kill().await.unwrap();
    scaled.broker.set(Way::Cut);
    let (mut worker, mut scheduler) = (scaled.worker("worker-1"), scaled.scheduler());
    let (mut ingress, url) = scaled.ingress("ingress");
    for role in [&mut worker, &mut scheduler, &mut ingress] {
        role.spawn().unwrap();
    }
    for role in [&mut worker, &mut scheduler, &mut ingress] {
        until_says(role, 503, |parts| is_missing(parts, "store") && is_missing(parts, "queue"))
            .await;
    }
    // A process that waits for servers can be terminated.
    scheduler.terminate().await.unwrap();
    scheduler.spawn().unwrap();
    scaled.redis.start_again().await.unwrap();
    scaled.broker.set(Way::CLEAR);
    for role in [&mut worker, &mut scheduler, &mut ingress] {
        role.until_ready().await.unwrap();
    }

    scaled.admit("ingress").await;
    let (git, name) = (GitServer::start().await.unwrap(), unique("web"));
    let (repository, before) = repository(&git, &name, &real::base_image());
    let hook = scaled.web(&url, &git, &name).await;
    let after = repository.commit("main", &[("file", "changed")]).unwrap();
    let push = Push { git: &git, name: &name, before: &before, after: &after };
    assert_eq!(push.deliver(&hook, "72d3162e-cc78-11e3-81ab-4c9367dc0958").await, 202);
    let run = scaled.run(&url, "Succeeded").await;
    assert_eq!((run["commit"].as_str(), run["worker"].as_str()), (Some(&*after), Some("worker-1")));

    // A later outage of a server ends no process. Without the broker they are still ready, without the store they are
    // not.
    scaled.broker.set(Way::Cut);
    until_says(&mut ingress, 200, |parts| is_missing(parts, "queue")).await;
    scaled.redis.kill().await.unwrap();
    until_says(&mut worker, 503, |parts| is_missing(parts, "store")).await;
    until_says(&mut ingress, 503, |parts| is_missing(parts, "store")).await;
    let ready = reqwest::get(format!("{url}/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!((&ready["store"], &ready["queue"]), (&"missing".into(), &"missing".into()));
    scaled.redis.start_again().await.unwrap();
    scaled.broker.set(Way::CLEAR);
    for role in [&mut worker, &mut scheduler, &mut ingress] {
        role.until_ready().await.unwrap();
        role.terminate().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_asked_to_end_hands_its_run_back_and_another_takes_it() {
    let mut scaled = Scaled::new().await;
    let (mut ingress, url) = scaled.ingress("ingress");
    let (mut scheduler, mut first) = (scaled.scheduler(), scaled.worker("worker-1"));
    for role in [&mut ingress, &mut scheduler, &mut first] {
        role.spawn().unwrap();
    }
    for role in [&mut ingress, &mut scheduler, &mut first] {
        role.until_ready().await.unwrap();
    }
    scaled.admit("ingress").await;
    scaled.ask(&url, &["registry", "create", "demo", "--login-server", &real::registry()]).await;
    let context = scaled.folder.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let dockerfile = format!("FROM {}\nRUN sleep 3; echo done at last\n", real::base_image());
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    scaled.ask(&url, &["build", &scaled.path("context"), "-t", &unique("slow"), "--no-wait"]).await;
    scaled.run(&url, "Running").await;

    let same_folder = format!("data = {:?}", scaled.path("worker-1/data"));
    scaled.refuses("worker", &same_folder, 1, &["worker-1/data is in use by process"]).await;

    let mut second = scaled.worker("worker-2");
    second.spawn().unwrap();
    first.terminate().await.unwrap();
    let run = scaled.run(&url, "Succeeded").await;
    let attempts = run["attempts"].as_array().unwrap();
    let workers: Vec<&str> = attempts.iter().map(|one| one["worker"].as_str().unwrap()).collect();
    assert_eq!(workers, ["worker-1", "worker-2"], "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_ingress_had_accepted_is_built_and_another_tells_of_it() {
    let mut scaled = Scaled::new().await;
    let (mut first, first_url) = scaled.ingress("ingress-1");
    let (mut second, second_url) = scaled.ingress("ingress-2");
    first.spawn().unwrap();
    second.spawn().unwrap();
    first.until_ready().await.unwrap();
    scaled.admit("ingress-1").await;
    let (git, name) = (GitServer::start().await.unwrap(), unique("web"));
    let (repository, before) = repository(&git, &name, &real::base_image());
    let hook = scaled.web(&first_url, &git, &name).await;
    let after = repository.commit("main", &[("file", "changed")]).unwrap();
    let push = Push { git: &git, name: &name, before: &before, after: &after };
    assert_eq!(push.deliver(&hook, "82d3162e-cc78-11e3-81ab-4c9367dc0958").await, 202);
    first.kill().await.unwrap();

    let (mut scheduler, mut worker) = (scaled.scheduler(), scaled.worker("worker-1"));
    scheduler.spawn().unwrap();
    worker.spawn().unwrap();
    second.until_ready().await.unwrap();
    let run = scaled.run(&second_url, "Succeeded").await;
    assert_eq!(run["commit"], after);
    second.terminate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn up_with_servers_runs_all_roles_in_one_process() {
    let scaled = Scaled::new().await;
    let mut up = scaled.role("up", "up", &[("server.listen", "\"127.0.0.1:0\"".to_owned())]);
    up.spawn().unwrap();
    until_says(&mut up, 200, |parts| parts["queue"] == "ready" && parts["engine"] == "ready").await;
    up.terminate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_errors_stop_the_start_with_the_remedy() {
    let scaled = Scaled::new().await;
    std::fs::write(scaled.path("empty"), "\n").unwrap();
    std::fs::write(scaled.path("wrong"), "not-this\n").unwrap();
    let no_servers = "store.url = ''\nqueue.urls = []";
    scaled
        .refuses("ingress", no_servers, 2, &["store.url", "redis://", "queue.urls", "amqp://"])
        .await;
    let nobody = format!("127.0.0.1:{}", free_port());
    let unreachable = format!("store.url = 'redis://{nobody}/0'\npatience = '1s'");
    scaled.refuses("worker", &unreachable, 1, &[&nobody, "within 1s", "`patience`"]).await;
    let no_vhost = format!("queue.urls = ['amqp://{}/none']", broker());
    scaled.refuses("ingress", &no_vhost, 1, &["`none`", "rabbitmqctl add_vhost none"]).await;

    let cases: [(&str, &str, i32, &[&str]); 12] = [
        ("worker", "objects.url = ''", 2, &["objects.url", "file:///"]),
        ("ingress", "objects.url = 'ftp://a/b'", 2, &["objects.url", "`ftp://`", "s3://"]),
        ("scheduler", "store.url = 'http://a'", 2, &["refused.toml line 1", "`http`", "redis://"]),
        ("ingress", "queue.urls = ['amqp://a:b@c']", 2, &["queue.urls", "with a password"]),
        ("ingress", "store.password_file = 'none'", 1, &["store.password_file", "none", "write"]),
        (
            "worker",
            "queue.password_file = 'empty'",
            1,
            &["queue.password_file", "is empty", "write"],
        ),
        (
            "ingress",
            "queue.password_file = 'wrong'",
            1,
            &["127.0.0.1:", "`guest`", "password file"],
        ),
        (
            "ingress",
            "secrets.key_file = 'none'",
            1,
            &["no key file none", "gantry secret key --to"],
        ),
        ("scheduler", "secrets.key_file = ''", 1, &["secrets.key_file", "gantry secret key --to"]),
        ("worker", "secrets.pool_key_file = ''", 1, &["gantry secret pool-key linux-amd64 --to"]),
        ("worker", "worker.pool = 'other'", 1, &["pool.key", "gantry secret pool-key other"]),
        ("worker", "engine.address = 'tcp://a:1'", 2, &["engine.address", "tcp://a:1"]),
    ];
    for (role, own, code, words) in cases {
        scaled.refuses(role, own, code, words).await;
    }

    config_set(&scaled.redis, "appendfsync", "everysec").await;
    let remedies = ["`appendfsync always`", "store.allow_weak_durability"];
    scaled.refuses("scheduler", "", 1, &remedies).await;
    config_set(&scaled.redis, "requirepass", "this").await;
    let wrong = "store.password_file = 'wrong'";
    scaled.refuses("worker", wrong, 1, &["127.0.0.1:", "the user and the password file"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_another_key_than_the_installation_s_does_not_start() {
    let scaled = Scaled::new().await;
    let mut scheduler = scaled.scheduler();
    scheduler.spawn().unwrap();
    scheduler.until_ready().await.unwrap();
    scaled.ok(&["secret", "key", "--to", "other.key"]).await;
    let other_key = "secrets.key_file = 'other.key'";
    scaled.refuses("ingress", other_key, 1, &["the key file other.key is refused"]).await;
    scaled.pool_key("other.key", "other-pool.key").await;
    let other_key = "secrets.pool_key_file = 'other-pool.key'";
    scaled.refuses("worker", other_key, 1, &["the key file other-pool.key is refused"]).await;
}

async fn config_set(redis: &Redis, name: &str, value: &str) {
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    stream.write_all(format!("CONFIG SET {name} {value}\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+OK");
}
