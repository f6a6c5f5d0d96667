//! A base image that somebody else pushes during a round, and the tasks that are rebuilt on it: some that pushes to a
//! branch start too, and a chain of two.
//!
//! Of some of the pushed images gantry is told, once, so that the message may be lost. The others it finds by itself.

mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gantry_api::{BaseImageTrigger, HookCreate, HookCreated, Task, TaskCreate};
use gantry_domain::fact::FactKey;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::image_version::ImageVersion;
use gantry_domain::platform::Platform;
use gantry_seams::facts;
use gantry_seams::store::Store;
use gantry_tests::installation::Client;
use gantry_tests::kept_registry::{self, KeptRegistry};
use gantry_tests::scripted::LOOK_EVERY;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

pub(crate) use self::verdict::Rebuilds;
use crate::evidence;
use crate::ledger::Hook;
use crate::round::REGISTRY;

/// The base image.
const BASE: &str = "registry.test/base:1";

/// The task in the middle of the chain, which nothing starts but its base image, and its branch.
pub(crate) const MIDDLE: &str = "middle";

/// What it pushes.
const MIDDLE_IMAGE: &str = "registry.test/middle:latest";

/// Its first version, from which its digest is derived.
const FIRST_MIDDLE: &str = "the first middle";

/// The branch of the tasks that are built on the base image alone.
const ON_BASE: &str = "b0";

/// The branch of the tasks that are built on the base image and on the middle of the chain.
const ON_BOTH: &str = "b1";

/// The base image of a round.
pub(crate) struct BaseImages {
    /// The folder of the registry.
    registry: PathBuf,
    /// Reports pushed images.
    hook: Hook,
    /// The images that each task is built on.
    tasks: BTreeMap<String, Vec<&'static str>>,
    /// What the base image's tag had, oldest first.
    pushed: Vec<Digest>,
}

/// The Dockerfile of a branch's tasks; `None` for that of all whose images do not change.
pub(crate) fn dockerfile_of(branch: &str) -> Option<String> {
    match branch {
        ON_BASE | MIDDLE => Some("on-base.Dockerfile".to_owned()),
        ON_BOTH => Some("on-both.Dockerfile".to_owned()),
        _ => None,
    }
}

/// These Dockerfiles with their content: like `usual`, which is built on the scripted registry's image.
pub(crate) fn dockerfiles(usual: &str) -> [(String, String); 2] {
    let on_base = format!("FROM {BASE}\n");
    let on_both =
        format!("FROM {BASE} AS tools\nFROM {MIDDLE_IMAGE}\nCOPY --from=tools /tool /tool\n");
    let usual_base = format!("FROM {}\n", kept_registry::BASE);
    [(ON_BASE, on_base), (ON_BOTH, on_both)].map(|(branch, from)| {
        (dockerfile_of(branch).unwrap_or_default(), usual.replace(&usual_base, &from))
    })
}

/// The images that change during a round, of those that a Dockerfile of this branch is built on.
fn built_on(branch: &str) -> Vec<&'static str> {
    match branch {
        ON_BASE | MIDDLE => vec![BASE],
        ON_BOTH => vec![BASE, MIDDLE_IMAGE],
        _ => Vec::new(),
    }
}

/// Every image that a build reads counts.
pub(crate) fn trigger() -> BaseImageTrigger {
    BaseImageTrigger { kind: "All".to_owned(), ..BaseImageTrigger::default() }
}

/// The environment of schedulers: they ask for tags every two seconds.
pub(crate) fn environment() -> Vec<(String, String)> {
    vec![(LOOK_EVERY.to_owned(), "2000".to_owned())]
}

/// Pushes the first images to the registry in this folder. They must be there before anything is built on them.
pub(crate) fn push_first(registry: &Path) -> Result<()> {
    KeptRegistry::push_to(registry, &BASE.parse()?, &version(0))?;
    KeptRegistry::push_to(registry, &MIDDLE_IMAGE.parse()?, &digest(FIRST_MIDDLE))?;
    Ok(())
}

impl BaseImages {
    /// Creates the task in the middle of the chain, and a hook that reports pushed images. `tasks` are the others, with their
    /// branches.
    pub(crate) async fn create(
        client: &Client,
        registry: &Path,
        clone_url: &str,
        tasks: Vec<(String, String)>,
    ) -> Result<Self> {
        let middle = TaskCreate {
            name: MIDDLE.to_owned(),
            context: format!("{clone_url}#{MIDDLE}"),
            dockerfile: dockerfile_of(MIDDLE),
            images: vec![MIDDLE_IMAGE.to_owned()],
            ..TaskCreate::default()
        };
        let hook = HookCreate { provider: "distribution".to_owned(), ..HookCreate::default() };
        let hook: HookCreated = client.post(&format!("registries/{REGISTRY}/hooks"), &hook).await?;
        let secret = hook.secret.context("a hook of a registry has a secret")?;
        let all = tasks.into_iter().chain([(MIDDLE.to_owned(), MIDDLE.to_owned())]);
        let all = all.map(|(task, branch)| (task, built_on(&branch)));
        let _: Task = client.post(&format!("registries/{REGISTRY}/tasks"), &middle).await?;
        Ok(Self {
            registry: registry.to_owned(),
            hook: Hook { id: hook.hook.id, secret },
            tasks: all.filter(|(_, on)| !on.is_empty()).collect(),
            pushed: vec![version(0)],
        })
    }

    /// Pushes base images, at least one, at random intervals of up to `longest`, until it is stopped.
    pub(crate) async fn push_until(
        &mut self,
        stop: &CancellationToken,
        clients: &[Client],
        longest: Duration,
        seed: u64,
    ) -> Result<()> {
        // Not the pushes' and faults' numbers.
        let mut random = StdRng::seed_from_u64(!seed);
        loop {
            tokio::time::sleep(random.random_range(longest / 2..=longest)).await;
            self.push()?;
            if random.random() {
                self.report(&clients[random.random_range(0..clients.len())]).await?;
            }
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn push(&mut self) -> Result<()> {
        let pushed = version(self.pushed.len());
        KeptRegistry::push_to(&self.registry, &BASE.parse()?, &pushed)?;
        self.pushed.push(pushed);
        Ok(())
    }

    /// Reports the newest base image, without asking whether it was accepted.
    async fn report(&self, client: &Client) -> Result<()> {
        let image: ImageReference = BASE.parse()?;
        let target = json!({
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": self.pushed.last(),
            "repository": image.repository(),
            "tag": image.tag(),
        });
        let id = format!("base-{}", self.pushed.len());
        let request = json!({"host": kept_registry::HOST});
        let event = json!({"id": id, "action": "push", "target": target, "request": request});
        let body = json!({"events": [event]}).to_string();
        let headers = [("authorization", format!("Bearer {}", self.hook.secret))];
        let path = format!("/hooks/distribution/{}", self.hook.id);
        let Some((status, text)) = client.send_hook(&path, &headers, body.into_bytes()).await?
        else {
            return Ok(());
        };
        let is_ok = status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE;
        ensure!(is_ok, "the base image was reported, and it was answered {status}: {text}");
        Ok(())
    }

    /// What is not finished, rebuilds too, as text.
    pub(crate) async fn open(&self, store: &dyn Store) -> Result<Vec<String>> {
        let mut open = self.unnoticed(store).await?;
        open.extend(evidence::unbuilt(store).await?);
        open.extend(evidence::open(store).await?);
        if open.is_empty() {
            // A run may have ended since.
            open = evidence::unbuilt(store).await?;
        }
        Ok(open)
    }

    /// Tags of which gantry does not know yet what they have.
    async fn unnoticed(&self, store: &dyn Store) -> Result<Vec<String>> {
        let mut unnoticed = Vec::new();
        for image in [BASE, MIDDLE_IMAGE] {
            let key = FactKey::image(&REGISTRY.parse()?, &Platform::default(), &image.parse()?);
            let fact = facts::find::<ImageVersion>(store, &key).await?;
            let known = fact.and_then(|found| found.value.value).map(|it| it.digest);
            if known != KeptRegistry::tag_in(&self.registry, &image.parse()?) {
                unnoticed.push(format!("{image} is not known to have changed"));
            }
        }
        Ok(unnoticed)
    }
}

/// The base image after this many changes.
fn version(number: usize) -> Digest {
    digest(&format!("base {number}"))
}

fn digest(text: &str) -> Digest {
    let hash = hex::encode(Sha256::digest(text));
    format!("sha256:{hash}").parse().unwrap()
}
