//! What a run says, and what it never says.

use bytes::Bytes;
use gantry_domain::log::{LogFrame, OutputStream};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::secret::SecretString;
use gantry_seams::logs::{LogId, LogPart, LogReader, Piece, append_tail, pack_segment};
use gantry_tests::pipeline::TestPipeline;
use gantry_worker::engine::scripted::Action;

const DOCKERFILE: &[(&str, &str)] = &[("Dockerfile", "FROM registry.test/busybox:1\nRUN true\n")];

async fn run_with(actions: Vec<Action>, secret: Option<&str>) -> TestPipeline {
    let gantry = super::start().await;
    gantry.git.repository("hello").unwrap().commit("main", DOCKERFILE).unwrap();
    let sealed = secret.map(|secret| {
        gantry.keyring.seal(&TestPipeline::seals_for(), &SecretString::from(secret)).unwrap()
    });
    let task = gantry
        .task_with("hello", "hello:{{.Run.ID}}", |task| {
            task.build.secret_build_args =
                sealed.map(|sealed| ("TOKEN".parse().unwrap(), sealed)).into_iter().collect();
        })
        .await;
    gantry.schedule().await;
    gantry.engine.script(&TestPipeline::repository("hello"), actions);
    super::causes::ask(&gantry, &task, None).await;
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
async fn an_error_that_names_a_secret_is_masked_in_run_and_log() {
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
async fn a_reader_at_the_tail_finds_what_was_packed_behind_it() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_fifty_megabytes_does_not_grow_the_process() {
    let before = peak_memory();
    let gantry = run_with(vec![Action::Log { bytes: 50_000_000 }], None).await;
    let grown = peak_memory().saturating_sub(before);
    // Other tests grow the same process meanwhile; the log itself would take more than twice this.
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

/// The most memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
