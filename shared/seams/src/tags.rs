//! Records which run last moved each tag, and decides which run may move it.
//!
//! Registries offer no conditional writes, so the store grants permission before a tag is written. A run never moves a
//! tag that a run built on a newer generation of the same fact has already moved. A write may have landed after or
//! beside another one; such a writer re-reads the tag when it is done and corrects it: see [`settle`].

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

/// A writer of a tag: one step of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The run that writes.
    pub run: RunId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The step of that attempt.
    pub step: StepId,
}

/// The record of one tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tag {
    /// The writer admitted last, whether or not it has written yet.
    last: Writer,
    /// Whether a run built on a fact has ever moved the tag.
    has_facts: bool,
    /// Admitted writers that have not settled yet.
    writers: Vec<Writer>,
    /// Whether the last writer was admitted while another one had not settled: either write may have landed last.
    #[serde(default)]
    contested: bool,
    /// The digest that the last writer left, once it has settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rests_at: Option<Digest>,
}

/// The newest generation of one fact that moved one tag. A separate record, since any number of branches may push one
/// tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TagFact {
    generation: u64,
    run: RunId,
}

/// Which of the requested tags a run may move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// The facts that the run is built on are not resolved yet. Nothing was claimed: ask again soon.
    Undecided,
    /// Some of the tags, possibly none or all.
    Given {
        /// The run moves these now.
        images: Vec<ImageReference>,
        /// The run must leave these alone.
        superseded: Vec<SupersededTag>,
    },
}

/// Adds claims to the batch for those of `images` that a step of `run` may move. A forced run may move all of them.
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

/// Whether a run may move a tag, given the runs that moved it before.
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
        // An upload or an archive has no history, so it cannot be older than anything.
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

/// Records the generation, unless a newer one is recorded: a forced run may be older than the run that moved the tag.
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

/// Removes tag facts last written before `before`, at most `limit`. Returns how many.
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

/// A tag that may point to the wrong digest: read it and correct it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The digest that the tag must point to.
    pub rests_at: Digest,
    /// The version of the tag's record at that moment. A correction only counts if no writer was admitted since.
    version: u64,
}

/// Records that `writer` will not write the tag again. `digest` is what it moved the tag to, or `None` if it did not. A
/// later attempt settles for an earlier attempt of its run.
///
/// Returns a [`Doubt`], and records nothing, when another write may have landed beside or after this one. Correct the
/// tag, then call again with that doubt as `cleared`; the second call may return a new doubt if another writer was
/// admitted in between. `None` means that nothing is left to do.
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
    /// The digest that must be there, if another write may have landed last. `own` is this writer's digest, if it was
    /// admitted last.
    fn doubt(&self, writer: &Writer, own: Option<&Digest>) -> Option<Digest> {
        match own {
            Some(digest) => {
                let is_alone = self.writers.iter().all(|other| other == writer);
                (self.contested || !is_alone).then(|| digest.clone())
            }
            // The last writer has settled, and this one may have overwritten it.
            None => self.rests_at.clone(),
        }
    }

    fn release(&mut self, writer: &Writer, own: Option<&Digest>) {
        match own {
            Some(digest) => {
                self.rests_at = Some(digest.clone());
                self.contested = false;
                // Writers that are alive check the tag when they settle. The read that led here already covers those
                // that died.
                self.writers.clear();
            }
            None => {
                self.writers.retain(|other| other != writer);
                // The last writer has not settled: mark the tag, so that it re-reads the tag then. This writer did not
                // read it.
                self.contested |= self.rests_at.is_none();
            }
        }
    }
}

fn key(image: &ImageReference) -> Key {
    Key::new(Kind::Tag, image)
}
