//! The files of a repository that Git LFS keeps outside of git.
//!
//! In: the pointers in a commit. Out: where the server of the repository says that the files are, and their content. What
//! the server names is a stranger's address: it goes through the guard, gets only the headers that the server gave for it,
//! and never the credentials of the repository.
//!
//! Sources: the specification of pointers and of the Batch API, github.com/git-lfs/git-lfs, `docs/spec.md` and
//! `docs/api/batch.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use gantry_domain::source::GitUrl;
use gantry_ops::backoff::Backoff;
use gantry_ops::secret::{Credentials, ExposeSecret as _};
use gantry_ops::terminal::one_line;
use reqwest::header::{HeaderName, HeaderValue, LOCATION};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::git::user_of;
use crate::guard::OutboundRefused;
use crate::http::{
    ClientError, Method, OutboundClient, OutboundError, RequestBuilder, Response, StatusCode,
    failure, read_body, says_away,
};

/// A longer file is no pointer.
pub const LONGEST_POINTER: u64 = 1024;

/// How a pointer begins.
const VERSION: &str = "version https://git-lfs.github.com/spec/v1";

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

/// How many files one request asks for, as in the original client.
pub const FILES_A_REQUEST: usize = 100;

/// The longest answer: a hundred files, each with an address and headers.
const LONGEST_ANSWER: u64 = 4 << 20;

/// The longest message of a server that is passed on.
const LONGEST_MESSAGE: usize = 200;

const MOST_REDIRECTS: usize = 5;
const TRIES: u32 = 3;

/// What git has in place of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pointer {
    /// The SHA-256 of the file, in hexadecimal digits.
    pub oid: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Pointer {
    /// Parses a pointer; `None` for any other file. Its version comes first, and no line is longer than the whole may be.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 > LONGEST_POINTER {
            return None;
        }
        let rest = std::str::from_utf8(bytes).ok()?.strip_prefix(VERSION)?;
        let (mut oid, mut size) = (None, None);
        for line in rest.strip_prefix('\n')?.lines() {
            match line.split_once(' ')? {
                ("oid", value) if oid.is_none() => oid = Some(value.strip_prefix("sha256:")?),
                ("size", value) if size.is_none() => size = Some(value.parse().ok()?),
                ("oid" | "size", _) => return None,
                _ => {}
            }
        }
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let oid = oid.filter(|oid| oid.len() == 64 && oid.bytes().all(is_digit))?;
        Some(Self { oid: oid.to_owned(), size: size? })
    }
}

/// The LFS server of a repository.
#[derive(Debug, Clone)]
pub struct LfsServer {
    http: OutboundClient,
    endpoint: Url,
    credentials: Option<Credentials>,
}

/// Where a file is.
#[derive(Debug, Clone)]
pub struct Located {
    address: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A file that Git LFS keeps could not be fetched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields explain themselves")]
pub enum LfsError {
    /// The guard refused an address.
    #[error(transparent)]
    Refused(#[from] OutboundRefused),
    /// The repository is read over ssh.
    #[error(
        "files of Git LFS are not fetched over ssh: give the `https://` address of {repository} as the source"
    )]
    OverSsh { repository: String },
    /// A client cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server did not answer.
    #[error("the Git LFS server {server} could not be asked")]
    Unreachable { server: String, source: OutboundError },
    /// The server rejects the credentials.
    #[error(
        "the Git LFS server {server} answered {status}: give the source a token that may read the repository"
    )]
    Unauthorized { server: String, status: StatusCode },
    /// There is no such server.
    #[error(
        "there is no Git LFS server at {server}: push the files with `git lfs push` to the repository itself, or fetch the source \
         without `--lfs`"
    )]
    NoServer { server: String },
    /// The server answered with an error.
    #[error("the Git LFS server {server} answered {status}: try again, or ask its operator")]
    Status { server: String, status: StatusCode },
    /// The answer follows no rule.
    #[error("the Git LFS server {server} answered with {what}")]
    Malformed { server: String, what: String },
    /// The server does not have the file.
    #[error("the Git LFS server {server} does not have it: push it with `git lfs push --all`")]
    Missing { server: String },
    /// The server refuses the file.
    #[error("the Git LFS server {server} refuses it ({code}): {message}")]
    File { server: String, code: u16, message: String },
    /// The content is not that of the pointer.
    #[error("{server} sent something else than the file with SHA-256 {oid}: push it again")]
    OtherContent { server: String, oid: String },
    /// The connection broke off.
    #[error("{server} broke off")]
    BrokeOff { server: String, source: OutboundError },
    /// The deadline passed.
    #[error(
        "fetching files of Git LFS timed out: raise the run's timeout, or make the source smaller"
    )]
    TimedOut,
}

impl LfsError {
    /// Whether a retry may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } | Self::BrokeOff { source, .. } => {
                source.is_transient()
            }
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::File { code, .. } => *code >= 500,
            Self::TimedOut => true,
            Self::Refused(_)
            | Self::OverSsh { .. }
            | Self::Client(_)
            | Self::Unauthorized { .. }
            | Self::NoServer { .. }
            | Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::OtherContent { .. } => false,
        }
    }

    /// Whether the server did not answer, or a gateway answered in its place.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } | Self::BrokeOff { source, .. } => {
                source.is_transient()
            }
            Self::Status { status, .. } => says_away(*status),
            Self::Refused(_)
            | Self::OverSsh { .. }
            | Self::Client(_)
            | Self::Unauthorized { .. }
            | Self::NoServer { .. }
            | Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::File { .. }
            | Self::OtherContent { .. }
            | Self::TimedOut => false,
        }
    }
}

#[derive(Serialize)]
struct Asked<'a> {
    operation: &'static str,
    transfers: [&'static str; 1],
    hash_algo: &'static str,
    objects: &'a [Pointer],
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    transfer: Option<String>,
    objects: Vec<AnsweredFile>,
}

#[derive(Deserialize)]
struct AnsweredFile {
    oid: String,
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<FileError>,
}

#[derive(Deserialize)]
struct Actions {
    #[serde(default)]
    download: Option<Download>,
}

#[derive(Deserialize)]
struct Download {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct FileError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl LfsServer {
    /// The server of a repository, at the address that the original client derives from the repository's. What a file of
    /// the repository says is not asked for.
    ///
    /// # Errors
    /// [`LfsError::OverSsh`], [`LfsError::Client`].
    pub fn of(
        http: &OutboundClient,
        repository: &GitUrl,
        credentials: Option<&Credentials>,
    ) -> Result<Self, LfsError> {
        if repository.is_ssh() {
            return Err(LfsError::OverSsh { repository: repository.to_string() });
        }
        let mut endpoint = repository.as_url().clone();
        let path = endpoint.path().trim_end_matches('/');
        let suffix = if path.ends_with(".git") { "" } else { ".git" };
        let path = format!("{path}{suffix}/info/lfs/objects/batch");
        endpoint.set_path(&path);
        // A redirect would take the credentials elsewhere.
        let http = http.without_redirects()?;
        Ok(Self { http, endpoint, credentials: credentials.cloned() })
    }

    /// The server's address, for people.
    #[must_use]
    pub fn address(&self) -> String {
        let address = self.endpoint.as_str();
        address.strip_suffix("/objects/batch").unwrap_or(address).to_owned()
    }

    /// Asks where files are, at most [`FILES_A_REQUEST`]. In the order of the pointers, with an error for each that the
    /// server does not give.
    ///
    /// # Errors
    /// [`LfsError`].
    pub async fn locate(
        &self,
        pointers: &[Pointer],
        deadline: Instant,
    ) -> Result<Vec<Result<Located, LfsError>>, LfsError> {
        let answer = again(deadline, || self.ask(pointers)).await?;
        if answer.transfer.is_some_and(|transfer| transfer != "basic") {
            return Err(self.malformed("a way of transfer that was not asked for"));
        }
        let mut files: BTreeMap<String, AnsweredFile> =
            answer.objects.into_iter().map(|file| (file.oid.clone(), file)).collect();
        Ok(pointers.iter().map(|pointer| self.located(files.remove(&pointer.oid))).collect())
    }

    async fn ask(&self, pointers: &[Pointer]) -> Result<Answer, LfsError> {
        let asked = Asked {
            operation: "download",
            transfers: ["basic"],
            hash_algo: "sha256",
            objects: pointers,
        };
        let body = serde_json::to_vec(&asked).map_err(|_| self.malformed("nothing"))?;
        let mut request = self.http.request(Method::POST, self.endpoint.clone())?;
        request = request.header("accept", MEDIA_TYPE).header("content-type", MEDIA_TYPE);
        if let Some(credentials) = &self.credentials {
            let password = credentials.password.expose_secret();
            request = request.basic_auth(user_of(credentials), Some(password));
        }
        let response = self.send(request.body(body)).await?;
        let status = response.status();
        let server = self.address();
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(LfsError::Unauthorized { server, status });
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                return Err(LfsError::NoServer { server });
            }
            _ if status.is_redirection() => {
                return Err(self.malformed("a redirect: give the source its present address"));
            }
            _ => return Err(LfsError::Status { server, status }),
        }
        let body = read_body(response, LONGEST_ANSWER).await;
        let body = body.map_err(|source| LfsError::BrokeOff { server, source })?;
        serde_json::from_slice(&body)
            .map_err(|_| self.malformed("something else than JSON of Git LFS"))
    }

    fn located(&self, file: Option<AnsweredFile>) -> Result<Located, LfsError> {
        let server = self.address();
        let Some(file) = file else { return Err(self.malformed("too few files")) };
        if let Some(FileError { code, message }) = file.error {
            if matches!(code, 404 | 410) {
                return Err(LfsError::Missing { server });
            }
            let message = one_line(&message.chars().take(LONGEST_MESSAGE).collect::<String>());
            return Err(LfsError::File { server, code, message });
        }
        let Some(Download { href, header }) = file.actions.and_then(|actions| actions.download)
        else {
            return Err(LfsError::Missing { server });
        };
        // A relative one is meant relative to the server, as some answer.
        let address = self.endpoint.join(&href);
        let address = address.map_err(|_| self.malformed("an address that is none"))?;
        self.http.policy().check(&address)?;
        if self.endpoint.scheme() == "https" && address.scheme() != "https" {
            let host = address.host_str().unwrap_or_default().to_owned();
            return Err(OutboundRefused::Downgrade { host }.into());
        }
        let mut headers = Vec::new();
        for (name, value) in header {
            let header = name.parse::<HeaderName>().ok().zip(value.parse::<HeaderValue>().ok());
            let (name, mut value) =
                header.ok_or_else(|| self.malformed("a header that is none"))?;
            value.set_sensitive(true);
            // They are the transport's business.
            if !matches!(
                name.as_str(),
                "host" | "content-length" | "transfer-encoding" | "connection"
            ) {
                headers.push((name, value));
            }
        }
        Ok(Located { address, headers })
    }

    /// Begins to read a file. Its content is not checked. A redirect gets none of the headers.
    ///
    /// # Errors
    /// [`LfsError`].
    pub async fn open(&self, located: &Located, deadline: Instant) -> Result<Response, LfsError> {
        again(deadline, || self.open_once(located)).await
    }

    async fn open_once(&self, located: &Located) -> Result<Response, LfsError> {
        let mut address = located.address.clone();
        for redirects in 0..=MOST_REDIRECTS {
            let mut request = self.http.request(Method::GET, address.clone())?;
            if redirects == 0 {
                for (name, value) in &located.headers {
                    request = request.header(name, value);
                }
            }
            let response = self.send(request).await?;
            let (status, server) = (response.status(), host_of(&address));
            if status == StatusCode::OK {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|next| next.to_str().ok());
            let next = next.filter(|_| status.is_redirection());
            let Some(next) = next.and_then(|next| address.join(next).ok()) else {
                return Err(match status {
                    StatusCode::NOT_FOUND | StatusCode::GONE => LfsError::Missing { server },
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        LfsError::Unauthorized { server, status }
                    }
                    _ => LfsError::Status { server, status },
                });
            };
            if address.scheme() == "https" && next.scheme() != "https" {
                return Err(OutboundRefused::Downgrade { host: host_of(&next) }.into());
            }
            address = next;
        }
        Err(self.malformed("too many redirects"))
    }

    /// The next piece of a file; `None` at its end.
    ///
    /// # Errors
    /// [`LfsError::BrokeOff`].
    pub async fn next(&self, response: &mut Response) -> Result<Option<Bytes>, LfsError> {
        let server = host_of(response.url());
        let chunk = response.chunk().await;
        chunk.map_err(|error| LfsError::BrokeOff { server, source: failure(error) })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, LfsError> {
        self.http.send(request).await.map_err(|error| match error {
            OutboundError::Refused(refused) => LfsError::Refused(refused),
            source @ (OutboundError::Unreachable { .. } | OutboundError::TooLarge { .. }) => {
                LfsError::Unreachable { server: self.address(), source }
            }
        })
    }

    fn malformed(&self, what: &str) -> LfsError {
        LfsError::Malformed { server: self.address(), what: what.to_owned() }
    }
}

fn host_of(address: &Url) -> String {
    address.host_str().unwrap_or_default().to_owned()
}

/// Repeats what fails for a while.
async fn again<T, F>(deadline: Instant, work: impl Fn() -> F) -> Result<T, LfsError>
where
    F: Future<Output = Result<T, LfsError>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    for _ in 1..TRIES {
        match timeout_at(deadline, work()).await.map_err(|_| LfsError::TimedOut)? {
            Err(error) if error.is_transient() => tokio::time::sleep(backoff.wait()).await,
            done => return done,
        }
    }
    timeout_at(deadline, work()).await.map_err(|_| LfsError::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_specification_allows_is_a_pointer() {
        let oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let parse = |text: &str| Pointer::parse(text.as_bytes());
        let pointer = Some(Pointer { oid: oid.to_owned(), size: 12345 });
        assert_eq!(parse(&format!("{VERSION}\noid sha256:{oid}\nsize 12345\n")), pointer);
        let extended = format!("{VERSION}\next-0-foo sha256:{oid}\noid sha256:{oid}\nsize 12345\n");
        assert_eq!(parse(&extended), pointer);
        for refused in [
            String::new(),
            format!("{VERSION}\n"),
            format!("{VERSION}\noid sha256:{oid}\n"),
            format!("{VERSION}\noid sha256:{oid}\nsize -1\n"),
            format!("{VERSION}\noid sha256:{oid}\nsize 99999999999999999999\n"),
            format!("{VERSION}\noid md5:{oid}\nsize 1\n"),
            format!("{VERSION}\noid sha256:{}\nsize 1\n", oid.to_uppercase()),
            format!("{VERSION}\noid sha256:../../{oid}\nsize 1\n"),
            format!("{VERSION}\noid sha256:{oid}\noid sha256:{oid}\nsize 1\n"),
            format!("{VERSION}0\noid sha256:{oid}\nsize 1\n"),
            format!("oid sha256:{oid}\nsize 1\n{VERSION}\n"),
            format!("{VERSION}\noid sha256:{oid}\nsize 1\n{}", "x y\n".repeat(300)),
        ] {
            assert_eq!(parse(&refused), None, "{refused}");
        }
    }
}
