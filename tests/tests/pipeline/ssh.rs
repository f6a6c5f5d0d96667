//! A task whose repository is read over ssh: the scheduler and the worker use the same key.

use std::time::Duration;

use gantry_domain::registry::Registry;
use gantry_domain::run::RunStatus;
use gantry_domain::source::{GitSource, Source};
use gantry_domain::trigger::PollInterval;
use gantry_ops::secret::deploy_key;
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline};
use gantry_tests::ssh_server::SshServer;

#[tokio::test]
async fn a_change_is_found_and_built_over_ssh_with_the_right_key_alone() {
    let gantry = super::start().await;
    let hello = gantry.git.repository("hello").unwrap();
    hello.commit("main", DOCKERFILE).unwrap();
    let ssh = SshServer::start(gantry.git.folder()).unwrap();
    for (name, key) in [("right", ssh.deploy_key()), ("wrong", ssh.unknown_key())] {
        let sealed_for = Registry::seals_for(TestPipeline::prefix());
        let sealed = gantry.keyring.seal(&sealed_for, &deploy_key(&key.unwrap()).unwrap()).unwrap();
        gantry
            .task_with(name, &format!("{name}:{{{{.Run.ID}}}}"), |task| {
                let git: GitSource = format!("{}#main", ssh.url("hello")).parse().unwrap();
                let host_keys = vec![ssh.host_key().unwrap().parse().unwrap()];
                task.recipe.source = Source::Git(GitSource { host_keys, ..git });
                task.git_token = Some(sealed);
                let every_minute = PollInterval::try_from(60).unwrap();
                task.source_trigger.as_mut().unwrap().poll = Some(every_minute);
            })
            .await;
    }
    gantry.scheduler().reconcile().await.unwrap();
    gantry.settle().await;
    let head = hello.commit("main", &[("file", "1")]).unwrap();
    gantry.clock.advance(Duration::from_secs(60));
    gantry.scheduler().reconcile().await.unwrap();
    gantry.settle().await;

    // Both watch the repository, and one of their keys shows what changed.
    let runs = [gantry.run("ca1").await, gantry.run("ca2").await];
    for run in runs {
        assert_eq!(run.cause.commit().unwrap().as_str(), head);
        let is_right = run.task_id().unwrap().name.as_str() == "right";
        assert_eq!(run.status() == RunStatus::Succeeded, is_right, "{:?}", run.state);
    }
}
