//! Who moved a tag last, and who may move it.
//!
//! No registry can fence a write, so the store says who may write a tag before it is written. A run of an older generation
//! of the same fact never moves a tag that a newer one has moved. An attempt that began to write and was not heard of
//! again stays on the tag's list: whoever finishes next reads the tag once more and puts it right.

use gantry_domain::fact::FactKey;
use gantry_domain::id::RunId;
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::run::{Run, SupersededTag};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::store::{Batch, CommitError, Key, Kind, Store, StoreError};

/// Who moved a tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tag {
    /// The run that moved it last, or is about to.
    run: RunId,
    /// The newest generation of each fact that moved it, at most [`MOST_FACTS`].
    facts: Vec<(FactKey, u64, RunId)>,
    /// Attempts that were allowed to write and have not said that they are done.
    writers: Vec<(RunId, u32)>,
    /// Whether an earlier writer was not yet done when the last one was let in: either may have written last.
    #[serde(default)]
    contested: bool,
    /// Where the last writer that said it was done left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rests_at: Option<Digest>,
}

/// How many facts a tag remembers: the branches whose tasks push to it.
const MOST_FACTS: usize = 32;

/// What a run may do with the tags that it was asked to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// These it moves now.
    pub images: Vec<ImageReference>,
    /// These belong to newer runs.
    pub superseded: Vec<SupersededTag>,
}

/// Adds to the batch that `run` is about to move `images`, as far as it may.
pub(crate) async fn claim(
    store: &dyn Store,
    batch: &mut Batch,
    run: &Run,
    attempt: u32,
    images: &[ImageReference],
) -> Result<Permit, StoreError> {
    let mut permit = Permit { images: Vec::new(), superseded: Vec::new() };
    for image in images {
        let key = key(image);
        let found = codec::load::<Tag>(store, &key).await?;
        if let Some((fact, generation)) = run.cause.fact()
            && let Some((_, _, by)) = found.as_ref().and_then(|tag| {
                tag.value.facts.iter().find(|(key, newest, _)| key == fact && *newest > generation)
            })
        {
            permit.superseded.push(SupersededTag { image: image.clone(), by: *by });
            continue;
        }
        permit.images.push(image.clone());
        match found {
            Some(mut tag) => {
                tag.value.claim(run, attempt);
                tag.replace_in(batch, key)?;
            }
            None => {
                let mut tag = Tag {
                    run: run.id,
                    facts: Vec::new(),
                    writers: Vec::new(),
                    contested: false,
                    rests_at: None,
                };
                tag.claim(run, attempt);
                batch.create(key.clone(), codec::encode(&key, &tag)?);
            }
        }
    }
    Ok(permit)
}

impl Tag {
    fn claim(&mut self, run: &Run, attempt: u32) {
        self.run = run.id;
        self.rests_at = None;
        if let Some((fact, generation)) = run.cause.fact() {
            self.facts.retain(|(key, _, _)| key != fact);
            self.facts.push((fact.clone(), generation, run.id));
            let surplus = self.facts.len().saturating_sub(MOST_FACTS);
            self.facts.drain(..surplus);
        }
        self.writers.retain(|writer| *writer != (run.id, attempt));
        self.contested |= !self.writers.is_empty();
        self.writers.push((run.id, attempt));
    }
}

/// Says that an attempt has moved a tag to `digest` and writes it no more. Answers what must be at rest there when
/// another attempt's write may have come between or may still come: the tag is then to be read again, and put right.
///
/// # Errors
/// [`StoreError`].
pub async fn settle(
    store: &dyn Store,
    image: &ImageReference,
    run: RunId,
    attempt: u32,
    digest: &Digest,
) -> Result<Option<Digest>, StoreError> {
    let key = key(image);
    loop {
        let Some(mut tag) = codec::load::<Tag>(store, &key).await? else { return Ok(None) };
        let must_rest_at = tag.value.settle(run, attempt, digest);
        let mut batch = Batch::default();
        tag.replace_in(&mut batch, key.clone())?;
        match store.commit(batch).await {
            Ok(()) => return Ok(must_rest_at),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

impl Tag {
    fn settle(&mut self, run: RunId, attempt: u32, digest: &Digest) -> Option<Digest> {
        self.writers.retain(|writer| *writer != (run, attempt));
        if self.run != run {
            // A newer run was let in meanwhile. If it is done, this one may have written over it.
            return self.rests_at.clone();
        }
        let in_doubt = std::mem::take(&mut self.contested) || !self.writers.is_empty();
        // An older writer that is alive asks here itself when it is done; one that is dead is answered by the reading
        // that follows now.
        self.writers.clear();
        self.rests_at = Some(digest.clone());
        in_doubt.then(|| digest.clone())
    }
}

fn key(image: &ImageReference) -> Key {
    Key::new(Kind::Tag, image)
}
