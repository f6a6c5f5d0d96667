//! Archives of contexts.

use std::path::Path;
use std::time::Duration;

use gantry_worker::source::{UnpackLimits, unpack};
use tempfile::TempDir;
use tokio::time::Instant;

use super::Target;

pub(super) const TARGET: Target = Target {
    name: "archive",
    run: read,
    words: &[
        "../",
        "/etc/passwd",
        "ustar\0",
        "././@LongLink",
        "pax_global_header",
        "path=",
        "size=",
        "00000000000",
        "\u{1f}\u{8b}",
    ],
};

const LIMITS: UnpackLimits =
    UnpackLimits { archive_bytes: 1 << 20, unpacked_bytes: 1 << 20, entries: 200 };

/// Unpacking writes nothing outside the folder, and no more into it than the limits allow.
fn read(archive: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let around = tempfile::tempdir().unwrap();
    let folder = TempDir::new_in(around.path()).unwrap();
    let archive = std::io::Cursor::new(archive.to_vec());
    let unpacked = runtime.block_on(async {
        unpack(archive, folder, LIMITS, Instant::now() + Duration::from_secs(20)).await
    });
    match unpacked {
        Ok(checkout) => {
            let (mut bytes, mut entries) = (0, 0);
            measure(checkout.root(), &mut bytes, &mut entries);
            assert!(bytes <= LIMITS.unpacked_bytes, "{bytes}");
            // Folders that an archive only implies do not count as entries.
            assert!(entries <= 128 * LIMITS.entries, "{entries}");
            let beside = std::fs::read_dir(around.path()).unwrap().count();
            assert_eq!(beside, 1, "something was written beside the folder");
        }
        Err(error) => {
            assert!(error.to_string().len() < 8192, "{error}");
            assert_eq!(std::fs::read_dir(around.path()).unwrap().count(), 0, "it is removed");
        }
    }
}

fn measure(folder: &Path, bytes: &mut u64, entries: &mut u64) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let what = entry.metadata().unwrap();
        *entries += 1;
        if what.is_dir() {
            measure(&entry.path(), bytes, entries);
        } else {
            assert!(what.is_file() || what.is_symlink(), "{:?}", entry.path());
            *bytes += if what.is_file() { what.len() } else { 0 };
        }
    }
}
