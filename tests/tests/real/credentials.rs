//! A task's credentials for a second registry, on the real engine and against a real registry that demands a login.

use std::collections::BTreeMap;

use gantry_domain::image::RegistryHost;
use gantry_domain::login::{Login, Password, Username};
use gantry_domain::registry::Registry;
use gantry_domain::run::{ErrorCode, Run, RunStatus};
use gantry_domain::task::Task;
use gantry_ops::secret::SecretString;
use gantry_seams::{registries, runs};
use gantry_tests::backend::Backend;
use gantry_tests::on_each_engine;
use gantry_tests::pipeline::{TestPipeline, create_registry};
use gantry_tests::real::{self, Engine};
use gantry_tests::servers::distribution::{Distribution, LOGIN};

use crate::builds::{ask, unique};

on_each_engine! {
    a_task_with_credentials_for_a_second_registry_builds_on_its_images_and_pushes_there,
}

/// An installation with a home registry that needs no login.
struct Rig {
    gantry: TestPipeline,
    on: Engine,
}

impl Rig {
    async fn task(&self, dockerfile: &str, image: &str, logins: &[(&RegistryHost, &str)]) -> Task {
        let store = self.gantry.store.as_ref();
        let registry = registries::find(store, &"real".parse().unwrap()).await.unwrap().unwrap();
        let seal = |password: &str| {
            let seals_for = Registry::seals_for(registry.prefix);
            self.gantry.keyring.seal(&seals_for, &SecretString::from(password)).unwrap()
        };
        let login = |(host, password): &(&RegistryHost, &str)| {
            let username = Username::Text(LOGIN.0.to_owned());
            ((*host).clone(), Login { username, password: Password::Sealed(seal(password)) })
        };
        let logins: BTreeMap<RegistryHost, Login> = logins.iter().map(login).collect();
        let name = unique("credentials");
        let files = [("Dockerfile", dockerfile)];
        self.gantry.git.repository(&name).unwrap().commit("main", &files).unwrap();
        self.gantry
            .task_with(&name, image, |task| {
                task.id = format!("real/{name}").parse().unwrap();
                task.source_trigger = None;
                task.recipe.logins = logins;
            })
            .await
    }

    async fn run(&self, task: &Task) -> (Run, String) {
        let id = ask(&self.gantry, task).await;
        let worker = self.gantry.real_worker_on("w", &self.on.docker_host());
        loop {
            assert!(worker.turn(&self.gantry.stop).await.unwrap(), "it is taken");
            let run = runs::find(self.gantry.store.as_ref(), id).await.unwrap().unwrap();
            // The scan of the task may come first.
            if run.state.done().is_some() {
                let log = self.gantry.log(&id.to_string(), 1).await;
                assert!(!log.contains(LOGIN.1), "{log}");
                return (run, log);
            }
        }
    }
}

async fn a_task_with_credentials_for_a_second_registry_builds_on_its_images_and_pushes_there(
    on: Engine,
) {
    let gantry = TestPipeline::start(Backend::Embedded).await;
    create_registry(gantry.store.as_ref(), "real", &real::registry(), 8).await;
    let rig = Rig { gantry, on };
    let mut second = Distribution::new().unwrap().with_login();
    second.start(None).await.unwrap();
    let host: RegistryHost = second.host().parse().unwrap();
    let succeeded = |(run, log): (Run, String)| {
        assert_eq!(run.status(), RunStatus::Succeeded, "{:?}\n{log}", run.state);
        run
    };

    let base = format!("{host}/team/base:1");
    let word = unique("word");
    let dockerfile = format!("FROM {}\nRUN echo {word} > /word\n", real::base_image());
    let task = rig.task(&dockerfile, &base, &[(&host, LOGIN.1)]).await;
    let pushed = succeeded(rig.run(&task).await);
    let digest = pushed.state.done().unwrap().outcome.product().unwrap().outputs[0].digest.clone();

    let on_it = format!("FROM {base}\nRUN grep {word} /word\n");
    let task = rig.task(&on_it, &format!("{host}/team/web:1"), &[(&host, LOGIN.1)]).await;
    let run = succeeded(rig.run(&task).await);
    let product = run.state.done().unwrap().outcome.product().unwrap();
    assert_eq!((product.bases[0].image.to_string(), &product.bases[0].digest), (base, &digest));

    let other: RegistryHost = "127.0.0.1:1".parse().unwrap();
    for logins in [vec![], vec![(&host, "guessed")], vec![(&other, LOGIN.1)]] {
        let task = rig.task(&on_it, "web:1", &logins).await;
        let (run, log) = rig.run(&task).await;
        let error = run.state.done().unwrap().outcome.error().unwrap();
        assert_eq!(error.code, ErrorCode::RegistryUnauthorized, "{error}\n{log}");
    }
}
