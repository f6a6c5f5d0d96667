//! Uploads a folder as the source of a run: whole, or as a difference to what was uploaded of it before.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::stream;
use gantry_api::{DELTA_TYPE, Upload};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Client;
use super::http::ApiError;
use super::output::say;
use super::pack::Pack;
use super::table::size;
use crate::exit::UsageError;

use chunks::Chunks;
use sent::{Memory, Sent, SentChunk};

mod chunks;
mod sent;

/// An uploaded folder.
pub(crate) struct Uploaded {
    pub(crate) id: String,
    /// The path of the Dockerfile in it.
    pub(crate) dockerfile: String,
}

/// Packs a folder and uploads it as the source of a run in this registry.
pub(crate) async fn upload(
    client: &Client,
    registry: &str,
    folder: &Path,
    dockerfile: &str,
) -> Result<Uploaded> {
    check_folder(folder)?;
    let pack = Pack::of(folder, dockerfile)?;
    let dockerfile = pack.dockerfile.clone();
    Ok(Uploaded { id: send(client, registry, folder, pack).await?, dockerfile })
}

/// Uploads a folder, whatever is in it. Returns the id.
pub(crate) async fn upload_folder(
    client: &Client,
    registry: &str,
    folder: &Path,
) -> Result<String> {
    check_folder(folder)?;
    send(client, registry, folder, Pack::folder(folder)?).await
}

fn check_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let folder = folder.display();
    Err(UsageError(format!(
        "{folder} is no folder here: give a folder, or the address of a git repository, of a .tar.gz or of an artifact"
    ))
    .into())
}

async fn send(client: &Client, registry: &str, folder: &Path, pack: Pack) -> Result<String> {
    for path in &pack.skipped {
        say(format!("warning: {path} is left out: it is a socket or a device"));
    }
    let (files, bytes) = (pack.files(), pack.bytes);
    let plural = if files == 1 { "" } else { "s" };
    say(format!("uploading {} in {files} file{plural}", size(bytes)));
    let (pack, memory) = (Arc::new(pack), Memory::of(client, registry, folder));
    if let Some(base) = memory.as_ref().and_then(Memory::recall) {
        match post(client, registry, &pack, Some(&base)).await {
            Ok(posted) => {
                say(format!("sent {}: the rest was uploaded before", size(posted.bytes)));
                return Ok(posted.remembered(memory));
            }
            Err(error) if is_of_base(&error) => {
                tracing::debug!("everything is sent: {error:#}");
                memory.iter().for_each(Memory::forget);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(post(client, registry, &pack, None).await?.remembered(memory))
}

/// Whether an upload may have failed because of the earlier one that it was a difference to: that is gone or another's,
/// or the server knows no differences.
fn is_of_base(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(ApiError::Refused { status, .. }) => status.is_client_error(),
        // A server that refuses before it has read everything may look like this.
        Some(ApiError::Broken { .. }) => true,
        Some(
            ApiError::Unreachable { .. }
            | ApiError::NotGantry { .. }
            | ApiError::Unauthorized { .. },
        )
        | None => false,
    }
}

/// A complete upload.
struct Posted {
    upload: Upload,
    chunks: Vec<SentChunk>,
    /// How many bytes were sent.
    bytes: u64,
}

impl Posted {
    fn remembered(self, memory: Option<Memory>) -> String {
        let sent = Sent { upload: self.upload.id, chunks: self.chunks };
        memory.iter().for_each(|memory| memory.keep(&sent));
        sent.upload
    }
}

async fn post(
    client: &Client,
    registry: &str,
    pack: &Arc<Pack>,
    base: Option<&Sent>,
) -> Result<Posted> {
    let bar = UploadBar::show(pack.bytes);
    let (sender, mut pieces) = mpsc::channel(8);
    let packing = pack_aside(Arc::clone(pack), Chunks::new(sender, base), bar.packed());
    let pieces = stream::poll_fn(move |context| pieces.poll_recv(context));
    let body = reqwest::Body::wrap_stream(pieces);
    let path = ["registries", registry, "uploads"];
    let uploaded: Result<Upload> = match base {
        Some(base) => client.api.upload(&path, &[("from", &base.upload)], DELTA_TYPE, body).await,
        None => client.api.upload(&path, &[], "application/gzip", body).await,
    };
    bar.finish();
    // An error of this machine breaks the request off; that the request broke off says nothing of the folder.
    match (packing.await.context("packing the folder failed")?, uploaded) {
        (Err(PackError::Local(error)), _) => Err(error),
        (Ok((chunks, bytes)), Ok(upload)) => Ok(Posted { upload, chunks, bytes }),
        (Ok(_) | Err(PackError::Unread), Err(error)) => Err(error),
        (Err(PackError::Unread), Ok(_)) => {
            anyhow::bail!("the server did not read the whole upload: run this again")
        }
    }
}

/// Why a folder was not packed to its end.
enum PackError {
    /// A file could not be read, or changed meanwhile.
    Local(anyhow::Error),
    /// The request ended before.
    Unread,
}

/// Packs on a separate thread. An error of this machine also ends the request.
fn pack_aside(
    pack: Arc<Pack>,
    chunks: Chunks,
    packed: Arc<AtomicU64>,
) -> JoinHandle<Result<(Vec<SentChunk>, u64), PackError>> {
    tokio::task::spawn_blocking(move || {
        let sender = chunks.sender();
        let done = pack.write(chunks, &packed).and_then(|chunks| Ok(chunks.finish()?));
        done.map_err(|error| {
            if sender.is_closed() {
                return PackError::Unread;
            }
            let _gone = sender.blocking_send(Err(io::Error::other("packing failed")));
            PackError::Local(error)
        })
    })
}

/// The progress of an upload, on a terminal.
struct UploadBar {
    bar: ProgressBar,
    /// The bytes of files packed so far.
    packed: Arc<AtomicU64>,
    ticks: Option<JoinHandle<()>>,
}

impl UploadBar {
    fn show(bytes: u64) -> Self {
        let packed = Arc::<AtomicU64>::default();
        if !io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), packed, ticks: None };
        }
        let bar = ProgressBar::new(bytes);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        let (ticking, counted) = (bar.clone(), Arc::clone(&packed));
        let ticks = tokio::spawn(async move {
            loop {
                ticking.set_position(counted.load(Ordering::Relaxed));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { bar, packed, ticks: Some(ticks) }
    }

    fn packed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.packed)
    }

    fn finish(self) {
        if let Some(ticks) = self.ticks {
            ticks.abort();
        }
        self.bar.finish_and_clear();
    }
}
