//! Who moved a tag last, and who may move it.
//!
//! No registry can fence a write, so the store says who may write a tag before it is written. A run of an older generation
//! of the same fact never moves a tag that a newer one has moved. Whoever may have written after, or beside, another
//! reads the tag once more before it is done, and puts it right: see [`settle`].

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
    /// Which attempt of it.
    attempt: u32,
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
                    attempt,
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
        (self.run, self.attempt) = (run.id, attempt);
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

/// What must be at rest under a tag, and is in doubt: read the tag and put it right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// What must be there.
    pub rests_at: Digest,
    /// The tag's record when this was said: what is put right by now counts only if nobody was let in since.
    version: u64,
}

/// Says that an attempt writes a tag no more. `digest` is what it moved the tag to, if it was let in; a later attempt
/// of a run that was let in earlier speaks for that one.
///
/// Answers what must be at rest there when another's write may have come before or beside its own; nothing is recorded
/// then. Put that right, and say so again with the doubt that is `cleared`: a newer run may have been let in meanwhile.
/// `None`: nothing is left to do.
///
/// # Errors
/// [`StoreError`].
pub async fn settle(
    store: &dyn Store,
    image: &ImageReference,
    (run, attempt): (RunId, u32),
    digest: Option<&Digest>,
    cleared: Option<&Doubt>,
) -> Result<Option<Doubt>, StoreError> {
    let key = key(image);
    loop {
        let Some(mut tag) = codec::load::<Tag>(store, &key).await? else { return Ok(None) };
        let own = digest.filter(|_| (tag.value.run, tag.value.attempt) == (run, attempt));
        let version = tag.version;
        if let Some(rests_at) = tag.value.doubt((run, attempt), own)
            && cleared.is_none_or(|doubt| doubt.version != version)
        {
            return Ok(Some(Doubt { rests_at, version }));
        }
        tag.value.release((run, attempt), own);
        let mut batch = Batch::default();
        tag.replace_in(&mut batch, key.clone())?;
        match store.commit(batch).await {
            Ok(()) => return Ok(None),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

impl Tag {
    /// What must be there though somebody else's write may have come last. `own` is the digest of who was let in last.
    fn doubt(&self, writer: (RunId, u32), own: Option<&Digest>) -> Option<Digest> {
        match own {
            Some(digest) => {
                let is_alone = self.writers.iter().all(|other| *other == writer);
                (self.contested || !is_alone).then(|| digest.clone())
            }
            // Who was let in last is done: this one may have written over it.
            None => self.rests_at.clone(),
        }
    }

    fn release(&mut self, writer: (RunId, u32), own: Option<&Digest>) {
        match own {
            Some(digest) => {
                self.rests_at = Some(digest.clone());
                self.contested = false;
                // One that is alive looks here itself when it is done. One that is dead has been answered by the reading.
                self.writers.clear();
            }
            None => {
                self.writers.retain(|other| *other != writer);
                // Who was let in last is not done: it is to look, for this one has not.
                self.contested |= self.rests_at.is_none();
            }
        }
    }
}

fn key(image: &ImageReference) -> Key {
    Key::new(Kind::Tag, image)
}
