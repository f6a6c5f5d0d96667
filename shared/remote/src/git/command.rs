//! One run of the git program, isolated from everything outside of gantry.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use gantry_domain::source::GitUrl;
use gantry_ops::secret::{Credentials, ExposeSecret};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use super::GitError;
use super::failure::{Context, classify};

/// The file descriptor of the credential helper's pipe, or of the deploy key, in the child.
pub(super) const CREDENTIALS_FD: i32 = 3;
/// The file descriptor of the lock in the child.
const LOCK_FD: i32 = 4;
/// The file descriptor of the pinned host keys in the child.
pub(super) const HOST_KEYS_FD: i32 = 5;

/// Answers git's `get` with the content of the pipe, once. A constant, so it contains no user input.
const CREDENTIALS_HELPER: &str = "!f() { test \"$1\" = get && cat <&3; }; f";

/// A longer token is invalid; a pipe buffers this much without a reader.
pub(super) const LONGEST_CREDENTIALS: usize = 16 << 10;

/// Of git's error output, the last part has the reason.
const LONGEST_ERROR: usize = 16 << 10;
/// The limit for the output of any command.
const LONGEST_OUTPUT: u64 = 16 << 20;
/// The system's limit for a path.
const LONGEST_ENTRY: usize = 4096;

/// The memory limit of git. A host may send references without end.
pub(super) const MOST_MEMORY: u64 = 1 << 30;

/// Where git and its helpers are found. Not the environment of this process, which only `cli` reads.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How often the size of a fetch is checked.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The settings of every run. The configuration of the system, the user and the repository is not read.
const SETTINGS: [(&str, &str); 19] = [
    ("advice.detachedHead", "false"),
    // Larger files are streamed instead of held in memory.
    ("core.bigFileThreshold", "32m"),
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    // Refuse names that other systems take for `.git` too: the image may be unpacked there.
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.useReplaceRefs", "false"),
    ("credential.helper", ""),
    // Only whole packs: loose objects of an interrupted fetch would look like a complete commit.
    ("fetch.unpackLimit", "1"),
    ("gc.auto", "0"),
    // A redirect would lead to an address that the guard has not checked.
    ("http.followRedirects", "false"),
    // Less than 1000 bytes per second for 30 seconds counts as a stalled transfer.
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "30"),
    ("http.proxy", ""),
    ("init.defaultBranch", "main"),
    ("maintenance.auto", "false"),
    ("safe.bareRepository", "all"),
    ("submodule.recurse", "false"),
    // The host chooses a bundle's address, and the guard has not checked it.
    ("transfer.bundleURI", "false"),
];

/// A folder whose growth is limited.
pub(super) struct Watched {
    pub(super) folder: PathBuf,
    /// Its size at the beginning.
    pub(super) before: u64,
    /// What earlier programs have used of the limit.
    pub(super) used: u64,
    /// The limit in bytes.
    pub(super) most: u64,
}

pub(super) struct Command<'a> {
    program: &'a Path,
    /// For errors, like `the fetch of https://…`.
    what: String,
    url: Option<&'a GitUrl>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    settings: Vec<(String, String)>,
    folder: PathBuf,
    /// The files that the program and its child processes inherit.
    given: Vec<FdMapping>,
    watched: Option<Watched>,
    /// The folder it writes to, for the error of a full disk.
    writes_to: PathBuf,
}

/// The user name that goes with a token: hosts accept any, but not an empty one.
pub(crate) fn user_of(credentials: &Credentials) -> &str {
    match credentials.username.as_str() {
        "" => "x-access-token",
        username => username,
    }
}

impl<'a> Command<'a> {
    pub(super) fn new(program: &'a Path, what: String) -> Self {
        let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            program,
            what,
            url: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            settings: settings.into(),
            folder: PathBuf::from("/"),
            given: Vec::new(),
            watched: None,
            writes_to: PathBuf::from("/"),
        }
    }

    pub(super) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(super) fn args(
        &mut self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> &mut Self {
        for argument in arguments {
            self.arg(argument);
        }
        self
    }

    pub(super) fn env(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub(super) fn repository(&mut self, repository: &Path) {
        self.env("GIT_DIR", repository);
        self.writes_to = repository.to_owned();
    }

    pub(super) fn work_tree(&mut self, folder: &Path) {
        self.env("GIT_WORK_TREE", folder);
        self.folder = folder.to_owned();
        self.writes_to = folder.to_owned();
    }

    pub(super) fn writes_to(&mut self, folder: &Path) {
        self.writes_to = folder.to_owned();
    }

    /// Keeps a locked file open in the program and its child processes, so that the lock lasts as long as they do.
    pub(super) fn hold(&mut self, lock: &File) -> Result<(), GitError> {
        let lock = lock.try_clone().map_err(|error| self.failed(&error))?;
        self.give(lock.into(), LOCK_FD);
        Ok(())
    }

    /// Lets the program and its child processes inherit a file under this number.
    pub(super) fn give(&mut self, parent_fd: OwnedFd, child_fd: i32) {
        self.given.push(FdMapping { parent_fd, child_fd });
    }

    /// Kills the program once a folder has grown too large.
    pub(super) fn watch(&mut self, watched: Watched) {
        self.watched = Some(watched);
    }

    /// Allows it to connect to `url`, at the addresses that the guard has resolved. (Before version 2.37 git resolves
    /// the name again, and then a changed name can still lead elsewhere.)
    pub(super) fn speak_to(&mut self, url: &'a GitUrl, addresses: &[SocketAddr]) {
        self.url = Some(url);
        self.env("GIT_ALLOW_PROTOCOL", url.as_url().scheme());
        if url.is_ssh() {
            return;
        }
        let Some(url::Host::Domain(host)) = url.as_url().host() else { return };
        let port = url.as_url().port_or_known_default().unwrap_or_default();
        let addresses: Vec<_> = addresses
            .iter()
            .map(|socket| match socket {
                SocketAddr::V4(v4) => v4.ip().to_string(),
                SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
            })
            .collect();
        let resolved = format!("{host}:{port}:{}", addresses.join(","));
        self.settings.push(("http.curloptResolve".to_owned(), resolved));
    }

    /// Passes the credentials for exactly this scheme, host, port and path through a pipe, so they are in no argument,
    /// in no environment and on no disk.
    pub(super) fn credentials(
        &mut self,
        url: &GitUrl,
        credentials: &Credentials,
    ) -> Result<(), GitError> {
        let username = user_of(credentials);
        let password = credentials.password.expose_secret();
        let has_break = |text: &str| text.contains(['\n', '\r', '\0']);
        if has_break(username)
            || has_break(password)
            || username.len() + password.len() > LONGEST_CREDENTIALS
        {
            return Err(GitError::UnusableCredentials);
        }
        let (reader, mut writer) = std::io::pipe().map_err(|error| self.failed(&error))?;
        write!(writer, "username={username}\npassword={password}\n")
            .map_err(|error| self.failed(&error))?;
        self.give(reader.into(), CREDENTIALS_FD);
        self.settings.push((format!("credential.{url}.helper"), CREDENTIALS_HELPER.to_owned()));
        Ok(())
    }

    /// Runs it to its end and returns its output.
    pub(super) async fn output(self, deadline: Instant) -> Result<Vec<u8>, GitError> {
        // In a box, because callers wait for several programs.
        Box::pin(self.run(deadline, async |stdout| {
            let mut output = Vec::new();
            stdout.take(LONGEST_OUTPUT + 1).read_to_end(&mut output).await?;
            match output.len() as u64 > LONGEST_OUTPUT {
                true => Err(Unread::TooLarge(format!("{} MiB of output", LONGEST_OUTPUT >> 20))),
                false => Ok(output),
            }
        }))
        .await
    }

    /// Runs it and passes each part of its output, terminated by a zero byte, to `look`, until that returns the limit
    /// that was exceeded.
    pub(super) async fn each_entry(
        self,
        deadline: Instant,
        mut look: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), GitError> {
        Box::pin(self.run(deadline, async |stdout| {
            let mut stdout = BufReader::new(stdout);
            let mut entry = Vec::new();
            loop {
                let mut bounded = (&mut stdout).take(LONGEST_ENTRY as u64);
                match bounded.read_until(0, &mut entry).await? {
                    0 => return Ok(()),
                    LONGEST_ENTRY => {
                        let most = format!("{LONGEST_ENTRY} bytes in a path");
                        return Err(Unread::TooLarge(most));
                    }
                    _ => look(&entry).map_err(Unread::TooLarge)?,
                }
                entry.clear();
            }
        }))
        .await
    }

    async fn run<T>(
        mut self,
        deadline: Instant,
        read: impl AsyncFnOnce(ChildStdout) -> Result<T, Unread>,
    ) -> Result<T, GitError> {
        let began = Instant::now();
        let mut group = self.spawn()?;
        let work = async {
            let (Some(stdout), Some(stderr)) =
                (group.child.stdout.take(), group.child.stderr.take())
            else {
                return Err(self.failed(&std::io::Error::other("its output is not connected")));
            };
            let errors = async { Ok(tail(stderr).await) };
            let end = async { group.child.wait().await.map_err(Unread::Broken) };
            let ended = async { tokio::try_join!(read(stdout), errors, end) };
            let (output, errors, status) = tokio::select! {
                ended = ended => ended.map_err(|unread| self.unread(unread))?,
                error = self.grown_too_large() => return Err(error),
            };
            group.id = None;
            self.judge(status, &errors)?;
            Ok(output)
        };
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            Err(GitError::TimedOut { what: self.what.clone(), waited: began.elapsed() })
        })
    }

    fn spawn(&mut self) -> Result<Group, GitError> {
        let mut command = tokio::process::Command::new(self.program);
        command
            .args(&self.arguments)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            // Libraries under git also read a user's files; without `HOME` they would look it up.
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            // A path is taken literally, not as a pattern.
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_ALLOW_PROTOCOL", "")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("GIT_CONFIG_COUNT", self.settings.len().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for (index, (key, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        let given = std::mem::take(&mut self.given);
        if !given.is_empty() {
            command
                .fd_mappings(given)
                .map_err(|error| self.failed(&std::io::Error::other(error)))?;
        }
        let child = command
            .spawn()
            .map_err(|source| GitError::NoProgram { program: self.program.to_owned(), source })?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if id.is_some() {
            let most = Rlimit { current: Some(MOST_MEMORY), maximum: Some(MOST_MEMORY) };
            // It has just started, and child processes inherit the limit. If it has already ended there is nothing to
            // limit.
            let _ended = prlimit(id, Resource::Data, most);
        }
        Ok(Group { child, id })
    }

    fn judge(&self, status: ExitStatus, errors: &[u8]) -> Result<(), GitError> {
        if status.success() {
            return Ok(());
        }
        Err(classify(
            &String::from_utf8_lossy(errors),
            &Context {
                what: &self.what,
                url: self.url,
                folder: &self.writes_to,
                had_credentials: self.settings.iter().any(|(_, value)| value == CREDENTIALS_HELPER),
            },
        ))
    }

    /// Completes only when the watched folder has grown too large.
    async fn grown_too_large(&self) -> GitError {
        let Some(Watched { folder, before, used, most }) = &self.watched else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if size_of(folder).saturating_sub(*before).saturating_add(*used) > *most {
                return self.too_large(format!("{} MiB", most >> 20));
            }
        }
    }

    fn unread(&self, unread: Unread) -> GitError {
        match unread {
            Unread::Broken(error) => self.failed(&error),
            Unread::TooLarge(most) => self.too_large(most),
        }
    }

    fn too_large(&self, most: String) -> GitError {
        GitError::TooLarge { what: self.what.clone(), most }
    }

    pub(super) fn failed(&self, error: &std::io::Error) -> GitError {
        GitError::Failed { what: self.what.clone(), message: error.to_string() }
    }
}

/// Why the output was not read to its end.
enum Unread {
    Broken(std::io::Error),
    /// It exceeds this limit, which includes its unit.
    TooLarge(String),
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

/// The program and its child processes. All are killed if this is dropped before the end.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // It may have just ended.
            let _gone = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Reads to the end and returns the last part.
async fn tail(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        kept.drain(..kept.len().saturating_sub(LONGEST_ERROR));
    }
    kept
}

/// The bytes of the files under a repository's `objects`. Packs are few, so this does not block for long; but a host of
/// the dumb protocol serves objects one by one, into 256 folders.
pub(super) fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A host that requires authentication, and records the headers of every request.
    fn host() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let headers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&headers);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let lines = lines.take_while(|line| !line.is_empty());
                seen.lock().unwrap().extend(lines);
                let _gone = stream.write_all(
                    b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
            }
        });
        (address, headers)
    }

    #[tokio::test]
    async fn credentials_are_sent_only_to_their_url() {
        let (address, headers) = host();
        let (other, other_headers) = host();
        let url: GitUrl = format!("http://{address}/team/app.git").parse().unwrap();
        for (asked, is_given) in [
            (url.to_string(), true),
            (format!("http://{address}/team/other.git"), false),
            (format!("http://{address}/team/app.git.evil"), false),
            (format!("http://{address}/team"), false),
            (format!("http://{other}/team/app.git"), false),
            (format!("http://localhost:{}/team/app.git", address.port()), false),
        ] {
            headers.lock().unwrap().clear();
            let mut command = Command::new(Path::new("git"), "looking at it".to_owned());
            command.speak_to(&url, &[address]);
            let password = "needle".into();
            let credentials = Credentials { username: "ann".to_owned(), password };
            command.credentials(&url, &credentials).unwrap();
            command.args(["ls-remote", "--", &asked]);
            let deadline = Instant::now() + Duration::from_secs(20);
            command.output(deadline).await.unwrap_err();
            let mut sent = headers.lock().unwrap().clone();
            sent.extend(other_headers.lock().unwrap().clone());
            assert!(!sent.is_empty(), "{asked} was not asked");
            let was_given = sent.iter().any(|line| line.starts_with("Authorization:"));
            assert_eq!(was_given, is_given, "{asked}: {sent:?}");
        }
    }
}
