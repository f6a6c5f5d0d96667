//! What a change of an image would rebuild: reads who uses what, and leaves the answer to the domain.

use std::collections::{BTreeSet, VecDeque};

use gantry_domain::decide::impact::{self, AffectedTask, ImageGraph, ImageUse, Impact};
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::LastBuild;
use gantry_seams::image_users::Which;
use gantry_seams::last_builds;

use super::registries::VisibleRegistries;
use super::rule;
use crate::access::{Allowed, Read};
use crate::refusal::Refusal;
use crate::state::State;

/// How many tasks are looked at.
const MOST_TASKS: usize = 2000;

/// What a change of an image would rebuild, with what is known of the tasks.
#[derive(Debug)]
pub(crate) struct Affected {
    pub(crate) base: TrackedImage,
    pub(crate) impact: Impact,
    graph: ImageGraph,
    /// Whether there are more tasks than were looked at.
    pub(crate) is_cut: bool,
}

impl Affected {
    /// The last build of a task.
    pub(crate) fn last_build(&self, affected: &AffectedTask) -> Option<&LastBuild> {
        self.graph.builds.get(&affected.task)
    }
}

/// What a change of the image would rebuild of the caller's registries.
pub(crate) async fn impact(
    state: &State,
    allowed: &Allowed<Read>,
    base: &str,
) -> Result<Affected, Refusal> {
    let store = state.store.as_ref();
    let registries = VisibleRegistries::read(store, allowed).await?;
    let base = registries.known(store, base).await?;
    let (mut graph, mut is_cut) = (ImageGraph::default(), false);
    let (mut images, mut tasks) = (BTreeSet::from([base.clone()]), BTreeSet::new());
    let mut open = VecDeque::from([base.clone()]);
    while let Some(image) = open.pop_front() {
        let (users, has_more) = registries.users(store, &image, Which::All, MOST_TASKS).await?;
        is_cut |= has_more;
        let mut uses = Vec::new();
        for user in users {
            let Some(task) = registries.task_of(&user) else { continue };
            if !tasks.contains(&task) {
                if tasks.len() == MOST_TASKS {
                    is_cut = true;
                    continue;
                }
                tasks.insert(task.clone());
                if let Some(last) = last_builds::find(store, &task).await? {
                    graph.builds.insert(task.clone(), last);
                }
            }
            let last = graph.builds.get(&task);
            let Some(counts) = rule::counts(store, &task, &user, &image, last).await? else {
                continue;
            };
            if counts.is_ok() {
                for made in last.map_or(&[][..], |last| &last.made) {
                    let tracked = registries.tracking(store, made).await?.into_iter();
                    open.extend(tracked.filter(|image| images.insert(image.clone())));
                }
            }
            uses.push(ImageUse { task, rule: counts.err() });
        }
        graph.users.insert(image, uses);
    }
    let impact = impact::impact(&graph, &base);
    Ok(Affected { base, impact, graph, is_cut })
}
