//! Operations on waves.

use std::collections::{BTreeMap, BTreeSet};

use gantry_domain::id::{RegistryName, WaveId};
use gantry_domain::wave::{Node, NodeTask, Wave, WaveTask};
use gantry_seams::store::{From, Store, StoreError};
use gantry_seams::{last_builds, waves};

use super::paging::{Listed, Paging};
use crate::access::{Allowed, Needs, Read, Run};
use crate::refusal::Refusal;
use crate::state::State;

/// How many tasks of a wave are listed, and how many are read at once.
const MOST_TASKS: usize = 2000;
const TASKS_AT_ONCE: usize = 200;

/// A wave with its tasks.
#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) wave: Wave,
    pub(crate) tasks: Vec<TaskOfWave>,
    /// Whether there are more tasks.
    pub(crate) is_cut: bool,
}

/// A task of a wave.
#[derive(Debug)]
pub(crate) struct TaskOfWave {
    pub(crate) of: WaveTask,
    /// Its node, if it has not ended.
    pub(crate) node: Option<Node>,
    /// The tasks of the wave that make the image through which it was reached.
    pub(crate) after: Vec<NodeTask>,
}

/// Lists the waves of a registry, newest first.
pub(crate) async fn list(
    state: &State,
    allowed: &Allowed<Read>,
    registry: &RegistryName,
    paging: &Paging,
) -> Result<Listed<Wave>, Refusal> {
    let store = state.store.as_ref();
    let registry = allowed.registry(store, registry).await?;
    let after = match paging.after_id::<WaveId>()? {
        None => None,
        Some(after) => {
            let found = waves::find(store, after).await?.map(|found| found.value);
            let found = found.filter(|wave| wave.id.prefix() == registry.prefix);
            let refused = || {
                Refusal::invalid("after", "it is no `next` of this list, or too old: begin anew")
            };
            Some(found.ok_or_else(refused)?)
        }
    };
    let limit = paging.limit();
    let found = waves::list(store, registry.prefix, after.as_ref(), limit + 1).await?;
    Ok(Listed::of(found, limit, |wave| wave.id.to_string()))
}

/// Shows a wave with its tasks.
pub(crate) async fn show(
    state: &State,
    allowed: &Allowed<Read>,
    id: WaveId,
) -> Result<Details, Refusal> {
    let store = state.store.as_ref();
    let wave = find(state, allowed, id).await?;
    let (mut tasks, mut from) = (Vec::new(), Some(From::Start));
    while let Some(start) = from.take_if(|_| tasks.len() < MOST_TASKS) {
        let (some, next) = waves::tasks(store, id, start, TASKS_AT_ONCE).await?;
        let open: Vec<NodeTask> =
            some.iter().filter(|of| of.end.is_none()).map(|of| of.task.clone()).collect();
        let mut nodes = waves::nodes(store, &open).await?;
        tasks.extend(some.into_iter().map(|of| {
            let node = nodes.remove(&of.task).map(|node| node.value);
            TaskOfWave { of, node, after: Vec::new() }
        }));
        from = next;
    }
    order(store, id, &mut tasks).await?;
    Ok(Details { wave, tasks, is_cut: from.is_some() })
}

/// Tells each task which tasks of the wave make the image through which it was reached.
async fn order(
    store: &dyn Store,
    wave: WaveId,
    tasks: &mut [TaskOfWave],
) -> Result<(), StoreError> {
    let all: BTreeSet<NodeTask> = tasks.iter().map(|task| task.of.task.clone()).collect();
    let mut makers = BTreeMap::new();
    for task in tasks {
        let image = &task.of.through;
        if !makers.contains_key(image) {
            let found = last_builds::makers(store, image, Some(wave.prefix())).await?;
            makers.insert(image.clone(), found);
        }
        let found = makers.get(image).into_iter().flatten();
        let before = found.filter(|maker| **maker != task.of.task && all.contains(*maker));
        task.after = before.cloned().collect();
    }
    Ok(())
}

/// Lets a frozen wave go on, without canaries. Changes nothing if it is not frozen.
pub(crate) async fn resume(
    state: &State,
    allowed: &Allowed<Run>,
    id: WaveId,
) -> Result<Wave, Refusal> {
    find(state, allowed, id).await?;
    waves::resume(state.store.as_ref(), id).await?.ok_or_else(|| absent(id))
}

/// Drops a wave: what it has not begun is not built for it. Changes nothing if it is over.
pub(crate) async fn drop_wave(
    state: &State,
    allowed: &Allowed<Run>,
    id: WaveId,
) -> Result<Wave, Refusal> {
    find(state, allowed, id).await?;
    waves::drop_wave(state.store.as_ref(), id).await?.ok_or_else(|| absent(id))
}

async fn find<S: Needs>(state: &State, allowed: &Allowed<S>, id: WaveId) -> Result<Wave, Refusal> {
    let found = waves::find(state.store.as_ref(), id).await?.map(|found| found.value);
    found.filter(|wave| allowed.sees(wave)).ok_or_else(|| absent(id))
}

fn absent(id: WaveId) -> Refusal {
    Refusal::NotFound { what: "wave", name: id.to_string() }
}
