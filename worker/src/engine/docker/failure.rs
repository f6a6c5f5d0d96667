//! Interprets the engine's error of a failed build.
//!
//! In: the gRPC status and the failed vertices. Out: one [`Failure`]. Pure: the caller checks whether the engine is
//! still running.

use bollard_buildkit_proto::google::rpc;
use prost::Message as _;
use tonic::{Code, Status};

use super::progress::{CANCELLED, FailedVertex};

/// Why a build failed, according to the engine's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The process of a step exited with this code.
    Exit { step: String, code: i64 },
    /// The engine's disk is full.
    DiskFull { message: String },
    /// A registry or server could not provide what the build needs.
    Unavailable { message: String },
    /// The connection was lost, or the engine cancelled the build because it is stopping.
    Gone,
    /// The engine refused the build.
    Refused { message: String },
}

/// Messages of temporary errors of registries and networks. Permanent ones are not included, such as an untrusted
/// certificate, even though the engine prefixes them with the same words.
const PASSING: [&str; 16] = [
    "connection refused",
    "connection reset",
    "no route to host",
    "network is unreachable",
    "no such host",
    "i/o timeout",
    "TLS handshake timeout",
    "context deadline exceeded",
    "failed to copy: http",
    "invalid response status 5",
    "toomanyrequests",
    "429 Too Many Requests",
    "500 Internal Server Error",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway Time",
];

/// The engine's prefixes, which are of no use to people.
const WRAPPINGS: [&str; 5] = [
    "failed to solve with frontend dockerfile.v0: ",
    "failed to solve: ",
    "failed to build LLB: ",
    "failed to create LLB definition: ",
    "rpc error: code = Unknown desc = ",
];

impl Failure {
    /// Interprets `status`; `failed` has the names of the steps.
    pub(super) fn read(status: &Status, failed: &[FailedVertex]) -> Self {
        // A status sent by the engine has no source; one with a source is an error of the connection.
        if std::error::Error::source(status).is_some() {
            return Self::Gone;
        }
        let message = plain(status.message());
        // The exit code comes first, because the message quotes the step's command, which may contain anything.
        if let Some(code) = exit_code(status) {
            return Self::Exit { step: step(&message, failed), code };
        }
        // gantry never cancels a build that it waits for. So the engine is stopping, or has lost the session.
        let stopped =
            matches!(status.code(), Code::Cancelled | Code::Unavailable | Code::DeadlineExceeded);
        if stopped || message.ends_with(CANCELLED) || message.contains("no active session") {
            return Self::Gone;
        }
        if message.contains("no space left on device") {
            return Self::DiskFull { message };
        }
        // Observed with the containerd image store when builds run concurrently. It does not name anything of the
        // user's, so the build is retried. The cause in the store is not known.
        if message == "not found" {
            return Self::Unavailable { message };
        }
        // It may quote anything from the file: `unknown instruction: EOF`.
        if message.starts_with("dockerfile parse error") {
            return Self::Refused { message };
        }
        if is_passing(&message) {
            return Self::Unavailable { message };
        }
        Self::Refused { message }
    }
}

/// Whether a message of the engine is about a temporary error of a registry or network.
pub(super) fn is_passing(message: &str) -> bool {
    PASSING.iter().any(|text| message.contains(text)) || message.ends_with(": EOF")
}

fn plain(message: &str) -> String {
    let mut rest = message;
    while let Some(inner) = WRAPPINGS.iter().find_map(|wrapping| rest.strip_prefix(wrapping)) {
        rest = inner;
    }
    rest.to_owned()
}

/// Newer engines return the code as a detail, Docker Engine 20.10 only at the end of its message.
fn exit_code(status: &Status) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct ExitMessage {
        #[serde(rename = "Code")]
        code: i64,
    }

    let details =
        rpc::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    let detailed = details
        .iter()
        .filter(|detail| detail.type_url.ends_with("gatewayapi.ExitMessage+json"))
        .find_map(|detail| serde_json::from_slice::<ExitMessage>(&detail.value).ok())
        .map(|message| message.code);
    detailed.or_else(|| exit_code_in_words(status.message()))
}

fn exit_code_in_words(message: &str) -> Option<i64> {
    let (_, code) = message.rsplit_once("exit code: ")?;
    code.trim_end().parse().ok()
}

/// The name of the failed step: the failed vertex that the message quotes, otherwise the last one.
fn step(message: &str, failed: &[FailedVertex]) -> String {
    failed
        .iter()
        .find(|vertex| message.ends_with(&plain(&vertex.error)))
        .or_else(|| failed.last())
        .map_or_else(|| "a step".to_owned(), |vertex| vertex.name.clone())
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::google::protobuf::Any;

    use super::*;

    fn read(message: &str) -> Failure {
        Failure::read(&Status::unknown(message), &[])
    }

    #[test]
    fn an_old_engine_reports_the_exit_code_in_its_message() {
        let error =
            "executor failed running [/bin/sh -c echo exit code: 7; exit 42]: exit code: 42";
        let failed = [FailedVertex { name: "[3/3] RUN b".to_owned(), error: error.to_owned() }];
        let status = Status::unknown(format!(
            "failed to solve with frontend dockerfile.v0: failed to build LLB: {error}"
        ));
        assert_eq!(
            Failure::read(&status, &failed),
            Failure::Exit { step: "[3/3] RUN b".to_owned(), code: 42 }
        );
    }

    #[test]
    fn a_newer_engine_reports_the_exit_code_as_a_detail() {
        let detail = Any {
            type_url: "github.com/moby/buildkit/gatewayapi.ExitMessage+json".to_owned(),
            value: br#"{"Code":9}"#.to_vec(),
        };
        let details =
            rpc::Status { details: vec![detail], ..rpc::Status::default() }.encode_to_vec();
        let status = Status::with_details(Code::Unknown, "did not complete", details.into());
        assert_eq!(
            Failure::read(&status, &[]),
            Failure::Exit { step: "a step".to_owned(), code: 9 }
        );
    }

    #[test]
    fn a_command_that_quotes_an_error_is_still_a_failed_step() {
        let message =
            "executor failed running [/bin/sh -c echo no space left on device]: exit code: 1";
        assert!(matches!(read(message), Failure::Exit { code: 1, .. }));
    }

    #[test]
    fn temporary_and_permanent_errors_are_distinguished() {
        let disk = "failed to solve: write /var/lib/docker/x: no space left on device";
        assert!(matches!(read(disk), Failure::DiskFull { .. }));
        let base = "failed to solve: failed to do request: Head \"http://r/v2/\": dial tcp: connection refused";
        assert!(matches!(read(base), Failure::Unavailable { .. }));
        assert!(matches!(read("failed to solve: not found"), Failure::Unavailable { .. }));
        let heredoc = "dockerfile parse error line 5: unknown instruction: EOF";
        assert!(matches!(read(heredoc), Failure::Refused { .. }));
        let untrusted = "failed to do request: Head \"https://r/v2/\": x509: certificate signed by unknown authority";
        assert!(matches!(read(untrusted), Failure::Refused { .. }));
        assert_eq!(read("failed to solve: context canceled"), Failure::Gone);
        assert_eq!(Failure::read(&Status::unavailable("transport is closing"), &[]), Failure::Gone);
        assert_eq!(
            read(
                "failed to solve with frontend dockerfile.v0: failed to create LLB definition: unknown instruction: FORM"
            ),
            Failure::Refused { message: "unknown instruction: FORM".to_owned() }
        );
    }
}
