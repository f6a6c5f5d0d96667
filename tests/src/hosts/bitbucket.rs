//! A Bitbucket Cloud that holds pull requests, differences and build statuses, with the shapes of Atlassian's API
//! documentation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::hooks::{self, Hooks, merge};
use super::lists::open_page;
use super::server::{self, Answer, Asked, HostServer};

/// The access token that everything is permitted to.
pub const TOKEN: &str = "CanaryOfBitbucket0123456789";

/// The files of a page, whatever is asked for.
const PAGE: usize = 100;

/// The server.
pub struct BitbucketServer {
    server: HostServer,
    state: Arc<Mutex<BitbucketState>>,
}

/// What the repository `octo/web` has.
#[derive(Default)]
pub struct BitbucketState {
    /// Pull requests by number, as they are answered, and their newest commit.
    pub pulls: BTreeMap<u64, (Value, String)>,
    /// The common ancestors of two commits in either order.
    pub merge_bases: BTreeMap<String, String>,
    /// The differing files of two commits.
    pub differences: BTreeMap<String, Vec<Difference>>,
    /// The statuses that were set: the repository, the commit, and the body.
    pub statuses: Vec<(String, String, Value)>,
    /// The webhooks.
    pub hooks: Hooks,
}

/// A differing file.
#[derive(Clone)]
pub struct Difference {
    /// Its former path; `None` for a new file.
    pub old: Option<String>,
    /// Its path; `None` for a deleted file.
    pub new: Option<String>,
}

impl BitbucketServer {
    /// Starts a server.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start() -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(BitbucketState::default()));
        let of_server = Arc::clone(&state);
        let server = HostServer::start(move |asked| lock(&of_server).answer(asked)).await?;
        Ok(Self { server, state })
    }

    /// The server below.
    #[must_use]
    pub fn server(&self) -> &HostServer {
        &self.server
    }

    /// The repository's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/octo/web.git", self.server.host())
    }

    /// Its entry of `code_hosts.apis`.
    #[must_use]
    pub fn entry(&self) -> String {
        format!("{}=bitbucket", self.server.host())
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, BitbucketState> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<BitbucketState>) -> MutexGuard<'_, BitbucketState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BitbucketState {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let refuse = |status, message: &str| {
            server::json(status, &json!({"type": "error", "error": {"message": message}}))
        };
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return refuse(401, "Token is invalid, expired, or not supported for this endpoint.");
        }
        let words = asked.words();
        let Some(["2.0", "repositories", workspace, repository]) = words.get(..4) else {
            return refuse(404, "Resource not found");
        };
        if !matches!(*workspace, "octo" | "{}") {
            return refuse(404, "Repository not found");
        }
        if let Some(["hooks", rest @ ..]) = words.get(4..) {
            return self.hooks(rest, asked);
        }
        let rest = words.get(4..).unwrap_or_default();
        if (asked.method.as_str(), rest) == ("GET", &["pullrequests"]) {
            return self.open_pulls(asked);
        }
        let body = match (asked.method.as_str(), rest) {
            ("GET", []) => Some(json!({"uuid": "{web}", "full_name": "octo/web"})),
            ("GET", ["pullrequests", number]) => {
                self.pulls.get(&parse(number)).map(|(pull, _)| pull.clone())
            }
            ("GET", ["pullrequests", number, "commits"]) => {
                let newest = self.pulls.get(&parse(number)).map(|(_, newest)| newest);
                newest.map(|hash| json!({"values": [{"hash": hash}]}))
            }
            ("GET", ["merge-base", spec]) => {
                self.merge_bases.get(*spec).map(|hash| json!({"hash": hash}))
            }
            ("GET", ["diffstat", spec]) => self.difference(spec, asked),
            ("POST", ["commit", commit, "statuses", "build"]) => {
                return self.set_status(repository, commit, &asked.body);
            }
            _ => None,
        };
        body.map_or_else(|| refuse(404, "Resource not found"), |body| server::json(200, &body))
    }

    fn hooks(&mut self, rest: &[&str], asked: &Asked) -> Answer {
        let body = match (asked.method.as_str(), rest) {
            ("GET", []) => Some(json!({"pagelen": 100, "page": 1, "values": self.hooks.all})),
            ("POST", []) if asked.body["url"].is_string() => {
                let mut hook = asked.body.clone();
                hook["uuid"] = format!("{{hook-{}}}", self.hooks.next_id()).into();
                self.hooks.all.push(hook.clone());
                return server::json(201, &hook);
            }
            ("PUT", [id]) => self.hooks.find(id).map(|hook| {
                merge(hook, &asked.body);
                hook.clone()
            }),
            ("DELETE", [id]) => return hooks::removed(self.hooks.remove(id)),
            _ => None,
        };
        let missing = || server::json(404, &json!({"type": "error", "error": {"message": "no"}}));
        body.map_or_else(missing, |body| server::json(200, &body))
    }

    fn open_pulls(&self, asked: &Asked) -> Answer {
        let size: usize = asked.query("pagelen").parse().unwrap_or(10);
        if size > 50 {
            let error = json!({"message": "Invalid pagelen"});
            return server::json(400, &json!({"type": "error", "error": error}));
        }
        let all = || self.pulls.values().map(|(pull, _)| pull);
        let is_open = |pull: &Value| {
            asked.query("state") == "OPEN"
                && asked.query("sort") == "-updated_on"
                && pull["state"] == "OPEN"
        };
        let values = open_page(all(), is_open, size, asked);
        let page: usize = asked.query("page").parse().unwrap_or(1);
        let mut body = json!({"pagelen": size, "page": page, "values": values});
        if page * size < all().filter(|pull| is_open(pull)).count() {
            // What follows it would end elsewhere.
            body["next"] = "https://elsewhere.test/2.0/next".into();
        }
        server::json(200, &body)
    }

    fn difference(&self, spec: &str, asked: &Asked) -> Option<Value> {
        let files = self.differences.get(spec).filter(|_| asked.query("topic") == "false")?;
        let size: usize = asked.query("pagelen").parse().unwrap_or(PAGE).min(PAGE);
        let page: usize = asked.query("page").parse().unwrap_or(1);
        let named = |path: &Option<String>| path.as_ref().map(|path| json!({"path": path}));
        let of_page = files.iter().skip((page - 1) * size).take(size);
        let values: Vec<Value> =
            of_page.map(|file| json!({"old": named(&file.old), "new": named(&file.new)})).collect();
        let mut body = json!({"pagelen": size, "page": page, "values": values});
        if page * size < files.len() {
            // What follows it would end elsewhere.
            body["next"] = "https://elsewhere.test/2.0/next".into();
        }
        Some(body)
    }

    fn set_status(&mut self, repository: &str, commit: &str, body: &Value) -> Answer {
        let key = body["key"].as_str().unwrap_or_default();
        if key.is_empty() || key.chars().count() > 40 {
            let error = json!({"message": "key: Ensure this value has at most 40 characters"});
            return server::json(400, &json!({"type": "error", "error": error}));
        }
        self.statuses.push((repository.to_owned(), commit.to_owned(), body.clone()));
        server::json(201, body)
    }
}

fn parse(number: &str) -> u64 {
    number.parse().unwrap_or_default()
}
