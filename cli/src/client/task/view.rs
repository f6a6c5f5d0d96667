//! Tasks as tables.

use gantry_api::{
    BaseImageTrigger, PathRules as TriggerPaths, SourceTrigger, Task, TaskWebhook, Timer,
};

use crate::client::table::{Details, Table, instant};

pub(super) fn table(tasks: &[Task]) -> Table<6> {
    let mut table = Table::new(
        ["NAME", "REGISTRY", "PLATFORM", "STATUS", "SOURCE REPOSITORY", "TRIGGERS"],
        "no tasks: `gantry task create --help` shows how to make one",
    );
    for task in tasks {
        table.row([
            task.name.clone(),
            task.registry.clone(),
            task.platform.clone(),
            task.status.clone(),
            task.context.clone(),
            triggers(task),
        ]);
    }
    table
}

fn triggers(task: &Task) -> String {
    let mut triggers = Vec::new();
    if task.source_trigger.as_ref().is_some_and(|trigger| !starts(trigger).is_empty()) {
        triggers.push("SOURCE");
    }
    if task.timers.iter().any(|timer| timer.status == "Enabled") {
        triggers.push("TIMER");
    }
    if task.base_image_trigger.as_ref().is_some_and(is_enabled) {
        triggers.push("BASE_IMAGE");
    }
    triggers.join(", ")
}

fn is_enabled(trigger: &BaseImageTrigger) -> bool {
    trigger.status == "Enabled"
}

fn base_image(trigger: &BaseImageTrigger) -> String {
    let what = match trigger.kind.as_str() {
        "Runtime" => "change of the base of an image that it builds",
        _ => "change of any image that it needs",
    };
    match trigger.images.as_slice() {
        [] => what.to_owned(),
        images => format!("{what}: only {}", images.join(", ")),
    }
}

fn timer(timer: &Timer) -> String {
    let Timer { name, schedule, timezone, misfire, overlap, .. } = timer;
    let mut text = format!("timer {name}: {schedule} {timezone}");
    if overlap != "allow" {
        text.push_str(&format!(", overlap: {overlap}"));
    }
    if misfire != "once" {
        text.push_str(&format!(", misfire: {misfire}"));
    }
    match &timer.next {
        Some(next) => text.push_str(&format!(", next {}", instant(next))),
        None if timer.status == "Disabled" => text.push_str(", disabled"),
        None => {}
    }
    text
}

/// What starts the task, a line each; empty if nothing does.
fn starts(trigger: &SourceTrigger) -> Vec<String> {
    let (commit, pull_request) = (&trigger.commit, &trigger.pull_request);
    let own = trigger.branch.clone().unwrap_or_else(|| "the context's branch".to_owned());
    let branches = |patterns: &[String]| match patterns {
        [] => own.clone(),
        patterns => patterns.join(", "),
    };
    let mut lines = Vec::new();
    if commit.status == "Enabled" {
        lines.push(format!("push to {}", branches(&commit.branches)));
        if !commit.tags.is_empty() {
            lines.push(format!("tag {}", commit.tags.join(", ")));
        }
    }
    if pull_request.status == "Enabled" {
        let forks = match pull_request.forks.as_str() {
            "hold" => "forks are held for approval",
            "run" => "forks run without secrets",
            _ => "forks start nothing",
        };
        let (into, builds) = (branches(&pull_request.branches), &pull_request.builds);
        lines.push(format!("pull request into {into}, builds its {builds}; {forks}"));
    }
    if lines.is_empty() {
        return lines;
    }
    let TriggerPaths { included, ignored } = &trigger.paths;
    if !included.is_empty() {
        lines.push(format!("only if one of these changed: {}", included.join(", ")));
    }
    if !ignored.is_empty() {
        lines.push(format!("changes of these do not count: {}", ignored.join(", ")));
    }
    if trigger.supersede != "none" {
        lines.push(format!("a newer change cancels older runs: {}", trigger.supersede));
    }
    if let Some(seconds) = trigger.poll {
        lines.push(format!("looked for every {seconds} s"));
    }
    lines
}

pub(super) fn details(task: &Task) -> Details {
    let mut details = Details::default();
    let has_key = task.context.starts_with("ssh://");
    let mut starts = task.source_trigger.as_ref().map(starts).unwrap_or_default();
    starts.extend(task.timers.iter().map(timer));
    starts.extend(task.base_image_trigger.as_ref().filter(|it| is_enabled(it)).map(base_image));
    details
        .line("task", &task.name)
        .line("registry", &task.registry)
        .line("status", &task.status)
        .line("context", &task.context)
        .maybe("files of Git LFS", task.lfs.then_some("fetched"))
        .maybe("submodules", task.submodules.then_some("fetched"))
        .maybe("dockerfile", task.dockerfile.as_ref())
        .each("images", &task.images)
        .maybe("push", task.dockerfile.as_ref().map(|_| if task.push { "yes" } else { "no" }))
        .each("arguments", task.build_args.iter().map(|(name, value)| format!("{name}={value}")))
        .each("secret arguments", &task.secret_build_args)
        .maybe("target", task.target.as_ref())
        .each("credentials", task.credentials.keys());
    if let Some(file) = &task.task_file {
        details
            .line("task file", file.path.as_deref().unwrap_or("given with the task"))
            .maybe("values file", file.values_file.as_ref())
            .each("values", file.values.iter().map(|(name, value)| format!("{name}={value}")))
            .each("secret values", &file.secret_values)
            .each("secrets", file.secrets.iter().map(|(id, source)| format!("{id} is {source}")))
            .each("text", file.text.iter().flat_map(|text| text.lines()));
    }
    details
        .line("platform", &task.platform)
        .line("timeout", format_args!("{} s", task.timeout))
        .maybe("cache", task.no_cache.then_some("not used"))
        .maybe("run limit", task.run_limit)
        .maybe("concurrency group", task.concurrency_group.as_ref())
        .each(
            "triggers",
            match starts.is_empty() {
                true => vec!["none: `gantry task run` starts it".to_owned()],
                false => starts,
            },
        )
        .each("follows", &task.base_image_follow)
        .maybe(
            if has_key { "deploy key" } else { "git token" },
            task.has_git_token.then_some("kept"),
        )
        .each("host keys", &task.git_host_keys)
        .line("commit status", if task.report_status { "reported" } else { "not reported" })
        .maybe("webhook", task.webhook.as_ref().map(webhook))
        .maybe("API token", task.has_api_token.then_some("kept"))
        .line("revision", task.revision)
        .line("created", instant(&task.created))
        .line("updated", instant(&task.updated));
    details
}

fn webhook(webhook: &TaskWebhook) -> String {
    let message = webhook.message.as_deref().unwrap_or_default();
    match webhook.state.as_str() {
        "InPlace" => {
            let checked = webhook.checked.as_deref().map(instant);
            format!("in place, seen {}", checked.unwrap_or_default())
        }
        "Problem" => format!("problem: {message}"),
        "ByHand" => format!("by hand: {message}"),
        _ => "pending".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(trigger: serde_json::Value) -> Task {
        serde_json::from_value(json!({
            "registry": "demo", "name": "hello", "revision": 1, "status": "Enabled",
            "context": "https://git.example/hello.git#main", "dockerfile": "Dockerfile",
            "images": ["hello:{{.Run.ID}}", "hello:latest"], "build_args": {"A": "1"},
            "secret_build_args": ["NPM"], "platform": "linux/amd64", "timeout": 3600, "push": true,
            "no_cache": false, "source_trigger": trigger, "has_git_token": true,
            "base_image_trigger": {"images": ["node:*", "ghcr.io/**"]},
            "base_image_follow": ["docker.io/library/node:20.*"],
            "timers": [{"name": "t1", "schedule": "0 3 * * *", "overlap": "skip", "next": "2026-03-10T03:00:00.000Z"}],
            "report_status": true, "has_api_token": true,
            "created": "2026-03-09T20:30:10.123Z", "updated": "2026-03-09T20:30:10.123Z"
        }))
        .unwrap()
    }

    #[test]
    fn tasks_are_listed_as_the_original_lists_them() {
        let disabled = json!({"name": "t", "commit": {"status": "Disabled"}});
        insta::assert_snapshot!(table(&[task(json!({"name": "t"})), task(disabled), task(json!(null))]), @r"
        NAME   REGISTRY  PLATFORM     STATUS   SOURCE REPOSITORY                   TRIGGERS
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main  SOURCE, TIMER, BASE_IMAGE
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main  TIMER, BASE_IMAGE
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main  TIMER, BASE_IMAGE
        ");
    }

    #[test]
    fn a_task_shows_how_its_webhook_stands() {
        for (state, told) in [
            (json!({"state": "Pending"}), "pending"),
            (
                json!({"state": "InPlace", "checked": "2026-03-09T20:30:10.123Z"}),
                "in place, seen 2026-03-09T20:30:10Z",
            ),
            (
                json!({"state": "Problem", "message": "it needs the scope `x`"}),
                "problem: it needs the scope `x`",
            ),
            (json!({"state": "ByHand", "message": "no token"}), "by hand: no token"),
        ] {
            assert_eq!(webhook(&serde_json::from_value(state).unwrap()), told);
        }
    }

    #[test]
    fn a_task_is_shown_without_its_secrets() {
        insta::assert_snapshot!(details(&task(json!({
            "name": "t", "commit": {"tags": ["v*"]}, "pull_request": {"status": "Enabled"},
            "paths": {"included": ["web/**"], "ignored": ["**/*.md"]}, "supersede": "queued", "poll": 60
        }))), @r"
        task              hello
        registry          demo
        status            Enabled
        context           https://git.example/hello.git#main
        dockerfile        Dockerfile
        images            hello:{{.Run.ID}}
                          hello:latest
        push              yes
        arguments         A=1
        secret arguments  NPM
        platform          linux/amd64
        timeout           3600 s
        triggers          push to the context's branch
                          tag v*
                          pull request into the context's branch, builds its merge; forks are held for approval
                          only if one of these changed: web/**
                          changes of these do not count: **/*.md
                          a newer change cancels older runs: queued
                          looked for every 60 s
                          timer t1: 0 3 * * * UTC, overlap: skip, next 2026-03-10T03:00:00Z
                          change of the base of an image that it builds: only node:*, ghcr.io/**
        follows           docker.io/library/node:20.*
        git token         kept
        commit status     reported
        API token         kept
        revision          1
        created           2026-03-09T20:30:10Z
        updated           2026-03-09T20:30:10Z
        ");
    }
}
