//! Checks the fields of a build in a request, collects all mistakes, and seals secrets.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::LazyLock;

use gantry_domain::InvalidText;
use gantry_domain::id::{GroupName, RunId, RunPrefix, TaskName, UploadId};
use gantry_domain::image::{ImageReference, RegistryHost};
use gantry_domain::platform::Platform;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{ArgName, RunTimeout};
use gantry_domain::registry::Registry;
use gantry_domain::sealed::Sealed;
use gantry_domain::source::{CommitId, RefKind, RefName, Source, SourcePath};
use gantry_domain::task::Status;
use gantry_domain::template::{ArgValue, RunVariables, Template};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::bundle::MOST_SECRET_BYTES;
use gantry_ops::secret::{ExposeSecret as _, Keyring, SecretError, SecretString, deploy_key};
use gantry_seams::store::{Store, StoreError};
use gantry_seams::uploads;

use crate::refusal::{Mistakes, Refusal};

mod build;
mod file;
mod logins;
mod parts;
mod timers;
mod trigger;
mod whole;

pub(crate) use file::lint;
pub(crate) use parts::needs_files;
pub(crate) use whole::Whole;

const MOST_IMAGES: usize = 32;
const MOST_ARGS: usize = 256;
/// A host has one key of each kind, and others while it replaces them.
const MOST_HOST_KEYS: usize = 8;
/// Longer secrets could not be masked in logs.
const LONGEST_SECRET: usize = MOST_SECRET_BYTES;

/// Checks the fields of one request for one registry, and records the mistakes.
pub(crate) struct Checker<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) keyring: &'a Keyring,
    pub(crate) mistakes: Mistakes,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(registry: &'a Registry, keyring: &'a Keyring) -> Self {
        Self { registry, keyring, mistakes: Mistakes::default() }
    }

    /// A source address. The query of an archive's URL may be a signature that grants access, so it is sealed.
    pub(crate) fn context(&mut self, text: &str) -> Result<Option<Source>, SecretError> {
        let mut source: Option<Source> = self.mistakes.parse("context", text);
        if let Some(Source::Tarball { url, query }) = &mut source
            && let Some(plain) = url.take_query()
        {
            *query = Some(self.seal(&plain)?);
        }
        Ok(source)
    }

    /// Whether the files of a source that Git LFS keeps are fetched.
    pub(crate) fn lfs(&mut self, source: &mut Source, wanted: bool) {
        match source {
            Source::Git(git) if wanted && git.url.is_ssh() => {
                let message = "files of Git LFS are not fetched over ssh: give the `https://` address of the repository as context";
                self.mistakes.add("lfs", message);
            }
            Source::Git(git) => git.lfs = wanted,
            _ if !wanted => {}
            Source::Upload { .. }
            | Source::Tarball { .. }
            | Source::Artifact { .. }
            | Source::Nothing => {
                let message = "only a git repository has files of Git LFS: give the address of one as context";
                self.mistakes.add("lfs", message);
            }
        }
    }

    /// Whether the submodules of a source are fetched as well.
    pub(crate) fn submodules(&mut self, source: &mut Source, wanted: bool) {
        match source {
            Source::Git(git) => git.submodules = wanted,
            _ if !wanted => {}
            Source::Upload { .. }
            | Source::Tarball { .. }
            | Source::Artifact { .. }
            | Source::Nothing => {
                let message =
                    "only a git repository has submodules: give the address of one as context";
                self.mistakes.add("submodules", message);
            }
        }
    }

    /// Pins the keys of the host of a git repository that is read over ssh.
    pub(crate) fn host_keys(&mut self, source: &mut Source, lines: &[String]) {
        const FIELD: &str = "git_host_keys";
        let keys = lines.iter().take(MOST_HOST_KEYS);
        let keys = keys.filter_map(|line| self.mistakes.parse(FIELD, line)).collect();
        if lines.len() > MOST_HOST_KEYS {
            let message =
                format!("{} keys are given: at most {MOST_HOST_KEYS} of one host", lines.len());
            self.mistakes.add(FIELD, message);
        }
        match source {
            Source::Git(git) if git.url.is_ssh() => git.host_keys = keys,
            _ if lines.is_empty() => {}
            Source::Git(_)
            | Source::Upload { .. }
            | Source::Tarball { .. }
            | Source::Artifact { .. }
            | Source::Nothing => {
                let message = "only a git repository that is read over ssh has them: give its address as context, like \
                               `ssh://git@host/repository.git`";
                self.mistakes.add(FIELD, message);
            }
        }
    }

    /// An address, an upload, or no files.
    pub(crate) async fn source_or_nothing(
        &mut self,
        store: &dyn Store,
        context: Option<&str>,
        upload: Option<&str>,
    ) -> Result<Option<Source>, Refusal> {
        match (context, upload) {
            (None, None) => Ok(Some(Source::Nothing)),
            given => self.source(store, given.0, given.1).await,
        }
    }

    /// An address or an upload; exactly one is required.
    pub(crate) async fn source(
        &mut self,
        store: &dyn Store,
        context: Option<&str>,
        upload: Option<&str>,
    ) -> Result<Option<Source>, Refusal> {
        match (context, upload) {
            (Some(context), None) => Ok(self.context(context)?),
            (None, Some(upload)) => Ok(self.upload(store, upload).await?),
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
                Ok(Some(Source::Upload { upload: id, digest: found.digest }))
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

    /// The image names. Each must become a valid reference in every run. `None` if one does not.
    pub(crate) fn images(&mut self, texts: &[String]) -> Option<Vec<Template>> {
        if texts.len() > MOST_IMAGES {
            let message = format!("{} names are given: at most {MOST_IMAGES}", texts.len());
            self.mistakes.add("images", message);
            return None;
        }
        let images: Vec<Template> = texts.iter().filter_map(|text| self.image(text)).collect();
        (images.len() == texts.len()).then_some(images)
    }

    fn image(&mut self, text: &str) -> Option<Template> {
        let template: Template = self.mistakes.parse("images", text)?;
        let rendered = template.render(&widest_run(&self.registry.host));
        let image = ImageReference::parse_in(&rendered, &self.registry.host)
            .map_err(|error| named(text, &rendered, &error));
        let image = self.mistakes.check("images", image)?;
        if image.digest().is_some() {
            let message =
                format!("`{text}` has a digest, which only the push can tell: give a tag instead");
            self.mistakes.add("images", message);
            return None;
        }
        Some(template)
    }

    pub(crate) fn build_args(
        &mut self,
        args: &BTreeMap<String, String>,
    ) -> Option<BTreeMap<ArgName, ArgValue>> {
        self.check_count("build_args", args.len())?;
        let mut checked = BTreeMap::new();
        for (name, value) in args {
            let value = value.parse::<ArgValue>().map_err(|error| format!("`{name}`: {error}"));
            let value = self.mistakes.check("build_args", value);
            checked.extend(self.arg_name("build_args", name).zip(value));
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
            let key = self.arg_name("secret_build_args", name);
            let value = match refuse_secret(value) {
                None => Some(self.seal(value)?),
                Some(why) => {
                    self.mistakes.add("secret_build_args", format!("`{name}`: {why}"));
                    None
                }
            };
            checked.extend(key.zip(value));
        }
        Ok(Some(checked))
    }

    fn arg_name(&mut self, target: &str, name: &str) -> Option<ArgName> {
        let name: ArgName = self.mistakes.parse(target, name)?;
        if let Some(remedy) = name.is_reserved() {
            self.mistakes.add(target, format!("`{name}` is set by gantry itself: {remedy}"));
            return None;
        }
        Some(name)
    }

    fn check_count(&mut self, target: &str, count: usize) -> Option<()> {
        if count > MOST_ARGS {
            let message = format!("{count} arguments are given: at most {MOST_ARGS}");
            self.mistakes.add(target, message);
            return None;
        }
        Some(())
    }

    /// The token for a git repository, if one is given; for one that is read over ssh, the deploy key.
    pub(crate) fn git_token(
        &mut self,
        text: Option<&str>,
        source: Option<&Source>,
    ) -> Result<Option<Sealed>, SecretError> {
        const FIELD: &str = "git_token";
        let Some(text) = text.filter(|_| source.is_some_and(Source::is_ssh)) else {
            return self.token(FIELD, text);
        };
        match deploy_key(text) {
            Ok(key) => self.secret(FIELD, key.expose_secret()),
            Err(why) => {
                let message = format!(
                    "a repository is read over ssh with a deploy key (`--git-ssh-key FILE`): {why}"
                );
                self.mistakes.add(FIELD, message);
                Ok(None)
            }
        }
    }

    /// The token for the API of a code host, if one is given.
    pub(crate) fn api_token(&mut self, text: Option<&str>) -> Result<Option<Sealed>, SecretError> {
        self.token("api_token", text)
    }

    fn token(&mut self, target: &str, text: Option<&str>) -> Result<Option<Sealed>, SecretError> {
        let Some(text) = text else { return Ok(None) };
        if text.starts_with("-----BEGIN") {
            let message = "a private key reads only a repository over ssh: give its address as context, like \
                           `ssh://git@host/repository.git`";
            self.mistakes.add(target, message);
            return Ok(None);
        }
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let message = "the token is empty or has a space or line break in it: give it as its host shows it";
            self.mistakes.add(target, message);
            return Ok(None);
        }
        self.secret(target, text)
    }

    /// Seals a secret for this registry only.
    pub(crate) fn secret(
        &mut self,
        target: &str,
        text: &str,
    ) -> Result<Option<Sealed>, SecretError> {
        if let Some(why) = refuse_secret(text) {
            self.mistakes.add(target, why);
            return Ok(None);
        }
        self.seal(text).map(Some)
    }

    fn seal(&self, text: &str) -> Result<Sealed, SecretError> {
        let bound_to = Registry::seals_for(self.registry.prefix);
        self.keyring.seal(&bound_to, &SecretString::from(text))
    }

    pub(crate) fn platforms(&mut self, text: &str) -> Option<Platforms> {
        self.mistakes.parse("platform", text)
    }

    pub(crate) fn timeout(&mut self, seconds: u32) -> Option<RunTimeout> {
        self.mistakes.check("timeout", RunTimeout::from_seconds(seconds))
    }

    pub(crate) fn run_limit(&mut self, limit: u32) -> Option<NonZeroU32> {
        let limit = NonZeroU32::new(limit)
            .ok_or("0 is no limit: at least 1; to stop runs, disable the task");
        self.mistakes.check("run_limit", limit)
    }

    pub(crate) fn concurrency_group(&mut self, name: &str) -> Option<GroupName> {
        self.mistakes.parse("concurrency_group", name)
    }

    pub(crate) fn status(&mut self, target: &str, text: &str) -> Option<Status> {
        let status = match text.to_ascii_lowercase().as_str() {
            "enabled" => Ok(Status::Enabled),
            "disabled" => Ok(Status::Disabled),
            _ => Err(format!("`{text}` is no status: `Enabled` or `Disabled`")),
        };
        self.mistakes.check(target, status)
    }
}

/// What kind of reference this is, if a push to a branch never moves it.
fn never_moves(reference: &RefName) -> Option<&'static str> {
    match reference.kind() {
        RefKind::DefaultBranch | RefKind::Branch(_) => None,
        RefKind::Tag => Some("a tag"),
        RefKind::Commit => Some("a commit"),
        RefKind::Other => Some("no branch"),
    }
}

/// Why a secret cannot be stored, without revealing it.
pub(crate) fn refuse_secret(text: &str) -> Option<String> {
    if text.len() > LONGEST_SECRET {
        return Some(format!("the secret has {} bytes: at most {LONGEST_SECRET}", text.len()));
    }
    text.contains('\0').then(|| "the secret contains a NUL character: remove it".to_owned())
}

/// The error of an image name: the name as written, and what it becomes if that differs.
fn named(text: &str, rendered: &str, error: &InvalidText) -> String {
    let of_variables =
        if text == rendered { String::new() } else { format!(", which becomes `{rendered}`") };
    match error.text == text {
        true => error.to_string(),
        false => format!("`{text}`{of_variables}: {error}"),
    }
}

fn sample_commit() -> Option<&'static CommitId> {
    static COMMIT: LazyLock<Option<CommitId>> = LazyLock::new(|| "1".repeat(40).parse().ok());
    COMMIT.as_ref()
}

fn sample_branch() -> Option<&'static RefName> {
    static BRANCH: LazyLock<Option<RefName>> = LazyLock::new(|| "main".parse().ok());
    BRANCH.as_ref()
}

/// A run with the longest possible variables, to check that a template's text still fits.
pub(crate) fn widest_run(host: &RegistryHost) -> RunVariables<'_> {
    static PLATFORM: LazyLock<Platform> = LazyLock::new(Platform::default);
    static TASK: LazyLock<Option<TaskName>> = LazyLock::new(|| "task".parse().ok());
    RunVariables {
        id: RunId::new(RunPrefix::nth(0), 9_999_999_999),
        registry: host,
        date: Timestamp::from_millis(0),
        platform: &PLATFORM,
        commit: sample_commit(),
        branch: sample_branch(),
        task: TASK.as_ref(),
        timer: None,
    }
}

/// Gives another context what stays with a task: whether submodules are fetched, and for the same repository the pinned
/// keys of its host.
pub(crate) fn keep_options(source: &mut Source, before: &Source) {
    if let Source::Git(git) = source {
        git.lfs = before.has_lfs();
        git.submodules = before.has_submodules();
        if before.git().is_some_and(|before| before.url == git.url) {
            git.host_keys = before.host_keys().to_vec();
        }
    }
}

/// Whether a source is another repository or archive than before. Another branch or folder of the repository is not.
/// URLs are compared literally: another scheme or port is another server.
pub(crate) fn is_elsewhere(before: &Source, after: &Source) -> bool {
    match (before, after) {
        (Source::Git(before), Source::Git(after)) => before.url != after.url,
        _ => before != after,
    }
}
