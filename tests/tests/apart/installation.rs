//! An installation whose parts share only servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_amqp::{AmqpOptions, AmqpQueues};
use gantry_domain::id::RunId;
use gantry_domain::run::{Run, RunStatus};
use gantry_objects::{ObjectBlobs, ObjectsOptions};
use gantry_ops::secret::{SecretString, random_hex};
use gantry_redis::{RedisOptions, RedisStore};
use gantry_scheduler::Scheduler;
use gantry_seams::blobs::SharedBlobs;
use gantry_seams::clock::Clock;
use gantry_seams::queue::Queues;
use gantry_seams::runs;
use gantry_seams::store::SharedStore;
use gantry_tests::backend::{Backend, Vhost};
use gantry_tests::pipeline::{LEASE, REGISTRY, TestPipeline, create_registry};
use gantry_tests::real;
use gantry_worker::{LeaseTimes, Worker};
use tokio::runtime::Runtime;

/// The time limit for expected events on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The servers of one installation.
pub(crate) struct Installation {
    /// Everything else: the engine, the git host, the registries, the key and the clock, and the test's own connection
    /// to the store.
    pub(crate) parts: TestPipeline,
    prefix: String,
    vhost: Option<Vhost>,
    bucket: String,
    workers: AtomicU64,
}

/// The connections of a process to the servers.
pub(crate) struct Connections {
    pub(crate) store: SharedStore,
    pub(crate) queues: Queues,
    pub(crate) blobs: SharedBlobs,
}

impl Installation {
    /// An empty installation with a registry `reg` and a busybox image in it.
    pub(crate) async fn start() -> Self {
        let _already = rustls::crypto::ring::default_provider().install_default();
        let mut installation = Self {
            parts: TestPipeline::start(Backend::Embedded).await,
            prefix: fresh(),
            vhost: Some(Vhost::make().await),
            bucket: fresh(),
            workers: AtomicU64::new(0),
        };
        // The workers run until the test is over, and are cut off.
        installation.parts.leaves_work();
        let bucket = format!("{}/{}", real::s3(), installation.bucket);
        let made = reqwest::Client::new().put(bucket).send().await.unwrap();
        assert!(made.status().is_success(), "{made:?}");
        let Connections { store, queues, blobs } = installation.connect().await;
        (installation.parts.store, installation.parts.queues, installation.parts.blobs) =
            (store, queues, blobs);
        create_registry(installation.parts.store.as_ref(), "reg", REGISTRY, 8).await;
        installation
    }

    /// Connections for another process.
    pub(crate) async fn connect(&self) -> Connections {
        let mut options = RedisOptions::parse(&real::redis()).unwrap();
        options.prefix = self.prefix.clone();
        options.clock = Clock::Manual(self.parts.clock.clone());
        let store = RedisStore::connect(options).await.unwrap();
        let address = self.vhost.as_ref().unwrap().address();
        let options = AmqpOptions::parse(&[address], SecretString::from("guest")).unwrap();
        let queues = AmqpQueues::connect(options, &self.parts.stop).await.unwrap().queues();
        let blobs = ObjectBlobs::open(&self.objects()).unwrap();
        blobs.probe().await.unwrap();
        Connections { store: Arc::new(store), queues, blobs: Arc::new(blobs) }
    }

    fn objects(&self) -> ObjectsOptions {
        let environment = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        ObjectsOptions {
            url: format!("s3://{}/gantry", self.bucket).parse().unwrap(),
            endpoint: Some(real::s3().parse().unwrap()),
            region: "us-east-1".to_owned(),
            ca_file: None,
            environment: environment.map(|name| (name.to_owned(), "test".to_owned())).to_vec(),
        }
    }

    /// Removes the broker permanently, with all messages.
    pub(crate) fn lose_broker(&mut self) {
        self.vhost = None;
    }

    /// Starts a scheduler that runs until the installation ends.
    pub(crate) async fn schedule(&self) {
        let Connections { store, queues, blobs } = self.connect().await;
        let scheduler = Scheduler { store, queues, blobs, ..self.parts.scheduler() };
        tokio::spawn(scheduler.run(self.parts.stop.clone()));
    }

    /// Starts a worker in a separate runtime.
    pub(crate) async fn work(&self, lease: LeaseTimes) -> WorkerProcess {
        let number = self.workers.fetch_add(1, Ordering::Relaxed) + 1;
        let mut worker = self.parts.worker(&format!("worker-{number}"));
        worker.settings.lease = lease;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // Connected within its runtime, so that its connections end with it.
        let connections = runtime.handle().clone();
        let Connections { store, queues, blobs } =
            tokio::task::block_in_place(|| connections.block_on(self.connect()));
        let worker = Worker { store, queues, blobs, ..worker };
        runtime.spawn(worker.run(self.parts.stop.clone()));
        WorkerProcess(Some(runtime))
    }

    /// Waits until a run has this status.
    pub(crate) async fn until(&self, run: &str, status: RunStatus) -> Run {
        let id: RunId = run.parse().unwrap();
        let mut last = None;
        let waited = tokio::time::timeout(SOON, async {
            loop {
                let mut moved = runs::watch(self.parts.store.as_ref(), id);
                let found = runs::find(self.parts.store.as_ref(), id).await.unwrap();
                if let Some(found) = found {
                    last = Some(found.status());
                    if found.status() == status {
                        return found;
                    }
                }
                let _looked_anyway =
                    tokio::time::timeout(Duration::from_millis(200), moved.changed()).await;
            }
        })
        .await;
        waited.unwrap_or_else(|_| panic!("{run} is {last:?}, not {status:?}"))
    }

    /// Expires the lease of a killed worker. Repeated, because a renewal may still have been on its way.
    pub(crate) async fn end_lease(&self, run: &str) {
        let id: RunId = run.parse().unwrap();
        let ended = tokio::time::timeout(SOON, async {
            loop {
                let found = runs::find(self.parts.store.as_ref(), id).await.unwrap().unwrap();
                if found.state.lease().is_none() {
                    return;
                }
                self.parts.clock.advance(LEASE + Duration::from_secs(1));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        ended.await.unwrap_or_else(|_| panic!("the lease of {run} does not end"));
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.parts.stop.cancel();
    }
}

/// A worker with all its tasks.
pub(crate) struct WorkerProcess(Option<Runtime>);

impl WorkerProcess {
    /// Ends all tasks without any cleanup, as if the process had been killed.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.end();
    }
}

fn fresh() -> String {
    format!("apart-{}", random_hex::<6>().unwrap().as_str())
}
