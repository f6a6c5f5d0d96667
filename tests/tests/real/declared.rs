//! `gantry apply` and `gantry export`: what is kept in files, and what the service has.

use std::path::Path;

use tokio::process::Command;

use crate::service::{Gantry, text};

/// A folder of declarations.
fn write(gantry: &Gantry, file: &str, documents: &str) {
    let path = gantry.folder.path().join("declared").join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, documents).unwrap();
}

async fn apply(gantry: &Gantry, arguments: &[&str]) -> String {
    let all = [&["apply", "-f", "declared"], arguments].concat();
    gantry.ok(&all).await
}

fn tasks(count: usize) -> String {
    let tasks = (0..count).map(|number| {
        format!(
            "---\nkind: task\nregistry: team\nname: app-{number}\ncontext: https://git.example/app-{number}.git#main\n\
             images: ['app-{number}:{{{{.Run.ID}}}}']\ntimers: [{{name: nightly, schedule: '0 3 * * *'}}]\n"
        )
    });
    tasks.collect()
}

const REGISTRY: &str = "\
kind: registry
name: team
host: registry.example
credentials: {username: ann, password: {file: ../password}}
---
kind: hook
registry: team
provider: github
repositories: [https://git.example/app-0.git]
secret: {file: ../password}
";

#[tokio::test(flavor = "multi_thread")]
async fn files_make_fifty_tasks_and_the_second_time_nothing() {
    let gantry = Gantry::up().await;
    std::fs::write(gantry.folder.path().join("password"), "needle-of-a-password").unwrap();
    write(&gantry, "team.yaml", REGISTRY);
    write(&gantry, "tasks/all.yml", &tasks(50));
    write(&gantry, "tasks/.hidden.yaml", "kind: nonsense");
    write(&gantry, "README.md", "no declaration");

    let dry = apply(&gantry, &["--dry-run"]).await;
    assert!(dry.contains("52 to create") && dry.contains("nothing was done"), "{dry}");
    assert_eq!(gantry.json(&["registry", "list"]).await.as_array().unwrap().len(), 1);
    let made = apply(&gantry, &[]).await;
    assert!(made.contains("52 to create, 0 to change, 0 to delete, 0 as declared"), "{made}");
    for _ in 0..2 {
        let again = apply(&gantry, &["--prune"]).await;
        assert_eq!(again.trim(), "0 to create, 0 to change, 0 to delete, 52 as declared");
    }

    // One changes, one is new, one is no longer declared, and one was made by hand.
    write(
        &gantry,
        "tasks/all.yml",
        &tasks(51).replace("app-7:{{", "seven:{{").replace("name: app-9\n", "name: ninth\n"),
    );
    let by_hand = [
        "task",
        "create",
        "-r",
        "team",
        "-n",
        "by-hand",
        "-c",
        "https://git.example/x.git",
        "-t",
        "x:1",
    ];
    gantry.ok(&by_hand).await;
    let changed = apply(&gantry, &[]).await;
    assert!(changed.contains("~ task team/app-7\n    images: "), "{changed}");
    assert!(changed.contains("2 to create, 1 to change, 0 to delete"), "{changed}");
    let pruned = gantry.json(&["apply", "-f", "declared", "--prune"]).await;
    let deleted: Vec<_> =
        pruned.as_array().unwrap().iter().map(|it| (&it["action"], &it["name"])).collect();
    let names = [serde_json::json!("by-hand"), serde_json::json!("app-9")];
    assert_eq!(deleted, [(&"delete".into(), &names[0]), (&"delete".into(), &names[1])]);
    let again = apply(&gantry, &["--prune"]).await;
    assert!(again.starts_with("0 to create, 0 to change, 0 to delete"), "{again}");

    // What is exported declares the same, and tells no secret.
    let exported = gantry.ok(&["export", "-r", "team"]).await;
    assert!(exported.contains("env: TEAM_PASSWORD") && !exported.contains("needle"), "{exported}");
    gantry.ok(&["export", "--to", "copy"]).await;
    let same = gantry.ok(&["apply", "-f", "copy", "--prune", "--dry-run"]).await;
    assert!(same.starts_with("0 to create, 0 to change, 0 to delete"), "{same}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_any_file_leaves_everything_as_it_is() {
    let gantry = Gantry::up().await;
    write(&gantry, "team.yaml", REGISTRY);
    write(
        &gantry,
        "bad.yaml",
        "kind: task\nregistry: team\nname: x\ncontext: /dev/null\nimagess: []\n",
    );
    write(&gantry, "worse.yaml", "kind: task\n  name: [\n");
    let refused = gantry.run(&["apply", "-f", "declared"]).await;
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    for expected in ["bad.yaml, document 1: unknown field `imagess`", "worse.yaml: "] {
        assert!(said.contains(expected), "{said}");
    }
    std::fs::remove_file(gantry.folder.path().join("declared/bad.yaml")).unwrap();
    std::fs::remove_file(gantry.folder.path().join("declared/worse.yaml")).unwrap();
    // A secret that is not there is found before the first request.
    let refused = gantry.run(&["apply", "-f", "declared"]).await;
    assert!(
        text(&refused).contains("credentials.password: cannot read the secret in"),
        "{}",
        text(&refused)
    );
    assert_eq!(gantry.json(&["registry", "list"]).await.as_array().unwrap().len(), 1);

    // What the server refuses does not keep the rest from being made.
    std::fs::write(gantry.folder.path().join("password"), "a-password-of-16-or-more").unwrap();
    write(
        &gantry,
        "tasks.yaml",
        &tasks(3).replace("'0 3 * * *'", "'61 3 * * *'").replacen("'61 3", "'1 3", 1),
    );
    let half = gantry.run(&["apply", "-f", "declared"]).await;
    assert_eq!(half.status.code(), Some(1), "{}", text(&half));
    assert!(
        text(&half).contains("task team/app-1: ") && text(&half).contains("2 of 5 changes failed"),
        "{}",
        text(&half)
    );
    write(&gantry, "tasks.yaml", &tasks(3));
    let rest = gantry.ok(&["apply", "-f", "declared"]).await;
    assert!(rest.contains("2 to create, 1 to change, 0 to delete, 2 as declared"), "{rest}");
    assert!(Path::new(gantry.folder.path()).join("declared").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_sent_when_it_is_wanted_and_is_in_no_output() {
    let gantry = Gantry::up().await;
    let document = "\
kind: task
registry: demo
name: web
context: https://git.example/web.git#main
images: ['web:1']
git_token: {env: GIT_TOKEN}
secret_build_args: {NPM: {env: NPM}}
";
    write(&gantry, "web.yaml", document);
    let with = async |values: [&str; 2], arguments: &[&str]| {
        let mut program: Command = gantry.program();
        program.args(["apply", "-f", "declared"]).args(arguments);
        let output =
            program.env("GIT_TOKEN", values[0]).env("NPM", values[1]).output().await.unwrap();
        let said = text(&output);
        assert!(output.status.success() && !said.contains("needle"), "{said}");
        said
    };
    let made = with(["needle-1", "needle-2"], &[]).await;
    assert!(made.contains("+ task demo/web"), "{made}");
    let task = gantry.json(&["task", "show", "-r", "demo", "-n", "web"]).await;
    assert_eq!(
        (&task["has_git_token"], &task["secret_build_args"]),
        (&true.into(), &serde_json::json!(["NPM"]))
    );
    let revision = task["revision"].as_u64().unwrap();

    // The variables are not needed, and not read, while nothing is to be sent.
    let same = gantry.ok(&["apply", "-f", "declared"]).await;
    assert!(same.contains("1 as declared"), "{same}");
    let again = with(["needle-3", "needle-4"], &["--set-secrets"]).await;
    assert!(again.contains("    git_token: set\n    secret_build_args.NPM: set\n"), "{again}");
    let task = gantry.json(&["task", "show", "-r", "demo", "-n", "web"]).await;
    assert_eq!(task["revision"].as_u64().unwrap(), revision + 1);

    // Another context must not see the secrets of the former one, unless they are given for it.
    write(&gantry, "web.yaml", &document.replace("web.git", "other.git"));
    let refused = gantry.run(&["apply", "-f", "declared"]).await;
    assert!(
        text(&refused).contains("GIT_TOKEN is not set in the environment"),
        "{}",
        text(&refused)
    );
    let moved = with(["needle-5", "needle-6"], &[]).await;
    assert!(moved.contains("context: https://git.example/web.git#main -> "), "{moved}");
    let none = document.lines().filter(|line| !line.contains("env")).collect::<Vec<_>>().join("\n");
    write(&gantry, "web.yaml", &none);
    let removed = gantry.ok(&["apply", "-f", "declared"]).await;
    assert!(removed.contains("secret_build_args.NPM: removed"), "{removed}");
    let task = gantry.json(&["task", "show", "-r", "demo", "-n", "web"]).await;
    assert_eq!(
        (&task["has_git_token"], &task["secret_build_args"]),
        (&false.into(), &serde_json::json!([]))
    );
}
