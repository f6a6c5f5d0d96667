//! Keeps steps away from the machine of the engine: its ports, and the metadata address of its cloud.
//!
//! An engine has no setting for that, so the machine's packet filter does it. A container sets the rules, because a worker
//! may run without root, or in a container itself: it has the network of the machine, and sees the machine's files to use
//! its `iptables`, which is the one that the engine uses.

use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, LogsOptionsBuilder,
    StartContainerOptions,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::api::{NOT_FOUND, client, failed, status};
use super::containers::{Removal, random_suffix, wait};
use super::labels;
use super::transport::Socket;
use crate::engine::containers::Owner;
use crate::engine::{EngineError, LOCAL_HOST};

const SCRIPT: &str = include_str!("guard.sh");

/// The names of the bridges whose containers are kept away, as in the script.
const BRIDGES: &str = "gtrs";

/// A network interface has a name of at most 15 bytes.
const BRIDGE_DIGITS: usize = 11;

/// How long the rules are taken to be there. Somebody else may have emptied the machine's packet filter since.
const CHECKED_FOR: Duration = Duration::from_secs(600);

/// The name of an image whose programs are those of the machine.
const IMAGE: (&str, &str) = ("machine", "1");

/// Where the container sees the files of the machine.
const MACHINE: &str = "/machine";

/// What is no file of the machine, but leads to one.
const LINKS: [&str; 8] =
    ["bin", "sbin", "lib", "lib64", "usr", "nix", "etc/alternatives", "run/xtables.lock"];

const PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/machine/run/current-system/sw/bin";

/// How much of the script's output an error shows, in bytes.
const MOST_SHOWN: usize = 500;

/// Whether an engine's machine has the rules.
#[derive(Debug, Default)]
pub(super) struct Guard {
    checked: Mutex<Option<Instant>>,
}

impl Guard {
    /// Sets the rules, unless that was done lately.
    pub(super) async fn set(&self, socket: &Socket, owner: &Owner) -> Result<(), EngineError> {
        let mut checked = self.checked.lock().await;
        if checked.is_some_and(|at| at.elapsed() < CHECKED_FOR) {
            return Ok(());
        }
        run(socket, &client(socket)?, owner).await?;
        *checked = Some(Instant::now());
        Ok(())
    }
}

/// The name of the bridge of a network whose containers are kept away.
pub(super) fn bridge(network: &str) -> String {
    let hash = hex::encode(Sha256::digest(network.as_bytes()));
    format!("{BRIDGES}{}", hash.get(..BRIDGE_DIGITS).unwrap_or_default())
}

async fn run(socket: &Socket, docker: &Docker, owner: &Owner) -> Result<(), EngineError> {
    let name = owner.name(&format!("guard-{}", random_suffix()));
    let create = || {
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        docker.create_container(Some(options), body(owner))
    };
    let created = match create().await {
        Err(error) if status(&error) == Some(NOT_FOUND) => {
            import_image(socket, docker).await?;
            create().await
        }
        created => created,
    };
    let created = created.map_err(|error| failed(socket, "create a container", error))?;
    let container = Removal::of(socket, created.id);
    let started = docker.start_container(container.id(), None::<StartContainerOptions>).await;
    started.map_err(|error| refused(error.to_string()))?;
    match wait(socket, docker, container.id()).await? {
        0 => Ok(()),
        _ => Err(refused(output(docker, container.id()).await)),
    }
}

fn refused(said: String) -> EngineError {
    EngineError::Refused {
        what: "keep steps away from its machine",
        message: format!(
            "{said} (install iptables on that machine, or let the operator allow it with `steps.machine`)"
        ),
    }
}

fn body(owner: &Owner) -> ContainerCreateBody {
    let (repository, tag) = IMAGE;
    let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
    ContainerCreateBody {
        image: Some(format!("{LOCAL_HOST}/{repository}:{tag}")),
        cmd: words(&["/bin/sh", "-c", SCRIPT]),
        env: words(&[PATH]),
        user: Some("0".to_owned()),
        labels: Some(labels::of_attempt(owner)),
        host_config: Some(HostConfig {
            binds: words(&[&format!("/:{MACHINE}:ro")]),
            network_mode: Some("host".to_owned()),
            userns_mode: Some("host".to_owned()),
            cap_drop: words(&["ALL"]),
            cap_add: words(&["NET_ADMIN", "NET_RAW"]),
            security_opt: words(&["no-new-privileges", "label=disable"]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

async fn import_image(socket: &Socket, docker: &Docker) -> Result<(), EngineError> {
    let (repository, tag) = IMAGE;
    let repository = format!("{LOCAL_HOST}/{repository}");
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(&repository).tag(tag);
    let archive = links().map_err(|error| socket.unreachable(error))?;
    let tar = bollard::body_full(Bytes::from(archive));
    let imported = docker.create_image(Some(options.build()), Some(tar), None);
    let imported: Result<Vec<_>, _> = imported.try_collect().await;
    imported.map(drop).map_err(|error| failed(socket, "import an image", error))
}

/// A tar of [`LINKS`].
fn links() -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for link in LINKS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, link, format!("{MACHINE}/{link}"))?;
    }
    archive.into_inner()
}

/// The end of what a container has printed.
async fn output(docker: &Docker, id: &str) -> String {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("10").build();
    let mut lines = docker.logs(id, Some(options));
    let mut text = String::new();
    while let Some(Ok(line)) = lines.next().await {
        text.push_str(&line.to_string());
        if text.len() > MOST_SHOWN {
            break;
        }
    }
    let shown: String = text.trim().chars().take(MOST_SHOWN).collect();
    if shown.is_empty() { "its machine has no `iptables`".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridges_are_those_of_the_script_and_have_short_names() {
        assert!(SCRIPT.contains(&format!("bridges='{BRIDGES}+'")));
        let name = bridge("gantry-12345678-ca1-1-network-default");
        assert!(name.starts_with(BRIDGES) && name.len() == 15, "{name}");
        assert_ne!(name, bridge("gantry-12345678-ca2-1-network-default"));
    }
}
