//! Lists runs from newest to oldest, filtered by registry, task, status and image.

use gantry_domain::id::{RegistryName, RunId, RunPrefix, TaskName};
use gantry_domain::run::{Run as RunRecord, RunStatus};
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::store::{Store, StoreError};

use crate::access::{Allowed, Read};
use crate::refusal::Refusal;
use crate::state::State;
use crate::usecase::paging::{Listed, Paging};

/// The most records that one request reads to find matching ones.
const MOST_LOOKED_AT: usize = 2000;
const LOOKED_AT_ONCE: usize = 200;

/// Filters for a list of runs.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) registry: Option<RegistryName>,
    /// Needs `registry`.
    pub(crate) task: Option<TaskName>,
    pub(crate) status: Option<RunStatus>,
    /// `repository`, `repository:tag`, either with its host, or a digest.
    pub(crate) image: Option<String>,
}

/// Lists runs from newest to oldest. A page may be short or even empty and still have a next one.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    wanted: &Wanted,
    paging: &Paging,
) -> Result<Listed<RunRecord>, Refusal> {
    let store = state.store.as_ref();
    let filters = filters(store, allowed, wanted).await?;
    let is_wanted = |run: &RunRecord| {
        wanted.status.is_none_or(|status| run.status() == status)
            && wanted.image.as_deref().is_none_or(|image| pushed(run, image))
    };
    let mut last = match &paging.after {
        Some(after) => Some(cursor(store, allowed, after).await?),
        None => None,
    };
    let is_indexed = wanted.image.is_none() && (wanted.task.is_none() || wanted.status.is_none());
    let at_once = if is_indexed { paging.limit() + 1 } else { LOOKED_AT_ONCE };
    let mut items = Vec::new();
    let mut looked_at = 0;
    loop {
        let some = newest(store, &filters, last.as_ref(), at_once).await?;
        if some.is_empty() {
            return Ok(Listed { items, next: None });
        }
        for run in some {
            if items.len() == paging.limit() || looked_at == MOST_LOOKED_AT {
                let next = last.map(|run: RunRecord| run.id.to_string());
                return Ok(Listed { items, next });
            }
            looked_at += 1;
            if is_wanted(&run) {
                items.push(run.clone());
            }
            last = Some(run);
        }
    }
}

async fn filters(
    store: &dyn Store,
    allowed: &Allowed<Read>,
    wanted: &Wanted,
) -> Result<Vec<RunFilter>, Refusal> {
    if wanted.registry.is_none() && wanted.task.is_some() {
        let message = "a task is known by its registry too: give `registry`";
        return Err(Refusal::invalid("task", message));
    }
    let registries = match (&wanted.registry, allowed.bound_to()) {
        (Some(registry), _) => vec![Some(allowed.registry(store, registry).await?.prefix)],
        (None, None) => vec![None],
        (None, Some(registries)) => registries.values().copied().map(Some).collect(),
    };
    let images = wanted.image.as_deref().map_or_else(|| vec![None], image_names);
    let filter = |registry: Option<RunPrefix>, image: Option<&str>| RunFilter {
        registry,
        task: registry.zip(wanted.task.clone()),
        image: image.map(str::to_owned),
        status: wanted.status,
    };
    let filters = registries
        .into_iter()
        .flat_map(|registry| images.iter().map(move |image| (registry, *image)))
        .map(|(registry, image)| filter(registry, image));
    Ok(filters.collect())
}

/// What an image may be listed under: its digest, or its repository. The part before the first slash may be a host.
fn image_names(image: &str) -> Vec<Option<&str>> {
    if image.starts_with("sha256:") {
        return vec![Some(image)];
    }
    let name = without_tag(image);
    let without_host = name.split_once('/').map(|(_, repository)| Some(repository));
    std::iter::once(Some(name)).chain(without_host).collect()
}

fn without_tag(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        // A host may have a port.
        Some((name, tag)) if !tag.contains('/') => name,
        Some(_) | None => name,
    }
}

async fn cursor(
    store: &dyn Store,
    allowed: &Allowed<Read>,
    after: &str,
) -> Result<RunRecord, Refusal> {
    let refused =
        || Refusal::invalid("after", "it is no `next` of a list of runs, or too old: begin anew");
    let id: RunId = after.parse().map_err(|_| refused())?;
    runs::find(store, id).await?.filter(|run| allowed.sees(run)).ok_or_else(refused)
}

/// The newest runs of several listings, merged.
async fn newest(
    store: &dyn Store,
    filters: &[RunFilter],
    after: Option<&RunRecord>,
    limit: usize,
) -> Result<Vec<RunRecord>, StoreError> {
    let mut found = Vec::new();
    for filter in filters {
        found.extend(runs::list(store, filter, after, limit).await?);
    }
    if filters.len() > 1 {
        // The order of each listing: by time of creation, then by the text of the id.
        found.sort_by_cached_key(|run| (std::cmp::Reverse(run.created), run.id.to_string()));
        found.dedup_by_key(|run| run.id);
        found.truncate(limit);
    }
    Ok(found)
}

fn pushed(run: &RunRecord, image: &str) -> bool {
    let product = run.state.done().and_then(|done| done.outcome.product());
    let outputs = product.map_or(&[][..], |product| &product.outputs);
    outputs.iter().any(|output| {
        let reference = &output.image;
        let repository = reference.repository().as_str();
        let without_host = match reference.tag() {
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.to_owned(),
        };
        image == output.digest.as_str()
            || image == repository
            || image == without_host
            || image == format!("{}/{repository}", reference.host())
            || image == reference.to_string()
    })
}
