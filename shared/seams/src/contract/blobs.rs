//! What [`Blobs`] must do.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::fresh;
use crate::blobs::{BlobError, Blobs};

const MEBIBYTE: u64 = 1 << 20;

/// Runs every sentence.
pub async fn all(blobs: &dyn Blobs) {
    an_object_is_read_as_it_was_put(blobs).await;
    putting_again_replaces(blobs).await;
    what_is_not_there_is_absent(blobs).await;
    a_stream_is_stored_whole_and_counted(blobs).await;
    nothing_appears_before_a_stream_ends(blobs).await;
    a_stream_may_have_as_many_bytes_as_it_may_and_no_more(blobs).await;
    a_stream_that_breaks_off_leaves_what_was_there(blobs).await;
    an_object_is_read_piece_by_piece(blobs).await;
    a_part_of_an_object_is_read(blobs).await;
    deleting_what_is_not_there_is_no_error(blobs).await;
    deleting_below_a_path_leaves_its_neighbours(blobs).await;
    what_is_below_a_path_is_listed(blobs).await;
    a_path_that_leads_elsewhere_is_refused(blobs).await;
}

pub async fn an_object_is_read_as_it_was_put(blobs: &dyn Blobs) {
    let bytes = content(3 * MEBIBYTE);
    for (path, bytes) in [
        (fresh("plain"), Bytes::from_static(b"hello")),
        (fresh("empty"), Bytes::new()),
        (format!("{}/a/b.c/d-e_f", fresh("deep")), bytes),
        (format!("{}/run:1@2+3=4,ä", fresh("odd")), Bytes::from_static(b"odd")),
    ] {
        blobs.put(&path, bytes.clone()).await.unwrap();
        assert!(blobs.get(&path).await.unwrap() == bytes, "{path}");
    }
}

pub async fn putting_again_replaces(blobs: &dyn Blobs) {
    let path = fresh("twice");
    blobs.put(&path, Bytes::from_static(b"a long first one")).await.unwrap();
    blobs.put(&path, Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(blobs.get(&path).await.unwrap(), "second");
    blobs.put_stream(&path, reader(b"third".to_vec()), 10).await.unwrap();
    assert_eq!(blobs.get(&path).await.unwrap(), "third");
}

pub async fn what_is_not_there_is_absent(blobs: &dyn Blobs) {
    let path = fresh("absent");
    assert_absent(blobs, &path).await;
    // Nor is a path that others only lie below.
    blobs.put(&format!("{path}/below"), Bytes::new()).await.unwrap();
    assert_absent(blobs, &path).await;
}

pub async fn a_stream_is_stored_whole_and_counted(blobs: &dyn Blobs) {
    for length in [0, 1, MEBIBYTE, 5 * MEBIBYTE, 11 * MEBIBYTE + 7] {
        let path = fresh("stream");
        let bytes = content(length);
        let stored = blobs.put_stream(&path, reader(bytes.to_vec()), length).await.unwrap();
        assert_eq!(stored, length);
        assert!(blobs.get(&path).await.unwrap() == bytes, "{length} bytes");
    }
}

pub async fn nothing_appears_before_a_stream_ends(blobs: &dyn Blobs) {
    let path = fresh("unfinished");
    let (mut writer, reader) = tokio::io::duplex(64 << 10);
    let mut storing = blobs.put_stream(&path, Box::pin(reader), 100 * MEBIBYTE);
    let write = async {
        let bytes = content(12 * MEBIBYTE);
        tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes).await.unwrap();
        assert_absent(blobs, &path).await;
        drop(writer);
    };
    let (stored, ()) = futures_util::join!(&mut storing, write);
    assert_eq!(stored.unwrap(), 12 * MEBIBYTE);
    assert_eq!(blobs.get(&path).await.unwrap().len() as u64, 12 * MEBIBYTE);
}

pub async fn a_stream_may_have_as_many_bytes_as_it_may_and_no_more(blobs: &dyn Blobs) {
    for most in [0, 10, 5 * MEBIBYTE, 7 * MEBIBYTE] {
        let path = fresh("bounded");
        let over = content(most + 1).to_vec();
        match blobs.put_stream(&path, reader(over), most).await {
            Err(BlobError::TooLarge { most: told, .. }) => assert_eq!(told, most),
            other => panic!("one byte over {most}: {other:?}"),
        }
        assert_absent(blobs, &path).await;
        // Nor is an endless one read to its end.
        let endless = Box::pin(tokio::io::repeat(7));
        assert!(matches!(
            blobs.put_stream(&path, endless, most).await,
            Err(BlobError::TooLarge { .. })
        ));
        assert_absent(blobs, &path).await;
    }
}

pub async fn a_stream_that_breaks_off_leaves_what_was_there(blobs: &dyn Blobs) {
    for length in [0, 100, 11 * MEBIBYTE] {
        let path = fresh("broken");
        let broken = || Box::pin(io::Cursor::new(content(length)).chain(BreaksOff));
        let result = blobs.put_stream(&path, broken(), 100 * MEBIBYTE).await;
        assert!(matches!(result, Err(BlobError::Source { .. })), "{result:?}");
        assert_absent(blobs, &path).await;

        blobs.put(&path, Bytes::from_static(b"before")).await.unwrap();
        blobs.put_stream(&path, broken(), 100 * MEBIBYTE).await.unwrap_err();
        assert_eq!(blobs.get(&path).await.unwrap(), "before");
    }
}

pub async fn an_object_is_read_piece_by_piece(blobs: &dyn Blobs) {
    let path = fresh("pieces");
    let bytes = content(6 * MEBIBYTE);
    blobs.put(&path, bytes.clone()).await.unwrap();
    let mut read = Vec::new();
    blobs.get_stream(&path).await.unwrap().read_to_end(&mut read).await.unwrap();
    assert!(read == bytes);
    let absent = blobs.get_stream(&fresh("absent")).await;
    assert!(matches!(absent.err(), Some(BlobError::Absent { .. })));
}

pub async fn a_part_of_an_object_is_read(blobs: &dyn Blobs) {
    let path = fresh("parts");
    let bytes = content(6 * MEBIBYTE);
    blobs.put(&path, bytes.clone()).await.unwrap();
    let all = bytes.len();
    for part in [0..1, 5..6, all / 2..all - 7, all - 1..all, 0..all] {
        let range = part.start as u64..part.end as u64;
        assert!(blobs.get_range(&path, range).await.unwrap() == bytes[part.clone()], "{part:?}");
    }
    let absent = blobs.get_range(&fresh("absent"), 0..1).await;
    assert!(matches!(absent.err(), Some(BlobError::Absent { .. })));
}

pub async fn deleting_what_is_not_there_is_no_error(blobs: &dyn Blobs) {
    let path = fresh("deleted");
    blobs.put(&path, Bytes::new()).await.unwrap();
    blobs.delete(&path).await.unwrap();
    assert_absent(blobs, &path).await;
    blobs.delete(&path).await.unwrap();
    blobs.delete_all(&path).await.unwrap();
}

pub async fn deleting_below_a_path_leaves_its_neighbours(blobs: &dyn Blobs) {
    let path = fresh("below");
    let below = ["1", "2/a", "2/b/c"].map(|name| format!("{path}/{name}"));
    let neighbours = [format!("{path}1"), format!("{path}-more/1"), fresh("elsewhere")];
    for path in below.iter().chain(&neighbours) {
        blobs.put(path, Bytes::from_static(b"there")).await.unwrap();
    }
    blobs.delete_all(&path).await.unwrap();
    for path in &below {
        assert_absent(blobs, path).await;
    }
    for path in &neighbours {
        assert_eq!(blobs.get(path).await.unwrap(), "there");
    }
    // The place can be used again.
    blobs.put(&below[1], Bytes::from_static(b"anew")).await.unwrap();
    assert_eq!(blobs.get(&below[1]).await.unwrap(), "anew");
}

pub async fn what_is_below_a_path_is_listed(blobs: &dyn Blobs) {
    let path = fresh("listed");
    let list = async |prefix: &str| {
        let found: Vec<String> = blobs.list(prefix).unwrap().try_collect().await.unwrap();
        found
    };
    assert!(list(&path).await.is_empty());
    let mut below = ["1", "2/a", "2/ä b"].map(|name| format!("{path}/{name}"));
    for path in below.iter().chain(&[format!("{path}1")]) {
        blobs.put(path, Bytes::from_static(b"there")).await.unwrap();
    }
    let mut found = list(&path).await;
    found.sort_unstable();
    below.sort_unstable();
    assert_eq!(found, below);
    assert_eq!(list(&format!("{path}/2")).await.len(), 2);
    let everything = list("").await;
    assert!(below.iter().all(|path| everything.contains(path)));
}

pub async fn a_path_that_leads_elsewhere_is_refused(blobs: &dyn Blobs) {
    for path in
        ["", "/", "/etc/passwd", "..", "../a", "a/../../b", "a/./b", "a//b", "a/", "a\0b", "a#1"]
    {
        let stored = blobs.put(path, Bytes::new()).await;
        assert!(matches!(stored, Err(BlobError::Refused { .. })), "put {path:?}: {stored:?}");
        let read = blobs.get(path).await;
        assert!(matches!(read, Err(BlobError::Refused { .. })), "get {path:?}: {read:?}");
        if !path.is_empty() {
            let listed = blobs.list(path).err();
            assert!(matches!(listed, Some(BlobError::Refused { .. })), "list {path:?}: {listed:?}");
        }
        let deleted = blobs.delete_all(path).await;
        assert!(matches!(deleted, Err(BlobError::Refused { .. })), "delete {path:?}: {deleted:?}");
    }
}

async fn assert_absent(blobs: &dyn Blobs, path: &str) {
    match blobs.get(path).await {
        Err(BlobError::Absent { path: told }) => assert_eq!(told, path),
        other => panic!("{path} should be absent: {other:?}"),
    }
}

/// Bytes that tell when a piece is missing, doubled or out of its place.
fn content(length: u64) -> Bytes {
    (0..length).map(|at| (at % 251 + (at >> 16)).to_le_bytes()[0]).collect()
}

/// A connection that is reset.
struct BreaksOff;

impl AsyncRead for BreaksOff {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

fn reader(bytes: Vec<u8>) -> Pin<Box<dyn AsyncRead + Send>> {
    Box::pin(io::Cursor::new(bytes))
}
