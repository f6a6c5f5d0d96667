//! Converts what is known of images and waves to API bodies.

use gantry_api as types;
use gantry_domain::cause::{Cause, MovedBase};
use gantry_domain::decide::impact::UnaffectedTask;
use gantry_domain::image_watch::SeenAs;
use gantry_domain::wave::{NodeEnd, NodeState, NodeTask, Wave, WaveState};

use super::{lineage, millis_of, outputs, texts, time, word_of};
use crate::usecase::images::{self, Affected, Child, Details, Origin, TaskUse, Watch, Why};
use crate::usecase::waves::{self, TaskOfWave};

/// A watch as in a list, without its observations.
pub(crate) fn listed(watch: &Watch) -> types::WatchedImage {
    types::WatchedImage { seen: Vec::new(), ..watched(watch) }
}

fn watched(shown: &Watch) -> types::WatchedImage {
    let watch = &shown.watch;
    types::WatchedImage {
        image: watch.watched.image.to_string(),
        chosen: watch.chosen.as_ref().map(|chosen| types::ChosenTag {
            tag: chosen.tag.to_string(),
            since: time(chosen.since),
        }),
        credentials_of: shown.credentials_of.as_ref().map(ToString::to_string),
        digest: watch.digest.as_ref().map(ToString::to_string),
        asked: watch.asked.map(time),
        changed: watch.moved.map(time),
        due: time(watch.due),
        pending: watch.pending.as_ref().map(|pending| types::PendingChange {
            digest: pending.digest.to_string(),
            first: time(pending.first),
            last: time(pending.last),
            rests_at: time(pending.rests_at()),
        }),
        problem: watch.problem.as_ref().map(|problem| types::ImageProblem {
            message: problem.message.clone(),
            since: time(problem.since),
            tries: problem.tries,
        }),
        paused: shown
            .paused
            .as_ref()
            .map(|pause| types::RegistryPause { until: time(pause.until), why: pause.why.clone() }),
        users: shown.users,
        counted: shown.counted,
        seen: watch
            .seen
            .iter()
            .map(|seen| types::Observation {
                at: time(seen.at),
                digest: seen.digest.as_ref().map(ToString::to_string),
                what: word_of(&seen.what, "what"),
                words: seen_words(&seen.what).to_owned(),
            })
            .collect(),
    }
}

fn seen_words(what: &SeenAs) -> &'static str {
    match what {
        SeenAs::First => "it was seen for the first time",
        SeenAs::Changed => "it changed, and may change again",
        SeenAs::Returned => "it changed back before it came to rest: nothing follows",
        SeenAs::Same => "it came to rest with the same content: nothing follows",
        SeenAs::Moved => "it came to rest with other content",
    }
}

pub(crate) fn details(details: &Details) -> types::ImageDetails {
    let images::Details { image, watches, users, makers, facts, is_cut } = details;
    let user = |of: &TaskUse| types::ImageUser {
        registry: of.task.task.registry.to_string(),
        task: of.task.task.name.to_string(),
        platform: of.user.platform.to_string(),
        role: of.user.role.to_string(),
        rule: of.rule.as_ref().map(|rule| word_of(rule, "rule")),
        why_not: of.rule.as_ref().map(ToString::to_string),
    };
    let makers = makers.iter().map(|(task, last)| types::ImageMaker {
        registry: task.task.registry.to_string(),
        task: task.task.name.to_string(),
        run: last.run.to_string(),
        at: time(last.at),
    });
    let facts = facts.iter().filter_map(|(registry, platform, fact)| {
        let version = fact.value.as_ref()?;
        Some(types::ImageFact {
            registry: registry.to_string(),
            platform: platform.to_string(),
            digest: version.digest.to_string(),
            content: version.content.to_string(),
            generation: fact.generation,
            since: time(fact.since),
        })
    });
    types::ImageDetails {
        image: image.to_string(),
        watches: watches.iter().map(watched).collect(),
        users: users.iter().map(user).collect(),
        makers: makers.collect(),
        facts: facts.collect(),
        is_cut: *is_cut,
    }
}

pub(crate) fn why(why: &Why) -> types::Why {
    types::Why {
        image: why.image.as_ref().map(ToString::to_string),
        digest: why.digest.to_string(),
        origin: why.origin.as_ref().map(origin),
        upstream: why.upstream.iter().map(origin).collect(),
        children: why.children.iter().map(child).collect(),
        is_cut: why.is_cut,
    }
}

fn origin(origin: &Origin) -> types::Origin {
    let cause = origin.run.as_ref().map(|run| &run.cause);
    let moved = match cause {
        Some(Cause::BaseImages { moved, .. }) => moved.iter().map(moved_base).collect(),
        _ => Vec::new(),
    };
    types::Origin {
        depth: origin.depth,
        lineage: lineage(&origin.lineage),
        trigger: cause.map(|cause| cause.trigger().to_owned()),
        event: cause.map(|cause| cause.event().to_string()),
        wave: cause.and_then(Cause::wave).map(|id| types::OriginWave {
            id: id.to_string(),
            event: origin.wave.as_ref().map(|wave| wave.cause.event.to_string()),
            cause: origin.wave.as_ref().map(|wave| types::MovedImage {
                image: wave.cause.image.to_string(),
                from: Some(wave.cause.from.to_string()),
                to: wave.cause.to.to_string(),
            }),
        }),
        moved,
    }
}

fn moved_base(moved: &MovedBase) -> types::MovedImage {
    types::MovedImage {
        image: moved.image.to_string(),
        from: moved.from.as_ref().map(ToString::to_string),
        to: moved.to.to_string(),
    }
}

fn child(child: &Child) -> types::Child {
    types::Child {
        depth: child.depth,
        registry: child.task.task.registry.to_string(),
        task: child.task.task.name.to_string(),
        on: types::OutputImage {
            image: child.on.image.to_string(),
            digest: child.on.digest.to_string(),
            children: Vec::new(),
        },
        run: child.build.run.to_string(),
        made: outputs(&child.made),
        at: time(child.build.at),
    }
}

pub(crate) fn impact(affected: &Affected) -> types::Impact {
    let impact = &affected.impact;
    let tasks = impact.tasks.iter().map(|task| {
        let last = affected.last_build(task);
        types::AffectedTask {
            registry: task.task.task.registry.to_string(),
            task: task.task.task.name.to_string(),
            depth: task.depth,
            through: task.through.to_string(),
            after: names(&task.after),
            is_in_circle: task.is_in_circle,
            makes: last.map_or_else(Vec::new, |last| texts(&last.made)),
            last_run: last.map(|last| last.run.to_string()),
            took_ms: last.map(|last| last.took),
            last_built: last.map(|last| time(last.at)),
        }
    });
    types::Impact {
        base: affected.base.to_string(),
        tasks: tasks.collect(),
        others: impact.others.iter().map(unaffected).collect(),
        total_ms: millis_of(impact.total),
        longest_ms: millis_of(impact.longest),
        without_history: impact.without_history,
        is_cut: affected.is_cut,
    }
}

fn unaffected(other: &UnaffectedTask) -> types::UnaffectedTask {
    types::UnaffectedTask {
        registry: other.task.task.registry.to_string(),
        task: other.task.task.name.to_string(),
        through: other.through.to_string(),
        rule: word_of(&other.rule, "rule"),
        why: other.rule.to_string(),
    }
}

fn names(tasks: &[NodeTask]) -> Vec<String> {
    tasks.iter().map(|task| task.task.name.to_string()).collect()
}

pub(crate) fn wave(wave: &Wave) -> types::Wave {
    let cause = &wave.cause;
    let (failed, ended) = match &wave.state {
        WaveState::Planning { .. } | WaveState::Open => (None, None),
        WaveState::Frozen { run } => (Some(run.to_string()), None),
        WaveState::Done { at } | WaveState::Dropped { at } => (None, Some(time(*at))),
    };
    types::Wave {
        id: wave.id.to_string(),
        registry: wave.registry.to_string(),
        state: wave.state.as_str().to_owned(),
        image: cause.image.to_string(),
        platform: cause.platform.to_string(),
        from: cause.from.to_string(),
        to: cause.to.to_string(),
        event: cause.event.to_string(),
        run: cause.run.map(|run| run.to_string()),
        canary: wave.canary,
        failed,
        created: time(wave.created),
        ended,
    }
}

pub(crate) fn wave_details(details: &waves::Details) -> types::WaveDetails {
    types::WaveDetails {
        wave: wave(&details.wave),
        tasks: details.tasks.iter().map(wave_task).collect(),
        is_cut: details.is_cut,
    }
}

fn wave_task(task: &TaskOfWave) -> types::WaveTask {
    let end = task.of.end.as_ref();
    let (status, run) = match (end, task.node.as_ref().map(|node| &node.state)) {
        (Some(NodeEnd::Built { run }), _) => ("Built", Some(run)),
        (Some(NodeEnd::UsedBy { run }), _) => ("UpToDate", Some(run)),
        (Some(NodeEnd::Unchanged), _) => ("UpToDate", None),
        (Some(NodeEnd::Failed { run }), _) => ("Failed", Some(run)),
        (Some(NodeEnd::NotBuilt { .. }), _) => ("NotBuilt", None),
        (None, Some(NodeState::Building { run })) => ("Building", Some(run)),
        (None, Some(NodeState::Waiting { .. }) | None) => ("Waiting", None),
    };
    types::WaveTask {
        task: task.of.task.task.name.to_string(),
        through: task.of.through.to_string(),
        after: names(&task.after),
        status: status.to_owned(),
        run: run.map(ToString::to_string),
        words: end.map(ToString::to_string),
        at: time(task.of.at),
    }
}
