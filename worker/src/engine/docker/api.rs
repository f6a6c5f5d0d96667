//! The engine's HTTP API, through bollard: the engine's properties, and what gantry left in it.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ImageSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
    TagImageOptionsBuilder,
};

use gantry_domain::image::{Digest, ImageReference};

use super::labels;
use super::transport::Socket;
use crate::engine::{EngineError, EngineInfo, Leftover, LeftoverKind, STAGING};

/// Listing the images of an engine with thousands takes seconds; removing a large one takes longer.
const PATIENCE_SECONDS: u64 = 120;

/// The time limit for the engine's properties.
const HELLO: Duration = Duration::from_secs(10);

pub(super) const NOT_FOUND: u16 = 404;
pub(super) const CONFLICT: u16 = 409;
const SERVER_ERROR: u16 = 500;

/// How often listing images is retried, and the pause in between.
const LIST_TRIES: u32 = 5;
const LIST_PAUSE: Duration = Duration::from_millis(200);

/// bollard opens a connection per request, so a client costs nothing and does not require a running engine.
pub(super) fn client(socket: &Socket) -> Result<Docker, EngineError> {
    let path = socket.path().to_string_lossy();
    Docker::connect_with_unix(&path, PATIENCE_SECONDS, bollard::API_DEFAULT_VERSION)
        .map_err(|error| socket.unreachable(error))
}

pub(super) fn failed(socket: &Socket, what: &'static str, error: Error) -> EngineError {
    if let Error::DockerResponseServerError { message, .. } = error {
        EngineError::Refused { what, message }
    } else {
        socket.unreachable(error)
    }
}

pub(super) fn status(error: &Error) -> Option<u16> {
    if let Error::DockerResponseServerError { status_code, .. } = error {
        Some(*status_code)
    } else {
        None
    }
}

/// Waits for an answer of the engine.
pub(super) async fn ping(socket: &Socket) -> Result<(), EngineError> {
    let docker = client(socket)?;
    let answered = tokio::time::timeout(HELLO, docker.ping()).await;
    let answered = answered.map_err(|elapsed| socket.unreachable(elapsed))?;
    answered.map(drop).map_err(|error| failed(socket, "say that it is there", error))
}

/// The engine's properties.
pub(super) async fn info(socket: &Socket) -> Result<EngineInfo, EngineError> {
    let docker = client(socket)?;
    let info = tokio::time::timeout(HELLO, docker.info())
        .await
        .map_err(|elapsed| socket.unreachable(elapsed))?
        .map_err(|error| failed(socket, "say what it is", error))?;

    let version = info.server_version.unwrap_or_default();
    let os = info.os_type.unwrap_or_default();
    let platform = format!("{os}/{}", info.architecture.unwrap_or_default());
    let platform = platform.parse().map_err(|error| EngineError::Refused {
        what: "work for gantry",
        message: format!("its machine cannot be used: {error}"),
    })?;
    // The path is on the engine's machine. If it does not exist here, the engine runs on another machine or in a
    // container.
    let data_root = info.docker_root_dir.map(std::path::PathBuf::from).filter(|path| path.is_dir());
    Ok(EngineInfo { name: format!("Docker Engine {version}"), platform, data_root })
}

/// Whether the engine stores images with containerd.
pub(super) async fn has_containerd_store(socket: &Socket) -> Result<bool, EngineError> {
    let info =
        client(socket)?.info().await.map_err(|error| failed(socket, "say what it is", error))?;
    let status = info.driver_status.unwrap_or_default();
    Ok(status.iter().flatten().any(|word| word.starts_with("io.containerd.snapshotter")))
}

/// Gives an image another name.
pub(super) async fn tag(
    socket: &Socket,
    image: &ImageReference,
    name: &ImageReference,
) -> Result<(), EngineError> {
    let repository = format!("{}/{}", name.host(), name.repository());
    let mut options = TagImageOptionsBuilder::default().repo(&repository);
    if let Some(tag) = name.tag() {
        options = options.tag(tag.as_str());
    }
    client(socket)?
        .tag_image(&image.to_string(), Some(options.build()))
        .await
        .map_err(|error| failed(socket, "tag an image", error))
}

pub(super) async fn image_id(
    socket: &Socket,
    image: &ImageReference,
) -> Result<Option<Digest>, EngineError> {
    let refused = |message: String| EngineError::Refused { what: "show an image", message };
    match client(socket)?.inspect_image(&image.to_string()).await {
        Ok(found) => {
            let id = found.id.unwrap_or_default();
            id.parse().map(Some).map_err(|_| refused(format!("`{id}` is no id of an image")))
        }
        Err(error) if status(&error) == Some(NOT_FOUND) => Ok(None),
        Err(error) => Err(failed(socket, "show an image", error)),
    }
}

pub(super) async fn remove_image(socket: &Socket, image: &str) -> Result<(), EngineError> {
    let removed = client(socket)?.remove_image(image, None::<RemoveImageOptions>, None).await;
    match removed {
        Ok(_) => Ok(()),
        // A container uses it: one of a step, which is removed first, or somebody else's.
        Err(error) if matches!(status(&error), Some(NOT_FOUND | CONFLICT)) => Ok(()),
        // Something else removed it at the same time.
        Err(Error::DockerResponseServerError { message, .. })
            if message.starts_with("unrecognized image ID") =>
        {
            Ok(())
        }
        Err(error) => Err(failed(socket, "remove an image", error)),
    }
}

/// Removes gantry's name from an image that a dead attempt left, and the image unless somebody gave it another name. A
/// pushed image also has a digest of its registry as a name, which alone would keep it.
pub(super) async fn remove_left_image(socket: &Socket, image: &str) -> Result<(), EngineError> {
    let docker = client(socket)?;
    let inspect = async |image: &str| match docker.inspect_image(image).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if status(&error) == Some(NOT_FOUND) => Ok(None),
        Err(error) => Err(failed(socket, "show an image", error)),
    };
    let Some(id) = inspect(image).await?.and_then(|found| found.id) else { return Ok(()) };
    remove_image(socket, image).await?;
    match inspect(&id).await? {
        Some(left) if left.repo_tags.as_ref().is_none_or(Vec::is_empty) => {
            remove_image(socket, &id).await
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) async fn remove_container(socket: &Socket, id: &str) -> Result<(), EngineError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match client(socket)?.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        // A conflict means that the engine is already removing it.
        Err(error) if matches!(status(&error), Some(NOT_FOUND | CONFLICT)) => Ok(()),
        Err(error) => Err(failed(socket, "remove a container", error)),
    }
}

fn labelled(installation: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{}={installation}", labels::INSTALLATION)])])
}

/// The containers with this installation's label.
pub(super) async fn containers(
    socket: &Socket,
    installation: &str,
) -> Result<Vec<Leftover>, EngineError> {
    let options =
        ListContainersOptionsBuilder::default().all(true).filters(&labelled(installation)).build();
    let found = client(socket)?
        .list_containers(Some(options))
        .await
        .map_err(|error| failed(socket, "list containers", error))?;
    let leftover = |container: bollard::models::ContainerSummary| {
        let owner = labels::owner(&container.labels.unwrap_or_default());
        Some(Leftover { kind: LeftoverKind::Container, id: container.id?, owner })
    };
    Ok(found.into_iter().filter_map(leftover).collect())
}

/// The networks with this installation's label.
pub(super) async fn networks(
    socket: &Socket,
    installation: &str,
) -> Result<Vec<Leftover>, EngineError> {
    let options = ListNetworksOptionsBuilder::default().filters(&labelled(installation)).build();
    let found = client(socket)?
        .list_networks(Some(options))
        .await
        .map_err(|error| failed(socket, "list networks", error))?;
    let leftover = |network: bollard::models::Network| {
        let owner = labels::owner(&network.labels.unwrap_or_default());
        Some(Leftover { kind: LeftoverKind::Network, id: network.id?, owner })
    };
    Ok(found.into_iter().filter_map(leftover).collect())
}

/// The volumes with this installation's label.
pub(super) async fn volumes(
    socket: &Socket,
    installation: &str,
) -> Result<Vec<Leftover>, EngineError> {
    let options = ListVolumesOptionsBuilder::default().filters(&labelled(installation)).build();
    let found = client(socket)?
        .list_volumes(Some(options))
        .await
        .map_err(|error| failed(socket, "list volumes", error))?;
    let leftover = |volume: bollard::models::Volume| {
        let owner = labels::owner(&volume.labels);
        Leftover { kind: LeftoverKind::Volume, id: volume.name, owner }
    };
    Ok(found.volumes.unwrap_or_default().into_iter().map(leftover).collect())
}

/// The images with this installation's label that have no name, or still the name they were built under.
pub(super) async fn images(
    socket: &Socket,
    installation: &str,
) -> Result<Vec<Leftover>, EngineError> {
    let found = listed(&client(socket)?, installation)
        .await
        .map_err(|error| failed(socket, "list images", error))?;
    let leftover = |image: ImageSummary| {
        let owner = labels::owner(&image.labels);
        let own = labels::image(&image.labels);
        let is_of_attempt = |tag: &&String| own == Some(tag.as_str()) || is_staging(tag);
        let mut ids: Vec<String> = image.repo_tags.iter().filter(is_of_attempt).cloned().collect();
        if image.repo_tags.iter().all(|tag| tag == "<none>:<none>") {
            ids.push(image.id);
        }
        ids.into_iter().map(move |id| Leftover { kind: LeftoverKind::Image, id, owner })
    };
    Ok(found.into_iter().flat_map(leftover).collect())
}

/// The containerd image store returns nothing, or 404 or 500, if an image is removed while it lists them.
async fn listed(docker: &Docker, installation: &str) -> Result<Vec<ImageSummary>, Error> {
    let options = ListImagesOptionsBuilder::default().filters(&labelled(installation)).build();
    let mut tries = 0;
    loop {
        tries += 1;
        match docker.list_images(Some(options.clone())).await {
            Err(error)
                if matches!(status(&error), Some(NOT_FOUND | SERVER_ERROR))
                    && tries < LIST_TRIES =>
            {
                tokio::time::sleep(LIST_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Whether this is a name that images are pushed under before their tags move.
fn is_staging(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, tag)| tag.starts_with(STAGING))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// Answers each connection with the next of `answers`.
    async fn engine(folder: &std::path::Path, answers: Vec<(u16, &'static str)>) -> Socket {
        let path = folder.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _request = stream.read(&mut [0; 4096]).await.unwrap();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Socket::parse(path.to_str().unwrap()).unwrap()
    }

    const GONE: &str = r#"{"message":"content digest sha256:00: not found"}"#;

    #[tokio::test]
    async fn listing_images_is_retried_when_one_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = engine(folder.path(), vec![(500, GONE), (404, GONE), (200, "[]")]).await;
        assert_eq!(images(&socket, "ours").await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_engine_that_cannot_list_images_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let socket = engine(folder.path(), vec![(500, GONE); 5]).await;
        let error = images(&socket, "ours").await.unwrap_err();
        assert!(error.to_string().contains("content digest"), "{error}");
    }
}
