//! `gantry wave`: what follows from changes of base images.

use std::fmt;

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{Wave, WaveDetails, WaveTask};
use gantry_domain::id::WaveId;

use super::Client;
use super::arguments::RegistryArg;
use super::dot::{Graph, IMAGE, TASK};
use super::image::short;
use super::table::{Details, Table, instant};
use crate::exit::Exit;

/// List, show, resume and drop waves: the rebuilds that follow from a change of a base image
#[derive(Debug, Subcommand)]
pub(crate) enum Waves {
    /// List waves from the newest
    #[command(visible_alias = "ls")]
    List(ListWaves),
    /// Show one wave: the change, and how far each of its tasks is
    #[command(after_long_help = "\
Examples:
  gantry wave show ca-w1
  gantry wave show ca-w1 -o dot | dot -Tsvg > wave.svg")]
    Show(OneWave),
    /// Let a wave go on that is frozen because a canary failed
    Resume(OneWave),
    /// Drop a wave: its tasks that have not begun are not built for it
    #[command(after_long_help = "\
Runs that have begun go on; `gantry cancel` ends them. The tasks stay on the images that they were built on, until the next \
change or run.

Example:
  gantry wave drop ca-w1")]
    Drop(OneWave),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListWaves {
    #[command(flatten)]
    registry: RegistryArg,
    /// At most this many
    #[arg(long, default_value_t = 15, value_name = "COUNT")]
    top: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneWave {
    /// The wave's id, like `ca-w1`
    wave: WaveId,
}

impl Waves {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::List(list) => {
                let registry = client.registry(&list.registry).await?;
                let path = ["registries", &registry, "waves"];
                let waves: Vec<Wave> = client.api.list(&path, &[], list.top).await?;
                client.output.print(&waves, table(&waves))?;
            }
            Self::Show(OneWave { wave }) => {
                let found: WaveDetails = client.api.get(&["waves", &wave.to_string()]).await?;
                client.output.print_graph(&found, Shown(&found), || graph(&found))?;
            }
            Self::Resume(OneWave { wave }) => {
                let path = ["waves", &wave.to_string(), "resume"];
                let wave: Wave = client.api.post(&path, &()).await?;
                client.output.print(&wave, resumed(&wave))?;
            }
            Self::Drop(OneWave { wave }) => {
                let path = ["waves", &wave.to_string(), "drop"];
                let wave: Wave = client.api.post(&path, &()).await?;
                client.output.print(&wave, dropped(&wave))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn resumed(wave: &Wave) -> String {
    match wave.state.as_str() {
        "Open" | "Planning" => format!("wave {} goes on\n", wave.id),
        state => format!("wave {} is {state}: there is nothing to resume\n", wave.id),
    }
}

fn dropped(wave: &Wave) -> String {
    match wave.state.as_str() {
        "Dropped" => {
            format!("wave {} is dropped: what has not begun is not built for it\n", wave.id)
        }
        state => format!("wave {} is {state}: there is nothing to drop\n", wave.id),
    }
}

fn table(waves: &[Wave]) -> Table<7> {
    let mut table = Table::new(
        ["WAVE", "STATE", "CREATED", "ENDED", "IMAGE", "FROM", "TO"],
        "no waves: one begins when an image changes that tasks were built on, see `gantry image list`",
    );
    for wave in waves {
        table.row([
            wave.id.clone(),
            wave.state.clone(),
            instant(&wave.created),
            wave.ended.as_deref().map(instant).unwrap_or_default(),
            wave.image.clone(),
            short(&wave.from).to_owned(),
            short(&wave.to).to_owned(),
        ]);
    }
    table
}

struct Shown<'a>(&'a WaveDetails);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WaveDetails { wave, tasks, is_cut } = self.0;
        let mut details = Details::default();
        details.line("wave", &wave.id).line("state", state(wave)).line("registry", &wave.registry);
        details
            .line("image", format_args!("{} for {}", wave.image, wave.platform))
            .line("from", &wave.from)
            .line("to", &wave.to)
            .maybe("pushed by", wave.run.as_ref().map(|run| format!("run {run}")))
            .line("event", &wave.event)
            .line("created", instant(&wave.created))
            .maybe("ended", wave.ended.as_deref().map(instant));
        write!(f, "{details}")?;
        let mut table = Table::new(
            ["TASK", "STATUS", "RUN", "AFTER", "THROUGH", "AT", "WHY"],
            "it has reached no task",
        );
        for task in tasks {
            table.row([
                task.task.clone(),
                task.status.clone(),
                task.run.clone().unwrap_or_default(),
                task.after.join(", "),
                task.through.clone(),
                instant(&task.at),
                task.words.clone().unwrap_or_default(),
            ]);
        }
        write!(f, "\n{table}")?;
        if *is_cut {
            writeln!(f, "and more tasks")?;
        }
        Ok(())
    }
}

fn state(wave: &Wave) -> String {
    match (&wave.failed, wave.canary) {
        (Some(run), _) => format!(
            "{}, because run {run} of a canary failed: `gantry wave resume {id}` builds the others, `gantry wave drop {id}` does not",
            wave.state,
            id = wave.id
        ),
        (None, canary @ 1..) if wave.state == "Open" => {
            format!("{}; canaries that must be built first: {canary}", wave.state)
        }
        (None, _) => wave.state.clone(),
    }
}

fn graph(details: &WaveDetails) -> Graph {
    let mut graph = Graph::default();
    let wave = &details.wave;
    graph.node(&wave.image, vec![wave.image.clone(), short(&wave.to).to_owned()], IMAGE);
    for task in &details.tasks {
        let lines = [Some(&task.task), Some(&task.status), task.run.as_ref()];
        let lines = lines.into_iter().flatten().cloned().collect();
        graph.node(&id(&task.task), lines, looks(task));
        if task.through == wave.image {
            graph.arrow(&wave.image, &id(&task.task), "");
        }
        for before in &task.after {
            graph.arrow(&id(before), &id(&task.task), "");
        }
    }
    graph
}

/// Differs from the names of all images.
fn id(task: &str) -> String {
    format!("task {task}")
}

fn looks(task: &WaveTask) -> &'static str {
    match task.status.as_str() {
        "Built" | "UpToDate" => "shape=box, color=darkgreen",
        "Failed" | "NotBuilt" => "shape=box, color=red",
        "Building" => "shape=box, style=bold",
        _ => TASK,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wave() -> WaveDetails {
        let digest = |letter: char| format!("sha256:{}", letter.to_string().repeat(64));
        let base = "docker.io/library/busybox:1";
        serde_json::from_value(json!({
            "id": "ca-w1", "registry": "ghcr", "state": "Open", "image": base, "platform": "linux/amd64",
            "from": digest('a'), "to": digest('b'), "event": "image:ca:1234:2", "canary": 1,
            "created": "2026-03-09T20:30:10.5Z",
            "tasks": [
                {
                    "task": "base", "through": base, "status": "Built", "run": "ca4", "words": "built by run ca4",
                    "at": "2026-03-09T20:31:10Z"
                },
                {
                    "task": "web", "through": "ghcr.io/octo/base:latest", "after": ["base"], "status": "Building",
                    "run": "ca5", "at": "2026-03-09T20:30:10Z"
                },
                {
                    "task": "api", "through": "ghcr.io/octo/base:latest", "after": ["base"], "status": "Waiting",
                    "at": "2026-03-09T20:30:10Z"
                }
            ]
        }))
        .unwrap()
    }

    #[test]
    fn waves_are_listed_with_their_causes() {
        let mut done = wave().wave;
        (done.state, done.ended) = ("Done".to_owned(), Some("2026-03-09T20:40:10Z".to_owned()));
        insta::assert_snapshot!(table(&[wave().wave, done]), @r"
        WAVE   STATE  CREATED               ENDED                 IMAGE                        FROM                 TO
        ca-w1  Open   2026-03-09T20:30:10Z                        docker.io/library/busybox:1  sha256:aaaaaaaaaaaa  sha256:bbbbbbbbbbbb
        ca-w1  Done   2026-03-09T20:30:10Z  2026-03-09T20:40:10Z  docker.io/library/busybox:1  sha256:aaaaaaaaaaaa  sha256:bbbbbbbbbbbb
        ");
    }

    #[test]
    fn a_wave_is_shown_with_how_far_its_tasks_are() {
        insta::assert_snapshot!(Shown(&wave()), @r"
        wave      ca-w1
        state     Open; canaries that must be built first: 1
        registry  ghcr
        image     docker.io/library/busybox:1 for linux/amd64
        from      sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        to        sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
        event     image:ca:1234:2
        created   2026-03-09T20:30:10Z

        TASK  STATUS    RUN  AFTER  THROUGH                      AT                    WHY
        base  Built     ca4         docker.io/library/busybox:1  2026-03-09T20:31:10Z  built by run ca4
        web   Building  ca5  base   ghcr.io/octo/base:latest     2026-03-09T20:30:10Z
        api   Waiting        base   ghcr.io/octo/base:latest     2026-03-09T20:30:10Z
        ");
    }

    #[test]
    fn a_frozen_wave_says_what_to_do() {
        let mut frozen = wave().wave;
        (frozen.state, frozen.failed) = ("Frozen".to_owned(), Some("ca4".to_owned()));
        insta::assert_snapshot!(state(&frozen), @r"
        Frozen, because run ca4 of a canary failed: `gantry wave resume ca-w1` builds the others, `gantry wave drop ca-w1` does not
        ");
        assert_eq!(resumed(&frozen), "wave ca-w1 is Frozen: there is nothing to resume\n");
        assert_eq!(resumed(&wave().wave), "wave ca-w1 goes on\n");
        assert_eq!(dropped(&wave().wave), "wave ca-w1 is Open: there is nothing to drop\n");
    }

    #[test]
    fn the_tasks_of_a_wave_are_drawn() {
        insta::assert_snapshot!(graph(&wave()), @r#"
        digraph gantry {
          rankdir=LR;
          "docker.io/library/busybox:1" [shape=ellipse, label="docker.io/library/busybox:1\nsha256:bbbbbbbbbbbb"];
          "task base" [shape=box, color=darkgreen, label="base\nBuilt\nca4"];
          "task web" [shape=box, style=bold, label="web\nBuilding\nca5"];
          "task api" [shape=box, label="api\nWaiting"];
          "docker.io/library/busybox:1" -> "task base";
          "task base" -> "task web";
          "task base" -> "task api";
        }
        "#);
    }
}
