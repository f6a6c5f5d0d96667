//! Operations on the images that tasks need. The caller sees those that tasks of its registries need, and of others
//! neither names nor users.

use std::collections::BTreeSet;

use gantry_domain::decide::Rule;
use gantry_domain::fact::{Fact, FactKey};
use gantry_domain::id::{RegistryName, RunPrefix};
use gantry_domain::image_version::ImageVersion;
use gantry_domain::image_watch::{ImageWatch, Watched};
use gantry_domain::platform::Platform;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{LastBuild, NodeTask};
use gantry_seams::image_users::{self, User, Which};
use gantry_seams::image_watches::{self, RegistryPause};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{facts, last_builds};

use self::registries::VisibleRegistries;
use super::paging::{Listed, Paging};
use crate::access::{Allowed, Read};
use crate::refusal::Refusal;
use crate::state::State;

mod impact;
mod registries;
mod rule;
mod why;

pub(crate) use impact::{Affected, impact};
pub(crate) use why::{Child, Origin, Why, why};

/// How many users of an image are counted or listed.
const MOST_USERS: usize = 1000;

/// How many watches are read at once, and how often for one page.
const WATCHES_AT_ONCE: usize = 200;
const MOST_READS: usize = 50;

/// A watch, with what the caller sees around it.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) watch: ImageWatch,
    /// The registry whose credentials, or those of its tasks, are used.
    pub(crate) credentials_of: Option<RegistryName>,
    pub(crate) paused: Option<RegistryPause>,
    pub(crate) users: usize,
    pub(crate) counted: usize,
}

/// What is known of an image.
#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) image: TrackedImage,
    pub(crate) watches: Vec<Watch>,
    pub(crate) users: Vec<TaskUse>,
    pub(crate) makers: Vec<(NodeTask, LastBuild)>,
    pub(crate) facts: Vec<(RegistryName, Platform, Fact<ImageVersion>)>,
    pub(crate) is_cut: bool,
}

/// A task that needs an image.
#[derive(Debug)]
pub(crate) struct TaskUse {
    pub(crate) task: NodeTask,
    pub(crate) user: User,
    /// The first rule that says that a change does not rebuild the task.
    pub(crate) rule: Option<Rule>,
}

/// Lists the watched images that tasks of the caller's registries need.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    paging: &Paging,
) -> Result<Listed<Watch>, Refusal> {
    let store = state.store.as_ref();
    let registries = VisibleRegistries::read(store, allowed).await?;
    let mut after = paging.after.as_deref().map(parse_cursor).transpose()?;
    let (mut items, limit) = (Vec::new(), paging.limit());
    for _ in 0..MOST_READS {
        let watches = image_watches::list(store, after.as_ref(), WATCHES_AT_ONCE).await?;
        let Some(last) = watches.last() else { break };
        after = Some(last.watched.clone());
        for watch in watches {
            items.extend(around(store, &registries, watch).await?);
            if items.len() > limit {
                return Ok(Listed::of(items, limit, cursor));
            }
        }
    }
    Ok(Listed::of(items, limit, cursor))
}

fn cursor(listed: &Watch) -> String {
    listed.watch.watched.to_string()
}

fn parse_cursor(text: &str) -> Result<Watched, Refusal> {
    let parsed = text.split_once('/').and_then(|(by, image)| {
        let by = match by {
            "-" => None,
            prefix => Some(prefix.parse::<RunPrefix>().ok()?),
        };
        Some(Watched { image: image.parse().ok()?, by })
    });
    parsed.ok_or_else(|| Refusal::invalid("after", "it is no `next` of a list of images"))
}

/// Shows an image that a task of the caller's registries needs or makes.
pub(crate) async fn show(
    state: &State,
    allowed: &Allowed<Read>,
    image: &str,
) -> Result<Details, Refusal> {
    let store = state.store.as_ref();
    let registries = VisibleRegistries::read(store, allowed).await?;
    let image = registries.known(store, image).await?;
    let (all, is_cut) = registries.users(store, &image, Which::All, MOST_USERS).await?;
    let mut watches = Vec::new();
    let logged_in = image_users::logged_in(store, &image, MOST_USERS).await?;
    for watched in registries.watches_of(&image, &logged_in) {
        if let Some(found) = image_watches::find(store, &watched).await? {
            watches.extend(around(store, &registries, found.value).await?);
        }
    }
    let facts = facts_of(store, &registries, &image, &all).await?;
    let mut users = Vec::new();
    for user in all {
        let Some(task) = registries.task_of(&user) else { continue };
        let last = last_builds::find(store, &task).await?;
        if let Some(counts) = rule::counts(store, &task, &user, &image, last.as_ref()).await? {
            users.push(TaskUse { task, user, rule: counts.err() });
        }
    }
    let mut makers = Vec::new();
    for task in registries.makers(store, &image).await? {
        if let Some(last) = last_builds::find(store, &task).await? {
            makers.push((task, last));
        }
    }
    Ok(Details { image, watches, users, makers, facts, is_cut })
}

/// What the caller sees around a watch; `None` if none of its tasks needs it.
async fn around(
    store: &dyn Store,
    registries: &VisibleRegistries,
    watch: ImageWatch,
) -> Result<Option<Watch>, StoreError> {
    let image = &watch.watched.image;
    let logged_in = image_users::logged_in(store, image, MOST_USERS).await?;
    let count = async |which| -> Result<usize, StoreError> {
        let (users, _) = registries.users(store, image, which, MOST_USERS).await?;
        let tasks: BTreeSet<NodeTask> = users
            .iter()
            .filter(|user| {
                let watched = registries.watch_of(user.registry, image, &logged_in);
                watched.as_ref() == Some(&watch.watched)
            })
            .filter_map(|user| registries.task_of(user))
            .collect();
        Ok(tasks.len())
    };
    let users = count(Which::All).await?;
    if users == 0 {
        return Ok(None);
    }
    let counted = count(Which::Counted).await?;
    let paused = image_watches::pause_of(store, image.host()).await?;
    let credentials_of = watch.watched.by.and_then(|prefix| registries.name_of(prefix)).cloned();
    Ok(Some(Watch { watch, credentials_of, paused, users, counted }))
}

/// What an image has for each registry and platform of its users, as far as known.
async fn facts_of(
    store: &dyn Store,
    registries: &VisibleRegistries,
    image: &TrackedImage,
    users: &[User],
) -> Result<Vec<(RegistryName, Platform, Fact<ImageVersion>)>, StoreError> {
    let groups: BTreeSet<(RunPrefix, Platform)> =
        users.iter().map(|user| (user.registry, user.platform.clone())).collect();
    let keyed = groups.into_iter().filter_map(|(prefix, platform)| {
        let registry = registries.name_of(prefix)?.clone();
        let key = FactKey::image(&registry, &platform, image);
        Some((key, registry, platform))
    });
    let keyed: Vec<(FactKey, RegistryName, Platform)> = keyed.collect();
    let keys: Vec<FactKey> = keyed.iter().map(|(key, ..)| key.clone()).collect();
    let mut found = facts::find_all::<ImageVersion>(store, &keys).await?;
    let known = keyed.into_iter().filter_map(|(key, registry, platform)| {
        Some((registry, platform, found.remove(&key)?.value))
    });
    Ok(known.collect())
}
