//! Tests of a real engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::models::ImageInspect;
use gantry_ops::secret::{Credentials, SecretString};
use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::{
    BuildError, BuildEvent, BuildOrder, Engine, EngineError, Leftover, LeftoverKind, OutputStream,
    PushError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::made;
use crate::rig::{Recipe, Rig, Told, build, context, order, tar};
use crate::tested::{Tested, on_each_engine, registry, setting};

on_each_engine! {
    a_build_that_loads_an_image_that_was_not_resolved_is_stopped,
    pinned_images_may_be_loaded_anywhere,
    an_unresolved_frontend_is_not_used,
    arguments_labels_and_target_are_in_the_image,
    output_streams_are_distinguished,
    a_second_equal_build_is_cached_and_one_without_cache_is_not,
    a_secret_is_seen_by_the_step_that_mounts_it,
    concurrent_builds_of_one_dockerfile_each_see_their_own_secret,
    reserved_build_arguments_are_refused,
    steps_run_under_the_isolation_as_host_name_and_the_image_does_not_tell,
    a_wrong_order_is_refused_with_the_engines_message,
    a_step_that_kills_itself_is_a_user_failure,
    an_unreachable_base_registry_is_transient,
    a_local_image_does_not_replace_the_registrys,
    a_broken_context_is_not_an_engine_failure,
    the_pushed_configuration_is_the_built_one,
    pushing_to_an_absent_registry_fails,
    an_image_derived_by_a_user_is_no_leftover,
    heredocs_work_or_are_refused_by_old_engines,
    copy_link_works_or_is_refused_by_old_engines,
    no_external_program_is_called,
}

/// These take seconds each. `make test-engines` runs them on every engine.
mod long {
    use super::*;

    on_each_engine! { slow on the default engine:
        a_repacked_context_equals_the_original_archive,
        a_truncated_log_says_so,
        every_form_of_context_is_recognized,
        context_archives_are_removed_from_the_engine,
        an_image_pulled_by_digest_is_removed_as_leftover,
        leftovers_are_found_while_images_come_and_go,
        a_pushed_image_that_lost_its_tag_to_the_next_attempt_is_removed_at_once,
        a_syntax_line_loads_the_frontend_from_its_registry,
        a_cache_folder_is_found_again_only_under_the_same_isolation,
    }
}

pub(crate) fn nothing() -> Vec<u8> {
    tar(&[("empty", b"")])
}

async fn inspect(on: Tested, order: &BuildOrder) -> ImageInspect {
    let docker = on.api();
    docker.inspect_image(&order.image.to_string()).await.unwrap()
}

/// Whether the engine uses the containerd image store.
async fn has_containerd_store(on: Tested) -> bool {
    let docker = on.api();
    let status = docker.info().await.unwrap().driver_status.unwrap_or_default();
    status.iter().flatten().any(|word| word.contains("containerd.snapshotter"))
}

pub(crate) struct Real(pub(crate) Tested);

impl Rig for Real {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(self.0.engine())
    }

    fn order(&self, recipe: Recipe) -> BuildOrder {
        match recipe {
            Recipe::Says(text) => self.0.busybox(&format!("COPY hello.txt /\nRUN echo {text}")),
            Recipe::SaysMuch { bytes } => {
                // Slower than 200 KiB/s, the limit above which the engine drops output.
                let (rounds, line) = (bytes / 25_000, "y".repeat(99));
                self.0.busybox(&format!(
                    "RUN for i in $(seq {rounds}); do yes {line} | head -c 25000; sleep 0.15; done"
                ))
            }
            Recipe::Hangs => {
                let mut order = self.0.busybox("ARG MARK\nRUN echo waiting; sleep $MARK");
                order.build_args.insert("MARK".to_owned(), mark(&order));
                order
            }
            Recipe::Exits(code) => self.0.busybox(&format!("RUN echo sorry >&2; exit {code}")),
            Recipe::Nonsense => self.0.busybox("FORM scratch"),
        }
    }

    fn runs(&self, order: &BuildOrder) -> bool {
        is_running(&mark(order))
    }
}

/// A number of seconds for `sleep` that no other order uses.
fn mark(order: &BuildOrder) -> String {
    format!("7{}", order.run.number())
}

/// Whether a process of this machine has `word` as its last argument.
pub(crate) fn is_running(word: &str) -> bool {
    let ends_so = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command
            .strip_suffix(b"\0")
            .is_some_and(|line| line.ends_with(format!("\0{word}").as_bytes()))
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(ends_so)
}

async fn a_build_that_loads_an_image_that_was_not_resolved_is_stopped(on: Tested) {
    let mut order = on.busybox("RUN true");
    order.bases.clear();
    let error = build(&on.engine(), order, context(nothing())).await.0.unwrap_err();
    assert!(error.to_string().contains("busybox"), "{error:?}");
    let BuildError::Refused { message } = error else { panic!("{error:?}") };
    assert!(
        message.contains("which the Dockerfile does not name where gantry reads it"),
        "{message}"
    );
}

async fn pinned_images_may_be_loaded_anywhere(on: Tested) {
    let pinned = setting("GANTRY_TEST_BASE_IMAGE").unwrap();
    let dockerfile = format!(
        "FROM {pinned} AS a\nCOPY --from={pinned} /bin /bin2\nRUN --mount=from={pinned},target=/b true\n"
    );
    let mut order = order(&registry(), &dockerfile);
    made::remember(on, &order);
    order.bases = [pinned.parse().unwrap()].into();
    build(&on.engine(), order, context(nothing())).await.0.unwrap();
}

async fn an_unresolved_frontend_is_not_used(on: Tested) {
    let mut order = on.busybox("RUN true");
    order.dockerfile.insert_str(0, "# syntax=127.0.0.1:1/no/frontend\n");
    build(&on.engine(), order, context(nothing())).await.0.unwrap();
}

async fn arguments_labels_and_target_are_in_the_image(on: Tested) {
    let mut order = on.busybox(
        "ARG WHO\nRUN echo \"hello $WHO\" > /who\nFROM scratch AS wanted\nCOPY --from=0 /who /\nFROM scratch\nCOPY missing /",
    );
    order.build_args.insert("WHO".to_owned(), "world, with a \"quote\" and ü".to_owned());
    order.labels = BTreeMap::from([(
        "org.opencontainers.image.source".to_owned(),
        "https://git.test/a?b=c,d".to_owned(),
    )]);
    order.target = Some("wanted".to_owned());
    let built = build(&on.engine(), order.clone(), context(nothing())).await.0.unwrap();

    let image = inspect(on, &order).await;
    // The image id is the digest of the configuration in the classic image store, and that of the manifest in
    // containerd's.
    assert_eq!(image.id.as_deref() == Some(built.config.as_str()), !has_containerd_store(on).await);
    assert_eq!(image.os.as_deref(), Some(order.platform.os()));
    assert_eq!(image.architecture.as_deref(), Some("amd64"));
    let labels = image.config.unwrap().labels.unwrap();
    assert_eq!(labels["org.opencontainers.image.source"], "https://git.test/a?b=c,d");
    assert_eq!(labels["gantry.installation"], order.installation);
    assert_eq!(labels["gantry.run"], order.run.to_string());
    assert_eq!(labels["gantry.attempt"], "1");
}

/// What a build sees of a context, and what it copies into the image.
async fn seen(on: Tested, context_of: gantry_worker::engine::ContextStream) -> String {
    let listing = "find . -exec stat -c '%n %f %s %Y %t %T %h' {} + | sort; find . -type f | sort | xargs md5sum";
    let mut order = on.busybox(&format!("COPY . /copied\nRUN cd /copied && {listing}"));
    order.no_cache = true;
    let (built, told) = build(&on.engine(), order, context_of).await;
    built.unwrap();
    let output = told.output(OutputStream::Stdout);
    // The engine creates the root folder, and sets the times of folders without an entry in the tar.
    output.lines().filter(|line| !line.starts_with(". ")).collect::<Vec<_>>().join("\n")
}

async fn a_repacked_context_equals_the_original_archive(on: Tested) {
    let folder = tempfile::TempDir::new().unwrap();
    let script = "umask 022; mkdir shared tmp; echo x >setuid; chmod 4755 setuid; ln setuid second; \
        chmod 2775 shared; chmod 1777 tmp; echo old >shared/old; chmod 0600 shared/old; touch -d 1971-02-03 shared/old; \
         touch -d 1975-02-03 shared tmp; ln -s nowhere link; \
        touch -h -d 2001-01-01 link; mkfifo fifo; \
        mknod null c 1 3 2>/dev/null; touch -d 2002-01-01 setuid";
    let made = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(made.success());
    // Without sparse files, which Docker 20.10 refuses when it unpacks an archive.
    for format in ["--format=ustar", "--format=gnu", "--format=posix"] {
        let archive = std::process::Command::new("tar")
            .args(["-c", format, "--owner=0", "--group=0", "-f", "-", "."])
            .current_dir(folder.path())
            .output()
            .unwrap()
            .stdout;
        let limits = gantry_worker::source::UnpackLimits {
            archive_bytes: 1 << 20,
            unpacked_bytes: 1 << 20,
            entries: 100,
        };
        let checkout = gantry_worker::source::unpack(
            std::io::Cursor::new(archive.clone()),
            tempfile::TempDir::new().unwrap(),
            limits,
            tokio::time::Instant::now() + Duration::from_secs(20),
        )
        .await
        .unwrap();
        let ours = seen(on, checkout.pack(gantry_taskfile::ignore::Ignore::default())).await;
        let engines = seen(on, context(archive)).await;
        assert_eq!(ours, engines, "{format}");
        assert!(ours.contains("./setuid 89ed 2 1009843200 0 0 2"), "{ours}");
    }
}

async fn output_streams_are_distinguished(on: Tested) {
    let order = on.busybox("RUN echo out; echo err >&2");
    let (built, told) = build(&on.engine(), order, context(nothing())).await;
    built.unwrap();
    assert_eq!(told.output(OutputStream::Stdout), "out\n");
    assert_eq!(told.output(OutputStream::Stderr), "err\n");
}

async fn a_truncated_log_says_so(on: Tested) {
    let order = on.busybox("RUN yes | head -c 6000000");
    let (built, told) = build(&on.engine(), order, context(nothing())).await;
    built.unwrap();
    let log = told.output(OutputStream::Stdout) + &told.output(OutputStream::Stderr);
    assert!(log.contains("[output clipped"), "{} bytes", log.len());
}

async fn a_second_equal_build_is_cached_and_one_without_cache_is_not(on: Tested) {
    // A base that no other build uses: while several builds load the same base for the first time, the containerd
    // store's BuildKit does not find the cache for it.
    let base = on.busybox("RUN echo base");
    build(&on.engine(), base.clone(), context(nothing())).await.0.unwrap();
    on.engine().push(&base.image, None).await.unwrap();
    let mut order = order(&registry(), &format!("FROM {}\nRUN echo once\n", base.image));
    made::remember(on, &order);

    let ran = |told: &Told| told.output(OutputStream::Stdout).contains("once");
    let (_, told) = build(&on.engine(), order.clone(), context(nothing())).await;
    assert!(ran(&told));
    let (_, told) = build(&on.engine(), order.clone(), context(nothing())).await;
    let cached = |event: &BuildEvent| matches!(event, BuildEvent::Completed { cached: true, .. });
    assert!(!ran(&told) && told.events.iter().any(cached), "{told:?}");
    order.no_cache = true;
    let (_, told) = build(&on.engine(), order, context(nothing())).await;
    assert!(ran(&told));
}

fn with_secret(on: Tested, secret: &str) -> BuildOrder {
    let mut order = on.busybox(
        "ARG TOKEN\nRUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN; echo; sleep 1; cat /run/secrets/TOKEN > /kept",
    );
    order.secret_build_args.insert("TOKEN".to_owned(), SecretString::from(secret));
    order
}

async fn a_secret_is_seen_by_the_step_that_mounts_it(on: Tested) {
    let (built, told) = build(&on.engine(), with_secret(on, "s3cret"), context(nothing())).await;
    built.unwrap();
    assert_eq!(told.output(OutputStream::Stdout), "s3cret\n");
}

async fn concurrent_builds_of_one_dockerfile_each_see_their_own_secret(on: Tested) {
    // Not a build argument: with equal arguments the steps differ only in their isolation.
    let with = |secret: &str| {
        let mut order = on.busybox(
            "RUN --mount=type=secret,id=KEY cat /run/secrets/KEY; sleep 1; cat /run/secrets/KEY > /key",
        );
        order.dockerfile = order.dockerfile.replace("KEY", "key");
        order.secret_build_args.insert("key".to_owned(), SecretString::from(secret));
        order
    };
    let (one, two) = (with("first"), with("second"));
    assert_eq!(one.dockerfile, two.dockerfile);
    let engine = on.engine();
    let ((first, told_one), (second, told_two)) = tokio::join!(
        build(&engine, one.clone(), context(nothing())),
        build(&engine, two.clone(), context(nothing())),
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(told_one.output(OutputStream::Stdout), "first");
    assert_eq!(told_two.output(OutputStream::Stdout), "second");
    assert_ne!(first.config, second.config);
    for (order, secret) in [(one, "first"), (two, "second")] {
        assert_eq!(read_back(on, &order, "/key").await, secret);
    }
}

/// The content of a file in the image that was built for `order`.
async fn read_back(on: Tested, order: &BuildOrder, path: &str) -> String {
    let docker = on.api();
    let config = bollard::models::ContainerCreateBody {
        image: Some(order.image.to_string()),
        cmd: Some(vec!["true".to_owned()]),
        ..Default::default()
    };
    let name = None::<bollard::query_parameters::CreateContainerOptions>;
    let container = docker.create_container(name, config).await.unwrap().id;
    let options = bollard::query_parameters::DownloadFromContainerOptionsBuilder::default()
        .path(path)
        .build();
    let archive = docker.download_from_container(&container, Some(options));
    let archive: Vec<_> = futures_util::TryStreamExt::try_collect(archive).await.unwrap();
    let archive = archive.concat();
    let mut header = [0; 512];
    header.copy_from_slice(&archive[..512]);
    let size = usize::from_str_radix(str::from_utf8(&header[124..135]).unwrap(), 8).unwrap();
    let text = String::from_utf8(archive[512..512 + size].to_vec()).unwrap();
    on.engine()
        .remove(&gantry_worker::engine::Leftover {
            kind: gantry_worker::engine::LeftoverKind::Container,
            id: container,
            owner: None,
        })
        .await
        .unwrap();
    text
}

async fn reserved_build_arguments_are_refused(on: Tested) {
    for (name, value) in [
        ("BUILDKIT_SANDBOX_HOSTNAME", "elsewhere"),
        ("BUILDKIT_SYNTAX", "127.0.0.2:5000/frontend"),
        ("BUILDKIT_MULTI_PLATFORM", "1"),
    ] {
        let mut order = on.busybox("RUN hostname");
        order.build_args.insert(name.to_owned(), value.to_owned());
        let error = build(&on.engine(), order, context(nothing())).await.0.unwrap_err();
        assert!(
            matches!(&error, BuildError::Refused { message } if message.contains(name)),
            "{error:?}"
        );
    }
}

async fn steps_run_under_the_isolation_as_host_name_and_the_image_does_not_tell(on: Tested) {
    let order = on.busybox("RUN hostname");
    let (_, told) = build(&on.engine(), order.clone(), context(nothing())).await;
    assert_eq!(told.output(OutputStream::Stdout).trim(), order.isolation);
    let image = inspect(on, &order).await;
    assert!(!format!("{:?}", image.config).contains(&format!("{:?}", order.isolation)));
}

async fn a_cache_folder_is_found_again_only_under_the_same_isolation(on: Tested) {
    let order =
        on.busybox("ARG ROUND\nRUN --mount=type=cache,target=/kept ls /kept; touch /kept/$ROUND");
    let listed = async |round: &str, isolation: &str| {
        let mut order = order.clone();
        order.build_args.insert("ROUND".to_owned(), round.to_owned());
        order.isolation = isolation.to_owned();
        build(&on.engine(), order, context(nothing())).await.1.output(OutputStream::Stdout)
    };
    let (ours, theirs) = (&order.isolation, format!("{}-else", order.isolation));
    assert_eq!(listed("one", ours).await, "");
    assert_eq!(listed("two", &theirs).await, "");
    assert_eq!(listed("three", ours).await, "one\n");
}

async fn refused_words(on: Tested, order: BuildOrder) -> String {
    let error = build(&on.engine(), order, context(nothing())).await.0.unwrap_err();
    let BuildError::Refused { message } = error else { panic!("{error:?}") };
    message
}

async fn a_wrong_order_is_refused_with_the_engines_message(on: Tested) {
    let said = refused_words(on, on.busybox("COPY not-there.txt /")).await;
    assert!(said.contains("not-there.txt") && said.contains("not found"), "{said}");
    let said = refused_words(on, order(&registry(), "")).await;
    assert!(said.contains("empty"), "{said}");
    let mut wrong_target = on.busybox("");
    wrong_target.target = Some("nowhere".to_owned());
    let said = refused_words(on, wrong_target).await;
    assert!(said.contains("nowhere"), "{said}");
}

async fn a_step_that_kills_itself_is_a_user_failure(on: Tested) {
    let order = on.busybox("RUN sh -c 'kill -9 $$'; exit $?");
    let error = build(&on.engine(), order, context(nothing())).await.0.unwrap_err();
    assert!(matches!(error, BuildError::StepFailed { exit_code: 137, .. }), "{error:?}");
}

async fn an_unreachable_base_registry_is_transient(on: Tested) {
    let order = order(&registry(), "FROM 127.0.0.1:1/base:1\n");
    let error = build(&on.engine(), order, context(nothing())).await.0.unwrap_err();
    assert!(matches!(error, BuildError::Unavailable { .. }), "{error:?}");
    assert!(error.is_transient());
}

async fn a_local_image_does_not_replace_the_registrys(on: Tested) {
    let local = on.busybox("RUN touch /local");
    build(&on.engine(), local.clone(), context(nothing())).await.0.unwrap();
    // The image is not in the registry, but in the engine.
    let order = order(&registry(), &format!("FROM {}\n", local.image));
    let error = build(&on.engine(), order, context(nothing())).await.0.unwrap_err();
    assert!(matches!(error, BuildError::Refused { .. }), "{error:?}");
}

async fn built_from(on: Tested, archive: Vec<u8>) -> Result<String, BuildError> {
    let order = on.busybox("COPY . /all\nRUN find /all | sort");
    let (built, told) = build(&on.engine(), order, context(archive)).await;
    built.map(|_| told.output(OutputStream::Stdout).replace('\n', " "))
}

async fn every_form_of_context_is_recognized(on: Tested) {
    let plain = tar(&[("a/b.txt", b"b"), ("c", b"c")]);
    assert_eq!(built_from(on, plain.clone()).await.unwrap(), "/all /all/a /all/a/b.txt /all/c ");

    let mut compressed = async_compression::tokio::write::GzipEncoder::new(Vec::new());
    compressed.write_all(&plain).await.unwrap();
    compressed.shutdown().await.unwrap();
    let compressed = compressed.into_inner();
    assert_eq!(built_from(on, compressed).await.unwrap(), "/all /all/a /all/a/b.txt /all/c ");

    assert_eq!(built_from(on, vec![0; 1024]).await.unwrap(), "/all ");
    assert_eq!(built_from(on, Vec::new()).await.unwrap(), "/all ");

    // Its first entry is a header for a long name.
    let name = format!("{}end", "long/".repeat(60));
    let mut builder = tokio_tar::Builder::new(Vec::new());
    let mut header = tokio_tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, &name, b"x".as_slice()).await.unwrap();
    let long = builder.into_inner().await.unwrap();
    assert!(built_from(on, long).await.unwrap().contains(&name));
}

async fn context_archives_are_removed_from_the_engine(on: Tested) {
    const SIZE: usize = 777_777;
    let archive = tar(&[("a", &vec![b'a'; SIZE])]);
    let engine = on.engine();
    build(&engine, on.busybox("COPY a /"), context(archive.clone())).await.0.unwrap();
    build(&engine, on.busybox("COPY a /\nRUN false"), context(archive)).await.0.unwrap_err();

    assert!(cached(on, SIZE, |text| !text.starts_with(ARCHIVE)) > 0, "its files are cached");
    // The cache is pruned some seconds after the builds, once for both, and in the background.
    let deadline = Instant::now() + Duration::from_secs(120);
    while cached(on, SIZE, |text| text.starts_with(ARCHIVE)) > 0 {
        assert!(Instant::now() < deadline, "the archive stays");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The description of a context's archive in the engine's build cache.
const ARCHIVE: &str = "http url";

/// The number of cache records of about this size whose description matches.
fn cached(on: Tested, size: usize, is_meant: fn(&str) -> bool) -> usize {
    let used: serde_json::Value =
        serde_json::from_str(&made::ask(on, "GET", "/system/df?type=build-cache")).unwrap();
    let records = used["BuildCache"].as_array().unwrap();
    let sizes = size as u64..size as u64 + 8192;
    let is_counted = |record: &&serde_json::Value| {
        sizes.contains(&record["Size"].as_u64().unwrap_or_default())
            && is_meant(record["Description"].as_str().unwrap_or_default())
    };
    records.iter().filter(is_counted).count()
}

async fn a_broken_context_is_not_an_engine_failure(on: Tested) {
    let error = built_from(on, b"FROM scratch\n".repeat(100)).await.unwrap_err();
    let BuildError::Context { source } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("neither a tar nor a gzip"), "{source}");

    let whole = tar(&[("a", &[1; 300_000])]);
    let breaks = std::io::Cursor::new(whole[..200_000].to_vec()).chain(Breaks);
    let order = on.busybox("COPY a /");
    let error = build(&on.engine(), order, Box::pin(breaks)).await.0.unwrap_err();
    let BuildError::Context { source } = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the disk was pulled out");
}

/// A reader that fails.
struct Breaks;

impl tokio::io::AsyncRead for Breaks {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("the disk was pulled out")))
    }
}

/// The digests of the manifest under this name in the registry, and of its configuration.
async fn pushed(order: &BuildOrder) -> (String, String) {
    let registry = registry();
    let mut stream = tokio::net::TcpStream::connect(&registry).await.unwrap();
    let request = format!(
        "GET /v2/{}/manifests/{} HTTP/1.0\r\nHost: {registry}\r\nAccept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json\r\n\r\n",
        order.image.repository(),
        order.image.tag().unwrap(),
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let digest = head.lines().find_map(|line| line.strip_prefix("Docker-Content-Digest: "));
    let digest = digest.unwrap_or_else(|| panic!("no digest in {answer}")).trim().to_owned();
    let manifest: serde_json::Value = serde_json::from_str(body).unwrap();
    (digest, manifest["config"]["digest"].as_str().unwrap().to_owned())
}

async fn the_pushed_configuration_is_the_built_one(on: Tested) {
    let order = on.busybox("RUN echo pushed > /pushed");
    let engine = on.engine();
    let built = build(&engine, order.clone(), context(nothing())).await.0.unwrap();
    engine.push(&order.image, None).await.unwrap();
    assert_eq!(pushed(&order).await.1, built.config.as_str());
    // A registry without users accepts any credentials.
    let credentials = Credentials { username: "a".to_owned(), password: SecretString::from("b") };
    engine.push(&order.image, Some(&credentials)).await.unwrap();
    // A second push gives the same image. Its manifest may differ, because an engine uses the compressed form of a
    // layer that was last pushed or pulled, even by other builds.
    assert_eq!(pushed(&order).await.1, built.config.as_str());
    engine.remove_image(&order.image).await.unwrap();
}

async fn pushing_to_an_absent_registry_fails(on: Tested) {
    let mut order = on.busybox("");
    order.image = format!("127.0.0.1:1/gone:{}", order.run).parse().unwrap();
    let engine = on.engine();
    build(&engine, order.clone(), context(nothing())).await.0.unwrap();
    let error = engine.push(&order.image, None).await.unwrap_err();
    assert!(matches!(error, PushError::Registry { .. }), "{error:?}");
    engine.remove_image(&order.image).await.unwrap();
}

/// Leftovers of an installation's dead attempts, without processes: those of other tests' builds have no owner.
async fn images_left(engine: &DockerEngine, installation: &str) -> Vec<Leftover> {
    let mut left = engine.leftovers(installation).await.unwrap();
    left.retain(|leftover| leftover.kind == LeftoverKind::Image);
    left
}

async fn an_image_derived_by_a_user_is_no_leftover(on: Tested) {
    let order = on.busybox("RUN echo ours");
    let engine = on.engine();
    build(&engine, order.clone(), context(nothing())).await.0.unwrap();
    let docker = on.api();
    let tag = bollard::query_parameters::TagImageOptionsBuilder::default()
        .repo("users/own")
        .tag(&order.run.to_string())
        .build();
    docker.tag_image(&order.image.to_string(), Some(tag)).await.unwrap();

    let left = images_left(&engine, &order.installation).await;
    assert_eq!(left.len(), 1, "{left:?}");
    engine.remove(&left[0]).await.unwrap();
    assert_eq!(images_left(&engine, &order.installation).await, []);
    let users = format!("users/own:{}", order.run);
    assert!(docker.inspect_image(&users).await.is_ok());
    docker
        .remove_image(&users, None::<bollard::query_parameters::RemoveImageOptions>, None)
        .await
        .unwrap();
}

async fn an_image_pulled_by_digest_is_removed_as_leftover(on: Tested) {
    let order = on.busybox("RUN echo pulled");
    let engine = on.engine();
    build(&engine, order.clone(), context(nothing())).await.0.unwrap();
    engine.push(&order.image, None).await.unwrap();
    let (digest, _) = pushed(&order).await;
    let name = format!("{}/{}@{digest}", order.image.host(), order.image.repository());
    let options =
        bollard::query_parameters::CreateImageOptionsBuilder::default().from_image(&name).build();
    let pulled = on.api().create_image(Some(options), None, None);
    let _report: Vec<_> = futures_util::TryStreamExt::try_collect(pulled).await.unwrap();

    for leftover in images_left(&engine, &order.installation).await {
        engine.remove(&leftover).await.unwrap();
    }
    assert_eq!(images_left(&engine, &order.installation).await, []);
    assert!(on.api().inspect_image(&order.image.to_string()).await.is_err());
}

async fn leftovers_are_found_while_images_come_and_go(on: Tested) {
    let (stays, engine) = (on.busybox("RUN echo stays"), on.engine());
    build(&engine, stays.clone(), context(nothing())).await.0.unwrap();
    let come_and_go = async {
        for round in 0..4 {
            let mut order = on.busybox(&format!("RUN echo {round}"));
            order.installation.clone_from(&stays.installation);
            build(&engine, order.clone(), context(nothing())).await.0.unwrap();
            engine.remove_image(&order.image).await.unwrap();
        }
    };
    let look = async {
        loop {
            let left = images_left(&engine, &stays.installation).await;
            assert!(left.iter().any(|image| image.id == stays.image.to_string()), "{left:?}");
        }
    };
    tokio::select! {
        () = come_and_go => {}
        () = look => {}
    }
}

#[tokio::test]
async fn an_absent_engine_is_reported_with_its_address() {
    let engine = DockerEngine::connect("/nowhere/docker.sock").unwrap();
    engine.ping().await.unwrap_err();
    let error = engine.info().await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("unix:///nowhere/docker.sock"), "{error}");
    let error =
        build(&engine, order("r.test", "FROM scratch"), context(nothing())).await.0.unwrap_err();
    assert!(matches!(error, BuildError::Engine(EngineError::Unreachable { .. })), "{error:?}");
    assert!(DockerEngine::connect("tcp://127.0.0.1:2375").is_err());
}

async fn no_external_program_is_called(on: Tested) {
    let test = std::env::current_exe().unwrap();
    let name = format!("docker::{}::arguments_labels_and_target_are_in_the_image", on.module());
    let run = std::process::Command::new(test).args(["--exact", &name]).env("PATH", "").output();
    let run = run.unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

async fn a_pushed_image_that_lost_its_tag_to_the_next_attempt_is_removed_at_once(on: Tested) {
    let engine = on.engine();
    let (first, second) = (on.busybox("RUN echo first"), on.busybox("RUN echo second"));
    let staging = format!("{}/staged:{}", registry(), first.run).parse().unwrap();
    for order in [&first, &second] {
        build(&engine, order.clone(), context(nothing())).await.0.unwrap();
        engine.tag(&order.image, &staging).await.unwrap();
        engine.push(&staging, None).await.unwrap();
    }
    let left = images_left(&engine, &first.installation).await;
    assert_eq!(left.len(), 1, "{left:?}");
    engine.remove(&left[0]).await.unwrap();
    assert_eq!(images_left(&engine, &first.installation).await, []);
    engine.remove_image(&staging).await.unwrap();
}

/// Whether the engine's BuildKit supports heredocs and `COPY --link`: Docker 23 and later.
async fn knows_dockerfile_1_4(on: Tested) -> bool {
    let docker = on.api();
    let version = docker.version().await.unwrap().version.unwrap();
    version.split('.').next().unwrap().parse::<u32>().unwrap() >= 23
}

async fn heredocs_work_or_are_refused_by_old_engines(on: Tested) {
    let order = on.busybox("RUN <<EOF\necho one\necho two\nEOF\nCOPY <<EOF /file\nthree\nEOF");
    let (built, told) = build(&on.engine(), order.clone(), context(nothing())).await;
    if knows_dockerfile_1_4(on).await {
        built.unwrap();
        assert_eq!(told.output(OutputStream::Stdout), "one\ntwo\n");
        assert_eq!(read_back(on, &order, "/file").await, "three\n");
    } else {
        let error = built.unwrap_err();
        let BuildError::Refused { message } = error else { panic!("{error:?}") };
        assert!(message.contains("echo") || message.contains("ECHO"), "{message}");
    }
}

async fn copy_link_works_or_is_refused_by_old_engines(on: Tested) {
    let order = on.busybox("COPY --link hello /hello");
    let files = tar(&[("hello", b"hello")]);
    let (built, _) = build(&on.engine(), order.clone(), context(files)).await;
    if knows_dockerfile_1_4(on).await {
        built.unwrap();
        assert_eq!(read_back(on, &order, "/hello").await, "hello");
    } else {
        let error = built.unwrap_err();
        let BuildError::Refused { message } = error else { panic!("{error:?}") };
        assert!(message.contains("link"), "{message}");
    }
}

async fn a_syntax_line_loads_the_frontend_from_its_registry(on: Tested) {
    let registry = registry();
    let built_by = async |frontend: &str| {
        let dockerfile = format!("# syntax={frontend}\nFROM {registry}/busybox:1\n");
        let mut order = order(&registry, &dockerfile);
        order.has_frontend = true;
        order.bases.insert(frontend.parse().unwrap());
        let (built, told) = build(&on.engine(), order, context(nothing())).await;
        let asks = |event: &BuildEvent| matches!(event, BuildEvent::Started { name, .. } if name.contains(frontend));
        assert!(told.events.iter().any(asks), "{told:?}");
        built.unwrap_err()
    };
    // A runnable image that is not a frontend, and an image that does not exist.
    let error = built_by(&format!("{registry}/busybox:1")).await;
    assert!(matches!(error, BuildError::StepFailed { exit_code: 1, .. }), "{error:?}");
    let error = built_by(&format!("{registry}/no-such-frontend:1")).await;
    assert!(matches!(error, BuildError::Refused { .. }), "{error:?}");
}
