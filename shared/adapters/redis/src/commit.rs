//! Commits a batch with one call of one script.
//!
//! Redis does not roll back a script that fails in the middle, so no command in it may fail. Redis checks its own
//! reasons to refuse (no memory, no disk, a replica, too few replicas) before the first write of a script and never
//! after it. A user's rights to keys are checked before the script runs, and the rights to commands when a store
//! connects. Types are right as long as nobody else writes under the prefix. If the server dies in the middle nothing
//! is written, because the effects of a script are appended to the append-only file together.

use std::collections::BTreeMap;

use deadpool_redis::redis::{Script, ScriptInvocation};
use gantry_seams::store::{Batch, Expect, Index};

use crate::keys::Names;
use crate::place::place;

/// Larger batches would block the server for too long.
const MOST_CHANGES: usize = 4096;
const MOST_BYTES: usize = 64 << 20;
/// Values of at least this size are sent with space for their version already included.
const LARGE: usize = 64 << 10;

/// The script in two variants.
#[derive(Debug)]
pub(crate) struct Scripts {
    /// Refused by Redis when memory is short.
    writing: Script,
    /// Allowed even then, because it only removes.
    removing: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        let body = include_str!("commit.lua");
        Self {
            writing: Script::new(&format!("#!lua\n{body}")),
            removing: Script::new(&format!("#!lua flags=allow-oom\n{body}")),
        }
    }

    /// The call that commits `batch`. It returns 0, or the number of the first precondition that does not hold.
    pub(crate) fn commit(&self, names: &Names, batch: &Batch) -> ScriptInvocation<'_> {
        let grows = !batch.put.is_empty() || !batch.index.is_empty();
        let script = if grows { &self.writing } else { &self.removing };
        let mut call = script.prepare_invoke();
        call.key(names.version());
        let indexes = by_index(batch);
        // Of two puts of one key the later one wins.
        let puts: BTreeMap<_, _> = batch.put.iter().map(|(key, bytes)| (key, bytes)).collect();
        let (large, puts): (Vec<_>, Vec<_>) =
            puts.into_iter().partition(|(_, bytes)| bytes.len() >= LARGE);
        call.arg(batch.expect.len()).arg(batch.delete.len());
        call.arg(puts.len()).arg(large.len()).arg(indexes.len());
        for (key, expected) in &batch.expect {
            call.key(names.record(key));
            match expected {
                Expect::Absent => call.arg(""),
                Expect::Version(version) => call.arg(version.to_be_bytes().as_slice()),
            };
        }
        for key in &batch.delete {
            call.key(names.record(key));
        }
        for (key, bytes) in puts {
            call.key(names.record(key)).arg(&bytes[..]);
        }
        for (key, bytes) in large {
            call.key(names.record(key)).arg([&[0; size_of::<u64>()], &bytes[..]].concat());
        }
        for (index, members) in indexes {
            call.key(names.order(index)).key(names.places(index)).arg(members.len());
            for (member, place) in members {
                call.arg(member).arg(place.as_ref().map_or(&[][..], <[u8; 8]>::as_slice));
            }
        }
        call
    }
}

/// The place of each member that a batch touches; `None` if it is removed.
fn by_index(batch: &Batch) -> BTreeMap<&Index, BTreeMap<&str, Option<[u8; 8]>>> {
    let mut indexes: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (index, member) in &batch.unindex {
        indexes.entry(index).or_default().insert(member.as_str(), None);
    }
    for (index, entry) in &batch.index {
        let place = Some(place(entry.score));
        indexes.entry(index).or_default().insert(entry.member.as_str(), place);
    }
    indexes
}

/// Why a batch is too large for one script, if it is.
pub(crate) fn excess(batch: &Batch) -> Option<String> {
    let changes = batch.put.len() + batch.delete.len() + batch.index.len() + batch.unindex.len();
    let bytes: usize = batch.put.iter().map(|(_, bytes)| bytes.len()).sum();
    (changes.max(batch.expect.len()) > MOST_CHANGES || bytes > MOST_BYTES).then(|| {
        format!(
            "a batch of {changes} changes and {bytes} bytes is larger than the {MOST_CHANGES} changes and \
             {MOST_BYTES} bytes that are committed at once"
        )
    })
}
