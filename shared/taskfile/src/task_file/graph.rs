//! Which steps a step waits for.

use std::collections::HashMap;

use gantry_domain::id::StepId;

use super::fields::Placed;
use super::mistake::Mistakes;

/// A step as far as its place in the graph goes.
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) id: StepId,
    /// What `when` says: at once is `Some([])`, and `None` is after the step before.
    pub(super) when: Option<Vec<Placed<String>>>,
}

/// Resolves `when`: for each step the places of the steps that it waits for, in order, each once.
pub(super) fn dependencies(steps: &[Node], mistakes: &mut Mistakes) -> Vec<Vec<usize>> {
    let places: HashMap<&StepId, usize> =
        steps.iter().enumerate().rev().map(|(at, step)| (&step.id, at)).collect();
    let mut after = Vec::with_capacity(steps.len());
    for (place, step) in steps.iter().enumerate() {
        if places.get(&step.id) != Some(&place) {
            mistakes
                .error(step.at, format!("another step has the id `{}`: choose another", step.id));
        }
        let mut own: Vec<usize> = match &step.when {
            None => place.checked_sub(1).into_iter().collect(),
            Some(when) => when.iter().filter_map(|id| find(id, step, &places, mistakes)).collect(),
        };
        own.sort_unstable();
        own.dedup();
        after.push(own);
    }
    if let Some(cycle) = cycle(&after) {
        let names: Vec<&str> =
            cycle.iter().chain(cycle.first()).map(|place| steps[*place].id.as_str()).collect();
        let message = format!(
            "these steps wait for each other: {}: remove one from its `when`",
            names.join(" → ")
        );
        mistakes.error(steps[cycle[0]].at, message);
    } else {
        warn_of_gaps(steps, &after, mistakes);
    }
    after
}

fn find(
    id: &Placed<String>,
    step: &Node,
    places: &HashMap<&StepId, usize>,
    mistakes: &mut Mistakes,
) -> Option<usize> {
    if id.value == step.id.as_str() {
        mistakes.error(
            id.at,
            format!("the step `{}` waits for itself: remove it from `when`", id.value),
        );
        return None;
    }
    let found = id.value.parse::<StepId>().ok().and_then(|id| places.get(&id).copied());
    if found.is_none() {
        let names: Vec<&str> = places.keys().map(|id| id.as_str()).collect();
        let remedy = super::similar::suggestion(&id.value, &names);
        mistakes.error(id.at, format!("no step has the id `{}`{remedy}", id.value));
    }
    found
}

/// One cycle, from its first step in the file, each step waiting for the next.
fn cycle(after: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut waits_for: Vec<usize> = after.iter().map(Vec::len).collect();
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); after.len()];
    for (place, others) in after.iter().enumerate() {
        others.iter().for_each(|other| before[*other].push(place));
    }
    let mut ready: Vec<usize> = (0..after.len()).filter(|place| waits_for[*place] == 0).collect();
    while let Some(place) = ready.pop() {
        for other in &before[place] {
            waits_for[*other] -= 1;
            if waits_for[*other] == 0 {
                ready.push(*other);
            }
        }
    }
    // Each step that is left waits for another one that is left: whoever follows them comes back.
    let mut place = (0..after.len()).find(|place| waits_for[*place] > 0)?;
    let mut path = Vec::new();
    let mut seen = vec![false; after.len()];
    while !seen[place] {
        seen[place] = true;
        path.push(place);
        place = after[place].iter().copied().find(|other| waits_for[*other] > 0)?;
    }
    let begin = path.iter().position(|other| *other == place)?;
    let mut cycle = path.split_off(begin);
    let first = cycle.iter().enumerate().min_by_key(|(_, place)| **place)?.0;
    cycle.rotate_left(first);
    Some(cycle)
}

/// A step without `when` waits for the one before it only, though others may still run. Told at the first such step: what
/// follows it without `when` is no different.
fn warn_of_gaps(steps: &[Node], after: &[Vec<usize>], mistakes: &mut Mistakes) {
    for (place, step) in steps.iter().enumerate().skip(2) {
        if step.when.is_some() || steps[place - 1].when.is_none() {
            continue;
        }
        let ended = ancestors(place - 1, after);
        let running = (0..place - 1).rev().find(|other| !ended[*other]);
        if let Some(other) = running {
            let (id, before) = (&steps[other].id, &steps[place - 1].id);
            let message = format!(
                "this step waits for `{before}` only, and `{id}` may still run: if it needs both, write `when: [{id}, {before}]`"
            );
            mistakes.warning(step.at, message);
        }
    }
}

/// The step itself and all that have ended when it begins.
fn ancestors(place: usize, after: &[Vec<usize>]) -> Vec<bool> {
    let mut found = vec![false; after.len()];
    let mut open = vec![place];
    while let Some(place) = open.pop() {
        if !found[place] {
            found[place] = true;
            open.extend(&after[place]);
        }
    }
    found
}
