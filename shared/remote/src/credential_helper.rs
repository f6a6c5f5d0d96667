//! Runs the docker credential helpers that the operator names.
//!
//! In: a registry. Out: the credentials that its helper gives, by Docker's protocol: `docker-credential-NAME get`, with the
//! server on standard input and JSON on standard output. The program is bounded in time and output, and all its processes end
//! with it. What it prints is never part of an error or of a log.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use gantry_domain::credential_helper::{HelperEntry, HelperProgram};
use gantry_domain::image::RegistryHost;
use gantry_ops::secret::{Credentials, SecretString};
use gantry_ops::terminal::one_line;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

/// Where helpers are found by their names.
pub const HELPER_FOLDERS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// How long a helper may take. It may ask a cloud for a token.
const WITHIN: Duration = Duration::from_secs(30);

/// Credentials are given out for this long without asking the helper again, and an error for this long.
const KEPT: Duration = Duration::from_secs(60);
const ERROR_KEPT: Duration = Duration::from_secs(5);

/// How many helpers run at once.
const AT_ONCE: usize = 4;

/// The largest answer. A token has a few KiB.
const LONGEST_ANSWER: u64 = 64 << 10;

/// Of what a helper says about an error, the last line is shown, up to this length.
const LONGEST_ERROR: usize = 4 << 10;
const LONGEST_SHOWN: usize = 300;

/// A shorter value of the environment is too common to be masked.
const SHORTEST_MASKED: usize = 8;

/// A longer word in an error may be a token, and is not shown.
const LONGEST_WORD: usize = 40;

/// What helpers print, by the protocol, if they have no credentials for a server.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The settings of all helpers.
#[derive(Debug, Clone, Default)]
pub struct HelperSettings {
    /// The helper of each registry.
    pub entries: Vec<HelperEntry>,
    /// The whole environment of the programs, except `PATH`.
    pub environment: BTreeMap<String, String>,
    /// How long the credentials are good for, counted from when a helper gave them.
    pub lifetime: Duration,
}

/// The helpers, and what they gave in the last minute.
#[derive(Debug)]
pub struct CredentialHelpers {
    settings: HelperSettings,
    within: Duration,
    /// One helper of a host runs at a time, so that others get what it gave.
    answers: HashMap<RegistryHost, Mutex<Option<Answered>>>,
    turns: Semaphore,
}

/// The last answer of a helper.
#[derive(Debug)]
struct Answered {
    at: Instant,
    answer: Result<Credentials, HelperError>,
}

impl Answered {
    /// The answer, if it still counts for credentials that must be good for `needed`.
    fn counts(
        &self,
        needed: Duration,
        lifetime: Duration,
    ) -> Option<Result<HelperCredentials, HelperError>> {
        let age = self.at.elapsed();
        let valid_for = lifetime.saturating_sub(age);
        match &self.answer {
            Ok(credentials) if age <= KEPT && valid_for >= needed => {
                Some(Ok(HelperCredentials { credentials: credentials.clone(), valid_for }))
            }
            Err(error) if age <= ERROR_KEPT => Some(Err(error.clone())),
            Ok(_) | Err(_) => None,
        }
    }
}

/// Credentials from a helper.
#[derive(Debug, Clone)]
pub struct HelperCredentials {
    /// The credentials.
    pub credentials: Credentials,
    /// How long they are good for from now on, by the settings: the protocol does not tell.
    pub valid_for: Duration,
}

/// A helper gave no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    /// The operator names none for the registry.
    #[error(
        "no credential helper is named for {host}: add \"{host}=NAME\" to `credential.helpers` in the settings of every scheduler, \
         or give the registry credentials of its own (`gantry registry update`)"
    )]
    Unnamed {
        /// The registry.
        host: RegistryHost,
    },
    /// The program is not there.
    #[error(
        "the credential helper {program} of {host} cannot be started where the scheduler runs ({why}): install it there"
    )]
    NoProgram {
        /// The registry.
        host: RegistryHost,
        /// The program.
        program: String,
        /// The system's error.
        why: String,
    },
    /// It has none for this registry.
    #[error(
        "the credential helper {program} has no credentials for {host}: log in with it where the scheduler runs, as the same user"
    )]
    NotFound {
        /// The registry.
        host: RegistryHost,
        /// The program.
        program: String,
    },
    /// It failed.
    #[error("the credential helper {program} failed for {host} ({status}){}", after_colon(said))]
    Failed {
        /// The registry.
        host: RegistryHost,
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The last line of its error output, without what may be a secret.
        said: String,
    },
    /// It took too long, and was killed.
    #[error("the credential helper {program} gave no answer for {host} within {within:.0?}")]
    TimedOut {
        /// The registry.
        host: RegistryHost,
        /// The program.
        program: String,
        /// The limit.
        within: Duration,
    },
    /// Its answer is none of the protocol.
    #[error("the credential helper {program} gave for {host} {problem}")]
    Nonsense {
        /// The registry.
        host: RegistryHost,
        /// The program.
        program: String,
        /// What is wrong.
        problem: &'static str,
    },
}

fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl HelperError {
    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::TimedOut { .. } => true,
            Self::Unnamed { .. }
            | Self::NoProgram { .. }
            | Self::NotFound { .. }
            | Self::Nonsense { .. } => false,
        }
    }
}

impl Default for CredentialHelpers {
    /// None.
    fn default() -> Self {
        Self::new(HelperSettings::default())
    }
}

impl CredentialHelpers {
    /// The helpers of these settings.
    #[must_use]
    pub fn new(settings: HelperSettings) -> Self {
        let hosts = settings.entries.iter().map(|entry| entry.host.clone());
        let answers = hosts.map(|host| (host, Mutex::default())).collect();
        Self { settings, within: WITHIN, answers, turns: Semaphore::new(AT_ONCE) }
    }

    /// With another time limit for a helper than 30 seconds.
    #[must_use]
    pub fn with_limit(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// The credentials for a registry. Those that the helper gave in the last minute are given again if they are good for
    /// `needed`; otherwise the helper is asked.
    ///
    /// # Errors
    /// [`HelperError`].
    pub async fn get(
        &self,
        host: &RegistryHost,
        needed: Duration,
    ) -> Result<HelperCredentials, HelperError> {
        let entry = self.settings.entries.iter().find(|entry| entry.host == *host);
        let (Some(entry), Some(last)) = (entry, self.answers.get(host)) else {
            return Err(HelperError::Unnamed { host: host.clone() });
        };
        let (mut last, lifetime) = (last.lock().await, self.settings.lifetime);
        if let Some(known) = last.as_ref().and_then(|known| known.counts(needed, lifetime)) {
            return known;
        }
        // It is never closed.
        let _turn = self.turns.acquire().await.ok();
        let at = Instant::now();
        let answer = self.ask(host, &entry.program).await;
        let at = if answer.is_ok() { at } else { Instant::now() };
        *last = Some(Answered { at, answer: answer.clone() });
        let valid_for = lifetime.saturating_sub(at.elapsed());
        answer.map(|credentials| HelperCredentials { credentials, valid_for })
    }

    async fn ask(
        &self,
        host: &RegistryHost,
        program: &HelperProgram,
    ) -> Result<Credentials, HelperError> {
        let named = program.to_string();
        let no_program = |error: std::io::Error| HelperError::NoProgram {
            host: host.clone(),
            program: named.clone(),
            why: error.to_string(),
        };
        let path = program.candidates(&HELPER_FOLDERS).find(|path| path.is_file());
        let path = path.ok_or_else(|| no_program(std::io::ErrorKind::NotFound.into()))?;
        let mut group = self.spawn(&path).map_err(no_program)?;
        let told = timeout(self.within, group.tell(host.docker_server())).await;
        let told = told.map_err(|_| HelperError::TimedOut {
            host: host.clone(),
            program: named.clone(),
            within: self.within,
        })?;
        let asked = Asked { host, program: &named, environment: &self.settings.environment };
        match told {
            Ok(told) => asked.judge(&told),
            Err(Untold::Broken(error)) => Err(asked.failed(error.to_string(), &[])),
            Err(Untold::TooLong) => Err(asked.nonsense("more than 64 KiB of output")),
        }
    }

    fn spawn(&self, program: &Path) -> std::io::Result<Group> {
        let mut child = Command::new(program)
            .arg("get")
            .current_dir("/")
            .env_clear()
            .env("PATH", HELPER_FOLDERS.join(":"))
            .env("LC_ALL", "C")
            .envs(&self.settings.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Group { child, id, stdin, stdout, stderr })
    }
}

/// A helper and its child processes. All are killed when this is dropped: also those that outlive the program. What they write
/// to stays open until then, so that none of them goes on with a failed write.
struct Group {
    child: Child,
    id: Option<Pid>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // It may have ended.
            let _gone = kill_process_group(id, Signal::KILL);
        }
    }
}

/// What a helper printed, and how it ended.
struct Told {
    output: Vec<u8>,
    errors: Vec<u8>,
    is_success: bool,
    status: String,
}

/// Why the output of a helper was not read.
enum Untold {
    Broken(std::io::Error),
    TooLong,
}

impl From<std::io::Error> for Untold {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Group {
    /// Asks for a server, and reads to the end.
    async fn tell(&mut self, server: &str) -> Result<Told, Untold> {
        let Self { child, stdin, stdout, stderr, .. } = self;
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin.take(), stdout, stderr) else {
            return Err(std::io::Error::other("its input and output are not connected").into());
        };
        let ask = async {
            // A helper need not read what it is asked for, and its answer tells the rest.
            let _closed = stdin.write_all(format!("{server}\n").as_bytes()).await;
            drop(stdin);
            Ok(())
        };
        let answer = async {
            let mut output = Vec::new();
            stdout.take(LONGEST_ANSWER + 1).read_to_end(&mut output).await?;
            match output.len() as u64 > LONGEST_ANSWER {
                true => Err(Untold::TooLong),
                false => Ok(output),
            }
        };
        let errors = async { Ok(tail(stderr).await) };
        let end = async { Ok(child.wait().await?) };
        let ((), output, errors, status) = tokio::try_join!(ask, answer, errors, end)?;
        Ok(Told { output, errors, is_success: status.success(), status: status.to_string() })
    }
}

/// Reads to the end and returns the last part.
async fn tail(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        kept.drain(..kept.len().saturating_sub(LONGEST_ERROR));
    }
    kept
}

/// The answer of the protocol.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, rename = "ServerURL")]
    server: String,
    username: String,
    secret: String,
}

/// A question to a helper.
struct Asked<'a> {
    host: &'a RegistryHost,
    program: &'a str,
    environment: &'a BTreeMap<String, String>,
}

impl Asked<'_> {
    fn judge(&self, told: &Told) -> Result<Credentials, HelperError> {
        if !told.is_success {
            let is_absent = String::from_utf8_lossy(&told.output).trim() == NOT_FOUND;
            return Err(if is_absent {
                HelperError::NotFound { host: self.host.clone(), program: self.program.to_owned() }
            } else {
                self.failed(told.status.clone(), &told.errors)
            });
        }
        let answer: Answer = serde_json::from_slice(&told.output)
            .map_err(|_| self.nonsense("something other than the JSON of the protocol"))?;
        if !self.is_for_host(&answer.server) {
            return Err(self.nonsense("the credentials of another server"));
        }
        self.credentials(answer)
    }

    /// Whether a server in an answer is the one that was asked for. It may be left out, and may have a scheme and a path.
    fn is_for_host(&self, server: &str) -> bool {
        let host = server.split_once("://").map_or(server, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        server.is_empty() || host.parse().is_ok_and(|host: RegistryHost| host == *self.host)
    }

    fn credentials(&self, answer: Answer) -> Result<Credentials, HelperError> {
        let Answer { username, secret, .. } = answer;
        if secret.is_empty() {
            return Err(self.nonsense("no secret"));
        }
        let is_control = |text: &str| text.chars().any(char::is_control);
        if username.contains(':') || is_control(&username) || is_control(&secret) {
            return Err(self.nonsense("a user name or a secret that no registry can take"));
        }
        Ok(Credentials { username, password: SecretString::from(secret) })
    }

    fn nonsense(&self, problem: &'static str) -> HelperError {
        HelperError::Nonsense { host: self.host.clone(), program: self.program.to_owned(), problem }
    }

    fn failed(&self, status: String, errors: &[u8]) -> HelperError {
        HelperError::Failed {
            host: self.host.clone(),
            program: self.program.to_owned(),
            status,
            said: self.shown(errors),
        }
    }

    /// The last line of an error output, without values of the environment and words that may be tokens.
    fn shown(&self, errors: &[u8]) -> String {
        let errors = String::from_utf8_lossy(errors);
        let line = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let mut line = line.to_owned();
        for value in self.environment.values().filter(|value| value.len() >= SHORTEST_MASKED) {
            line = line.replace(value, "***");
        }
        let words = line.split_whitespace();
        let words = words.map(|word| if word.len() > LONGEST_WORD { "***" } else { word });
        let shown = one_line(&words.collect::<Vec<_>>().join(" "));
        shown.chars().take(LONGEST_SHOWN).collect()
    }
}
