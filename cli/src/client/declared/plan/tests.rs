//! Plans, from documents and from what a server has.

use std::path::PathBuf;

use super::*;

fn declared(document: Value) -> Declared {
    let object = Object::declared(document).unwrap();
    Declared { object, place: "a.yaml, document 1".to_owned(), folder: PathBuf::new() }
}

fn registry() -> Value {
    json!({
        "kind": "registry", "name": "ghcr", "host": "ghcr.io",
        "credentials": {"username": "octo", "password": {"env": "PASSWORD"}},
    })
}

fn task() -> Value {
    json!({
        "kind": "task", "registry": "ghcr", "name": "web", "images": ["web:1"],
        "context": "https://github.com/octo/web.git#main",
        "secret_build_args": {"NPM": {"env": "NPM"}, "A/B": {"file": "ab"}},
        "git_token": {"env": "GIT"},
    })
}

fn hook(repositories: &[&str]) -> Value {
    json!({"kind": "hook", "registry": "ghcr", "provider": "github", "repositories": repositories})
}

/// As the server has it: it knows of secrets only that they are set.
fn stored(document: Value, id: Option<&str>) -> Object {
    let object = Object::declared(document).unwrap();
    let secrets = object.secrets.keys().map(|it| (it.clone(), None)).collect();
    Object { secrets, id: id.map(str::to_owned), ..object }
}

fn all() -> Vec<Value> {
    vec![registry(), task(), hook(&["https://github.com/octo/web.git"])]
}

fn compared(documents: Vec<Value>, current: Vec<Object>, wanted: Wanted) -> Plan {
    plan(documents.into_iter().map(declared).collect(), current, wanted).unwrap()
}

fn lines(plan: &Plan) -> String {
    plan.changes.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_as_declared_is_not_touched() {
    let current = all().into_iter().map(|it| stored(it, Some("h1"))).collect();
    let plan = compared(all(), current, Wanted { prune: true, ..Wanted::default() });
    assert_eq!((lines(&plan).as_str(), plan.unchanged), ("", 3));
    // The server's spelling, order and defaults.
    let spelled = [
        json!({"kind": "registry", "name": "ghcr", "host": "GHCR.io", "credentials": {"username": "octo", "password": {"env": "X"}}}),
        hook(&["github.com/octo/web"]),
    ];
    let mut server = stored(registry(), None);
    server.fields.insert("run_limit".to_owned(), json!(8));
    let current = vec![server, stored(hook(&["https://github.com/octo/web.git"]), Some("h1"))];
    let plan = compared(spelled.into(), current, Wanted::default());
    assert_eq!((lines(&plan).as_str(), plan.unchanged), ("", 2));
}

#[test]
fn registries_are_made_first_and_nothing_is_deleted_without_prune() {
    let other = json!({"kind": "task", "registry": "ghcr", "name": "old", "context": "/dev/null"});
    let foreign =
        json!({"kind": "task", "registry": "else", "name": "old", "context": "/dev/null"});
    let current = || vec![stored(other.clone(), None), stored(foreign.clone(), None)];
    let mut documents = all();
    documents.reverse();
    let plan = compared(documents.clone(), current(), Wanted::default());
    assert_eq!(lines(&plan), "+ registry ghcr\n+ task ghcr/web\n+ hook github of ghcr\n");
    let plan = compared(documents, current(), Wanted { prune: true, ..Wanted::default() });
    assert!(lines(&plan).ends_with("- task ghcr/old\n"), "{}", lines(&plan));
    assert!(!lines(&plan).contains("else"));
}

#[test]
fn a_change_names_each_field_and_sends_only_that() {
    let mut changed = task();
    changed["images"] = json!(["web:2"]);
    changed["timeout"] = json!(600);
    changed.as_object_mut().unwrap().remove("git_token");
    let plan = compared(
        vec![registry(), changed],
        vec![stored(registry(), None), stored(task(), None)],
        Wanted::default(),
    );
    assert_eq!(
        lines(&plan),
        "~ task ghcr/web\n    images: [\"web:1\"] -> [\"web:2\"]\n    timeout: 3600 -> 600\n    git_token: removed\n"
    );
    let [Change::Update(update)] = plan.changes.as_slice() else { panic!("{plan:?}") };
    let body = update.body(&BTreeMap::new());
    assert_eq!(body, json!({"images": ["web:2"], "timeout": 600, "git_token": null}));
}

#[test]
fn a_secret_is_sent_if_it_is_new_or_wanted_or_needed_again() {
    let send = |document: Value, before: Value, set_secrets: bool| {
        let current = vec![stored(registry(), None), stored(before, None)];
        let wanted = Wanted { set_secrets, ..Wanted::default() };
        let plan = compared(vec![registry(), document], current, wanted);
        let sent = plan.changes.iter().map(|change| match change {
            Change::Update(update) => (update.send.clone(), update.remove.clone()),
            Change::Create(_) | Change::Delete(_) => panic!("{change}"),
        });
        sent.into_iter().next_back().unwrap_or_default()
    };
    let set = |pointers: &[&str]| pointers.iter().map(|&it| it.to_owned()).collect::<BTreeSet<_>>();
    let every = ["/git_token", "/secret_build_args/A~1B", "/secret_build_args/NPM"];
    assert_eq!(send(task(), task(), false), Default::default());
    assert_eq!(send(task(), task(), true), (set(&every), set(&[])));
    let mut elsewhere = task();
    elsewhere["context"] = json!("https://github.com/octo/other.git#main");
    assert_eq!(send(elsewhere, task(), false), (set(&every), set(&[])));
    // The map is replaced as a whole, so what stays in it is sent too.
    let mut fewer = task();
    fewer["secret_build_args"].as_object_mut().unwrap().remove("NPM");
    let ab = set(&["/secret_build_args/A~1B"]);
    assert_eq!(send(fewer, task(), false), (ab, set(&["/secret_build_args/NPM"])));
    let mut none = task();
    none.as_object_mut().unwrap().remove("secret_build_args");
    assert_eq!(send(none, task(), false), (set(&[]), set(&every[1..])));
}

#[test]
fn secrets_are_put_where_the_request_has_them() {
    let secrets = BTreeMap::from([("/secret_build_args/A~1B".to_owned(), "needle".to_owned())]);
    let body = declared(task()).object.create_body(&secrets);
    assert_eq!(body["secret_build_args"], json!({"A/B": "needle"}));
    assert_eq!((&body["name"], &body["platform"]), (&json!("web"), &json!("linux/amd64")));
    assert!(body.get("kind").is_none() && body.get("registry").is_none());
}

#[test]
fn hooks_are_told_apart_by_what_they_are_for() {
    let (web, api) = ("https://github.com/octo/web.git", "https://github.com/octo/api.git");
    let current = vec![
        stored(registry(), None),
        stored(hook(&[web]), Some("h1")),
        stored(hook(&[api]), Some("h2")),
    ];
    let plan = compared(
        vec![registry(), hook(&[api]), hook(&[web, "https://github.com/octo/new.git"])],
        current,
        Wanted { prune: true, ..Wanted::default() },
    );
    let [Change::Update(update)] = plan.changes.as_slice() else { panic!("{plan:?}") };
    assert_eq!(update.id.as_deref(), Some("h1"));
    let repositories = update.body(&BTreeMap::new())["repositories"].clone();
    assert_eq!(repositories, json!(["https://github.com/octo/new.git", web]));
}

#[test]
fn contradictions_are_all_reported_before_anything_is_done() {
    let mut moved = registry();
    moved["host"] = json!("quay.io");
    let mut lost = task();
    lost["registry"] = json!("gone");
    let documents = [moved, task(), task(), lost].map(declared);
    let mistakes =
        plan(documents.into(), vec![stored(registry(), None)], Wanted::default()).unwrap_err();
    let all = mistakes.join("\n");
    for expected in ["`ghcr.io`, and it cannot change", "is also declared in", "no registry `gone`"]
    {
        assert!(all.contains(expected), "{all}");
    }
}

#[test]
fn what_is_exported_declares_the_same_without_secrets() {
    for (document, secret) in
        [(registry(), "GHCR_PASSWORD"), (task(), "GHCR_WEB_GIT_TOKEN"), (hook(&[]), "")]
    {
        let object = stored(document.clone(), None);
        let yaml = serde_saphyr::to_string_multiple(&[object.document()]).unwrap();
        assert!(yaml.contains(secret), "{yaml}");
        let read: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        let again = Object::declared(read[0].clone()).unwrap();
        assert_eq!(comparable(&again), comparable(&object), "{yaml}");
        assert_eq!(again.secrets.len(), object.secrets.len());
    }
}

#[test]
fn a_document_with_a_mistake_says_which() {
    for (document, said) in [
        (json!([]), "it is no list of fields"),
        (json!({"name": "x"}), "`kind` is one of"),
        (json!({"kind": "job"}), "`kind` is one of"),
        (json!({"kind": "task", "name": "x", "context": "c"}), "`registry` is missing"),
        (
            json!({"kind": "task", "registry": "r", "name": "x", "context": "c", "imagess": []}),
            "unknown field `imagess`",
        ),
        (json!({"kind": "task", "registry": "r", "name": "x"}), "missing field `context`"),
        (
            json!({"kind": "task", "registry": "r", "name": "x", "context": "c", "git_token": "needle"}),
            "`git_token` is a secret",
        ),
        (
            json!({"kind": "task", "registry": "r", "name": "x", "context": "c", "secret_build_args": {"A": "needle"}}),
            "`secret_build_args.A` is a secret",
        ),
        (
            json!({"kind": "registry", "name": "r", "host": "h", "credentials": {"username": "u", "password": "needle"}}),
            "`credentials.password` is a secret",
        ),
    ] {
        let error = Object::declared(document).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("needle"), "{said}: {error}");
    }
}

#[test]
fn an_exported_document_has_only_what_differs_from_the_defaults() {
    let mut document = task();
    document["source_trigger"] = json!({"commit": {"branches": ["main"]}});
    document["timers"] = json!([{"name": "nightly", "schedule": "0 3 * * *"}]);
    let yaml = serde_saphyr::to_string_multiple(&[stored(document, None).document()]).unwrap();
    let short = "\
kind: task
registry: ghcr
name: web
context: https://github.com/octo/web.git#main
git_token:
  env: GHCR_WEB_GIT_TOKEN
images:
- web:1
secret_build_args:
  A/B:
    env: GHCR_WEB_A_B
  NPM:
    env: GHCR_WEB_NPM
source_trigger:
  commit:
    branches:
    - main
timers:
- name: nightly
  schedule: 0 3 * * *
";
    assert_eq!(yaml, short);
}

#[test]
fn the_credentials_of_a_task_change_by_login_server() {
    let with = |logins: Value| {
        let mut document = task();
        document["credentials"] = logins;
        document
    };
    let before = with(json!({
        "ghcr.io": {"username": "octo", "password": {"env": "GHCR"}},
        "quay.io": {"username": "ann", "password": {"env": "QUAY"}},
        "docker.io": {"username_secret": "user", "password_secret": "password"},
    }));
    let after = with(json!({
        "GHCR.io": {"username": "octo", "password": {"env": "GHCR"}},
        "index.docker.io": {"username_secret": "user", "password_secret": "other"},
        "registry.example": {"username": "eve", "password": {"file": "eve"}},
    }));
    let current = || vec![stored(registry(), None), stored(before.clone(), None)];
    let same = compared(vec![registry(), before.clone()], current(), Wanted::default());
    assert_eq!((lines(&same).as_str(), same.unchanged), ("", 2));
    let plan = compared(vec![registry(), after], current(), Wanted::default());
    let [Change::Update(update)] = plan.changes.as_slice() else { panic!("{plan:?}") };
    let secrets = update.send.iter().map(|it| (it.clone(), "needle".to_owned())).collect();
    assert_eq!(
        update.body(&secrets),
        json!({"credentials": {
            "docker.io": {"username_secret": "user", "password_secret": "other"},
            "ghcr.io": {"username": "octo", "password": "needle"},
            "quay.io": null,
            "registry.example": {"username": "eve", "password": "needle"},
        }})
    );
    let again = Wanted { set_secrets: true, ..Wanted::default() };
    let plan = compared(vec![registry(), before.clone()], current(), again);
    let Some(Change::Update(update)) = plan.changes.last() else { panic!("{plan:?}") };
    let body = update.body(&BTreeMap::new());
    assert_eq!(body["credentials"]["quay.io"], json!({"username": "ann"}));
    assert!(body["credentials"].get("docker.io").is_none());
}
