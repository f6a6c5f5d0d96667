//! An Azure DevOps that holds pull requests, differences and statuses.
//!
//! Its answers have the shapes of the examples in Microsoft's specification (`MicrosoftDocs/vsts-rest-api-specs`,
//! `specification/git/7.1`), without what gantry does not read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Response;
use serde_json::{Value, json};

use super::hooks::{self, Hooks, merge};
use super::server::{self, Answer, Asked, HostServer};

/// The token that everything is permitted to.
pub const TOKEN: &str = "CanaryOfAzureDevOps0123456789";

/// The path of the repository's API.
const REPOSITORY: [&str; 6] = ["Collection", "My Project", "_apis", "git", "repositories", "web"];

/// The path of the service hooks' API.
const SERVICE_HOOKS: [&str; 4] = ["Collection", "_apis", "hooks", "subscriptions"];

/// The server.
pub struct AzureDevOpsServer {
    server: HostServer,
    state: Arc<Mutex<AzureDevOpsState>>,
}

/// What the repository `web` of the project `My Project` has.
#[derive(Default)]
pub struct AzureDevOpsState {
    /// Pull requests by number, as they are answered.
    pub pulls: BTreeMap<u64, Value>,
    /// The source commits of the iterations of pull requests.
    pub iterations: BTreeMap<u64, Vec<String>>,
    /// The changes of pull requests.
    pub changes: BTreeMap<u64, Vec<Value>>,
    /// The changes between two commits.
    pub differences: BTreeMap<(String, String), Vec<Value>>,
    /// The statuses of commits: the commit, and the body.
    pub commit_statuses: Vec<(String, Value)>,
    /// The statuses of pull requests: the number, and the body.
    pub pull_statuses: Vec<(u64, Value)>,
    /// The subscriptions of service hooks.
    pub subscriptions: Hooks,
    /// The notifications of each subscription.
    pub notifications: BTreeMap<String, Vec<Value>>,
    /// Whether an update leaves a subscription disabled.
    pub stays_disabled: bool,
    /// Whether answers ask to slow down, as a busy service does.
    pub is_busy: bool,
}

impl AzureDevOpsServer {
    /// Starts a server.
    ///
    /// # Errors
    /// The system's error.
    pub async fn start() -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(AzureDevOpsState::default()));
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
        format!("http://{}/Collection/My%20Project/_git/web", self.server.host())
    }

    /// Its entry of `code_hosts.apis`.
    #[must_use]
    pub fn entry(&self) -> String {
        format!("{}=azure-devops", self.server.host())
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, AzureDevOpsState> {
        lock(&self.state)
    }
}

/// The page to which Azure DevOps sends browsers without a valid token.
///
/// # Panics
/// If `status` is none.
#[must_use]
pub fn sign_in_page(status: u16) -> Answer {
    let page = Response::builder()
        .status(status)
        .header("content-type", "text/html; charset=utf-8")
        .header(
            "location",
            "https://spsprodeus.vssps.visualstudio.com/_signin?realm=dev.azure.com",
        );
    page.body("<html>Sign in</html>".into()).expect("a status")
}

fn lock(state: &Mutex<AzureDevOpsState>) -> MutexGuard<'_, AzureDevOpsState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse(status: u16, kind: &str, message: &str) -> Answer {
    server::json(status, &json!({"$id": "1", "message": message, "typeKey": kind, "eventId": 3000}))
}

impl AzureDevOpsState {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let given = asked.header("authorization");
        if given != format!("Basic {}", STANDARD.encode(format!(":{TOKEN}"))) {
            // With `X-TFS-FedAuthRedirect: Suppress`; otherwise it redirects.
            let is_suppressed = asked.header("x-tfs-fedauthredirect") == "Suppress";
            return sign_in_page(if is_suppressed { 401 } else { 302 });
        }
        if asked.query("api-version") != "7.1" {
            return refuse(400, "VssVersionNotSpecifiedException", "No api-version was supplied");
        }
        let words = asked.words();
        if let Some(rest) = words.strip_prefix(SERVICE_HOOKS.as_slice()) {
            return self.service_hooks(rest, asked);
        }
        let Some(rest) = words.strip_prefix(REPOSITORY.as_slice()) else {
            return refuse(404, "GitRepositoryNotFoundException", "TF401019: no such repository");
        };
        let answer = match (asked.method.as_str(), rest) {
            ("GET", []) => Some(json!({"id": "r-1", "name": "web", "project": {"id": "p-1"}})),
            ("GET", ["pullRequests"]) => self.active_pulls(asked),
            ("GET", ["pullRequests", number]) => {
                self.pulls.get(&parse(number)).map(|pull| without(pull, &["labels"]))
            }
            ("GET", ["pullRequests", number, "labels"]) => self.labels(parse(number)),
            ("GET", ["pullRequests", number, "iterations"]) => self.iterations(parse(number)),
            ("GET", ["pullRequests", number, "iterations", iteration, "changes"]) => {
                self.changes(parse(number), parse(iteration), asked)
            }
            ("GET", ["diffs", "commits"]) => self.difference(asked),
            ("POST", ["commits", commit, "statuses"]) => {
                self.commit_statuses.push(((*commit).to_owned(), asked.body.clone()));
                return server::json(201, &asked.body);
            }
            ("POST", ["pullRequests", number, "statuses"]) => {
                self.pull_statuses.push((parse(number), asked.body.clone()));
                Some(asked.body.clone())
            }
            _ => None,
        };
        let Some(body) = answer else {
            return refuse(404, "GitPullRequestNotFoundException", "TF401180: not found");
        };
        let mut answer = server::json(200, &body);
        if self.is_busy {
            answer.headers_mut().insert("retry-after", "30".parse().expect("a header"));
        }
        answer
    }

    fn service_hooks(&mut self, rest: &[&str], asked: &Asked) -> Answer {
        let body = match (asked.method.as_str(), rest) {
            ("GET", []) => {
                let is_ours = |hook: &&Value| {
                    hook["publisherId"] == asked.query("publisherId")
                        && hook["consumerId"] == asked.query("consumerId")
                };
                let shown = self.subscriptions.all.iter().filter(is_ours).map(|hook| {
                    let mut shown = hook.clone();
                    shown["consumerInputs"]["basicAuthPassword"] = "********".into();
                    shown
                });
                let value: Vec<Value> = shown.collect();
                Some(json!({"count": value.len(), "value": value}))
            }
            ("POST", []) if is_subscription(&asked.body) => {
                let mut hook = asked.body.clone();
                hook["id"] = format!("s-{}", self.subscriptions.next_id()).into();
                self.subscriptions.all.push(hook.clone());
                Some(hook)
            }
            ("PUT", [id]) if is_subscription(&asked.body) => {
                let stays_disabled = self.stays_disabled;
                self.subscriptions.find(id).map(|hook| {
                    let status = hook["status"].clone();
                    merge(hook, &asked.body);
                    if stays_disabled {
                        hook["status"] = status;
                    }
                    hook.clone()
                })
            }
            ("DELETE", [id]) => return hooks::removed(self.subscriptions.remove(id)),
            ("GET", [id, "notifications"]) => {
                let value = self.notifications.get(*id).cloned().unwrap_or_default();
                Some(json!({"count": value.len(), "value": value}))
            }
            ("POST" | "PUT", _) => {
                return refuse(400, "SubscriptionInputException", "an input is missing or invalid");
            }
            _ => None,
        };
        let missing = || refuse(404, "SubscriptionNotFoundException", "no such subscription");
        body.map_or_else(missing, |body| server::json(200, &body))
    }

    /// The newest first, without the fields that the published example of the list does not have.
    fn active_pulls(&self, asked: &Asked) -> Option<Value> {
        let active = self.pulls.values().rev().filter(|pull| pull["status"] == "active");
        let shown: Vec<Value> =
            active.map(|pull| without(pull, &["isDraft", "forkSource", "labels"])).collect();
        let (value, _) = page(&shown, asked);
        let is_asked = asked.query("searchCriteria.status") == "active";
        is_asked.then(|| json!({"count": value.len(), "value": value}))
    }

    fn labels(&self, number: u64) -> Option<Value> {
        let labels = self.pulls.get(&number)?["labels"].as_array().cloned().unwrap_or_default();
        Some(json!({"count": labels.len(), "value": labels}))
    }

    fn iterations(&self, number: u64) -> Option<Value> {
        let commits = self.iterations.get(&number)?;
        let iteration = |(index, commit): (usize, &String)| {
            let source = json!({"commitId": commit});
            json!({"id": index + 1, "reason": "push", "sourceRefCommit": source})
        };
        let value: Vec<Value> = commits.iter().enumerate().map(iteration).collect();
        Some(json!({"count": value.len(), "value": value}))
    }

    /// Changes against the base are those of the last iteration compared with 0.
    fn changes(&self, number: u64, iteration: u64, asked: &Asked) -> Option<Value> {
        let is_last = self.iterations.get(&number)?.len() as u64 == iteration;
        let (changes, next) = page(self.changes.get(&number)?, asked);
        if !is_last || asked.query("$compareTo") != "0" {
            return None;
        }
        let mut body = json!({"changeEntries": changes});
        if let Some(next) = next {
            body["nextSkip"] = next.into();
            body["nextTop"] = parse(asked.query("$top")).into();
        }
        Some(body)
    }

    fn difference(&self, asked: &Asked) -> Option<Value> {
        let of_commits = asked.query("baseVersionType") == "commit"
            && asked.query("targetVersionType") == "commit"
            && asked.query("diffCommonCommit") == "false";
        let (base, target) = (asked.query("baseVersion"), asked.query("targetVersion"));
        let changes = self.differences.get(&(base.to_owned(), target.to_owned()));
        let changes = changes.filter(|_| of_commits)?;
        let (page, next) = page(changes, asked);
        Some(json!({
            "allChangesIncluded": next.is_none(),
            "changeCounts": {"Edit": changes.len()},
            "changes": page,
        }))
    }
}

/// Whether a subscription has the inputs that `git.*` events and web hooks need.
fn is_subscription(body: &Value) -> bool {
    body["publisherId"] == "tfs"
        && body["eventType"].as_str().is_some_and(|it| it.starts_with("git."))
        && body["consumerId"] == "webHooks"
        && body["consumerActionId"] == "httpRequest"
        && body["publisherInputs"]["projectId"] == "p-1"
        && body["publisherInputs"]["repository"] == "r-1"
        && body["consumerInputs"]["url"].is_string()
        && body["consumerInputs"]["basicAuthPassword"].is_string()
}

/// The requested page, and where the next begins.
fn page(changes: &[Value], asked: &Asked) -> (Vec<Value>, Option<usize>) {
    let number = |name: &str| asked.query(name).parse::<usize>().ok();
    let (skip, top) = (number("$skip").unwrap_or(0), number("$top").unwrap_or(100));
    let page: Vec<Value> = changes.iter().skip(skip).take(top).cloned().collect();
    let next = skip + page.len();
    (page, (next < changes.len()).then_some(next))
}

fn parse(number: &str) -> u64 {
    number.parse().unwrap_or_default()
}

/// A copy without these fields.
fn without(value: &Value, names: &[&str]) -> Value {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
    value
}
