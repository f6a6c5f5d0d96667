//! The images that a task needs, as text for people.

use std::fmt;

use gantry_api::{FailedScan, TaskImages, TaskReading};

use super::table::{Details, Table, instant};

/// What was read and when, and the images as a table.
pub(super) struct Images<'a>(pub(super) &'a TaskImages);

impl fmt::Display for Images<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskImages { read, images, unread, is_cut, circle, failed } = self.0;
        let mut details = Details::default();
        details
            .maybe("read", read.as_ref().map(reading))
            .maybe("failed", failed.as_ref().map(failure))
            .each(
                "not known",
                unread.iter().map(|step| format!("step `{}`: {}", step.step, step.why)),
            )
            .maybe("circle", (!circle.is_empty()).then(|| in_circle(circle)))
            .maybe("cut", is_cut.then_some("there are more images than are recorded"));
        write!(f, "{details}")?;
        if read.is_none() {
            let missing = if failed.is_some() { "no images are known" } else { "not scanned yet" };
            return writeln!(f, "{missing}");
        }
        let mut table = Table::new(
            ["IMAGE", "ROLE", "STEP", "DOCKERFILE", "PLATFORM"],
            "the task needs no images",
        );
        for image in images {
            table.row([
                image.image.clone(),
                image.role.clone(),
                image.step.clone(),
                image.dockerfile.clone().unwrap_or_default(),
                image.platform.clone(),
            ]);
        }
        write!(f, "{table}")
    }
}

fn reading(read: &TaskReading) -> String {
    let commit = read.commit.as_ref().map(|commit| format!(" at commit {commit}"));
    let (commit, at) = (commit.unwrap_or_default(), instant(&read.at));
    format!("revision {}{commit}, {at}, by {}", read.revision, reader(read.run.as_ref()))
}

fn failure(failed: &FailedScan) -> String {
    let FailedScan { revision, run, at, error } = failed;
    let step = error.step.as_ref().map(|step| format!("step `{step}`: ")).unwrap_or_default();
    let (at, reader) = (instant(at), reader(run.as_ref()));
    format!("{reader} of revision {revision}, {at}: {step}{}", error.message)
}

fn in_circle(circle: &[String]) -> String {
    let circle = circle.join(" → ");
    format!("{circle}: push under another name, or disable the base image trigger of one of them")
}

fn reader(run: Option<&String>) -> String {
    run.map_or_else(|| "a scan".to_owned(), |run| format!("run {run}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(images: serde_json::Value) -> String {
        Images(&serde_json::from_value(images).unwrap()).to_string()
    }

    #[test]
    fn the_images_of_a_task_are_shown_with_what_was_read() {
        let commit = "4f2a91c".repeat(5) + "4f2a9";
        let image = |image: &str, role: &str, dockerfile: Option<&str>| json!({"image": image, "role": role, "step": "build", "dockerfile": dockerfile, "platform": "linux/amd64"});
        insta::assert_snapshot!(shown(json!({
            "read": {"revision": 2, "commit": commit, "run": "ca1", "at": "2026-03-09T20:30:10.123Z"},
            "images": [
                image("docker.io/library/node:22", "buildtime", Some("Dockerfile")),
                image("docker.io/library/bash:latest", "step", None),
            ],
            "unread": [{"step": "made", "why": "there is no `Dockerfile`"}],
            "failed": {
                "revision": 3, "at": "2026-03-09T20:31:10.123Z",
                "error": {"code": "build_refused", "step": "build", "message": "line 1: FROM has no image"}
            },
        })), @r"
        read       revision 2 at commit 4f2a91c4f2a91c4f2a91c4f2a91c4f2a91c4f2a9, 2026-03-09T20:30:10Z, by run ca1
        failed     a scan of revision 3, 2026-03-09T20:31:10Z: step `build`: line 1: FROM has no image
        not known  step `made`: there is no `Dockerfile`
        IMAGE                          ROLE       STEP   DOCKERFILE  PLATFORM
        docker.io/library/node:22      buildtime  build  Dockerfile  linux/amd64
        docker.io/library/bash:latest  step       build              linux/amd64
        ");
    }

    #[test]
    fn a_circle_is_shown_with_the_remedy() {
        let read = json!({"revision": 1, "at": "2026-03-09T20:30:10.123Z"});
        insta::assert_snapshot!(shown(json!({"read": read, "images": [], "circle": ["a", "b", "a"]})), @r"
        read    revision 1, 2026-03-09T20:30:10Z, by a scan
        circle  a → b → a: push under another name, or disable the base image trigger of one of them
        the task needs no images
        ");
    }

    #[test]
    fn a_task_that_was_not_read_says_so() {
        assert_eq!(shown(json!({"images": []})), "not scanned yet\n");
        let read = json!({"revision": 1, "at": "2026-03-09T20:30:10.123Z"});
        insta::assert_snapshot!(shown(json!({"read": read, "images": []})), @r"
        read  revision 1, 2026-03-09T20:30:10Z, by a scan
        the task needs no images
        ");
    }
}
