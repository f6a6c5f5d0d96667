//! A Gitea that holds pull requests, comparisons and commit statuses, with the shapes of Gitea's OpenAPI document.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::hooks::{self, Hooks, merge};
use super::lists::open_page;
use super::server::{self, Answer, Asked, HostServer};

/// The token that everything is permitted to.
pub const TOKEN: &str = "CanaryOfGitea0123456789";

/// The most entries of a page, whatever is asked for: `MAX_RESPONSE_ITEMS`.
const PAGE: usize = 30;

/// The server.
pub struct GiteaServer {
    server: HostServer,
    state: Arc<Mutex<GiteaState>>,
}

/// What the repository `octo/web` has.
#[derive(Default)]
pub struct GiteaState {
    /// Pull requests by number, as they are answered.
    pub pulls: BTreeMap<u64, Value>,
    /// The changed files of pull requests.
    pub files: BTreeMap<u64, Vec<String>>,
    /// Comparisons by `BASE...HEAD`, as they are answered.
    pub comparisons: BTreeMap<String, Value>,
    /// The statuses that were set: the commit, and the body.
    pub statuses: Vec<(String, Value)>,
    /// The webhooks.
    pub hooks: Hooks,
}

impl GiteaServer {
    /// Starts a server.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start() -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(GiteaState::default()));
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
        format!("{}=gitea", self.server.host())
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, GiteaState> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<GiteaState>) -> MutexGuard<'_, GiteaState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GiteaState {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let refuse = |status, message: &str| server::json(status, &json!({"message": message}));
        if asked.header("authorization") != format!("token {TOKEN}") {
            return refuse(401, "invalid username, password or token");
        }
        let words = asked.words();
        let Some(rest) = words.strip_prefix(["api", "v1", "repos", "octo", "web"].as_slice())
        else {
            return refuse(404, "The target couldn't be found.");
        };
        if let ["hooks", rest @ ..] = rest {
            return self.hooks(rest, asked);
        }
        let body = match (asked.method.as_str(), rest) {
            ("GET", []) => Some(json!({"id": 5, "full_name": "octo/web"})),
            ("GET", ["pulls"]) => self.open_pulls(asked),
            ("GET", ["pulls", number]) => self.pulls.get(&parse(number)).cloned(),
            ("GET", ["pulls", number, "files"]) => self.pull_files(parse(number), asked),
            ("GET", ["compare", spec]) => self.comparisons.get(*spec).cloned(),
            ("POST", ["statuses", commit]) => {
                self.statuses.push(((*commit).to_owned(), asked.body.clone()));
                return server::json(201, &asked.body);
            }
            _ => None,
        };
        let missing = || refuse(404, "The target couldn't be found.");
        body.map_or_else(missing, |body| server::json(200, &body))
    }

    fn hooks(&mut self, rest: &[&str], asked: &Asked) -> Answer {
        let body = match (asked.method.as_str(), rest) {
            ("GET", []) => {
                let is_first = matches!(asked.query("page"), "" | "1");
                Some(self.hooks.all.iter().filter(|_| is_first).cloned().collect())
            }
            ("POST", []) if asked.body["type"] == "gitea" => {
                let mut hook = json!({"active": false});
                merge(&mut hook, &asked.body);
                hook["id"] = self.hooks.next_id().into();
                self.hooks.all.push(hook.clone());
                return server::json(201, &hook);
            }
            ("PATCH", [id]) => self.hooks.find(id).map(|hook| {
                merge(hook, &asked.body);
                hook.clone()
            }),
            ("DELETE", [id]) => return hooks::removed(self.hooks.remove(id)),
            _ => None,
        };
        let missing = || server::json(404, &json!({"message": "not found"}));
        body.map_or_else(missing, |body| server::json(200, &body))
    }

    fn open_pulls(&self, asked: &Asked) -> Option<Value> {
        let is_asked = asked.query("state") == "open" && asked.query("sort") == "recentupdate";
        let size: usize = asked.query("limit").parse().unwrap_or(PAGE).min(PAGE);
        let is_open = |pull: &Value| pull["state"] == "open";
        is_asked.then(|| open_page(self.pulls.values(), is_open, size, asked).into())
    }

    fn pull_files(&self, number: u64, asked: &Asked) -> Option<Value> {
        let size: usize = asked.query("limit").parse().unwrap_or(PAGE).min(PAGE);
        let page: usize = asked.query("page").parse().unwrap_or(1);
        let files = self.files.get(&number)?.iter().skip((page - 1) * size).take(size);
        Some(files.map(|path| json!({"filename": path, "status": "changed"})).collect())
    }
}

fn parse(number: &str) -> u64 {
    number.parse().unwrap_or_default()
}
