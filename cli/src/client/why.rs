//! `gantry why`: where an image comes from, and what was built on it.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;
use gantry_api::{BaseImage, Child, MovedImage, Origin, Why};

use super::Client;
use super::dot::{Graph, IMAGE};
use super::image::{chosen, short};
use super::table::{Details, Table, instant};
use crate::exit::Exit;

/// Tell where an image comes from: its run, commit and cause, what it is built on, and what is built on it
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A tag means what it has now. `-o dot` draws the images for Graphviz.

Examples:
  gantry why ghcr.io/octo/web:latest
  gantry why sha256:4f2a91c0b1d2e3f405162738495a6b7c8d9e0f112233445566778899aabbccdd
  gantry why node:22 -o dot | dot -Tsvg > why.svg")]
pub(crate) struct AskWhy {
    /// The image with its tag or digest, or a digest alone
    #[arg(value_name = "IMAGE[@DIGEST]")]
    image: String,
}

impl AskWhy {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        let why: Why = client.api.get_with(&["images", "why"], &[("image", &self.image)]).await?;
        client.output.print_graph(&why, Shown(&why), || graph(&why))?;
        Ok(Exit::Ok)
    }
}

struct Shown<'a>(&'a Why);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.0;
        let mut details = Details::default();
        details.maybe("image", why.image.as_ref()).line("digest", &why.digest);
        match &why.origin {
            Some(origin) => origin_lines(&mut details, origin),
            None => {
                details.line("built", "not by a run of gantry that is known");
            }
        }
        write!(f, "{details}")?;
        if let Some(origin) = &why.origin {
            let mut table = Table::new(
                ["BUILT ON", "DIGEST", "ROLE", "RUN", "TASK", "CAUSE"],
                "it is built on no image",
            );
            upstream(&mut table, why, origin, 0, &mut BTreeSet::new());
            write!(f, "\n{table}")?;
        }
        let mut table = Table::new(
            ["USED BY", "REGISTRY", "ON", "RUN", "BUILT", "PUSHED"],
            "the last build of no task is based on it",
        );
        let first = why.children.iter().filter(|child| child.depth == 1);
        first.for_each(|child| downstream(&mut table, why, child));
        write!(f, "\n{table}")?;
        if why.is_cut {
            writeln!(f, "and more")?;
        }
        Ok(())
    }
}

fn origin_lines(details: &mut Details, origin: &Origin) {
    let built = &origin.lineage;
    let task = built.task.as_ref().map_or_else(String::new, |task| format!(" of task {task}"));
    details
        .each("pushed as", &built.images)
        .line("built by", format_args!("run {}{task} in {}", built.run, built.registry))
        .line("at", instant(&built.pushed))
        .line("platform", &built.platform)
        .each(
            "images",
            built.children.iter().map(|child| format!("{}: {}", child.platform, child.digest)),
        )
        .line("source", &built.source)
        .maybe("commit", built.commit.as_ref())
        .line("cause", &built.cause)
        .each("changed", origin.moved.iter().map(moved_words))
        .maybe(
            "wave",
            origin.wave.as_ref().map(|wave| match &wave.cause {
                Some(cause) => format!("{}: {}", wave.id, moved_words(cause)),
                None => wave.id.clone(),
            }),
        )
        .maybe("event", origin.event.as_ref());
}

fn moved_words(moved: &MovedImage) -> String {
    match &moved.from {
        Some(from) => format!("{} from {} to {}", moved.image, short(from), short(&moved.to)),
        None => format!("{} to {}", moved.image, short(&moved.to)),
    }
}

/// A line for each base, and below it those of its own bases. An image is unfolded once.
fn upstream<'a>(
    table: &mut Table<6>,
    why: &'a Why,
    origin: &'a Origin,
    depth: usize,
    shown: &mut BTreeSet<&'a str>,
) {
    for base in &origin.lineage.bases {
        let of = why.upstream.iter().find(|origin| origin.lineage.digest == base.digest);
        table.row(base_row(base, of, depth));
        if let Some(of) = of
            && shown.insert(&base.digest)
        {
            upstream(table, why, of, depth + 1, shown);
        }
    }
}

fn base_row(base: &BaseImage, of: Option<&Origin>, depth: usize) -> [String; 6] {
    let (run, task, cause) = match of.map(|origin| &origin.lineage) {
        Some(built) => {
            (built.run.clone(), built.task.clone().unwrap_or_default(), built.cause.clone())
        }
        None => Default::default(),
    };
    let shown = chosen(base).unwrap_or_else(|| base.image.clone());
    let name = format!("{}{shown}", "  ".repeat(depth));
    [name, short(&base.digest).to_owned(), base.role.clone(), run, task, cause]
}

/// A line for a task, and below it those of the tasks that are based on what it made.
fn downstream(table: &mut Table<6>, why: &Why, child: &Child) {
    let made: Vec<&str> = child.made.iter().map(|made| made.image.as_str()).collect();
    table.row([
        format!("{}{}", "  ".repeat(child.depth.saturating_sub(1)), child.task),
        child.registry.clone(),
        child.on.image.clone(),
        child.run.clone(),
        instant(&child.at),
        made.join(", "),
    ]);
    let is_next = |next: &&Child| {
        next.depth == child.depth + 1 && child.made.iter().any(|made| made.digest == next.on.digest)
    };
    // A task has one line, below the first that it is based on.
    let is_first = |next: &&Child| {
        let before = why.children.iter().take_while(|other| !std::ptr::eq(*other, child));
        let mut before = before.filter(|other| other.depth == child.depth);
        !before.any(|other| other.made.iter().any(|made| made.digest == next.on.digest))
    };
    let next = why.children.iter().filter(is_next).filter(is_first);
    next.for_each(|next| downstream(table, why, next));
}

/// The images by their digests; an arrow is a build.
fn graph(why: &Why) -> Graph {
    let mut graph = Graph::default();
    let named = |name: Option<&String>, digest: &str| {
        name.into_iter().cloned().chain([short(digest).to_owned()]).collect::<Vec<_>>()
    };
    for origin in why.origin.iter().chain(&why.upstream) {
        let built = &origin.lineage;
        graph.node(&built.digest, named(built.images.first(), &built.digest), IMAGE);
        for base in &built.bases {
            graph.node(&base.digest, named(Some(&base.image), &base.digest), IMAGE);
            graph.arrow(&base.digest, &built.digest, &build_words(built.task.as_ref(), &built.run));
        }
    }
    if why.origin.is_none() {
        graph.node(&why.digest, named(why.image.as_ref(), &why.digest), IMAGE);
    }
    for child in &why.children {
        graph.node(&child.on.digest, named(Some(&child.on.image), &child.on.digest), IMAGE);
        let words = build_words(Some(&child.task), &child.run);
        for made in &child.made {
            graph.node(&made.digest, named(Some(&made.image), &made.digest), IMAGE);
            graph.arrow(&child.on.digest, &made.digest, &words);
        }
    }
    graph
}

fn build_words(task: Option<&String>, run: &str) -> String {
    task.map_or_else(|| run.to_owned(), |task| format!("{task}, {run}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    fn origin(depth: usize, name: &str, own: char, bases: Value, run: &str) -> Value {
        json!({
            "depth": depth, "digest": digest(own), "images": [format!("ghcr.io/octo/{name}:latest")],
            "platform": "linux/amd64", "bases": bases, "run": run, "registry": "ghcr", "task": name,
            "source": format!("https://github.com/octo/{name}.git#main"), "commit": "4f2a91c",
            "cause": "ghcr.io/octo/base:latest changed (wave ca-w1)", "pushed": "2026-03-09T20:30:10.5Z",
            "trigger": "Image Update", "event": "image:ca:1234:2"
        })
    }

    /// `web` is built on `node`, and that on busybox; `shop` and `top` are built on them.
    fn why() -> Why {
        let base = |name: &str, own: char| json!({"image": name, "digest": digest(own), "role": "runtime"});
        let mut busybox = base("docker.io/library/busybox:1", 'a');
        busybox["policy"] = json!("docker.io/library/busybox:1.*");
        busybox["tag"] = json!("1.37.0");
        let mut web = origin(0, "node", 'b', json!([busybox]), "ca5");
        web["wave"] = json!({
            "id": "ca-w1", "event": "image:ca:1234:2",
            "cause": {"image": "docker.io/library/busybox:1", "from": digest('0'), "to": digest('a')}
        });
        web["moved"] = json!([{"image": "docker.io/library/busybox:1", "from": digest('0'), "to": digest('a')}]);
        let child = |depth: usize, task: &str, on: (&str, char), own: char, run: &str| {
            json!({
                "depth": depth, "registry": "ghcr", "task": task, "run": run, "at": "2026-03-09T20:31:10Z",
                "on": {"image": format!("ghcr.io/octo/{}:latest", on.0), "digest": digest(on.1)},
                "made": [{"image": format!("ghcr.io/octo/{task}:latest"), "digest": digest(own)}]
            })
        };
        serde_json::from_value(json!({
            "image": "ghcr.io/octo/node:latest", "digest": digest('b'), "origin": web,
            "upstream": [],
            "children": [
                child(1, "web", ("node", 'b'), 'c', "ca6"), child(1, "api", ("node", 'b'), 'd', "ca7"),
                child(2, "shop", ("web", 'c'), 'e', "ca8")
            ]
        }))
        .unwrap()
    }

    #[test]
    fn an_image_is_explained_from_its_base_to_its_children() {
        insta::assert_snapshot!(Shown(&why()), @r"
        image      ghcr.io/octo/node:latest
        digest     sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
        pushed as  ghcr.io/octo/node:latest
        built by   run ca5 of task node in ghcr
        at         2026-03-09T20:30:10Z
        platform   linux/amd64
        source     https://github.com/octo/node.git#main
        commit     4f2a91c
        cause      ghcr.io/octo/base:latest changed (wave ca-w1)
        changed    docker.io/library/busybox:1 from sha256:000000000000 to sha256:aaaaaaaaaaaa
        wave       ca-w1: docker.io/library/busybox:1 from sha256:000000000000 to sha256:aaaaaaaaaaaa
        event      image:ca:1234:2

        BUILT ON                                DIGEST               ROLE     RUN  TASK  CAUSE
        docker.io/library/busybox:1.* → 1.37.0  sha256:aaaaaaaaaaaa  runtime

        USED BY  REGISTRY  ON                        RUN  BUILT                 PUSHED
        web      ghcr      ghcr.io/octo/node:latest  ca6  2026-03-09T20:31:10Z  ghcr.io/octo/web:latest
          shop   ghcr      ghcr.io/octo/web:latest   ca8  2026-03-09T20:31:10Z  ghcr.io/octo/shop:latest
        api      ghcr      ghcr.io/octo/node:latest  ca7  2026-03-09T20:31:10Z  ghcr.io/octo/api:latest
        ");
    }

    #[test]
    fn the_bases_of_bases_are_indented_and_unfolded_once() {
        let base = |name: &str, own: char| json!({"image": format!("ghcr.io/octo/{name}:latest"), "digest": digest(own), "role": "runtime"});
        let both = json!([base("left", 'c'), base("right", 'd')]);
        let why = json!({
            "digest": digest('e'), "origin": origin(0, "top", 'e', both, "ca4"), "children": [],
            "upstream": [
                origin(1, "left", 'c', json!([base("base", 'b')]), "ca2"),
                origin(1, "right", 'd', json!([base("base", 'b')]), "ca3"),
                origin(2, "base", 'b', json!([base("os", 'a')]), "ca1")
            ]
        });
        let why: Why = serde_json::from_value(why).unwrap();
        let shown = Shown(&why).to_string();
        let table = shown.split("\n\n").nth(1).unwrap();
        insta::assert_snapshot!(table, @r"
        BUILT ON                    DIGEST               ROLE     RUN  TASK   CAUSE
        ghcr.io/octo/left:latest    sha256:cccccccccccc  runtime  ca2  left   ghcr.io/octo/base:latest changed (wave ca-w1)
          ghcr.io/octo/base:latest  sha256:bbbbbbbbbbbb  runtime  ca1  base   ghcr.io/octo/base:latest changed (wave ca-w1)
            ghcr.io/octo/os:latest  sha256:aaaaaaaaaaaa  runtime
        ghcr.io/octo/right:latest   sha256:dddddddddddd  runtime  ca3  right  ghcr.io/octo/base:latest changed (wave ca-w1)
          ghcr.io/octo/base:latest  sha256:bbbbbbbbbbbb  runtime  ca1  base   ghcr.io/octo/base:latest changed (wave ca-w1)
        ");
    }

    #[test]
    fn an_image_that_gantry_did_not_build_says_so() {
        let why = json!({
            "image": "docker.io/library/node:22", "digest": digest('a'), "upstream": [], "children": []
        });
        let why: Why = serde_json::from_value(why).unwrap();
        insta::assert_snapshot!(Shown(&why), @r"
        image   docker.io/library/node:22
        digest  sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        built   not by a run of gantry that is known

        the last build of no task is based on it
        ");
    }

    #[test]
    fn the_images_are_drawn_by_their_digests() {
        insta::assert_snapshot!(graph(&why()), @r#"
        digraph gantry {
          rankdir=LR;
          "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" [shape=ellipse, label="ghcr.io/octo/node:latest\nsha256:bbbbbbbbbbbb"];
          "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" [shape=ellipse, label="docker.io/library/busybox:1\nsha256:aaaaaaaaaaaa"];
          "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc" [shape=ellipse, label="ghcr.io/octo/web:latest\nsha256:cccccccccccc"];
          "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd" [shape=ellipse, label="ghcr.io/octo/api:latest\nsha256:dddddddddddd"];
          "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee" [shape=ellipse, label="ghcr.io/octo/shop:latest\nsha256:eeeeeeeeeeee"];
          "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" -> "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" [label="node, ca5"];
          "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" -> "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc" [label="web, ca6"];
          "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" -> "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd" [label="api, ca7"];
          "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc" -> "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee" [label="shop, ca8"];
        }
        "#);
    }
}
