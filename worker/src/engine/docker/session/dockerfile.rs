//! Sends the Dockerfile to the engine from memory.
//!
//! The protocol synchronizes a folder of one file: gantry lists it, the engine requests files by their position in the
//! list, and finally says that it is done.

use std::collections::VecDeque;
use std::pin::Pin;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSync;
use bytes::Bytes;
use futures_util::{Stream, stream};
use gantry_taskfile::encoding::encode;
use tonic::{Request, Response, Status, Streaming};

/// The folder's name in the engine's requests, and the value of the attribute `dockerfilekey`.
pub(in crate::engine::docker) const FOLDER: &str = "dockerfile";
/// The file's name in the folder.
const NAME: &str = "Dockerfile";
/// The file's position in the list.
const ID: u32 = 0;
const CHUNK: usize = 32 * 1024;

type Packets = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

/// The text of the Dockerfile.
pub(super) struct Dockerfile(Bytes);

impl Dockerfile {
    pub(super) fn new(text: &str) -> Self {
        Self(encode(text).into())
    }
}

#[tonic::async_trait]
impl FileSync for Dockerfile {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Packets>, Status> {
        if request.metadata().get("dir-name").is_none_or(|name| name != FOLDER) {
            return Err(Status::not_found("only the Dockerfile is sent as a file"));
        }
        let sending = Sending {
            requests: request.into_inner(),
            answers: listing(&self.0).into(),
            text: self.0.clone(),
            done: false,
        };
        Ok(Response::new(Box::pin(stream::try_unfold(sending, Sending::next))))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("files are sent by DiffCopy"))
    }
}

struct Sending {
    requests: Streaming<Packet>,
    answers: VecDeque<Packet>,
    text: Bytes,
    done: bool,
}

impl Sending {
    async fn next(mut self) -> Result<Option<(Packet, Self)>, Status> {
        loop {
            if let Some(packet) = self.answers.pop_front() {
                return Ok(Some((packet, self)));
            }
            // The engine waits for the end of this stream after its own.
            if self.done {
                return Ok(None);
            }
            let Some(request) = self.requests.message().await? else { return Ok(None) };
            self.done = request.r#type() == PacketType::PacketFin;
            self.answers.extend(answers(&request, &self.text));
        }
    }
}

fn listing(text: &Bytes) -> Vec<Packet> {
    let file = Stat {
        path: NAME.to_owned(),
        mode: 0o644,
        size: i64::try_from(text.len()).unwrap_or(i64::MAX),
        ..Stat::default()
    };
    let entry = |stat| Packet { r#type: PacketType::PacketStat.into(), stat, ..Packet::default() };
    vec![entry(Some(file)), entry(None)]
}

fn answers(request: &Packet, text: &Bytes) -> Vec<Packet> {
    match request.r#type() {
        PacketType::PacketReq if request.id == ID => {
            let data = |chunk: &[u8]| Packet {
                r#type: PacketType::PacketData.into(),
                id: ID,
                data: chunk.to_vec(),
                ..Packet::default()
            };
            text.chunks(CHUNK).chain([[].as_slice()]).map(data).collect()
        }
        PacketType::PacketFin => {
            vec![Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() }]
        }
        PacketType::PacketReq
        | PacketType::PacketStat
        | PacketType::PacketData
        | PacketType::PacketErr => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_sent_in_chunks_and_ends_with_an_empty_one() {
        let text = Bytes::from(vec![b'#'; CHUNK + 1]);
        let request = Packet { r#type: PacketType::PacketReq.into(), ..Packet::default() };
        let sizes: Vec<_> =
            answers(&request, &text).iter().map(|packet| packet.data.len()).collect();
        assert_eq!(sizes, [CHUNK, 1, 0]);
        let listed: Vec<_> = listing(&text).into_iter().map(|packet| packet.stat).collect();
        assert_eq!(listed[0].as_ref().unwrap().size, CHUNK as i64 + 1);
        assert_eq!(listed[1], None);
    }
}
