//! Containers, networks and volumes of attempts.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
    DownloadFromContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder,
    StartContainerOptions, UploadToContainerOptionsBuilder, WaitContainerOptions,
};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use gantry_domain::image::ImageReference;
use gantry_domain::platform::Platform;
use gantry_ops::secret::Credentials;
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::{ReaderStream, StreamReader};

use super::api::{CONFLICT, NOT_FOUND, client, failed, remove_container, status};
use super::container_body;
use super::guard::{self, Guard};
use super::labels;
use super::transport::Socket;
use crate::engine::containers::{
    AttemptResources, AttemptVolume, ContainerError, ContainerOrder, ContainerOutput, Exit, Owner,
    PullError,
};
use crate::engine::{ContextStream, EngineError, LOCAL_HOST, OutputStream};

/// The name of an image without files, for containers that only give access to volumes.
const EMPTY_IMAGE: (&str, &str) = ("empty", "1");

/// A tar without members.
const EMPTY_TAR: [u8; 1024] = [0; 1024];

/// The exit code of a process that the kernel, or anybody else, killed.
const KILLED: i64 = 137;

/// A container that ended may still be on its way out, so that its network and volumes are in use.
const REMOVAL_TRIES: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(200);

/// The engine answers when it has all files.
const FILLED_WITHIN: Duration = Duration::from_secs(3600);

/// How long an engine may take to remove a container whose future was dropped.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn prepare(
    socket: &Socket,
    guard: &Guard,
    resources: &AttemptResources,
) -> Result<(), EngineError> {
    let docker = &client(socket)?;
    if resources.networks.iter().any(|network| network.is_guarded) {
        guard.set(socket, &resources.owner).await?;
    }
    let labels = labels::of_attempt(&resources.owner);
    let networks = resources.networks.iter().map(|network| {
        let request = NetworkCreateRequest {
            name: network.name.clone(),
            driver: Some(network.driver.clone()),
            enable_ipv6: Some(network.ipv6),
            options: network.is_guarded.then(|| {
                let bridge = guard::bridge(&network.name);
                HashMap::from([("com.docker.network.bridge.name".to_owned(), bridge)])
            }),
            labels: Some(labels.clone()),
            ..NetworkCreateRequest::default()
        };
        async move {
            let made = docker.create_network(request).await;
            made.map(drop).map_err(|error| failed(socket, "create a network", error))
        }
    });
    let volumes = resources.volumes.iter().map(|volume| {
        let request = VolumeCreateRequest {
            name: Some(volume.name.clone()),
            labels: Some(labels.clone()),
            ..VolumeCreateRequest::default()
        };
        async move {
            let made = docker.create_volume(request).await;
            made.map(drop).map_err(|error| failed(socket, "create a volume", error))
        }
    });
    let (networks, volumes) = tokio::join!(join_all(networks), join_all(volumes));
    networks.into_iter().chain(volumes).collect()
}

pub(super) async fn fill(
    socket: &Socket,
    resources: &AttemptResources,
    volume: &AttemptVolume,
    archive: ContextStream,
) -> Result<(), EngineError> {
    let docker = client(socket)?;
    let name = files_container(socket, &docker, resources).await?;
    let docker = docker.with_timeout(FILLED_WITHIN);
    let options = UploadToContainerOptionsBuilder::default().path(&volume.path).build();
    let body = bollard::body_try_stream(ReaderStream::with_capacity(archive, 64 * 1024));
    docker
        .upload_to_container(&name, Some(options), body)
        .await
        .map_err(|error| failed(socket, "write files into a volume", error))
}

pub(super) async fn read(
    socket: &Socket,
    resources: &AttemptResources,
    volume: &AttemptVolume,
    folder: &str,
) -> Result<Option<ContextStream>, EngineError> {
    let docker = client(socket)?;
    let name = files_container(socket, &docker, resources).await?;
    let path = format!("{}/{folder}", volume.path);
    let options = DownloadFromContainerOptionsBuilder::default().path(&path).build();
    let mut stream = Box::pin(
        docker.download_from_container(&name, Some(options)).map_err(std::io::Error::other),
    );
    // The first part tells whether there is such a folder.
    let first = match stream.next().await {
        Some(Err(error)) if is_absent(&error) => return Ok(None),
        Some(Err(error)) => return Err(socket.unreachable(error)),
        first => futures_util::stream::iter(first),
    };
    Ok(Some(Box::pin(StreamReader::new(first.chain(stream)))))
}

fn is_absent(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.is_some_and(|error| status(error) == Some(NOT_FOUND))
}

/// A container that never runs, with all volumes of the attempt. Created by the first call.
async fn files_container(
    socket: &Socket,
    docker: &Docker,
    resources: &AttemptResources,
) -> Result<String, EngineError> {
    let name = resources.owner.name("files");
    let binds = resources.volumes.iter().map(|volume| format!("{}:{}", volume.name, volume.path));
    let (repository, tag) = EMPTY_IMAGE;
    let body = ContainerCreateBody {
        image: Some(format!("{LOCAL_HOST}/{repository}:{tag}")),
        cmd: Some(vec!["/never-runs".to_owned()]),
        labels: Some(labels::of_attempt(&resources.owner)),
        host_config: Some(HostConfig {
            binds: Some(binds.collect()),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let create = || {
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        docker.create_container(Some(options), body.clone())
    };
    let created = match create().await {
        Err(error) if status(&error) == Some(NOT_FOUND) => {
            import_empty_image(socket, docker).await?;
            create().await
        }
        created => created,
    };
    match created {
        Ok(_) => Ok(name),
        Err(error) if status(&error) == Some(CONFLICT) => Ok(name),
        Err(error) => Err(failed(socket, "create a container", error)),
    }
}

async fn import_empty_image(socket: &Socket, docker: &Docker) -> Result<(), EngineError> {
    let (repository, tag) = EMPTY_IMAGE;
    let repository = format!("{LOCAL_HOST}/{repository}");
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(&repository).tag(tag);
    let tar = bollard::body_full(Bytes::from_static(&EMPTY_TAR));
    let imported = docker.create_image(Some(options.build()), Some(tar), None);
    let imported: Result<Vec<_>, Error> = imported.try_collect().await;
    imported.map(drop).map_err(|error| failed(socket, "import an empty image", error))
}

pub(super) async fn pull(
    socket: &Socket,
    image: &ImageReference,
    platform: Option<&Platform>,
    credentials: Option<&Credentials>,
) -> Result<(), PullError> {
    let name = format!("{}/{}", image.host(), image.repository());
    let version = match (image.digest(), image.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.to_string(),
        (None, None) => "latest".to_owned(),
    };
    let mut options = CreateImageOptionsBuilder::default().from_image(&name).tag(&version);
    let platform = platform.map(ToString::to_string);
    if let Some(platform) = &platform {
        options = options.platform(platform);
    }
    let credentials = credentials.map(|credentials| super::auth(image.host(), credentials));
    let pulled = client(socket)?.create_image(Some(options.build()), None, credentials);
    let pulled: Result<Vec<_>, Error> = pulled.try_collect().await;
    pulled.map(drop).map_err(|error| pull_failure(socket, image, error))
}

fn pull_failure(socket: &Socket, image: &ImageReference, error: Error) -> PullError {
    let image = image.clone();
    let message = if let Error::DockerResponseServerError { message, .. } = error {
        message
    } else if let Error::DockerStreamError { error } = error {
        error
    } else {
        return PullError::Engine(socket.unreachable(error));
    };
    if super::failure::is_passing(&message) {
        PullError::Unavailable { image, message }
    } else {
        PullError::Refused { image, message }
    }
}

pub(super) async fn run(
    socket: &Socket,
    order: &ContainerOrder,
    started: oneshot::Sender<()>,
    output: mpsc::Sender<ContainerOutput>,
) -> Result<Exit, ContainerError> {
    let docker = client(socket)?;
    let mut container = Removal::of(socket, create(socket, &docker, order).await?);
    let id = container.id.clone();
    let attach = AttachContainerOptionsBuilder::default().stdout(true).stderr(true).stream(true);
    let attached = docker.attach_container(&id, Some(attach.build())).await;
    let attached = attached.map_err(|error| failed(socket, "attach to a container", error))?;
    let start = docker.start_container(&id, None::<StartContainerOptions>).await;
    start.map_err(|error| start_failure(socket, error))?;
    // Whoever waits may have gone.
    let _ignored = started.send(());
    let code = tokio::join!(wait(socket, &docker, &id), forward(attached.output, output)).0?;
    let out_of_memory = code == KILLED && was_out_of_memory(&docker, &id).await;
    container.is_kept = order.keep;
    Ok(Exit { code, out_of_memory })
}

async fn create(
    socket: &Socket,
    docker: &Docker,
    order: &ContainerOrder,
) -> Result<String, ContainerError> {
    let refused = |message: String| ContainerError::Refused { message };
    let (body, platform) =
        container_body::body(order).map_err(|error| refused(error.to_string()))?;
    let name = order.owner.name(&format!("{}-{}", order.step, random_suffix()));
    let mut options = CreateContainerOptionsBuilder::default().name(&name);
    if let Some(platform) = &platform {
        options = options.platform(platform);
    }
    match docker.create_container(Some(options.build()), body).await {
        Ok(created) => Ok(created.id),
        Err(Error::DockerResponseServerError { status_code: 400..=499, message }) => {
            Err(refused(message))
        }
        Err(error) => Err(failed(socket, "create a container", error).into()),
    }
}

/// A step may run several times, and its last container may still be on its way out.
pub(super) fn random_suffix() -> String {
    hex::encode(rand::random::<[u8; 4]>())
}

/// An engine answers 4xx, or 500 with the runtime's words, if it cannot start what the image and the step ask for.
fn start_failure(socket: &Socket, error: Error) -> ContainerError {
    const SIGNS: [&str; 6] = [
        "OCI runtime",
        "runc create failed",
        "unable to find user",
        "no such file",
        "port is already allocated",
        "address already in use",
    ];
    if let Error::DockerResponseServerError { status_code, message } = &error
        && ((400..500).contains(status_code) || SIGNS.iter().any(|sign| message.contains(sign)))
    {
        return ContainerError::Refused { message: message.clone() };
    }
    failed(socket, "start a container", error).into()
}

pub(super) async fn wait(socket: &Socket, docker: &Docker, id: &str) -> Result<i64, EngineError> {
    let mut waiting = Box::pin(docker.wait_container(id, None::<WaitContainerOptions>));
    match waiting.next().await {
        Some(Ok(ended)) => Ok(ended.status_code),
        Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
        Some(Err(error)) => Err(failed(socket, "wait for a container", error)),
        None => {
            Err(socket.unreachable("it closed the connection while a container was waited for"))
        }
    }
}

async fn was_out_of_memory(docker: &Docker, id: &str) -> bool {
    let found = docker.inspect_container(id, None::<InspectContainerOptions>).await;
    found.ok().and_then(|found| found.state?.oom_killed).unwrap_or(false)
}

/// Forwards output until the container ends, or nobody reads it.
async fn forward(
    mut from: std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<LogOutput, Error>> + Send>>,
    to: mpsc::Sender<ContainerOutput>,
) {
    while let Some(piece) = from.next().await {
        let (stream, bytes) = match piece {
            Ok(LogOutput::StdErr { message }) => (OutputStream::Stderr, message),
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::StdIn { message }
                | LogOutput::Console { message },
            ) => (OutputStream::Stdout, message),
            Err(error) => {
                tracing::warn!("the engine broke off the output of a container: {error}");
                return;
            }
        };
        if to.send(ContainerOutput { stream, bytes }).await.is_err() {
            return;
        }
    }
}

/// A container that is removed when this is dropped, unless it is kept.
pub(super) struct Removal {
    socket: Socket,
    id: String,
    is_kept: bool,
}

impl Removal {
    pub(super) fn of(socket: &Socket, id: String) -> Self {
        Self { socket: socket.clone(), id, is_kept: false }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (socket, id) = (self.socket.clone(), std::mem::take(&mut self.id));
        // Nothing waits for it. What fails here is removed at the end of the attempt.
        tokio::spawn(async move {
            let removed = tokio::time::timeout(REMOVED_WITHIN, remove_container(&socket, &id));
            if let Ok(Err(error)) = removed.await {
                tracing::debug!("container {id} is removed later: {error}");
            }
        });
    }
}

pub(super) async fn stop_all(socket: &Socket, owner: &Owner) -> Result<(), EngineError> {
    let filters = labelled(owner);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = client(socket)?.list_containers(Some(options)).await;
    let containers = containers.map_err(|error| failed(socket, "list containers", error))?;
    let ids = containers.into_iter().filter_map(|container| container.id);
    let removals = ids.map(|id| async move { remove_container(socket, &id).await });
    join_all(removals).await.into_iter().collect()
}

pub(super) async fn remove_all(socket: &Socket, owner: &Owner) -> Result<(), EngineError> {
    stop_all(socket, owner).await?;
    let docker = client(socket)?;
    let filters = labelled(owner);
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let networks = docker.list_networks(Some(options)).await;
    let networks = networks.map_err(|error| failed(socket, "list networks", error))?;
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let volumes = docker.list_volumes(Some(options)).await;
    let volumes = volumes.map_err(|error| failed(socket, "list volumes", error))?;
    let networks = networks.into_iter().filter_map(|network| network.id);
    let networks = networks.map(|id| async move { remove_network(socket, &id).await });
    let volumes = volumes.volumes.unwrap_or_default().into_iter();
    let volumes = volumes.map(|volume| async move { remove_volume(socket, &volume.name).await });
    let (networks, volumes) = tokio::join!(join_all(networks), join_all(volumes));
    networks.into_iter().chain(volumes).collect()
}

pub(super) async fn remove_network(socket: &Socket, id: &str) -> Result<(), EngineError> {
    let docker = client(socket)?;
    removed("remove a network", socket, || docker.remove_network(id)).await
}

pub(super) async fn remove_volume(socket: &Socket, name: &str) -> Result<(), EngineError> {
    let docker = client(socket)?;
    let options = || RemoveVolumeOptionsBuilder::default().force(true).build();
    removed("remove a volume", socket, || docker.remove_volume(name, Some(options()))).await
}

/// Removes a network or a volume once no container uses it.
async fn removed<F>(
    what: &'static str,
    socket: &Socket,
    remove: impl Fn() -> F,
) -> Result<(), EngineError>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        match remove().await {
            Ok(()) => return Ok(()),
            Err(error) if status(&error) == Some(NOT_FOUND) => return Ok(()),
            Err(Error::DockerResponseServerError { .. }) if tries < REMOVAL_TRIES => {
                tokio::time::sleep(REMOVAL_PAUSE).await;
            }
            Err(error) => return Err(failed(socket, what, error)),
        }
    }
}

fn labelled(owner: &Owner) -> HashMap<String, Vec<String>> {
    let labels = labels::of_attempt(owner);
    let labels = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    HashMap::from([("label".to_owned(), labels)])
}
