//! `gantry image list` and `show`: the images that tasks need, and how they stand.

use std::fmt;

use anyhow::Result;
use clap::Subcommand;
use gantry_api::{BaseImage, ImageDetails, WatchedImage};

use super::Client;
use super::table::{Details, Table, instant};
use crate::exit::Exit;

/// List and show the images that tasks need
#[derive(Debug, Subcommand)]
pub(crate) enum Images {
    /// List the images that tasks need: what each has, when its registry was asked, and why not
    #[command(visible_alias = "ls")]
    List(ListImages),
    /// Show one image: what was seen of it, which tasks need it, and which of them it rebuilds
    #[command(after_long_help = "\
Examples:
  gantry image show node:22
  gantry image show ghcr.io/octo/base:latest --output json")]
    Show(OneImage),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListImages {
    /// At most this many
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    top: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneImage {
    /// The image as in a Dockerfile, or without a host as a task pushes it
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Images {
    pub(crate) async fn run(self, client: &Client) -> Result<Exit> {
        match self {
            Self::List(list) => {
                let images: Vec<WatchedImage> = client.api.list(&["images"], &[], list.top).await?;
                client.output.print(&images, table(&images))?;
            }
            Self::Show(OneImage { image }) => {
                let found: ImageDetails =
                    client.api.get_with(&["images", "show"], &[("image", &image)]).await?;
                client.output.print(&found, Shown(&found))?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// The first digits of a digest, as many as distinguish images for people.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

/// The policy that chose another tag than the one in the Dockerfile, and that tag.
pub(super) fn chosen(base: &BaseImage) -> Option<String> {
    let (policy, tag) = (base.policy.as_ref()?, base.tag.as_ref()?);
    Some(format!("{policy} → {tag}"))
}

fn table(images: &[WatchedImage]) -> Table<7> {
    let mut table = Table::new(
        ["IMAGE", "CREDENTIALS", "DIGEST", "ASKED", "CHANGED", "TASKS", "STATE"],
        "no images: those that tasks need are listed once their sources were read, see `gantry task images`",
    );
    for image in images {
        table.row([
            named(image),
            image.credentials_of.clone().unwrap_or_default(),
            image.digest.as_deref().map(short).unwrap_or_default().to_owned(),
            image.asked.as_deref().map(instant).unwrap_or_default(),
            image.changed.as_deref().map(instant).unwrap_or_default(),
            tasks(image),
            state(image),
        ]);
    }
    table
}

/// An image, with the tag that its policy chose.
fn named(image: &WatchedImage) -> String {
    let WatchedImage { image, chosen, .. } = image;
    chosen.as_ref().map_or_else(|| image.clone(), |chosen| format!("{image} → {}", chosen.tag))
}

/// How many tasks need an image, and for how many of them its changes count.
fn tasks(image: &WatchedImage) -> String {
    let WatchedImage { users, counted, .. } = image;
    if users == counted { users.to_string() } else { format!("{counted} of {users}") }
}

/// What is unusual about an image, the most important first.
fn state(image: &WatchedImage) -> String {
    if let Some(problem) = &image.problem {
        return format!("not known since {}: {}", instant(&problem.since), problem.message);
    }
    if let Some(paused) = &image.paused {
        return format!("not asked until {}: {}", instant(&paused.until), paused.why);
    }
    match (&image.pending, &image.asked) {
        (Some(pending), _) => format!("changed, counts at {}", instant(&pending.rests_at)),
        (None, Some(_)) => String::new(),
        (None, None) => "not asked yet".to_owned(),
    }
}

struct Shown<'a>(&'a ImageDetails);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.0;
        let mut details = Details::default();
        details.line("image", &found.image).each(
            "made by",
            found.makers.iter().map(|maker| {
                let at = instant(&maker.at);
                format!(
                    "task {} in {}, last by run {}, {at}",
                    maker.task, maker.registry, maker.run
                )
            }),
        );
        for watch in &found.watches {
            watch_lines(&mut details, watch);
        }
        write!(f, "{details}")?;
        let mut users = Table::new(
            ["REGISTRY", "TASK", "PLATFORM", "ROLE", "A CHANGE REBUILDS IT"],
            "no task needs it",
        );
        for user in &found.users {
            users.row([
                user.registry.clone(),
                user.task.clone(),
                user.platform.clone(),
                user.role.clone(),
                user.why_not.as_ref().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}")),
            ]);
        }
        write!(f, "\n{users}")?;
        if found.is_cut {
            writeln!(f, "and more tasks")?;
        }
        let mut facts = Table::new(
            ["REGISTRY", "PLATFORM", "DIGEST", "GENERATION", "SINCE"],
            "what it has is not known for any platform yet",
        );
        for fact in &found.facts {
            facts.row([
                fact.registry.clone(),
                fact.platform.clone(),
                fact.digest.clone(),
                fact.generation.to_string(),
                instant(&fact.since),
            ]);
        }
        write!(f, "\n{facts}")
    }
}

fn watch_lines(details: &mut Details, watch: &WatchedImage) {
    let how = match &watch.credentials_of {
        Some(registry) => format!("with the credentials of {registry}"),
        None => "without credentials".to_owned(),
    };
    let asked = watch.asked.as_deref().map_or_else(|| "not yet".to_owned(), instant);
    details
        .line("asked", format_args!("{asked}, {how}; next {}", instant(&watch.due)))
        .maybe(
            "not known",
            watch.problem.as_ref().map(|problem| {
                let times = if problem.tries == 1 { "time" } else { "times" };
                let since = instant(&problem.since);
                format!("since {since}, tried {} {times}: {}", problem.tries, problem.message)
            }),
        )
        .maybe(
            "not asked",
            watch
                .paused
                .as_ref()
                .map(|paused| format!("until {}: {}", instant(&paused.until), paused.why)),
        )
        .maybe(
            "chosen",
            watch
                .chosen
                .as_ref()
                .map(|chosen| format!("{}, since {}", chosen.tag, instant(&chosen.since))),
        )
        .maybe("digest", watch.digest.as_ref())
        .maybe("changed", watch.changed.as_deref().map(instant))
        .maybe(
            "changing",
            watch.pending.as_ref().map(|pending| {
                format!(
                    "to {} since {}; it counts at {}, unless the tag changes again",
                    pending.digest,
                    instant(&pending.first),
                    instant(&pending.rests_at)
                )
            }),
        )
        .each(
            "seen",
            watch.seen.iter().map(|seen| {
                let digest = seen.digest.as_deref().map(short).unwrap_or_default();
                format!("{}  {digest}  {}", instant(&seen.at), seen.words)
            }),
        );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn watched(changes: Value) -> Value {
        let mut image = json!({
            "image": "docker.io/library/node:22", "digest": format!("sha256:{}", "a".repeat(64)),
            "asked": "2026-03-09T20:30:10.5Z", "changed": "2026-03-01T10:00:00Z", "due": "2026-03-09T20:35:10Z",
            "users": 3, "counted": 3
        });
        for (name, value) in changes.as_object().unwrap() {
            image[name] = value.clone();
        }
        image
    }

    #[test]
    fn images_are_listed_with_when_they_were_asked_for_and_why_not() {
        let images = json!([
            watched(json!({})),
            watched(json!({
                "image": "ghcr.io/octo/base:latest", "credentials_of": "ghcr", "counted": 2,
                "pending": {
                    "digest": "sha256:bb", "first": "2026-03-09T20:30:00Z", "last": "2026-03-09T20:30:10Z",
                    "rests_at": "2026-03-09T20:31:10Z"
                }
            })),
            watched(json!({
                "image": "docker.io/octo/gone:1", "digest": null, "changed": null,
                "problem": {"message": "it is not there: check its name and tag", "since": "2026-03-09T10:00:00Z", "tries": 4}
            })),
            watched(json!({
                "image": "quay.io/octo/web:1",
                "paused": {"until": "2026-03-09T21:00:00Z", "why": "it allows 3 more requests for now"}
            })),
            watched(json!({
                "image": "docker.io/library/node:20.*",
                "chosen": {"tag": "20.12.1", "since": "2026-03-01T10:00:00Z"}
            })),
            watched(
                json!({"image": "docker.io/library/new:1", "digest": null, "asked": null, "changed": null})
            ),
        ]);
        let images: Vec<WatchedImage> = serde_json::from_value(images).unwrap();
        insta::assert_snapshot!(table(&images), @r"
        IMAGE                                  CREDENTIALS  DIGEST               ASKED                 CHANGED               TASKS   STATE
        docker.io/library/node:22                           sha256:aaaaaaaaaaaa  2026-03-09T20:30:10Z  2026-03-01T10:00:00Z  3
        ghcr.io/octo/base:latest               ghcr         sha256:aaaaaaaaaaaa  2026-03-09T20:30:10Z  2026-03-01T10:00:00Z  2 of 3  changed, counts at 2026-03-09T20:31:10Z
        docker.io/octo/gone:1                                                    2026-03-09T20:30:10Z                        3       not known since 2026-03-09T10:00:00Z: it is not there: check its name and tag
        quay.io/octo/web:1                                  sha256:aaaaaaaaaaaa  2026-03-09T20:30:10Z  2026-03-01T10:00:00Z  3       not asked until 2026-03-09T21:00:00Z: it allows 3 more requests for now
        docker.io/library/node:20.* → 20.12.1               sha256:aaaaaaaaaaaa  2026-03-09T20:30:10Z  2026-03-01T10:00:00Z  3
        docker.io/library/new:1                                                                                              3       not asked yet
        ");
    }

    #[test]
    fn an_image_is_shown_with_what_was_seen_and_whom_it_rebuilds() {
        let found: ImageDetails = serde_json::from_value(json!({
            "image": "ghcr.io/octo/base:latest",
            "watches": [watched(json!({
                "image": "ghcr.io/octo/base:^1", "credentials_of": "ghcr",
                "chosen": {"tag": "1.4.2", "since": "2026-03-01T10:00:00Z"},
                "seen": [
                    {"at": "2026-03-01T10:00:00Z", "digest": "sha256:aaaaaaaaaaaaaaaa", "what": "moved", "words": "it came to rest with other content"},
                    {"at": "2026-03-02T10:00:00Z", "digest": "sha256:bbbbbbbbbbbbbbbb", "what": "changed", "words": "it changed, and may change again"},
                    {"at": "2026-03-02T10:00:30Z", "digest": "sha256:aaaaaaaaaaaaaaaa", "what": "returned", "words": "it changed back before it came to rest: nothing follows"}
                ]
            }))],
            "users": [
                {"registry": "ghcr", "task": "web", "platform": "linux/amd64", "role": "runtime"},
                {
                    "registry": "ghcr", "task": "tool", "platform": "linux/amd64", "role": "buildtime",
                    "rule": "only_buildtime", "why_not": "it is only used during the build"
                }
            ],
            "makers": [{"registry": "ghcr", "task": "base", "run": "ca4", "at": "2026-03-01T09:59:00Z"}],
            "facts": [{
                "registry": "ghcr", "platform": "linux/amd64", "digest": "sha256:aaaaaaaaaaaaaaaa",
                "content": "sha256:cc", "generation": 2, "since": "2026-03-01T10:00:00Z"
            }]
        }))
        .unwrap();
        insta::assert_snapshot!(Shown(&found), @r"
        image    ghcr.io/octo/base:latest
        made by  task base in ghcr, last by run ca4, 2026-03-01T09:59:00Z
        asked    2026-03-09T20:30:10Z, with the credentials of ghcr; next 2026-03-09T20:35:10Z
        chosen   1.4.2, since 2026-03-01T10:00:00Z
        digest   sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        changed  2026-03-01T10:00:00Z
        seen     2026-03-01T10:00:00Z  sha256:aaaaaaaaaaaa  it came to rest with other content
                 2026-03-02T10:00:00Z  sha256:bbbbbbbbbbbb  it changed, and may change again
                 2026-03-02T10:00:30Z  sha256:aaaaaaaaaaaa  it changed back before it came to rest: nothing follows

        REGISTRY  TASK  PLATFORM     ROLE       A CHANGE REBUILDS IT
        ghcr      web   linux/amd64  runtime    yes
        ghcr      tool  linux/amd64  buildtime  no: it is only used during the build

        REGISTRY  PLATFORM     DIGEST                   GENERATION  SINCE
        ghcr      linux/amd64  sha256:aaaaaaaaaaaaaaaa  2           2026-03-01T10:00:00Z
        ");
    }
}
