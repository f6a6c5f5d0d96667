//! Converts the engine's status messages into events.
//!
//! In: status messages, each with any number of vertices and log chunks. Out: events in a readable order: a vertex
//! begins, writes output, ends. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};
use bytes::Bytes;
use gantry_domain::image::ImageReference;

use crate::engine::{BuildEvent, OutputStream};

/// The longest output in one event.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// The end of the error of a vertex that the engine cancelled.
pub(super) const CANCELLED: &str = "context canceled";

/// The state of a build, from its messages so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    vertices: HashMap<String, Known>,
    failed: Vec<FailedVertex>,
    /// The ends of cancelled vertices, by number. They are held back because the engine may run the same work again.
    cancelled: BTreeMap<u32, BuildEvent>,
    bases: BTreeSet<ImageReference>,
    foreign: Option<Foreign>,
}

/// An image that a build must not load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    /// The engine's name for it.
    pub(super) image: String,
    /// Whether this build loads it. Otherwise a concurrent build may load it: newer engines load equal layers once, and
    /// report them to both builds under either name.
    pub(super) is_certain: bool,
}

/// A vertex that ended with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedVertex {
    /// Like `[2/3] RUN make`.
    pub(super) name: String,
    /// The engine's message.
    pub(super) error: String,
}

#[derive(Debug)]
struct Known {
    number: u32,
    round: Round,
}

/// The engine may run a vertex several times, usually to find it cached. Only the first time is reported, and a later
/// one that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Later,
    Failed,
}

impl Progress {
    /// For a build that may load these images, all of which have digests.
    pub(super) fn new(bases: BTreeSet<ImageReference>) -> Self {
        Self { bases, ..Self::default() }
    }

    /// An image that the build loads or loaded, although it must not.
    pub(super) fn foreign(&self) -> Option<&Foreign> {
        self.foreign.as_ref()
    }

    fn look_for_foreign(&mut self, vertex: &Vertex) {
        let Some((what, image)) = loaded_image(&vertex.name) else { return };
        let reference = image.parse::<ImageReference>();
        let is_pinned = reference.as_ref().is_ok_and(|image| image.digest().is_some());
        // If there is a digest it alone decides, since it alone determines what is loaded.
        let is_known = reference.is_ok_and(|image| {
            self.bases.iter().any(|base| match base.digest() {
                Some(digest) => image.digest() == Some(digest),
                None => base.host() == image.host() && base.repository() == image.repository(),
            })
        });
        let is_certain = what == Loaded::Configuration || !is_pinned;
        if !is_known && self.foreign.as_ref().is_none_or(|found| !found.is_certain && is_certain) {
            self.foreign = Some(Foreign { image: image.to_owned(), is_certain });
        }
    }

    /// The events of one status message.
    pub(super) fn read(&mut self, report: StatusResponse) -> Vec<BuildEvent> {
        let mut events = Vec::new();
        report.vertexes.iter().for_each(|vertex| self.look_for_foreign(vertex));
        for vertex in report.vertexes.iter().filter(|vertex| vertex.started.is_some()) {
            self.known(&vertex.digest, &vertex.name, &mut events);
        }
        for log in report.logs {
            self.output(log, &mut events);
        }
        for vertex in &report.vertexes {
            self.end(vertex, &mut events);
        }
        events
    }

    /// The remaining events at the end of the build: those of vertices that were cancelled and not run again. If the
    /// build succeeded, their work was done elsewhere, by another build or by a retry of the engine.
    pub(super) fn finish(&mut self, succeeded: bool) -> Vec<BuildEvent> {
        let mut ends: Vec<_> = std::mem::take(&mut self.cancelled).into_values().collect();
        for end in &mut ends {
            if let BuildEvent::Completed { error, .. } = end
                && succeeded
            {
                *error = None;
            }
        }
        ends
    }

    /// The failed vertices, in order.
    pub(super) fn failed(&self) -> &[FailedVertex] {
        &self.failed
    }

    /// The vertex with this digest. It begins when it is first seen.
    fn known(&mut self, digest: &str, name: &str, events: &mut Vec<BuildEvent>) -> &mut Known {
        let number = u32::try_from(self.vertices.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.vertices.entry(digest.to_owned()).or_insert_with(|| {
            events.push(BuildEvent::Started { vertex: number, name: name.to_owned() });
            Known { number, round: Round::First }
        })
    }

    fn output(&mut self, log: VertexLog, events: &mut Vec<BuildEvent>) {
        let vertex = self.known(&log.vertex, &log.vertex, events).number;
        let stream = if log.stream == 2 { OutputStream::Stderr } else { OutputStream::Stdout };
        let mut rest = Bytes::from(log.msg);
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(OUTPUT_LIMIT));
            events.push(BuildEvent::Output { vertex, stream, bytes });
        }
    }

    fn end(&mut self, vertex: &Vertex, events: &mut Vec<BuildEvent>) {
        let (Some(started), Some(completed)) = (vertex.started, vertex.completed) else { return };
        let error = Some(vertex.error.clone()).filter(|error| !error.is_empty());
        let known = self.known(&vertex.digest, &vertex.name, events);
        let number = known.number;
        let end = BuildEvent::Completed {
            vertex: number,
            cached: vertex.cached,
            error: error.clone(),
            duration_ms: milliseconds(started, completed),
        };
        // Concurrent builds share vertices. If the build that started one is cancelled, the vertex is cancelled for all
        // of them, and the engine starts it again for the others.
        if error.as_ref().is_some_and(|error| error.ends_with(CANCELLED)) {
            if known.round == Round::First {
                self.cancelled.insert(number, end);
            }
            return;
        }
        known.round = match (known.round, &error) {
            (Round::First, None) => Round::Later,
            (Round::First | Round::Later, Some(_)) => Round::Failed,
            (Round::Later, None) | (Round::Failed, _) => return,
        };
        self.cancelled.remove(&number);
        events.push(end);
        if let Some(error) = error {
            self.failed.push(FailedVertex { name: vertex.name.clone(), error });
        }
    }
}

/// What a vertex loads of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    /// Loaded for each build separately.
    Configuration,
    Layers,
}

const LOADS: [(&str, Loaded); 4] = [
    ("load metadata for ", Loaded::Configuration),
    ("resolve image config for ", Loaded::Configuration),
    ("FROM ", Loaded::Layers),
    ("docker-image://", Loaded::Layers),
];

/// The image that a vertex of this name loads.
fn loaded_image(name: &str) -> Option<(Loaded, &str)> {
    // `[internal] …`, `[linux/arm64 internal] …` or `[build 1/3] …`; an instruction has its keyword after it.
    let name = match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, rest)) => rest,
        None => name,
    };
    let (what, image) =
        LOADS.iter().find_map(|(prefix, what)| Some((*what, name.strip_prefix(prefix)?)))?;
    let image = image.strip_prefix("docker-image://").unwrap_or(image);
    Some((what, image.split_whitespace().next().unwrap_or(image)))
}

/// Zero if the engine's clock went back.
fn milliseconds(from: Timestamp, to: Timestamp) -> u64 {
    let nanoseconds = |at: Timestamp| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    u64::try_from((nanoseconds(to) - nanoseconds(from)) / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn vertex(name: &str, started: Option<Timestamp>, completed: Option<Timestamp>) -> Vertex {
        Vertex {
            digest: format!("sha256:{name}"),
            name: name.to_owned(),
            started,
            completed,
            ..Vertex::default()
        }
    }

    fn report(vertexes: Vec<Vertex>, logs: &[(&str, i64, usize)]) -> StatusResponse {
        let log = |&(name, stream, length): &(&str, i64, usize)| VertexLog {
            vertex: format!("sha256:{name}"),
            stream,
            msg: vec![b'x'; length],
            ..VertexLog::default()
        };
        StatusResponse {
            vertexes,
            logs: logs.iter().map(log).collect(),
            ..StatusResponse::default()
        }
    }

    fn told(events: &[BuildEvent]) -> Vec<String> {
        let told = |event: &BuildEvent| match event {
            BuildEvent::Started { vertex, name } => format!("{vertex} begins {name}"),
            BuildEvent::Output { vertex, stream, bytes } => {
                format!("{vertex} {stream:?} {}", bytes.len())
            }
            BuildEvent::Completed { vertex, error, duration_ms, .. } => {
                format!("{vertex} ends after {duration_ms} {}", error.as_deref().unwrap_or("well"))
            }
        };
        events.iter().map(told).collect()
    }

    #[test]
    fn a_status_becomes_begin_output_and_end() {
        let mut progress = Progress::default();
        let events = progress.read(report(
            vec![vertex("a", at(1), at(3)), vertex("b", None, None)],
            &[("a", 1, 10), ("a", 2, OUTPUT_LIMIT + 1)],
        ));
        assert_eq!(
            told(&events),
            ["1 begins a", "1 Stdout 10", "1 Stderr 65536", "1 Stderr 1", "1 ends after 2000 well",]
        );
    }

    #[test]
    fn a_vertex_is_reported_once_and_again_only_on_failure() {
        let mut progress = Progress::default();
        progress.read(report(vec![vertex("a", at(1), at(2))], &[]));
        assert!(progress.read(report(vec![vertex("a", at(1), at(2))], &[])).is_empty());
        assert!(progress.read(report(vec![vertex("a", at(3), None)], &[])).is_empty());
        let failed = Vertex { error: "gone".to_owned(), ..vertex("a", at(3), at(4)) };
        let events = progress.read(report(vec![failed.clone()], &[]));
        assert_eq!(told(&events), ["1 ends after 1000 gone"]);
        assert!(progress.read(report(vec![failed], &[])).is_empty());
    }

    #[test]
    fn a_cancelled_and_repeated_vertex_is_reported_as_done() {
        let mut progress = Progress::default();
        let cancelled = Vertex {
            error: "context canceled: context canceled".to_owned(),
            ..vertex("a", at(1), at(2))
        };
        assert_eq!(told(&progress.read(report(vec![cancelled.clone()], &[]))), ["1 begins a"]);
        let events = progress.read(report(vec![vertex("a", at(3), at(5))], &[]));
        assert_eq!(told(&events), ["1 ends after 2000 well"]);
        assert!(progress.read(report(vec![cancelled], &[])).is_empty());
        assert_eq!((progress.finish(false), progress.failed()), (Vec::new(), &[][..]));
    }

    #[test]
    fn a_cancelled_vertex_is_reported_at_the_end_of_the_build() {
        for (succeeded, words) in [(false, "context canceled"), (true, "well")] {
            let mut progress = Progress::default();
            let cancelled =
                Vertex { error: "context canceled".to_owned(), ..vertex("a", at(1), at(2)) };
            progress.read(report(vec![cancelled], &[]));
            assert_eq!(told(&progress.finish(succeeded)), [format!("1 ends after 1000 {words}")]);
            assert!(progress.finish(succeeded).is_empty());
        }
    }

    #[test]
    fn failed_vertices_are_remembered_with_their_names() {
        let mut progress = Progress::default();
        let failed =
            Vertex { error: "exit code: 3".to_owned(), ..vertex("[2/2] RUN x", at(1), at(2)) };
        progress.read(report(vec![failed], &[]));
        assert_eq!(progress.failed()[0].name, "[2/2] RUN x");
    }

    #[test]
    fn unresolved_images_are_detected_in_every_form() {
        let pinned = format!("docker.io/library/busybox:1@sha256:{}", "a".repeat(64));
        let other = format!("docker.io/library/busybox:1@sha256:{}", "b".repeat(64));
        let same = format!("mirror.test/busybox@sha256:{}", "a".repeat(64));
        for name in [
            "[internal] load metadata for IMAGE",
            "[linux/arm64 internal] load metadata for IMAGE",
            "resolve image config for IMAGE",
            "resolve image config for docker-image://IMAGE",
            "docker-image://IMAGE",
            "[build 1/3] FROM IMAGE",
            "FROM IMAGE",
        ] {
            for (image, is_foreign) in [
                (pinned.as_str(), false),
                (other.as_str(), true),
                ("docker.io/library/busybox:1", true),
                (same.as_str(), false),
                ("evil.test/x@sha256:1", true),
            ] {
                let mut progress = Progress::new([pinned.parse().unwrap()].into());
                progress.read(report(vec![vertex(&name.replace("IMAGE", image), None, None)], &[]));
                let is_certain = name.contains("load metadata")
                    || name.contains("resolve")
                    || !image.contains("@sha256:b");
                let foreign = Foreign { image: image.to_owned(), is_certain };
                assert_eq!(progress.foreign(), is_foreign.then_some(&foreign), "{name}");
            }
        }
    }

    #[test]
    fn a_step_that_mentions_images_loads_none() {
        for name in [
            "[2/2] RUN echo FROM evil.test/x",
            "[build 2/2] RUN [internal] load metadata for evil.test/x",
            "[2/2] COPY --from=docker-image://x / /",
            "[internal] load build definition from Dockerfile",
            "exporting to image",
        ] {
            let mut progress = Progress::default();
            progress.read(report(vec![vertex(name, at(1), None)], &[]));
            assert_eq!(progress.foreign(), None, "{name}");
        }
    }
}
