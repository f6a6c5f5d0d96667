//! A git host on loopback: `git http-backend` behind a small HTTP server that can require a password and misbehave.
//!
//! In: repositories that a test creates and commits to. Out: their URLs. Both sides run real git; only the HTTP server
//! is the test's own, so that it can refuse requests or fail.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A git host. Dropping it deletes its repositories.
#[derive(Debug)]
pub struct GitServer {
    address: SocketAddr,
    host: Arc<Host>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Host {
    folder: TempDir,
    state: Mutex<HostState>,
}

#[derive(Debug, Default)]
struct HostState {
    credentials: Option<(String, String)>,
    behaviour: Behaviour,
    requests: Vec<String>,
    commands: Vec<String>,
    lfs: Option<LfsOf>,
}

#[derive(Clone)]
struct LfsOf(Lfs);

impl std::fmt::Debug for LfsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LfsOf")
    }
}

/// A request to something that the host has beside git.
#[derive(Debug)]
pub struct Aside {
    /// `GET`, for example.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// What was sent as `Authorization`.
    pub authorization: Option<String>,
    /// The whole body.
    pub body: Bytes,
}

/// Answers requests to paths below `/info/lfs/` in a repository.
type Lfs = Arc<dyn Fn(&Aside) -> Response<Full<Bytes>> + Send + Sync>;

/// How the host handles an authorized request.
#[derive(Debug, Clone, Default)]
pub enum Behaviour {
    /// Like git.
    #[default]
    Serve,
    /// It answers with this status.
    Status(u16),
    /// It never answers.
    Silence,
    /// It redirects every request to the same path under this address.
    RedirectTo(String),
    /// It serves only commits that a reference points to.
    OnlyTips,
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl GitServer {
    /// Starts a host on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let host = Arc::new(Host { folder: TempDir::new()?, state: Mutex::default() });
        let serving = tokio::spawn(serve(listener, Arc::clone(&host)));
        Ok(Self { address, host, serving })
    }

    /// `http://127.0.0.1:PORT/NAME.git`
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.address)
    }

    /// The folder of its repositories.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.host.folder.path()
    }

    /// The host's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requires these credentials from now on.
    pub fn require(&self, username: &str, password: &str) {
        self.host.state().credentials = Some((username.to_owned(), password.to_owned()));
    }

    /// Answers requests to the Git LFS server of each repository from now on. Without it there is none.
    pub fn keep_lfs(
        &self,
        answer: impl Fn(&Aside) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) {
        self.host.state().lfs = Some(LfsOf(Arc::new(answer)));
    }

    /// Sets the behaviour from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.host.state().behaviour = behaviour;
    }

    /// `METHOD path?query` of each request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.host.state().requests.clone()
    }

    /// The command of each request of git's protocol 2 so far: `ls-refs` or `fetch`.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        self.host.state().commands.clone()
    }

    /// Creates an empty repository, replacing an earlier one of this name.
    ///
    /// # Errors
    /// Git's message.
    pub fn repository(&self, name: &str) -> Result<TestRepository> {
        self.repository_of_format(name, "sha1")
    }

    /// Like [`Self::repository`], with the object format `sha1` or `sha256`.
    ///
    /// # Errors
    /// Git's message.
    pub fn repository_of_format(&self, name: &str, format: &str) -> Result<TestRepository> {
        let bare = self.host.folder.path().join(format!("{name}.git"));
        if bare.exists() {
            std::fs::remove_dir_all(&bare)?;
        }
        let work = TempDir::new()?;
        let format = format!("--object-format={format}");
        let folder = self.host.folder.path();
        // A template would be copied, which is a dozen files that no test reads.
        let init = ["init", "-q", "--template=", "-b", "main", &format, "--bare", path(&bare)?];
        git(folder, &init)?;
        // The working copy shares the objects, so that publishing a commit is to write a reference. Tests commit a
        // thousand times, and each push would be five processes.
        let dot_git = work.path().join(".git");
        std::fs::create_dir_all(dot_git.join("refs"))?;
        std::os::unix::fs::symlink(bare.join("objects"), dot_git.join("objects"))?;
        std::fs::copy(bare.join("HEAD"), dot_git.join("HEAD"))?;
        let config = std::fs::read_to_string(bare.join("config"))?;
        let config = config.replace("bare = true", "bare = false");
        let remote = format!("[remote \"origin\"]\n\turl = {}\n", path(&bare)?);
        std::fs::write(dot_git.join("config"), config + &remote)?;
        Ok(TestRepository { work, bare })
    }
}

/// A repository on the host, with a working copy to change it.
#[derive(Debug)]
pub struct TestRepository {
    work: TempDir,
    bare: PathBuf,
}

impl TestRepository {
    /// The repository on the host.
    #[must_use]
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// The working copy.
    #[must_use]
    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// Writes files, commits everything in the working copy, and pushes it as `branch`. Returns the commit.
    ///
    /// # Errors
    /// Git's message.
    pub fn commit(&self, branch: &str, files: &[(&str, &str)]) -> Result<String> {
        for (name, content) in files {
            let file = self.work().join(name);
            std::fs::create_dir_all(file.parent().context("a file has a folder")?)?;
            std::fs::write(file, content)?;
        }
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "--allow-empty", "-m", "change"])?;
        let commit = self.git(&["rev-parse", "HEAD"])?;
        let reference = self.bare.join("refs/heads").join(branch);
        std::fs::create_dir_all(reference.parent().context("a reference has a folder")?)?;
        // Renamed into place, as git does: a fetch at the same time reads the old or the new commit.
        let new = self.bare.join("new-reference");
        std::fs::write(&new, format!("{commit}\n"))?;
        std::fs::rename(new, reference)?;
        Ok(commit)
    }

    /// Writes an executable file, for the next commit.
    ///
    /// # Errors
    /// The system's error.
    pub fn write_program(&self, name: &str, content: &[u8]) -> Result<()> {
        let file = self.work().join(name);
        std::fs::write(&file, content)?;
        Ok(std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))?)
    }

    /// Takes a commit from the host, which has all objects of the working copy.
    ///
    /// # Errors
    /// The system's error.
    pub fn hide(&self, commit: &str) -> Result<()> {
        Ok(std::fs::rename(self.object(commit), self.work().join(".git").join(commit))?)
    }

    /// Gives a hidden commit back to the host.
    ///
    /// # Errors
    /// The system's error.
    pub fn show(&self, commit: &str) -> Result<()> {
        Ok(std::fs::rename(self.work().join(".git").join(commit), self.object(commit))?)
    }

    fn object(&self, commit: &str) -> PathBuf {
        let (folder, file) = commit.split_at(2);
        self.bare.join("objects").join(folder).join(file)
    }

    /// Runs git in the working copy, and returns its output.
    ///
    /// # Errors
    /// Git's message.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        git(self.work(), arguments)
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path is text")
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        // Otherwise git starts a maintenance process after each commit and push.
        .args(["-c", "maintenance.auto=false", "-c", "receive.autogc=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Tester"), ("GIT_AUTHOR_EMAIL", "tester@example.com")])
        .envs([("GIT_COMMITTER_NAME", "Tester"), ("GIT_COMMITTER_EMAIL", "tester@example.com")])
        .output()
        .context("git must be installed")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {arguments:?}: {errors}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Host {
    fn state(&self) -> std::sync::MutexGuard<'_, HostState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let line = format!("{} {}", request.method(), request.uri());
        let (credentials, behaviour, lfs) = {
            let mut state = self.state();
            state.requests.push(line);
            (state.credentials.clone(), state.behaviour.clone(), state.lfs.clone())
        };
        if let Some((username, password)) = credentials {
            let expected = format!("Basic {}", BASE64.encode(format!("{username}:{password}")));
            if request.headers().get(AUTHORIZATION).is_none_or(|given| given != expected.as_str()) {
                let asked = Response::builder().status(StatusCode::UNAUTHORIZED);
                return Ok(asked
                    .header(WWW_AUTHENTICATE, "Basic realm=\"git\"")
                    .body(Full::default())?);
            }
        }
        if let Some(LfsOf(answer)) = lfs
            && request.uri().path().contains("/info/lfs/")
        {
            let authorization = request.headers().get(AUTHORIZATION);
            let authorization = authorization.and_then(|value| value.to_str().ok());
            let asked = Aside {
                method: request.method().to_string(),
                path: request.uri().path().to_owned(),
                authorization: authorization.map(str::to_owned),
                body: Bytes::new(),
            };
            let body = request.into_body().collect().await?.to_bytes();
            return Ok(answer(&Aside { body, ..asked }));
        }
        match behaviour {
            Behaviour::Serve => self.backend(request, true).await,
            Behaviour::OnlyTips => self.backend(request, false).await,
            Behaviour::Silence => std::future::pending().await,
            Behaviour::Status(status) => {
                Ok(Response::builder().status(status).body(Full::default())?)
            }
            Behaviour::RedirectTo(base) => {
                let location = format!("{base}{}", request.uri());
                let moved = Response::builder().status(StatusCode::MOVED_PERMANENTLY);
                Ok(moved.header(LOCATION, location).body(Full::default())?)
            }
        }
    }

    async fn backend(
        &self,
        request: Request<Incoming>,
        any_commit: bool,
    ) -> Result<Response<Full<Bytes>>> {
        let header = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let protocol = if any_commit { header("git-protocol") } else { String::new() };
        let settings = [
            ("http.receivepack", "true".to_owned()),
            ("uploadpack.allowAnySHA1InWant", any_commit.to_string()),
            ("safe.directory", "*".to_owned()),
        ];
        let mut command = tokio::process::Command::new("git");
        command
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", self.folder.path())
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_PROTOCOL", protocol)
            .env("REQUEST_METHOD", request.method().as_str())
            .env("PATH_INFO", request.uri().path())
            .env("QUERY_STRING", request.uri().query().unwrap_or_default())
            .env("CONTENT_TYPE", header(CONTENT_TYPE.as_str()))
            .env("HTTP_CONTENT_ENCODING", header(CONTENT_ENCODING.as_str()))
            .env("REMOTE_USER", "tester")
            .env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        let body = request.into_body().collect().await?.to_bytes();
        // After the four digits of its length.
        if let Some(command) = body.get(4..).and_then(|rest| rest.strip_prefix(b"command=")) {
            let mut words = command.split(|byte| !byte.is_ascii_lowercase() && *byte != b'-');
            let command = String::from_utf8_lossy(words.next().unwrap_or_default());
            self.state().commands.push(command.into_owned());
        }
        command.env("CONTENT_LENGTH", body.len().to_string());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("its input is connected")?;
        let write = async {
            // It may answer without reading everything.
            let _early = stdin.write_all(&body).await;
            drop(stdin);
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), write);
        from_cgi(&output?.stdout)
    }
}

fn from_cgi(output: &[u8]) -> Result<Response<Full<Bytes>>> {
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").context("it has a header")?;
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output[..end])?.lines() {
        let (name, value) = line.split_once(": ").context("a header has a value")?;
        if name.eq_ignore_ascii_case("status") {
            response = response.status(value.split(' ').next().unwrap_or(value));
        } else {
            response = response.header(name, value);
        }
    }
    Ok(response.body(Full::new(Bytes::copy_from_slice(&output[end + 4..])))?)
}

async fn serve(listener: TcpListener, host: Arc<Host>) {
    while let Ok((stream, _)) = listener.accept().await {
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let host = Arc::clone(&host);
                async move { host.answer(request).await.map_err(std::io::Error::other) }
            });
            // Errors of clients that disconnect are ignored.
            let _gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
