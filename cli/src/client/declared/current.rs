//! What the server has, in the form of what is declared.

use std::collections::BTreeMap;

use anyhow::Result;
use gantry_api::{
    Credentials, Hook, HookCreate, Login, LoginCreate, Registry, RegistryCreate, Task, TaskCreate,
    TaskFileCreate,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::document::pointer;
use super::{Kind, Object};
use crate::client::Client;

/// The most objects of one kind in a registry.
const MOST: usize = 100_000;

/// Reads everything of the registries that `wanted` accepts, and all registries' own settings.
pub(crate) async fn read(client: &Client, wanted: impl Fn(&str) -> bool) -> Result<Vec<Object>> {
    let registries: Vec<Registry> = client.api.list(&["registries"], &[], MOST).await?;
    let mut objects = Vec::new();
    for registry in registries.into_iter().filter(|registry| wanted(&registry.name)) {
        let name = registry.name.clone();
        objects.push(of_registry(registry));
        let of_registry = [("registry", Some(name.as_str()))];
        let tasks: Vec<Task> = client.api.list(&["tasks"], &of_registry, MOST).await?;
        objects.extend(tasks.into_iter().map(of_task));
        let hooks: Vec<Hook> = client.api.list(&["hooks"], &of_registry, MOST).await?;
        // Those that gantry has made itself come and go with their tasks.
        objects.extend(hooks.into_iter().filter(|hook| !hook.provisioned).map(of_hook));
    }
    Ok(objects)
}

fn of_registry(registry: Registry) -> Object {
    let Registry { name, host, run_prefix: _, username, credential_helper, run_limit, created: _ } =
        registry;
    let mut set = Secrets::default();
    let credentials = username.map(|username| Credentials {
        username,
        password: set.note("/credentials/password".to_owned()),
    });
    let run_limit = Some(run_limit);
    let request =
        RegistryCreate { name: name.clone(), host, credentials, credential_helper, run_limit };
    Object::of(Kind::Registry, name, fields(&request), set.0)
}

fn of_task(task: Task) -> Object {
    let Task {
        registry,
        name,
        revision: _,
        status,
        context,
        lfs,
        submodules,
        task_file,
        dockerfile,
        images,
        build_args,
        secret_build_args,
        credentials,
        target,
        platform,
        timeout,
        push,
        no_cache,
        source_trigger,
        base_image_trigger,
        base_image_follow,
        timers,
        has_git_token,
        git_host_keys,
        report_status,
        has_api_token,
        run_limit,
        concurrency_group,
        webhook: _,
        created: _,
        updated: _,
    } = task;
    let mut set = Secrets::default();
    let request = TaskCreate {
        name,
        context,
        lfs,
        submodules,
        task_file: task_file.map(|file| TaskFileCreate {
            text: file.text,
            path: file.path,
            values_file: file.values_file,
            values: file.values,
            secret_values: set.named("/task_file/secret_values", file.secret_values),
            secrets: file.secrets,
        }),
        dockerfile,
        images,
        build_args,
        secret_build_args: set.named("/secret_build_args", secret_build_args),
        credentials: credentials.into_iter().map(|login| set.login(login)).collect(),
        target,
        platform: Some(platform),
        timeout: Some(timeout),
        push,
        no_cache,
        status: Some(status),
        source_trigger,
        base_image_trigger,
        base_image_follow,
        timers: timers.into_iter().map(|timer| gantry_api::Timer { next: None, ..timer }).collect(),
        git_token: has_git_token.then(|| set.note("/git_token".to_owned())),
        git_host_keys,
        report_status,
        api_token: has_api_token.then(|| set.note("/api_token".to_owned())),
        run_limit,
        concurrency_group,
    };
    Object::of(Kind::Task, registry, fields(&request), set.0)
}

fn of_hook(hook: Hook) -> Object {
    let Hook { id, registry, provider, mapping, repositories, secrets, .. } = hook;
    let mut set = Secrets::default();
    let secret = (!secrets.is_empty()).then(|| set.note("/secret".to_owned()));
    let request = HookCreate { provider, mapping, repositories, secret };
    let object = Object::of(Kind::Hook, registry, fields(&request), set.0);
    Object { id: Some(id), ..object }
}

/// The secrets that are set, while their places in a request are filled.
#[derive(Default)]
struct Secrets(BTreeMap<String, Option<super::SecretPlace>>);

impl Secrets {
    /// Notes a secret, and returns what stands in its place.
    fn note(&mut self, pointer: String) -> String {
        self.0.insert(pointer, None);
        String::new()
    }

    fn login(&mut self, (server, login): (String, Login)) -> (String, LoginCreate) {
        let Login { username, username_secret, password_secret } = login;
        let place = format!("{}/password", pointer("/credentials", &server));
        let password = password_secret.is_none().then(|| self.note(place));
        (server, LoginCreate { username, username_secret, password, password_secret })
    }

    fn named(&mut self, map: &str, names: Vec<String>) -> BTreeMap<String, String> {
        names.into_iter().map(|name| (name.clone(), self.note(pointer(map, &name)))).collect()
    }
}

fn fields(request: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(request) {
        Ok(Value::Object(fields)) => fields,
        // Every request is an object of texts, numbers and lists.
        Ok(_) | Err(_) => Map::new(),
    }
}
