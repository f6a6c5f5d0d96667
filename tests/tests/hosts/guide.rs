//! The commands of `docs/code-hosts.md`, as it prints them, against the stand-in of each code host.

use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_tests::hosts::azure_devops::{self, AzureDevOpsServer};
use gantry_tests::hosts::bitbucket::{self, BitbucketServer};
use gantry_tests::hosts::gitea::{self, GiteaServer};
use gantry_tests::hosts::github::{self, GitHubServer};
use gantry_tests::hosts::gitlab::{self, GitLabServer};
use gantry_tests::role;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

/// The time limit for everything that gantry does by itself.
const WITHIN: Duration = Duration::from_secs(60);

/// A running `gantry up`, with its client.
struct Gantry {
    folder: TempDir,
    address: String,
    _up: Child,
}

impl Gantry {
    /// Starts it, with the stand-in as a code host.
    async fn up(code_host: &str) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (folder, address) = (tempfile::tempdir().unwrap(), free.to_string());
        let mut up = program(&folder)
            .args(["up", "--data", "data", "--listen", &address])
            // Nothing is built.
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .env("GANTRY_OUTBOUND_ALLOW", "127.0.0.1")
            .env("GANTRY_SERVER_PUBLIC_URL", format!("http://{address}"))
            .env("GANTRY_CODE_HOSTS_APIS", code_host)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(up.stdout.take().unwrap()).lines();
        let mut words = Vec::new();
        while let Some(line) = said.next_line().await.unwrap() {
            let is_last = line.starts_with("Ctrl-C");
            words.push(line);
            if is_last {
                tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
                return Self { folder, address, _up: up };
            }
        }
        panic!("it does not come up: {words:#?}");
    }

    /// Runs a command line of the guide, with the token on its standard input.
    async fn run(&self, line: &str, token: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "gantry", "{line}");
        let mut child = program(&self.folder)
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {}\n{said}{errors}", output.status);
        said
    }

    /// Waits until the task's webhook is there.
    async fn until_in_place(&self) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let task = self.run("gantry task show -n web -o json", "").await;
            let task: Value = serde_json::from_str(&task).unwrap();
            if task["webhook"]["state"] == "InPlace" {
                return;
            }
            assert!(Instant::now() < deadline, "{task:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Delivers a body to the webhook's address.
    async fn deliver(&self, webhook: &Webhook, secret: &str) -> u16 {
        assert!(webhook.url.starts_with(&format!("http://{}/hooks/", self.address)));
        let body = "{}";
        let headers = (webhook.headers)(secret, body.as_bytes());
        // An error means that it was already installed.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let mut request = reqwest::Client::builder().no_proxy().build().unwrap().post(&webhook.url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header("content-type", "application/json").body(body);
        request.send().await.unwrap().status().as_u16()
    }
}

fn program(folder: &TempDir) -> Command {
    let mut command = Command::new(role::gantry());
    command
        .env_clear()
        .env("PATH", "/nonexistent")
        .env("HOME", folder.path())
        .env("GANTRY_CONFIG", folder.path().join("client.toml"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A webhook that a stand-in has, and how it proves its deliveries.
struct Webhook {
    url: String,
    secret: String,
    headers: fn(&str, &[u8]) -> Headers,
}

type Headers = Vec<(&'static str, String)>;

/// The commands of the guide for a code host, with the stand-in's address in place of `url`.
fn commands(title: &str, url: &str, at: &str) -> Vec<String> {
    let guide = include_str!("../../../docs/code-hosts.md");
    let (_, section) = guide.split_once(&format!("\n### {title}\n")).unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    assert!(block.contains(url), "{title}: {block}");
    block.replace(url, at).lines().map(str::to_owned).collect()
}

/// Runs the two commands, and shows that the webhook is there, is believed, and goes with its task.
async fn sets_up(
    commands: Vec<String>,
    token: &str,
    code_host: &str,
    webhook: impl Fn() -> Option<Webhook>,
) {
    let gantry = Gantry::up(code_host).await;
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in &commands {
        gantry.run(command, token).await;
    }
    gantry.until_in_place().await;
    let there = webhook().expect("a webhook");
    assert_ne!(gantry.deliver(&there, &there.secret).await, 401);
    assert_eq!(gantry.deliver(&there, "another").await, 401);
    gantry.run("gantry hook doctor", "").await;

    gantry.run("gantry task delete -n web", "").await;
    let deadline = Instant::now() + WITHIN;
    while webhook().is_some() {
        assert!(Instant::now() < deadline, "the webhook stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}

fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_s_two_commands_set_a_repository_up_at_github() {
    let host = GitHubServer::start().await.unwrap();
    let commands = commands("GitHub", "https://github.com/octo/web.git", &host.url());
    sets_up(commands, github::TOKEN, &host.entry(), || {
        let state = host.state();
        let hook = state.hooks.all.first()?;
        Some(Webhook {
            url: text(&hook["config"]["url"]),
            secret: text(&hook["config"]["secret"]),
            headers: |secret, body| {
                let signature = format!("sha256={}", signature(secret, body));
                vec![
                    ("x-hub-signature-256", signature),
                    ("x-github-event", "ping".to_owned()),
                    ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned()),
                ]
            },
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_s_two_commands_set_a_repository_up_at_azure_devops() {
    let host = AzureDevOpsServer::start().await.unwrap();
    let url = "https://dev.azure.com/fabrikam/Shop/_git/Web";
    let commands = commands("Azure DevOps", url, &host.url());
    sets_up(commands, azure_devops::TOKEN, &host.entry(), || {
        let state = host.state();
        let inputs = &state.subscriptions.all.first()?["consumerInputs"];
        let headers = inputs["httpHeaders"].as_str().unwrap_or_default();
        let in_header = headers.strip_prefix("X-Gantry-Secret:").map(str::trim);
        let secret = in_header.or(inputs["basicAuthPassword"].as_str());
        Some(Webhook {
            url: text(&inputs["url"]),
            secret: secret.unwrap_or_else(|| panic!("a secret: {inputs}")).to_owned(),
            headers: |secret, _| {
                let pair = STANDARD.encode(format!("gantry:{secret}"));
                vec![("authorization", format!("Basic {pair}"))]
            },
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_s_two_commands_set_a_repository_up_at_gitlab() {
    let host = GitLabServer::start().await.unwrap();
    let commands = commands("GitLab", "https://gitlab.com/group/web.git", &host.url());
    sets_up(commands, gitlab::TOKEN, &host.entry(), || {
        let state = host.state();
        let hook = state.hooks.all.first()?;
        Some(Webhook {
            url: text(&hook["url"]),
            secret: text(&hook["token"]),
            headers: |secret, _| {
                vec![
                    ("x-gitlab-token", secret.to_owned()),
                    ("x-gitlab-event", "Push Hook".to_owned()),
                ]
            },
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_s_two_commands_set_a_repository_up_at_gitea() {
    let host = GiteaServer::start().await.unwrap();
    let commands = commands("Gitea, Forgejo", "https://codeberg.org/octo/web.git", &host.url());
    sets_up(commands, gitea::TOKEN, &host.entry(), || {
        let state = host.state();
        let hook = state.hooks.all.first()?;
        Some(Webhook {
            url: text(&hook["config"]["url"]),
            secret: text(&hook["config"]["secret"]),
            headers: |secret, body| {
                vec![
                    ("x-gitea-signature", signature(secret, body)),
                    ("x-gitea-event", "push".to_owned()),
                    ("x-gitea-delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473".to_owned()),
                ]
            },
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_s_two_commands_set_a_repository_up_at_bitbucket() {
    let host = BitbucketServer::start().await.unwrap();
    let url = "https://bitbucket.org/team/web.git";
    let commands = commands("Bitbucket Cloud", url, &host.url());
    sets_up(commands, bitbucket::TOKEN, &host.entry(), || {
        let state = host.state();
        let hook = state.hooks.all.first()?;
        Some(Webhook {
            url: text(&hook["url"]),
            secret: text(&hook["secret"]),
            headers: |secret, body| {
                let signature = format!("sha256={}", signature(secret, body));
                vec![
                    ("x-hub-signature", signature),
                    ("x-event-key", "repo:push".to_owned()),
                    ("x-request-uuid", "2f9a7c2b-3b8e-4f0a-9c5d-0a1b2c3d4e5f".to_owned()),
                ]
            },
        })
    })
    .await;
}
