//! A GitLab that holds merge requests, comparisons and commit statuses, with the shapes of GitLab's API documentation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::hooks::{self, Hooks, merge};
use super::lists::open_page;
use super::server::{self, Answer, Asked, HostServer};

/// The token that everything is permitted to.
pub const TOKEN: &str = "glpat-CanaryOfGitLab0123456789";

/// The id of the project `group/sub/web`.
pub const PROJECT: u64 = 4;
/// The id of a fork of it.
pub const FORK: u64 = 9;

/// The server.
pub struct GitLabServer {
    server: HostServer,
    state: Arc<Mutex<GitLabState>>,
}

/// What the project has.
#[derive(Default)]
pub struct GitLabState {
    /// Merge requests by number, as they are answered.
    pub merge_requests: BTreeMap<u64, Value>,
    /// The changed files of merge requests: former and new path.
    pub files: BTreeMap<u64, Vec<(String, String)>>,
    /// The changed files between two commits.
    pub comparisons: BTreeMap<(String, String), Vec<(String, String)>>,
    /// Whether comparisons end too early.
    pub is_slow: bool,
    /// The statuses that were set: the project, the commit, and the body.
    pub statuses: Vec<(String, String, Value)>,
    /// The state of each status, by project, commit and name.
    jobs: BTreeMap<(String, String, String), String>,
    /// The webhooks.
    pub hooks: Hooks,
    /// The events of each webhook.
    pub events: BTreeMap<String, Vec<Value>>,
    /// The events that were sent again: the webhook, and the event.
    pub resent: Vec<(String, String)>,
}

impl GitLabServer {
    /// Starts a server.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start() -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(GitLabState::default()));
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
        format!("http://{}/group/sub/web.git", self.server.host())
    }

    /// Its entry of `code_hosts.apis`.
    #[must_use]
    pub fn entry(&self) -> String {
        format!("{}=gitlab", self.server.host())
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, GitLabState> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<GitLabState>) -> MutexGuard<'_, GitLabState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GitLabState {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let refuse = |status, message: &str| server::json(status, &json!({"message": message}));
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return refuse(401, "401 Unauthorized");
        }
        let words = asked.words();
        let Some(["api", "v4", "projects", project]) = words.get(..4) else {
            return refuse(404, "404 Not Found");
        };
        let project = match *project {
            "group/sub/web" | "4" => PROJECT.to_string(),
            "9" => FORK.to_string(),
            _ => return refuse(404, "404 Project Not Found"),
        };
        if let Some(["hooks", rest @ ..]) = words.get(4..) {
            return self.hooks(rest, asked);
        }
        let body = match (asked.method.as_str(), words.get(4..).unwrap_or_default()) {
            ("GET", []) => Some(json!({"id": PROJECT, "path_with_namespace": "group/sub/web"})),
            ("GET", ["merge_requests"]) => self.opened(asked),
            ("GET", ["merge_requests", number]) => self.merge_requests.get(&parse(number)).cloned(),
            ("GET", ["merge_requests", number, "diffs"]) => self.diffs(parse(number), asked),
            ("GET", ["repository", "compare"]) => self.comparison(asked),
            ("POST", ["statuses", commit]) => {
                return self.set_status(project, (*commit).to_owned(), &asked.body);
            }
            _ => None,
        };
        body.map_or_else(|| refuse(404, "404 Not found"), |body| server::json(200, &body))
    }

    fn hooks(&mut self, rest: &[&str], asked: &Asked) -> Answer {
        let body = match (asked.method.as_str(), rest) {
            ("GET", []) => {
                let without_token = |hook: &Value| {
                    let mut shown = hook.clone();
                    shown["token"] = Value::Null;
                    shown
                };
                Some(self.hooks.all.iter().map(without_token).collect())
            }
            ("POST", []) if asked.body["url"].is_string() => {
                let mut hook = asked.body.clone();
                hook["id"] = self.hooks.next_id().into();
                hook["alert_status"] = "executable".into();
                self.hooks.all.push(hook.clone());
                return server::json(201, &hook);
            }
            // An update does not end what disabled the webhook.
            ("PUT", [id]) => self.hooks.find(id).map(|hook| {
                merge(hook, &asked.body);
                hook.clone()
            }),
            ("DELETE", [id]) => return hooks::removed(self.hooks.remove(id)),
            ("GET", [id, "events"]) => {
                Some(self.events.get(*id).cloned().unwrap_or_default().into())
            }
            ("POST", [id, "events", event, "resend"]) => {
                self.resent.push(((*id).to_owned(), (*event).to_owned()));
                return server::json(201, &json!({"response_status": 200}));
            }
            _ => None,
        };
        let missing = || server::json(404, &json!({"message": "404 Not found"}));
        body.map_or_else(missing, |body| server::json(200, &body))
    }

    fn opened(&self, asked: &Asked) -> Option<Value> {
        let query = ["state", "order_by", "sort"].map(|name| asked.query(name));
        let size: usize = asked.query("per_page").parse().unwrap_or(20).min(100);
        let is_open = |it: &Value| it["state"] == "opened";
        let page = || open_page(self.merge_requests.values(), is_open, size, asked).into();
        (query == ["opened", "updated_at", "desc"]).then(page)
    }

    fn diffs(&self, number: u64, asked: &Asked) -> Option<Value> {
        let size: usize = asked.query("per_page").parse().unwrap_or(20).min(100);
        let page: usize = asked.query("page").parse().unwrap_or(1);
        let files = self.files.get(&number)?.iter().take(1000);
        Some(files.skip((page - 1) * size).take(size).map(difference).collect())
    }

    fn comparison(&self, asked: &Asked) -> Option<Value> {
        let commits = (asked.query("from").to_owned(), asked.query("to").to_owned());
        let files = self.comparisons.get(&commits).filter(|_| asked.query("straight") == "true")?;
        let diffs: Vec<Value> = files.iter().take(1000).map(difference).collect();
        Some(json!({
            "commit": null, "commits": [], "diffs": diffs, "compare_timeout": self.is_slow,
            "compare_same_ref": false,
        }))
    }

    /// A state machine per status: `pending`, `running`, and an end. After its end a new one begins.
    fn set_status(&mut self, project: String, commit: String, body: &Value) -> Answer {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (state, name) = (text("state"), text("name"));
        let job = self.jobs.entry((project.clone(), commit.clone(), name)).or_default();
        let is_allowed = match (job.as_str(), state.as_str()) {
            ("pending" | "running", "pending") | ("running", "running") => false,
            (_, "pending" | "running" | "success" | "failed" | "canceled") => true,
            _ => return server::json(400, &json!({"error": "state does not have a valid value"})),
        };
        if !is_allowed {
            let event = if state == "pending" { "enqueue" } else { "run" };
            let message = format!(
                "Cannot transition status via :{event} from :{job} (Reason(s): Status cannot transition via \"{event}\")"
            );
            return server::json(400, &json!({"message": message}));
        }
        *job = state;
        self.statuses.push((project, commit, body.clone()));
        server::json(201, body)
    }
}

fn difference((old, new): &(String, String)) -> Value {
    json!({"old_path": old, "new_path": new, "renamed_file": old != new, "diff": ""})
}

fn parse(number: &str) -> u64 {
    number.parse().unwrap_or_default()
}
