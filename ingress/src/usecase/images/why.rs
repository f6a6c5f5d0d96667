//! Where an image comes from, and what was built on it.

use std::collections::{BTreeSet, VecDeque};

use gantry_domain::image::{Digest, ImageReference};
use gantry_domain::lineage::{BaseImage, Lineage, OutputImage};
use gantry_domain::run::Run;
use gantry_domain::tracked_image::TrackedImage;
use gantry_domain::wave::{LastBuild, NodeTask, Wave};
use gantry_seams::image_users::{self, User, Which};
use gantry_seams::runs::RunFilter;
use gantry_seams::store::{Store, StoreError};
use gantry_seams::{image_watches, last_builds, lineages, runs, waves};

use super::registries::VisibleRegistries;
use super::{MOST_USERS, facts_of};
use crate::access::{Allowed, Read};
use crate::refusal::Refusal;
use crate::state::State;

/// How many origins and how many children are listed.
const MOST_ORIGINS: usize = 200;
const MOST_CHILDREN: usize = 500;

/// How many of the newest runs that pushed to a repository are searched for a tag.
const MOST_PUSHES: usize = 100;

/// Where an image comes from, and what was built on it.
#[derive(Debug)]
pub(crate) struct Why {
    /// The image, if it was asked for by its name.
    pub(crate) image: Option<ImageReference>,
    pub(crate) digest: Digest,
    pub(crate) origin: Option<Origin>,
    pub(crate) upstream: Vec<Origin>,
    pub(crate) children: Vec<Child>,
    pub(crate) is_cut: bool,
}

/// How an image was built.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) depth: usize,
    pub(crate) lineage: Lineage,
    /// The run, as long as it is kept.
    pub(crate) run: Option<Run>,
    /// The wave of the run, as long as it is kept.
    pub(crate) wave: Option<Wave>,
}

/// A task whose last build is based on an image.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) depth: usize,
    pub(crate) task: NodeTask,
    pub(crate) on: OutputImage,
    pub(crate) build: LastBuild,
    pub(crate) made: Vec<OutputImage>,
}

/// What was asked for: a tag with all that it has, or a digest.
struct Asked {
    image: Option<ImageReference>,
    /// The digests of one and the same image: that of an index, and those of its platforms.
    digests: Vec<Digest>,
}

/// Where an image comes from, and what was built on it. It is named by a digest, or by its name with a digest or a tag; a
/// tag means what it has now.
pub(crate) async fn why(
    state: &State,
    allowed: &Allowed<Read>,
    image: &str,
) -> Result<Why, Refusal> {
    let reader = Reader {
        store: state.store.as_ref(),
        allowed,
        registries: VisibleRegistries::read(state.store.as_ref(), allowed).await?,
    };
    let absent = || Refusal::NotFound { what: "image", name: image.to_owned() };
    let asked = reader.asked(image).await?.ok_or_else(absent)?;
    let mut origin = None;
    for digest in &asked.digests {
        origin = reader.origin(digest, 0).await?;
        if origin.is_some() {
            break;
        }
    }
    let (upstream, more_origins) = reader.upstream(origin.as_ref()).await?;
    let (children, more_children) = reader.children(&asked, origin.as_ref()).await?;
    let is_by_digest = image.contains("sha256:");
    if is_by_digest && origin.is_none() && children.is_empty() {
        return Err(absent());
    }
    let digest = origin.as_ref().map(|origin| &origin.lineage.digest).or(asked.digests.first());
    let digest = digest.cloned().ok_or_else(absent)?;
    let is_cut = more_origins || more_children;
    Ok(Why { image: asked.image, digest, origin, upstream, children, is_cut })
}

struct Reader<'a> {
    store: &'a dyn Store,
    allowed: &'a Allowed<Read>,
    registries: VisibleRegistries,
}

impl Reader<'_> {
    async fn asked(&self, text: &str) -> Result<Option<Asked>, Refusal> {
        if let Ok(digest) = text.parse::<Digest>() {
            return Ok(Some(Asked { image: None, digests: vec![digest] }));
        }
        for image in self.registries.meanings(text)? {
            let digests = match image.digest() {
                Some(digest) => vec![digest.clone()],
                None => self.digests_of(&image).await?,
            };
            if !digests.is_empty() {
                return Ok(Some(Asked { image: Some(image), digests }));
            }
        }
        Ok(None)
    }

    /// What a tag has now: what registries answered, or else what a run pushed last.
    async fn digests_of(&self, image: &ImageReference) -> Result<Vec<Digest>, StoreError> {
        let Some(tag) = TrackedImage::tag_of(image) else { return Ok(Vec::new()) };
        let (users, _) = self.registries.users(self.store, &tag, Which::All, MOST_USERS).await?;
        let facts = facts_of(self.store, &self.registries, &tag, &users).await?;
        let mut digests: Vec<Digest> = Vec::new();
        for (_, _, fact) in facts {
            digests.extend(fact.value.map(|version| version.digest));
        }
        let logged_in = image_users::logged_in(self.store, &tag, MOST_USERS).await?;
        let watch_of = |user: &User| self.registries.watch_of(user.registry, &tag, &logged_in);
        let watches: BTreeSet<_> = users.iter().filter_map(watch_of).collect();
        for watched in watches {
            let watch = image_watches::find(self.store, &watched).await?;
            digests.extend(watch.and_then(|watch| watch.value.digest));
        }
        if digests.is_empty() {
            digests.extend(self.last_pushed(image).await?);
        }
        Ok(digests)
    }

    async fn last_pushed(&self, image: &ImageReference) -> Result<Option<Digest>, StoreError> {
        let mut newest: Option<(Run, Digest)> = None;
        for registry in self.registries.prefixes() {
            let repository = Some(image.repository().to_string());
            let filter = RunFilter { registry, image: repository, ..RunFilter::default() };
            let pushes = runs::list(self.store, &filter, None, MOST_PUSHES).await?;
            let found = pushes.into_iter().find_map(|run| {
                let output = outputs(&run).iter().find(|output| output.image == *image)?;
                let digest = output.digest.clone();
                Some((run, digest))
            });
            if let Some(found) = found
                && newest.as_ref().is_none_or(|(newest, _)| newest.created < found.0.created)
            {
                newest = Some(found);
            }
        }
        Ok(newest.map(|(_, digest)| digest))
    }

    /// How a digest was built, if a run that the caller sees pushed it.
    async fn origin(&self, digest: &Digest, depth: usize) -> Result<Option<Origin>, StoreError> {
        let found = lineages::find(self.store, digest).await?;
        let Some(lineage) = found.filter(|lineage| self.allowed.sees(lineage)) else {
            return Ok(None);
        };
        let run = runs::find(self.store, lineage.run).await?;
        let wave = match run.as_ref().and_then(|run| run.cause.wave()) {
            Some(wave) => waves::find(self.store, wave).await?.map(|found| found.value),
            None => None,
        };
        Ok(Some(Origin { depth, lineage, run, wave }))
    }

    /// How the bases of an image were built, and theirs; and whether there are more.
    async fn upstream(&self, of: Option<&Origin>) -> Result<(Vec<Origin>, bool), StoreError> {
        let with_depth = |origin: &Origin| {
            let depth = origin.depth + 1;
            origin.lineage.bases.iter().map(|base| (depth, base.clone())).collect::<Vec<_>>()
        };
        let mut open: VecDeque<(usize, BaseImage)> = of.into_iter().flat_map(with_depth).collect();
        let (mut seen, mut origins) = (BTreeSet::new(), Vec::new());
        while let Some((depth, base)) = open.pop_front() {
            if !seen.insert(base.digest.clone()) {
                continue;
            }
            if origins.len() == MOST_ORIGINS {
                return Ok((origins, true));
            }
            if let Some(origin) = self.origin(&base.digest, depth).await? {
                open.extend(with_depth(&origin));
                origins.push(origin);
            }
        }
        Ok((origins, false))
    }

    /// The tasks whose last build is based on an image, and those based on theirs; and whether there are more.
    async fn children(
        &self,
        asked: &Asked,
        origin: Option<&Origin>,
    ) -> Result<(Vec<Child>, bool), StoreError> {
        let pushed = origin.into_iter().flat_map(|origin| &origin.lineage.images);
        let names: BTreeSet<ImageReference> =
            pushed.chain(&asked.image).filter_map(ImageReference::unpinned).collect();
        let mut open: VecDeque<(usize, ImageReference, Vec<Digest>)> =
            names.into_iter().map(|name| (1, name, asked.digests.clone())).collect();
        let (mut seen, mut children) = (BTreeSet::new(), Vec::new());
        while let Some((depth, name, digests)) = open.pop_front() {
            let mut users = Vec::new();
            for tracked in self.registries.tracking(self.store, &name).await? {
                let of = self.registries.users(self.store, &tracked, Which::All, MOST_USERS);
                let (found, has_more) = of.await?;
                if has_more {
                    return Ok((children, true));
                }
                users.extend(found);
            }
            for task in users.iter().filter_map(|user| self.registries.task_of(user)) {
                let Some(build) = last_builds::find(self.store, &task).await? else { continue };
                let used = build
                    .used
                    .iter()
                    .find(|used| used.image.may_be(&name) && digests.contains(&used.digest));
                let Some(used) = used.filter(|_| seen.insert(task.clone())) else { continue };
                if children.len() == MOST_CHILDREN {
                    return Ok((children, true));
                }
                let (image, digest) = (name.clone(), used.digest.clone());
                let on = OutputImage { image, digest, children: Vec::new() };
                let run = runs::find(self.store, build.run).await?;
                let made = run.as_ref().map(outputs).unwrap_or_default().to_vec();
                open.extend(made.iter().filter_map(|output| {
                    Some((depth + 1, output.image.unpinned()?, vec![output.digest.clone()]))
                }));
                children.push(Child { depth, task, on, build, made });
            }
        }
        Ok((children, false))
    }
}

/// The images that a run pushed.
fn outputs(run: &Run) -> &[OutputImage] {
    let product = run.state.done().and_then(|done| done.outcome.product());
    product.map_or(&[], |product| &product.outputs)
}
