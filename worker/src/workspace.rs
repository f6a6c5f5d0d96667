//! What the steps of an attempt share: the files of the source in a volume, a home folder, networks, volumes of secrets.
//!
//! Made when the first container needs it, and removed at the end of the attempt. Until a container has begun, the
//! files are those of the source, so a build reads them without a volume.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gantry_domain::image::RegistryHost;
use gantry_domain::run::ErrorCode;
use gantry_domain::source::CommitId;
use gantry_ops::secret::{Credentials, ExposeSecret as _};
use gantry_taskfile::ignore::Ignore;
use gantry_taskfile::task_file::Volume;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::engine::ContextStream;
use crate::engine::containers::{
    AttemptNetwork, AttemptResources, AttemptVolume, Containers, Owner,
};
use crate::failure::{self, Failure};
use crate::graph::{Graph, WORKSPACE};
use crate::source::{Checkout, Sources};

/// `HOME` of each container, as in the original.
pub(crate) const HOME: &str = "/acb/home";

/// The engine's default network, and its driver.
const BRIDGE: &str = "bridge";

pub(crate) struct Workspace {
    containers: Arc<dyn Containers>,
    sources: Sources,
    resources: AttemptResources,
    secrets: Vec<Volume>,
    source: Option<Arc<Checkout>>,
    /// The credentials that the steps may use.
    login: Option<BTreeMap<RegistryHost, Credentials>>,
    deadline: Instant,
    made: OnceCell<()>,
    /// Whether there may be something to remove.
    is_begun: AtomicBool,
    /// Whether a container may have changed the files.
    is_touched: AtomicBool,
}

impl Workspace {
    pub(crate) fn new(
        containers: Arc<dyn Containers>,
        sources: Sources,
        resources: AttemptResources,
        secrets: Vec<Volume>,
        source: Option<Arc<Checkout>>,
        login: Option<BTreeMap<RegistryHost, Credentials>>,
        deadline: Instant,
    ) -> Self {
        Self {
            containers,
            sources,
            resources,
            secrets,
            source,
            login,
            deadline,
            made: OnceCell::new(),
            is_begun: AtomicBool::new(false),
            is_touched: AtomicBool::new(false),
        }
    }

    /// The attempt that everything belongs to.
    pub(crate) fn owner(&self) -> &Owner {
        &self.resources.owner
    }

    /// The source, if the run has files.
    pub(crate) fn source(&self) -> Option<&Arc<Checkout>> {
        self.source.as_ref()
    }

    /// The commit of the source, if it came from git.
    pub(crate) fn commit(&self) -> Option<&CommitId> {
        self.source.as_ref()?.commit()
    }

    /// The name of the workspace's volume in the engine.
    pub(crate) fn shared_volume(owner: &Owner) -> String {
        owner.name("workspace")
    }

    /// Makes networks and volumes, and fills them. Later calls wait for the first.
    pub(crate) async fn make(&self) -> Result<(), Failure> {
        self.is_begun.store(true, Ordering::Release);
        self.made.get_or_try_init(|| self.make_once()).await.copied()
    }

    async fn make_once(&self) -> Result<(), Failure> {
        self.containers.prepare(&self.resources).await?;
        if let Some(source) = &self.source {
            // A context leaves nothing out here: the ignore rules are those of each build.
            let files = source.pack(Ignore::default());
            self.fill(&AttemptVolume::workspace(self.owner()), files).await?;
        }
        for volume in &self.secrets {
            let files = volume.files.iter().map(|(name, content)| (name.as_str(), &content[..]));
            // Steps may run as any user.
            self.fill(&named(self.owner(), volume), tar(files, 0o644)?).await?;
        }
        if let Some(login) = self.login.as_ref().filter(|login| !login.is_empty()) {
            let config = docker_configuration(login);
            let files = [(".docker/config.json", config.as_bytes())];
            self.fill(&AttemptVolume::home(self.owner()), tar(files.into_iter(), 0o600)?).await?;
        }
        Ok(())
    }

    async fn fill(&self, volume: &AttemptVolume, files: ContextStream) -> Result<(), Failure> {
        Ok(self.containers.fill(&self.resources, volume, files).await?)
    }

    /// Says that a container begins, which may change the files.
    pub(crate) fn touch(&self) {
        self.is_touched.store(true, Ordering::Release);
    }

    /// The volumes of each container.
    pub(crate) fn shared(&self) -> Vec<AttemptVolume> {
        vec![AttemptVolume::workspace(self.owner()), AttemptVolume::home(self.owner())]
    }

    /// A volume of the task by its name in the file.
    pub(crate) fn volume(&self, name: &str) -> Option<AttemptVolume> {
        let volume = self.secrets.iter().find(|volume| volume.name == name)?;
        Some(named(self.owner(), volume))
    }

    /// The engine's name of a network that a step names; `None` for the engine's default. Networks that are no networks of
    /// the attempt exist in the engine.
    pub(crate) fn network(&self, name: Option<&str>) -> Option<String> {
        let own = |name: &str| {
            let own = network_name(self.owner(), name);
            self.resources.networks.iter().any(|network| network.name == own).then_some(own)
        };
        let found = match name {
            None | Some("default") => own(name.unwrap_or(BRIDGE)).or_else(|| own(BRIDGE)),
            Some(name) => own(name),
        };
        found.or_else(|| name.map(ToOwned::to_owned))
    }

    /// The files of a folder as they are now.
    pub(crate) async fn files(&self, folder: &str) -> Result<Arc<Checkout>, Failure> {
        if !self.is_touched.load(Ordering::Acquire) {
            return source_files(self.source.as_ref(), folder);
        }
        let volume = AttemptVolume::workspace(self.owner());
        let read = self.containers.read(&self.resources, &volume, folder).await?;
        let Some(archive) = read else {
            let message = format!("there is no folder `{folder}` in the workspace");
            return Err(Failure::in_words(ErrorCode::SourceNotFound, message));
        };
        let unpacked = self.sources.from_archive(archive, self.deadline).await;
        let unpacked = unpacked.map_err(|error| failure::of_source(&error))?;
        let name = folder.rsplit('/').next().filter(|name| !name.is_empty());
        let name = name.unwrap_or(&WORKSPACE[1..]);
        let files = unpacked.folder(name).map_err(|error| failure::of_context(&error))?;
        Ok(Arc::new(files))
    }

    /// Ends the use of the workspace. Returns the attempt and, if it may have something in the engine, where.
    pub(crate) fn end(self) -> (Owner, Option<Arc<dyn Containers>>) {
        let is_begun = self.is_begun.load(Ordering::Acquire);
        (self.resources.owner, is_begun.then_some(self.containers))
    }
}

/// The files of a folder as they are in the source.
pub(crate) fn source_files(
    source: Option<&Arc<Checkout>>,
    folder: &str,
) -> Result<Arc<Checkout>, Failure> {
    let Some(source) = source else {
        let message = "the run has no files, and a build needs some: give it a context, or the build a remote one";
        return Err(Failure::in_words(ErrorCode::SourceNotFound, message));
    };
    if folder.is_empty() {
        return Ok(Arc::clone(source));
    }
    let files = source.folder(folder).map_err(|error| failure::of_context(&error))?;
    Ok(Arc::new(files))
}

impl AttemptVolume {
    fn workspace(owner: &Owner) -> Self {
        Self { name: Workspace::shared_volume(owner), path: WORKSPACE.to_owned() }
    }

    fn home(owner: &Owner) -> Self {
        Self { name: owner.name("home"), path: HOME.to_owned() }
    }
}

/// A volume of the task, with the folder in which it is filled.
fn named(owner: &Owner, volume: &Volume) -> AttemptVolume {
    AttemptVolume {
        name: owner.name(&format!("volume-{}", volume.name)),
        path: format!("/volumes/{}", volume.name),
    }
}

fn network_name(owner: &Owner, name: &str) -> String {
    owner.name(&format!("network-{name}"))
}

/// What an attempt has in the engine. All containers are on its default bridge without a network of their own, where they
/// cannot be told apart, so a guarded attempt has another one in its place.
pub(crate) fn resources(owner: Owner, graph: &Graph, is_guarded: bool) -> AttemptResources {
    let made = graph.networks.iter().filter(|network| !network.exists);
    let mut networks: Vec<AttemptNetwork> = made
        .map(|network| {
            let driver = network.driver.clone().unwrap_or_else(|| BRIDGE.to_owned());
            AttemptNetwork {
                name: network_name(&owner, &network.name),
                ipv6: network.ipv6,
                is_guarded: is_guarded && driver == BRIDGE,
                driver,
            }
        })
        .collect();
    let bridge = network_name(&owner, BRIDGE);
    let is_declared = networks.iter().any(|network| network.name == bridge);
    if is_guarded && graph.uses_default_bridge() && !is_declared {
        let driver = BRIDGE.to_owned();
        networks.push(AttemptNetwork { name: bridge, driver, ipv6: false, is_guarded });
    }
    let volumes = &graph.volumes;
    let mut all = vec![AttemptVolume::workspace(&owner), AttemptVolume::home(&owner)];
    all.extend(volumes.iter().map(|volume| named(&owner, volume)));
    AttemptResources { owner, networks, volumes: all }
}

/// A tar of small files, which a task file has in its text or gantry makes.
fn tar<'a>(
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
    mode: u32,
) -> Result<ContextStream, Failure> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        let appended = archive.append_data(&mut header, name, content);
        appended.map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))?;
    }
    let bytes = archive.into_inner();
    let bytes = bytes.map_err(|error| Failure::infrastructures(ErrorCode::Internal, &error))?;
    Ok(Box::pin(std::io::Cursor::new(bytes)))
}

/// The configuration that `docker login` writes.
fn docker_configuration(login: &BTreeMap<RegistryHost, Credentials>) -> Zeroizing<String> {
    let auths = login.iter().map(|(host, credentials)| {
        let auth = match credentials.identity_token() {
            Some(token) => serde_json::json!({ "identitytoken": token.expose_secret() }),
            None => {
                let Credentials { username, password } = credentials;
                let pair = Zeroizing::new(format!("{username}:{}", password.expose_secret()));
                serde_json::json!({ "auth": BASE64.encode(pair.as_bytes()) })
            }
        };
        (host.docker_server().to_owned(), auth)
    });
    let auths: serde_json::Map<String, serde_json::Value> = auths.collect();
    Zeroizing::new(serde_json::json!({ "auths": auths }).to_string())
}

#[cfg(test)]
mod tests {
    use gantry_ops::secret::SecretString;

    use super::*;

    #[test]
    fn the_configuration_is_that_of_docker_login() {
        let credentials =
            Credentials { username: "mona".to_owned(), password: SecretString::from("s3cret") };
        let token = Credentials { username: "<token>".to_owned(), ..credentials.clone() };
        let login = [
            ("registry.test".parse().unwrap(), credentials.clone()),
            ("docker.io".parse().unwrap(), credentials),
            ("acr.test".parse().unwrap(), token),
        ]
        .into();
        let expected = concat!(
            r#"{"auths":{"acr.test":{"identitytoken":"s3cret"},"#,
            r#""https://index.docker.io/v1/":{"auth":"bW9uYTpzM2NyZXQ="},"registry.test":{"auth":"bW9uYTpzM2NyZXQ="}}}"#
        );
        assert_eq!(docker_configuration(&login).as_str(), expected);
    }
}
