//! A context that is larger than what a worker may keep in memory.

use gantry_worker::engine::OutputStream;
use tokio::io::AsyncWriteExt as _;

use crate::rig::build;
use crate::tested::Tested;

/// A value in kilobytes from this process's status.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

// On one engine only, because gantry's memory use for a context does not depend on the image store.
#[tokio::test]
async fn a_context_of_a_gibibyte_is_streamed() {
    let on = Tested::Default;
    const SIZE: u64 = 1 << 30;
    let (mut writer, reader) = tokio::io::duplex(256 * 1024);
    let writing = tokio::spawn(async move {
        let mut header = tokio_tar::Header::new_ustar();
        header.set_path("big").unwrap();
        header.set_size(SIZE);
        header.set_mode(0o644);
        header.set_cksum();
        writer.write_all(header.as_bytes()).await.unwrap();
        let chunk: Vec<u8> =
            (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for _ in 0..SIZE / chunk.len() as u64 {
            writer.write_all(&chunk).await.unwrap();
        }
        writer.write_all(&[0; 1024]).await.unwrap();
    });
    // Resets the peak.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");

    let order = on.busybox("RUN --mount=type=bind,target=/context stat -c %s /context/big");
    let (built, told) = build(&on.engine(), order, Box::pin(reader)).await;
    built.unwrap();
    writing.await.unwrap();

    assert_eq!(told.output(OutputStream::Stdout).trim(), SIZE.to_string());
    let grown = memory("VmHWM:").saturating_sub(before) / 1024;
    assert!(grown <= 64, "grew by {grown} MiB");
}
