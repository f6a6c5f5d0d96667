//! Splits builds for several platforms into their legs, each a step of its own.
//!
//! Pure. What waits for such a build waits for all of its legs.

use std::collections::BTreeSet;

use gantry_domain::platform::Platform;
use gantry_domain::run::ErrorCode;

use super::{BuildWork, GraphStep, StepWork};
use crate::failure::Failure;

/// Replaces each build for several platforms by a step for each, named like `build-linux-arm64`.
///
/// # Errors
/// The name of a leg is too long, or that of another step.
pub(super) fn split(steps: Vec<GraphStep>) -> Result<Vec<GraphStep>, Failure> {
    let mut legs_of: Vec<Vec<usize>> = Vec::with_capacity(steps.len());
    let mut split: Vec<GraphStep> = Vec::with_capacity(steps.len());
    for step in steps {
        let first = split.len();
        match step.work {
            StepWork::Build(ref work) if work.whole.platforms.are_several() => {
                for platform in work.whole.platforms.iter() {
                    split.push(leg(&step, work, platform)?);
                }
            }
            StepWork::Build(_) | StepWork::Push(_) | StepWork::Cmd(_) => split.push(step),
        }
        legs_of.push((first..split.len()).collect());
    }
    let mut ids = BTreeSet::new();
    for step in &mut split {
        let after = step.after.iter().filter_map(|place| legs_of.get(*place));
        step.after = after.flatten().copied().collect();
        if !ids.insert(step.id.clone()) {
            return Err(refused(&step.id, "which another step has: give that another id"));
        }
    }
    Ok(split)
}

fn leg(step: &GraphStep, work: &BuildWork, platform: &Platform) -> Result<GraphStep, Failure> {
    let name = format!("{}-{}", step.id, platform.to_string().replace('/', "-"));
    let id = name.parse();
    let id = id.map_err(|_| refused(&name, "which is too long: give the step a shorter id"))?;
    let work = BuildWork { platform: platform.clone(), ..work.clone() };
    Ok(GraphStep {
        id,
        after: step.after.clone(),
        start_delay: step.start_delay,
        timeout: step.timeout,
        ignore_errors: step.ignore_errors,
        asks: step.asks.clone(),
        work: StepWork::Build(Box::new(work)),
    })
}

fn refused(id: &(impl std::fmt::Display + ?Sized), why: &str) -> Failure {
    let message = format!("a build for several platforms has a step `{id}`, {why}");
    Failure::in_words(ErrorCode::BuildRefused, message)
}

#[cfg(test)]
mod tests {
    use gantry_domain::platforms::Platforms;
    use gantry_taskfile::task_file::{Inputs, compile};

    use super::super::Graph;
    use super::*;

    fn graph(file: &str, platforms: &str) -> Result<Graph, String> {
        let task = compile(file, &Inputs::default()).unwrap().task;
        let platforms: Platforms = platforms.parse().unwrap();
        Graph::of_file(task, &platforms).map_err(|failure| failure.error().to_string())
    }

    fn shown(graph: &Graph) -> Vec<String> {
        let id = |place: &usize| graph.steps[*place].id.to_string();
        let steps = graph.steps.iter();
        let after = |step: &GraphStep| step.after.iter().map(id).collect::<Vec<_>>().join(" ");
        steps.map(|step| format!("{}: {}", step.id, after(step))).collect()
    }

    #[test]
    fn what_waits_for_a_build_waits_for_its_legs_and_they_for_what_it_waited_for() {
        let file = "steps:\n- {id: test, cmd: x}\n- {id: web, build: '--platform linux/amd64,linux/arm/v7 -t web .'}\n\
                    - {id: out, push: [web]}\n";
        assert_eq!(
            shown(&graph(file, "linux/arm64").unwrap()),
            [
                "test: ",
                "web-linux-amd64: test",
                "web-linux-arm-v7: test",
                "out: web-linux-amd64 web-linux-arm-v7"
            ]
        );
        let file = "steps:\n- {id: web, build: -t web .}\n";
        assert_eq!(shown(&graph(file, "linux/arm64").unwrap()), ["web: "]);
        assert_eq!(
            shown(&graph(file, "linux/arm64,linux/amd64").unwrap()),
            ["web-linux-arm64: ", "web-linux-amd64: "]
        );
    }

    #[test]
    fn a_leg_whose_name_is_taken_or_too_long_is_refused() {
        let taken = "steps:\n- {id: web, build: -t web .}\n- {id: web-linux-arm64, cmd: x}\n";
        let error = graph(taken, "linux/amd64,linux/arm64").err().unwrap();
        assert!(error.contains("`web-linux-arm64`, which another step has"), "{error}");
        let id = "w".repeat(60);
        let long = format!("steps:\n- {{id: {id}, build: -t web .}}\n");
        let error = graph(&long, "linux/amd64,linux/arm64").err().unwrap();
        assert!(error.contains("too long"), "{error}");
        assert!(graph(&long, "linux/amd64").is_ok());
    }
}
