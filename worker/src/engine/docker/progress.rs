//! Turns what the engine reports of a build into events.
//!
//! In: the engine's reports, each with any number of vertices and pieces of log. Out: events in an order that reads
//! well: a vertex begins, speaks, ends. Pure.

use std::collections::HashMap;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};
use bytes::Bytes;

use crate::engine::{BuildEvent, OutputStream};

/// The longest piece of output in one event.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// What a build has said so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    vertices: HashMap<String, Known>,
    failed: Vec<FailedVertex>,
}

/// A vertex that ended with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedVertex {
    /// `[2/3] RUN make`.
    pub(super) name: String,
    /// The engine's words.
    pub(super) error: String,
}

#[derive(Debug)]
struct Known {
    number: u32,
    round: Round,
}

/// The engine may come to a vertex several times, mostly to find it cached. Only the first time is told, and a later
/// one that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Later,
    Failed,
}

impl Progress {
    /// What `report` adds.
    pub(super) fn read(&mut self, report: StatusResponse) -> Vec<BuildEvent> {
        let mut events = Vec::new();
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

    /// The vertices that failed, in the order in which they did.
    pub(super) fn failed(&self) -> &[FailedVertex] {
        &self.failed
    }

    /// The vertex of this digest; it begins when it is seen first.
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
        known.round = match (known.round, &error) {
            (Round::First, None) => Round::Later,
            (Round::First | Round::Later, Some(_)) => Round::Failed,
            (Round::Later, None) | (Round::Failed, _) => return,
        };
        events.push(BuildEvent::Completed {
            vertex: known.number,
            cached: vertex.cached,
            error: error.clone(),
            duration_ms: milliseconds(started, completed),
        });
        if let Some(error) = error {
            self.failed.push(FailedVertex { name: vertex.name.clone(), error });
        }
    }
}

/// Zero where the engine's clock went back.
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
    fn one_report_is_told_as_begin_output_end() {
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
    fn a_vertex_is_told_once_and_again_only_when_it_fails_later() {
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
    fn failed_vertices_are_remembered_with_their_names() {
        let mut progress = Progress::default();
        let failed =
            Vertex { error: "exit code: 3".to_owned(), ..vertex("[2/2] RUN x", at(1), at(2)) };
        progress.read(report(vec![failed], &[]));
        assert_eq!(progress.failed()[0].name, "[2/2] RUN x");
    }
}
