//! Runs one build on the engine's BuildKit, and reports its progress.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, SolveRequest, SolveResponse, StatusRequest, StatusResponse,
};
use gantry_domain::image::Digest;
use gantry_ops::secret::ExposeSecret as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::archives::Archives;
use super::failure::Failure;
use super::layers::Means;
use super::progress::{Foreign, Progress};
use super::session::{Context, DOCKERFILE_FOLDER, Session};
use super::transport::{Control, Socket};
use super::{api, labels, random_id};
use crate::engine::{BuildError, BuildEvent, BuildOrder, BuiltImage, ContextStream};

/// How long the status stream may stay open after the build has ended. The engine normally closes it within
/// milliseconds.
const SILENCE: Duration = Duration::from_secs(30);

/// The exit code of a killed process: killed by the user, for lack of memory, or because the engine stops.
const KILLED: i64 = 137;

/// An engine that is stopping still answers for a moment.
const STOPPING: Duration = Duration::from_millis(500);

/// Builds `order`. Dropping the future closes all connections of the build, which makes the engine cancel it.
pub(super) async fn build(
    socket: &Socket,
    archives: &Archives,
    order: BuildOrder,
    context: ContextStream,
    events: mpsc::Sender<BuildEvent>,
) -> Result<BuiltImage, BuildError> {
    let context = Arc::new(Context::new(context));
    let _forgotten = archives.archive(context.url());
    // Opened before the build, because the engine waits only five seconds for an unknown session.
    let session = Session::open(socket, &order, context.clone()).await?;
    let mut solving = socket.control().await?;
    let reporting = socket.control().await?;

    let means = match &order.cache {
        Some(cache) => Some((Means::of(socket).await?, cache)),
        None => None,
    };
    let cache = means.map_or_else(CacheOptions::default, |(means, cache)| means.options(cache));
    let request = request(&order, session.id(), &context.url(), cache)?;
    let report = StatusRequest { r#ref: request.r#ref.clone() };
    let (solved, foreign) = (CancellationToken::new(), CancellationToken::new());
    let solve = async {
        let answer = tokio::select! {
            answer = solving.client.solve(request) => answer,
            () = foreign.cancelled() => Err(Status::cancelled("the build loads what it may not")),
        };
        solved.cancel();
        answer
    };
    let progress = Progress::new(order.bases.clone());
    let following = follow(reporting, report, progress, &solved, &foreign, &events);
    let (answer, (mut progress, report_end)) = tokio::join!(solve, following);
    drop(session);
    tell(&events, progress.finish(answer.is_ok())).await;

    if let Some(foreign) = progress.foreign() {
        return Err(loads_foreign(foreign));
    }
    match answer {
        Ok(answer) => match report_end {
            ReportEnd::Complete => {
                let mut image = image_of(&answer.into_inner())?;
                if let Some((means, cache)) = means {
                    image.uncached = means.keep(socket, &order, cache).await;
                }
                Ok(image)
            }
            // The missing part may have reported an image that the build must not load.
            ReportEnd::BrokeOff { why } => {
                let message = format!(
                    "the engine's report of the build was cut off, so which images it loaded is not known: {why}"
                );
                Err(BuildError::Unavailable { message })
            }
        },
        Err(status) => Err(match context.take_error() {
            Some(source) => BuildError::Context { source },
            None => failure(socket, &status, &progress).await,
        }),
    }
}

fn loads_foreign(Foreign { image, is_certain }: &Foreign) -> BuildError {
    if *is_certain {
        let message = format!(
            "it loads the image {image}, which the Dockerfile does not name where gantry reads it: name it in FROM, `COPY --from=` or `RUN --mount=from=`, and not in ONBUILD of a base"
        );
        return BuildError::Refused { message };
    }
    let message = format!(
        "it loads the image {image}, which the Dockerfile does not name where gantry reads it, or another build does at this time"
    );
    BuildError::Unavailable { message }
}

/// How the status stream of a build ended.
enum ReportEnd {
    Complete,
    BrokeOff { why: String },
}

/// Forwards the status stream until it ends. A full channel applies backpressure, and the engine buffers the rest: it
/// truncates the log of each step, so this is bounded too. Cancels `foreign` if the build loads an image that it must
/// not.
async fn follow(
    mut engine: Control,
    request: StatusRequest,
    mut progress: Progress,
    solved: &CancellationToken,
    foreign: &CancellationToken,
    events: &mpsc::Sender<BuildEvent>,
) -> (Progress, ReportEnd) {
    let mut report = match engine.client.status(request).await {
        Ok(report) => report.into_inner(),
        Err(status) => return (progress, broke_off(&status)),
    };
    loop {
        let said = match next(&mut report, solved).await {
            Ok(Some(report)) => progress.read(report),
            Ok(None) => return (progress, ReportEnd::Complete),
            Err(status) => return (progress, broke_off(&status)),
        };
        if progress.foreign().is_some() {
            foreign.cancel();
        }
        tell(events, said).await;
    }
}

async fn tell(listener: &mpsc::Sender<BuildEvent>, events: Vec<BuildEvent>) {
    for event in events {
        // Without a listener the build continues, because the names of its steps are still needed.
        let _gone = listener.send(event).await;
    }
}

async fn next(
    report: &mut Streaming<StatusResponse>,
    solved: &CancellationToken,
) -> Result<Option<StatusResponse>, Status> {
    let silent = async {
        solved.cancelled().await;
        tokio::time::sleep(SILENCE).await;
    };
    tokio::select! {
        read = report.message() => read,
        () = silent => Err(Status::deadline_exceeded("the engine did not end it")),
    }
}

fn broke_off(status: &Status) -> ReportEnd {
    tracing::warn!(%status, "the engine's report of a build was cut off");
    ReportEnd::BrokeOff { why: status.message().to_owned() }
}

/// Build arguments that would break gantry's guarantees, with an alternative.
const OWN_ARGS: [(&str, &str); 3] = [
    // Newer engines prefer it over the attribute `hostname`, which isolates builds.
    ("BUILDKIT_SANDBOX_HOSTNAME", "leave it out"),
    // It names an image that is not resolved and pinned.
    ("BUILDKIT_SYNTAX", "write `# syntax=IMAGE` as the first line of the Dockerfile"),
    // It produces an index of one image, and the configuration could not be compared with what was pushed.
    ("BUILDKIT_MULTI_PLATFORM", "leave it out"),
];

/// The engine has one namespace of `RUN --mount=type=cache` folders; this selects a part of it.
const CACHE_MOUNTS_ARG: &str = "BUILDKIT_CACHE_MOUNT_NS";

fn request(
    order: &BuildOrder,
    session: &str,
    context: &str,
    cache: CacheOptions,
) -> Result<SolveRequest, BuildError> {
    let given = |name: &str| {
        order.build_args.contains_key(name) || order.secret_build_args.contains_key(name)
    };
    if let Some((name, remedy)) = OWN_ARGS.iter().find(|(name, _)| given(name)) {
        let message = format!("the build argument {name} is gantry's own: {remedy}");
        return Err(BuildError::Refused { message });
    }
    Ok(SolveRequest {
        r#ref: random_id(),
        session: session.to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: attributes(order, context),
        // Docker Engine 20.10 only knows these fields; newer engines accept them too.
        exporter_deprecated: "moby".to_owned(),
        exporter_attrs_deprecated: HashMap::from([("name".to_owned(), order.image.to_string())]),
        cache: Some(cache),
        ..SolveRequest::default()
    })
}

fn attributes(order: &BuildOrder, context: &str) -> HashMap<String, String> {
    let mut attributes = HashMap::from([
        ("context".to_owned(), context.to_owned()),
        ("dockerfilekey".to_owned(), DOCKERFILE_FOLDER.to_owned()),
        ("platform".to_owned(), order.platform.to_string()),
        // Part of every step's cache key, but not of the image. Steps that must not share a result have different ones.
        ("hostname".to_owned(), order.isolation.clone()),
        ("image-resolve-mode".to_owned(), resolve_mode(order).to_owned()),
    ]);
    attributes.extend(order.frontend.clone());
    let mut set = |kind: &str, key: &str, value: &str| {
        attributes.insert(format!("{kind}:{key}"), value.to_owned());
    };
    for (key, value) in &order.build_args {
        set("build-arg", key, value);
    }
    for (key, value) in &order.secret_build_args {
        set("build-arg", key, value.expose_secret());
    }
    // A build may write anything into a cache folder, so only builds that may share steps share these folders.
    let part = order.build_args.get(CACHE_MOUNTS_ARG).map_or("", String::as_str);
    set("build-arg", CACHE_MOUNTS_ARG, &format!("{}-{part}", order.isolation));
    for (key, value) in &order.labels {
        set("label", key, value);
    }
    for (key, value) in labels::of(order) {
        set("label", key, &value);
    }
    if let Some(target) = &order.target {
        attributes.insert("target".to_owned(), target.clone());
    }
    if !order.has_frontend {
        // The engine sets this for an image that reads the Dockerfile. With it, no other frontend is looked up.
        attributes.insert("cmdline".to_owned(), "dockerfile.v0".to_owned());
    }
    if order.no_cache {
        attributes.insert("no-cache".to_owned(), String::new());
    }
    if let Some(cache) = &order.cache {
        attributes.insert("cache-from".to_owned(), cache.to_string());
    }
    attributes
}

/// Bases come from their registry; an image of that name in this engine may be somebody else's. If an earlier step has
/// built one of them, the engine looks for all of them in itself first: the others are pinned by their digests.
fn resolve_mode(order: &BuildOrder) -> &'static str {
    if order.has_local_base { "local" } else { "pull" }
}

/// Newer engines return the digest of the configuration in addition to that of the manifest; Docker Engine 20.10
/// returns only the former, under the name of the latter. The containerd image store may also return an index of
/// several manifests, for example with attestations, which has no configuration.
fn image_of(answer: &SolveResponse) -> Result<BuiltImage, BuildError> {
    let told = |key: &str| answer.exporter_response.get(key)?.parse::<Digest>().ok();
    let has_manifest = answer.exporter_response.contains_key("containerimage.descriptor");
    let only = || if has_manifest { None } else { told("containerimage.digest") };
    let config = told("containerimage.config.digest").or_else(only);
    config.map(|config| BuiltImage { config, uncached: None }).ok_or_else(|| {
        let message = "the result is not a single image: gantry builds for one platform, without attestations; check what the frontend of the `# syntax=` line makes".to_owned();
        BuildError::Refused { message }
    })
}

async fn failure(socket: &Socket, status: &Status, progress: &Progress) -> BuildError {
    match Failure::read(status, progress.failed()) {
        Failure::Exit { step, code: KILLED } => {
            tokio::time::sleep(STOPPING).await;
            match api::info(socket).await {
                Ok(_) => BuildError::StepFailed { step, exit_code: KILLED },
                Err(gone) => gone.into(),
            }
        }
        Failure::Exit { step, code } => BuildError::StepFailed { step, exit_code: code },
        Failure::DiskFull { message } => BuildError::DiskFull { message },
        Failure::Unavailable { message } => BuildError::Unavailable { message },
        Failure::Gone => socket.unreachable(status.to_string()).into(),
        Failure::Refused { message } => BuildError::Refused { message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(told: &[(&str, &str)]) -> SolveResponse {
        let told = told.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        SolveResponse { exporter_response: told.collect() }
    }

    #[test]
    fn an_image_is_identified_by_its_configuration() {
        let (config, manifest) =
            (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        let old = answer(&[("containerimage.digest", &config)]);
        let newer = answer(&[
            ("containerimage.config.digest", &config),
            ("containerimage.digest", &manifest),
            ("containerimage.descriptor", "e30="),
        ]);
        for answer in [old, newer] {
            assert_eq!(image_of(&answer).unwrap().config.as_str(), config);
        }
        let index =
            answer(&[("containerimage.digest", &manifest), ("containerimage.descriptor", "e30=")]);
        let error = image_of(&index).unwrap_err();
        assert!(
            matches!(&error, BuildError::Refused { message } if message.contains("attestations"))
        );
    }
}
