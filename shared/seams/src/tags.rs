//! Who moved a tag last, and who may move it.
//!
//! No registry can fence a write, so the store says who may write a tag before it is written. A run never moves a tag that a
//! run of a newer generation of the same fact has moved. Whoever may have written after, or beside, another reads the tag
//! once more before it is done, and puts it right: see [`settle`].

use gantry_domain::built_on::{BuiltOn, FactVersion};
use gantry_domain::fact::FactKey;
use gantry_domain::id::{RunId, StepId};
use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::run::{KeptBecause, Run, SupersededTag};
use gantry_domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::retry::{self, Plan};
use crate::store::{Batch, From, Index, Key, Kind, Store, StoreError};

/// Who writes a tag: a step of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The run.
    pub run: RunId,
    /// Which attempt of it.
    pub attempt: u32,
    /// Which step of that.
    pub step: StepId,
}

/// Who moved a tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tag {
    /// Who moved it last, or is about to.
    last: Writer,
    /// Whether a run that was built on a fact has ever moved it.
    has_facts: bool,
    /// Those who were allowed to write and have not said that they are done.
    writers: Vec<Writer>,
    /// Whether an earlier writer was not yet done when the last one was let in: either may have written last.
    #[serde(default)]
    contested: bool,
    /// Where the last writer that said it was done left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rests_at: Option<Digest>,
}

/// The newest generation of one fact that moved one tag. A record of its own, since any number of branches may push one tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TagFact {
    generation: u64,
    run: RunId,
}

/// What a run may do with the tags that it was asked to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// It is not known yet what the run was built on, and that decides: nothing was claimed. Ask again soon.
    Undecided,
    /// Some of the tags, or all.
    Given {
        /// These it moves now.
        images: Vec<ImageReference>,
        /// These it leaves alone.
        superseded: Vec<SupersededTag>,
    },
}

/// Adds to the batch that a step of `run` is about to move `images`, as far as it may. A forced run may move all of them.
pub(crate) async fn claim(
    store: &dyn Store,
    batch: &mut Batch,
    run: &Run,
    writer: &Writer,
    images: &[ImageReference],
    now: Timestamp,
) -> Result<Permit, StoreError> {
    let (mut moved, mut superseded) = (Vec::new(), Vec::new());
    let mut claims = Batch::default();
    for image in images {
        let key = key(image);
        let found = codec::load::<Tag>(store, &key).await?;
        let tag = found.as_ref().map(|found| &found.value);
        let standing = standing(store, run, image, tag).await?;
        match standing {
            _ if run.force_tags => {}
            Standing::MayMove => {}
            Standing::Undecided => return Ok(Permit::Undecided),
            Standing::Kept { by, because } => {
                superseded.push(SupersededTag { image: image.clone(), by, because });
                continue;
            }
        }
        moved.push(image.clone());
        for built_on in run.built_on.facts() {
            record_fact(store, &mut claims, image, built_on, run.id, now).await?;
        }
        match found {
            Some(mut tag) => {
                tag.value.claim(run, writer);
                tag.replace_in(&mut claims, key)?;
            }
            None => {
                let mut tag = Tag {
                    last: writer.clone(),
                    has_facts: false,
                    writers: Vec::new(),
                    contested: false,
                    rests_at: None,
                };
                tag.claim(run, writer);
                claims.create(key.clone(), codec::encode(&key, &tag)?);
            }
        }
    }
    batch.append(claims);
    Ok(Permit::Given { images: moved, superseded })
}

/// Where a run stands beside those that moved a tag before it.
enum Standing {
    MayMove,
    Undecided,
    Kept { by: RunId, because: KeptBecause },
}

async fn standing(
    store: &dyn Store,
    run: &Run,
    image: &ImageReference,
    tag: Option<&Tag>,
) -> Result<Standing, StoreError> {
    let Some(tag) = tag.filter(|tag| tag.has_facts) else { return Ok(Standing::MayMove) };
    match &run.built_on {
        // An upload or an archive has no history that it could be older in.
        BuiltOn::Unread => Ok(Standing::MayMove),
        BuiltOn::Read(_) => Ok(Standing::Undecided),
        BuiltOn::Unknown => {
            Ok(Standing::Kept { by: tag.last.run, because: KeptBecause::CommitUnknown })
        }
        BuiltOn::Facts { facts } => {
            for built_on in facts {
                let moved = find_fact(store, image, &built_on.fact).await?;
                if let Some(newer) = moved.filter(|moved| moved.generation > built_on.generation) {
                    return Ok(Standing::Kept { by: newer.run, because: KeptBecause::NewerChange });
                }
            }
            Ok(Standing::MayMove)
        }
    }
}

async fn find_fact(
    store: &dyn Store,
    image: &ImageReference,
    fact: &FactKey,
) -> Result<Option<TagFact>, StoreError> {
    Ok(codec::load(store, &fact_key(image, fact)).await?.map(|found| found.value))
}

/// A forced run is older than what moved the tag before: the newest generation stays recorded.
async fn record_fact(
    store: &dyn Store,
    batch: &mut Batch,
    image: &ImageReference,
    built_on: &FactVersion,
    run: RunId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let key = fact_key(image, &built_on.fact);
    let moved = TagFact { generation: built_on.generation, run };
    match codec::load::<TagFact>(store, &key).await? {
        Some(found) if found.value.generation > moved.generation => return Ok(()),
        Some(mut found) => {
            found.value = moved;
            found.replace_in(batch, key.clone())?;
        }
        None => batch.create(key.clone(), codec::encode(&key, &moved)?),
    }
    batch.index(facts_by_age(), now.as_millis(), &key.id);
    Ok(())
}

/// Forgets the facts of tags that were last moved before `before`, at most `limit`. Answers how many.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    store: &dyn Store,
    before: Timestamp,
    limit: usize,
) -> Result<usize, StoreError> {
    let entries = store.range(&facts_by_age(), From::Start, limit).await?;
    let mut batch = Batch::default();
    for entry in entries.iter().take_while(|entry| entry.score < before.as_millis()) {
        batch.delete.push(Key::new(Kind::TagFact, &entry.member));
        batch.unindex(facts_by_age(), &entry.member);
    }
    let count = batch.delete.len();
    if count > 0 {
        crate::collection::commit_unconditional(store, batch).await?;
    }
    Ok(count)
}

fn fact_key(image: &ImageReference, fact: &FactKey) -> Key {
    Key::new(Kind::TagFact, format_args!("{image} {fact}"))
}

fn facts_by_age() -> Index {
    Index::new("tag-facts/age")
}

impl Tag {
    fn claim(&mut self, run: &Run, by: &Writer) {
        self.last = by.clone();
        self.rests_at = None;
        self.has_facts |= !run.built_on.facts().is_empty();
        self.writers.retain(|writer| writer != by);
        self.contested |= !self.writers.is_empty();
        self.writers.push(by.clone());
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

/// Says that a step writes a tag no more. `digest` is what it moved the tag to, if it was let in; a later attempt
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
    writer: &Writer,
    digest: Option<&Digest>,
    cleared: Option<&Doubt>,
) -> Result<Option<Doubt>, StoreError> {
    let key = key(image);
    retry::commit(store, &key, || async {
        let Some(mut tag) = codec::load::<Tag>(store, &key).await? else {
            return Ok(Plan::Answer(None));
        };
        let own = digest.filter(|_| tag.value.last == *writer);
        let version = tag.version;
        if let Some(rests_at) = tag.value.doubt(writer, own)
            && cleared.is_none_or(|doubt| doubt.version != version)
        {
            return Ok(Plan::Answer(Some(Doubt { rests_at, version })));
        }
        tag.value.release(writer, own);
        let mut batch = Batch::default();
        tag.replace_in(&mut batch, key.clone())?;
        Ok(Plan::Commit(batch, None))
    })
    .await
}

impl Tag {
    /// What must be there though somebody else's write may have come last. `own` is the digest of who was let in last.
    fn doubt(&self, writer: &Writer, own: Option<&Digest>) -> Option<Digest> {
        match own {
            Some(digest) => {
                let is_alone = self.writers.iter().all(|other| other == writer);
                (self.contested || !is_alone).then(|| digest.clone())
            }
            // Who was let in last is done: this one may have written over it.
            None => self.rests_at.clone(),
        }
    }

    fn release(&mut self, writer: &Writer, own: Option<&Digest>) {
        match own {
            Some(digest) => {
                self.rests_at = Some(digest.clone());
                self.contested = false;
                // One that is alive looks here itself when it is done. One that is dead has been answered by the reading.
                self.writers.clear();
            }
            None => {
                self.writers.retain(|other| other != writer);
                // Who was let in last is not done: it is to look, for this one has not.
                self.contested |= self.rests_at.is_none();
            }
        }
    }
}

fn key(image: &ImageReference) -> Key {
    Key::new(Kind::Tag, image)
}
