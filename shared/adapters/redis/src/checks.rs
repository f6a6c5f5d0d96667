//! Checks of a server and a user before the store is used.

use std::collections::HashMap;

use deadpool_redis::redis::{Script, cmd};
use gantry_seams::store::{Key, Kind};
use tracing::warn;

use crate::connect_error::ConnectError;
use crate::info::Info;
use crate::keys::Names;
use crate::link::Link;
use crate::options::{RedisOptions, Servers};

/// A setting that must not lose acknowledged commits.
struct Durable {
    setting: &'static str,
    is_kept: fn(&str) -> bool,
    line: &'static str,
    loss: &'static str,
}

const DURABLE: &[Durable] = &[
    Durable {
        setting: "appendonly",
        is_kept: |is| is == "yes",
        line: "appendonly yes",
        loss: "all that came after the last snapshot when the server ends",
    },
    Durable {
        setting: "appendfsync",
        is_kept: |is| is == "always",
        line: "appendfsync always",
        loss: "the last second, or with `no` more, when the machine ends",
    },
    Durable {
        setting: "maxmemory-policy",
        is_kept: |is| is == "noeviction",
        line: "maxmemory-policy noeviction",
        loss: "any record when memory is short",
    },
];

/// Required of masters that may fail over.
const REPLICATED: Durable = Durable {
    setting: "min-replicas-to-write",
    is_kept: |is| is.parse::<u32>().is_ok_and(|replicas| replicas >= 1),
    line: "min-replicas-to-write 1",
    loss: "what a master accepts that was cut off from its replicas",
};

/// Checks that the store can be kept on this server.
pub(crate) async fn check(
    link: &Link,
    names: &Names,
    options: &RedisOptions,
) -> Result<(), ConnectError> {
    check_server(link).await?;
    check_rights(link, names).await?;
    if options.check_durability {
        check_durability(link, options).await?;
    }
    Ok(())
}

async fn check_server(link: &Link) -> Result<(), ConnectError> {
    let info = Info::of(&mut link.reader()).await;
    let info = info.map_err(|error| link.peer.error("INFO", error))?;
    let address = link.peer.address.clone();
    let version = info.field("redis_version");
    if major(version) < 7 {
        return Err(ConnectError::TooOld { address, version: version.to_owned() });
    }
    if info.field("redis_mode") == "cluster" {
        return Err(ConnectError::Cluster { address });
    }
    if info.field("role") != "master" {
        return Err(ConnectError::ReadOnly { address });
    }
    Ok(())
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

/// Checked at the start: in the middle of a commit it would be too late to find a missing right.
async fn check_rights(link: &Link, names: &Names) -> Result<(), ConnectError> {
    let script = Script::new(include_str!("rights.lua"));
    let mut call = script.prepare_invoke();
    call.key(names.version()).arg(names.channel(&Key::new(Kind::Run, "")));
    let missing: Option<String> = call
        .invoke_async(&mut link.writer())
        .await
        .map_err(|error| link.peer.error("EVALSHA", error))?;
    missing.map_or(Ok(()), |command| {
        let (address, user) = (link.peer.address.clone(), link.peer.user.clone());
        Err(ConnectError::NotPermitted { address, user, command })
    })
}

async fn check_durability(link: &Link, options: &RedisOptions) -> Result<(), ConnectError> {
    let mut needed: Vec<_> = DURABLE.iter().collect();
    if matches!(options.servers, Servers::Sentinel { .. }) {
        needed.push(&REPLICATED);
    }
    let mut question = cmd("CONFIG");
    question.arg("GET");
    for Durable { setting, .. } in &needed {
        question.arg(setting);
    }
    let settings: HashMap<String, String> = question
        .query_async(&mut link.reader())
        .await
        .map_err(|error| link.peer.error("CONFIG GET", error))?;
    for Durable { setting, is_kept, line, loss } in needed {
        let is = settings.get(*setting).cloned().unwrap_or_default();
        if is_kept(&is) {
            continue;
        }
        let address = link.peer.address.clone();
        let weak = ConnectError::WeakDurability { address, setting, is, line, loss };
        if !options.allow_weak_durability {
            return Err(weak);
        }
        warn!("{weak} (it is set)");
    }
    Ok(())
}
