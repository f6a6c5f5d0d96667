//! Streams the context to the engine.
//!
//! The engine requests `http://buildkit-session/<path>` from the session once. At most one chunk is in memory, and the
//! engine's flow control limits the reader.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_server::Upload;
use futures_util::{Stream, stream};
use tokio::io::AsyncReadExt as _;
use tonic::{Request, Response, Status, Streaming};

use crate::engine::ContextStream;
use crate::engine::docker::random_id;

const CHUNK: usize = 128 * 1024;
/// The block size of tar.
const BLOCK: usize = 512;

/// The context of one build, to be read once.
pub(in crate::engine::docker) struct Context {
    /// Random, because the engine assumes that equal URLs have equal content.
    path: String,
    stream: Mutex<Option<ContextStream>>,
    broken: std::sync::Arc<Mutex<Option<io::Error>>>,
}

impl Context {
    pub(in crate::engine::docker) fn new(stream: ContextStream) -> Self {
        Self {
            path: random_id(),
            stream: Mutex::new(Some(stream)),
            broken: std::sync::Arc::default(),
        }
    }

    /// The URL of the context for the build.
    pub(in crate::engine::docker) fn url(&self) -> String {
        format!("http://buildkit-session/{}", self.path)
    }

    /// The error of reading the context, if there was one.
    pub(in crate::engine::docker) fn take_error(&self) -> Option<io::Error> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Upload for Context {
    type PullStream = Chunks;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Chunks>, Status> {
        let asked = request.metadata().get("urlpath").and_then(|path| path.to_str().ok());
        if asked.is_none_or(|path| path.trim_start_matches('/') != self.path) {
            return Err(Status::not_found("there is one context, and this is not its address"));
        }
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(stream) = stream else {
            return Err(Status::failed_precondition("the context was read already"));
        };
        let broken = self.broken.clone();
        let chunks = stream::try_unfold(Reading { stream, begun: false }, move |reading| {
            let broken = broken.clone();
            async move {
                reading.next().await.map_err(|error| {
                    let status = Status::aborted(format!("the context could not be read: {error}"));
                    *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    status
                })
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

struct Reading {
    stream: ContextStream,
    begun: bool,
}

impl Reading {
    async fn next(mut self) -> io::Result<Option<(BytesMessage, Self)>> {
        let mut data = Vec::with_capacity(CHUNK);
        (&mut self.stream).take(CHUNK as u64).read_to_end(&mut data).await?;
        if !self.begun {
            self.begun = true;
            if let Some(root) = missing_root(&data)? {
                data.splice(..0, root);
            }
        }
        if data.is_empty() {
            return Ok(None);
        }
        Ok(Some((BytesMessage { data }, self)))
    }
}

/// The bytes to insert before a context that begins with `head`, so that the engine recognizes an archive.
///
/// The engine looks for a complete entry in the first 1024 bytes, and treats anything else as a Dockerfile, including an
/// empty tar, or one whose first name needs a separate header. An entry for the root solves both.
fn missing_root(head: &[u8]) -> io::Result<Option<Vec<u8>>> {
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(None);
    }
    let Some(first) = head.get(..BLOCK) else {
        return if head.is_empty() { Ok(Some(root())) } else { Err(no_archive()) };
    };
    if first.iter().all(|&byte| byte == 0) || has_checksum(first) {
        return Ok(Some(root()));
    }
    Err(no_archive())
}

fn no_archive() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is neither a tar nor a gzip archive")
}

fn root() -> Vec<u8> {
    let mut header = tokio_tar::Header::new_ustar();
    header.set_entry_type(tokio_tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    // `set_path` refuses `.`; the name is the first field of the header.
    header.as_mut_bytes()[..2].copy_from_slice(b"./");
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// The checksum in a tar header, computed with its own field as spaces.
fn has_checksum(block: &[u8]) -> bool {
    let field = 148..156;
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| if field.contains(&at) { u64::from(b' ') } else { u64::from(byte) })
        .sum();
    let written = String::from_utf8_lossy(&block[field]);
    let digits = written.trim_matches(['\0', ' ']);
    u64::from_str_radix(digits, 8).is_ok_and(|written| written == sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_archive_gets_a_root_entry() {
        assert!(has_checksum(&root()));
        assert!(missing_root(&root()).unwrap().is_some());
        assert!(missing_root(&[]).unwrap().is_some());
        assert!(missing_root(&[0; 1024]).unwrap().is_some());
        assert!(missing_root(&[0x1f, 0x8b, 8, 0]).unwrap().is_none());
    }

    #[test]
    fn other_content_than_an_archive_is_refused() {
        assert!(missing_root(b"FROM scratch\n").is_err());
        assert!(missing_root(&[b'x'; 4096]).is_err());
    }
}
