//! The settings of a process.
//!
//! In: the compiled-in `gantry.default.toml`, and over it a file, the environment and flags, all as text. Out: typed
//! [`Settings`], or all mistakes in all layers. Reads no file and no environment itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use gantry_domain::code_host::{CodeHostEntry, HostKind, HostName};
use gantry_domain::credential_helper::HelperEntry;
use gantry_domain::github_app::{AppGrant, AppId};
use gantry_domain::id::{PoolName, WorkerId};
use gantry_domain::image::RegistryHost;
use gantry_domain::registry::RegistryChoice;
use gantry_domain::vault::{Origin, VaultGrant};
use serde::{Deserialize, Deserializer};
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

mod layers;
mod units;

pub use layers::{Flag, Layers, Mistake, Mistakes, Rule, SettingsFile};
pub use units::parse_duration;

/// All settings with their defaults and explanations, as a file that users can start from.
pub const DEFAULTS: &str = include_str!("../../../gantry.default.toml");

/// GitHub's bodies have up to 25 MiB, and their requests need some more.
const LARGEST_BODY: u64 = 26 << 20;

/// An engine starts no container with less memory than 6 MiB, and a shell needs some more.
const SMALLEST_STEP: u64 = 16 << 20;

/// How long the credentials of a helper must be good for, so that a run that becomes ready can be taken meanwhile.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(300);

/// How often a tag may be asked for.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(30);

/// The settings, explained in `gantry.default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Settings {
    pub data: PathBuf,
    #[serde(deserialize_with = "units::duration")]
    pub patience: Duration,
    pub store: Store,
    pub queue: Queue,
    pub objects: Objects,
    pub secrets: Secrets,
    pub server: Server,
    pub engine: Engine,
    pub worker: Worker,
    pub steps: Steps,
    pub code_hosts: CodeHosts,
    pub github_app: GithubApp,
    pub credential: Credential,
    pub vaults: Vaults,
    pub key_vault: KeyVault,
    pub hashicorp_vault: HashicorpVault,
    pub runs: Runs,
    pub lease: Lease,
    pub reconcile: Reconcile,
    pub images: Images,
    pub sweep: Sweep,
    pub retention: Retention,
    pub limits: Limits,
    pub outbound: Outbound,
    pub telemetry: Telemetry,
    pub log: Log,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Store {
    #[serde(deserialize_with = "optional")]
    pub url: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub password_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional")]
    pub ca_file: Option<PathBuf>,
    pub prefix: String,
    #[serde(deserialize_with = "units::bytes")]
    pub budget: u64,
    pub allow_weak_durability: bool,
}

/// `[queue]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Queue {
    pub urls: Vec<String>,
    #[serde(deserialize_with = "optional")]
    pub password_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional")]
    pub ca_file: Option<PathBuf>,
}

/// `[objects]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Objects {
    #[serde(deserialize_with = "optional_url")]
    pub url: Option<Url>,
    #[serde(deserialize_with = "optional_url")]
    pub endpoint: Option<Url>,
    pub region: String,
    #[serde(deserialize_with = "optional")]
    pub ca_file: Option<PathBuf>,
    #[serde(deserialize_with = "units::bytes")]
    pub min_free: u64,
}

/// `[secrets]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Secrets {
    #[serde(deserialize_with = "optional")]
    pub key_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional")]
    pub pool_key_file: Option<PathBuf>,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Server {
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    #[serde(deserialize_with = "public_url")]
    pub public_url: Option<Url>,
    #[serde(deserialize_with = "optional_address")]
    pub hooks_listen: Option<SocketAddr>,
    #[serde(deserialize_with = "optional")]
    pub tls_certificate: Option<PathBuf>,
    #[serde(deserialize_with = "optional")]
    pub tls_key: Option<PathBuf>,
    #[serde(deserialize_with = "units::bytes")]
    pub body_budget: u64,
    #[serde(deserialize_with = "units::duration")]
    pub body_patience: Duration,
}

/// `[engine]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Engine {
    #[serde(deserialize_with = "optional")]
    pub address: Option<String>,
    #[serde(deserialize_with = "units::bytes")]
    pub keep: u64,
}

/// `[worker]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Worker {
    pub enabled: bool,
    #[serde(deserialize_with = "optional")]
    pub name: Option<WorkerId>,
    #[serde(deserialize_with = "at_least_one")]
    pub slots: NonZeroU32,
    #[serde(deserialize_with = "optional")]
    pub pool: Option<PoolName>,
    #[serde(deserialize_with = "units::bytes")]
    pub min_free: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub mirrors: u64,
}

/// `[steps]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Steps {
    #[serde(deserialize_with = "units::bytes")]
    pub memory: u64,
    pub cpus: f64,
    pub pids: u32,
    #[serde(deserialize_with = "units::bytes")]
    pub run_memory: u64,
    pub run_pids: u64,
    #[serde(deserialize_with = "pairs")]
    pub aliases: BTreeMap<String, String>,
    pub privileged: RegistryChoice,
    pub host_network: RegistryChoice,
    pub engine_socket: RegistryChoice,
    pub host_mounts: RegistryChoice,
    pub named_volumes: RegistryChoice,
    pub devices: RegistryChoice,
    pub capabilities: RegistryChoice,
    pub host_namespaces: RegistryChoice,
    pub security_options: RegistryChoice,
    pub machine: RegistryChoice,
}

/// `[code_hosts]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct CodeHosts {
    #[serde(deserialize_with = "each")]
    pub apis: Vec<CodeHostEntry>,
    pub provision: bool,
}

/// `[github_app]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct GithubApp {
    #[serde(deserialize_with = "optional")]
    pub id: Option<AppId>,
    #[serde(deserialize_with = "optional")]
    pub private_key_file: Option<PathBuf>,
    #[serde(deserialize_with = "parsed")]
    pub host: HostName,
    #[serde(deserialize_with = "each")]
    pub grants: Vec<AppGrant>,
}

/// `[credential]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Credential {
    #[serde(deserialize_with = "each")]
    pub helpers: Vec<HelperEntry>,
    pub environment: Vec<String>,
    #[serde(deserialize_with = "units::duration")]
    pub lifetime: Duration,
}

/// `[vaults]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Vaults {
    #[serde(deserialize_with = "each")]
    pub grants: Vec<VaultGrant>,
}

/// `[key_vault]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct KeyVault {
    #[serde(deserialize_with = "parsed")]
    pub authority: Origin,
    pub tenant: String,
    pub client_id: String,
    #[serde(deserialize_with = "optional")]
    pub client_secret_file: Option<PathBuf>,
    pub scope: String,
}

/// `[hashicorp_vault]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct HashicorpVault {
    #[serde(deserialize_with = "optional")]
    pub address: Option<Origin>,
    #[serde(deserialize_with = "optional")]
    pub namespace: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub token_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional")]
    pub role_id: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub secret_id_file: Option<PathBuf>,
}

/// `[runs]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Runs {
    #[serde(deserialize_with = "units::duration")]
    pub queue_timeout: Duration,
}

/// `[lease]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Lease {
    #[serde(deserialize_with = "units::duration")]
    pub duration: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub renew: Duration,
}

/// `[reconcile]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Reconcile {
    #[serde(deserialize_with = "units::duration")]
    pub interval: Duration,
}

/// `[images]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Images {
    #[serde(deserialize_with = "units::duration")]
    pub interval: Duration,
    #[serde(deserialize_with = "intervals")]
    pub intervals: BTreeMap<RegistryHost, Duration>,
    #[serde(deserialize_with = "units::duration")]
    pub quiet: Duration,
    pub canary: u32,
}

/// `[sweep]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Sweep {
    #[serde(deserialize_with = "units::duration")]
    pub interval: Duration,
}

/// `[retention]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Retention {
    #[serde(deserialize_with = "units::duration")]
    pub runs: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub deliveries: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub bodies: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub lineage: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub waves: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub revisions: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub messages: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub uploads: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub unused_uploads: Duration,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Limits {
    #[serde(deserialize_with = "units::bytes")]
    pub upload: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub uploads: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub context: u64,
    pub context_files: u64,
    #[serde(deserialize_with = "units::bytes")]
    pub log: u64,
}

/// `[outbound]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Outbound {
    pub allow: Vec<String>,
}

/// `[telemetry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Telemetry {
    #[serde(deserialize_with = "optional_address")]
    pub listen: Option<SocketAddr>,
    #[serde(deserialize_with = "optional_url")]
    pub otlp: Option<Url>,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "gantry.default.toml says what each setting means, once")]
pub struct Log {
    pub format: LogFormat,
    #[serde(deserialize_with = "log_level")]
    pub level: Targets,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// [`LogFormat::Human`] on a terminal, [`LogFormat::Json`] otherwise.
    Auto,
    /// For people.
    Human,
    /// For programs.
    Json,
}

impl Settings {
    /// Merges and parses all layers: the defaults, the file, the environment, the flags.
    ///
    /// # Errors
    /// [`Mistakes`]: all mistakes in all layers.
    pub fn parse(layers: &Layers<'_>) -> Result<Self, Mistakes> {
        layers::parse(layers)
    }

    /// Settings that are valid alone but not together: the key and the rule.
    fn contradictions(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        if self.server.tls_certificate.is_some() != self.server.tls_key.is_some() {
            found.push((
                "server.tls_key",
                "set both `server.tls_certificate` and `server.tls_key`, or none",
            ));
        }
        if self.server.hooks_listen == Some(self.server.listen) {
            found.push((
                "server.hooks_listen",
                "it is the same as `server.listen`: leave it empty, or choose another",
            ));
        }
        if self.server.body_budget < LARGEST_BODY {
            found.push((
                "server.body_budget",
                "at least 26MiB: so large may one body be, with its request",
            ));
        }
        if self.lease.renew.is_zero() || self.lease.renew > self.lease.duration / 2 {
            found.push(("lease.renew", "more than nothing, and at most half of `lease.duration`"));
        }
        if !(self.steps.cpus.is_finite() && self.steps.cpus >= 0.0) {
            found.push(("steps.cpus", "a number of processors, or 0 for all"));
        }
        if self.steps.memory < SMALLEST_STEP {
            found.push(("steps.memory", "at least 16MiB"));
        }
        if self.steps.pids == 0 {
            found.push(("steps.pids", "at least 1"));
        }
        let mut hosts = BTreeSet::new();
        if !self.code_hosts.apis.iter().all(|entry| hosts.insert(&entry.host)) {
            found.push(("code_hosts.apis", "it names a host twice: remove one"));
        }
        self.github_app_contradicts(&mut found);
        self.credential_contradicts(&mut found);
        self.vaults_contradict(&mut found);
        if self.steps.run_memory < self.steps.memory {
            found.push(("steps.run_memory", "at least `steps.memory`"));
        }
        if self.steps.run_pids < u64::from(self.steps.pids) {
            found.push(("steps.run_pids", "at least `steps.pids`"));
        }
        if self.reconcile.interval < Duration::from_secs(60) {
            found.push(("reconcile.interval", "at least a minute"));
        }
        if self.images.interval < SHORTEST_INTERVAL {
            found.push(("images.interval", "at least 30 seconds"));
        }
        if self.images.intervals.values().any(|interval| *interval < SHORTEST_INTERVAL) {
            found.push(("images.intervals", "at least 30 seconds each"));
        }
        if self.images.quiet > Duration::from_secs(600) {
            found.push(("images.quiet", "at most ten minutes"));
        }
        if self.sweep.interval.is_zero() {
            found.push(("sweep.interval", "more than nothing"));
        }
        found
    }

    fn github_app_contradicts(&self, found: &mut Vec<(&'static str, &'static str)>) {
        let app = &self.github_app;
        if app.id.is_some() != app.private_key_file.is_some() {
            found.push(("github_app.id", "set `id` and `private_key_file`, or none of them"));
        }
        if app.id.is_none() && !app.grants.is_empty() {
            found.push(("github_app.grants", "set `github_app.id`, too"));
        }
        let host = app.host.as_str();
        let entry = self.code_hosts.apis.iter().find(|entry| entry.host == host);
        let is_github = match entry {
            Some(entry) => entry.kind == HostKind::GitHub,
            None => host == "github.com" || host.ends_with(".ghe.com"),
        };
        if !is_github {
            found.push(("github_app.host", "add it to `code_hosts.apis`, as `HOST=github`"));
        }
    }

    fn credential_contradicts(&self, found: &mut Vec<(&'static str, &'static str)>) {
        let mut hosts = BTreeSet::new();
        if !self.credential.helpers.iter().all(|entry| hosts.insert(&entry.host)) {
            found.push(("credential.helpers", "it names a host twice: remove one"));
        }
        if self.credential.lifetime < SHORTEST_LIFETIME {
            found.push(("credential.lifetime", "at least five minutes"));
        }
    }

    fn vaults_contradict(&self, found: &mut Vec<(&'static str, &'static str)>) {
        let key_vault = &self.key_vault;
        let parts = [
            !key_vault.tenant.is_empty(),
            !key_vault.client_id.is_empty(),
            key_vault.client_secret_file.is_some(),
        ];
        if parts.contains(&true) && parts.contains(&false) {
            found.push((
                "key_vault.tenant",
                "set `tenant`, `client_id` and `client_secret_file`, or none of them",
            ));
        }
        let vault = &self.hashicorp_vault;
        if vault.role_id.is_some() != vault.secret_id_file.is_some() {
            found.push(("hashicorp_vault.role_id", "set `role_id` and `secret_id_file`, or none"));
        }
        if vault.address.is_some() != (vault.token_file.is_some() ^ vault.role_id.is_some()) {
            found.push((
                "hashicorp_vault.address",
                "a vault has an address and one login: `token_file`, or `role_id` and `secret_id_file`",
            ));
        }
        for grant in &self.vaults.grants {
            if grant.below.is_in_key_vault() && key_vault.client_secret_file.is_none() {
                found.push(("vaults.grants", "it names a Key Vault: set `key_vault.tenant`, too"));
            }
            if !grant.below.is_in_key_vault()
                && vault.address.as_ref() != Some(grant.below.origin())
            {
                found.push((
                    "vaults.grants",
                    "it names another HashiCorp Vault than `hashicorp_vault.address`",
                ));
            }
        }
    }
}

/// An empty text means `None`.
fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// A list of texts that are parsed.
fn each<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

/// A list of `NAME=VALUE`.
fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(serde::de::Error::custom(format!("`{text}` has no value: write `NAME=VALUE`"))),
    };
    texts.iter().map(pair).collect()
}

/// A list of `HOST=DURATION`.
fn intervals<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<RegistryHost, Duration>, D::Error> {
    let mut intervals = BTreeMap::new();
    for text in Vec::<String>::deserialize(deserializer)? {
        let Some((host, interval)) = text.split_once('=') else {
            let rule = format!("`{text}` has no interval: write `HOST=DURATION`");
            return Err(serde::de::Error::custom(rule));
        };
        let host: RegistryHost = host.parse().map_err(serde::de::Error::custom)?;
        let interval = units::parse_duration(interval).map_err(serde::de::Error::custom)?;
        if intervals.insert(host.clone(), interval).is_some() {
            return Err(serde::de::Error::custom(format!("it names {host} twice: remove one")));
        }
    }
    Ok(intervals)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn optional_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text: Option<String> = optional(deserializer)?;
    let address = text.map(|text| parse_address(&text)).transpose();
    address.map_err(serde::de::Error::custom)
}

fn parse_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "it is an IP address and a port, like `127.0.0.1:7300`")
}

fn optional_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text: Option<String> = optional(deserializer)?;
    let url = text.map(|text| text.parse()).transpose();
    url.map_err(|error: url::ParseError| {
        let has_no_scheme = error == url::ParseError::RelativeUrlWithoutBase;
        let rule = "it begins with its scheme, like `https://`".to_owned();
        serde::de::Error::custom(if has_no_scheme { rule } else { error.to_string() })
    })
}

fn public_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let url = optional_url(deserializer)?;
    let is_base = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    if url.as_ref().is_none_or(is_base) {
        return Ok(url);
    }
    Err(serde::de::Error::custom("an `https://` or `http://` address without user, `?` and `#`"))
}

fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
    number.ok_or_else(|| serde::de::Error::custom("it is a whole number, at least 1"))
}

fn log_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Targets, D::Error> {
    const RULE: &str =
        "`error`, `warn`, `info`, `debug` or `trace`, also by part: `warn,gantry=debug`";
    let text = String::deserialize(deserializer)?;
    // Otherwise a misspelt level would be taken for the name of a target.
    let is_level = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    if !text.split(',').all(is_level) {
        return Err(serde::de::Error::custom(RULE));
    }
    text.parse().map_err(|_| serde::de::Error::custom(RULE))
}

#[cfg(test)]
mod tests;
