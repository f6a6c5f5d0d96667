//! Uses a canary for every kind of secret, and then searches everything that gantry stores, prints, sends and shows.
//!
//! The places that secrets are meant for are not searched: key and password files, the environment that the operator
//! starts gantry with, and the one answer that shows a new token or a new hook's secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gantry_ops::secret::random_hex;
use gantry_tests::git_server::GitServer;
use gantry_tests::github::{self, Push};
use gantry_tests::installation::saved_event;
use gantry_tests::real;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::collector::Collector;

mod refusing;
mod search;
mod secured;
mod vault;

use search::Search;
use secured::SecuredInstallation;
use vault::Vault;

/// The only secret that is known to appear elsewhere: in the step that it is for, and in the image's history.
const ARGUMENT: &str = "secret build argument";

/// The secrets of a task file, which are in the environment of its step.
const OF_FILE: [&str; 3] = ["kept secret", "secret in a vault", "secret value"];

/// A unique secret of a kind.
fn canary(kind: &str) -> String {
    // `+` and `/` are encoded in URLs.
    format!("{kind}+/{}", random_hex::<12>().unwrap().as_str())
}

/// The secrets that are sent to the API.
struct Canaries {
    hook: String,
    notification: String,
    rotated_hook: String,
    registry_password: String,
    git_token: String,
    wrong_git_token: String,
    api_token: String,
    build_argument: String,
    mounted: String,
    kept: String,
    value: String,
    /// Not a secret: it must be found, otherwise the search is in the wrong places.
    public: String,
}

impl Canaries {
    fn new() -> Self {
        Self {
            hook: canary("hook"),
            notification: canary("notification"),
            rotated_hook: canary("rotated"),
            registry_password: canary("registry"),
            git_token: canary("git"),
            wrong_git_token: canary("wronggit"),
            api_token: canary("api"),
            build_argument: canary("argument"),
            mounted: canary("mounted"),
            kept: canary("kept"),
            value: canary("value"),
            public: canary("public"),
        }
    }
}

/// Sends requests, and records every answer.
struct Asker {
    http: reqwest::Client,
    api: String,
    token: String,
    answers: Vec<(String, String)>,
}

impl Asker {
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let (status, text) = self.ask_aside(method.clone(), path, body).await;
        let said = serde_json::from_str(&text).unwrap_or_default();
        self.answers.push((format!("{method} {path}"), text));
        (status, said)
    }

    /// Sends a request without recording the answer, which shows a secret once.
    async fn ask_aside(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, String) {
        let mut request = self.http.request(method, format!("{}{path}", self.api));
        request = request.bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn made(&mut self, path: &str, body: Value) -> Value {
        let (status, made) = self.ask(Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{path}: {made}");
        made
    }

    async fn until_ended(&mut self, run: &Value) -> Value {
        let path = format!("/runs/{}", run["id"].as_str().unwrap());
        self.until(&path, |run| run["finished"].is_string()).await
    }

    /// Repeats a request until the answer is as wanted.
    async fn until(&mut self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (_, said) = self.ask(Method::GET, path, None).await;
            if wanted(&said) {
                return said;
            }
            assert!(Instant::now() < deadline, "{path}: {said:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends every `GET` request of the OpenAPI document, with all possible parameters.
    async fn walk(&mut self, things: &BTreeMap<&str, Vec<String>>) {
        let (_, document) = self.ask(Method::GET, "/openapi.json", None).await;
        for (path, methods) in document["paths"].as_object().unwrap() {
            if methods["get"].is_null() {
                continue;
            }
            let mut paths = vec![path.strip_prefix("/api/v1").unwrap().to_owned()];
            while let Some(name) = paths[0].split(['{', '}']).nth(1).map(str::to_owned) {
                let things = &things[name.as_str()];
                let filled = |path: &String| -> Vec<String> {
                    things.iter().map(|thing| path.replace(&format!("{{{name}}}"), thing)).collect()
                };
                paths = paths.iter().flat_map(filled).collect();
            }
            let parameters = methods["get"]["parameters"].as_array().into_iter().flatten();
            let query: Vec<String> = parameters
                .filter(|it| it["in"] == "query" && it["required"] == true)
                .map(|it| it["name"].as_str().unwrap())
                .map(|name| format!("{name}={}", things[name][0]))
                .collect();
            for path in paths {
                let path =
                    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
                let (status, _) = self.ask(Method::GET, &path, None).await;
                // Tokens are requested later, by an administrator. Not all combinations of parameters exist.
                let known = [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::FORBIDDEN];
                assert!(known.contains(&status), "{path}: {status}");
            }
        }
    }
}

/// Repeatedly reads the command lines and environments of all processes.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(BTreeSet<String>, u64)>,
}

impl Watch {
    /// `search` must not include secrets that the operator starts gantry with.
    fn start(search: Search, git: String, public: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut found, mut seen) = (BTreeSet::new(), 0);
            while !stopped.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    let environment = std::fs::read(process.path().join("environ"));
                    let words = [line, environment.unwrap_or_default()].concat();
                    let text = String::from_utf8_lossy(&words);
                    seen += u64::from(text.contains(&git));
                    // A build step receives the build's arguments, and a command the secrets of its file.
                    let is_build = text.contains(&format!("PUBLIC={public}"));
                    let is_command = text.contains(&format!("COMMAND={public}"));
                    for name in search.of(&words) {
                        if is_build && name == ARGUMENT || is_command && OF_FILE.contains(&name) {
                            continue;
                        }
                        found.insert(format!("{name} in {:?}", words.escape_ascii().to_string()));
                    }
                }
            }
            (found, seen)
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (found, seen) = self.thread.join().unwrap();
        assert!(found.is_empty(), "{found:#?}");
        assert!(seen > 0, "no git was seen at work");
    }
}

/// Uses an installation so that every secret is used, printed, and refused.
async fn use_all(
    asker: &mut Asker,
    git: &GitServer,
    vault: &Vault,
    canaries: &Canaries,
) -> Vec<Value> {
    let name = format!("canary-{}", random_hex::<4>().unwrap().as_str());
    let repository = git.repository(&name).unwrap();
    let dockerfile = format!(
        "FROM {}\nARG ARGUMENT\nARG PUBLIC\n\
         RUN --mount=type=secret,id=MOUNTED s=$(cat /run/secrets/MOUNTED); echo \"plain $s of $ARGUMENT, $PUBLIC\"; \
         printf %s \"$s\" | base64; printf %s \"me:$s\" | base64 -w0; printf %s \"user:$s\" | base64 -w0; \
         printf %s \"$s\" | od -An -tx1 | tr -d ' \\n'; printf '%.10s\\n' \"$s\"; echo \"$s\" | cut -c11-\n",
        real::base_image()
    );
    let failing = format!(
        "{dockerfile}RUN --mount=type=secret,id=MOUNTED cat /run/secrets/MOUNTED >&2; exit 3\n"
    );
    let files = [("Dockerfile", dockerfile.as_str()), ("Failing", failing.as_str())];
    let before = repository.commit("main", &files).unwrap();
    git.require("gantry", &canaries.git_token);

    let locked = refusing::start().await;
    let credentials =
        |user: &str| json!({"username": user, "password": canaries.registry_password});
    for (registry, host) in [("demo", real::registry()), ("locked", locked.clone())] {
        let made = json!({"name": registry, "host": host, "credentials": credentials("ci")});
        asker.made("/registries", made).await;
    }
    let task = |task: &str, dockerfile: &str, image: &str, token: &str| {
        json!({
            "name": task, "context": format!("{}#main", git.url(&name)), "dockerfile": dockerfile,
            "images": [format!("{image}:{{{{.Run.ID}}}}")], "git_token": token, "no_cache": true,
            "api_token": canaries.api_token,
            "build_args": {"PUBLIC": canaries.public},
            "secret_build_args": {"ARGUMENT": canaries.build_argument, "MOUNTED": canaries.mounted},
            "source_trigger": if task == "good" { json!({}) } else { Value::Null },
        })
    };
    let (right, wrong) = (&canaries.git_token, &canaries.wrong_git_token);
    let tasks = "/registries/demo/tasks";
    asker.made(tasks, task("good", "Dockerfile", &name, right)).await;
    asker.made(tasks, task("failing", "Failing", &name, right)).await;
    asker.made(tasks, task("bad-token", "Dockerfile", &name, wrong)).await;
    let refused = task("bad-login", "Dockerfile", &name, right);
    asker.made("/registries/locked/tasks", refused).await;

    notifications(asker, canaries).await;
    let hook = json!({"provider": "github", "secret": canaries.rotated_hook});
    let (status, hook) = asker.ask_aside(Method::POST, "/registries/demo/hooks", Some(hook)).await;
    assert_eq!(status, StatusCode::CREATED, "{hook}");
    let hook: Value = serde_json::from_str(&hook).unwrap();
    let (url, id) = (hook["url"].as_str().unwrap(), hook["hook"]["id"].as_str().unwrap());
    let secrets = format!("/hooks/{id}/secrets");
    let (status, added) =
        asker.ask_aside(Method::POST, &secrets, Some(json!({"secret": canaries.hook}))).await;
    assert_eq!(status, StatusCode::CREATED, "{added}");
    let old = hook["hook"]["secrets"][0]["id"].as_str().unwrap();
    asker.ask(Method::DELETE, &format!("{secrets}/{old}"), None).await;
    asker.ask(Method::POST, &format!("/hooks/{id}/test"), None).await;

    // The head must be known before the push, which would start nothing otherwise.
    let saved =
        asker.until("/registries/demo/tasks/good", |task| task["created"].is_string()).await;
    let event = saved_event("demo/good", saved["created"].as_str().unwrap());
    asker.until(&format!("/events/{event}"), |event| event["decision"].is_object()).await;
    // One run is started by a push, the others by requests; and one push is signed with a removed secret.
    let after = repository.commit("main", &[("file", "changed")]).unwrap();
    let push = Push {
        url: &git.url(&name),
        branch: "main",
        before: Some(&before),
        after: Some(&after),
        default_branch: Some("main"),
    };
    for (secret, status) in [(&canaries.rotated_hook, 401), (&canaries.hook, 202)] {
        let body = push.body();
        let mut answer = asker.http.post(url);
        for (name, value) in github::headers(secret, "canary-delivery", &body) {
            answer = answer.header(name, value);
        }
        let answer = answer.body(body).send().await.unwrap();
        assert_eq!(answer.status(), status);
        asker.answers.push(("the hook".to_owned(), answer.text().await.unwrap()));
    }
    let mut runs = vec![run_file(asker, vault, canaries).await];
    for task in ["demo/tasks/failing", "demo/tasks/bad-token", "locked/tasks/bad-login"] {
        let run = asker.made(&format!("/registries/{task}/runs"), json!({})).await;
        let run = asker.until_ended(&run).await;
        assert_eq!(run["status"], "Failed", "{task}: {run}");
        runs.push(run);
    }
    let listed = "/runs?registry=demo&task=good";
    let listed = asker.until(listed, |listed| listed["items"][0].is_object()).await;
    let run = asker.until_ended(&listed["items"][0]).await;
    assert_eq!(run["status"], "Succeeded", "{run}");
    runs.push(run);

    // Errors that could quote their input.
    for (path, body) in [
        (
            "/registries/demo/tasks",
            json!({"name": "x", "git_token": canaries.git_token, "images": ["A"]}),
        ),
        (
            "/registries/demo/builds",
            json!({"context": format!("https://u:{}@git.test/a", canaries.git_token)}),
        ),
        ("/registries/demo/hooks", json!({"provider": "none", "secret": canaries.hook})),
        (
            "/registries/demo/notifications",
            json!({"name": "x", "format": "slack", "url": format!("ftp://h.test/{}", canaries.notification)}),
        ),
        (
            "/registries/demo/runs",
            json!({"task_file": {
                "text": "steps: [cmd: '{{.Values.a}} ||']", "secret_values": {"a": canaries.value},
                "secrets": {"a": format!("https://u:{}@v.test/secrets/a", canaries.kept)},
            }}),
        ),
        ("/registries", json!({"name": "!", "host": "!", "credentials": credentials("")})),
        (
            "/registries/demo/tasks",
            json!({"name": "xx", "secret_build_args": {"1": canaries.mounted}}),
        ),
    ] {
        let (status, _) = asker.ask(Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
    }
    let token = std::mem::replace(&mut asker.token, canaries.git_token.clone());
    asker.ask(Method::GET, "/runs", None).await;
    asker.token = token;

    let ids = |of: &Value, name: &str| -> Vec<String> {
        of["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one[name].as_str().unwrap().to_owned())
            .collect()
    };
    let told = "/registries/demo/notifications/chat/messages";
    let told = asker.until(told, |told| told["items"][0]["answer"].is_object()).await;
    let (_, deliveries) = asker.ask(Method::GET, "/deliveries", None).await;
    let events = runs.iter().map(|run| run["event"].as_str().unwrap().to_owned()).collect();
    let digest = runs.last().unwrap()["images"][0]["digest"].as_str().unwrap().to_owned();
    let things = BTreeMap::from([
        ("registry", vec!["demo".to_owned(), "locked".to_owned()]),
        ("task", ["good", "failing", "bad-token", "bad-login"].map(str::to_owned).to_vec()),
        ("run", runs.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()),
        ("hook", vec![id.to_owned()]),
        ("name", vec!["kept".to_owned()]),
        ("notification", vec!["chat".to_owned()]),
        ("message", ids(&told, "id")),
        ("delivery", ids(&deliveries, "id")),
        ("event", events),
        ("digest", vec![digest]),
        ("image", vec![real::base_image()]),
        ("base", vec![real::base_image()]),
        ("wave", vec!["ca-w1".to_owned()]),
    ]);
    asker.walk(&things).await;
    runs
}

/// Notifications whose receiver repeats the address in its answers, is refused by the guard, and is not there.
async fn notifications(asker: &mut Asker, canaries: &Canaries) {
    let all = "/registries/demo/notifications";
    let receiver = refusing::start().await;
    let at = |host: &str, name: &str| {
        let url = format!("{host}/services/{0}?token={0}", canaries.notification);
        json!({"name": name, "format": "slack", "url": url})
    };
    asker.made(all, at(&format!("http://{receiver}"), "chat")).await;
    asker.made(all, at("https://hooks.invalid", "nowhere")).await;
    for name in ["chat", "nowhere"] {
        let (status, tested) = asker.ask(Method::POST, &format!("{all}/{name}/test"), None).await;
        assert_eq!((status, &tested["ok"]), (StatusCode::OK, &json!(false)), "{tested}");
    }
    let refused = at("http://169.254.169.254", "refused");
    let (status, _) = asker.ask(Method::POST, all, Some(refused)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

/// Runs a task file with secrets of every kind, one of which is not in its vault, and one that prints them.
async fn run_file(asker: &mut Asker, vault: &Vault, canaries: &Canaries) -> Value {
    let kept = json!({"value": canaries.kept});
    let (status, _) = asker.ask(Method::PUT, "/registries/demo/secrets/kept", Some(kept)).await;
    assert_eq!(status, StatusCode::OK);
    let text = format!(
        "version: v1.1.0\nsecrets:\n- id: vault\n  keyvault: {}\nsteps:\n- cmd: |\n    {} sh -c 'for s in \"$A\" \"$B\" \
         \"$C\"; do echo \"plain $s, $COMMAND\"; printf %s \"$s\" | base64 -w0; echo; done'\n  env: ['A={{{{.Secrets.kept}}}}', \
         'B={{{{.Secrets.vault}}}}', 'C={{{{.Values.value}}}}', COMMAND={}]\n",
        vault.secret("canary"),
        real::base_image(),
        canaries.public,
    );
    let file = |place: &str| {
        json!({"task_file": {
            "text": text, "secret_values": {"value": canaries.value},
            "secrets": {"kept": "kept", "vault": vault.secret(place)},
        }})
    };
    let (status, told) =
        asker.ask(Method::POST, "/registries/demo/runs", Some(file("nothing"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
    let absent = json!({"task_file": {
        "text": "steps: [cmd: busybox true]", "secrets": {"vault": vault.secret("nothing")},
    }});
    let absent = asker.made("/registries/demo/runs", absent).await;
    assert_eq!(asker.until_ended(&absent).await["status"], "Failed");
    let run = asker.made("/registries/demo/runs", file("canary")).await;
    let run = asker.until_ended(&run).await;
    assert_eq!(run["status"], "Succeeded", "{run}");
    let path = format!("/runs/{}/log", run["id"].as_str().unwrap());
    let (_, log) = asker.ask_aside(Method::GET, &path, None).await;
    let masked = log.matches(&format!("plain ***, {}", canaries.public)).count();
    assert_eq!(masked, 3, "every secret is printed, and masked: {log}");
    run
}

async fn nowhere(installation: impl AsyncFnOnce(&Collector, &Vault) -> SecuredInstallation) {
    let (collector, vault) = (Collector::start().await, Vault::start().await);
    let mut installation = installation(&collector, &vault).await;
    let (canaries, git) = (Canaries::new(), GitServer::start().await.unwrap());
    let mut by_api = vec![
        ("hook secret", canaries.hook.clone()),
        ("address of a notification", canaries.notification.clone()),
        ("rotated hook secret", canaries.rotated_hook.clone()),
        ("registry password", canaries.registry_password.clone()),
        ("git token", canaries.git_token.clone()),
        ("wrong git token", canaries.wrong_git_token.clone()),
        ("API token", canaries.api_token.clone()),
        (ARGUMENT, canaries.build_argument.clone()),
        ("mounted secret", canaries.mounted.clone()),
        (OF_FILE[0], canaries.kept.clone()),
        (OF_FILE[1], vault.value.clone()),
        (OF_FILE[2], canaries.value.clone()),
    ];
    let admin = installation.admin_token().await;
    let mut asker = Asker {
        http: reqwest::Client::new(),
        api: installation.api.clone(),
        token: admin.clone(),
        answers: Vec::new(),
    };
    let (_, made) = asker.ask_aside(Method::POST, "/tokens", Some(json!({"scope": "write"}))).await;
    let token = serde_json::from_str::<Value>(&made).unwrap()["text"].as_str().unwrap().to_owned();
    let secret_part = |token: &str| token.rsplit('_').next().unwrap().to_owned();
    by_api.extend([("admin token", secret_part(&admin)), ("token", secret_part(&token))]);
    asker.token = token;

    let mut all = by_api.clone();
    all.extend(installation.secrets.clone());
    let watch =
        Watch::start(Search::new(&by_api), git.address().to_string(), canaries.public.clone());
    let runs = use_all(&mut asker, &git, &vault, &canaries).await;
    watch.end();
    asker.token = admin;
    for path in ["/tokens", "/tokens/current", "/status", "/workers"] {
        asker.ask(Method::GET, path, None).await;
    }

    // Everything to be searched, by name.
    let search = Search::new(&all);
    let public = Search::new(&[("public", canaries.public.clone())]);
    let mut places: Vec<(String, Vec<u8>)> = asker
        .answers
        .drain(..)
        .map(|(path, text)| (format!("answer to {path}"), text.into()))
        .collect();
    places.extend(installation.metrics().await);
    places.extend(installation.servers().await);
    installation.end().await;
    places.extend(installation.files());
    let told = collector.sent();
    assert!(!told.is_empty(), "no span came");
    places.extend(told.into_iter().map(|bytes| ("spans".to_owned(), bytes.to_vec())));

    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (place, bytes) in &places {
        found.extend(search.of(bytes).into_iter().map(|name| format!("{name} in {place}")));
        if !public.of(bytes).is_empty() {
            seen.insert(place.clone());
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    let run = runs.last().unwrap()["id"].as_str().unwrap();
    for place in [format!("answer to GET /runs/{run}/log"), installation.where_records_are.clone()]
    {
        let is_seen = seen.iter().any(|seen| seen.contains(&place));
        assert!(is_seen, "what may be seen is not in {place}, but in {seen:#?}");
    }

    // The image: a mounted secret leaves nothing, while an argument is in its history, as docs/tasks.md says.
    let image = secured::image(runs.last().unwrap()).await;
    let (mut in_image, mut has_public) = (BTreeSet::new(), false);
    for part in &image {
        in_image.extend(search.of(part));
        has_public |= !public.of(part).is_empty();
    }
    assert!(has_public, "the image's history tells its arguments");
    assert_eq!(in_image, BTreeSet::from([ARGUMENT]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_the_place_that_it_is_for_in_one_process() {
    nowhere(async |collector, vault| SecuredInstallation::embedded(collector, vault).await).await;
}

mod slow {
    use super::{SecuredInstallation, nowhere};

    #[tokio::test(flavor = "multi_thread")]
    async fn no_secret_leaves_the_place_that_it_is_for_in_roles_of_their_own() {
        nowhere(async |collector, vault| SecuredInstallation::apart(collector, vault).await).await;
    }
}
