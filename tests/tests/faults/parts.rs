//! The parts of a round: all real, or a scripted engine and a registry in a folder.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::query_parameters::ListContainersOptionsBuilder;
use gantry_api::OutputImage;
use gantry_ops::secret::Keyring;
use gantry_ops::secret::random_hex;
use gantry_seams::installation;
use gantry_sqlite::{DataDir, Options, SqliteStore};
use gantry_tests::engine_images::images_with;
use gantry_tests::installation::Program;
use gantry_tests::kept_registry::{self, KeptRegistry};
use gantry_tests::pulled::PulledImage;
use gantry_tests::real::{self, Engine};
use gantry_tests::role;

use crate::base_images;
use crate::plan::{Plan, Scale};

/// Seeds with the real engine and registry.
pub(crate) const REAL_SEEDS: RangeInclusive<u64> = 1001..=1999;

/// Seeds with the engine that has the containerd image store.
pub(crate) const CONTAINERD_SEEDS: RangeInclusive<u64> = 1501..=1999;

/// The parts of one round.
pub(crate) enum Parts {
    Scripted,
    Real(RealParts),
}

pub(crate) struct RealParts {
    engine: Engine,
    /// The label in the engine.
    installation: String,
    /// A word in the command line of every step of its builds, and of no other process.
    mark: String,
}

/// The image of a tag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) digest: String,
    /// The commit in the image's label; only with a real registry.
    pub(crate) commit: Option<String>,
}

impl Parts {
    pub(crate) fn of(seed: u64) -> Self {
        if !REAL_SEEDS.contains(&seed) {
            return Self::Scripted;
        }
        let random = random_hex::<6>().unwrap();
        let installation = format!("faults-{}", random.as_str());
        let engine =
            if CONTAINERD_SEEDS.contains(&seed) { Engine::Containerd } else { Engine::Default };
        Self::Real(RealParts { engine, installation, mark: format!("mark-{}", random.as_str()) })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Scripted => "scripted",
            Self::Real(_) => "real",
        }
    }

    pub(crate) fn scale(&self) -> Scale {
        match self {
            Self::Scripted => {
                let lifetime = Duration::from_millis(1500);
                Scale { lifetime, branches: 3, pushes: 3, kills: 3 }
            }
            Self::Real(_) => {
                let lifetime = Duration::from_millis(4000);
                Scale { lifetime, branches: 2, pushes: 2, kills: 2 }
            }
        }
    }

    /// Whether builds can hang until they are cancelled.
    pub(crate) fn can_hang(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    /// Whether the base image of some tasks changes.
    pub(crate) fn has_base_images(&self) -> bool {
        matches!(self, Self::Scripted)
    }

    /// The host that images are pushed to.
    pub(crate) fn registry(&self) -> String {
        match self {
            Self::Scripted => kept_registry::HOST.to_owned(),
            Self::Real(_) => real::registry(),
        }
    }

    /// The repository of a task's images. Unique with a real registry, which may be reused.
    pub(crate) fn repository(&self, task: &str) -> String {
        match self {
            Self::Scripted => task.to_owned(),
            Self::Real(parts) => format!("{}/{task}", parts.installation),
        }
    }

    /// A Dockerfile whose step takes this many seconds.
    pub(crate) fn dockerfile(&self, seconds: &str) -> String {
        let (base, mark) = match self {
            Self::Scripted => (kept_registry::BASE.to_owned(), "mark"),
            Self::Real(parts) => (real::base_image(), parts.mark.as_str()),
        };
        format!(
            "FROM {base}\nCOPY file /file\nRUN echo begins {mark}; sleep {seconds}; echo ends\n"
        )
    }

    /// Creates the installation in an empty folder, if its id must be known in advance.
    pub(crate) async fn prepare(&self, data: &Path) -> Result<()> {
        let Self::Real(parts) = self else { return Ok(()) };
        let data = DataDir::lock(data)?;
        let store = SqliteStore::open(data.path().join("gantry.db"), Options::default())?;
        let keys = Keyring::open_or_create(&data.path().join("secret.key"))?;
        installation::open(&store, &parts.installation, &keys.fingerprints()).await?;
        Ok(())
    }

    /// The program for the folder; `seed` determines the duration of scripted operations.
    pub(crate) fn program(
        &self,
        data: &Path,
        plan: &Plan,
        repositories: &[String],
        seed: u64,
    ) -> Program {
        let data_text = data.display().to_string();
        match self {
            Self::Scripted => {
                let leases = if plan.ends_leases { "end" } else { "lapse" };
                let first = [data_text, seed.to_string(), leases.to_owned()];
                Program {
                    path: role::program("gantry-scripted"),
                    arguments: first.into_iter().chain(repositories.iter().cloned()).collect(),
                    environment: base_images::environment(),
                }
            }
            Self::Real(parts) => {
                let settings = [
                    format!("engine.address={}", parts.engine.docker_host()),
                    "outbound.allow=127.0.0.1".to_owned(),
                    "worker.slots=3".to_owned(),
                    "worker.min_free=0B".to_owned(),
                    "sweep.interval=250ms".to_owned(),
                ];
                let settings = settings.into_iter().flat_map(|set| ["--set".to_owned(), set]);
                let first = ["up", "--listen", "127.0.0.1:0", "--data", &data_text];
                let client = data.with_extension("client.toml").display().to_string();
                Program {
                    path: role::gantry(),
                    arguments: first.map(str::to_owned).into_iter().chain(settings).collect(),
                    environment: vec![("GANTRY_CONFIG".to_owned(), client)],
                }
            }
        }
    }

    /// The image of a tag, according to the registry.
    pub(crate) async fn tag(&self, data: &Path, image: &str) -> Result<Option<Tagged>> {
        match self {
            Self::Scripted => {
                let digest = KeptRegistry::tag_in(&data.join("registry"), &image.parse()?);
                Ok(digest.map(|digest| Tagged { digest: digest.to_string(), commit: None }))
            }
            Self::Real(_) => {
                let Some(image) = PulledImage::find(image).await? else { return Ok(None) };
                let commit = image.label("org.opencontainers.image.revision").await?;
                Ok(Some(Tagged { digest: image.digest, commit }))
            }
        }
    }

    /// The content of `/file` in a pushed image; only with a real registry.
    pub(crate) async fn file(&self, image: &OutputImage) -> Result<Option<String>> {
        let Self::Real(_) = self else { return Ok(None) };
        let (name, _) = image.image.rsplit_once(':').context("an image with a tag")?;
        let found = PulledImage::find(&format!("{name}@{}", image.digest)).await?;
        Ok(Some(found.context("it is in the registry")?.file("file").await?))
    }

    /// What the engine still has of the installation, and running steps of its builds.
    pub(crate) async fn left(&self) -> Result<Vec<String>> {
        let Self::Real(parts) = self else { return Ok(Vec::new()) };
        let mut left = labelled(parts.engine, &parts.installation).await?;
        let running = processes_with(&parts.mark).into_iter();
        left.extend(running.map(|command| format!("process `{command}`")));
        Ok(left)
    }
}

/// The containers and images of an installation, listed without gantry's own client.
async fn labelled(engine: Engine, installation: &str) -> Result<Vec<String>> {
    let socket = engine.docker_host();
    let engine = Docker::connect_with_unix(&socket, 20, bollard::API_DEFAULT_VERSION)?;
    let label = format!("gantry.installation={installation}");
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let containers = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = engine.list_containers(Some(containers)).await?.into_iter();
    let images = images_with(&engine, &[&label]).await?;
    let containers = containers.map(|it| format!("container {:?}", it.names));
    Ok(containers.chain(images).collect())
}

/// The command lines of this machine's processes that contain a text.
fn processes_with(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let commands = commands.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    commands.filter(|command| command.contains(text)).collect()
}
