//! A broker for this test alone, so that it can be killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_amqp::{AmqpOptions, AmqpQueues};
use gantry_seams::queue::Queue;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::rig::until;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_may_be_killed_and_its_disk_wiped_and_may_refuse_messages() {
    let broker = Broker::start();
    let queues = AmqpQueues::connect(broker.options(), &CancellationToken::new()).await.unwrap();
    let queue = queues.queue::<u32>("queue", 8);
    queue.publish(1, None).await.unwrap();
    assert_eq!(claim(&queue).await, 1);

    // Killed within seconds of a queue's declaration: RabbitMQ remembers the queue, but it never responds again.
    broker.kill();
    until("the loss is noticed", SOON, async || queues.state().is_err()).await;
    broker.start_again();
    let waiting = claim(&queue);
    let publish = until("it takes messages", SOON, async || queue.publish(2, None).await.is_ok());
    assert_eq!(futures_util::join!(waiting, publish).0, 2);

    // Wiped: publishers and consumers declare everything again.
    broker.kill();
    broker.wipe();
    until("the loss is noticed", SOON, async || queues.state().is_err()).await;
    let waiting = claim(&queue);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    broker.start_again();
    until("it takes messages", SOON, async || queue.publish(3, None).await.is_ok()).await;
    assert_eq!(timeout(SOON, waiting).await.unwrap(), 3);

    // Out of memory: publishing fails at once with the reason, but existing messages can be claimed.
    queue.publish(4, None).await.unwrap();
    broker.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]);
    until("the alarm is felt", SOON, async || queue.publish(5, None).await.is_err()).await;
    let refused = queue.publish(6, None).await.unwrap_err();
    assert!(refused.message.contains("takes no messages until its alarm ends"), "{refused}");
    assert!(queues.state().unwrap_err().contains("low on memory"), "{:?}", queues.state());
    assert_eq!(claim(&queue).await, 4);
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    until("the alarm has ended", SOON, async || queues.state().is_ok()).await;
    queue.publish(7, None).await.unwrap();
}

async fn claim(queue: &dyn Queue<u32>) -> u32 {
    loop {
        let claimed = timeout(SOON, queue.claim()).await.expect("a message").unwrap().unwrap();
        // If the connection was just lost, the message is delivered again.
        if let Ok(message) = claimed.done().await {
            return message;
        }
    }
}

/// A RabbitMQ with the virtual host `/`.
struct Broker {
    folder: tempfile::TempDir,
    port: String,
}

impl Broker {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let told = bootstrap("start", folder.path(), &[]);
        let url = told.lines().find_map(|line| line.strip_prefix("GANTRY_TEST_AMQP=")).unwrap();
        Self { port: url.rsplit_once(':').unwrap().1.to_owned(), folder }
    }

    fn start_again(&self) {
        bootstrap("start", self.folder.path(), &["--port", &self.port]);
    }

    fn options(&self) -> AmqpOptions {
        let url = format!("amqp://127.0.0.1:{}", self.port);
        AmqpOptions::parse(&[url], "guest".to_owned().into()).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("rabbitmq").join(name)
    }

    /// Sends SIGKILL, as `stop` does.
    fn kill(&self) {
        bootstrap("stop", self.folder.path(), &[]);
    }

    fn wipe(&self) {
        std::fs::remove_dir_all(self.file("data")).unwrap();
    }

    fn ctl(&self, words: &[&str]) {
        let status = Command::new(self.file("ctl")).args(words).stdout(Stdio::null()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn bootstrap(verb: &str, state: &Path, more: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../deploy/bootstrap.sh");
    let state = state.to_str().unwrap();
    let told = Command::new(script)
        .args(["rabbitmq", verb, "--state", state])
        .args(more)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(told.status.success(), "rabbitmq {verb} failed");
    String::from_utf8(told.stdout).unwrap()
}
