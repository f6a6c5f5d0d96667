//! What a build is made of, from the texts of a request: checked all at once, secrets sealed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use gantry_domain::id::{RunId, RunPrefix, UploadId};
use gantry_domain::image::{ImageReference, RegistryHost};
use gantry_domain::platform::Platform;
use gantry_domain::registry::Registry;
use gantry_domain::sealed::Sealed;
use gantry_domain::source::{Source, SourcePath};
use gantry_domain::task::{ArgName, RunTimeout, SourceTrigger, Status};
use gantry_domain::template::{RunVariables, Template};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::secret::{Keyring, SecretError, SecretString};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::uploads;

use super::types;
use crate::error::Mistakes;

const MOST_IMAGES: usize = 32;
const MOST_ARGS: usize = 256;
const LONGEST_SECRET: usize = 64 * 1024;

/// Checks fields of one request for one registry; what is wrong with them is noted.
pub(crate) struct Checker<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) keyring: &'a Keyring,
    pub(crate) mistakes: Mistakes,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(registry: &'a Registry, keyring: &'a Keyring) -> Self {
        Self { registry, keyring, mistakes: Mistakes::default() }
    }

    /// An address to build from.
    pub(crate) fn context(&mut self, text: &str) -> Option<Source> {
        self.mistakes.parse("context", text)
    }

    /// An address or an upload: exactly one is needed.
    pub(crate) async fn source(
        &mut self,
        store: &dyn Store,
        context: Option<&str>,
        upload: Option<&str>,
    ) -> Result<Option<Source>, StoreError> {
        match (context, upload) {
            (Some(context), None) => Ok(self.context(context)),
            (None, Some(upload)) => self.upload(store, upload).await,
            (None, None) => {
                self.mistakes.add("context", "give a `context` or an `upload` to build from");
                Ok(None)
            }
            (Some(_), Some(_)) => {
                self.mistakes.add("upload", "give a `context` or an `upload`, not both");
                Ok(None)
            }
        }
    }

    async fn upload(
        &mut self,
        store: &dyn Store,
        text: &str,
    ) -> Result<Option<Source>, StoreError> {
        let Some(id) = self.mistakes.parse::<UploadId>("upload", text) else {
            return Ok(None);
        };
        match uploads::find(store, &id).await? {
            Some(found) if found.registry == self.registry.name => {
                Ok(Some(Source::Upload { upload: id }))
            }
            _ => {
                let message = format!(
                    "there is no upload `{id}` for registry {}: upload it again",
                    self.registry.name
                );
                self.mistakes.add("upload", message);
                Ok(None)
            }
        }
    }

    pub(crate) fn dockerfile(&mut self, text: &str) -> Option<SourcePath> {
        let text = text.strip_prefix("./").unwrap_or(text);
        self.mistakes.parse("dockerfile", text)
    }

    /// The image's names: each must become a reference, whatever the run.
    pub(crate) fn images(&mut self, texts: &[String]) -> Option<Vec<Template>> {
        if texts.len() > MOST_IMAGES {
            let message = format!("at most {MOST_IMAGES} names");
            self.mistakes.add("images", message);
            return None;
        }
        Some(texts.iter().filter_map(|text| self.image(text)).collect())
    }

    fn image(&mut self, text: &str) -> Option<Template> {
        let template: Template = self.mistakes.parse("images", text)?;
        let rendered = template.render(&sample_run(&self.registry.host));
        let image = ImageReference::parse_in(&rendered, &self.registry.host);
        let image = self.mistakes.check("images", image)?;
        if image.digest().is_some() {
            let message = format!("`{text}` has a digest: what is pushed has a tag");
            self.mistakes.add("images", message);
            return None;
        }
        Some(template)
    }

    pub(crate) fn build_args(
        &mut self,
        args: &BTreeMap<String, String>,
    ) -> Option<BTreeMap<ArgName, Template>> {
        self.check_count("build_args", args.len())?;
        let mut checked = BTreeMap::new();
        for (name, value) in args {
            let name = self.mistakes.parse("build_args", name);
            let value = self.mistakes.parse("build_args", value);
            checked.extend(name.zip(value));
        }
        Some(checked)
    }

    pub(crate) fn secret_build_args(
        &mut self,
        args: &BTreeMap<String, String>,
    ) -> Result<Option<BTreeMap<ArgName, Sealed>>, SecretError> {
        if self.check_count("secret_build_args", args.len()).is_none() {
            return Ok(None);
        }
        let mut checked = BTreeMap::new();
        for (name, value) in args {
            let name = self.mistakes.parse::<ArgName>("secret_build_args", name);
            let value = self.secret("secret_build_args", value)?;
            checked.extend(name.zip(value));
        }
        Ok(Some(checked))
    }

    fn check_count(&mut self, target: &str, count: usize) -> Option<()> {
        if count > MOST_ARGS {
            let message = format!("at most {MOST_ARGS} arguments");
            self.mistakes.add(target, message);
            return None;
        }
        Some(())
    }

    /// The token for a git repository.
    pub(crate) fn git_token(&mut self, text: &str) -> Result<Option<Sealed>, SecretError> {
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let message = "a token has no space and no control character in it";
            self.mistakes.add("git_token", message);
            return Ok(None);
        }
        self.secret("git_token", text)
    }

    /// Seals a secret for this registry: it opens for no other.
    pub(crate) fn secret(
        &mut self,
        target: &str,
        text: &str,
    ) -> Result<Option<Sealed>, SecretError> {
        if text.len() > LONGEST_SECRET {
            let message = format!("at most {LONGEST_SECRET} bytes");
            self.mistakes.add(target, message);
            return Ok(None);
        }
        let bound_to = Registry::seals_for(&self.registry.name);
        self.keyring.seal(&bound_to, &SecretString::from(text)).map(Some)
    }

    pub(crate) fn platform(&mut self, text: &str) -> Option<Platform> {
        self.mistakes.parse("platform", text)
    }

    pub(crate) fn timeout(&mut self, seconds: u32) -> Option<RunTimeout> {
        self.mistakes.check("timeout", RunTimeout::from_seconds(seconds))
    }

    pub(crate) fn run_limit(&mut self, limit: u32) -> Option<NonZeroU32> {
        let limit = NonZeroU32::new(limit).ok_or("at least 1: to stop runs, disable the task");
        self.mistakes.check("run_limit", limit)
    }

    pub(crate) fn status(&mut self, target: &str, text: &str) -> Option<Status> {
        let status = match text.to_ascii_lowercase().as_str() {
            "enabled" => Ok(Status::Enabled),
            "disabled" => Ok(Status::Disabled),
            _ => Err(format!("`{text}` is no status: `Enabled` or `Disabled`")),
        };
        self.mistakes.check(target, status)
    }

    pub(crate) fn source_trigger(
        &mut self,
        trigger: &types::SourceTrigger,
    ) -> Option<SourceTrigger> {
        if trigger.name.is_empty() || trigger.name.len() > 100 {
            self.mistakes.add("source_trigger.name", "1 to 100 characters");
        }
        let branch = trigger.branch.as_deref();
        let branch = branch.and_then(|branch| self.mistakes.parse("source_trigger.branch", branch));
        let status = self.status("source_trigger.status", &trigger.status)?;
        Some(SourceTrigger { name: trigger.name.clone(), branch, status })
    }

    /// What fields must hold together.
    pub(crate) fn together(&mut self, whole: &Whole<'_>) {
        if whole.push && whole.images.is_empty() {
            self.mistakes.add("images", "name at least one image to push, or set `push` to false");
        }
        let is_git = matches!(whole.source, Source::Git(_));
        if whole.has_source_trigger && !is_git {
            let message = "a source trigger needs a git repository as context";
            self.mistakes.add("source_trigger", message);
        }
        if whole.has_git_token && !is_git {
            let message = "a git token needs a git repository as context";
            self.mistakes.add("git_token", message);
        }
    }
}

/// Fields that must fit each other.
pub(crate) struct Whole<'a> {
    pub(crate) source: &'a Source,
    pub(crate) images: &'a [Template],
    pub(crate) push: bool,
    pub(crate) has_source_trigger: bool,
    pub(crate) has_git_token: bool,
}

/// Some run, to see what a template becomes.
fn sample_run(host: &RegistryHost) -> RunVariables<'_> {
    static SAMPLE: std::sync::LazyLock<(Platform, Option<gantry_domain::source::CommitId>)> =
        std::sync::LazyLock::new(|| (Platform::default(), "1".repeat(40).parse().ok()));
    static NAMES: std::sync::LazyLock<(
        Option<gantry_domain::source::RefName>,
        Option<gantry_domain::id::TaskName>,
    )> = std::sync::LazyLock::new(|| ("main".parse().ok(), "task".parse().ok()));
    RunVariables {
        id: RunId::new(RunPrefix::nth(0), 1),
        registry: host,
        date: Timestamp::from_millis(0),
        platform: &SAMPLE.0,
        commit: SAMPLE.1.as_ref(),
        branch: NAMES.0.as_ref(),
        task: NAMES.1.as_ref(),
    }
}
