//! Everything that `gantry up` has acknowledged is on disk.
//!
//! The program runs under strace. From the trace of its file operations, disks are reconstructed for the moment of each
//! answer and for random moments: one with only what was synced, and others with some of the rest, torn. The store is
//! opened on each of them, and must contain everything that was acknowledged before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_domain::id::{DeliveryId, HookId, RunId, UploadId};
use gantry_objects::ObjectBlobs;
use gantry_seams::blobs::Blobs as _;
use gantry_seams::{deliveries, runs, uploads};
use gantry_sqlite::{Options, SqliteStore};
use gantry_tests::github;
use gantry_tests::installation::{Client, Installation, Program};
use gantry_tests::role;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

use self::disk::{Disk, Unsynced};
use self::trace::{Call, Event};

mod disk;
mod trace;

/// More than any single write.
const LONGEST: &str = "16777216";

/// An acknowledged object that must exist from then on.
#[derive(Debug, Clone)]
enum Told {
    Delivery { hook: String, id: String, sha256: String },
    Upload { id: String, sha256: String },
    Run { id: String },
}

impl Told {
    /// The id in its answer.
    fn id(&self) -> &str {
        match self {
            Self::Delivery { id, .. } | Self::Upload { id, .. } | Self::Run { id } => id,
        }
    }
}

/// `gantry up` under strace. Dropping it ends both.
struct Traced {
    folder: tempfile::TempDir,
    installation: Installation,
}

impl Traced {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("disk")).unwrap();
        let mut installation = Installation::new(folder.path().join("log"));
        let trace = folder.path().join("trace").display().to_string();
        let (data, gantry) = (folder.path().join("disk/data"), role::gantry());
        let strace = ["-f", "-y", "-xx", "-s", LONGEST, "-e", trace::CALLS, "-o", &trace];
        let up = ["up", "--listen", "127.0.0.1:0", "--set", "engine.address=/nonexistent/engine"];
        let mut arguments: Vec<String> = strace.map(str::to_owned).to_vec();
        arguments.push(gantry.display().to_string());
        arguments.extend(up.map(str::to_owned));
        arguments.extend(["--data".to_owned(), data.display().to_string()]);
        let client = folder.path().join("client.toml").display().to_string();
        let environment = vec![("GANTRY_CONFIG".to_owned(), client)];
        let program = Program { path: "strace".into(), arguments, environment };
        installation.start(&program).await.unwrap();
        Self { folder, installation }
    }

    /// The state before the start.
    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Kills the program; strace ends with it, and has written the whole trace.
    fn cut(&self) -> String {
        self.kill();
        let strace = format!("/proc/{}", self.installation.pid().unwrap());
        while std::fs::read_to_string(format!("{strace}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z"))
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::read_to_string(self.folder.path().join("trace")).unwrap()
    }

    fn kill(&self) {
        let Some(strace) = self.installation.pid() else { return };
        let children = format!("/proc/{strace}/task/{strace}/children");
        for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            let pid = child.parse().ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Sends hooks of several sizes, uploads and requests for runs, some concurrently.
async fn use_it(client: &Client, chance: &mut StdRng, length: Length) -> Vec<Told> {
    let registry = serde_json::json!({"name": "main", "host": "registry.test"});
    let _: serde_json::Value = client.post("registries", &registry).await.unwrap();
    let hook = serde_json::json!({"provider": "github"});
    let hook: serde_json::Value = client.post("registries/main/hooks", &hook).await.unwrap();
    let mut told = Vec::new();
    for round in 0..length.rounds {
        let sizes = [10, 8_000, length.body, length.body, length.body, length.body, 700_000];
        let sends = sizes.iter().enumerate().map(|(number, size)| {
            let id = format!("{round:08x}-0000-0000-0000-{number:012x}");
            let padding = hex::encode((0..size / 2).map(|_| chance.random()).collect::<Vec<u8>>());
            deliver(client, &hook, id, padding)
        });
        let sends: Vec<_> = sends.collect();
        told.extend(futures_util::future::join_all(sends).await);
        if round % 3 == 0 {
            told.push(upload(client, chance, if round == 3 { 6 << 20 } else { 300_000 }).await);
            told.push(wish(client, told.last().unwrap().id()).await);
        }
    }
    told
}

async fn deliver(client: &Client, hook: &serde_json::Value, id: String, padding: String) -> Told {
    let (url, secret) = (hook["url"].as_str().unwrap(), hook["secret"].as_str().unwrap());
    let body = serde_json::json!({"zen": padding}).to_string().into_bytes();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-github-event", "ping".to_owned()),
        ("x-github-delivery", id.clone()),
        ("x-hub-signature-256", github::signature(secret, &body)),
    ];
    let path = &url[url.find("/hooks/").unwrap()..];
    let told = Told::Delivery {
        hook: path.rsplit('/').next().unwrap().to_owned(),
        id,
        sha256: sha256(&body),
    };
    let answer = client.send_hook(path, &headers, body).await.unwrap().unwrap();
    assert_eq!(answer.0, 202, "{}", answer.1);
    told
}

async fn upload(client: &Client, chance: &mut StdRng, size: usize) -> Told {
    // Only the gzip header is checked when it is uploaded.
    let mut bytes = vec![0; size];
    chance.fill_bytes(&mut bytes);
    bytes[..2].copy_from_slice(&[0x1f, 0x8b]);
    let sha256 = sha256(&bytes);
    let kind = "application/octet-stream";
    let (status, text) = client.post_bytes("registries/main/uploads", kind, bytes).await.unwrap();
    assert_eq!(status, 201, "{text}");
    let uploaded: serde_json::Value = serde_json::from_str(&text).unwrap();
    Told::Upload { id: uploaded["id"].as_str().unwrap().to_owned(), sha256 }
}

async fn wish(client: &Client, upload: &str) -> Told {
    let build = serde_json::json!({"upload": upload, "images": ["x:{{.Run.ID}}"]});
    let run: serde_json::Value = client.post("registries/main/builds", &build).await.unwrap();
    Told::Run { id: run["id"].as_str().unwrap().to_owned() }
}

/// Opens what a power failure left, and checks that everything acknowledged exists.
async fn check(folder: &Path, told: &[&Told], key: &[u8]) {
    let kept = std::fs::read(folder.join("secret.key")).unwrap();
    assert_eq!(kept, key, "what is sealed opens with it alone");
    let store = SqliteStore::open(folder.join("gantry.db"), Options::default()).unwrap();
    let blobs = ObjectBlobs::local(folder.join("objects")).unwrap();
    for told in told {
        match told {
            Told::Delivery { hook, id, sha256: sent } => {
                let (hook, id): (HookId, DeliveryId) = (hook.parse().unwrap(), id.parse().unwrap());
                let found = deliveries::find(&store, &hook, &id).await.unwrap();
                let found = found.unwrap_or_else(|| panic!("delivery {id} is gone"));
                assert_eq!(found.body_sha256, *sent);
                let body = match deliveries::find_body(&store, &found).await.unwrap() {
                    Some(body) => body,
                    None => deliveries::find_packed_body(&blobs, &found)
                        .await
                        .unwrap()
                        .unwrap_or_else(|| panic!("the body of {id} is gone")),
                };
                assert_eq!(sha256(&unpacked(&body)), *sent, "the body of {id}");
            }
            Told::Upload { id, sha256: sent } => {
                let id: UploadId = id.parse().unwrap();
                let found = uploads::find(&store, &id).await.unwrap();
                found.unwrap_or_else(|| panic!("upload {id} is gone"));
                let bytes = blobs.get(&uploads::blob_path(&id)).await.unwrap();
                assert_eq!(sha256(&bytes), *sent, "upload {id}");
            }
            Told::Run { id } => {
                let id: RunId = id.parse().unwrap();
                let found = runs::find(&store, id).await.unwrap();
                found.unwrap_or_else(|| panic!("run {id} is gone"));
            }
        }
    }
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    match flate2::read::GzDecoder::new(body).read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(_) => body.to_vec(),
    }
}

/// The line of the trace where the answer with `id` began.
fn answered(events: &[Event], id: &str) -> usize {
    let names = |event: &&Event| matches!(&event.call, Call::Answer { text } if text.contains(&format!("\"{id}\"")));
    events.iter().find(names).unwrap_or_else(|| panic!("no answer names {id}")).began
}

/// The number of attempts.
#[derive(Debug, Clone, Copy)]
struct Length {
    cuts: usize,
    rounds: usize,
    /// Bodies of 512 KiB and more are stored in the object store. Smaller ones fill the write-ahead log, until it is
    /// checkpointed.
    body: usize,
}

impl Length {
    /// A higher number if `GANTRY_POWER_CUTS` is set.
    #[allow(clippy::disallowed_methods, reason = "how many is asked of whoever runs it")]
    fn wanted() -> Self {
        match std::env::var("GANTRY_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()) {
            Some(cuts) => Self { cuts, rounds: 10, body: 500_000 },
            None => Self { cuts: 8, rounds: 2, body: 20_000 },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_power_cut_at_any_moment() {
    let (length, mut chance) = (Length::wanted(), StdRng::seed_from_u64(7));
    let traced = Traced::start().await;
    let told = use_it(&traced.installation.client(), &mut chance, length).await;
    let events = trace::read(&traced.cut(), &traced.disk()).unwrap();
    let key = std::fs::read(traced.disk().join("data/secret.key")).unwrap();
    let told: Vec<(usize, Told)> =
        told.into_iter().map(|told| (answered(&events, told.id()), told)).collect();
    let last = events.iter().map(|event| event.done).max().unwrap();

    // The most critical moments are those of the answers.
    let mut moments: Vec<usize> = told.iter().map(|(answered, _)| *answered).collect();
    while moments.len() < length.cuts {
        moments.push(chance.random_range(moments[0]..=last));
    }
    while moments.len() > length.cuts {
        moments.swap_remove(chance.random_range(0..moments.len()));
    }
    for cut in moments {
        let before: Vec<&Told> =
            told.iter().filter(|(answered, _)| *answered <= cut).map(|(_, told)| told).collect();
        let disk = Disk::at(&events, cut).unwrap();
        for unsynced in [Unsynced::Lost, Unsynced::Some(chance.random())] {
            let left = tempfile::tempdir().unwrap();
            disk.write(&traced.disk(), left.path(), unsynced).unwrap();
            eprintln!("cut at line {cut}, {unsynced:?}: {} were told", before.len());
            check(&left.path().join("data"), &before, &key).await;
        }
    }
}
