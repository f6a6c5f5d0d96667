//! Tasks as tables.

use gantry_api::Task;

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
    match &task.source_trigger {
        Some(trigger) if trigger.status == "Enabled" => "SOURCE".to_owned(),
        Some(_) | None => String::new(),
    }
}

pub(super) fn details(task: &Task) -> Details {
    let mut details = Details::default();
    let trigger = task.source_trigger.as_ref().map(|trigger| {
        let branch = trigger.branch.as_deref().unwrap_or("the context's branch");
        format!("push to {branch}, {}", trigger.status)
    });
    details
        .line("task", &task.name)
        .line("registry", &task.registry)
        .line("status", &task.status)
        .line("context", &task.context)
        .maybe("dockerfile", task.dockerfile.as_ref())
        .each("images", &task.images)
        .maybe("push", task.dockerfile.as_ref().map(|_| if task.push { "yes" } else { "no" }))
        .each("arguments", task.build_args.iter().map(|(name, value)| format!("{name}={value}")))
        .each("secret arguments", &task.secret_build_args)
        .maybe("target", task.target.as_ref());
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
        .line("trigger", trigger.as_deref().unwrap_or("none: `gantry task run` starts it"))
        .maybe("git token", task.has_git_token.then_some("kept"))
        .line("revision", task.revision)
        .line("created", instant(&task.created))
        .line("updated", instant(&task.updated));
    details
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
            "created": "2026-03-09T20:30:10.123Z", "updated": "2026-03-09T20:30:10.123Z"
        }))
        .unwrap()
    }

    #[test]
    fn tasks_are_listed_as_the_original_lists_them() {
        let disabled = json!({"name": "t", "status": "Disabled"});
        insta::assert_snapshot!(table(&[task(json!({"name": "t"})), task(disabled), task(json!(null))]), @r"
        NAME   REGISTRY  PLATFORM     STATUS   SOURCE REPOSITORY                   TRIGGERS
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main  SOURCE
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main
        hello  demo      linux/amd64  Enabled  https://git.example/hello.git#main
        ");
    }

    #[test]
    fn a_task_is_shown_without_its_secrets() {
        insta::assert_snapshot!(details(&task(json!({"name": "t"}))), @r"
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
        trigger           push to the context's branch, Enabled
        git token         kept
        revision          1
        created           2026-03-09T20:30:10Z
        updated           2026-03-09T20:30:10Z
        ");
    }
}
