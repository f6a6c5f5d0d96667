//! What a run's log contains, and what it never contains.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use gantry_domain::log::{LogFrame, OutputStream};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::secret::SecretString;
use gantry_seams::blobs::{BlobError, Blobs, Paths, SharedBlobs};
use gantry_seams::logs::{
    LogId, LogPart, LogReader, Piece, append_tail, open_logs, pack_segment, seal,
};
use gantry_tests::pipeline::{DOCKERFILE, TestPipeline, image_build};
use gantry_worker::engine::scripted::Action;
use tokio::io::AsyncRead;
use tokio::sync::watch;

async fn run_with(actions: Vec<Action>, secret: Option<&str>) -> TestPipeline {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let sealed = secret.map(|secret| {
        gantry.keyring.seal(&TestPipeline::seals_for(), &SecretString::from(secret)).unwrap()
    });
    let task = gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            image_build(&mut task.recipe).secret_build_args =
                sealed.map(|sealed| ("TOKEN".parse().unwrap(), sealed)).into_iter().collect();
        })
        .await;
    gantry.schedule().await;
    gantry.engine.script(&TestPipeline::repository("hello"), actions);
    gantry.ask(&task, None).await;
    gantry.settle().await;
    gantry
}

fn says(text: &str) -> Action {
    Action::Output(OutputStream::Stdout, Bytes::copy_from_slice(text.as_bytes()))
}

#[tokio::test]
async fn a_secret_split_over_two_chunks_never_appears() {
    let secret = "s3cr3t-of-some-length";
    for cut in [1, 10, 20] {
        let (head, tail) = secret.split_at(cut);
        let gantry = run_with(
            vec![says(&format!("it is {head}")), says(&format!("{tail}, I said\n"))],
            Some(secret),
        )
        .await;
        let log = gantry.log("ca1", 1).await;
        assert!(log.contains("it is ***, I said"), "{log}");
        assert!(!log.contains(head) || head.len() < 4, "{log}");
    }
}

#[tokio::test]
async fn a_run_with_too_many_secrets_is_refused_naming_the_largest() {
    let gantry = run_with(vec![says("never said\n")], Some(&"x".repeat(40_000))).await;
    let run = gantry.run("ca1").await;
    let outcome = format!("{:?}", run.state);
    assert!(outcome.contains("the largest is `TOKEN`, 40000 bytes"), "{outcome}");
}

#[tokio::test]
async fn of_a_log_that_is_too_long_the_beginning_is_kept_and_the_rest_is_counted() {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let task = gantry.task("hello", "hello:{{.Run.ID}}").await;
    gantry.schedule().await;
    gantry.engine.script(&TestPipeline::repository("hello"), [Action::Log { bytes: 1 << 20 }]);
    gantry.ask(&task, None).await;
    let mut worker = gantry.worker("worker-1");
    worker.settings.log_limit = 64 << 10;
    gantry.settle_with(&worker).await;
    let log = gantry.log("ca1", 1).await;
    assert!((60 << 10..68 << 10).contains(&log.len()), "{}", log.len());
    assert!(log.starts_with("fetching "), "{log}");
    assert!(log.contains("the log is longer than 65536 bytes: "), "{log}");
}

#[tokio::test]
async fn a_secret_in_an_error_is_masked_in_run_and_log() {
    let secret = "s3cr3t-of-some-length";
    let gantry =
        run_with(vec![Action::Refuse(format!("cannot parse {secret}"))], Some(secret)).await;
    let run = serde_json::to_string(&gantry.run("ca1").await).unwrap();
    assert!(!run.contains(secret), "{run}");
    assert!(run.contains("cannot parse ***"), "{run}");
    assert!(!gantry.log("ca1", 1).await.contains(secret));
}

#[tokio::test]
async fn a_log_is_read_whole_and_from_any_offset() {
    let gantry = run_with(vec![Action::Log { bytes: 300_000 }], None).await;
    let whole = gantry.log("ca1", 1).await;
    assert!(whole.len() > 300_000);
    let id = LogId { run: "ca1".parse().unwrap(), attempt: 1 };
    for offset in [1, 777, 65_536, 200_000, whole.len() as u64 - 1, whole.len() as u64, 1 << 40] {
        let mut reader = LogReader::at(id, offset);
        let mut text = String::new();
        let mut at = None;
        loop {
            match reader.next(gantry.store.as_ref(), gantry.blobs.as_ref()).await.unwrap() {
                LogPart::Frames(frames) => {
                    at.get_or_insert(frames[0].offset);
                    text.extend(frames.into_iter().map(|frame| frame.text));
                }
                LogPart::Hole { until } => panic!("a hole up to {until}"),
                LogPart::End => break,
            }
        }
        match at {
            Some(at) => {
                assert!(at <= offset);
                assert_eq!(text, whole[usize::try_from(at).unwrap()..]);
            }
            None => assert!(offset >= whole.len() as u64),
        }
    }
}

#[tokio::test]
async fn a_reader_of_the_tail_finds_pieces_packed_meanwhile() {
    let gantry = super::start().await;
    let (store, blobs) = (gantry.store.as_ref(), gantry.blobs.as_ref());
    let id = LogId { run: "ca1".parse().unwrap(), attempt: 1 };
    let pieces = [piece(0, "one "), piece(4, "two "), piece(8, "three")];
    let mut reader = LogReader::at(id, 0);
    for piece in &pieces[..2] {
        append_tail(store, id, piece).await.unwrap();
        assert!(matches!(reader.next(store, blobs).await.unwrap(), LogPart::Frames(_)));
    }
    append_tail(store, id, &pieces[2]).await.unwrap();
    pack_segment(store, blobs, id, &pieces).await.unwrap();

    let LogPart::Frames(frames) = reader.next(store, blobs).await.unwrap() else {
        panic!("the end of the log is lost to who read it live");
    };
    assert_eq!(frames.iter().map(|frame| frame.text.as_str()).collect::<String>(), "three");
    assert!(matches!(reader.next(store, blobs).await.unwrap(), LogPart::End));
}

#[tokio::test]
async fn a_log_sealed_during_writes_stays_complete() {
    let gantry = super::start().await;
    let (store, blobs) = (gantry.store.as_ref(), gantry.blobs.as_ref());
    let id = LogId { run: "ca1".parse().unwrap(), attempt: 1 };
    let pieces: Vec<Piece> = (0..7).map(|n| piece(n * 4, "abcd")).collect();
    for piece in &pieces[..5] {
        append_tail(store, id, piece).await.unwrap();
    }
    seal(store, blobs, id).await.unwrap();
    assert!(open_logs(store, None, 10).await.unwrap().is_empty());

    // A worker that counted as dead, and does not know.
    pack_segment(store, blobs, id, &pieces[..3]).await.unwrap();
    append_tail(store, id, &pieces[5]).await.unwrap();
    pack_segment(store, blobs, id, &pieces[3..6]).await.unwrap();
    append_tail(store, id, &pieces[6]).await.unwrap();
    assert_eq!(gantry.log("ca1", 1).await, "abcd".repeat(7));
    assert_eq!(open_logs(store, None, 10).await.unwrap(), [id]);
    seal(store, blobs, id).await.unwrap();
    assert_eq!(gantry.log("ca1", 1).await, "abcd".repeat(7));
    assert!(open_logs(store, None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn while_the_object_store_is_away_output_is_held_back() {
    let (mut gantry, objects) = gantry_that_says(vec![Action::Log { bytes: 5_000_000 }]).await;
    gantry.blobs = Arc::clone(&objects) as _;
    objects.away.store(true, Ordering::Relaxed);
    let (worker, stop) = (gantry.worker("worker-1"), gantry.stop.clone());
    let working = tokio::spawn(async move { worker.turn(&stop).await });
    // Retried repeatedly; after so many retries no output has been accepted for a while.
    objects.until_refused(6).await;
    let held = gantry.log("ca1", 1).await;
    assert!((256 << 10..=1 << 20).contains(&held.len()), "{} bytes in the store", held.len());
    objects.away.store(false, Ordering::Relaxed);
    working.await.unwrap().unwrap();

    let whole = gantry.log("ca1", 1).await;
    assert!(whole.len() > 5_000_000 && whole.starts_with(&held));
    assert!(whole.contains("s here: the object store was away"));
    assert!(open_logs(gantry.store.as_ref(), None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_log_that_could_not_be_packed_at_the_end_of_its_run_is_packed_later() {
    let (mut gantry, objects) = gantry_that_says(vec![says("hello\n")]).await;
    gantry.blobs = Arc::clone(&objects) as _;
    objects.away.store(true, Ordering::Relaxed);
    gantry.settle().await;
    let whole = gantry.log("ca1", 1).await;
    assert!(whole.contains("hello") && whole.contains("pushed "), "{whole}");

    let scheduler = gantry.scheduler();
    assert_eq!(scheduler.keeper().seal_logs().await.unwrap(), 0);
    objects.away.store(false, Ordering::Relaxed);
    assert_eq!(scheduler.keeper().seal_logs().await.unwrap(), 1);
    assert!(open_logs(gantry.store.as_ref(), None, 10).await.unwrap().is_empty());
    assert_eq!(gantry.log("ca1", 1).await, whole);
}

/// A run that waits for a worker, and an object store that can be made unavailable.
async fn gantry_that_says(actions: Vec<Action>) -> (TestPipeline, Arc<MayBeAway>) {
    let gantry = super::start().await;
    gantry.ready_run(actions).await;
    let objects = MayBeAway {
        blobs: Arc::clone(&gantry.blobs),
        away: AtomicBool::new(false),
        refused: watch::Sender::new(0),
    };
    (gantry, Arc::new(objects))
}

/// An object store that can be made unavailable.
struct MayBeAway {
    blobs: SharedBlobs,
    away: AtomicBool,
    refused: watch::Sender<usize>,
}

impl MayBeAway {
    async fn until_refused(&self, times: usize) {
        self.refused.subscribe().wait_for(|refused| *refused >= times).await.unwrap();
    }

    fn here(&self) -> Result<&dyn Blobs, BlobError> {
        if self.away.load(Ordering::Relaxed) {
            self.refused.send_modify(|refused| *refused += 1);
            return Err(BlobError::Unavailable { message: "away".to_owned() });
        }
        Ok(self.blobs.as_ref())
    }
}

#[async_trait]
impl Blobs for MayBeAway {
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), BlobError> {
        self.here()?.put(path, bytes).await
    }

    async fn put_stream(
        &self,
        path: &str,
        reader: Pin<Box<dyn AsyncRead + Send>>,
        most: u64,
    ) -> Result<u64, BlobError> {
        self.here()?.put_stream(path, reader, most).await
    }

    async fn get(&self, path: &str) -> Result<Bytes, BlobError> {
        self.here()?.get(path).await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, BlobError> {
        self.here()?.get_range(path, range).await
    }

    async fn get_stream(&self, path: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>, BlobError> {
        self.here()?.get_stream(path).await
    }

    async fn delete(&self, path: &str) -> Result<(), BlobError> {
        self.here()?.delete(path).await
    }

    async fn delete_all(&self, prefix: &str) -> Result<(), BlobError> {
        self.here()?.delete_all(prefix).await
    }

    fn list(&self, prefix: &str) -> Result<Paths, BlobError> {
        self.here()?.list(prefix)
    }
}

fn piece(start: u64, text: &str) -> Piece {
    let frame = LogFrame {
        offset: start,
        at: Timestamp::from_millis(0),
        step: None,
        stream: OutputStream::Stdout,
        text: text.to_owned(),
    };
    let lines = format!("{}\n", serde_json::to_string(&frame).unwrap());
    Piece { start, end: frame.end(), lines: lines.into() }
}

mod slow {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_of_fifty_megabytes_takes_bounded_memory() {
        let before = peak_memory();
        let gantry = run_with(vec![Action::Log { bytes: 50_000_000 }], None).await;
        let grown = peak_memory().saturating_sub(before);
        // Other tests use memory of the same process meanwhile; buffering the log itself would take more than twice this.
        assert!(grown < 96 << 20, "the process grew by {} MiB", grown >> 20);

        let id = LogId { run: "ca1".parse().unwrap(), attempt: 1 };
        let mut reader = LogReader::at(id, 0);
        let mut bytes = 0;
        while let LogPart::Frames(frames) =
            reader.next(gantry.store.as_ref(), gantry.blobs.as_ref()).await.unwrap()
        {
            bytes += frames.iter().map(|frame| frame.text.len()).sum::<usize>();
        }
        assert!(bytes >= 50_000_000, "{bytes}");
    }

    /// The peak memory of this process, in bytes.
    fn peak_memory() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}
