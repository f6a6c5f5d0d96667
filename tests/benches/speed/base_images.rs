//! How soon a run is queued after its base image was pushed, what a change that thousands of tasks use does to other
//! pushes, and what watched images cost at rest.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::decide::planner;
use gantry_domain::hook::{Hook, HookSecret, Sender};
use gantry_domain::id::RunPrefix;
use gantry_domain::image::ImageReference;
use gantry_domain::image_watch::Watched;
use gantry_domain::platform::Platform;
use gantry_domain::run::{Outcome, Product, Run};
use gantry_domain::scan::{ImageRole, NeededImage, NeededImages, Scanned};
use gantry_domain::step::Steps;
use gantry_domain::task::Task;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::tracked_image::TrackedImage;
use gantry_ops::secret::SecretString;
use gantry_seams::runs::{self, Creation, Finish, Limits, RunFilter};
use gantry_seams::store::Batch;
use gantry_seams::{hooks, image_watches};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::Effort;
use crate::backend::Backend;
use crate::composition::{Parts, REGISTRY};
use crate::filled;
use crate::github::SECRET;
use crate::image_server::ImageServer;
use crate::process;
use crate::pusher::Pusher;
use crate::report::{Details, Report, Row, say};
use crate::role::Role;
use crate::samples::{Samples, milliseconds};
use crate::servers::Servers;
use crate::take;

/// The hook for the registry's notifications.
const HOOK: &str = "images";

/// The interval between two pushes to a repository while a change is decided, and their number.
const PACE: Duration = Duration::from_millis(100);
const PUSHES: usize = 50;

/// The task that they start, of [`Pusher`].
const PUSHED: &str = "hello-0";

/// How many scans one commit creates.
const A_COMMIT: usize = 64;

/// How many runs of the registry do not wait.
const PLACES: usize = 8;

/// How many images one task needs, of those that are only watched.
const IMAGES_EACH: usize = 50;

/// The time limit for what is waited for.
const WITHIN: Duration = Duration::from_secs(300);

/// How long a process needs to become idle after its start.
const SETTLE: Duration = Duration::from_secs(15);

const REACH_QUEUED: f64 = 1_000.0;
const REACH_DECIDED: f64 = 100.0;

/// Measures runs and decisions, on both stores.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let (mut queued, mut decided) = (Vec::new(), Vec::new());
    for is_scaled in [false, true] {
        let name = if is_scaled { "scaled" } else { "embedded" };
        let after = on(is_scaled, async |gantry| notify(gantry, effort.pushes).await)?;
        report.row(Row {
            what: format!("base image pushed → run queued, by notification, {name}"),
            reach: "p99 ≤ 1 s",
            measured: format!("{:.0} ms", after.quantile(0.99)),
            reached: after.quantile(0.99) <= REACH_QUEUED,
        });
        let of = |part| format!("{:.0}", after.quantile(part));
        queued.push(vec![name.to_owned(), of(0.5), of(0.99), of(1.0)]);

        let crowd = on(is_scaled, async |gantry| move_for_many(gantry, effort.users).await)?;
        report.row(Row {
            what: format!(
                "decide pushes while {} tasks are reached by a change, {name}",
                effort.users
            ),
            reach: "p99 ≤ 100 ms",
            measured: format!("{:.0} ms", crowd.meanwhile.quantile(0.99)),
            reached: crowd.meanwhile.quantile(0.99) <= REACH_DECIDED,
        });
        let row = |when: &str, pushes: &Samples| {
            let of = |part| format!("{:.0}", pushes.quantile(part));
            vec![
                name.to_owned(),
                when.to_owned(),
                of(0.5),
                of(0.99),
                of(1.0),
                crowd.reached.clone(),
            ]
        };
        decided.push(row("nothing else", &crowd.before));
        decided.push(row("the change", &crowd.meanwhile));
    }
    let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    report.details(Details {
        title: "base-images: from the push of a base image to its run, in ms".to_owned(),
        columns: columns(&["store", "p50", "p99", "most"]),
        rows: queued,
    });
    report.details(Details {
        title: "base-images: from the answer to a push to its run, in ms".to_owned(),
        columns: columns(&["store", "beside", "p50", "p99", "most", "the change's runs queued"]),
        rows: decided,
    });
    Ok(())
}

/// Measures what watched images cost at rest, in both modes.
pub(crate) fn measure_rest(effort: Effort, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    for is_scaled in [false, true] {
        for images in [0, effort.watched] {
            rows.push(cost_of_rest(images, effort.rest, is_scaled)?);
        }
    }
    let columns = ["who", "watched images", "requests", "gantry", "Redis"];
    report.details(Details {
        title: "watched-images: at rest, ms of processor in a minute".to_owned(),
        columns: columns.map(str::to_owned).into(),
        rows,
    });
    Ok(())
}

/// An installation with a registry that notifies it.
struct Installation {
    parts: Parts,
    images: ImageServer,
    ingress: SocketAddr,
    stop: CancellationToken,
    /// How often the registry has notified.
    notified: AtomicUsize,
}

/// The servers that a new installation needs.
fn start(is_scaled: bool) -> Result<(Option<Servers>, Backend)> {
    let servers = is_scaled.then(Servers::start).transpose()?;
    let backend = servers.as_ref().map_or(Backend::Embedded, Servers::backend);
    Ok((servers, backend))
}

/// Does something in an empty installation.
fn on<T>(is_scaled: bool, act: impl AsyncFnOnce(&Installation) -> Result<T>) -> Result<T> {
    let (_servers, backend) = start(is_scaled)?;
    let folder = process::folder()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let done = runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gantry = Installation::open(&backend, folder.path(), listener.local_addr()?).await?;
        gantry.create_hook().await?;
        tokio::spawn(gantry.parts.serve(listener, gantry.stop.clone()));
        let done = act(&gantry).await;
        gantry.stop.cancel();
        done
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

impl Installation {
    /// Opens the installation in a folder, with a registry that notifies it at `ingress`.
    async fn open(backend: &Backend, folder: &Path, ingress: SocketAddr) -> Result<Self> {
        let stop = CancellationToken::new();
        let (store, queues) = (backend.store(folder).await?, backend.queues(&stop).await?);
        let parts = Parts::on(store, queues, folder).await?;
        parts.set_up("registry.test").await?;
        Ok(Self {
            parts,
            images: ImageServer::start()?,
            ingress,
            stop,
            notified: AtomicUsize::new(0),
        })
    }

    async fn create_hook(&self) -> Result<()> {
        let (id, store) = (HOOK.parse()?, self.parts.store.as_ref());
        let created = store.now().await?;
        let sealed = self.parts.keyring.seal(&hooks::seal_for(&id), &SecretString::from(SECRET))?;
        let hook = Hook {
            id,
            registry: REGISTRY.parse()?,
            prefix: RunPrefix::nth(0),
            sender: Sender::Distribution,
            repositories: Vec::new(),
            secrets: vec![HookSecret { sealed, created }],
            is_provisioned: false,
            created,
        };
        Ok(hooks::create(store, &hook).await?)
    }

    /// Pushes an image and reports it. Returns when it was pushed.
    async fn push(&self, repository: &str) -> Result<Timestamp> {
        let at = self.parts.store.now().await?;
        let digest = self.images.push(repository);
        let number = self.notified.fetch_add(1, Ordering::Relaxed);
        let body = json!({"events": [{
            "id": format!("{number:032x}"),
            "timestamp": at.to_string(),
            "action": "push",
            "target": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                "repository": repository, "tag": "1",
                "url": format!("http://{}/v2/{repository}/manifests/{digest}", self.images.host),
            },
            "request": {"host": self.images.host.to_string(), "method": "PUT"},
        }]});
        let request = reqwest::Client::new()
            .post(format!("http://{}/hooks/distribution/{HOOK}", self.ingress))
            .header("content-type", "application/vnd.docker.distribution.events.v1+json")
            .bearer_auth(SECRET)
            .body(body.to_string());
        let answer = request.send().await?;
        ensure!(answer.status().is_success(), "a notification was answered {}", answer.status());
        Ok(at)
    }

    /// Saves tasks that need these images, and tells what their scans found.
    async fn create(&self, tasks: &[(String, Vec<ImageReference>)]) -> Result<()> {
        let (store, began) = (&self.parts.store, Instant::now());
        for tasks in tasks.chunks(A_COMMIT) {
            let now = store.now().await?;
            let signer = self.parts.keyring.as_ref();
            let mut creation =
                Creation::begin(store.as_ref(), Batch::default(), RunPrefix::nth(0), signer, now)
                    .await?;
            let mut scans = Vec::new();
            for (name, images) in tasks {
                let task = Task {
                    base_image_trigger: Some(BaseImageTrigger::default()),
                    ..filled::task(name, 0, now)?
                };
                filled::save(store, &task).await?;
                let event = format!("task:{}:0:1", task.id).parse()?;
                scans.push((
                    creation.add(planner::for_scan_of_saved(&task, event), None)?.id,
                    images,
                ));
            }
            store.commit(creation.finish()).await.context("nobody else creates runs")?;
            for (scan, images) in scans {
                let limits = Limits { registry: u32::MAX, task: None };
                let pool = Platform::default().pool();
                runs::ready(store.as_ref(), scan, &pool, None, limits).await?;
                self.scan(images).await?;
            }
        }
        let (tasks, took) = (tasks.len(), began.elapsed().as_secs_f64());
        say(format_args!("  {tasks} tasks, saved and scanned in {took:.0} s"));
        Ok(())
    }

    /// Takes the scan that is ready, and tells that it found these images.
    async fn scan(&self, images: &[ImageReference]) -> Result<()> {
        let (store, pool) = (self.parts.store.as_ref(), Platform::default().pool());
        let (worker, nonce) = ("worker-0".parse()?, "1".repeat(32).parse()?);
        let (scan, holder) = take::take_one(store, &pool, &worker, &nonce).await?;
        let mut needed = NeededImages::default();
        for image in images {
            needed.add(NeededImage {
                image: image.clone(),
                role: ImageRole::Runtime,
                step: "build".parse()?,
                dockerfile: Some("Dockerfile".to_owned()),
                platform: Platform::default(),
            });
        }
        let found = Scanned::Read { commit: None, images: needed };
        runs::scanned(store, scan.id, &holder, &found).await?;
        let finish = Finish::Outcome(Outcome::Succeeded(Product::default()));
        runs::finish(store, scan.id, &holder, finish, &Steps::default()).await?;
        Ok(())
    }

    /// Waits until it is known what these images are.
    async fn all_are_known(&self, images: &[ImageReference]) -> Result<()> {
        let began = Instant::now();
        loop {
            let watched =
                image_watches::list(self.parts.store.as_ref(), None, images.len()).await?;
            let unknown = watched.iter().find(|watch| watch.digest.is_none());
            if watched.len() == images.len() && unknown.is_none() {
                return Ok(());
            }
            let (count, all) = (watched.len(), images.len());
            ensure!(began.elapsed() < WITHIN, "{count} of {all} images are watched: {unknown:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Has the images asked for in turn, as they are once an installation has run for a while.
    async fn spread(&self, images: &[ImageReference]) -> Result<()> {
        let store = self.parts.store.as_ref();
        let (now, interval) = (store.now().await?, self.parts.settings.images.interval);
        for (number, image) in (0_u32..).zip(images) {
            let image = TrackedImage::tag_of(image).context("an image has a tag")?;
            let watched = Watched { image, by: None };
            let found = image_watches::find(store, &watched).await?;
            let mut found = found.with_context(|| format!("{watched} is watched"))?;
            found.value.due = now.after(SETTLE + interval * number / u32::try_from(images.len())?);
            image_watches::write(store, found).await?.context("nobody else writes it")?;
        }
        Ok(())
    }

    /// Waits for a run of a task.
    async fn wait_for(&self, task: &str, is_it: impl Fn(&Run) -> bool) -> Result<Run> {
        let task = Some((RunPrefix::nth(0), task.parse()?));
        let (of_task, began) = (RunFilter { task, ..RunFilter::default() }, Instant::now());
        loop {
            let latest = runs::list(self.parts.store.as_ref(), &of_task, None, 4).await?;
            if let Some(found) = latest.into_iter().find(&is_it) {
                return Ok(found);
            }
            ensure!(began.elapsed() < WITHIN, "no run was queued");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Pushes the base images of many tasks, one after the other.
async fn notify(gantry: &Installation, pushes: usize) -> Result<Samples> {
    let repository = |number: usize| format!("base-{number}");
    let image = |number| Ok(gantry.images.image(&repository(number)).parse()?);
    let images = (0..pushes).map(image).collect::<Result<Vec<ImageReference>>>()?;
    let tasks = images.iter().enumerate();
    let tasks: Vec<_> =
        tasks.map(|(number, image)| (format!("user-{number}"), vec![image.clone()])).collect();
    gantry.create(&tasks).await?;
    let running = tokio::spawn(gantry.parts.scheduler().run(gantry.stop.clone()));
    gantry.all_are_known(&images).await?;
    let mut took = Vec::new();
    for (number, (name, _)) in tasks.iter().enumerate() {
        let pushed = gantry.push(&repository(number)).await?;
        let run = gantry.wait_for(name, |_| true).await?;
        took.push(milliseconds(run.created.since(pushed)));
    }
    gantry.stop.cancel();
    running.await?;
    Ok(Samples::of(took))
}

/// How soon pushes had runs.
struct Crowd {
    before: Samples,
    meanwhile: Samples,
    /// How many runs of the change were queued, and when.
    reached: String,
}

/// Moves an image that many tasks use, and pushes to a repository meanwhile.
async fn move_for_many(gantry: &Installation, users: usize) -> Result<Crowd> {
    let image: ImageReference = gantry.images.image("base").parse()?;
    let tasks: Vec<_> =
        (0..users).map(|number| (format!("user-{number:05}"), vec![image.clone()])).collect();
    filled::fill_tasks(&gantry.parts, 0..0, 0..1).await?;
    gantry.create(&tasks).await?;
    let mut pusher = Pusher::begin(&gantry.parts, gantry.ingress, 1).await?;
    let running = tokio::spawn(gantry.parts.scheduler().run(gantry.stop.clone()));
    gantry.all_are_known(&[image]).await?;
    let before = push_often(gantry, &mut pusher).await?;

    let pushed = gantry.push("base").await?;
    let meanwhile = push_often(gantry, &mut pusher).await?;
    let store = gantry.parts.store.as_ref();
    let began = Instant::now();
    let reached = loop {
        let runs = runs::waiting(store, None, users + 2 * PUSHES).await?;
        let count = runs.iter().filter(|run| run.cause.wave().is_some()).count();
        let after = store.now().await?.since(pushed).as_secs_f64();
        if count + PLACES >= users || began.elapsed() > WITHIN {
            break format!("{count} of {users} after {after:.1} s");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    gantry.stop.cancel();
    running.await?;
    Ok(Crowd { before, meanwhile, reached })
}

/// The times from the answers to pushes until their runs were created.
async fn push_often(gantry: &Installation, pusher: &mut Pusher) -> Result<Samples> {
    let mut pace = tokio::time::interval(PACE);
    let mut took = Vec::new();
    for _ in 0..PUSHES {
        pace.tick().await;
        let commit = pusher.push().await?.to_owned();
        let answered = gantry.parts.store.now().await?;
        let is_it = |run: &Run| run.cause.commit().is_some_and(|it| it.as_str() == commit);
        let run = gantry.wait_for(PUSHED, is_it).await?;
        took.push(milliseconds(run.created.since(answered)));
    }
    Ok(Samples::of(took))
}

/// The processor time that an idle gantry and its Redis use in a minute, while each image is asked for every five minutes.
fn cost_of_rest(images: usize, rest: Duration, is_scaled: bool) -> Result<Vec<String>> {
    let (servers, backend) = start(is_scaled)?;
    let (role, who) = match &backend {
        Backend::Embedded => (Role::Up, "`gantry up`"),
        Backend::Scaled { .. } => (Role::Scheduler, "scheduler"),
    };
    let folder = process::folder()?;
    let runtime = tokio::runtime::Runtime::new()?;
    // The registry is in this process, and its requests are not gantry's cost.
    let registry = runtime.block_on(async {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let gantry = Installation::open(&backend, folder.path(), nowhere).await?;
        let names =
            (0..images).map(|number| Ok(gantry.images.image(&format!("rest-{number}")).parse()?));
        let names = names.collect::<Result<Vec<ImageReference>>>()?;
        let chunks = names.chunks(IMAGES_EACH).enumerate();
        let tasks: Vec<_> =
            chunks.map(|(number, names)| (format!("rest-{number}"), names.to_vec())).collect();
        gantry.create(&tasks).await?;
        let running = tokio::spawn(gantry.parts.scheduler().run(gantry.stop.clone()));
        gantry.all_are_known(&names).await?;
        gantry.stop.cancel();
        running.await?;
        gantry.spread(&names).await?;
        anyhow::Ok(gantry.images)
    })?;
    let server = role.start_on(folder.path(), &backend)?;
    std::thread::sleep(SETTLE);
    let redis = servers.as_ref().map(Servers::redis_pid).transpose()?;
    let used = || {
        let of_redis = redis.map(process::processor_time).transpose()?.unwrap_or_default();
        anyhow::Ok((process::processor_time(server.pid())?, of_redis, registry.requests()))
    };
    let before = used()?;
    std::thread::sleep(rest);
    let after = used()?;
    let minutes = rest.as_secs_f64() / 60.0;
    let shown = |after: Duration, before: Duration| {
        format!("{:.0}", milliseconds(after - before) / minutes)
    };
    #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
    let requests = (after.2 - before.2) as f64 / minutes;
    Ok(vec![
        who.to_owned(),
        images.to_string(),
        format!("{requests:.0}"),
        shown(after.0, before.0),
        redis.map_or(String::new(), |_| shown(after.1, before.1)),
    ])
}
