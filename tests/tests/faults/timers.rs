//! Two schedulers fire the same timers, which were due a few minutes ago, and one of them is killed or paused meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_domain::event::TimerDue;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{ImageBuild, Recipe, RunTimeout, Work};
use gantry_domain::task::{Status, Task};
use gantry_domain::timer::{CatchUp, Misfire, Overlap, Timer, Timers};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::secret::{Keyring, random_hex};
use gantry_redis::{RedisOptions, RedisStore};
use gantry_seams::registries::{self, NewRegistry};
use gantry_seams::runs::{self, RunFilter};
use gantry_seams::store::SharedStore;
use gantry_seams::{decisions, events, installation, tasks};
use gantry_tests::backend::Vhost;
use gantry_tests::installation::Program;
use gantry_tests::real;
use gantry_tests::role::{self, Role};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::evidence::MANY;
use crate::round::quiet;
use crate::up::{self, LAST_SWEEP};

const TASKS: usize = 12;
const TIMERS_EACH: usize = 20;

/// How long ago the timers were due: no other instant is theirs, and this one was missed.
const AGO: Duration = Duration::from_secs(180);

/// The time limit for anything on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);

/// Schedulers over a Redis and a RabbitMQ, and the timers that they find.
struct Schedulers {
    store: SharedStore,
    instants: Vec<TimerDue>,
    roles: Vec<Role>,
    _vhost: Vhost,
    _folder: TempDir,
}

impl Schedulers {
    /// Stores tasks with timers, and starts this many schedulers without waiting until they are ready.
    async fn start(schedulers: usize, tasks: usize) -> Result<Self> {
        let (vhost, folder) = (Vhost::make().await, tempfile::tempdir()?);
        let mut options = RedisOptions::parse(&real::redis())?;
        options.prefix = format!("timers-{}", random_hex::<6>()?.as_str());
        let text = |text: String| format!("{text:?}");
        let path = |name: &str| folder.path().join(name);
        let settings = [
            ("store.url", text(real::redis())),
            ("store.prefix", text(options.prefix.clone())),
            ("queue.urls", format!("[{:?}]", vhost.address())),
            ("objects.url", text(format!("file://{}", path("objects").display()))),
            ("secrets.key_file", text(path("service.key").display().to_string())),
            ("sweep.interval", text("250ms".to_owned())),
            ("log.format", text("human".to_owned())),
        ];
        std::fs::create_dir(path("objects"))?;
        let ring = Keyring::create(&path("service.key"))?;
        let store: SharedStore = Arc::new(RedisStore::connect(options).await?);
        installation::open(store.as_ref(), "timers", &ring.fingerprints()).await?;
        let instants = store_timers(&store, tasks).await?;
        let mut roles = Vec::new();
        for number in 0..schedulers {
            let program = Program {
                path: role::gantry(),
                arguments: vec!["scheduler".to_owned()],
                environment: Vec::new(),
            };
            let mut role = Role::new(path(&format!("scheduler-{number}")), program, &settings)?;
            role.spawn()?;
            roles.push(role);
        }
        Ok(Self { store, instants, roles, _vhost: vhost, _folder: folder })
    }

    /// Waits until the event of the first timer is committed.
    async fn until_one_fires(&self) -> Result<()> {
        let (first, began) = (self.instants[0].event_id(), Instant::now());
        // In a loop without pauses: the others follow within a fraction of a second.
        while events::find(self.store.as_ref(), &first).await?.is_none() {
            ensure!(began.elapsed() < WITHIN, "no timer fires\n{}", self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        self.roles.iter().map(Role::last_words).collect::<Vec<_>>().join("\n")
    }

    /// Waits until every instant is decided. Each has started one run then, and there is no other run.
    async fn each_has_one_run(&self) -> Result<()> {
        let store = self.store.as_ref();
        let undecided = async || {
            let mut open = Vec::new();
            for due in &self.instants {
                let event = due.event_id();
                if !decisions::find(store, &event).await?.is_some_and(|found| found.is_final) {
                    open.push(format!("event {event} is not decided"));
                }
            }
            Ok(open)
        };
        let decided = quiet("decide", WITHIN, undecided).await;
        decided.with_context(|| self.last_words())?;
        let all = runs::list(store, &RunFilter::default(), None, MANY).await?;
        let started: BTreeMap<_, _> =
            all.iter().map(|run| (run.cause.event().clone(), run.id)).collect();
        let expected: BTreeSet<_> = self.instants.iter().map(TimerDue::event_id).collect();
        ensure!(started.keys().eq(&expected), "runs were started for {:?}", started.keys());
        ensure!(all.len() == expected.len(), "{} runs for {} instants", all.len(), expected.len());
        Ok(())
    }
}

/// Stores timers that were due once, and returns their instants.
async fn store_timers(store: &SharedStore, tasks: usize) -> Result<Vec<TimerDue>> {
    let registry = NewRegistry {
        name: "reg".parse()?,
        prefix: registries::reserve_prefix(store.as_ref()).await?,
        host: "registry.test".parse()?,
        credentials: None,
        run_limit: NonZeroU32::new(8).context("8 is not 0")?,
    };
    let registry = registries::create(store.as_ref(), registry).await?;
    let ago = store.now().await?.before(AGO);
    let due = Timestamp::from_millis(ago.as_millis() / 60_000 * 60_000);
    let created = due.before(Duration::from_secs(1));
    let at = due.to_utc();
    let schedule = format!("{} {} {} {} *", at.minute(), at.hour(), at.day(), u8::from(at.month()));
    let mut instants = Vec::new();
    for number in 0..tasks {
        let timers = (0..TIMERS_EACH).map(|number| {
            Ok(Timer {
                name: format!("t{number}").parse()?,
                schedule: schedule.parse()?,
                timezone: Default::default(),
                status: Status::Enabled,
                misfire: Misfire::Once,
                catch_up: CatchUp::default(),
                overlap: Overlap::Allow,
            })
        });
        let task = Task {
            id: format!("reg/task-{number}").parse()?,
            prefix: registry.prefix,
            revision: 1,
            status: Status::Enabled,
            recipe: recipe()?,
            source_trigger: None,
            base_image_trigger: None,
            timers: Timers::try_from(timers.collect::<Result<Vec<_>>>()?)?,
            git_token: None,
            reports: false,
            api_token: None,
            run_limit: None,
            concurrency_group: None,
            created,
            updated: created,
        };
        let (task, _) = tasks::create(store.as_ref(), &task).await?;
        instants.extend(task.timers.as_slice().iter().map(|timer| TimerDue {
            task: task.id.clone(),
            created,
            timer: timer.name.clone(),
            due,
        }));
    }
    Ok(instants)
}

fn recipe() -> Result<Recipe> {
    Ok(Recipe {
        source: "https://git.test/app.git#main".parse()?,
        platforms: Platforms::default(),
        timeout: RunTimeout::default(),
        work: Work::Build(ImageBuild {
            dockerfile: "Dockerfile".parse()?,
            images: Vec::new(),
            build_args: BTreeMap::default(),
            secret_build_args: BTreeMap::default(),
            target: None,
            push: false,
            no_cache: false,
        }),
        logins: BTreeMap::new(),
        follows: gantry_domain::tracked_image::TagPolicies::default(),
        bases: Vec::new(),
        pull_request: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_whose_scheduler_is_killed_while_it_fires_start_one_run_each() {
    let mut gantry = Schedulers::start(2, TASKS).await.unwrap();
    gantry.until_one_fires().await.unwrap();
    gantry.roles[0].kill().await.unwrap();
    gantry.each_has_one_run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_paused_while_it_fires_timers_doubles_none_when_it_goes_on() {
    let gantry = Schedulers::start(2, TASKS).await.unwrap();
    gantry.until_one_fires().await.unwrap();
    gantry.roles[0].signal(Signal::STOP).unwrap();
    gantry.each_has_one_run().await.unwrap();
    gantry.roles[0].signal(Signal::CONT).unwrap();
    let telemetry = gantry.roles[0].telemetry();
    // There is no such metric before the first pass.
    let swept = async || up::metric(telemetry, LAST_SWEEP).await.unwrap_or_default();
    let before = swept().await;
    quiet("go on", WITHIN, async || {
        let goes_on = swept().await > before;
        Ok(if goes_on { Vec::new() } else { vec!["it does not sweep".to_owned()] })
    })
    .await
    .unwrap();
    gantry.each_has_one_run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn how_late_timers_are_and_how_many_were_missed_are_metrics() {
    let gantry = Schedulers::start(1, 1).await.unwrap();
    gantry.each_has_one_run().await.unwrap();
    let telemetry = gantry.roles[0].telemetry();
    let value = async |name| up::metric(telemetry, name).await.unwrap();
    assert_eq!(value("gantry_timer_lateness_seconds_count").await, 20.0);
    assert!(value("gantry_timer_lateness_seconds_sum").await >= 20.0 * AGO.as_secs_f64());
    assert_eq!(value(r#"gantry_timer_misfires_total{outcome="fired"}"#).await, 20.0);
    assert_eq!(value(r#"gantry_timer_misfires_total{outcome="dropped"}"#).await, 0.0);
}
