//! Which tasks need an image, and for which of them its changes count.
//!
//! Three indexes for each tag or policy that is tracked: *mentions* holds every task that needs it, *users* those for which it
//! counts, *logins* those of the users that have a login for its registry. They are a pure function of the record in [`crate::task_images`], which writes both in the commits that change it. A member
//! is a claim to be checked: workers may write these indexes, and of a record that did not decode some may be left.

use std::collections::{BTreeMap, BTreeSet};

use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::id::{RunPrefix, TaskName};
use gantry_domain::image::RegistryHost;
use gantry_domain::platform::Platform;
use gantry_domain::scan::{ImageRole, NeededImage};
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::{TagPolicies, TrackedImage};

use crate::store::{Batch, Entry, From, Index, Store, StoreError};

/// A task that needs an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The prefix of the task's registry.
    pub registry: RunPrefix,
    /// The platform that the image is needed for.
    pub platform: Platform,
    /// What it is needed for: of several uses, the closest to the result.
    pub role: ImageRole,
    /// The task.
    pub task: TaskName,
    /// When the task was created, which distinguishes it from others of the same name.
    pub created: Timestamp,
}

/// Which of the tasks that need an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// Those for which its changes count: the task and its trigger are enabled, and the trigger counts the image.
    Counted,
    /// Those of them that have a login for its registry.
    LoggedIn,
    /// All, whatever their triggers say.
    All,
}

/// The images that a task needs, with the trigger that says which of them count, and the policies that choose tags.
#[derive(Clone, Copy)]
pub(crate) struct Needs<'a> {
    pub(crate) images: &'a [NeededImage],
    pub(crate) trigger: Option<&'a BaseImageTrigger>,
    /// Which of the images are tracked by a policy.
    pub(crate) policies: &'a TagPolicies,
    /// The registries that the task has a login for.
    pub(crate) logins: &'a BTreeSet<RegistryHost>,
}

/// A task, among all that ever had its name.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) registry: RunPrefix,
    pub(crate) task: &'a TaskName,
    pub(crate) created: Timestamp,
}

/// Adds to a batch the difference between two states of a task. An image that gets a user is to be watched.
pub(crate) fn change(
    batch: &mut Batch,
    owner: Owner<'_>,
    before: Needs<'_>,
    after: Needs<'_>,
    now: Timestamp,
) {
    let (was, is) = (members(owner, before), members(owner, after));
    for (which, image, member) in was.difference(&is) {
        batch.unindex(index(image, *which), member);
    }
    for (which, image, member) in is.difference(&was) {
        batch.index(index(image, *which), 0, member);
        match which {
            // A login is another way to watch the image.
            Which::Counted | Which::LoggedIn => {
                batch.index(unwatched(), now.as_millis(), image);
            }
            Which::All => {}
        }
    }
}

fn members(owner: Owner<'_>, needs: Needs<'_>) -> BTreeSet<(Which, TrackedImage, String)> {
    let mut roles = BTreeMap::new();
    for needed in needs.images {
        let Some(image) = needs.policies.track(&needed.image) else { continue };
        let counts = needs.trigger.is_some_and(|trigger| trigger.counts(needed).is_ok());
        let logs_in = counts && needs.logins.contains(image.host());
        for which in
            [Some(Which::All), counts.then_some(Which::Counted), logs_in.then_some(Which::LoggedIn)]
                .into_iter()
                .flatten()
        {
            let role = roles.entry((which, image.clone(), &needed.platform)).or_insert(needed.role);
            *role = needed.role.min(*role);
        }
    }
    let members = roles.into_iter().map(|((which, image, platform), role)| {
        let Owner { registry, task, created } = owner;
        let user = User { registry, platform: platform.clone(), role, task: task.clone(), created };
        (which, image, user.member())
    });
    members.collect()
}

impl User {
    /// Sorts by registry, platform and task.
    fn member(&self) -> String {
        let Self { role, task, created, .. } = self;
        let group = group(self.registry, &self.platform);
        format!("{group}{task}@{} {role}", created.as_millis())
    }

    fn of_member(member: &str) -> Option<Self> {
        let mut words = member.splitn(4, ' ');
        let registry = words.next()?.parse().ok()?;
        let platform = words.next()?.parse().ok()?;
        let (task, created) = words.next()?.split_once('@')?;
        let role = words.next()?.parse().ok()?;
        let created = Timestamp::from_millis(created.parse().ok()?);
        Some(Self { registry, platform, role, task: task.parse().ok()?, created })
    }
}

/// The tasks that need an image, at most `limit`, by registry and platform, and where to go on.
///
/// # Errors
/// [`StoreError`].
pub async fn of_image(
    store: &dyn Store,
    image: &TrackedImage,
    which: Which,
    from: From,
    limit: usize,
) -> Result<(Vec<User>, Option<From>), StoreError> {
    page(store, &index(image, which), "", from, limit).await
}

/// The tasks of one registry that need an image for a platform, by name, after the task `after`, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn of_image_in(
    store: &dyn Store,
    image: &TrackedImage,
    which: Which,
    registry: RunPrefix,
    platform: &Platform,
    after: Option<&TaskName>,
    limit: usize,
) -> Result<Vec<User>, StoreError> {
    let group = group(registry, platform);
    let member = match after {
        // `A` is the character after `@`, so this is behind all tasks of this name.
        Some(task) => format!("{group}{task}A"),
        None => group.clone(),
    };
    let from = From::After(Entry { score: 0, member });
    Ok(page(store, &index(image, which), &group, from, limit).await?.0)
}

/// The tasks of one registry that need an image, by platform and name, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn in_registry(
    store: &dyn Store,
    image: &TrackedImage,
    which: Which,
    registry: RunPrefix,
    limit: usize,
) -> Result<Vec<User>, StoreError> {
    let within = format!("{registry} ");
    let from = From::After(Entry { score: 0, member: within.clone() });
    Ok(page(store, &index(image, which), &within, from, limit).await?.0)
}

async fn page(
    store: &dyn Store,
    index: &Index,
    within: &str,
    from: From,
    limit: usize,
) -> Result<(Vec<User>, Option<From>), StoreError> {
    let mut entries = store.range(index, from, limit).await?;
    let end = entries.iter().position(|entry| !entry.member.starts_with(within));
    entries.truncate(end.unwrap_or(entries.len()));
    let users = entries.iter().filter_map(|entry| User::of_member(&entry.member)).collect();
    let last = entries.into_iter().nth(limit.saturating_sub(1));
    Ok((users, last.map(From::After)))
}

/// The registries of which a task has a login for an image that counts for it, at most `limit`. Reads one entry of each.
///
/// # Errors
/// [`StoreError`].
pub async fn logged_in(
    store: &dyn Store,
    image: &TrackedImage,
    limit: usize,
) -> Result<BTreeSet<RunPrefix>, StoreError> {
    let (index, mut from) = (index(image, Which::LoggedIn), From::Start);
    let mut registries = BTreeSet::new();
    for _ in 0..limit {
        let Some(entry) = store.range(&index, from, 1).await?.pop() else { break };
        from = match User::of_member(&entry.member) {
            Some(User { registry, .. }) => {
                registries.insert(registry);
                // `!` is the character after the space, so this is behind all members of the registry.
                From::After(Entry { score: 0, member: format!("{registry}!") })
            }
            None => From::After(entry),
        };
    }
    Ok(registries)
}

/// The registries and platforms of the tasks for which an image counts, at most `limit`. Reads one entry of each.
///
/// # Errors
/// [`StoreError`].
pub async fn groups(
    store: &dyn Store,
    image: &TrackedImage,
    limit: usize,
) -> Result<Vec<(RunPrefix, Platform)>, StoreError> {
    let (index, mut from) = (index(image, Which::Counted), From::Start);
    let mut groups = Vec::new();
    for _ in 0..limit {
        let Some(entry) = store.range(&index, from, 1).await?.pop() else { break };
        from = match User::of_member(&entry.member) {
            Some(User { registry, platform, .. }) => {
                // `!` is the character after the space, so this is behind all members of the group.
                let member = format!("{registry} {platform}!");
                groups.push((registry, platform));
                From::After(Entry { score: 0, member })
            }
            None => From::After(entry),
        };
    }
    Ok(groups)
}

/// The images that have got a user and whose watch has not begun since, at most `limit`, the longest first.
///
/// # Errors
/// [`StoreError`].
pub async fn to_watch(store: &dyn Store, limit: usize) -> Result<Vec<TrackedImage>, StoreError> {
    let entries = store.range(&unwatched(), From::Start, limit).await?;
    Ok(entries.iter().filter_map(|entry| entry.member.parse().ok()).collect())
}

/// Adds to a batch that the watch of an image begins.
pub fn watched(batch: &mut Batch, image: &TrackedImage) {
    batch.unindex(unwatched(), image);
}

/// What the members of a registry and platform begin with.
fn group(registry: RunPrefix, platform: &Platform) -> String {
    format!("{registry} {platform} ")
}

fn index(image: &TrackedImage, which: Which) -> Index {
    let word = match which {
        Which::Counted => "users",
        Which::LoggedIn => "logins",
        Which::All => "mentions",
    };
    Index::new(format!("images/{word}/{image}"))
}

fn unwatched() -> Index {
    Index::new("images/to-watch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_reads_back_and_sorts_by_registry_and_platform() {
        let user = |registry, platform: &str, role| User {
            registry: RunPrefix::nth(registry),
            platform: platform.parse().unwrap(),
            role,
            task: "web-1_x".parse().unwrap(),
            created: Timestamp::from_millis(1_700_000_000_000),
        };
        let users = [
            // `caa` and `ca`, `linux/arm64` and `linux/arm64/v8` share their beginnings.
            user(0, "linux/amd64", ImageRole::Step),
            user(0, "linux/arm64", ImageRole::Buildtime),
            user(0, "linux/arm64", ImageRole::Runtime),
            user(0, "linux/arm64/v8", ImageRole::Buildtime),
            user(676 + 2 * 676, "linux/amd64", ImageRole::Runtime),
            user(1, "linux/amd64", ImageRole::Runtime),
        ];
        let members: Vec<String> = users.iter().map(User::member).collect();
        assert_eq!(members[4], "caa linux/amd64 web-1_x@1700000000000 runtime");
        assert!(members.is_sorted(), "{members:?}");
        for (user, member) in users.iter().zip(&members) {
            assert_eq!(User::of_member(member).as_ref(), Some(user));
        }
        for wrong in
            ["", "ca", "ca linux/amd64 web runtime", "ca linux/amd64 web@1 base", "! ! !@! !"]
        {
            assert_eq!(User::of_member(wrong), None, "{wrong}");
        }
    }
}
