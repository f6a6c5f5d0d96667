//! `gantry impact`: what a change of an image would rebuild.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use gantry_api::Impact;

use super::Client;
use super::dot::{Graph, IMAGE, TASK};
use super::table::{Details, Table, clock, instant};
use crate::exit::Exit;

/// Tell what a change of an image would rebuild, in which order, and how long that took before
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Nothing is built. The times are those of the last successful runs. `-o dot` draws the order for Graphviz.

Examples:
  gantry impact --base node:22
  gantry impact --base ghcr.io/octo/base:latest -o dot | dot -Tsvg > impact.svg")]
pub(crate) struct AskImpact {
    /// The image as in a Dockerfile, or without a host as a task pushes it
    #[arg(long, value_name = "IMAGE")]
    base: String,
}

impl AskImpact {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let impact: Impact =
            client.api.get_with(&["images", "impact"], &[("base", &self.base)]).await?;
        client.output.print_graph(&impact, Shown(&impact), || graph(&impact))?;
        Ok(Exit::Ok)
    }
}

struct Shown<'a>(&'a Impact);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let impact = self.0;
        let mut details = Details::default();
        details.line("base", &impact.base).line("rebuilds", rebuilds(impact));
        if !impact.tasks.is_empty() {
            let took = |millis| clock(Duration::from_millis(millis));
            let (total, longest) = (took(impact.total_ms), took(impact.longest_ms));
            let unknown = match impact.without_history {
                0 => String::new(),
                tasks => format!("; never built: {tasks}"),
            };
            details.line("time", format_args!("{longest} at best, {total} of builds{unknown}"));
        }
        write!(f, "{details}")?;
        let mut table = Table::new(
            ["STEP", "REGISTRY", "TASK", "AFTER", "THROUGH", "LAST RUN", "BUILT", "TOOK"],
            "no task would be rebuilt",
        );
        for task in &impact.tasks {
            let circle = if task.is_in_circle { " (circle)" } else { "" };
            table.row([
                format!("{}{circle}", task.depth),
                task.registry.clone(),
                task.task.clone(),
                task.after.join(", "),
                task.through.clone(),
                task.last_run.clone().unwrap_or_default(),
                task.last_built.as_deref().map(instant).unwrap_or_default(),
                task.took_ms.map(Duration::from_millis).map(clock).unwrap_or_default(),
            ]);
        }
        write!(f, "\n{table}")?;
        if !impact.others.is_empty() {
            let mut table = Table::new(["NOT REBUILT", "REGISTRY", "THROUGH", "WHY"], "");
            for other in &impact.others {
                table.row([
                    other.task.clone(),
                    other.registry.clone(),
                    other.through.clone(),
                    other.why.clone(),
                ]);
            }
            write!(f, "\n{table}")?;
        }
        Ok(())
    }
}

fn rebuilds(impact: &Impact) -> String {
    let steps = impact.tasks.iter().map(|task| task.depth).max().unwrap_or(0);
    let count =
        |number, one| if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") };
    let more = if impact.is_cut { ", and more" } else { "" };
    format!("{} in {}{more}", count(impact.tasks.len(), "task"), count(steps, "step"))
}

fn graph(impact: &Impact) -> Graph {
    let mut graph = Graph::default();
    graph.node(&impact.base, vec![impact.base.clone()], IMAGE);
    for task in &impact.tasks {
        let id = |name: &str| format!("{}/{name}", task.registry);
        let own = id(&task.task);
        let took = task.took_ms.map(Duration::from_millis).map(clock);
        let lines = [task.task.clone()].into_iter().chain(took).collect();
        graph.node(&own, lines, if task.is_in_circle { "shape=box, color=red" } else { TASK });
        if task.through == impact.base {
            graph.arrow(&impact.base, &own, "");
        }
        for before in &task.after {
            graph.arrow(&id(before), &own, "");
        }
    }
    graph
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task(depth: usize, name: &str, after: &[&str], through: &str) -> Value {
        json!({
            "registry": "ghcr", "task": name, "depth": depth, "through": through, "after": after,
            "makes": [format!("ghcr.io/octo/{name}:latest")], "last_run": format!("ca{depth}"), "took_ms": 61_000,
            "last_built": "2026-03-09T20:30:10.5Z"
        })
    }

    fn impact() -> Impact {
        let (os, base) = ("docker.io/library/busybox:1", "ghcr.io/octo/base:latest");
        let mut new = task(2, "right", &["base"], base);
        for name in ["last_run", "took_ms", "last_built"] {
            new[name] = Value::Null;
        }
        serde_json::from_value(json!({
            "base": os, "total_ms": 183_000, "longest_ms": 183_000, "without_history": 1,
            "tasks": [
                task(1, "base", &[], os), task(2, "left", &["base"], base), new,
                task(3, "top", &["left", "right"], "ghcr.io/octo/left:latest")
            ],
            "others": [{
                "registry": "ghcr", "task": "nightly", "through": os, "rule": "task_disabled",
                "why": "the task is disabled: `gantry task update --status Enabled`"
            }]
        }))
        .unwrap()
    }

    #[test]
    fn what_is_rebuilt_is_listed_in_order_with_its_times() {
        insta::assert_snapshot!(Shown(&impact()), @r"
        base      docker.io/library/busybox:1
        rebuilds  4 tasks in 3 steps
        time      00:03:03 at best, 00:03:03 of builds; never built: 1

        STEP  REGISTRY  TASK   AFTER        THROUGH                      LAST RUN  BUILT                 TOOK
        1     ghcr      base                docker.io/library/busybox:1  ca1       2026-03-09T20:30:10Z  00:01:01
        2     ghcr      left   base         ghcr.io/octo/base:latest     ca2       2026-03-09T20:30:10Z  00:01:01
        2     ghcr      right  base         ghcr.io/octo/base:latest
        3     ghcr      top    left, right  ghcr.io/octo/left:latest     ca3       2026-03-09T20:30:10Z  00:01:01

        NOT REBUILT  REGISTRY  THROUGH                      WHY
        nightly      ghcr      docker.io/library/busybox:1  the task is disabled: `gantry task update --status Enabled`
        ");
    }

    #[test]
    fn a_circle_is_marked() {
        let mut impact = impact();
        impact.tasks.truncate(1);
        impact.tasks[0].is_in_circle = true;
        impact.others.clear();
        impact.is_cut = true;
        insta::assert_snapshot!(Shown(&impact), @r"
        base      docker.io/library/busybox:1
        rebuilds  1 task in 1 step, and more
        time      00:03:03 at best, 00:03:03 of builds; never built: 1

        STEP        REGISTRY  TASK  AFTER  THROUGH                      LAST RUN  BUILT                 TOOK
        1 (circle)  ghcr      base         docker.io/library/busybox:1  ca1       2026-03-09T20:30:10Z  00:01:01
        ");
        assert!(graph(&impact).to_string().contains("color=red"));
    }

    #[test]
    fn the_order_is_drawn() {
        insta::assert_snapshot!(graph(&impact()), @r#"
        digraph gantry {
          rankdir=LR;
          "docker.io/library/busybox:1" [shape=ellipse, label="docker.io/library/busybox:1"];
          "ghcr/base" [shape=box, label="base\n00:01:01"];
          "ghcr/left" [shape=box, label="left\n00:01:01"];
          "ghcr/right" [shape=box, label="right"];
          "ghcr/top" [shape=box, label="top\n00:01:01"];
          "docker.io/library/busybox:1" -> "ghcr/base";
          "ghcr/base" -> "ghcr/left";
          "ghcr/base" -> "ghcr/right";
          "ghcr/left" -> "ghcr/top";
          "ghcr/right" -> "ghcr/top";
        }
        "#);
    }
}
