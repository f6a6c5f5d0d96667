//! A GitHub that holds pull requests, comparisons and commit statuses.
//!
//! It answers with the examples of GitHub's OpenAPI document, into which a test puts what it is about, and refuses what
//! the document does not describe.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::contract::{Contract, Operation};
use super::github_app::RegisteredApp;
use super::hooks::{self, Hooks, merge};
use super::lists::open_page;
use super::server::{self, Answer, Asked, HostServer};

/// The token that everything is permitted to.
pub const TOKEN: &str = "ghp_CanaryOfGitHub0123456789";

/// A token that may only read.
pub const READER: &str = "github_pat_CanaryOfReader0123456789";

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    Contract::parse(include_str!("../../fixtures/octokit-openapi/api.github.com.json"))
});

/// The server. Dropping it panics if a request was not as GitHub describes it.
pub struct GitHubServer {
    server: HostServer,
    state: Arc<Mutex<GitHubState>>,
}

/// What the repository `octo/web` has.
#[derive(Default)]
pub struct GitHubState {
    /// Pull requests by number: the fields that differ from the example.
    pub pulls: BTreeMap<u64, Value>,
    /// The changed files of pull requests.
    pub files: BTreeMap<u64, Vec<ChangedFile>>,
    /// Comparisons by `BASE...HEAD`.
    pub comparisons: BTreeMap<String, Comparison>,
    /// The statuses that were set: the commit, and the body.
    pub statuses: Vec<(String, Value)>,
    /// The check runs of the App, in the order in which they were made.
    pub check_runs: Vec<Value>,
    /// What was set of check runs: the id, and the body.
    pub checks_set: Vec<(u64, Value)>,
    /// The App that is registered here.
    pub app: RegisteredApp,
    /// The webhooks.
    pub hooks: Hooks,
    /// The deliveries of each webhook: the fields that differ from the example.
    pub deliveries: BTreeMap<u64, Vec<Value>>,
    /// The deliveries that were sent again: the webhook, and the delivery.
    pub redelivered: Vec<(String, String)>,
    violations: Vec<String>,
}

/// A changed file.
#[derive(Clone)]
pub struct ChangedFile {
    /// Its path.
    pub path: String,
    /// The former path of a renamed file.
    pub former: Option<String>,
}

/// How two commits differ.
pub struct Comparison {
    /// `ahead`, `behind`, `diverged` or `identical`.
    pub status: &'static str,
    /// The files.
    pub files: Vec<ChangedFile>,
}

impl GitHubServer {
    /// Starts a server.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start() -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(GitHubState::default()));
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
        format!("{}=github", self.server.host())
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, GitHubState> {
        lock(&self.state)
    }
}

impl Drop for GitHubServer {
    fn drop(&mut self) {
        let violations = std::mem::take(&mut self.state().violations);
        assert!(std::thread::panicking() || violations.is_empty(), "{violations:#?}");
    }
}

fn lock(state: &Mutex<GitHubState>) -> MutexGuard<'_, GitHubState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GitHubState {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let refuse = |status, message: &str| server::json(status, &json!({"message": message}));
        if asked.words.ends_with(&["info".to_owned(), "refs".to_owned()]) {
            return refuse(404, "there is nothing to fetch");
        }
        // GitHub Enterprise Server has its API below `/api/v3`.
        let mut at_root = asked.clone();
        let prefix: Vec<String> = at_root.words.drain(..2.min(asked.words.len())).collect();
        let checked = match prefix.join("/").as_str() {
            "api/v3" => CONTRACT.check(&at_root),
            _ => Err(format!("`{}` is not the API", asked.words.join("/"))),
        };
        let operation = match checked {
            Ok(operation) => operation,
            Err(wrong) => {
                self.violations.push(wrong.clone());
                return refuse(400, &wrong);
            }
        };
        if asked.header("accept") != "application/vnd.github+json"
            || asked.header("x-github-api-version").is_empty()
            || !asked.header("user-agent").starts_with("gantry/")
        {
            self.violations.push(format!("headers: {:?}", asked.headers));
        }
        let words = at_root.words();
        if words.first() == Some(&"app") || words.last() == Some(&"installation") {
            return self.app.answer(operation, asked, &words);
        }
        let token = asked.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        let is_of_hooks = at_root.words.get(3).is_some_and(|word| word == "hooks");
        match (token, asked.method == "GET" && !is_of_hooks) {
            (TOKEN, _) | (READER, true) => {}
            (token, _) if token.starts_with("ghs_") => {
                if let Some(refusal) = self.app.refusal(token, asked, &words) {
                    self.violations.push(refusal.clone());
                    return refuse(403, &refusal);
                }
            }
            (READER, false) => {
                let mut answer = refuse(403, "Resource not accessible by personal access token");
                let right = if is_of_hooks { "repository_hooks=write" } else { "statuses=write" };
                let right = right.parse().expect("a header");
                answer.headers_mut().insert("x-accepted-github-permissions", right);
                return answer;
            }
            ("", _) => return refuse(404, "Not Found"),
            (_, _) => return refuse(401, "Bad credentials"),
        }
        if words.get(1..3) != Some(&["octo", "web"]) {
            return refuse(404, "Not Found");
        }
        let body = match words.get(3..).unwrap_or_default() {
            [] => Some(operation.example.clone()),
            ["pulls"] => self.open_pulls(operation, asked),
            ["pulls", number] => self.pull(operation, number),
            ["pulls", number, "files"] => self.pull_files(operation, number, asked),
            ["compare", spec] => self.comparison(operation, spec),
            ["statuses", commit] => Some(self.set_status(operation, commit, &asked.body)),
            ["commits", commit, "check-runs"] => Some(self.list_checks(operation, commit, asked)),
            ["check-runs"] => Some(self.create_check(operation, &asked.body)),
            ["check-runs", id] => self.update_check(operation, id, &asked.body),
            ["hooks", rest @ ..] => return self.hooks(operation, rest, asked),
            _ => None,
        };
        let Some(body) = body else { return refuse(404, "Not Found") };
        server::json(operation.status, &body)
    }

    fn pull(&self, operation: &Operation, number: &str) -> Option<Value> {
        let number: u64 = number.parse().ok()?;
        let mut pull = operation.example.clone();
        pull["number"] = number.into();
        merge(&mut pull, self.pulls.get(&number)?);
        Some(pull)
    }

    fn open_pulls(&self, operation: &Operation, asked: &Asked) -> Option<Value> {
        let like_example = |(number, fields): (&u64, &Value)| {
            let mut pull = operation.example[0].clone();
            pull["number"] = (*number).into();
            merge(&mut pull, fields);
            pull
        };
        let query = ["state", "sort", "direction"].map(|name| asked.query(name));
        let size: usize = asked.query("per_page").parse().unwrap_or(30).min(100);
        let all: Vec<Value> = self.pulls.iter().map(like_example).collect();
        let page = open_page(all.iter(), |pull| pull["state"] == "open", size, asked);
        (query == ["open", "updated", "desc"]).then(|| page.into())
    }

    fn pull_files(&self, operation: &Operation, number: &str, asked: &Asked) -> Option<Value> {
        let files = self.files.get(&number.parse().ok()?)?;
        let size: usize = asked.query("per_page").parse().unwrap_or(30).min(100);
        let page: usize = asked.query("page").parse().unwrap_or(1);
        let files = files.iter().take(3000).skip((page - 1) * size).take(size);
        Some(files.map(|file| like(&operation.example[0], file)).collect())
    }

    fn comparison(&self, operation: &Operation, spec: &str) -> Option<Value> {
        let Comparison { status, files } = self.comparisons.get(spec)?;
        let mut comparison = operation.example.clone();
        let example = comparison["files"][0].clone();
        comparison["status"] = (*status).into();
        comparison["files"] = files.iter().take(300).map(|file| like(&example, file)).collect();
        Some(comparison)
    }

    fn hooks(&mut self, operation: &Operation, rest: &[&str], asked: &Asked) -> Answer {
        let body = match (asked.method.as_str(), rest) {
            ("GET", []) => {
                let shown = self.hooks.all.iter().map(|hook| {
                    let mut shown = hook.clone();
                    shown["config"]["secret"] = "********".into();
                    shown
                });
                Some(shown.collect())
            }
            ("POST", []) => self.create_hook(operation, &asked.body),
            ("PATCH", [id]) => self.hooks.find(id).map(|hook| {
                merge(hook, &asked.body);
                hook.clone()
            }),
            ("DELETE", [id]) => return hooks::removed(self.hooks.remove(id)),
            ("GET", [id, "deliveries"]) => {
                let sent = id.parse().ok().and_then(|id: u64| self.deliveries.get(&id));
                let like_example = |fields: &Value| {
                    let mut delivery = operation.example[0].clone();
                    merge(&mut delivery, fields);
                    delivery
                };
                Some(sent.into_iter().flatten().map(like_example).collect())
            }
            ("POST", [id, "deliveries", delivery, "attempts"]) => {
                self.redelivered.push(((*id).to_owned(), (*delivery).to_owned()));
                Some(json!({}))
            }
            _ => None,
        };
        match body {
            Some(Value::String(refused)) => server::json(422, &json!({"message": refused})),
            Some(body) => server::json(operation.status, &body),
            None => server::json(404, &json!({"message": "Not Found"})),
        }
    }

    /// A text if it is refused.
    fn create_hook(&mut self, operation: &Operation, body: &Value) -> Option<Value> {
        let is_same = |hook: &Value| hook["config"]["url"] == body["config"]["url"];
        if self.hooks.all.iter().any(is_same) {
            return Some("Validation Failed: Hook already exists on this repository".into());
        }
        let mut hook = operation.example.clone();
        // What GitHub does without these fields.
        hook["config"]["content_type"] = "form".into();
        merge(&mut hook, body);
        hook["id"] = self.hooks.next_id().into();
        self.hooks.all.push(hook.clone());
        Some(hook)
    }

    fn list_checks(&self, operation: &Operation, commit: &str, asked: &Asked) -> Value {
        let is_asked_for = |check: &&Value| {
            check["head_sha"] == commit
                && check["name"] == asked.query("check_name")
                && asked.query("app_id") == super::github_app::NUMBER.to_string()
        };
        let found: Vec<&Value> =
            self.check_runs.iter().rev().filter(is_asked_for).take(1).collect();
        let mut listed = operation.example.clone();
        merge(&mut listed, &json!({"total_count": found.len(), "check_runs": found}));
        listed
    }

    fn create_check(&mut self, operation: &Operation, body: &Value) -> Value {
        let id = self.check_runs.len() as u64 + 1;
        let mut check = operation.example.clone();
        merge(&mut check, body);
        check["id"] = id.into();
        check["conclusion"] = body["conclusion"].clone();
        self.check_runs.push(check.clone());
        self.checks_set.push((id, body.clone()));
        check
    }

    fn update_check(&mut self, operation: &Operation, id: &str, body: &Value) -> Option<Value> {
        let number: u64 = id.parse().ok()?;
        let check = self.check_runs.iter_mut().find(|check| check["id"] == number)?;
        merge(check, body);
        check["conclusion"] = body["conclusion"].clone();
        self.checks_set.push((number, body.clone()));
        let mut shown = operation.example.clone();
        merge(&mut shown, check);
        Some(shown)
    }

    fn set_status(&mut self, operation: &Operation, commit: &str, body: &Value) -> Value {
        self.statuses.push((commit.to_owned(), body.clone()));
        let mut status = operation.example.clone();
        merge(&mut status, body);
        status
    }
}

fn like(example: &Value, ChangedFile { path, former }: &ChangedFile) -> Value {
    let mut file = example.clone();
    file["filename"] = path.as_str().into();
    if let Some(former) = former {
        file["previous_filename"] = former.as_str().into();
        file["status"] = "renamed".into();
    }
    file
}
