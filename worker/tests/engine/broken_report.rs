//! A build whose report from the engine breaks off while it continues.

use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::{BuildError, BuildOrder};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::docker::nothing;
use crate::rig::{build, context};
use crate::tested::{Tested, on_each_engine};

on_each_engine! { a_build_whose_report_broke_off_is_not_believed }

/// A proxy to the engine that cuts each connection as soon as the engine begins to report a build.
struct CutOff {
    folder: tempfile::TempDir,
}

impl CutOff {
    fn start(on: Tested) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let engine = UnixStream::connect(on.host().trim_start_matches("unix://")).await;
                tokio::spawn(pass_on(client, engine.unwrap()));
            }
        });
        Self { folder }
    }

    fn engine(&self) -> DockerEngine {
        DockerEngine::connect(self.folder.path().join("s").to_str().unwrap()).unwrap()
    }
}

/// Returning drops both sockets, which closes the connection.
async fn pass_on(client: UnixStream, engine: UnixStream) {
    let (from_client, to_client) = client.into_split();
    let (from_engine, to_engine) = engine.into_split();
    tokio::select! {
        () = copy(from_client, to_engine, None) => {}
        () = copy(from_engine, to_client, Some(b"[internal] load")) => {}
    }
}

/// Copies until the end, or until the data contains `last`.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    last: Option<&[u8]>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let piece = &buffer[..read];
        let is_last = |last: &[u8]| piece.windows(last.len()).any(|window| window == last);
        if last.is_some_and(is_last) || to.write_all(piece).await.is_err() {
            return;
        }
    }
}

async fn a_build_whose_report_broke_off_is_not_believed(on: Tested) {
    let cut_off = CutOff::start(on);
    // One order may hide an unresolved image and the other hides none; without the report they cannot be distinguished.
    let hides_one = BuildOrder { bases: [].into(), ..on.busybox("RUN true") };
    for order in [on.busybox("RUN true"), hides_one] {
        let error = build(&cut_off.engine(), order, context(nothing())).await.0.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let BuildError::Unavailable { message } = error else { panic!("{error:?}") };
        assert!(
            message.starts_with("the engine's report of the build was cut off, so which images it loaded is not known: "),
            "{message}"
        );
    }
}
